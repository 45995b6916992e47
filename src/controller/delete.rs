//! Deleting topics (contract: `zookeeper.md` section 4, Kafka 3.9 `TopicDeletionManager`).
//!
//! ```text
//! mark in /admin/delete_topics -> brokers drop it from their image and delete the replicas -> all said so
//!   -> remove partitions, topic, config and mark in one transaction -> answer
//! ```
//! A mark survives a crash: whoever becomes controller goes on from there, so the steps may be done twice. While a
//! replica's broker is away the deletion is suspended; the mark stays. Topics of one request go together, as many as a
//! transaction holds: each step is one write and one order to the brokers for all of them.
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
use super::{Controller, Effect, OPERATIONS_PER_WRITE, Open, Ticket, Waiting, When};

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
            return effects.push(Effect::Answer { ticket, answer, when: When::Now });
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
        if waiting == 0 {
            let answer = Answer::DeleteTopics(results);
            return effects.push(Effect::Answer { ticket, answer, when: When::Now });
        }
        self.open.insert(ticket, Open::Delete { results, undecided: waiting });
        for topics in marks.chunks(OPERATIONS_PER_WRITE) {
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
        if let TreeError::NoSpace(_) = failed.error {
            let refusal = Err(self.refusal_after(&failed));
            return topics.iter().for_each(|topic| self.end_deletion(topic, &refusal, effects));
        }
        // The fence is nobody's; the one that failed is decided alone, the others are tried again.
        let Some(at) = failed.operation.and_then(|index| index.checked_sub(1)) else {
            return self.fail(format!("marking topics for deletion: {failed}"), effects);
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
            let topic = cluster.topics.get(name).expect("only a known topic is marked");
            if !is_eligible(cluster, topic) {
                self.suspend(name, effects);
                continue;
            }
            let operations = removal(name, topic).len();
            size += operations;
            match groups.last_mut() {
                Some(group) if size <= OPERATIONS_PER_WRITE => group.push(name.clone()),
                _ => {
                    size = operations;
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
        let mut operations = vec![cluster.fence()];
        operations.extend(topics.iter().flat_map(|name| removal(name, &cluster.topics[name])));
        self.write(operations, Waiting::Remove { topics }, effects);
    }

    pub(super) fn removed(
        &mut self,
        topics: &[Arc<str>],
        result: Result<Vec<Outcome>, RequestError>,
        effects: &mut Vec<Effect>,
    ) {
        if let Err(failed) = result {
            if let TreeError::NoSpace(_) = failed.error {
                return self.put_removal_off(topics, &failed, effects);
            }
            if self.survives(&failed, effects) {
                // The tree has more or less below a topic than this controller wrote: stop rather than guess.
                self.fail(format!("removing deleted topics: {failed}"), effects);
            }
            return;
        }
        for name in topics {
            if let Some(cluster) = self.cluster() {
                cluster.remove(name);
            }
            self.end_deletion(name, &Ok(()), effects);
        }
    }

    /// There is no room for the transaction that takes topics out of the tree, though their logs are gone: whoever waits
    /// is told, the marks stay, and the next proposal tries again.
    fn put_removal_off(&mut self, topics: &[Arc<str>], failed: &RequestError, effects: &mut Vec<Effect>) {
        let refusal = Err(self.refusal_after(failed));
        let Some(cluster) = self.cluster() else { return };
        let mut waiters = Vec::new();
        for name in topics {
            waiters.append(&mut cluster.deleting.get_mut(name).expect("marked").waiters);
        }
        cluster.unremoved.push(topics.to_vec());
        self.decide_deletions(waiters, &refusal, effects);
    }

    /// Tries again what had no room.
    pub(super) fn remove_again(&mut self, effects: &mut Vec<Effect>) {
        let Some(cluster) = self.cluster() else { return };
        for topics in std::mem::take(&mut cluster.unremoved) {
            self.remove_from_tree(topics, effects);
        }
    }

    fn end_deletion(&mut self, name: &Arc<str>, outcome: &Result<(), TopicRefusal>, effects: &mut Vec<Effect>) {
        let Some(cluster) = self.cluster() else { return };
        let deletion = cluster.deleting.remove(name).expect("marked");
        self.decide_deletions(deletion.waiters, outcome, effects);
    }

    /// Notes the outcome for all who wait for it, and answers those that waited for nothing else.
    pub(super) fn decide_deletions(
        &mut self,
        waiters: Vec<(Ticket, usize)>,
        outcome: &Result<(), TopicRefusal>,
        effects: &mut Vec<Effect>,
    ) {
        for (ticket, index) in waiters {
            let Some(Open::Delete { results, undecided }) = self.open.get_mut(&ticket) else {
                unreachable!("a deletion that is waited for is open")
            };
            results[index].outcome = outcome.clone();
            *undecided -= 1;
            if *undecided == 0
                && let Some(Open::Delete { results, .. }) = self.open.remove(&ticket)
            {
                effects.push(Effect::Answer { ticket, answer: Answer::DeleteTopics(results), when: When::Shown });
            }
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
    if topic.has_config_node {
        operations.push(delete(znodes::topic_config_path(name)));
    }
    operations.push(delete(znodes::delete_topic_path(name)));
    operations
}
