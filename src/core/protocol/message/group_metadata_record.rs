//! Records of `__consumer_offsets` whose keys have type 2: a group and its members after a rebalance.
#![forbid(unsafe_code)]

use bytes::Bytes;

kept_message! {
    /// Which group.
    struct GroupMetadataKey of [2..=2] {
        group: String [2..],
    }

    /// Without members the group is empty. Version 4 is the first flexible one (KIP-915).
    struct GroupMetadataValue of [0..=4; flexible 4..] {
        /// `consumer`, `connect`, or another word of clients.
        protocol_type: String [0..],
        generation: i32 [0..],
        protocol: Option<String> [0..],
        leader: Option<String> [0..],
        current_state_timestamp: i64 [2..; ignorable] default(-1),
        members: Vec<GroupMemberMetadata> [0..],
    }

    /// A member; the times are milliseconds.
    struct GroupMemberMetadata {
        member_id: String [0..],
        group_instance_id: Option<String> [3..; ignorable] default(None),
        client_id: String [0..],
        client_host: String [0..],
        rebalance_timeout: i32 [1..; ignorable] default(-1),
        session_timeout: i32 [0..],
        /// Of consumers a version and a `ConsumerProtocolSubscription`.
        subscription: Bytes [0..],
        /// Of consumers a version and a `ConsumerProtocolAssignment`; empty before there is one.
        assignment: Bytes [0..],
    }
}
