//! One connection: a task that cuts frames and a task that sends replies, and the slots between them.
//!
//! Every frame takes the next slot; replies leave in slot order, whenever they become ready. A request that does not
//! overlap starts when all slots before it are empty again, that is, when every earlier request is answered. A slot
//! that is dropped unfilled closes the connection: an answer is owed, and only silence would be worse. Nothing is read
//! behind it, and what was asked before it is answered first.
//!
//! A request waits for its turn before it takes any of the shard's bytes: those before it may wait for replicas, and these
//! for bytes. Meanwhile it is a small frame, at most one for each connection, or the beginning of a large one.

mod slot;
mod state;

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;

use super::claims::{Claim, Claims, Peer};
use super::frames::{Cut, FrameCutter};
use super::idle::{Idle, Watched};
use super::quotas::ConnectionPermit;
use super::reply::{FileOf, ReplySender};
use crate::base::budget::Budget;
use crate::base::class::{ByClass, Class};
use crate::base::ids::ShardId;
use crate::base::log_limit::LogLimit;
use crate::base::log_request::Requester;
use crate::base::time::Monotonic;
use crate::executor::either;
use crate::metrics::{Passage, ShardCounters};
use crate::platform::{Clock, Platform, Socket, Tasks};
use crate::protocol::frame::{FRAME_PREFIX_BYTES, FrameError};
pub use slot::ReplySlot;
use slot::{Answer, log_done};
use state::Connection;

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

/// What is read of later requests while one is handled, give or take a chunk; then the socket rests.
const READ_AHEAD_BYTES_MAX: usize = 64 * 1024;

/// How long answers are still sent on a connection that is not read any more: the peer may have shut down its own
/// direction only, or have sent what can't be understood behind requests that can.
const ANSWERS_AFTER_END_MAX: Duration = Duration::from_secs(5);

/// What all connections of a shard share.
pub struct Shared<P: Platform> {
    pub platform: P,
    pub limits: ConnectionLimits,
    /// Bytes of requests that were received and are not decoded yet, and of produces until they are written.
    pub request_bytes: ByClass<Rc<Budget>>,
    /// Large requests that are not whole yet.
    pub incoming: ByClass<Rc<Claims>>,
    /// Large answers that are not sent yet.
    pub outgoing: Rc<ByClass<Rc<Claims>>>,
    pub idle: Rc<Idle>,
    pub counters: Arc<ShardCounters>,
    shard: ShardId,
    /// Connections that there were so far.
    connections: Cell<u64>,
    refusals: LogLimit,
}

impl<P: Platform> Shared<P> {
    /// Requests of each class may take `request_bytes_max`, and so may large answers; requests that are not whole yet come
    /// on top, with half of it, or what the largest takes. What strangers ask is of the clients' class, so that this much is
    /// what they can fill; all classes together may take three times as much.
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
            request_bytes: ByClass::of(|_| Budget::new(request_bytes_max)),
            incoming: ByClass::of(|_| Claims::new((request_bytes_max / 2).max(limits.frame_bytes_max as u64))),
            outgoing: Rc::new(ByClass::of(|_| Claims::new(request_bytes_max))),
            idle: Rc::default(),
            counters,
            shard,
            connections: Cell::new(0),
            refusals: LogLimit::of_refusals(),
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

/// What must be known of a request before its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    pub class: Class,
    /// May run while earlier requests of the connection do (Produce with Produce).
    pub overlaps: bool,
}

/// What understands the frames of one connection.
pub trait FrameHandler<P: Platform>: 'static {
    /// A frame whose header was read.
    type Request;

    /// What kind of request a frame is that begins with `beginning`: all that there is of it, and at least
    /// [`LARGE_BEGINNING_BYTES_MIN`](super::frames::LARGE_BEGINNING_BYTES_MIN) bytes of a large one.
    fn kind(&self, beginning: &[u8]) -> Kind;

    /// Reads a frame's header. One that can't be read is a request too, and refused in its turn.
    fn read_header(&self, frame: BytesMut) -> Self::Request;

    /// Takes a request on. Resolves when the next one may be looked at: an overlapping one resolves when its order is
    /// settled, and fills its slot later.
    fn handle(&self, request: Self::Request, slot: ReplySlot<P>) -> impl Future<Output = ()>;
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
    let number = (shared.shard, shared.connections.get());
    let connection = Rc::new(Connection::<P>::new(socket, listener, Rc::clone(&shared.outgoing), number));
    let watched: Rc<dyn Watched> = Rc::clone(&connection) as _;
    let watched_as = shared.idle.watch(watched, platform.clock().now());
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
    shared.idle.forget(watched_as);
    counters.connections_now.subtract(1);
    drop(permit);
}

