//! ListOffsets by time: the first record at or after a timestamp, and the record with the latest one.
//!
//! Segment by its latest timestamp, then time index, then offset index, then the heads of batches, then the records of one
//! batch (Kafka 3.9 `UnifiedLog.fetchOffsetByTimestamp`, `LogSegment.findOffsetByTimestamp`). All of it waits for the
//! disk; nothing of it runs while the log is borrowed. Records of more than a small batch are looked for on a work
//! thread, in constant memory and no further than the one that is found.
//!
//! A header decides which batch is looked into. If that has no such record the look-up goes on behind it. If it can't be
//! decoded, the answer is the batch itself, its base offset and its max timestamp: nothing that can be read is passed
//! over, and one bad batch does not take the others' answers.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use crate::base::ids::Offset;
use crate::platform::{Disk, OpenMode, Tasks};
use crate::record::DECOMPRESSED_BYTES_MAX;
use crate::record::batch::{BatchError, NO_TIMESTAMP};
use crate::record::compression::CompressionError;
use crate::record::message_set::{MessageSetError, find_by_time};
use crate::record::seek::{Sought, first_in_batch};
use crate::storage::entry::{Entry, Scanned, Scanner};
use crate::storage::log::roll::LazyFile;
use crate::storage::log::{Log, LogError, UndecodableLookups};
use crate::storage::offset_index::OffsetIndex;
use crate::storage::recovery::{Directory, Timed};
use crate::storage::segment::{INDEX_FILE_BYTES_MAX, LOG, OFFSET_INDEX, TIME_INDEX, segment_path};
use crate::storage::time_index::TimeIndex;

/// A batch of more than this, as it is or decompressed, is looked into on a work thread.
const INLINE_BYTES_MAX: usize = 16 * 1024;

/// What a look-up takes along of a closed segment.
struct ClosedTarget {
    base_offset: Offset,
    /// Base offset of the next segment.
    end_offset: Offset,
    size: u64,
    latest_timestamp: Rc<Cell<Option<i64>>>,
}

/// What a look-up takes along of the active segment.
struct ActiveTarget<D: Disk> {
    base_offset: Offset,
    end_offset: Offset,
    path: PathBuf,
    file: LazyFile<D>,
    /// `None`: only the index files know.
    position: Option<u64>,
    size: u64,
}

/// What becomes of a batch whose header says that what is sought is in it, and whose records say otherwise.
#[derive(Clone, Copy, PartialEq, Eq)]
enum IfClaimed {
    /// A later batch may have it.
    Passed,
    /// Only this one's header has the latest timestamp: it is the answer if no record is.
    Answers,
}

struct Lookup<D: Disk, T> {
    disk: D,
    tasks: T,
    directory: PathBuf,
    index_interval_bytes: u64,
    timestamp: i64,
    start_offset: Offset,
    if_claimed: IfClaimed,
    undecodable: Rc<UndecodableLookups>,
}

