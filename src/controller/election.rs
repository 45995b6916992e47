//! Becoming controller, and taking the cluster over (contract: `zookeeper.md` section 3, Kafka 3.9 `onControllerFailover`).
//!
//! Whoever creates `/controller` and raises `/controller_epoch` in one multi is controller. It then loads all there is,
//! gives each partition that needs one a leader, writes these down, and only then speaks to brokers.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::base::ids::{BrokerId, TopicId};
use crate::base::time::WallMs;
use crate::config::TopicConfig;
use crate::metadata::proposal::ConfigMap;
use crate::metadata::tree::{CreateMode, Operation, Outcome, RequestError, Stat, TreeError, Version};
use crate::metadata::znodes::{self, PartitionState, TopicAssignment};

use super::cluster::{Cluster, Deletion, Topic};
use super::load::{Snapshot, TopicSnapshot};
use super::partition::{Leadership, Partition, first_leadership, next_leadership};
use super::{Controller, Effect, OPERATIONS_PER_WRITE, Role, Waiting};

/// What is still to be written before this controller speaks.
#[derive(Default)]
pub struct TakeOver {
    writes: usize,
    /// Partitions that get their first leader.
    new: BTreeSet<(Arc<str>, i32)>,
}

/// One partition's new leadership, being written.
pub struct Change {
    topic: Arc<str>,
    partition: i32,
    leadership: Leadership,
}

impl Controller {
    pub(super) fn start(&mut self, wall: WallMs, effects: &mut Vec<Effect>) {
        self.role = Role::Electing { wall };
        let token = self.wait_for(Waiting::EpochRead);
        effects.push(Effect::Read { token, path: znodes::CONTROLLER_EPOCH.to_owned() });
    }

    pub(super) fn epoch_read(&mut self, result: Result<Option<(Vec<u8>, Stat)>, TreeError>, effects: &mut Vec<Effect>) {
        match result {
            Err(error) => self.fail(error.to_string(), effects),
            Ok(Some((data, stat))) => match znodes::decode_controller_epoch(&data) {
                Ok(epoch) => self.claim(epoch, stat.version, effects),
                Err(error) => self.fail(error.to_string(), effects),
            },
            Ok(None) => {
                let operations = vec![Operation::Create {
                    path: znodes::CONTROLLER_EPOCH.to_owned(),
                    data: znodes::encode_controller_epoch(0),
                    mode: CreateMode::Persistent,
                }];
                self.write(operations, Waiting::EpochMade, effects);
            }
        }
    }

    pub(super) fn epoch_made(&mut self, result: Result<Vec<Outcome>, RequestError>, effects: &mut Vec<Effect>) {
        match result {
            Ok(_) => self.claim(0, 0, effects),
            // Another broker was faster: its value counts.
            Err(RequestError { error: TreeError::NodeExists(_), .. }) => {
                let token = self.wait_for(Waiting::EpochRead);
                effects.push(Effect::Read { token, path: znodes::CONTROLLER_EPOCH.to_owned() });
            }
            Err(error) => self.fail(error.to_string(), effects),
        }
    }

    fn claim(&mut self, epoch: i32, epoch_version: i32, effects: &mut Vec<Effect>) {
        let Role::Electing { wall } = self.role else { return };
        let Some(epoch) = epoch.checked_add(1) else {
            return self.fail(format!("{} is at its end", znodes::CONTROLLER_EPOCH), effects);
        };
        let operations = vec![
            Operation::Create {
                path: znodes::CONTROLLER.to_owned(),
                data: znodes::encode_controller(self.settings.broker_id, wall),
                mode: CreateMode::Ephemeral,
            },
            Operation::Set {
                path: znodes::CONTROLLER_EPOCH.to_owned(),
                data: znodes::encode_controller_epoch(epoch),
                version: Version::Exactly(epoch_version),
            },
        ];
        self.write(operations, Waiting::Claim { epoch }, effects);
    }

