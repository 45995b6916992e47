//! Replicas, each a role over a log: what may be appended and read under which leader epoch, and who waits for an offset.

#![forbid(unsafe_code)]

pub mod append;
pub mod clean;
mod flush;
pub mod gather;
pub mod home;
mod leadership;
pub mod partition;
pub mod purgatory;
pub mod read;
pub mod replica_set;
pub mod replicate;
pub mod retain;
pub mod role;
mod slot;
pub mod truncate;

pub use home::Home;
pub use partition::{Partition, Settings};
pub use role::LeaderAndIsr;
