//! What others write into the tree while this broker is controller: topics, more partitions, marks for deletion, brokers that
//! come and go (Kafka 3.9 `KafkaController.processTopicChange`, `processPartitionModifications`, `processTopicDeletion`,
//! `processBrokerChange`).
//!
//! A watch only says where to look. Lists can be long and this controller's own writes fire their watches too, so each is
//! read at most once in [`LOOK_INTERVAL`]; what comes meanwhile is seen with the next look, and what fires while the cluster
//! is being taken over with the first. A look that fails is taken again: its watch is gone with it.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::base::time::Monotonic;
use crate::metadata::tree::{Reply, Request, RequestError, TreeEvent, Watch};
use crate::metadata::znodes;

use super::cluster::{Deletion, Partitions};
use super::election::taken;
use super::event::Effect;
use super::leadership::{Then, Told, elect};
use super::load::{Loader, Read, Snapshot, Step};
use super::{Controller, Purpose, Role, Waiting};

/// How often one list is read at most.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// What of the tree is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum List {
    Brokers,
    Topics,
    Marks,
    /// The nodes of single topics: new ones, and those whose assignment changes.
    Assignments,
}

impl List {
    const ALL: [List; 4] = [List::Brokers, List::Topics, List::Marks, List::Assignments];

    /// The list whose children these are.
    fn of(path: &str) -> Option<List> {
        match path {
            znodes::BROKER_IDS => Some(List::Brokers),
            znodes::TOPICS => Some(List::Topics),
            znodes::DELETE_TOPICS => Some(List::Marks),
            _ => None,
        }
    }
}

/// When a list was read, and whether it is to be read again.
#[derive(Default)]
pub struct Look {
    last: Option<Monotonic>,
    /// Its watch has fired since.
    is_due: bool,
    /// How often it was read; results of earlier reads are nobody's.
    number: u64,
    reading: Reading,
}

#[derive(Default)]
enum Reading {
    #[default]
    Nothing,
    Names,
    Brokers(Loader),
    /// These topics.
    Topics(Loader, Vec<String>),
}

impl Look {
    /// When it is to be read again.
    fn at(&self) -> Option<Monotonic> {
        let waits = self.is_due && matches!(self.reading, Reading::Nothing);
        waits.then(|| self.last.map_or(Monotonic::default(), |last| last + LOOK_INTERVAL))
    }
}

impl Controller {
    /// When [`super::Event::Time`] is to come.
    pub fn next_deadline(&self) -> Option<Monotonic> {
        match &self.role {
            Role::Active(_) => self.looks.values().filter_map(Look::at).min(),
            _ => None,
        }
    }

    pub(super) fn watched(&mut self, event: TreeEvent, effects: &mut Vec<Effect>) {
        match event {
            TreeEvent::NodeCreated(path) | TreeEvent::NodeDeleted(path) | TreeEvent::NodeDataChanged(path)
                if path == znodes::CONTROLLER =>
            {
                self.watch_controller(effects);
            }
            TreeEvent::NodeChildrenChanged(path) => {
                if let Some(list) = List::of(&path) {
                    self.look_soon(list, effects);
                }
            }
            TreeEvent::NodeDataChanged(path) => {
                if let Some(topic) = path.strip_prefix(znodes::TOPICS).and_then(|rest| rest.strip_prefix('/')) {
                    self.read_soon([topic.to_owned()], effects);
                } else if path.starts_with(znodes::BROKER_IDS) {
                    self.look_soon(List::Brokers, effects);
                }
            }
            // A list tells what is gone.
            TreeEvent::NodeCreated(_) | TreeEvent::NodeDeleted(_) | TreeEvent::Session(_) => {}
        }
    }

    /// Is told when a topic's assignment changes.
    pub(super) fn watch_topic(&mut self, name: &str, effects: &mut Vec<Effect>) {
        let request = Request::Exists { path: znodes::topic_path(name), watch: Watch::Set };
        self.ask(request, Waiting::Watch { topic: name.to_owned() }, effects);
    }

    fn look_soon(&mut self, list: List, effects: &mut Vec<Effect>) {
        self.looks.entry(list).or_default().is_due = true;
        self.look_again(effects);
    }

