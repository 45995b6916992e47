//! The append task of a partition: one at a time, it stages what waits and writes it, and does between two writes what can't
//! be done beside one.
//!
//! ```text
//!  next_step:  roles taken on -> truncation -> roll -> what waits is staged -> rest -> idle
//!                                                       |  first, as needed: note the leader epoch, gather, repair,
//!                                                       |  open the file, roll
//!                                                       +-> write
//! ```
//! A step is a write or a job; what follows a job that has ended, also badly, stands in [`Done::settle`].

use std::pin::Pin;
use std::rc::Rc;

use super::{AppendFailure, AppendQueue, Appended, Origin, Pending, StagedAnswer, start_upkeep, write_epochs};
use crate::base::ids::{LeaderEpoch, Offset};
use crate::base::time::WallMs;
use crate::partition::gather;
use crate::partition::partition::{LeadershipError, Partition, State};
use crate::partition::role::Role;
use crate::partition::slot::{Job, Jobs};
use crate::partition::truncate;
use crate::platform::{Clock, Disk, Platform};
use crate::record::batch::BatchHeader;
use crate::storage::log::{
    AppendError, AppendRefusal, LoadedSegment, Log, LogError, LogWrite, Repaired, Rested, Rolled, Staged,
    TransactionsWritten,
};

type Boxed<T> = Pin<Box<dyn Future<Output = T>>>;

/// What the append task does next. Jobs are rare: their futures may be boxed.
enum Step<D: Disk> {
    Write {
        write: LogWrite<D::File>,
        /// What must be in the transaction index first.
        transactions: Option<Boxed<TransactionsWritten<D>>>,
    },
    Job(Boxed<Done<D>>),
    Idle,
}

/// A job that has ended.
enum Done<D: Disk> {
    Rolled(Rolled<D>),
    Repaired(Repaired),
    Loaded(LoadedSegment<D>),
    /// A leader epoch was written down, or not.
    EpochNoted(Result<(), LogError>),
    /// Several batches became one, or stay what they are: what takes their place in the queue.
    Gathered(Vec<Pending>),
    Rested(Rested),
    /// It was only waited for.
    Nothing,
}

pub(super) async fn run<P: Platform>(partition: Rc<Partition<P>>) {
    let mut staged = Vec::new();
    loop {
        match next_step(&partition, &mut staged) {
            Step::Write { write, transactions } => {
                #[cfg(feature = "planted-ack-before-write")]
                acknowledge_before_write(&partition, &mut staged).await;
                let noted = match transactions {
                    Some(transactions) => note_transactions(&partition, transactions).await,
                    None => Ok(()),
                };
                let result = match noted {
                    Ok(()) => partition.platform.disk().append(&write.file, write.position, write.data).await,
                    Err(error) => Err(error),
                };
                finish_write(&partition, result, &mut staged);
                partition.flush_in_time();
                start_upkeep(&partition);
            }
            Step::Job(job) => job.await.settle(&partition),
            Step::Idle => {
                // What a duplicate repeats may not be flushed yet.
                partition.flush_in_time();
                return;
            }
        }
    }
}

/// Stages what waits, in order, and says what that calls for. Nothing is in flight here.
fn next_step<P: Platform>(partition: &Rc<Partition<P>>, staged: &mut Vec<StagedAnswer>) -> Step<P::Disk> {
    let mut state = partition.state.borrow_mut();
    if !state.append.roles.is_empty() {
        // Duplicates of what is written, if any.
        state.acknowledge(staged);
        state.take_waiting_roles();
    }
    if state.slot.working().is_none() {
        return state.stop_appending(staged);
    }
    if let Some(truncation) = state.begin_truncation() {
        let this = Rc::clone(partition);
        return Step::Job(Box::pin(async {
            truncate::run(this, truncation).await;
            Done::Nothing
        }));
    }
    let now = state.clock.wall();
    if let Some(roll) = state.wanted_roll(staged, now) {
        return roll;
    }
    if let Some(step) = stage_pending(partition, &mut state, staged, now) {
        return step;
    }
    if std::mem::take(&mut state.append.rest_wanted)
        && let Some(rest) = state.slot.open_mut().and_then(Log::rest)
    {
        return Step::Job(Box::pin(async { Done::Rested(rest.await) }));
    }
    // Only duplicates: what they repeat is written already.
    state.acknowledge(staged);
    state.append.tell_rolled();
    state.jobs.end(Job::Append);
    Step::Idle
}

