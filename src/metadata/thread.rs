//! The metadata thread: one loop that waits for proposals, for the shards' Applied and for tree events.
//!
//! [`MetadataHandle`] is how the rest of the process reaches it: proposals go through a bounded queue; what a shard has
//! applied is one number per shard, so that saying it can never fail. The loop itself is [`Inbox`] plus [`block_on`]; what
//! is done with an input is the node's affair, and the simulator runs the same node without this thread.

#![forbid(unsafe_code)]

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle, Thread};

use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};
use thiserror::Error;

use crate::base::ids::ShardId;

use super::node::MetadataInput;
use super::proposal::{AnswerFn, Proposal};

/// Proposals that may wait for the metadata thread; more are refused.
pub const PROPOSAL_QUEUE_MAX: usize = 256;

/// The proposal was not taken, and its answer will never come: the queue is full, or the thread has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the metadata thread takes no more proposals now")]
pub struct Full;

/// The way to the metadata thread, from any other.
#[derive(Clone)]
pub struct MetadataHandle {
    proposals: Sender<(Proposal, AnswerFn)>,
    shared: Arc<Shared>,
}

/// What the metadata thread reads its inputs from.
pub struct Inbox {
    proposals: Receiver<(Proposal, AnswerFn)>,
    shared: Arc<Shared>,
    /// What was last passed on of each shard's word.
    seen: Vec<u64>,
}

struct Shared {
    /// By shard: the highest image version it has applied.
    applied: Vec<AtomicU64>,
    stopping: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

/// A handle and its inbox, for `shard_count` shards.
pub fn channel(shard_count: u16) -> (MetadataHandle, Inbox) {
    let (sender, receiver) = bounded(PROPOSAL_QUEUE_MAX);
    let shared = Arc::new(Shared {
        applied: (0..shard_count).map(|_| AtomicU64::new(0)).collect(),
        stopping: AtomicBool::new(false),
        waker: Mutex::new(None),
    });
    let seen = vec![0; usize::from(shard_count)];
    (MetadataHandle { proposals: sender, shared: shared.clone() }, Inbox { proposals: receiver, shared, seen })
}

impl MetadataHandle {
    /// Hands a proposal over; `answer` runs once, on the metadata thread, when every shard shows the outcome.
    pub fn propose(&self, proposal: Proposal, answer: AnswerFn) -> Result<(), Full> {
        match self.proposals.try_send((proposal, answer)) {
            Ok(()) => {
                self.shared.wake();
                Ok(())
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(Full),
        }
    }

    /// `shard` reads image `version`, and all inputs of that version and below are done.
    pub fn applied(&self, shard: ShardId, version: u64) {
        self.shared.applied[shard.index()].fetch_max(version, Ordering::Release);
        self.shared.wake();
    }

    /// Makes the loop end; what still waits is dropped without answer.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.wake();
    }
}

impl Shared {
    fn wake(&self) {
        // A poisoned lock still holds a waker, and a lost wake would hang the thread.
        if let Some(waker) = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waker.wake();
        }
    }
}

impl Inbox {
    /// The next input; `Ready(None)` when the process stops. Proposals are left in the queue unless `room`: the shards'
    /// word must get through to make some.
    pub fn poll_next(&mut self, cx: &mut Context<'_>, room: bool) -> Poll<Option<MetadataInput>> {
        // Registered before looking, so that nothing that comes meanwhile is missed.
        *self.shared.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        if self.shared.stopping.load(Ordering::Acquire) {
            return Poll::Ready(None);
        }
        for (index, seen) in self.seen.iter_mut().enumerate() {
            let image_version = self.shared.applied[index].load(Ordering::Acquire);
            if image_version > *seen {
                *seen = image_version;
                let shard = ShardId(u16::try_from(index).expect("made for at most u16::MAX shards"));
                return Poll::Ready(Some(MetadataInput::Applied { shard, image_version }));
            }
        }
        if !room {
            return Poll::Pending;
        }
        match self.proposals.try_recv() {
            Ok((proposal, answer)) => Poll::Ready(Some(MetadataInput::Proposal { proposal, answer })),
            Err(TryRecvError::Empty) => Poll::Pending,
            Err(TryRecvError::Disconnected) => Poll::Ready(None),
        }
    }
}

/// Starts the metadata thread; `make` runs on it, so what it makes need not be `Send`.
pub fn spawn<F: Future<Output = ()>>(make: impl FnOnce() -> F + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("metadata".to_owned()).spawn(move || block_on(make()))
}

/// Runs a future on this thread until it is done; the thread sleeps while it waits.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let unpark = Arc::new(Unpark { thread: thread::current(), woken: AtomicBool::new(false) });
    let waker = Waker::from(unpark.clone());
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        while !unpark.woken.swap(false, Ordering::Acquire) {
            thread::park();
        }
    }
}

struct Unpark {
    thread: Thread,
    /// Parking may end without reason; this says whether there was one.
    woken: AtomicBool,
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::mpsc;

    use super::*;
    use crate::metadata::proposal::Answer;

    fn poll(inbox: &mut Inbox, room: bool) -> Poll<Option<MetadataInput>> {
        inbox.poll_next(&mut Context::from_waker(Waker::noop()), room)
    }

    #[test]
    fn a_full_queue_refuses_and_takes_again_when_one_is_read() {
        let (handle, mut inbox) = channel(1);
        let propose = || handle.propose(Proposal::AllocateProducerIds, Box::new(|_: Answer| ()));
        for _ in 0..PROPOSAL_QUEUE_MAX {
            propose().unwrap();
        }
        assert_eq!(propose(), Err(Full));
        assert!(matches!(poll(&mut inbox, false), Poll::Pending), "without room proposals stay in the queue");
        assert!(matches!(poll(&mut inbox, true), Poll::Ready(Some(MetadataInput::Proposal { .. }))));
        assert_eq!(propose(), Ok(()));
        drop(inbox);
        assert_eq!(propose(), Err(Full));
    }

    #[test]
    fn the_highest_version_a_shard_named_comes_once_even_without_room() {
        let (handle, mut inbox) = channel(2);
        for version in [3, 5, 4] {
            handle.applied(ShardId(1), version);
        }
        let Poll::Ready(Some(MetadataInput::Applied { shard, image_version })) = poll(&mut inbox, false) else {
            panic!("nothing came");
        };
        assert_eq!((shard, image_version), (ShardId(1), 5));
        assert!(matches!(poll(&mut inbox, false), Poll::Pending));
    }

    #[test]
    fn the_loop_sleeps_wakes_for_each_input_and_ends_on_stop() {
        let (handle, mut inbox) = channel(1);
        let (saw, inputs) = mpsc::channel();
        let thread = spawn(move || async move {
            while let Some(input) = poll_fn(|cx| inbox.poll_next(cx, true)).await {
                saw.send(matches!(input, MetadataInput::Applied { .. })).unwrap();
            }
        })
        .unwrap();
        for round in 1..=100 {
            handle.applied(ShardId(0), round);
            assert!(inputs.recv().unwrap());
            handle.propose(Proposal::AllocateProducerIds, Box::new(|_: Answer| ())).unwrap();
            assert!(!inputs.recv().unwrap());
        }
        handle.stop();
        thread.join().unwrap();
    }
}
