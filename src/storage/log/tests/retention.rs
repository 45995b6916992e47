//! The beginning of a log, given up.

use super::recovery::interrupted;
use super::*;
use crate::storage::retention::RetentionPolicy;

const FOR_EVER: RetentionPolicy = RetentionPolicy { delete: true, retention_ms: -1, retention_bytes: -1 };

/// A log of several segments, flushed; records of offset `n` are of time 10,000 + n.
fn flushed(disk: &FakeDisk) -> Log<FakeDisk> {
    let mut log = open(disk, small(), CLEAN);
    for at in 0..100 {
        append(&mut log, batch(at, 1));
    }
    flush(&mut log);
    log
}

fn flush(log: &mut Log<FakeDisk>) {
    let flushed = run(log.flush());
    log.finish_flush(flushed).unwrap();
}

/// Does what retention calls for, as a partition does; gives the files set aside.
fn retain(log: &mut Log<FakeDisk>, policy: RetentionPolicy, now: WallMs) -> Vec<PathBuf> {
    let mut modified = None;
    loop {
        match log.retention(policy, log.log_end_offset(), now, modified) {
            Retention::Keep => return Vec::new(),
            Retention::NeedsAge(base_offset) => {
                let age = run(log.age(base_offset));
                modified = modified.or(log.finish_age(age).unwrap());
            }
            Retention::RollFirst => roll(log),
            Retention::FlushFirst => flush(log),
            Retention::DeleteBelow(end_offset) => {
                log.increment_log_start_offset(end_offset);
                return take_out(log, end_offset);
            }
        }
    }
}

fn take_out(log: &mut Log<FakeDisk>, end_offset: Offset) -> Vec<PathBuf> {
    let names = run(log.names().hold_alone());
    let taken = run(log.take_out(end_offset, names));
    let (_, files, error) = log.finish_take_out(taken);
    assert!(error.is_none(), "{error:?}");
    files
}

fn bases(disk: &FakeDisk) -> Vec<Offset> {
    let names = disk.paths().into_iter().filter(|path| path.starts_with(DIR));
    let names = names.filter_map(|path| path.file_name()?.to_str()?.strip_suffix(".log")?.parse().ok());
    names.collect()
}

#[test]
fn segments_older_than_retention_ms_go_and_the_log_starts_behind_them() {
    let disk = FakeDisk::new();
    let mut log = flushed(&disk);
    let all = bases(&disk);
    let third = all[2];
    let held = read(&mut log, 0, 500, 100);
    let policy = RetentionPolicy { retention_ms: 1000, ..FOR_EVER };
    assert!(retain(&mut log, policy, 11_000).is_empty(), "the newest record of the first segment is not older yet");
    let files = retain(&mut log, policy, 11_000 + third);
    assert_eq!(log.log_start_offset(), third);
    assert_eq!(bases(&disk), all[2..]);
    assert!(files.iter().all(|file| file.extension().is_some_and(|extension| extension == "deleted")), "{files:?}");
    assert!(matches!(log.read(third - 1, 500, 100), Read::OutOfRange));
    assert_eq!(records_from(&mut log, third, 500).len() as i64, 100 - third);
    let Read::Range { range, .. } = held else { panic!("{held:?}") };
    assert!(batches(&range.file.bytes_at(0, range.length)).count() > 1, "who has a range keeps it");

    let _ = run(log.close()).unwrap();
    let log = open(&disk.restart(), small(), CLEAN);
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (third, 100));
}

#[test]
fn a_log_that_has_expired_as_a_whole_is_rolled_and_starts_at_its_end_with_its_producers() {
    let disk = FakeDisk::new();
    let mut log = flushed(&disk);
    append(&mut log, idempotent(7, 0, 3));
    retain(&mut log, RetentionPolicy { retention_ms: 1000, ..FOR_EVER }, 1_000_000);
    assert_eq!((log.log_start_offset(), log.log_end_offset(), bases(&disk)), (103, 103, vec![103]));
    for seed in 0..16 {
        let mut log = open(&disk.power_cut(seed), small(), LastStop { recovery_point: 103, ..KILLED });
        assert_eq!((log.log_start_offset(), log.log_end_offset()), (103, 103));
        assert!(matches!(stage(&mut log, idempotent(7, 0, 3)), Staged::Duplicate { base_offset: 100, .. }));
        assert_eq!(append(&mut log, idempotent(7, 3, 1)), (103, 103));
    }
}

