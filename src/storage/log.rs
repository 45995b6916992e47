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

pub(crate) mod clean;
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
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;

use crate::base::ids::{LeaderEpoch, Offset, TopicId, TopicPartition};
use crate::base::time::WallMs;
use crate::config::TopicConfig;
use crate::config::topic::TimestampType as ConfiguredTimestamp;
use crate::metrics::RecoveryProgress;
use crate::platform::Disk;
use crate::record::batch::{BatchHeader, TimestampType, set_log_append_time, stamp};
use crate::storage::leader_epoch::LeaderEpochs;
use crate::storage::offset_index::relative_offset;
use crate::storage::open_files::OpenFiles;
use crate::storage::producer_state::{Admission, ProducerState, Undo};
use crate::storage::recovery;
pub use crate::storage::refusal::AppendRefusal;
use crate::storage::segment::{ActiveSegment, BatchPlace, ClosedSegment, WrittenBatch};

pub(super) use names::Names;

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

/// The write failed and the log is fenced: appends are `Staged::Fenced` until [`Log::finish_repair`]. What was staged or
/// in flight is gone: everybody who waits for an offset at or past [`Log::log_end_offset`] fails.
#[derive(Debug, thiserror::Error)]
#[error("append failed: {0}")]
pub struct AppendError(pub io::Error);

/// What became of a batch given to [`Log::stage`].
#[derive(Debug)]
pub enum Staged {
    /// Part of the open write. `log_append_time` is -1 unless the topic says LogAppendTime.
    Written {
        base_offset: Offset,
        last_offset: Offset,
        log_append_time: WallMs,
    },
    /// Was appended before, perhaps not finished yet: answer when the log end has passed `last_offset`.
    Duplicate {
        base_offset: Offset,
        last_offset: Offset,
        log_append_time: WallMs,
    },
    Refused(AppendRefusal),
    /// The open write has no room: take it, and stage this batch again.
    WriteFull(BytesMut),
    /// The segment is full or old: let the writes finish, roll, and stage this batch again.
    RollFirst(BytesMut),
    /// A write failed and is not repaired yet.
    Fenced(BytesMut),
    /// The segment's file is not open: [`Log::load_segment`] the active one, and stage this batch again.
    NeedFile(BytesMut),
}

/// One write of staged batches, for [`Disk::append`].
#[derive(Debug)]
pub struct LogWrite<F> {
    pub file: Arc<F>,
    pub position: u64,
    pub data: Vec<BytesMut>,
}

/// What a repair did; goes to [`Log::finish_repair`].
#[derive(Debug)]
pub struct Repaired {
    base_offset: Offset,
    /// Whether the sync was reached: an error is final from there on.
    began: bool,
    result: Result<(), LogError>,
}

/// A batch between staging and the end of its write.
#[derive(Debug)]
struct PendingBatch {
    batch: WrittenBatch,
    undo: Option<Undo>,
}

