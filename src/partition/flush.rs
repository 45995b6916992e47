//! When a log is made durable, and who waits for it.
//!
//! Where the page cache is enough, a log that is appended to is not flushed: whoever appends would wait for it. What was
//! written survives the end of the process anyway, and what a start after a power cut has to read is bounded otherwise: a
//! log is flushed once nobody has appended to it for [`IDLE_FLUSH_AFTER`], a closed segment at its roll, and the logs that
//! are appended to least when their directory has more unflushed than it may (`shard::flusher`).
//!
//! With `flush.messages`, `flush.ms` and `--durability=fsync` this replica counts with its flushed offset, so that the high
//! watermark never passes unflushed bytes. One flush of a log runs at a time; what is appended meanwhile is the next one's,
//! so that one fdatasync acknowledges all that it covers (group commit). The first error of a sync is final: the directory
//! goes offline, and nothing that waits is acknowledged.

use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use futures_channel::oneshot;

use super::append::{Acks, AppendFailure, StagedAnswer, start_upkeep};
use super::partition::{LeadershipError, Partition, Settings, State};
use super::replica_set::LocalEnds;
use super::slot::Job;
use crate::base::ids::Offset;
use crate::config::Durability;
use crate::platform::{Clock, Platform, Tasks};
use crate::storage::log::{Flushed, Log, LogError};

/// Unflushed bytes after which a log is flushed whose high watermark waits for that.
const COUNTED_FLUSH_BYTES: u64 = 64 * 1024 * 1024;

/// How long nothing must be appended for a log to give back what it holds for appends.
const IDLE_AFTER: Duration = Duration::from_secs(30);

/// How long nothing must be appended for a log to be flushed, at least; it may take twice as long. As often a log that is
/// appended to is looked at.
const IDLE_FLUSH_AFTER: Duration = Duration::from_secs(5);

/// How long appended bytes stay unflushed where the high watermark waits for that.
const COUNTED_FLUSH_AFTER: Duration = Duration::from_secs(1);

/// What an acknowledgement and the high watermark wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flushes {
    /// For nothing: the page cache will do.
    InTime,
    /// The high watermark, and with it acks=all, waits for the flush.
    Counted,
    /// acks=1 waits for it too.
    Each,
}

impl Settings {
    pub(super) fn flushes(&self) -> Flushes {
        let config = &self.config;
        if self.durability == Durability::Fsync || config.flush_messages == 1 {
            Flushes::Each
        } else if config.flush_messages != i64::MAX || config.flush_ms != i64::MAX {
            Flushes::Counted
        } else {
            Flushes::InTime
        }
    }
}

#[derive(Default)]
pub(super) struct Flushing {
    timer_armed: bool,
    /// Bytes appended to the log when the timer was armed, and between the two times before that.
    appended_bytes: u64,
    recent_bytes: u64,
    idle_timer_armed: bool,
    /// The next write to finish is to start one.
    wanted: bool,
    /// The flush that runs is to be followed by another one.
    again: bool,
    /// Unflushed bytes as the directory knows them.
    noted_bytes: u64,
    /// Written and not flushed.
    waiting: VecDeque<StagedAnswer>,
    /// Who is told when no flush runs any more.
    rest: Vec<oneshot::Sender<()>>,
}

impl Flushing {
    /// Fails all that waits.
    pub fn fail(&mut self, failure: &AppendFailure) {
        self.waiting.drain(..).for_each(|waiting| waiting.fail(failure));
    }

    /// Fails what ends at or past the log end: it was taken back.
    pub fn fail_from(&mut self, log_end: Offset, failure: &AppendFailure) {
        for waiting in std::mem::take(&mut self.waiting) {
            match waiting.result.last_offset < log_end {
                true => self.waiting.push_back(waiting),
                false => waiting.fail(failure),
            }
        }
    }

    fn release(&mut self, flushed_offset: Offset) {
        // Duplicates stand among the others with the offsets of their originals.
        for waiting in std::mem::take(&mut self.waiting) {
            match waiting.result.last_offset < flushed_offset {
                true => waiting.send(),
                false => self.waiting.push_back(waiting),
            }
        }
    }
}

impl<P: Platform> State<P> {
    /// Where the log is, and how much of it counts.
    pub(super) fn local_ends(&self) -> Option<LocalEnds> {
        let log = self.slot.log()?;
        let counted = match self.settings.flushes() {
            Flushes::InTime => log.log_end_offset(),
            Flushes::Counted | Flushes::Each => log.flushed_offset(),
        };
        Some(LocalEnds { log_end: log.log_end_offset(), counted })
    }

