//! One log directory as the process sees it: its threads, how much of what was appended is not on the device yet, and
//! whether it has failed. Shared by all shards.
//!
//! What is appended counts as dirty until its write-back has begun, or it was synced. A file's dirty bytes begin at
//! `clean_to` and end at `appended_to`; the device's thread writes them back as they come ([`super::write_back`]), so that
//! the kernel's own thresholds are never met and a sync finds little to do. While more is dirty than the directory's budget,
//! appends wait: they go on at the pace of the device, each after its turn, and nobody is held for long by the kernel. The
//! first error of a write-back or a sync is final: the kernel calls the pages clean afterwards, so nobody can know what is
//! on the device.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::write_back::{self, KEEP_BYTES, PIECE_BYTES, WriteBack};
use crate::base::gate::Gate;
use crate::metrics::{Histogram, Recorded, SharedCounter};
use crate::platform::{DiskFile, spares_device};
use crate::sys;
use crate::uring::ops::read::RingFile;
use crate::worker::Helper;

/// Threads for what is not synced: what concerns one partition's directory is always done by the same one, in order, and
/// a start opens as many logs beside one another.
const NAME_THREADS: usize = 4;

/// Threads that sync, so that one file's fsync does not wait for another's: the journal commits them
/// together.
const SYNC_THREADS: usize = 16;

/// Dirty files known before those are looked for that are closed.
const DIRTY_FILES_MIN: usize = 1024;

/// The read-ahead limit assumed where sysfs does not tell: Linux's default.
const READ_AHEAD_BYTES_DEFAULT: u64 = 128 * 1024;

/// The dirty bytes allowed where the kernel does not tell its thresholds.
const DIRTY_BYTES_DEFAULT: u64 = 256 * 1024 * 1024;

/// However little memory there is, a directory may have this much dirty: less would defer every append.
const DIRTY_BYTES_MIN: u64 = 32 * 1024 * 1024;

/// See the module's head.
#[derive(Debug)]
pub struct Directory {
    pub path: PathBuf,
    /// What opens, creates, writes and renames; see [`Directory::names`].
    names: Vec<Helper>,
    /// What removes and closes, which can take the kernel hundreds of milliseconds: nothing else waits behind it.
    pub removals: Helper,
    /// What syncs, in no order.
    pub syncs: Helper,
    write_back: WriteBack,
    started: Instant,
    /// The device's read-ahead limit: what one WILLNEED really reads.
    pub read_ahead_bytes: u64,
    dirty_bytes: AtomicU64,
    dirty_bytes_max: u64,
    /// Appends that wait until less is dirty.
    room: Gate,
    /// Files that have a piece to be written back.
    pieces: AtomicUsize,
    /// The ends of files are being written back.
    relieving: AtomicBool,
    dirty_files: Mutex<DirtyFiles>,
    /// A write says when it would have to wait, as far as is known.
    tells_waits: AtomicBool,
    failed: AtomicBool,
    sync_time: Histogram<SharedCounter>,
}

/// Files with dirty bytes, those first that became dirty first; some are closed meanwhile.
#[derive(Debug, Default)]
struct DirtyFiles {
    files: VecDeque<Weak<LinuxFile>>,
    /// So many were not closed when that was looked at last.
    open: usize,
}

impl DirtyFiles {
    fn add(&mut self, file: Weak<LinuxFile>) {
        if self.files.len() >= DIRTY_FILES_MIN.max(2 * self.open) {
            self.files.retain(|file| file.strong_count() > 0);
            self.open = self.files.len();
        }
        self.files.push_back(file);
    }

    fn next(&mut self) -> Option<Arc<LinuxFile>> {
        std::iter::from_fn(|| self.files.pop_front()).find_map(|file| file.upgrade())
    }
}

