//! The controller against a plain model: random proposals, slow tree, slow brokers, crashes, and a rival.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use crate::base::ids::TopicId;
use crate::config::Endpoint;
use crate::metadata::ask::Ask;
use crate::metadata::embedded::EmbeddedTree;
use crate::metadata::inputs::{BrokerImage, LEADER_DURING_DELETE, UpdateMetadata};
use crate::metadata::proposal::{
    ConfigChange, ConfigEdit, ConfigOperation, ConfigResource, MorePartitions, NewTopic, TopicRef,
};
use crate::metadata::registration::register;
use crate::metadata::thread::block_on;
use crate::metadata::tree::{CreateMode, TreeError, Version, Watch};
use crate::metadata::znodes;

use super::load::load;
use super::*;

/// What the rest of the world does next.
#[derive(Clone, Debug)]
enum Step {
    Create {
        names: Vec<u8>,
        partitions: i32,
        validate_only: bool,
    },
    Delete {
        names: Vec<u8>,
    },
    ProducerIds,
    /// Another `segment.bytes` for a topic, or for all brokers.
    Alter {
        name: Option<u8>,
        segment_bytes: i32,
    },
    /// More partitions for a topic.
    Expand {
        name: u8,
        count: i32,
    },
    /// The tree's file system has no room, or has some again.
    Full(bool),
    /// The oldest of the controller's effects happens.
    Perform(usize),
    /// A broker says that it has done what it was told.
    Tell,
    /// The process dies and starts again.
    Crash,
    /// Another controller takes the epoch.
    Rival,
}

fn step() -> impl Strategy<Value = Step> {
    let names = || proptest::collection::vec(0u8..6, 1..4);
    prop_oneof![
        4 => (names(), 1..4i32, prop::bool::weighted(0.1))
            .prop_map(|(names, partitions, validate_only)| Step::Create { names, partitions, validate_only }),
        3 => names().prop_map(|names| Step::Delete { names }),
        1 => Just(Step::ProducerIds),
        2 => (proptest::option::of(0u8..6), 14..99i32)
            .prop_map(|(name, segment_bytes)| Step::Alter { name, segment_bytes }),
        2 => (0u8..6, 1..7i32).prop_map(|(name, count)| Step::Expand { name, count }),
        1 => any::<bool>().prop_map(Step::Full),
        8 => (1..6usize).prop_map(Step::Perform),
        3 => Just(Step::Tell),
        1 => Just(Step::Crash),
        1 => Just(Step::Rival),
    ]
}

/// A controller, its tree, and everything that is under way between them.
struct World {
    tree: Option<EmbeddedTree>,
    controller: Controller,
    random: u64,
    effects: VecDeque<Effect>,
    /// Orders that the broker has not finished.
    orders: VecDeque<Token>,
    next_ticket: Ticket,
    asked: BTreeMap<Ticket, Proposal>,
    /// What clients know to be true; a topic that is not in either may or may not exist.
    exists: BTreeMap<String, TopicId>,
    gone: BTreeSet<String>,
    /// Names that two proposals were about at once: their order is not known until both are answered, nor then.
    contested: BTreeSet<String>,
    /// What the broker has been told.
    told: BTreeMap<String, TopicId>,
    epochs: BTreeMap<(TopicId, i32), i32>,
    last_producer_id: i64,
    /// What clients know of settings: of a topic by its id, of all brokers by the zero one.
    altered: BTreeMap<TopicId, String>,
    /// How many partitions clients know of.
    counts: BTreeMap<TopicId, i32>,
    is_full: bool,
    /// What the broker was told of them.
    told_configs: BTreeMap<String, i32>,
}

impl World {
    fn new() -> World {
        let mut world = World {
            tree: Some(EmbeddedTree::in_memory().unwrap()),
            controller: controller(),
            random: 0,
            effects: VecDeque::new(),
            orders: VecDeque::new(),
            next_ticket: 0,
            asked: BTreeMap::new(),
            exists: BTreeMap::new(),
            gone: (0..6).map(name).collect(),
            contested: BTreeSet::new(),
            told: BTreeMap::new(),
            epochs: BTreeMap::new(),
            last_producer_id: -1,
            altered: BTreeMap::new(),
            counts: BTreeMap::new(),
            is_full: false,
            told_configs: BTreeMap::new(),
        };
        world.start();
        world
    }

