//! Who may open a closed segment's files by their names, and who may change those names.
//!
//! ```text
//!  a look-up:    ask (in the turn that says what to open) ... hold - open, read - let go
//!  a deletion:                      hold alone - rename - the log forgets the segments - let go
//! ```
//! What is open stays open and readable whatever becomes of its name, so reads of loaded segments wait for nobody.
//! Whoever asked before a change and holds after it would open something else than it wanted: it is told to ask again.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::rc::Rc;

use crate::base::budget::{Budget, Permit};
use crate::storage::log::LogError;

/// Those who may hold the names together; whoever changes them holds as many.
const HOLDERS_MAX: u64 = 1 << 32;

/// The names of one log's closed segments.
pub struct Names {
    holders: Rc<Budget>,
    changes: Cell<u64>,
}

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Names({} changes)", self.changes.get())
    }
}

/// Somebody's wish to open files by the names of now.
#[derive(Debug)]
pub(super) struct Asked {
    names: Rc<Names>,
    changes: u64,
}

/// The names stay as they are until this is dropped; or, held alone, nobody opens anything by them.
pub struct NamesHeld {
    names: Rc<Names>,
    _permit: Permit,
}

impl std::fmt::Debug for NamesHeld {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.names.fmt(f)
    }
}

impl Names {
    pub fn new() -> Rc<Names> {
        Rc::new(Names { holders: Budget::new(HOLDERS_MAX), changes: Cell::new(0) })
    }

    /// How often they have changed.
    pub(super) fn changes(&self) -> u64 {
        self.changes.get()
    }

    pub(super) fn ask(self: &Rc<Self>) -> Asked {
        Asked { names: Rc::clone(self), changes: self.changes.get() }
    }

    /// Waits until nobody else holds them.
    pub async fn hold_alone(self: Rc<Self>) -> NamesHeld {
        let permit = self.holders.acquire(HOLDERS_MAX).await;
        NamesHeld { names: self, _permit: permit }
    }
}

impl Asked {
    /// # Errors
    /// `SegmentsChanged` if they are others than those of the asking.
    pub async fn hold(self) -> Result<NamesHeld, LogError> {
        let permit = self.names.holders.acquire(1).await;
        match self.names.changes.get() == self.changes {
            true => Ok(NamesHeld { names: self.names, _permit: permit }),
            false => Err(LogError::SegmentsChanged),
        }
    }
}

impl NamesHeld {
    /// The log knows other segments from now on.
    pub(super) fn changed(&self) {
        self.names.changes.set(self.names.changes.get() + 1);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::sim::disk::tests::run;

    #[test]
    fn who_asked_before_a_change_holds_before_it_or_is_told_to_ask_again() {
        let names = Names::new();
        let (early, late) = (names.ask(), names.ask());
        let early = run(early.hold()).unwrap();
        let mut context = Context::from_waker(Waker::noop());
        let mut alone = pin!(Rc::clone(&names).hold_alone());
        assert!(alone.as_mut().poll(&mut context).is_pending(), "somebody opens files yet");
        let mut late = pin!(late.hold());
        assert!(late.as_mut().poll(&mut context).is_pending(), "behind the change that waits");
        drop(early);
        let Poll::Ready(alone) = alone.as_mut().poll(&mut context) else { panic!("nobody holds them") };
        alone.changed();
        drop(alone);
        assert!(matches!(late.as_mut().poll(&mut context), Poll::Ready(Err(LogError::SegmentsChanged))));
        assert!(run(names.ask().hold()).is_ok());
    }
}
