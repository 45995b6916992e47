//! From a directory to a log (Kafka 3.9 `LogLoader`).
//!
//! | last stop | closed segments | last segment |
//! |---|---|---|
//! | clean | taken as they are | read from its last index entry on |
//! | unclean, below the recovery point | taken as they are | - |
//! | unclean, from the segment with the recovery point on | every batch checked, indexes made anew | the same |
//!
//! The first batch that is torn, or out of order, ends the log: it and what lies behind it in its file is cut off, and the
//! segments behind are removed, since their offsets no longer follow. A closed segment without a sound index is checked
//! too. A compaction that was interrupted while swapping files in refuses to open: only the cleaner that did it can say
//! which files count.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::ids::{Offset, TopicId, TopicPartition};
use crate::base::time::WallMs;
use crate::platform::{DirectoryEntry, Disk, OpenMode};
use crate::record::batch::{BatchHeader, decode_records};
use crate::storage::entry::{Entry, Scanned, Scanner};
use crate::storage::leader_epoch::LeaderEpochs;
use crate::storage::log::{
    LEADER_EPOCH_CHECKPOINT, LastStop, Log, LogConfig, LogError, OpenLog, PARTITION_METADATA, Run,
};
use crate::storage::offset_index::{ENTRY_BYTES, OffsetIndex, relative_offset};
use crate::storage::producer_state::{ProducerState, SNAPSHOT_BYTES_MAX};
use crate::storage::segment::{
    ActiveSegment, BASE_OFFSET_MAX, ClosedSegment, INDEX_FILE_BYTES_MAX, LOG, OFFSET_INDEX, SNAPSHOT, TIME_INDEX,
    TRANSACTION_INDEX, WrittenBatch, parse_segment_name, segment_path,
};
use crate::storage::time_index::TimeIndex;

const SMALL_FILE_BYTES_MAX: usize = 4096;
const EPOCH_CHECKPOINT_BYTES_MAX: usize = 16 << 20;
/// What a transaction marker's records may take; they are a few bytes and never compressed.
const MARKER_BYTES_MAX: usize = 4096;

/// The directory's files, by what they are.
#[derive(Debug, Default)]
struct Files {
    /// Base offset and bytes of each `.log`.
    logs: BTreeMap<Offset, u64>,
    /// Bytes of each `.index`.
    offset_indexes: BTreeMap<Offset, u64>,
    time_indexes: BTreeMap<Offset, u64>,
    snapshots: BTreeSet<Offset>,
    /// Removed at open: `.deleted` ones, and indexes without their log.
    useless: Vec<String>,
}

impl Files {
    fn sort(directory: &Path, entries: Vec<DirectoryEntry>) -> Result<Files, LogError> {
        let mut files = Files::default();
        let is_log = |entry: &&DirectoryEntry| !entry.is_directory && parse_segment_name(&entry.name).is_some();
        for entry in entries.iter().filter(is_log) {
            let Some((base_offset, extension)) = parse_segment_name(&entry.name) else { continue };
            match extension {
                LOG => {
                    files.logs.insert(base_offset, entry.length);
                }
                OFFSET_INDEX => {
                    files.offset_indexes.insert(base_offset, entry.length);
                }
                TIME_INDEX => {
                    files.time_indexes.insert(base_offset, entry.length);
                }
                SNAPSHOT => {
                    files.snapshots.insert(base_offset);
                }
                _ if extension.ends_with(".deleted") => files.useless.push(entry.name.clone()),
                _ if extension.ends_with(".swap") => {
                    let reason = "a compaction was interrupted while swapping files in; start Kafka 3.9 on this \
                                  directory once, and stop it in order";
                    return Err(LogError::Malformed { path: directory.join(&entry.name), reason: reason.into() });
                }
                _ => {}
            }
        }
        for entry in &entries {
            if let Some((base_offset, OFFSET_INDEX | TIME_INDEX)) = parse_segment_name(&entry.name)
                && !files.logs.contains_key(&base_offset)
            {
                files.useless.push(entry.name.clone());
            }
        }
        Ok(files)
    }

    fn has_sound_index(&self, base_offset: Offset) -> bool {
        self.offset_indexes.get(&base_offset).is_some_and(|bytes| bytes.is_multiple_of(ENTRY_BYTES as u64))
    }
}