impl Directory {
    /// Starts the threads of the directory at `path`; `dirty_bytes_max` is its share, `write_back` its device's.
    pub fn start(path: &Path, index: usize, dirty_bytes_max: u64, write_back: WriteBack) -> io::Result<Arc<Directory>> {
        let names = (0..NAME_THREADS).map(|thread| Helper::start(&format!("disk-{index}.{thread}"), 1));
        Ok(Arc::new(Directory {
            path: path.to_owned(),
            names: names.collect::<io::Result<_>>()?,
            removals: Helper::start(&format!("remove-{index}"), 1)?,
            syncs: Helper::start(&format!("sync-{index}"), SYNC_THREADS)?,
            write_back,
            started: Instant::now(),
            read_ahead_bytes: read_ahead_bytes(path).unwrap_or(READ_AHEAD_BYTES_DEFAULT),
            dirty_bytes: AtomicU64::new(0),
            dirty_bytes_max: dirty_bytes_max.max(DIRTY_BYTES_MIN),
            room: Gate::default(),
            pieces: AtomicUsize::new(0),
            relieving: AtomicBool::new(false),
            dirty_files: Mutex::default(),
            tells_waits: AtomicBool::new(true),
            failed: AtomicBool::new(false),
            sync_time: Histogram::default(),
        }))
    }

    /// The thread for operations on `path`, which lies in this directory.
    pub fn names(&self, path: &Path) -> &Helper {
        let within = path.strip_prefix(&self.path).unwrap_or(path);
        let partition = within.components().next().map_or(&[][..], |name| name.as_os_str().as_encoded_bytes());
        &self.names[crc32fast::hash(partition) as usize % self.names.len()]
    }

    /// Appended bytes that are not known to be on the device.
    pub fn dirty_bytes(&self) -> u64 {
        self.dirty_bytes.load(Ordering::Relaxed)
    }

    /// What [`Directory::dirty_bytes`] may be; above it appends wait.
    pub fn dirty_bytes_max(&self) -> u64 {
        self.dirty_bytes_max
    }

    /// How long syncs took.
    pub fn sync_time(&self) -> Recorded {
        Recorded::from(&self.sync_time)
    }

    /// Operations on names that wait for one of the threads, and how many may; and the same of syncs.
    pub fn queues(&self) -> [(usize, usize); 2] {
        let names = self.names.iter().chain([&self.removals]).map(Helper::queue);
        let names = names.fold((0, 0), |sum, queue| (sum.0 + queue.0, sum.1 + queue.1));
        [names, self.syncs.queue()]
    }

    /// More is dirty than may be.
    pub fn is_over_budget(&self) -> bool {
        self.dirty_bytes.load(Ordering::SeqCst) > self.dirty_bytes_max
    }

    /// Waits until less is dirty than may be, or nothing is written back any more.
    pub async fn room(&self) {
        self.room.pass(|| !self.is_over_budget() || self.check().is_err()).await;
    }

    /// Whether the file system tells of a write that it would have to wait (RWF_NOWAIT), instead of waiting.
    pub fn tells_waits(&self) -> bool {
        self.tells_waits.load(Ordering::Relaxed)
    }

    pub fn set_tells_no_waits(&self) {
        self.tells_waits.store(false, Ordering::Relaxed);
    }

    /// Has the ends of files written back, where that is what is dirty.
    fn relieve_if_needed(self: &Arc<Self>) {
        let is_needed = || self.dirty_bytes() > self.dirty_bytes_max / 2 && self.pieces.load(Ordering::Relaxed) == 0;
        if is_needed() && !self.relieving.swap(true, Ordering::AcqRel) {
            self.write_back.relieve(Arc::clone(self));
        }
    }

    /// Writes back all of the file that became dirty first, on the calling thread; whether that was not enough.
    pub(super) fn write_back_oldest(self: &Arc<Self>) -> bool {
        let next = self.dirty_files.lock().unwrap_or_else(PoisonError::into_inner).next();
        if let Some(file) = &next {
            file.write_back_whole();
        }
        self.relieving.store(false, Ordering::Release);
        let is_enough = next.is_none()
            || self.check().is_err()
            || self.dirty_bytes() <= self.dirty_bytes_max / 2
            || self.pieces.load(Ordering::Relaxed) > 0;
        !is_enough && !self.relieving.swap(true, Ordering::AcqRel)
    }

    /// Microseconds since the directory was started.
    fn micros(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// `Err` after the first failed write-back or sync.
    pub fn check(&self) -> io::Result<()> {
        match self.failed.load(Ordering::Relaxed) {
            true => Err(io::Error::other(format!(
                "{}: an earlier write to the device failed; what is on it is not known",
                self.path.display()
            ))),
            false => Ok(()),
        }
    }

    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if result.is_err() {
            self.failed.store(true, Ordering::SeqCst);
            self.room.look_again();
        }
        result
    }
}

