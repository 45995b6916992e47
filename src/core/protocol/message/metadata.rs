//! Metadata (3): brokers, topics, partitions and who leads them.
#![forbid(unsafe_code)]

use crate::base::ids::TopicId;

message! {
    /// Topics to describe: null is all (version 0: empty is all), empty is none.
    struct MetadataRequest of Metadata {
        topics: Option<Vec<MetadataRequestTopic>> [0..] null [1..],
        allow_auto_topic_creation: bool [4..] default(true),
        include_cluster_authorized_operations: bool [8..=10],
        include_topic_authorized_operations: bool [8..],
    }

    /// A topic by name, or from version 12 by id with a null name (KIP-516).
    struct MetadataRequestTopic {
        topic_id: TopicId [10..; ignorable],
        name: Option<String> [0..] null [10..],
    }

    /// Live brokers and the topics asked for.
    struct MetadataResponse of Metadata {
        throttle_time_ms: i32 [3..; ignorable],
        brokers: Vec<MetadataResponseBroker> [0..],
        cluster_id: Option<String> [2..; ignorable] default(None),
        controller_id: i32 [1..; ignorable] default(-1),
        topics: Vec<MetadataResponseTopic> [0..],
        cluster_authorized_operations: i32 [8..=10] default(i32::MIN),
    }

    /// A live broker's endpoint on the listener that was asked.
    struct MetadataResponseBroker {
        node_id: i32 [0..],
        host: String [0..],
        port: i32 [0..],
        rack: Option<String> [1..; ignorable] default(None),
    }

    /// A topic, or why it can not be described.
    struct MetadataResponseTopic {
        error_code: i16 [0..],
        name: Option<String> [0..] null [12..],
        topic_id: TopicId [10..; ignorable],
        is_internal: bool [1..; ignorable],
        partitions: Vec<MetadataResponsePartition> [0..],
        topic_authorized_operations: i32 [8..] default(i32::MIN),
    }

    /// A partition's leader and replicas; leader -1 where there is none.
    struct MetadataResponsePartition {
        error_code: i16 [0..],
        partition_index: i32 [0..],
        leader_id: i32 [0..],
        leader_epoch: i32 [7..; ignorable] default(-1),
        replica_nodes: Vec<i32> [0..],
        isr_nodes: Vec<i32> [0..],
        offline_replicas: Vec<i32> [5..; ignorable],
    }
}
