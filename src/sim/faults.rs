//! Disks that fail, fill up, lie and go away, under the real log: what was acknowledged stays, nothing is served twice,
//! and service comes back once the fault is gone.

#![forbid(unsafe_code)]

mod flips;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use super::disk::power_cut::{Dice, PowerCut};
use super::disk::{Delay, FakeDisk, Fault, FaultRule, ReplaceStep};
use super::platform::SimPlatform;
use super::power_cut::directory::{Directory, LOG_DIR, Outcome, partition_directory};
use super::power_cut::model::{BatchSizes, LogModel};
use super::world::World;
use crate::base::ids::{TopicId, TopicPartition};
use crate::platform::{Disk, Platform};
use crate::record::batch::{batches, has_valid_crc};
use crate::storage::cache_mark::CACHE_MARK;
use crate::storage::log::{LogConfig, Read, Staged};
use crate::storage::log_dir::{HIGH_WATERMARKS, LOG_START_OFFSETS, RECOVERY_POINTS};

const SIZES: BatchSizes = BatchSizes { records_max: 4, value_bytes_max: 200 };
const EIO: ErrorKind = ErrorKind::Other;
const ENOSPC: ErrorKind = ErrorKind::StorageFull;
/// Attempts in which a fault must have been met.
const ATTEMPTS_MAX: usize = 60;

fn config() -> LogConfig {
    LogConfig { segment_bytes: 3000, index_interval_bytes: 200, segment_index_bytes: 4096, ..LogConfig::default() }
}

/// One log, and what was acknowledged of it.
struct Bench {
    disk: FakeDisk,
    tp: TopicPartition,
    directory: Directory,
    /// Ends with what was acknowledged.
    log: LogModel,
    dice: Dice,
}

impl Bench {
    /// Several segments, flushed in part.
    fn filled(seed: u64) -> Bench {
        let (disk, tp) = (FakeDisk::new(), TopicPartition { topic: "t".into(), partition: 0 });
        let mut directory = Directory::start(&disk, &config(), []).unwrap();
        let log = LogModel::new(TopicId([1; 16]));
        directory.create(&tp, log.topic_id).unwrap();
        directory.assign_epoch(&tp, 0).unwrap();
        let mut bench = Bench { disk, tp, directory, log, dice: Dice(seed) };
        (0..12).for_each(|_| bench.append().unwrap());
        bench.flush().unwrap();
        bench.directory.write_checkpoints(&bench.directory.checkpoints()).unwrap();
        (0..4).for_each(|_| bench.append().unwrap());
        bench
    }

    /// Appends a few batches; what of them was written is acknowledged, whether all of them were or not.
    fn append(&mut self) -> Outcome<()> {
        let batches = self.log.new_batches(1 + self.dice.below(3), SIZES, &mut self.dice);
        let mut log = self.log.clone();
        let outcome = self.directory.append(&self.tp, batches, log.leader_epoch, |batch, base| log.staged(batch, base));
        log.cut_to(self.directory.log(&self.tp).log_end_offset());
        self.log = log;
        outcome
    }

    fn flush(&mut self) -> Outcome<()> {
        let flushed = self.directory.flush(&self.tp)?;
        self.log.flushed(flushed);
        Ok(())
    }

    /// One round of everything that a log is asked for.
    fn work(&mut self) -> Outcome<()> {
        self.append()?;
        self.append()?;
        if self.dice.below(3) == 0 && self.directory.can_roll(&self.tp) {
            self.directory.roll(&self.tp)?;
        }
        self.flush()?;
        self.directory.write_checkpoints(&self.directory.checkpoints())?;
        let epoch = self.log.leader_epoch + 1;
        self.directory.assign_epoch(&self.tp, epoch)?;
        self.log.leader_epoch = epoch;
        Ok(())
    }

