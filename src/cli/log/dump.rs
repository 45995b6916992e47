//! `ringlog log dump`: batches and records of segments, and what stands in the files beside them.

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::files::{
    Attributes, Entries, PartitionDirectory, damaged, each_record, offset_entries, partitions_of, read_small,
    time_entries, unreadable,
};
use crate::base::ids::Offset;
use crate::record::batch::{NO_TIMESTAMP, TimestampType};
use crate::storage::checkpoint::parse_lines;
use crate::storage::entry::Entry;
use crate::storage::log_dir::parse_directory_name;
use crate::storage::producer_state::decode_entries;
use crate::storage::segment::{
    LOG, OFFSET_INDEX, SNAPSHOT, TIME_INDEX, TRANSACTION_INDEX, parse_segment_name, segment_path,
};
use crate::storage::transaction_index::{EndedTransaction, TransactionIndex};
use ringlog_tools::failure::{EXIT_CODES, Failure};
use ringlog_tools::format::{Format, Writer};
use ringlog_tools::output::Output;
use ringlog_tools::table::{Column, Table, human_bytes};

const EXAMPLES: &str = "\
Examples:
  ringlog log dump ringlog-data/orders-0                          all batches of a partition
  ringlog log dump ringlog-data/orders-0 --offset 5000 --records  from an offset on, with the records
  ringlog log dump ringlog-data/orders-0/00000000000000000000.index
  ringlog log dump ringlog-data/orders-0 --json | jq -c 'select(.codec == \"gzip\")'

What can be dumped: .log, .index, .timeindex, .txnindex, .snapshot, checkpoints, and a partition's directory, which
stands for its .log files. Read a log that somebody may have damaged with 'ringlog log verify' first.";

/// Lines of a table that are laid out together.
const ROWS_TOGETHER: usize = 1000;

/// Show what is in the files of a partition, without a broker
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct DumpArguments {
    /// Files, or directories of partitions
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// Begin with the batch that has this offset, or the next one
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    offset: Option<i64>,

    /// Stop after so many batches
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// Also the records of each batch
    #[arg(long)]
    records: bool,

    /// Print JSON, an object a line, with exact numbers and stable names, for scripts
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &DumpArguments) -> Result<(), Failure> {
    let mut dump = Dump { arguments, left: arguments.count.unwrap_or(u64::MAX), output: Output::new()? };
    for path in &arguments.paths {
        match path.is_dir() {
            true => {
                for directory in partitions_of(path)? {
                    dump.partition(&directory)?;
                }
            }
            false => dump.file(path)?,
        }
    }
    dump.output.finish()
}

struct Dump<'a> {
    arguments: &'a DumpArguments,
    /// Batches that are still wanted.
    left: u64,
    output: Output,
}

