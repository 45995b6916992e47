//! LeaderAndIsr (4): controller to broker, in ZooKeeper mode only.
#![forbid(unsafe_code)]

use crate::base::ids::TopicId;

message! {
    /// What the controller tells a broker of the partitions it has a replica of.
    struct LeaderAndIsrRequest of LeaderAndIsr {
        controller_id: i32 [0..],
        is_kraft_controller: bool [7..],
        controller_epoch: i32 [0..],
        broker_epoch: i64 [2..; ignorable] default(-1),
        r#type: i8 [5..],
        ungrouped_partition_states: Vec<LeaderAndIsrPartitionState> [0..=1],
        topic_states: Vec<LeaderAndIsrTopicState> [2..],
        live_leaders: Vec<LeaderAndIsrLiveLeader> [0..],
    }

    /// The partitions of one topic, from version 2.
    struct LeaderAndIsrTopicState {
        topic_name: String [2..],
        topic_id: TopicId [5..; ignorable],
        partition_states: Vec<LeaderAndIsrPartitionState> [2..],
    }

    /// Where a leader named here can be reached.
    struct LeaderAndIsrLiveLeader {
        broker_id: i32 [0..],
        host_name: String [0..],
        port: i32 [0..],
    }

    /// Leader, ISR and replicas of one partition; `partition_epoch` is the znode's version.
    struct LeaderAndIsrPartitionState {
        topic_name: String [0..=1; ignorable],
        partition_index: i32 [0..],
        controller_epoch: i32 [0..],
        leader: i32 [0..],
        leader_epoch: i32 [0..],
        isr: Vec<i32> [0..],
        partition_epoch: i32 [0..],
        replicas: Vec<i32> [0..],
        adding_replicas: Vec<i32> [3..; ignorable],
        removing_replicas: Vec<i32> [3..; ignorable],
        is_new: bool [1..; ignorable],
        leader_recovery_state: i8 [6..],
    }

    /// What became of each partition.
    struct LeaderAndIsrResponse of LeaderAndIsr {
        error_code: i16 [0..],
        partition_errors: Vec<LeaderAndIsrPartitionError> [0..=4],
        topics: Vec<LeaderAndIsrTopicError> [5..],
    }

    /// The partitions of one topic, from version 5.
    struct LeaderAndIsrTopicError {
        topic_id: TopicId [5..],
        partition_errors: Vec<LeaderAndIsrPartitionError> [5..],
    }

    /// One partition's result.
    struct LeaderAndIsrPartitionError {
        topic_name: String [0..=4; ignorable],
        partition_index: i32 [0..],
        error_code: i16 [0..],
    }
}
