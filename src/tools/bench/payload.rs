//! What records hold: values that repeat as much as asked, keys, and stamps by which a consumer knows them.
//!
//! A stamp begins a value:
//!
//! ```text
//! 0 magic u32 | 4 CRC-32C u32 of all behind it | 8 run u32 | 12 client u32 | 16 sequence u64 | 24 due u64, ns since 1970
//! ```
//! The sequence counts a client's records of one partition, from 0: a consumer sees loss, repetition and disorder.
//! Without stamps full batches are made once and sent again and again with new timestamps and sequences, so that the client
//! costs less than the broker that it is to load.

#![forbid(unsafe_code)]

use std::sync::Arc;

use crate::base::crc32c::crc32c;
use crate::base::splitmix64;
use crate::record::batch::{
    BATCH_HEADER_BYTES, BatchHeader, NO_SEQUENCE, TRANSACTIONAL_BIT, increment_sequence, set_create_time,
};
use crate::record::compression::{Codec, Compression, compress_into};
use crate::record::records::put_record;

/// Bytes of a stamp: the smallest value that has one.
pub const STAMP_BYTES: usize = 32;
const STAMP_MAGIC: u32 = 0x524c_4231;
const CRC_START: usize = 8;

/// Most distinct keys with a Zipf distribution, for which a table is kept.
pub const ZIPF_KEYS_MAX: u64 = 1_000_000;

/// Where a batch has its base timestamp and its base sequence (see `record::batch`).
const BASE_TIMESTAMP_POSITION: usize = 27;
const BASE_SEQUENCE_POSITION: usize = 53;
/// Least bytes from which values are cut; a value repeats after so many.
const FILLER_BYTES_MIN: usize = 1 << 20;
/// Filler is made in pieces of this size, the first part random and the rest not.
const FILLER_PIECE_BYTES: usize = 256;
/// Different batches of a client that sends them again and again.
const TEMPLATES: usize = 8;
/// A record's lengths, deltas and attributes at the most, with small headers: what a full batch is counted with.
const RECORD_OVERHEAD_BYTES: usize = 12;

/// A repeatable sequence of numbers.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        splitmix64::next(&mut self.0)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// How many keys there are and how often each comes.
#[derive(Clone, Debug, PartialEq)]
pub enum Keys {
    None,
    /// So many, all as often.
    Uniform(u64),
    /// So many; the n-th comes n to the power of the exponent times less often than the first.
    Zipf {
        count: u64,
        exponent: f64,
    },
}

/// Draws keys, by number.
#[derive(Clone, Debug)]
struct KeySource {
    keys: Keys,
    /// Of a Zipf distribution: the probability of a key up to this one.
    cumulated: Arc<[f64]>,
}

impl KeySource {
    fn new(keys: &Keys) -> KeySource {
        let cumulated: Vec<f64> = match keys {
            Keys::Zipf { count, exponent } => {
                let weights = (1..=*count.min(&ZIPF_KEYS_MAX)).map(|rank| (rank as f64).powf(-exponent));
                let mut sum = 0.0;
                let sums: Vec<f64> = weights
                    .map(|weight| {
                        sum += weight;
                        sum
                    })
                    .collect();
                sums.into_iter().map(|part| part / sum).collect()
            }
            Keys::None | Keys::Uniform(_) => Vec::new(),
        };
        KeySource { keys: keys.clone(), cumulated: cumulated.into() }
    }

    fn draw(&self, random: &mut Random) -> Option<u64> {
        match &self.keys {
            Keys::None => None,
            Keys::Uniform(count) => Some(random.next() % count),
            Keys::Zipf { .. } => {
                let point = random.unit();
                let rank = self.cumulated.partition_point(|sum| *sum < point);
                Some(rank.min(self.cumulated.len().saturating_sub(1)) as u64)
            }
        }
    }
}

/// What a value says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub run: u32,
    pub client: u32,
    pub sequence: u64,
    /// When it was to be sent, ns since 1970.
    pub due_ns: u64,
}

/// Why a value is not as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// It has no stamp: something else wrote it.
    Foreign,
    Checksum,
}