impl Dump<'_> {
    fn partition(&mut self, directory: &PartitionDirectory) -> Result<(), Failure> {
        let segments = directory.segments()?;
        // The last one that begins at or before the offset is the first that may have it.
        let from = self.arguments.offset.unwrap_or(0);
        let first = segments.partition_point(|base_offset| *base_offset <= from).saturating_sub(1);
        for base_offset in &segments[first..] {
            if self.left == 0 {
                break;
            }
            self.segment(&segment_path(&directory.path, *base_offset, LOG), *base_offset)?;
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) -> Result<(), Failure> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some((base_offset, LOG)) = parse_segment_name(name) {
            return self.segment(path, base_offset);
        }
        let Some(file) = read_small(path)? else {
            return Err(Failure::Refused(format!("there is no file {}", path.display())));
        };
        match parse_segment_name(name) {
            Some((base_offset, OFFSET_INDEX)) => self.rows(
                &[Column::Number("OFFSET"), Column::Number("POSITION")],
                &["offset", "position"],
                offset_entries(base_offset, &file).into_iter().map(|(offset, position)| [offset, position.into()]),
            ),
            Some((base_offset, TIME_INDEX)) => self.rows(
                &[Column::Number("TIMESTAMP"), Column::Number("OFFSET")],
                &["timestamp", "offset"],
                time_entries(base_offset, &file).into_iter().map(|(timestamp, offset)| [timestamp, offset]),
            ),
            Some((base_offset, TRANSACTION_INDEX)) => {
                let index = TransactionIndex::parse(base_offset, &file).map_err(|error| damaged(path, error))?;
                self.transactions(index.entries())
            }
            Some((_, SNAPSHOT)) => self.snapshot(path, &file),
            _ if name.ends_with("checkpoint") => {
                for line in parse_lines(&file).map_err(|error| damaged(path, error))? {
                    match self.arguments.json {
                        true => self.output.json(&json!(line.split(' ').collect::<Vec<_>>()))?,
                        false => self.output.line(line)?,
                    }
                }
                Ok(())
            }
            _ => Err(Failure::Usage(format!(
                "{} is none of .log, .index, .timeindex, .txnindex, .snapshot and checkpoint",
                path.display()
            ))),
        }
    }

    /// A table of numbers for people, objects for scripts.
    fn rows<const N: usize>(
        &mut self,
        columns: &[Column; N],
        names: &[&str; N],
        rows: impl Iterator<Item = [i64; N]>,
    ) -> Result<(), Failure> {
        let mut table = Table::new(columns);
        for row in rows {
            match self.arguments.json {
                true => {
                    let object = names.iter().zip(row).map(|(name, value)| ((*name).to_owned(), Value::from(value)));
                    self.output.json(&Value::Object(object.collect()))?;
                }
                false => table.row(row.iter().map(i64::to_string).collect()),
            }
        }
        if self.arguments.json { Ok(()) } else { self.output.table(&table) }
    }

    fn transactions(&mut self, entries: &[EndedTransaction]) -> Result<(), Failure> {
        self.rows(
            &[
                Column::Number("PRODUCER ID"),
                Column::Number("FIRST OFFSET"),
                Column::Number("LAST OFFSET"),
                Column::Number("LAST STABLE OFFSET"),
            ],
            &["producer_id", "first_offset", "last_offset", "last_stable_offset"],
            entries
                .iter()
                .map(|entry| [entry.producer_id, entry.first_offset, entry.last_offset, entry.last_stable_offset]),
        )
    }

    fn snapshot(&mut self, path: &Path, file: &[u8]) -> Result<(), Failure> {
        let entries: Vec<_> = decode_entries(file).map_err(|error| damaged(path, error))?.collect();
        self.rows(
            &[
                Column::Number("PRODUCER ID"),
                Column::Number("EPOCH"),
                Column::Number("LAST SEQUENCE"),
                Column::Number("LAST OFFSET"),
                Column::Number("LAST TIMESTAMP"),
                Column::Number("COORDINATOR EPOCH"),
                Column::Number("TRANSACTION FIRST OFFSET"),
            ],
            &[
                "producer_id",
                "producer_epoch",
                "last_sequence",
                "last_offset",
                "last_timestamp",
                "coordinator_epoch",
                "transaction_first_offset",
            ],
            entries.into_iter().map(|entry| {
                let (last_sequence, last_offset, _) = entry.last_batch.unwrap_or((-1, -1, 0));
                [
                    entry.producer_id,
                    entry.producer_epoch.into(),
                    last_sequence.into(),
                    last_offset,
                    entry.last_timestamp,
                    entry.coordinator_epoch.into(),
                    entry.transaction_first_offset.unwrap_or(-1),
                ]
            }),
        )
    }

    fn segment(&mut self, path: &Path, base_offset: Offset) -> Result<(), Failure> {
        let mut entries = Entries::open(path, self.begin(path, base_offset)?, u64::MAX)?;
        if !self.arguments.json {
            let size = human_bytes(entries.left_bytes() as i64);
            self.output.line(&format!("{} ({size} from {} on)", path.display(), entries.position()))?;
        }
        let mut table = batch_table();
        let mut rows = 0;
        while self.left > 0
            && let Some(entry) = entries.next().map_err(|error| unreadable(path, &error))?
        {
            if self.arguments.offset.is_some_and(|offset| entry.last_offset < offset) {
                continue;
            }
            self.left -= 1;
            if self.arguments.json {
                self.json_of(path, &entry, &entries)?;
                continue;
            }
            table.row(row_of(&entry, &entries));
            rows += 1;
            if rows == ROWS_TOGETHER || self.arguments.records {
                self.output.table(&std::mem::replace(&mut table, batch_table()))?;
                rows = 0;
            }
            if self.arguments.records {
                self.records(path, &entry, &entries)?;
            }
        }
        if rows > 0 {
            self.output.table(&table)?;
        }
        match entries.left_bytes() {
            left if left > 0 && self.left > 0 && !self.arguments.json => self.output.line(&format!(
                "the last {left} bytes are no whole batch: being written now, or torn; 'ringlog log verify' says more"
            )),
            _ => Ok(()),
        }
    }

    /// Where to begin, by the offset index if there is one.
    fn begin(&self, path: &Path, base_offset: Offset) -> Result<u64, Failure> {
        let Some(offset) = self.arguments.offset else { return Ok(0) };
        let Some(file) = read_small(&path.with_extension(OFFSET_INDEX))? else { return Ok(0) };
        let entries = offset_entries(base_offset, &file);
        let before = entries.iter().rev().find(|(last_offset, _)| *last_offset < offset);
        // An index may lie, so its word is tried.
        let position = before.map_or(0, |(_, position)| u64::from(*position));
        let is_there = Entries::open(path, position, u64::MAX)?.next().is_ok_and(|entry| entry.is_some());
        Ok(if is_there { position } else { 0 })
    }

    fn records(&mut self, path: &Path, entry: &Entry, entries: &Entries) -> Result<(), Failure> {
        let buffer = self.output.buffer();
        let walked = each_record(entry, entries.bytes(), |record, _| {
            // Writing into memory does not fail.
            let _ = write!(buffer, "  {} {} ", record.offset, record.timestamp);
            for bytes in [record.key, record.value] {
                match bytes.map(String::from_utf8_lossy) {
                    None => buffer.extend_from_slice(b"null "),
                    Some(text) => {
                        let _ = write!(buffer, "{text:?} ");
                    }
                }
            }
            for (key, value) in record.headers.iter() {
                let value =
                    value.map_or_else(|| "null".to_owned(), |value| format!("{:?}", String::from_utf8_lossy(value)));
                let _ = write!(buffer, "{}={value} ", String::from_utf8_lossy(key));
            }
            buffer.pop();
            buffer.push(b'\n');
            Ok(())
        });
        self.output.spill(None)?;
        walked.map_err(|error| damaged(path, format!("at {}: {error}", entries.position())))
    }

    fn json_of(&mut self, path: &Path, entry: &Entry, entries: &Entries) -> Result<(), Failure> {
        let attributes = Attributes::of(entry, entries.bytes());
        let header = entry.header.as_ref();
        let mut object = json!({
            "file": path.to_string_lossy(),
            "position": entries.position(),
            "bytes": entry.bytes,
            "magic": attributes.magic,
            "base_offset": entry.base_offset,
            "last_offset": entry.last_offset,
            "records": header.map(|header| header.record_count),
            "codec": attributes.codec_name(),
            "timestamp_type": attributes.timestamp_type.map(|timestamp_type| match timestamp_type {
                TimestampType::CreateTime => "CreateTime",
                TimestampType::LogAppendTime => "LogAppendTime",
            }),
            "max_timestamp": entry.max_timestamp,
            "leader_epoch": entry.leader_epoch,
            "producer_id": header.map(|header| header.producer_id),
            "producer_epoch": header.map(|header| header.producer_epoch),
            "base_sequence": header.map(|header| header.base_sequence),
            "is_transactional": header.is_some_and(|header| header.is_transactional()),
            "is_control": header.is_some_and(|header| header.is_control()),
            "delete_horizon_ms": header.and_then(|header| header.delete_horizon_ms()),
            "crc": attributes.crc,
            "is_valid": entry.is_valid(entries.bytes()),
        });
        if !self.arguments.records {
            return self.output.json(&object);
        }
        let directory = path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        let (topic, partition) = directory
            .and_then(parse_directory_name)
            .map_or_else(|| (String::new(), -1), |named| (named.topic.to_string(), named.partition));
        let writer = Writer { format: Format::Json, key_separator: None, null: Vec::new() };
        let (mut lines, mut records) = (Vec::new(), Vec::new());
        each_record(entry, entries.bytes(), |record, _| {
            lines.clear();
            writer.write(&mut lines, &topic, partition, record);
            records.push(serde_json::from_slice::<Value>(&lines).map_err(|error| error.to_string())?);
            Ok(())
        })
        .map_err(|error| damaged(path, format!("at {}: {error}", entries.position())))?;
        object["records"] = Value::from(records);
        self.output.json(&object)
    }
}

