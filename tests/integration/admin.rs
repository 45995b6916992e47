//! Topics, offsets, producer ids and versions, as frames and as librdkafka's admin client asks.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use ringlog::base::ids::TopicId;
use ringlog::protocol::message::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use ringlog::protocol::message::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic,
};
use ringlog::protocol::message::create_topics::{CreatableTopic, CreateTopicsRequest, CreateTopicsResponse};
use ringlog::protocol::message::delete_topics::{DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse};
use ringlog::protocol::message::describe_cluster::{DescribeClusterRequest, DescribeClusterResponse};
use ringlog::protocol::message::describe_log_dirs::{
    DescribableLogDirTopic, DescribeLogDirsRequest, DescribeLogDirsResponse,
};
use ringlog::protocol::message::find_coordinator::{FindCoordinatorRequest, FindCoordinatorResponse};
use ringlog::protocol::message::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopic,
};
use ringlog::protocol::message::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponse};
use ringlog::protocol::{ApiKey, ErrorCode, Reader};
use ringlog::record::batch::BatchBuilder;
use ringlog::record::compression::Codec;

use crate::server::{Server, data_path, directory};
use crate::wire::{Wire, ask};

const PRODUCE_VERSION: i16 = 9;

#[test]
fn a_topic_created_is_there_once_and_deleted_is_gone_with_its_files() {
    let directory = directory();
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    assert_eq!(wire.create_topic("orders", 3), ErrorCode::None as i16);
    assert_eq!(wire.create_topic("orders", 3), ErrorCode::TopicAlreadyExists as i16);
    assert_eq!(wire.create_topic("no/name", 1), ErrorCode::InvalidTopicException as i16);
    assert_eq!(wire.wait_for_topic("orders"), 3);
    assert!(data_path(directory.path()).join("orders-2").is_dir());

    let topics = vec![DeleteTopicState { name: Some("orders".to_owned()), ..Default::default() }];
    let request = DeleteTopicsRequest { topics, timeout_ms: 30_000, ..Default::default() };
    let response = ask!(wire, 6, request.clone(), DeleteTopicsResponse);
    assert_eq!(response.responses[0].error_code, ErrorCode::None as i16);
    let response = ask!(wire, 6, request, DeleteTopicsResponse);
    assert_eq!(response.responses[0].error_code, ErrorCode::UnknownTopicOrPartition as i16);
    assert!(!data_path(directory.path()).join("orders-2").exists());
    server.stop();
}

#[test]
fn a_topic_with_a_name_and_an_id_deletes_nothing_of_its_request() {
    let directory = directory();
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    let [first, second] = ["first", "second"].map(|name| {
        assert_eq!(wire.create_topic(name, 1), 0);
        wire.metadata(name).topics[0].topic_id
    });
    for id in [first, second, TopicId([9; 16])] {
        let named_twice = DeleteTopicState { name: Some("first".to_owned()), topic_id: id };
        let other = DeleteTopicState { name: Some("second".to_owned()), ..Default::default() };
        let request =
            DeleteTopicsRequest { topics: vec![other, named_twice], timeout_ms: 30_000, ..Default::default() };
        let answers = ask!(wire, 6, request, DeleteTopicsResponse).responses;
        let told: Vec<_> = answers.iter().map(|answer| (answer.name.as_deref(), answer.error_code)).collect();
        let refused = ErrorCode::InvalidRequest.code();
        assert_eq!(told, [(Some("second"), refused), (Some("first"), refused)]);
    }
    assert_eq!((wire.wait_for_topic("first"), wire.wait_for_topic("second")), (1, 1));
    assert_eq!(
        [wire.metadata("first").topics[0].topic_id, wire.metadata("second").topics[0].topic_id],
        [first, second]
    );
    server.stop();
}

