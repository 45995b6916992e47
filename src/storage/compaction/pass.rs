//! The two passes of a cleaning over the bytes of a log, chunk by chunk: CPU-heavy, and pure.
//!
//! ```text
//!  Indexing    the dirty part       -> OffsetMap: where the latest record of each key is
//!  Filtering   from the first batch -> what stays of each batch, as bytes of the new segment
//! ```
//! A chunk holds whole entries, and perhaps the beginning of another one. Both passes check every checksum: what is
//! rewritten gets a checksum of its own, and must not make damage look sound.
//!
//! A batch of data whose checksum is right and whose records can't be decoded is what its producer sent, and was
//! appended unseen. It stays as it is, and its keys take nobody else's place.

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::base::ids::Offset;
use crate::base::time::WallMs;
use crate::record::batch::{BatchError, BatchHeader, Record, TimestampType, records_body, walk_records};
use crate::record::message_set::{LegacyBatch, decode_legacy};
use crate::record::records::RecordView;
use crate::record::rewrite::{Rewrite, empty_batch};
use crate::storage::compaction::offset_map::{Full, OffsetMap};
use crate::storage::compaction::transactions::{ControlType, PassedTransactions};
use crate::storage::entry::{Entry, EntryError};

/// Bytes that one batch may decompress to.
const DECOMPRESSED_BYTES_MAX: usize = 256 << 20;

/// Why a log can't be cleaned: what stands in it is not what was written.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    #[error("offset {offset}: {reason}")]
    Batch { offset: Offset, reason: String },
    #[error("{0}")]
    Entry(#[from] EntryError),
    /// A single batch has more keys than the map has room for.
    #[error("the keys from offset {0} on do not fit into log.cleaner.dedupe.buffer.size")]
    TooManyKeys(Offset),
}

fn damage(offset: Offset, reason: impl ToString) -> Damage {
    Damage::Batch { offset, reason: reason.to_string() }
}

/// A data record, or what the cleaner looks at of it.
struct Seen<'a> {
    offset: Offset,
    key: Option<&'a [u8]>,
    is_tombstone: bool,
}

impl<'a> Seen<'a> {
    fn of(header: &BatchHeader, record: &RecordView<'a>) -> Seen<'a> {
        let offset = header.base_offset.saturating_add(i64::from(record.offset_delta));
        Seen { offset, key: record.key, is_tombstone: record.value.is_none() }
    }

    fn of_legacy(record: &'a Record) -> Seen<'a> {
        Seen { offset: record.offset, key: record.key.as_deref(), is_tombstone: record.value.is_none() }
    }
}

/// Where the entries of a segment may lie: no checksum covers their offsets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Order {
    next: Offset,
    end: Offset,
}

impl Order {
    /// In a segment with this base offset, before `end`.
    pub fn within(base_offset: Offset, end: Offset) -> Order {
        Order { next: base_offset, end }
    }

    fn check(&mut self, entry: &Entry) -> Result<(), Damage> {
        if entry.base_offset < self.next || entry.last_offset >= self.end {
            return Err(damage(entry.base_offset, "a batch whose offsets do not follow"));
        }
        self.next = entry.last_offset + 1;
        Ok(())
    }
}

/// The whole entries at the beginning of a chunk, checked.
fn entries(chunk: &[u8]) -> impl Iterator<Item = Result<(Entry, &[u8]), Damage>> {
    let mut rest = chunk;
    std::iter::from_fn(move || {
        let entry = match Entry::parse(rest) {
            Ok(entry) => entry,
            // The chunk ends within a head.
            Err(EntryError::Truncated) => return None,
            Err(error) => return Some(Err(error.into())),
        };
        let (whole, behind) = rest.split_at_checked(usize::try_from(entry.bytes).ok()?)?;
        rest = behind;
        Some(match entry.is_valid(whole) {
            true => Ok((entry, whole)),
            false => Err(damage(entry.base_offset, "a batch whose checksum is wrong")),
        })
    })
}

fn body_of<'a>(header: &BatchHeader, batch: &'a [u8]) -> Result<Cow<'a, [u8]>, Damage> {
    records_body(header, batch, DECOMPRESSED_BYTES_MAX).map_err(|error| damage(header.base_offset, error))
}

