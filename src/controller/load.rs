//! All that a controller needs to know, read from the tree: a pure state machine that asks for much at once.
//!
//! ```text
//!   lists of brokers, topics and marks  ->  each broker, each topic  ->  the partitions of each topic and their states
//! ```
//! Each list and each topic is watched. What is gone between its list and its read is not there. A topic whose values can't
//! be read is left out and named; the tree keeps what it has.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use crate::base::ids::{BrokerId, TopicId};
use crate::metadata::inputs::BrokerImage;
use crate::metadata::tree::{Reply, Request, RequestError, TreeError, Watch};
use crate::metadata::znodes::{self, Others};

use super::partition::{Leadership, Partition};

#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Live brokers with their epochs: the czxid of their registration.
    pub brokers: Vec<(BrokerImage, i64)>,
    /// By name.
    pub topics: Vec<TopicSnapshot>,
    /// Topics that can't be read, and why.
    pub damaged: BTreeMap<String, String>,
    /// Topics with a request for deletion.
    pub marked: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct TopicSnapshot {
    pub name: String,
    pub id: TopicId,
    pub partitions: BTreeMap<i32, Partition>,
    pub has_partitions_node: bool,
    /// What else the topic's node says.
    pub others: Others,
}

/// One thing to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    BrokerIds,
    TopicNames,
    Marks,
    Broker(i32),
    Topic(String),
    /// The nodes of a topic's partitions.
    Nodes(String),
    State(String, i32),
}

/// What is read of, and all that was read so far.
pub struct Loader {
    under_way: usize,
    brokers: Vec<(BrokerImage, i64)>,
    topics: BTreeMap<String, TopicSnapshot>,
    damaged: BTreeMap<String, String>,
    marked: Vec<String>,
}

/// What follows from a result.
#[derive(Debug)]
pub enum Step {
    Ask(Vec<Read>),
    Done(Snapshot),
    /// The tree failed.
    Failed(TreeError),
}

impl Read {
    pub fn request(&self) -> Request {
        let children = |path: &str| Request::Children { path: path.to_owned(), watch: Watch::Set };
        let get = |path, watch| Request::Get { path, watch };
        match self {
            Read::BrokerIds => children(znodes::BROKER_IDS),
            Read::TopicNames => children(znodes::TOPICS),
            Read::Marks => children(znodes::DELETE_TOPICS),
            Read::Broker(id) => get(znodes::broker_path(BrokerId(*id)), Watch::Set),
            Read::Topic(name) => get(znodes::topic_path(name), Watch::Set),
            Read::Nodes(name) => Request::Children { path: znodes::partitions_path(name), watch: Watch::None },
            Read::State(name, number) => get(znodes::partition_state_path(name, *number), Watch::None),
        }
    }
}

impl Loader {
    /// Of the whole tree.
    pub fn all() -> (Loader, Vec<Read>) {
        Loader::of(vec![Read::BrokerIds, Read::TopicNames, Read::Marks])
    }

    /// Of these topics alone.
    pub fn topics(names: impl IntoIterator<Item = String>) -> (Loader, Vec<Read>) {
        Loader::of(names.into_iter().map(Read::Topic).collect())
    }

    /// Of the live brokers alone.
    pub fn brokers() -> (Loader, Vec<Read>) {
        Loader::of(vec![Read::BrokerIds])
    }

    fn of(reads: Vec<Read>) -> (Loader, Vec<Read>) {
        let loader = Loader {
            under_way: reads.len(),
            brokers: Vec::new(),
            topics: BTreeMap::new(),
            damaged: BTreeMap::new(),
            marked: Vec::new(),
        };
        (loader, reads)
    }

    pub fn done(&mut self, read: Read, result: Result<Reply, RequestError>) -> Step {
        let found = match result {
            Ok(reply) => Some(reply),
            Err(RequestError { error: TreeError::NoNode(_), .. }) => None,
            Err(failed) => return Step::Failed(failed.error),
        };
        let more = match found {
            Some(reply) => self.take(read, reply),
            None => Vec::new(),
        };
        self.under_way = self.under_way - 1 + more.len();
        match self.under_way {
            0 => Step::Done(self.finish()),
            _ => Step::Ask(more),
        }
    }

