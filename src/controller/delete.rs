//! Deleting topics (contract: `zookeeper.md` section 4, Kafka 3.9 `TopicDeletionManager`).
//!
//! ```text
//! mark in /admin/delete_topics -> brokers drop it from their image and delete the replicas -> all said so
//!   -> remove partitions, topic, config and mark -> answer
//! ```
//! A mark survives a crash: whoever becomes controller goes on from there, so the steps may be done twice. While a
//! replica's broker is away the deletion is suspended; the mark stays. Topics of one request go together, as many as a
//! transaction or an order holds. A topic with more nodes than that is removed by several, leaves first, and in the last of
//! them the topic, its settings and the mark.
//! What somebody else has removed meanwhile is as good as removed.
//!
//! Kafka answers when the topic has left the metadata; here the answer also waits for the removal from the tree, so that
//! a topic of the same name can be created at once.

#![forbid(unsafe_code)]

use std::sync::Arc;

use crate::base::ids::TopicId;
use crate::metadata::proposal::{Answer, DeleteTopicResult, TopicRef, TopicRefusal};
use crate::metadata::tree::{CreateMode, Operation, Outcome, RequestError, TreeError, Version};
use crate::metadata::znodes;

use super::cluster::{Cluster, Deletion, Stopping, Topic};
use super::event::{Effect, Ticket, When};
use super::writes::{self, Item, OPERATIONS_PER_WRITE_MAX};
use super::{Controller, Waiting};

/// Partitions that one order to give up names at most, as long as no single topic has more.
const PARTITIONS_PER_ORDER: usize = 4096;

/// What is left in the tree of a topic whose logs are gone, leaves first.
pub struct Removal {
    topic: Arc<str>,
    operations: Vec<Operation>,
    /// So many of the last go at once: the topic, its config, and the mark. Settings that stayed behind would be those of
    /// whatever takes the name next.
    together: usize,
}

impl Item for Removal {
    fn operations(&self) -> &[Operation] {
        &self.operations
    }
}

impl Controller {
    pub(super) fn delete_topics(&mut self, ticket: Ticket, topics: Vec<TopicRef>, effects: &mut Vec<Effect>) {
        if !self.settings.delete_topic_enable {
            // Whether there is such a topic is not looked at, as in Kafka.
            let refuse = |asked| {
                let (name, id) = match asked {
                    TopicRef::Name(name) => (Some(name), TopicId::ZERO),
                    TopicRef::Id(id) => (None, id),
                };
                DeleteTopicResult { name, id, outcome: Err(TopicRefusal::DeletionDisabled) }
            };
            let answer = Answer::DeleteTopics(topics.into_iter().map(refuse).collect());
            return self.answer(ticket, answer, When::Now, effects);
        }
        let Some(cluster) = self.cluster() else { return };
        let (mut results, mut marks) = (Vec::with_capacity(topics.len()), Vec::new());
        let mut waiting = 0;
        for (index, asked) in topics.into_iter().enumerate() {
            let found = find(cluster, &asked);
            let (name, id) = match (&found, asked) {
                (Some((name, topic)), _) => (Some(name.to_string()), topic.id),
                (None, TopicRef::Name(name)) => (Some(name), TopicId::ZERO),
                (None, TopicRef::Id(id)) => (None, id),
            };
            let outcome = match &found {
                None if name.is_some() => Err(TopicRefusal::UnknownTopic),
                None => Err(TopicRefusal::UnknownTopicId),
                Some((topic, _)) => match cluster.deleting.get_mut(topic) {
                    Some(deletion) if deletion.suspended => Err(TopicRefusal::DeletionSuspended),
                    Some(deletion) => {
                        deletion.waiters.push((ticket, index));
                        waiting += 1;
                        Ok(())
                    }
                    None => {
                        let waiters = vec![(ticket, index)];
                        cluster.deleting.insert(topic.clone(), Deletion { waiters, ..Deletion::default() });
                        marks.push(topic.clone());
                        waiting += 1;
                        Ok(())
                    }
                },
            };
            results.push(DeleteTopicResult { name, id, outcome });
        }
        self.open(ticket, Answer::DeleteTopics(results), waiting, When::Shown, effects);
        for topics in marks.chunks(OPERATIONS_PER_WRITE_MAX - 1) {
            self.mark(topics.to_vec(), effects);
        }
    }

