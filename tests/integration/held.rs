//! A shard that is put to sleep within a write counts it, and says so in the log.

use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringlog::record::batch::BatchBuilder;
use ringlog::record::compression::Codec;

use crate::admin_port::{get, start_with};
use crate::prometheus;
use crate::server::{DEADLINE, data_path, directory};
use crate::wire::Wire;

/// Much to copy, so that a write takes a good part of a request's time.
const VALUE_BYTES: usize = 900 * 1024;

/// Longer than a write may take without being looked at.
const STOPPED: Duration = Duration::from_millis(5);

fn spin(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// Stops the process for a while, wherever it is: a thread in a system call sleeps at its end, before it returns.
fn stop_for_a_while(process: Pid) {
    kill(process, Signal::SIGSTOP).expect("signalled");
    let deadline = Instant::now() + DEADLINE;
    let is_stopped = || fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| stat.contains(") T "));
    while !is_stopped() {
        assert!(Instant::now() < deadline, "it goes on");
        thread::yield_now();
    }
    spin(STOPPED);
    kill(process, Signal::SIGCONT).expect("signalled");
}

fn produce_until(stop: &AtomicBool, address: SocketAddr, answers: &AtomicU64) {
    let mut wire = Wire::connect(address);
    let mut builder = BatchBuilder::new(Codec::None);
    builder.push(1_700_000_000_000, None, Some(&vec![7; VALUE_BYTES]), &[]);
    let batch = builder.build();
    while !stop.load(Ordering::Relaxed) {
        assert_eq!(wire.produce(9, "t", 0, &batch).error_code, 0);
        answers.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_write_in_which_the_shards_thread_slept_is_counted_and_logged_and_seen_in_the_length_of_a_turn() {
    let directory = directory();
    let small = ["--set", "log.retention.bytes=20000000", "--set", "log.segment.bytes=10000000"];
    let (server, admin) = start_with(directory.path(), &small);
    assert_eq!(Wire::connect(server.address).create_topic("t", 1), 0);
    let (stop, answers) = (AtomicBool::new(false), AtomicU64::new(0));
    let process = server.process();
    let is_told = || server.stderr().lines().any(|line| line.contains("a write held shard "));
    thread::scope(|scope| {
        scope.spawn(|| produce_until(&stop, server.address, &answers));
        let deadline = Instant::now() + DEADLINE;
        // At another time after an answer each time, so that all parts of a request are met.
        for delay_us in (0..3000).step_by(70).cycle() {
            let before = answers.load(Ordering::Relaxed);
            while answers.load(Ordering::Relaxed) == before {
                assert!(Instant::now() < deadline, "no write was met in time");
                thread::yield_now();
            }
            spin(Duration::from_micros(delay_us));
            stop_for_a_while(process);
            if is_told() {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
    });

    let (_, text) = get(admin, "/metrics");
    let families = prometheus::parse(&text).expect("the text format");
    let sum = |name: &str, labels: &[(&str, &str)]| prometheus::sum(&families, name, labels);
    let (count, seconds) = (
        sum("ringlog_shard_held_total", &[("call", "write")]),
        sum("ringlog_shard_held_seconds_total", &[("call", "write")]),
    );
    assert!(count >= 1.0 && seconds >= count * 0.001, "{count} writes, {seconds} s");
    let turns = |le| sum("ringlog_shard_turn_seconds_bucket", &[("le", le)]);
    assert!(turns("+Inf") - turns("0.001024") >= count, "what is held is a part of a turn");
    let stderr = server.stderr();
    let line = stderr.lines().find(|line| line.contains("a write held shard ")).expect("seen above");
    assert!(line.contains(&format!("path={}/t-0/", data_path(directory.path()).display())), "{line}");
    server.stop();
}
