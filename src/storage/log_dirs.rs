//! The broker's log directories as all shards see them: which of them serve, how full they are, where a new partition goes.
//!
//! A directory goes offline once, for the life of the process, with the first error that says its device can't be
//! trusted; its partitions answer KAFKA_STORAGE_ERROR from then on and the others serve on (Kafka 3.9 `LogDirFailureChannel`,
//! `LogManager.handleLogDirFailure`). A full file system is no such error: produce is refused while less than the reserve
//! is free, and taken again when there is room.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_channel::{Receiver, Sender};
use futures_channel::oneshot;

use crate::base::ids::{ShardId, TopicPartition};
use crate::platform::{Space, spares_device};
use crate::storage::cache_mark::CacheMark;
use crate::storage::log::LastStop;
use crate::storage::log_dir::LogDirScan;

/// Requests to write the checkpoints of one directory that wait.
const REWRITES_MAX: usize = 64;

/// No file system has so much: until one is asked there is more, less what was appended.
const ROOM_UNKNOWN: i64 = i64::MAX / 2;
/// The reserve is at most this share of a file system.
const RESERVE_SHARE: u64 = 20;

/// One log directory. Shared by all shards.
#[derive(Debug)]
pub struct LogDir {
    pub path: PathBuf,
    offline: AtomicBool,
    /// Partitions placed here.
    partitions: AtomicUsize,
    /// Directories of partitions that are here and that the metadata does not know.
    strays: AtomicUsize,
    /// What the checkpoints say of those that have their own names yet: they go on saying it.
    unknown: Mutex<BTreeMap<TopicPartition, LastStop>>,
    /// See [`LogDirScan::unopened`].
    unopened: Mutex<BTreeSet<TopicPartition>>,
    /// What the file system had when it was last asked, less what was appended since, less the reserve.
    room: AtomicI64,
    /// What the append wanted that was refused last; 1 if there has been room since.
    wanted: AtomicI64,
    /// Whether it was said that there is no room.
    is_full: AtomicBool,
    /// Appended bytes of all its logs that are not flushed.
    unflushed_bytes: AtomicU64,
    /// Bytes that flushes have made durable.
    flushed_bytes: AtomicU64,
    rewrites: (Sender<Rewrite>, Receiver<Rewrite>),
    /// What each shard has offered to flush, see [`LogDir::offer_least`].
    least: Mutex<BTreeMap<ShardId, u64>>,
}

/// What a look at the file system changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fullness {
    Begins,
    Ends,
}

/// Asks for the checkpoints of a directory to be written; resolved when they are, or dropped when nobody will.
pub type Rewrite = oneshot::Sender<()>;

impl LogDir {
    fn new(path: &Path) -> LogDir {
        LogDir {
            path: path.to_owned(),
            offline: AtomicBool::new(false),
            partitions: AtomicUsize::new(0),
            strays: AtomicUsize::new(0),
            unknown: Mutex::default(),
            unopened: Mutex::default(),
            room: AtomicI64::new(i64::MAX),
            wanted: AtomicI64::new(1),
            is_full: AtomicBool::new(false),
            unflushed_bytes: AtomicU64::new(0),
            flushed_bytes: AtomicU64::new(0),
            rewrites: async_channel::bounded(REWRITES_MAX),
            least: Mutex::default(),
        }
    }

    /// Has the checkpoints written from the logs of now: what they say of a log that is gone must not hold for the next
    /// one of its name. Says whether that is durable now.
    pub async fn rewrite_checkpoints(&self) -> bool {
        let (sender, done) = oneshot::channel();
        self.rewrites.0.send(sender).await.is_ok() && done.await.is_ok()
    }

    /// Nobody writes checkpoints any more: whoever waits for it goes on.
    pub fn refuse_rewrites(&self) {
        self.rewrites.1.close();
        while self.rewrites.1.try_recv().is_ok() {}
    }

    /// The other end of [`LogDir::rewrite_checkpoints`].
    pub fn rewrites(&self) -> &Receiver<Rewrite> {
        &self.rewrites.1
    }

    pub fn is_offline(&self) -> bool {
        self.offline.load(Ordering::Acquire)
    }

    /// Whether `bytes` may be appended without touching the reserve; takes them if so.
    pub fn take_room(&self, bytes: u64) -> bool {
        let (has_room, bytes) = (self.has_room(bytes), i64::try_from(bytes).unwrap_or(i64::MAX));
        if has_room {
            self.room.fetch_sub(bytes, Ordering::Relaxed);
        } else {
            self.wanted.store(bytes, Ordering::Relaxed);
        }
        has_room
    }

