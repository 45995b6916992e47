//! What a shard makes of roles, settings and topics that change while a log directory hangs, and when others change them.

use std::path::Path;

use super::*;
use crate::base::ids::{BrokerId, TopicId, TopicPartition};
use crate::metadata::node::{LocalPartition, ShardInput};
use crate::partition::Partition;
use crate::partition::partition::{ANY_EPOCH, AnsweredBy};
use crate::partition::truncate::Cut;
use crate::protocol::message::incremental_alter_configs::{AlterConfigsResource, AlterableConfig};
use crate::protocol::message::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};
use crate::protocol::{ApiKey, Reader};
use crate::sim::disk::Delay;
use crate::sim::platform::SimPlatform;
use crate::sim::tests::client::Batch;

const OF_TOPICS: i8 = 2;
const OF_BROKERS: i8 = 4;

fn replica_of(node: &Node, partition: i32) -> Option<Rc<Partition<SimPlatform>>> {
    node.locals().find_map(|shard| shard.partition(TOPIC, partition))
}

fn log_end(replica: &Partition<SimPlatform>) -> i64 {
    replica.offsets(ANY_EPOCH, AnsweredBy::AnyReplica).expect("open").log_end
}

async fn set(client: &mut Client, resource_type: i8, resource_name: &str, name: &str, value: &str) {
    let configs = vec![AlterableConfig { name: name.into(), config_operation: 0, value: Some(value.into()) }];
    let resource = AlterConfigsResource { resource_type, resource_name: resource_name.into(), configs };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    let body = client.ask(ApiKey::IncrementalAlterConfigs, 0, |w| request.encode(w, 0)).await.expect("answered");
    let answer = IncrementalAlterConfigsResponse::decode(&mut Reader::new(&body), 0).expect("an answer");
    assert_eq!(answer.responses[0].error_code, 0, "{:?}", answer.responses[0].error_message);
}

#[test]
fn a_replica_that_waits_for_a_directory_lives_by_the_settings_of_when_it_is_served() {
    for seed in 4100..4105 {
        let world = World::new(seed);
        let clients = world.executor();
        let node = Node::start(&world, Remains::none(), Setup { log_dirs: TWO_DIRECTORIES, ..TWO_SHARDS.into() });
        create_topic(&world, &clients, &node);
        let partition = homes(&node).iter().position(|home| *home == "/two").expect("one lies there") as i32;
        node.disk().delay(Path::new("/two"), Delay::Hang);
        let (shard, replica) = node.next_reign(TOPIC, partition);
        let name = TopicPartition { topic: TOPIC.into(), partition };
        let partitions = vec![(name, false)];
        node.tell(shard, |image_version| ShardInput::StopReplica { partitions, image_version });
        for epoch in [1, 2] {
            let reign = LocalPartition { leader_epoch: epoch, partition_epoch: epoch, ..replica.clone() };
            node.lead_or_follow(shard, reign);
        }
        let mut client = Client::new(node.connect());
        run(&world, &clients, async move {
            set(&mut client, OF_TOPICS, TOPIC, "retention.ms", "123456789").await;
            set(&mut client, OF_BROKERS, "", "producer.id.expiration.ms", "1000").await;
        });
        assert!(replica_of(&node, partition).is_none(), "seed {seed}: the directory hangs");
        node.disk().release(Path::new("/two"));
        world.run_until(|| replica_of(&node, partition).is_some_and(|replica| replica.leader_epoch() == 2));
        let replica = replica_of(&node, partition).expect("just seen");
        assert_eq!(replica.config().retention_ms, 123_456_789, "seed {seed}");

        let mut client = Client::new(node.connect());
        let batch = Batch { acks: 1, partition, producer: Some((7, 0)), value: b"value".to_vec() };
        run(&world, &clients, async move { client.send(&batch).await.expect("answered").expect("appended") });
        assert_eq!(replica.active_producers().expect("open").len(), 1);
        // Longer than it takes until idle producers are looked for.
        run_for(&world, Duration::from_secs(700));
        replica.expire_producers();
        assert_eq!(replica.active_producers().expect("open").len(), 0, "seed {seed}");
        clients.clear();
    }
}

