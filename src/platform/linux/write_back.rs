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

use super::directory::{Directory, LinuxFile};
use crate::sys;
use crate::worker::Helper;

/// Bytes on their way to the device at once: little enough for what comes behind them not to wait long, and enough for
/// the device to be busy and for the thread's own work to be little (tuning.md).
pub const PIECE_BYTES: u64 = 1024 * 1024;

/// Bytes before the end of a file that is appended to. An append is 1 MiB at most, and so is a folio, which begins at a
/// multiple of its size: the one at the end begins behind this.
pub const KEEP_BYTES: u64 = 1024 * 1024;

/// The thread of one device. Clones share it. Each file waits for it once at most, and so does each directory.
#[derive(Clone, Debug)]
pub struct WriteBack(Helper);

impl WriteBack {
    pub fn start(name: &str) -> io::Result<WriteBack> {
        let thread = Helper::start(name, 1)?;
        thread.start_job(|| {
            if let Err(error) = sys::idle_io_priority() {
                tracing::debug!(%error, "write-back keeps its I/O priority");
            }
        });
        Ok(WriteBack(thread))
    }

    /// Writes the file's pieces, each in its turn behind those of other files.
    pub(super) fn write_pieces_of(&self, file: Arc<LinuxFile>) {
        let this = self.clone();
        self.0.start_job(move || {
            if file.write_back_piece() {
                this.write_pieces_of(file);
            }
        });
    }

    /// Writes dirty files of the directory whole, each in its turn, until enough is clean.
    pub(super) fn relieve(&self, directory: Arc<Directory>) {
        let this = self.clone();
        self.0.start_job(move || {
            if directory.write_back_oldest() {
                this.relieve(directory);
            }
        });
    }
}
