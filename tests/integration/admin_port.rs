//! The admin port of a real broker: what it tells, when, and that nobody can hold it.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use ringlog::protocol::ErrorCode;
use ringlog::record::batch::BatchBuilder;
use ringlog::record::compression::Codec;
use serde_json::Value;

use crate::server::{DEADLINE, Server, data_path, directory, serve, serve_by_default};
use crate::wire::Wire;
use crate::{dashboard, prometheus};

fn start(directory: &Path) -> (Server, SocketAddr) {
    start_with(directory, &[])
}

/// A broker with more flags, and its admin port.
pub fn start_with(directory: &Path, flags: &[&str]) -> (Server, SocketAddr) {
    let server = Server::start_with_flags(directory, &[&["--admin-listen", "127.0.0.1:0"], flags].concat());
    let line = server.banner("admin       http://");
    let (address, paths) = line.split_once('/').expect("a path");
    assert_eq!(paths, "metrics, /healthz, /readyz");
    let address = address.parse().expect("an address");
    (server, address)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(DEADLINE)).expect("set");
    stream
}

/// Sends bytes and gives all that comes back before the connection closes. What had no reader left may reset it.
fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = connect(address);
    // Fails if the answer is there before all is sent.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the connection stays open: {error}"),
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Status and body.
pub fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let answer = exchange(address, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (status(head), body.to_owned())
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no status: {answer:?}"))
}

fn state(body: &str) -> Value {
    serde_json::from_str::<Value>(body).expect("JSON")["state"].clone()
}

/// The sum over the shards.
fn metric(text: &str, name: &str) -> u64 {
    let samples = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix("{shard=")?.split_once("} "));
    let values: Vec<u64> = samples.map(|(_, value)| value.parse().expect("a number")).collect();
    assert_eq!(values.len(), 2, "{name} of two shards");
    values.iter().sum()
}

