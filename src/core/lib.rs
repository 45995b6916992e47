//! What the broker and the tools stand on, and what stands on neither: records, the wire protocol, a client without I/O,
//! settings and counters. Nothing here opens a file or a socket but `config`, which reads what it is told to.
//!
//! A crate of its own, so that a change of the broker builds none of it again, and none of it can import the broker.

/// Leaves: identifiers, time, checksums, bounds.
pub mod base;
/// A small Kafka client without I/O.
pub mod client;
/// Every setting, and the only reader of files and environment.
pub mod config;
pub mod executor;
pub mod metrics;
/// Kafka's wire protocol: bytes <-> values.
pub mod protocol;
/// The record batch on the wire and on disk: pure, no files, clocks or sockets.
pub mod record;
