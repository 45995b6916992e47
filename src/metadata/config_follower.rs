//! The settings of topics and of this broker, as the tree has them: every broker reads them itself (Kafka 3.9
//! `ZkConfigManager`, `ZkNodeChangeNotificationListener`, contract: `zookeeper.md` section 7).
//!
//! ```text
//!   start:      watch and list /config/changes -> list /config/topics, read every node -> Ready
//!   a change:   the watch fires -> list again -> read the new notices -> read the nodes they name -> Changed
//!   a new topic: what was read under its name is forgotten, its node is read -> Changed
//!   the session has expired: all of the start again
//! ```
//! A notice only says what to read; it may come twice, or its node be gone. It stays for [`NOTICE_LIFE`], so that brokers
//! that are slow still find it, and goes then, whoever sees that first. What is wrong within a node is logged and left
//! out; a node that can't be read at all takes its topic out ([`TopicSettings::Damaged`]), since defaults might delete what
//! it was to keep. A pure state machine.
//!
//! A name is not a topic: its settings may be left of one before, or of a creation that broke off. So they are read anew
//! when a broker hears of a topic that it does not show yet, and what was under way then counts for nothing.
//!
//! Invariant: what [`Followed`] says of a topic was in the tree, at or after the time at which it was asked for.

#![forbid(unsafe_code)]

mod followed;

pub use followed::{Followed, TopicSettings};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::tree::{Reply, Request, RequestError, TreeError, TreeEvent, Version, Watch};
use super::znodes;
use crate::base::ids::BrokerId;
use crate::base::time::{Monotonic, Now};
use crate::config::DynamicConfig;
use crate::config::dynamic::ConfigMap;
use followed::resolve;

/// How long a notice stays, counted from when this broker saw it (Kafka's `changeExpirationMs`, counted there from its
/// making by the clock of ZooKeeper).
pub const NOTICE_LIFE: Duration = Duration::from_secs(15 * 60);

/// How long it waits after a read that failed.
const RETRY_BACKOFF: Duration = Duration::from_secs(1);

/// Names a read until its result.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Read {
    Notices,
    Topics,
    Notice(String),
    /// Of [`Followed::dynamic`], by the name of the node.
    Broker(String),
    Topic(Arc<str>),
    /// Takes away a notice whose time is over.
    Purge(String),
}

impl Read {
    fn request(&self) -> Request {
        let children = |path: &str, watch| Request::Children { path: path.to_owned(), watch };
        let notice = |name: &str| format!("{}/{name}", znodes::CONFIG_CHANGES);
        match self {
            Read::Notices => children(znodes::CONFIG_CHANGES, Watch::Set),
            Read::Topics => children(znodes::TOPIC_CONFIGS, Watch::None),
            Read::Notice(name) => Request::get(notice(name)),
            Read::Broker(node) => Request::get(znodes::broker_config_path(node)),
            Read::Topic(topic) => Request::get(znodes::topic_config_path(topic)),
            Read::Purge(name) => Request::Delete { path: notice(name), version: Version::Any },
        }
    }
}

#[derive(Debug)]
pub enum Event {
    /// At the start, and in a new session: read all.
    Start,
    Done {
        read: Read,
        result: Result<Reply, RequestError>,
    },
    Watched(TreeEvent),
    /// A topic is to be served, or to be opened: see [`Effect::Changed`].
    Need(Arc<str>),
    /// Other topics have these names now than when their settings were read.
    Renew(BTreeSet<Arc<str>>),
    /// Topics are gone.
    Forget(BTreeSet<Arc<str>>),
    /// A time of [`ConfigFollower::next_deadline`] may have come.
    Time,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    Ask {
        read: Read,
        request: Request,
    },
    /// [`ConfigFollower::followed`] is another: these topics live by other settings now, or by known ones, or the broker
    /// does.
    Changed {
        topics: BTreeSet<Arc<str>>,
    },
    /// The tree failed, for good.
    Failed(TreeError),
}

