//! The v2 batch: its header, stamped and corrected in place, its records, and a builder.
//!
//! All integers big-endian. The CRC-32C covers everything from the attributes on, so base offset, length, leader epoch
//! and magic may change without it.
//!
//! ```text
//!  0 base offset i64 | 8 batch length i32 | 12 leader epoch i32 | 16 magic i8 | 17 crc u32 | 21 attributes i16
//! 23 last offset delta i32 | 27 base timestamp i64 | 35 max timestamp i64
//! 43 producer id i64 | 51 producer epoch i16 | 53 base sequence i32 | 57 record count i32 | 61 records
//! ```

#![forbid(unsafe_code)]

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};

use crate::base::crc32c::crc32c;
use crate::base::ids::{LeaderEpoch, Offset};
use crate::record::compression::{Codec, CompressionError, compress, decompress};
pub use crate::record::records::Record;
use crate::record::records::{RECORD_BYTES_MIN, RecordError, RecordView, put_record, take_record};
use crate::record::seek::fuzz_first_in_batch;

/// Length of a batch's header, and of a batch without records.
pub const BATCH_HEADER_BYTES: usize = 61;
/// Base offset and length field, which the length does not count.
pub const LOG_OVERHEAD_BYTES: usize = 12;
/// Position of the magic byte, the same in all of Kafka's formats.
pub const MAGIC_POSITION: usize = 16;
pub const MAGIC_V2: i8 = 2;
pub const NO_TIMESTAMP: i64 = -1;
pub const NO_PRODUCER_ID: i64 = -1;
pub const NO_SEQUENCE: i32 = -1;

const BATCH_LENGTH_MIN: i32 = (BATCH_HEADER_BYTES - LOG_OVERHEAD_BYTES) as i32;
const LEADER_EPOCH_POSITION: usize = 12;
const CRC_POSITION: usize = 17;
const ATTRIBUTES_POSITION: usize = 21;
const MAX_TIMESTAMP_POSITION: usize = 35;

const CODEC_MASK: i16 = 0x07;
const LOG_APPEND_TIME_BIT: i16 = 0x08;
pub const TRANSACTIONAL_BIT: i16 = 0x10;
const CONTROL_BIT: i16 = 0x20;
const DELETE_HORIZON_BIT: i16 = 0x40;

