//! What recovery makes of crashes, damage and left-over files.

use super::*;
use crate::record::batch::stamp;
use crate::sim::disk::Pause;
use crate::storage::segment::{BatchPlace, TRANSACTION_INDEX};
use crate::storage::transaction_index::{EndedTransaction, TransactionIndex};

pub(super) fn path(base_offset: Offset, extension: &str) -> PathBuf {
    segment_path(Path::new(DIR), base_offset, extension)
}

fn killed(recovery_point: Offset) -> LastStop {
    LastStop { recovery_point, ..KILLED }
}

pub(super) fn all_files(disk: &FakeDisk) -> BTreeMap<PathBuf, Vec<u8>> {
    disk.paths().into_iter().map(|path| (path.clone(), disk.contents(&path).unwrap())).collect()
}

/// Says which files differ, not how.
#[track_caller]
pub(super) fn assert_same_files(found: &BTreeMap<PathBuf, Vec<u8>>, expected: &BTreeMap<PathBuf, Vec<u8>>, case: &str) {
    let names: std::collections::BTreeSet<_> = found.keys().chain(expected.keys()).collect();
    let differing: Vec<_> = names.into_iter().filter(|name| found.get(*name) != expected.get(*name)).collect();
    assert!(differing.is_empty(), "{case}: {differing:?}");
}

/// Runs what `act` begins until it is over, or until so many of its operations have happened. Whether it was over.
pub(super) fn interrupted<F: Future>(
    disk: &FakeDisk,
    operations: u64,
    act: impl FnOnce(FakeDisk) -> F,
) -> Option<F::Output> {
    let left = std::rc::Rc::new(std::cell::Cell::new(operations));
    let counter = left.clone();
    let pause: Pause = std::rc::Rc::new(move |_| {
        let counter = counter.clone();
        Box::pin(std::future::poll_fn(move |_| match counter.get() {
            0 => std::task::Poll::Pending,
            more => {
                counter.set(more - 1);
                std::task::Poll::Ready(())
            }
        }))
    });
    let mut future = Box::pin(act(disk.with_pause(pause)));
    loop {
        let before = left.get();
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        if left.get() == 0 && before == 0 {
            return None;
        }
    }
}

/// A log in one segment, whose record at each offset has the offset as value, and its batches' places.
fn one_segment(disk: &FakeDisk, end: Offset) -> Vec<BatchPlace> {
    let config = LogConfig { segment_bytes: 1 << 20, ..small() };
    let mut log = open(disk, config, CLEAN);
    log.assign_epoch(0, log.log_end_offset()).map(run).transpose().unwrap();
    let mut places = Vec::new();
    while log.log_end_offset() < end {
        let count = (1 + log.log_end_offset() % 3).min(end - log.log_end_offset());
        let batch = batch(log.log_end_offset(), count);
        append(&mut log, batch);
        places.push(log.active.last_place().unwrap());
    }
    // The index in the file is as it would be at the recovery point.
    let indexes = log.index_write(false);
    run(indexes.run()).unwrap();
    places
}

fn large() -> LogConfig {
    LogConfig { segment_bytes: 1 << 20, ..small() }
}

#[test]
fn only_what_lies_past_the_recovery_point_is_read() {
    let disk = FakeDisk::new();
    let places = one_segment(&disk, 300);
    let size = places.last().map_or(0, |place| place.position + place.bytes);
    let mut damaged = disk.contents(&path(0, LOG)).unwrap();
    damaged[places[1].position as usize + 70] ^= 1;
    let before = all_files(&disk.restart());
    for recovery_point in [290, 300] {
        let disk = disk.restart();
        disk.put(&path(0, LOG), &damaged);
        let what = what(&disk, large(), killed(recovery_point));
        let progress = what.progress.clone();
        let log = run(Log::open(what)).unwrap();
        assert_eq!(log.log_end_offset(), 300, "damage far below is not looked at");
        assert!(progress.bytes_total.get() < size / 10, "{progress:?}");
        assert_eq!((progress.bytes_done.get(), progress.logs_done.get()), (progress.bytes_total.get(), 1));
        for extension in [OFFSET_INDEX, TIME_INDEX] {
            assert_eq!(disk.contents(&path(0, extension)).unwrap(), before[&path(0, extension)], "{extension}");
        }
    }
}

