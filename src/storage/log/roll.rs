//! The ends of a segment and of a log: roll, flush, close, delete.

#![forbid(unsafe_code)]

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::ids::Offset;
use crate::base::time::WallMs;
use crate::platform::{Disk, OpenMode};
use crate::storage::log::{Log, LogError, Snapshots};
use crate::storage::log_dir::{DELETE_SUFFIX, aside_name};
use crate::storage::recovery::Directory;
use crate::storage::segment::{
    ActiveSegment, ClosedFiles, ClosedSegment, LOG, OFFSET_INDEX, SNAPSHOT, TIME_INDEX, segment_path,
};

/// What a roll made; goes to [`Log::finish_roll`].
#[derive(Debug)]
pub struct Rolled<D: Disk> {
    base_offset: Offset,
    now: WallMs,
    result: Result<RolledFiles<D>, LogError>,
}

#[derive(Debug)]
struct RolledFiles<D: Disk> {
    /// `None`: it was empty, and is gone.
    old: Option<OldFiles<D>>,
    log: Arc<D::File>,
}

/// The files of the segment that has ended: log, offset index and time index.
#[derive(Debug)]
struct OldFiles<D: Disk> {
    log: Arc<D::File>,
    indexes: [Arc<D::File>; 2],
    snapshot: Option<SnapshotTaken<D::File>>,
}

/// What was made durable; goes to [`Log::finish_flush`].
#[derive(Debug)]
pub struct Flushed {
    end_offset: Offset,
    /// Bytes before that, as [`Log::unflushed_bytes`] counts them.
    flushed_bytes: u64,
    closed: Vec<Offset>,
    /// Of which active segment the transaction index was synced, and how many bytes of it.
    transactions: Option<(Offset, u64)>,
    /// Whether a sync was reached: an error is final from there on.
    began: bool,
    result: Result<(), LogError>,
}

/// The producers at the log end, on their way into a file.
pub(super) struct SnapshotWrite {
    offset: Offset,
    data: Vec<u8>,
    /// Those that are of no use any more.
    old: Vec<Offset>,
}

/// A snapshot that was written, and those that were removed for it.
#[derive(Debug)]
pub(super) struct SnapshotTaken<F> {
    offset: Offset,
    pub bytes: u64,
    removed: Vec<Offset>,
    file: Arc<F>,
}

impl SnapshotWrite {
    /// Not synced: it carries a CRC, and recovery takes an older one if it is not whole.
    pub async fn run<D: Disk>(self, disk: &D, directory: &Path) -> Result<SnapshotTaken<D::File>, LogError> {
        let path = segment_path(directory, self.offset, SNAPSHOT);
        let file = open_empty(disk, &path).await?;
        let bytes = self.data.len() as u64;
        disk.write(&file, 0, self.data).await.map_err(LogError::io_at(&path))?;
        for old in &self.old {
            let path = segment_path(directory, *old, SNAPSHOT);
            match disk.remove_file(&path).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(LogError::io_at(&path)(error)),
                _ => {}
            }
        }
        Ok(SnapshotTaken { offset: self.offset, bytes, removed: self.old, file })
    }
}

/// What brings a segment's index files up to date.
pub(super) struct IndexWrite<D: Disk> {
    pub disk: D,
    pub directory: PathBuf,
    pub base_offset: Offset,
    pub offset_index: (u64, Vec<u8>),
    pub time_index: (u64, Vec<u8>),
    /// Cut the files to their entries: an active segment's may have been preallocated by Kafka.
    pub trim: bool,
}

impl<D: Disk> IndexWrite<D> {
    /// The files are opened for it each time: it is needed once in some MiB, and open files are few. The time index is
    /// never behind the offset index, whose last entry is where a start after a kill begins to look.
    pub async fn run(self) -> Result<[Arc<D::File>; 2], LogError> {
        let path = |extension| segment_path(&self.directory, self.base_offset, extension);
        let (offset_path, time_path) = (path(OFFSET_INDEX), path(TIME_INDEX));
        let files = [open(&self.disk, &offset_path).await?.0, open(&self.disk, &time_path).await?.0];
        let writes = [(&files[1], self.time_index, time_path), (&files[0], self.offset_index, offset_path)];
        for (file, (position, data), path) in writes {
            let end = position + data.len() as u64;
            if !data.is_empty() {
                self.disk.write(file, position, data).await.map_err(LogError::io_at(&path))?;
            }
            if self.trim {
                self.disk.set_length(file, end).await.map_err(LogError::io_at(&path))?;
            }
        }
        Ok(files)
    }
}

