//! InitProducerId (22), versions 0-5: ids for idempotent producers, out of blocks that the controller hands out
//! (Kafka 3.9 `TransactionCoordinator.handleInitProducerId`, `RPCProducerIdManager`).
//!
//! A transactional id needs a coordinator, and there is none yet.

use super::errors;
use super::{Exchange, Handler, Unanswered};
use crate::local::Local;
use crate::metadata::proposal::ProducerIdBlock;
use crate::platform::Platform;
use crate::protocol::ErrorCode;
use crate::protocol::message::{InitProducerIdRequest, InitProducerIdResponse};

pub struct InitProducerId;

impl<P: Platform> Handler<P> for InitProducerId {
    async fn handle(mut exchange: Exchange<P>) -> Result<(), Unanswered> {
        let request: InitProducerIdRequest = exchange.decode().await?;
        let response = answer(&exchange.local, request).await;
        exchange.reply(&response).await
    }
}

async fn answer<P: Platform>(local: &Local<P>, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let half_set = (request.producer_id == -1) != (request.producer_epoch == -1);
    let answer = match request.transactional_id.as_deref() {
        _ if half_set => Err(ErrorCode::InvalidRequest),
        Some("") => Err(ErrorCode::InvalidRequest),
        Some(_) if request.transaction_timeout_ms <= 0 => Err(ErrorCode::InvalidTransactionTimeout),
        Some(_) => Err(ErrorCode::CoordinatorNotAvailable),
        None => next_producer_id(local).await,
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

async fn next_producer_id<P: Platform>(local: &Local<P>) -> Result<i64, ErrorCode> {
    if let Some(id) = take(local) {
        return Ok(id);
    }
    match local.allocate_producer_ids().await {
        // Another request may have brought a block meanwhile: the older one's rest is given up, ids are plenty.
        Ok(block) => {
            local.producer_ids.set(Some(block));
            take(local).ok_or(ErrorCode::UnknownServerError)
        }
        Err(error) => Err(errors::of_proposal(&error)),
    }
}

fn take<P: Platform>(local: &Local<P>) -> Option<i64> {
    let ProducerIdBlock { start, last } = local.producer_ids.take()?;
    if start > last {
        return None;
    }
    local.producer_ids.set(Some(ProducerIdBlock { start: start + 1, last }));
    Some(start)
}
