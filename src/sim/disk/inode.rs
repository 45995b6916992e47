//! The bytes of one file: as readers see them, as the device holds them, and the changes in between.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::ops::Range;

use super::power_cut::{Dice, Unsynced};
use crate::base::time::WallMs;

const PAGE_BYTES: u64 = 4096;
/// What a device writes whole or not at all.
pub(super) const SECTOR_BYTES: usize = 512;

#[derive(Clone, Default)]
pub(super) struct Inode {
    pub data: Vec<u8>,
    durable: Vec<u8>,
    /// What was done since, oldest first.
    changes: Vec<Change>,
    evicted_pages: BTreeSet<u64>,
    pub modified: WallMs,
    /// What is brought into the page cache is evicted again at once.
    keeps_no_page: bool,
    /// Where the blocks reserved for it end.
    pub reserved_end: u64,
}

#[derive(Clone)]
struct Change {
    kind: ChangeKind,
    /// A sync failed over it: its pages count as clean, and no later sync makes it durable.
    sync_failed: bool,
}

#[derive(Clone)]
enum ChangeKind {
    Write { position: usize, data: Vec<u8> },
    SetLength(usize),
}

impl Inode {
    /// A file that the device holds.
    pub fn durable(data: Vec<u8>) -> Inode {
        Inode { durable: data.clone(), data, ..Inode::default() }
    }

    pub fn slice(&self, position: u64, length: u64) -> &[u8] {
        let end = position.saturating_add(length).min(self.data.len() as u64) as usize;
        &self.data[(position as usize).min(end)..end]
    }

    pub fn write(&mut self, position: usize, data: Vec<u8>) {
        let pages = position as u64 / PAGE_BYTES..=(position + data.len()) as u64 / PAGE_BYTES;
        self.evicted_pages.retain(|page| !pages.contains(page));
        self.change(ChangeKind::Write { position, data });
    }

    /// Blocks reserved behind the end are given back, as Linux does even where the length is the same.
    pub fn set_length(&mut self, length: usize) {
        self.reserved_end = 0;
        self.change(ChangeKind::SetLength(length));
    }

    fn change(&mut self, kind: ChangeKind) {
        kind.apply(&mut self.data);
        self.changes.push(Change { kind, sync_failed: false });
    }

    /// Whether a sync would change what the device holds.
    pub fn is_dirty(&self) -> bool {
        self.changes.iter().any(|change| !change.sync_failed)
    }

    pub fn sync(&mut self) {
        let mut rest = std::mem::take(&mut self.changes).into_iter();
        while let Some(change) = rest.next() {
            match change.sync_failed {
                true => self.changes.extend(change.not_covered_by(rest.as_slice())),
                false => change.kind.apply(&mut self.durable),
            }
        }
    }

    /// What a failed fsync leaves behind.
    pub fn fail_sync(&mut self) {
        self.changes.iter_mut().for_each(|change| change.sync_failed = true);
    }

    /// Turns one bit over, in the cache and on the device.
    pub fn flip(&mut self, position: usize, bit: u8) {
        for data in [&mut self.data, &mut self.durable] {
            if let Some(byte) = data.get_mut(position) {
                *byte ^= 1 << bit;
            }
        }
    }

    /// Bytes from `position` that are in the page cache, at most `length`, and not past the end.
    pub fn resident_bytes(&self, position: u64, length: u64) -> u64 {
        let end = position.saturating_add(length).min(self.data.len() as u64);
        let cold = self.evicted_pages.range(position / PAGE_BYTES..).next();
        let warm_end = cold.map_or(end, |page| (page * PAGE_BYTES).max(position)).min(end);
        warm_end.saturating_sub(position)
    }

    pub fn evict(&mut self) {
        self.evicted_pages = (0..=self.data.len() as u64 / PAGE_BYTES).collect();
    }

    /// From now on no page of it stays in the page cache until somebody has looked.
    pub fn keep_no_page(&mut self) {
        self.keeps_no_page = true;
        self.evict();
    }

    pub fn make_resident(&mut self, position: u64, length: u64) {
        if self.keeps_no_page {
            return;
        }
        let pages = position / PAGE_BYTES..=position.saturating_add(length) / PAGE_BYTES;
        self.evicted_pages.retain(|page| !pages.contains(page));
    }

