//! One entry of a segment's file: a v2 batch, or a message of magic 0 or 1 that a Kafka before 3.0 wrote.
//!
//! Offset and length stand at the same place in all of them; only the head is needed to find, index and cut.

#![forbid(unsafe_code)]

use std::io;
use std::sync::Arc;

use bytes::BytesMut;

use crate::base::ids::{LeaderEpoch, Offset};
use crate::platform::Disk;
use crate::record::batch::{
    BATCH_HEADER_BYTES, BatchHeader, LOG_OVERHEAD_BYTES, MAGIC_POSITION, NO_TIMESTAMP, has_valid_crc,
};

/// Bytes that always suffice to parse an entry's head.
pub const HEAD_BYTES_MAX: usize = BATCH_HEADER_BYTES;
/// Bytes that a scan reads at once.
const SCAN_CHUNK_BYTES: usize = 256 * 1024;
const LEGACY_LENGTH_MIN: i32 = 14;
const LEGACY_V1_LENGTH_MIN: i32 = 22;
const LEGACY_CRC_POSITION: usize = 12;
const LEGACY_TIMESTAMP_POSITION: usize = 18;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Of a compressed message of magic 0 or 1: its last offset, the only one its head has.
    pub base_offset: Offset,
    pub last_offset: Offset,
    /// All of it.
    pub bytes: u64,
    pub max_timestamp: i64,
    /// -1 before magic 2.
    pub leader_epoch: LeaderEpoch,
    /// Of a v2 batch.
    pub header: Option<BatchHeader>,
}

/// What stands where an entry should begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    #[error("an entry is cut short")]
    Truncated,
    #[error("an entry's head is malformed")]
    Malformed,
}

impl Entry {
    /// Parses the head at the front of `bytes`; the rest of the entry need not be there.
    pub fn parse(bytes: &[u8]) -> Result<Entry, EntryError> {
        let magic = *bytes.get(MAGIC_POSITION).ok_or(EntryError::Truncated)? as i8;
        match magic {
            0 | 1 => parse_legacy(bytes, magic),
            2 if bytes.len() < BATCH_HEADER_BYTES => Err(EntryError::Truncated),
            2 => {
                let header = BatchHeader::parse(bytes).map_err(|_| EntryError::Malformed)?;
                if header.base_offset < 0 || header.last_offset_delta < 0 || header.last_offset() < header.base_offset {
                    return Err(EntryError::Malformed);
                }
                Ok(Entry {
                    base_offset: header.base_offset,
                    last_offset: header.last_offset(),
                    bytes: header.batch_bytes() as u64,
                    max_timestamp: header.max_timestamp,
                    leader_epoch: header.leader_epoch,
                    header: Some(header),
                })
            }
            _ => Err(EntryError::Malformed),
        }
    }

    /// Whether the checksum of the whole entry is right.
    pub fn is_valid(&self, entry: &[u8]) -> bool {
        match self.header {
            Some(_) => has_valid_crc(entry),
            None => entry
                .split_at_checked(LEGACY_CRC_POSITION + 4)
                .is_some_and(|(head, body)| head[LEGACY_CRC_POSITION..] == crc32fast::hash(body).to_be_bytes()),
        }
    }
}

fn parse_legacy(bytes: &[u8], magic: i8) -> Result<Entry, EntryError> {
    let field = |position: usize| bytes.get(position..).and_then(|tail| tail.first_chunk::<8>()).copied();
    let offset = i64::from_be_bytes(field(0).ok_or(EntryError::Truncated)?);
    let [a, b, c, d, ..] = field(8).ok_or(EntryError::Truncated)?;
    let length = i32::from_be_bytes([a, b, c, d]);
    let length_min = if magic == 0 { LEGACY_LENGTH_MIN } else { LEGACY_V1_LENGTH_MIN };
    if offset < 0 || length < length_min {
        return Err(EntryError::Malformed);
    }
    let max_timestamp = match magic {
        0 => NO_TIMESTAMP,
        _ => i64::from_be_bytes(field(LEGACY_TIMESTAMP_POSITION).ok_or(EntryError::Truncated)?),
    };
    Ok(Entry {
        base_offset: offset,
        last_offset: offset,
        bytes: length as u64 + LOG_OVERHEAD_BYTES as u64,
        max_timestamp,
        leader_epoch: -1,
        header: None,
    })
}

