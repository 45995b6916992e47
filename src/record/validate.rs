//! What the leader checks in a produced batch before it is appended (Kafka 3.9 `ProduceRequest.validateRecords`,
//! `UnifiedLog.analyzeAndValidateRecords`, `LogValidator`).
//!
//! Uncompressed records are walked as Kafka does. Compressed ones are decompressed only where an answer depends on them:
//! a compacted topic, a bound on timestamps, or `--validate=full`; this is a difference on purpose, since it saves the
//! larger part of a compressed produce's CPU.

#![forbid(unsafe_code)]

use crate::base::time::WallMs;
use crate::record::batch::{
    BatchError, BatchHeader, NO_TIMESTAMP, TimestampType, has_valid_crc, records_body, set_max_timestamp, walk_records,
};
use crate::record::compression::Codec;
use crate::record::records::RecordView;

/// Refused records that one answer names at most; the rest of the batch is refused with them anyway.
pub const RECORD_ERRORS_MAX: usize = 100;

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
    pub now: WallMs,
    /// Walk compressed records even where no answer depends on it (`--validate=full`).
    pub validate_full: bool,
    /// zstd is allowed (Produce v7 on).
    pub zstd_allowed: bool,
    /// Bytes that a compressed batch may have when decompressed.
    pub decompressed_bytes_max: usize,
}

impl ProduceRules {
    fn bounds_timestamps(&self) -> bool {
        self.timestamp_type == TimestampType::CreateTime
            && (self.timestamp_before_max_ms, self.timestamp_after_max_ms) != (i64::MAX, i64::MAX)
    }

    fn walks_compressed(&self) -> bool {
        self.compacted || self.validate_full || self.bounds_timestamps()
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
    /// INVALID_RECORD.
    #[error("{message}")]
    InvalidRecord { message: String, record_errors: Vec<RefusedRecord> },
    /// INVALID_TIMESTAMP.
    #[error("{message}")]
    InvalidTimestamp { message: String, record_errors: Vec<RefusedRecord> },
    /// UNSUPPORTED_COMPRESSION_TYPE.
    #[error("zstd needs Produce v7")]
    UnsupportedCompression,
}

impl From<BatchError> for InvalidBatch {
    /// For errors of the records, once the CRC has shown that they are what the producer sent.
    fn from(error: BatchError) -> InvalidBatch {
        invalid(error.to_string())
    }
}

fn invalid(message: impl Into<String>) -> InvalidBatch {
    InvalidBatch::InvalidRecord { message: message.into(), record_errors: Vec::new() }
}

/// Checks the records of one partition of a Produce v3+ request, which are exactly one batch, and returns its header.
///
/// With CreateTime the max timestamp of walked records is recomputed; if the producer's was wrong, it and the CRC are
/// rewritten in place. Nothing else is touched: offsets and LogAppendTime are the log's to write.
pub fn validate_produce(batch: &mut [u8], rules: &ProduceRules) -> Result<BatchHeader, InvalidBatch> {
    let mut header = parse_only_batch(batch)?;
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
    check_header(&header, rules)?;

    if codec == Codec::None || rules.walks_compressed() {
        let body = records_body(&header, batch, rules.decompressed_bytes_max)?;
        let max_timestamp = check_records(&header, &body, rules)?;
        if rules.timestamp_type == TimestampType::CreateTime && max_timestamp != header.max_timestamp {
            set_max_timestamp(batch, max_timestamp);
            header = BatchHeader::parse(batch)?;
        }
    }
    Ok(header)
}

/// The header of the one batch that the bytes must be.
fn parse_only_batch(batch: &[u8]) -> Result<BatchHeader, InvalidBatch> {
    let header = BatchHeader::parse(batch).map_err(|error| match error {
        BatchError::Length(_) => InvalidBatch::Corrupt("the batch's length is below that of its header"),
        BatchError::Magic(magic) => {
            invalid(format!("Produce v3 and later must carry record batches of magic 2, not {magic}"))
        }
        error => invalid(error.to_string()),
    })?;
    match header.batch_bytes().cmp(&batch.len()) {
        std::cmp::Ordering::Equal => Ok(header),
        std::cmp::Ordering::Greater => Err(invalid("the batch is cut short")),
        std::cmp::Ordering::Less => Err(invalid("a Produce v3 or later must carry exactly one batch per partition")),
    }
}

/// Kafka 3.9 `LogValidator.validateBatch`.
fn check_header(header: &BatchHeader, rules: &ProduceRules) -> Result<(), InvalidBatch> {
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
    if rules.timestamp_type == TimestampType::CreateTime && header.timestamp_type() == TimestampType::LogAppendTime {
        return Err(InvalidBatch::InvalidTimestamp {
            message: "a producer should not set the timestamp type to LogAppendTime".into(),
            record_errors: Vec::new(),
        });
    }
    Ok(())
}

/// Walks the records; returns their largest timestamp.
fn check_records(header: &BatchHeader, body: &[u8], rules: &ProduceRules) -> Result<i64, InvalidBatch> {
    let mut walk =
        Walk { rules, next_index: 0, max_timestamp: NO_TIMESTAMP, keyless: Vec::new(), untimely: Vec::new() };
    walk_records(header, body, |record| walk.check(header, &record))?;
    // Kafka answers with the code of the first refused record.
    let first = |errors: &[RefusedRecord]| errors.first().map_or(i32::MAX, |error| error.batch_index);
    if first(&walk.keyless) < first(&walk.untimely) {
        let message = "one or more records have been rejected: a compacted topic needs keys".into();
        return Err(InvalidBatch::InvalidRecord { message, record_errors: walk.keyless });
    }
    if !walk.untimely.is_empty() {
        let message = "one or more records have been rejected due to an invalid timestamp".into();
        return Err(InvalidBatch::InvalidTimestamp { message, record_errors: walk.untimely });
    }
    Ok(walk.max_timestamp)
}

struct Walk<'r> {
    rules: &'r ProduceRules,
    next_index: i32,
    max_timestamp: i64,
    keyless: Vec<RefusedRecord>,
    untimely: Vec<RefusedRecord>,
}

