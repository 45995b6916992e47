//! What must hold after every step of a shard, whatever the dice say. A node has the world look at it by itself, in every
//! test; each further invariant is one more thing that [`Invariants::check`] looks at.
//!
//! Today: a leader's high watermark never falls within a process and a leader epoch.

#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::platform::SimPlatform;
use crate::base::ids::{LeaderEpoch, Offset, TopicId, TopicPartition};
use crate::partition::partition::ANY_EPOCH;
use crate::shard::shard::Shard;

/// Of one shard, for the life of its process.
#[derive(Default)]
pub struct Invariants {
    high_watermarks: RefCell<HighWatermarks>,
}

impl Invariants {
    /// # Panics
    /// One of them does not hold.
    pub fn check(&self, shard: &Shard<SimPlatform>) {
        for partition in shard.local().partitions.all() {
            if let Ok(offsets) = partition.leader_offsets(ANY_EPOCH) {
                let key = (partition.topic_partition.clone(), partition.topic_id);
                let seen = self.high_watermarks.borrow_mut().saw(key, partition.leader_epoch(), offsets.high_watermark);
                if let Err(Fall { from }) = seen {
                    panic!(
                        "{}: the high watermark fell from {from} to {}",
                        partition.topic_partition, offsets.high_watermark
                    );
                }
            }
        }
    }
}

/// The last seen of each leader.
#[derive(Default)]
struct HighWatermarks(BTreeMap<(TopicPartition, TopicId), (LeaderEpoch, Offset)>);

#[derive(Debug, PartialEq, Eq)]
struct Fall {
    from: Offset,
}

impl HighWatermarks {
    fn saw(&mut self, of: (TopicPartition, TopicId), epoch: LeaderEpoch, high_watermark: Offset) -> Result<(), Fall> {
        match self.0.insert(of, (epoch, high_watermark)) {
            Some((before, from)) if before == epoch && high_watermark < from => Err(Fall { from }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fall_is_seen_within_an_epoch_and_not_over_a_change_of_it_or_of_the_topic() {
        let partition = |id| (TopicPartition { topic: "t".into(), partition: 0 }, TopicId([id; 16]));
        let mut seen = HighWatermarks::default();
        for (id, epoch, high_watermark) in [(1, 0, 5), (1, 0, 5), (1, 0, 9), (1, 1, 7), (2, 1, 0), (1, 1, 8)] {
            assert_eq!(seen.saw(partition(id), epoch, high_watermark), Ok(()));
        }
        assert_eq!(seen.saw(partition(1), 1, 7), Err(Fall { from: 8 }));
    }
}
