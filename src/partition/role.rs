//! What a replica is to its partition, and what follows from it: who counts for the high watermark, and who joins or leaves
//! the ISR (Kafka 3.9 `Partition`). Pure: what is to be done is a value.
//!
//! A role ends with its leader epoch. What was queued under one epoch is not staged under another, also not where the same
//! replica leads on; whoever waits for replicas waits on then, since nothing was taken back in between.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::time::Duration;

use super::replica_set::{FollowerState, Isr, LocalEnds, least_log_end};
use crate::base::ids::{BrokerId, LeaderEpoch, Offset};
use crate::base::time::Monotonic;

/// What LeaderAndIsr says of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderAndIsr {
    pub leader: BrokerId,
    pub leader_epoch: LeaderEpoch,
    pub isr: Vec<BrokerId>,
    /// Those being added too.
    pub replicas: Vec<BrokerId>,
    /// Counts all changes of the partition's state: the version of its znode.
    pub partition_epoch: i32,
}

impl LeaderAndIsr {
    /// Leader epoch and partition epoch: what is below in either is older, and says nothing any more.
    fn is_older_than(&self, leader_epoch: LeaderEpoch, partition_epoch: i32) -> bool {
        self.leader_epoch < leader_epoch || self.partition_epoch < partition_epoch
    }

    /// Whether it says nothing any more when the other one is known.
    pub fn is_older(&self, other: &LeaderAndIsr) -> bool {
        self.is_older_than(other.leader_epoch, other.partition_epoch)
    }
}

#[derive(Clone, Debug)]
pub enum Role {
    Leader(Leader),
    Follower(Follower),
}

#[derive(Clone, Debug)]
pub struct Leader {
    local: BrokerId,
    pub epoch: LeaderEpoch,
    /// The log end when the reign began: whoever joins the ISR has all below.
    pub epoch_start: Offset,
    /// The first of the epochs under which it has led without anybody else in between.
    pub leads_since: LeaderEpoch,
    isr: Isr,
    /// All other replicas.
    followers: BTreeMap<BrokerId, FollowerState>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follower {
    /// -1: none.
    pub leader: BrokerId,
    pub epoch: LeaderEpoch,
    pub partition_epoch: i32,
}

/// What the controller is to make of the ISR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsrProposal {
    pub leader_epoch: LeaderEpoch,
    /// Of the state that it is to change, and no other.
    pub partition_epoch: i32,
    pub isr: Vec<BrokerId>,
}

/// The ISR as the controller has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedIsr {
    pub isr: Vec<BrokerId>,
    pub partition_epoch: i32,
}

/// It is not among the partition's replicas, as far as this leader knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAssigned;

impl Role {
    /// The first role of a replica.
    pub fn new(local: BrokerId, given: &LeaderAndIsr, log_end: Offset, now: Monotonic) -> Role {
        match given.leader == local {
            true => Role::Leader(Leader::new(local, given, log_end, now)),
            false => {
                let LeaderAndIsr { leader, leader_epoch: epoch, partition_epoch, .. } = *given;
                Role::Follower(Follower { leader, epoch, partition_epoch })
            }
        }
    }

    /// The role that follows this one; `None` if what is given is older (Kafka 3.9 `Partition.makeLeader`).
    pub fn next(&self, local: BrokerId, given: &LeaderAndIsr, log_end: Offset, now: Monotonic) -> Option<Role> {
        if given.is_older_than(self.epoch(), self.partition_epoch()) {
            return None;
        }
        match self {
            Role::Leader(leader) if given.leader == local => Some(Role::Leader(leader.next(given, log_end, now))),
            _ => Some(Role::new(local, given, log_end, now)),
        }
    }

    pub fn epoch(&self) -> LeaderEpoch {
        match self {
            Role::Leader(leader) => leader.epoch,
            Role::Follower(follower) => follower.epoch,
        }
    }

    fn partition_epoch(&self) -> i32 {
        match self {
            Role::Leader(leader) => leader.isr.partition_epoch,
            Role::Follower(follower) => follower.partition_epoch,
        }
    }

    pub fn leader(&self) -> Option<&Leader> {
        match self {
            Role::Leader(leader) => Some(leader),
            Role::Follower(_) => None,
        }
    }

    pub fn leader_mut(&mut self) -> Option<&mut Leader> {
        match self {
            Role::Leader(leader) => Some(leader),
            Role::Follower(_) => None,
        }
    }

    pub fn is_leader(&self) -> bool {
        self.leader().is_some()
    }
}

impl Leader {
    fn new(local: BrokerId, given: &LeaderAndIsr, log_end: Offset, now: Monotonic) -> Leader {
        let mut leader = Leader {
            local,
            epoch: given.leader_epoch,
            epoch_start: log_end,
            leads_since: given.leader_epoch,
            isr: Isr::committed(given.isr.clone(), given.partition_epoch),
            followers: BTreeMap::new(),
        };
        leader.set_followers(given);
        leader.reset_followers(false, log_end, now);
        leader
    }

