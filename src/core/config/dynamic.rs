//! The broker settings that may change while the broker runs (Kafka 3.9 `DynamicBrokerConfig`), resolved.
//!
//! Each value comes from the first of these that has it: `--override`, the broker's own dynamic settings
//! (`/config/brokers/N`), those of all brokers (`/config/brokers/<default>`), `--set`, `server.properties`, Kafka's default.
//! What is overridden is stored and held to its rules all the same: it counts again without the flag. A change makes a new
//! [`DynamicConfig`]; the one in force is part of the cluster image, so every shard reads it there and nowhere else.

#![forbid(unsafe_code)]

mod change;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::keys::{self, BrokerKey, Update};
use super::load::{ConfigError, Settings, invalid};
use super::{ConnectionQuotaLimits, Endpoint, TopicConfig, rules};

/// Names and values as somebody wrote them.
pub type ConfigMap = BTreeMap<String, String>;

/// See the head of this file. Fields keep Kafka's spelling.
#[derive(Clone, Debug, PartialEq)]
pub struct DynamicConfig {
    /// The `log.*` settings and their like: what a topic without overrides lives by.
    pub topic_defaults: Arc<TopicConfig>,
    /// `max.connections` and its like.
    pub connection_quotas: ConnectionQuotaLimits,
    pub log_cleaner_threads: u32,
    pub log_cleaner_dedupe_buffer_size: u64,
    pub log_cleaner_io_buffer_size: u32,
    pub log_cleaner_io_buffer_load_factor: f64,
    pub log_cleaner_io_max_bytes_per_second: f64,
    pub log_cleaner_backoff_ms: u64,
    pub producer_id_expiration_ms: i64,
    layers: Layers,
}

/// Where values come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Layers {
    /// Limits of connections are by listener.
    listeners: Arc<[Endpoint]>,
    /// Of flags and files.
    fixed: Arc<ConfigMap>,
    of_all_brokers: Arc<ConfigMap>,
    of_this_broker: Arc<ConfigMap>,
    /// `--override`.
    overrides: Arc<ConfigMap>,
}

/// Which entity's settings: this broker's, or those of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerScope {
    This,
    All,
}

/// Where a value comes from; the numbers are those of DescribeConfigs and CreateTopics responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum ConfigSource {
    Topic = 1,
    DynamicBroker = 2,
    DynamicDefaultBroker = 3,
    StaticBroker = 4,
    Default = 5,
    DynamicBrokerLogger = 6,
}

/// One name that a value may have been set under, and what it says there; the first counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synonym {
    pub name: String,
    pub value: String,
    pub source: ConfigSource,
}

/// A setting that files and flags give another value than before, or none any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedSetting {
    pub name: String,
    pub from: Option<String>,
    pub to: Option<String>,
    /// Whether it may change while the broker runs.
    pub is_taken: bool,
}

impl Default for DynamicConfig {
    /// Kafka's defaults.
    fn default() -> DynamicConfig {
        DynamicConfig::resolve(Layers::default()).expect("the table's defaults are valid")
    }
}

impl DynamicConfig {
    /// What flags and files say.
    pub(super) fn fixed(
        settings: &Settings,
        listeners: &[Endpoint],
        overrides: ConfigMap,
    ) -> Result<DynamicConfig, ConfigError> {
        let (fixed, overrides) = (Arc::new(settings.named.clone()), Arc::new(overrides));
        // Without the overrides too: they are for one run.
        let without = DynamicConfig::resolve(Layers { listeners: listeners.into(), fixed, ..Layers::default() })?;
        DynamicConfig::resolve(Layers { overrides, ..without.layers })
    }

    /// These settings, as far as a later reading of the same files and flags changes them, and what it would change.
    /// What clients have set is not among them: it stays with whoever keeps it.
    ///
    /// # Errors
    /// What may change does not go with what may not.
    pub fn reread(&self, later: &DynamicConfig) -> Result<(Vec<ChangedSetting>, DynamicConfig), ConfigError> {
        let (before, after) = (&self.layers.fixed, &later.layers.fixed);
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let differ = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
        let changed: Vec<ChangedSetting> = differ
            .map(|name| ChangedSetting {
                name: name.clone(),
                from: before.get(name).cloned(),
                to: after.get(name).cloned(),
                is_taken: is_changeable(name),
            })
            .collect();
        let mut named = (**before).clone();
        for setting in changed.iter().filter(|setting| setting.is_taken) {
            match &setting.to {
                Some(value) => drop(named.insert(setting.name.clone(), value.clone())),
                None => drop(named.remove(&setting.name)),
            }
        }
        Ok((changed, self.with_files(named)?))
    }

    /// What files and flags say.
    pub fn of_files(&self) -> ConfigMap {
        (*self.layers.fixed).clone()
    }

    /// As if files and flags had said this, without what clients have set.
    pub fn with_files(&self, named: ConfigMap) -> Result<DynamicConfig, ConfigError> {
        let Layers { listeners, overrides, .. } = self.layers.clone();
        DynamicConfig::resolve(Layers { listeners, overrides, fixed: Arc::new(named), ..Layers::default() })
    }

