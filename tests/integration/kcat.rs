//! Debian's kcat produces and fetches.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use ringlog::record::compression::Codec;

use crate::server::{Server, directory};
use crate::wire::Wire;

const LINES: usize = 200;

/// Runs kcat with `input`; gives what it printed.
fn kcat(server: &Server, arguments: &[&str], input: &str) -> String {
    let output = run(server, arguments, input);
    assert!(output.status.success(), "kcat {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn run(server: &Server, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new("kcat")
        .args(["-b", &server.address.to_string(), "-X", "socket.timeout.ms=30000"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kcat runs: it is Debian's package kcat");
    // Fails if kcat ends early, which its exit code tells better.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    child.wait_with_output().expect("kcat ends")
}

#[test]
fn kcat_gets_back_what_it_sent_in_every_codec() {
    let directory = directory();
    let server = Server::start(directory.path());
    let codecs = [
        ("none", Codec::None),
        ("gzip", Codec::Gzip),
        ("snappy", Codec::Snappy),
        ("lz4", Codec::Lz4),
        ("zstd", Codec::Zstd),
    ];
    for (name, codec) in codecs {
        let topic = format!("kcat-{name}");
        let line = |index| format!("key {index}:value {index} {}\n", "once more ".repeat(20));
        let sent: String = (0..LINES).map(line).collect();
        kcat(&server, &["-P", "-t", &topic, "-p", "0", "-K:", "-z", name, "-H", "from=kcat"], &sent);
        let printed =
            kcat(&server, &["-C", "-t", &topic, "-p", "0", "-o", "beginning", "-e", "-q", "-f", "%k:%s\n"], "");
        assert!(printed == sent, "{topic}: {printed}");
        let headers = kcat(&server, &["-C", "-t", &topic, "-p", "0", "-o", "-1", "-e", "-q", "-f", "%o %h\n"], "");
        assert_eq!(headers, format!("{} from=kcat\n", LINES - 1), "{topic}");
        assert!(server.codecs(&topic, 0).iter().all(|found| *found == codec), "{topic}");
    }
    server.stop();
}

#[test]
fn kcat_in_its_oldest_protocols_gets_every_codec_that_these_know() {
    let directory = directory();
    let server = Server::start(directory.path());
    let mut sent = String::new();
    for codec in ["none", "gzip", "snappy", "lz4"] {
        let lines: String = (0..LINES).map(|index| format!("{codec} {index}\n")).collect();
        kcat(&server, &["-P", "-t", "old", "-p", "0", "-z", codec], &lines);
        sent.push_str(&lines);
    }
    for version in ["0.8.2", "0.9.0", "0.10.0", "0.10.1"] {
        let fallback = format!("broker.version.fallback={version}");
        let old = ["-X", "api.version.request=false", "-X", &fallback];
        let arguments = [&old[..], &["-C", "-t", "old", "-p", "0", "-o", "beginning", "-e", "-q"]].concat();
        assert!(kcat(&server, &arguments, "") == sent, "{version}");
    }
    server.stop();
}

#[test]
fn kcat_lists_the_broker_and_its_topics() {
    let directory = directory();
    let server = Server::start(directory.path());
    kcat(&server, &["-P", "-t", "listed"], "hello\n");
    let listing = kcat(&server, &["-L"], "");
    assert!(listing.contains(&format!("broker 1 at {}", server.address)), "{listing}");
    assert!(listing.contains("topic \"listed\" with 1 partitions"), "{listing}");
}

#[test]
fn kcat_finds_offsets_by_time_and_is_told_what_fails() {
    let directory = directory();
    let settings = ["auto.create.topics.enable=false", "message.max.bytes=2000"];
    let server = Server::start_with(directory.path(), &settings);
    assert_eq!(Wire::connect(server.address).create_topic("there", 1), 0);
    kcat(&server, &["-P", "-t", "there", "-p", "0"], "hello\n");
    assert_eq!(kcat(&server, &["-Q", "-t", "there:0:1"], "").trim(), "there [0] offset 0");
    for (arguments, input, wanted) in [
        (&["-C", "-t", "nowhere", "-e"][..], "", "Unknown topic or partition"),
        (&["-P", "-t", "there", "-p", "0"], &"x".repeat(3000)[..], "Message size too large"),
        (&["-P", "-t", "there", "-p", "0", "-X", "acks=5"], "x", "Invalid required acks"),
    ] {
        let output = run(&server, arguments, input);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(wanted), "{arguments:?}: {said}");
    }
    server.stop();
}
