//! The nodes of a tree in memory: what one server's state is, without sessions' timing or watches.

use std::collections::BTreeMap;

use crate::metadata::tree::{
    CreateMode, Operation, Outcome, Reply, Request, RequestError, Stat, TreeError, TreeEvent, Version, is_path,
    split_path,
};

#[derive(Clone, Debug)]
struct Node {
    data: Vec<u8>,
    stat: Stat,
    /// Children ever made, of whatever kind: the number of the next sequential one.
    next_child: i32,
}

/// See the head of this file.
pub struct Nodes {
    by_path: BTreeMap<String, Node>,
    zxid: i64,
}

/// What one transaction changed: how each node was before, oldest change first.
#[derive(Default)]
struct Changes {
    before: Vec<(String, Option<Node>)>,
    events: Vec<TreeEvent>,
}

impl Nodes {
    pub fn new() -> Nodes {
        let stat = Stat { czxid: 0, version: 0, ephemeral_owner: 0 };
        let root = Node { data: Vec::new(), stat, next_child: 0 };
        Nodes { by_path: BTreeMap::from([("/".to_owned(), root)]), zxid: 0 }
    }

    /// A number that no transaction and no other call has.
    pub fn next_zxid(&mut self) -> i64 {
        self.zxid += 1;
        self.zxid
    }

    pub fn read(&self, request: &Request) -> Result<Reply, TreeError> {
        match request {
            Request::Get { path, .. } => {
                let node = self.existing(path)?;
                Ok(Reply::Data(node.data.clone(), node.stat))
            }
            Request::Exists { path, .. } => Ok(Reply::Exists(self.node(path)?.map(|node| node.stat))),
            Request::Children { path, .. } => {
                self.existing(path)?;
                Ok(Reply::Children(self.children(path).map(|(name, _)| name.to_owned()).collect()))
            }
            Request::Create { .. } | Request::Set { .. } | Request::Delete { .. } | Request::Multi(_) => {
                unreachable!("a write")
            }
        }
    }

    /// One transaction: all of it, with what it makes known, or nothing.
    pub fn write(
        &mut self,
        operations: &[Operation],
        session: i64,
    ) -> Result<(Vec<Outcome>, Vec<TreeEvent>), RequestError> {
        let zxid = self.next_zxid();
        let (mut changes, mut outcomes) = (Changes::default(), Vec::new());
        for (index, operation) in operations.iter().enumerate() {
            match self.apply(operation, session, zxid, &mut changes) {
                Ok(outcome) => outcomes.push(outcome),
                Err(error) => {
                    changes.before.into_iter().rev().for_each(|(path, before)| self.put(path, before));
                    return Err(RequestError { operation: Some(index), error });
                }
            }
        }
        Ok((outcomes, changes.events))
    }

    /// The ephemeral nodes of a session.
    pub fn ephemerals(&self, session: i64) -> Vec<String> {
        let owned = self.by_path.iter().filter(|(_, node)| node.stat.ephemeral_owner == session);
        owned.map(|(path, _)| path.clone()).collect()
    }

    fn apply(
        &mut self,
        operation: &Operation,
        session: i64,
        zxid: i64,
        changes: &mut Changes,
    ) -> Result<Outcome, TreeError> {
        match operation {
            Operation::Create { path, data, mode } => {
                let owner = if *mode == CreateMode::Ephemeral { session } else { 0 };
                let stat = Stat { czxid: zxid, version: 0, ephemeral_owner: owner };
                let made = self.create(path, data, *mode, stat, changes)?;
                Ok(Outcome::Created(made, stat))
            }
            Operation::Set { path, data, version } => {
                let mut node = self.expected(path, *version)?.clone();
                node.data.clone_from(data);
                node.stat.version = node.stat.version.wrapping_add(1);
                let stat = node.stat;
                self.change(path, Some(node), changes);
                changes.events.push(TreeEvent::NodeDataChanged(path.clone()));
                Ok(Outcome::Set(stat))
            }
            Operation::Delete { path, version } => {
                let (parent, _) = split_path(path).ok_or_else(|| TreeError::BadArguments(path.clone()))?;
                self.expected(path, *version)?;
                if self.children(path).next().is_some() {
                    return Err(TreeError::NotEmpty(path.clone()));
                }
                self.change(path, None, changes);
                changes.events.push(TreeEvent::NodeDeleted(path.clone()));
                changes.events.push(TreeEvent::NodeChildrenChanged(parent.to_owned()));
                Ok(Outcome::Deleted)
            }
            Operation::Check { path, version } => self.expected(path, *version).map(|_| Outcome::Checked),
        }
    }

    fn create(
        &mut self,
        path: &str,
        data: &[u8],
        mode: CreateMode,
        stat: Stat,
        changes: &mut Changes,
    ) -> Result<String, TreeError> {
        let (parent_path, _) = split_path(path).ok_or_else(|| TreeError::BadArguments(path.to_owned()))?;
        let mut parent = self.existing(parent_path)?.clone();
        if parent.stat.ephemeral_owner != 0 {
            return Err(TreeError::NoChildrenForEphemerals(parent_path.to_owned()));
        }
        let made = match mode {
            CreateMode::PersistentSequential => format!("{path}{:010}", parent.next_child),
            CreateMode::Persistent | CreateMode::Ephemeral => path.to_owned(),
        };
        if self.node(&made)?.is_some() {
            return Err(TreeError::NodeExists(made));
        }
        parent.next_child = parent.next_child.wrapping_add(1);
        self.change(parent_path, Some(parent), changes);
        self.change(&made, Some(Node { data: data.to_vec(), stat, next_child: 0 }), changes);
        changes.events.push(TreeEvent::NodeCreated(made.clone()));
        changes.events.push(TreeEvent::NodeChildrenChanged(parent_path.to_owned()));
        Ok(made)
    }

    fn node(&self, path: &str) -> Result<Option<&Node>, TreeError> {
        if !is_path(path) {
            return Err(TreeError::BadArguments(format!("'{path}' is no path")));
        }
        Ok(self.by_path.get(path))
    }

    fn existing(&self, path: &str) -> Result<&Node, TreeError> {
        self.node(path)?.ok_or_else(|| TreeError::NoNode(path.to_owned()))
    }

    fn expected(&self, path: &str, version: Version) -> Result<&Node, TreeError> {
        let node = self.existing(path)?;
        match version {
            Version::Exactly(expected) if expected != node.stat.version => Err(TreeError::BadVersion(path.to_owned())),
            Version::Exactly(_) | Version::Any => Ok(node),
        }
    }

    /// Names and nodes right below a path, by name.
    fn children<'n>(&'n self, path: &str) -> impl Iterator<Item = (&'n str, &'n Node)> + use<'n> {
        let below = if path == "/" { "/".to_owned() } else { format!("{path}/") };
        let from = below.clone();
        let within = self.by_path.range(from..).take_while({
            let below = below.clone();
            move |(path, _)| path.starts_with(&below)
        });
        within.filter_map(move |(path, node)| {
            let name = &path[below.len()..];
            (!name.is_empty() && !name.contains('/')).then_some((name, node))
        })
    }

    fn change(&mut self, path: &str, node: Option<Node>, changes: &mut Changes) {
        changes.before.push((path.to_owned(), self.by_path.get(path).cloned()));
        self.put(path.to_owned(), node);
    }

    fn put(&mut self, path: String, node: Option<Node>) {
        match node {
            Some(node) => drop(self.by_path.insert(path, node)),
            None => drop(self.by_path.remove(&path)),
        }
    }
}
