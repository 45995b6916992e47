//! Creating topics: check, place, write, announce (Kafka 3.9 `ZkAdminManager.createTopics`, `AdminZkClient`).
//!
//! A topic is written whole in one transaction, config and partition states included; several small ones share a
//! transaction. If one of these turns out to exist, it alone is refused and the rest is written again.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::base::ids::{BrokerId, TopicId};
use crate::metadata::proposal::{Answer, ConfigMap, CreateTopicResult, CreatedTopic, NewTopic, TopicRefusal};
use crate::metadata::tree::{CreateMode, Operation, Outcome, RequestError, TreeError, Version};
use crate::metadata::znodes;

use super::cluster::{Cluster, Topic};
use super::election::{encode_topic, read_config, state_operations};
use super::partition::{Partition, first_leadership};
use super::replicas::{self, PlacementError};
use super::{Controller, Effect, OPERATIONS_PER_WRITE, Open, Settings, Ticket, Waiting, When, topic_name};

/// Partitions that one request may create, in all: bounds what a request can make the controller hold and write.
pub const PARTITIONS_PER_REQUEST_MAX: usize = 50_000;

/// A checked topic on its way into the tree.
pub struct Draft {
    /// Place in the proposal's results.
    index: usize,
    name: Arc<str>,
    topic: Topic,
    operations: Vec<Operation>,
}

impl Controller {
    pub(super) fn create_topics(
        &mut self,
        ticket: Ticket,
        topics: Vec<NewTopic>,
        validate_only: bool,
        random: &mut dyn FnMut() -> u64,
        effects: &mut Vec<Effect>,
    ) {
        let settings = self.settings.clone();
        let Some(cluster) = self.cluster() else { return };
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for topic in &topics {
            *counts.entry(&topic.name).or_default() += 1;
        }
        let mut room = PARTITIONS_PER_REQUEST_MAX;
        let mut unified = BTreeSet::new();
        let (mut results, mut drafts) = (Vec::with_capacity(topics.len()), Vec::new());
        for (index, new) in topics.iter().enumerate() {
            let checked = if counts[&*new.name] > 1 {
                Err(TopicRefusal::InvalidRequest(format!("Topic '{}' is in the request more than once.", new.name)))
            } else {
                check_topic(cluster, &settings, new, &mut room, &mut unified, random)
            };
            let outcome = checked.map(|topic| {
                let created = describe(&topic, validate_only);
                if !validate_only {
                    drafts.push(Draft::new(cluster, index, &new.name, topic));
                }
                created
            });
            results.push(CreateTopicResult { name: new.name.clone(), outcome });
        }
        if drafts.is_empty() {
            let answer = Answer::CreateTopics(results);
            return effects.push(Effect::Answer { ticket, answer, when: When::Now });
        }
        for draft in &drafts {
            cluster.creating.insert(draft.name.to_string());
        }
        self.open.insert(ticket, Open::Create { results, undecided: drafts.len() });
        for part in in_parts(drafts) {
            self.write_drafts(ticket, part, effects);
        }
    }

    fn write_drafts(&mut self, ticket: Ticket, drafts: Vec<Draft>, effects: &mut Vec<Effect>) {
        let Some(cluster) = self.cluster() else { return };
        let mut operations = vec![cluster.fence()];
        operations.extend(drafts.iter().flat_map(|draft| draft.operations.iter().cloned()));
        self.write(operations, Waiting::Create { ticket, drafts }, effects);
    }

