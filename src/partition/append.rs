//! The append path of a partition: batches queue, one task stages them into the log and writes.
//!
//! While a write is in flight, what arrives gathers, and becomes the next write. A batch is answered when its write has
//! finished (acks=1) or, by its caller, when the high watermark has passed it (acks=all).
//!
//! With `--rebatch` small batches that stand one behind the other in the queue are first made one by a work thread
//! ([`gather`]); each producer is still told its own offsets.

use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;

use bytes::BytesMut;
use futures_channel::oneshot;

use super::gather;
use super::home::Waiting;
use super::partition::{LeadershipError, Partition, State};
use super::purgatory::Interrupted;
use super::replica_set::effective_min_isr;
use crate::base::ids::{LeaderEpoch, Offset};
use crate::base::time::{Monotonic, WallMs};
use crate::platform::{Clock, Disk, Platform, Tasks};
use crate::record::batch::BatchHeader;
use crate::storage::log::{
    AppendError, AppendRefusal, LoadedSegment, Log, LogError, LogWrite, Repaired, Rested, Rolled, Staged,
};

/// Batches that one partition lets wait for its write; beyond it a produce is refused, to be tried again.
const PENDING_BATCHES_MAX: usize = 16 * 1024;

/// Blocks are reserved ahead only on a file system that has so much to spare.
const PREALLOCATION_ROOM: u64 = 1 << 30;

/// Why a batch was not appended, or can't be promised.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendFailure {
    #[error(transparent)]
    Leadership(#[from] LeadershipError),
    #[error(transparent)]
    Refused(#[from] AppendRefusal),
    #[error("fewer replicas in sync than min.insync.replicas")]
    NotEnoughReplicas,
    #[error("too many batches wait for this partition's disk")]
    Busy,
    #[error("the log could not be written: {0}")]
    Storage(String),
    #[error("the file system of {} is nearly full: produce is refused until there is room", .0.display())]
    DiskFull(PathBuf),
    /// Appended, but the leader's reign ended before all replicas had it.
    #[error("the leader changed before the batch was on all replicas")]
    Interrupted,
}

/// Where a batch lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    pub base_offset: Offset,
    pub last_offset: Offset,
    /// -1 unless the topic says LogAppendTime.
    pub log_append_time: WallMs,
    pub log_start_offset: Offset,
    /// When it was written, if it had to be flushed before this was said.
    pub unflushed_since: Option<Monotonic>,
}

/// A batch on its way into the log.
pub(super) struct Pending {
    pub batch: BytesMut,
    pub header: BatchHeader,
    pub whose: Whose,
}

/// Who sent a batch.
pub(super) enum Whose {
    One(Sender),
    /// A work thread was here: each of the senders with the number of its records, in their order. One alone if nothing
    /// came of it.
    Gathered(Vec<(Sender, i32)>),
}

/// One who waits to be told about its batch.
pub(super) struct Sender {
    answer: oneshot::Sender<Result<Appended, AppendFailure>>,
    /// acks=all.
    all_replicas: bool,
    waiting: Waiting,
}

impl Sender {
    /// For when it is written.
    fn stage(self, result: Appended) -> StagedAnswer {
        let Sender { answer, all_replicas, waiting } = self;
        StagedAnswer { answer, result, all_replicas, _waiting: waiting }
    }
}

impl Whose {
    /// For when the batch is written whole as `appended`.
    fn stage(self, appended: Appended, staged: &mut Vec<StagedAnswer>) {
        match self {
            Whose::One(sender) => staged.push(sender.stage(appended)),
            Whose::Gathered(senders) => {
                let mut base_offset = appended.base_offset;
                for (sender, record_count) in senders {
                    let end_offset = base_offset + Offset::from(record_count);
                    staged.push(sender.stage(Appended { base_offset, last_offset: end_offset - 1, ..appended }));
                    base_offset = end_offset;
                }
                assert_eq!(base_offset, appended.last_offset + 1, "every record is somebody's");
            }
        }
    }

    fn fail(self, failure: &AppendFailure) {
        let tell = |sender: Sender| {
            let _ = sender.answer.send(Err(failure.clone()));
        };
        match self {
            Whose::One(sender) => tell(sender),
            Whose::Gathered(senders) => senders.into_iter().for_each(|(sender, _)| tell(sender)),
        }
    }
}

