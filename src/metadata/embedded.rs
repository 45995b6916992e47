//! The metadata tree in one local file, for a cluster of one node and for tests.
//!
//! The file is a redb database; every write is one transaction that is on disk before it is answered, and a multi is one
//! transaction too. Tables:
//!
//! ```text
//! nodes       (parent path, name) -> czxid i64, version i32, next child number i32, ephemeral owner i64, data
//! ephemerals  path -> ()          what the next open drops
//! meta        "format" -> 1       another value refuses to open
//!             "zxid"   -> the last transaction's number; it grows over restarts, and so do broker epochs
//! ```
//!
//! redb does nothing more with a file once a write of it has failed. If that was for lack of room, the file is opened again
//! when it is next needed, as after a crash: what was committed is there and nothing else.
//!
//! Children of a node are neighbours in the key order, so listing them reads nothing else. The session is the process's:
//! it starts at open and never expires. Watches and events live in memory.

#![forbid(unsafe_code)]

use std::cell::{Ref, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::task::{Context, Poll, Waker};

use redb::{Builder, Database, Durability, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};
use thiserror::Error;

use super::tree::{
    CreateMode, MetadataTree, MultiError, NODE_DATA_BYTES_MAX, Operation, Outcome, Stat, TreeError, TreeEvent, Version,
    Watch, is_path, split_path,
};

const NODES: TableDefinition<(&str, &str), &[u8]> = TableDefinition::new("nodes");
const EPHEMERALS: TableDefinition<&str, ()> = TableDefinition::new("ephemerals");
const META: TableDefinition<&str, i64> = TableDefinition::new("meta");

/// The tree's file in the data directory; Kafka ignores plain files that are not its own.
pub const FILE_NAME: &str = "ringlog-metadata.redb";

/// The only format of the tables that this code reads and writes.
const FORMAT: i64 = 1;

/// Memory for cached pages, in bytes; redb's default is 1 GiB.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of a node's value before its data.
const HEAD_BYTES: usize = 24;

/// Why the file could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error("another process has the metadata file open")]
    Locked,
    #[error("the metadata file has format {found}, this version reads {FORMAT}")]
    Format { found: i64 },
    #[error("metadata file: {0}")]
    Storage(String),
}

pub struct EmbeddedTree {
    /// `None` after a write that found no room, until the file is opened again.
    database: RefCell<Option<Database>>,
    /// `None`: it is in memory.
    path: Option<PathBuf>,
    session: i64,
    watches: RefCell<Watches>,
}

/// What a transaction will have done once it is committed.
struct Staged {
    zxid: i64,
    outcomes: Vec<Outcome>,
    events: Vec<TreeEvent>,
}

/// One-shot watches by path, and the events not yet taken.
#[derive(Default)]
struct Watches {
    data: BTreeSet<String>,
    children: BTreeSet<String>,
    events: VecDeque<TreeEvent>,
    waker: Option<Waker>,
}

/// A node without its data.
#[derive(Clone, Copy)]
struct Head {
    stat: Stat,
    next_child: i32,
}

