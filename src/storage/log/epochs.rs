//! Which leader epoch wrote what, and where each ends.

#![forbid(unsafe_code)]

use std::future::Future;

use crate::base::ids::{LeaderEpoch, Offset};
use crate::platform::Disk;
use crate::storage::log::{LEADER_EPOCH_CHECKPOINT, Log, LogError};

impl<D: Disk> Log<D> {
    /// Notes that this leader epoch starts at an offset at or past the log end; [`Log::is_quiet`]. The future, if there is
    /// news, writes `leader-epoch-checkpoint` durably.
    pub fn assign_epoch(
        &mut self,
        epoch: LeaderEpoch,
        start_offset: Offset,
    ) -> Option<impl Future<Output = Result<(), LogError>> + use<D> + 'static> {
        assert!(self.is_quiet() && start_offset >= self.log_end_offset, "an epoch begins with what is appended next");
        let is_news = self.epochs.assign(epoch, start_offset);
        is_news.then(|| {
            let path = self.directory.join(LEADER_EPOCH_CHECKPOINT);
            let (disk, file) = (self.disk.clone(), self.epochs.encode());
            async move { disk.replace(&path, file).await.map_err(LogError::io_at(&path)) }
        })
    }

    /// Forgets an epoch that begins at or past the log end: it is news again. The file may keep it, a start forgets it too.
    pub fn take_back_epoch(&mut self) {
        self.epochs.truncate_from_end(self.log_end_offset);
    }

    pub fn latest_epoch(&self) -> Option<LeaderEpoch> {
        self.epochs.latest()
    }

    /// The largest epoch up to `requested` and where it ends, for the leader of epoch `reign`; `None` if that can't be
    /// said.
    pub fn end_offset_for(&self, requested: LeaderEpoch, reign: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        self.epochs.end_offset_for(requested, reign, self.log_end_offset)
    }

    /// The leader epoch that wrote the record at `offset`, as far as it is known.
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        self.epochs.at(offset)
    }
}
