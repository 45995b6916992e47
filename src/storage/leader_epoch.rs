//! `leader-epoch-checkpoint`: which leader epoch began at which offset (Kafka 3.9 `LeaderEpochFileCache`, KIP-101).
//!
//! Epochs and start offsets grow from entry to entry. Pure; the log writes the file.

#![forbid(unsafe_code)]

use crate::base::ids::{LeaderEpoch, Offset};
use crate::storage::checkpoint::{CheckpointError, encode_lines, parse_lines};

/// A request that names no epoch.
const NO_EPOCH: LeaderEpoch = -1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct EpochEntry {
    epoch: LeaderEpoch,
    start_offset: Offset,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderEpochs {
    entries: Vec<EpochEntry>,
}

impl LeaderEpochs {
    pub fn parse(file: &[u8]) -> Result<LeaderEpochs, CheckpointError> {
        let mut epochs = LeaderEpochs::default();
        for line in parse_lines(file)? {
            let malformed = || CheckpointError::Line(line.to_owned());
            let (epoch, start_offset) = line.split_once(' ').ok_or_else(malformed)?;
            let epoch = epoch.trim().parse().map_err(|_| malformed())?;
            epochs.assign(epoch, start_offset.trim().parse().map_err(|_| malformed())?);
        }
        Ok(epochs)
    }

    pub fn encode(&self) -> Vec<u8> {
        encode_lines(self.entries.iter().map(|entry| format!("{} {}", entry.epoch, entry.start_offset)))
    }

    /// Notes that `epoch` starts at `start_offset`; whether that is news. Entries that contradict it go, as in Kafka; an
    /// epoch that began earlier keeps its start.
    pub fn assign(&mut self, epoch: LeaderEpoch, start_offset: Offset) -> bool {
        if self.latest() == Some(epoch) {
            return false;
        }
        self.entries.retain(|entry| entry.epoch < epoch && entry.start_offset < start_offset);
        self.entries.push(EpochEntry { epoch, start_offset });
        true
    }

    pub fn latest(&self) -> Option<LeaderEpoch> {
        self.entries.last().map(|entry| entry.epoch)
    }

    /// The epoch that wrote `offset`; `None` before the first entry.
    pub fn at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let above = self.entries.partition_point(|entry| entry.start_offset <= offset);
        above.checked_sub(1).map(|at| self.entries[at].epoch)
    }

    /// The largest epoch up to `requested` and the offset at which it ends; `None` if that can't be said (Kafka 3.9
    /// `LeaderEpochFileCache.endOffsetFor`). `reign` is the leader's own epoch: it counts as begun at the log end
    /// before its first append too.
    pub fn end_offset_for(
        &self,
        requested: LeaderEpoch,
        reign: LeaderEpoch,
        log_end_offset: Offset,
    ) -> Option<(LeaderEpoch, Offset)> {
        let latest = self.latest().max(Some(reign));
        if requested == NO_EPOCH {
            return None;
        }
        if latest == Some(requested) {
            return Some((requested, log_end_offset));
        }
        let above = self.entries.partition_point(|entry| entry.epoch <= requested);
        let end_offset = match self.entries.get(above) {
            Some(next) => next.start_offset,
            None if requested < reign => log_end_offset,
            None => return None,
        };
        // What an epoch before the first entry wrote is gone from the log.
        let epoch = above.checked_sub(1).map_or(requested, |at| self.entries[at].epoch);
        Some((epoch, end_offset))
    }

    /// Drops entries at or past `end_offset`; whether there were any.
    pub fn truncate_from_end(&mut self, end_offset: Offset) -> bool {
        let count = self.entries.len();
        self.entries.retain(|entry| entry.start_offset < end_offset);
        self.entries.len() != count
    }

    /// Drops what lies before `start_offset`; the epoch that was running there then starts at it. Whether anything changed.
    pub fn truncate_from_start(&mut self, start_offset: Offset) -> bool {
        let below = self.entries.partition_point(|entry| entry.start_offset <= start_offset);
        let Some(running) = below.checked_sub(1) else { return false };
        let changed = running > 0 || self.entries[running].start_offset != start_offset;
        self.entries.drain(..running);
        self.entries[0].start_offset = start_offset;
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(text: &str) -> LeaderEpochs {
        LeaderEpochs::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_epoch_of_an_offset_is_the_last_that_began_at_or_before_it() {
        let epochs = epochs("0\n3\n0 0\n2 10\n5 30\n");
        for (offset, epoch) in [(-1, None), (0, Some(0)), (9, Some(0)), (10, Some(2)), (29, Some(2)), (99, Some(5))] {
            assert_eq!(epochs.at(offset), epoch, "{offset}");
        }
        assert_eq!(epochs.encode(), b"0\n3\n0 0\n2 10\n5 30\n");
    }

    #[test]
    fn an_epoch_ends_where_the_next_one_begins_and_the_latest_at_the_log_end() {
        let epochs = epochs("0\n3\n1 5\n3 10\n5 30\n");
        let ends = [(-1, None), (0, Some((0, 5))), (1, Some((1, 10))), (2, Some((1, 10))), (4, Some((3, 30)))];
        for (requested, end) in ends.into_iter().chain([(5, Some((5, 40))), (6, None)]) {
            assert_eq!(epochs.end_offset_for(requested, 5, 40), end, "{requested}");
        }
        // The leader reigns under 7 and has written nothing yet.
        for (requested, end) in
            [(4, Some((3, 30))), (5, Some((5, 40))), (6, Some((5, 40))), (7, Some((7, 40))), (8, None)]
        {
            assert_eq!(epochs.end_offset_for(requested, 7, 40), end, "{requested}");
        }
        let none = LeaderEpochs::default();
        assert_eq!((none.end_offset_for(0, 0, 0), none.end_offset_for(0, 2, 9)), (Some((0, 0)), Some((0, 9))));
    }

    #[test]
    fn a_new_epoch_replaces_what_contradicts_it() {
        let mut epochs = epochs("0\n3\n0 0\n2 10\n5 30\n");
        assert!(!epochs.assign(5, 40), "it began at 30");
        assert!(epochs.assign(6, 30), "epoch 5 wrote nothing");
        assert_eq!(epochs.encode(), b"0\n3\n0 0\n2 10\n6 30\n");
        assert!(epochs.assign(1, 50));
        assert_eq!(epochs.encode(), b"0\n2\n0 0\n1 50\n");
    }

    #[test]
    fn both_ends_can_be_cut() {
        let mut all = epochs("0\n3\n0 0\n2 10\n5 30\n");
        assert!(!all.truncate_from_end(31) && all.truncate_from_end(30));
        assert_eq!(all.encode(), b"0\n2\n0 0\n2 10\n");
        let mut all = epochs("0\n3\n0 0\n2 10\n5 30\n");
        assert!(all.truncate_from_start(15));
        assert_eq!(all.encode(), b"0\n2\n2 15\n5 30\n");
        assert!(!all.truncate_from_start(15) && !epochs("0\n1\n4 9\n").truncate_from_start(3));
    }

    #[test]
    fn malformed_lines_are_refused() {
        for text in ["0\n1\n0\n", "0\n1\na 0\n", "0\n1\n0 0 0\n"] {
            assert!(LeaderEpochs::parse(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
