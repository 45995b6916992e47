//! Checking one segment: every batch from a point on, its indexes made anew from there, its file cut behind the last
//! whole batch.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::replay::Replay;
use super::{Recovery, Work, end_offset, follows};
use crate::base::ids::Offset;
use crate::platform::Disk;
use crate::storage::entry::{Entry, EntryError, Scanned, Scanner};
use crate::storage::leader_epoch::LeaderEpochs;
use crate::storage::log::LogError;
use crate::storage::offset_index::OffsetIndex;
use crate::storage::segment::{
    ActiveSegment, ClosedSegment, LOG, OFFSET_INDEX, TIME_INDEX, TRANSACTION_INDEX, WrittenBatch,
};
use crate::storage::time_index::TimeIndex;
use crate::storage::transaction_index::TransactionIndex;

/// What is taken from a segment's files without a look at its batches, and where the look begins.
#[derive(Debug, Default)]
pub(super) struct Start {
    /// An index entry's batch, or the segment's first.
    pub position: u64,
    /// The segment's first batch's, if the look begins behind it.
    first_timestamp: Option<i64>,
    /// Base offset of the batch at `position`, if that is not the segment's first.
    pub offset: Option<Offset>,
    indexes: Option<(OffsetIndex, TimeIndex)>,
    /// All of the file's; those of markers that will be met again are cut.
    transactions: TransactionIndex,
    /// The transaction index is sound.
    pub has_transactions: bool,
}

impl Start {
    /// At the segment's first batch, with a sound transaction index.
    pub fn of_whole(transactions: TransactionIndex) -> Start {
        Start { transactions, has_transactions: true, ..Start::default() }
    }
}

/// A segment that was checked. It ends with its last whole batch.
pub(super) struct Checked<F> {
    pub active: ActiveSegment<F>,
    /// Something was cut off.
    pub is_torn: bool,
}

/// Where a pass ended before the segment did, and why.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stop {
    pub position: u64,
    pub reason: &'static str,
    /// The file ends before the batch does that begins here.
    pub is_cut_short: bool,
}

impl Stop {
    fn at(position: u64, reason: &'static str) -> Stop {
        Stop { position, reason, is_cut_short: false }
    }
}

/// A segment whose batches were looked at; nothing of it was changed yet.
pub(super) struct Looked<F> {
    pub active: ActiveSegment<F>,
    pub stop: Option<Stop>,
    file: Arc<F>,
    length: u64,
    transactions: TransactionIndex,
    /// As the file holds it, and the bytes of it that stay; `None` if it is to be left alone.
    old_transactions: Option<(Vec<u8>, usize)>,
}

/// What was found at the last index entry before an offset.
pub(super) enum IndexedStart {
    /// What the files say of the part before is believed: its end fits together.
    Found(Start),
    /// There is no entry, or the time index is shorter than the offset index: the look begins with the first batch.
    Beginning(Start),
    /// The entry points at no batch, at this position.
    PointsAtNothing(Start, u64),
    /// The transaction index is damaged.
    WithoutTransactions,
}

/// One pass over a segment's batches.
struct Pass<'a, D: Disk> {
    scanner: Scanner<D>,
    active: ActiveSegment<D::File>,
    transactions: TransactionIndex,
    replay: Option<&'a mut Replay>,
    epochs: &'a mut LeaderEpochs,
    index_interval_bytes: u32,
    compacted: bool,
    durable_end: Offset,
    work: &'a mut Work,
}

impl<D: Disk> Recovery<D> {
    /// Where to begin with the segment that holds the recovery point: at the last index entry before it. What the files
    /// say of the part before is believed if its end fits together; else the look begins with the first batch.
    pub(super) async fn start_of(&self, base_offset: Offset, length: u64) -> Result<Start, LogError> {
        match self.indexed_start(base_offset, length, self.durable_end).await? {
            IndexedStart::Found(start) | IndexedStart::Beginning(start) => Ok(start),
            IndexedStart::PointsAtNothing(start, position) => {
                let path = self.directory.path_of(base_offset, OFFSET_INDEX);
                tracing::warn!(file = %path.display(), position, "an index entry points at no batch; made anew");
                Ok(start)
            }
            IndexedStart::WithoutTransactions => Ok(Start::default()),
        }
    }

