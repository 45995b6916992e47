//! Clients that mean harm, for good ones to be measured beside: each sends, every few seconds, one of the requests below,
//! whole, and reads what comes back, if it reads at all. What they are is in [`KINDS`]; none of them is refused as a matter
//! of form, and a connection that the server closes is made anew.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use std::{io, thread};

use clap::Args;
use ringlog::protocol::header::{RequestHeader, begin_request, finish_frame};
use ringlog::protocol::message::describe_producers::{DescribeProducersRequest, TopicRequest};
use ringlog::protocol::message::fetch::{FetchPartition, FetchRequest, FetchTopic};
use ringlog::protocol::message::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use ringlog::protocol::message::metadata::{MetadataRequest, MetadataRequestTopic};
use ringlog::protocol::message::produce::ProduceRequestToSend;
use ringlog::protocol::{ApiKey, WireError, Writer};
use ringlog::record::batch::BatchBuilder;
use ringlog::record::compression::Codec;

use crate::{LoadError, topic};

const TOPIC: &str = "hostile";
const PARTITIONS: i32 = 100;
/// How often one element is repeated: 300 KB of requests.
const REPEATED: usize = 20_000;
/// What a long poll carries that nobody needs.
const CARRIED_BYTES: usize = 8 << 20;
const LONG_POLL_MS: i32 = 25_000;
/// Where a batch has its last offset delta, its max timestamp and its count of records.
const LAST_OFFSET_DELTA: usize = 23;
const MAX_TIMESTAMP: usize = 35;
const RECORD_COUNT: usize = 57;
/// What a batch of a few KB becomes.
const BOMB_RECORDS: usize = 400;
const BOMB_RECORD_BYTES: usize = 64 * 1024;

#[derive(Args, Clone)]
pub struct Hostile {
    #[arg(long)]
    address: SocketAddr,
    /// Connections, which take the kinds in turn.
    #[arg(long, default_value_t = 48)]
    connections: usize,
    /// Requests a second, all connections together.
    #[arg(long, default_value_t = 4.0)]
    rate: f64,
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
}

/// How often what the sockets take and have is looked at.
const TICK: Duration = Duration::from_millis(20);
/// What one connection sends or reads in a tick: no one of them takes the load's core for itself.
const TICK_BYTES_MAX: usize = 1 << 20;

/// A connection of one kind.
struct Connection {
    kind: usize,
    stream: TcpStream,
    /// How many bytes of its last request are not sent yet.
    unsent: usize,
}

/// What became of the requests of one kind.
#[derive(Clone, Copy, Default)]
struct Tally {
    begun: u64,
    /// Left whole; the others were cut off by the server, or by the end.
    sent: u64,
    bytes_read: u64,
    /// Connections that the server closed.
    closed: u64,
}

/// Their names, and how to make what they send.
const KINDS: [(&str, fn() -> Result<Vec<u8>, LoadError>); 11] = [
    ("long polls that carry megabytes", long_poll),
    ("one topic, named again and again", repeated_topic),
    ("one partition to fetch, named again and again", repeated_partition),
    ("one partition's producers, asked for again and again", repeated_producers),
    ("a batch that says it is from 1970", || produce(lie(MAX_TIMESTAMP, &0_i64.to_be_bytes())?)),
    ("a batch that counts two billion records", || {
        let mut batch = lie(LAST_OFFSET_DELTA, &(i32::MAX - 1).to_be_bytes())?;
        batch[RECORD_COUNT..RECORD_COUNT + 4].copy_from_slice(&i32::MAX.to_be_bytes());
        produce(seal(batch))
    }),
    ("a batch whose records are no frame", || produce(lie(RECORD_COUNT + 4, &[0x55; 16])?)),
    ("a batch that grows a thousandfold", || produce(bomb())),
    ("a time that is looked for in it", by_time),
    ("answers that nobody reads", unread),
    ("no request", || Ok([[0x47; 64].as_slice(), &[0xff; 64]].concat())),
];
/// The place of the one that reads nothing.
const UNREAD: usize = 9;

