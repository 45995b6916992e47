//! Becoming controller, and taking the cluster over (contract: `zookeeper.md` section 3, Kafka 3.9 `onControllerFailover`).
//!
//! Every broker watches `/controller`. Whoever creates it and raises `/controller_epoch` in one multi is controller. It
//! then loads all there is, gives each partition that needs one a leader, writes these down, and only then speaks to
//! brokers.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::base::ids::BrokerId;
use crate::metadata::tree::{
    CreateMode, Operation, Outcome, Reply, Request, RequestError, Stat, TreeError, Version, Watch,
};
use crate::metadata::znodes;

use super::cluster::{Cluster, Deletion, Topic};
use super::event::Effect;
use super::leadership::{Change, Then, Told, elect};
use super::load::{Loader, Read, Snapshot, Step, TopicSnapshot};
use super::{Controller, Purpose, Role, Waiting};

impl Controller {
    /// Looks who is controller, and is told when that changes.
    pub(super) fn watch_controller(&mut self, effects: &mut Vec<Effect>) {
        let request = Request::Exists { path: znodes::CONTROLLER.to_owned(), watch: Watch::Set };
        self.ask(request, Waiting::ControllerSeen, effects);
    }

    pub(super) fn controller_seen(&mut self, found: Option<Stat>, effects: &mut Vec<Effect>) {
        match (&self.role, found) {
            (Role::Idle | Role::Standby, None) => {
                self.role = Role::Electing;
                self.read_epoch(effects);
            }
            (Role::Idle, Some(_)) => self.role = Role::Standby,
            (Role::TakingOver(cluster, _) | Role::Active(cluster), found)
                if found.is_none_or(|stat| stat.czxid != cluster.czxid) =>
            {
                tracing::warn!("this broker is controller no more");
                self.step_down(Role::Standby, effects);
                if found.is_none() {
                    self.controller_seen(None, effects);
                }
            }
            _ => {}
        }
    }

    fn read_epoch(&mut self, effects: &mut Vec<Effect>) {
        self.ask(Request::get(znodes::CONTROLLER_EPOCH), Waiting::EpochRead, effects);
    }

    pub(super) fn epoch_read(&mut self, found: Option<(Vec<u8>, Stat)>, effects: &mut Vec<Effect>) {
        match found {
            Some((data, stat)) => match znodes::decode_controller_epoch(&data) {
                Ok(epoch) => self.claim(epoch, stat.version, effects),
                Err(error) => self.fail(error.to_string(), effects),
            },
            None => {
                let operations = vec![Operation::Create {
                    path: znodes::CONTROLLER_EPOCH.to_owned(),
                    data: znodes::encode_controller_epoch(0),
                    mode: CreateMode::Persistent,
                }];
                self.write(operations, Waiting::EpochMade, effects);
            }
        }
    }

    pub(super) fn epoch_made(&mut self, result: Result<Vec<Outcome>, RequestError>, effects: &mut Vec<Effect>) {
        match result {
            Ok(_) => self.claim(0, 0, effects),
            // Another broker was faster: its value counts.
            Err(RequestError { error: TreeError::NodeExists(_), .. }) => self.read_epoch(effects),
            Err(failed) => self.not_elected(&failed.error, effects),
        }
    }

    fn claim(&mut self, epoch: i32, epoch_version: i32, effects: &mut Vec<Effect>) {
        let Role::Electing = self.role else { return };
        let Some(epoch) = epoch.checked_add(1) else {
            return self.fail(format!("{} is at its end", znodes::CONTROLLER_EPOCH), effects);
        };
        let operations = vec![
            Operation::Create {
                path: znodes::CONTROLLER.to_owned(),
                data: znodes::encode_controller(self.settings.broker_id, self.now.wall),
                mode: CreateMode::Ephemeral,
            },
            Operation::Set {
                path: znodes::CONTROLLER_EPOCH.to_owned(),
                data: znodes::encode_controller_epoch(epoch),
                version: Version::Exactly(epoch_version),
            },
        ];
        self.write(operations, Waiting::Claim { epoch }, effects);
    }

