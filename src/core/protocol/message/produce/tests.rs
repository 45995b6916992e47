use super::*;
use crate::protocol::sample::Sampler;

type OwnedTopic = (String, Vec<(i32, Option<Vec<u8>>)>);

fn sample_topics(sampler: &mut Sampler) -> Vec<OwnedTopic> {
    let records = |sampler: &mut Sampler| {
        let length = sampler.below(200);
        (!sampler.one_in(4)).then(|| sampler.bytes(length))
    };
    let partitions = |sampler: &mut Sampler| {
        (0..sampler.below(4)).map(|_| (sampler.integer() as i32, records(sampler))).collect::<Vec<_>>()
    };
    (0..sampler.below(4)).map(|_| (sampler.text(), partitions(sampler))).collect()
}

fn encoded(transactional_id: Option<&str>, topics: &[OwnedTopic], version: i16) -> Vec<u8> {
    let partitions: Vec<Vec<_>> = topics
        .iter()
        .map(|(_, partitions)| partitions.iter().map(|(index, records)| (*index, records.as_deref())).collect())
        .collect();
    let topics: Vec<_> = topics.iter().zip(&partitions).map(|(topic, list)| (topic.0.as_str(), &list[..])).collect();
    let request = ProduceRequestToSend { transactional_id, acks: -1, timeout_ms: 30_000, topics: &topics };
    let mut writer = Writer::new();
    request.encode(&mut writer, version).unwrap();
    writer.into_bytes().to_vec()
}

#[test]
fn a_request_reads_back_with_its_records_where_they_lie() {
    let mut sampler = Sampler::new(5);
    for version in ApiKey::Produce.versions() {
        for _ in 0..40 {
            let sent = sample_topics(&mut sampler);
            let transactional_id = (version >= 3 && sampler.one_in(2)).then(|| sampler.text());
            let body = encoded(transactional_id.as_deref(), &sent, version);
            let request = ProduceRequest::decode(&body, version).unwrap();
            assert_eq!(request.transactional_id.as_deref(), transactional_id.as_deref());
            assert_eq!((request.acks, request.timeout_ms), (-1, 30_000));
            let received: Vec<OwnedTopic> = request.topic_data.iter().map(|topic| owned(&body, topic)).collect();
            assert_eq!(received, sent, "version {version}");
        }
    }
}

fn owned(body: &[u8], topic: &TopicProduceData<'_>) -> OwnedTopic {
    let records = |range: &Option<Range<usize>>| range.clone().map(|range| body[range].to_vec());
    let partitions = topic.partition_data.iter().map(|partition| (partition.index, records(&partition.records)));
    (topic.name.clone().into_owned(), partitions.collect())
}

#[test]
fn a_request_cut_at_any_byte_is_an_error() {
    let mut sampler = Sampler::new(6);
    for version in ApiKey::Produce.versions() {
        let body = encoded(None, &sample_topics(&mut sampler), version);
        for end in 0..body.len() {
            assert!(ProduceRequest::decode(&body[..end], version).is_err(), "{version}: {end} of {}", body.len());
        }
    }
}

#[test]
fn counts_and_sizes_beyond_the_body_are_refused() {
    let mut body = vec![255, 255, 0, 1, 0, 0, 0, 9];
    body.extend_from_slice(&i32::MAX.to_be_bytes());
    let error = ProduceRequest::decode(&body, 3).unwrap_err();
    assert_eq!(error.kind, WireErrorKind::ArrayCount { count: i32::MAX as usize });

    let mut body = encoded(None, &[("t".into(), vec![(0, Some(vec![0; 10]))])], 3);
    let length_position = body.len() - 14;
    body[length_position..length_position + 4].copy_from_slice(&11_i32.to_be_bytes());
    let error = ProduceRequest::decode(&body, 3).unwrap_err();
    assert_eq!(error.kind, WireErrorKind::Truncated { needed: 11, remaining: 10 });
    body[length_position..length_position + 4].copy_from_slice(&(-2_i32).to_be_bytes());
    assert_eq!(ProduceRequest::decode(&body, 3).unwrap_err().kind, WireErrorKind::Length { length: -2 });
}

#[test]
fn a_transactional_id_has_no_room_before_version_3() {
    let request = ProduceRequestToSend { transactional_id: Some("x"), acks: 1, timeout_ms: 1, topics: &[] };
    let error = request.encode(&mut Writer::new(), 2).unwrap_err();
    assert_eq!(error.kind, WireErrorKind::CannotCarry { version: 2 });
    assert_eq!(request.encode(&mut Writer::new(), 3), Ok(()));
}

#[test]
fn the_bytes_of_a_version_9_request_are_these() {
    let body = encoded(None, &[("t".into(), vec![(5, Some(vec![7, 7]))])], 9);
    #[rustfmt::skip]
    let expected = [
        0,                      // no transactional id
        255, 255,               // acks
        0, 0, 0x75, 0x30,       // timeout
        2, 2, b't',             // one topic
        2, 0, 0, 0, 5,          // one partition
        3, 7, 7,                // its records
        0, 0, 0,                // no tagged fields: partition, topic, request
    ];
    assert_eq!(body, expected);
}
