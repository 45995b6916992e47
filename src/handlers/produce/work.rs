//! Produce on the owners of its partitions: batches are queued in the order in which they were handed over, and told to be
//! written. Those that must be on all replicas leave something to wait for, at home and with nothing held here.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_channel::oneshot;

use crate::local::{Local, Work};
use crate::partition::append::{Append, AppendFailure, Appended, Origin, Replication};
use crate::partition::partition::{ANY_EPOCH, LeadershipError};
use crate::platform::{Clock, Platform};
use crate::record::batch::BatchHeader;

/// Batches for the partitions of one owner.
#[derive(Debug)]
pub struct ProduceWork {
    pub batches: Vec<ProduceBatch>,
    /// acks=all.
    pub all_replicas: bool,
}

#[derive(Debug)]
pub struct ProduceBatch {
    /// In the request.
    pub place: usize,
    pub topic: Arc<str>,
    pub partition: i32,
    pub batch: BytesMut,
    pub header: BatchHeader,
}

/// What became of the batch at one place of the request.
#[derive(Debug)]
pub struct ProduceDone {
    pub place: usize,
    pub result: Result<Written, AppendFailure>,
    /// How long it was written and waited for the flush.
    pub waited: Duration,
}

/// A batch that is written, and flushed where that is asked for.
#[derive(Debug)]
pub struct Written {
    pub appended: Appended,
    /// Resolves when all replicas that must have it do; `None` if they do, or none must.
    pub replicated: Option<oneshot::Receiver<Result<(), AppendFailure>>>,
}

impl<P: Platform> Work<P> for ProduceWork {
    type Done = Vec<ProduceDone>;

    fn execute(self, local: Rc<Local<P>>) -> impl Future<Output = Vec<ProduceDone>> + 'static {
        let all_replicas = self.all_replicas;
        let queue = |ProduceBatch { place, topic, partition, batch, header }: ProduceBatch| {
            let found = local.partition(&topic, partition);
            local.counters.produce_bytes_total.add(batch.len() as u64);
            local.counters.produce_records_total.add(u64::try_from(header.record_count).unwrap_or(0));
            let receiver = match &found {
                Some(partition) => {
                    let (origin, leader_epoch) = (Origin::Client, ANY_EPOCH);
                    partition.append_replicated(Append { batch, header, origin, leader_epoch, all_replicas })
                }
                None => Err(AppendFailure::Leadership(LeadershipError::NotLeader)),
            };
            (place, found, receiver)
        };
        let queued: Vec<_> = self.batches.into_iter().map(queue).collect();
        async move {
            let clock = local.platform.clock();
            let mut done = Vec::with_capacity(queued.len());
            for (place, partition, receiver) in queued {
                let appended = match receiver {
                    // Dropped unanswered: the partition was closed under its batches.
                    Ok(receiver) => receiver.await.unwrap_or(Err(AppendFailure::Interrupted)),
                    Err(failure) => Err(failure),
                };
                let unflushed_since = appended.as_ref().ok().and_then(|appended| appended.unflushed_since);
                let waited = unflushed_since.map_or(Duration::ZERO, |since| clock.now().since(since));
                let result = appended.and_then(|appended| {
                    let replication = match partition.filter(|_| all_replicas) {
                        Some(partition) => partition.when_replicated(&appended)?,
                        None => Replication::Replicated,
                    };
                    let replicated = match replication {
                        Replication::Replicated => None,
                        Replication::Waiting(replicated) => Some(replicated),
                    };
                    Ok(Written { appended, replicated })
                });
                #[cfg(test)]
                let result = planted::hold_while_replicated(result).await;
                done.push(ProduceDone { place, result, waited });
            }
            done
        }
    }
}

/// The planted bugs that the simulator must catch.
#[cfg(test)]
pub(crate) mod planted {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// A produce that waits for replicas keeps its credit, and all requests share those of one class.
        pub(crate) static HOLD_CREDITS: Cell<bool> = const { Cell::new(false) };
        /// A produce that waits for replicas goes on waiting when its connection is closed.
        pub(crate) static OUTLIVE_CLIENTS: Cell<bool> = const { Cell::new(false) };
    }

    pub(super) async fn hold_while_replicated(
        result: Result<Written, AppendFailure>,
    ) -> Result<Written, AppendFailure> {
        match result {
            Ok(Written { appended, replicated: Some(replicated) }) if HOLD_CREDITS.get() => {
                replicated.await.unwrap_or(Err(AppendFailure::Interrupted))?;
                Ok(Written { appended, replicated: None })
            }
            result => result,
        }
    }
}
