//! Fetch (1): records out.
//!
//! Both bodies are tables; records are [`RecordsSpan`]s, so neither direction copies them. A response is sent in parts:
//! [`FetchResponse::encode_parts`] writes all that stands around the records, and the total size is known before the
//! first byte leaves.
#![forbid(unsafe_code)]

use std::sync::Arc;

use bytes::Bytes;

use super::field::RecordsSpan;
use super::leader::{LeaderIdAndEpoch, NodeEndpoint};
use crate::base::ids::TopicId;
use crate::metrics::ErrorTally;
use crate::protocol::header;
use crate::protocol::wire::WireError;

message! {
    /// What to fetch, from which offsets, how much and how long to wait; the fetch session is KIP-227's.
    struct FetchRequest of Fetch {
        cluster_id: Option<String> [12..; ignorable] tag(0) default(None),
        replica_id: i32 [0..=14] default(-1),
        replica_state: ReplicaState [15..] tag(1),
        max_wait_ms: i32 [0..],
        min_bytes: i32 [0..],
        max_bytes: i32 [3..; ignorable] default(i32::MAX),
        isolation_level: i8 [4..; ignorable],
        session_id: i32 [7..; ignorable],
        session_epoch: i32 [7..; ignorable] default(-1),
        topics: Vec<FetchTopic> [0..],
        forgotten_topics_data: Vec<ForgottenTopic> [7..],
        rack_id: String [11..; ignorable],
    }

    /// Who asks, from version 15: -1 for a consumer (KIP-903).
    struct ReplicaState {
        replica_id: i32 [15..] default(-1),
        replica_epoch: i64 [15..] default(-1),
    }

    /// A topic, by name up to version 12, then by id (KIP-516).
    struct FetchTopic {
        topic: Arc<str> [0..=12; ignorable],
        topic_id: TopicId [13..; ignorable],
        partitions: Vec<FetchPartition> [0..],
    }

    /// A partition, the offset to start at, and the most bytes to send of it.
    struct FetchPartition {
        partition: i32 [0..],
        current_leader_epoch: i32 [9..; ignorable] default(-1),
        fetch_offset: i64 [0..],
        last_fetched_epoch: i32 [12..] default(-1),
        log_start_offset: i64 [5..; ignorable] default(-1),
        partition_max_bytes: i32 [0..],
        replica_directory_id: TopicId [17..; ignorable] tag(0),
    }

    /// Partitions to take out of the fetch session.
    struct ForgottenTopic {
        topic: Arc<str> [7..=12; ignorable],
        topic_id: TopicId [13..; ignorable],
        partitions: Vec<i32> [7..],
    }

    /// Records, as spans: the bytes are read where they lie, and sent from where they are.
    struct FetchResponse of Fetch {
        throttle_time_ms: i32 [1..; ignorable],
        error_code: i16 [7..; ignorable],
        session_id: i32 [7..],
        responses: Vec<FetchableTopicResponse> [0..],
        node_endpoints: Vec<NodeEndpoint> [16..] tag(0),
    }

    /// A topic answered.
    struct FetchableTopicResponse {
        topic: Arc<str> [0..=12; ignorable],
        topic_id: TopicId [13..; ignorable],
        partitions: Vec<PartitionData> [0..],
    }

    /// A partition answered: offsets, aborted transactions (null unless read_committed), records.
    struct PartitionData {
        partition_index: i32 [0..],
        error_code: i16 [0..],
        high_watermark: i64 [0..],
        last_stable_offset: i64 [4..; ignorable] default(-1),
        log_start_offset: i64 [5..; ignorable] default(-1),
        diverging_epoch: EpochEndOffset [12..] tag(0),
        current_leader: LeaderIdAndEpoch [12..] tag(1),
        snapshot_id: SnapshotId [12..] tag(2),
        aborted_transactions: Option<Vec<AbortedTransaction>> [4..; ignorable],
        preferred_read_replica: i32 [11..] default(-1),
        records: Option<RecordsSpan> [0..],
    }

    /// Where the follower's log leaves the leader's: the largest epoch both can have, and its end offset (KIP-595).
    struct EpochEndOffset {
        epoch: i32 [12..] default(-1),
        end_offset: i64 [12..] default(-1),
    }

    /// Of KRaft; a ZooKeeper-mode broker leaves the default.
    struct SnapshotId {
        end_offset: i64 [0..] default(-1),
        epoch: i32 [0..] default(-1),
    }

    /// A producer whose records from this offset to its abort marker are not to be seen.
    struct AbortedTransaction {
        producer_id: i64 [4..],
        first_offset: i64 [4..],
    }
}

/// About what a topic takes on the wire without its records: enough but for aborted transactions and tagged fields.
fn expected_bytes(topic: &FetchableTopicResponse) -> usize {
    const PARTITION_BYTES: usize = 56;
    const TOPIC_BYTES: usize = 24;
    TOPIC_BYTES + topic.topic.len() + PARTITION_BYTES * topic.partitions.len()
}

/// A response's bytes without its records.
///
/// A gap is left for each partition whose records take at least one byte, in the response's order: the records of gap
/// i go between chunk i and chunk i + 1. Chunks share one allocation; only the last may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchResponseParts {
    pub chunks: Vec<Bytes>,
    /// Bytes of the whole frame: chunks, records, and the size prefix itself.
    pub total_bytes: usize,
    /// The codes that it carries.
    pub errors: ErrorTally,
}

impl FetchResponse {
    /// The whole frame in this version, size prefix and response header included, cut where records go.
    ///
    /// # Errors
    /// `CannotCarry` for what this version has no room for, such as a preferred read replica below 11; `TooLong` if the
    /// frame would reach 2 GiB.
    pub fn encode_parts(&self, correlation_id: i32, version: i16) -> Result<FetchResponseParts, WireError> {
        let mut writer = header::begin_response(Self::API_KEY, version, correlation_id);
        writer.reserve(self.responses.iter().map(expected_bytes).sum());
        self.encode(&mut writer, version)?;
        header::set_frame_length(&mut writer)?;
        let total_bytes = writer.total_bytes();
        let errors = writer.errors().clone();
        Ok(FetchResponseParts { chunks: writer.into_chunks(), total_bytes, errors })
    }
}

#[cfg(test)]
mod tests;
