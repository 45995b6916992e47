//! What is sent for a request: bytes, and ranges of log files between them.
//!
//! Bytes of replies that are ready together leave in one send. A short range is read into them (one `preadv2` is
//! cheaper than a header and a sendfile); a long one leaves by sendfile, in steps that were just seen resident.

use bytes::{Bytes, BytesMut};
use std::io;

use crate::base::budget::Permit;
use crate::metrics::ShardCounters;
use crate::platform::{Disk, FileRange, Platform, Socket};

/// Up to here a range is copied, above it leaves by sendfile (DESIGN section 3: 5.6 against 3.9 us at 16 KiB).
pub const COPIED_RANGE_BYTES_MAX: u64 = 8 * 1024;

/// How far ahead of the send a range is checked for residency, and brought in if it is cold.
const RESIDENT_STEP_BYTES: u64 = 1024 * 1024;

/// How often one step may be found evicted again after it was brought in, before it is read and sent as a copy.
const RESIDENT_TRIES_MAX: u32 = 8;

/// How much is copied at a time where pages are evicted faster than they can be sent.
const COPIED_STEP_BYTES: u64 = 128 * 1024;

/// Up to here bytes are gathered, to leave together; a copy of more costs more than another send.
const GATHERED_BYTES_MAX: usize = 64 * 1024;

/// One piece of a reply.
#[derive(Debug)]
pub enum ReplyPart<F> {
    Bytes(Bytes),
    Range {
        range: FileRange<F>,
        /// This process appended these bytes recently, so they are in the page cache.
        recently_appended: bool,
    },
}

/// A whole response frame, size prefix included.
#[derive(Debug)]
pub struct Reply<F> {
    pub parts: Vec<ReplyPart<F>>,
    /// What the parts take of a budget, until they are sent.
    pub held: Option<Permit>,
}

impl<F> Reply<F> {
    pub fn bytes(frame: impl Into<Bytes>) -> Reply<F> {
        Reply { parts: vec![ReplyPart::Bytes(frame.into())], held: None }
    }

    /// Memory that it takes: ranges take none.
    pub fn bytes_held(&self) -> u64 {
        let bytes = |part: &ReplyPart<F>| match part {
            ReplyPart::Bytes(bytes) => bytes.len() as u64,
            ReplyPart::Range { .. } => 0,
        };
        self.parts.iter().map(bytes).sum()
    }
}

/// The file type of a platform.
pub type FileOf<P> = <<P as Platform>::Disk as Disk>::File;

/// Sends parts of one connection, in order. The only place that writes to its socket.
pub struct ReplySender<'a, P: Platform> {
    platform: &'a P,
    socket: &'a P::Socket,
    counters: &'a ShardCounters,
    /// Bytes not sent yet: they wait for what follows, to leave together.
    held: BytesMut,
}

impl<'a, P: Platform> ReplySender<'a, P> {
    pub fn new(platform: &'a P, socket: &'a P::Socket, counters: &'a ShardCounters) -> Self {
        ReplySender { platform, socket, counters, held: BytesMut::new() }
    }

    /// Takes a part on; it may be held until [`ReplySender::finish`].
    ///
    /// # Errors
    /// The connection can only be closed: it broke, or a promised range can't be sent.
    pub async fn send(&mut self, part: ReplyPart<FileOf<P>>) -> io::Result<()> {
        self.counters.response_bytes_total.add(match &part {
            ReplyPart::Bytes(bytes) => bytes.len() as u64,
            ReplyPart::Range { range, .. } => range.length,
        });
        match part {
            ReplyPart::Bytes(bytes) if bytes.len() > GATHERED_BYTES_MAX => {
                self.send_held(true).await?;
                self.socket.send(bytes, false).await
            }
            ReplyPart::Bytes(bytes) => {
                self.held.extend_from_slice(&bytes);
                Ok(())
            }
            ReplyPart::Range { range, .. } if range.length == 0 => Ok(()),
            ReplyPart::Range { range, .. } if range.length <= COPIED_RANGE_BYTES_MAX && self.copy(&range)? => Ok(()),
            ReplyPart::Range { range, recently_appended } => self.send_range(range, recently_appended).await,
        }
    }

    /// Sends what is held.
    pub async fn finish(&mut self) -> io::Result<()> {
        self.send_held(false).await
    }

    /// The same; with `more` something else follows at once.
    async fn send_held(&mut self, more: bool) -> io::Result<()> {
        let held = std::mem::take(&mut self.held);
        if held.is_empty() { Ok(()) } else { self.socket.send(held.freeze(), more).await }
    }

    /// Reads a short range behind the held bytes; false if it is not wholly resident.
    fn copy(&mut self, range: &FileRange<FileOf<P>>) -> io::Result<bool> {
        let _inside = range.enter().ok_or(io::ErrorKind::UnexpectedEof)?;
        let start = self.held.len();
        self.held.resize(start + range.length as usize, 0);
        let read = self.platform.disk().read_resident(&range.file, range.position, &mut self.held[start..])?;
        let whole = read == Some(range.length as usize);
        if !whole {
            self.held.truncate(start);
        }
        Ok(whole)
    }

    async fn send_range(&mut self, mut range: FileRange<FileOf<P>>, recently_appended: bool) -> io::Result<()> {
        self.send_held(true).await?;
        while range.length > 0 {
            let step = if recently_appended { range.length } else { range.length.min(RESIDENT_STEP_BYTES) };
            if recently_appended || self.is_brought_in(&range, step).await? {
                self.socket.send_range(&mut range, step, recently_appended).await?;
            } else {
                self.send_copy(&mut range).await?;
            }
        }
        Ok(())
    }

    /// Sees to it that the range's first `step` bytes are in the page cache; false if they do not stay there.
    async fn is_brought_in(&self, range: &FileRange<FileOf<P>>, step: u64) -> io::Result<bool> {
        let disk = self.platform.disk();
        for _ in 0..RESIDENT_TRIES_MAX {
            if disk.is_resident(&range.file, range.position, step) {
                return Ok(true);
            }
            self.counters.cold_reads_total.add(1);
            disk.make_resident(&range.file, range.position, step).await?;
        }
        Ok(disk.is_resident(&range.file, range.position, step))
    }

    /// Reads the next bytes of a range and sends them: no page need stay where it is.
    async fn send_copy(&self, range: &mut FileRange<FileOf<P>>) -> io::Result<()> {
        let length = range.length.min(COPIED_STEP_BYTES);
        let bytes = self.platform.disk().read(&range.file, range.position, length as usize).await?;
        if bytes.len() as u64 != length || range.enter().is_none() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.counters.cold_copied_bytes_total.add(length);
        self.socket.send(bytes.freeze(), range.length > length).await?;
        range.advance(length);
        Ok(())
    }
}
