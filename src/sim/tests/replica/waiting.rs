//! Nobody waits for ever, whatever happens to the replica: for a flush, for a role, for settings.

use bytes::BytesMut;

use super::fence::{FIRST, SECOND, TAKES, builder, given, produced, written};
use super::producer::append;
use super::*;
use crate::partition::append::{AppendFailure, Origin, Replication};
use crate::partition::partition::LeadershipError;
use crate::partition::replicate::LeaderRecords;
use crate::partition::truncate::Cut;
use crate::record::batch::{BatchBuilder, stamp};
use crate::record::compression::Codec;
use crate::sim::disk::Delay;

const FSYNC: ClusterSetup = ClusterSetup { durability: Durability::Fsync, ..CLEAN };

#[test]
fn who_waits_for_a_flush_is_told_when_another_one_leads() {
    for seed in 3900..3910 {
        let cluster = Cluster::start(seed, FSYNC);
        let leader = cluster.running(FIRST).expect("it runs");
        produced(&cluster, &leader, "first", false).expect("flushed");
        leader.disk.delay("/data".as_ref(), Delay::For(TAKES));
        let waiting = append(&leader, builder("not flushed"), Origin::Client, false).expect("queued");
        cluster.run_for(TAKES + TAKES / 2);
        let log_end = leader.partition.leader_offsets(0).expect("it leads").log_end;
        assert_eq!(log_end, 2, "seed {seed}: it is written");
        drop(leader.partition.change_role(given(SECOND, 1, &[SECOND])));
        let told = written(&cluster, waiting);
        let is_deposed = matches!(told, Err(AppendFailure::Leadership(LeadershipError::NotLeader)));
        assert!(is_deposed, "seed {seed}: {told:?}");
    }
}

#[test]
fn a_followers_append_that_waits_for_a_flush_ends_when_its_log_is_cut_meanwhile() {
    for seed in 3910..3930 {
        let cluster = Cluster::start(seed, FSYNC);
        cluster.pause_follower(SECOND);
        let follower = cluster.running(SECOND).expect("it runs");
        let ended = Rc::new(Cell::new(0));
        let append = |offsets: &[i64]| {
            let mut records = BytesMut::new();
            for offset in offsets {
                let mut batch = builder("0/value").build();
                stamp(&mut batch, *offset, 0);
                records.extend_from_slice(&batch);
            }
            let (partition, ended) = (Rc::clone(&follower.partition), Rc::clone(&ended));
            cluster.clients.spawn(async move {
                let answer = LeaderRecords { records, high_watermark: 0, log_start: 0 };
                let _ = partition.append_as_follower(0, answer).await;
                ended.set(ended.get() + 1);
            });
        };
        // With offsets missing, so that nothing need be written down of that later.
        append(&[0, 2]);
        cluster.run_for(10 * TAKES);
        follower.disk.delay("/data".as_ref(), Delay::For(TAKES));
        append(&[3]);
        cluster.run_for(TAKES / 4);
        // Written while the first one is flushed, and it is not flushed before the cut.
        append(&[4]);
        cluster.run_for(TAKES + TAKES / 2);
        let partition = Rc::clone(&follower.partition);
        run(&cluster.world, &cluster.clients, async move { partition.truncate(Cut::From(3), 0).await.expect("cut") });
        cluster.run_for(10 * TAKES);
        assert_eq!(ended.get(), 3, "seed {seed}");
    }
}

#[test]
fn of_roles_that_come_while_a_write_hangs_the_newest_is_taken_on_and_a_deposition_in_between_is_not_forgotten() {
    let cluster = Cluster::start(3930, CLEAN);
    let leader = cluster.running(FIRST).expect("it runs");
    cluster.pause_follower(SECOND);
    let appended = produced(&cluster, &leader, "before", true).expect("written");
    leader.disk.delay("/data".as_ref(), Delay::Hang);
    let in_flight = append(&leader, builder("in flight"), Origin::Client, false).expect("queued");
    run_steps(&cluster.world, 10);
    let roles = (1..=50).map(|epoch| given(if epoch == 20 { SECOND } else { FIRST }, epoch, &[FIRST, SECOND]));
    let mut waiting: Vec<_> = roles.map(|role| leader.partition.change_role(role)).collect();
    let still_waiting = waiting.iter_mut().map(|taken| matches!(taken.try_recv(), Ok(None))).filter(|waits| *waits);
    let still_waiting = still_waiting.count();
    assert_eq!((still_waiting, leader.partition.leader_epoch()), (1, 0));
    leader.disk.release("/data".as_ref());
    written(&cluster, in_flight).expect("written");
    cluster.run_for(TAKES);
    assert_eq!(leader.partition.leader_epoch(), 50);
    let promised = leader.partition.when_replicated(&appended);
    assert!(matches!(promised, Err(AppendFailure::Interrupted)), "{promised:?}: another one led under epoch 20");
    let later = produced(&cluster, &leader, "later", true).expect("written");
    assert!(matches!(leader.partition.when_replicated(&later), Ok(Replication::Waiting(_))));
}

#[test]
fn settings_that_change_while_a_log_is_cut_hold_for_it_then() {
    let cluster = Cluster::start(3940, CLEAN);
    cluster.pause_follower(SECOND);
    let follower = cluster.running(SECOND).expect("it runs");
    let of_producer = |offset: i64| {
        let mut builder = BatchBuilder::new(Codec::None).producer(7, 0, offset as i32);
        builder.push(cluster.world.wall(), None, Some(b"value"), &[]);
        let mut batch = builder.build();
        stamp(&mut batch, offset, 0);
        batch
    };
    let records = BytesMut::from(&*[of_producer(0), of_producer(1)].concat());
    let partition = Rc::clone(&follower.partition);
    run(&cluster.world, &cluster.clients, async move {
        let answer = LeaderRecords { records, high_watermark: 0, log_start: 0 };
        partition.append_as_follower(0, answer).await.expect("appended");
    });
    follower.disk.delay("/data".as_ref(), Delay::For(TAKES));
    let (partition, is_cut) = (Rc::clone(&follower.partition), Rc::new(Cell::new(false)));
    let cut = Rc::clone(&is_cut);
    cluster.clients.spawn(async move {
        partition.truncate(Cut::From(1), 0).await.expect("cut");
        cut.set(true);
    });
    cluster.run_for(TAKES / 2);
    follower.partition.set_producer_id_expiration(1000);
    cluster.world.run_until(|| is_cut.get());
    assert_eq!(follower.partition.active_producers().expect("open").len(), 1);
    // Longer than it takes until idle producers are looked for.
    cluster.run_for(Duration::from_secs(700));
    follower.partition.expire_producers();
    assert_eq!(follower.partition.active_producers().expect("open").len(), 0);
}