fn with_records(header: &BatchHeader, body: &[u8], mut visit: impl FnMut(&RecordView<'_>)) -> Result<(), Damage> {
    let mut is_outside = false;
    walk_records::<BatchError>(header, body, |record| {
        match (0..=header.last_offset_delta).contains(&record.offset_delta) {
            true => visit(&record),
            false => is_outside = true,
        }
        Ok(())
    })
    .map_err(|error| damage(header.base_offset, error))?;
    match is_outside {
        true => Err(damage(header.base_offset, "a record whose offset is not within its batch")),
        false => Ok(()),
    }
}

/// The records of a data batch, all of which can be read.
fn sound_body_of<'a>(header: &BatchHeader, batch: &'a [u8]) -> Result<Cow<'a, [u8]>, Damage> {
    let body = body_of(header, batch)?;
    with_records(header, &body, |_| ())?;
    Ok(body)
}

fn legacy(entry: &Entry, bytes: &[u8]) -> Result<LegacyBatch, Damage> {
    let batch = decode_legacy(bytes, DECOMPRESSED_BYTES_MAX).map_err(|error| damage(entry.last_offset, error))?;
    // What stays would get offsets that no reader could follow.
    let ascend = batch.records.is_sorted_by(|one, next| one.offset < next.offset);
    match ascend && batch.records.last().is_none_or(|last| last.offset <= entry.last_offset) {
        true => Ok(batch),
        false => Err(damage(entry.last_offset, "a message set whose offsets do not ascend")),
    }
}

/// Batches that were kept unread.
#[derive(Debug, Default)]
pub struct Undecodable {
    pub count: u64,
    /// What is wrong with the first of them.
    pub first: Option<Damage>,
}

impl Undecodable {
    fn note(&mut self, damage: Damage) {
        self.count += 1;
        self.first.get_or_insert(damage);
    }
}

fn control_type(header: &BatchHeader, batch: &[u8]) -> Result<Option<ControlType>, Damage> {
    let mut found = None;
    with_records(header, &body_of(header, batch)?, |record| found = found.or(Some(ControlType::of(record))))?;
    Ok(found)
}

/// Fills the map.
#[derive(Debug)]
pub struct Indexing {
    pub map: OffsetMap,
    /// Of the segment that the next chunk is of.
    pub order: Order,
    transactions: PassedTransactions,
    /// The first dirty offset.
    from: Offset,
    pub is_full: bool,
}

impl Indexing {
    pub fn new(map: OffsetMap, transactions: PassedTransactions, from: Offset) -> Indexing {
        Indexing { map, order: Order::default(), transactions, from, is_full: false }
    }

    /// Takes up the whole entries of a chunk, until the map is full; gives their bytes.
    pub fn take_up(&mut self, chunk: &[u8]) -> Result<usize, Damage> {
        let mut bytes = 0;
        for found in entries(chunk) {
            let (entry, whole) = found?;
            self.order.check(&entry)?;
            bytes += whole.len();
            let taken = match &entry.header {
                Some(header) if header.is_control() => {
                    let control = control_type(header, whole)?;
                    self.transactions.pass_marker(header, control);
                    Ok(())
                }
                Some(header) if self.transactions.pass_batch(header) => Ok(()),
                Some(header) => match sound_body_of(header, whole) {
                    Ok(body) => {
                        let mut taken = Ok(());
                        with_records(header, &body, |record| {
                            taken = taken.and_then(|()| self.put(&Seen::of(header, record)));
                        })?;
                        taken
                    }
                    // The other pass counts it.
                    Err(_) => Ok(()),
                },
                None => match legacy(&entry, whole) {
                    Ok(batch) => batch.records.iter().try_for_each(|record| self.put(&Seen::of_legacy(record))),
                    Err(_) => Ok(()),
                },
            };
            if taken.is_err() {
                self.is_full = true;
                return match self.map.latest_offset() < self.from {
                    true => Err(Damage::TooManyKeys(self.from)),
                    false => Ok(bytes),
                };
            }
            if entry.last_offset >= self.from {
                self.map.set_latest_offset(entry.last_offset);
            }
        }
        Ok(bytes)
    }

