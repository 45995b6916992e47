//! The tables of the embedded tree's file, and what one transaction does to them.

use std::io;

use redb::{Database, Durability, ReadableTable, Table, TableDefinition, WriteTransaction};

use super::{FORMAT, OpenError};
use crate::metadata::tree::{
    CreateMode, NODE_DATA_BYTES_MAX, Operation, Outcome, Stat, TreeError, TreeEvent, Version, is_path, split_path,
};

pub const NODES: TableDefinition<(&str, &str), &[u8]> = TableDefinition::new("nodes");
pub const EPHEMERALS: TableDefinition<&str, ()> = TableDefinition::new("ephemerals");
pub const META: TableDefinition<&str, i64> = TableDefinition::new("meta");

/// Bytes of a node's value before its data.
const HEAD_BYTES: usize = 24;

/// A node without its data.
#[derive(Clone, Copy)]
pub struct Head {
    pub stat: Stat,
    next_child: i32,
}

/// The tables of one write transaction, and what it will have done once committed.
pub struct Tables<'t> {
    nodes: Table<'t, (&'static str, &'static str), &'static [u8]>,
    ephemerals: Table<'t, &'static str, ()>,
    session: i64,
    /// Of the last request.
    zxid: i64,
    meta: Table<'t, &'static str, i64>,
    events: Vec<TreeEvent>,
}

