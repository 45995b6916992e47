//! The controller: who leads which partition, which topics exist.
//!
//! [`Controller`] is a pure state machine: an event and the time go in, effects come out, the tree and the brokers are
//! touched by whoever runs it ([`node`]). It has many requests under way.
//!
//! ```text
//!           Start, nobody is controller     claimed            all loaded and written
//!   Idle ---------------------------> Electing -----> TakingOver -------------------> Active
//!    ^ \ somebody is                     | lost             |  another controller      |
//!    |  `-----> Standby <----------------+------------------+--------------------------+
//!    |             | nobody is any more: Electing
//!    +---- any, when the session has expired: a new Start follows
//!   any ---- the embedded tree failed ----> Failed
//! ```
//!
//! Invariants: every write made as controller is a multi whose first operation checks the version that `/controller_epoch`
//! got when this controller was elected, so a controller that lost its place changes nothing; and it is given under the
//! session in which it was elected. A multi has bounds (see [`writes`]). What is in [`Cluster`] has been written. A leader
//! epoch only grows.
//!
//! The rules are those of Kafka 3.9's `KafkaController`. ISR changes and reassignment come with several brokers.

#![forbid(unsafe_code)]

mod cluster;
mod configs;
mod create;
mod delete;
mod election;
pub mod event;
mod expand;
pub mod import;
mod leadership;
pub mod load;
pub mod node;
mod open;
pub mod partition;
mod producer_ids;
pub mod replicas;
pub mod topic_name;
mod watching;
pub mod writes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::base::time::Now;
use crate::metadata::proposal::{Answer, ProducerIdBlock, Proposal, ProposalError, TopicRefusal};
use crate::metadata::tree::{Generation, Operation, Reply, Request, RequestError, TreeError, found};

use cluster::Cluster;
use configs::{Altering, ConfigDraft};
use create::Draft;
use delete::Removal;
use event::{Effect, Event, Settings, Standing, Ticket, Token, When};
use expand::Expansion;
use leadership::{Change, Group};
use load::{Loader, Read};
use open::Open;
use watching::{List, Look};

pub struct Controller {
    settings: Settings,
    role: Role,
    generation: Generation,
    /// Counts the times that the role was lost: results of what was asked before are nobody's.
    reign: u64,
    /// Of the event that is being handled.
    now: Now,
    next_token: Token,
    /// What each result is needed for, and the reign in which it was asked for.
    waiting: BTreeMap<Token, (u64, Waiting)>,
    next_group: u64,
    groups: BTreeMap<u64, Group>,
    looks: BTreeMap<List, Look>,
    /// Topics whose nodes are to be read with the next look.
    unread: BTreeSet<String>,
    /// Proposals whose parts are not all decided.
    open: BTreeMap<Ticket, Open>,
    altering: Option<Altering>,
    /// A proposal that starts from what is there runs, and others of its kind wait for its end: each must see what the
    /// one before it wrote. As few as are ever open.
    serial_running: Option<Ticket>,
    serial: VecDeque<(Ticket, Proposal)>,
}

enum Role {
    Idle,
    Electing,
    /// `None`: all is loaded, and new leaders are being written.
    TakingOver(Box<Cluster>, Option<Loader>),
    Active(Box<Cluster>),
    Standby,
    Failed(String),
}

/// What is being read for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    TakeOver,
    /// With its number.
    Look(List, u64),
}

enum Waiting {
    ControllerSeen,
    EpochRead,
    EpochMade,
    Claim {
        epoch: i32,
    },
    Load {
        purpose: Purpose,
        read: Read,
    },
    List(List),
    /// A watch is left, and nothing more is wanted.
    Watch {
        topic: String,
    },
    Lead {
        group: u64,
        changes: Vec<Change>,
    },
    Create {
        ticket: Ticket,
        drafts: Vec<Draft>,
    },
    Expand {
        ticket: Ticket,
        expansions: Vec<Expansion>,
    },
    ConfigRead {
        ticket: Ticket,
        index: usize,
    },
    Configs {
        ticket: Ticket,
        drafts: Vec<ConfigDraft>,
    },
    Mark {
        topics: Vec<Arc<str>>,
    },
    Unmark {
        topic: String,
    },
    Stop {
        group: u64,
    },
    Remove {
        removals: Vec<Removal>,
    },
    ProducerIdsRead {
        ticket: Ticket,
    },
    ProducerIdsWritten {
        ticket: Ticket,
        block: ProducerIdBlock,
    },
}

