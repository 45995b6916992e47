//! Random values of messages, for the round-trip tests and the oracle. Not part of the broker.
#![forbid(unsafe_code)]

use crate::base::splitmix64;

/// A seeded stream of numbers: the same seed, the same values.
#[derive(Debug)]
pub struct Sampler {
    state: u64,
}

impl Sampler {
    pub fn new(seed: u64) -> Sampler {
        Sampler { state: seed }
    }

    pub fn number(&mut self) -> u64 {
        splitmix64::next(&mut self.state)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % end as u64) as usize
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// A whole number, small ones and -1 more often than the others.
    pub fn integer(&mut self) -> i64 {
        match self.below(4) {
            0 => self.number() as i64,
            1 => -1,
            _ => self.below(100) as i64,
        }
    }

    /// Text of up to 12 characters, now and then of 200, not all of them ASCII.
    pub fn text(&mut self) -> String {
        let count = if self.one_in(20) { 200 } else { self.below(13) };
        let letters = ['a', 'b', 'z', 'A', '0', '9', '-', '_', '.', 'é', '漢', '🦀'];
        (0..count).map(|_| letters[self.below(letters.len())]).collect()
    }

    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.number() as u8).collect()
    }
}