#[test]
fn without_time_only_what_succeeds_is_too_late_and_a_trial_needs_none() {
    let directory = directory();
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    let topic = |name: &str, replication_factor| CreatableTopic {
        name: name.to_owned(),
        num_partitions: 1,
        replication_factor,
        ..Default::default()
    };
    let mut create = |topics: Vec<CreatableTopic>, validate_only| -> Vec<i16> {
        let request = CreateTopicsRequest { topics, timeout_ms: 0, validate_only };
        let mut answers = ask!(wire, 7, request, CreateTopicsResponse).topics;
        answers.sort_by(|one, other| one.name.cmp(&other.name));
        answers.iter().map(|answer| answer.error_code).collect()
    };
    let (timed_out, none) = (ErrorCode::RequestTimedOut.code(), ErrorCode::None.code());
    let too_many = ErrorCode::InvalidReplicationFactor.code();
    assert_eq!(create(vec![topic("made", 1), topic("refused", 3)], true), [none, too_many]);
    assert_eq!(create(vec![topic("made", 1), topic("refused", 3)], false), [timed_out, too_many]);
    assert_eq!(wire.wait_for_topic("made"), 1, "it was made all the same");

    let grown = |name: &str, count| CreatePartitionsTopic { name: name.to_owned(), count, assignments: None };
    let topics = vec![grown("made", 1), grown("missing", 2)];
    let request = CreatePartitionsRequest { topics, timeout_ms: 0, validate_only: false };
    let answers = ask!(wire, 3, request, CreatePartitionsResponse).results;
    let codes: Vec<_> = answers.iter().map(|answer| answer.error_code).collect();
    assert_eq!(codes, [ErrorCode::InvalidPartitions.code(), ErrorCode::UnknownTopicOrPartition.code()]);

    let named = |name: &str| DeleteTopicState { name: Some(name.to_owned()), ..Default::default() };
    let request =
        DeleteTopicsRequest { topics: vec![named("made"), named("missing")], timeout_ms: 0, ..Default::default() };
    let answers = ask!(wire, 6, request, DeleteTopicsResponse).responses;
    let codes: Vec<_> = answers.iter().map(|answer| answer.error_code).collect();
    assert_eq!(codes, [timed_out, ErrorCode::UnknownTopicOrPartition.code()]);
    server.stop();
}

#[test]
fn topics_are_asked_for_by_their_ids_from_version_12_on() {
    let directory = directory();
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    assert_eq!(wire.create_topic("known", 1), 0);
    let id = wire.metadata("known").topics[0].topic_id;
    for (version, code) in [(10, ErrorCode::InvalidRequest), (11, ErrorCode::InvalidRequest), (12, ErrorCode::None)] {
        let topic = MetadataRequestTopic { topic_id: id, name: None };
        let request = MetadataRequest { topics: Some(vec![topic]), ..Default::default() };
        let answer = ask!(wire, version, request, MetadataResponse);
        assert_eq!(answer.topics[0].error_code, code.code(), "version {version}");
        assert_eq!(answer.brokers.is_empty(), version < 12);
    }
    server.stop();
}

#[test]
fn where_topics_are_not_deleted_it_is_not_told_which_there_are() {
    let directory = directory();
    let server = Server::start_with(directory.path(), &["delete.topic.enable=false"]);
    let mut wire = Wire::connect(server.address);
    assert_eq!(wire.create_topic("kept", 1), 0);
    let missing = TopicId([9; 16]);
    for version in [2, 3, 6] {
        let code = if version < 3 { ErrorCode::InvalidRequest } else { ErrorCode::TopicDeletionDisabled };
        let names = ["kept".to_owned(), "missing".to_owned()];
        let by_name = names.clone().map(|name| DeleteTopicState { name: Some(name), ..Default::default() });
        let request = DeleteTopicsRequest {
            topics: by_name.into_iter().chain([DeleteTopicState { name: None, topic_id: missing }]).collect(),
            topic_names: if version < 6 { names.to_vec() } else { Vec::new() },
            timeout_ms: 30_000,
        };
        let request = match version {
            6 => request,
            _ => DeleteTopicsRequest { topics: Vec::new(), ..request },
        };
        let answers = ask!(wire, version, request, DeleteTopicsResponse).responses;
        assert_eq!(answers.len(), if version < 6 { 2 } else { 3 });
        assert!(answers.iter().all(|answer| answer.error_code == code.code()), "version {version}: {answers:?}");
    }
    server.stop();
}

