//! The life of one operation: who owns its buffer and descriptor until its completion has come.
//!
//! ```text
//!            completion                     await
//!  Waiting ─────────────► Done ──────────────────────► slot freed, resources back to the caller
//!     │ future dropped
//!     ▼            completion
//!  Abandoned ──────────────────► slot freed, resources dropped
//! ```
//! A stream (multishot) collects events until the kernel says that no more come; one whose receiver lags is cancelled
//! by its own reaping once it has queued [`QUEUED_BYTES_MAX`], so that a slow reader bounds what it can pile up, and
//! earlier once all streams of the ring together hold [`RING_QUEUED_BYTES_MAX`].

use std::any::Any;
use std::cell::Cell;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use io_uring::squeue;

use super::ring::Ring;
use crate::base::time::Monotonic;

/// Memory that a multishot receive may fill for a task that does not take it, before it is cancelled. What the kernel has
/// received by then still comes: as much as the pool holds.
pub const QUEUED_BYTES_MAX: usize = 512 * 1024;

/// The same for all streams of a ring together: past it, those go on that have queued less than [`QUEUED_BYTES_FAIR`].
pub const RING_QUEUED_BYTES_MAX: usize = 16 * 1024 * 1024;
pub const QUEUED_BYTES_FAIR: usize = 32 * 1024;

/// What one completion brought.
#[derive(Debug)]
pub struct Event {
    /// The kernel's result: a count or descriptor, or a negated errno.
    pub result: i32,
    /// The bytes of a provided buffer.
    pub data: Option<BytesMut>,
    /// See [`Ring::reap`].
    pub came_after: Monotonic,
}

/// What an event takes beside its bytes, with what the allocator adds: a byte at a time is mostly that.
const EVENT_BYTES: usize = size_of::<Event>() + 64;

impl Event {
    fn memory(&self) -> usize {
        EVENT_BYTES + self.data.as_ref().map_or(0, BytesMut::capacity)
    }

    pub fn into_result(self) -> io::Result<(u32, Option<BytesMut>)> {
        match u32::try_from(self.result) {
            Ok(count) => Ok((count, self.data)),
            Err(_) => Err(io::Error::from_raw_os_error(-self.result)),
        }
    }
}

/// The ring's side of an operation.
pub(super) enum Slot {
    Waiting(Option<Waker>),
    Done(Event),
    Stream(StreamState),
    /// Held only to be dropped when the kernel is done with it.
    Abandoned(#[expect(dead_code, reason = "kept alive for the kernel, never read")] Box<dyn Any>),
}

pub(super) struct StreamState {
    events: VecDeque<Event>,
    queued_bytes: usize,
    /// Of all streams of the ring.
    ring_queued_bytes: Rc<Cell<usize>>,
    waker: Option<Waker>,
    ended: bool,
    cancelled: bool,
}

impl StreamState {
    fn new(ring_queued_bytes: Rc<Cell<usize>>) -> StreamState {
        StreamState {
            events: VecDeque::new(),
            queued_bytes: 0,
            ring_queued_bytes,
            waker: None,
            ended: false,
            cancelled: false,
        }
    }

    fn push(&mut self, event: Event) {
        self.queued_bytes += event.memory();
        self.ring_queued_bytes.set(self.ring_queued_bytes.get() + event.memory());
        self.events.push_back(event);
    }

    fn pop(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        self.queued_bytes -= event.memory();
        self.ring_queued_bytes.set(self.ring_queued_bytes.get() - event.memory());
        Some(event)
    }

    /// Whether what is queued is more than this stream may hold.
    fn is_over(&self) -> bool {
        self.queued_bytes > QUEUED_BYTES_MAX
            || self.queued_bytes > QUEUED_BYTES_FAIR && self.ring_queued_bytes.get() > RING_QUEUED_BYTES_MAX
    }
}

impl Drop for StreamState {
    fn drop(&mut self) {
        self.ring_queued_bytes.set(self.ring_queued_bytes.get() - self.queued_bytes);
    }
}

/// What the ring must do with the slot after a completion.
pub(super) enum Verdict {
    Keep,
    Remove,
    Cancel,
}

impl Slot {
    /// The kernel was asked to give it up, and has more to say of it.
    pub(super) fn is_to_end(&self) -> bool {
        match self {
            Slot::Abandoned(_) => true,
            Slot::Stream(stream) => stream.cancelled && !stream.ended,
            Slot::Waiting(_) | Slot::Done(_) => false,
        }
    }

    pub(super) fn complete(&mut self, event: Event, more: bool) -> Verdict {
        match self {
            Slot::Waiting(waker) => {
                if let Some(waker) = waker.take() {
                    waker.wake();
                }
                *self = Slot::Done(event);
                Verdict::Keep
            }
            Slot::Done(_) => unreachable!("a single operation completes once"),
            Slot::Stream(stream) => {
                stream.push(event);
                stream.ended |= !more;
                if let Some(waker) = stream.waker.take() {
                    waker.wake();
                }
                if stream.is_over() && !stream.ended && !stream.cancelled {
                    stream.cancelled = true;
                    return Verdict::Cancel;
                }
                Verdict::Keep
            }
            Slot::Abandoned(_) if more => Verdict::Keep,
            Slot::Abandoned(_) => Verdict::Remove,
        }
    }
}

/// An operation with one completion. Owns its resources; resolves to the result and the resources.
pub struct Op<R: 'static> {
    ring: Ring,
    /// `None`: it could not be submitted.
    key: Result<usize, Option<io::Error>>,
    resources: Option<R>,
}