/// Connects them all, says so in a line of JSON, and goes on as long as it was told.
pub fn run(hostile: &Hostile) -> Result<String, LoadError> {
    topic::ensure(hostile.address, TOPIC, PARTITIONS)?;
    let requests = KINDS.iter().map(|(_, make)| make()).collect::<Result<Vec<_>, _>>()?;
    let mut connections = Vec::new();
    for at in 0..hostile.connections {
        connections.push(Connection { kind: at % KINDS.len(), stream: connect(hostile.address)?, unsent: 0 });
    }
    println!("{}", serde_json::json!({ "connections": connections.len(), "kinds": KINDS.len() }));
    let turn = Duration::from_secs_f64(1.0 / hostile.rate.max(0.01));
    let start = Instant::now();
    let end = start + Duration::try_from_secs_f64(hostile.seconds).unwrap_or(Duration::MAX);
    let (mut tallies, mut due, mut tick, mut next) = ([Tally::default(); KINDS.len()], start, start, 0);
    while tick < end {
        // One that is still at its last request keeps to it, and its turn passes.
        while due <= tick && !connections.is_empty() {
            let connection = &mut connections[next];
            if connection.unsent == 0 {
                connection.unsent = requests[connection.kind].len();
                tallies[connection.kind].begun += 1;
            }
            (next, due) = ((next + 1) % connections.len(), due + turn);
        }
        for connection in &mut connections {
            let tally = &mut tallies[connection.kind];
            if go_on(connection, &requests[connection.kind], tally).is_err() {
                tally.closed += 1;
                *connection = Connection { stream: connect(hostile.address)?, unsent: 0, ..*connection };
            }
        }
        tick = (tick + TICK).max(Instant::now());
        thread::sleep(tick.saturating_duration_since(Instant::now()));
    }
    let kinds = KINDS.iter().zip(tallies).map(|((name, _), tally)| {
        let Tally { begun, sent, bytes_read, closed } = tally;
        (*name, serde_json::json!({ "begun": begun, "sent": sent, "bytes_read": bytes_read, "closed": closed }))
    });
    Ok(serde_json::Value::from_iter(kinds).to_string())
}