impl<D: Disk> Log<D> {
    /// The first record at or after `timestamp` that is not below the log start and is below `ceiling`: its offset and
    /// timestamp; `None` if there is none (ListOffsets answers -1).
    ///
    /// # Errors
    /// `SegmentsChanged`: ask again. `Busy`: later.
    pub fn lookup_timestamp<T: Tasks>(
        &self,
        timestamp: i64,
        ceiling: Offset,
        tasks: &T,
    ) -> impl Future<Output = Result<Option<(Offset, i64)>, LogError>> + use<D, T> + 'static {
        let closed: Vec<_> = self
            .closed_targets()
            .filter(|segment| {
                segment.end_offset > self.log_start_offset
                    && segment.latest_timestamp.get().is_none_or(|latest| latest >= timestamp)
            })
            .collect();
        let is_late = self.active.latest.is_some_and(|latest| latest.timestamp >= timestamp);
        let active = is_late.then(|| self.active_target(timestamp, self.log_start_offset));
        let lookup = self.lookup(timestamp, self.log_start_offset, IfClaimed::Passed, tasks);
        let names = self.names.ask();
        async move {
            let _names = names.hold().await?;
            for segment in closed {
                if let Some(found) = lookup.in_closed(&segment).await? {
                    return Ok(Some(found).filter(|(offset, _)| *offset < ceiling));
                }
            }
            let Some(active) = active else { return Ok(None) };
            let found = lookup.in_active(active).await?;
            Ok(found.filter(|(offset, _)| *offset < ceiling))
        }
    }

    /// The first record that has the latest timestamp of all, if it is below `ceiling`: its offset and timestamp.
    /// `None`: there is none (Kafka 3.9 `UnifiedLog.fetchOffsetByTimestamp`, which looks at whole segments too).
    pub fn lookup_max_timestamp<T: Tasks>(
        &self,
        ceiling: Offset,
        tasks: &T,
    ) -> impl Future<Output = Result<Option<(Offset, i64)>, LogError>> + use<D, T> + 'static {
        const FROM_THE_BEGINNING: Offset = 0;
        let closed: Vec<_> = self.closed_targets().collect();
        let active_latest = self.active.latest.map_or(NO_TIMESTAMP, |latest| latest.timestamp);
        let active = self.active_target(active_latest, FROM_THE_BEGINNING);
        let mut lookup = self.lookup(NO_TIMESTAMP, FROM_THE_BEGINNING, IfClaimed::Answers, tasks);
        let names = self.names.ask();
        async move {
            let _names = names.hold().await?;
            let (mut latest, mut segment) = (NO_TIMESTAMP, None);
            for target in &closed {
                let its_latest = match target.latest_timestamp.get() {
                    Some(known) => known,
                    None => lookup.time_index_of(target).await?.last().map_or(NO_TIMESTAMP, |entry| entry.timestamp),
                };
                if its_latest > latest {
                    (latest, segment) = (its_latest, Some(target));
                }
            }
            lookup.timestamp = latest.max(active_latest);
            let found = match segment {
                _ if lookup.timestamp == NO_TIMESTAMP => None,
                Some(segment) if latest >= active_latest => lookup.in_closed(segment).await?,
                _ => lookup.in_active(active).await?,
            };
            Ok(found.filter(|(offset, _)| *offset < ceiling))
        }
    }

    fn closed_targets(&self) -> impl Iterator<Item = ClosedTarget> {
        let ends = self.closed.keys().skip(1).copied().chain([self.active.base_offset]);
        self.closed.values().zip(ends).map(|(segment, end_offset)| ClosedTarget {
            base_offset: segment.base_offset,
            end_offset,
            size: segment.size,
            latest_timestamp: segment.latest_timestamp.clone(),
        })
    }

    fn active_target(&self, timestamp: i64, start_offset: Offset) -> ActiveTarget<D> {
        let active = &self.active;
        let position = active.time_index.covers(timestamp).then(|| {
            let from = active.time_index.lookup(timestamp).max(start_offset);
            let found = active.offset_index.covers(from).then(|| active.offset_index.lookup(from));
            found.map(|indexed| indexed.map_or(0, |indexed| u64::from(indexed.position)))
        });
        ActiveTarget {
            base_offset: active.base_offset,
            end_offset: self.log_end_offset,
            path: self.active_path(),
            file: self.active_file(),
            position: position.flatten(),
            size: active.size,
        }
    }

    fn lookup<T: Tasks>(&self, timestamp: i64, start_offset: Offset, if_claimed: IfClaimed, tasks: &T) -> Lookup<D, T> {
        Lookup {
            disk: self.disk.clone(),
            tasks: tasks.clone(),
            directory: self.directory.clone(),
            index_interval_bytes: u64::from(self.config.index_interval_bytes),
            timestamp,
            start_offset,
            if_claimed,
            undecodable: Rc::clone(&self.run.undecodable),
        }
    }

    /// How often look-ups have met a batch that can't be decoded since somebody asked this.
    pub fn take_undecodable_lookups(&self) -> u64 {
        self.run.undecodable.uncounted.take()
    }
}

