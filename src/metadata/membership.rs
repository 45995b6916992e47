//! This broker in the cluster: that it belongs there, and its own ephemeral node.
//!
//! ```text
//!        Join                             Register           registered
//!  Idle -----> Joining (mode, id, paths) ---> Joined -----> Registering ---------> Registered(broker epoch)
//!                 | does not fit                               |   ^ session expired     |
//!                 v                                            v   +---------------------+
//!              Refused                                    id in use: at the start Refused, later tried again
//! ```
//! Nothing is written before the tree's mode and the cluster's id have been looked at, and no broker node before
//! [`Event::Register`]. The broker epoch is the czxid of the broker's node: larger for every later registration (Kafka 3.9
//! `KafkaZkClient.registerBroker`, contract: `zookeeper.md` section 2). A pure state machine: one request is under way.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use thiserror::Error;

use super::inputs::BrokerImage;
use super::tree::{
    CreateMode, Generation, Operation, Outcome, Reply, Request, RequestError, Stat, TreeError, Version, Watch, found,
};
use super::znodes::{self, BadValue};
use crate::base::ids::BrokerId;
use crate::base::time::{Monotonic, Now};

/// How long a broker waits before it tries again to register after its session was lost.
const REGISTRATION_BACKOFF: Duration = Duration::from_secs(1);

/// Why this broker can't be a member of the tree's cluster; each says what to do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error("{0}")]
    Tree(TreeError),
    #[error(transparent)]
    Value(#[from] BadValue),
    #[error(
        "the tree is of cluster {found}, and meta.properties says cluster.id={expected}; the log directories belong to \
         another cluster: start with those of this one, or on the tree that they belong to"
    )]
    OtherCluster { found: String, expected: String },
    #[error(
        "the tree is of no cluster yet, and meta.properties says cluster.id={0}; start on the tree that the log \
         directories belong to"
    )]
    NewTree(String),
    #[error(
        "the tree's controller is a KRaft one; a cluster that was moved to KRaft, or is being moved, can't be served: take \
         the migration back, or choose another zookeeper.connect"
    )]
    KRaft,
    #[error(
        "the tree was being moved to KRaft (/migration is there); take the migration back (Kafka's documentation says how, \
         it ends with the removal of /migration and /controller), and start again"
    )]
    Migration,
    #[error("another live broker is registered as broker.id {}", .0.0)]
    IdInUse(BrokerId),
}

impl Refusal {
    /// Which cluster the tree is of, where that is why.
    pub fn cluster_of_tree(&self) -> Option<&str> {
        match self {
            Refusal::OtherCluster { found, .. } => Some(found),
            _ => None,
        }
    }
}

#[derive(Debug)]
pub enum Event {
    /// Look whether this broker belongs to the tree's cluster. `cluster_id`: what meta.properties says. `random` makes the
    /// id of a new cluster.
    Join { cluster_id: Option<String>, random: [u64; 2] },
    /// Make the broker's node.
    Register { broker: BrokerImage },
    /// The result of [`Effect::Ask`], with its number.
    Done { number: u64, result: Result<Reply, RequestError> },
    /// The session is over, and with it the broker's node.
    Expired,
    /// A time of [`Membership::next_deadline`] may have come.
    Time,
}

#[derive(Debug)]
pub enum Effect {
    Ask {
        number: u64,
        generation: Option<Generation>,
        request: Request,
    },
    /// The broker belongs to this cluster.
    Joined {
        cluster_id: Arc<str>,
    },
    /// The broker's node is there, and belongs to this session.
    Registered {
        broker_epoch: i64,
        generation: Generation,
    },
    Refused(Refusal),
}

/// The session that the tree is in when an event comes.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    pub id: i64,
    pub generation: Generation,
}

#[derive(Default)]
pub struct Membership {
    state: State,
    /// Of the last request; results of older ones say nothing any more.
    number: u64,
    /// What to register, once it was asked for.
    broker: Option<BrokerImage>,
    /// Sessions of this process that are over: a node that one of them owns is this broker's own.
    past_sessions: BTreeSet<i64>,
    session: Option<i64>,
    has_registered: bool,
}

#[derive(Default)]
enum State {
    #[default]
    Idle,
    Joining(Joining, Join),
    Joined,
    Registering(Register),
    BackingOff {
        until: Monotonic,
    },
    Registered,
    Refused,
}

/// What a broker that joins brings and finds.
struct Joining {
    /// What meta.properties says.
    expected: Option<String>,
    random: [u64; 2],
    /// What the tree says.
    found: Option<String>,
}

/// What is being looked at.
enum Join {
    Controller,
    Migration,
    ClusterId,
    /// Which of the paths are missing, by their place in [`znodes::PERSISTENT_PATHS`].
    Paths {
        next: usize,
        missing: Vec<usize>,
    },
    MakePaths,
    MakeClusterId,
}

enum Register {
    /// Make the node, in place of one of an earlier session if there was one.
    Make,
    /// There is one: whose?
    Look,
}

