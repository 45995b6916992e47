//! One file per API. Those that touch partitions have three functions, read in order: `plan` (on the connection's shard:
//! decode, check, split by owning shard), `execute` (on the owner), `reply` (back home: gather, encode); the others are
//! one function. The hops between are behind [`Owners`], whose real form is in `shard/`.

#![forbid(unsafe_code)]

pub mod alter_configs;
pub mod api_versions;
pub mod configs;
pub mod context;
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
use std::rc::Rc;

use crate::base::ids::ShardId;
use crate::platform::Platform;

pub use context::Context;

/// What the shard that owns some partitions is to do with them.
pub trait Work<P: Platform>: Send + 'static {
    type Done: Send + 'static;

    fn execute(self, context: Rc<Context<P>>) -> impl Future<Output = Self::Done> + 'static;
}

/// The way to the shards that own partitions. `None`: the process stops, nothing can be answered any more.
pub trait Owners<P: Platform> {
    /// On its own, since batches are queued in the order of the calls.
    fn produce(
        &self,
        owner: ShardId,
        work: produce::Work,
    ) -> impl Future<Output = Option<Vec<produce::Done>>> + 'static;

    fn ask<W: Work<P>>(&self, owner: ShardId, work: W) -> impl Future<Output = Option<W::Done>> + 'static;
}
