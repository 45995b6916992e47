//! FindCoordinator (10), versions 0-6. There are no groups and no transactions yet, so no key has a coordinator:
//! COORDINATOR_NOT_AVAILABLE, which clients retry. The API is listed all the same, since older librdkafka silently turns
//! compression off without it. A key that is named twice is answered once. A type of key that there is not is refused, so
//! that nobody retries it for ever (Kafka 3.9 `KafkaApis.getCoordinator`).

use super::distinct::Distinct;
use super::{Exchange, Handler, Unanswered};
use crate::platform::Platform;
use crate::protocol::ErrorCode;
use crate::protocol::message::{Coordinator, FindCoordinatorRequest, FindCoordinatorResponse};

const NO_NODE: i32 = -1;
const NO_PORT: i32 = -1;

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;
/// Share groups came with this version (KIP-932).
const SHARE_SINCE: i16 = 6;

pub struct FindCoordinator;

impl<P: Platform> Handler<P> for FindCoordinator {
    async fn handle(mut exchange: Exchange<P>) -> Result<(), Unanswered> {
        let request: FindCoordinatorRequest = exchange.decode().await?;
        let response = answer(request, exchange.version());
        exchange.reply(&response).await
    }
}

fn answer(request: FindCoordinatorRequest, version: i16) -> FindCoordinatorResponse {
    let (code, message) = match request.key_type {
        GROUP | TRANSACTION => (ErrorCode::CoordinatorNotAvailable, "The coordinator is not available."),
        SHARE if version >= SHARE_SINCE => (ErrorCode::CoordinatorNotAvailable, "The coordinator is not available."),
        _ => (ErrorCode::InvalidRequest, "There is no such type of coordinator in this version of the request."),
    };
    let (error_code, message) = (code.code(), Some(message.to_owned()));
    if version < 4 {
        return FindCoordinatorResponse {
            error_code,
            error_message: message,
            node_id: NO_NODE,
            port: NO_PORT,
            ..FindCoordinatorResponse::default()
        };
    }
    let mut distinct = Distinct::with_capacity(0);
    let keys = request.coordinator_keys.into_iter().filter(|key| distinct.is_new(key.clone()));
    let coordinators = keys.map(|key| Coordinator {
        key,
        node_id: NO_NODE,
        host: String::new(),
        port: NO_PORT,
        error_code,
        error_message: message.clone(),
    });
    FindCoordinatorResponse {
        error_message: None,
        coordinators: coordinators.collect(),
        ..FindCoordinatorResponse::default()
    }
}
