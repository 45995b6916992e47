use bytes::BytesMut;

use super::*;
use crate::base::ids::TopicId;
use crate::protocol::sample::Sampler;
use crate::protocol::wire::{self, Reader, WireError, WireErrorKind, Writer};

const SAMPLES: usize = 40;

/// Calls a macro with every message that has both codecs and no records.
macro_rules! for_each_message {
    ($check:ident) => {
        each_plain_api!($check);
        $check! { Both: FetchRequest, ProduceResponse; }
    };
}

mod golden;
mod kept;

fn written(encode: impl FnOnce(&mut Writer) -> Result<(), WireError>) -> Result<BytesMut, WireError> {
    let mut writer = Writer::new();
    encode(&mut writer)?;
    Ok(writer.into_bytes())
}

#[test]
fn every_message_reads_back_as_it_was_written_in_every_version() {
    let mut sampler = Sampler::new(1);
    macro_rules! check {
        ($($api:ident: $request:ident, $response:ident;)*) => {$(
            check!($request);
            check!($response);
        )*};
        ($message:ident) => {
            for version in $message::API_KEY.versions() {
                for _ in 0..SAMPLES {
                    let message = $message::sample(&mut sampler, version);
                    let bytes = written(|writer| message.encode(writer, version)).unwrap();
                    let mut reader = Reader::new(&bytes);
                    assert_eq!($message::decode(&mut reader, version), Ok(message), "version {version}");
                    assert_eq!(reader.remaining(), 0);
                }
            }
        };
    }
    for_each_message!(check);
}

#[test]
fn a_message_cut_at_any_byte_is_an_error() {
    let mut sampler = Sampler::new(2);
    macro_rules! check {
        ($($api:ident: $request:ident, $response:ident;)*) => {$(
            check!($request);
            check!($response);
        )*};
        ($message:ident) => {
            for version in $message::API_KEY.versions() {
                let message = $message::sample(&mut sampler, version);
                let bytes = written(|writer| message.encode(writer, version)).unwrap();
                for end in 0..bytes.len() {
                    let cut = $message::decode(&mut Reader::new(&bytes[..end]), version);
                    assert!(cut.is_err(), "version {version}, {end} of {} bytes: {cut:?}", bytes.len());
                }
            }
        };
    }
    for_each_message!(check);
}

#[test]
fn versions_that_kafka_does_not_have_are_refused_both_ways() {
    macro_rules! check {
        ($($api:ident: $request:ident, $response:ident;)*) => {$(
            check!($request);
            check!($response);
        )*};
        ($message:ident) => {
            for version in [-1, $message::API_KEY.versions().end() + 1] {
                let refused = WireErrorKind::Version { api: $message::API_KEY.name(), version };
                let decoded = $message::decode(&mut Reader::new(&[0; 64]), version);
                assert_eq!(decoded.map_err(|error| error.kind), Err(refused.clone()));
                let encoded = $message::default().encode(&mut Writer::new(), version);
                assert_eq!(encoded.map_err(|error| error.kind), Err(refused));
            }
        };
    }
    for_each_message!(check);
}

#[test]
fn unknown_tagged_fields_are_skipped() {
    // InitProducerId version 2: throttle time, error code, producer id and epoch; then two tags nobody knows.
    let mut writer = Writer::new();
    let response = InitProducerIdResponse { producer_id: 7, ..Default::default() };
    response.encode(&mut writer, 2).unwrap();
    let mut bytes = writer.into_bytes();
    assert_eq!(bytes.split_off(16).as_ref(), [0]);
    bytes.extend_from_slice(&[2, 5, 3, 1, 2, 3, 100, 0]);
    let mut reader = Reader::new(&bytes);
    assert_eq!(InitProducerIdResponse::decode(&mut reader, 2), Ok(response));
    assert_eq!(reader.remaining(), 0);
}

#[test]
fn a_tagged_field_with_a_wrong_length_is_an_error() {
    // ApiVersions version 3: error code, no keys, throttle time; tag 3 is a bool and claims two bytes.
    let bytes = [0, 0, 1, 0, 0, 0, 0, 1, 3, 2, 1, 0];
    let error = ApiVersionsResponse::decode(&mut Reader::new(&bytes), 3).unwrap_err();
    assert_eq!(error.kind, WireErrorKind::TaggedFieldLength { tag: 3, length: 2 });
}

#[test]
fn tagged_fields_are_written_only_when_they_differ_from_their_defaults() {
    let plain = ApiVersionsResponse::default();
    let bytes = written(|writer| plain.encode(writer, 3)).unwrap();
    assert_eq!(bytes.as_ref(), [0, 0, 1, 0, 0, 0, 0, 0]);
    let ready = ApiVersionsResponse { finalized_features_epoch: 2, zk_migration_ready: true, ..plain };
    let bytes = written(|writer| ready.encode(writer, 3)).unwrap();
    assert_eq!(bytes.as_ref(), [0, 0, 1, 0, 0, 0, 0, 2, 1, 8, 0, 0, 0, 0, 0, 0, 0, 2, 3, 1, 1]);
}

