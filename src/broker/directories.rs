//! The log directories at the start and at the stop: locked, scanned, compared with one another, marked.
//!
//! One that can't be used is offline from the start, as long as others are left and it does not hold the metadata tree
//! (Kafka 3.9 `LogManager.createAndValidateLogDirs`). One that another process uses, that belongs to another broker, or
//! that holds what is no partition refuses the start.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use super::{StartError, on_own_ring};
use crate::base::ids::TopicPartition;
use crate::config::Config;
use crate::metadata::embedded::FILE_NAME as TREE_FILE;
use crate::metadata::image::ClusterImage;
use crate::metrics::RecoveryProgress;
use crate::partition::partition::LogCheckpoint;
use crate::platform::linux::{Directory, WriteBack, dirty_bytes_max};
use crate::platform::{Disk, Platform};
use crate::shard::checkpoints;
use crate::shard::metadata_inputs::LastStops;
use crate::storage::cache_mark::{self, CACHE_MARK};
use crate::storage::log_dir::{self, LogDirError, LogDirScan, MetaProperties};
use crate::storage::log_dirs::{LogDirs, is_fatal};
use crate::sys;
use crate::worker::WorkPool;

const LOCK_FILE: &str = ".lock";
const ANOTHER_PROCESS: &str = "another process";
/// Holds blocks for a start on a full file system; Kafka passes over it.
const BALLAST_FILE: &str = ".ringlog-ballast";
/// What a start writes at most: the metadata tree's transactions, checkpoints, indexes made anew.
const BALLAST_BYTES: u64 = 4 * 1024 * 1024;
/// It is held only where so many times as much is free.
const BALLAST_SHARE: u64 = 8;

/// Directories of partitions that the metadata does not know that are named at a start; of more only their number is said.
const STRAYS_NAMED_MAX: usize = 20;

/// Exit code when the last log directory has failed, as Kafka's.
const EXIT_NO_DIRECTORY: i32 = 1;

/// How long the end of the process waits for the mark of a directory that has failed to be gone: its device may hang.
const MARK_REMOVAL_MAX: Duration = Duration::from_secs(1);

/// What the clean-shutdown marker says where no ZooKeeper gives brokers epochs.
const NO_BROKER_EPOCH: i64 = -1;

/// The directories of `log.dirs`, held by this process.
pub struct Directories {
    pub disks: Vec<Arc<Directory>>,
    pub log_dirs: Arc<LogDirs>,
    /// Held for the broker's life.
    _locks: Vec<File>,
}

/// What the scans found.
pub struct Found {
    pub last_stops: LastStops,
    /// By the index of their directory.
    pub scans: Vec<(usize, LogDirScan)>,
    /// By directory; `None` for one without `meta.properties`, or offline.
    metas: Vec<Option<MetaProperties>>,
}

impl Found {
    /// The partitions and the directory of each.
    pub fn partitions(&self) -> impl Iterator<Item = (usize, &TopicPartition)> {
        self.scans.iter().flat_map(|(index, scan)| scan.partitions.iter().map(|partition| (*index, partition)))
    }

    /// Whether a partition of that directory was compacted by Kafka's cleaner.
    pub fn was_compacted(&self, log_dir: usize, partition: &TopicPartition) -> bool {
        self.scans.iter().any(|(index, scan)| *index == log_dir && scan.cleaner_offsets.contains_key(partition))
    }

    /// The cluster that the directories say they belong to.
    pub fn cluster_id(&self) -> Option<&str> {
        self.metas.iter().flatten().find_map(|meta| meta.cluster_id.as_deref())
    }
}

