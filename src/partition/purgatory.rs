//! Who waits for an offset of one partition: delayed produces (acks=all) for the high watermark, delayed fetches for
//! any movement.
//!
//! A delayed produce is completed exactly once: by the high watermark, by the end of the leader's reign, or by its
//! caller's timeout, which drops the receiver. A delayed fetch lives on the shard of its connection; here is only the
//! [`Watch`] it left, which is fired once and forgotten.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::Poll;

use atomic_waker::AtomicWaker;
use futures_channel::oneshot;

use crate::base::ids::Offset;

/// How many watches may gather before the dead ones among them are looked for.
const WATCHES_BEFORE_PRUNING: usize = 64;

/// Tells a delayed fetch, on whichever shard, that one of its partitions has moved.
#[derive(Debug, Default)]
pub struct Watch {
    fired: AtomicBool,
    waker: AtomicWaker,
}

impl Watch {
    /// Resolves when it has been fired.
    pub async fn fired(&self) {
        std::future::poll_fn(|context| {
            self.waker.register(context.waker());
            if self.fired.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
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

#[derive(Default)]
pub struct Purgatory {
    produces: BTreeMap<Offset, Vec<oneshot::Sender<Result<(), Interrupted>>>>,
    watches: Vec<Weak<Watch>>,
    prune_at: usize,
}

impl Purgatory {
    /// Resolves when the high watermark has passed `last_offset`.
    pub fn wait_for(&mut self, last_offset: Offset) -> oneshot::Receiver<Result<(), Interrupted>> {
        let (sender, receiver) = oneshot::channel();
        self.produces.entry(last_offset).or_default().push(sender);
        receiver
    }

    /// Has `watch` fired when something moves next.
    pub fn watch(&mut self, watch: &Arc<Watch>) {
        if self.watches.len() >= self.prune_at.max(WATCHES_BEFORE_PRUNING) {
            self.watches.retain(|watch| watch.strong_count() > 0);
            self.prune_at = self.watches.len() * 2;
        }
        self.watches.push(Arc::downgrade(watch));
    }

    /// The high watermark is now `high_watermark`: completes what waited for it.
    pub fn high_watermark_moved(&mut self, high_watermark: Offset) {
        let still_waiting = self.produces.split_off(&high_watermark);
        let done = std::mem::replace(&mut self.produces, still_waiting);
        for sender in done.into_values().flatten() {
            let _ = sender.send(Ok(()));
        }
        self.fire_watches();
    }

    /// Nothing that waits can be promised any more.
    pub fn interrupt(&mut self) {
        for sender in std::mem::take(&mut self.produces).into_values().flatten() {
            let _ = sender.send(Err(Interrupted));
        }
        self.fire_watches();
    }

    fn fire_watches(&mut self) {
        for watch in self.watches.drain(..) {
            if let Some(watch) = watch.upgrade() {
                watch.fire();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delayed_produce_is_completed_when_the_high_watermark_passes_its_last_offset() {
        let mut purgatory = Purgatory::default();
        let mut early = purgatory.wait_for(4);
        let mut late = purgatory.wait_for(5);
        purgatory.high_watermark_moved(5);
        assert_eq!(early.try_recv(), Ok(Some(Ok(()))));
        assert_eq!(late.try_recv(), Ok(None));
        purgatory.interrupt();
        assert_eq!(late.try_recv(), Ok(Some(Err(Interrupted))));
    }

    #[test]
    fn a_watch_fires_once_for_whatever_moves_and_dead_ones_do_not_gather() {
        let mut purgatory = Purgatory::default();
        let watch = Arc::new(Watch::default());
        purgatory.watch(&watch);
        for _ in 0..1000 {
            purgatory.watch(&Arc::new(Watch::default()));
        }
        assert!(purgatory.watches.len() <= WATCHES_BEFORE_PRUNING + 1);
        purgatory.high_watermark_moved(1);
        assert!(watch.fired.load(Ordering::Acquire));
        assert!(purgatory.watches.is_empty());
    }
}
