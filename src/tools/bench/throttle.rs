//! How a connection keeps still when the broker's quota says so: from KIP-219 on a broker answers at once and tells for how
//! long the client is to send nothing more on that connection; older versions of a request wait for their answer instead.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::time::Duration;

use super::shared::nanoseconds;

/// Longer than a broker's quota can ask for with sensible windows; one that asks for more gets its requests after this.
const HELD_MAX: Duration = Duration::from_secs(60);

/// One connection's.
#[derive(Debug)]
pub struct Throttle {
    /// Of the requests on it: the first one whose answer comes before the pause.
    first_version: i16,
    until_ns: Cell<u64>,
}

impl Throttle {
    pub fn new(first_version: i16) -> Throttle {
        Throttle { first_version, until_ns: Cell::new(0) }
    }

    /// Takes up what an answer says: by how many nanoseconds longer nothing is to be sent.
    pub fn answered(&self, version: i16, throttle_time_ms: i32, now: u64) -> u64 {
        let asked = Duration::from_millis(u64::try_from(throttle_time_ms).unwrap_or(0));
        if version < self.first_version || asked.is_zero() {
            return 0;
        }
        let before = self.until_ns.get().max(now);
        let until = before.max(now.saturating_add(nanoseconds(asked.min(HELD_MAX))));
        self.until_ns.set(until);
        until - before
    }

    /// Until when nothing is to be sent, if that is still to come.
    pub fn until(&self, now: u64) -> Option<u64> {
        Some(self.until_ns.get()).filter(|until| *until > now)
    }

    /// Since when an answer to what was sent at `sent_ns` has been due: a broker that holds a connection does not read it.
    pub fn silent_since(&self, sent_ns: u64) -> u64 {
        sent_ns.max(self.until_ns.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn pauses_overlap_and_are_counted_once() {
        let throttle = Throttle::new(6);
        assert_eq!((throttle.answered(11, 0, 5), throttle.until(5)), (0, None));
        assert_eq!(throttle.answered(11, 100, 0), 100 * MS);
        assert_eq!(throttle.answered(6, 100, 60 * MS), 60 * MS, "forty of them were to come anyway");
        assert_eq!(throttle.answered(6, 10, 60 * MS), 0, "it is held for longer already");
        assert_eq!((throttle.until(159 * MS), throttle.until(160 * MS)), (Some(160 * MS), None));
        assert_eq!((throttle.silent_since(3), throttle.silent_since(200 * MS)), (160 * MS, 200 * MS));
    }

    #[test]
    fn old_versions_have_waited_already_and_nobody_is_held_for_ever() {
        let throttle = Throttle::new(6);
        assert_eq!((throttle.answered(5, 1000, 0), throttle.until(0)), (0, None));
        assert_eq!(throttle.answered(6, i32::MAX, 0), nanoseconds(HELD_MAX));
        assert_eq!(throttle.answered(6, -1, 0), 0);
    }
}
