//! Records of `__consumer_offsets` whose keys have type 0 or 1: what a group has committed. The type is the key's version.
#![forbid(unsafe_code)]

kept_message! {
    /// Whose offset, of which partition.
    struct OffsetCommitKey of [0..=1] {
        group: String [0..],
        topic: String [0..],
        partition: i32 [0..],
    }

    /// What was committed; times are milliseconds. Version 4 is the first flexible one (KIP-915).
    struct OffsetCommitValue of [0..=4; flexible 4..] {
        offset: i64 [0..],
        leader_epoch: i32 [3..; ignorable] default(-1),
        metadata: String [0..],
        commit_timestamp: i64 [0..],
        /// -1: as the broker's retention says.
        expire_timestamp: i64 [1..=1; ignorable] default(-1),
    }
}
