//! The files of a log directory, read without a broker: which there are, and what is in a segment.

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use crate::base::ids::{Offset, TopicPartition};
use crate::client::consumer::{Headers, RecordRef};
use crate::record::batch::{self, TimestampType};
use crate::record::compression::Codec;
use crate::record::message_set;
use crate::storage::entry::{Entry, HEAD_BYTES_MAX};
use crate::storage::log_dir::parse_directory_name;
use crate::storage::segment::{LOG, parse_segment_name};
use crate::storage::{offset_index, time_index};
use ringlog_tools::failure::{Failure, reason};

/// Bytes that the records of one batch may take when they are decompressed.
const DECOMPRESSED_BYTES_MAX: usize = 1 << 30;

/// What a file that is read whole may have: more than any that a broker writes.
const SMALL_FILE_BYTES_MAX: u64 = 512 << 20;

/// Bytes read from a segment at once.
const READ_BYTES: usize = 256 * 1024;

/// Where the attributes of a message of magic 0 or 1 stand, and its checksum.
const LEGACY_ATTRIBUTES_POSITION: usize = 17;
const LEGACY_CRC_POSITION: usize = 12;
const LEGACY_LOG_APPEND_TIME_BIT: u8 = 0x08;
const LEGACY_CODEC_MASK: u8 = 0x07;

/// A file that can't be read, or is not what it should be.
pub fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::Refused(format!("{} can't be read: {}", path.display(), reason(error)))
}

/// A file whose bytes are not what they should be.
pub fn damaged(path: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::Refused(format!("{} is damaged: {error}", path.display()))
}

/// A directory of a partition.
#[derive(Clone, Debug)]
pub struct PartitionDirectory {
    pub path: PathBuf,
    pub partition: TopicPartition,
}

/// The partitions that a path means: itself, or all that lie in it, sorted.
pub fn partitions_of(path: &Path) -> Result<Vec<PartitionDirectory>, Failure> {
    let named = |path: PathBuf| {
        let partition = parse_directory_name(path.file_name()?.to_str()?)?;
        Some(PartitionDirectory { path, partition })
    };
    let whole = fs::canonicalize(path).map_err(|error| unreadable(path, &error))?;
    // A linked partition has its name where the link is.
    if let Some(PartitionDirectory { partition, .. }) = named(whole).or_else(|| named(path.to_owned())) {
        return Ok(vec![PartitionDirectory { path: path.to_owned(), partition }]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(|error| unreadable(path, &error))? {
        let entry = entry.map_err(|error| unreadable(path, &error))?;
        if entry.path().is_dir() {
            found.extend(named(entry.path()));
        }
    }
    found.sort_by(|one, other| one.partition.cmp(&other.partition));
    match found.is_empty() {
        false => Ok(found),
        true => Err(Failure::Refused(format!(
            "{} is no directory of a partition (such as orders-0), and holds none either",
            path.display()
        ))),
    }
}

impl PartitionDirectory {
    /// Base offsets of its segments, ascending.
    pub fn segments(&self) -> Result<Vec<Offset>, Failure> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(|error| unreadable(&self.path, &error))? {
            let entry = entry.map_err(|error| unreadable(&self.path, &error))?;
            let name = entry.file_name();
            if let Some((base_offset, LOG)) = name.to_str().and_then(parse_segment_name) {
                found.push(base_offset);
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}

/// A small file, whole; `None` if there is none.
pub fn read_small(path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|error| unreadable(path, &error))?,
    };
    let length = file.metadata().map_err(|error| unreadable(path, &error))?.len();
    if length > SMALL_FILE_BYTES_MAX {
        return Err(damaged(path, format!("it has {length} bytes, far more than such a file can need")));
    }
    let mut bytes = Vec::with_capacity(length as usize);
    file.read_to_end(&mut bytes).map_err(|error| unreadable(path, &error))?;
    Ok(Some(bytes))
}

/// A segment's entries, one after the other.
pub struct Entries {
    file: BufReader<File>,
    /// Where the entry at hand begins, and where the next one does.
    position: u64,
    next: u64,
    end: u64,
    bytes: Vec<u8>,
}

impl Entries {
    /// Those that lie within the first `bytes_max` bytes from `position` on, where one must begin.
    pub fn open(path: &Path, position: u64, bytes_max: u64) -> Result<Entries, Failure> {
        let failed = |error: io::Error| unreadable(path, &error);
        let file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let mut file = BufReader::with_capacity(READ_BYTES, file);
        file.seek(SeekFrom::Start(position)).map_err(failed)?;
        let end = length.min(position.saturating_add(bytes_max));
        Ok(Entries { file, position, next: position, end, bytes: Vec::new() })
    }

    /// The next entry; `None` at the end, or where no whole one stands: then [`Entries::left_bytes`] is above 0.
    pub fn next(&mut self) -> io::Result<Option<Entry>> {
        let left = self.left_bytes();
        let head = left.min(HEAD_BYTES_MAX as u64) as usize;
        self.bytes.resize(head, 0);
        self.file.read_exact(&mut self.bytes)?;
        let Ok(entry) = Entry::parse(&self.bytes) else { return Ok(None) };
        if entry.bytes > left {
            return Ok(None);
        }
        let length = entry.bytes as usize;
        if length < head {
            self.file.seek_relative(length as i64 - head as i64)?;
        }
        self.bytes.resize(length, 0);
        if length > head {
            self.file.read_exact(&mut self.bytes[head..])?;
        }
        (self.position, self.next) = (self.next, self.next + entry.bytes);
        Ok(Some(entry))
    }

    /// All of the entry at hand.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where it begins.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Bytes of the file up to its end.
    pub fn read_bytes(&self) -> u64 {
        self.next
    }

    /// Bytes behind it.
    pub fn left_bytes(&self) -> u64 {
        self.end - self.next
    }
}

/// What the head of an entry says, whatever its magic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    pub magic: u8,
    /// `None`: no codec has this number.
    pub codec: Option<Codec>,
    /// `None` before magic 1.
    pub timestamp_type: Option<TimestampType>,
    pub crc: u32,
}

impl Attributes {
    pub fn of(entry: &Entry, bytes: &[u8]) -> Attributes {
        if let Some(header) = &entry.header {
            let (codec, timestamp_type) = (header.codec(), Some(header.timestamp_type()));
            return Attributes { magic: 2, codec, timestamp_type, crc: header.crc };
        }
        let (magic, attributes) = (bytes[batch::MAGIC_POSITION], bytes[LEGACY_ATTRIBUTES_POSITION]);
        let of_bit = match attributes & LEGACY_LOG_APPEND_TIME_BIT {
            0 => TimestampType::CreateTime,
            _ => TimestampType::LogAppendTime,
        };
        let crc = bytes[LEGACY_CRC_POSITION..].first_chunk::<4>().map_or(0, |crc| u32::from_be_bytes(*crc));
        Attributes {
            magic,
            codec: Codec::from_id(i16::from(attributes & LEGACY_CODEC_MASK)),
            timestamp_type: (magic > 0).then_some(of_bit),
            crc,
        }
    }

    /// Kafka's name of the codec.
    pub fn codec_name(&self) -> &'static str {
        match self.codec {
            Some(Codec::None) => "none",
            Some(Codec::Gzip) => "gzip",
            Some(Codec::Snappy) => "snappy",
            Some(Codec::Lz4) => "lz4",
            Some(Codec::Zstd) => "zstd",
            None => "unknown",
        }
    }
}