    /// The fault is gone: a fenced log is repaired, and takes appends again.
    fn serve_again(&mut self) {
        self.disk.heal();
        self.disk.set_capacity(Path::new(LOG_DIR), None);
        // The epoch that failed may or may not have been written down; this reign is a new one in any case.
        self.log.leader_epoch += 2;
        self.directory.assign_epoch(&self.tp, self.log.leader_epoch).unwrap();
        let probe = self.log.new_batches(1, SIZES, &mut Dice(0)).remove(0);
        match self.directory.offer(&self.tp, probe.clone(), self.log.leader_epoch).unwrap() {
            Staged::Fenced(_) => self.directory.repair(&self.tp).unwrap(),
            Staged::Written { base_offset, .. } => self.log.staged(&probe, base_offset),
            Staged::RollFirst(_) => {}
            other => panic!("{other:?}"),
        }
        (0..3).for_each(|_| self.append().unwrap());
        self.holds();
    }

    /// Everything acknowledged is read back, byte for byte, and nothing else.
    fn holds(&mut self) {
        assert_eq!(self.directory.log(&self.tp).log_end_offset(), self.log.end_offset());
        self.log = self.log.check(&mut self.directory, &self.tp, &mut self.dice).unwrap();
        self.directory.write(&self.tp).unwrap();
    }

    /// The next process, on this disk.
    fn start(&mut self, disk: FakeDisk) -> Outcome<()> {
        self.directory = Directory::start(&disk, &config(), [(self.tp.clone(), self.log.topic_id)])?;
        self.disk = disk;
        self.directory.assign_epoch(&self.tp, self.log.leader_epoch)
    }

    /// The process is stopped in order.
    fn stop(&mut self) {
        let none = Directory::start(&FakeDisk::new(), &config(), []).unwrap();
        std::mem::replace(&mut self.directory, none).stop().unwrap();
    }

    /// The power goes in every way, and each time all that was flushed is there.
    fn survives_power_cuts(&mut self) {
        for way in PowerCut::ways(self.dice.next_u64()) {
            let (disk, log) = (self.disk.power_cut_by(way), self.log.clone());
            let mut left = Bench { disk: disk.clone(), tp: self.tp.clone(), log, ..Bench::empty() };
            left.start(disk).unwrap_or_else(|error| panic!("{way:?}: {error}"));
            let checked = left.log.check(&mut left.directory, &left.tp, &mut left.dice);
            checked.unwrap_or_else(|wrong| panic!("{way:?}: {wrong}"));
        }
    }

    /// Every end of a process, one after the other.
    fn survives(&mut self) {
        self.start(self.disk.restart()).unwrap();
        self.holds();
        self.survives_power_cuts();
        self.stop();
        self.start(self.disk.restart()).unwrap();
        self.holds();
    }

    fn empty() -> Bench {
        let disk = FakeDisk::new();
        let directory = Directory::start(&disk, &config(), []).unwrap();
        let tp = TopicPartition { topic: "t".into(), partition: 0 };
        Bench { disk, tp, directory, log: LogModel::new(TopicId([1; 16])), dice: Dice(7) }
    }
}

/// The fault strikes at some moment of a log's work, goes away, and nothing acknowledged is gone.
fn strikes_and_goes(fault: impl Fn(u64) -> FaultRule) {
    for nth in 1..=8 {
        let mut bench = Bench::filled(nth);
        bench.disk.inject(fault(nth));
        let struck = (0..ATTEMPTS_MAX).any(|_| bench.work().is_err());
        assert!(struck, "the fault was met at its moment {nth}");
        bench.serve_again();
        bench.survives();
    }
}

#[test]
fn a_write_that_failed_or_was_cut_short_loses_nothing_acknowledged() {
    for kind in [EIO, ENOSPC] {
        for written in [0, 1, 61, 300, 5000] {
            strikes_and_goes(|nth| Fault::Append { kind, written }.at(nth));
        }
    }
}

