//! Compaction: of each key the latest record stays (Kafka 3.9 `LogCleaner`, `Cleaner`). What to clean is chosen here,
//! what stays of it is decided in [`pass`], and [`crate::storage::log`] does it to the files.
//!
//! ```text
//!  0          clean          first dirty        dirty         uncleanable      active segment
//!  |----------------------------|---------------------------------|-------------------|------->
//!   one record of each key        indexed into the offset map       left alone: unstable, too new, or not flushed
//! ```
//! Everything before the uncleanable offset is rewritten, segment by segment, several small ones into one.

#![forbid(unsafe_code)]

pub mod offset_map;
pub mod pass;
pub mod transactions;

use std::future::Future;
use std::ops::Range;

use crate::base::ids::Offset;

/// The bytes that a cleaning reads at once at least, whatever `log.cleaner.io.buffer.size` says.
const CHUNK_BYTES_MIN: usize = 4096;
const CHUNK_BYTES_MAX: usize = 64 << 20;

/// The cleaner's share of the process, for one cleaning at a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CleanerBounds {
    /// Bytes of the offset map.
    pub map_bytes_max: u64,
    /// The part of it that keys may fill.
    pub load_factor: f64,
    /// Bytes that are read at once.
    pub chunk_bytes: usize,
}

impl CleanerBounds {
    /// Of `log.cleaner.dedupe.buffer.size`, `log.cleaner.io.buffer.load.factor` and `log.cleaner.io.buffer.size`, for
    /// one of so many cleanings.
    pub fn share(dedupe_bytes: u64, load_factor: f64, io_bytes: u64, cleanings: u64) -> CleanerBounds {
        let cleanings = cleanings.max(1);
        // One half reads, the other one writes.
        let chunk_bytes = usize::try_from(io_bytes / cleanings / 2).unwrap_or(CHUNK_BYTES_MAX);
        CleanerBounds {
            map_bytes_max: dedupe_bytes / cleanings,
            load_factor,
            chunk_bytes: chunk_bytes.clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX),
        }
    }
}

/// What a cleaning may use beside the disk.
pub trait Resources: Clone + 'static {
    /// Runs CPU-heavy work elsewhere; `None`: too much waits there already.
    fn work<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = Option<T>> + 'static;

    /// Notes so many bytes read or written, and waits until more may be; `false`: the cleaning is to end.
    fn moved(&self, bytes: u64) -> impl Future<Output = bool> + 'static;
}

/// How much there is to clean in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dirtiness {
    pub first_dirty: Offset,
    /// The base offset of the first segment that is left alone.
    pub uncleanable: Offset,
    pub clean_bytes: u64,
    pub dirty_bytes: u64,
    /// `max.compaction.lag.ms` has passed over something dirty.
    pub is_overdue: bool,
}

impl Dirtiness {
    pub fn ratio(&self) -> f64 {
        match self.clean_bytes + self.dirty_bytes {
            0 => 0.0,
            total => self.dirty_bytes as f64 / total as f64,
        }
    }

    /// Kafka 3.9 `LogCleanerManager.grabFilthiestCompactedLog`.
    pub fn is_due(&self, min_cleanable_dirty_ratio: f64) -> bool {
        self.dirty_bytes > 0 && (self.is_overdue || self.ratio() > min_cleanable_dirty_ratio)
    }
}

/// A segment that is to be cleaned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    pub base_offset: Offset,
    /// Where the next one begins.
    pub end_offset: Offset,
    pub size: u64,
    pub offset_index_bytes: u64,
    pub time_index_bytes: u64,
}

/// What one segment may hold.
#[derive(Clone, Copy, Debug)]
pub struct SegmentLimits {
    pub segment_bytes: u64,
    pub index_bytes: u64,
}

/// Segments that are cleaned together at most: while they are, their old and new files are there.
const GROUP_SEGMENTS_MAX: usize = 1024;

