//! Directories that Kafka 3.9 left, taken over by `--import` and served: every record as Kafka's clients saw it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use ringlog::protocol::message::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResponse,
};
use ringlog::protocol::message::metadata::{MetadataRequest, MetadataResponse};
use ringlog::record::batch::{BatchBuilder, Record};
use ringlog::record::compression::Codec;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::server::{DEADLINE, Server, data_path, directory, serve};
use crate::wire::{Wire, ask};

const CLUSTER_ID: &str = "g0ldenClusterOfKafka39";
const META: &str = "#\n#Sun Nov 22 00:00:00 UTC 2026\nbroker.id=1\nversion=0\ncluster.id=g0ldenClusterOfKafka39\n";
const MARKER: &str = ".kafka_cleanshutdown";
const TREE: &str = "ringlog-metadata.redb";

fn golden(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/kafka-3.9").join(part)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a golden directory") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("copied");
        }
    }
}

/// A copy of what a Kafka left that was killed.
fn unclean() -> tempfile::TempDir {
    let directory = directory();
    copy(&golden("unclean"), &data_path(directory.path()));
    directory
}

/// A copy of what a Kafka left that stopped in order. Its `.log` files are those of the killed one.
fn clean() -> tempfile::TempDir {
    let directory = directory();
    let data = data_path(directory.path());
    copy(&golden("clean"), &data);
    for entry in fs::read_dir(golden("unclean")).expect("a golden directory") {
        let partition = entry.expect("an entry").path();
        for file in fs::read_dir(&partition).into_iter().flatten().map(|file| file.expect("an entry").path()) {
            if file.extension().is_some_and(|extension| extension == "log") {
                let name = Path::new(partition.file_name().expect("a name")).join(file.file_name().expect("a name"));
                fs::copy(&file, data.join(name)).expect("copied");
            }
        }
    }
    fs::write(data.join("meta.properties"), META).expect("written");
    directory
}

/// What clients fetched from that Kafka, by partition.
fn seen_by_clients() -> BTreeMap<(String, i32), Value> {
    let json = fs::read(golden("clean.json")).expect("the golden list");
    let listed: BTreeMap<String, Value> = serde_json::from_slice(&json).expect("JSON");
    let partitions = listed.into_iter().map(|(name, seen)| {
        let (topic, partition) = name.rsplit_once('-').expect("a partition's name");
        ((topic.to_owned(), partition.parse().expect("a number")), seen)
    });
    partitions.collect()
}

