//! A client of raw frames, blocking, for what real clients can't be made to send.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use nix::sys::socket::{setsockopt, sockopt};
use ringlog::protocol::frame::{FRAME_PREFIX_BYTES, SOCKET_REQUEST_MAX_BYTES, frame_length};
use ringlog::protocol::header::{RequestHeader, begin_request, decode_response_header, finish_frame};
use ringlog::protocol::message::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest, CreateTopicsResponse,
};
use ringlog::protocol::message::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData};
use ringlog::protocol::message::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use ringlog::protocol::message::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponse};
use ringlog::protocol::message::produce::{PartitionProduceResponse, ProduceRequestToSend, ProduceResponse};
use ringlog::protocol::{ApiKey, Reader, WireError, Writer};
use ringlog::record::batch::{Record, batches, decode_records, has_valid_crc};

use crate::server::DEADLINE;

const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;
const FETCH_BYTES: i32 = 4 << 20;

/// One connection.
pub struct Wire {
    stream: TcpStream,
    correlation_id: i32,
}

/// Sends a request and reads its answer: `ask!(wire, version, request, Response)`.
macro_rules! ask {
    ($wire:expr, $version:expr, $request:expr, $response:ident) => {{
        let (version, request) = ($version, $request);
        let answer = $wire
            .call($response::API_KEY, version, |writer| request.encode(writer, version))
            .expect(concat!("an answer of ", stringify!($response)));
        let mut reader = ringlog::protocol::Reader::new(&answer);
        ringlog::protocol::header::decode_response_header(&mut reader, $response::API_KEY, version).expect("a header");
        let response = $response::decode(&mut reader, version).expect("a body");
        assert_eq!(reader.remaining(), 0, "bytes behind a {} v{version}", stringify!($response));
        response
    }};
}
pub(crate) use ask;

impl Wire {
    pub fn connect(address: SocketAddr) -> Wire {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_nodelay(true).expect("set");
        stream.set_read_timeout(Some(DEADLINE)).expect("set");
        Wire { stream, correlation_id: 0 }
    }

    /// Sends a request of any key and version; gives its correlation id.
    pub fn send(
        &mut self,
        key: ApiKey,
        version: i16,
        body: impl FnOnce(&mut Writer) -> Result<(), WireError>,
    ) -> io::Result<i32> {
        self.correlation_id += 1;
        let (api_key, correlation_id) = (key.code(), self.correlation_id);
        let header = RequestHeader { api_key, api_version: version, correlation_id, client_id: Some("test".into()) };
        let mut writer = begin_request(&header).expect("a header");
        body(&mut writer).expect("a body that this version can carry");
        self.stream.write_all(&finish_frame(writer).expect("a frame"))?;
        Ok(correlation_id)
    }

    /// Sends no more; answers may still come.
    pub fn shut_down_sending(&self) {
        self.stream.shutdown(std::net::Shutdown::Write).expect("shut down");
    }

    /// Has the kernel take next to nothing that is not read.
    pub fn take_little(&self) {
        setsockopt(&self.stream, sockopt::RcvBuf, &4096).expect("set");
    }

    /// Sends bytes as they are.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends bytes as one frame.
    pub fn send_frame(&mut self, frame: &[u8]) -> io::Result<()> {
        let length = i32::try_from(frame.len()).expect("a frame's length");
        self.stream.write_all(&[&length.to_be_bytes(), frame].concat())
    }

