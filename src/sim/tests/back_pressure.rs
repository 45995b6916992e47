//! Produces that wait for a replica, and that replica's fetches: neither may take what the other needs.

use super::client::{Batch, Client, PRODUCE_VERSION};
use super::*;
use crate::base::ids::BrokerId;
use crate::handlers::produce::planted;
use crate::protocol::message::{ProduceRequestToSend, ProduceResponse};
use crate::protocol::{ApiKey, Reader, Writer};
use crate::record::batch::BatchBuilder;
use crate::record::compression::Codec;

/// Not this node's own id.
const FOLLOWER: BrokerId = BrokerId(77);

/// Several times of what one shard may have under way at another.
const PRODUCERS: usize = 12;

const FEW_CREDITS: Capacities = Capacities { credits: 2, ..TWO_SHARDS };

/// A follower that fetches over and over from one partition.
async fn follow(mut client: Client, partition: i32, stop: Rc<Cell<bool>>) {
    let mut next = 0;
    while !stop.get() {
        let Some(Ok((found, _))) = client.fetch_as(FOLLOWER.0, partition, next, 100).await else { return };
        next = found.last().map_or(next, |(offset, _)| offset + 1);
    }
}

/// Clients of both shards produce to every partition with acks=all, more of them than there are credits; then a replica
/// fetches by connections of one shard. How many were acknowledged in the time.
fn acknowledged(seed: u64) -> usize {
    let world = World::new(seed);
    let clients = world.executor();
    let node = Node::start(&world, Remains::none(), FEW_CREDITS);
    create_topic(&world, &clients, &node);
    for partition in 0..PARTITIONS {
        node.set_replicas(TOPIC, partition, &[node.broker_id(), FOLLOWER]);
    }
    run_for(&world, Duration::from_secs(1));
    let done = Rc::new(Cell::new(0));
    for index in 0..PRODUCERS {
        let (mut client, done) = (Client::new(node.connect()), Rc::clone(&done));
        let partition = index as i32 / 2 % PARTITIONS;
        clients.spawn(async move {
            let batch = Batch { acks: -1, partition, producer: None, value: vec![index as u8; 100] };
            if let Some(Ok(_)) = client.send(&batch).await {
                done.set(done.get() + 1);
            }
        });
    }
    run_for(&world, Duration::from_secs(1));
    assert_eq!(done.get(), 0, "seed {seed}: acknowledged before the replica had it");
    let stop = Rc::new(Cell::new(false));
    for partition in 0..PARTITIONS {
        clients.spawn(follow(Client::new(node.connect()), partition, Rc::clone(&stop)));
        // The next connection is the same shard's again.
        drop(node.connect());
    }
    run_for(&world, Duration::from_secs(3));
    stop.set(true);
    node.end(End::Kill);
    done.get()
}

#[test]
fn a_replica_fetches_on_while_produces_that_wait_for_it_are_more_than_there_are_credits() {
    for seed in 0..20 {
        assert_eq!(acknowledged(seed), PRODUCERS, "seed {seed}");
    }
}

#[test]
fn produces_that_keep_what_the_replica_needs_while_they_wait_for_it_are_caught() {
    planted::HOLD_CREDITS.set(true);
    let caught = (0..20).find(|&seed| acknowledged(seed) < PRODUCERS);
    let again = caught.map(acknowledged);
    planted::HOLD_CREDITS.set(false);
    let again = again.expect("some seed shows it");
    assert!(again < PRODUCERS, "the seed replays");
}

/// One batch for the topic, and partitions of another one that is not there: their answers are what it waits with.
fn wide_produce(batch: &[u8], partitions: &[(i32, Option<&[u8]>)]) -> Vec<u8> {
    let request = ProduceRequestToSend {
        transactional_id: None,
        acks: -1,
        timeout_ms: 25_000,
        topics: &[(TOPIC, &[(0, Some(batch))]), ("another", partitions)],
    };
    let mut writer = Writer::new();
    request.encode(&mut writer, PRODUCE_VERSION).expect("a request");
    writer.into_bytes().to_vec()
}

#[test]
fn a_large_produce_that_finds_no_room_to_wait_for_its_replicas_is_told_that_its_time_is_over() {
    let world = World::new(7);
    let clients = world.executor();
    let node = Node::start(&world, Remains::none(), TWO_SHARDS);
    create_topic(&world, &clients, &node);
    node.set_replicas(TOPIC, 0, &[node.broker_id(), FOLLOWER]);
    run_for(&world, Duration::from_secs(1));
    let taken: Vec<_> = node
        .locals()
        .map(|local| {
            let room = &local.budgets.waiting_produce_bytes;
            room.try_acquire(room.bytes_max()).expect("all of it is free")
        })
        .collect();
    let mut builder = BatchBuilder::new(Codec::None);
    builder.push(1_700_000_000_000, None, Some(b"waits"), &[]);
    let batch = builder.build();
    let absent: Vec<(i32, Option<&[u8]>)> = (0..2_000).map(|partition| (partition, None)).collect();
    let answer_to = |partitions: &[(i32, Option<&[u8]>)]| {
        let (mut client, body) = (Client::new(node.connect()), wide_produce(&batch, partitions));
        let before = world.now();
        let answer = run(&world, &clients, async move {
            let write = |writer: &mut Writer| {
                writer.bytes(&body);
                Ok(())
            };
            client.ask(ApiKey::Produce, PRODUCE_VERSION, write).await.expect("answered")
        });
        let response = ProduceResponse::decode(&mut Reader::new(&answer), PRODUCE_VERSION).expect("produced");
        (response.responses[0].partition_responses[0].error_code, world.now().since(before))
    };
    let (code, took) = answer_to(&absent);
    assert_eq!(code, ErrorCode::RequestTimedOut.code());
    assert!(took < Duration::from_secs(1), "it waited for {took:?}");
    // A small one takes nothing to speak of, and waits; a large one with room waits too.
    assert!(answer_to(&absent[..1]).1 >= Duration::from_secs(25));
    drop(taken);
    assert!(answer_to(&absent).1 >= Duration::from_secs(25));
    node.end(End::Kill);
}
