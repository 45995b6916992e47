//! What the control thread owes: a process that does not belong to its tree's cluster touches nothing, and a shard that falls
//! behind with its inputs misses nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::controller::node::StartError;
use crate::metadata::membership::{self, Refusal};
use crate::metadata::publisher;
use crate::sim::network::Network;

/// Topics of one client, each made at once with the others' and written to.
const TOPICS_EACH: usize = 6;
const CLIENTS: usize = 12;

fn any_end(world: &World) -> End {
    [End::Kill, End::PowerCut, End::Stop][world.below(3)]
}

/// A process with one record in a topic that has the same name everywhere, ended in order.
fn with_a_record(world: &World, value: &'static [u8]) -> Remains {
    let clients = world.executor();
    let node = Node::start(world, Remains::none(), TWO_SHARDS);
    let mut client = Client::new(node.connect());
    run(world, &clients, async move {
        assert_eq!(client.create_small_topic().await, Some(0));
        assert!(matches!(client.produce(1, 0, value).await, Some(Ok(0))));
    });
    let remains = node.end(End::Stop);
    clients.clear();
    remains
}

/// Starts a process, and gives why it was refused, and what it left.
fn try_life(world: &World, remains: Remains) -> (Option<StartError>, Remains) {
    match Node::try_start_on(&Network::new(world).add_host(), remains, TWO_SHARDS) {
        Ok(node) => (None, node.end(any_end(world))),
        Err(refused) => (Some(refused.error), refused.remains),
    }
}

/// Two processes are each started on the tree of the other, and then on their own: whether nothing is lost.
fn start_on_the_trees_of_others(seed: u64) -> Result<(), String> {
    let world = World::new(seed);
    let (mut first, mut second) = (with_a_record(&world, b"first"), with_a_record(&world, b"second"));
    first.swap_trees(&mut second);
    let (refused, mut first) = try_life(&world, first);
    let (refused_too, mut second) = try_life(&world, second);
    first.swap_trees(&mut second);
    for (remains, value) in [(first, b"first".to_vec()), (second, b"second".to_vec())] {
        let clients = world.executor();
        let node = Node::start(&world, remains, TWO_SHARDS);
        let mut client = Client::new(node.connect());
        let found = run(&world, &clients, async move { client.fetch_all(0).await });
        clients.clear();
        if found != Some(vec![(0, value)]) {
            return Err(format!("the log holds {found:?}"));
        }
        node.end(End::Kill);
    }
    for refused in [refused, refused_too] {
        let Some(StartError::Membership(Refusal::OtherCluster { .. })) = refused else {
            return Err(format!("it was not refused: {refused:?}"));
        };
    }
    Ok(())
}

#[test]
fn a_process_on_the_tree_of_another_cluster_ends_before_it_registers_or_touches_a_log() {
    for seed in 7000..7020 {
        start_on_the_trees_of_others(seed).unwrap_or_else(|lost| panic!("seed {seed}: {lost}"));
    }
}

#[test]
fn a_process_that_takes_part_in_any_cluster_is_seen_to_lose_logs_and_its_seed_replays() {
    membership::planted::JOIN_ANY_CLUSTER.set(true);
    let outcome =
        |seed| catch_unwind(AssertUnwindSafe(|| start_on_the_trees_of_others(seed))).unwrap_or(Err("panic".into()));
    let outcomes: Vec<_> = (7000..7004).map(outcome).collect();
    let replayed: Vec<_> = (7000..7004).map(outcome).collect();
    membership::planted::JOIN_ANY_CLUSTER.set(false);
    assert!(
        outcomes.iter().all(|outcome| matches!(outcome, Err(lost) if lost.starts_with("the log holds"))),
        "{outcomes:?}"
    );
    assert_eq!(outcomes, replayed);
}

/// Many clients make topics at once, delete some, and write to the rest: whether every topic serves in the end.
fn overflow(seed: u64) -> Result<(), String> {
    let world = World::new(seed);
    let clients = world.executor();
    let node = Node::start(&world, Remains::none(), TWO_SHARDS);
    let done = Rc::new(Cell::new(0));
    for client_number in 0..CLIENTS {
        for number in 0..TOPICS_EACH {
            let (mut client, done) = (Client::new(node.connect()), Rc::clone(&done));
            let name = format!("t{client_number}-{number}");
            clients.spawn(async move {
                assert_eq!(client.create_named(&name, 3).await, Some(0));
                if number % 3 == 0 {
                    assert_eq!(client.delete_named(&name).await, Some(0));
                    assert_eq!(client.create_named(&name, 2).await, Some(0));
                }
                for partition in 0..2 {
                    assert_eq!(client.produce_to(&name, partition, b"there").await, Some(Ok(0)), "{name}");
                }
                done.set(done.get() + 1);
            });
        }
    }
    let all = CLIENTS * TOPICS_EACH;
    for _ in 0..OVERFLOW_STEPS_MAX {
        if done.get() == all {
            node.end(any_end(&world));
            return Ok(());
        }
        if !world.step() {
            break;
        }
    }
    Err(format!("{} of {all} topics serve, and nothing more happens", done.get()))
}

/// Far more than the whole run takes.
const OVERFLOW_STEPS_MAX: usize = 2_000_000;

#[test]
fn a_shard_that_falls_behind_with_thousands_of_changes_is_told_all_anew_and_everything_serves() {
    for seed in 7100..7106 {
        overflow(seed).unwrap_or_else(|stuck| panic!("seed {seed}: {stuck}"));
    }
}

#[test]
fn a_full_queue_that_forgets_is_seen_to_lose_topics_and_its_seed_replays() {
    publisher::planted::DROP_WHAT_HAS_NO_ROOM.set(true);
    let outcome = |seed| catch_unwind(AssertUnwindSafe(|| overflow(seed))).unwrap_or(Err("panic".into()));
    let outcomes: Vec<_> = (7100..7103).map(outcome).collect();
    let replayed = outcome(7100);
    publisher::planted::DROP_WHAT_HAS_NO_ROOM.set(false);
    assert!(outcomes.iter().any(Result::is_err), "the planted bug is never met");
    assert_eq!(outcomes[0], replayed);
}
