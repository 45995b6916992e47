//! Blocks reserved ahead of a log, and when they are given back.

use super::*;

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
