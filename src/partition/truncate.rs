//! Taking back the end of a follower's log, between two writes of its append task.
//!
//! ```text
//!  the slot says Truncating -> all else in the log ends -> the checkpoints say so -> the log is cut -> Open
//!      readers and appends wait from here on ----------------------------------------------------- go on
//! ```
//! A log whose cut failed is not served until it was recovered. Where it could not even be begun it is as it was.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use futures_channel::oneshot;

use super::append::AppendFailure;
use super::partition::{LeadershipError, Offsets, Partition, State};
use super::slot::{Job, LogSlot};
use crate::base::ids::{LeaderEpoch, Offset};
use crate::executor::either;
use crate::platform::{Clock, Disk, Platform};
use crate::storage::log::{LastStop, Log};

/// What is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Every batch that ends at or past this offset.
    From(Offset),
    /// Everything; the log starts and ends at this offset then.
    All(Offset),
}

/// Why a log was not cut.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TruncationFailure {
    #[error(transparent)]
    Leadership(#[from] LeadershipError),
    #[error("the checkpoints can't be written, or another truncation waits: nothing was changed")]
    NotNow,
    #[error("the log could not be cut: {0}")]
    Storage(String),
}

/// One that waits for the append task.
pub(super) struct Truncation {
    cut: Cut,
    leader_epoch: LeaderEpoch,
    done: oneshot::Sender<Result<Offset, TruncationFailure>>,
}

impl Cut {
    fn offset(self) -> Offset {
        match self {
            Cut::From(offset) | Cut::All(offset) => offset,
        }
    }
}

impl<P: Platform> Partition<P> {
    /// Takes back a part of the log of a follower under this leader epoch; gives the log end then. The high watermark falls
    /// with it, if it must.
    pub async fn truncate(self: &Rc<Self>, cut: Cut, leader_epoch: LeaderEpoch) -> Result<Offset, TruncationFailure> {
        let outcome = {
            let mut state = self.state.borrow_mut();
            state.check_follower(leader_epoch)?;
            if state.append.truncation.is_some() {
                return Err(TruncationFailure::NotNow);
            }
            let (done, outcome) = oneshot::channel();
            state.append.truncation = Some(Truncation { cut, leader_epoch, done });
            self.run_append_task(&mut state);
            outcome
        };
        // Unanswered by a log that is given up.
        outcome.await.unwrap_or(Err(LeadershipError::NotLeader.into()))
    }

    /// Resolves when the log is not on its way to another end.
    pub(super) async fn unparked(&self) {
        poll_fn(|context| match self.state.borrow_mut().slot.park(context.waker()) {
            true => Poll::Pending,
            false => Poll::Ready(()),
        })
        .await;
    }

    /// Resolves when nothing goes on in the log but the append task.
    async fn all_else_ended(&self) {
        poll_fn(|context| {
            let mut state = self.state.borrow_mut();
            match state.jobs.is_none_but(&[Job::Append]) {
                true => Poll::Ready(()),
                false => {
                    state.jobs.wait(context.waker());
                    Poll::Pending
                }
            }
        })
        .await;
    }

    /// Has the checkpoints say what the log does now, unless `is_in_time` does not hold of the slot any more: at a stop
    /// nobody may be there who writes them. Whether they durably do.
    pub(super) async fn checkpointed(&self, is_in_time: impl Fn(&LogSlot<P::Disk>) -> bool) -> bool {
        let too_late = poll_fn(|context| {
            let mut state = self.state.borrow_mut();
            if !is_in_time(&state.slot) {
                return Poll::Ready(());
            }
            state.jobs.wait(context.waker());
            Poll::Pending
        });
        either(self.home.log_dir().rewrite_checkpoints(), too_late).await.unwrap_or(false)
    }
}

impl<P: Platform> State<P> {
    /// The truncation that waits, unless it came under another role or has nothing to take back.
    pub(super) fn begin_truncation(&mut self) -> Option<Truncation> {
        let Truncation { cut, leader_epoch, done } = self.append.truncation.take()?;
        let outcome = match (self.check_follower(leader_epoch), self.slot.open_mut()) {
            (Err(error), _) => Err(error.into()),
            (Ok(()), None) => Err(LeadershipError::NotLeader.into()),
            (Ok(()), Some(log)) => {
                // They follow what is taken back, or what the leader says was never there.
                self.append.fail_replicated(&AppendFailure::Interrupted);
                if matches!(cut, Cut::From(offset) if offset >= log.log_end_offset()) {
                    // An epoch of this replica's own that has written nothing (Kafka 3.9 `UnifiedLog.truncateTo`).
                    log.take_back_epoch();
                    Ok(log.log_end_offset())
                } else {
                    let last_stop = last_stop(log, self.high_watermark, cut);
                    let offsets = offsets_after(log, self.high_watermark, cut);
                    self.slot.begin_truncation(last_stop, offsets);
                    self.jobs.wake();
                    self.append.tell_rolled();
                    return Some(Truncation { cut, leader_epoch, done });
                }
            }
        };
        // It may have given up.
        let _ = done.send(outcome);
        None
    }

