//! One data directory: what is in it, and the files that speak for all of it.
//!
//! The caller holds the directory's `.lock` and serialises the writes. Plain files that are not ours are ignored; a
//! directory that is no partition's refuses the start and is named, as in Kafka 3.9 `LogManager`.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use crate::base::ids::{Offset, TopicPartition};
use crate::platform::{DirectoryEntry, Disk};
use crate::storage::cache_mark::{self, CacheMark};
use crate::storage::checkpoint::{CHECKPOINT_BYTES_MAX, CheckpointError, parse_offsets};
use crate::storage::log::LastStop;

pub const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
pub const LOG_START_OFFSETS: &str = "log-start-offset-checkpoint";
pub const HIGH_WATERMARKS: &str = "replication-offset-checkpoint";
pub const CLEANER_OFFSETS: &str = "cleaner-offset-checkpoint";
pub const META_PROPERTIES: &str = "meta.properties";
pub const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";
/// Directories that are Kafka's but no partition's.
const IGNORED_DIRECTORIES: [&str; 2] = ["remote-log-index-cache", "__cluster_metadata-0"];
/// A partition whose deletion has begun.
pub const DELETE_SUFFIX: &str = "-delete";
/// One that belonged to no topic that is known.
pub const STRAY_SUFFIX: &str = "-stray";
/// A replica on its way between directories, or a stray one: not served, not touched.
const ASIDE_SUFFIXES: [&str; 2] = ["-future", STRAY_SUFFIX];
/// The longest file name that Linux takes.
const FILE_NAME_BYTES_MAX: usize = 255;
const META_PROPERTIES_BYTES_MAX: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum LogDirError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{0} is not a partition's directory; move it out of the data directory")]
    ForeignDirectory(PathBuf),
    #[error("{path}: {reason}")]
    Malformed { path: PathBuf, reason: String },
}

/// `meta.properties` of version 0 (ZooKeeper mode). Unknown keys are kept.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct MetaProperties {
    pub broker_id: Option<i32>,
    pub cluster_id: Option<String>,
    pub others: BTreeMap<String, String>,
}

/// What a directory held when it was scanned.
#[derive(Debug, Default)]
pub struct LogDirScan {
    /// Was stopped in order; the marker is removed by the scan, before anything is loaded.
    pub clean: bool,
    pub partitions: Vec<TopicPartition>,
    /// Checkpoints; those of log starts are read or the scan fails, of the others a malformed one counts as empty (a
    /// warning is logged).
    pub recovery_points: BTreeMap<TopicPartition, Offset>,
    pub log_start_offsets: BTreeMap<TopicPartition, Offset>,
    pub high_watermarks: BTreeMap<TopicPartition, Offset>,
    /// Up to where each compacted log was cleaned.
    pub cleaner_offsets: BTreeMap<TopicPartition, Offset>,
    /// Directories whose deletion was begun (`-delete`): the caller removes them when it likes.
    pub deleted: Vec<PathBuf>,
    /// Directories of replicas that are not served and not touched (`-future`, `-stray`).
    pub aside: Vec<PathBuf>,
    /// The life of the page cache now, as far as it can be known, and the mark of the last process.
    pub cache_life: Option<String>,
    pub cache_mark: Option<CacheMark>,
}

impl LogDirScan {
    /// What was written by the last process is in the files, but for those logs that its mark excepts.
    pub fn cache_survived(&self) -> bool {
        self.cache_mark.as_ref().is_some_and(|mark| mark.holds_in(self.cache_life.as_deref()))
    }

    /// How the log of one of the partitions was left.
    pub fn last_stop(&self, topic_partition: &TopicPartition) -> LastStop {
        let offset = |checkpoint: &BTreeMap<TopicPartition, Offset>| checkpoint.get(topic_partition).copied();
        let is_unopened = self.cache_mark.as_ref().is_some_and(|mark| mark.unopened.contains(topic_partition));
        LastStop {
            unclean: !self.clean,
            recovery_point: offset(&self.recovery_points).unwrap_or(0),
            log_start_offset: offset(&self.log_start_offsets).unwrap_or(0),
            high_watermark: offset(&self.high_watermarks).unwrap_or(0),
            cleaned_to: offset(&self.cleaner_offsets),
            cache_survived: self.cache_survived() && !is_unopened,
        }
    }

