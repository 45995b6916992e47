//! Ctrl-C as something to wait for, for the tools that have an end to bring about.

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::failure::Failure;

/// SIGINT and SIGTERM, which end nothing by themselves while this lives.
pub struct Interrupt(SignalFd);

impl Interrupt {
    /// To be called before anything is waited for.
    pub fn catch() -> Result<Interrupt, Failure> {
        let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
        let caught = signals
            .thread_block()
            .and_then(|()| SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC));
        caught.map(Interrupt).map_err(|error| Failure::Refused(format!("signals can't be waited for: {error}")))
    }

    /// Whether one has come since the last look; takes it.
    pub fn is_pending(&self) -> bool {
        matches!(self.0.read_signal(), Ok(Some(_)))
    }
}

impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
