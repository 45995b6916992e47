//! How much is written at once, and that what is too much for once is written all the same.

use super::super::writes::OPERATIONS_PER_WRITE_MAX;
use super::*;

fn write_sizes(world: &World) -> Vec<usize> {
    let sizes = world.effects.iter().filter_map(|effect| match effect {
        Effect::Ask { request: Request::Multi(operations), .. } => Some(operations.len()),
        _ => None,
    });
    sizes.collect()
}

fn create(topics: Vec<NewTopic>) -> Proposal {
    Proposal::CreateTopics { topics, validate_only: false }
}

fn delete(name: &str) -> Proposal {
    Proposal::DeleteTopics { topics: vec![TopicRef::Name(name.into())] }
}

#[test]
fn many_topics_are_written_in_bounded_transactions_of_whole_topics() {
    let mut world = World::new();
    let topics = (0..3000).map(|index| new_topic(format!("t{index}"), 1)).collect();
    world.handle(Event::Proposed { ticket: 1, proposal: create(topics) });
    // Config, topic, partitions, partition and state of each, and a fence for each write.
    let writes = write_sizes(&world);
    assert_eq!(writes.iter().sum::<usize>(), 3000 * 5 + writes.len());
    assert!(writes.iter().all(|count| *count <= OPERATIONS_PER_WRITE_MAX && count % 5 == 1), "{writes:?}");
}

#[test]
fn a_topic_of_thousands_of_partitions_is_made_grown_and_deleted_in_bounded_transactions() {
    let (mut world, mut largest) = (World::new(), 0);
    let mut run = |world: &mut World| {
        while !world.effects.is_empty() || !world.orders.is_empty() {
            largest = write_sizes(world).into_iter().max().unwrap_or(0).max(largest);
            world.perform(1);
            if world.effects.is_empty() {
                world.tell();
            }
        }
    };
    world.propose(create(vec![new_topic("a".into(), 2000), new_topic("b".into(), 1)]));
    run(&mut world);
    world.check();
    assert_eq!(world.counts.len(), 2, "both are answered");
    let topics = vec![MorePartitions { topic: "a".into(), count: 3000, assignments: None }];
    world.propose(Proposal::CreatePartitions { topics, validate_only: false });
    run(&mut world);
    world.check();
    assert_eq!(world.counts.values().copied().max(), Some(3000));
    world.propose(delete("a"));
    run(&mut world);
    assert!(largest <= OPERATIONS_PER_WRITE_MAX, "{largest}");
    world.settle();
    world.check();
    assert_eq!(world.told.keys().collect::<Vec<_>>(), ["b"]);
}

#[test]
fn a_crash_between_a_large_topic_and_its_states_leaves_what_a_take_over_completes() {
    for performed in 0..40 {
        let mut world = World::new();
        world.propose(create(vec![new_topic("a".into(), 1000)]));
        world.perform(performed);
        world.crash();
        world.settle();
        world.check();
        let topics = world.snapshot().topics;
        assert!(topics.is_empty() || topics[0].partitions.len() == 1000);
    }
}

#[test]
fn many_topics_are_deleted_in_few_orders_and_bounded_transactions() {
    let mut world = World::new();
    let names: Vec<String> = (0..2000).map(|index| format!("t{index}")).collect();
    world.propose(create(names.iter().map(|name| new_topic(name.clone(), 1)).collect()));
    world.settle();
    world.propose(Proposal::DeleteTopics { topics: names.into_iter().map(TopicRef::Name).collect() });
    let mut orders = 0;
    while !world.effects.is_empty() || !world.orders.is_empty() {
        assert!(write_sizes(&world).iter().all(|count| *count <= OPERATIONS_PER_WRITE_MAX));
        world.perform(1);
        if world.effects.is_empty() && !world.orders.is_empty() {
            orders += 1;
            world.tell();
        }
    }
    assert!(orders <= 2000_usize.div_ceil(OPERATIONS_PER_WRITE_MAX - 1), "{orders}");
    world.settle();
    world.check();
    assert!(world.told.is_empty());
}

#[test]
fn a_topic_and_its_settings_leave_the_tree_at_once_however_many_partitions_it_has() {
    for partitions in [1, 41, 42, 62, 63, 64, 84, 126] {
        let mut world = World::new();
        world.propose(create(vec![new_topic("a".into(), partitions), new_topic("b".into(), 1)]));
        world.settle();
        world.propose(Proposal::DeleteTopics { topics: ["a", "b"].map(|name| TopicRef::Name(name.into())).to_vec() });
        while !world.effects.is_empty() || !world.orders.is_empty() {
            world.perform(1);
            if world.effects.is_empty() {
                world.tell();
            }
            let mut names = |path: &str| world.tree().children(path, Watch::None).unwrap();
            assert_eq!(names("/config/topics"), names("/brokers/topics"), "{partitions} partitions");
        }
        world.settle();
        world.check();
        assert_eq!(world.gone.len(), 6);
    }
}

#[test]
fn settings_that_a_broken_removal_left_go_with_its_mark() {
    let mut world = World::new();
    for path in ["/config/topics/left", "/admin/delete_topics/left", "/admin/delete_topics/bare"] {
        world.tree().create(path, b"{}", CreateMode::Persistent).unwrap();
    }
    world.tree().create("/brokers/topics/damaged", b"{", CreateMode::Persistent).unwrap();
    for path in ["/config/topics/damaged", "/admin/delete_topics/damaged"] {
        world.tree().create(path, b"{}", CreateMode::Persistent).unwrap();
    }
    world.crash();
    world.settle();
    let mut names = |path: &str| world.tree().children(path, Watch::None).unwrap();
    assert_eq!(names("/admin/delete_topics"), Vec::<String>::new());
    assert_eq!(names("/config/topics"), ["damaged"], "what can't be read may be whole for another");
}

#[test]
fn blocks_of_producer_ids_are_given_one_after_the_other() {
    let mut world = World::new();
    for _ in 0..3 {
        world.propose(Proposal::AllocateProducerIds);
    }
    let mut given = 0;
    while !world.asked.is_empty() {
        let asked = world.effects.iter().filter(|effect| matches!(effect, Effect::Ask { .. })).count();
        assert!(asked <= 1, "two that are under way would write the same");
        given += usize::from(matches!(world.effects.front(), Some(Effect::Answer { .. })));
        world.perform(1);
    }
    assert_eq!(given, 3);
}
