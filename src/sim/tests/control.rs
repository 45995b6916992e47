//! What the control thread owes: a process that does not belong to its tree's cluster touches nothing, and a shard that falls
//! behind with its inputs misses nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::*;
use crate::controller::node::StartError;
use crate::metadata::membership::{self, Refusal};
use crate::metadata::publisher;
use crate::sim::network::Network;

/// Topics of one client, each made at once with the others' and written to.
const TOPICS_EACH: usize = 6;
const CLIENTS: usize = 12;

/// What a clean stop leaves.
const MARKER: &str = "/data/.kafka_cleanshutdown";

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
    let marked = [&first, &second].map(|remains| remains.disk.contents(Path::new(MARKER)).is_ok());
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
    if marked != [true, true] {
        return Err(format!("the markers of the clean stops were touched: {marked:?}"));
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

/// A run of [`overflow`].
#[derive(Debug, PartialEq)]
struct Overflow {
    trace: Vec<TraceEntry>,
    /// How often a shard that had fallen behind was told all anew.
    told_all: usize,
    outcome: Result<(), String>,
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, found: T, wanted: T) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("{what} is answered with {found:?}")) }
}

/// Makes a topic, perhaps deletes it and makes it again, and writes to it.
async fn make_and_write(mut client: Client, name: String, is_deleted: bool) -> Result<(), String> {
    expect(&format!("the creation of {name}"), client.create_named(&name, 3).await, Some(0))?;
    if is_deleted {
        expect(&format!("the deletion of {name}"), client.delete_named(&name).await, Some(0))?;
        expect(&format!("the second creation of {name}"), client.create_named(&name, 2).await, Some(0))?;
    }
    for partition in 0..2 {
        let produced = client.produce_to(&name, partition, b"there").await;
        expect(&format!("a produce to {name}-{partition}"), produced, Some(Ok(0)))?;
    }
    Ok(())
}

/// Many clients make topics at once, delete some, and write to the rest: whether every topic serves in the end.
fn overflow(seed: u64) -> Overflow {
    publisher::counted::TOLD_ALL.set(0);
    let world = World::new(seed);
    let clients = world.executor();
    let node = Node::start(&world, Remains::none(), TWO_SHARDS);
    let ended = Rc::new(RefCell::new(Vec::new()));
    for (client_number, number) in (0..CLIENTS).flat_map(|client| (0..TOPICS_EACH).map(move |number| (client, number)))
    {
        let (client, ended) = (Client::new(node.connect()), Rc::clone(&ended));
        let name = format!("t{client_number}-{number}");
        clients.spawn(async move {
            let outcome = make_and_write(client, name, number % 3 == 0).await;
            ended.borrow_mut().push(outcome);
        });
    }
    let all = CLIENTS * TOPICS_EACH;
    let have_ended = world.run_within(OVERFLOW_STEPS_MAX, || ended.borrow().len() == all);
    let outcome = match ended.take().into_iter().collect::<Result<Vec<()>, String>>() {
        Ok(served) if !have_ended => Err(format!("{} of {all} topics serve, and nothing more happens", served.len())),
        ended => ended.map(|_| ()),
    };
    let trace = world.trace();
    if outcome.is_ok() {
        node.end(any_end(&world));
    }
    Overflow { trace, told_all: publisher::counted::TOLD_ALL.get(), outcome }
}

/// Far more than the whole run takes.
const OVERFLOW_STEPS_MAX: u64 = 1_000_000;

#[test]
fn a_shard_that_falls_behind_with_changes_of_topics_is_told_all_anew_and_everything_serves() {
    for seed in 7100..7106 {
        let run = overflow(seed);
        assert_eq!(run.outcome, Ok(()), "seed {seed}");
        assert!(run.told_all > 0, "no shard fell behind (seed {seed})");
    }
}

#[test]
fn a_full_queue_that_forgets_is_seen_to_lose_topics_and_its_seed_replays() {
    publisher::planted::DROP_WHAT_HAS_NO_ROOM.set(true);
    let runs: Vec<_> = (7100..7103).map(|seed| (seed, overflow(seed), overflow(seed))).collect();
    publisher::planted::DROP_WHAT_HAS_NO_ROOM.set(false);
    for (seed, run, again) in runs {
        assert!(run.outcome.is_err(), "the planted bug is not met (seed {seed})");
        assert!(run == again, "it does not replay (seed {seed}): {:?}, {:?}", run.outcome, again.outcome);
    }
}
