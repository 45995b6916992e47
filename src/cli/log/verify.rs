//! `ringlog log verify`: whether a start would find the files of partitions sound, and what a client would not.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::files::{
    Entries, PartitionDirectory, each_record, offset_entries, partitions_of, read_small, time_entries, unreadable,
};
use crate::base::ids::Offset;
use crate::storage::entry::Entry;
use crate::storage::leader_epoch::LeaderEpochs;
use crate::storage::producer_state::ProducerState;
use crate::storage::segment::{LOG, OFFSET_INDEX, SNAPSHOT, TIME_INDEX, TRANSACTION_INDEX, segment_path};
use crate::storage::transaction_index::TransactionIndex;
use ringlog_tools::failure::{EXIT_CODES, Failure};
use ringlog_tools::output::Output;
use ringlog_tools::table::{Column, Table, human_bytes};

const EXAMPLES: &str = "\
Examples:
  ringlog log verify /var/lib/kafka                 every partition in it
  ringlog log verify /var/lib/kafka/orders-0        one
  ringlog log verify --heads ringlog-data           without the records inside the batches: much faster

Checked are checksums, offsets, leader epochs and records of all batches, and that indexes, snapshots and checkpoints
agree with them. What a start mends by itself (indexes that lack, the torn end of a log after a crash) is a note.
With damage the exit code is 1.";

/// What is wrong that is told of one partition; the rest is counted.
const FINDINGS_TOLD_MAX: usize = 20;

/// Check the files of partitions, without a broker
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct VerifyArguments {
    /// Directories of partitions, or data directories
    #[arg(required = true, value_name = "DIR")]
    paths: Vec<PathBuf>,

    /// Only checksums and heads of batches, not the records in them
    #[arg(long)]
    heads: bool,

    /// Print JSON, with exact numbers and stable names, for scripts
    #[arg(long)]
    json: bool,
}

/// Something found in a partition.
#[derive(Debug)]
struct Finding {
    /// Else a start mends it.
    is_damage: bool,
    path: PathBuf,
    what: String,
}

/// One partition, looked through.
#[derive(Debug, Default)]
struct Report {
    segments: u64,
    bytes: u64,
    batches: u64,
    records: u64,
    /// First and last offset that there are.
    first: Option<Offset>,
    last: Option<Offset>,
    findings: Vec<Finding>,
    left_out: u64,
    damaged: u64,
}

impl Report {
    fn find(&mut self, is_damage: bool, path: &Path, what: String) {
        self.damaged += u64::from(is_damage);
        match self.findings.len() < FINDINGS_TOLD_MAX {
            true => self.findings.push(Finding { is_damage, path: path.to_owned(), what }),
            false => self.left_out += 1,
        }
    }

    fn damage(&mut self, path: &Path, what: String) {
        self.find(true, path, what);
    }

    fn note(&mut self, path: &Path, what: String) {
        self.find(false, path, what);
    }
}

pub fn run(arguments: &VerifyArguments) -> Result<(), Failure> {
    let mut output = Output::new()?;
    let mut table = Table::new(&[
        Column::Text("PARTITION"),
        Column::Number("SEGMENTS"),
        Column::Number("BATCHES"),
        Column::Number("RECORDS"),
        Column::Number("SIZE"),
        Column::Number("FIRST"),
        Column::Number("LAST"),
        Column::Text("STATE"),
    ]);
    let (mut damaged, mut partitions) = (0, Vec::new());
    for path in &arguments.paths {
        partitions.extend(partitions_of(path)?);
    }
    for directory in &partitions {
        let report = verify(directory, arguments.heads)?;
        damaged += u64::from(report.damaged > 0);
        if arguments.json {
            output.json(&json_of(directory, &report))?;
            continue;
        }
        for Finding { is_damage, path, what } in &report.findings {
            let kind = if *is_damage { "damage" } else { "note" };
            output.line(&format!("{kind}: {}: {what}", path.display()))?;
        }
        if report.left_out > 0 {
            output.line(&format!("... and {} more in {}", report.left_out, directory.path.display()))?;
        }
        let offset = |offset: Option<Offset>| offset.map_or_else(|| "-".to_owned(), |offset| offset.to_string());
        table.row(vec![
            directory.path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
            report.segments.to_string(),
            report.batches.to_string(),
            if arguments.heads { "-".to_owned() } else { report.records.to_string() },
            human_bytes(report.bytes as i64),
            offset(report.first),
            offset(report.last),
            if report.damaged > 0 { "damaged" } else { "sound" }.to_owned(),
        ]);
    }
    if !arguments.json {
        output.table(&table)?;
    }
    output.finish()?;
    match damaged {
        0 => Ok(()),
        count => Err(Failure::Refused(format!(
            "{count} of {} partitions {} damaged; a broker keeps such a partition offline and says what to do",
            partitions.len(),
            if count == 1 { "is" } else { "are" }
        ))),
    }
}

