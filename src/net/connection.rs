//! One connection: a task that cuts frames and a task that sends replies, and the slots between them.
//!
//! Every frame takes the next slot; replies leave in slot order, whenever they become ready. A request that does not
//! overlap starts when all slots before it are empty again, that is, when every earlier request is answered. A slot
//! that is dropped unfilled closes the connection: an answer is owed, and only silence would be worse. Nothing is read
//! behind it, and what was asked before it is answered first.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;

use super::claims::{Claim, Claims, Peer};
use super::frames::{Cut, FrameCutter};
use super::idle::{Idle, Watched};
use super::quotas::ConnectionPermit;
use super::reply::{FileOf, Reply, ReplySender};
use crate::base::budget::{Budget, Permit};
use crate::base::ids::ShardId;
use crate::base::log_limit::LogLimit;
use crate::base::log_request::{self, Request, RequestName, Requester};
use crate::base::time::Monotonic;
use crate::executor::either;
use crate::metrics::{Passage, ShardCounters};
use crate::platform::{Clock, Platform, Socket, Tasks};
use crate::protocol::frame::{FRAME_PREFIX_BYTES, FrameError};

/// Bounds of each connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// `socket.request.max.bytes`.
    pub frame_bytes_max: usize,
    /// Requests of one connection that may be unanswered; then it is not read.
    pub requests_in_flight_max: usize,
}

/// Large frames are received into memory of this size at first; it grows as their bytes come.
const FRAME_CAPACITY_FIRST_BYTES: usize = 1024 * 1024;

/// What a large frame claims first; each further claim, made as its bytes come, doubles it.
const FIRST_CLAIM_BYTES: usize = 256 * 1024;

/// Answers up to this size are not counted: a connection has at most two that are not sent, besides those of produces.
const ANSWER_UNCOUNTED_BYTES: u64 = 64 * 1024;

/// What is read of later requests while one is handled, give or take a chunk; then the socket rests.
const READ_AHEAD_BYTES_MAX: usize = 64 * 1024;

/// Lines about connections whose bytes are no frames that a shard logs in [`REFUSALS_LOGGED_INTERVAL`].
const REFUSALS_LOGGED_MAX: u32 = 10;
const REFUSALS_LOGGED_INTERVAL: Duration = Duration::from_secs(10);

/// How long answers are still sent on a connection that is not read any more: the peer may have shut down its own
/// direction only, or have sent what can't be understood behind requests that can.
const ANSWERS_AFTER_END_MAX: Duration = Duration::from_secs(5);

/// What all connections of a shard share.
pub struct Shared<P: Platform> {
    pub platform: P,
    pub limits: ConnectionLimits,
    /// Bytes of requests that were received and are not decoded yet, and of produces up to their answer.
    pub request_bytes: Rc<Budget>,
    /// Large requests that are not whole yet.
    pub incoming: Rc<Claims>,
    /// Large answers that are not sent yet.
    pub outgoing: Rc<Claims>,
    pub idle: Rc<Idle>,
    pub counters: Arc<ShardCounters>,
    shard: ShardId,
    /// Connections that there were so far.
    connections: Cell<u64>,
    refusals: LogLimit,
}

impl<P: Platform> Shared<P> {
    /// Requests may take `request_bytes_max`, and so may large answers; requests that are not whole yet come on top, with
    /// half of it, or what the largest takes.
    pub fn new(
        shard: ShardId,
        platform: P,
        limits: ConnectionLimits,
        request_bytes_max: u64,
        counters: Arc<ShardCounters>,
    ) -> Rc<Shared<P>> {
        Rc::new(Shared {
            platform,
            limits,
            request_bytes: Budget::new(request_bytes_max),
            incoming: Claims::new((request_bytes_max / 2).max(limits.frame_bytes_max as u64)),
            outgoing: Claims::new(request_bytes_max),
            idle: Rc::default(),
            counters,
            shard,
            connections: Cell::new(0),
            refusals: LogLimit::new(REFUSALS_LOGGED_INTERVAL, REFUSALS_LOGGED_MAX),
        })
    }
}

/// How a connection came.
#[derive(Debug)]
pub struct Arrival {
    /// Name of the listener that accepted it.
    pub listener: Arc<str>,
    /// Its place among the connections that there may be, where that is bounded.
    pub permit: Option<ConnectionPermit>,
}

