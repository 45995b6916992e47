//! Directories and names, and the changes of them that a power cut may take back.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::inode::Inode;
use super::power_cut::{Dice, Unsynced};

pub(super) type SharedInode = Arc<Mutex<Inode>>;
pub(super) type Names = BTreeMap<PathBuf, Node>;

#[derive(Clone)]
pub(super) enum Node {
    Directory,
    File(SharedInode),
}

/// A change in one directory.
#[derive(Clone)]
pub(super) enum NameChange {
    Put { path: PathBuf, node: Node },
    Remove { path: PathBuf },
    Rename { from: PathBuf, to: PathBuf },
}

pub(super) fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).to_owned()
}

impl NameChange {
    pub fn directory(&self) -> PathBuf {
        match self {
            NameChange::Put { path, .. } | NameChange::Remove { path } => parent(path),
            NameChange::Rename { to, .. } => parent(to),
        }
    }

    /// Takes this change along with a later one of a directory above it, which became durable first; whether there is
    /// still anything to it.
    pub fn follow(&mut self, later: &NameChange) -> bool {
        match later {
            NameChange::Put { .. } => true,
            NameChange::Remove { path } => !self.directory().starts_with(path),
            NameChange::Rename { from, to } => {
                for path in self.paths_mut() {
                    if let Ok(rest) = path.strip_prefix(from)
                        && !rest.as_os_str().is_empty()
                    {
                        *path = to.join(rest);
                    }
                }
                true
            }
        }
    }

    fn paths_mut(&mut self) -> Vec<&mut PathBuf> {
        match self {
            NameChange::Put { path, .. } | NameChange::Remove { path } => vec![path],
            NameChange::Rename { from, to } => vec![from, to],
        }
    }

    pub fn apply(&self, names: &mut Names) {
        match self {
            NameChange::Put { path, node } => {
                let has_parent = matches!(names.get(&parent(path)), Some(Node::Directory));
                if has_parent || path.parent().is_none_or(|parent| parent.parent().is_none()) {
                    names.insert(path.clone(), node.clone());
                }
            }
            NameChange::Remove { path } => names.retain(|name, _| !name.starts_with(path)),
            NameChange::Rename { from, to } => {
                let moved: Vec<_> = names.keys().filter(|name| name.starts_with(from)).cloned().collect();
                if !moved.is_empty() {
                    names.retain(|name, _| !name.starts_with(to));
                }
                for name in moved {
                    if let (Some(node), Ok(rest)) = (names.remove(&name), name.strip_prefix(from)) {
                        let target = if rest.as_os_str().is_empty() { to.clone() } else { to.join(rest) };
                        names.insert(target, node);
                    }
                }
            }
        }
    }
}

/// The names that a power cut leaves of those that were `durable` and what was changed since.
pub(super) fn after_power_cut(durable: &Names, changes: &[NameChange], unsynced: Unsynced, dice: &mut Dice) -> Names {
    let mut names = durable.clone();
    let mut lost = BTreeSet::new();
    for change in changes {
        let ends_here = match unsynced {
            Unsynced::Kept => false,
            Unsynced::Lost => true,
            Unsynced::Torn | Unsynced::Zeroed | Unsynced::Reordered => dice.below(2) == 0,
        };
        if ends_here {
            lost.insert(change.directory());
        }
        if !lost.contains(&change.directory()) {
            change.apply(&mut names);
        }
    }
    names
}