    fn tree(&self) -> &EmbeddedTree {
        self.tree.as_ref().unwrap()
    }

    fn start(&mut self) {
        let endpoint = Endpoint { listener: "PLAINTEXT".into(), host: "h".into(), port: 1 };
        let broker = BrokerImage { id: BrokerId(1), endpoints: vec![endpoint], rack: None };
        block_on(register(self.tree.as_ref().unwrap(), &broker, 0, &mut || 1)).unwrap();
        self.handle(Event::Start { wall: 0 });
        self.perform(usize::MAX);
        assert_eq!(self.controller.standing(), Standing::Active);
    }

    fn handle(&mut self, event: Event) {
        let random = &mut self.random;
        self.effects.extend(self.controller.handle(event, &mut || {
            *random += 1;
            random.wrapping_mul(0x9E37_79B9_7F4A_7C15)
        }));
    }

    fn propose(&mut self, proposal: Proposal) {
        self.next_ticket += 1;
        // Whatever is asked for is unknown until it is answered.
        self.forget(&proposal);
        self.asked.insert(self.next_ticket, proposal.clone());
        self.handle(Event::Proposed { ticket: self.next_ticket, proposal });
    }

    fn forget(&mut self, proposal: &Proposal) {
        for name in changed_names(proposal) {
            self.exists.remove(&name);
            self.gone.remove(&name);
            if self.is_asked(&name) {
                self.contested.insert(name);
            }
        }
    }

    /// Whether what an answer says of `name` is the last word.
    fn is_known(&mut self, name: &str) -> bool {
        let asked = self.is_asked(name);
        let contested = self.contested.contains(name);
        if !asked {
            self.contested.remove(name);
        }
        !asked && !contested
    }

    /// Lets up to `count` effects happen, oldest first.
    fn perform(&mut self, count: usize) {
        for _ in 0..count {
            let Some(effect) = self.effects.pop_front() else { return };
            match effect {
                Effect::Read { token, path } => {
                    let result = match block_on(self.tree().get(&path, Watch::None)) {
                        Ok(found) => Ok(Some(found)),
                        Err(TreeError::NoNode(_)) => Ok(None),
                        Err(error) => Err(error),
                    };
                    self.handle(Event::Read { token, result });
                }
                Effect::Write { token, .. } if self.is_full => {
                    let error = TreeError::NoSpace("free space".into());
                    self.handle(Event::Written { token, result: Err(RequestError { operation: None, error }) });
                }
                Effect::Write { token, operations } => {
                    let result = block_on(self.tree().multi(operations));
                    self.handle(Event::Written { token, result });
                }
                Effect::Load => {
                    let loaded = block_on(load(self.tree())).map(Box::new).map_err(|error| error.to_string());
                    self.handle(Event::Loaded(loaded));
                }
                Effect::Tell { broker, inputs, done } => {
                    assert_eq!(broker, BrokerId(1));
                    for (name, config) in &inputs.configs {
                        self.told_configs.insert(name.to_string(), config.segment_bytes);
                    }
                    if let Some(update) = &inputs.update_metadata {
                        self.hear(update);
                    }
                    self.orders.extend(done);
                }
                Effect::Answer { ticket, answer, .. } => self.answered(ticket, answer),
            }
        }
    }

    fn hear(&mut self, update: &UpdateMetadata) {
        for topic in &update.topics {
            for partition in &topic.partitions {
                if partition.leader == LEADER_DURING_DELETE {
                    self.told.remove(&*topic.name);
                    continue;
                }
                self.told.insert(topic.name.to_string(), topic.id);
                let before = self.epochs.insert((topic.id, partition.partition), partition.leader_epoch);
                assert!(before.is_none_or(|before| before < partition.leader_epoch), "a leader epoch only grows");
            }
        }
    }

    fn tell(&mut self) {
        if let Some(token) = self.orders.pop_front() {
            self.handle(Event::Told { token });
        }
    }