impl Stamp {
    /// Stamps a value of at least [`STAMP_BYTES`].
    pub fn write(&self, value: &mut [u8]) {
        value[..4].copy_from_slice(&STAMP_MAGIC.to_be_bytes());
        value[8..12].copy_from_slice(&self.run.to_be_bytes());
        value[12..16].copy_from_slice(&self.client.to_be_bytes());
        value[16..24].copy_from_slice(&self.sequence.to_be_bytes());
        value[24..STAMP_BYTES].copy_from_slice(&self.due_ns.to_be_bytes());
        let crc = crc32c(&value[CRC_START..]);
        value[4..8].copy_from_slice(&crc.to_be_bytes());
    }

    /// Reads a value's stamp, and with `check` looks whether the whole value is as it was.
    pub fn read(value: &[u8], check: bool) -> Result<Stamp, Damage> {
        let Some(stamp) = value.first_chunk::<STAMP_BYTES>() else { return Err(Damage::Foreign) };
        let word = |at: usize| u32::from_be_bytes([stamp[at], stamp[at + 1], stamp[at + 2], stamp[at + 3]]);
        let long = |at: usize| u64::from(word(at)) << 32 | u64::from(word(at + 4));
        if word(0) != STAMP_MAGIC {
            return Err(Damage::Foreign);
        }
        if check && word(4) != crc32c(&value[CRC_START..]) {
            return Err(Damage::Checksum);
        }
        Ok(Stamp { run: word(8), client: word(12), sequence: long(16), due_ns: long(24) })
    }
}

/// What values are made of.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Bytes that a good codec makes smaller by [`Shape::compressible`].
    Filler,
    /// Random capital letters, as Kafka's own test has them.
    Letters,
    /// Each time one of these, by chance.
    Lines(Arc<[Vec<u8>]>),
    /// The record's number among those of all clients, as text.
    Numbers,
}

impl Values {
    /// Whether each is as long as the others, so that a batch can be sent again as it is.
    fn are_even(&self) -> bool {
        matches!(self, Values::Filler | Values::Letters)
    }
}

/// How a client's records are to look.
#[derive(Clone, Debug)]
pub struct Shape {
    pub values: Values,
    /// Of a value; their mean if they are not even.
    pub record_bytes: usize,
    pub batch_bytes: usize,
    pub keys: Keys,
    pub compression: Compression,
    /// By what a good codec makes values smaller; 1: they are random.
    pub compressible: f64,
    /// Whether values have stamps.
    pub stamped: bool,
}

impl Shape {
    /// Of a run that produces nothing.
    pub fn none() -> Shape {
        Shape {
            values: Values::Filler,
            record_bytes: 0,
            batch_bytes: 0,
            keys: Keys::None,
            compression: Compression::of(Codec::None),
            compressible: 1.0,
            stamped: false,
        }
    }

    /// Records of a full batch: as many as fit before compression, but one at least. Of values that are not even fewer may
    /// fit.
    pub fn batch_records(&self) -> u64 {
        let record = self.record_bytes + RECORD_OVERHEAD_BYTES + if self.keys == Keys::None { 0 } else { KEY_BYTES };
        (self.batch_bytes.saturating_sub(BATCH_HEADER_BYTES) / record).max(1) as u64
    }
}

const KEY_BYTES: usize = 20;

/// A key as text: `key` and its number, always [`KEY_BYTES`] long.
fn key_bytes(number: u64) -> [u8; KEY_BYTES] {
    let mut key = *b"key00000000000000000";
    let mut rest = number;
    for digit in key[3..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

/// What values are cut from.
fn filler(shape: &Shape, random: &mut Random) -> Vec<u8> {
    let random_bytes = (FILLER_PIECE_BYTES as f64 / shape.compressible.max(1.0)).round() as usize;
    let byte = |at: usize| match shape.values {
        Values::Letters => b'A' + (random.next() % 26) as u8,
        _ if at % FILLER_PIECE_BYTES < random_bytes => (random.next() >> 32) as u8,
        _ => b'.',
    };
    (0..FILLER_BYTES_MIN.max(4 * shape.record_bytes)).map(byte).collect()
}

/// A batch that is ready to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    pub bytes: &'a [u8],
    pub made: Made,
}

/// What is in a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// Records: as many as were asked for, or fewer if not all fit.
    pub count: u64,
    pub value_bytes: u64,
    /// Of the records before compression.
    pub record_bytes: u64,
}

