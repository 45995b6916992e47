//! All that a controller needs to know, read from the tree in one go.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::base::ids::{BrokerId, TopicId};
use crate::metadata::ask::Ask;
use crate::metadata::inputs::BrokerImage;
use crate::metadata::proposal::ConfigMap;
use crate::metadata::tree::{MetadataTree, TreeError, Watch};
use crate::metadata::znodes::{self, BadValue};

use super::partition::{Leadership, Partition};

#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Live brokers with their epochs: the czxid of their registration.
    pub brokers: Vec<(BrokerImage, i64)>,
    pub topics: Vec<TopicSnapshot>,
    /// Topics with a request for deletion.
    pub marked: Vec<String>,
    /// Topic configs without topic.
    pub stray_configs: BTreeSet<String>,
    /// Settings of brokers, by the name of their node.
    pub broker_configs: BTreeMap<String, ConfigMap>,
    /// Names of the notices that settings have changed.
    pub config_changes: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct TopicSnapshot {
    pub name: String,
    pub id: TopicId,
    pub partitions: BTreeMap<i32, Partition>,
    pub has_partitions_node: bool,
    /// `None`: there is no config node.
    pub config: Option<ConfigMap>,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LoadError {
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error(transparent)]
    Value(#[from] BadValue),
    #[error("{0} is no broker id")]
    BrokerId(String),
    #[error("topic {0} has no topic id; trees from before Kafka 2.8 are not read yet: start it once on Kafka 3.9")]
    NoTopicId(String),
}

/// Reads the whole tree; nothing else may write meanwhile.
pub async fn load(tree: &impl MetadataTree) -> Result<Snapshot, LoadError> {
    let mut snapshot = Snapshot::default();
    for name in tree.children(znodes::BROKER_IDS, Watch::None).await? {
        let id: i32 = name.parse().map_err(|_| LoadError::BrokerId(name))?;
        let (data, stat) = tree.get(&znodes::broker_path(BrokerId(id)), Watch::None).await?;
        snapshot.brokers.push((znodes::decode_broker(BrokerId(id), &data)?, stat.czxid));
    }
    let mut configs: BTreeSet<String> = tree.children(znodes::TOPIC_CONFIGS, Watch::None).await?.into_iter().collect();
    for name in tree.children(znodes::TOPICS, Watch::None).await? {
        let has_config = configs.remove(&name);
        snapshot.topics.push(load_topic(tree, name, has_config).await?);
    }
    snapshot.stray_configs = configs;
    for name in tree.children(znodes::BROKER_CONFIGS, Watch::None).await? {
        let path = znodes::broker_config_path(&name);
        let (data, _) = tree.get(&path, Watch::None).await?;
        snapshot.broker_configs.insert(name, znodes::decode_config(&path, &data)?);
    }
    snapshot.config_changes = tree.children(znodes::CONFIG_CHANGES, Watch::None).await?;
    snapshot.marked = tree.children(znodes::DELETE_TOPICS, Watch::None).await?;
    Ok(snapshot)
}

async fn load_topic(tree: &impl MetadataTree, name: String, has_config: bool) -> Result<TopicSnapshot, LoadError> {
    let (data, _) = tree.get(&znodes::topic_path(&name), Watch::None).await?;
    let assignment = znodes::decode_topic(&name, &data)?;
    if assignment.id == TopicId::ZERO {
        return Err(LoadError::NoTopicId(name));
    }
    let nodes = match tree.children(&znodes::partitions_path(&name), Watch::None).await {
        Ok(nodes) => Some(nodes),
        Err(TreeError::NoNode(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let mut partitions = BTreeMap::new();
    for (number, replicas) in assignment.partitions {
        let has_node = nodes.as_ref().is_some_and(|nodes| nodes.contains(&number.to_string()));
        let state = if has_node { load_state(tree, &name, number).await? } else { None };
        partitions.insert(number, Partition { replicas, state, has_node });
    }
    let config = if has_config {
        let path = znodes::topic_config_path(&name);
        let (data, _) = tree.get(&path, Watch::None).await?;
        Some(znodes::decode_config(&path, &data)?)
    } else {
        None
    };
    Ok(TopicSnapshot { name, id: assignment.id, partitions, has_partitions_node: nodes.is_some(), config })
}

async fn load_state(tree: &impl MetadataTree, topic: &str, number: i32) -> Result<Option<Leadership>, LoadError> {
    match tree.get(&znodes::partition_state_path(topic, number), Watch::None).await {
        Ok((data, stat)) => {
            let state = znodes::decode_partition_state(topic, number, &data)?;
            Ok(Some(Leadership {
                leader: state.leader,
                leader_epoch: state.leader_epoch,
                isr: state.isr,
                partition_epoch: stat.version,
            }))
        }
        Err(TreeError::NoNode(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
