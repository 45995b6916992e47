//! What a flush, a roll and a repair promise, and what they do where the machine is short of something.

use super::*;
use crate::sim::disk::power_cut::{PowerCut, Unsynced};

fn killed(recovery_point: Offset) -> LastStop {
    LastStop { recovery_point, ..KILLED }
}

#[test]
fn a_flush_that_ends_during_a_roll_leaves_the_recovery_point_before_indexes_that_may_be_lost() {
    for ends_before_the_roll in [true, false] {
        let disk = FakeDisk::new();
        let mut log = open(&disk, LogConfig { segment_bytes: 1 << 20, ..small() }, CLEAN);
        while log.log_end_offset() < 60 {
            let at = log.log_end_offset();
            append(&mut log, batch(at, 3));
        }
        let flush = log.flush();
        let rolling = log.begin_roll(log.log_end_offset(), 1000);
        let rolled = run(rolling);
        let flushed = run(flush);
        if ends_before_the_roll {
            log.finish_flush(flushed).unwrap();
            assert_eq!(log.flushed_offset(), 60);
            assert!(log.recovery_point() < 60, "the next segment has its name, and this one's indexes are not synced");
        } else {
            log.finish_roll(rolled).unwrap();
            log.finish_flush(flushed).unwrap();
            assert!(log.flushed_offset() == 60 && log.recovery_point() < 60);
        }
        // The power goes with the names durable and nothing but the flushed batches on the device.
        run(disk.sync_directory(Path::new(DIR))).unwrap();
        for seed in 0..8 {
            for data in [Unsynced::Lost, Unsynced::Zeroed, Unsynced::Reordered] {
                let disk = disk.power_cut_by(PowerCut { data, names: Unsynced::Kept, seed });
                let mut log = open(&disk, small(), killed(log.recovery_point()));
                let expected: Vec<_> = (0..60).map(|at| (at, format!("{at:040}"))).collect();
                assert_eq!(records_from(&mut log, 0, 60), expected, "{data:?} {seed}");
                let index = disk.contents(&segment_path(Path::new(DIR), 0, OFFSET_INDEX)).unwrap();
                assert!(!index.is_empty(), "{data:?} {seed}: made anew");
            }
        }
    }
}

#[test]
fn a_repair_that_did_not_come_to_its_sync_is_tried_again_and_the_log_goes_on() {
    for kind in [ErrorKind::OutOfMemory, ErrorKind::Interrupted, ErrorKind::WouldBlock] {
        let disk = FakeDisk::new();
        let mut log = open(&disk, small(), CLEAN);
        append(&mut log, batch(0, 2));
        disk.inject(Fault::Append { kind, written: 7 });
        stage(&mut log, batch(2, 2));
        assert!(write(&mut log).is_err());
        disk.inject(Fault::SetLength(kind));
        let repaired = run(log.repair());
        assert!(log.finish_repair(repaired).is_err());
        assert!(!log.has_failed(), "no sync has failed");
        let repaired = run(log.repair());
        log.finish_repair(repaired).unwrap();
        assert_eq!(append(&mut log, batch(2, 2)), (2, 3));
        let flushed = run(log.flush());
        log.finish_flush(flushed).unwrap();
        assert_eq!(log.flushed_offset(), 4);
    }
}