/// A log under construction.
struct Recovery<D: Disk> {
    disk: D,
    directory: PathBuf,
    config: LogConfig,
    last_stop: LastStop,
    wall: WallMs,
    files: Files,
    epochs: LeaderEpochs,
    closed: BTreeMap<Offset, ClosedSegment<D::File>>,
    /// Files changed: a stop in order has something to make durable.
    changed: bool,
    /// Names changed that a crash must not change back: a segment was made, or one went whose offsets are given anew.
    has_new_names: bool,
}

/// See [`Log::open`].
pub(super) async fn open<D: Disk>(what: OpenLog<D>) -> Result<Log<D>, LogError> {
    let progress = Arc::clone(&what.progress);
    let opened = open_log(what).await;
    progress.logs_done.add(1);
    opened
}

async fn open_log<D: Disk>(what: OpenLog<D>) -> Result<Log<D>, LogError> {
    let OpenLog { disk, log_dir, topic_partition, topic_id, config, last_stop, wall, .. } = what;
    let directory = log_dir.join(topic_partition.to_string());
    let log_start_offset = last_stop.log_start_offset.clamp(0, BASE_OFFSET_MAX);
    let last_stop = LastStop { log_start_offset, ..last_stop };
    let (entries, is_new) = match disk.list(&directory).await {
        Ok(entries) => (entries, false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            disk.create_directory(&directory).await.map_err(LogError::io_at(&directory))?;
            (Vec::new(), true)
        }
        Err(error) => return Err(LogError::io_at(&directory)(error)),
    };
    let files = Files::sort(&directory, entries)?;
    let (epochs, closed) = (LeaderEpochs::default(), BTreeMap::new());
    let mut recovery = Recovery {
        disk,
        directory,
        config,
        last_stop,
        wall,
        files,
        epochs,
        closed,
        changed: is_new,
        has_new_names: false,
    };
    if !is_new {
        recovery.remove_useless().await?;
        recovery.epochs = recovery.read_epochs().await?;
    }
    let active = recovery.load_segments().await?;
    // After the first segment: writing the id makes the names of both durable.
    let topic_id = recovery.settle_topic_id(topic_id, is_new).await?;
    recovery.finish(active, topic_partition, topic_id).await
}

impl<D: Disk> Recovery<D> {
    fn path(&self, base_offset: Offset, extension: &str) -> PathBuf {
        segment_path(&self.directory, base_offset, extension)
    }

    async fn remove_useless(&mut self) -> Result<(), LogError> {
        for name in std::mem::take(&mut self.files.useless) {
            self.remove(&self.directory.join(name)).await?;
        }
        Ok(())
    }

