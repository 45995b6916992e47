//! A partition's log on disk, in Kafka 3.9's files, byte for byte.
//!
//! A [`log::Log`] belongs to one shard and is a plain value. Nothing borrowed crosses an await: whatever waits comes in
//! halves, a method that gives a `'static` future and a `finish_*` that takes what the future resolved to.

#![forbid(unsafe_code)]

pub mod cache_mark;
pub mod checkpoint;
pub mod compaction;
pub mod entry;
pub mod held;
pub mod identity;
pub mod leader_epoch;
pub mod log;
pub mod log_dir;
pub mod log_dirs;
pub mod offset_index;
pub mod open_files;
pub mod producer_state;
pub mod recovery;
pub mod refusal;
pub mod retention;
pub mod segment;
pub mod stray;
pub mod time_index;
pub mod transaction_index;
