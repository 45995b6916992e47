//! What Produce and Fetch say of a partition that has moved, so that a client need not ask for metadata (KIP-951).
#![forbid(unsafe_code)]

message! {
    /// The leader the broker knows of; -1 and -1: it says nothing.
    struct LeaderIdAndEpoch {
        leader_id: i32 [0..] default(-1),
        leader_epoch: i32 [0..] default(-1),
    }

    /// Where a leader named in the same response can be reached.
    struct NodeEndpoint {
        node_id: i32 [0..],
        host: String [0..],
        port: i32 [0..],
        rack: Option<String> [0..] default(None),
    }
}