impl Membership {
    /// When [`Event::Time`] is to come.
    pub fn next_deadline(&self) -> Option<Monotonic> {
        match self.state {
            State::BackingOff { until } => Some(until),
            _ => None,
        }
    }

    pub fn handle(&mut self, event: Event, session: Session, now: Now) -> Vec<Effect> {
        if let Some(before) = self.session.replace(session.id).filter(|before| *before != session.id) {
            self.past_sessions.insert(before);
        }
        let mut effects = Vec::new();
        match event {
            Event::Join { cluster_id: expected, random } => {
                #[cfg(test)]
                let expected = expected.filter(|_| !planted::JOIN_ANY_CLUSTER.get());
                self.state = State::Joining(Joining { expected, random, found: None }, Join::Controller);
                self.ask(None, Request::get(znodes::CONTROLLER), &mut effects);
            }
            Event::Register { broker } => {
                self.broker = Some(broker);
                self.register(None, session, now, &mut effects);
            }
            Event::Expired | Event::Time => {
                let is_due = match &self.state {
                    State::Registered | State::Registering(_) => matches!(event, Event::Expired),
                    State::BackingOff { until } => *until <= now.monotonic || matches!(event, Event::Expired),
                    State::Idle | State::Joining(..) | State::Joined | State::Refused => false,
                };
                if is_due {
                    self.register(None, session, now, &mut effects);
                }
            }
            Event::Done { number, result } if number == self.number => {
                self.done(result, session, now, &mut effects);
            }
            Event::Done { .. } => {}
        }
        effects
    }

    fn done(&mut self, result: Result<Reply, RequestError>, session: Session, now: Now, effects: &mut Vec<Effect>) {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Joining(joining, step) => {
                if let Err(refusal) = self.join(joining, step, result, effects) {
                    self.refuse(refusal, effects);
                }
            }
            State::Registering(step) => self.registered(step, result, session, now, effects),
            other => self.state = other,
        }
    }

    fn join(
        &mut self,
        mut joining: Joining,
        step: Join,
        result: Result<Reply, RequestError>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let (step, request) = match step {
            Join::Controller => match found(result).map_err(Refusal::Tree)? {
                Some((data, _)) if znodes::is_kraft_controller(&data)? => return Err(Refusal::KRaft),
                _ => (Join::Migration, Request::get(znodes::MIGRATION)),
            },
            Join::Migration => match found(result).map_err(Refusal::Tree)? {
                Some(_) => return Err(Refusal::Migration),
                None => (Join::ClusterId, Request::get(znodes::CLUSTER_ID)),
            },
            Join::ClusterId => {
                if let Some((data, _)) = found(result).map_err(Refusal::Tree)? {
                    joining.found = Some(znodes::decode_cluster_id(&data)?);
                }
                joining.check()?;
                look_for_path(0, Vec::new())
            }
            Join::Paths { next, mut missing } => {
                let Reply::Exists(stat) = result.map_err(|failed| Refusal::Tree(failed.error))? else {
                    unreachable!("the reply to an exists")
                };
                if stat.is_none() {
                    missing.push(next);
                }
                match next + 1 < znodes::PERSISTENT_PATHS.len() {
                    true => look_for_path(next + 1, missing),
                    false if missing.is_empty() => {
                        self.make_cluster_id(joining, effects);
                        return Ok(());
                    }
                    false => (Join::MakePaths, make_paths(&missing)),
                }
            }
            Join::MakePaths => match result {
                Ok(_) => {
                    self.make_cluster_id(joining, effects);
                    return Ok(());
                }
                // Another broker starts too; each round finds fewer missing.
                Err(RequestError { error: TreeError::NodeExists(_), .. }) => look_for_path(0, Vec::new()),
                Err(failed) => return Err(Refusal::Tree(failed.error)),
            },
            Join::MakeClusterId => match result {
                Ok(_) => {
                    self.joined(new_cluster_id(joining.random), effects);
                    return Ok(());
                }
                // Another broker was faster.
                Err(RequestError { error: TreeError::NodeExists(_), .. }) => {
                    (Join::ClusterId, Request::get(znodes::CLUSTER_ID))
                }
                Err(failed) => return Err(Refusal::Tree(failed.error)),
            },
        };
        self.state = State::Joining(joining, step);
        self.ask(None, request, effects);
        Ok(())
    }

    fn make_cluster_id(&mut self, joining: Joining, effects: &mut Vec<Effect>) {
        match &joining.found {
            Some(id) => self.joined(id.clone(), effects),
            None => {
                let data = znodes::encode_cluster_id(&new_cluster_id(joining.random));
                let path = znodes::CLUSTER_ID.to_owned();
                self.state = State::Joining(joining, Join::MakeClusterId);
                self.ask(None, Request::Create { path, data, mode: CreateMode::Persistent }, effects);
            }
        }
    }

    fn joined(&mut self, cluster_id: String, effects: &mut Vec<Effect>) {
        self.state = State::Joined;
        effects.push(Effect::Joined { cluster_id: cluster_id.into() });
    }

    /// Made empty and then set, in one multi: Kafka does so, and its brokers' nodes have data version 1. `before`: the data
    /// version of a node of an earlier session, which goes first.
    fn register(&mut self, before: Option<i32>, session: Session, now: Now, effects: &mut Vec<Effect>) {
        let Some(broker) = &self.broker else { return };
        let path = znodes::broker_path(broker.id);
        let data = znodes::encode_broker(broker, now.wall);
        let old = before.map(|version| Operation::Delete { path: path.clone(), version: Version::Exactly(version) });
        let new = [
            Operation::Create { path: path.clone(), data: Vec::new(), mode: CreateMode::Ephemeral },
            Operation::Set { path, data, version: Version::Exactly(0) },
        ];
        self.state = State::Registering(Register::Make);
        self.ask(Some(session.generation), Request::Multi(old.into_iter().chain(new).collect()), effects);
    }

    fn registered(
        &mut self,
        step: Register,
        result: Result<Reply, RequestError>,
        session: Session,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let id = self.broker.as_ref().expect("it was asked for").id;
        let failure = match (step, result) {
            (Register::Make, Ok(Reply::Multi(outcomes))) => {
                let made = outcomes.iter().find_map(|outcome| match outcome {
                    Outcome::Created(_, stat) => Some(*stat),
                    _ => None,
                });
                return self.is_registered(made.expect("one operation creates"), session, effects);
            }
            (Register::Make, Err(RequestError { error: TreeError::NodeExists(_), .. })) => {
                self.state = State::Registering(Register::Look);
                return self.ask(Some(session.generation), Request::get(znodes::broker_path(id)), effects);
            }
            (Register::Look, Ok(Reply::Data(_, stat))) => {
                if stat.ephemeral_owner == session.id {
                    return self.is_registered(stat, session, effects);
                }
                if self.past_sessions.contains(&stat.ephemeral_owner) {
                    return self.register(Some(stat.version), session, now, effects);
                }
                Refusal::IdInUse(id)
            }
            (_, Ok(_)) => unreachable!("the reply to another request"),
            (_, Err(failed)) => Refusal::Tree(failed.error),
        };
        match (self.has_registered, &failure) {
            (false, Refusal::Tree(TreeError::SessionExpired | TreeError::NoNode(_) | TreeError::BadVersion(_)))
            | (true, _) => {
                tracing::warn!(%failure, "this broker is not registered; it tries again");
                self.state = State::BackingOff { until: now.monotonic + REGISTRATION_BACKOFF };
            }
            (false, _) => self.refuse(failure, effects),
        }
    }

    fn is_registered(&mut self, stat: Stat, session: Session, effects: &mut Vec<Effect>) {
        self.state = State::Registered;
        self.has_registered = true;
        effects.push(Effect::Registered { broker_epoch: stat.czxid, generation: session.generation });
    }

    fn refuse(&mut self, refusal: Refusal, effects: &mut Vec<Effect>) {
        self.state = State::Refused;
        effects.push(Effect::Refused(refusal));
    }

    fn ask(&mut self, generation: Option<Generation>, request: Request, effects: &mut Vec<Effect>) {
        self.number += 1;
        effects.push(Effect::Ask { number: self.number, generation, request });
    }
}

