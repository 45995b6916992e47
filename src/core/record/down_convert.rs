//! Stored records made into message sets of magic 0 or 1, for consumers older than 0.11 (Kafka 3.9
//! `RecordsUtil.downConvert`).
//!
//! Headers are lost, control batches left out, transactions become invisible. An uncompressed batch becomes a message
//! per record, from the offset asked for on; a compressed one a wrapper message with all of its records. What is old
//! enough already stays as it is. zstd has no place in these formats.

#![forbid(unsafe_code)]

use crate::base::ids::Offset;
use crate::record::batch::{
    BatchError, BatchHeader, LOG_OVERHEAD_BYTES, MAGIC_POSITION, MAGIC_V2, NO_TIMESTAMP, TimestampType, records_body,
    walk_records,
};
use crate::record::compression::{Codec, compress, compress_lz4_of_magic_0};
use crate::record::message_set::{MessageSetError, for_each_message};

/// Bytes that one batch may decompress to.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;
/// Once so many bytes are made, the batches that follow are left for the next fetch.
const CONVERTED_BYTES_MAX: usize = 4 << 20;

/// Kafka 3.9 `LazyDownConversionRecordsSend`: stands for batches none of which has anything to give. A client takes it
/// for a message that is cut short.
const OVERFLOW_MESSAGE: [u8; LOG_OVERHEAD_BYTES] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 61];

const LOG_APPEND_TIME_BIT: u8 = 0x08;
const MESSAGE_CRC_POSITION: usize = 12;

/// What is converted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i8)]
pub enum OldMagic {
    V0 = 0,
    V1 = 1,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DownConvertError {
    /// UNSUPPORTED_COMPRESSION_TYPE: the first batch that has something to give is compressed with zstd.
    #[error("zstd cannot be converted down")]
    Zstd,
    #[error("stored records are damaged: {0}")]
    Damaged(String),
}

impl From<BatchError> for DownConvertError {
    fn from(error: BatchError) -> DownConvertError {
        DownConvertError::Damaged(error.to_string())
    }
}

impl From<MessageSetError> for DownConvertError {
    fn from(error: MessageSetError) -> DownConvertError {
        DownConvertError::Damaged(error.to_string())
    }
}

/// Converts the whole batches and messages at the front of `stored`; what is cut short behind them is left out. Only
/// what is behind the first of them may be left for later: a zstd batch, or what would make the answer too long.
pub fn down_convert(stored: &[u8], to: OldMagic, first_offset: Offset) -> Result<Vec<u8>, DownConvertError> {
    let mut out = Vec::with_capacity(stored.len());
    let (mut rest, mut is_empty) = (stored, true);
    while let Some((magic, entry)) = take_entry(&mut rest)? {
        is_empty = false;
        if out.len() >= CONVERTED_BYTES_MAX {
            break;
        }
        let converted = match magic {
            MAGIC_V2 => convert_batch(entry, to, first_offset, &mut out),
            magic if magic <= to as i8 => {
                out.extend_from_slice(entry);
                Ok(())
            }
            _ => convert_message(entry, to, first_offset, &mut out),
        };
        match converted {
            Err(DownConvertError::Zstd) if !out.is_empty() => break,
            converted => converted?,
        }
    }
    if out.is_empty() && !is_empty {
        out.extend_from_slice(&OVERFLOW_MESSAGE);
    }
    Ok(out)
}

/// The whole batch or message at the front, and its magic.
fn take_entry<'a>(rest: &mut &'a [u8]) -> Result<Option<(i8, &'a [u8])>, DownConvertError> {
    let Some(magic) = rest.get(MAGIC_POSITION) else { return Ok(None) };
    let length = rest[8..].first_chunk::<4>().map_or(-1, |length| i32::from_be_bytes(*length));
    let least = MAGIC_POSITION + 1 - LOG_OVERHEAD_BYTES;
    let length = usize::try_from(length).ok().filter(|length| *length >= least);
    let length = length.ok_or_else(|| DownConvertError::Damaged("an impossible length".to_owned()))?;
    let Some((entry, after)) = rest.split_at_checked(LOG_OVERHEAD_BYTES + length) else { return Ok(None) };
    *rest = after;
    Ok(Some((*magic as i8, entry)))
}

fn convert_batch(batch: &[u8], to: OldMagic, first_offset: Offset, out: &mut Vec<u8>) -> Result<(), DownConvertError> {
    let header = BatchHeader::parse(batch)?;
    if header.is_control() {
        return Ok(());
    }
    let codec = header.codec().ok_or_else(|| DownConvertError::Damaged("an unknown codec".to_owned()))?;
    if codec == Codec::Zstd {
        return Err(DownConvertError::Zstd);
    }
    let body = records_body(&header, batch, DECOMPRESSED_BYTES_MAX)?;
    let mut messages = Messages::new(to, codec, header.timestamp_type(), first_offset);
    walk_records::<BatchError>(&header, &body, |record| {
        let offset = header.base_offset.wrapping_add(i64::from(record.offset_delta));
        messages.push(offset, header.record_timestamp(record.timestamp_delta), record.key, record.value);
        Ok(())
    })?;
    messages.finish(out);
    Ok(())
}