impl<D: Disk, T: Tasks> Lookup<D, T> {
    /// A closed segment's time index; notes its latest timestamp.
    async fn time_index_of(&self, segment: &ClosedTarget) -> Result<TimeIndex, LogError> {
        let ClosedTarget { base_offset, end_offset, size, .. } = *segment;
        let time_index = match segment.latest_timestamp.get() {
            // It was found to fit the batches, or was written by this process.
            Some(_) => {
                let time_file = self.index_file(segment_path(&self.directory, base_offset, TIME_INDEX)).await?;
                TimeIndex::decode(base_offset, u32::MAX, &time_file, end_offset)
            }
            None => {
                let directory = Directory { disk: self.disk.clone(), path: self.directory.clone() };
                let interval_bytes = self.index_interval_bytes;
                directory.time_index(Timed { base_offset, end_offset, size, interval_bytes }).await?
            }
        };
        segment.latest_timestamp.set(Some(time_index.last().map_or(NO_TIMESTAMP, |entry| entry.timestamp)));
        Ok(time_index)
    }

    async fn in_closed(&self, segment: &ClosedTarget) -> Result<Option<(Offset, i64)>, LogError> {
        let time_index = self.time_index_of(segment).await?;
        if time_index.last().is_none_or(|latest| latest.timestamp < self.timestamp) {
            return Ok(None);
        }
        let log_path = segment_path(&self.directory, segment.base_offset, LOG);
        let (file, _) = self.disk.open(&log_path, OpenMode::Read).await.map_err(LogError::io_at(&log_path))?;
        let position = self.position_by(&time_index, segment.base_offset, segment.size, &file).await?;
        let scanner = Scanner::new(self.disk.clone(), file, position, segment.size);
        self.in_batches(scanner, &log_path).await
    }

    async fn in_active(&self, active: ActiveTarget<D>) -> Result<Option<(Offset, i64)>, LogError> {
        let file = active.file.open().await?;
        let position = match active.position {
            Some(position) => position,
            None => self.position_in(active.base_offset, active.end_offset, active.size, &file).await?,
        };
        let scanner = Scanner::new(self.disk.clone(), file, position, active.size);
        self.in_batches(scanner, &active.path).await
    }

    /// Where to begin in a segment, by its index files.
    async fn position_in(
        &self,
        base_offset: Offset,
        end_offset: Offset,
        size: u64,
        file: &Arc<D::File>,
    ) -> Result<u64, LogError> {
        let time_file = self.index_file(segment_path(&self.directory, base_offset, TIME_INDEX)).await?;
        let time_index = TimeIndex::decode(base_offset, u32::MAX, &time_file, end_offset);
        self.position_by(&time_index, base_offset, size, file).await
    }

    async fn position_by(
        &self,
        time_index: &TimeIndex,
        base_offset: Offset,
        size: u64,
        file: &Arc<D::File>,
    ) -> Result<u64, LogError> {
        let offset_file = self.index_file(segment_path(&self.directory, base_offset, OFFSET_INDEX)).await?;
        let segment_bytes = u32::try_from(size).unwrap_or(u32::MAX);
        let offset_index = OffsetIndex::decode(base_offset, u32::MAX, &offset_file, segment_bytes);
        let from = time_index.lookup(self.timestamp).max(self.start_offset);
        let Some(indexed) = offset_index.lookup(from) else { return Ok(0) };
        let start = u64::from(indexed.position);
        let mut scanner = Scanner::new(self.disk.clone(), file.clone(), start, size);
        let log_path = segment_path(&self.directory, base_offset, LOG);
        match scanner.next().await.map_err(LogError::io_at(&log_path))? {
            Scanned::Entry { entry, .. } if indexed.points_at(base_offset, entry.last_offset) => Ok(start),
            // The index is damaged: the look begins with the segment.
            _ => Ok(0),
        }
    }