#[test]
fn index_and_snapshot_files_that_cannot_be_written_put_off_a_roll_and_lose_nothing() {
    for kind in [EIO, ENOSPC] {
        strikes_and_goes(|nth| Fault::Write(kind).at(nth));
        strikes_and_goes(|nth| Fault::ShortWrite { kind, written: 5 }.at(nth));
        strikes_and_goes(|nth| Fault::SetLength(kind).at(nth));
        strikes_and_goes(|nth| Fault::Open(kind).at(nth));
    }
}

#[test]
fn a_checkpoint_that_fails_in_any_step_loses_nothing() {
    for kind in [EIO, ENOSPC] {
        for step in ReplaceStep::ALL {
            strikes_and_goes(|nth| Fault::Replace { kind, step }.at(nth));
        }
    }
}

#[test]
fn a_flush_after_a_failed_one_never_counts_what_the_first_one_lost() {
    for nth in 1..=6 {
        let mut bench = Bench::filled(nth);
        let before = bench.directory.log(&bench.tp).flushed_offset();
        bench.disk.inject(Fault::Sync(EIO).at(nth));
        assert!((0..ATTEMPTS_MAX).any(|_| bench.work().is_err()), "the fault was met");
        let flushed = bench.directory.log(&bench.tp).flushed_offset();
        assert!(flushed >= before);
        // The kernel calls the pages clean now, so these syncs succeed.
        for _ in 0..3 {
            let _ = bench.flush();
            assert_eq!(bench.directory.log(&bench.tp).flushed_offset(), flushed, "nothing was made durable since");
        }
        // What was written is in the page cache still, for a process that is killed.
        bench.start(bench.disk.restart()).unwrap();
        bench.holds();
    }
}

#[test]
fn a_log_that_a_sync_failed_on_is_not_closed_in_order() {
    let mut bench = Bench::filled(3);
    bench.disk.inject(Fault::Sync(EIO).lasting());
    assert!(bench.flush().is_err());
    bench.disk.heal();
    assert!(bench.directory.stop().is_err(), "no clean-shutdown marker may vouch for what was lost");
}

#[test]
fn a_segment_begun_at_the_last_stops_recovery_point_is_durable_with_the_indexes_before_it() {
    for seed in 0..20 {
        let mut bench = Bench::filled(seed);
        bench.stop();
        bench.start(bench.disk.restart()).unwrap();
        bench.directory.roll(&bench.tp).unwrap();
        bench.survives_power_cuts();
        bench.append().unwrap();
        // Nobody has synced the new segment's name, and the next process checks no segment but this one.
        bench.start(bench.disk.restart()).unwrap();
        bench.flush().unwrap();
        bench.survives_power_cuts();
    }
}

#[test]
fn a_disk_that_fills_up_refuses_appends_serves_reads_and_goes_on_when_there_is_room() {
    let (mut refused_at, root) = (BTreeSet::new(), Path::new(LOG_DIR));
    for room in (0..6000).step_by(97) {
        let mut bench = Bench::filled(room);
        let used: u64 = bench.disk.paths().iter().map(|path| bench.disk.contents(path).unwrap().len() as u64).sum();
        bench.disk.set_capacity(root, Some(used + room));
        let refusal = (0..ATTEMPTS_MAX).find_map(|_| bench.work().err()).expect("it is full at last");
        refused_at.insert(refusal.rsplit('/').next().unwrap_or_default().to_owned());
        for offset in 0..bench.log.end_offset() {
            assert!(matches!(bench.directory.read(&bench.tp, offset, 100).unwrap(), Read::Range { .. }));
        }
        bench.serve_again();
        bench.survives();
    }
    assert!(refused_at.len() >= 3, "it was full for data, indexes and checkpoints: {refused_at:?}");
}

