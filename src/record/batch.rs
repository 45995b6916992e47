//! The v2 batch: its header, stamped in place.

#![forbid(unsafe_code)]

use bytes::{Bytes, BytesMut};

use crate::base::ids::{LeaderEpoch, Offset};
use crate::record::compression::Codec;

/// Length of a batch's header, and of a batch without records.
pub const BATCH_HEADER_BYTES: usize = 61;
/// Base offset and length field, which the length does not count.
pub const LOG_OVERHEAD_BYTES: usize = 12;
pub const NO_TIMESTAMP: i64 = -1;
pub const NO_PRODUCER_ID: i64 = -1;

#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than a header, or than the header's length field says: a torn tail.
    #[error("a batch is cut short")]
    Truncated,
    #[error("batch length {0} is out of bounds")]
    Length(i32),
    #[error("magic {0} is not 2")]
    Magic(i8),
    #[error("{0}")]
    Malformed(&'static str),
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

impl BatchHeader {
    pub fn parse(_bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        todo!()
    }
    /// Bytes of the whole batch, header included.
    pub fn batch_bytes(&self) -> usize {
        todo!()
    }
    pub fn last_offset(&self) -> Offset {
        todo!()
    }
    /// `None`: an unknown codec id (5 to 7).
    pub fn codec(&self) -> Option<Codec> {
        todo!()
    }
    pub fn timestamp_type(&self) -> TimestampType {
        todo!()
    }
    pub fn is_transactional(&self) -> bool {
        todo!()
    }
    pub fn is_control(&self) -> bool {
        todo!()
    }
    pub fn has_producer_id(&self) -> bool {
        todo!()
    }
    pub fn last_sequence(&self) -> i32 {
        todo!()
    }
}

/// Writes base offset and leader epoch in place; the CRC covers neither.
pub fn stamp(_batch: &mut [u8], _base_offset: Offset, _leader_epoch: LeaderEpoch) {
    todo!()
}

/// Makes it a LogAppendTime batch of `ms`: timestamp type, max timestamp and CRC.
pub fn set_log_append_time(_batch: &mut [u8], _ms: i64) {
    todo!()
}

/// The batches that stand one after the other in `bytes`: each whole batch's header and bytes; a cut last one is an
/// `Err(Truncated)`, after which the iteration ends.
pub fn batches(_bytes: &[u8]) -> Batches<'_> {
    todo!()
}

pub struct Batches<'a> {
    _rest: &'a [u8],
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<(BatchHeader, &'a [u8]), BatchError>;
    fn next(&mut self) -> Option<Self::Item> {
        todo!()
    }
}

/// One record of a batch, to be built or as it was decoded.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Record {
    pub offset: Offset,
    pub timestamp: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// All records of a batch, decompressed into at most `limit` bytes.
pub fn decode_records(_batch: &[u8], _limit: usize) -> Result<Vec<Record>, BatchError> {
    todo!()
}

/// Builds one batch, for clients, tools, tests and conversion.
#[derive(Clone, Debug)]
pub struct BatchBuilder {}

impl BatchBuilder {
    /// CreateTime, no producer id, leader epoch -1, base offset 0.
    pub fn new(_codec: Codec) -> BatchBuilder {
        todo!()
    }
    pub fn base_offset(self, _base_offset: Offset) -> BatchBuilder {
        todo!()
    }
    pub fn leader_epoch(self, _leader_epoch: LeaderEpoch) -> BatchBuilder {
        todo!()
    }
    pub fn producer(self, _id: i64, _epoch: i16, _base_sequence: i32) -> BatchBuilder {
        todo!()
    }
    pub fn transactional(self) -> BatchBuilder {
        todo!()
    }
    pub fn control(self) -> BatchBuilder {
        todo!()
    }
    /// Adds a record at the next offset.
    pub fn push(
        &mut self,
        _timestamp: i64,
        _key: Option<&[u8]>,
        _value: Option<&[u8]>,
        _headers: &[(&[u8], Option<&[u8]>)],
    ) {
        todo!()
    }
    pub fn build(self) -> BytesMut {
        todo!()
    }
}
