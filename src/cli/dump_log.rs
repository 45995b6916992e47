//! `kafka-dump-log.sh`, as Kafka 3.9's `DumpLogSegments` prints it.
//!
//! Of its decoders there are those of strings, numbers, and the topics of groups and transactions; those of KRaft and of
//! tiered storage are refused: there are no such records where there is ZooKeeper and all logs are local.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;

use ringlog_tools::kafka::{group_records, transaction_records};

use crate::base::ids::Offset;
use crate::cli::log::files::{
    Attributes, Entries, RecordPlace, damaged, each_record, offset_entries, read_small, time_entries, unreadable,
};
use crate::client::consumer::RecordRef;
use crate::record::batch::{NO_TIMESTAMP, TimestampType, increment_sequence};
use crate::storage::entry::Entry;
use crate::storage::producer_state::decode_entries;
use crate::storage::segment::{LOG, OFFSET_INDEX, SNAPSHOT, TIME_INDEX, TRANSACTION_INDEX, parse_segment_name};
use crate::storage::transaction_index::TransactionIndex;
use crate::storage::{offset_index, time_index};
use ringlog_tools::failure::{Failure, say};
use ringlog_tools::output::Output;

/// Versions of control records (`EndTransactionMarker`) stand in their keys: version i16, type i16.
const ABORT: i16 = 0;
const COMMIT: i16 = 1;

/// An entry's offset, its size, and what tells its magic (Kafka 3.9 `Records.HEADER_SIZE_UP_TO_MAGIC`).
const HEAD_BYTES_OF_ANY: usize = 17;
/// Where an entry's size stands, behind its offset.
const SIZE_AT: usize = 8;
/// Of the smallest entry (Kafka 3.9 `LegacyRecord.RECORD_OVERHEAD_V0`).
const ENTRY_SIZE_MIN: i32 = 14;

/// kafka-dump-log.sh: what log segments, indexes and snapshots hold, and whether they fit together
#[derive(Args, Debug)]
pub struct DumpLogArguments {
    /// The files to show: .log, .index, .timeindex, .txnindex and .snapshot
    #[arg(long, required = true, value_name = "file1, file2, ...", value_delimiter = ',')]
    files: Vec<PathBuf>,

    /// Print the records' contents
    #[arg(long)]
    print_data_log: bool,

    /// Go through the records of each batch; set by --print-data-log too
    #[arg(long)]
    deep_iteration: bool,

    /// Only check indexes against the log, without printing them
    #[arg(long)]
    verify_index_only: bool,

    /// Only check what a broker's start checks of indexes
    #[arg(long)]
    index_sanity_check: bool,

    /// Bytes of a log to read at most
    #[arg(long, value_name = "size", default_value_t = i32::MAX, value_parser = clap::value_parser!(i32).range(0..))]
    max_bytes: i32,

    /// Size of the largest message; without effect here, batches of any size are read
    #[arg(long, value_name = "size", default_value_t = 5 * 1024 * 1024)]
    max_message_size: i32,

    /// Leave out all of a record but key and payload
    #[arg(long)]
    skip_record_metadata: bool,

    /// StringDecoder, IntegerDecoder or LongDecoder, of Kafka's
    #[arg(long, value_name = "class", num_args = 0..=1, default_missing_value = "StringDecoder", value_parser = decoder)]
    key_decoder_class: Option<Decoder>,

    /// StringDecoder, IntegerDecoder or LongDecoder, of Kafka's
    #[arg(long, value_name = "class", num_args = 0..=1, default_missing_value = "StringDecoder", value_parser = decoder)]
    value_decoder_class: Option<Decoder>,

    /// Records are those of __consumer_offsets
    #[arg(long)]
    offsets_decoder: bool,

    /// Records are those of __transaction_state
    #[arg(long)]
    transaction_log_decoder: bool,

    /// Records are those of KRaft, which is not there
    #[arg(long, hide = true)]
    cluster_metadata_decoder: bool,

    /// Records are those of tiered storage, which is not there
    #[arg(long, hide = true)]
    remote_log_metadata_decoder: bool,
}

