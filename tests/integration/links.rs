//! Symbolic links in and to the data directory: followed where they lead somewhere, named where they do not.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use ringlog::protocol::ErrorCode;
use ringlog::protocol::message::delete_topics::{DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse};
use ringlog::record::batch::BatchBuilder;
use ringlog::record::compression::Codec;

use crate::retention::delete_records;
use crate::server::{Server, data_path, directory, serve};
use crate::wire::{Wire, ask};

const PRODUCE_VERSION: i16 = 9;
const DELETE_RECORDS_VERSION: i16 = 2;
const LOG: &str = "00000000000000000000.log";

fn produce(wire: &mut Wire, topic: &str, value: &str) -> (i16, i64) {
    let mut builder = BatchBuilder::new(Codec::None);
    builder.push(1_000, None, Some(value.as_bytes()), &[]);
    let answer = wire.produce(PRODUCE_VERSION, topic, 0, &builder.build());
    (answer.error_code, answer.base_offset)
}

fn values(wire: &mut Wire, topic: &str) -> Vec<String> {
    let records = wire.read_all(topic, 0).into_iter();
    records.map(|record| String::from_utf8(record.value.expect("a value").to_vec()).expect("text")).collect()
}

/// A stopped broker's directory with one record in each of these topics.
fn filled(directory: &Path, topics: &[&str]) {
    let server = Server::start(directory);
    let mut wire = Wire::connect(server.address);
    for topic in topics {
        assert_eq!((wire.create_topic(topic, 1), produce(&mut wire, topic, "first")), (0, (0, 0)));
    }
    server.stop();
}

/// Moves what is there elsewhere, and leaves a link.
fn replace_by_link(path: &Path, elsewhere: &Path) {
    fs::create_dir_all(elsewhere.parent().expect("a parent")).expect("made");
    fs::rename(path, elsewhere).expect("moved");
    symlink(elsewhere, path).expect("a link");
}

fn over_two(directory: &Path, second: &Path) -> Command {
    serve(directory, &["--set", &format!("log.dirs={},{}", data_path(directory).display(), second.display())])
}

fn refused(command: &mut Command) -> String {
    let output = command.output().expect("a process");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    told
}

#[test]
fn linked_partitions_segments_and_data_directories_are_served_where_they_lie() {
    let directory = directory();
    let (data, away) = (data_path(directory.path()), directory.path().join("away"));
    filled(directory.path(), &["whole", "segment", "plain", "deleted-from"]);
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    assert_eq!(delete_records(&mut wire, DELETE_RECORDS_VERSION, "deleted-from", 0, -1), (1, 0));
    server.stop();
    replace_by_link(&data.join("deleted-from-0"), &away.join("deleted-from-0"));
    replace_by_link(&data.join("whole-0"), &away.join("whole-0"));
    replace_by_link(&data.join("segment-0").join(LOG), &away.join("a-log"));
    // The directory itself is a link to a link.
    replace_by_link(&data, &away.join("data"));
    replace_by_link(&data, &away.join("link-to-data"));
    for end in 0..3 {
        let server = Server::start(directory.path());
        let mut wire = Wire::connect(server.address);
        for topic in ["whole", "segment", "plain"] {
            assert_eq!(produce(&mut wire, topic, "more"), (0, end + 1), "{topic}");
            assert_eq!(values(&mut wire, topic).len() as i64, end + 2, "{topic}");
        }
        let (deleted, _) = wire.fetch("deleted-from", 0, 0, 1000);
        assert_eq!(deleted.error_code, ErrorCode::OffsetOutOfRange.code(), "what was deleted does not come back");
        match end {
            0 => server.kill(),
            _ => server.stop(),
        }
    }
    assert!(data.is_symlink() && data.join("whole-0").is_symlink());
    assert!(fs::metadata(away.join("a-log")).expect("there").len() > 0);
}

#[test]
fn a_linked_partition_is_not_made_anew_in_another_data_directory() {
    let directory = directory();
    let (data, second) = (data_path(directory.path()), directory.path().join("second"));
    filled(directory.path(), &["linked"]);
    replace_by_link(&data.join("linked-0"), &directory.path().join("away/linked-0"));
    // In the second one: what is made anew is made in the first of those that hold as many.
    fs::create_dir(&second).expect("made");
    fs::rename(data.join("linked-0"), second.join("linked-0")).expect("moved");
    for count in 1..3 {
        let server = Server::run(directory.path(), over_two(directory.path(), &second));
        let mut wire = Wire::connect(server.address);
        assert_eq!(values(&mut wire, "linked").len(), count);
        assert_eq!(produce(&mut wire, "linked", "more").0, 0);
        server.stop();
        assert!(second.join("linked-0").is_symlink() && !data.join("linked-0").exists());
    }
}

