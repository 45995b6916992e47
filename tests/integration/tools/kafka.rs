//! Kafka's tools by name: their flags, and what they print.

use std::path::Path;
use std::process::{Command, Stdio};

use super::{Ran, ended, feed, run};
use crate::server::{Server, directory};

/// A tool that must do what it was asked.
fn kafka(server: &Server, arguments: &[&str]) -> String {
    let ran = attempt(server, arguments, b"");
    assert_eq!(ran.code, 0, "{arguments:?}: {}{}", ran.stdout, ran.stderr);
    ran.stdout
}

fn attempt(server: &Server, arguments: &[&str], input: &[u8]) -> Ran {
    let address = server.address.to_string();
    let (tool, flags) = arguments.split_first().expect("a tool");
    feed(server, &[&["kafka", tool, "--bootstrap-server", &address], flags].concat(), input)
}

#[test]
fn topics_are_made_shown_changed_and_deleted_in_kafkas_words() {
    let directory = directory();
    let server = Server::start(directory.path());
    let created =
        kafka(&server, &["topics", "--create", "--topic", "a", "--partitions", "2", "--config", "retention.ms=-1"]);
    assert_eq!(created, "Created topic a.\n");
    let warned = kafka(&server, &["topics", "--create", "--topic", "b.c", "--if-not-exists"]);
    assert!(
        warned.starts_with("WARNING: Due to limitations in metric names") && warned.ends_with("Created topic b.c.\n")
    );
    let again = attempt(&server, &["topics", "--create", "--topic", "a"], b"");
    assert_eq!(
        (again.code, &again.stdout[..]),
        (1, "Error while executing topic command : Topic 'a' already exists.\n")
    );
    assert_eq!(kafka(&server, &["topics", "--alter", "--topic", "a", "--partitions", "3"]), "");
    assert_eq!(kafka(&server, &["topics", "--list"]), "a\nb.c\n");
    assert_eq!(kafka(&server, &["topics", "--list", "--topic", "b.*"]), "b.c\n");
    let described = kafka(&server, &["topics", "--describe", "--topic", "a"]);
    let mut lines = described.lines();
    let head: Vec<&str> = lines.next().expect("a line").split('\t').collect();
    assert_eq!((head[0], head[2], head[3]), ("Topic: a", "PartitionCount: 3", "ReplicationFactor: 1"));
    assert_eq!(head[4], "Configs: retention.ms=-1");
    let partition = "\tTopic: a\tPartition: 0\tLeader: 1\tReplicas: 1\tIsr: 1\tElr: N/A\tLastKnownElr: N/A";
    assert_eq!(lines.next(), Some(partition));
    assert_eq!(kafka(&server, &["topics", "--describe", "--under-replicated-partitions"]), "");
    assert_eq!(kafka(&server, &["topics", "--delete", "--topic", "a"]), "");
    let missing = attempt(&server, &["topics", "--describe", "--topic", "a"], b"");
    let sentence = "Error while executing topic command : Topic 'a' does not exist as expected\n";
    assert_eq!((missing.code, &missing.stdout[..]), (1, sentence));
    let zookeeper = run(&server, &["kafka", "topics", "--zookeeper", "localhost:2181", "--list"]);
    assert!(zookeeper.code == 2 && zookeeper.stderr.contains("give --bootstrap-server"), "{zookeeper:?}");
    assert_eq!(run(&server, &["kafka", "topics", "--list"]).code, 2);
    server.stop();
}

