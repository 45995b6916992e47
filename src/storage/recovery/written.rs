//! What a process that was killed had written, taken as it is while the page cache lives that it was written to.
//!
//! ```text
//!          recovery point                          last index entry       log end
//!  segments ----+----------------+----------------------+-------------------+--- torn
//!               | taken as they are: the batches of     | every batch is    | a part of the last
//!               | each end where the next one begins    | looked at         | append: cut off
//! ```
//! An index entry is written when its batch's append is through, and a segment is whole before the next one has a name. So
//! all before the last entry of the last segment is there, and only the last append can be torn, at the end of its file.
//! The producer state begins with the newest snapshot, wherever that is.
//!
//! That is where the look begins, and no promise: where the files do not fit it, nothing has been changed, and all past the
//! recovery point is checked as after a power cut. What is taken over past the recovery point is not durable, and counts
//! as written and not flushed.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use super::check::IndexedStart;
use super::check::{Start, Stop};
use super::replay::Replay;
use super::times::Timed;
use super::{Recovery, end_offset};
use crate::base::ids::Offset;
use crate::platform::Disk;
use crate::storage::entry::{Scanned, Scanner};
use crate::storage::log::LogError;
use crate::storage::offset_index::OffsetIndex;
use crate::storage::segment::{
    ActiveSegment, ClosedSegment, LOG, OFFSET_INDEX, SNAPSHOT, TIME_INDEX, TRANSACTION_INDEX,
};

/// Bytes at the end of a log whose producers may not have their answers: a write has 1 MiB at most, and is answered when it
/// is through.
const UNANSWERED_BYTES_MAX: u64 = 4 << 20;

#[cfg(not(test))]
fn unanswered_bytes_max() -> u64 {
    UNANSWERED_BYTES_MAX
}

/// The logs of tests are small.
#[cfg(test)]
fn unanswered_bytes_max() -> u64 {
    of_tests::UNANSWERED_BYTES_MAX.get()
}

/// Why files are not taken as they are.
enum NotTaken {
    /// They are not as a killed process leaves them.
    Misfit {
        path: PathBuf,
        reason: &'static str,
    },
    Failed(LogError),
}

impl From<LogError> for NotTaken {
    fn from(error: LogError) -> NotTaken {
        match error {
            LogError::Io { path, source } if source.kind() == io::ErrorKind::InvalidData => {
                NotTaken::Misfit { path, reason: "it can't be read" }
            }
            error => NotTaken::Failed(error),
        }
    }
}

/// What was taken: the closed segments, the active one, and the producers at its end.
type Taken<F> = (BTreeMap<Offset, ClosedSegment<F>>, ActiveSegment<F>, Replay);

impl<D: Disk> Recovery<D> {
    /// Loads these segments, from the one that holds the recovery point to the `last`. `None` if they are to be checked;
    /// nothing was changed then.
    pub(super) async fn load_written(
        &mut self,
        bases: &[Offset],
        last: Offset,
    ) -> Result<Option<(ActiveSegment<D::File>, Replay)>, LogError> {
        let epochs = self.epochs.clone();
        match self.take_written(bases, last).await {
            Ok((closed, active, replay)) => {
                self.closed.extend(closed);
                Ok(Some((active, replay)))
            }
            Err(NotTaken::Failed(error)) => Err(error),
            Err(NotTaken::Misfit { path, reason }) => {
                self.epochs = epochs;
                let recovery_point = self.last_stop.recovery_point;
                tracing::warn!(file = %path.display(), reason, recovery_point,
                    "not as a process that was killed leaves it: all past the recovery point is checked");
                Ok(None)
            }
        }
    }

    async fn take_written(&mut self, bases: &[Offset], last: Offset) -> Result<Taken<D::File>, NotTaken> {
        let mut replay = self.begin_replay(self.replayed_from(last).await?).await?;
        let mut closed = BTreeMap::new();
        for pair in bases.windows(2) {
            let (base_offset, next_base) = (pair[0], pair[1]);
            self.must_reach(base_offset, next_base).await?;
            closed.insert(base_offset, self.written_segment(base_offset, next_base).await?);
        }
        let start = self.written_start(last).await?;
        let (is_indexed, position) = (start.offset.is_some(), start.position);
        self.work.announce(self.files.logs.get(&last).copied().unwrap_or(0).saturating_sub(position));
        replay.run(&self.directory, &self.files.logs, start.offset.unwrap_or(last)).await?;

        let looked = self.look(last, None, start, Some(&mut replay)).await?;
        let end = end_offset(&looked.active);
        let misfit = match looked.stop {
            Some(Stop { is_cut_short: false, reason, .. }) => Some(reason),
            Some(stop) if is_indexed && stop.position == position => Some("the batch of an index entry is not whole"),
            _ if end < self.last_stop.recovery_point => Some("it ends before the recovery point"),
            _ if replay.snapshot > Some(end) => Some("it ends before a producer snapshot"),
            _ => None,
        };
        if let Some(reason) = misfit {
            return Err(self.misfit(last, LOG, reason));
        }
        // Not synced where that would take the batches before it along: the next flush does it. Should a part of what is cut
        // come back after a power cut before that, there is no whole batch in it. Where nothing is left to flush it is all
        // that the file has, and a stop in order must not leave it there.
        self.cut_behind_last_batch(&looked).await?;
        if looked.stop.is_some() && (end <= self.last_stop.recovery_point || looked.active.size == 0) {
            self.sync_cut(&looked).await?;
        }
        Ok((closed, self.settle(looked, false).await?.active, replay))
    }

