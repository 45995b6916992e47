//! What others write into the tree, or take out of it.

use super::*;

fn made(name: &str) -> World {
    let mut world = World::new();
    world.propose(Proposal::CreateTopics { topics: vec![new_topic(name.into(), 2)], validate_only: false });
    world.settle();
    world
}

/// Lets the controller see what others have done.
fn see(world: &mut World) {
    loop {
        let events = world.tree().events();
        if events.is_empty() {
            break;
        }
        events.into_iter().for_each(|event| world.handle(Event::Watched(event)));
        world.run_out();
    }
    world.look();
}

fn topic(id: TopicId, replicas: &[&[i32]]) -> Vec<u8> {
    let ids = |ids: &&[i32]| ids.iter().copied().map(BrokerId).collect();
    let partitions = replicas.iter().enumerate().map(|(number, replicas)| (number as i32, ids(replicas))).collect();
    znodes::encode_topic(&znodes::TopicAssignment { id, partitions, others: znodes::Others::default() })
}

#[test]
fn a_replica_whose_broker_is_away_suspends_the_deletion_but_keeps_the_mark() {
    let mut world = World::new();
    let mut topic = new_topic("t".into(), -1);
    topic.assignments = vec![(0, vec![BrokerId(1), BrokerId(2)])];
    world.propose(Proposal::CreateTopics { topics: vec![topic], validate_only: false });
    world.settle();
    match world.ask(Proposal::DeleteTopics { topics: vec![TopicRef::Name("t".into())] }) {
        Answer::DeleteTopics(results) => assert_eq!(results[0].outcome, Err(TopicRefusal::DeletionSuspended)),
        other => panic!("{other:?}"),
    }
    assert!(world.tree().exists("/admin/delete_topics/t", Watch::None).unwrap().is_some());
}

#[test]
fn a_mark_without_topic_is_taken_away_at_the_take_over_and_when_it_is_seen() {
    let mut world = World::new();
    let mark = |world: &mut World| world.tree().create("/admin/delete_topics/t", b"", CreateMode::Persistent).unwrap();
    mark(&mut world);
    world.crash();
    world.run_out();
    assert_eq!(world.tree().children("/admin/delete_topics", Watch::None).unwrap(), Vec::<String>::new());
    mark(&mut world);
    see(&mut world);
    assert_eq!(world.tree().children("/admin/delete_topics", Watch::None).unwrap(), Vec::<String>::new());
}

#[test]
fn a_mark_that_somebody_else_makes_deletes_the_topic() {
    let mut world = made("a");
    world.tree().create("/admin/delete_topics/a", b"", CreateMode::Persistent).unwrap();
    see(&mut world);
    assert!(world.told.is_empty() && world.snapshot().topics.is_empty());
    for path in ["/config/topics/a", "/admin/delete_topics/a"] {
        assert_eq!(world.tree().exists(path, Watch::None).unwrap(), None, "{path}");
    }
}

#[test]
fn a_topic_and_more_partitions_that_somebody_else_writes_get_leaders() {
    let mut world = World::new();
    let id = TopicId([7; 16]);
    world.tree().create("/brokers/topics/other", &topic(id, &[&[1]]), CreateMode::Persistent).unwrap();
    see(&mut world);
    assert_eq!(world.told.get("other"), Some(&id));
    world.tree().set("/brokers/topics/other", &topic(id, &[&[1], &[1]]), Version::Any).unwrap();
    see(&mut world);
    assert!(world.epochs.contains_key(&(id, 1)), "its partition is led");
    let snapshot = world.snapshot();
    assert!(snapshot.topics[0].partitions.values().all(|partition| partition.state.is_some()));
}