impl Waiting {
    /// Whether nobody asks for it once the reign is over.
    fn is_of_election(&self) -> bool {
        match self {
            Waiting::ControllerSeen
            | Waiting::EpochRead
            | Waiting::EpochMade
            | Waiting::Claim { .. }
            | Waiting::Load { .. }
            | Waiting::List(_)
            | Waiting::Watch { .. } => true,
            Waiting::Lead { .. }
            | Waiting::Create { .. }
            | Waiting::Expand { .. }
            | Waiting::ConfigRead { .. }
            | Waiting::Configs { .. }
            | Waiting::Mark { .. }
            | Waiting::Unmark { .. }
            | Waiting::Stop { .. }
            | Waiting::Remove { .. }
            | Waiting::ProducerIdsRead { .. }
            | Waiting::ProducerIdsWritten { .. } => false,
        }
    }
}

impl Controller {
    pub fn new(settings: Settings) -> Controller {
        Controller {
            settings,
            role: Role::Idle,
            generation: Generation(0),
            reign: 0,
            now: Now { monotonic: Default::default(), wall: 0 },
            next_token: 0,
            waiting: BTreeMap::new(),
            next_group: 0,
            groups: BTreeMap::new(),
            looks: BTreeMap::new(),
            unread: BTreeSet::new(),
            open: BTreeMap::new(),
            altering: None,
            serial_running: None,
            serial: VecDeque::new(),
        }
    }

    pub fn standing(&self) -> Standing {
        match &self.role {
            Role::Idle | Role::Electing | Role::TakingOver(..) => Standing::Undecided,
            Role::Active(_) => Standing::Active,
            Role::Standby => Standing::Standby,
            Role::Failed(reason) => Standing::Failed(reason.clone()),
        }
    }

    /// Takes one event; gives what is to be done, in order. `random` is for topic ids and replica placement.
    pub fn handle(&mut self, event: Event, now: Now, random: &mut dyn FnMut() -> u64) -> Vec<Effect> {
        self.now = now;
        let mut effects = Vec::new();
        match event {
            Event::Start { generation } => {
                self.generation = generation;
                self.watch_controller(&mut effects);
            }
            Event::Expired => self.step_down(Role::Idle, &mut effects),
            Event::Done { token, result } => self.done(token, result, &mut effects),
            Event::Watched(event) => self.watched(event, &mut effects),
            Event::Followed(followed) => self.settings.followed = followed,
            Event::Proposed { ticket, proposal } => self.proposed(ticket, proposal, random, &mut effects),
            Event::Told { token } => {
                if let Some(Waiting::Stop { group }) = self.take(token) {
                    self.stopped(group, &mut effects);
                }
            }
            Event::Offline { broker, partitions } => self.go_offline(broker, partitions, &mut effects),
            Event::Time => self.look_again(&mut effects),
        }
        while self.serial_running.is_none()
            && let Some((ticket, proposal)) = self.serial.pop_front()
        {
            self.proposed(ticket, proposal, random, &mut effects);
        }
        effects
    }

    fn done(&mut self, token: Token, mut result: Result<Reply, RequestError>, effects: &mut Vec<Effect>) {
        let (reign, waiting) = self.waiting.remove(&token).expect("each result comes once");
        if reign != self.reign {
            if waiting.is_of_election() {
                return;
            }
            result = Err(RequestError::of_request(TreeError::SessionExpired));
        }
        let outcomes = |result: Result<Reply, RequestError>| match result? {
            Reply::Multi(outcomes) => Ok(outcomes),
            other => unreachable!("a multi was answered with {other:?}"),
        };
        match waiting {
            Waiting::ControllerSeen => match result {
                Ok(Reply::Exists(found)) => self.controller_seen(found, effects),
                Ok(other) => unreachable!("an exists was answered with {other:?}"),
                Err(failed) => self.not_seen(&failed.error, effects),
            },
            Waiting::EpochRead => match found(result) {
                Ok(found) => self.epoch_read(found, effects),
                Err(error) => self.not_elected(&error, effects),
            },
            Waiting::EpochMade => self.epoch_made(outcomes(result), effects),
            Waiting::Claim { epoch } => self.claimed(epoch, outcomes(result), effects),
            Waiting::Load { purpose: Purpose::TakeOver, read } => self.load_more(read, result, effects),
            Waiting::Load { purpose: Purpose::Look(list, number), read } => {
                self.read_more((list, number), read, result, effects);
            }
            Waiting::List(list) => self.listed(list, result, effects),
            Waiting::Lead { group, changes } => self.led(group, changes, outcomes(result), effects),
            Waiting::Create { ticket, drafts } => self.created(ticket, drafts, outcomes(result), effects),
            Waiting::Expand { ticket, expansions } => self.expanded(ticket, expansions, outcomes(result), effects),
            Waiting::ConfigRead { ticket, index } => self.config_read(ticket, index, result, effects),
            Waiting::Configs { ticket, drafts } => self.configs_written(ticket, drafts, outcomes(result), effects),
            Waiting::Mark { topics } => self.marked(topics, outcomes(result), effects),
            Waiting::Remove { removals } => self.removed(removals, outcomes(result), effects),
            Waiting::Unmark { topic } => self.unmarked(topic, outcomes(result), effects),
            Waiting::ProducerIdsRead { ticket } => self.producer_ids_read(ticket, found(result), effects),
            Waiting::ProducerIdsWritten { ticket, block } => {
                self.producer_ids_written(ticket, block, outcomes(result), effects);
            }
            Waiting::Watch { topic } => {
                if result.is_err() {
                    self.read_soon([topic], effects);
                }
            }
            Waiting::Stop { .. } => unreachable!("the tree does not answer for a broker"),
        }
    }

