//! The settings of one topic, as it lives by them: its overrides over the broker's values over Kafka's defaults.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

/// `message.timestamp.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

/// `cleanup.policy`: a list, so both may be on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupPolicy {
    pub delete: bool,
    pub compact: bool,
}

/// `compression.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionType {
    /// Batches are kept as the producer compressed them.
    Producer,
    Uncompressed,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// Every topic config of Kafka 3.9 that means something here (`LogConfig`), resolved. Times are milliseconds, sizes bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    pub cleanup_policy: CleanupPolicy,
    pub compression_type: CompressionType,
    pub compression_gzip_level: i32,
    pub compression_lz4_level: i32,
    pub compression_zstd_level: i32,
    pub delete_retention_ms: i64,
    pub file_delete_delay_ms: i64,
    /// Records after which the log is flushed; `i64::MAX`: never for that reason.
    pub flush_messages: i64,
    pub flush_ms: i64,
    pub index_interval_bytes: i32,
    /// Largest batch accepted, header included.
    pub max_message_bytes: i32,
    pub max_compaction_lag_ms: i64,
    pub min_compaction_lag_ms: i64,
    pub message_timestamp_type: TimestampType,
    pub message_timestamp_before_max_ms: i64,
    pub message_timestamp_after_max_ms: i64,
    pub min_cleanable_dirty_ratio: f64,
    pub min_insync_replicas: i32,
    pub preallocate: bool,
    /// -1: no limit by size.
    pub retention_bytes: i64,
    /// -1: for ever.
    pub retention_ms: i64,
    pub segment_bytes: i32,
    pub segment_index_bytes: i32,
    pub segment_jitter_ms: i64,
    pub segment_ms: i64,
    pub unclean_leader_election_enable: bool,
    /// What the topic itself sets, in Kafka's names and the client's words; all else comes from the broker.
    pub overrides: BTreeMap<String, String>,
}

/// Kafka's defaults, for tests: no broker settings, no overrides.
pub fn kafka_defaults() -> TopicConfig {
    TopicConfig {
        cleanup_policy: CleanupPolicy { delete: true, compact: false },
        compression_type: CompressionType::Producer,
        compression_gzip_level: -1,
        compression_lz4_level: 9,
        compression_zstd_level: 3,
        delete_retention_ms: 86_400_000,
        file_delete_delay_ms: 60_000,
        flush_messages: i64::MAX,
        flush_ms: i64::MAX,
        index_interval_bytes: 4096,
        max_message_bytes: 1_048_588,
        max_compaction_lag_ms: i64::MAX,
        min_compaction_lag_ms: 0,
        message_timestamp_type: TimestampType::CreateTime,
        message_timestamp_before_max_ms: i64::MAX,
        message_timestamp_after_max_ms: i64::MAX,
        min_cleanable_dirty_ratio: 0.5,
        min_insync_replicas: 1,
        preallocate: false,
        retention_bytes: -1,
        retention_ms: 604_800_000,
        segment_bytes: 1_073_741_824,
        segment_index_bytes: 10_485_760,
        segment_jitter_ms: 0,
        segment_ms: 604_800_000,
        unclean_leader_election_enable: false,
        overrides: BTreeMap::new(),
    }
}
