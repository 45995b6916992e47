//! Changing settings of topics and brokers (Kafka 3.9 `ZkAdminManager.alterConfigs`, `ConfigAdminManager`).
//!
//! Each proposal is one transaction: the settings' nodes, and one notice below `/config/changes` for each, as Kafka's
//! tools and brokers expect them. Nobody but this process reads the notices, so those of the last change stay and older
//! ones go. One proposal runs at a time: each starts from what the one before wrote.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::config::dynamic::BrokerScope;
use crate::config::keys::BrokerKey;
use crate::config::topic::{InvalidTopicConfig, TopicKey};
use crate::config::value::ConfigType;
use crate::config::{DynamicConfig, TopicConfig};
use crate::metadata::proposal::{
    Answer, ConfigChange, ConfigEdit, ConfigMap, ConfigOperation, ConfigRefusal, ConfigResource,
};
use crate::metadata::tree::{CreateMode, Operation, Outcome, RequestError, TreeError, Version};
use crate::metadata::znodes;

use super::cluster::Cluster;
use super::election::read_config;
use super::{Controller, Effect, Open, Settings, Ticket, Waiting, When};

/// The most of one list or value that a setting may become: far above any real one, and what a client can make grow by
/// appending.
const VALUE_BYTES_MAX: usize = 1024 * 1024;

/// Checked new settings of one resource on their way into the tree.
pub struct ConfigDraft {
    /// Place in the proposal's results.
    index: usize,
    resource: ConfigResource,
    settings: ConfigMap,
    operations: Vec<Operation>,
}

impl Controller {
    pub(super) fn alter_configs(
        &mut self,
        ticket: Ticket,
        changes: Vec<ConfigChange>,
        validate_only: bool,
        effects: &mut Vec<Effect>,
    ) {
        let settings = self.settings.clone();
        let Some(cluster) = self.cluster() else { return };
        let (mut results, mut drafts) = (Vec::with_capacity(changes.len()), Vec::new());
        for (index, change) in changes.into_iter().enumerate() {
            let checked = check(cluster, &settings, &change);
            results.push(match checked {
                Ok(map) if !validate_only => {
                    drafts.push(ConfigDraft::new(cluster, &settings, index, change.resource, map));
                    Ok(())
                }
                Ok(_) => Ok(()),
                Err(refusal) => Err(refusal),
            });
        }
        if drafts.is_empty() {
            self.serial_running = false;
            let answer = Answer::AlterConfigs(results);
            return effects.push(Effect::Answer { ticket, answer, when: When::Now });
        }
        self.open.insert(ticket, Open::Configs { results, undecided: drafts.len() });
        self.write_configs(ticket, drafts, effects);
    }

    fn write_configs(&mut self, ticket: Ticket, drafts: Vec<ConfigDraft>, effects: &mut Vec<Effect>) {
        let Some(cluster) = self.cluster() else { return };
        let mut operations = vec![cluster.fence()];
        operations.extend(drafts.iter().flat_map(|draft| draft.operations.iter().cloned()));
        let notice = |draft: &ConfigDraft| Operation::Create {
            path: znodes::config_change_path(),
            data: znodes::encode_config_change(&entity(&draft.resource, cluster.controller_id.0)),
            mode: CreateMode::PersistentSequential,
        };
        operations.extend(drafts.iter().map(notice));
        let older = cluster.config_changes.iter().cloned();
        operations.extend(older.map(|path| Operation::Delete { path, version: Version::Any }));
        self.write(operations, Waiting::Configs { ticket, drafts }, effects);
    }

    pub(super) fn configs_written(
        &mut self,
        ticket: Ticket,
        mut drafts: Vec<ConfigDraft>,
        result: Result<Vec<Outcome>, RequestError>,
        effects: &mut Vec<Effect>,
    ) {
        match result {
            Ok(outcomes) => {
                let indexes: Vec<usize> = drafts.iter().map(|draft| draft.index).collect();
                self.take_configs(drafts, &outcomes, effects);
                self.decide_configs(ticket, &indexes, None, effects);
            }
            Err(failed) => {
                if self.survives(&failed, effects)
                    && let Some(at) =
                        failed.operation.and_then(|index| index.checked_sub(1)).filter(|at| *at < drafts.len())
                {
                    let draft = drafts.remove(at);
                    let refusal = match (failed.error, draft.resource) {
                        (TreeError::NoNode(_), ConfigResource::Topic(name)) => ConfigRefusal::UnknownTopic(name),
                        (other, _) => ConfigRefusal::Tree(other.to_string()),
                    };
                    if !drafts.is_empty() {
                        self.write_configs(ticket, drafts, effects);
                    }
                    return self.decide_configs(ticket, &[draft.index], Some(refusal), effects);
                }
                // Somebody has taken a notice of the change before away: the next try does without.
                if let (TreeError::NoNode(path), Some(cluster)) = (&failed.error, self.cluster()) {
                    cluster.config_changes.retain(|notice| notice != path);
                }
                let refusal = self.config_refusal(&failed);
                let indexes: Vec<usize> = drafts.iter().map(|draft| draft.index).collect();
                self.decide_configs(ticket, &indexes, Some(refusal), effects);
            }
        }
    }

