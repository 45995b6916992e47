//! What a start makes of a process that was killed while the page cache lives on, and what is written for it.

use super::recovery::interrupted;
use super::*;
use crate::storage::recovery::written::of_tests::UNANSWERED_BYTES_MAX;
use crate::storage::segment::BatchPlace;

/// Killed, with the page cache alive.
fn survived(recovery_point: Offset) -> LastStop {
    LastStop { recovery_point, cache_survived: true, ..KILLED }
}

fn killed(recovery_point: Offset) -> LastStop {
    LastStop { recovery_point, ..KILLED }
}

fn path(base_offset: Offset, extension: &str) -> PathBuf {
    segment_path(Path::new(DIR), base_offset, extension)
}

fn large() -> LogConfig {
    LogConfig { segment_bytes: 64 << 20, ..small() }
}

/// Opens a log; gives how many bytes of batches that has read too.
fn open_counting(disk: &FakeDisk, config: LogConfig, last_stop: LastStop) -> (Log<FakeDisk>, u64) {
    let what = what(disk, config, last_stop);
    let progress = what.progress.clone();
    let log = run(Log::open(what)).unwrap();
    assert_eq!(progress.bytes_done.get(), progress.bytes_total.get());
    (log, progress.bytes_total.get())
}

/// A log in one segment whose index entries are written, but for the last few; its batches' places.
fn one_segment(disk: &FakeDisk, end: Offset) -> Vec<BatchPlace> {
    let mut log = open(disk, large(), CLEAN);
    log.assign_epoch(0, log.log_end_offset()).map(run).transpose().unwrap();
    let mut places = Vec::new();
    while log.log_end_offset() < end {
        let at = log.log_end_offset();
        assert!(matches!(stage(&mut log, batch(at, (1 + at % 3).min(end - at))), Staged::Written { .. }));
        write(&mut log).unwrap();
        places.push(log.active.last_place().unwrap());
        if at < end - 15 {
            upkeep_at(&mut log, 10_000 * at);
        }
    }
    places
}

#[test]
fn after_a_kill_only_the_end_of_each_log_is_read_and_all_that_was_written_is_there() {
    let disk = FakeDisk::new();
    let places = one_segment(&disk, 300);
    let size = places.last().map_or(0, |place| place.position + place.bytes);
    for recovery_point in [0, 1, 150, 290, 300] {
        let (mut log, read) = open_counting(&disk.restart(), large(), survived(recovery_point));
        assert!(read < size / 8, "{read} of {size}, recovery point {recovery_point}");
        assert_eq!((log.flushed_offset(), log.recovery_point()), (recovery_point, recovery_point));
        let unflushed = log.unflushed_bytes();
        let place = places.iter().find(|place| place.last_offset >= recovery_point);
        let expected = place.map_or(0, |place| size - place.position);
        assert!((expected..=expected + 1000).contains(&unflushed), "{unflushed}, not {expected}");
        assert_eq!((unflushed == 0, log.latest_epoch()), (recovery_point == 300, Some(0)));
        assert_holds(&mut log, 300);
        let find = |timestamp| run(log.lookup_timestamp(timestamp, 300, &Inline)).unwrap();
        assert!((0..300).all(|at| find(10_000 + at) == Some((at, 10_000 + at))));
        append(&mut log, batch(300, 3));
        let flushed = run(log.flush());
        log.finish_flush(flushed).unwrap();
        assert_eq!((log.unflushed_bytes(), log.recovery_point()), (0, 303));
    }
    let (_, read) = open_counting(&disk.restart(), large(), killed(0));
    assert_eq!(read, size, "without it all is read");
}

#[test]
fn segments_past_the_recovery_point_are_taken_as_they_are_and_become_durable_with_the_next_flush() {
    let disk = FakeDisk::new();
    let log = filled(&disk, 200);
    let (bases, size) = (log.closed.keys().copied().collect::<Vec<_>>(), log.size_bytes());
    for recovery_point in [0, bases[2], bases[2] + 1, 200] {
        let again = disk.restart();
        let (mut log, read) = open_counting(&again, small(), survived(recovery_point));
        assert!(read < 2500, "{read} of {size}: the last segment at most");
        assert_eq!(log.closed.keys().copied().collect::<Vec<_>>(), bases);
        assert_eq!((log.flushed_offset(), log.log_end_offset()), (recovery_point, 200));
        assert!(log.recovery_point() <= recovery_point);
        assert_holds(&mut log, 200);
        let flushed = run(log.flush());
        log.finish_flush(flushed).unwrap();
        assert_eq!((log.recovery_point(), log.unflushed_bytes()), (200, 0));
        // Nothing below the others was ever durable.
        for seed in (0..16).filter(|_| recovery_point == 0) {
            assert_holds(&mut open(&again.power_cut(seed), small(), killed(200)), 200);
        }
    }
}

