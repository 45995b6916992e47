//! The log of one partition: appended to by one write at a time, read as ranges of its files.
//!
//! ```text
//! stage ... stage   take_write --- Disk::append --- finish_write          log end offset
//!   |  open write  |       in flight, one            |  moves here  ------->
//! ```
//! - Offsets are given at staging, in order; a batch is visible once its write finished. A failed write takes back
//!   everything behind the log end, fences the log, and [`Log::repair`] cuts the file back to its last whole batch.
//! - A segment is rolled between writes: nothing may be staged or in flight.
//! - The producer state contains what is staged, so that a retry close behind its original is known; what fails is undone.
//! - Nothing borrowed crosses an await: what waits is a `'static` future, and a `finish_*` takes what it resolved to.
//!   Futures of one log may be outstanding together; each kind once.

#![forbid(unsafe_code)]

mod append;
pub(crate) mod clean;
mod epochs;
mod lookup;
mod names;
mod offsets_before;
mod read;
mod reindex;
mod retain;
mod roll;
mod transactions;
mod truncate;
mod upkeep;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use crate::base::ids::{Offset, TopicId, TopicPartition};
use crate::base::time::WallMs;
use crate::config::TopicConfig;
use crate::config::topic::TimestampType as ConfiguredTimestamp;
use crate::metrics::RecoveryProgress;
use crate::platform::Disk;
use crate::record::batch::TimestampType;
use crate::storage::leader_epoch::LeaderEpochs;
use crate::storage::open_files::OpenFiles;
use crate::storage::producer_state::ProducerState;
use crate::storage::recovery;
pub use crate::storage::refusal::AppendRefusal;
use crate::storage::segment::{ActiveSegment, ClosedSegment};

pub(super) use names::Names;

pub use append::{AppendError, LogWrite, Origin, Repaired, Staged, TransactionsWritten};
pub use clean::{CleanError, CleanPlan, CleanTime, Cleaned, Cleaning, CompactionLags, Swapped, Unknown};
pub use names::NamesHeld;
pub use offsets_before::Before;
pub use read::{LoadedSegment, Read};
pub use retain::{Age, Retention, TakenOut};
pub use roll::{Flushed, Rolled};
pub use upkeep::{Rested, UpkeepDone};

/// Bytes of one write, unless a single batch is larger.
pub const WRITE_BYTES_MAX: usize = 1 << 20;
/// Batches of one write: each may be a piece of its own to the kernel.
pub const WRITE_BATCHES_MAX: usize = 1024;
/// Batches up to this size that stand side by side in a write are copied together: cheaper than a piece each.
const COPIED_BATCH_BYTES_MAX: usize = 4096;
pub const LEADER_EPOCH_CHECKPOINT: &str = "leader-epoch-checkpoint";
pub const PARTITION_METADATA: &str = "partition.metadata";
/// How often idle producers are looked for.
const PRODUCER_EXPIRY_INTERVAL_MS: i64 = 600_000;

/// A topic's settings as far as its logs need them; Kafka's names and defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Bytes; 1073741824.
    pub segment_bytes: u32,
    /// 604800000.
    pub segment_ms: i64,
    /// 0. Each segment's share is drawn from its name, so that partitions do not roll together.
    pub segment_jitter_ms: i64,
    /// 4096.
    pub index_interval_bytes: u32,
    /// 10485760.
    pub segment_index_bytes: u32,
    /// `message.timestamp.type`; CreateTime.
    pub message_timestamp_type: TimestampType,
    /// `producer.id.expiration.ms`, 86400000.
    pub producer_id_expiration_ms: i64,
    /// `cleanup.policy` contains compact: offsets between batches may be missing.
    pub compacted: bool,
    /// Producers are answered when their batches are flushed, so that many of them may wait for that at a kill.
    pub answers_when_flushed: bool,
}

impl LogConfig {
    /// What a topic's settings say of its logs, and the broker's of producers.
    pub fn new(config: &TopicConfig, producer_id_expiration_ms: i64) -> LogConfig {
        let positive = |value: i32| u32::try_from(value).unwrap_or(0);
        LogConfig {
            segment_bytes: positive(config.segment_bytes),
            segment_ms: config.segment_ms,
            segment_jitter_ms: config.segment_jitter_ms,
            index_interval_bytes: positive(config.index_interval_bytes),
            segment_index_bytes: positive(config.segment_index_bytes),
            message_timestamp_type: match config.message_timestamp_type {
                ConfiguredTimestamp::CreateTime => TimestampType::CreateTime,
                ConfiguredTimestamp::LogAppendTime => TimestampType::LogAppendTime,
            },
            producer_id_expiration_ms,
            compacted: config.cleanup_policy.compact,
            answers_when_flushed: config.flush_messages != i64::MAX || config.flush_ms != i64::MAX,
        }
    }
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig {
            segment_bytes: 1 << 30,
            segment_ms: 604_800_000,
            segment_jitter_ms: 0,
            index_interval_bytes: 4096,
            segment_index_bytes: 10 << 20,
            message_timestamp_type: TimestampType::CreateTime,
            producer_id_expiration_ms: 86_400_000,
            compacted: false,
            answers_when_flushed: false,
        }
    }
}

