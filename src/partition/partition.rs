//! One replica of one partition, owned by one shard.
//!
//! State is borrowed only between awaits: an operation takes from the log what describes its I/O, lets the borrow go,
//! waits, and comes back with the result. Appends go through one task at a time (see `append`), so at most one write is
//! in flight; reads never change the log.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::append::{AppendFailure, AppendQueue};
use super::clean::CleanerNotes;
use super::flush::Flushing;
use super::home::Home;
use super::purgatory::{Purgatory, Watch};
use super::replica_set::LocalEnds;
use super::role::{LeaderAndIsr, Role};
use super::slot::{Job, Jobs, Kept, LogSlot};
use crate::base::ids::{BrokerId, LeaderEpoch, Offset, TopicId, TopicPartition};
use crate::config::{Durability, TopicConfig};
use crate::platform::{Clock, Disk, Platform};
use crate::storage::log::{LastStop, Log, LogConfig, LogError};
use crate::storage::log_dirs::is_fatal;
use crate::storage::producer_state::ActiveProducer;

/// Of a request that does not name the leader epoch it knows.
pub const ANY_EPOCH: LeaderEpoch = -1;

/// The replica id of consumers.
pub const CONSUMER: i32 = -1;

/// Which replica may answer a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnsweredBy {
    Leader,
    AnyReplica,
}

/// What a replica lives by, whatever its role.
#[derive(Clone, Debug)]
pub struct Settings {
    pub local: BrokerId,
    pub durability: Durability,
    /// `--rebatch`.
    pub rebatch: bool,
    /// `replica.lag.time.max.ms`.
    pub replica_lag_time_max: Duration,
    /// `producer.id.expiration.ms`.
    pub producer_id_expiration_ms: i64,
    pub config: Arc<TopicConfig>,
}

impl Settings {
    /// What its log lives by.
    pub fn log_config(&self) -> LogConfig {
        let config = LogConfig::new(&self.config, self.producer_id_expiration_ms);
        let answers_when_flushed = config.answers_when_flushed || self.durability == Durability::Fsync;
        LogConfig { answers_when_flushed, ..config }
    }
}

/// A request's leader epoch does not fit, or this replica does not lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeadershipError {
    #[error("this broker does not lead the partition")]
    NotLeader,
    /// Only what this broker asks its own replicas for is refused so.
    #[error("this broker leads the partition")]
    NotFollower,
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
        let LastStop { recovery_point, log_start_offset, high_watermark, cleaned_to, .. } = last_stop;
        LogCheckpoint {
            topic_partition,
            log_dir,
            recovery_point,
            log_start_offset,
            first_segment_offset: 0,
            high_watermark,
            cleaned_to,
        }
    }
}

/// What became of the opening of a log.
pub struct Opened<D: Disk> {
    /// How it had been left.
    pub last_stop: LastStop,
    /// `None`: it could not be opened.
    pub log: Option<Log<D>>,
}

pub struct Partition<P: Platform> {
    pub topic_partition: TopicPartition,
    pub topic_id: TopicId,
    pub(super) platform: P,
    pub(super) home: Rc<Home>,
    pub(super) state: RefCell<State<P>>,
}

pub(super) struct State<P: Platform> {
    pub(super) slot: LogSlot<P::Disk>,
    pub(super) settings: Settings,
    pub(super) role: Role,
    /// Records below are on every replica that counts, as far as this one knows. It outlives roles; only a truncation of
    /// the log lowers it.
    pub(super) high_watermark: Offset,
    pub(super) purgatory: Purgatory,
    pub(super) append: AppendQueue,
    pub(super) jobs: Jobs,
    pub(super) cleaner: CleanerNotes,
    pub(super) flushing: Flushing,
    pub(super) home: Rc<Home>,
    pub(super) clock: P::Clock,
}

impl<P: Platform> State<P> {
    /// Checks that this replica leads, under the epoch that the request names (-1: any; KIP-320).
    pub(super) fn check_leader(&self, current_leader_epoch: LeaderEpoch) -> Result<(), LeadershipError> {
        self.check(current_leader_epoch, AnsweredBy::Leader)
    }

    /// Checks that this replica follows, under exactly this epoch.
    pub(super) fn check_follower(&self, leader_epoch: LeaderEpoch) -> Result<(), LeadershipError> {
        self.check(leader_epoch, AnsweredBy::AnyReplica)?;
        match self.role.is_leader() {
            true => Err(LeadershipError::NotFollower),
            false => Ok(()),
        }
    }

