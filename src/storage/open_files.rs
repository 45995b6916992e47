//! The files that one shard keeps open, bounded: who was not used for longest gives way.
//!
//! A log holds [`FileSlot`]s. A slot is filled when its file is opened and may be empty again at the next look, unless it is
//! pinned: a file with bytes that are not flushed is never closed to save descriptors. Whoever took the file out of its slot
//! keeps it open for as long as it holds it, so only the slots are bounded, not the ranges on their way to clients.

#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

/// The slots of one shard that are filled.
#[derive(Debug)]
pub struct OpenFiles {
    count_max: usize,
    /// Filled slots, and some that were emptied or dropped since; the front is looked at next (second chance).
    queue: RefCell<VecDeque<Weak<dyn Evict>>>,
}

trait Evict: std::fmt::Debug {
    /// Empties the slot, unless it is pinned or was used since the last call; true if it is empty now.
    fn evict(&self) -> bool;
}

#[derive(Debug)]
struct Slot<T> {
    value: RefCell<Option<T>>,
    used: Cell<bool>,
    pinned: Cell<bool>,
}

impl<T: std::fmt::Debug> Evict for Slot<T> {
    fn evict(&self) -> bool {
        if self.pinned.get() || self.used.replace(false) {
            return false;
        }
        self.value.take();
        true
    }
}

impl OpenFiles {
    /// At most `count_max` filled slots, but for pinned ones.
    pub fn new(count_max: usize) -> Rc<OpenFiles> {
        Rc::new(OpenFiles { count_max: count_max.max(1), queue: RefCell::default() })
    }

    /// An empty slot.
    pub fn slot<T: Clone + std::fmt::Debug + 'static>(self: &Rc<Self>) -> FileSlot<T> {
        let slot = Slot { value: RefCell::new(None), used: Cell::new(false), pinned: Cell::new(false) };
        FileSlot { files: Rc::clone(self), slot: Rc::new(slot) }
    }

    /// A slot that holds `value`.
    pub fn filled<T: Clone + std::fmt::Debug + 'static>(self: &Rc<Self>, value: T) -> FileSlot<T> {
        let slot = self.slot();
        slot.put(value);
        slot
    }

    /// How many slots are filled, or were before they were dropped.
    pub fn count(&self) -> usize {
        self.queue.borrow().len()
    }

    pub fn count_max(&self) -> usize {
        self.count_max
    }

    fn enter(&self, slot: Weak<dyn Evict>) {
        let mut queue = self.queue.borrow_mut();
        // Once around clears what was used, the second time around finds it.
        for _ in 0..queue.len() * 2 {
            if queue.len() < self.count_max {
                break;
            }
            let Some(front) = queue.pop_front() else { break };
            if front.upgrade().is_some_and(|slot| !slot.evict()) {
                queue.push_back(front);
            }
        }
        queue.push_back(slot);
    }
}

/// A place for an open file, or for several that are opened together.
#[derive(Debug)]
pub struct FileSlot<T> {
    files: Rc<OpenFiles>,
    slot: Rc<Slot<T>>,
}

impl<T: Clone + std::fmt::Debug + 'static> FileSlot<T> {
    /// What is open.
    pub fn get(&self) -> Option<T> {
        self.slot.used.set(true);
        self.slot.value.borrow().clone()
    }

    /// Fills the slot; another one may be emptied for it.
    pub fn put(&self, value: T) {
        self.slot.used.set(true);
        if self.slot.value.replace(Some(value)).is_none() {
            let slot: Weak<Slot<T>> = Rc::downgrade(&self.slot);
            self.files.enter(slot);
        }
    }

    /// Keeps the slot from being emptied, or lets it be.
    pub fn pin(&self, pinned: bool) {
        self.slot.pinned.set(pinned);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_bound_the_slot_that_was_not_used_for_longest_is_emptied() {
        let files = OpenFiles::new(3);
        let slots: Vec<FileSlot<u32>> = (0..4).map(|_| files.slot()).collect();
        for (at, slot) in slots.iter().enumerate().take(3) {
            slot.put(at as u32);
        }
        slots[3].put(3);
        assert_eq!(slots.iter().filter(|slot| slot.get().is_some()).count(), 3);
        assert_eq!((slots[0].get(), slots[3].get()), (None, Some(3)));
        // All were just looked at; the next round starts with the oldest of them.
        slots[0].put(0);
        assert_eq!((slots[0].get(), files.count()), (Some(0), 3));
    }

    #[test]
    fn a_pinned_slot_stays_and_a_dropped_one_makes_room() {
        let files = OpenFiles::new(2);
        let slots: Vec<FileSlot<u32>> = (0..4).map(|_| files.slot()).collect();
        slots[0].put(0);
        slots[0].pin(true);
        slots[1].put(1);
        slots[1].pin(true);
        slots[2].put(2);
        assert_eq!((slots[0].get(), slots[1].get(), files.count()), (Some(0), Some(1), 3));
        slots[0].pin(false);
        slots[3].put(3);
        slots[3].put(4);
        assert_eq!((slots[1].get(), files.count()), (Some(1), 2));
        drop(slots);
        let next = files.slot();
        next.put(9);
        assert_eq!((next.get(), files.count()), (Some(9), 2));
    }
}
