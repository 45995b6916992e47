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
    let mut world = World::new();
    let large = || {
        let (mut world, mut largest) = (World::new(), 0);
        world.propose(create(vec![new_topic("a".into(), 2000), new_topic("b".into(), 1)]));
        let mut run = |world: &mut World| {
            while !world.effects.is_empty() || !world.orders.is_empty() {
                largest = write_sizes(world).into_iter().max().unwrap_or(0).max(largest);
                world.perform(1);
                if world.effects.is_empty() {
                    world.tell();
                }
            }
        };
        run(&mut world);
        world.check();
        assert_eq!(world.counts.len(), 2, "both are answered");
        let topics = vec![MorePartitions { topic: "a".into(), count: 3000, assignments: None }];
        world.propose(Proposal::CreatePartitions { topics, validate_only: false });
        run(&mut world);
        world.check();
        assert_eq!(world.counts.values().copied().max(), Some(3000));
        world.propose(Proposal::DeleteTopics { topics: vec![TopicRef::Name("a".into())] });
        run(&mut world);
        assert!(largest <= OPERATIONS_PER_WRITE_MAX, "{largest}");
        world
    };
    world = {
        drop(world);
        large()
    };
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
