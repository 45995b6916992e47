//! Taking back the end of a log, as a follower does whose leader never had it (Kafka 3.9 `UnifiedLog.truncateTo`,
//! `truncateFullyAndStartAt`).
//!
//! ```text
//!  before   0.log [0 .. 99]    100.log [100 .. 199]    200.log [200 .. 240]      truncate_to(150)
//!  after    0.log [0 .. 99]    100.log [100 .. 149]    150.log [ ]
//! ```
//! The log is away while it happens, like at its close: the future gives it back. After an error it is to be opened anew;
//! recovery finds the log as it was, or cut somewhere at or past the offset.
//!
//! No page that was handed to a socket gets other records. The segment that is cut is closed, and the next append begins
//! a segment of its own. Who holds a range beyond the cut finds its fence cut; the file is cut when nobody is in the middle
//! of a send any more. Segments that go as a whole keep their bytes for those who hold ranges of them. What the kernel does
//! at the cut remains: it zeroes the rest of that one page, so that bytes behind the cut which are still queued in a
//! socket can arrive as zeros, in a batch whose checksum is wrong then.
//!
//! Order, for a crash at any point: the caller has lowered the recovery point, durably. Segments behind the cut are set
//! aside, newest first, and producer snapshots of what goes are removed; that made durable, the leader epochs are
//! written; then the segment is cut and synced, and only then the new one made. So no old record ever stands behind a
//! cut that new ones were appended after.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;

use crate::base::ids::Offset;
use crate::base::time::WallMs;
use crate::executor::yield_now;
use crate::platform::Disk;
use crate::storage::entry::{Scanned, Scanner};
use crate::storage::leader_epoch::LeaderEpochs;
use crate::storage::log::upkeep::Upkeep;
use crate::storage::log::{LEADER_EPOCH_CHECKPOINT, Log, LogError, Snapshots};
use crate::storage::offset_index::OffsetIndex;
use crate::storage::producer_state::ProducerState;
use crate::storage::recovery::{Directory, Replay};
use crate::storage::segment::{
    ActiveSegment, ClosedSegment, LOG, OFFSET_INDEX, SNAPSHOT, TIME_INDEX, TRANSACTION_INDEX,
};
use crate::storage::time_index::{TimeEntry, TimeIndex};

/// Where a segment is cut.
struct Cut {
    base_offset: Offset,
    /// Bytes that stay.
    position: u64,
    /// The log end offset then.
    end_offset: Offset,
    offset_index: OffsetIndex,
    time_index: TimeIndex,
}

impl<D: Disk> Log<D> {
    /// What the recovery point on the disk must not be above when the log is truncated to `offset`: the base offset of the
    /// segment that is cut, since the batch where it is cut is not known yet.
    pub fn recovery_point_before_truncation(&self, offset: Offset) -> Offset {
        self.segment_of(offset).min(offset.max(0)).min(self.recovery_point())
    }

