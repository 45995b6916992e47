//! The checkpoint files of the log directories, written now and then from what all shards know, so that an unclean stop
//! need not read everything again (Kafka 3.9 `LogManager.checkpointLogRecoveryOffsets`, `ReplicaManager.checkpointHighWatermarks`).
//!
//! Each directory has a task of its own: one that hangs keeps no other's checkpoints from being written.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::base::class::Class;
use crate::base::ids::ShardId;
use crate::base::ids::{Offset, TopicPartition};
use crate::base::time::Monotonic;
use crate::executor::either;
use crate::local::{Local, Work};
use crate::partition::partition::LogCheckpoint;
use crate::platform::{Clock, Disk, Platform, Tasks};
use crate::storage::checkpoint::encode_offsets;
use crate::storage::log_dir::{self, LogDirError};
use crate::storage::log_dirs::{self, LogDir};

/// Bytes that became durable since the recovery points were written last, after which they are written before their time:
/// what an unclean stop reads again is about this much.
const FLUSHED_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// How often to look whether anything is due.
const TICK: Duration = Duration::from_millis(250);

/// How often a directory is asked for its free space.
const SPACE_INTERVAL: Duration = Duration::from_secs(1);

/// Asks one shard how far its logs are.
struct CheckpointsWork;

impl<P: Platform> Work<P> for CheckpointsWork {
    type Done = Vec<LogCheckpoint>;

    async fn execute(self, local: Rc<Local<P>>) -> Vec<LogCheckpoint> {
        let mut checkpoints = Vec::new();
        local.partitions.each(|partition| checkpoints.extend(partition.checkpoint())).await;
        checkpoints
    }
}

type Offsets = BTreeMap<TopicPartition, Offset>;

/// What was written last, by file: what has not changed is not written again.
#[derive(Debug, Default)]
struct Written {
    recovery_points: Option<Offsets>,
    log_start_offsets: Option<Offsets>,
    high_watermarks: Option<Offsets>,
    cleaner_offsets: Option<Offsets>,
}

/// A task for the life of the shard that does it for all: keeps the checkpoints of one directory, until that is offline.
pub async fn keep<P: Platform>(log_dir: usize, local: Rc<Local<P>>) {
    keep_while_online(log_dir, &local).await;
    local.log_dirs.all()[log_dir].refuse_rewrites();
}

async fn keep_while_online<P: Platform>(log_dir: usize, local: &Rc<Local<P>>) {
    let clock = local.platform.clock();
    let millis = |ms: u64| Duration::from_millis(ms);
    let config = &local.config;
    let recovery_interval = millis(config.log_flush_offset_checkpoint_interval_ms);
    let start_interval = millis(config.log_flush_start_offset_checkpoint_interval_ms);
    let high_watermark_interval = millis(config.replica_high_watermark_checkpoint_interval_ms);
    let tick = TICK.min(recovery_interval).min(high_watermark_interval);
    let mut high_watermark_due = clock.now() + high_watermark_interval;
    let (mut recovery_due, mut start_due) = (clock.now() + recovery_interval, clock.now() + start_interval);
    let mut written = Written::default();
    let mut flushed_bytes = 0;
    let directory = &local.log_dirs.all()[log_dir];
    loop {
        let mut asked = Vec::new();
        match either(directory.rewrites().recv(), clock.sleep_until(clock.now() + tick)).await {
            Ok(Ok(request)) => asked.push(request),
            Ok(Err(_)) => return,
            Err(()) => {}
        }
        asked.extend(std::iter::from_fn(|| directory.rewrites().try_recv().ok()));
        if !local.log_dirs.is_loaded() {
            // What is not opened yet would be missing in them. When all is open they are written at once.
            continue;
        }
        if directory.is_offline() {
            return;
        }
        let is_due = |due: &mut Monotonic, interval: Duration| {
            let now = clock.now();
            let passed = now >= *due;
            if passed {
                *due = now + interval;
            }
            passed
        };
        let flushed_now = directory.flushed_bytes();
        let which = Which {
            recovery_points: is_due(&mut recovery_due, recovery_interval)
                | (flushed_now >= flushed_bytes + FLUSHED_BYTES_MAX)
                | !asked.is_empty(),
            log_start_offsets: is_due(&mut start_due, start_interval) | !asked.is_empty(),
            // Also when asked: a log that is to be cut must not find itself there again, filled by another leader.
            high_watermarks: is_due(&mut high_watermark_due, high_watermark_interval) | !asked.is_empty(),
        };
        if !which.recovery_points && !which.log_start_offsets && !which.high_watermarks {
            continue;
        }
        if which.recovery_points {
            flushed_bytes = flushed_now;
        }
        let shards = (0..local.config.shards).map(|shard| (ShardId(shard), CheckpointsWork));
        let Some(checkpoints) = local.ask_all(Class::Control, shards).await else { return };
        let mut checkpoints: Vec<_> = checkpoints.into_iter().flatten().filter(|log| log.log_dir == log_dir).collect();
        checkpoints.extend(of_unknown(log_dir, directory));
        let files = changed_files(local, checkpoints, which, &mut written).await;
        if let Err(error) = write(local.platform.disk(), &directory.path, files).await {
            // What the files hold is not known: all of them are written next time.
            written = Written::default();
            tracing::error!(%error, "the checkpoints could not be written; a crash will read more of the logs again");
            if let LogDirError::Io { source, .. } = &error
                && log_dirs::is_fatal(source)
            {
                local.log_dirs.fail(log_dir, &error);
                return;
            }
            // Whoever asked sees that it was not done.
            continue;
        }
        for request in asked {
            // Whoever asked may be gone.
            let _ = request.send(());
        }
    }
}

