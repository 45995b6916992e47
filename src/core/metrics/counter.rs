//! Numbers that any thread reads: with one writer, which is the rule, or with several.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};

/// Something that counts.
pub trait Tally: Default {
    fn add(&self, count: u64);
    fn get(&self) -> u64;
}

/// A number that **one thread** writes, mostly a shard's own, and any thread reads. To count is a load and a store, no
/// locked instruction; a second writer would lose counts. Where several write, it is a [`SharedCounter`].
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, count: u64) {
        self.0.store(self.get().wrapping_add(count), Ordering::Relaxed);
    }

    pub fn subtract(&self, count: u64) {
        self.0.store(self.get().wrapping_sub(count), Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Tally for Counter {
    fn add(&self, count: u64) {
        Counter::add(self, count);
    }

    fn get(&self) -> u64 {
        Counter::get(self)
    }
}

/// A number that several threads write.
#[derive(Debug, Default)]
pub struct SharedCounter(AtomicU64);

impl SharedCounter {
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Tally for SharedCounter {
    fn add(&self, count: u64) {
        SharedCounter::add(self, count);
    }

    fn get(&self) -> u64 {
        SharedCounter::get(self)
    }
}
