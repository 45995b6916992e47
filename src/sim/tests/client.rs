use bytes::{Bytes, BytesMut};

use super::{PARTITIONS, TOPIC};
use crate::partition::partition::CONSUMER;
use crate::platform::Socket;
use crate::protocol::header::{RequestHeader, begin_request, decode_response_header, finish_frame};
use crate::protocol::message::*;
use crate::protocol::{ApiKey, Reader, WireError, Writer};
use crate::record::batch::{BatchBuilder, batches, decode_records};
use crate::record::compression::Codec;
use crate::sim::socket::SimSocket;

pub(super) const FETCH_VERSION: i16 = 11;
pub(super) const PRODUCE_VERSION: i16 = 9;
const METADATA_VERSION: i16 = 12;
const CREATE_TOPICS_VERSION: i16 = 5;
const DELETE_TOPICS_VERSION: i16 = 5;
const TIMEOUT_MS: i32 = 10_000;

/// One batch of one record.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub acks: i16,
    pub partition: i32,
    /// Producer id and sequence.
    pub producer: Option<(i64, i32)>,
    pub value: Vec<u8>,
}

/// Records with their offsets, and the high watermark; or the error code.
pub(super) type Fetched = Result<(Vec<(i64, Vec<u8>)>, i64), i16>;

/// Requests and answers over one simulated connection.
pub(super) struct Client {
    pub(super) socket: SimSocket,
    received: BytesMut,
    correlation_id: i32,
}

impl Client {
    pub fn new(socket: SimSocket) -> Client {
        Client { socket, received: BytesMut::new(), correlation_id: 0 }
    }

    /// Sends a request and does not wait for its answer; `None` when the connection is gone.
    pub async fn post(
        &mut self,
        key: ApiKey,
        version: i16,
        encode: impl FnOnce(&mut Writer) -> Result<(), WireError>,
    ) -> Option<()> {
        self.correlation_id += 1;
        let header = RequestHeader {
            api_key: key.code(),
            api_version: version,
            correlation_id: self.correlation_id,
            client_id: Some("sim".into()),
        };
        let mut writer = begin_request(&header).expect("a header");
        encode(&mut writer).expect("a body");
        let frame: Bytes = finish_frame(writer).expect("a frame").freeze();
        self.socket.send(frame, false).await.ok()
    }

    /// The body of the answer, or `None` when the connection is gone.
    pub async fn ask(
        &mut self,
        key: ApiKey,
        version: i16,
        encode: impl FnOnce(&mut Writer) -> Result<(), WireError>,
    ) -> Option<BytesMut> {
        self.post(key, version, encode).await?;
        let (correlation_id, body) = self.answer(key, version).await?;
        assert_eq!(correlation_id, self.correlation_id);
        Some(body)
    }

    /// The next answer: its correlation id and its body.
    pub async fn answer(&mut self, key: ApiKey, version: i16) -> Option<(i32, BytesMut)> {
        let mut body = self.frame().await?;
        let mut reader = Reader::new(&body);
        let correlation_id = decode_response_header(&mut reader, key, version).expect("a header");
        let start = reader.position();
        Some((correlation_id, body.split_off(start)))
    }

    async fn frame(&mut self) -> Option<BytesMut> {
        loop {
            if self.received.len() >= 4 {
                let length = u32::from_be_bytes(self.received[..4].try_into().expect("four")) as usize;
                if self.received.len() >= 4 + length {
                    return Some(self.received.split_to(4 + length).split_off(4));
                }
            }
            let chunk = self.socket.receive().await.ok()?;
            if chunk.is_empty() {
                return None;
            }
            self.received.extend_from_slice(&chunk);
        }
    }

    pub async fn create_topic(&mut self) -> Option<()> {
        let topics = vec![MetadataRequestTopic { name: Some(TOPIC.into()), ..MetadataRequestTopic::default() }];
        let request = MetadataRequest { topics: Some(topics), ..MetadataRequest::default() };
        let body = self.ask(ApiKey::Metadata, METADATA_VERSION, |w| request.encode(w, METADATA_VERSION)).await?;
        let response = MetadataResponse::decode(&mut Reader::new(&body), METADATA_VERSION).expect("metadata");
        assert_eq!(response.topics[0].error_code, 0);
        assert_eq!(response.topics[0].partitions.len(), PARTITIONS as usize);
        Some(())
    }

    /// Makes the topic with one partition; the error code.
    pub async fn create_small_topic(&mut self) -> Option<i16> {
        self.create_named(TOPIC, 1).await
    }

    pub async fn create_named(&mut self, name: &str, num_partitions: i32) -> Option<i16> {
        let topic =
            CreatableTopic { name: name.into(), num_partitions, replication_factor: 1, ..CreatableTopic::default() };
        let request =
            CreateTopicsRequest { topics: vec![topic], timeout_ms: TIMEOUT_MS, ..CreateTopicsRequest::default() };
        let version = CREATE_TOPICS_VERSION;
        let body = self.ask(ApiKey::CreateTopics, version, |w| request.encode(w, version)).await?;
        Some(CreateTopicsResponse::decode(&mut Reader::new(&body), version).expect("created").topics[0].error_code)
    }

    pub async fn delete_topic(&mut self) -> Option<i16> {
        self.delete_named(TOPIC).await
    }

