//! What the two tasks of a connection and its open slots share: the slots in their order, and how far the connection is.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use super::slot::{Answer, ReplySlot};
use crate::base::budget::Permit;
use crate::base::class::ByClass;
use crate::base::ids::ShardId;
use crate::base::log_request::Requester;
use crate::metrics::Passage;
use crate::net::claims::Claims;
use crate::net::idle::Watched;
use crate::net::reply::FileOf;
use crate::platform::{Platform, Socket};

/// How far a connection is. Only ever goes on to a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Takes requests on.
    Open,
    /// The broker stops: no other request is taken, and the connection closes with the last of its answers.
    Draining,
    /// A request was refused: no other is taken, and the connection closes when those before it are answered.
    Refused,
    Closed,
}

/// Where a request's answer goes, in the order of the requests.
pub(super) enum Slot<F> {
    /// And who is to be told when nobody may take the answer any more, while the request waits for something.
    Waiting(Option<Waker>),
    Ready(Answer<F>),
    /// Has no answer: the connection closes when everything before it is sent.
    Refused,
}

impl<F> Slot<F> {
    fn wake(&mut self) {
        if let Slot::Waiting(waker) = self
            && let Some(waker) = waker.take()
        {
            waker.wake();
        }
    }
}

/// What has happened since somebody looked: what tells a connection that works from an idle one.
#[derive(Default)]
struct Activity {
    /// Something was received.
    received: Cell<bool>,
    /// Received bytes were looked at.
    taken: Cell<bool>,
    /// What had been sent.
    sent_bytes: Cell<u64>,
}

/// State shared by the two tasks and the open slots.
pub(super) struct Connection<P: Platform> {
    pub socket: P::Socket,
    pub listener: Arc<str>,
    /// Large answers of all connections of the shard.
    pub outgoing: Rc<ByClass<Rc<Claims>>>,
    /// The shard, and which of its connections it is: for the log.
    number: (ShardId, u64),
    /// Of the last request.
    pub client_id: RefCell<Option<Rc<str>>>,
    activity: Activity,
    phase: Cell<Phase>,
    /// The peer sends no more; it may still read.
    has_ended: Cell<bool>,
    slots: RefCell<VecDeque<Slot<FileOf<P>>>>,
    /// Number of the first slot in the queue.
    first: Cell<u64>,
    /// Replies are being sent that have no slot any more.
    sending: Cell<bool>,
    reader: Cell<Option<Waker>>,
    writer: Cell<Option<Waker>>,
}

fn wake(place: &Cell<Option<Waker>>) {
    if let Some(waker) = place.take() {
        waker.wake();
    }
}

impl<P: Platform> Connection<P> {
    pub fn new(
        socket: P::Socket,
        listener: Arc<str>,
        outgoing: Rc<ByClass<Rc<Claims>>>,
        number: (ShardId, u64),
    ) -> Connection<P> {
        Connection {
            socket,
            listener,
            outgoing,
            number,
            client_id: RefCell::default(),
            activity: Activity::default(),
            phase: Cell::new(Phase::Open),
            has_ended: Cell::new(false),
            slots: RefCell::default(),
            first: Cell::new(0),
            sending: Cell::new(false),
            reader: Cell::default(),
            writer: Cell::default(),
        }
    }

    pub fn close(&self) {
        if self.phase.replace(Phase::Closed) != Phase::Closed {
            let slots = self.slots.take();
            self.socket.shut_down();
            slots.into_iter().for_each(|mut slot| slot.wake());
        }
        wake(&self.reader);
        wake(&self.writer);
    }

    pub fn is_closed(&self) -> bool {
        self.phase.get() == Phase::Closed
    }

    pub fn takes_requests(&self) -> bool {
        self.phase.get() == Phase::Open
    }

    fn advance(&self, phase: Phase) {
        self.phase.set(self.phase.get().max(phase));
    }

    /// The peer sends no more.
    pub fn peer_has_ended(&self) {
        self.has_ended.set(true);
        self.slots.borrow_mut().iter_mut().for_each(Slot::wake);
    }

    pub fn has_ended(&self) -> bool {
        self.has_ended.get()
    }

    /// Resolves when the peer sends no more, for the request of this number.
    pub async fn ended(&self, number: u64) {
        self.until(number, || self.has_ended()).await;
    }

    /// Resolves when the connection is closed, for the request of this number.
    pub async fn closed(&self, number: u64) {
        self.until(number, || false).await;
    }

