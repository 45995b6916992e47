//! A shard put together, the same on the machine and in the simulator: what it holds, its connections, its standing tasks.

#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use async_channel::Receiver;

use super::checkpoints;
use super::cleaner::{self, CleanerSlots};
use super::dispatch::Dispatcher;
use super::flusher;
use super::metadata_inputs::{self, LastStops};
use super::retention;
use crate::base::ids::ShardId;
use crate::base::time::Monotonic;
use crate::executor::{all, either};
use crate::local::Local;
use crate::local::budgets::BudgetBounds;
use crate::local::local::{Bounds, LocalParts};
use crate::metadata::node::ShardInput;
use crate::net::connection::{self, Arrival, ConnectionLimits};
use crate::partition::Partition;
use crate::partition::home::WaitingMax;
use crate::partition::partition::LogCheckpoint;
use crate::platform::{Clock, Platform, Tasks};

/// Logs that one shard closes beside one another at an orderly stop.
const LOGS_CLOSED_AT_ONCE_MAX: usize = 32;

/// The shard that writes the checkpoints for all.
const CHECKPOINT_SHARD: ShardId = ShardId(0);

/// Bounds of a shard, beside those in `Config`.
#[derive(Clone, Copy, Debug)]
pub struct ShardLimits {
    /// Unanswered requests of one connection (Kafka has one in flight; only Produce overlaps here).
    pub requests_in_flight_max: usize,
    /// Bytes of requests of each class, from when they are whole until they are decoded, or what they produce is written.
    pub request_bytes_max: u64,
    /// Segments whose files are kept open, but for those with unflushed bytes.
    pub segments_open_max: usize,
    /// Bytes of produced batches at work threads.
    pub away_bytes_max: u64,
}

impl Default for ShardLimits {
    fn default() -> ShardLimits {
        ShardLimits {
            requests_in_flight_max: 64,
            request_bytes_max: 128 * 1024 * 1024,
            segments_open_max: 1024,
            away_bytes_max: 32 * 1024 * 1024,
        }
    }
}

/// What a shard is given at its start.
pub struct ShardParts<P: Platform> {
    pub local: LocalParts<P>,
    pub inputs: Receiver<ShardInput>,
    pub last_stops: Arc<LastStops>,
    pub cleaner_slots: CleanerSlots,
    pub limits: ShardLimits,
}

pub struct Shard<P: Platform> {
    pub(super) local: Rc<Local<P>>,
    pub(super) connections: Rc<connection::Shared<P>>,
}

impl<P: Platform> Shard<P> {
    /// Starts the standing tasks: the mailbox, what the control thread says, and on one shard the checkpoints.
    pub fn start(parts: ShardParts<P>) -> Shard<P> {
        let ShardParts { local, inputs, last_stops, cleaner_slots, limits } = parts;
        let (id, platform) = (local.shard, local.platform.clone());
        let connection_limits = ConnectionLimits {
            frame_bytes_max: local.config.socket_request_max_bytes as usize,
            requests_in_flight_max: limits.requests_in_flight_max,
        };
        // Half of it for one directory: whoever waits for another one still finds room, and credits.
        let batches = (local.mailboxes.credits().client / 2).max(1);
        let waiting_max = WaitingMax { bytes: limits.request_bytes_max / 2, batches };
        let ShardLimits { segments_open_max, away_bytes_max, .. } = limits;
        let bounds = Bounds { segments_open_max, waiting_max, budgets: BudgetBounds { away_bytes_max } };
        let local = Local::new(local, bounds);
        platform.tasks().spawn(Rc::clone(&local).serve_mailbox());
        platform.tasks().spawn(give_up_offline(Rc::clone(&local)));
        for (log_dir, _) in local.log_dirs.online() {
            platform.tasks().spawn(retention::keep(log_dir, Rc::clone(&local)));
            platform.tasks().spawn(flusher::keep(log_dir, Rc::clone(&local)));
            platform.tasks().spawn(cleaner::keep(log_dir, Rc::clone(&local), cleaner_slots.clone()));
        }
        platform.tasks().spawn(metadata_inputs::serve(Rc::clone(&local), inputs, last_stops));
        if id == CHECKPOINT_SHARD {
            for (log_dir, _) in local.log_dirs.online() {
                platform.tasks().spawn(checkpoints::keep(log_dir, Rc::clone(&local)));
                platform.tasks().spawn(checkpoints::watch_space(log_dir, Rc::clone(&local)));
            }
        }
        let counters = Arc::clone(&local.counters);
        let request_bytes_max = limits.request_bytes_max;
        let connections = connection::Shared::new(id, platform, connection_limits, request_bytes_max, counters);
        let (idle, clock) = (Rc::clone(&connections.idle), local.platform.clock().clone());
        local.platform.tasks().spawn(idle.keep_looking(clock, local.config.connections_max_idle));
        Shard { local, connections }
    }