#[test]
fn a_topic_only_validated_is_not_created() {
    let directory = directory();
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    let topic =
        CreatableTopic { name: "checked".to_owned(), num_partitions: 1, replication_factor: 1, ..Default::default() };
    let request = CreateTopicsRequest { topics: vec![topic], validate_only: true, ..Default::default() };
    assert_eq!(ask!(wire, 7, request, CreateTopicsResponse).topics[0].error_code, ErrorCode::None as i16);
    assert!(!data_path(directory.path()).join("checked-0").exists());
}

#[test]
fn topics_survive_a_stop_and_a_kill() {
    let directory = directory();
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    assert_eq!(wire.create_topic("kept", 2), 0);
    let id = wire.metadata("kept").topics[0].topic_id;
    server.stop();
    let server = Server::start(directory.path());
    assert_eq!(Wire::connect(server.address).metadata("kept").topics[0].topic_id, id);
    server.kill();
    let server = Server::start(directory.path());
    assert_eq!(Wire::connect(server.address).metadata("kept").topics[0].topic_id, id);
}

#[test]
fn metadata_creates_a_topic_on_first_sight_if_it_may() {
    let directory = directory();
    let server = Server::start_with(directory.path(), &["num.partitions=3"]);
    assert_eq!(Wire::connect(server.address).wait_for_topic("fresh"), 3);
    server.stop();
    let server = Server::start_with(directory.path(), &["auto.create.topics.enable=false"]);
    let topic = &Wire::connect(server.address).metadata("other").topics[0];
    assert_eq!(topic.error_code, ErrorCode::UnknownTopicOrPartition as i16);
}

/// The offset and timestamp that ListOffsets finds for a timestamp.
fn list_offset(wire: &mut Wire, topic: &str, timestamp: i64) -> (i64, i64) {
    let partitions = vec![ListOffsetsPartition { timestamp, ..Default::default() }];
    let topics = vec![ListOffsetsTopic { name: topic.to_owned(), partitions }];
    let request = ListOffsetsRequest { replica_id: -1, topics, ..Default::default() };
    let response = ask!(wire, 6, request, ListOffsetsResponse);
    let partition = &response.topics[0].partitions[0];
    assert_eq!(partition.error_code, 0);
    (partition.offset, partition.timestamp)
}

#[test]
fn offsets_are_listed_by_end_beginning_and_time() {
    const LATEST: i64 = -1;
    const EARLIEST: i64 = -2;
    let directory = directory();
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    assert_eq!(wire.create_topic("times", 1), 0);
    assert_eq!(list_offset(&mut wire, "times", LATEST), (0, -1));
    for timestamps in [[1000, 1010, 1020], [2000, 2010, 2020]] {
        let mut builder = BatchBuilder::new(Codec::None);
        timestamps.iter().for_each(|&timestamp| builder.push(timestamp, None, Some(b"value"), &[]));
        assert_eq!(wire.produce(PRODUCE_VERSION, "times", 0, &builder.build()).error_code, 0);
    }
    assert_eq!(list_offset(&mut wire, "times", LATEST), (6, -1));
    assert_eq!(list_offset(&mut wire, "times", EARLIEST), (0, -1));
    assert_eq!(list_offset(&mut wire, "times", 0), (0, 1000));
    assert_eq!(list_offset(&mut wire, "times", 1011), (2, 1020));
    assert_eq!(list_offset(&mut wire, "times", 1021), (3, 2000));
    assert_eq!(list_offset(&mut wire, "times", 2021), (-1, -1));
}

#[test]
fn producer_ids_are_never_given_twice_not_even_over_a_kill() {
    let directory = directory();
    let mut given = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let server = Server::start(directory.path());
        let mut wire = Wire::connect(server.address);
        for _ in 0..20 {
            let (id, epoch) = wire.new_producer();
            assert!(id >= 0 && epoch == 0, "{id} {epoch}");
            assert!(given.insert(id), "{id} was given before");
        }
        server.kill();
    }
}

