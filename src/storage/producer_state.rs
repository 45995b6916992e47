//! What the log knows of each producer id: its epoch, its last five batches, its open transaction.
//!
//! A batch whose sequence range is one of the five is a duplicate and is answered with its first offsets; one that does
//! not follow the last is refused; a producer id that is not known may start with any sequence (Kafka 3.9
//! `ProducerStateManager`, `ProducerAppendInfo`). Pure: the log decides when a snapshot is written.
//!
//! At most [`PRODUCERS_MAX`] producer ids are kept. Beyond it the longest idle ones are forgotten, which costs them
//! their duplicate window and nothing else.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

use crate::base::crc32c::crc32c;
use crate::base::ids::Offset;
use crate::base::time::WallMs;
use crate::record::batch::{BatchError, BatchHeader, NO_SEQUENCE, decode_records, increment_sequence};
use crate::storage::compaction::pass::LastOfProducer;
use crate::storage::refusal::AppendRefusal;
use crate::storage::transaction_index::EndedTransaction;

/// Producer ids that one log remembers.
pub const PRODUCERS_MAX: usize = 100_000;
/// How many go at once when there are more: the search for the longest idle ones looks at all.
const FORGOTTEN_AT_ONCE: usize = PRODUCERS_MAX / 8;
/// Batches of a producer that a retry is recognised among.
const BATCHES_KEPT: usize = 5;
const NO_PRODUCER_EPOCH: i16 = -1;

/// What a transaction marker's records may take; they are a few bytes and never compressed.
const MARKER_BYTES_MAX: usize = 4096;

const SNAPSHOT_VERSION: i16 = 1;
const SNAPSHOT_HEAD_BYTES: usize = 10;
const SNAPSHOT_CRC_END: usize = 6;
const SNAPSHOT_ENTRY_BYTES: usize = 46;
/// The longest snapshot file that is read.
pub const SNAPSHOT_BYTES_MAX: usize = SNAPSHOT_HEAD_BYTES + 16 * PRODUCERS_MAX * SNAPSHOT_ENTRY_BYTES;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
struct SeenBatch {
    last_sequence: i32,
    last_offset: Offset,
    offset_delta: i32,
    timestamp: i64,
}

impl SeenBatch {
    fn base_sequence(&self) -> i32 {
        increment_sequence(self.last_sequence, -self.offset_delta)
    }

    fn base_offset(&self) -> Offset {
        self.last_offset - i64::from(self.offset_delta)
    }
}

/// One producer id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerEntry {
    epoch: i16,
    coordinator_epoch: i32,
    last_timestamp: i64,
    transaction_first_offset: Option<Offset>,
    /// The first `batch_count`, oldest first.
    batches: [SeenBatch; BATCHES_KEPT],
    batch_count: usize,
}

impl ProducerEntry {
    fn empty() -> ProducerEntry {
        ProducerEntry {
            epoch: NO_PRODUCER_EPOCH,
            coordinator_epoch: -1,
            last_timestamp: -1,
            transaction_first_offset: None,
            batches: [SeenBatch::default(); BATCHES_KEPT],
            batch_count: 0,
        }
    }

    fn seen(&self) -> &[SeenBatch] {
        &self.batches[..self.batch_count]
    }

    fn last_sequence(&self) -> i32 {
        self.seen().last().map_or(NO_SEQUENCE, |batch| batch.last_sequence)
    }

    fn set_epoch(&mut self, epoch: i16) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.batch_count = 0;
        }
    }

    fn push(&mut self, batch: SeenBatch) {
        if self.batch_count == BATCHES_KEPT {
            self.batches.rotate_left(1);
            self.batch_count -= 1;
        }
        self.batches[self.batch_count] = batch;
        self.batch_count += 1;
    }
}

/// A producer id as DescribeProducers shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveProducer {
    pub producer_id: i64,
    pub epoch: i16,
    /// [`NO_SEQUENCE`] if no data batch of this epoch is known.
    pub last_sequence: i32,
    pub last_timestamp: i64,
    pub coordinator_epoch: i32,
    pub transaction_first_offset: Option<Offset>,
}

