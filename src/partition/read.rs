//! The read path of a partition: from an offset to a range of a file, without holding the shard.

use std::io;
use std::rc::Rc;

use super::partition::{ANY_EPOCH, AnsweredBy, Isolation, LeadershipError, Offsets, Partition};
use crate::base::ids::{LeaderEpoch, Offset};
use crate::platform::{Clock, Disk, FileRange, Platform};
use crate::storage::held::Held;
use crate::storage::log::{Before, Log, LogError, Read};
use crate::storage::transaction_index::EndedTransaction;

/// How often a read may find pages, files or segments other than it has just asked for: each step of an index lookup is
/// one.
const READ_TRIES_MAX: u32 = 128;

/// From this try on a read keeps what it waited for: pages may be evicted before it comes back to them.
const TRIES_BEFORE_HOLDING: u32 = 8;

/// Why nothing can be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadFailure {
    #[error(transparent)]
    Leadership(#[from] LeadershipError),
    #[error("the offset is below the log start or beyond the log end, or the epoch it was fetched under is not known")]
    OffsetOutOfRange,
    #[error("the log could not be read: {0}")]
    Storage(String),
    /// The work threads take no more.
    #[error("too much work waits for the work threads")]
    Busy,
}

/// What one read found.
#[derive(Debug)]
pub struct ReadResult<F> {
    pub offsets: Offsets,
    pub data: Option<ReadData<F>>,
    /// The reader's log leaves this one's here: an epoch and where it ends (KIP-595). Then there are no data.
    pub diverging: Option<(LeaderEpoch, Offset)>,
    /// There is more below the ceiling in a later segment than the data's.
    pub has_later_segment: bool,
}

/// What to read.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest {
    pub offset: Offset,
    pub bytes_max: u64,
    /// The leader epoch that the reader knows; -1: none.
    pub current_leader_epoch: LeaderEpoch,
    /// The epoch of the record before `offset` in the reader's log; -1: it does not say.
    pub last_fetched_epoch: LeaderEpoch,
    pub isolation: Isolation,
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

/// Where the reader's log leaves this one (Kafka 3.9 `Partition.readRecords`).
fn diverging_epoch<D: Disk>(
    log: &Log<D>,
    request: &ReadRequest,
    offsets: &Offsets,
    reign: LeaderEpoch,
) -> Result<Option<(LeaderEpoch, Offset)>, ReadFailure> {
    let end = log.end_offset_for(request.last_fetched_epoch, reign).ok_or(ReadFailure::OffsetOutOfRange)?;
    if request.offset < offsets.log_start {
        return Err(ReadFailure::OffsetOutOfRange);
    }
    let (epoch, end_offset) = end;
    Ok((epoch < request.last_fetched_epoch || end_offset < request.offset).then_some(end))
}