    async fn remove(&self, path: &Path) -> Result<(), LogError> {
        match self.disk.remove_file(path).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(LogError::io_at(path)(error)),
            _ => Ok(()),
        }
    }

    /// The topic id of `partition.metadata`, which is written if it is missing. An expected id of zero accepts any.
    async fn settle_topic_id(&mut self, expected: TopicId, is_new: bool) -> Result<TopicId, LogError> {
        let path = self.directory.join(PARTITION_METADATA);
        let file = match is_new {
            true => None,
            false => match self.disk.read_whole(&path, SMALL_FILE_BYTES_MAX).await {
                Ok(file) => Some(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(LogError::io_at(&path)(error)),
            },
        };
        let Some(file) = file else {
            if expected != TopicId::ZERO {
                let text = format!("version: 0\ntopic_id: {expected}");
                self.disk.replace(&path, text.into_bytes()).await.map_err(LogError::io_at(&path))?;
                self.has_new_names = false;
            }
            return Ok(expected);
        };
        let malformed = || LogError::Malformed { path: path.clone(), reason: "no topic id of version 0".into() };
        let found = parse_partition_metadata(&file).ok_or_else(malformed)?;
        match found == expected || expected == TopicId::ZERO {
            true => Ok(found),
            false => Err(LogError::InconsistentTopicId { path, found, expected }),
        }
    }

    async fn read_epochs(&self) -> Result<LeaderEpochs, LogError> {
        let path = self.directory.join(LEADER_EPOCH_CHECKPOINT);
        match self.disk.read_whole(&path, EPOCH_CHECKPOINT_BYTES_MAX).await {
            Ok(file) => {
                LeaderEpochs::parse(&file).map_err(|error| LogError::Malformed { path, reason: error.to_string() })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(LeaderEpochs::default()),
            Err(error) => Err(LogError::io_at(&path)(error)),
        }
    }

    /// Loads all segments; the last one, or the one that turned out torn, is the active one.
    async fn load_segments(&mut self) -> Result<ActiveSegment<D::File>, LogError> {
        let bases: Vec<_> = self.files.logs.keys().copied().collect();
        let Some(last) = bases.last().copied() else { return self.new_segment(self.last_stop.log_start_offset).await };
        let recovery_point = self.last_stop.recovery_point;
        let checked_from = match self.last_stop.unclean {
            true => bases.iter().rev().find(|base| **base <= recovery_point).copied().unwrap_or(bases[0]),
            false => Offset::MAX,
        };
        for (at, base_offset) in bases.iter().copied().enumerate() {
            let is_checked = base_offset >= checked_from;
            if base_offset == last && !is_checked {
                if let Some(active) = self.load_clean(base_offset).await? {
                    return self.unless_behind_log_start(active).await;
                }
            } else if !is_checked && self.files.has_sound_index(base_offset) {
                let size = self.files.logs.get(&base_offset).copied().unwrap_or(0);
                self.closed.insert(base_offset, ClosedSegment::new(base_offset, size));
                continue;
            }
            let (active, is_torn) = self.check(base_offset).await?;
            // A tail lost at the border of two batches leaves nothing torn; only compaction leaves a gap in order.
            let (end, next) = (end_offset(&active), bases.get(at + 1));
            let breaks_off = next.is_some_and(|next| *next < end || *next > end && !self.config.compacted);
            if is_torn || breaks_off || base_offset == last {
                self.remove_segments_behind(base_offset).await?;
                return self.unless_behind_log_start(active).await;
            }
            let closed = self.close_checked(active).await?;
            self.closed.insert(base_offset, closed);
        }
        self.new_segment(self.last_stop.log_start_offset).await
    }

    async fn sync_names(&self) -> Result<(), LogError> {
        match self.has_new_names {
            true => self.disk.sync_directory(&self.directory).await.map_err(LogError::io_at(&self.directory)),
            false => Ok(()),
        }
    }

    async fn new_segment(&mut self, base_offset: Offset) -> Result<ActiveSegment<D::File>, LogError> {
        self.changed = true;
        self.has_new_names = true;
        let (file, _) = self.open_log(base_offset).await?;
        Ok(ActiveSegment::new(base_offset, file, &self.config, self.wall))
    }

    async fn open_log(&self, base_offset: Offset) -> Result<(Arc<D::File>, u64), LogError> {
        let path = self.path(base_offset, LOG);
        self.disk.open(&path, OpenMode::ReadWrite).await.map_err(LogError::io_at(&path))
    }

    /// Kafka starts anew at the log start if nothing at or past it is left.
    async fn unless_behind_log_start(
        &mut self,
        active: ActiveSegment<D::File>,
    ) -> Result<ActiveSegment<D::File>, LogError> {
        let log_start_offset = self.last_stop.log_start_offset;
        if end_offset(&active) >= log_start_offset {
            return Ok(active);
        }
        tracing::warn!(directory = %self.directory.display(), log_start_offset, "log ends before its start; emptied");
        let bases: Vec<_> = self.files.logs.keys().copied().collect();
        for base_offset in bases {
            self.remove_segment(base_offset).await?;
        }
        self.closed.clear();
        self.new_segment(log_start_offset).await
    }

    /// The last segment after a clean stop: indexes from their files, the batches behind the last entry from the log.
    /// `None` if that does not fit together; it is checked like after an unclean stop then.
    async fn load_clean(&self, base_offset: Offset) -> Result<Option<ActiveSegment<D::File>>, LogError> {
        let (file, length) = self.open_log(base_offset).await?;
        let mut active = ActiveSegment::new(base_offset, file, &self.config, self.wall);
        if length == 0 {
            return Ok(Some(active));
        }
        let Ok(size) = u32::try_from(length) else { return Ok(None) };
        let index_bytes = self.config.segment_index_bytes;
        let Some(index) = self.read_index(base_offset, OFFSET_INDEX).await? else { return Ok(None) };
        active.offset_index = OffsetIndex::decode(base_offset, index_bytes, &index, size);
        let start = active.offset_index.last().map_or(0, |entry| u64::from(entry.position));

        let log_path = self.path(base_offset, LOG);
        if start > 0 {
            let mut first = Scanner::new(self.disk.clone(), active.file.clone(), 0, length);
            match first.next().await.map_err(LogError::io_at(&log_path))? {
                Scanned::Entry { entry, .. } => active.first_timestamp = Some(entry.max_timestamp),
                _ => return Ok(None),
            }
        }
        let mut scanner = Scanner::new(self.disk.clone(), active.file.clone(), start, length);
        loop {
            match scanner.next().await.map_err(LogError::io_at(&log_path))? {
                Scanned::Entry { entry, .. } if !follows(&active, &entry) => return Ok(None),
                Scanned::Entry { position, entry } => {
                    active.note_indexed_batch(&WrittenBatch::of_entry(&entry, position));
                }
                Scanned::End => break,
                Scanned::Torn { .. } => return Ok(None),
            }
        }
        active.forget_appended();
        if let Some(index) = self.read_index(base_offset, TIME_INDEX).await? {
            active.time_index = TimeIndex::decode(base_offset, index_bytes, &index, end_offset(&active));
        }
        let indexed = active.time_index.last();
        if indexed.map(|entry| entry.timestamp) > active.latest.map(|latest| latest.timestamp) {
            active.latest = indexed;
        }
        Ok(Some(active))
    }

    async fn read_index(&self, base_offset: Offset, extension: &str) -> Result<Option<Vec<u8>>, LogError> {
        let path = self.path(base_offset, extension);
        match self.disk.read_whole(&path, INDEX_FILE_BYTES_MAX).await {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LogError::io_at(&path)(error)),
        }
    }

    /// Reads every batch of a segment, makes its indexes anew, and cuts the file behind the last whole batch. Also
    /// whether anything was cut.
    async fn check(&mut self, base_offset: Offset) -> Result<(ActiveSegment<D::File>, bool), LogError> {
        self.changed = true;
        let (file, length) = self.open_log(base_offset).await?;
        let mut active = ActiveSegment::new(base_offset, file, &self.config, self.wall);
        let log_path = self.path(base_offset, LOG);
        let mut scanner = Scanner::new(self.disk.clone(), active.file.clone(), 0, length);
        while let Scanned::Entry { position, entry } = scanner.next().await.map_err(LogError::io_at(&log_path))? {
            let whole = scanner.bytes(position, entry.bytes as usize).await.map_err(LogError::io_at(&log_path))?;
            if !follows(&active, &entry) || whole.len() as u64 != entry.bytes || !entry.is_valid(whole) {
                break;
            }
            if entry.leader_epoch >= 0 && self.epochs.latest().is_none_or(|latest| entry.leader_epoch > latest) {
                self.epochs.assign(entry.leader_epoch, entry.base_offset);
            }
            active.note_batch(&WrittenBatch::of_entry(&entry, position), self.config.index_interval_bytes);
        }
        active.forget_appended();
        let is_torn = active.size < length;
        if is_torn {
            tracing::warn!(file = %log_path.display(), from = length, to = active.size, "cut behind the last whole batch");
            self.disk.set_length(&active.file, active.size).await.map_err(LogError::io_at(&log_path))?;
            // What was cut off must not come back behind what is appended in its place.
            self.disk.sync(&active.file).await.map_err(LogError::io_at(&log_path))?;
        }
        self.rewrite_indexes(&mut active).await?;
        Ok((active, is_torn))
    }

    /// Files that have no entry and should have none are left alone: most segments of most partitions are small.
    async fn rewrite_indexes(&self, active: &mut ActiveSegment<D::File>) -> Result<(), LogError> {
        let base_offset = active.base_offset;
        let bytes = |files: &BTreeMap<Offset, u64>| files.get(&base_offset).copied().unwrap_or(0);
        let index_files = [
            (OFFSET_INDEX, bytes(&self.files.offset_indexes), active.offset_index.unwritten().1),
            (TIME_INDEX, bytes(&self.files.time_indexes), active.time_index.unwritten().1),
        ];
        for (extension, old_bytes, data) in index_files {
            if old_bytes == 0 && data.is_empty() {
                continue;
            }
            let path = self.path(base_offset, extension);
            let (file, _) = self.disk.open(&path, OpenMode::ReadWrite).await.map_err(LogError::io_at(&path))?;
            self.disk.set_length(&file, 0).await.map_err(LogError::io_at(&path))?;
            if !data.is_empty() {
                self.disk.write(&file, 0, data).await.map_err(LogError::io_at(&path))?;
            }
        }
        active.offset_index.mark_written(u64::MAX);
        active.time_index.mark_written(u64::MAX);
        Ok(())
    }

    /// A checked segment that has others behind it: complete, but not durable yet.
    async fn close_checked(&self, mut active: ActiveSegment<D::File>) -> Result<ClosedSegment<D::File>, LogError> {
        active.force_time_entry();
        let mut closed = ClosedSegment::new(active.base_offset, active.size);
        closed.latest_timestamp.set(Some(active.latest.map_or(-1, |latest| latest.timestamp)));
        closed.unsynced.push(active.file);
        for (extension, (position, data)) in
            [(OFFSET_INDEX, active.offset_index.unwritten()), (TIME_INDEX, active.time_index.unwritten())]
        {
            let path = self.path(active.base_offset, extension);
            let (file, _) = self.disk.open(&path, OpenMode::ReadWrite).await.map_err(LogError::io_at(&path))?;
            if !data.is_empty() {
                self.disk.write(&file, position, data).await.map_err(LogError::io_at(&path))?;
            }
            closed.unsynced.push(file);
        }
        Ok(closed)
    }

    async fn remove_segments_behind(&mut self, base_offset: Offset) -> Result<(), LogError> {
        let behind: Vec<_> = self.files.logs.range(base_offset + 1..).map(|(base, _)| *base).collect();
        for base_offset in behind {
            tracing::warn!(directory = %self.directory.display(), base_offset, "segment behind a torn one removed");
            self.remove_segment(base_offset).await?;
        }
        Ok(())
    }

    async fn remove_segment(&mut self, base_offset: Offset) -> Result<(), LogError> {
        for extension in [OFFSET_INDEX, TIME_INDEX, TRANSACTION_INDEX, SNAPSHOT, LOG] {
            self.remove(&self.path(base_offset, extension)).await?;
        }
        self.has_new_names = true;
        self.files.logs.remove(&base_offset);
        self.files.snapshots.remove(&base_offset);
        Ok(())
    }

    async fn finish(
        mut self,
        active: ActiveSegment<D::File>,
        topic_partition: TopicPartition,
        topic_id: TopicId,
    ) -> Result<Log<D>, LogError> {
        let log_end_offset = end_offset(&active);
        let first_base_offset = self.closed.keys().next().copied().unwrap_or(active.base_offset);
        let log_start_offset = self.last_stop.log_start_offset.max(first_base_offset);
        self.epochs.truncate_from_end(log_end_offset);
        self.epochs.truncate_from_start(log_start_offset);
        let (producers, last_snapshot) = self.load_producers(&active, log_end_offset, log_start_offset).await?;
        self.sync_names().await?;
        let flushed_offset = match self.last_stop.unclean {
            true => self.last_stop.recovery_point.clamp(first_base_offset, log_end_offset),
            false => log_end_offset,
        };
        Ok(Log {
            disk: self.disk,
            directory: self.directory,
            topic_partition,
            topic_id,
            config: self.config,
            closed: self.closed,
            active,
            log_start_offset,
            log_end_offset,
            flushed_offset,
            producers,
            epochs: self.epochs,
            last_snapshot,
            run: Run::new(self.changed, self.wall),
        })
    }

    /// Removes the snapshots of earlier stops: those at a segment's base are kept, and the newest of the others if it is
    /// past them all (Kafka 3.9 `ProducerStateManager.removeStraySnapshots`).
    async fn remove_stray_snapshots(&mut self) -> Result<(), LogError> {
        let bases = &self.files.logs;
        let newest = self.files.snapshots.last().copied();
        let strays = self.files.snapshots.iter().copied().filter(|offset| !bases.contains_key(offset));
        let strays: Vec<_> = strays.filter(|offset| Some(*offset) != newest).collect();
        for offset in strays {
            self.files.snapshots.remove(&offset);
            self.remove(&self.path(offset, SNAPSHOT)).await?;
        }
        Ok(())
    }

    /// The newest sound snapshot and the batches behind it. Also the offset of that snapshot.
    async fn load_producers(
        &mut self,
        active: &ActiveSegment<D::File>,
        log_end_offset: Offset,
        log_start_offset: Offset,
    ) -> Result<(ProducerState, Option<Offset>), LogError> {
        let had_snapshots = !self.files.snapshots.is_empty();
        self.remove_stray_snapshots().await?;
        let mut newest = None;
        while let Some(offset) = self.files.snapshots.pop_last() {
            let path = self.path(offset, SNAPSHOT);
            if offset > log_end_offset {
                // It knows batches that are lost, and must not come back when others have taken their offsets.
                self.has_new_names = true;
            } else {
                let file = self.disk.read_whole(&path, SNAPSHOT_BYTES_MAX).await.map_err(LogError::io_at(&path))?;
                match ProducerState::decode_snapshot(&file) {
                    Ok(state) => {
                        newest = Some((offset, state));
                        break;
                    }
                    Err(error) => tracing::warn!(file = %path.display(), %error, "producer snapshot removed"),
                }
            }
            self.changed = true;
            self.remove(&path).await?;
        }
        let last_snapshot = newest.as_ref().map(|(offset, _)| *offset);
        let (from, mut producers) = match newest {
            Some(newest) => newest,
            // Kafka before 2.2 took none on a clean stop; it does not read the whole log for that either.
            None if !self.last_stop.unclean && !had_snapshots => (log_end_offset, ProducerState::default()),
            None => (log_start_offset, ProducerState::default()),
        };
        // Only what the snapshot holds (Kafka 3.9 `ProducerStateManager.loadFromSnapshot`): a producer whose records are
        // old by their own timestamps keeps its window until the first periodic look.
        producers.expire(self.wall, self.config.producer_id_expiration_ms);
        if from < log_end_offset {
            self.replay(active, from, &mut producers).await?;
        }
        Ok((producers, last_snapshot))
    }

    /// Shows the producers every batch from `from` on.
    async fn replay(
        &self,
        active: &ActiveSegment<D::File>,
        from: Offset,
        producers: &mut ProducerState,
    ) -> Result<(), LogError> {
        let first = self.closed.range(..=from).next_back().map_or(0, |(base_offset, _)| *base_offset);
        if from < active.base_offset {
            for segment in self.closed.range(first..).map(|(_, segment)| segment) {
                let path = self.path(segment.base_offset, LOG);
                let (file, _) = self.disk.open(&path, OpenMode::Read).await.map_err(LogError::io_at(&path))?;
                let scanner = Scanner::new(self.disk.clone(), file, 0, segment.size);
                replay_segment(scanner, from, producers).await.map_err(LogError::io_at(&path))?;
            }
        }
        let position = u64::from(active.offset_index.lookup(from));
        let scanner = Scanner::new(self.disk.clone(), active.file.clone(), position, active.size);
        let path = self.path(active.base_offset, LOG);
        replay_segment(scanner, from, producers).await.map_err(LogError::io_at(&path))
    }
}

