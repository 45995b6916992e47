//! More partitions for topics that are there (Kafka 3.9 `ZkAdminManager.createPartitions`).
//!
//! Each proposal is one transaction: the topics' assignments and the new partitions' first states. One proposal runs at a
//! time, see `configs`: how many partitions a topic has must not change between the check and the write.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::base::ids::BrokerId;
use crate::metadata::proposal::{Answer, MorePartitions, TopicRefusal};
use crate::metadata::tree::{Operation, Outcome, RequestError, TreeError, Version};
use crate::metadata::znodes;

use super::cluster::{Cluster, Topic};
use super::create::PARTITIONS_PER_REQUEST_MAX;
use super::election::{encode_topic, state_operations};
use super::partition::{Partition, first_leadership};
use super::replicas::{self, PlacementError};
use super::{Controller, Effect, Open, Ticket, Waiting, When};

/// Checked new partitions of one topic on their way into the tree.
pub struct Expansion {
    /// Place in the proposal's results.
    index: usize,
    topic: Arc<str>,
    partitions: BTreeMap<i32, Partition>,
    operations: Vec<Operation>,
}

impl Controller {
    pub(super) fn create_partitions(
        &mut self,
        ticket: Ticket,
        topics: Vec<MorePartitions>,
        validate_only: bool,
        effects: &mut Vec<Effect>,
    ) {
        let Some(cluster) = self.cluster() else { return };
        let mut room = PARTITIONS_PER_REQUEST_MAX;
        let (mut results, mut expansions) = (Vec::with_capacity(topics.len()), Vec::new());
        for (index, more) in topics.iter().enumerate() {
            results.push(check(cluster, more, &mut room).map(|(name, assignment)| {
                if !validate_only {
                    expansions.push(Expansion::new(cluster, index, name, assignment));
                }
            }));
        }
        if expansions.is_empty() {
            self.serial_running = false;
            let answer = Answer::CreatePartitions(results);
            return effects.push(Effect::Answer { ticket, answer, when: When::Now });
        }
        self.open.insert(ticket, Open::Expand { results });
        self.write_expansions(ticket, expansions, effects);
    }

    fn write_expansions(&mut self, ticket: Ticket, expansions: Vec<Expansion>, effects: &mut Vec<Effect>) {
        let Some(cluster) = self.cluster() else { return };
        let mut operations = vec![cluster.fence()];
        operations.extend(expansions.iter().flat_map(|expansion| expansion.operations.iter().cloned()));
        self.write(operations, Waiting::Expand { ticket, expansions }, effects);
    }

    pub(super) fn expanded(
        &mut self,
        ticket: Ticket,
        mut expansions: Vec<Expansion>,
        result: Result<Vec<Outcome>, RequestError>,
        effects: &mut Vec<Effect>,
    ) {
        match result {
            Ok(_) => self.install_partitions(expansions, effects),
            Err(failed) => {
                if self.survives(&failed, effects)
                    && let Some(at) = culprit(&expansions, failed.operation)
                {
                    let expansion = expansions.remove(at);
                    let refusal = match failed.error {
                        TreeError::NoNode(_) => TopicRefusal::NoSuchTopic(expansion.topic.to_string()),
                        other => TopicRefusal::Tree(other.to_string()),
                    };
                    self.refuse_expansion(ticket, expansion.index, refusal);
                    // A deletion that began meanwhile has counted the partitions it takes away.
                    let (going, expansions): (Vec<_>, Vec<_>) =
                        expansions.into_iter().partition(|expansion| self.is_deleting(&expansion.topic));
                    for expansion in going {
                        self.refuse_expansion(ticket, expansion.index, queued_for_deletion());
                    }
                    if !expansions.is_empty() {
                        return self.write_expansions(ticket, expansions, effects);
                    }
                } else {
                    let refusal = self.refusal_after(&failed);
                    expansions.iter().for_each(|expansion| {
                        self.refuse_expansion(ticket, expansion.index, refusal.clone());
                    });
                }
            }
        }
        self.serial_running = false;
        if let Some(Open::Expand { results }) = self.open.remove(&ticket) {
            effects.push(Effect::Answer { ticket, answer: Answer::CreatePartitions(results), when: When::Shown });
        }
    }

