//! ringlog: a Kafka 3.9-compatible broker for Linux. This page is the map.
//!
//! # Threads
//!
//! ```text
//!  main       starts and stops everything (broker)
//!  signals    waits for SIGINT, SIGTERM and SIGHUP
//!  shard-0..N one thread, one ring, one executor each: connections, partitions   (shard/run.rs is the only place that waits)
//!  metadata   owns the metadata tree and the controller; publishes images, takes proposals
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
//!  main > broker, cli > shard > handlers > partition > storage > record
//!  storage, net, partition, handlers, shard, worker > platform      platform::linux, broker, net::listener > uring, worker > sys
//!  shard > net > protocol::frame         shard, handlers > protocol, metadata::{image, node, proposal, thread}
//!  cli > client > protocol, record
//!  broker > admin > protocol::{api_key, error_code}      broker > controller > metadata        sim stands below platform, and in tests above everything
//! ```
//!
//! # Two walks
//!
//! **Produce.** `net/connection.rs` cuts a frame (`net/frames.rs`) and takes the next reply slot -> `shard/dispatch.rs`
//! checks key and version, one match arm -> `handlers/produce.rs::Plan::new` validates batch header and CRC on the received
//! bytes (`record/validate.rs`; what is to change its codec goes over a work thread and `record/repack.rs`, in the order
//! that `produce/order.rs` keeps) -> `shard/router.rs` brings the work to its owner, over `shard/mailbox.rs` if that is another
//! shard -> `produce.rs::execute` there -> `partition/append.rs` checks leadership and queues (`partition/gather.rs`
//! with `--rebatch`) -> `storage/log.rs::stage`
//! checks the producer's sequence (`storage/producer_state.rs`), stamps base offset and leader epoch in place
//! (`record/batch.rs`) -> `Disk::append` (`platform/linux/disk.rs`) -> `log.rs::finish_write`: the log end and its index
//! (`storage/segment.rs`, `storage/offset_index.rs`) move; acks=all waits in `partition/purgatory.rs` for the high watermark
//! (`partition/replica_set.rs`) -> `produce.rs::Plan::reply` fills the slot -> `net/reply.rs` sends slots in order.
//!
//! **Fetch.** Same door -> `handlers/fetch.rs::Plan::new` takes up the session (`handlers/fetch/session.rs`) and asks
//! each owner with the whole byte budget, by `shard/router.rs` -> `handlers/fetch/work.rs::execute` there ->
//! `partition/read.rs` checks the epochs, reads below the high watermark or the last stable offset ->
//! `storage/log/read.rs` goes index (`storage/offset_index.rs`) -> position of the batch -> `FileRange`
//! (`platform.rs`) -> short of `min.bytes`: a watch in `partition/purgatory.rs`, which counts the bytes that come ->
//! `handlers/fetch/answer.rs` trims in request order and writes headers around the ranges, converted records for old
//! versions (`handlers/fetch/convert.rs`) -> `net/reply.rs` sends bytes, then sendfile per range
//! (`platform/linux/socket.rs`), bringing in what is not resident first.

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