impl<P: Platform> Partition<P> {
    /// Reads up to `bytes_max` bytes from `offset`, as far as `isolation` allows.
    pub async fn read(
        self: &Rc<Self>,
        request: ReadRequest,
    ) -> Result<ReadResult<<P::Disk as Disk>::File>, ReadFailure> {
        let ReadRequest { offset, bytes_max, current_leader_epoch, isolation, .. } = request;
        let mut held = Held::default();
        for tries in 0..READ_TRIES_MAX {
            let (offsets, outcome, aborted, has_later_segment) = {
                let state = self.state.borrow();
                state.check_leader(current_leader_epoch)?;
                // A log is cut under followers only.
                let (Some(log), Some(offsets)) = (state.slot.open(), state.offsets()) else {
                    return Err(LeadershipError::NotLeader.into());
                };
                if request.last_fetched_epoch >= 0 {
                    let diverging = diverging_epoch(log, &request, &offsets, state.role.epoch())?;
                    if diverging.is_some() {
                        return Ok(ReadResult { offsets, data: None, diverging, has_later_segment: false });
                    }
                }
                let ceiling = isolation.ceiling(&offsets);
                let outcome = log.read_holding(&held, offset, bytes_max, ceiling);
                let aborted = match (&outcome, isolation) {
                    (Read::Range { base_offset, .. }, Isolation::ReadCommitted) => {
                        let end = log.segment_end_offset((*base_offset).max(offset)).min(ceiling);
                        log.aborted_transactions(offset, end)
                    }
                    _ => None,
                };
                let has_later_segment = offset < ceiling && log.segment_end_offset(offset) < ceiling;
                (offsets, outcome, aborted, has_later_segment)
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
                    return Ok(ReadResult { offsets, data, diverging: None, has_later_segment });
                }
                Read::Empty => return Ok(ReadResult { offsets, data: None, diverging: None, has_later_segment }),
                Read::OutOfRange => return Err(ReadFailure::OffsetOutOfRange),
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
        let load = self.state.borrow().slot.open().map(|log| log.load_segment(base_offset));
        // What it is now is looked at again by whoever asks for this.
        let Some(load) = load else { return Ok(()) };
        let loaded = load.await;
        let outcome = self.state.borrow_mut().slot.log_mut().map(|log| log.finish_load_segment(loaded));
        outcome.unwrap_or(Ok(())).map_err(|error| self.log_failed(error))
    }

    /// The first offset whose record is at or after `timestamp`, with its timestamp, as far as `isolation` allows.
    pub async fn offset_for_timestamp(
        &self,
        timestamp: i64,
        current_leader_epoch: LeaderEpoch,
        asked: AnsweredBy,
        isolation: Isolation,
    ) -> Result<Option<(Offset, i64)>, ReadFailure> {
        for _ in 0..READ_TRIES_MAX {
            let lookup = self.with_log(current_leader_epoch, asked, |log, offsets| {
                log.lookup_timestamp(timestamp, isolation.ceiling(offsets), self.platform.tasks())
            });
            let lookup = lookup.await?;
            match lookup.await {
                Err(LogError::SegmentsChanged) => {}
                Err(LogError::Busy) => return Err(ReadFailure::Busy),
                found => return found.map_err(|error| self.log_failed(error)),
            }
        }
        Err(segments_change())
    }

    /// The first offset whose record has the latest timestamp, with that, if `isolation` allows to see it.
    pub async fn offset_of_max_timestamp(
        &self,
        current_leader_epoch: LeaderEpoch,
        asked: AnsweredBy,
        isolation: Isolation,
    ) -> Result<Option<(Offset, i64)>, ReadFailure> {
        for _ in 0..READ_TRIES_MAX {
            let lookup = self.with_log(current_leader_epoch, asked, |log, offsets| {
                log.lookup_max_timestamp(isolation.ceiling(offsets), self.platform.tasks())
            });
            let lookup = lookup.await?;
            match lookup.await {
                Err(LogError::SegmentsChanged) => {}
                Err(LogError::Busy) => return Err(ReadFailure::Busy),
                found => return found.map_err(|error| self.log_failed(error)),
            }
        }
        Err(segments_change())
    }

    /// How often that has met a batch that can't be decoded since somebody asked this.
    pub fn take_undecodable_lookups(&self) -> u64 {
        self.of_log(|log| log.take_undecodable_lookups()).unwrap_or(0)
    }

    /// What ListOffsets v0 answers: beginnings of segments, and for a consumer nothing above the high watermark but
    /// that itself (Kafka 3.9 `Partition.legacyFetchOffsetsForTimestamp`).
    pub async fn offsets_before(
        &self,
        before: Before,
        count_max: usize,
        asked: AnsweredBy,
        isolation: Isolation,
    ) -> Result<Vec<Offset>, ReadFailure> {
        let now = self.platform.clock().wall();
        let found = self.with_log(ANY_EPOCH, asked, |log, offsets| {
            (log.offsets_before(before, count_max, now), isolation.ceiling(offsets))
        });
        let (lookup, ceiling) = found.await?;
        let mut found = lookup.await.map_err(|error| self.log_failed(error))?;
        if isolation != Isolation::LogEnd && found.iter().any(|offset| *offset > ceiling) {
            found.retain(|offset| *offset <= ceiling);
            found.insert(0, ceiling);
        }
        Ok(found)
    }

    /// Looks at the log as it is, or will be when it is cut.
    async fn with_log<T>(
        &self,
        current_leader_epoch: LeaderEpoch,
        asked: AnsweredBy,
        look: impl FnOnce(&Log<P::Disk>, &Offsets) -> T,
    ) -> Result<T, LeadershipError> {
        loop {
            {
                let state = self.state.borrow();
                state.check(current_leader_epoch, asked)?;
                if let (Some(log), Some(offsets)) = (state.slot.open(), state.offsets()) {
                    return Ok(look(log, &offsets));
                }
            }
            self.unparked().await;
        }
    }

    /// The leader epoch that wrote, or will write, the record at `offset`, -1 if it is not known.
    pub fn epoch_at(&self, offset: Offset) -> LeaderEpoch {
        let state = self.state.borrow();
        let Some(log) = state.slot.open() else { return -1 };
        // A reign is noted with its first append, and is known before.
        let unnoted = || (offset >= log.log_end_offset()).then_some(state.role.epoch());
        log.epoch_at(offset).or_else(unnoted).unwrap_or(-1)
    }
}

fn segments_change() -> ReadFailure {
    ReadFailure::Storage("segments change faster than they can be looked at".to_owned())
}
