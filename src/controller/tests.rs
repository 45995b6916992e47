//! The controller against a plain model: random proposals, slow tree, slow brokers, crashes, and a rival.

mod bounds;
mod others;
mod refusals;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use proptest::prelude::*;

use crate::base::ids::TopicId;
use crate::base::time::Monotonic;
use crate::config::DynamicConfig;
use crate::config::Endpoint;
use crate::metadata::embedded::EmbeddedTree;
use crate::metadata::inputs::{BrokerImage, LEADER_DURING_DELETE, UpdateMetadata};
use crate::metadata::proposal::{
    ConfigChange, ConfigEdit, ConfigOperation, ConfigResource, MorePartitions, NewTopic, TopicRef,
};
use crate::metadata::tree::suite::Probe;
use crate::metadata::tree::{CreateMode, MetadataTree, TreeError, Version, Watch};
use crate::metadata::znodes;

use super::load::{Snapshot, load};
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
    tree: Option<Probe<EmbeddedTree>>,
    now: Now,
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
}

impl World {
    fn new() -> World {
        let mut world = World {
            tree: Some(Probe::of(EmbeddedTree::in_memory().unwrap())),
            now: Now { monotonic: Monotonic(1), wall: 0 },
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
        };
        world.start();
        world
    }

    fn tree(&mut self) -> &mut Probe<EmbeddedTree> {
        self.tree.as_mut().unwrap()
    }

    fn start(&mut self) {
        let endpoint = Endpoint { listener: "PLAINTEXT".into(), host: "h".into(), port: 1 };
        let broker = BrokerImage { id: BrokerId(1), endpoints: vec![endpoint], rack: None };
        for path in znodes::PERSISTENT_PATHS {
            let _ = self.tree().create(path, b"", CreateMode::Persistent);
        }
        let node = znodes::encode_broker(&broker, 0);
        self.tree().create("/brokers/ids/1", &node, CreateMode::Ephemeral).unwrap();
        let generation = self.tree().tree().generation();
        self.handle(Event::Start { generation });
        self.perform(usize::MAX);
        assert_eq!(self.controller.standing(), Standing::Active);
    }

    fn handle(&mut self, event: Event) {
        let random = &mut self.random;
        self.now.monotonic = self.now.monotonic + Duration::from_millis(1);
        self.effects.extend(self.controller.handle(event, self.now, &mut || {
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
                Effect::Ask { token, request, .. } if self.is_full && request.is_write() => {
                    let error = TreeError::NoSpace("free space".into());
                    self.handle(Event::Done { token, result: Err(RequestError::of_request(error)) });
                }
                Effect::Ask { token, generation, request } => {
                    let result = self.tree().ask_in(generation, request);
                    for event in self.tree().events() {
                        self.handle(Event::Watched(event));
                    }
                    self.handle(Event::Done { token, result });
                }
                Effect::Tell { broker, inputs, done } => {
                    assert_eq!(broker, BrokerId(1));
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
                assert!(before.is_none_or(|before| before <= partition.leader_epoch), "a leader epoch only grows");
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
        self.controller = controller();
        self.tree = Some(Probe::of(self.tree.take().unwrap().into_tree().reopen().unwrap()));
        self.start();
    }

    fn rival(&mut self) {
        let (data, _) = self.tree().get(znodes::CONTROLLER_EPOCH, Watch::None).unwrap();
        let epoch = znodes::decode_controller_epoch(&data).unwrap() + 1;
        let data = znodes::encode_controller_epoch(epoch);
        self.tree().set(znodes::CONTROLLER_EPOCH, &data, Version::Any).unwrap();
    }

    /// Lets all that is under way end, with room for it, and what was put off for lack of room be tried again.
    fn settle(&mut self) {
        self.is_full = false;
        self.run_out();
        self.propose(Proposal::AllocateProducerIds);
        self.run_out();
        self.look();
        assert!(self.asked.is_empty(), "every proposal is answered");
    }

    /// Lets the time pass in which the controller does not look at lists again.
    fn look(&mut self) {
        while let Some(deadline) = self.controller.next_deadline() {
            self.now.monotonic = deadline.max(self.now.monotonic);
            self.handle(Event::Time);
            self.run_out();
        }
    }

    /// The answer to a proposal that is handed over now; what else is under way goes on meanwhile.
    fn ask(&mut self, proposal: Proposal) -> Answer {
        self.handle(Event::Proposed { ticket: Ticket::MAX, proposal });
        loop {
            match self.effects.pop_front().expect("an answer comes") {
                Effect::Answer { ticket: Ticket::MAX, answer, .. } => return answer,
                other => {
                    self.effects.push_front(other);
                    self.perform(1);
                    if self.effects.is_empty() {
                        self.tell();
                    }
                }
            }
        }
    }

    fn snapshot(&mut self) -> Snapshot {
        load(self.tree())
    }

    /// One setting, as the tree has it.
    fn setting(&mut self, entity: &str, name: &str) -> Option<String> {
        let path = format!("/config/{entity}");
        let (data, _) = self.tree().get(&path, Watch::None).ok()?;
        znodes::decode_config(&path, &data).unwrap().remove(name)
    }

    fn run_out(&mut self) {
        while !self.effects.is_empty() || !self.orders.is_empty() {
            self.perform(usize::MAX);
            self.tell();
        }
    }

    /// The tree has what clients know, and brokers know what the tree has.
    fn check(&mut self) {
        let snapshot = self.snapshot();
        let in_tree: BTreeMap<String, TopicId> =
            snapshot.topics.iter().map(|topic| (topic.name.clone(), topic.id)).collect();
        for (name, id) in &self.exists {
            assert_eq!(in_tree.get(name), Some(id), "{name} was created");
        }
        for name in &self.gone {
            assert!(!in_tree.contains_key(name), "{name} was deleted");
        }
        if let Some(value) = self.altered.get(&TopicId::ZERO).cloned() {
            assert_eq!(self.setting("brokers/<default>", "log.segment.bytes"), Some(value));
        }
        for topic in &snapshot.topics {
            if let Some(count) = self.counts.get(&topic.id) {
                assert_eq!(topic.partitions.len() as i32, *count, "{}", topic.name);
            }
            if self.controller.standing() == Standing::Active {
                let is_told = |number: &i32| self.epochs.contains_key(&(topic.id, *number));
                assert!(topic.partitions.keys().all(is_told), "the broker knows all of {}", topic.name);
            }
            if let Some(value) = self.altered.get(&topic.id).cloned() {
                assert_eq!(self.setting(&format!("topics/{}", topic.name), "segment.bytes"), Some(value));
            }
        }
        if self.controller.standing() == Standing::Active {
            assert_eq!(self.told, in_tree);
            assert!(snapshot.marked.is_empty());
            let configs = self.tree().children("/config/topics", Watch::None).unwrap();
            assert_eq!(configs, in_tree.keys().cloned().collect::<Vec<_>>(), "nothing is left of a topic");
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
        followed: Followed::new(Arc::new(DynamicConfig::default())),
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
