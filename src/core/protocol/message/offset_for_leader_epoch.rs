//! OffsetForLeaderEpoch (23): where a leader epoch ends.
#![forbid(unsafe_code)]

message! {
    /// Leader epochs to look up; replica id -1 is a consumer, -2 (the default) looks for faults.
    struct OffsetForLeaderEpochRequest of OffsetForLeaderEpoch {
        replica_id: i32 [3..; ignorable] default(-2),
        topics: Vec<OffsetForLeaderTopic> [0..],
    }

    /// A topic asked for.
    struct OffsetForLeaderTopic {
        topic: String [0..],
        partitions: Vec<OffsetForLeaderPartition> [0..],
    }

    /// A partition, the epoch that the asker knows it under, and the epoch to look up.
    struct OffsetForLeaderPartition {
        partition: i32 [0..],
        current_leader_epoch: i32 [2..; ignorable] default(-1),
        leader_epoch: i32 [0..],
    }

    /// The ends found.
    struct OffsetForLeaderEpochResponse of OffsetForLeaderEpoch {
        throttle_time_ms: i32 [2..; ignorable],
        topics: Vec<OffsetForLeaderTopicResult> [0..],
    }

    /// A topic answered.
    struct OffsetForLeaderTopicResult {
        topic: String [0..],
        partitions: Vec<EpochEndOffset> [0..],
    }

    /// The largest epoch up to the one asked for and the offset behind its last record; -1 and -1 if that can't be
    /// said.
    struct EpochEndOffset {
        error_code: i16 [0..],
        partition: i32 [0..],
        leader_epoch: i32 [1..; ignorable] default(-1),
        end_offset: i64 [0..] default(-1),
    }
}