impl Made {
    /// By what compression made the batch smaller (Kafka 3.9 `MemoryRecordsBuilder.compressionRatio`).
    pub fn compression_ratio(&self, batch_bytes: usize) -> f64 {
        batch_bytes as f64 / (self.record_bytes + BATCH_HEADER_BYTES as u64) as f64
    }
}

/// Who makes batches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Author {
    pub run: u32,
    pub client: u32,
    /// How many clients there are.
    pub clients: u32,
    pub producer: Option<ProducerId>,
}

/// Under which name batches are written (KIP-98).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerId {
    pub id: i64,
    pub epoch: i16,
    /// Batches are part of a transaction.
    pub is_transactional: bool,
}

fn milliseconds(ns: u64) -> i64 {
    i64::try_from(ns / 1_000_000).unwrap_or(i64::MAX)
}

/// One client's batches.
pub struct Payload {
    shape: Shape,
    author: Author,
    /// Of the next batch with a producer id, by partition.
    base_sequences: Vec<i32>,
    /// Partitions of the topic: keys with the same number modulo it belong to the same one.
    partition_count: u64,
    filler: Vec<u8>,
    next_filler: usize,
    keys: KeySource,
    random: Random,
    /// Of the next record's stamp, by partition.
    sequences: Vec<u64>,
    /// Full batches, made when first needed.
    templates: Vec<(Vec<u8>, Made)>,
    next_template: usize,
    value: Vec<u8>,
    /// Records made so far.
    record_count: u64,
    body: Vec<u8>,
    compressed: Vec<u8>,
    batch: Vec<u8>,
}

impl Payload {
    pub fn new(shape: Shape, author: Author, partition_count: usize) -> Payload {
        let mut random = Random(u64::from(author.run) << 32 | u64::from(author.client));
        let filler = if shape.values.are_even() { filler(&shape, &mut random) } else { Vec::new() };
        Payload {
            keys: KeySource::new(&shape.keys),
            author,
            base_sequences: vec![0; partition_count],
            partition_count: partition_count.max(1) as u64,
            filler,
            next_filler: 0,
            random,
            sequences: vec![0; partition_count],
            templates: Vec::new(),
            next_template: 0,
            value: vec![0; shape.record_bytes],
            record_count: 0,
            body: Vec::new(),
            compressed: Vec::new(),
            batch: Vec::new(),
            shape,
        }
    }

