//! Which shard of this process runs which local replica.
//!
//! A replica stays where it is for as long as the process holds it; a new one goes to the shard with the fewest.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::ids::ShardId;

pub struct Placement {
    topics: BTreeMap<Arc<str>, BTreeMap<i32, ShardId>>,
    /// Replicas per shard.
    counts: Vec<usize>,
}

impl Placement {
    /// # Panics
    /// Without shards.
    pub fn new(shard_count: u16) -> Placement {
        assert!(shard_count > 0, "a broker has at least one shard");
        Placement { topics: BTreeMap::new(), counts: vec![0; usize::from(shard_count)] }
    }

    pub fn shard_of(&self, topic: &str, partition: i32) -> Option<ShardId> {
        self.topics.get(topic)?.get(&partition).copied()
    }

    /// The replica's shard; chosen now if it has none yet.
    pub fn place(&mut self, topic: &Arc<str>, partition: i32) -> ShardId {
        if let Some(shard) = self.shard_of(topic, partition) {
            return shard;
        }
        let shard = self.least();
        self.counts[shard.index()] += 1;
        self.topics.entry(topic.clone()).or_default().insert(partition, shard);
        shard
    }

    /// Forgets the replica; gives the shard that ran it, or any if none did.
    pub fn remove(&mut self, topic: &str, partition: i32) -> ShardId {
        let Some(partitions) = self.topics.get_mut(topic) else { return self.least() };
        let Some(shard) = partitions.remove(&partition) else { return self.least() };
        if partitions.is_empty() {
            self.topics.remove(topic);
        }
        self.counts[shard.index()] -= 1;
        shard
    }

    /// Replicas per shard, for a metric.
    pub fn counts(&self) -> &[usize] {
        &self.counts
    }

    fn least(&self) -> ShardId {
        let (index, _) = self.counts.iter().enumerate().min_by_key(|(_, count)| **count).expect("at least one shard");
        ShardId(u16::try_from(index).expect("made for a u16 of shards"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_spread_evenly_and_stay_where_they_are() {
        let mut placement = Placement::new(3);
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        for partition in 0..7 {
            placement.place(&a, partition);
        }
        assert_eq!(placement.counts(), [3, 2, 2]);
        let kept = placement.shard_of("a", 3);
        for partition in 0..3 {
            assert!(placement.remove("a", partition).0 < 3);
        }
        for partition in 0..5 {
            placement.place(&b, partition);
        }
        assert_eq!(placement.counts(), [3, 3, 3]);
        assert_eq!(placement.shard_of("a", 3), kept);
        assert_eq!(placement.shard_of("a", 0), None);
        assert_eq!(placement.place(&a, 3), kept.unwrap());
    }
}
