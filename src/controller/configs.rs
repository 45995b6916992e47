//! Changing settings of topics and brokers (Kafka 3.9 `ZkAdminManager.alterConfigs`, `ConfigAdminManager`).
//!
//! What is there is read first, since others write it too; what it leads to is written over just that version, each with
//! one notice below `/config/changes`, as Kafka's tools and brokers expect them. From the tree this broker learns of it as
//! every other does, and the answer waits until it lives by it. One proposal runs at a time: each starts from what the one
//! before wrote.

#![forbid(unsafe_code)]

use crate::config::dynamic::BrokerScope;
use crate::config::keys::BrokerKey;
use crate::config::topic::{InvalidTopicConfig, TopicKey};
use crate::config::value::ConfigType;
use crate::metadata::proposal::{
    Answer, ConfigChange, ConfigEdit, ConfigMap, ConfigOperation, ConfigRefusal, ConfigResource, ProposalError,
    TopicRefusal,
};
use crate::metadata::tree::{CreateMode, Operation, Outcome, Reply, Request, RequestError, TreeError, Version};
use crate::metadata::znodes::{self, Others};

use super::cluster::Cluster;
use super::event::{Effect, Settings, Ticket, When};
use super::writes::{self, Item};
use super::{Controller, Waiting};

/// The most of one list or value that a setting may become: far above any real one, and what a client can make grow by
/// appending.
const VALUE_BYTES_MAX: usize = 1024 * 1024;

/// Checked new settings of one resource on their way into the tree.
pub struct ConfigDraft {
    /// Place in the proposal's results.
    index: usize,
    resource: ConfigResource,
    operations: Vec<Operation>,
}

impl Item for ConfigDraft {
    fn operations(&self) -> &[Operation] {
        &self.operations
    }
}

/// The proposal that runs, until what it changes has been read.
pub struct Altering {
    changes: Vec<ConfigChange>,
    validate_only: bool,
    /// What each resource's node holds, in order.
    found: Vec<Option<Result<Stored, String>>>,
}

/// A node of settings.
#[derive(Clone, Default)]
struct Stored {
    map: ConfigMap,
    others: Others,
    /// `None`: there is no node.
    version: Option<i32>,
}

impl Controller {
    pub(super) fn alter_configs(
        &mut self,
        ticket: Ticket,
        changes: Vec<ConfigChange>,
        validate_only: bool,
        effects: &mut Vec<Effect>,
    ) {
        let broker_id = self.settings.broker_id.0;
        let Some(cluster) = self.cluster() else { return };
        let is_there = |resource: &ConfigResource| match resource {
            ConfigResource::Topic(name) => cluster.topics.contains_key(&**name),
            ConfigResource::ThisBroker | ConfigResource::AllBrokers => true,
        };
        // What is not there is refused unread.
        let found: Vec<_> =
            changes.iter().map(|change| (!is_there(&change.resource)).then(|| Ok(Stored::default()))).collect();
        let reads = changes.iter().enumerate().filter(|(index, _)| found[*index].is_none());
        for (index, change) in reads {
            let request = Request::get(config_path(&change.resource, broker_id));
            self.ask(request, Waiting::ConfigRead { ticket, index }, effects);
        }
        self.altering = Some(Altering { changes, validate_only, found });
        self.check_configs(ticket, effects);
    }

    pub(super) fn config_read(
        &mut self,
        ticket: Ticket,
        index: usize,
        result: Result<Reply, RequestError>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(altering) = &mut self.altering else { return };
        let stored = match result {
            Ok(Reply::Data(data, stat)) => {
                let path = config_path(&altering.changes[index].resource, self.settings.broker_id.0);
                let found = znodes::decode_whole_config(&path, &data).map_err(|error| error.to_string());
                found.map(|(map, others)| Stored { map, others, version: Some(stat.version) })
            }
            Err(RequestError { error: TreeError::NoNode(_), .. }) => Ok(Stored::default()),
            Ok(other) => unreachable!("a get was answered with {other:?}"),
            Err(failed) => Err(failed.to_string()),
        };
        altering.found[index] = Some(stored);
        self.check_configs(ticket, effects);
    }

    /// Once all is read: what can be is written.
    fn check_configs(&mut self, ticket: Ticket, effects: &mut Vec<Effect>) {
        if self.altering.as_ref().is_none_or(|altering| altering.found.iter().any(Option::is_none)) {
            return;
        }
        let Some(Altering { changes, validate_only, found }) = self.altering.take() else { return };
        let settings = self.settings.clone();
        let (mut results, mut drafts) = (Vec::with_capacity(changes.len()), Vec::new());
        let refusal = self.refusal_of_configs();
        for (index, (change, found)) in changes.into_iter().zip(found.into_iter().flatten()).enumerate() {
            let checked = match (self.cluster(), found) {
                (None, _) => Err(refusal.clone()),
                (Some(_), Err(reason)) => Err(ConfigRefusal::Tree(reason)),
                (Some(cluster), Ok(stored)) => {
                    check(cluster, &settings, &change, &stored.map).map(|map| Stored { map, ..stored })
                }
            };
            results.push(checked.map(|new| {
                if !validate_only {
                    drafts.push(ConfigDraft::new(&settings, index, change.resource, &new));
                }
            }));
        }
        self.open(ticket, Answer::AlterConfigs(results), drafts.len(), When::Followed, effects);
        for part in writes::in_parts(drafts) {
            self.write_configs(ticket, part, effects);
        }
    }

