//! What the metadata thread tells a shard, done in order: open logs, give replicas up, read the new image, say so.

#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use async_channel::Receiver;

use crate::base::ids::TopicPartition;
use crate::config::topic::TimestampType as ConfiguredTimestamp;
use crate::config::{Config, TopicConfig};
use crate::executor::all;
use crate::handlers::Context;
use crate::metadata::node::{LocalPartition, ShardInput};
use crate::metrics::RecoveryProgress;
use crate::partition::{Partition, Role};
use crate::platform::{Clock, Disk, Platform};
use crate::record::batch::TimestampType;
use crate::storage::log::{LastStop, Log, LogConfig, LogError, OpenLog};
use crate::storage::log_dir::LogDirScan;
use crate::storage::log_dirs::{LogDirs, is_fatal};

/// Logs that one shard opens beside one another: enough to keep a disk busy, few enough to bound open files.
const LOGS_OPENED_AT_ONCE_MAX: usize = 32;

/// What the start-up scan of the log directories found, as far as logs need it: where each partition lies, and how it was
/// left.
#[derive(Clone, Debug, Default)]
pub struct LastStops {
    found: BTreeMap<TopicPartition, (usize, LastStop)>,
    /// How far the opening of all logs is.
    pub progress: Arc<RecoveryProgress>,
}

/// One partition was found in two log directories.
#[derive(Debug, thiserror::Error)]
#[error(
    "partition {topic_partition} lies in two log directories, {first} and {second}: move the one that is older out of \
     its log directory"
)]
pub struct FoundTwice {
    topic_partition: TopicPartition,
    first: String,
    second: String,
}

impl LastStops {
    /// From the scan of each directory that could be read, by its index.
    pub fn new(
        log_dirs: &LogDirs,
        scans: &[(usize, LogDirScan)],
        progress: Arc<RecoveryProgress>,
    ) -> Result<LastStops, FoundTwice> {
        let mut found = BTreeMap::new();
        for (log_dir, scan) in scans {
            for topic_partition in &scan.partitions {
                let offset =
                    |checkpoint: &BTreeMap<TopicPartition, i64>| checkpoint.get(topic_partition).copied().unwrap_or(0);
                let last_stop = LastStop {
                    unclean: !scan.clean,
                    recovery_point: offset(&scan.recovery_points),
                    log_start_offset: offset(&scan.log_start_offsets),
                    cleaned_to: scan.cleaner_offsets.get(topic_partition).copied(),
                };
                let path = |log_dir: usize| log_dirs.all()[log_dir].path.display().to_string();
                if let Some((other, _)) = found.insert(topic_partition.clone(), (*log_dir, last_stop)) {
                    let topic_partition = topic_partition.clone();
                    return Err(FoundTwice { topic_partition, first: path(other), second: path(*log_dir) });
                }
            }
        }
        Ok(LastStops { found, progress })
    }
}

/// A task for the shard's life.
pub async fn serve<P: Platform>(context: Rc<Context<P>>, inputs: Receiver<ShardInput>, last_stops: Arc<LastStops>) {
    while let Ok(input) = inputs.recv().await {
        match input {
            ShardInput::LeaderAndIsr { partitions, .. } => take_partitions(&context, partitions, &last_stops).await,
            ShardInput::StopReplica { partitions, .. } => {
                stop_replicas(&context, partitions).await;
            }
            ShardInput::Image(image) => {
                let version = image.version;
                context.set_image(image);
                context.metadata.applied(context.shard, version);
            }
        }
    }
}

async fn take_partitions<P: Platform>(
    context: &Rc<Context<P>>,
    partitions: Vec<LocalPartition>,
    last_stops: &Arc<LastStops>,
) {
    let is_opened = |local: &&LocalPartition| context.partition(&local.topic, local.partition).is_none();
    last_stops.progress.logs_total.add(partitions.iter().filter(is_opened).count() as u64);
    let queue = Rc::new(RefCell::new(partitions.into_iter()));
    let lanes = (0..LOGS_OPENED_AT_ONCE_MAX).map(|_| {
        let (context, queue, last_stops) = (Rc::clone(context), Rc::clone(&queue), Arc::clone(last_stops));
        Box::pin(async move {
            loop {
                let Some(next) = queue.borrow_mut().next() else { return };
                take_partition(&context, next, &last_stops).await;
            }
        })
    });
    all(lanes.collect()).await;
}

async fn take_partition<P: Platform>(context: &Context<P>, local: LocalPartition, last_stops: &LastStops) {
    let topic_partition = TopicPartition { topic: Arc::clone(&local.topic), partition: local.partition };
    let role = role_of(&context.config, &local);
    let found = context.partition(&local.topic, local.partition);
    match found {
        Some(partition) => partition.take_role(role),
        None => {
            let (home, log) = open_log(context, &local, last_stops).await;
            let home = Rc::clone(&context.homes[home]);
            let partition = Partition::new(context.platform.clone(), home, topic_partition, local.id, role, log);
            partition.flush_recovered().await;
            partition.flush_in_time();
            context.add_partition(partition);
        }
    }
}

