//! ringlog: a Kafka 3.9-compatible broker for Linux. This page is the map.
//!
//! # Threads
//!
//! ```text
//!  main          starts and stops everything (broker)
//!  signals       waits for SIGINT, SIGTERM and SIGHUP
//!  shard-0..N    one thread, one ring, one executor each: connections, partitions   (shard/run.rs is the only place that waits)
//!  control       the same loop over a small ring: the metadata tree, and this broker's membership, settings and controller
//!                as pure machines over it; publishes images, takes proposals
//!  disk-D.0..3   helpers of log directory D: open, close, preallocate, rename, checkpoints; one partition's always on the same
//!  remove-D      deletes the files of log directory D, which may take long
//!  sync-D        sixteen for each log directory: fsync
//!  write-back-D  one for each device, named by the first directory on it: writes back in small pieces, at idle priority
//!  admin         HTTP: /metrics, /healthz, /readyz
//!  work-0..M     CPU-heavy jobs at the lowest priority
//!  mark          when a directory has failed: takes away the mark by which the next start would trust its page cache
//!  deadline      during an orderly stop: ends the process when it takes longer than it may
//! ```
//! Threads meet in bounded queues. A task that waits for another thread is woken through its executor's ready queue and
//! the shard's one doorbell (`executor`, `base/sleep.rs`, `uring/doorbell.rs`).
//!
//! # Who may import whom
//!
//! Left may use right, and what that may, but for `only`; everything may use `base`, `executor`, `config` and `metrics`.
//! A part of a module with a row of its own may use that too, and is used by those alone who name it.
//! `tests/layering.rs` reads this table and holds the source to it; tests may use what they like.
//!
//! ```text
//!  main only broker, cli
//!  cli > tools
//!  cli::log > storage
//!  cli::dump_log > storage
//!  tools > client
//!  client > protocol, record
//!  peer > client, platform
//!  broker > shard, shard::run, net::listener, controller, controller::node, admin
//!  broker > worker, platform::linux, uring, cli::banner
//!  shard > handlers, local, net, worker
//!  shard::run > platform::linux, uring
//!  handlers > local, protocol, net::connection, net::reply
//!  replication > local
//!  local > partition, protocol, metadata::image, metadata::node, metadata::proposal, metadata::thread
//!  partition > storage
//!  storage > record, platform
//!  net > platform, protocol::frame
//!  net::listener > platform::linux, uring
//!  controller > metadata
//!  controller::node > platform
//!  admin > protocol::api_key, protocol::error_code
//!  metadata >
//!  platform >
//!  platform::linux > uring, worker
//!  worker > platform, sys
//!  uring > sys, platform::RECEIVE_CHUNK_BYTES_MAX
//!  sim > platform
//!  executor >
//!  record >
//!  protocol >
//!  sys >
//!  config >
//!  metrics >
//!  base >
//! ```
//! `sim::disk` stands below `platform`; the rest of `sim` is in tests only. There are three crates: `ringlog-core` (`src/core`:
//! `base`, `config`, `metrics`, `executor`, `record`, `protocol`, `client`), `ringlog-tools` (`src/tools`) over it, and this
//! one over both, so that a change of the broker builds neither of them again.
//!
//! # Two walks
//!
//! Seven files each, in the order in which a request goes through them. What they call on the way, and what needs no visit to
//! follow the request, is named in brackets.
//!
//! **Produce.**
//! 1. `net/connection.rs` cuts a frame (`net/frames.rs`), waits for its turn, takes its bytes of the shard's and the next reply
//!    slot, and has it handled (`shard/dispatch.rs`: the header is read, the row of its API looked up in `handlers/api.rs`, and
//!    the row's handler called).
//! 2. `handlers/produce.rs` plans: each batch is checked on the received bytes (`produce/check.rs`, `record/validate.rs`) and
//!    handed, in the order of the connection, to the shard that owns its partition (`local/routing.rs`); one that changes
//!    its codec goes over a work thread first (`produce/late.rs`).
//! 3. `handlers/produce/work.rs` executes there: queues the batches, and answers when they are written.
//! 4. `partition/append.rs` checks leadership and epoch, and queues.
//! 5. `partition/append/task.rs`, one task for each partition, stages what waits, and writes it by `Disk::append`.
//! 6. `storage/log/append.rs` checks the producer's sequence and stamps base offset and leader epoch in place, and when the
//!    write is done moves the log end and the index. Back in 2, acks=all waits for the high watermark
//!    (`partition/purgatory.rs`, `partition/role.rs`), holding neither bytes nor credit, and the answers are gathered.
//! 7. `net/reply.rs` sends replies in the order of their slots.
//!
//! **Fetch.** In by the same door (1), then
//!
//! 2. `handlers/fetch.rs` takes up the session (`local/fetch_sessions.rs`) and asks each owner with the whole byte budget.
//! 3. `handlers/fetch/work.rs` executes there, and leaves a watch (`partition/purgatory.rs`) if it finds less than `min.bytes`.
//! 4. `partition/read.rs` checks the epochs and reads below the high watermark, the last stable offset or the log end.
//! 5. `storage/log/read.rs` goes from index to the position of the batch to a `FileRange` (`platform.rs`).
//! 6. `handlers/fetch/answer.rs` trims in request order and writes headers around the ranges.
//! 7. `net/reply.rs` sends bytes, then sendfile for each range, bringing in what is not resident first.

#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

pub use ringlog_core::{base, client, config, executor, metrics, protocol, record};

pub mod admin;
/// Start order and stop order of the whole process.
pub mod broker;
/// The command line, and the subcommands that are not in `ringlog-tools`.
pub mod cli;
/// Decides topics, leaders and epochs, without doing any I/O.
pub mod controller;
pub mod handlers;
/// What one shard holds, below handlers.
pub mod local;
/// What the cluster has agreed on, and the images of it.
pub mod metadata;
pub mod net;
/// Replicas: each a role over a log.
pub mod partition;
/// A connection to another broker.
pub mod peer;
pub mod platform;
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
