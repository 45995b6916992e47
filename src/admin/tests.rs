use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::metrics::Detail;
use super::server::CONNECTIONS_MAX;
use super::*;
use crate::base::time::Monotonic;
use crate::metrics::status::{BoundUse, PartitionStatus};
use crate::metrics::{Counter, ErrorTally, HeldCall, Histogram, Passage};
use crate::protocol::{ApiKey, ErrorCode};

/// A source whose state the test sets. Its second shard never answers.
struct Told {
    state: Mutex<State>,
    shards: Vec<Arc<ShardCounters>>,
    /// What the shards were asked and have not answered.
    asked: Mutex<Vec<oneshot::Sender<ShardStatus>>>,
}

impl Source for Told {
    fn state(&self) -> State {
        *self.state.lock().unwrap()
    }

    fn recovery(&self) -> Recovery {
        Recovery { logs_total: 9, logs_done: 4, bytes_total: 1000, bytes_done: 300 }
    }

    fn log_dirs(&self) -> Vec<LogDir> {
        let sync_time = Histogram::<Counter>::default();
        sync_time.record(Duration::from_millis(250));
        let dir = |path: &str, online| LogDir {
            path: path.into(),
            online,
            room_bytes: online.then_some(1 << 30),
            partitions: 7,
            strays: 2,
            dirty_bytes: 4096,
            dirty_bytes_max: 8192,
            sync_time: Recorded::from(&sync_time),
            name_jobs: (1, 16),
            sync_jobs: (0, 4),
        };
        vec![dir("/disk-a", true), dir("/with \"quotes\" and \\", false)]
    }

    fn shards(&self) -> Vec<Arc<ShardCounters>> {
        self.shards.clone()
    }

    fn work_jobs(&self) -> (usize, usize) {
        (2, 1024)
    }

    fn ask(&self, with_partitions: bool) -> Vec<oneshot::Receiver<ShardStatus>> {
        let (answer, answered) = oneshot::channel();
        let (silent, unanswered) = oneshot::channel();
        let _ = answer.send(status(with_partitions));
        self.asked.lock().unwrap().push(silent);
        vec![answered, unanswered]
    }
}

fn status(with_partitions: bool) -> ShardStatus {
    let partition = |partition: i32, size_bytes| PartitionStatus {
        topic: "events".into(),
        partition,
        size_bytes,
        log_start_offset: 3,
        log_end_offset: 20,
        high_watermark: 18,
        last_stable_offset: 17,
        leader_epoch: 2,
    };
    ShardStatus {
        bounds: vec![BoundUse { name: "some_bytes", help: "Bytes.", now: 5, max: 10, waits_total: Some(1) }],
        partitions_online: 2,
        partitions_offline: 1,
        log_dir_bytes: vec![1100, 0],
        partitions: if with_partitions { vec![partition(10, 1000), partition(9, 100)] } else { Vec::new() },
    }
}

/// What `/metrics` says of a source whose first shard has answered.
fn text(source: &Told, detail: Detail) -> String {
    metrics::text(source, &[Some(status(detail.is_long())), None], detail, Instant::now())
}

fn told(state: State) -> Arc<Told> {
    let shards: Vec<Arc<ShardCounters>> = vec![Arc::default(), Arc::default()];
    shards[1].appends_total.add(17);
    shards[1].held.of(HeldCall::Write).calls_total.add(2);
    shards[1].held.of(HeldCall::Write).ns_total.add(31_500_000);
    shards[0].turn_time.record(Duration::from_millis(3));
    let passage = Passage::begin(Monotonic(0), Monotonic(0), Monotonic(1_000_000));
    shards[1].requests.started(&passage, 0, 9);
    shards[1].requests.replied(&passage, Monotonic(3_000_000));
    shards[0].requests.answered(1, &{
        let mut errors = ErrorTally::default();
        errors.note(6);
        errors
    });
    Arc::new(Told { state: Mutex::new(state), shards, asked: Mutex::default() })
}

