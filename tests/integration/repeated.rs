//! A valid element, repeated as often as a request can: every API answers within a bound of memory and of time, and others
//! are served. An answer that is more than a list of refusals names each element once.

use ringlog::base::ids::TopicId;
use ringlog::handlers::api::SERVED;
use ringlog::protocol::message::alter_configs::{AlterConfigsRequest, AlterConfigsResource, AlterableConfig};
use ringlog::protocol::message::create_partitions::{
    CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsTopic,
};
use ringlog::protocol::message::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use ringlog::protocol::message::delete_records::{DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic};
use ringlog::protocol::message::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use ringlog::protocol::message::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use ringlog::protocol::message::describe_log_dirs::{DescribableLogDirTopic, DescribeLogDirsRequest};
use ringlog::protocol::message::describe_producers::{DescribeProducersRequest, TopicRequest};
use ringlog::protocol::message::fetch::{FetchPartition, FetchRequest, FetchTopic, ForgottenTopic};
use ringlog::protocol::message::find_coordinator::FindCoordinatorRequest;
use ringlog::protocol::message::incremental_alter_configs::{
    AlterConfigsResource as IncrementalResource, AlterableConfig as IncrementalConfig, IncrementalAlterConfigsRequest,
};
use ringlog::protocol::message::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use ringlog::protocol::message::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponse};
use ringlog::protocol::message::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use ringlog::protocol::message::produce::{PartitionToSend, ProduceRequestToSend};
use ringlog::protocol::{ApiKey, ErrorCode, WireError, Writer};
use ringlog::record::batch::BatchBuilder;
use ringlog::record::compression::Codec;

use crate::bad_input::Bench;
use crate::wire::{Wire, ask};

/// As many as an array may have, less what the largest elements leave room for.
const TIMES: usize = 1_000_000;
const TIMES_OF_LARGE: usize = 500_000;

/// What a request may take above what there was: its frame, its decoded form and what is made of it.
const MEMORY_MAX: u64 = 640 << 20;

/// What a repeated element is answered with, however often it came: with settings the longest, of one resource.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// The same where each is refused because it is repeated, as Kafka does: some words for each.
const REFUSALS_BYTES_MAX: usize = 100 * TIMES;
const REFUSED: [ApiKey; 4] =
    [ApiKey::ListOffsets, ApiKey::CreateTopics, ApiKey::AlterConfigs, ApiKey::IncrementalAlterConfigs];

const TOPIC: &str = "repeated";
/// One that is to be created: too many replicas, so it never is.
const MISSING: &str = "missing";
const TOPIC_RESOURCE: i8 = 2;

type Encode = Box<dyn FnOnce(&mut Writer) -> Result<(), WireError>>;

/// A request with an element that is repeated.
struct Row {
    key: ApiKey,
    name: &'static str,
    version: i16,
    encode: Encode,
}

macro_rules! row {
    ($key:ident, $name:literal, $version:literal, $request:expr) => {
        Row {
            key: ApiKey::$key,
            name: $name,
            version: $version,
            encode: Box::new(move |writer| $request.encode(writer, $version)),
        }
    };
}

/// APIs whose requests have no lists.
const WITHOUT_LISTS: [ApiKey; 5] = [
    ApiKey::ApiVersions,
    ApiKey::InitProducerId,
    ApiKey::DescribeCluster,
    ApiKey::SaslHandshake,
    ApiKey::SaslAuthenticate,
];

fn topic() -> String {
    TOPIC.to_owned()
}

