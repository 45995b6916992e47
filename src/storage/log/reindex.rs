//! A closed segment's offset index that leads to no batch is damaged, and made anew from the batches.

#![forbid(unsafe_code)]

use std::future::Future;
use std::io;

use crate::base::ids::Offset;
use crate::platform::{Disk, OpenMode};
use crate::storage::entry::{Scanned, Scanner};
use crate::storage::log::{Log, LogError};
use crate::storage::offset_index::{OffsetIndex, relative_offset};
use crate::storage::segment::{LOG, OFFSET_INDEX, segment_path};

impl<D: Disk> Log<D> {
    pub(super) fn is_index_doubted(&self, base_offset: Offset) -> bool {
        self.run.doubted.borrow().contains(&base_offset)
    }

    /// Said once, until the index is made anew.
    pub(super) fn doubt_index(&self, base_offset: Offset) {
        if self.run.doubted.borrow_mut().insert(base_offset) {
            let path = segment_path(&self.directory, base_offset, OFFSET_INDEX);
            tracing::warn!(file = %path.display(), "damaged index: an entry points at no batch of its offset");
        }
    }

    /// What makes a closed segment's index anew, if it is in doubt; durable then.
    ///
    /// # Errors
    /// `Io` with `InvalidData` if the segment's batches do not follow one another; the index stays in doubt.
    pub(super) fn reindex(
        &self,
        base_offset: Offset,
    ) -> Option<impl Future<Output = Result<(), LogError>> + use<D> + 'static> {
        let size = self.closed.get(&base_offset).filter(|_| self.is_index_doubted(base_offset))?.size;
        let (disk, interval_bytes) = (self.disk.clone(), u64::from(self.config.index_interval_bytes));
        let log_path = segment_path(&self.directory, base_offset, LOG);
        let index_path = segment_path(&self.directory, base_offset, OFFSET_INDEX);
        Some(async move {
            let (file, _) = disk.open(&log_path, OpenMode::Read).await.map_err(LogError::io_at(&log_path))?;
            let scanner = Scanner::new(disk.clone(), file, 0, size);
            let index = index_of(scanner, base_offset, interval_bytes).await.map_err(LogError::io_at(&log_path))?;
            disk.replace(&index_path, index.unwritten().1).await.map_err(LogError::io_at(&index_path))
        })
    }
}

async fn index_of<D: Disk>(
    mut scanner: Scanner<D>,
    base_offset: Offset,
    interval_bytes: u64,
) -> io::Result<OffsetIndex> {
    let damaged = |position: u64, error: &dyn std::fmt::Display| {
        io::Error::new(io::ErrorKind::InvalidData, format!("at position {position}: {error}"))
    };
    let mut index = OffsetIndex::new(base_offset, u32::MAX);
    let (mut bytes_since_entry, mut end_offset) = (0, base_offset);
    loop {
        let (position, entry) = match scanner.next().await? {
            Scanned::Entry { position, entry } => (position, entry),
            Scanned::End => return Ok(index),
            Scanned::Torn { position, error } => return Err(damaged(position, &error)),
        };
        if entry.base_offset < end_offset || relative_offset(base_offset, entry.last_offset).is_none() {
            return Err(damaged(position, &"a batch whose offsets do not follow"));
        }
        if bytes_since_entry > interval_bytes {
            index.push(entry.last_offset, u32::try_from(position).map_err(|error| damaged(position, &error))?);
            bytes_since_entry = 0;
        }
        bytes_since_entry += entry.bytes;
        end_offset = entry.last_offset + 1;
    }
}
