//! What the cluster looks like: immutable, shared, replaced whole.
//!
//! An image is made from the one before and an input; what did not change is shared between the two, so that a topic
//! among 20,000 costs some hundred pointers. Versions grow by one with each image published.

#![forbid(unsafe_code)]

use std::sync::Arc;

use crate::base::ids::{BrokerId, LeaderEpoch, ShardId, TopicId};
use crate::config::{DynamicConfig, TopicConfig};

use super::inputs::{LEADER_DURING_DELETE, UpdateMetadata, UpdateMetadataTopic};
use super::shared_map::SharedMap;

pub use super::inputs::{BrokerImage, NO_LEADER};

/// Kafka's internal topics (Kafka 3.9 `Topic.INTERNAL_TOPICS`).
pub const INTERNAL_TOPICS: [&str; 3] = [GROUP_METADATA_TOPIC, TRANSACTION_STATE_TOPIC, "__share_group_state"];
pub const GROUP_METADATA_TOPIC: &str = "__consumer_offsets";
pub const TRANSACTION_STATE_TOPIC: &str = "__transaction_state";

pub fn is_internal(topic: &str) -> bool {
    INTERNAL_TOPICS.contains(&topic)
}

/// What an image says that no input carries.
pub trait LocalView {
    /// Where the local replica lives, if there is one.
    fn shard_of(&self, topic: &str, partition: i32) -> Option<ShardId>;
    fn config_of(&self, topic: &str) -> Arc<TopicConfig>;
}

#[derive(Clone, Debug)]
pub struct ClusterImage {
    pub version: u64,
    pub cluster_id: Arc<str>,
    /// -1: not known.
    pub controller_id: BrokerId,
    /// Live brokers, by id.
    pub brokers: Arc<[BrokerImage]>,
    /// The broker's settings that may change while it runs.
    pub dynamic: Arc<DynamicConfig>,
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
    /// The image before the first input: nothing is known but what flags and files set.
    pub fn empty(cluster_id: Arc<str>, dynamic: Arc<DynamicConfig>) -> ClusterImage {
        ClusterImage {
            version: 0,
            cluster_id,
            controller_id: NO_LEADER,
            brokers: Arc::new([]),
            dynamic,
            topics: SharedMap::new(),
            ids: SharedMap::new(),
        }
    }

    /// The next image: this one as `update` changes it. `local` knows what is this process's own.
    ///
    /// A topic whose last partition goes is gone; a topic that comes with another id replaces the one of its name.
    pub fn updated(&self, update: &UpdateMetadata, local: &impl LocalView) -> ClusterImage {
        let mut next = self.clone();
        next.version += 1;
        next.controller_id = update.sender.controller_id;
        let mut brokers = update.live_brokers.clone();
        brokers.sort_by_key(|broker| broker.id);
        next.brokers = brokers.into();
        for topic in &update.topics {
            next.update_topic(topic, local);
        }
        next
    }

    /// The next image with nothing changed but the version: to learn when shards have done what came before it.
    pub fn barrier(&self) -> ClusterImage {
        ClusterImage { version: self.version + 1, ..self.clone() }
    }

    /// Gives topics other settings; unknown ones are passed over.
    pub fn set_configs(&mut self, configs: &[(Arc<str>, Arc<TopicConfig>)]) {
        for (name, config) in configs {
            let Some(before) = self.topics.get(&**name).filter(|topic| !Arc::ptr_eq(&topic.config, config)) else {
                continue;
            };
            let topic = Arc::new(TopicImage { config: Arc::clone(config), ..TopicImage::clone(before) });
            self.topics.insert(Arc::clone(&topic.name), Arc::clone(&topic));
            if topic.id != TopicId::ZERO {
                self.ids.insert(topic.id, topic);
            }
        }
    }

