use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use super::connection::SimSocket;
use super::node::{Capacities, End, Node, Remains};
use super::world::{TraceEntry, World};
use crate::executor::Executor;
use crate::platform::Socket;
use crate::protocol::header::{RequestHeader, begin_request, decode_response_header, finish_frame};
use crate::protocol::message::*;
use crate::protocol::{ApiKey, ErrorCode, Reader, WireError, Writer};
use crate::record::batch::{BatchBuilder, batches, decode_records};
use crate::record::compression::Codec;
use crate::shard::shard::ShardLimits;

const TOPIC: &str = "simulated";
const PARTITIONS: i32 = 4;
const FETCH_VERSION: i16 = 11;
const PRODUCE_VERSION: i16 = 9;
const METADATA_VERSION: i16 = 12;

/// Requests and answers over one simulated connection.
struct Client {
    socket: SimSocket,
    received: BytesMut,
    correlation_id: i32,
}

impl Client {
    fn new(socket: SimSocket) -> Client {
        Client { socket, received: BytesMut::new(), correlation_id: 0 }
    }

    /// The body of the answer, or `None` when the connection is gone.
    async fn ask(
        &mut self,
        key: ApiKey,
        version: i16,
        encode: impl FnOnce(&mut Writer) -> Result<(), WireError>,
    ) -> Option<BytesMut> {
        self.correlation_id += 1;
        let header = RequestHeader {
            api_key: key.code(),
            api_version: version,
            correlation_id: self.correlation_id,
            client_id: Some("sim"),
        };
        let mut writer = begin_request(&header).expect("a header");
        encode(&mut writer).expect("a body");
        let frame: Bytes = finish_frame(writer).expect("a frame").freeze();
        self.socket.send(frame, false).await.ok()?;
        let mut body = self.frame().await?;
        let mut reader = Reader::new(&body);
        assert_eq!(decode_response_header(&mut reader, key, version), Ok(self.correlation_id));
        let start = reader.position();
        Some(body.split_off(start))
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

    async fn create_topic(&mut self) -> Option<()> {
        let topics = vec![MetadataRequestTopic { name: Some(TOPIC.into()), ..MetadataRequestTopic::default() }];
        let request = MetadataRequest { topics: Some(topics), ..MetadataRequest::default() };
        let body = self.ask(ApiKey::Metadata, METADATA_VERSION, |w| request.encode(w, METADATA_VERSION)).await?;
        let response = MetadataResponse::decode(&mut Reader::new(&body), METADATA_VERSION).expect("metadata");
        assert_eq!(response.topics[0].error_code, 0);
        assert_eq!(response.topics[0].partitions.len(), PARTITIONS as usize);
        Some(())
    }

    /// Appends one record; its offset, or the error.
    async fn produce(&mut self, acks: i16, partition: i32, value: &[u8]) -> Option<Result<i64, i16>> {
        let mut builder = BatchBuilder::new(Codec::None);
        builder.push(1_700_000_000_000, None, Some(value), &[]);
        let batch = builder.build();
        let request = ProduceRequestToSend {
            transactional_id: None,
            acks,
            timeout_ms: 10_000,
            topics: &[(TOPIC, &[(partition, Some(&batch[..]))])],
        };
        let body = self.ask(ApiKey::Produce, PRODUCE_VERSION, |w| request.encode(w, PRODUCE_VERSION)).await?;
        let response = ProduceResponse::decode(&mut Reader::new(&body), PRODUCE_VERSION).expect("produced");
        let answer = &response.responses[0].partition_responses[0];
        Some(if answer.error_code == 0 { Ok(answer.base_offset) } else { Err(answer.error_code) })
    }

    /// Records from `offset` on, up to some bytes, and the high watermark.
    async fn fetch(&mut self, partition: i32, offset: i64, max_wait_ms: i32) -> Option<(Vec<(i64, Vec<u8>)>, i64)> {
        let asked =
            FetchPartition { partition, fetch_offset: offset, partition_max_bytes: 500, ..FetchPartition::default() };
        let request = FetchRequest {
            max_wait_ms,
            min_bytes: 1,
            topics: vec![FetchTopic { topic: TOPIC.into(), partitions: vec![asked], ..FetchTopic::default() }],
            ..FetchRequest::default()
        };
        let body = self.ask(ApiKey::Fetch, FETCH_VERSION, |w| request.encode(w, FETCH_VERSION)).await?;
        let response = FetchResponse::decode(&mut Reader::new(&body), FETCH_VERSION).expect("fetched");
        let answer = &response.responses[0].partitions[0];
        assert_eq!(answer.error_code, ErrorCode::None.code());
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
        Some((found, answer.high_watermark))
    }

    async fn fetch_all(&mut self, partition: i32) -> Option<Vec<(i64, Vec<u8>)>> {
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

/// Records by partition, offset by offset.
type Records = BTreeMap<i32, BTreeMap<i64, Vec<u8>>>;

/// Runs `client` to its end.
fn run<T: 'static>(world: &World, clients: &Executor, client: impl Future<Output = T> + 'static) -> T {
    let place = Rc::new(RefCell::new(None));
    let result = Rc::clone(&place);
    clients.spawn(async move {
        let value = client.await;
        *result.borrow_mut() = Some(value);
    });
    world.run_until(|| place.borrow().is_some());
    let value = place.borrow_mut().take();
    value.expect("just seen")
}

/// Producers on several connections, until `enough` records are acknowledged; then the process ends under them.
fn produce_until_cut(world: &World, clients: &Executor, node: Node, enough: usize, how: End) -> (Remains, Records) {
    let acknowledged = Rc::new(RefCell::new(Records::new()));
    let count = Rc::new(Cell::new(0));
    for producer in 0..3 {
        let mut client = Client::new(node.connect());
        let (acknowledged, count, world) = (Rc::clone(&acknowledged), Rc::clone(&count), world.clone());
        clients.spawn(async move {
            for sequence in 0.. {
                let partition = world.below(PARTITIONS as usize) as i32;
                let value = format!("{producer}-{sequence}-{}", "x".repeat(world.below(200))).into_bytes();
                let acks = if world.below(2) == 0 { 1 } else { -1 };
                let Some(Ok(offset)) = client.produce(acks, partition, &value).await else { return };
                let before = acknowledged.borrow_mut().entry(partition).or_default().insert(offset, value);
                assert_eq!(before, None, "offset {offset} of partition {partition} was given twice");
                count.set(count.get() + 1);
            }
        });
    }
    world.run_until(|| count.get() >= enough);
    let remains = node.end(how);
    clients.clear();
    let records = acknowledged.borrow().clone();
    (remains, records)
}

fn fetch_everything(world: &World, clients: &Executor, node: &Node) -> Records {
    let mut client = Client::new(node.connect());
    run(world, clients, async move {
        let mut all = Records::new();
        for partition in 0..PARTITIONS {
            all.insert(partition, client.fetch_all(partition).await.expect("served").into_iter().collect());
        }
        all
    })
}

/// Two shards: produce, end the process, recover, fetch, produce again, fetch again. Returns the trace.
fn life(seed: u64, how: End, capacities: Capacities) -> Vec<TraceEntry> {
    let world = World::new(seed);
    let clients = world.executor();
    let node = Node::start(&world, Remains::none(), capacities);
    let mut first = Client::new(node.connect());
    run(&world, &clients, async move { first.create_topic().await.expect("created") });
    let (remains, acknowledged) = produce_until_cut(&world, &clients, node, 60, how);

    let node = Node::start(&world, remains, capacities);
    let kept = fetch_everything(&world, &clients, &node);
    world.note(format!("{kept:?}"));
    for (partition, records) in &kept {
        assert!(records.keys().copied().eq(0..records.len() as i64), "offsets without gaps (seed {seed})");
        let promised = acknowledged.get(partition).cloned().unwrap_or_default();
        for (offset, value) in promised {
            match records.get(&offset) {
                Some(found) => assert_eq!(*found, value, "partition {partition}, offset {offset} (seed {seed})"),
                None => assert!(matches!(how, End::PowerCut), "an acknowledged record is gone (seed {seed})"),
            }
        }
    }
    let (remains, more) = produce_until_cut(&world, &clients, node, 40, End::Kill);
    let node = Node::start(&world, remains, capacities);
    let all = fetch_everything(&world, &clients, &node);
    for (partition, records) in &all {
        for (offset, value) in kept[partition].iter().chain(more.get(partition).into_iter().flatten()) {
            assert_eq!(records.get(offset), Some(value), "partition {partition}, offset {offset} (seed {seed})");
        }
    }
    world.end(std::slice::from_ref(&clients));
    node.end(End::Kill);
    world.trace()
}

const TWO_SHARDS: Capacities = Capacities {
    shards: 2,
    credits: 16,
    limits: ShardLimits { requests_in_flight_max: 8, request_bytes_max: 1 << 20, segments_open_max: 16 },
};

const EVERYTHING_AT_ONE: Capacities = Capacities {
    shards: 3,
    credits: 1,
    limits: ShardLimits { requests_in_flight_max: 1, request_bytes_max: 1, segments_open_max: 1 },
};

#[test]
fn produce_power_cut_recovery_and_fetch_on_two_shards_run_the_same_twice_under_one_seed() {
    for seed in 0..20 {
        let trace = life(seed, End::PowerCut, TWO_SHARDS);
        assert!(trace.len() > 1000, "something happened");
        assert!(trace == life(seed, End::PowerCut, TWO_SHARDS), "seed {seed} ran differently the second time");
    }
    assert!(life(1, End::PowerCut, TWO_SHARDS) != life(2, End::PowerCut, TWO_SHARDS));
}

#[test]
fn a_kill_loses_nothing_that_was_acknowledged() {
    for seed in 100..140 {
        life(seed, End::Kill, TWO_SHARDS);
    }
}

#[test]
fn with_every_capacity_at_one_random_traffic_still_ends() {
    for seed in 200..220 {
        life(seed, End::Kill, EVERYTHING_AT_ONE);
    }
}

#[test]
fn a_fetch_that_waits_is_answered_by_the_produce_it_waited_for_or_by_its_deadline() {
    for seed in 300..320 {
        let world = World::new(seed);
        let clients = world.executor();
        let node = Node::start(&world, Remains::none(), TWO_SHARDS);
        // One connection on each shard, every partition: so the watch crosses shards in half of the cases.
        let (mut consumer, mut producer) = (Client::new(node.connect()), Client::new(node.connect()));
        let mut maker = Client::new(node.connect());
        run(&world, &clients, async move { maker.create_topic().await.expect("created") });
        for partition in 0..PARTITIONS {
            let found = Rc::new(RefCell::new(None));
            let place = Rc::clone(&found);
            let waiting = async move {
                let result = consumer.fetch(partition, 0, 30_000).await.expect("answered");
                *place.borrow_mut() = Some(result);
                consumer
            };
            let back = Rc::new(RefCell::new(None));
            let returned = Rc::clone(&back);
            clients.spawn(async move {
                let consumer = waiting.await;
                *returned.borrow_mut() = Some(consumer);
            });
            let before = world.now();
            let (sent, client) = run(&world, &clients, async move {
                let sent = producer.produce(1, partition, b"woken").await;
                (sent, producer)
            });
            producer = client;
            assert_eq!(sent, Some(Ok(0)));
            world.run_until(|| back.borrow().is_some());
            consumer = back.borrow_mut().take().expect("just seen");
            assert_eq!(found.borrow_mut().take().expect("answered"), (vec![(0, b"woken".to_vec())], 1));
            assert!(world.now().since(before).as_secs() < 30, "woken, not timed out (seed {seed})");
        }
        let before = world.now();
        let empty = run(&world, &clients, async move { consumer.fetch(0, 1, 30_000).await });
        assert_eq!(empty, Some((vec![], 1)));
        assert!(world.now().since(before).as_secs() >= 30, "there was nothing to wake it (seed {seed})");
        node.end(End::Kill);
    }
}

/// What a fetch and two ListOffsets say of a partition under an isolation level.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    end_offset: i64,
    high_watermark: i64,
    last_stable: i64,
    /// Producer ids and first offsets.
    aborted: Option<Vec<(i64, i64)>>,
    latest: i64,
}

async fn look(client: &mut Client, partition: i32, offset: i64, isolation_level: i8) -> Option<Seen> {
    let asked =
        FetchPartition { partition, fetch_offset: offset, partition_max_bytes: 1 << 20, ..FetchPartition::default() };
    let request = FetchRequest {
        isolation_level,
        topics: vec![FetchTopic { topic: TOPIC.into(), partitions: vec![asked], ..FetchTopic::default() }],
        ..FetchRequest::default()
    };
    let body = client.ask(ApiKey::Fetch, FETCH_VERSION, |w| request.encode(w, FETCH_VERSION)).await?;
    let mut response = FetchResponse::decode(&mut Reader::new(&body), FETCH_VERSION).expect("fetched");
    let answer = response.responses[0].partitions.remove(0);
    assert_eq!(answer.error_code, 0);
    let records = answer.records.map(|span| &body[span.range()]).unwrap_or_default();
    let end_offset =
        batches(records).map_while(Result::ok).last().map_or(offset, |(header, _)| header.last_offset() + 1);
    let aborted = answer.aborted_transactions;
    let aborted = aborted.map(|all| all.iter().map(|found| (found.producer_id, found.first_offset)).collect());

    let latest = ListOffsetsPartition { partition_index: partition, timestamp: -1, ..ListOffsetsPartition::default() };
    let topics = vec![ListOffsetsTopic { name: TOPIC.to_owned(), partitions: vec![latest] }];
    let request = ListOffsetsRequest { replica_id: -1, isolation_level, topics };
    let body = client.ask(ApiKey::ListOffsets, 5, |w| request.encode(w, 5)).await?;
    let response = ListOffsetsResponse::decode(&mut Reader::new(&body), 5).expect("listed");
    let latest = response.topics[0].partitions[0].offset;
    let (high_watermark, last_stable) = (answer.high_watermark, answer.last_stable_offset);
    Some(Seen { end_offset, high_watermark, last_stable, aborted, latest })
}

/// Two partitions hold what Kafka 3.9 wrote: one with six transactions, two of them aborted, one with an open transaction.
#[test]
fn a_read_committed_consumer_sees_what_is_decided_and_is_told_what_was_aborted() {
    let world = World::new(7);
    let clients = world.executor();
    let node = Node::start(&world, Remains::none(), TWO_SHARDS);
    let mut maker = Client::new(node.connect());
    run(&world, &clients, async move { maker.create_topic().await.expect("created") });
    let remains = node.end(End::Kill);
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/kafka-3.9/unclean");
    for (partition, from) in [(0, "txn-0"), (1, "txn-open-0")] {
        for entry in std::fs::read_dir(golden.join(from)).expect("golden files").map(|entry| entry.expect("a file")) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".log") {
                let path = std::path::Path::new("/data").join(format!("{TOPIC}-{partition}")).join(name);
                remains.disk.put(&path, &std::fs::read(entry.path()).expect("read"));
            }
        }
    }
    let node = Node::start(&world, remains, TWO_SHARDS);
    let mut client = Client::new(node.connect());
    run(&world, &clients, async move {
        let seen = |end_offset, ends: (i64, i64), aborted, latest| {
            let (high_watermark, last_stable) = ends;
            Some(Seen { end_offset, high_watermark, last_stable, aborted, latest })
        };
        let ends = (76, 76);
        assert_eq!(look(&mut client, 0, 0, 0).await, seen(10, ends, None, 76));
        assert_eq!(look(&mut client, 0, 0, 1).await, seen(10, ends, Some(vec![]), 76));
        assert_eq!(look(&mut client, 0, 10, 1).await, seen(76, ends, Some(vec![(1, 11), (1, 44)]), 76));
        assert_eq!(look(&mut client, 0, 22, 1).await, seen(76, ends, Some(vec![(1, 44)]), 76));
        assert_eq!(look(&mut client, 0, 60, 1).await, seen(76, ends, Some(vec![]), 76));
        let ends = (5, 0);
        assert_eq!(look(&mut client, 1, 0, 0).await, seen(5, ends, None, 5));
        assert_eq!(look(&mut client, 1, 0, 1).await, seen(0, ends, Some(vec![]), 0));
    });
    node.end(End::Kill);
}
