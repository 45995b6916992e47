//! EndTxn (26): commits or aborts a transaction (KIP-98).
#![forbid(unsafe_code)]

message! {
    /// Which transaction ends, and how.
    struct EndTxnRequest of EndTxn {
        transactional_id: String [0..],
        producer_id: i64 [0..],
        producer_epoch: i16 [0..],
        committed: bool [0..],
    }

    /// From here on the outcome is certain; the markers may still be on their way.
    struct EndTxnResponse of EndTxn {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
    }
}