/// What a batch is to the producers known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may be appended.
    New,
    /// It was appended at these offsets before. `timestamp` is the batch's max timestamp.
    Duplicate { base_offset: Offset, last_offset: Offset, timestamp: i64 },
}

/// How to take back one [`ProducerState::apply`] or [`ProducerState::apply_marker`].
#[derive(Debug)]
pub struct Undo {
    producer_id: i64,
    before: Option<ProducerEntry>,
}

/// A transaction marker, as a control batch holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub coordinator_epoch: i32,
    pub timestamp: i64,
    pub offset: Offset,
    /// Else it commits.
    pub aborts: bool,
}

impl Marker {
    /// Of a control batch: key i16 version, i16 type (0 abort, 1 commit); value i16 version, i32 coordinator epoch. `None`
    /// for other control records, and for the empty control batch that compaction leaves of a marker.
    pub fn parse(header: &BatchHeader, batch: &[u8]) -> Result<Option<Marker>, BatchError> {
        let records = decode_records(batch, MARKER_BYTES_MAX)?;
        let Some(record) = records.first() else { return Ok(None) };
        let (Some([0, 0, 0, kind @ (0 | 1), ..]), Some([_, _, a, b, c, d, ..])) =
            (record.key.as_deref(), record.value.as_deref())
        else {
            return Ok(None);
        };
        Ok(Some(Marker {
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            coordinator_epoch: i32::from_be_bytes([*a, *b, *c, *d]),
            timestamp: record.timestamp,
            offset: header.last_offset(),
            aborts: *kind == 0,
        }))
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct ProducerState {
    producers: BTreeMap<i64, ProducerEntry>,
    /// First offset and producer id of each open transaction.
    open: BTreeSet<(Offset, i64)>,
    /// First offset -> marker's offset of transactions that have ended, until the high watermark has passed the marker:
    /// it could be lost yet. Each is a marker in the log.
    ended: BTreeMap<Offset, Offset>,
}

/// Why a snapshot file is not used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    #[error("producer snapshot is cut short")]
    Truncated,
    #[error("producer snapshot has version {0}, not 1")]
    Version(i16),
    #[error("producer snapshot's CRC is wrong")]
    Crc,
    #[error("producer snapshot says {count} entries in {bytes} bytes")]
    Count { count: i32, bytes: usize },
}

fn below(header: &BatchHeader, current_epoch: i16) -> AppendRefusal {
    let BatchHeader { producer_id, producer_epoch, .. } = *header;
    AppendRefusal::InvalidProducerEpoch { producer_id, producer_epoch, current_epoch }
}

impl ProducerState {
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// What the cleaner must keep of each producer.
    pub fn last_batches(&self) -> impl Iterator<Item = (i64, LastOfProducer)> + '_ {
        self.producers.iter().map(|(producer_id, entry)| {
            let last_data_offset = entry.seen().last().map(|batch| batch.last_offset);
            (*producer_id, LastOfProducer { last_data_offset, epoch: entry.epoch })
        })
    }

    /// Every producer id, ascending.
    pub fn active_producers(&self) -> impl Iterator<Item = ActiveProducer> {
        self.producers.iter().map(|(producer_id, entry)| ActiveProducer {
            producer_id: *producer_id,
            epoch: entry.epoch,
            last_sequence: entry.last_sequence(),
            last_timestamp: entry.last_timestamp,
            coordinator_epoch: entry.coordinator_epoch,
            transaction_first_offset: entry.transaction_first_offset,
        })
    }

