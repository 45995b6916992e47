use std::collections::BTreeSet;
use std::task::Context;

use bytes::BytesMut;

use super::inode::SECTOR_BYTES;
use super::power_cut::{PowerCut, Unsynced};
use super::*;
use crate::platform::{Disk, OpenMode};

/// Runs a future that nothing outside wakes.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    let mut future = Box::pin(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return value;
        }
    }
}

fn disk_with_file(data: &[u8]) -> (FakeDisk, Arc<FakeFile>, PathBuf) {
    let disk = FakeDisk::new();
    let path = PathBuf::from("/d/file");
    disk.put(&path, data);
    let (file, length) = run(disk.open(&path, OpenMode::ReadWrite)).unwrap();
    assert_eq!(length, data.len() as u64);
    (disk, file, path)
}

#[test]
fn a_power_cut_keeps_what_was_synced_and_a_restart_what_was_written() {
    let (disk, file, path) = disk_with_file(b"old");
    run(disk.append(&file, 3, vec![BytesMut::from("synced")])).unwrap();
    run(disk.sync(&file)).unwrap();
    run(disk.append(&file, 9, vec![BytesMut::from("not")])).unwrap();
    assert_eq!(disk.restart().contents(&path).unwrap(), b"oldsyncednot");
    let mut seen = BTreeSet::new();
    for seed in 0..64 {
        let contents = disk.power_cut(seed).contents(&path).unwrap();
        assert!(contents.starts_with(b"oldsynced"));
        seen.insert(contents);
    }
    assert!(seen.len() >= 3, "kept, lost and zeroed were all seen");
}

#[test]
fn an_unsynced_name_may_vanish_and_a_synced_one_may_not() {
    let (disk, _, _) = disk_with_file(b"");
    let path = PathBuf::from("/d/new");
    run(disk.open(&path, OpenMode::CreateNew)).unwrap();
    let there = |disk: &FakeDisk| (0..32).filter(|seed| disk.power_cut(*seed).contents(&path).is_ok()).count();
    assert!((1..32).contains(&there(&disk)));
    run(disk.sync_directory(Path::new("/d"))).unwrap();
    assert_eq!(there(&disk), 32);
}

#[test]
fn data_that_a_sync_failed_over_never_becomes_durable() {
    let (disk, file, path) = disk_with_file(b"");
    run(disk.append(&file, 0, vec![BytesMut::from("lost")])).unwrap();
    disk.inject(Fault::Sync(ErrorKind::Other));
    assert!(run(disk.sync(&file)).is_err());
    run(disk.sync(&file)).unwrap();
    assert!((0..32).any(|seed| disk.power_cut(seed).contents(&path).unwrap().is_empty()));
}

#[test]
fn an_evicted_page_is_not_read_until_it_is_made_resident() {
    let (disk, file, path) = disk_with_file(&[7; 10_000]);
    let mut buffer = [0; 100];
    assert_eq!(disk.read_resident(&file, 9_950, &mut buffer).unwrap(), Some(50));
    disk.evict(&path).unwrap();
    assert_eq!(disk.read_resident(&file, 4_090, &mut buffer).unwrap(), None);
    run(disk.make_resident(&file, 0, 4096 - 1)).unwrap();
    assert_eq!(disk.read_resident(&file, 4_090, &mut buffer).unwrap(), Some(6));
    assert!(!disk.is_resident(&file, 4_090, 7) && disk.is_resident(&file, 4_090, 6));
}