    /// Notes what room there is after a look at the file system. Whether that begins or ends its being full: there is no
    /// room, or less than the append wanted that was refused last.
    fn look(&self, room: i64) -> Option<Fullness> {
        self.room.store(room, Ordering::Relaxed);
        let is_full = room < self.wanted.load(Ordering::Relaxed);
        if !is_full {
            self.wanted.store(1, Ordering::Relaxed);
        }
        match (self.is_full.swap(is_full, Ordering::Relaxed), is_full) {
            (false, true) => Some(Fullness::Begins),
            (true, false) => Some(Fullness::Ends),
            _ => None,
        }
    }

    /// Whether so much could be appended without touching the reserve.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.room.load(Ordering::Relaxed) >= i64::try_from(bytes).unwrap_or(i64::MAX)
    }

    /// What could be appended without touching the reserve; nothing is known before the file system is asked.
    pub fn room_bytes(&self) -> Option<u64> {
        let room = self.room.load(Ordering::Relaxed);
        (room < ROOM_UNKNOWN).then(|| u64::try_from(room).unwrap_or(0))
    }

    /// A log has so many unflushed bytes now, after so many before.
    pub fn note_unflushed(&self, before: u64, now: u64) {
        if now >= before {
            self.unflushed_bytes.fetch_add(now - before, Ordering::Relaxed);
        } else {
            self.unflushed_bytes.fetch_sub(before - now, Ordering::Relaxed);
            self.flushed_bytes.fetch_add(before - now, Ordering::Relaxed);
        }
    }

    pub fn unflushed_bytes(&self) -> u64 {
        self.unflushed_bytes.load(Ordering::Relaxed)
    }

    pub fn flushed_bytes(&self) -> u64 {
        self.flushed_bytes.load(Ordering::Relaxed)
    }

    /// A shard says how much was appended of late, for what is unflushed, to that one of its unflushed logs to which least
    /// was, or that it has none. Whether no other shard has one with less.
    pub fn offer_least(&self, shard: ShardId, appended: Option<u64>) -> bool {
        let mut least = self.least.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(appended) = appended else {
            least.remove(&shard);
            return false;
        };
        least.insert(shard, appended);
        least.iter().min_by_key(|(shard, appended)| (**appended, **shard)).is_some_and(|(first, _)| *first == shard)
    }

    pub fn add_partition(&self) {
        self.partitions.fetch_add(1, Ordering::Relaxed);
    }

    pub fn remove_partition(&self) {
        self.partitions.fetch_sub(1, Ordering::Relaxed);
    }

    pub fn partition_count(&self) -> usize {
        self.partitions.load(Ordering::Relaxed)
    }

    /// The log of a partition that the metadata does not know lies here: its checkpoints are kept, for whoever serves it
    /// one day.
    pub fn keep_unknown(&self, topic_partition: TopicPartition, last_stop: LastStop) {
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner).insert(topic_partition, last_stop);
    }

    /// That name is another log's now.
    pub fn forget_unknown(&self, topic_partition: &TopicPartition) {
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner).remove(topic_partition);
    }

    pub fn unknown(&self) -> BTreeMap<TopicPartition, LastStop> {
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes up what the scan found.
    pub fn scanned(&self, scan: &LogDirScan) {
        *self.unopened.lock().unwrap_or_else(PoisonError::into_inner) = scan.unopened();
    }

    /// The partition's log is open: what is in its files was looked at.
    pub fn note_opened(&self, topic_partition: &TopicPartition) {
        self.unopened.lock().unwrap_or_else(PoisonError::into_inner).remove(topic_partition);
    }

    /// What the directory's mark is to say, once its logs are open; `None`: there must be none.
    pub fn cache_mark(&self, scan: &LogDirScan) -> Option<CacheMark> {
        let unopened = self.unopened.lock().unwrap_or_else(PoisonError::into_inner).clone();
        scan.cache_life.clone().map(|life| CacheMark { life, unopened })
    }

    /// So many more directories here are no partition's that is known.
    pub fn add_strays(&self, count: usize) {
        self.strays.fetch_add(count, Ordering::Relaxed);
    }

    /// Directories of partitions that the metadata did not know at the start, or that were set aside since.
    pub fn stray_count(&self) -> usize {
        self.strays.load(Ordering::Relaxed)
    }
}

