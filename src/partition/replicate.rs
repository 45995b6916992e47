//! The two ends of replication at a partition: what a leader learns by its followers' fetches, and what a follower does with
//! its leader's answers.
//!
//! ```text
//!  leader:    read up to the log end ----> answer        follower_fetched: offset --> ISR, high watermark
//!                                            |                 ^
//!  follower:              append_as_follower +--> written (flushed, where flushes count) --> next fetch: offset = log end
//! ```

use std::rc::Rc;

use bytes::BytesMut;

use super::append::{Append, AppendFailure, Origin, write_epochs};
use super::partition::{LeadershipError, Partition, State};
use super::role::{CommittedIsr, IsrProposal, NotAssigned};
use super::truncate::{Cut, TruncationFailure};
use crate::base::ids::{BrokerId, LeaderEpoch, Offset};
use crate::platform::{Clock, Platform};
use crate::record::batch::{BatchError, BatchHeader, has_valid_crc};
use crate::storage::log::AppendRefusal;
use crate::storage::segment::BASE_OFFSET_MAX;

/// Of a batch whose header can't be read.
const UNKNOWN_OFFSET: Offset = -1;

/// What a leader answers to a follower's fetch of one partition.
#[derive(Debug, Default)]
pub struct LeaderRecords {
    /// Batches; the last one may be cut short, and is fetched again then.
    pub records: BytesMut,
    pub high_watermark: Offset,
    pub log_start: Offset,
}

/// Where a follower goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerPosition {
    pub log_start: Offset,
    pub high_watermark: Offset,
    /// Where to fetch.
    pub log_end: Offset,
    /// Of the log's last batch, if that is known.
    pub last_epoch: Option<LeaderEpoch>,
}

impl<P: Platform> Partition<P> {
    /// A follower has fetched from `offset`, under the leader epoch that it knows: it has all below. Gives what is to be
    /// proposed to the controller, if it is to join the ISR (Kafka 3.9 `Partition.updateFollowerFetchState`).
    ///
    /// # Errors
    /// Also of a replica that the leader was not told of: it may be newer than what the leader knows.
    pub fn follower_fetched(
        &self,
        follower: BrokerId,
        offset: Offset,
        current_leader_epoch: LeaderEpoch,
    ) -> Result<Option<IsrProposal>, LeadershipError> {
        let mut state = self.state.borrow_mut();
        state.check_leader(current_leader_epoch)?;
        let (high_watermark, now) = (state.high_watermark, state.clock.now());
        let State { slot, role, .. } = &mut *state;
        let (Some(log), Some(leader)) = (slot.open(), role.leader_mut()) else {
            return Err(LeadershipError::NotLeader);
        };
        let fetched = leader.follower_fetched(follower, offset, log.log_end_offset(), now);
        fetched.map_err(|NotAssigned| match current_leader_epoch >= 0 {
            true => LeadershipError::UnknownLeaderEpoch,
            false => LeadershipError::NotLeader,
        })?;
        let proposal = leader.expansion(follower, high_watermark);
        state.move_high_watermark();
        Ok(proposal)
    }

    /// What is to be proposed to the controller, if members of the ISR lag for too long. To be asked every half of
    /// `replica.lag.time.max.ms`.
    pub fn lagging_followers(&self) -> Option<IsrProposal> {
        let mut state = self.state.borrow_mut();
        let (now, lag_max) = (state.clock.now(), state.settings.replica_lag_time_max);
        let State { slot, role, .. } = &mut *state;
        role.leader_mut()?.shrinkage(slot.open()?.log_end_offset(), lag_max, now)
    }

    /// The controller has answered a proposal: with the ISR of now, or `None`: it stays.
    pub fn proposal_answered(&self, proposal: &IsrProposal, committed: Option<CommittedIsr>) {
        let mut state = self.state.borrow_mut();
        if let Some(leader) = state.role.leader_mut() {
            leader.proposal_answered(proposal, committed);
            state.move_high_watermark();
        }
    }

    /// Where the follower of this leader epoch is, once its log is not on its way to another end.
    pub async fn follower_position(&self, leader_epoch: LeaderEpoch) -> Result<FollowerPosition, LeadershipError> {
        self.unparked().await;
        let state = self.state.borrow();
        state.check_follower(leader_epoch)?;
        let log = state.slot.open().ok_or(LeadershipError::NotLeader)?;
        Ok(FollowerPosition {
            log_start: log.log_start_offset(),
            high_watermark: state.high_watermark,
            log_end: log.log_end_offset(),
            last_epoch: log.latest_epoch(),
        })
    }

    /// The largest leader epoch up to `requested` that this replica's own log knows, and where it ends there.
    pub fn own_end_offset_for(&self, requested: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        let state = self.state.borrow();
        let log = state.slot.open()?;
        log.end_offset_for(requested, log.latest_epoch().unwrap_or(-1))
    }

    /// Appends a leader's batches as they are, in one write if they fit, and follows its high watermark and its log start.
    /// Gives the log end, from which the next fetch goes on: what counts as on this replica is there then.
    ///
    /// # Errors
    /// What was appended before the batch that is refused stays.
    pub async fn append_as_follower(
        self: &Rc<Self>,
        leader_epoch: LeaderEpoch,
        answer: LeaderRecords,
    ) -> Result<Offset, AppendFailure> {
        let LeaderRecords { mut records, high_watermark, log_start } = answer;
        let (batches, refused) = split(&mut records);
        let appended = self.append_batches(leader_epoch, batches).await;
        // Whatever was appended counts, and the next fetch may meet the same refusal.
        let followed = self.follow(leader_epoch, high_watermark, log_start);
        appended?;
        refused.map_or(Ok(()), Err)?;
        followed
    }