pub struct ConfigFollower {
    broker: String,
    followed: Followed,
    /// What the tree has of all brokers and of this one.
    stored: BTreeMap<String, ConfigMap>,
    /// What is being read, each once at a time: however often sessions expire, no more waits for the tree.
    reading: BTreeMap<Read, Reading>,
    /// Topics whose node could not be read; it is asked for again with all others.
    unread: BTreeSet<Arc<str>>,
    /// Whether all has been read once.
    phase: Phase,
    /// The highest number of a notice that was taken up.
    last_notice: i64,
    /// When each notice was seen first.
    notices: BTreeMap<String, Monotonic>,
    retry_at: Option<Monotonic>,
    rounds: Rounds,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    /// The first list of notices is under way. What they tell of is older than the nodes, which are read after it.
    Listing,
    /// All nodes are being read.
    Starting,
    Following,
}

/// How what is being read is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    Once,
    /// It was asked for again meanwhile, and is read once more.
    Again,
    /// Nobody wants it any more.
    Dropped,
}

/// Counts what is begun and what is all done, for [`ConfigFollower::round`].
#[derive(Default)]
struct Rounds {
    begun: u64,
    done: u64,
}

impl ConfigFollower {
    pub fn new(broker: BrokerId, dynamic: Arc<DynamicConfig>) -> ConfigFollower {
        ConfigFollower {
            broker: broker.0.to_string(),
            followed: Followed::new(dynamic),
            stored: BTreeMap::new(),
            reading: BTreeMap::new(),
            unread: BTreeSet::new(),
            phase: Phase::Idle,
            last_notice: -1,
            notices: BTreeMap::new(),
            retry_at: None,
            rounds: Rounds::default(),
        }
    }

    pub fn followed(&self) -> &Followed {
        &self.followed
    }

