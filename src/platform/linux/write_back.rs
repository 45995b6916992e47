//! What was appended goes to the device at the pace of the appends, so that little is dirty when the kernel would begin to
//! write by itself, or when a file is flushed.
//!
//! One thread for each device writes one piece at a time, of one file after the other. It keeps away from the end of
//! the file ([`KEEP_BYTES`]): an append needs the folio at the end, and whoever writes that back holds it.
//!
//! ```text
//!  0          clean_to      piece        appended_to - KEEP_BYTES      appended_to
//!  |---clean-----|=============|---dirty------|-------left alone---------|<- appends
//! ```
//! Where more than half of the directory's budget is dirty although no file has a piece, it is in the ends of many
//! files: then they are written whole, those first that became dirty first.

#![forbid(unsafe_code)]

use std::io;
use std::sync::Arc;

use async_channel::{Receiver, Sender, WeakSender};

use super::directory::{Directory, LinuxFile};
use crate::sys;

/// Bytes on their way to the device at once: little enough for what comes behind them not to wait long, and enough for
/// the device to be busy and for the thread's own work to be little (tuning.md).
pub const PIECE_BYTES: u64 = 1024 * 1024;

/// Bytes before the end of a file that is appended to. An append is 1 MiB at most, and so is a folio, which begins at a
/// multiple of its size: the one at the end begins behind this.
pub const KEEP_BYTES: u64 = 1024 * 1024;

/// What the thread has to do. Bounded by the number of open files and directories: each is there once at most.
enum Job {
    /// The file has a piece.
    Piece(Arc<LinuxFile>),
    /// The directory has much that is dirty.
    Relieve(Arc<Directory>),
}

/// The thread of one device. Clones share it; it ends when the last is gone.
#[derive(Clone)]
pub struct WriteBack {
    jobs: Sender<Job>,
}

impl WriteBack {
    pub fn start(name: &str) -> io::Result<WriteBack> {
        let (jobs, waiting) = async_channel::unbounded();
        let again = jobs.downgrade();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || run(&waiting, &again))?;
        Ok(WriteBack { jobs })
    }

    /// Jobs that wait.
    pub fn queued(&self) -> usize {
        self.jobs.len()
    }

    pub(super) fn write_piece_of(&self, file: Arc<LinuxFile>) {
        // Fails only when the thread has ended, with the process.
        let _ = self.jobs.try_send(Job::Piece(file));
    }

    pub(super) fn relieve(&self, directory: Arc<Directory>) {
        let _ = self.jobs.try_send(Job::Relieve(directory));
    }
}

impl std::fmt::Debug for WriteBack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WriteBack({})", self.jobs.len())
    }
}

fn run(waiting: &Receiver<Job>, again: &WeakSender<Job>) {
    if let Err(error) = sys::idle_io_priority() {
        tracing::debug!(%error, "write-back keeps its I/O priority");
    }
    while let Ok(job) = waiting.recv_blocking() {
        let next = match job {
            Job::Piece(file) => file.write_back_piece().then(|| Job::Piece(file)),
            Job::Relieve(directory) => directory.write_back_oldest().then(|| Job::Relieve(directory)),
        };
        if let (Some(next), Some(again)) = (next, again.upgrade()) {
            let _ = again.try_send(next);
        }
    }
}