impl EmbeddedTree {
    /// Opens the tree in `path`, or makes it; ephemeral nodes of the process before are dropped.
    ///
    /// Reads the whole file to check it: a page that changed on disk is an error here, not a surprise later.
    pub fn open(path: &Path) -> Result<EmbeddedTree, OpenError> {
        let database = open_file(path).map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => OpenError::Locked,
            other => OpenError::Storage(format!("{}: {other}", path.display())),
        })?;
        // redb syncs the file; its name in the directory is ours to keep.
        sync_parent(path)?;
        EmbeddedTree::over(database, Some(path.to_owned()))
    }

    /// Makes the tree of `path`, which has none, with what `operations` create: whole or not at all. It grows beside
    /// its place and is renamed, so whatever stops this in between leaves no tree.
    pub fn make(path: &Path, operations: &[Operation]) -> Result<(), OpenError> {
        let failed = |error: String| OpenError::Storage(format!("{}: {error}", path.display()));
        let beside = path.with_extension("redb.tmp");
        match std::fs::remove_file(&beside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error.to_string())),
            _ => {}
        }
        let tree = EmbeddedTree::open(&beside)?;
        tree.apply(operations).map_err(|error| failed(error.to_string()))?;
        drop(tree);
        std::fs::rename(&beside, path).map_err(|error| failed(error.to_string()))?;
        sync_parent(path)
    }

    /// A tree that is gone with the value: for tests and simulation.
    pub fn in_memory() -> Result<EmbeddedTree, OpenError> {
        let database = Builder::new()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(redb::backends::InMemoryBackend::new())
            .map_err(|error| OpenError::Storage(error.to_string()))?;
        EmbeddedTree::over(database, None)
    }

    /// What the next process finds if this one ends now: the same nodes without its ephemerals, no watches.
    pub fn reopen(self) -> Result<EmbeddedTree, OpenError> {
        let database = self.database.into_inner();
        let database = database.ok_or_else(|| OpenError::Storage("there was no room".to_owned()))?;
        EmbeddedTree::over(database, self.path)
    }

    fn over(database: Database, path: Option<PathBuf>) -> Result<EmbeddedTree, OpenError> {
        let failed = |error: TreeError| OpenError::Storage(error.to_string());
        let transaction = write(&database).map_err(failed)?;
        let session = begin_session(&transaction)?;
        transaction.commit().map_err(|error| OpenError::Storage(error.to_string()))?;
        Ok(EmbeddedTree { database: RefCell::new(Some(database)), path, session, watches: RefCell::default() })
    }

    /// The database; opened again if a write has failed before.
    fn database(&self) -> Result<Ref<'_, Database>, TreeError> {
        if self.database.borrow().is_none()
            && let Some(path) = &self.path
        {
            let database = open_file(path).map_err(|error| self.explained(storage(error)))?;
            tracing::info!(file = %path.display(), "the metadata tree is open again");
            *self.database.borrow_mut() = Some(database);
        }
        Ref::filter_map(self.database.borrow(), Option::as_ref)
            .map_err(|_| TreeError::Storage("a write has failed in memory".to_owned()))
    }

    /// Says of a full disk which one, and what to do.
    fn explained(&self, error: TreeError) -> TreeError {
        match (error, self.path.as_deref().and_then(Path::parent)) {
            (TreeError::NoSpace(reason), Some(directory)) => TreeError::NoSpace(format!(
                "there is no room for it in {} ({reason}): free space on that file system and try again",
                directory.display()
            )),
            (error, _) => error,
        }
    }

    fn apply(&self, operations: &[Operation]) -> Result<Vec<Outcome>, MultiError> {
        let mut staged = None;
        if let Err(MultiError { index, error }) = self.transact(operations, &mut staged) {
            let error = self.explained(error);
            let TreeError::NoSpace(reason) = &error else { return Err(MultiError { index, error }) };
            tracing::error!(reason, "the metadata tree could not be written");
            self.database.borrow_mut().take();
            // Where the failure was the commit's own, only the file knows whether it happened.
            match staged.as_ref().map(|staged: &Staged| Ok(self.last_zxid()? >= staged.zxid)) {
                Some(Ok(true)) => {}
                None | Some(Ok(false)) => return Err(MultiError { index: 0, error }),
                Some(Err(error)) => return Err(MultiError { index: 0, error: self.unknown(error) }),
            }
        }
        let Staged { outcomes, events, .. } = staged.expect("a transaction that was committed had been staged");
        self.watches.borrow_mut().fire(events);
        Ok(outcomes)
    }

    /// The file can't be read again, so nobody knows what became of the last transaction.
    fn unknown(&self, error: TreeError) -> TreeError {
        TreeError::Storage(format!("the outcome of a transaction is unknown: {error}"))
    }

    /// One transaction; `staged` is set before it is committed.
    fn transact(&self, operations: &[Operation], staged: &mut Option<Staged>) -> Result<(), MultiError> {
        let failed = |error: TreeError| MultiError { index: 0, error };
        let database = self.database().map_err(failed)?;
        let transaction = write(&database).map_err(failed)?;
        {
            let mut tables = Tables::open(&transaction, self.session).map_err(failed)?;
            let mut outcomes = Vec::with_capacity(operations.len());
            for (index, operation) in operations.iter().enumerate() {
                // Dropping the transaction undoes what came before.
                outcomes.push(tables.apply(operation).map_err(|error| MultiError { index, error })?);
            }
            *staged = Some(Staged { zxid: tables.zxid, outcomes, events: tables.events });
        }
        transaction.commit().map_err(|error| failed(storage(error)))
    }

    /// The number of the last transaction that was committed.
    fn last_zxid(&self) -> Result<i64, TreeError> {
        let transaction = self.database()?.begin_read().map_err(storage)?;
        let meta = transaction.open_table(META).map_err(storage)?;
        Ok(meta.get("zxid").map_err(storage)?.map_or(0, |value| value.value()))
    }

    fn apply_one(&self, operation: Operation) -> Result<Outcome, TreeError> {
        let mut outcomes = self.apply(std::slice::from_ref(&operation)).map_err(|failed| failed.error)?;
        outcomes.pop().ok_or_else(|| TreeError::Storage("an operation without outcome".into()))
    }

    fn read(&self, path: &str) -> Result<Option<(Head, Vec<u8>)>, TreeError> {
        let (parent, name) = key_of(path)?;
        let transaction = self.database()?.begin_read().map_err(storage)?;
        let nodes = transaction.open_table(NODES).map_err(storage)?;
        let Some(value) = nodes.get((parent, name)).map_err(storage)? else { return Ok(None) };
        let (head, data) = decode(path, value.value())?;
        Ok(Some((head, data.to_vec())))
    }

    fn list(&self, path: &str) -> Result<Vec<String>, TreeError> {
        if self.read(path)?.is_none() {
            return Err(TreeError::NoNode(path.into()));
        }
        let transaction = self.database()?.begin_read().map_err(storage)?;
        let nodes = transaction.open_table(NODES).map_err(storage)?;
        let mut names = Vec::new();
        for entry in nodes.range((path, "")..).map_err(storage)? {
            let (key, _) = entry.map_err(storage)?;
            let (parent, name) = key.value();
            if parent != path {
                break;
            }
            names.push(name.to_owned());
        }
        Ok(names)
    }
}

