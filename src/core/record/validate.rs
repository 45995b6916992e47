//! What the leader checks in a produced batch before it is appended (Kafka 3.9 `ProduceRequest.validateRecords`,
//! `UnifiedLog.analyzeAndValidateRecords`, `LogValidator`), and what it makes of it.
//!
//! ```text
//!  check_produce   header, CRC, and uncompressed records; compressed ones as far as they stay small: on the shard
//!    | Done         may be appended
//!    | Away         finish_produce on a work thread: larger compressed records, and every change of codec
//! ```
//! Uncompressed records are walked as Kafka does. Compressed ones are decompressed only where an answer depends on them,
//! a compacted topic, a bound on timestamps, another codec, or `--validate=full`, and where the header says what an
//! honest one would not; this is a difference on purpose, since it saves the larger part of a compressed produce's CPU.
//!
//! What of a header the broker itself acts on is plausible without decompression, or the records are looked into and
//! the header is corrected or refused as Kafka does; what stays trusted harms only its own reader.
//!
//! | of a compressed batch | what the broker does by it | plausible |
//! |---|---|---|
//! | record count, last offset delta | moves the log end, rolls | they agree; at most [`RECORDS_PER_BYTE_MAX`] per compressed byte |
//! | max timestamp | retention, rolls, time index, look-ups by time, compaction lags | not before the base timestamp, around now ([`ProduceRules::is_timely_header`]); with LogAppendTime it is the broker's own |
//! | codec, control, transactional, sequence | which batch it is | always checked ([`check_header`]) |
//! | LogAppendTime | the timestamps' type | never a producer's: looked into |
//! | delete horizon | when tombstones go, which stands in the base timestamp's place | kept, as Kafka 3.9 keeps it: it is for the batch's own tombstones |

#![forbid(unsafe_code)]

use bytes::BytesMut;

use crate::base::time::WallMs;
use crate::record::batch::{
    BATCH_HEADER_BYTES, BatchError, BatchHeader, LOG_OVERHEAD_BYTES, MAGIC_POSITION, MAGIC_V2, NO_TIMESTAMP,
    TimestampType, has_valid_crc, records_body, set_create_time, walk_records,
};
use crate::record::compression::{Codec, Compression, CompressionError};
use crate::record::message_set::{MessageSetError, SetRules, codec_of_set, convert_to_v2};
use crate::record::records::RecordView;
use crate::record::repack::{RepackError, repack};

/// Refused records that one answer names at most; the rest of the batch is refused with them anyway.
pub const RECORD_ERRORS_MAX: usize = 100;

/// Records that a byte of a compressed batch is taken to hold without a look. A record has seven bytes at least, and an
/// offset that no other has: honest batches hardly come near, and one that did would be looked into and found right.
const RECORDS_PER_BYTE_MAX: usize = 1;
/// How far a producer's clock may be ahead of the broker's without a look.
const AHEAD_MS_MAX: i64 = 60 * 60 * 1000;
/// How old a batch may be without a look, however long the topic keeps its records: `retention.ms` may change.
const BEHIND_MS_MAX: i64 = 24 * 60 * 60 * 1000;

/// What the topic asks of a batch.
#[derive(Clone, Debug)]
pub struct ProduceRules {
    /// `max.message.bytes`.
    pub max_message_bytes: usize,
    /// `cleanup.policy` contains `compact`: keys must not be null.
    pub compacted: bool,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`; `i64::MAX` is no limit.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`; `i64::MAX` is no limit.
    pub timestamp_after_max_ms: i64,
    /// `retention.ms`; negative: for ever.
    pub retention_ms: i64,
    pub now: WallMs,
    /// Walk compressed records even where no answer depends on it (`--validate=full`).
    pub validate_full: bool,
    /// zstd is allowed (Produce v7 on).
    pub zstd_allowed: bool,
    /// Bytes that a compressed batch may have when decompressed.
    pub decompressed_bytes_max: usize,
    /// `compression.type` with its level; `None`: the producer's codec stays.
    pub target: Option<Compression>,
}

impl ProduceRules {
    fn bounds_timestamps(&self) -> bool {
        self.timestamp_type == TimestampType::CreateTime
            && (self.timestamp_before_max_ms, self.timestamp_after_max_ms) != (i64::MAX, i64::MAX)
    }

