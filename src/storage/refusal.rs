//! Why the log refuses a sound batch.

#![forbid(unsafe_code)]

/// Why a batch was not appended; nothing changed. Each variant is one of Kafka's error codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendRefusal {
    /// RECORD_LIST_TOO_LARGE.
    #[error("batch of {batch_bytes} bytes is over segment.bytes {segment_bytes}")]
    RecordListTooLarge { batch_bytes: usize, segment_bytes: u32 },
    /// OUT_OF_ORDER_SEQUENCE_NUMBER.
    #[error("producer {producer_id}: sequence {base_sequence} does not follow {last_sequence}")]
    OutOfOrderSequence { producer_id: i64, base_sequence: i32, last_sequence: i32 },
    /// INVALID_PRODUCER_EPOCH.
    #[error("producer {producer_id}: epoch {producer_epoch} is older than {current_epoch}")]
    InvalidProducerEpoch { producer_id: i64, producer_epoch: i16, current_epoch: i16 },
    /// INVALID_TXN_STATE.
    #[error("producer {producer_id} has a transaction open, and the batch is not part of it")]
    InvalidTxnState { producer_id: i64 },
    /// TRANSACTION_COORDINATOR_FENCED.
    #[error("producer {producer_id}: coordinator epoch {coordinator_epoch} is older than {current_epoch}")]
    TransactionCoordinatorFenced { producer_id: i64, coordinator_epoch: i32, current_epoch: i32 },
    /// CORRUPT_MESSAGE.
    #[error("a batch that is not sound at offset {base_offset}")]
    Corrupt { base_offset: i64 },
    /// A leader's batch does not begin where its follower's log ends: no client is told (Kafka 3.9
    /// `UnexpectedAppendOffsetException`).
    #[error("a batch of the leader begins at {base_offset}, and the log ends at {log_end_offset}")]
    UnexpectedOffset { base_offset: i64, log_end_offset: i64 },
}
