//! FindCoordinator (10), versions 0-6. There are no groups and no transactions yet, so no key has a coordinator:
//! COORDINATOR_NOT_AVAILABLE, which clients retry. The API is listed all the same, since older librdkafka silently turns
//! compression off without it.

use crate::protocol::message::{Coordinator, FindCoordinatorRequest, FindCoordinatorResponse};
use crate::protocol::{ErrorCode, Reader, WireError};

const NO_NODE: i32 = -1;
const NO_PORT: i32 = -1;

pub fn handle(body: &[u8], version: i16) -> Result<FindCoordinatorResponse, WireError> {
    let request = FindCoordinatorRequest::decode(&mut Reader::new(body), version)?;
    let error_code = ErrorCode::CoordinatorNotAvailable.code();
    let message = Some("The coordinator is not available.".to_owned());
    if version < 4 {
        return Ok(FindCoordinatorResponse {
            error_code,
            error_message: message,
            node_id: NO_NODE,
            port: NO_PORT,
            ..FindCoordinatorResponse::default()
        });
    }
    let coordinators = request.coordinator_keys.into_iter().map(|key| Coordinator {
        key,
        node_id: NO_NODE,
        host: String::new(),
        port: NO_PORT,
        error_code,
        error_message: message.clone(),
    });
    Ok(FindCoordinatorResponse {
        error_message: None,
        coordinators: coordinators.collect(),
        ..FindCoordinatorResponse::default()
    })
}