impl<P: Platform> State<P> {
    /// The log is not served any more.
    fn stop_appending(&mut self, staged: &mut Vec<StagedAnswer>) -> Step<P::Disk> {
        let failure = LeadershipError::LogOffline.into();
        self.append.fail(&failure);
        self.append.truncation = None;
        staged.drain(..).for_each(|staged| staged.fail(&failure));
        self.append.tell_rolled();
        self.jobs.end(Job::Append);
        Step::Idle
    }

    /// A leader's batches were not written: what waits behind them is not either, nor do the epochs begin that began with
    /// them.
    fn lose_replicated(&mut self, failure: &AppendFailure) {
        #[cfg(test)]
        if planted::STAGE_BEHIND_LOST.get() {
            return;
        }
        self.append.fail_replicated(failure);
        if !self.role.is_leader() {
            self.slot.log_mut().into_iter().for_each(Log::take_back_epoch);
        }
    }

    fn wanted_roll(&mut self, staged: &[StagedAnswer], now: WallMs) -> Option<Step<P::Disk>> {
        let is_wanted = !self.append.rolls.is_empty() && staged.is_empty();
        let log = self.slot.open_mut().filter(|log| is_wanted && log.can_roll())?;
        Some(roll(log, log.log_end_offset(), now))
    }
}

/// Stages batches until there are no more, or something must come first.
fn stage_pending<P: Platform>(
    partition: &Rc<Partition<P>>,
    state: &mut State<P>,
    staged: &mut Vec<StagedAnswer>,
    now: WallMs,
) -> Option<Step<P::Disk>> {
    let State { slot, role, settings, append, jobs, .. } = state;
    let log = slot.working_mut()?;
    while let Some(first) = append.pending.front() {
        if !may_stage(role, first) {
            fail_first(append, LeadershipError::NotLeader.into());
            continue;
        }
        let epoch = match epoch_to_note(log, role, first) {
            Ok(epoch) => epoch,
            Err(refusal) => {
                append.fail_replicated(&refusal.into());
                continue;
            }
        };
        let count = if settings.rebatch { gather::count(&append.pending, &settings.config) } else { None };
        if epoch.is_some() || count.is_some() {
            // What stands before them goes first.
            if let Some(write) = write(log) {
                return Some(write);
            }
        }
        if let Some(epoch) = epoch {
            return Some(note_epoch(partition, log, jobs, epoch));
        }
        if let Some(count) = count {
            let batches = append.pending.drain(..count).collect();
            let gathering = gather::run(partition.platform.tasks(), batches, &settings.config);
            return Some(Step::Job(Box::pin(async { Done::Gathered(gathering.await) })));
        }
        if let Some(before) = stage_first(log, role.epoch(), append, staged, now) {
            return Some(write(log).unwrap_or_else(|| before.step(log, now)));
        }
    }
    write(log)
}

/// Whether the role is still the one that the batch was queued under.
fn may_stage(role: &Role, batch: &Pending) -> bool {
    #[cfg(test)]
    if planted::STAGE_DEPOSED.get() {
        return true;
    }
    batch.leader_epoch == role.epoch() && role.is_leader() == (batch.origin != Origin::Replication)
}

fn fail_first(append: &mut AppendQueue, failure: AppendFailure) {
    if let Some(Pending { whose, .. }) = append.pending.pop_front() {
        whose.fail(&failure);
    }
}

/// The leader epoch that begins with this batch, and where: a leader's own with its first, a follower's with the first of
/// each, which must be one that the log takes (Kafka 3.9 `UnifiedLog.append`).
fn epoch_to_note<D: Disk>(
    log: &Log<D>,
    role: &Role,
    batch: &Pending,
) -> Result<Option<(LeaderEpoch, Offset)>, AppendRefusal> {
    let latest = log.latest_epoch();
    match batch.origin {
        Origin::Replication => {
            let BatchHeader { leader_epoch: epoch, base_offset, .. } = batch.header;
            if epoch < 0 || latest == Some(epoch) {
                return Ok(None);
            }
            log.judge_replicated(&batch.batch, &batch.header)?;
            Ok(Some((epoch, base_offset)))
        }
        Origin::Client | Origin::Coordinator | Origin::Marker => {
            let is_news = latest.is_none_or(|latest| latest < role.epoch());
            Ok(is_news.then(|| (role.epoch(), log.log_end_offset())))
        }
    }
}

