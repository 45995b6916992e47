use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Mutex;

use super::server::CONNECTIONS_MAX;
use super::*;

/// A source whose state the test sets.
struct Told {
    state: Mutex<State>,
    shards: Vec<Arc<ShardCounters>>,
}

impl Source for Told {
    fn state(&self) -> State {
        *self.state.lock().unwrap()
    }

    fn recovery(&self) -> Recovery {
        Recovery { logs_total: 9, logs_done: 4, bytes_total: 1000, bytes_done: 300 }
    }

    fn log_dirs(&self) -> Vec<LogDir> {
        let dir = |path: &str, online| LogDir {
            path: path.into(),
            online,
            has_room: true,
            partitions: 7,
            dirty_bytes: 4096,
            syncs_total: 3,
            sync_seconds_total: 0.25,
        };
        vec![dir("/disk-a", true), dir("/with \"quotes\" and \\", false)]
    }

    fn shards(&self) -> Vec<Arc<ShardCounters>> {
        self.shards.clone()
    }
}

fn told(state: State) -> Arc<Told> {
    let shards: Vec<Arc<ShardCounters>> = vec![Arc::default(), Arc::default()];
    shards[1].requests_total.add(17);
    Arc::new(Told { state: Mutex::new(state), shards })
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
    let text = metrics::text(&*told(State::Serving));
    for line in [
        "# TYPE ringlog_requests_total counter",
        "ringlog_requests_total{shard=\"0\"} 0",
        "ringlog_requests_total{shard=\"1\"} 17",
        "# TYPE ringlog_connections gauge",
        "ringlog_recovery_bytes_done 300",
        "ringlog_state{state=\"serving\"} 1",
        "ringlog_state{state=\"stopping\"} 0",
        "ringlog_log_dir_online{path=\"/disk-a\"} 1",
        "ringlog_log_dir_partitions{path=\"/disk-a\"} 7",
        "ringlog_log_dir_sync_seconds_total{path=\"/disk-a\"} 0.25",
        "ringlog_log_dir_online{path=\"/with \\\"quotes\\\" and \\\\\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
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
    let source = Told { state: Mutex::new(State::Recovering), shards: Vec::new() };
    let text = metrics::text(&source);
    assert!(text.contains("ringlog_state{state=\"recovering\"} 1") && !text.contains("requests_total"));
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