/// All of them.
pub struct LogDirs {
    all: Vec<Arc<LogDir>>,
    /// Directories that serve.
    online: AtomicUsize,
    reserve_bytes: u64,
    /// One for each shard that wants to know which directory has gone offline.
    subscribers: Mutex<Vec<Sender<usize>>>,
    /// Every log that the metadata knows was opened, or could not be.
    loaded: AtomicBool,
    on_failed: Box<dyn Fn(&Path, usize) + Send + Sync>,
}

impl LogDirs {
    /// `on_failed` is called with each directory that has gone offline, and how many are left.
    pub fn new(
        paths: &[PathBuf],
        reserve_bytes: u64,
        on_failed: impl Fn(&Path, usize) + Send + Sync + 'static,
    ) -> Arc<LogDirs> {
        Arc::new(LogDirs {
            all: paths.iter().map(|path| Arc::new(LogDir::new(path))).collect(),
            online: AtomicUsize::new(paths.len()),
            reserve_bytes,
            subscribers: Mutex::default(),
            loaded: AtomicBool::new(false),
            on_failed: Box::new(on_failed),
        })
    }

    pub fn all(&self) -> &[Arc<LogDir>] {
        &self.all
    }

    /// All logs were opened: checkpoints may be written from them from now on.
    pub fn set_loaded(&self) {
        self.loaded.store(true, Ordering::Release);
        for log_dir in &self.all {
            // A full queue wakes the same task.
            let _ = log_dir.rewrites.0.try_send(oneshot::channel().0);
        }
    }

    pub fn is_loaded(&self) -> bool {
        self.loaded.load(Ordering::Acquire)
    }

    pub fn online(&self) -> impl Iterator<Item = (usize, &Arc<LogDir>)> {
        self.all.iter().enumerate().filter(|(_, log_dir)| !log_dir.is_offline())
    }

    /// Where a new partition goes: the serving directory with the fewest (Kafka 3.9 `LogManager.nextLogDirs`), the first
    /// of them in order. Counts it there.
    pub fn place(&self) -> Option<usize> {
        let (index, log_dir) = self.online().min_by_key(|(index, log_dir)| (log_dir.partition_count(), *index))?;
        log_dir.add_partition();
        Some(index)
    }

    /// Takes a directory offline, with the reason in the log; nothing if it is already.
    pub fn fail(&self, index: usize, reason: &dyn std::fmt::Display) {
        let log_dir = &self.all[index];
        if log_dir.offline.swap(true, Ordering::AcqRel) {
            return;
        }
        // Two may fail at the same time, and one of the two is the last.
        let left = self.online.fetch_sub(1, Ordering::AcqRel) - 1;
        tracing::error!(
            directory = %log_dir.path.display(),
            partitions = log_dir.partition_count(),
            directories_left = left,
            "the directory goes offline until the next start: {reason}; check the device and its file system, then restart"
        );
        for subscriber in self.subscribers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            // A directory goes offline once, so the queue has room; closed: that shard has ended.
            let _ = subscriber.try_send(index);
        }
        (self.on_failed)(&log_dir.path, left);
    }

    /// Hears which directories go offline from now on.
    pub fn subscribe(&self) -> Receiver<usize> {
        let (sender, receiver) = async_channel::bounded(self.all.len());
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        receiver
    }

    /// Notes how much room a directory's file system has.
    pub fn set_space(&self, index: usize, space: Space) {
        let log_dir = &self.all[index];
        let reserve = self.reserve_bytes.min(space.total_bytes / RESERVE_SHARE);
        let room = i64::try_from(space.free_bytes).unwrap_or(i64::MAX) - i64::try_from(reserve).unwrap_or(i64::MAX);
        match log_dir.look(room) {
            Some(Fullness::Begins) => tracing::error!(
                directory = %log_dir.path.display(),
                free_bytes = space.free_bytes,
                reserve_bytes = reserve,
                "the file system is nearly full: produce to this directory is refused until there is room; free space, \
                 or lower --disk-reserve"
            ),
            Some(Fullness::Ends) => {
                tracing::info!(directory = %log_dir.path.display(), free_bytes = space.free_bytes, "there is room again");
            }
            None => {}
        }
    }
}

