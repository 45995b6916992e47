//! Fetch as frames: sessions, topic ids, epochs, old formats, limits, and who waits.

use std::time::{Duration, Instant};

use ringlog::base::ids::TopicId;
use ringlog::protocol::header::decode_response_header;
use ringlog::protocol::message::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest, CreateTopicsResponse, FetchPartition, FetchRequest,
    FetchResponse, FetchTopic, ForgottenTopic, PartitionData, ReplicaState,
};
use ringlog::protocol::{ApiKey, ErrorCode, Reader};
use ringlog::record::batch::{BatchBuilder, TimestampType, batches};
use ringlog::record::compression::Codec;
use ringlog::record::message_set::{SetRules, convert_to_v2};

use crate::server::{DEADLINE, Server, directory};
use crate::wire::Wire;

const PRODUCE_VERSION: i16 = 9;
/// The last version that names topics.
const NAMES: i16 = 12;
/// The first that has topic ids.
const IDS: i16 = 13;
const LATEST: i16 = 17;

/// An answer, and the bytes that its records lie in.
struct Fetched {
    response: FetchResponse,
    body: Vec<u8>,
}

impl Fetched {
    fn partitions(&self) -> Vec<&PartitionData> {
        self.response.responses.iter().flat_map(|topic| &topic.partitions).collect()
    }

    fn indexes(&self) -> Vec<i32> {
        self.partitions().iter().map(|partition| partition.partition_index).collect()
    }

    fn codes(&self) -> Vec<i16> {
        self.partitions().iter().map(|partition| partition.error_code).collect()
    }

    fn records(&self, place: usize) -> &[u8] {
        self.partitions()[place].records.map_or(&[], |span| &self.body[span.range()])
    }

    /// The offsets behind the whole batches of each partition.
    fn ends(&self) -> Vec<Option<i64>> {
        let end = |place| batches(self.records(place)).map_while(Result::ok).last();
        (0..self.partitions().len()).map(|place| end(place).map(|(header, _)| header.last_offset() + 1)).collect()
    }
}

fn send_fetch(wire: &mut Wire, version: i16, request: &FetchRequest) {
    wire.send(ApiKey::Fetch, version, |writer| request.encode(writer, version)).expect("sent");
}

fn receive_fetch(wire: &mut Wire, version: i16) -> Fetched {
    let frame = wire.receive().expect("an answer");
    let mut reader = Reader::new(&frame);
    decode_response_header(&mut reader, ApiKey::Fetch, version).expect("a header");
    let body = frame[reader.position()..].to_vec();
    let mut reader = Reader::new(&body);
    let response = FetchResponse::decode(&mut reader, version).expect("a body");
    assert_eq!(reader.remaining(), 0);
    Fetched { response, body }
}

fn fetch(wire: &mut Wire, version: i16, request: &FetchRequest) -> Fetched {
    send_fetch(wire, version, request);
    receive_fetch(wire, version)
}

fn partition(partition: i32, fetch_offset: i64) -> FetchPartition {
    FetchPartition { partition, fetch_offset, partition_max_bytes: 1 << 20, ..Default::default() }
}

fn topic(name: &str, partitions: Vec<FetchPartition>) -> FetchTopic {
    FetchTopic { topic: name.into(), partitions, ..Default::default() }
}

fn request(topics: Vec<FetchTopic>) -> FetchRequest {
    FetchRequest { topics, max_bytes: 50 << 20, replica_id: -1, ..Default::default() }
}

fn in_session(id: i32, epoch: i32, topics: Vec<FetchTopic>) -> FetchRequest {
    FetchRequest { session_id: id, session_epoch: epoch, ..request(topics) }
}

fn append(wire: &mut Wire, topic: &str, partition: i32, codec: Codec, values: &[&[u8]]) {
    let mut builder = BatchBuilder::new(codec);
    for (at, value) in values.iter().enumerate() {
        builder.push(1_700_000_000_000 + at as i64, Some(b"key"), Some(value), &[(b"header", None)]);
    }
    assert_eq!(wire.produce(PRODUCE_VERSION, topic, partition, &builder.build()).error_code, 0);
}

fn start(settings: &[&str], topic: &str, partitions: i32) -> (tempfile::TempDir, Server, Wire) {
    let directory = directory();
    let server = Server::start_with(directory.path(), settings);
    let mut wire = Wire::connect(server.address);
    assert_eq!(wire.create_topic(topic, partitions), 0);
    (directory, server, wire)
}