/// Dirty bytes that all log directories together may have: `asked`, or half of what the kernel allows before it starts to
/// write back by itself (`vm.dirty_background_bytes`, `vm.dirty_background_ratio`).
pub fn dirty_bytes_max(asked: Option<u64>) -> u64 {
    asked.or_else(|| Some(background_bytes()? / 2)).unwrap_or(DIRTY_BYTES_DEFAULT)
}

fn background_bytes() -> Option<u64> {
    let number = |name: &str| std::fs::read_to_string(name).ok()?.trim().parse::<u64>().ok();
    if let Some(bytes) = number("/proc/sys/vm/dirty_background_bytes").filter(|bytes| *bytes > 0) {
        return Some(bytes);
    }
    let ratio = number("/proc/sys/vm/dirty_background_ratio")?;
    let memory = std::fs::read_to_string("/proc/meminfo").ok()?;
    let available = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = available.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib.checked_mul(1024)? / 100 * ratio)
}

fn read_ahead_bytes(directory: &Path) -> Option<u64> {
    let device = std::fs::metadata(directory).ok()?.dev();
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let block = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    // A partition has its queue in the directory above, the disk's.
    let setting = std::fs::read_to_string(block.join("queue/read_ahead_kb"))
        .or_else(|_| std::fs::read_to_string(block.join("../queue/read_ahead_kb")))
        .ok()?;
    let bytes = setting.trim().parse::<u64>().ok()?.checked_mul(1024)?;
    (bytes >= sys::page_bytes()).then_some(bytes)
}

/// An open file of a log directory; its last drop closes it on a thread of the directory.
#[derive(Debug)]
pub struct LinuxFile {
    /// `None` only inside `drop`.
    file: Option<File>,
    pub(super) directory: Arc<Directory>,
    /// For what concerns its name and length.
    pub(super) names: Helper,
    /// End of what was appended through this handle; 0 before the first append.
    appended_to: AtomicU64,
    /// Appended bytes below are on the device, or on their way, or were there before.
    clean_to: AtomicU64,
    /// It waits for the device's thread.
    has_piece: AtomicBool,
    /// When its last piece was begun ([`Directory::micros`]).
    piece_begun: AtomicU64,
    /// It is among the directory's dirty files.
    is_listed: AtomicBool,
    /// Syncs and write-backs of its end that are under way, and where the last one of them found the end.
    holders: AtomicU32,
    held_to: AtomicU64,
    /// Reservations of blocks under way.
    reservations: AtomicU32,
}

impl LinuxFile {
    pub fn new(file: File, path: &Path, directory: Arc<Directory>) -> LinuxFile {
        LinuxFile {
            file: Some(file),
            names: directory.names(path).clone(),
            directory,
            appended_to: AtomicU64::new(0),
            clean_to: AtomicU64::new(0),
            has_piece: AtomicBool::new(false),
            piece_begun: AtomicU64::new(0),
            is_listed: AtomicBool::new(false),
            holders: AtomicU32::new(0),
            held_to: AtomicU64::new(0),
            reservations: AtomicU32::new(0),
        }
    }

    pub fn file(&self) -> &File {
        self.file.as_ref().expect("taken only by drop")
    }

    /// Whether something is under way that an append at `position`, its end, may have to wait for: the file's lock, or the
    /// folio that a sync has found at the end. Only the first append after the sync began needs that one: what was
    /// appended since is no part of the sync.
    pub fn is_held(&self, position: u64) -> bool {
        let is_synced = self.holders.load(Ordering::Acquire) > 0 && position <= self.held_to.load(Ordering::Relaxed);
        is_synced || self.reservations.load(Ordering::Acquire) > 0
    }

    /// Does something that takes the folio at the end, on the calling thread.
    fn holding_end<T>(&self, work: impl FnOnce() -> T) -> T {
        self.held_to.store(self.appended_to.load(Ordering::Relaxed), Ordering::Relaxed);
        self.holders.fetch_add(1, Ordering::AcqRel);
        let done = work();
        self.holders.fetch_sub(1, Ordering::AcqRel);
        done
    }

