//! `.index`: where the batches of a segment are, sparsely.
//!
//! An entry is i32 offset less the segment's base offset, i32 position, and says: the batch whose last offset this is
//! starts here. Entries grow in both. An offset is found from the greatest entry at or below it, by walking batches from
//! there; without such an entry, from the segment's start (Kafka 3.9 `OffsetIndex`).
//!
//! The active segment's entries are held here; the file may lag behind and is then rebuilt after an unclean stop. A closed
//! segment's file is searched where it lies, the page cache being its cache.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;

use crate::base::ids::Offset;

pub const ENTRY_BYTES: usize = 8;
/// Bytes that a search reads at once; a multiple of the entry's.
pub const BLOCK_BYTES: usize = 4096;
const _: () = assert!(BLOCK_BYTES.is_multiple_of(ENTRY_BYTES));

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetEntry {
    /// Last offset of the batch, less the segment's base offset.
    pub relative_offset: u32,
    /// Where the batch starts in the segment's file.
    pub position: u32,
}

impl OffsetEntry {
    fn decode(bytes: &[u8; ENTRY_BYTES]) -> OffsetEntry {
        let [a, b, c, d, e, f, g, h] = *bytes;
        OffsetEntry { relative_offset: u32::from_be_bytes([a, b, c, d]), position: u32::from_be_bytes([e, f, g, h]) }
    }

    fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.relative_offset.to_be_bytes());
        out.extend_from_slice(&self.position.to_be_bytes());
    }

    /// Whether the batch at the entry's position, which ends with `last_offset`, is the one that it speaks of.
    pub fn points_at(&self, base_offset: Offset, last_offset: Offset) -> bool {
        last_offset.checked_sub(base_offset) == Some(i64::from(self.relative_offset))
    }
}

/// `offset` relative to `base_offset`, if an index can hold it.
pub fn relative_offset(base_offset: Offset, offset: Offset) -> Option<u32> {
    u32::try_from(offset.checked_sub(base_offset)?).ok().filter(|relative| *relative <= i32::MAX as u32)
}

/// The index of an active segment.
#[derive(Debug)]
pub struct OffsetIndex {
    base_offset: Offset,
    /// Without the first `forgotten` ones, which only the file has.
    entries: VecDeque<OffsetEntry>,
    forgotten: usize,
    entries_max: usize,
    /// Entries that the file holds already, the forgotten ones among them.
    written: usize,
}

impl OffsetIndex {
    /// An empty index that may grow to `bytes_max` (`segment.index.bytes`).
    pub fn new(base_offset: Offset, bytes_max: u32) -> OffsetIndex {
        let entries_max = bytes_max as usize / ENTRY_BYTES;
        OffsetIndex { base_offset, entries: VecDeque::new(), forgotten: 0, entries_max, written: 0 }
    }

    /// The index that a file holds: its entries up to the first that is not above the one before, or that does not point
    /// into `segment_bytes`. An unclean stop leaves zeros behind the last one.
    pub fn decode(base_offset: Offset, bytes_max: u32, file: &[u8], segment_bytes: u32) -> OffsetIndex {
        let mut index = OffsetIndex::new(base_offset, bytes_max);
        for chunk in file.as_chunks::<ENTRY_BYTES>().0 {
            let entry = OffsetEntry::decode(chunk);
            let grows = match index.entries.back() {
                Some(last) => entry.relative_offset > last.relative_offset && entry.position > last.position,
                None => entry.position > 0,
            };
            if !grows || entry.position >= segment_bytes {
                break;
            }
            index.entries.push_back(entry);
        }
        index.written = index.entries.len();
        index
    }

    pub fn is_full(&self) -> bool {
        self.len() >= self.entries_max
    }

    fn len(&self) -> usize {
        self.forgotten + self.entries.len()
    }

    pub fn last(&self) -> Option<OffsetEntry> {
        self.entries.back().copied()
    }

    /// Whether a look-up of `offset` needs no entry that only the file has.
    pub fn covers(&self, offset: Offset) -> bool {
        let target = offset.saturating_sub(self.base_offset);
        self.forgotten == 0 || self.entries.front().is_some_and(|first| i64::from(first.relative_offset) <= target)
    }

    pub fn has_forgotten(&self) -> bool {
        self.forgotten > 0
    }

    /// Drops the oldest entries that the file holds; the newest `kept` of all stay, at least one.
    pub fn forget_written(&mut self, kept: usize) {
        let count = self.entries.len().saturating_sub(kept.max(1)).min(self.written - self.forgotten);
        self.entries.drain(..count);
        self.entries.shrink_to(kept);
        self.forgotten += count;
    }