    pub fn local(&self) -> &Rc<Local<P>> {
        &self.local
    }

    /// Serves a connection in a task of its own; one that comes while the shard drains is closed.
    pub fn serve(&self, socket: P::Socket, arrival: Arrival) {
        if self.local.is_draining() {
            return;
        }
        let (shared, dispatcher) = (Rc::clone(&self.connections), Dispatcher::new(Rc::clone(&self.local)));
        self.local.platform.tasks().spawn(connection::serve(shared, socket, arrival, dispatcher));
    }

    /// The beginning of an orderly stop: requests under way are answered, waiting fetches with what there is, and no
    /// other is taken; each connection closes with its last answer. Gives how many are still busy at `until`. Shards
    /// drain beside one another: a request may need all of them.
    pub async fn drain(&self, until: Monotonic) -> usize {
        self.local.drain();
        let idle = &self.connections.idle;
        idle.drain();
        self.local.partitions.all().iter().for_each(|partition| partition.wake_fetches());
        // Whichever comes first; the count says it.
        let _ = either(idle.empty(), self.local.platform.clock().sleep_until(until)).await;
        idle.count()
    }

    /// The end of an orderly stop: requests are refused from now on, every log is flushed and closed. A log that was not,
    /// with the reason in the log, keeps the process from calling the stop clean: it is recovered at the next start.
    pub async fn close(&self) -> ClosedShard {
        self.local.stop();
        let queue = Rc::new(RefCell::new(self.local.partitions.all().into_iter()));
        let lanes = (0..LOGS_CLOSED_AT_ONCE_MAX).map(|_| {
            let queue = Rc::clone(&queue);
            Box::pin(async move {
                let mut lane = ClosedShard::default();
                loop {
                    let Some(partition) = queue.borrow_mut().next() else { return lane };
                    close(&partition, &mut lane).await;
                }
            })
        });
        let mut closed = ClosedShard::default();
        for lane in all(lanes.collect()).await {
            closed.add(lane);
        }
        for home in self.local.homes.iter().filter(|home| home.replicas_under_way.get() > 0) {
            closed.unclean_count += home.replicas_under_way.get();
            closed.unclean_log_dirs.insert(home.index);
        }
        closed
    }
}

/// How the logs of a shard were left.
#[derive(Debug, Default)]
pub struct ClosedShard {
    pub checkpoints: Vec<LogCheckpoint>,
    /// How many logs were not closed in order, and the directories that they lie in.
    pub unclean_count: usize,
    pub unclean_log_dirs: BTreeSet<usize>,
}

impl ClosedShard {
    pub fn add(&mut self, other: ClosedShard) {
        self.checkpoints.extend(other.checkpoints);
        self.unclean_count += other.unclean_count;
        self.unclean_log_dirs.extend(other.unclean_log_dirs);
    }
}

/// A task for the shard's life: what waits on a directory that goes offline is told.
async fn give_up_offline<P: Platform>(local: Rc<Local<P>>) {
    let failures = local.log_dirs.subscribe();
    while let Ok(log_dir) = failures.recv().await {
        for partition in local.partitions.all() {
            if partition.log_dir_index() == log_dir {
                partition.go_offline();
            }
        }
    }
}

async fn close<P: Platform>(partition: &Rc<Partition<P>>, closed: &mut ClosedShard) {
    let checkpoint = partition.checkpoint();
    let outcome = match partition.take_log().await {
        Some(log) => Some(log.close().await),
        None => None,
    };
    let checkpoint = match (checkpoint, outcome) {
        (Some(checkpoint), Some(Ok(log_end))) => {
            let high_watermark = partition.high_watermark_at_close(log_end);
            Some(LogCheckpoint { recovery_point: log_end, high_watermark, ..checkpoint })
        }
        (checkpoint, outcome) => {
            if let Some(Err(error)) = outcome {
                tracing::error!(partition = %partition.topic_partition, %error, "the log was not closed in order");
            }
            // One that was never opened is as the last stop left it.
            if !partition.was_left_clean() {
                closed.unclean_count += 1;
                closed.unclean_log_dirs.insert(partition.log_dir_index());
            }
            checkpoint
        }
    };
    closed.checkpoints.extend(checkpoint);
}