    /// Reserves blocks beyond the file's end, on the calling thread; takes the file's lock.
    pub fn reserve(&self, position: u64, length: u64) -> io::Result<()> {
        self.reservations.fetch_add(1, Ordering::AcqRel);
        let reserved = sys::preallocate(self.as_fd(), position, length);
        self.reservations.fetch_sub(1, Ordering::AcqRel);
        reserved
    }

    /// Takes note of an append that is through; what it resolves to. Enough appended bytes are sent on their way to the
    /// device. An error is final for the directory unless it says nothing of the device.
    pub fn finish_append(self: &Arc<Self>, position: u64, length: u64, result: io::Result<()>) -> io::Result<()> {
        if let Err(error) = result {
            return if spares_device(&error) { Err(error) } else { self.directory.note(Err(error)) };
        }
        let before = self.appended_to.load(Ordering::Relaxed);
        if before != position {
            // The first one through this handle, or what stood here was cut off.
            self.mark_clean(before);
            self.clean_to.store(position, Ordering::Relaxed);
        }
        // The flags are looked at after this, and the device's thread looks at the end after it has cleared them: one of the
        // two sees what the other did.
        self.appended_to.store(position + length, Ordering::SeqCst);
        self.directory.dirty_bytes.fetch_add(length, Ordering::Relaxed);
        if !self.is_listed.load(Ordering::SeqCst) {
            self.list();
        }
        if self.piece().is_some() {
            self.ask_for_write_back();
        } else {
            self.directory.relieve_if_needed();
        }
        Ok(())
    }

    /// Puts it behind the dirty files of the directory.
    fn list(self: &Arc<Self>) {
        self.is_listed.store(true, Ordering::SeqCst);
        let mut dirty_files = self.directory.dirty_files.lock().unwrap_or_else(PoisonError::into_inner);
        dirty_files.add(Arc::downgrade(self));
    }

    fn ask_for_write_back(self: &Arc<Self>) {
        if !self.has_piece.load(Ordering::SeqCst) && !self.has_piece.swap(true, Ordering::SeqCst) {
            self.directory.pieces.fetch_add(1, Ordering::Relaxed);
            self.directory.write_back.write_pieces_of(Arc::clone(self));
        }
    }

    /// The next piece, from where to where, if there is one so far before the end of what was appended, and it is time.
    fn piece(&self) -> Option<(u64, u64)> {
        let (from, to) = (self.clean_to.load(Ordering::Relaxed), self.appended_to.load(Ordering::SeqCst));
        let waiting = to.saturating_sub(from + KEEP_BYTES);
        if waiting < PIECE_BYTES {
            return None; // As for most appends: the clock is not asked.
        }
        let since_last = self.directory.micros().saturating_sub(self.piece_begun.load(Ordering::Relaxed));
        let length = write_back::piece_bytes(waiting, Duration::from_micros(since_last))?;
        Some((from, (from + length) & !(sys::page_bytes() - 1)))
    }

    /// Begins to write back one piece, on the thread of the device; whether there is another one. An error is final for the
    /// directory.
    pub(super) fn write_back_piece(self: &Arc<Self>) -> bool {
        if let Some((from, to)) = self.piece() {
            self.piece_begun.store(self.directory.micros(), Ordering::Relaxed);
            self.directory.write_back.begin(self, from, to);
        }
        let has_more = || self.piece().is_some() && self.directory.check().is_ok();
        if has_more() {
            return true;
        }
        self.has_piece.store(false, Ordering::SeqCst);
        // What was appended since it was looked at has not asked.
        let is_last = !has_more() || self.has_piece.swap(true, Ordering::SeqCst);
        if is_last {
            self.directory.pieces.fetch_sub(1, Ordering::Relaxed);
            self.directory.relieve_if_needed();
        }
        !is_last
    }

    /// Writes back all that was appended, on the thread of the device.
    fn write_back_whole(self: &Arc<Self>) {
        self.is_listed.store(false, Ordering::SeqCst);
        let end = self.appended_to.load(Ordering::SeqCst);
        let mut from = self.clean_to.load(Ordering::Relaxed);
        self.directory.write_back.wait_for_begun();
        while from < end && self.directory.check().is_ok() {
            let to = end.min(from + PIECE_BYTES);
            self.holding_end(|| {
                if self.begin_write_back(from, to) {
                    self.wait_for_write_back(from, to);
                }
            });
            from = to;
        }
        if self.appended_to.load(Ordering::SeqCst) > end && !self.is_listed.load(Ordering::SeqCst) {
            self.list();
        }
    }