#[test]
fn the_same_is_found_from_every_recovery_point() {
    let disk = FakeDisk::new();
    one_segment(&disk, 120);
    let whole = disk.restart();
    let mut expected = open(&whole, large(), killed(0));
    for recovery_point in 0..=120 {
        let disk = disk.restart();
        let mut log = open(&disk, large(), killed(recovery_point));
        assert_holds(&mut log, 120);
        assert_eq!(log.active.latest, expected.active.latest);
        assert_eq!(log.active.first_timestamp, expected.active.first_timestamp);
        assert_same_files(&all_files(&disk), &all_files(&whole), &recovery_point.to_string());
        append(&mut log, batch(120, 3));
        assert_holds(&mut log, 123);
    }
    append(&mut expected, batch(120, 1));
}

#[test]
fn an_index_that_does_not_lead_to_its_batches_is_made_anew() {
    let disk = FakeDisk::new();
    one_segment(&disk, 120);
    let whole = disk.restart();
    open(&whole, large(), killed(0));
    for extension in [OFFSET_INDEX, TIME_INDEX] {
        let sound = disk.contents(&path(0, extension)).unwrap();
        for at in 0..sound.len() {
            let disk = disk.restart();
            let mut damaged = sound.clone();
            damaged[at] ^= 0x10;
            disk.put(&path(0, extension), &damaged);
            assert_holds(&mut open(&disk, large(), killed(115)), 120);
        }
        let missing = disk.restart();
        run(missing.remove_file(&path(0, extension))).unwrap();
        assert_holds(&mut open(&missing, large(), killed(115)), 120);
        assert_same_files(&all_files(&missing), &all_files(&whole), extension);
    }
}

#[test]
fn damage_below_the_recovery_point_keeps_the_log_closed_and_changes_nothing() {
    let disk = FakeDisk::new();
    let places = one_segment(&disk, 100);
    let contents = disk.contents(&path(0, LOG)).unwrap();
    let last = *places.last().unwrap();
    let flipped_at = |position: u64| {
        let mut damaged = contents.clone();
        damaged[position as usize] ^= 1;
        damaged
    };
    let tail = |bytes: u64| contents[..bytes as usize].to_vec();
    let cases = [
        ("shorter by a batch", tail(last.position), killed(100)),
        ("shorter by a byte", tail(contents.len() as u64 - 1), killed(100)),
        ("empty", Vec::new(), killed(50)),
        ("a bad checksum", flipped_at(last.position + 80), killed(100)),
        ("a bad checksum", flipped_at(last.position + 80), killed(last.base_offset + 1)),
        ("a torn head", flipped_at(last.position + 16), killed(100)),
        ("a torn tail after a clean stop", tail(contents.len() as u64 - 1), CLEAN),
        ("shorter after a clean stop", tail(last.position), LastStop { recovery_point: 100, ..CLEAN }),
    ];
    for (name, damaged, last_stop) in cases {
        let disk = disk.restart();
        disk.put(&path(0, LOG), &damaged);
        let before = all_files(&disk);
        for _ in 0..2 {
            let refused = try_open(&disk, large(), last_stop).err().unwrap();
            let LogError::Malformed { path: file, reason } = refused else { panic!("{name}: {refused}") };
            assert_eq!(file, path(0, LOG));
            for word in ["position", "offset", "t-0", "recovery-point-offset-checkpoint"] {
                assert!(reason.contains(word), "{name}: {reason}");
            }
            assert_same_files(&all_files(&disk), &before, name);
        }
        // The remedy: without its line the whole log is checked, and cut at the damage.
        let mut log = open(&disk, large(), killed(0));
        let end = log.log_end_offset();
        assert!(end <= last.base_offset, "{name}");
        assert_holds(&mut log, end);
    }
}