#[test]
fn metrics_and_health_tell_what_the_broker_does() {
    let directory = directory();
    let (server, admin) = start(directory.path());
    let mut wire = Wire::connect(server.address);
    assert_eq!(wire.create_topic("t", 2), 0);
    let mut batch = BatchBuilder::new(Codec::None);
    batch.push(1, None, Some(&[7; 5000]), &[]);
    assert_eq!(wire.produce(9, "t", 0, &batch.build()).error_code, 0);

    let (code, text) = get(admin, "/metrics");
    assert_eq!(code, 200);
    assert_eq!(metric(&text, "ringlog_connections"), 1);
    assert_eq!(metric(&text, "ringlog_appends_total"), 1);
    assert!(metric(&text, "ringlog_append_bytes_total") > 5000 && metric(&text, "ringlog_produce_records_total") == 1);
    assert!(text.contains("\n# HELP ringlog_requests_total ") && text.contains("\n# TYPE ringlog_connections gauge\n"));
    assert!(text.contains("\nringlog_requests_total{api=\"Produce\",version=\"9\"} 1\n"), "{text}");
    let path = data_path(directory.path());
    assert!(text.contains(&format!("ringlog_log_dir_online{{path=\"{}\"}} 1\n", path.display())));

    for path in ["/healthz", "/readyz"] {
        let (code, body) = get(admin, path);
        assert_eq!((code, state(&body)), (200, "serving".into()), "{path}");
    }
    let (_, body) = get(admin, "/healthz");
    let health: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((&health["ready"], &health["recovery"]["fraction"]), (&true.into(), &1.0.into()));
    assert_eq!(health["log_dirs"][0]["state"], "online");
    assert_eq!(health["log_dirs"][0]["path"], path.to_string_lossy().as_ref());

    let (code, body) = get(admin, "/");
    assert_eq!((code, body.contains("/metrics") && body.contains("partitions=true")), (404, true));
    assert_eq!(status(&exchange(admin, b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")), 405);
    let head = exchange(admin, b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(status(&head) == 200 && head.ends_with("\r\n\r\n"), "{head:?}");
    server.stop();
    assert!(TcpStream::connect(admin).is_err(), "gone with the broker");
}

#[test]
fn what_is_told_reads_strictly_counts_what_clients_did_and_is_all_that_the_dashboard_asks_for() {
    let directory = directory();
    let (server, admin) = start(directory.path());
    let mut wire = Wire::connect(server.address);
    assert_eq!(wire.create_topic("t", 3), 0);
    assert_eq!(wire.create_topic_with("flushed", 1, &[("flush.messages", "1")]), 0);
    let mut builder = BatchBuilder::new(Codec::None);
    builder.push(1, None, Some(&[7; 20_000]), &[]);
    builder.push(1, None, Some(&[7; 100]), &[]);
    let batch = builder.build();
    for _ in 0..5 {
        assert_eq!(wire.produce(9, "t", 1, &batch).error_code, 0);
    }
    assert_eq!(wire.produce(11, "flushed", 0, &batch).error_code, 0);
    assert_eq!(wire.produce(9, "t", 77, &batch).error_code, ErrorCode::UnknownTopicOrPartition.code());
    wire.send_produce(9, 0, "t", 1, &batch).expect("sent");
    let (_, bytes) = wire.fetch("t", 1, 0, 1 << 20);
    assert!(bytes.len() > 100_000);
    // At the log end it waits until its time is over.
    let (_, nothing) = wire.fetch("t", 0, 0, 1 << 20);
    assert!(nothing.is_empty());

    let (code, text) = get(admin, "/metrics?topics=true&partitions=true");
    assert_eq!(code, 200);
    let families = prometheus::parse(&text).expect("the text format");
    let sum = |name: &str, labels: &[(&str, &str)]| prometheus::sum(&families, name, labels);
    let of_api = |name: &str, api: &str| sum(name, &[("api", api)]);
    assert_eq!(sum("ringlog_requests_total", &[("api", "Produce"), ("version", "9")]), 7.0);
    assert_eq!(sum("ringlog_requests_total", &[("api", "Produce"), ("version", "11")]), 1.0);
    assert_eq!(sum("ringlog_requests_total", &[("api", "Fetch"), ("version", "11")]), 2.0);
    let errors = |api, error| sum("ringlog_request_errors_total", &[("api", api), ("error", error)]);
    assert_eq!((errors("Produce", "NONE"), errors("Produce", "UNKNOWN_TOPIC_OR_PARTITION")), (6.0, 1.0));
    // Two of each answer: its own and its partition's.
    assert_eq!((errors("Fetch", "NONE"), errors("CreateTopics", "NONE")), (4.0, 2.0));
    assert_eq!(
        (of_api("ringlog_request_seconds_count", "Produce"), of_api("ringlog_request_seconds_count", "Fetch")),
        (8.0, 2.0)
    );
    let stage = |what: &str, api, stage| {
        sum(&format!("ringlog_request_stage_seconds_{what}"), &[("api", api), ("stage", stage)])
    };
    for (api, name, count) in [
        ("Produce", "unread", 8.0),
        ("Produce", "received", 8.0),
        ("Produce", "planned", 8.0),
        ("Produce", "executed", 8.0),
        ("Produce", "flushed", 1.0),
        ("Produce", "replied", 7.0),
        ("Fetch", "unread", 2.0),
        ("Fetch", "received", 2.0),
        ("Fetch", "planned", 2.0),
        ("Fetch", "waited", 1.0),
        ("Fetch", "replied", 2.0),
    ] {
        assert_eq!(stage("count", api, name), count, "{name} of {api}");
    }
    assert!(stage("sum", "Fetch", "waited") >= 0.5 && stage("sum", "Fetch", "executed") < 0.5);
    assert!(stage("sum", "Produce", "flushed") > 0.0);
    assert_eq!(sum("ringlog_produce_records_total", &[]), 14.0);
    assert!(sum("ringlog_fetch_bytes_total", &[]) >= bytes.len() as f64);
    assert!(sum("ringlog_response_bytes_total", &[]) > sum("ringlog_fetch_bytes_total", &[]));
    assert_eq!(sum("ringlog_append_seconds_count", &[]), sum("ringlog_appends_total", &[]));
    assert!(sum("ringlog_log_dir_sync_seconds_count", &[]) >= 1.0);
    assert_eq!((sum("ringlog_shard_answered", &[]), sum("ringlog_partitions", &[])), (2.0, 4.0));
    assert!(sum("ringlog_shard_busy_seconds_total", &[]) > 0.0 && sum("ringlog_shard_turn_seconds_count", &[]) > 0.0);
    let shares = ["ringlog_shard_busy_seconds_total", "ringlog_shard_turn_seconds_sum"].map(|name| sum(name, &[]));
    assert!((shares[0] - shares[1]).abs() < 0.01, "all that a shard does it does in turns: {shares:?}");
    assert_eq!(families["ringlog_shard_held_total"].samples.len(), 2 * 3, "of two shards, by call");

    let of_partition = |name: &str| sum(name, &[("topic", "t"), ("partition", "1")]);
    let [end, high_watermark] =
        ["ringlog_partition_log_end_offset", "ringlog_partition_high_watermark"].map(of_partition);
    assert_eq!((end, high_watermark, of_partition("ringlog_partition_log_start_offset")), (12.0, 12.0, 0.0));
    let size = of_partition("ringlog_partition_size_bytes");
    assert_eq!(size, 6.0 * batch.len() as f64);
    assert_eq!(
        (sum("ringlog_topic_size_bytes", &[("topic", "t")]), sum("ringlog_log_dir_bytes", &[])),
        (size, size + batch.len() as f64)
    );

    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
    assert!((now - 3600.0..now + 10.0).contains(&sum("process_start_time_seconds", &[])));
    assert!(sum("process_resident_memory_bytes", &[]) > 1e6 && sum("process_open_fds", &[]) > 10.0);
    assert!(sum("process_cpu_seconds_total", &[]) > 0.0);
    dashboard::check(&families);

    let (_, short) = get(admin, "/metrics");
    assert!(!short.contains("ringlog_partition_") && !short.contains("ringlog_topic_"));
    prometheus::parse(&short).expect("the text format");
    let head = exchange(admin, b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(status(&head) == 200 && head.ends_with("\r\n\r\n"), "{head:?}");
    server.stop();
}

/// A broker that has not said that it serves.
struct Starting(Child);

impl Drop for Starting {
    fn drop(&mut self) {
        // Fails if it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn it_is_up_while_logs_are_recovered_and_ready_only_after() {
    let directory = directory();
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    assert_eq!(wire.create_topic("t", 1), 0);
    // The first append of a reign notes where it begins.
    let mut builder = BatchBuilder::new(Codec::None);
    builder.push(1, None, Some(b"first"), &[]);
    assert_eq!(wire.produce(9, "t", 0, &builder.build()).error_code, 0);
    server.stop();
    // Opening it waits for somebody to write: the recovery takes as long as the test likes.
    let checkpoint = data_path(directory.path()).join("t-0/leader-epoch-checkpoint");
    let text = fs::read(&checkpoint).expect("a checkpoint");
    fs::remove_file(&checkpoint).expect("removed");
    mkfifo(&checkpoint, Mode::S_IRUSR | Mode::S_IWUSR).expect("a pipe");

    let mut command = serve(directory.path(), &["--admin-listen", "127.0.0.1:0"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut broker = Starting(command.spawn().expect("a process"));
    let mut lines = BufReader::new(broker.0.stderr.take().expect("piped")).lines();
    let admin: SocketAddr = loop {
        let line = lines.next().expect("it says where its admin port is").expect("text");
        if let Some((_, address)) = line.split_once("admin port address=") {
            break address.trim().parse().expect("an address");
        }
    };
    let ((health, body), (ready, same)) = (get(admin, "/healthz"), get(admin, "/readyz"));
    assert_eq!((health, ready, state(&body), state(&same)), (200, 503, "recovering".into(), "recovering".into()));
    // The port is up before it is known what there is to do.
    let deadline = Instant::now() + DEADLINE;
    loop {
        let told: Value = serde_json::from_str(&get(admin, "/readyz").1).expect("JSON");
        assert_eq!((&told["ready"], &told["recovery"]["fraction"]), (&false.into(), &0.0.into()), "{told}");
        if told["recovery"]["logs_total"] == 1 {
            break;
        }
        assert!(Instant::now() < deadline, "{told}");
    }
    let metrics = get(admin, "/metrics").1;
    assert!(metrics.contains("\nringlog_state{state=\"recovering\"} 1\n"));
    prometheus::parse(&metrics).expect("the text format");

    fs::write(&checkpoint, text).expect("the recovery goes on");
    let deadline = Instant::now() + DEADLINE;
    while get(admin, "/readyz").0 != 200 {
        assert!(Instant::now() < deadline, "it does not get ready");
    }
    assert_eq!(state(&get(admin, "/healthz").1), "serving");
    kill(Pid::from_raw(i32::try_from(broker.0.id()).expect("a process id")), Signal::SIGTERM).expect("signalled");
    assert!(broker.0.wait().expect("gone").success());
}

#[test]
fn garbage_slowness_and_oversized_heads_cost_one_connection() {
    let directory = directory();
    let (server, admin) = start(directory.path());
    for garbage in [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], &[0; 4096], b"nonsense\r\n\r\n"] {
        let answer = exchange(admin, garbage);
        assert!(answer.is_empty() || status(&answer) == 400, "{answer:?}");
    }
    let long_line = [&b"GET /healthz HTTP/1.1\r\nX: "[..], &[b'x'; 64 * 1024], b"\r\n\r\n"].concat();
    assert_eq!(status(&exchange(admin, &long_line)), 431);
    let many_lines = format!("GET /healthz HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(1000));
    assert_eq!(status(&exchange(admin, many_lines.as_bytes())), 431);
    // Neither is ever finished, and both are closed.
    exchange(admin, b"");
    exchange(admin, b"GET /heal");
    assert_eq!(get(admin, "/healthz").0, 200);
    server.stop();
}

#[test]
fn idle_connections_are_few_and_keep_no_probe_out() {
    let directory = directory();
    let (server, admin) = start(directory.path());
    let descriptors = || {
        let path = format!("/proc/{}/fd", server.process());
        fs::read_dir(path).expect("the broker's descriptors").count()
    };
    let before = descriptors();
    let idle: Vec<TcpStream> = (0..500).map(|_| connect(admin)).collect();
    assert_eq!(get(admin, "/readyz").0, 200);
    let now = descriptors();
    assert!(now <= before + 70, "{now} descriptors after {before}");
    drop(idle);
    server.stop();
}

#[test]
fn a_port_in_use_is_a_note_by_default_and_a_refusal_where_it_was_asked_for() {
    let directory = directory();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let output =
        serve(directory.path(), &["--admin-listen", &address]).stdin(Stdio::null()).output().expect("a process");
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains(&address) && message.contains("--admin-listen"), "{message}");

    // Another process may hold it for a moment.
    let deadline = Instant::now() + DEADLINE;
    let _taken = loop {
        match TcpListener::bind("127.0.0.1:9644") {
            Ok(listener) => break listener,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    };
    let server = Server::run(directory.path(), serve_by_default(directory.path()));
    assert!(server.banner("note").starts_with("no admin port: 127.0.0.1:9644"));
    server.stop();
}
