//! What a stop of any kind left of the files: cut, flipped, missing.

use super::*;

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
