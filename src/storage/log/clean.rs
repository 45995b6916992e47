//! Cleaning a log's files: which of them are dirty, what is written in their place, and how one takes the other's
//! place.
//!
//! ```text
//!  old: 0.log 40.log 80.log            -> pass over the dirty ones: offset map -> pass over a group of neighbours:
//!  new: 0.log.cleaned, its indexes     synced ->  .cleaned becomes .swap, synced names  (from here on recovery goes on)
//!                                      -> old files become .deleted -> .swap gets the final names, synced
//!                                      -> in the same turn the log knows the new segment instead of the old ones
//! ```
//! Names are held alone from the first rename to that turn; who has the old files open goes on reading them. Up to the
//! first rename nothing of the log has changed, and whatever goes wrong leaves nothing but files that are removed.
//! Once the names of the `.swap` files are durable it can only go on: a rename that fails then is an error that only a
//! restart settles.
//!
//! The log is not truncated and loses no segments meanwhile: whoever cleans it sees to that. Appends, rolls and
//! flushes go on.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::BytesMut;

use crate::base::ids::Offset;
use crate::base::time::WallMs;
use crate::platform::{Disk, OpenMode};
use crate::storage::compaction::offset_map::OffsetMap;
use crate::storage::compaction::pass::{Damage, Filtering, Indexing, Kept, LastOfProducer, Order, Undecodable};
use crate::storage::compaction::transactions::PassedTransactions;
use crate::storage::compaction::{CleanerBounds, Dirtiness, Resources, SegmentLimits, Source, groups};
use crate::storage::entry::{Entry, HEAD_BYTES_MAX};
use crate::storage::log::names::NamesHeld;
use crate::storage::log::{Log, LogError};
use crate::storage::offset_index::{OffsetIndex, relative_offset};
use crate::storage::recovery::{CLEANED_SUFFIX, Directory, SEGMENT_FILES, SWAP_SUFFIX};
use crate::storage::segment::{ClosedFiles, ClosedSegment, LOG, OFFSET_INDEX, SNAPSHOT, TIME_INDEX, TRANSACTION_INDEX};
use crate::storage::time_index::{TimeEntry, TimeIndex};
use crate::storage::transaction_index::EndedTransaction;

/// The largest batch that a cleaning takes into memory.
const BATCH_BYTES_MAX: u64 = 256 << 20;
/// Written bytes after which a new segment is synced: the page cache need not hold all of it at once.
const SYNC_BYTES: u64 = 32 << 20;
/// A segment's positions are 31 bits.
const SEGMENT_BYTES_MAX: u64 = i32::MAX as u64;

/// Why a cleaning did not come to its end. All but `SwapFailed` leave the log as it was before the group.
#[derive(Debug, thiserror::Error)]
pub enum CleanError {
    /// Trying again would find the same.
    #[error("{path}: {damage}")]
    Damaged { path: PathBuf, damage: Damage },
    #[error("{0}: the records that stay do not fit into a segment any more")]
    TooLarge(PathBuf),
    #[error(transparent)]
    Log(#[from] LogError),
    /// Nothing of what was written is known to be on the device.
    #[error("sync failed: {0}")]
    Sync(LogError),
    /// The files are between old and new; the next start settles that.
    #[error("the cleaned files could not take their places: {0}")]
    SwapFailed(LogError),
    #[error("too much work waits elsewhere")]
    Busy,
    #[error("the cleaning was to end")]
    Aborted,
}

/// What is to be looked at before it is known how dirty a log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// See [`Log::age`].
    Age(Offset),
    /// See [`Log::beginning`].
    Beginning(Offset),
}

/// The lags of a topic: `min.compaction.lag.ms`, `max.compaction.lag.ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionLags {
    pub min_ms: i64,
    pub max_ms: i64,
}

/// The timestamp of a segment's first batch; goes to [`Log::finish_beginning`].
#[derive(Debug)]
pub struct Beginning {
    base_offset: Offset,
    result: Result<i64, LogError>,
}

/// What a cleaning takes along of its log.
#[derive(Debug)]
pub struct CleanPlan<D: Disk> {
    directory: Directory<D>,
    /// Base offset, end offset and size, from the oldest on.
    segments: Vec<(Offset, Offset, u64)>,
    dirtiness: Dirtiness,
    producers: BTreeMap<i64, LastOfProducer>,
    index_interval_bytes: u64,
    segment_index_bytes: u32,
    segment_bytes: u32,
}

