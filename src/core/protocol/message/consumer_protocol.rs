//! What members of consumer groups tell each other, as bytes to the coordinator: a version i16 and one of these messages.
//! A version beyond these is read as the last one, whose fields later ones keep.
#![forbid(unsafe_code)]

use bytes::Bytes;

kept_message! {
    /// What a member wants, and what it has (from version 1, KIP-429).
    struct ConsumerProtocolSubscription of [0..=3] {
        topics: Vec<String> [0..],
        user_data: Option<Bytes> [0..] default(None),
        owned_partitions: Vec<ConsumerProtocolPartitions> [1..; ignorable],
        generation_id: i32 [2..; ignorable] default(-1),
        rack_id: Option<String> [3..; ignorable] default(None),
    }

    /// What a member is to read.
    struct ConsumerProtocolAssignment of [0..=3] {
        assigned_partitions: Vec<ConsumerProtocolPartitions> [0..],
        user_data: Option<Bytes> [0..] default(None),
    }

    /// Partitions of one topic.
    struct ConsumerProtocolPartitions {
        topic: String [0..],
        partitions: Vec<i32> [0..],
    }
}
