//! What requests of one shard may take of its memory beside their frames, each kind with a bound of its own: whoever finds
//! no room waits, or goes on without, and takes it from nobody else.

use std::rc::Rc;

use crate::base::budget::{Budget, Permit};
use crate::metrics::status::BoundUse;

/// Bytes per shard of records that are converted to an older format, and of answers made of them that wait to be sent.
const CONVERSION_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// Bytes per shard of what large fetches keep while they wait. Who finds no room is answered with what there is.
pub const WAITING_FETCH_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Bytes per shard of what produces take while they wait for replicas: those with large answers, and apart from them, so
/// that a few can't crowd out the many, all others. Who finds no room is told that its time is over.
const WAITING_PRODUCE_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// Up to this much of answers a produce that waits is a small one.
const WAITING_SMALL_PRODUCE_BYTES: u64 = 64 * 1024;

/// What a produce that waits takes besides its answers: its task, and what it left with the owners.
const WAITING_PRODUCE_TASK_BYTES: u64 = 2 * 1024;

/// Bytes per shard of what the answers will take for which the controller is asked. Who finds no room waits, and nobody
/// else: the controller may take long.
const PROPOSING_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// A request whose answer takes no more asks the controller at once.
const PROPOSING_UNCOUNTED_BYTES: u64 = 64 * 1024;

/// Those that are not constants.
#[derive(Clone, Copy, Debug)]
pub struct BudgetBounds {
    /// Bytes of produced batches that may be at work threads; a connection that needs more is not read until there is room.
    pub away_bytes_max: u64,
}

pub struct Budgets {
    /// Of records on their way through a conversion to an older format.
    pub conversion_bytes: Rc<Budget>,
    /// Of large fetches that wait.
    pub waiting_fetch_bytes: Rc<Budget>,
    /// Of large produces that wait for replicas.
    pub waiting_produce_bytes: Rc<Budget>,
    /// Of all others that do.
    pub waiting_small_produce_bytes: Rc<Budget>,
    /// Of large requests that the controller is asked about.
    pub proposing_bytes: Rc<Budget>,
    /// Of produced batches that are at work threads.
    pub away_bytes: Rc<Budget>,
}

impl Budgets {
    pub fn new(bounds: BudgetBounds) -> Budgets {
        Budgets {
            conversion_bytes: Budget::new(CONVERSION_BYTES_MAX),
            waiting_fetch_bytes: Budget::new(WAITING_FETCH_BYTES_MAX),
            waiting_produce_bytes: Budget::new(WAITING_PRODUCE_BYTES_MAX),
            waiting_small_produce_bytes: Budget::new(WAITING_PRODUCE_BYTES_MAX),
            proposing_bytes: Budget::new(PROPOSING_BYTES_MAX),
            away_bytes: Budget::new(bounds.away_bytes_max),
        }
    }

    /// Room for a produce with so many bytes of answers to wait for its replicas, if there is any.
    pub fn waiting_produce(&self, answer_bytes: u64) -> Option<Permit> {
        let budget = match answer_bytes <= WAITING_SMALL_PRODUCE_BYTES {
            true => &self.waiting_small_produce_bytes,
            false => &self.waiting_produce_bytes,
        };
        budget.try_acquire(answer_bytes + WAITING_PRODUCE_TASK_BYTES)
    }

    /// Waits until the controller may be asked for an answer of so many bytes.
    pub async fn proposing(&self, answer_bytes: u64) -> Option<Permit> {
        match answer_bytes <= PROPOSING_UNCOUNTED_BYTES {
            true => None,
            false => Some(self.proposing_bytes.acquire(answer_bytes).await),
        }
    }

    /// How much of each is in use.
    pub fn in_use(&self) -> Vec<BoundUse> {
        let never_waited_for =
            |name, help, budget| BoundUse { waits_total: None, ..BoundUse::of_budget(name, help, budget) };
        vec![
            BoundUse::of_budget(
                "conversion_bytes",
                "Bytes of records that are converted to an older format, and of answers made of them.",
                &self.conversion_bytes,
            ),
            never_waited_for(
                "waiting_fetch_bytes",
                "Bytes that large fetches keep while they wait for records.",
                &self.waiting_fetch_bytes,
            ),
            never_waited_for(
                "waiting_produce_bytes",
                "Bytes that large produces keep while they wait for replicas.",
                &self.waiting_produce_bytes,
            ),
            never_waited_for(
                "waiting_small_produce_bytes",
                "Bytes that all other produces keep while they wait for replicas.",
                &self.waiting_small_produce_bytes,
            ),
            BoundUse::of_budget(
                "proposing_bytes",
                "Bytes that the answers will take for which the controller is asked.",
                &self.proposing_bytes,
            ),
            BoundUse::of_budget("away_bytes", "Bytes of produced batches at work threads.", &self.away_bytes),
        ]
    }
}