    /// A producer's LogAppendTime is refused, or becomes CreateTime, by its records: no client sends it.
    fn walks_compressed(&self, header: &BatchHeader) -> bool {
        self.compacted
            || self.validate_full
            || self.bounds_timestamps()
            || header.timestamp_type() == TimestampType::LogAppendTime
            || !self.is_plausible(header)
    }

    fn is_plausible(&self, header: &BatchHeader) -> bool {
        let records_max = (header.batch_bytes() - BATCH_HEADER_BYTES).saturating_mul(RECORDS_PER_BYTE_MAX);
        let has_room = usize::try_from(header.record_count).is_ok_and(|count| count <= records_max);
        has_room && (self.timestamp_type == TimestampType::LogAppendTime || self.is_timely_header(header))
    }

    /// Neither before the records' first time, nor ahead of now, nor so old that retention would soon take it. What an
    /// honest producer has to say about other times, from a backlog, is looked into.
    fn is_timely_header(&self, header: &BatchHeader) -> bool {
        let behind_max = if self.retention_ms < 0 { BEHIND_MS_MAX } else { self.retention_ms.min(BEHIND_MS_MAX) };
        let earliest = header.base_timestamp.max(self.now.saturating_sub(behind_max)).max(0);
        (earliest..=self.now.saturating_add(AHEAD_MS_MAX)).contains(&header.max_timestamp)
    }

    fn target_of(&self, source: Codec) -> Compression {
        self.target.unwrap_or_else(|| Compression::of(source))
    }
}

/// One record that was refused: `record_errors` of the Produce response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRecord {
    /// Index of the record in its batch.
    pub batch_index: i32,
    pub message: String,
}