fn get(admin: &Admin, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(admin.address()).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[test]
fn it_is_alive_at_once_and_ready_only_while_it_serves() {
    let source = told(State::Recovering);
    let admin = Admin::start("127.0.0.1:0".parse().unwrap(), Arc::clone(&source) as Arc<dyn Source>).unwrap();
    for (state, ready) in [(State::Recovering, 503), (State::Serving, 200), (State::Stopping, 503)] {
        *source.state.lock().unwrap() = state;
        let ((health, body), (readiness, same)) = (get(&admin, "/healthz"), get(&admin, "/readyz"));
        assert_eq!((health, readiness, &body), (200, ready, &same));
        let json: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(json["state"], state.name());
        assert_eq!(json["ready"], ready == 200);
        assert_eq!(json["recovery"]["fraction"], if state == State::Recovering { 0.3 } else { 1.0 });
        assert_eq!(json["recovery"]["logs_done"], 4);
        assert_eq!(json["recovery"]["bytes_total"], 1000);
        assert_eq!(
            (&json["log_dirs"][0]["state"], &json["log_dirs"][1]["state"]),
            (&"online".into(), &"offline".into())
        );
    }
}

#[test]
fn metrics_have_help_type_and_a_line_for_each_shard() {
    let text = text(&told(State::Serving), Detail::default());
    for line in [
        "# TYPE ringlog_appends_total counter",
        "ringlog_appends_total{shard=\"0\"} 0",
        "ringlog_appends_total{shard=\"1\"} 17",
        "ringlog_requests_total{api=\"Produce\",version=\"9\"} 1",
        "ringlog_request_errors_total{api=\"Fetch\",error=\"NOT_LEADER_OR_FOLLOWER\"} 1",
        "ringlog_request_seconds_bucket{api=\"Produce\",le=\"0.002048\"} 0",
        "ringlog_request_seconds_bucket{api=\"Produce\",le=\"0.004096\"} 1",
        "ringlog_request_seconds_sum{api=\"Produce\"} 0.003",
        "ringlog_request_stage_seconds_count{api=\"Produce\",stage=\"received\"} 1",
        "ringlog_shard_held_total{shard=\"1\",call=\"write\"} 2",
        "ringlog_shard_held_total{shard=\"0\",call=\"write\"} 0",
        "ringlog_shard_held_total{shard=\"1\",call=\"send\"} 0",
        "ringlog_shard_held_seconds_total{shard=\"1\",call=\"write\"} 0.0315",
        "ringlog_shard_held_seconds_total{shard=\"0\",call=\"read\"} 0",
        "ringlog_shard_turn_seconds_bucket{shard=\"0\",le=\"0.002048\"} 0",
        "ringlog_shard_turn_seconds_bucket{shard=\"0\",le=\"0.004096\"} 1",
        "ringlog_shard_turn_seconds_count{shard=\"1\"} 0",
        "ringlog_shard_answered{shard=\"0\"} 1",
        "ringlog_shard_answered{shard=\"1\"} 0",
        "ringlog_some_bytes_now{shard=\"0\"} 5",
        "ringlog_some_bytes_max{shard=\"0\"} 10",
        "ringlog_some_bytes_waits_total{shard=\"0\"} 1",
        "ringlog_partitions_offline{shard=\"0\"} 1",
        "ringlog_log_dir_bytes{path=\"/disk-a\"} 1100",
        "ringlog_work_jobs_now 2",
        "# TYPE ringlog_connections gauge",
        "ringlog_recovery_bytes_done 300",
        "ringlog_state{state=\"serving\"} 1",
        "ringlog_state{state=\"stopping\"} 0",
        "ringlog_log_dir_online{path=\"/disk-a\"} 1",
        "ringlog_log_dir_partitions{path=\"/disk-a\"} 7",
        "ringlog_log_dir_has_room{path=\"/disk-a\"} 1",
        "ringlog_log_dir_room_bytes{path=\"/disk-a\"} 1073741824",
        "ringlog_log_dir_dirty_bytes_now{path=\"/disk-a\"} 4096",
        "ringlog_log_dir_sync_seconds_sum{path=\"/disk-a\"} 0.25",
        "ringlog_log_dir_online{path=\"/with \\\"quotes\\\" and \\\\\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(!text.contains("events"), "nothing of topics unless it is asked for");
    let mut names = std::collections::BTreeSet::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        assert!(names.insert(name), "{name} stands twice");
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
        assert!(text.contains(&format!("# HELP {name} ")), "{name}");
    }
}

#[test]
fn metrics_are_there_before_the_shards_are() {
    let source = Told { state: Mutex::new(State::Recovering), shards: Vec::new(), asked: Mutex::default() };
    let text = metrics::text(&source, &[], Detail::default(), Instant::now());
    assert!(text.contains("ringlog_state{state=\"recovering\"} 1") && !text.contains("appends_total"));
}

#[test]
fn idle_connections_beyond_the_bound_make_room_oldest_first() {
    let admin = Admin::start("127.0.0.1:0".parse().unwrap(), told(State::Serving)).unwrap();
    let idle: Vec<TcpStream> = (0..CONNECTIONS_MAX).map(|_| TcpStream::connect(admin.address()).unwrap()).collect();
    assert_eq!(get(&admin, "/healthz").0, 200);
    let read = |mut stream: &TcpStream| stream.read(&mut [0; 1]);
    assert_eq!(read(&idle[0]).unwrap(), 0, "the oldest was closed");
    drop(admin);
    assert!(idle.iter().all(|stream| read(stream).is_ok_and(|count| count == 0)), "the others go with the port");
}

#[test]
fn topics_and_partitions_are_told_on_request_in_order() {
    let source = told(State::Serving);
    let topics = text(&source, Detail { topics: true, partitions: false });
    assert!(topics.contains("\nringlog_topic_size_bytes{topic=\"events\"} 1100\n"));
    assert!(topics.contains("\nringlog_topic_partitions{topic=\"events\"} 2\n") && !topics.contains("partition=\""));
    let partitions = text(&source, Detail { topics: false, partitions: true });
    let sizes: Vec<&str> = partitions.lines().filter(|line| line.starts_with("ringlog_partition_size_bytes")).collect();
    let (nine, ten) = ("{topic=\"events\",partition=\"9\"} 100", "{topic=\"events\",partition=\"10\"} 1000");
    assert_eq!(sizes, [nine, ten].map(|rest| format!("ringlog_partition_size_bytes{rest}")));
    assert!(partitions.contains("\nringlog_partition_high_watermark{topic=\"events\",partition=\"9\"} 18\n"));
}

#[test]
fn a_shard_that_does_not_answer_is_left_out_and_holds_nobody_for_long() {
    let source = told(State::Serving);
    let admin = Admin::start("127.0.0.1:0".parse().unwrap(), Arc::clone(&source) as Arc<dyn Source>).unwrap();
    let (code, text) = get(&admin, "/metrics");
    assert_eq!((code, text.contains("\nringlog_shard_answered{shard=\"1\"} 0\n")), (200, true));
    assert!(text.contains("\nringlog_appends_total{shard=\"1\"} 17\n"), "what it counts is there all the same");
    assert!(source.asked.lock().unwrap().iter().all(oneshot::Sender::is_canceled), "nobody waits for it any more");
}

#[test]
fn long_answers_are_few_at_one_time_and_queries_that_mean_nothing_are_refused() {
    let source = told(State::Serving);
    let admin = Admin::start("127.0.0.1:0".parse().unwrap(), Arc::clone(&source) as Arc<dyn Source>).unwrap();
    let begin = || {
        let asked = source.asked.lock().unwrap().len();
        let mut stream = TcpStream::connect(admin.address()).unwrap();
        write!(stream, "GET /metrics?partitions=true HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while source.asked.lock().unwrap().len() == asked {
            assert!(Instant::now() < deadline, "the shards are not asked");
            std::thread::yield_now();
        }
        stream
    };
    // Both wait for the shard that does not answer.
    let begun = [begin(), begin()];
    assert_eq!(get(&admin, "/metrics?topics=true").0, 503);
    assert_eq!(get(&admin, "/metrics").0, 200);
    for mut stream in begun {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("ringlog_partition_size_bytes"));
    }
    assert_eq!(get(&admin, "/metrics?topics=true&partitions=false").0, 200, "there is room again");
    let (code, text) = get(&admin, "/metrics?partition=true");
    assert_eq!((code, text.contains("partitions=true")), (400, true));
}

#[test]
fn every_api_version_and_error_of_kafka_has_its_counter() {
    let shard = ShardCounters::default();
    let mut expected = 0;
    for key in ApiKey::ALL {
        for version in key.versions() {
            shard.requests.started(&Passage::begin(Monotonic(0), Monotonic(0), Monotonic(0)), key.code(), version);
            expected += 1;
        }
        for code in ErrorCode::ALL {
            let mut errors = ErrorTally::default();
            errors.note(code.code());
            shard.requests.answered(key.code(), &errors);
        }
    }
    let source = Told { state: Mutex::new(State::Serving), shards: vec![Arc::new(shard)], asked: Mutex::default() };
    let text = metrics::text(&source, &[], Detail::default(), Instant::now());
    let count = |name: &str| text.lines().filter(|line| line.starts_with(name) && line.ends_with("} 1")).count();
    assert_eq!(count("ringlog_requests_total{"), expected);
    assert_eq!(count("ringlog_request_errors_total{"), ApiKey::ALL.len() * ErrorCode::ALL.len());
    assert!(!text.contains("unknown\"") && !text.contains("other\""));
}
