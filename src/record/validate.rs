//! What the leader checks in a produced batch before it is appended.

#![forbid(unsafe_code)]

use crate::base::time::WallMs;
use crate::record::batch::{BatchHeader, TimestampType};

/// What the topic asks of a batch.
#[derive(Clone, Debug)]
pub struct ProduceRules {
    /// `max.message.bytes`.
    pub max_message_bytes: usize,
    /// `cleanup.policy` contains `compact`: keys must not be null.
    pub compacted: bool,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`, `message.timestamp.after.max.ms`; `i64::MAX` is no limit.
    pub timestamp_before_max_ms: i64,
    pub timestamp_after_max_ms: i64,
    pub now: WallMs,
    /// Walk compressed records even where no answer depends on it (`--validate=full`).
    pub validate_full: bool,
    /// zstd is allowed (Produce v7 on).
    pub zstd_allowed: bool,
    /// Bytes that a compressed batch may have when decompressed.
    pub decompressed_bytes_max: usize,
}

/// One record that was refused: `record_errors` of the Produce response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordError {
    pub batch_index: i32,
    pub message: String,
}

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
    InvalidRecord { message: String, record_errors: Vec<RecordError> },
    /// INVALID_TIMESTAMP.
    #[error("{message}")]
    InvalidTimestamp { message: String, record_errors: Vec<RecordError> },
    /// UNSUPPORTED_COMPRESSION_TYPE.
    #[error("zstd needs Produce v7")]
    UnsupportedCompression,
    /// UNSUPPORTED_FOR_MESSAGE_FORMAT: magic below 2 in Produce v3 or later is INVALID_RECORD in Kafka; see the docs.
    #[error("magic {0}")]
    Magic(i8),
}

/// Checks the one batch of a Produce v3+ partition. A header whose max timestamp was wrong is corrected in place.
pub fn validate_produce(_batch: &mut [u8], _rules: &ProduceRules) -> Result<BatchHeader, InvalidBatch> {
    todo!()
}
