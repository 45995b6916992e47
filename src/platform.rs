//! The seam between ringlog and the machine: disk, socket, clock, tasks, randomness.
//!
//! Everything above is written once over [`Platform`] and runs unchanged on the ring (`uring`) and in the simulator
//! (`sim`), where one seed decides schedule, network, disk and time. A platform handle belongs to one shard: cheap to
//! clone, never sent to another thread. What crosses threads is [`DiskFile`] and [`FileRange`].

#![forbid(unsafe_code)]

pub mod linux;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};

use crate::base::time::{Monotonic, WallMs};

/// All that a shard may ask of the machine.
pub trait Platform: Clone + 'static {
    type Disk: Disk;
    type Socket: Socket<File = <Self::Disk as Disk>::File>;
    type Clock: Clock;
    type Tasks: Tasks;
    type Random: Random;

    fn disk(&self) -> &Self::Disk;
    fn clock(&self) -> &Self::Clock;
    fn tasks(&self) -> &Self::Tasks;
    fn random(&self) -> &Self::Random;

    /// Opens a connection to `address`, set up as accepted ones are.
    ///
    /// Nothing here bounds how long that takes, and the kernel may try for minutes: the caller bounds it, and gives up by
    /// dropping the future. The peer may have accepted by then; it sees the connection end.
    ///
    /// # Errors
    /// Nobody listens there (`ConnectionRefused`), or nobody answers (`TimedOut`, `HostUnreachable` ...).
    fn connect(&self, address: SocketAddr) -> impl Future<Output = io::Result<Self::Socket>>;
}

/// An open file that may be read from any shard. Its last drop hands the descriptor to the directory's helper, since
/// closing can take the kernel hundreds of milliseconds; the type offers no other way to close.
pub trait DiskFile: Send + Sync + std::fmt::Debug + 'static {}

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading; the file must exist.
    Read,
    /// For reading and writing; created empty if it does not exist.
    ReadWrite,
    /// For reading and writing; fails with `AlreadyExists` if it exists.
    CreateNew,
}

/// What a directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryEntry {
    pub name: String,
    pub is_directory: bool,
    /// A symbolic link whose target can't be looked at. (Other links are what they lead to, as in Kafka.)
    pub is_broken_link: bool,
    /// Bytes; 0 for a directory.
    pub length: u64,
    /// Bytes of the blocks that it holds, those reserved behind its end too; 0 for a directory.
    pub allocated_bytes: u64,
    /// When its content last changed.
    pub modified: WallMs,
}

/// Whether an error of a file operation says nothing of the device and its file system: a full disk, want of memory, of
/// descriptors or of room in a queue, a signal, damage within one file. It is an error of that one operation; any other
/// says that what is on the device can't be trusted.
pub fn spares_device(error: &io::Error) -> bool {
    let spares = [
        io::ErrorKind::StorageFull,
        io::ErrorKind::QuotaExceeded,
        io::ErrorKind::InvalidData,
        io::ErrorKind::UnexpectedEof,
        io::ErrorKind::OutOfMemory,
        io::ErrorKind::Interrupted,
        io::ErrorKind::WouldBlock,
        io::ErrorKind::ResourceBusy,
        io::ErrorKind::BrokenPipe,
    ];
    let by_code = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ECANCELED];
    spares.contains(&error.kind()) || error.raw_os_error().is_some_and(|code| by_code.contains(&code))
}

/// Room on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// What an ordinary process may still use.
    pub free_bytes: u64,
    pub total_bytes: u64,
}