/// A batch of the write in flight, and what its producer will be told.
pub(super) struct StagedAnswer {
    pub answer: oneshot::Sender<Result<Appended, AppendFailure>>,
    pub result: Appended,
    /// acks=all: the answer waits for the high watermark next.
    pub all_replicas: bool,
    /// Until it is answered: a directory whose flushes hang holds requests too.
    _waiting: Waiting,
}

impl StagedAnswer {
    pub fn send(self) {
        let _ = self.answer.send(Ok(self.result));
    }

    pub fn fail(self, failure: &AppendFailure) {
        let _ = self.answer.send(Err(failure.clone()));
    }
}

/// What the append task does next. Rolls and repairs are rare: their futures may be boxed.
enum Step<D: Disk> {
    Write(LogWrite<D::File>),
    Roll(Pin<Box<dyn Future<Output = Rolled<D>>>>),
    Repair(Pin<Box<dyn Future<Output = Repaired>>>),
    Open(Pin<Box<dyn Future<Output = LoadedSegment<D>>>>),
    Rest(Pin<Box<dyn Future<Output = Rested>>>),
    /// Notes where the leader's reign begins.
    Reign(Pin<Box<dyn Future<Output = Result<(), LogError>>>>),
    /// Waits for what else writes the file of leader epochs.
    AfterEpochs(oneshot::Receiver<()>),
    /// Makes one batch of several; resolves to what takes their place in the queue.
    Gather(Pin<Box<dyn Future<Output = Vec<Pending>>>>),
    Idle,
}

/// What must happen before the batch at the head of the queue can be staged.
enum Before {
    Write,
    Roll,
    Repair,
    Open,
}

impl<P: Platform> Partition<P> {
    /// Queues a validated batch behind earlier ones; its order is settled when this returns. The receiver resolves when
    /// the batch is in the page cache.
    pub fn append(
        self: &Rc<Self>,
        batch: BytesMut,
        header: BatchHeader,
        current_leader_epoch: LeaderEpoch,
        all_replicas: bool,
    ) -> Result<oneshot::Receiver<Result<Appended, AppendFailure>>, AppendFailure> {
        let mut state = self.state.borrow_mut();
        state.check_leader(current_leader_epoch)?;
        let min_isr = effective_min_isr(state.role.config.min_insync_replicas, state.role.replica_count);
        if all_replicas && state.replicas.isr_count() < min_isr {
            return Err(AppendFailure::NotEnoughReplicas);
        }
        if state.pending.len() >= PENDING_BATCHES_MAX {
            return Err(AppendFailure::Busy);
        }
        let bytes = batch.len() as u64;
        let waiting = self.home.wait(bytes).ok_or(AppendFailure::Busy)?;
        if !self.home.log_dir().take_room(bytes) {
            return Err(AppendFailure::DiskFull(self.home.log_dir().path.clone()));
        }
        let (answer, receiver) = oneshot::channel();
        let whose = Whose::One(Sender { answer, all_replicas, waiting });
        state.pending.push_back(Pending { batch, header, whose });
        if !std::mem::replace(&mut state.append_running, true) {
            self.platform.tasks().spawn(run(Rc::clone(self)));
        }
        Ok(receiver)
    }

    /// Has the log give back what it holds for appends, in turn with them.
    pub(super) fn rest(self: &Rc<Self>) {
        self.state.borrow_mut().rest_wanted = true;
        self.tidy();
    }

    /// Has the log rolled, in turn with appends, and waits for that; nothing happens to an empty segment.
    pub(super) async fn roll(self: &Rc<Self>) {
        let (sender, rolled) = oneshot::channel();
        self.state.borrow_mut().rolls.push(sender);
        self.tidy();
        let _ = rolled.await;
    }

    /// Has the append task look whether there is anything to do but appends.
    pub(super) fn tidy(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        if !std::mem::replace(&mut state.append_running, true) {
            self.platform.tasks().spawn(run(Rc::clone(self)));
        }
    }

    /// Whether the high watermark has passed `last_offset`.
    pub fn is_replicated(&self, last_offset: Offset) -> bool {
        self.state.borrow().replicas.high_watermark() > last_offset
    }

