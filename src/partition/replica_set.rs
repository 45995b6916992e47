//! The arithmetic of the replicas of a partition, as its leader sees them: where each is, who is caught up, and what all of
//! them have. Pure (Kafka 3.9 `Partition.maybeIncrementLeaderHW`, `Replica`).
//!
//! ```text
//!             committed ISR    what was asked for    in sync for the high watermark (the maximal ISR)
//!  expanding  1 2              1 2 3                 1 2 3   it may be committed already
//!  shrinking  1 2 3            1 2                   1 2 3   it may not be
//! ```

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::ids::{BrokerId, Offset};
use crate::base::time::Monotonic;

/// How many replicas must be in sync for acks=all: `min.insync.replicas`, but never more than there are (Kafka 3.9
/// `Partition.effectiveMinIsr`, KIP-966). Where every replica is in sync, every producer is served.
pub fn effective_min_isr(min_insync_replicas: i32, replica_count: usize) -> usize {
    usize::try_from(min_insync_replicas).unwrap_or(1).min(replica_count)
}

/// Where the leader's own log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalEnds {
    pub log_end: Offset,
    /// Records below count as on this replica: where flushes count, it trails the log end.
    pub counted: Offset,
}

/// The ISR as it is committed, and what the controller was asked to make of it and has not answered yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Isr {
    pub committed: Vec<BrokerId>,
    /// Under which it was committed.
    pub partition_epoch: i32,
    pub proposed: Option<Vec<BrokerId>>,
}

impl Isr {
    pub fn committed(isr: Vec<BrokerId>, partition_epoch: i32) -> Isr {
        Isr { committed: isr, partition_epoch, proposed: None }
    }

    /// Whoever may be in it, whatever the controller answers.
    pub fn maximal(&self) -> impl Iterator<Item = BrokerId> + '_ {
        let added = self.proposed.iter().flatten().filter(|broker| !self.committed.contains(broker));
        self.committed.iter().chain(added).copied()
    }

    pub fn contains(&self, broker: BrokerId) -> bool {
        self.committed.contains(&broker)
    }
}

/// What a leader knows of a follower by its fetches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FollowerState {
    /// Where it fetched last, which is its log end; `None`: not heard of under this leader.
    pub log_end: Option<Offset>,
    last_fetch: Option<LastFetch>,
    /// When it last had all that the leader had; `None`: never.
    last_caught_up: Option<Monotonic>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LastFetch {
    at: Monotonic,
    /// The leader's log end then, the largest so far.
    leader_log_end: Offset,
}

impl FollowerState {
    /// It fetched from `offset`. Who has all that the leader had at the fetch before was caught up then (Kafka 3.9
    /// `Replica.updateFetchStateOrThrow`).
    pub fn fetched(&mut self, offset: Offset, leader_log_end: Offset, now: Monotonic) {
        let caught_up = match self.last_fetch {
            _ if offset >= leader_log_end => Some(now),
            Some(before) if offset >= before.leader_log_end => Some(before.at),
            _ => None,
        };
        self.last_caught_up = self.last_caught_up.max(caught_up);
        self.log_end = Some(offset);
        let before = self.last_fetch.map_or(Offset::MIN, |before| before.leader_log_end);
        self.last_fetch = Some(LastFetch { at: now, leader_log_end: before.max(leader_log_end) });
    }

    /// A reign begins. Of a leader that goes on the offsets stay; members of the ISR have their time from now (Kafka 3.9
    /// `Replica.resetReplicaState`).
    pub fn reset(&mut self, goes_on: bool, is_in_sync: bool, leader_log_end: Offset, now: Monotonic) {
        let now = is_in_sync.then_some(now);
        *self = match goes_on {
            false => FollowerState { last_caught_up: now, ..FollowerState::default() },
            true => FollowerState {
                log_end: self.log_end,
                last_fetch: now.map(|at| LastFetch { at, leader_log_end }),
                last_caught_up: now,
            },
        };
    }

    pub fn is_caught_up(&self, leader_log_end: Offset, now: Monotonic, lag_max: Duration) -> bool {
        self.log_end == Some(leader_log_end) || self.last_caught_up.is_some_and(|at| now.since(at) <= lag_max)
    }
}

