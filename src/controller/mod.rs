//! The controller: who leads which partition, which topics exist.
//!
//! [`Controller`] is a pure state machine: an event goes in, effects come out, the tree and the brokers are touched by
//! whoever runs it ([`node`] on one broker, the simulator in tests). It may have several writes under way.
//!
//! ```text
//!             Start            claimed            loaded           all written
//!   Idle ------------> Electing -----> Electing -----> TakingOver ------------> Active
//!                          | lost                                                 | another controller's epoch
//!                          v                                                      v
//!                       Standby <-------------------------------------------------+
//!   any ---- the tree failed ----> Failed
//! ```
//!
//! Invariants: every write made as controller is a multi whose first operation checks the version that `/controller_epoch`
//! got when this controller was elected, so a controller that lost its place changes nothing. What is in [`Cluster`] has
//! been written. A leader epoch only grows.
//!
//! The rules are those of Kafka 3.9's `KafkaController`, for a cluster whose tree nobody else writes: this process's own
//! broker is the only one that comes and goes. Watches on brokers and topics, ISR changes and reassignment come with
//! ZooKeeper.

#![forbid(unsafe_code)]

mod cluster;
mod configs;
mod create;
mod delete;
mod election;
mod expand;
pub mod import;
pub mod load;
pub mod node;
pub mod partition;
mod producer_ids;
pub mod replicas;
pub mod topic_name;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::base::ids::BrokerId;
use crate::base::time::WallMs;
use crate::config::DynamicConfig;
use crate::metadata::inputs::BrokerInputs;
use crate::metadata::proposal::{
    Answer, ConfigRefusal, CreateTopicResult, DeleteTopicResult, ProducerIdBlock, Proposal, ProposalError, TopicRefusal,
};
use crate::metadata::tree::{Operation, Outcome, RequestError, Stat, TreeError};

use cluster::Cluster;
use configs::ConfigDraft;
use create::Draft;
use election::TakeOver;
use expand::Expansion;
use load::Snapshot;

/// Operations that one transaction may hold, as long as no single topic needs more: keeps what is undecided small.
const OPERATIONS_PER_WRITE: usize = 4096;

/// Names one read, write or order to a broker until its result comes back.
pub type Token = u64;

/// Names a proposal until it is answered; given by whoever runs the controller.
pub type Ticket = u64;

/// What of the broker's settings the controller needs.
#[derive(Clone, Debug)]
pub struct Settings {
    pub broker_id: BrokerId,
    pub num_partitions: i32,
    pub default_replication_factor: i16,
    pub delete_topic_enable: bool,
    /// What flags and files set; while the controller is active, with what the tree has over it.
    pub dynamic: Arc<DynamicConfig>,
}

/// What the controller hears.
#[derive(Debug)]
pub enum Event {
    /// This broker is registered; try to become controller.
    Start {
        wall: WallMs,
    },
    /// The result of [`Effect::Read`]; `None`: no such node.
    Read {
        token: Token,
        result: Result<Option<(Vec<u8>, Stat)>, TreeError>,
    },
    /// The result of [`Effect::Write`].
    Written {
        token: Token,
        result: Result<Vec<Outcome>, RequestError>,
    },
    /// The result of [`Effect::Load`].
    Loaded(Result<Box<Snapshot>, String>),
    /// A broker has done what [`Effect::Tell`] told it.
    Told {
        token: Token,
    },
    Proposed {
        ticket: Ticket,
        proposal: Proposal,
    },
}

/// What the controller wants done, in order.
#[derive(Debug)]
pub enum Effect {
    Read {
        token: Token,
        path: String,
    },
    /// One multi.
    Write {
        token: Token,
        operations: Vec<Operation>,
    },
    /// Read brokers, topics, states, configs and pending deletions.
    Load,
    Tell {
        broker: BrokerId,
        inputs: Box<BrokerInputs>,
        done: Option<Token>,
    },
    Answer {
        ticket: Ticket,
        answer: Answer,
        when: When,
    },
}

/// When an answer may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Now,
    /// When all that this broker was told so far is done.
    Shown,
}

/// Where the controller stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    Undecided,
    Active,
    Standby,
    Failed(String),
}