#[test]
fn a_last_append_that_is_torn_at_any_byte_loses_its_torn_batch_alone() {
    let disk = FakeDisk::new();
    let places = one_segment(&disk, 60);
    let whole = disk.contents(&path(0, LOG)).unwrap();
    // Of one write of three batches.
    for last in &places[places.len() - 3..] {
        for cut in (last.position + 1..last.position + last.bytes).step_by(7) {
            let disk = disk.restart();
            disk.put(&path(0, LOG), &whole[..cut as usize]);
            let (mut log, read) = open_counting(&disk, large(), survived(0));
            assert_eq!(log.log_end_offset(), last.base_offset, "cut at {cut}");
            assert!(read < whole.len() as u64 / 2);
            assert_eq!(disk.contents(&path(0, LOG)).unwrap().len() as u64, last.position);
            assert_holds(&mut log, last.base_offset);
            append(&mut log, batch(last.base_offset, 5));
            assert_holds(&mut log, last.base_offset + 5);
            assert_holds(&mut open(&disk.restart(), large(), survived(0)), last.base_offset + 5);
        }
    }
}

#[test]
fn a_stop_in_order_after_a_torn_append_leaves_nothing_torn_to_a_power_cut() {
    let disk = FakeDisk::new();
    let mut log = open(&disk, large(), CLEAN);
    let tear = |log: &mut Log<FakeDisk>, disk: &FakeDisk| {
        disk.inject(Fault::Append { kind: ErrorKind::Other, written: 80 });
        let at = log.log_end_offset();
        stage(log, batch(at, 2));
        assert!(write(log).is_err());
    };
    append(&mut log, batch(0, 4));
    // Torn behind what is flushed; and the first batch of a segment.
    for rolls in [false, true] {
        let flushed = run(log.flush());
        log.finish_flush(flushed).unwrap();
        if rolls {
            roll(&mut log);
        }
        let (recovery_point, end) = (log.recovery_point(), log.log_end_offset());
        tear(&mut log, &disk);
        let killed = disk.restart();
        let mut again = open(&killed, large(), survived(recovery_point));
        assert_eq!(again.log_end_offset(), end);
        if let Some(flush) = again.flush_closed() {
            again.finish_flush(run(flush)).unwrap();
        }
        close(again);
        for seed in 0..32 {
            assert_holds(&mut open(&killed.power_cut(seed), large(), LastStop { recovery_point: end, ..CLEAN }), end);
        }
        let repaired = run(log.repair());
        log.finish_repair(repaired).unwrap();
    }
}

#[test]
fn indexes_that_lag_by_any_number_of_entries_make_more_to_read_and_nothing_else() {
    let disk = FakeDisk::new();
    one_segment(&disk, 120);
    let [offsets, times] = [OFFSET_INDEX, TIME_INDEX].map(|extension| disk.contents(&path(0, extension)).unwrap());
    assert_eq!(offsets.len() / 8, times.len() / 12);
    let mut read_before = u64::MAX;
    for entries in 0..=offsets.len() / 8 {
        // The time index is written first, and may be torn within an entry.
        for more in [0, 1, 12] {
            let disk = disk.restart();
            disk.put(&path(0, OFFSET_INDEX), &offsets[..entries * 8]);
            disk.put(&path(0, TIME_INDEX), &times[..(entries * 12 + more).min(times.len())]);
            let (mut log, read) = open_counting(&disk, large(), survived(0));
            assert_holds(&mut log, 120);
            assert!(read < read_before || more > 0, "{entries} entries");
            read_before = read;
            append(&mut log, batch(120, 2));
            roll(&mut log);
            assert!(disk.contents(&path(0, OFFSET_INDEX)).unwrap().starts_with(&offsets));
            assert!(disk.contents(&path(0, TIME_INDEX)).unwrap().starts_with(&times));
        }
    }
}

