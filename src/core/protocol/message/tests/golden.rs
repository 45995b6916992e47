//! Bodies that Kafka 3.9's own classes wrote (`tests/golden/protocol/README.md`), read and written again.

use super::*;
use crate::protocol::api_key::ApiKey;

const GOLDEN: &str = include_str!("../../../../../tests/golden/protocol/kafka-3.9.0.txt");

/// One line of the file.
struct Body {
    message: &'static str,
    version: i16,
    is_filled: bool,
    bytes: Vec<u8>,
}

fn golden(message: &str) -> Vec<Body> {
    let bodies: Vec<Body> = GOLDEN.lines().filter(|line| !line.starts_with('#')).map(body).collect();
    bodies.into_iter().filter(|body| body.message == message).collect()
}

fn body(line: &'static str) -> Body {
    let mut words = line.split(' ');
    let [message, version, content, hex] = std::array::from_fn(|_| words.next().unwrap());
    let digits = |index| u8::from_str_radix(&hex[index..index + 2], 16).unwrap();
    Body {
        message,
        version: version.parse().unwrap(),
        is_filled: content == "filled",
        bytes: (0..hex.len()).step_by(2).map(digits).collect(),
    }
}

#[test]
fn kafkas_bodies_read_and_write_back_and_kafkas_defaults_are_ours() {
    macro_rules! check {
        ($($api:ident: $request:ident, $response:ident;)*) => {$(
            check!($request);
            check!($response);
        )*};
        ($message:ident) => {
            let bodies = golden(stringify!($message));
            assert_eq!(bodies.len(), 2 * $message::API_KEY.versions().count());
            for Body { version, is_filled, bytes, .. } in bodies {
                let mut reader = Reader::new(&bytes);
                let message = $message::decode(&mut reader, version).unwrap();
                assert_eq!(reader.remaining(), 0, "version {version}: {message:?}");
                let again = written(|writer| message.encode(writer, version)).unwrap();
                assert_eq!(again, bytes, "version {version}: {message:?}");
                if !is_filled {
                    let default = written(|writer| $message::default().encode(writer, version)).unwrap();
                    assert_eq!(default, bytes, "version {version}");
                }
            }
        };
    }
    for_each_message!(check);
}

#[test]
fn kafkas_fetch_responses_read_and_write_back_around_their_records() {
    let bodies = golden("FetchResponse");
    assert_eq!(bodies.len(), 2 * ApiKey::Fetch.versions().count());
    for Body { version, is_filled, bytes, .. } in bodies {
        let response = FetchResponse::decode(&mut Reader::new(&bytes), version).unwrap();
        let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
        let records: Vec<&[u8]> =
            partitions.filter_map(|partition| partition.records).map(|records| &bytes[records.range()]).collect();
        assert_eq!(records.len(), if is_filled { 4 } else { 0 });
        assert!(records.iter().all(|records| records.starts_with(b"records-")));

        let mut writer = Writer::new();
        response.encode(&mut writer, version).unwrap();
        let mut parts = writer.into_chunks().into_iter();
        let mut again = parts.next().unwrap().to_vec();
        for (records, chunk) in records.iter().zip(parts) {
            again.extend_from_slice(records);
            again.extend_from_slice(&chunk);
        }
        assert_eq!(again, bytes, "version {version}");
    }
}

#[test]
fn kafkas_produce_requests_read_and_write_back() {
    let bodies = golden("ProduceRequest");
    assert_eq!(bodies.len(), 2 * ApiKey::Produce.versions().count());
    for Body { version, is_filled, bytes, .. } in bodies {
        let request = ProduceRequest::decode(&bytes, version).unwrap();
        assert_eq!(request.topic_data.len(), if is_filled { 2 } else { 0 });
        assert_eq!(request.transactional_id.is_some(), is_filled && version >= 3);
        let to_send = |data: &PartitionProduceData| (data.index, data.records.clone().map(|range| &bytes[range]));
        let partitions: Vec<Vec<PartitionToSend<'_>>> =
            request.topic_data.iter().map(|topic| topic.partition_data.iter().map(to_send).collect()).collect();
        let names = request.topic_data.iter().map(|topic| &*topic.name);
        let topics: Vec<_> = names.zip(&partitions).map(|(name, list)| (name, &list[..])).collect();
        let ProduceRequest { ref transactional_id, acks, timeout_ms, .. } = request;
        let transactional_id = transactional_id.as_deref();
        let again = ProduceRequestToSend { transactional_id, acks, timeout_ms, topics: &topics };
        assert_eq!(written(|writer| again.encode(writer, version)).unwrap(), bytes, "version {version}");
    }
}

#[test]
fn every_field_of_a_filled_metadata_response_is_where_kafka_put_it() {
    let body = golden("MetadataResponse").pop().unwrap();
    assert_eq!((body.version, body.is_filled), (12, true));
    let response = MetadataResponse::decode(&mut Reader::new(&body.bytes), 12).unwrap();
    // The generator counts up: each value is one more than the last one taken, fields that are not in version 12 and
    // arrays themselves count too.
    assert_eq!(response.throttle_time_ms, 70_043);
    let broker = &response.brokers[0];
    assert_eq!((broker.node_id, broker.port), (70_046, 70_048));
    assert_eq!((broker.host.as_str(), broker.rack.as_deref()), ("text-47", Some("text-49")));
    assert!(response.topics.iter().all(|topic| topic.is_internal && topic.topic_id != TopicId::ZERO));
    let partition = &response.topics[1].partitions[1];
    assert_eq!(partition.leader_epoch, partition.leader_id + 1);
    assert_eq!(partition.leader_id, partition.partition_index + 1);
    assert_eq!(partition.replica_nodes[0], partition.leader_epoch + 2);
    assert_eq!(partition.isr_nodes[0], partition.replica_nodes[1] + 2);
    assert_eq!(partition.offline_replicas[0], partition.isr_nodes[1] + 2);
}
