//! Logs whose end is taken back, under readers and under power cuts.

use super::recovery::interrupted;
use super::*;
use crate::platform::FileRange;

fn truncate(log: Log<FakeDisk>, offset: Offset) -> Log<FakeDisk> {
    run(log.truncate_to(offset, 1000)).unwrap()
}

/// A batch of `count` records whose values say that they were written after the truncation.
fn later(first: i64, count: i64) -> BytesMut {
    let mut builder = BatchBuilder::new(Codec::None);
    for at in first..first + count {
        builder.push(20_000 + at, None, Some(format!("later {at:034}").as_bytes()), &[]);
    }
    builder.build()
}

#[test]
fn a_log_is_cut_before_the_batch_that_holds_the_offset_and_goes_on_from_there() {
    let disk = FakeDisk::new();
    filled(&disk, 120);
    for offset in 0..=121 {
        let disk = disk.restart();
        let log = truncate(open(&disk, small(), KILLED), offset);
        let end = log.log_end_offset();
        assert!(end <= offset.min(120) && offset.min(120) - end < 5, "{offset}: {end}");
        assert_eq!(log.flushed_offset(), 0);
        let mut log = log;
        assert_holds(&mut log, end);
        assert!(matches!(log.read(end + 1, 100, end + 1), Read::OutOfRange));
        assert_eq!(run(log.lookup_timestamp(10_000 + end, end, &Inline)).unwrap(), None);
        for at in log.log_start_offset()..end {
            assert_eq!(run(log.lookup_timestamp(10_000 + at, end, &Inline)).unwrap(), Some((at, 10_000 + at)));
        }
        append(&mut log, batch(end, 4));
        append(&mut log, batch(end + 4, 30));
        assert_holds(&mut log, end + 34);
        assert_holds(&mut open(&disk.restart(), small(), KILLED), end + 34);
        let names = disk.paths();
        assert!(names.iter().all(|path| !path.to_string_lossy().ends_with(".deleted")), "{names:?}");
        close(log);
        assert_holds(&mut open(&disk, small(), CLEAN), end + 34);
    }
}

#[test]
fn a_log_that_was_emptied_starts_and_ends_where_it_was_told_to() {
    for offset in [0, 50, 1000] {
        let disk = FakeDisk::new();
        let mut log = filled(&disk, 120);
        append(&mut log, idempotent(7, 0, 2));
        let mut log = run(log.truncate_fully_and_start_at(offset, 1000)).unwrap();
        assert_eq!((log.log_start_offset(), log.log_end_offset(), log.flushed_offset()), (offset, offset, offset));
        assert!(log.producers.is_empty() && log.latest_epoch().is_none());
        append(&mut log, batch(offset, 3));
        let expected: Vec<_> = (offset..offset + 3).map(|at| (at, format!("{at:040}"))).collect();
        assert_eq!(records_from(&mut log, offset, 500), expected);
        let mut log = open(&disk.restart(), small(), LastStop { log_start_offset: offset, ..KILLED });
        assert_eq!(records_from(&mut log, offset, 500), expected);
        assert_eq!(disk.paths().iter().filter(|path| path.extension().is_some_and(|name| name == LOG)).count(), 1);
    }
}

#[test]
fn below_the_first_segment_nothing_is_left_and_the_log_starts_at_the_offset() {
    let disk = FakeDisk::new();
    let log = run(filled(&disk, 100).truncate_fully_and_start_at(500, 1000)).unwrap();
    let log = truncate(log, 80);
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (80, 80));
}

#[test]
fn producers_and_epochs_are_those_of_what_is_left() {
    let disk = FakeDisk::new();
    let mut log = open(&disk, small(), CLEAN);
    for at in 0..40 {
        if at % 10 == 0 {
            log.assign_epoch(at / 10, log.log_end_offset()).map(run).transpose().unwrap();
        }
        let mut builder = BatchBuilder::new(Codec::None).producer(7, 0, at);
        builder.push(900, None, Some(&[1; 100]), &[]);
        append(&mut log, builder.build());
    }
    assert!(log.closed.len() > 2);
    for offset in 1..40 {
        let disk = disk.restart();
        let mut log = truncate(open(&disk, small(), KILLED), offset);
        assert_eq!(log.log_end_offset(), offset);
        assert_eq!(log.latest_epoch(), Some((offset as i32 - 1) / 10));
        let last = stage(&mut log, idempotent(7, offset as i32 - 1, 1));
        assert!(matches!(last, Staged::Duplicate { .. }), "{offset}: {last:?}");
        assert!(matches!(stage(&mut log, idempotent(7, offset as i32 + 1, 1)), Staged::Refused(_)));
        assert!(matches!(stage(&mut log, idempotent(7, offset as i32, 1)), Staged::Written { .. }));
        let epochs = disk.contents(&Path::new(DIR).join(LEADER_EPOCH_CHECKPOINT)).unwrap();
        assert_eq!(epochs, log.epochs.encode());
    }
}

