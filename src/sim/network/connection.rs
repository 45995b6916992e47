//! One connection: what each side has sent and not heard of, what has arrived there, and how it ends.
//!
//! ```text
//!  sent by one side:   under way ──(arrives, in order)──> inbox of the other ──(read)──> gone
//!  window:             |------------------ held -------------------|   told back on the other way
//!
//!  a socket:  Open ──the peer's end──> PeerEnded ──┬─ its owner ──> Closed     what arrives is answered by a reset
//!               └──────────────────────────────────┼─ a reset, patience ──> Broken      so here, too
//!                                                  └─ power ──> Unpowered      and here, once the host is on again
//! ```
//! Invariants: what is under way arrives in the order in which it was sent; a side that has given up or was reset sends
//! nothing more; at most the way's window is held in each direction, as far as the sender has been told.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::way::Way;
use super::{HostId, Network};
use crate::base::time::Monotonic;
use crate::platform::RECEIVE_CHUNK_BYTES_MAX;

/// How long a sender hears nothing before it gives a connection up: the dice say, for each silence.
const PATIENCE_MIN: Duration = Duration::from_secs(10);
const PATIENCE_MAX: Duration = Duration::from_secs(20);

/// How long it takes at most until what vanished on a cut way is sent again once the way is mended.
const SENT_AGAIN_WITHIN: Duration = Duration::from_millis(200);

/// Within which time each side hears that a connection is lost.
const LOSS_HEARD_WITHIN: Duration = Duration::from_secs(5);

/// Which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Opened,
    Accepted,
}

impl Side {
    pub const BOTH: [Side; 2] = [Side::Opened, Side::Accepted];

    pub fn other(self) -> Side {
        match self {
            Side::Opened => Side::Accepted,
            Side::Accepted => Side::Opened,
        }
    }
}

/// See the head of this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    PeerEnded,
    Broken(io::ErrorKind),
    Closed,
    Unpowered,
}

enum Content {
    Bytes(Bytes),
    /// Nothing comes behind it.
    End,
}

impl Content {
    /// What it counts for while nobody has acknowledged it.
    fn weight(&self) -> usize {
        match self {
            Content::Bytes(bytes) => bytes.len(),
            Content::End => 1,
        }
    }
}

struct Piece {
    arrives: Monotonic,
    content: Content,
}

/// Whether somebody looks if a sender hears of its peer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Watch {
    Asleep,
    Awake,
}

struct End {
    host: HostId,
    address: SocketAddr,
    /// For what this side sends.
    way: Rc<Way>,
    state: Cell<State>,
    inbox: RefCell<BytesMut>,
    under_way: RefCell<VecDeque<Piece>>,
    /// Bytes sent that the peer has not read, as far as this side was told.
    held: Cell<usize>,
    /// Sent and not acknowledged, and since when nothing was.
    unacknowledged: Cell<usize>,
    silent_since: Cell<Monotonic>,
    watch: Cell<Watch>,
    /// What this side could not tell the other: bytes that it has read, and what has arrived here.
    untold_read: Cell<usize>,
    untold_arrived: Cell<usize>,
    reader: Cell<Option<Waker>>,
    writer: Cell<Option<Waker>>,
}

impl End {
    fn new(host: HostId, address: SocketAddr, way: Rc<Way>) -> End {
        End {
            host,
            address,
            way,
            state: Cell::new(State::Open),
            inbox: RefCell::default(),
            under_way: RefCell::default(),
            held: Cell::new(0),
            unacknowledged: Cell::new(0),
            silent_since: Cell::default(),
            watch: Cell::new(Watch::Asleep),
            untold_read: Cell::new(0),
            untold_arrived: Cell::new(0),
            reader: Cell::default(),
            writer: Cell::default(),
        }
    }

    fn is_alive(&self) -> bool {
        matches!(self.state.get(), State::Open | State::PeerEnded)
    }