    fn put(&mut self, record: &Seen<'_>) -> Result<(), Full> {
        match record.key {
            Some(key) if record.offset >= self.from => self.map.put(key, record.offset),
            _ => Ok(()),
        }
    }
}

/// What the log knows of a producer that is active yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastOfProducer {
    /// The last offset of its newest data batch.
    pub last_data_offset: Option<Offset>,
    pub epoch: i16,
}

/// What a batch of the new segment is like.
#[derive(Clone, Copy, Debug)]
pub struct KeptBatch {
    pub last_offset: Offset,
    pub bytes: u64,
    pub max_timestamp: i64,
}

/// What stays of a chunk.
#[derive(Debug, Default)]
pub struct Kept {
    /// Of the chunk, that were looked at.
    pub bytes_read: usize,
    pub data: Vec<u8>,
    pub batches: Vec<KeptBatch>,
}

/// What is to become of a batch whose records all go.
enum IfEmpty {
    Goes,
    /// It holds its producer's last sequence, or its epoch.
    Stays,
}

/// Lets through what stays.
#[derive(Debug)]
pub struct Filtering {
    map: OffsetMap,
    /// Of the segment that the next chunk is of.
    pub order: Order,
    pub transactions: PassedTransactions,
    pub producers: BTreeMap<i64, LastOfProducer>,
    pub undecodable: Undecodable,
    now: WallMs,
    delete_retention_ms: i64,
}

impl Filtering {
    pub fn new(map: OffsetMap, transactions: PassedTransactions, now: WallMs, delete_retention_ms: i64) -> Filtering {
        Filtering {
            map,
            order: Order::default(),
            transactions,
            producers: BTreeMap::new(),
            undecodable: Undecodable::default(),
            now,
            delete_retention_ms,
        }
    }

    /// Filters the whole entries of a chunk.
    pub fn filter(&mut self, chunk: &[u8]) -> Result<Kept, Damage> {
        let mut kept = Kept::default();
        for found in entries(chunk) {
            let (entry, whole) = found?;
            self.order.check(&entry)?;
            kept.bytes_read += whole.len();
            let before = kept.data.len();
            match &entry.header {
                Some(header) => self.filter_batch(header, whole, &mut kept.data)?,
                None => self.filter_legacy(&entry, whole, &mut kept.data)?,
            }
            // Of one entry comes at most one.
            if kept.data.len() > before {
                let Entry { last_offset, bytes, max_timestamp, .. } = Entry::parse(&kept.data[before..])?;
                kept.batches.push(KeptBatch { last_offset, bytes, max_timestamp });
            }
        }
        Ok(kept)
    }