/// Files as a shard may use them.
///
/// Only the first four operations may run on the shard's own thread, and none of them waits for a device; the rest run
/// on threads of their log directory, and resolve when they have happened: what must come after another waits for it.
/// A directory that is slow or hangs holds up its own operations, and no other's.
/// Unless an operation says so, nothing it did is durable when it resolves.
pub trait Disk: Clone + 'static {
    type File: DiskFile;

    /// Reads what the page cache holds of `buffer.len()` bytes from `position`, without waiting. `Ok(None)`: the first
    /// byte is not resident. `Ok(Some(n))`: `n` bytes were read; less than asked means end of file, or that the rest is
    /// not resident.
    fn read_resident(&self, file: &Self::File, position: u64, buffer: &mut [u8]) -> io::Result<Option<usize>>;

    /// Whether all of the range is in the page cache, so that a sendfile of it would not wait.
    fn is_resident(&self, file: &Self::File, position: u64, length: u64) -> bool;

    /// Writes `data` one after the other at `position`: the one append path. It completes now (on this thread, ready at
    /// the first poll) or later (on a kernel worker). Resolves when all bytes are in the page cache; a short write is an
    /// error, after which any prefix of the data may be in the file. The caller keeps one append in flight per file.
    fn append(
        &self,
        file: &Arc<Self::File>,
        position: u64,
        data: Vec<BytesMut>,
    ) -> impl Future<Output = io::Result<()>> + 'static;

    /// Brings a range into the page cache without holding the thread (the cold path). Resolves when the pages were there
    /// once; they may be evicted again, so the caller looks again with [`Disk::is_resident`].
    fn make_resident(
        &self,
        file: &Arc<Self::File>,
        position: u64,
        length: u64,
    ) -> impl Future<Output = io::Result<()>> + 'static;

    /// Reads up to `length` bytes from `position`, waiting for the device if it must. Fewer bytes: end of file.
    fn read(
        &self,
        file: &Arc<Self::File>,
        position: u64,
        length: usize,
    ) -> impl Future<Output = io::Result<BytesMut>> + 'static;

    /// Opens a file; also gives its length in bytes.
    fn open(&self, path: &Path, mode: OpenMode) -> impl Future<Output = io::Result<(Arc<Self::File>, u64)>> + 'static;

    /// Writes `data` at `position` on the helper: for indexes, other small files and what a compaction writes, never for
    /// what is appended.
    fn write(
        &self,
        file: &Arc<Self::File>,
        position: u64,
        data: Vec<u8>,
    ) -> impl Future<Output = io::Result<()>> + 'static;

    /// Cuts or extends (with zeros) the file to `length` bytes.
    fn set_length(&self, file: &Arc<Self::File>, length: u64) -> impl Future<Output = io::Result<()>> + 'static;

    /// Frees the blocks reserved behind the file's end, which is `length`. Not in order with the operations above, like
    /// [`Disk::sync`]: it can take as long, and nothing waits behind it.
    fn give_back(&self, file: &Arc<Self::File>, length: u64) -> impl Future<Output = io::Result<()>> + 'static;

    /// Reserves blocks for `[position, position + length)` without changing the file's length (`FALLOC_FL_KEEP_SIZE`).
    fn preallocate(
        &self,
        file: &Arc<Self::File>,
        position: u64,
        length: u64,
    ) -> impl Future<Output = io::Result<()>> + 'static;

    /// fdatasync: on `Ok` what was written before the call is durable. Not in order with the operations above; what must
    /// come before has resolved. An error is final for the directory: every later append and sync fails too.
    fn sync(&self, file: &Arc<Self::File>) -> impl Future<Output = io::Result<()>> + 'static;

    /// Replaces a small file whole: write `<path>.tmp`, fsync, rename, fsync of the directory. Durable on `Ok`; after an
    /// error or a crash the old file is there, whole.
    fn replace(&self, path: &Path, data: Vec<u8>) -> impl Future<Output = io::Result<()>> + 'static;

    /// Reads a small file whole; `InvalidData` if it is longer than `length_max`.
    fn read_whole(&self, path: &Path, length_max: usize) -> impl Future<Output = io::Result<Vec<u8>>> + 'static;

    /// What the directory holds, sorted by name. `InvalidData` if its path is a symbolic link that leads nowhere.
    fn list(&self, path: &Path) -> impl Future<Output = io::Result<Vec<DirectoryEntry>>> + 'static;

    /// Creates a directory and the missing ones above it; fine if it exists. The entry is durable on `Ok`.
    fn create_directory(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static;

    fn remove_file(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static;

    /// Removes a directory and all in it. A symbolic link to one is removed alone, and so is one within it (Kafka 3.9
    /// `Utils.delete`).
    fn remove_directory(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static;

    /// Replaces `to` if it exists. Not durable until [`Disk::sync_directory`].
    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>> + 'static;

    /// How much room the file system of a log directory has. Also an error if an earlier write to its device failed, of
    /// which nobody was told yet.
    fn space(&self, path: &Path) -> impl Future<Output = io::Result<Space>> + 'static;

    /// Makes the directory's entries durable: files created, renamed and removed in it before the call.
    fn sync_directory(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static;

    /// A name, of one line, of the life of the page cache over `path`'s file system: where a later start is told the same
    /// one, what was written before is there, synced or not. `None` where that can't be known. A write to the device that
    /// failed does not show in it.
    fn cache_life(&self, path: &Path) -> impl Future<Output = io::Result<Option<String>>> + 'static;
}

/// A connection. One task reads it and one writes it; closing is by drop.
pub trait Socket: 'static {
    type File: DiskFile;

    /// The next bytes, in order; empty at the end of the stream. Chunks are at most [`RECEIVE_CHUNK_BYTES_MAX`] long.
    fn receive(&self) -> impl Future<Output = io::Result<BytesMut>>;

    /// Receives until `frame` (which may hold a beginning already) is `length` bytes long, straight into its memory.
    fn receive_frame(&self, frame: BytesMut, length: usize) -> impl Future<Output = io::Result<BytesMut>>;

    /// When, at the earliest, the last of what was received had come, as far as the shard can know: since then it had not
    /// looked.
    fn came_after(&self) -> Monotonic;

    /// Sends all of `data`. `more`: a range follows at once, so the kernel may hold it back to fill a packet.
    fn send(&self, data: Bytes, more: bool) -> impl Future<Output = io::Result<()>>;

    /// Sends up to `length_max` bytes of the range's beginning from the page cache, without copying, and advances it.
    /// Returns early when it had to wait for the socket, unless the range was `recently_appended`: the caller, who has
    /// just seen it resident, must look again. `UnexpectedEof` if the file ends before the range does, or its fence was
    /// cut: the connection can only be closed, since the size was promised.
    fn send_range(
        &self,
        range: &mut FileRange<Self::File>,
        length_max: u64,
        recently_appended: bool,
    ) -> impl Future<Output = io::Result<()>>;

    /// Memory of bytes that were received and that [`Socket::receive`] has not given yet.
    fn unread_bytes(&self) -> u64;

    /// Bytes that have left so far: only they are a sign of a peer that reads.
    fn sent_bytes(&self) -> u64;

    /// The peer, for logs and limits.
    fn peer(&self) -> String;

    /// Makes every waiting and later operation fail, from any task of this shard.
    fn shut_down(&self);
}

/// The longest chunk that [`Socket::receive`] returns.
pub const RECEIVE_CHUNK_BYTES_MAX: usize = 128 * 1024;

pub trait Clock: Clone + 'static {
    fn now(&self) -> Monotonic;
    fn wall(&self) -> WallMs;
    /// Resolves at or after `deadline`.
    fn sleep_until(&self, deadline: Monotonic) -> impl Future<Output = ()> + 'static;
}

pub trait Tasks: Clone + 'static {
    /// Runs a future on this shard, after what is ready now.
    fn spawn(&self, task: impl Future<Output = ()> + 'static);

    /// Runs CPU-heavy work on a low-priority work thread (inline, under the seed, in the simulator). `None` when the
    /// work threads' queue is full: the caller refuses or waits, it never runs the job itself.
    fn work<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = Option<T>> + 'static;
}

pub trait Random: Clone + 'static {
    fn next_u64(&self) -> u64;
}

