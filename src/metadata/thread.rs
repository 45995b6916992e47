//! The way to the control thread, and what it reads its inputs from.
//!
//! [`MetadataHandle`] is how the rest of the process reaches it: proposals go through a bounded queue; what a shard has
//! applied is one number per shard, and which logs it could not open a set, so that saying it can never fail. What is done
//! with an input is the node's affair, and it runs on whatever executor polls the [`Inbox`].

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};
use thiserror::Error;

use crate::base::ids::{ShardId, TopicPartition};

use super::node::MetadataInput;
use super::proposal::{AnswerFn, Proposal};

/// Proposals that may wait for the control thread; more are refused.
pub const PROPOSAL_QUEUE_MAX: usize = 256;

/// The proposal was not taken, and its answer will never come: the queue is full, or the thread has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the control thread takes no more proposals now")]
pub struct Full;

/// The way to the control thread, from any other.
#[derive(Clone)]
pub struct MetadataHandle {
    proposals: Sender<(Proposal, AnswerFn)>,
    shared: Arc<Shared>,
}

/// What the control thread reads its inputs from.
pub struct Inbox {
    proposals: Receiver<(Proposal, AnswerFn)>,
    shared: Arc<Shared>,
    /// What was last passed on of each shard's word.
    seen: Vec<u64>,
    /// What happens in the midst of a look.
    #[cfg(test)]
    looked: Box<dyn FnMut() + Send>,
}

struct Shared {
    /// By shard: the highest image version it has applied.
    applied: Vec<AtomicU64>,
    /// Replicas whose logs could not be opened, and that were not told yet: each once.
    offline: Mutex<BTreeSet<TopicPartition>>,
    stopping: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

/// A handle and its inbox, for `shard_count` shards.
pub fn channel(shard_count: u16) -> (MetadataHandle, Inbox) {
    let (sender, receiver) = bounded(PROPOSAL_QUEUE_MAX);
    let shared = Arc::new(Shared {
        applied: (0..shard_count).map(|_| AtomicU64::new(0)).collect(),
        offline: Mutex::default(),
        stopping: AtomicBool::new(false),
        waker: Mutex::new(None),
    });
    let seen = vec![0; usize::from(shard_count)];
    let handle = MetadataHandle { proposals: sender, shared: Arc::clone(&shared) };
    let inbox = Inbox {
        proposals: receiver,
        shared,
        seen,
        #[cfg(test)]
        looked: Box::new(|| ()),
    };
    (handle, inbox)
}

impl MetadataHandle {
    /// Hands a proposal over; `answer` runs once, on the control thread, when every shard shows the outcome.
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

    /// A replica's log can't be opened. To be said before [`MetadataHandle::applied`] of the version that told to run it.
    pub fn offline(&self, replica: TopicPartition) {
        self.shared.offline.lock().unwrap_or_else(PoisonError::into_inner).insert(replica);
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
        // Versions are looked at before the logs that a shard names before them.
        let applied = self.next_applied();
        #[cfg(test)]
        (self.looked)();
        let offline = std::mem::take(&mut *self.shared.offline.lock().unwrap_or_else(PoisonError::into_inner));
        if !offline.is_empty() {
            return Poll::Ready(Some(MetadataInput::Offline { partitions: offline.into_iter().collect() }));
        }
        if let Some((shard, image_version)) = applied {
            self.seen[shard.index()] = image_version;
            return Poll::Ready(Some(MetadataInput::Applied { shard, image_version }));
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

    /// A version that was not passed on yet.
    fn next_applied(&self) -> Option<(ShardId, u64)> {
        let mut versions = (0..).map(ShardId).zip(&self.shared.applied).zip(&self.seen);
        versions.find_map(|((shard, applied), seen)| {
            let image_version = applied.load(Ordering::Acquire);
            (image_version > *seen).then_some((shard, image_version))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::mpsc;

    use crate::executor::{Executor, NoDoorbell};

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
    fn a_log_that_can_t_be_opened_is_told_once_and_before_the_version() {
        let (handle, mut inbox) = channel(1);
        let replica = TopicPartition { topic: "t".into(), partition: 3 };
        handle.offline(replica.clone());
        handle.offline(replica.clone());
        handle.applied(ShardId(0), 1);
        match poll(&mut inbox, false) {
            Poll::Ready(Some(MetadataInput::Offline { partitions })) => assert_eq!(partitions, [replica]),
            _ => panic!("another input came first"),
        }
        assert!(matches!(poll(&mut inbox, false), Poll::Ready(Some(MetadataInput::Applied { .. }))));
        assert!(matches!(poll(&mut inbox, false), Poll::Pending));
    }

    #[test]
    fn a_log_that_can_t_be_opened_is_told_before_the_version_even_if_both_come_in_the_midst_of_a_look() {
        let (handle, mut inbox) = channel(1);
        let mut said = false;
        inbox.looked = Box::new(move || {
            if !std::mem::replace(&mut said, true) {
                handle.offline(TopicPartition { topic: "t".into(), partition: 3 });
                handle.applied(ShardId(0), 1);
            }
        });
        assert!(matches!(poll(&mut inbox, true), Poll::Ready(Some(MetadataInput::Offline { .. }))));
        assert!(matches!(poll(&mut inbox, true), Poll::Ready(Some(MetadataInput::Applied { .. }))));
    }

    #[test]
    fn whoever_waits_is_woken_by_each_input_and_ends_on_stop() {
        let (handle, mut inbox) = channel(1);
        let (saw, inputs) = mpsc::channel();
        let executor = Executor::new(NoDoorbell);
        executor.spawn(async move {
            while let Some(input) = poll_fn(|cx| inbox.poll_next(cx, true)).await {
                saw.send(matches!(input, MetadataInput::Applied { .. })).unwrap();
            }
        });
        for round in 1..=100 {
            handle.applied(ShardId(0), round);
            executor.run_ready();
            assert!(inputs.recv().unwrap());
            handle.propose(Proposal::AllocateProducerIds, Box::new(|_: Answer| ())).unwrap();
            executor.run_ready();
            assert!(!inputs.recv().unwrap());
        }
        handle.stop();
        executor.run_ready();
        assert_eq!(executor.task_count(), 0);
    }
}