#[test]
fn a_coordinator_is_not_available_until_groups_exist() {
    const NOT_AVAILABLE: i16 = ErrorCode::CoordinatorNotAvailable as i16;
    let directory = directory();
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    for version in 0..=6 {
        let keys = ["group".to_owned()];
        let request = FindCoordinatorRequest {
            key: if version < 4 { keys[0].clone() } else { String::new() },
            coordinator_keys: if version < 4 { Vec::new() } else { keys.to_vec() },
            ..Default::default()
        };
        let response = ask!(wire, version, request, FindCoordinatorResponse);
        let code = response.coordinators.first().map_or(response.error_code, |coordinator| coordinator.error_code);
        assert_eq!(code, NOT_AVAILABLE, "version {version}");
    }
}

#[test]
fn a_type_of_coordinator_that_there_is_not_is_refused_and_not_to_be_retried() {
    let directory = directory();
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    for version in 1..=6 {
        for (key_type, code) in [
            (0, ErrorCode::CoordinatorNotAvailable),
            (1, ErrorCode::CoordinatorNotAvailable),
            (2, if version < 6 { ErrorCode::InvalidRequest } else { ErrorCode::CoordinatorNotAvailable }),
            (5, ErrorCode::InvalidRequest),
            (-1, ErrorCode::InvalidRequest),
        ] {
            let keys = if version < 4 { Vec::new() } else { vec!["key".to_owned()] };
            let request = FindCoordinatorRequest { key_type, coordinator_keys: keys, ..Default::default() };
            let response = ask!(wire, version, request, FindCoordinatorResponse);
            let told = response.coordinators.first().map_or(response.error_code, |coordinator| coordinator.error_code);
            assert_eq!(told, code.code(), "version {version}, type {key_type}");
        }
    }
}

#[test]
fn an_api_versions_request_of_the_future_is_answered_in_version_0_and_the_connection_goes_on() {
    let directory = directory();
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    // API key 18, version 99, correlation id 7, client id "c", no tags, and a body that nobody can know.
    wire.send_frame(&[0, 18, 0, 99, 0, 0, 0, 7, 0, 1, b'c', 0, 1, 2, 3]).expect("sent");
    let answer = wire.receive().expect("an answer");
    assert_eq!(answer[..4], [0, 0, 0, 7]);
    let mut reader = Reader::new(&answer[4..]);
    let response = ApiVersionsResponse::decode(&mut reader, 0).expect("a body of version 0");
    assert_eq!(reader.remaining(), 0);
    assert_eq!(response.error_code, ErrorCode::UnsupportedVersion as i16);
    let own = response.api_keys.iter().find(|api| api.api_key == ApiKey::ApiVersions.code()).expect("ApiVersions");
    assert_eq!((own.min_version, own.max_version), (0, 4));
    let request =
        ApiVersionsRequest { client_software_name: "test".to_owned(), client_software_version: "1".to_owned() };
    let response = ask!(wire, 3, request, ApiVersionsResponse);
    assert_eq!(response.error_code, 0);
    let produce = response.api_keys.iter().find(|api| api.api_key == ApiKey::Produce.code()).expect("Produce");
    assert_eq!((produce.min_version, produce.max_version), (0, 11));
}

#[test]
fn what_is_not_served_closes_the_connection() {
    let directory = directory();
    let server = Server::start(directory.path());
    let frames: [(&str, &[u8]); 4] = [
        ("an unknown API", &[0x7f, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff]),
        ("an unsupported version of Metadata", &[0, 3, 0, 99, 0, 0, 0, 1, 0xff, 0xff]),
        ("an unsupported version of Fetch", &[0, 1, 0, 18, 0, 0, 0, 1, 0xff, 0xff]),
        ("a body cut short", &[0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0]),
    ];
    for (what, frame) in frames {
        let mut wire = Wire::connect(server.address);
        wire.send_frame(frame).expect("sent");
        assert!(wire.receive().is_err(), "{what}");
    }
    assert_eq!(Wire::connect(server.address).create_topic("still-serving", 1), 0);
}

