//! A replica's log, or what there is instead of it, and what goes on in it.
//!
//! ```text
//!  Open <---> Truncating    its end is taken back: readers and appends wait, and go on after it
//!   |            |
//!   +--> Offline <          its directory has failed, or it could not be opened or cut: requests are told
//!   +--> Leaving            somebody waits for it, to close or delete it: nobody is served any more
//! ```
//! What is under way when a log goes offline or is to leave ends with the log still there.

use std::task::Waker;

use super::partition::Offsets;
use crate::platform::Disk;
use crate::storage::log::{LastStop, Log};

pub(super) enum LogSlot<D: Disk> {
    Open(Log<D>),
    /// Rare, and larger than the others.
    Truncating(Box<Truncating<D>>),
    Offline(Kept<D>),
    Leaving(Kept<D>),
}

/// A log on its way to another end.
pub(super) struct Truncating<D: Disk> {
    /// Until all that is under way in it has ended; then the truncation has it.
    pub log: Option<Log<D>>,
    /// What the checkpoints are to say until it is done.
    pub last_stop: LastStop,
    pub offsets: Offsets,
    /// Who wants to read it.
    pub parked: Vec<Waker>,
}

/// What is left of a log that is not served.
#[expect(clippy::large_enum_variant, reason = "a slot has the room for a log anyway")]
pub(super) enum Kept<D: Disk> {
    Log(Log<D>),
    /// It could not be opened: what the checkpoints said, and must go on saying until it is recovered.
    Unopened(LastStop),
    /// Its truncation was not finished: what recovery must know then.
    Cut(LastStop),
    /// It was taken away.
    Nothing,
}

impl<D: Disk> Kept<D> {
    fn log(&self) -> Option<&Log<D>> {
        match self {
            Kept::Log(log) => Some(log),
            Kept::Unopened(_) | Kept::Cut(_) | Kept::Nothing => None,
        }
    }

    fn log_mut(&mut self) -> Option<&mut Log<D>> {
        match self {
            Kept::Log(log) => Some(log),
            Kept::Unopened(_) | Kept::Cut(_) | Kept::Nothing => None,
        }
    }

    fn last_stop(&self) -> Option<LastStop> {
        match self {
            Kept::Unopened(last_stop) | Kept::Cut(last_stop) => Some(*last_stop),
            Kept::Log(_) | Kept::Nothing => None,
        }
    }
}

impl<D: Disk> LogSlot<D> {
    pub fn is_open(&self) -> bool {
        matches!(self, LogSlot::Open(_))
    }

    pub fn is_offline(&self) -> bool {
        matches!(self, LogSlot::Offline(_))
    }

    pub fn is_truncating(&self) -> bool {
        matches!(self, LogSlot::Truncating(_))
    }

    pub fn is_leaving(&self) -> bool {
        matches!(self, LogSlot::Leaving(_))
    }

    /// The log could not be opened.
    pub fn unopened(&self) -> Option<LastStop> {
        match self {
            LogSlot::Offline(Kept::Unopened(last_stop)) | LogSlot::Leaving(Kept::Unopened(last_stop)) => {
                Some(*last_stop)
            }
            _ => None,
        }
    }

    /// The log in service.
    pub fn open(&self) -> Option<&Log<D>> {
        match self {
            LogSlot::Open(log) => Some(log),
            LogSlot::Truncating(_) | LogSlot::Offline(_) | LogSlot::Leaving(_) => None,
        }
    }

    pub fn open_mut(&mut self) -> Option<&mut Log<D>> {
        match self {
            LogSlot::Open(log) => Some(log),
            LogSlot::Truncating(_) | LogSlot::Offline(_) | LogSlot::Leaving(_) => None,
        }
    }

    /// The log, as long as what was begun in it may go on, and begin anew if it must to end well.
    pub fn working(&self) -> Option<&Log<D>> {
        match self {
            LogSlot::Open(log) => Some(log),
            LogSlot::Leaving(kept) => kept.log(),
            LogSlot::Truncating(_) | LogSlot::Offline(_) => None,
        }
    }

    pub fn working_mut(&mut self) -> Option<&mut Log<D>> {
        match self {
            LogSlot::Open(log) => Some(log),
            LogSlot::Leaving(kept) => kept.log_mut(),
            LogSlot::Truncating(_) | LogSlot::Offline(_) => None,
        }
    }

    /// The log in whatever state, for what has come to its end in it.
    pub fn log(&self) -> Option<&Log<D>> {
        match self {
            LogSlot::Open(log) => Some(log),
            LogSlot::Truncating(truncating) => truncating.log.as_ref(),
            LogSlot::Offline(kept) | LogSlot::Leaving(kept) => kept.log(),
        }
    }

    pub fn log_mut(&mut self) -> Option<&mut Log<D>> {
        match self {
            LogSlot::Open(log) => Some(log),
            LogSlot::Truncating(truncating) => truncating.log.as_mut(),
            LogSlot::Offline(kept) | LogSlot::Leaving(kept) => kept.log_mut(),
        }
    }

    /// What the checkpoints are to say of it instead of what the log itself does.
    pub fn last_stop(&self) -> Option<LastStop> {
        match self {
            LogSlot::Open(_) => None,
            LogSlot::Truncating(truncating) => Some(truncating.last_stop),
            LogSlot::Offline(kept) | LogSlot::Leaving(kept) => kept.last_stop(),
        }
    }