/// When it is, and what the topic says of tombstones.
#[derive(Clone, Copy, Debug)]
pub struct CleanTime {
    pub now: WallMs,
    pub delete_retention_ms: i64,
}

/// A cleaning whose offset map is filled: its groups come one by one.
pub struct Cleaning<D: Disk, R> {
    directory: Directory<D>,
    resources: R,
    chunk_bytes: usize,
    /// `None` while a chunk of it is filtered elsewhere.
    filtering: Option<Filtering>,
    groups: std::vec::IntoIter<Vec<Source>>,
    index_interval_bytes: u64,
    segment_index_bytes: u32,
    /// What lies below is clean then.
    pub end_offset: Offset,
    pub bytes_read: u64,
    pub bytes_written: u64,
}

/// A new segment, whole and durable under names that mean nothing yet.
#[derive(Debug)]
pub struct Cleaned<D: Disk> {
    directory: Directory<D>,
    /// Base offsets of the segments in whose place it comes; it has the first one's.
    replaces: Vec<Offset>,
    size: u64,
    latest_timestamp: i64,
    first_timestamp: Option<i64>,
    /// The offset behind the last batch.
    end_offset: Offset,
    files: ClosedFiles<D::File>,
    extensions: Vec<&'static str>,
}

/// A new segment that has its place; goes to [`Log::finish_swap`].
#[derive(Debug)]
pub struct Swapped<D: Disk> {
    replaces: Vec<Offset>,
    segment: ClosedSegment<D::File>,
    files: ClosedFiles<D::File>,
    has_transactions: bool,
    aside: Vec<PathBuf>,
    names: NamesHeld,
}

impl<D: Disk> Log<D> {
    /// Up to where the log was cleaned, if it ever was.
    pub fn cleaned_to(&self) -> Option<Offset> {
        self.cleaned_to
    }

    /// Notes that all below was cleaned. The directory's cleaner offsets must know of the log, durably, before its
    /// first group is swapped in: offsets may be missing in it from then on, whatever its topic says one day.
    pub fn set_cleaned_to(&mut self, offset: Offset) {
        self.cleaned_to = Some(offset);
        self.config.compacted = true;
    }

    /// Where cleaning goes on (Kafka 3.9 `LogCleanerManager.cleanableOffsets`).
    pub fn first_dirty_offset(&self) -> Offset {
        let within = self.log_start_offset..=self.log_end_offset;
        self.cleaned_to.filter(|cleaned_to| within.contains(cleaned_to)).unwrap_or(self.log_start_offset)
    }

    /// How dirty the log is, or what is to be looked at first.
    pub fn dirtiness(&self, high_watermark: Offset, lags: CompactionLags, now: WallMs) -> Result<Dirtiness, Unknown> {
        let first_dirty = self.first_dirty_offset();
        let unsynced = self.closed.values().find(|segment| !segment.unsynced.is_empty());
        let flushed_end = unsynced.map_or(self.active.base_offset, |segment| segment.base_offset);
        let mut uncleanable = self.last_stable_offset(high_watermark).min(flushed_end);
        let first_dirty_segment = self.segment_of(first_dirty);
        let dirty = self.closed.range(first_dirty_segment..).map(|(_, segment)| segment);
        if lags.min_ms > 0 {
            for segment in dirty.clone() {
                let newest = match (segment.latest_timestamp.get(), segment.modified) {
                    (Some(latest), _) if latest >= 0 => latest,
                    (Some(_), Some(modified)) => modified,
                    (Some(_) | None, _) => return Err(Unknown::Age(segment.base_offset)),
                };
                if newest > now.saturating_sub(lags.min_ms) {
                    uncleanable = uncleanable.min(segment.base_offset);
                    break;
                }
            }
        }
        let mut is_overdue = false;
        if lags.max_ms < i64::MAX {
            for segment in dirty {
                let first = segment.first_timestamp.ok_or(Unknown::Beginning(segment.base_offset))?;
                is_overdue |= first > 0 && first < now.saturating_sub(lags.max_ms.max(0));
            }
        }
        let uncleanable = self.segment_of(uncleanable.max(first_dirty)).min(flushed_end);
        let bytes = |from: Offset, end: Offset| {
            let segments = if from < end { self.closed.range(from..end) } else { self.closed.range(end..end) };
            segments.map(|(_, segment)| segment.size).sum()
        };
        Ok(Dirtiness {
            first_dirty,
            uncleanable,
            clean_bytes: bytes(Offset::MIN, first_dirty.min(uncleanable)),
            dirty_bytes: bytes(first_dirty_segment, uncleanable),
            is_overdue,
        })
    }

