//! Appends to a partition: what is asked, what becomes of it, and who waits for replicas.
//!
//! ```text
//!  append_replicated --> queue --> the append task stages and writes --> answered: written (and flushed, where that counts)
//!                                                  when_replicated --> answered: the high watermark has passed the batch
//! ```
//! - While a write is in flight, what arrives gathers, and becomes the next write.
//! - Each batch knows the leader epoch under which it was queued. A change of role comes between two writes, and what was
//!   queued before it is refused then, never staged.
//! - With `--rebatch` small batches that stand one behind the other in the queue are first made one by a work thread
//!   ([`gather`](super::gather)); each producer is still told its own offsets.

mod beside;
mod queue;
mod task;

use std::path::PathBuf;
use std::rc::Rc;

use bytes::BytesMut;
use futures_channel::oneshot;

use super::partition::{LeadershipError, Partition, State};
use super::replica_set::effective_min_isr;
use super::slot::Job;
use crate::base::ids::{LeaderEpoch, Offset};
use crate::base::time::{Monotonic, WallMs};
use crate::platform::{Platform, Tasks};
use crate::record::batch::BatchHeader;
use crate::storage::log::AppendRefusal;
pub use crate::storage::log::Origin;

#[cfg(test)]
pub(crate) use task::planted;

pub(super) use beside::{start_upkeep, write_epochs};
pub(super) use queue::{Acks, AppendQueue, Pending, Sender, StagedAnswer, Whose};

/// Batches that one partition of a leader lets wait for its write; beyond it a produce is refused, to be tried again.
const PENDING_BATCHES_MAX: usize = 16 * 1024;

/// One validated batch for a partition.
#[derive(Debug)]
pub struct Append {
    pub batch: BytesMut,
    pub header: BatchHeader,
    pub origin: Origin,
    /// Under which it is to be appended; [`ANY_EPOCH`](super::partition::ANY_EPOCH): that of now.
    pub leader_epoch: LeaderEpoch,
    /// It is refused while fewer replicas are in sync than `min.insync.replicas`.
    pub all_replicas: bool,
}

/// Why a batch was not appended, or can't be promised.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendFailure {
    #[error(transparent)]
    Leadership(#[from] LeadershipError),
    #[error(transparent)]
    Refused(#[from] AppendRefusal),
    #[error("fewer replicas in sync than min.insync.replicas")]
    NotEnoughReplicas,
    /// Appended, and on all replicas in sync, but of these too few are left.
    #[error("appended, and fewer replicas in sync since than min.insync.replicas")]
    NotEnoughReplicasAfterAppend,
    #[error("too many batches wait for this partition's disk")]
    Busy,
    #[error("the log could not be written: {0}")]
    Storage(String),
    #[error("the file system of {} is nearly full: produce is refused until there is room", .0.display())]
    DiskFull(PathBuf),
    /// Appended, but the leader's reign ended before all replicas had it.
    #[error("the leader changed before the batch was on all replicas")]
    Interrupted,
}

/// Where a batch lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    pub base_offset: Offset,
    pub last_offset: Offset,
    /// Of the role under which it was staged.
    pub leader_epoch: LeaderEpoch,
    /// -1 unless the topic says LogAppendTime.
    pub log_append_time: WallMs,
    pub log_start_offset: Offset,
    /// When it was written, if it had to be flushed before this was said.
    pub unflushed_since: Option<Monotonic>,
}

/// Whether a batch is on all replicas that count.
#[derive(Debug)]
pub enum Replication {
    Replicated,
    /// Resolves when it is, or will never be known to be. May be waited for anywhere, and dropped.
    Waiting(oneshot::Receiver<Result<(), AppendFailure>>),
}

