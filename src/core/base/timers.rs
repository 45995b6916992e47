//! Deadlines of sleeping tasks, pure: whoever owns the clock asks for the next one and fires what is due.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::time::Monotonic;

#[derive(Default)]
struct Inner {
    waiting: BTreeMap<(Monotonic, u64), Waker>,
    /// Tells equal deadlines apart, in the order in which they were set.
    next_sequence: u64,
    /// Everything up to here has fired.
    fired: Monotonic,
}

/// The timers of one shard; clones share them.
#[derive(Clone, Default)]
pub struct Timers(Rc<RefCell<Inner>>);

impl Timers {
    /// Resolves in the first [`Timers::fire`] at or after `deadline`.
    pub fn sleep_until(&self, deadline: Monotonic) -> Sleep {
        Sleep { timers: self.clone(), deadline, key: None }
    }

    /// The earliest deadline anyone waits for.
    pub fn next_deadline(&self) -> Option<Monotonic> {
        self.0.borrow().waiting.keys().next().map(|&(deadline, _)| deadline)
    }

    /// Wakes all whose deadline is at or before `now`, earliest first.
    pub fn fire(&self, now: Monotonic) {
        let mut inner = self.0.borrow_mut();
        inner.fired = inner.fired.max(now);
        while let Some(entry) = inner.waiting.first_entry()
            && entry.key().0 <= now
        {
            entry.remove().wake();
        }
    }
}

/// See [`Timers::sleep_until`]. Dropping it forgets the deadline.
pub struct Sleep {
    timers: Timers,
    deadline: Monotonic,
    key: Option<(Monotonic, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let timers = self.timers.clone();
        let mut inner = timers.0.borrow_mut();
        if inner.fired >= self.deadline {
            if let Some(key) = self.key.take() {
                inner.waiting.remove(&key);
            }
            return Poll::Ready(());
        }
        let deadline = self.deadline;
        let key = *self.key.get_or_insert_with(|| {
            inner.next_sequence += 1;
            (deadline, inner.next_sequence)
        });
        inner.waiting.insert(key, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.timers.0.borrow_mut().waiting.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::executor::{Executor, NoDoorbell};

    #[test]
    fn sleepers_wake_in_the_order_of_their_deadlines_and_not_before() {
        let (executor, timers) = (Executor::new(NoDoorbell), Timers::default());
        let woken = Rc::new(RefCell::new(Vec::new()));
        for wait in [30, 10, 20] {
            let (timers, woken) = (timers.clone(), Rc::clone(&woken));
            executor.spawn(async move {
                timers.sleep_until(Monotonic(0) + Duration::from_nanos(wait)).await;
                woken.borrow_mut().push(wait);
            });
        }
        executor.run_ready();
        assert_eq!(timers.next_deadline(), Some(Monotonic(10)));
        timers.fire(Monotonic(9));
        executor.run_ready();
        assert!(woken.borrow().is_empty());
        timers.fire(Monotonic(25));
        executor.run_ready();
        assert_eq!(*woken.borrow(), [10, 20]);
        assert_eq!(timers.next_deadline(), Some(Monotonic(30)));
    }

    #[test]
    fn a_dropped_sleep_leaves_no_deadline_behind() {
        let (executor, timers) = (Executor::new(NoDoorbell), Timers::default());
        let sleep = timers.sleep_until(Monotonic(5));
        executor.spawn(sleep);
        executor.run_ready();
        executor.clear();
        assert_eq!(timers.next_deadline(), None);
    }
}