#[test]
fn records_without_a_timestamp_are_as_old_as_the_last_change_of_their_file() {
    let disk = FakeDisk::new();
    disk.set_wall(5000);
    let mut log = open(&disk, small(), CLEAN);
    for _ in 0..100 {
        let mut builder = BatchBuilder::new(Codec::None);
        builder.push(-1, None, Some(&[b'x'; 40]), &[]);
        append(&mut log, builder.build());
    }
    flush(&mut log);
    let policy = RetentionPolicy { retention_ms: 1000, ..FOR_EVER };
    retain(&mut log, policy, 6000);
    assert_eq!(log.log_start_offset(), 0);
    retain(&mut log, policy, 6001);
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (100, 100));
}

#[test]
fn what_a_power_cut_leaves_of_a_deletion_is_a_log_without_a_gap() {
    let mut starts = BTreeSet::new();
    for operations in 0.. {
        let disk = FakeDisk::new();
        let mut log = flushed(&disk);
        let all = bases(&disk);
        log.increment_log_start_offset(all[3]);
        let act = |disk: FakeDisk| {
            log.disk = disk;
            let names = run(log.names().hold_alone());
            log.take_out(all[3], names)
        };
        let is_over = interrupted(&disk, operations, act).is_some();
        for seed in 0..8 {
            let mut log = open(&disk.power_cut(seed), small(), LastStop { recovery_point: 100, ..KILLED });
            let start = log.log_start_offset();
            assert!(all[..=3].contains(&start), "{start}");
            assert_eq!(records_from(&mut log, start, 3000).len() as i64, 100 - start);
            assert!(!is_over || start == all[3], "durable when it is over");
            starts.insert(start);
        }
        if is_over {
            break;
        }
    }
    assert!(starts.len() > 2, "{starts:?}");
}

#[test]
fn a_reader_that_waits_for_a_segment_that_goes_is_told_to_read_again() {
    let disk = FakeDisk::new();
    let mut log = open(&flushed(&disk).disk.restart(), small(), KILLED);
    let waiting = log.load_segment(0);
    let lookup = log.lookup_timestamp(10_000, 100, &Inline);
    let second = *log.closed.keys().nth(1).unwrap();
    log.increment_log_start_offset(second);
    flush(&mut log);
    take_out(&mut log, second);
    let loaded = run(waiting);
    log.finish_load_segment(loaded).unwrap();
    assert!(matches!(run(lookup), Err(LogError::SegmentsChanged)));
    assert_eq!(run(log.lookup_timestamp(10_000, 100, &Inline)).unwrap(), Some((second, 10_000 + second)));
}

#[test]
fn a_deletion_that_fails_half_way_is_finished_by_the_next() {
    let disk = FakeDisk::new();
    let mut log = flushed(&disk);
    let all = bases(&disk);
    log.increment_log_start_offset(all[3]);
    disk.inject(Fault::Any(ErrorKind::Other).at(6));
    let names = run(log.names().hold_alone());
    let taken = run(log.take_out(all[3], names));
    assert!(log.finish_take_out(taken).2.is_some());
    assert_eq!(records_from(&mut log, all[3], 3000).len() as i64, 100 - all[3]);
    take_out(&mut log, all[3]);
    assert_eq!((bases(&disk), log.first_segment_offset()), (all[3..].to_vec(), all[3]));
}

#[test]
fn the_log_start_takes_leader_epochs_and_open_transactions_along() {
    let disk = FakeDisk::new();
    let mut log = open(&disk, small(), CLEAN);
    run(log.assign_epoch(3, log.log_end_offset()).unwrap()).unwrap();
    append(&mut log, batch(0, 10));
    run(log.assign_epoch(5, log.log_end_offset()).unwrap()).unwrap();
    let mut builder = BatchBuilder::new(Codec::None).producer(9, 0, 0).transactional();
    builder.push(900, None, Some(b"value"), &[]);
    append(&mut log, builder.build());
    append(&mut log, batch(11, 10));
    assert_eq!(log.last_stable_offset(21), 10);
    assert!(log.increment_log_start_offset(15) && !log.increment_log_start_offset(14));
    assert_eq!(log.last_stable_offset(21), 15, "what is gone is not waited for");
    assert_eq!((log.epoch_at(14), log.epoch_at(15)), (None, Some(5)));
    run(log.epochs_write().unwrap()).unwrap();
    assert!(log.epochs_write().is_none());
    let checkpoint = disk.contents(&Path::new(DIR).join(LEADER_EPOCH_CHECKPOINT)).unwrap();
    assert_eq!(checkpoint, b"0\n1\n5 15\n");
}