    fn update_topic(&mut self, update: &UpdateMetadataTopic, local: &impl LocalView) {
        let before = self.topics.get(&*update.name).cloned();
        let mut partitions = match &before {
            Some(topic) if topic.id == update.id => topic.partitions.clone(),
            _ => Vec::new(),
        };
        for partition in &update.partitions {
            let at = partitions.binary_search_by_key(&partition.partition, |found| found.partition);
            if partition.leader == LEADER_DURING_DELETE {
                if let Ok(at) = at {
                    partitions.remove(at);
                }
                continue;
            }
            let image = PartitionImage {
                partition: partition.partition,
                leader: partition.leader,
                leader_epoch: partition.leader_epoch,
                isr: partition.isr.clone(),
                replicas: partition.replicas.clone(),
                offline_replicas: partition.offline_replicas.clone(),
                shard: local.shard_of(&update.name, partition.partition),
            };
            match at {
                Ok(at) => partitions[at] = image,
                Err(at) => partitions.insert(at, image),
            }
        }
        if let Some(before) = before
            && (before.id != update.id || partitions.is_empty())
        {
            self.ids.remove(&before.id);
        }
        if partitions.is_empty() {
            self.topics.remove(&*update.name);
            return;
        }
        let topic = Arc::new(TopicImage {
            name: update.name.clone(),
            id: update.id,
            internal: is_internal(&update.name),
            partitions,
            config: local.config_of(&update.name),
        });
        self.topics.insert(topic.name.clone(), topic.clone());
        if topic.id != TopicId::ZERO {
            self.ids.insert(topic.id, topic);
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

    /// Of all topics.
    pub fn partition_count(&self) -> usize {
        self.topics().map(|topic| topic.partitions.len()).sum()
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

#[cfg(test)]
mod tests {
    use super::super::inputs::{Sender, UpdateMetadataPartition};
    use super::*;

    struct Local(Arc<TopicConfig>);

    impl LocalView for Local {
        fn shard_of(&self, _: &str, partition: i32) -> Option<ShardId> {
            (partition % 2 == 0).then_some(ShardId(7))
        }
        fn config_of(&self, _: &str) -> Arc<TopicConfig> {
            self.0.clone()
        }
    }

    fn update(topics: &[(&str, u8, &[i32], BrokerId)]) -> UpdateMetadata {
        let partition = |partition, leader| UpdateMetadataPartition {
            partition,
            leader,
            leader_epoch: 1,
            isr: vec![leader],
            partition_epoch: 0,
            replicas: vec![leader],
            offline_replicas: vec![],
        };
        let topics = topics.iter().map(|(name, id, partitions, leader)| UpdateMetadataTopic {
            name: (*name).into(),
            id: TopicId([*id; 16]),
            partitions: partitions.iter().map(|number| partition(*number, *leader)).collect(),
        });
        UpdateMetadata {
            sender: Sender { controller_id: BrokerId(1), controller_epoch: 1, broker_epoch: 1 },
            topics: topics.collect(),
            live_brokers: vec![],
        }
    }

    #[test]
    fn updates_merge_by_partition_and_deletions_take_topics_out() {
        let local = Local(Arc::new(TopicConfig::default()));
        let leader = BrokerId(1);
        let first = ClusterImage::empty("c".into(), Arc::default())
            .updated(&update(&[("a", 1, &[0, 2], leader), ("__consumer_offsets", 2, &[0], leader)]), &local);
        assert_eq!((first.version, first.topic_count()), (1, 2));
        assert!(first.topic("__consumer_offsets").unwrap().internal && !first.topic("a").unwrap().internal);
        assert_eq!(first.partition("a", 2).unwrap().shard, Some(ShardId(7)));
        assert!(first.partition("a", 1).is_none() && first.partition("a", -1).is_none());

        let second = first.updated(&update(&[("a", 1, &[1], leader)]), &local);
        let numbers: Vec<_> = second.topic("a").unwrap().partitions.iter().map(|found| found.partition).collect();
        assert_eq!(numbers, [0, 1, 2]);
        assert_eq!(second.partition("a", 1).unwrap().shard, None);

        let gone = second.updated(&update(&[("a", 1, &[0, 1, 2], LEADER_DURING_DELETE)]), &local);
        assert!(gone.topic("a").is_none() && gone.topic_by_id(TopicId([1; 16])).is_none());
        assert!(second.topic("a").is_some(), "an image never changes");
    }

    #[test]
    fn a_topic_of_a_new_id_replaces_the_old_one() {
        let local = Local(Arc::new(TopicConfig::default()));
        let old =
            ClusterImage::empty("c".into(), Arc::default()).updated(&update(&[("a", 1, &[0, 1], BrokerId(1))]), &local);
        let new = old.updated(&update(&[("a", 2, &[0], BrokerId(1))]), &local);
        assert!(new.topic_by_id(TopicId([1; 16])).is_none());
        assert_eq!(new.topic_by_id(TopicId([2; 16])).unwrap().partitions.len(), 1);
    }

    #[test]
    fn topics_that_did_not_change_are_shared_between_images() {
        let local = Local(Arc::new(TopicConfig::default()));
        let before = ClusterImage::empty("c".into(), Arc::default())
            .updated(&update(&[("a", 1, &[0], BrokerId(1)), ("b", 2, &[0], BrokerId(1))]), &local);
        let after = before.updated(&update(&[("c", 3, &[0], BrokerId(1))]), &local);
        for name in ["a", "b"] {
            assert!(Arc::ptr_eq(before.topic(name).unwrap(), after.topic(name).unwrap()));
        }
    }
}
