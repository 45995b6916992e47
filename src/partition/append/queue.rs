//! What waits for the append task, and who is told when it is done.

use std::collections::VecDeque;

use bytes::BytesMut;
use futures_channel::oneshot;

use super::{AppendFailure, Appended, Origin};
use crate::base::ids::{LeaderEpoch, Offset};
use crate::partition::home::Waiting;
use crate::partition::role::LeaderAndIsr;
use crate::partition::truncate::Truncation;
use crate::record::batch::BatchHeader;

/// What the append task is to do between two writes, and the batches of the next ones.
#[derive(Default)]
pub(in crate::partition) struct AppendQueue {
    /// In arrival order.
    pub pending: VecDeque<Pending>,
    /// Roles to be taken on, in the order in which they were given.
    pub roles: VecDeque<RoleChange>,
    /// The end of the log is to be taken back.
    pub truncation: Option<Truncation>,
    /// The log is to be rolled; who is told then.
    pub rolls: Vec<oneshot::Sender<()>>,
    /// The log is to give back what it holds for appends.
    pub rest_wanted: bool,
}

/// A role that is taken on when the write in flight has ended; then whoever waits for that is told.
pub(in crate::partition) struct RoleChange {
    pub given: LeaderAndIsr,
    /// Dropped to say it.
    pub _taken: oneshot::Sender<()>,
}

/// A batch on its way into the log.
pub(in crate::partition) struct Pending {
    pub batch: BytesMut,
    pub header: BatchHeader,
    pub origin: Origin,
    /// Of the role under which it was queued: under no other one it is staged.
    pub leader_epoch: LeaderEpoch,
    pub whose: Whose,
}

/// Who sent a batch.
pub(in crate::partition) enum Whose {
    One(Sender),
    /// A work thread was here: each of the senders with the number of its records, in their order. One alone if nothing
    /// came of it.
    Gathered(Vec<(Sender, i32)>),
}

/// What an answer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::partition) enum Acks {
    Leader,
    /// The high watermark is waited for next.
    All,
    /// A follower says by its next fetch what it has: what counts must be there.
    Follower,
}

/// One who waits to be told about its batch.
pub(in crate::partition) struct Sender {
    pub answer: oneshot::Sender<Result<Appended, AppendFailure>>,
    pub acks: Acks,
    pub waiting: Waiting,
}

impl Sender {
    /// For when it is written.
    fn stage(self, result: Appended) -> StagedAnswer {
        let Sender { answer, acks, waiting } = self;
        StagedAnswer { answer, result, acks, _waiting: waiting }
    }
}

impl Whose {
    /// For when the batch is written whole as `appended`.
    pub fn stage(self, appended: Appended, staged: &mut Vec<StagedAnswer>) {
        match self {
            Whose::One(sender) => staged.push(sender.stage(appended)),
            Whose::Gathered(senders) => {
                let mut base_offset = appended.base_offset;
                for (sender, record_count) in senders {
                    let end_offset = base_offset + Offset::from(record_count);
                    staged.push(sender.stage(Appended { base_offset, last_offset: end_offset - 1, ..appended }));
                    base_offset = end_offset;
                }
                assert_eq!(base_offset, appended.last_offset + 1, "every record is somebody's");
            }
        }
    }

    pub fn fail(self, failure: &AppendFailure) {
        let tell = |sender: Sender| {
            let _ = sender.answer.send(Err(failure.clone()));
        };
        match self {
            Whose::One(sender) => tell(sender),
            Whose::Gathered(senders) => senders.into_iter().for_each(|(sender, _)| tell(sender)),
        }
    }
}

/// A batch of the write in flight, and what its producer will be told.
pub(in crate::partition) struct StagedAnswer {
    answer: oneshot::Sender<Result<Appended, AppendFailure>>,
    pub result: Appended,
    pub acks: Acks,
    /// Until it is answered: a directory whose flushes hang holds requests too.
    _waiting: Waiting,
}

impl StagedAnswer {
    pub fn send(self) {
        let _ = self.answer.send(Ok(self.result));
    }

    pub fn fail(self, failure: &AppendFailure) {
        let _ = self.answer.send(Err(failure.clone()));
    }
}

impl AppendQueue {
    /// Tells who wanted the log rolled that it is, or can't be.
    pub fn tell_rolled(&mut self) {
        for waiting in self.rolls.drain(..) {
            // It may have given up.
            let _ = waiting.send(());
        }
    }

    pub fn fail(&mut self, failure: &AppendFailure) {
        self.pending.drain(..).for_each(|pending| pending.whose.fail(failure));
    }
}
