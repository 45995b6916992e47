//! CreatePartitions (37).
#![forbid(unsafe_code)]

message! {
    /// Topics that are to have more partitions, or only to be checked (`validate_only`).
    struct CreatePartitionsRequest of CreatePartitions {
        topics: Vec<CreatePartitionsTopic> [0..],
        timeout_ms: i32 [0..],
        validate_only: bool [0..],
    }

    /// A topic and how many partitions it is to have in all; `assignments` is of the new ones, null: chosen here.
    struct CreatePartitionsTopic {
        name: String [0..],
        count: i32 [0..],
        assignments: Option<Vec<CreatePartitionsAssignment>> [0..],
    }

    /// Replicas of one new partition, preferred leader first.
    struct CreatePartitionsAssignment {
        broker_ids: Vec<i32> [0..],
    }

    /// Each topic's result.
    struct CreatePartitionsResponse of CreatePartitions {
        throttle_time_ms: i32 [0..],
        results: Vec<CreatePartitionsTopicResult> [0..],
    }

    /// One topic's result.
    struct CreatePartitionsTopicResult {
        name: String [0..],
        error_code: i16 [0..],
        error_message: Option<String> [0..] default(None),
    }
}
