//! The flag by which a thread says that it is about to sleep, so that others ring its doorbell only then.
//!
//! ```text
//!  sleeper: announce (set, full fence) ─ look at the queue again ─ wait ─ awake (clear)
//!  waker:   push to the queue ─ must_ring (full fence, look at the flag)
//! ```
//! Between the two fences one side always sees the other: either the sleeper finds the push, or the waker finds the
//! flag. The test runs every interleaving.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering, fence};

/// An atomic flag with a full fence; the test puts loom's in its place.
pub trait Flag: Default {
    fn store(&self, value: bool);
    fn swap(&self, value: bool) -> bool;
    fn full_fence();
}

impl Flag for AtomicBool {
    fn store(&self, value: bool) {
        AtomicBool::store(self, value, Ordering::Relaxed);
    }

    fn swap(&self, value: bool) -> bool {
        AtomicBool::swap(self, value, Ordering::Relaxed)
    }

    fn full_fence() {
        fence(Ordering::SeqCst);
    }
}

#[derive(Debug, Default)]
pub struct SleepFlag<F: Flag = AtomicBool> {
    asleep: F,
}

impl<F: Flag> SleepFlag<F> {
    /// By the sleeper, before it looks at its queue for the last time.
    pub fn announce(&self) {
        self.asleep.store(true);
        F::full_fence();
    }

    /// By the sleeper, when it is awake or has found work after all.
    pub fn awake(&self) {
        self.asleep.store(false);
    }

    /// By a waker, after its push: whether it is the one that must ring.
    pub fn must_ring(&self) -> bool {
        F::full_fence();
        self.asleep.swap(false)
    }
}

#[cfg(test)]
mod tests {
    use loom::sync::Arc;
    use loom::sync::atomic as loom_atomic;

    use super::*;

    struct LoomFlag(loom_atomic::AtomicBool);

    impl Default for LoomFlag {
        fn default() -> LoomFlag {
            LoomFlag(loom_atomic::AtomicBool::new(false))
        }
    }

    impl Flag for LoomFlag {
        fn store(&self, value: bool) {
            self.0.store(value, Ordering::Relaxed);
        }

        fn swap(&self, value: bool) -> bool {
            self.0.swap(value, Ordering::Relaxed)
        }

        fn full_fence() {
            loom_atomic::fence(Ordering::SeqCst);
        }
    }

    /// The same protocol without its fences: what the model must refuse.
    #[derive(Default)]
    struct Unfenced(LoomFlag);

    impl Flag for Unfenced {
        fn store(&self, value: bool) {
            self.0.store(value);
        }

        fn swap(&self, value: bool) -> bool {
            // A swap always reads the latest value; only a plain load shows the missing fence.
            let seen = self.0.0.load(Ordering::Relaxed);
            if seen != value {
                self.0.0.store(value, Ordering::Relaxed);
            }
            seen
        }

        fn full_fence() {}
    }

    /// A sleeper and two wakers; panics in the interleaving that loses a wake-up.
    fn model<F: Flag + Send + Sync + 'static>() {
        loom::model(|| {
            let flag = Arc::new(SleepFlag::<F>::default());
            let queue = Arc::new(loom_atomic::AtomicUsize::new(0));
            let rung = Arc::new(loom_atomic::AtomicBool::new(false));
            let wakers: Vec<_> = (0..2)
                .map(|_| {
                    let (flag, queue, rung) = (Arc::clone(&flag), Arc::clone(&queue), Arc::clone(&rung));
                    loom::thread::spawn(move || {
                        queue.fetch_add(1, Ordering::Relaxed);
                        if flag.must_ring() {
                            rung.store(true, Ordering::Relaxed);
                        }
                    })
                })
                .collect();
            flag.announce();
            let sleeps = queue.load(Ordering::Relaxed) == 0;
            for waker in wakers {
                waker.join().expect("joined");
            }
            assert!(!sleeps || rung.load(Ordering::Relaxed), "asleep with work in the queue and nobody has rung");
        });
    }

    #[test]
    fn no_interleaving_of_push_and_sleep_loses_a_wake_up() {
        model::<LoomFlag>();
    }

    #[test]
    #[should_panic(expected = "asleep with work in the queue")]
    fn without_the_fences_the_model_finds_the_lost_wake_up() {
        model::<Unfenced>();
    }
}