/// Why a produced batch is refused; each variant is one of Kafka's error codes.
#[derive(Debug, thiserror::Error)]
pub enum InvalidBatch {
    /// CORRUPT_MESSAGE.
    #[error("{0}")]
    Corrupt(&'static str),
    /// MESSAGE_TOO_LARGE.
    #[error("batch of {batch_bytes} bytes is over max.message.bytes {max_message_bytes}")]
    TooLarge { batch_bytes: usize, max_message_bytes: usize },
    /// MESSAGE_TOO_LARGE, in the codec and format that the topic wants.
    #[error("the batch is over max.message.bytes {max_message_bytes} in the topic's codec")]
    TooLargeInCodec { max_message_bytes: usize },
    /// INVALID_RECORD.
    #[error("{message}")]
    InvalidRecord { message: String, record_errors: Vec<RefusedRecord> },
    /// INVALID_TIMESTAMP.
    #[error("{message}")]
    InvalidTimestamp { message: String, record_errors: Vec<RefusedRecord> },
    /// UNSUPPORTED_COMPRESSION_TYPE.
    #[error("zstd needs Produce v7 or later")]
    UnsupportedCompression,
}

impl From<BatchError> for InvalidBatch {
    /// For errors of the records, once the CRC has shown that they are what the producer sent.
    fn from(error: BatchError) -> InvalidBatch {
        invalid(error.to_string())
    }
}

impl From<RepackError> for InvalidBatch {
    fn from(error: RepackError) -> InvalidBatch {
        match error {
            RepackError::Batch(error) => error.into(),
            RepackError::Timestamp { .. } => {
                InvalidBatch::InvalidTimestamp { message: error.to_string(), record_errors: Vec::new() }
            }
            RepackError::TooLarge(max_message_bytes) => InvalidBatch::TooLargeInCodec { max_message_bytes },
        }
    }
}

impl From<MessageSetError> for InvalidBatch {
    fn from(error: MessageSetError) -> InvalidBatch {
        match error {
            MessageSetError::Corrupt(reason) => InvalidBatch::Corrupt(reason),
            MessageSetError::Invalid(_) | MessageSetError::TooLong(_) => invalid(error.to_string()),
            MessageSetError::Zstd => InvalidBatch::UnsupportedCompression,
            MessageSetError::Timestamp(_) => {
                InvalidBatch::InvalidTimestamp { message: error.to_string(), record_errors: Vec::new() }
            }
            MessageSetError::TooLarge { message_bytes, message_bytes_max } => {
                InvalidBatch::TooLarge { batch_bytes: message_bytes, max_message_bytes: message_bytes_max }
            }
        }
    }
}

fn invalid(message: impl Into<String>) -> InvalidBatch {
    InvalidBatch::InvalidRecord { message: message.into(), record_errors: Vec::new() }
}

/// How far a batch is after [`check_produce`].
#[derive(Debug)]
pub enum Checked {
    /// It may be appended.
    Done(BatchHeader),
    /// [`finish_produce`] has the rest to do, on a work thread.
    Away,
}

/// Checks the records of one partition of a Produce v3+ request, which are exactly one batch, in place. Compressed
/// records are looked at here if they have at most `inline_bytes_max`, before and after decompression.
///
/// With CreateTime the max timestamp of walked records is recomputed; if the producer's was wrong, it and the CRC are
/// rewritten. Bytes behind the batch that are no whole one are cut off. Nothing else is touched: offsets and
/// LogAppendTime are the log's to write.
pub fn check_produce(
    batch: &mut BytesMut,
    rules: &ProduceRules,
    inline_bytes_max: usize,
) -> Result<Checked, InvalidBatch> {
    let header = parse_only_batch(batch)?;
    batch.truncate(header.batch_bytes());
    let codec = header.codec().ok_or_else(|| invalid("the batch's codec is unknown"))?;
    if codec == Codec::Zstd && !rules.zstd_allowed {
        return Err(InvalidBatch::UnsupportedCompression);
    }
    if header.base_offset != 0 {
        return Err(invalid(format!("base offset {} of a produced batch should be 0", header.base_offset)));
    }
    if batch.len() > rules.max_message_bytes {
        let max_message_bytes = rules.max_message_bytes;
        return Err(InvalidBatch::TooLarge { batch_bytes: batch.len(), max_message_bytes });
    }
    if !has_valid_crc(batch) {
        return Err(InvalidBatch::Corrupt("the batch's CRC is wrong"));
    }
    check_header(&header)?;

    if rules.target_of(codec).codec != codec {
        return Ok(Checked::Away);
    }
    let walked = match codec {
        Codec::None => check_records(&header, &batch[BATCH_HEADER_BYTES..], rules)?,
        _ if !rules.walks_compressed(&header) => return Ok(Checked::Done(header)),
        _ if batch.len() > inline_bytes_max => return Ok(Checked::Away),
        _ => match records_body(&header, batch, inline_bytes_max.min(rules.decompressed_bytes_max)) {
            Err(BatchError::Compression(CompressionError::TooLong { .. })) => return Ok(Checked::Away),
            body => check_records(&header, &body?, rules)?,
        },
    };
    match (codec, walked.offsets_right) {
        (_, true) => amend(batch, header, &walked, rules).map(Checked::Done),
        (Codec::None, false) => Err(walked.wrong_offsets()),
        (_, false) => Ok(Checked::Away),
    }
}

/// The rest of the checks for a batch that [`check_produce`] has seen, and the batch as it is to be appended: in the
/// topic's codec, and with offset deltas that count from 0 (Kafka 3.9 rebuilds compressed batches for either).
pub fn finish_produce(mut batch: BytesMut, rules: &ProduceRules) -> Result<(BytesMut, BatchHeader), InvalidBatch> {
    let header = BatchHeader::parse(&batch)?;
    let source = header.codec().ok_or_else(|| invalid("the batch's codec is unknown"))?;
    let target = rules.target_of(source);
    let body = records_body(&header, &batch, rules.decompressed_bytes_max)?;
    let walked = check_records(&header, &body, rules)?;
    if target.codec != source || !walked.offsets_right {
        return pack(&header, &body, target, rules);
    }
    drop(body);
    let header = amend(&mut batch, header, &walked, rules)?;
    Ok((batch, header))
}

/// Whether a message set of Produce v0 to v2 is small and plain enough for [`convert_message_set`] on the shard.
pub fn is_light(message_set: &[u8], rules: &ProduceRules, inline_bytes_max: usize) -> bool {
    message_set.len() <= inline_bytes_max
        && codec_of_set(message_set).is_none_or(|codec| codec == Codec::None)
        && rules.target_of(Codec::None).codec == Codec::None
}

/// A message set of magic 0 or 1 as the one batch that is to be appended, checked like any other; `None` if there is no
/// whole message in it.
pub fn convert_message_set(
    message_set: &[u8],
    rules: &ProduceRules,
) -> Result<Option<(BytesMut, BatchHeader)>, InvalidBatch> {
    let set_rules = SetRules {
        message_bytes_max: rules.max_message_bytes,
        decompressed_bytes_max: rules.decompressed_bytes_max,
        timestamp_type: rules.timestamp_type,
    };
    let Some((batch, source)) = convert_to_v2(message_set, &set_rules)? else { return Ok(None) };
    let header = BatchHeader::parse(&batch)?;
    check_records(&header, &batch[BATCH_HEADER_BYTES..], rules)?;
    match rules.target_of(source) {
        Compression { codec: Codec::None, .. } if batch.len() > rules.max_message_bytes => {
            Err(InvalidBatch::TooLargeInCodec { max_message_bytes: rules.max_message_bytes })
        }
        Compression { codec: Codec::None, .. } => Ok(Some((batch, header))),
        target => pack(&header, &batch[BATCH_HEADER_BYTES..], target, rules).map(Some),
    }
}

fn pack(
    header: &BatchHeader,
    body: &[u8],
    target: Compression,
    rules: &ProduceRules,
) -> Result<(BytesMut, BatchHeader), InvalidBatch> {
    let packed = repack(&[(*header, body)], target, rules.max_message_bytes)?;
    let header = BatchHeader::parse(&packed)?;
    Ok((packed, header))
}

/// Corrects what the walk has shown to be wrong in the header: the max timestamp, and a timestamp type that is not the
/// producer's to say.
fn amend(
    batch: &mut [u8],
    header: BatchHeader,
    walked: &Walked,
    rules: &ProduceRules,
) -> Result<BatchHeader, InvalidBatch> {
    let is_right = header.timestamp_type() == TimestampType::CreateTime && header.max_timestamp == walked.max_timestamp;
    if is_right || rules.timestamp_type == TimestampType::LogAppendTime {
        return Ok(header);
    }
    set_create_time(batch, walked.max_timestamp);
    Ok(BatchHeader::parse(batch)?)
}

/// The header of the one batch that the bytes must begin with (Kafka 3.9 `ByteBufferLogInputStream`).
fn parse_only_batch(batch: &[u8]) -> Result<BatchHeader, InvalidBatch> {
    let taken = take_batch(batch)?;
    let Some(batch_bytes) = taken else { return Err(invalid("a Produce v3 or later must carry a record batch")) };
    let magic = batch[MAGIC_POSITION] as i8;
    if magic != MAGIC_V2 {
        return Err(invalid(format!("Produce v3 and later must carry record batches of magic 2, not {magic}")));
    }
    let header = BatchHeader::parse(batch).map_err(|error| match error {
        BatchError::Truncated | BatchError::Length(_) => {
            InvalidBatch::Corrupt("the batch's length is below that of its header")
        }
        error => error.into(),
    })?;
    match take_batch(&batch[batch_bytes..])? {
        None => Ok(header),
        Some(_) => Err(invalid("a Produce v3 or later must carry exactly one batch per partition")),
    }
}

/// Bytes of the whole batch of any magic at the front; `None` if there is none, or only a part of one.
fn take_batch(bytes: &[u8]) -> Result<Option<usize>, InvalidBatch> {
    /// What the shortest message of magic 0 has behind its length.
    const LENGTH_MIN: i32 = 14;
    let Some(length) = bytes.get(8..LOG_OVERHEAD_BYTES).and_then(|field| field.first_chunk::<4>()) else {
        return Ok(None);
    };
    let length = i32::from_be_bytes(*length);
    if length < LENGTH_MIN {
        return Err(InvalidBatch::Corrupt("the batch's length is below that of any"));
    }
    match bytes.get(MAGIC_POSITION) {
        None => return Ok(None),
        Some(0..=2) => {}
        Some(_) => return Err(InvalidBatch::Corrupt("the batch's magic is unknown")),
    }
    let batch_bytes = length as usize + LOG_OVERHEAD_BYTES;
    Ok((batch_bytes <= bytes.len()).then_some(batch_bytes))
}

/// Kafka 3.9 `LogValidator.validateBatch`.
fn check_header(header: &BatchHeader) -> Result<(), InvalidBatch> {
    let (delta, count) = (header.last_offset_delta, header.record_count);
    if delta < 0 || count <= 0 || i64::from(delta) + 1 != i64::from(count) {
        return Err(invalid(format!("last offset delta {delta} does not fit record count {count}")));
    }
    if header.is_control() {
        return Err(invalid("clients are not allowed to write control records"));
    }
    if header.has_producer_id() && header.base_sequence < 0 {
        let producer_id = header.producer_id;
        return Err(invalid(format!("sequence {} of producer id {producer_id} is invalid", header.base_sequence)));
    }
    Ok(())
}

/// What a walk over all records has shown.
struct Walked {
    max_timestamp: i64,
    /// The offset deltas count from 0.
    offsets_right: bool,
}

impl Walked {
    fn wrong_offsets(&self) -> InvalidBatch {
        invalid("the records' offset deltas do not count from 0")
    }
}

/// Walks the records of a batch (Kafka 3.9 `LogValidator.validateRecord`, `processRecordErrors`).
fn check_records(header: &BatchHeader, body: &[u8], rules: &ProduceRules) -> Result<Walked, InvalidBatch> {
    let mut walk = Walk {
        rules,
        next_index: 0,
        walked: Walked { max_timestamp: NO_TIMESTAMP, offsets_right: true },
        refused: Vec::new(),
        untimely: false,
    };
    walk_records::<BatchError>(header, body, |record| {
        walk.check(header, &record);
        Ok(())
    })?;
    let Walk { walked, refused: record_errors, untimely, .. } = walk;
    if untimely {
        let message = "one or more records have been rejected due to an invalid timestamp".into();
        return Err(InvalidBatch::InvalidTimestamp { message, record_errors });
    }
    if !record_errors.is_empty() {
        let message = "one or more records have been rejected: a compacted topic needs keys".into();
        return Err(InvalidBatch::InvalidRecord { message, record_errors });
    }
    Ok(walked)
}

struct Walk<'r> {
    rules: &'r ProduceRules,
    next_index: i32,
    walked: Walked,
    refused: Vec<RefusedRecord>,
    /// One of them at least for its timestamp, which then decides the error code.
    untimely: bool,
}