    /// Kafka 3.9 `Cleaner.cleanInto`, `MemoryRecords.filterTo`.
    fn filter_batch(&mut self, header: &BatchHeader, batch: &[u8], out: &mut Vec<u8>) -> Result<(), Damage> {
        let (is_over, records_go) = if header.is_control() {
            let control = control_type(header, batch)?;
            let is_over = self.transactions.pass_marker(header, control);
            (is_over, is_over && header.delete_horizon_ms().is_some_and(|horizon| horizon <= self.now))
        } else {
            (false, self.transactions.pass_batch(header))
        };
        let if_empty = match self.is_last_of_its_producer(header) {
            true => IfEmpty::Stays,
            false if records_go => return Ok(()),
            false => IfEmpty::Goes,
        };
        let (mut all_stay, mut count, mut has_tombstone) = (true, 0, false);
        let body = match records_go {
            true => Ok(Cow::Borrowed(&[][..])),
            false => sound_body_of(header, batch),
        };
        let body = match body {
            Err(damage) if !header.is_control() => {
                self.undecodable.note(damage);
                out.extend_from_slice(batch);
                return Ok(());
            }
            body => body?,
        };
        if records_go {
            all_stay = false;
        } else {
            with_records(header, &body, |record| match self.stays(header, record) {
                true => {
                    count += 1;
                    has_tombstone |= record.value.is_none();
                }
                false => all_stay = false,
            })?;
        }
        if count == 0 {
            if let IfEmpty::Stays = if_empty {
                out.extend_from_slice(&empty_batch(header));
            }
            return Ok(());
        }
        let needs_horizon = (has_tombstone || is_over) && header.delete_horizon_ms().is_none();
        if all_stay && !needs_horizon {
            out.extend_from_slice(batch);
            return Ok(());
        }
        let horizon = header.delete_horizon_ms().or_else(|| needs_horizon.then(|| self.delete_horizon()));
        let mut rewrite = Rewrite::new(header, horizon);
        with_records(header, &body, |record| {
            if self.stays(header, record) {
                rewrite.push(record, header.record_timestamp(record.timestamp_delta));
            }
        })?;
        out.extend_from_slice(&rewrite.build());
        Ok(())
    }

    fn delete_horizon(&self) -> WallMs {
        self.now.saturating_add(self.delete_retention_ms)
    }

    fn is_last_of_its_producer(&self, header: &BatchHeader) -> bool {
        if !header.has_producer_id() {
            return false;
        }
        self.producers.get(&header.producer_id).is_some_and(|active| match active.last_data_offset {
            Some(last_offset) => header.last_offset() == last_offset,
            None => header.is_control() && header.producer_epoch == active.epoch,
        })
    }

    fn stays(&self, header: &BatchHeader, record: &RecordView<'_>) -> bool {
        let tombstones_stay = header.delete_horizon_ms().is_none_or(|horizon| self.now < horizon);
        header.is_control() || self.data_stays(&Seen::of(header, record), tombstones_stay)
    }

    /// Kafka 3.9 `Cleaner.shouldRetainRecord`.
    fn data_stays(&self, record: &Seen<'_>, tombstones_stay: bool) -> bool {
        if record.offset > self.map.latest_offset() {
            return true;
        }
        let Some(key) = record.key else { return false };
        let is_latest = self.map.get(key).is_none_or(|latest| record.offset >= latest);
        is_latest && (!record.is_tombstone || tombstones_stay)
    }

