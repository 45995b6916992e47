//! Kafka's tools by name: their flags, and what they print.

use std::path::Path;
use std::process::{Command, Stdio};

use super::{Ran, anywhere, ended, feed, run};
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
    assert!(zookeeper.code == 1 && zookeeper.stderr.contains("give --bootstrap-server"), "{zookeeper:?}");
    assert_eq!(run(&server, &["kafka", "topics", "--list"]).code, 1);
    server.stop();
}

#[test]
fn partitions_in_trouble_and_topics_by_id_are_shown_and_flags_that_do_not_go_together_refused() {
    let directory = directory();
    let server = Server::start(directory.path());
    kafka(&server, &["topics", "--create", "--topic", "short", "--config", "min.insync.replicas=2"]);
    kafka(&server, &["topics", "--create", "--topic", "whole"]);
    let trouble = |flag: &str| kafka(&server, &["topics", "--describe", flag]);
    let shown = |topic: &str| {
        format!("\tTopic: {topic}\tPartition: 0\tLeader: 1\tReplicas: 1\tIsr: 1\tElr: N/A\tLastKnownElr: N/A\n")
    };
    assert_eq!(trouble("--under-min-isr-partitions"), shown("short"));
    assert_eq!(trouble("--at-min-isr-partitions"), shown("whole"));
    assert_eq!(trouble("--unavailable-partitions"), "");

    let described = kafka(&server, &["topics", "--describe", "--topic", "whole"]);
    let id = described.split('\t').nth(1).and_then(|field| field.strip_prefix("TopicId: ")).expect("an id");
    let limit = ["--partition-size-limit-per-response", "1"];
    let by_id = [&["topics", "--describe", "--topic-id", id, "--topic", "short"], &limit[..]].concat();
    assert_eq!(kafka(&server, &by_id), described);
    let unknown = attempt(&server, &["topics", "--describe", "--topic-id", "AAAAAAAAAAAAAAAAAAAAAQ"], b"");
    let sentence =
        "Error while executing topic command : TopicId 'AAAAAAAAAAAAAAAAAAAAAQ' does not exist as expected\n";
    assert_eq!((unknown.code, &unknown.stdout[..], &unknown.stderr[..]), (1, sentence, ""), "said once");

    let refused = |flags: &[&str], why: &str| {
        let ran = attempt(&server, &[&["topics"], flags].concat(), b"");
        assert!(ran.code == 1 && ran.stdout.is_empty() && ran.stderr.contains(why), "{flags:?}: {ran:?}");
    };
    let hint = "(the kafka-configs CLI supports altering topic configs";
    refused(&["--alter", "--topic", "whole", "--delete-config", "retention.ms"], hint);
    refused(&["--alter", "--topic", "whole", "--partitions", "2", "--config", "retention.ms=1"], hint);
    refused(&["--list", "--if-exists"], "Option \"[if-exists]\" can't be used with option \"[list]\"");
    refused(&["--describe", "--at-min-isr-partitions", "--topics-with-overrides"], "\"[topics-with-overrides]\"");
    refused(&["--describe", "--lsit"], "'--list'");
    let nobody = run(&server, &["kafka", "topics", "--bootstrap-server", "127.0.0.1:1", "--list"]);
    assert!(nobody.code == 1 && nobody.stdout.starts_with("Error while executing topic command : no broker"));
    server.stop();
}

