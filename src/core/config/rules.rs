//! What settings demand of each other (Kafka 3.9 `KafkaConfig.validateValues`, `GroupCoordinatorConfig`, `ShareGroupConfig`),
//! at the start and after each change alike: whatever is in effect must pass as a whole.
//!
//! Each value has been checked as its own kind before. What only a change is held to, by what was in effect before it, is in
//! `dynamic/change.rs`; what listeners demand, which change at a start only, is in `listeners.rs`.

#![forbid(unsafe_code)]

use super::load::{ConfigError, Settings, invalid};

/// Kafka needs more than this much of the cleaner's memory for each of its threads.
const DEDUPE_BUFFER_BYTES_MIN: i64 = 1024 * 1024;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;

/// The first is at least the second.
const AT_LEAST: &[(&str, &str)] = &[
    ("replica.socket.timeout.ms", "replica.fetch.wait.max.ms"),
    ("replica.lag.time.max.ms", "replica.fetch.wait.max.ms"),
    ("offsets.topic.replication.factor", "offsets.commit.required.acks"),
    ("group.consumer.max.heartbeat.interval.ms", "group.consumer.min.heartbeat.interval.ms"),
    ("group.consumer.heartbeat.interval.ms", "group.consumer.min.heartbeat.interval.ms"),
    ("group.consumer.max.heartbeat.interval.ms", "group.consumer.heartbeat.interval.ms"),
    ("group.consumer.max.session.timeout.ms", "group.consumer.min.session.timeout.ms"),
    ("group.consumer.session.timeout.ms", "group.consumer.min.session.timeout.ms"),
    ("group.consumer.max.session.timeout.ms", "group.consumer.session.timeout.ms"),
    ("group.share.max.heartbeat.interval.ms", "group.share.min.heartbeat.interval.ms"),
    ("group.share.heartbeat.interval.ms", "group.share.min.heartbeat.interval.ms"),
    ("group.share.max.heartbeat.interval.ms", "group.share.heartbeat.interval.ms"),
    ("group.share.max.session.timeout.ms", "group.share.min.session.timeout.ms"),
    ("group.share.session.timeout.ms", "group.share.min.session.timeout.ms"),
    ("group.share.max.session.timeout.ms", "group.share.session.timeout.ms"),
    ("group.share.record.lock.duration.ms", "group.share.min.record.lock.duration.ms"),
    ("group.share.max.record.lock.duration.ms", "group.share.record.lock.duration.ms"),
];

/// # Errors
/// One that names the settings which do not go together.
pub(super) fn check(settings: &Settings) -> Result<(), ConfigError> {
    let number = |name: &str| settings.value(name).number();
    let refuse =
        |name: &str, reason: &str| Err(invalid(name, settings.text(name).unwrap_or_default(), reason.to_owned()));

    let (name, retention_ms) = retention_ms(settings);
    if retention_ms == 0 {
        return refuse(name, "records would go at once; it must be -1 (for ever), or at least 1");
    }
    for (greater, lesser) in AT_LEAST {
        if number(greater) < number(lesser) {
            return refuse(greater, &format!("must be at least {lesser} ({})", number(lesser)));
        }
    }
    let threads = number("log.cleaner.threads");
    if threads == 0 {
        return refuse("log.cleaner.threads", "must be at least 1; log.cleaner.enable turns the cleaner off");
    }
    if number("log.cleaner.dedupe.buffer.size") / threads <= DEDUPE_BUFFER_BYTES_MIN {
        return refuse("log.cleaner.dedupe.buffer.size", "must be more than 1 MiB for each of log.cleaner.threads");
    }
    let (queued_bytes, request_bytes) = (number("queued.max.request.bytes"), number("socket.request.max.bytes"));
    if queued_bytes > 0 && queued_bytes < request_bytes {
        let reason = format!("must be at least socket.request.max.bytes ({request_bytes}), or -1");
        return refuse("queued.max.request.bytes", &reason);
    }
    if number("max.connections.per.ip") == 0 && settings.text("max.connections.per.ip.overrides").is_none() {
        return refuse("max.connections.per.ip", "nobody could connect; 0 needs max.connections.per.ip.overrides");
    }
    let (idle_ms, delay_ms) = (number("connections.max.idle.ms"), number("connection.failed.authentication.delay.ms"));
    if idle_ms >= 0 && delay_ms >= idle_ms {
        let reason = format!("must be more than connection.failed.authentication.delay.ms ({delay_ms}), or negative");
        return refuse("connections.max.idle.ms", &reason);
    }
    let protocols = settings.value("group.coordinator.rebalance.protocols");
    let has = |protocol| protocols.text().split(',').any(|found| found.trim() == protocol);
    if !has("classic") || has("consumer") {
        let reason = "must have classic, and consumer is for KRaft mode only";
        return refuse("group.coordinator.rebalance.protocols", reason);
    }
    Ok(())
}

/// The setting that says how long records are kept, and for how long; any negative time is for ever: -1 (Kafka 3.9
/// `KafkaConfig.logRetentionTimeMillis`).
pub(super) fn retention_ms(settings: &Settings) -> (&'static str, i64) {
    let units = [("log.retention.ms", 1), ("log.retention.minutes", MINUTE_MS), ("log.retention.hours", HOUR_MS)];
    let set = units.into_iter().find(|(name, _)| settings.named.contains_key(*name));
    let (name, unit) = set.unwrap_or(("log.retention.hours", HOUR_MS));
    (name, settings.value(name).number().saturating_mul(unit).max(-1))
}