/// What is known of the directory's last stop (see [`crate::storage::log_dir::LogDirScan`]). The default is that of a log
/// that is new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastStop {
    /// No clean-shutdown marker: scan from the segment that holds the recovery point.
    pub unclean: bool,
    /// From `recovery-point-offset-checkpoint`; 0 if unknown.
    pub recovery_point: Offset,
    /// From `log-start-offset-checkpoint`; 0 if unknown.
    pub log_start_offset: Offset,
    /// From `replication-offset-checkpoint`; 0 if unknown.
    pub high_watermark: Offset,
    /// From `cleaner-offset-checkpoint`. If it is there, the log was compacted once, whatever its topic says now.
    pub cleaned_to: Option<Offset>,
    /// What was written to the log is in its files, durable or not: the page cache lives that it was written to.
    pub cache_survived: bool,
}

/// What a log is opened with.
#[derive(Clone, Debug)]
pub struct OpenLog<D: Disk> {
    pub disk: D,
    /// The data directory; the log's own is `<topic>-<partition>` in it.
    pub log_dir: PathBuf,
    pub topic_partition: TopicPartition,
    /// What `partition.metadata` must say; zero accepts any.
    pub topic_id: TopicId,
    pub config: LogConfig,
    pub last_stop: LastStop,
    pub wall: WallMs,
    /// The files that the shard keeps open.
    pub open_files: Rc<OpenFiles>,
    /// Shared by all logs that are opened; `logs_total` has this one counted already.
    pub progress: Arc<RecoveryProgress>,
}

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: {reason}")]
    Malformed { path: PathBuf, reason: String },
    /// INCONSISTENT_TOPIC_ID: `partition.metadata` holds another id.
    #[error("{path} holds topic id {found}, not {expected}")]
    InconsistentTopicId { path: PathBuf, found: TopicId, expected: TopicId },
    /// Segments were deleted or compacted while somebody waited to open them by name: ask again.
    #[error("the log's segments changed meanwhile")]
    SegmentsChanged,
    /// The work threads take no more: nothing is wrong with the log.
    #[error("too much work waits elsewhere")]
    Busy,
}

impl LogError {
    pub(super) fn io_at(path: &Path) -> impl FnOnce(io::Error) -> LogError + use<> {
        let path = path.to_owned();
        move |source| LogError::Io { path, source }
    }
}

/// The log of one partition. It belongs to one shard.
#[derive(Debug)]
pub struct Log<D: Disk> {
    pub(super) disk: D,
    pub(super) directory: PathBuf,
    pub(super) topic_partition: TopicPartition,
    pub(super) topic_id: TopicId,
    pub(super) config: LogConfig,
    pub(super) closed: BTreeMap<Offset, ClosedSegment<D::File>>,
    pub(super) active: ActiveSegment<D::File>,
    pub(super) open_files: Rc<OpenFiles>,
    pub(super) log_start_offset: Offset,
    pub(super) log_end_offset: Offset,
    pub(super) flushed_offset: Offset,
    pub(super) producers: ProducerState,
    pub(super) epochs: LeaderEpochs,
    pub(super) snapshots: Snapshots,
    /// Base offsets of the segments that have aborted transactions in their `.txnindex`.
    pub(super) transaction_indexes: BTreeSet<Offset>,
    /// Up to where the log was cleaned, if it ever was.
    pub(super) cleaned_to: Option<Offset>,
    /// Those of the closed segments' files.
    pub(super) names: Rc<Names>,
    pub(super) run: Run,
}

/// The producer snapshots on disk, by their offsets.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    pub newest: Option<Offset>,
    /// Those that were not taken at a segment's base.
    pub between: BTreeSet<Offset>,
}

/// Bytes that are in a log's files when it is opened, and perhaps not durable.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unflushed {
    pub closed_bytes: u64,
    pub active_bytes: u64,
}

/// What goes on in a log while it is open; all of it starts at rest.
#[derive(Debug, Default)]
pub(super) struct Run {
    pending: append::Pending,
    fenced: bool,
    rolling: bool,
    /// A sync failed: nothing more of this log is durable, whatever later syncs say.
    flush_failed: bool,
    /// The active segment may have a name that is not durable, without a closed one before it whose flush would see to
    /// that.
    names_unsynced: bool,
    /// Something was written since the log was opened, or recovery changed it: close has work to do.
    touched: bool,
    /// `leader-epoch-checkpoint` holds what lies below the log start yet.
    epochs_trimmed: bool,
    upkeep: upkeep::Upkeep,
    behind: upkeep::Behind,
    /// Bytes that the opening found past the flushed offset.
    found_bytes: u64,
    /// Bytes appended since.
    appended_bytes: u64,
    /// Of both together: those that are durable, and those before the active segment.
    flushed_bytes: u64,
    rolled_bytes: u64,
    producers_expired_at: WallMs,
    /// Segments whose offset index was seen to be damaged.
    doubted: std::cell::RefCell<BTreeSet<Offset>>,
    undecodable: Rc<UndecodableLookups>,
}