    /// Looks for the timestamp of a closed segment's first batch, for [`CompactionLags::max_ms`].
    pub fn beginning(&self, base_offset: Offset) -> impl Future<Output = Beginning> + use<D> + 'static {
        let (directory, names) = (self.files_of(), self.names.ask());
        async move {
            let looked = async {
                let _names = names.hold().await?;
                let path = directory.path_of(base_offset, LOG);
                let (file, _) = directory.disk.open(&path, OpenMode::Read).await.map_err(LogError::io_at(&path))?;
                let head = directory.disk.read(&file, 0, HEAD_BYTES_MAX).await.map_err(LogError::io_at(&path))?;
                // One without batches has nothing that waits.
                Ok(Entry::parse(&head).map_or(-1, |entry| entry.max_timestamp))
            };
            Beginning { base_offset, result: looked.await }
        }
    }

    pub fn finish_beginning(&mut self, beginning: Beginning) -> Result<(), LogError> {
        let timestamp = match beginning.result {
            Err(LogError::SegmentsChanged) => return Ok(()),
            result => result?,
        };
        if let Some(segment) = self.closed.get_mut(&beginning.base_offset) {
            segment.first_timestamp = Some(timestamp);
        }
        Ok(())
    }

    /// What a cleaning of this part of the log needs to know.
    pub fn clean_plan(&self, dirtiness: Dirtiness) -> CleanPlan<D> {
        let ends = self.closed.keys().skip(1).copied().chain([self.active.base_offset]);
        let below = self.closed.values().zip(ends).filter(|(segment, _)| segment.base_offset < dirtiness.uncleanable);
        let segments = below.map(|(segment, end_offset)| (segment.base_offset, end_offset, segment.size)).collect();
        // Who has written since then has nothing to keep there.
        let producers = self.producers.last_batches().filter(|(_, active)| {
            active.last_data_offset.is_none_or(|last_offset| last_offset < dirtiness.uncleanable)
        });
        CleanPlan {
            directory: self.files_of(),
            segments,
            dirtiness,
            producers: producers.collect(),
            index_interval_bytes: u64::from(self.config.index_interval_bytes),
            segment_index_bytes: self.config.segment_index_bytes,
            segment_bytes: self.config.segment_bytes,
        }
    }

    /// The new segment takes the place of the old ones: from this turn on reads see it. Gives the old ones' files,
    /// which are to be removed.
    pub fn finish_swap(&mut self, swapped: Swapped<D>) -> Vec<PathBuf> {
        let Swapped { replaces, mut segment, files, has_transactions, aside, names } = swapped;
        for base_offset in &replaces {
            self.closed.remove(base_offset);
            self.transaction_indexes.remove(base_offset);
            self.run.doubted.get_mut().remove(base_offset);
        }
        if has_transactions {
            self.transaction_indexes.insert(segment.base_offset);
        }
        segment.files = Some(self.open_files.filled(files));
        self.closed.insert(segment.base_offset, segment);
        names.changed();
        aside
    }
}

/// A segment's file, chunk by chunk.
struct Chunks<D: Disk> {
    disk: D,
    file: Arc<D::File>,
    path: PathBuf,
    position: u64,
    end: u64,
    chunk_bytes: usize,
}

impl<D: Disk> Chunks<D> {
    async fn open(
        directory: &Directory<D>,
        base_offset: Offset,
        end: u64,
        chunk_bytes: usize,
    ) -> Result<Self, LogError> {
        let path = directory.path_of(base_offset, LOG);
        let disk = directory.disk.clone();
        let (file, _) = disk.open(&path, OpenMode::Read).await.map_err(LogError::io_at(&path))?;
        Ok(Chunks { disk, file, path, position: 0, end, chunk_bytes })
    }

    fn damaged(&self, reason: &str) -> CleanError {
        let reason = format!("at position {}: {reason}", self.position);
        CleanError::Damaged { path: self.path.clone(), damage: Damage::Batch { offset: -1, reason } }
    }

