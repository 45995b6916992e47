//! Poll for writability, once: what a full socket buffer waits for.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use io_uring::{opcode, types};

use super::Tries;
use crate::uring::{Op, Ring};

/// Resolves when the socket can take bytes, or has failed: the next send says which.
pub async fn writable(ring: &Ring, socket: &Rc<OwnedFd>) -> io::Result<()> {
    let mut tries = Tries::default();
    loop {
        ring.room(1).await?;
        let entry = opcode::PollAdd::new(types::Fd(socket.as_raw_fd()), libc::POLLOUT as u32).build();
        // SAFETY: the entry names a descriptor, which the resources keep open.
        let (result, _socket) = unsafe { Op::start(ring, entry, Rc::clone(socket)) }.await;
        if let Some(result) = tries.settle(result) {
            return result.map(drop);
        }
    }
}