impl DumpLogArguments {
    fn check(&self) -> Result<(), Failure> {
        let why = if self.cluster_metadata_decoder {
            "--cluster-metadata-decoder is for KRaft's log, which a cluster with ZooKeeper or an embedded tree does not \
             have; leave it out"
        } else if self.remote_log_metadata_decoder {
            "--remote-log-metadata-decoder is for tiered storage, which is not there: all logs are local; leave it out"
        } else {
            return Ok(());
        };
        Err(Failure::Usage(why.to_owned()))
    }

    /// Any decoder asks for the contents.
    fn prints_contents(&self) -> bool {
        self.print_data_log
            || self.offsets_decoder
            || self.transaction_log_decoder
            || self.key_decoder_class.is_some()
            || self.value_decoder_class.is_some()
    }
}

/// How a key or a value is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decoder {
    Text,
    Integer,
    Long,
    /// One of those under its older name.
    Deprecated(&'static Decoder),
}

fn decoder(class: &str) -> Result<Decoder, String> {
    let (package, name) = class.rsplit_once('.').unwrap_or(("", class));
    let decoder = match name {
        "StringDecoder" => &Decoder::Text,
        "IntegerDecoder" => &Decoder::Integer,
        "LongDecoder" => &Decoder::Long,
        "DefaultDecoder" => {
            return Err("it shows addresses of arrays only; StringDecoder shows what is in them".to_owned());
        }
        _ => {
            return Err(
                "there are StringDecoder, IntegerDecoder and LongDecoder here; Java classes can't be loaded".to_owned()
            );
        }
    };
    Ok(if package == "kafka.serializer" { Decoder::Deprecated(decoder) } else { *decoder })
}

/// How records are shown.
enum Parser {
    Decoders { key: Decoder, value: Decoder },
    Offsets,
    Transactions,
}

impl Parser {
    fn of(arguments: &DumpLogArguments) -> Parser {
        match arguments {
            DumpLogArguments { offsets_decoder: true, .. } => Parser::Offsets,
            DumpLogArguments { transaction_log_decoder: true, .. } => Parser::Transactions,
            DumpLogArguments { key_decoder_class, value_decoder_class, .. } => Parser::Decoders {
                key: key_decoder_class.unwrap_or(Decoder::Text),
                value: value_decoder_class.unwrap_or(Decoder::Text),
            },
        }
    }

    /// Kafka's words on decoders' older names.
    fn warnings(&self) -> Vec<String> {
        let Parser::Decoders { key, value } = self else { return Vec::new() };
        let warning = |decoder: &Decoder| match decoder {
            Decoder::Deprecated(decoder) => Some(format!(
                "kafka.serializer.{0} is deprecated. Please use org.apache.kafka.tools.api.{0} instead",
                decoder.name()
            )),
            _ => None,
        };
        [value, key].into_iter().filter_map(warning).collect()
    }

    /// What is shown of key and value, of each if it is there.
    fn show(&self, record: &RecordRef<'_>) -> Result<(Option<String>, Option<String>), String> {
        let whole = |(key, value)| (Some(key), value);
        match self {
            Parser::Decoders { key, value } => {
                Ok((record.key.map(|bytes| key.show(bytes)), record.value.map(|bytes| value.show(bytes))))
            }
            Parser::Offsets => group_records::show(record.offset, record.key, record.value).map(whole),
            Parser::Transactions => transaction_records::show(record.offset, record.key, record.value).map(whole),
        }
    }
}

impl Decoder {
    fn name(self) -> &'static str {
        match self {
            Decoder::Text => "StringDecoder",
            Decoder::Integer => "IntegerDecoder",
            Decoder::Long => "LongDecoder",
            Decoder::Deprecated(decoder) => decoder.name(),
        }
    }

    fn show(self, bytes: &[u8]) -> String {
        let number = |length: usize| {
            let number = bytes.iter().fold(0i64, |number, byte| number << 8 | i64::from(*byte));
            if bytes.len() == length { number.to_string() } else { format!("({} bytes)", bytes.len()) }
        };
        match self {
            Decoder::Text => String::from_utf8_lossy(bytes).into_owned(),
            Decoder::Integer => {
                number(4).parse::<i64>().map_or_else(|text| text.to_string(), |n| (n as i32).to_string())
            }
            Decoder::Long => number(8),
            Decoder::Deprecated(decoder) => decoder.show(bytes),
        }
    }
}