impl MetadataTree for EmbeddedTree {
    async fn create(&self, path: &str, data: &[u8], mode: CreateMode) -> Result<(String, Stat), TreeError> {
        match self.apply_one(Operation::Create { path: path.into(), data: data.into(), mode })? {
            Outcome::Created(path, stat) => Ok((path, stat)),
            other => unreachable!("a create answered {other:?}"),
        }
    }

    async fn get(&self, path: &str, watch: Watch) -> Result<(Vec<u8>, Stat), TreeError> {
        let (head, data) = self.read(path)?.ok_or_else(|| TreeError::NoNode(path.into()))?;
        if watch == Watch::Set {
            self.watches.borrow_mut().data.insert(path.into());
        }
        Ok((data, head.stat))
    }

    async fn exists(&self, path: &str, watch: Watch) -> Result<Option<Stat>, TreeError> {
        let found = self.read(path)?;
        if watch == Watch::Set {
            self.watches.borrow_mut().data.insert(path.into());
        }
        Ok(found.map(|(head, _)| head.stat))
    }

    async fn set(&self, path: &str, data: &[u8], version: Version) -> Result<Stat, TreeError> {
        match self.apply_one(Operation::Set { path: path.into(), data: data.into(), version })? {
            Outcome::Set(stat) => Ok(stat),
            other => unreachable!("a set answered {other:?}"),
        }
    }

