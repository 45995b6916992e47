//! An ordered map whose copies share what they have in common.
//!
//! Sorted chunks below one sorted list of them: a change copies one chunk and the list, never the entries. Chunks hold 1
//! to [`CHUNK_ENTRIES_MAX`] entries; for 20,000 entries a change copies about 400 pointers.

#![forbid(unsafe_code)]

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// A chunk that would grow beyond this is cut in two.
const CHUNK_ENTRIES_MAX: usize = 128;

type Chunk<K, V> = Arc<Vec<(K, V)>>;

#[derive(Clone)]
pub struct SharedMap<K, V> {
    /// Never an empty chunk; keys ascend within a chunk and from one to the next.
    chunks: Arc<Vec<Chunk<K, V>>>,
    len: usize,
}

impl<K: Ord + Clone, V: Clone> SharedMap<K, V> {
    pub fn new() -> SharedMap<K, V> {
        SharedMap { chunks: Arc::new(Vec::new()), len: 0 }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let chunk = self.chunks.get(self.chunk_of(key))?;
        let at = chunk.binary_search_by(|(found, _)| found.borrow().cmp(key)).ok()?;
        Some(&chunk[at].1)
    }

    /// In the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// Values in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// Sets `key`; maps cloned from this one before keep what they had.
    pub fn insert(&mut self, key: K, value: V) {
        let index = self.chunk_of(&key);
        let chunks = Arc::make_mut(&mut self.chunks);
        if chunks.is_empty() {
            chunks.push(Arc::new(Vec::new()));
        }
        let chunk = Arc::make_mut(&mut chunks[index]);
        match chunk.binary_search_by(|(found, _)| found.cmp(&key)) {
            Ok(at) => chunk[at].1 = value,
            Err(at) => {
                chunk.insert(at, (key, value));
                self.len += 1;
            }
        }
        if chunk.len() > CHUNK_ENTRIES_MAX {
            let upper = chunk.split_off(chunk.len() / 2);
            chunks.insert(index + 1, Arc::new(upper));
        }
    }

    /// Takes `key` out; maps cloned from this one before keep it.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        let index = self.chunk_of(key);
        if self.get(key).is_none() {
            return;
        }
        let chunks = Arc::make_mut(&mut self.chunks);
        let chunk = Arc::make_mut(&mut chunks[index]);
        chunk.retain(|(found, _)| found.borrow() != key);
        if chunk.is_empty() {
            chunks.remove(index);
        }
        self.len -= 1;
    }

    /// The chunk that holds `key` if any does: the last that starts at or below it, or the first.
    fn chunk_of<Q: Ord + ?Sized>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        self.chunks.partition_point(|chunk| chunk[0].0.borrow() <= key).saturating_sub(1)
    }
}

impl<K: Ord + Clone, V: Clone> Default for SharedMap<K, V> {
    fn default() -> Self {
        SharedMap::new()
    }
}

impl<K: Ord + Clone + fmt::Debug, V: Clone + fmt::Debug> fmt::Debug for SharedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.chunks.iter().flat_map(|chunk| chunk.iter().map(|(key, value)| (key, value))))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_behaves_like_a_btree_map_and_earlier_copies_do_not_change(
            steps in proptest::collection::vec((any::<bool>(), 0u16..600), 0..2000),
        ) {
            let (mut map, mut model) = (SharedMap::new(), BTreeMap::new());
            let mut earlier = None;
            for (at, (insert, key)) in steps.iter().enumerate() {
                if at == steps.len() / 2 {
                    earlier = Some((map.clone(), model.clone()));
                }
                if *insert {
                    map.insert(*key, at);
                    model.insert(*key, at);
                } else {
                    map.remove(key);
                    model.remove(key);
                }
            }
            for (map, model) in earlier.into_iter().chain([(map, model)]) {
                prop_assert_eq!(map.len(), model.len());
                prop_assert!(map.values().eq(model.values()));
                for key in 0..600 {
                    prop_assert_eq!(map.get(&key), model.get(&key));
                }
            }
        }
    }

    #[test]
    fn a_change_among_twenty_thousand_shares_all_other_chunks() {
        let mut map = SharedMap::new();
        for key in 0..20_000 {
            map.insert(key, ());
        }
        let before = map.clone();
        map.insert(20_001, ());
        let shared = before.chunks.iter().zip(map.chunks.iter()).filter(|(old, new)| Arc::ptr_eq(old, new)).count();
        assert!(shared + 1 >= before.chunks.len(), "{shared} of {}", before.chunks.len());
    }
}
