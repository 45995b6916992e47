//! What a log needs beside its writes: blocks reserved ahead of the log end, and what shortens a start after a kill: index
//! entries and producer snapshots in their files, though nobody flushes them.
//!
//! A start after a kill reads what lies behind the last entry that the offset index file holds, and shows the producers
//! what lies behind the newest snapshot (`recovery::written`). Both are kept near the log end: by bytes, so that a busy log
//! has little to read, and by time, so that a quiet one has nothing. An entry is written when its batch is; it never points
//! past what is in the log's file.

#![forbid(unsafe_code)]

use std::future::Future;
use std::io;

use crate::base::ids::Offset;
use crate::base::time::WallMs;
use crate::platform::Disk;
use crate::storage::log::roll::{IndexWrite, SnapshotTaken, SnapshotWrite};
use crate::storage::log::{Log, LogError};
use crate::storage::offset_index::{BLOCK_BYTES, ENTRY_BYTES};

/// Bytes appended to a segment before blocks are reserved ahead: an idle partition reserves none.
const PREALLOCATE_AFTER_BYTES: u64 = 1 << 20;
const STEP_BYTES_MIN: u64 = 1 << 20;
const STEP_BYTES_MAX: u64 = 64 << 20;
/// A step used up faster than this doubles the next one.
const STEP_FAST_MS: i64 = 1000;
/// A step that lasted longer than this halves the next one.
const STEP_SLOW_MS: i64 = 8000;
/// Index entries that are worth a write.
const INDEX_BLOCK_ENTRIES: usize = BLOCK_BYTES / ENTRY_BYTES;

/// Bytes behind the last entry in the file, or behind the newest snapshot, that are worth a write: a start reads them in
/// about a millisecond.
const BEHIND_BYTES: u64 = 4 << 20;
/// A log that is behind is written no more often than that...
const BEHIND_MS_MIN: i64 = 1000;
/// ... unless it has come so far behind: one that is so fast is one of few.
const BEHIND_BYTES_MAX: u64 = 64 << 20;
/// How long an entry waits for its write.
const ENTRY_WAITS_MS_MAX: i64 = 5000;
/// A snapshot of many producers is written no more often than when so many times as much was appended.
const SNAPSHOT_SHARE: u64 = 64;

/// What the files have of a log's state, beside its batches.
#[derive(Debug)]
pub(super) struct Behind {
    /// [`BEHIND_BYTES`], but for tests, whose logs are small.
    bytes_due: u64,
    entries_written_at: WallMs,
    /// When an entry was first seen that the file lacks.
    unwritten_since: Option<WallMs>,
    snapshot_at: WallMs,
    /// Bytes appended before the newest snapshot, and its own.
    pub snapshot_position: u64,
    pub snapshot_bytes: u64,
}

impl Default for Behind {
    fn default() -> Behind {
        Behind {
            bytes_due: BEHIND_BYTES,
            entries_written_at: 0,
            unwritten_since: None,
            snapshot_at: 0,
            snapshot_position: 0,
            snapshot_bytes: 0,
        }
    }
}

impl Behind {
    fn is_due(&self, bytes: u64, last: WallMs, now: WallMs) -> bool {
        bytes >= self.bytes_due && (bytes >= BEHIND_BYTES_MAX || has_passed(BEHIND_MS_MIN, last, now))
    }
}

/// Also when the clock was set back.
fn has_passed(ms: i64, since: WallMs, now: WallMs) -> bool {
    !(0..ms).contains(&now.saturating_sub(since))
}

/// The rhythm of a log's upkeep.
#[derive(Debug)]
pub(super) struct Upkeep {
    running: bool,
    /// The file system refused to reserve blocks; appends allocate as they go.
    preallocation_refused: bool,
    step_bytes: u64,
    step_began: WallMs,
    /// Size of the segment at the last rest; 0 before it.
    rested_at: u64,
}

impl Default for Upkeep {
    fn default() -> Upkeep {
        Upkeep { running: false, preallocation_refused: false, step_bytes: STEP_BYTES_MIN, step_began: 0, rested_at: 0 }
    }
}