    /// The next frame; `UnexpectedEof` or a reset: the broker has closed the connection.
    pub fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut prefix = [0; FRAME_PREFIX_BYTES];
        self.stream.read_exact(&mut prefix)?;
        let mut frame = vec![0; frame_length(prefix, SOCKET_REQUEST_MAX_BYTES).expect("a length")];
        self.stream.read_exact(&mut frame)?;
        Ok(frame)
    }

    /// Sends a request and gives its answer, header and all.
    pub fn call(
        &mut self,
        key: ApiKey,
        version: i16,
        body: impl FnOnce(&mut Writer) -> Result<(), WireError>,
    ) -> io::Result<Vec<u8>> {
        let sent = self.send(key, version, body)?;
        let answer = self.receive()?;
        let id = decode_response_header(&mut Reader::new(&answer), key, version).expect("a header");
        assert_eq!(id, sent, "answers come in order");
        Ok(answer)
    }

    /// Creates a topic and gives its error code.
    pub fn create_topic(&mut self, name: &str, num_partitions: i32) -> i16 {
        self.create_topic_with(name, num_partitions, &[])
    }

    /// The same with settings of its own.
    pub fn create_topic_with(&mut self, name: &str, num_partitions: i32, settings: &[(&str, &str)]) -> i16 {
        let configs = settings
            .iter()
            .map(|(name, value)| CreatableTopicConfig { name: (*name).into(), value: Some((*value).into()) });
        let topic = CreatableTopic {
            name: name.to_owned(),
            num_partitions,
            replication_factor: 1,
            configs: configs.collect(),
            ..Default::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], ..Default::default() };
        ask!(self, 7, request, CreateTopicsResponse).topics[0].error_code
    }

    pub fn metadata(&mut self, topic: &str) -> MetadataResponse {
        let topic = MetadataRequestTopic { name: Some(topic.to_owned()), ..Default::default() };
        ask!(self, 12, MetadataRequest { topics: Some(vec![topic]), ..Default::default() }, MetadataResponse)
    }

    /// Asks for a topic, which creates it, until all its partitions have leaders; gives their count.
    pub fn wait_for_topic(&mut self, name: &str) -> usize {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let partitions = &self.metadata(name).topics[0].partitions;
            if !partitions.is_empty() && partitions.iter().all(|partition| partition.leader_id >= 0) {
                return partitions.len();
            }
            assert!(Instant::now() < deadline, "{name} gets no leaders");
        }
    }

    /// A new producer id and its epoch, for an idempotent producer.
    pub fn new_producer(&mut self) -> (i64, i16) {
        let request = InitProducerIdRequest { transactional_id: None, ..Default::default() };
        let response = ask!(self, 4, request, InitProducerIdResponse);
        assert_eq!(response.error_code, 0);
        (response.producer_id, response.producer_epoch)
    }

    /// Sends records to a partition without waiting.
    pub fn send_produce(
        &mut self,
        version: i16,
        acks: i16,
        topic: &str,
        partition: i32,
        records: &[u8],
    ) -> io::Result<i32> {
        let topics: &[(&str, &[(i32, Option<&[u8]>)])] = &[(topic, &[(partition, Some(records))])];
        let request = ProduceRequestToSend { transactional_id: None, acks, timeout_ms: 30_000, topics };
        self.send(ApiKey::Produce, version, |writer| request.encode(writer, version))
    }

    /// The next answer to a Produce request of one partition.
    pub fn receive_produce(&mut self, version: i16) -> io::Result<(i32, PartitionProduceResponse)> {
        let answer = self.receive()?;
        let mut reader = Reader::new(&answer);
        let id = decode_response_header(&mut reader, ApiKey::Produce, version).expect("a header");
        let response = ProduceResponse::decode(&mut reader, version).expect("a body");
        Ok((id, response.responses[0].partition_responses[0].clone()))
    }

    /// The next answer to a Produce request of one topic: its correlation id, and what is said of each partition.
    pub fn receive_produced(&mut self, version: i16) -> io::Result<(i32, Vec<PartitionProduceResponse>)> {
        let answer = self.receive()?;
        let mut reader = Reader::new(&answer);
        let id = decode_response_header(&mut reader, ApiKey::Produce, version).expect("a header");
        let mut response = ProduceResponse::decode(&mut reader, version).expect("a body");
        assert_eq!(response.responses.len(), 1);
        Ok((id, response.responses.remove(0).partition_responses))
    }

    pub fn produce(&mut self, version: i16, topic: &str, partition: i32, records: &[u8]) -> PartitionProduceResponse {
        self.send_produce(version, -1, topic, partition, records).expect("sent");
        self.receive_produce(version).expect("answered").1
    }

    /// One Fetch of one partition; gives what was said of it, and its bytes.
    pub fn fetch(
        &mut self,
        topic: &str,
        partition: i32,
        fetch_offset: i64,
        bytes_max: i32,
    ) -> (PartitionData, Vec<u8>) {
        const VERSION: i16 = 11;
        let partition =
            FetchPartition { partition, fetch_offset, partition_max_bytes: bytes_max, ..Default::default() };
        let topics = vec![FetchTopic { topic: topic.into(), partitions: vec![partition], ..Default::default() }];
        let request =
            FetchRequest { max_wait_ms: 500, min_bytes: 1, max_bytes: bytes_max, topics, ..Default::default() };
        let answer =
            self.call(ApiKey::Fetch, VERSION, |writer| request.encode(writer, VERSION)).expect("an answer to Fetch");
        let mut reader = Reader::new(&answer);
        decode_response_header(&mut reader, ApiKey::Fetch, VERSION).expect("a header");
        let response = FetchResponse::decode(&mut reader, VERSION).expect("a body");
        let data = response.responses[0].partitions[0].clone();
        let records = data.records.map_or(0..0, |span| span.range());
        (data, answer[records].to_vec())
    }

    /// Every record from the partition's beginning to its high watermark.
    pub fn read_all(&mut self, topic: &str, partition: i32) -> Vec<Record> {
        let mut records: Vec<Record> = Vec::new();
        let mut next = 0;
        loop {
            let (data, bytes) = self.fetch(topic, partition, next, FETCH_BYTES);
            assert_eq!(data.error_code, 0, "Fetch of {topic}-{partition} from {next}");
            let before = next;
            for (header, batch) in batches(&bytes).map_while(Result::ok) {
                assert!(has_valid_crc(batch), "the CRC of {topic}-{partition} at {}", header.base_offset);
                let decoded = decode_records(batch, DECOMPRESSED_BYTES_MAX).expect("records");
                records.extend(decoded.into_iter().filter(|record| record.offset >= next));
                next = header.last_offset() + 1;
            }
            if next >= data.high_watermark {
                return records;
            }
            assert!(next > before, "{topic}-{partition} gives nothing at {before}");
        }
    }
}