    /// A batch of `count` records for a partition. `due_ns` says when each of them was to be sent, ns since 1970; all are
    /// stored under the time of the last.
    pub fn batch(&mut self, partition: usize, count: u64, due_ns: impl Fn(u64) -> u64) -> Batch<'_> {
        let is_own = self.shape.stamped || self.shape.keys != Keys::None || !self.shape.values.are_even();
        if is_own || count != self.shape.batch_records() {
            let made = self.build(partition, count, due_ns);
            return Batch { bytes: &self.batch, made };
        }
        if self.templates.len() < TEMPLATES {
            let sequence = self.base_sequences[partition];
            let made = self.build(partition, count, &due_ns);
            // What is sent is a template, with a sequence and a time of its own.
            self.base_sequences[partition] = sequence;
            self.templates.push((self.batch.clone(), made));
        }
        let base_sequence = self.next_base_sequence(partition, count);
        let timestamp_ms = milliseconds(due_ns(count - 1));
        self.next_template = (self.next_template + 1) % self.templates.len();
        let (batch, made) = &mut self.templates[self.next_template];
        batch[BASE_TIMESTAMP_POSITION..BASE_TIMESTAMP_POSITION + 8].copy_from_slice(&timestamp_ms.to_be_bytes());
        batch[BASE_SEQUENCE_POSITION..BASE_SEQUENCE_POSITION + 4].copy_from_slice(&base_sequence.to_be_bytes());
        // Renews the checksum for all three.
        set_create_time(batch, timestamp_ms);
        Batch { bytes: batch, made: *made }
    }

    /// The sequence of a partition's next batch, of `count` records.
    fn next_base_sequence(&mut self, partition: usize, count: u64) -> i32 {
        if self.author.producer.is_none() {
            return NO_SEQUENCE;
        }
        let next = &mut self.base_sequences[partition];
        let base_sequence = *next;
        *next = increment_sequence(base_sequence, count as i32);
        base_sequence
    }

    /// Makes a batch of its own, of the first of `count` records that fit.
    fn build(&mut self, partition: usize, count: u64, due_ns: impl Fn(u64) -> u64) -> Made {
        self.body.clear();
        let mut made = Made::default();
        for index in 0..count {
            self.fill_value();
            let is_full = BATCH_HEADER_BYTES + self.body.len() + self.value.len() + RECORD_OVERHEAD_BYTES
                > self.shape.batch_bytes;
            if index > 0 && is_full && !self.shape.values.are_even() {
                break;
            }
            self.record_count += 1;
            if self.shape.stamped {
                let sequence = self.sequences[partition];
                self.sequences[partition] += 1;
                let stamp = Stamp { run: self.author.run, client: self.author.client, sequence, due_ns: due_ns(index) };
                stamp.write(&mut self.value);
            }
            let key = self
                .keys
                .draw(&mut self.random)
                .map(|number| key_bytes(number - number % self.partition_count + partition as u64));
            let offset_delta = index as i32;
            let key = key.as_ref().map(|key| &key[..]);
            put_record(&mut self.body, 0, offset_delta, key, Some(&self.value), &[]);
            made.count += 1;
            made.value_bytes += self.value.len() as u64;
        }
        let (count, timestamp_ms) = (made.count, milliseconds(due_ns(made.count - 1)));
        made.record_bytes = self.body.len() as u64;
        let base_sequence = self.next_base_sequence(partition, count);
        let compression = self.shape.compression;
        let body = match compression.codec {
            Codec::None => &self.body,
            _ => {
                compress_into(compression, &self.body, &mut self.compressed);
                &self.compressed
            }
        };
        let plain = BatchHeader::plain(0, count as i32 - 1, compression.codec, None);
        let is_transactional = self.author.producer.is_some_and(|producer| producer.is_transactional);
        let header = BatchHeader {
            attributes: plain.attributes | if is_transactional { TRANSACTIONAL_BIT } else { 0 },
            base_timestamp: timestamp_ms,
            max_timestamp: timestamp_ms,
            producer_id: self.author.producer.map_or(plain.producer_id, |producer| producer.id),
            producer_epoch: self.author.producer.map_or(plain.producer_epoch, |producer| producer.epoch),
            base_sequence,
            record_count: count as i32,
            ..plain
        };
        self.batch.clear();
        self.batch.extend_from_slice(&header.seal(body));
        made
    }

    fn fill_value(&mut self) {
        match &self.shape.values {
            Values::Filler | Values::Letters => {}
            Values::Lines(lines) => {
                let line = self.random.next() as usize % lines.len().max(1);
                self.value.clear();
                self.value.extend_from_slice(lines.get(line).map_or(&[], Vec::as_slice));
                return;
            }
            Values::Numbers => {
                let number = self.record_count * u64::from(self.author.clients) + u64::from(self.author.client);
                self.value.clear();
                self.value.extend_from_slice(number.to_string().as_bytes());
                return;
            }
        }
        let bytes = self.value.len();
        if self.next_filler + bytes > self.filler.len() {
            // Not at the same place again, so that values do not repeat with the filler.
            self.next_filler = self.random.next() as usize % FILLER_PIECE_BYTES;
        }
        self.value.copy_from_slice(&self.filler[self.next_filler..self.next_filler + bytes]);
        self.next_filler += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::batch::{decode_records, has_valid_crc};

    const LIMIT: usize = 1 << 24;

    fn shape() -> Shape {
        Shape {
            values: Values::Filler,
            record_bytes: 100,
            batch_bytes: 10_000,
            keys: Keys::None,
            compression: Compression::of(Codec::None),
            compressible: 1.0,
            stamped: true,
        }
    }

    #[test]
    fn batches_are_sound_stamped_and_counted_by_partition() {
        let mut payload = Payload::new(shape(), Author { run: 7, client: 3, ..Author::default() }, 2);
        for (partition, first) in [(0, 0), (1, 0), (0, 5)] {
            let batch = payload.batch(partition, 5, |index| 1_000_000 * index).bytes.to_vec();
            assert!(has_valid_crc(&batch));
            for (index, record) in decode_records(&batch, LIMIT).expect("sound").into_iter().enumerate() {
                let stamp = Stamp::read(&record.value.expect("a value"), true);
                let index = index as u64;
                let expected = Stamp { run: 7, client: 3, sequence: first + index, due_ns: 1_000_000 * index };
                assert_eq!((stamp, record.timestamp), (Ok(expected), 4));
            }
        }
    }

    #[test]
    fn templates_are_sent_again_with_new_timestamps_and_a_right_checksum() {
        let shape = Shape { stamped: false, ..shape() };
        let count = shape.batch_records();
        assert!(count > 50);
        let mut payload = Payload::new(shape, Author::default(), 1);
        for ms in 1..40 {
            let batch = payload.batch(0, count, |_| ms * 1_000_000).bytes;
            assert!(has_valid_crc(batch) && batch.len() <= 10_000);
            let records = decode_records(batch, LIMIT).expect("sound");
            assert!(records.len() as u64 == count && records.iter().all(|record| record.timestamp == ms as i64));
        }
        assert_eq!(payload.templates.len(), TEMPLATES);
    }

    #[test]
    fn sequences_follow_each_other_in_every_partition_templates_or_not() {
        let shape = Shape { stamped: false, ..shape() };
        let full = shape.batch_records();
        let producer = ProducerId { id: 77, epoch: 3, is_transactional: true };
        let mut payload = Payload::new(shape, Author { producer: Some(producer), ..Author::default() }, 2);
        let mut next = [0, 0];
        for turn in 0..40u64 {
            let (place, count) = ((turn % 3 != 0) as usize, if turn % 5 == 0 { 2 } else { full });
            let batch = payload.batch(place, count, |_| turn * 1_000_000).bytes;
            let header = BatchHeader::parse(batch).expect("a header");
            assert!(has_valid_crc(batch) && header.is_transactional());
            assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (77, 3, next[place]));
            next[place] += count as i32;
        }
        assert!(next[0] > 100 && next[1] > 100);
    }

    #[test]
    fn lines_come_by_chance_and_only_as_many_as_fit_into_a_batch() {
        let lines: Vec<Vec<u8>> = [1, 20, 4000, 0].map(|bytes| vec![b'x'; bytes]).to_vec();
        let mean = 1005;
        let shape =
            Shape { values: Values::Lines(lines.clone().into()), record_bytes: mean, stamped: false, ..shape() };
        let asked = shape.batch_records();
        let mut payload = Payload::new(shape, Author::default(), 1);
        let mut seen = [0; 4];
        for _ in 0..200 {
            let batch = payload.batch(0, asked, |index| index * 1_000_000);
            let records = decode_records(batch.bytes, LIMIT).expect("sound");
            assert!(batch.bytes.len() <= 10_000 && (2..=asked).contains(&batch.made.count), "{:?}", batch.made);
            assert_eq!(records.len() as u64, batch.made.count);
            assert!(records.iter().all(|record| record.timestamp == batch.made.count as i64 - 1));
            let values: usize = records.iter().map(|record| record.value.as_ref().map_or(0, |value| value.len())).sum();
            assert_eq!(values as u64, batch.made.value_bytes);
            for record in records {
                let value = record.value.expect("a value");
                seen[lines.iter().position(|line| *line == value).expect("one of them")] += 1;
            }
        }
        assert!(seen.iter().all(|count| *count > 100), "{seen:?}");
    }

    #[test]
    fn numbers_are_those_of_all_clients_records_each_once() {
        let shape = Shape { values: Values::Numbers, record_bytes: 3, stamped: false, ..shape() };
        let mut numbers = Vec::new();
        for client in 0..2 {
            let mut payload = Payload::new(shape.clone(), Author { client, clients: 2, ..Author::default() }, 1);
            for _ in 0..3 {
                let batch = payload.batch(0, 20, |_| 0);
                assert_eq!(batch.made.count, 20);
                let records = decode_records(batch.bytes, LIMIT).expect("sound");
                numbers.extend(records.into_iter().map(|record| record.value.expect("a value").to_vec()));
            }
        }
        numbers.sort_by_key(|number| (number.len(), number.clone()));
        assert_eq!(numbers, (0..120).map(|number| number.to_string().into_bytes()).collect::<Vec<_>>());
    }

    #[test]
    fn letters_are_capital() {
        let shape = Shape { values: Values::Letters, stamped: false, ..shape() };
        let records = decode_records(Payload::new(shape, Author::default(), 1).batch(0, 9, |_| 0).bytes, LIMIT);
        let values = records.expect("sound").into_iter().filter_map(|record| record.value);
        assert!(values.flat_map(|value| value.to_vec()).all(|byte| byte.is_ascii_uppercase()));
    }

    #[test]
    fn any_flipped_bit_of_a_value_is_found() {
        let mut value = vec![5; 60];
        Stamp { run: 1, client: 2, sequence: 3, due_ns: 4 }.write(&mut value);
        for bit in 32..value.len() * 8 {
            value[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Stamp::read(&value, true), Err(Damage::Checksum), "bit {bit}");
            value[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(Stamp::read(&value, true).is_ok());
        assert_eq!(Stamp::read(&value[..STAMP_BYTES - 1], false), Err(Damage::Foreign));
        assert_eq!(Stamp::read(&[0; 60], false), Err(Damage::Foreign));
    }

    #[test]
    fn values_compress_by_about_what_was_asked() {
        for asked in [1.0, 2.0, 4.0] {
            for codec in [Codec::Zstd, Codec::Lz4] {
                let compression = Compression::of(codec);
                let shape = Shape {
                    compressible: asked,
                    compression,
                    record_bytes: 1000,
                    batch_bytes: 200_000,
                    stamped: false,
                    ..shape()
                };
                let plain = Shape { compression: Compression::of(Codec::None), ..shape.clone() };
                let count = shape.batch_records();
                let bytes = |shape| Payload::new(shape, Author::default(), 1).batch(0, count, |_| 0).bytes.len() as f64;
                let reached = bytes(plain) / bytes(shape);
                assert!((asked * 0.75..asked * 1.2).contains(&reached), "{codec:?}: {asked} became {reached}");
            }
        }
    }

    #[test]
    fn keys_stay_with_their_partition_and_zipf_prefers_the_first() {
        let shape = Shape { keys: Keys::Uniform(30), stamped: false, ..shape() };
        let mut payload = Payload::new(shape, Author::default(), 3);
        for partition in 0..3 {
            for record in decode_records(payload.batch(partition, 40, |_| 0).bytes, LIMIT).expect("sound") {
                let key = String::from_utf8(record.key.expect("a key").to_vec()).expect("text");
                let number: usize = key.trim_start_matches("key").parse().expect("a number");
                assert!(number % 3 == partition && number < 30, "{key}");
            }
        }
        let source = KeySource::new(&Keys::Zipf { count: 1000, exponent: 1.0 });
        let mut random = Random(1);
        let mut counts = vec![0; 1000];
        (0..100_000).for_each(|_| counts[source.draw(&mut random).expect("keyed") as usize] += 1);
        // Of 1000 keys with exponent 1 the first has 13 %, the tenth a tenth of that.
        assert!((12_000..15_000).contains(&counts[0]), "{}", counts[0]);
        assert!((1_000..1_700).contains(&counts[9]), "{}", counts[9]);
    }
}
