//! One `.log` file and its two sparse indexes: the active segment, which grows, and the closed ones.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use crate::base::ids::{LeaderEpoch, Offset};
use crate::base::time::WallMs;
use crate::platform::{DiskFile, Fence};
use crate::storage::entry::Entry;
use crate::storage::log::LogConfig;
use crate::storage::offset_index::OffsetIndex;
use crate::storage::open_files::{FileSlot, OpenFiles};
use crate::storage::time_index::{TimeEntry, TimeIndex};

pub const LOG: &str = "log";
pub const OFFSET_INDEX: &str = "index";
pub const TIME_INDEX: &str = "timeindex";
pub const TRANSACTION_INDEX: &str = "txnindex";
pub const SNAPSHOT: &str = "snapshot";
/// The longest index file that is read whole.
pub const INDEX_FILE_BYTES_MAX: usize = 256 << 20;
/// Batches of the active segment whose positions are kept in memory, so that readers at the tail need no disk.
const RECENT_BATCHES_MAX: usize = 512;
/// Entries of each index of the active segment that stay in memory once the file has them: some 8 MiB of batches at the
/// default distance, where most readers are.
const INDEX_ENTRIES_KEPT: usize = 2048;
/// Appended bytes that are taken to be in the page cache still.
const HOT_BYTES_MAX: u64 = 16 << 20;

/// `<base offset as 20 digits>.<extension>` in the partition's directory.
pub fn segment_path(directory: &Path, base_offset: Offset, extension: &str) -> PathBuf {
    directory.join(format!("{base_offset:020}.{extension}"))
}

/// The largest offset that a file's name or a checkpoint may start a log from: sums of offsets must not overflow.
pub const BASE_OFFSET_MAX: Offset = Offset::MAX / 2;

/// Base offset and extension of a segment's file, if the name is of that form.
pub fn parse_segment_name(name: &str) -> Option<(Offset, &str)> {
    let (digits, extension) = name.split_once('.')?;
    let is_number = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let base_offset = is_number.then(|| digits.parse().ok()).flatten()?;
    (base_offset <= BASE_OFFSET_MAX).then_some((base_offset, extension))
}

/// A batch in the active segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPlace {
    pub base_offset: Offset,
    pub last_offset: Offset,
    pub position: u64,
    pub bytes: u64,
}

/// What the active segment must know of a batch that was written.
#[derive(Clone, Copy, Debug)]
pub struct WrittenBatch {
    pub place: BatchPlace,
    pub max_timestamp: i64,
    pub leader_epoch: LeaderEpoch,
}

impl WrittenBatch {
    pub fn of_entry(entry: &Entry, position: u64) -> WrittenBatch {
        let Entry { base_offset, last_offset, bytes, max_timestamp, leader_epoch, .. } = *entry;
        WrittenBatch { place: BatchPlace { base_offset, last_offset, position, bytes }, max_timestamp, leader_epoch }
    }
}

/// The segment that is appended to.
#[derive(Debug)]
pub struct ActiveSegment<F> {
    pub base_offset: Offset,
    pub files: FileSlot<ActiveFiles<F>>,
    pub fence: Arc<Fence>,
    /// Bytes of whole batches: the position of the log end.
    pub size: u64,
    pub offset_index: OffsetIndex,
    pub time_index: TimeIndex,
    /// Bytes since the last index entry's batch began.
    bytes_since_index_entry: u64,
    /// The latest timestamp of the segment and the last offset of its batch, if any batch has one.
    pub latest: Option<TimeEntry>,
    /// Max timestamp of the first batch, from which `segment.ms` counts.
    pub first_timestamp: Option<i64>,
    pub created: WallMs,
    recent: VecDeque<BatchPlace>,
    /// What lies before was not appended by this process.
    appended_from: u64,
    /// What lies before was not appended of late...
    hot_from: u64,
    /// ... and what lies before this will not have been at the next [`ActiveSegment::cool_down`].
    hot_next: u64,
    /// End of the blocks reserved ahead.
    pub preallocated_end: u64,
    pub transactions: TransactionsFile<F>,
}

/// The transaction index of the segment that is appended to.
#[derive(Debug)]
pub struct TransactionsFile<F> {
    /// Bytes of the entries whose markers are in the log.
    pub bytes: u64,
    /// The file may hold entries of markers that are not there.
    pub is_ahead: bool,
    /// While it holds something that is not durable.
    pub unsynced: Option<Arc<F>>,
}

/// An active segment's files, open.
#[derive(Debug)]
pub struct ActiveFiles<F> {
    /// For appends and reads.
    pub log: Arc<F>,
    /// For reads of what the index in memory has forgotten.
    pub offset_index: Option<Arc<F>>,
}

impl<F> Clone for ActiveFiles<F> {
    fn clone(&self) -> ActiveFiles<F> {
        ActiveFiles { log: self.log.clone(), offset_index: self.offset_index.clone() }
    }
}

