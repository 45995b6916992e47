//! The broker's side of metadata: takes what a controller says, tells the shards, publishes images.
//!
//! Each [`BrokerInputs`] becomes one image version, and so does each change of settings. Per shard, LeaderAndIsr and
//! StopReplica go first, then the image to every shard; a shard that says Applied of that version has done all of it. One
//! whose queue is full is told all there is once it has room (see [`super::behind`]).
//!
//! A controller says nothing of settings. An input with a topic whose settings this broker has not read yet waits, and
//! what comes after it waits behind: no log is opened with other settings than its topic's. A topic whose settings can't
//! be read is left out.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use thiserror::Error;

use crate::base::ids::{BrokerId, ShardId, TopicId, TopicPartition};
use crate::config::TopicConfig;

use super::behind::ShardPart;
use super::config_follower::{Followed, TopicSettings};
use super::image::{ClusterImage, LocalView};
use super::inputs::{
    BrokerInputs, LEADER_DURING_DELETE, LeaderAndIsr, Sender, StopReplica, UpdateMetadataPartition, UpdateMetadataTopic,
};
use super::node::{LocalPartition, ShardInput, ShardSink};
use super::placement::Placement;

/// Images published but not applied by every shard, beyond which no new proposal is taken.
pub const UNAPPLIED_IMAGES_MAX: u64 = 64;

/// What one version is to one shard: LeaderAndIsr, StopReplica, Configs, the image.
pub const INPUTS_PER_VERSION_MAX: usize = 4;

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
    followed: Followed,
    shards: Vec<ShardPart>,
    /// Inputs that wait for settings, and what came after them.
    waiting: VecDeque<BrokerInputs>,
    /// Topics of the first of these whose settings are not known.
    unknown: BTreeSet<Arc<str>>,
    /// Topics whose settings nobody was asked for yet.
    needed: BTreeSet<Arc<str>>,
    /// Topics that are shown no more, and of which nobody was told yet.
    gone: BTreeSet<Arc<str>>,
    /// How many inputs were taken, and of how many the image tells.
    received: u64,
    published: u64,
}

/// One version's inputs by shard.
#[derive(Default)]
struct Told {
    lead: BTreeMap<ShardId, Vec<LocalPartition>>,
    stop: BTreeMap<ShardId, Vec<(TopicPartition, bool)>>,
    configs: Vec<(Arc<str>, Arc<TopicConfig>)>,
}

impl<S: ShardSink> Publisher<S> {
    pub fn new(
        broker_id: BrokerId,
        broker_epoch: i64,
        cluster_id: Arc<str>,
        followed: Followed,
        sink: S,
    ) -> Publisher<S> {
        let shard_count = sink.shard_count();
        Publisher {
            broker_id,
            broker_epoch,
            controller_epoch: 0,
            sink,
            placement: Placement::new(shard_count),
            image: Arc::new(ClusterImage::empty(cluster_id, Arc::clone(&followed.dynamic))),
            followed,
            shards: (0..shard_count).map(|_| ShardPart::default()).collect(),
            waiting: VecDeque::new(),
            unknown: BTreeSet::new(),
            needed: BTreeSet::new(),
            gone: BTreeSet::new(),
            received: 0,
            published: 0,
        }
    }

    pub fn image(&self) -> &Arc<ClusterImage> {
        &self.image
    }

    /// How many inputs were taken so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// How many of them the image tells of.
    pub fn published(&self) -> u64 {
        self.published
    }

    /// This broker has registered again.
    pub fn set_broker_epoch(&mut self, broker_epoch: i64) {
        self.broker_epoch = broker_epoch;
    }

    /// Takes what a controller says, and publishes it as soon as the settings of its topics are known.
    pub fn receive(&mut self, inputs: BrokerInputs) -> Result<(), Stale> {
        let senders = [
            inputs.leader_and_isr.as_ref().map(|input| input.sender),
            inputs.stop_replica.as_ref().map(|input| input.sender),
            inputs.update_metadata.as_ref().map(|input| input.sender),
        ];
        for sender in senders.into_iter().flatten() {
            self.check(sender)?;
        }
        self.received += 1;
        self.waiting.push_back(inputs);
        if self.waiting.len() == 1 {
            self.find_unknown();
        }
        self.go_on();
        Ok(())
    }

    /// Topics of an input that the image does not show, or shows another topic under the name of.
    pub fn unshown(&self, inputs: &BrokerInputs) -> BTreeSet<Arc<str>> {
        let is_shown = |name: &Arc<str>, id: TopicId| self.image.topic(name).is_some_and(|topic| topic.id == id);
        topics_of(inputs).filter(|(name, id)| !is_shown(name, *id)).map(|(name, _)| name.clone()).collect()
    }

    /// The topics whose settings the next input waits for, each once.
    pub fn take_needed(&mut self) -> BTreeSet<Arc<str>> {
        std::mem::take(&mut self.needed)
    }

    /// Topics that are shown no more, each once.
    pub fn take_gone(&mut self) -> BTreeSet<Arc<str>> {
        std::mem::take(&mut self.gone)
    }

