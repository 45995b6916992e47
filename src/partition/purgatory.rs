//! Who waits for an offset of one partition: delayed produces (acks=all) for the high watermark, delayed fetches for
//! bytes below what they may see, which is the high watermark for consumers and the log end for replicas.
//!
//! A delayed produce is completed exactly once: by the high watermark, by the end of the leader's reign, or by its
//! caller's timeout, which drops the receiver. A delayed fetch lives on the shard of its connection; here is only the
//! [`Watch`] it left, which counts the bytes that come and is fired once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::task::Poll;

use atomic_waker::AtomicWaker;
use futures_channel::oneshot;

use super::append::AppendFailure;
use super::partition::{Isolation, Offsets};
use crate::base::ids::Offset;

/// How many may gather that wait for the same before the dead ones among them are looked for.
const WAITERS_BEFORE_PRUNING: usize = 64;

/// Tells a delayed fetch, on whichever shard, that its partitions have enough for it, or one of them something to tell.
#[derive(Debug)]
pub struct Watch {
    fired: AtomicBool,
    /// Bytes that all its partitions together lack yet.
    missing: AtomicI64,
    waker: AtomicWaker,
}

impl Watch {
    /// Of a fetch that wants so many bytes.
    pub fn new(bytes_min: u64) -> Watch {
        let missing = i64::try_from(bytes_min).unwrap_or(i64::MAX);
        Watch { fired: AtomicBool::new(false), missing: AtomicI64::new(missing), waker: AtomicWaker::new() }
    }

    /// There are so many bytes more; fires it if none are missing any more.
    pub fn grow(&self, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let before = self.missing.fetch_sub(bytes, Ordering::AcqRel);
        if before.saturating_sub(bytes) <= 0 {
            self.fire();
        }
    }

    pub fn has_fired(&self) -> bool {
        self.fired.load(Ordering::Acquire)
    }