/// Which neighbours become one segment (Kafka 3.9 `Cleaner.groupSegmentsBySize`).
pub fn groups(sources: &[Source], limits: SegmentLimits) -> Vec<Range<usize>> {
    let mut groups = Vec::new();
    let mut start = 0;
    while start < sources.len() {
        let first = sources[start];
        let (mut size, mut offset_index, mut time_index) =
            (first.size, first.offset_index_bytes, first.time_index_bytes);
        let mut end = start + 1;
        while let Some(next) = sources.get(end).filter(|_| end - start < GROUP_SEGMENTS_MAX) {
            size += next.size;
            offset_index += next.offset_index_bytes;
            time_index += next.time_index_bytes;
            // Segments without batches need no room for offsets.
            let reaches = next.size == 0 || next.end_offset - 1 - first.base_offset <= i64::from(i32::MAX);
            let fits = size <= limits.segment_bytes && offset_index.max(time_index) <= limits.index_bytes && reaches;
            if !fits {
                break;
            }
            end += 1;
        }
        groups.push(start..end);
        start = end;
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: SegmentLimits = SegmentLimits { segment_bytes: 1000, index_bytes: 100 };

    fn source(base_offset: Offset, end_offset: Offset, size: u64) -> Source {
        Source { base_offset, end_offset, size, offset_index_bytes: 8, time_index_bytes: 12 }
    }

    fn one(group: Range<usize>) -> Vec<Range<usize>> {
        std::iter::once(group).collect()
    }

    #[test]
    fn neighbours_become_one_segment_up_to_its_bytes_its_index_bytes_and_its_offsets() {
        let sizes = [600, 400, 1, 999, 1, 1];
        let all: Vec<_> = (0..).zip(sizes).map(|(at, size)| source(at * 10, at * 10 + 10, size)).collect();
        assert_eq!(groups(&all, LIMITS), [0..2, 2..4, 4..6]);
        let small: Vec<_> = (0..20).map(|at| source(at, at + 1, 1)).collect();
        assert_eq!(groups(&small, LIMITS), [0..8, 8..16, 16..20], "time indexes of 12 bytes each");
        let far = i64::from(i32::MAX);
        assert_eq!(groups(&[source(0, 10, 1), source(10, far + 1, 1)], LIMITS), one(0..2));
        assert_eq!(groups(&[source(0, 10, 1), source(10, far + 2, 1)], LIMITS), [0..1, 1..2]);
        assert_eq!(groups(&[source(0, 10, 1), source(10, far + 2, 0)], LIMITS), one(0..2));
        assert_eq!(groups(&[source(0, 10, 5000)], LIMITS), one(0..1), "larger than the topic says now");
        assert!(groups(&[], LIMITS).is_empty());
    }

    #[test]
    fn a_log_is_due_by_its_share_of_dirty_bytes_or_when_something_waited_too_long() {
        let log = |clean_bytes, dirty_bytes, is_overdue| Dirtiness {
            first_dirty: 0,
            uncleanable: 0,
            clean_bytes,
            dirty_bytes,
            is_overdue,
        };
        assert!(!log(50, 50, false).is_due(0.5) && log(49, 51, false).is_due(0.5));
        assert!(log(99, 1, true).is_due(0.5) && !log(100, 0, true).is_due(0.0) && !log(0, 0, true).is_due(0.0));
    }

    #[test]
    fn the_bounds_are_shared_among_the_cleanings() {
        let bounds = CleanerBounds::share(1 << 20, 0.9, 512 << 10, 4);
        assert_eq!((bounds.map_bytes_max, bounds.chunk_bytes), (1 << 18, 64 << 10));
        assert_eq!(CleanerBounds::share(0, 0.9, 0, 0).chunk_bytes, CHUNK_BYTES_MIN);
    }
}

/// All at once, on the caller's thread.
#[cfg(test)]
#[derive(Clone)]
pub(crate) struct Inline;

#[cfg(test)]
impl crate::platform::Tasks for Inline {
    fn spawn(&self, _task: impl Future<Output = ()> + 'static) {
        panic!("nothing here goes on by itself");
    }

    fn work<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = Option<T>> + 'static {
        std::future::ready(Some(job()))
    }
}

#[cfg(test)]
impl Resources for Inline {
    fn work<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = Option<T>> + 'static {
        std::future::ready(Some(job()))
    }

    fn moved(&self, _bytes: u64) -> impl Future<Output = bool> + 'static {
        std::future::ready(true)
    }
}