#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than a header, or than the header's length field says: a torn tail.
    #[error("a batch is cut short")]
    Truncated,
    #[error("batch length {0} is below that of a header")]
    Length(i32),
    #[error("magic {0} is not 2")]
    Magic(i8),
    #[error("codec {0} is unknown")]
    Codec(i16),
    #[error("{0}")]
    Compression(#[from] CompressionError),
    #[error("{0}")]
    Record(#[from] RecordError),
    #[error("the batch says {expected} records, its body holds {found}")]
    Count { expected: i32, found: i32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

/// The header of one batch, decoded. Fields as Kafka names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: Offset,
    /// Bytes after this field: at least those of a header.
    pub batch_length: i32,
    pub leader_epoch: LeaderEpoch,
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub record_count: i32,
}

fn array<const N: usize>(bytes: &[u8], position: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[position..position + N]);
    out
}

impl BatchHeader {
    /// Decodes the first 61 bytes; the records need not be there. Only length and magic are checked.
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        if bytes.len() < BATCH_HEADER_BYTES {
            return Err(BatchError::Truncated);
        }
        let magic = bytes[MAGIC_POSITION] as i8;
        if magic != MAGIC_V2 {
            return Err(BatchError::Magic(magic));
        }
        let batch_length = i32::from_be_bytes(array(bytes, 8));
        if batch_length < BATCH_LENGTH_MIN {
            return Err(BatchError::Length(batch_length));
        }
        Ok(BatchHeader {
            base_offset: i64::from_be_bytes(array(bytes, 0)),
            batch_length,
            leader_epoch: i32::from_be_bytes(array(bytes, LEADER_EPOCH_POSITION)),
            crc: u32::from_be_bytes(array(bytes, CRC_POSITION)),
            attributes: i16::from_be_bytes(array(bytes, ATTRIBUTES_POSITION)),
            last_offset_delta: i32::from_be_bytes(array(bytes, 23)),
            base_timestamp: i64::from_be_bytes(array(bytes, 27)),
            max_timestamp: i64::from_be_bytes(array(bytes, MAX_TIMESTAMP_POSITION)),
            producer_id: i64::from_be_bytes(array(bytes, 43)),
            producer_epoch: i16::from_be_bytes(array(bytes, 51)),
            base_sequence: i32::from_be_bytes(array(bytes, 53)),
            record_count: i32::from_be_bytes(array(bytes, 57)),
        })
    }

    /// A whole batch of this header and `body`, its length and CRC set.
    ///
    /// # Panics
    /// `body` is too long for a length field: the caller bounds it.
    pub fn seal(&self, body: &[u8]) -> BytesMut {
        let mut batch = BytesMut::with_capacity(BATCH_HEADER_BYTES + body.len());
        self.write(body, &mut batch);
        batch
    }

    fn write<B: BufMut + AsMut<[u8]>>(&self, body: &[u8], batch: &mut B) {
        let length = i32::try_from(body.len() + BATCH_HEADER_BYTES - LOG_OVERHEAD_BYTES);
        let length = length.unwrap_or_else(|_| panic!("a batch of {} bytes cannot be built", body.len()));
        batch.put_i64(self.base_offset);
        batch.put_i32(length);
        batch.put_i32(self.leader_epoch);
        batch.put_i8(MAGIC_V2);
        batch.put_u32(0);
        batch.put_i16(self.attributes);
        batch.put_i32(self.last_offset_delta);
        batch.put_i64(self.base_timestamp);
        batch.put_i64(self.max_timestamp);
        batch.put_i64(self.producer_id);
        batch.put_i16(self.producer_epoch);
        batch.put_i32(self.base_sequence);
        batch.put_i32(self.record_count);
        batch.put_slice(body);
        write_crc(batch.as_mut());
    }

    /// What a batch of `codec` with nothing but that and the transactional bit of this one has as attributes.
    pub fn attributes_in(&self, codec: Codec) -> i16 {
        codec.id() | self.attributes & TRANSACTIONAL_BIT
    }

    /// Bytes of the whole batch, header included.
    pub fn batch_bytes(&self) -> usize {
        self.batch_length as usize + LOG_OVERHEAD_BYTES
    }

    pub fn last_offset(&self) -> Offset {
        self.base_offset.wrapping_add(i64::from(self.last_offset_delta))
    }

    /// `None`: an unknown codec id (5 to 7).
    pub fn codec(&self) -> Option<Codec> {
        Codec::from_id(self.attributes & CODEC_MASK)
    }

    pub fn timestamp_type(&self) -> TimestampType {
        match self.attributes & LOG_APPEND_TIME_BIT {
            0 => TimestampType::CreateTime,
            _ => TimestampType::LogAppendTime,
        }
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    /// When the tombstones or the marker in it may go, once compaction has said so: it stands in the base timestamp's
    /// place (KIP-534).
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        (self.attributes & DELETE_HORIZON_BIT != 0).then_some(self.base_timestamp)
    }

    pub(in crate::record) fn set_delete_horizon(&mut self, horizon_ms: Option<i64>) {
        match horizon_ms {
            Some(ms) => (self.attributes, self.base_timestamp) = (self.attributes | DELETE_HORIZON_BIT, ms),
            None => self.attributes &= !DELETE_HORIZON_BIT,
        }
    }

    pub(in crate::record) fn set_codec(&mut self, codec: Codec) {
        self.attributes = (self.attributes & !CODEC_MASK) | codec.id();
    }

    /// The header of a batch without producer that is yet to be filled; with `log_append_time` all its records are of
    /// that time.
    pub fn plain(
        base_offset: Offset,
        last_offset_delta: i32,
        codec: Codec,
        log_append_time: Option<i64>,
    ) -> BatchHeader {
        let timestamp_bit = if log_append_time.is_some() { LOG_APPEND_TIME_BIT } else { 0 };
        BatchHeader {
            base_offset,
            batch_length: BATCH_LENGTH_MIN,
            leader_epoch: -1,
            crc: 0,
            attributes: codec.id() | timestamp_bit,
            last_offset_delta,
            base_timestamp: NO_TIMESTAMP,
            max_timestamp: log_append_time.unwrap_or(NO_TIMESTAMP),
            producer_id: NO_PRODUCER_ID,
            producer_epoch: -1,
            base_sequence: NO_SEQUENCE,
            record_count: 0,
        }
    }

    pub fn has_producer_id(&self) -> bool {
        self.producer_id > NO_PRODUCER_ID
    }

    /// Sequence of the last record, wrapping from `i32::MAX` to 0; [`NO_SEQUENCE`] if there is none.
    pub fn last_sequence(&self) -> i32 {
        match self.base_sequence {
            NO_SEQUENCE => NO_SEQUENCE,
            base => increment_sequence(base, self.last_offset_delta),
        }
    }

    /// What a record of this batch has as timestamp: with LogAppendTime all have the batch's.
    pub fn record_timestamp(&self, timestamp_delta: i64) -> i64 {
        match self.timestamp_type() {
            TimestampType::CreateTime => self.base_timestamp.wrapping_add(timestamp_delta),
            TimestampType::LogAppendTime => self.max_timestamp,
        }
    }
}

