//! What a follower makes of its leader's answers: long ones, odd ones, and those that its disk does not take.

use std::io::ErrorKind;

use bytes::BytesMut;

use super::cluster::Replica;
use super::fence::{FIRST, SECOND, builder, given, produced};
use super::*;
use crate::base::ids::Offset;
use crate::partition::append::AppendFailure;
use crate::partition::partition::{ANY_EPOCH, AnsweredBy, Offsets};
use crate::partition::replicate::LeaderRecords;
use crate::partition::truncate::Cut;
use crate::record::batch::{BatchBuilder, stamp};
use crate::record::compression::Codec;
use crate::sim::disk::{Fault, ReplaceStep};
use crate::storage::log::AppendRefusal;

/// Where the checksum of a batch begins; it covers all behind itself.
const CRC_POSITION: usize = 17;

const COMPACTED: ClusterSetup = ClusterSetup { compacted: true, ..CLEAN };

/// A follower that nobody feeds but the test.
fn follower(cluster: &Cluster) -> Rc<Replica> {
    cluster.pause_follower(SECOND);
    cluster.running(SECOND).expect("it runs")
}

fn offsets(replica: &Replica) -> Offsets {
    replica.partition.offsets(ANY_EPOCH, AnsweredBy::AnyReplica).expect("open")
}

/// What the follower has written down of leader epochs.
fn epochs(replica: &Replica) -> String {
    let path = format!("/data/{TOPIC}-0/leader-epoch-checkpoint");
    String::from_utf8(replica.disk.contents(path.as_ref()).expect("a file")).expect("text")
}

fn together<const N: usize>(batches: [BytesMut; N]) -> BytesMut {
    BytesMut::from(&*batches.concat())
}

fn of_epoch(offset: i64, epoch: i32, bytes: usize) -> BytesMut {
    let mut batch = builder(&"x".repeat(bytes)).build();
    stamp(&mut batch, offset, epoch);
    batch
}

fn replicated(cluster: &Cluster, follower: &Replica, records: BytesMut) -> Result<i64, AppendFailure> {
    let partition = Rc::clone(&follower.partition);
    run(&cluster.world, &cluster.clients, async move {
        // As far as it has them.
        let answer = LeaderRecords { records, high_watermark: i64::MAX, log_start: 0 };
        partition.append_as_follower(0, answer).await
    })
}

fn of_leader(offset: i64) -> BytesMut {
    let mut batch = builder(&format!("0/{offset}")).build();
    stamp(&mut batch, offset, 0);
    batch
}

#[test]
fn a_follower_of_a_log_that_was_compacted_once_misses_the_same_offsets_after_every_end() {
    for death in [Death::Kill, Death::PowerCut, Death::Stop] {
        let cluster = Cluster::start(3660, CLEAN);
        let follower = cluster.running(SECOND).expect("it runs");
        cluster.pause_follower(SECOND);
        let records = [of_leader(0), of_leader(5), of_leader(9)].concat();
        assert_eq!(replicated(&cluster, &follower, BytesMut::from(&*records)).expect("appended"), 10);
        // Longer than an idle log waits for its flush.
        cluster.run_for(Duration::from_secs(20));
        cluster.restart(SECOND, death);
        let follower = cluster.running(SECOND).expect("it runs");
        let offsets: Vec<_> = cluster.records(&follower).into_iter().map(|(offset, ..)| offset).collect();
        assert_eq!(offsets, [0, 5, 9], "{death:?}");
    }
}

#[test]
fn a_garbled_answer_is_refused_and_what_was_sound_before_it_stays() {
    let cluster = Cluster::start(3670, CLEAN);
    let follower = follower(&cluster);
    let (mut end, mut refusals) = (0, 0);
    for _ in 0..300 {
        let sound = of_leader(end);
        let mut records = together([sound.clone(), of_leader(end + 1)]);
        let at = cluster.world.below(records.len() - sound.len());
        records[sound.len() + at] ^= 1 << cluster.world.below(8);
        let before = end;
        let outcome = replicated(&cluster, &follower, records);
        end = offsets(&follower).log_end;
        if at >= CRC_POSITION {
            let is_refused = matches!(outcome, Err(AppendFailure::Refused(AppendRefusal::Corrupt { .. })));
            assert!(is_refused && end == before + 1, "byte {at}: {outcome:?}, {before} to {end}");
            refusals += 1;
        }
        // What the checksum does not cover may be taken as it is.
        assert!(end > before, "the first batch is there");
        if end > i64::MAX / 4 {
            break;
        }
    }
    assert!(refusals > 10, "{refusals}");
}

#[test]
fn the_high_watermark_follows_as_far_as_an_answer_was_appended_before_what_is_refused() {
    let cluster = Cluster::start(3671, CLEAN);
    let follower = follower(&cluster);
    let mut records = together([of_leader(0), of_leader(1)]);
    *records.last_mut().expect("bytes") ^= 1;
    assert!(replicated(&cluster, &follower, records).is_err());
    let Offsets { high_watermark, log_end, .. } = offsets(&follower);
    assert_eq!((high_watermark, log_end), (1, 1));
}

#[test]
fn an_answer_of_more_batches_than_clients_may_have_waiting_is_appended_whole() {
    let cluster = Cluster::start(3672, CLEAN);
    let follower = follower(&cluster);
    let records: Vec<_> = (0..100).flat_map(of_leader).collect();
    assert_eq!(replicated(&cluster, &follower, BytesMut::from(&*records)).expect("appended"), 100);
    assert_eq!(offsets(&follower).high_watermark, 100);
}

