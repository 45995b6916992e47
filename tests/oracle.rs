//! The wire codec against kafka-protocol's, which is made from Kafka 3.9's own schemas: random values of every API and
//! version, both ways. Values are compared by field name, so two fields of one type that changed places are found too.
//!
//! `cargo test --features oracle --test oracle`; the other crate takes a minute to build.
#![cfg(feature = "oracle")]

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as theirs;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Message, StrBytes};
use ringlog::base::ids::TopicId;
use ringlog::protocol::header::RequestHeader;
use ringlog::protocol::message::*;
use ringlog::protocol::sample::Sampler;
use ringlog::protocol::{ApiKey, Reader, Writer};

const SAMPLES: usize = 60;

/// Reads what we wrote, all of it.
fn their_value<T: Decodable>(bytes: &[u8], version: i16) -> T {
    let mut bytes = Bytes::copy_from_slice(bytes);
    let value = T::decode(&mut bytes, version).expect("kafka-protocol reads what we wrote");
    assert!(bytes.is_empty(), "version {version}: {} bytes left", bytes.len());
    value
}

fn their_bytes<T: Encodable>(value: &T, version: i16) -> BytesMut {
    let mut bytes = BytesMut::new();
    value.encode(&mut bytes, version).expect("kafka-protocol writes what it read");
    bytes
}

/// Their `Debug` text in our spelling: field names and values, in the schema's order.
fn their_text(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    let text = text.replace(", unknown_tagged_fields: {}", "").replace(" { unknown_tagged_fields: {} }", "");
    text.replace(" _type: ", " type: ").replace("is_k_raft_controller", "is_kraft_controller")
}

/// Our `Debug` text, ids as UUIDs and records as their bytes.
fn our_text(value: &impl std::fmt::Debug) -> String {
    let mut text = format!("{value:?}");
    for field in ["topic_id: ", "replica_directory_id: "] {
        let mut parts = text.split(field);
        let mut result = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (id, rest) = part.split_at(22);
            result.push_str(field);
            result.push_str(&uuid_text(TopicId::parse(id).expect("an id")));
            result.push_str(rest);
        }
        text = result;
    }
    let mut parts = text.split("RecordsSpan { start: 0, length: ");
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (length, rest) = part.split_once(" }").expect("a length");
        result.push_str(&format!("b\"{}\"", "r".repeat(length.parse().expect("a length"))));
        result.push_str(rest);
    }
    result
}

