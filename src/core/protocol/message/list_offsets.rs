//! ListOffsets (2): offsets by timestamp, and the ends of a log.
#![forbid(unsafe_code)]

message! {
    /// Offsets by timestamp. Negative timestamps are questions of their own: -1 latest, -2 earliest, ...
    struct ListOffsetsRequest of ListOffsets {
        replica_id: i32 [0..],
        isolation_level: i8 [2..],
        topics: Vec<ListOffsetsTopic> [0..],
    }

    /// A topic asked for.
    struct ListOffsetsTopic {
        name: String [0..],
        partitions: Vec<ListOffsetsPartition> [0..],
    }

    /// A partition and the timestamp, in ms, to find; `max_num_offsets` is of version 0 only.
    struct ListOffsetsPartition {
        partition_index: i32 [0..],
        current_leader_epoch: i32 [4..; ignorable] default(-1),
        timestamp: i64 [0..],
        max_num_offsets: i32 [0..=0] default(1),
    }

    /// The offsets found.
    struct ListOffsetsResponse of ListOffsets {
        throttle_time_ms: i32 [2..; ignorable],
        topics: Vec<ListOffsetsTopicResponse> [0..],
    }

    /// A topic answered.
    struct ListOffsetsTopicResponse {
        name: String [0..],
        partitions: Vec<ListOffsetsPartitionResponse> [0..],
    }

    /// An offset and its timestamp in ms, -1 and -1 if none; version 0 lists `old_style_offsets`.
    struct ListOffsetsPartitionResponse {
        partition_index: i32 [0..],
        error_code: i16 [0..],
        old_style_offsets: Vec<i64> [0..=0],
        timestamp: i64 [1..] default(-1),
        offset: i64 [1..] default(-1),
        leader_epoch: i32 [4..] default(-1),
    }
}
