//! What a client knows of the cluster: brokers, the controller, and who leads which partition.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use crate::base::ids::TopicId;
use crate::protocol::ErrorCode;
use crate::protocol::message::{MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseTopic};

/// The first version of Metadata in which a client may say that it wants no topic created.
const NO_CREATION_VERSION: i16 = 4;

/// Names that differ in more places than this, of each four characters, are not taken for a slip of the hand.
const SLIPS_PER_CHARACTERS: usize = 4;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    pub id: i32,
    pub host: String,
    pub port: i32,
    pub rack: Option<String>,
}

impl Broker {
    /// `host:port`, as it is dialled.
    pub fn address(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    pub index: i32,
    /// `None`: there is none now.
    pub leader: Option<i32>,
    pub leader_epoch: i32,
    pub replicas: Vec<i32>,
    pub isr: Vec<i32>,
    pub offline_replicas: Vec<i32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub name: String,
    /// [`TopicId::ZERO`] from a broker before 2.8.
    pub id: TopicId,
    pub is_internal: bool,
    /// Ascending by index.
    pub partitions: Vec<Partition>,
}

impl Topic {
    pub fn partition(&self, index: i32) -> Option<&Partition> {
        self.partitions.iter().find(|partition| partition.index == index)
    }
}

/// See the head of this file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    pub id: Option<String>,
    pub controller: Option<i32>,
    /// Ascending by id.
    pub brokers: Vec<Broker>,
    pub topics: BTreeMap<String, Topic>,
    /// Topics that were asked for and can't be described, with the error code.
    pub refused: BTreeMap<String, i16>,
}

impl Cluster {
    /// Asks for these topics, for all if `None`. A version that can't forbid the topics' creation asks for all.
    pub fn request(topics: Option<&[String]>, version: i16) -> MetadataRequest {
        let all = (version == 0).then(Vec::new);
        if version < NO_CREATION_VERSION {
            return MetadataRequest { topics: all, ..MetadataRequest::default() };
        }
        let by_name = |name: &String| MetadataRequestTopic { name: Some(name.clone()), ..Default::default() };
        let topics = topics.map(|names| names.iter().map(by_name).collect());
        MetadataRequest { topics, allow_auto_topic_creation: false, ..MetadataRequest::default() }
    }

    pub fn new(response: MetadataResponse) -> Cluster {
        let broker = |broker: crate::protocol::message::MetadataResponseBroker| Broker {
            id: broker.node_id,
            host: broker.host,
            port: broker.port,
            rack: broker.rack,
        };
        let mut brokers: Vec<Broker> = response.brokers.into_iter().map(broker).collect();
        brokers.sort_by_key(|broker| broker.id);
        let mut cluster = Cluster {
            id: response.cluster_id,
            controller: (response.controller_id >= 0).then_some(response.controller_id),
            brokers,
            ..Cluster::default()
        };
        for topic in response.topics {
            cluster.add(topic);
        }
        cluster
    }

    fn add(&mut self, topic: MetadataResponseTopic) {
        let name = topic.name.unwrap_or_default();
        if topic.error_code != ErrorCode::None.code() {
            self.refused.insert(name, topic.error_code);
            return;
        }
        let partition = |partition: crate::protocol::message::MetadataResponsePartition| Partition {
            index: partition.partition_index,
            leader: (partition.leader_id >= 0).then_some(partition.leader_id),
            leader_epoch: partition.leader_epoch,
            replicas: partition.replica_nodes,
            isr: partition.isr_nodes,
            offline_replicas: partition.offline_replicas,
        };
        let mut partitions: Vec<Partition> = topic.partitions.into_iter().map(partition).collect();
        partitions.sort_by_key(|partition| partition.index);
        let topic = Topic { name: name.clone(), id: topic.topic_id, is_internal: topic.is_internal, partitions };
        self.topics.insert(name, topic);
    }

    pub fn broker(&self, id: i32) -> Option<&Broker> {
        self.brokers.iter().find(|broker| broker.id == id)
    }

    pub fn leader(&self, topic: &str, partition: i32) -> Option<i32> {
        self.topics.get(topic)?.partition(partition)?.leader
    }
}

/// Whether another look at the cluster may show who can do what this broker can't.
pub fn look_again(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::NotLeaderOrFollower
            | ErrorCode::LeaderNotAvailable
            | ErrorCode::UnknownTopicOrPartition
            | ErrorCode::UnknownTopicId
            | ErrorCode::FencedLeaderEpoch
            | ErrorCode::UnknownLeaderEpoch
            | ErrorCode::ReplicaNotAvailable
            | ErrorCode::KafkaStorageError
            | ErrorCode::ListenerNotFound
            | ErrorCode::NotController
            | ErrorCode::NetworkException
    )
}

/// The name that was probably meant: the one with the fewest slips, if they are few.
pub fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let slips_max = wanted.chars().count().div_ceil(SLIPS_PER_CHARACTERS);
    let named = names.into_iter().map(|name| (slips(wanted, name), name));
    named.filter(|(slips, _)| *slips <= slips_max).min().map(|(_, name)| name)
}

/// Characters to insert, leave out or replace to get from one to the other.
fn slips(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, from) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, to) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::message::{MetadataResponseBroker, MetadataResponsePartition};

    #[test]
    fn an_answer_becomes_brokers_leaders_and_refusals_in_order() {
        let broker = |node_id| MetadataResponseBroker { node_id, host: "h".into(), port: 9, ..Default::default() };
        let partition =
            |partition_index, leader_id| MetadataResponsePartition { partition_index, leader_id, ..Default::default() };
        let topic = |name: &str, error_code, partitions| MetadataResponseTopic {
            error_code,
            name: Some(name.into()),
            partitions,
            ..Default::default()
        };
        let cluster = Cluster::new(MetadataResponse {
            brokers: vec![broker(2), broker(1)],
            controller_id: -1,
            topics: vec![topic("t", 0, vec![partition(1, -1), partition(0, 2)]), topic("gone", 3, vec![])],
            ..Default::default()
        });
        assert_eq!(cluster.brokers.iter().map(|broker| broker.id).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(cluster.broker(1).unwrap().address(), "h:9");
        assert_eq!((cluster.leader("t", 0), cluster.leader("t", 1), cluster.leader("gone", 0)), (Some(2), None, None));
        assert_eq!((cluster.controller, cluster.refused.get("gone")), (None, Some(&3)));
    }

    #[test]
    fn old_versions_ask_for_all_topics_since_they_would_create_a_missing_one() {
        let one = ["t".to_owned()];
        assert_eq!(Cluster::request(Some(&one), 0).topics, Some(vec![]));
        assert_eq!(Cluster::request(Some(&one), 3).topics, None);
        let request = Cluster::request(Some(&one), 4);
        assert_eq!((request.topics.unwrap().len(), request.allow_auto_topic_creation), (1, false));
    }

    #[test]
    fn a_slip_of_the_hand_is_recognised_and_another_name_is_not() {
        let names = ["orders", "payments", "orders-dlq"];
        assert_eq!(nearest("order", names), Some("orders"));
        assert_eq!(nearest("oders", names), Some("orders"));
        assert_eq!(nearest("paymnets", names), Some("payments"));
        assert_eq!(nearest("shipments", names), None);
        assert_eq!(nearest("x", ["y", "orders"]), Some("y"));
        assert_eq!((slips("", "abc"), slips("abc", "abc"), slips("kitten", "sitting")), (3, 0, 3));
    }
}