async fn write_replies<P: Platform>(platform: P, connection: Rc<Connection<P>>, counters: Arc<ShardCounters>) {
    while let Some(mut replies) = connection.ready_replies().await {
        let mut sender = ReplySender::new(&platform, &connection.socket, &counters);
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
        connection.sent();
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
    let mut cutter = FrameCutter::default();
    while connection.takes_requests() {
        let Some(Arrived { received, kind, frame, incoming }) =
            next_frame(connection, handler, shared, &mut cutter).await?
        else {
            return Ok(());
        };
        let frame_bytes = frame.len() as u64;
        shared.counters.request_bytes_total.add(FRAME_PREFIX_BYTES as u64 + frame_bytes);
        let waits_for_turn = !has_turn(connection, shared, kind);
        if waits_for_turn {
            #[cfg(test)]
            let _held = planted::hold_bytes(shared, kind.class, frame_bytes).await;
            if !Box::pin(wait_for_turn(connection, shared, kind, &mut cutter)).await {
                return Ok(());
            }
        }
        let request_bytes = shared.request_bytes.get(kind.class);
        let waits = request_bytes.waits();
        let permit = request_bytes.acquire(frame_bytes).await;
        drop(incoming);
        if !has_turn(connection, shared, kind) {
            return Ok(());
        }
        // Mostly nothing was waited for, and one look at the clock will do.
        let has_waited = waits_for_turn || waits != request_bytes.waits();
        let started = if has_waited { shared.platform.clock().now() } else { received };
        let came_after = connection.socket.came_after();
        let slot = connection.open_slot(permit, Passage::begin(came_after, received, started));
        let mut handling = Box::pin(handler.handle(handler.read_header(frame), slot));
        // One that overlaps resolves soon, and what comes behind it is wanted.
        let is_done = !kind.overlaps && read_beside(connection, &mut cutter, handling.as_mut()).await.is_some();
        if !is_done {
            handling.await;
        }
    }
    Ok(())
}

/// A whole frame.
struct Arrived {
    received: Monotonic,
    kind: Kind,
    frame: BytesMut,
    /// Of a large one, until it counts as a request's.
    incoming: Option<Claim>,
}

/// The next frame, of a large one when its turn has come; `None`: there is none any more.
async fn next_frame<P: Platform, H: FrameHandler<P>>(
    connection: &Rc<Connection<P>>,
    handler: &H,
    shared: &Shared<P>,
    cutter: &mut FrameCutter,
) -> Result<Option<Arrived>, Unreadable> {
    loop {
        match cutter.next(shared.limits.frame_bytes_max).map_err(Unreadable::NoFrame)? {
            Cut::Frame(frame) => {
                let (received, kind) = (shared.platform.clock().now(), handler.kind(&frame));
                return Ok(Some(Arrived { received, kind, frame, incoming: None }));
            }
            Cut::Large { mut beginning, length } => {
                let kind = handler.kind(&beginning);
                if !has_turn(connection, shared, kind) {
                    #[cfg(test)]
                    let _held = planted::hold_bytes(shared, kind.class, length as u64).await;
                    if !Box::pin(wait_for_turn(connection, shared, kind, cutter)).await {
                        return Ok(None);
                    }
                    cutter.continue_large(&mut beginning, length);
                }
                return Ok(Some(Box::pin(receive_large(connection, shared, kind, beginning, length)).await?));
            }
            Cut::NeedMore => {
                let chunk = connection.socket.receive().await?;
                connection.received();
                if chunk.is_empty() {
                    connection.peer_has_ended();
                    return Ok(None);
                }
                cutter.push(chunk);
            }
        }
    }
}

/// Whether a request of this kind may start now.
fn has_turn<P: Platform>(connection: &Connection<P>, shared: &Shared<P>, kind: Kind) -> bool {
    connection.takes_requests() && connection.open_slots() < unanswered_max(shared, kind)
}

/// Earlier requests of its connection that may be unanswered when a request of this kind starts, and that itself.
fn unanswered_max<P: Platform>(shared: &Shared<P>, kind: Kind) -> usize {
    if kind.overlaps { shared.limits.requests_in_flight_max } else { 1 }
}

/// Waits until a request of this kind may start; false: none may any more. Where the peer has gone away meanwhile, what
/// those before it wait for may not come for long, and nobody be there to take it.
async fn wait_for_turn<P: Platform>(
    connection: &Rc<Connection<P>>,
    shared: &Shared<P>,
    kind: Kind,
    cutter: &mut FrameCutter,
) -> bool {
    let mut turn = pin!(connection.fewer_slots_than(unanswered_max(shared, kind)));
    if let Some(has_turn) = read_beside(connection, cutter, turn.as_mut()).await {
        return has_turn;
    }
    if !connection.has_ended() {
        return turn.await;
    }
    let clock = shared.platform.clock();
    either(turn, clock.sleep_until(clock.now() + ANSWERS_AFTER_END_MAX)).await.unwrap_or(false)
}

/// Does `work`, and reads beside it, so that a client that goes away is noticed. What comes before that belongs to the next
/// frames; it is copied, so that its buffers can go. `None`: it is not done yet, but no more is to be read.
async fn read_beside<P: Platform, W: Future + ?Sized>(
    connection: &Connection<P>,
    cutter: &mut FrameCutter,
    mut work: Pin<&mut W>,
) -> Option<W::Output> {
    while cutter.uncut_bytes() < READ_AHEAD_BYTES_MAX && !connection.has_ended() {
        match either(work.as_mut(), connection.socket.receive()).await {
            Ok(output) => return Some(output),
            Err(Ok(chunk)) if !chunk.is_empty() => {
                connection.received();
                cutter.append(&chunk);
            }
            Err(_) => connection.peer_has_ended(),
        }
    }
    None
}

/// Receives a frame straight into its memory, which it claims as its bytes come; the claim holds until the frame counts as a
/// request's.
async fn receive_large<P: Platform>(
    connection: &Rc<Connection<P>>,
    shared: &Shared<P>,
    kind: Kind,
    mut frame: BytesMut,
    length: usize,
) -> io::Result<Arrived> {
    let clock = shared.platform.clock();
    let incoming = Rc::new(Incoming { connection: Rc::clone(connection), coming_bytes: Cell::new(0) });
    let claim = shared.incoming.get(kind.class).begin(Some(clock.now()), Rc::clone(&incoming) as _);
    frame.reserve(length.min(FRAME_CAPACITY_FIRST_BYTES).saturating_sub(frame.len()));
    let mut claimed = length.min(FIRST_CLAIM_BYTES.max(frame.len()));
    loop {
        claim.grow_to(claimed as u64, clock).await;
        incoming.coming_bytes.set(claimed as u64);
        frame = connection.socket.receive_frame(frame, claimed).await?;
        connection.received_in_place();
        if claimed == length {
            break;
        }
        claimed = length.min(claimed * 2);
    }
    Ok(Arrived { received: clock.now(), kind, frame, incoming: Some(claim) })
}

/// The planted bug that the simulator must catch: a request takes its bytes before its turn has come.
#[cfg(test)]
pub(crate) mod planted {
    use super::*;
    use crate::base::budget::Permit;

    thread_local! {
        pub(crate) static HOLD_BYTES: Cell<bool> = const { Cell::new(false) };
    }

    pub(super) async fn hold_bytes<P: Platform>(shared: &Shared<P>, class: Class, bytes: u64) -> Option<Permit> {
        match HOLD_BYTES.get() {
            true => Some(shared.request_bytes.get(class).acquire(bytes).await),
            false => None,
        }
    }
}
