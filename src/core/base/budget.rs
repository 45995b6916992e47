//! A bound on bytes or credits held at once, first come, first served.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Units (bytes, credits) that may be held together. A claim larger than all of it passes when it is alone.
pub struct Budget {
    bytes_max: u64,
    held: Cell<u64>,
    waiting: RefCell<VecDeque<(u64, Waker)>>,
    /// Given to whoever has to wait.
    next_ticket: Cell<u64>,
}

/// A share of the budget, given back by drop.
pub struct Permit {
    budget: Rc<Budget>,
    bytes: u64,
}

impl std::fmt::Debug for Permit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Permit({})", self.bytes)
    }
}

impl Budget {
    pub fn new(bytes_max: u64) -> Rc<Budget> {
        Rc::new(Budget { bytes_max, held: Cell::new(0), waiting: RefCell::default(), next_ticket: Cell::new(0) })
    }

    /// What may be held together.
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Bytes held now.
    pub fn held(&self) -> u64 {
        self.held.get()
    }

    /// How often somebody had to wait.
    pub fn waits(&self) -> u64 {
        self.next_ticket.get()
    }

    fn fits(&self, bytes: u64) -> bool {
        self.held.get() == 0 || self.held.get().saturating_add(bytes) <= self.bytes_max
    }

    /// Waits for room behind all who wait already.
    pub async fn acquire(self: &Rc<Self>, bytes: u64) -> Permit {
        let mut place = Place { budget: Rc::clone(self), ticket: None };
        std::future::poll_fn(|context| place.poll(bytes, context.waker())).await;
        self.held.set(self.held.get() + bytes);
        drop(place);
        Permit { budget: Rc::clone(self), bytes }
    }

    /// The share, if there is room and nobody waits for it.
    pub fn try_acquire(self: &Rc<Self>, bytes: u64) -> Option<Permit> {
        let is_free = self.waiting.borrow().is_empty() && self.fits(bytes);
        is_free.then(|| {
            self.held.set(self.held.get() + bytes);
            Permit { budget: Rc::clone(self), bytes }
        })
    }

    fn wake_first(&self) {
        if let Some((_, waker)) = self.waiting.borrow().front() {
            waker.wake_by_ref();
        }
    }
}

/// A place in the queue, left by drop.
struct Place {
    budget: Rc<Budget>,
    ticket: Option<u64>,
}

impl Place {
    fn poll(&mut self, bytes: u64, waker: &Waker) -> Poll<()> {
        let mut waiting = self.budget.waiting.borrow_mut();
        let first = waiting.front().is_none_or(|&(ticket, _)| Some(ticket) == self.ticket);
        if first && self.budget.fits(bytes) {
            return Poll::Ready(());
        }
        match self.ticket {
            None => {
                let ticket = self.budget.next_ticket.get();
                self.budget.next_ticket.set(ticket + 1);
                self.ticket = Some(ticket);
                waiting.push_back((ticket, waker.clone()));
            }
            Some(ticket) => {
                if let Some(place) = waiting.iter_mut().find(|place| place.0 == ticket) {
                    place.1 = waker.clone();
                }
            }
        }
        Poll::Pending
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        self.budget.waiting.borrow_mut().retain(|place| place.0 != ticket);
        self.budget.wake_first();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.held.set(self.budget.held.get() - self.bytes);
        self.budget.wake_first();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::{Executor, NoDoorbell};

    #[test]
    fn whoever_comes_first_is_served_first_and_the_bound_holds() {
        let (executor, budget) = (Executor::new(NoDoorbell), Budget::new(10));
        let log = Rc::new(RefCell::new(Vec::new()));
        let held = Rc::new(RefCell::new(Vec::new()));
        for (name, bytes) in [("a", 6), ("b", 6), ("c", 1), ("huge", 100)] {
            let (budget, log, held) = (Rc::clone(&budget), Rc::clone(&log), Rc::clone(&held));
            executor.spawn(async move {
                let permit = budget.acquire(bytes).await;
                log.borrow_mut().push(name);
                held.borrow_mut().push(permit);
            });
        }
        let step = |expected: &[&str]| {
            for _ in 0..4 {
                executor.run_ready();
            }
            assert_eq!(*log.borrow(), expected);
        };
        step(&["a"]);
        held.borrow_mut().clear();
        step(&["a", "b", "c"]);
        assert_eq!(budget.held(), 7);
        held.borrow_mut().clear();
        step(&["a", "b", "c", "huge"]);
        held.borrow_mut().clear();
        assert_eq!((budget.held(), budget.waits()), (0, 3));
    }

    #[test]
    fn who_does_not_want_to_wait_is_told_that_there_is_no_room() {
        let budget = Budget::new(10);
        let first = budget.try_acquire(20).expect("alone");
        assert!(budget.try_acquire(1).is_none());
        drop(first);
        let _second = budget.try_acquire(6).expect("room");
        assert!(budget.try_acquire(5).is_none() && budget.try_acquire(4).is_some());
        assert_eq!((budget.held(), budget.waits()), (6, 0));
    }

    #[test]
    fn one_who_gives_up_waiting_lets_the_next_through() {
        let (executor, budget) = (Executor::new(NoDoorbell), Budget::new(10));
        let waker = Waker::noop();
        let mut context = std::task::Context::from_waker(waker);
        let mut first = Box::pin(budget.acquire(8));
        let Poll::Ready(permit) = first.as_mut().poll(&mut context) else { panic!("room for the first") };
        let mut second = Box::pin(budget.acquire(8));
        assert!(second.as_mut().poll(&mut context).is_pending());
        let done = Rc::new(Cell::new(false));
        let (shared, flag) = (Rc::clone(&budget), Rc::clone(&done));
        executor.spawn(async move {
            let _permit = shared.acquire(2).await;
            flag.set(true);
        });
        executor.run_ready();
        assert!(!done.get(), "behind the second");
        drop(second);
        executor.run_ready();
        assert!(done.get());
        drop(permit);
    }

    use std::future::Future;
}
