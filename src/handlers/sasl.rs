//! SaslHandshake (17), versions 0-1, and SaslAuthenticate (36), versions 0-2, on a connection that needs neither.
//!
//! Kafka lists both on every listener. On one without SASL nothing is left to authenticate, so they are ILLEGAL_SASL_STATE
//! (Kafka 3.9 `KafkaApis.handleSaslHandshakeRequest`), by which a client learns that it has the wrong
//! `security.protocol`: a closed connection would have it try again for ever.

use crate::protocol::ErrorCode;
use crate::protocol::message::{
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};

pub fn handshake(_: SaslHandshakeRequest) -> SaslHandshakeResponse {
    SaslHandshakeResponse { error_code: ErrorCode::IllegalSaslState.code(), mechanisms: Vec::new() }
}

pub fn authenticate(_: SaslAuthenticateRequest) -> SaslAuthenticateResponse {
    SaslAuthenticateResponse {
        error_code: ErrorCode::IllegalSaslState.code(),
        error_message: Some("SaslAuthenticate request received after successful authentication".to_owned()),
        ..SaslAuthenticateResponse::default()
    }
}
