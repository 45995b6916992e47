//! What a broker may ask the controller for, and what comes back. Handlers map each refusal to Kafka's error code.

#![forbid(unsafe_code)]

use std::sync::Arc;

use thiserror::Error;

use crate::base::ids::{BrokerId, TopicId};
use crate::config::{Config, TopicConfig};

use super::image::{GROUP_METADATA_TOPIC, TRANSACTION_STATE_TOPIC};

/// A request for a change of the cluster's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proposal {
    CreateTopics {
        topics: Vec<NewTopic>,
        /// Check only; nothing is written.
        validate_only: bool,
    },
    DeleteTopics {
        topics: Vec<TopicRef>,
    },
    /// One result for each topic. A topic is in a proposal once.
    CreatePartitions {
        topics: Vec<MorePartitions>,
        /// Check only; nothing is written.
        validate_only: bool,
    },
    /// One result for each change.
    AlterConfigs {
        changes: Vec<ConfigChange>,
        /// Check only; nothing is written.
        validate_only: bool,
    },
    /// This broker's files and flags say something else than at its start, or than when they were read last.
    FollowSettings {
        named: ConfigMap,
    },
    /// The next block of [`PRODUCER_ID_BLOCK_SIZE`] producer ids for this broker.
    AllocateProducerIds,
}

impl Proposal {
    /// Whether it changes what is there, so that it must see what the one before it wrote.
    pub fn is_serial(&self) -> bool {
        match self {
            Proposal::AlterConfigs { .. } | Proposal::CreatePartitions { .. } | Proposal::AllocateProducerIds => true,
            Proposal::CreateTopics { .. } | Proposal::DeleteTopics { .. } | Proposal::FollowSettings { .. } => false,
        }
    }
}

/// Producer ids in one block (Kafka 3.9 `ProducerIdsBlock.PRODUCER_ID_BLOCK_SIZE`).
pub const PRODUCER_ID_BLOCK_SIZE: i64 = 1000;

/// A topic to be created, in CreateTopics' terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    pub name: String,
    /// -1: the broker's `num.partitions`, or given by `assignments`.
    pub partitions: i32,
    /// -1: the broker's `default.replication.factor`, or given by `assignments`.
    pub replication_factor: i16,
    /// Partition and its replicas, the preferred leader first. Empty: the controller places them.
    pub assignments: Vec<(i32, Vec<BrokerId>)>,
    /// Overrides; a `None` value is refused.
    pub configs: Vec<(String, Option<String>)>,
}

impl NewTopic {
    /// What an automatically created topic is made with: internal ones have their own settings (Kafka 3.9
    /// `AutoTopicCreationManager.creatableTopic`), others the broker's defaults.
    pub fn auto_created(name: &str, config: &Config) -> NewTopic {
        let set = |pairs: &[(&str, String)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), Some(value.clone()))).collect()
        };
        let (partitions, replication_factor, configs) = match name {
            GROUP_METADATA_TOPIC => (
                config.offsets_topic_num_partitions,
                config.offsets_topic_replication_factor,
                set(&[
                    ("cleanup.policy", "compact".to_owned()),
                    ("compression.type", "producer".to_owned()),
                    ("segment.bytes", config.offsets_topic_segment_bytes.to_string()),
                ]),
            ),
            TRANSACTION_STATE_TOPIC => (
                config.transaction_state_log_num_partitions,
                config.transaction_state_log_replication_factor,
                set(&[
                    ("cleanup.policy", "compact".to_owned()),
                    ("compression.type", "uncompressed".to_owned()),
                    ("min.insync.replicas", config.transaction_state_log_min_isr.to_string()),
                    ("segment.bytes", config.transaction_state_log_segment_bytes.to_string()),
                    ("unclean.leader.election.enable", "false".to_owned()),
                ]),
            ),
            _ => (-1, -1, Vec::new()),
        };
        NewTopic { name: name.to_owned(), partitions, replication_factor, assignments: Vec::new(), configs }
    }
}

/// A topic that is to have more partitions, in CreatePartitions' terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MorePartitions {
    pub topic: String,
    /// How many it is to have in all.
    pub count: i32,
    /// Replicas of each new partition, the preferred leader first. `None`: the controller places them.
    pub assignments: Option<Vec<Vec<BrokerId>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TopicRef {
    Name(String),
    Id(TopicId),
}

/// The answer to a [`Proposal`] of the same name; results in the order of the request.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    CreateTopics(Vec<CreateTopicResult>),
    DeleteTopics(Vec<DeleteTopicResult>),
    CreatePartitions(Vec<Result<(), TopicRefusal>>),
    AlterConfigs(Vec<Result<(), ConfigRefusal>>),
    /// Or why they can't be followed.
    FollowSettings(Result<(), String>),
    AllocateProducerIds(ProducerIdBlock),
    /// Nothing was changed, or it is not known whether it was.
    Failed(ProposalError),
}

/// Takes an answer to whoever asked. Runs on the control thread: it only passes on.
pub type AnswerFn = Box<dyn FnOnce(Answer) + Send>;