    /// A missing index file is one without entries.
    async fn index_file(&self, path: PathBuf) -> Result<Vec<u8>, LogError> {
        match self.disk.read_whole(&path, INDEX_FILE_BYTES_MAX).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            read => read.map_err(LogError::io_at(&path)),
        }
    }

    async fn in_batches(&self, mut scanner: Scanner<D>, path: &Path) -> Result<Option<(Offset, i64)>, LogError> {
        let mut claimed = None;
        loop {
            match scanner.next().await.map_err(LogError::io_at(path))? {
                Scanned::End => return Ok(claimed.filter(|_| self.if_claimed == IfClaimed::Answers)),
                Scanned::Torn { position, error } => {
                    let text = format!("at position {position}: {error}");
                    return Err(LogError::io_at(path)(io::Error::new(io::ErrorKind::InvalidData, text)));
                }
                Scanned::Entry { position, entry } => {
                    if entry.max_timestamp < self.timestamp || entry.last_offset < self.start_offset {
                        continue;
                    }
                    if let Some(found) = self.in_records(&mut scanner, position, &entry, path).await? {
                        return Ok(Some(found));
                    }
                    claimed = claimed.or(Some(self.itself(&entry)));
                }
            }
        }
    }

    /// A batch instead of a record in it.
    fn itself(&self, entry: &Entry) -> (Offset, i64) {
        (entry.base_offset.max(self.start_offset), entry.max_timestamp)
    }

    async fn in_records(
        &self,
        scanner: &mut Scanner<D>,
        position: u64,
        entry: &Entry,
        path: &Path,
    ) -> Result<Option<(Offset, i64)>, LogError> {
        let batch = scanner.bytes(position, entry.bytes as usize).await.map_err(LogError::io_at(path))?;
        let sought = Sought { timestamp: self.timestamp, offset: self.start_offset };
        let is_legacy = entry.header.is_none();
        let inline = match batch.len() <= INLINE_BYTES_MAX {
            true => find(batch, is_legacy, sought, INLINE_BYTES_MAX),
            false => Err(Unfound::TooLong),
        };
        let found = match inline {
            Err(Unfound::TooLong) => {
                let batch = batch.to_vec();
                let job = move || find(&batch, is_legacy, sought, DECOMPRESSED_BYTES_MAX);
                self.tasks.work(job).await.ok_or(LogError::Busy)?
            }
            found => found,
        };
        found.or_else(|unfound| {
            self.note_undecodable(position, path, &unfound);
            Ok(Some(self.itself(entry)))
        })
    }

    /// Said more rarely the more there are: every question may meet the same batch again.
    fn note_undecodable(&self, position: u64, path: &Path, unfound: &Unfound) {
        let UndecodableLookups { total, uncounted } = &*self.undecodable;
        let count = total.get() + 1;
        total.set(count);
        uncounted.set(uncounted.get() + 1);
        if count.is_power_of_two() {
            let path = path.display();
            tracing::warn!(%path, position, count, reason = %unfound, "a batch can't be decoded: a time is answered with itself");
        }
    }
}

/// Why it is not known whether a record is in a batch.
#[derive(Debug, thiserror::Error)]
enum Unfound {
    #[error("the batch becomes too long when it is decompressed")]
    TooLong,
    #[error("{0}")]
    Damaged(String),
}

impl From<BatchError> for Unfound {
    fn from(error: BatchError) -> Unfound {
        match error {
            BatchError::Compression(CompressionError::TooLong { .. }) => Unfound::TooLong,
            error => Unfound::Damaged(error.to_string()),
        }
    }
}

impl From<MessageSetError> for Unfound {
    fn from(error: MessageSetError) -> Unfound {
        match error {
            MessageSetError::TooLong(_) => Unfound::TooLong,
            error => Unfound::Damaged(error.to_string()),
        }
    }
}

fn find(batch: &[u8], is_legacy: bool, sought: Sought, limit: usize) -> Result<Option<(Offset, i64)>, Unfound> {
    match is_legacy {
        true => Ok(find_by_time(batch, sought.offset, sought.timestamp, limit)?),
        false => Ok(first_in_batch(batch, sought, limit)?),
    }
}
