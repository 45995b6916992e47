//! The beginning of a log as clients see it go: DeleteRecords, retention, compaction.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ringlog::protocol::ErrorCode;
use ringlog::protocol::message::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest, CreateTopicsResponse,
};
use ringlog::protocol::message::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopic,
};
use ringlog::protocol::message::delete_topics::{DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse};
use ringlog::protocol::message::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use ringlog::protocol::message::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopic,
};
use ringlog::record::batch::{BatchBuilder, set_max_timestamp};
use ringlog::record::compression::Codec;

use crate::server::{DEADLINE, Server, data_path, directory};
use crate::wire::{Wire, ask};

const PRODUCE_VERSION: i16 = 9;
const EARLIEST: i64 = -2;

fn create(wire: &mut Wire, name: &str, configs: &[(&str, &str)]) {
    let config = |(name, value): &(&str, &str)| CreatableTopicConfig {
        name: (*name).to_owned(),
        value: Some((*value).to_owned()),
    };
    let topic = CreatableTopic {
        name: name.to_owned(),
        num_partitions: 1,
        replication_factor: 1,
        configs: configs.iter().map(config).collect(),
        ..Default::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() };
    assert_eq!(ask!(wire, 7, request, CreateTopicsResponse).topics[0].error_code, 0);
}

fn produce(wire: &mut Wire, topic: &str, timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>) {
    let mut builder = BatchBuilder::new(Codec::None);
    builder.push(timestamp, key, value, &[]);
    assert_eq!(wire.produce(PRODUCE_VERSION, topic, 0, &builder.build()).error_code, 0);
}

fn earliest(wire: &mut Wire, topic: &str) -> i64 {
    let partitions = vec![ListOffsetsPartition { timestamp: EARLIEST, ..Default::default() }];
    let topics = vec![ListOffsetsTopic { name: topic.to_owned(), partitions }];
    let request = ListOffsetsRequest { replica_id: -1, topics, ..Default::default() };
    ask!(wire, 6, request, ListOffsetsResponse).topics[0].partitions[0].offset
}

/// Low watermark and error.
pub fn delete_records(wire: &mut Wire, version: i16, topic: &str, partition_index: i32, offset: i64) -> (i64, i16) {
    let partitions = vec![DeleteRecordsPartition { partition_index, offset }];
    let topics = vec![DeleteRecordsTopic { name: topic.to_owned(), partitions }];
    let response = ask!(wire, version, DeleteRecordsRequest { topics, timeout_ms: 30_000 }, DeleteRecordsResponse);
    let partition = &response.topics[0].partitions[0];
    (partition.low_watermark, partition.error_code)
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock past 1970");
    i64::try_from(since.as_millis()).expect("not that late")
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} does not come");
        std::thread::yield_now();
    }
}

#[test]
fn deleted_records_are_out_of_range_and_stay_so_after_a_kill_once_it_is_checkpointed() {
    let directory = directory();
    let settings = ["log.flush.start.offset.checkpoint.interval.ms=100"];
    let server = Server::start_with(directory.path(), &settings);
    let mut wire = Wire::connect(server.address);
    create(&mut wire, "shrinking", &[]);
    create(&mut wire, "compacted", &[("cleanup.policy", "compact")]);
    for at in 0..10 {
        produce(&mut wire, "shrinking", 1000 + at, None, Some(b"value"));
    }
    let error = |code: ErrorCode| (-1, code as i16);
    for version in 0..=2 {
        assert_eq!(delete_records(&mut wire, version, "shrinking", 0, 4), (4, 0));
    }
    assert_eq!(delete_records(&mut wire, 2, "shrinking", 0, 2), (4, 0), "nothing comes back");
    assert_eq!(earliest(&mut wire, "shrinking"), 4);
    assert_eq!(wire.fetch("shrinking", 0, 3, 1000).0.error_code, ErrorCode::OffsetOutOfRange as i16);
    let (data, _) = wire.fetch("shrinking", 0, 4, 1000);
    assert_eq!((data.error_code, data.log_start_offset), (0, 4));
    assert_eq!(delete_records(&mut wire, 2, "shrinking", 0, 11), error(ErrorCode::OffsetOutOfRange));
    assert_eq!(delete_records(&mut wire, 2, "shrinking", 0, -2), error(ErrorCode::OffsetOutOfRange));
    assert_eq!(delete_records(&mut wire, 2, "shrinking", 1, 0), error(ErrorCode::UnknownTopicOrPartition));
    assert_eq!(delete_records(&mut wire, 2, "nowhere", 0, 0), error(ErrorCode::UnknownTopicOrPartition));
    assert_eq!(delete_records(&mut wire, 2, "compacted", 0, 0), error(ErrorCode::PolicyViolation));
    assert_eq!(delete_records(&mut wire, 2, "shrinking", 0, -1), (10, 0), "up to the high watermark");

    let checkpoint = data_path(directory.path()).join("log-start-offset-checkpoint");
    let says = |line: &str| fs::read_to_string(&checkpoint).is_ok_and(|text| text.lines().any(|found| found == line));
    wait_until("the checkpoint", || says("shrinking 0 10"));
    server.kill();
    let server = Server::start_with(directory.path(), &settings);
    let mut wire = Wire::connect(server.address);
    assert_eq!(earliest(&mut wire, "shrinking"), 10);
    produce(&mut wire, "shrinking", 2000, None, Some(b"value"));
    assert_eq!(wire.fetch("shrinking", 0, 9, 1000).0.error_code, ErrorCode::OffsetOutOfRange as i16);
    assert_eq!(wire.fetch("shrinking", 0, 10, 1000).0.high_watermark, 11);
    server.stop();
}