fn batch_table() -> Table {
    Table::new(&[
        Column::Number("FIRST"),
        Column::Number("LAST"),
        Column::Number("RECORDS"),
        Column::Number("BYTES"),
        Column::Number("POSITION"),
        Column::Text("CODEC"),
        Column::Number("TIMESTAMP"),
        Column::Number("EPOCH"),
        Column::Number("PRODUCER"),
        Column::Number("SEQUENCE"),
        Column::Text("FLAGS"),
    ])
}

fn row_of(entry: &Entry, entries: &Entries) -> Vec<String> {
    let attributes = Attributes::of(entry, entries.bytes());
    let none = || "-".to_owned();
    let known = |number: i64| if number < 0 { none() } else { number.to_string() };
    let header = entry.header.as_ref();
    let mut flags = Vec::new();
    if !entry.is_valid(entries.bytes()) {
        flags.push("WRONG-CHECKSUM".to_owned());
    }
    if attributes.magic < 2 {
        flags.push(format!("magic-{}", attributes.magic));
    }
    if attributes.timestamp_type == Some(TimestampType::LogAppendTime) {
        flags.push("append-time".to_owned());
    }
    if let Some(header) = header {
        let set = [(header.is_transactional(), "transactional"), (header.is_control(), "control")];
        flags.extend(set.iter().filter(|(set, _)| *set).map(|(_, name)| (*name).to_owned()));
        flags.extend(header.delete_horizon_ms().map(|ms| format!("delete-horizon={ms}")));
    }
    vec![
        entry.base_offset.to_string(),
        entry.last_offset.to_string(),
        header.map_or_else(none, |header| header.record_count.to_string()),
        entry.bytes.to_string(),
        entries.position().to_string(),
        attributes.codec_name().to_owned(),
        if entry.max_timestamp == NO_TIMESTAMP { none() } else { entry.max_timestamp.to_string() },
        known(i64::from(entry.leader_epoch)),
        header.map_or_else(none, |header| known(header.producer_id)),
        header.map_or_else(none, |header| known(i64::from(header.base_sequence))),
        flags.join(","),
    ]
}
