//! The settings of one topic, as it lives by them: its overrides over the broker's values over Kafka's defaults.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use thiserror::Error;

use super::DynamicConfig;
use super::keys::BrokerKey;
use super::value::{Kind, Value};

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
    /// Whether fetches of old versions get records converted to their format.
    pub message_downconversion_enable: bool,
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

/// A topic config that can't be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidTopicConfig {
    #[error("Unknown topic config name: {0}")]
    UnknownName(String),
    #[error("Invalid value {value} for configuration {name}: {reason}")]
    Value { name: String, value: String, reason: String },
    #[error("conflict topic config setting min.compaction.lag.ms ({min}) > max.compaction.lag.ms ({max})")]
    CompactionLag { min: i64, max: i64 },
}

/// One line of the table of topic configs.
pub struct TopicKey {
    pub name: &'static str,
    pub kind: Kind,
    /// Kafka's default, as text.
    pub default: &'static str,
    /// Broker settings that set it for all topics, first wins, and what one unit there is worth here.
    pub synonyms: &'static [(&'static str, i64)],
    /// `None`: accepted and kept, but nothing here acts on it.
    set: Option<fn(&mut TopicConfig, &Value)>,
    /// The value as text, of what can be set.
    get: fn(&TopicConfig) -> String,
}

const HOUR_MS: i64 = 3_600_000;
const MINUTE_MS: i64 = 60_000;
/// Which replicas are throttled: `*`, or pairs of partition and broker (Kafka 3.9 `ThrottledReplicaListValidator`).
const THROTTLED: Kind = Kind::Replicas;
/// There is no tiered storage here.
const NEVER: Kind = Kind::Never;
const COMPRESSION_TYPES: &[&str] = &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"];

