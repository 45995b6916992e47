//! The table of Kafka 3.9's broker settings.

#![forbid(unsafe_code)]

use super::value::Kind;

/// One broker setting.
#[derive(Clone, Copy, Debug)]
pub struct BrokerKey {
    pub name: &'static str,
    pub kind: Kind,
    /// Kafka's default as text; empty for "not set".
    pub default: &'static str,
    /// Whether the broker lives by it. One it does not is kept, and said at start if it is set.
    pub applied: bool,
}

impl BrokerKey {
    pub fn find(name: &str) -> Option<&'static BrokerKey> {
        BROKER_KEYS.binary_search_by(|key| key.name.cmp(name)).ok().map(|at| &BROKER_KEYS[at])
    }
}

/// Settings that are known by how they begin: per listener, TLS, SASL and others that plug-ins read.
pub const KNOWN_PREFIXES: &[&str] =
    &["listener.name.", "ssl.", "sasl.", "zookeeper.ssl.", "authorizer.", "remote.log.", "kafka.", "group."];

/// Whether Kafka 3.9 knows the name.
pub fn is_known(name: &str) -> bool {
    BrokerKey::find(name).is_some() || KNOWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The known name that `name` was most likely meant to be; `None` if none is near.
pub fn nearest(name: &str) -> Option<&'static str> {
    let candidates = BROKER_KEYS.iter().map(|key| key.name);
    let (distance, found) = candidates.map(|known| (distance(name, known), known)).min()?;
    (distance <= 2.max(name.len() / 5)).then_some(found)
}

/// Levenshtein's: how many single characters to insert, delete or replace.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, in_a) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, in_b) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(in_a != *in_b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

const fn applied(name: &'static str, kind: Kind, default: &'static str) -> BrokerKey {
    BrokerKey { name, kind, default, applied: true }
}

const fn kept(name: &'static str, kind: Kind, default: &'static str) -> BrokerKey {
    BrokerKey { name, kind, default, applied: false }
}

const LONG: Kind = Kind::Long { min: i64::MIN, max: i64::MAX };
const INT: Kind = Kind::Int { min: i32::MIN, max: i32::MAX };
const SHORT: Kind = Kind::Int { min: 1, max: 32_767 };
const RATIO: Kind = Kind::Double { min: 0.0, max: 1.0 };
const POSITIVE: Kind = Kind::Double { min: 0.0, max: f64::INFINITY };
const MAX_INT: &str = "2147483647";
const MAX_LONG: &str = "9223372036854775807";
const COMPRESSION: Kind = Kind::Word(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]);
const TIMESTAMPS: Kind = Kind::Word(&["CreateTime", "LogAppendTime"]);
const CLEANUP: Kind = Kind::Words(&["compact", "delete"]);

