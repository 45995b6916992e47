//! Markers that are appended live: what they end, what is known of it after any end of the process, and that a write which
//! fails takes all of it back.

use super::*;
use crate::storage::refusal::AppendRefusal;
use crate::storage::segment::TRANSACTION_INDEX;
use crate::storage::transaction_index::EndedTransaction;

fn data(producer_id: i64, sequence: i32) -> BytesMut {
    let mut builder = BatchBuilder::new(Codec::None).producer(producer_id, 0, sequence).transactional();
    builder.push(900, None, Some(b"in a transaction"), &[]);
    builder.build()
}

fn marker(producer_id: i64, coordinator_epoch: i32, aborts: bool) -> BytesMut {
    let mut builder = BatchBuilder::new(Codec::None).producer(producer_id, 0, -1).transactional().control();
    let mut value = vec![0, 0];
    value.extend_from_slice(&coordinator_epoch.to_be_bytes());
    builder.push(900, Some(&[0, 0, 0, u8::from(!aborts)]), Some(&value), &[]);
    builder.build()
}

fn stage_from(log: &mut Log<FakeDisk>, batch: BytesMut, origin: Origin) -> Staged {
    let header = BatchHeader::parse(&batch).unwrap();
    log.stage(batch, &header, origin, 0, 1000)
}

/// Writes what is staged as a caller does, the transaction index first.
fn try_write(log: &mut Log<FakeDisk>) -> Result<(), AppendError> {
    let disk = log.disk.clone();
    let Some(LogWrite { file, position, data }) = log.take_write() else { return Ok(()) };
    let noted = match log.transactions_write().map(run) {
        Some(written) => log.finish_transactions_write(written),
        None => Ok(()),
    };
    let result = match noted {
        Ok(()) => run(disk.append(&file, position, data)),
        Err(error) => Err(error),
    };
    log.finish_write(result)
}

