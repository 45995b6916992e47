//! What a directory should hold: every batch in the order of appending, and what of it was reported as flushed.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::BytesMut;

use super::directory::{Directory, NOW, Outcome};
use crate::base::ids::{LeaderEpoch, Offset, TopicId, TopicPartition};
use crate::platform::FileRange;
use crate::record::batch::{BatchBuilder, BatchHeader, Record, batches, decode_records, has_valid_crc, stamp};
use crate::record::compression::Codec;
use crate::sim::disk::FakeFile;
use crate::sim::disk::power_cut::Dice;
use crate::storage::log::{Read, Staged};

/// Idempotent producers of each log.
const PRODUCERS: u64 = 3;
/// Bytes that a reader asks for at once, besides one batch.
const FETCH_BYTES: u64 = 3000;
const RECORDS_BYTES_MAX: usize = 1 << 20;

/// A batch as it stands in the log.
pub struct Appended {
    header: BatchHeader,
    bytes: Vec<u8>,
}

/// How large batches are.
#[derive(Clone, Copy, Debug)]
pub struct BatchSizes {
    pub records_max: u64,
    pub value_bytes_max: u64,
}

/// What one log should hold. Cloning is cheap.
#[derive(Clone)]
pub struct LogModel {
    pub topic_id: TopicId,
    pub leader_epoch: LeaderEpoch,
    batches: Vec<Rc<Appended>>,
    /// Everything below was reported as durable.
    flushed_offset: Offset,
    /// Everything below was reported as written.
    written_offset: Offset,
    /// The log start of the last process, and the one that was written down: it is one of these, or between them.
    start_max: Offset,
    start_durable: Offset,
    /// The leader epochs of what lies below may be forgotten: they go with a log start that may be lost itself.
    epochs_from: Offset,
    /// A log whose records have keys; those below this offset may have been cleaned.
    cleaned_to: Option<Offset>,
    /// Unflushed batches are missing before others, which recovery lets pass where compaction may have been: nobody
    /// knows what the producers know then.
    has_hole: bool,
}

/// The logs that should be there.
pub type Model = BTreeMap<TopicPartition, LogModel>;

/// What [`Directory::start`] opens.
pub fn wanted(model: &Model) -> impl Iterator<Item = (TopicPartition, TopicId)> + '_ {
    model.iter().map(|(tp, log)| (tp.clone(), log.topic_id))
}

/// A batch of one producer, at this sequence.
struct Sequenced {
    producer_id: i64,
    epoch: i16,
    base_sequence: i32,
}

impl LogModel {
    pub fn new(topic_id: TopicId) -> LogModel {
        let (batches, leader_epoch) = (Vec::new(), 0);
        LogModel {
            topic_id,
            leader_epoch,
            batches,
            flushed_offset: 0,
            written_offset: 0,
            start_max: 0,
            start_durable: 0,
            epochs_from: 0,
            cleaned_to: None,
            has_hole: false,
        }
    }

    /// One that is cleaned now and then.
    pub fn compacted(topic_id: TopicId) -> LogModel {
        LogModel { cleaned_to: Some(0), ..LogModel::new(topic_id) }
    }

    pub fn is_compacted(&self) -> bool {
        self.cleaned_to.is_some()
    }

    pub fn flushed_offset(&self) -> Offset {
        self.flushed_offset
    }

    /// Takes up that what lies below is to be given up, or to be cleaned.
    pub fn start_moves(&mut self, offset: Offset) {
        self.start_max = self.start_max.max(offset);
        self.epochs_from = self.epochs_from.max(offset);
    }

    pub fn cleaning_begins(&mut self, below: Offset) {
        self.cleaned_to = self.cleaned_to.max(Some(below));
    }

    /// Takes up that a log start was written down.
    pub fn start_written(&mut self, offset: Offset) {
        self.start_durable = self.start_durable.max(offset);
    }

    /// Takes up where the next process found that the log starts.
    pub fn started_at(&mut self, offset: Offset) {
        (self.start_max, self.start_durable) = (offset, offset);
    }

    pub fn end_offset(&self) -> Offset {
        self.batches.last().map_or(0, |batch| batch.header.last_offset() + 1)
    }

    pub fn batch_count(&self) -> usize {
        self.batches.len()
    }

    /// The batch that holds this offset, as it was appended.
    pub fn batch_at(&self, offset: Offset) -> Option<&[u8]> {
        let at = self.batches.partition_point(|batch| batch.header.last_offset() < offset);
        self.batches.get(at).map(|batch| &batch.bytes[..])
    }

