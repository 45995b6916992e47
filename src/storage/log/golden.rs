//! Directories that Kafka 3.9 left, opened, read and closed: its bytes are ours.
//!
//! `tests/golden/kafka-3.9/unclean` is what a killed Kafka left; `clean` is the same after that Kafka recovered it and
//! stopped in order (without the `.log` files, which are the same bytes). `clean.json` holds what clients fetched from it.

use std::fs;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::*;
use crate::record::batch::{BatchHeader, Record, batches, decode_records};
use crate::sim::disk::FakeDisk;
use crate::sim::disk::tests::run;
use crate::storage::compaction::{CleanerBounds, Inline};
use crate::storage::log_dir::parse_directory_name;
use crate::storage::open_files::OpenFiles;

/// What that Kafka was started with.
fn config(topic: &str) -> LogConfig {
    let defaults = LogConfig { segment_bytes: 1 << 20, segment_index_bytes: 4096, ..LogConfig::default() };
    match topic {
        "rolled" => LogConfig { segment_bytes: 16384, index_interval_bytes: 1024, ..defaults },
        "deleted-records" => LogConfig { segment_bytes: 16384, ..defaults },
        "compacted" => LogConfig { segment_bytes: 16384, compacted: true, ..defaults },
        _ => defaults,
    }
}

fn golden(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/kafka-3.9").join(part)
}

fn partitions() -> Vec<TopicPartition> {
    let names = fs::read_dir(golden("unclean")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut partitions: Vec<_> = names.filter_map(|name| parse_directory_name(&name.to_string_lossy())).collect();
    partitions.sort();
    assert_eq!(partitions.len(), 29);
    partitions
}

/// The files of a golden partition by name.
fn files(part: &str, partition: &TopicPartition) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(golden(part).join(partition.to_string())).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).unwrap())).collect()
}

fn disk_with(files: &BTreeMap<String, Vec<u8>>, partition: &TopicPartition) -> FakeDisk {
    let disk = FakeDisk::new();
    let directory = Path::new("/data").join(partition.to_string());
    files.iter().for_each(|(name, data)| disk.put(&directory.join(name), data));
    disk
}

fn open(disk: &FakeDisk, partition: &TopicPartition, last_stop: LastStop) -> Log<FakeDisk> {
    try_open(disk, partition, last_stop).unwrap()
}

fn try_open(disk: &FakeDisk, partition: &TopicPartition, last_stop: LastStop) -> Result<Log<FakeDisk>, LogError> {
    run(Log::open(OpenLog {
        disk: disk.clone(),
        log_dir: "/data".into(),
        topic_partition: partition.clone(),
        topic_id: TopicId::ZERO,
        config: config(&partition.topic),
        last_stop,
        // Inside the producer ids' life time.
        wall: 1_795_305_900_000,
        open_files: OpenFiles::new(4),
        progress: Arc::default(),
    }))
}

fn log_start_offset(partition: &TopicPartition) -> Offset {
    let file = fs::read(golden("clean/log-start-offset-checkpoint")).unwrap();
    crate::storage::checkpoint::parse_offsets(&file).unwrap().get(partition).copied().unwrap_or(0)
}

/// The first 16 hex digits of the SHA-256, as `clean.json` has it; null for null.
fn digest(bytes: Option<&[u8]>) -> Value {
    bytes.map_or(Value::Null, |bytes| {
        Sha256::digest(bytes).iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>().into()
    })
}

/// A record as `clean.json` lists it: offset, timestamp, key, value, headers, codec of its batch, producer id, producer
/// epoch and base sequence of its batch, control.
fn listed(header: &BatchHeader, record: &Record) -> Value {
    let headers =
        record.headers.iter().map(|(key, value)| json!([String::from_utf8_lossy(key), digest(value.as_deref())]));
    json!([
        record.offset,
        record.timestamp,
        digest(record.key.as_deref()),
        digest(record.value.as_deref()),
        headers.collect::<Vec<_>>(),
        format!("{:?}", header.codec().unwrap()).to_lowercase(),
        header.producer_id,
        header.producer_epoch,
        header.base_sequence,
        header.is_control()
    ])
}

fn seen_by_clients(partition: &TopicPartition) -> Value {
    let json: Value = serde_json::from_slice(&fs::read(golden("clean.json")).unwrap()).unwrap();
    json[&partition.to_string()].clone()
}

