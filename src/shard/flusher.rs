//! What a directory has unflushed stays below its bound (`--unflushed-bytes-max`): a start after a power cut reads so much
//! again. When it comes near, the log is flushed that was appended to least of late for what its flush takes away, since a
//! flush holds up appends, then the next one. Shards tell one another by the directory how little their least one has seen, so
//! that it is the directory's.

#![forbid(unsafe_code)]

use std::rc::Rc;
use std::time::Duration;

use futures_channel::oneshot;

use crate::local::Local;
use crate::partition::partition::Partition;
use crate::platform::{Clock, Platform, Tasks};

/// How often to look...
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// ... from half of the bound on: memory takes some GB/s ...
const NEAR_INTERVAL: Duration = Duration::from_millis(50);
/// ... and how soon again while logs are flushed and it is another shard's turn: producers as fast as the device append some
/// MiB meanwhile.
const TURN_INTERVAL: Duration = Duration::from_millis(5);
/// How long it is, for each partition of the shard, until all are looked at again: to look at one takes a tenth of it.
const LOOK_INTERVAL_A_PARTITION: Duration = Duration::from_micros(1);

/// Flushing begins when less than this share of the bound is left, as what was flushed counts at a start until the next
/// checkpoint is written, and what is appended meanwhile too ...
const LEFT_SHARE: u64 = 8;
/// ... and goes on until this share is free.
const FREED_SHARE: u64 = 4;

/// Logs of a shard that are flushed beside one another: the device makes their pages durable together, which takes it as long
/// as for one.
const FLUSHES_AT_ONCE: usize = 8;

/// A task for one directory, until that is offline. Each shard flushes its own logs, a few at a time.
pub async fn keep<P: Platform>(log_dir: usize, local: Rc<Local<P>>) {
    let clock = local.platform.clock().clone();
    let bytes_max = local.config.unflushed_bytes_max;
    let (begin, goal) = (bytes_max - bytes_max / LEFT_SHARE, bytes_max - bytes_max / FREED_SHARE);
    let directory = &local.log_dirs.all()[log_dir];
    let mut is_flushing = false;
    let mut interval = LOOK_INTERVAL;
    loop {
        clock.sleep_until(clock.now() + interval).await;
        let unflushed = directory.unflushed_bytes();
        is_flushing = unflushed > if is_flushing { goal } else { begin };
        interval = if unflushed > bytes_max / 2 { NEAR_INTERVAL } else { LOOK_INTERVAL };
        loop {
            if local.is_stopping() || directory.is_offline() {
                return;
            }
            let is_near = directory.unflushed_bytes() > goal;
            let (least, seen) = if is_near { least_of(log_dir, &local).await } else { Default::default() };
            let is_ours = directory.offer_least(local.shard, least.first().map(|(appended, _)| *appended));
            if is_flushing {
                interval = TURN_INTERVAL.max(LOOK_INTERVAL_A_PARTITION * seen);
            }
            if !is_flushing || !is_ours {
                break;
            }
            let flushed_bytes = directory.flushed_bytes();
            flush_all(&local, least).await;
            if directory.flushed_bytes() == flushed_bytes {
                // It could not be flushed, though the directory is not offline for that: not again at once.
                is_flushing = false;
                interval = LOOK_INTERVAL;
                break;
            }
            is_flushing = directory.unflushed_bytes() > goal;
        }
    }
}

/// Flushes them beside one another.
async fn flush_all<P: Platform>(local: &Rc<Local<P>>, logs: Vec<(u64, Rc<Partition<P>>)>) {
    let flushes = logs.into_iter().map(|(_, partition)| {
        let (sender, flushed) = oneshot::channel();
        local.platform.tasks().spawn(async move {
            partition.flush_now().await;
            // Nobody waits any more when the shard ends.
            let _ = sender.send(());
        });
        flushed
    });
    for flushed in flushes.collect::<Vec<_>>() {
        let _ = flushed.await;
    }
}

/// The unflushed logs of this shard in the directory to which least was appended of late for what is unflushed, and how much:
/// [`FLUSHES_AT_ONCE`] of them, the least one first; and how many partitions were looked at.
async fn least_of<P: Platform>(log_dir: usize, local: &Rc<Local<P>>) -> (Vec<(u64, Rc<Partition<P>>)>, u32) {
    let mut least: Vec<(u64, Rc<Partition<P>>)> = Vec::with_capacity(FLUSHES_AT_ONCE + 1);
    let mut seen = 0;
    let look = |partition: &Rc<Partition<P>>| {
        seen += 1;
        if partition.log_dir_index() != log_dir {
            return;
        }
        let Some(appended) = partition.appended_per_unflushed() else { return };
        let place = least.partition_point(|(other, _)| *other <= appended);
        if place < FLUSHES_AT_ONCE {
            least.insert(place, (appended, Rc::clone(partition)));
            least.truncate(FLUSHES_AT_ONCE);
        }
    };
    local.partitions.each(look).await;
    (least, seen)
}
