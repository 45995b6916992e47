//! DeleteTopics (20).
#![forbid(unsafe_code)]

use crate::base::ids::TopicId;

message! {
    /// Topics to delete, by `topic_names` up to version 5, then by `topics`.
    struct DeleteTopicsRequest of DeleteTopics {
        topics: Vec<DeleteTopicState> [6..],
        topic_names: Vec<String> [0..=5; ignorable],
        timeout_ms: i32 [0..],
    }

    /// A topic by name, or by id with a null name (KIP-516).
    struct DeleteTopicState {
        name: Option<String> [6..] default(None),
        topic_id: TopicId [6..],
    }

    /// Each topic's result.
    struct DeleteTopicsResponse of DeleteTopics {
        throttle_time_ms: i32 [1..; ignorable],
        responses: Vec<DeletableTopicResult> [0..],
    }

    /// A topic deleted or not.
    struct DeletableTopicResult {
        name: Option<String> [0..] null [6..],
        topic_id: TopicId [6..; ignorable],
        error_code: i16 [0..],
        error_message: Option<String> [5..; ignorable] default(None),
    }
}