    /// Takes up a batch that was given this base offset.
    pub fn staged(&mut self, batch: &[u8], base_offset: Offset) {
        let mut bytes = batch.to_vec();
        stamp(&mut bytes, base_offset, self.leader_epoch);
        let header = BatchHeader::parse(&bytes).expect("a batch");
        self.batches.push(Rc::new(Appended { header, bytes }));
    }

    /// Takes up that everything below was reported as durable.
    pub fn flushed(&mut self, flushed_offset: Offset) {
        self.flushed_offset = self.flushed_offset.max(flushed_offset);
    }

    /// Takes up that everything that was staged was reported as written.
    pub fn written(&mut self) {
        self.written_offset = self.end_offset();
    }

    /// The power went: what was written and not flushed is nothing to count on.
    pub fn power_went(&mut self) {
        self.written_offset = self.flushed_offset;
    }

    pub fn written_offset(&self) -> Offset {
        self.written_offset
    }

    /// Holds what a kill left against this: all that was written is there. Neither that nor the log start is more durable
    /// for it.
    pub fn check_after_kill(
        &self,
        directory: &mut Directory,
        tp: &TopicPartition,
        dice: &mut Dice,
    ) -> Outcome<LogModel> {
        let LogModel { flushed_offset, start_durable, .. } = *self;
        let expected = LogModel { flushed_offset: flushed_offset.max(self.written_offset), ..self.clone() };
        Ok(LogModel { flushed_offset, start_durable, ..expected.check(directory, tp, dice)? })
    }

    /// So many batches at the log's next offsets, of producers with and without an id.
    pub fn new_batches(&self, count: u64, sizes: BatchSizes, dice: &mut Dice) -> Vec<BytesMut> {
        let mut ahead = self.clone();
        (0..count)
            .map(|_| {
                let batch = ahead.new_batch(sizes, dice);
                ahead.staged(&batch, ahead.end_offset());
                batch
            })
            .collect()
    }

    fn new_batch(&self, sizes: BatchSizes, dice: &mut Dice) -> BytesMut {
        let producer_id = dice.below(2 * PRODUCERS) as i64;
        let mut builder = BatchBuilder::new(Codec::None);
        if producer_id < PRODUCERS as i64 {
            let next = self.next_of(producer_id);
            // Now and then it was restarted, and has a new epoch.
            builder = match dice.below(12) {
                0 if next.base_sequence > 0 => builder.producer(producer_id, next.epoch + 1, 0),
                _ => builder.producer(producer_id, next.epoch, next.base_sequence),
            };
        }
        self.fill(builder, 1 + dice.below(sizes.records_max), sizes.value_bytes_max, dice)
    }

    /// Each record's timestamp tells its offset.
    fn fill(&self, mut builder: BatchBuilder, count: u64, value_bytes_max: u64, dice: &mut Dice) -> BytesMut {
        for at in 0..count {
            let value = vec![dice.next_u64() as u8; dice.below(value_bytes_max + 1) as usize];
            let key = self.is_compacted().then(|| [b'k', dice.below(6) as u8]);
            let is_tombstone = self.is_compacted() && dice.below(4) == 0;
            let key = key.as_ref().map(|key| &key[..]);
            builder.push(NOW + self.end_offset() + at as i64, key, (!is_tombstone).then_some(&value), &[]);
        }
        builder.build()
    }

    fn last_of(&self, producer_id: i64) -> Option<&Appended> {
        self.batches.iter().rev().find(|batch| batch.header.producer_id == producer_id).map(Rc::as_ref)
    }

    fn next_of(&self, producer_id: i64) -> Sequenced {
        match self.last_of(producer_id).map(|last| last.header) {
            Some(last) => {
                Sequenced { producer_id, epoch: last.producer_epoch, base_sequence: last.last_sequence() + 1 }
            }
            None => Sequenced { producer_id, epoch: 0, base_sequence: 0 },
        }
    }

    /// Forgets what a power cut took, once [`LogModel::check`] has found nothing wrong with `end_offset`.
    pub fn cut_to(&mut self, end_offset: Offset) {
        self.batches.retain(|batch| batch.header.base_offset < end_offset);
        self.written();
    }