    fn answered(&mut self, ticket: Ticket, answer: Answer) {
        let proposal = self.asked.remove(&ticket).expect("answered once");
        let names: BTreeSet<String> = changed_names(&proposal).into_iter().collect();
        let known: BTreeSet<String> = names.into_iter().filter(|name| self.is_known(name)).collect();
        match answer {
            Answer::CreateTopics(results) => {
                let Proposal::CreateTopics { validate_only: false, .. } = proposal else { return };
                for result in results {
                    if let Ok(created) = result.outcome
                        && known.contains(&result.name)
                    {
                        self.counts.insert(created.id, created.partitions);
                        self.exists.insert(result.name, created.id);
                    }
                }
            }
            Answer::DeleteTopics(results) => {
                for result in results {
                    let name = result.name.unwrap();
                    let is_gone = matches!(result.outcome, Ok(()) | Err(TopicRefusal::UnknownTopic));
                    if is_gone && known.contains(&name) {
                        self.gone.insert(name);
                    }
                }
            }
            Answer::AllocateProducerIds(block) => {
                assert!(block.start > self.last_producer_id, "a producer id is given once");
                self.last_producer_id = block.last;
            }
            Answer::CreatePartitions(results) => {
                let Proposal::CreatePartitions { topics, validate_only: false } = proposal else { return };
                for (topic, result) in topics.into_iter().zip(results) {
                    if result.is_ok()
                        && let Some(id) = self.told.get(&topic.topic)
                    {
                        self.counts.insert(*id, topic.count);
                    }
                }
            }
            Answer::AlterConfigs(results) => {
                let Proposal::AlterConfigs { changes, validate_only: false } = proposal else { return };
                for (change, result) in changes.into_iter().zip(results) {
                    if result.is_ok() {
                        self.take_change(change);
                    }
                }
            }
            Answer::FollowSettings(result) => assert_eq!(result, Ok(())),
            Answer::Failed(error) => {
                assert!(matches!(error, ProposalError::NotController | ProposalError::Tree(_)), "{error}");
            }
        }
    }

    fn take_change(&mut self, change: ConfigChange) {
        let ConfigEdit::Change(operations) = change.edit else { unreachable!("the steps change") };
        let Some((_, ConfigOperation::Set(value))) = operations.into_iter().next() else { unreachable!("and set") };
        match change.resource {
            ConfigResource::Topic(name) => {
                // One that is being deleted has none any more.
                if let Some(id) = self.told.get(&name) {
                    self.altered.insert(*id, value);
                }
            }
            _ => drop(self.altered.insert(TopicId::ZERO, value)),
        }
    }

    fn is_asked(&self, name: &str) -> bool {
        self.asked.values().any(|proposal| changed_names(proposal).iter().any(|changed| changed == name))
    }

    fn crash(&mut self) {
        // What was under way is lost or not; nobody will hear.
        let asked = std::mem::take(&mut self.asked);
        for proposal in asked.values() {
            self.forget(proposal);
        }
        self.contested.clear();
        self.effects.clear();
        self.orders.clear();
        self.told.clear();
        self.altered.clear();
        self.counts.clear();
        self.is_full = false;
        self.told_configs.clear();
        self.controller = controller();
        self.tree = Some(self.tree.take().unwrap().reopen().unwrap());
        self.start();
    }

    fn rival(&mut self) {
        let (data, _) = block_on(self.tree().get(znodes::CONTROLLER_EPOCH, Watch::None)).unwrap();
        let epoch = znodes::decode_controller_epoch(&data).unwrap() + 1;
        let data = znodes::encode_controller_epoch(epoch);
        block_on(self.tree().set(znodes::CONTROLLER_EPOCH, &data, Version::Any)).unwrap();
    }

    /// Lets all that is under way end, with room for it, and what was put off for lack of room be tried again.
    fn settle(&mut self) {
        self.is_full = false;
        self.run_out();
        self.propose(Proposal::AllocateProducerIds);
        self.run_out();
        assert!(self.asked.is_empty(), "every proposal is answered");
    }

    fn run_out(&mut self) {
        while !self.effects.is_empty() || !self.orders.is_empty() {
            self.perform(usize::MAX);
            self.tell();
        }
    }