    async fn until(&self, number: u64, is_over: impl Fn() -> bool) {
        poll_fn(|context| {
            if self.is_closed() || is_over() {
                return Poll::Ready(());
            }
            let index = (number - self.first.get()) as usize;
            if let Some(Slot::Waiting(waker)) = self.slots.borrow_mut().get_mut(index) {
                *waker = Some(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// Bytes have come, and were looked at.
    pub fn received(&self) {
        self.activity.received.set(true);
        self.activity.taken.set(true);
    }

    /// Bytes have come straight into their place.
    pub fn received_in_place(&self) {
        self.activity.received.set(true);
    }

    pub fn open_slot(self: &Rc<Self>, permit: Permit, passage: Passage) -> ReplySlot<P> {
        let mut slots = self.slots.borrow_mut();
        let number = self.first.get() + slots.len() as u64;
        slots.push_back(Slot::Waiting(None));
        ReplySlot::new(Rc::clone(self), number, permit, passage)
    }

    pub fn open_slots(&self) -> usize {
        self.slots.borrow().len()
    }

    /// Puts what became of the request of this number into its slot.
    pub fn settle(&self, number: u64, slot: Slot<FileOf<P>>) {
        if self.is_closed() {
            return;
        }
        if matches!(slot, Slot::Refused) {
            self.advance(Phase::Refused);
            wake(&self.reader);
        }
        let index = (number - self.first.get()) as usize;
        self.slots.borrow_mut()[index] = slot;
        if index == 0 {
            wake(&self.writer);
        }
    }

    /// Requests are under way, or answers.
    fn is_busy(&self) -> bool {
        !self.slots.borrow().is_empty() || self.sending.get()
    }

    /// Waits until fewer than `count` requests are unanswered; false when no more are taken.
    pub async fn fewer_slots_than(&self, count: usize) -> bool {
        poll_fn(|context| {
            if !self.takes_requests() {
                return Poll::Ready(false);
            }
            if self.open_slots() < count {
                return Poll::Ready(true);
            }
            self.reader.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await
    }

    /// Waits until every request is answered and every answer sent, or the connection closes.
    pub async fn all_sent(&self) {
        poll_fn(|context| {
            if self.is_closed() || !self.is_busy() {
                return Poll::Ready(());
            }
            self.reader.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// Waits for answers that are next in order, which are then being sent; `None` when the connection closes.
    pub async fn ready_replies(&self) -> Option<Vec<Answer<FileOf<P>>>> {
        poll_fn(|context| {
            if self.is_closed() {
                return Poll::Ready(None);
            }
            let replies = self.take_ready();
            if !replies.is_empty() {
                self.sending.set(true);
                return Poll::Ready(Some(replies));
            }
            let is_refused_next = matches!(self.slots.borrow().front(), Some(Slot::Refused));
            if is_refused_next || (self.phase.get() == Phase::Draining && !self.is_busy()) {
                self.close();
                return Poll::Ready(None);
            }
            self.writer.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await
    }

    /// What [`Connection::ready_replies`] gave is sent.
    pub fn sent(&self) {
        self.sending.set(false);
        wake(&self.reader);
    }

    fn take_ready(&self) -> Vec<Answer<FileOf<P>>> {
        let mut slots = self.slots.borrow_mut();
        let count = slots.iter().take_while(|slot| matches!(slot, Slot::Ready(..))).count();
        self.first.set(self.first.get() + count as u64);
        let ready = slots.drain(..count).filter_map(|slot| match slot {
            Slot::Ready(answer) => answer.reply.is_some().then_some(answer),
            Slot::Waiting(_) | Slot::Refused => None,
        });
        let replies = ready.collect();
        if count > 0 {
            wake(&self.reader);
        }
        replies
    }
}

impl<P: Platform> Watched for Connection<P> {
    fn has_moved(&self) -> bool {
        let sent_bytes = self.socket.sent_bytes();
        let has_sent = self.activity.sent_bytes.replace(sent_bytes) != sent_bytes;
        // A request that is being answered keeps its connection; an answer that is not taken does not.
        let is_awaited = !self.sending.get() && !self.slots.borrow().is_empty();
        self.activity.received.take() || has_sent || is_awaited
    }

    fn unread(&self) -> (u64, bool) {
        (self.socket.unread_bytes(), self.activity.taken.take())
    }

    fn close(&self) {
        Connection::close(self);
    }

    /// One that waits for its next request closes here, a busy one with the last of its answers.
    fn drain(&self) {
        self.advance(Phase::Draining);
        if self.is_busy() {
            wake(&self.reader);
            wake(&self.writer);
        } else {
            Connection::close(self);
        }
    }
}

impl<P: Platform> Requester for Connection<P> {
    fn peer(&self) -> String {
        self.socket.peer()
    }

    fn client_id(&self) -> Option<Rc<str>> {
        self.client_id.borrow().clone()
    }

    fn connection(&self) -> String {
        let (ShardId(shard), number) = self.number;
        format!("{shard}-{number}")
    }
}