    fn wake(&self) {
        [&self.reader, &self.writer].into_iter().filter_map(Cell::take).for_each(Waker::wake);
    }
}

/// Whether anything of it still passes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Whole,
    Lost,
}

pub struct Connection {
    network: Network,
    number: u64,
    ends: [End; 2],
    fate: Cell<Fate>,
}

impl Connection {
    pub fn new(
        network: &Network,
        number: u64,
        hosts: [HostId; 2],
        addresses: [SocketAddr; 2],
        ways: [Rc<Way>; 2],
    ) -> Rc<Connection> {
        let [there, back] = ways;
        let ends = [End::new(hosts[0], addresses[0], there), End::new(hosts[1], addresses[1], back)];
        Rc::new(Connection { network: network.clone(), number, ends, fate: Cell::new(Fate::Whole) })
    }

    fn end(&self, side: Side) -> &End {
        &self.ends[side as usize]
    }

    pub fn network(&self) -> &Network {
        &self.network
    }

    pub fn host(&self, side: Side) -> HostId {
        self.end(side).host
    }

    pub fn address(&self, side: Side) -> SocketAddr {
        self.end(side).address
    }

    /// Bytes that `side` has sent and the other has not read.
    pub fn held_bytes(&self, side: Side) -> usize {
        let bytes = |piece: &Piece| match &piece.content {
            Content::Bytes(bytes) => bytes.len(),
            Content::End => 0,
        };
        let under_way: usize = self.end(side).under_way.borrow().iter().map(bytes).sum();
        under_way + self.unread_bytes(side.other())
    }

    pub fn unread_bytes(&self, side: Side) -> usize {
        self.end(side).inbox.borrow().len()
    }

    /// Takes some of what has arrived, at most `limit` bytes, as many as the dice say; none: the end of the stream.
    pub fn poll_receive(&self, side: Side, limit: usize, context: &mut Context<'_>) -> Poll<io::Result<BytesMut>> {
        let end = self.end(side);
        let unread = self.unread_bytes(side);
        if unread > 0 {
            let count = 1 + self.network.world().below(unread.min(limit).min(RECEIVE_CHUNK_BYTES_MAX));
            let bytes = end.inbox.borrow_mut().split_to(count);
            end.untold_read.set(end.untold_read.get() + count);
            self.tell(side);
            return Poll::Ready(Ok(bytes));
        }
        match end.state.get() {
            State::Open => {
                end.reader.set(Some(context.waker().clone()));
                Poll::Pending
            }
            State::PeerEnded | State::Closed | State::Unpowered => Poll::Ready(Ok(BytesMut::new())),
            State::Broken(kind) => Poll::Ready(Err(kind.into())),
        }
    }

    /// How many bytes may be sent now, at least one.
    pub fn poll_room(&self, side: Side, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let end = self.end(side);
        match end.state.get() {
            State::Open | State::PeerEnded => match end.way.window_bytes.get().saturating_sub(end.held.get()) {
                0 => {
                    end.writer.set(Some(context.waker().clone()));
                    Poll::Pending
                }
                room => Poll::Ready(Ok(room)),
            },
            State::Closed | State::Unpowered => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            State::Broken(kind) => Poll::Ready(Err(kind.into())),
        }
    }

    /// Sends bytes for which there is room.
    pub fn send(self: &Rc<Connection>, side: Side, bytes: Bytes) {
        let end = self.end(side);
        end.held.set(end.held.get() + bytes.len());
        if end.way.loses(self.network.world()) {
            self.lose();
        }
        if self.fate.get() == Fate::Whole {
            self.put_under_way(side, Content::Bytes(bytes));
        }
    }

    /// Its owner is done with it. Bytes that nobody has read are answered by a reset.
    pub fn close(self: &Rc<Connection>, side: Side) {
        if !self.end(side).is_alive() {
            return;
        }
        self.end(side).state.set(State::Closed);
        self.end(side).wake();
        if self.fate.get() == Fate::Lost {
            return;
        }
        if self.unread_bytes(side) > 0 {
            self.end(side).under_way.borrow_mut().clear();
            self.reset_from(side);
        } else {
            self.put_under_way(side, Content::End);
        }
    }