    /// Takes back every batch that ends at or past `offset`: a batch that holds it goes as a whole, and the log ends
    /// before it. Nothing happens if the log ends at or before `offset`.
    ///
    /// The recovery point on the disk is at or below [`Log::recovery_point_before_truncation`]. Nothing is staged or in
    /// flight, and no other future of this log is outstanding.
    ///
    /// # Errors
    /// The log is gone: open it anew.
    pub fn truncate_to(
        mut self,
        offset: Offset,
        now: WallMs,
    ) -> impl Future<Output = Result<Log<D>, LogError>> + use<D> + 'static {
        assert!(self.is_quiet() && !self.run.rolling, "a log is truncated between writes");
        async move {
            if offset >= self.log_end_offset {
                return Ok(self);
            }
            // Until the log is what its files say again.
            let names = self.names().hold_alone().await;
            let first = self.segment_of(Offset::MIN);
            if offset <= first {
                drop(names);
                return self.truncate_fully_and_start_at(offset, now).await;
            }
            if self.active.size > 0 {
                self.index_write(true).run().await?;
            }
            let directory = self.files_of();
            let segment = self.segment_of(offset);
            let cut = match offset == segment {
                true => None,
                false => Some(self.find_cut(&directory, segment, offset).await?),
            };
            match cut {
                Some(cut) if cut.position == 0 && segment == first => {
                    drop(names);
                    self.truncate_fully_and_start_at(cut.end_offset, now).await
                }
                Some(cut) if cut.position > 0 => {
                    let end_offset = cut.end_offset;
                    self.cut_off(directory, Some(cut), end_offset, now).await?;
                    names.changed();
                    Ok(self)
                }
                // The segment goes as a whole, and another one before it stays.
                whole => {
                    let end_offset = whole.map_or(offset, |cut| cut.end_offset);
                    self.cut_off(directory, None, end_offset, now).await?;
                    names.changed();
                    Ok(self)
                }
            }
        }
    }

    /// Takes back everything: the log starts and ends at `offset`.
    ///
    /// The recovery point on the disk is at or below the log start of now and `offset`. Nothing is staged or in flight, and no other
    /// future of this log is outstanding.
    ///
    /// # Errors
    /// The log is gone: open it anew.
    pub fn truncate_fully_and_start_at(
        mut self,
        offset: Offset,
        now: WallMs,
    ) -> impl Future<Output = Result<Log<D>, LogError>> + use<D> + 'static {
        assert!(self.is_quiet() && !self.run.rolling, "a log is truncated between writes");
        async move {
            let names = self.names().hold_alone().await;
            let directory = self.files_of();
            let aside = self.set_aside_from(&directory, Offset::MIN, Offset::MIN).await?;
            if self.epochs != LeaderEpochs::default() {
                self.epochs = LeaderEpochs::default();
                self.write_epochs(&directory).await?;
            }
            self.producers = ProducerState::default();
            self.snapshots = Snapshots::default();
            (self.log_start_offset, self.flushed_offset) = (offset, offset);
            self.cleaned_to = self.cleaned_to.map(|cleaned_to| cleaned_to.min(offset));
            self.begin_segment(&directory, offset, now).await?;
            names.changed();
            remove_files(&directory, aside).await;
            Ok(self)
        }
    }

    pub(super) fn files_of(&self) -> Directory<D> {
        Directory { disk: self.disk.clone(), path: self.directory.clone() }
    }

    fn size_of(&self, segment: Offset) -> u64 {
        match segment == self.active.base_offset {
            true => self.active.size,
            false => self.closed.get(&segment).map_or(0, |closed| closed.size),
        }
    }

    /// Finds the first batch of a segment that ends at or past `offset`, by the files.
    async fn find_cut(&self, directory: &Directory<D>, segment: Offset, offset: Offset) -> Result<Cut, LogError> {
        let size = self.size_of(segment);
        let index_bytes = self.config.segment_index_bytes;
        let index = directory.read_index(segment, OFFSET_INDEX).await?.unwrap_or_default();
        let mut offset_index =
            OffsetIndex::decode(segment, index_bytes, &index, u32::try_from(size).unwrap_or(u32::MAX));
        // The look begins with a batch that stays.
        offset_index.truncate(offset);
        let (file, _) = directory.open(segment, LOG).await?;
        let mut start = 0;
        if let Some(indexed) = offset_index.last() {
            let position = u64::from(indexed.position);
            let found = directory.entry_at(segment, &file, position, size).await?;
            match found.is_some_and(|entry| indexed.points_at(segment, entry.last_offset)) {
                true => start = position,
                false => offset_index.truncate(segment),
            }
        }
        let path = directory.path_of(segment, LOG);
        let mut scanner = Scanner::new(self.disk.clone(), file, start, size);
        let (mut kept_end, mut latest) = (segment, None::<TimeEntry>);
        let (position, going_offset) = loop {
            match scanner.next().await.map_err(LogError::io_at(&path))? {
                Scanned::Entry { position, entry } if entry.last_offset >= offset => {
                    break (position, entry.header.map_or(kept_end, |header| header.base_offset));
                }
                Scanned::Entry { entry, .. } => {
                    kept_end = entry.last_offset + 1;
                    if entry.max_timestamp > latest.map_or(-1, |latest| latest.timestamp) {
                        latest = Some(TimeEntry { timestamp: entry.max_timestamp, offset: entry.last_offset });
                    }
                }
                Scanned::End => break (size, offset),
                Scanned::Torn { position, error } => {
                    let reason = format!("at position {position}: {error}");
                    return Err(LogError::Malformed { path, reason });
                }
            }
        };
        // Without compaction no offsets are missing, and recovery would take missing ones for a lost tail.
        let end_offset = if self.config.compacted { offset.min(going_offset) } else { kept_end };
        let time_index = directory.read_index(segment, TIME_INDEX).await?.unwrap_or_default();
        let mut time_index = TimeIndex::decode(segment, index_bytes, &time_index, end_offset);
        if let Some(latest) = latest {
            time_index.push_if_later(latest);
        }
        Ok(Cut { base_offset: segment, position, end_offset, offset_index, time_index })
    }

    /// Takes back what is behind the cut and behind its segment, or all segments from `end_offset` on.
    async fn cut_off(
        &mut self,
        directory: Directory<D>,
        cut: Option<Cut>,
        end_offset: Offset,
        now: WallMs,
    ) -> Result<(), LogError> {
        let gone_from = match &cut {
            Some(cut) => cut.base_offset + 1,
            None => self.segment_of(end_offset),
        };
        if let Some(cut) = &cut {
            let fence = match cut.base_offset == self.active.base_offset {
                true => Some(&self.active.fence),
                false => self.closed.get(&cut.base_offset).map(|closed| &closed.fence),
            };
            if let Some(fence) = fence {
                fence.cut_at(cut.position);
                // A sender is inside for one system call that waits for no peer.
                while !fence.is_clear() {
                    yield_now().await;
                }
            }
        }
        let aside = self.set_aside_from(&directory, gone_from, end_offset + 1).await?;
        if self.epochs.truncate_from_end(end_offset) {
            self.write_epochs(&directory).await?;
        }
        if let Some(cut) = cut {
            let closed = self.cut_segment(&directory, cut).await?;
            self.closed.insert(closed.base_offset, closed);
        }
        self.flushed_offset = self.flushed_offset.min(end_offset);
        self.log_start_offset = self.log_start_offset.min(end_offset);
        self.cleaned_to = self.cleaned_to.map(|cleaned_to| cleaned_to.min(end_offset));
        self.begin_segment(&directory, end_offset, now).await?;
        remove_files(&directory, aside).await;

        let logs: BTreeMap<_, _> =
            self.closed.iter().map(|(base_offset, closed)| (*base_offset, closed.size)).collect();
        let snapshots = directory.files().await?.snapshots;
        let expiry = (now, self.config.producer_id_expiration_ms);
        let (mut replay, _) = Replay::begin(&directory, &snapshots, end_offset, self.log_start_offset, expiry).await?;
        replay.run(&directory, &logs, end_offset).await?;
        let between = snapshots.iter().copied().filter(|offset| !self.is_base(*offset)).collect();
        self.snapshots = Snapshots { newest: snapshots.last().copied(), between };
        self.producers = replay.producers;
        Ok(())
    }

    /// Sets segments aside and removes producer snapshots, from these offsets on; durable. The active segment is gone
    /// from the files then, if it was among them, but not from the log. Gives the files' new names.
    async fn set_aside_from(
        &mut self,
        directory: &Directory<D>,
        segments_from: Offset,
        snapshots_from: Offset,
    ) -> Result<Vec<PathBuf>, LogError> {
        let give_back = self.give_back_blocks().filter(|_| self.active.base_offset >= segments_from);
        if let Some(give_back) = give_back {
            give_back.await?;
        }
        self.give_back_closed_blocks().await?;
        let mut aside = Vec::new();
        let closed = self.closed.split_off(&segments_from);
        let active = (self.active.base_offset >= segments_from).then_some(self.active.base_offset);
        for base_offset in active.into_iter().chain(closed.into_keys().rev()) {
            aside.extend(directory.set_aside(base_offset).await?);
        }
        for offset in directory.files().await?.snapshots.range(snapshots_from.max(0)..) {
            directory.remove(&directory.path_of(*offset, SNAPSHOT)).await?;
        }
        self.transaction_indexes.split_off(&segments_from);
        directory.sync().await?;
        Ok(aside)
    }

    async fn write_epochs(&self, directory: &Directory<D>) -> Result<(), LogError> {
        let path = directory.path.join(LEADER_EPOCH_CHECKPOINT);
        self.disk.replace(&path, self.epochs.encode()).await.map_err(LogError::io_at(&path))
    }

    /// Cuts a segment's files; durable.
    async fn cut_segment(&mut self, directory: &Directory<D>, cut: Cut) -> Result<ClosedSegment<D::File>, LogError> {
        let Cut { base_offset, position, end_offset, mut offset_index, mut time_index } = cut;
        let path = directory.path_of(base_offset, LOG);
        let (log, _) = directory.open(base_offset, LOG).await?;
        self.disk.set_length(&log, position).await.map_err(LogError::io_at(&path))?;
        offset_index.truncate(end_offset);
        time_index.truncate(end_offset);
        let mut files = vec![log];
        for (extension, (position, data)) in
            [(OFFSET_INDEX, offset_index.unwritten()), (TIME_INDEX, time_index.unwritten())]
        {
            files.push(directory.rewrite_index(base_offset, extension, position, data).await?);
        }
        if self.transaction_indexes.contains(&base_offset) {
            let mut transactions = directory.transaction_index(base_offset).await?.unwrap_or_default();
            transactions.truncate(end_offset);
            let bytes = transactions.encode().len() as u64;
            files.push(directory.rewrite_index(base_offset, TRANSACTION_INDEX, bytes, Vec::new()).await?);
            if transactions.is_empty() {
                self.transaction_indexes.remove(&base_offset);
            }
        }
        for file in files {
            self.disk.sync(&file).await.map_err(LogError::io_at(&path))?;
        }
        let mut closed = ClosedSegment::new(base_offset, position);
        closed.latest_timestamp.set(Some(time_index.last().map_or(-1, |last| last.timestamp)));
        // Ranges below the cut go on; there will be none beyond it.
        closed.fence = match base_offset == self.active.base_offset {
            true => self.active.fence.clone(),
            false => self.closed.get(&base_offset).map_or(closed.fence, |old| old.fence.clone()),
        };
        Ok(closed)
    }

    /// Makes an empty segment the active one, its name durable.
    async fn begin_segment(&mut self, directory: &Directory<D>, offset: Offset, now: WallMs) -> Result<(), LogError> {
        let (file, length) = directory.open(offset, LOG).await?;
        assert_eq!(length, 0, "a segment of that base offset was set aside");
        directory.sync().await?;
        self.active = ActiveSegment::new(offset, file, &self.open_files, &self.config, now);
        self.log_end_offset = offset;
        (self.run.fenced, self.run.touched, self.run.upkeep) = (false, true, Upkeep::default());
        self.run.rolled_bytes = self.run.written_bytes();
        if self.flushed_offset == offset {
            self.run.flushed_bytes = self.run.rolled_bytes;
        }
        Ok(())
    }
}

/// Removes what was set aside; what stays is removed when the log is opened.
async fn remove_files<D: Disk>(directory: &Directory<D>, files: Vec<PathBuf>) {
    for path in files {
        if let Err(error) = directory.remove(&path).await {
            tracing::warn!(%error, "a file of a segment that was cut off is still there");
        }
    }
}