pub fn run(arguments: &DumpLogArguments) -> Result<(), Failure> {
    arguments.check()?;
    let mut dump = Dump { arguments, output: Output::new()?, errors: Errors::default() };
    for path in &arguments.files {
        dump.output.line(&format!("Dumping {}", path.display()))?;
        dump.file(path)?;
    }
    let Dump { output, errors, .. } = dump;
    output.finish()?;
    errors.tell();
    Ok(())
}

/// What does not fit, by file; told on standard error when all is printed.
#[derive(Default)]
struct Errors {
    index_mismatches: BTreeMap<PathBuf, Vec<(Offset, Offset)>>,
    time_mismatches: BTreeMap<PathBuf, Vec<(i64, i64)>>,
    time_disorders: BTreeMap<PathBuf, Vec<(i64, i64)>>,
    offsets_not_found: BTreeMap<PathBuf, Vec<(Offset, Offset)>>,
    gaps: BTreeMap<PathBuf, Vec<(Offset, Offset)>>,
}

impl Errors {
    fn tell(&self) {
        let each = |found: &BTreeMap<PathBuf, Vec<(i64, i64)>>, head: &str, line: &dyn Fn(i64, i64) -> String| {
            for (path, pairs) in found {
                say(&format!("{head}{}", path.display()));
                pairs.iter().for_each(|(one, other)| say(&line(*one, *other)));
            }
        };
        each(&self.index_mismatches, "Mismatches in :", &|index, log| {
            format!("  Index offset: {index}, log offset: {log}")
        });
        each(&self.time_mismatches, "Found timestamp mismatch in :", &|index, log| {
            format!("  Index timestamp: {index}, log timestamp: {log}")
        });
        each(&self.time_disorders, "Found out of order timestamp in :", &|index, before| {
            format!("  Index timestamp: {index}, Previously indexed timestamp: {before}")
        });
        // Kafka names no file here.
        for pairs in self.offsets_not_found.values() {
            say("The following indexed offsets are not found in the log.");
            for (indexed, found) in pairs {
                say(&format!("Indexed offset: {indexed}, found log offset: {found}"));
            }
        }
        each(&self.gaps, "Non-consecutive offsets in ", &|first, second| format!("  {first} is followed by {second}"));
    }
}

struct Dump<'a> {
    arguments: &'a DumpLogArguments,
    output: Output,
    errors: Errors,
}

