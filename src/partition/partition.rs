//! One replica of one partition, owned by one shard.
//!
//! State is borrowed only between awaits: an operation takes from the log what describes its I/O, lets the borrow go,
//! waits, and comes back with the result. Appends go through one task at a time (see `append`), so at most one write is
//! in flight; reads never change the log.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use futures_channel::oneshot;

use super::append::{AppendFailure, EpochsWrite, Pending};
use super::clean::CleanerNotes;
use super::flush::Flushing;
use super::home::Home;
use super::purgatory::{Purgatory, Watch};
use super::replica_set::ReplicaSet;
use crate::base::ids::{BrokerId, LeaderEpoch, Offset, TopicId, TopicPartition};
use crate::config::{Durability, TopicConfig};
use crate::platform::{Disk, Platform};
use crate::storage::log::{LastStop, Log, LogConfig, LogError};
use crate::storage::log_dirs::is_fatal;
use crate::storage::producer_state::ActiveProducer;

/// Of a request that does not name the leader epoch it knows.
pub const ANY_EPOCH: LeaderEpoch = -1;

/// The replica id of consumers.
pub const CONSUMER: i32 = -1;

/// Which replica may answer a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Leader,
    AnyReplica,
}

/// What LeaderAndIsr says of a replica.
#[derive(Clone, Debug)]
pub struct Role {
    pub local: BrokerId,
    pub leader: BrokerId,
    pub leader_epoch: LeaderEpoch,
    pub isr: Vec<BrokerId>,
    /// Those being added too.
    pub replica_count: usize,
    pub durability: Durability,
    /// `--rebatch`.
    pub rebatch: bool,
    pub config: Arc<TopicConfig>,
}

/// A request's leader epoch does not fit, or this replica does not lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeadershipError {
    #[error("this broker does not lead the partition")]
    NotLeader,
    #[error("the request's leader epoch is older than the leader's")]
    FencedLeaderEpoch,
    #[error("the request's leader epoch is newer than the leader's")]
    UnknownLeaderEpoch,
    #[error("the partition's log could not be opened, or its directory has failed")]
    LogOffline,
}

/// Offsets that responses carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offsets {
    pub log_start: Offset,
    pub high_watermark: Offset,
    pub last_stable: Offset,
    pub log_end: Offset,
}

/// How far whoever asks may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Up to the high watermark.
    ReadUncommitted,
    /// Up to the last stable offset, and told which transactions were aborted.
    ReadCommitted,
    /// Up to the log end: a replica, or somebody who looks for faults.
    LogEnd,
}

impl Isolation {
    /// By the replica id and the isolation level of a request. Any level but 1 is read_uncommitted; Kafka fails a request
    /// with a level that there is not by UNKNOWN_SERVER_ERROR.
    pub fn of_request(replica_id: i32, isolation_level: i8) -> Isolation {
        match (replica_id, isolation_level) {
            (CONSUMER, 1) => Isolation::ReadCommitted,
            (CONSUMER, _) => Isolation::ReadUncommitted,
            _ => Isolation::LogEnd,
        }
    }

    /// Offsets below may be seen.
    pub fn ceiling(self, offsets: &Offsets) -> Offset {
        match self {
            Isolation::ReadUncommitted => offsets.high_watermark,
            Isolation::ReadCommitted => offsets.last_stable,
            Isolation::LogEnd => offsets.log_end,
        }
    }
}

/// What the checkpoint files of the directory say of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogCheckpoint {
    pub topic_partition: TopicPartition,
    /// Which of `log.dirs` it lies in.
    pub log_dir: usize,
    /// All below is durable.
    pub recovery_point: Offset,
    pub log_start_offset: Offset,
    /// Where the oldest segment begins.
    pub first_segment_offset: Offset,
    pub high_watermark: Offset,
    /// Up to where it was cleaned, if it ever was.
    pub cleaned_to: Option<Offset>,
}

impl LogCheckpoint {
    /// Of a log that is not open: what was said of it.
    pub fn kept(topic_partition: TopicPartition, log_dir: usize, last_stop: LastStop) -> LogCheckpoint {
        let LastStop { recovery_point, log_start_offset, cleaned_to, .. } = last_stop;
        LogCheckpoint {
            topic_partition,
            log_dir,
            recovery_point,
            log_start_offset,
            first_segment_offset: 0,
            high_watermark: recovery_point,
            cleaned_to,
        }
    }
}