#[test]
fn librdkafkas_admin_client_creates_and_deletes() {
    let directory = directory();
    let server = Server::start(directory.path());
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", server.address.to_string()).create().expect("an admin client");
    let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(30)));
    let topics = [
        NewTopic::new("one", 4, TopicReplication::Fixed(1)).set("retention.ms", "1000"),
        NewTopic::new("too-many-replicas", 1, TopicReplication::Fixed(3)),
        NewTopic::new("bad-config", 1, TopicReplication::Fixed(1)).set("no.such.config", "1"),
    ];
    let created = wait(admin.create_topics(&topics, &options)).expect("an answer");
    assert_eq!(created[0].as_deref(), Ok("one"));
    let code = |index: usize| created[index].as_ref().expect_err("refused").1;
    assert_eq!(code(1), rdkafka::types::RDKafkaErrorCode::InvalidReplicationFactor);
    assert_eq!(code(2), rdkafka::types::RDKafkaErrorCode::InvalidConfig);
    assert_eq!(Wire::connect(server.address).wait_for_topic("one"), 4);
    let deleted = wait(admin.delete_topics(&["one"], &options)).expect("an answer");
    assert_eq!(deleted[0].as_deref(), Ok("one"));
}

/// Waits for a future of librdkafka's own thread.
fn wait<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
            std::task::Poll::Ready(value) => return value,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

/// Asks for partitions; the code and the text of each topic.
fn create_partitions(wire: &mut Wire, topics: &[(&str, i32)], validate_only: bool) -> Vec<(i16, Option<String>)> {
    let topics = topics.iter().map(|(name, count)| CreatePartitionsTopic {
        name: (*name).to_owned(),
        count: *count,
        assignments: None,
    });
    let request = CreatePartitionsRequest { topics: topics.collect(), timeout_ms: 30_000, validate_only };
    let response = ask!(wire, 3, request, CreatePartitionsResponse);
    response.results.into_iter().map(|result| (result.error_code, result.error_message)).collect()
}

#[test]
fn new_partitions_are_served_from_the_answer_on_and_after_a_kill() {
    let directory = directory();
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    assert_eq!(wire.create_topic("orders", 1), 0);
    let record = |value: &[u8]| {
        let mut builder = BatchBuilder::new(Codec::None);
        builder.push(1_000, None, Some(value), &[]);
        builder.build()
    };
    assert_eq!(wire.produce(PRODUCE_VERSION, "orders", 0, &record(b"old")).error_code, 0);
    assert_eq!(create_partitions(&mut wire, &[("orders", 4)], true), [(0, None)]);
    assert_eq!(wire.wait_for_topic("orders"), 1, "only validated");
    assert_eq!(create_partitions(&mut wire, &[("orders", 4)], false), [(0, None)]);
    for partition in 0..4 {
        assert_eq!(wire.produce(PRODUCE_VERSION, "orders", partition, &record(b"new")).error_code, 0);
    }
    let epochs: Vec<i32> =
        wire.metadata("orders").topics[0].partitions.iter().map(|partition| partition.leader_epoch).collect();
    assert_eq!(epochs, [0; 4], "the partition that was there goes on in its epoch");
    let told = create_partitions(&mut wire, &[("orders", 4), ("none", 2)], false);
    assert_eq!(told[0], (ErrorCode::InvalidPartitions as i16, Some("Topic already has 4 partitions.".into())));
    assert_eq!(told[1].0, ErrorCode::UnknownTopicOrPartition as i16);
    let told = create_partitions(&mut wire, &[("orders", 5), ("orders", 6)], false);
    assert_eq!(told, [(ErrorCode::InvalidRequest as i16, Some("Duplicate topic in request.".into()))]);
    server.kill();
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    assert_eq!(wire.wait_for_topic("orders"), 4);
    let counts: Vec<usize> = (0..4).map(|partition| wire.read_all("orders", partition).len()).collect();
    assert_eq!(counts, [2, 1, 1, 1]);
    let topics = vec![DeleteTopicState { name: Some("orders".to_owned()), ..Default::default() }];
    let request = DeleteTopicsRequest { topics, timeout_ms: 30_000, ..Default::default() };
    assert_eq!(ask!(wire, 6, request, DeleteTopicsResponse).responses[0].error_code, 0);
    assert!(!data_path(directory.path()).join("orders-3").exists());
}

