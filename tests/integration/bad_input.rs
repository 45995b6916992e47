//! Bytes that no good client sends, and what comes back: Kafka's error code where it gives one (`codes`, `batches`), else that
//! connection alone closes. A table of each; after every row the broker serves others as before, and at the end it has kept
//! no memory, has said little on standard error and has counted every connection that it refused.

mod batches;
mod bodies;
mod codes;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Instant;

use ringlog::handlers::api::SERVED;
use ringlog::protocol::header::decode_response_header;
use ringlog::protocol::message::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use ringlog::protocol::{ApiKey, ErrorCode, Reader, WireError, Writer};
use ringlog::record::batch::BatchBuilder;
use ringlog::record::compression::Codec;

use crate::server::{DEADLINE, Server, directory};
use crate::wire::{Wire, ask};

/// Memory that rows may leave behind or take for a moment: what the allocator keeps, and nothing that a length claims.
const MEMORY_MAX: u64 = 96 << 20;
/// Lines about refused connections: of two kinds, on two shards, ten of each in ten seconds.
const LINES_PER_INTERVAL: u64 = 40;
const INTERVAL_SECONDS: u64 = 10;

/// A broker, what it counted, and a connection that must be served whatever the others do.
pub struct Bench {
    pub server: Server,
    admin: SocketAddr,
    witness: Wire,
    _directory: tempfile::TempDir,
}

impl Bench {
    pub fn start(settings: &[&str]) -> Bench {
        let directory = directory();
        let mut flags = vec!["--admin-listen", "127.0.0.1:0"];
        flags.extend(settings.iter().flat_map(|setting| ["--set", setting]));
        Bench::over(directory, &flags)
    }

    fn over(directory: tempfile::TempDir, flags: &[&str]) -> Bench {
        let server = Server::run(directory.path(), with_flags(directory.path(), flags));
        let line = server.banner("admin       http://");
        let (address, _) = line.split_once('/').expect("a path");
        let admin = address.parse().expect("an address");
        let witness = Wire::connect(server.address);
        Bench { server, admin, witness, _directory: directory }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.server.address).expect("a connection");
        stream.set_nodelay(true).expect("set");
        stream.set_read_timeout(Some(DEADLINE)).expect("set");
        stream
    }

    /// Connections closed because of what the peer sent, on both shards.
    fn refused(&self) -> u64 {
        let mut stream = TcpStream::connect(self.admin).expect("a connection");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("read");
        let lines = text.lines().filter(|line| line.starts_with("ringlog_connections_refused_total{"));
        lines.map(|line| line.rsplit_once(' ').expect("a value").1.parse::<u64>().expect("a number")).sum()
    }

    /// Waits until so many connections are refused; a moment more would be a row that is counted twice.
    fn wait_for_refused(&self, expected: u64, row: &str) {
        let deadline = Instant::now() + DEADLINE;
        while self.refused() < expected {
            assert!(Instant::now() < deadline, "{row}: {} refused, not {expected}", self.refused());
        }
        assert_eq!(self.refused(), expected, "{row}");
    }

    /// Others are served.
    pub fn assert_serves(&mut self) {
        let request =
            ApiVersionsRequest { client_software_name: "test".to_owned(), client_software_version: "1".to_owned() };
        assert_eq!(ask!(self.witness, 3, request, ApiVersionsResponse).error_code, 0);
    }

    /// A line of the process's status in the kernel: resident memory now, or the most that it ever was.
    pub fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.server.process())).expect("readable");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("there");
        line.split_whitespace().next().expect("a number").parse::<u64>().expect("a number") * 1024
    }

    /// Has the kernel count the most that resident memory ever was from now on.
    pub fn forget_most_memory(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.server.process()), "5").expect("written");
    }
}

fn with_flags(directory: &Path, flags: &[&str]) -> std::process::Command {
    let mut command = crate::server::serve_by_default(directory);
    command.args(["--set", "log.initial.task.delay.ms=3600000"]).args(flags);
    command
}