#[test]
fn a_log_that_misses_durable_segments_is_not_opened() {
    let disk = FakeDisk::new();
    let log = filled(&disk, 200);
    let (last, before_last) = (log.active.base_offset, *log.closed.keys().next_back().unwrap());
    for gone in [vec![last], vec![last, before_last], log.closed.keys().copied().chain([last]).collect()] {
        let disk = disk.restart();
        gone.iter().for_each(|base_offset| run(disk.remove_file(&path(*base_offset, LOG))).unwrap());
        let before = all_files(&disk);
        assert!(matches!(try_open(&disk, small(), killed(200)), Err(LogError::Malformed { .. })), "{gone:?}");
        assert_same_files(&all_files(&disk), &before, "indexes without their log are kept too");
        assert!(try_open(&disk, small(), killed(0)).is_ok());
    }
    // All that is missing was deleted anyway.
    let beyond = LastStop { log_start_offset: 250, ..killed(200) };
    run(disk.remove_file(&path(last, LOG))).unwrap();
    let log = open(&disk, small(), beyond);
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (250, 250));
}

#[test]
fn segments_behind_the_end_are_set_aside_and_removed_by_the_next_start() {
    let disk = FakeDisk::new();
    let log = filled(&disk, 200);
    let bases: Vec<_> = log.closed.keys().copied().chain([log.active.base_offset]).collect();
    let torn = disk.restart();
    let mut contents = torn.contents(&path(bases[1], LOG)).unwrap();
    contents.pop();
    torn.put(&path(bases[1], LOG), &contents);
    let what = what(&torn, small(), KILLED);
    let progress = what.progress.clone();
    let end = run(Log::open(what)).unwrap().log_end_offset();
    assert_eq!(progress.bytes_done.get(), progress.bytes_total.get(), "what is given up is done, too");
    for base_offset in &bases[2..] {
        assert!(torn.contents(&path(*base_offset, LOG)).is_err());
        assert!(torn.contents(&path(*base_offset, "log.deleted")).is_ok());
    }
    let mut log = open(&torn, small(), KILLED);
    assert_holds(&mut log, end);
    assert!(torn.paths().iter().all(|path| !path.to_string_lossy().ends_with(".deleted")));
}

#[test]
fn a_tail_lost_at_a_batch_boundary_ends_a_log_that_is_not_compacted() {
    let disk = FakeDisk::new();
    let mut log = filled(&disk, 200);
    let second = *log.closed.keys().nth(1).unwrap();
    let third = *log.closed.keys().nth(2).unwrap();
    let Read::Range { range, .. } = read(&mut log, second, 1 << 20, third) else { panic!() };
    let bytes = range.file.bytes_at(range.position, range.length);
    let last = batches(&bytes).last().unwrap().unwrap().0;
    let shorter = &bytes[..bytes.len() - last.batch_bytes()];
    disk.put(&path(second, LOG), shorter);

    let mut log = open(&disk.restart(), small(), KILLED);
    assert_holds(&mut log, last.base_offset);
    let compacted = LogConfig { compacted: true, ..small() };
    assert_eq!(open(&disk.restart(), compacted.clone(), KILLED).log_end_offset(), 200);
    assert!(matches!(try_open(&disk, small(), killed(third - 1)), Err(LogError::Malformed { .. })));
    assert_eq!(open(&disk, small(), killed(third)).log_end_offset(), 200, "below the recovery point nobody looks");
}