/// What understands the frames.
pub trait FrameHandler<P: Platform>: Clone + 'static {
    /// Whether this request may run while earlier ones of the connection do (Produce with Produce).
    fn overlaps(&self, frame: &[u8]) -> bool;

    /// Takes a frame on. Resolves when the next frame may be looked at: an overlapping request resolves when its order
    /// is settled and fills its slot later.
    fn handle(&self, frame: BytesMut, slot: ReplySlot<P>) -> impl Future<Output = ()>;
}

enum Slot<F> {
    Waiting,
    Ready(Answer<F>),
    /// Has no answer: the connection closes when everything before it is sent.
    Refused,
}

/// What became of a request.
struct Answer<F> {
    reply: Option<Reply<F>>,
    passage: Passage,
    /// Of the reply's bytes, until they are sent.
    claim: Option<Claim>,
}

/// A large frame of this connection on its way in.
struct Incoming<P: Platform> {
    connection: Rc<Connection<P>>,
    /// Received, or room was given for them: those are on their way.
    coming_bytes: Cell<u64>,
}

impl<P: Platform> Peer for Incoming<P> {
    fn moved_bytes(&self) -> u64 {
        self.coming_bytes.get()
    }

    fn close(&self) {
        self.connection.close();
    }
}

/// A large answer of this connection on its way out.
struct Outgoing<P: Platform> {
    connection: Rc<Connection<P>>,
    sent_bytes_before: u64,
}

impl<P: Platform> Peer for Outgoing<P> {
    fn moved_bytes(&self) -> u64 {
        self.connection.socket.sent_bytes() - self.sent_bytes_before
    }

    fn close(&self) {
        self.connection.close();
    }
}

/// State shared by the two tasks and the open slots.
pub struct Connection<P: Platform> {
    socket: P::Socket,
    listener: Arc<str>,
    /// Large answers of all connections of the shard.
    outgoing: Rc<Claims>,
    /// The shard, and which of its connections it is: for the log.
    number: (ShardId, u64),
    /// Of the last request.
    client_id: RefCell<Option<Rc<str>>>,
    /// Something was received since somebody looked.
    moved: Cell<bool>,
    /// What had been sent when somebody looked last.
    sent_bytes_seen: Cell<u64>,
    /// Received bytes were looked at since somebody looked.
    taken: Cell<bool>,
    slots: RefCell<VecDeque<Slot<FileOf<P>>>>,
    /// Number of the first slot in the queue.
    first: Cell<u64>,
    closing: Cell<bool>,
    /// A request was refused: no other is taken.
    has_refused: Cell<bool>,
    /// The broker stops: no other request is taken, and the connection closes when those under way are answered.
    draining: Cell<bool>,
    reader: Cell<Option<Waker>>,
    writer: Cell<Option<Waker>>,
    /// The request that wants to know when the peer sends no more.
    request: Cell<Option<Waker>>,
    /// The peer sends no more; it may still read.
    has_ended: Cell<bool>,
    /// Replies are being sent that have no slot any more.
    sending: Cell<bool>,
}

/// Where the answer of one request goes.
pub struct ReplySlot<P: Platform> {
    connection: Rc<Connection<P>>,
    number: u64,
    filled: bool,
    passage: Passage,
    /// Of the request's bytes.
    permit: Cell<Option<Permit>>,
    /// Of the answer's bytes, if they are many.
    claim: Option<Claim>,
}

impl<P: Platform> ReplySlot<P> {
    /// Answers the request.
    pub fn fill(mut self, reply: Reply<FileOf<P>>) {
        if let Some(claim) = &self.claim {
            claim.set(reply.bytes_held());
        }
        self.settle(Some(reply));
    }

    /// The request's frame is gone: it was decoded. What the answer needs is held elsewhere.
    pub fn give_back_request_bytes(&self) {
        drop(self.permit.take());
    }

    /// Waits until the answer may take so many bytes, which it may turn out not to need, until it is sent.
    pub async fn claim_answer(&mut self, bytes: u64, clock: &impl Clock) {
        if bytes <= ANSWER_UNCOUNTED_BYTES {
            return;
        }
        let connection = &self.connection;
        let claim = self.claim.get_or_insert_with(|| {
            let sent_bytes_before = connection.socket.sent_bytes();
            let peer = Outgoing { connection: Rc::clone(connection), sent_bytes_before };
            connection.outgoing.begin(None, Rc::new(peer))
        });
        claim.grow_to(bytes, clock).await;
    }

    /// The request has no answer (acks=0).
    pub fn leave_empty(mut self, now: Monotonic) {
        log_done(&self.passage, &*self.connection, now);
        self.settle(None);
    }

    /// How far the request is.
    pub fn passage(&self) -> &Passage {
        &self.passage
    }

