//! The elements of a request, each once. Kafka keeps them in sets and maps; a list that is walked as it came would be
//! answered, looked up and waited for as often as a client cares to repeat itself.
//!
//! A key is looked up, never listed, so nothing hangs on the order of the hasher.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

/// Where each key was named first.
#[derive(Debug)]
pub struct Distinct<K> {
    places: HashMap<K, usize>,
}

impl<K: Hash + Eq> Distinct<K> {
    /// With room for so many, which is bounded by what their request took.
    pub fn with_capacity(count: usize) -> Distinct<K> {
        Distinct { places: HashMap::with_capacity(count) }
    }

    /// Whether it is named for the first time.
    pub fn is_new(&mut self, key: K) -> bool {
        self.place_or(key, 0).is_ok()
    }

    /// Gives a key its place, or says which one it has.
    ///
    /// # Errors
    /// The place of a key that was named before: nothing changes.
    pub fn place_or(&mut self, key: K, place: usize) -> Result<(), usize> {
        match self.places.entry(key) {
            Entry::Occupied(known) => Err(*known.get()),
            Entry::Vacant(free) => {
                free.insert(place);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_keeps_the_place_where_it_was_named_first() {
        let mut distinct = Distinct::with_capacity(2);
        assert_eq!(distinct.place_or("a", 0), Ok(()));
        assert_eq!(distinct.place_or("b", 1), Ok(()));
        assert_eq!(distinct.place_or("a", 2), Err(0));
        assert!(!distinct.is_new("b") && distinct.is_new("c"));
    }
}