impl<'t> Tables<'t> {
    pub fn open(transaction: &'t WriteTransaction, session: i64) -> Result<Tables<'t>, TreeError> {
        let meta = transaction.open_table(META).map_err(storage)?;
        let zxid = meta.get("zxid").map_err(storage)?.map_or(0, |value| value.value());
        Ok(Tables {
            nodes: transaction.open_table(NODES).map_err(storage)?,
            ephemerals: transaction.open_table(EPHEMERALS).map_err(storage)?,
            session,
            zxid,
            meta,
            events: Vec::new(),
        })
    }

    /// Takes the next number: what follows is another request's.
    pub fn next_zxid(&mut self) -> Result<i64, TreeError> {
        self.zxid += 1;
        self.meta.insert("zxid", self.zxid).map_err(storage)?;
        Ok(self.zxid)
    }

    /// What has happened since it was last asked for.
    pub fn take_events(&mut self) -> Vec<TreeEvent> {
        std::mem::take(&mut self.events)
    }

    pub fn apply(&mut self, operation: &Operation) -> Result<Outcome, TreeError> {
        match operation {
            Operation::Create { path, data, mode } => self.create(path, data, *mode),
            Operation::Set { path, data, version } => self.set(path, data, *version).map(Outcome::Set),
            Operation::Delete { path, version } => self.delete(path, *version).map(|()| Outcome::Deleted),
            Operation::Check { path, version } => self.expect(path, *version).map(|_| Outcome::Checked),
        }
    }

    fn create(&mut self, path: &str, data: &[u8], mode: CreateMode) -> Result<Outcome, TreeError> {
        let (parent_path, _) = split_path(path).ok_or_else(|| TreeError::BadArguments(path.into()))?;
        let (mut parent, parent_data) =
            self.load(parent_path)?.ok_or_else(|| TreeError::NoNode(parent_path.to_owned()))?;
        if parent.stat.ephemeral_owner != 0 {
            return Err(TreeError::NoChildrenForEphemerals(parent_path.into()));
        }
        let made = match mode {
            CreateMode::PersistentSequential => format!("{path}{:010}", parent.next_child),
            CreateMode::Persistent | CreateMode::Ephemeral => path.to_owned(),
        };
        if self.load(&made)?.is_some() {
            return Err(TreeError::NodeExists(made));
        }
        // ZooKeeper numbers sequential nodes by the count of children ever made, of whatever kind.
        parent.next_child = parent.next_child.wrapping_add(1);
        self.store(parent_path, parent, &parent_data)?;

        let ephemeral_owner = if mode == CreateMode::Ephemeral { self.session } else { 0 };
        let stat = Stat { czxid: self.zxid, version: 0, ephemeral_owner };
        self.store(&made, Head { stat, next_child: 0 }, data)?;
        if mode == CreateMode::Ephemeral {
            self.ephemerals.insert(made.as_str(), ()).map_err(storage)?;
        }
        self.events.push(TreeEvent::NodeCreated(made.clone()));
        self.events.push(TreeEvent::NodeChildrenChanged(parent_path.into()));
        Ok(Outcome::Created(made, stat))
    }

    fn set(&mut self, path: &str, data: &[u8], version: Version) -> Result<Stat, TreeError> {
        let mut head = self.expect(path, version)?;
        head.stat.version = head.stat.version.wrapping_add(1);
        self.store(path, head, data)?;
        self.events.push(TreeEvent::NodeDataChanged(path.into()));
        Ok(head.stat)
    }

    fn delete(&mut self, path: &str, version: Version) -> Result<(), TreeError> {
        let (parent, name) = split_path(path).ok_or_else(|| TreeError::BadArguments(path.into()))?;
        let head = self.expect(path, version)?;
        if self.has_children(path)? {
            return Err(TreeError::NotEmpty(path.into()));
        }
        self.nodes.remove((parent, name)).map_err(storage)?;
        if head.stat.ephemeral_owner != 0 {
            self.ephemerals.remove(path).map_err(storage)?;
        }
        self.events.push(TreeEvent::NodeDeleted(path.into()));
        self.events.push(TreeEvent::NodeChildrenChanged(parent.into()));
        Ok(())
    }

    fn expect(&self, path: &str, version: Version) -> Result<Head, TreeError> {
        let (head, _) = self.load(path)?.ok_or_else(|| TreeError::NoNode(path.into()))?;
        match version {
            Version::Exactly(expected) if expected != head.stat.version => Err(TreeError::BadVersion(path.into())),
            Version::Exactly(_) | Version::Any => Ok(head),
        }
    }

    fn has_children(&self, path: &str) -> Result<bool, TreeError> {
        let mut range = self.nodes.range((path, "")..).map_err(storage)?;
        let Some(first) = range.next() else { return Ok(false) };
        let (key, _) = first.map_err(storage)?;
        Ok(key.value().0 == path)
    }

    fn load(&self, path: &str) -> Result<Option<(Head, Vec<u8>)>, TreeError> {
        let Some(value) = self.nodes.get(key_of(path)?).map_err(storage)? else { return Ok(None) };
        let (head, data) = decode(path, value.value())?;
        Ok(Some((head, data.to_vec())))
    }

    fn store(&mut self, path: &str, head: Head, data: &[u8]) -> Result<(), TreeError> {
        if data.len() > NODE_DATA_BYTES_MAX {
            return Err(TreeError::BadArguments(format!("{path}: {} bytes are too many for a node", data.len())));
        }
        self.nodes.insert(key_of(path)?, encode(head, data).as_slice()).map_err(storage)?;
        Ok(())
    }
}

/// A transaction that is on disk once it is committed.
pub fn write(database: &Database) -> Result<WriteTransaction, TreeError> {
    let mut transaction = database.begin_write().map_err(storage)?;
    transaction.set_durability(Durability::Immediate).map_err(storage)?;
    Ok(transaction)
}

/// Checks the format, makes the root, drops the ephemerals of the session before; gives the new session's number.
pub fn begin_session(transaction: &WriteTransaction) -> Result<i64, OpenError> {
    let failed = |error: String| OpenError::Storage(error);
    {
        let mut meta = transaction.open_table(META).map_err(|error| failed(error.to_string()))?;
        let format = meta.get("format").map_err(|error| failed(error.to_string()))?.map(|value| value.value());
        match format {
            Some(FORMAT) => {}
            Some(found) => return Err(OpenError::Format { found }),
            None => {
                meta.insert("format", FORMAT).map_err(|error| failed(error.to_string()))?;
            }
        }
    }
    let tree_failed = |error: TreeError| OpenError::Storage(error.to_string());
    let mut tables = Tables::open(transaction, 0).map_err(tree_failed)?;
    tables.next_zxid().map_err(tree_failed)?;
    if tables.load("/").map_err(tree_failed)?.is_none() {
        let stat = Stat { czxid: 0, version: 0, ephemeral_owner: 0 };
        tables.store("/", Head { stat, next_child: 0 }, &[]).map_err(tree_failed)?;
    }
    let mut left = Vec::new();
    for entry in tables.ephemerals.iter().map_err(|error| failed(error.to_string()))? {
        let (path, _) = entry.map_err(|error| failed(error.to_string()))?;
        left.push(path.value().to_owned());
    }
    for path in left {
        tables.delete(&path, Version::Any).map_err(tree_failed)?;
    }
    // Transaction numbers are never used twice, so neither are sessions.
    Ok(tables.zxid)
}

/// The table key of a path; the root's is the pair of empty strings.
pub fn key_of(path: &str) -> Result<(&str, &str), TreeError> {
    if !is_path(path) {
        return Err(TreeError::BadArguments(format!("'{path}' is no path")));
    }
    Ok(split_path(path).unwrap_or(("", "")))
}

fn encode(head: Head, data: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(HEAD_BYTES + data.len());
    value.extend_from_slice(&head.stat.czxid.to_be_bytes());
    value.extend_from_slice(&head.stat.version.to_be_bytes());
    value.extend_from_slice(&head.next_child.to_be_bytes());
    value.extend_from_slice(&head.stat.ephemeral_owner.to_be_bytes());
    value.extend_from_slice(data);
    value
}

pub fn decode<'v>(path: &str, value: &'v [u8]) -> Result<(Head, &'v [u8]), TreeError> {
    let parts = || {
        let (czxid, rest) = value.split_first_chunk::<8>()?;
        let (version, rest) = rest.split_first_chunk::<4>()?;
        let (next_child, rest) = rest.split_first_chunk::<4>()?;
        let (owner, data) = rest.split_first_chunk::<8>()?;
        let stat = Stat {
            czxid: i64::from_be_bytes(*czxid),
            version: i32::from_be_bytes(*version),
            ephemeral_owner: i64::from_be_bytes(*owner),
        };
        Some((Head { stat, next_child: i32::from_be_bytes(*next_child) }, data))
    };
    parts().ok_or_else(|| TreeError::Storage(format!("{path}: a node of {} bytes is too short", value.len())))
}

pub fn storage(error: impl Into<redb::Error>) -> TreeError {
    match error.into() {
        redb::Error::Io(error) if is_no_space(&error) => TreeError::NoSpace(error.to_string()),
        other => TreeError::Storage(other.to_string()),
    }
}

fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
