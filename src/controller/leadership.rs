//! Writing new leaderships down, and telling brokers of them when all that belong together are written.
//!
//! What one event changes is a group: its multis are under way at once, and when the last is decided the brokers hear of
//! what was written, in one message each. A partition whose write is refused stays as it is: somebody else has changed it,
//! and a watch or the next take-over shows how.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::base::ids::{BrokerId, TopicPartition};
use crate::metadata::inputs::NO_LEADER;
use crate::metadata::proposal::TopicRefusal;
use crate::metadata::tree::{CreateMode, Operation, Outcome, RequestError, Version};
use crate::metadata::znodes::{self, PartitionState};

use super::cluster::{Cluster, Partitions, Topic};
use super::event::{Effect, Ticket};
use super::partition::{Leadership, Partition, first_leadership, next_leadership};
use super::writes::{self, Item};
use super::{Controller, Waiting};

/// One partition's new leadership, to be written.
#[derive(Clone, Debug)]
pub struct Change {
    pub topic: Arc<str>,
    pub partition: i32,
    leadership: Leadership,
    /// It never had a leader.
    pub is_new: bool,
    operations: Vec<Operation>,
}

impl Item for Change {
    fn operations(&self) -> &[Operation] {
        &self.operations
    }
}

/// Leaderships that are written for one purpose.
pub struct Group {
    /// In which it was begun.
    reign: u64,
    writes: usize,
    told: Told,
    then: Then,
}

impl Group {
    pub fn is_take_over(&self) -> bool {
        matches!(self.then, Then::Speak)
    }
}

/// What brokers are told of.
#[derive(Default)]
pub struct Told {
    /// All brokers hear how these are.
    pub shown: Partitions,
    /// Those that hold replicas of these hear who leads.
    pub led: Partitions,
    /// These never had a leader before.
    pub new: Partitions,
}

/// What follows when a group is written.
pub enum Then {
    /// The controller is active, and speaks.
    Speak,
    /// These parts of a proposal are decided.
    Made {
        ticket: Ticket,
        made: Vec<Made>,
    },
    Nothing,
}

/// A topic of a proposal that is in the tree with new partitions.
pub struct Made {
    /// Its place in the proposal's results.
    pub index: usize,
    pub topic: Arc<str>,
    /// The first of the partitions that are new.
    pub first: i32,
}

impl Told {
    pub fn add(&mut self, topic: &Arc<str>, partition: i32, is_new: bool) {
        self.shown.entry(topic.clone()).or_default().insert(partition);
        self.led.entry(topic.clone()).or_default().insert(partition);
        if is_new {
            self.new.entry(topic.clone()).or_default().insert(partition);
        }
    }
}

impl Controller {
    /// Writes changes down; brokers are told of them, and of what is in `told` already.
    pub(super) fn lead(&mut self, changes: Vec<Change>, told: Told, then: Then, effects: &mut Vec<Effect>) {
        let group = self.next_group;
        self.next_group += 1;
        let parts = writes::in_parts(changes);
        self.groups.insert(group, Group { reign: self.reign, writes: parts.len(), told, then });
        if parts.is_empty() {
            return self.announce(group, effects);
        }
        for changes in parts {
            self.write_changes(group, changes, effects);
        }
    }

    fn write_changes(&mut self, group: u64, changes: Vec<Change>, effects: &mut Vec<Effect>) {
        let Some(cluster) = self.cluster() else { return };
        let operations = writes::multi(cluster.fence(), &changes);
        self.write(operations, Waiting::Lead { group, changes }, effects);
    }