    /// Whether all settings have been read.
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Following
    }

    /// The round in which all that the tree has told so far will have been taken up: see [`ConfigFollower::has_done`].
    pub fn round(&self) -> u64 {
        self.rounds.begun
    }

    pub fn has_done(&self, round: u64) -> bool {
        self.rounds.done >= round
    }

    /// When [`Event::Time`] is to come.
    pub fn next_deadline(&self) -> Option<Monotonic> {
        let oldest = self.notices.values().min().map(|seen| *seen + NOTICE_LIFE);
        self.retry_at.into_iter().chain(oldest).min()
    }

    pub fn handle(&mut self, event: Event, now: Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Start => self.start(&mut effects),
            Event::Done { read, result } => self.done(read, result, now, &mut effects),
            Event::Watched(TreeEvent::NodeChildrenChanged(path)) if path == znodes::CONFIG_CHANGES => {
                self.read(Read::Notices, &mut effects);
            }
            Event::Watched(_) => {}
            Event::Need(topic) => {
                if self.followed.topic(&topic).is_none() && !self.is_read(&topic) {
                    self.read(Read::Topic(topic), &mut effects);
                }
            }
            Event::Renew(topics) => {
                topics.iter().for_each(|topic| self.followed.topics.remove(&**topic));
                topics.iter().for_each(|topic| self.read(Read::Topic(topic.clone()), &mut effects));
                effects.push(Effect::Changed { topics });
            }
            Event::Forget(topics) => {
                for topic in &topics {
                    self.followed.topics.remove(&**topic);
                    self.unread.remove(topic);
                    if let Some(reading) = self.reading.get_mut(&Read::Topic(topic.clone())) {
                        *reading = Reading::Dropped;
                    }
                }
                effects.push(Effect::Changed { topics });
            }
            Event::Time => self.time(now, &mut effects),
        }
        if self.reading.is_empty() && self.retry_at.is_none() {
            self.rounds.done = self.rounds.begun;
            if self.phase == Phase::Starting {
                self.phase = Phase::Following;
            }
        }
        effects
    }

    /// This broker's files and flags say something else.
    ///
    /// # Errors
    /// Why they can't be lived by; nothing has changed.
    pub fn follow_files(&mut self, named: ConfigMap) -> Result<Vec<Effect>, String> {
        let dynamic = self.followed.dynamic.with_files(named).map_err(|error| error.to_string())?;
        let mut effects = Vec::new();
        self.live_by(self.with_stored(&dynamic), &mut effects);
        Ok(effects)
    }

    fn start(&mut self, effects: &mut Vec<Effect>) {
        if self.phase == Phase::Idle {
            self.phase = Phase::Listing;
        }
        self.retry_at = None;
        self.read(Read::Notices, effects);
        if self.phase != Phase::Listing {
            self.read_all(effects);
        }
    }

    fn read_all(&mut self, effects: &mut Vec<Effect>) {
        for node in [znodes::ALL_BROKERS.to_owned(), self.broker.clone()] {
            self.read(Read::Broker(node), effects);
        }
        self.read(Read::Topics, effects);
        std::mem::take(&mut self.unread).into_iter().for_each(|topic| self.read(Read::Topic(topic), effects));
    }

    fn read(&mut self, read: Read, effects: &mut Vec<Effect>) {
        self.rounds.begun += 1;
        if let Some(reading) = self.reading.get_mut(&read) {
            *reading = Reading::Again;
            return;
        }
        self.reading.insert(read.clone(), Reading::Once);
        effects.push(Effect::Ask { request: read.request(), read });
    }

    /// Whether what a topic's node says will be taken up.
    fn is_read(&self, topic: &str) -> bool {
        self.reading.get(&Read::Topic(topic.into())).is_some_and(|reading| *reading != Reading::Dropped)
    }

    fn done(&mut self, read: Read, result: Result<Reply, RequestError>, now: Now, effects: &mut Vec<Effect>) {
        let reading = self.reading.remove(&read).expect("each read has one result");
        let result = match result {
            Ok(reply) => Ok(Some(reply)),
            Err(RequestError { error: TreeError::NoNode(_), .. }) => Ok(None),
            Err(failed) => Err(failed.error),
        };
        if let (Err(error), false) = (&result, matches!(read, Read::Purge(_))) {
            self.failed(error, now, effects);
        }
        match reading {
            Reading::Once => {}
            // What a list tells is taken up all the same: notices may come faster than lists.
            Reading::Again if read == Read::Notices => self.read(Read::Notices, effects),
            Reading::Again => return self.read(read, effects),
            Reading::Dropped => return,
        }
        match (read, result) {
            (Read::Topic(topic), result) => self.topic_read(topic, result, effects),
            (Read::Notices, Ok(Some(Reply::Children(names)))) => self.listed(names, now, effects),
            (Read::Topics, Ok(Some(Reply::Children(names)))) => {
                let known: Vec<Arc<str>> = self.followed.topics.iter().map(|(name, _)| name.clone()).collect();
                let names = names.into_iter().map(Arc::from).chain(known);
                names.collect::<BTreeSet<_>>().into_iter().for_each(|topic| self.read(Read::Topic(topic), effects));
            }
            (Read::Notice(name), Ok(Some(Reply::Data(data, _)))) => self.noticed(&name, &data, effects),
            (Read::Broker(node), Ok(found)) => self.broker_read(node, found, effects),
            // What is gone, and what has failed.
            (Read::Notices | Read::Topics | Read::Notice(_) | Read::Broker(_) | Read::Purge(_), _) => {}
        }
    }

    fn failed(&mut self, error: &TreeError, now: Now, effects: &mut Vec<Effect>) {
        match error {
            // A new session reads all anew, before that time.
            TreeError::SessionExpired => self.retry_at = Some(now.monotonic + RETRY_BACKOFF),
            TreeError::Storage(_) => effects.push(Effect::Failed(error.clone())),
            error => {
                tracing::warn!(%error, "settings can't be read from the metadata tree; the broker tries again");
                self.retry_at = Some(now.monotonic + RETRY_BACKOFF);
            }
        }
    }

    fn listed(&mut self, names: Vec<String>, now: Now, effects: &mut Vec<Effect>) {
        self.notices.retain(|name, _| names.binary_search(name).is_ok());
        let last_notice = self.last_notice;
        for name in names {
            let number = notice_number(&name);
            self.notices.entry(name.clone()).or_insert(now.monotonic);
            if self.phase != Phase::Listing && number > last_notice {
                self.read(Read::Notice(name), effects);
            }
            self.last_notice = self.last_notice.max(number);
        }
        if self.phase == Phase::Listing {
            self.phase = Phase::Starting;
            self.read_all(effects);
        }
    }

    fn noticed(&mut self, name: &str, data: &[u8], effects: &mut Vec<Effect>) {
        let entity = match znodes::decode_config_change(data) {
            Ok(entity) => entity,
            Err(error) => return tracing::warn!(name, %error, "a notice of changed settings is passed over"),
        };
        match entity.split_once('/') {
            // One that nobody here has asked for yet is read then.
            Some(("topics", topic)) if self.followed.topic(topic).is_some() || self.is_read(topic) => {
                self.read(Read::Topic(topic.into()), effects);
            }
            Some(("brokers", node)) if node == znodes::ALL_BROKERS || node == self.broker => {
                self.read(Read::Broker(node.to_owned()), effects);
            }
            // Of another broker, or of what nobody lives by here.
            _ => {}
        }
    }

    fn broker_read(&mut self, node: String, found: Option<Reply>, effects: &mut Vec<Effect>) {
        let map = match found {
            Some(Reply::Data(data, _)) => match znodes::decode_config(&znodes::broker_config_path(&node), &data) {
                Ok(map) => map,
                Err(error) => return tracing::error!(%error, "the broker goes on with the settings that it has"),
            },
            _ => ConfigMap::new(),
        };
        self.stored.insert(node, map);
        self.live_by(self.with_stored(&self.followed.dynamic), effects);
    }

    /// Settings of files and flags with what the tree has over them.
    fn with_stored(&self, fixed: &DynamicConfig) -> DynamicConfig {
        let none = ConfigMap::new();
        let of = |node: &str| self.stored.get(node).unwrap_or(&none);
        fixed.with_stored(of(znodes::ALL_BROKERS), of(&self.broker))
    }

    fn topic_read(&mut self, topic: Arc<str>, result: Result<Option<Reply>, TreeError>, effects: &mut Vec<Effect>) {
        let overrides = match result {
            Ok(Some(Reply::Data(data, _))) => {
                znodes::decode_config(&znodes::topic_config_path(&topic), &data).map_err(|error| error.to_string())
            }
            Ok(_) => Ok(ConfigMap::new()),
            Err(error @ TreeError::BadArguments(_)) => Err(error.to_string()),
            Err(_) => {
                self.unread.insert(topic);
                return;
            }
        };
        let settings = match overrides {
            Ok(overrides) => TopicSettings::Known(resolve(&topic, &overrides, &self.followed.dynamic.topic_defaults)),
            Err(error) if matches!(self.followed.topic(&topic), Some(TopicSettings::Known(_))) => {
                return tracing::error!(topic = &*topic, error, "the topic goes on with the settings that it has");
            }
            Err(error) => {
                tracing::error!(topic = &*topic, error, "the topic is left out: its settings can't be read");
                TopicSettings::Damaged
            }
        };
        self.followed.set(topic.clone(), settings);
        effects.push(Effect::Changed { topics: BTreeSet::from([topic]) });
    }

    /// Broker settings, and with them what topics set nothing of.
    fn live_by(&mut self, dynamic: DynamicConfig, effects: &mut Vec<Effect>) {
        if *self.followed.dynamic == dynamic {
            return;
        }
        let defaults = Arc::clone(&dynamic.topic_defaults);
        self.followed.dynamic = Arc::new(dynamic);
        let resolved = self.followed.topics.iter().filter_map(|(name, settings)| match settings {
            TopicSettings::Known(config) => Some((name.clone(), resolve(name, &config.overrides, &defaults))),
            TopicSettings::Damaged => None,
        });
        let resolved: Vec<_> = resolved.collect();
        let topics = resolved.iter().map(|(name, _)| name.clone()).collect();
        for (name, config) in resolved {
            self.followed.set(name, TopicSettings::Known(config));
        }
        effects.push(Effect::Changed { topics });
    }

    fn time(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.retry_at.is_some_and(|at| at <= now.monotonic) {
            self.start(effects);
        }
        let is_over = |seen: &Monotonic| *seen + NOTICE_LIFE <= now.monotonic;
        let over: Vec<_> =
            self.notices.iter().filter(|(_, seen)| is_over(seen)).map(|(name, _)| name.clone()).collect();
        for name in over {
            self.notices.remove(&name);
            self.read(Read::Purge(name), effects);
        }
    }
}

/// The number that the tree gave a notice; of what is no notice, one that was taken up long ago.
fn notice_number(name: &str) -> i64 {
    name.rsplit_once('_').and_then(|(_, digits)| digits.parse().ok()).unwrap_or(-1)
}

#[cfg(test)]
mod tests;