    /// The partitions that are not to be believed before they were opened: nobody has looked yet at what the end of a page
    /// cache's life left of them.
    pub fn unopened(&self) -> BTreeSet<TopicPartition> {
        let is_unopened = |partition: &&TopicPartition| !self.clean && !self.last_stop(partition).cache_survived;
        self.partitions.iter().filter(is_unopened).cloned().collect()
    }
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> LogDirError + use<> {
    let path = path.to_owned();
    move |source| LogDirError::Io { path, source }
}

/// The partition whose directory has this name; the number is what follows the last dash.
pub fn parse_directory_name(name: &str) -> Option<TopicPartition> {
    let (topic, partition) = name.rsplit_once('-')?;
    let digits = !partition.is_empty() && partition.bytes().all(|byte| byte.is_ascii_digit());
    if topic.is_empty() || !digits {
        return None;
    }
    Some(TopicPartition { topic: topic.into(), partition: partition.parse().ok()? })
}

/// The name of a partition's directory that is out of use: topic, partition, a unique number, and why (Kafka 3.9
/// `LocalLog.logDirNameWithSuffixCappedLength`). A topic's name that is too long for that is cut.
pub fn aside_name(topic_partition: &TopicPartition, unique: [u8; 16], suffix: &str) -> String {
    let unique: String = unique.iter().map(|byte| format!("{byte:02x}")).collect();
    let suffix = format!("-{}.{unique}{suffix}", topic_partition.partition);
    // Topic names are ASCII, so any length is a boundary.
    let topic: String = topic_partition.topic.chars().take(FILE_NAME_BYTES_MAX - suffix.len()).collect();
    topic + &suffix
}

/// Reads what is in the directory, which is created if it is missing; nothing else is changed. The caller holds its `.lock`.
///
/// # Errors
/// `ForeignDirectory` names the first directory that is no partition's, `Malformed` a checkpoint without which deleted
/// records would come back.
pub async fn scan<D: Disk>(disk: &D, log_dir: &Path) -> Result<LogDirScan, LogDirError> {
    let entries = match disk.list(log_dir).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            disk.create_directory(log_dir).await.map_err(io_at(log_dir))?;
            Vec::new()
        }
        listed => listed.map_err(io_at(log_dir))?,
    };
    let mut scan = LogDirScan::default();
    for entry in &entries {
        match parse_directory_name(&entry.name) {
            _ if entry.is_directory => classify_directory(&mut scan, log_dir, entry)?,
            // The partition is here, and nowhere else, though nobody can open it.
            Some(partition) if entry.is_broken_link => scan.partitions.push(partition),
            _ => {}
        }
    }
    // Without them recovery and the cleaner read more than they had to.
    scan.recovery_points = or_empty(read_offsets(disk, log_dir, RECOVERY_POINTS).await)?;
    scan.high_watermarks = or_empty(read_offsets(disk, log_dir, HIGH_WATERMARKS).await)?;
    scan.cleaner_offsets = or_empty(read_offsets(disk, log_dir, CLEANER_OFFSETS).await)?;
    scan.log_start_offsets = read_offsets(disk, log_dir, LOG_START_OFFSETS).await.map_err(|error| match error {
        LogDirError::Malformed { path, reason } => {
            let remedy = "it says which records are deleted, and they would come back; restore the file, or remove it to \
                          serve all that the logs hold";
            LogDirError::Malformed { path, reason: format!("{reason}: {remedy}") }
        }
        other => other,
    })?;
    scan.cache_mark = cache_mark::read(disk, log_dir).await;
    scan.cache_life = disk.cache_life(log_dir).await.unwrap_or_else(|error| {
        tracing::warn!(directory = %log_dir.display(), %error, "the page cache's life is not known");
        None
    });
    scan.clean = entries.iter().any(|entry| entry.name == CLEAN_SHUTDOWN);
    Ok(scan)
}

/// Takes the marker of a clean stop away, if there is one. To be done before anything is loaded, and durable on return: a
/// crash from here on is an unclean stop.
pub async fn take_marker<D: Disk>(disk: &D, log_dir: &Path) -> Result<(), LogDirError> {
    let marker = log_dir.join(CLEAN_SHUTDOWN);
    match disk.remove_file(&marker).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        removed => removed.map_err(io_at(&marker))?,
    }
    disk.sync_directory(log_dir).await.map_err(io_at(log_dir))
}