    fn mark(&mut self, topics: Vec<Arc<str>>, effects: &mut Vec<Effect>) {
        let Some(cluster) = self.cluster() else { return };
        let mut operations = vec![cluster.fence()];
        operations.extend(topics.iter().map(|topic| Operation::Create {
            path: znodes::delete_topic_path(topic),
            data: Vec::new(),
            mode: CreateMode::Persistent,
        }));
        self.write(operations, Waiting::Mark { topics }, effects);
    }

    pub(super) fn marked(
        &mut self,
        mut topics: Vec<Arc<str>>,
        result: Result<Vec<Outcome>, RequestError>,
        effects: &mut Vec<Effect>,
    ) {
        let failed = match result {
            Ok(_) => return self.stop_replicas(&topics, effects),
            Err(failed) => failed,
        };
        if !self.survives(&failed, effects) {
            return;
        }
        // What belongs to no operation is nobody's; one that was refused is decided alone, the others are tried again.
        let Some(at) = failed.operation.and_then(|index| index.checked_sub(1)) else {
            let refusal = Err(self.refusal_after(&failed));
            return topics.iter().for_each(|topic| self.end_deletion(topic, &refusal, effects));
        };
        let topic = topics.remove(at);
        if !topics.is_empty() {
            self.mark(topics, effects);
        }
        match failed.error {
            TreeError::NodeExists(_) => self.stop_replicas(&[topic], effects),
            other => self.end_deletion(&topic, &Err(TopicRefusal::Tree(other.to_string())), effects),
        }
    }

    /// The marks are in the tree: brokers give up the topics.
    pub(super) fn stop_replicas(&mut self, topics: &[Arc<str>], effects: &mut Vec<Effect>) {
        let (mut groups, mut size): (Vec<Vec<Arc<str>>>, usize) = (Vec::new(), 0);
        for name in topics {
            let Some(cluster) = self.cluster() else { return };
            // Somebody took it out of the tree.
            let Some(topic) = cluster.topics.get(name) else { continue };
            if !is_eligible(cluster, topic) {
                self.suspend(name, effects);
                continue;
            }
            let partitions = topic.partitions.len();
            size += partitions;
            match groups.last_mut() {
                Some(group) if size <= PARTITIONS_PER_ORDER => group.push(name.clone()),
                _ => {
                    size = partitions;
                    groups.push(vec![name.clone()]);
                }
            }
        }
        for group in groups {
            self.order_stop(group, effects);
        }
    }

    fn order_stop(&mut self, topics: Vec<Arc<str>>, effects: &mut Vec<Effect>) {
        let Some(cluster) = self.cluster() else { return };
        let told = cluster.announce_deletion(&topics);
        let group = cluster.next_group;
        cluster.next_group += 1;
        cluster.stopping.insert(group, Stopping { topics, orders: told.len() });
        for (broker, inputs) in told {
            let done = Some(self.wait_for(Waiting::Stop { group }));
            effects.push(Effect::Tell { broker, inputs: Box::new(inputs), done });
        }
    }

    fn suspend(&mut self, name: &Arc<str>, effects: &mut Vec<Effect>) {
        tracing::warn!(topic = &**name, "deletion is suspended: a broker with a replica is not live");
        let Some(cluster) = self.cluster() else { return };
        let deletion = cluster.deleting.get_mut(name).expect("marked");
        deletion.suspended = true;
        let waiters = std::mem::take(&mut deletion.waiters);
        self.decide_deletions(waiters, &Err(TopicRefusal::DeletionSuspended), effects);
    }