impl Walk<'_> {
    fn check(&mut self, header: &BatchHeader, record: &RecordView<'_>) {
        let batch_index = self.next_index;
        self.walked.offsets_right &= record.offset_delta == batch_index;
        self.next_index += 1;
        let timestamp = header.record_timestamp(record.timestamp_delta);
        self.walked.max_timestamp = self.walked.max_timestamp.max(timestamp);
        if self.rules.compacted && record.key.is_none() {
            let message = || "a compacted topic cannot accept a message without key".into();
            self.refuse(batch_index, message);
        } else if self.rules.timestamp_type == TimestampType::CreateTime && timestamp != NO_TIMESTAMP {
            if self.rules.bounds_timestamps() && !self.is_timely(timestamp) {
                let now = self.rules.now;
                let message =
                    move || format!("timestamp {timestamp} is out of the range the topic allows around {now}");
                self.untimely = true;
                self.refuse(batch_index, message);
            }
        } else if header.timestamp_type() == TimestampType::LogAppendTime {
            let message = || "a producer should not set the timestamp type to LogAppendTime".into();
            self.untimely = true;
            self.refuse(batch_index, message);
        }
    }

    fn is_timely(&self, timestamp: i64) -> bool {
        let early = self.rules.now.saturating_sub(timestamp) > self.rules.timestamp_before_max_ms;
        let late = timestamp.saturating_sub(self.rules.now) > self.rules.timestamp_after_max_ms;
        !(early || late)
    }

    fn refuse(&mut self, batch_index: i32, message: impl FnOnce() -> String) {
        if self.refused.len() < RECORD_ERRORS_MAX {
            self.refused.push(RefusedRecord { batch_index, message: message() });
        }
    }
}