    /// Has these topics' nodes read, and watched.
    pub(super) fn read_soon(&mut self, names: impl IntoIterator<Item = String>, effects: &mut Vec<Effect>) {
        self.unread.extend(names);
        if !self.unread.is_empty() {
            self.look_soon(List::Assignments, effects);
        }
    }

    /// Reads the lists whose time has come.
    pub(super) fn look_again(&mut self, effects: &mut Vec<Effect>) {
        let Role::Active(_) = self.role else { return };
        let now = self.now.monotonic;
        for list in List::ALL {
            let look = self.looks.entry(list).or_default();
            if look.at().is_none_or(|at| at > now) {
                continue;
            }
            (look.last, look.is_due, look.number) = (Some(now), false, look.number + 1);
            let purpose = Purpose::Look(list, look.number);
            let reads = match list {
                List::Brokers => {
                    let (loader, reads) = Loader::brokers();
                    look.reading = Reading::Brokers(loader);
                    reads
                }
                List::Assignments => {
                    let names: Vec<String> = std::mem::take(&mut self.unread).into_iter().collect();
                    let (loader, reads) = Loader::topics(names.clone());
                    look.reading = Reading::Topics(loader, names);
                    reads
                }
                List::Topics | List::Marks => {
                    look.reading = Reading::Names;
                    let read = if list == List::Topics { Read::TopicNames } else { Read::Marks };
                    self.ask(read.request(), Waiting::List(list), effects);
                    continue;
                }
            };
            self.read_all(purpose, reads, effects);
        }
    }

    pub(super) fn listed(&mut self, list: List, result: Result<Reply, RequestError>, effects: &mut Vec<Effect>) {
        self.looks.entry(list).or_default().reading = Reading::Nothing;
        match (list, result) {
            (List::Topics, Ok(Reply::Children(names))) => self.topics_listed(names, effects),
            (List::Marks, Ok(Reply::Children(names))) => self.marks_listed(names, effects),
            (_, Err(failed)) => self.not_read(list, &failed, effects),
            (_, Ok(other)) => unreachable!("a list was answered with {other:?}"),
        }
        self.look_again(effects);
    }

    fn not_read(&mut self, list: List, error: &dyn std::fmt::Display, effects: &mut Vec<Effect>) {
        tracing::warn!(?list, %error, "a change in the metadata tree can't be read; the controller looks again");
        self.look_soon(list, effects);
    }

    fn topics_listed(&mut self, names: Vec<String>, effects: &mut Vec<Effect>) {
        let Some(cluster) = self.cluster() else { return };
        let there: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        let is_gone = |name: &&Arc<str>| !there.contains(&***name) && !cluster.deleting.contains_key(*name);
        let gone: Vec<Arc<str>> = cluster.topics.keys().filter(is_gone).cloned().collect();
        cluster.damaged.retain(|name, _| there.contains(name.as_str()));
        let is_known = |name: &str| {
            cluster.topics.contains_key(name) || cluster.creating.contains(name) || cluster.damaged.contains_key(name)
        };
        let new: Vec<String> = names.iter().filter(|name| !is_known(name)).cloned().collect();
        for name in gone {
            tracing::warn!(topic = &*name, "the topic was taken out of the metadata tree; its logs stay");
            cluster.remove(&name);
        }
        self.read_soon(new, effects);
    }

    /// Marks that others made are acted upon; those of this controller are known.
    fn marks_listed(&mut self, names: Vec<String>, effects: &mut Vec<Effect>) {
        let is_enabled = self.settings.delete_topic_enable;
        let Some(cluster) = self.cluster() else { return };
        let (mut begun, mut refused) = (Vec::new(), Vec::new());
        for name in names {
            match cluster.topics.get_key_value(&*name) {
                Some((name, _)) if cluster.deleting.contains_key(name) => {}
                Some((name, _)) if is_enabled => {
                    cluster.deleting.insert(name.clone(), Deletion::default());
                    begun.push(name.clone());
                }
                // It may be one that is being created.
                None if cluster.creating.contains(&name) => {}
                _ => refused.push(name),
            }
        }
        refused.into_iter().for_each(|name| self.unmark(name, effects));
        self.stop_replicas(&begun, effects);
    }