/// What comes back on a connection until it closes; a reset is an end too.
fn read_to_end(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => Err(error),
        _ => Ok(all),
    }
}

fn framed(frame: &[u8]) -> Vec<u8> {
    [&i32::try_from(frame.len()).expect("a length").to_be_bytes()[..], frame].concat()
}

/// Header of a request: key, version, correlation id 7, client id, and for flexible versions no tagged fields.
fn header(key: i16, version: i16, client_id: &[u8]) -> Vec<u8> {
    [&key.to_be_bytes()[..], &version.to_be_bytes(), &[0, 0, 0, 7], client_id].concat()
}

const NO_CLIENT_ID: &[u8] = &[0xff, 0xff];
const API_VERSIONS_0: &[u8] = &[0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff];

/// What must become of what was sent.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    /// The connection closes without an answer, and is counted as refused.
    Refused,
    /// The client has gone in the middle of a frame: the connection closes without an answer, and nobody is to blame.
    Ended,
    /// Answered, with this code in an ApiVersions response of version 0 where there is one; the connection goes on.
    Answered(Option<ErrorCode>),
}
use Outcome::{Answered, Ended, Refused};

struct Row {
    name: String,
    sent: Vec<u8>,
    outcome: Outcome,
}

fn row(name: impl Into<String>, sent: impl Into<Vec<u8>>, outcome: Outcome) -> Row {
    Row { name: name.into(), sent: sent.into(), outcome }
}

/// Not frames of Kafka at all, or not whole.
fn framing_rows() -> Vec<Row> {
    let api_versions = framed(API_VERSIONS_0);
    let mut rows = vec![
        row("garbage", [0xde, 0xad, 0xbe, 0xef].repeat(40), Refused),
        row("TLS ClientHello", [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0x5a; 500]].concat(), Refused),
        row("HTTP", "GET / HTTP/1.1\r\nHost: broker\r\n\r\n", Refused),
        row("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Refused),
        row("SSH", "SSH-2.0-OpenSSH_9.2p1\r\n", Refused),
        row("a frame without a byte", framed(b""), Refused),
        row("a frame cut short", &api_versions[..9], Ended),
        row("half a size", &api_versions[..2], Ended),
        row("nothing", b"", Ended),
        row("a large frame cut short", [&90_000_000_i32.to_be_bytes()[..], &[0; 100_000]].concat(), Ended),
    ];
    for size in [-1, -2, i32::MIN, 104_857_601, i32::MAX, 0x7f00_0000] {
        rows.push(row(format!("a frame of {size} bytes"), [&size.to_be_bytes()[..], &[0; 64]].concat(), Refused));
    }
    for end in 0..API_VERSIONS_0.len() {
        rows.push(row(format!("a header of {end} bytes"), framed(&API_VERSIONS_0[..end]), Refused));
    }
    rows
}

