//! Key -> offset of its latest record, in as much memory as it is given (Kafka 3.9 `SkimpyOffsetMap`).
//!
//! Keys are known by the first 128 bits of their SHA-256, so that an entry takes 24 bytes, as in Kafka, whatever the
//! key. Two keys that met in it would lose one's record: nobody can find such a pair, neither by chance (5 million
//! keys: one in 10^25) nor on purpose, which for Kafka's MD5 can no longer be said.

#![forbid(unsafe_code)]

use sha2::{Digest, Sha256};

use crate::base::ids::Offset;

/// Two halves of the hash, and the offset plus one; all zero: free.
type Slot = [u64; 3];

/// Bytes of an entry.
pub const SLOT_BYTES: usize = size_of::<Slot>();

/// One map for one cleaning.
#[derive(Debug)]
pub struct OffsetMap {
    slots: Vec<Slot>,
    count: usize,
    count_max: usize,
    latest_offset: Offset,
}

/// There is no room for another key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl OffsetMap {
    /// In at most `bytes_max` bytes, of which keys may use this share, and for no more than `keys_max`.
    pub fn new(bytes_max: u64, load_factor: f64, keys_max: u64) -> OffsetMap {
        let load_factor = load_factor.clamp(0.01, 0.99);
        let slots_max = bytes_max / SLOT_BYTES as u64;
        // Of what is never reached no more is taken than the keys need.
        let slots_wanted = ((keys_max as f64 / load_factor) as u64).saturating_add(2);
        let slots = usize::try_from(slots_max.min(slots_wanted).max(2)).unwrap_or(usize::MAX / SLOT_BYTES);
        let count_max = ((slots as f64 * load_factor) as usize).clamp(1, slots - 1);
        OffsetMap { slots: vec![[0; 3]; slots], count: 0, count_max, latest_offset: -1 }
    }

    /// Notes the record of a key; a later one of the same key takes its place.
    pub fn put(&mut self, key: &[u8], offset: Offset) -> Result<(), Full> {
        let [high, low] = hash(key);
        let place = self.place_of(high, low);
        if self.slots[place][2] == 0 {
            if self.count >= self.count_max {
                return Err(Full);
            }
            self.count += 1;
        }
        self.slots[place] = [high, low, offset as u64 + 1];
        Ok(())
    }

    /// The offset of the key's latest record, if it has one here.
    pub fn get(&self, key: &[u8]) -> Option<Offset> {
        let [high, low] = hash(key);
        self.slots[self.place_of(high, low)][2].checked_sub(1).map(|offset| offset as Offset)
    }

    /// Where the key's entry is, or would be. One slot is always free.
    fn place_of(&self, high: u64, low: u64) -> usize {
        let mut place = (high % self.slots.len() as u64) as usize;
        while self.slots[place][2] != 0 && (self.slots[place][0], self.slots[place][1]) != (high, low) {
            place = if place + 1 == self.slots.len() { 0 } else { place + 1 };
        }
        place
    }

    /// The log up to this offset is in the map; -1: nothing is.
    pub fn latest_offset(&self) -> Offset {
        self.latest_offset
    }

    pub fn set_latest_offset(&mut self, offset: Offset) {
        self.latest_offset = self.latest_offset.max(offset);
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.slots.len() * SLOT_BYTES
    }
}

fn hash(key: &[u8]) -> [u64; 2] {
    let digest = Sha256::digest(key);
    let half = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&digest[at..at + 8]);
        u64::from_be_bytes(bytes)
    };
    [half(0), half(8)]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::base::splitmix64::next;

    #[test]
    fn the_latest_offset_of_each_key_is_kept_until_there_is_no_room() {
        let mut map = OffsetMap::new(24 * 100, 0.9, u64::MAX);
        let (mut model, mut seed) = (BTreeMap::new(), 5);
        for offset in 0..10_000 {
            let key = (next(&mut seed) % 150).to_be_bytes();
            let is_new = !model.contains_key(&key);
            match map.put(&key, offset) {
                Ok(()) => drop(model.insert(key, offset)),
                Err(Full) => assert!(is_new && model.len() == 90),
            }
        }
        assert_eq!((map.len(), map.bytes()), (90, 2400));
        for key in (0..150u64).map(u64::to_be_bytes) {
            assert_eq!(map.get(&key), model.get(&key).copied());
        }
    }

    #[test]
    fn no_more_memory_is_taken_than_the_keys_need() {
        assert!(OffsetMap::new(1 << 30, 0.9, 1000).bytes() < 30_000);
        let mut least = OffsetMap::new(0, 0.9, 0);
        assert_eq!((least.put(b"a", 0), least.put(b"b", 1), least.get(b"a")), (Ok(()), Err(Full), Some(0)));
    }
}