#[test]
fn a_session_is_made_answers_what_changed_forgets_and_ends() {
    let (_directory, _server, mut wire) = start(&[], "sessions", 4);
    let all = || vec![topic("sessions", (0..4).map(|index| partition(index, 0)).collect())];
    let made = fetch(&mut wire, NAMES, &in_session(0, 0, all()));
    let id = made.response.session_id;
    assert!(id > 0);
    assert_eq!((made.indexes(), made.codes()), (vec![0, 1, 2, 3], vec![0; 4]));

    let nothing = fetch(&mut wire, NAMES, &in_session(id, 1, vec![]));
    assert_eq!((nothing.response.session_id, nothing.indexes()), (id, vec![]));

    append(&mut wire, "sessions", 1, Codec::None, &[b"one"]);
    append(&mut wire, "sessions", 3, Codec::None, &[b"three"]);
    let changed = fetch(&mut wire, NAMES, &in_session(id, 2, vec![]));
    assert_eq!((changed.indexes(), changed.ends()), (vec![1, 3], vec![Some(1), Some(1)]));

    // Those that gave records come last now; what is not fetched past is given again.
    let moved = fetch(&mut wire, NAMES, &in_session(id, 3, vec![topic("sessions", vec![partition(1, 1)])]));
    assert_eq!(moved.indexes(), [3]);
    append(&mut wire, "sessions", 0, Codec::None, &[b"zero"]);
    append(&mut wire, "sessions", 1, Codec::None, &[b"one"]);
    let ordered = fetch(&mut wire, NAMES, &in_session(id, 4, vec![]));
    assert_eq!(ordered.indexes(), [0, 1, 3]);

    let forgotten_topics_data =
        vec![ForgottenTopic { topic: "sessions".into(), partitions: vec![0, 3], ..Default::default() }];
    let forgetting = FetchRequest { forgotten_topics_data, ..in_session(id, 5, vec![]) };
    assert_eq!(fetch(&mut wire, NAMES, &forgetting).indexes(), [1]);

    // An error is told each time, and what follows it is news.
    let wrong = FetchPartition { current_leader_epoch: 7, ..partition(2, 0) };
    let answer = fetch(&mut wire, NAMES, &in_session(id, 6, vec![topic("sessions", vec![wrong, partition(1, 2)])]));
    assert_eq!((answer.indexes(), answer.codes()), (vec![2], vec![ErrorCode::UnknownLeaderEpoch.code()]));
    let answer = fetch(&mut wire, NAMES, &in_session(id, 7, vec![topic("sessions", vec![partition(2, 0)])]));
    assert_eq!((answer.indexes(), answer.codes()), (vec![2], vec![0]));

    let codes = |answer: Fetched| (answer.response.error_code, answer.response.session_id);
    assert_eq!(
        codes(fetch(&mut wire, NAMES, &in_session(id, 7, vec![]))),
        (ErrorCode::InvalidFetchSessionEpoch.code(), 0)
    );
    assert_eq!(
        codes(fetch(&mut wire, IDS, &in_session(id, 8, vec![]))),
        (ErrorCode::FetchSessionTopicIdError.code(), 0)
    );
    let forgotten_topics_data =
        vec![ForgottenTopic { topic: "sessions".into(), partitions: vec![1, 2], ..Default::default() }];
    let emptied = FetchRequest { forgotten_topics_data, ..in_session(id, 8, vec![]) };
    assert_eq!(codes(fetch(&mut wire, NAMES, &emptied)), (0, 0));
    assert_eq!(
        codes(fetch(&mut wire, NAMES, &in_session(id, 9, vec![]))),
        (ErrorCode::FetchSessionIdNotFound.code(), 0)
    );

    let id = fetch(&mut wire, NAMES, &in_session(0, 0, all())).response.session_id;
    let closed = fetch(&mut wire, NAMES, &in_session(id, -1, all()));
    assert_eq!((closed.response.session_id, closed.indexes().len()), (0, 4));
    assert_eq!(
        codes(fetch(&mut wire, NAMES, &in_session(id, 1, vec![]))),
        (ErrorCode::FetchSessionIdNotFound.code(), 0)
    );
}

#[test]
fn without_slots_no_session_is_made() {
    let (_directory, _server, mut wire) = start(&["max.incremental.fetch.session.cache.slots=0"], "sessions", 1);
    let answer = fetch(&mut wire, NAMES, &in_session(0, 0, vec![topic("sessions", vec![partition(0, 0)])]));
    assert_eq!((answer.response.session_id, answer.codes()), (0, vec![0]));
}

