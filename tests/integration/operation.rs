//! What whoever runs a broker sees of it: how it stops, how it takes other settings, what it logs, what it tells the
//! service manager.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use ringlog::protocol::ApiKey;
use ringlog::protocol::header::decode_response_header;
use ringlog::protocol::message::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic};
use ringlog::record::batch::BatchBuilder;
use ringlog::record::compression::Codec;
use serde_json::Value;

use crate::admin_port::{get, start_with};
use crate::configs;
use crate::server::{DEADLINE, Server, data_path, directory, serve};
use crate::wire::Wire;

fn batch(value: &[u8]) -> Vec<u8> {
    let mut batch = BatchBuilder::new(Codec::None);
    batch.push(1, None, Some(value), &[]);
    batch.build().to_vec()
}

fn signal(server: &Server, signal: Signal) {
    kill(server.process(), signal).expect("signalled");
}

/// Waits until it has said `mark` on standard error so many times.
fn wait_for(server: &Server, mark: &str, times: usize) -> String {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let said = server.stderr();
        if said.matches(mark).count() >= times {
            return said;
        }
        assert!(Instant::now() < deadline, "it does not say {mark:?} {times} times:\n{said}");
        std::thread::yield_now();
    }
}

fn was_clean(directory: &Path) -> bool {
    data_path(directory).join(".kafka_cleanshutdown").exists()
}

/// Sends a fetch that wants up to `bytes_max`, and waits for five minutes until there is a mebibyte.
fn send_fetch(wire: &mut Wire, topic: &str, offset: i64, bytes_max: i32) {
    let partition = FetchPartition {
        partition: 0,
        fetch_offset: offset,
        partition_max_bytes: bytes_max,
        ..FetchPartition::default()
    };
    let topics = vec![FetchTopic { topic: topic.into(), partitions: vec![partition], ..FetchTopic::default() }];
    let request = FetchRequest {
        replica_id: -1,
        max_wait_ms: 300_000,
        min_bytes: 1 << 20,
        max_bytes: bytes_max,
        session_epoch: -1,
        topics,
        ..FetchRequest::default()
    };
    wire.send(ApiKey::Fetch, 11, |writer| request.encode(writer, 11)).expect("sent");
}

/// Waits until the broker has taken on so many.
fn wait_for_fetches(admin: SocketAddr, count: usize) {
    let mark = format!("ringlog_requests_total{{api=\"Fetch\",version=\"11\"}} {count}\n");
    let deadline = Instant::now() + DEADLINE;
    while !get(admin, "/metrics").1.contains(&mark) {
        assert!(Instant::now() < deadline, "the fetches do not arrive");
    }
}

#[test]
fn what_is_under_way_is_answered_before_the_broker_stops_and_nothing_else_is() {
    let directory = directory();
    let (server, admin) = start_with(directory.path(), &["--log-level=info,ringlog::request=debug"]);
    let mut wire = Wire::connect(server.address);
    assert_eq!(wire.create_topic("t", 1), 0);
    assert_eq!(wire.produce(9, "t", 0, &batch(b"first")).error_code, 0);
    let mut idle = Wire::connect(server.address);
    assert_eq!(idle.wait_for_topic("t"), 1);
    // They wait, on whichever shards, for more than there is.
    let mut waiting: Vec<Wire> = (0..4).map(|_| Wire::connect(server.address)).collect();
    waiting.iter_mut().for_each(|wire| send_fetch(wire, "t", 0, 1 << 20));
    wait_for_fetches(admin, 4);
    // Behind what waits nothing is taken.
    for wire in &mut waiting {
        wire.send(ApiKey::Metadata, 99, |_| Ok(())).expect("sent");
    }

    signal(&server, Signal::SIGTERM);
    for wire in &mut waiting {
        let answer = wire.receive().expect("an answer");
        let mut reader = ringlog::protocol::Reader::new(&answer);
        decode_response_header(&mut reader, ApiKey::Fetch, 11).expect("a header");
        let response = FetchResponse::decode(&mut reader, 11).expect("a body");
        let partition = &response.responses[0].partitions[0];
        assert_eq!(partition.error_code, 0);
        assert!(partition.records.as_ref().is_some_and(|records| !records.range().is_empty()), "with what there is");
        assert!(wire.receive().is_err(), "closed behind its answer");
    }
    assert!(idle.receive().is_err(), "an idle connection closes");
    let (status, said) = server.ended();
    assert_eq!(status.code(), Some(0), "{said}");
    for step in ["stopping; a second signal", "requests under way are answered", "writing and closing the logs"] {
        assert!(said.contains(step), "{step}: {said}");
    }
    assert!(!said.contains("version=99"), "no other request is taken: {said}");
    assert!(was_clean(directory.path()));
}