    /// Its directory has failed.
    pub fn go_offline(&mut self) {
        self.change(|slot| match slot {
            LogSlot::Open(log) => LogSlot::Offline(Kept::Log(log)),
            LogSlot::Truncating(truncating) => LogSlot::Offline((*truncating).give_up()),
            LogSlot::Offline(_) | LogSlot::Leaving(_) => slot,
        });
    }

    /// Somebody is to close or delete it.
    pub fn leave(&mut self) {
        self.change(|slot| match slot {
            LogSlot::Open(log) => LogSlot::Leaving(Kept::Log(log)),
            LogSlot::Truncating(truncating) => LogSlot::Leaving((*truncating).give_up()),
            LogSlot::Offline(kept) | LogSlot::Leaving(kept) => LogSlot::Leaving(kept),
        });
    }

    /// The log of a slot that is left.
    pub fn take(&mut self) -> Option<Log<D>> {
        let LogSlot::Leaving(kept @ Kept::Log(_)) = self else { return None };
        match std::mem::replace(kept, Kept::Nothing) {
            Kept::Log(log) => Some(log),
            Kept::Unopened(_) | Kept::Cut(_) | Kept::Nothing => None,
        }
    }

    pub fn begin_truncation(&mut self, last_stop: LastStop, offsets: Offsets) {
        self.change(|slot| match slot {
            LogSlot::Open(log) => {
                let truncating = Truncating { log: Some(log), last_stop, offsets, parked: Vec::new() };
                LogSlot::Truncating(Box::new(truncating))
            }
            LogSlot::Truncating(_) | LogSlot::Offline(_) | LogSlot::Leaving(_) => slot,
        });
    }

    /// The log for its truncation; `None` if it has gone offline or is to leave meanwhile.
    pub fn take_for_truncation(&mut self) -> Option<Log<D>> {
        match self {
            LogSlot::Truncating(truncating) => truncating.log.take(),
            LogSlot::Open(_) | LogSlot::Offline(_) | LogSlot::Leaving(_) => None,
        }
    }

    /// The truncation is over: gives the log back, or `None` if it failed; whoever is parked goes on.
    pub fn end_truncation(&mut self, truncated: Option<Log<D>>) {
        self.change(|slot| match (slot, truncated) {
            (LogSlot::Truncating(truncating), Some(log)) => {
                truncating.wake();
                LogSlot::Open(log)
            }
            (LogSlot::Truncating(truncating), None) => LogSlot::Offline((*truncating).give_up()),
            (LogSlot::Offline(Kept::Cut(_)), Some(log)) => LogSlot::Offline(Kept::Log(log)),
            (LogSlot::Leaving(Kept::Cut(_)), Some(log)) => LogSlot::Leaving(Kept::Log(log)),
            (slot, _) => slot,
        });
    }

    /// Has `waker` woken when the truncation is over; false if there is none.
    pub fn park(&mut self, waker: &Waker) -> bool {
        match self {
            LogSlot::Truncating(truncating) => {
                truncating.parked.push(waker.clone());
                true
            }
            LogSlot::Open(_) | LogSlot::Offline(_) | LogSlot::Leaving(_) => false,
        }
    }

    fn change(&mut self, next: impl FnOnce(LogSlot<D>) -> LogSlot<D>) {
        let now = std::mem::replace(self, LogSlot::Offline(Kept::Nothing));
        *self = next(now);
    }
}

impl<D: Disk> Truncating<D> {
    fn wake(&self) {
        self.parked.iter().for_each(Waker::wake_by_ref);
    }

    fn give_up(self) -> Kept<D> {
        self.wake();
        match self.log {
            Some(log) => Kept::Log(log),
            None => Kept::Cut(self.last_stop),
        }
    }
}

/// What goes on in one log, each at most once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Job {
    /// The append task.
    Append = 1,
    /// Preallocation and index blocks.
    Upkeep = 1 << 1,
    /// Writes the file of leader epochs.
    Epochs = 1 << 2,
    /// Retention or compaction.
    Maintenance = 1 << 3,
    Flush = 1 << 4,
}

/// The jobs under way, and who waits for their ends, or for a slot that is not served any more.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    running: u8,
    waiting: Vec<Waker>,
}

impl Jobs {
    pub fn is_running(&self, job: Job) -> bool {
        self.running & job as u8 != 0
    }

    /// Whether none but these is.
    pub fn is_none_but(&self, jobs: &[Job]) -> bool {
        jobs.iter().fold(self.running, |running, job| running & !(*job as u8)) == 0
    }

    /// False if it runs already.
    pub fn begin(&mut self, job: Job) -> bool {
        let begins = !self.is_running(job);
        self.running |= job as u8;
        begins
    }

    pub fn end(&mut self, job: Job) {
        self.running &= !(job as u8);
        self.wake();
    }

    /// The slot has changed.
    pub fn wake(&mut self) {
        self.waiting.drain(..).for_each(Waker::wake);
    }

    /// Has `waker` woken at the next end of a job, or change of the slot.
    pub fn wait(&mut self, waker: &Waker) {
        self.waiting.push(waker.clone());
    }
}
