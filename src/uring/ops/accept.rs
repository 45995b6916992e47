//! Accept, multishot: one event per connection. Least kernel: 5.19.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;

use io_uring::{opcode, types};

use crate::uring::{Ring, Stream};

/// Connections of a listening socket, each non-blocking and closed on exec.
pub struct Accepts(Stream<Rc<OwnedFd>>);

/// Starts accepting on `listener`.
pub async fn accept(ring: &Ring, listener: &Rc<OwnedFd>) -> io::Result<Accepts> {
    let entry = opcode::AcceptMulti::new(types::Fd(listener.as_raw_fd()))
        .flags(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC)
        .build();
    ring.room(1).await?;
    // SAFETY: the entry names a descriptor, which the resources keep open.
    Ok(Accepts(unsafe { Stream::start(ring, entry, Rc::clone(listener)) }?))
}

impl Accepts {
    /// No further connection is taken; those that came already are still given.
    pub fn stop(&self) {
        self.0.stop();
    }

    /// The next connection; `None` when accepting must be started anew.
    pub async fn next(&mut self) -> Option<io::Result<OwnedFd>> {
        let event = self.0.next().await?;
        // SAFETY: a successful accept gives a new descriptor that nobody else owns.
        Some(event.into_result().map(|(descriptor, _)| unsafe { OwnedFd::from_raw_fd(descriptor as i32) }))
    }
}
