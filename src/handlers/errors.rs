//! From the causes that subsystems name to Kafka's error codes: the only place, every variant spelled out.

use crate::metadata::proposal::{ConfigRefusal, ProposalError, TopicRefusal};
use crate::partition::append::AppendFailure;
use crate::partition::partition::LeadershipError;
use crate::partition::read::ReadFailure;
use crate::partition::retain::DeleteRefusal;
use crate::protocol::ErrorCode;
use crate::record::validate::InvalidBatch;
use crate::storage::log::AppendRefusal;

pub fn of_leadership(error: LeadershipError) -> ErrorCode {
    match error {
        LeadershipError::NotLeader | LeadershipError::NotFollower => ErrorCode::NotLeaderOrFollower,
        LeadershipError::FencedLeaderEpoch => ErrorCode::FencedLeaderEpoch,
        LeadershipError::UnknownLeaderEpoch => ErrorCode::UnknownLeaderEpoch,
        LeadershipError::LogOffline => ErrorCode::KafkaStorageError,
    }
}

pub fn of_append(failure: &AppendFailure) -> ErrorCode {
    match failure {
        AppendFailure::Leadership(error) => of_leadership(*error),
        AppendFailure::Refused(AppendRefusal::RecordListTooLarge { .. }) => ErrorCode::RecordListTooLarge,
        AppendFailure::Refused(AppendRefusal::OutOfOrderSequence { .. }) => ErrorCode::OutOfOrderSequenceNumber,
        AppendFailure::Refused(AppendRefusal::InvalidProducerEpoch { .. }) => ErrorCode::InvalidProducerEpoch,
        AppendFailure::Refused(AppendRefusal::InvalidTxnState { .. }) => ErrorCode::InvalidTxnState,
        AppendFailure::Refused(AppendRefusal::TransactionCoordinatorFenced { .. }) => {
            ErrorCode::TransactionCoordinatorFenced
        }
        AppendFailure::Refused(AppendRefusal::Corrupt { .. }) => ErrorCode::CorruptMessage,
        // Of a leader's batches, which no client sends.
        AppendFailure::Refused(AppendRefusal::UnexpectedOffset { .. }) => ErrorCode::UnknownServerError,
        AppendFailure::NotEnoughReplicas => ErrorCode::NotEnoughReplicas,
        AppendFailure::NotEnoughReplicasAfterAppend => ErrorCode::NotEnoughReplicasAfterAppend,
        // Nothing was appended and trying again helps, which is what this code tells a producer.
        AppendFailure::Busy => ErrorCode::RequestTimedOut,
        AppendFailure::Storage(_) | AppendFailure::DiskFull(_) => ErrorCode::KafkaStorageError,
        // Kafka 3.9 `DelayedProduce.tryComplete`: the batch may or may not survive the new leader.
        AppendFailure::Interrupted => ErrorCode::NotLeaderOrFollower,
    }
}

pub fn of_read(failure: &ReadFailure) -> ErrorCode {
    match failure {
        ReadFailure::Leadership(error) => of_leadership(*error),
        ReadFailure::OffsetOutOfRange => ErrorCode::OffsetOutOfRange,
        ReadFailure::Storage(_) => ErrorCode::KafkaStorageError,
        // Trying again helps.
        ReadFailure::Busy => ErrorCode::RequestTimedOut,
    }
}

pub fn of_delete_records(refusal: DeleteRefusal) -> ErrorCode {
    match refusal {
        DeleteRefusal::Leadership(error) => of_leadership(error),
        DeleteRefusal::Policy => ErrorCode::PolicyViolation,
        DeleteRefusal::OffsetOutOfRange => ErrorCode::OffsetOutOfRange,
    }
}

pub fn of_batch(error: &InvalidBatch) -> ErrorCode {
    match error {
        InvalidBatch::Corrupt(_) => ErrorCode::CorruptMessage,
        InvalidBatch::TooLarge { .. } | InvalidBatch::TooLargeInCodec { .. } => ErrorCode::MessageTooLarge,
        InvalidBatch::InvalidRecord { .. } => ErrorCode::InvalidRecord,
        InvalidBatch::InvalidTimestamp { .. } => ErrorCode::InvalidTimestamp,
        InvalidBatch::UnsupportedCompression => ErrorCode::UnsupportedCompressionType,
    }
}

pub fn of_topic_refusal(refusal: &TopicRefusal) -> ErrorCode {
    match refusal {
        TopicRefusal::AlreadyExists(_) | TopicRefusal::MarkedForDeletion(_) => ErrorCode::TopicAlreadyExists,
        TopicRefusal::InvalidName(_) => ErrorCode::InvalidTopicException,
        TopicRefusal::InvalidPartitions(_) => ErrorCode::InvalidPartitions,
        TopicRefusal::InvalidReplicationFactor(_) => ErrorCode::InvalidReplicationFactor,
        TopicRefusal::InvalidReplicaAssignment(_) => ErrorCode::InvalidReplicaAssignment,
        TopicRefusal::InvalidConfig(_) => ErrorCode::InvalidConfig,
        TopicRefusal::InvalidRequest(_) => ErrorCode::InvalidRequest,
        TopicRefusal::UnknownTopic | TopicRefusal::NoSuchTopic(_) => ErrorCode::UnknownTopicOrPartition,
        TopicRefusal::UnknownTopicId => ErrorCode::UnknownTopicId,
        TopicRefusal::DeletionDisabled => ErrorCode::TopicDeletionDisabled,
        TopicRefusal::DeletionSuspended | TopicRefusal::WithoutLeader => ErrorCode::RequestTimedOut,
        TopicRefusal::NotController => ErrorCode::NotController,
        TopicRefusal::Tree(_) => ErrorCode::UnknownServerError,
    }
}

pub fn of_config_refusal(refusal: &ConfigRefusal) -> ErrorCode {
    match refusal {
        ConfigRefusal::UnknownTopic(_) => ErrorCode::UnknownTopicOrPartition,
        ConfigRefusal::InvalidConfig(_) => ErrorCode::InvalidConfig,
        ConfigRefusal::InvalidRequest(_) => ErrorCode::InvalidRequest,
        ConfigRefusal::NotController => ErrorCode::NotController,
        ConfigRefusal::Tree(_) => ErrorCode::UnknownServerError,
    }
}

pub fn of_proposal(error: &ProposalError) -> ErrorCode {
    match error {
        ProposalError::NotController => ErrorCode::NotController,
        ProposalError::Busy => ErrorCode::RequestTimedOut,
        ProposalError::Tree(_) => ErrorCode::UnknownServerError,
    }
}
