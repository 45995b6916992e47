//! The log cleaner: the dirtiest compacted log first, so many at once in the whole process as `log.cleaner.threads`
//! says (Kafka 3.9 `LogCleaner.CleanerThread`).
//!
//! Each shard looks for the dirtiest of its own logs in each directory, and waits for its turn among the others, which
//! comes in the order of asking; Kafka compares the logs of all. What takes time runs on work threads and the
//! directories' helpers.

#![forbid(unsafe_code)]

use std::rc::Rc;
use std::time::Duration;

use async_channel::{Receiver, Sender};

use crate::config::Config;
use crate::executor::yield_now;
use crate::handlers::Context;
use crate::partition::Partition;
use crate::partition::clean::{CleanOutcome, CleanerShare};
use crate::platform::{Clock, Platform};
use crate::storage::compaction::CleanerBounds;

/// Logs that are looked at before others get their turn.
const LOGS_A_TURN: usize = 64;

/// Cleanings that may run at once, of all shards.
#[derive(Clone, Debug)]
pub struct CleanerSlots(Sender<()>, Receiver<()>);

/// One of them, given back by drop.
struct Slot(Receiver<()>);

impl CleanerSlots {
    pub fn new(count: u32) -> CleanerSlots {
        let (sender, receiver) = async_channel::bounded(usize::try_from(count).unwrap_or(usize::MAX).max(1));
        CleanerSlots(sender, receiver)
    }

    /// Waits behind all who wait already.
    async fn take(&self) -> Slot {
        // The queue lives as long as this handle of both of its ends.
        let _ = self.0.send(()).await;
        Slot(self.1.clone())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let _ = self.0.try_recv();
    }
}

/// What the cleaner goes by.
struct CleanerSettings {
    /// `log.cleaner.enable`, and there are threads.
    is_enabled: bool,
    backoff: Duration,
    share: CleanerShare,
}

/// The only place that reads them: once per round.
fn settings(config: &Config) -> CleanerSettings {
    let cleaner = &config.log_cleaner;
    let cleanings = u64::from(cleaner.threads);
    CleanerSettings {
        is_enabled: cleaner.enable && cleaner.threads > 0,
        backoff: Duration::from_millis(cleaner.backoff_ms),
        share: CleanerShare {
            bounds: CleanerBounds::share(
                cleaner.dedupe_buffer_size,
                cleaner.io_buffer_load_factor,
                u64::from(cleaner.io_buffer_size),
                cleanings,
            ),
            bytes_per_second: cleaner.io_max_bytes_per_second / cleanings.max(1) as f64,
        },
    }
}

/// A task for one directory, until that is offline: one that hangs holds up the beginnings of no other's logs.
pub async fn keep<P: Platform>(log_dir: usize, context: Rc<Context<P>>, slots: CleanerSlots) {
    let clock = context.platform.clock().clone();
    let mut uncleanable = 0;
    while !context.is_stopping() && !context.log_dirs.all()[log_dir].is_offline() {
        let settings = settings(&context.config);
        let is_ready = settings.is_enabled && context.log_dirs.is_loaded();
        if !is_ready || !run(&context, log_dir, &slots, settings.share, &mut uncleanable).await {
            // A pause of nothing would keep the shard from all else.
            let pause = settings.backoff.max(Duration::from_millis(1));
            clock.sleep_until(clock.now() + pause).await;
        }
    }
}

/// One round: the dirtiest log is cleaned, and the beginnings of all compacted logs are looked at. Whether one was
/// cleaned.
async fn run<P: Platform>(
    context: &Rc<Context<P>>,
    log_dir: usize,
    slots: &CleanerSlots,
    share: CleanerShare,
    uncleanable: &mut u64,
) -> bool {
    let mut compacted = context.all_partitions();
    compacted.retain(|partition| partition.log_dir_index() == log_dir && partition.config().cleanup_policy.compact);
    let mut cleaned = false;
    if dirtiest(&compacted).await.is_some() {
        let _slot = slots.take().await;
        // It may have taken a while.
        if let Some(partition) = dirtiest(&compacted).await {
            let outcome = partition.clean(share).await;
            let counters = &context.counters;
            match outcome {
                CleanOutcome::Cleaned { bytes_read, bytes_written } => {
                    counters.cleaner_runs_total.add(1);
                    counters.cleaner_read_bytes_total.add(bytes_read);
                    counters.cleaner_written_bytes_total.add(bytes_written);
                    cleaned = true;
                }
                CleanOutcome::NotNow => {}
            }
        }
    }
    let before = std::mem::replace(uncleanable, compacted.iter().filter(|log| log.is_uncleanable()).count() as u64);
    context.counters.uncleanable_partitions_now.add(*uncleanable);
    context.counters.uncleanable_partitions_now.subtract(before);
    for (index, partition) in compacted.iter().enumerate() {
        if index % LOGS_A_TURN == LOGS_A_TURN - 1 {
            yield_now().await;
        }
        if context.is_stopping() {
            break;
        }
        if !partition.is_uncleanable() {
            let count = partition.retain().await;
            context.counters.segments_deleted_total.add(count as u64);
        }
    }
    cleaned
}

async fn dirtiest<P: Platform>(partitions: &[Rc<Partition<P>>]) -> Option<&Rc<Partition<P>>> {
    let mut dirtiest: Option<(f64, &Rc<Partition<P>>)> = None;
    for (index, partition) in partitions.iter().enumerate() {
        if index % LOGS_A_TURN == LOGS_A_TURN - 1 {
            yield_now().await;
        }
        if let Some(dirtiness) = partition.dirtiness_if_due().await
            && dirtiest.as_ref().is_none_or(|(ratio, _)| dirtiness.ratio() > *ratio)
        {
            dirtiest = Some((dirtiness.ratio(), partition));
        }
    }
    dirtiest.map(|(_, partition)| partition)
}
