//! `.txnindex`: the transactions whose abort markers a segment holds (Kafka 3.9 `TransactionIndex`, `AbortedTxn`).
//!
//! ```text
//! entry  version i16 = 0 | producer id i64 | first offset i64 | last offset i64 | last stable offset i64
//! ```
//! The last offset is the marker's; entries grow in it. The last stable offset is that right after the marker: whoever
//! looks for what overlaps a range may stop at the first entry whose last stable offset has passed the range. A segment
//! without aborted transactions has no such file. Pure; the log reads and writes the file.

#![forbid(unsafe_code)]

use crate::base::ids::Offset;

pub const ENTRY_BYTES: usize = 34;
const VERSION: i16 = 0;

/// A transaction that a marker has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedTransaction {
    pub producer_id: i64,
    pub first_offset: Offset,
    /// The marker's.
    pub last_offset: Offset,
    /// The first offset of the earliest transaction that was still open then, else the offset behind the marker.
    pub last_stable_offset: Offset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionIndexError {
    #[error("{0} bytes are no whole number of entries")]
    Length(usize),
    #[error("an entry has version {0}, not 0")]
    Version(i16),
    #[error("the entry that ends at offset {0} does not follow the one before, or lies outside the segment")]
    Order(Offset),
}

impl EndedTransaction {
    /// Decodes an entry.
    pub fn decode(bytes: &[u8; ENTRY_BYTES]) -> Result<EndedTransaction, TransactionIndexError> {
        let field = |position: usize| {
            let mut out = [0; 8];
            out.copy_from_slice(&bytes[position..position + 8]);
            i64::from_be_bytes(out)
        };
        match i16::from_be_bytes([bytes[0], bytes[1]]) {
            VERSION => Ok(EndedTransaction {
                producer_id: field(2),
                first_offset: field(10),
                last_offset: field(18),
                last_stable_offset: field(26),
            }),
            other => Err(TransactionIndexError::Version(other)),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&VERSION.to_be_bytes());
        for field in [self.producer_id, self.first_offset, self.last_offset, self.last_stable_offset] {
            out.extend_from_slice(&field.to_be_bytes());
        }
    }

    /// Whether any of its records may lie in `[from, end)`.
    pub fn overlaps(&self, from: Offset, end: Offset) -> bool {
        self.last_offset >= from && self.first_offset < end
    }
}

/// The entries of one segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransactionIndex {
    entries: Vec<EndedTransaction>,
}

impl TransactionIndex {
    /// The index that a file holds, all of it.
    pub fn parse(base_offset: Offset, file: &[u8]) -> Result<TransactionIndex, TransactionIndexError> {
        let (chunks, rest) = file.as_chunks::<ENTRY_BYTES>();
        if !rest.is_empty() {
            return Err(TransactionIndexError::Length(file.len()));
        }
        let mut entries: Vec<EndedTransaction> = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let entry = EndedTransaction::decode(chunk)?;
            let least = entries.last().map_or(base_offset, |last| last.last_offset + 1);
            let is_sound = entry.last_offset >= least
                && entry.last_offset < Offset::MAX
                && (0..=entry.last_offset).contains(&entry.first_offset)
                && (0..=entry.last_offset + 1).contains(&entry.last_stable_offset);
            if !is_sound {
                return Err(TransactionIndexError::Order(entry.last_offset));
            }
            entries.push(entry);
        }
        Ok(TransactionIndex { entries })
    }

    pub fn encode(&self) -> Vec<u8> {
        encode_entries(&self.entries)
    }

    /// In the order of their last offsets.
    pub fn entries(&self) -> &[EndedTransaction] {
        &self.entries
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Notes an aborted transaction; its marker is behind those of the entries before.
    pub fn push(&mut self, entry: EndedTransaction) {
        assert!(
            self.entries.last().is_none_or(|last| last.last_offset < entry.last_offset),
            "markers follow one another"
        );
        self.entries.push(entry);
    }

    /// Drops the entries whose marker is at or past `end_offset`.
    pub fn truncate(&mut self, end_offset: Offset) {
        self.entries.retain(|entry| entry.last_offset < end_offset);
    }
}

/// The bytes of these entries in the file.
pub fn encode_entries(entries: &[EndedTransaction]) -> Vec<u8> {
    let mut out = Vec::with_capacity(entries.len() * ENTRY_BYTES);
    entries.iter().for_each(|entry| entry.encode(&mut out));
    out
}

/// Parses arbitrary bytes; must not panic, and what it accepts must encode to the same bytes.
pub fn fuzz_parse_transaction_index(bytes: &[u8]) {
    if let Ok(index) = TransactionIndex::parse(0, bytes) {
        assert_eq!(index.encode(), bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::splitmix64::next;

    fn entry(first_offset: Offset, last_offset: Offset) -> EndedTransaction {
        EndedTransaction { producer_id: 7, first_offset, last_offset, last_stable_offset: last_offset + 1 }
    }

    fn index(entries: &[EndedTransaction]) -> TransactionIndex {
        TransactionIndex { entries: entries.to_vec() }
    }

    #[test]
    fn entries_read_back_and_are_cut_by_their_markers() {
        let mut all = TransactionIndex::default();
        [entry(10, 21), entry(11, 30), entry(40, 54)].into_iter().for_each(|entry| all.push(entry));
        assert_eq!(TransactionIndex::parse(10, &all.encode()), Ok(all.clone()));
        all.truncate(31);
        assert_eq!(all, index(&[entry(10, 21), entry(11, 30)]));
        all.truncate(30);
        assert_eq!(all, index(&[entry(10, 21)]));
    }

    #[test]
    fn a_transaction_overlaps_what_lies_between_its_first_record_and_its_marker() {
        let transaction = entry(10, 20);
        for (from, end, overlaps) in [(0, 10, false), (0, 11, true), (20, 30, true), (21, 30, false)] {
            assert_eq!(transaction.overlaps(from, end), overlaps, "{from}..{end}");
        }
    }

    #[test]
    fn damaged_files_are_refused() {
        let sound = index(&[entry(10, 21), entry(11, 30)]).encode();
        assert_eq!(TransactionIndex::parse(0, &sound[..60]), Err(TransactionIndexError::Length(60)));
        assert_eq!(TransactionIndex::parse(22, &sound), Err(TransactionIndexError::Order(21)));
        let newer = [&[0, 1], &sound[2..]].concat();
        assert_eq!(TransactionIndex::parse(0, &newer), Err(TransactionIndexError::Version(1)));
        let backwards = index(&[entry(11, 30), entry(10, 21)]).encode();
        assert_eq!(TransactionIndex::parse(0, &backwards), Err(TransactionIndexError::Order(21)));
        assert!(TransactionIndex::parse(0, &index(&[entry(31, 30)]).encode()).is_err());
    }

    #[test]
    fn mutated_files_never_panic_the_parser() {
        let sound = index(&[entry(10, 21), entry(11, 30), entry(40, 54)]).encode();
        let mut seed = 3;
        for _ in 0..5000 {
            let mut file = sound.clone();
            let at = next(&mut seed) as usize % file.len();
            file[at] = next(&mut seed) as u8;
            fuzz_parse_transaction_index(&file);
        }
    }
}
