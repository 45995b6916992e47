//! Opening a replica's log, and making the replica over it: what is known of it, by its directory and its topic's settings, is
//! known before.

#![forbid(unsafe_code)]

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::topic_partition_of;
use crate::base::ids::TopicPartition;
use crate::local::Local;
use crate::metadata::node::LocalPartition;
use crate::partition::partition::Opened;
use crate::partition::{LeaderAndIsr, Partition, Settings};
use crate::platform::{Clock, Platform, Random};
use crate::shard::metadata_inputs::LastStops;
use crate::storage::log::{LastStop, Log, LogError, OpenLog};
use crate::storage::log_dirs::is_fatal;
use crate::storage::stray::{self, Found};

/// Opens a replica's log. If it can't be, the reason is in the log, and what the checkpoints said of it is kept. A directory
/// of another topic under its name is set aside, and the log begins empty.
pub(super) async fn open_log<P: Platform>(
    local: &Local<P>,
    log_dir: usize,
    replica: &LocalPartition,
    last_stop: LastStop,
    last_stops: &LastStops,
) -> Opened<P::Disk> {
    let topic_partition = topic_partition_of(replica);
    let open = async |last_stop| {
        let opened = Log::open(OpenLog {
            disk: local.platform.disk().clone(),
            log_dir: local.log_dirs.all()[log_dir].path.clone(),
            topic_partition: topic_partition.clone(),
            topic_id: replica.id,
            config: settings(local, replica).log_config(),
            last_stop,
            wall: local.platform.clock().wall(),
            open_files: Rc::clone(&local.open_files),
            progress: Arc::clone(&last_stops.progress),
        });
        opened.await.map(|log| (log, last_stop))
    };
    let was_scanned = last_stops.of(&topic_partition).is_some_and(|(found, _)| found == log_dir);
    let opened = async {
        if replica.is_new {
            let path = &local.log_dirs.all()[log_dir].path;
            local.log_dirs.all()[log_dir].forget_unknown(&topic_partition);
            let last_stop = match stray::look(local.platform.disk(), path, &topic_partition, replica.id).await? {
                Found::Own => last_stop,
                Found::Nothing => LastStop::default(),
                Found::Foreign => {
                    set_aside(local, log_dir, &topic_partition, was_scanned).await?;
                    LastStop::default()
                }
            };
            return open(last_stop).await;
        }
        match open(last_stop).await {
            Err(LogError::InconsistentTopicId { .. }) => {
                set_aside(local, log_dir, &topic_partition, was_scanned).await?;
                last_stops.progress.logs_total.add(1);
                open(LastStop::default()).await
            }
            opened => opened,
        }
    };
    match opened.await {
        Ok((log, last_stop)) => Opened { last_stop, log: Some(log) },
        Err(error) => {
            report_offline(local, &topic_partition, &error);
            if let LogError::Io { source, .. } = &error
                && is_fatal(source)
            {
                local.log_dirs.fail(log_dir, &error);
            }
            Opened { last_stop, log: None }
        }
    }
}

/// Gives the directory of another topic, under the name of this partition, a name that nobody looks for.
async fn set_aside<P: Platform>(
    local: &Local<P>,
    log_dir: usize,
    topic_partition: &TopicPartition,
    was_scanned: bool,
) -> Result<(), LogError> {
    let (log_dirs, random) = (&local.log_dirs, local.platform.random());
    log_dirs.all()[log_dir].forget_unknown(topic_partition);
    if log_dirs.is_loaded() {
        // First: a process that ends before the checkpoints are written next must not leave the old log's recovery point to
        // the new one, which would seem to have lost what is below. (At a start they are written when all logs are open.)
        log_dirs.all()[log_dir].rewrite_checkpoints().await;
    }
    let unique = (u128::from(random.next_u64()) << 64 | u128::from(random.next_u64())).to_be_bytes();
    let path = &log_dirs.all()[log_dir].path;
    if let Some(aside) = stray::set_aside(local.platform.disk(), path, topic_partition, unique).await? {
        tracing::warn!(partition = %topic_partition, directory = %aside.display(),
            "a directory of another topic lay under the partition's name: set aside, with all that is in it");
        // What was there at the start is counted once all logs are open.
        if !was_scanned || !log_dirs.is_loaded() {
            log_dirs.all()[log_dir].add_strays(1);
        }
    }
    Ok(())
}

pub(super) fn report_offline<P: Platform>(
    local: &Local<P>,
    topic_partition: &TopicPartition,
    reason: &dyn std::fmt::Display,
) {
    tracing::error!(partition = %topic_partition, "the log can't be opened; the partition is offline: {reason}");
    local.counters.partitions_offline_now.add(1);
    local.metadata.offline(topic_partition.clone());
}

pub(super) async fn add_partition<P: Platform>(
    local: &Rc<Local<P>>,
    replica: LocalPartition,
    log_dir: usize,
    opened: Opened<P::Disk>,
) {
    let given = leader_and_isr(&replica);
    let (platform, home) = (local.platform.clone(), Rc::clone(&local.homes[log_dir]));
    let topic_partition = topic_partition_of(&replica);
    let partition =
        Partition::new(platform, home, topic_partition, replica.id, settings(local, &replica), &given, opened);
    partition.flush_recovered().await;
    // They may have changed since: who is not in reach is not told. From here on it is.
    let Settings { config, producer_id_expiration_ms, .. } = settings(local, &replica);
    partition.set_config(config);
    partition.set_producer_id_expiration(producer_id_expiration_ms);
    local.partitions.add(Rc::clone(&partition));
    partition.flush_in_time();
}

pub(super) fn leader_and_isr(replica: &LocalPartition) -> LeaderAndIsr {
    LeaderAndIsr {
        leader: replica.leader,
        leader_epoch: replica.leader_epoch,
        isr: replica.isr.clone(),
        replicas: replica.replicas.clone(),
        partition_epoch: replica.partition_epoch,
    }
}

/// What a replica lives by now. The image says it of every topic that it shows, and is followed by replicas in reach; what
/// the replica was announced with is as old as its turn was long in coming.
fn settings<P: Platform>(local: &Local<P>, replica: &LocalPartition) -> Settings {
    let (image, config) = (local.image(), &local.config);
    let shown = image.topic(&replica.topic).filter(|topic| topic.id == replica.id);
    Settings {
        local: config.broker_id,
        durability: config.durability,
        rebatch: config.rebatch,
        replica_lag_time_max: Duration::from_millis(config.replica_lag_time_max_ms),
        producer_id_expiration_ms: local.dynamic().producer_id_expiration_ms,
        config: Arc::clone(shown.map_or(&replica.config, |topic| &topic.config)),
    }
}
