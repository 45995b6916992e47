//! Signals: SIGINT and SIGTERM stop the broker in order, a second one at once; SIGHUP makes it read its settings again.
//!
//! One thread waits for them for the whole life of the process; all others have them blocked. What a signal means
//! depends on how far the broker is:
//!
//! ```text
//!                 starting          serving            stopping
//!  INT, TERM      ends at once      begins the stop    ends at once
//!  HUP            nothing           rereads            nothing
//! ```
//! Ending at once is like a crash: no marker is written, and the next start recovers.

#![forbid(unsafe_code)]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use nix::sys::signal::{SigSet, Signal};

/// Exit code when the process is told to end before it serves, or a second time while it stops.
const EXIT_FORCED: i32 = 130;

const STARTING: u8 = 0;
const SERVING: u8 = 1;
const STOPPING: u8 = 2;

/// What a broker that serves is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Stop(Signal),
    Reread,
}

/// See the head of this file.
pub struct Signals {
    phase: Arc<AtomicU8>,
    asked: Receiver<Asked>,
}

impl Signals {
    /// To be called before any other thread is started: those inherit that signals are blocked.
    pub fn start() -> io::Result<Signals> {
        let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
        signals.thread_block()?;
        let phase = Arc::new(AtomicU8::new(STARTING));
        let (sender, asked) = mpsc::channel();
        let seen = Arc::clone(&phase);
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            // An error says that the set is wrong, which it is not.
            while let Ok(signal) = signals.wait() {
                match (seen.load(Ordering::SeqCst), signal) {
                    (SERVING, Signal::SIGHUP) => drop(sender.send(Asked::Reread)),
                    (_, Signal::SIGHUP) => tracing::info!("settings are read again only while the broker serves"),
                    (SERVING, signal) => {
                        seen.store(STOPPING, Ordering::SeqCst);
                        let _ = sender.send(Asked::Stop(signal));
                    }
                    (phase, signal) => {
                        let when =
                            if phase == STARTING { "before it served" } else { "before it had stopped in order" };
                        tracing::warn!(%signal, "the broker ends at once, {when}; the next start recovers");
                        std::process::exit(EXIT_FORCED);
                    }
                }
            }
        })?;
        Ok(Signals { phase, asked })
    }

    /// The broker serves from now on.
    pub fn set_serving(&self) {
        self.phase.store(SERVING, Ordering::SeqCst);
    }

    /// Waits for the next signal that a serving broker acts on; `None` if there will be none.
    pub fn next(&self) -> Option<Asked> {
        self.asked.recv().ok()
    }
}
