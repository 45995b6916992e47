//! The log of one partition.

#![forbid(unsafe_code)]

use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::BytesMut;

use crate::base::ids::{LeaderEpoch, Offset, TopicId, TopicPartition};
use crate::base::time::WallMs;
use crate::platform::{Disk, FileRange};
use crate::record::batch::{BatchHeader, TimestampType};

/// A topic's settings as far as its logs need them; Kafka's names and defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Bytes; 1073741824.
    pub segment_bytes: u32,
    /// 604800000.
    pub segment_ms: i64,
    /// 0. The jitter of a segment is drawn by the caller's seed: see [`Log::begin_roll`].
    pub segment_jitter_ms: i64,
    /// 4096.
    pub index_interval_bytes: u32,
    /// 10485760.
    pub segment_index_bytes: u32,
    /// `message.timestamp.type`.
    pub message_timestamp_type: TimestampType,
    /// `producer.id.expiration.ms`, 86400000.
    pub producer_id_expiration_ms: i64,
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        todo!()
    }
}

/// What is known of the directory's last stop (see [`crate::storage::log_dir::LogDirScan`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastStop {
    /// No clean-shutdown marker: scan from the segment that holds the recovery point.
    pub unclean: bool,
    /// From `recovery-point-offset-checkpoint`; 0 if unknown.
    pub recovery_point: Offset,
    /// From `log-start-offset-checkpoint`; 0 if unknown.
    pub log_start_offset: Offset,
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
}

/// The write failed and the log is fenced: appends are `Staged::Fenced` until [`Log::finish_repair`]. What was staged or
/// in flight is gone: everybody who waits for an offset at or past [`Log::log_end_offset`] fails.
#[derive(Debug, thiserror::Error)]
#[error("append failed: {0}")]
pub struct AppendError(pub io::Error);

/// Why a batch was not appended; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendRefusal {
    /// RECORD_LIST_TOO_LARGE.
    #[error("batch of {batch_bytes} bytes is over segment.bytes {segment_bytes}")]
    RecordListTooLarge { batch_bytes: usize, segment_bytes: u32 },
    /// OUT_OF_ORDER_SEQUENCE_NUMBER.
    #[error("producer {producer_id}: sequence {base_sequence} does not follow {last_sequence}")]
    OutOfOrderSequence { producer_id: i64, base_sequence: i32, last_sequence: i32 },
    /// INVALID_PRODUCER_EPOCH.
    #[error("producer {producer_id}: epoch {producer_epoch} is older than {current_epoch}")]
    InvalidProducerEpoch { producer_id: i64, producer_epoch: i16, current_epoch: i16 },
}

/// What became of a batch given to [`Log::stage`].
#[derive(Debug)]
pub enum Staged {
    /// Part of the open write. `log_append_time` is -1 unless the topic says LogAppendTime.
    Written {
        base_offset: Offset,
        last_offset: Offset,
        log_append_time: WallMs,
    },
    /// Was appended before (perhaps not finished yet: answer when the log end has passed `last_offset`).
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
    /// A write failed: repair first.
    Fenced(BytesMut),
}

/// One write of staged batches, for [`Disk::append`].
#[derive(Debug)]
pub struct LogWrite<F> {
    pub file: Arc<F>,
    pub position: u64,
    pub data: Vec<BytesMut>,
}

/// Where the bytes of a fetch are.
#[derive(Debug)]
pub enum Read<F> {
    Range {
        /// Starts at the batch that holds the offset; never empty. The last batch may be cut short.
        range: FileRange<F>,
        /// Bytes of the first batch; may exceed `range.length`, then the caller may extend the range to it.
        first_batch_bytes: u64,
        /// Base offset of the first batch.
        base_offset: Offset,
        /// This process appended these bytes recently: they are resident, no need to ask.
        recently_appended: bool,
    },
    /// Nothing at or past the offset below the ceiling.
    Empty,
    /// Below the log start or past the log end.
    OutOfRange,
    /// What is needed to find the batch is not in the page cache: run [`Disk::make_resident`] and read again.
    NeedPages {
        file: Arc<F>,
        position: u64,
        length: u64,
    },
    /// The segment's files are not open: run [`Log::load_segment`], [`Log::finish_load_segment`], and read again.
    NeedSegment {
        base_offset: Offset,
    },
    Io(io::Error),
}

pub struct Log<D: Disk> {
    _disk: PhantomData<D>,
}

/// What a roll made; goes to [`Log::finish_roll`].
pub struct Rolled<D: Disk>(PhantomData<D>);
/// What a repair did; goes to [`Log::finish_repair`].
pub struct Repaired(io::Result<()>);
/// What upkeep did; goes to [`Log::finish_upkeep`].
pub struct UpkeepDone(io::Result<()>);
/// A closed segment's files, open; goes to [`Log::finish_load_segment`].
pub struct LoadedSegment<D: Disk>(PhantomData<D>);
/// What was made durable; goes to [`Log::finish_flush`].
pub struct Flushed(io::Result<()>);

