//! All that crosses from shard to shard. Every message is a request to the owner of partitions and carries the way back
//! for its answer; a message or an answer that is dropped (the process stops) resolves the asker with `None`.

#![forbid(unsafe_code)]

use futures_channel::oneshot;

use crate::handlers::{fetch, list_offsets, produce};
use crate::partition::partition::LogCheckpoint;
use crate::platform::Platform;

/// From a connection's shard to an owner; see [`super::router`] for both ends.
pub enum Message<P: Platform> {
    /// Append these batches.
    Produce { work: produce::Work, answer: oneshot::Sender<Vec<produce::Done>> },
    /// Read these partitions.
    Fetch { work: fetch::Work, answer: oneshot::Sender<Vec<fetch::Done<P>>> },
    /// Look offsets up.
    ListOffsets { work: list_offsets::Work, answer: oneshot::Sender<Vec<list_offsets::Done>> },
    /// From the shard that writes the checkpoints: how far are your logs?
    Checkpoints { answer: oneshot::Sender<Vec<LogCheckpoint>> },
}