    /// The next bytes, with at least one whole entry at their beginning.
    async fn next(&self) -> Result<Option<BytesMut>, CleanError> {
        if self.position >= self.end {
            return Ok(None);
        }
        let left = self.end - self.position;
        let mut chunk = self.read(left.min(self.chunk_bytes as u64)).await?;
        let first = Entry::parse(&chunk).map_err(|error| self.damaged(&error.to_string()))?;
        if first.bytes > left || first.bytes > BATCH_BYTES_MAX {
            return Err(self.damaged("a batch that is longer than what is left, or than may be"));
        }
        if first.bytes > chunk.len() as u64 {
            chunk = self.read(first.bytes).await?;
        }
        Ok(Some(chunk))
    }

    async fn read(&self, length: u64) -> Result<BytesMut, CleanError> {
        let read = self.disk.read(&self.file, self.position, length as usize).await;
        let chunk = read.map_err(LogError::io_at(&self.path))?;
        match chunk.len() as u64 == length {
            true => Ok(chunk),
            false => Err(self.damaged("the file ends")),
        }
    }
}

impl<D: Disk> CleanPlan<D> {
    /// Fills the offset map from the dirty part of the log. `aborted`: the aborted transactions with records below the
    /// uncleanable offset.
    pub async fn index<R: Resources>(
        self,
        aborted: Vec<EndedTransaction>,
        bounds: CleanerBounds,
        time: CleanTime,
        resources: R,
    ) -> Result<Cleaning<D, R>, CleanError> {
        let Dirtiness { first_dirty, uncleanable, .. } = self.dirtiness;
        // Each record has an offset of its own.
        let keys_max = u64::try_from(uncleanable - first_dirty).unwrap_or(0);
        let map = OffsetMap::new(bounds.map_bytes_max, bounds.load_factor, keys_max);
        let dirty: Vec<_> = self.segments.iter().filter(|(_, end_offset, _)| *end_offset > first_dirty).collect();
        // The pass meets no marker of a transaction that ended before it begins.
        let begins = dirty.first().map_or(first_dirty, |(base_offset, ..)| *base_offset);
        let ahead = aborted.iter().filter(|transaction| transaction.last_offset >= begins).copied().collect();
        let mut indexing = Indexing::new(map, PassedTransactions::new(ahead), first_dirty);
        let mut bytes_read = 0;
        for (base_offset, end_offset, size) in dirty {
            let mut chunks = Chunks::open(&self.directory, *base_offset, *size, bounds.chunk_bytes).await?;
            indexing.order = Order::within(*base_offset, *end_offset);
            while let Some(chunk) = chunks.next().await? {
                if !resources.moved(chunk.len() as u64).await {
                    return Err(CleanError::Aborted);
                }
                let taken = resources.work(move || {
                    let taken = indexing.take_up(&chunk);
                    (indexing, taken)
                });
                let (given_back, taken) = taken.await.ok_or(CleanError::Busy)?;
                indexing = given_back;
                let taken = taken.map_err(|damage| CleanError::Damaged { path: chunks.path.clone(), damage })?;
                bytes_read += taken as u64;
                chunks.position += taken as u64;
                if indexing.is_full {
                    break;
                }
            }
            if indexing.is_full {
                break;
            }
            // Nothing lies between the last batch and the next segment.
            indexing.map.set_latest_offset(end_offset - 1);
        }
        let end_offset = indexing.map.latest_offset().saturating_add(1).max(first_dirty);
        let transactions = PassedTransactions::new(aborted);
        let mut filtering = Filtering::new(indexing.map, transactions, time.now, time.delete_retention_ms);
        filtering.producers = self.producers;
        let sources = sources(&self.directory, &self.segments, end_offset).await?;
        let limits = SegmentLimits {
            segment_bytes: u64::from(self.segment_bytes),
            index_bytes: u64::from(self.segment_index_bytes),
        };
        let groups: Vec<_> = groups(&sources, limits).into_iter().map(|group| sources[group].to_vec()).collect();
        Ok(Cleaning {
            directory: self.directory,
            resources,
            chunk_bytes: bounds.chunk_bytes,
            filtering: Some(filtering),
            groups: groups.into_iter(),
            index_interval_bytes: self.index_interval_bytes,
            segment_index_bytes: self.segment_index_bytes,
            end_offset,
            bytes_read,
            bytes_written: 0,
        })
    }
}

