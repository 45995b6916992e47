//! The ring of a shard: the only place that touches submission and completion entries, and, with `sys`, the only home
//! of `unsafe`.
//!
//! `ring` sets up, submits and reaps; `op` is the life of one operation; `ops` holds one file per kernel operation;
//! `receive_pool` is the provided-buffer ring; `probe` says at start-up whether this machine lets us have a ring.

pub mod doorbell;
pub mod op;
pub mod ops;
pub mod probe;
pub mod receive_pool;
pub mod ring;

pub use op::{Op, Stream};
pub use ring::Ring;

#[cfg(test)]
mod tests;
