//! How a replica takes on roles and lives by other settings, and how its high watermark moves.
//!
//! A role is taken on between two writes: what was queued before it is refused then, and whoever gave it waits for that. The
//! log end, the high watermark and leadership are three events; each wakes those who wait for it.

use std::sync::Arc;

use futures_channel::oneshot;

use super::append::AppendFailure;
use super::partition::{LeadershipError, Partition, State, offsets_of};
use super::role::LeaderAndIsr;
use super::slot::Job;
use crate::base::ids::Offset;
use crate::config::TopicConfig;
use crate::platform::{Clock, Platform};
use crate::storage::log::Log;

impl<P: Platform> State<P> {
    /// The log and the high watermark live by the settings: what counts as appended may hang on them.
    pub(super) fn follow_config(&mut self) {
        if let Some(log) = self.slot.open_mut() {
            log.set_config(self.settings.log_config());
        }
        self.move_high_watermark();
    }

    /// Takes on a role between two writes.
    fn take_role(&mut self, given: &LeaderAndIsr) {
        let log_end = self.slot.log().map_or(0, Log::log_end_offset);
        let Some(next) = self.role.next(self.settings.local, given, log_end, self.clock.now()) else { return };
        let is_new_reign = next.epoch() > self.role.epoch();
        self.role = next;
        if is_new_reign {
            match self.role.is_leader() {
                true => self.purgatory.fire_watches(),
                false => {
                    // Written and not flushed: the next leader says what becomes of it.
                    self.flushing.fail(&AppendFailure::Leadership(LeadershipError::NotLeader));
                    self.purgatory.interrupt(&AppendFailure::Interrupted);
                }
            }
        }
        self.move_high_watermark();
    }

    /// Those that wait for the append task.
    pub(super) fn take_waiting_roles(&mut self) {
        let (waiting, _told_when_dropped) = self.append.roles.take();
        waiting.for_each(|given| self.take_role(&given));
    }

    /// The leader knows more of its replicas or of its own log than before: the high watermark may have passed more
    /// (Kafka 3.9 `Partition.maybeIncrementLeaderHW`).
    pub(super) fn move_high_watermark(&mut self) {
        let (Some(local), Some(leader)) = (self.local_ends(), self.role.leader()) else { return };
        let (min_isr, lag_max) = (self.min_isr(), self.settings.replica_lag_time_max);
        let moved = leader.high_watermark(self.high_watermark, local, min_isr, lag_max, || self.clock.now());
        self.set_high_watermark(moved);
    }

    /// Tells who waits for it.
    pub(super) fn set_high_watermark(&mut self, high_watermark: Offset) {
        if high_watermark == self.high_watermark {
            return;
        }
        self.high_watermark = high_watermark;
        if let Some(log) = self.slot.log_mut() {
            log.high_watermark_moved(high_watermark);
            let log_bytes = log.appended_bytes();
            let offsets = offsets_of(log, high_watermark);
            self.purgatory.high_watermark_moved(&offsets, log_bytes);
        }
    }

    /// Tells who waits for it.
    pub(super) fn log_end_moved(&mut self) {
        if let Some(log) = self.slot.log() {
            self.purgatory.log_end_moved(log.log_end_offset(), log.appended_bytes());
        }
    }
}

impl<P: Platform> Partition<P> {
    /// Has the replica take on a role (Kafka 3.9 `Partition.makeLeader`, `makeFollower`): when the write in flight has ended,
    /// and before anything else is staged. The receiver resolves, with nothing, when it has, or when a newer one waits in its
    /// place. What is older than what is known is ignored.
    ///
    /// Where a reign begins is written down before its first append: a start writes nothing for those that have none.
    pub fn change_role(&self, given: LeaderAndIsr) -> oneshot::Receiver<()> {
        let (taken, receiver) = oneshot::channel();
        let mut state = self.state.borrow_mut();
        let local = state.settings.local;
        match state.jobs.is_running(Job::Append) {
            true => state.append.roles.push(local, given, taken),
            false => state.take_role(&given),
        }
        receiver
    }

    /// The topic has other settings: role and log live by them, a log that is being cut when that is done.
    pub fn set_config(&self, config: Arc<TopicConfig>) {
        let mut state = self.state.borrow_mut();
        state.settings.config = config;
        state.follow_config();
    }

    /// `producer.id.expiration.ms` has changed: the same.
    pub fn set_producer_id_expiration(&self, expiration_ms: i64) {
        let mut state = self.state.borrow_mut();
        state.settings.producer_id_expiration_ms = expiration_ms;
        state.follow_config();
    }
}
