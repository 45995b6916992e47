//! Asking the controller: one function for each kind of proposal, which gives what the answer to this kind holds.

use std::time::Duration;

use futures_channel::oneshot;

use super::Local;
use crate::executor::either;
use crate::metadata::proposal::{
    Answer, ConfigChange, ConfigRefusal, CreateTopicResult, DeleteTopicResult, MorePartitions, NewTopic,
    ProducerIdBlock, Proposal, ProposalError, TopicRef, TopicRefusal,
};
use crate::platform::{Clock, Platform};

/// How long an answer is waited for, which comes when every shard shows the outcome.
#[derive(Clone, Copy, Debug)]
pub enum Patience {
    AsLongAsItTakes,
    /// A request's timeout. One of nothing is not raced with: what is refused is told so, and only what succeeds comes too
    /// late for it (Kafka 3.9 `ZkAdminManager`), which the caller says by [`Patience::is_none`].
    Ms(i32),
}

impl Patience {
    /// Nothing is waited for where nothing is made.
    pub fn of(timeout_ms: i32, validate_only: bool) -> Patience {
        if validate_only { Patience::AsLongAsItTakes } else { Patience::Ms(timeout_ms) }
    }

    /// Whether success always comes too late.
    pub fn is_none(self) -> bool {
        matches!(self, Patience::Ms(..=0))
    }
}

/// Why a proposal has no outcome.
#[derive(Debug)]
pub enum NoOutcome {
    /// The controller has not answered in time; the change goes on.
    TimedOut,
    Failed(ProposalError),
}

impl<P: Platform> Local<P> {
    pub async fn create_topics(
        &self,
        topics: Vec<NewTopic>,
        validate_only: bool,
        patience: Patience,
    ) -> Result<Vec<CreateTopicResult>, NoOutcome> {
        let told = |answer| if let Answer::CreateTopics(results) = answer { Ok(results) } else { Err(answer) };
        self.within(patience, self.propose(Proposal::CreateTopics { topics, validate_only }, told)).await
    }

    pub async fn delete_topics(
        &self,
        topics: Vec<TopicRef>,
        patience: Patience,
    ) -> Result<Vec<DeleteTopicResult>, NoOutcome> {
        let told = |answer| if let Answer::DeleteTopics(results) = answer { Ok(results) } else { Err(answer) };
        self.within(patience, self.propose(Proposal::DeleteTopics { topics }, told)).await
    }

    pub async fn create_partitions(
        &self,
        topics: Vec<MorePartitions>,
        validate_only: bool,
        patience: Patience,
    ) -> Result<Vec<Result<(), TopicRefusal>>, NoOutcome> {
        let told = |answer| if let Answer::CreatePartitions(results) = answer { Ok(results) } else { Err(answer) };
        self.within(patience, self.propose(Proposal::CreatePartitions { topics, validate_only }, told)).await
    }

    pub async fn alter_configs(
        &self,
        changes: Vec<ConfigChange>,
        validate_only: bool,
    ) -> Result<Vec<Result<(), ConfigRefusal>>, ProposalError> {
        let told = |answer| if let Answer::AlterConfigs(results) = answer { Ok(results) } else { Err(answer) };
        self.propose(Proposal::AlterConfigs { changes, validate_only }, told).await
    }

    pub async fn allocate_producer_ids(&self) -> Result<ProducerIdBlock, ProposalError> {
        let told = |answer| if let Answer::AllocateProducerIds(block) = answer { Ok(block) } else { Err(answer) };
        self.propose(Proposal::AllocateProducerIds, told).await
    }

    /// `told` takes what an answer to this kind of proposal holds, or gives another one back.
    async fn propose<T>(&self, proposal: Proposal, told: fn(Answer) -> Result<T, Answer>) -> Result<T, ProposalError> {
        let (sender, receiver) = oneshot::channel();
        let answer = Box::new(move |answer| {
            let _ = sender.send(answer);
        });
        if self.metadata.propose(proposal, answer).is_err() {
            return Err(ProposalError::Busy);
        }
        match receiver.await.map(told) {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(Answer::Failed(error))) => Err(error),
            Ok(Err(other)) => {
                tracing::error!(answer = ?other, "the controller answered another proposal than it was made");
                Err(ProposalError::Tree("the answer is to another proposal".to_owned()))
            }
            // The control thread has ended.
            Err(oneshot::Canceled) => Err(ProposalError::Busy),
        }
    }

    async fn within<T>(
        &self,
        patience: Patience,
        outcome: impl Future<Output = Result<T, ProposalError>>,
    ) -> Result<T, NoOutcome> {
        let outcome = match patience {
            Patience::Ms(timeout_ms @ 1..) => {
                let clock = self.platform.clock();
                let deadline = clock.now() + Duration::from_millis(timeout_ms.unsigned_abs().into());
                either(outcome, clock.sleep_until(deadline)).await.map_err(|()| NoOutcome::TimedOut)?
            }
            Patience::Ms(_) | Patience::AsLongAsItTakes => outcome.await,
        };
        outcome.map_err(NoOutcome::Failed)
    }
}
