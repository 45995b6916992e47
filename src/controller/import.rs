//! A tree for a directory that Kafka left: what ZooKeeper held, as far as the directory alone can tell.
//!
//! Topics and partitions are the partition directories', all of them led by this broker; their settings were kept in
//! ZooKeeper and are gone. Internal topics get what they are made with; of the others nothing may go that those settings
//! may have kept, so until somebody gives them settings they keep every record, whatever the broker's defaults. The first
//! election after the import raises every leader epoch by one, so it is larger than any in the logs.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use thiserror::Error;

use crate::base::ids::{BrokerId, LeaderEpoch, TopicId, TopicPartition};
use crate::config::Config;
use crate::metadata::proposal::{ConfigMap, NewTopic, PRODUCER_ID_BLOCK_SIZE, ProducerIdBlock};
use crate::metadata::tree::{CreateMode, Operation};
use crate::metadata::znodes::{self, Others};

use super::create::{encode_topic, new_id};
use super::leadership::state_operations;
use super::partition::{Leadership, Partition};
use super::topic_name;

/// Gaps between partition numbers that a refusal lists.
const GAPS_LISTED_MAX: usize = 10;

/// Where the first block of producer ids of an imported tree may begin. Which ids Kafka gave out stood in ZooKeeper
/// only; a producer that got one of them again would have its first batches taken for duplicates of another's. Kafka
/// counts from 0, and never got here; a random place keeps a second import apart from the first. Above 2^53 clients
/// that hold numbers as doubles would lose digits.
const PRODUCER_IDS: std::ops::Range<i64> = 1 << 40..1 << 52;

/// Settings by which a topic keeps every record.
const KEEPS_ALL: [(&str, &str); 3] = [("cleanup.policy", "delete"), ("retention.ms", "-1"), ("retention.bytes", "-1")];

/// The same for a topic that Kafka has compacted: it still takes only records with keys, but how long older ones and
/// tombstones were to stay is not known.
const KEEPS_ALL_COMPACTED: [(&str, &str); 5] = [
    ("cleanup.policy", "compact"),
    ("retention.ms", "-1"),
    ("retention.bytes", "-1"),
    ("min.compaction.lag.ms", "9223372036854775807"),
    ("max.compaction.lag.ms", "9223372036854775807"),
];

/// What a partition's directory says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundPartition {
    pub topic_partition: TopicPartition,
    /// `None` without `partition.metadata`.
    pub topic_id: Option<TopicId>,
    /// The newest epoch that wrote here; `None`: nobody ever led it.
    pub latest_epoch: Option<LeaderEpoch>,
    /// Kafka's cleaner has compacted it.
    pub was_compacted: bool,
}

/// Why a directory can't be imported.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ImportError {
    #[error("{directory} is no directory of a topic: {reason}")]
    TopicName { directory: String, reason: String },
    #[error("{0} is there twice, under two spellings")]
    Twice(TopicPartition),
    #[error(
        "topic {topic} is not whole: there are {count} partitions up to {last}, without {missing}; one node must have \
         them all, so bring the missing directories here or move those of {topic} out"
    )]
    Missing { topic: String, count: usize, last: i32, missing: String },
    #[error(
        "partition.metadata of {first} and {second} say that they are of different topics ({first_id} and \
         {second_id}); move the one that does not belong here out"
    )]
    TopicIds { first: TopicPartition, first_id: TopicId, second: TopicPartition, second_id: TopicId },
    #[error("topics {first} and {second} have one topic id, {id}; move the directories of one of them out")]
    SharedId { first: String, second: String, id: TopicId },
    #[error("{topic_partition} has leader epoch {epoch}, which leaves no larger one")]
    LeaderEpoch { topic_partition: TopicPartition, epoch: LeaderEpoch },
}

/// What makes the tree, as one transaction; `cluster_id` is the one that `meta.properties` names.
pub fn operations(
    found: &[FoundPartition],
    cluster_id: Option<&str>,
    config: &Config,
    random: &mut dyn FnMut() -> u64,
) -> Result<Vec<Operation>, ImportError> {
    let mut operations: Vec<Operation> = znodes::PERSISTENT_PATHS
        .iter()
        .filter(|path| **path != znodes::LATEST_PRODUCER_ID_BLOCK)
        .map(|path| create((*path).to_owned(), Vec::new()))
        .collect();
    operations.push(create(znodes::LATEST_PRODUCER_ID_BLOCK.to_owned(), producer_ids(config.broker_id, random)));
    if let Some(id) = cluster_id {
        operations.push(create(znodes::CLUSTER_ID.to_owned(), znodes::encode_cluster_id(id)));
    }
    let topics = by_topic(found)?;
    let mut ids = BTreeMap::new();
    for (topic, partitions) in &topics {
        check_whole(topic, partitions)?;
        let Some(id) = topic_id(partitions)? else { continue };
        if let Some(first) = ids.insert(id, topic.clone()) {
            return Err(ImportError::SharedId { first: first.to_string(), second: topic.to_string(), id });
        }
    }
    let mut named: BTreeMap<Arc<str>, TopicId> = ids.iter().map(|(id, topic)| (topic.clone(), *id)).collect();
    for (topic, partitions) in &topics {
        let id = named.remove(topic).unwrap_or_else(|| {
            let id = new_id(|id| ids.contains_key(id), random);
            ids.insert(id, topic.clone());
            id
        });
        operations.extend(topic_operations(topic, id, partitions, config)?);
    }
    Ok(operations)
}

