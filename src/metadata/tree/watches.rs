//! The one-shot watches of one session.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use super::{Request, TreeEvent, Watch};

#[derive(Debug, Default)]
pub struct Watches {
    data: BTreeSet<String>,
    children: BTreeSet<String>,
}

impl Watches {
    /// Leaves the watch that a read asks for; `found`: whether its node is there.
    pub fn leave(&mut self, request: &Request, found: bool) {
        match request {
            Request::Exists { path, watch: Watch::Set } => drop(self.data.insert(path.clone())),
            Request::Get { path, watch: Watch::Set } if found => drop(self.data.insert(path.clone())),
            Request::Children { path, watch: Watch::Set } if found => drop(self.children.insert(path.clone())),
            _ => {}
        }
    }

    /// Whether somebody waits for what has happened; its watch is spent then.
    pub fn fire(&mut self, event: &TreeEvent) -> bool {
        match event {
            TreeEvent::NodeChildrenChanged(path) => self.children.remove(path),
            // A child watch on a node that goes is answered by its deletion (ZooKeeper does the same).
            TreeEvent::NodeDeleted(path) => self.data.remove(path) | self.children.remove(path),
            TreeEvent::NodeCreated(path) | TreeEvent::NodeDataChanged(path) => self.data.remove(path),
            TreeEvent::Session(_) => true,
        }
    }
}