impl<F: DiskFile> ActiveSegment<F> {
    /// A segment without batches.
    pub fn new(
        base_offset: Offset,
        log: Arc<F>,
        open_files: &Rc<OpenFiles>,
        config: &LogConfig,
        now: WallMs,
    ) -> ActiveSegment<F> {
        ActiveSegment {
            base_offset,
            files: open_files.filled(ActiveFiles { log, offset_index: None }),
            fence: Fence::new(),
            size: 0,
            offset_index: OffsetIndex::new(base_offset, config.segment_index_bytes),
            time_index: TimeIndex::new(base_offset, config.segment_index_bytes),
            bytes_since_index_entry: 0,
            latest: None,
            first_timestamp: None,
            created: now,
            recent: VecDeque::new(),
            appended_from: 0,
            hot_from: 0,
            hot_next: 0,
            preallocated_end: 0,
            transactions: TransactionsFile { bytes: 0, is_ahead: false, unsynced: None },
        }
    }

    /// Takes up a batch that is in the file now, at the end: size, indexes, timestamps (Kafka 3.9 `LogSegment.append`).
    pub fn note_batch(&mut self, batch: &WrittenBatch, index_interval_bytes: u32) {
        let place = batch.place;
        assert_eq!(place.position, self.size, "batches follow one another");
        if self.size == 0 {
            self.first_timestamp = Some(batch.max_timestamp);
        }
        if batch.max_timestamp > self.latest.map_or(-1, |latest| latest.timestamp) {
            self.latest = Some(TimeEntry { timestamp: batch.max_timestamp, offset: place.last_offset });
        }
        if self.bytes_since_index_entry > u64::from(index_interval_bytes) {
            self.offset_index.push(place.last_offset, place.position as u32);
            if let Some(latest) = self.latest {
                self.time_index.push_if_later(latest);
            }
            self.bytes_since_index_entry = 0;
        }
        self.bytes_since_index_entry += place.bytes;
        self.size += place.bytes;
        if self.recent.len() == RECENT_BATCHES_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(place);
    }

    /// Takes up a batch at or behind the last index entry of a segment whose index files are whole.
    pub fn note_indexed_batch(&mut self, batch: &WrittenBatch) {
        self.size = batch.place.position;
        self.note_batch(batch, u32::MAX);
    }

    /// What is in the file now was there before this process: nothing of it is known to be cached.
    pub fn forget_appended(&mut self) {
        self.appended_from = self.size;
        (self.hot_from, self.hot_next) = (self.size, self.size);
    }

    /// The place of the first batch that ends at or past `offset`, if it is among the recent ones.
    pub fn recent_place(&self, offset: Offset) -> Option<BatchPlace> {
        let first = self.recent.front()?;
        if offset < first.base_offset {
            return None;
        }
        self.recent.get(self.recent.partition_point(|place| place.last_offset < offset)).copied()
    }

    /// The segment's last batch.
    pub fn last_place(&self) -> Option<BatchPlace> {
        self.recent.back().copied()
    }

    /// Whether the bytes from `position` were appended by this process, and recently: since the last
    /// [`ActiveSegment::cool_down`] but one, and not too many bytes ago.
    pub fn is_hot(&self, position: u64) -> bool {
        position >= self.hot_from.max(self.size.saturating_sub(HOT_BYTES_MAX))
    }

    /// To be called now and then: the page cache does not keep for long what nobody touches.
    pub fn cool_down(&mut self, is_idle: bool) {
        self.hot_from = if is_idle { self.size } else { self.hot_next };
        self.hot_next = self.size;
    }

    /// Bytes that this process appended to the segment.
    pub fn appended_bytes(&self) -> u64 {
        self.size - self.appended_from
    }

    /// Roll and close end the time index with the latest timestamp.
    pub fn force_time_entry(&mut self) {
        if let Some(latest) = self.latest {
            self.time_index.push_if_later(latest);
        }
    }

    /// The log's file, if it is open.
    pub fn file(&self) -> Option<Arc<F>> {
        Some(self.files.get()?.log)
    }

    /// Keeps in memory what is needed of a segment that may grow large, or may not be touched for long.
    pub fn forget_written(&mut self, is_idle: bool) {
        let kept = if is_idle { 1 } else { INDEX_ENTRIES_KEPT };
        self.offset_index.forget_written(kept);
        self.time_index.forget_written(kept);
        if is_idle {
            self.recent = self.recent.back().copied().into_iter().collect();
        }
    }

    /// One more entry may not fit into the index files.
    pub fn is_index_full(&self) -> bool {
        self.offset_index.is_full() || self.time_index.is_full()
    }
}