    /// Judges a client's batch that has a producer id.
    pub fn check(&self, header: &BatchHeader) -> Result<Admission, AppendRefusal> {
        let producer_id = header.producer_id;
        let unknown = ProducerEntry::empty();
        let Some(entry) = self.producers.get(&producer_id) else {
            return match header.producer_epoch < unknown.epoch {
                true => Err(below(header, unknown.epoch)),
                false => Ok(Admission::New),
            };
        };
        if header.producer_epoch == entry.epoch {
            let last_sequence = header.last_sequence();
            let same =
                |seen: &&SeenBatch| seen.base_sequence() == header.base_sequence && seen.last_sequence == last_sequence;
            if let Some(seen) = entry.seen().iter().find(same) {
                let (base_offset, last_offset) = (seen.base_offset(), seen.last_offset);
                return Ok(Admission::Duplicate { base_offset, last_offset, timestamp: seen.timestamp });
            }
        }
        if header.producer_epoch < entry.epoch {
            return Err(below(header, entry.epoch));
        }
        let last_sequence = entry.last_sequence();
        let follows = match header.producer_epoch == entry.epoch {
            true => header.base_sequence == increment_sequence(last_sequence, 1),
            false => header.base_sequence == 0,
        } || entry.epoch == NO_PRODUCER_EPOCH;
        if !follows {
            let base_sequence = header.base_sequence;
            return Err(AppendRefusal::OutOfOrderSequence { producer_id, base_sequence, last_sequence });
        }
        if entry.transaction_first_offset.is_some() && !header.is_transactional() {
            return Err(AppendRefusal::InvalidTxnState { producer_id });
        }
        Ok(Admission::New)
    }

    /// Judges a coordinator's batch for a producer: it has no sequence.
    pub fn check_epoch(&self, header: &BatchHeader) -> Result<(), AppendRefusal> {
        let Some(entry) = self.producers.get(&header.producer_id) else { return Ok(()) };
        if header.producer_epoch < entry.epoch {
            return Err(below(header, entry.epoch));
        }
        if entry.transaction_first_offset.is_some() && !header.is_transactional() {
            return Err(AppendRefusal::InvalidTxnState { producer_id: header.producer_id });
        }
        Ok(())
    }

    /// Judges a coordinator's marker.
    pub fn check_marker(&self, marker: &Marker) -> Result<(), AppendRefusal> {
        let Marker { producer_id, producer_epoch, coordinator_epoch, .. } = *marker;
        let Some(entry) = self.producers.get(&producer_id) else { return Ok(()) };
        if producer_epoch < entry.epoch {
            let current_epoch = entry.epoch;
            return Err(AppendRefusal::InvalidProducerEpoch { producer_id, producer_epoch, current_epoch });
        }
        if coordinator_epoch < entry.coordinator_epoch {
            let current_epoch = entry.coordinator_epoch;
            return Err(AppendRefusal::TransactionCoordinatorFenced { producer_id, coordinator_epoch, current_epoch });
        }
        Ok(())
    }

    /// Notes a data batch that has a producer id, with its offsets stamped.
    pub fn apply(&mut self, header: &BatchHeader) -> Undo {
        let undo = self.undo_of(header.producer_id);
        let entry = self.producers.entry(header.producer_id).or_insert_with(ProducerEntry::empty);
        entry.set_epoch(header.producer_epoch);
        entry.push(SeenBatch {
            last_sequence: header.last_sequence(),
            last_offset: header.last_offset(),
            offset_delta: header.last_offset_delta,
            timestamp: header.max_timestamp,
        });
        entry.last_timestamp = header.max_timestamp;
        if header.is_transactional() && entry.transaction_first_offset.is_none() {
            entry.transaction_first_offset = Some(header.base_offset);
            self.open.insert((header.base_offset, header.producer_id));
        }
        undo
    }

    /// What takes back the next that is noted of a producer, for which there is room then.
    fn undo_of(&mut self, producer_id: i64) -> Undo {
        let before = self.producers.get(&producer_id).copied();
        if before.is_none() && self.producers.len() >= PRODUCERS_MAX {
            self.forget_idle();
        }
        Undo { producer_id, before }
    }

    /// Takes back what was noted last; several are taken back newest first.
    pub fn undo(&mut self, undo: Undo) {
        let begun = |entry: Option<ProducerEntry>| entry.and_then(|entry| entry.transaction_first_offset);
        let after = match undo.before {
            Some(entry) => self.producers.insert(undo.producer_id, entry),
            None => self.producers.remove(&undo.producer_id),
        };
        match (begun(undo.before), begun(after)) {
            (None, Some(first_offset)) => drop(self.open.remove(&(first_offset, undo.producer_id))),
            (Some(first_offset), None) => {
                self.ended.remove(&first_offset);
                self.open.insert((first_offset, undo.producer_id));
            }
            (None, None) | (Some(_), Some(_)) => {}
        }
    }