fn settings_of_topics() -> [Row; 8] {
    let config = || AlterableConfig { name: "retention.ms".to_owned(), value: Some("1".to_owned()) };
    let resource = |configs| AlterConfigsResource { resource_type: TOPIC_RESOURCE, resource_name: topic(), configs };
    let changed =
        || IncrementalConfig { name: "retention.ms".to_owned(), config_operation: 0, value: Some("1".to_owned()) };
    let incremental = |configs| IncrementalResource { resource_type: TOPIC_RESOURCE, resource_name: topic(), configs };
    let described = |keys| DescribeConfigsResource {
        resource_type: TOPIC_RESOURCE,
        resource_name: topic(),
        configuration_keys: keys,
    };
    let key = || "retention.ms".to_owned();
    [
        row!(
            AlterConfigs,
            "resources",
            2,
            AlterConfigsRequest { resources: vec![resource(vec![config()]); TIMES_OF_LARGE], validate_only: true }
        ),
        row!(
            AlterConfigs,
            "settings",
            2,
            AlterConfigsRequest { resources: vec![resource(vec![config(); TIMES])], validate_only: true }
        ),
        row!(
            IncrementalAlterConfigs,
            "resources",
            1,
            IncrementalAlterConfigsRequest {
                resources: vec![incremental(vec![changed()]); TIMES_OF_LARGE],
                validate_only: true,
            }
        ),
        row!(
            IncrementalAlterConfigs,
            "settings",
            1,
            IncrementalAlterConfigsRequest {
                resources: vec![incremental(vec![changed(); TIMES])],
                validate_only: true
            }
        ),
        row!(
            DescribeConfigs,
            "resources",
            4,
            DescribeConfigsRequest { resources: vec![described(None); TIMES], ..Default::default() }
        ),
        row!(
            DescribeConfigs,
            "resources of an unknown type",
            4,
            DescribeConfigsRequest {
                resources: vec![DescribeConfigsResource { resource_type: 77, ..described(None) }; TIMES],
                ..Default::default()
            }
        ),
        row!(
            DescribeConfigs,
            "a resource's keys",
            4,
            DescribeConfigsRequest { resources: vec![described(Some(vec![key(); TIMES]))], ..Default::default() }
        ),
        row!(
            DescribeConfigs,
            "a topic that is not there",
            1,
            DescribeConfigsRequest {
                resources: vec![
                    DescribeConfigsResource { resource_name: MISSING.to_owned(), ..described(None) };
                    TIMES
                ],
                ..Default::default()
            }
        ),
    ]
}

fn topics_to_change() -> [Row; 9] {
    let new =
        || CreatableTopic { name: MISSING.to_owned(), num_partitions: 1, replication_factor: 1, ..Default::default() };
    let assignment = || CreatableReplicaAssignment { partition_index: 0, broker_ids: vec![0] };
    let setting = || CreatableTopicConfig { name: "retention.ms".to_owned(), value: Some("-7".to_owned()) };
    let created = |topics| CreateTopicsRequest { topics, timeout_ms: 60_000, validate_only: true };
    let more = |count| CreatePartitionsTopic { name: topic(), count, assignments: None };
    let placed = || CreatePartitionsAssignment { broker_ids: vec![0] };
    [
        row!(CreateTopics, "topics", 7, created(vec![new(); TIMES])),
        row!(
            CreateTopics,
            "assignments",
            7,
            created(vec![CreatableTopic { assignments: vec![assignment(); TIMES], ..new() }])
        ),
        row!(CreateTopics, "settings", 7, created(vec![CreatableTopic { configs: vec![setting(); TIMES], ..new() }])),
        row!(
            DeleteTopics,
            "names",
            5,
            DeleteTopicsRequest { topic_names: vec![MISSING.to_owned(); TIMES], ..Default::default() }
        ),
        row!(
            DeleteTopics,
            "ids",
            6,
            DeleteTopicsRequest {
                topics: vec![DeleteTopicState { name: None, topic_id: TopicId([7; 16]) }; TIMES],
                ..Default::default()
            }
        ),
        row!(
            CreatePartitions,
            "topics",
            3,
            CreatePartitionsRequest { topics: vec![more(1); TIMES], timeout_ms: 60_000, validate_only: true }
        ),
        row!(
            CreatePartitions,
            "assignments",
            3,
            CreatePartitionsRequest {
                topics: vec![CreatePartitionsTopic { assignments: Some(vec![placed(); TIMES]), ..more(4) }],
                timeout_ms: 60_000,
                validate_only: true,
            }
        ),
        row!(
            DeleteRecords,
            "partitions",
            2,
            DeleteRecordsRequest {
                topics: vec![DeleteRecordsTopic {
                    name: topic(),
                    partitions: vec![DeleteRecordsPartition { partition_index: 0, offset: 0 }; TIMES],
                }],
                timeout_ms: 60_000,
            }
        ),
        row!(
            DeleteRecords,
            "topics",
            2,
            DeleteRecordsRequest {
                topics: vec![
                    DeleteRecordsTopic {
                        name: topic(),
                        partitions: vec![DeleteRecordsPartition { partition_index: 0, offset: 0 }],
                    };
                    TIMES
                ],
                timeout_ms: 60_000,
            }
        ),
    ]
}