impl Dump<'_> {
    fn file(&mut self, path: &Path) -> Result<(), Failure> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match parse_segment_name(name) {
            Some((base_offset, LOG)) => self.log(path, base_offset),
            Some((base_offset, OFFSET_INDEX)) => self.offset_index(path, base_offset),
            Some((base_offset, TIME_INDEX)) => self.time_index(path, base_offset),
            Some((_, SNAPSHOT)) => self.snapshot(path),
            Some((base_offset, TRANSACTION_INDEX)) => self.transaction_index(path, base_offset),
            _ => {
                self.output.flush(None)?;
                // Kafka ends with an exception where the suffix is known and no offset stands before it, and at a name
                // without a suffix.
                match name.rsplit_once('.') {
                    Some((_, LOG | OFFSET_INDEX | TIME_INDEX | SNAPSHOT | TRANSACTION_INDEX)) | None => {
                        let reason = format!("{} is not named as a segment's file: OFFSET.SUFFIX", path.display());
                        Err(Failure::Refused(reason))
                    }
                    Some(_) => {
                        say(&format!("Ignoring unknown file {}", path.display()));
                        Ok(())
                    }
                }
            }
        }
    }

    fn log(&mut self, path: &Path, base_offset: Offset) -> Result<(), Failure> {
        let DumpLogArguments { deep_iteration, skip_record_metadata, max_bytes, .. } = self.arguments;
        let (parser, contents) = (Parser::of(self.arguments), self.arguments.prints_contents());
        parser.warnings().iter().try_for_each(|warning| self.output.line(warning))?;
        self.output.line(&format!("Log starting offset: {base_offset}"))?;
        let mut entries = Entries::open(path, 0, *max_bytes as u64)?;
        let (mut before, mut gaps) = (None, Vec::new());
        while let Some(entry) = entries.next().map_err(|error| unreadable(path, &error))? {
            let attributes = Attributes::of(&entry, entries.bytes());
            self.output.line(&batch_line(&entry, &attributes, &entries))?;
            if !contents && !*deep_iteration {
                continue;
            }
            let out = self.output.buffer();
            let walked = each_record(&entry, entries.bytes(), |record, place| {
                if let Some(before) = before.replace(record.offset)
                    && record.offset != before + 1
                {
                    gaps.push((before, record.offset));
                }
                if !*skip_record_metadata {
                    out.extend_from_slice(b"| ");
                    put_metadata(out, &entry, &attributes, record, place);
                }
                if contents && !entry.header.is_some_and(|header| header.is_control()) {
                    let (key, value) = parser.show(record)?;
                    if let Some(key) = key {
                        let before = if *skip_record_metadata { "|" } else { "" };
                        let _ = write!(out, "{before} key: {key}");
                    }
                    if let Some(value) = value {
                        let _ = write!(out, " payload: {value}");
                    }
                }
                out.push(b'\n');
                Ok(())
            });
            self.output.spill(None)?;
            if let Err(error) = walked {
                self.output.flush(None)?;
                return Err(damaged(path, format!("at {}: {error}", entries.position())));
            }
        }
        if !gaps.is_empty() {
            // Kafka lists the last one first.
            gaps.reverse();
            self.errors.gaps.insert(absolute(path), gaps);
        }
        if let Some(size) = impossible_size(&entries) {
            self.output.flush(None)?;
            return Err(damaged(
                path,
                format!("at {}: an entry of {size} bytes, fewer than any has", entries.read_bytes()),
            ));
        }
        if entries.left_bytes() > 0 && *max_bytes == i32::MAX {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            self.output.line(&format!("Found {} invalid bytes at the end of {name}", entries.left_bytes()))?;
        }
        Ok(())
    }

    fn offset_index(&mut self, path: &Path, base_offset: Offset) -> Result<(), Failure> {
        let file = read(path)?;
        let entries = offset_entries(base_offset, &file);
        if file.is_empty() {
            return self.output.line(&format!("{} is empty.", path.display()));
        }
        if self.arguments.index_sanity_check {
            let is_sane = file.len().is_multiple_of(offset_index::ENTRY_BYTES)
                && entries.last().is_some_and(|last| last.0 >= base_offset);
            return self.sanity(path, is_sane);
        }
        let log = path.with_extension(LOG);
        let mut mismatches = Vec::new();
        for (offset, position) in entries {
            let found = entry_at(&log, u64::from(position))?.map_or(-1, |entry| entry.last_offset);
            if found != offset {
                mismatches.push((offset, found));
            }
            if !self.arguments.verify_index_only {
                self.output.line(&format!("offset: {offset} position: {position}"))?;
            }
        }
        if !mismatches.is_empty() {
            mismatches.reverse();
            self.errors.index_mismatches.insert(absolute(path), mismatches);
        }
        Ok(())
    }

    fn time_index(&mut self, path: &Path, base_offset: Offset) -> Result<(), Failure> {
        let file = read(path)?;
        let entries = time_entries(base_offset, &file);
        if self.arguments.index_sanity_check {
            // As the file is, with the zeros behind its entries that a killed Kafka leaves (`TimeIndex.sanityCheck`).
            let timestamps = file.as_chunks::<{ time_index::ENTRY_BYTES }>().0.iter().map(|entry| {
                let [timestamp @ .., _, _, _, _] = *entry;
                i64::from_be_bytes(timestamp)
            });
            let (first, last) = (timestamps.clone().next(), timestamps.clone().next_back());
            return self.sanity(path, file.len().is_multiple_of(time_index::ENTRY_BYTES) && first <= last);
        }
        let offsets = offset_entries(base_offset, &read_small(&path.with_extension(OFFSET_INDEX))?.unwrap_or_default());
        let log = path.with_extension(LOG);
        let mut timestamp_before = NO_TIMESTAMP;
        for (timestamp, offset) in entries {
            match self.max_timestamp_at(&log, &offsets, offset)? {
                Err(found) => self.errors.offsets_not_found.entry(absolute(path)).or_default().push((offset, found)),
                Ok(found) => {
                    let pairs = |map: &mut BTreeMap<PathBuf, Vec<_>>, pair| {
                        map.entry(absolute(path)).or_default().push(pair);
                    };
                    if found != timestamp {
                        pairs(&mut self.errors.time_mismatches, (timestamp, found));
                    }
                    if timestamp_before >= timestamp {
                        pairs(&mut self.errors.time_disorders, (timestamp, timestamp_before));
                    }
                }
            }
            if !self.arguments.verify_index_only {
                self.output.line(&format!("timestamp: {timestamp} offset: {offset}"))?;
            }
            timestamp_before = timestamp;
        }
        Ok(())
    }

    /// The latest timestamp in the batch that ends with `offset`; the error is where the first batch that reaches so far
    /// ends, -1 if none does.
    fn max_timestamp_at(
        &self,
        log: &Path,
        offsets: &[(Offset, u32)],
        offset: Offset,
    ) -> Result<Result<i64, Offset>, Failure> {
        let below = offsets.partition_point(|(indexed, _)| *indexed <= offset);
        let position = below.checked_sub(1).map_or(0, |at| u64::from(offsets[at].1));
        let mut entries = Entries::open(log, position, u64::MAX)?;
        while let Some(entry) = entries.next().map_err(|error| unreadable(log, &error))? {
            if entry.last_offset < offset {
                continue;
            }
            if entry.last_offset != offset {
                return Ok(Err(entry.last_offset));
            }
            let mut latest = NO_TIMESTAMP;
            each_record(&entry, entries.bytes(), |record, _| {
                latest = latest.max(record.timestamp);
                Ok(())
            })
            .map_err(|error| damaged(log, error))?;
            return Ok(Ok(latest));
        }
        Ok(Err(-1))
    }

    fn sanity(&mut self, path: &Path, is_sane: bool) -> Result<(), Failure> {
        match is_sane {
            true => self.output.line(&format!("{} passed sanity check.", path.display())),
            false => Err(damaged(path, "it did not pass the sanity check; a broker's start makes it anew")),
        }
    }

    fn snapshot(&mut self, path: &Path) -> Result<(), Failure> {
        let file = read(path)?;
        let entries = match decode_entries(&file) {
            Ok(entries) => entries,
            Err(error) => {
                say(&error.to_string());
                return Ok(());
            }
        };
        for entry in entries {
            let mut line = format!(
                "producerId: {} producerEpoch: {} coordinatorEpoch: {} currentTxnFirstOffset: {} lastTimestamp: {} ",
                entry.producer_id,
                entry.producer_epoch,
                entry.coordinator_epoch,
                optional(entry.transaction_first_offset),
                entry.last_timestamp
            );
            if let Some((last_sequence, last_offset, offset_delta)) = entry.last_batch {
                let first_sequence = increment_sequence(last_sequence, -offset_delta);
                line.push_str(&format!(
                    "firstSequence: {first_sequence} lastSequence: {last_sequence} lastOffset: {last_offset} \
                     offsetDelta: {offset_delta} timestamp: {}",
                    entry.last_timestamp
                ));
            }
            self.output.line(&line)?;
        }
        Ok(())
    }

    fn transaction_index(&mut self, path: &Path, base_offset: Offset) -> Result<(), Failure> {
        // Most segments have none, which is no error.
        let file = read_small(path)?.unwrap_or_default();
        let index = TransactionIndex::parse(base_offset, &file).map_err(|error| damaged(path, error))?;
        for entry in index.entries() {
            self.output.line(&format!(
                "version: 0 producerId: {} firstOffset: {} lastOffset: {} lastStableOffset: {}",
                entry.producer_id, entry.first_offset, entry.last_offset, entry.last_stable_offset
            ))?;
        }
        Ok(())
    }
}

