use std::time::Duration;

use super::load::Outcome;
use super::measure::{Interval, Recorder, SECOND_NS, Side};
use super::payload::Shape;
use super::settings::{FetchSettings, Mode, Settings, TopicSettings};
use super::topic::Topic;
use super::*;
use crate::connect::ConnectArguments;

/// Settings of a run that is not run.
pub fn settings() -> Settings {
    Settings {
        mode: Mode::Produce,
        connect: ConnectArguments {
            bootstrap_server: vec!["127.0.0.1:9092".to_owned()],
            timeout: Duration::from_secs(10),
        },
        client_id: "test".to_owned(),
        topic: TopicSettings { name: "t".to_owned(), partitions: None, replication_factor: -1, keep: false },
        clients: 1,
        client_per_leader: false,
        threads: 1,
        depth: 5,
        shape: Shape { record_bytes: 100, batch_bytes: 1000, ..Shape::none() },
        linger: Duration::ZERO,
        acks: -1,
        idempotent: false,
        transaction: None,
        rate: None,
        warm_up: Duration::from_secs(1),
        duration: Some(Duration::from_secs(3)),
        records: None,
        fetch: FetchSettings::none(),
        check: false,
        pid: None,
    }
}

/// Three seconds of a run after one of warm-up.
fn seconds() -> Vec<Interval> {
    let mut recorder = Recorder::new(SECOND_NS);
    let second = |second: u64| {
        for us in 1..=1000u64 {
            let due = second * SECOND_NS + us * 1000;
            recorder.records(Side::Produced, due, due + us * 1000 * (second + 1), 3);
            recorder.records(Side::Consumed, due, due + us * 4000, 3);
            recorder.request(Side::Produced, due, due + us * 1000, 4096);
            recorder.request(Side::Consumed, due, due + us * 1000, 4096);
        }
        recorder.cut((second + 1) * SECOND_NS)
    };
    (0..4).map(second).collect()
}

fn outcome(seconds: &[Interval]) -> Outcome {
    let mut outcome = Outcome {
        topic: Topic { name: "<t>".to_owned(), partitions: Vec::new(), created: true },
        run_id: 7,
        producers: 1,
        consumers: 1,
        start_wall_ns: 0,
        seconds: 3.0,
        totals: Default::default(),
        warm: Default::default(),
        acknowledged: 12_000,
        missing: 0,
        left_behind: 0,
        exchanged: Default::default(),
        transactions: None,
        findings: None,
        client_cpu: 2.9,
        cpu_seconds: 3.0,
        broker_cpu: Ok(1.5),
        broker_pids: vec![1],
        interrupted: false,
        topic_deleted: true,
    };
    for second in seconds {
        outcome.totals.add(&second.sides);
        outcome.warm.add(&second.warm);
    }
    outcome
}

fn with_summary<T>(mode: Mode, look: impl FnOnce(&Summary<'_>) -> T) -> T {
    let seconds = seconds();
    let settings = Settings { mode, ..settings() };
    let outcome = outcome(&seconds);
    let rows = seconds.iter().filter_map(|second| Row::new(mode, second, SECOND_NS)).collect();
    look(&Summary {
        settings: &settings,
        outcome: &outcome,
        machine: Machine::this(),
        rows,
        earlier: vec![vec!["before".to_owned(); 8]],
    })
}

#[test]
fn the_summary_has_all_figures_and_warns_of_a_busy_client() {
    let text = with_summary(Mode::EndToEnd, |summary| summary.text(Some(100)));
    for expected in [
        "produced",
        "9,000",
        "3,000",
        "record to consumer",
        "broker",
        "61.04",
        "used 0.97 of its 1 cores",
        "this run",
        "before",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
    assert!(text.lines().all(|line| line.starts_with("This client") || line.chars().count() <= 100), "{text}");
}

#[test]
fn json_has_rows_of_the_measured_seconds_only() {
    let json = with_summary(Mode::Produce, |summary| summary.json());
    assert_eq!(json["produced"]["records"], 9000);
    assert_eq!(json["produced"]["warm_up_records"], 3000);
    assert_eq!(json["per_second"].as_array().map(Vec::len), Some(3));
    assert_eq!(json["per_second"][0]["produced_records_per_s"], 3000.0);
    assert!(json["consumed"].is_null() && json["broker_cpu"]["s_per_gb"].as_f64().is_some_and(|cost| cost > 0.0));
}

#[test]
fn a_second_ends_with_the_last_answer() {
    let row = Row::new(Mode::Produce, &seconds()[3], SECOND_NS).expect("measured");
    assert_eq!(row.until(3.0), Some(row));
    let half = row.until(2.5).expect("enough is left");
    assert!((half.produced.records_per_second / 6000.0 - 1.0).abs() < 1e-9 && half.at_seconds() == 2.25, "{half:?}");
    assert_eq!((row.until(2.1), row.until(1.0)), (None, None));
}

#[test]
fn the_report_stands_alone_and_has_no_number_that_is_none() {
    for mode in [Mode::Produce, Mode::Consume, Mode::EndToEnd] {
        let page = with_summary(mode, |summary| report::page(summary).expect("drawn"));
        assert_eq!(page.matches("<svg").count(), 4);
        assert_eq!(page.matches("</svg>").count(), 4);
        for wrong in ["NaN", ">inf", "http", "<t>", "<script", "url("] {
            let found = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "").contains(wrong);
            assert!(!found, "{wrong} is in the page of {}", mode.name());
        }
    }
}