/// One way to spoil an index file.
type Damage = (&'static str, fn(&[u8]) -> Option<Vec<u8>>);

const DAMAGES: [Damage; 7] = [
    ("missing", |_| None),
    ("empty", |_| Some(Vec::new())),
    ("without its last entry", |sound| Some(sound[..sound.len() - 12].to_vec())),
    ("of one entry", |sound| Some(sound[..12].to_vec())),
    ("cut within an entry", |sound| Some(sound[..sound.len() - 5].to_vec())),
    ("of zeros", |sound| Some(vec![0; sound.len()])),
    ("of garbage", |sound| Some(sound.iter().map(|byte| byte ^ 0xa5).collect())),
];

fn spoil(disk: &FakeDisk, path: &Path, damage: fn(&[u8]) -> Option<Vec<u8>>) {
    let sound = disk.contents(path).unwrap();
    match damage(&sound) {
        Some(spoilt) => disk.put(path, &spoilt),
        None => run(disk.remove_file(path)).unwrap(),
    }
}

#[test]
fn after_an_orderly_stop_no_damage_to_an_index_makes_a_time_query_pass_over_records() {
    let disk = FakeDisk::new();
    let log = filled(&disk, 200);
    let (closed, active) = (*log.closed.keys().nth(1).unwrap(), log.active.base_offset);
    assert!(log.active.size > 1000);
    close(log);
    for base_offset in [closed, active] {
        for extension in [TIME_INDEX, OFFSET_INDEX] {
            let path = segment_path(Path::new(DIR), base_offset, extension);
            let sound = disk.contents(&path).unwrap();
            assert!(sound.len() >= 36, "{path:?}");
            for (name, damage) in DAMAGES {
                let disk = disk.restart();
                spoil(&disk, &path, damage);
                for _ in 0..2 {
                    let mut log = open(&disk, small(), CLEAN);
                    let find = |timestamp| run(log.lookup_timestamp(timestamp, 200, &Inline)).unwrap();
                    for at in 0..200 {
                        assert_eq!(find(10_000 + at), Some((at, 10_000 + at)), "{extension} {name}");
                    }
                    assert_eq!(
                        run(log.lookup_max_timestamp(200, &Inline)).unwrap(),
                        Some((199, 10_199)),
                        "{extension} {name}"
                    );
                    assert_eq!(records_from(&mut log, 0, 200).len(), 200);
                    close(log);
                }
                if extension == TIME_INDEX {
                    assert_eq!(disk.contents(&path).unwrap(), sound, "{name}: made anew");
                }
            }
        }
    }
}

#[test]
fn a_damaged_time_index_makes_no_segment_older_for_retention_than_its_records() {
    let disk = FakeDisk::new();
    let log = filled(&disk, 200);
    let second = *log.closed.keys().nth(1).unwrap();
    let latest = log.closed[&second].latest_timestamp.get();
    close(log);
    for (name, damage) in DAMAGES {
        let disk = disk.restart();
        spoil(&disk, &segment_path(Path::new(DIR), second, TIME_INDEX), damage);
        let mut log = open(&disk, small(), CLEAN);
        let age = run(log.age(second));
        log.finish_age(age).unwrap();
        assert_eq!(log.closed[&second].latest_timestamp.get(), latest, "{name}");
    }
}

#[test]
fn a_segment_whose_records_have_no_timestamps_has_no_time_index_and_is_not_read_for_one_at_every_start() {
    let disk = FakeDisk::new();
    let mut log = open(&disk, small(), CLEAN);
    let mut timeless = BatchBuilder::new(Codec::None);
    timeless.push(-1, None, Some(&[7; 300]), &[]);
    let timeless = timeless.build();
    for _ in 0..12 {
        append(&mut log, timeless.clone());
    }
    let first = *log.closed.keys().next().unwrap();
    close(log);
    let log = open(&disk, small(), CLEAN);
    let replaced = disk.counts().get("replace").copied();
    assert_eq!(run(log.lookup_timestamp(0, 100, &Inline)).unwrap(), None);
    assert!(disk.contents(&segment_path(Path::new(DIR), first, TIME_INDEX)).unwrap().is_empty());
    assert_eq!(disk.counts().get("replace").copied(), replaced, "an empty index fits them");
}

#[test]
fn a_look_at_the_times_of_a_segment_whose_log_is_missing_is_an_error_and_makes_none() {
    let disk = FakeDisk::new();
    let log = filled(&disk, 200);
    let second = *log.closed.keys().nth(1).unwrap();
    close(log);
    let mut log = open(&disk, small(), CLEAN);
    let path = segment_path(Path::new(DIR), second, LOG);
    run(disk.remove_file(&path)).unwrap();
    assert!(matches!(run(log.lookup_timestamp(10_000 + second, 200, &Inline)), Err(LogError::Io { .. })));
    let age = run(log.age(second));
    assert!(log.finish_age(age).is_err());
    assert!(disk.contents(&path).is_err());
}

#[test]
fn flushed_records_survive_any_power_cut_and_what_is_left_is_whole() {
    let mut seed = 1;
    for round in 0..300 {
        let disk = FakeDisk::new();
        let mut log = open(&disk, small(), CLEAN);
        let mut recovery_point = 0;
        for _ in 0..next(&mut seed) % 60 {
            let at = log.log_end_offset();
            append(&mut log, batch(at, 1 + (next(&mut seed) % 6) as i64));
            if next(&mut seed).is_multiple_of(8) {
                let flushed = run(log.flush());
                log.finish_flush(flushed).unwrap();
                recovery_point = log.recovery_point();
            }
        }
        let (flushed, end) = (log.flushed_offset(), log.log_end_offset());
        let disk = disk.power_cut(round);
        let mut log = open(&disk, small(), LastStop { recovery_point, ..KILLED });
        assert!((flushed..=end).contains(&log.log_end_offset()), "round {round}");
        let left: BTreeMap<_, _> = records_from(&mut log, 0, 500).into_iter().collect();
        assert!((0..flushed).all(|offset| left.contains_key(&offset)), "round {round}");
        assert!(left.iter().all(|(offset, value)| *value == format!("{offset:040}")), "round {round}");
        // It goes on, and a second start finds the same.
        let at = log.log_end_offset();
        append(&mut log, batch(at, 3));
        let left = records_from(&mut log, 0, 500);
        close(log);
        assert_eq!(records_from(&mut open(&disk, small(), CLEAN), 0, 500), left, "round {round}");
    }
}

#[test]
fn a_failed_sync_never_counts_as_flushed() {
    let disk = FakeDisk::new();
    let mut log = filled(&disk, 50);
    disk.inject(Fault::Sync(ErrorKind::Other));
    let flushed = run(log.flush());
    assert!(log.finish_flush(flushed).is_err());
    assert_eq!((log.flushed_offset(), log.recovery_point()), (0, 0));
}

#[test]
fn a_roll_during_a_flush_does_not_pass_the_recovery_point_over_its_indexes() {
    let disk = FakeDisk::new();
    let mut log = filled(&disk, 30);
    let (base_offset, flushing) = (log.active.base_offset, log.flush());
    roll(&mut log);
    log.finish_flush(run(flushing)).unwrap();
    assert_eq!(log.flushed_offset(), 30);
    assert!((base_offset..30).contains(&log.recovery_point()), "the rolled segment's indexes are not durable");
    let flushed = run(log.flush());
    log.finish_flush(flushed).unwrap();
    assert_eq!(log.recovery_point(), 30);
}

#[test]
fn a_recovery_point_noted_before_a_roll_covers_the_indexes_that_the_roll_wrote() {
    let disk = FakeDisk::new();
    let mut log = filled(&disk, 100);
    let flushed = run(log.flush());
    log.finish_flush(flushed).unwrap();
    let recovery_point = log.recovery_point();
    roll(&mut log);
    append(&mut log, batch(100, 1));
    for seed in 0..64 {
        let log = open(&disk.power_cut(seed), small(), LastStop { recovery_point, ..KILLED });
        for at in 0..100 {
            assert_eq!(
                run(log.lookup_timestamp(10_000 + at, 100, &Inline)).unwrap(),
                Some((at, 10_000 + at)),
                "seed {seed}"
            );
        }
    }
}
