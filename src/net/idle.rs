//! Closing connections on which nothing has happened for a long time (`connections.max.idle.ms`), and those that would
//! take all memory: they send without an end and read no answers, so what they sent waits here.
//!
//! A connection only leaves a mark when something happens; what time it is matters when marks are looked at, once a
//! second or oftener. So one is closed up to that much late.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use slab::Slab;

use crate::base::time::Monotonic;
use crate::platform::Clock;

/// Looks in one longest idleness, if that is short.
const LOOKS: u32 = 20;
const LOOK_INTERVAL_MIN: Duration = Duration::from_millis(10);
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(1);

/// Bytes that may have been received and wait to be looked at, of all connections of a shard together. Past that those of
/// which most wait are closed, if none of it was looked at since the last look; past [`UNREAD_TIMES_MAX`] times as many also
/// others.
const UNREAD_BYTES_MAX: u64 = 32 * 1024 * 1024;
const UNREAD_TIMES_MAX: u64 = 4;

/// Something that may be idle.
pub trait Watched {
    /// Whether something has happened since this was asked last, or is going on.
    fn has_moved(&self) -> bool;

    /// Bytes that were received and have not been looked at, and whether some were since this was asked last.
    fn unread(&self) -> (u64, bool);

    fn close(&self);

    /// Takes no more requests, and closes when those under way are answered.
    fn drain(&self);
}

/// The connections of one shard.
#[derive(Default)]
pub struct Idle {
    connections: RefCell<Slab<(Rc<dyn Watched>, Monotonic)>>,
    /// Who waits until there is none.
    emptied: Cell<Option<Waker>>,
}

impl Idle {
    /// Watches a connection until [`Idle::forget`] with the number that this gives.
    pub fn watch(&self, connection: Rc<dyn Watched>, now: Monotonic) -> usize {
        self.connections.borrow_mut().insert((connection, now))
    }

    pub fn forget(&self, number: usize) {
        let mut connections = self.connections.borrow_mut();
        connections.remove(number);
        if connections.is_empty()
            && let Some(waker) = self.emptied.take()
        {
            waker.wake();
        }
    }

    pub fn count(&self) -> usize {
        self.connections.borrow().len()
    }

    /// Asks each to end with the requests that are under way.
    pub fn drain(&self) {
        let all: Vec<_> = self.connections.borrow().iter().map(|(_, (connection, _))| Rc::clone(connection)).collect();
        all.iter().for_each(|connection| connection.drain());
    }

    /// Resolves when there is none. For one task at a time.
    pub async fn empty(&self) {
        poll_fn(|context| {
            if self.count() == 0 {
                return Poll::Ready(());
            }
            self.emptied.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// Closes what has been idle for `idle_max`, and what holds too many unread bytes; gives how many the latter are.
    fn look(&self, now: Monotonic, idle_max: Duration, unread_bytes_max: u64) -> usize {
        let (mut idle, mut stuck, mut going_on, mut unread_bytes) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for (_, (connection, since)) in self.connections.borrow_mut().iter_mut() {
            if connection.has_moved() {
                *since = now;
            } else if now.since(*since) >= idle_max {
                idle.push(Rc::clone(connection));
            }
            let (bytes, goes_on) = connection.unread();
            unread_bytes += bytes;
            if bytes > 0 {
                let those = if goes_on { &mut going_on } else { &mut stuck };
                those.push((bytes, Rc::clone(connection)));
            }
        }
        idle.iter().for_each(|connection| connection.close());
        let mut closed = 0;
        for (mut those, most) in [(stuck, unread_bytes_max), (going_on, UNREAD_TIMES_MAX * unread_bytes_max)] {
            if unread_bytes > most {
                those.sort_by_key(|(bytes, _)| *bytes);
            }
            while unread_bytes > most
                && let Some((bytes, connection)) = those.pop()
            {
                connection.close();
                unread_bytes -= bytes;
                closed += 1;
            }
        }
        closed
    }

    /// A task for the shard's life. Without `idle_max` no connection is closed for being idle.
    pub async fn keep_looking(self: Rc<Self>, clock: impl Clock, idle_max: Option<Duration>) {
        let idle_max = idle_max.unwrap_or(Duration::MAX);
        let interval = (idle_max / LOOKS).clamp(LOOK_INTERVAL_MIN, LOOK_INTERVAL_MAX);
        loop {
            clock.sleep_until(clock.now() + interval).await;
            let closed = self.look(clock.now(), idle_max, UNREAD_BYTES_MAX);
            if closed > 0 {
                tracing::warn!(closed, "connections were closed that send without an end and read no answers");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[derive(Default)]
    struct Fake {
        moved: Cell<bool>,
        closed: Cell<bool>,
        unread: Cell<u64>,
        goes_on: Cell<bool>,
    }

    impl Watched for Fake {
        fn has_moved(&self) -> bool {
            self.moved.take()
        }

        fn unread(&self) -> (u64, bool) {
            (self.unread.get(), self.goes_on.get())
        }

        fn close(&self) {
            self.closed.set(true);
        }

        fn drain(&self) {
            self.closed.set(true);
        }
    }

    #[test]
    fn a_connection_is_closed_when_nothing_has_happened_on_it_for_the_whole_time() {
        let (idle, busy, quiet) = (Idle::default(), Rc::new(Fake::default()), Rc::new(Fake::default()));
        let at = |seconds: u64| Monotonic(seconds * 1_000_000_000);
        let number = idle.watch(busy.clone(), at(0));
        idle.watch(quiet.clone(), at(0));
        for second in 1..10 {
            busy.moved.set(true);
            idle.look(at(second), Duration::from_secs(10), 100);
        }
        assert!(!busy.closed.get() && !quiet.closed.get());
        idle.look(at(10), Duration::from_secs(10), 100);
        assert!(!busy.closed.get() && quiet.closed.get());
        idle.forget(number);
        idle.look(at(100), Duration::from_secs(10), 100);
        assert!(!busy.closed.get());
    }

    #[test]
    fn where_too_much_waits_unread_those_go_that_hold_most_of_it_and_do_not_go_on() {
        let idle = Idle::default();
        let all = [(60, false), (50, false), (40, true), (5, false)].map(|(unread, goes_on)| {
            let fake = Rc::new(Fake::default());
            fake.unread.set(unread);
            fake.goes_on.set(goes_on);
            idle.watch(fake.clone(), Monotonic(0));
            fake
        });
        let closed = || all.each_ref().map(|fake| fake.closed.get());
        assert_eq!(idle.look(Monotonic(0), Duration::MAX, 155), 0);
        assert_eq!(closed(), [false; 4]);
        assert_eq!(idle.look(Monotonic(0), Duration::MAX, 100), 1);
        assert_eq!(closed(), [true, false, false, false]);
        all[0].unread.set(0);
        assert_eq!(idle.look(Monotonic(0), Duration::MAX, 10), 2, "half-way to four times as much the others stay");
        assert_eq!(closed(), [true, true, false, true]);
        all[1].unread.set(0);
        all[3].unread.set(0);
        assert_eq!(idle.look(Monotonic(0), Duration::MAX, 9), 1, "past that they go too");
        assert_eq!(closed(), [true; 4]);
    }
}
