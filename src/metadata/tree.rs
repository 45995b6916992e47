//! The metadata tree: ZooKeeper's own operations and watches, nothing more.
//!
//! Everything above works over [`MetadataTree`] and does not know whether a file or a ZooKeeper ensemble is below. Paths
//! are absolute, `/a/b`, without the chroot. An answer means that the change is durable. Watches are one-shot: a read
//! with [`Watch::Set`] leaves one, its event is queued before any later read shows the change, and whoever wants the
//! next event reads again.

#![forbid(unsafe_code)]

use std::future::Future;
use std::task::{Context, Poll};

use thiserror::Error;

/// The most data one node may hold, in bytes; what Kafka's client accepts in one reply.
pub const NODE_DATA_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The longest path, in bytes. Kafka's longest is a topic's partition state.
pub const PATH_BYTES_MAX: usize = 1024;

/// What is known of a node beside its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The transaction that created the node; larger for every later creation, also of the same path.
    pub czxid: i64,
    /// Data version: 0 at creation, one more with each set.
    pub version: i32,
    /// The session that an ephemeral node belongs to; 0 for persistent ones.
    pub ephemeral_owner: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateMode {
    Persistent,
    /// Goes when the session that made it ends; has no children.
    Ephemeral,
    /// The path is completed by ten digits that grow with each such child of the parent.
    PersistentSequential,
}

/// Which data version a set, delete or check expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Any,
    Exactly(i32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    Set,
    None,
}

/// A write, alone or in a multi.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    Create { path: String, data: Vec<u8>, mode: CreateMode },
    Set { path: String, data: Vec<u8>, version: Version },
    Delete { path: String, version: Version },
    Check { path: String, version: Version },
}

/// The result of the [`Operation`] of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The path made, with its number if it is sequential.
    Created(String, Stat),
    Set(Stat),
    Deleted,
    Checked,
}

/// ZooKeeper's refusals and failures. After the last three it is not known whether the change was made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TreeError {
    #[error("no node {0}")]
    NoNode(String),
    #[error("node {0} exists")]
    NodeExists(String),
    #[error("node {0} has another version")]
    BadVersion(String),
    #[error("node {0} has children")]
    NotEmpty(String),
    #[error("ephemeral node {0} can have no children")]
    NoChildrenForEphemerals(String),
    #[error("bad argument: {0}")]
    BadArguments(String),
    /// Nothing was changed; the text says where there is no room, and what to do.
    #[error("{0}")]
    NoSpace(String),
    #[error("connection to the metadata tree lost")]
    ConnectionLoss,
    #[error("session of the metadata tree expired")]
    SessionExpired,
    /// The file below the embedded tree failed; final for this process.
    #[error("metadata file: {0}")]
    Storage(String),
}

/// Why a multi changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("operation {index} of a transaction: {error}")]
pub struct MultiError {
    /// The operation that was refused; 0 if the failure belongs to none.
    pub index: usize,
    pub error: TreeError,
}

/// What a watch or the session has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TreeEvent {
    NodeCreated(String),
    NodeDeleted(String),
    NodeDataChanged(String),
    NodeChildrenChanged(String),
    Session(SessionState),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    Connected,
    Disconnected,
    /// Ephemeral nodes are gone and watches void; the tree goes on under a new session.
    Expired,
}

pub trait MetadataTree: 'static {
    /// # Errors
    /// `NodeExists`; `NoNode` without parent; `NoChildrenForEphemerals`.
    fn create(
        &self,
        path: &str,
        data: &[u8],
        mode: CreateMode,
    ) -> impl Future<Output = Result<(String, Stat), TreeError>>;

    /// # Errors
    /// `NoNode`: then no watch is left.
    fn get(&self, path: &str, watch: Watch) -> impl Future<Output = Result<(Vec<u8>, Stat), TreeError>>;

    /// Whether there is a node; its watch also waits for the creation.
    fn exists(&self, path: &str, watch: Watch) -> impl Future<Output = Result<Option<Stat>, TreeError>>;

    /// # Errors
    /// `NoNode`, `BadVersion`.
    fn set(&self, path: &str, data: &[u8], version: Version) -> impl Future<Output = Result<Stat, TreeError>>;

    /// # Errors
    /// `NoNode`, `BadVersion`, `NotEmpty`.
    fn delete(&self, path: &str, version: Version) -> impl Future<Output = Result<(), TreeError>>;

    /// Names of the children, sorted.
    ///
    /// # Errors
    /// `NoNode`: then no watch is left.
    fn children(&self, path: &str, watch: Watch) -> impl Future<Output = Result<Vec<String>, TreeError>>;

    /// All of it or nothing, in order: each operation sees what those before it did.
    fn multi(&self, operations: Vec<Operation>) -> impl Future<Output = Result<Vec<Outcome>, MultiError>>;

    /// The session that ephemeral nodes made now belong to.
    fn session(&self) -> i64;

    /// The next event, in the order in which things happened.
    fn poll_event(&self, cx: &mut Context<'_>) -> Poll<TreeEvent>;
}

/// The parent's path and the name of a path; `None` for `/` and for what is no path.
pub fn split_path(path: &str) -> Option<(&str, &str)> {
    let (parent, name) = path.rsplit_once('/')?;
    if name.is_empty() {
        return None;
    }
    Some((if parent.is_empty() { "/" } else { parent }, name))
}

/// Whether `path` is one ZooKeeper would take: absolute, no empty part, no `.` or `..`, no NUL.
pub fn is_path(path: &str) -> bool {
    if path == "/" {
        return true;
    }
    path.len() <= PATH_BYTES_MAX
        && path.strip_prefix('/').is_some_and(|rest| {
            rest.split('/').all(|part| !part.is_empty() && part != "." && part != ".." && !part.contains('\0'))
        })
}