impl<R: 'static> Op<R> {
    /// # Safety
    /// `entry` may point only into memory that `resources` keeps at its place however `resources` itself is moved
    /// (heap memory, descriptors), or that lives for ever.
    pub(super) unsafe fn start(ring: &Ring, entry: squeue::Entry, resources: R) -> Op<R> {
        // SAFETY: the resources live in this Op and, if it is dropped early, in the slot, until the completion.
        let key = unsafe { ring.push(entry, Slot::Waiting(None)) }.map_err(Some);
        Op { ring: ring.clone(), key, resources: Some(resources) }
    }

    /// # Safety
    /// As for [`Op::start`], for both entries.
    pub(super) unsafe fn start_linked(ring: &Ring, first: squeue::Entry, second: squeue::Entry, resources: R) -> Op<R> {
        // SAFETY: as in `start`.
        let key = unsafe { ring.push_linked(first, second, Slot::Waiting(None)) }.map_err(Some);
        Op { ring: ring.clone(), key, resources: Some(resources) }
    }
}

// An Op holds its resources by value but the kernel only looks at what they point to, so moving it is fine.
impl<R: 'static> Unpin for Op<R> {}

impl<R: 'static> Future for Op<R> {
    type Output = (io::Result<u32>, R);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let key = match &mut this.key {
            Ok(key) => *key,
            Err(error) => {
                let error = error.take().unwrap_or_else(|| io::ErrorKind::Other.into());
                return Poll::Ready((Err(error), this.resources.take().expect("polled once after the end")));
            }
        };
        let done = this.ring.with_slot(key, |slot| match slot {
            Slot::Waiting(waker) => {
                *waker = Some(context.waker().clone());
                false
            }
            _ => true,
        });
        if !done {
            return Poll::Pending;
        }
        let resources = this.resources.take().expect("polled once after the end");
        let Slot::Done(event) = this.ring.release(key) else { unreachable!("the slot was seen done") };
        Poll::Ready((event.into_result().map(|(count, _)| count), resources))
    }
}

impl<R: 'static> Drop for Op<R> {
    fn drop(&mut self) {
        let (Ok(key), Some(resources)) = (&self.key, self.resources.take()) else { return };
        let key = *key;
        let done = self.ring.with_slot(key, |slot| {
            let done = matches!(slot, Slot::Done(_));
            if !done {
                *slot = Slot::Abandoned(Box::new(resources));
            }
            done
        });
        if done {
            self.ring.release(key);
        } else {
            self.ring.cancel(key);
        }
    }
}

/// An operation with many completions (multishot). `R` is what must live as long as it runs, its descriptor.
pub struct Stream<R: 'static> {
    ring: Ring,
    key: usize,
    resources: Option<R>,
}

impl<R: 'static> Stream<R> {
    /// # Safety
    /// As for [`Op::start`].
    pub(super) unsafe fn start(ring: &Ring, entry: squeue::Entry, resources: R) -> io::Result<Stream<R>> {
        // SAFETY: the resources live in this Stream and, if it is dropped early, in the slot, until the last completion.
        let key = unsafe { ring.push(entry, Slot::Stream(StreamState::new(ring.queued_bytes()))) }?;
        Ok(Stream { ring: ring.clone(), key, resources: Some(resources) })
    }

    /// The next event, in order; `None` after the last one, when the stream must be started anew to hear more.
    pub async fn next(&mut self) -> Option<Event> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.ring.with_slot(self.key, |slot| {
            let Slot::Stream(stream) = slot else { unreachable!("a live stream's slot is a stream") };
            if let Some(event) = stream.pop() {
                return Poll::Ready(Some(event));
            }
            if stream.ended {
                return Poll::Ready(None);
            }
            stream.waker = Some(context.waker().clone());
            Poll::Pending
        })
    }

    /// Memory of the bytes that wait for [`Stream::next`].
    pub fn queued_bytes(&self) -> usize {
        self.ring.with_slot(self.key, |slot| match slot {
            Slot::Stream(stream) => stream.queued_bytes,
            _ => 0,
        })
    }

    /// Asks for the end; events that come before it are still delivered.
    pub fn stop(&self) {
        let cancel = self.ring.with_slot(self.key, |slot| match slot {
            Slot::Stream(stream) if !stream.ended && !stream.cancelled => {
                stream.cancelled = true;
                true
            }
            _ => false,
        });
        if cancel {
            self.ring.cancel(self.key);
        }
    }
}

impl<R: 'static> Drop for Stream<R> {
    fn drop(&mut self) {
        let resources = self.resources.take();
        let ended = self.ring.with_slot(self.key, |slot| {
            let ended = matches!(slot, Slot::Stream(stream) if stream.ended);
            if !ended {
                *slot = Slot::Abandoned(Box::new(resources));
            }
            ended
        });
        if ended {
            self.ring.release(self.key);
        } else {
            self.ring.cancel(self.key);
        }
    }
}
