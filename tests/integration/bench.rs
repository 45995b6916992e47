//! `ringlog bench` and Kafka's performance tests against a broker: what they say is what the broker has.

mod perf;
mod throttle;
mod transactions;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringlog::record::batch::BatchHeader;
use serde_json::Value;

use crate::server::{DEADLINE, Server, batches_of, directory};

fn ringlog(server: &Server, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringlog"));
    command.args(arguments.split_ascii_whitespace());
    command.env("RINGLOG_BOOTSTRAP_SERVER", server.address.to_string()).stdin(Stdio::null());
    command
}

fn json(output: &Output) -> Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"))
}

/// Runs to a good end, and gives the JSON.
fn bench(server: &Server, arguments: &str) -> Value {
    let output = ringlog(server, &format!("bench {arguments} --json --quiet")).output().expect("run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    json(&output)
}

/// Records that the broker has on disk.
fn stored(directory: &Path, topic: &str, partitions: i32) -> u64 {
    let batches = (0..partitions).flat_map(|partition| batches_of(directory, topic, partition));
    batches.map(|batch| BatchHeader::parse(&batch).expect("a header").record_count as u64).sum()
}

#[test]
fn what_is_produced_is_in_the_log_and_is_consumed_whole() {
    let directory = directory();
    let server = Server::start(directory.path());
    let produced = bench(
        &server,
        "produce -t load -p 3 --keep -n 3001 -c 4 --threads 2 --check -s 200 --codec zstd:3 --compressible 4 --keys 50",
    );
    assert_eq!(produced["produced"]["records"], 3001);
    assert_eq!(produced["acknowledged_records"], 3001);
    assert_eq!(produced["produced"]["latency_ms"]["count"], 3001);
    assert_eq!((&produced["topic_created"], &produced["topic_deleted"]), (&Value::Bool(true), &Value::Bool(false)));
    assert_eq!(stored(directory.path(), "load", 3), 3001);

    let consumed = bench(&server, "consume -t load --check -c 2");
    assert_eq!(consumed["consumed"]["records"], 3001);
    assert_eq!(consumed["check"]["records"], 3001);
    assert_eq!((&consumed["check"]["sound"], &consumed["check"]["foreign_records"]), (&Value::Bool(true), &0.into()));
    assert_eq!(consumed["broker_pids"][0], server.process().as_raw());

    let again = bench(&server, "consume -t load --repeat -n 20k --check");
    assert!(again["consumed"]["records"].as_u64() >= Some(20_000), "{again}");
    assert_eq!(again["check"]["sound"], true);
    server.stop();
}

#[test]
fn a_rate_is_kept_to_the_record_without_acknowledgements_too() {
    let directory = directory();
    let server = Server::start(directory.path());
    for acks in ["0", "1", "all"] {
        let ran = bench(
            &server,
            &format!(
                "produce -t rate-{acks} -p 2 --keep -d 600ms --warm-up 100ms -r 2000 -c 2 --linger 5ms --acks {acks}"
            ),
        );
        assert_eq!(ran["produced"]["records"], 1200, "{ran}");
        assert_eq!(ran["produced"]["warm_up_records"], 200);
        assert_eq!(ran["left_behind_records"], 0);
        // Ten records of a client come within the time that the first one waits.
        assert!(ran["produced"]["requests"].as_u64() < Some(600), "{ran}");
    }
    // Without acknowledgements the last records may still be on their way; a consumer waits for them.
    let came = bench(&server, "consume -t rate-0 -n 1400 -d 30s --warm-up 0s");
    assert_eq!(came["consumed"]["records"], 1400);
    assert_eq!(stored(directory.path(), "rate-all", 2), 1400);
    server.stop();
}

#[test]
fn idempotent_clients_have_a_producer_id_each_and_sequences_without_a_gap() {
    let directory = directory();
    let server = Server::start(directory.path());
    let ran = bench(&server, "produce -t once -p 2 --keep -n 5000 -c 3 -s 50 --batch-size 1000 --idempotent");
    assert_eq!((&ran["produced"]["records"], &ran["settings"]["idempotent"]), (&5000.into(), &Value::Bool(true)));
    let mut next = BTreeMap::new();
    for partition in 0..2 {
        for batch in batches_of(directory.path(), "once", partition) {
            let header = BatchHeader::parse(&batch).expect("a header");
            assert!(header.producer_id >= 0 && header.producer_epoch == 0, "{header:?}");
            let next = next.entry((header.producer_id, partition)).or_insert(0);
            assert_eq!(header.base_sequence, *next, "{header:?}");
            *next += header.record_count;
        }
    }
    // Two clients share the first partition.
    assert_eq!((next.len(), next.values().sum::<i32>()), (3, 5000));
    let checked = bench(&server, "end-to-end -t checked -n 2000 --check --idempotent --codec lz4 -d 30s");
    assert_eq!(checked["check"]["sound"], true, "{checked}");
    server.stop();
}

#[test]
fn end_to_end_every_record_comes_once_and_report_and_log_tell_of_it() {
    let directory = directory();
    let server = Server::start(directory.path());
    let (page, log) = (directory.path().join("report.html"), directory.path().join("latencies.hlog"));
    let ran = bench(
        &server,
        &format!(
            "end-to-end -d 1s --warm-up 200ms -r 3000 -c 3 --check --report {} --hdr {}",
            page.display(),
            log.display()
        ),
    );
    for (field, expected) in [("acknowledged_records", 3600), ("missing_records", 0)] {
        assert_eq!(ran[field], expected, "{ran}");
    }
    for side in ["produced", "consumed"] {
        assert_eq!(ran[side]["records"], 3000, "{ran}");
        assert_eq!(ran[side]["warm_up_records"], 600);
    }
    assert_eq!((&ran["check"]["sound"], &ran["check"]["records"]), (&Value::Bool(true), &3600.into()));
    assert_eq!(ran["topic_deleted"], true);

    let page = fs::read_to_string(page).expect("a page");
    assert_eq!((page.matches("<svg").count(), page.matches("</svg>").count()), (4, 4));
    assert!(page.ends_with("</html>\n") && !page.contains("NaN") && !page.contains("<script"));

    let log = fs::read(log).expect("a log");
    let mut counts = [0, 0];
    for entry in IntervalLogIterator::new(&log) {
        let LogEntry::Interval(interval) = entry.expect("a line of the format") else { continue };
        let decoded = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, interval.encoded_histogram());
        let histogram: Histogram<u64> =
            Deserializer::new().deserialize(&mut &decoded.expect("base64")[..]).expect("a histogram");
        let side = usize::from(interval.tag().expect("a tag").as_str() == "end-to-end");
        counts[side] += histogram.len();
    }
    assert_eq!(counts, [3000, 3000]);
    server.stop();
}