/// The segments that begin below `end_offset`, with the sizes of their indexes.
async fn sources<D: Disk>(
    directory: &Directory<D>,
    segments: &[(Offset, Offset, u64)],
    end_offset: Offset,
) -> Result<Vec<Source>, LogError> {
    let files = directory.files().await?;
    let bytes = |of: &BTreeMap<Offset, u64>, base_offset: &Offset| of.get(base_offset).copied().unwrap_or(0);
    let below = segments.iter().take_while(|(base_offset, ..)| *base_offset < end_offset);
    let source = |(base_offset, end_offset, size): &(Offset, Offset, u64)| Source {
        base_offset: *base_offset,
        end_offset: *end_offset,
        size: *size,
        offset_index_bytes: bytes(&files.offset_indexes, base_offset),
        time_index_bytes: bytes(&files.time_indexes, base_offset),
    };
    Ok(below.map(source).collect())
}

impl<D: Disk, R: Resources> Cleaning<D, R> {
    /// Cleans the next group of segments into a new one; `None` when all are done. Nothing of the log has changed yet.
    ///
    /// # Errors
    /// What was written is removed again, as far as the disk lets.
    pub async fn clean_group(&mut self) -> Option<Result<Cleaned<D>, CleanError>> {
        let group = self.groups.next()?;
        let cleaned = self.clean_sources(&group).await;
        if cleaned.is_err() {
            remove_unfinished(&self.directory, group[0].base_offset, CLEANED_SUFFIX).await;
        }
        Some(cleaned)
    }

    /// The batches that were kept without a look at their records.
    pub fn undecodable(&mut self) -> Undecodable {
        self.filtering.as_mut().map(|filtering| std::mem::take(&mut filtering.undecodable)).unwrap_or_default()
    }

    async fn clean_sources(&mut self, group: &[Source]) -> Result<Cleaned<D>, CleanError> {
        let base_offset = group[0].base_offset;
        let mut writer =
            Writer::create(&self.directory, base_offset, self.index_interval_bytes, self.segment_index_bytes).await?;
        for source in group {
            let mut chunks = Chunks::open(&self.directory, source.base_offset, source.size, self.chunk_bytes).await?;
            if let Some(filtering) = &mut self.filtering {
                filtering.order = Order::within(source.base_offset, source.end_offset);
            }
            while let Some(chunk) = chunks.next().await? {
                if !self.resources.moved(chunk.len() as u64).await {
                    return Err(CleanError::Aborted);
                }
                let mut filtering = self.filtering.take().ok_or(CleanError::Busy)?;
                let filtered = self.resources.work(move || {
                    let kept = filtering.filter(&chunk);
                    (filtering, kept)
                });
                let (given_back, kept) = filtered.await.ok_or(CleanError::Busy)?;
                self.filtering = Some(given_back);
                let kept = kept.map_err(|damage| CleanError::Damaged { path: chunks.path.clone(), damage })?;
                chunks.position += kept.bytes_read as u64;
                self.bytes_read += kept.bytes_read as u64;
                self.bytes_written += kept.data.len() as u64;
                if !self.resources.moved(kept.data.len() as u64).await {
                    return Err(CleanError::Aborted);
                }
                writer.write(kept).await?;
            }
        }
        let index = self.filtering.as_mut().map(|filtering| filtering.transactions.take_index()).unwrap_or_default();
        let transactions = if index.is_empty() { None } else { Some(index.encode()) };
        writer.finish(group.iter().map(|source| source.base_offset).collect(), transactions).await
    }
}

/// Removes what a cleaning has written so far; the log first, without which the others mean nothing.
async fn remove_unfinished<D: Disk>(directory: &Directory<D>, base_offset: Offset, suffix: &str) {
    for extension in SEGMENT_FILES.into_iter().rev() {
        if let Err(error) = directory.remove(&directory.path_of(base_offset, &format!("{extension}{suffix}"))).await {
            tracing::warn!(%error, "a file of an unfinished compaction is still there");
        }
    }
}

