//! SaslHandshake (17): which mechanism a client will authenticate by (KIP-43).
#![forbid(unsafe_code)]

message! {
    /// Version 1 goes on with SaslAuthenticate, version 0 with bare tokens.
    struct SaslHandshakeRequest of SaslHandshake {
        mechanism: String [0..],
    }

    /// The mechanisms of the listener.
    struct SaslHandshakeResponse of SaslHandshake {
        error_code: i16 [0..],
        mechanisms: Vec<String> [0..],
    }
}