    pub(super) fn created(
        &mut self,
        ticket: Ticket,
        mut drafts: Vec<Draft>,
        result: Result<Vec<Outcome>, RequestError>,
        effects: &mut Vec<Effect>,
    ) {
        match result {
            Ok(_) => {
                let indexes: Vec<usize> = drafts.iter().map(|draft| draft.index).collect();
                self.install(drafts, effects);
                self.decide_creations(ticket, &indexes, None, effects);
            }
            Err(failed) => {
                if self.survives(&failed, effects)
                    && let Some(at) = culprit(&drafts, failed.operation)
                {
                    let draft = drafts.remove(at);
                    let refusal = match failed.error {
                        TreeError::NodeExists(_) => TopicRefusal::AlreadyExists(draft.name.to_string()),
                        other => TopicRefusal::Tree(other.to_string()),
                    };
                    self.drop_drafts(std::slice::from_ref(&draft));
                    if !drafts.is_empty() {
                        self.write_drafts(ticket, drafts, effects);
                    }
                    return self.decide_creations(ticket, &[draft.index], Some(refusal), effects);
                }
                let refusal = self.refusal_after(&failed);
                let indexes: Vec<usize> = drafts.iter().map(|draft| draft.index).collect();
                self.drop_drafts(&drafts);
                self.decide_creations(ticket, &indexes, Some(refusal), effects);
            }
        }
    }

    /// The topics are in the tree: take them in and tell the brokers.
    fn install(&mut self, drafts: Vec<Draft>, effects: &mut Vec<Effect>) {
        let defaults = self.settings.dynamic.topic_defaults.clone();
        let Some(cluster) = self.cluster() else { return };
        let names: Vec<Arc<str>> = drafts.iter().map(|draft| draft.name.clone()).collect();
        for mut draft in drafts {
            cluster.creating.remove(&*draft.name);
            // The defaults may have changed since the topic was checked.
            draft.topic.config = read_config(&draft.name, &draft.topic.config.overrides, &defaults);
            cluster.insert(draft.name, draft.topic);
        }
        for (broker, inputs) in cluster.announce(&names, &|_, _| true) {
            effects.push(Effect::Tell { broker, inputs: Box::new(inputs), done: None });
        }
    }

    fn drop_drafts(&mut self, drafts: &[Draft]) {
        if let Some(cluster) = self.cluster() {
            for draft in drafts {
                cluster.creating.remove(&*draft.name);
            }
        }
    }

    /// Notes how some of a proposal's topics ended, and answers when these were the last.
    fn decide_creations(
        &mut self,
        ticket: Ticket,
        indexes: &[usize],
        refusal: Option<TopicRefusal>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(Open::Create { results, undecided }) = self.open.get_mut(&ticket) else {
            unreachable!("a creation under way is open")
        };
        *undecided -= indexes.len();
        if let Some(refusal) = refusal {
            for index in indexes {
                results[*index].outcome = Err(refusal.clone());
            }
        }
        if *undecided == 0
            && let Some(Open::Create { results, .. }) = self.open.remove(&ticket)
        {
            effects.push(Effect::Answer { ticket, answer: Answer::CreateTopics(results), when: When::Shown });
        }
    }
}

impl Draft {
    fn new(cluster: &Cluster, index: usize, name: &str, mut topic: Topic) -> Draft {
        let create = |path, data| Operation::Create { path, data, mode: CreateMode::Persistent };
        let config_path = znodes::topic_config_path(name);
        let config = znodes::encode_config(&topic.config.overrides);
        let mut operations = vec![
            if cluster.stray_configs.contains(name) {
                Operation::Set { path: config_path, data: config, version: Version::Any }
            } else {
                create(config_path, config)
            },
            create(znodes::topic_path(name), encode_topic(topic.id, &topic.partitions)),
        ];
        for (number, partition) in &mut topic.partitions {
            let Some(first) = first_leadership(&partition.replicas, |id| cluster.is_live(id)) else { continue };
            let has_node = std::mem::replace(&mut topic.has_partitions_node, true);
            operations.extend(state_operations(name, *number, partition, &first, cluster.epoch, has_node));
            (partition.state, partition.has_node) = (Some(first), true);
        }
        Draft { index, name: name.into(), topic, operations }
    }
}

/// Drafts by transaction: as many as fit, and at least one.
fn in_parts(drafts: Vec<Draft>) -> Vec<Vec<Draft>> {
    let mut parts: Vec<Vec<Draft>> = Vec::new();
    let mut size = 0;
    for draft in drafts {
        size += draft.operations.len();
        match parts.last_mut() {
            Some(part) if size <= OPERATIONS_PER_WRITE => part.push(draft),
            _ => {
                size = draft.operations.len();
                parts.push(vec![draft]);
            }
        }
    }
    parts
}

