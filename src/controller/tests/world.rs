//! The world around one controller.

use super::*;

/// A controller, its tree, and everything that is under way between them.
pub struct World {
    pub tree: Option<Probe<EmbeddedTree>>,
    pub now: Now,
    pub controller: Controller,
    pub random: u64,
    pub effects: VecDeque<Effect>,
    /// Orders that the broker has not finished.
    pub orders: VecDeque<Token>,
    pub next_ticket: Ticket,
    pub asked: BTreeMap<Ticket, Proposal>,
    /// What clients know to be true; a topic that is not in either may or may not exist.
    pub exists: BTreeMap<String, TopicId>,
    pub gone: BTreeSet<String>,
    /// Names that two proposals were about at once: their order is not known until both are answered, nor then.
    pub contested: BTreeSet<String>,
    /// What the broker has been told.
    pub told: BTreeMap<String, TopicId>,
    pub epochs: BTreeMap<(TopicId, i32), i32>,
    pub last_producer_id: i64,
    /// What clients know of settings: of a topic by its id, of all brokers by the zero one.
    pub altered: BTreeMap<TopicId, String>,
    /// How many partitions clients know of.
    pub counts: BTreeMap<TopicId, i32>,
    pub is_full: bool,
}

impl World {
    pub fn new() -> World {
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

    pub fn tree(&mut self) -> &mut Probe<EmbeddedTree> {
        self.tree.as_mut().unwrap()
    }

    pub fn start(&mut self) {
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

    pub fn handle(&mut self, event: Event) {
        let random = &mut self.random;
        self.now.monotonic = self.now.monotonic + Duration::from_millis(1);
        self.effects.extend(self.controller.handle(event, self.now, &mut || {
            *random += 1;
            random.wrapping_mul(0x9E37_79B9_7F4A_7C15)
        }));
    }

    pub fn propose(&mut self, proposal: Proposal) {
        self.next_ticket += 1;
        // Whatever is asked for is unknown until it is answered.
        self.forget(&proposal);
        self.asked.insert(self.next_ticket, proposal.clone());
        self.handle(Event::Proposed { ticket: self.next_ticket, proposal });
    }

    pub fn forget(&mut self, proposal: &Proposal) {
        for name in changed_names(proposal) {
            self.exists.remove(&name);
            self.gone.remove(&name);
            if self.is_asked(&name) {
                self.contested.insert(name);
            }
        }
    }

    /// Whether what an answer says of `name` is the last word.
    pub fn is_known(&mut self, name: &str) -> bool {
        let asked = self.is_asked(name);
        let contested = self.contested.contains(name);
        if !asked {
            self.contested.remove(name);
        }
        !asked && !contested
    }

    /// Lets up to `count` effects happen, oldest first.
    pub fn perform(&mut self, count: usize) {
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
                    // What another is told goes nowhere.
                    if broker != BrokerId(1) {
                        continue;
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

    pub fn hear(&mut self, update: &UpdateMetadata) {
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

    pub fn tell(&mut self) {
        if let Some(token) = self.orders.pop_front() {
            self.handle(Event::Told { token });
        }
    }

    pub fn answered(&mut self, ticket: Ticket, answer: Answer) {
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

    pub fn take_change(&mut self, change: ConfigChange) {
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

    pub fn is_asked(&self, name: &str) -> bool {
        self.asked.values().any(|proposal| changed_names(proposal).iter().any(|changed| changed == name))
    }

    pub fn crash(&mut self) {
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

    pub fn rival(&mut self) {
        let (data, _) = self.tree().get(znodes::CONTROLLER_EPOCH, Watch::None).unwrap();
        let epoch = znodes::decode_controller_epoch(&data).unwrap() + 1;
        let data = znodes::encode_controller_epoch(epoch);
        self.tree().set(znodes::CONTROLLER_EPOCH, &data, Version::Any).unwrap();
    }

    /// Lets all that is under way end, with room for it, and what was put off for lack of room be tried again.
    pub fn settle(&mut self) {
        self.is_full = false;
        self.run_out();
        self.propose(Proposal::AllocateProducerIds);
        self.run_out();
        self.look();
        assert!(self.asked.is_empty(), "every proposal is answered");
    }

    /// Lets the time pass in which the controller does not look at lists again.
    pub fn look(&mut self) {
        while let Some(deadline) = self.controller.next_deadline() {
            self.now.monotonic = deadline.max(self.now.monotonic);
            self.handle(Event::Time);
            self.run_out();
        }
    }

    /// The answer to a proposal that is handed over now; what else is under way goes on meanwhile.
    pub fn ask(&mut self, proposal: Proposal) -> Answer {
        self.begin(proposal);
        self.answer()
    }

    /// Hands a proposal over whose answer [`World::answer`] waits for.
    pub fn begin(&mut self, proposal: Proposal) {
        self.handle(Event::Proposed { ticket: Ticket::MAX, proposal });
    }

    pub fn answer(&mut self) -> Answer {
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

    pub fn snapshot(&mut self) -> Snapshot {
        load(self.tree())
    }

    /// Lets what is under way happen, one after the other, until `seen` is so.
    pub fn perform_until(&mut self, seen: impl Fn(&World) -> bool) {
        while !seen(self) {
            assert!(!self.effects.is_empty(), "it does not come to that");
            self.perform(1);
        }
    }

    /// This controller begins anew, as in another process, over the tree as it is.
    pub fn take_over_again(&mut self) {
        self.told.clear();
        self.controller = controller();
        self.tree().delete("/controller", Version::Any).unwrap();
        while self.tree().output().is_some() {}
        let generation = self.tree().tree().generation();
        self.handle(Event::Start { generation });
    }

    /// One setting, as the tree has it.
    pub fn setting(&mut self, entity: &str, name: &str) -> Option<String> {
        let path = format!("/config/{entity}");
        let (data, _) = self.tree().get(&path, Watch::None).ok()?;
        znodes::decode_config(&path, &data).unwrap().remove(name)
    }

    pub fn run_out(&mut self) {
        while !self.effects.is_empty() || !self.orders.is_empty() {
            self.perform(usize::MAX);
            self.tell();
        }
    }

    /// The tree has what clients know, and brokers know what the tree has.
    pub fn check(&mut self) {
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
