//! What a change of role, a truncation and an ISR that shrinks mean for who waits at a replica.

use futures_channel::oneshot;

use super::cluster::Replica;
use super::producer::append;
use super::*;
use crate::base::ids::BrokerId;
use crate::partition::LeaderAndIsr;
use crate::partition::append::{AppendFailure, Appended, Origin, Replication};
use crate::partition::partition::{ANY_EPOCH, AnsweredBy, Isolation, LeadershipError};
use crate::partition::truncate::Cut;
use crate::record::batch::BatchBuilder;
use crate::record::compression::Codec;
use crate::sim::disk::Delay;

pub(super) const FIRST: BrokerId = BrokerId(0);
pub(super) const SECOND: BrokerId = BrokerId(1);
pub(super) const TAKES: Duration = Duration::from_millis(20);
/// For a follower to have all, and to know that the leader knows.
pub(super) const LONG_ENOUGH: Duration = Duration::from_millis(1200);

pub(super) fn builder(value: &str) -> BatchBuilder {
    let mut builder = BatchBuilder::new(Codec::None);
    builder.push(1, None, Some(value.as_bytes()), &[]);
    builder
}

pub(super) fn given(leader: BrokerId, leader_epoch: i32, isr: &[BrokerId]) -> LeaderAndIsr {
    let replicas = vec![FIRST, SECOND];
    LeaderAndIsr { leader, leader_epoch, isr: isr.to_vec(), replicas, partition_epoch: leader_epoch }
}

pub(super) type Outcome = Result<Appended, AppendFailure>;

pub(super) fn written(cluster: &Cluster, written: oneshot::Receiver<Outcome>) -> Outcome {
    run(&cluster.world, &cluster.clients, async move { written.await.expect("answered") })
}

pub(super) fn produced(cluster: &Cluster, leader: &Replica, value: &str, all_replicas: bool) -> Outcome {
    written(cluster, append(leader, builder(value), Origin::Client, all_replicas)?)
}

#[test]
fn a_role_is_taken_on_when_the_write_in_flight_has_ended_and_what_waited_behind_it_is_refused() {
    for seed in 3600..3610 {
        let cluster = Cluster::start(seed, CLEAN);
        let leader = cluster.running(FIRST).expect("it runs");
        // The first append of a reign also notes where it begins.
        produced(&cluster, &leader, "first", false).expect("written");
        leader.disk.delay("/data".as_ref(), Delay::For(TAKES));
        let since = cluster.world.now();
        let in_flight = append(&leader, builder("in flight"), Origin::Client, false).expect("queued");
        run_steps(&cluster.world, 10);
        let behind = append(&leader, builder("behind"), Origin::Client, false).expect("queued");
        let mut taken = leader.partition.change_role(given(FIRST, 1, &[FIRST, SECOND]));
        assert!(matches!(taken.try_recv(), Ok(None)) && leader.partition.leader_epoch() == 0, "seed {seed}");
        run(&cluster.world, &cluster.clients, async move {
            // Nothing is sent.
            let _ = taken.await;
        });
        assert_eq!(leader.partition.leader_epoch(), 1);
        assert!(cluster.world.now().since(since) >= TAKES, "seed {seed}: the write had not ended");
        assert_eq!(written(&cluster, in_flight).expect("written").leader_epoch, 0);
        let refused = written(&cluster, behind);
        let is_refused = matches!(refused, Err(AppendFailure::Leadership(LeadershipError::NotLeader)));
        assert!(is_refused, "seed {seed}: {refused:?}");
        let later = produced(&cluster, &leader, "later", false).expect("written");
        assert_eq!((later.base_offset, later.leader_epoch), (2, 1), "seed {seed}");
    }
}

#[test]
fn who_waits_for_replicas_waits_on_under_the_same_leader_and_is_told_of_another_one() {
    let cluster = Cluster::start(3620, CLEAN);
    let leader = cluster.running(FIRST).expect("it runs");
    // Nobody follows.
    cluster.pause_follower(SECOND);
    let appended = produced(&cluster, &leader, "value", true).expect("written");
    let Ok(Replication::Waiting(mut waiting)) = leader.partition.when_replicated(&appended) else { panic!() };
    drop(leader.partition.change_role(given(FIRST, 1, &[FIRST, SECOND])));
    cluster.run_for(TAKES);
    assert!(matches!(waiting.try_recv(), Ok(None)), "it leads on");
    assert!(matches!(leader.partition.when_replicated(&appended), Ok(Replication::Waiting(_))));
    drop(leader.partition.change_role(given(SECOND, 2, &[FIRST, SECOND])));
    cluster.run_for(TAKES);
    assert!(matches!(waiting.try_recv(), Ok(Some(Err(AppendFailure::Interrupted)))));
    // It may have been lost meanwhile.
    drop(leader.partition.change_role(given(FIRST, 3, &[FIRST])));
    cluster.run_for(TAKES);
    assert!(matches!(leader.partition.when_replicated(&appended), Err(AppendFailure::Interrupted)));
}