    /// Holds the log that was opened on what is left against this: a prefix of what was appended is there, with all
    /// that was flushed. Gives what is there, and the batches behind it that were staged to see whether they are
    /// accepted.
    pub fn check(&self, directory: &mut Directory, tp: &TopicPartition, dice: &mut Dice) -> Outcome<LogModel> {
        let log = directory.log(tp);
        let (start, end) = (log.log_start_offset(), log.log_end_offset());
        let (flushed, recovery_point) = (log.flushed_offset(), log.recovery_point());
        if !(self.start_durable..=self.start_max).contains(&start) || end > self.end_offset() {
            let (durable, most) = (self.start_durable, self.start_max);
            return Err(format!(
                "it goes from {start} to {end}, appended was 0 to {}, given up {durable} or {most}",
                self.end_offset()
            ));
        }
        if end < self.flushed_offset {
            return Err(format!("it ends at {end}, flushed was {}", self.flushed_offset));
        }
        if recovery_point > flushed || flushed > end {
            return Err(format!("recovery point {recovery_point}, flushed offset {flushed}, log end {end}"));
        }
        let mut left = self.clone();
        left.cut_to(end);
        if left.end_offset() != end {
            return Err(format!("it ends at {end}, within a batch"));
        }
        left.started_at(start);
        match self.is_compacted() {
            true => {
                let found = read_compacted(directory, tp)?;
                left.check_compacted(&found)?;
                left.has_hole = self.has_hole_in(&found, end);
                if left.has_hole {
                    return Ok(left);
                }
            }
            false => left.check_batches(directory, tp, start, dice)?,
        }
        left.check_producers(directory, tp)?;
        Ok(left)
    }

    /// Every batch from the log start on is served as it was appended.
    fn check_batches(
        &self,
        directory: &mut Directory,
        tp: &TopicPartition,
        start: Offset,
        dice: &mut Dice,
    ) -> Outcome<()> {
        let from = self.batches.partition_point(|batch| batch.header.last_offset() < start);
        for (at, batch) in self.batches.iter().enumerate().skip(from) {
            check_batch(directory, tp, start, &self.batches[at..]).map_err(|wrong| {
                format!("batch {}..={}: {wrong}", batch.header.base_offset, batch.header.last_offset())
            })?;
            let offset = batch.header.base_offset.max(start);
            let (expected, found) = (batch.header.leader_epoch, directory.log(tp).epoch_at(offset));
            if found != Some(expected) && (found.is_some() || offset >= self.epochs_from) {
                return Err(format!("offset {offset} is of leader epoch {expected}, not {found:?}"));
            }
        }
        let end = self.end_offset();
        if end > start {
            let offset = start + dice.below((end - start) as u64) as Offset;
            let found = directory.offset_of(tp, NOW + offset)?;
            if found != Some(offset) {
                return Err(format!("the record of offset {offset} is found by its timestamp at {found:?}"));
            }
        }
        Ok(())
    }

    /// Of every key the latest flushed record is there, unless it is a tombstone and nothing older is; what is not
    /// clean is there as a whole; and nothing else than what was appended.
    fn check_compacted(&self, found: &BTreeMap<Offset, Record>) -> Outcome<()> {
        let (mut appended, mut latest) = (BTreeMap::new(), BTreeMap::new());
        for record in self.records() {
            if record.offset < self.flushed_offset {
                latest.insert(record.key.clone(), record.offset);
            }
            appended.insert(record.offset, record);
        }
        if let Some(other) = found.values().find(|record| appended.get(&record.offset) != Some(record)) {
            return Err(format!("another record is served from offset {}", other.offset));
        }
        let cleaned_to = self.cleaned_to.unwrap_or(0);
        for (offset, record) in appended.range(..self.flushed_offset) {
            let is_latest = latest[&record.key] == *offset;
            let must_stay = *offset >= cleaned_to || (is_latest && record.value.is_some());
            if must_stay && !found.contains_key(offset) {
                return Err(format!("the record at {offset} is gone, clean is what lies below {cleaned_to}"));
            }
            let came_back = |older: &Record| older.key == record.key && older.offset < *offset;
            if is_latest && !found.contains_key(offset) && found.values().any(came_back) {
                return Err(format!("the tombstone at {offset} is gone, and what it deleted is not"));
            }
        }
        Ok(())
    }