    async fn delete(&self, path: &str, version: Version) -> Result<(), TreeError> {
        self.apply_one(Operation::Delete { path: path.into(), version }).map(|_| ())
    }

    async fn children(&self, path: &str, watch: Watch) -> Result<Vec<String>, TreeError> {
        let names = self.list(path)?;
        if watch == Watch::Set {
            self.watches.borrow_mut().children.insert(path.into());
        }
        Ok(names)
    }

    async fn multi(&self, operations: Vec<Operation>) -> Result<Vec<Outcome>, MultiError> {
        self.apply(&operations)
    }

    fn session(&self) -> i64 {
        self.session
    }

    fn poll_event(&self, cx: &mut Context<'_>) -> Poll<TreeEvent> {
        let mut watches = self.watches.borrow_mut();
        match watches.events.pop_front() {
            Some(event) => Poll::Ready(event),
            None => {
                watches.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Watches {
    fn fire(&mut self, events: Vec<TreeEvent>) {
        for event in events {
            let watched = match &event {
                TreeEvent::NodeChildrenChanged(path) => self.children.remove(path),
                // A child watch on a node that goes is answered by its deletion (ZooKeeper does the same).
                TreeEvent::NodeDeleted(path) => self.data.remove(path) | self.children.remove(path),
                TreeEvent::NodeCreated(path) | TreeEvent::NodeDataChanged(path) => self.data.remove(path),
                TreeEvent::Session(_) => true,
            };
            if watched {
                self.events.push_back(event);
            }
        }
        if !self.events.is_empty()
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
    }
}

/// The tables of one write transaction, and what it will have done once committed.
struct Tables<'t> {
    nodes: Table<'t, (&'static str, &'static str), &'static [u8]>,
    ephemerals: Table<'t, &'static str, ()>,
    session: i64,
    zxid: i64,
    events: Vec<TreeEvent>,
}

impl<'t> Tables<'t> {
    /// Takes the next transaction number.
    fn open(transaction: &'t WriteTransaction, session: i64) -> Result<Tables<'t>, TreeError> {
        let mut meta = transaction.open_table(META).map_err(storage)?;
        let last = meta.get("zxid").map_err(storage)?.map_or(0, |value| value.value());
        let zxid = last + 1;
        meta.insert("zxid", zxid).map_err(storage)?;
        Ok(Tables {
            nodes: transaction.open_table(NODES).map_err(storage)?,
            ephemerals: transaction.open_table(EPHEMERALS).map_err(storage)?,
            session,
            zxid,
            events: Vec::new(),
        })
    }

    fn apply(&mut self, operation: &Operation) -> Result<Outcome, TreeError> {
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

/// Makes the file's name in its directory durable.
fn sync_parent(path: &Path) -> Result<(), OpenError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| OpenError::Storage(format!("{}: {error}", directory.display())))
}

fn open_file(path: &Path) -> Result<Database, redb::DatabaseError> {
    Builder::new().set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true).create(path)
}

fn write(database: &Database) -> Result<WriteTransaction, TreeError> {
    let mut transaction = database.begin_write().map_err(storage)?;
    transaction.set_durability(Durability::Immediate).map_err(storage)?;
    Ok(transaction)
}

/// Checks the format, makes the root, drops the ephemerals of the session before; gives the new session's number.
fn begin_session(transaction: &WriteTransaction) -> Result<i64, OpenError> {
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
fn key_of(path: &str) -> Result<(&str, &str), TreeError> {
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

fn decode<'v>(path: &str, value: &'v [u8]) -> Result<(Head, &'v [u8]), TreeError> {
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

fn storage(error: impl Into<redb::Error>) -> TreeError {
    match error.into() {
        redb::Error::Io(error) if is_no_space(&error) => TreeError::NoSpace(error.to_string()),
        other => TreeError::Storage(other.to_string()),
    }
}

fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests;
