//! Kafka's performance tests by name: their flags, and what they print and write.

use std::collections::BTreeMap;

use ringlog::record::batch::decode_records;

use super::*;

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

fn attempt(server: &Server, arguments: &[&str]) -> Ran {
    let mut command = ringlog(server, "kafka");
    let output = command.args(arguments).output().expect("run");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

/// `producer-perf-test` of some records to a topic; further flags.
fn produce(server: &Server, topic: &str, records: u64, flags: &[&str], properties: &[&str]) -> Ran {
    let bootstrap = format!("bootstrap.servers={}", server.address);
    let records = records.to_string();
    let mut arguments = vec!["producer-perf-test", "--topic", topic, "--num-records", &records, "--throughput", "-1"];
    arguments.extend(flags);
    arguments.extend(["--producer-props", &bootstrap]);
    arguments.extend(properties);
    attempt(server, &arguments)
}

fn produced(server: &Server, topic: &str, records: u64, flags: &[&str], properties: &[&str]) -> String {
    let ran = produce(server, topic, records, flags, properties);
    assert_eq!(ran.code, Some(0), "{flags:?}: {}{}", ran.out, ran.err);
    ran.out
}

/// Values on disk, of all partitions, and headers of the batches that hold them.
fn values(directory: &Path, topic: &str) -> (Vec<Vec<u8>>, Vec<BatchHeader>) {
    let (mut values, mut headers) = (Vec::new(), Vec::new());
    for partition in 0.. {
        if !crate::server::data_path(directory).join(format!("{topic}-{partition}")).exists() {
            break;
        }
        for batch in batches_of(directory, topic, partition) {
            headers.push(BatchHeader::parse(&batch).expect("a header"));
            let records = decode_records(&batch, 1 << 24).expect("sound");
            values.extend(records.into_iter().map(|record| record.value.expect("a value").to_vec()));
        }
    }
    (values, headers)
}

/// Lines of `--print-metrics`, by group, name and tags.
fn metrics(out: &str) -> BTreeMap<String, f64> {
    let (_, table) = out.split_once("\n\nMetric Name").expect("a blank line and a heading");
    let mut lines = table.lines();
    let heading = lines.next().expect("a heading");
    assert!(heading.trim_start() == "Value" && heading.starts_with("   "), "{heading}");
    let lines: Vec<&str> = lines.collect();
    assert!(lines.is_sorted() && lines.iter().all(|line| line.find(" : ") == lines[0].find(" : ")), "{out}");
    let value = |value: &str| {
        assert_eq!(value.rsplit_once('.').map(|(_, decimals)| decimals.len()), Some(3), "{value}");
        value.parse().expect("a number")
    };
    lines
        .iter()
        .map(|line| line.split_once(" : ").expect("a value"))
        .map(|(name, text)| (name.trim_end().to_owned(), value(text)))
        .collect()
}

#[test]
fn payloads_come_from_a_file_are_numbers_or_letters_and_exactly_one_of_them_is_asked_for() {
    let directory = directory();
    let server = Server::start(directory.path());
    let file = directory.path().with_extension("payloads");
    let path = file.to_str().expect("text");
    fs::write(&file, "one\ntwo\n\nthree|four\n\n").expect("written");

    let out = produced(&server, "lines", 500, &["--payload-file", path], &["batch.size=300"]);
    let told = format!("Reading payloads from: {path}\nNumber of messages read: 4\n500 records sent, ");
    assert!(out.starts_with(&told), "{out}");
    let (found, headers) = values(directory.path(), "lines");
    assert_eq!(found.len(), 500);
    for line in ["one", "two", "", "three|four"] {
        assert!(found.iter().filter(|value| **value == line.as_bytes()).count() > 50, "{line}");
    }
    assert!(headers.iter().all(|header| header.batch_length < 300) && headers.len() > 20, "batches of 300 bytes");

    let flags = ["--payload-file", path, "--payload-delimiter", "\\||\\n+"];
    assert!(produced(&server, "split", 100, &flags, &[]).contains("messages read: 4\n"));
    let (found, _) = values(directory.path(), "split");
    assert!(found.iter().any(|value| value == b"four") && found.iter().all(|value| !value.is_empty()));

    produced(&server, "numbers", 1234, &["--payload-monotonic"], &["linger.ms=1"]);
    let (mut found, _) = values(directory.path(), "numbers");
    found.sort_by_key(|value| (value.len(), value.clone()));
    assert_eq!(found, (0..1234).map(|number| number.to_string().into_bytes()).collect::<Vec<_>>());

    produced(&server, "letters", 50, &["--record-size", "30"], &["compression.type=lz4"]);
    let (found, _) = values(directory.path(), "letters");
    assert!(found.iter().all(|value| value.len() == 30 && value.iter().all(u8::is_ascii_uppercase)));

    for (flags, why) in [
        (&[][..], "--record-size"),
        (&["--record-size", "1", "--payload-monotonic"], "cannot be used with"),
        (&["--payload-file", path, "--record-size", "1"], "cannot be used with"),
        (&["--payload-file", "/nowhere/at/all"], "/nowhere/at/all: no such file"),
        (&["--payload-file", path, "--payload-delimiter", "(?=x)"], "is no regular expression"),
    ] {
        let refused = produce(&server, "lines", 1, flags, &[]);
        assert!(refused.code == Some(1) && refused.err.contains(why), "{flags:?}: {}", refused.err);
    }
    fs::remove_file(file).expect("removed");
    server.stop();
}

#[test]
fn metrics_are_printed_as_kafka_prints_its_own() {
    let directory = directory();
    let server = Server::start(directory.path());
    let flags = ["--record-size", "100", "--print-metrics"];
    let out = produced(&server, "m.t", 1000, &flags, &["client.id=me", "compression.type=zstd", "batch.size=4000"]);
    let found = metrics(&out);
    let of = |group: &str, name: &str| found[&format!("{group}:{name}:{{client-id=me}}")];
    let of_topic = |name: &str| found[&format!("producer-topic-metrics:{name}:{{client-id=me, topic=m.t}}")];
    assert_eq!((of("producer-metrics", "record-send-total"), of_topic("record-send-total")), (1000.0, 1000.0));
    assert_eq!((of("producer-metrics", "record-error-total"), of_topic("record-retry-total")), (0.0, 0.0));
    let (_, headers) = values(directory.path(), "m.t");
    let stored: i32 = headers.iter().map(|header| header.batch_length + 12).sum();
    assert_eq!(of_topic("byte-total"), f64::from(stored));
    let per_request = of("producer-metrics", "records-per-request-avg");
    assert!((per_request - 1000.0 / headers.len() as f64).abs() < 0.001, "{per_request}");
    let ratio = of_topic("compression-rate");
    assert!((0.3..1.0).contains(&ratio) && ratio == of("producer-metrics", "compression-rate-avg"), "{ratio}");
    // A request each, one for the versions and one for the producer id.
    assert_eq!(of("producer-metrics", "request-total"), headers.len() as f64 + 2.0);
    assert_eq!(of("producer-metrics", "response-total"), headers.len() as f64 + 2.0);
    let (mean, max) = (of("producer-metrics", "request-latency-avg"), of("producer-metrics", "request-latency-max"));
    assert!(0.0 < mean && mean <= max, "{mean} {max}");
    assert_eq!(of("producer-metrics", "produce-throttle-time-max"), 0.0);

    let address = server.address.to_string();
    let arguments = ["consumer-perf-test", "--bootstrap-server", &address, "--topic", "m.t", "--messages", "1000"];
    let ran = attempt(&server, &[&arguments[..], &["--print-metrics"]].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let found = metrics(&ran.out);
    let fetches =
        |name: &str| found[&format!("consumer-fetch-manager-metrics:{name}:{{client-id=perf-consumer-client}}")];
    assert_eq!(fetches("records-consumed-total"), 1000.0);
    // A record of a hundred bytes has nine more around them.
    assert_eq!(fetches("bytes-consumed-total"), 109_000.0);
    assert!(fetches("fetch-total") >= 1.0 && fetches("fetch-latency-avg") > 0.0);
    let topic = "consumer-fetch-manager-metrics:records-consumed-total:{client-id=perf-consumer-client, topic=m_t}";
    assert_eq!(found[topic], 1000.0);
    server.stop();
}

#[test]
fn producers_are_idempotent_as_kafkas_are_by_default() {
    let directory = directory();
    let server = Server::start(directory.path());
    for (topic, properties, expected) in [
        ("default", &[][..], true),
        ("leader", &["acks=1"], false),
        ("off", &["enable.idempotence=false"], false),
        ("deep", &["max.in.flight.requests.per.connection=6"], false),
        ("asked", &["enable.idempotence=true", "acks=-1"], true),
    ] {
        produced(&server, topic, 300, &["--record-size", "10"], properties);
        let (values, headers) = values(directory.path(), topic);
        assert_eq!(values.len(), 300);
        assert!(headers.iter().all(|header| header.has_producer_id() == expected), "{topic}: {headers:?}");
    }
    let properties = ["enable.idempotence=true", "acks=1"];
    let refused = produce(&server, "refused", 1, &["--record-size", "10"], &properties);
    assert!(refused.code == Some(1) && refused.err.contains("Must set acks to all"), "{}", refused.err);
    server.stop();
}

#[test]
fn a_broker_without_transactions_is_not_waited_for() {
    let directory = directory();
    let server = Server::start(directory.path());
    let start = Instant::now();
    let flags = ["--record-size", "10", "--transaction-duration-ms", "100", "--transactional-id", "t"];
    let refused = produce(&server, "t", 1, &flags, &[]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.starts_with("ringlog: this broker has no transactions; "), "{}", refused.err);
    assert!(refused.err.lines().count() == 1 && refused.out.is_empty() && start.elapsed() < Duration::from_secs(10));
    // Without a duration there are none, whatever the id.
    produced(&server, "t", 1, &["--record-size", "10", "--transactional-id", "t"], &[]);
    let refused = produce(&server, "t", 1, &flags[..4], &["acks=1"]);
    assert!(refused.err.contains("without also enabling idempotence"), "{}", refused.err);
    server.stop();
}

#[test]
fn the_consumers_flags_are_kafkas() {
    let directory = directory();
    let server = Server::start(directory.path());
    produced(&server, "t", 100, &["--record-size", "10"], &[]);
    let address = server.address.to_string();
    let consume = |flags: &[&str]| {
        let arguments = ["consumer-perf-test", "--bootstrap-server", &address, "--topic", "t", "--messages", "100"];
        attempt(&server, &[&arguments[..], flags].concat())
    };
    let ran = consume(&["--threads", "3", "--num-fetch-threads", "2", "--hide-header", "--date-format", "yyyy'!'"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(
        lines[0],
        "WARNING: option [threads] and [num-fetch-threads] have been deprecated and will be ignored by the test"
    );
    let fields: Vec<&str> = lines[1].split(", ").collect();
    assert!(fields.len() == 10 && fields[0].len() == 5 && fields[0].ends_with('!'), "{}", ran.out);
    assert_eq!((fields[0], fields[4]), (fields[1], "100"));

    // Kafka's consumer takes up to five hundred records before it looks whether it has enough.
    produced(&server, "t", 900, &["--record-size", "10"], &[]);
    for (messages, expected) in [("1", "500"), ("501", "1000"), ("0", "0")] {
        let flags = ["consumer-perf-test", "--broker-list", &address, "--topic", "t", "--hide-header", "--messages"];
        let ran = attempt(&server, &[&flags[..], &[messages]].concat());
        assert!(
            ran.code == Some(0) && ran.out.contains(&format!(", {expected}, ")),
            "{messages}: {}{}",
            ran.out,
            ran.err
        );
    }

    let refused = consume(&["--date-format", "yyyy-ww"]);
    assert!(refused.code == Some(1) && refused.err.contains("'ww' can't be shown"), "{}", refused.err);
    server.stop();
}