#[test]
fn with_too_few_in_sync_nothing_is_promised_and_the_high_watermark_stands_still() {
    let cluster = Cluster::start(3630, ClusterSetup { min_isr: 2, ..CLEAN });
    let leader = cluster.running(FIRST).expect("it runs");
    let appended = produced(&cluster, &leader, "value", true).expect("written");
    cluster.run_for(LONG_ENOUGH);
    assert!(matches!(leader.partition.when_replicated(&appended), Ok(Replication::Replicated)));
    cluster.pause_follower(SECOND);
    drop(leader.partition.change_role(given(FIRST, 1, &[FIRST])));
    cluster.run_for(TAKES);
    let after = leader.partition.when_replicated(&appended);
    assert!(matches!(after, Err(AppendFailure::NotEnoughReplicasAfterAppend)), "{after:?}");
    let before = append(&leader, builder("value"), Origin::Client, true);
    assert!(matches!(before, Err(AppendFailure::NotEnoughReplicas)));
    produced(&cluster, &leader, "for one", false).expect("acks=1 is served");
    let offsets = leader.partition.leader_offsets(ANY_EPOCH).expect("it leads");
    assert_eq!((offsets.high_watermark, offsets.log_end), (1, 2));
}

#[test]
fn a_leader_is_catching_up_until_its_follower_has_what_was_there_when_its_reign_began() {
    let cluster = Cluster::start(3635, CLEAN);
    let leader = cluster.running(FIRST).expect("it runs");
    cluster.pause_follower(SECOND);
    produced(&cluster, &leader, "value", false).expect("written");
    assert!(!leader.partition.is_catching_up(), "its reign began empty");
    drop(leader.partition.change_role(given(FIRST, 1, &[FIRST, SECOND])));
    cluster.run_for(TAKES);
    assert!(leader.partition.is_catching_up());
    assert_eq!(leader.partition.follower_fetched(SECOND, 0, 1), Ok(None));
    assert!(leader.partition.is_catching_up());
    assert_eq!(leader.partition.follower_fetched(SECOND, 1, 1), Ok(None));
    assert!(!leader.partition.is_catching_up());
    let unknown = leader.partition.follower_fetched(BrokerId(7), 1, 1);
    assert_eq!(unknown, Err(LeadershipError::UnknownLeaderEpoch));
    assert_eq!(leader.partition.follower_fetched(SECOND, 1, 0), Err(LeadershipError::FencedLeaderEpoch));
}

#[test]
fn a_reader_waits_for_a_truncation_and_goes_on_after_it_and_only_a_failed_one_takes_the_log_offline() {
    for seed in 3640..3650 {
        let cluster = Cluster::start(seed, CLEAN);
        let leader = cluster.running(FIRST).expect("it runs");
        for value in ["a", "b", "c"] {
            produced(&cluster, &leader, value, true).expect("written");
        }
        cluster.run_for(LONG_ENOUGH);
        let follower = cluster.running(SECOND).expect("it runs");
        cluster.pause_follower(SECOND);
        follower.disk.delay("/data".as_ref(), Delay::For(TAKES));
        let look = |isolation| {
            let partition = Rc::clone(&follower.partition);
            async move { partition.offset_for_timestamp(0, ANY_EPOCH, AnsweredBy::AnyReplica, isolation).await }
        };
        let (partition, since) = (Rc::clone(&follower.partition), cluster.world.now());
        let cut = Rc::new(RefCell::new(None));
        let place = Rc::clone(&cut);
        cluster.clients.spawn(async move {
            let outcome = partition.truncate(Cut::From(1), 0).await;
            *place.borrow_mut() = Some(outcome);
        });
        run_steps(&cluster.world, 10);
        let found = run(&cluster.world, &cluster.clients, look(Isolation::LogEnd));
        assert_eq!(found.expect("served"), Some((0, 1)), "seed {seed}");
        assert!(cluster.world.now().since(since) > TAKES, "seed {seed}: it was not waited for");
        assert_eq!(cut.borrow_mut().take().map(|cut| cut.expect("cut")), Some(1));
        let offsets = follower.partition.offsets(ANY_EPOCH, AnsweredBy::AnyReplica).expect("open");
        assert_eq!((offsets.log_end, offsets.high_watermark), (1, 1), "seed {seed}: the high watermark falls with it");

        follower.disk.inject(crate::sim::disk::Fault::SetLength(std::io::ErrorKind::StorageFull).lasting());
        follower.disk.inject(crate::sim::disk::Fault::Open(std::io::ErrorKind::StorageFull).lasting());
        let partition = Rc::clone(&follower.partition);
        let failed = run(&cluster.world, &cluster.clients, async move { partition.truncate(Cut::From(0), 0).await });
        assert!(failed.is_err());
        let offline = run(&cluster.world, &cluster.clients, look(Isolation::LogEnd));
        assert!(offline.is_err(), "seed {seed}: {offline:?}");
        assert!(matches!(
            follower.partition.offsets(ANY_EPOCH, AnsweredBy::AnyReplica),
            Err(LeadershipError::LogOffline)
        ));
        let checkpoint = follower.partition.checkpoint().expect("it is known");
        assert_eq!((checkpoint.recovery_point, checkpoint.high_watermark), (0, 0), "what recovery must know");
    }
}