#[test]
fn topics_are_fetched_by_id_and_a_topic_made_anew_is_not_the_one_that_was_meant() {
    let (_directory, _server, mut wire) = start(&[], "by-id", 1);
    let id = wire.metadata("by-id").topics[0].topic_id;
    append(&mut wire, "by-id", 0, Codec::None, &[b"value"]);
    let by_id = |topic_id: TopicId| {
        vec![FetchTopic { topic_id, partitions: vec![partition(0, 0), partition(5, 0)], ..Default::default() }]
    };
    for version in IDS..=LATEST {
        let answer = fetch(&mut wire, version, &request(by_id(id)));
        assert_eq!(answer.codes(), [0, ErrorCode::UnknownTopicOrPartition.code()], "v{version}");
        assert_eq!((answer.response.responses[0].topic_id, answer.ends()[0]), (id, Some(1)), "v{version}");
        let answer = fetch(&mut wire, version, &request(by_id(TopicId([9; 16]))));
        assert_eq!(answer.codes(), [ErrorCode::UnknownTopicId.code(); 2], "v{version}");
    }
    let session = fetch(
        &mut wire,
        LATEST,
        &in_session(0, 0, vec![FetchTopic { topic_id: id, partitions: vec![partition(0, 1)], ..Default::default() }]),
    )
    .response
    .session_id;
    delete_topic(&mut wire, "by-id");
    let answer = fetch(&mut wire, LATEST, &in_session(session, 1, vec![]));
    assert_eq!(answer.codes(), [ErrorCode::UnknownTopicOrPartition.code()]);
    assert_eq!(wire.create_topic("by-id", 1), 0);
    let answer = fetch(&mut wire, LATEST, &in_session(session, 2, vec![]));
    assert_eq!(answer.codes(), [ErrorCode::InconsistentTopicId.code()]);
}

fn delete_topic(wire: &mut Wire, name: &str) {
    use ringlog::protocol::message::{DeleteTopicsRequest, DeleteTopicsResponse};
    let request = DeleteTopicsRequest { topic_names: vec![name.to_owned()], timeout_ms: 30_000, ..Default::default() };
    let response = crate::wire::ask!(wire, 5, request, DeleteTopicsResponse);
    assert_eq!(response.responses[0].error_code, 0);
}

#[test]
fn a_log_that_parts_from_the_leaders_is_told_where_and_a_wrong_epoch_where_the_leader_is() {
    let (directory, server, mut wire) = start(&[], "epochs", 1);
    append(&mut wire, "epochs", 0, Codec::None, &[b"a", b"b", b"c"]);
    server.stop();
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    append(&mut wire, "epochs", 0, Codec::None, &[b"d"]);
    let metadata = wire.metadata("epochs");
    let reign = metadata.topics[0].partitions[0].leader_epoch;
    let with_epoch = |fetch_offset, last_fetched_epoch| {
        request(vec![topic("epochs", vec![FetchPartition { last_fetched_epoch, ..partition(0, fetch_offset) }])])
    };
    let mut said = |fetch_offset, epoch| {
        let answer = fetch(&mut wire, NAMES, &with_epoch(fetch_offset, epoch));
        let PartitionData { error_code, diverging_epoch, .. } = answer.partitions()[0].clone();
        (error_code, (diverging_epoch.epoch, diverging_epoch.end_offset), !answer.records(0).is_empty())
    };
    assert_eq!(said(3, 0), (0, (-1, -1), true));
    assert_eq!(said(4, reign), (0, (-1, -1), false));
    assert_eq!(said(4, 0), (0, (0, 3), false), "epoch 0 ended at 3");
    assert_eq!(said(2, reign + 1), (ErrorCode::OffsetOutOfRange.code(), (-1, -1), false));
    assert_eq!(said(9, 0), (0, (0, 3), false), "an end before the offset is told before the offset is looked at");

    let id = metadata.topics[0].topic_id;
    for version in [NAMES, 15, 16, LATEST] {
        let fenced = FetchPartition { current_leader_epoch: reign - 1, ..partition(0, 0) };
        let topics = vec![FetchTopic { topic: "epochs".into(), topic_id: id, partitions: vec![fenced] }];
        let answer = fetch(&mut wire, version, &request(topics));
        assert_eq!(answer.codes(), [ErrorCode::FencedLeaderEpoch.code()]);
        let leader = &answer.partitions()[0].current_leader;
        let named: Vec<i32> = answer.response.node_endpoints.iter().map(|node| node.port).collect();
        if version >= 16 {
            assert_eq!((leader.leader_id, leader.leader_epoch), (metadata.brokers[0].node_id, reign));
            assert_eq!(named, [i32::from(server.address.port())]);
        } else {
            assert_eq!((leader.leader_id, leader.leader_epoch, named), (-1, -1, vec![]));
        }
    }
}

