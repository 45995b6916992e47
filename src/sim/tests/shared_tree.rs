//! Nodes that share one tree.

use super::*;
use crate::sim::network::Network;
use crate::sim::tree::{Ensemble, SESSION_TIMEOUT};

fn controller(tree: &Ensemble) -> Option<u64> {
    let value: serde_json::Value = serde_json::from_slice(&tree.data("/controller")?).expect("Kafka's JSON");
    value["brokerid"].as_u64()
}

fn registered(tree: &Ensemble) -> Vec<String> {
    tree.children("/brokers/ids")
}

/// Two nodes on one tree; the one that is controller ends, and comes again.
fn end_of_a_controller(seed: u64, how: End) -> Vec<TraceEntry> {
    let world = World::new(seed);
    let (network, tree) = (Network::new(&world), Ensemble::new(&world));
    let (one, other) = (network.add_host(), network.add_host());
    let first = Node::start_on(&one, Remains::none_but_tree(&tree), TWO_SHARDS);
    let second = Node::start_on(&other, Remains::none_but_tree(&tree), TWO_SHARDS);
    assert_eq!((registered(&tree), controller(&tree)), (vec!["1".into(), "2".into()], Some(1)), "seed {seed}");

    let remains = first.end(how);
    match how {
        End::Stop => {}
        End::Kill | End::PowerCut => {
            run_for(&world, SESSION_TIMEOUT / 2);
            assert_eq!(controller(&tree), Some(1), "its session may still be heard of (seed {seed})");
        }
    }
    run_for(&world, SESSION_TIMEOUT);
    assert_eq!((registered(&tree), controller(&tree)), (vec!["2".into()], Some(2)), "seed {seed}");
    let clients = world.executor();
    create_topic(&world, &clients, &second);

    let first = Node::start_on(&one, remains, TWO_SHARDS);
    assert_eq!((registered(&tree), controller(&tree)), (vec!["1".into(), "2".into()], Some(2)), "seed {seed}");
    first.end(End::Kill);
    second.end(End::Kill);
    world.trace()
}

#[test]
fn a_node_that_stands_by_becomes_controller_when_the_other_is_gone_and_that_one_stands_by_when_it_is_back() {
    for (seed, how) in (4300..4310).flat_map(|seed| [End::Kill, End::PowerCut, End::Stop].map(|how| (seed, how))) {
        end_of_a_controller(seed, how);
    }
}

#[test]
fn nodes_on_a_shared_tree_run_the_same_twice_under_one_seed() {
    for (seed, how) in (4320..4323).flat_map(|seed| [End::Kill, End::PowerCut, End::Stop].map(|how| (seed, how))) {
        let [run, again] = [(); 2].map(|()| end_of_a_controller(seed, how));
        assert!(run == again, "seed {seed} with {how:?} ran differently");
    }
}