#[test]
fn who_does_not_read_its_answers_holds_the_stop_for_half_of_its_time_and_it_is_clean() {
    let directory = directory();
    let (server, admin) = start_with(directory.path(), &["--stop-timeout", "1s"]);
    let mut wire = Wire::connect(server.address);
    assert_eq!(wire.create_topic("t", 1), 0);
    let large = batch(&[7; 1_000_000]);
    for _ in 0..16 {
        assert_eq!(wire.produce(9, "t", 0, &large).error_code, 0);
    }
    let mut silent = Wire::connect(server.address);
    silent.take_little();
    send_fetch(&mut silent, "t", 0, 32 << 20);
    wait_for_fetches(admin, 1);
    signal(&server, Signal::SIGTERM);
    let (status, said) = server.ended();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("requests are not answered in time") && was_clean(directory.path()), "{said}");
}

/// A broker whose stop can't get further than its last checkpoints: writing one waits for a reader of the pipe.
fn start_without_end(directory: &Path, flags: &[&str]) -> Server {
    let server = Server::start_with_flags(directory, flags);
    let mut wire = Wire::connect(server.address);
    assert_eq!(wire.create_topic("t", 1), 0);
    let pipe = data_path(directory).join("recovery-point-offset-checkpoint.tmp");
    let deadline = Instant::now() + DEADLINE;
    // A checkpoint may be being written at this moment: it takes the name away when it is done.
    while let Err(error) = mkfifo(&pipe, Mode::S_IRUSR | Mode::S_IWUSR) {
        assert!(error == Errno::EEXIST && Instant::now() < deadline, "no pipe: {error}");
        std::thread::yield_now();
    }
    server
}

#[test]
fn a_stop_that_takes_too_long_ends_with_a_code_of_its_own_and_without_the_marker() {
    let directory = directory();
    let server = start_without_end(directory.path(), &["--stop-timeout", "500ms"]);
    signal(&server, Signal::SIGTERM);
    let (status, said) = server.ended();
    assert_eq!(status.code(), Some(124), "{said}");
    assert!(said.contains("longer than --stop-timeout") && !was_clean(directory.path()), "{said}");
}

#[test]
fn a_second_signal_ends_the_stop_at_once() {
    let directory = directory();
    let server = start_without_end(directory.path(), &["--stop-timeout", "60m"]);
    signal(&server, Signal::SIGINT);
    wait_for(&server, "writing and closing the logs", 1);
    signal(&server, Signal::SIGHUP);
    wait_for(&server, "only while the broker serves", 1);
    signal(&server, Signal::SIGTERM);
    let (status, said) = server.ended();
    assert_eq!(status.code(), Some(130), "{said}");
    assert!(said.contains("ends at once") && !was_clean(directory.path()), "{said}");
}

