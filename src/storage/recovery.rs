//! From a directory to a log (Kafka 3.9 `LogLoader`).
//!
//! | last stop | segments below the recovery point | the one that holds it, and those behind |
//! |---|---|---|
//! | clean | taken as they are; of the last one, what lies behind its last index entry is walked over, and must fit the indexes | none |
//! | unclean, the page cache lives | taken as they are | taken as they are but for the end of the last one (`written`) |
//! | unclean | taken as they are | every batch checked, indexes and producer state made anew (`check`, `replay`) |
//!
//! Of the segment that holds the recovery point only what lies behind the last index entry before it is looked at. A
//! segment without a sound index is checked whole.
//!
//! What lies below the recovery point, and all of it after a clean stop, is durable. Damage there is nothing that a crash
//! explains: the log is not opened, and nothing is changed or removed. Damage past it is: the first batch that is torn, or
//! whose offsets do not follow, ends the log. It and what lies behind it in its file is cut off; the segments behind are
//! set aside as `.deleted`, since their offsets no longer follow. The same holds for the segments behind one that has lost
//! its tail, which shows by missing offsets; a compacted log may miss some.
//!
//! What a deletion or a compaction left over is settled first (`files`).

#![forbid(unsafe_code)]

mod check;
mod durable;
mod files;
mod finish;
mod replay;
mod times;
pub(crate) mod written;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use crate::base::ids::{Offset, TopicId, TopicPartition};
use crate::base::time::WallMs;
use crate::metrics::RecoveryProgress;
use crate::platform::{Disk, DiskFile};
use crate::storage::checkpoint::CheckpointError;
use crate::storage::entry::Entry;
use crate::storage::leader_epoch::LeaderEpochs;
use crate::storage::log::{LEADER_EPOCH_CHECKPOINT, LastStop, Log, LogConfig, LogError, OpenLog, PARTITION_METADATA};
use crate::storage::log_dir::RECOVERY_POINTS;
use crate::storage::offset_index::relative_offset;
use crate::storage::open_files::OpenFiles;
use crate::storage::segment::{ActiveSegment, BASE_OFFSET_MAX, ClosedSegment, LOG, SNAPSHOT};
use crate::storage::transaction_index::TransactionIndex;

use check::{Checked, Start};
pub(super) use files::{CLEANED_SUFFIX, Directory, Files, SEGMENT_FILES, SWAP_SUFFIX};
pub(super) use replay::Replay;
pub(super) use times::Timed;

pub(super) const SMALL_FILE_BYTES_MAX: usize = 4096;
pub(super) const EPOCH_CHECKPOINT_BYTES_MAX: usize = 16 << 20;

/// A log under construction.
struct Recovery<D: Disk> {
    directory: Directory<D>,
    topic_partition: TopicPartition,
    config: LogConfig,
    last_stop: LastStop,
    /// All below is durable: the recovery point, or everything after a clean stop.
    durable_end: Offset,
    wall: WallMs,
    open_files: Rc<OpenFiles>,
    work: Work,
    files: Files,
    epochs: LeaderEpochs,
    closed: BTreeMap<Offset, ClosedSegment<D::File>>,
    /// Files to remove when all is well: indexes without their log, snapshots that are damaged or of what is gone.
    useless: Vec<PathBuf>,
    /// Files changed: a stop in order has something to make durable.
    changed: bool,
    /// A name was made or removed and is not durable yet.
    has_new_name: bool,
}

/// What this log has to check, as the shared progress shows it: at the end all of it is done, or was given up.
struct Work {
    progress: Arc<RecoveryProgress>,
    bytes_announced: u64,
    bytes_done: u64,
}

impl Work {
    fn announce(&mut self, bytes: u64) {
        self.bytes_announced += bytes;
        self.progress.bytes_total.add(bytes);
    }

    fn done(&mut self, bytes: u64) {
        self.bytes_done += bytes;
        self.progress.bytes_done.add(bytes);
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.progress.bytes_done.add(self.bytes_announced.saturating_sub(self.bytes_done));
    }
}

