//! Creating topics: check, place, write, announce (Kafka 3.9 `ZkAdminManager.createTopics`, `AdminZkClient`).
//!
//! A topic whose nodes fit into one transaction is written whole in one, config and partition states included; several small
//! ones share a transaction. Of a larger one the config and the topic are written first and the states follow, as in
//! Kafka; a crash between leaves partitions without leaders, and whoever takes over gives them some. If a topic turns out
//! to exist, it alone is refused and the rest is written again.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::base::ids::{BrokerId, TopicId};
use crate::config::TopicConfig;
use crate::metadata::proposal::{Answer, ConfigMap, CreateTopicResult, CreatedTopic, NewTopic, TopicRefusal};
use crate::metadata::tree::{CreateMode, Operation, Outcome, RequestError, TreeError, Version};
use crate::metadata::znodes::{self, Others, TopicAssignment};

use super::cluster::{Cluster, Topic};
use super::event::{Effect, Settings, Ticket, When};
use super::leadership::{Change, Made, Then, Told, elect};
use super::partition::Partition;
use super::writes::{self, Item};
use super::{Controller, Waiting, replicas, topic_name};

/// Partitions that one request may create, in all: bounds what a request can make the controller hold and write.
pub const PARTITIONS_PER_REQUEST_MAX: usize = 50_000;

/// A checked topic on its way into the tree.
pub struct Draft {
    made: Made,
    topic: Topic,
    operations: Vec<Operation>,
    /// Leaderships among the operations.
    within: Vec<Change>,
    /// Leaderships that are written after them.
    after: Vec<Change>,
}

/// A topic that may be created.
struct Checked {
    topic: Topic,
    config: Arc<TopicConfig>,
}

impl Item for Draft {
    fn operations(&self) -> &[Operation] {
        &self.operations
    }
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
            let outcome = checked.map(|checked| {
                let created = describe(&checked, validate_only);
                if !validate_only {
                    drafts.push(Draft::new(cluster, index, &new.name, checked));
                }
                created
            });
            results.push(CreateTopicResult { name: new.name.clone(), outcome });
        }
        for draft in &drafts {
            cluster.creating.insert(draft.made.topic.to_string());
        }
        self.open(ticket, Answer::CreateTopics(results), drafts.len(), When::Shown, effects);
        for part in writes::in_parts(drafts) {
            self.write_drafts(ticket, part, effects);
        }
    }

    fn write_drafts(&mut self, ticket: Ticket, drafts: Vec<Draft>, effects: &mut Vec<Effect>) {
        let Some(cluster) = self.cluster() else { return };
        let operations = writes::multi(cluster.fence(), &drafts);
        self.write(operations, Waiting::Create { ticket, drafts }, effects);
    }

    pub(super) fn created(
        &mut self,
        ticket: Ticket,
        mut drafts: Vec<Draft>,
        result: Result<Vec<Outcome>, RequestError>,
        effects: &mut Vec<Effect>,
    ) {
        let Err(failed) = result else { return self.install(ticket, drafts, effects) };
        if self.survives(&failed, effects)
            && let Some(at) = writes::culprit(&drafts, failed.operation)
        {
            if drafts[at].takes_config_over(&failed) {
                return self.write_drafts(ticket, drafts, effects);
            }
            let draft = drafts.remove(at);
            let refusal = match failed.error {
                TreeError::NodeExists(_) => TopicRefusal::AlreadyExists(draft.made.topic.to_string()),
                other => TopicRefusal::Tree(other.to_string()),
            };
            if !drafts.is_empty() {
                self.write_drafts(ticket, drafts, effects);
            }
            return self.refuse_creations(ticket, &[draft], &refusal, effects);
        }
        let refusal = self.refusal_after(&failed);
        self.refuse_creations(ticket, &drafts, &refusal, effects);
    }

    /// The topics are in the tree: take them in, write what is left, and tell the brokers.
    fn install(&mut self, ticket: Ticket, drafts: Vec<Draft>, effects: &mut Vec<Effect>) {
        let (mut told, mut changes, mut made) = (Told::default(), Vec::new(), Vec::new());
        for mut draft in drafts {
            let name = draft.made.topic.clone();
            for change in draft.within {
                draft.topic.take(&change);
                told.add(&name, change.partition, true);
            }
            changes.extend(draft.after);
            made.push(draft.made);
            self.watch_topic(&name, effects);
            if let Some(cluster) = self.cluster() {
                cluster.creating.remove(&*name);
                cluster.insert(name, draft.topic);
            }
        }
        self.lead(changes, told, Then::Made { ticket, made }, effects);
    }

    fn refuse_creations(
        &mut self,
        ticket: Ticket,
        drafts: &[Draft],
        refusal: &TopicRefusal,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(cluster) = self.cluster() {
            for draft in drafts {
                cluster.creating.remove(&*draft.made.topic);
            }
        }
        let outcomes = drafts.iter().map(|draft| (draft.made.index, Err(refusal.clone()))).collect();
        self.decide_topics(ticket, outcomes, effects);
    }
}

