//! Read from a file, waiting for the device on a kernel worker if it must.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use io_uring::{opcode, types};

use super::{Tries, is_passing};
use crate::uring::{Op, Ring};

/// A shared open file that an operation can keep open.
pub trait RingFile: 'static {
    fn descriptor(&self) -> BorrowedFd<'_>;
}

/// Reads once, up to `length` bytes from `position`; fewer at the end of the file.
pub async fn read<F: RingFile>(ring: &Ring, file: &Arc<F>, position: u64, length: usize) -> io::Result<BytesMut> {
    let mut buffer = BytesMut::with_capacity(length);
    let wanted = u32::try_from(length).unwrap_or(u32::MAX);
    let mut tries = Tries::default();
    loop {
        ring.room(1).await?;
        let descriptor = types::Fd(file.descriptor().as_raw_fd());
        let entry = opcode::Read::new(descriptor, buffer.chunk_mut().as_mut_ptr(), wanted).offset(position).build();
        // SAFETY: the entry points into the buffer's heap memory, at least `length` bytes, and names a file; the
        // resources own both.
        let (result, (_file, given_back)) = unsafe { Op::start(ring, entry, (Arc::clone(file), buffer)) }.await;
        buffer = given_back;
        if let Some(result) = tries.settle(result) {
            // SAFETY: the kernel has initialised that many bytes.
            unsafe { buffer.advance_mut(result? as usize) };
            return Ok(buffer);
        }
    }
}

/// Starts reading a range into the page cache and resolves when its last byte is there: FADVISE WILLNEED linked to a
/// READ of that byte. The kernel cuts the advice at the device's read-ahead limit, so the caller goes in such steps.
pub async fn will_need<F: RingFile>(ring: &Ring, file: &Arc<F>, position: u64, length: u64) -> io::Result<()> {
    debug_assert!(length > 0);
    ring.room(2).await?;
    let descriptor = types::Fd(file.descriptor().as_raw_fd());
    let advice = opcode::Fadvise::new(descriptor, i64::try_from(length).unwrap_or(i64::MAX), libc::POSIX_FADV_WILLNEED)
        .offset(position)
        .build();
    let mut last = Box::new([0u8; 1]);
    let read = opcode::Read::new(descriptor, last.as_mut_ptr(), 1).offset(position + length - 1).build();
    // SAFETY: the read points to the box's memory, and both name a file; the resources own both.
    let (result, _resources) = unsafe { Op::start_linked(ring, advice, read, (Arc::clone(file), last)) }.await;
    match result {
        // The advice was refused, and the read with it: it is no more than that.
        Err(error) if error.raw_os_error() == Some(libc::ECANCELED) || is_passing(&error) => {
            self::read(ring, file, position + length - 1, 1).await.map(drop)
        }
        result => result.map(drop),
    }
}