fn classify_directory(scan: &mut LogDirScan, log_dir: &Path, entry: &DirectoryEntry) -> Result<(), LogDirError> {
    let path = log_dir.join(&entry.name);
    if IGNORED_DIRECTORIES.contains(&entry.name.as_str()) {
        return Ok(());
    }
    // `<topic>-<partition>.<unique><suffix>`, as Kafka 3.9 `LocalLog.parseTopicPartitionName` takes it.
    let is_moved = |suffix: &str| {
        let moved = entry.name.strip_suffix(suffix).and_then(|rest| rest.rsplit_once('.'));
        moved.is_some_and(|(partition, unique)| parse_directory_name(partition).is_some() && !unique.is_empty())
    };
    if is_moved(DELETE_SUFFIX) {
        scan.deleted.push(path);
    } else if ASIDE_SUFFIXES.into_iter().any(is_moved) {
        scan.aside.push(path);
    } else {
        scan.partitions.push(parse_directory_name(&entry.name).ok_or(LogDirError::ForeignDirectory(path))?);
    }
    Ok(())
}

/// A malformed checkpoint taken as empty. Kafka 3.9 takes the directory offline for it
/// (`CheckpointFileWithFailureHandler`).
fn or_empty(
    read: Result<BTreeMap<TopicPartition, Offset>, LogDirError>,
) -> Result<BTreeMap<TopicPartition, Offset>, LogDirError> {
    match read {
        Err(LogDirError::Malformed { path, reason }) => {
            tracing::warn!(file = %path.display(), reason, "malformed checkpoint taken as empty");
            Ok(BTreeMap::new())
        }
        read => read,
    }
}

