//! A compaction that was interrupted is finished or taken back by the next open.

use super::recovery::{all_files, assert_same_files, interrupted, path};
use super::*;
use crate::record::batch::stamp;

/// A segment's log of one-record batches with these offsets.
fn log_of(offsets: impl Iterator<Item = Offset>) -> Vec<u8> {
    let mut out = Vec::new();
    for offset in offsets {
        let mut one = batch(offset, 1);
        stamp(&mut one, offset, 0);
        out.extend_from_slice(&one);
    }
    out
}

#[test]
fn an_interrupted_swap_is_finished_wherever_it_is_interrupted_again() {
    let begun = || {
        let disk = FakeDisk::new();
        for (base_offset, end) in [(0, 50), (50, 100), (100, 150), (150, 160)] {
            disk.put(&path(base_offset, LOG), &log_of(base_offset..end));
            disk.put(&path(base_offset, OFFSET_INDEX), &[]);
            disk.put(&path(base_offset, TIME_INDEX), &[]);
            disk.put(&path(base_offset, SNAPSHOT), b"of before");
        }
        // Two segments were cleaned into one, and another one alone: every tenth record is left.
        for (base_offset, end) in [(0, 100), (100, 150)] {
            disk.put(&path(base_offset, "log.swap"), &log_of((base_offset..end).filter(|at| at % 10 == 9)));
            disk.put(&path(base_offset, "index.swap"), &[]);
            disk.put(&path(base_offset, "timeindex.swap"), &[]);
        }
        disk.put(&path(150, "log.deleted"), b"long gone");
        disk
    };
    let compacted = LogConfig { compacted: true, ..small() };
    let expected: Vec<_> = (0..160).filter(|at| at % 10 == 9 || *at >= 150).collect();
    let mut interruptions = 0;
    for operations in 0.. {
        for seed in 0..4 {
            let disk = begun();
            let config = compacted.clone();
            let open_it = |disk: FakeDisk| async move { Log::open(what(&disk, config, KILLED)).await };
            let is_over = interrupted(&disk, operations, open_it).is_some();
            let disk = disk.power_cut(seed);
            let mut log = open(&disk, compacted.clone(), KILLED);
            let found: Vec<_> = records_from(&mut log, 0, 500).into_iter().map(|(offset, _)| offset).collect();
            assert_eq!(found, expected, "{operations} operations, seed {seed}");
            let names: Vec<_> = disk.paths().iter().map(|path| path.to_string_lossy().into_owned()).collect();
            assert!(names.iter().all(|name| !name.ends_with(".swap") && !name.ends_with(".deleted")), "{names:?}");
            assert!(!names.iter().any(|name| name.contains("0000050.")), "{names:?}");
            interruptions += u32::from(!is_over);
        }
        if interruptions < 4 * (operations as u32 + 1) {
            break;
        }
    }
    assert!(interruptions > 50, "{interruptions}");
}

#[test]
fn a_split_that_was_not_finished_is_taken_back() {
    let disk = FakeDisk::new();
    disk.put(&path(0, LOG), &log_of(0..50));
    disk.put(&path(20, "log.swap"), &log_of(20..50));
    disk.put(&path(20, "index.swap"), b"");
    disk.put(&path(10, "log.cleaned"), &log_of(10..20));
    for operations in 0..12 {
        let disk = disk.restart();
        let _ = interrupted(&disk, operations, |disk| async move { Log::open(what(&disk, small(), KILLED)).await });
        assert_holds(&mut open(&disk.power_cut(operations), small(), KILLED), 50);
        let names = disk.paths();
        assert!(operations < 11 || names.iter().all(|path| !path.to_string_lossy().ends_with("swap")), "{names:?}");
    }
}

#[test]
fn a_swap_file_that_is_damaged_keeps_the_log_closed() {
    let disk = FakeDisk::new();
    disk.put(&path(0, LOG), &log_of(0..50));
    let torn = log_of(0..50);
    disk.put(&path(0, "log.swap"), &torn[..torn.len() - 1]);
    let before = all_files(&disk);
    let refused = try_open(&disk, small(), KILLED).err().unwrap().to_string();
    assert!(refused.contains("log.swap"), "{refused}");
    assert_same_files(&all_files(&disk), &before, "");
}
