//! Finding where the bytes of a fetch are, without waiting.
//!
//! Near the tail everything comes from memory. Further back an index says where to start walking from, and the heads of
//! the batches are read as far as the page cache holds them; what is missing is named, for the caller to bring in.

#![forbid(unsafe_code)]

use std::future::Future;
use std::io;
use std::ops::Bound;
use std::sync::Arc;

use crate::base::ids::Offset;
use crate::platform::{Disk, Fence, FileRange, OpenMode};
use crate::storage::entry::{Entry, HEAD_BYTES_MAX};
use crate::storage::held::Held;
use crate::storage::log::{Log, LogError};
use crate::storage::offset_index::{OffsetEntry, Search, search_resident};
use crate::storage::segment::{ActiveFiles, BatchPlace, ClosedFiles, ClosedSegment, LOG, OFFSET_INDEX, segment_path};

/// Bytes that a walk over batch heads reads at once: the default distance of index entries.
const WALK_CHUNK_BYTES: usize = 4096;

/// Where the bytes of a fetch are.
#[derive(Debug)]
pub enum Read<F> {
    Range {
        /// Starts at the batch that holds the offset. At most the bytes asked for; the last batch may be cut short.
        range: FileRange<F>,
        /// Bytes of the first batch; may exceed `range.length`, then the caller may extend the range to it.
        first_batch_bytes: u64,
        /// Base offset of the first batch.
        base_offset: Offset,
        /// This process appended these bytes recently: they are resident, no need to ask.
        recently_appended: bool,
    },
    /// Nothing at or past the offset below the ceiling.
    Empty,
    /// Below the log start or past the log end.
    OutOfRange,
    /// What is needed to find the batch is not in the page cache: run [`Disk::make_resident`] and read again. If the same is
    /// needed once more, it was evicted meanwhile: [`Disk::read`] it, and hold it while reading again.
    NeedPages { file: Arc<F>, position: u64, length: u64 },
    /// The segment's files are not open: run [`Log::load_segment`], [`Log::finish_load_segment`], and read again.
    NeedSegment { base_offset: Offset },
    /// The disk failed, or the segment is damaged where the offset should be (`InvalidData`).
    Io(io::Error),
}

/// A segment's files, open; goes to [`Log::finish_load_segment`].
#[derive(Debug)]
pub struct LoadedSegment<D: Disk> {
    base_offset: Offset,
    /// How often segments had changed when it was begun.
    changes: u64,
    result: Result<LoadedFiles<D::File>, LogError>,
}

#[derive(Debug)]
enum LoadedFiles<F> {
    Active(ActiveFiles<F>),
    Closed(ClosedFiles<F>),
}

/// Where in one segment an offset is.
enum Place {
    /// The first batch that ends at or past it.
    At(BatchPlace),
    /// Behind the segment's last batch.
    PastEnd,
}

/// A segment as a read sees it.
struct Source<'a, F> {
    file: Arc<F>,
    fence: &'a Arc<Fence>,
    size: u64,
    /// Base offset of the next segment, or the log end.
    end_offset: Offset,
}

impl<D: Disk> Log<D> {
    /// Where the batches from the one that holds `offset` on are, below `ceiling` (an offset that is excluded: high
    /// watermark, last stable offset or log end). The range ends within one segment.
    pub fn read(&self, offset: Offset, bytes_max: u64, ceiling: Offset) -> Read<D::File> {
        self.read_holding(&Held::default(), offset, bytes_max, ceiling)
    }

    /// The same, with bytes at hand that need not be in the page cache any more.
    pub fn read_holding(&self, held: &Held<D::File>, offset: Offset, bytes_max: u64, ceiling: Offset) -> Read<D::File> {
        if offset < self.log_start_offset || offset > self.log_end_offset {
            return Read::OutOfRange;
        }
        let ceiling = ceiling.min(self.log_end_offset);
        if offset >= ceiling {
            return Read::Empty;
        }
        self.find_range(held, offset, bytes_max, ceiling).unwrap_or_else(|need| need)
    }

