use super::*;

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

/// Two shards: produce, end the process, recover, fetch, produce again, fetch again. Returns the trace.
fn life(seed: u64, how: End, setup: impl Into<Setup>) -> Vec<TraceEntry> {
    let setup: Setup = setup.into();
    let world = World::new(seed);
    let clients = world.executor();
    let node = Node::start(&world, Remains::none(), setup);
    let mut first = Client::new(node.connect());
    run(&world, &clients, async move { first.create_topic().await.expect("created") });
    let (remains, acknowledged) = produce_until_cut(&world, &clients, node, 60, how);

    let node = Node::start(&world, remains, setup);
    let kept = fetch_everything(&world, &clients, &node);
    world.note(format!("{kept:?}"));
    for (partition, records) in &kept {
        assert!(records.keys().copied().eq(0..records.len() as i64), "offsets without gaps (seed {seed})");
        let promised = acknowledged.get(partition).cloned().unwrap_or_default();
        for (offset, value) in promised {
            match records.get(&offset) {
                Some(found) => assert_eq!(*found, value, "partition {partition}, offset {offset} (seed {seed})"),
                None => {
                    let may_be_gone = matches!(how, End::PowerCut) && setup.durability == Durability::PageCache;
                    assert!(may_be_gone, "an acknowledged record is gone (seed {seed})");
                }
            }
        }
    }
    let (remains, more) = produce_until_cut(&world, &clients, node, 40, End::Kill);
    let node = Node::start(&world, remains, setup);
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

const EVERYTHING_AT_ONE: Capacities = Capacities {
    shards: 3,
    credits: 1,
    limits: ShardLimits { requests_in_flight_max: 1, request_bytes_max: 1, segments_open_max: 1, away_bytes_max: 1 },
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
fn two_log_directories_and_fsync_run_the_same_twice_under_one_seed_too() {
    let setup = Setup { log_dirs: TWO_DIRECTORIES, durability: Durability::Fsync, ..TWO_SHARDS.into() };
    for seed in 50..65 {
        let trace = life(seed, End::PowerCut, setup);
        assert!(trace == life(seed, End::PowerCut, setup), "seed {seed} ran differently the second time");
    }
}

#[test]
fn an_orderly_stop_loses_nothing_to_a_power_cut_right_after_it() {
    for seed in 70..80 {
        life(seed, End::Stop, TWO_SHARDS);
        life(seed, End::Stop, Setup { log_dirs: TWO_DIRECTORIES, ..TWO_SHARDS.into() });
    }
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
