//! What records hold: values that repeat as much as asked, keys, and stamps by which a consumer knows them.
//!
//! A stamp begins a value:
//!
//! ```text
//! 0 magic u32 | 4 CRC-32C u32 of all behind it | 8 run u32 | 12 client u32 | 16 sequence u64 | 24 due u64, ns since 1970
//! ```
//! The sequence counts a client's records of one partition, from 0: a consumer sees loss, repetition and disorder.
//! Without stamps full batches are made once and sent again and again with new timestamps, so that the client costs less
//! than the broker that it is to load.

#![forbid(unsafe_code)]

use std::sync::Arc;

use crate::base::crc32c::crc32c;
use crate::record::batch::{BATCH_HEADER_BYTES, BatchHeader, set_create_time};
use crate::record::compression::{Codec, Compression, compress_into};
use crate::record::records::put_record;

/// Bytes of a stamp: the smallest value that has one.
pub const STAMP_BYTES: usize = 32;
const STAMP_MAGIC: u32 = 0x524c_4231;
const CRC_START: usize = 8;

/// Most distinct keys with a Zipf distribution, for which a table is kept.
pub const ZIPF_KEYS_MAX: u64 = 1_000_000;

/// Where a batch has its base timestamp (see `record::batch`).
const BASE_TIMESTAMP_POSITION: usize = 27;
/// Least bytes from which values are cut; a value repeats after so many.
const FILLER_BYTES_MIN: usize = 1 << 20;
/// Filler is made in pieces of this size, the first part random and the rest not.
const FILLER_PIECE_BYTES: usize = 256;
/// Different batches of a client that sends them again and again.
const TEMPLATES: usize = 8;
/// A record's lengths, deltas and attributes at the most, with small headers: what a full batch is counted with.
const RECORD_OVERHEAD_BYTES: usize = 12;

/// A repeatable sequence of numbers (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
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

/// How a client's records are to look.
#[derive(Clone, Debug)]
pub struct Shape {
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
            record_bytes: 0,
            batch_bytes: 0,
            keys: Keys::None,
            compression: Compression::of(Codec::None),
            compressible: 1.0,
            stamped: false,
        }
    }

    /// Records of a full batch: as many as fit before compression, but one at least.
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

/// Bytes that a good codec makes smaller by `compressible`.
fn filler(bytes: usize, compressible: f64, random: &mut Random) -> Vec<u8> {
    let random_bytes = (FILLER_PIECE_BYTES as f64 / compressible.max(1.0)).round() as usize;
    (0..bytes)
        .map(|at| if at % FILLER_PIECE_BYTES < random_bytes { (random.next() >> 32) as u8 } else { b'.' })
        .collect()
}

/// One client's batches.
pub struct Payload {
    shape: Shape,
    run: u32,
    client: u32,
    /// Partitions of the topic: keys with the same number modulo it belong to the same one.
    partition_count: u64,
    filler: Vec<u8>,
    next_filler: usize,
    keys: KeySource,
    random: Random,
    /// Of the next record, by partition.
    sequences: Vec<u64>,
    /// Full batches, made when first needed.
    templates: Vec<Vec<u8>>,
    next_template: usize,
    value: Vec<u8>,
    body: Vec<u8>,
    compressed: Vec<u8>,
    batch: Vec<u8>,
}

impl Payload {
    pub fn new(shape: Shape, run: u32, client: u32, partition_count: usize) -> Payload {
        let mut random = Random(u64::from(run) << 32 | u64::from(client));
        let filler = filler(FILLER_BYTES_MIN.max(4 * shape.record_bytes), shape.compressible, &mut random);
        Payload {
            keys: KeySource::new(&shape.keys),
            run,
            client,
            partition_count: partition_count.max(1) as u64,
            filler,
            next_filler: 0,
            random,
            sequences: vec![0; partition_count],
            templates: Vec::new(),
            next_template: 0,
            value: vec![0; shape.record_bytes],
            body: Vec::new(),
            compressed: Vec::new(),
            batch: Vec::new(),
            shape,
        }
    }