#[test]
fn records_go_through_the_console_and_offsets_settings_and_sizes_are_shown_as_kafka_does() {
    let directory = directory();
    let server = Server::start(directory.path());
    kafka(&server, &["topics", "--create", "--topic", "t"]);
    let properties =
        ["--property", "parse.key=true", "--property", "parse.headers=true", "--property", "null.marker=NIL"];
    let produce = [&["console-producer", "--topic", "t", "--compression-codec", "--sync"], &properties[..]].concat();
    let sent = attempt(&server, &produce, b"h:1\tk\tv\n\tNIL\tNIL\n");
    assert_eq!((sent.code, &sent.stdout[..], &sent.stderr[..]), (0, "", ""));
    let print = ["print.partition", "print.offset", "print.headers", "print.key"].map(|name| format!("{name}=true"));
    let print: Vec<&str> = print.iter().flat_map(|property| ["--property", property]).collect();
    let consume =
        [&["console-consumer", "--topic", "t", "--from-beginning", "--max-messages", "2"], &print[..]].concat();
    let read = attempt(&server, &consume, b"");
    let lines = "Partition:0\tOffset:0\th:1\tk\tv\nPartition:0\tOffset:1\tNO_HEADERS\tnull\tnull\n";
    assert_eq!((read.code, &read.stdout[..]), (0, lines));
    assert_eq!(read.stderr, "Processed a total of 2 messages\n");
    let last = ["console-consumer", "--topic", "t", "--partition", "0", "--offset", "-1", "--timeout-ms", "20"];
    assert_eq!(attempt(&server, &last, b"").stderr, "Processed a total of 1 messages\n");
    assert_eq!(attempt(&server, &["console-consumer", "--topic", "t", "--group", "g"], b"").code, 1);

    assert_eq!(kafka(&server, &["get-offsets", "--topic", "t"]), "t:0:2\n");
    assert_eq!(kafka(&server, &["get-offsets", "--topic-partitions", "t:0-1", "--time", "-2"]), "t:0:0\n");
    let file = directory.path().join("offsets.json");
    std::fs::write(&file, r#"{"partitions":[{"topic":"t","partition":0,"offset":1}],"version":1}"#).expect("written");
    let deleted = kafka(&server, &["delete-records", "--offset-json-file", file.to_str().expect("UTF-8")]);
    let expected =
        "Executing records delete operation\nRecords delete operation completed:\npartition: t-0\tlow_watermark: 1\n";
    assert_eq!(deleted, expected);

    let changed = kafka(
        &server,
        &["configs", "--alter", "--topic", "t", "--add-config", "cleanup.policy=[compact,delete],retention.ms=7"],
    );
    assert_eq!(changed, "Completed updating config for topic t.\n");
    let shown = kafka(&server, &["configs", "--describe", "--entity-type", "topics", "--entity-name", "t"]);
    let mut lines = shown.lines();
    assert_eq!(lines.next(), Some("Dynamic configs for topic t are:"));
    let policy = lines.next().expect("a setting");
    let start = "  cleanup.policy=compact,delete sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:cleanup.policy=compact,delete, ";
    assert!(policy.starts_with(start), "{policy}");
    let broker = kafka(&server, &["configs", "--alter", "--broker-defaults", "--delete-config", "log.retention.ms"]);
    assert_eq!(broker, "Completed updating default config for brokers in the cluster.\n");

    let dirs = kafka(&server, &["log-dirs", "--describe", "--topic-list", "t"]);
    let json = dirs.lines().last().expect("a line");
    assert!(
        json.starts_with(r#"{"version":1,"brokers":[{"broker":1,"logDirs":[{"partitions":[{"partition":"t-0","size":"#),
        "{json}"
    );
    server.stop();
}

#[test]
fn the_scripts_find_the_binary_and_pass_everything_on() {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    for tool in
        ["topics", "configs", "get-offsets", "delete-records", "log-dirs", "console-producer", "console-consumer"]
    {
        let mut command = Command::new(scripts.join(format!("kafka-{tool}.sh")));
        command.arg("--help").env("RINGLOG", env!("CARGO_BIN_EXE_ringlog"));
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a shell");
        let help = ended(child);
        assert!(help.code == 0 && help.stdout.contains("--bootstrap-server"), "{tool}: {help:?}");
    }
}
