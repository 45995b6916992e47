use std::io::ErrorKind;

use super::*;
use crate::sim::disk::Fault;

const SETTINGS: &[&str] =
    &["log.flush.offset.checkpoint.interval.ms=100", "replica.high.watermark.checkpoint.interval.ms=100"];

/// Long enough for a flush and the checkpoint after it.
const CHECKPOINTED: Duration = Duration::from_secs(7);

#[derive(Clone, Copy, Debug, Default)]
struct Done {
    deleted: bool,
    created: bool,
    acknowledged: bool,
}

/// A topic with a recovery point is deleted and made anew under its name, and the process ends at a random moment of it.
fn recreate(seed: u64, setup: Setup, how: End) {
    let world = World::new(seed);
    let clients = world.executor();
    let node = Node::start(&world, Remains::none(), setup);
    let mut client = Client::new(node.connect());
    let ticking = world.clone();
    run(&world, &clients, async move {
        assert_eq!(client.create_small_topic().await, Some(0));
        for _ in 0..50 {
            assert!(matches!(client.produce(1, 0, b"of the old topic").await, Some(Ok(_))));
        }
        sleep(&ticking, CHECKPOINTED).await;
    });
    let done = Rc::new(Cell::new(Done::default()));
    let (mut client, seen) = (Client::new(node.connect()), Rc::clone(&done));
    clients.spawn(async move {
        let Some(deleted) = client.delete_topic().await else { return };
        assert_eq!(deleted, 0);
        seen.set(Done { deleted: true, ..seen.get() });
        let Some(created) = client.create_small_topic().await else { return };
        assert_eq!(created, 0);
        seen.set(Done { created: true, ..seen.get() });
        if client.produce(1, 0, b"of the new topic").await == Some(Ok(0)) {
            seen.set(Done { acknowledged: true, ..seen.get() });
        }
    });
    if seed.is_multiple_of(2) {
        world.run_until(|| done.get().acknowledged);
    }
    run_steps(&world, world.below(400));
    let remains = node.end(how);
    clients.clear();

    let node = Node::start(&world, remains, setup);
    let mut client = Client::new(node.connect());
    let Done { deleted, created, acknowledged } = done.get();
    let found = run(&world, &clients, async move {
        if !created {
            // Whatever became of the deletion, the name is free in the end, or taken by the new topic.
            let code = client.delete_topic().await.expect("answered");
            assert!(code == 0 || code == ErrorCode::UnknownTopicOrPartition.code(), "{code}");
            assert_eq!(client.create_small_topic().await, Some(0));
            assert_eq!(client.produce(-1, 0, b"of the new topic").await, Some(Ok(0)));
        }
        client.fetch_all(0).await.expect("served")
    });
    let whole = vec![(0, b"of the new topic".to_vec())];
    let may_be_gone = created && matches!(how, End::PowerCut) && setup.durability == Durability::PageCache;
    let is_promised = !created || acknowledged;
    match is_promised && !may_be_gone {
        true => assert_eq!(found, whole, "seed {seed}, {how:?}, deleted: {deleted}"),
        false => assert!(found == whole || found.is_empty(), "seed {seed}, {how:?}: {found:?}"),
    }
    // And once more, over the new topic's recovery point.
    let node = Node::start(&world, node.end(End::Kill), setup);
    let mut client = Client::new(node.connect());
    assert_eq!(run(&world, &clients, async move { client.fetch_all(0).await }), Some(found));
}

#[test]
fn a_topic_made_anew_under_a_deleted_ones_name_is_served_after_any_end_of_the_process() {
    let page_cache = Setup { settings: SETTINGS, ..TWO_SHARDS.into() };
    let fsync = Setup { durability: Durability::Fsync, log_dirs: TWO_DIRECTORIES, ..page_cache };
    for seed in 4000..4060 {
        for how in [End::Kill, End::PowerCut] {
            recreate(seed, page_cache, how);
            recreate(seed, fsync, how);
        }
    }
}

#[test]
fn a_topic_whose_log_could_not_be_made_is_deleted_made_again_and_served() {
    for seed in 4060..4080 {
        let world = World::new(seed);
        let clients = world.executor();
        let node = Node::start(&world, Remains::none(), TWO_SHARDS);
        node.disk().inject(Fault::Open(ErrorKind::StorageFull).under(format!("/data/{TOPIC}-0")).lasting());
        let mut client = Client::new(node.connect());
        let mut client = run(&world, &clients, async move {
            assert_eq!(client.create_small_topic().await, Some(0));
            assert_eq!(client.produce(1, 0, b"refused").await, Some(Err(STORAGE_ERROR)));
            client
        });
        node.disk().heal();
        run(&world, &clients, async move {
            assert_eq!(client.delete_topic().await, Some(0));
            assert_eq!(client.create_small_topic().await, Some(0), "seed {seed}");
            assert_eq!(client.produce(1, 0, b"taken").await, Some(Ok(0)), "seed {seed}");
        });
        node.end(End::Kill);
    }
}
