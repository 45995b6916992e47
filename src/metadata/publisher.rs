//! The broker's side of metadata: takes what a controller says, tells the shards, publishes images.
//!
//! Each [`BrokerInputs`] becomes one image version. Per shard, LeaderAndIsr and StopReplica go first, then the image to
//! every shard; a shard that says Applied of that version has done all of it.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use thiserror::Error;

use crate::base::ids::{BrokerId, ShardId, TopicPartition};
use crate::config::{DynamicConfig, TopicConfig};

use super::image::{ClusterImage, LocalView};
use super::inputs::{BrokerInputs, LeaderAndIsr, Sender, StopReplica};
use super::node::{LocalPartition, ShardInput, ShardSink};
use super::placement::Placement;

/// Images published but not applied by every shard, beyond which no new proposal is taken.
pub const UNAPPLIED_IMAGES_MAX: u64 = 64;

/// An input of the past; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Stale {
    /// STALE_CONTROLLER_EPOCH (11)
    #[error("a newer controller has spoken")]
    ControllerEpoch,
    /// STALE_BROKER_EPOCH (77)
    #[error("meant for an earlier registration of this broker")]
    BrokerEpoch,
}

pub struct Publisher<S: ShardSink> {
    broker_id: BrokerId,
    /// czxid of this broker's registration.
    broker_epoch: i64,
    /// The highest controller epoch seen.
    controller_epoch: i32,
    sink: S,
    placement: Placement,
    image: Arc<ClusterImage>,
    /// By shard: the highest version it said Applied of.
    applied: Vec<u64>,
}

impl<S: ShardSink> Publisher<S> {
    pub fn new(
        broker_id: BrokerId,
        broker_epoch: i64,
        cluster_id: Arc<str>,
        dynamic: Arc<DynamicConfig>,
        sink: S,
    ) -> Publisher<S> {
        let shard_count = sink.shard_count();
        Publisher {
            broker_id,
            broker_epoch,
            controller_epoch: 0,
            sink,
            placement: Placement::new(shard_count),
            image: Arc::new(ClusterImage::empty(cluster_id, dynamic)),
            applied: vec![0; usize::from(shard_count)],
        }
    }

    pub fn image(&self) -> &Arc<ClusterImage> {
        &self.image
    }

    /// Takes what a controller says and publishes it; gives the version of the image that shows it.
    pub fn receive(&mut self, inputs: &BrokerInputs) -> Result<u64, Stale> {
        let senders = [
            inputs.leader_and_isr.as_ref().map(|input| input.sender),
            inputs.stop_replica.as_ref().map(|input| input.sender),
            inputs.update_metadata.as_ref().map(|input| input.sender),
        ];
        for sender in senders.into_iter().flatten() {
            self.check(sender)?;
        }
        let configs: BTreeMap<&str, &Arc<TopicConfig>> =
            inputs.configs.iter().map(|(topic, config)| (&**topic, config)).collect();
        let version = self.image.version + 1;
        if let Some(input) = &inputs.leader_and_isr {
            self.lead_and_follow(input, &configs, version);
        }
        if let Some(input) = &inputs.stop_replica {
            self.stop(input, version);
        }
        self.change_configs(inputs, version);
        self.publish(inputs, &configs);
        Ok(version)
    }

    /// Notes a shard's word.
    pub fn applied(&mut self, shard: ShardId, version: u64) {
        assert!(version <= self.image.version, "a shard applied what was not published");
        let applied = &mut self.applied[shard.index()];
        *applied = version.max(*applied);
    }

    /// The version that all shards have applied.
    pub fn applied_by_all(&self) -> u64 {
        self.applied.iter().copied().min().unwrap_or(0)
    }

    /// Whether so few images are under way that another change may start.
    pub fn has_room(&self) -> bool {
        self.image.version - self.applied_by_all() < UNAPPLIED_IMAGES_MAX
    }

    fn check(&mut self, sender: Sender) -> Result<(), Stale> {
        if sender.controller_epoch < self.controller_epoch {
            return Err(Stale::ControllerEpoch);
        }
        // An equal or higher one is fine: the controller may know of a registration before the broker does.
        if sender.broker_epoch != -1 && sender.broker_epoch < self.broker_epoch {
            return Err(Stale::BrokerEpoch);
        }
        self.controller_epoch = sender.controller_epoch;
        Ok(())
    }

