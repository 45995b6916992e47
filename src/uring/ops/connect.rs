//! Connect: one try to reach an address. Least kernel: 5.5.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use io_uring::{opcode, types};
use nix::sys::socket::{SockaddrLike, SockaddrStorage, getsockopt, sockopt};

use super::{Tries, poll};
use crate::uring::{Op, Ring};

/// Connects a non-blocking socket. A dropped try is cancelled and keeps the socket open until the kernel has let go of it.
///
/// # Errors
/// The kernel's: ECONNREFUSED, ETIMEDOUT, EHOSTUNREACH, ENETUNREACH and so on. The socket is of no use then.
pub async fn connect(ring: &Ring, socket: &Rc<OwnedFd>, address: SocketAddr) -> io::Result<()> {
    let mut tries = Tries::default();
    loop {
        ring.room(1).await?;
        let address = Box::new(SockaddrStorage::from(address));
        let entry = opcode::Connect::new(types::Fd(socket.as_raw_fd()), address.as_ptr(), address.len()).build();
        // SAFETY: the entry points to the box's memory and names a descriptor; the resources own both.
        let (result, _resources) = unsafe { Op::start(ring, entry, (Rc::clone(socket), address)) }.await;
        let Some(result) = tries.settle(result) else { continue };
        return match result {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // A try that was interrupted goes on by itself, and the next one finds it under way or done. A kernel
                // worker does not wait on a non-blocking socket either.
                Some(libc::EISCONN) => Ok(()),
                Some(libc::EINPROGRESS | libc::EALREADY) => outcome(ring, socket).await,
                _ => Err(error),
            },
        };
    }
}

/// Waits for the end of a try that is under way.
async fn outcome(ring: &Ring, socket: &Rc<OwnedFd>) -> io::Result<()> {
    poll::writable(ring, socket).await?;
    match getsockopt(socket, sockopt::SocketError)? {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}