/// Opens a replica's log; also its log directory. If it can't be, the reason is in the log, and what the checkpoints said
/// of it is kept.
async fn open_log<P: Platform>(
    context: &Context<P>,
    local: &LocalPartition,
    last_stops: &LastStops,
) -> (usize, Result<Log<P::Disk>, LastStop>) {
    let topic_partition = TopicPartition { topic: Arc::clone(&local.topic), partition: local.partition };
    let log_dirs = &context.log_dirs;
    let offline = |reason: &dyn std::fmt::Display| {
        tracing::error!(partition = %topic_partition, "the log can't be opened; the partition is offline: {reason}");
        context.counters.partitions_offline_now.add(1);
    };
    // A topic made anew under an old name has nothing to do with what the old one left.
    let found = last_stops.found.get(&topic_partition).filter(|_| !local.is_new).copied();
    let any_offline = log_dirs.online().count() < log_dirs.all().len();
    let (log_dir, last_stop) = match found {
        Some((log_dir, last_stop)) => {
            log_dirs.all()[log_dir].add_partition();
            (log_dir, last_stop)
        }
        // Kafka 3.9 `LogManager.getOrCreateLog`: it may well lie where nobody can look.
        None if any_offline && !local.is_new => {
            offline(&"it is in none of the log directories that can be read, and others are offline");
            log_dirs.all()[0].add_partition();
            return (0, Err(LastStop::default()));
        }
        None => match log_dirs.place() {
            Some(log_dir) => {
                if !local.is_new {
                    tracing::error!(partition = %topic_partition, directory = %log_dirs.all()[log_dir].path.display(),
                        "the partition's directory is gone: it starts empty");
                }
                (log_dir, LastStop::default())
            }
            None => {
                offline(&"no log directory is left");
                log_dirs.all()[0].add_partition();
                return (0, Err(LastStop::default()));
            }
        },
    };
    let opened = Log::open(OpenLog {
        disk: context.platform.disk().clone(),
        log_dir: log_dirs.all()[log_dir].path.clone(),
        topic_partition: topic_partition.clone(),
        topic_id: local.id,
        config: log_config(&local.config),
        last_stop,
        wall: context.platform.clock().wall(),
        open_files: Rc::clone(&context.open_files),
        progress: Arc::clone(&last_stops.progress),
    });
    let opened = opened.await.map_err(|error| {
        offline(&error);
        if let LogError::Io { source, .. } = &error
            && is_fatal(source)
        {
            log_dirs.fail(log_dir, &error);
        }
        last_stop
    });
    (log_dir, opened)
}

/// Gives replicas up; deleted ones are out of the checkpoints then, before their names can be used again (Kafka 3.9
/// `LogManager.asyncDelete`).
async fn stop_replicas<P: Platform>(context: &Rc<Context<P>>, partitions: Vec<(TopicPartition, bool)>) {
    let mut changed = BTreeSet::new();
    for (topic_partition, delete) in partitions {
        let log_dir = stop_replica(context, &topic_partition, delete).await;
        match (log_dir, delete) {
            (Some(log_dir), true) => drop(changed.insert(log_dir)),
            (None, true) => changed.extend(context.log_dirs.online().map(|(index, _)| index)),
            (_, false) => {}
        }
    }
    for log_dir in changed {
        let log_dir = &context.log_dirs.all()[log_dir];
        if !log_dir.is_offline() {
            log_dir.rewrite_checkpoints().await;
        }
    }
}

/// Gives one replica up; gives the index of its log directory, if it was taken on.
async fn stop_replica<P: Platform>(
    context: &Rc<Context<P>>,
    topic_partition: &TopicPartition,
    delete: bool,
) -> Option<usize> {
    let Some(partition) = context.remove_partition(topic_partition) else {
        if delete {
            remove_leftover(context, topic_partition).await;
        }
        return None;
    };
    let index = partition.log_dir_index();
    if partition.is_unopened() {
        context.counters.partitions_offline_now.subtract(1);
    }
    let log_dir = &context.log_dirs.all()[index];
    log_dir.remove_partition();
    let outcome = match (partition.take_log().await, delete) {
        (Some(log), true) => log.delete().await,
        (Some(log), false) => log.close().await.map(drop),
        // It could not be opened.
        (None, true) => {
            let directory = log_dir.path.join(topic_partition.to_string());
            match context.platform.disk().remove_directory(&directory).await {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    Err(LogError::Io { path: directory, source })
                }
                _ => Ok(()),
            }
        }
        (None, false) => Ok(()),
    };
    if let Err(error) = outcome {
        tracing::error!(partition = %topic_partition, %error, "a replica could not be given up in order");
    }
    Some(index)
}

/// A replica that was never taken on: its deletion was asked for before a restart, say.
async fn remove_leftover<P: Platform>(context: &Context<P>, topic_partition: &TopicPartition) {
    for (_, log_dir) in context.log_dirs.online() {
        let directory = log_dir.path.join(topic_partition.to_string());
        match context.platform.disk().remove_directory(&directory).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::error!(directory = %directory.display(), %error, "a deleted replica could not be removed");
            }
            _ => {}
        }
    }
}

fn role_of(config: &Config, partition: &LocalPartition) -> Role {
    Role {
        local: config.broker_id,
        leader: partition.leader,
        leader_epoch: partition.leader_epoch,
        isr: partition.isr.clone(),
        durability: config.durability,
        config: Arc::clone(&partition.config),
    }
}

fn log_config(config: &TopicConfig) -> LogConfig {
    let positive = |value: i32| u32::try_from(value).unwrap_or(0);
    LogConfig {
        segment_bytes: positive(config.segment_bytes),
        segment_ms: config.segment_ms,
        segment_jitter_ms: config.segment_jitter_ms,
        index_interval_bytes: positive(config.index_interval_bytes),
        segment_index_bytes: positive(config.segment_index_bytes),
        message_timestamp_type: match config.message_timestamp_type {
            ConfiguredTimestamp::CreateTime => TimestampType::CreateTime,
            ConfiguredTimestamp::LogAppendTime => TimestampType::LogAppendTime,
        },
        compacted: config.cleanup_policy.compact,
        ..LogConfig::default()
    }
}