#[test]
fn a_linked_partition_that_is_deleted_loses_its_link_and_what_lies_elsewhere_stays() {
    let directory = directory();
    let (data, away) = (data_path(directory.path()), directory.path().join("away/given-up-0"));
    filled(directory.path(), &["given-up"]);
    replace_by_link(&data.join("given-up-0"), &away);
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    let topics = vec![DeleteTopicState { name: Some("given-up".to_owned()), ..Default::default() }];
    let request = DeleteTopicsRequest { topics, timeout_ms: 30_000, ..Default::default() };
    assert_eq!(ask!(wire, 6, request, DeleteTopicsResponse).responses[0].error_code, 0);
    // Its name is free: what is made under it has nothing to do with what lies elsewhere.
    assert_eq!(wire.create_topic("given-up", 1), 0);
    assert_eq!(
        (produce(&mut wire, "given-up", "new"), values(&mut wire, "given-up")),
        ((0, 0), vec!["new".to_owned()])
    );
    server.stop();
    assert!(!data.join("given-up-0").is_symlink() && away.join(LOG).exists());
    let left = fs::read_dir(&data).expect("listed").map(|entry| entry.expect("an entry").file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().ends_with("-delete")));
}

#[test]
fn a_link_that_leads_nowhere_keeps_its_partition_offline_until_it_leads_somewhere_again() {
    let directory = directory();
    let (data, second) = (data_path(directory.path()), directory.path().join("second"));
    let away = directory.path().join("away");
    filled(directory.path(), &["whole", "segment", "plain", "deleted-from"]);
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    assert_eq!(delete_records(&mut wire, DELETE_RECORDS_VERSION, "deleted-from", 0, -1), (1, 0));
    server.stop();
    replace_by_link(&data.join("deleted-from-0"), &away.join("deleted-from-0"));
    replace_by_link(&data.join("whole-0"), &away.join("whole-0"));
    replace_by_link(&data.join("segment-0").join(LOG), &away.join("a-log"));
    fs::rename(&away, directory.path().join("unmounted")).expect("moved");
    for _ in 0..2 {
        let server = Server::run(directory.path(), over_two(directory.path(), &second));
        let mut wire = Wire::connect(server.address);
        for topic in ["whole", "segment"] {
            assert_eq!(produce(&mut wire, topic, "refused").0, ErrorCode::KafkaStorageError as i16, "{topic}");
        }
        assert_eq!(produce(&mut wire, "plain", "more").0, 0, "the directory serves on");
        let told = server.stderr();
        assert!(told.contains("whole-0") && told.contains("segment-0") && told.contains("symbolic link"), "{told}");
        server.stop();
        assert!(
            !away.exists()
                && fs::read_dir(&second).expect("listed").all(|entry| {
                    let name = entry.expect("an entry").file_name();
                    !name.to_string_lossy().starts_with("whole-") && !name.to_string_lossy().starts_with("segment-")
                })
        );
    }
    fs::rename(directory.path().join("unmounted"), &away).expect("moved");
    let server = Server::run(directory.path(), over_two(directory.path(), &second));
    let mut wire = Wire::connect(server.address);
    for topic in ["whole", "segment"] {
        assert_eq!(values(&mut wire, topic), ["first"], "{topic}");
        assert_eq!(produce(&mut wire, topic, "more"), (0, 1), "{topic}");
    }
    assert_eq!(values(&mut wire, "plain").len(), 3);
    server.stop();
}

#[test]
fn a_data_directory_that_is_a_link_to_nowhere_or_to_another_one_refuses_the_start() {
    let directory = directory();
    let (data, second) = (data_path(directory.path()), directory.path().join("second"));
    symlink(directory.path().join("nowhere"), &data).expect("a link");
    let told = refused(&mut serve(directory.path(), &[]));
    assert!(told.contains(&data.display().to_string()) && told.contains("symbolic link to"), "{told}");
    assert!(!directory.path().join("nowhere").exists(), "nothing is made where it leads");
    fs::remove_file(&data).expect("removed");
    fs::create_dir(&data).expect("made");
    symlink(&data, &second).expect("a link");
    let told = refused(&mut over_two(directory.path(), &second));
    assert!(told.contains("one directory") && told.contains(&second.display().to_string()), "{told}");
}