    /// Waits until the high watermark has passed `last_offset`.
    pub async fn replicated(&self, last_offset: Offset) -> Result<(), AppendFailure> {
        let waiting = {
            let mut state = self.state.borrow_mut();
            if state.replicas.high_watermark() > last_offset {
                return Ok(());
            }
            if state.offline {
                return Err(LeadershipError::LogOffline.into());
            }
            state.purgatory.wait_for(last_offset)
        };
        match waiting.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Interrupted)) | Err(_) if self.state.borrow().offline => Err(LeadershipError::LogOffline.into()),
            Ok(Err(Interrupted)) | Err(_) => Err(AppendFailure::Interrupted),
        }
    }
}

/// The append task: runs while batches wait.
async fn run<P: Platform>(partition: Rc<Partition<P>>) {
    let mut staged = Vec::new();
    loop {
        let step = next_step(&partition, &mut staged);
        match step {
            Step::Write(write) => {
                #[cfg(feature = "planted-ack-before-write")]
                acknowledge_before_write(&partition, &mut staged).await;
                let result = partition.platform.disk().append(&write.file, write.position, write.data).await;
                finish_write(&partition, result, &mut staged);
                partition.flush_in_time();
                start_upkeep(&partition);
            }
            Step::Roll(roll) => {
                let rolled = roll.await;
                let outcome = {
                    let mut state = partition.state.borrow_mut();
                    let outcome = state.log.as_mut().map(|log| log.finish_roll(rolled));
                    state.tell_rolled();
                    outcome
                };
                match outcome {
                    Some(Ok(())) => partition.flush_rolled(),
                    Some(Err(error)) => {
                        tracing::error!(partition = %partition.topic_partition, %error, "the log can't roll");
                        partition.state.borrow_mut().fail_pending(&AppendFailure::Storage(error.to_string()));
                        partition.storage_failed(&error);
                    }
                    None => {}
                }
            }
            Step::Repair(repair) => {
                let repaired = repair.await;
                let outcome = partition.state.borrow_mut().log.as_mut().map(|log| log.finish_repair(repaired));
                if let Some(Err(error)) = outcome {
                    tracing::error!(partition = %partition.topic_partition, %error, "the log stays fenced");
                    partition.state.borrow_mut().fail_pending(&AppendFailure::Storage(error.to_string()));
                    partition.storage_failed(&error);
                }
            }
            Step::Open(load) => {
                let loaded = load.await;
                let outcome = partition.state.borrow_mut().log.as_mut().map(|log| log.finish_load_segment(loaded));
                if let Some(Err(error)) = outcome {
                    tracing::error!(partition = %partition.topic_partition, %error, "the log can't be opened again");
                    partition.state.borrow_mut().fail_pending(&AppendFailure::Storage(error.to_string()));
                    partition.storage_failed(&error);
                }
            }
            Step::Reign(write) => {
                let written = write.await;
                partition.state.borrow_mut().epochs.running = false;
                if let Err(error) = written {
                    tracing::error!(partition = %partition.topic_partition, %error, "the leader epoch can't be noted");
                    let mut state = partition.state.borrow_mut();
                    state.log.iter_mut().for_each(Log::take_back_epoch);
                    state.fail_pending(&AppendFailure::Storage(error.to_string()));
                    drop(state);
                    partition.storage_failed(&error);
                }
                // The log start may have moved meanwhile.
                write_epochs(&partition);
            }
            Step::AfterEpochs(written) => {
                let _ = written.await;
            }
            Step::Gather(gathering) => {
                let gathered = gathering.await;
                let mut state = partition.state.borrow_mut();
                // Like what waited when the log was given up.
                if !state.leaving {
                    gathered.into_iter().rev().for_each(|pending| state.pending.push_front(pending));
                }
            }
            Step::Rest(rest) => {
                let rested = rest.await;
                let outcome = partition.state.borrow_mut().log.as_mut().map(|log| log.finish_rest(rested));
                if let Some(Err(error)) = outcome {
                    tracing::warn!(partition = %partition.topic_partition, %error, "an idle log keeps what it holds");
                    partition.storage_failed(&error);
                }
            }
            Step::Idle => {
                // What a duplicate repeats may not be flushed yet.
                partition.flush_in_time();
                return;
            }
        }
    }
}