    /// The settings are in the tree: live by them and tell the brokers.
    fn take_configs(&mut self, drafts: Vec<ConfigDraft>, outcomes: &[Outcome], effects: &mut Vec<Effect>) {
        let mut settings = self.settings.clone();
        let Some(cluster) = self.cluster() else { return };
        let notices = outcomes.iter().filter_map(|outcome| match outcome {
            Outcome::Created(path, _) if path.starts_with(znodes::CONFIG_CHANGES) => Some(path.clone()),
            _ => None,
        });
        cluster.config_changes = notices.collect();
        let mut changed: BTreeSet<Arc<str>> = BTreeSet::new();
        let mut of_brokers = false;
        for draft in drafts {
            match draft.resource {
                ConfigResource::Topic(name) => {
                    // Gone meanwhile: so are its settings.
                    let Some((name, _)) = cluster.topics.get_key_value(&*name) else { continue };
                    let name = name.clone();
                    let topic = cluster.topics.get_mut(&name).expect("just found");
                    topic.config = read_config(&name, &draft.settings, &settings.dynamic.topic_defaults);
                    topic.has_config_node = true;
                    changed.insert(name);
                }
                resource @ (ConfigResource::ThisBroker | ConfigResource::AllBrokers) => {
                    let node = broker_node(&resource, cluster.controller_id.0);
                    let is_kept = |name: &&String| BrokerKey::find(name).is_some_and(|key| !key.applied);
                    for name in draft.settings.keys().filter(is_kept) {
                        tracing::warn!(name, "this setting is kept, but changes nothing yet");
                    }
                    cluster.broker_configs.insert(node, draft.settings);
                    of_brokers = true;
                }
            }
        }
        if of_brokers {
            settings.dynamic = Arc::new(cluster.stored_dynamic(&settings.dynamic));
            changed = cluster.follow_defaults(&settings.dynamic.topic_defaults);
        }
        let changed: Vec<Arc<str>> = changed.into_iter().collect();
        for (broker, inputs) in cluster.announce_configs(&changed, of_brokers.then_some(&settings.dynamic)) {
            effects.push(Effect::Tell { broker, inputs: Box::new(inputs), done: None });
        }
        self.settings = settings;
    }

    /// Files and flags are not in the tree: nothing is written.
    pub(super) fn follow_settings(&mut self, ticket: Ticket, named: ConfigMap, effects: &mut Vec<Effect>) {
        let mut settings = self.settings.clone();
        let Some(cluster) = self.cluster() else { return };
        let (answer, when) = match settings.dynamic.with_files(named) {
            Ok(dynamic) => {
                settings.dynamic = Arc::new(cluster.stored_dynamic(&dynamic));
                let changed = cluster.follow_defaults(&settings.dynamic.topic_defaults);
                let changed: Vec<Arc<str>> = changed.into_iter().collect();
                for (broker, inputs) in cluster.announce_configs(&changed, Some(&settings.dynamic)) {
                    effects.push(Effect::Tell { broker, inputs: Box::new(inputs), done: None });
                }
                self.settings = settings;
                (Ok(()), When::Shown)
            }
            Err(error) => (Err(error.to_string()), When::Now),
        };
        effects.push(Effect::Answer { ticket, answer: Answer::FollowSettings(answer), when });
    }

    /// Notes how some of a proposal's resources ended, and answers when these were the last.
    fn decide_configs(
        &mut self,
        ticket: Ticket,
        indexes: &[usize],
        refusal: Option<ConfigRefusal>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(Open::Configs { results, undecided }) = self.open.get_mut(&ticket) else {
            unreachable!("a change under way is open")
        };
        *undecided -= indexes.len();
        if let Some(refusal) = refusal {
            indexes.iter().for_each(|index| results[*index] = Err(refusal.clone()));
        }
        if *undecided == 0
            && let Some(Open::Configs { results, .. }) = self.open.remove(&ticket)
        {
            self.serial_running = false;
            effects.push(Effect::Answer { ticket, answer: Answer::AlterConfigs(results), when: When::Shown });
        }
    }

