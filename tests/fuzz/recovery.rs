//! A whole partition's directory with damage in it: it opens to a log that holds together, or is refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use ringlog::base::ids::{Offset, TopicId, TopicPartition};
use ringlog::platform::Disk;
use ringlog::record::batch::decode_records;
use ringlog::sim::disk::FakeDisk;
use ringlog::storage::entry::Entry;
use ringlog::storage::log::{LastStop, Log, LogConfig, LogError, OpenLog, Read};
use ringlog::storage::log_dir::parse_directory_name;
use ringlog::storage::open_files::OpenFiles;

use crate::corpus;
use crate::harness::{Dice, Target, check, mutate};
use crate::records::mend_entries;

const DATA: &str = "/data";
/// Reads that a log of a few segments of a few batches may need, each of one step.
const READS_MAX: usize = 10_000;

/// Runs a future that nothing outside wakes.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return value;
        }
    }
}

/// A partition's directory, and how it was left.
#[derive(Clone, Debug)]
struct Directory {
    partition: TopicPartition,
    compacted: bool,
    files: BTreeMap<String, Vec<u8>>,
    last_stop: LastStop,
    /// Batches have right CRCs whatever was done to them.
    mended: bool,
}

impl Directory {
    fn disk(&self) -> FakeDisk {
        let disk = FakeDisk::new();
        let directory = Path::new(DATA).join(self.partition.to_string());
        self.files.iter().for_each(|(name, file)| disk.put(&directory.join(name), file));
        disk
    }

    fn open(&self, disk: &FakeDisk, last_stop: LastStop) -> Result<Log<FakeDisk>, LogError> {
        let config = LogConfig {
            segment_bytes: 1 << 20,
            segment_index_bytes: 4096,
            compacted: self.compacted,
            ..LogConfig::default()
        };
        run(Log::open(OpenLog {
            disk: disk.clone(),
            log_dir: PathBuf::from(DATA),
            topic_partition: self.partition.clone(),
            topic_id: TopicId::ZERO,
            config,
            last_stop,
            wall: 1_795_305_900_000,
            open_files: OpenFiles::new(4),
            progress: Arc::default(),
        }))
    }

    /// Whether everything in the log was checked when it was opened.
    fn is_checked(&self) -> bool {
        self.last_stop.unclean && self.last_stop.recovery_point == 0
    }
}

fn saved(name: &str) -> Directory {
    Directory {
        partition: parse_directory_name(name).expect("a partition's name"),
        compacted: name.starts_with("compacted"),
        files: corpus::partition(name),
        last_stop: LastStop::default(),
        mended: false,
    }
}

/// Damages some files, most often the first bytes of an index, most of which is empty.
fn damage(dice: &mut Dice, directory: &mut Directory, others: &[Vec<u8>]) {
    let names: Vec<String> = directory.files.keys().cloned().collect();
    for _ in 0..=dice.below(3) {
        let name = &names[dice.below(names.len())];
        let Some(file) = directory.files.get_mut(name) else { continue };
        match dice.below(12) {
            0 => {
                directory.files.remove(name);
            }
            1 => {
                let from = names[dice.below(names.len())].clone();
                if let Some(other) = directory.files.get(&from).cloned() {
                    directory.files.insert(name.clone(), other);
                }
            }
            _ => {
                let tail = match dice.below(4) {
                    0 => Vec::new(),
                    _ => file.split_off(file.len().min(128)),
                };
                mutate(dice, file, others);
                file.extend_from_slice(&tail);
                if directory.mended && name.contains(".log") {
                    mend_entries(file);
                }
            }
        }
    }
}