    fn write_configs(&mut self, ticket: Ticket, drafts: Vec<ConfigDraft>, effects: &mut Vec<Effect>) {
        let Some(cluster) = self.cluster() else { return };
        let operations = writes::multi(cluster.fence(), &drafts);
        self.write(operations, Waiting::Configs { ticket, drafts }, effects);
    }

    pub(super) fn configs_written(
        &mut self,
        ticket: Ticket,
        mut drafts: Vec<ConfigDraft>,
        result: Result<Vec<Outcome>, RequestError>,
        effects: &mut Vec<Effect>,
    ) {
        let Err(failed) = result else { return self.decide(ticket, drafts.len(), |_| (), effects) };
        if self.survives(&failed, effects)
            && let Some(at) = writes::culprit(&drafts, failed.operation)
        {
            let draft = drafts.remove(at);
            let refusal = match (failed.error, &draft.resource) {
                (TreeError::BadVersion(_) | TreeError::NodeExists(_) | TreeError::NoNode(_), _) => {
                    ConfigRefusal::Tree("the settings were changed by another at the same time; try again".to_owned())
                }
                (other, _) => ConfigRefusal::Tree(other.to_string()),
            };
            if !drafts.is_empty() {
                self.write_configs(ticket, drafts, effects);
            }
            return self.refuse_configs(ticket, &[draft], &refusal, effects);
        }
        let refusal = match self.refusal_after(&failed) {
            TopicRefusal::Tree(reason) => ConfigRefusal::Tree(reason),
            _ => ConfigRefusal::NotController,
        };
        self.refuse_configs(ticket, &drafts, &refusal, effects);
    }

    fn refuse_configs(
        &mut self,
        ticket: Ticket,
        drafts: &[ConfigDraft],
        refusal: &ConfigRefusal,
        effects: &mut Vec<Effect>,
    ) {
        let note = |answer: &mut Answer| {
            let Answer::AlterConfigs(results) = answer else { unreachable!("{answer:?} is not about settings") };
            drafts.iter().for_each(|draft| results[draft.index] = Err(refusal.clone()));
        };
        self.decide(ticket, drafts.len(), note, effects);
    }

    fn refusal_of_configs(&self) -> ConfigRefusal {
        match self.refusal() {
            Some(ProposalError::Tree(reason)) => ConfigRefusal::Tree(reason),
            _ => ConfigRefusal::NotController,
        }
    }
}

impl ConfigDraft {
    /// `new`: the settings over the version that they start from.
    fn new(settings: &Settings, index: usize, resource: ConfigResource, new: &Stored) -> ConfigDraft {
        let path = config_path(&resource, settings.broker_id.0);
        let data = znodes::encode_config(&new.map, &new.others);
        let written = match new.version {
            Some(version) => Operation::Set { path, data, version: Version::Exactly(version) },
            None => Operation::Create { path, data, mode: CreateMode::Persistent },
        };
        let notice = Operation::Create {
            path: znodes::config_change_path(),
            data: znodes::encode_config_change(&entity(&resource, settings.broker_id.0)),
            mode: CreateMode::PersistentSequential,
        };
        let is_kept = |name: &&String| BrokerKey::find(name).is_some_and(|key| !key.applied);
        if !matches!(resource, ConfigResource::Topic(_)) {
            for name in new.map.keys().filter(is_kept) {
                tracing::warn!(name, "this setting is kept, but changes nothing yet");
            }
        }
        ConfigDraft { index, resource, operations: vec![written, notice] }
    }
}

fn config_path(resource: &ConfigResource, broker_id: i32) -> String {
    match resource {
        ConfigResource::Topic(name) => znodes::topic_config_path(name),
        broker => znodes::broker_config_path(&broker_node(broker, broker_id)),
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

/// The settings that a change leads to, checked. `before`: what the tree has.
fn check(
    cluster: &Cluster,
    settings: &Settings,
    change: &ConfigChange,
    before: &ConfigMap,
) -> Result<ConfigMap, ConfigRefusal> {
    let dynamic = &settings.followed.dynamic;
    match &change.resource {
        ConfigResource::Topic(name) if name.is_empty() => {
            Err(ConfigRefusal::InvalidRequest("Default topic resources are not allowed.".to_owned()))
        }
        ConfigResource::Topic(name) => {
            let topic = cluster.topics.get(&**name).filter(|_| !cluster.deleting.contains_key(&**name));
            topic.ok_or_else(|| ConfigRefusal::UnknownTopic(name.clone()))?;
            let map = edited(before, &change.edit, &topic_list_default)?;
            let resolved = dynamic.topic_defaults.with_overrides(&map);
            resolved.map(|_| map).map_err(|error| invalid_topic_config(name, &error))
        }
        broker => {
            let scope = match broker {
                ConfigResource::AllBrokers => BrokerScope::All,
                _ => BrokerScope::This,
            };
            let map = edited(before, &change.edit, &broker_list_default)?;
            dynamic.with(scope, &map).map(|_| map).map_err(ConfigRefusal::InvalidRequest)
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
