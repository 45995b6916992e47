//! The metadata tree in one local file, for a cluster of one node and for tests.
//!
//! The file is a redb database; every write is on disk before it is answered, and a multi is one transaction. Writes that
//! were given together share one: the tree's user gives what it can at once, and the disk is waited for once. If one of
//! them is refused, nothing of that transaction stays and each is done alone. Tables:
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
//! it starts at open and never expires. Watches and events live in memory. Whoever polls the tree waits for its disk:
//! the control thread, which serves nobody else.

#![forbid(unsafe_code)]

mod tables;

use std::cell::{Ref, RefCell};
use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::task::{Context, Poll, Waker};

use redb::{Builder, Database, ReadableDatabase};
use thiserror::Error;

use super::tree::watches::Watches;
use super::tree::{
    Generation, MetadataTree, Operation, Outcome, Reply, Request, RequestError, RequestId, TreeError, TreeEvent,
    TreeOutput,
};
use tables::{Head, META, NODES, Tables, begin_session, decode, key_of, storage, write};

/// The tree's file in the data directory; Kafka ignores plain files that are not its own.
pub const FILE_NAME: &str = "ringlog-metadata.redb";

/// The only format of the tables that this code reads and writes.
const FORMAT: i64 = 1;

/// Memory for cached pages, in bytes; redb's default is 1 GiB.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

/// Requests that share one transaction at most: what one that is refused makes be done again.
const WRITES_TOGETHER_MAX: usize = 64;

/// The only session of a process.
const GENERATION: Generation = Generation(1);

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
    file: TreeFile,
    state: RefCell<State>,
}

/// What is under way.
#[derive(Default)]
struct State {
    waiting: VecDeque<(RequestId, Option<Generation>, Request)>,
    outputs: VecDeque<TreeOutput>,
    watches: Watches,
    waker: Option<Waker>,
}

struct TreeFile {
    /// `None` after a write that found no room, until the file is opened again.
    database: RefCell<Option<Database>>,
    /// `None`: it is in memory.
    path: Option<PathBuf>,
    session: i64,
}

/// What a transaction will have done once it is committed.
struct Staged {
    zxid: i64,
    /// By request.
    done: Vec<(Vec<Outcome>, Vec<TreeEvent>)>,
}

/// Nothing of a transaction stays.
struct Undone {
    error: RequestError,
    /// One request was refused, so that the others may do better alone.
    is_refusal: bool,
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
        tree.file.apply(&[operations]).map_err(|undone| failed(undone.error.to_string()))?;
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

    /// What the next process finds if this one ends now: the same nodes without its ephemerals, no watches, and nothing
    /// of what was not answered.
    pub fn reopen(self) -> Result<EmbeddedTree, OpenError> {
        let database = self.file.database.into_inner();
        let database = database.ok_or_else(|| OpenError::Storage("there was no room".to_owned()))?;
        EmbeddedTree::over(database, self.file.path)
    }

    fn over(database: Database, path: Option<PathBuf>) -> Result<EmbeddedTree, OpenError> {
        let failed = |error: TreeError| OpenError::Storage(error.to_string());
        let transaction = write(&database).map_err(failed)?;
        let session = begin_session(&transaction)?;
        transaction.commit().map_err(|error| OpenError::Storage(error.to_string()))?;
        let file = TreeFile { database: RefCell::new(Some(database)), path, session };
        Ok(EmbeddedTree { file, state: RefCell::default() })
    }

    /// Does what waits up to the first output.
    fn perform(&self, state: &mut State) {
        while state.outputs.is_empty()
            && let Some((_, generation, request)) = state.waiting.front()
        {
            if generation.is_some_and(|generation| generation != GENERATION) {
                let (id, ..) = state.waiting.pop_front().expect("just seen");
                state.answer(id, Err(RequestError::of_request(TreeError::SessionExpired)));
            } else if request.is_write() {
                self.write(state);
            } else {
                let (id, _, request) = state.waiting.pop_front().expect("just seen");
                let result = self.file.read(&request);
                state.watches.leave(&request, result.is_ok());
                state.answer(id, result.map_err(RequestError::of_request));
            }
        }
    }

    /// Does the writes that wait before the next read, in one transaction if all of them can be done.
    fn write(&self, state: &mut State) {
        let together = |(_, generation, request): &&(_, Option<Generation>, Request)| {
            generation.is_none_or(|generation| generation == GENERATION) && request.is_write()
        };
        let count = state.waiting.iter().take(WRITES_TOGETHER_MAX).take_while(together).count();
        let requests: Vec<_> = state.waiting.drain(..count).map(|(id, _, request)| (id, request)).collect();
        let operations: Vec<_> = requests.iter().filter_map(|(_, request)| request.operations()).collect();
        let operations: Vec<&[Operation]> = operations.iter().map(|operations| &**operations).collect();
        match self.file.apply(&operations) {
            Ok(done) => {
                requests.into_iter().zip(done).for_each(|((id, request), done)| state.wrote(id, request, Ok(done)))
            }
            Err(undone) if undone.is_refusal && count > 1 => {
                for ((id, request), operations) in requests.iter().zip(operations) {
                    let done = self.file.apply(&[operations]).map(|mut done| done.remove(0));
                    state.wrote(*id, request.clone(), done.map_err(|undone| undone.error));
                }
            }
            Err(Undone { error, .. }) => {
                requests.into_iter().for_each(|(id, request)| state.wrote(id, request, Err(error.clone())));
            }
        }
    }
}

