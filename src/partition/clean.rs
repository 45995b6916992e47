//! Compaction of one partition: when its log is to be cleaned, and one cleaning from its beginning to its end.
//!
//! A log that is about to be closed, deleted or taken offline ends its cleaning at the next chunk. A full disk, or too
//! much other work, has it tried again later; damage in it has it left alone until the next start.

use std::cell::Cell;
use std::future::Future;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use super::partition::{Partition, State};
use super::slot::LogSlot;
use crate::base::ids::Offset;
use crate::base::time::Monotonic;
use crate::platform::{Clock, Platform, Tasks};
use crate::storage::compaction::{CleanerBounds, Dirtiness, Resources};
use crate::storage::log::{CleanError, CleanTime, CompactionLags, LogError, Unknown};

/// Looks at closed segments in one go, before it is known how dirty a log is; a log with more gets there by and by.
const LOOKS_MAX: u32 = 256;

/// When a cleaning that failed without anybody's fault is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// How long a cleaning that is held back sleeps before it looks whether it is to end.
const NAP: Duration = Duration::from_millis(50);

/// What one cleaning may use.
#[derive(Clone, Copy, Debug)]
pub struct CleanerShare {
    pub bounds: CleanerBounds,
    /// Read and written together.
    pub bytes_per_second: f64,
}

/// What became of a cleaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CleanOutcome {
    Cleaned {
        bytes_read: u64,
        bytes_written: u64,
        undecodable_batches: u64,
    },
    /// Not now, or not to its end.
    NotNow,
}

/// What the cleaner keeps in mind of a log.
#[derive(Debug, Default)]
pub(super) struct CleanerNotes {
    is_uncleanable: bool,
    not_before: Monotonic,
    /// Up to where the log is clean, or misses offsets, as a checkpoint has durably said. The log itself may be ahead.
    noted: Option<Offset>,
}

impl CleanerNotes {
    /// A checkpoint says so.
    pub fn noted_cleaned_to(&mut self, cleaned_to: Option<Offset>) {
        self.noted = cleaned_to;
    }

    /// Whether a start will know that offsets may be missing.
    pub fn is_noted(&self) -> bool {
        self.noted.is_some()
    }
}

/// Paces a cleaning, and ends it when its log is wanted.
struct Pace<P: Platform> {
    partition: Rc<Partition<P>>,
    began: Monotonic,
    bytes: Rc<Cell<u64>>,
    bytes_per_second: f64,
}

impl<P: Platform> Clone for Pace<P> {
    fn clone(&self) -> Pace<P> {
        let Pace { partition, began, bytes, bytes_per_second } = self;
        Pace {
            partition: Rc::clone(partition),
            bytes: Rc::clone(bytes),
            began: *began,
            bytes_per_second: *bytes_per_second,
        }
    }
}

impl<P: Platform> Resources for Pace<P> {
    fn work<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = Option<T>> + 'static {
        self.partition.platform.tasks().work(job)
    }

    fn moved(&self, bytes: u64) -> impl Future<Output = bool> + 'static {
        self.bytes.set(self.bytes.get() + bytes);
        let this = self.clone();
        let clock = this.partition.platform.clock().clone();
        async move {
            loop {
                if this.partition.is_wanted() {
                    return false;
                }
                let seconds = this.bytes.get() as f64 / this.bytes_per_second;
                // Longer than any cleaning lasts is as good as for ever.
                let due = this.began + Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
                let now = clock.now();
                if now >= due {
                    return true;
                }
                clock.sleep_until(due.min(now + NAP)).await;
            }
        }
    }
}

impl<P: Platform> Partition<P> {
    /// Somebody waits for the log, or it is not served any more: a cleaning ends.
    fn is_wanted(&self) -> bool {
        !self.state.borrow().slot.is_open()
    }

    /// Something in the log is damaged, so that it is not cleaned any more.
    pub fn is_uncleanable(&self) -> bool {
        self.state.borrow().cleaner.is_uncleanable
    }

    /// How dirty the log is, if it is to be cleaned; the dirtiest first.
    pub async fn dirtiness_if_due(self: &Rc<Self>) -> Option<Dirtiness> {
        {
            let notes = &self.state.borrow().cleaner;
            if notes.is_uncleanable || self.platform.clock().now() < notes.not_before {
                return None;
            }
        }
        let _maintenance = self.begin_maintenance()?;
        let ratio = self.config().min_cleanable_dirty_ratio;
        self.dirtiness().await.filter(|dirtiness| dirtiness.is_due(ratio))
    }

    async fn dirtiness(self: &Rc<Self>) -> Option<Dirtiness> {
        for _ in 0..LOOKS_MAX {
            let unknown = {
                let state = self.state.borrow();
                let (config, now) = (&state.settings.config, self.platform.clock().wall());
                let lags =
                    CompactionLags { min_ms: config.min_compaction_lag_ms, max_ms: config.max_compaction_lag_ms };
                match state.slot.open()?.dirtiness(state.high_watermark, lags, now) {
                    Ok(dirtiness) => return Some(dirtiness),
                    Err(unknown) => unknown,
                }
            };
            let looked = match unknown {
                Unknown::Age(base_offset) => {
                    let age = self.of_log(|log| log.age(base_offset))?.await;
                    self.state.borrow_mut().slot.log_mut()?.finish_age(age).map(drop)
                }
                Unknown::Beginning(base_offset) => {
                    let beginning = self.of_log(|log| log.beginning(base_offset))?.await;
                    self.state.borrow_mut().slot.log_mut()?.finish_beginning(beginning)
                }
            };
            if let Err(error) = looked {
                self.cleaning_failed(&error.into());
                return None;
            }
        }
        None
    }