/// Whether an error of a file operation says that the directory's device or file system can't be trusted.
pub fn is_fatal(error: &io::Error) -> bool {
    !spares_device(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Arc<LogDirs> {
        LogDirs::new(&["/a".into(), "/b".into()], 100, |_, _| {})
    }

    #[test]
    fn a_new_partition_goes_to_the_serving_directory_with_the_fewest() {
        let dirs = two();
        assert_eq!([dirs.place(), dirs.place(), dirs.place()], [Some(0), Some(1), Some(0)]);
        dirs.all()[0].remove_partition();
        dirs.all()[0].remove_partition();
        assert_eq!(dirs.place(), Some(0));
        dirs.fail(0, &"a test");
        assert_eq!([dirs.place(), dirs.place()], [Some(1), Some(1)]);
        dirs.fail(1, &"a test");
        assert_eq!(dirs.place(), None);
    }

    #[test]
    fn a_failure_is_told_once_and_the_last_one_ends_the_service() {
        let ended = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&ended);
        let dirs = LogDirs::new(&["/a".into(), "/b".into()], 0, move |_, left| {
            seen.fetch_add(usize::from(left == 0), Ordering::Relaxed);
        });
        let failures = dirs.subscribe();
        dirs.fail(1, &"a test");
        dirs.fail(1, &"a test");
        assert_eq!((failures.try_recv(), failures.try_recv().is_err()), (Ok(1), true));
        assert_eq!(ended.load(Ordering::Relaxed), 0);
        dirs.fail(0, &"a test");
        assert_eq!(ended.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn the_reserve_is_kept_free_and_room_comes_back() {
        let dirs = two();
        dirs.set_space(0, Space { free_bytes: 250, total_bytes: 100_000 });
        let log_dir = &dirs.all()[0];
        assert_eq!(log_dir.room_bytes(), Some(150));
        assert!(log_dir.take_room(100) && !log_dir.take_room(100) && log_dir.take_room(50));
        assert!(!log_dir.has_room(1) && dirs.all()[1].has_room(1));
        dirs.set_space(0, Space { free_bytes: 30, total_bytes: 100_000 });
        assert_eq!(log_dir.room_bytes(), Some(0), "less than the reserve is no room");
        dirs.set_space(0, Space { free_bytes: 300, total_bytes: 100_000 });
        assert!(log_dir.has_room(1));
        assert!(dirs.all()[1].take_room(100) && dirs.all()[1].room_bytes().is_none(), "it was not asked yet");
        // Of a small file system no more than a twentieth is kept.
        dirs.set_space(0, Space { free_bytes: 60, total_bytes: 1000 });
        assert!(log_dir.take_room(10) && !log_dir.take_room(1));
    }

    #[test]
    fn a_directory_that_refuses_is_said_to_be_full_once_whether_its_room_was_used_up_by_appends_or_by_others() {
        let dirs = two();
        let log_dir = &dirs.all()[0];
        assert_eq!(log_dir.look(100), None);
        // The broker's reckoning was the first to find none, and the file system has less than is wanted.
        assert!(log_dir.take_room(100) && !log_dir.take_room(60));
        assert_eq!(log_dir.look(59), Some(Fullness::Begins));
        assert_eq!((log_dir.look(40), log_dir.look(60), log_dir.look(59)), (None, Some(Fullness::Ends), None));
        // Reckoned too low: there was room.
        assert!(log_dir.take_room(59) && !log_dir.take_room(60));
        assert_eq!(log_dir.look(100), None);
        assert_eq!((log_dir.look(0), log_dir.look(1)), (Some(Fullness::Begins), Some(Fullness::Ends)));
    }

    #[test]
    fn a_full_disk_a_short_machine_and_a_damaged_file_leave_the_directory_and_a_failing_device_does_not() {
        let full = [libc::ENOSPC, libc::EDQUOT, libc::EMFILE, libc::ENFILE];
        for code in full.into_iter().chain([libc::ENOMEM, libc::EINTR, libc::EAGAIN, libc::EBUSY, libc::ECANCELED]) {
            assert!(!is_fatal(&io::Error::from_raw_os_error(code)), "{code}");
        }
        for code in [libc::EIO, libc::EROFS, libc::ENODEV, libc::ENOENT, libc::ESTALE, libc::EACCES] {
            assert!(is_fatal(&io::Error::from_raw_os_error(code)), "{code}");
        }
        assert!(!is_fatal(&io::Error::from(io::ErrorKind::InvalidData)));
    }
}