/// By name.
#[rustfmt::skip]
pub const BROKER_KEYS: &[BrokerKey] = &[
    kept("advertised.host.name", Kind::Text, ""),
    applied("advertised.listeners", Kind::Text, ""),
    kept("allow.everyone.if.no.acl.found", Kind::Bool, "false"),
    kept("alter.config.policy.class.name", Kind::Text, ""),
    kept("alter.log.dirs.replication.quota.window.num", Kind::int(1), "11"),
    kept("alter.log.dirs.replication.quota.window.size.seconds", Kind::int(1), "1"),
    kept("authorizer.class.name", Kind::Text, ""),
    applied("auto.create.topics.enable", Kind::Bool, "true"),
    kept("auto.include.jmx.reporter", Kind::Bool, "true"),
    kept("auto.leader.rebalance.enable", Kind::Bool, "true"),
    kept("background.threads", Kind::int(1), "10"),
    applied("broker.id", INT, "-1"),
    applied("broker.id.generation.enable", Kind::Bool, "true"),
    applied("broker.rack", Kind::Text, ""),
    kept("client.quota.callback.class", Kind::Text, ""),
    kept("compression.gzip.level", Kind::GzipLevel, "-1"),
    kept("compression.lz4.level", Kind::Int { min: 1, max: 17 }, "9"),
    kept("compression.type", COMPRESSION, "producer"),
    kept("compression.zstd.level", Kind::Int { min: -131_072, max: 22 }, "3"),
    kept("connection.failed.authentication.delay.ms", Kind::int(0), "100"),
    applied("connections.max.idle.ms", LONG, "600000"),
    kept("connections.max.reauth.ms", LONG, "0"),
    kept("control.plane.listener.name", Kind::Text, ""),
    kept("controlled.shutdown.enable", Kind::Bool, "true"),
    kept("controlled.shutdown.max.retries", INT, "3"),
    kept("controlled.shutdown.retry.backoff.ms", LONG, "5000"),
    kept("controller.quota.window.num", Kind::int(1), "11"),
    kept("controller.quota.window.size.seconds", Kind::int(1), "1"),
    kept("controller.socket.timeout.ms", INT, "30000"),
    kept("create.topic.policy.class.name", Kind::Text, ""),
    applied("default.replication.factor", SHORT, "1"),
    kept("delegation.token.expiry.check.interval.ms", Kind::long(1), "3600000"),
    kept("delegation.token.expiry.time.ms", Kind::long(1), "86400000"),
    kept("delegation.token.master.key", Kind::Text, ""),
    kept("delegation.token.max.lifetime.ms", Kind::long(1), "604800000"),
    kept("delegation.token.secret.key", Kind::Text, ""),
    kept("delete.records.purgatory.purge.interval.requests", INT, "1"),
    applied("delete.topic.enable", Kind::Bool, "true"),
    kept("early.start.listeners", Kind::Text, ""),
    applied("fetch.max.bytes", Kind::int(1024), "57671680"),
    kept("fetch.purgatory.purge.interval.requests", INT, "1000"),
    kept("group.initial.rebalance.delay.ms", INT, "3000"),
    kept("group.max.session.timeout.ms", INT, "1800000"),
    kept("group.max.size", Kind::int(1), MAX_INT),
    kept("group.min.session.timeout.ms", INT, "6000"),
    kept("inter.broker.listener.name", Kind::Text, ""),
    kept("inter.broker.protocol.version", Kind::Text, "3.9-IV0"),
    kept("leader.imbalance.check.interval.seconds", Kind::long(1), "300"),
    kept("leader.imbalance.per.broker.percentage", INT, "10"),
    applied("listener.security.protocol.map", Kind::Text, ""),
    applied("listeners", Kind::Text, "PLAINTEXT://:9092"),
    applied("log.cleaner.backoff.ms", Kind::long(0), "15000"),
    applied("log.cleaner.dedupe.buffer.size", LONG, "134217728"),
    applied("log.cleaner.delete.retention.ms", Kind::long(0), "86400000"),
    applied("log.cleaner.enable", Kind::Bool, "true"),
    applied("log.cleaner.io.buffer.load.factor", POSITIVE, "0.9"),
    applied("log.cleaner.io.buffer.size", Kind::int(0), "524288"),
    applied("log.cleaner.io.max.bytes.per.second", POSITIVE, "1.7976931348623157E308"),
    applied("log.cleaner.max.compaction.lag.ms", Kind::long(1), MAX_LONG),
    applied("log.cleaner.min.cleanable.ratio", RATIO, "0.5"),
    applied("log.cleaner.min.compaction.lag.ms", Kind::long(0), "0"),
    applied("log.cleaner.threads", Kind::int(0), "1"),
    applied("log.cleanup.policy", CLEANUP, "delete"),
    applied("log.dir", Kind::Text, "/tmp/kafka-logs"),
    kept("log.dir.failure.timeout.ms", Kind::long(1), "30000"),
    applied("log.dirs", Kind::Text, ""),
    applied("log.flush.interval.messages", Kind::long(1), MAX_LONG),
    applied("log.flush.interval.ms", LONG, ""),
    applied("log.flush.offset.checkpoint.interval.ms", Kind::int(0), "60000"),
    applied("log.flush.scheduler.interval.ms", LONG, MAX_LONG),
    applied("log.flush.start.offset.checkpoint.interval.ms", Kind::int(0), "60000"),
    applied("log.index.interval.bytes", Kind::int(0), "4096"),
    applied("log.index.size.max.bytes", Kind::int(4), "10485760"),
    applied("log.initial.task.delay.ms", Kind::long(0), "30000"),
    kept("log.local.retention.bytes", Kind::long(-2), "-2"),
    kept("log.local.retention.ms", Kind::long(-2), "-2"),
    applied("log.message.downconversion.enable", Kind::Bool, "true"),
    kept("log.message.format.version", Kind::Text, "3.0-IV1"),
    applied("log.message.timestamp.after.max.ms", Kind::long(0), MAX_LONG),
    applied("log.message.timestamp.before.max.ms", Kind::long(0), MAX_LONG),
    applied("log.message.timestamp.difference.max.ms", Kind::long(0), MAX_LONG),
    applied("log.message.timestamp.type", TIMESTAMPS, "CreateTime"),
    kept("log.preallocate", Kind::Bool, "false"),
    applied("log.retention.bytes", LONG, "-1"),
    applied("log.retention.check.interval.ms", Kind::long(1), "300000"),
    applied("log.retention.hours", INT, "168"),
    applied("log.retention.minutes", INT, ""),
    applied("log.retention.ms", LONG, ""),
    applied("log.roll.hours", Kind::int(1), "168"),
    applied("log.roll.jitter.hours", Kind::int(0), "0"),
    applied("log.roll.jitter.ms", LONG, ""),
    applied("log.roll.ms", LONG, ""),
    applied("log.segment.bytes", Kind::int(14), "1073741824"),
    applied("log.segment.delete.delay.ms", Kind::long(0), "60000"),
    applied("max.connection.creation.rate", Kind::int(0), MAX_INT),
    applied("max.connections", Kind::int(0), MAX_INT),
    applied("max.connections.per.ip", Kind::int(0), MAX_INT),
    applied("max.connections.per.ip.overrides", Kind::Text, ""),
    applied("max.incremental.fetch.session.cache.slots", Kind::int(0), "1000"),
    kept("max.request.partition.size.limit", Kind::int(1), "2000"),
    applied("message.max.bytes", Kind::int(0), "1048588"),
    kept("metric.reporters", Kind::Text, ""),
    kept("metrics.num.samples", Kind::int(1), "2"),
    kept("metrics.recording.level", Kind::Text, "INFO"),
    kept("metrics.sample.window.ms", Kind::long(1), "30000"),
    applied("min.insync.replicas", Kind::int(1), "1"),
    kept("num.io.threads", Kind::int(1), "8"),
    kept("num.network.threads", Kind::int(1), "3"),
    applied("num.partitions", Kind::int(1), "1"),
    kept("num.recovery.threads.per.data.dir", Kind::int(1), "1"),
    kept("num.replica.alter.log.dirs.threads", INT, ""),
    kept("num.replica.fetchers", INT, "1"),
    kept("offset.metadata.max.bytes", INT, "4096"),
    kept("offsets.commit.required.acks", INT, "-1"),
    kept("offsets.commit.timeout.ms", Kind::int(1), "5000"),
    kept("offsets.load.buffer.size", Kind::int(1), "5242880"),
    kept("offsets.retention.check.interval.ms", Kind::long(1), "600000"),
    kept("offsets.retention.minutes", Kind::int(1), "10080"),
    kept("offsets.topic.compression.codec", INT, "0"),
    applied("offsets.topic.num.partitions", Kind::int(1), "50"),
    applied("offsets.topic.replication.factor", SHORT, "3"),
    applied("offsets.topic.segment.bytes", Kind::int(14), "104857600"),
    kept("password.encoder.cipher.algorithm", Kind::Text, "AES/CBC/PKCS5Padding"),
    kept("password.encoder.iterations", Kind::int(1024), "4096"),
    kept("password.encoder.key.length", Kind::int(8), "128"),
    kept("password.encoder.keyfactory.algorithm", Kind::Text, ""),
    kept("password.encoder.old.secret", Kind::Text, ""),
    kept("password.encoder.secret", Kind::Text, ""),
    kept("principal.builder.class", Kind::Text, ""),
    kept("process.roles", Kind::Text, ""),
    kept("producer.id.expiration.check.interval.ms", Kind::int(1), "600000"),
    kept("producer.id.expiration.ms", Kind::int(1), "86400000"),
    kept("producer.purgatory.purge.interval.requests", INT, "1000"),
    kept("queued.max.request.bytes", LONG, "-1"),
    kept("queued.max.requests", Kind::int(1), "500"),
    kept("quota.window.num", Kind::int(1), "11"),
    kept("quota.window.size.seconds", Kind::int(1), "1"),
    kept("replica.fetch.backoff.ms", Kind::int(0), "1000"),
    kept("replica.fetch.max.bytes", Kind::int(0), "1048576"),
    kept("replica.fetch.min.bytes", INT, "1"),
    kept("replica.fetch.response.max.bytes", Kind::int(0), "10485760"),
    kept("replica.fetch.wait.max.ms", INT, "500"),
    applied("replica.high.watermark.checkpoint.interval.ms", LONG, "5000"),
    kept("replica.lag.time.max.ms", LONG, "30000"),
    kept("replica.selector.class", Kind::Text, ""),
    kept("replica.socket.receive.buffer.bytes", INT, "65536"),
    kept("replica.socket.timeout.ms", INT, "30000"),
    kept("replication.quota.window.num", Kind::int(1), "11"),
    kept("replication.quota.window.size.seconds", Kind::int(1), "1"),
    kept("request.timeout.ms", INT, "30000"),
    applied("reserved.broker.max.id", Kind::int(0), "1000"),
    kept("security.inter.broker.protocol", Kind::Text, "PLAINTEXT"),
    kept("security.providers", Kind::Text, ""),
    applied("socket.listen.backlog.size", Kind::int(1), "50"),
    applied("socket.receive.buffer.bytes", Kind::int(-1), "102400"),
    applied("socket.request.max.bytes", Kind::int(1), "104857600"),
    applied("socket.send.buffer.bytes", Kind::int(-1), "102400"),
    kept("super.users", Kind::Text, ""),
    kept("telemetry.max.bytes", Kind::int(1), "1048576"),
    kept("transaction.abort.timed.out.transaction.cleanup.interval.ms", Kind::int(1), "10000"),
    kept("transaction.max.timeout.ms", Kind::int(1), "900000"),
    kept("transaction.partition.verification.enable", Kind::Bool, "true"),
    kept("transaction.remove.expired.transaction.cleanup.interval.ms", Kind::int(1), "3600000"),
    kept("transaction.state.log.load.buffer.size", Kind::int(1), "5242880"),
    applied("transaction.state.log.min.isr", Kind::int(1), "2"),
    applied("transaction.state.log.num.partitions", Kind::int(1), "50"),
    applied("transaction.state.log.replication.factor", SHORT, "3"),
    applied("transaction.state.log.segment.bytes", Kind::int(14), "104857600"),
    kept("transactional.id.expiration.ms", Kind::int(1), "604800000"),
    applied("unclean.leader.election.enable", Kind::Bool, "false"),
    kept("unstable.api.versions.enable", Kind::Bool, "false"),
    kept("zookeeper.clientCnxnSocket", Kind::Text, ""),
    kept("zookeeper.connect", Kind::Text, ""),
    kept("zookeeper.connection.timeout.ms", INT, ""),
    kept("zookeeper.max.in.flight.requests", Kind::int(1), "10"),
    kept("zookeeper.metadata.migration.enable", Kind::Bool, "false"),
    kept("zookeeper.session.timeout.ms", INT, "18000"),
    kept("zookeeper.set.acl", Kind::Bool, "false"),
];

#[cfg(test)]
mod tests {
    use super::super::topic::TOPIC_KEYS;
    use super::*;

    #[test]
    fn the_table_is_sorted_and_its_defaults_are_valid() {
        assert!(BROKER_KEYS.is_sorted_by(|a, b| a.name < b.name));
        for key in BROKER_KEYS.iter().filter(|key| !key.default.is_empty()) {
            key.kind.parse(key.default).unwrap_or_else(|reason| panic!("{}: {reason}", key.name));
        }
    }

    #[test]
    fn every_synonym_of_a_topic_config_is_in_the_table() {
        for (synonym, _) in TOPIC_KEYS.iter().flat_map(|key| key.synonyms) {
            assert!(BrokerKey::find(synonym).is_some(), "{synonym}");
        }
    }

    #[test]
    fn a_misspelled_name_finds_the_one_it_was_meant_to_be() {
        assert_eq!(nearest("num.partition"), Some("num.partitions"));
        assert_eq!(nearest("log.segments.byte"), Some("log.segment.bytes"));
        assert_eq!(nearest("my.plugin.setting.of.mine"), None);
        assert!(is_known("listener.name.internal.ssl.keystore.location") && !is_known("num.partition"));
    }
}
