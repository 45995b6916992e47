//! One direction between two hosts.

use std::cell::Cell;
use std::time::Duration;

use crate::sim::world::World;

/// What may be under way or unread on a connection in one direction, in bytes, unless a test says otherwise; then the
/// sender waits.
const WINDOW_BYTES: usize = 256 * 1024;

/// How long a piece takes: between these, both included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    pub min: Duration,
    pub max: Duration,
}

impl Latency {
    pub fn between(min: Duration, max: Duration) -> Latency {
        assert!(min <= max);
        Latency { min, max }
    }

    /// How long the next piece takes.
    pub fn draw(self, world: &World) -> Duration {
        match (self.max - self.min).as_nanos() as usize {
            0 => self.min,
            spread => self.min + Duration::from_nanos(world.below(spread + 1) as u64),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    Open,
    /// What would pass vanishes.
    Cut,
}

pub struct Way {
    pub latency: Cell<Latency>,
    pub passage: Cell<Passage>,
    pub window_bytes: Cell<usize>,
    /// 0: none.
    pub loses_one_in: Cell<usize>,
}

impl Default for Way {
    fn default() -> Way {
        Way {
            latency: Cell::default(),
            passage: Cell::new(Passage::Open),
            window_bytes: Cell::new(WINDOW_BYTES),
            loses_one_in: Cell::new(0),
        }
    }
}

impl Way {
    pub fn is_open(&self) -> bool {
        self.passage.get() == Passage::Open
    }

    /// How long the next piece takes.
    pub fn takes(&self, world: &World) -> Duration {
        self.latency.get().draw(world)
    }

    /// Whether the connection of the piece that is sent now is lost with it.
    pub fn loses(&self, world: &World) -> bool {
        let one_in = self.loses_one_in.get();
        one_in > 0 && world.below(one_in) == 0
    }
}