    /// The last index entry of a batch that ends below `end_offset`.
    pub(super) async fn indexed_start(
        &self,
        base_offset: Offset,
        length: u64,
        end_offset: Offset,
    ) -> Result<IndexedStart, LogError> {
        let Some(transactions) = self.transaction_index(base_offset).await? else {
            return Ok(IndexedStart::WithoutTransactions);
        };
        let beginning = Start::of_whole(transactions);
        let (Some(index), Ok(size)) =
            (self.directory.read_index(base_offset, OFFSET_INDEX).await?, u32::try_from(length))
        else {
            return Ok(IndexedStart::Beginning(beginning));
        };
        let index_bytes = self.config.segment_index_bytes;
        let mut offset_index = OffsetIndex::decode(base_offset, index_bytes, &index, size);
        offset_index.truncate(end_offset);
        let Some(indexed) = offset_index.last() else { return Ok(IndexedStart::Beginning(beginning)) };

        let (file, _) = self.directory.open(base_offset, LOG).await?;
        let position = u64::from(indexed.position);
        let found = self.directory.entry_at(base_offset, &file, position, length).await?;
        let Some(entry) = found.filter(|entry| indexed.points_at(base_offset, entry.last_offset)) else {
            return Ok(IndexedStart::PointsAtNothing(beginning, position));
        };
        let time_index = self.directory.read_index(base_offset, TIME_INDEX).await?.unwrap_or_default();
        let time_index = TimeIndex::decode(base_offset, index_bytes, &time_index, entry.last_offset + 1);
        // The entry that was added together with this batch's knows a timestamp at least as late.
        if time_index.last().map_or(-1, |last| last.timestamp) < entry.max_timestamp {
            return Ok(IndexedStart::Beginning(beginning));
        }
        let Some(first) = self.directory.entry_at(base_offset, &file, 0, length).await? else {
            return Ok(IndexedStart::Beginning(beginning));
        };
        Ok(IndexedStart::Found(Start {
            position,
            first_timestamp: Some(first.max_timestamp),
            offset: Some(entry.base_offset),
            indexes: Some((offset_index, time_index)),
            ..beginning
        }))
    }

    /// Reads every batch of a segment from `start` on and makes its indexes anew. `next_base` is the next segment's.
    /// `replay`, which must not be past the start, is brought to the segment's end; without it the transaction index
    /// stays as it is.
    ///
    /// # Errors
    /// `Malformed` if what is not whole begins below the durable end: nothing was changed then.
    pub(super) async fn check(
        &mut self,
        base_offset: Offset,
        next_base: Option<Offset>,
        start: Start,
        replay: Option<&mut Replay>,
    ) -> Result<Checked<D::File>, LogError> {
        let looked = self.look(base_offset, next_base, start, replay).await?;
        let log_path = self.directory.path_of(base_offset, LOG);
        match looked.stop {
            Some(Stop { position, reason, .. }) => {
                self.must_be_lost_in_a_crash(&log_path, position, end_offset(&looked.active), reason)?;
                self.cut_behind_last_batch(&looked).await?;
                // Durable at once: what is cut must not come back behind what is appended in its place.
                self.sync_cut(&looked).await?;
            }
            None => self.must_go_on(&looked.active, next_base)?,
        }
        self.settle(looked, true).await
    }

    /// Reads every batch from `start` on, and changes no file; see [`Recovery::check`].
    pub(super) async fn look(
        &mut self,
        base_offset: Offset,
        next_base: Option<Offset>,
        start: Start,
        replay: Option<&mut Replay>,
    ) -> Result<Looked<D::File>, LogError> {
        let log_path = self.directory.path_of(base_offset, LOG);
        let (file, length) = self.directory.open(base_offset, LOG).await?;
        if i32::try_from(length).is_err() {
            let reason = format!("a segment has less than 2 GiB, not {length} bytes");
            return Err(LogError::Malformed { path: log_path, reason });
        }
        let mut active = ActiveSegment::new(base_offset, file.clone(), &self.open_files, &self.config, self.wall);
        let mut transactions = start.transactions;
        if let Some((offset_index, time_index)) = start.indexes {
            active.latest = time_index.last();
            (active.offset_index, active.time_index) = (offset_index, time_index);
            active.first_timestamp = start.first_timestamp;
        }
        let old_transactions = replay.as_ref().map(|replay| {
            let old = transactions.encode();
            transactions.truncate(replay.offset.max(start.offset.unwrap_or(base_offset)));
            (old, transactions.encode().len())
        });
        let mut pass = Pass {
            scanner: Scanner::new(self.directory.disk.clone(), file.clone(), start.position, length),
            active,
            transactions,
            replay,
            epochs: &mut self.epochs,
            index_interval_bytes: self.config.index_interval_bytes,
            compacted: self.config.compacted,
            durable_end: self.durable_end,
            work: &mut self.work,
        };
        let stop = pass.run(start.position, next_base).await.map_err(LogError::io_at(&log_path))?;
        let Pass { active, transactions, .. } = pass;
        Ok(Looked { active, stop, file, length, transactions, old_transactions })
    }