    fn lead_and_follow(
        &mut self,
        input: &LeaderAndIsr,
        configs: &BTreeMap<&str, &Arc<TopicConfig>>,
        image_version: u64,
    ) {
        let mut by_shard: BTreeMap<ShardId, Vec<LocalPartition>> = BTreeMap::new();
        for topic in &input.topics {
            let config = config_of(&topic.name, configs, &self.image);
            for partition in topic.partitions.iter().filter(|partition| partition.replicas.contains(&self.broker_id)) {
                let shard = self.placement.place(&topic.name, partition.partition);
                by_shard.entry(shard).or_default().push(LocalPartition {
                    topic: topic.name.clone(),
                    id: topic.id,
                    partition: partition.partition,
                    leader: partition.leader,
                    leader_epoch: partition.leader_epoch,
                    isr: partition.isr.clone(),
                    replicas: partition.replicas.clone(),
                    partition_epoch: partition.partition_epoch,
                    is_new: partition.is_new,
                    config: config.clone(),
                });
            }
        }
        for (shard, partitions) in by_shard {
            self.sink.send(shard, ShardInput::LeaderAndIsr { partitions, image_version });
        }
    }

    fn stop(&mut self, input: &StopReplica, image_version: u64) {
        let mut by_shard: BTreeMap<ShardId, Vec<(TopicPartition, bool)>> = BTreeMap::new();
        for topic in &input.topics {
            for partition in &topic.partitions {
                let shard = if partition.delete {
                    self.placement.remove(&topic.name, partition.partition)
                } else {
                    self.placement.place(&topic.name, partition.partition)
                };
                let name = TopicPartition { topic: topic.name.clone(), partition: partition.partition };
                by_shard.entry(shard).or_default().push((name, partition.delete));
            }
        }
        for (shard, partitions) in by_shard {
            self.sink.send(shard, ShardInput::StopReplica { partitions, image_version });
        }
    }

    /// Tells every shard which of the topics that it may run have other settings now.
    fn change_configs(&mut self, inputs: &BrokerInputs, image_version: u64) {
        let is_changed = |(name, config): &&(Arc<str>, Arc<TopicConfig>)| {
            self.image.topic(name).is_some_and(|topic| !Arc::ptr_eq(&topic.config, config))
        };
        let configs: Arc<[_]> = inputs.configs.iter().filter(is_changed).cloned().collect();
        if configs.is_empty() {
            return;
        }
        for shard in 0..self.sink.shard_count() {
            let configs = Arc::clone(&configs);
            self.sink.send(ShardId(shard), ShardInput::Configs { configs, image_version });
        }
    }

    fn publish(&mut self, inputs: &BrokerInputs, configs: &BTreeMap<&str, &Arc<TopicConfig>>) {
        let view = View { publisher: self, configs };
        let mut next = match &inputs.update_metadata {
            Some(update) => self.image.updated(update, &view),
            None => self.image.barrier(),
        };
        next.set_configs(&inputs.configs);
        if let Some(dynamic) = &inputs.dynamic {
            next.dynamic = Arc::clone(dynamic);
        }
        self.image = Arc::new(next);
        for shard in 0..self.sink.shard_count() {
            self.sink.send(ShardId(shard), ShardInput::Image(self.image.clone()));
        }
    }
}

struct View<'a, S: ShardSink> {
    publisher: &'a Publisher<S>,
    configs: &'a BTreeMap<&'a str, &'a Arc<TopicConfig>>,
}

impl<S: ShardSink> LocalView for View<'_, S> {
    fn shard_of(&self, topic: &str, partition: i32) -> Option<ShardId> {
        self.publisher.placement.shard_of(topic, partition)
    }

    fn config_of(&self, topic: &str) -> Arc<TopicConfig> {
        config_of(topic, self.configs, &self.publisher.image)
    }
}

