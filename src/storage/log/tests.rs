use std::collections::BTreeMap;
use std::future::Future;
use std::io::ErrorKind;

use bytes::BytesMut;

use super::*;
use crate::base::splitmix64::next;
use crate::record::batch::{BatchBuilder, BatchHeader, batches, decode_records};
use crate::record::compression::Codec;
use crate::sim::disk::tests::run;
use crate::sim::disk::{FakeDisk, FakeFile, Fault};
use crate::storage::compaction::Inline;
use crate::storage::open_files::OpenFiles;
use crate::storage::segment::{INDEX_FILE_BYTES_MAX, LOG, OFFSET_INDEX, SNAPSHOT, TIME_INDEX, segment_path};

const DIR: &str = "/data/t-0";
const TOPIC_ID: TopicId = TopicId(*b"0123456789abcdef");
const CLEAN: LastStop = LastStop {
    unclean: false,
    recovery_point: 0,
    log_start_offset: 0,
    high_watermark: 0,
    cleaned_to: None,
    cache_survived: false,
};
const KILLED: LastStop = LastStop { unclean: true, ..CLEAN };

fn small() -> LogConfig {
    LogConfig { segment_bytes: 2000, index_interval_bytes: 200, segment_index_bytes: 4096, ..LogConfig::default() }
}

fn try_open(disk: &FakeDisk, config: LogConfig, last_stop: LastStop) -> Result<Log<FakeDisk>, LogError> {
    run(Log::open(what(disk, config, last_stop)))
}

fn what(disk: &FakeDisk, config: LogConfig, last_stop: LastStop) -> OpenLog<FakeDisk> {
    OpenLog {
        disk: disk.clone(),
        log_dir: PathBuf::from("/data"),
        topic_partition: TopicPartition { topic: "t".into(), partition: 0 },
        topic_id: TOPIC_ID,
        config,
        last_stop,
        wall: 1000,
        open_files: OpenFiles::new(64),
        progress: Arc::default(),
    }
}

fn open(disk: &FakeDisk, config: LogConfig, last_stop: LastStop) -> Log<FakeDisk> {
    try_open(disk, config, last_stop).unwrap()
}

/// A batch of `count` records whose values are `<first>`, `<first + 1>` ...
fn batch(first: i64, count: i64) -> BytesMut {
    let mut builder = BatchBuilder::new(Codec::None);
    for at in first..first + count {
        builder.push(10_000 + at, None, Some(format!("{at:040}").as_bytes()), &[]);
    }
    builder.build()
}

fn idempotent(producer_id: i64, sequence: i32, count: i32) -> BytesMut {
    let mut builder = BatchBuilder::new(Codec::None).producer(producer_id, 0, sequence);
    (0..count).for_each(|_| builder.push(900, None, Some(b"value"), &[]));
    builder.build()
}

fn stage(log: &mut Log<FakeDisk>, batch: BytesMut) -> Staged {
    let header = BatchHeader::parse(&batch).unwrap();
    log.stage(batch, &header, Origin::Client, 0, 1000)
}

fn write(log: &mut Log<FakeDisk>) -> Result<(), AppendError> {
    let disk = log.disk.clone();
    while let Some(LogWrite { file, position, data }) = log.take_write() {
        log.finish_write(run(disk.append(&file, position, data)))?;
    }
    Ok(())
}

fn roll(log: &mut Log<FakeDisk>) {
    let rolled = run(log.begin_roll(log.log_end_offset(), 1000));
    log.finish_roll(rolled).unwrap();
}

fn upkeep(log: &mut Log<FakeDisk>) {
    upkeep_at(log, 1000);
}

fn upkeep_at(log: &mut Log<FakeDisk>, now: WallMs) {
    let due = log.upkeep(now, true);
    if let Some(done) = due.map(run) {
        log.finish_upkeep(done).unwrap();
    }
}

