//! A node over an embedded tree, with shards that say Applied when a test has them do so.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Mutex;
use std::task::Waker;
use std::time::Duration;

use crate::base::ids::{BrokerId, ShardId, TopicId};
use crate::config::DynamicConfig;
use crate::controller::event::Standing;
use crate::metadata::embedded::EmbeddedTree;
use crate::metadata::node::ShardInput;
use crate::metadata::proposal::{
    ConfigChange, ConfigEdit, ConfigOperation, ConfigResource, CreateTopicResult, NewTopic, TopicRef, TopicRefusal,
};
use crate::metadata::tree::suite::Probe;
use crate::metadata::tree::{CreateMode, Stat, Version, Watch};
use crate::metadata::znodes;

use super::*;

#[derive(Clone, Default)]
struct Shards(Rc<RefCell<Vec<(ShardId, ShardInput)>>>);

impl ShardSink for Shards {
    fn shard_count(&self) -> u16 {
        2
    }
    fn room(&self, _: ShardId) -> usize {
        usize::MAX
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

/// A node and the time it lives in.
struct Node {
    node: MetadataNode<EmbeddedTree, Shards>,
    now: Now,
}

type Answers = Arc<Mutex<Vec<Answer>>>;

impl Node {
    fn image(&self) -> &Arc<ClusterImage> {
        self.node.image().expect("registered")
    }

    /// Takes what the tree has to say, until it says nothing more.
    fn run(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(input)) = self.node.poll_input(&mut cx, None, self.now) {
            self.node.take(input, self.now);
        }
    }

    fn take(&mut self, input: MetadataInput) {
        self.node.take(Input::Metadata(input), self.now);
        self.run();
    }

    /// Lets time pass.
    fn wait(&mut self, time: Duration) {
        self.now.monotonic = self.now.monotonic + time;
        self.node.take(Input::Time, self.now);
        self.run();
    }

    /// Something is done to the tree by somebody else, between two turns of the node.
    fn by_another<R>(&mut self, act: impl FnOnce(&mut Probe<EmbeddedTree>) -> R) -> R {
        let nobodys = Requests::new(EmbeddedTree::in_memory().unwrap());
        let own = std::mem::replace(&mut self.node.requests, nobodys);
        let mut probe = Probe::of(own.into_tree());
        let result = act(&mut probe);
        self.node.requests = Requests::new(probe.into_tree());
        result
    }

    fn into_tree(self) -> EmbeddedTree {
        self.node.into_tree()
    }
}

fn settings() -> NodeSettings {
    let endpoint = Endpoint { listener: "PLAINTEXT".into(), host: "127.0.0.1".into(), port: 9092 };
    NodeSettings {
        broker: BrokerImage { id: BrokerId(1), endpoints: vec![endpoint], rack: None },
        controller: Settings {
            broker_id: BrokerId(1),
            num_partitions: 3,
            default_replication_factor: 1,
            delete_topic_enable: true,
            followed: Followed::new(Arc::new(DynamicConfig::default())),
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
    let now = Now { monotonic: Monotonic(1), wall: 7 };
    let mut node = Node { node: MetadataNode::new(tree, settings(), random(seed)), now };
    node.node.hear([Heard::Membership(membership::Event::Join { cluster_id: None, random: [3, 4] })], now);
    node.run();
    assert!(node.node.cluster_id.is_some() && node.node.follower.is_ready());
    assert!(shards.0.borrow().is_empty(), "no shard hears anything before the broker is registered");
    node.node.sink = Some(shards.clone());
    let broker = node.node.broker.clone();
    node.node.hear([Heard::Membership(membership::Event::Register { broker })], now);
    node.run();
    assert_eq!(node.node.controller.standing(), Standing::Active);
    node
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
    node.take(MetadataInput::Proposal { proposal, answer });
}

fn apply(node: &mut Node, shard: u16, image_version: u64) {
    node.take(MetadataInput::Applied { shard: ShardId(shard), image_version });
}

/// Both shards keep up until nothing new is published.
fn apply_all(node: &mut Node) {
    while !node.node.is_shown() {
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
    assert!(node.by_another(|tree| tree.exists("/admin/delete_topics/t", Watch::None)).unwrap().is_some());
    propose(&mut node, &answers, create(vec![new_topic("t", 2)]));
    assert_eq!(created(&answers)[0].outcome, Err(TopicRefusal::MarkedForDeletion("t".into())));

    apply_all(&mut node);
    let Some(Answer::DeleteTopics(results)) = take(&answers).pop() else { panic!("no answer") };
    assert_eq!((results[0].outcome.clone(), results[0].name.as_deref()), (Ok(()), Some("t")));
    for path in ["/brokers/topics/t", "/config/topics/t", "/admin/delete_topics/t"] {
        assert_eq!(node.by_another(|tree| tree.exists(path, Watch::None)).unwrap(), None, "{path}");
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
    assert_eq!(node.by_another(|tree| tree.children("/brokers/topics", Watch::None)).unwrap(), Vec::<String>::new());
    assert_eq!(
        node.by_another(|tree| tree.children("/admin/delete_topics", Watch::None)).unwrap(),
        Vec::<String>::new()
    );
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
    node.by_another(|tree| tree.set("/controller_epoch", b"9", Version::Any)).unwrap();
    propose(&mut node, &answers, create(vec![new_topic("t", 1)]));
    assert_eq!(created(&answers)[0].outcome, Err(TopicRefusal::NotController));
    assert_eq!(node.by_another(|tree| tree.exists("/brokers/topics/t", Watch::None)).unwrap(), None);
    propose(&mut node, &answers, Proposal::AllocateProducerIds);
    assert_eq!(take(&answers), [Answer::Failed(ProposalError::NotController)]);
}

#[test]
fn a_full_table_refuses_as_busy_and_takes_again_once_shards_catch_up() {
    let (mut node, _, answers) = fresh();
    let mut made = 0;
    while node.node.has_room() {
        made += 1;
        propose(&mut node, &answers, create(vec![new_topic(&format!("t{made}"), 1)]));
    }
    assert!(take(&answers).is_empty());
    propose(&mut node, &answers, create(vec![new_topic("late", 1)]));
    assert_eq!(take(&answers), [Answer::Failed(ProposalError::Busy)]);
    apply_all(&mut node);
    assert_eq!(take(&answers).len(), made);
    assert!(node.node.has_room());
}

#[test]
fn the_tree_of_a_new_cluster_has_kafkas_values() {
    let (mut node, _, answers) = fresh();
    propose(&mut node, &answers, create(vec![new_topic("t", 1)]));
    let id = node.image().topic("t").unwrap().id;
    let mut text = |path: &str| -> (String, Stat) {
        let (data, stat) = node.by_another(|tree| tree.get(path, Watch::None)).unwrap();
        (String::from_utf8(data).unwrap(), stat)
    };
    assert_eq!(text(znodes::CONTROLLER_EPOCH).0, "1");
    assert!(text("/controller").0.contains(r#""brokerid":1"#));
    assert_ne!(text("/controller").1.ephemeral_owner, 0);
    assert_eq!(text("/config/topics/t").0, r#"{"config":{},"version":1}"#);
    assert_ne!(id, TopicId::ZERO);
    assert!(text("/brokers/topics/t").0.contains(&id.to_string()));
    assert!(text("/brokers/topics/t/partitions/0/state").0.contains(r#""leader":1"#));
}

#[test]
fn changed_settings_are_answered_when_every_shard_lives_by_them() {
    let (mut node, shards, answers) = fresh();
    propose(&mut node, &answers, create(vec![new_topic("t", 1)]));
    apply_all(&mut node);
    take(&answers);
    shards.take();
    let edit = ConfigEdit::Change(vec![("segment.bytes".into(), ConfigOperation::Set("77".into()))]);
    let changes = vec![ConfigChange { resource: ConfigResource::Topic("t".into()), edit }];
    propose(&mut node, &answers, Proposal::AlterConfigs { changes, validate_only: false });
    let is_told = |(_, input): &(ShardId, ShardInput)| match input {
        ShardInput::Configs { configs, .. } => configs[0].1.segment_bytes == 77,
        _ => false,
    };
    assert_eq!(shards.take().iter().filter(|sent| is_told(sent)).count(), 2);
    let version = node.image().version;
    apply(&mut node, 0, version);
    assert!(take(&answers).is_empty());
    apply(&mut node, 1, version);
    assert_eq!(take(&answers), [Answer::AlterConfigs(vec![Ok(())])]);
    assert_eq!(node.by_another(|tree| tree.children("/config/changes", Watch::None)).unwrap().len(), 1);
    node.wait(config_follower::NOTICE_LIFE);
    assert!(node.by_another(|tree| tree.children("/config/changes", Watch::None)).unwrap().is_empty());
}

#[test]
fn a_topic_is_run_by_the_settings_that_it_was_made_with_also_after_one_of_its_name() {
    let (mut node, shards, answers) = fresh();
    for bytes in [1000, 2000] {
        let mut topic = new_topic("t", 1);
        topic.configs.push(("segment.bytes".into(), Some(bytes.to_string())));
        propose(&mut node, &answers, create(vec![topic]));
        apply_all(&mut node);
        let led = shards.take().into_iter().find_map(|(_, input)| match input {
            ShardInput::LeaderAndIsr { partitions, .. } => Some(partitions[0].config.segment_bytes),
            _ => None,
        });
        assert_eq!((led, node.image().topic("t").unwrap().config.segment_bytes), (Some(bytes), bytes));
        propose(&mut node, &answers, Proposal::DeleteTopics { topics: vec![TopicRef::Name("t".into())] });
        apply_all(&mut node);
        shards.take();
    }
}

#[test]
fn a_topic_lives_by_its_own_settings_where_others_were_left_under_its_name() {
    for left in [&br#"{"version":1,"config":{"segment.bytes":"77"}}"#[..], b"{"] {
        let (mut node, shards, answers) = fresh();
        node.by_another(|tree| tree.create("/config/topics/t", left, CreateMode::Persistent)).unwrap();
        let mut node = start(node.into_tree().reopen().unwrap(), &shards, 2);
        apply_all(&mut node);
        let mut topic = new_topic("t", 1);
        topic.configs.push(("retention.ms".into(), Some("1000".into())));
        propose(&mut node, &answers, create(vec![topic]));
        apply_all(&mut node);
        assert!(created(&answers)[0].outcome.is_ok());
        let config = &node.image().topic("t").expect("it is shown").config;
        assert_eq!((config.segment_bytes, config.retention_ms), (1 << 30, 1000));
    }
}

#[test]
fn settings_of_topics_that_are_gone_are_forgotten() {
    let (mut node, _, answers) = fresh();
    propose(&mut node, &answers, create(vec![new_topic("t", 1)]));
    apply_all(&mut node);
    assert!(node.node.follower.followed().topic("t").is_some());
    propose(&mut node, &answers, Proposal::DeleteTopics { topics: vec![TopicRef::Name("t".into())] });
    apply_all(&mut node);
    assert!(node.node.follower.followed().topic("t").is_none());
}

#[test]
fn a_write_that_is_more_than_the_tree_takes_is_refused_and_holds_up_no_other() {
    let (mut node, _, answers) = fresh();
    let mut large = new_topic("large", 1);
    let pattern = "0:1,".repeat(300_000);
    large.configs.push(("leader.replication.throttled.replicas".into(), Some(pattern)));
    propose(&mut node, &answers, create(vec![large]));
    apply_all(&mut node);
    match &created(&answers)[0].outcome {
        Err(TopicRefusal::Tree(reason)) => assert!(reason.contains("a write of 12"), "{reason}"),
        other => panic!("{other:?}"),
    }
    propose(&mut node, &answers, create(vec![new_topic("t", 1)]));
    apply_all(&mut node);
    assert!(created(&answers)[0].outcome.is_ok());
}