    /// The log could not be cut: what waits is told.
    fn give_up_log(&mut self) {
        self.slot.end_truncation(None);
        let failure = AppendFailure::Leadership(LeadershipError::LogOffline);
        self.append.fail(&failure);
        self.flushing.fail(&failure);
        self.purgatory.interrupt(&failure);
    }

    fn settle_truncated(&mut self, log: Log<P::Disk>) -> Offset {
        let log_end = log.log_end_offset();
        self.slot.end_truncation(Some(log));
        // They may have changed meanwhile.
        self.follow_config();
        let high_watermark = self.high_watermark.min(log_end);
        self.set_high_watermark(high_watermark);
        if let Some(log) = self.slot.log_mut() {
            // The producers are read anew.
            log.high_watermark_moved(high_watermark);
        }
        // What waits for a flush was taken back, or waits on for the next one.
        self.flushing.fail_from(log_end, &AppendFailure::Interrupted);
        self.purgatory.fire_watches();
        self.note_unflushed();
        log_end
    }
}

/// Cuts the log of a slot that says so, and tells who waits for it.
pub(super) async fn run<P: Platform>(partition: Rc<Partition<P>>, truncation: Truncation) {
    let Truncation { cut, done, .. } = truncation;
    let outcome = run_cut(&partition, cut).await;
    // It may have given up.
    let _ = done.send(outcome);
}

async fn run_cut<P: Platform>(partition: &Rc<Partition<P>>, cut: Cut) -> Result<Offset, TruncationFailure> {
    partition.all_else_ended().await;
    let is_written = partition.checkpointed(LogSlot::is_truncating).await;
    let log = {
        let mut state = partition.state.borrow_mut();
        if let Some(last_stop) = state.slot.last_stop().filter(|_| is_written) {
            state.cleaner.noted_cleaned_to(last_stop.cleaned_to);
        }
        state.slot.take_for_truncation()
    };
    // It went offline, or is to leave.
    let log = log.ok_or(LeadershipError::NotLeader)?;
    if !is_written {
        partition.state.borrow_mut().slot.end_truncation(Some(log));
        return Err(TruncationFailure::NotNow);
    }
    let (now, from) = (partition.platform.clock().wall(), log.log_end_offset());
    let truncated = match cut {
        Cut::From(offset) => log.truncate_to(offset, now).await,
        Cut::All(offset) => log.truncate_fully_and_start_at(offset, now).await,
    };
    match truncated {
        Ok(log) => {
            let log_end = partition.state.borrow_mut().settle_truncated(log);
            tracing::info!(partition = %partition.topic_partition, from, to = log_end, "log truncated");
            Ok(log_end)
        }
        Err(error) => {
            tracing::error!(partition = %partition.topic_partition, %error, "the log can't be cut; it is offline");
            partition.state.borrow_mut().give_up_log();
            partition.storage_failed(&error);
            Err(TruncationFailure::Storage(error.to_string()))
        }
    }
}

/// What recovery is to know of the log from now on, however the cut ends.
fn last_stop<D: Disk>(log: &Log<D>, high_watermark: Offset, cut: Cut) -> LastStop {
    let offset = cut.offset();
    let recovery_point = match cut {
        Cut::From(offset) => log.recovery_point_before_truncation(offset),
        Cut::All(offset) => log.recovery_point().min(log.log_start_offset()).min(offset),
    };
    LastStop {
        unclean: true,
        recovery_point,
        log_start_offset: log.log_start_offset().min(offset),
        high_watermark: high_watermark.min(offset),
        cleaned_to: log.cleaned_to().map(|cleaned_to| cleaned_to.min(offset)),
        cache_survived: false,
    }
}

/// What those are told who only ask for offsets meanwhile.
fn offsets_after<D: Disk>(log: &Log<D>, high_watermark: Offset, cut: Cut) -> Offsets {
    let most = cut.offset();
    Offsets {
        log_start: log.log_start_offset().min(most),
        high_watermark: high_watermark.min(most),
        last_stable: log.last_stable_offset(high_watermark).min(most),
        log_end: log.log_end_offset().min(most),
    }
}