fn questions() -> [Row; 15] {
    let named = |name: &str| MetadataRequestTopic { topic_id: TopicId::ZERO, name: Some(name.to_owned()) };
    let metadata = |topics| MetadataRequest { topics: Some(topics), ..Default::default() };
    let by_id = || MetadataRequestTopic { topic_id: TopicId([7; 16]), name: None };
    let listed = |timestamp| ListOffsetsPartition { partition_index: 0, timestamp, ..Default::default() };
    let offsets = |partitions| ListOffsetsTopic { name: topic(), partitions };
    let epoch = || OffsetForLeaderPartition { partition: 0, current_leader_epoch: -1, leader_epoch: 0 };
    let epochs = |partitions| OffsetForLeaderTopic { topic: topic(), partitions };
    let lists = |topics| ListOffsetsRequest { replica_id: -1, topics, ..Default::default() };
    [
        row!(Metadata, "a topic", 12, metadata(vec![named(TOPIC); TIMES])),
        row!(Metadata, "a topic that can't be created", 9, metadata(vec![named(MISSING); TIMES])),
        row!(Metadata, "a name that can't be one", 9, metadata(vec![named("no/name"); TIMES])),
        row!(Metadata, "an id", 12, metadata(vec![by_id(); TIMES])),
        row!(ListOffsets, "partitions, as lists", 0, lists(vec![offsets(vec![listed(-1); TIMES])])),
        row!(ListOffsets, "partitions", 9, lists(vec![offsets(vec![listed(0); TIMES])])),
        row!(ListOffsets, "topics", 9, lists(vec![offsets(vec![listed(0)]); TIMES])),
        row!(
            OffsetForLeaderEpoch,
            "partitions",
            4,
            OffsetForLeaderEpochRequest { topics: vec![epochs(vec![epoch(); TIMES])], ..Default::default() }
        ),
        row!(
            OffsetForLeaderEpoch,
            "topics",
            4,
            OffsetForLeaderEpochRequest { topics: vec![epochs(vec![epoch()]); TIMES], ..Default::default() }
        ),
        row!(
            DescribeProducers,
            "partitions",
            0,
            DescribeProducersRequest {
                topics: vec![TopicRequest { name: topic(), partition_indexes: vec![0; TIMES] }]
            }
        ),
        row!(
            DescribeProducers,
            "topics",
            0,
            DescribeProducersRequest {
                topics: vec![TopicRequest { name: topic(), partition_indexes: vec![0] }; TIMES]
            }
        ),
        row!(
            DescribeLogDirs,
            "partitions",
            4,
            DescribeLogDirsRequest {
                topics: Some(vec![DescribableLogDirTopic { topic: topic(), partitions: vec![0; TIMES] }])
            }
        ),
        row!(
            DescribeLogDirs,
            "topics",
            4,
            DescribeLogDirsRequest {
                topics: Some(vec![DescribableLogDirTopic { topic: topic(), partitions: vec![0] }; TIMES])
            }
        ),
        row!(
            FindCoordinator,
            "keys",
            6,
            FindCoordinatorRequest { coordinator_keys: vec!["group".to_owned(); TIMES], ..Default::default() }
        ),
        row!(
            FindCoordinator,
            "empty keys",
            4,
            FindCoordinatorRequest { coordinator_keys: vec![String::new(); TIMES], ..Default::default() }
        ),
    ]
}

const PRODUCE_VERSION: i16 = 11;

fn produce(name: &'static str, encode: impl FnOnce(&mut Writer) -> Result<(), WireError> + 'static) -> Row {
    Row { key: ApiKey::Produce, name, version: PRODUCE_VERSION, encode: Box::new(encode) }
}

