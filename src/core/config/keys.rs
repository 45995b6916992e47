//! What Kafka 3.9's broker settings are, and how their names hang together.

#![forbid(unsafe_code)]

mod table;

use super::value::Kind;

pub use table::BROKER_KEYS;

/// One broker setting.
#[derive(Clone, Copy, Debug)]
pub struct BrokerKey {
    pub name: &'static str,
    pub kind: Kind,
    /// Kafka's default as text; empty for "not set".
    pub default: &'static str,
    /// Kafka's default is the empty text, not "not set".
    empty_by_default: bool,
    /// Whether the broker lives by it. One it does not is kept, and said at start if it is set.
    pub applied: bool,
    pub update: Update,
    /// Clients are told of it only if somebody has set it.
    pub internal: bool,
    /// What it is about, for clients.
    pub documentation: &'static str,
}

/// How a setting may change while the broker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// Not at all.
    ReadOnly,
    /// For all brokers or for one.
    ClusterWide,
    /// For one broker.
    PerBroker,
}

impl BrokerKey {
    pub fn find(name: &str) -> Option<&'static BrokerKey> {
        BROKER_KEYS.binary_search_by(|key| key.name.cmp(name)).ok().map(|at| &BROKER_KEYS[at])
    }

    /// Kafka's default as clients are told of it; `None`: null.
    pub fn default_text(&self) -> Option<String> {
        if self.default.is_empty() {
            return self.empty_by_default.then(String::new);
        }
        let value = self.kind.parse(self.default).expect("the table's defaults are valid");
        Some(self.kind.text(&value))
    }

    const fn cluster_wide(self) -> BrokerKey {
        BrokerKey { update: Update::ClusterWide, ..self }
    }

    const fn per_broker(self) -> BrokerKey {
        BrokerKey { update: Update::PerBroker, ..self }
    }

    const fn internal(self) -> BrokerKey {
        BrokerKey { internal: true, ..self }
    }

    const fn empty_by_default(self) -> BrokerKey {
        BrokerKey { empty_by_default: true, ..self }
    }
}

/// Settings that plug-ins of Kafka read, and Kafka itself does not list.
const PLUGIN_KEYS: &[&str] = &["allow.everyone.if.no.acl.found", "super.users"];

/// Settings that are known by how they begin: those of one listener, and those of plug-ins.
const KNOWN_PREFIXES: &[&str] = &["listener.name.", "authorizer.", "rlmm.config.", "rsm.config."];

/// What may be set for all brokers for one listener alone (Kafka 3.9 `DynamicBrokerConfig.ClusterLevelListenerConfigs`).
pub const CLUSTER_LEVEL_LISTENER_KEYS: &[&str] =
    &["max.connection.creation.rate", "max.connections", "num.network.threads"];

/// Broker settings that exist as dynamic ones only (Kafka 3.9 `QuotaConfigs.brokerQuotaConfigs`).
const DYNAMIC_ONLY_KEYS: &[&str] = &[
    "follower.replication.throttled.rate",
    "leader.replication.throttled.rate",
    "replica.alter.log.dirs.io.max.bytes.per.second",
];

/// What a setting may hold that is changed while the broker runs; `None`: only plug-ins know it.
pub fn dynamic_kind(name: &str) -> Option<Kind> {
    let only_dynamic = || DYNAMIC_ONLY_KEYS.contains(&name).then_some(Kind::long(0));
    BrokerKey::find(name).map(|key| key.kind).or_else(only_dynamic)
}

/// Names for the same thing, the one that counts first.
const SYNONYMS: &[&[&str]] = &[
    &["log.retention.ms", "log.retention.minutes", "log.retention.hours"],
    &["log.roll.jitter.ms", "log.roll.jitter.hours"],
    &["log.roll.ms", "log.roll.hours"],
];

/// Whether Kafka 3.9 or a plug-in of it knows the name.
pub fn is_known(name: &str) -> bool {
    BrokerKey::find(name).is_some()
        || PLUGIN_KEYS.contains(&name)
        || KNOWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The name without `listener.name.<listener>.` before it.
pub fn without_listener(name: &str) -> &str {
    split_listener(name).map_or(name, |(_, base)| base)
}

/// The listener that the name is about, if it is about one.
pub fn listener_of(name: &str) -> Option<&str> {
    split_listener(name).map(|(listener, _)| listener)
}

fn split_listener(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix("listener.name.")?.split_once('.')
}

/// All names under which the value of `name` may be set, the one that counts first (Kafka 3.9
/// `DynamicBrokerConfig.brokerConfigSynonyms`).
pub fn synonyms(name: &str) -> Vec<&str> {
    if let Some(names) = SYNONYMS.iter().find(|names| names.contains(&name)) {
        return names.to_vec();
    }
    match (name, without_listener(name)) {
        ("log.flush.interval.ms", _) => vec![name, "log.flush.scheduler.interval.ms"],
        (_, base) if base != name => vec![name, base],
        _ => vec![name],
    }
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

const fn applied(name: &'static str, kind: Kind, default: &'static str, documentation: &'static str) -> BrokerKey {
    BrokerKey { applied: true, ..kept(name, kind, default, documentation) }
}

const fn kept(name: &'static str, kind: Kind, default: &'static str, documentation: &'static str) -> BrokerKey {
    BrokerKey {
        name,
        kind,
        default,
        empty_by_default: false,
        applied: false,
        update: Update::ReadOnly,
        internal: false,
        documentation,
    }
}

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

    /// Kind and name, then type, default, update mode, internal.
    fn golden() -> Vec<Vec<&'static str>> {
        let lines = include_str!("../../../tests/golden/settings/kafka-3.9.1.txt").lines();
        lines.filter(|line| !line.starts_with('#')).map(|line| line.split('\t').collect()).collect()
    }

    #[test]
    fn the_tables_have_every_setting_of_kafkas_own_classes_and_no_other() {
        let type_of = |kind: Kind| format!("{:?}", kind.config_type()).to_uppercase();
        let quoted = |text: Option<String>| text.map_or_else(|| "null".to_owned(), |text| format!("'{text}'"));
        let broker = BROKER_KEYS.iter().map(|key| {
            let update = match key.update {
                Update::ReadOnly => "-",
                Update::ClusterWide => "cluster-wide",
                Update::PerBroker => "per-broker",
            };
            let internal = if key.internal { "internal" } else { "-" };
            let texts = ["broker", key.name, &type_of(key.kind), &quoted(key.default_text()), update, internal];
            texts.map(str::to_owned).to_vec()
        });
        let topic = TOPIC_KEYS.iter().map(|key| {
            let default = quoted(Some(key.default.to_owned()));
            ["topic", key.name, &type_of(key.kind), &default, "-", "-"].map(str::to_owned).to_vec()
        });
        let ours: Vec<Vec<String>> = broker.chain(topic).collect();
        let golden = golden();
        assert_eq!(ours.len(), golden.len());
        for (ours, kafkas) in ours.iter().zip(golden) {
            // Kafka writes this map in the order of a hash.
            if ours[1] != "listener.security.protocol.map" {
                assert_eq!(ours, &kafkas);
            }
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
        assert!(is_known("super.users") && !is_known("ssl.keystore.locaton"));
    }
}
