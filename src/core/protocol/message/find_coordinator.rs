//! FindCoordinator (10): which broker coordinates a group or a transactional id.
#![forbid(unsafe_code)]

message! {
    /// Whose coordinator to find: one `key` up to version 3, then `coordinator_keys` (KIP-699).
    struct FindCoordinatorRequest of FindCoordinator {
        key: String [0..=3],
        key_type: i8 [1..],
        coordinator_keys: Vec<String> [4..],
    }

    /// The coordinator, or from version 4 one for each key.
    struct FindCoordinatorResponse of FindCoordinator {
        throttle_time_ms: i32 [1..; ignorable],
        error_code: i16 [0..=3],
        error_message: Option<String> [1..=3; ignorable],
        node_id: i32 [0..=3],
        host: String [0..=3],
        port: i32 [0..=3],
        coordinators: Vec<Coordinator> [4..],
    }

    /// A key's coordinator, or node -1 and an error.
    struct Coordinator {
        key: String [4..],
        node_id: i32 [4..],
        host: String [4..],
        port: i32 [4..],
        error_code: i16 [4..],
        error_message: Option<String> [4..; ignorable],
    }
}
