//! What Kafka's own classes, and a running Kafka, say to some thousand settings (`tests/golden/settings/README.md`): taken or
//! refused here as there, at the start and while the broker runs.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::dynamic::BrokerScope;
use super::load::{ServeOptions, Settings};
use super::{Config, DynamicConfig};

const GOLDEN: &str = include_str!("../../../tests/golden/settings/kafka-3.9.1-checks.txt");

/// The file of the broker that was asked to change settings.
const ASKED: &[(&str, &str)] = &[
    ("broker.id", "1"),
    ("listeners", "PLAINTEXT://127.0.0.1:0"),
    ("offsets.topic.replication.factor", "1"),
    ("transaction.state.log.replication.factor", "1"),
    ("transaction.state.log.min.isr", "1"),
];

/// One line of the file.
struct Check {
    kind: &'static str,
    settings: BTreeMap<String, String>,
    /// `taken`, `refused`, or the name of an error code.
    verdict: &'static str,
    message: &'static str,
    row: &'static str,
}

fn checks() -> Vec<Check> {
    let lines = GOLDEN.lines().filter(|line| !line.starts_with('#'));
    lines.map(check).collect()
}

fn check(row: &'static str) -> Check {
    let fields: Vec<&str> = row.split('\t').collect();
    let [kind, ref settings @ .., verdict, message] = fields[..] else { panic!("{row}") };
    let settings = settings.iter().map(|setting| {
        let (name, value) = setting.split_once('=').expect("name=value");
        (name.to_owned(), value.trim().to_owned())
    });
    Check { kind, settings: settings.collect(), verdict, message, row }
}

fn start(settings: &BTreeMap<String, String>) -> Result<Config, String> {
    let options = ServeOptions::default();
    let config = Settings { named: settings.clone() }.into_config(&options, BTreeMap::new(), Vec::new());
    config.map_err(|error| error.to_string())
}

/// The verdict here, and the words.
fn ours(check: &Check) -> (&'static str, String) {
    let told = |result: Result<(), String>, taken, refused| match result {
        Ok(()) => (taken, String::new()),
        Err(message) => (refused, message),
    };
    let asked = || {
        let file = ASKED.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        DynamicConfig::clone(&start(&file.collect()).expect("that broker starts").dynamic)
    };
    match check.kind {
        "start" => told(start(&check.settings).map(drop), "taken", "refused"),
        "broker" => told(asked().with(BrokerScope::This, &check.settings).map(drop), "NONE", "INVALID_REQUEST"),
        "all" => told(asked().with(BrokerScope::All, &check.settings).map(drop), "NONE", "INVALID_REQUEST"),
        "topic" => {
            let config = asked().topic_defaults.with_overrides(&check.settings);
            told(config.map(drop).map_err(|error| error.to_string()), "NONE", "INVALID_CONFIG")
        }
        other => panic!("{other}"),
    }
}

