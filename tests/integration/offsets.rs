//! ListOffsets, OffsetForLeaderEpoch and DescribeProducers, as frames.

use ringlog::protocol::ErrorCode;
use ringlog::protocol::message::describe_producers::TopicRequest;
use ringlog::protocol::message::{
    DescribeProducersRequest, DescribeProducersResponse, ListOffsetsPartition, ListOffsetsPartitionResponse,
    ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopic, OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use ringlog::record::batch::BatchBuilder;
use ringlog::record::compression::Codec;

use crate::server::{Server, directory};
use crate::wire::{Wire, ask};

const PRODUCE_VERSION: i16 = 9;
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

fn list(
    wire: &mut Wire,
    version: i16,
    replica_id: i32,
    asked: &[ListOffsetsPartition],
) -> Vec<ListOffsetsPartitionResponse> {
    let topics = vec![ListOffsetsTopic { name: "listed".to_owned(), partitions: asked.to_vec() }];
    let request = ListOffsetsRequest { replica_id, topics, ..Default::default() };
    ask!(wire, version, request, ListOffsetsResponse).topics.remove(0).partitions
}

fn asked(timestamp: i64) -> ListOffsetsPartition {
    ListOffsetsPartition { timestamp, ..Default::default() }
}

fn list_one(wire: &mut Wire, version: i16, timestamp: i64) -> ListOffsetsPartitionResponse {
    list(wire, version, -1, &[asked(timestamp)]).remove(0)
}

fn append(wire: &mut Wire, topic: &str, codec: Codec, timestamps: &[i64]) {
    let mut builder = BatchBuilder::new(codec);
    timestamps.iter().for_each(|&timestamp| builder.push(timestamp, None, Some(b"value"), &[]));
    assert_eq!(wire.produce(PRODUCE_VERSION, topic, 0, &builder.build()).error_code, 0);
}

#[test]
fn every_version_of_list_offsets_answers_the_questions_it_knows_and_refuses_the_others() {
    let directory = directory();
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    assert_eq!(wire.create_topic("listed", 1), 0);
    let answer = list_one(&mut wire, 9, MAX_TIMESTAMP);
    assert_eq!((answer.error_code, answer.offset, answer.timestamp), (0, -1, -1), "an empty log");
    append(&mut wire, "listed", Codec::Gzip, &[1000, 1030, 1020, 1030]);
    append(&mut wire, "listed", Codec::None, &[1010, 1011]);
    for version in 1..=9 {
        let found = |answer: ListOffsetsPartitionResponse| match answer.error_code {
            0 => Ok((answer.offset, answer.timestamp, answer.leader_epoch)),
            code => Err(code),
        };
        let epoch = |epoch: i32| if version >= 4 { epoch } else { -1 };
        let from =
            |first: i16, answer| if version >= first { Ok(answer) } else { Err(ErrorCode::UnsupportedVersion.code()) };
        let mut list_one = |timestamp| found(list_one(&mut wire, version, timestamp));
        assert_eq!(list_one(LATEST), Ok((6, -1, epoch(0))), "v{version}");
        assert_eq!(list_one(EARLIEST), Ok((0, -1, epoch(0))), "v{version}");
        assert_eq!(list_one(1001), Ok((1, 1030, epoch(0))), "v{version}");
        assert_eq!(list_one(1031), Ok((-1, -1, -1)), "v{version}");
        assert_eq!(list_one(MAX_TIMESTAMP), from(7, (1, 1030, 0)), "v{version}");
        assert_eq!(list_one(EARLIEST_LOCAL), from(8, (0, -1, 0)), "v{version}");
        assert_eq!(list_one(LATEST_TIERED), from(9, (-1, -1, -1)), "v{version}");
        assert_eq!(list_one(-6), Err(ErrorCode::UnsupportedVersion.code()), "v{version}");
    }
}

#[test]
fn version_0_of_list_offsets_lists_where_segments_begin() {
    let directory = directory();
    let server = Server::start_with(directory.path(), &["log.segment.bytes=200"]);
    let mut wire = Wire::connect(server.address);
    assert_eq!(wire.create_topic("listed", 1), 0);
    let offsets = |wire: &mut Wire, timestamp, max_num_offsets| {
        let asked = ListOffsetsPartition { timestamp, max_num_offsets, ..Default::default() };
        let answer = list(wire, 0, -1, &[asked]).remove(0);
        if answer.error_code == 0 { Ok(answer.old_style_offsets) } else { Err(answer.error_code) }
    };
    assert_eq!(offsets(&mut wire, LATEST, 9), Ok(vec![0]), "an empty log");
    for _ in 0..3 {
        append(&mut wire, "listed", Codec::None, &[1000, 1001, 1002, 1003, 1004, 1005]);
    }
    assert_eq!(offsets(&mut wire, LATEST, 9), Ok(vec![18, 12, 6, 0]));
    assert_eq!(offsets(&mut wire, LATEST, 2), Ok(vec![18, 12]));
    assert_eq!(offsets(&mut wire, EARLIEST, 9), Ok(vec![0]));
    assert_eq!(offsets(&mut wire, i64::MAX, 9), Ok(vec![18, 12, 6, 0]));
    assert_eq!(offsets(&mut wire, 0, 9), Ok(vec![]), "nothing is as old as that");
    assert_eq!(offsets(&mut wire, LATEST, 0), Ok(vec![]));
    assert_eq!(offsets(&mut wire, LATEST, -1), Err(ErrorCode::UnknownServerError.code()));
    assert_eq!(offsets(&mut wire, MAX_TIMESTAMP, 9), Err(ErrorCode::UnsupportedVersion.code()));
}

#[test]
fn repeated_and_unknown_partitions_and_wrong_epochs_have_kafkas_codes() {
    let directory = directory();
    let server = Server::start(directory.path());
    Wire::connect(server.address).create_topic("listed", 1);
    server.stop();
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    let epoch = list_one(&mut wire, 9, LATEST).leader_epoch;
    assert!(epoch > 0, "a start begins a new reign");

    let codes = |wire: &mut Wire, replica_id, asked: &[ListOffsetsPartition]| -> Vec<i16> {
        list(wire, 9, replica_id, asked).iter().map(|answer| answer.error_code).collect()
    };
    let repeated = ErrorCode::InvalidRequest.code();
    assert_eq!(codes(&mut wire, -1, &[asked(LATEST), asked(EARLIEST)]), [repeated, repeated]);
    let unknown = ListOffsetsPartition { partition_index: 7, ..asked(LATEST) };
    assert_eq!(codes(&mut wire, -1, &[unknown]), [ErrorCode::UnknownTopicOrPartition.code()]);
    for replica_id in [-2, -1, 5] {
        for timestamp in [LATEST, EARLIEST, MAX_TIMESTAMP, 0] {
            for (leader_epoch, code) in [
                (epoch, ErrorCode::None),
                (epoch - 1, ErrorCode::FencedLeaderEpoch),
                (epoch + 1, ErrorCode::UnknownLeaderEpoch),
                (-1, ErrorCode::None),
                (-2, ErrorCode::FencedLeaderEpoch),
            ] {
                let asked = ListOffsetsPartition { current_leader_epoch: leader_epoch, ..asked(timestamp) };
                assert_eq!(codes(&mut wire, replica_id, &[asked]), [code.code()], "{timestamp} under {leader_epoch}");
            }
        }
    }
}

#[test]
fn a_leader_epoch_ends_where_the_next_begins_and_the_reign_at_the_log_end() {
    let directory = directory();
    let mut epochs = Vec::new();
    for count in 1..=2 {
        let server = Server::start(directory.path());
        let mut wire = Wire::connect(server.address);
        wire.create_topic("listed", 1);
        epochs.push(list_one(&mut wire, 9, LATEST).leader_epoch);
        append(&mut wire, "listed", Codec::None, &vec![1000; 10 * count]);
        server.stop();
    }
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    let reign = list_one(&mut wire, 9, LATEST).leader_epoch;
    let [first, second] = epochs[..] else { panic!("two epochs") };
    assert!(first < second && second < reign, "{first} {second} {reign}");
    for version in 0..=4 {
        let mut end = |leader_epoch, current_leader_epoch| {
            let partitions = vec![OffsetForLeaderPartition { partition: 0, current_leader_epoch, leader_epoch }];
            let topics = vec![OffsetForLeaderTopic { topic: "listed".to_owned(), partitions }];
            let request = OffsetForLeaderEpochRequest { replica_id: -1, topics };
            let answer =
                ask!(wire, version, request, OffsetForLeaderEpochResponse).topics.remove(0).partitions.remove(0);
            (answer.error_code, if version == 0 { leader_epoch } else { answer.leader_epoch }, answer.end_offset)
        };
        assert_eq!(end(first, -1), (0, first, 10), "v{version}");
        assert_eq!(end(second, -1), (0, second, 30), "v{version}");
        assert_eq!(end(reign, -1), (0, reign, 30), "v{version}: it has written nothing yet");
        let undefined = if version == 0 { reign + 1 } else { -1 };
        assert_eq!(end(reign + 1, -1), (0, undefined, -1), "v{version}");
        if version >= 2 {
            assert_eq!(end(first, reign - 1).0, ErrorCode::FencedLeaderEpoch.code());
            assert_eq!(end(first, reign + 1).0, ErrorCode::UnknownLeaderEpoch.code());
        }
    }
    let unknown = vec![OffsetForLeaderTopic { topic: "nobody".to_owned(), partitions: vec![Default::default()] }];
    let request = OffsetForLeaderEpochRequest { replica_id: -1, topics: unknown };
    let answer = ask!(wire, 4, request, OffsetForLeaderEpochResponse).topics.remove(0).partitions.remove(0);
    assert_eq!(answer.error_code, ErrorCode::UnknownTopicOrPartition.code());
}

#[test]
fn the_producers_of_a_partition_are_described_with_epoch_and_last_sequence() {
    let directory = directory();
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    wire.create_topic("listed", 1);
    let (id, epoch) = wire.new_producer();
    for base_sequence in [0, 2] {
        let mut builder = BatchBuilder::new(Codec::None).producer(id, epoch, base_sequence);
        for timestamp in [500, 700] {
            builder.push(timestamp, None, Some(b"value"), &[]);
        }
        assert_eq!(wire.produce(PRODUCE_VERSION, "listed", 0, &builder.build()).error_code, 0);
    }
    let topic = |name: &str| TopicRequest { name: name.to_owned(), partition_indexes: vec![0, 1] };
    let request = DescribeProducersRequest { topics: vec![topic("listed"), topic("nobody")] };
    let response = ask!(wire, 0, request, DescribeProducersResponse);
    let [known, out_of_range] = &response.topics[0].partitions[..] else { panic!("two partitions") };
    let [producer] = &known.active_producers[..] else { panic!("one producer") };
    assert_eq!((producer.producer_id, producer.producer_epoch), (id, i32::from(epoch)));
    assert_eq!((producer.last_sequence, producer.last_timestamp), (3, 700));
    assert_eq!((producer.coordinator_epoch, producer.current_txn_start_offset), (-1, -1));
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    assert_eq!((known.error_code, out_of_range.error_code), (0, unknown));
    assert!(response.topics[1].partitions.iter().all(|answer| answer.error_code == unknown));
}
