//! What the controller hears, and what it wants done.

#![forbid(unsafe_code)]

use crate::base::ids::{BrokerId, TopicPartition};
use crate::metadata::config_follower::Followed;
use crate::metadata::inputs::BrokerInputs;
use crate::metadata::proposal::{Answer, Proposal};
use crate::metadata::tree::{Generation, Reply, Request, RequestError, TreeEvent};

/// Names one request or order to a broker until its result comes back.
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
    /// What topics and this broker live by; the newest that this broker has read.
    pub followed: Followed,
}

/// What the controller hears.
#[derive(Debug)]
pub enum Event {
    /// This broker is registered, in this session; try to become controller.
    Start {
        generation: Generation,
    },
    /// The session is over: whoever was controller in it is not any more.
    Expired,
    /// The result of [`Effect::Ask`].
    Done {
        token: Token,
        result: Result<Reply, RequestError>,
    },
    Watched(TreeEvent),
    /// Topics or this broker live by other settings now.
    Followed(Followed),
    /// A broker has done what [`Effect::Tell`] told it.
    Told {
        token: Token,
    },
    /// A broker could not open these replicas' logs (KAFKA_STORAGE_ERROR in its answer).
    Offline {
        broker: BrokerId,
        partitions: Vec<TopicPartition>,
    },
    Proposed {
        ticket: Ticket,
        proposal: Proposal,
    },
    /// A time of [`Controller::next_deadline`] may have come.
    Time,
}

/// What the controller wants done, in order.
#[derive(Debug)]
pub enum Effect {
    Ask { token: Token, generation: Option<Generation>, request: Request },
    Tell { broker: BrokerId, inputs: Box<BrokerInputs>, done: Option<Token> },
    Answer { ticket: Ticket, answer: Answer, when: When },
}

/// When an answer may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Now,
    /// When all that this broker was told so far is done.
    Shown,
    /// When this broker lives by all settings that the tree has told of so far, too.
    Followed,
}

/// Where the controller stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    Undecided,
    Active,
    Standby,
    Failed(String),
}