    /// Gives what is to be read next.
    fn take(&mut self, read: Read, reply: Reply) -> Vec<Read> {
        match (read, reply) {
            (Read::BrokerIds, Reply::Children(names)) => {
                let ids = names.into_iter().filter_map(|name| match name.parse() {
                    Ok(id) => Some(Read::Broker(id)),
                    Err(_) => {
                        tracing::error!(name, "a node below {} is no broker's", znodes::BROKER_IDS);
                        None
                    }
                });
                ids.collect()
            }
            (Read::TopicNames, Reply::Children(names)) => names.into_iter().map(Read::Topic).collect(),
            (Read::Marks, Reply::Children(names)) => {
                self.marked = names;
                Vec::new()
            }
            (Read::Broker(id), Reply::Data(data, stat)) => {
                match znodes::decode_broker(BrokerId(id), &data) {
                    Ok(broker) => self.brokers.push((broker, stat.czxid)),
                    Err(error) => tracing::error!(%error, "the broker is taken for one that is not live"),
                }
                Vec::new()
            }
            (Read::Topic(name), Reply::Data(data, _)) => match self.take_topic(&name, &data) {
                Ok(numbers) => {
                    let states = numbers.into_iter().map(|number| Read::State(name.clone(), number));
                    states.chain([Read::Nodes(name.clone())]).collect()
                }
                Err(reason) => {
                    self.damaged.insert(name, reason);
                    Vec::new()
                }
            },
            (Read::Nodes(name), Reply::Children(nodes)) => {
                if let Some(topic) = self.topics.get_mut(&name) {
                    topic.has_partitions_node = true;
                    let numbers = nodes.iter().filter_map(|node| node.parse::<i32>().ok());
                    for number in numbers {
                        if let Some(partition) = topic.partitions.get_mut(&number) {
                            partition.has_node = true;
                        }
                    }
                }
                Vec::new()
            }
            (Read::State(name, number), Reply::Data(data, stat)) => {
                match znodes::decode_partition_state(&name, number, &data) {
                    Ok(state) => {
                        let partition = self.topics.get_mut(&name).and_then(|topic| topic.partitions.get_mut(&number));
                        if let Some(partition) = partition {
                            partition.state = Some(Leadership {
                                leader: state.leader,
                                leader_epoch: state.leader_epoch,
                                isr: state.isr,
                                partition_epoch: stat.version,
                                others: state.others,
                            });
                        }
                    }
                    Err(error) => drop(self.damaged.insert(name, error.to_string())),
                }
                Vec::new()
            }
            (read, reply) => unreachable!("{read:?} was answered with {reply:?}"),
        }
    }

    fn take_topic(&mut self, name: &str, data: &[u8]) -> Result<Vec<i32>, String> {
        let assignment = znodes::decode_topic(name, data).map_err(|error| error.to_string())?;
        if assignment.id == TopicId::ZERO {
            return Err(format!(
                "topic {name} has no topic id; trees from before Kafka 2.8 are not read yet: start it once on Kafka 3.9"
            ));
        }
        let partition = |(number, replicas)| (number, Partition { replicas, state: None, has_node: false });
        let partitions: BTreeMap<i32, Partition> = assignment.partitions.into_iter().map(partition).collect();
        let numbers = partitions.keys().copied().collect();
        let topic = TopicSnapshot {
            name: name.to_owned(),
            id: assignment.id,
            partitions,
            has_partitions_node: false,
            others: assignment.others,
        };
        self.topics.insert(name.to_owned(), topic);
        Ok(numbers)
    }

    fn finish(&mut self) -> Snapshot {
        let damaged = std::mem::take(&mut self.damaged);
        for (name, reason) in &damaged {
            tracing::error!(topic = name, reason, "the topic is left out; the metadata tree keeps what it has");
        }
        let mut topics = std::mem::take(&mut self.topics);
        topics.retain(|name, _| !damaged.contains_key(name));
        Snapshot {
            brokers: std::mem::take(&mut self.brokers),
            topics: topics.into_values().collect(),
            damaged,
            marked: std::mem::take(&mut self.marked),
        }
    }
}

/// Reads the whole tree.
#[cfg(test)]
pub fn load<T: crate::metadata::tree::MetadataTree>(tree: &mut crate::metadata::tree::suite::Probe<T>) -> Snapshot {
    let (mut loader, mut reads) = Loader::all();
    loop {
        let read = reads.remove(0);
        match loader.done(read.clone(), tree.ask(read.request())) {
            Step::Ask(more) => reads.extend(more),
            Step::Done(snapshot) => return snapshot,
            Step::Failed(error) => panic!("{error}"),
        }
    }
}

#[cfg(test)]
mod tests;
