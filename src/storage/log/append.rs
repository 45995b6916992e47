//! How batches get into a log: staged in memory, written together, taken back together when the write fails.
//!
//! Who sent a batch decides who judges it and who gives it its offsets ([`Origin`]). The producer state follows at staging;
//! the transaction index is written before the markers that it speaks of: whatever ends the process in between, an entry
//! ahead of its marker is met by nobody, since its transaction is open, and recovery cuts it.

#![forbid(unsafe_code)]

use std::future::Future;
use std::io;
use std::sync::Arc;

use bytes::BytesMut;

use crate::base::ids::{LeaderEpoch, Offset};
use crate::base::time::WallMs;
use crate::platform::Disk;
use crate::record::batch::{BatchHeader, TimestampType, set_log_append_time, stamp};
use crate::storage::log::{COPIED_BATCH_BYTES_MAX, Log, LogError, PRODUCER_EXPIRY_INTERVAL_MS};
use crate::storage::log::{WRITE_BATCHES_MAX, WRITE_BYTES_MAX};
use crate::storage::offset_index::relative_offset;
use crate::storage::producer_state::{Admission, Marker, Undo};
use crate::storage::refusal::AppendRefusal;
use crate::storage::segment::{BASE_OFFSET_MAX, BatchPlace, TRANSACTION_INDEX, WrittenBatch};
use crate::storage::transaction_index::{EndedTransaction, encode_entries};

/// Whose batch it is (Kafka 3.9 `AppendOrigin`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A producer's: its epoch and sequence are judged, and what it repeats is recognised. Offsets and leader epoch are
    /// given here.
    Client,
    /// A coordinator's of this broker: of a producer only the epoch is judged, since what it writes for one has no sequence.
    Coordinator,
    /// A transaction marker, one control batch: the producer's and the coordinator's epoch are judged.
    Marker,
    /// The leader's, for its follower: judged there. Offsets and leader epoch stay as they are; what does not follow this
    /// log's end is refused.
    Replication,
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
    /// The segment is full or old, or can't hold the batch's offsets: let the writes finish, roll to the batch's base offset,
    /// and stage it again.
    RollFirst(BytesMut),
    /// A write failed and is not repaired yet.
    Fenced(BytesMut),
    /// The segment's file is not open: [`Log::load_segment`] the active one, and stage this batch again.
    NeedFile(BytesMut),
}

/// What a batch is, once it may be appended.
enum Admitted {
    Data,
    Marker(Marker),
    Duplicate { base_offset: Offset, last_offset: Offset, timestamp: i64 },
}

/// Entries of the transaction index that were written ahead of their markers; go to
/// [`Log::finish_transactions_write`].
#[derive(Debug)]
pub struct TransactionsWritten<D: Disk> {
    base_offset: Offset,
    result: Result<Arc<D::File>, LogError>,
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
pub(super) struct PendingBatch {
    batch: WrittenBatch,
    undo: Option<Undo>,
}

/// Batches on their way into the file, oldest first: those in flight, then those staged.
#[derive(Debug, Default)]
pub(super) struct Pending {
    in_flight: Vec<PendingBatch>,
    staged: Vec<PendingBatch>,
    /// The transactions that abort markers among them have ended.
    in_flight_aborted: Vec<EndedTransaction>,
    staged_aborted: Vec<EndedTransaction>,
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
impl<D: Disk> Log<D> {
    /// Nothing is staged or in flight.
    pub fn is_quiet(&self) -> bool {
        self.run.pending.is_empty()
    }

    /// Offset of the next batch to be staged.
    pub(super) fn staged_end_offset(&self) -> Offset {
        self.run.pending.last().map_or(self.log_end_offset, |batch| batch.place.last_offset + 1)
    }

    fn staged_end_position(&self) -> u64 {
        self.run.pending.last().map_or(self.active.size, |batch| batch.place.position + batch.place.bytes)
    }

