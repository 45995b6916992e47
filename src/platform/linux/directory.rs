//! One log directory as the process sees it: its threads, how much of what was appended is not on the device yet, and
//! whether it has failed. Shared by all shards.
//!
//! What is appended counts as dirty until it was written back or synced. A file's dirty bytes begin at `clean_to` and end
//! at `appended_to`; every [`WRITE_BACK_STEP_BYTES`] a sync thread writes back what lies between (`sync_file_range`), so
//! that the kernel's own thresholds are never met and a sync finds little to do. The first error of a write-back or a
//! sync is final: the kernel calls the pages clean afterwards, so nobody can know what is on the device.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use crate::metrics::{Histogram, Recorded, SharedCounter};
use crate::platform::{DiskFile, spares_device};
use crate::sys;
use crate::uring::ops::read::RingFile;
use crate::worker::Helper;

/// Threads for what is not synced: what concerns one partition's directory is always done by the same one, in order, and
/// a start opens as many logs beside one another.
const NAME_THREADS: usize = 4;

/// Threads that sync and write back, so that one file's fsync does not wait for another's: the journal commits them
/// together.
const SYNC_THREADS: usize = 16;

/// Appended bytes of a file after which they are written back.
const WRITE_BACK_STEP_BYTES: u64 = 8 * 1024 * 1024;

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
    /// What opens, closes, creates, renames and removes; see [`Directory::names`].
    names: Vec<Helper>,
    /// What syncs and writes back, in no order.
    pub syncs: Helper,
    /// The device's read-ahead limit: what one WILLNEED really reads.
    pub read_ahead_bytes: u64,
    dirty_bytes: AtomicU64,
    dirty_bytes_max: u64,
    failed: AtomicBool,
    sync_time: Histogram<SharedCounter>,
}

