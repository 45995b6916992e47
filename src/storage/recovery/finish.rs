//! From loaded segments to a log: its epochs and producers, the snapshots that stay, what is not flushed yet.

use super::replay::Replay;
use super::{Recovery, end_offset};
use crate::base::ids::{Offset, TopicId};
use crate::platform::Disk;
use crate::storage::leader_epoch::LeaderEpochs;
use crate::storage::log::{LEADER_EPOCH_CHECKPOINT, Log, LogError, Names, Run, Snapshots, Unflushed};
use crate::storage::offset_index::OffsetIndex;
use crate::storage::segment::{ActiveSegment, OFFSET_INDEX, SNAPSHOT};

impl<D: Disk> Recovery<D> {
    pub(super) async fn finish(
        mut self,
        mut active: ActiveSegment<D::File>,
        replay: Option<Replay>,
        topic_id: TopicId,
        epochs_file: Option<Vec<u8>>,
    ) -> Result<Log<D>, LogError> {
        let log_end_offset = end_offset(&active);
        let first_base_offset = self.closed.keys().next().copied().unwrap_or(active.base_offset);
        let log_start_offset = self.last_stop.log_start_offset.max(first_base_offset);
        self.epochs.truncate_from_end(log_end_offset + 1);
        self.epochs.truncate_from_start(self.last_stop.log_start_offset);
        let epochs = self.epochs.encode();
        // An epoch that has written nothing yet: whoever leads on begins it again, the file may keep it.
        self.epochs.truncate_from_end(log_end_offset);
        let replay = match replay {
            Some(replay) => replay,
            None => self.replay_clean(log_end_offset).await?,
        };
        let flushed_offset = match self.last_stop.unclean {
            true => self.last_stop.recovery_point.clamp(first_base_offset, log_end_offset),
            false => log_end_offset,
        };
        let snapshots = self.keep_snapshots(log_end_offset, flushed_offset).await?;
        if epochs_file.as_ref().map_or(self.epochs != LeaderEpochs::default(), |file| *file != epochs) {
            let path = self.directory.path.join(LEADER_EPOCH_CHECKPOINT);
            self.directory.disk.replace(&path, epochs).await.map_err(LogError::io_at(&path))?;
            self.has_new_name = false;
        }
        if self.has_new_name {
            self.directory.sync().await?;
        }
        let found = self.unflushed(&active, flushed_offset, log_end_offset).await?;
        active.forget_written(false);
        active.transactions.bytes = self.files.transaction_indexes.get(&active.base_offset).copied().unwrap_or(0);
        let is_kept = |(base_offset, bytes): (Offset, u64)| (bytes > 0).then_some(base_offset);
        let transaction_indexes = self.files.transaction_indexes.into_iter().filter_map(is_kept).collect();
        Ok(Log {
            disk: self.directory.disk,
            directory: self.directory.path,
            topic_partition: self.topic_partition,
            topic_id,
            config: self.config,
            closed: self.closed,
            active,
            open_files: self.open_files,
            log_start_offset,
            log_end_offset,
            flushed_offset,
            producers: replay.producers,
            epochs: self.epochs,
            snapshots,
            transaction_indexes,
            cleaned_to: self.last_stop.cleaned_to,
            names: Names::new(),
            run: Run::new(self.changed || self.last_stop.unclean, self.wall, found),
        })
    }

    /// The bytes past the flushed offset, to an index entry before it.
    async fn unflushed(
        &self,
        active: &ActiveSegment<D::File>,
        flushed_offset: Offset,
        log_end_offset: Offset,
    ) -> Result<Unflushed, LogError> {
        let mut unflushed = Unflushed::default();
        if flushed_offset == log_end_offset {
            return Ok(unflushed);
        }
        let holder =
            self.closed.range(..=flushed_offset).next_back().map_or(Offset::MIN, |(base_offset, _)| *base_offset);
        if active.base_offset > flushed_offset {
            unflushed.closed_bytes = self.closed.range(holder..).map(|(_, closed)| closed.size).sum();
            unflushed.active_bytes = active.size;
            if let Some(closed) = self.closed.get(&holder).filter(|closed| closed.base_offset < flushed_offset) {
                let index = self.directory.read_index(holder, OFFSET_INDEX).await?.unwrap_or_default();
                let size = u32::try_from(closed.size).unwrap_or(u32::MAX);
                let indexed = OffsetIndex::decode(holder, u32::MAX, &index, size).lookup(flushed_offset);
                unflushed.closed_bytes -= indexed.map_or(0, |entry| u64::from(entry.position));
            }
        } else {
            let indexed = active.offset_index.lookup(flushed_offset);
            unflushed.active_bytes = active.size - indexed.map_or(0, |entry| u64::from(entry.position));
        }
        Ok(unflushed)
    }

    /// The producer state at the end of a log that was closed in order.
    async fn replay_clean(&mut self, log_end_offset: Offset) -> Result<Replay, LogError> {
        let had_snapshots = !self.files.snapshots.is_empty();
        let mut replay = self.begin_replay(log_end_offset).await?;
        // Kafka before 2.2 took none on a clean stop; it does not read the whole log for that either.
        if had_snapshots || self.last_stop.unclean {
            replay.run(&self.directory, &self.files.logs, log_end_offset).await?;
        }
        Ok(replay)
    }

    /// Removes what is of no use: snapshots past the log end, and those of earlier stops: the ones at a segment's
    /// base are kept, and of the others the newest of all, which must be past those, and the newest durable one (Kafka 3.9
    /// `ProducerStateManager.removeStraySnapshots`). Gives what is left.
    async fn keep_snapshots(&mut self, log_end_offset: Offset, flushed_offset: Offset) -> Result<Snapshots, LogError> {
        let beyond = self.files.snapshots.split_off(&(log_end_offset + 1));
        let found = &self.files.snapshots;
        let newest = [found.last(), found.range(..=flushed_offset).next_back()].map(Option::<&Offset>::copied);
        let is_base = |offset: &Offset| self.files.logs.contains_key(offset);
        let (kept, strays): (Vec<_>, Vec<_>) =
            found.iter().copied().partition(|offset| is_base(offset) || newest.contains(&Some(*offset)));
        let between = kept.iter().copied().filter(|offset| !is_base(offset)).collect();
        let newest = kept.last().copied();
        for offset in strays.iter().chain(&beyond) {
            self.useless.push(self.directory.path_of(*offset, SNAPSHOT));
        }
        for path in std::mem::take(&mut self.useless) {
            self.directory.remove(&path).await?;
            (self.changed, self.has_new_name) = (true, true);
        }
        Ok(Snapshots { newest, between })
    }
}