    /// Answers what is written, now or when it is flushed; not any more once the directory is offline.
    pub(super) fn acknowledge(&mut self, staged: &mut Vec<StagedAnswer>) {
        if self.slot.is_offline() {
            let failure = LeadershipError::LogOffline.into();
            return staged.drain(..).for_each(|staged| staged.fail(&failure));
        }
        let flushes = self.settings.flushes();
        let flushed_offset = self.slot.log().map_or(Offset::MAX, Log::flushed_offset);
        let mut now = None;
        for mut answer in staged.drain(..) {
            self.flushing.wanted |= flushes == Flushes::Counted && answer.acks != Acks::Leader;
            let waits = match flushes {
                Flushes::InTime => false,
                Flushes::Counted => answer.acks == Acks::Follower,
                Flushes::Each => true,
            };
            match !waits || answer.result.last_offset < flushed_offset {
                true => answer.send(),
                false => {
                    answer.result.unflushed_since = Some(*now.get_or_insert_with(|| self.clock.now()));
                    self.flushing.waiting.push_back(answer);
                }
            }
        }
    }

    /// Tells the directory how much of this log is not flushed.
    pub(super) fn note_unflushed(&mut self) {
        let now = self.slot.log().map_or(0, Log::unflushed_bytes);
        self.home.log_dir().note_unflushed(std::mem::replace(&mut self.flushing.noted_bytes, now), now);
    }

    fn stop_flushing(&mut self) {
        for waiting in self.flushing.rest.drain(..) {
            // It may have given up.
            let _ = waiting.send(());
        }
        self.jobs.end(Job::Flush);
    }

    fn is_flush_due(&self) -> bool {
        let Some(log) = self.slot.working() else { return false };
        let unflushed_records = log.log_end_offset() - log.flushed_offset();
        unflushed_records > 0
            && (self.flushing.wanted
                || !self.flushing.waiting.is_empty()
                || unflushed_records >= self.settings.config.flush_messages
                || (self.settings.flushes() != Flushes::InTime && log.unflushed_bytes() >= COUNTED_FLUSH_BYTES))
    }
}

impl<P: Platform> Partition<P> {
    /// To be called when a write has finished, and when the log was opened: starts a flush if one is due, and sees to it
    /// that one comes.
    pub fn flush_in_time(self: &Rc<Self>) {
        let (start, is_unflushed) = {
            let mut state = self.state.borrow_mut();
            let start = state.is_flush_due() && state.jobs.begin(Job::Flush);
            let log = state.slot.open();
            (start, log.is_some_and(|log| log.log_end_offset() > log.flushed_offset()))
        };
        if start {
            self.platform.tasks().spawn(flush(Rc::clone(self)));
        } else if is_unflushed {
            self.flush_later();
        }
    }

    /// Sees to it that a flush comes.
    fn flush_later(self: &Rc<Self>) {
        let sleep = {
            let mut state = self.state.borrow_mut();
            let Some(log) = state.slot.open() else { return };
            let appended_bytes = log.appended_bytes();
            if std::mem::replace(&mut state.flushing.timer_armed, true) {
                return;
            }
            // A log that was opened anew counts from 0 again.
            state.flushing.recent_bytes = appended_bytes.saturating_sub(state.flushing.appended_bytes);
            state.flushing.appended_bytes = appended_bytes;
            let most = match state.settings.flushes() {
                Flushes::InTime => IDLE_FLUSH_AFTER,
                Flushes::Counted | Flushes::Each => COUNTED_FLUSH_AFTER,
            };
            u64::try_from(state.settings.config.flush_ms).map_or(most, Duration::from_millis).min(most)
        };
        let clock = self.platform.clock();
        let (this, slept) = (Rc::clone(self), clock.sleep_until(clock.now() + sleep));
        self.platform.tasks().spawn(async move {
            slept.await;
            this.timer_fired();
        });
    }

    fn timer_fired(self: &Rc<Self>) {
        let is_quiet = {
            let mut state = self.state.borrow_mut();
            state.flushing.timer_armed = false;
            let appended_bytes = state.flushing.appended_bytes;
            let Some(log) = state.slot.open_mut() else { return };
            let is_idle = log.appended_bytes() == appended_bytes;
            let is_quiet = log.is_quiet();
            log.cool_down(is_idle);
            state.flushing.wanted |= is_idle || state.settings.flushes() != Flushes::InTime;
            is_quiet
        };
        // Otherwise the write in flight does it.
        if is_quiet {
            self.flush_in_time();
        }
        start_upkeep(self);
    }

    /// How much was appended to it of late for each byte that a flush would take from what its directory has unflushed, in
    /// units of 2^-32; `None` if it would take none. It grows when the log is flushed, so that of equally busy ones each
    /// comes in its turn.
    pub fn appended_per_unflushed(&self) -> Option<u64> {
        let state = self.state.borrow();
        let unflushed_bytes = u128::from(state.slot.open()?.unflushed_bytes());
        if unflushed_bytes == 0 {
            return None;
        }
        let recent_bytes = u128::from(state.flushing.recent_bytes) + 1;
        Some(u64::try_from((recent_bytes << 32) / unflushed_bytes).unwrap_or(u64::MAX))
    }