    /// Resolves when the peer sends no more: hardly anybody waits for the answer any more. One at a time, by the request
    /// that the connection's others wait for.
    pub async fn closed(&self) {
        poll_fn(|context| {
            if self.connection.closing.get() || self.connection.has_ended.get() {
                return Poll::Ready(());
            }
            self.connection.request.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// It is known what the request calls itself; gives what lines of the log about it say.
    pub fn set_name(&self, name: RequestName, client_id: Option<&str>) -> Request {
        self.passage.set_name(name);
        let mut known = self.connection.client_id.borrow_mut();
        if known.as_deref() != client_id {
            *known = client_id.map(Rc::from);
        }
        Request { name, by: Rc::clone(&self.connection) as _ }
    }

    /// Name of the listener that the request came in on.
    pub fn listener(&self) -> Arc<str> {
        Arc::clone(&self.connection.listener)
    }

    fn settle(&mut self, reply: Option<Reply<FileOf<P>>>) {
        self.filled = true;
        if !self.connection.closing.get() {
            let answer = Answer { reply, passage: self.passage.clone(), claim: self.claim.take() };
            self.put(Slot::Ready(answer));
        }
    }

    fn put(&self, slot: Slot<FileOf<P>>) {
        let connection = &self.connection;
        let index = (self.number - connection.first.get()) as usize;
        connection.slots.borrow_mut()[index] = slot;
        if index == 0 {
            wake(&connection.writer);
        }
    }
}

impl<P: Platform> Drop for ReplySlot<P> {
    fn drop(&mut self) {
        if !self.filled && !self.connection.closing.get() {
            self.connection.has_refused.set(true);
            self.put(Slot::Refused);
            wake(&self.connection.reader);
        }
    }
}

fn wake(place: &Cell<Option<Waker>>) {
    if let Some(waker) = place.take() {
        waker.wake();
    }
}

impl<P: Platform> Connection<P> {
    fn close(&self) {
        if !self.closing.replace(true) {
            self.slots.borrow_mut().clear();
            self.socket.shut_down();
        }
        wake(&self.reader);
        wake(&self.writer);
        wake(&self.request);
    }

    fn peer_has_ended(&self) {
        self.has_ended.set(true);
        wake(&self.request);
    }

    /// Waits until every request is answered and every answer sent, or the connection closes.
    async fn all_sent(&self) {
        poll_fn(|context| {
            if self.closing.get() || !self.is_busy() {
                return Poll::Ready(());
            }
            self.reader.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    fn open_slot(self: &Rc<Self>, permit: Permit, passage: Passage) -> ReplySlot<P> {
        let mut slots = self.slots.borrow_mut();
        let number = self.first.get() + slots.len() as u64;
        slots.push_back(Slot::Waiting);
        let (connection, permit) = (Rc::clone(self), Cell::new(Some(permit)));
        ReplySlot { connection, number, filled: false, passage, permit, claim: None }
    }

    fn takes_requests(&self) -> bool {
        !self.closing.get() && !self.has_refused.get() && !self.draining.get()
    }

    /// Requests are under way, or answers.
    fn is_busy(&self) -> bool {
        !self.slots.borrow().is_empty() || self.sending.get()
    }

    /// Waits until fewer than `count` requests are unanswered; false when the connection closes.
    async fn fewer_slots_than(&self, count: usize) -> bool {
        poll_fn(|context| {
            if !self.takes_requests() {
                return Poll::Ready(false);
            }
            if self.slots.borrow().len() < count {
                return Poll::Ready(true);
            }
            self.reader.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await
    }

    /// Waits for answers that are next in order; `None` when the connection closes.
    async fn ready_replies(&self) -> Option<Vec<Answer<FileOf<P>>>> {
        poll_fn(|context| {
            if self.closing.get() {
                return Poll::Ready(None);
            }
            let replies = self.take_ready();
            let is_drained = self.draining.get() && !self.is_busy();
            if replies.is_empty() && (self.is_refused_next() || is_drained) {
                self.close();
                return Poll::Ready(None);
            }
            if replies.is_empty() {
                self.writer.set(Some(context.waker().clone()));
                return Poll::Pending;
            }
            Poll::Ready(Some(replies))
        })
        .await
    }

    fn is_refused_next(&self) -> bool {
        matches!(self.slots.borrow().front(), Some(Slot::Refused))
    }

    fn take_ready(&self) -> Vec<Answer<FileOf<P>>> {
        let mut slots = self.slots.borrow_mut();
        let count = slots.iter().take_while(|slot| matches!(slot, Slot::Ready(..))).count();
        self.first.set(self.first.get() + count as u64);
        let ready = slots.drain(..count).filter_map(|slot| match slot {
            Slot::Ready(answer) => answer.reply.is_some().then_some(answer),
            Slot::Waiting | Slot::Refused => None,
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
        let has_sent = self.sent_bytes_seen.replace(sent_bytes) != sent_bytes;
        // A request that is being answered keeps its connection; an answer that is not taken does not.
        let is_awaited = !self.sending.get() && !self.slots.borrow().is_empty();
        self.moved.take() || has_sent || is_awaited
    }

    fn unread(&self) -> (u64, bool) {
        (self.socket.unread_bytes(), self.taken.take())
    }

    fn close(&self) {
        Connection::close(self);
    }

    /// One that waits for its next request closes here, a busy one with the last of its answers.
    fn drain(&self) {
        self.draining.set(true);
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

/// Serves a connection until either side ends it. What an idle connection holds counts many thousand times, so the states
/// that only work needs are boxed here and in the writer, while there is work.
pub async fn serve<P: Platform, H: FrameHandler<P>>(
    shared: Rc<Shared<P>>,
    socket: P::Socket,
    arrival: Arrival,
    handler: H,
) {
    let (platform, counters) = (&shared.platform, &shared.counters);
    counters.connections_now.add(1);
    let Arrival { listener, permit } = arrival;
    shared.connections.set(shared.connections.get() + 1);
    let connection = Rc::new(Connection::<P> {
        socket,
        listener,
        outgoing: Rc::clone(&shared.outgoing),
        number: (shared.shard, shared.connections.get()),
        client_id: RefCell::default(),
        moved: Cell::new(false),
        sent_bytes_seen: Cell::new(0),
        taken: Cell::new(false),
        slots: RefCell::default(),
        first: Cell::new(0),
        closing: Cell::new(false),
        has_refused: Cell::new(false),
        draining: Cell::new(false),
        reader: Cell::default(),
        writer: Cell::default(),
        request: Cell::default(),
        has_ended: Cell::new(false),
        sending: Cell::new(false),
    });
    let watched: Rc<dyn Watched> = Rc::clone(&connection) as _;
    let number = shared.idle.watch(watched, platform.clock().now());
    platform.tasks().spawn(write_replies(platform.clone(), Rc::clone(&connection), Arc::clone(counters)));
    match read_frames(&connection, &handler, &shared).await {
        Ok(()) => {}
        Err(Unreadable::Broken(error)) => {
            let (peer, number) = (connection.peer(), connection.connection());
            tracing::debug!(peer, connection = number, %error, "a connection broke");
            connection.close();
        }
        Err(Unreadable::NoFrame(error)) => {
            counters.connections_refused_total.add(1);
            if let Some(left_out) = shared.refusals.allow(platform.clock().now()) {
                let (peer, connection) = (connection.peer(), connection.connection());
                tracing::info!(
                    peer,
                    connection,
                    left_out,
                    %error,
                    "closing a connection that does not speak Kafka's protocol"
                );
            }
        }
    }
    let until = platform.clock().now() + ANSWERS_AFTER_END_MAX;
    let _ = either(connection.all_sent(), platform.clock().sleep_until(until)).await;
    connection.close();
    shared.idle.forget(number);
    counters.connections_now.subtract(1);
    drop(permit);
}

async fn write_replies<P: Platform>(platform: P, connection: Rc<Connection<P>>, counters: Arc<ShardCounters>) {
    while let Some(mut replies) = connection.ready_replies().await {
        let mut sender = ReplySender::new(&platform, &connection.socket, &counters);
        connection.sending.set(true);
        for claim in replies.iter().filter_map(|answer| answer.claim.as_ref()) {
            claim.moves(platform.clock().now());
        }
        match Box::pin(send_all(&mut sender, &mut replies)).await {
            Ok(()) => {
                let now = platform.clock().now();
                for Answer { passage, .. } in &replies {
                    counters.requests.replied(passage, now);
                    log_done(passage, &*connection, now);
                }
            }
            Err(error) => {
                let (peer, number) = (connection.peer(), connection.connection());
                tracing::debug!(peer, connection = number, %error, "connection broke while sending");
                connection.close();
            }
        }
        connection.sending.set(false);
        wake(&connection.reader);
    }
}

/// Logs a finished request, where somebody has asked for that.
fn log_done(passage: &Passage, by: &dyn Requester, now: Monotonic) {
    if log_request::is_done_logged()
        && let Some((name, took_us)) = passage.told(now)
    {
        log_request::log_done(&name, by, took_us);
    }
}

/// What replies hold they keep until all are sent.
async fn send_all<P: Platform>(sender: &mut ReplySender<'_, P>, replies: &mut [Answer<FileOf<P>>]) -> io::Result<()> {
    for answer in replies {
        for part in answer.reply.iter_mut().flat_map(|reply| reply.parts.drain(..)) {
            sender.send(part).await?;
        }
    }
    sender.finish().await
}

/// Why a connection is not read any more.
enum Unreadable {
    /// It ended, not in order.
    Broken(io::Error),
    /// The peer sends something else than frames.
    NoFrame(FrameError),
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Unreadable {
        Unreadable::Broken(error)
    }
}

/// Reads until the peer ends the stream or a request is refused (`Ok`), or until it says what can't be understood.
async fn read_frames<P: Platform, H: FrameHandler<P>>(
    connection: &Rc<Connection<P>>,
    handler: &H,
    shared: &Shared<P>,
) -> Result<(), Unreadable> {
    let limits = shared.limits;
    let mut cutter = FrameCutter::default();
    while connection.takes_requests() {
        let waits = shared.request_bytes.waits();
        let (received, frame, permit) = match cutter.next(limits.frame_bytes_max).map_err(Unreadable::NoFrame)? {
            Cut::Frame(frame) => {
                let received = shared.platform.clock().now();
                let permit = shared.request_bytes.acquire(frame.len() as u64).await;
                (received, frame, permit)
            }
            Cut::Large { beginning, length } => Box::pin(receive_large(connection, shared, beginning, length)).await?,
            Cut::NeedMore => {
                let chunk = connection.socket.receive().await?;
                connection.moved.set(true);
                connection.taken.set(true);
                if chunk.is_empty() {
                    connection.peer_has_ended();
                    return Ok(());
                }
                cutter.push(chunk);
                continue;
            }
        };
        shared.counters.request_bytes_total.add((FRAME_PREFIX_BYTES + frame.len()) as u64);
        let overlaps = handler.overlaps(&frame);
        let unanswered_max = if overlaps { limits.requests_in_flight_max } else { 1 };
        // Mostly nothing was waited for, and one look at the clock will do.
        let has_waited = waits != shared.request_bytes.waits() || connection.slots.borrow().len() >= unanswered_max;
        if !connection.fewer_slots_than(unanswered_max).await {
            return Ok(());
        }
        let started = if has_waited { shared.platform.clock().now() } else { received };
        let came_after = connection.socket.came_after();
        let slot = connection.open_slot(permit, Passage::begin(came_after, received, started));
        let mut handling = Box::pin(handler.handle(frame, slot));
        if overlaps {
            handling.await;
            continue;
        }
        // A client that goes away is noticed while its request is handled. What comes before that belongs to the next
        // frames; it is copied, so that its buffers can go.
        loop {
            if cutter.uncut_bytes() >= READ_AHEAD_BYTES_MAX || connection.has_ended.get() {
                handling.await;
                break;
            }
            match either(handling.as_mut(), connection.socket.receive()).await {
                Ok(()) => break,
                Err(Ok(chunk)) if !chunk.is_empty() => {
                    connection.moved.set(true);
                    connection.taken.set(true);
                    cutter.append(&chunk);
                }
                Err(_) => connection.peer_has_ended(),
            }
        }
    }
    Ok(())
}

/// Receives a frame straight into its memory, which it claims as its bytes come.
async fn receive_large<P: Platform>(
    connection: &Rc<Connection<P>>,
    shared: &Shared<P>,
    mut frame: BytesMut,
    length: usize,
) -> io::Result<(Monotonic, BytesMut, Permit)> {
    let clock = shared.platform.clock();
    let incoming = Rc::new(Incoming { connection: Rc::clone(connection), coming_bytes: Cell::new(0) });
    let claim = shared.incoming.begin(Some(clock.now()), Rc::clone(&incoming) as _);
    frame.reserve(length.min(FRAME_CAPACITY_FIRST_BYTES).saturating_sub(frame.len()));
    let mut claimed = length.min(FIRST_CLAIM_BYTES.max(frame.len()));
    loop {
        claim.grow_to(claimed as u64, clock).await;
        incoming.coming_bytes.set(claimed as u64);
        frame = connection.socket.receive_frame(frame, claimed).await?;
        connection.moved.set(true);
        if claimed == length {
            break;
        }
        claimed = length.min(claimed * 2);
    }
    let received = clock.now();
    let permit = shared.request_bytes.acquire(length as u64).await;
    Ok((received, frame, permit))
}
