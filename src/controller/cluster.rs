//! What the active controller knows: all of it written to the tree, and the words in which brokers are told.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::base::ids::{BrokerId, TopicId};
use crate::metadata::inputs::{
    BrokerImage, BrokerInputs, EPOCH_DURING_DELETE, LEADER_DURING_DELETE, LeaderAndIsr, LeaderAndIsrPartition,
    LeaderAndIsrTopic, Sender, StopReplica, StopReplicaPartition, StopReplicaTopic, UpdateMetadata,
    UpdateMetadataPartition, UpdateMetadataTopic,
};
use crate::metadata::tree::{Operation, Version};
use crate::metadata::znodes::{self, Others};

use super::event::Ticket;
use super::leadership::Change;
use super::partition::Partition;
use super::topic_name;

pub struct Cluster {
    pub controller_id: BrokerId,
    pub epoch: i32,
    /// Of this controller's `/controller`: another one there is another's.
    pub czxid: i64,
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
    /// Topics marked for deletion.
    pub deleting: BTreeMap<Arc<str>, Deletion>,
    /// What brokers are giving up, by group.
    pub stopping: BTreeMap<u64, Stopping>,
    pub next_group: u64,
    /// Topics whose logs are gone, and that the tree had no room to forget.
    pub unremoved: Vec<Arc<str>>,
    /// Leaderships that the tree had no room for.
    pub unled: Vec<Change>,
    /// Topics that can't be read, and why: their names are taken.
    pub damaged: BTreeMap<String, String>,
    /// Replicas whose logs can't be opened, by topic: of this life of the topic, and of their brokers.
    offline: BTreeMap<Arc<str>, BTreeSet<(BrokerId, i32)>>,
}

/// Partitions by topic.
pub type Partitions = BTreeMap<Arc<str>, BTreeSet<i32>>;

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
    pub has_partitions_node: bool,
    /// What else its node says.
    pub others: Others,
}

impl Cluster {
    pub fn new(controller_id: BrokerId, epoch: i32, czxid: i64, epoch_version: i32) -> Cluster {
        Cluster {
            controller_id,
            epoch,
            czxid,
            epoch_version,
            brokers: BTreeMap::new(),
            topics: BTreeMap::new(),
            ids: BTreeMap::new(),
            unified: BTreeMap::new(),
            creating: BTreeSet::new(),
            deleting: BTreeMap::new(),
            stopping: BTreeMap::new(),
            next_group: 0,
            unremoved: Vec::new(),
            unled: Vec::new(),
            damaged: BTreeMap::new(),
            offline: BTreeMap::new(),
        }
    }

    pub fn insert(&mut self, name: Arc<str>, topic: Topic) {
        self.ids.insert(topic.id, name.clone());
        if topic_name::can_collide(&name) {
            self.unified.entry(topic_name::unified(&name)).or_default().insert(name.clone());
        }
        self.topics.insert(name, topic);
    }

    pub fn remove(&mut self, name: &str) {
        let Some(topic) = self.topics.remove(name) else { return };
        self.ids.remove(&topic.id);
        self.offline.remove(name);
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

    /// Whether a broker can lead or follow: it is live, and its log is not known to be broken.
    pub fn is_online(&self, broker: BrokerId, topic: &Arc<str>, partition: i32) -> bool {
        self.is_live(broker) && !self.offline.get(topic).is_some_and(|replicas| replicas.contains(&(broker, partition)))
    }

    /// A replica's log can't be opened. Gives `false` for one that the cluster does not have.
    pub fn set_offline(&mut self, broker: BrokerId, topic: &Arc<str>, partition: i32) -> bool {
        let is_there = self.topics.get(topic).is_some_and(|topic| topic.partitions.contains_key(&partition));
        if is_there {
            self.offline.entry(topic.clone()).or_default().insert((broker, partition));
        }
        is_there
    }

    /// Takes over which brokers live. Of one that went, or came in between, it is not known any more which logs it could
    /// not open. Gives those that have come.
    pub fn set_brokers(&mut self, brokers: BTreeMap<BrokerId, (BrokerImage, i64)>) -> BTreeSet<BrokerId> {
        let before = std::mem::replace(&mut self.brokers, brokers);
        let is_as_before = |id: &BrokerId| match (self.brokers.get(id), before.get(id)) {
            (Some((_, epoch)), Some((_, epoch_before))) => epoch == epoch_before,
            _ => false,
        };
        self.offline.retain(|_, replicas| {
            replicas.retain(|(broker, _)| is_as_before(broker));
            !replicas.is_empty()
        });
        self.brokers.keys().filter(|id| !is_as_before(id)).copied().collect()
    }

    /// All partitions of some topics that are not being deleted.
    pub fn partitions_of<'t>(&self, topics: impl IntoIterator<Item = &'t Arc<str>>) -> Partitions {
        let kept = topics.into_iter().filter(|name| !self.deleting.contains_key(*name));
        let found = kept.filter_map(|name| Some((name.clone(), self.topics.get(name)?)));
        found.map(|(name, topic)| (name, topic.partitions.keys().copied().collect())).collect()
    }

