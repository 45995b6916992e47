use std::path::{Path, PathBuf};

use super::*;
use crate::sim::disk::FakeDisk;

const SETUP: Setup = Setup {
    capacities: TWO_SHARDS,
    log_dirs: TWO_DIRECTORIES,
    durability: Durability::Fsync,
    settings: &[],
    rebatch: false,
    unflushed_bytes_max: None,
};

fn node_and_client(world: &World, remains: Remains) -> (Node, Client) {
    let node = Node::start(world, remains, SETUP);
    let client = Client::new(node.connect());
    (node, client)
}

/// Whose metadata is lost: a topic with records in its directory.
fn old_topic(world: &World, clients: &Executor) -> Remains {
    let (node, mut client) = node_and_client(world, Remains::none());
    run(world, clients, async move {
        assert_eq!(client.create_small_topic().await, Some(0));
        for _ in 0..20 {
            assert!(matches!(client.produce(-1, 0, b"of the old topic").await, Some(Ok(_))));
        }
    });
    node.end(End::Stop).without_metadata()
}

/// The log of the old topic, wherever its directory is now.
fn old_log(disk: &FakeDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let logs = disk.paths().into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    let with_bytes = logs.map(|path| (path.clone(), disk.contents(&path).unwrap()));
    let is_old = |bytes: &[u8]| bytes.windows(16).any(|window| window == b"of the old topic");
    with_bytes.filter(|(_, bytes)| is_old(bytes)).collect()
}

fn is_stray(path: &Path) -> bool {
    let directory = path.parent().and_then(Path::file_name).unwrap().to_str().unwrap();
    directory.starts_with("simulated-0.") && directory.ends_with("-stray")
}

#[test]
fn a_new_topic_begins_empty_where_a_directory_of_its_name_lies_and_all_of_that_is_kept() {
    for seed in 0..40 {
        for how in [End::Kill, End::PowerCut, End::Stop] {
            let world = World::new(seed);
            let clients = world.executor();
            let remains = old_topic(&world, &clients);
            let [(before, records)] = &old_log(&remains.disk)[..] else { panic!("one log") };

            // A start alone leaves it as it is.
            let (node, _) = node_and_client(&world, remains);
            assert_eq!(old_log(node.disk()), [(before.clone(), records.clone())]);
            let created = Rc::new(Cell::new(None));
            let (mut client, seen) = (Client::new(node.connect()), Rc::clone(&created));
            clients.spawn(async move {
                seen.set(client.create_small_topic().await);
                client.produce(-1, 0, b"of the new topic").await;
            });
            // The process ends at a random moment of it; one that stops in order is asked to when it has happened.
            match how {
                End::Stop => world.run_until(|| created.get().is_some()),
                _ => run_steps(&world, world.below(300)),
            }
            let remains = node.end(how);
            clients.clear();

            let (node, mut client) = node_and_client(&world, remains);
            let found = run(&world, &clients, async move {
                // Fine if it is there already.
                let _ = client.create_small_topic().await;
                let produced = client.produce(-1, 0, b"of the new topic").await;
                assert!(matches!(produced, Some(Ok(0..=1))), "seed {seed}, {how:?}: {produced:?}");
                client.fetch_all(0).await.expect("served")
            });
            assert!(found.iter().all(|(_, value)| value == b"of the new topic"), "seed {seed}, {how:?}: {found:?}");
            let [(after, kept)] = &old_log(node.disk())[..] else { panic!("one log") };
            assert!(is_stray(after) && kept == records, "seed {seed}, {how:?}: {}", after.display());
            assert!(after.starts_with(before.parent().and_then(Path::parent).unwrap()), "in its log directory");

            // Nor is it the next one's: the names are apart now.
            let (_node, mut client) = node_and_client(&world, node.end(End::Stop));
            assert_eq!(run(&world, &clients, async move { client.fetch_all(0).await }), Some(found));
        }
    }
}
