//! Requests with a count that can't be in every place where one may stand, and cut at every byte.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use ringlog::base::ids::TopicId;
use ringlog::handlers::api::SERVED;
use ringlog::protocol::message::{
    FetchPartition, FetchRequest, FetchTopic, ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
    MetadataRequest, MetadataRequestTopic, OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
    ProduceRequestToSend,
};
use ringlog::protocol::{ApiKey, WireError, Writer};
use ringlog::record::batch::BatchBuilder;
use ringlog::record::compression::Codec;

use super::{API_VERSIONS_0, Bench, NO_CLIENT_ID, assert_quiet_and_small, framed, header, read_to_end};

/// One body as Kafka's classes write it: `tests/golden/protocol`.
struct Body {
    key: ApiKey,
    version: i16,
    bytes: Vec<u8>,
}

impl Body {
    fn header(&self) -> Vec<u8> {
        let mut header = header(self.key.code(), self.version, NO_CLIENT_ID);
        header.extend((self.key.request_header_version(self.version) == 2).then_some(0));
        header
    }
}

fn bodies() -> Vec<Body> {
    let text = include_str!("../../golden/protocol/kafka-3.9.0.txt");
    let bodies = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        let name = words[0].strip_suffix("Request")?;
        let version = words[1].parse().expect("a version");
        let key = *ApiKey::ALL.iter().find(|key| key.name() == name).expect("an API");
        SERVED.iter().find(|served| served.api_key == key && served.has(version))?;
        let digits = |at: usize| u8::from_str_radix(&words[3][at..at + 2], 16).expect("hexadecimal");
        Some(Body { key, version, bytes: (0..words[3].len()).step_by(2).map(digits).collect() })
    });
    bodies.collect()
}

/// What a length or count becomes, as a number and as a varint.
const NUMBERS: [i32; 3] = [i32::MAX, -2, 0x0fff_ffff];
const VARINTS: [&[u8]; 3] =
    [&[0xff, 0xff, 0xff, 0xff, 0x07], &[0xfe, 0xff, 0xff, 0xff, 0x0f], &[0xff, 0xff, 0xff, 0x7f]];

/// The body whole; cut at every byte; and with a number that can't be in every place where a count may stand.
fn damaged(body: &Body) -> Vec<Vec<u8>> {
    let bytes = &body.bytes;
    let mut all = vec![bytes.clone()];
    all.extend((0..bytes.len()).map(|end| bytes[..end].to_vec()));
    for at in 0..bytes.len() {
        if body.key.is_flexible(body.version) {
            all.push([&bytes[..at], VARINTS[at % 3], &bytes[at + 1..]].concat());
        } else if at + 4 <= bytes.len() {
            all.extend(NUMBERS.map(|number| [&bytes[..at], &number.to_be_bytes(), &bytes[at + 4..]].concat()));
        }
    }
    all
}

/// Sends a request and one behind it that is always answered. `true`: that came; `false`: the connection was closed.
fn goes_on(stream: &mut TcpStream, frame: &[u8]) -> io::Result<bool> {
    let sent =
        stream.write_all(&[framed(frame), framed(&[&API_VERSIONS_0[..4], &[9; 4], NO_CLIENT_ID].concat())].concat());
    loop {
        let mut prefix = [0; 4];
        match stream.read_exact(&mut prefix) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        sent.as_ref().expect("what is answered was sent");
        let mut answer = vec![0; u32::from_be_bytes(prefix) as usize];
        stream.read_exact(&mut answer)?;
        if answer.starts_with(&[9; 4]) {
            return Ok(true);
        }
    }
}

#[test]
fn every_request_with_counts_that_can_not_be_or_cut_at_any_byte_is_answered_or_closes_its_connection() {
    // What is refused must not be followed by what is created: nobody looks at these topics.
    let mut bench = Bench::start(&["auto.create.topics.enable=false"]);
    bench.assert_serves();
    let (resident, start) = (bench.memory("VmRSS:"), Instant::now());
    let (mut refused, mut sent, mut stream) = (bench.refused(), 0_u64, bench.connect());
    let bodies = bodies();
    for range in SERVED {
        let versions = bodies.iter().filter(|body| body.key == range.api_key).map(|body| body.version);
        assert_eq!(versions.max(), Some(range.highest_version), "{} has bodies in all versions", range.api_key);
    }
    for body in bodies {
        let (header, mut answered) = (body.header(), 0);
        for damaged in damaged(&body) {
            let frame = [&header[..], &damaged].concat();
            let going_on = goes_on(&mut stream, &frame)
                .unwrap_or_else(|error| panic!("{} v{}: {error}: {frame:02x?}", body.key, body.version));
            sent += 1;
            answered += u64::from(going_on);
            if !going_on {
                refused += 1;
                stream = bench.connect();
            }
        }
        assert!(answered > 0, "{} v{} whole is answered", body.key, body.version);
        bench.assert_serves();
    }
    assert!(sent > 10_000 && refused > 1000, "{sent} sent, {refused} refused");
    bench.wait_for_refused(refused, "all of them");
    assert_quiet_and_small(&bench, resident, start);
    bench.server.stop();
}

