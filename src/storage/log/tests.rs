use std::collections::BTreeMap;
use std::future::Future;
use std::io::ErrorKind;

use bytes::BytesMut;

use super::*;
use crate::record::batch::{BatchBuilder, BatchHeader, batches, decode_records};
use crate::record::compression::Codec;
use crate::record::tests::next;
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
    let rolled = run(log.begin_roll(1000));
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
fn a_tail_torn_at_any_byte_of_the_last_batch_is_cut_off() {
    let disk = FakeDisk::new();
    let mut log = open(&disk, LogConfig::default(), CLEAN);
    append(&mut log, batch(0, 3));
    let whole = log.active.size as usize;
    append(&mut log, batch(3, 2));
    let path = segment_path(Path::new(DIR), 0, LOG);
    let contents = disk.contents(&path).unwrap();
    for cut in whole..contents.len() {
        for rest in [0, 100] {
            // Cut short, or with zeros where the rest should be.
            let mut torn = contents[..cut].to_vec();
            torn.resize(cut + rest, 0);
            let disk = disk.restart();
            disk.put(&path, &torn);
            let mut log = open(&disk, LogConfig::default(), KILLED);
            if torn.starts_with(&contents) {
                // What was cut off were zeros.
                assert_holds(&mut log, 5);
                continue;
            }
            assert_holds(&mut log, 3);
            assert_eq!(disk.contents(&path).unwrap().len(), whole);
            append(&mut log, batch(3, 2));
            assert_holds(&mut log, 5);
        }
    }
}

#[test]
fn a_flipped_bit_ends_the_log_and_removes_the_segments_behind() {
    let disk = FakeDisk::new();
    let log = filled(&disk, 200);
    let second = *log.closed.keys().nth(1).unwrap();
    let path = segment_path(Path::new(DIR), second, LOG);
    let mut damaged = disk.contents(&path).unwrap();
    let at = damaged.len() - 1;
    damaged[at] ^= 1;
    let disk = disk.restart();
    disk.put(&path, &damaged);
    let mut log = open(&disk, small(), KILLED);
    let end = log.log_end_offset();
    assert!(end > second && end < *filled(&FakeDisk::new(), 200).closed.keys().nth(2).unwrap());
    assert_holds(&mut log, end);
    assert!(disk.paths().iter().all(|path| !path.to_string_lossy().contains("00199")));
    append(&mut log, batch(end, 40));
    assert_holds(&mut log, end + 40);
    close(log);
    assert_holds(&mut open(&disk, small(), CLEAN), end + 40);
}

#[test]
fn index_files_of_a_clean_stop_match_those_made_by_recovery() {
    let disk = FakeDisk::new();
    let log = filled(&disk, 200);
    let bases: Vec<_> = log.closed.keys().copied().collect();
    close(log);
    let killed = disk.restart();
    open(&killed, small(), KILLED);
    for base_offset in bases {
        for extension in [OFFSET_INDEX, TIME_INDEX] {
            let path = segment_path(Path::new(DIR), base_offset, extension);
            assert_eq!(disk.contents(&path).unwrap(), killed.contents(&path).unwrap(), "{base_offset} {extension}");
        }
    }
}

#[test]
fn whatever_bytes_a_killed_process_left_the_log_opens_and_every_record_left_is_whole() {
    let disk = FakeDisk::new();
    filled(&disk, 60);
    let mut seed = 21;
    for _ in 0..400 {
        let disk = disk.restart();
        let paths = disk.paths();
        for _ in 0..1 + next(&mut seed) % 4 {
            let path = &paths[next(&mut seed) as usize % paths.len()];
            let mut bytes = disk.contents(path).unwrap();
            if bytes.is_empty() || path.ends_with(PARTITION_METADATA) {
                continue;
            }
            let at = next(&mut seed) as usize % bytes.len();
            bytes[at] ^= 1 << (next(&mut seed) % 8);
            bytes.truncate(next(&mut seed) as usize % (2 * bytes.len()) + 1);
            disk.put(path, &bytes);
        }
        let mut log = open(&disk, small(), KILLED);
        let left = records_from(&mut log, 0, 500);
        // The CRC does not cover the base offset, so a flip there may move a batch up; order is what can be promised.
        assert!(left.is_sorted_by(|(before, value), (offset, next)| before < offset && value < next));
        let at = log.log_end_offset();
        append(&mut log, batch(at, 3));
    }
}