#[test]
fn any_flipped_bit_past_the_recovery_point_ends_the_log_there() {
    let disk = FakeDisk::new();
    let places = one_segment(&disk, 40);
    let contents = disk.contents(&path(0, LOG)).unwrap();
    for at in 0..contents.len() {
        let disk = disk.restart();
        let mut damaged = contents.clone();
        damaged[at] ^= 1 << (at % 8);
        disk.put(&path(0, LOG), &damaged);
        let mut log = open(&disk, large(), KILLED);
        let hit = places.iter().find(|place| (at as u64) < place.position + place.bytes).unwrap();
        let in_leader_epoch = (12..16).contains(&(at as u64 - hit.position));
        let end = if in_leader_epoch { 40 } else { hit.base_offset };
        // No checksum covers the leader epoch.
        assert_holds(&mut log, end);
        append(&mut log, batch(end, 2));
    }
}

#[test]
fn a_damaged_index_of_a_closed_segment_serves_nothing_wrong_and_is_made_anew() {
    let disk = FakeDisk::new();
    let log = filled(&disk, 200);
    let second = *log.closed.keys().nth(1).unwrap();
    close(log);
    let sound = disk.contents(&path(second, OFFSET_INDEX)).unwrap();
    assert!(sound.len() >= 3 * 8);
    for at in 0..sound.len() {
        for bit in 0..8 {
            let disk = disk.restart();
            let mut damaged = sound.clone();
            damaged[at] ^= 1 << bit;
            disk.put(&path(second, OFFSET_INDEX), &damaged);
            let mut log = open(&disk, small(), CLEAN);
            let expected: Vec<_> = (0..200).map(|at| (at, format!("{at:040}"))).collect();
            assert_eq!(records_from(&mut log, 0, 300), expected, "byte {at} bit {bit}");
            let find = |timestamp| run(log.lookup_timestamp(timestamp, 200, &Inline)).unwrap();
            assert!((0..200).all(|at| find(10_000 + at) == Some((at, 10_000 + at))));
            assert!(log.run.doubted.borrow().is_empty());
        }
    }
}

#[test]
fn recovery_may_be_interrupted_at_every_operation() {
    let disk = FakeDisk::new();
    let mut log = filled(&disk, 100);
    let flushed = run(log.flush());
    log.finish_flush(flushed).unwrap();
    let (flushed, recovery_point) = (log.flushed_offset(), log.recovery_point());
    while log.log_end_offset() < 160 {
        let at = log.log_end_offset();
        append(&mut log, batch(at, 3));
    }
    for seed in 0..12 {
        let crashed = disk.power_cut(seed);
        for operations in 0.. {
            let again = crashed.restart();
            let open_again =
                |disk: FakeDisk| async move { Log::open(what(&disk, small(), killed(recovery_point))).await };
            let is_over = interrupted(&again, operations, open_again).is_some();
            let mut log = open(&again.power_cut(seed + operations), small(), killed(recovery_point));
            let end = log.log_end_offset();
            assert!(end >= flushed, "seed {seed}, operation {operations}");
            assert_holds(&mut log, end);
            if is_over {
                break;
            }
        }
    }
}

fn transactional(producer_id: i64, offset: Offset, sequence: i32) -> BytesMut {
    let mut builder = BatchBuilder::new(Codec::None).producer(producer_id, 0, sequence).transactional();
    builder.push(900, None, Some(format!("{offset:040}").as_bytes()), &[]);
    let mut batch = builder.build();
    stamp(&mut batch, offset, 0);
    batch
}

fn marker(producer_id: i64, offset: Offset, kind: u8) -> BytesMut {
    let mut builder = BatchBuilder::new(Codec::None).producer(producer_id, 0, -1).transactional().control();
    builder.push(900, Some(&[0, 0, 0, kind]), Some(&[0, 0, 0, 0, 0, 0]), &[]);
    let mut batch = builder.build();
    stamp(&mut batch, offset, 0);
    batch
}

