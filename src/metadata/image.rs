//! What the cluster looks like: immutable, shared, replaced whole.
//!
//! An image is made from the one before and an input; what did not change is shared between the two, so that a topic
//! among 20,000 costs some hundred pointers. Versions grow by one with each image published.

#![forbid(unsafe_code)]

use std::sync::Arc;

use crate::base::ids::{BrokerId, LeaderEpoch, ShardId, TopicId};
use crate::config::TopicConfig;

use super::shared_map::SharedMap;

pub use super::inputs::{BrokerImage, NO_LEADER};

#[derive(Clone, Debug)]
pub struct ClusterImage {
    pub version: u64,
    pub cluster_id: Arc<str>,
    /// -1: not known.
    pub controller_id: BrokerId,
    /// Live brokers, by id.
    pub brokers: Arc<[BrokerImage]>,
    topics: SharedMap<Arc<str>, Arc<TopicImage>>,
    ids: SharedMap<TopicId, Arc<TopicImage>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct TopicImage {
    pub name: Arc<str>,
    pub id: TopicId,
    /// `__consumer_offsets` and its like.
    pub internal: bool,
    /// By partition, ascending.
    pub partitions: Vec<PartitionImage>,
    pub config: Arc<TopicConfig>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionImage {
    pub partition: i32,
    /// [`NO_LEADER`] if there is none.
    pub leader: BrokerId,
    pub leader_epoch: LeaderEpoch,
    pub isr: Vec<BrokerId>,
    pub replicas: Vec<BrokerId>,
    pub offline_replicas: Vec<BrokerId>,
    /// The shard of this process that runs the local replica; `None` if there is no local replica.
    pub shard: Option<ShardId>,
}

impl ClusterImage {
    /// The image before the first input: nothing is known.
    pub fn empty(cluster_id: Arc<str>) -> ClusterImage {
        ClusterImage {
            version: 0,
            cluster_id,
            controller_id: NO_LEADER,
            brokers: Arc::new([]),
            topics: SharedMap::new(),
            ids: SharedMap::new(),
        }
    }

    pub fn topic(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.topics.get(name)
    }

    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<TopicImage>> {
        self.ids.get(&id)
    }

    pub fn partition(&self, topic: &str, partition: i32) -> Option<&PartitionImage> {
        self.topic(topic)?.partition(partition)
    }

    /// All topics, by name.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.topics.values()
    }

    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    pub fn broker(&self, id: BrokerId) -> Option<&BrokerImage> {
        let at = self.brokers.binary_search_by_key(&id, |broker| broker.id).ok()?;
        Some(&self.brokers[at])
    }
}

impl TopicImage {
    pub fn partition(&self, partition: i32) -> Option<&PartitionImage> {
        // Nearly always dense from 0; a cluster may know of later partitions first.
        let guess = usize::try_from(partition).ok()?;
        match self.partitions.get(guess) {
            Some(found) if found.partition == partition => Some(found),
            _ => {
                let at = self.partitions.binary_search_by_key(&partition, |found| found.partition).ok()?;
                Some(&self.partitions[at])
            }
        }
    }
}
