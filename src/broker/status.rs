//! What the broker lets the admin port see of itself.

#![forbid(unsafe_code)]

use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use async_channel::{Receiver, Sender};
use futures_channel::oneshot;

use crate::admin::{LogDir, Recovery, Source, State};
use crate::metrics::status::ShardStatus;
use crate::metrics::{RecoveryProgress, ShardCounters};
use crate::platform::linux::{Directory, LinuxPlatform};
use crate::shard::shard::Shard;
use crate::storage::log_dirs;
use crate::worker::WorkPool;

use super::directories::Directories;

/// Questions that wait for one shard; one that has so many does not answer.
pub(super) const QUESTIONS_MAX: usize = 4;

/// How is the shard?
pub(super) struct Question {
    with_partitions: bool,
    answer: oneshot::Sender<ShardStatus>,
}

/// What is watched of one shard.
pub(super) struct Watched {
    pub counters: Arc<ShardCounters>,
    pub questions: Sender<Question>,
}

/// A task for the shard's life: tells how the shard is.
pub(super) async fn tell(shard: Rc<Shard<LinuxPlatform>>, platform: LinuxPlatform, questions: Receiver<Question>) {
    while let Ok(Question { with_partitions, answer }) = questions.recv().await {
        // Whoever asked may have given up while the shard had other things to do.
        if answer.is_canceled() {
            continue;
        }
        let mut status = shard.status(with_partitions).await;
        status.bounds.extend(platform.bounds());
        let _ = answer.send(status);
    }
}

pub(super) struct Status {
    directories: Arc<Directories>,
    progress: Arc<RecoveryProgress>,
    shards: OnceLock<(Vec<Watched>, WorkPool)>,
    serving: AtomicBool,
    stopping: AtomicBool,
}

impl Status {
    /// Of a broker that begins to start.
    pub fn new(directories: Arc<Directories>, progress: Arc<RecoveryProgress>) -> Arc<Status> {
        Arc::new(Status {
            directories,
            progress,
            shards: OnceLock::new(),
            serving: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        })
    }

    /// The shards run; they may still be recovering.
    pub fn set_shards(&self, shards: Vec<Watched>, work: WorkPool) {
        let unset = self.shards.set((shards, work));
        assert!(unset.is_ok(), "shards start once");
    }

    pub fn set_serving(&self) {
        self.serving.store(true, Ordering::Relaxed);
    }

    pub fn set_stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }
}

impl Source for Status {
    fn state(&self) -> State {
        match (self.stopping.load(Ordering::Relaxed), self.serving.load(Ordering::Relaxed)) {
            (true, _) => State::Stopping,
            (false, true) => State::Serving,
            (false, false) => State::Recovering,
        }
    }

    fn recovery(&self) -> Recovery {
        let progress = &self.progress;
        Recovery {
            logs_total: progress.logs_total.get(),
            logs_done: progress.logs_done.get(),
            bytes_total: progress.bytes_total.get(),
            bytes_done: progress.bytes_done.get(),
        }
    }

    fn log_dirs(&self) -> Vec<LogDir> {
        let all = self.directories.log_dirs.all().iter().zip(&self.directories.disks);
        let log_dir = |(log_dir, disk): (&Arc<log_dirs::LogDir>, &Arc<Directory>)| {
            let [name_jobs, sync_jobs] = disk.queues();
            LogDir {
                path: log_dir.path.clone(),
                online: !log_dir.is_offline(),
                room_bytes: log_dir.room_bytes(),
                partitions: log_dir.partition_count() as u64,
                strays: log_dir.stray_count() as u64,
                dirty_bytes: disk.dirty_bytes(),
                dirty_bytes_max: disk.dirty_bytes_max(),
                sync_time: disk.sync_time(),
                name_jobs,
                sync_jobs,
            }
        };
        all.map(log_dir).collect()
    }

    fn shards(&self) -> Vec<Arc<ShardCounters>> {
        let shards = self.shards.get().map_or(&[][..], |(shards, _)| shards);
        shards.iter().map(|shard| Arc::clone(&shard.counters)).collect()
    }

    fn work_jobs(&self) -> (usize, usize) {
        self.shards.get().map_or((0, 0), |(_, work)| work.queue())
    }

    fn ask(&self, with_partitions: bool) -> Vec<oneshot::Receiver<ShardStatus>> {
        let shards = self.shards.get().map_or(&[][..], |(shards, _)| shards);
        let ask = |shard: &Watched| {
            let (answer, receiver) = oneshot::channel();
            // A queue that is full or closed drops the question, and with it the way back.
            let _ = shard.questions.try_send(Question { with_partitions, answer });
            receiver
        };
        shards.iter().map(ask).collect()
    }
}
