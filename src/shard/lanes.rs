//! Taking replicas on and giving them up: one lane for each log directory, so that one that hangs holds up its own replicas
//! and no other's.
//!
//! ```text
//! LeaderAndIsr, StopReplica --> route, at once and in order --> lane of /data1: open, open, delete ...
//!                                                          \-> lane of /data2: open (hangs) ...
//! Image --> settle: waits until every lane is done with what came before, unless it has stood still for a while
//! ```
//! - A lane does its batches one after the other; what concerns one replica goes through one lane while any of it is
//!   under way, so it happens in the order in which it was asked for.
//! - A replica is out of reach of requests as soon as it is to be given up, and in reach when its log is open.

#![forbid(unsafe_code)]

mod open;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_channel::{Receiver, Sender};
use futures_channel::oneshot;

use self::open::{add_partition, leader_and_isr, open_log, report_offline};
use super::metadata_inputs::LastStops;
use crate::base::ids::{TopicId, TopicPartition};
use crate::base::time::Monotonic;
use crate::executor::{all, either};
use crate::local::Local;
use crate::metadata::node::LocalPartition;
use crate::partition::Partition;
use crate::partition::partition::Opened;
use crate::platform::{Clock, Disk, Platform, Tasks};
use crate::storage::log::{LastStop, LogError};

/// Logs that one shard opens beside one another in one directory: enough to keep a disk busy, few enough to bound open
/// files.
const LOGS_OPENED_AT_ONCE_MAX: usize = 32;

/// Batches that may wait in one lane; past that the inputs of the shard wait too.
const LANE_BATCHES_MAX: usize = 1024;

/// A lane in which nothing was finished for this long is not waited for: what it was asked for happens later, and until then
/// its replicas are answered with NOT_LEADER_OR_FOLLOWER.
const STALLED_AFTER: Duration = Duration::from_secs(1);

/// All lanes of a shard.
pub struct Lanes<P: Platform> {
    local: Rc<Local<P>>,
    last_stops: Arc<LastStops>,
    /// Replicas that the start found, and whose names are others' since: what was found says nothing of those.
    renamed: BTreeSet<TopicPartition>,
    lanes: Vec<Rc<Lane<P>>>,
    /// Batches that lanes were given and have not been seen to finish, oldest first.
    unfinished: Vec<(usize, oneshot::Receiver<()>)>,
    /// Replicas that were given a role and have not been seen to take it on: the newest role of each.
    roles: BTreeMap<TopicPartition, (usize, oneshot::Receiver<()>)>,
}

struct Lane<P: Platform> {
    log_dir: usize,
    queue: Sender<Batch<P>>,
    /// How much of what concerns a replica is under way.
    under_way: RefCell<BTreeMap<TopicPartition, usize>>,
    /// When something was finished last.
    moved: Cell<Monotonic>,
}

struct Batch<P: Platform> {
    jobs: Jobs<P>,
    /// Dropped when all is done.
    done: oneshot::Sender<()>,
}

enum Jobs<P: Platform> {
    Take(Vec<Take<P>>),
    Stop(Vec<Stop<P>>),
}

/// A replica to be taken on.
struct Take<P: Platform> {
    replica: LocalPartition,
    last_stop: LastStop,
    /// It counts among its directory's partitions already.
    is_counted: bool,
    /// Another topic's, under the same name: to be closed first, and set aside.
    foreign: Option<Rc<Partition<P>>>,
}

/// A replica to be given up.
struct Stop<P: Platform> {
    topic_partition: TopicPartition,
    /// `None`: when its turn comes it may have been taken on.
    partition: Option<Rc<Partition<P>>>,
    delete: bool,
}

impl<P: Platform> Lanes<P> {
    pub fn start(local: &Rc<Local<P>>, last_stops: Arc<LastStops>) -> Lanes<P> {
        let now = local.platform.clock().now();
        let lanes = (0..local.log_dirs.all().len()).map(|log_dir| {
            let (queue, batches) = async_channel::bounded(LANE_BATCHES_MAX);
            let lane = Rc::new(Lane { log_dir, queue, under_way: RefCell::default(), moved: Cell::new(now) });
            let (local, last_stops) = (Rc::clone(local), Arc::clone(&last_stops));
            let serving = Rc::clone(&lane).serve(local.clone(), last_stops, batches);
            local.platform.tasks().spawn(serving);
            lane
        });
        let lanes = lanes.collect();
        let (renamed, unfinished, roles) = (BTreeSet::new(), Vec::new(), BTreeMap::new());
        Lanes { local: Rc::clone(local), last_stops, renamed, lanes, unfinished, roles }
    }

