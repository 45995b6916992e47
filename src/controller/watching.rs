//! What others write into the tree while this broker is controller: topics, more partitions, marks for deletion, brokers that
//! come and go (Kafka 3.9 `KafkaController.processTopicChange`, `processPartitionModifications`, `processTopicDeletion`,
//! `processBrokerChange`).
//!
//! A watch only says where to look. Lists can be long and this controller's own writes fire their watches too, so each is
//! read at most once in [`LOOK_INTERVAL`]; what comes meanwhile is seen with the next look.

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

/// A list of the tree that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum List {
    Brokers,
    Topics,
    Marks,
}

impl List {
    pub const ALL: [List; 3] = [List::Brokers, List::Topics, List::Marks];

    fn path(self) -> &'static str {
        match self {
            List::Brokers => znodes::BROKER_IDS,
            List::Topics => znodes::TOPICS,
            List::Marks => znodes::DELETE_TOPICS,
        }
    }
}

/// When a list was read, and whether it is to be read again.
#[derive(Clone, Copy, Default)]
pub struct Look {
    last: Option<Monotonic>,
    /// Its watch has fired since.
    is_due: bool,
    is_under_way: bool,
}

impl Look {
    /// When it is to be read again.
    fn at(&self) -> Option<Monotonic> {
        let waits = self.is_due && !self.is_under_way;
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
                if let Some(list) = List::ALL.into_iter().find(|list| list.path() == path) {
                    self.looks.entry(list).or_default().is_due = true;
                    self.look_again(effects);
                }
            }
            TreeEvent::NodeDataChanged(path) => {
                if let Some(topic) = path.strip_prefix(znodes::TOPICS).and_then(|rest| rest.strip_prefix('/')) {
                    self.read_topics([topic.to_owned()], effects);
                } else if path.starts_with(znodes::BROKER_IDS) {
                    self.looks.entry(List::Brokers).or_default().is_due = true;
                    self.look_again(effects);
                }
            }
            // A list tells what is gone.
            TreeEvent::NodeCreated(_) | TreeEvent::NodeDeleted(_) | TreeEvent::Session(_) => {}
        }
    }

    /// Is told when a topic's assignment changes.
    pub(super) fn watch_topic(&mut self, name: &str, effects: &mut Vec<Effect>) {
        let request = Request::Exists { path: znodes::topic_path(name), watch: Watch::Set };
        self.ask(request, Waiting::Watch, effects);
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
            *look = Look { last: Some(now), is_due: false, is_under_way: true };
            match list {
                List::Brokers => {
                    let (loader, reads) = Loader::brokers();
                    self.loaders.insert(self.next_loader, loader);
                    self.read_all(Purpose::Brokers(self.next_loader), reads, effects);
                    self.next_loader += 1;
                }
                List::Topics => self.ask(Read::TopicNames.request(), Waiting::List(list), effects),
                List::Marks => self.ask(Read::Marks.request(), Waiting::List(list), effects),
            }
        }
    }

    pub(super) fn listed(&mut self, list: List, result: Result<Reply, RequestError>, effects: &mut Vec<Effect>) {
        self.looks.entry(list).or_default().is_under_way = false;
        match (list, result) {
            (List::Topics, Ok(Reply::Children(names))) => self.topics_listed(names, effects),
            (List::Marks, Ok(Reply::Children(names))) => self.marks_listed(names, effects),
            (_, Err(failed)) => tracing::warn!(?list, %failed, "a list of the metadata tree can't be read"),
            (_, Ok(other)) => unreachable!("a list was answered with {other:?}"),
        }
        self.look_again(effects);
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
        self.read_topics(new, effects);
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
        self.unmark(refused, effects);
        self.stop_replicas(&begun, effects);
    }

    fn read_topics(&mut self, names: impl IntoIterator<Item = String>, effects: &mut Vec<Effect>) {
        let Role::Active(_) = self.role else { return };
        let (loader, reads) = Loader::topics(names);
        if reads.is_empty() {
            return;
        }
        self.loaders.insert(self.next_loader, loader);
        self.read_all(Purpose::Topics(self.next_loader), reads, effects);
        self.next_loader += 1;
    }

    /// One of the reads of what others have written.
    pub(super) fn read_more(
        &mut self,
        purpose: Purpose,
        read: Read,
        result: Result<Reply, RequestError>,
        effects: &mut Vec<Effect>,
    ) {
        let (Purpose::Topics(number) | Purpose::Brokers(number)) = purpose else { return };
        let Some(loader) = self.loaders.get_mut(&number) else { return };
        let step = loader.done(read, result);
        if let Step::Ask(reads) = step {
            return self.read_all(purpose, reads, effects);
        }
        self.loaders.remove(&number);
        if let Purpose::Brokers(_) = purpose {
            self.looks.entry(List::Brokers).or_default().is_under_way = false;
        }
        match (purpose, step) {
            (Purpose::Topics(_), Step::Done(snapshot)) => self.topics_read(snapshot, effects),
            (_, Step::Done(snapshot)) => self.brokers_read(snapshot, effects),
            (_, Step::Failed(error)) => tracing::warn!(%error, "a change in the metadata tree can't be read"),
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
            changes.extend(elect(cluster, &name, topic, numbers, None, followed.is_unclean(&name)));
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

    /// Brokers that went lose their leaderships; one that came, or came again, is told everything.
    fn brokers_read(&mut self, snapshot: Snapshot, effects: &mut Vec<Effect>) {
        let Some(cluster) = self.cluster() else { return };
        let read = snapshot.brokers.into_iter().map(|(broker, epoch)| (broker.id, (broker, epoch))).collect();
        let before = std::mem::replace(&mut cluster.brokers, read);
        if before == cluster.brokers {
            return;
        }
        let epoch_of = |brokers: &std::collections::BTreeMap<_, (_, i64)>, id| brokers.get(id).map(|(_, epoch)| *epoch);
        let has_come = cluster.brokers.keys().any(|id| epoch_of(&cluster.brokers, id) != epoch_of(&before, id));
        let all = match has_come {
            true => cluster.partitions_of(cluster.topics.keys()),
            false => Partitions::new(),
        };
        let suspended: Vec<Arc<str>> = cluster
            .deleting
            .iter_mut()
            .filter_map(|(name, deletion)| std::mem::take(&mut deletion.suspended).then(|| name.clone()))
            .collect();
        let changes = self.elect_all(None);
        let told = Told { shown: all.clone(), led: all, ..Told::default() };
        self.lead(changes, told, Then::Nothing, effects);
        self.stop_replicas(&suspended, effects);
    }
}