/// Which bytes of a log's files may still be served. Shared by a log and all ranges of it; a truncation cuts it, and
/// whoever holds a range beyond the cut closes its connection instead of sending other bytes than it promised.
///
/// ```text
///  sender:     enter (count up) - look at the cut - one system call - leave (count down)
///  truncation: lower the cut - wait until nobody is inside - cut the file
/// ```
/// Both sides write first and look then, in one order that all threads agree on (`SeqCst`): either the sender sees the
/// cut, or the truncation sees the sender.
#[derive(Debug)]
pub struct Fence {
    /// File positions below this may be sent.
    cut: AtomicU64,
    senders_inside: AtomicU64,
}

/// A sender between its look at the cut and the end of its system call.
#[derive(Debug)]
pub struct Inside<'a>(&'a Fence);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.senders_inside.fetch_sub(1, Ordering::Release);
    }
}

impl Fence {
    pub fn new() -> Arc<Fence> {
        Arc::new(Fence { cut: AtomicU64::new(u64::MAX), senders_inside: AtomicU64::new(0) })
    }

    /// Forbids everything at and beyond `position`. Only ever lowers the cut. The file may be cut once the fence is
    /// [clear](Fence::is_clear).
    pub fn cut_at(&self, position: u64) {
        self.cut.fetch_min(position, Ordering::SeqCst);
    }

