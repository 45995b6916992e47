//! The read path of a partition: from an offset to a range of a file, without holding the shard.

use std::io;
use std::rc::Rc;

use super::partition::{Isolation, LeadershipError, Offsets, Partition};
use crate::base::ids::{LeaderEpoch, Offset};
use crate::platform::{Disk, FileRange, Platform};
use crate::storage::held::Held;
use crate::storage::log::{LogError, Read};
use crate::storage::transaction_index::EndedTransaction;

/// How often a read may find pages, files or segments other than it has just asked for: each step of an index lookup is
/// one.
const READ_TRIES_MAX: u32 = 128;

/// From this try on a read keeps what it waited for: pages may be evicted before it comes back to them.
const TRIES_BEFORE_HOLDING: u32 = 8;

/// Why nothing can be read; the offsets are what the response still carries.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadFailure {
    #[error(transparent)]
    Leadership(#[from] LeadershipError),
    #[error("the offset is below the log start or beyond the log end")]
    OffsetOutOfRange(Offsets),
    #[error("the log could not be read: {0}")]
    Storage(String),
}

/// What one read found.
#[derive(Debug)]
pub struct ReadResult<F> {
    pub offsets: Offsets,
    pub data: Option<ReadData<F>>,
}

/// Bytes of a log, from the batch that holds the offset on.
#[derive(Debug)]
pub struct ReadData<F> {
    pub range: FileRange<F>,
    /// The range may be extended to this if it is shorter: a fetch gets its first batch whole.
    pub first_batch_bytes: u64,
    pub recently_appended: bool,
    /// Transactions with records in the range that a read_committed consumer must skip.
    pub aborted: Vec<EndedTransaction>,
}

impl<P: Platform> Partition<P> {
    /// Reads up to `bytes_max` bytes from `offset`, as far as `isolation` allows.
    pub async fn read(
        self: &Rc<Self>,
        offset: Offset,
        bytes_max: u64,
        current_leader_epoch: LeaderEpoch,
        isolation: Isolation,
    ) -> Result<ReadResult<<P::Disk as Disk>::File>, ReadFailure> {
        let mut held = Held::default();
        for tries in 0..READ_TRIES_MAX {
            let (offsets, outcome, aborted) = {
                let state = self.state.borrow();
                state.check_leader(current_leader_epoch)?;
                let (Some(log), Some(offsets)) = (state.log.as_ref(), state.offsets()) else {
                    return Err(LeadershipError::LogOffline.into());
                };
                let ceiling = isolation.ceiling(&offsets);
                let outcome = log.read_holding(&held, offset, bytes_max, ceiling);
                let aborted = match (&outcome, isolation) {
                    (Read::Range { base_offset, .. }, Isolation::ReadCommitted) => {
                        let end = log.segment_end_offset((*base_offset).max(offset)).min(ceiling);
                        log.aborted_transactions(offset, end)
                    }
                    _ => None,
                };
                (offsets, outcome, aborted)
            };
            match outcome {
                Read::Range { range, first_batch_bytes, recently_appended, .. } => {
                    let aborted = match aborted {
                        Some(aborted) => match aborted.await {
                            Err(LogError::SegmentsChanged) => continue,
                            aborted => aborted.map_err(|error| ReadFailure::Storage(error.to_string()))?,
                        },
                        None => Vec::new(),
                    };
                    let data = Some(ReadData { range, first_batch_bytes, recently_appended, aborted });
                    return Ok(ReadResult { offsets, data });
                }
                Read::Empty => return Ok(ReadResult { offsets, data: None }),
                Read::OutOfRange => return Err(ReadFailure::OffsetOutOfRange(offsets)),
                Read::Io(error) => return Err(self.read_failed(error)),
                Read::NeedPages { file, position, length } => {
                    let disk = self.platform.disk();
                    let made = disk.make_resident(&file, position, length).await;
                    made.map_err(|error| self.read_failed(error))?;
                    if tries >= TRIES_BEFORE_HOLDING {
                        let bytes = disk.read(&file, position, length as usize).await;
                        held.hold(file, position, bytes.map_err(|error| self.read_failed(error))?);
                    }
                }
                Read::NeedSegment { base_offset } => self.load_segment(base_offset).await?,
            }
        }
        Err(ReadFailure::Storage(format!("the batch was not found by {READ_TRIES_MAX} reads of its index and log")))
    }

    fn read_failed(&self, source: io::Error) -> ReadFailure {
        let path = self.home.log_dir().path.join(self.topic_partition.to_string());
        self.log_failed(LogError::Io { path, source })
    }

    fn log_failed(&self, error: LogError) -> ReadFailure {
        // A file that is missing concerns its partition; whether the directory is there, writes tell.
        let is_missing = matches!(&error, LogError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound);
        if !is_missing {
            self.storage_failed(&error);
        }
        ReadFailure::Storage(error.to_string())
    }

    async fn load_segment(&self, base_offset: Offset) -> Result<(), ReadFailure> {
        let load = match self.state.borrow().log.as_ref() {
            Some(log) => log.load_segment(base_offset),
            None => return Err(LeadershipError::LogOffline.into()),
        };
        let loaded = load.await;
        let outcome = self.state.borrow_mut().log.as_mut().map(|log| log.finish_load_segment(loaded));
        outcome.ok_or(LeadershipError::LogOffline)?.map_err(|error| self.log_failed(error))
    }

    /// The first offset whose record is at or after `timestamp`, with its timestamp, as far as `isolation` allows.
    pub async fn offset_for_timestamp(
        &self,
        timestamp: i64,
        current_leader_epoch: LeaderEpoch,
        isolation: Isolation,
    ) -> Result<Option<(Offset, i64)>, ReadFailure> {
        for _ in 0..READ_TRIES_MAX {
            let lookup = {
                let state = self.state.borrow();
                state.check_leader(current_leader_epoch)?;
                let (Some(log), Some(offsets)) = (state.log.as_ref(), state.offsets()) else {
                    return Err(LeadershipError::LogOffline.into());
                };
                log.lookup_timestamp(timestamp, isolation.ceiling(&offsets))
            };
            match lookup.await {
                Err(LogError::SegmentsChanged) => {}
                found => return found.map_err(|error| self.log_failed(error)),
            }
        }
        Err(ReadFailure::Storage("segments change faster than they can be looked at".to_owned()))
    }

    /// The leader epoch that wrote the record at `offset`, -1 if it is not known.
    pub fn epoch_at(&self, offset: Offset) -> LeaderEpoch {
        self.state.borrow().log.as_ref().and_then(|log| log.epoch_at(offset)).unwrap_or(-1)
    }
}