fn create(path: String, data: Vec<u8>) -> Operation {
    Operation::Create { path, data, mode: CreateMode::Persistent }
}

fn producer_ids(broker: BrokerId, random: &mut dyn FnMut() -> u64) -> Vec<u8> {
    let blocks = (PRODUCER_IDS.end - PRODUCER_IDS.start) / PRODUCER_ID_BLOCK_SIZE;
    let block = i64::try_from(random() % blocks.unsigned_abs()).expect("below the count of blocks");
    let start = PRODUCER_IDS.start + block * PRODUCER_ID_BLOCK_SIZE;
    znodes::encode_producer_id_block(broker, ProducerIdBlock { start, last: start + PRODUCER_ID_BLOCK_SIZE - 1 })
}

/// A topic's partitions by number.
type Partitions<'f> = BTreeMap<i32, &'f FoundPartition>;

fn by_topic(found: &[FoundPartition]) -> Result<BTreeMap<Arc<str>, Partitions<'_>>, ImportError> {
    let mut topics: BTreeMap<Arc<str>, Partitions<'_>> = BTreeMap::new();
    for partition in found {
        let TopicPartition { topic, partition: number } = &partition.topic_partition;
        topic_name::check(topic).map_err(|reason| {
            let directory = partition.topic_partition.to_string();
            ImportError::TopicName { directory, reason }
        })?;
        if topics.entry(topic.clone()).or_default().insert(*number, partition).is_some() {
            return Err(ImportError::Twice(partition.topic_partition.clone()));
        }
    }
    Ok(topics)
}

/// All of 0 to the highest number must be there.
fn check_whole(topic: &str, partitions: &Partitions<'_>) -> Result<(), ImportError> {
    let (mut missing, mut gaps, mut expected) = (String::new(), 0, 0);
    for number in partitions.keys().copied() {
        if number > expected {
            gaps += 1;
            let separator = if missing.is_empty() { "" } else { ", " };
            let last = number - 1;
            // Writing into a String can't fail.
            let _ = match (gaps <= GAPS_LISTED_MAX, last == expected) {
                (true, true) => write!(missing, "{separator}{topic}-{last}"),
                (true, false) => write!(missing, "{separator}{topic}-{expected} to {topic}-{last}"),
                (false, _) if gaps == GAPS_LISTED_MAX + 1 => write!(missing, " and more"),
                (false, _) => Ok(()),
            };
        }
        expected = number.saturating_add(1);
    }
    let last = partitions.keys().next_back().copied().unwrap_or_default();
    match gaps {
        0 => Ok(()),
        _ => Err(ImportError::Missing { topic: topic.to_owned(), count: partitions.len(), last, missing }),
    }
}

/// The topic id that the partitions name; `None` if none of them does.
fn topic_id(partitions: &Partitions<'_>) -> Result<Option<TopicId>, ImportError> {
    let mut with_id =
        partitions.values().filter_map(|partition| Some((&partition.topic_partition, partition.topic_id?)));
    let Some((first, first_id)) = with_id.next() else { return Ok(None) };
    match with_id.find(|(_, id)| *id != first_id) {
        None => Ok(Some(first_id)),
        Some((second, second_id)) => {
            Err(ImportError::TopicIds { first: first.clone(), first_id, second: second.clone(), second_id })
        }
    }
}

fn topic_operations(
    topic: &str,
    id: TopicId,
    found: &Partitions<'_>,
    config: &Config,
) -> Result<Vec<Operation>, ImportError> {
    let replicas = vec![config.broker_id];
    let partition = |number: &i32| {
        let partition = Partition { replicas: replicas.clone(), state: None, has_node: false };
        (*number, partition)
    };
    let partitions: BTreeMap<i32, Partition> = found.keys().map(partition).collect();
    let settings = NewTopic::auto_created(topic, config).configs;
    let mut overrides: ConfigMap = settings.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    if overrides.is_empty() {
        let keeps_all = match found.values().any(|partition| partition.was_compacted) {
            true => &KEEPS_ALL_COMPACTED[..],
            false => &KEEPS_ALL[..],
        };
        overrides.extend(keeps_all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    }
    let mut operations = vec![
        create(znodes::topic_config_path(topic), znodes::encode_config(&overrides, &Others::default())),
        create(znodes::topic_path(topic), encode_topic(id, &partitions, &Others::default())),
    ];
    for (index, (number, partition)) in partitions.iter().enumerate() {
        let FoundPartition { topic_partition, latest_epoch, .. } = found[number];
        // Below the first epoch where there never was one: the election makes it 0, and the partition is still not
        // new, so that its log is opened as what it is.
        let leader_epoch = latest_epoch.unwrap_or(-1).max(-1);
        if leader_epoch == LeaderEpoch::MAX {
            return Err(ImportError::LeaderEpoch { topic_partition: topic_partition.clone(), epoch: leader_epoch });
        }
        let leadership = Leadership {
            leader: config.broker_id,
            leader_epoch,
            isr: replicas.clone(),
            partition_epoch: 0,
            others: Others::default(),
        };
        operations.extend(state_operations(topic, *number, partition, &leadership, 0, index > 0));
    }
    Ok(operations)
}

#[cfg(test)]
mod tests;