#[test]
fn damaged_small_files_of_a_clean_stop_never_panic() {
    let disk = FakeDisk::new();
    close(filled(&disk, 60));
    let mut seed = 22;
    for _ in 0..400 {
        let disk = disk.restart();
        let paths: Vec<_> =
            disk.paths().into_iter().filter(|path| path.extension().is_none_or(|name| name != LOG)).collect();
        let path = &paths[next(&mut seed) as usize % paths.len()];
        let mut bytes = disk.contents(path).unwrap();
        if bytes.is_empty() {
            continue;
        }
        let at = next(&mut seed) as usize % bytes.len();
        bytes[at] = next(&mut seed) as u8;
        disk.put(path, &bytes);
        let Ok(mut log) = try_open(&disk, small(), CLEAN) else { continue };
        assert_eq!(log.log_end_offset(), 60);
        for offset in 0..60 {
            // A damaged index may lead to no batch; then the read says so.
            assert!(matches!(read(&mut log, offset, 100, 60), Read::Range { .. } | Read::Io(_) | Read::Empty));
        }
        let _ = run(log.lookup_timestamp(10_030, 60, &Inline));
    }
}

#[test]
fn a_missing_index_is_made_anew() {
    let disk = FakeDisk::new();
    close(filled(&disk, 200));
    for path in disk.paths().iter().filter(|path| path.extension().is_some_and(|name| name == OFFSET_INDEX)) {
        run(disk.remove_file(path)).unwrap();
    }
    assert_holds(&mut open(&disk, small(), CLEAN), 200);
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
        let rolled = run(log.begin_roll(1000));
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

/// Of this codec, with times from `first` on in steps of one.
fn timed(codec: Codec, first: i64, count: i64, value_bytes: usize) -> BytesMut {
    let mut builder = BatchBuilder::new(codec);
    (first..first + count).for_each(|at| builder.push(at, Some(b"k"), Some(&vec![at as u8; value_bytes]), &[]));
    builder.build()
}

/// With this max timestamp in its header, and perhaps a body that can't be read.
fn lying(mut batch: BytesMut, max_timestamp: i64, is_damaged: bool) -> BytesMut {
    if is_damaged {
        batch[61..70].fill(0xee);
    }
    crate::record::batch::set_max_timestamp(&mut batch, max_timestamp);
    batch
}

#[test]
fn a_batch_that_can_not_be_decoded_answers_a_time_query_with_itself_and_takes_nobody_elses_answer() {
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let mut log = open(&FakeDisk::new(), LogConfig::default(), CLEAN);
        append(&mut log, timed(codec, 1000, 10, 50));
        append(&mut log, lying(timed(codec, 2000, 10, 50), 2500, true));
        append(&mut log, timed(codec, 3000, 10, 50));
        let find = |timestamp| run(log.lookup_timestamp(timestamp, 30, &Inline)).unwrap();
        assert_eq!(find(1005), Some((5, 1005)), "{codec:?}");
        assert_eq!(find(1010), Some((10, 2500)), "{codec:?}: no record that can be read is passed over");
        assert_eq!(find(2501), Some((20, 3000)), "{codec:?}");
        assert_eq!(run(log.lookup_max_timestamp(30, &Inline)).unwrap(), Some((29, 3009)));
        assert_eq!((log.take_undecodable_lookups(), log.take_undecodable_lookups()), (1, 0));
        assert!(log.increment_log_start_offset(15));
        assert_eq!(run(log.lookup_timestamp(1010, 30, &Inline)).unwrap(), Some((15, 2500)), "not below the log start");
        append(&mut log, lying(timed(codec, 4000, 10, 50), 9000, true));
        assert_eq!(run(log.lookup_max_timestamp(40, &Inline)).unwrap(), Some((30, 9000)));
    }
}

#[test]
fn a_header_that_says_too_much_sends_the_look_up_on_to_the_next_batch() {
    let mut log = open(&FakeDisk::new(), LogConfig::default(), CLEAN);
    append(&mut log, lying(timed(Codec::Zstd, 1000, 10, 50), 5000, false));
    append(&mut log, timed(Codec::Zstd, 2000, 10, 50));
    assert_eq!(run(log.lookup_timestamp(1500, 20, &Inline)).unwrap(), Some((10, 2000)));
    assert_eq!(run(log.lookup_timestamp(3000, 20, &Inline)).unwrap(), None);
    // No record has the latest timestamp: the batch that says so is nearest to it.
    assert_eq!(run(log.lookup_max_timestamp(20, &Inline)).unwrap(), Some((0, 5000)));
    assert_eq!(log.take_undecodable_lookups(), 0);
}