/// What upkeep did; goes to [`Log::finish_upkeep`].
#[derive(Debug)]
pub struct UpkeepDone<F> {
    base_offset: Offset,
    preallocated: io::Result<()>,
    indexes: Option<Result<WrittenIndexes, LogError>>,
    /// Also the bytes appended before it.
    snapshot: Option<Result<(SnapshotTaken<F>, u64), LogError>>,
}

/// What a rest did; goes to [`Log::finish_rest`].
#[derive(Debug)]
pub struct Rested {
    result: Result<WrittenIndexes, LogError>,
}

#[derive(Debug)]
struct WrittenIndexes {
    offset_index_end: u64,
    time_index_end: u64,
}

impl<D: Disk> IndexWrite<D> {
    /// Gives the bytes that the files hold then.
    async fn run_to_ends(self) -> Result<WrittenIndexes, LogError> {
        let end = |(position, data): &(u64, Vec<u8>)| position + data.len() as u64;
        let (offset_index_end, time_index_end) = (end(&self.offset_index), end(&self.time_index));
        if !self.offset_index.1.is_empty() || !self.time_index.1.is_empty() {
            self.run().await?;
        }
        Ok(WrittenIndexes { offset_index_end, time_index_end })
    }
}

impl<D: Disk> Log<D> {
    /// Preallocation, if the disk has room for it, index entries and a producer snapshot, if any is due; to be asked after
    /// appends, and some seconds after the last one. One at a time: `None` while one runs.
    pub fn upkeep(
        &mut self,
        now: WallMs,
        has_room: bool,
    ) -> Option<impl Future<Output = UpkeepDone<D::File>> + use<D> + 'static> {
        if self.run.upkeep.running || self.run.rolling || self.run.fenced {
            return None;
        }
        let file = self.active.file();
        let range = (file.is_some() && has_room).then(|| self.blocks_due(now)).flatten();
        let write_indexes = self.are_entries_due(now);
        let snapshot = self.snapshot_due(now);
        if range.is_none() && !write_indexes && snapshot.is_none() {
            return None;
        }
        self.run.upkeep.running = true;
        if write_indexes {
            (self.run.behind.entries_written_at, self.run.behind.unwritten_since) = (now, None);
        }
        let reserve = file.zip(range).map(|(file, (position, length))| {
            self.active.preallocated_end = position + length;
            (file, position, length)
        });
        let write = write_indexes.then(|| self.index_write(false));
        let (disk, directory, base_offset) = (self.disk.clone(), self.directory.clone(), self.active.base_offset);
        let appended_bytes = self.run.appended_bytes;
        Some(async move {
            let preallocated = match reserve {
                Some((file, position, length)) => disk.preallocate(&file, position, length).await,
                None => Ok(()),
            };
            let indexes = match write {
                Some(write) => Some(write.run_to_ends().await),
                None => None,
            };
            let snapshot = match snapshot {
                Some(snapshot) => Some(snapshot.run(&disk, &directory).await.map(|taken| (taken, appended_bytes))),
                None => None,
            };
            UpkeepDone { base_offset, preallocated, indexes, snapshot }
        })
    }

    /// Has index entries and snapshots written when so much is behind them.
    #[cfg(test)]
    pub(crate) fn set_upkeep_bytes(&mut self, bytes: u64) {
        self.run.behind.bytes_due = bytes;
    }

    /// Whether the file lacks a block of entries, or has come too far behind, or for too long.
    fn are_entries_due(&mut self, now: WallMs) -> bool {
        let (index, behind) = (&self.active.offset_index, &mut self.run.behind);
        let unwritten_entries = index.unwritten_entries();
        if unwritten_entries == 0 {
            behind.unwritten_since = None;
            return false;
        }
        let since = *behind.unwritten_since.get_or_insert(now);
        unwritten_entries >= INDEX_BLOCK_ENTRIES
            || behind.is_due(self.active.size - index.written_position(), behind.entries_written_at, now)
            || has_passed(ENTRY_WAITS_MS_MAX, since, now)
    }

    /// A snapshot between rolls: not for few bytes, and not while the producers know of batches that are not written.
    fn snapshot_due(&mut self, now: WallMs) -> Option<SnapshotWrite> {
        let behind = &self.run.behind;
        let appended_since = self.run.appended_bytes - behind.snapshot_position;
        let is_due = behind.is_due(appended_since, behind.snapshot_at, now)
            && appended_since >= behind.snapshot_bytes * SNAPSHOT_SHARE
            && self.is_quiet();
        if !is_due {
            return None;
        }
        self.run.behind.snapshot_at = now;
        self.snapshot_write()
    }

    /// Gives back the blocks reserved ahead and the memory that only a busy log needs. Nothing may be appended until
    /// [`Log::finish_rest`]; `None` while something is on its way, or if there is nothing to give back.
    pub fn rest(&mut self) -> Option<impl Future<Output = Rested> + use<D> + 'static> {
        let is_busy = self.run.upkeep.running || self.run.rolling || self.run.fenced || !self.is_quiet();
        if is_busy || self.active.size == 0 || self.run.upkeep.rested_at == self.active.size {
            return None;
        }
        self.run.upkeep.running = true;
        let (write, give_back) = (self.index_write(false), self.give_back_blocks());
        Some(async move {
            let rested = async {
                if let Some(give_back) = give_back {
                    give_back.await?;
                }
                write.run_to_ends().await
            };
            Rested { result: rested.await }
        })
    }

    /// # Errors
    /// What could not be given back stays.
    pub fn finish_rest(&mut self, rested: Rested) -> Result<(), LogError> {
        self.run.upkeep = Upkeep { preallocation_refused: self.run.upkeep.preallocation_refused, ..Upkeep::default() };
        let WrittenIndexes { offset_index_end, time_index_end } = rested.result?;
        self.active.preallocated_end = 0;
        self.active.offset_index.mark_written(offset_index_end);
        self.active.time_index.mark_written(time_index_end);
        self.active.forget_written(true);
        self.run.upkeep.rested_at = self.active.size;
        Ok(())
    }

    /// The range to reserve next: a step ahead, once half of the last step is used up.
    fn blocks_due(&mut self, now: WallMs) -> Option<(u64, u64)> {
        let (active, upkeep) = (&self.active, &mut self.run.upkeep);
        let segment_bytes = u64::from(self.config.segment_bytes);
        let reserved_end = active.preallocated_end.max(active.size);
        let is_due = active.appended_bytes() >= PREALLOCATE_AFTER_BYTES
            && reserved_end < segment_bytes
            && active.size + upkeep.step_bytes / 2 > active.preallocated_end;
        if !is_due || upkeep.preallocation_refused {
            return None;
        }
        let lasted = now.saturating_sub(upkeep.step_began);
        if lasted < STEP_FAST_MS {
            upkeep.step_bytes = (upkeep.step_bytes * 2).min(STEP_BYTES_MAX);
        } else if lasted > STEP_SLOW_MS {
            upkeep.step_bytes = (upkeep.step_bytes / 2).max(STEP_BYTES_MIN);
        }
        upkeep.step_began = now;
        Some((reserved_end, upkeep.step_bytes.min(segment_bytes - reserved_end)))
    }

    /// # Errors
    /// Of writing index entries; they stay due. A refused reservation is no error: no more are tried on this log.
    pub fn finish_upkeep(&mut self, done: UpkeepDone<D::File>) -> Result<(), LogError> {
        self.run.upkeep.running = false;
        if let Err(error) = &done.preallocated {
            tracing::debug!(partition = %self.topic_partition, %error, "no more preallocation");
            self.run.upkeep.preallocation_refused = true;
        }
        let snapshot = done.snapshot.transpose().map(|taken| {
            if let Some((taken, position)) = taken {
                (self.run.behind.snapshot_position, self.run.behind.snapshot_bytes) = (position, taken.bytes);
                self.took_snapshot(taken);
            }
        });
        // If a roll came first, it wrote the indexes itself.
        if let Some(indexes) = done.indexes.filter(|_| done.base_offset == self.active.base_offset) {
            let WrittenIndexes { offset_index_end, time_index_end } = indexes?;
            self.active.offset_index.mark_written(offset_index_end);
            self.active.time_index.mark_written(time_index_end);
            self.active.forget_written(false);
        }
        snapshot
    }
}
