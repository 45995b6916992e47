//! DescribeLogDirs (35): what lies in which log directory (KIP-113).
#![forbid(unsafe_code)]

message! {
    /// Partitions that are asked for; null: all.
    struct DescribeLogDirsRequest of DescribeLogDirs {
        topics: Option<Vec<DescribableLogDirTopic>> [0..],
    }

    /// Partitions of one topic.
    struct DescribableLogDirTopic {
        topic: String [0..],
        partitions: Vec<i32> [0..],
    }

    /// Each log directory.
    struct DescribeLogDirsResponse of DescribeLogDirs {
        throttle_time_ms: i32 [0..],
        error_code: i16 [3..; ignorable],
        results: Vec<DescribeLogDirsResult> [0..],
    }

    /// A log directory: what lies in it, and the room of its file system (KIP-827), -1 if unknown.
    struct DescribeLogDirsResult {
        error_code: i16 [0..],
        log_dir: String [0..],
        topics: Vec<DescribeLogDirsTopic> [0..],
        total_bytes: i64 [4..; ignorable] default(-1),
        usable_bytes: i64 [4..; ignorable] default(-1),
    }

    /// The partitions of one topic in this directory.
    struct DescribeLogDirsTopic {
        name: String [0..],
        partitions: Vec<DescribeLogDirsPartition> [0..],
    }

    /// A log; `offset_lag` is how far it is behind the high watermark, or behind the log that it is to replace
    /// (`is_future_key`), -1 if unknown.
    struct DescribeLogDirsPartition {
        partition_index: i32 [0..],
        partition_size: i64 [0..],
        offset_lag: i64 [0..],
        is_future_key: bool [0..],
    }
}
