//! Message sets of magic 0 and 1: what Produce v0 to v2 carries, made into one v2 batch, and what a Kafka before 3.0
//! stored.
//!
//! ```text
//!  0 offset i64 | 8 message size i32 | 12 crc u32 (CRC-32 of all that follows) | 16 magic i8 | 17 attributes i8
//! 18 timestamp i64 (magic 1 only) | key length i32, key | value length i32, value      (-1: null)
//! ```
//! A compressed message's value is a message set of messages that are not compressed. Inner offsets are read only to
//! refuse what Kafka refuses: the leader numbers the records anew (Kafka 3.9 `LogValidator`,
//! `AbstractLegacyRecordBatch.DeepRecordsIterator`).

#![forbid(unsafe_code)]

use bytes::{Bytes, BytesMut};

use crate::record::batch::{BatchBuilder, MAGIC_POSITION, MAGIC_V2, NO_TIMESTAMP, Record, TimestampType};
use crate::record::compression::{Codec, CompressionError, decompress, decompress_lz4_of_magic_0};

const LOG_OVERHEAD_BYTES: usize = 12;
const CRC_BYTES: usize = 4;
/// The shortest message of magic 0, without offset and size.
const MESSAGE_BYTES_MIN: usize = 14;
const CODEC_MASK: u8 = 0x07;
const LOG_APPEND_TIME_BIT: u8 = 0x08;

#[derive(Debug, thiserror::Error)]
pub enum MessageSetError {
    /// CORRUPT_MESSAGE.
    #[error("{0}")]
    Corrupt(&'static str),
    /// INVALID_RECORD.
    #[error("{0}")]
    Invalid(&'static str),
    /// UNSUPPORTED_COMPRESSION_TYPE: zstd is not allowed before magic 2.
    #[error("zstd needs magic 2")]
    Zstd,
    /// INVALID_TIMESTAMP.
    #[error("{0}")]
    Timestamp(&'static str),
    /// MESSAGE_TOO_LARGE.
    #[error("message of {message_bytes} bytes is over max.message.bytes {message_bytes_max}")]
    TooLarge { message_bytes: usize, message_bytes_max: usize },
    /// INVALID_RECORD: more than this broker is willing to decompress.
    #[error("decompressed message set is longer than {0} bytes")]
    TooLong(usize),
}

/// One message where it lies.
#[derive(Clone, Copy)]
pub(super) struct Message<'a> {
    pub offset: i64,
    checksum: u32,
    magic: i8,
    codec: Codec,
    pub timestamp: i64,
    pub timestamp_type: TimestampType,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
}

/// What a topic asks of a message set.
#[derive(Clone, Copy, Debug)]
pub struct SetRules {
    /// `max.message.bytes`, of each message; a compressed one counts as it came.
    pub message_bytes_max: usize,
    /// Bounds what a compressed message becomes.
    pub decompressed_bytes_max: usize,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
}

/// The codec of a message set, as its first message says it; `None` if that can't be read.
pub fn codec_of_set(message_set: &[u8]) -> Option<Codec> {
    Codec::from_id(i16::from(message_set.get(MAGIC_POSITION + 1)? & CODEC_MASK))
}

/// Converts a whole message set into one uncompressed batch with base offset 0, to be validated like any other; also
/// gives the codec that the set had. `None`: there is no whole message in it.
///
/// A message of magic 0 gets timestamp -1, as Kafka up-converts. A last message that is cut short is left out, as in
/// Kafka.
pub fn convert_to_v2(message_set: &[u8], rules: &SetRules) -> Result<Option<(BytesMut, Codec)>, MessageSetError> {
    let mut rest = message_set;
    let Some(first) = take_sized(&mut rest, rules)? else { return Ok(None) };
    match first.codec {
        Codec::None => convert_plain(first, rest, rules),
        _ => convert_wrapper(first, rest, rules),
    }
    .map(Some)
}

/// Like [`take_message`], of a message that is not inside another.
fn take_sized<'a>(bytes: &mut &'a [u8], rules: &SetRules) -> Result<Option<Message<'a>>, MessageSetError> {
    let before = bytes.len();
    let message = take_message(bytes)?;
    let (message_bytes, message_bytes_max) = (before - bytes.len(), rules.message_bytes_max);
    match message_bytes > message_bytes_max {
        true => Err(MessageSetError::TooLarge { message_bytes, message_bytes_max }),
        false => Ok(message),
    }
}