    /// The tree has what clients know, and brokers know what the tree has.
    fn check(&self) {
        let snapshot = block_on(load(self.tree())).unwrap();
        let in_tree: BTreeMap<String, TopicId> =
            snapshot.topics.iter().map(|topic| (topic.name.clone(), topic.id)).collect();
        for (name, id) in &self.exists {
            assert_eq!(in_tree.get(name), Some(id), "{name} was created");
        }
        for name in &self.gone {
            assert!(!in_tree.contains_key(name), "{name} was deleted");
        }
        let of_all = snapshot.broker_configs.get(znodes::ALL_BROKERS).and_then(|map| map.get("log.segment.bytes"));
        if let Some(value) = self.altered.get(&TopicId::ZERO) {
            assert_eq!(of_all, Some(value));
        }
        for topic in &snapshot.topics {
            if let Some(count) = self.counts.get(&topic.id) {
                assert_eq!(topic.partitions.len() as i32, *count, "{}", topic.name);
            }
            if self.controller.standing() == Standing::Active {
                let is_told = |number: &i32| self.epochs.contains_key(&(topic.id, *number));
                assert!(topic.partitions.keys().all(is_told), "the broker knows all of {}", topic.name);
            }
            let own = topic.config.as_ref().and_then(|map| map.get("segment.bytes"));
            if let Some(value) = self.altered.get(&topic.id) {
                assert_eq!(own, Some(value), "{}", topic.name);
            }
            if self.controller.standing() == Standing::Active {
                let in_force = own.or(of_all).map_or(1 << 30, |value| value.parse().unwrap());
                assert_eq!(self.told_configs.get(&topic.name), Some(&in_force), "{}", topic.name);
            }
        }
        assert!(snapshot.config_changes.len() <= 1, "notices do not pile up");
        if self.controller.standing() == Standing::Active {
            assert_eq!(self.told, in_tree);
            assert!(snapshot.marked.is_empty() && snapshot.stray_configs.is_empty());
            for (name, number, partition) in
                snapshot.topics.iter().flat_map(|topic| topic.partitions.iter().map(|(n, p)| (&topic.name, n, p)))
            {
                let state = partition.state.as_ref().unwrap_or_else(|| panic!("{name}-{number} has no leader"));
                assert_eq!((state.leader, &state.isr), (BrokerId(1), &partition.replicas));
            }
        }
    }
}

/// Topics that a proposal may change.
fn changed_names(proposal: &Proposal) -> Vec<String> {
    match proposal {
        Proposal::CreateTopics { validate_only: true, .. }
        | Proposal::AlterConfigs { .. }
        | Proposal::CreatePartitions { .. }
        | Proposal::FollowSettings { .. }
        | Proposal::AllocateProducerIds => Vec::new(),
        Proposal::CreateTopics { topics, .. } => topics.iter().map(|topic| topic.name.clone()).collect(),
        Proposal::DeleteTopics { topics } => topics
            .iter()
            .map(|topic| match topic {
                TopicRef::Name(name) => name.clone(),
                TopicRef::Id(_) => unreachable!("asked by name"),
            })
            .collect(),
    }
}

fn controller() -> Controller {
    Controller::new(Settings {
        broker_id: BrokerId(1),
        num_partitions: 1,
        default_replication_factor: 1,
        delete_topic_enable: true,
        dynamic: Arc::default(),
    })
}

fn name(index: u8) -> String {
    // The last two collide.
    ["a", "b", "c", "d", "x.y", "x_y"][usize::from(index)].to_owned()
}

fn new_topic(name: String, partitions: i32) -> NewTopic {
    NewTopic { name, partitions, replication_factor: -1, assignments: vec![], configs: vec![] }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_clients_tree_and_brokers_agree_in_the_end(steps in proptest::collection::vec(step(), 1..80)) {
        let mut world = World::new();
        for step in steps {
            match step {
                Step::Create { names, partitions, validate_only } => {
                    let topics = names.into_iter().map(|index| new_topic(name(index), partitions)).collect();
                    world.propose(Proposal::CreateTopics { topics, validate_only });
                }
                Step::Delete { names } => {
                    let topics = names.into_iter().map(|index| TopicRef::Name(name(index))).collect();
                    world.propose(Proposal::DeleteTopics { topics });
                }
                Step::ProducerIds => world.propose(Proposal::AllocateProducerIds),
                Step::Alter { name: index, segment_bytes } => world.propose(alter(index, segment_bytes)),
                Step::Expand { name: index, count } => {
                    let topics = vec![MorePartitions { topic: name(index), count, assignments: None }];
                    world.propose(Proposal::CreatePartitions { topics, validate_only: false });
                }
                Step::Full(is_full) => world.is_full = is_full,
                Step::Perform(count) => world.perform(count),
                Step::Tell => world.tell(),
                Step::Crash => world.crash(),
                Step::Rival => world.rival(),
            }
        }
        world.settle();
        world.check();
        world.crash();
        world.settle();
        world.check();
    }
}