/// A bench in the middle of a long run, its first line of progress read; what is left of that.
fn in_the_middle(server: &Server, arguments: &str) -> (Child, BufReader<ChildStderr>) {
    let mut command = ringlog(server, arguments);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a process");
    let mut progress = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    progress.read_line(&mut line).expect("a line");
    assert!(line.contains("records/s"), "{line}");
    (child, progress)
}

/// What it ended with.
fn ended(mut child: Child, mut progress: impl Read) -> (Option<i32>, String, String) {
    let deadline = Instant::now() + DEADLINE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        assert!(Instant::now() < deadline, "it goes on");
        std::thread::yield_now();
    };
    let (mut out, mut err) = (String::new(), String::new());
    child.stdout.take().expect("piped").read_to_string(&mut out).expect("text");
    progress.read_to_string(&mut err).expect("text");
    (status.code(), out, err)
}

#[test]
fn ctrl_c_ends_a_run_with_its_summary() {
    let directory = directory();
    let server = Server::start(directory.path());
    for arguments in ["produce -d 60s --warm-up 0s", "end-to-end -r 1000 -d 60s --warm-up 0s --check"] {
        let (child, progress) = in_the_middle(&server, &format!("bench {arguments} --json"));
        let start = Instant::now();
        kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("signalled");
        let (code, out, err) = ended(child, progress);
        assert_eq!(code, Some(130), "{err}");
        assert!(start.elapsed() < Duration::from_secs(10));
        let summary: Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!((&summary["interrupted"], &summary["topic_deleted"]), (&Value::Bool(true), &Value::Bool(true)));
        assert!(summary["produced"]["records"].as_u64() > Some(0), "{summary}");
    }
    server.stop();
}

