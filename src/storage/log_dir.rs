//! One data directory: what is in it, and the files that speak for all of it.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::base::ids::{Offset, TopicId, TopicPartition};
use crate::platform::Disk;

#[derive(Debug, thiserror::Error)]
pub enum LogDirError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{0} is not a partition's directory; move it away")]
    ForeignDirectory(PathBuf),
    #[error("{path}: {reason}")]
    Malformed { path: PathBuf, reason: String },
}

/// `meta.properties` of version 0 (ZooKeeper mode). Unknown keys are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaProperties {
    pub broker_id: Option<i32>,
    pub cluster_id: Option<String>,
    pub others: BTreeMap<String, String>,
}

/// What a directory held when it was scanned.
#[derive(Debug)]
pub struct LogDirScan {
    /// Was stopped in order; the marker is removed by the scan, before anything is loaded.
    pub clean: bool,
    /// Partitions with the topic id of their `partition.metadata`, if they have one.
    pub partitions: Vec<(TopicPartition, Option<TopicId>)>,
    /// Checkpoints; empty if unreadable (a warning is logged).
    pub recovery_points: BTreeMap<TopicPartition, Offset>,
    pub log_start_offsets: BTreeMap<TopicPartition, Offset>,
    /// Directories whose deletion was begun (`-delete`): the caller removes them when it likes.
    pub deleted: Vec<PathBuf>,
}

/// Reads what is in the directory (created if missing). The caller holds its `.lock`.
pub async fn scan<D: Disk>(_disk: &D, _log_dir: &Path) -> Result<LogDirScan, LogDirError> {
    todo!()
}

/// `None` if there is no such file yet.
pub async fn read_meta_properties<D: Disk>(_disk: &D, _log_dir: &Path) -> Result<Option<MetaProperties>, LogDirError> {
    todo!()
}

pub async fn write_meta_properties<D: Disk>(
    _disk: &D,
    _log_dir: &Path,
    _meta: &MetaProperties,
) -> Result<(), LogDirError> {
    todo!()
}

/// The last step of an orderly stop, after every log was closed.
pub async fn write_clean_shutdown<D: Disk>(_disk: &D, _log_dir: &Path) -> Result<(), LogDirError> {
    todo!()
}

/// Replaces `recovery-point-offset-checkpoint`.
pub async fn write_recovery_points<D: Disk>(
    _disk: &D,
    _log_dir: &Path,
    _points: &BTreeMap<TopicPartition, Offset>,
) -> Result<(), LogDirError> {
    todo!()
}

/// Replaces `log-start-offset-checkpoint`.
pub async fn write_log_start_offsets<D: Disk>(
    _disk: &D,
    _log_dir: &Path,
    _offsets: &BTreeMap<TopicPartition, Offset>,
) -> Result<(), LogDirError> {
    todo!()
}

/// Replaces `replication-offset-checkpoint` (high watermarks).
pub async fn write_high_watermarks<D: Disk>(
    _disk: &D,
    _log_dir: &Path,
    _offsets: &BTreeMap<TopicPartition, Offset>,
) -> Result<(), LogDirError> {
    todo!()
}
