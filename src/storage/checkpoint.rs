//! The small text files of a log directory: a version, a count, then so many lines (Kafka 3.9 `CheckpointFile`).
//!
//! They are replaced whole, so a crash leaves the old one or the new one. An empty file is one without entries.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::base::ids::{Offset, TopicPartition};

const VERSION: &str = "0";
/// The longest checkpoint that is read: some 400,000 partitions with topic names of the longest kind.
pub const CHECKPOINT_BYTES_MAX: usize = 128 << 20;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    #[error("not UTF-8 text")]
    Text,
    #[error("version {0:?} is not 0")]
    Version(String),
    #[error("line {0:?} is malformed")]
    Line(String),
    #[error("{expected:?} entries are announced, {found} follow")]
    Count { expected: String, found: usize },
}

/// The lines behind version and count.
pub fn parse_lines(file: &[u8]) -> Result<Vec<&str>, CheckpointError> {
    let text = std::str::from_utf8(file).map_err(|_| CheckpointError::Text)?;
    let mut lines = text.lines();
    let Some(version) = lines.next() else { return Ok(Vec::new()) };
    if version.trim() != VERSION {
        return Err(CheckpointError::Version(version.to_owned()));
    }
    let expected = lines.next().unwrap_or_default().trim();
    let entries: Vec<_> = lines.filter(|line| !line.trim().is_empty()).collect();
    match expected.parse::<usize>() {
        Ok(count) if entries.len() == count => Ok(entries),
        _ => Err(CheckpointError::Count { expected: expected.to_owned(), found: entries.len() }),
    }
}

/// The file of these lines.
pub fn encode_lines(lines: impl ExactSizeIterator<Item = String>) -> Vec<u8> {
    let mut out = format!("{VERSION}\n{}\n", lines.len());
    for line in lines {
        // Writing into a String cannot fail.
        let _ = writeln!(out, "{line}");
    }
    out.into_bytes()
}

/// A checkpoint of offsets: `<topic> <partition> <offset>` lines.
pub fn parse_offsets(file: &[u8]) -> Result<BTreeMap<TopicPartition, Offset>, CheckpointError> {
    parse_lines(file)?.into_iter().map(parse_offset_line).collect()
}

fn parse_offset_line(line: &str) -> Result<(TopicPartition, Offset), CheckpointError> {
    let malformed = || CheckpointError::Line(line.to_owned());
    let mut words = line.split_whitespace();
    let (Some(topic), Some(partition), Some(offset), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(malformed());
    };
    let partition = partition.parse().map_err(|_| malformed())?;
    let offset = offset.parse().map_err(|_| malformed())?;
    Ok((TopicPartition { topic: topic.into(), partition }, offset))
}

pub fn encode_offsets(offsets: &BTreeMap<TopicPartition, Offset>) -> Vec<u8> {
    encode_lines(offsets.iter().map(|(tp, offset)| format!("{} {} {offset}", tp.topic, tp.partition)))
}

/// Parses arbitrary bytes; must not panic, and what it accepts must encode to the same entries.
pub fn fuzz_parse_offsets(bytes: &[u8]) {
    if let Ok(offsets) = parse_offsets(bytes) {
        assert_eq!(parse_offsets(&encode_offsets(&offsets)), Ok(offsets));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::splitmix64::next;

    #[test]
    fn offsets_read_back_in_kafkas_text() {
        let text = b"0\n2\na-b 3 17\nz 0 -1\n";
        let offsets = parse_offsets(text).unwrap();
        assert_eq!(offsets[&TopicPartition { topic: "a-b".into(), partition: 3 }], 17);
        assert_eq!(encode_offsets(&offsets), text);
        assert_eq!(parse_offsets(b""), Ok(BTreeMap::new()));
        assert_eq!(parse_offsets(b"0\n0\n"), Ok(BTreeMap::new()));
    }

    #[test]
    fn malformed_files_are_refused() {
        for text in
            ["1\n0\n", "0\n", "0\nx\n", "0\n1\n", "0\n1\na 0\n", "0\n1\na 0 1 2\n", "0\n1\na b 1\n", "0\n0\na 0 1\n"]
        {
            assert!(parse_offsets(text.as_bytes()).is_err(), "{text:?}");
        }
        assert_eq!(parse_offsets(&[0xff]), Err(CheckpointError::Text));
    }

    #[test]
    fn mutated_files_never_panic_the_parser() {
        let mut seed = 1;
        for _ in 0..2000 {
            let mut file = b"0\n2\na-b 3 17\nz 0 -1\n".to_vec();
            let at = next(&mut seed) as usize % file.len();
            file[at] = next(&mut seed) as u8;
            fuzz_parse_offsets(&file);
        }
    }
}
