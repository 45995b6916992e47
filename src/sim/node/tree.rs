//! The tree that a node lives on: one of its own, or its session with one that others share.

use std::task::{Context, Poll};

use super::End;
use crate::metadata::embedded::EmbeddedTree;
use crate::metadata::tree::{Generation, MetadataTree, Request, RequestId, TreeOutput};
use crate::sim::tree::{Ensemble, SimTree};

/// What a running node has of its tree.
pub enum NodeTree {
    Own(EmbeddedTree),
    Shared(SimTree, Ensemble),
}

/// What is there of a tree without a process.
pub enum TreeRemains {
    Own(EmbeddedTree),
    Shared(Ensemble),
}

impl TreeRemains {
    /// For a process that starts.
    pub fn connect(self) -> NodeTree {
        match self {
            TreeRemains::Own(tree) => NodeTree::Own(tree),
            TreeRemains::Shared(ensemble) => NodeTree::Shared(ensemble.connect(), ensemble),
        }
    }
}

impl NodeTree {
    /// The process is gone. Only an orderly end ends the session too; else it lives on until its time is over.
    pub fn end(self, how: End) -> TreeRemains {
        match self {
            NodeTree::Own(tree) => TreeRemains::Own(tree.reopen().expect("memory")),
            NodeTree::Shared(tree, ensemble) => {
                match how {
                    End::Stop => tree.close(),
                    End::Kill | End::PowerCut => drop(tree),
                }
                TreeRemains::Shared(ensemble)
            }
        }
    }
}

impl MetadataTree for NodeTree {
    fn submit(&self, id: RequestId, generation: Option<Generation>, request: Request) {
        match self {
            NodeTree::Own(tree) => tree.submit(id, generation, request),
            NodeTree::Shared(tree, _) => tree.submit(id, generation, request),
        }
    }

    fn poll_output(&self, cx: &mut Context<'_>) -> Poll<TreeOutput> {
        match self {
            NodeTree::Own(tree) => tree.poll_output(cx),
            NodeTree::Shared(tree, _) => tree.poll_output(cx),
        }
    }

    fn session(&self) -> i64 {
        match self {
            NodeTree::Own(tree) => tree.session(),
            NodeTree::Shared(tree, _) => tree.session(),
        }
    }

    fn generation(&self) -> Generation {
        match self {
            NodeTree::Own(tree) => tree.generation(),
            NodeTree::Shared(tree, _) => tree.generation(),
        }
    }
}
