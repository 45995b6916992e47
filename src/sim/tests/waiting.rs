//! Requests that wait hold nothing that others need.

use super::client::{Client, FETCH_VERSION};
use super::*;
use crate::protocol::ApiKey;
use crate::protocol::message::{FetchPartition, FetchRequest, FetchTopic, ForgottenTopic};

const WAITING: usize = 64;
const MAX_WAIT_MS: i32 = 25_000;

/// One with most of its bytes in what its answer does not need.
fn long_poll() -> FetchRequest {
    let partition = FetchPartition { partition_max_bytes: 1 << 20, ..FetchPartition::default() };
    let topics = vec![FetchTopic { topic: TOPIC.into(), partitions: vec![partition], ..FetchTopic::default() }];
    let forgotten = ForgottenTopic { topic: TOPIC.into(), partitions: vec![0; 60_000], ..ForgottenTopic::default() };
    FetchRequest {
        max_wait_ms: MAX_WAIT_MS,
        min_bytes: 1,
        topics,
        forgotten_topics_data: vec![forgotten],
        ..FetchRequest::default()
    }
}

#[test]
fn long_polls_hold_none_of_the_bytes_that_other_requests_need() {
    for seed in 1..6 {
        let world = World::new(seed);
        let clients = world.executor();
        // Four such requests are more than may be received and not decoded.
        let node = Node::start(&world, Remains::none(), TWO_SHARDS);
        create_topic(&world, &clients, &node);
        let done = Rc::new(Cell::new(0));
        for _ in 0..WAITING {
            let (mut client, done) = (Client::new(node.connect()), Rc::clone(&done));
            clients.spawn(async move {
                let request = long_poll();
                client.ask(ApiKey::Fetch, FETCH_VERSION, |writer| request.encode(writer, FETCH_VERSION)).await;
                done.set(done.get() + 1);
            });
        }
        run_for(&world, Duration::from_secs(2));
        assert_eq!(done.get(), 0, "seed {seed}: there is nothing to be fetched yet");
        let before = world.now();
        let mut fresh = Client::new(node.connect());
        let batch = client::Batch { acks: 1, partition: 0, producer: None, value: b"x".to_vec() };
        assert_eq!(run(&world, &clients, async move { fresh.send(&batch).await }), Some(Ok(0)));
        let took = world.now().since(before);
        assert!(took < Duration::from_secs(1), "seed {seed}: a fresh client waited for {took:?}");
        world.run_until(|| done.get() == WAITING);
        assert!(world.now().since(before) < Duration::from_secs(2), "seed {seed}: all are told of it");
    }
}