/// Records below are on every replica that counts: this one, whoever may be in the ISR, and whoever is caught up and so
/// may soon be. Nobody asks for the time where no other replica can count.
pub fn least_log_end(
    local: LocalEnds,
    isr: &Isr,
    followers: &BTreeMap<BrokerId, FollowerState>,
    lag_max: Duration,
    now: impl Fn() -> Monotonic,
) -> Offset {
    let counts = |(broker, state): &(&BrokerId, &FollowerState)| {
        isr.maximal().any(|member| member == **broker) || state.is_caught_up(local.log_end, now(), lag_max)
    };
    let others = followers.iter().filter(counts).map(|(_, state)| state.log_end.unwrap_or(Offset::MIN));
    others.chain([local.counted]).min().unwrap_or(local.counted)
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

    fn ends(log_end: Offset) -> LocalEnds {
        LocalEnds { log_end, counted: log_end }
    }

    fn followers<const N: usize>(states: [(BrokerId, FollowerState); N]) -> BTreeMap<BrokerId, FollowerState> {
        BTreeMap::from(states)
    }

    fn fetched(offset: Offset, leader_log_end: Offset, now: Monotonic) -> FollowerState {
        let mut state = FollowerState::default();
        state.fetched(offset, leader_log_end, now);
        state
    }

    #[test]
    fn no_more_replicas_must_be_in_sync_than_there_are() {
        for (min_insync_replicas, replica_count, least) in
            [(1, 1, 1), (2, 1, 1), (i32::MAX, 1, 1), (2, 3, 2), (3, 3, 3), (4, 3, 3), (1, 3, 1)]
        {
            assert_eq!(effective_min_isr(min_insync_replicas, replica_count), least, "{min_insync_replicas}");
        }
    }

    #[test]
    fn alone_only_the_own_log_counts_and_nobody_asks_for_the_time() {
        let never = || unreachable!("no other replica");
        let isr = Isr::committed(vec![ME], 0);
        assert_eq!(least_log_end(ends(10), &isr, &BTreeMap::new(), LAG_MAX, never), 10);
        let flushed = LocalEnds { log_end: 10, counted: 7 };
        assert_eq!(least_log_end(flushed, &isr, &BTreeMap::new(), LAG_MAX, never), 7);
    }

    #[test]
    fn a_member_of_the_isr_that_was_not_heard_of_holds_all_back() {
        let isr = Isr::committed(vec![ME, OTHER], 0);
        let all = followers([(OTHER, FollowerState::default())]);
        assert_eq!(least_log_end(ends(10), &isr, &all, LAG_MAX, || at(0)), Offset::MIN);
    }

    #[test]
    fn whoever_may_be_in_the_isr_counts_while_the_controller_has_not_answered() {
        let all = followers([(OTHER, fetched(4, 4, at(0))), (THIRD, fetched(6, 6, at(0)))]);
        let later = || at(100);
        let expanding = Isr { proposed: Some(vec![ME, OTHER]), ..Isr::committed(vec![ME], 0) };
        assert_eq!(least_log_end(ends(10), &expanding, &all, LAG_MAX, later), 4);
        let shrinking = Isr { proposed: Some(vec![ME, THIRD]), ..Isr::committed(vec![ME, OTHER, THIRD], 0) };
        assert_eq!(least_log_end(ends(10), &shrinking, &all, LAG_MAX, later), 4);
        let shrunk = Isr::committed(vec![ME, THIRD], 0);
        assert_eq!(least_log_end(ends(10), &shrunk, &all, LAG_MAX, later), 6);
        assert_eq!(shrinking.maximal().count(), 3);
        assert_eq!(expanding.maximal().collect::<Vec<_>>(), [ME, OTHER]);
    }

    #[test]
    fn a_replica_out_of_the_isr_counts_as_long_as_it_is_caught_up() {
        let all = followers([(OTHER, fetched(4, 4, at(0)))]);
        let isr = Isr::committed(vec![ME], 0);
        assert_eq!(least_log_end(ends(10), &isr, &all, LAG_MAX, || at(30)), 4);
        assert_eq!(least_log_end(ends(10), &isr, &all, LAG_MAX, || at(31)), 10);
    }

    #[test]
    fn a_follower_was_caught_up_when_it_fetched_before_if_it_has_all_that_the_leader_had_then() {
        let mut state = FollowerState::default();
        state.fetched(0, 10, at(0));
        assert!(!state.is_caught_up(10, at(0), LAG_MAX));
        state.fetched(10, 20, at(40));
        assert!(state.is_caught_up(20, at(30), LAG_MAX) && !state.is_caught_up(20, at(31), LAG_MAX));
        assert!(state.is_caught_up(10, at(100), LAG_MAX), "it has all there is");
        state.fetched(20, 20, at(50));
        assert!(state.is_caught_up(25, at(80), LAG_MAX) && !state.is_caught_up(25, at(81), LAG_MAX));
    }

    #[test]
    fn a_new_leader_knows_of_no_follower_where_it_is_and_gives_the_isr_time() {
        let mut state = fetched(10, 10, at(0));
        state.reset(false, true, 10, at(100));
        assert!(state.log_end.is_none() && state.is_caught_up(10, at(130), LAG_MAX));
        state.reset(false, false, 10, at(100));
        assert!(!state.is_caught_up(10, at(100), LAG_MAX));
        let mut state = fetched(9, 10, at(0));
        state.reset(true, true, 10, at(100));
        assert_eq!(state.log_end, Some(9));
        assert!(state.is_caught_up(10, at(130), LAG_MAX) && !state.is_caught_up(10, at(131), LAG_MAX));
    }
}