    /// Takes replicas on, or gives those that are open their new roles at once.
    pub async fn take(&mut self, partitions: Vec<LocalPartition>) {
        let mut batches: Vec<Vec<Take<P>>> = self.lanes.iter().map(|_| Vec::new()).collect();
        for replica in partitions {
            let topic_partition = topic_partition_of(&replica);
            if let Some(lane) = self.lane_with(&topic_partition) {
                let last_stop = LastStop::default();
                batches[lane].push(Take { replica, last_stop, is_counted: false, foreign: None });
                continue;
            }
            if let Some(foreign) = take_foreign(&self.local, &replica) {
                // What the start found is that one's.
                self.renamed.insert(topic_partition.clone());
                let (lane, last_stop) = (foreign.log_dir_index(), LastStop::default());
                batches[lane].push(Take { replica, last_stop, is_counted: false, foreign: Some(foreign) });
                continue;
            }
            if let Some(partition) = self.local.partition(&replica.topic, replica.partition) {
                let lane = partition.log_dir_index();
                self.await_role(lane, topic_partition, partition.change_role(leader_and_isr(&replica)));
                continue;
            }
            self.last_stops.progress.logs_total.add(1);
            let found = self.last_stops.of(&topic_partition).filter(|_| !self.renamed.contains(&topic_partition));
            if found.is_some() && replica.is_new {
                self.renamed.insert(topic_partition.clone());
            }
            match place(&self.local, found, &replica) {
                Ok((lane, last_stop)) => {
                    batches[lane].push(Take { replica, last_stop, is_counted: true, foreign: None });
                }
                Err(reason) => {
                    report_offline(&self.local, &topic_partition, &reason);
                    self.local.log_dirs.all()[0].add_partition();
                    let opened = Opened { last_stop: LastStop::default(), log: None };
                    add_partition(&self.local, replica, 0, opened).await;
                }
            }
        }
        for (lane, takes) in batches.into_iter().enumerate() {
            let concerned = takes.iter().map(|take| topic_partition_of(&take.replica)).collect();
            self.give(lane, concerned, Jobs::Take(takes)).await;
        }
    }

    /// Gives replicas up, those with `true` for good: when that is done they are out of the checkpoints too, before their
    /// names are used again (Kafka 3.9 `LogManager.asyncDelete`).
    pub async fn stop(&mut self, partitions: Vec<(TopicPartition, bool)>) {
        let mut batches: Vec<Vec<Stop<P>>> = self.lanes.iter().map(|_| Vec::new()).collect();
        for (topic_partition, delete) in partitions {
            if delete && self.last_stops.of(&topic_partition).is_some() {
                self.renamed.insert(topic_partition.clone());
            }
            if let Some(lane) = self.lane_with(&topic_partition) {
                batches[lane].push(Stop { topic_partition, partition: None, delete });
            } else if let Some(partition) = self.local.partitions.remove(&topic_partition) {
                let lane = partition.log_dir_index();
                batches[lane].push(Stop { topic_partition, partition: Some(partition), delete });
            } else if delete {
                // It was never taken on: its deletion was asked for before a restart, say.
                for (lane, _) in self.local.log_dirs.online() {
                    batches[lane].push(Stop { topic_partition: topic_partition.clone(), partition: None, delete });
                }
            }
        }
        for (lane, stops) in batches.into_iter().enumerate() {
            let concerned = stops.iter().map(|stop| stop.topic_partition.clone()).collect();
            self.give(lane, concerned, Jobs::Stop(stops)).await;
        }
    }

    /// Waits until all lanes are done with what they were given, but for those that stand still. At the start it waits for all,
    /// however long recovery takes.
    pub async fn settle(&mut self) {
        let mut stalled = BTreeSet::new();
        for (lane, mut done) in std::mem::take(&mut self.unfinished) {
            if !self.is_finished(lane, &mut done, stalled.contains(&lane)).await {
                stalled.insert(lane);
                self.unfinished.push((lane, done));
            }
        }
        for (topic_partition, (lane, mut taken)) in std::mem::take(&mut self.roles) {
            if !self.is_finished(lane, &mut taken, stalled.contains(&lane)).await {
                stalled.insert(lane);
                self.roles.insert(topic_partition, (lane, taken));
            }
        }
        if let Some(lane) = stalled.first() {
            let directory = self.local.log_dirs.all()[*lane].path.display();
            tracing::warn!(%directory, "a log directory does not answer: replicas in it are opened and deleted later");
        }
    }

