//! What waits for the append task, and who is told when it is done.

use std::collections::VecDeque;

use bytes::BytesMut;
use futures_channel::oneshot;

use super::{AppendFailure, Appended, Origin};
use crate::base::ids::{BrokerId, LeaderEpoch, Offset};
use crate::partition::home::Waiting;
use crate::partition::role::LeaderAndIsr;
use crate::partition::truncate::Truncation;
use crate::record::batch::BatchHeader;

/// What the append task is to do between two writes, and the batches of the next ones.
#[derive(Default)]
pub(in crate::partition) struct AppendQueue {
    /// In arrival order.
    pub pending: VecDeque<Pending>,
    /// What is to be taken on.
    pub roles: WaitingRoles,
    /// The end of the log is to be taken back.
    pub truncation: Option<Truncation>,
    /// The log is to be rolled; who is told then.
    pub rolls: Vec<oneshot::Sender<()>>,
    /// The log is to give back what it holds for appends.
    pub rest_wanted: bool,
}

/// Roles that are taken on when the write in flight has ended. However long that takes, at most two wait: a newer one takes
/// the place of an older one, but a leader that was deposed in between must come to know that.
#[derive(Default)]
pub(in crate::partition) struct WaitingRoles {
    /// It makes a follower of the replica before the newest one makes it a leader again.
    deposing: Option<LeaderAndIsr>,
    newest: Option<RoleChange>,
}

/// A role, and who is told when it is taken on, or a newer one in its place.
struct RoleChange {
    given: LeaderAndIsr,
    /// Dropped to say it.
    _taken: oneshot::Sender<()>,
}

impl WaitingRoles {
    pub fn is_empty(&self) -> bool {
        self.newest.is_none()
    }

    /// What is older than what waits is ignored.
    pub fn push(&mut self, local: BrokerId, given: LeaderAndIsr, taken: oneshot::Sender<()>) {
        if self.newest.as_ref().is_some_and(|newest| given.is_older(&newest.given)) {
            return;
        }
        let leads = given.leader == local;
        let replaced = self.newest.replace(RoleChange { given, _taken: taken });
        if let Some(replaced) = replaced.filter(|replaced| replaced.given.leader != local && leads) {
            self.deposing = Some(replaced.given);
        }
    }

    /// All that wait, oldest first; who waits for them is told when what this gives is dropped.
    pub fn take(&mut self) -> (impl Iterator<Item = LeaderAndIsr> + use<>, impl Sized + use<>) {
        let (deposing, newest) = (self.deposing.take(), self.newest.take());
        let (newest, taken) = newest.map(|RoleChange { given, _taken }| (given, _taken)).unzip();
        (deposing.into_iter().chain(newest), taken)
    }
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
    /// Of what clients may have waiting.
    pub waiting: Option<Waiting>,
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
    _waiting: Option<Waiting>,
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

    /// Fails the leader's batches: one before them is not in the log, and they are fetched again behind it. A log that may
    /// miss offsets would take them without it.
    pub fn fail_replicated(&mut self, failure: &AppendFailure) {
        for pending in std::mem::take(&mut self.pending) {
            match pending.origin {
                Origin::Replication => pending.whose.fail(failure),
                Origin::Client | Origin::Coordinator | Origin::Marker => self.pending.push_back(pending),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: BrokerId = BrokerId(1);
    const OTHER: BrokerId = BrokerId(2);

    #[test]
    fn of_many_roles_the_newest_waits_and_one_that_deposes_before_it() {
        let given = |leader, leader_epoch| LeaderAndIsr {
            leader,
            leader_epoch,
            isr: vec![leader],
            replicas: vec![ME, OTHER],
            partition_epoch: leader_epoch,
        };
        let mut waiting = WaitingRoles::default();
        let mut push = |leader, epoch| {
            let (taken, receiver) = oneshot::channel();
            waiting.push(ME, given(leader, epoch), taken);
            receiver
        };
        let first = push(ME, 1);
        let receivers: Vec<_> = (2..100).map(|epoch| push(if epoch % 2 == 0 { OTHER } else { ME }, epoch)).collect();
        let mut stale = push(OTHER, 98);
        assert!(!matches!(stale.try_recv(), Ok(None)), "it says nothing any more");
        let waits = |mut receiver: oneshot::Receiver<()>| matches!(receiver.try_recv(), Ok(None));
        let still_waiting =
            std::iter::once(first).chain(receivers).filter_map(|receiver| waits(receiver).then_some(()));
        assert_eq!(still_waiting.count(), 1);
        let (roles, _taken) = waiting.take();
        let roles: Vec<_> = roles.map(|role| (role.leader, role.leader_epoch)).collect();
        assert_eq!(roles, [(OTHER, 98), (ME, 99)]);
        assert!(waiting.is_empty());
    }
}