#[test]
fn a_topic_that_can_t_be_read_is_left_out_and_its_name_is_taken() {
    let mut world = made("a");
    world.tree().create("/brokers/topics/broken", b"{", CreateMode::Persistent).unwrap();
    world.crash();
    world.run_out();
    assert_eq!(world.controller.standing(), Standing::Active);
    assert_eq!(world.told.keys().collect::<Vec<_>>(), ["a"]);
    let topics = vec![new_topic("broken".into(), 1)];
    match world.ask(Proposal::CreateTopics { topics, validate_only: false }) {
        Answer::CreateTopics(results) => {
            assert_eq!(results[0].outcome, Err(TopicRefusal::AlreadyExists("broken".into())));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(world.tree().get("/brokers/topics/broken", Watch::None).unwrap().0, b"{", "the tree keeps it");
}

#[test]
fn whoever_takes_the_controllers_node_away_makes_it_be_elected_anew() {
    let mut world = made("a");
    world.tree().delete("/controller", Version::Any).unwrap();
    see(&mut world);
    assert_eq!(world.controller.standing(), Standing::Active);
    assert_eq!(world.tree().get("/controller_epoch", Watch::None).unwrap().0, b"2");
    world.propose(Proposal::CreateTopics { topics: vec![new_topic("b".into(), 1)], validate_only: false });
    world.settle();
    world.check();
    assert!(world.exists.contains_key("b"));
}

#[test]
fn a_controller_whose_session_expired_resigns_and_answers_what_was_under_way() {
    let mut world = made("a");
    world.propose(Proposal::CreateTopics { topics: vec![new_topic("b".into(), 1)], validate_only: false });
    world.handle(Event::Expired);
    assert_eq!(world.controller.standing(), Standing::Undecided);
    world.run_out();
    assert!(world.asked.is_empty());
    world.tree().delete("/controller", Version::Any).unwrap();
    while world.tree().output().is_some() {}
    let generation = world.tree().tree().generation();
    world.handle(Event::Start { generation });
    world.settle();
    assert_eq!(world.controller.standing(), Standing::Active);
    world.check();
}

#[test]
fn a_take_over_that_broke_off_does_not_let_the_next_one_speak_too_early() {
    let mut world = made("a");
    world.take_over_again();
    let writes_leaders = |effect: &Effect| match effect {
        Effect::Ask { request: Request::Multi(operations), .. } => operations[1].path().ends_with("/state"),
        _ => false,
    };
    while !world.effects.iter().any(writes_leaders) {
        world.perform(1);
    }
    // Its write is done, and the reply comes late.
    let late = std::mem::take(&mut world.effects);
    world.handle(Event::Expired);
    world.tree().delete("/controller", Version::Any).unwrap();
    while world.tree().output().is_some() {}
    let generation = world.tree().tree().generation();
    world.handle(Event::Start { generation });
    while !matches!(world.controller.role, Role::TakingOver(..)) {
        world.perform(1);
    }
    let next = std::mem::replace(&mut world.effects, late);
    world.run_out();
    assert_eq!(world.controller.standing(), Standing::Undecided, "it has loaded nothing yet");
    world.effects.extend(next);
    world.settle();
    assert_eq!((world.controller.standing(), world.told.len()), (Standing::Active, 1));
    world.check();
}

#[test]
fn a_log_that_can_t_be_opened_is_shown_offline_and_keeps_its_leader_where_there_is_no_other() {
    let mut world = made("a");
    world.handle(Event::Offline {
        broker: BrokerId(1),
        partitions: vec![TopicPartition { topic: "a".into(), partition: 1 }],
    });
    let Some(Effect::Tell { inputs, .. }) = world.effects.pop_front() else { panic!("brokers are told") };
    assert!(inputs.leader_and_isr.is_none(), "nothing changes for who leads");
    let update = &inputs.update_metadata.as_ref().unwrap().topics[0].partitions;
    assert_eq!((update.len(), update[0].partition, update[0].leader), (1, 1, BrokerId(1)));
    assert_eq!(update[0].offline_replicas, [BrokerId(1)]);
    world.settle();
    world.check();
}

fn go_offline(world: &mut World, topic: &str, partition: i32) {
    let partitions = vec![TopicPartition { topic: topic.into(), partition }];
    world.handle(Event::Offline { broker: BrokerId(1), partitions });
    world.run_out();
}

/// The leader and the leader epoch of a partition, as the tree has them.
fn led(world: &mut World, topic: &str, partition: i32) -> (BrokerId, i32) {
    let snapshot = world.snapshot();
    let topic = snapshot.topics.iter().find(|found| found.name == topic).expect("it is there");
    let state = topic.partitions[&partition].state.as_ref().expect("it was led");
    (state.leader, state.leader_epoch)
}

fn broker(id: i32) -> Vec<u8> {
    let endpoint = Endpoint { listener: "PLAINTEXT".into(), host: "h".into(), port: 1 };
    znodes::encode_broker(&BrokerImage { id: BrokerId(id), endpoints: vec![endpoint], rack: None }, 0)
}

#[test]
fn a_topic_made_again_under_the_name_of_one_whose_log_could_not_be_opened_is_led() {
    let mut world = made("a");
    go_offline(&mut world, "a", 1);
    world.propose(Proposal::DeleteTopics { topics: vec![TopicRef::Name("a".into())] });
    world.settle();
    // The word may come late.
    go_offline(&mut world, "a", 1);
    world.propose(Proposal::CreateTopics { topics: vec![new_topic("a".into(), 2)], validate_only: false });
    world.settle();
    assert!(world.exists.contains_key("a"), "it was created");
    world.check();
}

#[test]
fn a_leader_whose_log_can_t_be_opened_stays_when_other_brokers_come_and_go() {
    let mut world = made("a");
    go_offline(&mut world, "a", 1);
    world.tree().create("/brokers/ids/2", &broker(2), CreateMode::Ephemeral).unwrap();
    see(&mut world);
    assert_eq!(led(&mut world, "a", 1), (BrokerId(1), 0));
    world.tree().delete("/brokers/ids/2", Version::Any).unwrap();
    see(&mut world);
    assert_eq!(led(&mut world, "a", 1), (BrokerId(1), 0));
}

#[test]
fn a_broker_that_left_and_came_back_between_two_looks_leads_in_a_new_epoch_and_has_no_broken_logs() {
    let mut world = made("a");
    go_offline(&mut world, "a", 1);
    world.tree().delete("/brokers/ids/1", Version::Any).unwrap();
    world.tree().create("/brokers/ids/1", &broker(1), CreateMode::Ephemeral).unwrap();
    see(&mut world);
    for partition in 0..2 {
        assert_eq!(led(&mut world, "a", partition), (BrokerId(1), 1));
    }
    let id = world.told["a"];
    assert_eq!(world.epochs[&(id, 1)], 1, "it was told");
    let Role::Active(cluster) = &world.controller.role else { panic!("it goes on") };
    assert!(cluster.is_online(BrokerId(1), &"a".into(), 1));
}

#[test]
fn what_a_returned_broker_led_goes_to_another_in_sync() {
    let mut world = World::new();
    world.tree().create("/brokers/ids/2", &broker(2), CreateMode::Ephemeral).unwrap();
    see(&mut world);
    let mut topic = new_topic("t".into(), -1);
    topic.assignments = vec![(0, vec![BrokerId(2), BrokerId(1)])];
    world.begin(Proposal::CreateTopics { topics: vec![topic], validate_only: false });
    assert!(matches!(world.answer(), Answer::CreateTopics(_)));
    assert_eq!(led(&mut world, "t", 0), (BrokerId(2), 0));
    world.tree().delete("/brokers/ids/2", Version::Any).unwrap();
    world.tree().create("/brokers/ids/2", &broker(2), CreateMode::Ephemeral).unwrap();
    see(&mut world);
    assert_eq!(led(&mut world, "t", 0), (BrokerId(1), 1));
}

#[test]
fn a_controller_that_falls_before_the_leaders_are_written_does_not_call_it_done() {
    let new = || new_topic("a".into(), 1000);
    let is_write_of_leaders = |effect: &Effect| match effect {
        Effect::Ask { request: Request::Multi(operations), .. } => operations[1].path().contains("/partitions"),
        _ => false,
    };
    let leaders_are_next = move |world: &World| world.effects.iter().any(is_write_of_leaders);

    let mut world = World::new();
    world.begin(Proposal::CreateTopics { topics: vec![new()], validate_only: false });
    world.perform_until(leaders_are_next);
    world.rival();
    match world.answer() {
        Answer::CreateTopics(results) => assert_eq!(results[0].outcome, Err(TopicRefusal::NotController)),
        other => panic!("{other:?}"),
    }

    let mut world = made("a");
    let topics = vec![MorePartitions { topic: "a".into(), count: 1000, assignments: None }];
    world.begin(Proposal::CreatePartitions { topics, validate_only: false });
    world.perform_until(leaders_are_next);
    world.rival();
    assert_eq!(world.answer(), Answer::CreatePartitions(vec![Err(TopicRefusal::NotController)]));
}

#[test]
fn a_topic_that_changes_while_the_cluster_is_taken_over_is_seen() {
    let mut world = made("a");
    let id = world.told["a"];
    world.take_over_again();
    let reads_state = |effect: &Effect| match effect {
        Effect::Ask { request: Request::Get { path, .. }, .. } => path.ends_with("/state"),
        _ => false,
    };
    world.perform_until(|world| world.effects.iter().any(reads_state));
    world.tree().set("/brokers/topics/a", &topic(id, &[&[1], &[1], &[1]]), Version::Any).unwrap();
    world.settle();
    assert_eq!(led(&mut world, "a", 2), (BrokerId(1), 0));
}

#[test]
fn a_list_and_a_topic_that_can_t_be_read_once_are_read_again() {
    let mut world = World::new();
    let id = TopicId([7; 16]);
    let mut failures = 0;
    world.tree().create("/brokers/topics/other", &topic(id, &[&[1]]), CreateMode::Persistent).unwrap();
    let events = world.tree().events();
    events.into_iter().for_each(|event| world.handle(Event::Watched(event)));
    // Each is read in vain once: the list, then the topic.
    for path in ["/brokers/topics", "/brokers/topics/other"] {
        let is_read = |effect: &Effect| match effect {
            Effect::Ask { request: Request::Children { path: read, .. } | Request::Get { path: read, .. }, .. } => {
                read == path
            }
            _ => false,
        };
        while !world.effects.iter().any(is_read) {
            if world.effects.is_empty() {
                world.now.monotonic = world.controller.next_deadline().expect("it looks again");
                world.handle(Event::Time);
            } else {
                world.perform(1);
            }
        }
        let at = world.effects.iter().position(is_read).unwrap();
        let Some(Effect::Ask { token, .. }) = world.effects.remove(at) else { unreachable!("just seen") };
        let error = RequestError::of_request(TreeError::NoSpace("not now".into()));
        world.handle(Event::Done { token, result: Err(error) });
        failures += 1;
    }
    see(&mut world);
    assert_eq!((failures, world.told.get("other")), (2, Some(&id)));
    assert_eq!(led(&mut world, "other", 0), (BrokerId(1), 0));
}
