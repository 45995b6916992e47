//! One broker's metadata: its machines, the tree they share, and the broker that listens, put together.
//!
//! ```text
//!   tree: replies, events --> Membership, ConfigFollower, Controller --> requests --> tree
//!   shards: Applied, proposals --^                                  \--> Publisher --> shards
//! ```
//! [`MetadataNode`] has no thread and never waits: it takes one input at a time, and [`run`] is its life on whatever
//! executor there is. The machines are pure; this is the one place that performs what they want. An answer that must not
//! leave before every shard shows its outcome waits in a bounded table; while that is full, proposals stay in their queue.
//!
//! The start has two halves, so that what does not fit ends before anything is registered or told to a shard: [`join`] looks
//! at the tree and reads the settings, [`serve`] registers the broker and takes part.

#![forbid(unsafe_code)]

mod life;

pub use life::{SharedNode, join, run, serve};

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};

use thiserror::Error;

use crate::base::time::{Monotonic, Now};
use crate::config::{Config, Endpoint};
use crate::metadata::config_follower::{self, ConfigFollower, Followed, Read};
use crate::metadata::image::ClusterImage;
use crate::metadata::inputs::{BrokerImage, BrokerInputs};
use crate::metadata::membership::{self, Membership, Session};
use crate::metadata::node::{MetadataInput, ShardSink};
use crate::metadata::proposal::{Answer, AnswerFn, Proposal, ProposalError};
use crate::metadata::publisher::Publisher;
use crate::metadata::requests::{Requests, TreeInput};
use crate::metadata::thread::Inbox;
use crate::metadata::tree::{MetadataTree, SessionState, TreeError, TreeEvent};

use super::Controller;
use super::event::{Effect, Event, Settings, Ticket, Token, When};

/// Proposals taken and not yet answered; a further one is refused as busy.
pub const OPEN_PROPOSALS_MAX: usize = 1024;

/// Random numbers: the machine's, or the simulator's.
pub type Random = Box<dyn FnMut() -> u64>;

/// Who this broker is, and what its controller needs to know.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    pub broker: BrokerImage,
    pub controller: Settings,
}

impl NodeSettings {
    /// `advertised` is what clients are told, with the port really bound.
    pub fn new(config: &Config, advertised: Vec<Endpoint>) -> NodeSettings {
        NodeSettings {
            broker: BrokerImage { id: config.broker_id, endpoints: advertised, rack: config.broker_rack.clone() },
            controller: Settings {
                broker_id: config.broker_id,
                num_partitions: config.num_partitions,
                default_replication_factor: config.default_replication_factor,
                delete_topic_enable: config.delete_topic_enable,
                followed: Followed::new(config.dynamic.clone()),
            },
        }
    }
}

/// Why the node can't run.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StartError {
    #[error(transparent)]
    Membership(#[from] membership::Refusal),
    #[error("{0}")]
    Settings(TreeError),
    #[error("{0}")]
    Controller(String),
}

pub struct MetadataNode<T: MetadataTree, S: ShardSink> {
    requests: Requests<T, Key>,
    membership: Membership,
    follower: ConfigFollower,
    controller: Controller,
    broker: BrokerImage,
    random: Random,
    cluster_id: Option<Arc<str>>,
    /// `None` until the broker is registered.
    publisher: Option<Publisher<S>>,
    /// What will take what is published, until then.
    sink: Option<S>,
    refused: Option<StartError>,
    next_ticket: Ticket,
    /// Who waits for which answer.
    asking: BTreeMap<Ticket, AnswerFn>,
    /// What happens when shards show what they were told, in order.
    held: VecDeque<Held>,
}

/// Whose request it is.
enum Key {
    Membership(u64),
    Follower(Read),
    Controller(Token),
}

/// What a machine is to hear.
enum Heard {
    Membership(membership::Event),
    Follower(config_follower::Event),
    Controller(Event),
}