/// A missing checkpoint is empty.
async fn read_offsets<D: Disk>(
    disk: &D,
    log_dir: &Path,
    name: &str,
) -> Result<BTreeMap<TopicPartition, Offset>, LogDirError> {
    let path = log_dir.join(name);
    let parsed = match disk.read_whole(&path, CHECKPOINT_BYTES_MAX).await {
        Ok(file) => parse_offsets(&file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(CheckpointError::Text),
        Err(error) => return Err(io_at(&path)(error)),
    };
    parsed.map_err(|error| LogDirError::Malformed { path, reason: error.to_string() })
}

/// `None` if there is no such file yet.
///
/// # Errors
/// `Malformed` for anything but version 0: a version 1 belongs to KRaft.
pub async fn read_meta_properties<D: Disk>(disk: &D, log_dir: &Path) -> Result<Option<MetaProperties>, LogDirError> {
    let path = log_dir.join(META_PROPERTIES);
    match disk.read_whole(&path, META_PROPERTIES_BYTES_MAX).await {
        Ok(file) => match parse_meta_properties(&file) {
            Ok(meta) => Ok(Some(meta)),
            Err(reason) => Err(LogDirError::Malformed { path, reason }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_at(&path)(error)),
    }
}

fn parse_meta_properties(file: &[u8]) -> Result<MetaProperties, String> {
    let text = std::str::from_utf8(file).map_err(|_| "not UTF-8 text".to_owned())?;
    let mut meta = MetaProperties::default();
    let mut version = None;
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let (key, value) = line.split_once('=').ok_or_else(|| format!("line {line:?} has no ="))?;
        match (key.trim(), value.trim()) {
            ("version", value) => version = Some(value.to_owned()),
            ("broker.id", value) => {
                meta.broker_id = Some(value.parse().map_err(|_| format!("broker.id {value:?} is not a number"))?);
            }
            ("cluster.id", value) => meta.cluster_id = Some(value.to_owned()),
            (key, value) => {
                meta.others.insert(key.to_owned(), value.to_owned());
            }
        }
    }
    match version.as_deref() {
        Some("0") => Ok(meta),
        Some(other) => Err(format!("version {other} is not 0: the directory belongs to a broker in KRaft mode")),
        None => Err("version is missing".to_owned()),
    }
}

pub async fn write_meta_properties<D: Disk>(
    disk: &D,
    log_dir: &Path,
    meta: &MetaProperties,
) -> Result<(), LogDirError> {
    let known = [
        ("version", Some("0".to_owned())),
        ("broker.id", meta.broker_id.map(|id| id.to_string())),
        ("cluster.id", meta.cluster_id.clone()),
    ];
    let known = known.into_iter().filter_map(|(key, value)| Some(format!("{key}={}\n", value?)));
    let others = meta.others.iter().map(|(key, value)| format!("{key}={value}\n"));
    replace(disk, log_dir, META_PROPERTIES, known.chain(others).collect::<String>().into_bytes()).await
}

/// The last step of an orderly stop, after every log was closed. `broker_epoch` is -1 if there is none.
pub async fn write_clean_shutdown<D: Disk>(disk: &D, log_dir: &Path, broker_epoch: i64) -> Result<(), LogDirError> {
    let marker = format!("{{\"version\":0,\"brokerEpoch\":{broker_epoch}}}");
    replace(disk, log_dir, CLEAN_SHUTDOWN, marker.into_bytes()).await
}

/// Replaces one of [`RECOVERY_POINTS`], [`LOG_START_OFFSETS`], [`HIGH_WATERMARKS`] and [`CLEANER_OFFSETS`]; durable on
/// `Ok`.
pub async fn write_checkpoint<D: Disk>(disk: &D, log_dir: &Path, name: &str, data: Vec<u8>) -> Result<(), LogDirError> {
    replace(disk, log_dir, name, data).await
}

async fn replace<D: Disk>(disk: &D, log_dir: &Path, name: &str, data: Vec<u8>) -> Result<(), LogDirError> {
    let path = log_dir.join(name);
    disk.replace(&path, data).await.map_err(io_at(&path))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::sim::disk::FakeDisk;
    use crate::sim::disk::tests::run;

    /// A data directory with nothing in it.
    pub(crate) fn directory() -> (FakeDisk, PathBuf) {
        let (disk, path) = (FakeDisk::new(), PathBuf::from("/data"));
        run(disk.create_directory(&path)).unwrap();
        (disk, path)
    }

    #[test]
    fn partitions_are_found_and_what_is_not_ours_is_ignored() {
        let (disk, dir) = directory();
        let hex = "0123456789abcdef0123456789abcdef";
        for name in ["a-0", "with-dash-12", "remote-log-index-cache", "__cluster_metadata-0"] {
            run(disk.create_directory(&dir.join(name))).unwrap();
        }
        for suffix in ["delete", "future", "stray"] {
            run(disk.create_directory(&dir.join(format!("b-1.{hex}-{suffix}")))).unwrap();
        }
        run(disk.create_directory(&dir.join("with.dot-1.by-hand-delete"))).unwrap();
        disk.put(&dir.join("notes.txt"), b"hello");
        disk.put(&dir.join(HIGH_WATERMARKS), b"0\n1\na 0 5\n");
        disk.put(&dir.join(RECOVERY_POINTS), b"garbage");
        let scan = run(scan(&disk, &dir)).unwrap();
        let names: Vec<_> = scan.partitions.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["a-0", "with-dash-12"]);
        assert_eq!(scan.deleted, [dir.join(format!("b-1.{hex}-delete")), dir.join("with.dot-1.by-hand-delete")]);
        assert_eq!(scan.aside, ["future", "stray"].map(|suffix| dir.join(format!("b-1.{hex}-{suffix}"))));
        assert_eq!(scan.high_watermarks.values().copied().collect::<Vec<_>>(), [5]);
        assert!(scan.recovery_points.is_empty() && !scan.clean);
    }

    #[test]
    fn a_damaged_checkpoint_of_log_starts_refuses_the_start_since_deleted_records_would_come_back() {
        let (disk, dir) = directory();
        run(write_clean_shutdown(&disk, &dir, -1)).unwrap();
        for damaged in ["x", "1\n0\n", "0\n2\na 0 5\n", "0\n1\na 0 x\n"] {
            disk.put(&dir.join(LOG_START_OFFSETS), damaged.as_bytes());
            let error = run(scan(&disk, &dir)).unwrap_err().to_string();
            assert!(error.contains(LOG_START_OFFSETS) && error.contains("deleted"), "{error}");
        }
        // As a power cut of some file systems leaves it, and as Kafka takes it.
        disk.put(&dir.join(LOG_START_OFFSETS), b"");
        let scan = run(scan(&disk, &dir)).unwrap();
        assert!(scan.clean && scan.log_start_offsets.is_empty(), "nothing was changed before");
    }

    #[test]
    fn any_other_directory_refuses_the_start_and_is_named() {
        for name in ["lost+found", "a-", "-1", "a-b", "a-0-delete", "a-0.-stray", "a.12-delete", "-1.12-future"] {
            let (disk, dir) = directory();
            run(disk.create_directory(&dir.join(name))).unwrap();
            let error = run(scan(&disk, &dir)).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn a_partition_out_of_use_has_kafkas_name_for_it_and_one_that_the_file_system_takes() {
        let of = |topic: &str, partition| TopicPartition { topic: topic.into(), partition };
        let hex = "0f".repeat(16);
        assert_eq!(aside_name(&of("a.b-c", 12), [15; 16], STRAY_SUFFIX), format!("a.b-c-12.{hex}-stray"));
        let long = aside_name(&of(&"t".repeat(249), 7), [15; 16], DELETE_SUFFIX);
        let kept = 255 - "-7.".len() - 32 - "-delete".len();
        assert_eq!(long, format!("{}-7.{hex}-delete", "t".repeat(kept)));
    }

    #[test]
    fn the_marker_of_a_clean_stop_is_seen_until_it_is_taken_even_if_the_power_goes_then() {
        let (disk, dir) = directory();
        run(write_clean_shutdown(&disk, &dir, -1)).unwrap();
        assert_eq!(disk.contents(&dir.join(CLEAN_SHUTDOWN)).unwrap(), br#"{"version":0,"brokerEpoch":-1}"#);
        let found = run(scan(&disk, &dir)).unwrap();
        assert!(found.clean && run(scan(&disk.restart(), &dir)).unwrap().clean);
        run(take_marker(&disk, &dir)).unwrap();
        for seed in 0..16 {
            assert!(!run(scan(&disk.power_cut(seed), &dir)).unwrap().clean);
        }
    }

    #[test]
    fn what_was_written_is_believed_after_a_kill_and_not_after_a_power_cut_before_each_log_was_opened_again() {
        let (disk, dir) = directory();
        let [a, b] = ["a-0", "b-0"].map(|name| parse_directory_name(name).unwrap());
        for name in ["a-0", "b-0"] {
            run(disk.create_directory(&dir.join(name))).unwrap();
        }
        let mark_of = |scan: &LogDirScan, unopened: &[&TopicPartition]| CacheMark {
            life: scan.cache_life.clone().unwrap(),
            unopened: unopened.iter().copied().cloned().collect(),
        };
        let survived = |scan: &LogDirScan| [&a, &b].map(|name| scan.last_stop(name).cache_survived);
        // The first start finds logs that nobody knows anything of; one of them can't be opened.
        let first = run(scan(&disk, &dir)).unwrap();
        assert_eq!((survived(&first), first.unopened().len()), ([false, false], 2));
        run(cache_mark::write(&disk, &dir, &mark_of(&first, &[&b]))).unwrap();
        let killed = disk.restart();
        let second = run(scan(&killed, &dir)).unwrap();
        assert_eq!(survived(&second), [true, false]);
        assert_eq!(second.unopened(), [b.clone()].into(), "it goes on to be excepted");
        // The power goes, whatever of the mark that leaves.
        for seed in 0..16 {
            let cut = killed.power_cut(seed);
            let third = run(scan(&cut, &dir)).unwrap();
            assert_eq!((survived(&third), third.unopened().len()), ([false, false], 2));
            // Killed before it has opened its logs: the mark of before the power cut says nothing of what that left.
            let fourth = run(scan(&cut.restart(), &dir)).unwrap();
            assert_eq!(survived(&fourth), [false, false]);
        }
        // After a stop in order nothing is to be looked at.
        run(cache_mark::remove(&killed, &dir)).unwrap();
        run(write_clean_shutdown(&killed, &dir, -1)).unwrap();
        let clean = run(scan(&killed.restart(), &dir)).unwrap();
        assert_eq!((survived(&clean), clean.unopened().len(), clean.last_stop(&a).unclean), ([false, false], 0, false));
    }

    #[test]
    fn meta_properties_read_back_with_unknown_keys() {
        let (disk, dir) = directory();
        assert_eq!(run(read_meta_properties(&disk, &dir)).unwrap(), None);
        disk.put(&dir.join(META_PROPERTIES), b"#\n#Sun Nov 22\nbroker.id=3\nversion=0\ncluster.id=abc\nx.y=z\n");
        let meta = run(read_meta_properties(&disk, &dir)).unwrap().unwrap();
        assert_eq!((meta.broker_id, meta.cluster_id.as_deref()), (Some(3), Some("abc")));
        run(write_meta_properties(&disk, &dir, &meta)).unwrap();
        assert_eq!(run(read_meta_properties(&disk, &dir)).unwrap(), Some(meta));
        for wrong in ["version=1\nnode.id=1\n", "broker.id=1\n", "version=0\nbroker.id=x\n", "version"] {
            disk.put(&dir.join(META_PROPERTIES), wrong.as_bytes());
            assert!(matches!(run(read_meta_properties(&disk, &dir)), Err(LogDirError::Malformed { .. })), "{wrong}");
        }
    }
}