/// Reads all that the log has, as a consumer does; what is found must follow, and be valid if it was checked.
fn read_through(directory: &Directory, log: &mut Log<FakeDisk>, disk: &FakeDisk) {
    let is_checked = directory.is_checked();
    let mut next: Offset = log.log_start_offset();
    for _ in 0..READS_MAX {
        match log.read(next, 1 << 20, log.log_end_offset()) {
            Read::Range { range, .. } => {
                let bytes = range.file.bytes_at(range.position, range.length);
                let before = next;
                let mut rest = &bytes[..];
                while let Ok(entry) = Entry::parse(rest) {
                    let Some((whole, after)) = rest.split_at_checked(entry.bytes as usize) else { break };
                    if is_checked {
                        assert!(entry.is_valid(whole), "a batch at {} is not valid", entry.last_offset);
                        assert!(entry.last_offset >= next, "{} comes behind {next}", entry.last_offset);
                        assert!(entry.last_offset < log.log_end_offset(), "{} lies past the end", entry.last_offset);
                        if !directory.mended && whole[16] == 2 {
                            decode_records(whole, 1 << 20).expect("what has its CRC is what Kafka wrote");
                        }
                    }
                    next = next.max(entry.last_offset.saturating_add(1));
                    rest = after;
                }
                if next == before {
                    assert!(!is_checked, "nothing is read at {next}");
                    return;
                }
            }
            Read::NeedPages { file, position, length } => {
                run(disk.make_resident(&file, position, length)).expect("a sound disk");
            }
            Read::NeedSegment { base_offset } => {
                let loaded = run(log.load_segment(base_offset));
                if let Err(error) = log.finish_load_segment(loaded) {
                    assert!(!is_checked, "{error}");
                    return;
                }
            }
            Read::Empty => return,
            Read::OutOfRange => {
                assert!(!is_checked || next > log.log_end_offset(), "{next} is out of range");
                return;
            }
            Read::Io(error) => {
                assert!(!is_checked, "{error}");
                return;
            }
        }
    }
    panic!("a log that is never read to its end");
}

fn open_and_read(directory: &Directory) {
    let disk = directory.disk();
    let Ok(mut log) = directory.open(&disk, directory.last_stop) else { return };
    let (start, end) = (log.log_start_offset(), log.log_end_offset());
    assert!(start <= end, "{start} to {end}");
    read_through(directory, &mut log, &disk);
    let closed = run(log.close());
    if directory.is_checked() {
        closed.expect("what was recovered can be closed");
        let last_stop = LastStop { unclean: false, recovery_point: end, ..directory.last_stop };
        let mut again = match directory.open(&disk, last_stop) {
            Ok(again) => again,
            // A marker with a right CRC and no readable record, which no disk makes, is met only where the producer
            // snapshots do not cover it.
            Err(error) => {
                assert!(directory.mended, "what was closed can't be opened: {error}");
                return;
            }
        };
        assert_eq!((again.log_start_offset(), again.log_end_offset()), (start, end));
        read_through(directory, &mut again, &disk);
    }
}

#[test]
fn a_damaged_directory_opens_to_a_log_that_holds_together_or_is_refused() {
    let names =
        ["txn-0", "txn-open-0", "old-formats-0", "compacted-0", "codec-lz4-0", "deleted-records-0", "group-in-0"];
    let saved: Vec<Directory> = names.into_iter().map(saved).collect();
    let others: Vec<Vec<u8>> = saved[..3]
        .iter()
        .flat_map(|directory| directory.files.values())
        .map(|f| f[..f.len().min(256)].to_vec())
        .collect();
    let make = move |number: u64, dice: &mut Dice| {
        // The small ones more often.
        let place = dice.below(saved.len()).min(dice.below(saved.len()));
        let mut directory = saved[place].clone();
        let unclean = dice.below(4) > 0;
        let recovery_point = if dice.one_in(3) { dice.below(40) as i64 } else { 0 };
        let log_start_offset = if dice.one_in(4) { dice.below(40) as i64 } else { 0 };
        directory.last_stop = LastStop { unclean, recovery_point, log_start_offset, ..LastStop::default() };
        directory.mended = dice.one_in(2);
        if number > 20 {
            damage(dice, &mut directory, &others);
        }
        directory
    };
    check(Target {
        name: "recovery".into(),
        make: Box::new(make),
        body: Box::new(open_and_read),
        // The files themselves twice, and a chunk of each that is read.
        memory_max: Box::new(|directory| {
            (8 << 20) + 64 * directory.files.values().map(|file| file.len()).sum::<usize>()
        }),
    });
}