/// Counts what comes to the work threads, and may refuse it.
#[derive(Clone, Default)]
struct CountedWork {
    jobs: std::rc::Rc<std::cell::Cell<u32>>,
    is_full: bool,
}

impl crate::platform::Tasks for CountedWork {
    fn spawn(&self, _task: impl Future<Output = ()> + 'static) {
        panic!("nothing here goes on by itself");
    }

    fn work<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = Option<T>> + 'static {
        self.jobs.set(self.jobs.get() + 1);
        std::future::ready((!self.is_full).then(job))
    }
}

#[test]
fn records_of_large_batches_are_looked_for_on_a_work_thread() {
    let mut log = open(&FakeDisk::new(), LogConfig::default(), CLEAN);
    append(&mut log, timed(Codec::Zstd, 1000, 10, 50));
    append(&mut log, timed(Codec::None, 2000, 100, 1000));
    // Small as it is stored.
    append(&mut log, timed(Codec::Zstd, 3000, 100, 1000));
    let tasks = CountedWork::default();
    let find = |timestamp, tasks: &CountedWork| run(log.lookup_timestamp(timestamp, 210, tasks));
    assert_eq!((find(1005, &tasks).unwrap(), tasks.jobs.get()), (Some((5, 1005)), 0));
    assert_eq!((find(2050, &tasks).unwrap(), tasks.jobs.get()), (Some((60, 2050)), 1));
    assert_eq!((find(3099, &tasks).unwrap(), tasks.jobs.get()), (Some((209, 3099)), 2));
    let full = CountedWork { is_full: true, ..CountedWork::default() };
    assert!(matches!(find(3099, &full), Err(LogError::Busy)));
}

#[test]
fn a_timestamp_is_found_in_every_segment() {
    let disk = FakeDisk::new();
    for reopened in [false, true] {
        let mut log = filled(&disk, 200);
        if reopened {
            close(log);
            log = open(&disk, small(), CLEAN);
        }
        let find = |timestamp, ceiling| run(log.lookup_timestamp(timestamp, ceiling, &Inline)).unwrap();
        for at in 0..200 {
            assert_eq!(find(10_000 + at, 200), Some((at, 10_000 + at)));
        }
        assert_eq!(find(-5, 200), Some((0, 10_000)));
        assert_eq!(find(10_200, 200), None);
        assert_eq!(find(10_150, 150), None, "the ceiling hides it");
    }
}