    pub(super) async fn cut_behind_last_batch(&self, looked: &Looked<D::File>) -> Result<(), LogError> {
        let Some(Stop { position, reason, .. }) = looked.stop else { return Ok(()) };
        let path = self.directory.path_of(looked.active.base_offset, LOG);
        let length = looked.length;
        tracing::warn!(file = %path.display(), length, position, reason, "cut behind the last whole batch");
        self.directory.disk.set_length(&looked.file, position).await.map_err(LogError::io_at(&path))
    }

    pub(super) async fn sync_cut(&self, looked: &Looked<D::File>) -> Result<(), LogError> {
        let path = self.directory.path_of(looked.active.base_offset, LOG);
        self.directory.disk.sync(&looked.file).await.map_err(LogError::io_at(&path))
    }

    /// Brings the segment's indexes in line with its batches. Entries that the files only lack may wait for the log's
    /// upkeep, unless `writes_entries`.
    pub(super) async fn settle(
        &mut self,
        looked: Looked<D::File>,
        writes_entries: bool,
    ) -> Result<Checked<D::File>, LogError> {
        let Looked { mut active, stop, transactions, old_transactions, .. } = looked;
        self.changed = true;
        active.forget_appended();
        self.rewrite_indexes(&mut active, writes_entries).await?;
        if let Some((old, kept_bytes)) = old_transactions {
            self.rewrite_transaction_index(active.base_offset, &old, kept_bytes, &transactions).await?;
        }
        Ok(Checked { active, is_torn: stop.is_some() })
    }

    /// Files that have no entry and should have none are left alone: most segments of most partitions are small.
    async fn rewrite_indexes(&self, active: &mut ActiveSegment<D::File>, writes_entries: bool) -> Result<(), LogError> {
        let base_offset = active.base_offset;
        let bytes = |files: &BTreeMap<Offset, u64>| files.get(&base_offset).copied().unwrap_or(0);
        let (offset_index, time_index) = (active.offset_index.unwritten(), active.time_index.unwritten());
        let has_others =
            bytes(&self.files.offset_indexes) != offset_index.0 || bytes(&self.files.time_indexes) != time_index.0;
        if !has_others && !writes_entries {
            return Ok(());
        }
        // In the order of `IndexWrite`.
        for (extension, old_bytes, (position, data)) in [
            (TIME_INDEX, bytes(&self.files.time_indexes), time_index),
            (OFFSET_INDEX, bytes(&self.files.offset_indexes), offset_index),
        ] {
            if old_bytes != position || !data.is_empty() {
                self.directory.rewrite_index(base_offset, extension, position, data).await?;
            }
        }
        active.offset_index.mark_written(u64::MAX);
        active.time_index.mark_written(u64::MAX);
        Ok(())
    }

    /// Durable at once, since it is rarely needed.
    async fn rewrite_transaction_index(
        &mut self,
        base_offset: Offset,
        old: &[u8],
        kept_bytes: usize,
        transactions: &TransactionIndex,
    ) -> Result<(), LogError> {
        let new = transactions.encode();
        let old_bytes = self.files.transaction_indexes.get(&base_offset).copied().unwrap_or(0);
        if new != old || old_bytes != old.len() as u64 {
            let data = new[kept_bytes..].to_vec();
            let file = self.directory.rewrite_index(base_offset, TRANSACTION_INDEX, kept_bytes as u64, data).await?;
            let path = self.directory.path_of(base_offset, TRANSACTION_INDEX);
            self.directory.disk.sync(&file).await.map_err(LogError::io_at(&path))?;
            self.has_new_name = true;
        }
        self.files.transaction_indexes.insert(base_offset, new.len() as u64);
        Ok(())
    }

