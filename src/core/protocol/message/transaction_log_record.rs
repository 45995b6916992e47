//! Records of `__transaction_state`: where each transactional id stands.
#![forbid(unsafe_code)]

kept_message! {
    /// Which transactional id.
    struct TransactionLogKey of [0..=0] {
        transactional_id: String [0..],
    }

    /// Its producer and transaction. Version 1 is the first flexible one (KIP-915).
    struct TransactionLogValue of [0..=1; flexible 1..] {
        producer_id: i64 [0..],
        producer_epoch: i16 [0..],
        transaction_timeout_ms: i32 [0..],
        /// 0 Empty, 1 Ongoing, 2 PrepareCommit, 3 PrepareAbort, 4 CompleteCommit, 5 CompleteAbort, 6 Dead,
        /// 7 PrepareEpochFence.
        transaction_status: i8 [0..],
        /// Null while it is empty.
        transaction_partitions: Option<Vec<TransactionPartitions>> [0..],
        transaction_last_update_timestamp_ms: i64 [0..],
        transaction_start_timestamp_ms: i64 [0..],
    }

    /// Partitions of one topic that the transaction wrote to.
    struct TransactionPartitions {
        topic: String [0..],
        partition_ids: Vec<i32> [0..],
    }
}
