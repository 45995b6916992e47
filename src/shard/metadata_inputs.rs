//! What the metadata thread tells a shard, done in order: open logs, give replicas up, read the new image, say so.

#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use async_channel::Receiver;

use crate::base::ids::{BrokerId, TopicPartition};
use crate::config::TopicConfig;
use crate::config::topic::TimestampType as ConfiguredTimestamp;
use crate::executor::all;
use crate::handlers::Context;
use crate::metadata::node::{LocalPartition, ShardInput};
use crate::metrics::RecoveryProgress;
use crate::partition::{Partition, Role};
use crate::platform::{Clock, Disk, Platform};
use crate::record::batch::TimestampType;
use crate::storage::log::{LastStop, Log, LogConfig, LogError, OpenLog};

/// Logs that one shard opens beside one another: enough to keep a disk busy, few enough to bound open files.
const LOGS_OPENED_AT_ONCE_MAX: usize = 32;

/// What the start-up scan of the data directory found, as far as logs need it.
#[derive(Clone, Debug, Default)]
pub struct LastStops {
    pub unclean: bool,
    /// From the checkpoints, by partition.
    pub recovery_points: BTreeMap<TopicPartition, i64>,
    pub log_start_offsets: BTreeMap<TopicPartition, i64>,
    /// How far the opening of all logs is.
    pub progress: Arc<RecoveryProgress>,
}

impl LastStops {
    fn of(&self, topic_partition: &TopicPartition) -> LastStop {
        LastStop {
            unclean: self.unclean,
            recovery_point: self.recovery_points.get(topic_partition).copied().unwrap_or(0),
            log_start_offset: self.log_start_offsets.get(topic_partition).copied().unwrap_or(0),
        }
    }
}

/// A task for the shard's life.
pub async fn serve<P: Platform>(context: Rc<Context<P>>, inputs: Receiver<ShardInput>, last_stops: Arc<LastStops>) {
    while let Ok(input) = inputs.recv().await {
        match input {
            ShardInput::LeaderAndIsr { partitions, .. } => take_partitions(&context, partitions, &last_stops).await,
            ShardInput::StopReplica { partitions, .. } => {
                for (topic_partition, delete) in partitions {
                    stop_replica(&context, topic_partition, delete).await;
                }
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
    let role = role_of(context.config.broker_id, &local);
    let found = context.partition(&local.topic, local.partition);
    let outcome = match found {
        Some(partition) => partition.take_role(role).await,
        None => {
            let log = open_log(context, &local, last_stops).await;
            let partition = Partition::new(context.platform.clone(), topic_partition.clone(), local.id, role, log);
            context.add_partition(Rc::clone(&partition));
            partition.start_reign().await
        }
    };
    if let Err(error) = outcome {
        tracing::error!(partition = %topic_partition, %error, "the leader epoch could not be written down");
    }
}

/// Opens a replica's log. If it can't be, the reason is in the log, and what the checkpoints said of it is kept.
async fn open_log<P: Platform>(
    context: &Context<P>,
    local: &LocalPartition,
    last_stops: &LastStops,
) -> Result<Log<P::Disk>, LastStop> {
    let topic_partition = TopicPartition { topic: Arc::clone(&local.topic), partition: local.partition };
    // A topic made anew under an old name has nothing to do with what the old one left.
    let last_stop = if local.is_new { LastStop::default() } else { last_stops.of(&topic_partition) };
    let opened = Log::open(OpenLog {
        disk: context.platform.disk().clone(),
        log_dir: context.config.log_dir.clone(),
        topic_partition: topic_partition.clone(),
        topic_id: local.id,
        config: log_config(&local.config),
        last_stop,
        wall: context.platform.clock().wall(),
        progress: Arc::clone(&last_stops.progress),
    });
    opened.await.map_err(|error| {
        tracing::error!(partition = %topic_partition, %error, "the log can't be opened; the partition is offline");
        context.counters.partitions_offline_now.add(1);
        last_stop
    })
}

async fn stop_replica<P: Platform>(context: &Rc<Context<P>>, topic_partition: TopicPartition, delete: bool) {
    let log = match context.remove_partition(&topic_partition) {
        Some(partition) => {
            if partition.is_unopened() {
                context.counters.partitions_offline_now.subtract(1);
            }
            partition.take_log().await
        }
        None => None,
    };
    let outcome = match (log, delete) {
        (Some(log), true) => log.delete().await,
        (Some(log), false) => log.close().await.map(drop),
        // It could not be opened, or was never here.
        (None, true) => {
            let directory = context.config.log_dir.join(topic_partition.to_string());
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
}

fn role_of(local: BrokerId, partition: &LocalPartition) -> Role {
    Role {
        local,
        leader: partition.leader,
        leader_epoch: partition.leader_epoch,
        isr: partition.isr.clone(),
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
