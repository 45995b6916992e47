use super::*;
use crate::protocol::api_key::ApiKey;
use crate::protocol::frame::{FRAME_PREFIX_BYTES, SOCKET_REQUEST_MAX_BYTES, frame_length};
use crate::protocol::header::decode_response_header;
use crate::protocol::sample::Sampler;
use crate::protocol::wire::{Reader, WireErrorKind};

fn spans(response: &mut FetchResponse) -> impl Iterator<Item = &mut RecordsSpan> {
    let partitions = response.responses.iter_mut().flat_map(|topic| &mut topic.partitions);
    partitions.filter_map(|partition| partition.records.as_mut())
}

/// The frame as a client receives it: the n-th records are made of byte n.
fn assembled(parts: &FetchResponseParts, lengths: &[usize]) -> Vec<u8> {
    let mut frame = parts.chunks[0].to_vec();
    let gaps = lengths.iter().filter(|length| **length > 0);
    assert_eq!(gaps.clone().count(), parts.chunks.len() - 1);
    for (index, (length, chunk)) in gaps.zip(&parts.chunks[1..]).enumerate() {
        frame.resize(frame.len() + length, index as u8);
        frame.extend_from_slice(chunk);
    }
    frame
}

#[test]
fn a_response_sent_in_parts_is_the_response_with_its_records_between() {
    let mut sampler = Sampler::new(3);
    for version in ApiKey::Fetch.versions() {
        for _ in 0..40 {
            let mut response = FetchResponse::sample(&mut sampler, version);
            let lengths: Vec<usize> = spans(&mut response).map(|span| span.length).collect();
            let parts = response.encode_parts(11, version).unwrap();
            let frame = assembled(&parts, &lengths);
            assert_eq!(frame.len(), parts.total_bytes);

            let (prefix, message) = frame.split_first_chunk::<FRAME_PREFIX_BYTES>().unwrap();
            assert_eq!(frame_length(*prefix, SOCKET_REQUEST_MAX_BYTES), Ok(message.len()));
            let mut reader = Reader::new(message);
            assert_eq!(decode_response_header(&mut reader, ApiKey::Fetch, version), Ok(11));
            let mut read = FetchResponse::decode(&mut reader, version).unwrap();
            assert_eq!(reader.remaining(), 0);

            let mut gap = 0;
            for span in spans(&mut read) {
                assert!(message[span.range()].iter().all(|byte| *byte == gap));
                gap += u8::from(span.length > 0);
                span.start = 0;
            }
            assert_eq!(read, response, "version {version}");
        }
    }
}

#[test]
fn a_response_cut_at_any_byte_is_an_error() {
    let mut sampler = Sampler::new(4);
    for version in ApiKey::Fetch.versions() {
        let mut response = FetchResponse::sample(&mut sampler, version);
        let lengths: Vec<usize> = spans(&mut response).map(|span| span.length).collect();
        let frame = assembled(&response.encode_parts(0, version).unwrap(), &lengths);
        let header_bytes = if ApiKey::Fetch.is_flexible(version) { 5 } else { 4 };
        let body = &frame[FRAME_PREFIX_BYTES + header_bytes..];
        for end in 0..body.len() {
            assert!(FetchResponse::decode(&mut Reader::new(&body[..end]), version).is_err(), "{version}: {end}");
        }
    }
}

#[test]
fn the_bytes_of_a_version_4_response_are_these() {
    let partition = PartitionData {
        high_watermark: 2,
        last_stable_offset: 1,
        aborted_transactions: None,
        records: Some(RecordsSpan::of_length(3)),
        ..Default::default()
    };
    let topic = FetchableTopicResponse { topic: "t".into(), partitions: vec![partition], ..Default::default() };
    let response = FetchResponse { responses: vec![topic], ..Default::default() };
    let parts = response.encode_parts(9, 4).unwrap();
    #[rustfmt::skip]
    let first = [
        0, 0, 0, 52,                    // size
        0, 0, 0, 9,                     // correlation id
        0, 0, 0, 0,                     // throttle time
        0, 0, 0, 1, 0, 1, b't',         // one topic
        0, 0, 0, 1, 0, 0, 0, 0, 0, 0,   // one partition, no error
        0, 0, 0, 0, 0, 0, 0, 2,         // high watermark
        0, 0, 0, 0, 0, 0, 0, 1,         // last stable offset
        255, 255, 255, 255,             // no list of aborted transactions
        0, 0, 0, 3,                     // bytes of records
    ];
    assert_eq!(parts.chunks, [&first[..], &[]]);
    assert_eq!(parts.total_bytes, first.len() + 3);
}

#[test]
fn partitions_without_records_leave_no_gap() {
    let empty = PartitionData { records: Some(RecordsSpan::of_length(0)), ..Default::default() };
    let null = PartitionData::default();
    let topic = FetchableTopicResponse { partitions: vec![empty, null], ..Default::default() };
    let response = FetchResponse { responses: vec![topic], ..Default::default() };
    assert_eq!(response.encode_parts(0, 11).unwrap().chunks.len(), 1);
}

#[test]
fn a_frame_of_two_gib_is_refused_before_a_byte_is_sent() {
    let huge = PartitionData { records: Some(RecordsSpan::of_length(1 << 30)), ..Default::default() };
    let topic = FetchableTopicResponse { partitions: vec![huge.clone(), huge], ..Default::default() };
    let response = FetchResponse { responses: vec![topic], ..Default::default() };
    let error = response.encode_parts(0, 11).unwrap_err();
    assert!(matches!(error.kind, WireErrorKind::TooLong { .. }), "{error}");
}

#[test]
fn chunks_of_a_common_response_share_one_allocation_without_growing() {
    let partition = PartitionData { records: Some(RecordsSpan::of_length(9)), ..Default::default() };
    let topic = FetchableTopicResponse {
        topic: "a topic".into(),
        partitions: vec![PartitionData { aborted_transactions: None, ..partition }; 100],
        ..Default::default()
    };
    let bytes = expected_bytes(&topic);
    let response = FetchResponse { responses: vec![topic], ..Default::default() };
    for version in [4, 11, 12, 17] {
        let parts = response.encode_parts(0, version).unwrap();
        let chunk_bytes: usize = parts.chunks.iter().map(Bytes::len).sum();
        assert!(chunk_bytes <= bytes + 256, "version {version}: {chunk_bytes} bytes");
        for pair in parts.chunks.windows(2) {
            assert_eq!(pair[0].as_ptr_range().end, pair[1].as_ptr(), "version {version}");
        }
    }
}