/// The transactions that the records say were aborted: producer id, first offset, marker's offset.
fn aborted_by_records(log: &mut Log<FakeDisk>) -> Vec<(i64, Offset, Offset)> {
    let (mut open, mut aborted) = (BTreeMap::new(), Vec::new());
    for (header, records) in batches_in(log).into_iter().filter(|(header, _)| header.is_transactional()) {
        match (header.is_control(), records[0].key.as_deref()) {
            (false, _) => drop(open.entry(header.producer_id).or_insert(header.base_offset)),
            (true, Some([0, 0, 0, 0])) => {
                aborted.push((header.producer_id, open.remove(&header.producer_id).unwrap(), header.base_offset));
            }
            (true, _) => drop(open.remove(&header.producer_id)),
        }
    }
    aborted
}

fn batches_in(log: &mut Log<FakeDisk>) -> Vec<(BatchHeader, Vec<Record>)> {
    let mut out = Vec::new();
    let mut offset = log.log_start_offset();
    loop {
        match log.read(offset, 1 << 20, log.log_end_offset()) {
            Read::Range { range, .. } => {
                let bytes = range.file.bytes_at(range.position, range.length);
                for (header, batch) in batches(&bytes).map(Result::unwrap) {
                    out.push((header, decode_records(batch, 1 << 20).unwrap()));
                    offset = header.last_offset() + 1;
                }
            }
            Read::NeedSegment { base_offset } => {
                let loaded = run(log.load_segment(base_offset));
                log.finish_load_segment(loaded).unwrap();
            }
            Read::Empty => return out,
            other => panic!("{other:?}"),
        }
    }
}

/// What the log holds is what clients fetched from Kafka: records, ends, last stable offset, aborted transactions.
fn assert_served(log: &mut Log<FakeDisk>, partition: &TopicPartition) {
    let seen = seen_by_clients(partition);
    let all = batches_in(log);
    if seen.is_null() {
        // An internal topic, which no client was asked to read.
        return;
    }
    let records = all.iter().flat_map(|(header, records)| records.iter().map(move |record| listed(header, record)));
    assert_eq!(Value::Array(records.collect()), seen["records"], "{partition}");
    let end = log.log_end_offset();
    assert_eq!(json!(log.log_start_offset()), seen["log_start_offset"], "{partition}");
    assert_eq!(json!(end), seen["log_end_offset"], "{partition}");
    assert_eq!(json!(log.last_stable_offset(end)), seen["last_stable_offset"], "{partition}");

    let aborted_in = |log: &Log<FakeDisk>, from, end| {
        log.aborted_transactions(from, end).map_or(Vec::new(), |found| run(found).unwrap())
    };
    let aborted: Vec<_> = aborted_in(log, 0, end)
        .iter()
        .map(|found| (found.producer_id, found.first_offset, found.last_offset))
        .collect();
    assert_eq!(aborted, aborted_by_records(log), "{partition}");
    assert_eq!(aborted.len(), if &*partition.topic == "txn" { 2 } else { 0 });
    // The fetch that was recorded began at 0 and found the first segment, which holds no aborted transaction.
    assert!(aborted_in(log, 0, log.segment_end_offset(0).min(end)).is_empty() && seen["aborted"] == json!([]));
    for (_, first_offset, last_offset) in aborted {
        let found = |from, end| aborted_in(log, from, end).iter().any(|found| found.first_offset == first_offset);
        assert!(found(first_offset, first_offset + 1) && found(last_offset, end));
        assert!(!found(0, first_offset) && !found(last_offset + 1, end));
    }
}

#[test]
fn a_killed_kafkas_directory_is_recovered_and_closed_to_the_bytes_that_kafka_made_of_it() {
    for partition in partitions() {
        let disk = disk_with(&files("unclean", &partition), &partition);
        let log_start_offset = log_start_offset(&partition);
        let mut log = open(&disk, &partition, LastStop { unclean: true, log_start_offset, ..LastStop::default() });
        assert_served(&mut log, &partition);
        run(log.close()).unwrap();
        let directory = Path::new("/data").join(partition.to_string());
        for (name, data) in files("clean", &partition) {
            let ours = disk.contents(&directory.join(&name));
            assert_eq!(ours.unwrap(), data, "{partition} {name}");
        }
    }
}