    /// The first operation of every write made as controller.
    pub fn fence(&self) -> Operation {
        Operation::Check { path: znodes::CONTROLLER_EPOCH.to_owned(), version: Version::Exactly(self.epoch_version) }
    }

    /// What each live broker is told when `shown` partitions have changed: all hear of them, and those that hold replicas
    /// of `led` who leads these. `new` ones were never led before.
    pub fn announce(&self, shown: &Partitions, led: &Partitions, new: &Partitions) -> Vec<(BrokerId, BrokerInputs)> {
        let updates: Vec<UpdateMetadataTopic> = self
            .known(shown)
            .map(|(name, topic, numbers)| {
                let update = |number: &i32| self.update_of(name, *number, topic.partitions.get(number)?);
                UpdateMetadataTopic {
                    name: name.clone(),
                    id: topic.id,
                    partitions: numbers.iter().filter_map(update).collect(),
                }
            })
            .collect();
        let is_new = |topic: &str, number: i32| new.get(topic).is_some_and(|numbers| numbers.contains(&number));
        let tell = |(broker, (_, broker_epoch)): (&BrokerId, &(BrokerImage, i64))| {
            let sender = self.sender(*broker_epoch);
            let led = self.known(led).filter_map(|(name, topic, numbers)| lead(*broker, name, topic, numbers, &is_new));
            let led: Vec<_> = led.collect();
            let inputs = BrokerInputs {
                leader_and_isr: (!led.is_empty()).then_some(LeaderAndIsr { sender, topics: led }),
                stop_replica: None,
                update_metadata: Some(self.update(sender, updates.clone())),
            };
            (*broker, inputs)
        };
        self.brokers.iter().map(tell).collect()
    }

    fn known<'c>(
        &'c self,
        partitions: &'c Partitions,
    ) -> impl Iterator<Item = (&'c Arc<str>, &'c Topic, &'c BTreeSet<i32>)> {
        partitions.iter().filter_map(|(name, numbers)| Some((name, self.topics.get(name)?, numbers)))
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
            };
            (*broker, inputs)
        };
        self.brokers.iter().map(tell).collect()
    }

    fn deletion_of(&self, name: &Arc<str>, topic: &Topic) -> UpdateMetadataTopic {
        let deletion = |(number, partition): (&i32, &Partition)| UpdateMetadataPartition {
            partition: *number,
            leader: LEADER_DURING_DELETE,
            leader_epoch: 0,
            isr: Vec::new(),
            partition_epoch: 0,
            replicas: partition.replicas.clone(),
            offline_replicas: Vec::new(),
        };
        let partitions = topic.partitions.iter().map(deletion).collect();
        UpdateMetadataTopic { name: name.clone(), id: topic.id, partitions }
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

    /// `None`: it never had a leader; such a one is left out, as in Kafka.
    fn update_of(&self, name: &Arc<str>, number: i32, partition: &Partition) -> Option<UpdateMetadataPartition> {
        let state = partition.state.as_ref()?;
        let is_offline = |id: &BrokerId| !self.is_online(*id, name, number);
        Some(UpdateMetadataPartition {
            partition: number,
            leader: state.leader,
            leader_epoch: state.leader_epoch,
            isr: state.isr.clone(),
            partition_epoch: state.partition_epoch,
            replicas: partition.replicas.clone(),
            offline_replicas: partition.replicas.iter().copied().filter(is_offline).collect(),
        })
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

/// Those of `numbers` that `broker` has a replica of; `None` if there are none.
fn lead(
    broker: BrokerId,
    name: &Arc<str>,
    topic: &Topic,
    numbers: &BTreeSet<i32>,
    is_new: &dyn Fn(&str, i32) -> bool,
) -> Option<LeaderAndIsrTopic> {
    let led = numbers.iter().filter_map(|number| {
        let partition = topic.partitions.get(number).filter(|partition| partition.replicas.contains(&broker))?;
        let state = partition.state.as_ref()?;
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