    /// This broker's settings are others now, or those of `topics` are, or are not known any more.
    pub fn follow(&mut self, followed: Followed, topics: &BTreeSet<Arc<str>>) {
        let is_changed = !Arc::ptr_eq(&self.followed.dynamic, &followed.dynamic);
        self.followed = followed;
        let (known, forgotten): (Vec<_>, Vec<_>) =
            topics.iter().partition(|topic| self.followed.topic(topic).is_some());
        for topic in known {
            self.unknown.remove(topic);
        }
        if !forgotten.is_empty() {
            self.find_unknown();
        }
        let configs = self.changed_configs(topics);
        if is_changed || !configs.is_empty() {
            let mut next = self.image.barrier();
            next.set_configs(&configs);
            next.dynamic = Arc::clone(&self.followed.dynamic);
            self.publish(next, Told { configs, ..Told::default() });
        }
        self.go_on();
    }

    /// Notes a shard's word.
    pub fn applied(&mut self, shard: ShardId, version: u64) {
        assert!(version <= self.image.version, "a shard applied what was not published");
        let part = &mut self.shards[shard.index()];
        part.applied = version.max(part.applied);
        if part.is_behind() && self.sink.room(shard) >= INPUTS_PER_VERSION_MAX {
            self.tell_all(shard);
        }
    }