    /// Waits for the end of something in a lane, unless that is known to stand still, or does so for a while.
    async fn is_finished(&self, lane: usize, done: &mut oneshot::Receiver<()>, is_stalled: bool) -> bool {
        let (lane, clock) = (&self.lanes[lane], self.local.platform.clock());
        let is_starting = !self.local.log_dirs.is_loaded();
        loop {
            // The sender says nothing: it goes when all is done.
            if !matches!(done.try_recv(), Ok(None)) {
                return true;
            }
            if is_starting {
                let _ = (&mut *done).await;
                return true;
            }
            let until = lane.moved.get() + STALLED_AFTER;
            if is_stalled || clock.now() >= until {
                return false;
            }
            let _ = either(&mut *done, clock.sleep_until(until)).await;
        }
    }

    /// Has `settle` wait for a replica that takes on a role when its write in flight has ended.
    fn await_role(&mut self, lane: usize, topic_partition: TopicPartition, mut taken: oneshot::Receiver<()>) {
        if !matches!(taken.try_recv(), Ok(None)) {
            return;
        }
        let is_idle = self.lanes[lane].under_way.borrow().is_empty();
        if is_idle && !self.roles.contains_key(&topic_partition) {
            self.lanes[lane].moved.set(self.local.platform.clock().now());
        }
        self.roles.insert(topic_partition, (lane, taken));
    }

    /// The lane in which something of this replica is under way.
    fn lane_with(&self, topic_partition: &TopicPartition) -> Option<usize> {
        self.lanes.iter().position(|lane| lane.under_way.borrow().contains_key(topic_partition))
    }

    async fn give(&mut self, lane: usize, concerned: Vec<TopicPartition>, jobs: Jobs<P>) {
        if concerned.is_empty() {
            return;
        }
        let lane = &self.lanes[lane];
        if lane.under_way.borrow().is_empty() {
            lane.moved.set(self.local.platform.clock().now());
        }
        let home = &self.local.homes[lane.log_dir];
        home.replicas_under_way.set(home.replicas_under_way.get() + concerned.len());
        for topic_partition in concerned {
            *lane.under_way.borrow_mut().entry(topic_partition).or_default() += 1;
        }
        let (done, finished) = oneshot::channel();
        self.unfinished.push((lane.log_dir, finished));
        lane.queue.send(Batch { jobs, done }).await.expect("the lane lives as long as the shard");
    }
}

impl<P: Platform> Lane<P> {
    async fn serve(self: Rc<Self>, local: Rc<Local<P>>, last_stops: Arc<LastStops>, batches: Receiver<Batch<P>>) {
        while let Ok(Batch { jobs, done }) = batches.recv().await {
            match jobs {
                Jobs::Take(takes) => self.take_all(&local, &last_stops, takes).await,
                Jobs::Stop(stops) => self.stop_all(&local, stops).await,
            }
            drop(done);
        }
    }

    async fn take_all(self: &Rc<Self>, local: &Rc<Local<P>>, last_stops: &Arc<LastStops>, takes: Vec<Take<P>>) {
        let queue = Rc::new(RefCell::new(takes.into_iter()));
        let workers = (0..LOGS_OPENED_AT_ONCE_MAX).map(|_| {
            let (this, local) = (Rc::clone(self), Rc::clone(local));
            let (queue, last_stops) = (Rc::clone(&queue), Arc::clone(last_stops));
            Box::pin(async move {
                loop {
                    let Some(next) = queue.borrow_mut().next() else { return };
                    let topic_partition = topic_partition_of(&next.replica);
                    take(&local, this.log_dir, next, &last_stops).await;
                    this.finished(&local, &topic_partition);
                }
            })
        });
        all(workers.collect()).await;
    }

    async fn stop_all(&self, local: &Rc<Local<P>>, stops: Vec<Stop<P>>) {
        let log_dir = &local.log_dirs.all()[self.log_dir];
        let any_deleted = stops.iter().any(|stop| stop.delete);
        let mut stopped = Vec::with_capacity(stops.len());
        for Stop { topic_partition, partition, delete } in stops {
            let partition = partition.or_else(|| local.partitions.remove(&topic_partition));
            if let Err(error) = stop(local, self.log_dir, &topic_partition, partition, delete).await {
                tracing::error!(partition = %topic_partition, %error, "a replica could not be given up in order");
            }
            self.moved.set(local.platform.clock().now());
            stopped.push(topic_partition);
        }
        if any_deleted && !log_dir.is_offline() {
            log_dir.rewrite_checkpoints().await;
        }
        for topic_partition in &stopped {
            self.finished(local, topic_partition);
        }
    }

    fn finished(&self, local: &Local<P>, topic_partition: &TopicPartition) {
        self.moved.set(local.platform.clock().now());
        let home = &local.homes[self.log_dir];
        home.replicas_under_way.set(home.replicas_under_way.get() - 1);
        let mut under_way = self.under_way.borrow_mut();
        match under_way.get_mut(topic_partition) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(under_way.remove(topic_partition)),
        }
    }
}