    /// The snapshot to begin with. It holds of each producer the last batch alone, while those that were not answered at the
    /// kill come again: they must be met behind it, to be known.
    async fn replayed_from(&self, last: Offset) -> Result<Offset, LogError> {
        let recovery_point = self.last_stop.recovery_point;
        if self.config.answers_when_flushed {
            return Ok(recovery_point);
        }
        let length = self.files.logs.get(&last).copied().unwrap_or(0);
        let index = self.directory.read_index(last, OFFSET_INDEX).await?.unwrap_or_default();
        let size = u32::try_from(length).unwrap_or(u32::MAX);
        let index = OffsetIndex::decode(last, u32::MAX, &index, size);
        let behind = |offset: Offset| match offset > last {
            true => length - index.lookup(offset).map_or(0, |entry| u64::from(entry.position)),
            false => self.files.logs.range(offset..).map(|(_, length)| *length).sum(),
        };
        let unanswered_bytes_max = unanswered_bytes_max();
        let is_far = |offset: &&Offset| behind(**offset) >= unanswered_bytes_max;
        let far = self.files.snapshots.iter().rev().find(is_far).copied();
        // All that is there was appended by this process, or it is little anyway.
        let oldest = || self.files.snapshots.first().copied().filter(|_| behind(0) > 2 * unanswered_bytes_max);
        Ok(far.or_else(oldest).unwrap_or(Offset::MIN))
    }

    fn misfit(&self, base_offset: Offset, extension: &str, reason: &'static str) -> NotTaken {
        NotTaken::Misfit { path: self.directory.path_of(base_offset, extension), reason }
    }

    /// The batches behind the last index entry of a closed segment lead to its end, and there to the next one.
    async fn must_reach(&self, base_offset: Offset, next_base: Offset) -> Result<(), NotTaken> {
        if !self.has_offset_index(base_offset).await? {
            return Err(self.misfit(base_offset, OFFSET_INDEX, "no sound index"));
        }
        if self.transaction_index(base_offset).await?.is_none() {
            return Err(self.misfit(base_offset, TRANSACTION_INDEX, "no sound index"));
        }
        let size = self.files.logs.get(&base_offset).copied().unwrap_or(0);
        let interval_bytes = u64::from(self.config.index_interval_bytes);
        let segment = Timed { base_offset, end_offset: next_base, size, interval_bytes };
        let indexed = self.directory.last_offset_entry(&segment).await?;
        if indexed.is_none() && self.files.offset_indexes.get(&base_offset) > Some(&0) {
            return Err(self.misfit(base_offset, OFFSET_INDEX, "its last entry is none"));
        }
        let start = indexed.map_or(0, |entry| u64::from(entry.position));
        let path = self.directory.path_of(base_offset, LOG);
        let (file, _) = self.directory.open(base_offset, LOG).await?;
        let mut scanner = Scanner::new(self.directory.disk.clone(), file, start, size);
        let mut end = base_offset;
        loop {
            match scanner.next().await.map_err(LogError::io_at(&path))? {
                Scanned::Entry { position, entry }
                    if position == start
                        && indexed.is_some_and(|indexed| !indexed.points_at(base_offset, entry.last_offset)) =>
                {
                    return Err(self.misfit(base_offset, OFFSET_INDEX, "its last entry points at no batch"));
                }
                Scanned::Entry { entry, .. } if entry.base_offset < end => {
                    return Err(self.misfit(base_offset, LOG, "a batch whose offsets do not follow"));
                }
                Scanned::Entry { entry, .. } => end = entry.last_offset.saturating_add(1),
                Scanned::End if end == next_base || (end < next_base && self.config.compacted) => return Ok(()),
                Scanned::End => return Err(self.misfit(base_offset, LOG, "the next segment begins elsewhere")),
                Scanned::Torn { .. } => return Err(self.misfit(base_offset, LOG, "no whole batch")),
            }
        }
    }

    /// A closed segment whose files nobody has synced, as far as it is known.
    async fn written_segment(
        &self,
        base_offset: Offset,
        next_base: Offset,
    ) -> Result<ClosedSegment<D::File>, LogError> {
        let mut closed = ClosedSegment::new(base_offset, self.files.logs.get(&base_offset).copied().unwrap_or(0));
        let has_snapshot = self.files.snapshots.contains(&next_base);
        let files = [
            (base_offset, LOG, true),
            (base_offset, OFFSET_INDEX, true),
            (base_offset, TIME_INDEX, self.files.time_indexes.contains_key(&base_offset)),
            (base_offset, TRANSACTION_INDEX, self.files.transaction_indexes.contains_key(&base_offset)),
            (next_base, SNAPSHOT, has_snapshot),
        ];
        for (offset, extension, _) in files.into_iter().filter(|(.., is_there)| *is_there) {
            closed.unsynced.push(self.directory.open(offset, extension).await?.0);
        }
        Ok(closed)
    }

    /// Where the look at the last segment begins.
    async fn written_start(&self, base_offset: Offset) -> Result<Start, NotTaken> {
        let length = self.files.logs.get(&base_offset).copied().unwrap_or(0);
        match self.indexed_start(base_offset, length, Offset::MAX).await? {
            IndexedStart::Found(start) | IndexedStart::Beginning(start) => Ok(start),
            IndexedStart::PointsAtNothing(..) => {
                Err(self.misfit(base_offset, OFFSET_INDEX, "its last entry points at no batch"))
            }
            IndexedStart::WithoutTransactions => Err(self.misfit(base_offset, TRANSACTION_INDEX, "no sound index")),
        }
    }
}

#[cfg(test)]
pub(crate) mod of_tests {
    use std::cell::Cell;

    thread_local! {
        pub(crate) static UNANSWERED_BYTES_MAX: Cell<u64> = const { Cell::new(super::UNANSWERED_BYTES_MAX) };
    }
}
