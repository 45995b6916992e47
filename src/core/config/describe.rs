//! Settings as clients are told of them (Kafka 3.9 `ConfigHelper`): value, type, source, and where else they may come from.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use super::dynamic::{BrokerScope, ConfigSource, Synonym};
use super::keys::{self, BROKER_KEYS, BrokerKey, Update};
use super::topic::TOPIC_KEYS;
use super::value::{ConfigType, Kind};
use super::{DynamicConfig, TopicConfig};

/// One setting of a topic or a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    pub name: String,
    /// `None`: not set, or nobody may know.
    pub value: Option<String>,
    pub source: ConfigSource,
    pub is_sensitive: bool,
    pub read_only: bool,
    /// The first is the one that counts; of sensitive ones the values are not to be told.
    pub synonyms: Vec<Synonym>,
    pub config_type: ConfigType,
    pub documentation: Option<&'static str>,
}

/// All settings of a topic, by name.
pub fn topic(config: &TopicConfig, dynamic: &DynamicConfig) -> Vec<ConfigEntry> {
    let describe = |key: &super::topic::TopicKey| {
        let broker_name = key.synonyms.first().map(|(name, _)| *name);
        let mut synonyms = broker_name.map_or_else(Vec::new, |name| dynamic.synonyms(name));
        let value = match config.overrides.get(key.name) {
            Some(text) => {
                let value = written(key.kind, text);
                let own = Synonym { name: key.name.to_owned(), value: value.clone(), source: ConfigSource::Topic };
                synonyms.insert(0, own);
                value
            }
            None => key.broker_text(dynamic),
        };
        ConfigEntry {
            name: key.name.to_owned(),
            value: Some(value),
            source: source_of(&synonyms),
            is_sensitive: false,
            read_only: false,
            synonyms,
            config_type: key.kind.config_type(),
            documentation: Some(key.documentation()),
        }
    };
    TOPIC_KEYS.iter().map(describe).collect()
}

/// All settings of this broker, by name: Kafka's, and whatever else somebody has set.
pub fn broker(dynamic: &DynamicConfig) -> Vec<ConfigEntry> {
    let set = dynamic.effective();
    let listed = BROKER_KEYS.iter().filter(|key| !key.internal).map(|key| key.name);
    let names: BTreeSet<&str> = listed.chain(set.keys().map(String::as_str)).collect();
    let describe = |name: &str| {
        let value = match (set.get(name).filter(|text| !text.is_empty()), BrokerKey::find(name)) {
            (Some(text), Some(key)) => Some(written(key.kind, text)),
            (Some(text), None) => Some(text.clone()),
            (None, Some(key)) => key.default_text(),
            (None, None) => Some(String::new()),
        };
        broker_entry(name, value, dynamic.synonyms(name))
    };
    names.into_iter().map(describe).collect()
}

/// What is set for all brokers while they run, by name.
pub fn all_brokers(dynamic: &DynamicConfig) -> Vec<ConfigEntry> {
    let describe = |(name, value): (&String, &String)| {
        let mut synonyms = dynamic.synonyms(name);
        synonyms.retain(|synonym| synonym.source == ConfigSource::DynamicDefaultBroker);
        broker_entry(name, Some(value.clone()), synonyms)
    };
    dynamic.of(BrokerScope::All).iter().map(describe).collect()
}

/// A logger and its level.
pub fn logger(name: &str, level: &str) -> ConfigEntry {
    ConfigEntry {
        name: name.to_owned(),
        value: Some(level.to_owned()),
        source: ConfigSource::DynamicBrokerLogger,
        is_sensitive: false,
        read_only: false,
        synonyms: Vec::new(),
        config_type: ConfigType::Unknown,
        documentation: None,
    }
}

fn broker_entry(name: &str, value: Option<String>, synonyms: Vec<Synonym>) -> ConfigEntry {
    let key = BrokerKey::find(name);
    let kind = key.map(|key| key.kind).or_else(|| keys::dynamic_kind(keys::without_listener(name)));
    let config_type = kind.map_or(ConfigType::Unknown, Kind::config_type);
    // What Kafka does not know may be a secret.
    let is_sensitive = matches!(config_type, ConfigType::Password | ConfigType::Unknown);
    ConfigEntry {
        name: name.to_owned(),
        value: value.filter(|_| !is_sensitive),
        source: source_of(&synonyms),
        is_sensitive,
        read_only: key.is_none_or(|key| key.update == Update::ReadOnly),
        synonyms,
        config_type,
        documentation: key.map(|key| key.documentation),
    }
}