#[test]
fn a_follower_that_nobody_knows_is_refused_as_kafka_refuses_it() {
    let (_directory, _server, mut wire) = start(&[], "followed", 1);
    let id = wire.metadata("followed").topics[0].topic_id;
    for version in [0, 4, 11, NAMES, IDS, 15, LATEST] {
        for (leader_epoch, code) in [(-1, ErrorCode::NotLeaderOrFollower), (0, ErrorCode::UnknownLeaderEpoch)] {
            if leader_epoch >= 0 && version < 9 {
                continue;
            }
            let asked = FetchPartition { current_leader_epoch: leader_epoch, ..partition(0, 0) };
            let topics = vec![FetchTopic { topic: "followed".into(), topic_id: id, partitions: vec![asked] }];
            let mut request = FetchRequest { max_wait_ms: 60_000, min_bytes: 1, ..request(topics) };
            match version {
                15.. => request.replica_state = ReplicaState { replica_id: 5, replica_epoch: 1 },
                _ => request.replica_id = 5,
            }
            assert_eq!(fetch(&mut wire, version, &request).codes(), [code.code()], "v{version} {leader_epoch}");
        }
    }
}

#[test]
fn old_fetches_get_records_in_their_format_in_every_codec_but_zstd() {
    let (_directory, _server, mut wire) = start(&[], "old", 1);
    let codecs = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4];
    for codec in codecs {
        append(&mut wire, "old", 0, codec, &[b"first value", b"second value"]);
    }
    append(&mut wire, "old", 0, Codec::Zstd, &[b"not for the old"]);
    for version in 0..=3 {
        let magic = if version < 2 { 0 } else { 1 };
        let rules = SetRules {
            message_bytes_max: 1 << 20,
            decompressed_bytes_max: 1 << 20,
            timestamp_type: TimestampType::CreateTime,
        };
        let (mut next, mut values) = (0, Vec::new());
        while next < 8 {
            let answer = fetch(&mut wire, version, &request(vec![topic("old", vec![partition(0, next)])]));
            assert_eq!((answer.codes(), answer.partitions()[0].high_watermark), (vec![0], 9), "v{version}");
            let mut set = answer.records(0);
            assert!(!set.is_empty(), "v{version} at {next}");
            // Message by message: a wrapper stands alone in what this reader takes.
            while !set.is_empty() {
                let length = 12 + i32::from_be_bytes(set[8..12].try_into().expect("four")) as usize;
                let (message, rest) = set.split_at(length);
                assert_eq!(message[16], magic);
                let offset = i64::from_be_bytes(message[..8].try_into().expect("eight"));
                let (batch, _) = convert_to_v2(message, &rules).expect("a sound message").expect("a whole one");
                for record in ringlog::record::batch::decode_records(&batch, 1 << 20).expect("records") {
                    let timestamp = if magic == 0 { -1 } else { 1_700_000_000_000 + values.len() as i64 % 2 };
                    assert_eq!((record.timestamp, record.headers.len()), (timestamp, 0));
                    values.push(record.value.expect("a value").to_vec());
                }
                next = offset + 1;
                set = rest;
            }
        }
        let pairs = [b"first value".to_vec(), b"second value".to_vec()];
        assert_eq!(values, [&pairs[..]; 4].concat(), "v{version}");
        let answer = fetch(&mut wire, version, &request(vec![topic("old", vec![partition(0, 8)])]));
        assert_eq!(answer.codes(), [ErrorCode::UnsupportedCompressionType.code()], "v{version}");
        let from_the_middle = fetch(&mut wire, version, &request(vec![topic("old", vec![partition(0, 1)])]));
        assert_eq!(from_the_middle.records(0)[..8], 1i64.to_be_bytes(), "v{version}");
    }
    assert_eq!(fetch(&mut wire, 4, &request(vec![topic("old", vec![partition(0, 8)])])).ends(), [Some(9)]);
}

#[test]
fn the_first_three_versions_keep_a_partitions_limit_and_the_fourth_gives_a_whole_batch() {
    let (_directory, _server, mut wire) = start(&[], "limited", 2);
    for index in 0..2 {
        append(&mut wire, "limited", index, Codec::None, &[&[7; 1000]]);
    }
    let small = |index| FetchPartition { partition_max_bytes: 500, ..partition(index, 0) };
    for version in 0..=LATEST {
        let id = wire.metadata("limited").topics[0].topic_id;
        let topics = vec![FetchTopic { topic: "limited".into(), topic_id: id, partitions: vec![small(0), small(1)] }];
        let answer = fetch(&mut wire, version, &request(topics));
        let lengths: Vec<bool> = (0..2).map(|place| answer.records(place).len() > 1000).collect();
        assert_eq!(lengths, [version >= 3, false], "v{version}");
        assert_eq!(answer.codes(), [0, 0], "v{version}");
    }
}