    /// Notes a transaction marker: the producer's open transaction, if it has one here, ends and is given back.
    pub fn apply_marker(&mut self, marker: &Marker) -> (Undo, Option<EndedTransaction>) {
        let producer_id = marker.producer_id;
        let undo = self.undo_of(producer_id);
        let entry = self.producers.entry(producer_id).or_insert_with(ProducerEntry::empty);
        entry.set_epoch(marker.producer_epoch);
        entry.coordinator_epoch = marker.coordinator_epoch;
        entry.last_timestamp = marker.timestamp;
        let Some(first_offset) = entry.transaction_first_offset.take() else { return (undo, None) };
        self.open.remove(&(first_offset, producer_id));
        self.ended.insert(first_offset, marker.offset);
        let last_stable_offset =
            self.open.first().map_or(marker.offset.saturating_add(1), |(first_offset, _)| *first_offset);
        let ended = EndedTransaction { producer_id, first_offset, last_offset: marker.offset, last_stable_offset };
        (undo, Some(ended))
    }

    /// The first offset below `high_watermark` whose transaction is undecided, or was decided by a marker that the high
    /// watermark has not passed; else the high watermark (Kafka 3.9 `ProducerStateManager.firstUnstableOffset`).
    pub fn last_stable_offset(&self, high_watermark: Offset) -> Offset {
        let undecided = self.open.first().map(|(first_offset, _)| *first_offset);
        let unreplicated = self.ended.iter().find(|(_, last_offset)| **last_offset >= high_watermark);
        let unstable = undecided.into_iter().chain(unreplicated.map(|(first_offset, _)| *first_offset));
        unstable.min().unwrap_or(high_watermark).min(high_watermark)
    }

    /// Markers below `high_watermark` are decided for good.
    pub fn high_watermark_moved(&mut self, high_watermark: Offset) {
        self.ended.retain(|_, last_offset| *last_offset >= high_watermark);
    }

    /// Forgets producers idle since `expiration_ms`, but none with an open transaction.
    pub fn expire(&mut self, now: WallMs, expiration_ms: i64) {
        self.producers.retain(|_, entry| {
            entry.transaction_first_offset.is_some() || now.saturating_sub(entry.last_timestamp) < expiration_ms
        });
    }

    fn forget_idle(&mut self) {
        let idle = self.producers.iter().filter(|(_, entry)| entry.transaction_first_offset.is_none());
        let mut idle: Vec<_> = idle.map(|(id, entry)| (entry.last_timestamp, *id)).collect();
        idle.sort_unstable();
        for (_, id) in idle.into_iter().take(FORGOTTEN_AT_ONCE) {
            self.producers.remove(&id);
        }
    }

    /// The `.snapshot` file of this state.
    pub fn encode_snapshot(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SNAPSHOT_HEAD_BYTES + self.producers.len() * SNAPSHOT_ENTRY_BYTES);
        out.extend_from_slice(&SNAPSHOT_VERSION.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(self.producers.len() as i32).to_be_bytes());
        for (producer_id, entry) in &self.producers {
            let none = SeenBatch { last_sequence: NO_SEQUENCE, last_offset: -1, offset_delta: 0, timestamp: -1 };
            let last = entry.seen().last().copied().unwrap_or(none);
            out.extend_from_slice(&producer_id.to_be_bytes());
            out.extend_from_slice(&entry.epoch.to_be_bytes());
            out.extend_from_slice(&last.last_sequence.to_be_bytes());
            out.extend_from_slice(&last.last_offset.to_be_bytes());
            out.extend_from_slice(&last.offset_delta.to_be_bytes());
            out.extend_from_slice(&entry.last_timestamp.to_be_bytes());
            out.extend_from_slice(&entry.coordinator_epoch.to_be_bytes());
            out.extend_from_slice(&entry.transaction_first_offset.unwrap_or(-1).to_be_bytes());
        }
        let crc = crc32c(&out[SNAPSHOT_CRC_END..]);
        out[2..SNAPSHOT_CRC_END].copy_from_slice(&crc.to_be_bytes());
        out
    }

    /// The state that a `.snapshot` file holds; one batch of each producer is known again.
    pub fn decode_snapshot(file: &[u8]) -> Result<ProducerState, SnapshotError> {
        let producers: BTreeMap<_, _> =
            decode_entries(file)?.map(|entry| (entry.producer_id, ProducerEntry::of_snapshot(&entry))).collect();
        let begun = |(id, entry): (&i64, &ProducerEntry)| Some((entry.transaction_first_offset?, *id));
        let open = producers.iter().filter_map(begun).collect();
        Ok(ProducerState { producers, open, ended: BTreeMap::new() })
    }
}