fn json_of(directory: &PartitionDirectory, report: &Report) -> Value {
    let finding = |finding: &Finding| {
        json!({
            "damage": finding.is_damage,
            "file": finding.path.to_string_lossy(),
            "what": finding.what,
        })
    };
    json!({
        "topic": &*directory.partition.topic,
        "partition": directory.partition.partition,
        "path": directory.path.to_string_lossy(),
        "segments": report.segments,
        "batches": report.batches,
        "records": report.records,
        "bytes": report.bytes,
        "first_offset": report.first,
        "last_offset": report.last,
        "damaged": report.damaged > 0,
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
        "findings_left_out": report.left_out,
    })
}

/// Looks through one partition.
///
/// # Errors
/// Files that can't be read; what is wrong in those that can is in the report.
fn verify(directory: &PartitionDirectory, heads_only: bool) -> Result<Report, Failure> {
    let segments = directory.segments()?;
    let mut report = Report { segments: segments.len() as u64, ..Report::default() };
    if segments.is_empty() {
        report.note(&directory.path, "no segment; a start makes one".to_owned());
    }
    let mut walk = Walk { heads_only, next_offset: segments.first().copied().unwrap_or(0), leader_epoch: -1 };
    for (index, base_offset) in segments.iter().enumerate() {
        let next_base = segments.get(index + 1).copied();
        walk.segment(&directory.path, *base_offset, next_base, &mut report)?;
        small_files(&directory.path, *base_offset, &mut report)?;
    }
    let path = directory.path.join("leader-epoch-checkpoint");
    match read_small(&path)?.map(|file| LeaderEpochs::parse(&file)) {
        Some(Ok(epochs)) if epochs.latest().is_some_and(|latest| latest < walk.leader_epoch) => {
            report.note(&path, format!("does not know leader epoch {}, which the log has", walk.leader_epoch));
        }
        Some(Err(error)) => report.damage(&path, error.to_string()),
        Some(Ok(_)) | None => {}
    }
    Ok(report)
}

/// Transaction index and snapshot of a segment.
fn small_files(directory: &Path, base_offset: Offset, report: &mut Report) -> Result<(), Failure> {
    let path = segment_path(directory, base_offset, TRANSACTION_INDEX);
    if let Some(Err(error)) = read_small(&path)?.map(|file| TransactionIndex::parse(base_offset, &file)) {
        report.damage(&path, error.to_string());
    }
    let path = segment_path(directory, base_offset, SNAPSHOT);
    if let Some(Err(error)) = read_small(&path)?.map(|file| ProducerState::decode_snapshot(&file)) {
        report.note(&path, format!("{error}; a start does without it"));
    }
    Ok(())
}

/// What goes from batch to batch.
struct Walk {
    heads_only: bool,
    /// The next batch begins here or later.
    next_offset: Offset,
    leader_epoch: i32,
}

/// The entries of an index that are still to come while its segment is walked through.
struct Pending<T> {
    path: PathBuf,
    entries: std::iter::Peekable<std::vec::IntoIter<T>>,
}

impl<T> Pending<T> {
    /// `may_lack`: of the last segment, whose index begins when it has something to say.
    fn read(
        path: PathBuf,
        may_lack: bool,
        report: &mut Report,
        decode: impl FnOnce(&[u8]) -> Vec<T>,
        is_order: impl Fn(&T, &T) -> bool,
    ) -> Result<Pending<T>, Failure> {
        let entries = match read_small(&path)? {
            Some(file) => decode(&file),
            None => {
                if !may_lack {
                    report.note(&path, "is not there; a start makes it anew".to_owned());
                }
                Vec::new()
            }
        };
        if let Some(at) = entries.windows(2).position(|pair| !is_order(&pair[0], &pair[1])) {
            report.note(&path, format!("entry {} does not follow the one before; a start makes it anew", at + 1));
        }
        Ok(Pending { path, entries: entries.into_iter().peekable() })
    }
}

