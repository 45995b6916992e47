//! The two values of `now`: monotonic for every wait, wall for what is stored or compared with records.

use std::ops::Add;
use std::time::Duration;

/// Nanoseconds of a clock that never goes back; its zero means nothing outside this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Monotonic(pub u64);

impl Monotonic {
    /// Time since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Monotonic) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Monotonic {
    type Output = Monotonic;
    fn add(self, wait: Duration) -> Monotonic {
        Monotonic(self.0.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Milliseconds since the Unix epoch, as record timestamps count them. It may jump.
pub type WallMs = i64;

/// Both at once, for state machines that wait and stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    pub monotonic: Monotonic,
    pub wall: WallMs,
}
