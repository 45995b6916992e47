//! How often, and for how long, a shard's thread slept inside a call that must not wait.

#![forbid(unsafe_code)]

use super::counter::Counter;

/// The calls on files that a shard's thread makes itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldCall {
    /// pwritev: an append.
    Write,
    /// sendfile.
    Send,
    /// preadv2 with RWF_NOWAIT, and cachestat.
    Read,
}

impl HeldCall {
    pub const ALL: [HeldCall; 3] = [HeldCall::Write, HeldCall::Send, HeldCall::Read];

    pub fn name(self) -> &'static str {
        match self {
            HeldCall::Write => "write",
            HeldCall::Send => "send",
            HeldCall::Read => "read",
        }
    }
}

/// Of one kind of call.
#[derive(Debug, Default)]
pub struct HeldTime {
    /// Calls in which the thread slept for longer than is taken for nothing.
    pub calls_total: Counter,
    /// What they took in all.
    pub ns_total: Counter,
}

/// Of all of them.
#[derive(Debug, Default)]
pub struct HeldTimes([HeldTime; HeldCall::ALL.len()]);

impl HeldTimes {
    pub fn of(&self, call: HeldCall) -> &HeldTime {
        &self.0[call as usize]
    }
}
