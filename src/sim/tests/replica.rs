//! Replicas of one partition, each on a disk and an executor of its own, one fed by the other's reads. What carries their
//! fetches is a call that takes a while; who leads, and who is in the ISR, a controller of a few lines decides.
//!
//! Leaders change in both directions, processes are killed, power is cut, and logs part and are brought together again.
//! What acks=all was promised stays as long as every leader comes from the ISR, and in the end the logs are the same.

mod answers;
mod cluster;
mod fence;
mod follower;
mod producer;
mod waiting;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::LocalKey;

use self::cluster::{Cluster, ClusterSetup, Death};
use super::*;
use crate::partition::{append, partition, purgatory};

/// Changes of leader, and deaths, of one run.
const EVENTS: usize = 12;

/// What happened in runs, so that none of them is sound for want of events.
#[derive(Default)]
struct Events {
    promises: usize,
    cuts: usize,
}

/// One run under a seed: what it may do is in the setup; an error says which invariant was broken.
fn life(seed: u64, setup: ClusterSetup) -> Result<Events, String> {
    let cluster = Cluster::start(seed, setup);
    cluster.produce();
    for _ in 0..EVENTS {
        cluster.run_for(Duration::from_millis(1 + cluster.world.below(60) as u64));
        match cluster.world.below(6) {
            0 | 1 => cluster.lead_by_another(),
            2 => cluster.die_and_return(Death::Kill),
            3 if setup.power_cuts => cluster.die_and_return(Death::PowerCut),
            4 if setup.unclean => cluster.lead_by_anybody(),
            5 => cluster.die_together(),
            _ => {}
        }
        if setup.full_disks {
            cluster.fill_a_disk();
        }
        cluster.check()?;
    }
    cluster.settle()?;
    cluster.check()?;
    let promises = cluster.ledger.borrow().promised_count();
    Ok(Events { promises, cuts: cluster.cuts() })
}

fn survive(seeds: std::ops::Range<u64>, setup: ClusterSetup) -> Events {
    let mut all = Events::default();
    for seed in seeds {
        let Events { promises, cuts } = life(seed, setup).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
        all.promises += promises;
        all.cuts += cuts;
    }
    all
}

const CLEAN: ClusterSetup = ClusterSetup {
    min_isr: 1,
    durability: Durability::PageCache,
    common_death: Death::Kill,
    power_cuts: false,
    unclean: false,
    transactions: true,
    compacted: false,
    full_disks: false,
};

#[test]
fn over_changes_of_leader_and_kills_no_promise_is_broken_and_the_logs_become_the_same() {
    let Events { promises, cuts } = survive(3000..3040, CLEAN);
    assert!(promises > 400 && cuts > 40, "{promises} promises, {cuts} cuts");
}

#[test]
fn with_two_in_sync_a_power_cut_of_either_breaks_no_promise() {
    let setup = ClusterSetup { min_isr: 2, power_cuts: true, ..CLEAN };
    let Events { promises, cuts } = survive(3100..3130, setup);
    assert!(promises > 300 && cuts > 30, "{promises} promises, {cuts} cuts");
}

#[test]
fn with_fsync_a_power_cut_of_all_replicas_at_once_breaks_no_promise() {
    let setup = ClusterSetup { durability: Durability::Fsync, common_death: Death::PowerCut, ..CLEAN };
    let Events { promises, cuts } = survive(3700..3730, setup);
    assert!(promises > 300 && cuts > 20, "{promises} promises, {cuts} cuts");
}

const FULL_DISKS: ClusterSetup = ClusterSetup { compacted: true, full_disks: true, ..CLEAN };

#[test]
fn of_a_compacted_topic_over_full_file_systems_followers_miss_nothing() {
    let Events { promises, cuts } = survive(3800..3830, FULL_DISKS);
    assert!(promises > 300 && cuts > 30, "{promises} promises, {cuts} cuts");
}

#[test]
fn a_follower_that_goes_on_behind_a_batch_it_has_lost_is_seen() {
    let _planted = Planted::new(&append::planted::STAGE_BEHIND_LOST);
    let [first, again] = caught(3800..3830, |seed| life(seed, FULL_DISKS).map(drop)).expect("never met");
    assert_eq!(first, again, "the seed repeats it");
    assert!(first == "the logs differ" || first.contains("is not what was acknowledged by all"), "{first}");
}

