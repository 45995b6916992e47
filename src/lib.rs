pub mod base;
pub mod executor;
pub mod metrics;
pub mod net;
pub mod platform;
/// Kafka's wire protocol: bytes <-> values.
pub mod protocol;
pub mod shard;
pub mod sys;
pub mod uring;
pub mod worker;
