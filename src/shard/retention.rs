//! Expired segments go: a look at every log of a shard each `log.retention.check.interval.ms` (Kafka 3.9
//! `LogManager.cleanupLogs`).

#![forbid(unsafe_code)]

use std::rc::Rc;
use std::time::Duration;

use crate::executor::yield_now;
use crate::local::Local;
use crate::partition::Partition;
use crate::platform::{Clock, Platform};

/// Logs that are looked at before others get their turn.
const LOGS_A_TURN: usize = 64;

/// A task for one directory, until that is offline: one that hangs holds up no other. Idle producers of all its logs are
/// forgotten; segments of compacted logs are the cleaner's to look at.
pub async fn keep<P: Platform>(log_dir: usize, local: Rc<Local<P>>) {
    let clock = local.platform.clock().clone();
    let interval = Duration::from_millis(local.config.log_retention_check_interval_ms);
    let mut wait = Duration::from_millis(local.config.log_initial_task_delay_ms);
    loop {
        clock.sleep_until(clock.now() + wait).await;
        wait = interval;
        let mut partitions = Vec::new();
        let look = |partition: &Rc<Partition<P>>| {
            if partition.log_dir_index() == log_dir {
                partitions.push(Rc::clone(partition));
            }
        };
        local.partitions.each(look).await;
        for (index, partition) in partitions.into_iter().enumerate() {
            if index % LOGS_A_TURN == LOGS_A_TURN - 1 {
                yield_now().await;
            }
            if local.is_stopping() || local.log_dirs.all()[log_dir].is_offline() {
                return;
            }
            partition.expire_producers();
            if !partition.config().cleanup_policy.compact {
                let count = partition.retain().await;
                local.counters.segments_deleted_total.add(count as u64);
            }
        }
    }
}
