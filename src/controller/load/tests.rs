use std::collections::VecDeque;
use std::time::Duration;

use super::*;
use crate::base::ids::TopicId;
use crate::metadata::embedded::EmbeddedTree;
use crate::metadata::requests::REQUESTS_UNDER_WAY_MAX;
use crate::metadata::tree::suite::Probe;
use crate::metadata::tree::{CreateMode, Operation, Version};
use crate::metadata::znodes::{PartitionState, TopicAssignment};

const OWN: BrokerId = BrokerId(1);

/// A tree of so many topics with so many partitions each, all of them led.
fn tree(topics: i32, partitions: i32) -> Probe<EmbeddedTree> {
    let mut tree = Probe::of(EmbeddedTree::in_memory().unwrap());
    let create = |path: String, data| Operation::Create { path, data, mode: CreateMode::Persistent };
    let paths = znodes::PERSISTENT_PATHS.iter().map(|path| create((*path).to_owned(), Vec::new()));
    tree.multi(paths.collect()).unwrap();
    for topic in 0..topics {
        let name = format!("t{topic}");
        let assignment = TopicAssignment {
            id: TopicId([topic as u8 + 1; 16]),
            partitions: (0..partitions).map(|number| (number, vec![OWN])).collect(),
            others: Others::default(),
        };
        let state = PartitionState {
            leader: OWN,
            leader_epoch: 3,
            isr: vec![OWN],
            controller_epoch: 1,
            others: Others::default(),
        };
        let mut operations = vec![
            create(znodes::topic_path(&name), znodes::encode_topic(&assignment)),
            create(znodes::partitions_path(&name), Vec::new()),
        ];
        for number in 0..partitions {
            operations.push(create(znodes::partition_path(&name, number), Vec::new()));
            let path = znodes::partition_state_path(&name, number);
            operations.push(create(path, znodes::encode_partition_state(&state)));
        }
        tree.multi(operations).unwrap();
    }
    tree
}

/// Loads with as many reads under way as the tree takes, each round of them one trip; `meddle` is called before each.
fn load_in_rounds(
    tree: &mut Probe<EmbeddedTree>,
    mut meddle: impl FnMut(usize, &mut Probe<EmbeddedTree>),
) -> (Snapshot, usize) {
    let (mut loader, reads) = Loader::all();
    let (mut waiting, mut rounds): (VecDeque<Read>, usize) = (reads.into(), 0);
    loop {
        meddle(rounds, tree);
        rounds += 1;
        let under_way: Vec<Read> = waiting.drain(..waiting.len().min(REQUESTS_UNDER_WAY_MAX)).collect();
        for read in under_way {
            match loader.done(read.clone(), tree.ask(read.request())) {
                Step::Ask(more) => waiting.extend(more),
                Step::Done(snapshot) => return (snapshot, rounds),
                Step::Failed(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn twenty_thousand_partitions_take_far_less_than_two_seconds_of_round_trips() {
    let (snapshot, rounds) = load_in_rounds(&mut tree(20, 1000), |_, _| ());
    assert_eq!(snapshot.topics.iter().map(|topic| topic.partitions.len()).sum::<usize>(), 20_000);
    let time = Duration::from_micros(500) * u32::try_from(rounds).unwrap();
    assert!(time < Duration::from_millis(500), "{rounds} round trips");
}

#[test]
fn what_is_gone_between_its_list_and_its_read_is_not_there() {
    let mut tree = tree(3, 2);
    let (snapshot, _) = load_in_rounds(&mut tree, |round, tree| match round {
        // The topics have been listed, and later their states are to be read.
        1 => {
            let delete = |path| Operation::Delete { path, version: Version::Any };
            let state = [0, 1].map(|number| delete(znodes::partition_state_path("t0", number)));
            let nodes = [0, 1].map(|number| delete(znodes::partition_path("t0", number)));
            let rest = [delete(znodes::partitions_path("t0")), delete(znodes::topic_path("t0"))];
            tree.multi(state.into_iter().chain(nodes).chain(rest).collect()).unwrap();
        }
        2 => tree.delete(&znodes::partition_state_path("t1", 1), Version::Any).unwrap(),
        _ => {}
    });
    let names: Vec<_> = snapshot.topics.iter().map(|topic| &*topic.name).collect();
    assert_eq!(names, ["t1", "t2"]);
    let first = &snapshot.topics[0].partitions;
    assert!(first[&0].state.is_some() && first[&1].state.is_none() && first[&1].has_node);
    assert!(snapshot.damaged.is_empty());
}

#[test]
fn a_damaged_value_takes_out_its_topic_alone() {
    let mut tree = tree(3, 2);
    tree.set(&znodes::partition_state_path("t1", 0), b"{\"leader\":1", Version::Any).unwrap();
    tree.create(
        &znodes::topic_path("from-before-ids"),
        br#"{"version":1,"partitions":{"0":[1]}}"#,
        CreateMode::Persistent,
    )
    .unwrap();
    tree.create(&znodes::broker_path(BrokerId(7)), b"[]", CreateMode::Persistent).unwrap();
    tree.create("/brokers/ids/no-number", b"{}", CreateMode::Persistent).unwrap();
    let snapshot = load(&mut tree);
    let names: Vec<_> = snapshot.topics.iter().map(|topic| &*topic.name).collect();
    assert_eq!(names, ["t0", "t2"]);
    let damaged: Vec<_> = snapshot.damaged.keys().map(String::as_str).collect();
    assert_eq!(damaged, ["from-before-ids", "t1"]);
    assert!(snapshot.damaged["from-before-ids"].contains("start it once on Kafka 3.9"));
    assert!(snapshot.brokers.is_empty());
}