#[test]
fn the_cluster_is_described_to_whoever_asks_for_brokers() {
    let directory = directory();
    let server = Server::start_with(directory.path(), &["broker.rack=r1"]);
    let mut wire = Wire::connect(server.address);
    let cluster_id = wire.metadata("t").cluster_id;
    for version in 0..=1 {
        let response = ask!(wire, version, DescribeClusterRequest::default(), DescribeClusterResponse);
        assert_eq!((response.error_code, response.controller_id), (0, 1));
        assert_eq!(Some(response.cluster_id), cluster_id);
        assert_eq!(response.cluster_authorized_operations, i32::MIN);
        let broker = &response.brokers[0];
        assert_eq!((broker.broker_id, broker.rack.as_deref()), (1, Some("r1")));
        assert_eq!(broker.port, i32::from(server.address.port()));
    }
    let request = DescribeClusterRequest { include_cluster_authorized_operations: true, ..Default::default() };
    let response = ask!(wire, 1, request, DescribeClusterResponse);
    assert!(response.cluster_authorized_operations > 0);
    for (endpoint_type, code) in [(2, ErrorCode::MismatchedEndpointType), (7, ErrorCode::UnsupportedEndpointType)] {
        let request = DescribeClusterRequest { endpoint_type, ..Default::default() };
        let response = ask!(wire, 1, request, DescribeClusterResponse);
        assert_eq!((response.error_code, response.brokers.len()), (code as i16, 0));
    }
}

#[test]
fn log_directories_say_what_lies_in_them_to_the_byte() {
    let directory = directory();
    let second = directory.path().join("second");
    let dirs = format!("log.dirs={},{}", data_path(directory.path()).display(), second.display());
    let server = Server::start_with(directory.path(), &[&dirs]);
    let mut wire = Wire::connect(server.address);
    assert_eq!(wire.create_topic("a", 3), 0);
    let mut builder = BatchBuilder::new(Codec::None);
    builder.push(1_000, None, Some(b"value"), &[]);
    let batch = builder.build();
    for _ in 0..2 {
        assert_eq!(wire.produce(PRODUCE_VERSION, "a", 1, &batch).error_code, 0);
    }
    for version in 0..=4 {
        let all = ask!(wire, version, DescribeLogDirsRequest { topics: None }, DescribeLogDirsResponse);
        assert_eq!((all.error_code, all.results.len()), (0, 2));
        let mut sizes = std::collections::BTreeMap::new();
        for result in &all.results {
            assert_eq!(result.error_code, 0);
            assert_eq!(result.total_bytes > 0 && result.usable_bytes > 0, version == 4);
            for partition in result.topics.iter().flat_map(|topic| &topic.partitions) {
                assert_eq!((partition.offset_lag, partition.is_future_key), (0, false));
                sizes.insert(partition.partition_index, partition.partition_size);
            }
        }
        assert_eq!(sizes, [(0, 0), (1, 2 * batch.len() as i64), (2, 0)].into());
    }
    let topics = Some(vec![
        DescribableLogDirTopic { topic: "a".into(), partitions: vec![1, 9] },
        DescribableLogDirTopic { topic: "none".into(), partitions: vec![0] },
    ]);
    let some = ask!(wire, 4, DescribeLogDirsRequest { topics }, DescribeLogDirsResponse);
    let found: Vec<i32> = some
        .results
        .iter()
        .flat_map(|result| &result.topics)
        .flat_map(|topic| topic.partitions.iter().map(|partition| partition.partition_index))
        .collect();
    assert_eq!(found, [1]);
}
