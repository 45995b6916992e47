//! UpdateMetadata (6): controller to broker, in ZooKeeper mode only.
#![forbid(unsafe_code)]

use crate::base::ids::TopicId;

message! {
    /// What the controller tells every broker to answer Metadata requests with.
    struct UpdateMetadataRequest of UpdateMetadata {
        controller_id: i32 [0..],
        is_kraft_controller: bool [8..],
        r#type: i8 [8..] tag(0),
        controller_epoch: i32 [0..],
        broker_epoch: i64 [5..; ignorable] default(-1),
        ungrouped_partition_states: Vec<UpdateMetadataPartitionState> [0..=4],
        topic_states: Vec<UpdateMetadataTopicState> [5..],
        live_brokers: Vec<UpdateMetadataBroker> [0..],
    }

    /// The partitions of one topic, from version 5.
    struct UpdateMetadataTopicState {
        topic_name: String [5..],
        topic_id: TopicId [7..; ignorable],
        partition_states: Vec<UpdateMetadataPartitionState> [5..],
    }

    /// A live broker with all its endpoints.
    struct UpdateMetadataBroker {
        id: i32 [0..],
        v0_host: String [0..=0; ignorable],
        v0_port: i32 [0..=0; ignorable],
        endpoints: Vec<UpdateMetadataEndpoint> [1..; ignorable],
        rack: Option<String> [2..; ignorable],
    }

    /// One listener of a broker; `security_protocol` is Kafka's number (0 PLAINTEXT, 1 SSL, 2 and 3 SASL).
    struct UpdateMetadataEndpoint {
        port: i32 [1..],
        host: String [1..],
        listener: String [3..; ignorable],
        security_protocol: i16 [1..],
    }

    /// Leader, ISR and replicas of one partition; leader -2: its topic is being deleted.
    struct UpdateMetadataPartitionState {
        topic_name: String [0..=4; ignorable],
        partition_index: i32 [0..],
        controller_epoch: i32 [0..],
        leader: i32 [0..],
        leader_epoch: i32 [0..],
        isr: Vec<i32> [0..],
        zk_version: i32 [0..],
        replicas: Vec<i32> [0..],
        offline_replicas: Vec<i32> [4..; ignorable],
    }

    /// Whether the update was taken.
    struct UpdateMetadataResponse of UpdateMetadata {
        error_code: i16 [0..],
    }
}