/// A segment that is not appended to any more.
#[derive(Debug)]
pub struct ClosedSegment<F> {
    pub base_offset: Offset,
    pub size: u64,
    pub fence: Arc<Fence>,
    /// Once it was read.
    pub files: Option<FileSlot<ClosedFiles<F>>>,
    /// Files that the recovery point has not passed: they stay open until they are synced.
    pub unsynced: Vec<Arc<F>>,
    /// Its log's file, while blocks are reserved behind its end: the next flush gives them back.
    pub reserved: Option<Arc<F>>,
    /// Its latest timestamp, once somebody asked; -1 if none of its batches has one.
    pub latest_timestamp: Rc<Cell<Option<i64>>>,
    /// When its file was changed last, once somebody asked.
    pub modified: Option<WallMs>,
    /// Max timestamp of the first batch, once somebody asked; -1 if there is none.
    pub first_timestamp: Option<i64>,
    /// No batch ends at or past this offset, as far as it is known: who looks for one need not open the segment.
    pub empty_from: Cell<Offset>,
}

/// A closed segment's files, open for reading.
#[derive(Debug)]
pub struct ClosedFiles<F> {
    pub log: Arc<F>,
    pub offset_index: Arc<F>,
    pub offset_index_bytes: u64,
}

impl<F> Clone for ClosedFiles<F> {
    fn clone(&self) -> ClosedFiles<F> {
        let ClosedFiles { log, offset_index, offset_index_bytes } = self;
        ClosedFiles { log: log.clone(), offset_index: offset_index.clone(), offset_index_bytes: *offset_index_bytes }
    }
}

impl<F> ClosedSegment<F> {
    pub fn new(base_offset: Offset, size: u64) -> ClosedSegment<F> {
        ClosedSegment {
            base_offset,
            size,
            fence: Fence::new(),
            files: None,
            unsynced: Vec::new(),
            reserved: None,
            latest_timestamp: Rc::new(Cell::new(None)),
            modified: None,
            first_timestamp: None,
            empty_from: Cell::new(if size == 0 { Offset::MIN } else { Offset::MAX }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::{Disk, OpenMode};
    use crate::sim::disk::FakeDisk;
    use crate::sim::disk::tests::run;

    #[test]
    fn segment_names_read_back_and_other_names_do_not() {
        let path = segment_path(Path::new("/d"), 1234, LOG);
        assert_eq!(path, Path::new("/d/00000000000000001234.log"));
        assert_eq!(parse_segment_name("00000000000000001234.log"), Some((1234, "log")));
        assert_eq!(parse_segment_name("00000000000000001234.log.deleted"), Some((1234, "log.deleted")));
        for name in ["leader-epoch-checkpoint", "1234.log", "0000000000000000123x.log", "09223372036854775807.log"] {
            assert_eq!(parse_segment_name(name), None, "{name}");
        }
    }

    #[test]
    fn an_entry_is_added_once_more_bytes_than_the_interval_were_appended_since_the_last() {
        let disk = FakeDisk::new();
        disk.put(Path::new("/d/log"), &[]);
        let (file, _) = run(disk.open(Path::new("/d/log"), OpenMode::Read)).unwrap();
        let mut segment = ActiveSegment::new(0, file, &OpenFiles::new(1), &LogConfig::default(), 0);
        let mut entries = Vec::new();
        for at in 0..6 {
            let place = BatchPlace { base_offset: at, last_offset: at, position: at as u64 * 2048, bytes: 2048 };
            segment.note_batch(&WrittenBatch { place, max_timestamp: 10 - at, leader_epoch: 0 }, 4096);
            entries.push(segment.offset_index.last().map(|entry| entry.position));
        }
        // 4096 bytes are not more than the interval; the entry's own batch counts for the next one.
        assert_eq!(entries, [None, None, None, Some(6144), Some(6144), Some(6144)]);
        assert_eq!(segment.time_index.last(), Some(TimeEntry { timestamp: 10, offset: 0 }));
        assert_eq!(segment.recent_place(3).map(|place| place.position), Some(6144));
    }

    #[test]
    fn what_was_appended_is_hot_until_two_looks_later_or_until_the_log_is_idle() {
        let disk = FakeDisk::new();
        disk.put(Path::new("/d/log"), &[]);
        let (log, _) = run(disk.open(Path::new("/d/log"), OpenMode::ReadWrite)).unwrap();
        let config = LogConfig::default();
        let mut segment = ActiveSegment::new(0, log, &OpenFiles::new(10), &config, 0);
        let append = |segment: &mut ActiveSegment<_>| {
            let position = segment.size;
            let place = BatchPlace { base_offset: 0, last_offset: 0, position, bytes: 1000 };
            segment.note_batch(&WrittenBatch { place, max_timestamp: 0, leader_epoch: 0 }, 4096);
        };
        append(&mut segment);
        segment.cool_down(false);
        append(&mut segment);
        assert!(segment.is_hot(0));
        segment.cool_down(false);
        assert!(!segment.is_hot(999) && segment.is_hot(1000));
        segment.cool_down(true);
        assert!(!segment.is_hot(1999));
        append(&mut segment);
        assert!(segment.is_hot(2000));
        segment.forget_appended();
        assert!(!segment.is_hot(2999) && segment.is_hot(3000));
    }
}
