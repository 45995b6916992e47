//! ringlog: a Kafka 3.9-compatible broker for Linux. This page is the map.
//!
//! # Threads
//!
//! ```text
//!  main       starts and stops everything (broker)
//!  signals    waits for SIGINT, SIGTERM and SIGHUP
//!  shard-0..N one thread, one ring, one executor each: connections, partitions   (shard/run.rs is the only place that waits)
//!  metadata   the same loop over a small ring: the metadata tree, and this broker's membership, settings and controller
//!             as pure machines over it; publishes images, takes proposals
//!  disk-D.0.. helpers of log directory D: open, close, delete, preallocate, checkpoints; one partition's always on the same
//!  sync-D     sixteen for each log directory: fsync and write-back
//!  admin      HTTP: /metrics, /healthz, /readyz
//!  work-0..M  CPU-heavy jobs at the lowest priority
//! ```
//! Threads meet in bounded queues. A task that waits for another thread is woken through its executor's ready queue and
//! the shard's one doorbell (`executor`, `base/sleep.rs`, `uring/doorbell.rs`).
//!
//! # Who may import whom
//!
//! Left may use right; everything may use `base`, `executor`, `config`'s structs and `metrics`. `tests/layering.rs` holds
//! this table.
//!
//! ```text
//!  main > broker, cli > shard > handlers > local > partition > storage > record        replication > local
//!  storage, net, partition, local, handlers, shard, worker > platform    platform::linux, broker, net::listener > uring, worker > sys
//!  shard, handlers > net > protocol::frame          handlers, local > protocol, metadata::{image, node, proposal, thread}
//!  cli > client > protocol, record
//!  broker > admin > protocol::{api_key, error_code}      broker > controller > metadata        sim::disk stands below platform; the rest of sim is in tests only
//! ```
//!
//! # Two walks
//!
//! Seven files each, in the order in which a request goes through them; what they call on the way is named in brackets.
//!
//! **Produce.**
//! 1. `net/connection.rs` cuts a frame (`net/frames.rs`), has its header read, and takes the next reply slot for it.
//! 2. `shard/dispatch.rs` finds the row of its API (`handlers/api.rs`) and calls the handler with an `Exchange`.
//! 3. `handlers/produce.rs` plans: each batch is checked on the received bytes (`produce/check.rs`, `record/validate.rs`) and
//!    handed, in the order of the connection, to the shard that owns its partition (`local/routing.rs`); one that changes
//!    its codec goes over a work thread first (`produce/late.rs`).
//! 4. `handlers/produce/work.rs` executes there: queues the batches, and answers when they are written.
//! 5. `partition/append.rs` checks leadership and queues; its task (`append/task.rs`) stages what waits, and writes.
//! 6. `storage/log/append.rs` checks the producer's sequence, stamps base offset and leader epoch in place, and after
//!    `Disk::append` moves the log end and the index. acks=all then waits at home for the high watermark
//!    (`partition/purgatory.rs`, `partition/role.rs`), holding neither bytes nor credit.
//! 7. Back in `produce.rs` the answers are gathered; `net/reply.rs` sends replies in the order of their slots.
//!
//! **Fetch.** In by the same door (1, 2), then
//!
//! 3. `handlers/fetch.rs` takes up the session (`local/fetch_sessions.rs`) and asks each owner with the whole byte budget.
//! 4. `handlers/fetch/work.rs` executes there, and leaves a watch (`partition/purgatory.rs`) if it finds less than `min.bytes`.
//! 5. `partition/read.rs` checks the epochs and reads below the high watermark, the last stable offset or the log end.
//! 6. `storage/log/read.rs` goes from index to the position of the batch to a `FileRange` (`platform.rs`).
//! 7. `handlers/fetch/answer.rs` trims in request order and writes headers around the ranges; `net/reply.rs` sends bytes, then
//!    sendfile for each range, bringing in what is not resident first.

#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

pub mod admin;
pub mod base;
/// Start order and stop order of the whole process.
pub mod broker;
/// The command line, one file per subcommand.
pub mod cli;
/// A small Kafka client without I/O.
pub mod client;
/// Every setting, and the only reader of files and environment.
pub mod config;
/// Decides topics, leaders and epochs, without doing any I/O.
pub mod controller;
pub mod executor;
pub mod handlers;
/// What one shard holds, below handlers.
pub mod local;
/// What the cluster has agreed on, and the images of it.
pub mod metadata;
pub mod metrics;
pub mod net;
/// Replicas: each a role over a log.
pub mod partition;
pub mod platform;
/// Kafka's wire protocol: bytes <-> values.
pub mod protocol;
/// The record batch on the wire and on disk: pure, no files, clocks or sockets.
pub mod record;
/// Followers of leaders elsewhere.
pub mod replication;
pub mod shard;
/// The world below the real code, simulated under a seed.
pub mod sim;
/// A partition's log on disk.
pub mod storage;
pub mod sys;
pub mod uring;
pub mod worker;
