//! Send: bytes only. Ranges of files leave by sendfile, never while a send is in flight on the same socket.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use bytes::{Buf, Bytes};
use io_uring::{opcode, types};

use super::Tries;
use crate::uring::{Op, Ring};

/// Sends all of `data`. MSG_WAITALL lets the kernel finish a short send by itself (least kernel 5.19); what is still
/// short is sent on.
pub async fn send_all(ring: &Ring, socket: &Rc<OwnedFd>, mut data: Bytes) -> io::Result<()> {
    let mut tries = Tries::default();
    while !data.is_empty() {
        ring.room(1).await?;
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let entry = opcode::Send::new(types::Fd(socket.as_raw_fd()), data.as_ptr(), length)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build();
        // SAFETY: the entry points into the heap memory of `data`, which the resources own and nobody changes.
        let (result, (_socket, rest)) = unsafe { Op::start(ring, entry, (Rc::clone(socket), data)) }.await;
        data = rest;
        let Some(result) = tries.settle(result) else { continue };
        match result? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => {
                data.advance(count as usize);
                tries = Tries::default();
            }
        }
    }
    Ok(())
}
