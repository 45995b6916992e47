//! Memory of large frames that move: requests on their way in, and answers on their way out, of all connections of a
//! shard together, each direction and each class with a bound of its own.
//!
//! A frame counts with what it has claimed so far. Where the bound is reached, the oldest frame alone goes on; if it
//! crawls while others wait, its connection is closed, so that nobody waits for a client that has gone to sleep: neither
//! for one that announces 100 MiB and sends nothing, nor for one that asks for much and reads nothing, nor for one whose
//! answer stands behind another that it made us wait for. What is not made yet is not its client's fault, and stays.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::base::time::Monotonic;
use crate::executor::either;
use crate::platform::Clock;

/// The time that every frame has, however slow, and the rate that it must reach on average after that; but only while
/// others wait for its memory.
const PATIENCE: Duration = Duration::from_secs(2);
const RATE_MIN_BYTES_PER_SECOND: u64 = 256 * 1024;

/// One per shard, direction and class.
pub struct Claims {
    bytes_max: u64,
    claimed_bytes: Cell<u64>,
    /// By age.
    frames: RefCell<BTreeMap<u64, Frame>>,
    next: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
    /// How often somebody had to wait.
    waits: Cell<u64>,
}

struct Frame {
    claimed_bytes: u64,
    /// Since when it moves. `None`: not yet, so it can't be too slow.
    since: Option<Monotonic>,
    peer: Rc<dyn Peer>,
}

/// Whose frame it is.
pub trait Peer {
    /// Bytes of the frame that have moved since it began to.
    fn moved_bytes(&self) -> u64;

    /// Ends the connection: it holds others up.
    fn close(&self);
}

/// A frame's claim, given back by drop.
pub struct Claim {
    claims: Rc<Claims>,
    number: u64,
}

/// Whether a claim may grow now.
enum Room {
    Granted,
    /// Ask again then, or when something is given back.
    NotBefore(Monotonic),
}

impl Claims {
    /// `bytes_max` should have room for the largest frame.
    pub fn new(bytes_max: u64) -> Rc<Claims> {
        Rc::new(Claims {
            bytes_max,
            claimed_bytes: Cell::new(0),
            frames: RefCell::default(),
            next: Cell::new(0),
            waiting: RefCell::default(),
            waits: Cell::new(0),
        })
    }

    /// What frames have claimed, and may claim together.
    pub fn in_use(&self) -> (u64, u64) {
        (self.claimed_bytes.get(), self.bytes_max)
    }

    /// How often somebody had to wait.
    pub fn waits(&self) -> u64 {
        self.waits.get()
    }

    /// A frame without a claim yet, which moves since then, or does not move yet.
    pub fn begin(self: &Rc<Self>, since: Option<Monotonic>, peer: Rc<dyn Peer>) -> Claim {
        let number = self.next.replace(self.next.get() + 1);
        self.frames.borrow_mut().insert(number, Frame { claimed_bytes: 0, since, peer });
        Claim { claims: Rc::clone(self), number }
    }

    fn is_oldest(&self, number: u64) -> bool {
        self.frames.borrow().first_key_value().is_none_or(|(oldest, _)| *oldest == number)
    }

    fn ask(&self, number: u64, bytes: u64, now: Monotonic) -> Room {
        loop {
            if self.is_oldest(number) || self.claimed_bytes.get().saturating_add(bytes) <= self.bytes_max {
                return Room::Granted;
            }
            let mut frames = self.frames.borrow_mut();
            // The oldest of those that can be too slow.
            let moving = frames.iter().filter(|(other, _)| **other != number).find_map(|(other, frame)| {
                let earned = Duration::from_secs(frame.peer.moved_bytes() / RATE_MIN_BYTES_PER_SECOND);
                Some((*other, frame.since? + PATIENCE + earned))
            });
            let Some((oldest, until)) = moving else { return Room::NotBefore(now + PATIENCE) };
            if now < until {
                return Room::NotBefore(until);
            }
            let crawling = frames.remove(&oldest).expect("just found");
            self.claimed_bytes.set(self.claimed_bytes.get() - crawling.claimed_bytes);
            drop(frames);
            crawling.peer.close();
            self.wake_all();
        }
    }

    fn wake_all(&self) {
        self.waiting.take().into_iter().for_each(Waker::wake);
    }
}

impl Claim {
    /// What it has; `None` if its connection is being closed.
    fn claimed(&self) -> Option<u64> {
        self.claims.frames.borrow().get(&self.number).map(|frame| frame.claimed_bytes)
    }

    /// Waits until the frame may take `bytes` in all.
    pub async fn grow_to(&self, bytes: u64, clock: &impl Clock) {
        let Some(before) = self.claimed() else { return };
        let more = bytes.saturating_sub(before);
        let mut waits = 0;
        while let Room::NotBefore(until) = self.claims.ask(self.number, more, clock.now()) {
            waits = 1;
            let mut is_first_poll = true;
            let given_back = poll_fn(|context| {
                if std::mem::take(&mut is_first_poll) {
                    self.claims.waiting.borrow_mut().push(context.waker().clone());
                    return Poll::Pending;
                }
                Poll::Ready(())
            });
            let _ = either(given_back, clock.sleep_until(until)).await;
        }
        self.claims.waits.set(self.claims.waits.get() + waits);
        self.set(bytes.max(before));
    }