/// Whether an entry's offsets are behind those before it, and such that the segment's indexes can hold them.
fn follows<F>(active: &ActiveSegment<F>, entry: &Entry) -> bool {
    entry.base_offset >= end_offset(active) && relative_offset(active.base_offset, entry.last_offset).is_some()
}

fn end_offset<F>(active: &ActiveSegment<F>) -> Offset {
    active.last_place().map_or(active.base_offset, |place| place.last_offset + 1)
}

async fn replay_segment<D: Disk>(
    mut scanner: Scanner<D>,
    from: Offset,
    producers: &mut ProducerState,
) -> io::Result<()> {
    loop {
        let (position, entry) = match scanner.next().await? {
            Scanned::Entry { position, entry } => (position, entry),
            Scanned::End => return Ok(()),
            Scanned::Torn { position, error } => {
                let text = format!("at position {position}: {error}");
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        };
        let Some(header) = entry.header.filter(|header| header.has_producer_id() && entry.last_offset >= from) else {
            continue;
        };
        match header.is_control() {
            false => drop(producers.apply(&header)),
            true => replay_marker(&mut scanner, position, &entry, &header, producers).await?,
        }
    }
}

/// A transaction marker: key i16 version, i16 type (0 abort, 1 commit); value i16 version, i32 coordinator epoch. An empty
/// control batch is what compaction leaves of one, and says nothing any more.
async fn replay_marker<D: Disk>(
    scanner: &mut Scanner<D>,
    position: u64,
    entry: &Entry,
    header: &BatchHeader,
    producers: &mut ProducerState,
) -> io::Result<()> {
    let batch = scanner.bytes(position, entry.bytes as usize).await?;
    let records =
        decode_records(batch, MARKER_BYTES_MAX).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let Some(record) = records.first() else { return Ok(()) };
    let (Some([0, 0, 0, 0 | 1, ..]), Some([_, _, a, b, c, d, ..])) = (record.key.as_deref(), record.value.as_deref())
    else {
        return Ok(());
    };
    let coordinator_epoch = i32::from_be_bytes([*a, *b, *c, *d]);
    producers.apply_marker(header.producer_id, header.producer_epoch, coordinator_epoch, record.timestamp);
    Ok(())
}

fn parse_partition_metadata(file: &[u8]) -> Option<TopicId> {
    let text = std::str::from_utf8(file).ok()?;
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    (field("version:") == Some("0")).then_some(())?;
    TopicId::parse(field("topic_id:")?)
}