/// Random transactions of three producers in segments of 40 offsets; also the aborted ones, and the first offset of the
/// earliest open one.
fn transactions(disk: &FakeDisk, end: Offset, mut seed: u64) -> (Vec<EndedTransaction>, Offset) {
    let (mut open, mut aborted) = (BTreeMap::<i64, Offset>::new(), Vec::new());
    let mut sequences = [0; 3];
    let mut segment = Vec::new();
    for offset in 0..end {
        let producer_id = (next(&mut seed) % 3) as i64;
        match open.get(&producer_id).copied().filter(|_| next(&mut seed).is_multiple_of(3)) {
            Some(first_offset) => {
                let aborts = next(&mut seed).is_multiple_of(2);
                segment.extend_from_slice(&marker(producer_id, offset, u8::from(!aborts)));
                open.remove(&producer_id);
                let last_stable_offset = open.values().min().copied().unwrap_or(offset + 1);
                if aborts {
                    let last_offset = offset;
                    aborted.push(EndedTransaction { producer_id, first_offset, last_offset, last_stable_offset });
                }
            }
            None => {
                segment.extend_from_slice(&transactional(producer_id, offset, sequences[producer_id as usize]));
                sequences[producer_id as usize] += 1;
                open.entry(producer_id).or_insert(offset);
            }
        }
        if offset % 40 == 39 || offset + 1 == end {
            disk.put(&path(offset / 40 * 40, LOG), &std::mem::take(&mut segment));
        }
    }
    (aborted, open.values().min().copied().unwrap_or(end))
}

fn aborted_in(log: &Log<FakeDisk>, from: Offset, end: Offset) -> Vec<EndedTransaction> {
    log.aborted_transactions(from, end).map_or(Vec::new(), |found| run(found).unwrap())
}

#[test]
fn aborted_transactions_are_indexed_from_the_log_and_found_for_every_range() {
    for seed in 1..12 {
        let disk = FakeDisk::new();
        let (aborted, last_stable_offset) = transactions(&disk, 190, seed);
        let log = open(&disk, large(), KILLED);
        assert_eq!(log.last_stable_offset(190), last_stable_offset);
        for (from, end) in [(0, 190), (0, 1), (35, 45), (80, 120), (120, 121), (0, last_stable_offset)] {
            let overlap = |entry: &&EndedTransaction| entry.overlaps(from, end);
            let found = aborted_in(&log, from, end);
            let expected: Vec<_> = aborted.iter().filter(overlap).copied().collect();
            assert!(expected.iter().all(|entry| found.contains(entry)), "seed {seed}, {from}..{end}");
            assert!(found.iter().all(|entry| aborted.contains(entry)));
        }
        let indexes = |disk: &FakeDisk| -> BTreeMap<_, _> {
            let is_index = |path: &PathBuf| path.extension().is_some_and(|name| name == TRANSACTION_INDEX);
            all_files(disk).into_iter().filter(|(path, _)| is_index(path)).collect()
        };
        let expected = indexes(&disk);
        assert!(expected.len() > 1);
        close(log);
        for recovery_point in [0, 1, 39, 40, 77, 130, 189, 190] {
            let again = disk.restart();
            let log = open(&again, large(), killed(recovery_point));
            assert_eq!(indexes(&again), expected, "seed {seed}, recovery point {recovery_point}");
            assert_eq!(log.last_stable_offset(190), last_stable_offset);
        }
        for path in expected.keys() {
            for stop in [CLEAN, killed(0), killed(190), killed(100)] {
                let damaged = disk.restart();
                let mut bytes = expected[path].clone();
                bytes[1] ^= 1;
                damaged.put(path, &bytes);
                open(&damaged, large(), stop);
                assert_eq!(indexes(&damaged), expected, "seed {seed}, {stop:?} {path:?}");
            }
        }
        assert_eq!(
            TransactionIndex::parse(0, &expected.values().flatten().copied().collect::<Vec<_>>())
                .unwrap()
                .encode()
                .len(),
            aborted.len() * 34
        );
    }
}
