//! Making sure, before a run, that the topic is there and has leaders.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ringlog::protocol::frame::{FRAME_PREFIX_BYTES, SOCKET_REQUEST_MAX_BYTES, frame_length};
use ringlog::protocol::header::{RequestHeader, begin_request, decode_response_header, finish_frame};
use ringlog::protocol::message::create_topics::{CreatableTopic, CreateTopicsRequest, CreateTopicsResponse};
use ringlog::protocol::message::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponse};
use ringlog::protocol::{ApiKey, ErrorCode, Reader, WireError, Writer};

use crate::LoadError;

const CREATE_TOPICS_VERSION: i16 = 4;
const METADATA_VERSION: i16 = 5;
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Creates the topic unless it exists, and waits until every partition has a leader.
pub fn ensure(address: SocketAddr, name: &str, partitions: i32) -> Result<(), LoadError> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(READY_WITHIN))?;
    create(&mut stream, name, partitions)?;
    let deadline = Instant::now() + READY_WITHIN;
    while !has_leaders(&mut stream, name, partitions)? {
        if Instant::now() > deadline {
            return Err(LoadError::Late(READY_WITHIN));
        }
    }
    Ok(())
}

/// Creates topics `name`0, `name`1 and so on, one after the other, until they have `partitions` in all; the line of JSON.
pub fn create_many(
    address: SocketAddr,
    name: &str,
    partitions: i32,
    topic_partitions: i32,
) -> Result<String, LoadError> {
    let start = Instant::now();
    let (mut left, mut topics) = (partitions, 0);
    while left > 0 {
        let count = left.min(topic_partitions);
        ensure(address, &format!("{name}{topics}"), count)?;
        left -= count;
        topics += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok(serde_json::json!({ "partitions": partitions, "topics": topics, "seconds": seconds }).to_string())
}

fn create(stream: &mut TcpStream, name: &str, partitions: i32) -> Result<(), LoadError> {
    let topic = CreatableTopic {
        name: name.to_owned(),
        num_partitions: partitions,
        replication_factor: 1,
        ..Default::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], ..Default::default() };
    let body = |writer: &mut Writer| request.encode(writer, CREATE_TOPICS_VERSION);
    let frame = ask(stream, ApiKey::CreateTopics, CREATE_TOPICS_VERSION, body)?;
    let mut reader = Reader::new(&frame);
    decode_response_header(&mut reader, ApiKey::CreateTopics, CREATE_TOPICS_VERSION)?;
    let response = CreateTopicsResponse::decode(&mut reader, CREATE_TOPICS_VERSION)?;
    match response.topics.first().map(|topic| topic.error_code) {
        Some(code) if code == 0 || code == ErrorCode::TopicAlreadyExists as i16 => Ok(()),
        Some(code) => Err(LoadError::Refused(code)),
        None => Err(LoadError::Answer("CreateTopics named no topic")),
    }
}

fn has_leaders(stream: &mut TcpStream, name: &str, partitions: i32) -> Result<bool, LoadError> {
    let topic = MetadataRequestTopic { name: Some(name.to_owned()), ..Default::default() };
    let request = MetadataRequest { topics: Some(vec![topic]), ..Default::default() };
    let body = |writer: &mut Writer| request.encode(writer, METADATA_VERSION);
    let frame = ask(stream, ApiKey::Metadata, METADATA_VERSION, body)?;
    let mut reader = Reader::new(&frame);
    decode_response_header(&mut reader, ApiKey::Metadata, METADATA_VERSION)?;
    let response = MetadataResponse::decode(&mut reader, METADATA_VERSION)?;
    let led = response.topics.iter().flat_map(|topic| &topic.partitions).filter(|partition| partition.leader_id >= 0);
    Ok(led.count() >= usize::try_from(partitions).unwrap_or(0))
}

/// Sends one request and reads its answer.
fn ask(
    stream: &mut TcpStream,
    key: ApiKey,
    version: i16,
    body: impl FnOnce(&mut Writer) -> Result<(), WireError>,
) -> Result<Vec<u8>, LoadError> {
    let header =
        RequestHeader { api_key: key.code(), api_version: version, correlation_id: 0, client_id: Some("load".into()) };
    let mut writer = begin_request(&header)?;
    body(&mut writer)?;
    stream.write_all(&finish_frame(writer)?)?;
    let mut prefix = [0; FRAME_PREFIX_BYTES];
    stream.read_exact(&mut prefix)?;
    let mut frame = vec![0; frame_length(prefix, SOCKET_REQUEST_MAX_BYTES)?];
    stream.read_exact(&mut frame)?;
    Ok(frame)
}
