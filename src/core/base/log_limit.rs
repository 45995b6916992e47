//! A bound on how often one kind of line is logged: what a client can provoke must not fill the disk.

use std::cell::Cell;
use std::time::Duration;

use super::time::Monotonic;

/// Lines about refused connections and requests, of each kind on each shard, in [`REFUSALS_LOGGED_INTERVAL`].
const REFUSALS_LOGGED_MAX: u32 = 10;
const REFUSALS_LOGGED_INTERVAL: Duration = Duration::from_secs(10);

/// Lines of one kind in one interval.
pub struct LogLimit {
    interval: Duration,
    lines_max: u32,
    since: Cell<Option<Monotonic>>,
    lines: Cell<u32>,
    suppressed: Cell<u64>,
}

impl LogLimit {
    pub const fn new(interval: Duration, lines_max: u32) -> LogLimit {
        LogLimit { interval, lines_max, since: Cell::new(None), lines: Cell::new(0), suppressed: Cell::new(0) }
    }

    /// For lines about what peers send that is refused.
    pub const fn of_refusals() -> LogLimit {
        LogLimit::new(REFUSALS_LOGGED_INTERVAL, REFUSALS_LOGGED_MAX)
    }

    /// Whether a line may be logged now; with it, how many were left out since the last one.
    pub fn allow(&self, now: Monotonic) -> Option<u64> {
        if self.since.get().is_none_or(|since| now.since(since) >= self.interval) {
            self.since.set(Some(now));
            self.lines.set(0);
        }
        if self.lines.get() >= self.lines_max {
            self.suppressed.set(self.suppressed.get() + 1);
            return None;
        }
        self.lines.set(self.lines.get() + 1);
        Some(self.suppressed.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_past_the_bound_are_left_out_and_counted_until_the_interval_is_over() {
        let limit = LogLimit::new(Duration::from_secs(10), 2);
        let at = |seconds: u64| Monotonic(seconds * 1_000_000_000);
        assert_eq!([1, 2, 3, 4].map(|second| limit.allow(at(second))), [Some(0), Some(0), None, None]);
        assert_eq!([11, 12, 13].map(|second| limit.allow(at(second))), [Some(2), Some(0), None]);
        assert_eq!(limit.allow(at(30)), Some(1));
    }
}
