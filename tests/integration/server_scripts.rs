//! `kafka-server-start.sh` and `kafka-server-stop.sh`, as an operator's own scripts call them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use crate::server::DEADLINE;
use crate::wire::Wire;

fn script(name: &str, log_dir: &Path) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name));
    command.env("RINGLOG", env!("CARGO_BIN_EXE_ringlog")).env("LOG_DIR", log_dir);
    command
}

fn words(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn properties(directory: &Path) -> PathBuf {
    let file = directory.join("server.properties");
    let data = directory.join("data");
    fs::write(&file, format!("broker.id=3\nlisteners=PLAINTEXT://127.0.0.1:0\nlog.dirs={}\n", data.display()))
        .expect("written");
    file
}

#[test]
fn a_daemon_is_started_with_kafkas_flags_and_stopped_in_order() {
    let directory = tempfile::tempdir().expect("made");
    let logs = directory.path().join("logs");
    let started = script("kafka-server-start.sh", &logs)
        .arg("-daemon")
        .arg(properties(directory.path()))
        .args(["--override", "broker.id=7", "--override", "num.partitions=3", "--admin-listen", "none"])
        .output()
        .expect("run");
    assert!(started.status.success(), "{}", words(&started));
    let output = || fs::read_to_string(logs.join("kafkaServer.out")).expect("there");
    let banner = output();
    let address = banner.split("PLAINTEXT://").nth(1).and_then(|rest| rest.split_whitespace().next());
    let mut wire = Wire::connect(address.expect("in the banner").parse().expect("an address"));
    let metadata = wire.metadata("by-script");
    assert_eq!(metadata.brokers[0].node_id, 7);
    assert_eq!(wire.wait_for_topic("by-script"), 3);

    let pid = fs::read_to_string(logs.join("kafkaServer.pid")).expect("there");
    let stopped = script("kafka-server-stop.sh", &logs).output().expect("run");
    assert!(stopped.status.success(), "{}", words(&stopped));
    let marker = directory.path().join("data/.kafka_cleanshutdown");
    let deadline = Instant::now() + DEADLINE;
    while !marker.exists() || is_running(pid.trim()) {
        assert!(Instant::now() < deadline, "{}", output());
        std::thread::yield_now();
    }
    let again = script("kafka-server-stop.sh", &logs).output().expect("run");
    assert_eq!(again.status.code(), Some(1));
    assert!(words(&again).contains("No kafka server to stop"), "{}", words(&again));
}

/// The script that started it has ended, so nobody may collect it: a dead one counts as gone.
fn is_running(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}

#[test]
fn a_daemon_that_does_not_start_says_why() {
    let directory = tempfile::tempdir().expect("made");
    let logs = directory.path().join("logs");
    let file = properties(directory.path());
    let started = script("kafka-server-start.sh", &logs)
        .arg("-daemon")
        .arg(&file)
        .args(["--override", "num.partitions=many"])
        .output()
        .expect("run");
    assert_eq!(started.status.code(), Some(1));
    assert!(words(&started).contains("num.partitions"), "{}", words(&started));
    let nothing = script("kafka-server-start.sh", &logs).output().expect("run");
    assert_eq!(nothing.status.code(), Some(1));
    assert!(words(&nothing).contains("USAGE"), "{}", words(&nothing));
}
