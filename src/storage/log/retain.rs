//! The beginning of a log: what has expired goes, and the log start moves (Kafka 3.9 `UnifiedLog.deleteSegments`,
//! `maybeIncrementLogStartOffset`).
//!
//! ```text
//!  log start moves (nobody reads below from now on) -> names held alone -> oldest first: files become .deleted -> the
//!  directory is synced -> the log forgets the segments -> names let go -> after file.delete.delay.ms the files go
//! ```
//! A crash in between leaves a log that begins at any of the segments on the way, with no gap in it. What goes has no
//! unsynced files: the producer snapshot that the rest begins with is durable.

#![forbid(unsafe_code)]

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use crate::base::ids::Offset;
use crate::base::time::WallMs;
use crate::platform::Disk;
use crate::storage::log::names::{Names, NamesHeld};
use crate::storage::log::{LEADER_EPOCH_CHECKPOINT, Log, LogError};
use crate::storage::recovery::Timed;
use crate::storage::retention::{Expiry, RetentionPolicy, SegmentAge, expired};
use crate::storage::segment::LOG;

/// How new a segment is; goes to [`Log::finish_age`].
#[derive(Debug)]
pub struct Age {
    base_offset: Offset,
    /// The latest timestamp, -1 if there is none; then also when the file was changed last.
    result: Result<(i64, Option<WallMs>), LogError>,
}

/// What [`Log::take_out`] did; goes to [`Log::finish_take_out`].
#[derive(Debug)]
pub struct TakenOut {
    /// Segments whose files have other names now, durably if there is no error.
    segments: Vec<Offset>,
    files: Vec<PathBuf>,
    error: Option<LogError>,
    names: NamesHeld,
}

/// What is to be done about expired segments.
#[derive(Debug, PartialEq, Eq)]
pub enum Retention {
    /// Nothing has expired.
    Keep,
    /// [`Log::age`] of this segment is to be known first.
    NeedsAge(Offset),
    /// All of the log has expired: the active segment is to be rolled first.
    RollFirst,
    /// What has expired is to be flushed first.
    FlushFirst,
    /// The segments below this base offset go.
    DeleteBelow(Offset),
}

impl<D: Disk> Log<D> {
    /// Says what has expired. `modified`: when the active segment's file was changed last, if somebody looked.
    pub fn retention(
        &self,
        policy: RetentionPolicy,
        high_watermark: Offset,
        now: WallMs,
        modified: Option<WallMs>,
    ) -> Retention {
        let active = SegmentAge {
            end_offset: self.log_end_offset,
            size: self.active.size,
            is_active: true,
            newest: self.active.latest.map(|latest| latest.timestamp).or(modified),
        };
        let ends = self.closed.keys().skip(1).copied().chain([self.active.base_offset]);
        let closed = self.closed.values().zip(ends).map(|(segment, end_offset)| SegmentAge {
            end_offset,
            size: segment.size,
            is_active: false,
            newest: match segment.latest_timestamp.get() {
                // What compaction has emptied is made anew with each cleaning, and keeps nothing.
                _ if segment.size == 0 => Some(WallMs::MIN),
                Some(latest) if latest >= 0 => Some(latest),
                Some(_) => segment.modified,
                None => None,
            },
        });
        let base_of = |index: usize| self.closed.keys().nth(index).copied().unwrap_or(self.active.base_offset);
        match expired(closed.chain([active]), self.log_start_offset, high_watermark, policy, now) {
            Expiry::Oldest(0) => Retention::Keep,
            Expiry::NeedsAge(index) => Retention::NeedsAge(base_of(index)),
            Expiry::Oldest(count) if count > self.closed.len() => Retention::RollFirst,
            Expiry::Oldest(count) if self.closed.values().take(count).any(|segment| !segment.unsynced.is_empty()) => {
                Retention::FlushFirst
            }
            Expiry::Oldest(count) => Retention::DeleteBelow(base_of(count)),
        }
    }

