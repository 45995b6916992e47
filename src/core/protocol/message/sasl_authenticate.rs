//! SaslAuthenticate (36): one token of a mechanism each way (KIP-152).
#![forbid(unsafe_code)]

use bytes::Bytes;

message! {
    /// The client's token.
    struct SaslAuthenticateRequest of SaslAuthenticate {
        auth_bytes: Bytes [0..],
    }

    /// The broker's token, and how long the session holds (KIP-368).
    struct SaslAuthenticateResponse of SaslAuthenticate {
        error_code: i16 [0..],
        error_message: Option<String> [0..],
        auth_bytes: Bytes [0..],
        session_lifetime_ms: i64 [1..; ignorable],
    }
}