    fn config_refusal(&self, failed: &RequestError) -> ConfigRefusal {
        match self.refusal() {
            None => ConfigRefusal::Tree(failed.error.to_string()),
            Some(crate::metadata::proposal::ProposalError::Tree(reason)) => ConfigRefusal::Tree(reason),
            Some(_) => ConfigRefusal::NotController,
        }
    }
}

impl Cluster {
    /// `before` with what the tree has of this broker and of all.
    pub(super) fn stored_dynamic(&self, before: &DynamicConfig) -> DynamicConfig {
        let none = ConfigMap::new();
        let of = |node: &str| self.broker_configs.get(node).unwrap_or(&none);
        before.with_stored(of(znodes::ALL_BROKERS), of(&self.controller_id.0.to_string()))
    }

    /// Topics have what they set over other defaults now; gives all their names.
    pub(super) fn follow_defaults(&mut self, defaults: &Arc<TopicConfig>) -> BTreeSet<Arc<str>> {
        for (name, topic) in &mut self.topics {
            topic.config = read_config(name, &topic.config.overrides, defaults);
        }
        self.topics.keys().cloned().collect()
    }
}

impl ConfigDraft {
    fn new(
        cluster: &Cluster,
        settings: &Settings,
        index: usize,
        resource: ConfigResource,
        map: ConfigMap,
    ) -> ConfigDraft {
        let (path, exists) = match &resource {
            ConfigResource::Topic(name) => (
                znodes::topic_config_path(name),
                cluster.topics.get(&**name).is_some_and(|topic| topic.has_config_node),
            ),
            broker => {
                let node = broker_node(broker, settings.broker_id.0);
                (znodes::broker_config_path(&node), cluster.broker_configs.contains_key(&node))
            }
        };
        let data = znodes::encode_config(&map);
        let operation = match exists {
            true => Operation::Set { path, data, version: Version::Any },
            false => Operation::Create { path, data, mode: CreateMode::Persistent },
        };
        ConfigDraft { index, resource, settings: map, operations: vec![operation] }
    }
}

/// The node of a broker's settings.
fn broker_node(resource: &ConfigResource, broker_id: i32) -> String {
    match resource {
        ConfigResource::AllBrokers => znodes::ALL_BROKERS.to_owned(),
        ConfigResource::ThisBroker | ConfigResource::Topic(_) => broker_id.to_string(),
    }
}

/// How a notice names a resource.
fn entity(resource: &ConfigResource, broker_id: i32) -> String {
    match resource {
        ConfigResource::Topic(name) => format!("topics/{name}"),
        broker => format!("brokers/{}", broker_node(broker, broker_id)),
    }
}

/// The settings that a change leads to, checked.
fn check(cluster: &Cluster, settings: &Settings, change: &ConfigChange) -> Result<ConfigMap, ConfigRefusal> {
    match &change.resource {
        ConfigResource::Topic(name) if name.is_empty() => {
            Err(ConfigRefusal::InvalidRequest("Default topic resources are not allowed.".to_owned()))
        }
        ConfigResource::Topic(name) => {
            let topic = cluster.topics.get(&**name).filter(|_| !cluster.deleting.contains_key(&**name));
            let topic = topic.ok_or_else(|| ConfigRefusal::UnknownTopic(name.clone()))?;
            let map = edited(&topic.config.overrides, &change.edit, &topic_list_default)?;
            let resolved = settings.dynamic.topic_defaults.with_overrides(&map);
            resolved.map(|_| map).map_err(|error| invalid_topic_config(name, &error))
        }
        broker => {
            let scope = match broker {
                ConfigResource::AllBrokers => BrokerScope::All,
                _ => BrokerScope::This,
            };
            let map = edited(settings.dynamic.of(scope), &change.edit, &broker_list_default)?;
            settings.dynamic.with(scope, &map).map(|_| map).map_err(ConfigRefusal::InvalidRequest)
        }
    }
}

fn invalid_topic_config(topic: &str, error: &InvalidTopicConfig) -> ConfigRefusal {
    ConfigRefusal::InvalidConfig(match error {
        InvalidTopicConfig::Value { .. } => {
            format!("Invalid config value for resource ConfigResource(type=TOPIC, name='{topic}'): {error}")
        }
        InvalidTopicConfig::UnknownName(_) | InvalidTopicConfig::CompactionLag { .. } => error.to_string(),
    })
}