    /// The partitions are in the tree: take them in and tell the brokers.
    fn install_partitions(&mut self, expansions: Vec<Expansion>, effects: &mut Vec<Effect>) {
        let Some(cluster) = self.cluster() else { return };
        let mut new: BTreeSet<(Arc<str>, i32)> = BTreeSet::new();
        let mut names = Vec::new();
        for expansion in expansions {
            // Deleted meanwhile: then the deletion has seen none of them, and Kafka's brokers would not either.
            let Some(topic) = cluster.topics.get_mut(&expansion.topic) else { continue };
            topic.has_partitions_node |= expansion.partitions.values().any(|partition| partition.has_node);
            new.extend(expansion.partitions.keys().map(|number| (expansion.topic.clone(), *number)));
            topic.partitions.extend(expansion.partitions);
            if !cluster.deleting.contains_key(&expansion.topic) {
                names.push(expansion.topic);
            }
        }
        let is_new = |topic: &str, partition: i32| new.contains(&(Arc::from(topic), partition));
        for (broker, mut inputs) in cluster.announce(&names, &is_new) {
            // The partitions that were there have no new leaders.
            if let Some(lead) = &mut inputs.leader_and_isr {
                for topic in &mut lead.topics {
                    topic.partitions.retain(|partition| partition.is_new);
                }
            }
            if let Some(update) = &mut inputs.update_metadata {
                for topic in &mut update.topics {
                    topic.partitions.retain(|partition| is_new(&topic.name, partition.partition));
                }
            }
            effects.push(Effect::Tell { broker, inputs: Box::new(inputs), done: None });
        }
    }

    fn is_deleting(&mut self, topic: &str) -> bool {
        self.cluster().is_some_and(|cluster| cluster.deleting.contains_key(topic))
    }

    fn refuse_expansion(&mut self, ticket: Ticket, index: usize, refusal: TopicRefusal) {
        let Some(Open::Expand { results }) = self.open.get_mut(&ticket) else {
            unreachable!("an expansion under way is open")
        };
        results[index] = Err(refusal);
    }
}

impl Expansion {
    fn new(cluster: &Cluster, index: usize, name: Arc<str>, assignment: BTreeMap<i32, Vec<BrokerId>>) -> Expansion {
        let topic = &cluster.topics[&name];
        let partition = |(number, replicas)| (number, Partition { replicas, state: None, has_node: false });
        let mut partitions: BTreeMap<i32, Partition> = assignment.into_iter().map(partition).collect();
        let mut all = topic.partitions.clone();
        all.extend(partitions.clone());
        let data = encode_topic(topic.id, &all);
        let mut operations = vec![Operation::Set { path: znodes::topic_path(&name), data, version: Version::Any }];
        let mut has_partitions_node = topic.has_partitions_node;
        for (number, partition) in &mut partitions {
            let Some(first) = first_leadership(&partition.replicas, |id| cluster.is_live(id)) else { continue };
            let has_node = std::mem::replace(&mut has_partitions_node, true);
            operations.extend(state_operations(&name, *number, partition, &first, cluster.epoch, has_node));
            (partition.state, partition.has_node) = (Some(first), true);
        }
        Expansion { index, topic: name, partitions, operations }
    }
}

fn queued_for_deletion() -> TopicRefusal {
    TopicRefusal::InvalidName("The topic is queued for deletion.".to_owned())
}

/// Whose operation failed; `None` for the fence, which is nobody's.
fn culprit(expansions: &[Expansion], operation: Option<usize>) -> Option<usize> {
    let mut left = operation?.checked_sub(1)?;
    for (at, expansion) in expansions.iter().enumerate() {
        match left.checked_sub(expansion.operations.len()) {
            Some(rest) => left = rest,
            None => return Some(at),
        }
    }
    None
}

