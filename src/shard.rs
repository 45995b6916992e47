//! A shard: one thread, one ring, its connections and its partitions.
//!
//! `run` is the loop; `dispatch` brings a frame to its handler; `message` and `mailbox` are all that crosses cores;
//! `metadata_inputs` does what the metadata thread says; `checkpoints` writes down how far the logs are; `flusher`
//! bounds what is not flushed;
//! `retention` and `cleaner` look after what is old in them; `status` tells whoever watches.

pub mod checkpoints;
pub mod cleaner;
pub mod dispatch;
mod flusher;
pub mod lanes;
pub mod mailbox;
pub mod message;
pub mod metadata_inputs;
mod retention;
pub mod router;
pub mod run;
pub mod shard;
mod status;