/// A topic's settings: new ones, else the image's, else the broker's.
fn config_of(topic: &str, configs: &BTreeMap<&str, &Arc<TopicConfig>>, image: &ClusterImage) -> Arc<TopicConfig> {
    match configs.get(topic) {
        Some(config) => (*config).clone(),
        None => image.topic(topic).map_or_else(|| image.dynamic.topic_defaults.clone(), |topic| topic.config.clone()),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::super::inputs::*;
    use super::*;
    use crate::base::ids::TopicId;

    #[derive(Clone, Default)]
    struct Sent(Rc<RefCell<Vec<(u16, ShardInput)>>>);

    impl ShardSink for Sent {
        fn shard_count(&self) -> u16 {
            2
        }
        fn send(&self, shard: ShardId, input: ShardInput) {
            self.0.borrow_mut().push((shard.0, input));
        }
    }

    fn publisher(sent: &Sent) -> Publisher<Sent> {
        Publisher::new(BrokerId(1), 10, "c".into(), Arc::default(), sent.clone())
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
            configs: vec![],
            dynamic: None,
        }
    }

    #[test]
    fn shards_hear_of_their_replicas_before_the_image_that_shows_them() {
        let sent = Sent::default();
        let mut publisher = publisher(&sent);
        assert_eq!(publisher.receive(&inputs(1, 10)), Ok(1));
        let inputs = sent.0.borrow();
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
        publisher.receive(&inputs(1, 10)).unwrap();
        sent.0.borrow_mut().clear();
        let config = Arc::new(TopicConfig { segment_bytes: 77, ..TopicConfig::default() });
        let dynamic = Arc::new(DynamicConfig::default());
        let configs = vec![("t".into(), Arc::clone(&config)), ("gone".into(), Arc::clone(&config))];
        let changed = BrokerInputs { configs, dynamic: Some(Arc::clone(&dynamic)), ..BrokerInputs::default() };
        publisher.receive(&changed).unwrap();
        let image = publisher.image();
        assert!(Arc::ptr_eq(&image.topic("t").unwrap().config, &config) && Arc::ptr_eq(&image.dynamic, &dynamic));
        assert!(Arc::ptr_eq(image.topic("t").unwrap(), image.topic_by_id(TopicId([1; 16])).unwrap()));
        let kinds: Vec<_> = sent
            .0
            .borrow()
            .iter()
            .map(|(shard, input)| match input {
                ShardInput::Configs { configs, image_version: 2 } => (*shard, configs.len()),
                ShardInput::Image(image) if image.version == 2 => (*shard, 0),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(kinds, [(0, 1), (1, 1), (0, 0), (1, 0)], "and of no topic that is not there");
        publisher.receive(&changed).unwrap();
        assert!(sent.0.borrow()[4..].iter().all(|(_, input)| matches!(input, ShardInput::Image(_))), "nothing new");
    }

    #[test]
    fn a_version_counts_as_applied_when_the_last_shard_says_so() {
        let sent = Sent::default();
        let mut publisher = publisher(&sent);
        for _ in 0..UNAPPLIED_IMAGES_MAX {
            assert!(publisher.has_room());
            publisher.receive(&BrokerInputs::default()).unwrap();
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
        publisher.receive(&inputs(2, -1)).unwrap();
        assert_eq!(publisher.receive(&inputs(1, 10)), Err(Stale::ControllerEpoch));
        assert_eq!(publisher.receive(&inputs(2, 9)), Err(Stale::BrokerEpoch));
        assert_eq!(publisher.image().version, 1);
        publisher.receive(&inputs(2, 11)).unwrap();
    }

    #[test]
    fn a_deleted_replica_is_stopped_where_it_lived_and_an_unknown_one_somewhere() {
        let sent = Sent::default();
        let mut publisher = publisher(&sent);
        publisher.receive(&inputs(1, 10)).unwrap();
        let shard = publisher.image().partition("t", 2).unwrap().shard.unwrap();
        sent.0.borrow_mut().clear();
        let stop = |name: &str| StopReplicaTopic {
            name: name.into(),
            partitions: vec![StopReplicaPartition { partition: 2, leader_epoch: EPOCH_DURING_DELETE, delete: true }],
        };
        let sender = Sender { controller_id: BrokerId(1), controller_epoch: 1, broker_epoch: 10 };
        let stop_replica = Some(StopReplica { sender, topics: vec![stop("t"), stop("never-seen")] });
        publisher.receive(&BrokerInputs { stop_replica, ..BrokerInputs::default() }).unwrap();
        let mut stopped = Vec::new();
        for (at, input) in sent.0.borrow().iter() {
            if let ShardInput::StopReplica { partitions, image_version: 2 } = input {
                stopped.extend(partitions.iter().map(|(name, delete)| (name.to_string(), *delete, *at)));
            }
        }
        assert!(stopped.contains(&("t-2".to_owned(), true, shard.0)));
        assert!(stopped.iter().any(|(name, delete, _)| name == "never-seen-2" && *delete));
    }
}