    pub(super) fn check(&self, current_leader_epoch: LeaderEpoch, asked: AnsweredBy) -> Result<(), LeadershipError> {
        match &self.slot {
            // Kafka looks at nothing else of a partition whose directory has failed (`HostedPartition.Offline`).
            LogSlot::Offline(_) => return Err(LeadershipError::LogOffline),
            LogSlot::Leaving(_) => return Err(LeadershipError::NotLeader),
            LogSlot::Open(_) | LogSlot::Truncating(_) => {}
        }
        let leader_epoch = self.role.epoch();
        if current_leader_epoch != ANY_EPOCH && current_leader_epoch < leader_epoch {
            return Err(LeadershipError::FencedLeaderEpoch);
        }
        if current_leader_epoch > leader_epoch {
            return Err(LeadershipError::UnknownLeaderEpoch);
        }
        if asked == AnsweredBy::Leader && !self.role.is_leader() {
            return Err(LeadershipError::NotLeader);
        }
        Ok(())
    }

    /// Begins a job in a log that is served, unless it runs.
    pub(super) fn begin(&mut self, job: Job) -> bool {
        self.slot.is_open() && self.jobs.begin(job)
    }

    pub(super) fn offsets(&self) -> Option<Offsets> {
        match &self.slot {
            LogSlot::Truncating(truncating) => Some(truncating.offsets),
            slot => Some(offsets_of(slot.log()?, self.high_watermark)),
        }
    }
}

pub(super) fn offsets_of<D: Disk>(log: &Log<D>, high_watermark: Offset) -> Offsets {
    Offsets {
        log_start: log.log_start_offset(),
        high_watermark,
        last_stable: log.last_stable_offset(high_watermark),
        log_end: log.log_end_offset(),
    }
}