impl Draft {
    fn new(cluster: &Cluster, index: usize, name: &str, Checked { topic, config }: Checked) -> Draft {
        let create = |path, data| Operation::Create { path, data, mode: CreateMode::Persistent };
        let name: Arc<str> = name.into();
        let mut operations = vec![
            create(znodes::topic_config_path(&name), znodes::encode_config(&config.overrides, &Others::default())),
            create(znodes::topic_path(&name), encode_topic(topic.id, &topic.partitions, &topic.others)),
        ];
        let changes = elect(cluster, &name, &topic, topic.partitions.keys().copied(), &BTreeSet::new(), false);
        let (within, after) = writes::join(&mut operations, changes);
        Draft { made: Made { index, topic: name, first: 0 }, topic, operations, within, after }
    }

    /// Whether the write was refused because a creation that broke off, or somebody before it, left a config without
    /// topic: then it is set instead of made.
    fn takes_config_over(&mut self, failed: &RequestError) -> bool {
        let TreeError::NodeExists(path) = &failed.error else { return false };
        match &mut self.operations[0] {
            Operation::Create { path: config_path, data, .. } if config_path == path => {
                let data = std::mem::take(data);
                self.operations[0] = Operation::Set { path: path.clone(), data, version: Version::Any };
                true
            }
            _ => false,
        }
    }
}

fn describe(Checked { topic, config }: &Checked, validate_only: bool) -> CreatedTopic {
    let replicas = topic.partitions.values().next().map_or(0, |partition| partition.replicas.len());
    CreatedTopic {
        id: if validate_only { TopicId::ZERO } else { topic.id },
        partitions: i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX),
        replication_factor: i16::try_from(replicas).unwrap_or(i16::MAX),
        config: config.clone(),
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
) -> Result<Checked, TopicRefusal> {
    check_free(cluster, &new.name)?;
    let overrides = check_configs(&new.configs)?;
    let assignment = place(cluster, settings, new, *room, random)?;
    topic_name::check(&new.name).map_err(TopicRefusal::InvalidName)?;
    check_collision(cluster, &new.name, unified)?;
    check_assignment(&assignment)?;
    let config = if overrides.is_empty() {
        settings.followed.dynamic.topic_defaults.clone()
    } else {
        let config = settings.followed.dynamic.topic_defaults.with_overrides(&overrides);
        Arc::new(config.map_err(|error| TopicRefusal::InvalidConfig(error.to_string()))?)
    };
    *room -= assignment.len();
    let partition = |(number, replicas)| (number, Partition { replicas, state: None, has_node: false });
    let id = new_id(|id| cluster.ids.contains_key(id), random);
    let partitions = assignment.into_iter().map(partition).collect();
    Ok(Checked { topic: Topic { id, partitions, has_partitions_node: false, others: Others::default() }, config })
}

fn check_free(cluster: &Cluster, name: &str) -> Result<(), TopicRefusal> {
    if name == "__cluster_metadata" {
        return Err(TopicRefusal::InvalidRequest(format!("Creation of internal topic {name} is prohibited.")));
    }
    if cluster.deleting.contains_key(name) {
        return Err(TopicRefusal::MarkedForDeletion(name.to_owned()));
    }
    let is_taken = cluster.topics.contains_key(name) || cluster.damaged.contains_key(name);
    if is_taken || cluster.creating.contains(name) {
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
    if !new.assignments.is_empty() {
        if new.partitions != -1 || new.replication_factor != -1 {
            return Err(TopicRefusal::InvalidRequest(
                "Both numPartitions or replicationFactor and replicasAssignments were set. Only one of them may be."
                    .to_owned(),
            ));
        }
        if new.assignments.len() > room {
            return Err(too_many_partitions());
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
        return Err(too_many_partitions());
    }
    Ok(replicas::assign(partitions, replication_factor, &replicas::live(cluster), random(), random())?)
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

pub(super) fn too_many_partitions() -> TopicRefusal {
    TopicRefusal::InvalidPartitions(format!("One request may create at most {PARTITIONS_PER_REQUEST_MAX} partitions."))
}

/// The topic's value in the tree.
pub(super) fn encode_topic(id: TopicId, partitions: &BTreeMap<i32, Partition>, others: &Others) -> Vec<u8> {
    let partitions = partitions.iter().map(|(number, partition)| (*number, partition.replicas.clone())).collect();
    znodes::encode_topic(&TopicAssignment { id, partitions, others: others.clone() })
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
