//! Records through `ringlog produce` and back through `ringlog consume`.

use super::{Ran, done, feed, run};
use crate::server::{Server, directory};

const CODECS: [&str; 5] = ["none", "gzip:9", "snappy", "lz4", "zstd:6"];

fn sent(ran: &Ran, records: usize) {
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.starts_with(&format!("sent {records} record")), "{}", ran.stderr);
}

#[test]
fn json_lines_come_back_as_they_were_in_every_codec() {
    let directory = directory();
    let server = Server::start(directory.path());
    let records = [
        r#""timestamp":1700000000000,"timestamp_type":"CreateTime","key":"a","value":"plain","headers":[]"#,
        r#""timestamp":1700000000001,"timestamp_type":"CreateTime","key":null,"value":null,"headers":[{"key":"h","value":null}]"#,
        r#""timestamp":1700000000002,"timestamp_type":"CreateTime","key_base64":"/wA=","value_base64":"gIE=","headers":[{"key":"h","value_base64":"/w=="},{"key":"h","value":""}]"#,
        r#""timestamp":0,"timestamp_type":"CreateTime","key":"","value":"\"\\\n\u0001é🦀","headers":[]"#,
    ];
    for codec in CODECS {
        let topic = format!("json-{}", codec.replace(':', "-"));
        done(&server, &["topic", "create", &topic]);
        let line = |(offset, record): (usize, &&str)| {
            format!("{{\"topic\":\"{topic}\",\"partition\":0,\"offset\":{offset},{record}}}\n")
        };
        let lines: String = records.iter().enumerate().map(line).collect();
        sent(&feed(&server, &["produce", &topic, "--json", "-z", codec], lines.as_bytes()), records.len());
        assert_eq!(done(&server, &["consume", &topic, "-e", "--json"]), lines, "{codec}");
        let named = codec.split(':').next().expect("a name").to_lowercase();
        let found = format!("{:?}", server.codecs(&topic, 0)[0]).to_lowercase();
        assert_eq!(found, named);
    }
    server.stop();
}

#[test]
fn lines_hex_whole_files_keys_headers_and_nulls_come_back() {
    let directory = directory();
    let server = Server::start(directory.path());
    let topic = |name: &str| done(&server, &["topic", "create", name]);
    let all = |name: &str, more: &[&str]| done(&server, &[&["consume", name, "-e"], more].concat());

    topic("lines");
    let lines = "key 1::value::1\n::\nNULL::x\nk::NULL\n";
    let arguments = ["produce", "lines", "-K", "::", "--null", "NULL", "-H", "a=1", "-H", "b=", "--timestamp", "5"];
    sent(&feed(&server, &arguments, lines.as_bytes()), 4);
    assert_eq!(all("lines", &["-K", "::", "--null", "NULL"]), lines);
    assert_eq!(
        all("lines", &["-f", r"%o %K %S %h %T\n"]),
        "0 5 8 a=1,b= 5\n1 0 0 a=1,b= 5\n2 -1 1 a=1,b= 5\n3 1 -1 a=1,b= 5\n"
    );

    topic("hex");
    sent(&feed(&server, &["produce", "hex", "-f", "hex", "-K", ":"], b"00ff:0a0d\n:\n"), 2);
    assert_eq!(all("hex", &["-f", "hex", "-K", ":"]), "00ff:0a0d\n:\n");
    let wrong = feed(&server, &["produce", "hex", "-f", "hex"], b"00\n0\n");
    assert_eq!(wrong.code, 1);
    assert!(wrong.stderr.contains("line 2 of standard input: not hexadecimal digits"), "{}", wrong.stderr);
    assert!(wrong.stderr.starts_with("sent 1 record, "), "what was sound is sent: {}", wrong.stderr);

    topic("whole");
    let file = directory.path().join("file");
    std::fs::write(&file, "two\nlines\n").expect("written");
    let path = file.to_str().expect("UTF-8");
    sent(&run(&server, &["produce", "whole", "--whole", "-k", "name", path, path]), 2);
    sent(&feed(&server, &["produce", "whole", "--whole"], b""), 1);
    assert_eq!(all("whole", &["-f", "%k=%s;"]), "name=two\nlines\n;name=two\nlines\n;=;");

    topic("unended");
    sent(&feed(&server, &["produce", "unended", "--acks", "1"], b"a\n\nb"), 3);
    sent(&feed(&server, &["produce", "unended", "--acks", "0", "-q", "--linger", "1ms"], b"").quiet(), 0);
    assert_eq!(all("unended", &[]), "a\n\nb\n");
    sent(&feed(&server, &["produce", "unended", "--acks", "0"], b"unanswered\n"), 1);
    assert_eq!(done(&server, &["consume", "unended", "-o", "3", "-c", "1"]), "unanswered\n");

    let no_key = feed(&server, &["produce", "lines", "-K", "\\t"], b"a\tb\nc\n");
    assert!(no_key.code == 1 && no_key.stderr.contains("line 2 of standard input: no key separator"), "{no_key:?}");
    let no_json = feed(&server, &["produce", "lines", "--json"], b"{\"valeu\":1}\n");
    assert!(no_json.code == 1 && no_json.stderr.contains("no field of a record is called 'valeu'"), "{no_json:?}");
    server.stop();
}