#[test]
fn the_producers_are_known_from_a_snapshot_that_is_newer_than_what_is_durable_and_the_batches_behind() {
    UNANSWERED_BYTES_MAX.set(0);
    for snapshot_at in 0..12 {
        let disk = FakeDisk::new();
        let mut log = open(&disk, large(), CLEAN);
        for at in 0..12 {
            assert!(matches!(stage(&mut log, idempotent(7, at, 1)), Staged::Written { .. }));
            write(&mut log).unwrap();
            log.set_upkeep_bytes(if at == snapshot_at { 0 } else { u64::MAX });
            upkeep_at(&mut log, 20_000);
        }
        let snapshot = path(Offset::from(snapshot_at) + 1, SNAPSHOT);
        assert!(disk.contents(&snapshot).is_ok());
        for damaged in [false, true] {
            let disk = disk.restart();
            if damaged {
                disk.put(&snapshot, b"torn");
            }
            let mut log = open(&disk, large(), survived(0));
            assert_eq!(disk.contents(&snapshot).is_err(), damaged, "it is kept if it is of use");
            assert!(matches!(stage(&mut log, idempotent(7, 11, 1)), Staged::Duplicate { base_offset: 11, .. }));
            assert!(matches!(stage(&mut log, idempotent(7, 13, 1)), Staged::Refused(_)));
            assert!(matches!(stage(&mut log, idempotent(7, 12, 1)), Staged::Written { base_offset: 12, .. }));
        }
    }
}

/// A snapshot knows of each producer the last batch alone, so it must not be begun with one that may be newer than what
/// producers were answered.
#[test]
fn a_batch_without_its_answer_is_known_when_it_comes_again_after_a_kill_behind_a_newer_snapshot() {
    let flushed_first = LogConfig { answers_when_flushed: true, ..large() };
    for (config, unanswered_bytes_max) in [(large(), 1000), (flushed_first, 0)] {
        UNANSWERED_BYTES_MAX.set(unanswered_bytes_max);
        let mut is_snapshot_near = false;
        for batches in 20..40 {
            let disk = FakeDisk::new();
            let mut log = open(&disk, config.clone(), CLEAN);
            log.set_upkeep_bytes(1000);
            for at in 0..batches {
                assert!(matches!(stage(&mut log, idempotent(7, at, 1)), Staged::Written { .. }));
                write(&mut log).unwrap();
                log.run.behind.snapshot_bytes = 0;
                upkeep_at(&mut log, 10_000 * i64::from(at + 1));
            }
            is_snapshot_near |= log.snapshots.newest > Some(Offset::from(batches) - 5);
            let mut log = open(&disk.restart(), config.clone(), survived(0));
            for at in batches - 5..batches {
                let again = stage(&mut log, idempotent(7, at, 1));
                let is_known = matches!(again, Staged::Duplicate { base_offset, .. } if base_offset == i64::from(at));
                assert!(is_known, "{at} of {batches}: {again:?}");
            }
        }
        assert!(is_snapshot_near, "none was among the last batches");
    }
}

#[test]
fn files_that_no_kill_leaves_are_checked_from_the_recovery_point_as_after_a_power_cut() {
    UNANSWERED_BYTES_MAX.set(0);
    let disk = FakeDisk::new();
    let mut log = open(&disk, small(), CLEAN);
    log.assign_epoch(0, log.log_end_offset()).map(run).transpose().unwrap();
    drop(log);
    let log = filled(&disk, 200);
    let (second, active) = (*log.closed.keys().nth(1).unwrap(), log.active.base_offset);
    let snapshot = log.snapshots.newest.unwrap();
    run(log.index_write(false).run()).unwrap();
    let entries = disk.contents(&path(active, OFFSET_INDEX)).unwrap();
    let indexed = u32::from_be_bytes(entries.last_chunk().copied().unwrap()) as usize;
    let flipped = |file: PathBuf, at: usize| {
        (file.clone(), {
            let mut bytes = disk.contents(&file).unwrap();
            bytes[at] ^= 1;
            Some(bytes)
        })
    };
    let shorter = |file: PathBuf, by: usize| {
        let bytes = disk.contents(&file).unwrap();
        (file, Some(bytes[..bytes.len() - by].to_vec()))
    };
    let log_bytes = disk.contents(&path(active, LOG)).unwrap().len();
    let cases = [
        ("an entry that points at nothing", flipped(path(active, OFFSET_INDEX), entries.len() - 1)),
        ("a damaged batch at the last entry", flipped(path(active, LOG), indexed + 90)),
        ("a damaged batch behind it", flipped(path(active, LOG), log_bytes - 1)),
        ("a file that ends before its last entry", shorter(path(active, LOG), log_bytes - indexed + 9)),
        ("a segment that does not reach the next one", shorter(path(second, LOG), 3)),
        ("a closed segment without its index", (path(second, OFFSET_INDEX), None)),
        ("a closed segment's index of garbage", flipped(path(second, OFFSET_INDEX), 5)),
        ("a closed segment's last entry of another batch", {
            let bytes = disk.contents(&path(second, OFFSET_INDEX)).unwrap();
            flipped(path(second, OFFSET_INDEX), bytes.len() - 1)
        }),
        ("a snapshot past the end", (path(500, SNAPSHOT), disk.contents(&path(snapshot, SNAPSHOT)).ok())),
    ];
    for (name, (file, bytes)) in cases {
        let disk = disk.restart();
        match bytes {
            Some(bytes) => disk.put(&file, &bytes),
            None => run(disk.remove_file(&file)).unwrap(),
        }
        let checked = disk.restart();
        let (mut expected, read) = open_counting(&checked, small(), killed(0));
        let (mut found, read_first) = open_counting(&disk, small(), survived(0));
        let is_believed = read_first < read;
        // What an index of a closed segment says of its middle is looked at when somebody reads there.
        assert_eq!(is_believed, name == "a closed segment's index of garbage", "{name}");
        let end = expected.log_end_offset();
        assert_holds(&mut expected, end);
        assert_holds(&mut found, end);
        assert_eq!(found.epochs, expected.epochs, "{name}");
        if !is_believed {
            let files = |disk: &FakeDisk| {
                disk.paths().into_iter().map(|path| (path.clone(), disk.contents(&path).unwrap())).collect::<Vec<_>>()
            };
            assert!(files(&disk) == files(&checked), "{name}: the same files");
        }
    }
}

