//! Retention of one partition, and DeleteRecords: what happens to the beginning of its log.
//!
//! A segment that is out of its log waits under another name for `file.delete.delay.ms`, so that somebody who finds out
//! in time can put it back; at a stop what waits stays, and the next start removes it.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use super::append::write_epochs;
use super::home::Home;
use super::partition::{LeadershipError, Partition, State};
use super::slot::Job;
use crate::base::ids::Offset;
use crate::platform::{Clock, Disk, Platform, Tasks};
use crate::storage::log::{Log, LogError, Retention};
use crate::storage::retention::RetentionPolicy;

/// Looks at one log in one run: a roll, a flush and a few ages come before segments go.
const LOOKS_MAX: u32 = 64;
/// Flushes in one run: more would not help either.
const FLUSHES_MAX: u32 = 2;

/// Why records are not deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeleteRefusal {
    #[error(transparent)]
    Leadership(#[from] LeadershipError),
    #[error("the topic's cleanup.policy does not contain delete")]
    Policy,
    #[error("the offset is negative, or past the high watermark")]
    OffsetOutOfRange,
}

/// The log belongs to its retention or its cleaner until this is dropped; whoever wants to close it waits.
pub(super) struct Maintenance<P: Platform>(Rc<Partition<P>>);

impl<P: Platform> Drop for Maintenance<P> {
    fn drop(&mut self) {
        self.0.state.borrow_mut().jobs.end(Job::Maintenance);
    }
}

impl<P: Platform> State<P> {
    fn retention_policy(&self) -> RetentionPolicy {
        let config = &self.settings.config;
        RetentionPolicy {
            delete: config.cleanup_policy.delete,
            retention_ms: config.retention_ms,
            retention_bytes: config.retention_bytes,
        }
    }
}

impl<P: Platform> Partition<P> {
    /// `None` if the log is gone, going, or somebody else's.
    pub(super) fn begin_maintenance(self: &Rc<Self>) -> Option<Maintenance<P>> {
        let begun = self.state.borrow_mut().begin(Job::Maintenance);
        begun.then(|| Maintenance(Rc::clone(self)))
    }

    /// Forgets producers that have been idle for long.
    pub fn expire_producers(&self) {
        let now = self.platform.clock().wall();
        if let Some(log) = self.state.borrow_mut().slot.open_mut() {
            log.expire_producers(now);
        }
    }

    /// Takes out of the log what has expired, and gives the number of segments. The files are removed later.
    pub async fn retain(self: &Rc<Self>) -> usize {
        // Most logs have nothing to give: a look costs them nothing else.
        if self.look(None) == Some(Retention::Keep) {
            return 0;
        }
        let Some(_maintenance) = self.begin_maintenance() else { return 0 };
        let (mut modified, mut flushes) = (None, 0);
        for _ in 0..LOOKS_MAX {
            match self.look(modified) {
                None | Some(Retention::Keep) => return 0,
                Some(Retention::NeedsAge(base_offset)) => {
                    let Some(age) = self.of_log(|log| log.age(base_offset)) else { return 0 };
                    let age = age.await;
                    let found = self.state.borrow_mut().slot.log_mut().map(|log| log.finish_age(age));
                    match found {
                        Some(Ok(found)) => modified = modified.or(found),
                        Some(Err(error)) => return self.retention_failed(&error),
                        None => return 0,
                    }
                }
                Some(Retention::RollFirst | Retention::FlushFirst) if flushes == FLUSHES_MAX => return 0,
                Some(Retention::RollFirst) => {
                    flushes += 1;
                    self.roll().await;
                    self.flush_now().await;
                }
                Some(Retention::FlushFirst) => {
                    flushes += 1;
                    self.flush_now().await;
                }
                Some(Retention::DeleteBelow(end_offset)) => return self.delete_segments_below(end_offset).await,
            }
        }
        0
    }