    /// The frame takes so much, whether or not there is room: it is there already.
    pub fn set(&self, bytes: u64) {
        let claims = &self.claims;
        let mut frames = claims.frames.borrow_mut();
        let Some(frame) = frames.get_mut(&self.number) else { return };
        let before = std::mem::replace(&mut frame.claimed_bytes, bytes);
        claims.claimed_bytes.set(claims.claimed_bytes.get() - before + bytes);
        drop(frames);
        if bytes < before {
            claims.wake_all();
        }
    }

    /// It is made, and to move as soon as those before it have.
    pub fn is_made(&self, now: Monotonic) {
        #[cfg(test)]
        if planted::WAIT_FOR_THE_MADE.get() {
            return;
        }
        self.moves(now);
    }

    /// From now on it is to move.
    pub fn moves(&self, now: Monotonic) {
        if let Some(frame) = self.claims.frames.borrow_mut().get_mut(&self.number) {
            frame.since = Some(now);
        }
        self.claims.wake_all();
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let gone = self.claims.frames.borrow_mut().remove(&self.number);
        if let Some(frame) = gone {
            self.claims.claimed_bytes.set(self.claims.claimed_bytes.get() - frame.claimed_bytes);
        }
        self.claims.wake_all();
    }
}

/// The planted bugs that the simulator must catch.
#[cfg(test)]
pub(crate) mod planted {
    use std::cell::Cell;

    thread_local! {
        /// The answers of all classes share what those of clients may take.
        pub(crate) static ONE_FOR_ALL: Cell<bool> = const { Cell::new(false) };
        /// An answer that is made and stands behind others is never too slow.
        pub(crate) static WAIT_FOR_THE_MADE: Cell<bool> = const { Cell::new(false) };
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

    #[derive(Default)]
    struct Fake {
        moved: Cell<u64>,
        closed: Cell<u32>,
    }

    impl Peer for Fake {
        fn moved_bytes(&self) -> u64 {
            self.moved.get()
        }

        fn close(&self) {
            self.closed.set(self.closed.get() + 1);
        }
    }

    struct Bench {
        world: World,
        tasks: Executor,
        claims: Rc<Claims>,
    }

    impl Bench {
        fn new() -> Bench {
            let world = World::new(1);
            let tasks = world.executor();
            Bench { world, tasks, claims: Claims::new(4 * MIB) }
        }

        fn begin(&self, peer: &Rc<Fake>) -> Rc<Claim> {
            Rc::new(self.claims.begin(Some(self.world.now()), Rc::clone(peer) as _))
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
        let (bench, peer) = (Bench::new(), Rc::<Fake>::default());
        let (first, second) = (bench.begin(&peer), bench.begin(&peer));
        assert!(bench.grows(&first, 3 * MIB, Duration::ZERO) && bench.grows(&second, MIB, Duration::ZERO));
        assert!(!bench.grows(&second, 2 * MIB, Duration::from_millis(500)));
        assert!(bench.grows(&first, 9 * MIB, Duration::ZERO), "whoever came first goes on past the bound");
        first.set(2 * MIB);
        assert!(bench.grows(&second, 2 * MIB, Duration::ZERO), "it took less than it had claimed");
        drop(first);
        assert!(bench.grows(&second, 4 * MIB, Duration::from_millis(1)));
        assert_eq!(peer.closed.get(), 0);
        drop(second);
        assert_eq!((bench.claims.claimed_bytes.get(), bench.claims.waits()), (0, 0), "who gave up does not count");
    }

    #[test]
    fn a_frame_that_crawls_while_others_wait_is_closed_and_one_that_nobody_waits_for_is_not() {
        let (bench, slow, quick) = (Bench::new(), Rc::<Fake>::default(), Rc::<Fake>::default());
        let crawling = bench.begin(&slow);
        assert!(bench.grows(&crawling, 4 * MIB, Duration::ZERO));
        bench.pass(Duration::from_secs(60));
        assert_eq!(slow.closed.get(), 0, "nobody waits for it");
        let other = bench.begin(&quick);
        assert!(bench.grows(&other, MIB, Duration::from_secs(1)), "it had its time");
        assert_eq!((slow.closed.get(), quick.closed.get()), (1, 0));
        drop((crawling, other));
        assert_eq!(bench.claims.claimed_bytes.get(), 0);
    }

    #[test]
    fn a_frame_that_moves_at_a_fair_rate_is_waited_for() {
        let (bench, fair, quick) = (Bench::new(), Rc::<Fake>::default(), Rc::<Fake>::default());
        let first = bench.begin(&fair);
        assert!(bench.grows(&first, 4 * MIB, Duration::ZERO));
        fair.moved.set(4 * MIB);
        let other = bench.begin(&quick);
        assert!(!bench.grows(&other, MIB, Duration::from_secs(17)), "4 MiB have earned 16 s and the patience");
        assert_eq!(fair.closed.get(), 0);
        assert!(bench.grows(&other, MIB, Duration::from_secs(2)));
        assert_eq!((fair.closed.get(), bench.claims.waits()), (1, 1));
    }

    #[test]
    fn a_frame_that_does_not_move_yet_is_not_too_slow() {
        let (bench, made, quick) = (Bench::new(), Rc::<Fake>::default(), Rc::<Fake>::default());
        let first = Rc::new(bench.claims.begin(None, Rc::clone(&made) as _));
        assert!(bench.grows(&first, 4 * MIB, Duration::ZERO));
        let other = bench.begin(&quick);
        assert!(!bench.grows(&other, MIB, Duration::from_secs(30)));
        first.moves(bench.world.now());
        assert!(bench.grows(&other, MIB, Duration::from_secs(3)));
        assert_eq!((made.closed.get(), quick.closed.get()), (1, 0));
    }
}