    /// What stands over the dynamic settings.
    pub fn overrides(&self) -> &ConfigMap {
        &self.layers.overrides
    }

    /// These settings with others of one scope instead of what that scope had.
    ///
    /// # Errors
    /// INVALID_REQUEST, in Kafka's words; what comes from files and flags was checked before.
    pub fn with(&self, scope: BrokerScope, settings: &ConfigMap) -> Result<DynamicConfig, String> {
        check_names(scope, settings)?;
        let mut layers = self.layers.clone();
        match scope {
            BrokerScope::This => layers.of_this_broker = Arc::new(settings.clone()),
            BrokerScope::All => layers.of_all_brokers = Arc::new(settings.clone()),
        }
        let refused = |error| match error {
            ConfigError::Value { name, value, reason } => {
                format!("Invalid value {value} for configuration {name}: {reason}")
            }
            other => other.to_string(),
        };
        // What is overridden counts again at a start without the override: it is held to all rules.
        let before = Settings { named: self.layers.without_overrides().effective() };
        let after = DynamicConfig::resolve(layers.without_overrides()).map_err(refused)?;
        change::check(&layers.listeners, &before, &Settings { named: after.effective() })
            .map_err(|reason| format!("Invalid dynamic configuration: {reason}"))?;
        DynamicConfig::resolve(layers).map_err(refused)
    }

    /// What a tree holds instead of what it held, as far as it can be: what is wrong is left out, and said in the log.
    pub fn with_stored(&self, of_all_brokers: &ConfigMap, of_this_broker: &ConfigMap) -> DynamicConfig {
        let Layers { listeners, fixed, overrides, .. } = self.layers.clone();
        let fixed = Layers { listeners, fixed, overrides, ..Layers::default() };
        let mut config = DynamicConfig::resolve(fixed).expect("files and flags were checked at the start");
        for (scope, stored) in [(BrokerScope::All, of_all_brokers), (BrokerScope::This, of_this_broker)] {
            let (next, ignored) = config.with_most_of(scope, stored);
            for (name, reason) in ignored {
                tracing::error!(name, reason, "a dynamic broker setting of the metadata tree is ignored");
            }
            config = next;
        }
        config
    }

    /// These settings with as many of a scope as can be together, and why the others can't. One may need a partner that
    /// comes later, so what was refused is tried again as long as others are taken.
    fn with_most_of(&self, scope: BrokerScope, stored: &ConfigMap) -> (DynamicConfig, BTreeMap<String, String>) {
        let with = |settings: &ConfigMap| {
            let settings = Arc::new(settings.clone());
            DynamicConfig::resolve(match scope {
                BrokerScope::All => Layers { of_all_brokers: settings, ..self.layers.clone() },
                BrokerScope::This => Layers { of_this_broker: settings, ..self.layers.clone() },
            })
        };
        let (mut config, mut good) = (self.clone(), ConfigMap::new());
        let mut ignored = BTreeMap::new();
        let mut left = stored.clone();
        left.retain(|name, value| match check_names(scope, &ConfigMap::from([(name.clone(), value.clone())])) {
            Ok(()) => true,
            Err(reason) => {
                ignored.insert(name.clone(), reason);
                false
            }
        });
        loop {
            let before = left.len();
            let mut refused = BTreeMap::new();
            left.retain(|name, value| {
                good.insert(name.clone(), value.clone());
                match with(&good) {
                    Ok(next) => config = next,
                    Err(error) => {
                        good.remove(name);
                        refused.insert(name.clone(), error.to_string());
                    }
                }
                !good.contains_key(name)
            });
            if left.len() == before || left.is_empty() {
                ignored.extend(refused);
                return (config, ignored);
            }
        }
    }

    /// What one scope has set.
    pub fn of(&self, scope: BrokerScope) -> &ConfigMap {
        match scope {
            BrokerScope::This => &self.layers.of_this_broker,
            BrokerScope::All => &self.layers.of_all_brokers,
        }
    }

    /// All names that anybody has set, with the text that counts.
    pub fn effective(&self) -> ConfigMap {
        self.layers.effective()
    }

    /// Where `name` may have its value from, the one that counts first (Kafka 3.9 `ConfigHelper.configSynonyms`): by layer,
    /// within a layer by name, and none before the first of its own name.
    pub fn synonyms(&self, name: &str) -> Vec<Synonym> {
        let names = keys::synonyms(name);
        let mut found = Vec::new();
        let layers = [
            // Of this process's start, as a file is.
            (&self.layers.overrides, ConfigSource::StaticBroker),
            (&self.layers.of_this_broker, ConfigSource::DynamicBroker),
            (&self.layers.of_all_brokers, ConfigSource::DynamicDefaultBroker),
            (&self.layers.fixed, ConfigSource::StaticBroker),
        ];
        for (layer, source) in layers {
            for name in &names {
                if let Some(value) = layer.get(*name) {
                    found.push(Synonym { name: (*name).to_owned(), value: value.clone(), source });
                }
            }
        }
        for key in names.iter().filter_map(|name| BrokerKey::find(name)) {
            if let Some(value) = key.default_text() {
                found.push(Synonym { name: key.name.to_owned(), value, source: ConfigSource::Default });
            }
        }
        let own = found.iter().position(|synonym| synonym.name == name).unwrap_or(found.len());
        found.split_off(own)
    }