/// The new segment on its way into its files.
struct Writer<D: Disk> {
    directory: Directory<D>,
    base_offset: Offset,
    log: Arc<D::File>,
    position: u64,
    unsynced_bytes: u64,
    index_interval_bytes: u64,
    bytes_since_index_entry: u64,
    offset_index: OffsetIndex,
    time_index: TimeIndex,
    latest: Option<TimeEntry>,
    first_timestamp: Option<i64>,
    end_offset: Offset,
}

impl<D: Disk> Writer<D> {
    async fn create(
        directory: &Directory<D>,
        base_offset: Offset,
        index_interval_bytes: u64,
        segment_index_bytes: u32,
    ) -> Result<Writer<D>, LogError> {
        Ok(Writer {
            log: create_file(directory, base_offset, LOG).await?,
            directory: directory.clone(),
            base_offset,
            position: 0,
            unsynced_bytes: 0,
            index_interval_bytes,
            bytes_since_index_entry: 0,
            offset_index: OffsetIndex::new(base_offset, segment_index_bytes),
            time_index: TimeIndex::new(base_offset, segment_index_bytes),
            latest: None,
            first_timestamp: None,
            end_offset: base_offset,
        })
    }

    fn path(&self, extension: &str) -> PathBuf {
        self.directory.path_of(self.base_offset, &format!("{extension}{CLEANED_SUFFIX}"))
    }

    async fn write(&mut self, kept: Kept) -> Result<(), CleanError> {
        if kept.data.is_empty() {
            return Ok(());
        }
        let reaches = kept.batches.iter().all(|batch| relative_offset(self.base_offset, batch.last_offset).is_some());
        if self.position + kept.data.len() as u64 > SEGMENT_BYTES_MAX || !reaches {
            return Err(CleanError::TooLarge(self.path(LOG)));
        }
        let start = self.position;
        for batch in &kept.batches {
            self.first_timestamp.get_or_insert(batch.max_timestamp);
            if batch.max_timestamp > self.latest.map_or(-1, |latest| latest.timestamp) {
                self.latest = Some(TimeEntry { timestamp: batch.max_timestamp, offset: batch.last_offset });
            }
            let has_room = !self.offset_index.is_full() && !self.time_index.is_full();
            if self.bytes_since_index_entry > self.index_interval_bytes && has_room {
                self.offset_index.push(batch.last_offset, self.position as u32);
                self.latest.into_iter().for_each(|latest| self.time_index.push_if_later(latest));
                self.bytes_since_index_entry = 0;
            }
            self.bytes_since_index_entry += batch.bytes;
            self.end_offset = batch.last_offset + 1;
            self.position += batch.bytes;
        }
        assert_eq!(self.position, start + kept.data.len() as u64, "each batch is noted");
        self.unsynced_bytes += kept.data.len() as u64;
        let written = self.directory.disk.write(&self.log, start, kept.data).await;
        written.map_err(LogError::io_at(&self.path(LOG)))?;
        if self.unsynced_bytes >= SYNC_BYTES {
            self.unsynced_bytes = 0;
            let synced = self.directory.disk.sync(&self.log).await;
            synced.map_err(|error| CleanError::Sync(LogError::io_at(&self.path(LOG))(error)))?;
        }
        Ok(())
    }

    async fn finish(mut self, replaces: Vec<Offset>, transactions: Option<Vec<u8>>) -> Result<Cleaned<D>, CleanError> {
        self.latest.into_iter().for_each(|latest| self.time_index.push_if_later(latest));
        let mut extensions = vec![LOG, OFFSET_INDEX, TIME_INDEX];
        let mut files = vec![(LOG, self.log.clone())];
        let mut small =
            vec![(OFFSET_INDEX, self.offset_index.unwritten().1), (TIME_INDEX, self.time_index.unwritten().1)];
        if let Some(transactions) = transactions {
            extensions.push(TRANSACTION_INDEX);
            small.push((TRANSACTION_INDEX, transactions));
        }
        for (extension, data) in small {
            let file = create_file(&self.directory, self.base_offset, extension).await?;
            if !data.is_empty() {
                let written = self.directory.disk.write(&file, 0, data).await;
                written.map_err(LogError::io_at(&self.path(extension)))?;
            }
            files.push((extension, file));
        }
        let offset_index = files[1].1.clone();
        for (extension, file) in files {
            #[cfg(test)]
            if planted::SWAP_BEFORE_SYNC.get() {
                continue;
            }
            let synced = self.directory.disk.sync(&file).await;
            synced.map_err(|error| CleanError::Sync(LogError::io_at(&self.path(extension))(error)))?;
        }
        Ok(Cleaned {
            replaces,
            size: self.position,
            latest_timestamp: self.latest.map_or(-1, |latest| latest.timestamp),
            first_timestamp: self.first_timestamp,
            end_offset: self.end_offset,
            files: ClosedFiles { log: self.log, offset_index, offset_index_bytes: self.offset_index.bytes() },
            extensions,
            directory: self.directory,
        })
    }
}