    /// One of the reads of what others have written.
    pub(super) fn read_more(
        &mut self,
        (list, number): (List, u64),
        read: Read,
        result: Result<Reply, RequestError>,
        effects: &mut Vec<Effect>,
    ) {
        let look = self.looks.entry(list).or_default();
        let loader = match &mut look.reading {
            Reading::Brokers(loader) | Reading::Topics(loader, _) if look.number == number => loader,
            // One that was read along with it has failed.
            _ => return,
        };
        let step = loader.done(read, result);
        if let Step::Ask(reads) = step {
            return self.read_all(Purpose::Look(list, number), reads, effects);
        }
        match (std::mem::take(&mut look.reading), step) {
            (Reading::Topics(..), Step::Done(snapshot)) => self.topics_read(snapshot, effects),
            (_, Step::Done(snapshot)) => self.brokers_read(snapshot, effects),
            (reading, Step::Failed(error)) => {
                if let Reading::Topics(_, names) = reading {
                    self.unread.extend(names);
                }
                self.not_read(list, &error, effects);
            }
            (_, Step::Ask(_)) => unreachable!("more is read"),
        }
        self.look_again(effects);
    }

    /// New topics, and topics with other assignments: partitions that this controller does not know get leaders.
    fn topics_read(&mut self, snapshot: Snapshot, effects: &mut Vec<Effect>) {
        let followed = self.settings.followed.clone();
        let Some(cluster) = self.cluster() else { return };
        let mut changes = Vec::new();
        for snapshot in snapshot.topics {
            let (name, read) = taken(snapshot);
            if cluster.deleting.contains_key(&name) || cluster.creating.contains(&*name) {
                continue;
            }
            let numbers: Vec<i32> = match cluster.topics.get_mut(&name) {
                Some(topic) if topic.id == read.id => {
                    let unknown =
                        read.partitions.into_iter().filter(|(number, _)| !topic.partitions.contains_key(number));
                    let unknown: Vec<_> = unknown.collect();
                    let numbers = unknown.iter().map(|(number, _)| *number).collect();
                    topic.partitions.extend(unknown);
                    topic.others = read.others;
                    numbers
                }
                _ => {
                    let numbers = read.partitions.keys().copied().collect();
                    cluster.remove(&name);
                    cluster.insert(name.clone(), read);
                    numbers
                }
            };
            let topic = &cluster.topics[&name];
            changes.extend(elect(cluster, &name, topic, numbers, &BTreeSet::new(), followed.is_unclean(&name)));
        }
        for (name, reason) in snapshot.damaged {
            // One that is served goes on as it was.
            if !cluster.topics.contains_key(&*name) {
                cluster.damaged.insert(name, reason);
            }
        }
        if !changes.is_empty() {
            self.lead(changes, Told::default(), Then::Nothing, effects);
        }
    }

    /// Brokers that went lose their leaderships; one that came, or came again, is told everything, and what it led before it
    /// leads in a new epoch, if it does.
    fn brokers_read(&mut self, snapshot: Snapshot, effects: &mut Vec<Effect>) {
        let Some(cluster) = self.cluster() else { return };
        let read = snapshot.brokers.into_iter().map(|(broker, epoch)| (broker.id, (broker, epoch))).collect();
        if cluster.brokers == read {
            return;
        }
        let come = cluster.set_brokers(read);
        let all = match come.is_empty() {
            true => Partitions::new(),
            false => cluster.partitions_of(cluster.topics.keys()),
        };
        let suspended: Vec<Arc<str>> = cluster
            .deleting
            .iter_mut()
            .filter_map(|(name, deletion)| std::mem::take(&mut deletion.suspended).then(|| name.clone()))
            .collect();
        let changes = self.elect_all(&come);
        let told = Told { shown: all.clone(), led: all, ..Told::default() };
        self.lead(changes, told, Then::Nothing, effects);
        self.stop_replicas(&suspended, effects);
    }
}
