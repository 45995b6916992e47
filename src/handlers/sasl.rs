//! SaslHandshake (17), versions 0-1, and SaslAuthenticate (36), versions 0-2, on a connection that needs neither.
//!
//! Kafka lists both on every listener. On one without SASL nothing is left to authenticate, so they are ILLEGAL_SASL_STATE
//! (Kafka 3.9 `KafkaApis.handleSaslHandshakeRequest`), by which a client learns that it has the wrong
//! `security.protocol`: a closed connection would have it try again for ever.

use super::{Exchange, Handler, Unanswered};
use crate::platform::Platform;
use crate::protocol::ErrorCode;
use crate::protocol::message::{
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};

pub struct SaslHandshake;

impl<P: Platform> Handler<P> for SaslHandshake {
    async fn handle(mut exchange: Exchange<P>) -> Result<(), Unanswered> {
        exchange.decode::<SaslHandshakeRequest>().await?;
        let error_code = ErrorCode::IllegalSaslState.code();
        exchange.reply(&SaslHandshakeResponse { error_code, mechanisms: Vec::new() }).await
    }
}

pub struct SaslAuthenticate;

impl<P: Platform> Handler<P> for SaslAuthenticate {
    async fn handle(mut exchange: Exchange<P>) -> Result<(), Unanswered> {
        exchange.decode::<SaslAuthenticateRequest>().await?;
        let response = SaslAuthenticateResponse {
            error_code: ErrorCode::IllegalSaslState.code(),
            error_message: Some("SaslAuthenticate request received after successful authentication".to_owned()),
            ..SaslAuthenticateResponse::default()
        };
        exchange.reply(&response).await
    }
}