/// Validates arbitrary bytes under the strictest rules, as a batch and as a message set; must neither panic nor pass a
/// batch whose CRC is wrong. What is written anew must pass by itself, and unchanged.
pub fn fuzz_validate_produce(bytes: &[u8], target: Option<Compression>) {
    const INLINE_BYTES_MAX: usize = 1 << 10;
    let rules = ProduceRules {
        max_message_bytes: 1 << 20,
        compacted: true,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: 1 << 40,
        timestamp_after_max_ms: 1 << 40,
        retention_ms: -1,
        now: 0,
        validate_full: true,
        zstd_allowed: true,
        decompressed_bytes_max: 1 << 20,
        target,
    };
    let validate = |mut batch: BytesMut| match check_produce(&mut batch, &rules, INLINE_BYTES_MAX) {
        Ok(Checked::Done(header)) => Some((batch, header)),
        Ok(Checked::Away) => finish_produce(batch, &rules).ok(),
        Err(_) => None,
    };
    let converted = convert_message_set(bytes, &rules).ok().flatten();
    for (batch, header) in validate(BytesMut::from(bytes)).into_iter().chain(converted) {
        assert!(has_valid_crc(&batch) && header.batch_bytes() == batch.len());
        assert_eq!(validate(batch.clone()), Some((batch, header)));
    }
}

#[cfg(test)]
mod tests;