/// Sound requests of every version that reach a partition, with a batch where they carry one.
fn bodies_of_a_partition(topic: &str, topic_id: TopicId) -> Vec<Body> {
    let mut batch = BatchBuilder::new(Codec::None);
    (0..2).for_each(|at| batch.push(at, Some(b"key"), Some(b"value"), &[(b"header", Some(b"value"))]));
    let batch = batch.build();
    let name = topic.to_owned();
    let partitions = vec![FetchPartition { partition_max_bytes: 1 << 20, ..Default::default() }];
    let topics = vec![FetchTopic { topic: topic.into(), topic_id, partitions }];
    let fetch = FetchRequest { min_bytes: 1, max_bytes: 1 << 20, topics, ..Default::default() };
    let partitions = vec![ListOffsetsPartition { timestamp: 1, ..Default::default() }];
    let topics = vec![ListOffsetsTopic { name: name.clone(), partitions }];
    let list_offsets = ListOffsetsRequest { replica_id: -1, topics, ..Default::default() };
    let partitions = vec![OffsetForLeaderPartition { current_leader_epoch: -1, ..Default::default() }];
    let topics = vec![OffsetForLeaderTopic { topic: name.clone(), partitions }];
    let epochs = OffsetForLeaderEpochRequest { topics, ..Default::default() };
    let topics = vec![MetadataRequestTopic { name: Some(name), ..Default::default() }];
    let metadata = MetadataRequest { topics: Some(topics), ..Default::default() };
    let produce_topics: &[(&str, &[(i32, Option<&[u8]>)])] = &[(topic, &[(0, Some(&batch)), (1, Some(&batch))])];
    let produce = ProduceRequestToSend { transactional_id: None, acks: -1, timeout_ms: 1000, topics: produce_topics };
    let mut bodies = Vec::new();
    let mut add = |key: ApiKey, encode: &dyn Fn(&mut Writer, i16) -> Result<(), WireError>| {
        for version in key.versions() {
            let mut writer = Writer::new();
            encode(&mut writer, version).unwrap_or_else(|error| panic!("{key} v{version}: {error}"));
            bodies.push(Body { key, version, bytes: writer.into_bytes().to_vec() });
        }
    };
    add(ApiKey::Produce, &|writer, version| produce.encode(writer, version));
    add(ApiKey::Fetch, &|writer, version| fetch.encode(writer, version));
    add(ApiKey::ListOffsets, &|writer, version| list_offsets.encode(writer, version));
    add(ApiKey::OffsetForLeaderEpoch, &|writer, version| epochs.encode(writer, version));
    add(ApiKey::Metadata, &|writer, version| metadata.encode(writer, version));
    bodies
}

#[test]
fn a_partition_outlives_damaged_requests_that_reach_it() {
    let mut bench = Bench::start(&["auto.create.topics.enable=false"]);
    assert_eq!(bench.witness.create_topic("reached", 2), 0);
    let topic_id = bench.witness.metadata("reached").topics[0].topic_id;
    let (resident, start) = (bench.memory("VmRSS:"), Instant::now());
    for body in bodies_of_a_partition("reached", topic_id) {
        let header = body.header();
        for damaged in damaged(&body) {
            let frame = [&header[..], &damaged].concat();
            let mut stream = bench.connect();
            // Fails if the broker has closed already, which the reading below finds.
            let _ = stream.write_all(&framed(&frame));
            // A fetch may be asked to wait for days, but not by a client that sends no more.
            let _ = stream.shutdown(Shutdown::Write);
            if let Err(error) = read_to_end(&mut stream) {
                panic!("{} v{}: {error}: {frame:02x?}", body.key, body.version);
            }
        }
        bench.assert_serves();
    }
    for partition in 0..2 {
        let records = bench.witness.read_all("reached", partition);
        assert!(records.len() > 10, "{} records", records.len());
        assert!(records.iter().all(|record| record.value.as_deref() == Some(b"value")), "nothing damaged is kept");
    }
    assert_quiet_and_small(&bench, resident, start);
    bench.server.stop();
}