/// What a `.snapshot` file says of one producer id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotEntry {
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub coordinator_epoch: i32,
    /// Of the open transaction.
    pub transaction_first_offset: Option<Offset>,
    pub last_timestamp: i64,
    /// The last batch: sequence and offset of its last record, and how many records came before that. `None` if no batch
    /// of this epoch is known.
    pub last_batch: Option<(i32, Offset, i32)>,
}

/// The entries of a `.snapshot` file, in its order.
pub fn decode_entries(file: &[u8]) -> Result<impl Iterator<Item = SnapshotEntry> + '_, SnapshotError> {
    let (head, body) = file.split_first_chunk::<SNAPSHOT_HEAD_BYTES>().ok_or(SnapshotError::Truncated)?;
    let version = i16::from_be_bytes([head[0], head[1]]);
    if version != SNAPSHOT_VERSION {
        return Err(SnapshotError::Version(version));
    }
    if crc32c(&file[SNAPSHOT_CRC_END..]) != u32::from_be_bytes([head[2], head[3], head[4], head[5]]) {
        return Err(SnapshotError::Crc);
    }
    let count = i32::from_be_bytes([head[6], head[7], head[8], head[9]]);
    let (entries, rest) = body.as_chunks::<SNAPSHOT_ENTRY_BYTES>();
    if !rest.is_empty() || usize::try_from(count) != Ok(entries.len()) {
        return Err(SnapshotError::Count { count, bytes: body.len() });
    }
    Ok(entries.iter().map(decode_entry))
}

fn decode_entry(bytes: &[u8; SNAPSHOT_ENTRY_BYTES]) -> SnapshotEntry {
    fn at<const N: usize>(bytes: &[u8], position: usize) -> [u8; N] {
        let mut out = [0; N];
        out.copy_from_slice(&bytes[position..position + N]);
        out
    }
    let last_offset = i64::from_be_bytes(at(bytes, 14));
    let last_sequence = i32::from_be_bytes(at(bytes, 10));
    let offset_delta = i32::from_be_bytes(at(bytes, 22)).max(0);
    SnapshotEntry {
        producer_id: i64::from_be_bytes(at(bytes, 0)),
        producer_epoch: i16::from_be_bytes(at(bytes, 8)),
        coordinator_epoch: i32::from_be_bytes(at(bytes, 34)),
        transaction_first_offset: Some(i64::from_be_bytes(at(bytes, 38))).filter(|offset| *offset >= 0),
        last_timestamp: i64::from_be_bytes(at(bytes, 26)),
        last_batch: (last_offset >= 0).then_some((last_sequence, last_offset, offset_delta)),
    }
}

impl ProducerEntry {
    fn of_snapshot(entry: &SnapshotEntry) -> ProducerEntry {
        let mut producer = ProducerEntry {
            epoch: entry.producer_epoch,
            coordinator_epoch: entry.coordinator_epoch,
            last_timestamp: entry.last_timestamp,
            transaction_first_offset: entry.transaction_first_offset,
            ..ProducerEntry::empty()
        };
        if let Some((last_sequence, last_offset, offset_delta)) = entry.last_batch {
            producer.push(SeenBatch { last_sequence, last_offset, offset_delta, timestamp: entry.last_timestamp });
        }
        producer
    }
}

/// Decodes arbitrary bytes as a snapshot; must not panic, and what it accepts must encode again.
pub fn fuzz_decode_snapshot(bytes: &[u8]) {
    if let Ok(state) = ProducerState::decode_snapshot(bytes) {
        assert!(ProducerState::decode_snapshot(&state.encode_snapshot()).is_ok());
    }
}

#[cfg(test)]
mod tests;