fn produced(topics: &[(&str, &[PartitionToSend<'_>])], writer: &mut Writer) -> Result<(), WireError> {
    let request = ProduceRequestToSend { transactional_id: None, acks: 1, timeout_ms: 60_000, topics };
    request.encode(writer, PRODUCE_VERSION)
}

fn records() -> [Row; 7] {
    let wanted = || FetchPartition { partition: 0, partition_max_bytes: 1 << 20, ..Default::default() };
    let fetch = |topics| FetchRequest { max_wait_ms: 0, topics, ..Default::default() };
    let of = |partitions| FetchTopic { topic: TOPIC.into(), partitions, ..Default::default() };
    let batch = {
        let mut builder = BatchBuilder::new(Codec::None);
        builder.push(1, None, Some(b"v"), &[]);
        builder.build()
    };
    [
        row!(Fetch, "partitions", 12, fetch(vec![of(vec![wanted(); TIMES])])),
        row!(Fetch, "topics", 12, fetch(vec![of(vec![wanted()]); TIMES])),
        row!(Fetch, "partitions in the first format", 0, fetch(vec![of(vec![wanted(); TIMES])])),
        row!(
            Fetch,
            "what a session that is not there forgets",
            12,
            FetchRequest {
                session_id: 5,
                session_epoch: 5,
                forgotten_topics_data: vec![ForgottenTopic {
                    topic: TOPIC.into(),
                    partitions: vec![0; TIMES],
                    ..Default::default()
                }],
                ..fetch(Vec::new())
            }
        ),
        produce("partitions with a batch", move |writer| {
            let partitions: Vec<PartitionToSend> = vec![(0, Some(&batch[..])); TIMES_OF_LARGE];
            produced(&[(TOPIC, &partitions)], writer)
        }),
        produce("partitions without one", |writer| {
            let partitions: Vec<PartitionToSend> = vec![(0, None); TIMES];
            produced(&[(TOPIC, &partitions)], writer)
        }),
        produce("topics", |writer| {
            let partitions: [PartitionToSend; 1] = [(0, None)];
            produced(&vec![(TOPIC, &partitions[..]); TIMES], writer)
        }),
    ]
}

#[test]
fn one_valid_element_a_million_times_takes_bounded_time_and_memory_in_every_api() {
    let mut bench = Bench::start(&["default.replication.factor=2", "offsets.topic.replication.factor=1"]);
    let mut wire = Wire::connect(bench.server.address);
    assert_eq!(wire.create_topic(TOPIC, 100), 0);
    wire.wait_for_topic(TOPIC);
    let rows: Vec<Row> =
        records().into_iter().chain(questions()).chain(topics_to_change()).chain(settings_of_topics()).collect();
    for range in SERVED {
        let has_row = rows.iter().any(|row| row.key == range.api_key);
        assert!(has_row || WITHOUT_LISTS.contains(&range.api_key), "{}: what may be repeated in it?", range.api_key);
    }
    for Row { key, name, version, encode } in rows {
        bench.forget_most_memory();
        let before = bench.memory("VmRSS:");
        let answer = wire.call(key, version, encode).unwrap_or_else(|error| panic!("{key} {name}: {error}"));
        let taken = bench.memory("VmHWM:").saturating_sub(before);
        let answer_bytes_max = if REFUSED.contains(&key) { REFUSALS_BYTES_MAX } else { ANSWER_BYTES_MAX };
        assert!(answer.len() <= answer_bytes_max, "{key}, {name}: an answer of {} bytes", answer.len());
        assert!(taken <= MEMORY_MAX, "{key}, {name}: {} MiB", taken >> 20);
        bench.assert_serves();
    }
    bench.server.stop();
}

#[test]
fn what_a_partition_is_sent_twice_in_one_request_is_appended_once_and_answered_once_as_kafka_does() {
    let bench = Bench::start(&[]);
    let mut wire = Wire::connect(bench.server.address);
    assert_eq!(wire.create_topic(TOPIC, 2), 0);
    wire.wait_for_topic(TOPIC);
    let batch = |value: &[u8]| {
        let mut builder = BatchBuilder::new(Codec::None);
        builder.push(1_700_000_000_000, None, Some(value), &[]);
        builder.build()
    };
    let (first, other, last) = (batch(b"first"), batch(b"other"), batch(b"last"));
    let partitions: [PartitionToSend; 3] = [(0, Some(&first)), (1, Some(&other)), (0, Some(&last))];
    let request =
        ProduceRequestToSend { transactional_id: None, acks: 1, timeout_ms: 1000, topics: &[(TOPIC, &partitions)] };
    let sent = wire.send(ApiKey::Produce, 9, |writer| request.encode(writer, 9)).expect("sent");
    let answers = wire.receive_produced(9).expect("an answer");
    let told: Vec<(i32, i16, i64)> = answers.1.iter().map(|one| (one.index, one.error_code, one.base_offset)).collect();
    assert_eq!((answers.0, told), (sent, vec![(1, 0, 0), (0, 0, 0)]));
    let values = |records: Vec<ringlog::record::records::Record>| -> Vec<_> {
        records.into_iter().map(|record| record.value.expect("a value")).collect()
    };
    assert_eq!(values(wire.read_all(TOPIC, 0)), [&b"last"[..]]);
    assert_eq!(values(wire.read_all(TOPIC, 1)), [&b"other"[..]]);
    bench.server.stop();
}

/// Each was looked for among all others that were refused.
#[test]
fn as_many_names_as_can_not_be_created_are_told_so_in_time() {
    const NAMES: usize = 80_000;
    let mut bench = Bench::start(&["default.replication.factor=2"]);
    let mut wire = Wire::connect(bench.server.address);
    let named = |at| MetadataRequestTopic { topic_id: TopicId::ZERO, name: Some(format!("no-such-topic-{at}")) };
    let request = MetadataRequest { topics: Some((0..NAMES).map(named).collect()), ..Default::default() };
    let answer = ask!(wire, 9, request, MetadataResponse);
    assert_eq!(answer.topics.len(), NAMES);
    let code = ErrorCode::InvalidReplicationFactor.code();
    assert!(answer.topics.iter().all(|topic| topic.error_code == code), "{:?}", answer.topics.first());
    bench.assert_serves();
    bench.server.stop();
}