impl Ran {
    /// With the summary that `-q` leaves out.
    fn quiet(mut self) -> Ran {
        assert_eq!(self.stderr, "");
        self.stderr = "sent 0 records".to_owned();
        self
    }
}

#[test]
fn consume_begins_and_ends_where_it_is_told() {
    let directory = directory();
    let server = Server::start(directory.path());
    done(&server, &["topic", "create", "t"]);
    for (time, lines) in [("1000", "0\n1\n2\n"), ("2000", "3\n4\n"), ("3000", "5\n")] {
        feed(&server, &["produce", "t", "--timestamp", time], lines.as_bytes());
    }
    let consume = |arguments: &[&str]| done(&server, &[&["consume", "t"], arguments].concat()).replace('\n', "");
    assert_eq!(consume(&["-e"]), "012345");
    assert_eq!(consume(&["-e", "--from-beginning"]), "012345");
    assert_eq!(consume(&["-o", "4", "-e"]), "45");
    assert_eq!(consume(&["-o", "-2", "-e"]), "45");
    assert_eq!(consume(&["-o", "-200", "-c", "2"]), "01");
    assert_eq!(consume(&["-o", "@2000", "-e"]), "345");
    assert_eq!(consume(&["-o", "@1970-01-01T00:00:02.001Z", "-e"]), "5");
    assert_eq!(consume(&["-o", "@4000", "-e"]), "");
    assert_eq!(consume(&["-o", "end", "-e"]), "");
    assert_eq!(consume(&["-o", "end", "--idle", "20ms"]), "");
    assert_eq!(consume(&["-e", "--isolation", "read_committed"]), "012345");

    let deleted = done(&server, &["records", "delete", "-t", "t", "--before", "@2000"]);
    assert!(deleted.ends_with("t              0      3\n"), "{deleted}");
    assert_eq!(consume(&["-e"]), "345");
    done(&server, &["records", "delete", "-t", "t", "--before", "all", "--json"]);
    assert_eq!(consume(&["-e"]), "");
    server.stop();
}

#[test]
fn many_partitions_and_large_records_all_arrive() {
    let directory = directory();
    let server = Server::start(directory.path());
    done(&server, &["topic", "create", "many", "-p", "7"]);
    let line = |number: usize| format!("{number}:{}\n", "v".repeat(number % 700));
    let lines: String = (0..5000).map(line).collect();
    sent(&feed(&server, &["produce", "many", "-K", ":", "-z", "lz4"], lines.as_bytes()), 5000);
    let mut found: Vec<String> =
        done(&server, &["consume", "many", "-e", "-K", ":"]).lines().map(|line| format!("{line}\n")).collect();
    found.sort_by_key(|line| line.split(':').next().and_then(|key| key.parse::<usize>().ok()));
    assert!(found.concat() == lines, "what arrived is not what was sent");
    let counted = done(&server, &["consume", "many", "-c", "1234", "-f", r"\x78"]);
    assert_eq!(counted.len(), 1234);
    let ordered = done(&server, &["consume", "many", "-p", "3", "-e", "-f", "%k\n"]);
    assert!(ordered.lines().map(|key| key.parse::<usize>().expect("a key")).is_sorted(), "of one partition in order");

    // Batches over the topic's limit are made smaller; a record over it is refused, with what to do.
    done(&server, &["topic", "create", "small", "-c", "max.message.bytes=2000"]);
    let lines: String = (0..100).map(|number| format!("{number} {}\n", "x".repeat(100))).collect();
    sent(&feed(&server, &["produce", "small"], lines.as_bytes()), 100);
    assert_eq!(done(&server, &["consume", "small", "-e"]), lines);
    let refused = feed(&server, &["produce", "small"], "y".repeat(3000).as_bytes());
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("raise it with 'ringlog topic alter --set max.message.bytes=N'"),
        "{}",
        refused.stderr
    );
    server.stop();
}