/// See [`Log::open`].
pub(super) async fn open<D: Disk>(what: OpenLog<D>) -> Result<Log<D>, LogError> {
    let progress = Arc::clone(&what.progress);
    let opened = open_log(what).await;
    progress.logs_done.add(1);
    opened
}

async fn open_log<D: Disk>(what: OpenLog<D>) -> Result<Log<D>, LogError> {
    let OpenLog { disk, log_dir, topic_partition, topic_id, config, last_stop, wall, open_files, progress } = what;
    let directory = Directory { disk, path: log_dir.join(topic_partition.to_string()) };
    let log_start_offset = last_stop.log_start_offset.clamp(0, BASE_OFFSET_MAX);
    let config = LogConfig { compacted: config.compacted || last_stop.cleaned_to.is_some(), ..config };
    let last_stop = LastStop { log_start_offset, ..last_stop };
    let (entries, is_new) = match directory.disk.list(&directory.path).await {
        Ok(entries) => (entries, false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (Vec::new(), true),
        Err(error) => return Err(LogError::io_at(&directory.path)(error)),
    };
    directory.refuse_broken_links(&entries)?;
    let found_id = if is_new { None } else { read_topic_id(&directory, topic_id).await? };
    let (files, orphans, changed) = directory.settle(entries).await?;
    directory.give_back_blocks(&files).await?;
    let mut recovery = Recovery {
        directory,
        topic_partition,
        config,
        last_stop,
        durable_end: if last_stop.unclean { last_stop.recovery_point } else { Offset::MAX },
        wall,
        open_files,
        work: Work { progress, bytes_announced: 0, bytes_done: 0 },
        files,
        epochs: LeaderEpochs::default(),
        closed: BTreeMap::new(),
        useless: orphans,
        changed: changed || is_new,
        has_new_name: changed,
    };
    if recovery.files.logs.is_empty() {
        recovery.must_be_empty()?;
    }
    if is_new {
        let path = &recovery.directory.path;
        recovery.directory.disk.create_directory(path).await.map_err(LogError::io_at(path))?;
    }
    let epochs_file = if is_new { None } else { recovery.read_epochs().await? };
    let (active, replay) = recovery.load_segments().await?;
    // After the first segment: writing the id makes the names of both durable.
    let topic_id = match found_id {
        Some(found) => found,
        None => recovery.write_topic_id(topic_id).await?,
    };
    recovery.finish(active, replay, topic_id, epochs_file).await
}

impl<D: Disk> Recovery<D> {
    /// Makes `partition.metadata`, unless no id is known.
    async fn write_topic_id(&mut self, topic_id: TopicId) -> Result<TopicId, LogError> {
        if topic_id != TopicId::ZERO {
            let path = self.directory.path.join(PARTITION_METADATA);
            let text = format!("version: 0\ntopic_id: {topic_id}");
            self.directory.disk.replace(&path, text.into_bytes()).await.map_err(LogError::io_at(&path))?;
            self.has_new_name = false;
        }
        Ok(topic_id)
    }

    /// Gives the file as it is; `None` if there is none.
    async fn read_epochs(&mut self) -> Result<Option<Vec<u8>>, LogError> {
        let path = self.directory.path.join(LEADER_EPOCH_CHECKPOINT);
        let file = match self.directory.disk.read_whole(&path, EPOCH_CHECKPOINT_BYTES_MAX).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LogError::io_at(&path)(error)),
        };
        let malformed = |error: CheckpointError| LogError::Malformed { path: path.clone(), reason: error.to_string() };
        self.epochs = LeaderEpochs::parse(&file).map_err(malformed)?;
        Ok(Some(file))
    }

    /// Loads all segments; the last one, or the one that turned out torn, is the active one. After an unclean stop also
    /// gives the producer state at its end.
    async fn load_segments(&mut self) -> Result<(ActiveSegment<D::File>, Option<Replay>), LogError> {
        let bases: Vec<_> = self.files.logs.keys().copied().collect();
        let Some(last) = bases.last().copied() else {
            return Ok((self.new_segment(self.last_stop.log_start_offset).await?, None));
        };
        let durable_count = match self.last_stop.unclean {
            true => bases.partition_point(|base| *base <= self.durable_end).saturating_sub(1),
            false => bases.len() - 1,
        };
        for base_offset in &bases[..durable_count] {
            let closed = self.load_closed(*base_offset).await?;
            self.closed.insert(*base_offset, closed);
        }
        let (active, replay) = match self.last_stop.unclean {
            true => self.load_unclean(&bases[durable_count..], last).await?,
            false => (self.load_last(last).await?, None),
        };
        // Kafka starts anew at the log start if nothing at or past it is left.
        match end_offset(&active) >= self.last_stop.log_start_offset {
            true => Ok((active, replay)),
            false => Ok((self.start_anew().await?, None)),
        }
    }

    /// A segment's transaction index, empty if there is no such file; `None` if it is damaged.
    async fn transaction_index(&self, base_offset: Offset) -> Result<Option<TransactionIndex>, LogError> {
        match self.files.transaction_indexes.contains_key(&base_offset) {
            true => self.directory.transaction_index(base_offset).await,
            false => Ok(Some(TransactionIndex::default())),
        }
    }

    /// Checks the whole of a durable segment, whose indexes are not as they should be.
    async fn check_durable(&mut self, base_offset: Offset) -> Result<ActiveSegment<D::File>, LogError> {
        self.work.announce(self.files.logs.get(&base_offset).copied().unwrap_or(0));
        let next_base = self.files.logs.range(base_offset + 1..).next().map(|(base_offset, _)| *base_offset);
        let checked = match self.transaction_index(base_offset).await? {
            Some(transactions) => {
                let start = Start::of_whole(transactions);
                self.check(base_offset, next_base, start, None).await?
            }
            None => {
                let mut replay = self.begin_replay(base_offset).await?;
                replay.run(&self.directory, &self.files.logs, base_offset).await?;
                self.check(base_offset, next_base, Start::default(), Some(&mut replay)).await?
            }
        };
        Ok(checked.active)
    }

    /// The segments from the one that holds the recovery point on: taken as they are where all that was written must be
    /// there, and is; else checked.
    async fn load_unclean(
        &mut self,
        bases: &[Offset],
        last: Offset,
    ) -> Result<(ActiveSegment<D::File>, Option<Replay>), LogError> {
        if self.last_stop.cache_survived
            && let Some((active, replay)) = self.load_written(bases, last).await?
        {
            return Ok((active, Some(replay)));
        }
        self.check_segments(bases).await
    }

    /// Checks segments from the one that holds the recovery point on.
    async fn check_segments(&mut self, bases: &[Offset]) -> Result<(ActiveSegment<D::File>, Option<Replay>), LogError> {
        let (mut start, mut replay) = self.begin_check(bases[0]).await?;
        let mut next_bases = bases.iter().skip(1).copied();
        let mut base_offset = bases[0];
        loop {
            let next_base = next_bases.next();
            let Checked { active, is_torn } =
                self.check(base_offset, next_base, std::mem::take(&mut start), Some(&mut replay)).await?;
            let next_base = match next_base {
                Some(next_base) if !is_torn && self.is_joined(&active, next_base) => next_base,
                _ => {
                    self.set_aside_segments_behind(base_offset).await?;
                    return Ok((active, Some(replay)));
                }
            };
            let mut closed = self.close_checked(active, false).await?;
            closed.unsynced.push(self.write_snapshot(next_base, &replay).await?);
            self.closed.insert(base_offset, closed);
            base_offset = next_base;
        }
    }

    /// Announces what there is to check from this segment on, and brings the producer state to where that begins.
    async fn begin_check(&mut self, base_offset: Offset) -> Result<(Start, Replay), LogError> {
        let length = self.files.logs.get(&base_offset).copied().unwrap_or(0);
        let start = self.start_of(base_offset, length).await?;
        let behind: u64 = self.files.logs.range(base_offset..).map(|(_, length)| *length).sum();
        self.work.announce(behind.saturating_sub(start.position));
        // A snapshot behind the start leaves the transactions before it to the index, which must be sound then.
        let snapshot_max = if start.has_transactions { self.durable_end.max(base_offset) } else { base_offset };
        let mut replay = self.begin_replay(snapshot_max).await?;
        replay.run(&self.directory, &self.files.logs, start.offset.unwrap_or(base_offset)).await?;
        let beyond = self.files.snapshots.split_off(&replay.snapshot.map_or(0, |offset| offset + 1));
        self.useless.extend(beyond.iter().map(|offset| self.directory.path_of(*offset, SNAPSHOT)));
        Ok((start, replay))
    }

    async fn begin_replay(&mut self, snapshot_max: Offset) -> Result<Replay, LogError> {
        let expiry = (self.wall, self.config.producer_id_expiration_ms);
        let start_offset = self.last_stop.log_start_offset;
        let (replay, damaged) =
            Replay::begin(&self.directory, &self.files.snapshots, snapshot_max, start_offset, expiry).await?;
        for offset in damaged {
            self.files.snapshots.remove(&offset);
            self.useless.push(self.directory.path_of(offset, SNAPSHOT));
        }
        Ok(replay)
    }

    /// The producer state at the base of a checked segment's successor, as a roll writes it.
    async fn write_snapshot(&mut self, offset: Offset, replay: &Replay) -> Result<Arc<D::File>, LogError> {
        let path = self.directory.path_of(offset, SNAPSHOT);
        self.useless.retain(|useless| *useless != path);
        self.files.snapshots.insert(offset);
        let (file, _) = self.directory.open(offset, SNAPSHOT).await?;
        let snapshot = replay.producers.encode_snapshot();
        self.directory.disk.set_length(&file, 0).await.map_err(LogError::io_at(&path))?;
        self.directory.disk.write(&file, 0, snapshot).await.map_err(LogError::io_at(&path))?;
        Ok(file)
    }

    /// Whether the next segment goes on where this one ends. A compacted log may miss offsets in between.
    fn is_joined(&self, active: &ActiveSegment<D::File>, next_base: Offset) -> bool {
        let end = end_offset(active);
        let is_joined = end == next_base || (end < next_base && self.config.compacted);
        if !is_joined {
            let path = self.directory.path_of(active.base_offset, LOG);
            tracing::warn!(file = %path.display(), end, next_base, "the next segment does not go on where this one ends");
        }
        is_joined
    }

    /// Refuses a segment whose batches are whole, but which misses durable ones at its end.
    fn must_go_on(&self, active: &ActiveSegment<D::File>, next_base: Option<Offset>) -> Result<(), LogError> {
        let (end, recovery_point) = (end_offset(active), self.last_stop.recovery_point);
        let durable_end = match next_base {
            None => recovery_point,
            // The segment that holds the recovery point: those before it are believed.
            Some(next_base) if next_base > recovery_point && !self.config.compacted => recovery_point,
            Some(_) => return Ok(()),
        };
        let path = self.directory.path_of(active.base_offset, LOG);
        self.refuse_damage(&path, active.size, end, durable_end, "the segment ends")
    }

    fn must_be_empty(&self) -> Result<(), LogError> {
        let LastStop { recovery_point, log_start_offset, .. } = self.last_stop;
        self.refuse_damage(&self.directory.path, 0, log_start_offset, recovery_point, "there is no segment")
    }

    fn must_be_lost_in_a_crash(&self, path: &Path, position: u64, offset: Offset, found: &str) -> Result<(), LogError> {
        self.refuse_damage(path, position, offset, self.durable_end, found)
    }

    /// Refuses to go on if what should be at `offset` was durable, unless all of that is below the log start.
    fn refuse_damage(
        &self,
        path: &Path,
        position: u64,
        offset: Offset,
        durable_end: Offset,
        found: &str,
    ) -> Result<(), LogError> {
        if offset >= durable_end || durable_end <= self.last_stop.log_start_offset {
            return Ok(());
        }
        let durable = match durable_end {
            Offset::MAX => "the log was closed in order".to_owned(),
            recovery_point => format!("all below the recovery point {recovery_point} was durable"),
        };
        let reason = format!(
            "at position {position}, offset {offset}: {found}, although {durable}. No crash explains that; nothing was \
             changed. To go on with what lies before, stop the broker, remove the line of {} from {RECOVERY_POINTS}, and \
             start it: then the whole log is checked, and cut there",
            self.topic_partition
        );
        Err(LogError::Malformed { path: path.to_owned(), reason })
    }

    async fn new_segment(&mut self, base_offset: Offset) -> Result<ActiveSegment<D::File>, LogError> {
        self.changed = true;
        self.has_new_name = true;
        let (file, _) = self.directory.open(base_offset, LOG).await?;
        Ok(ActiveSegment::new(base_offset, file, &self.open_files, &self.config, self.wall))
    }

    async fn start_anew(&mut self) -> Result<ActiveSegment<D::File>, LogError> {
        let log_start_offset = self.last_stop.log_start_offset;
        tracing::warn!(directory = %self.directory.path.display(), log_start_offset, "log ends before its start; emptied");
        self.set_aside_segments_behind(Offset::MIN).await?;
        self.closed.clear();
        self.epochs = LeaderEpochs::default();
        let snapshots = std::mem::take(&mut self.files.snapshots);
        self.useless.extend(snapshots.iter().map(|offset| self.directory.path_of(*offset, SNAPSHOT)));
        self.new_segment(log_start_offset).await
    }

    /// The newest first: a crash in between leaves segments that follow one another.
    async fn set_aside_segments_behind(&mut self, base_offset: Offset) -> Result<(), LogError> {
        let behind = self.files.logs.split_off(&base_offset.saturating_add(1));
        for base_offset in behind.into_keys().rev() {
            tracing::warn!(directory = %self.directory.path.display(), base_offset, "segment behind the log end set aside");
            self.directory.set_aside(base_offset).await?;
            self.files.snapshots.remove(&base_offset);
            self.files.transaction_indexes.remove(&base_offset);
            (self.changed, self.has_new_name) = (true, true);
        }
        Ok(())
    }
}

