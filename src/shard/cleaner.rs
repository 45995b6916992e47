//! The log cleaner: the dirtiest compacted log first, so many at once in the whole process as `log.cleaner.threads`
//! says (Kafka 3.9 `LogCleaner.CleanerThread`).
//!
//! Each shard looks for the dirtiest of its own logs in each directory, and waits for its turn among the others, which
//! comes in the order of asking; Kafka compares the logs of all. What takes time runs on work threads and the
//! directories' helpers.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::executor::yield_now;
use crate::local::Local;
use crate::partition::Partition;
use crate::partition::clean::{CleanOutcome, CleanerShare};
use crate::platform::{Clock, Platform};
use crate::storage::compaction::CleanerBounds;

/// Logs that are looked at before others get their turn.
const LOGS_A_TURN: usize = 64;

/// Cleanings that may run at once, of all shards: as many as `log.cleaner.threads` says when one begins. Whoever waits has
/// its turn in the order of asking.
#[derive(Clone, Debug, Default)]
pub struct CleanerSlots(Arc<Mutex<Running>>);

#[derive(Debug, Default)]
struct Running {
    count: u32,
    next_ticket: u64,
    waiting: BTreeMap<u64, Waker>,
}

/// One of them, given back by drop.
struct Slot(CleanerSlots);

/// A place in the queue, left by drop.
struct Ticket<'a> {
    slots: &'a CleanerSlots,
    number: u64,
}

impl CleanerSlots {
    fn running(&self) -> MutexGuard<'_, Running> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits behind all who wait already.
    async fn take(&self, threads: impl Fn() -> u32) -> Slot {
        let number = {
            let mut running = self.running();
            running.next_ticket += 1;
            running.next_ticket
        };
        let ticket = Ticket { slots: self, number };
        poll_fn(|context| {
            let mut running = self.running();
            running.waiting.insert(ticket.number, context.waker().clone());
            let is_first = running.waiting.first_key_value().is_some_and(|(first, _)| *first == ticket.number);
            if is_first && running.count < threads().max(1) {
                running.count += 1;
                return Poll::Ready(());
            }
            Poll::Pending
        })
        .await;
        drop(ticket);
        Slot(self.clone())
    }

    fn wake_first(&self) {
        if let Some((_, waker)) = self.running().waiting.first_key_value() {
            waker.wake_by_ref();
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.slots.running().waiting.remove(&self.number);
        self.slots.wake_first();
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.running().count -= 1;
        self.0.wake_first();
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
fn settings<P: Platform>(local: &Rc<Local<P>>) -> CleanerSettings {
    let dynamic = local.dynamic();
    let cleanings = u64::from(dynamic.log_cleaner_threads);
    CleanerSettings {
        is_enabled: local.config.log_cleaner_enable && cleanings > 0,
        backoff: Duration::from_millis(dynamic.log_cleaner_backoff_ms),
        share: CleanerShare {
            bounds: CleanerBounds::share(
                dynamic.log_cleaner_dedupe_buffer_size,
                dynamic.log_cleaner_io_buffer_load_factor,
                u64::from(dynamic.log_cleaner_io_buffer_size),
                cleanings,
            ),
            bytes_per_second: dynamic.log_cleaner_io_max_bytes_per_second / cleanings.max(1) as f64,
        },
    }
}

/// A task for one directory, until that is offline: one that hangs holds up the beginnings of no other's logs.
pub async fn keep<P: Platform>(log_dir: usize, local: Rc<Local<P>>, slots: CleanerSlots) {
    let clock = local.platform.clock().clone();
    let mut uncleanable = 0;
    while !local.is_stopping() && !local.log_dirs.all()[log_dir].is_offline() {
        let settings = settings(&local);
        let is_ready = settings.is_enabled && local.log_dirs.is_loaded();
        if !is_ready || !run(&local, log_dir, &slots, settings.share, &mut uncleanable).await {
            // A pause of nothing would keep the shard from all else.
            let pause = settings.backoff.max(Duration::from_millis(1));
            clock.sleep_until(clock.now() + pause).await;
        }
    }
}

/// One round: the dirtiest log is cleaned, and the beginnings of all compacted logs are looked at. Whether one was
/// cleaned.
async fn run<P: Platform>(
    local: &Rc<Local<P>>,
    log_dir: usize,
    slots: &CleanerSlots,
    share: CleanerShare,
    uncleanable: &mut u64,
) -> bool {
    let mut compacted = Vec::new();
    let look = |partition: &Rc<Partition<P>>| {
        if partition.log_dir_index() == log_dir && partition.config().cleanup_policy.compact {
            compacted.push(Rc::clone(partition));
        }
    };
    local.partitions.each(look).await;
    let mut cleaned = false;
    if dirtiest(&compacted).await.is_some() {
        let _slot = slots.take(|| local.dynamic().log_cleaner_threads).await;
        // It may have taken a while.
        if let Some(partition) = dirtiest(&compacted).await {
            let outcome = partition.clean(share).await;
            let counters = &local.counters;
            match outcome {
                CleanOutcome::Cleaned { bytes_read, bytes_written, undecodable_batches } => {
                    counters.cleaner_runs_total.add(1);
                    counters.cleaner_read_bytes_total.add(bytes_read);
                    counters.cleaner_written_bytes_total.add(bytes_written);
                    counters.undecodable_batches_total.add(undecodable_batches);
                    cleaned = true;
                }
                CleanOutcome::NotNow => {}
            }
        }
    }
    let before = std::mem::replace(uncleanable, compacted.iter().filter(|log| log.is_uncleanable()).count() as u64);
    local.counters.uncleanable_partitions_now.add(*uncleanable);
    local.counters.uncleanable_partitions_now.subtract(before);
    for (index, partition) in compacted.iter().enumerate() {
        if index % LOGS_A_TURN == LOGS_A_TURN - 1 {
            yield_now().await;
        }
        if local.is_stopping() {
            break;
        }
        if !partition.is_uncleanable() {
            let count = partition.retain().await;
            local.counters.segments_deleted_total.add(count as u64);
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

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;
    use crate::executor::{Executor, NoDoorbell};

    #[test]
    fn cleanings_begin_in_the_order_of_asking_and_only_so_many_at_once() {
        let (executor, slots) = (Executor::new(NoDoorbell), CleanerSlots::default());
        let (threads, held) = (Rc::new(Cell::new(2)), Rc::new(RefCell::new(Vec::new())));
        for number in 0..4 {
            let (slots, threads, held) = (slots.clone(), Rc::clone(&threads), Rc::clone(&held));
            executor.spawn(async move {
                let slot = slots.take(|| threads.get()).await;
                held.borrow_mut().push((number, slot));
            });
        }
        let begun = || held.borrow().iter().map(|(number, _)| *number).collect::<Vec<_>>();
        executor.run_ready();
        assert_eq!(begun(), [0, 1]);
        held.borrow_mut().remove(0);
        executor.run_ready();
        assert_eq!(begun(), [1, 2]);
        threads.set(1);
        held.borrow_mut().remove(0);
        executor.run_ready();
        assert_eq!(begun(), [2], "fewer threads now");
        held.borrow_mut().clear();
        executor.run_ready();
        assert_eq!(begun(), [3]);
    }
}
