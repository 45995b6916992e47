//! The metadata tree: ZooKeeper's own operations and watches, nothing more.
//!
//! Everything above works over [`MetadataTree`] and does not know whether a file or a ZooKeeper ensemble is below. Paths
//! are absolute, `/a/b`, without the chroot. A request is given and its reply comes later, in one queue with the events:
//!
//! ```text
//!   submit(1), submit(2), ...  ->  tree  ->  Event(a), Reply(1), Event(b), Reply(2), ...
//! ```
//! Requests are done in the order in which they were given, and a reply means that the change is durable. Watches are
//! one-shot: a read with [`Watch::Set`] leaves one when it is answered, its event comes before every reply that shows the
//! change, and whoever wants the next event reads again.
//!
//! What belongs to a session (ephemeral nodes, watches, what was decided while it lasted) goes with it. The tree goes on
//! under the next one by itself; [`Generation`] tells them apart.

#![forbid(unsafe_code)]

#[cfg(test)]
pub mod suite;
pub mod watches;

use std::fmt;
use std::task::{Context, Poll};

use thiserror::Error;

/// The most data one node may hold, in bytes; what Kafka's client accepts in one reply.
pub const NODE_DATA_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The most bytes that one write may have: ZooKeeper's `jute.maxbuffer` as it is without settings. It closes the connection
/// on a larger one, without a word.
pub const WRITE_BYTES_MAX: usize = 0xf_ffff;

/// What an operation of a write takes beside its path and its data, at most.
const OPERATION_BYTES: usize = 64;

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

impl Operation {
    pub fn path(&self) -> &str {
        match self {
            Operation::Create { path, .. }
            | Operation::Set { path, .. }
            | Operation::Delete { path, .. }
            | Operation::Check { path, .. } => path,
        }
    }

    /// What it takes of a write, at most.
    pub fn bytes(&self) -> usize {
        let data = match self {
            Operation::Create { data, .. } | Operation::Set { data, .. } => data.len(),
            Operation::Delete { .. } | Operation::Check { .. } => 0,
        };
        OPERATION_BYTES + self.path().len() + data
    }
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

/// ZooKeeper's refusals and failures. After `ConnectionLoss`, and after `SessionExpired` of a request that was sent, it is
/// not known whether the change was made.
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

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestError {
    /// The operation of a multi that was refused; `None` if the failure belongs to none, or the request is no multi.
    pub operation: Option<usize>,
    pub error: TreeError,
}

impl RequestError {
    /// One that belongs to no operation.
    pub fn of_request(error: TreeError) -> RequestError {
        RequestError { operation: None, error }
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.operation {
            Some(index) => write!(f, "operation {index} of a transaction: {}", self.error),
            None => self.error.fmt(f),
        }
    }
}

impl std::error::Error for RequestError {}

/// Names a request until its reply; given by whoever submits it.
pub type RequestId = u64;

/// Counts the sessions of one tree handle: what was decided under one must not be written under the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(pub u64);

/// What can be asked of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Fails with `NodeExists`; `NoNode` without parent; `NoChildrenForEphemerals`.
    Create { path: String, data: Vec<u8>, mode: CreateMode },
    /// Fails with `NoNode`: then no watch is left.
    Get { path: String, watch: Watch },
    /// Whether there is a node; its watch also waits for the creation.
    Exists { path: String, watch: Watch },
    /// Fails with `NoNode`, `BadVersion`.
    Set { path: String, data: Vec<u8>, version: Version },
    /// Fails with `NoNode`, `BadVersion`, `NotEmpty`.
    Delete { path: String, version: Version },
    /// Fails with `NoNode`: then no watch is left.
    Children { path: String, watch: Watch },
    /// All of it or nothing, in order: each operation sees what those before it did.
    Multi(Vec<Operation>),
}

impl Request {
    /// A read that leaves no watch.
    pub fn get(path: impl Into<String>) -> Request {
        Request::Get { path: path.into(), watch: Watch::None }
    }

    /// What a write does; `None` for a read.
    pub fn operations(&self) -> Option<Vec<Operation>> {
        Some(match self.clone() {
            Request::Create { path, data, mode } => vec![Operation::Create { path, data, mode }],
            Request::Set { path, data, version } => vec![Operation::Set { path, data, version }],
            Request::Delete { path, version } => vec![Operation::Delete { path, version }],
            Request::Multi(operations) => operations,
            Request::Get { .. } | Request::Exists { .. } | Request::Children { .. } => return None,
        })
    }

    /// The bytes of a write, at most; 0 for a read.
    pub fn write_bytes(&self) -> usize {
        let of_one = |path: &str, data: usize| OPERATION_BYTES + path.len() + data;
        match self {
            Request::Create { path, data, .. } | Request::Set { path, data, .. } => of_one(path, data.len()),
            Request::Delete { path, .. } => of_one(path, 0),
            Request::Multi(operations) => operations.iter().map(Operation::bytes).sum(),
            Request::Get { .. } | Request::Exists { .. } | Request::Children { .. } => 0,
        }
    }

    pub fn is_write(&self) -> bool {
        !matches!(self, Request::Get { .. } | Request::Exists { .. } | Request::Children { .. })
    }

    /// The reply to a write whose operations led to `outcomes`.
    ///
    /// # Panics
    /// The outcomes are another request's.
    pub fn reply(&self, mut outcomes: Vec<Outcome>) -> Reply {
        if let Request::Multi(_) = self {
            return Reply::Multi(outcomes);
        }
        match outcomes.pop() {
            Some(Outcome::Created(path, stat)) => Reply::Created(path, stat),
            Some(Outcome::Set(stat)) => Reply::Set(stat),
            Some(Outcome::Deleted) => Reply::Deleted,
            Some(Outcome::Checked) | None => unreachable!("a write alone has one outcome"),
        }
    }
}

/// What the [`Request`] of the same name led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The path made, with its number if it is sequential.
    Created(String, Stat),
    Data(Vec<u8>, Stat),
    Exists(Option<Stat>),
    Set(Stat),
    Deleted,
    /// Names of the children, sorted.
    Children(Vec<String>),
    /// One outcome for each operation.
    Multi(Vec<Outcome>),
}

/// What comes out of a tree, in the order in which it did and saw things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TreeOutput {
    /// Each request has one.
    Reply {
        id: RequestId,
        result: Result<Reply, RequestError>,
    },
    Event(TreeEvent),
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
    /// Gives a request; never waits. With a `generation`, a request of an older session is answered with
    /// `SessionExpired` and never done.
    fn submit(&self, id: RequestId, generation: Option<Generation>, request: Request);

    /// The next reply or event. One task polls.
    fn poll_output(&self, cx: &mut Context<'_>) -> Poll<TreeOutput>;

    /// The session that ephemeral nodes made now belong to.
    fn session(&self) -> i64;

    /// Of that session. It has changed when [`SessionState::Expired`] is polled, and not before.
    fn generation(&self) -> Generation;
}

/// What a get found; `None`: no such node.
///
/// # Panics
/// The result is another request's.
pub fn found(result: Result<Reply, RequestError>) -> Result<Option<(Vec<u8>, Stat)>, TreeError> {
    match result {
        Ok(Reply::Data(data, stat)) => Ok(Some((data, stat))),
        Err(RequestError { error: TreeError::NoNode(_), .. }) => Ok(None),
        Ok(other) => unreachable!("a get was answered with {other:?}"),
        Err(failed) => Err(failed.error),
    }
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
