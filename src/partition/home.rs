//! What one shard knows of a log directory: whether it serves, and how many bytes wait there.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use crate::storage::log_dirs::{LogDir, LogDirs};

/// One for each directory of a shard.
pub struct Home {
    pub index: usize,
    log_dirs: Arc<LogDirs>,
    /// Bytes of batches that wait for this directory.
    waiting_bytes: Cell<u64>,
    /// So that a directory that hangs can't take all the memory that requests may use.
    waiting_bytes_max: u64,
}

/// A batch's share of the bytes that wait, given back by drop.
pub struct Waiting {
    home: Rc<Home>,
    bytes: u64,
}

impl Home {
    /// The homes of one shard. With one directory nothing must be kept for others.
    pub fn all(log_dirs: &Arc<LogDirs>, request_bytes_max: u64) -> Vec<Rc<Home>> {
        let count = log_dirs.all().len();
        let waiting_bytes_max = if count > 1 { request_bytes_max / 2 } else { u64::MAX };
        let home = |index| {
            Rc::new(Home { index, log_dirs: Arc::clone(log_dirs), waiting_bytes: Cell::new(0), waiting_bytes_max })
        };
        (0..count).map(home).collect()
    }

    pub fn log_dir(&self) -> &LogDir {
        &self.log_dirs.all()[self.index]
    }

    /// Takes the directory offline; see [`LogDirs::fail`].
    pub fn fail(&self, reason: &dyn std::fmt::Display) {
        self.log_dirs.fail(self.index, reason);
    }

    /// Room for a batch, or `None`: too much waits already. A batch alone always has room.
    pub fn wait(self: &Rc<Self>, bytes: u64) -> Option<Waiting> {
        let waiting = self.waiting_bytes.get();
        if waiting > 0 && waiting.saturating_add(bytes) > self.waiting_bytes_max {
            return None;
        }
        self.waiting_bytes.set(waiting + bytes);
        Some(Waiting { home: Rc::clone(self), bytes })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.home.waiting_bytes.set(self.home.waiting_bytes.get() - self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_several_takes_half_of_the_memory_for_requests_and_no_more() {
        let dirs = LogDirs::new(&["/a".into(), "/b".into()], 0, || {});
        let homes = Home::all(&dirs, 100);
        let first = homes[0].wait(70).expect("alone it always has room");
        assert!(homes[0].wait(1).is_none() && homes[1].wait(50).is_some());
        drop(first);
        assert!(homes[0].wait(30).is_some());
    }
}