#[test]
fn a_broker_that_goes_away_ends_the_run_with_one_sentence() {
    let directory = directory();
    let server = Server::start(directory.path());
    let (child, progress) = in_the_middle(&server, "bench produce -d 60s --warm-up 0s --keep");
    server.kill();
    let (code, _, err) = ended(child, progress);
    assert_eq!(code, Some(1), "{err}");
    let said: Vec<&str> = err.lines().filter(|line| line.starts_with("ringlog: ")).collect();
    assert_eq!(said.len(), 1, "{err}");
    assert!(said[0].contains("see its log"), "{err}");
}

#[test]
fn a_broker_that_stands_still_for_too_long_ends_the_run() {
    let directory = directory();
    let server = Server::start(directory.path());
    let (child, progress) = in_the_middle(&server, "bench produce -d 60s --warm-up 0s --keep --timeout 1s");
    kill(server.process(), Signal::SIGSTOP).expect("signalled");
    let (code, _, err) = ended(child, progress);
    kill(server.process(), Signal::SIGCONT).expect("signalled");
    assert_eq!(code, Some(3), "{err}");
    assert!(err.contains("has not answered for 1 s"), "{err}");
    server.stop();
}

#[test]
fn what_can_not_be_run_is_said_in_a_sentence() {
    let directory = directory();
    let server = Server::start(directory.path());
    let refused = |arguments: &str| {
        let output = ringlog(&server, arguments).output().expect("run");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = refused("bench consume -t nowhere");
    assert!(code == Some(1) && said.contains("there is no topic 'nowhere'"), "{said}");
    let (code, said) = refused("bench produce -b 127.0.0.1:1");
    assert!(code == Some(3) && said.contains("no broker answers at 127.0.0.1:1"), "{said}");
    let (code, said) = refused("bench produce --report /nowhere/report.html");
    assert!(code == Some(1) && said.contains("/nowhere/report.html"), "{said}");
    let (code, said) = refused("bench consume --from end");
    assert!(code == Some(2) && said.contains("--duration"), "{said}");
    let _ = bench(&server, "produce -t three -p 3 --keep -n 1");
    let (code, said) = refused("bench produce -t three -p 4");
    assert!(code == Some(2) && said.contains("3 partitions already"), "{said}");
    server.stop();
}

#[test]
fn kafkas_performance_tests_print_what_kafkas_do() {
    let directory = directory();
    let server = Server::start(directory.path());
    let run = |arguments: &str| {
        let output = ringlog(&server, &format!("kafka {arguments}")).output().expect("run");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let address = server.address;
    let out = run(&format!(
        "producer-perf-test --topic perf --num-records 1000 --record-size 100 --throughput -1 --producer-props \
         bootstrap.servers={address} acks=1 linger.ms=5"
    ));
    assert!(out.starts_with("1000 records sent, ") && out.ends_with(" ms 99.9th.\n"), "{out}");
    assert_eq!(out.matches(" ms ").count(), 6, "{out}");

    let out = run(&format!("consumer-perf-test --bootstrap-server {address} --topic perf --messages 1000 --group g"));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(
        lines[0],
        "start.time, end.time, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, rebalance.time.ms, \
         fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec"
    );
    let fields: Vec<&str> = lines[1].split(", ").collect();
    assert_eq!((fields.len(), fields[2], fields[4], fields[6]), (10, "0.0954", "1000", "0"), "{out}");

    let out = run(&format!(
        "consumer-perf-test --broker-list {address} --topic perf --messages 2000 --timeout 100 --hide-header"
    ));
    assert!(out.starts_with("WARNING: Exiting before consuming the expected number of messages: timeout (100 ms)"));
    let fields: Vec<&str> = out.lines().nth(1).expect("a line").split(", ").collect();
    assert_eq!(fields[4], "1000", "{out}");
    assert!(fields[7].parse().is_ok_and(|fetch_ms: u64| fetch_ms >= 100), "the time waited in vain counts: {out}");
    server.stop();
}