fn convert_plain(first: Message<'_>, mut rest: &[u8], rules: &SetRules) -> Result<(BytesMut, Codec), MessageSetError> {
    let magic = first.magic;
    let mut builder = BatchBuilder::new(Codec::None);
    push(&mut builder, &first, rules)?;
    while let Some(message) = take_sized(&mut rest, rules)? {
        if message.magic != magic {
            return Err(MessageSetError::Invalid("the messages of a set differ in magic"));
        }
        if message.codec != Codec::None {
            return Err(MessageSetError::Invalid("a compressed message must be alone in its set"));
        }
        push(&mut builder, &message, rules)?;
    }
    Ok((builder.build(), Codec::None))
}

fn convert_wrapper(
    wrapper: Message<'_>,
    mut rest: &[u8],
    rules: &SetRules,
) -> Result<(BytesMut, Codec), MessageSetError> {
    if take_sized(&mut rest, rules)?.is_some() {
        return Err(MessageSetError::Invalid("a compressed message must be alone in its set"));
    }
    let inner = decompress_wrapper(&wrapper, rules.decompressed_bytes_max)?;
    let mut rest = &inner[..];
    let mut builder = BatchBuilder::new(Codec::None);
    let mut last_inner_offset = None;
    while let Some(mut message) = take_message(&mut rest)? {
        if message.codec != Codec::None {
            return Err(MessageSetError::Invalid("inner messages must not be compressed"));
        }
        if message.magic != wrapper.magic {
            return Err(MessageSetError::Invalid("an inner message's magic is not its wrapper's"));
        }
        if wrapper.timestamp_type == TimestampType::LogAppendTime {
            message.timestamp = wrapper.timestamp;
        }
        message.timestamp_type = wrapper.timestamp_type;
        last_inner_offset = Some(message.offset);
        push(&mut builder, &message, rules)?;
    }
    let last_inner_offset =
        last_inner_offset.ok_or(MessageSetError::Invalid("a compressed message without inner messages"))?;
    // Some librdkafka versions leave the wrapper's offset 0, and Kafka lets them.
    if wrapper.magic == 1 && wrapper.offset != 0 && wrapper.offset < last_inner_offset {
        return Err(MessageSetError::Invalid("a wrapper's offset is below that of its last inner message"));
    }
    Ok((builder.build(), wrapper.codec))
}

/// Adds one message. A producer's LogAppendTime is taken for what it says where the topic has CreateTime, and refused
/// where the broker is to say it (Kafka 3.9 `LogValidator.validateTimestamp`).
fn push(builder: &mut BatchBuilder, message: &Message<'_>, rules: &SetRules) -> Result<(), MessageSetError> {
    let stands = rules.timestamp_type == TimestampType::CreateTime && message.timestamp != NO_TIMESTAMP;
    if message.timestamp_type == TimestampType::LogAppendTime && !stands {
        return Err(MessageSetError::Timestamp("a producer should not set the timestamp type to LogAppendTime"));
    }
    if message.timestamp < NO_TIMESTAMP {
        return Err(MessageSetError::Timestamp("a message's timestamp is negative"));
    }
    builder.push(message.timestamp, message.key, message.value, &[]);
    Ok(())
}