/// Bytes of the segments that the log has, and whether files wait to be removed.
fn log_files(directory: &Path, topic: &str) -> (u64, bool) {
    let entries = fs::read_dir(data_path(directory).join(format!("{topic}-0"))).expect("the partition's directory");
    let files: Vec<_> = entries.filter_map(|entry| entry.ok()).collect();
    let ends = |entry: &fs::DirEntry, end: &str| entry.file_name().to_string_lossy().ends_with(end);
    let bytes = files.iter().filter(|entry| ends(entry, ".log")).filter_map(|entry| Some(entry.metadata().ok()?.len()));
    (bytes.sum(), files.iter().any(|entry| ends(entry, ".deleted")))
}

#[test]
fn old_segments_go_and_their_bytes_come_back() {
    let directory = directory();
    let settings = [
        "log.initial.task.delay.ms=0",
        "log.retention.check.interval.ms=20",
        "log.segment.delete.delay.ms=50",
        "log.segment.bytes=4096",
    ];
    let server = Server::start_with(directory.path(), &settings);
    let mut wire = Wire::connect(server.address);
    create(&mut wire, "kept", &[("retention.ms", "-1")]);
    create(&mut wire, "small", &[("retention.ms", "-1"), ("retention.bytes", "10000")]);
    create(&mut wire, "short", &[("retention.ms", "60000")]);
    let value = [b'x'; 1000];
    for topic in ["kept", "small", "short"] {
        // Records of 1970.
        (0..30).for_each(|at| produce(&mut wire, topic, 1000 + at, None, Some(&value)));
    }
    wait_until("the end of what is too old", || earliest(&mut wire, "short") == 30);
    wait_until("the end of what is too much", || earliest(&mut wire, "small") >= 18);
    assert_eq!(earliest(&mut wire, "kept"), 0);
    assert_eq!(wire.fetch("short", 0, 29, 1000).0.error_code, ErrorCode::OffsetOutOfRange as i16);
    wait_until("the room of what is gone", || log_files(directory.path(), "short") == (0, false));
    wait_until("the room of what is gone", || !log_files(directory.path(), "small").1);
    let (bytes, _) = log_files(directory.path(), "small");
    assert!((10_000..14_200).contains(&bytes), "{bytes}");
    produce(&mut wire, "short", i64::MAX / 2, None, Some(b"of the future"));
    assert_eq!(wire.fetch("short", 0, 30, 1000).0.high_watermark, 31);
    server.stop();
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    assert_eq!((earliest(&mut wire, "short"), earliest(&mut wire, "kept")), (30, 0));
    server.stop();
}

/// The values that a consumer from the beginning ends up with, by key.
fn compacted_view(wire: &mut Wire, topic: &str) -> (usize, BTreeMap<Vec<u8>, Vec<u8>>) {
    let records = wire.read_all(topic, 0);
    let count = records.len();
    let mut view = BTreeMap::new();
    for record in records {
        let key = record.key.expect("a key").to_vec();
        match record.value {
            Some(value) => drop(view.insert(key, value.to_vec())),
            None => drop(view.remove(&key)),
        }
    }
    (count, view)
}