#[derive(Clone, Debug, PartialEq)]
pub struct CreateTopicResult {
    pub name: String,
    pub outcome: Result<CreatedTopic, TopicRefusal>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct CreatedTopic {
    /// [`TopicId::ZERO`] when only validated.
    pub id: TopicId,
    pub partitions: i32,
    pub replication_factor: i16,
    pub config: Arc<TopicConfig>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteTopicResult {
    /// `None`: asked by an id that names no topic.
    pub name: Option<String>,
    pub id: TopicId,
    pub outcome: Result<(), TopicRefusal>,
}

/// Producer ids `start..=last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerIdBlock {
    pub start: i64,
    pub last: i64,
}

/// Why one topic was not created, changed or deleted; the text is the error message for the client. Kafka's code is named beside
/// each.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TopicRefusal {
    /// TOPIC_ALREADY_EXISTS (36)
    #[error("Topic '{0}' already exists.")]
    AlreadyExists(String),
    /// TOPIC_ALREADY_EXISTS (36)
    #[error("Topic '{0}' is marked for deletion.")]
    MarkedForDeletion(String),
    /// INVALID_TOPIC_EXCEPTION (17): a bad name, or one that collides with another in `.` and `_`.
    #[error("{0}")]
    InvalidName(String),
    /// INVALID_PARTITIONS (37)
    #[error("{0}")]
    InvalidPartitions(String),
    /// INVALID_REPLICATION_FACTOR (38)
    #[error("{0}")]
    InvalidReplicationFactor(String),
    /// INVALID_REPLICA_ASSIGNMENT (39)
    #[error("{0}")]
    InvalidReplicaAssignment(String),
    /// INVALID_CONFIG (40)
    #[error("{0}")]
    InvalidConfig(String),
    /// INVALID_REQUEST (42)
    #[error("{0}")]
    InvalidRequest(String),
    /// UNKNOWN_TOPIC_OR_PARTITION (3)
    #[error("This server does not host this topic-partition.")]
    UnknownTopic,
    /// UNKNOWN_TOPIC_OR_PARTITION (3)
    #[error("The topic '{0}' does not exist.")]
    NoSuchTopic(String),
    /// UNKNOWN_TOPIC_ID (100)
    #[error("This server does not host this topic ID.")]
    UnknownTopicId,
    /// TOPIC_DELETION_DISABLED (73); before DeleteTopics v3: INVALID_REQUEST (42)
    #[error("Topic deletion is disabled.")]
    DeletionDisabled,
    /// REQUEST_TIMED_OUT (7): the topic is marked, and goes when all brokers with a replica of it are live.
    #[error("The deletion waits for a broker that is not live.")]
    DeletionSuspended,
    /// REQUEST_TIMED_OUT (7): the topic is made, but none of the brokers that a partition was assigned to is live.
    #[error("The topic waits for a live broker to lead it.")]
    WithoutLeader,
    /// NOT_CONTROLLER (41)
    #[error("This is not the correct controller for this cluster.")]
    NotController,
    /// UNKNOWN_SERVER_ERROR (-1): the tree refused or is broken; the log has the reason.
    #[error("The metadata tree failed: {0}")]
    Tree(String),
}

/// New settings for one resource. A resource is in a proposal once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigChange {
    pub resource: ConfigResource,
    pub edit: ConfigEdit,
}

/// Whose settings.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigResource {
    Topic(String),
    /// The broker that proposes.
    ThisBroker,
    AllBrokers,
}

/// What is to become of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigEdit {
    /// All that is not named is reset.
    Replace(ConfigMap),
    /// What is not named stays. Each name is there once.
    Change(Vec<(String, ConfigOperation)>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigOperation {
    Set(String),
    Delete,
    /// Adds to a list what is not in it yet.
    Append(String),
    /// Takes out of a list.
    Subtract(String),
}

/// Why settings were not changed; the text is the error message for the client.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigRefusal {
    /// UNKNOWN_TOPIC_OR_PARTITION (3)
    #[error("The topic '{0}' does not exist.")]
    UnknownTopic(String),
    /// INVALID_CONFIG (40)
    #[error("{0}")]
    InvalidConfig(String),
    /// INVALID_REQUEST (42)
    #[error("{0}")]
    InvalidRequest(String),
    /// NOT_CONTROLLER (41)
    #[error("This is not the correct controller for this cluster.")]
    NotController,
    /// UNKNOWN_SERVER_ERROR (-1): the tree refused or is broken; the log has the reason.
    #[error("The metadata tree failed: {0}")]
    Tree(String),
}

/// Why a whole proposal failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProposalError {
    /// NOT_CONTROLLER (41)
    #[error("This is not the correct controller for this cluster.")]
    NotController,
    /// Too much is under way: REQUEST_TIMED_OUT (7), so that the client tries again.
    #[error("Too many metadata changes are under way.")]
    Busy,
    /// UNKNOWN_SERVER_ERROR (-1)
    #[error("The metadata tree failed: {0}")]
    Tree(String),
}

/// Overrides as the tree stores them.
pub use crate::config::dynamic::ConfigMap;
