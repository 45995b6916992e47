pub mod base;
pub mod executor;
pub mod metrics;
pub mod platform;
pub mod shard;
pub mod sys;
pub mod uring;
pub mod worker;
