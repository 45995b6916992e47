//! Which segments are too old, too many, or below the log start: the pure choice (Kafka 3.9
//! `UnifiedLog.deleteOldSegments`).
//!
//! Three passes, each from the oldest segment on until one stays: what ends at or below the log start; what the log
//! holds beyond `retention.bytes`; what is older than `retention.ms`. The last two need `delete` in `cleanup.policy`.
//! Nothing at or past the high watermark goes, and never an active segment without batches.

#![forbid(unsafe_code)]

use crate::base::ids::Offset;
use crate::base::time::WallMs;

/// What the topic says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionPolicy {
    /// `cleanup.policy` contains delete.
    pub delete: bool,
    /// Negative: for ever.
    pub retention_ms: i64,
    /// Negative: no limit.
    pub retention_bytes: i64,
}

/// A segment as the choice sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentAge {
    /// Where the next one begins, or the log end.
    pub end_offset: Offset,
    pub size: u64,
    pub is_active: bool,
    /// The time of its newest record, else that of its file's last change; `None`: somebody has to look.
    pub newest: Option<WallMs>,
}

/// The outcome of the choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// So many of the oldest segments go; 0: all stay.
    Oldest(usize),
    /// The answer hangs on how new the records of the segment at this place are.
    NeedsAge(usize),
}

/// Looks at the segments from the oldest on; the last one is the active one.
pub fn expired(
    segments: impl Iterator<Item = SegmentAge> + Clone,
    log_start_offset: Offset,
    high_watermark: Offset,
    policy: RetentionPolicy,
    now: WallMs,
) -> Expiry {
    let may_go =
        |segment: &SegmentAge| segment.end_offset <= high_watermark && !(segment.is_active && segment.size == 0);
    let is_below_start = |segment: &SegmentAge| !segment.is_active && segment.end_offset <= log_start_offset;
    let mut gone = segments.clone().take_while(|segment| may_go(segment) && is_below_start(segment)).count();
    if !policy.delete {
        return Expiry::Oldest(gone);
    }
    if let Ok(retained) = u64::try_from(policy.retention_bytes) {
        let total: u64 = segments.clone().skip(gone).map(|segment| segment.size).sum();
        let mut surplus = total.checked_sub(retained);
        let is_surplus = |segment: &SegmentAge| {
            surplus = surplus.and_then(|surplus| surplus.checked_sub(segment.size));
            surplus.is_some()
        };
        gone += segments.clone().skip(gone).take_while(may_go).take_while(is_surplus).count();
    }
    if policy.retention_ms >= 0 {
        for (index, segment) in segments.enumerate().skip(gone) {
            if !may_go(&segment) {
                break;
            }
            match segment.newest {
                None => return Expiry::NeedsAge(index),
                Some(newest) if now.saturating_sub(newest) > policy.retention_ms => gone += 1,
                Some(_) => break,
            }
        }
    }
    Expiry::Oldest(gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000;
    const KEEP: RetentionPolicy = RetentionPolicy { delete: true, retention_ms: -1, retention_bytes: -1 };

    /// Segments of 100 records and 1000 bytes; the last is the active one.
    fn segments(newest: &[i64]) -> Vec<SegmentAge> {
        let last = newest.len() - 1;
        let segment = |(index, newest): (usize, &i64)| SegmentAge {
            end_offset: 100 * (index as i64 + 1),
            size: 1000,
            is_active: index == last,
            newest: Some(*newest),
        };
        newest.iter().enumerate().map(segment).collect()
    }

    fn choose(segments: &[SegmentAge], start: Offset, high_watermark: Offset, policy: RetentionPolicy) -> Expiry {
        expired(segments.iter().copied(), start, high_watermark, policy, 10 * DAY)
    }

    #[test]
    fn segments_older_than_retention_ms_go_until_the_first_that_is_not() {
        let policy = RetentionPolicy { retention_ms: 2 * DAY, ..KEEP };
        let found = |newest: &[i64]| choose(&segments(newest), 0, 1000, policy);
        assert_eq!(found(&[DAY, 3 * DAY, 8 * DAY, DAY]), Expiry::Oldest(2), "exactly two days old is not older");
        assert_eq!(found(&[9 * DAY, DAY, DAY]), Expiry::Oldest(0));
        assert_eq!(found(&[DAY, DAY]), Expiry::Oldest(2), "the active one too");
        assert_eq!(found(&[20 * DAY, DAY]), Expiry::Oldest(0), "from the future");
    }

    #[test]
    fn segments_beyond_retention_bytes_go_as_far_as_whole_ones_are_surplus() {
        let found =
            |retention_bytes| choose(&segments(&[0, 0, 0, 0]), 0, 1000, RetentionPolicy { retention_bytes, ..KEEP });
        for (retention_bytes, count) in [(5000, 0), (4000, 0), (3001, 0), (3000, 1), (1999, 2), (1, 3), (0, 4)] {
            assert_eq!(found(retention_bytes), Expiry::Oldest(count), "{retention_bytes}");
        }
    }

    #[test]
    fn size_is_counted_after_what_the_log_start_takes_and_age_after_both() {
        let all = segments(&[0, 0, DAY, 9 * DAY, 9 * DAY]);
        let policy = RetentionPolicy { retention_bytes: 3000, ..KEEP };
        assert_eq!(choose(&all, 250, 1000, policy), Expiry::Oldest(2), "what is left is 3000 bytes");
        let policy = RetentionPolicy { retention_ms: 2 * DAY, ..policy };
        assert_eq!(choose(&all, 250, 1000, policy), Expiry::Oldest(3));
    }

    #[test]
    fn nothing_at_or_past_the_high_watermark_goes_nor_an_active_segment_without_batches() {
        let policy = RetentionPolicy { retention_ms: 0, ..KEEP };
        let mut all = segments(&[0, 0, 0]);
        assert_eq!(choose(&all, 0, 199, policy), Expiry::Oldest(1));
        assert_eq!(choose(&all, 0, 200, policy), Expiry::Oldest(2));
        all[2].size = 0;
        assert_eq!(choose(&all, 0, 1000, policy), Expiry::Oldest(2));
    }

    #[test]
    fn without_delete_only_what_lies_below_the_log_start_goes() {
        let policy = RetentionPolicy { delete: false, retention_ms: 0, retention_bytes: 0 };
        let all = segments(&[0, 0, 0]);
        for (start, count) in [(0, 0), (99, 0), (100, 1), (199, 1), (200, 2), (300, 2)] {
            assert_eq!(choose(&all, start, 1000, policy), Expiry::Oldest(count), "{start}");
        }
    }

    #[test]
    fn an_age_is_asked_for_only_where_the_answer_hangs_on_it() {
        let mut all = segments(&[DAY, DAY, 9 * DAY, DAY]);
        all[3].newest = None;
        let policy = RetentionPolicy { retention_ms: 2 * DAY, ..KEEP };
        assert_eq!(choose(&all, 0, 1000, policy), Expiry::Oldest(2));
        all[1].newest = None;
        assert_eq!(choose(&all, 0, 1000, policy), Expiry::NeedsAge(1));
        assert_eq!(choose(&all, 200, 1000, policy), Expiry::Oldest(2), "below the log start");
        assert_eq!(choose(&all, 0, 1000, KEEP), Expiry::Oldest(0));
    }
}