/// Appends as a caller does; gives the offsets.
#[track_caller]
fn append(log: &mut Log<FakeDisk>, mut batch: BytesMut) -> (Offset, Offset) {
    loop {
        match stage(log, batch) {
            Staged::Written { base_offset, last_offset, .. } => {
                write(log).unwrap();
                upkeep(log);
                return (base_offset, last_offset);
            }
            Staged::RollFirst(again) => {
                write(log).unwrap();
                roll(log);
                batch = again;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Reads as a caller does: brings in what is missing, then reads again.
fn read(log: &mut Log<FakeDisk>, offset: Offset, bytes_max: u64, ceiling: Offset) -> Read<FakeFile> {
    loop {
        match log.read(offset, bytes_max, ceiling) {
            Read::NeedPages { file, position, length } => {
                run(log.disk.make_resident(&file, position, length)).unwrap();
            }
            Read::NeedSegment { base_offset } => {
                let loaded = run(log.load_segment(base_offset));
                log.finish_load_segment(loaded).unwrap();
            }
            done => return done,
        }
    }
}

/// Every record from `offset` on, as a consumer with this fetch size sees them.
fn records_from(log: &mut Log<FakeDisk>, mut offset: Offset, bytes_max: u64) -> Vec<(Offset, String)> {
    let mut out = Vec::new();
    let end = log.log_end_offset();
    loop {
        match read(log, offset, bytes_max, end) {
            Read::Range { range, first_batch_bytes, base_offset, .. } => {
                assert!(range.length <= bytes_max && range.enter().is_some());
                let bytes = range.file.bytes_at(range.position, range.length.max(first_batch_bytes));
                let whole: Vec<_> = batches(&bytes).map_while(Result::ok).collect();
                assert_eq!(whole[0].0.base_offset, base_offset);
                assert!(whole[0].0.last_offset() >= offset, "the range starts at the batch that holds the offset");
                for (_, batch) in &whole {
                    let records = decode_records(batch, 1 << 20).unwrap().into_iter();
                    let text = |value: Option<bytes::Bytes>| String::from_utf8(value.unwrap().to_vec()).unwrap();
                    out.extend(records.map(|record| (record.offset, text(record.value))));
                }
                offset = whole.last().unwrap().0.last_offset() + 1;
            }
            Read::Empty => return out,
            other => panic!("{offset}: {other:?}"),
        }
    }
}

#[track_caller]
fn assert_holds(log: &mut Log<FakeDisk>, end: Offset) {
    assert_eq!(log.log_end_offset(), end);
    let start = log.log_start_offset();
    for bytes_max in [1, 300, 1 << 20] {
        let expected: Vec<_> = (start..end).map(|at| (at, format!("{at:040}"))).collect();
        assert_eq!(records_from(log, start, bytes_max), expected);
    }
}

fn close(log: Log<FakeDisk>) -> Offset {
    run(log.close()).unwrap()
}

/// A log of several segments whose record at each offset has the offset as value.
fn filled(disk: &FakeDisk, end: Offset) -> Log<FakeDisk> {
    let mut log = open(disk, small(), CLEAN);
    let mut seed = 4;
    while log.log_end_offset() < end {
        let count = (1 + (next(&mut seed) % 5) as i64).min(end - log.log_end_offset());
        let batch = batch(log.log_end_offset(), count);
        append(&mut log, batch);
    }
    log
}

#[test]
fn a_new_partition_costs_four_operations_and_is_named_as_in_kafka() {
    let disk = FakeDisk::new();
    let log = open(&disk, LogConfig::default(), CLEAN);
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (0, 0));
    assert_eq!(disk.counts().values().sum::<u64>(), 4, "{:?}", disk.counts());
    let names: Vec<_> = disk.paths();
    assert_eq!(names, [Path::new(DIR).join("00000000000000000000.log"), Path::new(DIR).join("partition.metadata")]);
    let text = format!("version: 0\ntopic_id: {TOPIC_ID}");
    assert_eq!(disk.contents(&names[1]).unwrap(), text.as_bytes());
}

#[test]
fn another_topics_directory_is_not_opened() {
    let disk = FakeDisk::new();
    close(open(&disk, small(), CLEAN));
    let torn = Path::new(DIR).join("00000000000000000000.log");
    disk.put(&torn, b"torn");
    let opened = run(Log::open(OpenLog { topic_id: TopicId([9; 16]), ..what(&disk, small(), KILLED) }));
    assert_eq!(disk.contents(&torn).unwrap(), b"torn", "nothing of it is changed");
    assert!(matches!(opened, Err(LogError::InconsistentTopicId { found: TOPIC_ID, .. })));
}

#[test]
fn what_is_appended_is_read_across_segments_and_after_a_clean_stop() {
    let disk = FakeDisk::new();
    let mut log = filled(&disk, 200);
    assert!(log.closed.len() > 3);
    assert_holds(&mut log, 200);
    for (offset, end) in [(-1, 200), (201, 200)] {
        assert!(matches!(log.read(offset, 100, end), Read::OutOfRange));
    }
    assert!(matches!(log.read(200, 100, 200), Read::Empty));
    assert_eq!(close(log), 200);
    let before = disk.counts();
    let mut log = open(&disk, small(), CLEAN);
    assert_eq!(disk.counts().get("set_length"), before.get("set_length"), "a clean directory is not changed");
    assert_holds(&mut log, 200);
    append(&mut log, batch(200, 3));
    assert_holds(&mut log, 203);
}

#[test]
fn a_killed_process_loses_nothing_that_was_written() {
    let disk = FakeDisk::new();
    filled(&disk, 200);
    for recovery_point in [0, 77, 199, 200] {
        let mut log = open(&disk.restart(), small(), LastStop { recovery_point, ..KILLED });
        assert_holds(&mut log, 200);
        append(&mut log, batch(200, 3));
        assert_holds(&mut log, 203);
    }
}

#[test]
fn cold_segments_are_read_after_their_pages_were_brought_in() {
    let disk = FakeDisk::new();
    let mut log = filled(&disk, 200);
    disk.paths().iter().for_each(|path| disk.evict(path).unwrap());
    assert!(matches!(log.read(0, 100, 200), Read::NeedPages { .. }));
    assert_holds(&mut log, 200);
}

#[test]
fn a_reader_at_the_tail_touches_no_disk() {
    let disk = FakeDisk::new();
    let mut log = filled(&disk, 50);
    let tail = log.active.base_offset;
    let before = disk.counts();
    for ceiling in tail + 1..=50 {
        for offset in tail..ceiling {
            let found = log.read(offset, 1 << 20, ceiling);
            assert!(matches!(found, Read::Range { recently_appended: true, .. }), "{offset} {ceiling}");
        }
    }
    assert_eq!(disk.counts(), before);
    assert_holds(&mut log, 50);
}

#[test]
fn a_range_ends_at_its_ceiling_and_shows_how_large_the_first_batch_is() {
    let disk = FakeDisk::new();
    let mut log = open(&disk, LogConfig::default(), CLEAN);
    let sizes = [(0, 3), (3, 2), (5, 4)].map(|(first, count)| {
        let batch = batch(first, count);
        let bytes = batch.len() as u64;
        append(&mut log, batch);
        bytes
    });
    let mut range_of = |offset, bytes_max, ceiling| match read(&mut log, offset, bytes_max, ceiling) {
        Read::Range { range, first_batch_bytes, base_offset, .. } => {
            (base_offset, range.position, range.length, first_batch_bytes)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(range_of(4, 1 << 20, 9), (3, sizes[0], sizes[1] + sizes[2], sizes[1]));
    assert_eq!(range_of(0, 1 << 20, 5), (0, 0, sizes[0] + sizes[1], sizes[0]));
    assert_eq!(range_of(0, 10, 5), (0, 0, 10, sizes[0]));
    assert_eq!(range_of(3, 0, 5), (3, sizes[0], 0, sizes[1]));
    assert!(matches!(log.read(5, 10, 5), Read::Empty));
}

#[test]
fn a_write_is_visible_when_it_has_finished_and_only_one_is_in_flight() {
    let disk = FakeDisk::new();
    let mut log = open(&disk, LogConfig::default(), CLEAN);
    assert!(matches!(stage(&mut log, batch(0, 2)), Staged::Written { base_offset: 0, last_offset: 1, .. }));
    let first = log.take_write().unwrap();
    assert!(matches!(stage(&mut log, batch(2, 1)), Staged::Written { base_offset: 2, last_offset: 2, .. }));
    assert!(log.take_write().is_none());
    assert_eq!(log.log_end_offset(), 0);
    run(disk.append(&first.file, first.position, first.data)).unwrap();
    log.finish_write(Ok(())).unwrap();
    assert_eq!(log.log_end_offset(), 2);
    write(&mut log).unwrap();
    assert_holds(&mut log, 3);
}

#[test]
fn an_open_write_is_bounded_and_small_batches_share_a_piece() {
    let mut log = open(&FakeDisk::new(), LogConfig::default(), CLEAN);
    let mut big = BatchBuilder::new(Codec::None);
    big.push(1, None, Some(&vec![0; WRITE_BYTES_MAX]), &[]);
    let big = big.build();
    assert!(matches!(stage(&mut log, big.clone()), Staged::Written { .. }), "a larger batch alone is fine");
    assert!(matches!(stage(&mut log, batch(1, 1)), Staged::WriteFull(_)));
    write(&mut log).unwrap();
    for at in 0..WRITE_BATCHES_MAX as i64 {
        assert!(matches!(stage(&mut log, batch(1 + at, 1)), Staged::Written { .. }));
    }
    assert!(matches!(stage(&mut log, batch(0, 1)), Staged::WriteFull(_)));
    let write = log.take_write().unwrap();
    assert_eq!(write.data.len(), 1);
    assert_eq!(write.data[0].len(), batch(0, 1).len() * WRITE_BATCHES_MAX);
}

#[test]
fn a_failed_write_fences_takes_back_and_is_repaired() {
    for written in [0, 1, 100, 10_000] {
        let disk = FakeDisk::new();
        let mut log = open(&disk, LogConfig::default(), CLEAN);
        append(&mut log, batch(0, 3));
        append(&mut log, idempotent(7, 0, 1));
        disk.inject(Fault::Append { kind: ErrorKind::StorageFull, written });
        assert!(matches!(stage(&mut log, idempotent(7, 1, 1)), Staged::Written { .. }));
        let taken = log.take_write().unwrap();
        assert!(matches!(stage(&mut log, idempotent(7, 2, 1)), Staged::Written { .. }));
        let failed = run(disk.append(&taken.file, taken.position, taken.data));
        let error = log.finish_write(failed).unwrap_err();
        assert_eq!(error.0.kind(), ErrorKind::StorageFull);
        assert_eq!(log.log_end_offset(), 4);
        assert!(matches!(stage(&mut log, idempotent(7, 1, 1)), Staged::Fenced(_)));
        assert!(log.take_write().is_none() && log.upkeep(0, true).is_none());
        assert!(matches!(read(&mut log, 0, 100, 4), Read::Range { .. }), "reads go on");

        let repaired = run(log.repair());
        log.finish_repair(repaired).unwrap();
        let path = segment_path(Path::new(DIR), 0, LOG);
        assert_eq!(disk.contents(&path).unwrap().len() as u64, log.active.size);
        assert!(matches!(stage(&mut log, idempotent(7, 1, 1)), Staged::Written { base_offset: 4, .. }), "not known");
        write(&mut log).unwrap();
        assert_eq!(log.log_end_offset(), 5);
    }
}

#[test]
fn a_fenced_log_closes_with_its_whole_batches() {
    let disk = FakeDisk::new();
    let mut log = open(&disk, small(), CLEAN);
    append(&mut log, batch(0, 3));
    disk.inject(Fault::Append { kind: ErrorKind::Other, written: 50 });
    stage(&mut log, batch(3, 1));
    write(&mut log).unwrap_err();
    close(log);
    assert_holds(&mut open(&disk, small(), CLEAN), 3);
}

#[test]
fn a_failed_roll_leaves_the_old_segment_active() {
    let disk = FakeDisk::new();
    let mut log = filled(&disk, 30);
    for fault in [Fault::Write(ErrorKind::StorageFull), Fault::Open(ErrorKind::Other)] {
        disk.inject(fault);
        let rolled = run(log.begin_roll(log.log_end_offset(), 1000));
        assert!(matches!(stage(&mut log, batch(30, 1)), Staged::RollFirst(_)));
        assert!(log.finish_roll(rolled).is_err());
    }
    roll(&mut log);
    append(&mut log, batch(30, 1));
    assert_holds(&mut log, 31);
}

#[test]
fn a_segment_is_rolled_by_size_by_age_and_by_a_full_index() {
    let mut log = open(&FakeDisk::new(), LogConfig { segment_bytes: 1000, ..small() }, CLEAN);
    let refused = stage(&mut log, batch(0, 40));
    assert!(matches!(refused, Staged::Refused(AppendRefusal::RecordListTooLarge { segment_bytes: 1000, .. })));
    append(&mut log, batch(0, 8));
    assert!(matches!(stage(&mut log, batch(8, 12)), Staged::RollFirst(_)));

    let mut log = open(&FakeDisk::new(), LogConfig { segment_ms: 100, ..LogConfig::default() }, CLEAN);
    append(&mut log, batch(0, 1));
    assert!(matches!(stage(&mut log, batch(100, 1)), Staged::Written { .. }));
    write(&mut log).unwrap();
    assert!(matches!(stage(&mut log, batch(101, 1)), Staged::RollFirst(_)), "time counts in record timestamps");

    let mut log = open(&FakeDisk::new(), LogConfig { segment_index_bytes: 48, ..small() }, CLEAN);
    for at in 0..9 {
        append(&mut log, batch(at * 3, 3));
    }
    assert!(!log.closed.is_empty());
    assert_holds(&mut log, 27);
}

#[test]
fn append_time_is_stamped_on_request_of_the_topic() {
    let config = LogConfig { message_timestamp_type: TimestampType::LogAppendTime, ..LogConfig::default() };
    let mut log = open(&FakeDisk::new(), config, CLEAN);
    let staged = stage(&mut log, batch(0, 2));
    assert!(matches!(staged, Staged::Written { log_append_time: 1000, .. }));
    let data = log.take_write().unwrap().data.concat();
    assert!(crate::record::batch::has_valid_crc(&data));
    assert!(decode_records(&data, 1 << 20).unwrap().iter().all(|record| record.timestamp == 1000));
}

#[test]
fn leader_epochs_survive_and_those_of_lost_records_do_not() {
    let disk = FakeDisk::new();
    let mut log = open(&disk, small(), CLEAN);
    let assign = |log: &mut Log<FakeDisk>, epoch| {
        let written = log.assign_epoch(epoch, log.log_end_offset());
        written.map(run).transpose().unwrap().is_some()
    };
    assert!(assign(&mut log, 3));
    assert!(!assign(&mut log, 3));
    append(&mut log, batch(0, 5));
    assert!(assign(&mut log, 4));
    append(&mut log, batch(5, 5));
    assert!(assign(&mut log, 6));
    assert_eq!([0, 4, 5, 9, 10].map(|offset| log.epoch_at(offset)), [3, 3, 4, 4, 6].map(Some));
    assert_eq!(disk.contents(&Path::new(DIR).join(LEADER_EPOCH_CHECKPOINT)).unwrap(), b"0\n3\n3 0\n4 5\n6 10\n");
    let log = open(&disk.restart(), small(), KILLED);
    assert_eq!((log.latest_epoch(), log.epoch_at(4)), (Some(4), Some(3)));
}

mod blocks;
mod compaction;
mod damage;
mod durability;
mod jumps;
mod producers;
mod recovery;
mod retention;
mod swap;
mod times;
mod transactions;
mod truncation;
mod written;