/// The first 16 hex digits of the SHA-256.
fn digest(bytes: &Option<impl AsRef<[u8]>>) -> Value {
    let hex = |bytes: &[u8]| Sha256::digest(bytes)[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    bytes.as_ref().map_or(Value::Null, |bytes| hex(bytes.as_ref()).into())
}

/// A record as the golden list has it, up to what belongs to its batch.
fn listed(record: &Record) -> Value {
    let headers: Vec<Value> =
        record.headers.iter().map(|(key, value)| json!([String::from_utf8_lossy(key), digest(value)])).collect();
    json!([record.offset, record.timestamp, digest(&record.key), digest(&record.value), headers])
}

/// Reads all that the broker serves and compares it with what Kafka served.
fn compare(wire: &mut Wire) {
    let all = seen_by_clients();
    assert_eq!(all.len(), 23);
    for ((topic, partition), seen) in all {
        let wanted: Vec<Value> = seen["records"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|record| record.as_array().expect("a list")[..5].to_vec().into())
            .collect();
        let served: Vec<Value> = wire.read_all(&topic, partition).iter().map(listed).collect();
        assert_eq!(served, wanted, "{topic}-{partition}");
        let (data, _) = wire.fetch(&topic, partition, 0, 1);
        let offsets = (data.log_start_offset, data.high_watermark);
        assert_eq!(json!(offsets), json!([seen["log_start_offset"], seen["log_end_offset"]]), "{topic}-{partition}");
    }
}

fn describe_all(wire: &mut Wire) -> MetadataResponse {
    ask!(wire, 12, MetadataRequest { topics: None, ..Default::default() }, MetadataResponse)
}

/// Starts a broker that must refuse, and gives its one message.
fn refusal(directory: &Path, flags: &[&str]) -> String {
    let output = serve(directory, flags).stdin(Stdio::null()).output().expect("a process");
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    message
}

#[test]
fn a_directory_of_a_kafka_that_stopped_in_order_is_imported_and_served() {
    let directory = clean();
    let data = data_path(directory.path());
    let server = Server::start_with_flags(directory.path(), &["--import"]);
    assert!(server.banner("note").contains("imported 19 topics with 29 partitions"));
    let mut wire = Wire::connect(server.address);
    compare(&mut wire);

    let described = describe_all(&mut wire);
    assert_eq!(described.cluster_id.as_deref(), Some(CLUSTER_ID));
    assert_eq!(described.topics.len(), 19);
    for topic in &described.topics {
        let name = topic.name.as_deref().expect("a name");
        for partition in &topic.partitions {
            let metadata = data.join(format!("{name}-{}/partition.metadata", partition.partition_index));
            let metadata = fs::read_to_string(metadata).expect("its partition.metadata");
            assert!(metadata.ends_with(&topic.topic_id.to_string()), "{name}");
            assert_eq!((partition.leader_id, partition.leader_epoch), (1, 1), "{name}: Kafka wrote in epoch 0");
        }
    }

    // A producer id that Kafka gave out would have this taken for a repetition.
    let (producer_id, epoch) = wire.new_producer();
    assert!(producer_id >= 1 << 40);
    let mut batch = BatchBuilder::new(Codec::Zstd).producer(producer_id, epoch, 0);
    batch.push(1_800_000_000_000, None, Some(b"after the import"), &[]);
    let answer = wire.produce(9, "idempotent", 0, &batch.build());
    assert_eq!((answer.error_code, answer.base_offset), (0, 600));
    server.stop();

    assert!(refusal(directory.path(), &["--import"]).contains("start without --import"));
    assert!(data.join(MARKER).exists(), "the refusal left the directory as it was");
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    let records = wire.read_all("idempotent", 0);
    assert_eq!(records.len(), 601);
    assert_eq!(records[600].value.as_deref(), Some(&b"after the import"[..]));
    server.stop();
}

/// The settings that a topic has of its own.
fn overrides(wire: &mut Wire, topic: &str) -> BTreeMap<String, String> {
    const TOPIC: i8 = 2;
    const OF_THE_TOPIC: i8 = 1;
    let resource =
        DescribeConfigsResource { resource_type: TOPIC, resource_name: topic.to_owned(), configuration_keys: None };
    let request = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
    let configs = ask!(wire, 4, request, DescribeConfigsResponse).results.remove(0).configs;
    let own = configs.into_iter().filter(|config| config.config_source == OF_THE_TOPIC);
    own.map(|config| (config.name, config.value.expect("nothing secret"))).collect()
}

/// Waits until retention has looked at every topic since this was called, by one that it must empty.
fn wait_for_retention(wire: &mut Wire, name: &str) {
    let deadline = Instant::now() + DEADLINE;
    // The second of them was made after a look that the first has seen.
    for round in ["first", "second"] {
        let topic = format!("{name}-{round}");
        assert_eq!(wire.create_topic(&topic, 1), 0);
        let mut batch = BatchBuilder::new(Codec::None);
        batch.push(1_000, None, Some(b"old"), &[]);
        assert_eq!(wire.produce(9, &topic, 0, &batch.build()).error_code, 0);
        while wire.fetch(&topic, 0, 1, 1).0.log_start_offset != 1 {
            assert!(Instant::now() < deadline, "retention does not come");
        }
    }
}

#[test]
fn imported_topics_keep_every_record_until_they_are_given_settings_and_describe_says_so() {
    let directory = clean();
    let eager = [
        "log.retention.ms=1",
        "log.retention.bytes=1",
        "log.retention.check.interval.ms=100",
        "log.initial.task.delay.ms=100",
        "log.cleanup.policy=delete",
    ];
    let settings: Vec<&str> = eager.iter().flat_map(|setting| ["--set", setting]).collect();
    let server = Server::start_with_flags(directory.path(), &[&["--import"], &settings[..]].concat());
    let note = server.banner("note");
    assert!(note.contains("retention.ms=-1") && note.contains("ringlog config set --topic"), "{note}");
    let mut wire = Wire::connect(server.address);
    wait_for_retention(&mut wire, "control");
    compare(&mut wire);
    let own = overrides(&mut wire, "plain-3p");
    let expected = [("cleanup.policy", "delete"), ("retention.bytes", "-1"), ("retention.ms", "-1")];
    assert_eq!(own, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    server.stop();
    let server = Server::start_with_flags(directory.path(), &settings);
    let mut wire = Wire::connect(server.address);
    wait_for_retention(&mut wire, "again");
    compare(&mut wire);
    server.stop();
}

#[test]
fn a_directory_of_a_killed_kafka_is_imported_recovered_and_served() {
    let directory = unclean();
    let server = Server::start_with_flags(directory.path(), &["--import"]);
    compare(&mut Wire::connect(server.address));
    server.kill();
    let server = Server::start(directory.path());
    compare(&mut Wire::connect(server.address));
    server.stop();
}

#[test]
fn a_refused_start_names_the_remedy_and_leaves_the_directory_as_it_was() {
    let directory = clean();
    let data = data_path(directory.path());
    let refused = |flags: &[&str], parts: &[&str]| {
        let message = refusal(directory.path(), flags);
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        assert!(data.join(MARKER).exists() && !data.join(TREE).exists(), "{message}");
    };
    refused(&[], &["--import"]);
    refused(&["--import", "--set", "broker.id=2"], &["broker.id=1"]);

    let (here, away) = (data.join("plain-3p-1"), directory.path().join("plain-3p-1"));
    fs::rename(&here, &away).expect("moved");
    refused(&["--import"], &["plain-3p-1", "not whole"]);
    fs::rename(&away, &here).expect("moved");

    let metadata = here.join("partition.metadata");
    let id = fs::read(&metadata).expect("its id");
    fs::write(&metadata, "version: 0\ntopic_id: f1E3-KkETBuUkT4m46-H6w").expect("written");
    refused(&["--import"], &["plain-3p-0 and plain-3p-1", "f1E3-KkETBuUkT4m46-H6w"]);
    fs::write(&metadata, id).expect("written");

    fs::write(data.join("meta.properties"), "version=1\nnode.id=1\ncluster.id=x\n").expect("written");
    refused(&["--import"], &["KRaft"]);
    fs::write(data.join("meta.properties"), META).expect("written");

    let server = Server::start_with_flags(directory.path(), &["--import"]);
    compare(&mut Wire::connect(server.address));
    server.stop();
}

#[test]
fn nothing_is_made_of_a_directory_in_which_there_is_nothing_to_import() {
    let directory = directory();
    assert!(refusal(directory.path(), &["--import"]).contains("nothing that a Kafka broker left"));
}

#[test]
fn an_import_that_broke_off_leaves_no_half_tree() {
    let directory = clean();
    fs::write(data_path(directory.path()).join(format!("{TREE}.tmp")), b"half a tree").expect("written");
    assert!(refusal(directory.path(), &[]).contains("--import"));
    let server = Server::start_with_flags(directory.path(), &["--import"]);
    compare(&mut Wire::connect(server.address));
    server.stop();
}