/// Shows a stored message to `visit`, or those inside it if it is a wrapper, at their own offsets, with its codec.
/// `limit` bounds the decompressed bytes (Kafka 3.9 `AbstractLegacyRecordBatch.DeepRecordsIterator`).
pub(super) fn for_each_message(
    stored: &[u8],
    limit: usize,
    mut visit: impl FnMut(Codec, Message<'_>),
) -> Result<(), MessageSetError> {
    let mut rest = stored;
    let Some(message) = take_message(&mut rest)? else { return Ok(()) };
    if message.codec == Codec::None {
        visit(Codec::None, message);
        return Ok(());
    }
    let inner = decompress_wrapper(&message, limit)?;
    let mut last_inner_offset = None;
    let mut rest = &inner[..];
    while let Some(inner) = take_message(&mut rest)? {
        last_inner_offset = Some(inner.offset);
    }
    // Magic 1 counts from the first message inside, and the wrapper has the offset of the last one.
    let base_offset = match (message.magic, last_inner_offset) {
        (1, Some(last)) => message.offset.wrapping_sub(last),
        _ => 0,
    };
    let mut rest = &inner[..];
    while let Some(mut inner) = take_message(&mut rest)? {
        inner.offset = inner.offset.wrapping_add(base_offset);
        if message.timestamp_type == TimestampType::LogAppendTime {
            inner.timestamp = message.timestamp;
            inner.timestamp_type = TimestampType::LogAppendTime;
        }
        visit(message.codec, inner);
    }
    Ok(())
}

/// The first record at or past `offset` that is not earlier than `timestamp`, of a stored message: its offset and time.
pub fn find_by_time(
    stored: &[u8],
    offset: i64,
    timestamp: i64,
    limit: usize,
) -> Result<Option<(i64, i64)>, MessageSetError> {
    let mut found = None;
    for_each_message(stored, limit, |_, message| {
        if found.is_none() && message.timestamp >= timestamp && message.offset >= offset {
            found = Some((message.offset, message.timestamp));
        }
    })?;
    Ok(found)
}

fn decompress_wrapper(wrapper: &Message<'_>, limit: usize) -> Result<Vec<u8>, MessageSetError> {
    let value = wrapper.value.ok_or(MessageSetError::Invalid("a compressed message without a value"))?;
    match (wrapper.codec, wrapper.magic) {
        (Codec::Lz4, 0) => decompress_lz4_of_magic_0(value, limit),
        (codec, _) => decompress(codec, value, limit),
    }
    .map_err(|error| match error {
        CompressionError::TooLong { limit } => MessageSetError::TooLong(limit),
        CompressionError::Damaged { .. } => MessageSetError::Corrupt("compressed data is damaged"),
    })
}

/// A message of a log, and what is in it.
#[derive(Debug)]
pub struct LegacyBatch {
    pub codec: Codec,
    pub timestamp_type: TimestampType,
    /// With their offsets in the log.
    pub records: Vec<Record>,
    /// The checksum of each record's own message.
    pub checksums: Vec<u32>,
}

/// Decodes one message as it stands in a log: a plain one, or a compressed set of them.
pub fn decode_legacy(mut message: &[u8], limit: usize) -> Result<LegacyBatch, MessageSetError> {
    let wrapper = take_message(&mut message)?.ok_or(MessageSetError::Corrupt("a message is cut short"))?;
    let (codec, timestamp_type) = (wrapper.codec, wrapper.timestamp_type);
    if codec == Codec::None {
        let (records, checksums) = (vec![wrapper.to_record(wrapper.offset)], vec![wrapper.checksum]);
        return Ok(LegacyBatch { codec, timestamp_type, records, checksums });
    }
    let inner = decompress_wrapper(&wrapper, limit)?;
    let (mut rest, mut records, mut checksums) = (&inner[..], Vec::new(), Vec::new());
    while let Some(mut message) = take_message(&mut rest)? {
        checksums.push(message.checksum);
        if timestamp_type == TimestampType::LogAppendTime {
            message.timestamp = wrapper.timestamp;
        }
        records.push(message.to_record(message.offset));
    }
    let last_inner_offset =
        records.last().ok_or(MessageSetError::Invalid("a compressed message without inner messages"))?.offset;
    if wrapper.magic == 1 {
        // Inner offsets count from the first; the wrapper's is that of the last.
        records.iter_mut().for_each(|record| {
            record.offset = wrapper.offset.wrapping_sub(last_inner_offset).wrapping_add(record.offset);
        });
    }
    match records.is_sorted_by(|one, next| one.offset < next.offset) && records[0].offset >= 0 {
        true => Ok(LegacyBatch { codec, timestamp_type, records, checksums }),
        false => Err(MessageSetError::Invalid("the offsets of inner messages do not ascend")),
    }
}

impl Message<'_> {
    fn to_record(self, offset: i64) -> Record {
        let own = Bytes::copy_from_slice;
        let Message { timestamp, key, value, .. } = self;
        Record { offset, timestamp, key: key.map(own), value: value.map(own), headers: Vec::new() }
    }
}

