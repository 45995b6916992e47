//! What one shard holds: its partitions, the image that it reads, its budgets and counters, and the way to other shards.
//!
//! Handlers, coordinators and replication stand on it, beside one another. [`Local`] is one for each shard and never leaves
//! its thread; [`routing`] brings work to the shard that owns a partition, over [`mailbox`] if that is another one.

#![forbid(unsafe_code)]

pub mod budgets;
pub mod fetch_sessions;
pub mod local;
pub mod mailbox;
pub mod partitions;
pub mod proposing;
pub mod routing;

pub use local::Local;
pub use routing::{Work, by_owner, owner_of};
