//! One node's metadata: the tree, the controller, and the broker that listens to it, put together.
//!
//! [`MetadataNode`] has no thread: it takes inputs one at a time, so the simulator runs it inline; [`run`] is its life on
//! the metadata thread. An answer that must not leave before every shard shows its outcome waits in a bounded table; while
//! that is full, proposals stay in their queue.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;

use thiserror::Error;

use crate::base::ids::BrokerId;
use crate::base::time::WallMs;
use crate::config::{Config, Endpoint};
use crate::metadata::ask::Ask;
use crate::metadata::image::ClusterImage;
use crate::metadata::inputs::BrokerImage;
use crate::metadata::node::{MetadataInput, ShardSink};
use crate::metadata::proposal::{Answer, AnswerFn, ProposalError};
use crate::metadata::publisher::Publisher;
use crate::metadata::registration::{RegistrationError, register};
use crate::metadata::thread::Inbox;
use crate::metadata::tree::{MetadataTree, TreeError, Watch};

use super::load::load;
use super::{Controller, Effect, Event, Settings, Standing, Ticket, Token, When};

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
                dynamic: config.dynamic.clone(),
            },
        }
    }
}

/// Why the node can't run.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StartError {
    #[error(transparent)]
    Registration(#[from] RegistrationError),
    #[error("another broker is controller of this tree")]
    NotElected,
    #[error("{0}")]
    Controller(String),
}

pub struct MetadataNode<T: MetadataTree, S: ShardSink> {
    tree: T,
    controller: Controller,
    publisher: Publisher<S>,
    broker_id: BrokerId,
    random: Random,
    next_ticket: Ticket,
    /// Who waits for which answer.
    asking: BTreeMap<Ticket, AnswerFn>,
    /// What happens when an image version is applied everywhere; versions ascend.
    held: VecDeque<(u64, Held)>,
}

enum Held {
    Answer(AnswerFn, Answer),
    Told(Token),
}

impl<T: MetadataTree, S: ShardSink> MetadataNode<T, S> {
    /// Registers the broker, becomes controller, takes the cluster over and publishes the first image. Shards may not
    /// have applied it yet, see [`MetadataNode::is_shown`].
    pub async fn start(
        tree: T,
        sink: S,
        settings: NodeSettings,
        wall: WallMs,
        mut random: Random,
    ) -> Result<MetadataNode<T, S>, StartError> {
        let registration = register(&tree, &settings.broker, wall, &mut random).await?;
        let broker_id = settings.broker.id;
        let dynamic = settings.controller.dynamic.clone();
        let publisher = Publisher::new(broker_id, registration.broker_epoch, registration.cluster_id, dynamic, sink);
        let mut node = MetadataNode {
            tree,
            controller: Controller::new(settings.controller),
            publisher,
            broker_id,
            random,
            next_ticket: 0,
            asking: BTreeMap::new(),
            held: VecDeque::new(),
        };
        node.step(Event::Start { wall }).await;
        match node.controller.standing() {
            Standing::Active => Ok(node),
            Standing::Failed(reason) => Err(StartError::Controller(reason)),
            Standing::Standby | Standing::Undecided => Err(StartError::NotElected),
        }
    }

    /// The newest image published.
    pub fn image(&self) -> &Arc<ClusterImage> {
        self.publisher.image()
    }

    /// Whether every shard has applied all that was published.
    pub fn is_shown(&self) -> bool {
        self.publisher.applied_by_all() == self.image().version
    }

    /// Whether a proposal would be taken up now.
    pub fn has_room(&self) -> bool {
        self.asking.len() + self.held.len() < OPEN_PROPOSALS_MAX && self.publisher.has_room()
    }

    /// Takes one input; what it led to has been written and sent when this is done.
    pub async fn handle(&mut self, input: MetadataInput) {
        match input {
            MetadataInput::Proposal { answer, .. } if !self.has_room() => answer(Answer::Failed(ProposalError::Busy)),
            MetadataInput::Proposal { proposal, answer } => {
                self.next_ticket += 1;
                let ticket = self.next_ticket;
                self.asking.insert(ticket, answer);
                self.step(Event::Proposed { ticket, proposal }).await;
            }
            MetadataInput::Applied { shard, image_version } => {
                self.publisher.applied(shard, image_version);
                self.release().await;
            }
        }
    }

    /// The tree, for the node that comes after this one.
    pub fn into_tree(self) -> T {
        self.tree
    }

    /// Gives the controller an event, does what it wants, and gives it the results, until it wants nothing more.
    async fn step(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for effect in self.controller.handle(event, &mut self.random) {
                events.extend(self.perform(effect).await);
            }
        }
    }

    async fn perform(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Read { token, path } => {
                let result = match self.tree.get(&path, Watch::None).await {
                    Ok(found) => Ok(Some(found)),
                    Err(TreeError::NoNode(_)) => Ok(None),
                    Err(error) => Err(error),
                };
                Some(Event::Read { token, result })
            }
            Effect::Write { token, operations } => {
                Some(Event::Written { token, result: self.tree.multi(operations).await })
            }
            Effect::Load => {
                let loaded = load(&self.tree).await;
                Some(Event::Loaded(loaded.map(Box::new).map_err(|error| error.to_string())))
            }
            Effect::Tell { broker, inputs, done } => {
                assert_eq!(broker, self.broker_id, "this broker is the only live one of an embedded tree");
                let version = self.publisher.receive(&inputs).expect("this process's controller is the newest");
                if let Some(token) = done {
                    self.held.push_back((version, Held::Told(token)));
                }
                None
            }
            Effect::Answer { ticket, answer, when } => {
                let ask = self.asking.remove(&ticket).expect("each proposal is answered once");
                match when {
                    When::Now => ask(answer),
                    When::Shown if self.is_shown() => ask(answer),
                    When::Shown => self.held.push_back((self.image().version, Held::Answer(ask, answer))),
                }
                None
            }
        }
    }

    /// Lets go what waited for images that every shard has applied by now.
    async fn release(&mut self) {
        while let Some((version, _)) = self.held.front()
            && *version <= self.publisher.applied_by_all()
        {
            match self.held.pop_front() {
                Some((_, Held::Answer(ask, answer))) => ask(answer),
                Some((_, Held::Told(token))) => self.step(Event::Told { token }).await,
                None => unreachable!("just looked"),
            }
        }
    }
}

/// Takes inputs until the process stops. `ready` hears when every shard shows the first image.
pub async fn run<T: MetadataTree, S: ShardSink>(mut node: MetadataNode<T, S>, mut inbox: Inbox, ready: impl FnOnce()) {
    let mut ready = Some(ready);
    loop {
        if node.is_shown()
            && let Some(ready) = ready.take()
        {
            ready();
        }
        let room = node.has_room();
        match poll_fn(|cx| inbox.poll_next(cx, room)).await {
            Some(input) => node.handle(input).await,
            None => return,
        }
    }
}

#[cfg(test)]
mod tests;
