//! What becomes of unsynced changes when the power goes.

#![forbid(unsafe_code)]

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

/// Seeded numbers (splitmix64).
pub struct Dice(pub u64);

impl Dice {
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound.max(1)
    }
}