    /// The version that all shards have applied.
    pub fn applied_by_all(&self) -> u64 {
        self.shards.iter().map(|part| part.applied).min().unwrap_or(0)
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

    fn find_unknown(&mut self) {
        let topics = self.waiting.front().into_iter().flat_map(topics_of).map(|(name, _)| name);
        self.unknown = topics.filter(|topic| self.followed.topic(topic).is_none()).cloned().collect();
        self.needed.extend(self.unknown.iter().cloned());
    }

    /// Publishes what waits for nothing more.
    fn go_on(&mut self) {
        while self.unknown.is_empty()
            && let Some(mut inputs) = self.waiting.pop_front()
        {
            self.leave_out_damaged(&mut inputs);
            let mut told = Told::default();
            if let Some(input) = &inputs.leader_and_isr {
                self.lead_and_follow(input, &mut told);
            }
            if let Some(input) = &inputs.stop_replica {
                self.stop(input, &mut told);
            }
            let view = View { publisher: self };
            let next = match &inputs.update_metadata {
                Some(update) => self.image.updated(update, &view),
                None => self.image.barrier(),
            };
            self.published += 1;
            self.publish(next, told);
            let updated = inputs.update_metadata.iter().flat_map(|update| &update.topics);
            let gone = updated.filter(|topic| self.image.topic(&topic.name).is_none());
            self.gone.extend(gone.map(|topic| topic.name.clone()));
            self.find_unknown();
        }
    }

    fn leave_out_damaged(&self, inputs: &mut BrokerInputs) {
        let is_sound = |topic: &str| !matches!(self.followed.topic(topic), Some(TopicSettings::Damaged));
        if let Some(input) = &mut inputs.leader_and_isr {
            input.topics.retain(|topic| is_sound(&topic.name));
        }
        if let Some(input) = &mut inputs.update_metadata {
            input.topics.retain(|topic| is_sound(&topic.name) || is_deletion(topic));
        }
    }

    fn lead_and_follow(&mut self, input: &LeaderAndIsr, told: &mut Told) {
        for topic in &input.topics {
            let config = self.config_of(&topic.name);
            for partition in topic.partitions.iter().filter(|partition| partition.replicas.contains(&self.broker_id)) {
                let shard = self.placement.place(&topic.name, partition.partition);
                told.lead.entry(shard).or_default().push(LocalPartition {
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
    }

    fn stop(&mut self, input: &StopReplica, told: &mut Told) {
        for topic in &input.topics {
            for partition in &topic.partitions {
                let shard = if partition.delete {
                    self.placement.remove(&topic.name, partition.partition)
                } else {
                    self.placement.place(&topic.name, partition.partition)
                };
                let name = TopicPartition { topic: topic.name.clone(), partition: partition.partition };
                told.stop.entry(shard).or_default().push((name, partition.delete));
            }
        }
    }

    /// The settings of those of `topics` that the image shows others of.
    fn changed_configs(&self, topics: &BTreeSet<Arc<str>>) -> Vec<(Arc<str>, Arc<TopicConfig>)> {
        let changed = topics.iter().filter_map(|name| {
            let (shown, config) = (self.image.topic(name)?, self.known_config(name)?);
            (!Arc::ptr_eq(&shown.config, config)).then(|| (name.clone(), config.clone()))
        });
        changed.collect()
    }

    /// Tells each shard of the next version, or notes that it has yet to be told.
    fn publish(&mut self, next: ClusterImage, mut told: Told) {
        self.image = Arc::new(next);
        let image_version = self.image.version;
        let configs: Arc<[_]> = told.configs.into();
        let mut up_to_date = Vec::new();
        for shard in (0..self.sink.shard_count()).map(ShardId) {
            let (lead, stop) = (told.lead.remove(&shard), told.stop.remove(&shard));
            let part = &mut self.shards[shard.index()];
            if self.sink.room(shard) < INPUTS_PER_VERSION_MAX {
                #[cfg(test)]
                if planted::DROP_WHAT_HAS_NO_ROOM.get() {
                    continue;
                }
                part.falls_behind();
            }
            // What it is to run again comes after what it gives up, both here and where all is told.
            part.stop(stop.as_deref().unwrap_or_default());
            part.lead(lead.as_deref().unwrap_or_default());
            if part.is_behind() {
                if self.sink.room(shard) >= INPUTS_PER_VERSION_MAX {
                    self.tell_all(shard);
                }
                continue;
            }
            if let Some(partitions) = stop {
                self.sink.send(shard, ShardInput::StopReplica { partitions, image_version });
            }
            if let Some(partitions) = lead {
                self.sink.send(shard, ShardInput::LeaderAndIsr { partitions, image_version });
            }
            if !configs.is_empty() {
                self.sink.send(shard, ShardInput::Configs { configs: Arc::clone(&configs), image_version });
            }
            up_to_date.push(shard);
        }
        for shard in up_to_date {
            self.sink.send(shard, ShardInput::Image(self.image.clone()));
        }
    }

    /// Tells a shard that has fallen behind all that it is to run and to read.
    fn tell_all(&mut self, shard: ShardId) {
        let image_version = self.image.version;
        let (stops, mut replicas) = self.shards[shard.index()].all();
        let mut configs: BTreeMap<Arc<str>, Arc<TopicConfig>> = BTreeMap::new();
        for local in &mut replicas {
            // One that is about to be given up may have no settings any more.
            if let Some(config) = self.known_config(&local.topic) {
                local.config = config.clone();
            }
            configs.insert(local.topic.clone(), local.config.clone());
        }
        #[cfg(test)]
        counted::TOLD_ALL.set(counted::TOLD_ALL.get() + 1);
        tracing::warn!(shard = shard.0, replicas = replicas.len(), "a shard that fell behind is told all anew");
        let configs = configs.into_iter().collect();
        self.sink.send(shard, ShardInput::StopReplica { partitions: stops, image_version });
        self.sink.send(shard, ShardInput::LeaderAndIsr { partitions: replicas, image_version });
        self.sink.send(shard, ShardInput::Configs { configs, image_version });
        self.sink.send(shard, ShardInput::Image(self.image.clone()));
    }

    fn known_config(&self, topic: &str) -> Option<&Arc<TopicConfig>> {
        match self.followed.topic(topic) {
            Some(TopicSettings::Known(config)) => Some(config),
            Some(TopicSettings::Damaged) | None => None,
        }
    }

    /// The settings of a topic that is shown: what was read last, else what it is shown with.
    fn config_of(&self, topic: &str) -> Arc<TopicConfig> {
        let known = self.known_config(topic).or_else(|| self.image.topic(topic).map(|topic| &topic.config));
        Arc::clone(known.expect("an input waits until the settings of its topics are known"))
    }
}

/// The topics that an input shows or has run.
fn topics_of(inputs: &BrokerInputs) -> impl Iterator<Item = (&Arc<str>, TopicId)> {
    let led = inputs.leader_and_isr.iter().flat_map(|input| &input.topics).map(|topic| (&topic.name, topic.id));
    let shown = inputs.update_metadata.iter().flat_map(|input| &input.topics);
    led.chain(shown.filter(|topic| !is_deletion(topic)).map(|topic| (&topic.name, topic.id)))
}

/// Whether all that is said of a topic is that it goes.
fn is_deletion(topic: &UpdateMetadataTopic) -> bool {
    let goes = |partition: &UpdateMetadataPartition| partition.leader == LEADER_DURING_DELETE;
    !topic.partitions.is_empty() && topic.partitions.iter().all(goes)
}

struct View<'a, S: ShardSink> {
    publisher: &'a Publisher<S>,
}

impl<S: ShardSink> LocalView for View<'_, S> {
    fn shard_of(&self, topic: &str, partition: i32) -> Option<ShardId> {
        self.publisher.placement.shard_of(topic, partition)
    }

    fn config_of(&self, topic: &str) -> Arc<TopicConfig> {
        self.publisher.config_of(topic)
    }
}

/// The planted bug that the simulator must catch: what a full queue has no room for is forgotten.
#[cfg(test)]
pub(crate) mod planted {
    use std::cell::Cell;

    thread_local! {
        pub(crate) static DROP_WHAT_HAS_NO_ROOM: Cell<bool> = const { Cell::new(false) };
    }
}

/// How often a shard that fell behind was told all anew, for tests that want it to happen.
#[cfg(test)]
pub(crate) mod counted {
    use std::cell::Cell;

    thread_local! {
        pub(crate) static TOLD_ALL: Cell<usize> = const { Cell::new(0) };
    }
}

#[cfg(test)]
mod tests;
