//! DeleteRecords (21): records below an offset are given up.
#![forbid(unsafe_code)]

message! {
    /// How far records are to be deleted, and how long that may take.
    struct DeleteRecordsRequest of DeleteRecords {
        topics: Vec<DeleteRecordsTopic> [0..],
        timeout_ms: i32 [0..],
    }

    /// A topic to delete records of.
    struct DeleteRecordsTopic {
        name: String [0..],
        partitions: Vec<DeleteRecordsPartition> [0..],
    }

    /// A partition and the first offset to keep; -1 is the high watermark.
    struct DeleteRecordsPartition {
        partition_index: i32 [0..],
        offset: i64 [0..],
    }

    /// Each partition's result.
    struct DeleteRecordsResponse of DeleteRecords {
        throttle_time_ms: i32 [0..],
        topics: Vec<DeleteRecordsTopicResult> [0..],
    }

    /// A topic's results.
    struct DeleteRecordsTopicResult {
        name: String [0..],
        partitions: Vec<DeleteRecordsPartitionResult> [0..],
    }

    /// The least log start of all replicas, -1 after an error.
    struct DeleteRecordsPartitionResult {
        partition_index: i32 [0..],
        low_watermark: i64 [0..],
        error_code: i16 [0..],
    }
}
