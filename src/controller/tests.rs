//! The controller against a plain model: random proposals, slow tree, slow brokers, crashes, and a rival.

mod bounds;
mod others;
mod refusals;
mod world;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use proptest::prelude::*;

use crate::base::ids::{BrokerId, TopicId, TopicPartition};
use crate::base::time::Monotonic;
use crate::config::{DynamicConfig, Endpoint};
use crate::metadata::config_follower::Followed;
use crate::metadata::embedded::EmbeddedTree;
use crate::metadata::inputs::{BrokerImage, LEADER_DURING_DELETE, UpdateMetadata};
use crate::metadata::proposal::{
    ConfigChange, ConfigEdit, ConfigOperation, ConfigResource, MorePartitions, NewTopic, TopicRef,
};
use crate::metadata::tree::suite::Probe;
use crate::metadata::tree::{CreateMode, MetadataTree, TreeError, Version, Watch};
use crate::metadata::znodes;

use super::load::{Snapshot, load};
use super::*;
use world::World;

/// What the rest of the world does next.
#[derive(Clone, Debug)]
enum Step {
    Create {
        names: Vec<u8>,
        partitions: i32,
        validate_only: bool,
    },
    Delete {
        names: Vec<u8>,
    },
    ProducerIds,
    /// Another `segment.bytes` for a topic, or for all brokers.
    Alter {
        name: Option<u8>,
        segment_bytes: i32,
    },
    /// More partitions for a topic.
    Expand {
        name: u8,
        count: i32,
    },
    /// The tree's file system has no room, or has some again.
    Full(bool),
    /// The oldest of the controller's effects happens.
    Perform(usize),
    /// A broker says that it has done what it was told.
    Tell,
    /// The process dies and starts again.
    Crash,
    /// Another controller takes the epoch.
    Rival,
}

fn step() -> impl Strategy<Value = Step> {
    let names = || proptest::collection::vec(0u8..6, 1..4);
    prop_oneof![
        4 => (names(), 1..4i32, prop::bool::weighted(0.1))
            .prop_map(|(names, partitions, validate_only)| Step::Create { names, partitions, validate_only }),
        3 => names().prop_map(|names| Step::Delete { names }),
        1 => Just(Step::ProducerIds),
        2 => (proptest::option::of(0u8..6), 14..99i32)
            .prop_map(|(name, segment_bytes)| Step::Alter { name, segment_bytes }),
        2 => (0u8..6, 1..7i32).prop_map(|(name, count)| Step::Expand { name, count }),
        1 => any::<bool>().prop_map(Step::Full),
        8 => (1..6usize).prop_map(Step::Perform),
        3 => Just(Step::Tell),
        1 => Just(Step::Crash),
        1 => Just(Step::Rival),
    ]
}

/// Topics that a proposal may change.
fn changed_names(proposal: &Proposal) -> Vec<String> {
    match proposal {
        Proposal::CreateTopics { validate_only: true, .. }
        | Proposal::AlterConfigs { .. }
        | Proposal::CreatePartitions { .. }
        | Proposal::FollowSettings { .. }
        | Proposal::AllocateProducerIds => Vec::new(),
        Proposal::CreateTopics { topics, .. } => topics.iter().map(|topic| topic.name.clone()).collect(),
        Proposal::DeleteTopics { topics } => topics
            .iter()
            .map(|topic| match topic {
                TopicRef::Name(name) => name.clone(),
                TopicRef::Id(_) => unreachable!("asked by name"),
            })
            .collect(),
    }
}

fn controller() -> Controller {
    Controller::new(Settings {
        broker_id: BrokerId(1),
        num_partitions: 1,
        default_replication_factor: 1,
        delete_topic_enable: true,
        followed: Followed::new(Arc::new(DynamicConfig::default())),
    })
}

fn name(index: u8) -> String {
    // The last two collide.
    ["a", "b", "c", "d", "x.y", "x_y"][usize::from(index)].to_owned()
}

fn new_topic(name: String, partitions: i32) -> NewTopic {
    NewTopic { name, partitions, replication_factor: -1, assignments: vec![], configs: vec![] }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_clients_tree_and_brokers_agree_in_the_end(steps in proptest::collection::vec(step(), 1..80)) {
        let mut world = World::new();
        for step in steps {
            match step {
                Step::Create { names, partitions, validate_only } => {
                    let topics = names.into_iter().map(|index| new_topic(name(index), partitions)).collect();
                    world.propose(Proposal::CreateTopics { topics, validate_only });
                }
                Step::Delete { names } => {
                    let topics = names.into_iter().map(|index| TopicRef::Name(name(index))).collect();
                    world.propose(Proposal::DeleteTopics { topics });
                }
                Step::ProducerIds => world.propose(Proposal::AllocateProducerIds),
                Step::Alter { name: index, segment_bytes } => world.propose(alter(index, segment_bytes)),
                Step::Expand { name: index, count } => {
                    let topics = vec![MorePartitions { topic: name(index), count, assignments: None }];
                    world.propose(Proposal::CreatePartitions { topics, validate_only: false });
                }
                Step::Full(is_full) => world.is_full = is_full,
                Step::Perform(count) => world.perform(count),
                Step::Tell => world.tell(),
                Step::Crash => world.crash(),
                Step::Rival => world.rival(),
            }
        }
        world.settle();
        world.check();
        world.crash();
        world.settle();
        world.check();
    }
}

fn alter(index: Option<u8>, segment_bytes: i32) -> Proposal {
    let (resource, key) = match index {
        Some(index) => (ConfigResource::Topic(name(index)), "segment.bytes"),
        None => (ConfigResource::AllBrokers, "log.segment.bytes"),
    };
    let edit = ConfigEdit::Change(vec![(key.to_owned(), ConfigOperation::Set(segment_bytes.to_string()))]);
    Proposal::AlterConfigs { changes: vec![ConfigChange { resource, edit }], validate_only: false }
}
