//! The tools for people, as they are run: `ringlog topic`, `produce`, `consume` and so on against a broker.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::server::{DEADLINE, Server, directory};

pub mod ages;
mod dump;
mod examples;
mod kafka;
mod records;

/// What a tool printed and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// A tool's command line against this broker, in an environment of its own.
fn tool(server: &Server, arguments: &[&str]) -> Command {
    let mut command = anywhere(arguments);
    command.env("RINGLOG_BOOTSTRAP_SERVER", server.address.to_string());
    command
}

fn anywhere(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringlog"));
    command.args(arguments).env_remove("COLUMNS").env_remove("RINGLOG_BOOTSTRAP_SERVER");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn ended(child: Child) -> Ran {
    let output = child.wait_with_output().expect("the tool ends");
    Ran {
        code: output.status.code().expect("an exit code, not a signal"),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs a tool to its end.
pub fn run(server: &Server, arguments: &[&str]) -> Ran {
    ended(tool(server, arguments).spawn().expect("the tool starts"))
}

/// The same with `input` to read.
pub fn feed(server: &Server, arguments: &[&str], input: &[u8]) -> Ran {
    let mut child = tool(server, arguments).stdin(Stdio::piped()).spawn().expect("the tool starts");
    // A tool that ends early says why itself.
    let _ = child.stdin.take().expect("piped").write_all(input);
    ended(child)
}

/// Runs a tool that must do what it was asked; gives what it printed.
pub fn done(server: &Server, arguments: &[&str]) -> String {
    let ran = run(server, arguments);
    assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.stderr);
    ran.stdout
}

/// What differs from run to run becomes `*`, as long as it was: ids, the port, the directory.
fn masked(text: &str, server: &Server, directory: &Path) -> String {
    let mut secrets = vec![server.address.port().to_string(), directory.display().to_string()];
    let is_id = |word: &&str| {
        word.len() == 22
            && !word.contains(['.', '='])
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    secrets.extend(text.split(|c: char| c.is_whitespace() || c == '"').filter(is_id).map(str::to_owned));
    let mut text = text.to_owned();
    for secret in secrets {
        text = text.replace(&secret, &"*".repeat(5));
    }
    // The room on the disk is the machine's, and the directory's length moves columns.
    let squeeze = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let is_log_dir = |line: &&str| line.contains("/data") || line.contains("LOG DIR");
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        lines.push(match is_log_dir(&line) {
            true => squeeze(line)
                .split(' ')
                .map(|word| if word.ends_with("iB") || word.contains('.') { "#" } else { word })
                .collect::<Vec<_>>()
                .join(" "),
            false => line.to_owned(),
        });
    }
    lines.join("\n")
}

#[test]
fn tables_are_those_that_are_checked_in() {
    let directory = directory();
    let server = Server::start(directory.path());
    done(&server, &["topic", "create", "orders", "-p", "3", "-c", "retention.ms=-1", "-c", "cleanup.policy=compact"]);
    done(&server, &["topic", "create", "a-topic-with-a-name-that-is-rather-long", "--assignment", "1"]);
    let sent = feed(&server, &["produce", "orders", "-K", ":", "--timestamp", "2026-01-31T12:00Z"], b"a:1\nb:2\nc:3\n");
    assert_eq!(sent.code, 0, "{}", sent.stderr);
    let shown: &[(&str, &[&str])] = &[
        ("list", &["topic", "list"]),
        ("list.json", &["topic", "list", "--json"]),
        ("describe", &["topic", "describe", "orders"]),
        ("describe.json", &["topic", "describe", "orders", "--json"]),
        ("offsets", &["offsets", "--at", "2026-01-31T12:00Z"]),
        ("offsets.json", &["offsets", "orders", "-p", "0,1", "--json"]),
        ("config", &["config", "get", "--topic", "orders"]),
        ("config-all", &["config", "get", "--topic", "orders", "--all", "retention.ms", "segment.bytes"]),
        ("config.json", &["config", "get", "--topic", "orders", "retention.ms", "--json"]),
        ("cluster-info", &["cluster", "info"]),
    ];
    let mut printed = String::new();
    for (name, arguments) in shown {
        let text = masked(&done(&server, arguments), &server, directory.path());
        printed.push_str(&format!("$ ringlog {}\n{text}\n\n", arguments.join(" ")));
        assert!(!text.is_empty(), "{name}");
    }
    let narrow = tool(&server, &["topic", "list"]).env("COLUMNS", "40").spawn().expect("the tool starts");
    let narrow = ended(narrow).stdout;
    assert!(narrow.lines().all(|line| line.chars().count() <= 40), "{narrow}");
    printed.push_str(&format!("$ COLUMNS=40 ringlog topic list\n{narrow}"));
    check_golden("tables.txt", &printed);
    server.stop();
}

/// Holds output to the file; with RINGLOG_BLESS the file is written anew, to be looked at.
fn check_golden(name: &str, printed: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tools").join(name);
    if std::env::var_os("RINGLOG_BLESS").is_some() {
        fs::write(&path, printed).expect("written");
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    for (line, (found, expected)) in printed.lines().zip(golden.lines()).enumerate() {
        assert_eq!(found, expected, "line {} of {}", line + 1, path.display());
    }
    assert_eq!(printed.lines().count(), golden.lines().count(), "{}:\n{printed}", path.display());
}

#[test]
fn each_mistake_has_its_sentence_and_its_exit_code() {
    let directory = directory();
    let server = Server::start(directory.path());
    done(&server, &["topic", "create", "orders", "-p", "2"]);
    let full = "a".repeat(250);
    let mistakes: &[(&[&str], i32, &str)] = &[
        (&["topic", "describe", "order"], 1, "there is no topic 'order'; did you mean 'orders'?"),
        (
            &["consume", "shipments"],
            1,
            "there is no topic 'shipments'; see 'ringlog topic list', or make it with 'ringlog topic create shipments'",
        ),
        (&["produce", "orders", "-p", "7"], 1, "topic 'orders' has no partition 7; its partitions are 0 to 1"),
        (&["produce", "orders", "/nowhere"], 1, "/nowhere can't be read: no such file"),
        (&["consume", "orders", "-p", "2"], 1, "topic 'orders' has no partition 2"),
        (
            &["consume", "orders", "-p", "0", "-o", "5"],
            1,
            "orders-0 has no offset 5; its records are from 0 to before 0",
        ),
        (&["consume", "orders", "-o", "5", "-e"], 1, "has no offset 5"),
        (&["topic", "create", "orders"], 1, "there is a topic 'orders' already; see 'ringlog topic describe orders'"),
        (&["topic", "create", &full], 1, "INVALID_TOPIC_EXCEPTION"),
        (&["topic", "create", "x", "-r", "3"], 1, "INVALID_REPLICATION_FACTOR"),
        (&["topic", "create", "x", "-c", "retention.mss=1"], 1, "INVALID_CONFIG"),
        (&["topic", "delete", "oders"], 1, "did you mean 'orders'"),
        (
            &["topic", "add-partitions", "orders", "--to", "1"],
            1,
            "has 2 partitions already; partitions can't be taken away",
        ),
        (&["topic", "alter", "orders", "--set", "retention.ms=x"], 1, "INVALID_CONFIG"),
        (&["topic", "alter", "nothing-like-it", "--unset", "retention.ms"], 1, "there is no topic 'nothing-like-it'"),
        (&["config", "get", "--topic", "orders", "retention.mz"], 1, "did you mean 'retention.ms'?"),
        (&["config", "get", "--broker", "9"], 1, "there is no broker 9 now; see 'ringlog cluster info'"),
        (&["config", "set", "--broker", "1", "broker.id=4"], 1, "broker 1: "),
        (&["records", "delete", "-t", "orders", "--before", "9", "-p", "0"], 1, "OFFSET_OUT_OF_RANGE"),
        (&["offsets", "orders", "-p", "5"], 1, "has no partition 5"),
        (&["topic", "create"], 2, "required arguments were not provided"),
        (&["topic", "list", "-b", "x:y"], 2, "'x:y' is not HOST:PORT"),
        (&["consume", "orders", "-o", "sometime"], 2, "is none of beginning, end, N, -N (before the end) and @TIME"),
        (&["consume", "orders", "-f", "%q"], 2, "the template's %q is none of"),
        (&["produce", "orders", "-z", "brotli"], 2, "is none of none, gzip, snappy, lz4 and zstd"),
        (&["produce", "orders", "-z", "zstd:99"], 2, "the levels of zstd are -131072 to 22"),
        (&["produce", "orders", "--acks", "2"], 2, "is none of 0, 1 and all"),
        (&["records", "delete", "-t", "orders", "--before", "yesterday"], 2, "is none of N, @TIME and all"),
        (&["config", "get"], 2, "required arguments were not provided"),
        (&["topic", "list", "--timeout", "1y"], 2, "is not a time"),
    ];
    for (arguments, code, sentence) in mistakes {
        let ran = run(&server, arguments);
        assert_eq!(ran.code, *code, "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(sentence), "{arguments:?}: {}", ran.stderr);
        assert!(*code == 2 || ran.stderr.starts_with("ringlog: ") && ran.stderr.lines().count() == 1, "{}", ran.stderr);
        assert_eq!(ran.stdout, "", "{arguments:?}");
    }
    let kept = run(&server, &["topic", "create", "orders", "more", "--if-not-exists"]);
    assert_eq!((kept.code, &kept.stdout[..]), (0, "created topic 'more' (1 partition x 1 replica)\n"));
    assert_eq!(run(&server, &["topic", "delete", "nothing", "--if-exists"]).code, 0);
    server.stop();
}

#[test]
fn without_a_broker_the_sentence_says_where_it_looked_and_what_to_do() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let none = ended(anywhere(&["topic", "list", "-b", &closed.to_string()]).spawn().expect("the tool starts"));
    let sentence = format!(
        "ringlog: no broker answers at {closed} (connection refused); start one with 'ringlog serve' or name another with -b\n"
    );
    assert_eq!((none.code, none.stderr), (3, sentence));

    // One that takes connections and says nothing, and one that speaks something else.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("bound").to_string();
    let waited = anywhere(&["topic", "list", "-b", &address, "--timeout", "50ms"]).spawn().expect("the tool starts");
    let waited = ended(waited);
    assert!(waited.code == 3 && waited.stderr.contains("(no answer in time)"), "{waited:?}");
    let child = anywhere(&["topic", "list", "-b", &address]).spawn().expect("the tool starts");
    // The one that gave up still stands in the queue.
    drop(silent.accept().expect("the first connection"));
    let (mut stream, _) = silent.accept().expect("a connection");
    stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").expect("written");
    let stranger = ended(child);
    assert!(stranger.code == 3 && stranger.stderr.contains("does not speak Kafka's protocol"), "{stranger:?}");

    // The next of the list is asked.
    let directory = directory();
    let server = Server::start(directory.path());
    let list = format!("{closed},{}", server.address);
    let second = ended(anywhere(&["cluster", "info", "--json", "-b", &list]).spawn().expect("the tool starts"));
    assert_eq!(second.code, 0, "{}", second.stderr);

    // One that goes away while it is read from.
    done(&server, &["topic", "create", "t"]);
    let mut child = tool(&server, &["consume", "t", "--timeout", "300ms", "-q"]).spawn().expect("the tool starts");
    feed(&server, &["produce", "t", "-q"], b"here\n");
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    stdout.read_line(&mut line).expect("a line");
    assert_eq!(line, "here\n");
    server.kill();
    let left = ended(child);
    assert!(left.code == 3 && left.stderr.contains("does not answer"), "{left:?}");
}

#[test]
fn who_stops_reading_ends_it_quietly_and_a_full_disk_is_said() {
    let directory = directory();
    let server = Server::start(directory.path());
    done(&server, &["topic", "create", "t"]);
    let lines: String = (0..100_000).map(|number| format!("line {number}\n")).collect();
    assert_eq!(feed(&server, &["produce", "t"], lines.as_bytes()).code, 0);
    let mut child = tool(&server, &["consume", "t"]).spawn().expect("the tool starts");
    let mut first = [0; 7];
    child.stdout.take().expect("piped").read_exact(&mut first).expect("a line");
    assert_eq!(&first, b"line 0\n");
    let quiet = ended(child);
    assert_eq!((quiet.code, &quiet.stderr[..]), (0, ""));

    for arguments in [&["topic", "list"][..], &["consume", "t", "-e", "-q"], &["completions", "bash"]] {
        let full = File::options().write(true).open("/dev/full").expect("a device that is always full");
        let ran = ended(tool(&server, arguments).stdout(full).spawn().expect("the tool starts"));
        let sentence = "ringlog: the output can't be written: no space left on device\n";
        assert_eq!((ran.code, &ran.stderr[..]), (1, sentence), "{arguments:?}");
    }
    server.stop();
}

fn interrupt(child: &Child) {
    kill(Pid::from_raw(i32::try_from(child.id()).expect("a process id")), Signal::SIGINT).expect("signalled");
}

#[test]
fn ctrl_c_ends_consume_with_its_summary_and_produce_with_what_it_has_read() {
    let directory = directory();
    let server = Server::start(directory.path());
    done(&server, &["topic", "create", "t"]);
    feed(&server, &["produce", "t"], b"1\n2\n3\n");
    let mut child = tool(&server, &["consume", "t"]).spawn().expect("the tool starts");
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    for _ in 0..3 {
        stdout.read_line(&mut String::new()).expect("a line");
    }
    interrupt(&child);
    let ran = ended(child);
    assert_eq!(ran.code, 130, "{}", ran.stderr);
    assert!(ran.stderr.starts_with("read 3 records, 3 B in "), "{}", ran.stderr);

    // A reader that is slow to take what is there holds nothing up.
    let lines = "x".repeat(99) + "\n";
    feed(&server, &["produce", "t"], lines.repeat(10_000).as_bytes());
    let mut waiting = tool(&server, &["consume", "t", "-q"]).spawn().expect("the tool starts");
    let mut first = [0; 1];
    waiting.stdout.as_mut().expect("piped").read_exact(&mut first).expect("a byte");
    interrupt(&waiting);
    let deadline = Instant::now() + DEADLINE;
    let status = loop {
        match waiting.try_wait().expect("a child") {
            Some(status) => break status,
            None if Instant::now() > deadline => {
                waiting.kill().expect("killed");
                panic!("it waits for the reader");
            }
            None => std::thread::yield_now(),
        }
    };
    assert_eq!(status.code(), Some(130));

    done(&server, &["topic", "create", "u"]);
    let mut child = tool(&server, &["produce", "u", "--linger", "1h", "--batch-size", "30000000"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("the tool starts");
    let mut stdin = child.stdin.take().expect("piped");
    // A pipe holds 64 KiB: the rest of what was written has been read.
    stdin.write_all(lines.repeat(10_000).as_bytes()).expect("written");
    interrupt(&child);
    let ran = ended(child);
    assert_eq!(ran.code, 130, "{}", ran.stderr);
    let sent: u64 = ran.stderr.split(' ').nth(1).and_then(|count| count.parse().ok()).expect("a count");
    assert!(sent >= 9_000, "{}", ran.stderr);
    let offsets = done(&server, &["offsets", "u"]);
    assert!(offsets.contains(&sent.to_string()), "{offsets}{}", ran.stderr);
    drop(stdin);
    server.stop();
}

#[test]
fn settings_are_set_appended_to_and_let_go() {
    let directory = directory();
    let server = Server::start(directory.path());
    done(&server, &["topic", "create", "t"]);
    let own = |server: &Server| done(server, &["config", "get", "--topic", "t", "--json"]);
    let said =
        done(&server, &["config", "set", "--topic", "t", "retention.ms=5000", "--append", "cleanup.policy=compact"]);
    assert_eq!(said, "changed retention.ms and cleanup.policy of topic 't'\n");
    assert!(own(&server).contains(r#""value":"delete,compact""#), "{}", own(&server));
    done(
        &server,
        &["config", "set", "--topic", "t", "--subtract", "cleanup.policy=delete", "--delete", "retention.ms"],
    );
    assert!(own(&server).contains(r#""value":"compact""#) && !own(&server).contains("retention.ms"));
    done(&server, &["topic", "alter", "t", "--unset", "cleanup.policy", "--set", "segment.ms=60000"]);
    assert!(own(&server).contains("segment.ms") && !own(&server).contains("cleanup.policy"));
    done(&server, &["config", "set", "--topic", "t", "--validate-only", "retention.ms=7"]);
    assert!(!own(&server).contains("retention.ms"), "only checked");

    done(&server, &["config", "set", "--broker-default", "log.retention.ms=600000"]);
    assert!(done(&server, &["config", "get", "--broker-default"]).contains("DYNAMIC_DEFAULT_BROKER_CONFIG"));
    let inherited = done(&server, &["config", "get", "--topic", "t", "retention.ms", "--all"]);
    assert!(inherited.contains("DYNAMIC_DEFAULT_BROKER_CONFIG:log.retention.ms=600000, "), "{inherited}");
    done(&server, &["config", "set", "--broker-loggers", "1", "ringlog::net=DEBUG"]);
    assert!(done(&server, &["config", "get", "--broker-loggers", "1", "ringlog::net"]).contains("DEBUG"));
    server.stop();
}

#[test]
fn every_help_has_examples_or_a_list_and_every_shell_its_completions() {
    let help = |arguments: &[&str]| ended(anywhere(arguments).spawn().expect("the tool starts")).stdout;
    for name in ["topic", "produce", "consume", "config", "offsets", "records", "cluster"] {
        let text = help(&[name, "--help"]);
        assert!(text.contains("Exit codes: 0 done;"), "{name}: {text}");
        assert!(text.contains("Examples:") || name == "cluster", "{name}: {text}");
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(help(&["completions", shell]).contains("add-partitions"), "{shell}");
    }
}
