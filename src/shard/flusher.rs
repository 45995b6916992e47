//! What a directory has unflushed stays below its bound (`--unflushed-bytes-max`): a start after a power cut reads so much
//! again. When there is more, the log is flushed that was appended to least of late for what its flush takes away, since a flush
//! holds up appends, then the next one. Shards tell one another by the directory how little their least one has seen, so that
//! it is the directory's.

#![forbid(unsafe_code)]

use std::rc::Rc;
use std::time::Duration;

use futures_channel::oneshot;

use crate::executor::yield_now;
use crate::handlers::Context;
use crate::partition::partition::Partition;
use crate::platform::{Clock, Platform, Tasks};

/// How often to look...
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// ... and how soon again while the bound is passed and it is another shard's turn: producers as fast as the device append
/// some MiB meanwhile.
const BEYOND_INTERVAL: Duration = Duration::from_millis(5);

/// When the bound is passed, logs are flushed until this share of it is free again; from there on the shards tell their
/// least ones.
const FREED_SHARE: u64 = 8;

/// Logs of a shard that are flushed beside one another: the device makes their pages durable together, which takes it as long
/// as for one.
const FLUSHES_AT_ONCE: usize = 8;

/// Partitions that are looked at before others get their turn.
const PARTITIONS_A_TURN: usize = 256;

/// A task for one directory, until that is offline. Each shard flushes its own logs, a few at a time.
pub async fn keep<P: Platform>(log_dir: usize, context: Rc<Context<P>>) {
    let clock = context.platform.clock().clone();
    let bytes_max = context.config.unflushed_bytes_max;
    let goal = bytes_max - bytes_max / FREED_SHARE;
    let directory = &context.log_dirs.all()[log_dir];
    let mut is_beyond = false;
    loop {
        clock.sleep_until(clock.now() + if is_beyond { BEYOND_INTERVAL } else { LOOK_INTERVAL }).await;
        is_beyond = directory.unflushed_bytes() > if is_beyond { goal } else { bytes_max };
        loop {
            if context.is_stopping() || directory.is_offline() {
                return;
            }
            let least = if directory.unflushed_bytes() > goal { least_of(log_dir, &context).await } else { Vec::new() };
            let is_ours = directory.offer_least(context.shard, least.first().map(|(appended, _)| *appended));
            if !is_beyond || !is_ours {
                break;
            }
            let flushed_bytes = directory.flushed_bytes();
            flush_all(&context, least).await;
            if directory.flushed_bytes() == flushed_bytes {
                // It could not be flushed, though the directory is not offline for that: not again at once.
                is_beyond = false;
                break;
            }
            is_beyond = directory.unflushed_bytes() > goal;
        }
    }
}

/// Flushes them beside one another.
async fn flush_all<P: Platform>(context: &Rc<Context<P>>, logs: Vec<(u64, Rc<Partition<P>>)>) {
    let flushes = logs.into_iter().map(|(_, partition)| {
        let (sender, flushed) = oneshot::channel();
        context.platform.tasks().spawn(async move {
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
/// [`FLUSHES_AT_ONCE`] of them, the least one first.
async fn least_of<P: Platform>(log_dir: usize, context: &Rc<Context<P>>) -> Vec<(u64, Rc<Partition<P>>)> {
    let mut least: Vec<(u64, Rc<Partition<P>>)> = Vec::with_capacity(FLUSHES_AT_ONCE + 1);
    for partitions in context.all_partitions().chunks(PARTITIONS_A_TURN) {
        for partition in partitions.iter().filter(|partition| partition.log_dir_index() == log_dir) {
            let Some(appended) = partition.appended_per_unflushed() else { continue };
            let place = least.partition_point(|(other, _)| *other <= appended);
            if place < FLUSHES_AT_ONCE {
                least.insert(place, (appended, Rc::clone(partition)));
                least.truncate(FLUSHES_AT_ONCE);
            }
        }
        yield_now().await;
    }
    least
}