    fn records(&self) -> impl Iterator<Item = Record> + '_ {
        self.batches.iter().flat_map(|batch| decode_records(&batch.bytes, RECORDS_BYTES_MAX).expect("records"))
    }

    /// Whether something below `end` that was not flushed is missing.
    pub fn has_hole_in(&self, found: &BTreeMap<Offset, Record>, end: Offset) -> bool {
        self.records()
            .any(|record| (self.flushed_offset..end).contains(&record.offset) && !found.contains_key(&record.offset))
    }

    pub fn has_hole(&self) -> bool {
        self.has_hole
    }

    /// The next sequence of every producer is accepted, its last batch is a duplicate, and a gap is refused.
    fn check_producers(&mut self, directory: &mut Directory, tp: &TopicPartition) -> Outcome<()> {
        for producer_id in 0..PRODUCERS as i64 {
            // What was known of those below the log start may be gone with them.
            let last = self.last_of(producer_id).filter(|last| last.header.last_offset() >= self.start_max);
            if let Some(Appended { header, bytes }) = last {
                match directory.offer(tp, BytesMut::from(&bytes[..]), self.leader_epoch)? {
                    Staged::Duplicate { base_offset, last_offset, .. }
                        if (base_offset, last_offset) == (header.base_offset, header.last_offset()) => {}
                    other => return Err(format!("the last batch of producer {producer_id} came to {other:?}")),
                }
                let mut gap = self.next_of(producer_id);
                gap.base_sequence += 1;
                match directory.offer(tp, self.small(&gap), self.leader_epoch)? {
                    Staged::Refused(_) => {}
                    other => return Err(format!("a gap of producer {producer_id} came to {other:?}")),
                }
            }
        }
        // Last, since these are staged; nobody takes the write.
        for producer_id in 0..PRODUCERS as i64 {
            let batch = self.small(&self.next_of(producer_id));
            match directory.offer(tp, batch.clone(), self.leader_epoch)? {
                Staged::Written { base_offset, .. } => self.staged(&batch, base_offset),
                Staged::RollFirst(_) => {}
                other => return Err(format!("the next batch of producer {producer_id} came to {other:?}")),
            }
        }
        Ok(())
    }

    fn small(&self, at: &Sequenced) -> BytesMut {
        let builder = BatchBuilder::new(Codec::None).producer(at.producer_id, at.epoch, at.base_sequence);
        self.fill(builder, 1, 0, &mut Dice(0))
    }
}

/// Every record of a log, by offset.
pub fn read_compacted(directory: &mut Directory, tp: &TopicPartition) -> Outcome<BTreeMap<Offset, Record>> {
    let (mut found, mut offset) = (BTreeMap::new(), 0);
    loop {
        let served = match directory.read(tp, offset, FETCH_BYTES)? {
            Read::Range { range, first_batch_bytes, .. } => {
                range.file.bytes_at(range.position, range.length.max(first_batch_bytes))
            }
            Read::Empty => return Ok(found),
            other => return Err(format!("offset {offset} is not there: {other:?}")),
        };
        let before = offset;
        for (header, bytes) in batches(&served).map_while(Result::ok) {
            if !has_valid_crc(bytes) {
                return Err(format!("the batch at {} is damaged", header.base_offset));
            }
            let records = decode_records(bytes, RECORDS_BYTES_MAX).map_err(|error| error.to_string())?;
            found.extend(records.into_iter().map(|record| (record.offset, record)));
            offset = offset.max(header.last_offset() + 1);
        }
        if offset == before {
            return Err(format!("nothing whole is served from offset {offset}"));
        }
    }
}

/// Every offset of the first batch is found, and a longer read from it gives what was appended, byte for byte.
fn check_batch(directory: &mut Directory, tp: &TopicPartition, start: Offset, batches: &[Rc<Appended>]) -> Outcome<()> {
    let Appended { header, bytes } = &*batches[0];
    let first = header.base_offset.max(start);
    for offset in first..=header.last_offset() {
        let (range, base_offset, first_batch_bytes) = range_at(directory, tp, offset, 1)?;
        if base_offset != header.base_offset || first_batch_bytes != bytes.len() as u64 {
            return Err(format!("offset {offset} leads to {first_batch_bytes} bytes at {base_offset}"));
        }
        if range.file.bytes_at(range.position, first_batch_bytes) != *bytes {
            return Err(format!("other bytes are served from offset {offset}"));
        }
    }
    let (range, ..) = range_at(directory, tp, first, FETCH_BYTES)?;
    let served = range.file.bytes_at(range.position, range.length);
    let mut rest = &served[..];
    for batch in batches {
        let same = rest.len().min(batch.bytes.len());
        if rest[..same] != batch.bytes[..same] {
            return Err(format!("a read across batches differs in the one at {}", batch.header.base_offset));
        }
        rest = &rest[same..];
    }
    match rest.is_empty() {
        true => Ok(()),
        false => Err("a read goes on past the log end".into()),
    }
}

fn range_at(
    directory: &mut Directory,
    tp: &TopicPartition,
    offset: Offset,
    bytes_max: u64,
) -> Outcome<(FileRange<FakeFile>, Offset, u64)> {
    match directory.read(tp, offset, bytes_max)? {
        Read::Range { range, base_offset, first_batch_bytes, .. } => Ok((range, base_offset, first_batch_bytes)),
        other => Err(format!("offset {offset} is not there: {other:?}")),
    }
}