    /// Neither reads nor sends from now on, but for what has arrived already.
    pub fn shut_down(self: &Rc<Connection>, side: Side) {
        if self.end(side).is_alive() {
            self.end(side).state.set(State::Closed);
            self.end(side).wake();
            if self.fate.get() == Fate::Whole {
                self.put_under_way(side, Content::End);
            }
        }
    }

    /// Nothing passes any more; each side hears of it at a time of its own.
    pub fn lose(self: &Rc<Connection>) {
        if self.fate.replace(Fate::Lost) == Fate::Lost {
            return;
        }
        self.note("is lost");
        for side in Side::BOTH {
            self.end(side).under_way.borrow_mut().clear();
            let heard = self.dice(LOSS_HEARD_WITHIN);
            let connection = Rc::clone(self);
            self.network.at(self.network.now() + heard, move || {
                connection.break_end(side, io::ErrorKind::ConnectionReset);
            });
        }
    }

    /// The host of this side has no power any more: nothing is sent again, nobody closes anything.
    pub fn lose_power(&self, side: Side) {
        let (end, now) = (self.end(side), self.network.now());
        end.under_way.borrow_mut().retain(|piece| piece.arrives > now);
        end.state.set(State::Unpowered);
        end.wake();
    }

    /// The way on which this side sends is mended, or whom it leads to is on again: what vanished is sent again.
    pub fn way_opened(self: &Rc<Connection>, side: Side) {
        self.tell(side);
        let (end, now) = (self.end(side), self.network.now());
        if end.state.get() == State::Unpowered {
            end.under_way.borrow_mut().clear();
        }
        if end.under_way.borrow().is_empty() {
            return;
        }
        let again = now + end.way.takes(self.network.world()) + self.dice(SENT_AGAIN_WITHIN);
        end.under_way.borrow_mut().iter_mut().for_each(|piece| piece.arrives = piece.arrives.max(again));
        self.deliver_at(side, again);
    }

    fn put_under_way(self: &Rc<Connection>, side: Side, content: Content) {
        let (end, now) = (self.end(side), self.network.now());
        if end.unacknowledged.get() == 0 {
            end.silent_since.set(now);
        }
        end.unacknowledged.set(end.unacknowledged.get() + content.weight());
        let arrives = {
            let mut under_way = end.under_way.borrow_mut();
            let last = under_way.back().map_or(now, |piece| piece.arrives);
            let arrives = last.max(now + end.way.takes(self.network.world()));
            let place = self.place_of_next(&under_way);
            under_way.insert(place, Piece { arrives, content });
            arrives
        };
        if arrives <= now {
            self.deliver(side);
        } else {
            self.deliver_at(side, arrives);
        }
        if end.unacknowledged.get() > 0 {
            self.watch(side);
        }
    }

    #[cfg(not(test))]
    fn place_of_next(&self, under_way: &VecDeque<Piece>) -> usize {
        under_way.len()
    }

    #[cfg(test)]
    fn place_of_next(&self, under_way: &VecDeque<Piece>) -> usize {
        match planted::REORDER_WITHIN_A_CONNECTION.get() {
            true => self.network.world().below(under_way.len() + 1),
            false => under_way.len(),
        }
    }

    fn deliver_at(self: &Rc<Connection>, side: Side, time: Monotonic) {
        let connection = Rc::clone(self);
        self.network.at(time, move || connection.deliver(side));
    }

    /// What this side has sent arrives, as far as its time has come and the way is open.
    fn deliver(self: &Rc<Connection>, side: Side) {
        let (end, now) = (self.end(side), self.network.now());
        while self.passes(side) && end.under_way.borrow().front().is_some_and(|piece| piece.arrives <= now) {
            let piece = end.under_way.borrow_mut().pop_front();
            if let Some(piece) = piece {
                self.arrive(side.other(), piece.content);
            }
        }
    }

