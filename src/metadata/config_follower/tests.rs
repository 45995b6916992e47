use super::*;
use crate::metadata::embedded::EmbeddedTree;
use crate::metadata::tree::suite::Probe;
use crate::metadata::tree::{CreateMode, TreeOutput};

struct World {
    tree: Probe<EmbeddedTree>,
    follower: ConfigFollower,
    now: Now,
    changed: BTreeSet<Arc<str>>,
    reads: usize,
}

impl World {
    fn new() -> World {
        let mut tree = Probe::of(EmbeddedTree::in_memory().unwrap());
        for path in ["/config", "/config/changes", "/config/topics", "/config/brokers"] {
            tree.create(path, b"", CreateMode::Persistent).unwrap();
        }
        let follower = ConfigFollower::new(BrokerId(1), Arc::default());
        World { tree, follower, now: Now { monotonic: Monotonic(0), wall: 0 }, changed: BTreeSet::new(), reads: 0 }
    }

    /// Gives an event and lets all that follows happen.
    fn hear(&mut self, event: Event) {
        let mut effects: std::collections::VecDeque<_> = self.follower.handle(event, self.now).into();
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Ask { read, request } => {
                    self.reads += 1;
                    let result = self.tree.ask(request);
                    effects.extend(self.follower.handle(Event::Done { read, result }, self.now));
                }
                Effect::Changed { topics } => self.changed.extend(topics),
                Effect::Failed(error) => panic!("{error}"),
            }
        }
    }

    fn start(&mut self) {
        self.hear(Event::Start);
        assert!(self.follower.is_ready());
    }

    /// Somebody changes a node of settings and tells of it.
    fn set(&mut self, entity: &str, settings: &str) {
        let data = format!("{{\"version\":1,\"config\":{settings}}}");
        let path = format!("/config/{entity}");
        if self.tree.set(&path, data.as_bytes(), Version::Any).is_err() {
            self.tree.create(&path, data.as_bytes(), CreateMode::Persistent).unwrap();
        }
    }

    fn tell(&mut self, entity: &str) {
        let notice = znodes::encode_config_change(entity);
        self.tree.create("/config/changes/config_change_", &notice, CreateMode::PersistentSequential).unwrap();
        self.see();
    }

    /// Passes on what the tree has to say.
    fn see(&mut self) {
        loop {
            let events = self.tree.events();
            if events.is_empty() {
                return;
            }
            events.into_iter().for_each(|event| self.hear(Event::Watched(event)));
        }
    }

    fn segment_bytes(&self, topic: &str) -> Option<i32> {
        match self.follower.followed().topic(topic) {
            Some(TopicSettings::Known(config)) => Some(config.segment_bytes),
            Some(TopicSettings::Damaged) | None => None,
        }
    }

    fn notices(&mut self) -> usize {
        self.tree.children("/config/changes", Watch::None).unwrap().len()
    }
}

