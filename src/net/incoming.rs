//! Memory of large frames that are on their way in, of all connections of a shard together.
//!
//! A frame counts with what it has claimed so far, and claims more only as its bytes come: whoever announces 100 MiB and
//! sends nothing holds next to nothing. Where the bound is reached, the oldest frame alone goes on; if it crawls while
//! others wait, its connection is closed, so that nobody waits for a client that has gone to sleep.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::base::time::Monotonic;
use crate::executor::either;
use crate::platform::Clock;

/// What a frame claims first; each further claim doubles it.
pub const FIRST_CLAIM_BYTES: usize = 256 * 1024;

/// The time that every frame has, however slow, and the rate that it must reach on average after that; but only while
/// others wait for its memory.
const PATIENCE: Duration = Duration::from_secs(2);
const RATE_MIN_BYTES_PER_SECOND: u64 = 256 * 1024;

/// One per shard.
pub struct Incoming {
    bytes_max: u64,
    claimed_bytes: Cell<u64>,
    /// By age.
    frames: RefCell<BTreeMap<u64, Frame>>,
    next: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

struct Frame {
    claimed_bytes: u64,
    since: Monotonic,
    close: Box<dyn Fn()>,
}

/// A frame's claim, given back by drop.
pub struct Claim {
    incoming: Rc<Incoming>,
    number: u64,
}

/// Whether a claim may grow now.
enum Room {
    Granted,
    /// Ask again then, or when something is given back.
    NotBefore(Monotonic),
}

impl Incoming {
    /// `bytes_max` should have room for the largest frame.
    pub fn new(bytes_max: u64) -> Rc<Incoming> {
        Rc::new(Incoming {
            bytes_max,
            claimed_bytes: Cell::new(0),
            frames: RefCell::default(),
            next: Cell::new(0),
            waiting: RefCell::default(),
        })
    }

    /// What frames have claimed, and may claim together.
    pub fn in_use(&self) -> (u64, u64) {
        (self.claimed_bytes.get(), self.bytes_max)
    }

    /// A frame begins. `close` ends its connection, should it hold others up.
    pub fn begin(self: &Rc<Self>, now: Monotonic, close: impl Fn() + 'static) -> Claim {
        let number = self.next.replace(self.next.get() + 1);
        self.frames.borrow_mut().insert(number, Frame { claimed_bytes: 0, since: now, close: Box::new(close) });
        Claim { incoming: Rc::clone(self), number }
    }

    fn is_oldest(&self, number: u64) -> bool {
        self.frames.borrow().first_key_value().is_none_or(|(oldest, _)| *oldest == number)
    }

    fn ask(&self, number: u64, bytes: u64, now: Monotonic) -> Room {
        if self.is_oldest(number) || self.claimed_bytes.get().saturating_add(bytes) <= self.bytes_max {
            return Room::Granted;
        }
        let mut frames = self.frames.borrow_mut();
        let oldest = frames.first_entry().expect("another one is older");
        let earned = Duration::from_secs(oldest.get().claimed_bytes / RATE_MIN_BYTES_PER_SECOND);
        let until = oldest.get().since + PATIENCE + earned;
        if now < until {
            return Room::NotBefore(until);
        }
        let crawling = oldest.remove();
        self.claimed_bytes.set(self.claimed_bytes.get() - crawling.claimed_bytes);
        drop(frames);
        (crawling.close)();
        self.wake_all();
        self.ask(number, bytes, now)
    }

