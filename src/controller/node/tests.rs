use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Mutex, mpsc};

use crate::base::ids::{ShardId, TopicId};
use crate::metadata::embedded::EmbeddedTree;
use crate::metadata::node::ShardInput;
use crate::metadata::proposal::{CreateTopicResult, NewTopic, Proposal, TopicRef, TopicRefusal};
use crate::metadata::thread::{block_on, channel, spawn};
use crate::metadata::tree::Version;
use crate::metadata::znodes;

use super::*;

#[derive(Clone, Default)]
struct Shards(Rc<RefCell<Vec<(ShardId, ShardInput)>>>);

impl ShardSink for Shards {
    fn shard_count(&self) -> u16 {
        2
    }
    fn send(&self, shard: ShardId, input: ShardInput) {
        self.0.borrow_mut().push((shard, input));
    }
}

impl Shards {
    fn take(&self) -> Vec<(ShardId, ShardInput)> {
        self.0.take()
    }
}

type Node = MetadataNode<EmbeddedTree, Shards>;
type Answers = Arc<Mutex<Vec<Answer>>>;

fn settings() -> NodeSettings {
    let endpoint = Endpoint { listener: "PLAINTEXT".into(), host: "127.0.0.1".into(), port: 9092 };
    NodeSettings {
        broker: BrokerImage { id: BrokerId(1), endpoints: vec![endpoint], rack: None },
        controller: Settings {
            broker_id: BrokerId(1),
            num_partitions: 3,
            default_replication_factor: 1,
            delete_topic_enable: true,
            dynamic: Arc::default(),
        },
    }
}

fn random(seed: u64) -> Random {
    let mut state = seed;
    Box::new(move || {
        // SplitMix64.
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    })
}

fn start(tree: EmbeddedTree, shards: &Shards, seed: u64) -> Node {
    block_on(MetadataNode::start(tree, shards.clone(), settings(), 7, random(seed))).unwrap()
}

fn fresh() -> (Node, Shards, Answers) {
    let shards = Shards::default();
    let mut node = start(EmbeddedTree::in_memory().unwrap(), &shards, 1);
    apply_all(&mut node);
    shards.take();
    (node, shards, Answers::default())
}

fn new_topic(name: &str, partitions: i32) -> NewTopic {
    NewTopic { name: name.into(), partitions, replication_factor: -1, assignments: vec![], configs: vec![] }
}

fn create(topics: Vec<NewTopic>) -> Proposal {
    Proposal::CreateTopics { topics, validate_only: false }
}

fn propose(node: &mut Node, answers: &Answers, proposal: Proposal) {
    let answers = answers.clone();
    let answer = Box::new(move |answer| answers.lock().unwrap().push(answer));
    block_on(node.handle(MetadataInput::Proposal { proposal, answer }));
}

fn apply(node: &mut Node, shard: u16, image_version: u64) {
    block_on(node.handle(MetadataInput::Applied { shard: ShardId(shard), image_version }));
}

/// Both shards keep up until nothing new is published.
fn apply_all(node: &mut Node) {
    while !node.is_shown() {
        let version = node.image().version;
        apply(node, 0, version);
        apply(node, 1, version);
    }
}

fn take(answers: &Answers) -> Vec<Answer> {
    std::mem::take(&mut answers.lock().unwrap())
}

