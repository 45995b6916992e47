//! InitProducerId (22), versions 0-5: ids for idempotent producers, out of blocks that the controller hands out
//! (Kafka 3.9 `TransactionCoordinator.handleInitProducerId`, `RPCProducerIdManager`).
//!
//! A transactional id needs a coordinator, and there is none yet.

use super::{Context, errors};
use crate::metadata::proposal::{Answer, ProducerIdBlock, Proposal};
use crate::platform::Platform;
use crate::protocol::ErrorCode;
use crate::protocol::message::{InitProducerIdRequest, InitProducerIdResponse};

pub async fn handle<P: Platform>(context: &Context<P>, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let half_set = (request.producer_id == -1) != (request.producer_epoch == -1);
    let answer = match request.transactional_id.as_deref() {
        _ if half_set => Err(ErrorCode::InvalidRequest),
        Some("") => Err(ErrorCode::InvalidRequest),
        Some(_) if request.transaction_timeout_ms <= 0 => Err(ErrorCode::InvalidTransactionTimeout),
        Some(_) => Err(ErrorCode::CoordinatorNotAvailable),
        None => next_producer_id(context).await,
    };
    match answer {
        Ok(producer_id) => {
            InitProducerIdResponse { producer_id, producer_epoch: 0, ..InitProducerIdResponse::default() }
        }
        Err(error) => InitProducerIdResponse {
            error_code: error.code(),
            producer_id: -1,
            producer_epoch: -1,
            ..InitProducerIdResponse::default()
        },
    }
}

async fn next_producer_id<P: Platform>(context: &Context<P>) -> Result<i64, ErrorCode> {
    if let Some(id) = take(context) {
        return Ok(id);
    }
    match context.propose(Proposal::AllocateProducerIds).await {
        // Another request may have brought a block meanwhile: the older one's rest is given up, ids are plenty.
        Answer::AllocateProducerIds(block) => {
            context.producer_ids.set(Some(block));
            take(context).ok_or(ErrorCode::UnknownServerError)
        }
        Answer::Failed(error) => Err(errors::of_proposal(&error)),
        Answer::CreateTopics(_)
        | Answer::DeleteTopics(_)
        | Answer::CreatePartitions(_)
        | Answer::AlterConfigs(_)
        | Answer::FollowSettings(_) => Err(ErrorCode::UnknownServerError),
    }
}

fn take<P: Platform>(context: &Context<P>) -> Option<i64> {
    let ProducerIdBlock { start, last } = context.producer_ids.take()?;
    if start > last {
        return None;
    }
    context.producer_ids.set(Some(ProducerIdBlock { start: start + 1, last }));
    Some(start)
}
