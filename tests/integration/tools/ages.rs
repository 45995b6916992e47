//! The tools against brokers of other ages: a go-between says what such a broker says of its versions, and passes all else
//! on to ringlog, which speaks them all. What is asked in another version than the list has fails the test.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use ringlog::protocol::ApiKey;
use ringlog::protocol::frame::FRAME_PREFIX_BYTES;
use ringlog::protocol::header::{begin_response, finish_frame};
use ringlog::protocol::message::api_versions::{ApiVersion, ApiVersionsResponse};

use super::{Ran, anywhere, ended};
use crate::server::{Server, directory};
use crate::wire::Wire;

const UNSUPPORTED_VERSION: i16 = 35;

type Versions = &'static [(ApiKey, i16, i16)];

const KAFKA_0_10_0: Versions = &[
    (ApiKey::Produce, 0, 2),
    (ApiKey::Fetch, 0, 2),
    (ApiKey::ListOffsets, 0, 0),
    (ApiKey::Metadata, 0, 1),
    (ApiKey::ApiVersions, 0, 0),
];

const KAFKA_1_0: Versions = &[
    (ApiKey::Produce, 0, 5),
    (ApiKey::Fetch, 0, 6),
    (ApiKey::ListOffsets, 0, 2),
    (ApiKey::Metadata, 0, 5),
    (ApiKey::ApiVersions, 0, 1),
    (ApiKey::CreateTopics, 0, 2),
    (ApiKey::DeleteTopics, 0, 1),
    (ApiKey::DeleteRecords, 0, 0),
    (ApiKey::InitProducerId, 0, 0),
    (ApiKey::DescribeConfigs, 0, 0),
    (ApiKey::AlterConfigs, 0, 0),
    (ApiKey::DescribeLogDirs, 0, 0),
    (ApiKey::CreatePartitions, 0, 0),
];

const KAFKA_4_0: Versions = &[
    (ApiKey::Produce, 3, 11),
    (ApiKey::Fetch, 4, 17),
    (ApiKey::ListOffsets, 1, 9),
    (ApiKey::Metadata, 0, 12),
    (ApiKey::ApiVersions, 0, 4),
    (ApiKey::CreateTopics, 2, 7),
    (ApiKey::DeleteTopics, 1, 6),
    (ApiKey::DeleteRecords, 0, 2),
    (ApiKey::InitProducerId, 0, 5),
    (ApiKey::DescribeConfigs, 1, 4),
    (ApiKey::IncrementalAlterConfigs, 0, 1),
    (ApiKey::DescribeLogDirs, 1, 4),
    (ApiKey::CreatePartitions, 0, 3),
    (ApiKey::DescribeCluster, 0, 1),
];

/// The next frame of a connection, its size before it.
pub fn frame(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut prefix = [0; FRAME_PREFIX_BYTES];
    stream.read_exact(&mut prefix).ok()?;
    let mut frame = vec![0; FRAME_PREFIX_BYTES + u32::from_be_bytes(prefix) as usize];
    frame[..FRAME_PREFIX_BYTES].copy_from_slice(&prefix);
    stream.read_exact(&mut frame[FRAME_PREFIX_BYTES..]).ok()?;
    Some(frame)
}

/// The go-between's answer to ApiVersions: brokers answer a version they do not know by an error alone (before 2.4).
fn list(versions: Versions, asked: i16, correlation_id: i32) -> Vec<u8> {
    let known = versions.iter().any(|(key, _, highest)| *key == ApiKey::ApiVersions && asked <= *highest);
    let listed = |(key, min_version, max_version): &(ApiKey, i16, i16)| ApiVersion {
        api_key: key.code(),
        min_version: *min_version,
        max_version: *max_version,
    };
    let response = match known {
        true => ApiVersionsResponse { api_keys: versions.iter().map(listed).collect(), ..Default::default() },
        false => ApiVersionsResponse { error_code: UNSUPPORTED_VERSION, ..Default::default() },
    };
    let version = if known { asked } else { 0 };
    let mut writer = begin_response(ApiKey::ApiVersions, version, correlation_id);
    response.encode(&mut writer, version).expect("an answer");
    finish_frame(writer).expect("a frame").to_vec()
}

/// Serves one connection, a request and its answer at a time.
fn go_between(mut client: TcpStream, broker: SocketAddr, versions: Versions, wrong: &Mutex<Vec<String>>) -> Option<()> {
    let mut broker = TcpStream::connect(broker).ok()?;
    loop {
        let request = frame(&mut client)?;
        let number = |at: usize| i16::from_be_bytes([request[at], request[at + 1]]);
        let (key, version) = (number(4), number(6));
        let correlation_id = i32::from_be_bytes(*request[8..].first_chunk()?);
        if key == ApiKey::ApiVersions.code() {
            client.write_all(&list(versions, version, correlation_id)).ok()?;
            continue;
        }
        if !versions.iter().any(|(known, low, high)| known.code() == key && (*low..=*high).contains(&version)) {
            wrong.lock().expect("no panic").push(format!("API {key} version {version}"));
            return None;
        }
        broker.write_all(&request).ok()?;
        client.write_all(&frame(&mut broker)?).ok()?;
    }
}