/// Stages what waits, in order, and says what that calls for.
fn next_step<P: Platform>(partition: &Partition<P>, staged: &mut Vec<StagedAnswer>) -> Step<P::Disk> {
    let mut state = partition.state.borrow_mut();
    let now = partition.platform.clock().wall();
    let State { log: Some(log), pending, role, rolls, epochs, offline: false, .. } = &mut *state else {
        let failure = LeadershipError::LogOffline.into();
        state.fail_pending(&failure);
        staged.drain(..).for_each(|staged| staged.fail(&failure));
        state.append_running = false;
        state.tell_rolled();
        state.came_to_rest();
        return Step::Idle;
    };
    if !rolls.is_empty() && staged.is_empty() && log.can_roll() {
        return Step::Roll(Box::pin(log.begin_roll(now)));
    }
    let is_news = role.leader == role.local && log.latest_epoch().is_none_or(|latest| latest < role.leader_epoch);
    if is_news && !pending.is_empty() {
        if epochs.running {
            return Step::AfterEpochs(epochs.wait());
        }
        if let Some(write) = log.assign_epoch(role.leader_epoch) {
            epochs.running = true;
            return Step::Reign(Box::pin(write));
        }
    }
    loop {
        if role.rebatch
            && let Some(count) = gather::count(pending, &role.config)
        {
            // What stands before them goes first.
            if let Some(write) = log.take_write() {
                return Step::Write(write);
            }
            let batches = pending.drain(..count).collect();
            return Step::Gather(Box::pin(gather::run(partition.platform.tasks(), batches, &role.config)));
        }
        let Some(Pending { batch, header, whose }) = pending.pop_front() else { break };
        let log_start_offset = log.log_start_offset();
        let (batch, before) = match log.stage(batch, &header, role.leader_epoch, now) {
            #[cfg(test)]
            Staged::Duplicate { base_offset, last_offset, log_append_time }
                if planted::ANSWER_DUPLICATES_AT_ONCE.get() =>
            {
                let mut answers = Vec::new();
                let unflushed_since = None;
                let result = Appended { base_offset, last_offset, log_append_time, log_start_offset, unflushed_since };
                whose.stage(result, &mut answers);
                answers.into_iter().for_each(StagedAnswer::send);
                continue;
            }
            Staged::Written { base_offset, last_offset, log_append_time }
            | Staged::Duplicate { base_offset, last_offset, log_append_time } => {
                let unflushed_since = None;
                let result = Appended { base_offset, last_offset, log_append_time, log_start_offset, unflushed_since };
                whose.stage(result, staged);
                continue;
            }
            Staged::Refused(refusal) => {
                whose.fail(&refusal.into());
                continue;
            }
            Staged::WriteFull(batch) => (batch, Before::Write),
            Staged::RollFirst(batch) => (batch, Before::Roll),
            Staged::Fenced(batch) => (batch, Before::Repair),
            Staged::NeedFile(batch) => (batch, Before::Open),
        };
        pending.push_front(Pending { batch, header, whose });
        if let Some(write) = log.take_write() {
            return Step::Write(write);
        }
        return match before {
            Before::Repair => Step::Repair(Box::pin(log.repair())),
            Before::Open => Step::Open(Box::pin(log.load_active())),
            Before::Roll => Step::Roll(Box::pin(log.begin_roll(now))),
            Before::Write => unreachable!("a full write can be taken"),
        };
    }
    if let Some(write) = log.take_write() {
        return Step::Write(write);
    }
    if std::mem::take(&mut state.rest_wanted)
        && let Some(rest) = state.log.as_mut().and_then(Log::rest)
    {
        return Step::Rest(Box::pin(rest));
    }
    // Only duplicates: what they repeat is written already.
    state.acknowledge(staged, partition.platform.clock());
    state.append_running = false;
    state.tell_rolled();
    state.came_to_rest();
    Step::Idle
}

fn finish_write<P: Platform>(partition: &Partition<P>, result: std::io::Result<()>, staged: &mut Vec<StagedAnswer>) {
    let mut state = partition.state.borrow_mut();
    let Some(log) = &mut state.log else { return };
    match log.finish_write(result) {
        Ok(()) => {
            state.note_unflushed();
            state.move_high_watermark();
            state.acknowledge(staged, partition.platform.clock());
        }
        Err(AppendError(source)) => {
            drop(state);
            let error = LogError::Io { path: partition.home.log_dir().path.clone(), source };
            tracing::error!(partition = %partition.topic_partition, %error, "the log is fenced until it is cut back");
            let failure = AppendFailure::Storage(error.to_string());
            staged.drain(..).for_each(|staged| staged.fail(&failure));
            partition.storage_failed(&error);
        }
    }
}

