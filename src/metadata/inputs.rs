//! The only ways a broker learns of partitions, leaders and epochs, shaped like Kafka's inter-broker requests of the same
//! names. On one node the controller hands them over in the process; from a cluster they will come decoded off the wire.

#![forbid(unsafe_code)]

use std::sync::Arc;

use crate::base::ids::{BrokerId, LeaderEpoch, TopicId};
use crate::config::Endpoint;

/// A broker id that means "no leader".
pub const NO_LEADER: BrokerId = BrokerId(-1);

/// A broker id that means "this topic is being deleted" (Kafka 3.9 `LeaderAndIsr.LeaderDuringDelete`).
pub const LEADER_DURING_DELETE: BrokerId = BrokerId(-2);

/// The leader epoch that overrides any other in StopReplica: the topic is being deleted (Kafka 3.9
/// `LeaderAndIsr.EpochDuringDelete`).
pub const EPOCH_DURING_DELETE: LeaderEpoch = -2;

/// Who sends, and as of when. A receiver refuses an older controller epoch, and a broker epoch below its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    pub controller_id: BrokerId,
    pub controller_epoch: i32,
    /// The receiver's registration as the sender knows it: the czxid of its `/brokers/ids` node. -1: unknown, accepted.
    pub broker_epoch: i64,
}

/// Who leads and who follows some partitions that this broker holds replicas of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderAndIsr {
    pub sender: Sender,
    pub topics: Vec<LeaderAndIsrTopic>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderAndIsrTopic {
    pub name: Arc<str>,
    pub id: TopicId,
    pub partitions: Vec<LeaderAndIsrPartition>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderAndIsrPartition {
    pub partition: i32,
    pub leader: BrokerId,
    pub leader_epoch: LeaderEpoch,
    pub isr: Vec<BrokerId>,
    /// Data version of the partition's state node.
    pub partition_epoch: i32,
    pub replicas: Vec<BrokerId>,
    /// The partition never existed before: its log may be made.
    pub is_new: bool,
}

/// What clients are to be told about the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateMetadata {
    pub sender: Sender,
    /// Changed topics; one that is not named stays as it was.
    pub topics: Vec<UpdateMetadataTopic>,
    /// All live brokers, always.
    pub live_brokers: Vec<BrokerImage>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateMetadataTopic {
    pub name: Arc<str>,
    pub id: TopicId,
    pub partitions: Vec<UpdateMetadataPartition>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateMetadataPartition {
    pub partition: i32,
    /// [`LEADER_DURING_DELETE`] takes the partition out of the image.
    pub leader: BrokerId,
    pub leader_epoch: LeaderEpoch,
    pub isr: Vec<BrokerId>,
    pub partition_epoch: i32,
    pub replicas: Vec<BrokerId>,
    pub offline_replicas: Vec<BrokerId>,
}

/// Which replicas this broker is to give up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopReplica {
    pub sender: Sender,
    pub topics: Vec<StopReplicaTopic>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopReplicaTopic {
    pub name: Arc<str>,
    pub partitions: Vec<StopReplicaPartition>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopReplicaPartition {
    pub partition: i32,
    /// -1: unknown, accepted. [`EPOCH_DURING_DELETE`]: stronger than any.
    pub leader_epoch: LeaderEpoch,
    /// Also remove the log.
    pub delete: bool,
}

/// What a controller tells one broker at once. The replicas' part is done before the image of the cluster changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BrokerInputs {
    pub leader_and_isr: Option<LeaderAndIsr>,
    pub stop_replica: Option<StopReplica>,
    pub update_metadata: Option<UpdateMetadata>,
}

/// A live broker as clients reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerImage {
    pub id: BrokerId,
    pub endpoints: Vec<Endpoint>,
    pub rack: Option<Arc<str>>,
}

impl BrokerImage {
    /// Where clients of this listener reach it.
    pub fn endpoint(&self, listener: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| &*endpoint.listener == listener)
    }
}
