//! What one shard knows of a log directory: whether it serves, and how many bytes wait there.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use crate::storage::log_dirs::{LogDir, LogDirs};

/// Files of deleted segments that wait in one directory for `file.delete.delay.ms`; beyond it they go at once.
const ASIDE_FILES_MAX: usize = 16 * 1024;

/// One for each directory of a shard.
pub struct Home {
    pub index: usize,
    log_dirs: Arc<LogDirs>,
    /// Bytes of batches of clients that wait for this directory.
    waiting_bytes: Cell<u64>,
    waiting_batches: Cell<usize>,
    /// Files out of their logs that are still to be removed.
    aside_files: Cell<usize>,
    most: WaitingMax,
    /// Replicas whose logs are being opened or given up: at a stop they are not closed in order.
    pub replicas_under_way: Cell<usize>,
}

/// What clients may have waiting for one directory of several, so that one that hangs can't take all that requests may use.
#[derive(Clone, Copy, Debug)]
pub struct WaitingMax {
    pub bytes: u64,
    pub batches: usize,
}

/// A batch's share of the bytes that wait, given back by drop.
pub struct Waiting {
    home: Rc<Home>,
    bytes: u64,
}

impl Home {
    /// The homes of one shard. With one directory nothing must be kept for others.
    pub fn all(log_dirs: &Arc<LogDirs>, most: WaitingMax) -> Vec<Rc<Home>> {
        let count = log_dirs.all().len();
        let most = if count > 1 { most } else { WaitingMax { bytes: u64::MAX, batches: usize::MAX } };
        let home = |index| {
            Rc::new(Home {
                index,
                log_dirs: Arc::clone(log_dirs),
                waiting_bytes: Cell::new(0),
                waiting_batches: Cell::new(0),
                aside_files: Cell::new(0),
                most,
                replicas_under_way: Cell::new(0),
            })
        };
        (0..count).map(home).collect()
    }

    pub fn log_dir(&self) -> &LogDir {
        &self.log_dirs.all()[self.index]
    }

    /// Bytes of batches of clients that wait for the directory, and may.
    pub fn waiting_bytes(&self) -> (u64, u64) {
        (self.waiting_bytes.get(), self.most.bytes)
    }

    /// Takes the directory offline; see [`LogDirs::fail`].
    pub fn fail(&self, reason: &dyn std::fmt::Display) {
        self.log_dirs.fail(self.index, reason);
    }

    /// Whether so many more files may wait for their removal; counts them if so.
    pub(super) fn set_aside(&self, files: usize) -> bool {
        let waits = self.aside_files.get() + files <= ASIDE_FILES_MAX;
        if waits {
            self.aside_files.set(self.aside_files.get() + files);
        }
        waits
    }

    /// They are removed.
    pub(super) fn removed_aside(&self, files: usize) {
        self.aside_files.set(self.aside_files.get() - files);
    }

    /// Room for a batch, or `None`: too much waits already. A batch alone always has room.
    pub fn wait(self: &Rc<Self>, bytes: u64) -> Option<Waiting> {
        let (waiting, batches) = (self.waiting_bytes.get(), self.waiting_batches.get());
        if batches > 0 && (waiting.saturating_add(bytes) > self.most.bytes || batches >= self.most.batches) {
            return None;
        }
        self.waiting_bytes.set(waiting + bytes);
        self.waiting_batches.set(batches + 1);
        Some(Waiting { home: Rc::clone(self), bytes })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.home.waiting_bytes.set(self.home.waiting_bytes.get() - self.bytes);
        self.home.waiting_batches.set(self.home.waiting_batches.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_several_takes_its_part_of_the_memory_and_of_the_requests_and_no_more() {
        let dirs = LogDirs::new(&["/a".into(), "/b".into()], 0, |_, _| {});
        let homes = Home::all(&dirs, WaitingMax { bytes: 50, batches: 3 });
        let first = homes[0].wait(70).expect("alone it always has room");
        assert!(homes[0].wait(1).is_none() && homes[1].wait(50).is_some());
        drop(first);
        let few: Vec<_> = (0..3).map(|_| homes[0].wait(1).expect("there is room")).collect();
        assert!(homes[0].wait(1).is_none(), "three wait");
        drop(few);
        assert!(homes[0].wait(30).is_some());
    }
}