impl Directories {
    /// Creates what is missing and takes the locks (Kafka 3.9 `LogManager.lockLogDirs`).
    pub fn lock(config: &Config) -> Result<Directories, StartError> {
        let paths = &config.log_dirs;
        let log_dirs = LogDirs::new(paths, config.disk_reserve_bytes, |path, left| {
            let removed = remove_mark_of_failed(path);
            if left == 0 {
                tracing::error!("no log directory is left: the broker ends");
                let _ = removed.recv_timeout(MARK_REMOVAL_MAX);
                std::process::exit(EXIT_NO_DIRECTORY);
            }
        });
        refuse_twice(paths)?;
        let (mut locks, mut failures) = (Vec::new(), Vec::new());
        for (index, path) in paths.iter().enumerate() {
            match lock(path) {
                Ok(lock) => {
                    locks.push(lock);
                    if let Err(error) = settle_ballast(path) {
                        tracing::debug!(directory = %path.display(), %error, "no ballast");
                    }
                }
                Err(StartError::Directory { source, .. }) if may_be_offline(index, paths) => {
                    failures.push((index, source))
                }
                Err(error) => return Err(error),
            }
        }
        let share = dirty_bytes_max(config.dirty_bytes_max) / paths.len() as u64;
        let disks = start_all(paths, share).map_err(StartError::Thread)?;
        for (index, source) in failures {
            log_dirs.fail(index, &source);
        }
        Ok(Directories { disks, log_dirs, _locks: locks })
    }

    /// Reads what is in them, and changes nothing.
    pub fn scan(&self, progress: &Arc<RecoveryProgress>, work: &WorkPool) -> Result<Found, StartError> {
        let (mut scans, mut metas) = (Vec::new(), Vec::new());
        for (index, log_dir) in self.log_dirs.all().iter().enumerate() {
            metas.push(None);
            if log_dir.is_offline() {
                continue;
            }
            let path = log_dir.path.clone();
            let scanned = on_own_ring(&self.disks, work, |platform| async move { scan(platform.disk(), &path).await })?;
            match scanned {
                Ok((scan, meta)) => {
                    scans.push((index, scan));
                    metas[index] = meta;
                }
                Err(LogDirError::Io { source, path })
                    if is_fatal(&source) && may_be_offline(index, self.log_dirs.all()) =>
                {
                    self.log_dirs.fail(index, &LogDirError::Io { path, source });
                }
                Err(error) => return Err(error.into()),
            }
        }
        let last_stops = LastStops::new(&self.log_dirs, &scans, Arc::clone(progress))?;
        Ok(Found { last_stops, scans, metas })
    }

    /// Takes the markers of a clean stop away: the directories are this broker's, and their logs are opened next.
    pub fn take_markers(&self, found: &Found, work: &WorkPool) -> Result<(), StartError> {
        for (index, _) in found.scans.iter().filter(|(_, scan)| scan.clean) {
            let path = self.log_dirs.all()[*index].path.clone();
            let taken = on_own_ring(&self.disks, work, |platform| async move {
                log_dir::take_marker(platform.disk(), &path).await
            })?;
            match taken {
                Err(LogDirError::Io { source, path })
                    if is_fatal(&source) && may_be_offline(*index, self.log_dirs.all()) =>
                {
                    self.log_dirs.fail(*index, &LogDirError::Io { path, source });
                }
                taken => taken?,
            }
        }
        Ok(())
    }

    /// Removes what a broker before had begun to delete.
    pub fn remove_deleted(&self, found: &Found, work: &WorkPool) -> Result<(), StartError> {
        let deleted: Vec<_> = found.scans.iter().flat_map(|(_, scan)| scan.deleted.clone()).collect();
        if deleted.is_empty() {
            return Ok(());
        }
        on_own_ring(&self.disks, work, |platform| async move {
            for leftover in deleted {
                if let Err(error) = platform.disk().remove_directory(&leftover).await {
                    tracing::warn!(directory = %leftover.display(), %error, "a deleted partition is still there");
                }
            }
        })
    }