/// Of the logs in a directory that the metadata does not know.
pub fn of_unknown(log_dir: usize, directory: &LogDir) -> impl Iterator<Item = LogCheckpoint> + use<> {
    let unknown = directory.unknown().into_iter();
    unknown.map(move |(topic_partition, last_stop)| LogCheckpoint::kept(topic_partition, log_dir, last_stop))
}

/// A task for the life of the shard that does it for all: knows how much room a directory has.
pub async fn watch_space<P: Platform>(log_dir: usize, local: Rc<Local<P>>) {
    let clock = local.platform.clock();
    let directory = &local.log_dirs.all()[log_dir];
    while !directory.is_offline() {
        match local.platform.disk().space(&directory.path).await {
            Ok(space) => local.log_dirs.set_space(log_dir, space),
            Err(error) if log_dirs::is_fatal(&error) => local.log_dirs.fail(log_dir, &error),
            Err(error) => tracing::warn!(directory = %directory.path.display(), %error, "free space is not known"),
        }
        clock.sleep_until(clock.now() + SPACE_INTERVAL).await;
    }
}

/// Which files to write.
#[derive(Clone, Copy)]
struct Which {
    recovery_points: bool,
    log_start_offsets: bool,
    high_watermarks: bool,
}

/// Name and content of a checkpoint that has changed.
type ChangedFile = (&'static str, Vec<u8>);

/// The files to write, and in `written` what they say then. Made by a work thread: of many logs it takes milliseconds.
async fn changed_files<P: Platform>(
    local: &Rc<Local<P>>,
    checkpoints: Vec<LogCheckpoint>,
    which: Which,
    written: &mut Written,
) -> Vec<ChangedFile> {
    let (platform, checkpoints) = (&local.platform, Arc::new(checkpoints));
    loop {
        let (checkpoints, mut before) = (Arc::clone(&checkpoints), std::mem::take(written));
        let made = platform.tasks().work(move || {
            let files = before.change(&checkpoints, which);
            (files, before)
        });
        if let Some((files, now)) = made.await {
            *written = now;
            return files;
        }
        // The work threads have too much to do.
        platform.clock().sleep_until(platform.clock().now() + TICK).await;
    }
}

impl Written {
    /// The files that do not say yet what these checkpoints do.
    fn change(&mut self, checkpoints: &[LogCheckpoint], which: Which) -> Vec<ChangedFile> {
        let offsets = |of: fn(&LogCheckpoint) -> Option<Offset>| -> Offsets {
            checkpoints.iter().filter_map(|log| Some((log.topic_partition.clone(), of(log)?))).collect()
        };
        let mut files = Vec::new();
        let mut change = |name, offsets: Offsets, written: &mut Option<Offsets>| {
            if written.as_ref() != Some(&offsets) {
                files.push((name, encode_offsets(&offsets)));
                *written = Some(offsets);
            }
        };
        if which.recovery_points {
            let offsets = offsets(|log| Some(log.recovery_point));
            change(log_dir::RECOVERY_POINTS, offsets, &mut self.recovery_points);
        }
        if which.log_start_offsets {
            // Kafka 3.9 `LogManager.checkpointLogStartOffsetsInDir`: only where the files do not say it.
            let offsets = offsets(|log| Some(log.log_start_offset).filter(|start| *start > log.first_segment_offset));
            change(log_dir::LOG_START_OFFSETS, offsets, &mut self.log_start_offsets);
        }
        if which.high_watermarks {
            let offsets = offsets(|log| Some(log.high_watermark));
            change(log_dir::HIGH_WATERMARKS, offsets, &mut self.high_watermarks);
        }
        // Who has cleaned a log asks for it; it is looked at with each of the others.
        change(log_dir::CLEANER_OFFSETS, offsets(|log| log.cleaned_to), &mut self.cleaner_offsets);
        files
    }
}

/// Replaces all four files of a directory from the checkpoints of its logs; durable on `Ok`.
pub async fn write_all<D: Disk>(disk: &D, log_dir: &Path, checkpoints: &[LogCheckpoint]) -> Result<(), LogDirError> {
    let which = Which { recovery_points: true, log_start_offsets: true, high_watermarks: true };
    write(disk, log_dir, Written::default().change(checkpoints, which)).await
}

async fn write<D: Disk>(disk: &D, log_dir: &Path, files: Vec<ChangedFile>) -> Result<(), LogDirError> {
    for (name, data) in files {
        log_dir::write_checkpoint(disk, log_dir, name, data).await?;
    }
    Ok(())
}