#[test]
fn a_value_without_room_in_the_version_is_dropped_if_ignorable_and_refused_otherwise() {
    let response = MetadataResponse { cluster_id: Some("c".into()), throttle_time_ms: 9, ..Default::default() };
    let bytes = written(|writer| response.encode(writer, 0)).unwrap();
    assert_eq!(bytes.as_ref(), [0; 8]);

    let request = MetadataRequest { allow_auto_topic_creation: false, ..Default::default() };
    let error = written(|writer| request.encode(writer, 3)).unwrap_err();
    assert_eq!(error.kind, WireErrorKind::CannotCarry { version: 3 });
    assert_eq!(error.field, "MetadataRequest.allow_auto_topic_creation");
}

#[test]
fn null_is_an_error_in_versions_without_it_both_ways() {
    let all = MetadataRequest { topics: None, ..Default::default() };
    let error = written(|writer| all.encode(writer, 0)).unwrap_err();
    assert_eq!((error.kind, error.field), (WireErrorKind::Null, "MetadataRequest.topics"));
    assert_eq!(written(|writer| all.encode(writer, 1)).unwrap().as_ref(), [0xff; 4]);

    let error = MetadataRequest::decode(&mut Reader::new(&[0xff; 4]), 0).unwrap_err();
    assert_eq!((error.kind, error.field), (WireErrorKind::Null, "MetadataRequest.topics"));
    assert_eq!(MetadataRequest::decode(&mut Reader::new(&[0xff; 4]), 1), Ok(all));
}

#[test]
fn an_error_names_the_innermost_field_and_the_byte() {
    // One topic, name "ab" cut after its length.
    let error = MetadataRequest::decode(&mut Reader::new(&[0, 0, 0, 1, 0, 2, b'a']), 0).unwrap_err();
    assert_eq!(error.field, "MetadataRequestTopic.name");
    assert_eq!(error.position, 6);
    assert_eq!(error.to_string(), "2 bytes needed, 1 left (field MetadataRequestTopic.name, byte 6)");
}

#[test]
fn an_array_count_beyond_the_bytes_left_takes_no_memory() {
    macro_rules! refused {
        ($message:ident, $version:literal, $bytes:expr) => {
            let error = $message::decode(&mut Reader::new($bytes), $version).unwrap_err();
            assert!(matches!(error.kind, WireErrorKind::ArrayCount { .. }), "{error}");
        };
    }
    refused!(MetadataRequest, 1, &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    refused!(MetadataRequest, 9, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0]);
    // Two topics of at least 18 bytes each do not fit into 35.
    refused!(MetadataRequest, 12, &[[3_u8].as_slice(), &[0; 35]].concat());
    refused!(FindCoordinatorRequest, 4, &[0, 0x80, 0x80, 0x80, 0x01, 0, 0]);
}

#[test]
fn a_message_may_not_grow_beyond_its_memory_in_many_small_arrays() {
    // Each array is within its own bound and within the bytes left; together they are too large. A partition of
    // version 0 takes 16 bytes on the wire and 24 in memory.
    const PARTITIONS: i32 = 1 << 18;
    const _: () = assert!(size_of::<ListOffsetsPartition>() >= 24);
    let topics = wire::DECODED_BYTES_MAX / (24 * PARTITIONS as usize) + 1;
    let mut bytes = vec![0; 4];
    bytes.extend_from_slice(&(topics as i32).to_be_bytes());
    for _ in 0..topics {
        bytes.extend_from_slice(&[0, 1, b't']);
        bytes.extend_from_slice(&PARTITIONS.to_be_bytes());
        bytes.resize(bytes.len() + 16 * PARTITIONS as usize, 0);
    }
    let error = ListOffsetsRequest::decode(&mut Reader::new(&bytes), 0).unwrap_err();
    assert!(matches!(error.kind, WireErrorKind::ArrayCount { .. }), "{error}");
}

#[test]
fn defaults_are_kafkas() {
    assert_eq!(CreateTopicsRequest::default().timeout_ms, 60_000);
    assert!(MetadataRequest::default().allow_auto_topic_creation);
    assert_eq!(MetadataResponseTopic::default().topic_authorized_operations, i32::MIN);
    assert_eq!(FetchRequest::default().max_bytes, i32::MAX);
    assert_eq!(DeleteTopicState::default(), DeleteTopicState { name: None, topic_id: TopicId::ZERO });
    assert_eq!(CreatableTopicResult::default().error_message, Some(String::new()));
}