/// A record's place in its entry, beside the record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordPlace {
    /// Of an idempotent producer's; -1 otherwise.
    pub sequence: i32,
    /// Of the message itself, before magic 2.
    pub checksum: Option<u32>,
}

/// Shows every record of an entry to `visit`.
///
/// # Errors
/// What is wrong with the entry, or `visit`'s.
pub fn each_record(
    entry: &Entry,
    bytes: &[u8],
    mut visit: impl FnMut(&RecordRef<'_>, RecordPlace) -> Result<(), String>,
) -> Result<(), String> {
    let Some(header) = &entry.header else {
        let set = message_set::decode_legacy(bytes, DECOMPRESSED_BYTES_MAX).map_err(|error| error.to_string())?;
        for (record, checksum) in set.records.iter().zip(set.checksums) {
            let shown = RecordRef {
                offset: record.offset,
                timestamp: record.timestamp,
                timestamp_type: set.timestamp_type,
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: Headers::None,
            };
            visit(&shown, RecordPlace { sequence: -1, checksum: Some(checksum) })?;
        }
        return Ok(());
    };
    let body = batch::records_body(header, bytes, DECOMPRESSED_BYTES_MAX).map_err(|error| error.to_string())?;
    let walked = batch::walk_records(header, &body, |view| {
        let shown = RecordRef {
            offset: header.base_offset + i64::from(view.offset_delta),
            timestamp: header.record_timestamp(view.timestamp_delta),
            timestamp_type: header.timestamp_type(),
            key: view.key,
            value: view.value,
            headers: Headers::Of(&view),
        };
        let sequence = match header.base_sequence {
            -1 => -1,
            base => batch::increment_sequence(base, view.offset_delta),
        };
        visit(&shown, RecordPlace { sequence, checksum: None }).map_err(Stopped::Visit)
    });
    walked.map_err(|stopped| match stopped {
        Stopped::Batch(error) => error.to_string(),
        Stopped::Visit(error) => error,
    })
}

enum Stopped {
    Batch(batch::BatchError),
    Visit(String),
}

impl From<batch::BatchError> for Stopped {
    fn from(error: batch::BatchError) -> Stopped {
        Stopped::Batch(error)
    }
}

/// Entries of an offset index as its file has them: offset, and position. Zeros behind the last one, which a file has that was
/// not closed in order, end it.
pub fn offset_entries(base_offset: Offset, file: &[u8]) -> Vec<(Offset, u32)> {
    let decode = |[a, b, c, d, e, f, g, h]: &[u8; offset_index::ENTRY_BYTES]| {
        let relative = u32::from_be_bytes([*a, *b, *c, *d]);
        (base_offset.saturating_add(i64::from(relative)), u32::from_be_bytes([*e, *f, *g, *h]))
    };
    let entries = file.as_chunks().0.iter().map(decode).enumerate();
    entries.take_while(|(index, (offset, _))| *index == 0 || *offset != base_offset).map(|(_, entry)| entry).collect()
}

/// The same of a time index: timestamp, and offset.
pub fn time_entries(base_offset: Offset, file: &[u8]) -> Vec<(i64, Offset)> {
    let decode = |[timestamp @ .., a, b, c, d]: &[u8; time_index::ENTRY_BYTES]| {
        let relative = u32::from_be_bytes([*a, *b, *c, *d]);
        (i64::from_be_bytes(*timestamp), base_offset.saturating_add(i64::from(relative)))
    };
    let entries = file.as_chunks().0.iter().map(decode).enumerate();
    entries.take_while(|(index, (_, offset))| *index == 0 || *offset != base_offset).map(|(_, entry)| entry).collect()
}