#[test]
fn ranges_below_the_cut_go_on_and_those_beyond_it_are_refused() {
    let disk = FakeDisk::new();
    let mut log = filled(&disk, 100);
    let (middle, tail) = (*log.closed.keys().nth(1).unwrap(), log.active.base_offset);
    let Read::Range { range: first, .. } = read(&mut log, 0, 1 << 20, 100) else { panic!() };
    let Read::Range { range: cut, first_batch_bytes, .. } = read(&mut log, middle, 1 << 20, 100) else { panic!() };
    let mut kept = FileRange { length: first_batch_bytes, file: cut.file.clone(), fence: cut.fence.clone(), ..cut };
    let Read::Range { range: removed, .. } = read(&mut log, tail, 1 << 20, 100) else { panic!() };
    let before = [&first, &kept, &removed].map(|range| range.file.bytes_at(range.position, range.length));

    let log = truncate(log, middle + 6);
    assert!(log.log_end_offset() > middle);
    assert!(cut.enter().is_none());
    let after = [&first, &kept, &removed].map(|range| {
        let _inside = range.enter().expect("its bytes are as they were");
        range.file.bytes_at(range.position, range.length)
    });
    assert!(before == after);
    kept.advance(1);
    assert_ne!(log.active.base_offset, middle, "what is appended next goes to another file");
}

#[test]
fn a_truncation_waits_for_who_is_in_the_middle_of_a_send() {
    let disk = FakeDisk::new();
    let mut log = filled(&disk, 100);
    let tail = log.active.base_offset;
    let Read::Range { range, .. } = read(&mut log, tail, 1 << 20, 100) else { panic!() };
    let base_offset = tail;
    let size = disk.contents(&segment_path(Path::new(DIR), base_offset, LOG)).unwrap().len();
    let inside = range.enter();
    let mut truncation = Box::pin(log.truncate_to(base_offset + 5, 1000));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    for _ in 0..100 {
        assert!(truncation.as_mut().poll(&mut context).is_pending());
        assert!(range.enter().is_none(), "nobody else enters");
    }
    assert_eq!(disk.contents(&segment_path(Path::new(DIR), base_offset, LOG)).unwrap().len(), size);
    drop(inside);
    assert!(run(truncation).unwrap().log_end_offset() > base_offset);
    assert!(disk.contents(&segment_path(Path::new(DIR), base_offset, LOG)).unwrap().len() < size);
}

/// At every operation of a truncation, and of the appends behind it, the power goes. What is left is the old log, or the
/// old one up to the cut and the new records behind it; never an old record behind a new one.
#[test]
fn no_power_cut_mixes_what_was_taken_back_with_what_came_after() {
    let mut cuts = 0;
    for offset in [3, 41, 77, 99] {
        for operations in 0.. {
            let disk = FakeDisk::new();
            let mut log = filled(&disk, 100);
            let flushed = run(log.flush());
            log.finish_flush(flushed).unwrap();
            let recovery_point = log.recovery_point_before_truncation(offset);
            close(log);
            let act = |disk: FakeDisk| async move {
                let log = Log::open(what(&disk, small(), CLEAN)).await.unwrap();
                let mut log = log.truncate_to(offset, 1000).await.unwrap();
                let end = log.log_end_offset();
                for at in 0..4 {
                    let batch = later(end + at * 5, 5);
                    let header = BatchHeader::parse(&batch).unwrap();
                    assert!(matches!(log.stage(batch, &header, Origin::Client, 0, 1000), Staged::Written { .. }));
                    let LogWrite { file, position, data } = log.take_write().unwrap();
                    log.finish_write(disk.append(&file, position, data).await).unwrap();
                }
                end
            };
            let end = interrupted(&disk, operations, act);
            for seed in 0..6 {
                let mut log = open(&disk.power_cut(seed), small(), LastStop { recovery_point, ..KILLED });
                let left = records_from(&mut log, 0, 1 << 20);
                let is_new = |(_, value): &&(Offset, String)| value.starts_with("later");
                let new_from = left.iter().position(|record| is_new(&record)).unwrap_or(left.len());
                assert!(left[new_from..].iter().all(|record| is_new(&record)), "{offset} {operations} {seed}");
                assert!(left.iter().enumerate().all(|(at, (found, _))| *found == at as Offset));
                assert!(left.len() as Offset >= (offset - 5).max(recovery_point), "{offset} {operations} {seed}");
                cuts += 1;
            }
            if end.is_some() {
                break;
            }
        }
    }
    assert!(cuts > 400, "{cuts}");
}