pub struct Partition<P: Platform> {
    pub topic_partition: TopicPartition,
    pub topic_id: TopicId,
    pub(super) platform: P,
    pub(super) home: Rc<Home>,
    pub(super) state: RefCell<State<P>>,
}

pub(super) struct State<P: Platform> {
    /// `None`: it could not be opened, or has been closed or taken for deletion.
    pub(super) log: Option<Log<P::Disk>>,
    /// Of a log that could not be opened: what the checkpoints said, and must go on saying until it is recovered.
    pub(super) unopened: Option<LastStop>,
    pub(super) role: Role,
    pub(super) replicas: ReplicaSet,
    pub(super) purgatory: Purgatory,
    /// Batches that wait for the write in flight, in arrival order.
    pub(super) pending: VecDeque<Pending>,
    pub(super) append_running: bool,
    pub(super) upkeep_running: bool,
    /// Of the file of leader epochs.
    pub(super) epochs: EpochsWrite,
    /// Retention or compaction is under way.
    pub(super) maintenance_running: bool,
    /// The log is to be rolled between two writes; who is told then.
    pub(super) rolls: Vec<oneshot::Sender<()>>,
    /// Somebody waits for the log, to close or delete it.
    pub(super) leaving: bool,
    pub(super) cleaner: CleanerNotes,
    /// The log is to give back what it holds for appends.
    pub(super) rest_wanted: bool,
    pub(super) flushing: Flushing,
    pub(super) home: Rc<Home>,
    /// The directory has failed.
    pub(super) offline: bool,
    /// Who takes the log away once nothing of it is under way.
    pub(super) taker: Option<Waker>,
}

impl<P: Platform> State<P> {
    /// Checks that this replica leads, under the epoch that the request names (-1: any; KIP-320).
    pub(super) fn check_leader(&self, current_leader_epoch: LeaderEpoch) -> Result<(), LeadershipError> {
        self.check(current_leader_epoch, Asked::Leader)
    }

    pub(super) fn check(&self, current_leader_epoch: LeaderEpoch, asked: Asked) -> Result<(), LeadershipError> {
        // Kafka looks at nothing else of a partition whose directory has failed (`HostedPartition.Offline`).
        if self.log.is_none() || self.offline {
            return Err(LeadershipError::LogOffline);
        }
        let role = &self.role;
        if current_leader_epoch != ANY_EPOCH && current_leader_epoch < role.leader_epoch {
            return Err(LeadershipError::FencedLeaderEpoch);
        }
        if current_leader_epoch > role.leader_epoch {
            return Err(LeadershipError::UnknownLeaderEpoch);
        }
        if asked == Asked::Leader && role.leader != role.local {
            return Err(LeadershipError::NotLeader);
        }
        Ok(())
    }

    /// One of the things under way has ended.
    pub(super) fn came_to_rest(&mut self) {
        if let Some(taker) = self.taker.take() {
            taker.wake();
        }
    }

    /// The log and the high watermark live by the settings of the role: what counts as appended may hang on them.
    fn follow_config(&mut self) {
        if let Some(log) = &mut self.log {
            log.set_config(LogConfig::new(&self.role.config, log.config().producer_id_expiration_ms));
        }
        self.move_high_watermark();
    }

    /// Tells who waits for it.
    pub(super) fn high_watermark_moved(&mut self) {
        let high_watermark = self.replicas.high_watermark();
        if let Some(log) = &mut self.log {
            log.high_watermark_moved(high_watermark);
            let log_bytes = log.appended_bytes();
            let offsets = offsets_of(log, high_watermark);
            self.purgatory.high_watermark_moved(&offsets, log_bytes);
        }
    }

    pub(super) fn offsets(&self) -> Option<Offsets> {
        Some(offsets_of(self.log.as_ref()?, self.replicas.high_watermark()))
    }
}

fn offsets_of<D: Disk>(log: &Log<D>, high_watermark: Offset) -> Offsets {
    Offsets {
        log_start: log.log_start_offset(),
        high_watermark,
        last_stable: log.last_stable_offset(high_watermark),
        log_end: log.log_end_offset(),
    }
}

