//! What one partition was sent, looked at before it is appended: on the shard where that is short, else by a work thread.

use bytes::BytesMut;

use crate::config::topic::TimestampType as ConfiguredTimestamp;
use crate::config::{TopicConfig, Validation};
use crate::handlers::errors;
use crate::local::Local;
use crate::metadata::image::TopicImage;
use crate::partition::gather::{self, target_compression};
use crate::platform::{Clock, Platform};
use crate::protocol::ErrorCode;
use crate::protocol::message::{BatchIndexAndErrorMessage, PartitionProduceResponse};
use crate::record::DECOMPRESSED_BYTES_MAX;
use crate::record::batch::{BatchHeader, MAGIC_POSITION, MAGIC_V2, TimestampType};
use crate::record::compression::Codec;
use crate::record::validate::{
    Checked, InvalidBatch, ProduceRules, check_produce, convert_message_set, finish_produce, is_light,
};

/// Compressed batches are looked into, and message sets converted, on the shard up to this; above it on a work thread.
const INLINE_BYTES_MAX: usize = 64 * 1024;

/// A v2 batch and what its header says.
pub type Batch = (BytesMut, BatchHeader);

/// What a work thread has made of records; `None`: an empty message set.
pub type Prepared = Result<Option<Batch>, InvalidBatch>;

/// How far one partition's records are.
pub enum LookedAt {
    /// A v2 batch that may be appended.
    Sound(Batch),
    Away(Preparation),
    /// An empty message set: nothing to append is no error (Kafka 3.9 `UnifiedLog.append`).
    Nothing,
}

/// What a work thread is to do for one partition.
pub enum Preparation {
    Finish(BytesMut, ProduceRules),
    Convert(BytesMut, ProduceRules),
}

impl Preparation {
    pub fn bytes(&self) -> usize {
        let (Preparation::Finish(batch, _) | Preparation::Convert(batch, _)) = self;
        batch.len()
    }

    pub fn run(self) -> Prepared {
        match self {
            Preparation::Finish(batch, rules) => finish_produce(batch, &rules).map(Some),
            Preparation::Convert(message_set, rules) => convert_message_set(&message_set, &rules),
        }
    }
}

/// Why one partition's records are refused.
pub struct Refusal {
    code: ErrorCode,
    message: Option<String>,
    records: Vec<BatchIndexAndErrorMessage>,
}

impl Refusal {
    pub fn code(code: ErrorCode) -> Refusal {
        Refusal { code, message: None, records: Vec::new() }
    }

    pub fn of(code: ErrorCode, message: impl ToString) -> Refusal {
        Refusal { code, message: Some(message.to_string()), records: Vec::new() }
    }

    pub fn describe(self, answer: &mut PartitionProduceResponse) {
        answer.error_code = self.code.code();
        answer.error_message = self.message;
        answer.record_errors = self.records;
    }
}

impl From<InvalidBatch> for Refusal {
    fn from(error: InvalidBatch) -> Refusal {
        let mut refusal = Refusal::of(errors::of_batch(&error), &error);
        if let InvalidBatch::InvalidRecord { record_errors, .. }
        | InvalidBatch::InvalidTimestamp { record_errors, .. } = error
        {
            let records = record_errors.into_iter().map(|record| BatchIndexAndErrorMessage {
                batch_index: record.batch_index,
                batch_index_error_message: Some(record.message),
            });
            refusal.records = records.collect();
        }
        refusal
    }
}

/// Why nothing may be produced to a topic at all. `admin`: by one of Kafka's own tools, which may write internal topics.
pub fn refused_topic(topic: Option<&TopicImage>, admin: bool) -> Option<ErrorCode> {
    match topic {
        None => Some(ErrorCode::UnknownTopicOrPartition),
        Some(topic) if topic.internal && !admin => Some(ErrorCode::InvalidTopicException),
        Some(_) => None,
    }
}

/// Checks what a partition was sent, as far as that may be done on the shard.
pub fn check<P: Platform>(
    local: &Local<P>,
    version: i16,
    config: &TopicConfig,
    records: Option<BytesMut>,
) -> Result<LookedAt, Refusal> {
    // Kafka takes a batch in a version that is older than it, too.
    let is_batch =
        |records: &[u8]| version >= 3 || records.get(MAGIC_POSITION).is_some_and(|magic| *magic as i8 == MAGIC_V2);
    let mut records = match records {
        Some(records) => records,
        None if version < 3 => return Ok(LookedAt::Nothing),
        None => return Err(Refusal::of(ErrorCode::InvalidRecord, "a record batch is required")),
    };
    let rules = ProduceRules {
        max_message_bytes: usize::try_from(config.max_message_bytes).unwrap_or(0),
        compacted: config.cleanup_policy.compact,
        timestamp_type: match config.message_timestamp_type {
            ConfiguredTimestamp::CreateTime => TimestampType::CreateTime,
            ConfiguredTimestamp::LogAppendTime => TimestampType::LogAppendTime,
        },
        timestamp_before_max_ms: config.message_timestamp_before_max_ms,
        timestamp_after_max_ms: config.message_timestamp_after_max_ms,
        retention_ms: config.retention_ms,
        now: local.platform.clock().wall(),
        validate_full: local.config.validation == Validation::Full,
        zstd_allowed: version >= 7,
        decompressed_bytes_max: DECOMPRESSED_BYTES_MAX,
        target: match local.config.rebatch && is_left_to_gather(&records) {
            true => None,
            false => target_compression(config),
        },
    };
    if !is_batch(&records) {
        return match is_light(&records, &rules, INLINE_BYTES_MAX) {
            true => Ok(convert_message_set(&records, &rules)?.map_or(LookedAt::Nothing, LookedAt::Sound)),
            false => Ok(LookedAt::Away(Preparation::Convert(records, rules))),
        };
    }
    match check_produce(&mut records, &rules, INLINE_BYTES_MAX)? {
        Checked::Done(header) => admit((records, header)).map(LookedAt::Sound),
        Checked::Away => Ok(LookedAt::Away(Preparation::Finish(records, rules))),
    }
}

/// Compressing a batch for itself that the owner will gather with others would be in vain.
fn is_left_to_gather(records: &[u8]) -> bool {
    BatchHeader::parse(records).is_ok_and(|header| header.codec() == Some(Codec::None) && gather::is_small(&header))
}

/// Whether a batch that is sound may be appended.
pub fn admit((batch, header): Batch) -> Result<Batch, Refusal> {
    match header.is_transactional() {
        true => Err(Refusal::of(ErrorCode::InvalidTxnState, "transactions are not supported yet")),
        false => Ok((batch, header)),
    }
}
