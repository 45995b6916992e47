//! Where a follower's log is to be cut that its leader's does not go on from (KIP-101, KIP-279; Kafka 3.9
//! `AbstractFetcherThread.getOffsetTruncationState`). Pure.

use crate::base::ids::{LeaderEpoch, Offset};

/// What a leader says of the epoch of a follower's last batch: the largest one up to it that it knows, and where that ends
/// there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaderEnd {
    /// It can't say, even where the log ends.
    Unknown,
    /// It knows of no epochs.
    WithoutEpoch(Offset),
    Of(LeaderEpoch, Offset),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncation {
    /// Every batch that ends at or past it goes.
    pub offset: Offset,
    /// The logs agree below; else the leader is to be asked for the epoch that is the last one then.
    pub is_complete: bool,
}

/// `own_end_of` says of an epoch what the follower's own log says: the largest one up to it, and where that ends.
/// `fallback` is where to cut if nothing is known: what is below has been on all replicas.
pub fn truncation(
    leader: LeaderEnd,
    own_end_of: impl Fn(LeaderEpoch) -> Option<(LeaderEpoch, Offset)>,
    log_end: Offset,
    fallback: Offset,
) -> Truncation {
    let complete = |offset: Offset| Truncation { offset: offset.min(log_end), is_complete: true };
    match leader {
        LeaderEnd::Unknown => complete(fallback),
        LeaderEnd::WithoutEpoch(end) => complete(end),
        LeaderEnd::Of(epoch, end) => match own_end_of(epoch) {
            None => complete(end),
            Some((own_epoch, own_end)) if own_epoch == epoch => complete(own_end.min(end)),
            // The leader has nothing of what this log holds behind it, and may not have all before.
            Some((_, own_end)) => Truncation { offset: own_end.min(log_end), is_complete: false },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Epochs 1, 3 and 5 begin at 0, 10 and 20.
    fn own(epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        match epoch {
            1 | 2 => Some((1, 10)),
            3 | 4 => Some((3, 20)),
            5 => Some((5, 30)),
            _ => None,
        }
    }

    #[test]
    fn the_log_is_cut_where_both_logs_end_the_epoch_that_both_know() {
        for (leader, offset, is_complete) in [
            (LeaderEnd::Of(5, 25), 25, true),
            (LeaderEnd::Of(5, 40), 30, true),
            (LeaderEnd::Of(3, 15), 15, true),
            (LeaderEnd::Of(3, 22), 20, true),
            (LeaderEnd::Of(4, 22), 20, false),
            (LeaderEnd::Of(2, 5), 10, false),
            (LeaderEnd::Of(0, 7), 7, true),
            (LeaderEnd::WithoutEpoch(12), 12, true),
            (LeaderEnd::WithoutEpoch(99), 30, true),
            (LeaderEnd::Unknown, 8, true),
        ] {
            assert_eq!(truncation(leader, own, 30, 8), Truncation { offset, is_complete }, "{leader:?}");
        }
    }
}