    pub async fn delete_named(&mut self, name: &str) -> Option<i16> {
        let request = DeleteTopicsRequest {
            topic_names: vec![name.into()],
            timeout_ms: TIMEOUT_MS,
            ..DeleteTopicsRequest::default()
        };
        let version = DELETE_TOPICS_VERSION;
        let body = self.ask(ApiKey::DeleteTopics, version, |w| request.encode(w, version)).await?;
        Some(DeleteTopicsResponse::decode(&mut Reader::new(&body), version).expect("deleted").responses[0].error_code)
    }

    /// Appends one record; its offset, or the error.
    pub async fn produce(&mut self, acks: i16, partition: i32, value: &[u8]) -> Option<Result<i64, i16>> {
        self.send(&Batch { acks, partition, producer: None, value: value.to_vec() }).await
    }

    pub async fn produce_to(&mut self, topic: &str, partition: i32, value: &[u8]) -> Option<Result<i64, i16>> {
        self.send_to(topic, &Batch { acks: 1, partition, producer: None, value: value.to_vec() }).await
    }

    /// Appends one batch; its offset, or the error.
    pub async fn send(&mut self, what: &Batch) -> Option<Result<i64, i16>> {
        self.send_to(TOPIC, what).await
    }

    pub async fn send_to(&mut self, topic: &str, what: &Batch) -> Option<Result<i64, i16>> {
        let mut builder = BatchBuilder::new(Codec::None);
        if let Some((id, sequence)) = what.producer {
            builder = builder.producer(id, 0, sequence);
        }
        builder.push(1_700_000_000_000, None, Some(&what.value), &[]);
        let batch = builder.build();
        let request = ProduceRequestToSend {
            transactional_id: None,
            acks: what.acks,
            timeout_ms: TIMEOUT_MS,
            topics: &[(topic, &[(what.partition, Some(&batch[..]))])],
        };
        let body = self.ask(ApiKey::Produce, PRODUCE_VERSION, |w| request.encode(w, PRODUCE_VERSION)).await?;
        let response = ProduceResponse::decode(&mut Reader::new(&body), PRODUCE_VERSION).expect("produced");
        let answer = &response.responses[0].partition_responses[0];
        Some(if answer.error_code == 0 { Ok(answer.base_offset) } else { Err(answer.error_code) })
    }

    /// Records from `offset` on, up to some bytes, and the high watermark.
    pub async fn fetch(&mut self, partition: i32, offset: i64, max_wait_ms: i32) -> Option<(Vec<(i64, Vec<u8>)>, i64)> {
        Some(self.try_fetch(partition, offset, max_wait_ms).await?.expect("no error"))
    }

    pub async fn try_fetch(&mut self, partition: i32, offset: i64, max_wait_ms: i32) -> Option<Fetched> {
        self.fetch_as(CONSUMER, partition, offset, max_wait_ms).await
    }

    /// The same by a replica: up to the log end, which its leader then knows that it has to `offset`.
    pub async fn fetch_as(
        &mut self,
        replica_id: i32,
        partition: i32,
        offset: i64,
        max_wait_ms: i32,
    ) -> Option<Fetched> {
        let asked =
            FetchPartition { partition, fetch_offset: offset, partition_max_bytes: 500, ..FetchPartition::default() };
        let request = FetchRequest {
            replica_id,
            max_wait_ms,
            min_bytes: 1,
            topics: vec![FetchTopic { topic: TOPIC.into(), partitions: vec![asked], ..FetchTopic::default() }],
            ..FetchRequest::default()
        };
        let body = self.ask(ApiKey::Fetch, FETCH_VERSION, |w| request.encode(w, FETCH_VERSION)).await?;
        let response = FetchResponse::decode(&mut Reader::new(&body), FETCH_VERSION).expect("fetched");
        let answer = &response.responses[0].partitions[0];
        if answer.error_code != 0 {
            return Some(Err(answer.error_code));
        }
        let records = answer.records.map(|span| &body[span.range()]).unwrap_or_default();
        let mut found = Vec::new();
        for batch in batches(records) {
            let Ok((_, batch)) = batch else { break };
            for record in decode_records(batch, 1 << 20).expect("sound records") {
                if record.offset >= offset {
                    found.push((record.offset, record.value.unwrap_or_default().to_vec()));
                }
            }
        }
        Some(Ok((found, answer.high_watermark)))
    }

    pub async fn fetch_all(&mut self, partition: i32) -> Option<Vec<(i64, Vec<u8>)>> {
        let mut all: Vec<(i64, Vec<u8>)> = Vec::new();
        loop {
            let next = all.last().map_or(0, |(offset, _)| offset + 1);
            let (found, high_watermark) = self.fetch(partition, next, 0).await?;
            all.extend(found);
            if all.last().map_or(0, |(offset, _)| offset + 1) >= high_watermark {
                return Some(all);
            }
        }
    }
}

/// Of an answer to a fetch in [`FETCH_VERSION`]: by partition of the topic, the offset after the last record that came.
pub(super) fn ends_of(body: &[u8]) -> Vec<(i32, i64)> {
    let response = FetchResponse::decode(&mut Reader::new(body), FETCH_VERSION).expect("fetched");
    let ours = response.responses.iter().filter(|topic| &*topic.topic == TOPIC).flat_map(|topic| &topic.partitions);
    ours.filter_map(|answer| {
        let records = answer.records.as_ref().map(|span| &body[span.range()])?;
        let last = batches(records).map_while(Result::ok).last()?;
        Some((answer.partition_index, last.0.last_offset() + 1))
    })
    .collect()
}