/// Notes where an epoch begins, when nobody else writes the file of leader epochs.
fn note_epoch<P: Platform>(
    partition: &Rc<Partition<P>>,
    log: &mut Log<P::Disk>,
    jobs: &mut Jobs,
    (epoch, start_offset): (LeaderEpoch, Offset),
) -> Step<P::Disk> {
    if jobs.is_running(Job::Epochs) {
        let ended = Rc::clone(partition).ended(Job::Epochs);
        return Step::Job(Box::pin(async {
            ended.await;
            Done::Nothing
        }));
    }
    let Some(write) = log.assign_epoch(epoch, start_offset) else {
        unreachable!("it was looked at whether the epoch is news")
    };
    jobs.begin(Job::Epochs);
    Step::Job(Box::pin(async { Done::EpochNoted(write.await) }))
}

/// What must happen before the batch at the head of the queue can be staged.
enum Before {
    Write,
    /// To this base offset.
    Roll(Offset),
    Repair,
    Open,
}

impl Before {
    /// Nothing is staged that could be written first.
    fn step<D: Disk>(self, log: &mut Log<D>, now: WallMs) -> Step<D> {
        match self {
            Before::Write => unreachable!("a full write can be taken"),
            Before::Roll(base_offset) => roll(log, base_offset, now),
            Before::Repair => {
                let repair = log.repair();
                Step::Job(Box::pin(async { Done::Repaired(repair.await) }))
            }
            Before::Open => {
                let load = log.load_active();
                Step::Job(Box::pin(async { Done::Loaded(load.await) }))
            }
        }
    }
}

/// Stages the first batch of the queue, or refuses it, or says what must come first.
fn stage_first<D: Disk>(
    log: &mut Log<D>,
    leader_epoch: LeaderEpoch,
    append: &mut AppendQueue,
    staged: &mut Vec<StagedAnswer>,
    now: WallMs,
) -> Option<Before> {
    let Pending { batch, header, origin, leader_epoch: queued_under, whose } = append.pending.pop_front()?;
    let log_start_offset = log.log_start_offset();
    let appended = |base_offset: Offset, last_offset: Offset, log_append_time: WallMs| Appended {
        base_offset,
        last_offset,
        leader_epoch,
        log_append_time,
        log_start_offset,
        unflushed_since: None,
    };
    let (batch, before) = match log.stage(batch, &header, origin, leader_epoch, now) {
        #[cfg(test)]
        Staged::Duplicate { base_offset, last_offset, log_append_time } if planted::ANSWER_DUPLICATES_AT_ONCE.get() => {
            let mut answers = Vec::new();
            whose.stage(appended(base_offset, last_offset, log_append_time), &mut answers);
            answers.into_iter().for_each(StagedAnswer::send);
            return None;
        }
        Staged::Written { base_offset, last_offset, log_append_time }
        | Staged::Duplicate { base_offset, last_offset, log_append_time } => {
            whose.stage(appended(base_offset, last_offset, log_append_time), staged);
            return None;
        }
        Staged::Refused(refusal) => {
            let failure = refusal.into();
            whose.fail(&failure);
            if origin == Origin::Replication {
                append.fail_replicated(&failure);
            }
            return None;
        }
        Staged::WriteFull(batch) => (batch, Before::Write),
        Staged::RollFirst(batch) => {
            let is_placed = origin == Origin::Replication;
            (batch, Before::Roll(if is_placed { header.base_offset } else { log.log_end_offset() }))
        }
        Staged::Fenced(batch) => (batch, Before::Repair),
        Staged::NeedFile(batch) => (batch, Before::Open),
    };
    append.pending.push_front(Pending { batch, header, origin, leader_epoch: queued_under, whose });
    Some(before)
}

/// What is staged, as one write.
fn write<D: Disk>(log: &mut Log<D>) -> Option<Step<D>> {
    let write = log.take_write()?;
    let transactions = log.transactions_write().map(|writing| Box::pin(writing) as Boxed<_>);
    Some(Step::Write { write, transactions })
}

fn roll<D: Disk>(log: &mut Log<D>, base_offset: Offset, now: WallMs) -> Step<D> {
    let roll = log.begin_roll(base_offset, now);
    Step::Job(Box::pin(async { Done::Rolled(roll.await) }))
}

async fn note_transactions<P: Platform>(
    partition: &Partition<P>,
    transactions: Boxed<TransactionsWritten<P::Disk>>,
) -> std::io::Result<()> {
    let written = transactions.await;
    let mut state = partition.state.borrow_mut();
    match state.slot.log_mut() {
        Some(log) => log.finish_transactions_write(written),
        None => unreachable!("nobody takes a log away under a write"),
    }
}