impl Walk<'_> {
    fn check(&mut self, header: &BatchHeader, record: &RecordView<'_>) -> Result<(), InvalidBatch> {
        let batch_index = self.next_index;
        if record.offset_delta != batch_index {
            return Err(invalid(format!("record {batch_index} has offset delta {}", record.offset_delta)));
        }
        self.next_index += 1;
        let timestamp = header.record_timestamp(record.timestamp_delta);
        self.max_timestamp = self.max_timestamp.max(timestamp);
        if self.rules.compacted && record.key.is_none() {
            let message = "a compacted topic cannot accept a message without key".into();
            refuse(&mut self.keyless, RefusedRecord { batch_index, message });
        } else if self.rules.bounds_timestamps() && !self.is_timely(timestamp) {
            let message =
                format!("timestamp {timestamp} is out of the range the topic allows around {}", self.rules.now);
            refuse(&mut self.untimely, RefusedRecord { batch_index, message });
        }
        Ok(())
    }

    /// A record without a timestamp passes, as in Kafka.
    fn is_timely(&self, timestamp: i64) -> bool {
        let early = self.rules.now.saturating_sub(timestamp) > self.rules.timestamp_before_max_ms;
        let late = timestamp.saturating_sub(self.rules.now) > self.rules.timestamp_after_max_ms;
        timestamp == NO_TIMESTAMP || !(early || late)
    }
}

fn refuse(refused: &mut Vec<RefusedRecord>, record: RefusedRecord) {
    if refused.len() < RECORD_ERRORS_MAX {
        refused.push(record);
    }
}

/// Validates arbitrary bytes under the strictest rules; must neither panic nor accept a batch whose CRC is wrong.
pub fn fuzz_validate_produce(bytes: &mut [u8]) {
    let rules = ProduceRules {
        max_message_bytes: 1 << 20,
        compacted: true,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: 1 << 40,
        timestamp_after_max_ms: 1 << 40,
        now: 0,
        validate_full: true,
        zstd_allowed: true,
        decompressed_bytes_max: 1 << 20,
    };
    if validate_produce(bytes, &rules).is_ok() {
        assert!(has_valid_crc(bytes));
    }
}

#[cfg(test)]
mod tests;