/// Which directory a replica's log is in, or is to be in, and how it was left there; or why there is none. `found`: where
/// the start found a directory of that name. A new partition goes there too: that is its own, or is set aside first.
fn place<P: Platform>(
    local: &Local<P>,
    found: Option<(usize, LastStop)>,
    replica: &LocalPartition,
) -> Result<(usize, LastStop), &'static str> {
    let topic_partition = topic_partition_of(replica);
    let log_dirs = &local.log_dirs;
    let found = found.filter(|(log_dir, _)| !replica.is_new || !log_dirs.all()[*log_dir].is_offline());
    let any_offline = log_dirs.online().count() < log_dirs.all().len();
    match found {
        Some((log_dir, last_stop)) => {
            log_dirs.all()[log_dir].add_partition();
            Ok((log_dir, last_stop))
        }
        // Kafka 3.9 `LogManager.getOrCreateLog`: it may well lie where nobody can look.
        None if any_offline && !replica.is_new => {
            Err("it is in none of the log directories that can be read, and others are offline")
        }
        None => {
            let log_dir = log_dirs.place().ok_or("no log directory is left")?;
            if !replica.is_new {
                tracing::error!(partition = %topic_partition, directory = %log_dirs.all()[log_dir].path.display(),
                    "the partition's directory is gone: it starts empty");
            }
            Ok((log_dir, LastStop::default()))
        }
    }
}

async fn take<P: Platform>(local: &Rc<Local<P>>, log_dir: usize, take: Take<P>, last_stops: &LastStops) {
    let Take { replica, last_stop, is_counted, foreign } = take;
    // It may have been taken on in this lane before.
    if let Some(foreign) = foreign.or_else(|| take_foreign(local, &replica)) {
        let topic_partition = topic_partition_of(&replica);
        tracing::warn!(partition = %topic_partition, "the name is another topic's now: the old log is closed");
        if let Err(error) = stop(local, log_dir, &topic_partition, Some(foreign), false).await {
            tracing::error!(partition = %topic_partition, %error, "a replica could not be given up in order");
        }
    } else if let Some(partition) = local.partition(&replica.topic, replica.partition) {
        // Nothing is sent: it is dropped when the role is taken on.
        let _ = partition.change_role(leader_and_isr(&replica)).await;
        return;
    }
    if !is_counted {
        last_stops.progress.logs_total.add(1);
        local.log_dirs.all()[log_dir].add_partition();
    }
    let opened = open_log(local, log_dir, &replica, last_stop, last_stops).await;
    if opened.log.is_some() {
        local.log_dirs.all()[log_dir].note_opened(&topic_partition_of(&replica));
    }
    add_partition(local, replica, log_dir, opened).await;
}

/// Takes out of reach what is served under this replica's name and is another topic's: that was deleted and made anew when
/// this broker did not hear of it (INCONSISTENT_TOPIC_ID). A zero says nothing.
fn take_foreign<P: Platform>(local: &Local<P>, replica: &LocalPartition) -> Option<Rc<Partition<P>>> {
    let served = local.partition(&replica.topic, replica.partition)?;
    let ids = [served.topic_id, replica.id];
    let is_foreign = !ids.contains(&TopicId::ZERO) && ids[0] != ids[1];
    is_foreign.then(|| local.partitions.remove(&topic_partition_of(replica))).flatten()
}

/// Gives one replica up; `None`: it was never taken on, and at most something of it is left in this directory.
async fn stop<P: Platform>(
    local: &Rc<Local<P>>,
    log_dir: usize,
    topic_partition: &TopicPartition,
    partition: Option<Rc<Partition<P>>>,
    delete: bool,
) -> Result<(), LogError> {
    let directory = local.log_dirs.all()[log_dir].path.join(topic_partition.to_string());
    let remove_directory = || async {
        match local.platform.disk().remove_directory(&directory).await {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(LogError::Io { path: directory.clone(), source })
            }
            _ => Ok(()),
        }
    };
    let Some(partition) = partition else {
        return if delete { remove_directory().await } else { Ok(()) };
    };
    if partition.is_unopened() {
        local.counters.partitions_offline_now.subtract(1);
    }
    local.log_dirs.all()[log_dir].remove_partition();
    match (partition.take_log().await, delete) {
        (Some(log), true) => log.delete().await,
        (Some(log), false) => log.close().await.map(drop),
        // It could not be opened.
        (None, true) => remove_directory().await,
        (None, false) => Ok(()),
    }
}

fn topic_partition_of(replica: &LocalPartition) -> TopicPartition {
    TopicPartition { topic: Arc::clone(&replica.topic), partition: replica.partition }
}
