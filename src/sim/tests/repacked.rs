//! Batches that go to work threads, whose jobs overtake one another, and the order of what one connection sends.

use super::client::PRODUCE_VERSION;
use super::*;
use crate::protocol::message::{ProduceRequestToSend, ProduceResponse};
use crate::protocol::{ApiKey, Reader};
use crate::record::batch::BatchBuilder;
use crate::record::compression::Codec;

const BATCHES: i32 = 60;

/// What a producer sends of one partition. An idempotent one counts its sequence numbers up.
fn batch(world: &World, producer: i64, sequence: i32, idempotent: bool) -> bytes::BytesMut {
    let mut builder = BatchBuilder::new(Codec::None);
    if idempotent {
        builder = builder.producer(producer, 0, sequence);
    }
    let value = format!("{producer} {sequence} {}", "x".repeat(world.below(300)));
    builder.push(1_700_000_000_000, None, Some(value.as_bytes()), &[]);
    builder.build()
}

/// Where each of one producer's batches was said to be: partition, offset, and its number there.
type Told = Rc<RefCell<Vec<(i32, i64, i64, i32)>>>;

/// Sends requests of one to three partitions without waiting for answers, then looks at these.
async fn pipeline(world: World, mut client: Client, producer: i64, idempotent: bool, told: Told) {
    let mut sequences = [0; PARTITIONS as usize];
    let mut sent = Vec::new();
    for _ in 0..BATCHES {
        let first = world.below(PARTITIONS as usize);
        let chosen: Vec<usize> = (first..PARTITIONS as usize).take(1 + world.below(3)).collect();
        let batches: Vec<_> =
            chosen.iter().map(|place| batch(&world, producer, sequences[*place], idempotent)).collect();
        sent.push(chosen.iter().map(|place| (*place as i32, sequences[*place])).collect::<Vec<_>>());
        chosen.iter().for_each(|place| sequences[*place] += 1);
        let partitions: Vec<_> =
            chosen.iter().zip(&batches).map(|(place, batch)| (*place as i32, Some(&batch[..]))).collect();
        let topics = &[(TOPIC, &partitions[..])];
        let request = ProduceRequestToSend { transactional_id: None, acks: 1, timeout_ms: 10_000, topics };
        let version = PRODUCE_VERSION;
        client.post(ApiKey::Produce, version, |writer| request.encode(writer, version)).await.expect("sent");
    }
    let mut before = None;
    for sent in sent {
        let (id, body) = client.answer(ApiKey::Produce, PRODUCE_VERSION).await.expect("answered");
        assert!(before.replace(id).is_none_or(|before| before + 1 == id), "answers come in order");
        let response = ProduceResponse::decode(&mut Reader::new(&body), PRODUCE_VERSION).expect("a body");
        for (answer, (partition, sequence)) in response.responses[0].partition_responses.iter().zip(sent) {
            assert_eq!((answer.error_code, answer.index), (0, partition), "{:?}", answer.error_message);
            told.borrow_mut().push((partition, answer.base_offset, producer, sequence));
        }
    }
}

fn run_pipelines(seed: u64, setup: Setup, idempotent: bool) -> Vec<TraceEntry> {
    let world = World::new(seed);
    let clients = world.executor();
    let node = Node::start(&world, Remains::none(), setup);
    create_topic(&world, &clients, &node);
    let (running, told) = (Rc::new(Cell::new(0)), Told::default());
    for producer in 0..3 {
        let sending = pipeline(world.clone(), Client::new(node.connect()), producer, idempotent, Rc::clone(&told));
        running.set(running.get() + 1);
        let running = Rc::clone(&running);
        clients.spawn(async move {
            sending.await;
            running.set(running.get() - 1);
        });
    }
    world.run_until(|| running.get() == 0);
    let mut found = Vec::new();
    for (partition, records) in fetch_everything(&world, &clients, &node) {
        let mut next = [0; 3];
        for (offset, value) in records {
            let text = String::from_utf8_lossy(&value).into_owned();
            let numbers: Vec<i64> = text.split(' ').take(2).map(|number| number.parse().expect("a number")).collect();
            found.push((partition, offset, numbers[0], numbers[1] as i32));
            if idempotent {
                assert_eq!(numbers[1], next[numbers[0] as usize], "partition {partition} (seed {seed})");
                next[numbers[0] as usize] += 1;
            }
        }
    }
    let mut told = told.take();
    told.sort_unstable();
    assert_eq!(told, found, "everybody was told where its records are (seed {seed})");
    node.end(End::Kill);
    world.trace()
}

#[test]
fn batches_of_one_connection_keep_their_order_however_long_each_is_at_a_work_thread() {
    let setup = Setup { settings: &["compression.type=gzip"], ..TWO_SHARDS.into() };
    for seed in 400..430 {
        let trace = run_pipelines(seed, setup, true);
        if seed % 10 == 0 {
            assert!(trace == run_pipelines(seed, setup, true), "seed {seed} ran differently the second time");
        }
    }
}

#[test]
fn with_room_for_one_request_at_work_threads_at_a_time_everything_ends_in_order_too() {
    let limits = ShardLimits { away_bytes_max: 1, ..TWO_SHARDS.limits };
    let capacities = Capacities { shards: 3, credits: 1, limits };
    let setup = Setup { settings: &["compression.type=zstd"], ..capacities.into() };
    (440..450).for_each(|seed| drop(run_pipelines(seed, setup, true)));
}

#[test]
fn producers_whose_batches_are_gathered_are_each_told_their_own_offsets() {
    const LZ4: &[&str] = &["compression.type=lz4"];
    for (settings, durability) in [(LZ4, Durability::PageCache), (&[], Durability::Fsync)] {
        let setup = Setup { settings, durability, rebatch: true, ..TWO_SHARDS.into() };
        for seed in 460..475 {
            let trace = run_pipelines(seed, setup, false);
            if seed % 10 == 0 {
                assert!(trace == run_pipelines(seed, setup, false), "seed {seed} ran differently the second time");
            }
        }
    }
    // Those of idempotent producers are compressed one by one.
    run_pipelines(480, Setup { settings: LZ4, rebatch: true, ..TWO_SHARDS.into() }, true);
}
