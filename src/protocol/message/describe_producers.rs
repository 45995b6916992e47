//! DescribeProducers (61): the producer ids that partitions know (KIP-664).
#![forbid(unsafe_code)]

message! {
    /// The partitions to look at.
    struct DescribeProducersRequest of DescribeProducers {
        topics: Vec<DescribeProducersTopic> [0..],
    }

    /// A topic asked for.
    struct DescribeProducersTopic {
        name: String [0..],
        partition_indexes: Vec<i32> [0..],
    }

    /// The producers found.
    struct DescribeProducersResponse of DescribeProducers {
        throttle_time_ms: i32 [0..],
        topics: Vec<DescribeProducersTopicResponse> [0..],
    }

    /// A topic answered.
    struct DescribeProducersTopicResponse {
        name: String [0..],
        partitions: Vec<DescribeProducersPartitionResponse> [0..],
    }

    /// A partition's producers.
    struct DescribeProducersPartitionResponse {
        partition_index: i32 [0..],
        error_code: i16 [0..],
        error_message: Option<String> [0..] default(None),
        active_producers: Vec<DescribedProducer> [0..],
    }

    /// A producer id; -1 for what it has not.
    struct DescribedProducer {
        producer_id: i64 [0..],
        producer_epoch: i32 [0..],
        last_sequence: i32 [0..] default(-1),
        last_timestamp: i64 [0..] default(-1),
        coordinator_epoch: i32 [0..],
        current_txn_start_offset: i64 [0..] default(-1),
    }
}