    /// A checked segment that has others behind it: complete, but not durable yet. What stood below the durable end
    /// becomes durable now, since the recovery point on the disk has passed it.
    pub(super) async fn close_checked(
        &self,
        mut active: ActiveSegment<D::File>,
        is_below_durable_end: bool,
    ) -> Result<ClosedSegment<D::File>, LogError> {
        active.force_time_entry();
        let base_offset = active.base_offset;
        let mut closed = ClosedSegment::new(base_offset, active.size);
        closed.latest_timestamp.set(Some(active.latest.map_or(-1, |latest| latest.timestamp)));
        let file = match active.file() {
            Some(file) => file,
            None => self.directory.open(base_offset, LOG).await?.0,
        };
        closed.unsynced.push(file);
        for (extension, (position, data)) in
            [(OFFSET_INDEX, active.offset_index.unwritten()), (TIME_INDEX, active.time_index.unwritten())]
        {
            closed.unsynced.push(self.directory.rewrite_index(base_offset, extension, position, data).await?);
        }
        if is_below_durable_end {
            let path = self.directory.path_of(base_offset, LOG);
            for file in std::mem::take(&mut closed.unsynced) {
                self.directory.disk.sync(&file).await.map_err(LogError::io_at(&path))?;
            }
        }
        Ok(closed)
    }
}

impl<D: Disk> Pass<'_, D> {
    /// Takes up batches until one is not whole or does not follow. A batch behind missing offsets is held back until the
    /// next one follows it: no checksum covers its base offset, and that may be what is wrong.
    async fn run(&mut self, start: u64, next_base: Option<Offset>) -> io::Result<Option<Stop>> {
        let mut held: Option<(u64, Entry)> = None;
        loop {
            let (position, entry) = match self.scanner.next().await? {
                Scanned::Entry { position, entry } => (position, entry),
                Scanned::Torn { position, error } => {
                    let stop = self.release_last(held, None).await?;
                    let is_cut_short = error == EntryError::Truncated;
                    return Ok(Some(stop.unwrap_or(Stop { position, reason: "no whole batch", is_cut_short })));
                }
                Scanned::End => return self.release_last(held, next_base).await,
            };
            self.work.done(entry.bytes);
            let whole = self.scanner.bytes(position, entry.bytes as usize).await?;
            if whole.len() as u64 != entry.bytes || !entry.is_valid(whole) {
                let stop = self.release_last(held, None).await?;
                return Ok(Some(stop.unwrap_or(Stop::at(position, "a batch whose checksum is wrong"))));
            }
            if let Some((held_position, before)) = held.take() {
                if entry.base_offset <= before.last_offset {
                    return Ok(Some(Stop::at(held_position, "a batch whose offsets do not follow")));
                }
                self.take_up(held_position, &before).await?;
            }
            if !follows(&self.active, &entry) {
                return Ok(Some(Stop::at(position, "a batch whose offsets do not follow")));
            }
            let is_indexed_start = position == start && start > 0;
            match self.is_behind_gap(&entry) && !is_indexed_start {
                true => held = Some((position, entry)),
                false => self.take_up(position, &entry).await?,
            }
        }
    }

    /// Of a compressed message of magic 0 or 1 only the last offset is known.
    fn is_behind_gap(&self, entry: &Entry) -> bool {
        entry.header.is_some() && entry.base_offset > end_offset(&self.active) && entry.base_offset >= self.durable_end
    }

    /// Decides over a batch that was held back and has no next one: the next segment must follow it, and the last batch of
    /// a log that is not compacted has no gap before it.
    async fn release_last(
        &mut self,
        held: Option<(u64, Entry)>,
        next_base: Option<Offset>,
    ) -> io::Result<Option<Stop>> {
        let Some((position, entry)) = held else { return Ok(None) };
        let is_followed = next_base.map_or(self.compacted, |next_base| next_base > entry.last_offset);
        if !is_followed {
            return Ok(Some(Stop::at(position, "a batch behind missing offsets")));
        }
        self.take_up(position, &entry).await?;
        Ok(None)
    }

    async fn take_up(&mut self, position: u64, entry: &Entry) -> io::Result<()> {
        if entry.leader_epoch >= 0 && self.epochs.latest().is_none_or(|latest| entry.leader_epoch > latest) {
            self.epochs.assign(entry.leader_epoch, entry.base_offset);
        }
        let batch = WrittenBatch::of_entry(entry, position);
        match self.active.size == 0 && position > 0 {
            true => self.active.note_indexed_batch(&batch),
            false => self.active.note_batch(&batch, self.index_interval_bytes),
        }
        if let Some(replay) = &mut self.replay
            && let Some(aborted) = replay.note(&mut self.scanner, position, entry).await?
        {
            self.transactions.push(aborted);
        }
        Ok(())
    }
}
