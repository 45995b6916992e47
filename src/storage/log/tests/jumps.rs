//! A follower of a leader whose compacted log misses more offsets than a segment can hold: after any end of the process it has
//! what it appended.

use super::*;
use crate::record::batch::stamp;

const FAR: Offset = 3 << 31;

fn compacted() -> LogConfig {
    LogConfig { compacted: true, ..small() }
}

fn at(offset: Offset) -> BytesMut {
    let mut batch = batch(offset, 1);
    stamp(&mut batch, offset, 0);
    batch
}

fn stage_replicated(log: &mut Log<FakeDisk>, batch: BytesMut) -> Staged {
    let header = BatchHeader::parse(&batch).unwrap();
    log.stage(batch, &header, Origin::Replication, 0, 1000)
}

fn replicate(log: &mut Log<FakeDisk>, offset: Offset) -> Result<(), AppendError> {
    loop {
        match stage_replicated(log, at(offset)) {
            Staged::Written { base_offset, .. } => {
                assert_eq!(base_offset, offset);
                return write(log);
            }
            Staged::RollFirst(_) => {
                let rolled = run(log.begin_roll(offset, 1000));
                log.finish_roll(rolled).unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
}

fn offsets(log: &mut Log<FakeDisk>) -> Vec<Offset> {
    let start = log.log_start_offset();
    records_from(log, start, 1 << 20).into_iter().map(|(offset, _)| offset).collect()
}

fn segments(log: &Log<FakeDisk>) -> Vec<Offset> {
    log.closed.keys().copied().chain([log.active.base_offset]).collect()
}

#[test]
fn a_batch_too_far_behind_the_one_before_begins_a_segment_of_its_own_and_is_there_after_every_end() {
    for first in [0, FAR - 1] {
        let disk = FakeDisk::new();
        let mut log = open(&disk, compacted(), CLEAN);
        let all = [first, first + FAR, first + FAR + 1, first + 2 * FAR];
        for offset in all {
            replicate(&mut log, offset).unwrap();
        }
        assert_eq!(offsets(&mut log), all);
        assert_eq!(log.log_start_offset(), 0, "an empty segment keeps its place");
        let flushed = run(log.flush());
        log.finish_flush(flushed).unwrap();
        let recovery_point = log.recovery_point();
        for last_stop in [KILLED, LastStop { recovery_point, ..KILLED }, LastStop { cache_survived: true, ..KILLED }] {
            assert_eq!(offsets(&mut open(&disk.power_cut(1), compacted(), last_stop)), all, "{last_stop:?}");
        }
        close(log);
        let mut log = open(&disk, compacted(), CLEAN);
        assert_eq!((offsets(&mut log), log.log_start_offset()), (all.to_vec(), 0));
    }
}

#[test]
fn a_segment_that_was_made_for_a_batch_that_was_not_written_gives_way_to_one_before_it() {
    let disk = FakeDisk::new();
    let mut log = open(&disk, compacted(), CLEAN);
    replicate(&mut log, 0).unwrap();
    disk.inject(Fault::Append { kind: ErrorKind::StorageFull, written: 30 });
    replicate(&mut log, 2 * FAR).unwrap_err();
    let repaired = run(log.repair());
    log.finish_repair(repaired).unwrap();
    assert_eq!((log.log_end_offset(), segments(&log)), (1, vec![0, 2 * FAR]));
    let flushed = run(log.flush_closed().unwrap());
    log.finish_flush(flushed).unwrap();
    assert_eq!(log.flushed_offset(), 1, "no more than there is");
    assert!(matches!(read(&mut log, 1, 1000, 1), Read::Empty));
    // Another leader goes on elsewhere.
    replicate(&mut log, FAR).unwrap();
    assert_eq!((offsets(&mut log), segments(&log)), (vec![0, FAR], vec![0, FAR]));
    assert!(disk.paths().iter().all(|path| !path.to_string_lossy().contains(&(2 * FAR).to_string())));
    assert_eq!(offsets(&mut open(&disk.restart(), compacted(), KILLED)), [0, FAR]);
    // Or this replica leads.
    disk.inject(Fault::Append { kind: ErrorKind::StorageFull, written: 30 });
    replicate(&mut log, 3 * FAR).unwrap_err();
    let repaired = run(log.repair());
    log.finish_repair(repaired).unwrap();
    assert_eq!(append(&mut log, batch(FAR + 1, 1)), (FAR + 1, FAR + 1));
    assert_eq!(segments(&log), [0, FAR, FAR + 1]);
    close(log);
    assert_eq!(offsets(&mut open(&disk, compacted(), CLEAN)), [0, FAR, FAR + 1]);
}
