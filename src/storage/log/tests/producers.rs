//! Which producers a log remembers, over which kinds of stop, and for how long.

use super::*;

#[test]
fn a_duplicate_is_answered_with_its_first_offsets_even_while_its_write_is_in_flight() {
    let mut log = open(&FakeDisk::new(), LogConfig::default(), CLEAN);
    append(&mut log, batch(0, 5));
    assert!(matches!(stage(&mut log, idempotent(7, 0, 2)), Staged::Written { base_offset: 5, .. }));
    let is_duplicate =
        |staged| matches!(staged, Staged::Duplicate { base_offset: 5, last_offset: 6, log_append_time: 0.. });
    assert!(is_duplicate(stage(&mut log, idempotent(7, 0, 2))));
    assert_eq!(log.log_end_offset(), 5, "not answered before the write has finished");
    write(&mut log).unwrap();
    assert!(is_duplicate(stage(&mut log, idempotent(7, 0, 2))));
    let gap = stage(&mut log, idempotent(7, 3, 1));
    assert!(matches!(gap, Staged::Refused(AppendRefusal::OutOfOrderSequence { last_sequence: 1, .. })));
    assert!(matches!(stage(&mut log, idempotent(7, 2, 1)), Staged::Written { base_offset: 7, .. }));
}

#[test]
fn a_producer_is_remembered_over_a_clean_stop_a_kill_and_a_roll() {
    let disk = FakeDisk::new();
    let mut log = open(&disk, small(), CLEAN);
    append(&mut log, idempotent(7, 0, 2));
    append(&mut log, batch(2, 20));
    append(&mut log, batch(22, 20));
    assert!(!log.closed.is_empty());
    append(&mut log, idempotent(7, 2, 1));
    let check = |disk: &FakeDisk, stop| {
        let mut log = open(disk, small(), stop);
        assert!(matches!(stage(&mut log, idempotent(7, 2, 1)), Staged::Duplicate { base_offset: 42, .. }));
        assert!(matches!(stage(&mut log, idempotent(7, 5, 1)), Staged::Refused(_)));
        assert!(matches!(stage(&mut log, idempotent(7, 3, 1)), Staged::Written { base_offset: 43, .. }));
    };
    check(&disk.restart(), KILLED);
    let damaged = disk.restart();
    for path in damaged.paths().iter().filter(|path| path.extension().is_some_and(|name| name == SNAPSHOT)) {
        damaged.put(path, b"not a snapshot");
    }
    check(&damaged, KILLED);
    close(log);
    check(&disk, CLEAN);
}

#[test]
fn snapshots_of_earlier_stops_do_not_pile_up() {
    let disk = FakeDisk::new();
    for at in 0..10 {
        let mut log = open(&disk, small(), CLEAN);
        append(&mut log, idempotent(7, at, 1));
        close(log);
    }
    open(&disk, small(), CLEAN);
    let is_snapshot = |path: &PathBuf| path.extension().is_some_and(|name| name == SNAPSHOT);
    let snapshots: Vec<_> = disk.paths().into_iter().filter(is_snapshot).collect();
    assert_eq!(snapshots, [segment_path(Path::new(DIR), 10, SNAPSHOT)]);
}

#[test]
fn a_producer_that_is_idle_for_long_is_forgotten_though_none_other_comes() {
    let disk = FakeDisk::new();
    let expiring = LogConfig { producer_id_expiration_ms: 86_400_000, ..LogConfig::default() };
    let mut log = run(Log::open(OpenLog { wall: 1000, ..what(&disk, expiring, KILLED) })).unwrap();
    assert!(matches!(stage(&mut log, idempotent(7, 0, 3)), Staged::Written { .. }));
    write(&mut log).unwrap();
    log.expire_producers(2000);
    assert_eq!(log.producers.len(), 1);
    log.expire_producers(1000 + 2 * 86_400_000);
    assert_eq!(log.producers.len(), 0);
}

#[test]
fn a_producer_of_old_records_keeps_its_window_over_a_kill() {
    let disk = FakeDisk::new();
    // Its records say 1970 (a backfill), the clock says today.
    let today = 1_700_000_000_000;
    let open_today =
        |disk: &FakeDisk| run(Log::open(OpenLog { wall: today, ..what(disk, LogConfig::default(), KILLED) })).unwrap();
    let stage_today = |log: &mut Log<FakeDisk>| {
        let batch = idempotent(7, 0, 3);
        let header = BatchHeader::parse(&batch).unwrap();
        log.stage(batch, &header, Origin::Client, 0, today + 1)
    };
    let mut log = open_today(&disk);
    assert!(matches!(stage_today(&mut log), Staged::Written { base_offset: 0, .. }));
    write(&mut log).unwrap();
    drop(log);
    let mut log = open_today(&disk.restart());
    assert!(matches!(stage_today(&mut log), Staged::Duplicate { base_offset: 0, last_offset: 2, .. }));
}
