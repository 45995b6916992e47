//! One thread, many executors, one seed: which task runs next, what time it is, and a trace of both.
//!
//! A step runs one ready task of one executor, both by the dice. When nothing is ready the clock jumps to the next
//! deadline. The trace holds every choice, so two runs of one seed can be compared to the end.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::thread;

use crate::base::splitmix64;
use crate::base::time::{Monotonic, WallMs};
use crate::base::timers::Timers;
use crate::executor::{Executor, NoDoorbell};

/// Wall time at a world's beginning: some day in 2023, so that timestamps look like timestamps.
const WALL_START_MS: WallMs = 1_700_000_000_000;

/// Steps after which a run is taken to hang.
pub const STEPS_MAX: u64 = 20_000_000;

/// A handle to the world; clones share it.
#[derive(Clone)]
pub struct World(Rc<Inner>);

struct Inner {
    seed: u64,
    dice: Cell<u64>,
    now: Cell<Monotonic>,
    timers: Timers,
    executors: RefCell<Vec<Executor>>,
    /// What is looked at after each step of an executor, by its number.
    checks: RefCell<BTreeMap<usize, Rc<dyn Fn()>>>,
    trace: RefCell<Vec<TraceEntry>>,
}

/// One choice of the dice, or what a test saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceEntry {
    /// Of that many ready tasks of this executor, this one ran.
    Ran {
        executor: usize,
        task: usize,
        ready: usize,
    },
    Time(Monotonic),
    Note(String),
}

impl World {
    pub fn new(seed: u64) -> World {
        World(Rc::new(Inner {
            seed,
            dice: Cell::new(seed),
            now: Cell::new(Monotonic(1)),
            timers: Timers::default(),
            executors: RefCell::default(),
            checks: RefCell::default(),
            trace: RefCell::default(),
        }))
    }

    /// The next number of the seed.
    pub fn next_u64(&self) -> u64 {
        let mut state = self.0.dice.get();
        let number = splitmix64::next(&mut state);
        self.0.dice.set(state);
        number
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&self, bound: usize) -> usize {
        (self.next_u64() % bound as u64) as usize
    }

    pub fn now(&self) -> Monotonic {
        self.0.now.get()
    }

    pub fn wall(&self) -> WallMs {
        WALL_START_MS + (self.now().0 / 1_000_000) as WallMs
    }

    pub fn timers(&self) -> &Timers {
        &self.0.timers
    }

    /// A further executor: a shard, the metadata node, the clients.
    pub fn executor(&self) -> Executor {
        let executor = Executor::new(NoDoorbell);
        self.0.executors.borrow_mut().push(executor.clone());
        executor
    }

    /// How many executors there are: the number of the next.
    pub fn executor_count(&self) -> usize {
        self.0.executors.borrow().len()
    }

    /// After each step of the executor with this number, `check` looks whether all is as it must be.
    pub fn check_after(&self, executor: usize, check: impl Fn() + 'static) {
        self.0.checks.borrow_mut().insert(executor, Rc::new(check));
    }

    /// Ends a process: its executors' tasks are dropped where they stand.
    pub fn end(&self, executors: &[Executor]) {
        for executor in executors {
            executor.clear();
        }
    }

    /// Writes down what a test saw.
    pub fn note(&self, text: impl Into<String>) {
        self.0.trace.borrow_mut().push(TraceEntry::Note(text.into()));
    }

    pub fn trace(&self) -> Vec<TraceEntry> {
        self.0.trace.borrow().clone()
    }

    /// Lets the other tasks run a few times, as many as the dice say: how long an I/O takes.
    pub async fn pause(&self) {
        for _ in 0..self.below(3) {
            crate::executor::yield_now().await;
        }
    }

    /// Runs until `done`; panics if it does not come to that. Whatever panics on the way, its seed is printed.
    pub fn run_until(&self, done: impl Fn() -> bool) {
        let _told = Replay(self.0.seed);
        assert!(self.run_within(STEPS_MAX, done), "nothing more can happen, or not within {STEPS_MAX} steps");
    }

    /// The same within so many steps; gives whether it came to that.
    pub fn run_within(&self, steps_max: u64, done: impl Fn() -> bool) -> bool {
        let _told = Replay(self.0.seed);
        for _ in 0..steps_max {
            if done() {
                return true;
            }
            if !self.step() {
                return false;
            }
        }
        false
    }

    /// Runs one task, or lets the clock jump if none is ready; false if nothing can ever happen again.
    pub fn step(&self) -> bool {
        let executors = self.0.executors.borrow().clone();
        let ready: Vec<usize> = (0..executors.len()).filter(|&index| executors[index].has_ready()).collect();
        if ready.is_empty() {
            return self.advance_clock();
        }
        let executor = ready[self.below(ready.len())];
        let ran = executors[executor].run_one(|ready| {
            let task = self.below(ready);
            self.0.trace.borrow_mut().push(TraceEntry::Ran { executor, task, ready });
            task
        });
        let check = self.0.checks.borrow().get(&executor).cloned();
        if let Some(check) = check {
            check();
        }
        ran
    }

    fn advance_clock(&self) -> bool {
        let Some(deadline) = self.0.timers.next_deadline() else { return false };
        let now = self.now().max(deadline);
        self.0.now.set(now);
        self.0.trace.borrow_mut().push(TraceEntry::Time(now));
        self.0.timers.fire(now);
        true
    }
}

/// Says how to come to a panic again.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if thread::panicking() {
            let test = thread::current();
            eprintln!("replay: world {} of {}", self.0, test.name().unwrap_or("a test"));
        }
    }
}
