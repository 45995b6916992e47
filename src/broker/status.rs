//! What the broker lets the admin port see of itself.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crate::admin::{LogDir, Recovery, Source, State};
use crate::metrics::{RecoveryProgress, ShardCounters};
use crate::platform::linux::Directory;
use crate::storage::log_dirs;

use super::directories::Directories;

pub(super) struct Status {
    directories: Arc<Directories>,
    progress: Arc<RecoveryProgress>,
    shards: OnceLock<Vec<Arc<ShardCounters>>>,
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
    pub fn set_shards(&self, counters: Vec<Arc<ShardCounters>>) {
        let unset = self.shards.set(counters);
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
            let (syncs_total, sync_time) = disk.syncs_done();
            LogDir {
                path: log_dir.path.clone(),
                online: !log_dir.is_offline(),
                has_room: log_dir.has_room(1),
                partitions: log_dir.partition_count() as u64,
                dirty_bytes: disk.dirty_bytes(),
                syncs_total,
                sync_seconds_total: sync_time.as_secs_f64(),
            }
        };
        all.map(log_dir).collect()
    }

    fn shards(&self) -> Vec<Arc<ShardCounters>> {
        self.shards.get().cloned().unwrap_or_default()
    }
}
