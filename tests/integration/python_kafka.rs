//! Debian's python3-kafka, which speaks the protocols of brokers from 0.9 on.

use std::process::Command;

use crate::server::{Server, directory};

/// Runs python_kafka.py; the lines that it printed.
fn python(server: &Server, what: &str) -> Vec<String> {
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/integration/python_kafka.py");
    // Debian's Python, not one that a version manager put before it.
    let output = Command::new("/usr/bin/python3")
        .args([program, &server.address.to_string(), what])
        .output()
        .expect("Python runs: it needs Debian's package python3-kafka");
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8").lines().map(str::to_owned).collect()
}

#[test]
fn python3_kafka_gets_back_what_it_sent_by_the_protocols_of_every_age_in_every_codec() {
    let directory = directory();
    let server = Server::start(directory.path());
    for (name, codec) in crate::clients::CODECS {
        let lines = python(&server, name);
        assert!(!lines.is_empty(), "{name}");
        for line in lines {
            let (topic, rest) = line.split_once(' ').expect("a topic");
            assert!(rest.starts_with("same=True by_time=") && !rest.ends_with("None"), "{line}");
            assert!(rest.ends_with("=17") || rest.ends_with("=-"), "{line}");
            assert!(server.codecs(topic, 0).iter().all(|found| *found == codec), "{topic}");
        }
    }
    server.stop();
}

#[test]
fn python3_kafka_administers_topics_and_is_told_what_fails() {
    let directory = directory();
    let server = Server::start(directory.path());
    let expected = [
        "created True 60000",
        "partitions 4",
        "altered 2000 604800000",
        "twice TopicAlreadyExistsError",
        "no partitions InvalidPartitionsError",
        "replicas InvalidReplicationFactorError",
        "fewer InvalidPartitionsError",
        "large MessageSizeTooLargeError",
        "deleted True",
    ];
    assert_eq!(python(&server, "admin"), expected);
    server.stop();
}