/// Whether an entry's offsets are behind those before it, and such that the segment's indexes can hold them.
fn follows<F: DiskFile>(active: &ActiveSegment<F>, entry: &Entry) -> bool {
    entry.base_offset >= end_offset(active) && relative_offset(active.base_offset, entry.last_offset).is_some()
}

/// The offset behind the segment's last batch.
pub(super) fn end_offset<F: DiskFile>(active: &ActiveSegment<F>) -> Offset {
    active.last_place().map_or(active.base_offset, |place| place.last_offset + 1)
}

/// The topic id of `partition.metadata`; `None` if there is no such file. An expected id of zero accepts any.
async fn read_topic_id<D: Disk>(directory: &Directory<D>, expected: TopicId) -> Result<Option<TopicId>, LogError> {
    let path = directory.path.join(PARTITION_METADATA);
    let file = match directory.disk.read_whole(&path, SMALL_FILE_BYTES_MAX).await {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(LogError::io_at(&path)(error)),
    };
    let malformed = || LogError::Malformed { path: path.clone(), reason: "no topic id of version 0".into() };
    let found = parse_partition_metadata(&file).ok_or_else(malformed)?;
    match found == expected || expected == TopicId::ZERO {
        true => Ok(Some(found)),
        false => Err(LogError::InconsistentTopicId { path, found, expected }),
    }
}

pub(super) fn parse_partition_metadata(file: &[u8]) -> Option<TopicId> {
    let text = std::str::from_utf8(file).ok()?;
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    (field("version:") == Some("0")).then_some(())?;
    TopicId::parse(field("topic_id:")?)
}