pub struct Controller {
    settings: Settings,
    role: Role,
    next_token: Token,
    /// What each result is needed for.
    waiting: BTreeMap<Token, Waiting>,
    /// Proposals whose parts are not all decided.
    open: BTreeMap<Ticket, Open>,
    /// A proposal that starts from what is there runs, and others of its kind wait for its end: each must see what the
    /// one before it wrote. As few as are ever open.
    serial_running: bool,
    serial: VecDeque<(Ticket, Proposal)>,
}

enum Role {
    Idle,
    Electing { wall: WallMs },
    TakingOver(Box<Cluster>, TakeOver),
    Active(Box<Cluster>),
    Standby,
    Failed(String),
}

enum Waiting {
    EpochRead,
    EpochMade,
    Claim { epoch: i32 },
    TakeOver { changes: Vec<election::Change> },
    Create { ticket: Ticket, drafts: Vec<Draft> },
    Expand { ticket: Ticket, expansions: Vec<Expansion> },
    Configs { ticket: Ticket, drafts: Vec<ConfigDraft> },
    Mark { topics: Vec<Arc<str>> },
    Stop { group: u64 },
    Remove { topics: Vec<Arc<str>> },
    ProducerIdsRead { ticket: Ticket },
    ProducerIdsWritten { ticket: Ticket, block: ProducerIdBlock },
}

/// A proposal of several topics, until the last is decided.
enum Open {
    Create { results: Vec<CreateTopicResult>, undecided: usize },
    Delete { results: Vec<DeleteTopicResult>, undecided: usize },
    Expand { results: Vec<Result<(), TopicRefusal>> },
    Configs { results: Vec<Result<(), ConfigRefusal>>, undecided: usize },
}

impl Controller {
    pub fn new(settings: Settings) -> Controller {
        Controller {
            settings,
            role: Role::Idle,
            next_token: 0,
            waiting: BTreeMap::new(),
            open: BTreeMap::new(),
            serial_running: false,
            serial: VecDeque::new(),
        }
    }

    pub fn standing(&self) -> Standing {
        match &self.role {
            Role::Idle | Role::Electing { .. } | Role::TakingOver(..) => Standing::Undecided,
            Role::Active(_) => Standing::Active,
            Role::Standby => Standing::Standby,
            Role::Failed(reason) => Standing::Failed(reason.clone()),
        }
    }

