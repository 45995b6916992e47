//! What a shard runs, as far as the metadata knows, and what it has yet to be told when its queue was full.
//!
//! Each version is sent to a shard whole or not at all, so the last input of its queue is always an image, and the shard's
//! Applied of it says that there is room again. What could not be sent collapses: of each replica only its newest role and
//! whether an older one is to be given up before. So whatever a controller sends, what waits is bounded by the replicas.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::node::LocalPartition;
use crate::base::ids::TopicPartition;

/// One shard's part of the metadata.
#[derive(Default)]
pub struct ShardPart {
    /// The highest version it said Applied of.
    pub applied: u64,
    /// The replicas that it runs, or will.
    replicas: BTreeMap<TopicPartition, LocalPartition>,
    /// Replicas to give up of which it was not told, and whether their logs go; `None`: it was told all.
    untold: Option<BTreeMap<TopicPartition, bool>>,
}

impl ShardPart {
    pub fn is_behind(&self) -> bool {
        self.untold.is_some()
    }

    /// A version can't be sent: from now on all is sent anew.
    pub fn falls_behind(&mut self) {
        self.untold.get_or_insert_default();
    }

    pub fn lead(&mut self, partitions: &[LocalPartition]) {
        for local in partitions {
            let name = TopicPartition { topic: local.topic.clone(), partition: local.partition };
            self.replicas.insert(name, local.clone());
        }
    }

    /// With `true` the log goes too.
    pub fn stop(&mut self, partitions: &[(TopicPartition, bool)]) {
        for (name, delete) in partitions {
            self.replicas.remove(name);
            if let Some(untold) = &mut self.untold {
                *untold.entry(name.clone()).or_default() |= *delete;
            }
        }
    }

    /// What it is to give up, then what it is to run: all there is. It is not behind any more.
    pub fn all(&mut self) -> (Vec<(TopicPartition, bool)>, Vec<LocalPartition>) {
        let stops = self.untold.take().unwrap_or_default().into_iter().collect();
        (stops, self.replicas.values().cloned().collect())
    }
}