/// Every topic config of Kafka 3.9, by name.
#[rustfmt::skip]
pub const TOPIC_KEYS: &[TopicKey] = &[
    key("cleanup.policy", Kind::Words(&["compact", "delete"]), "delete", &[("log.cleanup.policy", 1)],
        |config, value| {
            let has = |word| value.text().split(',').any(|found| found.trim() == word);
            config.cleanup_policy = CleanupPolicy { delete: has("delete"), compact: has("compact") };
        },
        |config| match config.cleanup_policy {
            CleanupPolicy { delete: true, compact: true } => "compact,delete".to_owned(),
            CleanupPolicy { compact: true, .. } => "compact".to_owned(),
            CleanupPolicy { delete: true, .. } => "delete".to_owned(),
            CleanupPolicy { .. } => String::new(),
        }),
    key("compression.gzip.level", Kind::GzipLevel, "-1", &[("compression.gzip.level", 1)],
        |config, value| config.compression_gzip_level = value.int(),
        |config| config.compression_gzip_level.to_string()),
    key("compression.lz4.level", Kind::Int { min: 1, max: 17 }, "9", &[("compression.lz4.level", 1)],
        |config, value| config.compression_lz4_level = value.int(),
        |config| config.compression_lz4_level.to_string()),
    key("compression.type", Kind::Word(COMPRESSION_TYPES), "producer", &[("compression.type", 1)],
        |config, value| config.compression_type = compression_type(value.text()),
        |config| format!("{:?}", config.compression_type).to_lowercase()),
    key("compression.zstd.level", Kind::Int { min: -131_072, max: 22 }, "3", &[("compression.zstd.level", 1)],
        |config, value| config.compression_zstd_level = value.int(),
        |config| config.compression_zstd_level.to_string()),
    key("delete.retention.ms", Kind::long(0), "86400000", &[("log.cleaner.delete.retention.ms", 1)],
        |config, value| config.delete_retention_ms = value.number(),
        |config| config.delete_retention_ms.to_string()),
    key("file.delete.delay.ms", Kind::long(0), "60000", &[("log.segment.delete.delay.ms", 1)],
        |config, value| config.file_delete_delay_ms = value.number(),
        |config| config.file_delete_delay_ms.to_string()),
    key("flush.messages", Kind::long(1), "9223372036854775807", &[("log.flush.interval.messages", 1)],
        |config, value| config.flush_messages = value.number(),
        |config| config.flush_messages.to_string()),
    key("flush.ms", Kind::long(0), "9223372036854775807",
        &[("log.flush.interval.ms", 1), ("log.flush.scheduler.interval.ms", 1)],
        |config, value| config.flush_ms = value.number(),
        |config| config.flush_ms.to_string()),
    kept("follower.replication.throttled.replicas", THROTTLED, "", &[]),
    key("index.interval.bytes", Kind::int(0), "4096", &[("log.index.interval.bytes", 1)],
        |config, value| config.index_interval_bytes = value.int(),
        |config| config.index_interval_bytes.to_string()),
    kept("leader.replication.throttled.replicas", THROTTLED, "", &[]),
    kept("local.retention.bytes", Kind::long(-2), "-2", &[("log.local.retention.bytes", 1)]),
    kept("local.retention.ms", Kind::long(-2), "-2", &[("log.local.retention.ms", 1)]),
    key("max.compaction.lag.ms", Kind::long(1), "9223372036854775807", &[("log.cleaner.max.compaction.lag.ms", 1)],
        |config, value| config.max_compaction_lag_ms = value.number(),
        |config| config.max_compaction_lag_ms.to_string()),
    key("max.message.bytes", Kind::int(0), "1048588", &[("message.max.bytes", 1)],
        |config, value| config.max_message_bytes = value.int(),
        |config| config.max_message_bytes.to_string()),
    key("message.downconversion.enable", Kind::Bool, "true", &[("log.message.downconversion.enable", 1)],
        |config, value| config.message_downconversion_enable = value.bool(),
        |config| config.message_downconversion_enable.to_string()),
    // Ignored since inter.broker.protocol.version 3.0 (Kafka 3.9 `LogConfig.shouldIgnoreMessageFormatVersion`).
    kept("message.format.version", Kind::Version, "3.0-IV1", &[("log.message.format.version", 1)]),
    key("message.timestamp.after.max.ms", Kind::long(0), "9223372036854775807",
        &[("log.message.timestamp.after.max.ms", 1), ("log.message.timestamp.difference.max.ms", 1)],
        |config, value| config.message_timestamp_after_max_ms = value.number(),
        |config| config.message_timestamp_after_max_ms.to_string()),
    key("message.timestamp.before.max.ms", Kind::long(0), "9223372036854775807",
        &[("log.message.timestamp.before.max.ms", 1), ("log.message.timestamp.difference.max.ms", 1)],
        |config, value| config.message_timestamp_before_max_ms = value.number(),
        |config| config.message_timestamp_before_max_ms.to_string()),
    // Deprecated; stands in for the two above where they are not set.
    kept("message.timestamp.difference.max.ms", Kind::long(0), "9223372036854775807",
        &[("log.message.timestamp.difference.max.ms", 1)]),
    key("message.timestamp.type", Kind::Word(&["CreateTime", "LogAppendTime"]), "CreateTime",
        &[("log.message.timestamp.type", 1)],
        |config, value| config.message_timestamp_type = match value.text() {
            "LogAppendTime" => TimestampType::LogAppendTime,
            _ => TimestampType::CreateTime,
        },
        |config| format!("{:?}", config.message_timestamp_type)),
    key("min.cleanable.dirty.ratio", Kind::Double { min: 0.0, max: 1.0 }, "0.5",
        &[("log.cleaner.min.cleanable.ratio", 1)],
        |config, value| config.min_cleanable_dirty_ratio = value.double(),
        |config| config.min_cleanable_dirty_ratio.to_string()),
    key("min.compaction.lag.ms", Kind::long(0), "0", &[("log.cleaner.min.compaction.lag.ms", 1)],
        |config, value| config.min_compaction_lag_ms = value.number(),
        |config| config.min_compaction_lag_ms.to_string()),
    key("min.insync.replicas", Kind::int(1), "1", &[("min.insync.replicas", 1)],
        |config, value| config.min_insync_replicas = value.int(),
        |config| config.min_insync_replicas.to_string()),
    key("preallocate", Kind::Bool, "false", &[("log.preallocate", 1)],
        |config, value| config.preallocate = value.bool(),
        |config| config.preallocate.to_string()),
    kept("remote.log.copy.disable", NEVER, "false", &[]),
    kept("remote.log.delete.on.disable", NEVER, "false", &[]),
    kept("remote.storage.enable", NEVER, "false", &[]),
    key("retention.bytes", Kind::Long { min: i64::MIN, max: i64::MAX }, "-1", &[("log.retention.bytes", 1)],
        |config, value| config.retention_bytes = value.number(),
        |config| config.retention_bytes.to_string()),
    key("retention.ms", Kind::long(-1), "604800000",
        &[("log.retention.ms", 1), ("log.retention.minutes", MINUTE_MS), ("log.retention.hours", HOUR_MS)],
        |config, value| config.retention_ms = value.number(),
        |config| config.retention_ms.to_string()),
    key("segment.bytes", Kind::int(14), "1073741824", &[("log.segment.bytes", 1)],
        |config, value| config.segment_bytes = value.int(),
        |config| config.segment_bytes.to_string()),
    key("segment.index.bytes", Kind::int(4), "10485760", &[("log.index.size.max.bytes", 1)],
        |config, value| config.segment_index_bytes = value.int(),
        |config| config.segment_index_bytes.to_string()),
    key("segment.jitter.ms", Kind::long(0), "0", &[("log.roll.jitter.ms", 1), ("log.roll.jitter.hours", HOUR_MS)],
        |config, value| config.segment_jitter_ms = value.number(),
        |config| config.segment_jitter_ms.to_string()),
    key("segment.ms", Kind::long(1), "604800000", &[("log.roll.ms", 1), ("log.roll.hours", HOUR_MS)],
        |config, value| config.segment_ms = value.number(),
        |config| config.segment_ms.to_string()),
    key("unclean.leader.election.enable", Kind::Bool, "false", &[("unclean.leader.election.enable", 1)],
        |config, value| config.unclean_leader_election_enable = value.bool(),
        |config| config.unclean_leader_election_enable.to_string()),
];