/// The size that bytes behind the last whole entry give for themselves, if no entry can be so small: zeros, as a crash leaves
/// them. Kafka 3.9 `FileLogInputStream.nextBatch` breaks off there, but takes for a torn end what is too short for a header,
/// or says to be longer than there is.
fn impossible_size(entries: &Entries) -> Option<i32> {
    let is_head = entries.left_bytes() > HEAD_BYTES_OF_ANY as u64;
    let size = entries.bytes().get(SIZE_AT..)?.first_chunk().filter(|_| is_head)?;
    Some(i32::from_be_bytes(*size)).filter(|size| *size < ENTRY_SIZE_MIN)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    read_small(path)?.ok_or_else(|| Failure::Refused(format!("there is no file {}", path.display())))
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn entry_at(log: &Path, position: u64) -> Result<Option<Entry>, Failure> {
    Entries::open(log, position, u64::MAX)?.next().map_err(|error| unreadable(log, &error))
}

/// As Java prints an `OptionalLong`.
fn optional(number: Option<i64>) -> String {
    number.map_or_else(|| "OptionalLong.empty".to_owned(), |number| format!("OptionalLong[{number}]"))
}

fn timestamp_type(attributes: &Attributes) -> &'static str {
    match attributes.timestamp_type {
        Some(TimestampType::CreateTime) => "CreateTime",
        Some(TimestampType::LogAppendTime) => "LogAppendTime",
        None => "NoTimestampType",
    }
}