/// A log file that may have been closed to save descriptors.
pub(super) struct LazyFile<D: Disk> {
    disk: D,
    open: Option<Arc<D::File>>,
    path: PathBuf,
}

impl<D: Disk> LazyFile<D> {
    pub async fn open(self) -> Result<Arc<D::File>, LogError> {
        match self.open {
            Some(file) => Ok(file),
            None => Ok(open(&self.disk, &self.path).await?.0),
        }
    }
}

async fn open<D: Disk>(disk: &D, path: &Path) -> Result<(Arc<D::File>, u64), LogError> {
    disk.open(path, OpenMode::ReadWrite).await.map_err(LogError::io_at(path))
}

/// Opens a file and makes it empty, should one of that name be left over.
async fn open_empty<D: Disk>(disk: &D, path: &Path) -> Result<Arc<D::File>, LogError> {
    let (file, length) = open(disk, path).await?;
    if length > 0 {
        disk.set_length(&file, 0).await.map_err(LogError::io_at(path))?;
    }
    Ok(file)
}

impl<D: Disk> Log<D> {
    pub(super) fn active_path(&self) -> PathBuf {
        segment_path(&self.directory, self.active.base_offset, LOG)
    }

    pub(super) fn index_write(&self, trim: bool) -> IndexWrite<D> {
        IndexWrite {
            disk: self.disk.clone(),
            directory: self.directory.clone(),
            base_offset: self.active.base_offset,
            offset_index: self.active.offset_index.unwritten(),
            time_index: self.active.time_index.unwritten(),
            trim,
        }
    }