/// Headers with client ids and tagged fields that can't be; `header` is ApiVersions' own, whose body is empty in version 0.
fn header_rows() -> Vec<Row> {
    let api_versions = |client_id: &[u8]| framed(&header(18, 0, client_id));
    let tagged = |tags: &[u8]| framed(&[&header(18, 3, NO_CLIENT_ID), tags, &[2, b'a', 2, b'1', 0]].concat());
    vec![
        row("a client id of length -2", api_versions(&[0xff, 0xfe, b'a', b'b']), Refused),
        row("a client id of length -32768", api_versions(&[0x80, 0, b'a', b'b']), Refused),
        row("a client id longer than its frame", api_versions(&[0, 50, b'a', b'b']), Refused),
        row("a client id that is not UTF-8", api_versions(&[0, 2, 0xc3, 0x28]), Answered(Some(ErrorCode::None))),
        row("an empty client id", api_versions(&[0, 0]), Answered(Some(ErrorCode::None))),
        row("tagged fields that nobody knows", tagged(&[2, 1, 1, 0, 9, 2, 0, 0]), Answered(None)),
        row("tags that are there twice", tagged(&[2, 5, 1, 0, 5, 1, 1]), Answered(None)),
        row("tags that descend", tagged(&[2, 9, 1, 0, 5, 1, 1]), Answered(None)),
        row("more tagged fields than there are bytes", tagged(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Refused),
        row("a count of tagged fields that has no end", tagged(&[0xff; 6]), Refused),
        row("a tagged field longer than its frame", tagged(&[1, 0, 100]), Refused),
        row("a tagged field of 4 GiB", tagged(&[1, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]), Refused),
    ]
}

/// Keys that there are not, and versions below and above those of every key that there is.
fn version_rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let is_known = |key: i16| SERVED.iter().any(|range| range.api_key.code() == key);
    let keys = (-1..=80).chain([127, 128, 1000, 0x4745, i16::MAX, i16::MIN]).filter(|key| !is_known(*key));
    for key in keys {
        rows.push(row(format!("API key {key}"), framed(&header(key, 0, NO_CLIENT_ID)), Refused));
    }
    for range in SERVED {
        for version in [i16::MIN, range.lowest_version - 1, range.highest_version + 1, i16::MAX] {
            let frame = framed(&[&header(range.api_key.code(), version, NO_CLIENT_ID), &[0; 40][..]].concat());
            let outcome = match range.api_key {
                ApiKey::ApiVersions => Answered(Some(ErrorCode::UnsupportedVersion)),
                _ => Refused,
            };
            rows.push(row(format!("{} v{version}", range.api_key), frame, outcome));
        }
    }
    rows
}

/// Bodies with a field that can't be.
fn body_rows() -> Vec<Row> {
    let request =
        |key: ApiKey, version: i16, body: &[u8]| framed(&[&header(key.code(), version, NO_CLIENT_ID), body].concat());
    let mut rows = vec![
        row("a null array where there is none", request(ApiKey::Metadata, 0, &[0xff; 4]), Refused),
        row("a null topic", request(ApiKey::Metadata, 1, &[0, 0, 0, 1, 0xff, 0xff]), Refused),
        row("a topic that is not UTF-8", request(ApiKey::Metadata, 1, &[0, 0, 0, 1, 0, 2, 0xc3, 0x28]), Answered(None)),
        row("a body cut short", request(ApiKey::Metadata, 1, &[0]), Refused),
        row("bytes behind a body", request(ApiKey::Metadata, 1, &[0, 0, 0, 0, 1, 2, 3]), Answered(None)),
        row("null records of old", request(ApiKey::Produce, 2, &[0, 1, 0, 0, 0, 9, 0, 0, 0, 0]), Answered(None)),
    ];
    for count in [i32::MAX, -2, 0x0fff_ffff, 0x0010_0000] {
        let bytes = [&count.to_be_bytes()[..], &[0; 32]].concat();
        rows.push(row(format!("{count} topics"), request(ApiKey::Metadata, 1, &bytes), Refused));
    }
    rows
}

/// Sends a row on a connection of its own; what became of it.
fn outcome_of(bench: &Bench, row: &Row) -> Outcome {
    let mut stream = bench.connect();
    // Fails if the broker has closed already, which the reading below finds.
    let _ = stream.write_all(&row.sent);
    if row.outcome == Ended {
        stream.shutdown(Shutdown::Write).expect("shut down");
    }
    if let Answered(expected) = row.outcome {
        let mut prefix = [0; 4];
        if stream.read_exact(&mut prefix).is_err() {
            return Refused;
        }
        let mut answer = vec![0; u32::from_be_bytes(prefix) as usize];
        stream.read_exact(&mut answer).expect("the rest of an answer");
        assert_eq!(answer[..4], [0, 0, 0, 7], "{}", row.name);
        let code = expected.map(|_| {
            let response = ApiVersionsResponse::decode(&mut Reader::new(&answer[4..]), 0).expect("a body of version 0");
            ErrorCode::from_code(response.error_code).expect("a code")
        });
        stream.write_all(&framed(API_VERSIONS_0)).expect("the connection goes on");
        stream.read_exact(&mut prefix).expect("the connection goes on");
        return Answered(code);
    }
    let all = read_to_end(&mut stream).unwrap_or_else(|error| panic!("{}: stays open: {error}", row.name));
    assert!(all.is_empty(), "{}: answered with {all:02x?}", row.name);
    row.outcome
}