#[test]
fn the_console_makes_topics_and_reads_numbers_through_deserializers_and_formatters() {
    let directory = directory();
    let server = Server::start(directory.path());
    let sent = attempt(&server, &["console-producer", "--topic", "made", "--sync"], b"a\r\nb\n");
    assert_eq!((sent.code, &sent.stdout[..]), (0, ""), "{}", sent.stderr);
    for value in [&7i32.to_be_bytes()[..], b"abc", &9i32.to_be_bytes()[..]] {
        attempt(&server, &["console-producer", "--topic", "numbers", "--property", "null.marker=x"], value);
    }
    let read = |topic: &str, flags: &[&str]| {
        let flags =
            [&["console-consumer", "--from-beginning", "--timeout-ms", "50", "--include", topic], flags].concat();
        let ran = attempt(&server, &flags, b"");
        (ran.code, ran.stdout, ran.stderr)
    };
    let all = "Processed a total of 2 messages\n";
    assert_eq!(read("ma.e", &[]), (0, "a\nb\n".to_owned(), all.to_owned()));
    let no_op = "org.apache.kafka.tools.consumer.NoOpMessageFormatter";
    assert_eq!(read("made", &["--formatter", no_op]), (0, String::new(), all.to_owned()));
    let logged = read("made", &["--formatter", "kafka.tools.LoggingMessageFormatter"]);
    assert!(logged.1 == "a\nb\n" && logged.2.contains(", key:null, value:b\n"), "{logged:?}");
    assert!(logged.2.starts_with("WARNING: kafka.tools.LoggingMessageFormatter is deprecated"), "{logged:?}");

    let integer = ["--value-deserializer", "org.apache.kafka.common.serialization.IntegerDeserializer"];
    let why = "offset 1 of numbers-0: Size of data received by IntegerDeserializer is not 4";
    let stopped = read("numbers", &integer);
    assert_eq!((stopped.0, &stopped.1[..]), (1, "7\n"), "{stopped:?}");
    assert_eq!(stopped.2, format!("Processed a total of 2 messages\nringlog: {why}\n"));
    let skipped =
        read("numbers", &[&integer[..], &["--skip-message-on-error", "--property", "print.key=true"]].concat());
    assert_eq!((skipped.0, &skipped.1[..]), (0, "null\t7\nnull\t9\n"), "{skipped:?}");
    assert_eq!(skipped.2, format!("ringlog: skipped {why}\nProcessed a total of 3 messages\n"));

    let file = directory.path().join("formatter.properties");
    std::fs::write(&file, "# a comment\nprint.offset = true\nkey.separator=:\n").expect("written");
    let file = file.to_str().expect("UTF-8");
    let configured = read("made", &["--formatter-config", file, "--property", "key.separator=|"]);
    assert_eq!(configured.1, "Offset:0|a\nOffset:1|b\n");

    let refused = |flags: &[&str], why: &str| {
        let ran = attempt(&server, flags, b"");
        assert!(ran.code == 1 && ran.stderr.contains(why), "{flags:?}: {ran:?}");
    };
    let consumer = ["console-consumer", "--topic", "made"];
    refused(&[&consumer[..], &["--value-deserializer", "com.example.Avro"]].concat(), "can't be loaded");
    refused(&[&consumer[..], &["--formatter", "com.example.Formatter"]].concat(), "can't be loaded");
    refused(&[&consumer[..], &["--consumer-property", "group.id=g"]].concat(), "not there yet");
    refused(&[&consumer[..], &["--offset", "3"]].concat(), "--partition");
    refused(&["console-consumer", "--include", "x.*"], "no topic matches");
    let latest = ["--from-beginning", "--consumer-property", "auto.offset.reset=latest"];
    refused(&[&consumer[..], &latest].concat(), "Can't simultaneously specify");
    let equal = ["console-producer", "--topic", "made", "--property", "headers.separator=:"];
    refused(&equal, "headers.separator and headers.key.separator may not be equal");
    server.stop();
}

#[test]
fn every_tool_says_its_version_first() {
    for tool in ["topics", "configs", "console-producer", "console-consumer", "dump-log", "producer-perf-test"] {
        let ran = ended(anywhere(&["kafka", tool, "--version"]).spawn().expect("the tool starts"));
        assert!(ran.code == 0 && ran.stdout.starts_with("3.9.0 (ringlog "), "{tool}: {ran:?}");
        let bare = ended(anywhere(&["kafka", tool]).spawn().expect("the tool starts"));
        assert!(bare.code == 1 && bare.stderr.contains("Usage:"), "{tool}: {bare:?}");
    }
}