#[test]
fn of_a_compacted_topic_the_latest_value_of_each_key_stays_and_its_bytes_shrink() {
    let directory = directory();
    let settings = [
        "log.cleaner.backoff.ms=20",
        "log.cleaner.min.cleanable.ratio=0.01",
        "log.segment.bytes=8192",
        "log.segment.delete.delay.ms=50",
        "log.cleaner.delete.retention.ms=0",
    ];
    let server = Server::start_with(directory.path(), &settings);
    let mut wire = Wire::connect(server.address);
    create(&mut wire, "latest", &[("cleanup.policy", "compact")]);
    create(&mut wire, "both", &[("cleanup.policy", "compact,delete"), ("retention.ms", "60000")]);
    let mut expected = BTreeMap::new();
    for at in 0..300 {
        let key = format!("key {}", at % 10).into_bytes();
        let value = format!("{at:0300}").into_bytes();
        match at % 10 == 9 && at > 250 {
            true => {
                produce(&mut wire, "latest", 1000 + at, Some(&key), None);
                expected.remove(&key);
            }
            false => {
                produce(&mut wire, "latest", 1000 + at, Some(&key), Some(&value));
                expected.insert(key.clone(), value.clone());
            }
        }
        produce(&mut wire, "both", 1000 + at, Some(&key), Some(&value));
    }
    let mut builder = BatchBuilder::new(Codec::Zstd);
    builder.push(1000, None, Some(b"without a key"), &[]);
    let refused = wire.produce(PRODUCE_VERSION, "latest", 0, &builder.build());
    assert_eq!((refused.error_code, refused.record_errors.len()), (ErrorCode::InvalidRecord as i16, 1));

    // The active segment stays as it is: about 20 records of 400 bytes.
    wait_until("the end of what is superseded", || compacted_view(&mut wire, "latest").0 < 50);
    assert_eq!(compacted_view(&mut wire, "latest").1, expected);
    wait_until("the room of what is superseded", || {
        let (bytes, waits) = log_files(directory.path(), "latest");
        bytes < 20_000 && !waits
    });
    assert_eq!((earliest(&mut wire, "latest"), wire.fetch("latest", 0, 0, 1000).0.high_watermark), (0, 300));
    // With delete as well, what is too old goes, whatever its key.
    wait_until("the end of what is too old", || earliest(&mut wire, "both") == 300);
    let checkpoint = data_path(directory.path()).join("cleaner-offset-checkpoint");
    let knows = || fs::read_to_string(&checkpoint).is_ok_and(|text| text.contains("latest 0 "));
    wait_until("the cleaner's checkpoint", knows);
    server.kill();

    let server = Server::start_with(directory.path(), &settings);
    let mut wire = Wire::connect(server.address);
    assert_eq!(compacted_view(&mut wire, "latest").1, expected);
    // A tombstone waits for a cleaning after the one that saw it first, and that for something to clean.
    expected.insert(b"another key".to_vec(), vec![b'x'; 300]);
    wait_until("the end of the tombstones", || {
        (0..30).for_each(|_| produce(&mut wire, "latest", 2000, Some(b"another key"), Some(&[b'x'; 300])));
        let records = wire.read_all("latest", 0);
        records.iter().filter(|record| record.offset < 300).all(|record| record.value.is_some())
    });
    assert_eq!(compacted_view(&mut wire, "latest").1, expected);
    server.stop();
}

#[test]
fn a_cleaning_that_is_held_back_holds_up_neither_a_deletion_nor_a_stop() {
    let directory = directory();
    let settings = [
        "log.cleaner.backoff.ms=20",
        "log.cleaner.min.cleanable.ratio=0.01",
        "log.cleaner.io.max.bytes.per.second=100",
        "log.segment.bytes=8192",
    ];
    let server = Server::start_with(directory.path(), &settings);
    let mut wire = Wire::connect(server.address);
    for topic in ["gone", "left"] {
        create(&mut wire, topic, &[("cleanup.policy", "compact")]);
        for at in 0..60 {
            produce(&mut wire, topic, 1000 + at, Some(b"key"), Some(&[b'x'; 300]));
        }
    }
    // Its line comes when a cleaning begins.
    let checkpoint = data_path(directory.path()).join("cleaner-offset-checkpoint");
    let knows = || fs::read_to_string(&checkpoint).is_ok_and(|text| text.contains(" 0 0"));
    wait_until("a cleaning", knows);
    let topics = vec![DeleteTopicState { name: Some("gone".to_owned()), ..Default::default() }];
    let request = DeleteTopicsRequest { topics, timeout_ms: 30_000, ..Default::default() };
    assert_eq!(ask!(wire, 6, request, DeleteTopicsResponse).responses[0].error_code, 0);
    wait_until("the end of its directory", || !data_path(directory.path()).join("gone-0").exists());
    wait_until("the other's cleaning", || fs::read_to_string(&checkpoint).is_ok_and(|text| text.contains("left 0 0")));
    server.stop();
    let server = Server::start(directory.path());
    assert_eq!(compacted_view(&mut Wire::connect(server.address), "left").1.len(), 1);
    server.stop();
}