fn batch_line(entry: &Entry, attributes: &Attributes, entries: &Entries) -> String {
    let head = match &entry.header {
        None => format!("offset: {}", entry.last_offset),
        Some(header) => format!(
            "baseOffset: {} lastOffset: {} count: {} baseSequence: {} lastSequence: {} producerId: {} \
             producerEpoch: {} partitionLeaderEpoch: {} isTransactional: {} isControl: {} deleteHorizonMs: {}",
            header.base_offset,
            header.last_offset(),
            header.record_count,
            header.base_sequence,
            if header.base_sequence < 0 { -1 } else { header.last_sequence() },
            header.producer_id,
            header.producer_epoch,
            header.leader_epoch,
            header.is_transactional(),
            header.is_control(),
            optional(header.delete_horizon_ms())
        ),
    };
    format!(
        "{head} position: {} {}: {} size: {} magic: {} compresscodec: {} crc: {} isvalid: {}",
        entries.position(),
        timestamp_type(attributes),
        entry.max_timestamp,
        entry.bytes,
        attributes.magic,
        attributes.codec_name(),
        attributes.crc,
        entry.is_valid(entries.bytes())
    )
}

fn put_metadata(out: &mut Vec<u8>, entry: &Entry, attributes: &Attributes, record: &RecordRef<'_>, place: RecordPlace) {
    let bytes = |field: Option<&[u8]>| field.map_or(-1, |field| field.len() as i64);
    // Writing into memory does not fail.
    let _ = write!(
        out,
        "offset: {} {}: {} keySize: {} valueSize: {}",
        record.offset,
        timestamp_type(attributes),
        record.timestamp,
        bytes(record.key),
        bytes(record.value)
    );
    if let Some(checksum) = place.checksum {
        // The second brace is Kafka's.
        let _ = write!(out, " isValid: true crc: {checksum}}}");
        return;
    }
    let keys: Vec<_> = record.headers.iter().map(|(key, _)| String::from_utf8_lossy(key).into_owned()).collect();
    let _ = write!(out, " sequence: {} headerKeys: [{}]", place.sequence, keys.join(","));
    if entry.header.is_some_and(|header| header.is_control()) {
        put_control(out, record);
    }
}

fn put_control(out: &mut Vec<u8>, record: &RecordRef<'_>) {
    let number = |bytes: Option<&[u8]>, at: usize| {
        bytes
            .and_then(|bytes| bytes.get(at..))
            .and_then(|bytes| bytes.first_chunk::<2>())
            .map(|two| i16::from_be_bytes(*two))
    };
    let kind = number(record.key, 2);
    let epoch = record.value.and_then(|value| value.get(2..)).and_then(|rest| rest.first_chunk::<4>());
    let _ = match (kind, epoch) {
        (Some(kind @ (ABORT | COMMIT)), Some(epoch)) => {
            let name = if kind == COMMIT { "COMMIT" } else { "ABORT" };
            write!(out, " endTxnMarker: {name} coordinatorEpoch: {}", i32::from_be_bytes(*epoch))
        }
        (kind, _) => write!(out, " controlType: UNKNOWN({})", kind.unwrap_or(-1)),
    };
}