    /// Nobody is in the middle of a send that began before the cut.
    pub fn is_clear(&self) -> bool {
        self.senders_inside.load(Ordering::SeqCst) == 0
    }

    /// For one system call that sends or reads bytes below `end_position`; `None`: they were cut. To be held over nothing
    /// that waits for a peer.
    pub fn enter(&self, end_position: u64) -> Option<Inside<'_>> {
        self.senders_inside.fetch_add(1, Ordering::SeqCst);
        let inside = Inside(self);
        (end_position <= self.cut.load(Ordering::SeqCst)).then_some(inside)
    }
}

/// The unit of zero copy: bytes of one file, on their way from the shard that owns the log to the shard that owns the
/// connection. It keeps the file open, so a segment that is deleted meanwhile stays readable.
#[derive(Debug)]
pub struct FileRange<F> {
    pub file: Arc<F>,
    /// Position in the file of the first byte not yet sent.
    pub position: u64,
    /// Bytes from there.
    pub length: u64,
    /// One per segment file, so that positions compare.
    pub fence: Arc<Fence>,
}

impl<F> FileRange<F> {
    pub fn advance(&mut self, count: u64) {
        assert!(count <= self.length, "a range is sent once");
        self.position += count;
        self.length -= count;
    }

    /// See [`Fence::enter`]; of all that is left of the range.
    pub fn enter(&self) -> Option<Inside<'_>> {
        self.fence.enter(self.position + self.length)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_cut_only_falls_and_is_clear_when_who_was_inside_has_left() {
        let fence = Fence::new();
        let inside = fence.enter(1000).expect("nothing is cut");
        fence.cut_at(500);
        fence.cut_at(800);
        assert!(!fence.is_clear() && fence.enter(501).is_none() && fence.enter(500).is_some());
        drop(inside);
        assert!(fence.is_clear());
    }

    /// The bytes beyond the cut are stood for by one number, which the truncation changes when the fence is clear.
    #[test]
    fn no_sender_ever_sees_what_comes_after_the_cut() {
        for _ in 0..200 {
            let (fence, bytes) = (Fence::new(), Arc::new(AtomicU64::new(7)));
            let senders: Vec<_> = (0..3)
                .map(|_| {
                    let (fence, bytes) = (Arc::clone(&fence), Arc::clone(&bytes));
                    thread::spawn(move || {
                        while let Some(_inside) = fence.enter(10) {
                            assert_eq!(bytes.load(Ordering::Relaxed), 7);
                        }
                    })
                })
                .collect();
            fence.cut_at(5);
            while !fence.is_clear() {
                thread::yield_now();
            }
            bytes.store(0, Ordering::Relaxed);
            senders.into_iter().for_each(|sender| sender.join().unwrap());
        }
    }
}