    /// Bytes of the index that the file holds.
    pub fn written_bytes(&self) -> u64 {
        (self.written * ENTRY_BYTES) as u64
    }

    /// Drops the entries whose batch ends at or past `end_offset`, of an index that has forgotten none.
    pub fn truncate(&mut self, end_offset: Offset) {
        assert_eq!(self.forgotten, 0, "only an index just read is cut");
        let target = end_offset.saturating_sub(self.base_offset);
        self.entries.truncate(self.entries.partition_point(|entry| i64::from(entry.relative_offset) < target));
        self.written = self.written.min(self.entries.len());
    }

    /// Adds an entry; both its values grow.
    pub fn push(&mut self, last_offset: Offset, position: u32) {
        let relative = relative_offset(self.base_offset, last_offset);
        assert!(relative.is_some(), "the segment was rolled before offset {last_offset}");
        let entry = OffsetEntry { relative_offset: relative.unwrap_or(0), position };
        if let Some(last) = self.entries.back() {
            assert!(entry.relative_offset > last.relative_offset && position > last.position, "index entries grow");
        }
        self.entries.push_back(entry);
    }

    /// The entry to walk from when looking for `offset`, which is covered; `None`: from the segment's start.
    pub fn lookup(&self, offset: Offset) -> Option<OffsetEntry> {
        let target = offset.saturating_sub(self.base_offset);
        let above = self.entries.partition_point(|entry| i64::from(entry.relative_offset) <= target);
        above.checked_sub(1).map(|at| self.entries[at])
    }

    /// Bytes of the index.
    pub fn bytes(&self) -> u64 {
        (self.len() * ENTRY_BYTES) as u64
    }

    pub fn unwritten_entries(&self) -> usize {
        self.len() - self.written
    }

    /// Position of the batch of the last entry that the file holds, or of the next one if that is forgotten; 0 if it holds
    /// none.
    pub fn written_position(&self) -> u64 {
        let last = match self.written {
            0 => None,
            written => self.entries.get((written - self.forgotten).saturating_sub(1)),
        };
        last.map_or(0, |entry| u64::from(entry.position))
    }

    /// The entries that the file lacks, encoded, and their position in it.
    pub fn unwritten(&self) -> (u64, Vec<u8>) {
        let mut out = Vec::with_capacity(self.unwritten_entries() * ENTRY_BYTES);
        self.entries.range(self.written - self.forgotten..).for_each(|entry| entry.encode(&mut out));
        ((self.written * ENTRY_BYTES) as u64, out)
    }

    /// The file holds the first `bytes` bytes of the index now.
    pub fn mark_written(&mut self, bytes: u64) {
        self.written = (bytes as usize / ENTRY_BYTES).clamp(self.forgotten, self.len());
    }
}

/// What a search of a closed segment's index came to.
#[derive(Debug)]
pub enum Search {
    /// Walk from this entry's batch; `None`: from the segment's start.
    Entry(Option<OffsetEntry>),
    /// These bytes of the index are not in the page cache.
    NeedPages {
        position: u64,
        length: u64,
    },
    Io(io::Error),
}

/// Finds the position to walk from for `offset` in an index file of `length` bytes, without waiting: `read` is
/// [`crate::platform::Disk::read_resident`] of it.
pub fn search_resident(
    length: u64,
    base_offset: Offset,
    offset: Offset,
    read: impl Fn(u64, &mut [u8]) -> io::Result<Option<usize>>,
) -> Search {
    let target = offset.saturating_sub(base_offset);
    let block_count = length.div_ceil(BLOCK_BYTES as u64);
    let (mut low, mut high) = (0, block_count);
    // The block is the last one whose first entry is not above the target.
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        let position = middle * BLOCK_BYTES as u64;
        let mut entry = [0; ENTRY_BYTES];
        match read(position, &mut entry) {
            Ok(Some(ENTRY_BYTES)) if i64::from(OffsetEntry::decode(&entry).relative_offset) <= target => low = middle,
            Ok(Some(ENTRY_BYTES)) => high = middle,
            Ok(_) => return Search::NeedPages { position, length: (length - position).min(BLOCK_BYTES as u64) },
            Err(error) => return Search::Io(error),
        }
    }
    let position = low * BLOCK_BYTES as u64;
    let block_bytes = (length - position).min(BLOCK_BYTES as u64) as usize;
    let mut block = [0; BLOCK_BYTES];
    match read(position, &mut block[..block_bytes]) {
        Ok(Some(count)) if count == block_bytes => Search::Entry(lookup_in(&block[..count], target)),
        Ok(_) => Search::NeedPages { position, length: block_bytes as u64 },
        Err(error) => Search::Io(error),
    }
}