    pub(super) fn claimed(
        &mut self,
        epoch: i32,
        result: Result<Vec<Outcome>, RequestError>,
        effects: &mut Vec<Effect>,
    ) {
        match result {
            Ok(outcomes) => match outcomes.get(1) {
                Some(Outcome::Set(stat)) => {
                    tracing::info!(epoch, "elected as controller");
                    let cluster = Cluster::new(self.settings.broker_id, epoch, stat.version);
                    self.role = Role::TakingOver(Box::new(cluster), TakeOver::default());
                    effects.push(Effect::Load);
                }
                other => unreachable!("a set answered {other:?}"),
            },
            Err(RequestError { error: TreeError::NodeExists(_) | TreeError::BadVersion(_), .. }) => {
                self.role = Role::Standby;
            }
            Err(error) => self.fail(error.to_string(), effects),
        }
    }

    pub(super) fn loaded(&mut self, loaded: Result<Box<Snapshot>, String>, effects: &mut Vec<Effect>) {
        let snapshot = match loaded {
            Ok(snapshot) => snapshot,
            Err(reason) => return self.fail(reason, effects),
        };
        let Role::TakingOver(cluster, take_over) = &mut self.role else { return };
        cluster.brokers = snapshot.brokers.into_iter().map(|(broker, epoch)| (broker.id, (broker, epoch))).collect();
        cluster.stray_configs = snapshot.stray_configs;
        cluster.broker_configs = snapshot.broker_configs;
        self.settings.dynamic = Arc::new(cluster.stored_dynamic(&self.settings.dynamic));

        let mut writes = Writes::new(cluster);
        // The one live broker is this process, and it has just come: what it led before, it led in another life.
        let returned = self.settings.broker_id;
        for topic in snapshot.topics {
            take_topic(cluster, take_over, topic, returned, &self.settings.dynamic.topic_defaults, &mut writes);
        }
        for name in snapshot.marked {
            if let Some((name, _)) = cluster.topics.get_key_value(&*name) {
                cluster.deleting.insert(name.clone(), Deletion::default());
            } else {
                let path = znodes::delete_topic_path(&name);
                writes.add(vec![Operation::Delete { path, version: Version::Any }], None);
            }
        }
        for name in snapshot.config_changes {
            let path = format!("{}/{name}", znodes::CONFIG_CHANGES);
            writes.add(vec![Operation::Delete { path, version: Version::Any }], None);
        }
        let writes = writes.finish();
        take_over.writes = writes.len();
        if writes.is_empty() {
            return self.speak(effects);
        }
        for (operations, changes) in writes {
            self.write(operations, Waiting::TakeOver { changes }, effects);
        }
    }

    pub(super) fn taken_over(
        &mut self,
        changes: Vec<Change>,
        result: Result<Vec<Outcome>, RequestError>,
        effects: &mut Vec<Effect>,
    ) {
        if let Err(failed) = result {
            if self.survives(&failed, effects) {
                self.fail(format!("taking over: {failed}"), effects);
            }
            return;
        }
        let Role::TakingOver(cluster, take_over) = &mut self.role else { return };
        for change in changes {
            let topic = cluster.topics.get_mut(&change.topic).expect("loaded before it was written");
            let partition = topic.partitions.get_mut(&change.partition).expect("loaded before it was written");
            (partition.state, partition.has_node) = (Some(change.leadership), true);
            topic.has_partitions_node = true;
        }
        take_over.writes -= 1;
        if take_over.writes == 0 {
            self.speak(effects);
        }
    }

    /// All is written: brokers hear of it, and what was left half deleted goes on.
    fn speak(&mut self, effects: &mut Vec<Effect>) {
        let Role::TakingOver(cluster, take_over) = std::mem::replace(&mut self.role, Role::Idle) else { return };
        let topics: Vec<Arc<str>> =
            cluster.topics.keys().filter(|name| !cluster.deleting.contains_key(*name)).cloned().collect();
        let is_new = |topic: &str, partition| take_over.new.contains(&(Arc::from(topic), partition));
        for (broker, mut inputs) in cluster.announce(&topics, &is_new) {
            inputs.dynamic = Some(self.settings.dynamic.clone());
            effects.push(Effect::Tell { broker, inputs: Box::new(inputs), done: None });
        }
        let deleting: Vec<Arc<str>> = cluster.deleting.keys().cloned().collect();
        self.role = Role::Active(cluster);
        self.stop_replicas(&deleting, effects);
    }
}