#[test]
fn records_of_now_outlive_a_retention_check_whatever_their_batchs_header_says_of_their_time() {
    let directory = directory();
    let settings = ["log.initial.task.delay.ms=0", "log.retention.check.interval.ms=20", "log.segment.bytes=4096"];
    let server = Server::start_with(directory.path(), &settings);
    let mut wire = Wire::connect(server.address);
    create(&mut wire, "lied", &[]);
    create(&mut wire, "old", &[]);
    let now = now_ms();
    let codecs = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
    for (place, codec) in (0..).zip(codecs) {
        for (place, lie) in (2 * place..).zip([0i64, -1]) {
            let mut builder = BatchBuilder::new(codec);
            builder.push(now + place, Some(b"k"), Some(&[b'x'; 3000]), &[]);
            let mut batch = builder.build();
            set_max_timestamp(&mut batch, lie);
            assert_eq!(wire.produce(PRODUCE_VERSION, "lied", 0, &batch).error_code, 0, "{codec:?} {lie}");
        }
    }
    // What goes shows that the checks have come.
    (0..3).for_each(|at| produce(&mut wire, "old", 1000 + at, None, Some(&[b'x'; 3000])));
    wait_until("a retention check", || earliest(&mut wire, "old") == 3);
    produce(&mut wire, "old", 1000, None, Some(&[b'x'; 3000]));
    wait_until("another retention check", || earliest(&mut wire, "old") == 4);
    assert_eq!((earliest(&mut wire, "lied"), wire.read_all("lied", 0).len()), (0, 8));
    for place in 0..8 {
        assert_eq!(offset_at(&mut wire, "lied", now + place), (place, now + place), "by time");
    }
    assert_eq!(offset_at(&mut wire, "lied", now + 8), (-1, -1));
}

/// Of the first record at or after a time: its offset and its time.
fn offset_at(wire: &mut Wire, topic: &str, timestamp: i64) -> (i64, i64) {
    let partitions = vec![ListOffsetsPartition { timestamp, ..Default::default() }];
    let topics = vec![ListOffsetsTopic { name: topic.to_owned(), partitions }];
    let request = ListOffsetsRequest { replica_id: -1, topics, ..Default::default() };
    let answer = ask!(wire, 6, request, ListOffsetsResponse).topics[0].partitions[0].clone();
    assert_eq!(answer.error_code, 0);
    (answer.offset, answer.timestamp)
}

#[test]
fn a_batch_that_can_not_be_decoded_neither_ends_cleaning_nor_fails_a_time_query() {
    let directory = directory();
    let settings = ["log.cleaner.backoff.ms=20", "log.cleaner.min.cleanable.ratio=0.01", "log.segment.bytes=8192"];
    let server = Server::start_with(directory.path(), &settings);
    let mut wire = Wire::connect(server.address);
    create(&mut wire, "mixed", &[]);
    let now = now_ms();
    let mut builder = BatchBuilder::new(Codec::Lz4);
    builder.push(now, Some(b"k"), Some(b"nobody can read this"), &[]);
    let mut bad = builder.build();
    bad[61..70].fill(0xee);
    // An honest header: nobody looks into it.
    set_max_timestamp(&mut bad, now + 5);
    produce(&mut wire, "mixed", now, Some(b"k"), Some(b"first"));
    assert_eq!(wire.produce(PRODUCE_VERSION, "mixed", 0, &bad).error_code, 0);
    (0..100).for_each(|at| produce(&mut wire, "mixed", now + 10 + at, Some(b"k"), Some(&[b'v'; 300])));
    assert_eq!(offset_at(&mut wire, "mixed", now), (0, now));
    assert_eq!(offset_at(&mut wire, "mixed", now + 1), (1, now + 5), "the batch itself");
    assert_eq!(offset_at(&mut wire, "mixed", now + 6), (2, now + 10));
    let before = log_files(directory.path(), "mixed").0;
    alter(&mut wire, "mixed", "cleanup.policy", "compact");
    wait_until("the cleaning", || log_files(directory.path(), "mixed").0 < before / 2);
    server.stop();
    let batches = crate::server::batches_of(directory.path(), "mixed", 0);
    assert!(batches.iter().any(|batch| batch[61..] == bad[61..]), "it stays as it is");
}

fn alter(wire: &mut Wire, topic: &str, name: &str, value: &str) {
    let config = AlterableConfig { name: name.to_owned(), config_operation: 0, value: Some(value.to_owned()) };
    let resource = AlterConfigsResource { resource_type: 2, resource_name: topic.to_owned(), configs: vec![config] };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    assert_eq!(ask!(wire, 1, request, IncrementalAlterConfigsResponse).responses[0].error_code, 0);
}
