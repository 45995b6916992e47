//! `--import`, and the refusals around it: a directory with topics serves only with the metadata of those topics.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::path::Path;

use crate::base::ids::TopicPartition;
use crate::config::Config;
use crate::controller::import::{self, FoundPartition};
use crate::metadata::embedded::{EmbeddedTree, FILE_NAME as TREE_FILE};
use crate::platform::linux::LinuxRandom;
use crate::platform::{Disk, Platform, Random};
use crate::storage::identity;
use crate::storage::log::LogError;
use crate::storage::log_dir::{self, LogDirScan, MetaProperties};
use crate::worker::{Helper, WorkPool};

use super::{NO_BROKER_EPOCH, StartError, check_meta, on_own_ring};

/// Makes the tree if the operator wants an import, and says what to tell them of it; refuses a directory whose topics
/// would be served without their metadata. A refusal leaves the directory as the last broker left it.
pub(super) fn settle_tree(
    config: &Config,
    scan: &LogDirScan,
    meta: Option<&MetaProperties>,
    helper: &Helper,
    work: &WorkPool,
) -> Result<Option<String>, StartError> {
    let settled = settle(config, scan, meta, helper, work);
    if settled.is_err() && scan.clean {
        // The scan took the marker away; nothing was touched since, so whoever serves this next has nothing to recover.
        let log_dir = config.log_dir.clone();
        on_own_ring(&config.log_dir, helper, work, |platform| async move {
            log_dir::write_clean_shutdown(platform.disk(), &log_dir, NO_BROKER_EPOCH).await
        })??;
    }
    settled
}

fn settle(
    config: &Config,
    scan: &LogDirScan,
    meta: Option<&MetaProperties>,
    helper: &Helper,
    work: &WorkPool,
) -> Result<Option<String>, StartError> {
    check_meta(&config.log_dir, meta, "broker.id", &config.broker_id.0.to_string(), |meta| {
        meta.broker_id.map(|id| id.to_string())
    })?;
    let tree = config.log_dir.join(TREE_FILE);
    let cluster_id = meta.and_then(|meta| meta.cluster_id.as_deref());
    let is_kafkas = !scan.partitions.is_empty() || cluster_id.is_some();
    match (tree.exists(), config.import, is_kafkas) {
        (true, true, _) => return Err(StartError::TreeExists(config.log_dir.clone())),
        (true, false, _) | (false, false, false) => return Ok(None),
        (false, false, true) => return Err(StartError::NoTree(config.log_dir.clone())),
        (false, true, false) => return Err(StartError::NothingToImport(config.log_dir.clone())),
        (false, true, true) => {}
    }
    let (log_dir, partitions) = (config.log_dir.clone(), scan.partitions.clone());
    let found = on_own_ring(&config.log_dir, helper, work, |platform| async move {
        let mut found = Vec::with_capacity(partitions.len());
        for topic_partition in partitions {
            found.push(find(platform.disk(), &log_dir, topic_partition).await?);
        }
        Ok::<_, LogError>(found)
    })?
    .map_err(StartError::Unreadable)?;
    let operations = import::operations(&found, cluster_id, config, &mut || LinuxRandom.next_u64())
        .map_err(|error| StartError::Import { path: config.log_dir.clone(), error })?;
    EmbeddedTree::make(&tree, &operations)?;
    Ok(Some(note(&config.log_dir, &found)))
}

async fn find<D: Disk>(disk: &D, log_dir: &Path, topic_partition: TopicPartition) -> Result<FoundPartition, LogError> {
    let identity = identity::read(disk, log_dir, &topic_partition).await?;
    Ok(FoundPartition { topic_partition, topic_id: identity.topic_id, latest_epoch: identity.latest_epoch })
}

fn note(log_dir: &Path, found: &[FoundPartition]) -> String {
    let topics: BTreeSet<_> = found.iter().map(|found| &found.topic_partition.topic).collect();
    format!(
        "imported {} topics with {} partitions from {}; their settings were in ZooKeeper and are not known here: all \
         but the internal topics have the broker's defaults now",
        topics.len(),
        found.len(),
        log_dir.display()
    )
}