#[test]
fn records_go_through_the_console_and_offsets_settings_and_sizes_are_shown_as_kafka_does() {
    let directory = directory();
    let server = Server::start(directory.path());
    kafka(&server, &["topics", "--create", "--topic", "t"]);
    let properties =
        ["--property", "parse.key=true", "--property", "parse.headers=true", "--property", "null.marker=NIL"];
    let produce = [&["console-producer", "--topic", "t", "--compression-codec", "--sync"], &properties[..]].concat();
    let sent = attempt(&server, &produce, b"h:1\tk\tv\nNIL\tNIL\tNIL\n");
    assert_eq!((sent.code, &sent.stdout[..], &sent.stderr[..]), (0, "", ""));
    let print = ["print.partition", "print.offset", "print.headers", "print.key"].map(|name| format!("{name}=true"));
    let print: Vec<&str> = print.iter().flat_map(|property| ["--property", property]).collect();
    let consume =
        [&["console-consumer", "--topic", "t", "--from-beginning", "--max-messages", "2"], &print[..]].concat();
    let read = attempt(&server, &consume, b"");
    let lines = "Partition:0\tOffset:0\th:1\tk\tv\nPartition:0\tOffset:1\tNO_HEADERS\tnull\tnull\n";
    assert_eq!((read.code, &read.stdout[..]), (0, lines));
    assert_eq!(read.stderr, "Processed a total of 2 messages\n");
    let last = ["console-consumer", "--topic", "t", "--partition", "0", "--offset", "1", "--timeout-ms", "20"];
    assert_eq!(attempt(&server, &last, b"").stderr, "Processed a total of 1 messages\n");
    let before_the_end = ["console-consumer", "--topic", "t", "--partition", "0", "--offset", "-1"];
    let refused = attempt(&server, &before_the_end, b"");
    assert!(refused.code == 1 && refused.stderr.contains("or a non-negative long"), "{refused:?}");
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
    let file = directory.path().join("broker.properties");
    std::fs::write(&file, "log.retention.ms=60000\n").expect("written");
    let file = file.to_str().expect("UTF-8");
    kafka(&server, &["configs", "--alter", "--broker-defaults", "--add-config-file", file]);
    let unset = ["configs", "--alter", "--broker-defaults", "--delete-config", "log.retention.ms"];
    let broker = kafka(&server, &unset);
    assert_eq!(broker, "Completed updating default config for brokers in the cluster.\n");
    let again = attempt(&server, &unset, b"");
    assert_eq!((again.code, &again.stderr[..]), (1, "ringlog: Invalid config(s): log.retention.ms\n"));
    let users = attempt(&server, &["configs", "--describe", "--entity-type", "users"], b"");
    assert!(users.code == 1 && users.stderr.contains("not there yet"), "{users:?}");
    let soon = attempt(&server, &["configs", "--alter", "--topic", "t", "--add-config", "retention.ms=soon"], b"");
    let start = "Error while executing config command with args '--bootstrap-server ";
    assert!(soon.code == 1 && soon.stderr.starts_with(start) && soon.stderr.contains("Invalid value soon"), "{soon:?}");

    let dirs = kafka(&server, &["log-dirs", "--describe", "--topic-list", "t"]);
    let json = dirs.lines().last().expect("a line");
    assert!(
        json.starts_with(r#"{"brokers":[{"broker":1,"logDirs":[{"partitions":[{"partition":"t-0","size":"#),
        "{json}"
    );
    server.stop();
}

#[test]
fn rarer_flags_do_what_kafkas_do_or_are_refused_with_what_to_do() {
    let directory = directory();
    let server = Server::start_with(directory.path(), &["log.segment.bytes=1048576"]);
    let refused = |flags: &[&str], why: &str| {
        let ran = attempt(&server, flags, b"");
        assert!(ran.code == 1 && (ran.stderr.contains(why) || ran.stdout.contains(why)), "{flags:?}: {ran:?}");
    };
    assert_eq!(kafka(&server, &["topics", "--list"]), "\n", "Kafka's line of no topics");
    refused(&["topics", "--create", "--topic", "t", "--partitions", "-1"], "The partitions must be greater than 0");
    refused(&["topics", "--create", "--topic", "t", "--replication-factor", "0"], "must be between 1 and 32767");
    refused(&["topics", "--delete", "--topic", "t", "--exclude-internal"], "\"[exclude-internal]\" can't be used");
    kafka(&server, &["topics", "--create", "--topic", "t", "--partitions", "12"]);

    let described = kafka(&server, &["topics", "--describe", "--topic", "t", "--topics-with-overrides"]);
    assert!(described.ends_with("\tConfigs: segment.bytes=1048576\n"), "what a broker's file sets, too: {described}");

    let places = |flags: &[&str]| kafka(&server, &[&["get-offsets", "--topic-partitions"], flags].concat());
    assert_eq!(places(&["t:9-,"]), "t:10:0\nt:11:0\nt:9:0\n", "sorted as text");
    assert_eq!(places(&["t:-1", "--time", "earliest-local"]), "t:0:0\n");
    assert_eq!(places(&["t:-1", "--time", "latest-tiered"]), "");
    refused(&["get-offsets", "--topic", "u"], "Error occurred: Could not match any topic-partitions");
    refused(&["get-offsets", "--topic-partitions", "t:x"], "Error occurred: Invalid rule specification: t:x");
    let older = run(&server, &["kafka", "get-offsets", "--broker-list", &server.address.to_string(), "--topic", "u|t"]);
    assert_eq!((older.code, older.stdout.lines().count()), (0, 12), "{older:?}");

    let all = kafka(&server, &["log-dirs", "--describe", "--broker-list", "", "--topic-list", ""]);
    assert!(all.contains("\"partition\":\"t-11\""), "{all}");
    let unknown = "ERROR: The given brokers do not exist from --broker-list: 77,78. Current existent brokers: 1";
    refused(&["log-dirs", "--describe", "--broker-list", "77,1,78"], unknown);

    let default = kafka(&server, &["configs", "--describe", "--entity-type", "brokers", "--entity-name", ""]);
    assert_eq!(default, "Default configs for brokers in the cluster are:\n");
    let configs = |flags: &[&str], why: &str| refused(&[&["configs", "--describe"], flags].concat(), why);
    configs(&["--user", "a", "--client", "b"], "not there yet");
    configs(&["--topic", "t", "--broker", "1"], "Only 'users' and 'clients' entity types may be specified together");
    configs(
        &["--entity-type", "topics", "--topic", "t"],
        "should not be used in conjunction with specific entity flags",
    );
    configs(&["--entity-type", "broker-loggers"], "an entity name must be specified with --describe of broker-loggers");
    configs(&["--broker", "one"], "The entity name for brokers must be a valid integer broker id, but it is: one");
    configs(&["--topic", "t", "--zk-tls-config-file", "f"], "give --bootstrap-server");
    let alter = ["configs", "--alter", "--entity-type", "brokers", "--add-config", "log.retention.ms=5"];
    refused(&alter, "an entity-name or default entity must be specified");
    server.stop();
}

#[test]
fn the_console_stops_where_kafkas_does_and_shows_what_coordinators_keep() {
    let directory = directory();
    let server = Server::start(directory.path());
    run(&server, &["topic", "create", "kept"]);
    let records = "000100016700017400000007:0003000000000000000500000002000161000000000000000900\n00020001670a:0000\n";
    let sent = feed(&server, &["produce", "kept", "-f", "hex", "-K", ":"], records.as_bytes());
    assert_eq!(sent.code, 0, "{sent:?}");
    let consumer = |flags: &[&str]| {
        attempt(&server, &[&["console-consumer", "--topic", "kept", "--from-beginning"], flags].concat(), b"")
    };
    let stopped = consumer(&["--max-messages", "0"]);
    assert_eq!((stopped.code, &stopped.stderr[..]), (0, "Processed a total of 0 messages\n"));
    let unlimited = consumer(&["--max-messages", "-1", "--timeout-ms", "50"]);
    assert_eq!((unlimited.code, &unlimited.stderr[..]), (0, "Processed a total of 2 messages\n"));
    let offsets = "org.apache.kafka.tools.consumer.OffsetsMessageFormatter";
    let shown = consumer(&["--formatter", offsets, "--max-messages", "2", "--timeout-ms", "10000"]);
    let key = r#"{"version":1,"data":{"group":"g","topic":"t","partition":7}}"#;
    let value = r#"{"version":3,"data":{"offset":5,"leaderEpoch":2,"metadata":"a","commitTimestamp":9}}"#;
    assert_eq!((shown.code, shown.stdout), (0, format!(r#"{{"key":{key},"value":{value}}}"#)), "{}", shown.stderr);
    let older = consumer(&["--formatter", "kafka.coordinator.group.GroupMetadataManager$OffsetsMessageFormatter"]);
    assert!(older.code == 1 && older.stderr.contains(offsets), "{older:?}");
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