    /// Takes one event; gives what is to be done, in order. `random` is for topic ids and replica placement.
    pub fn handle(&mut self, event: Event, random: &mut dyn FnMut() -> u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Start { wall } => self.start(wall, &mut effects),
            Event::Loaded(loaded) => self.loaded(loaded, &mut effects),
            Event::Proposed { ticket, proposal } => self.proposed(ticket, proposal, random, &mut effects),
            Event::Read { token, result } => match self.take(token) {
                Waiting::EpochRead => self.epoch_read(result, &mut effects),
                Waiting::ProducerIdsRead { ticket } => self.producer_ids_read(ticket, result, &mut effects),
                _ => unreachable!("a read answers for a read"),
            },
            Event::Written { token, result } => match self.take(token) {
                Waiting::EpochMade => self.epoch_made(result, &mut effects),
                Waiting::Claim { epoch } => self.claimed(epoch, result, &mut effects),
                Waiting::TakeOver { changes } => self.taken_over(changes, result, &mut effects),
                Waiting::Create { ticket, drafts } => self.created(ticket, drafts, result, &mut effects),
                Waiting::Expand { ticket, expansions } => self.expanded(ticket, expansions, result, &mut effects),
                Waiting::Configs { ticket, drafts } => self.configs_written(ticket, drafts, result, &mut effects),
                Waiting::Mark { topics } => self.marked(topics, result, &mut effects),
                Waiting::Remove { topics } => self.removed(&topics, result, &mut effects),
                Waiting::ProducerIdsWritten { ticket, block } => {
                    self.producer_ids_written(ticket, block, result, &mut effects);
                }
                Waiting::EpochRead | Waiting::Stop { .. } | Waiting::ProducerIdsRead { .. } => {
                    unreachable!("a write answers for a write")
                }
            },
            Event::Told { token } => match self.take(token) {
                Waiting::Stop { group } => self.stopped(group, &mut effects),
                _ => unreachable!("a broker answers for what it was told"),
            },
        }
        while !self.serial_running
            && let Some((ticket, proposal)) = self.serial.pop_front()
        {
            self.proposed(ticket, proposal, random, &mut effects);
        }
        effects
    }

    fn proposed(
        &mut self,
        ticket: Ticket,
        proposal: Proposal,
        random: &mut dyn FnMut() -> u64,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(error) = self.refusal() {
            return effects.push(Effect::Answer { ticket, answer: Answer::Failed(error), when: When::Now });
        }
        self.remove_again(effects);
        if proposal.is_serial() && std::mem::replace(&mut self.serial_running, true) {
            return self.serial.push_back((ticket, proposal));
        }
        match proposal {
            Proposal::CreatePartitions { topics, validate_only } => {
                self.create_partitions(ticket, topics, validate_only, effects);
            }
            Proposal::AlterConfigs { changes, validate_only } => {
                self.alter_configs(ticket, changes, validate_only, effects);
            }
            Proposal::CreateTopics { topics, validate_only } => {
                self.create_topics(ticket, topics, validate_only, random, effects);
            }
            Proposal::DeleteTopics { topics } => self.delete_topics(ticket, topics, effects),
            Proposal::FollowSettings { named } => self.follow_settings(ticket, named, effects),
            Proposal::AllocateProducerIds => self.allocate_producer_ids(ticket, effects),
        }
    }

    /// Why no proposal can be taken; `None` for the active controller.
    fn refusal(&self) -> Option<ProposalError> {
        match &self.role {
            Role::Active(_) => None,
            Role::Failed(reason) => Some(ProposalError::Tree(reason.clone())),
            Role::Idle | Role::Electing { .. } | Role::TakingOver(..) | Role::Standby => {
                Some(ProposalError::NotController)
            }
        }
    }

    /// The same for one topic.
    fn topic_refusal(&self) -> TopicRefusal {
        match &self.role {
            Role::Failed(reason) => TopicRefusal::Tree(reason.clone()),
            _ => TopicRefusal::NotController,
        }
    }

    /// The same after a write that failed: a controller that goes on says what the tree said.
    fn refusal_after(&self, failed: &RequestError) -> TopicRefusal {
        match &self.role {
            Role::Active(_) => TopicRefusal::Tree(failed.error.to_string()),
            _ => self.topic_refusal(),
        }
    }

    fn cluster(&mut self) -> Option<&mut Cluster> {
        match &mut self.role {
            Role::Active(cluster) | Role::TakingOver(cluster, _) => Some(cluster),
            Role::Idle | Role::Electing { .. } | Role::Standby | Role::Failed(_) => None,
        }
    }

    /// A write failed. If it can't be put down to the one thing that was to be written, the controller's place is lost or
    /// the tree is broken: gives `false`, and the role says which.
    fn survives(&mut self, failed: &RequestError, effects: &mut Vec<Effect>) -> bool {
        match &failed.error {
            // The first operation checks the controller epoch.
            TreeError::BadVersion(_) | TreeError::NoNode(_) if failed.operation == Some(0) => {
                tracing::warn!("another controller was elected; this one resigns");
                self.step_down(Role::Standby, effects);
                false
            }
            TreeError::ConnectionLoss | TreeError::SessionExpired | TreeError::Storage(_) => {
                self.fail(failed.to_string(), effects);
                false
            }
            // A full disk too: nothing was changed, and there may be room for the next write.
            _ => true,
        }
    }

    fn fail(&mut self, reason: String, effects: &mut Vec<Effect>) {
        tracing::error!(reason, "the controller stops: no topic can be created or deleted until restart");
        self.step_down(Role::Failed(reason), effects);
    }

    /// Forgets the cluster. Who waits for a deletion is told now; all else is when its own result comes.
    fn step_down(&mut self, role: Role, effects: &mut Vec<Effect>) {
        let deletions = self.cluster().map(|cluster| std::mem::take(&mut cluster.deleting)).unwrap_or_default();
        self.role = role;
        let refusal = Err(self.topic_refusal());
        for deletion in deletions.into_values() {
            self.decide_deletions(deletion.waiters, &refusal, effects);
        }
    }

    fn write(&mut self, operations: Vec<Operation>, purpose: Waiting, effects: &mut Vec<Effect>) {
        let token = self.wait_for(purpose);
        effects.push(Effect::Write { token, operations });
    }

    fn wait_for(&mut self, purpose: Waiting) -> Token {
        self.next_token += 1;
        self.waiting.insert(self.next_token, purpose);
        self.next_token
    }

    fn take(&mut self, token: Token) -> Waiting {
        self.waiting.remove(&token).expect("each result comes once")
    }
}

#[cfg(test)]
mod tests;