    /// The same leader goes on. What it has proposed waits on, unless the state was changed meanwhile.
    fn next(&self, given: &LeaderAndIsr, log_end: Offset, now: Monotonic) -> Leader {
        let mut leader = self.clone();
        if given.partition_epoch > self.isr.partition_epoch || given.leader_epoch > self.epoch {
            leader.isr = Isr::committed(given.isr.clone(), given.partition_epoch);
        }
        leader.set_followers(given);
        if given.leader_epoch > self.epoch {
            (leader.epoch, leader.epoch_start) = (given.leader_epoch, log_end);
            leader.reset_followers(true, log_end, now);
        }
        leader
    }

    fn set_followers(&mut self, given: &LeaderAndIsr) {
        let mut before = std::mem::take(&mut self.followers);
        let others = given.replicas.iter().filter(|broker| **broker != self.local);
        self.followers = others.map(|broker| (*broker, before.remove(broker).unwrap_or_default())).collect();
    }

    fn reset_followers(&mut self, goes_on: bool, log_end: Offset, now: Monotonic) {
        for (broker, state) in &mut self.followers {
            state.reset(goes_on, self.isr.contains(*broker), log_end, now);
        }
    }

    /// Those being added too.
    pub fn replica_count(&self) -> usize {
        self.followers.len() + 1
    }

    /// Replicas in sync as it is committed: with too few of them acks=all is refused, and the high watermark stays.
    pub fn isr_count(&self) -> usize {
        self.isr.committed.len()
    }

    /// Those that may be in sync: with too few of them what was appended is not promised.
    pub fn maximal_isr_count(&self) -> usize {
        self.isr.maximal().count()
    }

    /// The high watermark, which was `before`: it never falls, and stays while fewer than `min_isr` replicas are in sync.
    pub fn high_watermark(
        &self,
        before: Offset,
        local: LocalEnds,
        min_isr: usize,
        lag_max: Duration,
        now: impl Fn() -> Monotonic,
    ) -> Offset {
        if self.isr_count() < min_isr {
            return before;
        }
        least_log_end(local, &self.isr, &self.followers, lag_max, now).max(before)
    }

    /// A follower has fetched from `offset`, its log end.
    pub fn follower_fetched(
        &mut self,
        follower: BrokerId,
        offset: Offset,
        log_end: Offset,
        now: Monotonic,
    ) -> Result<(), NotAssigned> {
        self.followers.get_mut(&follower).ok_or(NotAssigned)?.fetched(offset, log_end, now);
        Ok(())
    }

    /// Whether a follower that has just fetched is to join the ISR: it has all below the high watermark and below the
    /// beginning of the reign (Kafka 3.9 `Partition.maybeExpandIsr`). Only one proposal is under way.
    pub fn expansion(&mut self, follower: BrokerId, high_watermark: Offset) -> Option<IsrProposal> {
        let log_end = self.followers.get(&follower)?.log_end?;
        let is_in_sync = log_end >= high_watermark && log_end >= self.epoch_start;
        if self.isr.proposed.is_some() || self.isr.contains(follower) || !is_in_sync {
            return None;
        }
        let isr = self.isr.committed.iter().copied().chain([follower]).collect();
        Some(self.propose(isr))
    }

    /// Whether members of the ISR are to leave it that were not caught up for too long, or are no replicas any more; never
    /// this one (Kafka 3.9 `Partition.maybeShrinkIsr`, `isFollowerOutOfSync`).
    pub fn shrinkage(&mut self, log_end: Offset, lag_max: Duration, now: Monotonic) -> Option<IsrProposal> {
        if self.isr.proposed.is_some() {
            return None;
        }
        let is_caught_up = |state: &FollowerState| state.is_caught_up(log_end, now, lag_max);
        let stays = |broker: &BrokerId| *broker == self.local || self.followers.get(broker).is_some_and(is_caught_up);
        let isr: Vec<_> = self.isr.committed.iter().copied().filter(stays).collect();
        (isr.len() < self.isr.committed.len()).then(|| self.propose(isr))
    }

    fn propose(&mut self, isr: Vec<BrokerId>) -> IsrProposal {
        self.isr.proposed = Some(isr.clone());
        IsrProposal { leader_epoch: self.epoch, partition_epoch: self.isr.partition_epoch, isr }
    }