    fn find_range(
        &self,
        held: &Held<D::File>,
        offset: Offset,
        bytes_max: u64,
        ceiling: Offset,
    ) -> Result<Read<D::File>, Read<D::File>> {
        let mut segment = self.segment_of(offset);
        loop {
            // Compaction can leave a gap behind a segment's last batch, and segments without any. Those are passed over
            // unopened: a row of them must not need more open files than a log may have.
            let closed = self.closed.get(&segment);
            let is_empty = closed.is_some_and(|closed| offset >= closed.empty_from.get());
            let place = if is_empty { Place::PastEnd } else { self.locate(held, segment, offset)? };
            if let (Place::PastEnd, Some(closed)) = (&place, closed) {
                closed.empty_from.set(closed.empty_from.get().min(offset));
            }
            match place {
                Place::At(first) if first.base_offset >= ceiling => return Ok(Read::Empty),
                Place::At(first) => return self.range_from(held, segment, first, bytes_max, ceiling),
                Place::PastEnd => segment = self.next_segment(segment).ok_or(Read::Empty)?,
            }
        }
    }

    fn range_from(
        &self,
        held: &Held<D::File>,
        segment: Offset,
        first: BatchPlace,
        bytes_max: u64,
        ceiling: Offset,
    ) -> Result<Read<D::File>, Read<D::File>> {
        let source = self.source(segment)?;
        let end = match ceiling >= source.end_offset {
            true => source.size,
            false => match self.locate(held, segment, ceiling)? {
                Place::At(batch) => batch.position,
                Place::PastEnd => source.size,
            },
        };
        // A ceiling inside the first batch does not split it.
        let available = end.saturating_sub(first.position).max(first.bytes);
        let (file, fence) = (source.file, source.fence.clone());
        Ok(Read::Range {
            range: FileRange { file, position: first.position, length: available.min(bytes_max), fence },
            first_batch_bytes: first.bytes,
            base_offset: first.base_offset,
            recently_appended: segment == self.active.base_offset && self.active.is_hot(first.position),
        })
    }

    /// Base offset of the segment that holds `offset`, which is not below the log start.
    pub(super) fn segment_of(&self, offset: Offset) -> Offset {
        if offset >= self.active.base_offset {
            return self.active.base_offset;
        }
        let below = self.closed.range(..=offset).next_back().or(self.closed.first_key_value());
        below.map_or(self.active.base_offset, |(base_offset, _)| *base_offset)
    }

    pub(super) fn next_segment(&self, segment: Offset) -> Option<Offset> {
        if segment == self.active.base_offset {
            return None;
        }
        let above = self.closed.range((Bound::Excluded(segment), Bound::Unbounded)).next();
        Some(above.map_or(self.active.base_offset, |(base_offset, _)| *base_offset))
    }

