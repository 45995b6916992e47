//! What the broker lets the admin port see of itself.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crate::admin::{LogDir, Recovery, Source, State};
use crate::metrics::{RecoveryProgress, ShardCounters};
use crate::storage::log_dirs::LogDirs;

pub(super) struct Status {
    log_dirs: Arc<LogDirs>,
    progress: Arc<RecoveryProgress>,
    shards: OnceLock<Vec<Arc<ShardCounters>>>,
    serving: AtomicBool,
    stopping: AtomicBool,
}

impl Status {
    /// Of a broker that begins to start.
    pub fn new(log_dirs: Arc<LogDirs>, progress: Arc<RecoveryProgress>) -> Arc<Status> {
        Arc::new(Status {
            log_dirs,
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
        let all = self.log_dirs.all().iter();
        all.map(|log_dir| LogDir { path: log_dir.path.clone(), online: !log_dir.is_offline() }).collect()
    }

    fn shards(&self) -> Vec<Arc<ShardCounters>> {
        self.shards.get().cloned().unwrap_or_default()
    }
}
