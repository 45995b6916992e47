//! `.timeindex`: from when a segment holds records of a time, sparsely.
//!
//! An entry is i64 timestamp, i32 offset less the segment's base offset, and says: up to this batch (its last offset)
//! no record of the segment is later than this. Both grow. One slot stays free for the entry that roll and close force
//! (Kafka 3.9 `TimeIndex`).

#![forbid(unsafe_code)]

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
    entries: Vec<TimeEntry>,
    entries_max: usize,
    written: usize,
}

impl TimeIndex {
    /// An empty index that may grow to `bytes_max` (`segment.index.bytes`).
    pub fn new(base_offset: Offset, bytes_max: u32) -> TimeIndex {
        TimeIndex { base_offset, entries: Vec::new(), entries_max: bytes_max as usize / ENTRY_BYTES, written: 0 }
    }

    /// The index that a file holds, up to the first entry that does not grow or lies at or past `end_offset`.
    pub fn decode(base_offset: Offset, bytes_max: u32, file: &[u8], end_offset: Offset) -> TimeIndex {
        let mut index = TimeIndex::new(base_offset, bytes_max);
        for chunk in file.as_chunks::<ENTRY_BYTES>().0 {
            let [timestamp @ .., a, b, c, d] = *chunk;
            let relative = i64::from(u32::from_be_bytes([a, b, c, d]));
            let entry = TimeEntry { timestamp: i64::from_be_bytes(timestamp), offset: base_offset + relative };
            let grows = match index.entries.last() {
                Some(last) => entry.timestamp > last.timestamp && entry.offset > last.offset,
                None => (entry.timestamp, relative) != (0, 0),
            };
            if !grows || entry.offset >= end_offset {
                break;
            }
            index.entries.push(entry);
        }
        index.written = index.entries.len();
        index
    }

    pub fn is_full(&self) -> bool {
        self.entries.len() + 1 >= self.entries_max
    }

    pub fn last(&self) -> Option<TimeEntry> {
        self.entries.last().copied()
    }

    /// Drops the entries of batches that end at or past `end_offset`.
    pub fn truncate(&mut self, end_offset: Offset) {
        self.entries.truncate(self.entries.partition_point(|entry| entry.offset < end_offset));
        self.written = self.written.min(self.entries.len());
    }

    /// Adds the entry if its timestamp is later than the last one's.
    pub fn push_if_later(&mut self, entry: TimeEntry) {
        let last = self.entries.last().map_or(-1, |last| last.timestamp);
        if entry.timestamp > last && relative_offset(self.base_offset, entry.offset).is_some() {
            self.entries.push(entry);
        }
    }

    /// Offset from which on records may have `timestamp` or later.
    pub fn lookup(&self, timestamp: i64) -> Offset {
        let above = self.entries.partition_point(|entry| entry.timestamp <= timestamp);
        above.checked_sub(1).map_or(self.base_offset, |at| self.entries[at].offset)
    }

    pub fn bytes(&self) -> u64 {
        (self.entries.len() * ENTRY_BYTES) as u64
    }

    /// The entries that the file lacks, encoded, and their position in it.
    pub fn unwritten(&self) -> (u64, Vec<u8>) {
        let mut out = Vec::with_capacity((self.entries.len() - self.written) * ENTRY_BYTES);
        for entry in &self.entries[self.written..] {
            let relative = relative_offset(self.base_offset, entry.offset).unwrap_or(0);
            out.extend_from_slice(&entry.timestamp.to_be_bytes());
            out.extend_from_slice(&relative.to_be_bytes());
        }
        ((self.written * ENTRY_BYTES) as u64, out)
    }

    /// The file holds the first `bytes` bytes of the index now.
    pub fn mark_written(&mut self, bytes: u64) {
        self.written = (bytes as usize / ENTRY_BYTES).min(self.entries.len());
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