#[test]
fn damage_to_what_was_durable_is_refused_by_a_start_that_meets_it() {
    let disk = FakeDisk::new();
    let places = one_segment(&disk, 100);
    let whole = disk.contents(&path(0, LOG)).unwrap();
    let last = places.last().unwrap();
    for damaged in [whole[..last.position as usize].to_vec(), whole[..whole.len() - 1].to_vec()] {
        let disk = disk.restart();
        disk.put(&path(0, LOG), &damaged);
        assert!(matches!(try_open(&disk, large(), survived(100)), Err(LogError::Malformed { .. })));
        assert_eq!(disk.contents(&path(0, LOG)).unwrap(), damaged, "nothing is changed");
    }
}

#[test]
fn a_kill_at_every_operation_of_a_roll_and_of_the_start_after_it_loses_nothing() {
    let disk = FakeDisk::new();
    filled(&disk, 150);
    for operations in 0.. {
        let rolled = disk.restart();
        let is_over = interrupted(&rolled, operations, |disk| async move {
            let mut log = Log::open(what(&disk, small(), survived(40))).await.unwrap();
            let rolled = log.begin_roll(log.log_end_offset(), 1000).await;
            log.finish_roll(rolled).unwrap();
            log.flush_closed().unwrap().await
        })
        .is_some();
        for start_operations in 0..40 {
            let again = rolled.restart();
            interrupted(&again, start_operations, |disk| async move {
                Log::open(what(&disk, small(), survived(40))).await.map(drop)
            });
            assert_holds(&mut open(&again.restart(), small(), survived(40)), 150);
        }
        if is_over {
            assert!(operations > 20, "{operations}");
            return;
        }
    }
}

#[test]
fn a_flush_of_closed_segments_leaves_the_active_one_alone_and_moves_the_flushed_offset_to_its_base() {
    let disk = FakeDisk::new();
    let mut log = open(&disk, large(), CLEAN);
    append(&mut log, batch(0, 10));
    assert!(log.flush_closed().is_none(), "there is none");
    let closed_bytes = log.unflushed_bytes();
    roll(&mut log);
    append(&mut log, batch(10, 5));
    let active = path(10, LOG);
    disk.inject(Fault::Sync(ErrorKind::Other).under(&active).lasting());
    let flush = log.flush_closed().unwrap();
    // What is rolled meanwhile is the next one's.
    roll(&mut log);
    append(&mut log, batch(15, 5));
    let all = log.unflushed_bytes();
    log.finish_flush(run(flush)).unwrap();
    assert_eq!((log.flushed_offset(), log.unflushed_bytes()), (10, all - closed_bytes));
    assert!(log.recovery_point() <= 10);
    disk.heal();
    let flushed = run(log.flush_closed().unwrap());
    log.finish_flush(flushed).unwrap();
    assert_eq!((log.flushed_offset(), log.recovery_point()), (15, 15));
    assert!(log.flush_closed().is_none() && log.unflushed_bytes() > 0);
    for seed in 0..16 {
        let mut log = open(&disk.power_cut(seed), large(), killed(15));
        let end = log.log_end_offset();
        assert!(end == 15 || end == 20);
        assert_holds(&mut log, end);
    }
    let flushed = run(log.flush());
    log.finish_flush(flushed).unwrap();
    assert_eq!((log.flushed_offset(), log.unflushed_bytes()), (20, 0));
}