#[test]
fn an_operation_waits_for_the_pause_and_a_read_of_the_cache_does_not() {
    let (disk, file, path) = disk_with_file(b"");
    let gate = Rc::new(std::cell::Cell::new(false));
    let seen = gate.clone();
    let pause: Pause = Rc::new(move |_| {
        let gate = seen.clone();
        Box::pin(std::future::poll_fn(move |_| if gate.get() { Poll::Ready(()) } else { Poll::Pending }))
    });
    let paused = disk.with_pause(pause);
    let mut append = Box::pin(paused.append(&file, 0, vec![BytesMut::from("x")]));
    assert!(append.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(paused.read_resident(&file, 0, &mut [0; 4]).unwrap(), Some(0));
    gate.set(true);
    run(append).unwrap();
    assert_eq!(disk.contents(&path).unwrap(), b"x");
}

#[test]
fn a_fault_is_reported_once() {
    let (disk, file, path) = disk_with_file(b"");
    disk.inject(Fault::Append { kind: ErrorKind::StorageFull, written: 2 });
    let error = run(disk.append(&file, 0, vec![BytesMut::from("abcd")])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(disk.contents(&path).unwrap(), b"ab");
    run(disk.append(&file, 0, vec![BytesMut::from("abcd")])).unwrap();
    assert_eq!(disk.contents(&path).unwrap(), b"abcd");
}

#[test]
fn a_directory_is_listed_renamed_and_removed_with_all_in_it() {
    let (disk, file, _) = disk_with_file(b"x");
    run(disk.rename(Path::new("/d"), Path::new("/e"))).unwrap();
    let entries = run(disk.list(Path::new("/e"))).unwrap();
    assert_eq!(entries, [DirectoryEntry { length: 1, allocated_bytes: 1, ..entry("file".into(), false) }]);
    run(disk.remove_directory(Path::new("/e"))).unwrap();
    assert!(run(disk.list(Path::new("/e"))).is_err());
    assert_eq!(file.bytes_at(0, 10), b"x", "an open file stays readable");
}

const WAYS: [Unsynced; 5] = [Unsynced::Kept, Unsynced::Lost, Unsynced::Torn, Unsynced::Zeroed, Unsynced::Reordered];

/// What each way can leave of a file that was appended to twice since its last sync.
fn left_by(way: Unsynced) -> BTreeSet<Vec<u8>> {
    let (disk, file, path) = disk_with_file(&[1; 100]);
    run(disk.append(&file, 100, vec![BytesMut::from(&[2; 1000][..])])).unwrap();
    run(disk.append(&file, 1100, vec![BytesMut::from(&[3; 1000][..])])).unwrap();
    let cut = |seed| disk.power_cut_by(PowerCut { data: way, names: way, seed });
    (0..200).map(|seed| cut(seed).contents(&path).unwrap()).collect()
}

#[test]
fn every_way_of_a_power_cut_leaves_what_its_name_says() {
    let all = [&[1; 100][..], &[2; 1000], &[3; 1000]].concat();
    for way in WAYS {
        assert!(left_by(way).iter().all(|left| left.starts_with(&all[..100])), "{way:?}: what was synced is there");
    }
    assert_eq!(left_by(Unsynced::Kept), BTreeSet::from([all.clone()]));
    assert_eq!(left_by(Unsynced::Lost), BTreeSet::from([all[..100].to_vec()]));
    let torn = left_by(Unsynced::Torn);
    assert!(torn.len() > 4 && torn.iter().all(|left| all.starts_with(left)));
    assert!(torn.iter().all(|left| left.len() % SECTOR_BYTES == 0 || [100, 1100, 2100].contains(&left.len())));
    let zeroed = left_by(Unsynced::Zeroed);
    assert!(zeroed.len() > 2 && zeroed.iter().all(|left| left.len() == all.len()));
    let is_late_only = |left: &Vec<u8>| left.contains(&3) && !left.contains(&2);
    assert!(left_by(Unsynced::Reordered).iter().any(is_late_only), "a later write without an earlier one");
}

#[test]
fn a_file_made_in_a_directory_goes_where_the_directory_goes() {
    let (disk, _, _) = disk_with_file(b"");
    run(disk.open(Path::new("/d/new"), OpenMode::CreateNew)).unwrap();
    run(disk.rename(Path::new("/d"), Path::new("/e"))).unwrap();
    run(disk.sync_directory(Path::new("/"))).unwrap();
    run(disk.create_directory(Path::new("/d"))).unwrap();
    let cut = |seed| disk.power_cut(seed).paths();
    let all: BTreeSet<_> = (0..32).flat_map(cut).collect();
    assert_eq!(all, BTreeSet::from([PathBuf::from("/e/file"), PathBuf::from("/e/new")]));
}

#[test]
fn a_later_sync_covers_what_it_wrote_over_data_that_an_earlier_one_failed_over() {
    let (disk, file, path) = disk_with_file(b"0000000000");
    run(disk.write(&file, 2, b"xxxx".to_vec())).unwrap();
    disk.inject(Fault::Sync(ErrorKind::Other));
    assert!(run(disk.sync(&file)).is_err());
    run(disk.write(&file, 3, b"yy".to_vec())).unwrap();
    run(disk.sync(&file)).unwrap();
    let left: BTreeSet<_> = (0..64).map(|seed| disk.power_cut(seed).contents(&path).unwrap()).collect();
    assert!(left.iter().all(|left| &left[3..5] == b"yy"), "{left:?}");
    assert!(left.contains(&b"000yy00000"[..]), "the failed pages are not there, or only by chance");
}

#[test]
fn a_replace_that_fails_or_is_cut_in_any_step_leaves_the_old_file_or_the_new_one_whole() {
    let is_whole = |disk: &FakeDisk| {
        let left = disk.contents(Path::new("/d/file"));
        left.is_ok_and(|left| left == b"old" || left == b"new and longer")
    };
    let seen = Rc::new(std::cell::Cell::new(0));
    let (disk, _, path) = disk_with_file(b"old");
    let cuts = Rc::clone(&seen);
    let watched = disk.with_watch(Rc::new(move |disk, operation| {
        assert_eq!(operation, Operation::Replace);
        cuts.set(cuts.get() + 1);
        assert!((0..32).flat_map(PowerCut::ways).all(|way| is_whole(&disk.power_cut_by(way))));
    }));
    run(watched.replace(&path, b"new and longer".to_vec())).unwrap();
    assert_eq!(seen.get(), ReplaceStep::ALL.len());
    for step in ReplaceStep::ALL {
        let (disk, _, path) = disk_with_file(b"old");
        disk.inject(Fault::Replace { kind: ErrorKind::StorageFull, step });
        assert!(run(disk.replace(&path, b"new and longer".to_vec())).is_err());
        assert!((0..32).flat_map(PowerCut::ways).all(|way| is_whole(&disk.power_cut_by(way))), "{step:?}");
        run(disk.replace(&path, b"new and longer".to_vec())).unwrap();
        assert_eq!(disk.contents(&path).unwrap(), b"new and longer", "what the failed one left is in nobody's way");
    }
}

#[test]
fn a_fault_strikes_in_its_directory_at_its_time_and_until_the_disk_is_healed() {
    let (disk, file, _) = disk_with_file(b"");
    let append = || run(disk.append(&file, 0, vec![BytesMut::from("x")]));
    let fault = Fault::Append { kind: ErrorKind::Other, written: 0 };
    disk.inject(fault.under("/elsewhere").lasting());
    disk.inject(fault.under("/d").at(3));
    assert!(append().is_ok() && append().is_ok() && append().is_err() && append().is_ok());
    disk.inject(fault.at(2).lasting());
    assert!(append().is_ok() && append().is_err() && append().is_err());
    disk.heal();
    assert!(append().is_ok());
    disk.inject(Fault::Any(ErrorKind::NotFound).under("/d").lasting());
    assert!(append().is_err() && run(disk.list(Path::new("/d"))).is_err() && !disk.is_resident(&file, 0, 1));
    assert!(disk.read_resident(&file, 0, &mut [0]).is_err());
    run(disk.create_directory(Path::new("/e"))).unwrap();
}

#[test]
fn a_full_directory_takes_what_fits_and_the_rest_once_there_is_room() {
    let (disk, file, path) = disk_with_file(b"0123456789");
    disk.set_capacity(Path::new("/d"), Some(13));
    let append = || run(disk.append(&file, 10, vec![BytesMut::from("abcdef")]));
    let is_full = |result: io::Result<()>| result.is_err_and(|error| error.kind() == ErrorKind::StorageFull);
    assert!(is_full(append()));
    assert_eq!(disk.contents(&path).unwrap(), b"0123456789abc");
    assert!(is_full(run(disk.open(Path::new("/d/new"), OpenMode::CreateNew)).map(drop)));
    assert!(is_full(run(disk.replace(&path, b"x".to_vec()))) && is_full(run(disk.set_length(&file, 14))));
    assert!(is_full(run(disk.preallocate(&file, 13, 100))));
    run(disk.write(&file, 0, b"over".to_vec())).expect("what is there can be written over");
    run(disk.set_length(&file, 7)).unwrap();
    assert!(is_full(run(disk.write(&file, 7, vec![b'x'; 7]))));
    disk.set_capacity(Path::new("/d"), None);
    append().unwrap();
    assert_eq!(disk.contents(&path).unwrap(), b"over456xxxabcdef");
    assert!(disk.power_cut(1).contents(&path).is_ok());
}

#[test]
fn an_operation_in_a_slow_directory_takes_its_time_and_one_that_hangs_waits_for_its_release() {
    let (disk, file, _) = disk_with_file(b"");
    disk.put(Path::new("/other/file"), b"");
    let asked = Rc::new(std::cell::Cell::new(Duration::ZERO));
    let seen = Rc::clone(&asked);
    let pause: Pause = Rc::new(move |takes| {
        seen.set(takes);
        Box::pin(std::future::ready(()))
    });
    let disk = disk.with_pause(pause);
    disk.delay(Path::new("/d"), Delay::For(Duration::from_millis(50)));
    run(disk.sync(&file)).unwrap();
    assert_eq!(asked.get(), Duration::from_millis(50));
    run(disk.list(Path::new("/other"))).unwrap();
    assert_eq!(asked.get(), Duration::ZERO);

    disk.delay(Path::new("/d"), Delay::Hang);
    let mut hangs = Box::pin(disk.append(&file, 0, vec![BytesMut::from("x")]));
    let mut context = Context::from_waker(Waker::noop());
    assert!(hangs.as_mut().poll(&mut context).is_pending() && hangs.as_mut().poll(&mut context).is_pending());
    run(disk.list(Path::new("/other"))).unwrap();
    disk.release(Path::new("/d"));
    assert!(hangs.as_mut().poll(&mut context).is_ready());
}

#[test]
fn a_flipped_bit_is_there_for_readers_and_after_a_power_cut() {
    let (disk, _, path) = disk_with_file(b"abc");
    disk.flip(&path, 1, 0).unwrap();
    assert_eq!(disk.contents(&path).unwrap(), b"acc");
    assert_eq!(disk.power_cut(3).contents(&path).unwrap(), b"acc");
    assert!(disk.flip(Path::new("/d/none"), 0, 0).is_err());
}