fn source_of(synonyms: &[Synonym]) -> ConfigSource {
    synonyms.first().map_or(ConfigSource::Default, |synonym| synonym.source)
}

/// A text that was checked before, as its kind is written.
fn written(kind: Kind, text: &str) -> String {
    kind.parse(text).map_or_else(|_| text.trim().to_owned(), |value| kind.text(&value))
}

#[cfg(test)]
mod tests {
    use super::super::dynamic::ConfigMap;
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> ConfigMap {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn find<'e>(entries: &'e [ConfigEntry], name: &str) -> &'e ConfigEntry {
        entries.iter().find(|entry| entry.name == name).unwrap_or_else(|| panic!("{name} is not described"))
    }

    fn sources(entry: &ConfigEntry) -> Vec<(&str, &str, ConfigSource)> {
        entry.synonyms.iter().map(|synonym| (&*synonym.name, &*synonym.value, synonym.source)).collect()
    }

    #[test]
    fn a_topic_names_its_override_then_the_brokers_settings_from_the_nearest_to_the_default() {
        use ConfigSource::{Default, DynamicBroker, DynamicDefaultBroker, Topic};
        let dynamic = DynamicConfig::default().with(BrokerScope::All, &map(&[("log.segment.bytes", "1000")])).unwrap();
        let dynamic = dynamic.with(BrokerScope::This, &map(&[("log.segment.bytes", "2000")])).unwrap();
        let config = dynamic.topic_defaults.with_overrides(&map(&[("cleanup.policy", "compact, delete")])).unwrap();
        let entries = topic(&config, &dynamic);
        let bytes = find(&entries, "segment.bytes");
        assert_eq!((bytes.value.as_deref(), bytes.source), (Some("2000"), DynamicBroker));
        assert_eq!(
            sources(bytes),
            [
                ("log.segment.bytes", "2000", DynamicBroker),
                ("log.segment.bytes", "1000", DynamicDefaultBroker),
                ("log.segment.bytes", "1073741824", Default),
            ]
        );
        let policy = find(&entries, "cleanup.policy");
        assert_eq!((policy.value.as_deref(), policy.source), (Some("compact,delete"), Topic));
        assert_eq!(policy.synonyms.len(), 2);
        // Kafka drops all before the name itself, and nothing has set that.
        let retention = find(&entries, "retention.ms");
        assert_eq!((retention.value.as_deref(), retention.source), (Some("604800000"), Default));
        assert_eq!(retention.synonyms, []);
        assert!(entries.iter().all(|entry| entry.documentation.is_some_and(|text| text.ends_with('.'))));
    }

    #[test]
    fn a_brokers_unknown_names_are_listed_without_their_values() {
        let set = map(&[("my.plugin.secret", "s"), ("num.io.threads", "9"), ("log.retention.ms", "5")]);
        let dynamic = DynamicConfig::default().with(BrokerScope::This, &set).unwrap();
        let entries = broker(&dynamic);
        let unknown = find(&entries, "my.plugin.secret");
        assert_eq!((&unknown.value, unknown.is_sensitive, unknown.read_only), (&None, true, true));
        assert_eq!(unknown.config_type, ConfigType::Unknown);
        let threads = find(&entries, "num.io.threads");
        assert_eq!((threads.value.as_deref(), threads.read_only), (Some("9"), false));
        assert_eq!((threads.config_type, threads.source), (ConfigType::Int, ConfigSource::DynamicBroker));
        assert_eq!(find(&entries, "log.retention.ms").synonyms.len(), 2, "itself and the hours' default");
        let password = find(&entries, "ssl.key.password");
        assert_eq!((&password.value, password.is_sensitive), (&None, true));
        let ratio = find(&entries, "log.cleaner.min.cleanable.ratio");
        assert_eq!((ratio.value.as_deref(), ratio.config_type), (Some("0.5"), ConfigType::Double));
        assert!(!entries.iter().any(|entry| entry.name == "log.initial.task.delay.ms"), "it is internal");
        assert_eq!(all_brokers(&dynamic), []);
    }
}