    fn resolve(layers: Layers) -> Result<DynamicConfig, ConfigError> {
        let settings = Settings { named: layers.effective() };
        rules::check(&settings)?;
        let named = |name: &str| settings.named.get(name).cloned();
        let connection_quotas = ConnectionQuotaLimits::resolve(&layers.listeners, named)
            .map_err(|(name, value, reason)| invalid(&name, &value, reason))?;
        let bytes = |name| u64::try_from(settings.value(name).number()).unwrap_or(0);
        let config = DynamicConfig {
            topic_defaults: Arc::new(TopicConfig::of_broker(&settings.named)?),
            connection_quotas,
            log_cleaner_threads: settings.unsigned("log.cleaner.threads"),
            log_cleaner_dedupe_buffer_size: bytes("log.cleaner.dedupe.buffer.size"),
            log_cleaner_io_buffer_size: settings.unsigned("log.cleaner.io.buffer.size"),
            log_cleaner_io_buffer_load_factor: settings.value("log.cleaner.io.buffer.load.factor").double(),
            log_cleaner_io_max_bytes_per_second: settings.value("log.cleaner.io.max.bytes.per.second").double(),
            log_cleaner_backoff_ms: bytes("log.cleaner.backoff.ms"),
            producer_id_expiration_ms: settings.value("producer.id.expiration.ms").number(),
            layers,
        };
        Ok(config)
    }
}

impl Layers {
    fn without_overrides(&self) -> Layers {
        Layers { overrides: Arc::default(), ..self.clone() }
    }

    fn effective(&self) -> ConfigMap {
        let mut all = (*self.fixed).clone();
        for layer in [&self.of_all_brokers, &self.of_this_broker, &self.overrides] {
            for (name, value) in layer.iter() {
                // A dynamic value also goes before a static one under a name that would win over its own.
                keys::synonyms(name).iter().for_each(|synonym| drop(all.remove(*synonym)));
                all.insert(name.clone(), value.clone());
            }
        }
        all
    }
}

/// Whether these may be set so while the broker runs, and each is of its kind (Kafka 3.9
/// `DynamicBrokerConfig.validateConfigs`). Names that Kafka does not know are taken: plug-ins read them.
fn check_names(scope: BrokerScope, settings: &ConfigMap) -> Result<(), String> {
    let refuse = |message: &str, refused: &dyn Fn(&str) -> bool| {
        let names: BTreeSet<&str> = settings.keys().map(String::as_str).filter(|name| refused(name)).collect();
        if names.is_empty() {
            return Ok(());
        }
        Err(format!("{message}: Set({})", names.into_iter().collect::<Vec<_>>().join(", ")))
    };
    let update = |name: &str| BrokerKey::find(name).map(|key| key.update);
    refuse("Cannot update these configs dynamically", &|name| update(name) == Some(Update::ReadOnly))?;
    refuse("These security configs can be dynamically updated only per-listener using the listener prefix", &|name| {
        update(name) == Some(Update::PerBroker) && name.starts_with("ssl.")
    })?;
    for (name, value) in settings {
        let base = keys::without_listener(name);
        let Some(kind) = keys::dynamic_kind(base) else { continue };
        kind.parse(value).map_err(|reason| format!("Invalid value {value} for configuration {base}: {reason}"))?;
    }
    if scope == BrokerScope::All {
        refuse("Cannot update these configs at default cluster level, broker id must be specified", &|name| {
            let base = keys::without_listener(name);
            match update(base) {
                Some(Update::PerBroker) => true,
                Some(Update::ReadOnly) | None => base != name,
                Some(Update::ClusterWide) => base != name && !keys::CLUSTER_LEVEL_LISTENER_KEYS.contains(&base),
            }
        })?;
    }
    // A difference: Kafka opens and closes listeners and reloads key stores while it runs.
    refuse("This broker can't change listeners, TLS or SASL while it runs; set them in server.properties", &|name| {
        let base = keys::without_listener(name);
        update(base) == Some(Update::PerBroker) && !keys::CLUSTER_LEVEL_LISTENER_KEYS.contains(&base)
    })
}

/// Whether a file may give it another value while the broker runs: what clients may set for all brokers.
pub(super) fn is_changeable(name: &str) -> bool {
    let base = keys::without_listener(name);
    let is_dynamic = BrokerKey::find(base).is_some_and(|key| key.update == Update::ClusterWide);
    is_dynamic && (base == name || keys::CLUSTER_LEVEL_LISTENER_KEYS.contains(&base))
}

#[cfg(test)]
mod tests;
