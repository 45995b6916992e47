//! The time index of a closed segment, believed where it fits the batches.
//!
//! Nothing in it says whether it is whole: one that is missing, empty or cut short knows too early a latest timestamp, and a
//! look-up by time, retention and compaction would pass over the segment, or take it for older than it is. A segment ends
//! with an entry for its latest timestamp, so the first batch and those behind the last entry of the offset index, which
//! are few, may know none that is later. Kafka makes a missing one anew when it opens the log (Kafka 3.9
//! `LogLoader.recoverSegment`); here it is looked at when somebody needs it, since most are never asked.

use std::io;

use crate::base::ids::Offset;
use crate::platform::{Disk, OpenMode};
use crate::storage::entry::{Entry, HEAD_BYTES_MAX, Scanned, Scanner};
use crate::storage::log::LogError;
use crate::storage::offset_index::{ENTRY_BYTES, OffsetEntry, OffsetIndex};
use crate::storage::segment::{LOG, OFFSET_INDEX, TIME_INDEX};
use crate::storage::time_index::{TimeEntry, TimeIndex};

use super::Directory;

/// A closed segment, as far as its time index must fit it.
#[derive(Clone, Copy, Debug)]
pub(in crate::storage) struct Timed {
    pub base_offset: Offset,
    /// Base offset of the next segment.
    pub end_offset: Offset,
    /// Bytes of its batches.
    pub size: u64,
    /// `index.interval.bytes`, for an index made anew.
    pub interval_bytes: u64,
}

impl<D: Disk> Directory<D> {
    /// The time index of a closed segment, whose last entry has the latest timestamp of all its batches: its file's, or
    /// one made anew, durably, where that does not fit the batches. The segment's names are held.
    pub async fn time_index(&self, segment: Timed) -> Result<TimeIndex, LogError> {
        let Timed { base_offset, end_offset, size, .. } = segment;
        let file = self.read_index(base_offset, TIME_INDEX).await?.unwrap_or_default();
        let index = TimeIndex::decode(base_offset, u32::MAX, &file, end_offset);
        let latest = index.last().map_or(-1, |last| last.timestamp);
        let is_whole = index.bytes() == file.len() as u64;
        if size == 0 || (is_whole && self.latest_at_ends(&segment).await?.is_some_and(|seen| seen <= latest)) {
            return Ok(index);
        }
        let Some(made) = self.time_index_of_batches(&segment).await? else { return Ok(index) };
        let path = self.path_of(base_offset, TIME_INDEX);
        tracing::warn!(file = %path.display(), "the time index did not fit the batches; made anew");
        if let Err(error) = self.disk.replace(&path, made.unwritten().1).await {
            // What it says is right for whoever asks now.
            tracing::warn!(file = %path.display(), %error, "the time index stays as it is");
        }
        Ok(made)
    }

    /// The latest timestamp of the first batch and of those from the offset index's last entry on; `None` if there is no
    /// such entry to trust. Every segment is asked after a start, so as little of it is read as will do.
    async fn latest_at_ends(&self, segment: &Timed) -> Result<Option<i64>, LogError> {
        let Timed { base_offset, size, interval_bytes, .. } = *segment;
        let path = self.path_of(base_offset, LOG);
        // For reading: a log that is missing must not come into being by a look.
        let (log, _) = self.disk.open(&path, OpenMode::Read).await.map_err(LogError::io_at(&path))?;
        let head = self.disk.read(&log, 0, HEAD_BYTES_MAX).await.map_err(LogError::io_at(&path))?;
        let Ok(first) = Entry::parse(&head) else { return Ok(None) };
        let indexed = self.last_offset_entry(segment).await?;
        let start = match indexed {
            Some(indexed) => u64::from(indexed.position),
            // Without an entry the batches are few, or the first of them is large.
            None if size <= first.bytes + interval_bytes => 0,
            None => return Ok(None),
        };
        let (mut latest, mut is_indexed) = (first.max_timestamp, true);
        let take_up = |position, entry: &Entry| {
            latest = latest.max(entry.max_timestamp);
            is_indexed &= position > start || indexed.is_none_or(|one| one.points_at(base_offset, entry.last_offset));
        };
        let end = self.each_entry(segment, start, take_up).await?;
        Ok((end == size && is_indexed).then_some(latest))
    }

    /// What the last bytes of a closed segment's offset index say.
    pub(super) async fn last_offset_entry(&self, segment: &Timed) -> Result<Option<OffsetEntry>, LogError> {
        let path = self.path_of(segment.base_offset, OFFSET_INDEX);
        let (index, length) = match self.disk.open(&path, OpenMode::Read).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(LogError::io_at(&path))?,
        };
        let last = length.saturating_sub(ENTRY_BYTES as u64);
        let bytes = self.disk.read(&index, last, ENTRY_BYTES).await.map_err(LogError::io_at(&path))?;
        let size = u32::try_from(segment.size).unwrap_or(u32::MAX);
        Ok(OffsetIndex::decode(segment.base_offset, u32::MAX, &bytes, size).last())
    }

    /// `None` if the segment is damaged itself: what its batches say can't be known then.
    async fn time_index_of_batches(&self, segment: &Timed) -> Result<Option<TimeIndex>, LogError> {
        let mut index = TimeIndex::new(segment.base_offset, u32::MAX);
        let (mut latest, mut bytes_since_entry) = (None::<TimeEntry>, 0);
        let mut take_up = |_, entry: &Entry| {
            if entry.max_timestamp > latest.map_or(-1, |latest| latest.timestamp) {
                latest = Some(TimeEntry { timestamp: entry.max_timestamp, offset: entry.last_offset });
            }
            if bytes_since_entry > segment.interval_bytes {
                latest.into_iter().for_each(|latest| index.push_if_later(latest));
                bytes_since_entry = 0;
            }
            bytes_since_entry += entry.bytes;
        };
        let end = self.each_entry(segment, 0, &mut take_up).await?;
        latest.into_iter().for_each(|latest| index.push_if_later(latest));
        Ok((end == segment.size).then_some(index))
    }

    /// Shows every entry from `start` on with its position; gives where that ended.
    async fn each_entry(
        &self,
        segment: &Timed,
        start: u64,
        mut take_up: impl FnMut(u64, &Entry),
    ) -> Result<u64, LogError> {
        let path = self.path_of(segment.base_offset, LOG);
        let (log, _) = self.disk.open(&path, OpenMode::Read).await.map_err(LogError::io_at(&path))?;
        let mut scanner = Scanner::new(self.disk.clone(), log, start, segment.size);
        loop {
            match scanner.next().await.map_err(LogError::io_at(&path))? {
                Scanned::Entry { position, entry } => take_up(position, &entry),
                Scanned::End => return Ok(segment.size),
                Scanned::Torn { position, .. } => return Ok(position),
            }
        }
    }
}
