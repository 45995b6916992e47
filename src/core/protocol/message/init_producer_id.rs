//! InitProducerId (22): idempotent and transactional producers get id and epoch (KIP-98, KIP-360).
#![forbid(unsafe_code)]

message! {
    /// Asks for a producer id, or with one for the next epoch (KIP-360); a null transactional id: idempotent only.
    struct InitProducerIdRequest of InitProducerId {
        transactional_id: Option<String> [0..],
        transaction_timeout_ms: i32 [0..],
        producer_id: i64 [3..] default(-1),
        producer_epoch: i16 [3..] default(-1),
    }

    /// The producer id and epoch to write with.
    struct InitProducerIdResponse of InitProducerId {
        throttle_time_ms: i32 [0..; ignorable],
        error_code: i16 [0..],
        producer_id: i64 [0..] default(-1),
        producer_epoch: i16 [0..],
    }
}