impl<D: Disk> Log<D> {
    /// Opens or creates `<log_dir>/<topic>-<partition>`.
    pub async fn open(
        _disk: D,
        _log_dir: PathBuf,
        _tp: TopicPartition,
        _topic_id: TopicId,
        _config: LogConfig,
        _last_stop: LastStop,
        _wall: WallMs,
    ) -> Result<Log<D>, LogError> {
        todo!()
    }

    pub fn topic_partition(&self) -> &TopicPartition {
        todo!()
    }
    pub fn topic_id(&self) -> TopicId {
        todo!()
    }
    pub fn set_config(&mut self, _config: LogConfig) {
        todo!()
    }
    pub fn log_start_offset(&self) -> Offset {
        todo!()
    }
    /// Moves when a write finishes.
    pub fn log_end_offset(&self) -> Offset {
        todo!()
    }
    /// Everything below is durable.
    pub fn recovery_point(&self) -> Offset {
        todo!()
    }
    /// Bytes of all segments.
    pub fn size_bytes(&self) -> u64 {
        todo!()
    }
    pub fn is_fenced(&self) -> bool {
        todo!()
    }

    /// Puts one validated batch behind the staged ones, stamped with its offset and `leader_epoch`.
    pub fn stage(
        &mut self,
        _batch: BytesMut,
        _header: &BatchHeader,
        _leader_epoch: LeaderEpoch,
        _now: WallMs,
    ) -> Staged {
        todo!()
    }
    /// The staged batches as one write; `None` while one is in flight, or if nothing is staged.
    pub fn take_write(&mut self) -> Option<LogWrite<D::File>> {
        todo!()
    }
    /// The write taken last is through: the log end moves, or the log is fenced.
    pub fn finish_write(&mut self, _result: io::Result<()>) -> Result<(), AppendError> {
        todo!()
    }

    /// Cuts the file back to its last whole batch after a failed write.
    pub fn repair(&self) -> impl Future<Output = Repaired> + 'static {
        async { todo!() }
    }
    pub fn finish_repair(&mut self, _repaired: Repaired) -> Result<(), LogError> {
        todo!()
    }

    /// Nothing may be staged or in flight, until `finish_roll`.
    pub fn begin_roll(&mut self, _now: WallMs) -> impl Future<Output = Rolled<D>> + 'static {
        async { todo!() }
    }
    /// After it, [`Log::flush`] the closed segment in the background. An error leaves the old segment active.
    pub fn finish_roll(&mut self, _rolled: Rolled<D>) -> Result<(), LogError> {
        todo!()
    }

    /// Preallocation and index blocks, if any is due; to be asked after appends. One at a time.
    pub fn upkeep(&mut self, _now: WallMs) -> Option<impl Future<Output = UpkeepDone> + 'static> {
        Some(async { todo!() })
    }
    pub fn finish_upkeep(&mut self, _done: UpkeepDone) -> Result<(), LogError> {
        todo!()
    }

    /// Makes what is written now durable; then [`Log::recovery_point`] moves.
    pub fn flush(&mut self) -> impl Future<Output = Flushed> + 'static {
        async { todo!() }
    }
    pub fn finish_flush(&mut self, _flushed: Flushed) -> Result<(), LogError> {
        todo!()
    }

    pub fn read(&self, _offset: Offset, _bytes_max: u64, _ceiling: Offset) -> Read<D::File> {
        todo!()
    }
    pub fn load_segment(&self, _base_offset: Offset) -> impl Future<Output = LoadedSegment<D>> + 'static {
        async { todo!() }
    }
    pub fn finish_load_segment(&mut self, _loaded: LoadedSegment<D>) -> Result<(), LogError> {
        todo!()
    }

    /// The first record at or after `timestamp` below `ceiling`: its offset and timestamp (ListOffsets by time).
    pub fn lookup_timestamp(
        &self,
        _timestamp: i64,
        _ceiling: Offset,
    ) -> impl Future<Output = Result<Option<(Offset, i64)>, LogError>> + 'static {
        async { todo!() }
    }

    /// Notes that this leader epoch starts at the log end. The future, if any, writes `leader-epoch-checkpoint`.
    pub fn assign_epoch(
        &mut self,
        _epoch: LeaderEpoch,
    ) -> Option<impl Future<Output = Result<(), LogError>> + 'static> {
        Some(async { todo!() })
    }
    pub fn latest_epoch(&self) -> Option<LeaderEpoch> {
        todo!()
    }
    /// The leader epoch that wrote the record at `offset`, as far as it is known.
    pub fn epoch_at(&self, _offset: Offset) -> Option<LeaderEpoch> {
        todo!()
    }

    /// An orderly stop: everything durable, indexes trimmed, producer snapshot at the log end. Nothing in flight.
    /// Resolves to the log end offset, which is the recovery point.
    pub fn close(self) -> impl Future<Output = Result<Offset, LogError>> + 'static {
        async { todo!() }
    }

    /// Takes the partition's directory out of the way (`-delete`) and removes it. Ranges still held stay readable.
    pub fn delete(self) -> impl Future<Output = Result<(), LogError>> + 'static {
        async { todo!() }
    }
}