fn alter(index: Option<u8>, segment_bytes: i32) -> Proposal {
    let (resource, key) = match index {
        Some(index) => (ConfigResource::Topic(name(index)), "segment.bytes"),
        None => (ConfigResource::AllBrokers, "log.segment.bytes"),
    };
    let edit = ConfigEdit::Change(vec![(key.to_owned(), ConfigOperation::Set(segment_bytes.to_string()))]);
    Proposal::AlterConfigs { changes: vec![ConfigChange { resource, edit }], validate_only: false }
}

fn refusals(topics: Vec<NewTopic>) -> Vec<Option<TopicRefusal>> {
    let mut world = World::new();
    world.propose(Proposal::CreateTopics { topics: vec![new_topic("x.y".into(), 1)], validate_only: false });
    world.settle();
    world.handle(Event::Proposed { ticket: 99, proposal: Proposal::CreateTopics { topics, validate_only: true } });
    match world.effects.pop_front() {
        Some(Effect::Answer { answer: Answer::CreateTopics(results), when: When::Now, .. }) => {
            results.into_iter().map(|result| result.outcome.err()).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn topics_that_cannot_be_are_refused_for_kafkas_reasons() {
    let assigned = |assignments: &[(i32, &[i32])]| NewTopic {
        assignments: assignments
            .iter()
            .map(|(number, ids)| (*number, ids.iter().copied().map(BrokerId).collect()))
            .collect(),
        ..new_topic(format!("assigned{}", assignments.len()), -1)
    };
    let configured = |name: &str, key: &str, value: Option<&str>| NewTopic {
        configs: vec![(key.to_owned(), value.map(str::to_owned))],
        ..new_topic(name.to_owned(), 1)
    };
    type Matches = fn(&TopicRefusal) -> bool;
    let cases: Vec<(NewTopic, Matches)> = vec![
        (new_topic("x.y".into(), 1), |found| matches!(found, TopicRefusal::AlreadyExists(_))),
        (new_topic("x_y".into(), 1), |found| matches!(found, TopicRefusal::InvalidName(_))),
        (new_topic("bad name".into(), 1), |found| matches!(found, TopicRefusal::InvalidName(_))),
        (new_topic("twice".into(), 1), |found| matches!(found, TopicRefusal::InvalidRequest(_))),
        (new_topic("twice".into(), 1), |found| matches!(found, TopicRefusal::InvalidRequest(_))),
        (new_topic("none".into(), 0), |found| matches!(found, TopicRefusal::InvalidPartitions(_))),
        (new_topic("many".into(), i32::MAX), |found| matches!(found, TopicRefusal::InvalidPartitions(_))),
        (NewTopic { replication_factor: 2, ..new_topic("r2".into(), 1) }, |found| {
            matches!(found, TopicRefusal::InvalidReplicationFactor(_))
        }),
        (NewTopic { replication_factor: 0, ..new_topic("r0".into(), 1) }, |found| {
            matches!(found, TopicRefusal::InvalidReplicationFactor(_))
        }),
        (assigned(&[(1, &[1])]), |found| matches!(found, TopicRefusal::InvalidReplicaAssignment(_))),
        (assigned(&[(0, &[1]), (1, &[1, 2])]), |found| matches!(found, TopicRefusal::InvalidReplicaAssignment(_))),
        (assigned(&[(0, &[1, 1]), (1, &[1, 2]), (2, &[1, 2])]), |found| {
            matches!(found, TopicRefusal::InvalidReplicaAssignment(_))
        }),
        (NewTopic { partitions: 1, ..assigned(&[(0, &[1]), (1, &[1]), (2, &[1]), (3, &[1])]) }, |found| {
            matches!(found, TopicRefusal::InvalidRequest(_))
        }),
        (configured("c1", "segment.byte", Some("1")), |found| matches!(found, TopicRefusal::InvalidConfig(_))),
        (configured("c2", "segment.bytes", Some("1")), |found| matches!(found, TopicRefusal::InvalidConfig(_))),
        (configured("c3", "segment.bytes", None), |found| matches!(found, TopicRefusal::InvalidConfig(_))),
    ];
    let (topics, expected): (Vec<NewTopic>, Vec<Matches>) = cases.into_iter().unzip();
    for ((found, expected), topic) in refusals(topics.clone()).iter().zip(expected).zip(topics) {
        assert!(found.as_ref().is_some_and(expected), "{}: {found:?}", topic.name);
    }
    assert_eq!(refusals(vec![new_topic("fine".into(), -1)]), [None]);
}

#[test]
fn more_partitions_are_refused_for_kafkas_reasons_and_made_for_good_ones() {
    let mut world = World::new();
    world.propose(Proposal::CreateTopics { topics: vec![new_topic("a".into(), 3)], validate_only: false });
    world.settle();
    let more = |topic: &str, count, assignments: Option<&[&[i32]]>| MorePartitions {
        topic: topic.to_owned(),
        count,
        assignments: assignments
            .map(|lists| lists.iter().map(|ids| ids.iter().copied().map(BrokerId).collect()).collect()),
    };
    let mut ask = |topics: Vec<MorePartitions>, validate_only| {
        world.handle(Event::Proposed { ticket: 99, proposal: Proposal::CreatePartitions { topics, validate_only } });
        loop {
            match world.effects.pop_front().expect("an answer comes") {
                Effect::Answer { answer: Answer::CreatePartitions(results), .. } => break results,
                other => {
                    world.effects.push_front(other);
                    world.perform(1);
                }
            }
        }
    };
    let cases = [
        (more("nothing", 5, None), "The topic 'nothing' does not exist."),
        (more("a", 3, None), "Topic already has 3 partitions."),
        (more("a", -1, None), "Topic currently has 3 partitions, which is higher than the requested -1."),
        (more("a", i32::MAX, None), "One request may create at most 50000 partitions."),
        (more("a", 4, Some(&[&[1, 9]])), "Unknown broker(s) in replica assignment: 9."),
        (more("a", 5, Some(&[&[1]])), "Increasing the number of partitions by 2 but 1 assignments provided."),
        (more("a", 4, Some(&[&[]])), "Cannot have replication factor of 0 for partition id 3."),
        (
            more("a", 4, Some(&[&[1, 1]])),
            "Duplicate brokers not allowed in replica assignment: 1, 1 for partition id 3.",
        ),
    ];
    for (topic, text) in cases {
        assert_eq!(ask(vec![topic], false)[0].as_ref().unwrap_err().to_string(), text);
    }
    assert_eq!(ask(vec![more("a", 5, None)], true), [Ok(())]);
    assert_eq!(ask(vec![more("a", 4, Some(&[&[1]]))], false), [Ok(())], "what was only validated was not made");
    let results = ask(vec![more("b", 9, None), more("a", 6, None)], false);
    assert!(results[0].is_err() && results[1].is_ok());
    world.counts.clear();
    world.settle();
    world.check();
    assert_eq!(block_on(load(world.tree())).unwrap().topics[0].partitions.len(), 6);
}

#[test]
fn on_a_full_disk_proposals_are_refused_and_the_controller_goes_on_when_there_is_room() {
    let mut world = World::new();
    let create = |name: &str| Proposal::CreateTopics { topics: vec![new_topic(name.into(), 1)], validate_only: false };
    world.propose(create("a"));
    world.settle();
    world.is_full = true;
    world.handle(Event::Proposed { ticket: 99, proposal: create("b") });
    world.perform(1);
    match world.effects.pop_front() {
        Some(Effect::Answer { answer: Answer::CreateTopics(results), .. }) => {
            let refusal = results[0].outcome.as_ref().unwrap_err();
            assert!(refusal.to_string().contains("free space"), "{refusal}");
        }
        other => panic!("{other:?}"),
    }
    // The logs go, and the tree has no room to forget the topic.
    world.is_full = false;
    world.propose(Proposal::DeleteTopics { topics: vec![TopicRef::Name("a".into())] });
    world.perform(2);
    world.is_full = true;
    world.run_out();
    assert_eq!(world.controller.standing(), Standing::Active);
    assert!(world.asked.is_empty(), "the deletion is answered");
    world.is_full = false;
    world.propose(create("b"));
    world.run_out();
    let topics: Vec<String> =
        block_on(load(world.tree())).unwrap().topics.into_iter().map(|topic| topic.name).collect();
    assert_eq!(topics, ["b"]);
    world.settle();
    world.check();
}

#[test]
fn a_topic_that_another_wrote_first_is_refused_alone() {
    let mut world = World::new();
    block_on(world.tree().create("/brokers/topics/b", b"{}", CreateMode::Persistent)).unwrap();
    let topics = ["a", "b", "c"].map(|name| new_topic(name.into(), 1)).into();
    world.handle(Event::Proposed { ticket: 1, proposal: Proposal::CreateTopics { topics, validate_only: false } });
    let answer = loop {
        match world.effects.pop_front().expect("an answer comes") {
            Effect::Answer { answer: Answer::CreateTopics(results), .. } => break results,
            other => {
                world.effects.push_front(other);
                world.perform(1);
            }
        }
    };
    assert!(answer[0].outcome.is_ok() && answer[2].outcome.is_ok());
    assert_eq!(answer[1].outcome, Err(TopicRefusal::AlreadyExists("b".into())));
}

#[test]
fn many_topics_are_written_in_few_transactions_of_whole_topics() {
    let mut world = World::new();
    let topics = (0..3000).map(|index| new_topic(format!("t{index}"), 1)).collect();
    world.handle(Event::Proposed { ticket: 1, proposal: Proposal::CreateTopics { topics, validate_only: false } });
    let writes: Vec<usize> = world
        .effects
        .iter()
        .map(|effect| match effect {
            Effect::Write { operations, .. } => operations.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    // Config, topic, partitions, partition and state of each, and a fence for each write.
    assert_eq!(writes.iter().sum::<usize>(), 3000 * 5 + writes.len());
    assert!(writes.iter().all(|count| *count <= OPERATIONS_PER_WRITE + 1 && count % 5 == 1), "{writes:?}");
}

#[test]
fn a_replica_whose_broker_is_away_suspends_the_deletion_but_keeps_the_mark() {
    let mut world = World::new();
    let mut topic = new_topic("t".into(), -1);
    topic.assignments = vec![(0, vec![BrokerId(1), BrokerId(2)])];
    world.propose(Proposal::CreateTopics { topics: vec![topic], validate_only: false });
    world.settle();
    world.handle(Event::Proposed {
        ticket: 99,
        proposal: Proposal::DeleteTopics { topics: vec![TopicRef::Name("t".into())] },
    });
    world.perform(1);
    match world.effects.pop_front() {
        Some(Effect::Answer { answer: Answer::DeleteTopics(results), .. }) => {
            assert_eq!(results[0].outcome, Err(TopicRefusal::DeletionSuspended));
        }
        other => panic!("{other:?}"),
    }
    assert!(block_on(world.tree().exists("/admin/delete_topics/t", Watch::None)).unwrap().is_some());
}

#[test]
fn a_mark_without_topic_is_taken_away_at_the_take_over() {
    let mut world = World::new();
    block_on(world.tree().create("/admin/delete_topics/t", b"", CreateMode::Persistent)).unwrap();
    world.crash();
    assert_eq!(block_on(world.tree().children("/admin/delete_topics", Watch::None)).unwrap(), Vec::<String>::new());
}

#[test]
fn many_topics_are_deleted_in_few_orders_and_transactions() {
    let mut world = World::new();
    let names: Vec<String> = (0..2000).map(|index| format!("t{index}")).collect();
    let topics = names.iter().map(|name| new_topic(name.clone(), 1)).collect();
    world.propose(Proposal::CreateTopics { topics, validate_only: false });
    world.settle();
    world.propose(Proposal::DeleteTopics { topics: names.into_iter().map(TopicRef::Name).collect() });
    world.perform(1);
    // Six nodes each: state, partition, partitions, topic, config, mark.
    assert_eq!(world.effects.len(), (2000 * 6_usize).div_ceil(OPERATIONS_PER_WRITE / 6 * 6));
    world.settle();
    world.check();
    assert!(world.told.is_empty());
}