const fn key(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    synonyms: &'static [(&'static str, i64)],
    set: fn(&mut TopicConfig, &Value),
    get: fn(&TopicConfig) -> String,
) -> TopicKey {
    TopicKey { name, kind, default, synonyms, set: Some(set), get }
}

const fn kept(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    synonyms: &'static [(&'static str, i64)],
) -> TopicKey {
    TopicKey { name, kind, default, synonyms, set: None, get: |_| String::new() }
}

fn compression_type(name: &str) -> CompressionType {
    match name {
        "uncompressed" => CompressionType::Uncompressed,
        "gzip" => CompressionType::Gzip,
        "snappy" => CompressionType::Snappy,
        "lz4" => CompressionType::Lz4,
        "zstd" => CompressionType::Zstd,
        _ => CompressionType::Producer,
    }
}

impl Default for TopicConfig {
    /// Kafka's defaults, as [`TOPIC_KEYS`] has them.
    fn default() -> TopicConfig {
        let mut config = TopicConfig {
            cleanup_policy: CleanupPolicy { delete: true, compact: false },
            compression_type: CompressionType::Producer,
            compression_gzip_level: 0,
            compression_lz4_level: 0,
            compression_zstd_level: 0,
            delete_retention_ms: 0,
            file_delete_delay_ms: 0,
            flush_messages: 0,
            flush_ms: 0,
            index_interval_bytes: 0,
            max_message_bytes: 0,
            max_compaction_lag_ms: 0,
            min_compaction_lag_ms: 0,
            message_downconversion_enable: false,
            message_timestamp_type: TimestampType::CreateTime,
            message_timestamp_before_max_ms: 0,
            message_timestamp_after_max_ms: 0,
            min_cleanable_dirty_ratio: 0.0,
            min_insync_replicas: 0,
            preallocate: false,
            retention_bytes: 0,
            retention_ms: 0,
            segment_bytes: 0,
            segment_index_bytes: 0,
            segment_jitter_ms: 0,
            segment_ms: 0,
            unclean_leader_election_enable: false,
            overrides: BTreeMap::new(),
        };
        for key in TOPIC_KEYS {
            config.apply(key, &key.kind.parse(key.default).expect("the table's defaults are valid"));
        }
        config
    }
}