fn finish_write<P: Platform>(partition: &Partition<P>, result: std::io::Result<()>, staged: &mut Vec<StagedAnswer>) {
    let mut state = partition.state.borrow_mut();
    let Some(log) = state.slot.log_mut() else { unreachable!("nobody takes a log away under a write") };
    match log.finish_write(result) {
        Ok(()) => {
            state.note_unflushed();
            state.log_end_moved();
            state.move_high_watermark();
            state.acknowledge(staged);
        }
        Err(AppendError(source)) => {
            let error = LogError::Io { path: partition.home.log_dir().path.clone(), source };
            tracing::error!(partition = %partition.topic_partition, %error, "the log is fenced until it is cut back");
            let failure = AppendFailure::Storage(error.to_string());
            staged.drain(..).for_each(|staged| staged.fail(&failure));
            state.lose_replicated(&failure);
            drop(state);
            partition.storage_failed(&error);
        }
    }
}

impl<D: Disk> Done<D> {
    /// What the log could not do, if it can't.
    fn failure(&self) -> &'static str {
        match self {
            Done::Rolled(_) => "the log can't roll",
            Done::Repaired(_) => "the log stays fenced",
            Done::Loaded(_) => "the log can't be opened again",
            Done::EpochNoted(_) => "the leader epoch can't be noted",
            Done::Rested(_) => "an idle log keeps what it holds",
            Done::Gathered(_) | Done::Nothing => "nothing failed",
        }
    }

    /// All that follows a job. Where it failed, what waits to be appended is told, but for a rest, which nobody waits for.
    fn settle<P: Platform<Disk = D>>(self, partition: &Rc<Partition<P>>) {
        let (failure, is_waited_for) = (self.failure(), !matches!(self, Done::Rested(_)));
        let (is_rolled, is_noted) = (matches!(self, Done::Rolled(_)), matches!(self, Done::EpochNoted(_)));
        let mut state = partition.state.borrow_mut();
        match self.finish(&mut state) {
            Ok(()) => drop(state),
            Err(error) => {
                tracing::error!(partition = %partition.topic_partition, %error, "{failure}");
                if is_waited_for {
                    state.append.fail(&AppendFailure::Storage(error.to_string()));
                }
                drop(state);
                return partition.storage_failed(&error);
            }
        }
        if is_rolled {
            partition.flush_rolled();
        }
        if is_noted {
            // The log start may have moved meanwhile.
            write_epochs(partition);
        }
    }

    fn finish<P: Platform<Disk = D>>(self, state: &mut State<P>) -> Result<(), LogError> {
        let log = state.slot.log_mut();
        match self {
            Done::Rolled(rolled) => {
                let finished = log.map_or(Ok(()), |log| log.finish_roll(rolled));
                state.append.tell_rolled();
                finished
            }
            Done::Repaired(repaired) => log.map_or(Ok(()), |log| log.finish_repair(repaired)),
            Done::Loaded(loaded) => log.map_or(Ok(()), |log| log.finish_load_segment(loaded)),
            Done::Rested(rested) => log.map_or(Ok(()), |log| log.finish_rest(rested)),
            Done::EpochNoted(written) => {
                if written.is_err() {
                    log.into_iter().for_each(Log::take_back_epoch);
                }
                state.jobs.end(Job::Epochs);
                written
            }
            Done::Gathered(batches) => {
                // Like what waited when the log was given up.
                if !state.slot.is_leaving() {
                    batches.into_iter().rev().for_each(|batch| state.append.pending.push_front(batch));
                }
                Ok(())
            }
            Done::Nothing => Ok(()),
        }
    }
}

/// The planted bug that the kill -9 check must catch: producers are answered, and the bytes follow a little later.
#[cfg(feature = "planted-ack-before-write")]
async fn acknowledge_before_write<P: Platform>(partition: &Partition<P>, staged: &mut Vec<StagedAnswer>) {
    staged.drain(..).for_each(StagedAnswer::send);
    let clock = partition.platform.clock();
    clock.sleep_until(clock.now() + std::time::Duration::from_millis(50)).await;
}

/// The planted bugs that the simulator must catch.
#[cfg(test)]
pub(crate) mod planted {
    use std::cell::Cell;

    thread_local! {
        /// Whoever repeats a batch is answered, flushed or not.
        pub(crate) static ANSWER_DUPLICATES_AT_ONCE: Cell<bool> = const { Cell::new(false) };
        /// What was queued under another role is staged under this one.
        pub(crate) static STAGE_DEPOSED: Cell<bool> = const { Cell::new(false) };
        /// A follower goes on with what is queued behind a write that failed.
        pub(crate) static STAGE_BEHIND_LOST: Cell<bool> = const { Cell::new(false) };
    }
}