    /// Tells who waited for a flush that it failed: at once, since a directory that is offline tells nobody again.
    /// One that did not come to the device is tried again, but not in a hurry.
    fn flush_failed(self: &Rc<Self>, error: &LogError) {
        if self.home.log_dir().is_offline() {
            return self.go_offline();
        }
        self.state.borrow_mut().flushing.fail(&AppendFailure::Storage(error.to_string()));
        self.flush_later();
    }

    /// Makes what is in the log durable before the replica is served, where that counts: what recovery found may not
    /// be on the disk yet.
    pub async fn flush_recovered(self: &Rc<Self>) {
        {
            let mut state = self.state.borrow_mut();
            // What recovery found past the recovery point is not known to be durable.
            state.note_unflushed();
            let Some(log) = state.slot.open() else { return };
            let is_flushed = log.flushed_offset() == log.log_end_offset();
            if state.settings.flushes() == Flushes::InTime || is_flushed || !state.begin(Job::Flush) {
                return;
            }
            state.flushing.wanted = true;
        }
        flush(Rc::clone(self)).await;
        // The directory may have failed meanwhile, when this partition could not be told yet.
        if self.home.log_dir().is_offline() {
            self.go_offline();
        }
    }

    /// Has the log rest once nothing was appended for a while.
    fn rest_later(self: &Rc<Self>) {
        let appended_bytes = {
            let mut state = self.state.borrow_mut();
            let Some(log) = state.slot.open() else { return };
            let appended_bytes = log.appended_bytes();
            if std::mem::replace(&mut state.flushing.idle_timer_armed, true) {
                return;
            }
            appended_bytes
        };
        let clock = self.platform.clock();
        let (this, slept) = (Rc::clone(self), clock.sleep_until(clock.now() + IDLE_AFTER));
        self.platform.tasks().spawn(async move {
            slept.await;
            let is_idle = {
                let mut state = this.state.borrow_mut();
                state.flushing.idle_timer_armed = false;
                let Some(log) = state.slot.open_mut() else { return };
                let is_idle = log.appended_bytes() == appended_bytes;
                log.cool_down(is_idle);
                is_idle
            };
            match is_idle {
                true => this.rest(),
                false => this.rest_later(),
            }
        });
    }

    /// Flushes what is not flushed, closed segments too, and waits for it; whether it could be done shows in the log.
    pub async fn flush_now(self: &Rc<Self>) {
        let flushed = {
            let mut state = self.state.borrow_mut();
            if !state.slot.is_open() {
                return;
            }
            let (sender, flushed) = oneshot::channel();
            state.flushing.rest.push(sender);
            // One that runs already may have begun too early: it goes on with another one.
            state.flushing.again |= state.jobs.is_running(Job::Flush);
            state.flushing.wanted = true;
            if state.jobs.begin(Job::Flush) {
                self.platform.tasks().spawn(flush(Rc::clone(self)));
            }
            flushed
        };
        let _ = flushed.await;
    }

    /// Flushes the segments that were closed, soon: the recovery point follows (Kafka 3.9 `UnifiedLog.roll`).
    pub(super) fn flush_rolled(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        state.flushing.wanted |= state.settings.flushes() != Flushes::InTime;
        state.flushing.again = true;
        if state.slot.working().is_some() && state.jobs.begin(Job::Flush) {
            self.platform.tasks().spawn(flush(Rc::clone(self)));
        }
    }
}

/// Of a whole log, or of its closed segments.
type Flush = Pin<Box<dyn Future<Output = Flushed>>>;

/// One flush after the other while they are due.
async fn flush<P: Platform>(partition: Rc<Partition<P>>) {
    loop {
        let flush: Flush = {
            let mut state = partition.state.borrow_mut();
            let is_due = state.is_flush_due();
            state.flushing.again = false;
            state.flushing.wanted = false;
            let Some(log) = state.slot.working_mut() else { return state.stop_flushing() };
            match is_due {
                true => Box::pin(log.flush()),
                false => match log.flush_closed() {
                    Some(flush) => Box::pin(flush),
                    None => return state.stop_flushing(),
                },
            }
        };
        let flushed = flush.await;
        let mut state = partition.state.borrow_mut();
        let outcome = state.slot.log_mut().map(|log| log.finish_flush(flushed));
        match outcome {
            Some(Ok(())) => {
                state.note_unflushed();
                let flushed_offset = state.slot.log().map_or(0, Log::flushed_offset);
                state.move_high_watermark();
                state.flushing.release(flushed_offset);
                if state.flushing.again || state.is_flush_due() {
                    continue;
                }
                state.stop_flushing();
                drop(state);
                partition.flush_in_time();
                return partition.rest_later();
            }
            Some(Err(error)) => {
                state.stop_flushing();
                let is_final = state.slot.log().is_some_and(Log::has_failed);
                drop(state);
                tracing::error!(partition = %partition.topic_partition, %error, "the log could not be flushed");
                match is_final {
                    // Whatever the error says: after a failed sync nobody knows what is on the device.
                    true => partition.home.fail(&error),
                    false => partition.storage_failed(&error),
                }
                return partition.flush_failed(&error);
            }
            None => return state.stop_flushing(),
        }
    }
}