/// Where the verdict is another on purpose: rows by how they begin, or after `*` by what is in them, and why.
const DIFFERENCES: &[(&str, &[&str])] = &[
    (
        "TLS and SASL do not change while the broker runs",
        &["broker\tssl.", "broker\tsasl.", "all\tssl.", "*\tssl.protocol=a"],
    ),
    ("only PLAINTEXT is served yet", &["start\tlistener.security.protocol.map=PLAINTEXT:SSL", "*SASL_PLAINTEXT://"]),
    ("there is no ZooKeeper yet", &["start\tzookeeper.connect="]),
    ("nothing of KRaft mode is here", &["start\tcontroller.", "start\tearly.start.listeners="]),
    ("consumer groups of the new protocol are of KRaft mode", &["start\tgroup.consumer."]),
    ("there is no tiered storage", &["start\tremote."]),
    (
        "Java classes are not looked for",
        &["*\tmetric.reporters=", "*.class=no.such.Klass", "*\tprincipal.builder.class=", "*.class.name=no.such.Klass"],
    ),
    (
        "Kafka takes it, and does not start again",
        &["*\tlog.flush.interval.ms=-", "*log.cleaner.min.compaction.lag.ms=9\tlog.cleaner.max.compaction.lag.ms=8"],
    ),
    (
        "Kafka takes it, and fails where it is used",
        &[
            "start\tdefault.replication.factor=",
            "start\toffsets.topic.segment.bytes=1",
            "start\ttransaction.state.log.segment.bytes=1",
            "start\tsocket.receive.buffer.bytes=-2",
            "start\tsocket.send.buffer.bytes=-2",
            "*PLAINTEXT://127.0.0.1:-1",
            "*PLAINTEXT://127.0.0.1:65536",
            "*PLAINTEXT://h:-1",
            "start\tlistener.name.plaintext.max.",
            "*max.connections.per.ip.overrides=host_1:5",
            "*max.connections.per.ip.overrides=:5",
            "*max.connections.per.ip.overrides=no.such.host.invalid:5",
        ],
    ),
    ("nobody can connect to it from elsewhere", &["*PLAINTEXT://[::]:"]),
    ("no number, or none that makes sense", &["*=NaN", "*=-0.1", "*=0x1p3", "*=٣"]),
    ("records of Kafka 0.10 and older are not written", &["*inter.broker.protocol.version=0."]),
];

fn is_of(pattern: &str, row: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(part) => row.contains(part),
        None => row.starts_with(pattern),
    }
}

/// Rows that say otherwise than this broker, on purpose or not, with what it says.
fn disagreements(checks: &[Check]) -> Vec<(&'static str, String)> {
    let disagree = |check: &Check| {
        let (verdict, message) = ours(check);
        let agrees = verdict == check.verdict && has_kafkas_words(check, &message);
        (!agrees).then(|| (check.row, format!("{verdict} {message}")))
    };
    checks.iter().filter_map(disagree).collect()
}

/// What clients are told of a value is told in Kafka's words, but for lists, and for what settings demand of each other.
fn has_kafkas_words(check: &Check, message: &str) -> bool {
    const TOPIC: &str = "Invalid config value for resource ConfigResource(type=TOPIC, name='checked'): ";
    let kafkas = check.message.strip_prefix(TOPIC).unwrap_or(check.message);
    let is_told = kafkas.starts_with("Invalid value ")
        && !kafkas.starts_with("Invalid value org.apache")
        && !kafkas.starts_with("Invalid value [")
        && !kafkas.contains("cleanup.policy");
    let words = message.split_whitespace().collect::<Vec<_>>().join(" ");
    !is_told || words == kafkas
}

#[test]
fn settings_are_taken_and_refused_as_kafka_takes_and_refuses_them() {
    let wrong: Vec<String> = disagreements(&checks())
        .into_iter()
        .filter(|(row, _)| !DIFFERENCES.iter().flat_map(|(_, patterns)| *patterns).any(|pattern| is_of(pattern, row)))
        .map(|(row, ours)| format!("{row} <> {ours}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_difference_on_purpose_is_one() {
    let rows = disagreements(&checks());
    for (why, patterns) in DIFFERENCES {
        for pattern in *patterns {
            assert!(rows.iter().any(|(row, _)| is_of(pattern, row)), "{pattern}: {why}");
        }
    }
}

#[test]
fn a_planted_row_is_noticed() {
    for planted in [
        "start\tlog.retention.hours=0\ttaken\t",
        "start\tlog.retention.hours=1\trefused\t",
        "all\tmax.connections=0\tNONE\t",
        "broker\tmax.connections=1\tINVALID_REQUEST\t",
        "topic\tretention.ms=-2\tNONE\t",
        "topic\tretention.ms=x\tINVALID_CONFIG\tInvalid value x for configuration retention.ms: other words",
    ] {
        assert_eq!(disagreements(&[check(planted)]).len(), 1, "{planted}");
    }
}