impl<P: Platform> State<P> {
    /// Tells who wanted the log rolled that it is, or can't be.
    fn tell_rolled(&mut self) {
        for waiting in self.rolls.drain(..) {
            // It may have given up.
            let _ = waiting.send(());
        }
    }

    pub(super) fn fail_pending(&mut self, failure: &AppendFailure) {
        self.pending.drain(..).for_each(|pending| pending.whose.fail(failure));
    }
}

/// Preallocation and index blocks, if any is due, beside the next appends.
pub(super) fn start_upkeep<P: Platform>(partition: &Rc<Partition<P>>) {
    let mut state = partition.state.borrow_mut();
    if state.upkeep_running {
        return;
    }
    let now = partition.platform.clock().wall();
    let has_room = partition.home.log_dir().has_room(PREALLOCATION_ROOM);
    let Some(upkeep) = state.log.as_mut().and_then(|log| log.upkeep(now, has_room)) else { return };
    state.upkeep_running = true;
    drop(state);
    let this = Rc::clone(partition);
    partition.platform.tasks().spawn(async move {
        let done = upkeep.await;
        let mut state = this.state.borrow_mut();
        state.upkeep_running = false;
        state.came_to_rest();
        let outcome = state.log.as_mut().map(|log| log.finish_upkeep(done));
        drop(state);
        if let Some(Err(error)) = outcome {
            tracing::warn!(partition = %this.topic_partition, %error, "index or preallocation");
            this.storage_failed(&error);
        }
    });
}

/// Whether `leader-epoch-checkpoint` is being written: one at a time.
#[derive(Default)]
pub(super) struct EpochsWrite {
    pub running: bool,
    /// The append task, which has an epoch to note in it.
    waiting: Option<oneshot::Sender<()>>,
}

impl EpochsWrite {
    fn wait(&mut self) -> oneshot::Receiver<()> {
        let (sender, written) = oneshot::channel();
        self.waiting = Some(sender);
        written
    }
}

/// Takes the leader epochs below a log start that has moved out of their file, beside appends: it takes fsyncs, and a start
/// knows by itself what is below the log start (Kafka 3.9 `LeaderEpochFileCache.truncateFromStartAsyncFlush`).
pub(super) fn write_epochs<P: Platform>(partition: &Rc<Partition<P>>) {
    let mut state = partition.state.borrow_mut();
    if state.epochs.running || state.is_leaving() {
        return;
    }
    let Some(write) = state.log.as_mut().and_then(Log::epochs_write) else { return };
    state.epochs.running = true;
    drop(state);
    let this = Rc::clone(partition);
    partition.platform.tasks().spawn(async move {
        let written = write.await;
        let mut state = this.state.borrow_mut();
        state.epochs.running = false;
        if let Some(waiting) = state.epochs.waiting.take() {
            // The task may have been given up.
            let _ = waiting.send(());
        }
        state.came_to_rest();
        drop(state);
        if let Err(error) = written {
            tracing::warn!(partition = %this.topic_partition, %error, "old leader epochs stay written");
            this.storage_failed(&error);
        }
        // The log start may have moved again.
        write_epochs(&this);
    });
}

/// The planted bug that the kill -9 check must catch: producers are answered, and the bytes follow a little later.
#[cfg(feature = "planted-ack-before-write")]
async fn acknowledge_before_write<P: Platform>(partition: &Partition<P>, staged: &mut Vec<StagedAnswer>) {
    staged.drain(..).for_each(StagedAnswer::send);
    let clock = partition.platform.clock();
    clock.sleep_until(clock.now() + std::time::Duration::from_millis(50)).await;
}

/// The planted bug that the simulator must catch: whoever repeats a batch is answered, flushed or not.
#[cfg(test)]
pub(crate) mod planted {
    use std::cell::Cell;

    thread_local! {
        pub(crate) static ANSWER_DUPLICATES_AT_ONCE: Cell<bool> = const { Cell::new(false) };
    }
}