/// Takes one topic into the cluster and gives its partitions leaders.
fn take_topic(
    cluster: &mut Cluster,
    take_over: &mut TakeOver,
    topic: TopicSnapshot,
    returned: BrokerId,
    defaults: &Arc<TopicConfig>,
    writes: &mut Writes,
) {
    let name: Arc<str> = topic.name.into();
    let config = topic.config.as_ref().map_or_else(|| defaults.clone(), |map| read_config(&name, map, defaults));
    let mut taken = Topic {
        id: topic.id,
        partitions: topic.partitions,
        config,
        has_config_node: topic.config.is_some(),
        has_partitions_node: topic.has_partitions_node,
    };
    let is_live = |id| cluster.brokers.contains_key(&id);
    for (number, partition) in &taken.partitions {
        let unclean = taken.config.unclean_leader_election_enable;
        let leadership = match &partition.state {
            None => first_leadership(&partition.replicas, is_live),
            Some(state) if state.leader == returned || !is_live(state.leader) => {
                next_leadership(&partition.replicas, state, is_live, unclean)
            }
            Some(_) => None,
        };
        let Some(leadership) = leadership else { continue };
        if partition.state.is_none() {
            take_over.new.insert((name.clone(), *number));
        }
        let operations =
            state_operations(&name, *number, partition, &leadership, cluster.epoch, taken.has_partitions_node);
        taken.has_partitions_node = true;
        writes.add(operations, Some(Change { topic: name.clone(), partition: *number, leadership }));
    }
    cluster.insert(name, taken);
}

/// Writes of at most [`OPERATIONS_PER_WRITE`] operations, each with the fence first.
struct Writes {
    fence: Operation,
    done: Vec<(Vec<Operation>, Vec<Change>)>,
}

impl Writes {
    fn new(cluster: &Cluster) -> Writes {
        Writes { fence: cluster.fence(), done: Vec::new() }
    }

    fn add(&mut self, operations: Vec<Operation>, change: Option<Change>) {
        let fits = |(open, _): &(Vec<Operation>, Vec<Change>)| open.len() + operations.len() <= OPERATIONS_PER_WRITE;
        if !self.done.last().is_some_and(fits) {
            self.done.push((vec![self.fence.clone()], Vec::new()));
        }
        let (open, changes) = self.done.last_mut().expect("just made sure");
        open.extend(operations);
        changes.extend(change);
    }

    fn finish(self) -> Vec<(Vec<Operation>, Vec<Change>)> {
        self.done
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

/// A topic's settings from the tree. What is wrong with them is logged and left out: the topic stays usable, and the tree
/// keeps what it has.
pub(super) fn read_config(topic: &str, overrides: &ConfigMap, defaults: &Arc<TopicConfig>) -> Arc<TopicConfig> {
    if overrides.is_empty() {
        return defaults.clone();
    }
    if let Ok(config) = defaults.with_overrides(overrides) {
        return Arc::new(config);
    }
    let mut good = BTreeMap::new();
    for (name, value) in overrides {
        match defaults.with_overrides(&BTreeMap::from([(name.clone(), value.clone())])) {
            Ok(_) => drop(good.insert(name.clone(), value.clone())),
            Err(error) => tracing::warn!(topic, %error, "a topic config is ignored"),
        }
    }
    // Two that are fine alone may still contradict each other.
    defaults.with_overrides(&good).map_or_else(|_| defaults.clone(), Arc::new)
}

/// The topic's value in the tree.
pub(super) fn encode_topic(id: TopicId, partitions: &BTreeMap<i32, Partition>) -> Vec<u8> {
    let partitions = partitions.iter().map(|(number, partition)| (*number, partition.replicas.clone())).collect();
    znodes::encode_topic(&TopicAssignment { id, partitions })
}