    /// Resolves when it has been fired.
    pub async fn fired(&self) {
        std::future::poll_fn(|context| {
            self.waker.register(context.waker());
            if self.has_fired() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    pub fn fire(&self) {
        self.fired.store(true, Ordering::Release);
        self.waker.wake();
    }
}

/// A delayed fetch at one of its partitions.
struct Watcher {
    watch: Weak<Watch>,
    isolation: Isolation,
    /// What it may see ends here; only a movement of that is news.
    ceiling: Offset,
    /// Bytes of the log up to the ceiling, counted from when it was opened. `None`: the ceiling is not the log end, so
    /// there is no telling.
    bytes: Option<u64>,
    /// Bytes of this partition that may count yet.
    room: u64,
}

impl Watcher {
    /// Takes note of where its ceiling is now, and whether that is the log end; whether the watch is to stay.
    fn moved(&mut self, ceiling: Offset, log_end: Offset, log_bytes: u64) -> bool {
        let Some(watch) = self.watch.upgrade() else { return false };
        if ceiling == self.ceiling {
            return true;
        }
        let Some(bytes) = self.bytes else {
            watch.fire();
            return false;
        };
        let grown = log_bytes.saturating_sub(bytes).min(self.room);
        self.ceiling = ceiling;
        self.bytes = (ceiling == log_end).then_some(log_bytes);
        self.room -= grown;
        watch.grow(grown);
        !watch.has_fired()
    }
}

/// Delayed fetches that wait for the same.
#[derive(Default)]
struct Watchers {
    all: Vec<Watcher>,
    prune_at: usize,
}

impl Watchers {
    fn push(&mut self, watcher: Watcher) {
        if self.all.len() >= self.prune_at.max(WAITERS_BEFORE_PRUNING) {
            self.all.retain(|watcher| watcher.watch.strong_count() > 0);
            self.prune_at = self.all.len() * 2;
        }
        self.all.push(watcher);
    }

    fn count(&self) -> usize {
        self.all.iter().filter(|watcher| watcher.watch.strong_count() > 0).count()
    }

    fn fire(&mut self) {
        for watcher in self.all.drain(..) {
            if let Some(watch) = watcher.watch.upgrade() {
                watch.fire();
            }
        }
    }
}

type Replicated = oneshot::Sender<Result<(), AppendFailure>>;

/// Delayed produces, by the last offset of their batches.
#[derive(Default)]
struct Produces {
    by_offset: BTreeMap<Offset, Vec<Replicated>>,
    count: usize,
    prune_at: usize,
}

impl Produces {
    fn push(&mut self, last_offset: Offset, produce: Replicated) {
        if self.count >= self.prune_at.max(WAITERS_BEFORE_PRUNING) {
            self.by_offset.retain(|_, produces| {
                produces.retain(|produce| !produce.is_canceled());
                !produces.is_empty()
            });
            self.count = self.by_offset.values().map(Vec::len).sum();
            self.prune_at = self.count * 2;
        }
        self.by_offset.entry(last_offset).or_default().push(produce);
        self.count += 1;
    }

    fn complete_below(&mut self, offset: Offset, outcome: &Result<(), AppendFailure>) {
        let still_waiting = self.by_offset.split_off(&offset);
        let done = std::mem::replace(&mut self.by_offset, still_waiting);
        for produce in done.into_values().flatten() {
            self.count -= 1;
            // It may have given up.
            let _ = produce.send(outcome.clone());
        }
    }
}

/// Who waits, by what they wait for: the high watermark (delayed produces, fetches of consumers), or the log end (fetches
/// of replicas). The end of a reign concerns them all.
#[derive(Default)]
pub struct Purgatory {
    produces: Produces,
    consumers: Watchers,
    replicas: Watchers,
}

impl Purgatory {
    /// Resolves when the high watermark has passed `last_offset`.
    pub fn wait_for(&mut self, last_offset: Offset) -> oneshot::Receiver<Result<(), AppendFailure>> {
        let (sender, receiver) = oneshot::channel();
        self.produces.push(last_offset, sender);
        receiver
    }

    /// Has `watch` told of bytes that come below what `isolation` lets see, up to `room` of them; the partition is at
    /// `offsets` now, with `log_bytes` since the log was opened.
    pub fn watch(&mut self, watch: &Arc<Watch>, isolation: Isolation, room: u64, offsets: &Offsets, log_bytes: u64) {
        let ceiling = isolation.ceiling(offsets);
        let bytes = (ceiling == offsets.log_end).then_some(log_bytes);
        let watcher = Watcher { watch: Arc::downgrade(watch), isolation, ceiling, bytes, room };
        match isolation {
            Isolation::ReadUncommitted | Isolation::ReadCommitted => self.consumers.push(watcher),
            Isolation::LogEnd => self.replicas.push(watcher),
        }
    }

    /// Fetches that wait here still.
    pub fn watch_count(&self) -> usize {
        self.consumers.count() + self.replicas.count()
    }

    /// The high watermark, and with it perhaps the last stable offset, has moved: completes what waited for it.
    pub fn high_watermark_moved(&mut self, offsets: &Offsets, log_bytes: u64) {
        self.produces.complete_below(offsets.high_watermark, &Ok(()));
        self.consumers
            .all
            .retain_mut(|watcher| watcher.moved(watcher.isolation.ceiling(offsets), offsets.log_end, log_bytes));
    }

    /// The log end has moved: tells the fetches of replicas.
    pub fn log_end_moved(&mut self, log_end: Offset, log_bytes: u64) {
        #[cfg(test)]
        if planted::IGNORE_LOG_END.get() {
            return;
        }
        self.replicas.all.retain_mut(|watcher| watcher.moved(log_end, log_end, log_bytes));
    }

    /// Nothing that waits can be promised any more.
    pub fn interrupt(&mut self, failure: &AppendFailure) {
        self.produces.complete_below(Offset::MAX, &Err(failure.clone()));
        self.fire_watches();
    }

    /// Has every delayed fetch look again, and leave its watch again if it still waits.
    pub fn fire_watches(&mut self) {
        self.consumers.fire();
        self.replicas.fire();
    }
}

/// The planted bug that the simulator must catch.
#[cfg(test)]
pub(crate) mod planted {
    use std::cell::Cell;

    thread_local! {
        /// Fetches of replicas are not told that the log end has moved.
        pub(crate) static IGNORE_LOG_END: Cell<bool> = const { Cell::new(false) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(high_watermark: Offset, last_stable: Offset) -> Offsets {
        Offsets { log_start: 0, high_watermark, last_stable, log_end: high_watermark }
    }

    #[test]
    fn a_delayed_produce_is_completed_when_the_high_watermark_passes_its_last_offset() {
        let mut purgatory = Purgatory::default();
        let mut early = purgatory.wait_for(4);
        let mut late = purgatory.wait_for(5);
        purgatory.high_watermark_moved(&at(5, 5), 0);
        assert!(matches!(early.try_recv(), Ok(Some(Ok(())))));
        assert!(matches!(late.try_recv(), Ok(None)));
        purgatory.interrupt(&AppendFailure::Interrupted);
        assert!(matches!(late.try_recv(), Ok(Some(Err(AppendFailure::Interrupted)))));
    }

    #[test]
    fn a_fetch_of_a_replica_is_told_of_the_log_end_while_the_high_watermark_stands_still_and_a_consumers_is_not() {
        let mut purgatory = Purgatory::default();
        let (consumer, replica) = (Arc::new(Watch::new(1)), Arc::new(Watch::new(1)));
        let now = Offsets { log_end: 7, ..at(5, 5) };
        purgatory.watch(&consumer, Isolation::ReadUncommitted, 1000, &now, 100);
        purgatory.watch(&replica, Isolation::LogEnd, 1000, &now, 100);
        purgatory.log_end_moved(8, 150);
        assert!(replica.has_fired() && !consumer.has_fired());
        purgatory.high_watermark_moved(&Offsets { log_end: 8, ..at(6, 6) }, 150);
        assert!(consumer.has_fired());
    }

    #[test]
    fn produces_that_were_given_up_do_not_gather() {
        let mut purgatory = Purgatory::default();
        let _waits = purgatory.wait_for(3);
        (0..1000).for_each(|last_offset| drop(purgatory.wait_for(last_offset)));
        assert!(purgatory.produces.count <= WAITERS_BEFORE_PRUNING + 1);
        purgatory.interrupt(&AppendFailure::Interrupted);
        assert_eq!((purgatory.produces.count, purgatory.produces.by_offset.len()), (0, 0));
    }

    #[test]
    fn a_watch_fires_when_its_bytes_have_come_to_its_partitions_together_and_each_counts_up_to_its_room() {
        let (mut one, mut other) = (Purgatory::default(), Purgatory::default());
        let watch = Arc::new(Watch::new(100));
        one.watch(&watch, Isolation::ReadUncommitted, 60, &at(5, 5), 1000);
        other.watch(&watch, Isolation::ReadUncommitted, 1000, &at(0, 0), 0);
        one.high_watermark_moved(&at(6, 6), 1050);
        one.high_watermark_moved(&at(7, 7), 2000);
        assert!(!watch.has_fired() && one.watch_count() == 1);
        other.high_watermark_moved(&at(1, 1), 39);
        assert!(!watch.has_fired());
        other.high_watermark_moved(&at(2, 2), 40);
        assert!(watch.has_fired() && other.watch_count() == 0);
    }

    #[test]
    fn a_watch_of_a_read_committed_fetch_fires_when_the_last_stable_offset_moves() {
        let mut purgatory = Purgatory::default();
        let watch = Arc::new(Watch::new(1));
        purgatory.watch(&watch, Isolation::ReadCommitted, 1000, &at(5, 3), 100);
        purgatory.high_watermark_moved(&at(9, 3), 900);
        assert!(!watch.has_fired());
        purgatory.high_watermark_moved(&at(10, 10), 950);
        assert!(watch.has_fired());
    }

    #[test]
    fn an_interrupted_partition_fires_every_watch_and_dead_ones_do_not_gather() {
        let mut purgatory = Purgatory::default();
        let watch = Arc::new(Watch::new(1 << 40));
        purgatory.watch(&watch, Isolation::ReadUncommitted, 1, &at(0, 0), 0);
        for _ in 0..1000 {
            purgatory.watch(&Arc::new(Watch::new(1)), Isolation::ReadUncommitted, 1, &at(0, 0), 0);
        }
        assert!(purgatory.consumers.all.len() <= WAITERS_BEFORE_PRUNING + 1);
        assert_eq!(purgatory.watch_count(), 1);
        purgatory.interrupt(&AppendFailure::Interrupted);
        assert!(watch.has_fired() && purgatory.consumers.all.is_empty());
    }
}
