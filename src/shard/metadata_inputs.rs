//! What the control thread tells a shard: open logs, give replicas up, read the new image, say so.
//!
//! Inputs are taken in order; what they ask of a log directory goes to that directory's lane (see [`super::lanes`]), and an
//! image is read when the lanes have done what came before it, but for those of directories that hang.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use async_channel::Receiver;

use super::lanes::Lanes;
use crate::base::ids::TopicPartition;
use crate::config::TopicConfig;
use crate::local::Local;
use crate::metadata::node::ShardInput;
use crate::metrics::RecoveryProgress;
use crate::platform::Platform;
use crate::storage::log::LastStop;
use crate::storage::log_dir::LogDirScan;
use crate::storage::log_dirs::LogDirs;

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
            log_dirs.all()[*log_dir].scanned(scan);
            for topic_partition in &scan.partitions {
                let last_stop = scan.last_stop(topic_partition);
                let path = |log_dir: usize| log_dirs.all()[log_dir].path.display().to_string();
                if let Some((other, _)) = found.insert(topic_partition.clone(), (*log_dir, last_stop)) {
                    let topic_partition = topic_partition.clone();
                    return Err(FoundTwice { topic_partition, first: path(other), second: path(*log_dir) });
                }
            }
        }
        Ok(LastStops { found, progress })
    }

    /// The directory that a partition was found in, and how it was left there.
    pub fn of(&self, topic_partition: &TopicPartition) -> Option<(usize, LastStop)> {
        self.found.get(topic_partition).copied()
    }
}

/// A task for the shard's life.
pub async fn serve<P: Platform>(local: Rc<Local<P>>, inputs: Receiver<ShardInput>, last_stops: Arc<LastStops>) {
    let mut lanes = Lanes::start(&local, last_stops);
    // Taken up with the image that shows them: a log that is opened meanwhile has them from there.
    let mut changed = Vec::new();
    while let Ok(input) = inputs.recv().await {
        match input {
            ShardInput::LeaderAndIsr { partitions, .. } => lanes.take(partitions).await,
            ShardInput::StopReplica { partitions, .. } => lanes.stop(partitions).await,
            ShardInput::Configs { configs, .. } => changed.push(configs),
            ShardInput::Image(image) => {
                lanes.settle().await;
                let version = image.version;
                let expiration_ms = image.dynamic.producer_id_expiration_ms;
                let is_changed = local.dynamic().producer_id_expiration_ms != expiration_ms;
                local.set_image(image);
                changed.drain(..).for_each(|configs: Arc<[_]>| change_configs(&local, &configs));
                if is_changed {
                    let all = local.partitions.all();
                    all.iter().for_each(|partition| partition.set_producer_id_expiration(expiration_ms));
                }
                local.metadata.applied(local.shard, version);
            }
        }
    }
}

fn change_configs<P: Platform>(local: &Rc<Local<P>>, configs: &[(Arc<str>, Arc<TopicConfig>)]) {
    for (topic, config) in configs {
        for partition in local.partitions.of_topic(topic) {
            partition.set_config(Arc::clone(config));
            // What waits for a flush waits by the new settings.
            partition.flush_in_time();
        }
    }
}
