//! The power goes after every change that a workload makes to its disk, in several ways, and what is left is opened.
//!
//! ```text
//!  seed -> workload: append, flush, roll, checkpoint, epoch, stop, kill, power cut, delete, retention, delete records,
//!            |       compact (directory.rs drives them)
//!            | every change of the disk
//!            v
//!          power cut, a few ways -> start on what is left -> held against what was appended (model.rs)
//!                                     | in a share of the cases
//!                                     v
//!                                   append more -> stop, kill or power cut -> start -> held against it again
//! ```
//! Now and then a kill takes the place of the power cut: then everything that was written must be there, and the page
//! cache's life goes on, in which the next process believes that it is.
//! Starts of the workload are watched like anything else, so recovery is cut too. A failure says seed, operation and
//! way; `scripts/power-cuts` cuts after more changes than the tests do, or again at one seed.

#![forbid(unsafe_code)]

pub mod directory;
pub mod model;
mod workload;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::ErrorKind;
use std::rc::Rc;

use self::directory::{Directory, Outcome, is_compacted, partition_directory};
use self::model::{BatchSizes, LogModel, Model, read_compacted, wanted};
use self::workload::Workload;
use super::disk::power_cut::{Dice, PowerCut};
use super::disk::tests::run;
use super::disk::{FakeDisk, Fault, Operation, Watch};
use crate::base::ids::{Offset, TopicId, TopicPartition};
use crate::partition::partition::LogCheckpoint;
use crate::storage::cache_mark;
use crate::storage::log::LogConfig;
use crate::storage::log::clean::planted;

/// Those of topic `c` are compacted.
const LOGS: [(&str, i32); 4] = [("a", 0), ("a", 1), ("b", 0), ("c", 0)];
/// Steps of one seed's workload.
const STEPS: usize = 80;
/// Ways in which the power goes after one change.
const WAYS_PER_CHANGE: usize = 2;
/// Changes after which the tests cut the power, all together, unless `RINGLOG_POWER_CUTS` says otherwise.
const CHANGES: u64 = 20_000;
/// The tests that share them.
const SHARES: u64 = 4;
/// Cut points within which a planted bug must show.
const CUT_POINTS_TO_CATCH_MAX: u64 = 10_000;

/// A bug to be caught: the driver does, or reports, one thing too early or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plant {
    /// The recovery point is written down, and what it covers is flushed then.
    CheckpointBeforeFlush,
    /// The clean-shutdown marker is written, and the logs are closed then.
    MarkerBeforeClose,
    /// What a flush will make durable is reported as durable when it begins.
    AcknowledgedBeforeSync,
    /// The checkpoint goes on saying the recovery point of a log that was deleted, and one of its name is made anew.
    RecoveryPointOutlivesItsLog,
    /// Compaction swaps its files in before they are synced.
    SwapBeforeSync,
    /// The mark of the page cache's life is believed, whatever life it names.
    WrittenBelievedAfterPowerCut,
    /// An index entry is written before its batch is.
    IndexBeforeAppend,
}

/// What ends a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Power(PowerCut),
    Kill,
}

/// The machine's disk after a stop in order or a kill, or after a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeps {
    Written,
    Flushed,
}

/// What all batches and segments of a seed are like.
struct Shape {
    config: LogConfig,
    sizes: BatchSizes,
    /// Of one write.
    batches_max: u64,
    /// A log with more is deleted, so that checks stay short.
    log_batches_max: usize,
    /// Of so many flushes one is of all of a log, the others only of closed segments.
    flushes_per_whole: u64,
}

impl Shape {
    fn of(seed: u64) -> Shape {
        let config = |segment_bytes, index_interval_bytes| LogConfig {
            segment_bytes,
            index_interval_bytes,
            segment_index_bytes: 64 << 10,
            ..LogConfig::default()
        };
        let sizes = |records_max, value_bytes_max| BatchSizes { records_max, value_bytes_max };
        // In every other group of seeds logs stay unflushed for long, as the page cache has it.
        let flushes_per_whole = if (seed / SHARES).is_multiple_of(2) { 1 } else { 12 };
        let shape = |config, sizes, batches_max, log_batches_max| Shape {
            config,
            sizes,
            batches_max,
            log_batches_max,
            flushes_per_whole,
        };
        match seed % 32 {
            // So many index entries that they are written in blocks between rolls.
            31 => shape(config(1 << 16, 0), sizes(1, 0), 300, 700),
            0 | 4 => shape(config(16 << 10, 1024), sizes(4, 1000), 5, 60),
            _ => shape(config(4096, 200), sizes(5, 150), 5, 60),
        }
    }
}

