//! More partitions for topics that are there (Kafka 3.9 `ZkAdminManager.createPartitions`).
//!
//! Written as topics are created (see `create`): a topic's assignment with the new partitions' first states if they fit into
//! one transaction, else the states after it. One proposal runs at a time, see `configs`: how many partitions a topic has
//! must not change between the check and the write.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::base::ids::BrokerId;
use crate::metadata::proposal::{Answer, MorePartitions, TopicRefusal};
use crate::metadata::tree::{Operation, Outcome, RequestError, TreeError, Version};
use crate::metadata::znodes;

use super::cluster::{Cluster, Topic};
use super::create::{PARTITIONS_PER_REQUEST_MAX, encode_topic, too_many_partitions};
use super::event::{Effect, Ticket, When};
use super::leadership::{Change, Made, Then, Told, elect};
use super::partition::Partition;
use super::writes::{self, Item};
use super::{Controller, Waiting, replicas};

/// Checked new partitions of one topic on their way into the tree.
pub struct Expansion {
    made: Made,
    partitions: BTreeMap<i32, Partition>,
    operations: Vec<Operation>,
    /// First leaderships among the operations.
    within: Vec<Change>,
    /// First leaderships that are written after them.
    after: Vec<Change>,
}

impl Item for Expansion {
    fn operations(&self) -> &[Operation] {
        &self.operations
    }
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
        self.open(ticket, Answer::CreatePartitions(results), expansions.len(), When::Shown, effects);
        for part in writes::in_parts(expansions) {
            self.write_expansions(ticket, part, effects);
        }
    }

    fn write_expansions(&mut self, ticket: Ticket, expansions: Vec<Expansion>, effects: &mut Vec<Effect>) {
        let Some(cluster) = self.cluster() else { return };
        let operations = writes::multi(cluster.fence(), &expansions);
        self.write(operations, Waiting::Expand { ticket, expansions }, effects);
    }

    pub(super) fn expanded(
        &mut self,
        ticket: Ticket,
        mut expansions: Vec<Expansion>,
        result: Result<Vec<Outcome>, RequestError>,
        effects: &mut Vec<Effect>,
    ) {
        let Err(failed) = result else { return self.install_partitions(ticket, expansions, effects) };
        if self.survives(&failed, effects)
            && let Some(at) = writes::culprit(&expansions, failed.operation)
        {
            let expansion = expansions.remove(at);
            let refusal = match failed.error {
                TreeError::NoNode(_) => TopicRefusal::NoSuchTopic(expansion.made.topic.to_string()),
                other => TopicRefusal::Tree(other.to_string()),
            };
            // A deletion that began meanwhile has counted the partitions it takes away.
            let (going, expansions): (Vec<_>, Vec<_>) =
                expansions.into_iter().partition(|expansion| self.is_deleting(&expansion.made.topic));
            if !expansions.is_empty() {
                self.write_expansions(ticket, expansions, effects);
            }
            let refused = [(expansion.made.index, Err(refusal))].into_iter();
            let going = going.into_iter().map(|going| (going.made.index, Err(queued_for_deletion())));
            return self.decide_topics(ticket, refused.chain(going).collect(), effects);
        }
        let refusal = self.refusal_after(&failed);
        let refused = expansions.iter().map(|expansion| (expansion.made.index, Err(refusal.clone()))).collect();
        self.decide_topics(ticket, refused, effects);
    }

    /// The partitions are in the tree: take them in, write what is left, and tell the brokers.
    fn install_partitions(&mut self, ticket: Ticket, expansions: Vec<Expansion>, effects: &mut Vec<Effect>) {
        let (mut told, mut changes, mut made) = (Told::default(), Vec::new(), Vec::new());
        for expansion in expansions {
            // Deleted meanwhile: then the deletion has seen none of them, and Kafka's brokers would not either.
            if let Some(topic) = self.cluster().and_then(|cluster| cluster.topics.get_mut(&expansion.made.topic)) {
                topic.partitions.extend(expansion.partitions);
                for change in expansion.within {
                    topic.take(&change);
                    told.add(&expansion.made.topic, change.partition, true);
                }
                changes.extend(expansion.after);
            }
            made.push(expansion.made);
        }
        self.lead(changes, told, Then::Made { ticket, made }, effects);
    }

    fn is_deleting(&mut self, topic: &str) -> bool {
        self.cluster().is_some_and(|cluster| cluster.deleting.contains_key(topic))
    }
}

impl Expansion {
    fn new(cluster: &Cluster, index: usize, name: Arc<str>, assignment: BTreeMap<i32, Vec<BrokerId>>) -> Expansion {
        let before = &cluster.topics[&name];
        let partition = |(number, replicas)| (number, Partition { replicas, state: None, has_node: false });
        let partitions: BTreeMap<i32, Partition> = assignment.into_iter().map(partition).collect();
        let mut all = before.partitions.clone();
        all.extend(partitions.clone());
        let data = encode_topic(before.id, &all, &before.others);
        let mut operations = vec![Operation::Set { path: znodes::topic_path(&name), data, version: Version::Any }];
        let after = Topic {
            id: before.id,
            partitions: all,
            has_partitions_node: before.has_partitions_node,
            others: before.others.clone(),
        };
        let changes = elect(cluster, &name, &after, partitions.keys().copied(), &BTreeSet::new(), false);
        let (within, after) = writes::join(&mut operations, changes);
        let first = partitions.keys().next().copied().unwrap_or(i32::MAX);
        Expansion { made: Made { index, topic: name, first }, partitions, operations, within, after }
    }
}

fn queued_for_deletion() -> TopicRefusal {
    TopicRefusal::InvalidName("The topic is queued for deletion.".to_owned())
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
        return Err(too_many_partitions());
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
    let factor = i16::try_from(first_replicas.len()).unwrap_or(i16::MAX);
    let leader = first_replicas.first().copied().unwrap_or(cluster.controller_id);
    Ok(replicas::assign_more(existing, increment, factor, &replicas::live(cluster), leader)?)
}

fn list(brokers: impl IntoIterator<Item = BrokerId>) -> String {
    brokers.into_iter().map(|id| id.0.to_string()).collect::<Vec<_>>().join(", ")
}