    fn source(&self, segment: Offset) -> Result<Source<'_, D::File>, Read<D::File>> {
        if segment == self.active.base_offset {
            let active = &self.active;
            let end_offset = self.log_end_offset;
            return Ok(Source { file: self.active_open()?, fence: &active.fence, size: active.size, end_offset });
        }
        let (closed, files) = self.closed_files(segment)?;
        let end_offset = self.next_segment(segment).unwrap_or(self.log_end_offset);
        Ok(Source { file: files.log, fence: &closed.fence, size: closed.size, end_offset })
    }

    fn active_open(&self) -> Result<Arc<D::File>, Read<D::File>> {
        self.active.file().ok_or(Read::NeedSegment { base_offset: self.active.base_offset })
    }

    fn closed_files(&self, segment: Offset) -> Result<(&ClosedSegment<D::File>, ClosedFiles<D::File>), Read<D::File>> {
        let closed = self.closed.get(&segment);
        let files = closed.filter(|_| !self.is_index_doubted(segment));
        let files = files.and_then(|closed| Some((closed, closed.files.as_ref()?.get()?)));
        files.ok_or(Read::NeedSegment { base_offset: segment })
    }

    fn locate(&self, held: &Held<D::File>, segment: Offset, offset: Offset) -> Result<Place, Read<D::File>> {
        if segment == self.active.base_offset {
            if offset >= self.log_end_offset {
                return Ok(Place::PastEnd);
            }
            return match self.active.recent_place(offset) {
                Some(place) => Ok(Place::At(place)),
                None => {
                    let file = self.active_open()?;
                    let indexed = self.search_active(held, offset)?;
                    self.walk(held, &file, segment, indexed, self.active.size, offset)
                }
            };
        }
        let (closed, files) = self.closed_files(segment)?;
        let indexed = self.search(held, &files.offset_index, files.offset_index_bytes, segment, offset)?;
        self.walk(held, &files.log, segment, indexed, closed.size, offset)
    }

    /// In memory, or in the file for what memory has forgotten.
    fn search_active(&self, held: &Held<D::File>, offset: Offset) -> Result<Option<OffsetEntry>, Read<D::File>> {
        let (base_offset, index) = (self.active.base_offset, &self.active.offset_index);
        if index.covers(offset) {
            return Ok(index.lookup(offset));
        }
        if self.is_index_doubted(base_offset) {
            return Ok(None);
        }
        let files = self.active.files.get();
        let file = files.and_then(|files| files.offset_index).ok_or(Read::NeedSegment { base_offset })?;
        self.search(held, &file, index.written_bytes(), base_offset, offset)
    }

    fn search(
        &self,
        held: &Held<D::File>,
        file: &Arc<D::File>,
        length: u64,
        segment: Offset,
        offset: Offset,
    ) -> Result<Option<OffsetEntry>, Read<D::File>> {
        match search_resident(length, segment, offset, |position, buffer| held.read(&self.disk, file, position, buffer))
        {
            Search::Entry(indexed) => Ok(indexed),
            Search::NeedPages { position, length } => Err(Read::NeedPages { file: file.clone(), position, length }),
            Search::Io(error) => Err(Read::Io(error)),
        }
    }

    /// Goes from batch to batch, from that of an index entry on, to the first that ends at or past `offset`.
    fn walk(
        &self,
        held: &Held<D::File>,
        file: &Arc<D::File>,
        segment: Offset,
        mut indexed: Option<OffsetEntry>,
        end: u64,
        offset: Offset,
    ) -> Result<Place, Read<D::File>> {
        let mut chunk = [0; WALK_CHUNK_BYTES];
        let mut position = indexed.map_or(0, |indexed| u64::from(indexed.position));
        if indexed.is_some() && position >= end {
            return self.walk_without_index(held, file, segment, end, offset);
        }
        while position < end {
            let wanted = (end - position).min(WALK_CHUNK_BYTES as u64) as usize;
            let head_bytes = wanted.min(HEAD_BYTES_MAX);
            let count = held.read(&self.disk, file, position, &mut chunk[..wanted]).map_err(Read::Io)?;
            let Some(count) = count.filter(|count| *count >= head_bytes) else {
                return Err(Read::NeedPages { file: file.clone(), position, length: wanted as u64 });
            };
            let mut rest = &chunk[..count];
            while rest.len() >= head_bytes {
                let parsed = Entry::parse(rest);
                if let Some(indexed) = indexed.take()
                    && !parsed.is_ok_and(|entry| indexed.points_at(segment, entry.last_offset))
                {
                    return self.walk_without_index(held, file, segment, end, offset);
                }
                let entry = parsed.map_err(|error| Read::Io(damaged(position, error)))?;
                if entry.last_offset >= offset {
                    let Entry { base_offset, last_offset, bytes, .. } = entry;
                    return Ok(Place::At(BatchPlace { base_offset, last_offset, position, bytes }));
                }
                position += entry.bytes;
                rest = rest.get(entry.bytes as usize..).unwrap_or_default();
            }
        }
        Ok(Place::PastEnd)
    }

    /// The index does not point at its batches: a closed segment's is made anew before it is read again, the active one's
    /// is done without.
    fn walk_without_index(
        &self,
        held: &Held<D::File>,
        file: &Arc<D::File>,
        segment: Offset,
        end: u64,
        offset: Offset,
    ) -> Result<Place, Read<D::File>> {
        self.doubt_index(segment);
        match segment == self.active.base_offset {
            true => self.walk(held, file, segment, None, end, offset),
            false => Err(Read::NeedSegment { base_offset: segment }),
        }
    }

    /// Opens a segment's files, the active one's for appends too. A closed segment's index in doubt is made anew first.
    pub fn load_segment(&self, base_offset: Offset) -> impl Future<Output = LoadedSegment<D>> + use<D> + 'static {
        let reindex = self.reindex(base_offset);
        let log_path = segment_path(&self.directory, base_offset, LOG);
        let index_path = segment_path(&self.directory, base_offset, OFFSET_INDEX);
        let disk = self.disk.clone();
        let is_active = base_offset == self.active.base_offset;
        let needs_index = !is_active || self.active.offset_index.has_forgotten();
        // Only a truncation changes the active segment's name, which shows when it is loaded: appends do not wait for others.
        let changes = self.names.changes();
        let names = (!is_active).then(|| self.names.ask());
        async move {
            let mode = if is_active { OpenMode::ReadWrite } else { OpenMode::Read };
            let opened = async {
                let _names = match names {
                    Some(names) => Some(names.hold().await?),
                    None => None,
                };
                if let Some(reindex) = reindex {
                    reindex.await?;
                }
                let log = disk.open(&log_path, mode).await;
                let (log, _) = log.map_err(LogError::io_at(&log_path))?;
                if !needs_index {
                    return Ok(LoadedFiles::Active(ActiveFiles { log, offset_index: None }));
                }
                let index = disk.open(&index_path, OpenMode::Read).await;
                let (offset_index, offset_index_bytes) = index.map_err(LogError::io_at(&index_path))?;
                Ok(match is_active {
                    true => LoadedFiles::Active(ActiveFiles { log, offset_index: Some(offset_index) }),
                    false => LoadedFiles::Closed(ClosedFiles { log, offset_index, offset_index_bytes }),
                })
            };
            LoadedSegment { base_offset, changes, result: opened.await }
        }
    }

    /// Opens the segment that is appended to.
    pub fn load_active(&self) -> impl Future<Output = LoadedSegment<D>> + use<D> + 'static {
        self.load_segment(self.active.base_offset)
    }

    /// Keeps the files open for a while, unless the segments have changed meanwhile: then the next read asks anew.
    pub fn finish_load_segment(&mut self, loaded: LoadedSegment<D>) -> Result<(), LogError> {
        let LoadedSegment { base_offset, changes, result } = loaded;
        let files = match result {
            Err(LogError::SegmentsChanged) => return Ok(()),
            result => result?,
        };
        match files {
            LoadedFiles::Active(ActiveFiles { log, offset_index })
                if base_offset == self.active.base_offset && changes == self.names.changes() =>
            {
                // Another reader may have been faster, and bytes appended through its handle are to be flushed.
                let open = self.active.files.get();
                let offset_index = offset_index.or_else(|| open.as_ref()?.offset_index.clone());
                self.active.files.put(ActiveFiles { log: open.map_or(log, |open| open.log), offset_index });
            }
            // A roll or a truncation came between.
            LoadedFiles::Active(_) => {}
            LoadedFiles::Closed(files) => {
                if let Some(segment) = self.closed.get_mut(&base_offset) {
                    self.run.doubted.get_mut().remove(&base_offset);
                    segment.files.get_or_insert_with(|| self.open_files.slot()).put(files);
                }
            }
        }
        Ok(())
    }
}

fn damaged(position: u64, error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("at position {position}: {error}"))
}
