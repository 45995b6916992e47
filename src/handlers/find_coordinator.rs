//! FindCoordinator (10), versions 0-6. There are no groups and no transactions yet, so no key has a coordinator:
//! COORDINATOR_NOT_AVAILABLE, which clients retry. The API is listed all the same, since older librdkafka silently turns
//! compression off without it. A key that is named twice is answered once.

use super::distinct::Distinct;
use crate::protocol::ErrorCode;
use crate::protocol::message::{Coordinator, FindCoordinatorRequest, FindCoordinatorResponse};

const NO_NODE: i32 = -1;
const NO_PORT: i32 = -1;

pub fn handle(request: FindCoordinatorRequest, version: i16) -> FindCoordinatorResponse {
    let error_code = ErrorCode::CoordinatorNotAvailable.code();
    let message = Some("The coordinator is not available.".to_owned());
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