    /// A batch of `count` records for a partition. `due_ns` says when each of them was to be sent, ns since 1970; all are
    /// stored under the time of the last.
    pub fn batch(&mut self, partition: usize, count: u64, due_ns: impl Fn(u64) -> u64) -> &[u8] {
        let timestamp_ms = i64::try_from(due_ns(count - 1) / 1_000_000).unwrap_or(i64::MAX);
        let keyed = self.shape.keys != Keys::None;
        if self.shape.stamped || keyed || count != self.shape.batch_records() {
            self.build(partition, count, timestamp_ms, due_ns);
            return &self.batch;
        }
        if self.templates.len() < TEMPLATES {
            self.build(partition, count, timestamp_ms, due_ns);
            self.templates.push(self.batch.clone());
        }
        self.next_template = (self.next_template + 1) % self.templates.len();
        let batch = &mut self.templates[self.next_template];
        batch[BASE_TIMESTAMP_POSITION..BASE_TIMESTAMP_POSITION + 8].copy_from_slice(&timestamp_ms.to_be_bytes());
        set_create_time(batch, timestamp_ms);
        batch
    }

    fn build(&mut self, partition: usize, count: u64, timestamp_ms: i64, due_ns: impl Fn(u64) -> u64) {
        self.body.clear();
        for index in 0..count {
            self.fill_value();
            if self.shape.stamped {
                let sequence = self.sequences[partition];
                self.sequences[partition] += 1;
                let stamp = Stamp { run: self.run, client: self.client, sequence, due_ns: due_ns(index) };
                stamp.write(&mut self.value);
            }
            let key = self
                .keys
                .draw(&mut self.random)
                .map(|number| key_bytes(number - number % self.partition_count + partition as u64));
            let offset_delta = index as i32;
            let key = key.as_ref().map(|key| &key[..]);
            put_record(&mut self.body, 0, offset_delta, key, Some(&self.value), &[]);
        }
        let compression = self.shape.compression;
        let body = match compression.codec {
            Codec::None => &self.body,
            _ => {
                compress_into(compression, &self.body, &mut self.compressed);
                &self.compressed
            }
        };
        let header = BatchHeader {
            base_timestamp: timestamp_ms,
            max_timestamp: timestamp_ms,
            record_count: count as i32,
            ..BatchHeader::plain(0, count as i32 - 1, compression.codec, None)
        };
        self.batch.clear();
        self.batch.extend_from_slice(&header.seal(body));
    }

    fn fill_value(&mut self) {
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
        let mut payload = Payload::new(shape(), 7, 3, 2);
        for (partition, first) in [(0, 0), (1, 0), (0, 5)] {
            let batch = payload.batch(partition, 5, |index| 1_000_000 * index).to_vec();
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
        let mut payload = Payload::new(shape, 1, 0, 1);
        for ms in 1..40 {
            let batch = payload.batch(0, count, |_| ms * 1_000_000);
            assert!(has_valid_crc(batch) && batch.len() <= 10_000);
            let records = decode_records(batch, LIMIT).expect("sound");
            assert!(records.len() as u64 == count && records.iter().all(|record| record.timestamp == ms as i64));
        }
        assert_eq!(payload.templates.len(), TEMPLATES);
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
                let bytes = |shape| Payload::new(shape, 1, 0, 1).batch(0, count, |_| 0).len() as f64;
                let reached = bytes(plain) / bytes(shape);
                assert!((asked * 0.75..asked * 1.2).contains(&reached), "{codec:?}: {asked} became {reached}");
            }
        }
    }

    #[test]
    fn keys_stay_with_their_partition_and_zipf_prefers_the_first() {
        let shape = Shape { keys: Keys::Uniform(30), stamped: false, ..shape() };
        let mut payload = Payload::new(shape, 1, 0, 3);
        for partition in 0..3 {
            for record in decode_records(payload.batch(partition, 40, |_| 0), LIMIT).expect("sound") {
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