/// A file of the new segment; one that an earlier cleaning has left is made empty.
async fn create_file<D: Disk>(
    directory: &Directory<D>,
    base_offset: Offset,
    extension: &str,
) -> Result<Arc<D::File>, LogError> {
    let (file, length) = directory.open(base_offset, &format!("{extension}{CLEANED_SUFFIX}")).await?;
    if length > 0 {
        let path = directory.path_of(base_offset, &format!("{extension}{CLEANED_SUFFIX}"));
        directory.disk.set_length(&file, 0).await.map_err(LogError::io_at(&path))?;
    }
    Ok(file)
}

impl<D: Disk> Cleaned<D> {
    fn base_offset(&self) -> Offset {
        self.replaces[0]
    }

    /// Gives the new segment its names, and takes the old ones theirs.
    ///
    /// # Errors
    /// `SwapFailed`: see there. Others: the log is as it was, and the new files are gone as far as the disk lets.
    pub async fn swap(self, names: NamesHeld) -> Result<Swapped<D>, CleanError> {
        let directory = self.directory.clone();
        if let Err(error) = self.begin_swap().await {
            remove_unfinished(&directory, self.base_offset(), SWAP_SUFFIX).await;
            remove_unfinished(&directory, self.base_offset(), CLEANED_SUFFIX).await;
            return Err(error.into());
        }
        self.finish_swap(names).await.map_err(CleanError::SwapFailed)
    }

    fn path(&self, extension: &str, suffix: &str) -> PathBuf {
        self.directory.path_of(self.base_offset(), &format!("{extension}{suffix}"))
    }

    async fn begin_swap(&self) -> Result<(), LogError> {
        for extension in &self.extensions {
            let from = self.path(extension, CLEANED_SUFFIX);
            let renamed = self.directory.disk.rename(&from, &self.path(extension, SWAP_SUFFIX)).await;
            renamed.map_err(LogError::io_at(&from))?;
        }
        self.directory.sync().await
    }

    async fn finish_swap(self, names: NamesHeld) -> Result<Swapped<D>, LogError> {
        let mut aside = Vec::new();
        for base_offset in &self.replaces {
            // What the producers knew where the new segment begins is what they knew where the old one began.
            let keeps_snapshot = *base_offset == self.base_offset();
            let extensions = SEGMENT_FILES.into_iter().filter(|extension| !keeps_snapshot || *extension != SNAPSHOT);
            aside.extend(self.directory.set_files_aside(*base_offset, extensions).await?);
        }
        for extension in &self.extensions {
            let from = self.path(extension, SWAP_SUFFIX);
            let renamed = self.directory.disk.rename(&from, &self.path(extension, "")).await;
            renamed.map_err(LogError::io_at(&from))?;
        }
        self.directory.sync().await?;
        let mut segment = ClosedSegment::new(self.base_offset(), self.size);
        segment.latest_timestamp.set(Some(self.latest_timestamp));
        segment.first_timestamp = Some(self.first_timestamp.unwrap_or(-1));
        segment.empty_from.set(self.end_offset);
        let has_transactions = self.extensions.contains(&TRANSACTION_INDEX);
        Ok(Swapped { replaces: self.replaces, segment, files: self.files, has_transactions, aside, names })
    }
}

impl CleanError {
    /// The kind of the I/O error behind it.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            CleanError::Log(LogError::Io { source, .. }) => Some(source.kind()),
            _ => None,
        }
    }
}

/// The planted bug that power cuts must find: the new files get their names, and nobody has made them durable.
#[cfg(test)]
pub(crate) mod planted {
    use std::cell::Cell;

    thread_local! {
        pub(crate) static SWAP_BEFORE_SYNC: Cell<bool> = const { Cell::new(false) };
    }
}
