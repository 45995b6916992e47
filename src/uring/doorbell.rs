//! The one doorbell of a shard: an eventfd with a read armed on the ring, rung only while the shard sleeps.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::Ring;
use super::ops::{is_passing, receive};
use crate::base::sleep::SleepFlag;
use crate::executor::Doorbell;

/// Shared by the shard and all who may wake it.
#[derive(Clone, Debug)]
pub struct EventDoorbell(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    flag: SleepFlag,
    eventfd: EventFd,
}

impl EventDoorbell {
    pub fn new() -> io::Result<EventDoorbell> {
        let eventfd = EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?;
        Ok(EventDoorbell(Arc::new(Inner { flag: SleepFlag::default(), eventfd })))
    }

    /// See [`SleepFlag::announce`].
    pub fn announce_sleep(&self) {
        self.0.flag.announce();
    }

    pub fn awake(&self) {
        self.0.flag.awake();
    }

    /// Keeps a read armed on `ring`, so that a ring of the bell ends its wait. Ends only with an error that lasts.
    pub async fn listen(&self, ring: Ring) -> io::Error {
        use std::os::fd::AsFd;
        let descriptor: Rc<OwnedFd> = match self.0.eventfd.as_fd().try_clone_to_owned() {
            Ok(descriptor) => Rc::new(descriptor),
            Err(error) => return error,
        };
        loop {
            match receive::read_counter(&ring, &descriptor).await {
                // Interrupted, or no room in the ring for long: without a bell the shard would sleep through what others send.
                Err(error) if is_passing(&error) || error.kind() == io::ErrorKind::ResourceBusy => {}
                Err(error) => return error,
                Ok(()) => {}
            }
        }
    }
}

impl Doorbell for EventDoorbell {
    fn ring(&self) {
        if self.0.flag.must_ring() {
            // Fails only when the counter is full: then the bell has been rung often enough.
            let _ = self.0.eventfd.write(1);
        }
    }
}
