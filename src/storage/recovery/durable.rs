//! Segments that are durable, after any stop: taken as they are where their indexes fit them, else checked whole.

use super::{Recovery, end_offset, follows};
use crate::base::ids::Offset;
use crate::platform::Disk;
use crate::storage::entry::{Entry, Scanned, Scanner};
use crate::storage::log::LogError;
use crate::storage::offset_index::{ENTRY_BYTES, OffsetEntry, OffsetIndex};
use crate::storage::segment::{ActiveSegment, ClosedSegment, LOG, OFFSET_INDEX, TIME_INDEX, WrittenBatch};
use crate::storage::time_index::TimeIndex;

impl<D: Disk> Recovery<D> {
    /// A segment that is durable and has others behind it.
    ///
    /// Its time index is looked at when somebody asks it ([`Directory::time_index`]): few do.
    pub(super) async fn load_closed(&mut self, base_offset: Offset) -> Result<ClosedSegment<D::File>, LogError> {
        if self.has_offset_index(base_offset).await? && self.transaction_index(base_offset).await?.is_some() {
            let size = self.files.logs.get(&base_offset).copied().unwrap_or(0);
            return Ok(ClosedSegment::new(base_offset, size));
        }
        let active = self.check_durable(base_offset).await?;
        self.close_checked(active, true).await
    }

    /// Whether the offset index is there, as long as an index can be, and not empty where it should not be.
    pub(super) async fn has_offset_index(&self, base_offset: Offset) -> Result<bool, LogError> {
        let size = self.files.logs.get(&base_offset).copied().unwrap_or(0);
        let interval_bytes = u64::from(self.config.index_interval_bytes);
        match self.files.offset_indexes.get(&base_offset) {
            Some(0) if size > interval_bytes => {
                let (file, _) = self.directory.open(base_offset, LOG).await?;
                let mut scanner = Scanner::new(self.directory.disk.clone(), file, 0, size);
                loop {
                    let path = self.directory.path_of(base_offset, LOG);
                    match scanner.next().await.map_err(LogError::io_at(&path))? {
                        Scanned::Entry { position, .. } if position > interval_bytes => return Ok(false),
                        Scanned::Entry { .. } => {}
                        Scanned::End | Scanned::Torn { .. } => return Ok(true),
                    }
                }
            }
            Some(bytes) => Ok(bytes.is_multiple_of(ENTRY_BYTES as u64)),
            None => Ok(false),
        }
    }

    /// The last segment, after a clean stop.
    pub(super) async fn load_last(&mut self, base_offset: Offset) -> Result<ActiveSegment<D::File>, LogError> {
        match self.load_clean(base_offset).await? {
            Some(active) => {
                self.must_go_on(&active, None)?;
                Ok(active)
            }
            None => self.check_durable(base_offset).await,
        }
    }

    /// The last segment after a clean stop: indexes from their files, the batches behind the last entry from the log.
    /// `None` if that does not fit together; then it is checked whole.
    async fn load_clean(&self, base_offset: Offset) -> Result<Option<ActiveSegment<D::File>>, LogError> {
        let (file, length) = self.directory.open(base_offset, LOG).await?;
        let mut active = ActiveSegment::new(base_offset, file.clone(), &self.open_files, &self.config, self.wall);
        if length == 0 {
            return Ok(Some(active));
        }
        let Ok(size) = u32::try_from(length) else { return Ok(None) };
        let index_bytes = self.config.segment_index_bytes;
        if self.transaction_index(base_offset).await?.is_none() {
            return Ok(None);
        }
        let Some(index) = self.directory.read_index(base_offset, OFFSET_INDEX).await? else { return Ok(None) };
        active.offset_index = OffsetIndex::decode(base_offset, index_bytes, &index, size);
        if active.offset_index.bytes() != index.len() as u64 {
            return Ok(None);
        }
        let indexed = active.offset_index.last();
        let start = indexed.map_or(0, |entry| u64::from(entry.position));
        let interval_bytes = u64::from(self.config.index_interval_bytes);

        let log_path = self.directory.path_of(base_offset, LOG);
        if start > 0 {
            let mut first = Scanner::new(self.directory.disk.clone(), file.clone(), 0, length);
            match first.next().await.map_err(LogError::io_at(&log_path))? {
                Scanned::Entry { entry, .. } => active.first_timestamp = Some(entry.max_timestamp),
                _ => return Ok(None),
            }
        }
        let mut scanner = Scanner::new(self.directory.disk.clone(), file, start, length);
        loop {
            match scanner.next().await.map_err(LogError::io_at(&log_path))? {
                Scanned::Entry { position, entry } if !is_where(indexed, position, base_offset, &entry) => {
                    return Ok(None);
                }
                Scanned::Entry { entry, .. } if !follows(&active, &entry) => return Ok(None),
                // It would have an entry.
                Scanned::Entry { position, .. } if indexed.is_none() && position > interval_bytes => return Ok(None),
                Scanned::Entry { position, entry } => {
                    active.note_indexed_batch(&WrittenBatch::of_entry(&entry, position));
                }
                Scanned::End => break,
                Scanned::Torn { .. } => return Ok(None),
            }
        }
        active.forget_appended();
        let index = self.directory.read_index(base_offset, TIME_INDEX).await?.unwrap_or_default();
        active.time_index = TimeIndex::decode(base_offset, index_bytes, &index, end_offset(&active));
        // A stop in order ends the index with the latest timestamp; as far as batches were looked at they must know none
        // that is later.
        let seen = active.latest.map(|latest| latest.timestamp).max(active.first_timestamp).unwrap_or(-1);
        let indexed = active.time_index.last();
        if active.time_index.bytes() != index.len() as u64 || indexed.map_or(-1, |last| last.timestamp) < seen {
            return Ok(None);
        }
        active.latest = indexed;
        Ok(Some(active))
    }
}

/// Whether the entry at an index entry's position is the one that the index speaks of.
fn is_where(indexed: Option<OffsetEntry>, position: u64, base_offset: Offset, entry: &Entry) -> bool {
    indexed.is_none_or(|indexed| {
        u64::from(indexed.position) != position || indexed.points_at(base_offset, entry.last_offset)
    })
}