impl Walk {
    fn segment(
        &mut self,
        directory: &Path,
        base_offset: Offset,
        next_base: Option<Offset>,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let path = segment_path(directory, base_offset, LOG);
        let mut offsets = Pending::read(
            segment_path(directory, base_offset, OFFSET_INDEX),
            next_base.is_none(),
            report,
            |file| offset_entries(base_offset, file),
            |one, next| one.0 < next.0 && one.1 < next.1,
        )?;
        let mut times = Pending::read(
            segment_path(directory, base_offset, TIME_INDEX),
            next_base.is_none(),
            report,
            |file| time_entries(base_offset, file),
            |one, next| one.0 <= next.0 && one.1 <= next.1,
        )?;
        // An index that has nothing to say has one entry of zeros, or none.
        offsets.entries.next_if_eq(&(base_offset, 0));
        times.entries.next_if_eq(&(0, base_offset));
        let mut entries = Entries::open(&path, 0, u64::MAX)?;
        let mut max_timestamp = -1;
        while let Some(entry) = entries.next().map_err(|error| unreadable(&path, &error))? {
            max_timestamp = max_timestamp.max(entry.max_timestamp);
            self.batch(&path, &entry, &entries, base_offset, next_base, report);
            let position = entries.position();
            while let Some((offset, at)) = offsets.entries.next_if(|(_, at)| u64::from(*at) <= position) {
                if u64::from(at) != position || offset != entry.last_offset {
                    let what = format!("offset {offset} is said to be at {at}, where no batch ends with it");
                    report.note(&offsets.path, format!("{what}; a start makes it anew"));
                }
            }
            while let Some((timestamp, offset)) = times.entries.next_if(|(_, offset)| *offset <= entry.last_offset) {
                if timestamp > max_timestamp {
                    let what = format!("no record up to offset {offset} is as late as {timestamp}");
                    report.note(&times.path, format!("{what}; a start makes it anew"));
                }
            }
        }
        report.bytes += entries.read_bytes();
        let left = entries.left_bytes();
        if left > 0 {
            let at = format!("the last {left} bytes are no whole batch");
            match next_base {
                None => report.note(&path, format!("{at}: being written now, or torn; then a start cuts them off")),
                Some(_) => report.damage(&path, at),
            }
        }
        for (path, count) in [(&offsets.path, offsets.entries.len()), (&times.path, times.entries.len())] {
            if count > 0 {
                report.note(path, format!("{count} entries point behind the end; a start makes it anew"));
            }
        }
        Ok(())
    }