    pub(super) fn led(
        &mut self,
        group: u64,
        mut changes: Vec<Change>,
        result: Result<Vec<Outcome>, RequestError>,
        effects: &mut Vec<Effect>,
    ) {
        match result {
            Ok(_) => self.take_changes(group, changes),
            Err(failed) if self.survives(&failed, effects) => {
                if let Some(at) = writes::culprit(&changes, failed.operation) {
                    let change = changes.remove(at);
                    tracing::warn!(topic = &*change.topic, partition = change.partition, %failed,
                        "a partition's new leader could not be written: the partition stays as it is");
                    if !changes.is_empty() {
                        return self.write_changes(group, changes, effects);
                    }
                } else if self.groups.get(&group).is_some_and(Group::is_take_over) {
                    self.fail(format!("taking over: {failed}"), effects);
                } else if let Some(cluster) = self.cluster() {
                    tracing::warn!(partitions = changes.len(), %failed, "new leaders are written with the next change");
                    cluster.unled.extend(changes);
                }
            }
            // The group ends without announcement: nobody would listen to this controller.
            Err(_) => {}
        }
        let Some(open) = self.groups.get_mut(&group) else { return };
        open.writes -= 1;
        if open.writes == 0 {
            self.announce(group, effects);
        }
    }

    fn take_changes(&mut self, group: u64, changes: Vec<Change>) {
        let mut done = Vec::new();
        if let Some(cluster) = self.cluster() {
            for change in changes {
                // Gone meanwhile, and so is what was written.
                let Some(topic) = cluster.topics.get_mut(&change.topic) else { continue };
                topic.take(&change);
                if !cluster.deleting.contains_key(&change.topic) {
                    done.push((change.topic, change.partition, change.is_new));
                }
            }
        }
        let Some(group) = self.groups.get_mut(&group) else { return };
        for (topic, partition, is_new) in done {
            group.told.add(&topic, partition, is_new);
        }
    }

    /// The group is written.
    fn announce(&mut self, group: u64, effects: &mut Vec<Effect>) {
        let Some(Group { reign, told, then, .. }) = self.groups.remove(&group) else { return };
        let is_over = reign != self.reign;
        let Told { mut shown, mut led, new } = told;
        if !is_over && let Some(cluster) = self.cluster() {
            // One that began to be deleted meanwhile is not shown again.
            shown.retain(|topic, _| !cluster.deleting.contains_key(topic));
            led.retain(|topic, _| !cluster.deleting.contains_key(topic));
            for (broker, inputs) in cluster.announce(&shown, &led, &new) {
                effects.push(Effect::Tell { broker, inputs: Box::new(inputs), done: None });
            }
        }
        match then {
            Then::Speak => self.speak(effects),
            Then::Made { ticket, made } => {
                let outcomes = made.iter().map(|made| (made.index, self.outcome_of(made, is_over))).collect();
                self.decide_topics(ticket, outcomes, effects);
            }
            Then::Nothing => {}
        }
    }

    /// How it stands with new partitions when all was tried to give them leaders. `is_over`: that was in an earlier reign,
    /// and nobody knows.
    fn outcome_of(&mut self, made: &Made, is_over: bool) -> Result<(), TopicRefusal> {
        let refusal = self.topic_refusal();
        let Some(cluster) = self.cluster().filter(|_| !is_over) else { return Err(refusal) };
        // One that is gone by now was there.
        let Some(topic) = cluster.topics.get(&made.topic) else { return Ok(()) };
        let is_led = topic.partitions.range(made.first..).all(|(_, partition)| partition.state.is_some());
        if is_led { Ok(()) } else { Err(TopicRefusal::WithoutLeader) }
    }

    /// Replicas whose logs can't be opened: others lead in their place, if there are any in sync, and all brokers are told
    /// (Kafka 3.9 `KafkaController.onReplicasBecomeOffline`).
    pub(super) fn go_offline(&mut self, broker: BrokerId, partitions: Vec<TopicPartition>, effects: &mut Vec<Effect>) {
        let followed = self.settings.followed.clone();
        let Some(cluster) = self.cluster() else { return };
        let (mut told, mut changes) = (Told::default(), Vec::new());
        for TopicPartition { topic: name, partition } in partitions {
            if !cluster.set_offline(broker, &name, partition) {
                continue;
            }
            told.shown.entry(name.clone()).or_default().insert(partition);
            let topic = &cluster.topics[&name];
            changes.extend(elect(cluster, &name, topic, [partition], &BTreeSet::new(), followed.is_unclean(&name)));
        }
        self.lead(changes, told, Then::Nothing, effects);
    }