    pub(super) fn claimed(
        &mut self,
        epoch: i32,
        result: Result<Vec<Outcome>, RequestError>,
        effects: &mut Vec<Effect>,
    ) {
        match result {
            Ok(outcomes) => match outcomes[..] {
                [Outcome::Created(_, made), Outcome::Set(stat)] => {
                    tracing::info!(epoch, "elected as controller");
                    let cluster = Cluster::new(self.settings.broker_id, epoch, made.czxid, stat.version);
                    let (loader, reads) = Loader::all();
                    self.role = Role::TakingOver(Box::new(cluster), Some(loader));
                    self.read_all(Purpose::TakeOver, reads, effects);
                }
                _ => unreachable!("a create and a set answered {outcomes:?}"),
            },
            Err(RequestError { error: TreeError::NodeExists(_) | TreeError::BadVersion(_), .. }) => {
                self.role = Role::Standby;
                // Whoever was faster may be gone before this broker watches.
                self.watch_controller(effects);
            }
            Err(failed) => self.not_elected(&failed.error, effects),
        }
    }

    /// An election broke off.
    pub(super) fn not_elected(&mut self, error: &TreeError, effects: &mut Vec<Effect>) {
        match error {
            // The next session begins it again.
            TreeError::SessionExpired => self.role = Role::Idle,
            error => self.fail(error.to_string(), effects),
        }
    }

    pub(super) fn read_all(&mut self, purpose: Purpose, reads: Vec<Read>, effects: &mut Vec<Effect>) {
        for read in reads {
            self.ask(read.request(), Waiting::Load { purpose, read }, effects);
        }
    }

    /// One of the take-over's reads.
    pub(super) fn load_more(&mut self, read: Read, result: Result<Reply, RequestError>, effects: &mut Vec<Effect>) {
        let Role::TakingOver(_, Some(loader)) = &mut self.role else { return };
        match loader.done(read, result) {
            Step::Ask(reads) => self.read_all(Purpose::TakeOver, reads, effects),
            Step::Done(snapshot) => self.loaded(snapshot, effects),
            Step::Failed(error) => {
                self.step_down(Role::Standby, effects);
                self.not_elected(&error, effects);
            }
        }
    }

    fn loaded(&mut self, snapshot: Snapshot, effects: &mut Vec<Effect>) {
        let Role::TakingOver(cluster, loader) = &mut self.role else { return };
        *loader = None;
        cluster.set_brokers(snapshot.brokers.into_iter().map(|(broker, epoch)| (broker.id, (broker, epoch))).collect());
        cluster.damaged = snapshot.damaged;
        for topic in snapshot.topics {
            let (name, topic) = taken(topic);
            cluster.insert(name, topic);
        }
        let mut without_topic = Vec::new();
        for name in snapshot.marked {
            match cluster.topics.get_key_value(&*name) {
                Some((name, _)) => drop(cluster.deleting.insert(name.clone(), Deletion::default())),
                None => without_topic.push((cluster.damaged.contains_key(&name), name)),
            }
        }
        // Of the live brokers, this one has just come: what it led before, it led in another life.
        let changes = self.elect_all(&BTreeSet::from([self.settings.broker_id]));
        for (is_damaged, name) in without_topic {
            match is_damaged {
                true => self.unmark(name, effects),
                false => self.unmark_orphan(name, effects),
            }
        }
        let Role::TakingOver(cluster, _) = &self.role else { return };
        let all = cluster.partitions_of(cluster.topics.keys());
        let told = Told { shown: all.clone(), led: all, ..Told::default() };
        self.lead(changes, told, Then::Speak, effects);
    }

    /// New leaders for all partitions that need one.
    pub(super) fn elect_all(&mut self, returned: &BTreeSet<BrokerId>) -> Vec<Change> {
        let followed = self.settings.followed.clone();
        let Some(cluster) = self.cluster() else { return Vec::new() };
        let elect = |(name, topic): (&Arc<str>, &Topic)| {
            let unclean = followed.is_unclean(name);
            elect(cluster, name, topic, topic.partitions.keys().copied(), returned, unclean)
        };
        cluster.topics.iter().flat_map(elect).collect()
    }

    /// All is written: what was left half deleted goes on.
    pub(super) fn speak(&mut self, effects: &mut Vec<Effect>) {
        let Role::TakingOver(cluster, _) = std::mem::replace(&mut self.role, Role::Idle) else { return };
        let deleting: Vec<Arc<str>> = cluster.deleting.keys().cloned().collect();
        self.role = Role::Active(cluster);
        self.stop_replicas(&deleting, effects);
        self.look_again(effects);
    }
}

pub(super) fn taken(topic: TopicSnapshot) -> (Arc<str>, Topic) {
    let TopicSnapshot { name, id, partitions, has_partitions_node, others } = topic;
    (name.into(), Topic { id, partitions, has_partitions_node, others })
}