/// A stored message of magic 1, perhaps a wrapper, to magic 0.
fn convert_message(
    message: &[u8],
    to: OldMagic,
    first_offset: Offset,
    out: &mut Vec<u8>,
) -> Result<(), DownConvertError> {
    let mut messages: Option<Messages> = None;
    for_each_message(message, DECOMPRESSED_BYTES_MAX, |codec, message| {
        let messages = messages.get_or_insert_with(|| Messages::new(to, codec, message.timestamp_type, first_offset));
        messages.push(message.offset, message.timestamp, message.key, message.value);
    })?;
    if let Some(messages) = messages {
        messages.finish(out);
    }
    Ok(())
}

/// The messages that one batch becomes.
struct Messages {
    magic: OldMagic,
    codec: Codec,
    timestamp_type: TimestampType,
    first_offset: Offset,
    /// Offset of the first message, from which those inside a wrapper of magic 1 count.
    base_offset: Option<Offset>,
    last_offset: Offset,
    max_timestamp: i64,
    set: Vec<u8>,
}

impl Messages {
    fn new(magic: OldMagic, codec: Codec, timestamp_type: TimestampType, first_offset: Offset) -> Messages {
        Messages {
            magic,
            codec,
            timestamp_type,
            first_offset,
            base_offset: None,
            last_offset: first_offset,
            max_timestamp: NO_TIMESTAMP,
            set: Vec::new(),
        }
    }

    fn push(&mut self, offset: Offset, timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>) {
        // Messages that are not in a wrapper are not bound together, and some versions of librdkafka rely on it.
        if self.codec == Codec::None && offset < self.first_offset {
            return;
        }
        let base_offset = *self.base_offset.get_or_insert(offset);
        self.last_offset = offset;
        self.max_timestamp = self.max_timestamp.max(timestamp);
        let is_relative = self.codec != Codec::None && self.magic == OldMagic::V1;
        let offset = if is_relative { offset.wrapping_sub(base_offset) } else { offset };
        let attributes = self.attributes(Codec::None);
        put_message(&mut self.set, self.magic, attributes, offset, timestamp, key, value);
    }

    fn attributes(&self, codec: Codec) -> u8 {
        let time_bit = match (self.magic, self.timestamp_type) {
            (OldMagic::V1, TimestampType::LogAppendTime) => LOG_APPEND_TIME_BIT,
            _ => 0,
        };
        codec.id() as u8 | time_bit
    }

    fn finish(self, out: &mut Vec<u8>) {
        let compressed = match (self.codec, self.magic) {
            _ if self.set.is_empty() => return,
            (Codec::None, _) => return out.extend_from_slice(&self.set),
            (Codec::Lz4, OldMagic::V0) => compress_lz4_of_magic_0(&self.set),
            (codec, _) => compress(codec, &self.set),
        };
        let attributes = self.attributes(self.codec);
        put_message(out, self.magic, attributes, self.last_offset, self.max_timestamp, None, Some(&compressed));
    }
}

fn put_message(
    out: &mut Vec<u8>,
    magic: OldMagic,
    attributes: u8,
    offset: Offset,
    timestamp: i64,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
) {
    let start = out.len();
    out.extend_from_slice(&offset.to_be_bytes());
    // Size and CRC, which are known at the end.
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&[magic as u8, attributes]);
    if magic == OldMagic::V1 {
        out.extend_from_slice(&timestamp.to_be_bytes());
    }
    for field in [key, value] {
        let length = field.map_or(-1, |bytes| bytes.len() as i32);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(field.unwrap_or_default());
    }
    let message = &mut out[start..];
    let size = (message.len() - LOG_OVERHEAD_BYTES) as i32;
    message[8..LOG_OVERHEAD_BYTES].copy_from_slice(&size.to_be_bytes());
    let crc = crc32fast::hash(&message[MAGIC_POSITION..]);
    message[MESSAGE_CRC_POSITION..MAGIC_POSITION].copy_from_slice(&crc.to_be_bytes());
}

/// Converts arbitrary bytes; must neither panic nor stand still.
pub fn fuzz_down_convert(stored: &[u8]) {
    for magic in [OldMagic::V0, OldMagic::V1] {
        let _ = down_convert(stored, magic, 0);
    }
}

#[cfg(test)]
mod tests;