#[test]
fn a_killed_kafkas_directory_holds_what_its_clients_fetched_from_whatever_recovery_point() {
    for partition in partitions() {
        let log_start_offset = log_start_offset(&partition);
        let files = files("unclean", &partition);
        let whole = LastStop { unclean: true, recovery_point: 0, log_start_offset, ..LastStop::default() };
        let end = open(&disk_with(&files, &partition), &partition, whole).log_end_offset();
        for recovery_point in [1, end / 3, end / 2, end - 1, end] {
            let disk = disk_with(&files, &partition);
            let recovery_point = recovery_point.clamp(0, end);
            let mut log = open(
                &disk,
                &partition,
                LastStop { unclean: true, recovery_point, log_start_offset, ..LastStop::default() },
            );
            assert_served(&mut log, &partition);
        }
        let disk = disk_with(&files, &partition);
        let beyond = LastStop { unclean: true, recovery_point: end + 1, log_start_offset, ..LastStop::default() };
        assert!(matches!(try_open(&disk, &partition, beyond), Err(LogError::Malformed { .. })), "{partition}");
    }
}

#[test]
fn a_cleanly_stopped_kafkas_directory_holds_what_its_clients_fetched() {
    for partition in partitions() {
        let mut all = files("clean", &partition);
        let logs = files("unclean", &partition).into_iter().filter(|(name, _)| name.ends_with(".log"));
        all.extend(logs);
        let disk = disk_with(&all, &partition);
        let log_start_offset = log_start_offset(&partition);
        let last_stop = LastStop { log_start_offset, ..LastStop::default() };
        let mut log = open(&disk, &partition, last_stop);
        assert_served(&mut log, &partition);
        run(log.close()).unwrap();
        let directory = Path::new("/data").join(partition.to_string());
        for (name, data) in all {
            assert_eq!(disk.contents(&directory.join(&name)).unwrap(), data, "{partition} {name} is untouched");
        }
    }
}

/// The segments that Kafka's cleaner had set aside, put back and cleaned by ours at the same moment.
#[test]
fn what_kafkas_cleaner_read_is_cleaned_to_the_bytes_that_it_wrote() {
    const DELETE_RETENTION_MS: i64 = 86_400_000;
    /// In the batch that holds the tombstones.
    const DELETE_HORIZON_MS: i64 = 1_795_392_199_194;
    let partition = TopicPartition { topic: "compacted".into(), partition: 0 };
    let kafkas = files("unclean", &partition);
    let before =
        kafkas.iter().filter_map(|(name, data)| Some((name.strip_suffix(".deleted")?.to_owned(), data.clone())));
    let mut before: BTreeMap<_, _> = before.collect();
    let active: Vec<_> = kafkas.iter().filter(|(name, _)| name.starts_with("00000000000000001480.")).collect();
    before.extend(active.into_iter().map(|(name, data)| (name.clone(), data.clone())));
    let disk = disk_with(&before, &partition);
    let mut log = open(&disk, &partition, LastStop { unclean: true, ..LastStop::default() });
    assert_eq!(batches_in(&mut log).iter().map(|(_, records)| records.len()).sum::<usize>(), 1500);
    let flushed = run(log.flush());
    log.finish_flush(flushed).unwrap();

    let lags = CompactionLags { min_ms: 0, max_ms: i64::MAX };
    let dirtiness = log.dirtiness(log.log_end_offset(), lags, 0).unwrap();
    let bounds = CleanerBounds::share(128 << 20, 0.9, 512 << 10, 1);
    let time = CleanTime { now: DELETE_HORIZON_MS - DELETE_RETENTION_MS, delete_retention_ms: DELETE_RETENTION_MS };
    let mut cleaning = run(log.clean_plan(dirtiness).index(Vec::new(), bounds, time, Inline)).unwrap();
    while let Some(cleaned) = run(cleaning.clean_group()) {
        let names = run(log.names().hold_alone());
        let swapped = run(cleaned.unwrap().swap(names)).unwrap();
        log.finish_swap(swapped);
    }
    assert_eq!(cleaning.end_offset, 1480, "as its checkpoint says");
    let directory = Path::new("/data").join(partition.to_string());
    let is_cleaned = |name: &str| [".log", ".index", ".timeindex"].iter().any(|kind| name.ends_with(kind));
    for (name, data) in kafkas.iter().filter(|(name, _)| is_cleaned(name) && !name.starts_with("00000000000000001480."))
    {
        assert_eq!(&disk.contents(&directory.join(name)).unwrap(), data, "{name}");
    }
    assert_served(&mut log, &partition);
}
