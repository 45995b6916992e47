//! `--import`, and the refusals around it: a directory with topics serves only with the metadata of those topics.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::base::ids::TopicPartition;
use crate::config::Config;
use crate::controller::import::{self, FoundPartition};
use crate::metadata::embedded::EmbeddedTree;
use crate::platform::linux::LinuxRandom;
use crate::platform::{Disk, Platform, Random};
use crate::storage::identity;
use crate::storage::log::LogError;
use crate::worker::WorkPool;

use super::directories::{Directories, Found};
use super::{StartError, on_own_ring};

/// Makes the tree if the operator wants an import, and says what to tell them of it; refuses directories whose topics
/// would be served without their metadata.
pub(super) fn settle_tree(
    config: &Config,
    directories: &Directories,
    found: &Found,
    work: &WorkPool,
) -> Result<Option<String>, StartError> {
    directories.check_meta(found, "broker.id", &config.broker_id.0.to_string(), |meta| {
        meta.broker_id.map(|id| id.to_string())
    })?;
    let tree = directories.tree_path();
    let first = || directories.log_dirs.all()[0].path.clone();
    let cluster_id = found.cluster_id();
    let is_kafkas = found.partitions().next().is_some() || cluster_id.is_some();
    match (tree.exists(), config.import, is_kafkas) {
        (true, true, _) => return Err(StartError::TreeExists(first())),
        (true, false, _) | (false, false, false) => return Ok(None),
        (false, false, true) => return Err(StartError::NoTree(first())),
        (false, true, false) => return Err(StartError::NothingToImport(first())),
        (false, true, true) => {}
    }
    let places = found.partitions().map(|(log_dir, partition)| {
        (directories.log_dirs.all()[log_dir].path.clone(), partition.clone(), found.was_compacted(log_dir, partition))
    });
    let places: Vec<(PathBuf, TopicPartition, bool)> = places.collect();
    let found_partitions = on_own_ring(&directories.disks, work, |platform| async move {
        let mut found = Vec::with_capacity(places.len());
        for (log_dir, topic_partition, was_compacted) in places {
            found.push(find(platform.disk(), &log_dir, topic_partition, was_compacted).await?);
        }
        Ok::<_, LogError>(found)
    })?
    .map_err(StartError::Unreadable)?;
    let operations = import::operations(&found_partitions, cluster_id, config, &mut || LinuxRandom.next_u64())
        .map_err(|error| StartError::Import { path: first(), error })?;
    EmbeddedTree::make(&tree, &operations).map_err(|source| StartError::Tree { path: tree.clone(), source })?;
    Ok(Some(note(&config.log_dirs, &found_partitions)))
}

async fn find<D: Disk>(
    disk: &D,
    log_dir: &Path,
    topic_partition: TopicPartition,
    was_compacted: bool,
) -> Result<FoundPartition, LogError> {
    let identity = identity::read(disk, log_dir, &topic_partition).await?;
    let (topic_id, latest_epoch) = (identity.topic_id, identity.latest_epoch);
    Ok(FoundPartition { topic_partition, topic_id, latest_epoch, was_compacted })
}

fn note(log_dirs: &[PathBuf], found: &[FoundPartition]) -> String {
    let from: Vec<_> = log_dirs.iter().map(|path| path.display().to_string()).collect();
    let topics: BTreeSet<_> = found.iter().map(|found| &found.topic_partition.topic).collect();
    format!(
        "imported {} topics with {} partitions from {}; their settings were in ZooKeeper and are not known here: until \
         they are given some, all but the internal ones keep every record (retention.ms=-1, retention.bytes=-1), and those \
         that Kafka has compacted stay cleanup.policy=compact but are not compacted further (min.compaction.lag.ms); \
         'ringlog config get --topic NAME' shows it, 'ringlog config set --topic NAME retention.ms=604800000', or \
         'ringlog config set --topic NAME --delete min.compaction.lag.ms --delete max.compaction.lag.ms', changes it",
        topics.len(),
        found.len(),
        from.join(", ")
    )
}