    /// Tries again what had no room.
    pub(super) fn lead_again(&mut self, effects: &mut Vec<Effect>) {
        let Some(cluster) = self.cluster() else { return };
        let mut changes = std::mem::take(&mut cluster.unled);
        changes.retain(|change| cluster.topics.contains_key(&change.topic));
        if !changes.is_empty() {
            self.lead(changes, Told::default(), Then::Nothing, effects);
        }
    }
}

/// What gives leaders to those of a topic's partitions that need one: that never had one, or whose leader is not online, or
/// has `returned`: what such a broker led before, it led in another life, and what it had not flushed may be gone, so
/// another in sync goes before it (Kafka 3.9 `KafkaController.processBrokerChange` takes it for a failure and a start).
///
/// A leader that lives and can't open its log stays where there is no other; it answers KAFKA_STORAGE_ERROR. Kafka takes
/// it away, and clients would wait for another that can't come.
pub(super) fn elect(
    cluster: &Cluster,
    name: &Arc<str>,
    topic: &Topic,
    numbers: impl IntoIterator<Item = i32>,
    returned: &BTreeSet<BrokerId>,
    unclean: bool,
) -> Vec<Change> {
    let mut has_partitions_node = topic.has_partitions_node;
    let change = |number: i32| {
        let partition = topic.partitions.get(&number)?;
        let is_online = |id| cluster.is_online(id, name, number);
        let leadership = match &partition.state {
            None => first_leadership(&partition.replicas, is_online)?,
            Some(state) if returned.contains(&state.leader) || !is_online(state.leader) => {
                let others = |id| is_online(id) && !returned.contains(&id);
                let other = next_leadership(&partition.replicas, state, others, false);
                match other.filter(|next| next.leader != NO_LEADER) {
                    Some(next) => next,
                    None => next_leadership(&partition.replicas, state, is_online, unclean)?,
                }
            }
            Some(_) => return None,
        };
        if leadership.leader == NO_LEADER && partition.state.as_ref().is_some_and(|state| cluster.is_live(state.leader))
        {
            return None;
        }
        let operations = state_operations(name, number, partition, &leadership, cluster.epoch, has_partitions_node);
        has_partitions_node = true;
        let is_new = partition.state.is_none();
        Some(Change { topic: name.clone(), partition: number, leadership, is_new, operations })
    };
    numbers.into_iter().filter_map(change).collect()
}

impl Topic {
    /// A change is written.
    pub fn take(&mut self, change: &Change) {
        if let Some(partition) = self.partitions.get_mut(&change.partition) {
            (partition.state, partition.has_node) = (Some(change.leadership.clone()), true);
            self.has_partitions_node = true;
        }
    }
}

/// What writes `leadership` down, parents included where they are missing.
pub(super) fn state_operations(
    topic: &str,
    number: i32,
    before: &Partition,
    leadership: &Leadership,
    controller_epoch: i32,
    has_partitions_node: bool,
) -> Vec<Operation> {
    let data = znodes::encode_partition_state(&PartitionState {
        leader: leadership.leader,
        leader_epoch: leadership.leader_epoch,
        isr: leadership.isr.clone(),
        controller_epoch,
        others: leadership.others.clone(),
    });
    let path = znodes::partition_state_path(topic, number);
    if let Some(state) = &before.state {
        return vec![Operation::Set { path, data, version: Version::Exactly(state.partition_epoch) }];
    }
    let create = |path, data| Operation::Create { path, data, mode: CreateMode::Persistent };
    let mut operations = Vec::with_capacity(3);
    if !has_partitions_node {
        operations.push(create(znodes::partitions_path(topic), Vec::new()));
    }
    if !before.has_node {
        operations.push(create(znodes::partition_path(topic, number), Vec::new()));
    }
    operations.push(create(path, data));
    operations
}