    fn look(&self, modified: Option<i64>) -> Option<Retention> {
        let state = self.state.borrow();
        let (high_watermark, now) = (state.high_watermark, state.clock.wall());
        Some(state.slot.open()?.retention(state.retention_policy(), high_watermark, now, modified))
    }

    pub(super) fn of_log<T>(&self, of: impl FnOnce(&Log<P::Disk>) -> T) -> Option<T> {
        self.state.borrow().slot.log().map(of)
    }

    fn retention_failed(&self, error: &LogError) -> usize {
        tracing::error!(partition = %self.topic_partition, %error, "expired segments can't be deleted");
        // A file that is missing concerns its log alone.
        if !matches!(error, LogError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound) {
            self.storage_failed(error);
        }
        0
    }

    async fn delete_segments_below(self: &Rc<Self>, end_offset: Offset) -> usize {
        let names = {
            let mut state = self.state.borrow_mut();
            let Some(log) = state.slot.open_mut() else { return 0 };
            if log.increment_log_start_offset(end_offset) {
                tracing::info!(partition = %self.topic_partition, end_offset, "older segments have expired");
            }
            log.names()
        };
        write_epochs(self);
        let names = names.hold_alone().await;
        let Some(taken) = self.of_log(|log| log.take_out(end_offset, names)) else { return 0 };
        let taken = taken.await;
        let finished = self.state.borrow_mut().slot.log_mut().map(|log| log.finish_take_out(taken));
        let Some((count, files, error)) = finished else { return 0 };
        self.remove_later(files);
        if let Some(error) = error {
            self.retention_failed(&error);
        }
        count
    }

    /// Removes files that are out of the log after `file.delete.delay.ms`.
    pub(super) fn remove_later(&self, files: Vec<PathBuf>) {
        if files.is_empty() {
            return;
        }
        let count = files.len();
        let delay_ms = match self.home.set_aside(count) {
            true => u64::try_from(self.state.borrow().settings.config.file_delete_delay_ms).unwrap_or(0),
            false => {
                remove_now(&self.platform, files, None);
                return;
            }
        };
        let clock = self.platform.clock();
        let slept = clock.sleep_until(clock.now() + Duration::from_millis(delay_ms));
        let (platform, home) = (self.platform.clone(), Rc::clone(&self.home));
        self.platform.tasks().spawn(async move {
            slept.await;
            remove_now(&platform, files, Some((home, count)));
        });
    }

    /// Moves the log start up to `offset`, or to the high watermark if it is -1; gives the low watermark, which is the
    /// log start of the only replica there is (Kafka 3.9 `Partition.deleteRecordsOnLeader`). The segments below go
    /// with the next retention run.
    pub fn delete_records(self: &Rc<Self>, offset: Offset) -> Result<Offset, DeleteRefusal> {
        let low_watermark = {
            let mut state = self.state.borrow_mut();
            state.check_leader(-1)?;
            if !state.settings.config.cleanup_policy.delete {
                return Err(DeleteRefusal::Policy);
            }
            let high_watermark = state.high_watermark;
            let offset = if offset == -1 { high_watermark } else { offset };
            if !(0..=high_watermark).contains(&offset) {
                return Err(DeleteRefusal::OffsetOutOfRange);
            }
            let log = state.slot.open_mut().ok_or(LeadershipError::NotLeader)?;
            log.increment_log_start_offset(offset);
            log.log_start_offset()
        };
        write_epochs(self);
        Ok(low_watermark)
    }
}

/// Removes files in a task of its own. What can't be removed stays until the log is opened again.
fn remove_now<P: Platform>(platform: &P, files: Vec<PathBuf>, counted: Option<(Rc<Home>, usize)>) {
    let disk = platform.disk().clone();
    platform.tasks().spawn(async move {
        for path in files {
            match disk.remove_file(&path).await {
                // The whole log may have been deleted meanwhile.
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(file = %path.display(), %error, "a file of a deleted segment is still there");
                }
                _ => {}
            }
        }
        if let Some((home, count)) = counted {
            home.removed_aside(count);
        }
    });
}
