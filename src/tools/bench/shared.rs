//! What all threads of a run see: its clock, its end, and how far each partition is.

#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::driver::Link;
use super::measure::{Recorder, SECOND_NS};
use super::settings::Settings;
use super::topic::Topic;

/// The run's time, in nanoseconds since its start, which all threads have in common.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    /// The same moment, in nanoseconds since 1970.
    pub start_wall_ns: u64,
}

impl Clock {
    pub fn starting_now() -> Clock {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Clock { start: Instant::now(), start_wall_ns: nanoseconds(wall) }
    }

    pub fn now(&self) -> u64 {
        nanoseconds(self.start.elapsed())
    }

    pub fn at(&self, ns: u64) -> Instant {
        self.start + Duration::from_nanos(ns)
    }
}

pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// One run.
pub struct Run {
    pub settings: Settings,
    pub topic: Topic,
    /// Tells this run's records from others'.
    pub id: u32,
    stopping: AtomicBool,
    /// Acknowledged records, by place of the partition in the topic; without acknowledgements those sent.
    pub produced: Vec<AtomicU64>,
    pub producers_left: AtomicUsize,
    /// Records consumed that count.
    pub consumed: AtomicU64,
}

/// What one client is given.
pub struct Seat {
    pub run: Arc<Run>,
    pub clock: Clock,
    pub link: Link,
    /// Its number among those of its role.
    pub client: u32,
    /// Places of its partitions in the topic.
    pub places: Vec<usize>,
    /// The thread's.
    pub recorder: Rc<RefCell<Recorder>>,
}

impl Run {
    pub fn new(settings: Settings, topic: Topic, id: u32, producers: usize) -> Run {
        let produced = topic.partitions.iter().map(|_| AtomicU64::new(0)).collect();
        Run {
            settings,
            topic,
            id,
            stopping: AtomicBool::new(false),
            produced,
            producers_left: AtomicUsize::new(producers),
            consumed: AtomicU64::new(0),
        }
    }

    /// Ends the run early.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    pub fn warm_up_ns(&self) -> u64 {
        nanoseconds(self.settings.warm_up)
    }

    /// When nothing is sent any more.
    pub fn end_ns(&self) -> u64 {
        let measured = self.settings.duration.map_or(u64::MAX, nanoseconds);
        self.warm_up_ns().saturating_add(measured).min(u64::MAX / 2)
    }

    /// How long what is in flight may take after an early end.
    pub const DRAIN_NS: u64 = 2 * SECOND_NS;
}
