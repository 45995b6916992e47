//! `.timeindex`: from when a segment holds records of a time, sparsely.
//!
//! An entry is i64 timestamp, i32 offset less the segment's base offset, and says: up to this batch (its last offset)
//! no record of the segment is later than this. Both grow. One slot stays free for the entry that roll and close force
//! (Kafka 3.9 `TimeIndex`).

#![forbid(unsafe_code)]

use std::collections::VecDeque;

use crate::base::ids::Offset;
use crate::storage::offset_index::relative_offset;

pub const ENTRY_BYTES: usize = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeEntry {
    pub timestamp: i64,
    /// Last offset of the batch that brought the timestamp.
    pub offset: Offset,
}

/// A segment's time index.
#[derive(Debug)]
pub struct TimeIndex {
    base_offset: Offset,
    /// Without the first `forgotten` ones, which only the file has.
    entries: VecDeque<TimeEntry>,
    forgotten: usize,
    entries_max: usize,
    /// Entries that the file holds already, the forgotten ones among them.
    written: usize,
}

impl TimeIndex {
    /// An empty index that may grow to `bytes_max` (`segment.index.bytes`).
    pub fn new(base_offset: Offset, bytes_max: u32) -> TimeIndex {
        let entries_max = bytes_max as usize / ENTRY_BYTES;
        TimeIndex { base_offset, entries: VecDeque::new(), forgotten: 0, entries_max, written: 0 }
    }

    /// The index that a file holds, up to the first entry that does not grow or lies at or past `end_offset`.
    pub fn decode(base_offset: Offset, bytes_max: u32, file: &[u8], end_offset: Offset) -> TimeIndex {
        let mut index = TimeIndex::new(base_offset, bytes_max);
        for chunk in file.as_chunks::<ENTRY_BYTES>().0 {
            let [timestamp @ .., a, b, c, d] = *chunk;
            let relative = i64::from(u32::from_be_bytes([a, b, c, d]));
            let entry = TimeEntry { timestamp: i64::from_be_bytes(timestamp), offset: base_offset + relative };
            let grows = match index.entries.back() {
                Some(last) => entry.timestamp > last.timestamp && entry.offset > last.offset,
                None => (entry.timestamp, relative) != (0, 0),
            };
            if !grows || entry.offset >= end_offset {
                break;
            }
            index.entries.push_back(entry);
        }
        index.written = index.entries.len();
        index
    }

    pub fn is_full(&self) -> bool {
        self.len() + 1 >= self.entries_max
    }

    fn len(&self) -> usize {
        self.forgotten + self.entries.len()
    }

    pub fn last(&self) -> Option<TimeEntry> {
        self.entries.back().copied()
    }

    /// Whether a look-up of `timestamp` needs no entry that only the file has.
    pub fn covers(&self, timestamp: i64) -> bool {
        self.forgotten == 0 || self.entries.front().is_some_and(|first| first.timestamp <= timestamp)
    }

    /// Drops the oldest entries that the file holds; the newest `kept` of all stay, at least one.
    pub fn forget_written(&mut self, kept: usize) {
        let count = self.entries.len().saturating_sub(kept.max(1)).min(self.written - self.forgotten);
        self.entries.drain(..count);
        self.entries.shrink_to(kept);
        self.forgotten += count;
    }

    /// Drops the entries of batches that end at or past `end_offset`, of an index that has forgotten none.
    pub fn truncate(&mut self, end_offset: Offset) {
        assert_eq!(self.forgotten, 0, "only an index just read is cut");
        self.entries.truncate(self.entries.partition_point(|entry| entry.offset < end_offset));
        self.written = self.written.min(self.entries.len());
    }

    /// Adds the entry if its timestamp is later than the last one's.
    pub fn push_if_later(&mut self, entry: TimeEntry) {
        let last = self.last().map_or(-1, |last| last.timestamp);
        if entry.timestamp > last && relative_offset(self.base_offset, entry.offset).is_some() {
            self.entries.push_back(entry);
        }
    }

    /// Offset from which on records may have `timestamp`, which is covered, or later.
    pub fn lookup(&self, timestamp: i64) -> Offset {
        let above = self.entries.partition_point(|entry| entry.timestamp <= timestamp);
        above.checked_sub(1).map_or(self.base_offset, |at| self.entries[at].offset)
    }

    pub fn bytes(&self) -> u64 {
        (self.len() * ENTRY_BYTES) as u64
    }

    /// The entries that the file lacks, encoded, and their position in it.
    pub fn unwritten(&self) -> (u64, Vec<u8>) {
        let mut out = Vec::with_capacity((self.len() - self.written) * ENTRY_BYTES);
        for entry in self.entries.range(self.written - self.forgotten..) {
            let relative = relative_offset(self.base_offset, entry.offset).unwrap_or(0);
            out.extend_from_slice(&entry.timestamp.to_be_bytes());
            out.extend_from_slice(&relative.to_be_bytes());
        }
        ((self.written * ENTRY_BYTES) as u64, out)
    }

    /// The file holds the first `bytes` bytes of the index now.
    pub fn mark_written(&mut self, bytes: u64) {
        self.written = (bytes as usize / ENTRY_BYTES).clamp(self.forgotten, self.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(timestamp: i64, offset: Offset) -> TimeEntry {
        TimeEntry { timestamp, offset }
    }

    #[test]
    fn only_later_timestamps_enter_and_a_lookup_starts_at_or_before_them() {
        let mut index = TimeIndex::new(100, 1 << 10);
        for (timestamp, offset) in [(-1, 100), (50, 110), (50, 120), (40, 130), (70, 140)] {
            index.push_if_later(entry(timestamp, offset));
        }
        assert_eq!(index.entries, [entry(50, 110), entry(70, 140)]);
        for (timestamp, offset) in [(0, 100), (49, 100), (50, 110), (69, 110), (70, 140), (99, 140)] {
            assert_eq!(index.lookup(timestamp), offset, "{timestamp}");
        }
    }

    #[test]
    fn a_file_reads_back_without_zeros_and_without_what_lies_past_the_end() {
        let mut index = TimeIndex::new(100, 1 << 10);
        [entry(50, 110), entry(70, 140)].into_iter().for_each(|entry| index.push_if_later(entry));
        let mut file = index.unwritten().1;
        file.extend_from_slice(&[0; 24]);
        assert_eq!(TimeIndex::decode(100, 1 << 10, &file, 141).entries, index.entries);
        assert_eq!(TimeIndex::decode(100, 1 << 10, &file, 140).entries.len(), 1);
        assert_eq!(TimeIndex::decode(100, 1 << 10, &[0; 24], 141).entries, []);
        index.truncate(140);
        assert_eq!(index.entries, [entry(50, 110)]);
    }
}
