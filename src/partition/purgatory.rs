//! Who waits for an offset of one partition: delayed produces (acks=all) for the high watermark, delayed fetches for
//! bytes below what they may see.
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

use super::partition::{Isolation, Offsets};
use crate::base::ids::Offset;

/// How many watches may gather before the dead ones among them are looked for.
const WATCHES_BEFORE_PRUNING: usize = 64;

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

/// The leader's reign has ended, or its log has failed: the batch may or may not survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted;

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
    /// Takes note of where the partition is now; whether the watch is to stay.
    fn moved(&mut self, offsets: &Offsets, log_bytes: u64) -> bool {
        let Some(watch) = self.watch.upgrade() else { return false };
        let ceiling = self.isolation.ceiling(offsets);
        if ceiling == self.ceiling {
            return true;
        }
        let Some(bytes) = self.bytes else {
            watch.fire();
            return false;
        };
        let grown = log_bytes.saturating_sub(bytes).min(self.room);
        self.ceiling = ceiling;
        self.bytes = (ceiling == offsets.log_end).then_some(log_bytes);
        self.room -= grown;
        watch.grow(grown);
        !watch.has_fired()
    }
}

#[derive(Default)]
pub struct Purgatory {
    produces: BTreeMap<Offset, Vec<oneshot::Sender<Result<(), Interrupted>>>>,
    watches: Vec<Watcher>,
    prune_at: usize,
}

impl Purgatory {
    /// Resolves when the high watermark has passed `last_offset`.
    pub fn wait_for(&mut self, last_offset: Offset) -> oneshot::Receiver<Result<(), Interrupted>> {
        let (sender, receiver) = oneshot::channel();
        self.produces.entry(last_offset).or_default().push(sender);
        receiver
    }

    /// Has `watch` told of bytes that come below what `isolation` lets see, up to `room` of them; the partition is at
    /// `offsets` now, with `log_bytes` since the log was opened.
    pub fn watch(&mut self, watch: &Arc<Watch>, isolation: Isolation, room: u64, offsets: &Offsets, log_bytes: u64) {
        if self.watches.len() >= self.prune_at.max(WATCHES_BEFORE_PRUNING) {
            self.watches.retain(|watcher| watcher.watch.strong_count() > 0);
            self.prune_at = self.watches.len() * 2;
        }
        let ceiling = isolation.ceiling(offsets);
        let bytes = (ceiling == offsets.log_end).then_some(log_bytes);
        self.watches.push(Watcher { watch: Arc::downgrade(watch), isolation, ceiling, bytes, room });
    }

    /// Fetches that wait here still.
    pub fn watch_count(&self) -> usize {
        self.watches.iter().filter(|watcher| watcher.watch.strong_count() > 0).count()
    }

    /// The high watermark, and with it perhaps the last stable offset, has moved: completes what waited for it.
    pub fn high_watermark_moved(&mut self, offsets: &Offsets, log_bytes: u64) {
        let still_waiting = self.produces.split_off(&offsets.high_watermark);
        let done = std::mem::replace(&mut self.produces, still_waiting);
        for sender in done.into_values().flatten() {
            let _ = sender.send(Ok(()));
        }
        self.watches.retain_mut(|watcher| watcher.moved(offsets, log_bytes));
    }

    /// Nothing that waits can be promised any more.
    pub fn interrupt(&mut self) {
        for sender in std::mem::take(&mut self.produces).into_values().flatten() {
            let _ = sender.send(Err(Interrupted));
        }
        self.fire_watches();
    }

    /// Has every delayed fetch look again, and leave its watch again if it still waits.
    pub fn fire_watches(&mut self) {
        for watcher in self.watches.drain(..) {
            if let Some(watch) = watcher.watch.upgrade() {
                watch.fire();
            }
        }
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
        assert_eq!(early.try_recv(), Ok(Some(Ok(()))));
        assert_eq!(late.try_recv(), Ok(None));
        purgatory.interrupt();
        assert_eq!(late.try_recv(), Ok(Some(Err(Interrupted))));
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
        assert!(purgatory.watches.len() <= WATCHES_BEFORE_PRUNING + 1);
        assert_eq!(purgatory.watch_count(), 1);
        purgatory.interrupt();
        assert!(watch.has_fired() && purgatory.watches.is_empty());
    }
}
