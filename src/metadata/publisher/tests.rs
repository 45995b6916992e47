use std::cell::RefCell;
use std::rc::Rc;

use super::*;
use crate::base::ids::TopicId;
use crate::metadata::inputs::*;

#[derive(Clone)]
struct Sent {
    inputs: Rc<RefCell<Vec<(u16, ShardInput)>>>,
    /// By shard.
    room: Rc<RefCell<[usize; 2]>>,
}

impl Default for Sent {
    fn default() -> Sent {
        Sent { inputs: Rc::default(), room: Rc::new(RefCell::new([usize::MAX; 2])) }
    }
}

impl Sent {
    /// Takes all that was sent to a shard and makes room for so many more.
    fn take(&self, shard: u16, room: usize) -> Vec<ShardInput> {
        self.room.borrow_mut()[usize::from(shard)] = room;
        let (taken, left) = self.inputs.take().into_iter().partition(|(to, _)| *to == shard);
        *self.inputs.borrow_mut() = left;
        let taken: Vec<(u16, ShardInput)> = taken;
        taken.into_iter().map(|(_, input)| input).collect()
    }
}

impl ShardSink for Sent {
    fn shard_count(&self) -> u16 {
        2
    }
    fn room(&self, shard: ShardId) -> usize {
        self.room.borrow()[shard.index()]
    }
    fn send(&self, shard: ShardId, input: ShardInput) {
        let mut room = self.room.borrow_mut();
        room[shard.index()] = room[shard.index()].checked_sub(1).expect("there is room");
        self.inputs.borrow_mut().push((shard.0, input));
    }
}

/// Settings of topics as they were read.
fn followed(topics: &[(&str, TopicSettings)]) -> Followed {
    let mut followed = Followed::new(Arc::default());
    topics.iter().for_each(|(name, settings)| followed.set((*name).into(), settings.clone()));
    followed
}

fn known() -> TopicSettings {
    TopicSettings::Known(Arc::default())
}

fn publisher(sent: &Sent) -> Publisher<Sent> {
    let followed = followed(&[("t", known()), ("never-seen", known())]);
    Publisher::new(BrokerId(1), 10, "c".into(), followed, sent.clone())
}

fn topics(names: &[&str]) -> BTreeSet<Arc<str>> {
    names.iter().map(|name| Arc::from(*name)).collect()
}

fn inputs(controller_epoch: i32, broker_epoch: i64) -> BrokerInputs {
    let sender = Sender { controller_id: BrokerId(1), controller_epoch, broker_epoch };
    let partition = |partition, replicas: Vec<BrokerId>| LeaderAndIsrPartition {
        partition,
        leader: replicas[0],
        leader_epoch: 0,
        isr: replicas.clone(),
        partition_epoch: 0,
        replicas,
        is_new: true,
    };
    let partitions =
        vec![partition(0, vec![BrokerId(1)]), partition(1, vec![BrokerId(2)]), partition(2, vec![BrokerId(1)])];
    let topic = LeaderAndIsrTopic { name: "t".into(), id: TopicId([1; 16]), partitions };
    let updates = topic.partitions.iter().map(|partition| UpdateMetadataPartition {
        partition: partition.partition,
        leader: partition.leader,
        leader_epoch: 0,
        isr: partition.isr.clone(),
        partition_epoch: 0,
        replicas: partition.replicas.clone(),
        offline_replicas: vec![],
    });
    let update = UpdateMetadataTopic { name: "t".into(), id: topic.id, partitions: updates.collect() };
    BrokerInputs {
        update_metadata: Some(UpdateMetadata { sender, topics: vec![update], live_brokers: vec![] }),
        leader_and_isr: Some(LeaderAndIsr { sender, topics: vec![topic] }),
        stop_replica: None,
    }
}