fn uuid_text(id: TopicId) -> String {
    let hex: String = id.0.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

fn assert_same_api<T: Message + HeaderVersion>(key: ApiKey, our_header_version: impl Fn(i16) -> i16) {
    let versions = key.versions();
    assert_eq!((*versions.start(), *versions.end()), (T::VERSIONS.min, T::VERSIONS.max), "{key}");
    for version in versions {
        assert_eq!(our_header_version(version), T::header_version(version), "{key} {version}");
    }
}

macro_rules! check {
    ($($message:ident, $header_version:ident;)*) => {
        $({
            let key = $message::API_KEY;
            assert_same_api::<theirs::$message>(key, |version| key.$header_version(version));
            let mut sampler = Sampler::new(key.code() as u64);
            for version in key.versions() {
                for _ in 0..SAMPLES {
                    let ours = $message::sample(&mut sampler, version);
                    let mut writer = Writer::new();
                    ours.encode(&mut writer, version).expect("a sample can be written");
                    let bytes = writer.into_bytes();
                    let theirs: theirs::$message = their_value(&bytes, version);
                    assert_eq!(our_text(&ours), their_text(&theirs), "{key} {version}");

                    let back = their_bytes(&theirs, version);
                    assert_eq!(back, bytes, "{key} {version}: {ours:?}");
                    assert_eq!($message::decode(&mut Reader::new(&back), version).as_ref(), Ok(&ours));
                }
            }
        })*
    };
}

#[test]
fn requests_are_what_kafka_protocol_reads_and_writes() {
    check! {
        AddPartitionsToTxnRequest, request_header_version;
        AlterConfigsRequest, request_header_version;
        ApiVersionsRequest, request_header_version;
        CreatePartitionsRequest, request_header_version;
        CreateTopicsRequest, request_header_version;
        DeleteRecordsRequest, request_header_version;
        DeleteTopicsRequest, request_header_version;
        DescribeClusterRequest, request_header_version;
        DescribeConfigsRequest, request_header_version;
        DescribeLogDirsRequest, request_header_version;
        DescribeProducersRequest, request_header_version;
        EndTxnRequest, request_header_version;
        FetchRequest, request_header_version;
        FindCoordinatorRequest, request_header_version;
        IncrementalAlterConfigsRequest, request_header_version;
        InitProducerIdRequest, request_header_version;
        LeaderAndIsrRequest, request_header_version;
        ListOffsetsRequest, request_header_version;
        MetadataRequest, request_header_version;
        OffsetForLeaderEpochRequest, request_header_version;
        StopReplicaRequest, request_header_version;
        UpdateMetadataRequest, request_header_version;
    }
}

#[test]
fn responses_are_what_kafka_protocol_reads_and_writes() {
    check! {
        AddPartitionsToTxnResponse, response_header_version;
        AlterConfigsResponse, response_header_version;
        ApiVersionsResponse, response_header_version;
        CreatePartitionsResponse, response_header_version;
        CreateTopicsResponse, response_header_version;
        DeleteRecordsResponse, response_header_version;
        DeleteTopicsResponse, response_header_version;
        DescribeClusterResponse, response_header_version;
        DescribeConfigsResponse, response_header_version;
        DescribeLogDirsResponse, response_header_version;
        DescribeProducersResponse, response_header_version;
        EndTxnResponse, response_header_version;
        FindCoordinatorResponse, response_header_version;
        IncrementalAlterConfigsResponse, response_header_version;
        InitProducerIdResponse, response_header_version;
        LeaderAndIsrResponse, response_header_version;
        ListOffsetsResponse, response_header_version;
        MetadataResponse, response_header_version;
        OffsetForLeaderEpochResponse, response_header_version;
        ProduceResponse, response_header_version;
        StopReplicaResponse, response_header_version;
        UpdateMetadataResponse, response_header_version;
    }
}

#[test]
fn a_fetch_response_sent_in_parts_is_what_kafka_protocol_reads_and_writes() {
    assert_same_api::<theirs::FetchResponse>(ApiKey::Fetch, |version| ApiKey::Fetch.response_header_version(version));
    let mut sampler = Sampler::new(1);
    for version in ApiKey::Fetch.versions() {
        for _ in 0..SAMPLES {
            let ours = FetchResponse::sample(&mut sampler, version);
            let parts = ours.encode_parts(0, version).expect("a sample can be written");
            let partitions = ours.responses.iter().flat_map(|topic| &topic.partitions);
            let mut lengths = partitions.filter_map(|partition| partition.records).map(|records| records.length);
            let mut frame = parts.chunks[0].to_vec();
            for chunk in &parts.chunks[1..] {
                let length = lengths.find(|length| *length > 0).expect("a length for each gap");
                frame.resize(frame.len() + length, b'r');
                frame.extend_from_slice(chunk);
            }
            assert_eq!(frame.len(), parts.total_bytes);
            let header_bytes = if ApiKey::Fetch.is_flexible(version) { 5 } else { 4 };
            let body = &frame[4 + header_bytes..];

            let theirs: theirs::FetchResponse = their_value(body, version);
            assert_eq!(our_text(&ours), their_text(&theirs), "version {version}");
            let back = their_bytes(&theirs, version);
            assert_eq!(back, body, "version {version}");
            let mut ours_again = FetchResponse::decode(&mut Reader::new(&back), version).expect("we read it back");
            for topic in &mut ours_again.responses {
                for partition in &mut topic.partitions {
                    if let Some(records) = &mut partition.records {
                        assert!(back[records.range()].iter().all(|byte| *byte == b'r'));
                        records.start = 0;
                    }
                }
            }
            assert_eq!(ours_again, ours, "version {version}");
        }
    }
}

/// A random Produce request of theirs.
fn sample_produce_request(sampler: &mut Sampler, version: i16) -> theirs::ProduceRequest {
    let text = |sampler: &mut Sampler| StrBytes::from_string(sampler.text());
    let mut request = theirs::ProduceRequest::default();
    request.transactional_id = (version >= 3 && sampler.one_in(2)).then(|| text(sampler).into());
    request.acks = sampler.integer() as i16;
    request.timeout_ms = sampler.integer() as i32;
    for _ in 0..sampler.below(4) {
        let mut topic = theirs::produce_request::TopicProduceData::default();
        topic.name = text(sampler).into();
        for _ in 0..sampler.below(4) {
            let mut partition = theirs::produce_request::PartitionProduceData::default();
            partition.index = sampler.integer() as i32;
            let length = sampler.below(200);
            partition.records = (!sampler.one_in(4)).then(|| sampler.bytes(length).into());
            topic.partition_data.push(partition);
        }
        request.topic_data.push(topic);
    }
    request
}

#[test]
fn a_produce_request_is_what_kafka_protocol_reads_and_writes() {
    let key = ApiKey::Produce;
    assert_same_api::<theirs::ProduceRequest>(key, |version| key.request_header_version(version));
    let mut sampler = Sampler::new(2);
    for version in key.versions() {
        for _ in 0..SAMPLES {
            let theirs = sample_produce_request(&mut sampler, version);
            let body = their_bytes(&theirs, version);
            let ours = ProduceRequest::decode(&body, version).expect("we read what kafka-protocol wrote");

            let id = theirs.transactional_id.as_ref().map(|id| id.0.as_str());
            assert_eq!(
                (ours.transactional_id.as_deref(), ours.acks, ours.timeout_ms),
                (id, theirs.acks, theirs.timeout_ms)
            );
            assert_eq!(ours.topic_data.len(), theirs.topic_data.len());
            for (our_topic, their_topic) in ours.topic_data.iter().zip(&theirs.topic_data) {
                assert_eq!(our_topic.name, their_topic.name.0.as_str());
                assert_eq!(our_topic.partition_data.len(), their_topic.partition_data.len());
                for (our_data, their_data) in our_topic.partition_data.iter().zip(&their_topic.partition_data) {
                    assert_eq!(our_data.index, their_data.index);
                    let records = our_data.records.clone().map(|range| &body[range]);
                    assert_eq!(records, their_data.records.as_deref());
                }
            }
            assert_eq!(body, written_again(&ours, &body, version), "version {version}");
        }
    }
}

fn written_again(request: &ProduceRequest<'_>, body: &[u8], version: i16) -> BytesMut {
    let records = |data: &PartitionProduceData| (data.index, data.records.clone().map(|range| &body[range]));
    let partitions: Vec<Vec<_>> =
        request.topic_data.iter().map(|topic| topic.partition_data.iter().map(records).collect()).collect();
    let topics: Vec<_> =
        request.topic_data.iter().zip(&partitions).map(|(topic, list)| (&*topic.name, &list[..])).collect();
    let ProduceRequest { ref transactional_id, acks, timeout_ms, .. } = *request;
    let transactional_id = transactional_id.as_deref();
    let mut writer = Writer::new();
    let request = ProduceRequestToSend { transactional_id, acks, timeout_ms, topics: &topics };
    request.encode(&mut writer, version).expect("what was read can be written");
    writer.into_bytes()
}

fn check_kept<M: KeptMessage + std::fmt::Debug, T: Message + Decodable + Encodable + std::fmt::Debug>() {
    assert_eq!((*M::VERSIONS.start(), *M::VERSIONS.end()), (T::VERSIONS.min, T::VERSIONS.max));
    let mut sampler = Sampler::new(1);
    for version in M::VERSIONS {
        for _ in 0..SAMPLES {
            let ours = M::sample_of(&mut sampler, version);
            let mut writer = Writer::new();
            ours.encode(&mut writer, version).expect("a sample can be written");
            let bytes = writer.into_bytes();
            let theirs: T = their_value(&bytes, version);
            let our_text = our_text(&ours).replace("ConsumerProtocolPartitions", "TopicPartition");
            assert_eq!(our_text, their_text(&theirs), "version {version}");
            assert_eq!(their_bytes(&theirs, version), bytes, "version {version}: {ours:?}");
        }
    }
}

/// Of what is kept in records it has no schemas; Kafka's own bytes of those are in `tests/golden/tools/coordinators`.
#[test]
fn what_members_tell_each_other_is_what_kafka_protocol_reads_and_writes() {
    check_kept::<ConsumerProtocolSubscription, theirs::ConsumerProtocolSubscription>();
    check_kept::<ConsumerProtocolAssignment, theirs::ConsumerProtocolAssignment>();
}

#[test]
fn request_headers_are_what_kafka_protocol_reads() {
    for (key, version) in [(ApiKey::ControlledShutdown, 0), (ApiKey::Fetch, 11), (ApiKey::ApiVersions, 4)] {
        let header_version = key.request_header_version(version);
        let client_id = (header_version > 0).then_some("client");
        let ours = RequestHeader {
            api_key: key.code(),
            api_version: version,
            correlation_id: 9,
            client_id: client_id.map(Into::into),
        };
        let mut writer = Writer::new();
        ours.encode(&mut writer).expect("a header can be written");
        let bytes = writer.into_bytes();
        let theirs: theirs::RequestHeader = their_value(&bytes, header_version);
        assert_eq!((theirs.request_api_key, theirs.request_api_version), (ours.api_key, ours.api_version));
        // Kafka's default, where the header has no client id, is the empty text.
        let their_client_id = theirs.client_id.as_deref().filter(|id| !id.is_empty());
        assert_eq!((theirs.correlation_id, their_client_id), (9, client_id));
        assert_eq!(RequestHeader::decode(&mut Reader::new(&their_bytes(&theirs, header_version))), Ok(ours));
    }
}