/// All checks of Kafka, in its order; gives the new partitions' replicas. `room` is what the request may still create.
fn check(
    cluster: &Cluster,
    more: &MorePartitions,
    room: &mut usize,
) -> Result<(Arc<str>, BTreeMap<i32, Vec<BrokerId>>), TopicRefusal> {
    if cluster.deleting.contains_key(&*more.topic) {
        return Err(queued_for_deletion());
    }
    let found = cluster.topics.get_key_value(&*more.topic);
    let (name, topic) = found.ok_or_else(|| TopicRefusal::NoSuchTopic(more.topic.clone()))?;
    let existing = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
    let refuse = |message: String| Err(TopicRefusal::InvalidPartitions(message));
    if more.count < existing {
        return refuse(format!(
            "Topic currently has {existing} partitions, which is higher than the requested {}.",
            more.count
        ));
    }
    if more.count == existing {
        return refuse(format!("Topic already has {existing} partitions."));
    }
    let increment = more.count - existing;
    if usize::try_from(increment).is_ok_and(|increment| increment > *room) {
        return refuse(format!("One request may create at most {PARTITIONS_PER_REQUEST_MAX} partitions."));
    }
    let Some(first) = topic.partitions.get(&0) else {
        let message = format!("Unexpected existing replica assignment for topic '{name}', partition id 0 is missing.");
        return Err(TopicRefusal::Tree(message));
    };
    let assignment = match &more.assignments {
        Some(given) => check_given(cluster, topic, existing, increment, given)?,
        None => place(cluster, existing, increment, &first.replicas)?,
    };
    *room -= assignment.len();
    Ok((name.clone(), assignment))
}

fn check_given(
    cluster: &Cluster,
    topic: &Topic,
    existing: i32,
    increment: i32,
    given: &[Vec<BrokerId>],
) -> Result<BTreeMap<i32, Vec<BrokerId>>, TopicRefusal> {
    let refuse = |message: String| Err(TopicRefusal::InvalidReplicaAssignment(message));
    let unknown: BTreeSet<BrokerId> = given.iter().flatten().copied().filter(|id| !cluster.is_live(*id)).collect();
    if !unknown.is_empty() {
        return refuse(format!("Unknown broker(s) in replica assignment: {}.", list(unknown)));
    }
    if usize::try_from(increment) != Ok(given.len()) {
        let count = given.len();
        return refuse(format!("Increasing the number of partitions by {increment} but {count} assignments provided."));
    }
    for (number, replicas) in (existing..).zip(given) {
        if replicas.is_empty() {
            return refuse(format!("Cannot have replication factor of 0 for partition id {number}."));
        }
        if replicas.iter().collect::<BTreeSet<_>>().len() != replicas.len() {
            return refuse(format!(
                "Duplicate brokers not allowed in replica assignment: {} for partition id {number}.",
                list(replicas.iter().copied())
            ));
        }
    }
    let expected = topic.partitions[&0].replicas.len();
    let odd = || (existing..).zip(given).filter(|(_, replicas)| replicas.len() != expected);
    if odd().next().is_some() {
        let numbers: Vec<String> = odd().map(|(number, _)| number.to_string()).collect();
        let counts: Vec<String> = odd().map(|(_, replicas)| replicas.len().to_string()).collect();
        return refuse(format!(
            "Inconsistent replication factor between partitions, partition 0 has {expected} while partitions [{}] have \
             replication factors [{}], respectively.",
            numbers.join(", "),
            counts.join(", ")
        ));
    }
    Ok((existing..).zip(given.iter().cloned()).collect())
}

fn place(
    cluster: &Cluster,
    existing: i32,
    increment: i32,
    first_replicas: &[BrokerId],
) -> Result<BTreeMap<i32, Vec<BrokerId>>, TopicRefusal> {
    let brokers: Vec<_> = cluster.brokers.values().map(|(broker, _)| (broker.id, broker.rack.clone())).collect();
    let factor = i16::try_from(first_replicas.len()).unwrap_or(i16::MAX);
    let leader = first_replicas.first().copied().unwrap_or(cluster.controller_id);
    replicas::assign_more(existing, increment, factor, &brokers, leader).map_err(|error| match error {
        PlacementError::NoPartitions => TopicRefusal::InvalidPartitions(error.to_string()),
        PlacementError::NoReplicas | PlacementError::TooFewBrokers { .. } => {
            TopicRefusal::InvalidReplicationFactor(error.to_string())
        }
        PlacementError::SomeRacksMissing => TopicRefusal::Tree(error.to_string()),
    })
}

fn list(brokers: impl IntoIterator<Item = BrokerId>) -> String {
    brokers.into_iter().map(|id| id.0.to_string()).collect::<Vec<_>>().join(", ")
}
