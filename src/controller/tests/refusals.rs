//! What is refused, and why.

use super::*;

fn refusals(topics: Vec<NewTopic>) -> Vec<Option<TopicRefusal>> {
    let mut world = World::new();
    world.propose(Proposal::CreateTopics { topics: vec![new_topic("x.y".into(), 1)], validate_only: false });
    world.settle();
    match world.ask(Proposal::CreateTopics { topics, validate_only: true }) {
        Answer::CreateTopics(results) => results.into_iter().map(|result| result.outcome.err()).collect(),
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
    let mut ask = |topics: Vec<MorePartitions>, validate_only| match world
        .ask(Proposal::CreatePartitions { topics, validate_only })
    {
        Answer::CreatePartitions(results) => results,
        other => panic!("{other:?}"),
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
    assert_eq!(world.snapshot().topics[0].partitions.len(), 6);
}

#[test]
fn on_a_full_disk_proposals_are_refused_and_the_controller_goes_on_when_there_is_room() {
    let mut world = World::new();
    let create = |name: &str| Proposal::CreateTopics { topics: vec![new_topic(name.into(), 1)], validate_only: false };
    world.propose(create("a"));
    world.settle();
    world.is_full = true;
    match world.ask(create("b")) {
        Answer::CreateTopics(results) => {
            let refusal = results[0].outcome.as_ref().unwrap_err();
            assert!(refusal.to_string().contains("free space"), "{refusal}");
        }
        other => panic!("{other:?}"),
    }
    // The logs go, and the tree has no room to forget the topic.
    world.is_full = false;
    world.propose(Proposal::DeleteTopics { topics: vec![TopicRef::Name("a".into())] });
    world.perform(usize::MAX);
    world.is_full = true;
    world.run_out();
    assert_eq!(world.controller.standing(), Standing::Active);
    assert!(world.asked.is_empty(), "the deletion is answered");
    world.is_full = false;
    world.propose(create("b"));
    world.run_out();
    let topics: Vec<String> = world.snapshot().topics.into_iter().map(|topic| topic.name).collect();
    assert_eq!(topics, ["b"]);
    world.settle();
    world.check();
}

#[test]
fn a_topic_that_another_wrote_first_is_refused_alone() {
    let mut world = World::new();
    world.tree().create("/brokers/topics/b", b"{}", CreateMode::Persistent).unwrap();
    let topics = ["a", "b", "c"].map(|name| new_topic(name.into(), 1)).into();
    let Answer::CreateTopics(answer) = world.ask(Proposal::CreateTopics { topics, validate_only: false }) else {
        panic!("another answer")
    };
    assert!(answer[0].outcome.is_ok() && answer[2].outcome.is_ok());
    assert_eq!(answer[1].outcome, Err(TopicRefusal::AlreadyExists("b".into())));
}

#[test]
fn a_topic_takes_the_config_over_that_a_creation_before_it_left() {
    let mut world = World::new();
    world
        .tree()
        .create("/config/topics/a", br#"{"version":1,"config":{"segment.bytes":"20"}}"#, CreateMode::Persistent)
        .unwrap();
    world.propose(Proposal::CreateTopics { topics: vec![new_topic("a".into(), 1)], validate_only: false });
    world.settle();
    world.check();
    assert!(world.exists.contains_key("a"));
    assert_eq!(world.setting("topics/a", "segment.bytes"), None);
}

#[test]
fn a_topic_that_no_live_broker_can_lead_is_made_and_answered_with_a_timeout() {
    let mut world = World::new();
    let mut topic = new_topic("away".into(), -1);
    topic.assignments = vec![(0, vec![BrokerId(1)]), (1, vec![BrokerId(9)])];
    match world.ask(Proposal::CreateTopics { topics: vec![topic], validate_only: false }) {
        Answer::CreateTopics(results) => assert_eq!(results[0].outcome, Err(TopicRefusal::WithoutLeader)),
        other => panic!("{other:?}"),
    }
    assert_eq!(world.snapshot().topics[0].partitions.len(), 2);
}