    fn batch(
        &mut self,
        path: &Path,
        entry: &Entry,
        entries: &Entries,
        base_offset: Offset,
        next_base: Option<Offset>,
        report: &mut Report,
    ) {
        let at = |what: String| format!("at {} (offset {}): {what}", entries.position(), entry.base_offset);
        report.batches += 1;
        if !entry.is_valid(entries.bytes()) {
            report.damage(path, at("the checksum is wrong".to_owned()));
        }
        // The head of a compressed message of magic 0 or 1 knows its last offset only.
        if entry.last_offset < self.next_offset.max(base_offset)
            || entry.header.is_some() && entry.base_offset < self.next_offset.max(base_offset)
        {
            let wanted = self.next_offset.max(base_offset);
            report.damage(path, at(format!("offset {wanted} or a later one is due")));
        }
        if next_base.is_some_and(|next_base| entry.last_offset >= next_base) {
            report.damage(path, at("it reaches into the next segment".to_owned()));
        }
        if entry.leader_epoch < self.leader_epoch {
            let before = self.leader_epoch;
            report.damage(path, at(format!("leader epoch {} after {before}", entry.leader_epoch)));
        }
        self.leader_epoch = self.leader_epoch.max(entry.leader_epoch);
        self.next_offset = entry.last_offset + 1;
        report.first = report.first.or(Some(entry.base_offset));
        report.last = Some(entry.last_offset);
        if self.heads_only {
            return;
        }
        let (mut before, mut records) = (None, 0);
        let walked = each_record(entry, entries.bytes(), |record, _| {
            let in_batch = record.offset <= entry.last_offset
                && (entry.header.is_none() || record.offset >= entry.base_offset)
                && before.is_none_or(|before| record.offset > before);
            before = Some(record.offset);
            records += 1;
            if in_batch { Ok(()) } else { Err(format!("a record has offset {}", record.offset)) }
        });
        report.records += records;
        if let Err(error) = walked {
            report.damage(path, at(error));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn golden(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/kafka-3.9/unclean").join(name)
    }

    fn copy_of(name: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("made");
        let copy = directory.path().join(name);
        fs::create_dir(&copy).expect("made");
        for entry in fs::read_dir(golden(name)).expect("there") {
            let entry = entry.expect("readable");
            fs::copy(entry.path(), copy.join(entry.file_name())).expect("copied");
        }
        (directory, copy)
    }

    fn report_of(path: &Path) -> Report {
        let directories = partitions_of(path).expect("there");
        assert_eq!(directories.len(), 1);
        verify(&directories[0], false).expect("readable")
    }

    #[test]
    fn what_kafka_left_when_it_was_killed_is_sound() {
        for directory in partitions_of(&golden("")).expect("there") {
            let report = verify(&directory, false).expect("readable");
            assert_eq!(report.damaged, 0, "{directory:?}: {report:?}");
        }
        let rolled = report_of(&golden("rolled-0"));
        assert_eq!((rolled.segments, rolled.first, rolled.findings.len()), (25, Some(0), 0), "{rolled:?}");
        assert_eq!(rolled.records as i64, rolled.last.expect("records") + 1);
    }

    #[test]
    fn a_bit_flipped_anywhere_behind_a_batchs_leader_epoch_is_found() {
        const CHECKED_FROM: u64 = 16;
        let (_directory, copy) = copy_of("codec-zstd-0");
        let log = segment_path(&copy, 0, LOG);
        let sound = fs::read(&log).expect("there");
        let mut entries = Entries::open(&log, 0, u64::MAX).expect("there");
        let mut places = Vec::new();
        while let Some(entry) = entries.next().expect("readable") {
            places.extend((CHECKED_FROM..entry.bytes).step_by(13).map(|byte| (entries.position() + byte) as usize));
        }
        assert!(places.len() > 20);
        for place in places {
            let mut bytes = sound.clone();
            bytes[place] ^= 1 << (place % 8);
            fs::write(&log, &bytes).expect("written");
            let report = report_of(&copy);
            assert!(!report.findings.is_empty(), "byte {place} of {}", sound.len());
        }
        fs::write(&log, &sound).expect("written");
        assert_eq!(report_of(&copy).damaged, 0);
    }

    #[test]
    fn a_torn_end_is_a_note_in_the_last_segment_and_damage_in_another() {
        let (_directory, copy) = copy_of("rolled-0");
        for (base_offset, damaged) in [(1920, 0), (80, 1)] {
            let log = segment_path(&copy, base_offset, LOG);
            let bytes = fs::read(&log).expect("there");
            fs::write(&log, &bytes[..bytes.len() - 3]).expect("written");
            let report = report_of(&copy);
            assert_eq!(report.damaged, damaged, "{report:?}");
            assert!(report.findings.iter().any(|finding| finding.what.contains("no whole batch")), "{report:?}");
        }
    }

    #[test]
    fn an_index_that_does_not_fit_its_log_is_a_note() {
        let (_directory, copy) = copy_of("rolled-0");
        let index = segment_path(&copy, 80, OFFSET_INDEX);
        let mut bytes = fs::read(&index).expect("there");
        bytes[7] ^= 1;
        fs::write(&index, bytes).expect("written");
        fs::remove_file(segment_path(&copy, 160, TIME_INDEX)).expect("removed");
        let report = report_of(&copy);
        assert_eq!((report.damaged, report.findings.len()), (0, 2), "{report:?}");
    }
}
