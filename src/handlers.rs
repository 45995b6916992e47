//! One file per API, and one row for each in [`api`]. Those that touch partitions have three parts, read in order: plan (on
//! the connection's shard: decode, check, split by owning shard), execute (on the owner: a [`Work`](crate::local::Work)), reply
//! (back home: gather, encode); the others are one function. The hops between are [`Local::ask`](crate::local::Local::ask).

#![forbid(unsafe_code)]

pub mod alter_configs;
pub mod api;
pub mod api_versions;
pub mod configs;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_records;
pub mod delete_topics;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_log_dirs;
pub mod describe_producers;
pub mod distinct;
pub mod errors;
pub mod exchange;
pub mod fetch;
pub mod find_coordinator;
pub mod incremental_alter_configs;
pub mod init_producer_id;
pub mod list_offsets;
pub mod metadata;
pub mod offset_for_leader_epoch;
pub mod produce;
pub mod sasl;

use std::future::Future;

use crate::platform::Platform;
pub use exchange::{Exchange, Unanswered};

/// What answers the requests of one API.
pub trait Handler<P: Platform> {
    /// Resolves when the connection's next request may be looked at: with the answer, or, for one that overlaps with others,
    /// when its order is settled; its answer follows.
    ///
    /// # Errors
    /// The request can't be answered: its connection is closed.
    fn handle(exchange: Exchange<P>) -> impl Future<Output = Result<(), Unanswered>> + 'static;
}