fn append_from(log: &mut Log<FakeDisk>, mut batch: BytesMut, origin: Origin) -> Offset {
    loop {
        match stage_from(log, batch, origin) {
            Staged::Written { base_offset, .. } => {
                try_write(log).unwrap();
                upkeep(log);
                return base_offset;
            }
            Staged::RollFirst(again) => {
                roll(log);
                batch = again;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// The aborted transactions of the whole log.
fn aborted(log: &Log<FakeDisk>) -> Vec<EndedTransaction> {
    let end = log.log_end_offset();
    log.aborted_transactions(log.log_start_offset(), end).map_or_else(Vec::new, |found| run(found).unwrap())
}

/// What a log knows of transactions.
fn known(log: &Log<FakeDisk>) -> (Vec<EndedTransaction>, Offset, Vec<(i64, i32, Option<Offset>)>) {
    let producers = log.active_producers().into_iter();
    let producers = producers.map(|one| (one.producer_id, one.coordinator_epoch, one.transaction_first_offset));
    (aborted(log), log.last_stable_offset(log.log_end_offset()), producers.collect())
}

/// Transactions of three producers that end either way, in several segments.
fn filled(disk: &FakeDisk, mut seed: u64) -> Log<FakeDisk> {
    let mut log = open(disk, small(), CLEAN);
    log.assign_epoch(0, log.log_end_offset()).map(run).transpose().unwrap();
    let mut open = [false; 3];
    let mut sequences = [0; 3];
    for _ in 0..120 {
        let at = (next(&mut seed) % 3) as usize;
        match open[at] && next(&mut seed).is_multiple_of(3) {
            true => {
                let aborts = next(&mut seed).is_multiple_of(2);
                append_from(&mut log, marker(at as i64, 0, aborts), Origin::Marker);
                open[at] = false;
            }
            false => {
                append_from(&mut log, data(at as i64, sequences[at]), Origin::Client);
                (open[at], sequences[at]) = (true, sequences[at] + 1);
            }
        }
    }
    assert!(log.closed.len() > 2 && aborted(&log).len() > 3);
    log
}

#[test]
fn an_abort_marker_ends_its_transaction_and_readers_are_told() {
    let disk = FakeDisk::new();
    let mut log = open(&disk, small(), CLEAN);
    append_from(&mut log, data(7, 0), Origin::Client);
    append_from(&mut log, data(8, 0), Origin::Client);
    assert_eq!(log.last_stable_offset(2), 0);
    append_from(&mut log, marker(7, 3, true), Origin::Marker);
    let ended = EndedTransaction { producer_id: 7, first_offset: 0, last_offset: 2, last_stable_offset: 1 };
    assert_eq!((aborted(&log), log.last_stable_offset(3)), (vec![ended], 1));
    append_from(&mut log, marker(8, 3, false), Origin::Marker);
    assert_eq!((aborted(&log), log.last_stable_offset(3), log.last_stable_offset(4)), (vec![ended], 1, 4));
}

#[test]
fn a_marker_of_an_older_coordinator_or_producer_epoch_is_refused_and_its_leaders_is_not() {
    let mut log = open(&FakeDisk::new(), small(), CLEAN);
    append_from(&mut log, data(7, 0), Origin::Client);
    append_from(&mut log, marker(7, 3, true), Origin::Marker);
    let fenced = stage_from(&mut log, marker(7, 2, true), Origin::Marker);
    let refusal =
        AppendRefusal::TransactionCoordinatorFenced { producer_id: 7, coordinator_epoch: 2, current_epoch: 3 };
    assert!(matches!(fenced, Staged::Refused(found) if found == refusal), "{fenced:?}");
    let mut builder = BatchBuilder::new(Codec::None).producer(7, -1, -1).transactional().control();
    builder.push(900, Some(&[0, 0, 0, 0]), Some(&[0, 0, 0, 0, 0, 3]), &[]);
    let old = stage_from(&mut log, builder.build(), Origin::Marker);
    assert!(matches!(old, Staged::Refused(AppendRefusal::InvalidProducerEpoch { .. })), "{old:?}");
    let corrupt = stage_from(&mut log, data(7, 1), Origin::Marker);
    assert!(matches!(corrupt, Staged::Refused(AppendRefusal::Corrupt { .. })), "{corrupt:?}");
    let mut replicated = marker(7, 2, true);
    crate::record::batch::stamp(&mut replicated, 2, 0);
    assert!(matches!(stage_from(&mut log, replicated, Origin::Replication), Staged::Written { base_offset: 2, .. }));
}

#[test]
fn a_coordinators_batch_is_judged_by_its_epoch_and_not_by_a_sequence() {
    let mut log = open(&FakeDisk::new(), small(), CLEAN);
    let commit = |epoch: i16, is_transactional: bool| {
        let builder = BatchBuilder::new(Codec::None).producer(7, epoch, -1);
        let mut builder = if is_transactional { builder.transactional() } else { builder };
        builder.push(900, None, Some(b"offsets"), &[]);
        builder.build()
    };
    append_from(&mut log, commit(2, true), Origin::Coordinator);
    append_from(&mut log, commit(2, true), Origin::Coordinator);
    let old = stage_from(&mut log, commit(1, true), Origin::Coordinator);
    assert!(matches!(old, Staged::Refused(AppendRefusal::InvalidProducerEpoch { .. })), "{old:?}");
    let plain = stage_from(&mut log, commit(2, false), Origin::Coordinator);
    assert!(matches!(plain, Staged::Refused(AppendRefusal::InvalidTxnState { .. })), "{plain:?}");
}

#[test]
fn a_failed_write_takes_markers_back_with_all_that_they_ended() {
    let faults = [
        Fault::Append { kind: ErrorKind::StorageFull, written: 30 },
        // Of the transaction index.
        Fault::Write(ErrorKind::StorageFull),
    ];
    for fault in faults {
        let disk = FakeDisk::new();
        let mut log = open(&disk, small(), CLEAN);
        append_from(&mut log, data(7, 0), Origin::Client);
        append_from(&mut log, data(8, 0), Origin::Client);
        append_from(&mut log, marker(8, 1, true), Origin::Marker);
        let before = known(&log);
        disk.inject(fault);
        assert!(matches!(stage_from(&mut log, data(9, 0), Origin::Client), Staged::Written { .. }));
        assert!(matches!(stage_from(&mut log, marker(7, 5, true), Origin::Marker), Staged::Written { .. }));
        assert!(matches!(stage_from(&mut log, marker(8, 5, true), Origin::Marker), Staged::Written { .. }));
        assert!(try_write(&mut log).is_err());
        // Readers meet nothing that is not there, whatever the index holds.
        assert_eq!((log.last_stable_offset(3), known(&log).2), (before.1, before.2.clone()));
        let repaired = run(log.repair());
        log.finish_repair(repaired).unwrap();
        assert_eq!(known(&log), before);
        assert_eq!(known(&open(&disk.restart(), small(), KILLED)), before);
        append_from(&mut log, marker(7, 0, false), Origin::Marker);
        assert_eq!((log.last_stable_offset(4), aborted(&log).len()), (4, 1), "it committed after all");
        close(log);
        assert_eq!(aborted(&open(&disk.restart(), small(), CLEAN)).len(), 1);
    }
}

#[test]
fn what_live_markers_ended_is_known_after_every_end_of_the_process() {
    for seed in 0..20 {
        let disk = FakeDisk::new();
        let mut log = filled(&disk, seed);
        let expected = known(&log);
        assert_eq!(known(&open(&disk.restart(), small(), KILLED)), expected, "seed {seed}: checked");
        let survived = LastStop { cache_survived: true, ..KILLED };
        assert_eq!(known(&open(&disk.restart(), small(), survived)), expected, "seed {seed}: taken as written");
        let flushed = run(log.flush());
        log.finish_flush(flushed).unwrap();
        let recovery_point = log.recovery_point();
        let cut = disk.power_cut(seed);
        assert_eq!(
            known(&open(&cut, small(), LastStop { recovery_point, ..KILLED })),
            expected,
            "seed {seed}: flushed"
        );
        close(log);
        assert_eq!(known(&open(&disk.power_cut(seed), small(), CLEAN)), expected, "seed {seed}: closed");
    }
}

#[test]
fn a_followers_log_ends_the_same_transactions() {
    let (disk, copy) = (FakeDisk::new(), FakeDisk::new());
    let log = filled(&disk, 5);
    let mut follower = open(&copy, small(), CLEAN);
    follower.assign_epoch(0, follower.log_end_offset()).map(run).transpose().unwrap();
    for path in disk.paths().into_iter().filter(|path| path.extension().is_some_and(|kind| kind == LOG)) {
        for (_, batch) in batches(&disk.contents(&path).unwrap()).map_while(Result::ok) {
            append_from(&mut follower, BytesMut::from(batch), Origin::Replication);
        }
    }
    assert_eq!(known(&follower), known(&log));
    let of = |disk: &FakeDisk, base_offset: Offset| {
        disk.contents(&segment_path(Path::new(DIR), base_offset, TRANSACTION_INDEX))
    };
    let base_offset = *log.transaction_indexes.first().unwrap();
    assert_eq!(of(&copy, base_offset).unwrap(), of(&disk, base_offset).unwrap());
}

#[test]
fn a_leaders_batch_must_begin_where_the_followers_log_ends_unless_the_log_was_compacted() {
    let at = |offset: Offset| {
        let mut batch = batch(offset, 2);
        crate::record::batch::stamp(&mut batch, offset, 4);
        batch
    };
    let mut log = open(&FakeDisk::new(), small(), CLEAN);
    append_from(&mut log, at(0), Origin::Replication);
    for offset in [0, 1, 3] {
        let refused = stage_from(&mut log, at(offset), Origin::Replication);
        let refusal = AppendRefusal::UnexpectedOffset { base_offset: offset, log_end_offset: 2 };
        assert!(matches!(refused, Staged::Refused(found) if found == refusal), "{offset}: {refused:?}");
    }
    append_from(&mut log, at(2), Origin::Replication);
    let mut log = open(&FakeDisk::new(), LogConfig { compacted: true, ..small() }, CLEAN);
    append_from(&mut log, at(0), Origin::Replication);
    assert_eq!(append_from(&mut log, at(7), Origin::Replication), 7);
    assert!(matches!(stage_from(&mut log, at(8), Origin::Replication), Staged::Refused(_)));
    assert_eq!(log.log_end_offset(), 9);
}