/// The message at the front, its CRC checked; `None` at the end, or if the last one is cut short.
fn take_message<'a>(bytes: &mut &'a [u8]) -> Result<Option<Message<'a>>, MessageSetError> {
    let Some((head, after)) = bytes.split_at_checked(LOG_OVERHEAD_BYTES) else { return Ok(None) };
    let offset = i64::from_be_bytes(chunk(head, 0)?);
    let size = i32::from_be_bytes(chunk(head, 8)?);
    let size = usize::try_from(size).unwrap_or(0);
    if size < MESSAGE_BYTES_MIN {
        return Err(MessageSetError::Corrupt("a message is shorter than its own fields"));
    }
    let Some((message, rest)) = after.split_at_checked(size) else { return Ok(None) };
    *bytes = rest;

    let crc = u32::from_be_bytes(chunk(message, 0)?);
    let magic = message[MAGIC_POSITION - LOG_OVERHEAD_BYTES] as i8;
    match magic {
        0 | 1 => {}
        MAGIC_V2 => return Err(MessageSetError::Invalid("a record batch among messages")),
        _ => return Err(MessageSetError::Corrupt("a message's magic is unknown")),
    }
    if crc32fast::hash(&message[CRC_BYTES..]) != crc {
        return Err(MessageSetError::Corrupt("a message's CRC is wrong"));
    }
    let attributes = message[CRC_BYTES + 1];
    let (timestamp, timestamp_type, mut body) = match magic {
        0 => (NO_TIMESTAMP, TimestampType::CreateTime, &message[6..]),
        _ if attributes & LOG_APPEND_TIME_BIT == 0 => {
            (i64::from_be_bytes(chunk(message, 6)?), TimestampType::CreateTime, &message[14..])
        }
        _ => (i64::from_be_bytes(chunk(message, 6)?), TimestampType::LogAppendTime, &message[14..]),
    };
    let codec = match Codec::from_id(i16::from(attributes & CODEC_MASK)) {
        Some(Codec::Zstd) => return Err(MessageSetError::Zstd),
        Some(codec) => codec,
        None => return Err(MessageSetError::Invalid("a message's codec is unknown")),
    };
    let key = take_bytes(&mut body)?;
    let value = take_bytes(&mut body)?;
    if !body.is_empty() {
        return Err(MessageSetError::Corrupt("a message is longer than its fields"));
    }
    Ok(Some(Message { offset, checksum: crc, magic, codec, timestamp, timestamp_type, key, value }))
}

fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>, MessageSetError> {
    let length = i32::from_be_bytes(chunk(bytes, 0)?);
    *bytes = &bytes[4..];
    let Ok(length) = usize::try_from(length) else { return Ok(None) };
    let (taken, rest) =
        bytes.split_at_checked(length).ok_or(MessageSetError::Corrupt("a message's field is cut short"))?;
    *bytes = rest;
    Ok(Some(taken))
}

fn chunk<const N: usize>(bytes: &[u8], position: usize) -> Result<[u8; N], MessageSetError> {
    let taken = bytes.get(position..).and_then(|tail| tail.first_chunk::<N>());
    taken.copied().ok_or(MessageSetError::Corrupt("a message's field is cut short"))
}

/// Converts arbitrary bytes; must neither panic nor pass its limit.
pub fn fuzz_convert_to_v2(bytes: &[u8]) {
    let _ = decode_legacy(bytes, 1 << 16);
    let rules = SetRules {
        message_bytes_max: 1 << 16,
        decompressed_bytes_max: 1 << 16,
        timestamp_type: TimestampType::CreateTime,
    };
    if let Ok(Some((batch, _))) = convert_to_v2(bytes, &rules) {
        assert!(crate::record::batch::has_valid_crc(&batch));
    }
}

#[cfg(test)]
mod tests;