/// `sequence + delta` as producers count: after `i32::MAX` comes 0 (Kafka 3.9 `DefaultRecordBatch.incrementSequence`).
pub fn increment_sequence(sequence: i32, delta: i32) -> i32 {
    (i64::from(sequence) + i64::from(delta)).rem_euclid(1 << 31) as i32
}

/// Whether the CRC of a whole batch is right.
pub fn has_valid_crc(batch: &[u8]) -> bool {
    batch.len() >= BATCH_HEADER_BYTES
        && crc32c(&batch[ATTRIBUTES_POSITION..]) == u32::from_be_bytes(array(batch, CRC_POSITION))
}

/// Writes base offset and leader epoch in place; the CRC covers neither.
pub fn stamp(batch: &mut [u8], base_offset: Offset, leader_epoch: LeaderEpoch) {
    batch[..8].copy_from_slice(&base_offset.to_be_bytes());
    batch[LEADER_EPOCH_POSITION..MAGIC_POSITION].copy_from_slice(&leader_epoch.to_be_bytes());
}

/// Makes it a LogAppendTime batch of `ms`: timestamp type, max timestamp and CRC.
pub fn set_log_append_time(batch: &mut [u8], ms: i64) {
    let attributes = i16::from_be_bytes(array(batch, ATTRIBUTES_POSITION)) | LOG_APPEND_TIME_BIT;
    batch[ATTRIBUTES_POSITION..ATTRIBUTES_POSITION + 2].copy_from_slice(&attributes.to_be_bytes());
    set_max_timestamp(batch, ms);
}

/// Makes it a CreateTime batch with this max timestamp; renews the CRC.
pub fn set_create_time(batch: &mut [u8], max_timestamp: i64) {
    let attributes = i16::from_be_bytes(array(batch, ATTRIBUTES_POSITION)) & !LOG_APPEND_TIME_BIT;
    batch[ATTRIBUTES_POSITION..ATTRIBUTES_POSITION + 2].copy_from_slice(&attributes.to_be_bytes());
    set_max_timestamp(batch, max_timestamp);
}

/// Rewrites the max timestamp and the CRC.
pub fn set_max_timestamp(batch: &mut [u8], ms: i64) {
    batch[MAX_TIMESTAMP_POSITION..MAX_TIMESTAMP_POSITION + 8].copy_from_slice(&ms.to_be_bytes());
    write_crc(batch);
}

fn write_crc(batch: &mut [u8]) {
    let crc = crc32c(&batch[ATTRIBUTES_POSITION..]);
    batch[CRC_POSITION..ATTRIBUTES_POSITION].copy_from_slice(&crc.to_be_bytes());
}

/// The batches that stand one after the other in `bytes`: each whole batch's header and bytes. A cut or malformed one is
/// an error, after which the iteration ends. CRCs are not checked.
pub fn batches(bytes: &[u8]) -> Batches<'_> {
    Batches { rest: bytes }
}

pub struct Batches<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<(BatchHeader, &'a [u8]), BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let taken = BatchHeader::parse(self.rest).and_then(|header| {
            let (batch, rest) = self.rest.split_at_checked(header.batch_bytes()).ok_or(BatchError::Truncated)?;
            self.rest = rest;
            Ok((header, batch))
        });
        if taken.is_err() {
            self.rest = &[];
        }
        Some(taken)
    }
}

/// The records of a whole batch as one uncompressed run of at most `limit` bytes.
pub fn records_body<'a>(header: &BatchHeader, batch: &'a [u8], limit: usize) -> Result<Cow<'a, [u8]>, BatchError> {
    let body = batch.get(BATCH_HEADER_BYTES..).ok_or(BatchError::Truncated)?;
    let codec = header.codec().ok_or(BatchError::Codec(header.attributes & CODEC_MASK))?;
    match codec {
        // An empty batch left by compaction has no block to decompress.
        _ if header.record_count == 0 && body.is_empty() => Ok(Cow::Borrowed(body)),
        Codec::None => Ok(Cow::Borrowed(body)),
        codec => Ok(Cow::Owned(decompress(codec, body, limit)?)),
    }
}