#[test]
fn leader_epochs_survive_and_those_of_lost_records_do_not() {
    let disk = FakeDisk::new();
    let mut log = open(&disk, small(), CLEAN);
    let assign = |log: &mut Log<FakeDisk>, epoch| {
        let written = log.assign_epoch(epoch);
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

#[test]
fn a_deleted_partition_leaves_readers_their_ranges_and_nothing_else() {
    let disk = FakeDisk::new();
    let mut log = open(&disk, small(), CLEAN);
    append(&mut log, batch(0, 3));
    let Read::Range { range, .. } = read(&mut log, 0, 1000, 3) else { panic!() };
    run(log.delete()).unwrap();
    assert_eq!(disk.paths(), Vec::<PathBuf>::new());
    assert!(!range.file.bytes_at(range.position, range.length).is_empty());
}

#[test]
fn blocks_are_reserved_ahead_of_a_busy_log_and_given_back_by_the_flush_behind_the_roll() {
    let disk = FakeDisk::new();
    let mut log = open(&disk, LogConfig { segment_bytes: 64 << 20, ..LogConfig::default() }, CLEAN);
    append(&mut log, batch(0, 5));
    assert_eq!(disk.counts().get("preallocate"), None, "an idle partition reserves nothing");
    let path = segment_path(Path::new(DIR), 0, OFFSET_INDEX);
    assert!(disk.contents(&path).is_err(), "few entries are not worth a write");
    let mut large = BatchBuilder::new(Codec::None);
    large.push(1, None, Some(&vec![1; 1 << 20]), &[]);
    let large = large.build();
    for _ in 0..8 {
        append(&mut log, large.clone());
    }
    assert!(log.active.preallocated_end > log.active.size);
    assert!(disk.counts()["preallocate"] < 8);
    let cuts = disk.counts().get("set_length").copied().unwrap_or(0);
    roll(&mut log);
    assert_eq!(disk.counts()["set_length"], cuts + 2, "both indexes: no append waits for the log's blocks");
    assert!(reserved_bytes(&disk) > 0);
    // What could not be given back is tried again, and nothing counts as flushed before.
    disk.inject(Fault::SetLength(ErrorKind::Interrupted));
    for is_given_back in [false, true] {
        let flushed = run(log.flush_closed().expect("the closed segment is not flushed"));
        assert_eq!(log.finish_flush(flushed).is_ok(), is_given_back);
        assert_eq!((reserved_bytes(&disk) == 0, log.flushed_offset() > 0), (is_given_back, is_given_back));
    }
    assert_eq!(disk.counts()["set_length"], cuts + 4);
    assert!(disk.contents(&path).unwrap().len() < INDEX_FILE_BYTES_MAX);
}

/// Bytes that files of the log's directory hold behind their ends.
fn reserved_bytes(disk: &FakeDisk) -> u64 {
    let entries = run(disk.list(Path::new(DIR))).unwrap();
    entries.iter().map(|entry| entry.allocated_bytes - entry.length).sum()
}

/// A log that was appended to until it has blocks reserved, its file, and what is in it.
fn log_with_reserved_blocks(disk: &FakeDisk) -> (Log<FakeDisk>, Arc<FakeFile>, Vec<u8>) {
    let mut log = open(disk, LogConfig { segment_bytes: 64 << 20, ..LogConfig::default() }, CLEAN);
    let mut large = BatchBuilder::new(Codec::None);
    large.push(1, None, Some(&vec![1; 1 << 20]), &[]);
    let large = large.build();
    for _ in 0..4 {
        append(&mut log, large.clone());
    }
    let file = log.active.file().unwrap();
    assert!(disk.reserved_bytes(&file) > 0);
    let bytes = file.bytes_at(0, u64::MAX);
    (log, file, bytes)
}

#[test]
fn reserved_blocks_are_given_back_at_a_deletion_though_a_reader_holds_the_file_open() {
    for is_closed in [false, true] {
        let reserved = |disk: &FakeDisk| {
            let (mut log, held, bytes) = log_with_reserved_blocks(disk);
            if is_closed {
                roll(&mut log);
                assert!(disk.reserved_bytes(&held) > 0, "its flush would have given them back");
            }
            (log, held, bytes)
        };
        let disk = FakeDisk::new();
        let (log, held, bytes) = reserved(&disk);
        run(log.delete()).unwrap();
        assert_eq!((disk.reserved_bytes(&held), disk.paths().len()), (0, 0));
        assert_eq!(held.bytes_at(0, u64::MAX), bytes, "what the reader was promised is there");
        // A follower that gives up all it has takes the file out of the log too.
        let disk = FakeDisk::new();
        let (log, held, bytes) = reserved(&disk);
        let log = run(log.truncate_fully_and_start_at(100, 1000)).unwrap();
        assert_eq!((disk.reserved_bytes(&held), log.log_end_offset()), (0, 100));
        assert_eq!(held.bytes_at(0, u64::MAX), bytes);
    }
}

#[test]
fn reserved_blocks_are_given_back_at_a_stop_and_after_a_kill_when_the_log_is_opened_again() {
    let disk = FakeDisk::new();
    let (log, ..) = log_with_reserved_blocks(&disk);
    close(log);
    assert_eq!(reserved_bytes(&disk), 0);
    let disk = FakeDisk::new();
    let (_log, _, bytes) = log_with_reserved_blocks(&disk);
    let disk = disk.restart();
    assert!(reserved_bytes(&disk) > 0, "nobody was left to give them back");
    let log = open(&disk, LogConfig { segment_bytes: 64 << 20, ..LogConfig::default() }, KILLED);
    assert_eq!((reserved_bytes(&disk), log.log_end_offset()), (0, 4));
    assert_eq!(disk.contents(&segment_path(Path::new(DIR), 0, LOG)).unwrap(), bytes);
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

mod compaction;
mod durability;
mod recovery;
mod retention;
mod transactions;
mod truncation;
mod written;