impl<P: Platform> Partition<P> {
    /// A replica over an open log, or one whose log could not be opened, which every request is told. The high watermark
    /// is what the checkpoint says, as far as the log has it.
    pub fn new(
        platform: P,
        home: Rc<Home>,
        topic_partition: TopicPartition,
        topic_id: TopicId,
        settings: Settings,
        given: &LeaderAndIsr,
        Opened { log, last_stop }: Opened<P::Disk>,
    ) -> Rc<Partition<P>> {
        let known = last_stop.high_watermark;
        #[cfg(test)]
        let known = if planted::FORGET_HIGH_WATERMARK.get() { 0 } else { known };
        let (slot, high_watermark) = match log {
            Some(log) => {
                let high_watermark = known.clamp(log.log_start_offset(), log.log_end_offset());
                (LogSlot::Open(log), high_watermark)
            }
            None => (LogSlot::Offline(Kept::Unopened(last_stop)), known),
        };
        let clock = platform.clock().clone();
        let mut cleaner = CleanerNotes::default();
        cleaner.noted_cleaned_to(last_stop.cleaned_to);
        let log_end = slot.log().map_or(0, Log::log_end_offset);
        let mut state = State {
            slot,
            role: Role::new(settings.local, given, log_end, clock.now()),
            settings,
            high_watermark,
            purgatory: Purgatory::default(),
            append: AppendQueue::default(),
            jobs: Jobs::default(),
            cleaner,
            flushing: Flushing::default(),
            home: Rc::clone(&home),
            clock,
        };
        if home.log_dir().is_offline() {
            state.slot.go_offline();
        }
        if let Some(log) = state.slot.log_mut() {
            log.high_watermark_moved(high_watermark);
        }
        state.move_high_watermark();
        Rc::new(Partition { topic_partition, topic_id, platform, home, state: RefCell::new(state) })
    }

    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.state.borrow().role.epoch()
    }

    pub fn config(&self) -> Arc<TopicConfig> {
        Arc::clone(&self.state.borrow().settings.config)
    }

    /// The offsets, for a request under `current_leader_epoch`.
    pub fn leader_offsets(&self, current_leader_epoch: LeaderEpoch) -> Result<Offsets, LeadershipError> {
        self.offsets(current_leader_epoch, AnsweredBy::Leader)
    }

    pub fn offsets(&self, current_leader_epoch: LeaderEpoch, asked: AnsweredBy) -> Result<Offsets, LeadershipError> {
        let state = self.state.borrow();
        state.check(current_leader_epoch, asked)?;
        state.offsets().ok_or(LeadershipError::LogOffline)
    }

    /// Whether the high watermark has not reached the beginning of this leader's reign yet: the leaders before may have shown
    /// consumers more, so that where they may read to last is not known (KIP-207).
    pub fn is_catching_up(&self) -> bool {
        let state = self.state.borrow();
        state.role.leader().is_some_and(|leader| state.high_watermark < leader.epoch_start)
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
        let log = state.slot.open().ok_or(LeadershipError::NotLeader)?;
        Ok(log.end_offset_for(requested, state.role.epoch()))
    }

    /// What the log knows of each producer id; a follower answers too (Kafka 3.9 `Partition.activeProducerState`).
    pub fn active_producers(&self) -> Result<Vec<ActiveProducer>, LeadershipError> {
        let state = self.state.borrow();
        state.check(ANY_EPOCH, AnsweredBy::AnyReplica)?;
        Ok(state.slot.log().map(Log::active_producers).unwrap_or_default())
    }

    /// Whether the log could not be opened at the start.
    pub fn is_unopened(&self) -> bool {
        self.state.borrow().slot.unopened().is_some()
    }

    /// Its log could not be opened, and had been closed in order before.
    pub fn was_left_clean(&self) -> bool {
        self.state.borrow().slot.unopened().is_some_and(|last_stop| !last_stop.unclean)
    }

    /// What to write into the checkpoints; `None` once the log is taken away.
    pub fn checkpoint(&self) -> Option<LogCheckpoint> {
        let state = self.state.borrow();
        let (topic_partition, log_dir) = (self.topic_partition.clone(), self.home.index);
        if let Some(last_stop) = state.slot.last_stop() {
            return Some(LogCheckpoint::kept(topic_partition, log_dir, last_stop));
        }
        let log = state.slot.log()?;
        Some(LogCheckpoint {
            topic_partition,
            log_dir,
            recovery_point: log.recovery_point(),
            log_start_offset: log.log_start_offset(),
            first_segment_offset: log.first_segment_offset(),
            high_watermark: state.high_watermark,
            cleaned_to: log.cleaned_to(),
        })
    }

    /// The high watermark when the log was closed with all up to `log_end` flushed: that may count by now.
    pub fn high_watermark_at_close(&self, log_end: Offset) -> Offset {
        let state = self.state.borrow();
        let (local, lag_max) = (LocalEnds { log_end, counted: log_end }, state.settings.replica_lag_time_max);
        let before = state.high_watermark;
        let leader = state.role.leader();
        leader.map_or(before, |leader| {
            leader.high_watermark(before, local, state.min_isr(), lag_max, || state.clock.now())
        })
    }

    /// Has `watch` told of bytes that come to this partition below what `isolation` lets see, up to `room` of them;
    /// false if the log is gone.
    pub fn watch(&self, watch: &Arc<Watch>, isolation: Isolation, room: u64) -> bool {
        let mut state = self.state.borrow_mut();
        let Some(offsets) = state.offsets() else { return false };
        let log_bytes = state.slot.log().map_or(0, Log::appended_bytes);
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
        self.state.borrow().slot.log().map(Log::size_bytes)
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
        state.slot.go_offline();
        state.jobs.wake();
        let failure = AppendFailure::Leadership(LeadershipError::LogOffline);
        state.append.fail(&failure);
        state.flushing.fail(&failure);
        state.purgatory.interrupt(&failure);
    }

    /// Judges an error of the log: one that says the device can't be trusted takes the directory offline.
    pub(super) fn storage_failed(&self, error: &LogError) {
        if let LogError::Io { source, .. } = error
            && is_fatal(source)
        {
            self.home.fail(error);
        }
    }

    /// Resolves when a job that runs has ended.
    pub(super) async fn ended(self: Rc<Self>, job: Job) {
        poll_fn(|context| {
            let mut state = self.state.borrow_mut();
            match state.jobs.is_running(job) {
                true => {
                    state.jobs.wait(context.waker());
                    Poll::Pending
                }
                false => Poll::Ready(()),
            }
        })
        .await;
    }

    /// Gives the log up: what waits is told, later requests are refused. Waits for what is under way.
    pub async fn take_log(self: &Rc<Self>) -> Option<Log<P::Disk>> {
        {
            let mut state = self.state.borrow_mut();
            state.purgatory.interrupt(&AppendFailure::Interrupted);
            state.append.pending.clear();
            state.append.truncation = None;
            state.slot.leave();
            state.jobs.wake();
        }
        poll_fn(|context| {
            let mut state = self.state.borrow_mut();
            if !state.jobs.is_none_but(&[]) {
                state.jobs.wait(context.waker());
                return Poll::Pending;
            }
            let log = state.slot.take();
            state.note_unflushed();
            Poll::Ready(log)
        })
        .await
    }
}

/// The planted bug that the simulator must catch.
#[cfg(test)]
pub(crate) mod planted {
    use std::cell::Cell;

    thread_local! {
        /// What the checkpoint says of the high watermark is not looked at.
        pub(crate) static FORGET_HIGH_WATERMARK: Cell<bool> = const { Cell::new(false) };
    }
}