    /// Has the device begin to write from one position to another; whether it has.
    pub(super) fn begin_write_back(&self, from: u64, to: u64) -> bool {
        let has_begun = self.note_write_back(sys::start_write_back(self.as_fd(), from, to - from));
        if has_begun {
            self.mark_clean(to);
        }
        has_begun
    }

    /// Waits until the device has what it has begun to write from one position to another.
    pub(super) fn wait_for_write_back(&self, from: u64, to: u64) {
        self.note_write_back(sys::wait_written_back(self.as_fd(), from, to - from));
    }

    fn note_write_back(&self, result: io::Result<()>) -> bool {
        let noted = self.directory.note(result);
        if let Err(error) = &noted {
            tracing::error!(directory = %self.directory.path.display(), %error, "write-back failed");
        }
        noted.is_ok()
    }

    /// fdatasync; an error is final for the directory.
    pub fn sync(&self) -> io::Result<()> {
        self.directory.check()?;
        let to = self.appended_to.load(Ordering::Relaxed);
        let start = Instant::now();
        let result = self.holding_end(|| self.file().sync_data());
        self.directory.sync_time.record(start.elapsed());
        self.directory.note(result)?;
        self.mark_clean(to);
        Ok(())
    }

    fn mark_clean(&self, to: u64) {
        let from = self.clean_to.fetch_max(to, Ordering::Relaxed);
        if from < to {
            // What was cut off and appended again meanwhile may be counted twice here, and never below nothing.
            let less = |bytes: u64| Some(bytes.saturating_sub(to - from));
            let _ = self.directory.dirty_bytes.fetch_update(Ordering::SeqCst, Ordering::Relaxed, less);
            self.directory.room.look_again();
        }
    }
}

impl Drop for LinuxFile {
    fn drop(&mut self) {
        // Deleted, or written back by the kernel in its own time: not ours to watch any more.
        self.mark_clean(self.appended_to.load(Ordering::Relaxed));
        self.directory.removals.drop_there(self.file.take());
    }
}

impl DiskFile for LinuxFile {}

impl AsFd for LinuxFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file().as_fd()
    }
}

impl RingFile for LinuxFile {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory_at(path: &Path) -> Arc<Directory> {
        let write_back = WriteBack::start("write-back").expect("write-back");
        Directory::start(path, 0, 1, write_back).expect("directory")
    }

    #[test]
    fn only_the_first_append_after_a_sync_began_may_have_to_wait_for_it() {
        let path = tempfile::tempdir().expect("directory");
        let file = tempfile::tempfile().expect("file");
        let file = Arc::new(LinuxFile::new(file, &path.path().join("log"), directory_at(path.path())));
        file.finish_append(0, 100, Ok(())).expect("appended");
        assert!(!file.is_held(100));
        file.holding_end(|| {
            assert!(file.is_held(100));
            file.finish_append(100, 50, Ok(())).expect("appended");
            assert!(!file.is_held(150), "the sync knows nothing of what is at the end now");
        });
        file.holding_end(|| assert!(file.is_held(150), "but the next one does"));
        assert!(!file.is_held(150));
    }

    #[test]
    fn files_that_were_closed_do_not_gather_among_the_dirty_ones() {
        let path = tempfile::tempdir().expect("directory");
        let directory = directory_at(path.path());
        let open = || {
            let file = tempfile::tempfile().expect("file");
            Arc::new(LinuxFile::new(file, &path.path().join("log"), Arc::clone(&directory)))
        };
        let kept = open();
        let mut dirty_files = DirtyFiles::default();
        dirty_files.add(Arc::downgrade(&kept));
        for _ in 0..3 * DIRTY_FILES_MIN {
            dirty_files.add(Arc::downgrade(&open()));
            assert!(dirty_files.files.len() <= DIRTY_FILES_MIN);
        }
        assert!(dirty_files.next().is_some_and(|next| Arc::ptr_eq(&next, &kept)), "it is still the first");
        assert!(dirty_files.next().is_none());
    }
}