    /// Cleans the log once, as far as its keys fit into the map.
    pub async fn clean(self: &Rc<Self>, share: CleanerShare) -> CleanOutcome {
        let Some(_maintenance) = self.begin_maintenance() else { return CleanOutcome::NotNow };
        match self.clean_log(share).await {
            Ok(outcome) => outcome,
            Err(error) => self.cleaning_failed(&error),
        }
    }

    async fn clean_log(self: &Rc<Self>, share: CleanerShare) -> Result<CleanOutcome, CleanError> {
        let Some(dirtiness) = self.dirtiness().await.filter(|dirtiness| dirtiness.dirty_bytes > 0) else {
            return Ok(CleanOutcome::NotNow);
        };
        let config = self.config();
        let segment_bytes = u64::try_from(config.segment_bytes).unwrap_or(0);
        // The reserve is for others: with less room the old and the new segment can't lie beside one another.
        if !self.home.log_dir().has_room(segment_bytes.min(dirtiness.clean_bytes + dirtiness.dirty_bytes)) {
            let path = self.home.log_dir().path.clone();
            return Err(LogError::Io { path, source: ErrorKind::StorageFull.into() }.into());
        }
        self.note_cleaned_to(dirtiness.first_dirty).await?;
        let clock = self.platform.clock();
        let time = CleanTime { now: clock.wall(), delete_retention_ms: config.delete_retention_ms };
        let pace = Pace {
            partition: Rc::clone(self),
            began: clock.now(),
            bytes: Rc::default(),
            bytes_per_second: share.bytes_per_second,
        };
        let found = self.of_log(|log| {
            let aborted = log.aborted_transactions(log.first_segment_offset(), dirtiness.uncleanable);
            (log.clean_plan(dirtiness), aborted)
        });
        let (plan, aborted) = found.ok_or(CleanError::Aborted)?;
        let aborted = match aborted {
            Some(aborted) => aborted.await?,
            None => Vec::new(),
        };
        let mut cleaning = plan.index(aborted, share.bounds, time, pace).await?;
        while let Some(cleaned) = cleaning.clean_group().await {
            let names = self.of_log(|log| log.names()).ok_or(CleanError::Aborted)?.hold_alone().await;
            let swapped = cleaned?.swap(names).await?;
            let aside = self.state.borrow_mut().slot.log_mut().map(|log| log.finish_swap(swapped));
            self.remove_later(aside.unwrap_or_default());
        }
        self.note_cleaned_to(cleaning.end_offset).await?;
        let (bytes_read, bytes_written) = (cleaning.bytes_read, cleaning.bytes_written);
        let undecodable = cleaning.undecodable();
        if let Some(first) = undecodable.first {
            let (partition, count) = (&self.topic_partition, undecodable.count);
            tracing::warn!(%partition, count, %first, "batches that can't be decoded were kept as they are");
        }
        tracing::info!(
            partition = %self.topic_partition,
            from = dirtiness.first_dirty,
            to = cleaning.end_offset,
            bytes_read,
            bytes_written,
            "log cleaned"
        );
        Ok(CleanOutcome::Cleaned { bytes_read, bytes_written, undecodable_batches: undecodable.count })
    }

    /// Writes down, if it is news, up to where the log is clean; from then on it may miss offsets.
    pub(super) async fn note_cleaned_to(&self, offset: Offset) -> Result<(), CleanError> {
        {
            let mut state = self.state.borrow_mut();
            let State { slot, cleaner, .. } = &mut *state;
            let log = slot.open_mut().ok_or(CleanError::Aborted)?;
            if cleaner.noted == Some(offset) {
                return Ok(());
            }
            log.set_cleaned_to(offset);
        }
        match self.checkpointed(LogSlot::is_open).await {
            true => {
                self.state.borrow_mut().cleaner.noted = Some(offset);
                Ok(())
            }
            false => Err(CleanError::Aborted),
        }
    }

    fn cleaning_failed(&self, error: &CleanError) -> CleanOutcome {
        let is_uncleanable = match error {
            CleanError::Damaged { .. } | CleanError::TooLarge(_) => true,
            // A file that is missing concerns its log alone.
            error => error.io_kind() == Some(ErrorKind::NotFound),
        };
        if is_uncleanable {
            tracing::error!(partition = %self.topic_partition, %error, "the partition is not cleaned any more");
            self.state.borrow_mut().cleaner.is_uncleanable = true;
            return CleanOutcome::NotNow;
        }
        match error {
            CleanError::Sync(failed) => self.home.fail(failed),
            CleanError::SwapFailed(_) => self.home.fail(error),
            CleanError::Log(failed) => self.storage_failed(failed),
            CleanError::Damaged { .. } | CleanError::TooLarge(_) | CleanError::Busy | CleanError::Aborted => {}
        }
        if !self.is_wanted() {
            tracing::warn!(partition = %self.topic_partition, %error, "the log could not be cleaned; again later");
        }
        self.state.borrow_mut().cleaner.not_before = self.platform.clock().now() + RETRY_AFTER;
        CleanOutcome::NotNow
    }
}