/// Whose operation failed; `None` for the fence, which is nobody's.
fn culprit(drafts: &[Draft], operation: Option<usize>) -> Option<usize> {
    let mut left = operation?.checked_sub(1)?;
    for (at, draft) in drafts.iter().enumerate() {
        match left.checked_sub(draft.operations.len()) {
            Some(rest) => left = rest,
            None => return Some(at),
        }
    }
    None
}

fn describe(topic: &Topic, validate_only: bool) -> CreatedTopic {
    let replicas = topic.partitions.values().next().map_or(0, |partition| partition.replicas.len());
    CreatedTopic {
        id: if validate_only { TopicId::ZERO } else { topic.id },
        partitions: i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX),
        replication_factor: i16::try_from(replicas).unwrap_or(i16::MAX),
        config: topic.config.clone(),
    }
}

/// All checks of Kafka, in its order; a topic that passes can be written.
///
/// `room` is what the request may still create; `unified` are the names of this request that could collide.
fn check_topic(
    cluster: &Cluster,
    settings: &Settings,
    new: &NewTopic,
    room: &mut usize,
    unified: &mut BTreeSet<String>,
    random: &mut dyn FnMut() -> u64,
) -> Result<Topic, TopicRefusal> {
    check_free(cluster, &new.name)?;
    let overrides = check_configs(&new.configs)?;
    let assignment = place(cluster, settings, new, *room, random)?;
    topic_name::check(&new.name).map_err(TopicRefusal::InvalidName)?;
    check_collision(cluster, &new.name, unified)?;
    check_assignment(&assignment)?;
    let config = if overrides.is_empty() {
        settings.dynamic.topic_defaults.clone()
    } else {
        let config = settings.dynamic.topic_defaults.with_overrides(&overrides);
        Arc::new(config.map_err(|error| TopicRefusal::InvalidConfig(error.to_string()))?)
    };
    *room -= assignment.len();
    let partition = |(number, replicas)| (number, Partition { replicas, state: None, has_node: false });
    Ok(Topic {
        id: new_id(|id| cluster.ids.contains_key(id), random),
        partitions: assignment.into_iter().map(partition).collect(),
        config,
        has_config_node: true,
        has_partitions_node: false,
    })
}

fn check_free(cluster: &Cluster, name: &str) -> Result<(), TopicRefusal> {
    if name == "__cluster_metadata" {
        return Err(TopicRefusal::InvalidRequest(format!("Creation of internal topic {name} is prohibited.")));
    }
    if cluster.deleting.contains_key(name) {
        return Err(TopicRefusal::MarkedForDeletion(name.to_owned()));
    }
    if cluster.topics.contains_key(name) || cluster.creating.contains(name) {
        return Err(TopicRefusal::AlreadyExists(name.to_owned()));
    }
    Ok(())
}

fn check_configs(configs: &[(String, Option<String>)]) -> Result<ConfigMap, TopicRefusal> {
    let mut overrides = ConfigMap::new();
    for (name, value) in configs {
        let Some(value) = value else {
            let message = format!("Null value not supported for topic configs: {name}");
            return Err(TopicRefusal::InvalidConfig(message));
        };
        overrides.insert(name.clone(), value.clone());
    }
    Ok(overrides)
}