    /// A broker has given a group of topics up.
    pub(super) fn stopped(&mut self, group: u64, effects: &mut Vec<Effect>) {
        let Some(cluster) = self.cluster() else { return };
        let stopping = cluster.stopping.get_mut(&group).expect("told to stop");
        stopping.orders -= 1;
        if stopping.orders > 0 {
            return;
        }
        let Some(Stopping { topics, .. }) = cluster.stopping.remove(&group) else { unreachable!("just looked") };
        self.remove_from_tree(topics, effects);
    }

    fn remove_from_tree(&mut self, topics: Vec<Arc<str>>, effects: &mut Vec<Effect>) {
        let Some(cluster) = self.cluster() else { return };
        let removal = |name: &Arc<str>| {
            let operations = removal(name, cluster.topics.get(name)?);
            Some(Removal { topic: name.clone(), operations, together: REMOVED_TOGETHER })
        };
        let removals = topics.iter().filter_map(removal).collect();
        for part in writes::in_parts(removals) {
            self.remove(part, effects);
        }
    }

    /// Writes as much of the removals as one transaction holds.
    fn remove(&mut self, removals: Vec<Removal>, effects: &mut Vec<Effect>) {
        let Some(cluster) = self.cluster() else { return };
        let mut operations = writes::multi(cluster.fence(), &removals);
        operations.truncate(1 + removed_at_once(&removals));
        self.write(operations, Waiting::Remove { removals }, effects);
    }

    pub(super) fn removed(
        &mut self,
        mut removals: Vec<Removal>,
        result: Result<Vec<Outcome>, RequestError>,
        effects: &mut Vec<Effect>,
    ) {
        match result {
            Ok(outcomes) => {
                let mut done = outcomes.len() - 1;
                for removal in &mut removals {
                    let of_this = done.min(removal.operations.len());
                    removal.operations.drain(..of_this);
                    done -= of_this;
                }
            }
            Err(failed) if !self.survives(&failed, effects) => return,
            Err(failed) => match writes::place(&removals, failed.operation) {
                Some((at, operation)) if matches!(failed.error, TreeError::NoNode(_)) => {
                    let removal = &mut removals[at];
                    removal.operations.remove(operation);
                    removal.together = removal.together.min(removal.operations.len());
                }
                Some((at, _)) => {
                    let removal = removals.remove(at);
                    self.put_removal_off(&[removal], &failed, effects);
                }
                None => return self.put_removal_off(&removals, &failed, effects),
            },
        }
        let (left, gone): (Vec<_>, Vec<_>) = removals.into_iter().partition(|removal| !removal.operations.is_empty());
        for removal in gone {
            if let Some(cluster) = self.cluster() {
                cluster.remove(&removal.topic);
            }
            self.end_deletion(&removal.topic, &Ok(()), effects);
        }
        if !left.is_empty() {
            self.remove(left, effects);
        }
    }

    /// The tree has no room for the transaction that takes topics out of it, or somebody has put more below them, though
    /// their logs are gone: whoever waits is told, the marks stay, and the next proposal tries again.
    fn put_removal_off(&mut self, removals: &[Removal], failed: &RequestError, effects: &mut Vec<Effect>) {
        let refusal = Err(self.refusal_after(failed));
        tracing::warn!(topics = removals.len(), %failed, "deleted topics stay in the metadata tree for now");
        let Some(cluster) = self.cluster() else { return };
        let mut waiters = Vec::new();
        for Removal { topic, .. } in removals {
            if let Some(deletion) = cluster.deleting.get_mut(topic) {
                waiters.append(&mut deletion.waiters);
            }
            cluster.unremoved.push(topic.clone());
        }
        self.decide_deletions(waiters, &refusal, effects);
    }

    /// Tries again what had no room.
    pub(super) fn remove_again(&mut self, effects: &mut Vec<Effect>) {
        let Some(cluster) = self.cluster() else { return };
        let topics = std::mem::take(&mut cluster.unremoved);
        self.remove_from_tree(topics, effects);
    }

    /// Takes away a mark that nothing follows from. It is done again by whoever sees it next.
    pub(super) fn unmark(&mut self, topic: String, effects: &mut Vec<Effect>) {
        self.write_unmark(topic, Vec::new(), effects);
    }