fn lookup_in(block: &[u8], target: i64) -> Option<OffsetEntry> {
    let entries = block.as_chunks::<ENTRY_BYTES>().0;
    let above = entries.partition_point(|entry| i64::from(OffsetEntry::decode(entry).relative_offset) <= target);
    above.checked_sub(1).map(|at| OffsetEntry::decode(&entries[at]))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::platform::{Disk, OpenMode};
    use crate::sim::disk::FakeDisk;
    use crate::sim::disk::tests::run;

    fn index(count: u32) -> OffsetIndex {
        let mut index = OffsetIndex::new(1000, 1 << 20);
        (1..=count).for_each(|at| index.push(1000 + i64::from(at) * 10, at * 5000));
        index
    }

    #[test]
    fn the_greatest_entry_at_or_below_the_offset_is_found() {
        let index = index(3);
        for (offset, position) in [(0, 0), (1000, 0), (1009, 0), (1010, 5000), (1029, 10_000), (9999, 15_000)] {
            assert_eq!(index.lookup(offset).map_or(0, |entry| entry.position), position, "{offset}");
        }
    }

    #[test]
    fn what_the_file_holds_may_be_forgotten_and_the_rest_goes_on() {
        let mut index = index(10);
        index.mark_written(6 * ENTRY_BYTES as u64);
        index.forget_written(3);
        assert_eq!((index.forgotten, index.entries.len(), index.bytes()), (6, 4, 80));
        assert_eq!(index.written_position(), 35_000, "the sixth is forgotten");
        assert!(!index.covers(1069) && index.covers(1070) && index.covers(9999));
        assert_eq!(index.lookup(1085).map(|entry| entry.position), Some(40_000));
        let (position, data) = index.unwritten();
        assert_eq!((position, data.len()), (48, 32));
        index.mark_written(u64::MAX);
        index.forget_written(0);
        assert_eq!((index.entries.len(), index.unwritten().0), (1, 80));
        index.push(1110, 60_000);
        assert_eq!((index.unwritten().0, index.unwritten_entries(), index.written_position()), (80, 1, 50_000));
    }

    #[test]
    fn a_file_reads_back_and_trailing_zeros_are_left_out() {
        let index = index(4);
        let (position, mut file) = index.unwritten();
        assert_eq!((position, file.len()), (0, 32));
        file.extend_from_slice(&[0; 64]);
        let mut read = OffsetIndex::decode(1000, 1 << 20, &file, 20_001);
        assert_eq!((read.entries.len(), read.unwritten_entries()), (4, 0));
        read.push(2000, 30_000);
        assert_eq!(read.unwritten().0, 32);
        assert_eq!(
            OffsetIndex::decode(1000, 1 << 20, &file, 20_000).entries.len(),
            3,
            "entries past the segment's end"
        );
    }

    #[test]
    fn entries_at_or_past_an_end_are_cut() {
        let mut index = index(4);
        index.truncate(1031);
        assert_eq!(index.last(), Some(OffsetEntry { relative_offset: 30, position: 15_000 }));
        index.truncate(1030);
        assert_eq!(index.last(), Some(OffsetEntry { relative_offset: 20, position: 10_000 }));
        index.truncate(5);
        assert_eq!(index.last(), None);
    }

    #[test]
    fn a_closed_file_is_searched_as_the_entries_in_memory_are() {
        let (disk, path) = (FakeDisk::new(), Path::new("/d/i"));
        for count in [0, 1, 511, 512, 513, 3000] {
            let index = index(count);
            disk.put(path, &index.unwritten().1);
            let (file, length) = run(disk.open(path, OpenMode::Read)).unwrap();
            let read = |position, buffer: &mut [u8]| disk.read_resident(&file, position, buffer);
            for offset in (990..1000 + i64::from(count) * 10 + 20).step_by(7) {
                match search_resident(length, 1000, offset, read) {
                    Search::Entry(entry) => assert_eq!(entry, index.lookup(offset), "{count} {offset}"),
                    other => panic!("{other:?}"),
                }
            }
        }
        disk.evict(path).unwrap();
        let (file, length) = run(disk.open(path, OpenMode::Read)).unwrap();
        let read = |position, buffer: &mut [u8]| disk.read_resident(&file, position, buffer);
        assert!(matches!(search_resident(length, 1000, 5000, read), Search::NeedPages { .. }));
    }
}