impl<P: Platform> Partition<P> {
    /// A replica over an open log, or one whose log could not be opened, which every request is told.
    pub fn new(
        platform: P,
        home: Rc<Home>,
        topic_partition: TopicPartition,
        topic_id: TopicId,
        role: Role,
        opened: Result<Log<P::Disk>, LastStop>,
    ) -> Rc<Partition<P>> {
        let (log, unopened) = match opened {
            Ok(log) => (Some(log), None),
            Err(last_stop) => (None, Some(last_stop)),
        };
        let replicas = ReplicaSet::new(role.local, role.isr.clone(), 0, 0);
        let mut state = State {
            log,
            unopened,
            role,
            replicas,
            purgatory: Purgatory::default(),
            pending: VecDeque::new(),
            append_running: false,
            upkeep_running: false,
            epochs: EpochsWrite::default(),
            maintenance_running: false,
            rolls: Vec::new(),
            leaving: false,
            cleaner: CleanerNotes::default(),
            rest_wanted: false,
            flushing: Flushing::default(),
            home: Rc::clone(&home),
            offline: home.log_dir().is_offline(),
            taker: None,
        };
        state.move_high_watermark();
        state.high_watermark_moved();
        Rc::new(Partition { topic_partition, topic_id, platform, home, state: RefCell::new(state) })
    }

    /// Takes on a new role (Kafka 3.9 `Partition.makeLeader`). A role of an older leader epoch is ignored. Where a reign
    /// begins is written down before its first append: a start writes nothing for those that have none.
    pub fn take_role(&self, role: Role) {
        let mut state = self.state.borrow_mut();
        if role.leader_epoch < state.role.leader_epoch {
            return;
        }
        let new_reign = role.leader_epoch > state.role.leader_epoch;
        let moved = state.replicas.set_isr(role.isr.clone());
        if new_reign && role.leader != role.local {
            state.purgatory.interrupt();
        }
        if moved {
            state.high_watermark_moved();
        }
        state.role = role;
        state.follow_config();
    }

    /// The topic has other settings: role and log live by them.
    pub fn set_config(&self, config: Arc<TopicConfig>) {
        let mut state = self.state.borrow_mut();
        state.role.config = config;
        state.follow_config();
    }