    /// A message of magic 0 or 1, and what is in it: kept as it is, or made a v2 batch with what stays of it. A
    /// tombstone gets its delete horizon that way; Kafka, which keeps the magic, goes by the file's age.
    fn filter_legacy(&mut self, entry: &Entry, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Damage> {
        let LegacyBatch { codec, timestamp_type, records, .. } = match legacy(entry, bytes) {
            Ok(batch) => batch,
            Err(damage) => {
                self.undecodable.note(damage);
                out.extend_from_slice(bytes);
                return Ok(());
            }
        };
        let stay: Vec<&Record> =
            records.iter().filter(|record| self.data_stays(&Seen::of_legacy(record), true)).collect();
        let has_tombstone = stay.iter().any(|record| record.value.is_none());
        if stay.len() == records.len() && !has_tombstone {
            out.extend_from_slice(bytes);
            return Ok(());
        }
        let Some(first) = stay.first() else { return Ok(()) };
        let last_offset_delta = i32::try_from(entry.last_offset - first.offset)
            .map_err(|_| damage(entry.last_offset, "a message set whose offsets are too far apart"))?;
        let is_append_time = timestamp_type == TimestampType::LogAppendTime;
        let log_append_time = is_append_time.then_some(first.timestamp);
        let header = BatchHeader::plain(first.offset, last_offset_delta, codec, log_append_time);
        let mut rewrite = Rewrite::new(&header, has_tombstone.then(|| self.delete_horizon()));
        for record in stay {
            let offset_delta = i32::try_from(record.offset - header.base_offset)
                .map_err(|_| damage(record.offset, "a message set whose offsets do not ascend"))?;
            let view = RecordView {
                timestamp_delta: 0,
                offset_delta,
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                header_count: 0,
                headers: &[],
            };
            rewrite.push(&view, record.timestamp);
        }
        out.extend_from_slice(&rewrite.build());
        Ok(())
    }
}

/// Takes arbitrary bytes for a segment, in both passes; must neither panic nor let through what is damaged.
pub fn fuzz_pass(bytes: &[u8]) {
    let map = OffsetMap::new(1 << 12, 0.9, 100);
    let mut indexing = Indexing::new(map, PassedTransactions::default(), 0);
    indexing.order = Order::within(0, Offset::MAX);
    let _ = indexing.take_up(bytes);
    let mut filtering = Filtering::new(indexing.map, PassedTransactions::default(), 1000, 10);
    filtering.order = Order::within(0, Offset::MAX);
    filtering.producers.insert(7, LastOfProducer { last_data_offset: Some(4), epoch: 0 });
    if let Ok(kept) = filtering.filter(bytes) {
        assert_eq!(kept.batches.iter().map(|batch| batch.bytes as usize).sum::<usize>(), kept.data.len());
        assert!(entries(&kept.data).all(|entry| entry.is_ok()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::splitmix64::next;
    use crate::record::batch::{BatchBuilder, stamp};
    use crate::record::compression::Codec;

    fn batch(base_offset: Offset, builder: BatchBuilder, records: &[(&str, Option<&str>)]) -> Vec<u8> {
        let mut builder = builder;
        for (key, value) in records {
            builder.push(500, Some(key.as_bytes()), value.map(str::as_bytes), &[]);
        }
        let mut batch = builder.build();
        stamp(&mut batch, base_offset, 0);
        batch.to_vec()
    }

    fn segment() -> Vec<u8> {
        let plain = || BatchBuilder::new(Codec::None);
        [
            batch(0, plain(), &[("a", Some("1")), ("b", Some("1")), ("a", None)]),
            batch(3, plain().producer(7, 0, 0), &[("b", Some("2")), ("c", Some("1"))]),
            batch(5, BatchBuilder::new(Codec::Zstd).producer(8, 0, 0).transactional(), &[("a", Some("2")); 3]),
            batch(8, plain().producer(8, 0, -1).transactional().control(), &[("\0\0\0\u{1}", Some("\0\0\0\0\0\0"))]),
        ]
        .concat()
    }

    #[test]
    fn damaged_segments_never_panic_the_passes_and_nothing_damaged_gets_through() {
        let sound = segment();
        fuzz_pass(&sound);
        let mut seed = 11;
        for _ in 0..3000 {
            let mut mutated = sound.clone();
            for _ in 0..=next(&mut seed) % 3 {
                let at = next(&mut seed) as usize % mutated.len();
                mutated[at] = next(&mut seed) as u8;
            }
            fuzz_pass(&mutated);
            // Offsets are outside of the checksum, and whatever a batch says of itself may be checksummed.
            let at = next(&mut seed) as usize % 61;
            let mut lying = sound.clone();
            lying[at] = next(&mut seed) as u8;
            if let Ok(header) = BatchHeader::parse(&lying)
                && header.batch_bytes() < lying.len()
            {
                crate::record::batch::set_max_timestamp(&mut lying[..header.batch_bytes()], 600);
            }
            fuzz_pass(&lying);
        }
    }
}
