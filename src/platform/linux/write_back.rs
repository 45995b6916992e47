//! What was appended goes to the device at the pace of the appends, so that little is dirty when the kernel would begin to
//! write by itself, or when a file is flushed.
//!
//! One thread for each device writes one piece at a time, of one file after the other. Before it begins a piece it
//! waits for the one before, which mostly is at the device by then, unless files grow as fast as the device writes: to
//! wait for each as soon as it has begun would always cost a sleep and a wake. It keeps away from the end of the file
//! ([`KEEP_BYTES`]): an append needs the folio at the end, and whoever writes that back holds it.
//!
//! ```text
//!  0          clean_to      piece        appended_to - KEEP_BYTES      appended_to
//!  |---clean-----|=============|---dirty------|-------left alone---------|<- appends
//! ```
//! Where more than half of the directory's budget is dirty although no file has a piece, it is in the ends of many
//! files: then they are written whole, those first that became dirty first.

#![forbid(unsafe_code)]

use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::directory::{Directory, LinuxFile};
use crate::sys;
use crate::worker::Helper;

/// Bytes on their way to the device at once: little enough for what comes behind them not to wait long, and enough for
/// the device to be busy and for the thread's own work to be little (tuning.md).
pub const PIECE_BYTES: u64 = 1024 * 1024;

/// As many at once where a file has them within [`PIECE_PACE`]: each piece costs the thread a sleep, and at such a rate that
/// is a good part of what write-back takes of the core.
pub const PIECE_BYTES_MAX: u64 = 4 * PIECE_BYTES;

/// A file has one piece in this time; sooner only if it is of [`PIECE_BYTES_MAX`].
pub const PIECE_PACE: Duration = Duration::from_millis(30);

/// Bytes before the end of a file that is appended to. An append is 1 MiB at most, and so is a folio, which begins at a
/// multiple of its size: the one at the end begins behind this.
pub const KEEP_BYTES: u64 = 1024 * 1024;

/// The length of a file's next piece, if it has one: of the bytes that may be written, so long after its last one was begun.
pub(super) fn piece_bytes(waiting: u64, since_last: Duration) -> Option<u64> {
    let is_due = waiting >= PIECE_BYTES_MAX || waiting >= PIECE_BYTES && since_last >= PIECE_PACE;
    is_due.then(|| waiting.min(PIECE_BYTES_MAX))
}

/// The thread of one device. Clones share it. Each file waits for it once at most, and so does each directory.
#[derive(Clone, Debug)]
pub struct WriteBack {
    thread: Helper,
    /// Only the thread looks at it.
    begun: Arc<Mutex<Option<Begun>>>,
}

/// The piece that the device was given last. Nobody waits for a file that is gone.
#[derive(Debug)]
struct Begun {
    file: Weak<LinuxFile>,
    from: u64,
    to: u64,
}

impl WriteBack {
    pub fn start(name: &str) -> io::Result<WriteBack> {
        let thread = Helper::start(name, 1)?;
        thread.start_job(|| {
            if let Err(error) = sys::idle_io_priority() {
                tracing::debug!(%error, "write-back keeps its I/O priority");
            }
        });
        Ok(WriteBack { thread, begun: Arc::default() })
    }

    /// Writes the file's pieces, each in its turn behind those of other files.
    pub(super) fn write_pieces_of(&self, file: Arc<LinuxFile>) {
        let this = self.clone();
        self.thread.start_job(move || {
            if file.write_back_piece() {
                this.write_pieces_of(file);
            }
        });
    }

    /// Writes dirty files of the directory whole, each in its turn, until enough is clean.
    pub(super) fn relieve(&self, directory: Arc<Directory>) {
        let this = self.clone();
        self.thread.start_job(move || {
            if directory.write_back_oldest() {
                this.relieve(directory);
            }
        });
    }

    /// Begins to write a piece when the one before it is at the device; on the thread. Its bytes are not dirty any more.
    pub(super) fn begin(&self, file: &Arc<LinuxFile>, from: u64, to: u64) {
        self.wait_for_begun();
        if file.begin_write_back(from, to) {
            *self.begun.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(Begun { file: Arc::downgrade(file), from, to });
        }
    }

    /// Waits until what was begun is at the device; on the thread.
    pub(super) fn wait_for_begun(&self) {
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Begun { file, from, to }) = begun
            && let Some(file) = file.upgrade()
        {
            file.wait_for_write_back(from, to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_appended_to_slowly_has_small_pieces_and_one_with_much_large_ones() {
        let soon = PIECE_PACE - Duration::from_millis(1);
        assert_eq!(piece_bytes(PIECE_BYTES - 1, PIECE_PACE * 100), None);
        assert_eq!(piece_bytes(PIECE_BYTES, PIECE_PACE), Some(PIECE_BYTES));
        assert_eq!(piece_bytes(PIECE_BYTES_MAX - 1, soon), None);
        assert_eq!(piece_bytes(PIECE_BYTES_MAX, soon), Some(PIECE_BYTES_MAX));
        assert_eq!(piece_bytes(u64::MAX, Duration::ZERO), Some(PIECE_BYTES_MAX));
    }
}
