pub mod base;
/// Every setting, and the only reader of files and environment.
pub mod config;
pub mod executor;
/// What the cluster has agreed on, and the images of it.
pub mod metadata;
pub mod metrics;
pub mod net;
/// Leader roles over a log.
pub mod partition;
pub mod platform;
/// Kafka's wire protocol: bytes <-> values.
pub mod protocol;
/// The record batch on the wire and on disk: pure, no files, clocks or sockets.
pub mod record;
pub mod shard;
/// The world below the real code, simulated under a seed.
pub mod sim;
/// A partition's log on disk.
pub mod storage;
pub mod sys;
pub mod uring;
pub mod worker;