    fn arrive(self: &Rc<Connection>, side: Side, content: Content) {
        let end = self.end(side);
        if !end.is_alive() {
            self.end(side.other()).under_way.borrow_mut().clear();
            self.reset_from(side);
            return;
        }
        end.untold_arrived.set(end.untold_arrived.get() + content.weight());
        match content {
            Content::Bytes(bytes) => end.inbox.borrow_mut().extend_from_slice(&bytes),
            Content::End => end.state.set(State::PeerEnded),
        }
        if let Some(reader) = end.reader.take() {
            reader.wake();
        }
        self.tell(side);
    }

    /// Whether what this side sends comes through now.
    fn passes(&self, side: Side) -> bool {
        self.fate.get() == Fate::Whole && self.end(side).way.is_open() && self.network.is_up(self.host(side.other()))
    }

    /// This side lets the other know what has arrived and what was read, if it can.
    fn tell(&self, side: Side) {
        let (end, peer) = (self.end(side), self.end(side.other()));
        if !self.passes(side) || end.state.get() == State::Unpowered {
            return;
        }
        let (arrived, read) = (end.untold_arrived.take(), end.untold_read.take());
        if arrived > 0 {
            peer.unacknowledged.set(peer.unacknowledged.get().saturating_sub(arrived));
            peer.silent_since.set(self.network.now());
        }
        peer.held.set(peer.held.get() - read);
        if read > 0
            && let Some(writer) = peer.writer.take()
        {
            writer.wake();
        }
    }

    /// Tells the other side that there is no such connection here. Like any reset it may be lost.
    fn reset_from(self: &Rc<Connection>, side: Side) {
        let takes = self.end(side).way.takes(self.network.world());
        let connection = Rc::clone(self);
        let heard = move || {
            if connection.passes(side) {
                connection.break_end(side.other(), io::ErrorKind::ConnectionReset);
            }
        };
        if takes.is_zero() {
            heard();
        } else {
            self.network.at(self.network.now() + takes, heard);
        }
    }

    fn break_end(&self, side: Side, kind: io::ErrorKind) {
        let end = self.end(side);
        if end.is_alive() {
            self.note(&format!("breaks at {:?}: {kind}", end.host));
            end.state.set(State::Broken(kind));
        }
        end.under_way.borrow_mut().clear();
        end.unacknowledged.set(0);
        end.wake();
    }

    /// Sees to it that a sender that hears nothing gives up.
    fn watch(self: &Rc<Connection>, side: Side) {
        if self.end(side).watch.replace(Watch::Awake) == Watch::Awake {
            return;
        }
        let connection = Rc::clone(self);
        self.network.0.executor.spawn(async move {
            let (end, network) = (connection.end(side), &connection.network);
            while end.unacknowledged.get() > 0 && connection.fate.get() == Fate::Whole {
                let patience = PATIENCE_MIN + connection.dice(PATIENCE_MAX - PATIENCE_MIN);
                let since = end.silent_since.get();
                network.world().timers().sleep_until(since + patience).await;
                if end.silent_since.get() == since && end.unacknowledged.get() > 0 {
                    connection.break_end(side, io::ErrorKind::TimedOut);
                }
            }
            end.watch.set(Watch::Asleep);
        });
    }

    fn dice(&self, below: Duration) -> Duration {
        Duration::from_nanos(self.network.world().below(below.as_nanos() as usize) as u64)
    }

    fn note(&self, what: &str) {
        self.network.world().note(format!("connection {} {what}", self.number));
    }
}

/// The planted bug that whoever counts on TCP's order must notice: a piece overtakes others of its connection.
#[cfg(test)]
pub(crate) mod planted {
    use std::cell::Cell;

    thread_local! {
        pub(crate) static REORDER_WITHIN_A_CONNECTION: Cell<bool> = const { Cell::new(false) };
    }
}
