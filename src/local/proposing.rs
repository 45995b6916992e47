//! Asking the controller.

use std::time::Duration;

use futures_channel::oneshot;

use super::Local;
use crate::executor::either;
use crate::metadata::proposal::{Answer, Proposal, ProposalError};
use crate::platform::{Clock, Platform};

/// The controller has not answered in a request's time.
#[derive(Debug)]
pub struct TimedOut;

/// Whether success always comes too late for a request with this timeout.
pub fn waits_for_nothing(timeout_ms: i32) -> bool {
    timeout_ms <= 0
}

impl<P: Platform> Local<P> {
    /// Asks the controller and waits for its answer, which comes when every shard shows the outcome.
    pub async fn propose(&self, proposal: Proposal) -> Answer {
        let (sender, receiver) = oneshot::channel();
        let answer = Box::new(move |answer| {
            let _ = sender.send(answer);
        });
        if self.metadata.propose(proposal, answer).is_err() {
            return Answer::Failed(ProposalError::Busy);
        }
        receiver.await.unwrap_or(Answer::Failed(ProposalError::Busy))
    }

    /// The same, as long as a request's timeout lets. A timeout of nothing is not raced with: what is refused is told so,
    /// and only what succeeds comes too late for it (Kafka 3.9 `ZkAdminManager`), which the caller says by
    /// [`waits_for_nothing`].
    ///
    /// # Errors
    /// The time has passed; the change goes on.
    pub async fn propose_within(&self, proposal: Proposal, timeout_ms: i32) -> Result<Answer, TimedOut> {
        let answer = self.propose(proposal);
        if waits_for_nothing(timeout_ms) {
            return Ok(answer.await);
        }
        let clock = self.platform.clock();
        let deadline = clock.now() + Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
        either(answer, clock.sleep_until(deadline)).await.map_err(|()| TimedOut)
    }
}