fn created(answers: &Answers) -> Vec<CreateTopicResult> {
    match take(answers).pop() {
        Some(Answer::CreateTopics(results)) => results,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_answer_leaves_only_when_the_last_shard_shows_the_topic() {
    let (mut node, shards, answers) = fresh();
    propose(&mut node, &answers, create(vec![new_topic("t", -1)]));
    let version = node.image().version;
    let sent = shards.take();
    let local: usize = sent
        .iter()
        .map(|(_, input)| match input {
            ShardInput::LeaderAndIsr { partitions, image_version } => {
                assert_eq!(*image_version, version);
                assert!(partitions.iter().all(|partition| partition.is_new && partition.leader_epoch == 0));
                partitions.len()
            }
            _ => 0,
        })
        .sum();
    assert_eq!(local, 3);
    apply(&mut node, 0, version);
    assert!(take(&answers).is_empty());
    apply(&mut node, 1, version);
    let results = created(&answers);
    let topic = results[0].outcome.as_ref().unwrap();
    assert_eq!((topic.partitions, topic.replication_factor), (3, 1));
    assert_eq!(node.image().topic_by_id(topic.id).unwrap().name.as_ref(), "t");
}

#[test]
fn a_topic_is_gone_from_tree_image_and_shards_before_its_deletion_is_answered() {
    let (mut node, shards, answers) = fresh();
    propose(&mut node, &answers, create(vec![new_topic("t", 2)]));
    apply_all(&mut node);
    take(&answers);
    shards.take();

    let id = node.image().topic("t").unwrap().id;
    propose(&mut node, &answers, Proposal::DeleteTopics { topics: vec![TopicRef::Id(id)] });
    let stopped: usize = shards
        .take()
        .iter()
        .map(|(_, input)| match input {
            ShardInput::StopReplica { partitions, .. } => partitions.iter().filter(|(_, delete)| *delete).count(),
            _ => 0,
        })
        .sum();
    assert_eq!(stopped, 2);
    assert!(node.image().topic("t").is_none());
    assert!(block_on(node.tree.exists("/admin/delete_topics/t", Watch::None)).unwrap().is_some());
    propose(&mut node, &answers, create(vec![new_topic("t", 2)]));
    assert_eq!(created(&answers)[0].outcome, Err(TopicRefusal::MarkedForDeletion("t".into())));

    apply_all(&mut node);
    let Some(Answer::DeleteTopics(results)) = take(&answers).pop() else { panic!("no answer") };
    assert_eq!((results[0].outcome.clone(), results[0].name.as_deref()), (Ok(()), Some("t")));
    for path in ["/brokers/topics/t", "/config/topics/t", "/admin/delete_topics/t"] {
        assert_eq!(block_on(node.tree.exists(path, Watch::None)).unwrap(), None, "{path}");
    }
    propose(&mut node, &answers, create(vec![new_topic("t", 2)]));
    apply_all(&mut node);
    assert!(created(&answers)[0].outcome.is_ok(), "a topic of the same name can be made at once");
}

#[test]
fn a_restart_finds_the_topics_and_starts_a_new_leader_epoch_for_each() {
    let (mut node, shards, answers) = fresh();
    let mut topic = new_topic("t", 4);
    topic.configs.push(("segment.bytes".into(), Some("1000".into())));
    propose(&mut node, &answers, create(vec![topic, new_topic("u", 1)]));
    let before = node.image().topic("t").unwrap().clone();
    let cluster_id = node.image().cluster_id.clone();
    shards.take();

    let node = start(node.into_tree().reopen().unwrap(), &shards, 2);
    let image = node.image();
    assert_eq!((image.cluster_id.clone(), image.topic_count()), (cluster_id, 2));
    let after = image.topic("t").unwrap();
    assert_eq!((after.id, after.config.segment_bytes), (before.id, 1000));
    for (old, new) in before.partitions.iter().zip(&after.partitions) {
        assert_eq!((new.leader, new.leader_epoch), (BrokerId(1), old.leader_epoch + 1));
    }
    for (_, input) in shards.take() {
        if let ShardInput::LeaderAndIsr { partitions, .. } = input {
            assert!(partitions.iter().all(|partition| !partition.is_new && partition.leader_epoch == 1));
        }
    }
}

#[test]
fn a_deletion_cut_short_by_a_crash_ends_after_the_restart() {
    let (mut node, shards, answers) = fresh();
    propose(&mut node, &answers, create(vec![new_topic("t", 2)]));
    apply_all(&mut node);
    propose(&mut node, &answers, Proposal::DeleteTopics { topics: vec![TopicRef::Name("t".into())] });
    shards.take();

    let mut node = start(node.into_tree().reopen().unwrap(), &shards, 2);
    assert!(node.image().topic("t").is_none());
    let stops = shards.take().iter().filter(|(_, input)| matches!(input, ShardInput::StopReplica { .. })).count();
    assert!(stops > 0);
    apply_all(&mut node);
    assert_eq!(block_on(node.tree.children("/brokers/topics", Watch::None)).unwrap(), Vec::<String>::new());
    assert_eq!(block_on(node.tree.children("/admin/delete_topics", Watch::None)).unwrap(), Vec::<String>::new());
}

#[test]
fn producer_id_blocks_follow_each_other_over_restarts() {
    let (mut node, shards, answers) = fresh();
    let next = |node: &mut Node| {
        propose(node, &answers, Proposal::AllocateProducerIds);
        match take(&answers).pop() {
            Some(Answer::AllocateProducerIds(block)) => (block.start, block.last),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(next(&mut node), (0, 999));
    assert_eq!(next(&mut node), (1000, 1999));
    let mut node = start(node.into_tree().reopen().unwrap(), &shards, 2);
    assert_eq!(next(&mut node), (2000, 2999));
}

#[test]
fn a_controller_whose_epoch_was_taken_changes_nothing_any_more() {
    let (mut node, _, answers) = fresh();
    block_on(node.tree.set("/controller_epoch", b"9", Version::Any)).unwrap();
    propose(&mut node, &answers, create(vec![new_topic("t", 1)]));
    assert_eq!(created(&answers)[0].outcome, Err(TopicRefusal::NotController));
    assert_eq!(block_on(node.tree.exists("/brokers/topics/t", Watch::None)).unwrap(), None);
    propose(&mut node, &answers, Proposal::AllocateProducerIds);
    assert_eq!(take(&answers), [Answer::Failed(ProposalError::NotController)]);
}

#[test]
fn a_full_table_refuses_as_busy_and_takes_again_once_shards_catch_up() {
    let (mut node, _, answers) = fresh();
    let mut made = 0;
    while node.has_room() {
        made += 1;
        propose(&mut node, &answers, create(vec![new_topic(&format!("t{made}"), 1)]));
    }
    assert!(take(&answers).is_empty());
    propose(&mut node, &answers, create(vec![new_topic("late", 1)]));
    assert_eq!(take(&answers), [Answer::Failed(ProposalError::Busy)]);
    apply_all(&mut node);
    assert_eq!(take(&answers).len(), made);
    assert!(node.has_room());
}

#[test]
fn the_tree_of_a_new_cluster_has_kafkas_values() {
    let (mut node, _, answers) = fresh();
    propose(&mut node, &answers, create(vec![new_topic("t", 1)]));
    let text = |path: &str| {
        let (data, stat) = block_on(node.tree.get(path, Watch::None)).unwrap();
        (String::from_utf8(data).unwrap(), stat)
    };
    assert_eq!(text(znodes::CONTROLLER_EPOCH).0, "1");
    assert!(text("/controller").0.contains(r#""brokerid":1"#));
    assert_ne!(text("/controller").1.ephemeral_owner, 0);
    assert_eq!(text("/config/topics/t").0, r#"{"config":{},"version":1}"#);
    let id = node.image().topic("t").unwrap().id;
    assert_ne!(id, TopicId::ZERO);
    assert!(text("/brokers/topics/t").0.contains(&id.to_string()));
    assert!(text("/brokers/topics/t/partitions/0/state").0.contains(r#""leader":1"#));
}

#[test]
fn on_its_thread_a_node_answers_proposals_until_it_is_stopped() {
    struct Echo(mpsc::Sender<(ShardId, u64)>);
    impl ShardSink for Echo {
        fn shard_count(&self) -> u16 {
            2
        }
        fn send(&self, shard: ShardId, input: ShardInput) {
            if let ShardInput::Image(image) = input {
                self.0.send((shard, image.version)).unwrap();
            }
        }
    }
    let (images, shown) = mpsc::channel();
    let (handle, inbox) = channel(2);
    let shards = {
        let handle = handle.clone();
        std::thread::spawn(move || {
            for (shard, version) in shown {
                handle.applied(shard, version);
            }
        })
    };
    let (ready, is_ready) = mpsc::channel();
    let metadata = spawn(move || async move {
        let tree = EmbeddedTree::in_memory().unwrap();
        let node = MetadataNode::start(tree, Echo(images), settings(), 7, random(1)).await.unwrap();
        run(node, inbox, move || ready.send(()).unwrap()).await;
    })
    .unwrap();
    is_ready.recv().unwrap();
    let (send, answers) = mpsc::channel();
    for index in 0..20 {
        let send = send.clone();
        let proposal = create(vec![new_topic(&format!("t{index}"), 2)]);
        handle.propose(proposal, Box::new(move |answer| send.send(answer).unwrap())).unwrap();
    }
    for _ in 0..20 {
        let Answer::CreateTopics(results) = answers.recv().unwrap() else { panic!("another answer") };
        assert!(results[0].outcome.is_ok());
    }
    handle.stop();
    metadata.join().unwrap();
    shards.join().unwrap();
}
