//! CreateTopics (19).
#![forbid(unsafe_code)]

use crate::base::ids::TopicId;

message! {
    /// Topics to create, or only to check (`validate_only`).
    struct CreateTopicsRequest of CreateTopics {
        topics: Vec<CreatableTopic> [0..],
        timeout_ms: i32 [0..] default(60000),
        validate_only: bool [1..],
    }

    /// A topic: counts (-1: the broker's default, from version 4), or replicas by hand with both counts -1.
    struct CreatableTopic {
        name: String [0..],
        num_partitions: i32 [0..],
        replication_factor: i16 [0..],
        assignments: Vec<CreatableReplicaAssignment> [0..],
        configs: Vec<CreatableTopicConfig> [0..],
    }

    /// Replicas of one partition, preferred leader first.
    struct CreatableReplicaAssignment {
        partition_index: i32 [0..],
        broker_ids: Vec<i32> [0..],
    }

    /// A topic override.
    struct CreatableTopicConfig {
        name: String [0..],
        value: Option<String> [0..],
    }

    /// Each topic's result, in the request's order.
    struct CreateTopicsResponse of CreateTopics {
        throttle_time_ms: i32 [2..; ignorable],
        topics: Vec<CreatableTopicResult> [0..],
    }

    /// A topic created or not; from version 5 with what it was created with (KIP-525).
    struct CreatableTopicResult {
        name: String [0..],
        topic_id: TopicId [7..; ignorable],
        error_code: i16 [0..],
        error_message: Option<String> [1..; ignorable],
        topic_config_error_code: i16 [5..; ignorable] tag(0),
        num_partitions: i32 [5..; ignorable] default(-1),
        replication_factor: i16 [5..; ignorable] default(-1),
        configs: Option<Vec<CreatableTopicConfigs>> [5..; ignorable],
    }

    /// A setting in force for the new topic.
    struct CreatableTopicConfigs {
        name: String [5..],
        value: Option<String> [5..],
        read_only: bool [5..],
        config_source: i8 [5..; ignorable] default(-1),
        is_sensitive: bool [5..],
    }
}