#[test]
fn a_start_on_a_full_disk_changes_nothing_that_was_acknowledged() {
    let (mut opened, mut refused) = (0, 0);
    for room in (0..1500).step_by(50) {
        let mut bench = Bench::filled(room);
        let disk = bench.disk.restart();
        if room % 100 == 0 {
            // Such a start has indexes to write; one that takes the files as they are has not.
            disk.put(&Path::new(LOG_DIR).join(CACHE_MARK), b"");
            let remove = disk.remover();
            disk.paths()
                .iter()
                .filter(|path| path.extension().is_some_and(|kind| kind == "index"))
                .for_each(|path| remove(path));
        }
        let used: u64 = disk.paths().iter().map(|path| disk.contents(path).unwrap().len() as u64).sum();
        disk.set_capacity(Path::new(LOG_DIR), Some(used + room));
        match bench.start(disk.clone()) {
            Ok(()) => opened += 1,
            Err(_) => refused += 1,
        }
        disk.set_capacity(Path::new(LOG_DIR), None);
        bench.start(disk.restart()).unwrap();
        bench.holds();
        bench.survives();
    }
    assert!(opened > 0 && refused > 0, "{opened} opened, {refused} refused");
}

#[test]
fn reads_and_opens_that_fail_at_start_are_errors_and_the_next_start_finds_everything() {
    for nth in 1..40 {
        for fault in [Fault::Read(EIO), Fault::Open(EIO), Fault::Sync(EIO), Fault::SyncDirectory(EIO), Fault::Any(EIO)]
        {
            let mut bench = Bench::filled(nth);
            let disk = bench.disk.restart();
            disk.inject(fault.at(nth));
            let _ = bench.start(disk.clone());
            disk.heal();
            bench.start(disk.restart()).unwrap();
            bench.holds();
        }
    }
}

#[test]
fn a_failed_read_is_an_answer_and_the_next_one_is_right() {
    let mut bench = Bench::filled(1);
    bench.start(bench.disk.restart()).unwrap();
    for nth in 1..30 {
        bench.disk.paths().iter().for_each(|path| bench.disk.evict(path).unwrap());
        bench.disk.inject(Fault::Read(EIO).under(partition_directory(&bench.tp)).at(nth));
        for offset in 0..bench.log.end_offset() {
            let read = bench.directory.read(&bench.tp, offset, 100);
            assert!(matches!(read, Ok(Read::Range { .. } | Read::Io(_)) | Err(_)));
        }
        bench.disk.heal();
        bench.holds();
    }
}

#[test]
fn a_directory_that_vanishes_is_an_error_everywhere_and_all_is_there_when_it_is_back() {
    for kind in [ErrorKind::NotFound, EIO] {
        let mut bench = Bench::filled(5);
        bench.disk.inject(Fault::Any(kind).under(LOG_DIR).lasting());
        assert!(bench.append().is_err() && bench.flush().is_err());
        assert!(bench.directory.write_checkpoints(&bench.directory.checkpoints()).is_err());
        let read = bench.directory.read(&bench.tp, 0, 100);
        assert!(
            read.map_or(true, |read| matches!(read, Read::Io(_) | Read::Range { .. })),
            "an error, or what is open"
        );
        let disk = bench.disk.clone();
        assert!(bench.start(disk.clone()).is_err(), "nothing is made anew in its place");
        disk.heal();
        bench.start(disk.restart()).unwrap();
        bench.holds();
        bench.survives();
    }
}

#[test]
fn a_slow_directory_takes_its_share_of_the_simulated_time_and_another_one_does_not_wait_for_it() {
    let (world, disk) = (World::new(1), FakeDisk::new());
    let executor = world.executor();
    let platform = SimPlatform::new(&world, &executor, &disk);
    let takes = Duration::from_millis(50);
    disk.delay(Path::new("/slow"), Delay::For(takes));
    let start = world.now();
    let ended = Rc::new(RefCell::new(BTreeMap::new()));
    for path in ["/slow", "/fast"] {
        let (making, world, ended) =
            (platform.disk().create_directory(Path::new(path)), world.clone(), Rc::clone(&ended));
        executor.spawn(async move {
            making.await.expect("room for a directory");
            ended.borrow_mut().insert(path, world.now().since(start));
        });
    }
    world.run_until(|| ended.borrow().len() == 2);
    assert!(ended.borrow()["/slow"] >= takes && ended.borrow()["/fast"] < takes);
}
