use super::client::FETCH_VERSION;
use super::*;
use crate::platform::Socket;
use crate::protocol::ApiKey;
use crate::protocol::message::*;

/// A wait that no test's time comes near to.
const WAIT_MS: i32 = 250_000;

fn waiting_fetch() -> FetchRequest {
    let asked = (0..PARTITIONS).map(|partition| FetchPartition {
        partition,
        partition_max_bytes: 1 << 20,
        ..FetchPartition::default()
    });
    FetchRequest {
        max_wait_ms: WAIT_MS,
        min_bytes: 1,
        topics: vec![FetchTopic { topic: TOPIC.into(), partitions: asked.collect(), ..FetchTopic::default() }],
        ..FetchRequest::default()
    }
}

/// Fetches of every shard's connections wait for partitions of both; their clients go, with the next request half sent
/// or without one.
#[test]
fn a_fetch_that_waits_ends_with_its_client_and_leaves_nothing_behind() {
    for seed in 0..20 {
        let world = World::new(seed);
        let clients = world.executor();
        let node = Node::start(&world, Remains::none(), TWO_SHARDS);
        create_topic(&world, &clients, &node);
        run_for(&world, Duration::from_secs(1));
        let tasks = node.task_count();
        let gone: Vec<Rc<Cell<bool>>> = (0..4)
            .map(|index| {
                let gone = Rc::new(Cell::new(false));
                let (mut client, flag, node_watches) = (Client::new(node.connect()), Rc::clone(&gone), world.clone());
                clients.spawn(async move {
                    let request = waiting_fetch();
                    client
                        .post(ApiKey::Fetch, FETCH_VERSION, |w| request.encode(w, FETCH_VERSION))
                        .await
                        .expect("sent");
                    if index % 2 == 0 {
                        client.socket.send(bytes::Bytes::from_static(&[0, 0]), false).await.expect("sent");
                    }
                    sleep(&node_watches, Duration::from_secs(1 + index)).await;
                    drop(client);
                    flag.set(true);
                });
                gone
            })
            .collect();
        let watching = (PARTITIONS * 4) as usize;
        world.run_until(|| node.watch_count() == watching);
        world.run_until(|| gone.iter().all(|gone| gone.get()));
        run_for(&world, Duration::from_secs(10));
        assert_eq!(node.watch_count(), 0, "seed {seed}: fetches wait after their clients have gone");
        // A standing task may just have one of its jobs under way.
        let counts = (0..10).map(|_| {
            run_for(&world, Duration::from_millis(70));
            node.task_count()
        });
        let left = counts.min().expect("ten of them");
        assert!(left <= tasks, "seed {seed}: {left} tasks are left of {tasks}");
        node.end(End::Kill);
    }
}