#[test]
fn a_signal_before_the_broker_serves_ends_it_at_once() {
    let directory = directory();
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    assert_eq!(wire.create_topic("t", 1), 0);
    // The first append of a reign notes where it begins.
    assert_eq!(wire.produce(9, "t", 0, &batch(b"first")).error_code, 0);
    server.stop();
    // Opening it waits for somebody to write.
    let checkpoint = data_path(directory.path()).join("t-0/leader-epoch-checkpoint");
    fs::remove_file(&checkpoint).expect("removed");
    mkfifo(&checkpoint, Mode::S_IRUSR | Mode::S_IWUSR).expect("a pipe");
    let mut command = serve(directory.path(), &["--admin-listen", "127.0.0.1:0"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("started");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let mut wait_for = |mark: &str| {
        while !lines.next().expect("it goes on").expect("text").contains(mark) {}
    };
    wait_for("admin port");
    kill(Pid::from_raw(i32::try_from(child.id()).expect("a process id")), Signal::SIGTERM).expect("signalled");
    wait_for("before it served");
    assert_eq!(child.wait().expect("gone").code(), Some(130));
}

#[test]
fn sighup_takes_what_may_change_says_what_may_not_and_leaves_all_where_a_file_is_wrong() {
    let directory = directory();
    let (settings, flags): (PathBuf, PathBuf) =
        (directory.path().join("server.properties"), directory.path().join("ringlog.flags"));
    let write = |properties: &str, own: &str| {
        fs::write(&settings, format!("broker.id=1\n{properties}")).expect("written");
        fs::write(&flags, own).expect("written");
    };
    write("log.retention.ms=7200000\nmessage.max.bytes=2000000\nnum.partitions=2\n", "log-level info\n");
    let (config, flagfile) = (settings.to_str().expect("text"), flags.to_str().expect("text"));
    let server = Server::start_with_flags(directory.path(), &["--config", config, "--flagfile", flagfile]);
    let mut wire = Wire::connect(server.address);
    let value = |wire: &mut Wire, name: &str| configs::value_of_broker(wire, name);
    assert_eq!(value(&mut wire, "log.retention.ms"), (Some("7200000".into()), 4));

    assert_eq!(wire.create_topic("t", 1), 0);

    // A client's value goes before the file's, whatever the file says later.
    configs::set_of_broker(&mut wire, "message.max.bytes", "3000000");
    write(
        "log.retention.ms=3600000\nmessage.max.bytes=2500000\nnum.partitions=7\nlog.segment.bytes=1048576\n",
        "log-level info,ringlog::request=debug\nshards 2\nring-depth 64\n",
    );
    signal(&server, Signal::SIGHUP);
    let said = wait_for(&server, "the settings were read again", 1);
    assert_eq!(value(&mut wire, "log.retention.ms"), (Some("3600000".into()), 4));
    assert_eq!(value(&mut wire, "log.segment.bytes"), (Some("1048576".into()), 4));
    assert_eq!(configs::value_of_topic(&mut wire, "t", "segment.bytes").0.as_deref(), Some("1048576"));
    assert_eq!(value(&mut wire, "message.max.bytes"), (Some("3000000".into()), 2));
    assert_eq!(value(&mut wire, "num.partitions"), (Some("2".into()), 4));
    assert!(said.contains("needs a restart") && said.contains("num.partitions"), "{said}");
    assert!(said.contains("--ring-depth has changed, which needs a restart"), "{said}");
    assert!(said.contains("a setting has changed") && said.contains("log.retention.ms"), "{said}");
    // The other filter counts at once.
    wait_for(&server, "api=\"DescribeConfigs\"", 1);

    write("log.retention.ms=1800000\nlog.segment.bytes=many\n", "");
    signal(&server, Signal::SIGHUP);
    let said = wait_for(&server, "can't be used: all stays as it is", 1);
    assert!(said.contains("log.segment.bytes=many"), "{said}");
    assert_eq!(value(&mut wire, "log.retention.ms"), (Some("3600000".into()), 4));

    // What is not named any more has its default again.
    write("message.max.bytes=2500000\nnum.partitions=2\n", "log-level info,ringlog::request=debug\n");
    signal(&server, Signal::SIGHUP);
    wait_for(&server, "the settings were read again", 3);
    assert_eq!(value(&mut wire, "log.retention.ms").1, 5);
    signal(&server, Signal::SIGHUP);
    wait_for(&server, "nothing has changed", 1);
    server.stop();
}

#[test]
fn lines_of_the_log_are_json_where_asked_and_say_whose_request_they_are_about() {
    let directory = directory();
    let flags = ["--log-format", "json", "--log-level", "info,ringlog::request=debug"];
    let server = Server::start_with_flags(directory.path(), &flags);
    let mut wire = Wire::connect(server.address);
    assert_eq!(wire.create_topic("t", 1), 0);
    let mut nonsense = Wire::connect(server.address);
    nonsense.send(ApiKey::Metadata, 99, |_| Ok(())).expect("sent");
    assert!(nonsense.receive().is_err(), "closed");
    wait_for(&server, "can't be answered", 1);
    let said = server.stderr();
    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    for name in ["ts", "level", "target", "message"] {
        assert!(lines.iter().all(|line| line[name].is_string()), "{name}: {said}");
    }
    let refused = lines.iter().find(|line| line["message"].as_str().unwrap().contains("can't be answered"));
    let refused = refused.expect("it was said");
    assert_eq!((&refused["api"], &refused["version"]), (&"Metadata".into(), &99.into()));
    assert!(refused["correlation_id"].is_i64() && refused["error"].is_string(), "{refused}");
    assert!(refused["peer"].as_str().expect("a peer").starts_with("127.0.0.1:"), "{refused}");
    let done = lines.iter().find(|line| line["api"] == "CreateTopics").expect("a line for each request");
    assert_eq!((&done["target"], &done["level"]), (&"ringlog::request".into(), &"DEBUG".into()));
    assert!(done["took_us"].is_u64() && done["client_id"].is_string(), "{done}");
    assert_ne!(done["connection"], refused["connection"]);
    server.stop();
}

#[test]
fn a_low_limit_of_open_files_is_said_at_the_start() {
    let directory = directory();
    let mut command = serve(directory.path(), &[]);
    // SAFETY: one system call between fork and exec, which allocates nothing.
    unsafe { command.pre_exec(|| setrlimit(Resource::RLIMIT_NOFILE, 256, 512).map_err(Into::into)) };
    let server = Server::run(directory.path(), command);
    let note = server.banner("the limit of open files is ");
    assert!(note.starts_with("512: 128 segments stay open") && note.contains("LimitNOFILE="), "{note}");
    server.stop();
}

#[test]
fn the_service_manager_is_told_when_the_broker_serves_and_when_it_stops() {
    let directory = directory();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(DEADLINE)).expect("set");
    let mut command = serve(directory.path(), &[]);
    command.env("NOTIFY_SOCKET", &path);
    let server = Server::run(directory.path(), command);
    let told = || {
        let mut bytes = [0; 4096];
        let length = socket.recv(&mut bytes).expect("told");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    assert_eq!(told(), format!("READY=1\nSTATUS=serving PLAINTEXT://{}", server.address));
    server.stop();
    assert_eq!(told(), "STOPPING=1\nSTATUS=answering requests under way");
    assert_eq!(told(), "STATUS=writing and closing the logs");
}