/// The replicas of each partition: given, or chosen here.
fn place(
    cluster: &Cluster,
    settings: &Settings,
    new: &NewTopic,
    room: usize,
    random: &mut dyn FnMut() -> u64,
) -> Result<BTreeMap<i32, Vec<BrokerId>>, TopicRefusal> {
    let too_many = || {
        let message = format!("One request may create at most {PARTITIONS_PER_REQUEST_MAX} partitions.");
        Err(TopicRefusal::InvalidPartitions(message))
    };
    if !new.assignments.is_empty() {
        if new.partitions != -1 || new.replication_factor != -1 {
            return Err(TopicRefusal::InvalidRequest(
                "Both numPartitions or replicationFactor and replicasAssignments were set. Only one of them may be."
                    .to_owned(),
            ));
        }
        if new.assignments.len() > room {
            return too_many();
        }
        let assignment: BTreeMap<i32, Vec<BrokerId>> = new.assignments.iter().cloned().collect();
        if assignment.len() != new.assignments.len() {
            let message = format!("Topic '{}' assigns a partition more than once.", new.name);
            return Err(TopicRefusal::InvalidReplicaAssignment(message));
        }
        return Ok(assignment);
    }
    let partitions = if new.partitions == -1 { settings.num_partitions } else { new.partitions };
    let replication_factor = match new.replication_factor {
        -1 => settings.default_replication_factor,
        factor => factor,
    };
    if usize::try_from(partitions).is_ok_and(|partitions| partitions > room) {
        return too_many();
    }
    let brokers: Vec<_> = cluster.brokers.values().map(|(broker, _)| (broker.id, broker.rack.clone())).collect();
    replicas::assign(partitions, replication_factor, &brokers, random(), random()).map_err(|error| match error {
        PlacementError::NoPartitions => TopicRefusal::InvalidPartitions(error.to_string()),
        PlacementError::NoReplicas | PlacementError::TooFewBrokers { .. } => {
            TopicRefusal::InvalidReplicationFactor(error.to_string())
        }
        PlacementError::SomeRacksMissing => TopicRefusal::Tree(error.to_string()),
    })
}

/// KIP-4's old wound: in metric names `.` becomes `_`, so names that differ only there are one.
fn check_collision(cluster: &Cluster, name: &str, unified: &mut BTreeSet<String>) -> Result<(), TopicRefusal> {
    if !topic_name::can_collide(name) {
        return Ok(());
    }
    let form = topic_name::unified(name);
    let existing: Vec<&str> = cluster.unified.get(&form).into_iter().flatten().map(|name| &**name).collect();
    if !existing.is_empty() {
        let message = format!("Topic '{name}' collides with existing topics: {}", existing.join(", "));
        return Err(TopicRefusal::InvalidName(message));
    }
    let being_made = cluster.creating.iter().any(|other| topic_name::unified(other) == form);
    if being_made || !unified.insert(form) {
        return Err(TopicRefusal::InvalidName(format!("Topic '{name}' collides with another that is being created")));
    }
    Ok(())
}

fn check_assignment(assignment: &BTreeMap<i32, Vec<BrokerId>>) -> Result<(), TopicRefusal> {
    let refuse = |message: &str| Err(TopicRefusal::InvalidReplicaAssignment(message.to_owned()));
    let count = assignment.values().next().map_or(0, Vec::len);
    if count == 0 {
        return refuse("A partition has no replicas");
    }
    for (expected, (number, replicas)) in (0..).zip(assignment) {
        if *number != expected {
            return refuse("partitions should be a consecutive 0-based integer sequence");
        }
        if replicas.len() != count {
            return refuse("All partitions should have the same number of replicas");
        }
        let unique: BTreeSet<_> = replicas.iter().collect();
        if unique.len() != count || replicas.iter().any(|id| id.0 < 0) {
            return refuse("A replica list names a broker twice, or one that can't be");
        }
    }
    Ok(())
}

/// A random topic id that no topic has: a version 4 UUID as Kafka makes them, so none of its reserved ones.
pub(super) fn new_id(is_taken: impl Fn(&TopicId) -> bool, random: &mut dyn FnMut() -> u64) -> TopicId {
    loop {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&random().to_be_bytes());
        bytes[8..].copy_from_slice(&random().to_be_bytes());
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let id = TopicId(bytes);
        // Kafka avoids ids whose text starts with a dash: tools would take it for a flag.
        if !id.to_string().starts_with('-') && !is_taken(&id) {
            return id;
        }
    }
}