    /// The same where there is no such topic: its removal broke off before its settings went, or there are none.
    pub(super) fn unmark_orphan(&mut self, topic: String, effects: &mut Vec<Effect>) {
        let settings = Operation::Delete { path: znodes::topic_config_path(&topic), version: Version::Any };
        self.write_unmark(topic, vec![settings], effects);
    }

    fn write_unmark(&mut self, topic: String, before: Vec<Operation>, effects: &mut Vec<Effect>) {
        let Some(cluster) = self.cluster() else { return };
        let mark = Operation::Delete { path: znodes::delete_topic_path(&topic), version: Version::Any };
        let operations = [cluster.fence()].into_iter().chain(before).chain([mark]).collect();
        self.write(operations, Waiting::Unmark { topic }, effects);
    }

    pub(super) fn unmarked(
        &mut self,
        topic: String,
        result: Result<Vec<Outcome>, RequestError>,
        effects: &mut Vec<Effect>,
    ) {
        let Err(failed) = result else { return };
        let is_without_settings = |path: &String| *path == znodes::topic_config_path(&topic);
        if self.survives(&failed, effects)
            && let TreeError::NoNode(path) = &failed.error
            && is_without_settings(path)
        {
            self.unmark(topic, effects);
        }
    }

    fn end_deletion(&mut self, name: &Arc<str>, outcome: &Result<(), TopicRefusal>, effects: &mut Vec<Effect>) {
        let Some(cluster) = self.cluster() else { return };
        let Some(deletion) = cluster.deleting.remove(name) else { return };
        self.decide_deletions(deletion.waiters, outcome, effects);
    }

    /// The outcome for all who wait for it.
    pub(super) fn decide_deletions(
        &mut self,
        waiters: Vec<(Ticket, usize)>,
        outcome: &Result<(), TopicRefusal>,
        effects: &mut Vec<Effect>,
    ) {
        for (ticket, index) in waiters {
            self.decide_topics(ticket, vec![(index, outcome.clone())], effects);
        }
    }
}

fn find<'c>(cluster: &'c Cluster, asked: &TopicRef) -> Option<(Arc<str>, &'c Topic)> {
    let name = match asked {
        TopicRef::Name(name) => &**name,
        TopicRef::Id(id) => cluster.ids.get(id)?,
    };
    let (name, topic) = cluster.topics.get_key_value(name)?;
    Some((name.clone(), topic))
}

/// Whether all who hold replicas can be told.
fn is_eligible(cluster: &Cluster, topic: &Topic) -> bool {
    topic.partitions.values().flat_map(|partition| &partition.replicas).all(|id| cluster.is_live(*id))
}

/// How many operations one transaction has, at most, for these removals.
fn removed_at_once(removals: &[Removal]) -> usize {
    let mut count = 0;
    for removal in removals {
        let (operations, room) = (removal.operations.len(), OPERATIONS_PER_WRITE_MAX - 1 - count);
        if operations > room {
            return count + room.min(operations - removal.together);
        }
        count += operations;
    }
    count
}

/// Operations at the end of [`removal`] that are one transaction.
const REMOVED_TOGETHER: usize = 3;

/// All that the tree has of a topic, leaves first.
fn removal(name: &str, topic: &Topic) -> Vec<Operation> {
    let delete = |path| Operation::Delete { path, version: Version::Any };
    let mut operations = Vec::new();
    for (number, partition) in &topic.partitions {
        if partition.state.is_some() {
            operations.push(delete(znodes::partition_state_path(name, *number)));
        }
        if partition.has_node {
            operations.push(delete(znodes::partition_path(name, *number)));
        }
    }
    if topic.has_partitions_node {
        operations.push(delete(znodes::partitions_path(name)));
    }
    operations.push(delete(znodes::topic_path(name)));
    operations.push(delete(znodes::topic_config_path(name)));
    operations.push(delete(znodes::delete_topic_path(name)));
    operations
}