impl<P: Platform> Partition<P> {
    /// Queues a batch behind earlier ones; its order is settled when this returns. The receiver resolves when the batch is
    /// in the page cache, and flushed where producers wait for that; unanswered it is dropped by a log that is given up.
    pub fn append_replicated(
        self: &Rc<Self>,
        append: Append,
    ) -> Result<oneshot::Receiver<Result<Appended, AppendFailure>>, AppendFailure> {
        let Append { batch, header, origin, leader_epoch, all_replicas } = append;
        let mut state = self.state.borrow_mut();
        match origin {
            Origin::Client | Origin::Coordinator | Origin::Marker => state.check_leader(leader_epoch)?,
            Origin::Replication => state.check_follower(leader_epoch)?,
        }
        if all_replicas && state.has_too_few_in_sync() {
            return Err(AppendFailure::NotEnoughReplicas);
        }
        let bytes = batch.len() as u64;
        let waiting = match origin {
            // Bounded by the answer that they came in: nothing more is fetched before they are appended, or failed.
            Origin::Replication => None,
            Origin::Client | Origin::Coordinator | Origin::Marker => {
                if state.append.pending.len() >= PENDING_BATCHES_MAX {
                    return Err(AppendFailure::Busy);
                }
                Some(self.home.wait(bytes).ok_or(AppendFailure::Busy)?)
            }
        };
        if !self.home.log_dir().take_room(bytes) {
            return Err(AppendFailure::DiskFull(self.home.log_dir().path.clone()));
        }
        let acks = match origin {
            Origin::Replication => Acks::Follower,
            _ if all_replicas => Acks::All,
            _ => Acks::Leader,
        };
        let (answer, receiver) = oneshot::channel();
        let whose = Whose::One(Sender { answer, acks, waiting });
        let leader_epoch = state.role.epoch();
        state.append.pending.push_back(Pending { batch, header, origin, leader_epoch, whose });
        self.run_append_task(&mut state);
        Ok(receiver)
    }

    /// Whether what was appended is on all replicas that count, or who tells when it is (Kafka 3.9
    /// `Partition.checkEnoughReplicasReachOffset`).
    pub fn when_replicated(&self, appended: &Appended) -> Result<Replication, AppendFailure> {
        let mut state = self.state.borrow_mut();
        if state.slot.is_offline() {
            return Err(LeadershipError::LogOffline.into());
        }
        // Led by somebody else in between, the log may have lost it.
        let leader = state.role.leader().filter(|leader| leader.leads_since <= appended.leader_epoch);
        let leader = leader.ok_or(AppendFailure::Interrupted)?;
        if state.high_watermark <= appended.last_offset {
            return Ok(Replication::Waiting(state.purgatory.wait_for(appended.last_offset)));
        }
        match leader.maximal_isr_count() < state.min_isr() {
            true => Err(AppendFailure::NotEnoughReplicasAfterAppend),
            false => Ok(Replication::Replicated),
        }
    }

    /// Has the log give back what it holds for appends, in turn with them.
    pub(super) fn rest(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        state.append.rest_wanted = true;
        self.run_append_task(&mut state);
    }

    /// Has the log rolled, in turn with appends, and waits for that; nothing happens to an empty segment, nor to a log that
    /// is not served.
    pub(super) async fn roll(self: &Rc<Self>) {
        let rolled = {
            let mut state = self.state.borrow_mut();
            if !state.slot.is_open() {
                return;
            }
            let (sender, rolled) = oneshot::channel();
            state.append.rolls.push(sender);
            self.run_append_task(&mut state);
            rolled
        };
        let _ = rolled.await;
    }

    /// Has the append task look whether there is anything to do.
    pub(super) fn run_append_task(self: &Rc<Self>, state: &mut State<P>) {
        if state.begin(Job::Append) {
            self.platform.tasks().spawn(task::run(Rc::clone(self)));
        }
    }
}

impl<P: Platform> State<P> {
    /// Replicas that must be in sync.
    pub(super) fn min_isr(&self) -> usize {
        let replica_count = self.role.leader().map_or(0, |leader| leader.replica_count());
        effective_min_isr(self.settings.config.min_insync_replicas, replica_count)
    }

    fn has_too_few_in_sync(&self) -> bool {
        self.role.leader().is_some_and(|leader| leader.isr_count() < self.min_isr())
    }
}
