//! A follower's loop: fetch, append, and where the logs part, cut and go on.

use std::sync::Arc;

use bytes::BytesMut;

use super::super::*;
use super::cluster::{Cluster, Replica};
use crate::base::ids::{LeaderEpoch, Offset};
use crate::executor::either;
use crate::partition::LeaderAndIsr;
use crate::partition::partition::{ANY_EPOCH, Isolation};
use crate::partition::purgatory::Watch;
use crate::partition::read::{ReadFailure, ReadRequest};
use crate::partition::replicate::{FollowerPosition, LeaderRecords};
use crate::partition::truncate::Cut;
use crate::replication::truncation::{LeaderEnd, truncation};

/// `replica.fetch.wait.max.ms`.
const WAIT_MAX: Duration = Duration::from_millis(500);
/// `replica.fetch.backoff.ms`, shorter.
const BACKOFF: Duration = Duration::from_millis(5);

/// Of a way between two replicas, at most.
const LATENCY_MS: usize = 12;

/// What a leader answers to one fetch.
enum Answer {
    Records(LeaderRecords),
    Diverging(LeaderEpoch, Offset),
    OutOfRange {
        log_start: Offset,
        log_end: Offset,
    },
    /// Not now, or not by this one.
    Nothing,
}

impl Cluster {
    /// Follows whoever leads, as long as the process runs.
    pub async fn follow(self, replica: Rc<Replica>) {
        loop {
            let given = replica.told.borrow().clone();
            if given.leader == replica.id || !self.follow_once(&replica, &given).await {
                self.world.timers().sleep_until(self.world.now() + BACKOFF).await;
            }
        }
    }

    async fn follow_once(&self, replica: &Rc<Replica>, given: &LeaderAndIsr) -> bool {
        let (partition, epoch) = (&replica.partition, given.leader_epoch);
        let Ok(position) = partition.follower_position(epoch).await else { return false };
        let Some(leader) = self.running(given.leader) else { return false };
        self.travel().await;
        let answer = self.fetch(replica, &leader, epoch, position).await;
        self.travel().await;
        match answer {
            Answer::Records(records) => partition.append_as_follower(epoch, records).await.is_ok(),
            Answer::Diverging(leader_epoch, end) => {
                self.note_cut();
                let own_end_of = |epoch| partition.own_end_offset_for(epoch);
                let FollowerPosition { log_end, high_watermark, .. } = position;
                let cut = truncation(LeaderEnd::Of(leader_epoch, end), own_end_of, log_end, high_watermark);
                partition.truncate(Cut::From(cut.offset), epoch).await.is_ok()
            }
            Answer::OutOfRange { log_end, .. } if log_end < position.log_end => {
                partition.truncate(Cut::From(log_end), epoch).await.is_ok()
            }
            Answer::OutOfRange { log_start, .. } if log_start > position.log_end => {
                partition.truncate(Cut::All(log_start), epoch).await.is_ok()
            }
            Answer::OutOfRange { .. } | Answer::Nothing => false,
        }
    }

    /// The way of a request or its answer.
    async fn travel(&self) {
        let time = Duration::from_millis(self.world.below(LATENCY_MS) as u64);
        self.world.timers().sleep_until(self.world.now() + time).await;
    }

    /// What the leader does, long poll and all.
    async fn fetch(
        &self,
        follower: &Rc<Replica>,
        leader: &Rc<Replica>,
        epoch: LeaderEpoch,
        position: FollowerPosition,
    ) -> Answer {
        let offset = position.log_end;
        let request = ReadRequest {
            offset,
            bytes_max: 1 + self.world.below(3000) as u64,
            current_leader_epoch: epoch,
            last_fetched_epoch: position.last_epoch.unwrap_or(ANY_EPOCH),
            isolation: Isolation::LogEnd,
        };
        let until = self.world.now() + WAIT_MAX;
        loop {
            let read = leader.partition.read(request).await;
            if !self.is_running(leader) || !self.is_running(follower) {
                return Answer::Nothing;
            }
            let read = match read {
                Ok(read) => read,
                Err(ReadFailure::OffsetOutOfRange) => {
                    let Ok(offsets) = leader.partition.leader_offsets(epoch) else { return Answer::Nothing };
                    return Answer::OutOfRange { log_start: offsets.log_start, log_end: offsets.log_end };
                }
                Err(_) => return Answer::Nothing,
            };
            if let Some((epoch, end)) = read.diverging {
                return Answer::Diverging(epoch, end);
            }
            match leader.partition.follower_fetched(follower.id, offset, epoch) {
                Ok(Some(proposal)) => self.propose(leader, proposal),
                Ok(None) => {}
                Err(_) => return Answer::Nothing,
            }
            self.note_shown(leader);
            let Ok(offsets) = leader.partition.leader_offsets(epoch) else { return Answer::Nothing };
            let answer = |records| {
                let (high_watermark, log_start) = (offsets.high_watermark, offsets.log_start);
                Answer::Records(LeaderRecords { records, high_watermark, log_start })
            };
            if let Some(data) = read.data {
                let length = data.range.length.max(data.first_batch_bytes);
                let Some(_inside) = data.range.fence.enter(data.range.position + length) else {
                    return Answer::Nothing;
                };
                return answer(BytesMut::from(&*data.range.file.bytes_at(data.range.position, length)));
            }
            // What it knows already is no news.
            if self.world.now() >= until || offsets.high_watermark > position.high_watermark {
                return answer(BytesMut::new());
            }
            let watch = Arc::new(Watch::new(1));
            if offsets.log_end == read.offsets.log_end && leader.partition.watch(&watch, Isolation::LogEnd, u64::MAX) {
                // Whichever comes first.
                let _ = either(watch.fired(), self.world.timers().sleep_until(until)).await;
            }
        }
    }
}
