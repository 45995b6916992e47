//! StopReplica (5): controller to broker, in ZooKeeper mode only.
#![forbid(unsafe_code)]

message! {
    /// Replicas to stop, or to delete: for the whole request up to version 2, then for each partition.
    struct StopReplicaRequest of StopReplica {
        controller_id: i32 [0..],
        is_kraft_controller: bool [4..],
        controller_epoch: i32 [0..],
        broker_epoch: i64 [1..; ignorable] default(-1),
        delete_partitions: bool [0..=2],
        ungrouped_partitions: Vec<StopReplicaPartitionV0> [0..=0],
        topics: Vec<StopReplicaTopicV1> [1..=2],
        topic_states: Vec<StopReplicaTopicState> [3..],
    }

    /// A partition, in version 0.
    struct StopReplicaPartitionV0 {
        topic_name: String [0..=0],
        partition_index: i32 [0..=0],
    }

    /// The partitions of one topic, in versions 1 and 2.
    struct StopReplicaTopicV1 {
        name: String [1..=2],
        partition_indexes: Vec<i32> [1..=2],
    }

    /// The partitions of one topic, from version 3.
    struct StopReplicaTopicState {
        topic_name: String [3..],
        partition_states: Vec<StopReplicaPartitionState> [3..],
    }

    /// A partition; leader epoch -2: its topic is being deleted, -1: unknown (KIP-570).
    struct StopReplicaPartitionState {
        partition_index: i32 [3..],
        leader_epoch: i32 [3..] default(-1),
        delete_partition: bool [3..],
    }

    /// What became of each partition.
    struct StopReplicaResponse of StopReplica {
        error_code: i16 [0..],
        partition_errors: Vec<StopReplicaPartitionError> [0..],
    }

    /// One partition's result.
    struct StopReplicaPartitionError {
        topic_name: String [0..],
        partition_index: i32 [0..],
        error_code: i16 [0..],
    }
}