    /// Says which directories of partitions are here that the metadata does not know, up to [`STRAYS_NAMED_MAX`] of each
    /// directory; they are left as they are, until a topic is made under such a name (see `storage::stray`).
    pub fn name_strays(&self, found: &Found, image: &ClusterImage) {
        for (index, scan) in &found.scans {
            let log_dir = &self.log_dirs.all()[*index];
            let is_ours = |partition: &TopicPartition| {
                let known = image.partition(&partition.topic, partition.partition);
                known.is_some_and(|known| known.shard.is_some())
            };
            // One whose deletion went on at this start is gone.
            let is_there = |path: &Path| path.symlink_metadata().is_ok();
            let unknown = scan.partitions.iter().filter(|partition| !is_ours(partition)).filter_map(|partition| {
                let path = Some(log_dir.path.join(partition.to_string())).filter(|path| is_there(path))?;
                if let Some((_, last_stop)) = found.last_stops.of(partition) {
                    log_dir.keep_unknown(partition.clone(), last_stop);
                }
                let what = "the metadata knows no such partition: left alone, and not served; a topic that is made under its \
                            name begins empty, and the directory is set aside then";
                Some((path, what))
            });
            let aside = scan.aside.iter().map(|path| (path.clone(), "no replica that is served: left alone"));
            let strays: Vec<_> = unknown.chain(aside).collect();
            for (directory, what) in strays.iter().take(STRAYS_NAMED_MAX) {
                tracing::warn!(directory = %directory.display(), "{what}");
            }
            if strays.len() > STRAYS_NAMED_MAX {
                tracing::warn!(
                    log_dir = %log_dir.path.display(),
                    more = strays.len() - STRAYS_NAMED_MAX,
                    "and more directories of partitions that the metadata does not know"
                );
            }
            log_dir.add_strays(strays.len());
        }
    }

    /// The metadata tree's file, in the first directory.
    pub fn tree_path(&self) -> PathBuf {
        self.log_dirs.all()[0].path.join(TREE_FILE)
    }