/// Reads a segment's entries one after the other, waiting for the disk: for recovery and for look-ups by time.
pub struct Scanner<D: Disk> {
    disk: D,
    file: Arc<D::File>,
    /// Where the next entry begins.
    position: u64,
    /// Where the segment ends.
    end: u64,
    buffer: BytesMut,
    buffer_position: u64,
}

/// The next entry of a scan.
#[derive(Debug)]
pub enum Scanned {
    Entry {
        position: u64,
        entry: Entry,
    },
    /// The segment ended with the entry before.
    End,
    /// What stands at `position` is no whole entry.
    Torn {
        position: u64,
        error: EntryError,
    },
}

impl<D: Disk> Scanner<D> {
    pub fn new(disk: D, file: Arc<D::File>, position: u64, end: u64) -> Scanner<D> {
        Scanner { disk, file, position, end, buffer: BytesMut::new(), buffer_position: position }
    }

    /// The entry at the scan's position, and moves behind it. It lies wholly inside the segment; its checksum was not
    /// looked at.
    pub async fn next(&mut self) -> io::Result<Scanned> {
        let position = self.position;
        if position >= self.end {
            return Ok(Scanned::End);
        }
        let head_bytes = (self.end - position).min(HEAD_BYTES_MAX as u64) as usize;
        let entry = Entry::parse(self.bytes(position, head_bytes).await?);
        match entry {
            Ok(entry) if entry.bytes <= self.end - position => {
                self.position += entry.bytes;
                Ok(Scanned::Entry { position, entry })
            }
            Ok(_) => Ok(Scanned::Torn { position, error: EntryError::Truncated }),
            Err(error) => Ok(Scanned::Torn { position, error }),
        }
    }

    /// Up to `length` bytes from `position`; fewer if the file ends before.
    pub async fn bytes(&mut self, position: u64, length: usize) -> io::Result<&[u8]> {
        let buffer_end = self.buffer_position + self.buffer.len() as u64;
        if position < self.buffer_position || position + length as u64 > buffer_end {
            let wanted = (self.end - position).min(length.max(SCAN_CHUNK_BYTES) as u64) as usize;
            self.buffer = self.disk.read(&self.file, position, wanted).await?;
            self.buffer_position = position;
        }
        let tail = self.buffer.get((position - self.buffer_position) as usize..).unwrap_or_default();
        Ok(&tail[..length.min(tail.len())])
    }
}

/// Parses arbitrary bytes as entries; must neither panic nor stand still.
pub fn fuzz_parse_entry(mut bytes: &[u8]) {
    while let Ok(entry) = Entry::parse(bytes) {
        let Some((whole, rest)) = bytes.split_at_checked(entry.bytes as usize) else { return };
        let _ = entry.is_valid(whole);
        bytes = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::splitmix64::next;
    use crate::record::batch::BatchBuilder;
    use crate::record::compression::Codec;

    #[test]
    fn a_message_of_magic_1_is_an_entry_like_a_batch() {
        let mut message = vec![1, 0];
        message.extend_from_slice(&77i64.to_be_bytes());
        message.extend_from_slice(&[0xff; 8]);
        let mut bytes = 9i64.to_be_bytes().to_vec();
        bytes.extend_from_slice(&(message.len() as i32 + 4).to_be_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&message).to_be_bytes());
        bytes.extend_from_slice(&message);
        let entry = Entry::parse(&bytes).unwrap();
        assert_eq!((entry.last_offset, entry.bytes, entry.max_timestamp), (9, bytes.len() as u64, 77));
        assert!(entry.is_valid(&bytes));
        bytes[20] ^= 1;
        assert!(!entry.is_valid(&bytes));
    }

    #[test]
    fn mutated_entries_never_panic_the_parser() {
        let mut builder = BatchBuilder::new(Codec::None);
        builder.push(1, None, Some(&[1; 40]), &[]);
        let batch = builder.build();
        let mut seed = 9;
        for _ in 0..5000 {
            let mut mutated = [&batch[..], &batch[..]].concat();
            let at = next(&mut seed) as usize % 80;
            mutated[at] = next(&mut seed) as u8;
            fuzz_parse_entry(&mutated);
        }
    }
}