    /// Puts one validated batch behind the staged ones, stamped with its offset and `leader_epoch` unless its leader did.
    ///
    /// `header` is the batch's, as the validation gave it. With LogAppendTime the batch is stamped with `now` too.
    pub fn stage(
        &mut self,
        mut batch: BytesMut,
        header: &BatchHeader,
        origin: Origin,
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
        let marker = match self.admit(&batch, header, origin, now) {
            Err(refusal) => return Staged::Refused(refusal),
            Ok(Admitted::Duplicate { base_offset, last_offset, timestamp }) => {
                // Whatever the topic's type of timestamps is, as in Kafka 3.9 `UnifiedLog.append`.
                return Staged::Duplicate { base_offset, last_offset, log_append_time: timestamp };
            }
            Ok(Admitted::Data) => None,
            Ok(Admitted::Marker(marker)) => Some(marker),
        };
        let mut stamped = match origin {
            Origin::Replication => *header,
            _ => BatchHeader { base_offset: self.staged_end_offset(), leader_epoch, ..*header },
        };
        if self.log_append_time(origin) {
            stamped.max_timestamp = now;
        }
        if self.run.rolling || self.must_roll(&stamped, now) {
            return Staged::RollFirst(batch);
        }
        let pending = &self.run.pending;
        let has_room =
            pending.staged_bytes + batch.len() <= WRITE_BYTES_MAX && pending.staged.len() < WRITE_BATCHES_MAX;
        if !pending.staged.is_empty() && !has_room {
            return Staged::WriteFull(batch);
        }

        if origin != Origin::Replication {
            stamp(&mut batch, stamped.base_offset, leader_epoch);
        }
        if self.log_append_time(origin) {
            set_log_append_time(&mut batch, now);
        }
        self.push_staged(batch, &stamped, marker);
        Staged::Written {
            base_offset: stamped.base_offset,
            last_offset: stamped.last_offset(),
            log_append_time: if self.log_append_time(origin) { now } else { -1 },
        }
    }

    /// Whether batches get the time of now.
    fn log_append_time(&self, origin: Origin) -> bool {
        self.config.message_timestamp_type == TimestampType::LogAppendTime && origin != Origin::Replication
    }

    fn admit(
        &mut self,
        batch: &[u8],
        header: &BatchHeader,
        origin: Origin,
        now: WallMs,
    ) -> Result<Admitted, AppendRefusal> {
        if origin == Origin::Replication {
            return self.admit_replicated(batch, header);
        }
        let (batch_bytes, segment_bytes) = (header.batch_bytes(), self.config.segment_bytes);
        if batch_bytes > segment_bytes as usize {
            return Err(AppendRefusal::RecordListTooLarge { batch_bytes, segment_bytes });
        }
        if !header.has_producer_id() {
            return Ok(Admitted::Data);
        }
        self.expire_producers(now);
        match origin {
            Origin::Coordinator => self.producers.check_epoch(header).map(|()| Admitted::Data),
            Origin::Marker => {
                let marker = Marker::parse(header, batch).ok().flatten();
                let marker = marker.ok_or(AppendRefusal::Corrupt { base_offset: header.base_offset })?;
                self.producers.check_marker(&marker)?;
                Ok(Admitted::Marker(marker))
            }
            Origin::Client | Origin::Replication => match self.producers.check(header)? {
                Admission::New => Ok(Admitted::Data),
                Admission::Duplicate { base_offset, last_offset, timestamp } => {
                    Ok(Admitted::Duplicate { base_offset, last_offset, timestamp })
                }
            },
        }
    }

    /// Whether a leader's batch would be taken as the next one.
    pub fn judge_replicated(&self, batch: &[u8], header: &BatchHeader) -> Result<(), AppendRefusal> {
        self.admit_replicated(batch, header).map(drop)
    }

    /// A leader's batch begins where this log ends. Where the log was compacted offsets may be missing in between; elsewhere
    /// recovery would take them for a lost tail (Kafka 3.9 `UnifiedLog.append` looks for an overlap alone).
    fn admit_replicated(&self, batch: &[u8], header: &BatchHeader) -> Result<Admitted, AppendRefusal> {
        let (base_offset, log_end_offset) = (header.base_offset, self.staged_end_offset());
        // The checksum does not cover the offset, and who computes one may be wrong about the rest.
        if header.last_offset_delta < 0 || base_offset > BASE_OFFSET_MAX {
            return Err(AppendRefusal::Corrupt { base_offset });
        }
        if base_offset < log_end_offset || (base_offset > log_end_offset && !self.config.compacted) {
            return Err(AppendRefusal::UnexpectedOffset { base_offset, log_end_offset });
        }
        if !header.is_control() || !header.has_producer_id() {
            return Ok(Admitted::Data);
        }
        let invalid = |_| AppendRefusal::Corrupt { base_offset: header.base_offset };
        let marker = Marker::parse(header, batch).map_err(invalid)?;
        Ok(marker.map_or(Admitted::Data, Admitted::Marker))
    }

    /// Forgets producers that have been idle for long; looked at now and then, as often as this is called.
    pub fn expire_producers(&mut self, now: WallMs) {
        if now.saturating_sub(self.run.producers_expired_at) >= PRODUCER_EXPIRY_INTERVAL_MS {
            self.run.producers_expired_at = now;
            self.producers.expire(now, self.config.producer_id_expiration_ms);
        }
    }

