//! All that crosses from shard to shard. Every message is a request to the owner of partitions and carries the way back
//! for its answer; a message or an answer that is dropped (the process stops) resolves the asker with `None`.

#![forbid(unsafe_code)]

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use futures_channel::oneshot;

use crate::handlers::{Context, produce};
use crate::partition::partition::LogCheckpoint;
use crate::platform::Platform;

/// Work that knows the way back for its answer.
pub type AnsweringWork<P> = Box<dyn FnOnce(Rc<Context<P>>) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// From a connection's shard to an owner; see [`super::router`] for both ends.
pub enum Message<P: Platform> {
    /// Append these batches.
    Produce { work: produce::Work, answer: oneshot::Sender<Vec<produce::Done>> },
    /// Any other handler's part on the owner.
    Work(AnsweringWork<P>),
    /// From the shard that writes the checkpoints: how far are your logs?
    Checkpoints { answer: oneshot::Sender<Vec<LogCheckpoint>> },
}