impl Joining {
    /// Whether the log directories and the tree are of one cluster.
    fn check(&self) -> Result<(), Refusal> {
        match (&self.found, &self.expected) {
            (Some(found), Some(expected)) if found != expected => {
                Err(Refusal::OtherCluster { found: found.clone(), expected: expected.clone() })
            }
            (None, Some(expected)) => Err(Refusal::NewTree(expected.clone())),
            (Some(_), _) | (None, None) => Ok(()),
        }
    }
}

fn look_for_path(next: usize, missing: Vec<usize>) -> (Join, Request) {
    let path = znodes::PERSISTENT_PATHS[next].to_owned();
    (Join::Paths { next, missing }, Request::Exists { path, watch: Watch::None })
}

/// Parents come first in [`znodes::PERSISTENT_PATHS`].
fn make_paths(missing: &[usize]) -> Request {
    let create = |index: &usize| Operation::Create {
        path: znodes::PERSISTENT_PATHS[*index].to_owned(),
        data: Vec::new(),
        mode: CreateMode::Persistent,
    };
    Request::Multi(missing.iter().map(create).collect())
}

fn new_cluster_id(random: [u64; 2]) -> String {
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random.map(u64::to_be_bytes).concat())
}

/// The planted bug that the simulator must catch: a broker takes part in whatever cluster the tree is of.
#[cfg(test)]
pub(crate) mod planted {
    use std::cell::Cell;

    thread_local! {
        pub(crate) static JOIN_ANY_CLUSTER: Cell<bool> = const { Cell::new(false) };
    }
}

#[cfg(test)]
mod tests;