fn connect(address: SocketAddr) -> Result<TcpStream, LoadError> {
    let stream = TcpStream::connect(address)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// Takes what has come back, unless this one reads nothing, and goes on with its request where it stopped.
fn go_on(connection: &mut Connection, request: &[u8], tally: &mut Tally) -> io::Result<()> {
    let stream = &mut connection.stream;
    let (mut buffer, mut read) = ([0; 64 * 1024], 0);
    while connection.kind != UNREAD && read < TICK_BYTES_MAX {
        match stream.read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => read += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    tally.bytes_read += read as u64;
    if connection.unsent == 0 {
        return Ok(());
    }
    let rest = &request[request.len() - connection.unsent..];
    match stream.write(&rest[..rest.len().min(TICK_BYTES_MAX)]) {
        Ok(count) => connection.unsent -= count,
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
        Err(error) => return Err(error),
    }
    tally.sent += u64::from(connection.unsent == 0);
    Ok(())
}

fn frame(
    key: ApiKey,
    version: i16,
    body: impl FnOnce(&mut Writer) -> Result<(), WireError>,
) -> Result<Vec<u8>, LoadError> {
    let header = RequestHeader { api_key: key.code(), api_version: version, correlation_id: 1, client_id: None };
    let mut writer = begin_request(&header)?;
    body(&mut writer)?;
    Ok(finish_frame(writer)?.to_vec())
}

fn fetch(partitions: usize, max_wait_ms: i32, min_bytes: i32) -> FetchRequest {
    let partition = FetchPartition { partition: 1, partition_max_bytes: i32::MAX, ..Default::default() };
    let topic = FetchTopic { topic: TOPIC.into(), partitions: vec![partition; partitions], ..Default::default() };
    FetchRequest { max_wait_ms, min_bytes, topics: vec![topic], ..Default::default() }
}

/// Of a flexible version, with bytes in a tagged field that nobody knows.
fn long_poll() -> Result<Vec<u8>, LoadError> {
    const VERSION: i16 = 12;
    const UNKNOWN_TAG: u32 = 99;
    let request = fetch(1, LONG_POLL_MS, i32::MAX);
    let mut bytes = frame(ApiKey::Fetch, VERSION, |writer| request.encode(writer, VERSION))?;
    // The count of tagged fields is the last byte.
    bytes.pop();
    let mut tagged = Writer::new();
    tagged.uvarint(1);
    tagged.uvarint(UNKNOWN_TAG);
    tagged.uvarint(CARRIED_BYTES as u32);
    bytes.extend_from_slice(&tagged.into_bytes());
    bytes.resize(bytes.len() + CARRIED_BYTES, 0);
    let size = (bytes.len() - 4) as u32;
    bytes[..4].copy_from_slice(&size.to_be_bytes());
    Ok(bytes)
}

fn repeated_topic() -> Result<Vec<u8>, LoadError> {
    const VERSION: i16 = 9;
    let topic = MetadataRequestTopic { name: Some(TOPIC.to_owned()), ..Default::default() };
    let request = MetadataRequest { topics: Some(vec![topic; REPEATED]), ..Default::default() };
    frame(ApiKey::Metadata, VERSION, |writer| request.encode(writer, VERSION))
}

fn repeated_partition() -> Result<Vec<u8>, LoadError> {
    const VERSION: i16 = 11;
    let request = fetch(REPEATED, LONG_POLL_MS, i32::MAX);
    frame(ApiKey::Fetch, VERSION, |writer| request.encode(writer, VERSION))
}

fn repeated_producers() -> Result<Vec<u8>, LoadError> {
    let topic = TopicRequest { name: TOPIC.to_owned(), partition_indexes: vec![0; REPEATED] };
    let request = DescribeProducersRequest { topics: vec![topic] };
    frame(ApiKey::DescribeProducers, 0, |writer| request.encode(writer, 0))
}

fn by_time() -> Result<Vec<u8>, LoadError> {
    const VERSION: i16 = 5;
    let partition = ListOffsetsPartition { partition_index: 0, timestamp: now_ms(), ..Default::default() };
    let topics = vec![ListOffsetsTopic { name: TOPIC.to_owned(), partitions: vec![partition] }];
    let request = ListOffsetsRequest { replica_id: -1, topics, ..Default::default() };
    frame(ApiKey::ListOffsets, VERSION, |writer| request.encode(writer, VERSION))
}

/// All there is, three times.
fn unread() -> Result<Vec<u8>, LoadError> {
    const VERSION: i16 = 11;
    let mut request = fetch(1, 0, 0);
    request.topics[0].partitions[0].partition = 0;
    Ok(frame(ApiKey::Fetch, VERSION, |writer| request.encode(writer, VERSION))?.repeat(3))
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// A compressed batch with these bytes at a place, and the CRC that goes with them.
fn lie(at: usize, bytes: &[u8]) -> Result<Vec<u8>, LoadError> {
    let mut builder = BatchBuilder::new(Codec::Lz4);
    builder.push(now_ms(), None, Some(&[b'x'; 100]), &[]);
    let mut batch = builder.build().to_vec();
    let end = batch.len().min(at + bytes.len());
    batch[at..end].copy_from_slice(&bytes[..end - at]);
    Ok(seal(batch))
}

fn seal(mut batch: Vec<u8>) -> Vec<u8> {
    const CRC: usize = 17;
    const CHECKED: usize = 21;
    let crc = ringlog::base::crc32c::crc32c(&batch[CHECKED..]);
    batch[CRC..CHECKED].copy_from_slice(&crc.to_be_bytes());
    batch
}

fn bomb() -> Vec<u8> {
    let mut builder = BatchBuilder::new(Codec::Gzip);
    let value = vec![0; BOMB_RECORD_BYTES];
    (0..BOMB_RECORDS).for_each(|_| builder.push(now_ms() - 1, None, Some(&value), &[]));
    builder.build().to_vec()
}

fn produce(batch: Vec<u8>) -> Result<Vec<u8>, LoadError> {
    const VERSION: i16 = 9;
    let partitions: &[(i32, Option<&[u8]>)] = &[(0, Some(&batch))];
    let request =
        ProduceRequestToSend { transactional_id: None, acks: 1, timeout_ms: 30_000, topics: &[(TOPIC, partitions)] };
    frame(ApiKey::Produce, VERSION, |writer| request.encode(writer, VERSION))
}