    /// Kafka 3.9 `LogSegment.shouldRoll`. An empty segment too may begin too far before a batch that a leader's compacted log
    /// goes on with, or behind it: it was made for one that was not written.
    fn must_roll(&self, stamped: &BatchHeader, now: WallMs) -> bool {
        let position = self.staged_end_position();
        let is_full = position + stamped.batch_bytes() as u64 > u64::from(self.config.segment_bytes);
        let relative = |offset| relative_offset(self.active.base_offset, offset);
        let holds_offsets = relative(stamped.base_offset).and(relative(stamped.last_offset())).is_some();
        !holds_offsets || (position > 0 && (is_full || self.active.is_index_full() || self.is_old(stamped, now)))
    }

    /// Time is counted in record timestamps if the segment's first batch has one, else on the wall.
    fn is_old(&self, stamped: &BatchHeader, now: WallMs) -> bool {
        let staged_first = self.run.pending.first().map(|batch| batch.max_timestamp);
        let incoming = stamped.max_timestamp;
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

    fn push_staged(&mut self, data: BytesMut, header: &BatchHeader, marker: Option<Marker>) {
        let place = BatchPlace {
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            position: self.staged_end_position(),
            bytes: data.len() as u64,
        };
        let batch = WrittenBatch { place, max_timestamp: header.max_timestamp, leader_epoch: header.leader_epoch };
        let undo = match marker {
            Some(marker) => {
                let timestamp = header.record_timestamp(marker.timestamp - header.base_timestamp);
                let marker = Marker { offset: header.last_offset(), timestamp, ..marker };
                let (undo, ended) = self.producers.apply_marker(&marker);
                self.run.pending.staged_aborted.extend(ended.filter(|_| marker.aborts));
                Some(undo)
            }
            // An empty control batch is what compaction leaves of a marker.
            None => (header.has_producer_id() && !header.is_control()).then(|| self.producers.apply(header)),
        };
        let pending = &mut self.run.pending;
        pending.staged_bytes += data.len();
        pending.staged_data.push(data);
        pending.staged.push(PendingBatch { batch, undo });
        self.active.files.pin(true);
    }

    /// The active segment's file stays open as long as bytes of it are on their way, or appended here and not flushed.
    pub(super) fn pin_unflushed(&self) {
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
        pending.in_flight_aborted = std::mem::take(&mut pending.staged_aborted);
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
        if !self.run.pending.in_flight_aborted.is_empty() {
            self.keep_aborted();
        }
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
        let transactions = self.cut_transactions();
        async move {
            let mut began = false;
            let cut = async {
                if let Some(transactions) = transactions {
                    transactions.await?;
                }
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
        self.active.transactions.is_ahead = false;
        self.run.fenced = false;
        self.pin_unflushed();
        Ok(())
    }

    /// To be run before the write taken last, if it is there: notes in the active segment's transaction index which
    /// transactions its markers have aborted.
    pub fn transactions_write(&mut self) -> Option<impl Future<Output = TransactionsWritten<D>> + use<D> + 'static> {
        let aborted = &self.run.pending.in_flight_aborted;
        if aborted.is_empty() {
            return None;
        }
        let data = encode_entries(aborted);
        let (directory, base_offset) = (self.files_of(), self.active.base_offset);
        self.active.transactions.is_ahead = true;
        // The file may be new.
        self.run.names_unsynced = true;
        let position = self.active.transactions.bytes;
        Some(async move {
            let result = directory.rewrite_index(base_offset, TRANSACTION_INDEX, position, data).await;
            TransactionsWritten { base_offset, result }
        })
    }

    /// # Errors
    /// The write is to fail with it: [`Log::finish_write`].
    pub fn finish_transactions_write(&mut self, written: TransactionsWritten<D>) -> io::Result<()> {
        assert_eq!(written.base_offset, self.active.base_offset, "nothing is rolled under a write");
        match written.result {
            Ok(file) => {
                self.active.transactions.unsynced = Some(file);
                Ok(())
            }
            Err(LogError::Io { source, .. }) => Err(source),
            Err(error) => Err(io::Error::other(error.to_string())),
        }
    }

    /// The markers are in the log that the index speaks of.
    fn keep_aborted(&mut self) {
        let aborted = std::mem::take(&mut self.run.pending.in_flight_aborted);
        let transactions = &mut self.active.transactions;
        assert!(transactions.is_ahead, "the index comes before the markers");
        transactions.bytes += encode_entries(&aborted).len() as u64;
        transactions.is_ahead = false;
        self.transaction_indexes.insert(self.active.base_offset);
    }

    /// What takes entries out of the transaction index whose markers were not written; `None` if there are none.
    pub(super) fn cut_transactions(&self) -> Option<impl Future<Output = Result<(), LogError>> + use<D> + 'static> {
        let (directory, base_offset) = (self.files_of(), self.active.base_offset);
        let bytes = self.active.transactions.bytes;
        self.active.transactions.is_ahead.then_some(async move {
            directory.rewrite_index(base_offset, TRANSACTION_INDEX, bytes, Vec::new()).await.map(drop)
        })
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