struct Held {
    /// So many inputs are published.
    received: u64,
    /// The follower has done so much.
    round: u64,
    /// Of the image that shows all that; `None` until it is published.
    version: Option<u64>,
    then: Then,
}

enum Then {
    Answer(AnswerFn, Answer),
    Told(Token),
}

/// Something happens to a node.
enum Input {
    Tree(TreeInput<Key>),
    Metadata(MetadataInput),
    Time,
}

impl<T: MetadataTree, S: ShardSink> MetadataNode<T, S> {
    pub fn new(tree: T, settings: NodeSettings, random: Random) -> MetadataNode<T, S> {
        let NodeSettings { broker, controller } = settings;
        MetadataNode {
            requests: Requests::new(tree),
            membership: Membership::default(),
            follower: ConfigFollower::new(broker.id, Arc::clone(&controller.followed.dynamic)),
            controller: Controller::new(controller),
            broker,
            random,
            cluster_id: None,
            publisher: None,
            sink: None,
            refused: None,
            next_ticket: 0,
            asking: BTreeMap::new(),
            held: VecDeque::new(),
        }
    }

    /// The newest image published; `None` before the broker is registered.
    pub fn image(&self) -> Option<&Arc<ClusterImage>> {
        Some(self.publisher.as_ref()?.image())
    }

    /// Whether every shard has applied all that was received.
    pub fn is_shown(&self) -> bool {
        let is_shown = |publisher: &Publisher<S>| {
            publisher.published() == publisher.received() && publisher.applied_by_all() == publisher.image().version
        };
        self.publisher.as_ref().is_some_and(is_shown)
    }

    /// Whether a proposal would be taken up now.
    pub fn has_room(&self) -> bool {
        self.asking.len() + self.held.len() < OPEN_PROPOSALS_MAX
            && self.publisher.as_ref().is_some_and(Publisher::has_room)
    }

    /// The tree, for the node that comes after this one.
    pub fn into_tree(self) -> T {
        self.requests.into_tree()
    }

    fn session(&self) -> Session {
        let tree = self.requests.tree();
        Session { id: tree.session(), generation: tree.generation() }
    }

    /// What has come; proposals only while there is room for them.
    fn poll_input(&mut self, cx: &mut Context<'_>, inbox: Option<&mut Inbox>, now: Now) -> Poll<Option<Input>> {
        if let Poll::Ready(input) = self.requests.poll_next(cx, now.monotonic) {
            return Poll::Ready(Some(Input::Tree(input)));
        }
        let room = self.has_room();
        match inbox {
            Some(inbox) => inbox.poll_next(cx, room).map(|input| input.map(Input::Metadata)),
            None => Poll::Pending,
        }
    }

