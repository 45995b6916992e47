//! The provided-buffer ring: memory that the kernel picks from when bytes arrive, so that an idle connection holds none.
//!
//! Every slot of the ring owns one chunk. When a completion names a slot, a short content is copied out and the chunk
//! goes back as it is; a long one leaves with its chunk, and a fresh chunk takes its place. So the ring is full again
//! after every reaping; it runs dry only when more arrives within one turn than it holds (ENOBUFS, see `ring`).
//!
//! Least kernel: 5.19.

use std::io;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use bytes::BytesMut;
use io_uring::IoUring;
use io_uring::types::BufRingEntry;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::platform::RECEIVE_CHUNK_BYTES_MAX;

/// The group that receives name; there is one per ring.
pub(super) const GROUP: u16 = 0;

/// Chunks in the ring; a power of two, as the kernel wants.
const CHUNK_COUNT: u16 = 64;

/// Up to this many bytes are copied out, so that a small frame never pins a whole chunk.
const COPIED_BYTES_MAX: usize = 8 * 1024;

const RING_BYTES: usize = CHUNK_COUNT as usize * size_of::<BufRingEntry>();
const _: () = assert!(CHUNK_COUNT.is_power_of_two());

pub(super) struct ReceivePool {
    /// The shared ring of entries: anonymous memory of `RING_BYTES`, page aligned.
    entries: NonNull<BufRingEntry>,
    /// The memory each entry describes, by buffer id. The kernel writes there; we do not touch it until it is named.
    chunks: ManuallyDrop<Vec<BytesMut>>,
    /// Entries made visible so far, modulo 2^16: what the kernel reads as the tail.
    tail: u16,
    published: u16,
    leaked: bool,
}

impl ReceivePool {
    /// Makes the ring of chunks and registers it; it lives as long as the ring it is registered with.
    pub(super) fn register(uring: &IoUring) -> io::Result<ReceivePool> {
        let length = std::num::NonZeroUsize::new(RING_BYTES).expect("not zero");
        // SAFETY: a fresh anonymous mapping, not placed over anything.
        let memory = unsafe {
            mmap_anonymous(None, length, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE)?
        };
        let chunks = (0..CHUNK_COUNT).map(|_| BytesMut::with_capacity(RECEIVE_CHUNK_BYTES_MAX)).collect();
        let mut pool = ReceivePool {
            entries: memory.cast(),
            chunks: ManuallyDrop::new(chunks),
            tail: 0,
            published: 0,
            leaked: false,
        };
        // SAFETY: the mapping is page aligned, as long as CHUNK_COUNT entries, and unmapped only after the ring is
        // closed (`Inner` in ring.rs drops its IoUring before the pool).
        unsafe {
            uring.submitter().register_buf_ring_with_flags(memory.as_ptr() as u64, CHUNK_COUNT, GROUP, 0)?;
        }
        for id in 0..CHUNK_COUNT {
            pool.offer(id);
        }
        pool.publish();
        Ok(pool)
    }

    pub(super) fn buffer_count(&self) -> usize {
        usize::from(CHUNK_COUNT)
    }

    /// Takes `length` bytes that a completion left in chunk `id`, and offers a chunk under that id again.
    pub(super) fn take(&mut self, id: u16, length: usize) -> BytesMut {
        let chunk = &mut self.chunks[usize::from(id)];
        assert!(length <= chunk.capacity(), "the kernel was told the chunk's size");
        // SAFETY: the kernel has written `length` bytes from the chunk's beginning and, having named it in a
        // completion, does not touch it any more.
        unsafe { chunk.set_len(length) };
        let data = if length <= COPIED_BYTES_MAX {
            let copy = BytesMut::from(&chunk[..]);
            chunk.clear();
            copy
        } else {
            std::mem::replace(chunk, BytesMut::with_capacity(RECEIVE_CHUNK_BYTES_MAX))
        };
        self.offer(id);
        data
    }

    /// Writes the entry of chunk `id` behind the tail; the kernel sees it after [`ReceivePool::publish`].
    fn offer(&mut self, id: u16) {
        let index = usize::from(self.tail & (CHUNK_COUNT - 1));
        let chunk = &mut self.chunks[usize::from(id)];
        // SAFETY: the index is within the mapping, and the kernel does not read entries at or beyond the published
        // tail; there are at most CHUNK_COUNT between head and tail since each id is offered once.
        let entry = unsafe { &mut *self.entries.as_ptr().add(index) };
        entry.set_addr(chunk.as_mut_ptr() as u64);
        entry.set_len(RECEIVE_CHUNK_BYTES_MAX as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel all offered chunks.
    pub(super) fn publish(&mut self) {
        if self.published == self.tail {
            return;
        }
        // SAFETY: the tail lies in the first entry's reserved field; it is aligned, and the kernel only reads it.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries.as_ptr()).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
        self.published = self.tail;
    }

    /// Gives the memory up for good, because the kernel may still write to it.
    pub(super) fn leak(&mut self) {
        self.leaked = true;
    }
}

impl Drop for ReceivePool {
    fn drop(&mut self) {
        if self.leaked {
            return;
        }
        // SAFETY: the ring is closed (field order in `Inner`) and every operation on it has completed, so the kernel
        // holds neither chunks nor entries; both are dropped exactly here.
        unsafe {
            ManuallyDrop::drop(&mut self.chunks);
            let _ = munmap(self.entries.cast(), RING_BYTES);
        }
    }
}