/// Shows each record of an uncompressed body, in order, to `visit`; its error ends the walk.
///
/// # Errors
/// `E: From<BatchError>` for a malformed record, or a count that is not the header's.
pub fn walk_records<'a, E: From<BatchError>>(
    header: &BatchHeader,
    mut body: &'a [u8],
    mut visit: impl FnMut(RecordView<'a>) -> Result<(), E>,
) -> Result<(), E> {
    let mut found = 0;
    while !body.is_empty() {
        if found >= header.record_count {
            return Err(BatchError::Count { expected: header.record_count, found: found.saturating_add(1) }.into());
        }
        visit(take_record(&mut body).map_err(BatchError::Record)?)?;
        found += 1;
    }
    match found == header.record_count {
        true => Ok(()),
        false => Err(BatchError::Count { expected: header.record_count, found }.into()),
    }
}

/// All records of a batch, decompressed into at most `limit` bytes.
pub fn decode_records(batch: &[u8], limit: usize) -> Result<Vec<Record>, BatchError> {
    let header = BatchHeader::parse(batch)?;
    let body = records_body(&header, batch, limit)?;
    let count_max = body.len() / RECORD_BYTES_MIN;
    let mut records = Vec::with_capacity(count_max.min(usize::try_from(header.record_count).unwrap_or(0)));
    walk_records::<BatchError>(&header, &body, |view| {
        records.push(view.to_record(header.base_offset, header.record_timestamp(view.timestamp_delta)));
        Ok(())
    })?;
    Ok(records)
}

/// Builds one batch, for clients, tools, tests and conversion.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    codec: Codec,
    base_offset: Offset,
    leader_epoch: LeaderEpoch,
    producer: (i64, i16, i32),
    attributes: i16,
    base_timestamp: i64,
    max_timestamp: i64,
    record_count: i32,
    body: Vec<u8>,
}

impl BatchBuilder {
    /// CreateTime, no producer id, leader epoch -1, base offset 0.
    pub fn new(codec: Codec) -> BatchBuilder {
        BatchBuilder {
            codec,
            base_offset: 0,
            leader_epoch: -1,
            producer: (NO_PRODUCER_ID, -1, NO_SEQUENCE),
            attributes: codec.id(),
            base_timestamp: NO_TIMESTAMP,
            max_timestamp: NO_TIMESTAMP,
            record_count: 0,
            body: Vec::new(),
        }
    }

    pub fn base_offset(mut self, base_offset: Offset) -> BatchBuilder {
        self.base_offset = base_offset;
        self
    }

    pub fn leader_epoch(mut self, leader_epoch: LeaderEpoch) -> BatchBuilder {
        self.leader_epoch = leader_epoch;
        self
    }

    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> BatchBuilder {
        self.producer = (id, epoch, base_sequence);
        self
    }

    pub fn transactional(mut self) -> BatchBuilder {
        self.attributes |= TRANSACTIONAL_BIT;
        self
    }

    pub fn control(mut self) -> BatchBuilder {
        self.attributes |= CONTROL_BIT;
        self
    }

    /// Adds a record at the next offset.
    pub fn push(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) {
        if self.record_count == 0 {
            self.base_timestamp = timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        let delta = timestamp.wrapping_sub(self.base_timestamp);
        put_record(&mut self.body, delta, self.record_count, key, value, headers);
        self.record_count += 1;
    }

    /// The batch; at least one record was pushed.
    pub fn build(self) -> BytesMut {
        assert!(self.record_count > 0, "a batch has records");
        let body = match self.codec {
            Codec::None => self.body,
            codec => compress(codec, &self.body),
        };
        let (producer_id, producer_epoch, base_sequence) = self.producer;
        let header = BatchHeader {
            attributes: self.attributes,
            leader_epoch: self.leader_epoch,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id,
            producer_epoch,
            base_sequence,
            record_count: self.record_count,
            ..BatchHeader::plain(self.base_offset, self.record_count - 1, self.codec, None)
        };
        header.seal(&body)
    }
}

/// A batch of this header and this body, compressed if it is to be; length and CRC are made anew.
pub(in crate::record) fn assemble(header: &BatchHeader, body: &[u8]) -> Vec<u8> {
    let mut batch = Vec::with_capacity(BATCH_HEADER_BYTES + body.len());
    header.write(body, &mut batch);
    batch
}

/// Reads arbitrary bytes as batches with records; must neither panic nor take more memory than its limit.
pub fn fuzz_decode_batches(bytes: &[u8]) {
    const LIMIT: usize = 1 << 20;
    for (header, batch) in batches(bytes).map_while(Result::ok) {
        let _ = (header.last_offset(), header.last_sequence(), has_valid_crc(batch));
        let _ = decode_records(batch, LIMIT);
        fuzz_first_in_batch(batch);
    }
}

#[cfg(test)]
mod tests;