#[test]
fn of_a_compacted_log_nothing_is_appended_behind_a_batch_that_could_not_be_written_or_was_refused() {
    for seed in 3673..3683 {
        let cluster = Cluster::start(seed, COMPACTED);
        let follower = follower(&cluster);
        replicated(&cluster, &follower, of_leader(0)).expect("appended");
        // Two fit into a segment: those behind are another write.
        let large = |offset| of_epoch(offset, 0, 1300);
        follower.disk.inject(Fault::Append { kind: ErrorKind::StorageFull, written: 100 });
        let failed = replicated(&cluster, &follower, together([large(1), large(2), large(3), large(4)]));
        assert!(matches!(failed, Err(AppendFailure::Storage(_))), "seed {seed}: {failed:?}");
        cluster.run_for(Duration::from_millis(50));
        assert_eq!(offsets(&follower).log_end, 1, "seed {seed}");
        // One that the leader has sent before, say.
        let refused = replicated(&cluster, &follower, together([large(1), large(1), large(3), large(4)]));
        assert!(matches!(refused, Err(AppendFailure::Refused(_))), "seed {seed}: {refused:?}");
        cluster.run_for(Duration::from_millis(50));
        assert_eq!(offsets(&follower).log_end, 2, "seed {seed}");
        assert_eq!(replicated(&cluster, &follower, together([large(2), large(3)])).expect("appended"), 4);
    }
}

#[test]
fn an_epoch_begins_with_the_batch_that_the_log_takes_and_at_its_offset() {
    let cluster = Cluster::start(3684, COMPACTED);
    let follower = follower(&cluster);
    let records = together([of_epoch(0, 0, 10), of_epoch(1, 0, 10), of_epoch(1, 3, 10)]);
    assert!(replicated(&cluster, &follower, records).is_err(), "the last one overlaps");
    assert_eq!(epochs(&follower), "0\n1\n0 0\n", "epoch 3 has written nothing");
    // The batch is lost with which another epoch begins, and then one of the epoch before is fetched.
    follower.disk.inject(Fault::Append { kind: ErrorKind::StorageFull, written: 10 });
    assert!(replicated(&cluster, &follower, of_epoch(5, 3, 10)).is_err());
    assert_eq!(replicated(&cluster, &follower, of_epoch(2, 0, 10)).expect("appended"), 3);
    assert_eq!(replicated(&cluster, &follower, of_epoch(7, 4, 10)).expect("appended"), 8);
    assert_eq!(follower.partition.own_end_offset_for(0), Some((0, 7)), "where the next epoch begins");
    assert_eq!(epochs(&follower), "0\n2\n0 0\n4 7\n", "epoch 0 began where it did");
}

#[test]
fn a_deposed_leader_whose_epoch_has_written_nothing_forgets_it_when_its_log_is_brought_in_line() {
    let cluster = Cluster::start(3685, CLEAN);
    let leader = cluster.running(FIRST).expect("it runs");
    cluster.pause_follower(SECOND);
    produced(&cluster, &leader, "value", false).expect("written");
    drop(leader.partition.change_role(given(FIRST, 1, &[FIRST])));
    leader.disk.inject(Fault::Append { kind: ErrorKind::StorageFull, written: 10 });
    produced(&cluster, &leader, "lost", false).expect_err("the disk is full");
    drop(leader.partition.change_role(given(SECOND, 2, &[SECOND])));
    let partition = Rc::clone(&leader.partition);
    let last_epoch = run(&cluster.world, &cluster.clients, async move {
        assert_eq!(partition.truncate(Cut::From(1), 2).await.expect("in line"), 1);
        partition.follower_position(2).await.expect("it follows").last_epoch
    });
    assert_eq!(last_epoch, Some(0));
}

#[test]
fn an_empty_log_begins_anew_inside_a_sound_batch_only() {
    let cluster = Cluster::start(3686, CLEAN);
    let follower = follower(&cluster);
    let partition = Rc::clone(&follower.partition);
    run(&cluster.world, &cluster.clients, async move { partition.truncate(Cut::All(5), 0).await.expect("cut") });
    let of_ten = |base_offset| {
        let mut builder = BatchBuilder::new(Codec::None);
        (0..10).for_each(|_| builder.push(1, None, Some(b"value"), &[]));
        let mut batch = builder.build();
        stamp(&mut batch, base_offset, 0);
        batch
    };
    let mut garbled = of_ten(3);
    *garbled.last_mut().expect("bytes") ^= 1;
    for records in [garbled, of_ten(-2)] {
        replicated(&cluster, &follower, records).expect_err("refused");
        let Offsets { log_start, log_end, .. } = offsets(&follower);
        assert_eq!((log_start, log_end), (5, 5));
    }
    assert_eq!(replicated(&cluster, &follower, of_ten(3)).expect("appended"), 13);
    assert_eq!(offsets(&follower).log_start, 3);
}

#[test]
fn missing_offsets_are_taken_only_when_a_checkpoint_says_that_there_may_be_some() {
    let cluster = Cluster::start(3687, CLEAN);
    let follower = follower(&cluster);
    let records = || together([of_leader(0), of_leader(5)]);
    let fails = Fault::Replace { kind: ErrorKind::StorageFull, step: ReplaceStep::Write };
    follower.disk.inject(fails.under("/data/cleaner-offset-checkpoint").lasting());
    for _ in 0..3 {
        replicated(&cluster, &follower, records()).expect_err("not written down");
        assert_eq!(offsets(&follower).log_end, 0 as Offset);
    }
    follower.disk.heal();
    assert_eq!(replicated(&cluster, &follower, records()).expect("appended"), 6);
    cluster.restart(SECOND, Death::PowerCut);
}
