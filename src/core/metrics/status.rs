//! What a shard tells of itself when it is asked: what would cost too much to count all the time.

#![forbid(unsafe_code)]

use std::sync::Arc;

use crate::base::budget::Budget;
use crate::base::ids::{LeaderEpoch, Offset};

/// How much of a bounded thing is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundUse {
    /// As in `/metrics`, unit included: `_now`, `_max` and `_waits_total` follow.
    pub name: &'static str,
    pub help: &'static str,
    pub now: u64,
    pub max: u64,
    /// How often somebody had to wait for room, where that is counted.
    pub waits_total: Option<u64>,
}

impl BoundUse {
    pub fn of_budget(name: &'static str, help: &'static str, budget: &Budget) -> BoundUse {
        let (now, max) = (budget.held(), budget.bytes_max());
        BoundUse { name, help, now, max, waits_total: Some(budget.waits()) }
    }

    /// The same of several alike, together.
    pub fn plus(self, other: BoundUse) -> BoundUse {
        let waits_total = self.waits_total.zip(other.waits_total).map(|(one, other)| one + other);
        BoundUse {
            now: self.now.saturating_add(other.now),
            max: self.max.saturating_add(other.max),
            waits_total,
            ..self
        }
    }
}

/// One replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionStatus {
    pub topic: Arc<str>,
    pub partition: i32,
    pub size_bytes: u64,
    pub log_start_offset: Offset,
    pub log_end_offset: Offset,
    pub high_watermark: Offset,
    pub last_stable_offset: Offset,
    pub leader_epoch: LeaderEpoch,
}

/// What one shard has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardStatus {
    pub bounds: Vec<BoundUse>,
    /// Replicas whose logs are open, and those whose are not.
    pub partitions_online: u64,
    pub partitions_offline: u64,
    /// Bytes of all logs, by directory.
    pub log_dir_bytes: Vec<u64>,
    /// Only if they were asked for: those whose logs are open.
    pub partitions: Vec<PartitionStatus>,
}