    /// `producer.id.expiration.ms` has changed.
    pub fn set_producer_id_expiration(&self, expiration_ms: i64) {
        let mut state = self.state.borrow_mut();
        if let Some(log) = &mut state.log {
            log.set_config(LogConfig { producer_id_expiration_ms: expiration_ms, ..log.config().clone() });
        }
    }

    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.state.borrow().role.leader_epoch
    }

    pub fn config(&self) -> Arc<TopicConfig> {
        Arc::clone(&self.state.borrow().role.config)
    }

    /// The offsets, for a request under `current_leader_epoch`.
    pub fn leader_offsets(&self, current_leader_epoch: LeaderEpoch) -> Result<Offsets, LeadershipError> {
        self.offsets(current_leader_epoch, Asked::Leader)
    }

    pub fn offsets(&self, current_leader_epoch: LeaderEpoch, asked: Asked) -> Result<Offsets, LeadershipError> {
        let state = self.state.borrow();
        state.check(current_leader_epoch, asked)?;
        state.offsets().ok_or(LeadershipError::LogOffline)
    }

    /// The largest leader epoch up to `requested` and where it ends; `None` if that can't be said (Kafka 3.9
    /// `Partition.lastOffsetForLeaderEpoch`).
    pub fn end_offset_for_epoch(
        &self,
        current_leader_epoch: LeaderEpoch,
        requested: LeaderEpoch,
    ) -> Result<Option<(LeaderEpoch, Offset)>, LeadershipError> {
        let state = self.state.borrow();
        state.check_leader(current_leader_epoch)?;
        let log = state.log.as_ref().ok_or(LeadershipError::LogOffline)?;
        Ok(log.end_offset_for(requested, state.role.leader_epoch))
    }

    /// What the log knows of each producer id; a follower answers too (Kafka 3.9 `Partition.activeProducerState`).
    pub fn active_producers(&self) -> Result<Vec<ActiveProducer>, LeadershipError> {
        let state = self.state.borrow();
        state.check(ANY_EPOCH, Asked::AnyReplica)?;
        Ok(state.log.as_ref().map(Log::active_producers).unwrap_or_default())
    }

    /// Whether the log could not be opened at the start.
    pub fn is_unopened(&self) -> bool {
        self.state.borrow().unopened.is_some()
    }

    /// Its log could not be opened, and had been closed in order before.
    pub fn was_left_clean(&self) -> bool {
        self.state.borrow().unopened.is_some_and(|last_stop| !last_stop.unclean)
    }

    /// What to write into the checkpoints; `None` once the log is closed.
    pub fn checkpoint(&self) -> Option<LogCheckpoint> {
        let state = self.state.borrow();
        let (topic_partition, log_dir) = (self.topic_partition.clone(), self.home.index);
        match (&state.log, state.unopened) {
            (Some(log), _) => Some(LogCheckpoint {
                topic_partition,
                log_dir,
                recovery_point: log.recovery_point(),
                log_start_offset: log.log_start_offset(),
                first_segment_offset: log.first_segment_offset(),
                high_watermark: state.replicas.high_watermark(),
                cleaned_to: log.cleaned_to(),
            }),
            (None, Some(last_stop)) => Some(LogCheckpoint::kept(topic_partition, log_dir, last_stop)),
            (None, None) => None,
        }
    }

    /// Has `watch` told of bytes that come to this partition below what `isolation` lets see, up to `room` of them;
    /// false if the log is gone.
    pub fn watch(&self, watch: &Arc<Watch>, isolation: Isolation, room: u64) -> bool {
        let mut state = self.state.borrow_mut();
        let Some(offsets) = state.offsets() else { return false };
        let log_bytes = state.log.as_ref().map_or(0, Log::appended_bytes);
        state.purgatory.watch(watch, isolation, room, &offsets, log_bytes);
        true
    }

    /// Delayed fetches are to look again: the shard stops.
    pub fn wake_fetches(&self) {
        self.state.borrow_mut().purgatory.fire_watches();
    }

    /// Fetches that wait for this partition.
    pub fn watch_count(&self) -> usize {
        self.state.borrow().purgatory.watch_count()
    }

    /// Bytes of all its segments' records; `None` if the log is not open.
    pub fn size_bytes(&self) -> Option<u64> {
        self.state.borrow().log.as_ref().map(Log::size_bytes)
    }

    /// Records that the high watermark is ahead of this replica's log end; `None` if the log is not open.
    pub fn offset_lag(&self) -> Option<i64> {
        let offsets = self.state.borrow().offsets()?;
        Some((offsets.high_watermark - offsets.log_end).max(0))
    }

    /// Which of `log.dirs` it lies in.
    pub fn log_dir_index(&self) -> usize {
        self.home.index
    }

    /// The directory has failed: what waits is told, and later requests find the log offline.
    pub fn go_offline(&self) {
        let mut state = self.state.borrow_mut();
        state.offline = true;
        let failure = AppendFailure::Leadership(LeadershipError::LogOffline);
        state.fail_pending(&failure);
        state.flushing.fail(&failure);
        state.purgatory.interrupt();
    }

    /// Judges an error of the log: one that says the device can't be trusted takes the directory offline.
    pub(super) fn storage_failed(&self, error: &LogError) {
        if let LogError::Io { source, .. } = error
            && is_fatal(source)
        {
            self.home.fail(error);
        }
    }

    /// Gives the log up: what waits is told, later requests find it offline. Waits for the append in flight.
    pub async fn take_log(self: &Rc<Self>) -> Option<Log<P::Disk>> {
        {
            let mut state = self.state.borrow_mut();
            state.purgatory.interrupt();
            state.pending.clear();
            state.leaving = true;
        }
        poll_fn(|context| {
            let mut state = self.state.borrow_mut();
            let is_busy = state.append_running || state.upkeep_running || state.maintenance_running;
            if is_busy || state.epochs.running || state.flushing.running {
                state.taker = Some(context.waker().clone());
                return Poll::Pending;
            }
            let log = state.log.take();
            state.note_unflushed();
            Poll::Ready(log)
        })
        .await
    }
}
