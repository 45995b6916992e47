//! Directories of partitions that the metadata does not know: named, counted, left alone, and nobody's beginning.

use std::fs;
use std::path::{Path, PathBuf};

use ringlog::protocol::message::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic,
};
use ringlog::record::batch::BatchBuilder;
use ringlog::record::compression::Codec;

use crate::server::{Server, data_path, directory};
use crate::wire::{Wire, ask};

const PRODUCE_VERSION: i16 = 9;
const LOG: &str = "00000000000000000000.log";

fn produce(wire: &mut Wire, topic: &str, partition: i32, value: &str) -> (i16, i64) {
    let mut builder = BatchBuilder::new(Codec::None);
    builder.push(1_000, None, Some(value.as_bytes()), &[]);
    let answer = wire.produce(PRODUCE_VERSION, topic, partition, &builder.build());
    (answer.error_code, answer.base_offset)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("listed") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

/// The directory that was set aside from under a partition's name.
fn stray(data: &Path, partition: &str) -> PathBuf {
    let found = fs::read_dir(data).expect("listed").map(|entry| entry.expect("an entry").path()).find(|path| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        name.starts_with(&format!("{partition}.")) && name.ends_with("-stray")
    });
    found.unwrap_or_else(|| panic!("no stray directory of {partition}"))
}

/// A stopped broker's directory with a topic that has a record, and copies of its partition under these names.
fn with_copies(names: &[&str]) -> tempfile::TempDir {
    let directory = directory();
    let data = data_path(directory.path());
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    assert_eq!((wire.create_topic("known", 1), produce(&mut wire, "known", 0, "old")), (0, (0, 0)));
    server.stop();
    names.iter().for_each(|name| copy(&data.join("known-0"), &data.join(name)));
    directory
}

#[test]
fn directories_that_the_metadata_does_not_know_are_named_and_left_alone_and_no_new_topic_has_their_records() {
    let directory = with_copies(&["lost-0", "old-kafkas-0", "known-1"]);
    let data = data_path(directory.path());
    // Kafka wrote no ids before 2.8.
    fs::remove_file(data.join("old-kafkas-0/partition.metadata")).expect("removed");
    // With the topic's own id it would be the partition's, of metadata that knew more.
    fs::write(data.join("known-1/partition.metadata"), "version: 0\ntopic_id: f1E3-KkETBuUkT4m46-H6w")
        .expect("written");
    let records = fs::read(data.join("lost-0").join(LOG)).expect("a log");

    let server = Server::start(directory.path());
    let told = server.stderr();
    for name in ["lost-0", "old-kafkas-0", "known-1"] {
        assert!(told.lines().any(|line| line.contains(name) && line.contains("knows no such partition")), "{told}");
        assert!(data.join(name).join(LOG).exists());
    }
    assert!(!told.lines().any(|line| line.contains("known-0")), "{told}");
    let mut wire = Wire::connect(server.address);
    assert_eq!((wire.create_topic("lost", 1), wire.create_topic("old-kafkas", 1)), (0, 0));
    let more = vec![CreatePartitionsTopic { name: "known".to_owned(), count: 2, assignments: None }];
    let request = CreatePartitionsRequest { topics: more, timeout_ms: 30_000, validate_only: false };
    assert_eq!(ask!(wire, 3, request, CreatePartitionsResponse).results[0].error_code, 0);
    for (topic, partition) in [("lost", 0), ("old-kafkas", 0), ("known", 1)] {
        assert_eq!(produce(&mut wire, topic, partition, "new"), (0, 0), "{topic}-{partition}");
        let aside = stray(&data, &format!("{topic}-{partition}"));
        assert_eq!(fs::read(aside.join(LOG)).expect("its log"), records);
    }
    server.stop();

    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    for (topic, partition) in [("lost", 0), ("old-kafkas", 0), ("known", 1)] {
        assert_eq!(wire.read_all(topic, partition).len(), 1, "{topic}-{partition}");
        stray(&data, &format!("{topic}-{partition}"));
    }
    assert_eq!(wire.read_all("known", 0)[0].value.as_deref(), Some(&b"old"[..]));
    server.stop();
}

#[test]
fn checkpoints_of_logs_that_the_metadata_does_not_know_are_kept_until_their_names_are_others() {
    let directory = with_copies(&["lost-0", "kept-0"]);
    let starts = data_path(directory.path()).join("log-start-offset-checkpoint");
    fs::write(&starts, "0\n2\nlost 0 1\nkept 0 1\n").expect("written");
    let server = Server::start(directory.path());
    assert_eq!(Wire::connect(server.address).create_topic("lost", 1), 0);
    server.stop();
    assert_eq!(fs::read_to_string(&starts).expect("there"), "0\n1\nkept 0 1\n");
}

#[test]
fn a_directory_of_another_topic_under_a_partitions_name_is_set_aside_and_the_partition_is_not_offline() {
    let directory = with_copies(&[]);
    let data = data_path(directory.path());
    let server = Server::start(directory.path());
    assert_eq!(Wire::connect(server.address).create_topic("mixed-up", 1), 0);
    server.stop();
    fs::remove_dir_all(data.join("mixed-up-0")).expect("removed");
    copy(&data.join("known-0"), &data.join("mixed-up-0"));
    for at in 0..2 {
        let server = Server::start(directory.path());
        let mut wire = Wire::connect(server.address);
        assert_eq!(produce(&mut wire, "mixed-up", 0, "new"), (0, at));
        assert_eq!(wire.read_all("known", 0).len(), 1);
        assert!(stray(&data, "mixed-up-0").join(LOG).exists());
        server.stop();
    }
}

#[test]
fn of_many_such_directories_some_are_named_and_the_others_counted() {
    const COUNT: usize = 50;
    let names: Vec<String> = (0..COUNT).map(|number| format!("lost-{number}")).collect();
    let directory = with_copies(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let server = Server::start_with_flags(directory.path(), &["--admin-listen", "127.0.0.1:0"]);
    let told = server.stderr();
    let named = told.lines().filter(|line| line.contains("knows no such partition")).count();
    assert_eq!(named, 20, "{told}");
    assert!(told.lines().any(|line| line.contains("more=30")), "{told}");
}
