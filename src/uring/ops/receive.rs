//! Receive: multishot into provided buffers (least kernel 6.0), and once into memory of the caller.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use bytes::{BufMut, BytesMut};
use io_uring::{opcode, squeue, types};

use super::Tries;
use crate::platform::RECEIVE_CHUNK_BYTES_MAX;
use crate::uring::op::RING_QUEUED_BYTES_MAX;
use crate::uring::receive_pool::GROUP;
use crate::uring::{Op, Ring, Stream};

/// Starts receiving whatever arrives, in chunks of the ring's pool. An event of 0 bytes is the end of the stream;
/// ENOBUFS ends the multishot without losing bytes.
///
/// A multishot brings up to 32 chunks before its owner sees the first: where the ring holds too much already, one chunk
/// is received, and the stream ends after it.
pub async fn receive_stream(ring: &Ring, socket: &Rc<OwnedFd>) -> io::Result<Stream<Rc<OwnedFd>>> {
    ring.room(1).await?;
    let descriptor = types::Fd(socket.as_raw_fd());
    let entry = if ring.queued_bytes().get() <= RING_QUEUED_BYTES_MAX {
        opcode::RecvMulti::new(descriptor, GROUP).build()
    } else {
        let chunk_bytes = RECEIVE_CHUNK_BYTES_MAX as u32;
        let receive = opcode::Recv::new(descriptor, std::ptr::null_mut(), chunk_bytes).buf_group(GROUP);
        receive.build().flags(squeue::Flags::BUFFER_SELECT)
    };
    // SAFETY: the entry names a descriptor, which the resources keep open; the buffers are the pool's.
    unsafe { Stream::start(ring, entry, Rc::clone(socket)) }
}

/// Receives once into the spare room of `buffer`, at most `length_max` bytes, and gives it back longer; 0 bytes is the
/// end of the stream. `wait_all`: only the end or an error makes it short.
pub async fn receive_into(
    ring: &Ring,
    socket: &Rc<OwnedFd>,
    mut buffer: BytesMut,
    length_max: usize,
) -> (io::Result<usize>, BytesMut) {
    buffer.reserve(length_max);
    let mut tries = Tries::default();
    loop {
        if let Err(error) = ring.room(1).await {
            return (Err(error), buffer);
        }
        let room = buffer.chunk_mut();
        let length = u32::try_from(length_max.min(room.len())).unwrap_or(u32::MAX);
        let descriptor = types::Fd(socket.as_raw_fd());
        let entry = opcode::Recv::new(descriptor, room.as_mut_ptr(), length).flags(libc::MSG_WAITALL).build();
        // SAFETY: the entry points into the buffer's heap memory, which does not move with the handle and is not
        // reallocated while the operation owns it.
        let (result, (_socket, given_back)) = unsafe { Op::start(ring, entry, (Rc::clone(socket), buffer)) }.await;
        buffer = given_back;
        let Some(result) = tries.settle(result) else { continue };
        if let Ok(count) = result {
            // SAFETY: the kernel has initialised `count` bytes of the spare room.
            unsafe { buffer.advance_mut(count as usize) };
        }
        return (result.map(|count| count as usize), buffer);
    }
}

/// Receives exactly eight bytes: how a ring hears its doorbell (an eventfd's counter).
pub async fn read_counter(ring: &Ring, eventfd: &Rc<OwnedFd>) -> io::Result<()> {
    ring.room(1).await?;
    let mut counter = Box::new([0u8; 8]);
    let entry = opcode::Read::new(types::Fd(eventfd.as_raw_fd()), counter.as_mut_ptr(), 8).build();
    // SAFETY: the entry points to the box's memory, which the resources own.
    let (result, _resources) = unsafe { Op::start(ring, entry, (Rc::clone(eventfd), counter)) }.await;
    result.map(drop)
}
