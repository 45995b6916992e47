//! Headers, frames, and every request and response in every version.

use std::collections::BTreeMap;

use bytes::BytesMut;
use ringlog::net::frames::{Cut, FrameCutter, LARGE_FRAME_BYTES};
use ringlog::protocol::fuzz::{fuzz_decode_kept, fuzz_decode_request, fuzz_decode_response};
use ringlog::protocol::message::*;
use ringlog::protocol::{ApiKey, Writer};

use crate::corpus;
use crate::harness::{check, of_bytes};

fn key_of(name: &str) -> ApiKey {
    *ApiKey::ALL.iter().find(|key| key.name() == name).unwrap_or_else(|| panic!("{name} is no API"))
}

/// Header of a request, from a client without a name.
fn request_header(key: ApiKey, version: i16) -> Vec<u8> {
    let mut header = [key.code().to_be_bytes(), version.to_be_bytes()].concat();
    header.extend_from_slice(&[0, 0, 0, 1, 0xff, 0xff]);
    header.extend((key.request_header_version(version) == 2).then_some(0));
    header
}

fn response_header(key: ApiKey, version: i16) -> Vec<u8> {
    let mut header = vec![0, 0, 0, 1];
    header.extend((key.response_header_version(version) == 1).then_some(0));
    header
}

/// Bodies, each behind its version, of the messages whose names end so.
fn by_api(suffix: &str) -> BTreeMap<ApiKey, Vec<Vec<u8>>> {
    let mut found: BTreeMap<ApiKey, Vec<Vec<u8>>> = BTreeMap::new();
    for body in corpus::bodies() {
        if let Some(name) = body.message.strip_suffix(suffix) {
            found.entry(key_of(name)).or_default().push([&body.version.to_be_bytes()[..], &body.bytes].concat());
        }
    }
    found
}

#[test]
fn every_request_is_decoded_or_refused() {
    for (key, corpus) in by_api("Request") {
        let body = move |input: &[u8]| {
            let Some((version, body)) = input.split_first_chunk() else { return };
            let version = i16::from_be_bytes(*version);
            fuzz_decode_request(&[&request_header(key, version), body].concat());
        };
        check(of_bytes(format!("{key}Request"), corpus, None, body));
    }
}

#[test]
fn every_response_is_decoded_or_refused() {
    for (key, corpus) in by_api("Response") {
        let body = move |input: &[u8]| {
            let Some((version, body)) = input.split_first_chunk() else { return };
            let version = i16::from_be_bytes(*version);
            fuzz_decode_response(key, version, &[&response_header(key, version), body].concat());
        };
        check(of_bytes(format!("{key}Response"), corpus, None, body));
    }
}

fn request_frames() -> Vec<Vec<u8>> {
    let frames = corpus::bodies().into_iter().filter_map(|body| {
        let key = key_of(body.message.strip_suffix("Request")?);
        Some([request_header(key, body.version), body.bytes].concat())
    });
    frames.collect()
}

#[test]
fn any_api_may_be_named_in_a_header() {
    check(of_bytes("request header", request_frames(), None, fuzz_decode_request));
}

/// Of every version, with an element in each array.
fn kept_messages() -> Vec<Vec<u8>> {
    fn each_version<M: KeptMessage>(all: &mut Vec<Vec<u8>>, message: &M) {
        for version in M::VERSIONS {
            let mut writer = Writer::new();
            message.encode(&mut writer, version).expect("a version of the table");
            all.push(writer.into_bytes().to_vec());
        }
    }
    let partitions = vec![ConsumerProtocolPartitions { topic: "t".to_owned(), partitions: vec![0, 1] }];
    let mut all = Vec::new();
    each_version(
        &mut all,
        &ConsumerProtocolSubscription {
            topics: vec!["t".to_owned()],
            owned_partitions: partitions.clone(),
            ..Default::default()
        },
    );
    let assignment = ConsumerProtocolAssignment { assigned_partitions: partitions, user_data: None };
    each_version(&mut all, &assignment);
    each_version(&mut all, &GroupMetadataKey { group: "group".to_owned() });
    each_version(&mut all, &GroupMetadataValue { members: vec![GroupMemberMetadata::default()], ..Default::default() });
    each_version(&mut all, &OffsetCommitKey::default());
    each_version(&mut all, &OffsetCommitValue::default());
    each_version(&mut all, &TransactionLogKey { transactional_id: "id".to_owned() });
    let topics = vec![TransactionPartitions { topic: "t".to_owned(), partition_ids: vec![0, 1] }];
    each_version(&mut all, &TransactionLogValue { transaction_partitions: Some(topics), ..Default::default() });
    all
}

#[test]
fn what_is_kept_in_records_is_decoded_or_refused() {
    check(of_bytes("kept messages", kept_messages(), None, fuzz_decode_kept));
}

#[test]
fn frames_are_cut_from_any_stream() {
    const LENGTH_MAX: usize = 1 << 20;
    let framed = request_frames().into_iter().map(|frame| [&(frame.len() as i32).to_be_bytes()[..], &frame].concat());
    let all: Vec<Vec<u8>> = framed.collect();
    let corpus = all.chunks(2).map(<[Vec<u8>]>::concat).collect();
    check(of_bytes("frames", corpus, None, |stream| {
        let (mut cutter, mut cut_bytes) = (FrameCutter::default(), 0);
        // The first byte says in which chunks the stream comes.
        for chunk in stream.chunks(usize::from(*stream.first().unwrap_or(&0)) + 1) {
            cutter.push(BytesMut::from(chunk));
            loop {
                match cutter.next(LENGTH_MAX) {
                    Ok(Cut::Frame(frame)) => cut_bytes += 4 + frame.len(),
                    Ok(Cut::Large { beginning, length }) => {
                        assert!(beginning.len() < length && (LARGE_FRAME_BYTES + 1..=LENGTH_MAX).contains(&length));
                        return;
                    }
                    Ok(Cut::NeedMore) => break,
                    Err(_) => return,
                }
            }
        }
        assert!(cut_bytes <= stream.len());
    }));
}
