//! DescribeProducers (61): the producer ids that partitions know (KIP-664).
#![forbid(unsafe_code)]

message! {
    /// The partitions to look at.
    struct DescribeProducersRequest of DescribeProducers {
        topics: Vec<TopicRequest> [0..],
    }

    /// A topic asked for.
    struct TopicRequest {
        name: String [0..],
        partition_indexes: Vec<i32> [0..],
    }

    /// The producers found.
    struct DescribeProducersResponse of DescribeProducers {
        throttle_time_ms: i32 [0..],
        topics: Vec<TopicResponse> [0..],
    }

    /// A topic answered.
    struct TopicResponse {
        name: String [0..],
        partitions: Vec<PartitionResponse> [0..],
    }

    /// A partition's producers.
    struct PartitionResponse {
        partition_index: i32 [0..],
        error_code: i16 [0..],
        error_message: Option<String> [0..] default(None),
        active_producers: Vec<ProducerState> [0..],
    }

    /// A producer id; -1 for what it has not.
    struct ProducerState {
        producer_id: i64 [0..],
        producer_epoch: i32 [0..],
        last_sequence: i32 [0..] default(-1),
        last_timestamp: i64 [0..] default(-1),
        coordinator_epoch: i32 [0..],
        current_txn_start_offset: i64 [0..] default(-1),
    }
}