#[test]
fn a_batch_larger_than_what_is_converted_at_once_comes_whole_to_whoever_has_room_for_it() {
    let (_directory, _server, mut wire) = start(&["message.max.bytes=4000000"], "large", 1);
    append(&mut wire, "large", 0, Codec::None, &[&vec![7; 3 << 20]]);
    for version in 0..=3 {
        let asked = FetchPartition { partition_max_bytes: 4 << 20, ..partition(0, 0) };
        let answer = fetch(&mut wire, version, &request(vec![topic("large", vec![asked])]));
        assert_eq!((answer.codes(), answer.records(0).len() > 3 << 20), (vec![0], true), "v{version}");
    }
}

#[test]
fn topics_refuse_old_fetches_if_they_are_set_so() {
    let (_directory, _server, mut wire) = start(&[], "plain", 1);
    let create = |wire: &mut Wire, name: &str, config: &str, value: &str| {
        let configs = vec![CreatableTopicConfig { name: config.to_owned(), value: Some(value.to_owned()) }];
        let topic = CreatableTopic {
            name: name.to_owned(),
            num_partitions: 1,
            replication_factor: 1,
            configs,
            ..Default::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() };
        assert_eq!(crate::wire::ask!(wire, 4, request, CreateTopicsResponse).topics[0].error_code, 0);
    };
    create(&mut wire, "unconverted", "message.downconversion.enable", "false");
    create(&mut wire, "zstd", "compression.type", "zstd");
    for version in 0..=NAMES {
        let topics = ["plain", "unconverted", "zstd"].map(|name| topic(name, vec![partition(0, 0)]));
        let unconverted = if version < 4 { ErrorCode::UnsupportedVersion } else { ErrorCode::None };
        let zstd = if version < 10 { ErrorCode::UnsupportedCompressionType } else { ErrorCode::None };
        let answer = fetch(&mut wire, version, &request(topics.to_vec()));
        assert_eq!(answer.codes(), [0, unconverted.code(), zstd.code()], "v{version}");
    }
}

#[test]
fn bytes_of_many_partitions_on_two_shards_add_up_to_what_a_fetch_waits_for() {
    let (_directory, server, mut wire) = start(&[], "waited", 8);
    let mut producer = Wire::connect(server.address);
    let all = || topic("waited", (0..8).map(|index| partition(index, 0)).collect());
    append(&mut producer, "waited", 0, Codec::None, &[&[1; 900]]);
    let one = producer.fetch("waited", 0, 0, 1 << 20).1.len() as i32;
    let waiting = FetchRequest { max_wait_ms: 250_000, min_bytes: one * 8, ..request(vec![all()]) };
    let began = Instant::now();
    send_fetch(&mut wire, NAMES, &waiting);
    for index in 1..8 {
        append(&mut producer, "waited", index, Codec::None, &[&[1; 900]]);
    }
    let answer = receive_fetch(&mut wire, NAMES);
    assert!(began.elapsed() < DEADLINE);
    assert_eq!(answer.ends(), [Some(1); 8]);
    // There is enough now, on no shard alone.
    let answer = fetch(&mut wire, NAMES, &waiting);
    assert_eq!(answer.ends(), [Some(1); 8]);
    // With less than it asks for it waits out its time, and gives what there is.
    let short = FetchRequest { max_wait_ms: 300, min_bytes: one * 9, ..request(vec![all()]) };
    let began = Instant::now();
    assert_eq!(fetch(&mut wire, NAMES, &short).ends(), [Some(1); 8]);
    assert!(began.elapsed() >= Duration::from_millis(300));
}

#[test]
fn a_fetch_behind_a_full_segment_gives_it_without_waiting_for_more() {
    let (_directory, _server, mut wire) = start(&["log.segment.bytes=2000"], "rolled", 1);
    for _ in 0..2 {
        append(&mut wire, "rolled", 0, Codec::None, &[&[1; 1500]]);
    }
    let waiting = FetchRequest {
        max_wait_ms: 250_000,
        min_bytes: 1 << 20,
        ..request(vec![topic("rolled", vec![partition(0, 0)])])
    };
    assert_eq!(fetch(&mut wire, NAMES, &waiting).ends(), [Some(1)]);
}