fn assert_quiet_and_small(bench: &Bench, resident: u64, start: Instant) {
    let now = bench.memory("VmHWM:");
    assert!(now < resident + MEMORY_MAX, "{now} bytes at the most, {resident} before");
    let said = bench.server.stderr();
    assert!(!said.contains("panicked"), "{said}");
    let intervals = start.elapsed().as_secs() / INTERVAL_SECONDS + 2;
    let lines = said.lines().count() as u64;
    assert!(lines <= LINES_PER_INTERVAL * intervals, "{lines} lines on standard error");
}

#[test]
fn what_is_no_request_closes_its_connection_alone_with_a_metric_and_few_lines() {
    let mut bench = Bench::start(&[]);
    bench.assert_serves();
    let (resident, start) = (bench.memory("VmRSS:"), Instant::now());
    let mut refused = bench.refused();
    assert_eq!(refused, 0);
    for row in [framing_rows(), header_rows(), version_rows(), body_rows()].into_iter().flatten() {
        assert_eq!(outcome_of(&bench, &row), row.outcome, "{}", row.name);
        refused += u64::from(row.outcome == Refused);
        bench.wait_for_refused(refused, &row.name);
        bench.assert_serves();
    }
    assert!(refused > 100);
    assert_quiet_and_small(&bench, resident, start);
    bench.server.stop();
}

#[test]
fn a_request_that_comes_byte_by_byte_is_answered() {
    let bench = Bench::start(&[]);
    let mut stream = bench.connect();
    for byte in framed(API_VERSIONS_0) {
        stream.write_all(&[byte]).expect("sent");
    }
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(answer[4..], [0, 0, 0, 7]);
}

#[test]
fn what_came_before_a_request_that_closes_the_connection_is_answered() {
    const ROUNDS: usize = 50;
    const VERSION: i16 = 9;
    let mut bench = Bench::start(&[]);
    codes::create_topic(&mut bench.witness, "before", &[]);
    let mut batch = BatchBuilder::new(Codec::None);
    batch.push(1, None, Some(&[7; 20_000]), &[]);
    let batch = batch.build();
    for round in 0..ROUNDS {
        for last in ["no frame", "an unknown API", "a produce without an answer that fails"] {
            let mut wire = Wire::connect(bench.server.address);
            let mut sent = Vec::new();
            for _ in 0..3 {
                sent.push(wire.send_produce(VERSION, -1, "before", 0, &batch).expect("sent"));
            }
            for _ in 0..2 {
                sent.push(wire.send(ApiKey::ApiVersions, 0, |_| Ok(())).expect("sent"));
            }
            match last {
                "no frame" => wire.send_bytes(&[0xff; 64]).expect("sent"),
                "an unknown API" => wire.send_frame(&header(99, 0, NO_CLIENT_ID)).expect("sent"),
                _ => drop(wire.send_produce(VERSION, 0, "nowhere", 0, &batch).expect("sent")),
            }
            for id in sent {
                let answer = wire.receive().unwrap_or_else(|error| panic!("before {last}, round {round}: {error}"));
                assert_eq!(answer[..4], id.to_be_bytes(), "answers come in order");
            }
            assert!(wire.receive().is_err(), "after {last} the connection closes");
        }
    }
    bench.server.stop();
}

/// The code of one answer whose header and body are given to `decode`.
fn answer_of<T>(
    wire: &mut Wire,
    key: ApiKey,
    version: i16,
    encode: impl FnOnce(&mut Writer) -> Result<(), WireError>,
    decode: impl FnOnce(&mut Reader<'_>) -> T,
) -> T {
    let answer = wire.call(key, version, encode).expect("an answer");
    let mut reader = Reader::new(&answer);
    decode_response_header(&mut reader, key, version).expect("a header");
    decode(&mut reader)
}