#[test]
fn index_entries_reach_their_file_when_they_are_old_or_far_behind_and_never_before_their_batches() {
    let disk = FakeDisk::new();
    let mut log = open(&disk, LogConfig { segment_bytes: 1 << 30, ..small() }, CLEAN);
    let entries = || disk.contents(&path(0, OFFSET_INDEX)).map_or(0, |file| file.len() / 8);
    let mut mebibyte = BatchBuilder::new(Codec::None);
    mebibyte.push(1, None, Some(&vec![1; 1 << 20]), &[]);
    let mebibyte = mebibyte.build();
    let append_at = |log: &mut Log<FakeDisk>, now| {
        assert!(matches!(stage(log, mebibyte.clone()), Staged::Written { .. }));
        write(log).unwrap();
        upkeep_at(log, now);
    };
    let mut now = 100_000;
    append_at(&mut log, now);
    append_at(&mut log, now);
    assert_eq!(entries(), 0, "the first batch has none, and the second's is new");
    upkeep_at(&mut log, now + 4999);
    assert_eq!(entries(), 0);
    upkeep_at(&mut log, now + 5000);
    assert_eq!(entries(), 1, "it is old");
    now += 5000;

    // It stands at one mebibyte.
    (0..2).for_each(|_| append_at(&mut log, now + 999));
    upkeep_at(&mut log, now + 1000);
    assert_eq!(entries(), 1, "three mebibytes behind");
    append_at(&mut log, now + 999);
    assert_eq!(entries(), 1, "four, but not so soon again");
    upkeep_at(&mut log, now + 1000);
    assert_eq!(entries(), 4);
    now += 1000;

    let staged = stage(&mut log, mebibyte.clone());
    assert!(matches!(staged, Staged::Written { .. }));
    let LogWrite { file, position, data } = log.take_write().unwrap();
    upkeep_at(&mut log, now + 60_000);
    assert_eq!(entries(), 4, "what is in flight has no entry");
    log.finish_write(run(disk.append(&file, position, data))).unwrap();

    // So fast that the bytes alone count.
    (0..59).for_each(|_| append_at(&mut log, now + 1));
    assert_eq!(entries(), 4);
    (0..4).for_each(|_| append_at(&mut log, now + 1));
    assert!(entries() >= 64, "{}", entries());
}

#[test]
fn of_the_snapshots_between_segments_the_newest_two_stay_and_the_newest_that_is_durable() {
    let disk = FakeDisk::new();
    let mut log = open(&disk, large(), CLEAN);
    log.set_upkeep_bytes(0);
    let snapshots = || -> Vec<Offset> {
        let entries = run(disk.list(Path::new(DIR))).unwrap();
        let names = entries.iter().filter_map(|entry| crate::storage::segment::parse_segment_name(&entry.name));
        names.filter(|(_, extension)| *extension == SNAPSHOT).map(|(offset, _)| offset).collect()
    };
    let step = |log: &mut Log<FakeDisk>, at: i32| {
        assert!(matches!(stage(log, idempotent(7, at, 1)), Staged::Written { .. }));
        write(log).unwrap();
        // A snapshot is due only when so much was appended as it takes, many times.
        log.run.behind.snapshot_bytes = 0;
        upkeep_at(log, 10_000 * i64::from(at + 1));
    };
    (0..3).for_each(|at| step(&mut log, at));
    assert_eq!(snapshots(), [2, 3]);
    let flushed = run(log.flush());
    log.finish_flush(flushed).unwrap();
    (3..6).for_each(|at| step(&mut log, at));
    assert_eq!(snapshots(), [3, 5, 6]);
    for seed in 0..8 {
        let cut = disk.power_cut(seed);
        let mut log = open(&cut, large(), killed(3));
        let end = log.log_end_offset() as i32;
        assert!(end >= 3 && matches!(stage(&mut log, idempotent(7, end - 1, 1)), Staged::Duplicate { .. }));
    }
    let log = open(&disk.restart(), large(), survived(3));
    assert_eq!((log.snapshots.newest, log.snapshots.between), (Some(6), [3, 6].into()));
}
