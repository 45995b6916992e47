//! What a process leaves to the next one.

use super::tree::TreeRemains;
use crate::controller::node::StartError;
use crate::metadata::embedded::EmbeddedTree;
use crate::sim::disk::FakeDisk;
use crate::sim::tree::Ensemble;

/// What survives the process.
pub struct Remains {
    pub disk: FakeDisk,
    pub(super) tree: TreeRemains,
    /// What `meta.properties` says.
    pub(super) cluster_id: Option<String>,
}

/// A process that ended before it served, and what it left.
pub struct Refused {
    pub error: StartError,
    pub remains: Remains,
}

impl Remains {
    /// The metadata is lost.
    pub fn without_metadata(self) -> Remains {
        Remains { disk: self.disk, ..Remains::none() }
    }

    /// An empty disk and an empty tree.
    pub fn none() -> Remains {
        let tree = TreeRemains::Own(EmbeddedTree::in_memory().expect("memory"));
        Remains { disk: FakeDisk::new(), tree, cluster_id: None }
    }

    /// An empty disk, and a tree that others share.
    pub fn none_but_tree(tree: &Ensemble) -> Remains {
        Remains { disk: FakeDisk::new(), tree: TreeRemains::Shared(tree.clone()), cluster_id: None }
    }

    /// Somebody starts each process on the tree of the other.
    pub fn swap_trees(&mut self, other: &mut Remains) {
        std::mem::swap(&mut self.tree, &mut other.tree);
    }
}