/// A cut after which something was wrong.
#[derive(Debug)]
struct Violation {
    seed: u64,
    /// Counts the changes of the seed's workload, from 1.
    change: u64,
    operation: Option<Operation>,
    /// `None`: the workload itself could not go on.
    way: Option<End>,
    what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { seed, change, operation, way, what } = self;
        let operation = operation.map_or("start", Operation::name);
        writeln!(f, "seed {seed}, operation {change} ({operation}), {way:?}: {what}")?;
        write!(f, "again: RINGLOG_SEED={seed} scripts/power-cuts {SHARES}")
    }
}

/// What the workload tells the watch, and the watch the workload.
struct Shared {
    seed: u64,
    config: LogConfig,
    model: RefCell<Model>,
    changes: Cell<u64>,
    cut_points: Cell<u64>,
    /// The first one.
    violation: RefCell<Option<Violation>>,
    /// For somebody who finds a panic.
    looking_at: Cell<Option<(Operation, End)>>,
}

impl Shared {
    /// Cuts the power after a change, and looks at what is left.
    fn changed(&self, disk: &FakeDisk, operation: Operation) {
        self.changes.set(self.changes.get() + 1);
        let mut dice = Dice(self.seed.wrapping_mul(0x9e37_79b9).wrapping_add(self.changes.get()));
        for _ in 0..WAYS_PER_CHANGE {
            if self.violation.borrow().is_some() {
                return;
            }
            let ways = PowerCut::ways(dice.next_u64());
            let way = ways.get(dice.below(ways.len() as u64 + 1) as usize).map_or(End::Kill, |way| End::Power(*way));
            self.looking_at.set(Some((operation, way)));
            let model = self.model.borrow().clone();
            let looked = match way {
                End::Power(way) => {
                    look(&disk.power_cut_by(way), &self.config, &model, &mut dice, (Keeps::Flushed, true))
                }
                End::Kill => look(&disk.restart(), &self.config, &model, &mut dice, (Keeps::Written, true)),
            };
            if let Err(what) = looked {
                self.found(what);
            }
            self.cut_points.set(self.cut_points.get() + 1);
            self.looking_at.set(None);
        }
    }

    fn found(&self, what: String) {
        let (operation, way) = self.looking_at.get().unzip();
        let (seed, change) = (self.seed, self.changes.get());
        self.violation.borrow_mut().get_or_insert(Violation { seed, change, operation, way, what });
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (seed, change, looking_at) = (self.seed, self.changes.get(), self.looking_at.get());
            eprintln!("panicked with seed {seed}, operation {change}, {looking_at:?}");
        }
    }
}

/// Starts on what is left of a disk, and holds it against what should be there: after a kill all that was written. `goes_on`: in a share of the cases more
/// is appended, the process ends, and the next one is looked at.
fn look(
    disk: &FakeDisk,
    config: &LogConfig,
    model: &Model,
    dice: &mut Dice,
    (keeps, goes_on): (Keeps, bool),
) -> Outcome<()> {
    if keeps == Keeps::Written {
        model.keys().try_for_each(|tp| Directory::check_written_point(disk, tp))?;
    }
    let mut directory = Directory::start(disk, config, wanted(model))?;
    let mut left = Model::new();
    for (tp, log) in model {
        directory.assign_epoch(tp, log.leader_epoch)?;
        let checked = match keeps {
            Keeps::Written => log.check_after_kill(&mut directory, tp, dice),
            Keeps::Flushed => log.check(&mut directory, tp, dice),
        };
        let found = checked.map_err(|wrong| format!("{tp}: {wrong}"))?;
        if !found.has_hole() {
            left.insert(tp.clone(), found);
        }
    }
    if !goes_on || dice.below(4) > 0 {
        return Ok(());
    }
    let sizes = BatchSizes { records_max: 3, value_bytes_max: 700 };
    for (tp, log) in &mut left {
        directory.write(tp)?;
        let (batches, epoch) = (log.new_batches(dice.below(4), sizes, dice), log.leader_epoch);
        directory.append(tp, batches, epoch, |batch, base_offset| log.staged(batch, base_offset))?;
        if dice.below(2) == 0 {
            log.flushed(directory.flush(tp)?);
        }
    }
    if dice.below(2) == 0 {
        directory.write_checkpoints(&directory.checkpoints())?;
    }
    let end = dice.below(3);
    let disk = match end {
        0 => {
            directory.stop()?;
            disk.restart()
        }
        1 => disk.restart(),
        _ => disk.power_cut(dice.next_u64()),
    };
    if end < 2 {
        left.values_mut().for_each(|log| log.flushed(log.end_offset()));
    }
    look(&disk, config, &left, dice, (Keeps::Flushed, false))
        .map_err(|wrong| format!("after it went on and ended (way {end}): {wrong}"))
}