impl Directory {
    /// Starts the threads of the directory at `path`; `dirty_bytes_max` is its share.
    pub fn start(path: &Path, index: usize, dirty_bytes_max: u64) -> io::Result<Arc<Directory>> {
        let names = (0..NAME_THREADS).map(|thread| Helper::start(&format!("disk-{index}.{thread}"), 1));
        Ok(Arc::new(Directory {
            path: path.to_owned(),
            names: names.collect::<io::Result<_>>()?,
            syncs: Helper::start(&format!("sync-{index}"), SYNC_THREADS)?,
            read_ahead_bytes: read_ahead_bytes(path).unwrap_or(READ_AHEAD_BYTES_DEFAULT),
            dirty_bytes: AtomicU64::new(0),
            dirty_bytes_max: dirty_bytes_max.max(DIRTY_BYTES_MIN),
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

    /// What [`Directory::dirty_bytes`] may be; above it appends go to kernel workers.
    pub fn dirty_bytes_max(&self) -> u64 {
        self.dirty_bytes_max
    }

    /// How long syncs took.
    pub fn sync_time(&self) -> Recorded {
        Recorded::from(&self.sync_time)
    }

    /// Operations on names that wait for one of the threads, and how many may; and the same of syncs and write-backs.
    pub fn queues(&self) -> [(usize, usize); 2] {
        let names = self.names.iter().map(Helper::queue);
        let names = names.fold((0, 0), |sum, queue| (sum.0 + queue.0, sum.1 + queue.1));
        [names, self.syncs.queue()]
    }

    /// More is dirty than may be.
    pub fn is_over_budget(&self) -> bool {
        self.dirty_bytes() > self.dirty_bytes_max
    }

    /// After a spell over the budget: little enough is dirty again.
    pub fn has_caught_up(&self) -> bool {
        self.dirty_bytes() <= self.dirty_bytes_max / 2
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
            self.failed.store(true, Ordering::Relaxed);
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

/// An open file of a log directory; its last drop closes it on the directory's thread.
#[derive(Debug)]
pub struct LinuxFile {
    /// `None` only inside `drop`.
    file: Option<File>,
    pub(super) directory: Arc<Directory>,
    /// For what concerns its name and length.
    pub(super) names: Helper,
    /// End of what was appended through this handle; 0 before the first append.
    appended_to: AtomicU64,
    /// Appended bytes below are on the device, or were there before.
    clean_to: AtomicU64,
    writing_back: AtomicBool,
    /// Beginnings and ends of reservations of blocks.
    reservations: AtomicU32,
}

/// How far the reservations of blocks of a file are: what is the same at two times, and not under way, did not keep the
/// file's lock from anybody between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservations(u32);

impl Reservations {
    /// After so many beginnings and ends.
    pub fn at(changes: u32) -> Reservations {
        Reservations(changes)
    }

    pub fn is_under_way(self) -> bool {
        self.0 % 2 == 1
    }
}

impl LinuxFile {
    pub fn new(file: File, path: &Path, directory: Arc<Directory>) -> LinuxFile {
        LinuxFile {
            file: Some(file),
            names: directory.names(path).clone(),
            directory,
            appended_to: AtomicU64::new(0),
            clean_to: AtomicU64::new(0),
            writing_back: AtomicBool::new(false),
            reservations: AtomicU32::new(0),
        }
    }

    /// Reserves blocks beyond the file's end, on the calling thread: the file's helper, of which there is one.
    pub fn reserve(&self, position: u64, length: u64) -> io::Result<()> {
        self.reservations.fetch_add(1, Ordering::AcqRel);
        let reserved = sys::preallocate(self.as_fd(), position, length);
        self.reservations.fetch_add(1, Ordering::AcqRel);
        reserved
    }

    pub fn reservations(&self) -> Reservations {
        Reservations::at(self.reservations.load(Ordering::Acquire))
    }

    pub fn file(&self) -> &File {
        self.file.as_ref().expect("taken only by drop")
    }

    /// Takes note of an append that is through; what it resolves to. Enough appended bytes are sent on their way to the
    /// device. An error is final for the directory unless it says nothing of the device.
    pub fn finish_append(self: &Arc<Self>, position: u64, length: u64, result: io::Result<()>) -> io::Result<()> {
        if let Err(error) = result {
            return if spares_device(&error) { Err(error) } else { self.directory.note(Err(error)) };
        }
        if self.appended_to.load(Ordering::Relaxed) == 0 {
            self.clean_to.store(position, Ordering::Relaxed);
        }
        let end = position + length;
        self.appended_to.store(end, Ordering::Relaxed);
        self.directory.dirty_bytes.fetch_add(length, Ordering::Relaxed);
        let dirty = end.saturating_sub(self.clean_to.load(Ordering::Relaxed));
        if dirty >= WRITE_BACK_STEP_BYTES && !self.writing_back.swap(true, Ordering::Relaxed) {
            let file = Arc::clone(self);
            self.directory.syncs.start_job(move || file.write_back());
        }
        Ok(())
    }

    /// Writes back what was appended so far, on the calling thread; an error is final for the directory.
    fn write_back(&self) {
        let (from, to) = (self.clean_to.load(Ordering::Relaxed), self.appended_to.load(Ordering::Relaxed));
        if from < to && self.directory.check().is_ok() {
            match self.directory.note(sys::write_back(self.as_fd(), from, to - from)) {
                Ok(()) => self.mark_clean(to),
                Err(error) => {
                    tracing::error!(directory = %self.directory.path.display(), %error, "write-back failed");
                }
            }
        }
        self.writing_back.store(false, Ordering::Relaxed);
    }

    /// fdatasync; an error is final for the directory.
    pub fn sync(&self) -> io::Result<()> {
        self.directory.check()?;
        let to = self.appended_to.load(Ordering::Relaxed);
        let start = Instant::now();
        let result = self.file().sync_data();
        self.directory.sync_time.record(start.elapsed());
        self.directory.note(result)?;
        self.mark_clean(to);
        Ok(())
    }

    fn mark_clean(&self, to: u64) {
        let from = self.clean_to.fetch_max(to, Ordering::Relaxed);
        self.directory.dirty_bytes.fetch_sub(to.saturating_sub(from), Ordering::Relaxed);
    }
}

impl Drop for LinuxFile {
    fn drop(&mut self) {
        // Deleted, or written back by the kernel in its own time: not ours to watch any more.
        self.mark_clean(self.appended_to.load(Ordering::Relaxed));
        self.names.drop_there(self.file.take());
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
