//! ISR and high watermark arithmetic, pure (Kafka 3.9 `Partition.maybeIncrementLeaderHW`).

use std::collections::BTreeMap;

use crate::base::ids::{BrokerId, Offset};

/// What the leader knows of its partition's replicas.
#[derive(Clone, Debug)]
pub struct ReplicaSet {
    local: BrokerId,
    isr: Vec<BrokerId>,
    /// Log end offsets, the local one included; a replica not heard of has 0.
    log_ends: BTreeMap<BrokerId, Offset>,
    high_watermark: Offset,
}

/// How many replicas must be in sync for acks=all: `min.insync.replicas`, but never more than there are (Kafka 3.9
/// `Partition.effectiveMinIsr`, KIP-966). Where every replica is in sync, every producer is served.
pub fn effective_min_isr(min_insync_replicas: i32, replica_count: usize) -> usize {
    usize::try_from(min_insync_replicas).unwrap_or(1).min(replica_count)
}

impl ReplicaSet {
    /// A leader's view at the beginning of its reign. Followers must be heard of first, so with others in the ISR the
    /// high watermark starts at `high_watermark` and stays until they fetch.
    pub fn new(local: BrokerId, isr: Vec<BrokerId>, log_end: Offset, high_watermark: Offset) -> ReplicaSet {
        let mut set = ReplicaSet { local, isr, log_ends: BTreeMap::from([(local, log_end)]), high_watermark };
        set.advance();
        set
    }

    pub fn isr_count(&self) -> usize {
        self.isr.len()
    }

    /// Offsets below are on every replica of the ISR.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// The ISR has changed; says whether the high watermark has.
    pub fn set_isr(&mut self, isr: Vec<BrokerId>) -> bool {
        self.isr = isr;
        self.advance()
    }

    /// The local log end has moved; says whether the high watermark has.
    pub fn set_local_log_end(&mut self, log_end: Offset) -> bool {
        self.log_ends.insert(self.local, log_end);
        self.advance()
    }

    /// The high watermark is the least log end in the ISR, and never falls.
    fn advance(&mut self) -> bool {
        let log_end = |broker: &BrokerId| self.log_ends.get(broker).copied().unwrap_or(0);
        let least = self.isr.iter().map(log_end).min().unwrap_or(0);
        let moved = least > self.high_watermark;
        self.high_watermark = self.high_watermark.max(least);
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_replicas_must_be_in_sync_than_there_are() {
        for (min_insync_replicas, replica_count, least) in
            [(1, 1, 1), (2, 1, 1), (i32::MAX, 1, 1), (2, 3, 2), (3, 3, 3), (4, 3, 3), (1, 3, 1)]
        {
            assert_eq!(effective_min_isr(min_insync_replicas, replica_count), least, "{min_insync_replicas}");
        }
    }

    #[test]
    fn alone_in_the_isr_the_high_watermark_is_the_log_end() {
        let mut set = ReplicaSet::new(BrokerId(1), vec![BrokerId(1)], 10, 0);
        assert_eq!(set.high_watermark(), 10);
        assert!(set.set_local_log_end(15));
        assert!(!set.set_local_log_end(15));
        assert_eq!(set.high_watermark(), 15);
    }

    #[test]
    fn a_follower_in_the_isr_that_was_not_heard_of_holds_it_back_and_it_never_falls() {
        let mut set = ReplicaSet::new(BrokerId(1), vec![BrokerId(1), BrokerId(2)], 10, 4);
        assert_eq!(set.high_watermark(), 4);
        assert!(!set.set_local_log_end(20));
        assert!(set.set_isr(vec![BrokerId(1)]));
        assert_eq!(set.high_watermark(), 20);
        assert!(!set.set_isr(vec![BrokerId(1), BrokerId(2)]));
        assert_eq!(set.high_watermark(), 20);
    }
}