#[test]
fn the_start_reads_all_there_is_and_changes_are_read_when_they_are_told() {
    let mut world = World::new();
    world.set("topics/t", r#"{"segment.bytes":"1000"}"#);
    world.set("brokers/<default>", r#"{"log.segment.bytes":"2000"}"#);
    world.start();
    assert_eq!(world.segment_bytes("t"), Some(1000));
    assert_eq!(world.follower.followed().dynamic.topic_defaults.segment_bytes, 2000);
    world.hear(Event::Need("new".into()));
    assert_eq!(world.segment_bytes("new"), Some(2000), "a topic that sets nothing lives by the broker's");

    world.changed.clear();
    world.set("topics/t", r#"{"segment.bytes":"1001"}"#);
    assert_eq!(world.segment_bytes("t"), Some(1000));
    world.tell("topics/t");
    assert_eq!((world.segment_bytes("t"), world.changed.len()), (Some(1001), 1));
    world.set("brokers/1", r#"{"log.segment.bytes":"2001"}"#);
    world.tell("brokers/1");
    assert_eq!((world.segment_bytes("t"), world.segment_bytes("new")), (Some(1001), Some(2001)));
    world.set("brokers/2", r#"{"log.segment.bytes":"9000"}"#);
    world.tell("brokers/2");
    assert_eq!(world.segment_bytes("new"), Some(2001), "another broker's are its own");
}

#[test]
fn a_round_is_done_when_what_was_told_before_is_taken_up() {
    let mut world = World::new();
    world.start();
    assert!(world.follower.has_done(world.follower.round()));
    let changed = TreeEvent::NodeChildrenChanged("/config/changes".into());
    let effects = world.follower.handle(Event::Watched(changed.clone()), world.now);
    let round = world.follower.round();
    assert!(!world.follower.has_done(round));
    let [Effect::Ask { read: Read::Notices, request }] = &effects[..] else { panic!("{effects:?}") };
    assert!(world.follower.handle(Event::Watched(changed), world.now).is_empty(), "it is listed once more, later");
    let result = world.tree.ask(request.clone());
    let effects = world.follower.handle(Event::Done { read: Read::Notices, result }, world.now);
    assert_eq!(effects.len(), 1);
    assert!(!world.follower.has_done(round));
    let result = world.tree.ask(request.clone());
    world.hear(Event::Done { read: Read::Notices, result });
    assert!(world.follower.has_done(round));
}

#[test]
fn a_notice_stays_for_its_life_and_goes_then() {
    let mut world = World::new();
    world.start();
    world.set("topics/t", "{}");
    world.tell("topics/t");
    world.now.monotonic = Monotonic(0) + NOTICE_LIFE / 2;
    world.tell("topics/t");
    let first = world.follower.next_deadline().unwrap();
    assert_eq!(first, Monotonic(0) + NOTICE_LIFE);
    world.hear(Event::Time);
    assert_eq!(world.notices(), 2);
    world.now.monotonic = first;
    world.hear(Event::Time);
    world.see();
    assert_eq!(world.notices(), 1);
    world.now.monotonic = world.follower.next_deadline().unwrap();
    world.hear(Event::Time);
    world.see();
    assert_eq!((world.notices(), world.follower.next_deadline()), (0, None));
}

#[test]
fn a_node_that_can_t_be_read_takes_its_topic_out_and_one_that_breaks_changes_nothing() {
    let mut world = World::new();
    world.tree.create("/config/topics/broken", b"{", CreateMode::Persistent).unwrap();
    world.set("topics/half", r#"{"segment.bytes":"no number","retention.ms":"5"}"#);
    world.start();
    assert!(matches!(world.follower.followed().topic("broken"), Some(TopicSettings::Damaged)));
    let Some(TopicSettings::Known(half)) = world.follower.followed().topic("half") else { panic!("taken out") };
    assert_eq!((half.segment_bytes, half.retention_ms), (1 << 30, 5), "what is wrong is left out");
    world.tree.set("/config/topics/half", b"{", Version::Any).unwrap();
    world.tell("topics/half");
    assert!(matches!(world.follower.followed().topic("half"), Some(TopicSettings::Known(_))));
    world.set("topics/broken", "{}");
    world.tell("topics/broken");
    assert!(matches!(world.follower.followed().topic("broken"), Some(TopicSettings::Known(_))), "mended");
}

#[test]
fn whatever_a_notice_says_nothing_breaks_and_the_next_is_read() {
    let mut world = World::new();
    world.start();
    world.hear(Event::Need("t".into()));
    for bad in [&b"{"[..], b"[]", br#"{"version":9}"#, br#"{"version":2,"entity_path":"users/x"}"#] {
        world.tree.create("/config/changes/config_change_", bad, CreateMode::PersistentSequential).unwrap();
        world.see();
    }
    world.tree.create("/config/changes/no_number", b"", CreateMode::Persistent).unwrap();
    world.set("topics/t", r#"{"segment.bytes":"77"}"#);
    let old = br#"{"version":1,"entity_type":"topics","entity_name":"t"}"#;
    world.tree.create("/config/changes/config_change_", old, CreateMode::PersistentSequential).unwrap();
    world.see();
    assert_eq!(world.segment_bytes("t"), Some(77));
}

#[test]
fn a_new_session_reads_all_again() {
    let mut world = World::new();
    world.start();
    world.hear(Event::Need("t".into()));
    world.set("topics/t", r#"{"segment.bytes":"77"}"#);
    while let Some(TreeOutput::Event(_)) = world.tree.output() {}
    world.hear(Event::Start);
    assert_eq!(world.segment_bytes("t"), Some(77));
}

#[test]
fn a_read_that_fails_is_tried_again_and_nothing_is_settled_before() {
    let mut world = World::new();
    world.start();
    let effects = world.follower.handle(Event::Need("t".into()), world.now);
    let [Effect::Ask { read, .. }] = &effects[..] else { panic!("{effects:?}") };
    let result = Err(RequestError::of_request(TreeError::NoSpace("none".into())));
    assert!(world.follower.handle(Event::Done { read: read.clone(), result }, world.now).is_empty());
    assert!(!world.follower.has_done(world.follower.round()));
    world.now.monotonic = world.follower.next_deadline().unwrap();
    world.hear(Event::Time);
    assert_eq!(world.segment_bytes("t"), Some(1 << 30));
    assert!(world.follower.has_done(world.follower.round()));
}

#[test]
fn what_files_say_anew_does_not_go_before_what_the_tree_has() {
    let mut world = World::new();
    world.set("brokers/1", r#"{"log.segment.bytes":"2000"}"#);
    world.start();
    let named = |pairs: &[(&str, &str)]| pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let effects = world.follower.follow_files(named(&[("log.segment.bytes", "9"), ("log.retention.ms", "7")]));
    assert!(effects.is_err(), "that many bytes can't be");
    let effects =
        world.follower.follow_files(named(&[("log.segment.bytes", "9000"), ("log.retention.ms", "7")])).unwrap();
    assert!(matches!(effects[..], [Effect::Changed { .. }]));
    let defaults = &world.follower.followed().dynamic.topic_defaults;
    assert_eq!((defaults.segment_bytes, defaults.retention_ms), (2000, 7));
}

/// Gives an event; after `held` was read, and before its result comes, `meanwhile` happens.
fn with_a_late_result(world: &mut World, event: Event, held: &Read, meanwhile: impl FnOnce(&mut World)) {
    let mut queue: std::collections::VecDeque<_> = world.follower.handle(event, world.now).into();
    let mut meanwhile = Some(meanwhile);
    while let Some(effect) = queue.pop_front() {
        if let Effect::Ask { read, request } = effect {
            let result = world.tree.ask(request);
            if read == *held
                && let Some(meanwhile) = meanwhile.take()
            {
                meanwhile(world);
                let events = world.tree.events();
                let heard =
                    events.into_iter().flat_map(|event| world.follower.handle(Event::Watched(event), world.now));
                let heard: Vec<_> = heard.collect();
                queue.extend(heard);
            }
            queue.extend(world.follower.handle(Event::Done { read, result }, world.now));
        }
    }
    assert!(meanwhile.is_none(), "{held:?} was not read");
}

#[test]
fn settings_that_change_while_all_are_read_for_the_first_time_are_taken_up() {
    let mut world = World::new();
    world.set("topics/t", r#"{"segment.bytes":"1000"}"#);
    with_a_late_result(&mut world, Event::Start, &Read::Topic("t".into()), |world| {
        world.set("topics/t", r#"{"segment.bytes":"1001"}"#);
        let notice = znodes::encode_config_change("topics/t");
        world.tree.create("/config/changes/config_change_", &notice, CreateMode::PersistentSequential).unwrap();
    });
    assert!(world.follower.is_ready());
    assert_eq!(world.segment_bytes("t"), Some(1001));
}

#[test]
fn notices_from_before_the_start_are_not_read_one_by_one() {
    let mut world = World::new();
    for _ in 0..100 {
        world.tell("topics/t");
    }
    world.start();
    assert!(world.reads < 10, "{} reads", world.reads);
}

#[test]
fn what_is_under_way_for_one_topic_counts_for_no_other_of_its_name() {
    for renewed in [true, false] {
        let mut world = World::new();
        world.start();
        world.set("topics/t", r#"{"segment.bytes":"1000"}"#);
        with_a_late_result(&mut world, Event::Need("t".into()), &Read::Topic("t".into()), |world| {
            world.set("topics/t", r#"{"segment.bytes":"1001"}"#);
            let topics = BTreeSet::from(["t".into()]);
            let event = if renewed { Event::Renew(topics) } else { Event::Forget(topics) };
            let effects = world.follower.handle(event, world.now);
            assert!(effects.iter().all(|effect| matches!(effect, Effect::Changed { .. })), "it is being read");
        });
        assert_eq!(world.segment_bytes("t"), renewed.then_some(1001));
        assert!(world.follower.has_done(world.follower.round()));
    }
}

#[test]
fn however_many_sessions_expire_before_an_answer_comes_each_thing_waits_once() {
    let mut world = World::new();
    world.set("topics/t", r#"{"segment.bytes":"1000"}"#);
    world.start();
    let start = |world: &mut World| world.follower.handle(Event::Start, world.now);
    let mut asked = start(&mut world);
    for _ in 0..100 {
        assert!(start(&mut world).is_empty(), "it is being read");
    }
    world.set("topics/t", r#"{"segment.bytes":"1001"}"#);
    while let Some(Effect::Ask { read, request }) = asked.pop() {
        let result = world.tree.ask(request);
        world.hear(Event::Done { read, result });
    }
    assert_eq!(world.segment_bytes("t"), Some(1001));
    assert!(world.follower.has_done(world.follower.round()));
}