/// Batches on their way into the file, oldest first: those in flight, then those staged.
#[derive(Debug, Default)]
struct Pending {
    in_flight: Vec<PendingBatch>,
    staged: Vec<PendingBatch>,
    staged_data: Vec<BytesMut>,
    staged_bytes: usize,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.in_flight.is_empty() && self.staged.is_empty()
    }

    fn last(&self) -> Option<&WrittenBatch> {
        self.staged.last().or(self.in_flight.last()).map(|pending| &pending.batch)
    }

    fn first(&self) -> Option<&WrittenBatch> {
        self.in_flight.first().or(self.staged.first()).map(|pending| &pending.batch)
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
    pending: Pending,
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

    /// Nothing is staged or in flight.
    pub fn is_quiet(&self) -> bool {
        self.run.pending.is_empty()
    }

    /// Offset of the next batch to be staged.
    fn staged_end_offset(&self) -> Offset {
        self.run.pending.last().map_or(self.log_end_offset, |batch| batch.place.last_offset + 1)
    }

    fn staged_end_position(&self) -> u64 {
        self.run.pending.last().map_or(self.active.size, |batch| batch.place.position + batch.place.bytes)
    }

    /// Puts one validated batch behind the staged ones, stamped with its offset and `leader_epoch`.
    ///
    /// `header` is the batch's, as the validation gave it. With LogAppendTime the batch is stamped with `now` too.
    pub fn stage(
        &mut self,
        mut batch: BytesMut,
        header: &BatchHeader,
        leader_epoch: LeaderEpoch,
        now: WallMs,
    ) -> Staged {
        assert_eq!(batch.len(), header.batch_bytes(), "exactly one whole batch");
        if self.run.fenced {
            return Staged::Fenced(batch);
        }
        if self.active.file().is_none() {
            return Staged::NeedFile(batch);
        }
        match self.admit(header, now) {
            Err(refusal) => return Staged::Refused(refusal),
            Ok(Admission::Duplicate { base_offset, last_offset, timestamp }) => {
                // Whatever the topic's type of timestamps is, as in Kafka 3.9 `UnifiedLog.append`.
                return Staged::Duplicate { base_offset, last_offset, log_append_time: timestamp };
            }
            Ok(Admission::New) => {}
        }
        if self.run.rolling || self.must_roll(header, now) {
            return Staged::RollFirst(batch);
        }
        let pending = &self.run.pending;
        let has_room =
            pending.staged_bytes + batch.len() <= WRITE_BYTES_MAX && pending.staged.len() < WRITE_BATCHES_MAX;
        if !pending.staged.is_empty() && !has_room {
            return Staged::WriteFull(batch);
        }

        let base_offset = self.staged_end_offset();
        let mut stamped = BatchHeader { base_offset, leader_epoch, ..*header };
        stamp(&mut batch, base_offset, leader_epoch);
        if self.config.message_timestamp_type == TimestampType::LogAppendTime {
            set_log_append_time(&mut batch, now);
            stamped.max_timestamp = now;
        }
        self.push_staged(batch, &stamped);
        Staged::Written {
            base_offset,
            last_offset: stamped.last_offset(),
            log_append_time: self.if_log_append_time(now),
        }
    }

    fn if_log_append_time(&self, ms: WallMs) -> WallMs {
        match self.config.message_timestamp_type {
            TimestampType::CreateTime => -1,
            TimestampType::LogAppendTime => ms,
        }
    }

    fn admit(&mut self, header: &BatchHeader, now: WallMs) -> Result<Admission, AppendRefusal> {
        let (batch_bytes, segment_bytes) = (header.batch_bytes(), self.config.segment_bytes);
        if batch_bytes > segment_bytes as usize {
            return Err(AppendRefusal::RecordListTooLarge { batch_bytes, segment_bytes });
        }
        if !header.has_producer_id() {
            return Ok(Admission::New);
        }
        self.expire_producers(now);
        self.producers.check(header)
    }

    /// Forgets producers that have been idle for long; looked at now and then, as often as this is called.
    pub fn expire_producers(&mut self, now: WallMs) {
        if now.saturating_sub(self.run.producers_expired_at) >= PRODUCER_EXPIRY_INTERVAL_MS {
            self.run.producers_expired_at = now;
            self.producers.expire(now, self.config.producer_id_expiration_ms);
        }
    }

    /// Kafka 3.9 `LogSegment.shouldRoll`.
    fn must_roll(&self, header: &BatchHeader, now: WallMs) -> bool {
        let position = self.staged_end_position();
        let last_offset = self.staged_end_offset() + i64::from(header.last_offset_delta);
        let is_full = position + header.batch_bytes() as u64 > u64::from(self.config.segment_bytes);
        let overflows = relative_offset(self.active.base_offset, last_offset).is_none();
        position > 0 && (is_full || overflows || self.active.is_index_full() || self.is_old(header, now))
    }

    /// Time is counted in record timestamps if the segment's first batch has one, else on the wall.
    fn is_old(&self, header: &BatchHeader, now: WallMs) -> bool {
        let staged_first = self.run.pending.first().map(|batch| batch.max_timestamp);
        let incoming = match self.config.message_timestamp_type {
            TimestampType::CreateTime => header.max_timestamp,
            TimestampType::LogAppendTime => now,
        };
        let waited = match self.active.first_timestamp.or(staged_first) {
            Some(first) if first >= 0 => incoming.saturating_sub(first),
            _ => now.saturating_sub(self.active.created),
        };
        waited > self.config.segment_ms - self.segment_jitter_ms()
    }

    /// A number below the setting, drawn from the names so that a run repeats itself.
    fn segment_jitter_ms(&self) -> i64 {
        let jitter_ms = self.config.segment_jitter_ms;
        if jitter_ms <= 0 {
            return 0;
        }
        let name = format!("{}/{}", self.topic_partition, self.active.base_offset);
        i64::from(crc32fast::hash(name.as_bytes())) % jitter_ms
    }

    fn push_staged(&mut self, data: BytesMut, header: &BatchHeader) {
        let place = BatchPlace {
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            position: self.staged_end_position(),
            bytes: data.len() as u64,
        };
        let batch = WrittenBatch { place, max_timestamp: header.max_timestamp, leader_epoch: header.leader_epoch };
        let undo = header.has_producer_id().then(|| self.producers.apply(header));
        let pending = &mut self.run.pending;
        pending.staged_bytes += data.len();
        pending.staged_data.push(data);
        pending.staged.push(PendingBatch { batch, undo });
        self.active.files.pin(true);
    }

    /// The active segment's file stays open as long as bytes of it are on their way, or appended here and not flushed.
    fn pin_unflushed(&self) {
        let has_unflushed = self.run.appended_bytes > 0 && self.unflushed_bytes() > 0;
        self.active.files.pin(!self.is_quiet() || self.run.fenced || has_unflushed);
    }

    /// The staged batches as one write; `None` while one is in flight, or if nothing is staged.
    pub fn take_write(&mut self) -> Option<LogWrite<D::File>> {
        let pending = &mut self.run.pending;
        if !pending.in_flight.is_empty() || pending.staged.is_empty() {
            return None;
        }
        let file = self.active.file()?;
        pending.in_flight = std::mem::take(&mut pending.staged);
        pending.staged_bytes = 0;
        let data = copy_small_together(std::mem::take(&mut pending.staged_data));
        Some(LogWrite { file, position: self.active.size, data })
    }

    /// The write taken last is through: the log end moves behind it, or the log is fenced.
    ///
    /// # Errors
    /// The write's own error. Its batches and the staged ones are taken back: see [`AppendError`].
    pub fn finish_write(&mut self, result: io::Result<()>) -> Result<(), AppendError> {
        assert!(!self.run.pending.in_flight.is_empty(), "a write is in flight");
        if let Err(error) = result {
            self.fence();
            return Err(AppendError(error));
        }
        self.run.touched = true;
        for PendingBatch { batch, .. } in std::mem::take(&mut self.run.pending.in_flight) {
            self.run.appended_bytes += batch.place.bytes;
            self.active.note_batch(&batch, self.config.index_interval_bytes);
            self.log_end_offset = batch.place.last_offset + 1;
        }
        Ok(())
    }

    /// Takes back everything behind the log end.
    fn fence(&mut self) {
        self.run.fenced = true;
        let Pending { in_flight, staged, .. } = std::mem::take(&mut self.run.pending);
        for PendingBatch { undo, .. } in in_flight.into_iter().chain(staged).rev() {
            undo.into_iter().for_each(|undo| self.producers.undo(undo));
        }
    }

    /// Cuts the file back to its last whole batch after a failed write, durably: what failed must not come back behind,
    /// or in place of, what is appended next. Nothing beyond was ever served, so readers keep their ranges.
    pub fn repair(&self) -> impl Future<Output = Repaired> + use<D> + 'static {
        let (disk, file, size) = (self.disk.clone(), self.active_file(), self.active.size);
        let (base_offset, path) = (self.active.base_offset, self.active_path());
        async move {
            let mut began = false;
            let cut = async {
                let file = file.open().await?;
                disk.set_length(&file, size).await.map_err(LogError::io_at(&path))?;
                began = true;
                disk.sync(&file).await.map_err(LogError::io_at(&path))
            };
            let result = cut.await;
            Repaired { base_offset, began, result }
        }
    }

    /// Lifts the fence, or leaves it if the cut failed.
    pub fn finish_repair(&mut self, repaired: Repaired) -> Result<(), LogError> {
        assert_eq!(repaired.base_offset, self.active.base_offset, "a fenced log does not roll");
        self.run.flush_failed |= repaired.began && repaired.result.is_err();
        repaired.result?;
        // The cut gave the blocks back that were reserved behind it.
        self.active.preallocated_end = self.active.size;
        self.run.fenced = false;
        self.pin_unflushed();
        Ok(())
    }

    /// Notes that this leader epoch starts at the log end; [`Log::is_quiet`]. The future, if there is news, writes
    /// `leader-epoch-checkpoint` durably.
    pub fn assign_epoch(
        &mut self,
        epoch: LeaderEpoch,
    ) -> Option<impl Future<Output = Result<(), LogError>> + use<D> + 'static> {
        let is_news = self.epochs.assign(epoch, self.staged_end_offset());
        is_news.then(|| {
            let path = self.directory.join(LEADER_EPOCH_CHECKPOINT);
            let (disk, file) = (self.disk.clone(), self.epochs.encode());
            async move { disk.replace(&path, file).await.map_err(LogError::io_at(&path)) }
        })
    }

    /// What [`Log::assign_epoch`] noted could not be written: it is news again.
    pub fn take_back_epoch(&mut self) {
        self.epochs.truncate_from_end(self.log_end_offset);
    }

    pub fn latest_epoch(&self) -> Option<LeaderEpoch> {
        self.epochs.latest()
    }

    /// The largest epoch up to `requested` and where it ends, for the leader of epoch `reign`; `None` if that can't be
    /// said.
    pub fn end_offset_for(&self, requested: LeaderEpoch, reign: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        self.epochs.end_offset_for(requested, reign, self.log_end_offset)
    }

    /// The leader epoch that wrote the record at `offset`, as far as it is known.
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        self.epochs.at(offset)
    }
}

/// Runs of small pieces become one piece; order and bytes stay.
fn copy_small_together(pieces: Vec<BytesMut>) -> Vec<BytesMut> {
    let is_small = |piece: &BytesMut| piece.len() <= COPIED_BATCH_BYTES_MAX;
    let mut out: Vec<BytesMut> = Vec::with_capacity(pieces.len());
    let mut rest = pieces.into_iter().peekable();
    while let Some(mut piece) = rest.next() {
        if is_small(&piece) && rest.peek().is_some_and(is_small) {
            let mut together = BytesMut::with_capacity(WRITE_BYTES_MAX.min(COPIED_BATCH_BYTES_MAX * (rest.len() + 1)));
            together.extend_from_slice(&piece);
            while let Some(next) = rest.next_if(is_small) {
                together.extend_from_slice(&next);
            }
            piece = together;
        }
        out.push(piece);
    }
    out
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