    /// Looks how new a segment is: by its time index, or by its file where no record has a timestamp.
    pub fn age(&self, base_offset: Offset) -> impl Future<Output = Age> + use<D> + 'static {
        let (directory, names) = (self.files_of(), self.names.ask());
        let end_offset = self.next_segment(base_offset).unwrap_or(self.log_end_offset);
        let interval_bytes = u64::from(self.config.index_interval_bytes);
        // What the active segment's batches say is known in memory.
        let closed = self.closed.get(&base_offset);
        let timed = closed.map(|segment| Timed { base_offset, end_offset, size: segment.size, interval_bytes });
        async move {
            let looked = async {
                let _names = names.hold().await?;
                if let Some(timed) = timed
                    && let Some(last) = directory.time_index(timed).await?.last().filter(|last| last.timestamp >= 0)
                {
                    return Ok((last.timestamp, None));
                }
                let listed = directory.disk.list(&directory.path).await;
                let entries = listed.map_err(LogError::io_at(&directory.path))?;
                let path = directory.path_of(base_offset, LOG);
                let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
                let found = entries.into_iter().find(|entry| Some(&entry.name) == name.as_ref());
                let missing = || LogError::io_at(&path)(io::ErrorKind::NotFound.into());
                Ok((-1, Some(found.ok_or_else(missing)?.modified)))
            };
            Age { base_offset, result: looked.await }
        }
    }

    /// Gives the time of the active segment's last change, if it was that one's age.
    pub fn finish_age(&mut self, age: Age) -> Result<Option<WallMs>, LogError> {
        let (latest, modified) = match age.result {
            Err(LogError::SegmentsChanged) => return Ok(None),
            result => result?,
        };
        match self.closed.get_mut(&age.base_offset) {
            Some(segment) => {
                segment.latest_timestamp.set(Some(latest));
                segment.modified = modified;
                Ok(None)
            }
            None => Ok(modified.filter(|_| age.base_offset == self.active.base_offset)),
        }
    }

    /// Moves the log start up to `offset`, which is not past the high watermark; whether it moved. It is durable when
    /// the directory's log start offsets are checkpointed, or when the segments below are gone.
    pub fn increment_log_start_offset(&mut self, offset: Offset) -> bool {
        let moves = offset > self.log_start_offset;
        if moves {
            assert!(offset <= self.log_end_offset, "the log start stays within the log");
            self.log_start_offset = offset;
            self.run.epochs_trimmed |= self.epochs.truncate_from_start(offset);
        }
        moves
    }

    /// Brings `leader-epoch-checkpoint` up to the log start, if it is behind. Not beside [`Log::assign_epoch`]'s write.
    pub fn epochs_write(&mut self) -> Option<impl Future<Output = Result<(), LogError>> + use<D> + 'static> {
        std::mem::take(&mut self.run.epochs_trimmed).then(|| {
            let path = self.directory.join(LEADER_EPOCH_CHECKPOINT);
            let (disk, file) = (self.disk.clone(), self.epochs.encode());
            async move { disk.replace(&path, file).await.map_err(LogError::io_at(&path)) }
        })
    }

    /// The names of its closed segments, to be held alone by whoever changes them.
    pub fn names(&self) -> Rc<Names> {
        Rc::clone(&self.names)
    }

    /// Takes the segments below the log start out of the directory: their files get other names, oldest first.
    /// `end_offset` is a segment's base offset at or below the log start.
    pub fn take_out(&self, end_offset: Offset, names: NamesHeld) -> impl Future<Output = TakenOut> + use<D> + 'static {
        assert!(end_offset <= self.log_start_offset, "nobody reads what is taken out");
        let (directory, segments) = (self.files_of(), self.closed.range(..end_offset));
        let segments: Vec<_> = segments.map(|(base_offset, _)| *base_offset).collect();
        async move {
            let mut taken = TakenOut { segments: Vec::new(), files: Vec::new(), error: None, names };
            for base_offset in segments {
                match directory.set_aside(base_offset).await {
                    Ok(files) => taken.files.extend(files),
                    Err(error) => {
                        taken.error = Some(error);
                        break;
                    }
                }
                taken.segments.push(base_offset);
            }
            if let Err(error) = directory.sync().await {
                taken.error.get_or_insert(error);
            }
            taken
        }
    }

    /// Gives the count of the segments and the files that are to be removed; and the error that kept others, which the
    /// next try takes out.
    pub fn finish_take_out(&mut self, taken: TakenOut) -> (usize, Vec<PathBuf>, Option<LogError>) {
        let TakenOut { segments, files, error, names } = taken;
        for base_offset in &segments {
            self.closed.remove(base_offset);
            self.transaction_indexes.remove(base_offset);
            self.run.doubted.get_mut().remove(base_offset);
        }
        names.changed();
        (segments.len(), files, error)
    }
}