    fn wake_all(&self) {
        self.waiting.take().into_iter().for_each(Waker::wake);
    }
}

impl Claim {
    /// Waits until the frame may take `bytes` in all.
    pub async fn grow_to(&self, bytes: u64, clock: &impl Clock) {
        let claimed = |frames: &BTreeMap<u64, Frame>| frames.get(&self.number).map(|frame| frame.claimed_bytes);
        // Without an entry the connection is being closed.
        let Some(before) = claimed(&self.incoming.frames.borrow()) else { return };
        let more = bytes.saturating_sub(before);
        while let Room::NotBefore(until) = self.incoming.ask(self.number, more, clock.now()) {
            let mut is_first_poll = true;
            let given_back = poll_fn(|context| {
                if std::mem::take(&mut is_first_poll) {
                    self.incoming.waiting.borrow_mut().push(context.waker().clone());
                    return Poll::Pending;
                }
                Poll::Ready(())
            });
            let _ = either(given_back, clock.sleep_until(until)).await;
        }
        if let Some(frame) = self.incoming.frames.borrow_mut().get_mut(&self.number) {
            frame.claimed_bytes = bytes.max(before);
            self.incoming.claimed_bytes.set(self.incoming.claimed_bytes.get() + more);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(frame) = self.incoming.frames.borrow_mut().remove(&self.number) {
            self.incoming.claimed_bytes.set(self.incoming.claimed_bytes.get() - frame.claimed_bytes);
        }
        self.incoming.wake_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::Executor;
    use crate::platform::Platform;
    use crate::sim::disk::FakeDisk;
    use crate::sim::platform::SimPlatform;
    use crate::sim::world::World;

    const MIB: u64 = 1 << 20;

    struct Bench {
        world: World,
        tasks: Executor,
        incoming: Rc<Incoming>,
    }

    impl Bench {
        fn new() -> Bench {
            let world = World::new(1);
            let tasks = world.executor();
            Bench { world, tasks, incoming: Incoming::new(4 * MIB) }
        }

        fn begin(&self, closed: &Rc<Cell<u32>>) -> Rc<Claim> {
            let closed = Rc::clone(closed);
            Rc::new(self.incoming.begin(self.world.now(), move || closed.set(closed.get() + 1)))
        }

        fn run<T: 'static>(&self, task: impl Future<Output = T> + 'static) -> T {
            let place = Rc::new(RefCell::new(None));
            let result = Rc::clone(&place);
            self.tasks.spawn(async move {
                let value = task.await;
                *result.borrow_mut() = Some(value);
            });
            self.world.run_until(|| place.borrow().is_some());
            let value = place.borrow_mut().take();
            value.expect("just seen")
        }

        fn pass(&self, time: Duration) {
            self.run(self.world.timers().sleep_until(self.world.now() + time));
        }

        /// Whether the claim is granted within `wait`.
        fn grows(&self, claim: &Rc<Claim>, bytes: u64, wait: Duration) -> bool {
            let platform = SimPlatform::new(&self.world, &self.tasks, &FakeDisk::new());
            let (claim, over) = (Rc::clone(claim), self.world.timers().sleep_until(self.world.now() + wait));
            self.run(async move { either(Box::pin(claim.grow_to(bytes, platform.clock())), over).await.is_ok() })
        }
    }

    #[test]
    fn what_is_given_back_goes_to_who_waits_and_the_oldest_never_waits() {
        let (bench, closed) = (Bench::new(), Rc::default());
        let (first, second) = (bench.begin(&closed), bench.begin(&closed));
        assert!(bench.grows(&first, 3 * MIB, Duration::ZERO) && bench.grows(&second, MIB, Duration::ZERO));
        assert!(!bench.grows(&second, 2 * MIB, Duration::from_millis(500)));
        assert!(bench.grows(&first, 9 * MIB, Duration::ZERO), "whoever came first goes on past the bound");
        drop(first);
        assert!(bench.grows(&second, 4 * MIB, Duration::from_millis(1)));
        assert_eq!(closed.get(), 0);
        drop(second);
        assert_eq!(bench.incoming.claimed_bytes.get(), 0);
    }

    #[test]
    fn a_frame_that_crawls_while_others_wait_is_closed_and_one_that_nobody_waits_for_is_not() {
        let (bench, slow, quick) = (Bench::new(), Rc::default(), Rc::default());
        let crawling = bench.begin(&slow);
        assert!(bench.grows(&crawling, 4 * MIB, Duration::ZERO));
        bench.pass(Duration::from_secs(60));
        assert_eq!(slow.get(), 0, "nobody waits for it");
        let other = bench.begin(&quick);
        assert!(bench.grows(&other, MIB, Duration::from_secs(1)), "it had its time");
        assert_eq!((slow.get(), quick.get()), (1, 0));
        drop((crawling, other));
        assert_eq!(bench.incoming.claimed_bytes.get(), 0);
    }

    #[test]
    fn a_frame_that_comes_at_a_fair_rate_is_waited_for() {
        let (bench, fair, closed) = (Bench::new(), Rc::default(), Rc::default());
        let first = bench.begin(&fair);
        assert!(bench.grows(&first, 4 * MIB, Duration::ZERO));
        let other = bench.begin(&closed);
        assert!(!bench.grows(&other, MIB, Duration::from_secs(17)), "4 MiB have earned 16 s and the patience");
        assert_eq!(fair.get(), 0);
        assert!(bench.grows(&other, MIB, Duration::from_secs(2)));
        assert_eq!(fair.get(), 1);
    }
}
