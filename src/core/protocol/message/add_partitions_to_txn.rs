//! AddPartitionsToTxn (24): partitions become part of a transaction before anything is written to them (KIP-98).
#![forbid(unsafe_code)]

message! {
    /// Partitions to add. Clients name one transaction and use versions up to 3; brokers name many, and may only ask
    /// whether the partitions are in them (KIP-890).
    struct AddPartitionsToTxnRequest of AddPartitionsToTxn {
        transactions: Vec<AddPartitionsToTxnTransaction> [4..],
        v3_and_below_transactional_id: String [0..=3],
        v3_and_below_producer_id: i64 [0..=3],
        v3_and_below_producer_epoch: i16 [0..=3],
        v3_and_below_topics: Vec<AddPartitionsToTxnTopic> [0..=3],
    }

    /// One transaction's partitions.
    struct AddPartitionsToTxnTransaction {
        transactional_id: String [4..],
        producer_id: i64 [4..],
        producer_epoch: i16 [4..],
        verify_only: bool [4..],
        topics: Vec<AddPartitionsToTxnTopic> [4..],
    }

    /// Partitions of a topic.
    struct AddPartitionsToTxnTopic {
        name: String [0..],
        partitions: Vec<i32> [0..],
    }

    /// How it went.
    struct AddPartitionsToTxnResponse of AddPartitionsToTxn {
        throttle_time_ms: i32 [0..],
        error_code: i16 [4..; ignorable],
        results_by_transaction: Vec<AddPartitionsToTxnResult> [4..],
        results_by_topic_v3_and_below: Vec<AddPartitionsToTxnTopicResult> [0..=3],
    }

    /// One transaction's results.
    struct AddPartitionsToTxnResult {
        transactional_id: String [4..],
        topic_results: Vec<AddPartitionsToTxnTopicResult> [4..],
    }

    /// A topic's results.
    struct AddPartitionsToTxnTopicResult {
        name: String [0..],
        results_by_partition: Vec<AddPartitionsToTxnPartitionResult> [0..],
    }

    /// A partition's.
    struct AddPartitionsToTxnPartitionResult {
        partition_index: i32 [0..],
        partition_error_code: i16 [0..],
    }
}