    /// What gives back the blocks reserved behind the log end.
    pub(super) fn give_back_blocks(&self) -> Option<impl Future<Output = Result<(), LogError>> + use<D> + 'static> {
        (self.active.preallocated_end > self.active.size).then(|| {
            let (disk, file, size) = (self.disk.clone(), self.active_file(), self.active.size);
            let path = self.active_path();
            async move { disk.give_back(&file.open().await?, size).await.map_err(LogError::io_at(&path)) }
        })
    }

    /// The same for closed segments: not at their roll, for which appends wait, since what frees blocks may have to read
    /// the file system's own maps behind whatever the device has to do.
    pub(super) fn give_back_closed_blocks(&self) -> impl Future<Output = Result<(), LogError>> + use<D> + 'static {
        let disk = self.disk.clone();
        let reserved = self.closed.values().filter_map(|segment| {
            let path = segment_path(&self.directory, segment.base_offset, LOG);
            Some((segment.reserved.clone()?, segment.size, path))
        });
        let reserved: Vec<_> = reserved.collect();
        async move {
            for (file, size, path) in reserved {
                disk.give_back(&file, size).await.map_err(LogError::io_at(&path))?;
            }
            Ok(())
        }
    }

    pub(super) fn active_file(&self) -> LazyFile<D> {
        LazyFile { disk: self.disk.clone(), open: self.active.file(), path: self.active_path() }
    }

    /// Nothing is on its way, and the active segment holds something.
    pub fn can_roll(&self) -> bool {
        self.is_quiet() && !self.run.fenced && !self.run.rolling && self.active.size > 0
    }

    /// Ends the active segment and makes the next one, whose base offset is the log end's or, of a leader's compacted log, the
    /// next batch's behind it (Kafka 3.9 `UnifiedLog.maybeRoll`). Nothing may be staged or in flight; until `finish_roll`,
    /// `stage` answers `RollFirst`.
    ///
    /// An empty segment stays if offsets are missing from where it begins: that may be where the log starts. If it begins
    /// behind the next one, it goes away.
    pub fn begin_roll(
        &mut self,
        base_offset: Offset,
        now: WallMs,
    ) -> impl Future<Output = Rolled<D>> + use<D> + 'static {
        assert!(self.is_quiet() && !self.run.fenced && !self.run.rolling, "a roll stands between writes");
        let old_base = self.active.base_offset;
        assert!(self.active.size > 0 || old_base != base_offset, "an empty segment is not rolled to itself");
        assert!(base_offset >= self.log_end_offset, "segments follow one another");
        self.run.rolling = true;
        self.active.force_time_entry();
        let (disk, directory) = (self.disk.clone(), self.directory.clone());
        let (indexes, old_log, snapshot) = (self.index_write(true), self.active_file(), self.snapshot_write());
        // The recovery point may stand here already: the segment that ends there is not checked after a crash, once another
        // one begins there.
        let is_passed = self.flushed_offset == self.log_end_offset;
        async move {
            let path = segment_path(&directory, base_offset, LOG);
            let files = async {
                if old_base > base_offset {
                    let log = open_empty(&disk, &path).await?;
                    let directory = Directory { disk: disk.clone(), path: directory.clone() };
                    for aside in directory.set_aside(old_base).await? {
                        directory.remove(&aside).await?;
                    }
                    return Ok(RolledFiles { old: None, log });
                }
                let indexes = indexes.run().await?;
                if is_passed {
                    for file in &indexes {
                        disk.sync(file).await.map_err(LogError::io_at(&directory))?;
                    }
                }
                let snapshot = match snapshot {
                    Some(write) => Some(write.run(&disk, &directory).await?),
                    None => None,
                };
                let old = OldFiles { log: old_log.open().await?, indexes, snapshot };
                Ok(RolledFiles { old: Some(old), log: open_empty(&disk, &path).await? })
            };
            Rolled { base_offset, now, result: files.await }
        }
    }

    /// The new segment is the active one; [`Log::flush`] the old one in the background.
    ///
    /// # Errors
    /// The old segment stays active, and the next append tries again.
    pub fn finish_roll(&mut self, rolled: Rolled<D>) -> Result<(), LogError> {
        assert!(self.run.rolling && rolled.base_offset >= self.log_end_offset, "nothing was appended meanwhile");
        self.run.rolling = false;
        self.run.touched = true;
        let RolledFiles { old: old_files, log } = rolled.result?;
        self.run.behind.snapshot_position = self.run.appended_bytes;
        self.run.rolled_bytes = self.run.written_bytes();
        let next = ActiveSegment::new(rolled.base_offset, log, &self.open_files, &self.config, rolled.now);
        let old = std::mem::replace(&mut self.active, next);
        let Some(OldFiles { log: old_log, indexes, snapshot }) = old_files else {
            self.run.names_unsynced = true;
            return Ok(());
        };

        let mut closed = ClosedSegment::new(old.base_offset, old.size);
        closed.fence = old.fence.clone();
        closed.reserved = (old.preallocated_end > old.size).then(|| old_log.clone());
        closed.latest_timestamp.set(Some(old.latest.map_or(-1, |latest| latest.timestamp)));
        closed.first_timestamp = old.first_timestamp;
        let [offset_index, time_index] = indexes;
        closed.unsynced = vec![old_log.clone(), offset_index.clone(), time_index];
        closed.unsynced.extend(old.transactions.unsynced);
        let offset_index_bytes = old.offset_index.bytes();
        closed.files = Some(self.open_files.filled(ClosedFiles { log: old_log, offset_index, offset_index_bytes }));
        if let Some(snapshot) = snapshot {
            closed.unsynced.push(snapshot.file.clone());
            self.took_snapshot(snapshot);
        }
        self.closed.insert(old.base_offset, closed);
        Ok(())
    }

    /// The producers at the log end, which is where the newest batch of theirs ends: [`Log::is_quiet`]. `None` if that
    /// snapshot is there.
    pub(super) fn snapshot_write(&self) -> Option<SnapshotWrite> {
        let offset = self.log_end_offset;
        if self.snapshots.newest == Some(offset) {
            return None;
        }
        // Of those between segment bases a newer one takes the place, but for one that a start after a power cut can use,
        // and the one before this, which a start after a kill needs that comes soon.
        let between = || self.snapshots.between.iter().copied().filter(|old| !self.is_base(*old));
        let durable = between().filter(|old| *old <= self.recovery_point()).max();
        let before = between().max();
        let old = between().filter(|old| Some(*old) != durable && Some(*old) != before).collect();
        Some(SnapshotWrite { offset, data: self.producers.encode_snapshot(), old })
    }

    pub(super) fn is_base(&self, offset: Offset) -> bool {
        self.closed.contains_key(&offset) || offset == self.active.base_offset
    }

    /// One that a roll has passed meanwhile goes with the next.
    pub(super) fn took_snapshot(&mut self, taken: SnapshotTaken<D::File>) {
        let SnapshotTaken { offset, removed, .. } = taken;
        let is_base = self.is_base(offset);
        let Snapshots { newest, between } = &mut self.snapshots;
        between.retain(|old| !removed.contains(old));
        if !is_base {
            between.insert(offset);
        }
        *newest = (*newest).max(Some(offset));
    }

    /// Makes durable what is written now; then [`Log::flushed_offset`] is at least the log end of now.
    pub fn flush(&mut self) -> impl Future<Output = Flushed> + use<D> + 'static {
        let active = (self.flushed_offset < self.log_end_offset).then(|| self.active_file());
        self.flush_up_to(self.log_end_offset, self.run.written_bytes(), active)
    }

    /// The same for the closed segments alone: a file that is appended to is left in peace, since an append waits for the
    /// pages at its end while they are written back. Then [`Log::flushed_offset`] is at least the active segment's base
    /// offset. `None` if they are durable. Not beside a [`Log::flush`]; ends with [`Log::finish_flush`] too.
    pub fn flush_closed(&mut self) -> Option<impl Future<Output = Flushed> + use<D> + 'static> {
        let has_unsynced = self.closed.values().any(|segment| !segment.unsynced.is_empty());
        // The active one may have been made for a batch that is not written yet, with offsets missing before it.
        let end_offset = self.active.base_offset.min(self.log_end_offset);
        has_unsynced.then(|| self.flush_up_to(end_offset, self.run.rolled_bytes, None))
    }

    fn flush_up_to(
        &self,
        end_offset: Offset,
        flushed_bytes: u64,
        active: Option<LazyFile<D>>,
    ) -> impl Future<Output = Flushed> + use<D> + 'static {
        let unsynced = || self.closed.values().filter(|segment| !segment.unsynced.is_empty());
        let closed: Vec<_> = unsynced().map(|segment| segment.base_offset).collect();
        let give_back = self.give_back_closed_blocks();
        let mut files: Vec<_> = unsynced()
            .flat_map(|segment| {
                let path = segment_path(&self.directory, segment.base_offset, LOG);
                segment.unsynced.iter().map(move |file| (file.clone(), path.clone()))
            })
            .collect();
        let transactions = self.active.transactions.unsynced.clone().filter(|_| active.is_some());
        let synced_transactions =
            transactions.is_some().then_some((self.active.base_offset, self.active.transactions.bytes));
        files.extend(transactions.map(|file| (file, self.directory.clone())));
        let (disk, directory) = (self.disk.clone(), self.directory.clone());
        // A segment that follows a rolled one has a name that is not durable yet.
        let has_new_name = !closed.is_empty() || self.run.names_unsynced;
        async move {
            let mut began = false;
            let synced = async {
                give_back.await?;
                if let Some(active) = active {
                    let path = active.path.clone();
                    files.push((active.open().await?, path));
                }
                began = true;
                for (file, path) in files {
                    disk.sync(&file).await.map_err(LogError::io_at(&path))?;
                }
                match has_new_name {
                    true => disk.sync_directory(&directory).await.map_err(LogError::io_at(&directory)),
                    false => Ok(()),
                }
            };
            let result = synced.await;
            Flushed { end_offset, flushed_bytes, closed, transactions: synced_transactions, began, result }
        }
    }

    /// # Errors
    /// Of a sync: final for the log. What could not be synced must not be acknowledged as durable, ever, and since its
    /// pages count as clean now, no later sync tells. The flushed offset stays until recovery has read the files again.
    pub fn finish_flush(&mut self, flushed: Flushed) -> Result<(), LogError> {
        self.run.flush_failed |= flushed.began && flushed.result.is_err();
        flushed.result?;
        self.refuse_after_failed_flush()?;
        self.run.names_unsynced = false;
        for base_offset in flushed.closed {
            if let Some(segment) = self.closed.get_mut(&base_offset) {
                (segment.unsynced, segment.reserved) = (Vec::new(), None);
            }
        }
        let transactions = &mut self.active.transactions;
        if flushed.transactions == Some((self.active.base_offset, transactions.bytes)) && !transactions.is_ahead {
            transactions.unsynced = None;
        }
        self.flushed_offset = self.flushed_offset.max(flushed.end_offset);
        self.run.flushed_bytes = self.run.flushed_bytes.max(flushed.flushed_bytes);
        self.pin_unflushed();
        Ok(())
    }

    /// A sync has failed: nothing becomes durable any more until the log is opened anew.
    pub fn has_failed(&self) -> bool {
        self.run.flush_failed
    }

    fn refuse_after_failed_flush(&self) -> Result<(), LogError> {
        match self.run.flush_failed {
            true => Err(LogError::io_at(&self.directory)(io::Error::other("an earlier sync failed"))),
            false => Ok(()),
        }
    }

    /// An orderly stop: everything durable, indexes trimmed, producer snapshot at the log end. [`Log::is_quiet`], and
    /// no other future of this log may be outstanding. Resolves to the log end offset, which is the recovery point
    /// then.
    ///
    /// A fenced log may be closed: its file is cut back as a repair does.
    pub fn close(mut self) -> impl Future<Output = Result<Offset, LogError>> + use<D> + 'static {
        assert!(self.is_quiet() && !self.run.rolling, "a log is closed between writes");
        let end_offset = self.log_end_offset;
        self.active.force_time_entry();
        let epochs = self.epochs_write();
        async move {
            self.refuse_after_failed_flush()?;
            if let Some(epochs) = epochs {
                epochs.await?;
            }
            if !self.run.touched && !self.run.fenced {
                return Ok(end_offset);
            }
            let log_path = self.active_path();
            if self.run.fenced || self.active.preallocated_end > self.active.size {
                let file = self.active_file().open().await?;
                self.disk.set_length(&file, self.active.size).await.map_err(LogError::io_at(&log_path))?;
            }
            if let Some(transactions) = self.cut_transactions() {
                transactions.await?;
            }
            let indexes = self.index_write(true).run().await?;
            for file in &indexes {
                self.disk.sync(file).await.map_err(LogError::io_at(&log_path))?;
            }
            if end_offset > self.log_start_offset
                && let Some(snapshot) = self.snapshot_write()
            {
                let taken = snapshot.run(&self.disk, &self.directory).await?;
                self.disk.sync(&taken.file).await.map_err(LogError::io_at(&log_path))?;
            }
            self.flush().await.result?;
            let directory = &self.directory;
            self.disk.sync_directory(directory).await.map_err(LogError::io_at(directory))?;
            Ok(end_offset)
        }
    }

    /// Takes the partition's directory out of the way (`-delete`, as Kafka names it) and removes it. A crash in between
    /// leaves a directory that the next scan finds. Ranges still held stay readable.
    pub fn delete(self) -> impl Future<Output = Result<(), LogError>> + use<D> + 'static {
        let name = aside_name(&self.topic_partition, self.topic_id.0, DELETE_SUFFIX);
        let (closed, active) = (self.give_back_closed_blocks(), self.give_back_blocks());
        async move {
            let give_back = async {
                closed.await?;
                match active {
                    Some(active) => active.await,
                    None => Ok(()),
                }
            };
            // A reader may hold a file open for long.
            if let Err(error) = give_back.await {
                tracing::debug!(partition = %self.topic_partition, %error, "reserved blocks go with the file");
            }
            let aside = self.directory.with_file_name(name);
            self.disk.rename(&self.directory, &aside).await.map_err(LogError::io_at(&self.directory))?;
            if let Some(log_dir) = self.directory.parent() {
                self.disk.sync_directory(log_dir).await.map_err(LogError::io_at(log_dir))?;
            }
            self.disk.remove_directory(&aside).await.map_err(LogError::io_at(&aside))
        }
    }
}