    /// The controller has answered a proposal: with the ISR of now, or `None`: nothing was changed. What is older than what
    /// is known says nothing (Kafka 3.9 `Partition.handleAlterPartitionUpdate`).
    pub fn proposal_answered(&mut self, proposal: &IsrProposal, committed: Option<CommittedIsr>) {
        if proposal.leader_epoch != self.epoch {
            return;
        }
        let is_of_now = proposal.partition_epoch == self.isr.partition_epoch;
        match committed {
            Some(CommittedIsr { isr, partition_epoch })
                if partition_epoch > self.isr.partition_epoch
                    || (is_of_now && partition_epoch == self.isr.partition_epoch) =>
            {
                self.isr = Isr::committed(isr, partition_epoch);
            }
            None if is_of_now => self.isr.proposed = None,
            Some(_) | None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAG_MAX: Duration = Duration::from_secs(30);
    const ME: BrokerId = BrokerId(1);
    const OTHER: BrokerId = BrokerId(2);
    const THIRD: BrokerId = BrokerId(3);

    fn at(seconds: u64) -> Monotonic {
        Monotonic(seconds * 1_000_000_000)
    }

    fn given(leader: BrokerId, leader_epoch: LeaderEpoch, isr: &[BrokerId]) -> LeaderAndIsr {
        let replicas = vec![ME, OTHER, THIRD];
        LeaderAndIsr { leader, leader_epoch, isr: isr.to_vec(), replicas, partition_epoch: leader_epoch }
    }

    fn committed(isr: &[BrokerId], partition_epoch: i32) -> Option<CommittedIsr> {
        Some(CommittedIsr { isr: isr.to_vec(), partition_epoch })
    }

    fn leader(epoch: LeaderEpoch, isr: &[BrokerId], log_end: Offset) -> Leader {
        Leader::new(ME, &given(ME, epoch, isr), log_end, at(0))
    }

    fn high_watermark(leader: &Leader, before: Offset, log_end: Offset, min_isr: usize, now: Monotonic) -> Offset {
        leader.high_watermark(before, LocalEnds { log_end, counted: log_end }, min_isr, LAG_MAX, || now)
    }

    #[test]
    fn the_high_watermark_is_what_all_in_sync_have_and_never_falls() {
        let mut leader = leader(3, &[ME, OTHER], 10);
        assert_eq!(high_watermark(&leader, 4, 10, 1, at(0)), 4, "the other one was not heard of");
        leader.follower_fetched(OTHER, 8, 10, at(1)).unwrap();
        assert_eq!(high_watermark(&leader, 4, 10, 1, at(1)), 8);
        leader.follower_fetched(OTHER, 2, 10, at(2)).unwrap();
        assert_eq!(high_watermark(&leader, 8, 10, 1, at(2)), 8);
        assert_eq!(leader.follower_fetched(BrokerId(9), 10, 10, at(2)), Err(NotAssigned));
    }

    #[test]
    fn the_high_watermark_stays_while_too_few_are_in_sync() {
        let mut leader = leader(3, &[ME], 10);
        assert_eq!(high_watermark(&leader, 4, 10, 2, at(0)), 4);
        leader.follower_fetched(OTHER, 10, 10, at(1)).unwrap();
        assert_eq!(high_watermark(&leader, 4, 10, 2, at(1)), 4, "its joining is not committed yet");
        let proposal = leader.expansion(OTHER, 4).unwrap();
        assert_eq!(high_watermark(&leader, 4, 10, 2, at(1)), 4);
        leader.proposal_answered(&proposal, committed(&[ME, OTHER], 4));
        assert_eq!(high_watermark(&leader, 4, 10, 2, at(1)), 10);
    }

    #[test]
    fn a_follower_joins_the_isr_with_all_below_the_high_watermark_and_the_beginning_of_the_reign() {
        let mut leader = leader(3, &[ME], 10);
        for (offset, high_watermark, joins) in [(7, 8, false), (9, 8, false), (10, 11, false), (10, 8, true)] {
            leader.follower_fetched(OTHER, offset, 12, at(1)).unwrap();
            let proposal = leader.expansion(OTHER, high_watermark);
            let expected = IsrProposal { leader_epoch: 3, partition_epoch: 3, isr: vec![ME, OTHER] };
            assert_eq!(proposal, joins.then_some(expected), "{offset}");
        }
        let proposal = IsrProposal { leader_epoch: 3, partition_epoch: 3, isr: vec![ME, OTHER] };
        leader.follower_fetched(THIRD, 12, 12, at(1)).unwrap();
        assert_eq!(leader.expansion(THIRD, 8), None, "one proposal at a time");
        leader.proposal_answered(&proposal, None);
        assert!(leader.expansion(THIRD, 8).is_some());
    }

    #[test]
    fn a_member_that_lags_for_too_long_is_to_leave_the_isr_and_counts_until_that_is_committed() {
        let mut leader = leader(3, &[ME, OTHER, THIRD], 10);
        leader.follower_fetched(OTHER, 10, 10, at(20)).unwrap();
        assert_eq!(leader.shrinkage(12, LAG_MAX, at(30)), None);
        let proposal = leader.shrinkage(12, LAG_MAX, at(31)).unwrap();
        assert_eq!(proposal.isr, [ME, OTHER]);
        assert_eq!(leader.shrinkage(12, LAG_MAX, at(60)), None, "one proposal at a time");
        assert_eq!(high_watermark(&leader, 3, 12, 1, at(31)), 3);
        leader.proposal_answered(&proposal, committed(&[ME, OTHER], 4));
        assert_eq!(high_watermark(&leader, 3, 12, 1, at(31)), 10);
    }

    #[test]
    fn a_member_of_the_isr_that_is_no_replica_is_to_leave_it_and_the_leader_itself_never_is() {
        let without_other = |isr: &[BrokerId]| LeaderAndIsr { replicas: vec![ME, THIRD], ..given(ME, 3, isr) };
        let mut leader = Leader::new(ME, &without_other(&[ME, OTHER, THIRD]), 10, at(0));
        assert_eq!(leader.shrinkage(10, LAG_MAX, at(1)).map(|proposal| proposal.isr), Some(vec![ME, THIRD]));
        let mut leader = Leader::new(ME, &without_other(&[ME]), 10, at(0));
        assert_eq!(leader.shrinkage(10, LAG_MAX, at(100)), None);
    }

    #[test]
    fn what_is_said_of_the_isr_under_an_older_partition_epoch_is_ignored() {
        let of_epoch = |partition_epoch, isr: &[BrokerId]| LeaderAndIsr { partition_epoch, ..given(ME, 3, isr) };
        let mut leader = Leader::new(ME, &of_epoch(7, &[ME]), 10, at(0));
        leader.follower_fetched(OTHER, 10, 10, at(1)).unwrap();
        let proposal = leader.expansion(OTHER, 10).unwrap();
        leader.proposal_answered(&proposal, committed(&[ME, OTHER], 8));
        let mut role = Role::Leader(leader);
        assert!(role.next(ME, &of_epoch(7, &[ME]), 10, at(2)).is_none(), "it was sent before the answer");
        assert!(role.next(ME, &LeaderAndIsr { leader: OTHER, ..of_epoch(7, &[ME]) }, 10, at(2)).is_none());

        // What is of the same epoch leaves alone what is proposed.
        let leader = role.leader_mut().unwrap();
        leader.follower_fetched(THIRD, 10, 10, at(2)).unwrap();
        let proposal = leader.expansion(THIRD, 10).unwrap();
        let Some(Role::Leader(mut leader)) = role.next(ME, &of_epoch(8, &[ME, OTHER]), 10, at(2)) else { panic!() };
        assert_eq!((leader.isr_count(), leader.maximal_isr_count()), (2, 3));
        // A change of others' comes before the answer, which is older then.
        let Some(Role::Leader(mut changed)) = role.next(ME, &of_epoch(10, &[ME, OTHER]), 10, at(2)) else { panic!() };
        let newer = changed.expansion(THIRD, 10).unwrap();
        changed.proposal_answered(&proposal, committed(&[ME, OTHER, THIRD], 9));
        changed.proposal_answered(&proposal, None);
        assert_eq!((changed.isr_count(), changed.maximal_isr_count()), (2, 3), "the newer proposal waits on");
        changed.proposal_answered(&newer, None);
        assert_eq!(changed.maximal_isr_count(), 2);
        leader.proposal_answered(&proposal, committed(&[ME, OTHER, THIRD], 9));
        assert_eq!(leader.isr_count(), 3);
    }

    #[test]
    fn an_older_epoch_changes_nothing_and_the_same_leader_goes_on_with_what_it_knows() {
        let mut first = leader(3, &[ME, OTHER], 10);
        first.follower_fetched(OTHER, 9, 10, at(1)).unwrap();
        let first = Role::Leader(first);
        assert!(first.next(ME, &given(OTHER, 2, &[OTHER]), 10, at(2)).is_none());
        let Some(Role::Leader(next)) = first.next(ME, &given(ME, 4, &[ME, OTHER]), 12, at(2)) else { panic!() };
        assert_eq!((next.epoch, next.epoch_start, next.leads_since), (4, 12, 3));
        assert_eq!(high_watermark(&next, 0, 12, 1, at(2)), 9);
        let deposed = first.next(ME, &given(OTHER, 5, &[OTHER]), 12, at(3)).unwrap();
        assert!(matches!(&deposed, Role::Follower(Follower { leader: OTHER, epoch: 5, .. })));
        let Some(Role::Leader(again)) = deposed.next(ME, &given(ME, 6, &[ME, OTHER]), 20, at(4)) else { panic!() };
        assert_eq!((again.epoch_start, again.leads_since), (20, 6));
        assert_eq!(high_watermark(&again, 7, 20, 1, at(4)), 7, "who followed another one is not known");
    }
}