impl MetadataTree for EmbeddedTree {
    fn submit(&self, id: RequestId, generation: Option<Generation>, request: Request) {
        let mut state = self.state.borrow_mut();
        state.waiting.push_back((id, generation, request));
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    fn poll_output(&self, cx: &mut Context<'_>) -> Poll<TreeOutput> {
        let mut state = self.state.borrow_mut();
        self.perform(&mut state);
        match state.outputs.pop_front() {
            Some(output) => Poll::Ready(output),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn session(&self) -> i64 {
        self.file.session
    }

    fn generation(&self) -> Generation {
        GENERATION
    }
}

impl State {
    fn answer(&mut self, id: RequestId, result: Result<Reply, RequestError>) {
        self.outputs.push_back(TreeOutput::Reply { id, result });
    }

    fn wrote(&mut self, id: RequestId, request: Request, done: Result<(Vec<Outcome>, Vec<TreeEvent>), RequestError>) {
        let result = done.map(|(outcomes, events)| {
            for event in events {
                if self.watches.fire(&event) {
                    self.outputs.push_back(TreeOutput::Event(event));
                }
            }
            outcomes
        });
        let result = match result {
            Ok(outcomes) => Ok(request.reply(outcomes)),
            Err(error) if matches!(request, Request::Multi(_)) => Err(error),
            Err(RequestError { error, .. }) => Err(RequestError::of_request(error)),
        };
        self.answer(id, result);
    }
}

impl TreeFile {
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

    /// One transaction of several requests: all of them or nothing.
    fn apply(&self, requests: &[&[Operation]]) -> Result<Vec<(Vec<Outcome>, Vec<TreeEvent>)>, Undone> {
        let mut staged = None;
        if let Err(Undone { error: RequestError { operation, error }, is_refusal }) =
            self.transact(requests, &mut staged)
        {
            let error = self.explained(error);
            let undone = |operation, error, is_refusal| Undone { error: RequestError { operation, error }, is_refusal };
            let TreeError::NoSpace(reason) = &error else { return Err(undone(operation, error, is_refusal)) };
            tracing::error!(reason, "the metadata tree could not be written");
            self.database.borrow_mut().take();
            // Where the failure was the commit's own, only the file knows whether it happened.
            match staged.as_ref().map(|staged: &Staged| Ok(self.last_zxid()? >= staged.zxid)) {
                Some(Ok(true)) => {}
                None | Some(Ok(false)) => return Err(undone(None, error, false)),
                Some(Err(error)) => return Err(undone(None, self.unknown(error), false)),
            }
        }
        Ok(staged.expect("a transaction that was committed had been staged").done)
    }

    /// The file can't be read again, so nobody knows what became of the last transaction.
    fn unknown(&self, error: TreeError) -> TreeError {
        TreeError::Storage(format!("the outcome of a transaction is unknown: {error}"))
    }

    /// `staged` is set before the transaction is committed.
    fn transact(&self, requests: &[&[Operation]], staged: &mut Option<Staged>) -> Result<(), Undone> {
        let failed = |error: TreeError| Undone { error: RequestError::of_request(error), is_refusal: false };
        let database = self.database().map_err(failed)?;
        let transaction = write(&database).map_err(failed)?;
        {
            let mut tables = Tables::open(&transaction, self.session).map_err(failed)?;
            let (mut zxid, mut done) = (0, Vec::with_capacity(requests.len()));
            for operations in requests {
                zxid = tables.next_zxid().map_err(failed)?;
                let mut outcomes = Vec::with_capacity(operations.len());
                for (index, operation) in operations.iter().enumerate() {
                    // Dropping the transaction undoes what came before.
                    let refused = |error: TreeError| {
                        let is_refusal = !matches!(error, TreeError::NoSpace(_) | TreeError::Storage(_));
                        Undone { error: RequestError { operation: Some(index), error }, is_refusal }
                    };
                    outcomes.push(tables.apply(operation).map_err(refused)?);
                }
                done.push((outcomes, tables.take_events()));
            }
            *staged = Some(Staged { zxid, done });
        }
        transaction.commit().map_err(|error| failed(storage(error)))
    }

    /// The number of the last transaction that was committed.
    fn last_zxid(&self) -> Result<i64, TreeError> {
        let transaction = self.database()?.begin_read().map_err(storage)?;
        let meta = transaction.open_table(META).map_err(storage)?;
        Ok(meta.get("zxid").map_err(storage)?.map_or(0, |value| value.value()))
    }

    fn read(&self, request: &Request) -> Result<Reply, TreeError> {
        match request {
            Request::Get { path, .. } => {
                let (head, data) = self.load(path)?.ok_or_else(|| TreeError::NoNode(path.clone()))?;
                Ok(Reply::Data(data, head.stat))
            }
            Request::Exists { path, .. } => Ok(Reply::Exists(self.load(path)?.map(|(head, _)| head.stat))),
            Request::Children { path, .. } => Ok(Reply::Children(self.list(path)?)),
            Request::Create { .. } | Request::Set { .. } | Request::Delete { .. } | Request::Multi(_) => {
                unreachable!("a write")
            }
        }
    }

    fn load(&self, path: &str) -> Result<Option<(Head, Vec<u8>)>, TreeError> {
        let (parent, name) = key_of(path)?;
        let transaction = self.database()?.begin_read().map_err(storage)?;
        let nodes = transaction.open_table(NODES).map_err(storage)?;
        let Some(value) = nodes.get((parent, name)).map_err(storage)? else { return Ok(None) };
        let (head, data) = decode(path, value.value())?;
        Ok(Some((head, data.to_vec())))
    }

    fn list(&self, path: &str) -> Result<Vec<String>, TreeError> {
        if self.load(path)?.is_none() {
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

#[cfg(test)]
mod tests;
