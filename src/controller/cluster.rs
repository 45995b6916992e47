//! What the active controller knows: all of it written to the tree, and the words in which brokers are told.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::base::ids::{BrokerId, TopicId};
use crate::config::dynamic::ConfigMap;
use crate::config::{DynamicConfig, TopicConfig};
use crate::metadata::inputs::{
    BrokerImage, BrokerInputs, EPOCH_DURING_DELETE, LEADER_DURING_DELETE, LeaderAndIsr, LeaderAndIsrPartition,
    LeaderAndIsrTopic, Sender, StopReplica, StopReplicaPartition, StopReplicaTopic, UpdateMetadata,
    UpdateMetadataPartition, UpdateMetadataTopic,
};
use crate::metadata::tree::{Operation, Version};
use crate::metadata::znodes;

use super::partition::Partition;
use super::{Ticket, topic_name};

pub struct Cluster {
    pub controller_id: BrokerId,
    pub epoch: i32,
    /// Data version of `/controller_epoch` since the election: the fencing token.
    pub epoch_version: i32,
    /// Live brokers with their broker epochs.
    pub brokers: BTreeMap<BrokerId, (BrokerImage, i64)>,
    pub topics: BTreeMap<Arc<str>, Topic>,
    pub ids: BTreeMap<TopicId, Arc<str>>,
    /// Names that could collide, in the form in which they would.
    pub unified: BTreeMap<String, BTreeSet<Arc<str>>>,
    /// Topics being written.
    pub creating: BTreeSet<String>,
    /// `/config/topics` nodes without topic, left by a creation that broke off.
    pub stray_configs: BTreeSet<String>,
    /// Settings of brokers in the tree, by the name of their node.
    pub broker_configs: BTreeMap<String, ConfigMap>,
    /// The notices of the last change of settings; older ones are gone, as nobody else reads this tree.
    pub config_changes: Vec<String>,
    /// Topics marked for deletion.
    pub deleting: BTreeMap<Arc<str>, Deletion>,
    /// What brokers are giving up, by group.
    pub stopping: BTreeMap<u64, Stopping>,
    pub next_group: u64,
    /// Topics whose logs are gone, and that the tree had no room to forget.
    pub unremoved: Vec<Vec<Arc<str>>>,
}

#[derive(Default)]
pub struct Deletion {
    /// Who waits for its end: ticket and place in its results.
    pub waiters: Vec<(Ticket, usize)>,
    /// A replica's broker is away.
    pub suspended: bool,
}

/// Topics that brokers were told to give up.
pub struct Stopping {
    pub topics: Vec<Arc<str>>,
    /// Brokers that have yet to say that they did.
    pub orders: usize,
}

pub struct Topic {
    pub id: TopicId,
    pub partitions: BTreeMap<i32, Partition>,
    pub config: Arc<TopicConfig>,
    pub has_config_node: bool,
    pub has_partitions_node: bool,
}

impl Cluster {
    pub fn new(controller_id: BrokerId, epoch: i32, epoch_version: i32) -> Cluster {
        Cluster {
            controller_id,
            epoch,
            epoch_version,
            brokers: BTreeMap::new(),
            topics: BTreeMap::new(),
            ids: BTreeMap::new(),
            unified: BTreeMap::new(),
            creating: BTreeSet::new(),
            stray_configs: BTreeSet::new(),
            broker_configs: BTreeMap::new(),
            config_changes: Vec::new(),
            deleting: BTreeMap::new(),
            stopping: BTreeMap::new(),
            next_group: 0,
            unremoved: Vec::new(),
        }
    }

    pub fn insert(&mut self, name: Arc<str>, topic: Topic) {
        self.stray_configs.remove(&*name);
        self.ids.insert(topic.id, name.clone());
        if topic_name::can_collide(&name) {
            self.unified.entry(topic_name::unified(&name)).or_default().insert(name.clone());
        }
        self.topics.insert(name, topic);
    }

    pub fn remove(&mut self, name: &str) {
        let Some(topic) = self.topics.remove(name) else { return };
        self.ids.remove(&topic.id);
        let unified = topic_name::unified(name);
        if let Some(names) = self.unified.get_mut(&unified) {
            names.remove(name);
            if names.is_empty() {
                self.unified.remove(&unified);
            }
        }
    }

    pub fn is_live(&self, broker: BrokerId) -> bool {
        self.brokers.contains_key(&broker)
    }

    /// The first operation of every write made as controller.
    pub fn fence(&self) -> Operation {
        Operation::Check { path: znodes::CONTROLLER_EPOCH.to_owned(), version: Version::Exactly(self.epoch_version) }
    }

    /// What each live broker is told when `topics` have new leaders. `is_new` says whether a partition was never led.
    pub fn announce(&self, topics: &[Arc<str>], is_new: &dyn Fn(&str, i32) -> bool) -> Vec<(BrokerId, BrokerInputs)> {
        let known: Vec<(&Arc<str>, &Topic)> =
            topics.iter().filter_map(|name| Some((name, self.topics.get(name)?))).collect();
        let updates: Vec<UpdateMetadataTopic> = known.iter().map(|(name, topic)| self.update_of(name, topic)).collect();
        let configs: Vec<_> = known.iter().map(|(name, topic)| ((*name).clone(), topic.config.clone())).collect();
        let tell = |(broker, (_, broker_epoch)): (&BrokerId, &(BrokerImage, i64))| {
            let sender = self.sender(*broker_epoch);
            let led: Vec<_> = known.iter().filter_map(|(name, topic)| lead(*broker, name, topic, is_new)).collect();
            let inputs = BrokerInputs {
                leader_and_isr: (!led.is_empty()).then_some(LeaderAndIsr { sender, topics: led }),
                stop_replica: None,
                update_metadata: Some(self.update(sender, updates.clone())),
                configs: configs.clone(),
                dynamic: None,
            };
            (*broker, inputs)
        };
        self.brokers.iter().map(tell).collect()
    }

