//! What the broker lets the admin port see of itself.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crate::admin::{LogDir, Recovery, Source, State};
use crate::metrics::ShardCounters;

pub(super) struct Status {
    log_dir: PathBuf,
    recovery: Box<dyn Fn() -> Recovery + Send + Sync>,
    shards: OnceLock<Vec<Arc<ShardCounters>>>,
    serving: AtomicBool,
    stopping: AtomicBool,
}

impl Status {
    /// Of a broker that begins to start; `recovery` reads how far it is.
    pub fn new(log_dir: PathBuf, recovery: impl Fn() -> Recovery + Send + Sync + 'static) -> Arc<Status> {
        Arc::new(Status {
            log_dir,
            recovery: Box::new(recovery),
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
        (self.recovery)()
    }

    /// A broker lives only as long as its one directory does.
    fn log_dirs(&self) -> Vec<LogDir> {
        vec![LogDir { path: self.log_dir.clone(), online: true }]
    }

    fn shards(&self) -> Vec<Arc<ShardCounters>> {
        self.shards.get().cloned().unwrap_or_default()
    }
}