/// Kafka 3.9 `ConfigAdminManager.prepareIncrementalConfigs`. `list_default` gives a list's default; `None`: there is no
/// such setting (Kafka answers UNKNOWN_SERVER_ERROR to adding to one, which helps nobody).
fn edited(
    before: &ConfigMap,
    edit: &ConfigEdit,
    list_default: &dyn Fn(&str) -> Option<Result<&'static str, ()>>,
) -> Result<ConfigMap, ConfigRefusal> {
    let operations = match edit {
        ConfigEdit::Replace(map) => return Ok(map.clone()),
        ConfigEdit::Change(operations) => operations,
    };
    let mut map = before.clone();
    let list = |map: &ConfigMap, name: &str, verb: &str| -> Result<Vec<String>, ConfigRefusal> {
        let default = match list_default(name) {
            None => return Err(ConfigRefusal::InvalidConfig(format!("Unknown config name: {name}"))),
            Some(Err(())) => {
                let message = format!("Config value {verb} is not allowed for config key: {name}");
                return Err(ConfigRefusal::InvalidConfig(message));
            }
            Some(Ok(default)) => default,
        };
        let text = map.get(name).map_or(default, String::as_str);
        Ok(text.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect())
    };
    for (name, operation) in operations {
        let value = match operation {
            ConfigOperation::Set(value) => value.clone(),
            ConfigOperation::Delete => {
                map.remove(name);
                continue;
            }
            ConfigOperation::Append(value) => {
                let mut parts = list(&map, name, "append")?;
                let new: Vec<String> =
                    value.split(',').filter(|part| !parts.iter().any(|old| old == part)).map(str::to_owned).collect();
                parts.extend(new);
                parts.join(",")
            }
            ConfigOperation::Subtract(value) => {
                let mut parts = list(&map, name, "subtract")?;
                for gone in value.split(',') {
                    if let Some(at) = parts.iter().position(|part| part == gone) {
                        parts.remove(at);
                    }
                }
                parts.join(",")
            }
        };
        if value.len() > VALUE_BYTES_MAX {
            let message = format!("The value of {name} would have {} bytes; at most {VALUE_BYTES_MAX}", value.len());
            return Err(ConfigRefusal::InvalidRequest(message));
        }
        map.insert(name.clone(), value);
    }
    Ok(map)
}

fn topic_list_default(name: &str) -> Option<Result<&'static str, ()>> {
    let key = TopicKey::find(name)?;
    Some(if key.kind.config_type() == ConfigType::List { Ok(key.default) } else { Err(()) })
}

fn broker_list_default(name: &str) -> Option<Result<&'static str, ()>> {
    let key = BrokerKey::find(name)?;
    Some(if key.kind.config_type() == ConfigType::List { Ok(key.default) } else { Err(()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> ConfigMap {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn change(before: &[(&str, &str)], name: &str, operation: ConfigOperation) -> Result<ConfigMap, ConfigRefusal> {
        edited(&map(before), &ConfigEdit::Change(vec![(name.to_owned(), operation)]), &topic_list_default)
    }

    #[test]
    fn a_list_grows_by_what_it_lacks_and_shrinks_by_what_it_has() {
        use ConfigOperation::{Append, Delete, Set, Subtract};
        let name = "cleanup.policy";
        for (before, operation, after) in [
            (&[][..], Append("compact".into()), Some("delete,compact")),
            (&[(name, "compact")], Append("compact,delete".into()), Some("compact,delete")),
            (&[(name, "compact,delete")], Subtract("compact".into()), Some("delete")),
            (&[(name, "")], Append("delete".into()), Some("delete")),
            (&[], Subtract("delete".into()), Some("")),
            (&[], Subtract("compact".into()), Some("delete")),
            (&[(name, "compact")], Set("delete".into()), Some("delete")),
            (&[(name, "compact")], Delete, None),
            (&[], Delete, None),
        ] {
            let changed = change(before, name, operation.clone()).unwrap();
            assert_eq!(changed.get(name).map(String::as_str), after, "{before:?} {operation:?}");
        }
    }

    #[test]
    fn only_lists_that_exist_grow_and_none_beyond_its_bound() {
        let append = |name: &str, value: &str| change(&[], name, ConfigOperation::Append(value.into())).unwrap_err();
        let text = "Config value append is not allowed for config key: retention.ms";
        assert_eq!(append("retention.ms", "1"), ConfigRefusal::InvalidConfig(text.into()));
        assert_eq!(append("nothing", "1"), ConfigRefusal::InvalidConfig("Unknown config name: nothing".into()));
        let long = append("cleanup.policy", &"x".repeat(VALUE_BYTES_MAX + 1));
        assert!(matches!(long, ConfigRefusal::InvalidRequest(_)));
    }
}