    async fn append_batches(
        self: &Rc<Self>,
        leader_epoch: LeaderEpoch,
        batches: Vec<(BytesMut, BatchHeader)>,
    ) -> Result<(), AppendFailure> {
        if let Some(base_offset) = self.restart_of(&batches) {
            self.truncate(Cut::All(base_offset), leader_epoch).await.map_err(|failure| match failure {
                TruncationFailure::Leadership(error) => AppendFailure::Leadership(error),
                failure => AppendFailure::Storage(failure.to_string()),
            })?;
        }
        if self.has_hole(&batches) {
            self.admit_holes().await?;
        }
        // Queued together, so that they are staged together.
        let (mut queued, mut refused) = (Vec::with_capacity(batches.len()), Ok(()));
        for (batch, header) in batches {
            let origin = Origin::Replication;
            match self.append_replicated(Append { batch, header, origin, leader_epoch, all_replicas: false }) {
                Ok(receiver) => queued.push(receiver),
                Err(failure) => {
                    refused = Err(failure);
                    break;
                }
            }
        }
        for receiver in queued {
            // Unanswered by a log that is given up.
            receiver.await.unwrap_or(Err(AppendFailure::Interrupted))?;
        }
        refused
    }

    /// Where an empty log is to start anew: it starts inside the leader's first batch, since records were deleted there
    /// (Kafka 3.9 `Partition.doAppendRecordsToFollowerOrFutureReplica`, `UnexpectedAppendOffsetException`). No checksum
    /// covers that offset: it must be one that a log can start at.
    fn restart_of(&self, batches: &[(BytesMut, BatchHeader)]) -> Option<Offset> {
        let state = self.state.borrow();
        let log = state.slot.open()?;
        let (_, header) = batches.first()?;
        let (log_start, log_end) = (log.log_start_offset(), log.log_end_offset());
        let may_start = (0..=BASE_OFFSET_MAX).contains(&header.base_offset) && header.last_offset_delta >= 0;
        let lies_inside = log_start == log_end && header.base_offset < log_end && log_end <= header.last_offset();
        (may_start && lies_inside).then_some(header.base_offset)
    }

    /// Offsets are missing before one of the batches.
    fn has_hole(&self, batches: &[(BytesMut, BatchHeader)]) -> bool {
        let state = self.state.borrow();
        let Some(log) = state.slot.open() else { return false };
        let ends = batches.iter().map(|(_, header)| header.last_offset().saturating_add(1));
        let before = std::iter::once(log.log_end_offset()).chain(ends);
        batches.iter().zip(before).any(|((_, header), end)| header.base_offset > end)
    }

    /// The leader's log was compacted, whatever the topic says now, and this one will miss the same offsets: recovery must
    /// not take them for a lost tail.
    async fn admit_holes(&self) -> Result<(), AppendFailure> {
        let is_noted = self.state.borrow().cleaner.is_noted();
        match self.of_log(|log| log.cleaned_to().unwrap_or(log.log_start_offset())).filter(|_| !is_noted) {
            Some(cleaned_to) => {
                let noted = self.note_cleaned_to(cleaned_to).await;
                noted.map_err(|error| AppendFailure::Storage(error.to_string()))
            }
            None => Ok(()),
        }
    }

    /// The high watermark is the leader's, as far as this log counts; the log start too, below that.
    fn follow(
        self: &Rc<Self>,
        leader_epoch: LeaderEpoch,
        high_watermark: Offset,
        log_start: Offset,
    ) -> Result<Offset, AppendFailure> {
        let log_end = {
            let mut state = self.state.borrow_mut();
            state.check_follower(leader_epoch)?;
            let counted = state.local_ends().map_or(0, |local| local.counted);
            let followed = high_watermark.min(counted).max(state.high_watermark);
            state.set_high_watermark(followed);
            let log = state.slot.open_mut().ok_or(LeadershipError::NotLeader)?;
            if log_start > log.log_start_offset() && log_start <= followed {
                log.increment_log_start_offset(log_start);
            }
            log.log_end_offset()
        };
        write_epochs(self);
        Ok(log_end)
    }
}

/// The whole batches of an answer, and what is wrong with what follows them.
fn split(records: &mut BytesMut) -> (Vec<(BytesMut, BatchHeader)>, Option<AppendFailure>) {
    let mut batches = Vec::new();
    let corrupt = |base_offset| Some(AppendRefusal::Corrupt { base_offset }.into());
    loop {
        let header = match BatchHeader::parse(records) {
            Ok(header) => header,
            // Also where nothing follows.
            Err(BatchError::Truncated) => return (batches, None),
            Err(_) => return (batches, corrupt(UNKNOWN_OFFSET)),
        };
        if header.batch_bytes() > records.len() {
            return (batches, None);
        }
        let batch = records.split_to(header.batch_bytes());
        if !has_valid_crc(&batch) {
            return (batches, corrupt(header.base_offset));
        }
        batches.push((batch, header));
    }
}
