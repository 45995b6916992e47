//! What a real broker does with its log directories at its start, see `broker::directories`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use crate::executor::Executor;
use crate::platform::{Disk, Platform};
use crate::shard::metadata_inputs::LastStops;
use crate::sim::disk::FakeDisk;
use crate::sim::host::Host;
use crate::sim::platform::SimPlatform;
use crate::storage::cache_mark;
use crate::storage::log_dir::{self, LogDirError, LogDirScan};
use crate::storage::log_dirs::{LogDirs, is_fatal};

/// What a real broker does with its directories once it has joined the cluster.
pub fn take_over(
    host: &Host,
    executor: &Executor,
    disk: &FakeDisk,
    log_dirs: &Arc<LogDirs>,
    scans: Vec<(usize, LogDirScan)>,
) -> Vec<(usize, LogDirScan)> {
    let platform = SimPlatform::on(host, executor, disk);
    let taken = Rc::new(RefCell::new(None));
    let (place, log_dirs) = (Rc::clone(&taken), Arc::clone(log_dirs));
    executor.spawn(async move {
        for (index, scan) in &scans {
            let path = &log_dirs.all()[*index].path;
            match log_dir::take_marker(platform.disk(), path).await {
                Err(LogDirError::Io { path, source }) if is_fatal(&source) && *index > 0 => {
                    log_dirs.fail(*index, &LogDirError::Io { path, source });
                    continue;
                }
                taken => taken.expect("a marker goes"),
            }
            for leftover in &scan.deleted {
                platform.disk().remove_directory(leftover).await.expect("a deleted partition goes");
            }
        }
        *place.borrow_mut() = Some(scans);
    });
    host.world().run_until(|| taken.borrow().is_some());
    taken.take().expect("just seen")
}

/// What the start of a real broker scans.
pub fn scan(
    host: &Host,
    executor: &Executor,
    disk: &FakeDisk,
    log_dirs: &Arc<LogDirs>,
) -> (Arc<LastStops>, Vec<(usize, LogDirScan)>) {
    let platform = SimPlatform::on(host, executor, disk);
    let found = Rc::new(RefCell::new(None));
    let place = Rc::clone(&found);
    let log_dirs = Arc::clone(log_dirs);
    executor.spawn(async move {
        let mut scans = Vec::new();
        for (index, log_dir) in log_dirs.online() {
            match log_dir::scan(platform.disk(), &log_dir.path).await {
                Ok(scan) => scans.push((index, scan)),
                Err(LogDirError::Io { path, source }) if is_fatal(&source) && index > 0 => {
                    log_dirs.fail(index, &LogDirError::Io { path, source });
                }
                Err(error) => panic!("a log directory: {error}"),
            }
        }
        let last_stops = LastStops::new(&log_dirs, &scans, Arc::default()).expect("each partition once");
        *place.borrow_mut() = Some((Arc::new(last_stops), scans));
    });
    host.world().run_until(|| found.borrow().is_some());
    found.borrow_mut().take().expect("just seen")
}

/// What a real broker says of its directories when all logs are open.
pub fn mark_cache_life(
    host: &Host,
    executor: &Executor,
    disk: &FakeDisk,
    log_dirs: &Arc<LogDirs>,
    scans: Vec<(usize, LogDirScan)>,
) {
    let platform = SimPlatform::on(host, executor, disk);
    let (log_dirs, done) = (Arc::clone(log_dirs), Rc::new(Cell::new(false)));
    let marked = Rc::clone(&done);
    executor.spawn(async move {
        for (index, scan) in &scans {
            let log_dir = &log_dirs.all()[*index];
            let mark = log_dir.cache_mark(scan).filter(|_| !log_dir.is_offline());
            if let Some(mark) = mark.filter(|mark| Some(mark) != scan.cache_mark.as_ref())
                && let Err(error) = cache_mark::write(platform.disk(), &log_dir.path, &mark).await
            {
                tracing::warn!(%error, "no mark");
            }
        }
        marked.set(true);
    });
    host.world().run_until(|| done.get());
}