/// Runs a seed to its end, or to the first violation.
fn run_seed(seed: u64, plant: Option<Plant>) -> Rc<Shared> {
    let shape = Shape::of(seed);
    let shared = Rc::new(Shared {
        seed,
        config: shape.config.clone(),
        model: RefCell::default(),
        changes: Cell::new(0),
        cut_points: Cell::new(0),
        violation: RefCell::default(),
        looking_at: Cell::default(),
    });
    let disk = FakeDisk::new().with_watch(watch(&shared));
    let directory = Directory::start(&disk, &shape.config, []).expect("an empty disk");
    let mut workload =
        Workload { shared: Rc::clone(&shared), shape, plant, dice: Dice(seed), directory, topics_made: 0 };
    workload.directory.indexes_first = plant == Some(Plant::IndexBeforeAppend);
    planted::SWAP_BEFORE_SYNC.set(plant == Some(Plant::SwapBeforeSync));
    cache_mark::planted::ANY_LIFE_BELIEVED.set(plant == Some(Plant::WrittenBelievedAfterPowerCut));
    for _ in 0..STEPS {
        if let Err(what) = workload.step() {
            shared.found(what);
        }
        if shared.violation.borrow().is_some() {
            break;
        }
    }
    planted::SWAP_BEFORE_SYNC.set(false);
    cache_mark::planted::ANY_LIFE_BELIEVED.set(false);
    shared
}

fn watch(shared: &Rc<Shared>) -> Watch {
    let shared = Rc::clone(shared);
    Rc::new(move |disk, operation| shared.changed(disk, operation))
}

fn number_from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Cuts the power after this share of the changes: every fourth seed.
fn every_cut_of_share(share: u64) {
    let wanted = number_from_environment("RINGLOG_POWER_CUTS").unwrap_or(CHANGES).div_ceil(SHARES);
    let first = number_from_environment("RINGLOG_SEED").unwrap_or(0) + share;
    let (mut cut_points, mut changes, mut seeds) = (0, 0, 0);
    while changes < wanted {
        let shared = run_seed(first + seeds * SHARES, None);
        if let Some(violation) = shared.violation.take() {
            panic!("{violation}");
        }
        cut_points += shared.cut_points.get();
        changes += shared.changes.get();
        seeds += 1;
    }
    println!("{changes} changes of {seeds} workloads, the power cut after each: {cut_points} cuts, from seed {first}");
}

#[test]
fn whatever_a_power_cut_leaves_is_a_prefix_with_all_that_was_flushed_first_share() {
    every_cut_of_share(0);
}

#[test]
fn whatever_a_power_cut_leaves_is_a_prefix_with_all_that_was_flushed_second_share() {
    every_cut_of_share(1);
}

#[test]
fn whatever_a_power_cut_leaves_is_a_prefix_with_all_that_was_flushed_third_share() {
    every_cut_of_share(2);
}

#[test]
fn whatever_a_power_cut_leaves_is_a_prefix_with_all_that_was_flushed_fourth_share() {
    every_cut_of_share(3);
}

#[track_caller]
fn assert_caught(plant: Plant) {
    let mut cut_points = 0;
    for seed in 0.. {
        let shared = run_seed(seed, Some(plant));
        cut_points += shared.cut_points.get();
        if let Some(violation) = shared.violation.take() {
            assert!(violation.way.is_some(), "{plant:?} was not seen after a power cut: {violation}");
            println!("{plant:?} after {cut_points} cut points: {violation}");
            return;
        }
        assert!(cut_points < CUT_POINTS_TO_CATCH_MAX, "{plant:?} was not caught by {cut_points} cut points");
    }
}

#[test]
fn a_recovery_point_written_before_its_flush_is_caught() {
    assert_caught(Plant::CheckpointBeforeFlush);
}

#[test]
fn a_clean_shutdown_marker_written_before_the_logs_are_closed_is_caught() {
    assert_caught(Plant::MarkerBeforeClose);
}

#[test]
fn an_offset_acknowledged_before_its_sync_is_caught() {
    assert_caught(Plant::AcknowledgedBeforeSync);
}

#[test]
fn a_recovery_point_that_outlives_its_log_is_caught() {
    assert_caught(Plant::RecoveryPointOutlivesItsLog);
}

#[test]
fn what_was_written_believed_to_be_there_after_a_power_cut_is_caught() {
    assert_caught(Plant::WrittenBelievedAfterPowerCut);
}

#[test]
fn an_index_entry_written_before_its_append_is_through_is_caught() {
    assert_caught(Plant::IndexBeforeAppend);
}

#[test]
fn a_compaction_that_swaps_its_files_in_before_they_are_synced_is_caught() {
    assert_caught(Plant::SwapBeforeSync);
}
