//! What a disk is for the next process: after a kill, and what becomes of unsynced changes when the power goes.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::inode::Inode;
use super::names::{self, NameChange, Names, Node, SharedInode};
use super::{FakeDisk, World, lock};
use crate::base::splitmix64;

/// How a power cut treats changes that were not synced. Of a directory's names a prefix of the changes survives, since
/// file systems journal them: all, none, or as many as the dice say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced {
    Kept,
    Lost,
    /// In each file the first few are there, the next one up to a sector, and the others not.
    Torn,
    /// Each file is as long as it was made, with zeros in place of its last changes.
    Zeroed,
    /// Every change for itself is there, missing, torn, zeroed or there by some of its sectors: no order holds.
    Reordered,
}

/// One way for the power to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerCut {
    pub data: Unsynced,
    pub names: Unsynced,
    pub seed: u64,
}

impl PowerCut {
    /// Every way that is looked at; `seed` also decides what is left open.
    pub fn ways(seed: u64) -> [PowerCut; 8] {
        use Unsynced::*;
        let way = |data, names| PowerCut { data, names, seed };
        [
            way(Reordered, Reordered),
            way(Torn, Reordered),
            way(Zeroed, Reordered),
            way(Kept, Lost),
            way(Lost, Kept),
            way(Lost, Lost),
            way(Kept, Reordered),
            way(Reordered, Kept),
        ]
    }
}

/// Seeded numbers.
pub struct Dice(pub u64);

impl Dice {
    pub fn next_u64(&mut self) -> u64 {
        splitmix64::next(&mut self.0)
    }

    /// A number below `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound.max(1)
    }
}

impl FakeDisk {
    /// The machine as the next process finds it after this one was killed.
    pub fn restart(&self) -> FakeDisk {
        self.reborn(Inode::clone, |world| (world.names.clone(), world.name_changes.clone()), |life| life)
    }

    /// The machine as it comes up after the power went, by dice all the way: see the module's head.
    pub fn power_cut(&self, seed: u64) -> FakeDisk {
        self.power_cut_by(PowerCut { data: Unsynced::Reordered, names: Unsynced::Reordered, seed })
    }

    /// The machine as it comes up after the power went in this way.
    pub fn power_cut_by(&self, cut: PowerCut) -> FakeDisk {
        let mut data = Dice(cut.seed);
        let mut survived = Dice(cut.seed ^ 0x5bd1_e995);
        self.reborn(
            move |inode| inode.after_power_cut(cut.data, &mut data),
            move |world| {
                let (durable, changes) = (&world.durable_names, &world.name_changes);
                (names::after_power_cut(durable, changes, cut.names, &mut survived), Vec::new())
            },
            |life| life + 1,
        )
    }

    /// A new world with copies of this one's files. Faults stay behind; a full disk is full still.
    fn reborn(
        &self,
        mut copy: impl FnMut(&Inode) -> Inode,
        names: impl FnOnce(&World) -> (Names, Vec<NameChange>),
        cache_life: impl FnOnce(u64) -> u64,
    ) -> FakeDisk {
        let old = lock(&self.world);
        let (names, name_changes) = names(&old);
        let mut copies: BTreeMap<*const Mutex<Inode>, SharedInode> = BTreeMap::new();
        let mut renew = |node: &Node| match node {
            Node::Directory => Node::Directory,
            Node::File(inode) => {
                let copied = copies.entry(Arc::as_ptr(inode));
                Node::File(copied.or_insert_with(|| Arc::new(Mutex::new(copy(&lock(inode))))).clone())
            }
        };
        let new_names: Names = names.iter().map(|(path, node)| (path.clone(), renew(node))).collect();
        let durable_names = match name_changes.is_empty() {
            true => new_names.clone(),
            false => old.durable_names.iter().map(|(path, node)| (path.clone(), renew(node))).collect(),
        };
        let name_changes = name_changes
            .into_iter()
            .map(|change| match change {
                NameChange::Put { path, node } => NameChange::Put { node: renew(&node), path },
                other => other,
            })
            .collect();
        let (capacities, wall, cache_life) = (old.capacities.clone(), old.wall, cache_life(old.cache_life));
        let names = new_names;
        let world = World { names, durable_names, name_changes, capacities, wall, cache_life, ..World::default() };
        FakeDisk { world: Arc::new(Mutex::new(world)), pause: None, watch: None }
    }
}