    /// What each live broker is told when topics go: they leave the image, their replicas the disks.
    pub fn announce_deletion(&self, topics: &[Arc<str>]) -> Vec<(BrokerId, BrokerInputs)> {
        let known: Vec<(&Arc<str>, &Topic)> = topics.iter().map(|name| (name, &self.topics[name])).collect();
        let updates: Vec<UpdateMetadataTopic> =
            known.iter().map(|(name, topic)| self.deletion_of(name, topic)).collect();
        let tell = |(broker, (_, broker_epoch)): (&BrokerId, &(BrokerImage, i64))| {
            let sender = self.sender(*broker_epoch);
            let topics = known.iter().map(|(name, topic)| stop(*broker, name, topic)).collect();
            let inputs = BrokerInputs {
                leader_and_isr: None,
                stop_replica: Some(StopReplica { sender, topics }),
                update_metadata: Some(self.update(sender, updates.clone())),
                configs: Vec::new(),
                dynamic: None,
            };
            (*broker, inputs)
        };
        self.brokers.iter().map(tell).collect()
    }

    /// What each live broker is told when only settings have changed. `dynamic` are this broker's own.
    pub fn announce_configs(
        &self,
        topics: &[Arc<str>],
        dynamic: Option<&Arc<DynamicConfig>>,
    ) -> Vec<(BrokerId, BrokerInputs)> {
        let known = topics.iter().filter_map(|name| Some((name.clone(), self.topics.get(name)?.config.clone())));
        let configs: Vec<_> = known.collect();
        let tell = |broker: &BrokerId| {
            let dynamic = dynamic.filter(|_| *broker == self.controller_id).cloned();
            (*broker, BrokerInputs { configs: configs.clone(), dynamic, ..BrokerInputs::default() })
        };
        self.brokers.keys().map(tell).collect()
    }

    fn deletion_of(&self, name: &Arc<str>, topic: &Topic) -> UpdateMetadataTopic {
        let mut update = self.update_of(name, topic);
        for partition in &mut update.partitions {
            partition.leader = LEADER_DURING_DELETE;
            partition.leader_epoch = 0;
            partition.partition_epoch = 0;
        }
        update
    }

    fn sender(&self, broker_epoch: i64) -> Sender {
        Sender { controller_id: self.controller_id, controller_epoch: self.epoch, broker_epoch }
    }

    fn update(&self, sender: Sender, topics: Vec<UpdateMetadataTopic>) -> UpdateMetadata {
        UpdateMetadata {
            sender,
            topics,
            live_brokers: self.brokers.values().map(|(broker, _)| broker.clone()).collect(),
        }
    }

    /// Partitions that never had a leader are left out, as in Kafka.
    fn update_of(&self, name: &Arc<str>, topic: &Topic) -> UpdateMetadataTopic {
        let update = |(number, partition): (&i32, &Partition)| {
            let state = partition.state.as_ref()?;
            Some(UpdateMetadataPartition {
                partition: *number,
                leader: state.leader,
                leader_epoch: state.leader_epoch,
                isr: state.isr.clone(),
                partition_epoch: state.partition_epoch,
                replicas: partition.replicas.clone(),
                offline_replicas: partition.replicas.iter().copied().filter(|id| !self.is_live(*id)).collect(),
            })
        };
        let partitions = topic.partitions.iter().filter_map(update).collect();
        UpdateMetadataTopic { name: name.clone(), id: topic.id, partitions }
    }
}

/// The replicas of `topic` that `broker` is to delete.
fn stop(broker: BrokerId, name: &Arc<str>, topic: &Topic) -> StopReplicaTopic {
    let held = topic.partitions.iter().filter(|(_, partition)| partition.replicas.contains(&broker));
    let stop = |(number, _): (&i32, &Partition)| StopReplicaPartition {
        partition: *number,
        leader_epoch: EPOCH_DURING_DELETE,
        delete: true,
    };
    StopReplicaTopic { name: name.clone(), partitions: held.map(stop).collect() }
}

/// The partitions of `topic` that `broker` has a replica of; `None` if there are none.
fn lead(
    broker: BrokerId,
    name: &Arc<str>,
    topic: &Topic,
    is_new: &dyn Fn(&str, i32) -> bool,
) -> Option<LeaderAndIsrTopic> {
    let led = topic.partitions.iter().filter_map(|(number, partition)| {
        let state = partition.state.as_ref().filter(|_| partition.replicas.contains(&broker))?;
        Some(LeaderAndIsrPartition {
            partition: *number,
            leader: state.leader,
            leader_epoch: state.leader_epoch,
            isr: state.isr.clone(),
            partition_epoch: state.partition_epoch,
            replicas: partition.replicas.clone(),
            is_new: is_new(name, *number),
        })
    });
    let partitions: Vec<_> = led.collect();
    (!partitions.is_empty()).then(|| LeaderAndIsrTopic { name: name.clone(), id: topic.id, partitions })
}