impl TopicConfig {
    /// What all topics live by unless they say otherwise: Kafka's defaults and the broker's settings, each already
    /// checked as its own kind.
    pub fn of_broker(settings: &BTreeMap<String, String>) -> Result<TopicConfig, InvalidTopicConfig> {
        let mut config = TopicConfig::default();
        for key in TOPIC_KEYS {
            let Some((synonym, text, unit)) =
                key.synonyms.iter().find_map(|(synonym, unit)| Some((*synonym, settings.get(*synonym)?, *unit)))
            else {
                continue;
            };
            let value = match key.kind {
                // Any negative time means for ever (Kafka 3.9 `KafkaConfig.getLogRetentionTimeMillis`).
                Kind::Long { .. } if unit != 1 || key.name == "retention.ms" => {
                    let number: i64 = text.trim().parse().map_err(|_| invalid(synonym, text, "not a number"))?;
                    if number < 0 { "-1".to_owned() } else { number.saturating_mul(unit).to_string() }
                }
                _ => text.clone(),
            };
            config.apply(key, &key.kind.parse(&value).map_err(|reason| invalid(synonym, text, &reason))?);
        }
        config.check()?;
        Ok(config)
    }

    /// These settings with a topic's `overrides` over them, checked.
    pub fn with_overrides(&self, overrides: &BTreeMap<String, String>) -> Result<TopicConfig, InvalidTopicConfig> {
        let mut config = TopicConfig { overrides: overrides.clone(), ..self.clone() };
        for (name, text) in overrides {
            let key = TopicKey::find(name).ok_or_else(|| InvalidTopicConfig::UnknownName(name.clone()))?;
            config.apply(key, &key.kind.parse(text).map_err(|reason| invalid(name, text, &reason))?);
        }
        // KIP-937: the old bound holds where its two successors are not set.
        if let Some(difference) = overrides.get("message.timestamp.difference.max.ms") {
            let difference: i64 = difference.trim().parse().expect("checked above");
            for name in ["message.timestamp.before.max.ms", "message.timestamp.after.max.ms"] {
                if !overrides.contains_key(name) {
                    config.apply(TopicKey::find(name).expect("in the table"), &Value::Number(difference));
                }
            }
        }
        config.check()?;
        Ok(config)
    }

    fn apply(&mut self, key: &TopicKey, value: &Value) {
        if let Some(set) = key.set {
            set(self, value);
        }
    }

    fn check(&self) -> Result<(), InvalidTopicConfig> {
        if self.min_compaction_lag_ms > self.max_compaction_lag_ms {
            let (min, max) = (self.min_compaction_lag_ms, self.max_compaction_lag_ms);
            return Err(InvalidTopicConfig::CompactionLag { min, max });
        }
        Ok(())
    }
}

impl TopicKey {
    pub fn find(name: &str) -> Option<&'static TopicKey> {
        TOPIC_KEYS.iter().find(|key| key.name == name)
    }

    /// The value that topics have that do not set it, as clients are told of it.
    pub fn broker_text(&self, dynamic: &DynamicConfig) -> String {
        if self.set.is_some() {
            return (self.get)(&dynamic.topic_defaults);
        }
        let named = self.synonyms.iter().find_map(|(name, _)| dynamic.synonyms(name).into_iter().next());
        named.map_or_else(|| self.default.to_owned(), |synonym| synonym.value.trim().to_owned())
    }

    /// What it is about, for clients.
    pub fn documentation(&self) -> &'static str {
        match self.name {
            "follower.replication.throttled.replicas" => {
                "Replicas that are throttled as followers: PARTITION:BROKER, with commas between, or *."
            }
            "leader.replication.throttled.replicas" => {
                "Replicas that are throttled as leaders: PARTITION:BROKER, with commas between, or *."
            }
            "remote.log.copy.disable" => "Whether nothing more is copied to tiered storage; there is none here.",
            "remote.log.delete.on.disable" => "Whether the tiered part goes when tiering ends; there is none here.",
            "remote.storage.enable" => "Whether the log is tiered; there is no tiered storage here.",
            _ => {
                let named = self.synonyms.first().and_then(|(name, _)| BrokerKey::find(name));
                named.map_or("", |key| key.documentation)
            }
        }
    }
}

fn invalid(name: &str, value: &str, reason: &str) -> InvalidTopicConfig {
    InvalidTopicConfig::Value { name: name.to_owned(), value: value.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests;
