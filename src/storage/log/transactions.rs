//! What transactions mean for a read: where it must end, and which of what it finds was aborted.

#![forbid(unsafe_code)]

use std::future::Future;
use std::io;

use crate::base::ids::Offset;
use crate::platform::{Disk, OpenMode};
use crate::storage::log::{Log, LogError};
use crate::storage::producer_state::ActiveProducer;
use crate::storage::segment::{TRANSACTION_INDEX, segment_path};
use crate::storage::transaction_index::{ENTRY_BYTES, EndedTransaction};

/// Bytes of a transaction index that are read at once.
const READ_BYTES: usize = 1024 * ENTRY_BYTES;

impl<D: Disk> Log<D> {
    /// Records below are decided: committed, aborted, or never part of a transaction; at most `high_watermark`.
    pub fn last_stable_offset(&self, high_watermark: Offset) -> Offset {
        // A transaction that began below the log start holds back nothing below it.
        self.producers.last_stable_offset(high_watermark).max(self.log_start_offset.min(high_watermark))
    }

    /// The high watermark is there now: what was decided below it stays decided.
    pub fn high_watermark_moved(&mut self, high_watermark: Offset) {
        self.producers.high_watermark_moved(high_watermark);
    }

    /// Every producer id that the log knows, ascending.
    pub fn active_producers(&self) -> Vec<ActiveProducer> {
        self.producers.active_producers().collect()
    }

    /// The aborted transactions with records in `[from, end)`, `end` being at or below the last stable offset, in the
    /// order of their markers; the markers may lie behind `end`. `None`: there are none, which takes no look at a disk.
    ///
    /// # Errors
    /// `SegmentsChanged`: ask again.
    pub fn aborted_transactions(
        &self,
        from: Offset,
        end: Offset,
    ) -> Option<impl Future<Output = Result<Vec<EndedTransaction>, LogError>> + use<D> + 'static> {
        let segments: Vec<_> = self.transaction_indexes.range(self.segment_of(from)..).copied().collect();
        if segments.is_empty() {
            return None;
        }
        let (disk, directory, names) = (self.disk.clone(), self.directory.clone(), self.names.ask());
        Some(async move {
            let _names = names.hold().await?;
            let mut found = Vec::new();
            for base_offset in segments {
                let path = segment_path(&directory, base_offset, TRANSACTION_INDEX);
                let (file, length) = disk.open(&path, OpenMode::Read).await.map_err(LogError::io_at(&path))?;
                let mut position = 0;
                while position < length {
                    let block = disk.read(&file, position, READ_BYTES).await.map_err(LogError::io_at(&path))?;
                    let entries = block.as_chunks::<ENTRY_BYTES>().0;
                    if entries.is_empty() {
                        break;
                    }
                    position += (entries.len() * ENTRY_BYTES) as u64;
                    for entry in entries {
                        let entry = EndedTransaction::decode(entry)
                            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error));
                        let entry = entry.map_err(LogError::io_at(&path))?;
                        if entry.overlaps(from, end) {
                            found.push(entry);
                        }
                        if entry.last_stable_offset >= end {
                            return Ok(found);
                        }
                    }
                }
            }
            Ok(found)
        })
    }

    /// The offset behind the segment that holds `offset`.
    pub fn segment_end_offset(&self, offset: Offset) -> Offset {
        self.next_segment(self.segment_of(offset)).unwrap_or(self.log_end_offset)
    }
}
