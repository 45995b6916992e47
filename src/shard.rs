//! A shard: one thread, one ring, its connections and its partitions.
//!
//! `run` is the loop; `dispatch` brings a frame to its handler; what the shard holds is in [`crate::local`];
//! `metadata_inputs` does what the control thread says; `checkpoints` writes down how far the logs are; `flusher`
//! bounds what is not flushed;
//! `retention` and `cleaner` look after what is old in them; `status` tells whoever watches.

pub mod checkpoints;
pub mod cleaner;
pub mod dispatch;
mod flusher;
pub mod lanes;
pub mod metadata_inputs;
mod retention;
pub mod run;
pub mod shard;
mod status;