/// A broker that is reached through a go-between, which `serve`s each connection: between a client and the broker's own
/// address. Its server, that address, and the one to connect to.
pub fn behind(
    directory: &Path,
    serve: impl Fn(TcpStream, SocketAddr) -> Option<()> + Send + Sync + 'static,
) -> (Server, SocketAddr, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    // Its banner names the port that it tells of, so its own is chosen here: one that was free a moment ago.
    let advertised = format!("advertised.listeners=PLAINTEXT://{address}");
    let real = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
    let listen = format!("listeners=PLAINTEXT://{real}");
    let server = Server::start_with(directory, &[&listen, &advertised]);
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let serve = serve.clone();
            thread::spawn(move || serve(client, real));
        }
    });
    (server, real, address)
}

/// Runs `story` against a broker of these versions: it is given a way to run tools, with input.
fn in_the_age_of(versions: Versions, story: impl FnOnce(&dyn Fn(&[&str], &str) -> Ran)) {
    let directory = directory();
    let wrong = Arc::new(Mutex::new(Vec::new()));
    let seen = wrong.clone();
    let (server, real, address) =
        behind(directory.path(), move |client, broker| go_between(client, broker, versions, &seen));
    let tool = |arguments: &[&str], input: &str| {
        let mut command = anywhere(arguments);
        command.args(["-b", &address.to_string()]).stdin(std::process::Stdio::piped());
        let mut child = command.spawn().expect("the tool starts");
        // A tool that ends early says why itself.
        let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
        ended(child)
    };
    // A broker of 0.10.0 can't be asked to.
    assert_eq!(Wire::connect(real).create_topic("t", 1), 0);
    story(&tool);
    assert_eq!(*wrong.lock().expect("no panic"), [""; 0], "asked in versions that are not listed");
    server.stop();
}

fn goes_through(tool: &dyn Fn(&[&str], &str) -> Ran, codec: &str) {
    let sent = tool(&["produce", "t", "-K", ":", "-z", codec], "k:first\nk:second\n");
    assert_eq!(sent.code, 0, "{codec}: {}", sent.stderr);
    let read = tool(&["consume", "t", "-o", "-2", "-e", "-K", ":"], "");
    assert_eq!((read.code, &read.stdout[..]), (0, "k:first\nk:second\n"), "{codec}: {}", read.stderr);
}

#[test]
fn a_broker_of_0_10_is_produced_to_and_read_from_as_far_as_it_goes() {
    in_the_age_of(KAFKA_0_10_0, |tool| {
        for codec in ["none", "gzip", "snappy", "lz4"] {
            goes_through(tool, codec);
        }
        let zstd = tool(&["produce", "t", "-z", "zstd"], "x\n");
        assert!(zstd.code == 1 && zstd.stderr.contains("too old for zstd"), "{zstd:?}");
        assert!(tool(&["topic", "list"], "").stdout.contains("t "));
        let described = tool(&["topic", "describe", "t"], "");
        assert!(described.code == 0 && described.stdout.contains("PARTITION"), "{described:?}");
        let settings = tool(&["config", "get", "--topic", "t"], "");
        assert!(settings.code == 1 && settings.stderr.contains("no DescribeConfigs; it is too old"), "{settings:?}");
        let by_time = tool(&["consume", "t", "-o", "@5", "-e"], "");
        assert!(by_time.code == 1 && by_time.stderr.contains("it is too old for this"), "{by_time:?}");
        let missing = tool(&["consume", "u", "-e"], "");
        assert!(missing.stderr.contains("there is no topic 'u'"), "and none is created by asking: {missing:?}");
        assert!(!tool(&["topic", "list"], "").stdout.contains("\nu "));
    });
}

#[test]
fn brokers_of_1_0_and_4_0_are_administered_too() {
    for versions in [KAFKA_1_0, KAFKA_4_0] {
        in_the_age_of(versions, |tool| {
            let done = |arguments: &[&str]| {
                let ran = tool(arguments, "");
                assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.stderr);
                ran.stdout
            };
            goes_through(tool, "lz4");
            done(&["topic", "create", "more", "-c", "retention.ms=-1"]);
            done(&["topic", "add-partitions", "more", "--to", "2"]);
            assert!(done(&["topic", "describe", "more"]).contains("retention.ms=-1"));
            assert!(done(&["cluster", "info"]).contains("online"));
            assert!(done(&["records", "delete", "-t", "t", "--before", "1"]).contains("t              0      1"));
            done(&["offsets", "t", "--at", "5"]);
            done(&["topic", "delete", "more"]);
        });
    }
}