    /// What a power cut leaves of the file; nothing of it is in the page cache.
    pub fn after_power_cut(&self, unsynced: Unsynced, dice: &mut Dice) -> Inode {
        let mut data = self.durable.clone();
        let through = dice.below(self.changes.len() as u64 + 1) as usize;
        for (at, Change { kind, .. }) in self.changes.iter().enumerate() {
            match unsynced {
                Unsynced::Kept => kind.apply(&mut data),
                Unsynced::Lost => {}
                Unsynced::Torn if at == through => kind.apply_torn(&mut data, dice),
                Unsynced::Torn | Unsynced::Zeroed if at < through => kind.apply(&mut data),
                Unsynced::Torn => {}
                Unsynced::Zeroed => kind.apply_zeroed(&mut data),
                Unsynced::Reordered => match dice.below(5) {
                    0 => {}
                    1 => kind.apply_torn(&mut data, dice),
                    2 => kind.apply_zeroed(&mut data),
                    3 => kind.apply_scattered(&mut data, dice),
                    _ => kind.apply(&mut data),
                },
            }
        }
        let mut inode = Inode::durable(data);
        inode.evict();
        inode
    }
}

impl Change {
    /// What is left of a write that no sync will bring to the device, once `later` ones lie over it there. A length is
    /// metadata, and not lost with the pages.
    fn not_covered_by(&self, later: &[Change]) -> Vec<Change> {
        let ChangeKind::Write { position, data } = &self.kind else { return Vec::new() };
        let mut left: Vec<Range<usize>> = std::iter::once(*position..position + data.len()).collect();
        for change in later.iter().filter(|change| !change.sync_failed) {
            let covered = match &change.kind {
                ChangeKind::Write { position, data } => *position..position + data.len(),
                ChangeKind::SetLength(length) => *length..usize::MAX,
            };
            left = left
                .into_iter()
                .flat_map(|range| [range.start..range.end.min(covered.start), range.start.max(covered.end)..range.end])
                .filter(|range| !range.is_empty())
                .collect();
        }
        left.into_iter()
            .map(|range| Change {
                kind: ChangeKind::Write {
                    position: range.start,
                    data: data[range.start - position..range.end - position].to_vec(),
                },
                sync_failed: true,
            })
            .collect()
    }
}

impl ChangeKind {
    fn apply(&self, data: &mut Vec<u8>) {
        match self {
            ChangeKind::Write { position, data: written } => write_at(data, *position, written),
            ChangeKind::SetLength(length) => data.resize(*length, 0),
        }
    }

    /// Up to some sector.
    fn apply_torn(&self, data: &mut Vec<u8>, dice: &mut Dice) {
        if let ChangeKind::Write { position, data: written } = self {
            let sectors = sectors_of(*position, written.len());
            let kept = dice.below(sectors.len() as u64) as usize;
            let end = sectors[kept].start;
            write_at(data, *position, &written[..end]);
        }
    }

    /// The file is as long as it should be, and holds nothing there.
    fn apply_zeroed(&self, data: &mut Vec<u8>) {
        match self {
            ChangeKind::Write { position, data: written } => write_at(data, *position, &vec![0; written.len()]),
            ChangeKind::SetLength(_) => self.apply(data),
        }
    }

    /// Each sector for itself; one that is missing is what was there before, or zeros.
    fn apply_scattered(&self, data: &mut Vec<u8>, dice: &mut Dice) {
        let ChangeKind::Write { position, data: written } = self else { return self.apply(data) };
        for sector in sectors_of(*position, written.len()) {
            if dice.below(2) == 0 {
                write_at(data, position + sector.start, &written[sector]);
            }
        }
    }
}

/// The parts of a write, each within one of the file's sectors.
fn sectors_of(position: usize, length: usize) -> Vec<Range<usize>> {
    let first = position / SECTOR_BYTES * SECTOR_BYTES;
    let starts = (first..(position + length).max(first + 1)).step_by(SECTOR_BYTES);
    starts.map(|start| start.max(position) - position..(start + SECTOR_BYTES - position).min(length)).collect()
}

fn write_at(data: &mut Vec<u8>, position: usize, written: &[u8]) {
    let end = position + written.len();
    if data.len() < end {
        data.resize(end, 0);
    }
    data[position..end].copy_from_slice(written);
}