    fn next_deadline(&self) -> Option<Monotonic> {
        let deadlines = [
            self.requests.next_deadline(),
            self.membership.next_deadline(),
            self.follower.next_deadline(),
            self.controller.next_deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Takes one input; what it leads to is given to the tree and to the shards.
    fn take(&mut self, input: Input, now: Now) {
        match input {
            Input::Tree(TreeInput::Done { key, result }) => {
                let heard = match key {
                    Key::Membership(number) => Heard::Membership(membership::Event::Done { number, result }),
                    Key::Follower(read) => Heard::Follower(config_follower::Event::Done { read, result }),
                    Key::Controller(token) => Heard::Controller(Event::Done { token, result }),
                };
                self.hear([heard], now);
            }
            Input::Tree(TreeInput::Event(TreeEvent::Session(SessionState::Expired))) => {
                tracing::warn!("the session of the metadata tree has expired: the broker registers anew and serves on");
                let again = self.cluster_id.is_some().then_some(Heard::Follower(config_follower::Event::Start));
                let expired = [Heard::Controller(Event::Expired), Heard::Membership(membership::Event::Expired)];
                self.hear(expired.into_iter().chain(again), now);
            }
            Input::Tree(TreeInput::Event(event)) => {
                let follower = Heard::Follower(config_follower::Event::Watched(event.clone()));
                self.hear([follower, Heard::Controller(Event::Watched(event))], now);
            }
            Input::Metadata(MetadataInput::Proposal { proposal, answer }) => self.propose(proposal, answer, now),
            Input::Metadata(MetadataInput::Applied { shard, image_version }) => {
                if let Some(publisher) = &mut self.publisher {
                    publisher.applied(shard, image_version);
                }
            }
            Input::Metadata(MetadataInput::Offline { partitions }) => {
                self.hear([Heard::Controller(Event::Offline { broker: self.broker.id, partitions })], now);
            }
            Input::Time => {
                self.requests.fire(now.monotonic);
                let machines = [
                    Heard::Membership(membership::Event::Time),
                    Heard::Follower(config_follower::Event::Time),
                    Heard::Controller(Event::Time),
                ];
                self.hear(machines, now);
            }
        }
        self.release(now);
    }

    fn propose(&mut self, proposal: Proposal, answer: AnswerFn, now: Now) {
        if !self.has_room() {
            return answer(Answer::Failed(ProposalError::Busy));
        }
        match proposal {
            Proposal::FollowSettings { named } => match self.follower.follow_files(named) {
                Ok(effects) => {
                    self.follow(effects, now);
                    self.hold(0, Then::Answer(answer, Answer::FollowSettings(Ok(()))));
                }
                Err(reason) => answer(Answer::FollowSettings(Err(reason))),
            },
            proposal => {
                self.next_ticket += 1;
                self.asking.insert(self.next_ticket, answer);
                self.hear([Heard::Controller(Event::Proposed { ticket: self.next_ticket, proposal })], now);
            }
        }
    }

    /// Gives the machines what they are to hear, and performs what they want, until they want nothing more.
    fn hear(&mut self, heard: impl IntoIterator<Item = Heard>, now: Now) {
        let mut queue: VecDeque<Heard> = heard.into_iter().collect();
        while let Some(heard) = queue.pop_front() {
            match heard {
                Heard::Membership(event) => {
                    for effect in self.membership.handle(event, self.session(), now) {
                        self.perform_membership(effect, &mut queue);
                    }
                }
                Heard::Follower(event) => {
                    for effect in self.follower.handle(event, now) {
                        self.perform_follower(effect, &mut queue);
                    }
                }
                Heard::Controller(event) => {
                    for effect in self.controller.handle(event, now, &mut self.random) {
                        self.perform_controller(effect, &mut queue, now);
                    }
                }
            }
        }
    }

    fn follow(&mut self, effects: Vec<config_follower::Effect>, now: Now) {
        let mut queue = VecDeque::new();
        effects.into_iter().for_each(|effect| self.perform_follower(effect, &mut queue));
        self.hear(queue, now);
    }

    fn perform_membership(&mut self, effect: membership::Effect, queue: &mut VecDeque<Heard>) {
        match effect {
            membership::Effect::Ask { number, generation, request } => {
                self.requests.ask(Key::Membership(number), generation, request);
            }
            membership::Effect::Joined { cluster_id } => {
                self.cluster_id = Some(cluster_id);
                queue.push_back(Heard::Follower(config_follower::Event::Start));
            }
            membership::Effect::Registered { broker_epoch, generation } => {
                match (&mut self.publisher, self.sink.take(), &self.cluster_id) {
                    (Some(publisher), ..) => publisher.set_broker_epoch(broker_epoch),
                    (none, Some(sink), Some(cluster_id)) => {
                        let followed = self.follower.followed().clone();
                        let cluster_id = Arc::clone(cluster_id);
                        *none = Some(Publisher::new(self.broker.id, broker_epoch, cluster_id, followed, sink));
                    }
                    _ => unreachable!("a broker registers when it has joined and has shards to tell"),
                }
                queue.push_back(Heard::Controller(Event::Start { generation }));
            }
            membership::Effect::Refused(refusal) => self.refused = Some(StartError::Membership(refusal)),
        }
    }

    fn perform_follower(&mut self, effect: config_follower::Effect, queue: &mut VecDeque<Heard>) {
        match effect {
            config_follower::Effect::Ask { read, request } => self.requests.ask(Key::Follower(read), None, request),
            config_follower::Effect::Changed { topics } => {
                let followed = self.follower.followed().clone();
                queue.push_back(Heard::Controller(Event::Followed(followed.clone())));
                if let Some(publisher) = &mut self.publisher {
                    publisher.follow(followed, &topics);
                }
                self.tell_follower(queue);
            }
            config_follower::Effect::Failed(error) => {
                tracing::error!(%error, "settings can't be read from the metadata tree any more");
                self.refused.get_or_insert(StartError::Settings(error));
            }
        }
    }

    fn perform_controller(&mut self, effect: Effect, queue: &mut VecDeque<Heard>, now: Now) {
        match effect {
            Effect::Ask { token, generation, request } => {
                self.requests.ask(Key::Controller(token), generation, request);
            }
            Effect::Tell { broker, inputs, done } if broker == self.broker.id => self.told(*inputs, done, queue, now),
            Effect::Tell { broker, .. } => tracing::debug!(broker = broker.0, "there is no way to tell another broker"),
            Effect::Answer { ticket, answer, when } => {
                let ask = self.asking.remove(&ticket).expect("each proposal is answered once");
                match when {
                    When::Now => ask(answer),
                    When::Shown => self.hold(0, Then::Answer(ask, answer)),
                    When::Followed => self.hold(self.follower.round(), Then::Answer(ask, answer)),
                }
            }
        }
    }

    /// This broker's controller has something to say to it.
    fn told(&mut self, inputs: BrokerInputs, done: Option<Token>, queue: &mut VecDeque<Heard>, now: Now) {
        let unshown = self.publisher.as_ref().map(|publisher| publisher.unshown(&inputs)).unwrap_or_default();
        if !unshown.is_empty() {
            for effect in self.follower.handle(config_follower::Event::Renew(unshown), now) {
                self.perform_follower(effect, queue);
            }
        }
        let Some(publisher) = &mut self.publisher else { return };
        match publisher.receive(inputs) {
            Ok(()) => {
                if let Some(token) = done {
                    self.hold(0, Then::Told(token));
                }
            }
            Err(stale) => tracing::warn!(%stale, "what a controller said is refused"),
        }
        self.tell_follower(queue);
    }

    /// Whose settings the publisher waits for, and whose it needs no more.
    fn tell_follower(&mut self, queue: &mut VecDeque<Heard>) {
        let Some(publisher) = &mut self.publisher else { return };
        let (gone, needed) = (publisher.take_gone(), publisher.take_needed());
        if !gone.is_empty() {
            queue.push_back(Heard::Follower(config_follower::Event::Forget(gone)));
        }
        queue.extend(needed.into_iter().map(|topic| Heard::Follower(config_follower::Event::Need(topic))));
    }

    fn hold(&mut self, round: u64, then: Then) {
        let received = self.publisher.as_ref().map_or(0, Publisher::received);
        self.held.push_back(Held { received, round, version: None, then });
    }

    /// Lets go what waited for images that every shard has applied by now.
    fn release(&mut self, now: Now) {
        while let (Some(held), Some(publisher)) = (self.held.front_mut(), &self.publisher) {
            if held.version.is_none() && publisher.published() >= held.received && self.follower.has_done(held.round) {
                held.version = Some(publisher.image().version);
            }
            if held.version.is_none_or(|version| version > publisher.applied_by_all()) {
                return;
            }
            match self.held.pop_front().map(|held| held.then) {
                Some(Then::Answer(ask, answer)) => ask(answer),
                Some(Then::Told(token)) => self.hear([Heard::Controller(Event::Told { token })], now),
                None => unreachable!("just looked"),
            }
        }
    }
}

#[cfg(test)]
mod tests;