    fn proposed(
        &mut self,
        ticket: Ticket,
        proposal: Proposal,
        random: &mut dyn FnMut() -> u64,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(error) = self.refusal() {
            return self.answer(ticket, Answer::Failed(error), When::Now, effects);
        }
        self.remove_again(effects);
        self.lead_again(effects);
        if proposal.is_serial() {
            if self.serial_running.is_some() {
                return self.serial.push_back((ticket, proposal));
            }
            self.serial_running = Some(ticket);
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
            Proposal::FollowSettings { .. } => unreachable!("files and flags are no affair of the cluster's"),
            Proposal::AllocateProducerIds => self.allocate_producer_ids(ticket, effects),
        }
    }

    /// Why no proposal can be taken; `None` for the active controller.
    fn refusal(&self) -> Option<ProposalError> {
        match &self.role {
            Role::Active(_) => None,
            Role::Failed(reason) => Some(ProposalError::Tree(reason.clone())),
            Role::Idle | Role::Electing | Role::TakingOver(..) | Role::Standby => Some(ProposalError::NotController),
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
        match (&self.role, &failed.error) {
            (_, TreeError::SessionExpired) => TopicRefusal::NotController,
            (Role::Active(_), error) => TopicRefusal::Tree(error.to_string()),
            _ => self.topic_refusal(),
        }
    }

    fn cluster(&mut self) -> Option<&mut Cluster> {
        match &mut self.role {
            Role::Active(cluster) | Role::TakingOver(cluster, _) => Some(cluster),
            Role::Idle | Role::Electing | Role::Standby | Role::Failed(_) => None,
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
            // What expired is told apart, or long over.
            TreeError::SessionExpired => false,
            TreeError::ConnectionLoss | TreeError::Storage(_) => {
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
        self.reign += 1;
        self.looks.clear();
        self.unread.clear();
        // What a take-over still waits for must not let the next one speak.
        self.groups.retain(|_, group| !group.is_take_over());
        let refusal = Err(self.topic_refusal());
        for deletion in deletions.into_values() {
            self.decide_deletions(deletion.waiters, &refusal, effects);
        }
    }

    /// Nobody knows who is controller; the next session asks again.
    fn not_seen(&mut self, error: &TreeError, effects: &mut Vec<Effect>) {
        match error {
            TreeError::SessionExpired => {}
            error => self.fail(error.to_string(), effects),
        }
    }

    fn write(&mut self, operations: Vec<Operation>, purpose: Waiting, effects: &mut Vec<Effect>) {
        self.ask(Request::Multi(operations), purpose, effects);
    }

    fn ask(&mut self, request: Request, purpose: Waiting, effects: &mut Vec<Effect>) {
        let token = self.wait_for(purpose);
        effects.push(Effect::Ask { token, generation: Some(self.generation), request });
    }

    fn wait_for(&mut self, purpose: Waiting) -> Token {
        self.next_token += 1;
        self.waiting.insert(self.next_token, (self.reign, purpose));
        self.next_token
    }

    /// `None`: it was asked for in an earlier reign.
    fn take(&mut self, token: Token) -> Option<Waiting> {
        let (reign, waiting) = self.waiting.remove(&token).expect("each result comes once");
        (reign == self.reign).then_some(waiting)
    }
}

#[cfg(test)]
mod tests;
