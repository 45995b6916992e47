//! The seam between metadata and shards: what shards are told, and what they say back.
//!
//! For each change a shard gets the LeaderAndIsr and StopReplica that concern its partitions and the Configs that have
//! changed, then the image that shows the change; all carry the image's version. When it has done what came first (logs
//! open, replicas gone; those of a log directory that hangs come later) and reads that image, it says Applied with the
//! version, which stands for all lower ones too. Inputs of a shard stay in order.

#![forbid(unsafe_code)]

use std::sync::Arc;

use crate::base::ids::{BrokerId, LeaderEpoch, ShardId, TopicId, TopicPartition};
use crate::config::TopicConfig;

use super::image::ClusterImage;
use super::proposal::{AnswerFn, Proposal};

/// The way to the shards' queues of inputs.
pub trait ShardSink: 'static {
    fn shard_count(&self) -> u16;

    /// How many inputs a shard's queue takes now. It only grows while nothing is sent.
    fn room(&self, shard: ShardId) -> usize;

    /// Never waits.
    ///
    /// # Panics
    /// There was no room.
    fn send(&self, shard: ShardId, input: ShardInput);
}

/// Metadata to shard.
#[derive(Clone, Debug)]
pub enum ShardInput {
    /// Replicas this shard is to run; open or make their logs. A replica it runs already takes the new epoch.
    LeaderAndIsr { partitions: Vec<LocalPartition>, image_version: u64 },
    /// Replicas to give up; with `true` also delete the log, be it open or not, and it is no error if there is none.
    StopReplica { partitions: Vec<(TopicPartition, bool)>, image_version: u64 },
    /// Topics whose settings have changed: open logs and partitions live by them from now on.
    Configs { configs: Arc<[(Arc<str>, Arc<TopicConfig>)]>, image_version: u64 },
    /// What to read from now on. Ask for Applied.
    Image(Arc<ClusterImage>),
}

/// A replica that lives on the shard that is told of it.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalPartition {
    pub topic: Arc<str>,
    pub id: TopicId,
    pub partition: i32,
    pub leader: BrokerId,
    pub leader_epoch: LeaderEpoch,
    pub isr: Vec<BrokerId>,
    pub replicas: Vec<BrokerId>,
    pub partition_epoch: i32,
    pub is_new: bool,
    pub config: Arc<TopicConfig>,
}

/// All that reaches the metadata node.
pub enum MetadataInput {
    Proposal {
        proposal: Proposal,
        answer: AnswerFn,
    },
    /// From shards, see the module's head.
    Applied {
        shard: ShardId,
        image_version: u64,
    },
    /// From shards, before the Applied of the version that told them to run these replicas: their logs can't be opened
    /// (KAFKA_STORAGE_ERROR).
    Offline {
        partitions: Vec<TopicPartition>,
    },
}