#[test]
fn a_topic_that_others_made_anew_under_its_name_begins_empty_and_the_old_log_is_kept() {
    for (seed, is_new) in (4110..4120).zip([true, false].into_iter().cycle()) {
        let world = World::new(seed);
        let clients = world.executor();
        let node = Node::start(&world, Remains::none(), Setup { log_dirs: TWO_DIRECTORIES, ..TWO_SHARDS.into() });
        let mut client = Client::new(node.connect());
        run(&world, &clients, async move {
            assert_eq!(client.create_small_topic().await, Some(0));
            for _ in 0..10 {
                assert!(matches!(client.produce(1, 0, b"of the old topic").await, Some(Ok(_))));
            }
        });
        let (shard, replica) = node.next_reign(TOPIC, 0);
        let id = TopicId(*b"another topic...");
        let anew = LocalPartition { id, leader_epoch: 0, partition_epoch: 0, is_new, ..replica };
        // The second time it is known.
        node.lead_or_follow(shard, anew.clone());
        node.lead_or_follow(shard, LocalPartition { leader_epoch: 1, partition_epoch: 1, ..anew });
        world.run_until(|| replica_of(&node, 0).is_some_and(|replica| replica.leader_epoch() == 1));
        let replica = replica_of(&node, 0).expect("just seen");
        assert_eq!((replica.topic_id, log_end(&replica)), (id, 0), "seed {seed}");
        let mut client = Client::new(node.connect());
        let first = run(&world, &clients, async move { client.produce(1, 0, b"of the new topic").await });
        assert_eq!(first, Some(Ok(0)), "seed {seed}");
        let logs = node.disk().paths().into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "log"));
        let of_old = |path: &std::path::PathBuf| {
            let bytes = node.disk().contents(path).expect("a file");
            bytes.windows(16).any(|window| window == b"of the old topic")
        };
        let old: Vec<_> = logs.filter(of_old).collect();
        assert!(old.len() == 1 && old[0].to_string_lossy().contains("-stray/"), "seed {seed}: {old:?}");
        clients.clear();
    }
}

#[test]
fn the_checkpoint_of_the_high_watermark_does_not_outlive_a_cut_below_it() {
    let world = World::new(4120);
    let clients = world.executor();
    let node = Node::start(&world, Remains::none(), TWO_SHARDS);
    let mut client = Client::new(node.connect());
    run(&world, &clients, async move {
        assert_eq!(client.create_small_topic().await, Some(0));
        for _ in 0..5 {
            assert!(matches!(client.produce(-1, 0, b"value").await, Some(Ok(_))));
        }
    });
    let checkpointed = || {
        let file = node.disk().contents(Path::new("/data/replication-offset-checkpoint")).unwrap_or_default();
        String::from_utf8(file).expect("text").lines().find_map(|line| line.strip_prefix("simulated 0 ")?.parse().ok())
    };
    world.run_until(|| checkpointed() == Some(5));
    let (shard, replica) = node.next_reign(TOPIC, 0);
    node.lead_or_follow(shard, LocalPartition { leader: BrokerId(99), ..replica });
    let replica = replica_of(&node, 0).expect("it is served");
    world.run_until(|| replica.leader_epoch() == 1);
    let follower = Rc::clone(&replica);
    let cut = run(&world, &clients, async move { follower.truncate(Cut::From(2), 1).await });
    assert_eq!((cut.expect("cut"), checkpointed()), (2, Some(2)));
}

#[test]
fn an_image_is_shown_when_the_roles_that_came_before_it_are_taken_on() {
    for seed in 4130..4140 {
        let world = World::new(seed);
        let clients = world.executor();
        let node = Node::start(&world, Remains::none(), TWO_SHARDS);
        let mut client = Client::new(node.connect());
        let mut client = run(&world, &clients, async move {
            assert_eq!(client.create_small_topic().await, Some(0));
            assert_eq!(client.produce(1, 0, b"value").await, Some(Ok(0)));
            client
        });
        node.disk().delay(Path::new("/data/simulated-0"), Delay::For(Duration::from_millis(500)));
        clients.spawn(async move {
            // Refused or written, whichever comes first.
            let _ = client.produce(1, 0, b"in flight").await;
        });
        run_for(&world, Duration::from_millis(50));
        let replica = replica_of(&node, 0).expect("it is served");
        let (shard, next) = node.next_reign(TOPIC, 0);
        node.lead_or_follow(shard, next);
        run_for(&world, Duration::from_millis(50));
        assert_eq!(replica.leader_epoch(), 0, "seed {seed}: a write is in flight");
        let mut maker = Client::new(node.connect());
        let created = run(&world, &clients, async move { maker.create_named("another", 1).await });
        assert_eq!((created, replica.leader_epoch()), (Some(0), 1), "seed {seed}");
        clients.clear();
    }
}