/// How often look-ups by time have met a batch that can't be decoded.
#[derive(Debug, Default)]
struct UndecodableLookups {
    total: Cell<u64>,
    /// Those that nobody has taken into account yet.
    uncounted: Cell<u64>,
}

impl Run {
    /// At rest at `wall`. `touched`: opening the log changed files already, or the last process left some unsynced.
    pub(super) fn new(touched: bool, wall: WallMs, found: Unflushed) -> Run {
        Run {
            touched,
            names_unsynced: touched,
            producers_expired_at: wall,
            found_bytes: found.closed_bytes + found.active_bytes,
            rolled_bytes: found.closed_bytes,
            ..Run::default()
        }
    }

    /// Bytes that were not durable when the log was opened, or were appended since.
    fn written_bytes(&self) -> u64 {
        self.found_bytes + self.appended_bytes
    }
}

impl<D: Disk> Log<D> {
    /// Opens a log, or creates it.
    ///
    /// After an unclean stop what lies past the recovery point is read and checked; the first torn batch and all behind it
    /// are cut off, and indexes and producer state are made anew from there. Where the page cache has survived only the end
    /// of the log is read. What a deletion or a compaction left over is settled.
    ///
    /// # Errors
    /// `InconsistentTopicId` if another topic of that name lies there. `Malformed` if what was durable is damaged: no crash
    /// explains that, nothing was cut or removed, and the reason says how to go on.
    pub async fn open(what: OpenLog<D>) -> Result<Log<D>, LogError> {
        recovery::open(what).await
    }

    pub fn topic_partition(&self) -> &TopicPartition {
        &self.topic_partition
    }

    pub fn topic_id(&self) -> TopicId {
        self.topic_id
    }

    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    /// Lives by other settings from now on. Indexes get their new size at the next roll, and a segment that is full or old
    /// by them is rolled by the next append. A log that was ever compacted may have holes, whatever its topic says now.
    pub fn set_config(&mut self, config: LogConfig) {
        self.config = LogConfig { compacted: config.compacted || self.config.compacted, ..config };
    }

    pub fn log_start_offset(&self) -> Offset {
        self.log_start_offset
    }

    /// Offset of the next record; moves when a write finishes.
    pub fn log_end_offset(&self) -> Offset {
        self.log_end_offset
    }

    /// Records below are durable.
    pub fn flushed_offset(&self) -> Offset {
        self.flushed_offset
    }

    /// Bytes that the next flush makes durable, those too that were there when the log was opened: an unclean stop found
    /// them past the recovery point.
    pub fn unflushed_bytes(&self) -> u64 {
        self.run.written_bytes() - self.run.flushed_bytes
    }

    /// Bytes appended since the log was opened.
    pub fn appended_bytes(&self) -> u64 {
        self.run.appended_bytes
    }

    /// To be called now and then, and when nothing was appended for some seconds (`is_idle`): what was appended longer ago
    /// is looked for in the page cache before it is sent.
    pub fn cool_down(&mut self, is_idle: bool) {
        self.active.cool_down(is_idle);
    }

    /// Bytes of all segments' records, those of writes under way not counted.
    pub fn size_bytes(&self) -> u64 {
        self.closed.values().map(|segment| segment.size).sum::<u64>() + self.active.size
    }

    /// Where the oldest segment begins.
    pub fn first_segment_offset(&self) -> Offset {
        self.closed.keys().next().copied().unwrap_or(self.active.base_offset)
    }

    /// From here on an unclean stop makes recovery read. It trails the flushed offset as long as the indexes of a closed
    /// segment could still be lost.
    pub fn recovery_point(&self) -> Offset {
        // A segment that is being rolled is closed as soon as the next one has its name, and then its indexes may be lost
        // though its batches were flushed meanwhile.
        let rolling = self.run.rolling.then_some(self.log_end_offset);
        // As long as a closed segment's indexes may be lost, it is to be looked at.
        let unsynced = self.closed.iter().find(|(_, segment)| !segment.unsynced.is_empty());
        let next_base = unsynced.map(|(base_offset, _)| self.next_segment(*base_offset).unwrap_or(self.log_end_offset));
        next_base.or(rolling).map_or(self.flushed_offset, |next_base| self.flushed_offset.min(next_base - 1))
    }
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