    /// What every `meta.properties` says must be what this broker is.
    pub fn check_meta(
        &self,
        found: &Found,
        name: &'static str,
        expected: &str,
        of: impl Fn(&MetaProperties) -> Option<String>,
    ) -> Result<(), StartError> {
        for (log_dir, meta) in self.log_dirs.all().iter().zip(&found.metas) {
            match meta.as_ref().and_then(&of) {
                Some(found) if found != expected => {
                    let (path, expected) = (log_dir.path.clone(), expected.to_owned());
                    return Err(StartError::WrongBroker { path, name, found, expected });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The same of the cluster's id.
    pub fn check_cluster(&self, found: &Found, cluster_id: &str) -> Result<(), StartError> {
        self.check_meta(found, "cluster.id", cluster_id, |meta| meta.cluster_id.clone())
    }

    /// Brings every `meta.properties` up to date.
    pub fn write_meta(
        &self,
        found: &Found,
        config: &Config,
        cluster_id: &str,
        work: &WorkPool,
    ) -> Result<(), StartError> {
        for (index, log_dir) in self.log_dirs.online() {
            let meta = found.metas[index].as_ref();
            let wanted = MetaProperties {
                broker_id: Some(config.broker_id.0),
                cluster_id: Some(cluster_id.to_owned()),
                others: meta.map(|meta| meta.others.clone()).unwrap_or_default(),
            };
            if meta == Some(&wanted) {
                continue;
            }
            let path = log_dir.path.clone();
            on_own_ring(&self.disks, work, |platform| async move {
                log_dir::write_meta_properties(platform.disk(), &path, &wanted).await
            })??;
        }
        Ok(())
    }

    /// Says of each directory, now that its logs are open, that what is written to it is there as long as the page cache
    /// lives. Where that can't be said, the start after a kill checks more.
    pub fn mark_cache_life(&self, found: &Found, work: &WorkPool) -> Result<(), StartError> {
        for (index, scan) in &found.scans {
            let log_dir = &self.log_dirs.all()[*index];
            let mark = log_dir.cache_mark(scan);
            if log_dir.is_offline() || mark == scan.cache_mark {
                continue;
            }
            let path = log_dir.path.clone();
            let marked = on_own_ring(&self.disks, work, |platform| async move {
                match mark {
                    Some(mark) => cache_mark::write(platform.disk(), &path, &mark).await,
                    None => cache_mark::remove(platform.disk(), &path).await,
                }
            })?;
            if let Err(error) = marked {
                tracing::warn!(%error, "no mark of the page cache's life: the start after a kill reads more of the logs");
            }
        }
        Ok(())
    }

    /// The end of an orderly stop: checkpoints, then the marker where every log was closed.
    pub fn mark_stopped(
        &self,
        checkpoints: &[LogCheckpoint],
        unclean: &BTreeSet<usize>,
        work: &WorkPool,
    ) -> Result<(), StartError> {
        for (index, log_dir) in self.log_dirs.online() {
            let path = log_dir.path.clone();
            let is_clean = !unclean.contains(&index);
            let mut checkpoints: Vec<_> = checkpoints.iter().filter(|log| log.log_dir == index).cloned().collect();
            checkpoints.extend(checkpoints::of_unknown(index, log_dir));
            on_own_ring(&self.disks, work, |platform| async move {
                checkpoints::write_all(platform.disk(), &path, &checkpoints).await?;
                cache_mark::remove(platform.disk(), &path).await?;
                if is_clean {
                    log_dir::write_clean_shutdown(platform.disk(), &path, NO_BROKER_EPOCH).await?;
                }
                Ok::<_, LogDirError>(())
            })??;
        }
        Ok(())
    }
}

/// Starts the threads of the directories, and one for each device that writes back what is appended to it.
fn start_all(paths: &[PathBuf], dirty_bytes_max: u64) -> io::Result<Vec<Arc<Directory>>> {
    let mut devices: BTreeMap<Option<u64>, WriteBack> = BTreeMap::new();
    let start = |(index, path): (usize, &PathBuf)| {
        // One that is not there is offline.
        let device = path.metadata().ok().map(|metadata| metadata.dev());
        let write_back = match devices.get(&device) {
            Some(write_back) => write_back.clone(),
            None => devices.entry(device).or_insert(WriteBack::start(&format!("write-back-{index}"))?).clone(),
        };
        Directory::start(path, index, dirty_bytes_max, write_back)
    };
    paths.iter().enumerate().map(start).collect()
}

/// What the device of a failed directory did not take counts as clean in the page cache, and may be dropped from it: the
/// next start must not believe that it is there. On a thread of its own, since the device may hang; it tells when that is
/// done.
fn remove_mark_of_failed(log_dir: &Path) -> mpsc::Receiver<()> {
    let (sender, removed) = mpsc::channel();
    let path = log_dir.join(CACHE_MARK);
    let remove = move || {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(file = %path.display(), %error, "it stays: remove it before the next start");
            }
            _ => {}
        }
        let _ = sender.send(());
    };
    if let Err(error) = thread::Builder::new().name("mark".to_owned()).spawn(remove) {
        tracing::warn!(%error, "the mark of a failed directory stays");
    }
    removed
}

/// The metadata tree lies in the first directory: without that one nothing works.
fn may_be_offline<T>(index: usize, all: &[T]) -> bool {
    index > 0 && all.len() > 1
}

async fn scan<D: Disk>(disk: &D, path: &Path) -> Result<(LogDirScan, Option<MetaProperties>), LogDirError> {
    let meta = log_dir::read_meta_properties(disk, path).await?;
    let scan = log_dir::scan(disk, path).await?;
    Ok((scan, meta))
}

/// A file system that is full to the last byte must not keep the broker from starting, since only a broker that runs can
/// delete topics: some blocks are held by a file that is given up then, and made again when there is room.
fn settle_ballast(log_dir: &Path) -> io::Result<()> {
    let path = log_dir.join(BALLAST_FILE);
    let stat = nix::sys::statvfs::statvfs(log_dir)?;
    let free_bytes = stat.blocks_available() * stat.fragment_size();
    if free_bytes < BALLAST_BYTES {
        if path.exists() {
            tracing::warn!(file = %path.display(), "the file system is full; gave up the ballast for this start");
            std::fs::remove_file(&path)?;
        }
    } else if free_bytes >= BALLAST_BYTES * BALLAST_SHARE && !path.exists() {
        let file = File::create(&path)?;
        sys::preallocate(file.as_fd(), 0, BALLAST_BYTES)?;
    }
    Ok(())
}

/// Symbolic links may make two names of one directory (Kafka 3.9 `LogManager.createAndValidateLogDirs`).
fn refuse_twice(paths: &[PathBuf]) -> Result<(), StartError> {
    let mut seen: BTreeMap<PathBuf, &PathBuf> = BTreeMap::new();
    for path in paths {
        // One that is not there yet is made where its name says.
        let Ok(canonical) = path.canonicalize() else { continue };
        if let Some(first) = seen.insert(canonical, path) {
            return Err(StartError::SameDirectory { first: first.clone(), second: path.clone() });
        }
    }
    Ok(())
}

/// Creates the directory if it is missing and takes its lock.
///
/// That is two locks, each of which the process has until its end: `flock`, which keeps other ringlogs out, and one of the
/// kind that a JVM takes and looks for (`FileChannel.tryLock` is a POSIX lock of the whole file), which keeps Kafka out,
/// and this broker while a Kafka is there. The latter belongs to the open file and not to the process
/// (`F_OFD_SETLK`), so it does not go when something else closes the file.
fn lock(log_dir: &Path) -> Result<File, StartError> {
    let failed = |source| StartError::Directory { path: log_dir.to_owned(), source };
    if let (Err(error), Ok(target)) = (log_dir.metadata(), log_dir.read_link()) {
        let text = format!("it is a symbolic link to {}, which can't be used: {error}", target.display());
        return Err(failed(io::Error::new(error.kind(), text)));
    }
    if log_dir.exists() && !log_dir.is_dir() {
        return Err(failed(io::ErrorKind::NotADirectory.into()));
    }
    std::fs::create_dir_all(log_dir).map_err(failed)?;
    let lock = File::options().create(true).append(true).open(log_dir.join(LOCK_FILE)).map_err(failed)?;
    let locked = |holder| StartError::Locked { path: log_dir.to_owned(), holder };
    match lock.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => return Err(locked(ANOTHER_PROCESS.to_owned())),
        Err(std::fs::TryLockError::Error(source)) => return Err(failed(source)),
    }
    match fcntl(&lock, FcntlArg::F_OFD_SETLK(&whole_file())) {
        Ok(_) => Ok(lock),
        Err(Errno::EAGAIN | Errno::EACCES) => Err(locked(holder(&lock))),
        Err(error) => Err(failed(error.into())),
    }
}

/// A lock for writing from the first byte to whatever the last one will be.
fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// Who has the lock, as far as the kernel tells: of a lock that belongs to a process its id and name.
fn holder(lock: &File) -> String {
    let mut asked = whole_file();
    let told = fcntl(lock, FcntlArg::F_OFD_GETLK(&mut asked));
    if told.is_err() || asked.l_type == libc::F_UNLCK as libc::c_short || asked.l_pid <= 0 {
        return ANOTHER_PROCESS.to_owned();
    }
    match std::fs::read_to_string(format!("/proc/{}/comm", asked.l_pid)) {
        Ok(name) => format!("process {} ({})", asked.l_pid, name.trim_end()),
        Err(_) => format!("process {}", asked.l_pid),
    }
}

/// The file system's name, as `/proc/self/mountinfo` has it for the mount that holds the directory.
pub fn file_system(directory: &Path) -> String {
    let unknown = || "an unknown file system".to_owned();
    let Ok(directory) = directory.canonicalize() else { return unknown() };
    let Ok(mounts) = std::fs::read_to_string("/proc/self/mountinfo") else { return unknown() };
    let holding = mounts.lines().filter_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mount_point = mount.split(' ').nth(4)?;
        directory.starts_with(mount_point).then(|| (mount_point.len(), file_system.split(' ').next()))
    });
    holding.max_by_key(|(length, _)| *length).and_then(|(_, name)| name).map_or_else(unknown, str::to_owned)
}
