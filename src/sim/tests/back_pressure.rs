//! Produces that wait for a replica, and that replica's fetches: neither may take what the other needs.

use super::client::{Batch, Client};
use super::*;
use crate::base::ids::BrokerId;
use crate::handlers::produce::planted;

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
