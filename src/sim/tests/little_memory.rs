use super::*;

#[test]
fn a_fetch_is_answered_whole_while_no_page_stays_in_the_page_cache() {
    const RECORDS: i64 = 200;
    for seed in 400..405 {
        let world = World::new(seed);
        let clients = world.executor();
        let node = Node::start(&world, Remains::none(), TWO_SHARDS);
        let mut client = Client::new(node.connect());
        run(&world, &clients, async move {
            client.create_small_topic().await.expect("created");
            for number in 0..RECORDS {
                let value = format!("{number} {}", "x".repeat(1000)).into_bytes();
                client.produce(1, 0, &value).await.expect("answered").expect("appended");
            }
        });
        // Started anew, nothing counts as appended just now.
        let node = Node::start(&world, node.end(End::Stop), TWO_SHARDS);
        let disk = node.disk().clone();
        let directory = format!("{TOPIC}-0");
        for path in disk.paths().iter().filter(|path| path.to_string_lossy().contains(&directory)) {
            disk.thrash(path).expect("there");
        }
        let mut client = Client::new(node.connect());
        let fetched = run(&world, &clients, async move { client.fetch_all(0).await.expect("answered") });
        assert!(fetched.iter().map(|(offset, _)| *offset).eq(0..RECORDS), "seed {seed}");
        node.end(End::Kill);
    }
}