#[test]
fn shards_hear_of_their_replicas_before_the_image_that_shows_them() {
    let sent = Sent::default();
    let mut publisher = publisher(&sent);
    assert_eq!(publisher.receive(inputs(1, 10)), Ok(()));
    let inputs = sent.inputs.borrow();
    assert_eq!(inputs.len(), 4);
    for (shard, input) in &inputs[..2] {
        let ShardInput::LeaderAndIsr { partitions, image_version: 1 } = input else { panic!("{input:?}") };
        assert_eq!(partitions.len(), 1);
        let image = publisher.image().partition("t", partitions[0].partition).unwrap();
        assert_eq!(image.shard, Some(ShardId(*shard)));
    }
    assert!(inputs[2..].iter().all(|(_, input)| matches!(input, ShardInput::Image(image) if image.version == 1)));
    assert_eq!(publisher.image().partition("t", 1).unwrap().shard, None, "another broker's replica has no shard");
}

#[test]
fn every_shard_hears_of_other_settings_before_the_image_that_shows_them() {
    let sent = Sent::default();
    let mut publisher = publisher(&sent);
    publisher.receive(inputs(1, 10)).unwrap();
    sent.inputs.borrow_mut().clear();
    let config = Arc::new(TopicConfig { segment_bytes: 77, ..TopicConfig::default() });
    let changed = followed(&[("t", TopicSettings::Known(Arc::clone(&config))), ("gone", known())]);
    let dynamic = Arc::clone(&changed.dynamic);
    publisher.follow(changed.clone(), &topics(&["t", "gone"]));
    let image = publisher.image();
    assert!(Arc::ptr_eq(&image.topic("t").unwrap().config, &config) && Arc::ptr_eq(&image.dynamic, &dynamic));
    assert!(Arc::ptr_eq(image.topic("t").unwrap(), image.topic_by_id(TopicId([1; 16])).unwrap()));
    let kinds: Vec<_> = sent
        .inputs
        .borrow()
        .iter()
        .map(|(shard, input)| match input {
            ShardInput::Configs { configs, image_version: 2 } => (*shard, configs.len()),
            ShardInput::Image(image) if image.version == 2 => (*shard, 0),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(kinds, [(0, 1), (1, 1), (0, 0), (1, 0)], "and of no topic that is not there");
    publisher.follow(changed, &topics(&["t", "gone"]));
    assert_eq!(sent.inputs.borrow().len(), 4, "nothing new");
}

#[test]
fn a_version_counts_as_applied_when_the_last_shard_says_so() {
    let sent = Sent::default();
    let mut publisher = publisher(&sent);
    for _ in 0..UNAPPLIED_IMAGES_MAX {
        assert!(publisher.has_room());
        publisher.receive(BrokerInputs::default()).unwrap();
    }
    assert!(!publisher.has_room());
    publisher.applied(ShardId(0), 5);
    assert_eq!(publisher.applied_by_all(), 0);
    publisher.applied(ShardId(1), 3);
    assert_eq!(publisher.applied_by_all(), 3);
    assert!(publisher.has_room());
}

#[test]
fn inputs_of_an_older_controller_or_for_an_older_registration_change_nothing() {
    let sent = Sent::default();
    let mut publisher = publisher(&sent);
    publisher.receive(inputs(2, -1)).unwrap();
    assert_eq!(publisher.receive(inputs(1, 10)), Err(Stale::ControllerEpoch));
    assert_eq!(publisher.receive(inputs(2, 9)), Err(Stale::BrokerEpoch));
    assert_eq!(publisher.image().version, 1);
    publisher.receive(inputs(2, 11)).unwrap();
}

#[test]
fn a_deleted_replica_is_stopped_where_it_lived_and_an_unknown_one_somewhere() {
    let sent = Sent::default();
    let mut publisher = publisher(&sent);
    publisher.receive(inputs(1, 10)).unwrap();
    let shard = publisher.image().partition("t", 2).unwrap().shard.unwrap();
    sent.inputs.borrow_mut().clear();
    let stop = |name: &str| StopReplicaTopic {
        name: name.into(),
        partitions: vec![StopReplicaPartition { partition: 2, leader_epoch: EPOCH_DURING_DELETE, delete: true }],
    };
    let sender = Sender { controller_id: BrokerId(1), controller_epoch: 1, broker_epoch: 10 };
    let stop_replica = Some(StopReplica { sender, topics: vec![stop("t"), stop("never-seen")] });
    publisher.receive(BrokerInputs { stop_replica, ..BrokerInputs::default() }).unwrap();
    let mut stopped = Vec::new();
    for (at, input) in sent.inputs.borrow().iter() {
        if let ShardInput::StopReplica { partitions, image_version: 2 } = input {
            stopped.extend(partitions.iter().map(|(name, delete)| (name.to_string(), *delete, *at)));
        }
    }
    assert!(stopped.contains(&("t-2".to_owned(), true, shard.0)));
    assert!(stopped.iter().any(|(name, delete, _)| name == "never-seen-2" && *delete));
}

#[test]
fn an_input_waits_for_the_settings_of_its_topics_and_what_comes_after_it_too() {
    let sent = Sent::default();
    let mut publisher = Publisher::new(BrokerId(1), 10, "c".into(), followed(&[]), sent.clone());
    publisher.receive(inputs(1, 10)).unwrap();
    publisher.receive(BrokerInputs::default()).unwrap();
    assert_eq!((publisher.take_needed(), publisher.published(), publisher.received()), (topics(&["t"]), 0, 2));
    assert!(sent.inputs.borrow().is_empty());
    publisher.follow(followed(&[("other", known())]), &topics(&["other"]));
    assert_eq!((publisher.take_needed(), publisher.published()), (topics(&[]), 0), "it was asked for");
    publisher.follow(followed(&[]), &topics(&["other", "t"]));
    assert_eq!((publisher.take_needed(), publisher.published()), (topics(&["t"]), 0), "it was forgotten");
    let config = Arc::new(TopicConfig { segment_bytes: 77, ..TopicConfig::default() });
    publisher.follow(followed(&[("t", TopicSettings::Known(config))]), &topics(&["t"]));
    assert_eq!((publisher.take_needed(), publisher.published()), (topics(&[]), 2));
    let led: Vec<_> = sent
        .inputs
        .borrow()
        .iter()
        .filter_map(|(_, input)| match input {
            ShardInput::LeaderAndIsr { partitions, .. } => Some(partitions[0].config.segment_bytes),
            _ => None,
        })
        .collect();
    assert_eq!(led, [77, 77], "no log opens with other settings");
}

#[test]
fn a_topic_whose_settings_can_t_be_read_is_left_out() {
    let sent = Sent::default();
    let mut publisher =
        Publisher::new(BrokerId(1), 10, "c".into(), followed(&[("t", TopicSettings::Damaged)]), sent.clone());
    publisher.receive(inputs(1, 10)).unwrap();
    assert_eq!((publisher.published(), publisher.image().topic_count()), (1, 0));
    assert!(sent.inputs.borrow().iter().all(|(_, input)| matches!(input, ShardInput::Image(_))));
}

#[test]
fn a_shard_that_does_not_read_is_told_all_anew_when_it_has_room() {
    let sent = Sent::default();
    let mut publisher = publisher(&sent);
    publisher.receive(inputs(1, 10)).unwrap();
    let shard = publisher.image().partition("t", 0).unwrap().shard.unwrap();
    sent.take(shard.0, 4);
    for epoch in 2..5000 {
        publisher.receive(inputs(epoch, 10)).unwrap();
        publisher.receive(BrokerInputs::default()).unwrap();
    }
    let told = sent.take(shard.0, 0).len();
    assert!(told <= INPUTS_PER_VERSION_MAX, "{told} inputs were sent to a queue of four");
    publisher.applied(shard, 3);
    assert!(sent.take(shard.0, 8).is_empty(), "there was no room yet");
    publisher.applied(shard, 3);
    let told = sent.take(shard.0, 8);
    let [ShardInput::StopReplica { .. }, ShardInput::LeaderAndIsr { partitions, .. }, ShardInput::Configs { .. }, last] =
        &told[..]
    else {
        panic!("{told:?}")
    };
    assert_eq!((&*partitions[0].topic, partitions.len()), ("t", 1));
    assert!(matches!(last, ShardInput::Image(image) if Arc::ptr_eq(image, publisher.image())));
    publisher.receive(BrokerInputs::default()).unwrap();
    assert_eq!(sent.take(shard.0, 8).len(), 1, "and goes on as before");
}

#[test]
fn a_replica_that_a_shard_was_not_told_to_give_up_goes_before_its_namesake_comes() {
    let sent = Sent::default();
    let mut publisher = publisher(&sent);
    publisher.receive(inputs(1, 10)).unwrap();
    let shards = [0, 2].map(|number| publisher.image().partition("t", number).unwrap().shard.unwrap());
    for shard in shards {
        sent.take(shard.0, 0);
    }
    let sender = Sender { controller_id: BrokerId(1), controller_epoch: 1, broker_epoch: 10 };
    let stop = |partition| StopReplicaPartition { partition, leader_epoch: EPOCH_DURING_DELETE, delete: true };
    let stopped = vec![StopReplicaTopic { name: "t".into(), partitions: vec![stop(0), stop(2)] }];
    let stop_replica = Some(StopReplica { sender, topics: stopped });
    publisher.receive(BrokerInputs { stop_replica, ..BrokerInputs::default() }).unwrap();
    publisher.receive(inputs(1, 10)).unwrap();
    let (mut stops, mut leads) = (0, 0);
    for shard in shards {
        sent.take(shard.0, 8);
        publisher.applied(shard, 1);
        for (at, input) in sent.take(shard.0, 8).into_iter().enumerate() {
            match input {
                ShardInput::StopReplica { partitions, .. } => {
                    assert_eq!(at, 0);
                    assert!(partitions.iter().all(|(_, delete)| *delete));
                    stops += partitions.len();
                }
                ShardInput::LeaderAndIsr { partitions, .. } => leads += partitions.len(),
                _ => {}
            }
        }
    }
    assert_eq!((stops, leads), (2, 2));
}

#[test]
fn a_topic_is_unshown_until_the_image_has_it_under_its_id_and_gone_when_it_was_deleted() {
    let sent = Sent::default();
    let mut publisher = publisher(&sent);
    let with_id = |id: u8| {
        let mut inputs = inputs(1, 10);
        inputs.leader_and_isr.as_mut().unwrap().topics[0].id = TopicId([id; 16]);
        inputs.update_metadata.as_mut().unwrap().topics[0].id = TopicId([id; 16]);
        inputs
    };
    assert_eq!(publisher.unshown(&with_id(1)), topics(&["t"]));
    publisher.receive(with_id(1)).unwrap();
    assert_eq!(publisher.unshown(&with_id(1)), topics(&[]));
    assert_eq!(publisher.unshown(&with_id(2)), topics(&["t"]));
    assert_eq!(publisher.take_gone(), topics(&[]));

    let mut deletion = BrokerInputs { leader_and_isr: None, ..with_id(1) };
    let update = &mut deletion.update_metadata.as_mut().unwrap().topics[0];
    update.partitions.iter_mut().for_each(|partition| partition.leader = LEADER_DURING_DELETE);
    assert_eq!(publisher.unshown(&deletion), topics(&[]), "nobody needs settings for it");
    publisher.receive(deletion).unwrap();
    assert_eq!((publisher.take_gone(), publisher.take_gone()), (topics(&["t"]), topics(&[])));
}

#[test]
fn a_topic_of_which_no_partition_is_told_is_not_one_that_goes() {
    let sent = Sent::default();
    let mut publisher = publisher(&sent);
    publisher.receive(inputs(1, 10)).unwrap();
    let mut update = BrokerInputs { leader_and_isr: None, ..inputs(1, 10) };
    update.update_metadata.as_mut().unwrap().topics[0].partitions.clear();
    publisher.receive(update.clone()).unwrap();
    assert_eq!((publisher.take_gone(), publisher.image().topic_count()), (topics(&[]), 1));
    update.update_metadata.as_mut().unwrap().topics[0].id = TopicId([2; 16]);
    assert_eq!(publisher.unshown(&update), topics(&["t"]), "another topic of that name");
}
