//! A node over a tree that loses replies and expires sessions, under the creation of topics.

use super::*;
use crate::protocol::message::{MetadataRequest, MetadataResponse};
use crate::protocol::{ApiKey, Reader};
use crate::sim::network::Network;
use crate::sim::tree::{Ensemble, TreeFaults};

const METADATA_VERSION: i16 = 12;

/// TOPIC_ALREADY_EXISTS: a creation whose answer told of a failure may have been done.
const EXISTS: i16 = 36;

const TOPICS: usize = 12;

/// How long a client waits for one answer at most, and the node for the tree's word once all is well.
const PATIENCE: Duration = Duration::from_secs(120);

/// How many partitions a topic is to have.
fn partitions_of(topic: usize) -> i32 {
    1 + (topic % 5) as i32
}

fn name_of(topic: usize) -> String {
    format!("topic-{topic:02}")
}

/// The topics that the node shows, with their partitions that have a leader.
async fn shown(client: &mut Client) -> BTreeMap<String, usize> {
    let request = MetadataRequest { topics: None, ..MetadataRequest::default() };
    let body = client.ask(ApiKey::Metadata, METADATA_VERSION, |w| request.encode(w, METADATA_VERSION)).await;
    let body = body.expect("the node serves on");
    let response = MetadataResponse::decode(&mut Reader::new(&body), METADATA_VERSION).expect("metadata");
    let count = |topic: &crate::protocol::message::MetadataResponseTopic| {
        topic.partitions.iter().filter(|partition| partition.leader_id >= 0).count()
    };
    response.topics.iter().map(|topic| (topic.name.clone().unwrap_or_default(), count(topic))).collect()
}

/// The topics that the tree holds, with the partitions that have a state.
fn held(tree: &Ensemble) -> BTreeMap<String, usize> {
    let states = |name: &String| {
        let partitions = format!("/brokers/topics/{name}/partitions");
        let has_state = |partition: &String| tree.data(&format!("{partitions}/{partition}/state")).is_some();
        tree.children(&partitions).iter().filter(|partition| has_state(partition)).count()
    };
    tree.children("/brokers/topics").into_iter().map(|name| (name.clone(), states(&name))).collect()
}

/// Creates topics while the tree misbehaves; then it behaves again. Gives the trace, and how many creations failed.
fn create_topics(seed: u64, faults: TreeFaults) -> (Vec<TraceEntry>, usize) {
    let world = World::new(seed);
    let tree = Ensemble::new(&world);
    let node = Node::start_on(&Network::new(&world).add_host(), Remains::none_but_tree(&tree), TWO_SHARDS);
    let clients = world.executor();
    tree.set_faults(faults);
    let (answered, failed) = (Rc::new(RefCell::new(BTreeMap::new())), Rc::new(Cell::new(0)));
    for first in 0..3 {
        let (mut client, world) = (Client::new(node.connect()), world.clone());
        let (answered, failed) = (Rc::clone(&answered), Rc::clone(&failed));
        clients.spawn(async move {
            for topic in (first..TOPICS).step_by(3) {
                let asked = world.now();
                let code = client.create_named(&name_of(topic), partitions_of(topic)).await.expect("an answer");
                let waited = world.now().since(asked);
                assert!(waited < PATIENCE, "{waited:?} for an answer (seed {seed})");
                failed.set(failed.get() + usize::from(code != 0));
                answered.borrow_mut().insert(topic, code);
            }
        });
    }
    world.run_until(|| answered.borrow().len() == TOPICS);
    tree.set_faults(TreeFaults::default());

    // What failed is asked for again, so that all are there in the end.
    let (mut client, patient) = (Client::new(node.connect()), world.clone());
    let again: Vec<usize> = answered.borrow().iter().filter(|(_, code)| **code != 0).map(|(topic, _)| *topic).collect();
    run(&world, &clients, async move {
        let deadline = patient.now() + PATIENCE;
        for topic in again {
            while !matches!(client.create_named(&name_of(topic), partitions_of(topic)).await, Some(0 | EXISTS)) {
                assert!(patient.now() < deadline, "the tree behaves again (seed {seed})");
                sleep(&patient, Duration::from_millis(500)).await;
            }
        }
    });
    let wanted: BTreeMap<String, usize> =
        (0..TOPICS).map(|topic| (name_of(topic), partitions_of(topic) as usize)).collect();
    assert_eq!(held(&tree), wanted, "each is there whole (seed {seed})");
    let (mut client, patient, expected) = (Client::new(node.connect()), world.clone(), wanted.clone());
    run(&world, &clients, async move {
        let deadline = patient.now() + PATIENCE;
        while shown(&mut client).await != expected {
            assert!(patient.now() < deadline, "the node does not come to show what the tree holds (seed {seed})");
            sleep(&patient, Duration::from_millis(500)).await;
        }
        for topic in 0..TOPICS {
            for partition in 0..partitions_of(topic) {
                let produced = client.produce_to(&name_of(topic), partition, b"x").await;
                assert_eq!(produced, Some(Ok(0)), "{}-{partition} (seed {seed})", name_of(topic));
            }
        }
    });
    let failed = failed.get();
    clients.clear();
    node.end(End::Kill);
    (world.trace(), failed)
}

#[test]
fn a_node_over_a_shared_tree_that_behaves_creates_topics_and_serves() {
    for seed in 4200..4203 {
        assert_eq!(create_topics(seed, TreeFaults::default()).1, 0);
    }
}

#[test]
fn a_tree_that_loses_replies_and_expires_sessions_under_topic_creation() {
    let (mut lost, mut expired) = (0, 0);
    let noted = |trace: &[TraceEntry], what: &str| {
        trace.iter().filter(|entry| matches!(entry, TraceEntry::Note(note) if note.ends_with(what))).count()
    };
    for (seed, [loses_one_in, expires_one_in]) in
        (4210..4240).flat_map(|seed| [[8, 60], [3, 15]].map(|each| (seed, each)))
    {
        let (trace, _) = create_topics(seed, TreeFaults { loses_one_in, expires_one_in });
        lost += noted(&trace, "has lost its connection");
        expired += noted(&trace, "ends");
    }
    assert!(lost > 300 && expired > 60, "the tree is hardly ever unsteady: {lost} lost, {expired} expired");
}

#[test]
fn an_unsteady_tree_runs_the_same_twice_under_one_seed() {
    for seed in 4250..4252 {
        let faults = TreeFaults { loses_one_in: 8, expires_one_in: 60 };
        assert!(create_topics(seed, faults) == create_topics(seed, faults), "seed {seed} ran differently");
    }
}