/// The check of this file sees replicas that promise too early.
#[test]
fn promises_of_page_caches_that_go_all_at_once_are_seen_to_be_broken() {
    let setup = ClusterSetup { common_death: Death::PowerCut, ..CLEAN };
    let [first, _] = caught(3700..3720, |seed| life(seed, setup).map(drop)).expect("no promise is broken");
    assert!(first.contains("is not what was acknowledged by all"), "{first}");
}

#[test]
fn logs_that_parted_under_unclean_leaders_become_the_same() {
    let setup = ClusterSetup { unclean: true, power_cuts: true, ..CLEAN };
    let Events { cuts, .. } = survive(3200..3230, setup);
    assert!(cuts > 30, "{cuts} cuts");
}

#[test]
fn a_run_repeats_itself() {
    let trace = |seed| {
        let cluster = Cluster::start(seed, CLEAN);
        cluster.produce();
        cluster.run_for(Duration::from_millis(30));
        cluster.die_and_return(Death::Kill);
        cluster.settle().expect("sound");
        cluster.world.trace()
    };
    assert!(trace(3300) == trace(3300));
    assert!(trace(3300) != trace(3301));
}

/// A planted bug, for as long as this lives.
struct Planted(&'static LocalKey<Cell<bool>>);

impl Planted {
    fn new(bug: &'static LocalKey<Cell<bool>>) -> Planted {
        bug.set(true);
        Planted(bug)
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// The seeds of these runs that end badly; what the first of them says, twice.
fn caught(seeds: std::ops::Range<u64>, run: impl Fn(u64) -> Result<(), String>) -> Option<[String; 2]> {
    let outcome = |seed| match catch_unwind(AssertUnwindSafe(|| run(seed))) {
        Ok(outcome) => outcome.err(),
        Err(panic) => Some(panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "it panicked".to_owned())),
    };
    let seed = seeds.into_iter().find(|seed| outcome(*seed).is_some())?;
    Some([outcome(seed)?, outcome(seed)?])
}

#[test]
fn a_batch_of_a_deposed_leader_staged_under_a_later_epoch_is_seen() {
    let _planted = Planted::new(&append::planted::STAGE_DEPOSED);
    let [first, again] = caught(3000..3040, |seed| life(seed, CLEAN).map(drop)).expect("never met");
    assert_eq!(first, again, "the seed repeats it");
    assert!(first.contains("was queued under epoch"), "{first}");
}

/// With a follower that waits for records at the leader, acks=all takes two fetches, and no wait of theirs.
fn prompt(seed: u64) -> Result<(), String> {
    let cluster = Cluster::start(seed, CLEAN);
    for _ in 0..20 {
        cluster.run_for(Duration::from_millis(1 + cluster.world.below(50) as u64));
        let took = cluster.timed_produce();
        if took >= Duration::from_millis(100) {
            return Err(format!("acks=all took {took:?}"));
        }
    }
    Ok(())
}

#[test]
fn a_fetch_of_a_replica_that_waits_is_answered_when_the_log_end_moves() {
    for seed in 3400..3410 {
        prompt(seed).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    }
}

#[test]
fn a_fetch_of_a_replica_that_sleeps_over_the_log_end_is_seen() {
    let _planted = Planted::new(&purgatory::planted::IGNORE_LOG_END);
    let [first, again] = caught(3400..3410, prompt).expect("never met");
    assert_eq!(first, again, "the seed repeats it");
    assert!(first.starts_with("acks=all took "), "{first}");
}

/// Both replicas stop, and only the leader comes back: with the other one in the ISR and silent, what consumers have seen
/// must be known from the checkpoint.
fn alone_after_restart(seed: u64) -> Result<(), String> {
    let cluster = Cluster::start(seed, CLEAN);
    cluster.produce();
    cluster.run_for(Duration::from_millis(20 + cluster.world.below(100) as u64));
    let death = if cluster.world.below(2) == 0 { Death::Stop } else { Death::Kill };
    cluster.restart_leader_alone(death)
}

#[test]
fn a_leader_that_was_restarted_shows_what_consumers_have_seen_though_no_follower_is_heard_of() {
    for seed in 3500..3520 {
        alone_after_restart(seed).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    }
}

#[test]
fn a_restart_that_forgets_the_high_watermark_is_seen() {
    let _planted = Planted::new(&partition::planted::FORGET_HIGH_WATERMARK);
    let [first, again] = caught(3500..3520, alone_after_restart).expect("never met");
    assert_eq!(first, again, "the seed repeats it");
    assert!(first.starts_with("consumers had seen all below "), "{first}");
}
