//! Requests to the tree, many under way at once; what a lost connection means is decided here and nowhere else.
//!
//! A machine gives a request with a key of its own and gets one result with that key. Of a request whose connection was
//! lost nobody knows whether it was done, so it is given again once there is a connection (Kafka 3.9
//! `KafkaZkClient.retryRequestsUntilConnected`):
//!
//! ```text
//!  read                            -> repeated
//!  write                           -> repeated
//!    the repeat is refused         -> is what the write would have left there? then it was done, else it is refused
//! ```
//! What it would have left is read node by node: data and version of what it makes and sets, no node where it deletes, and
//! this session as the owner of what is ephemeral. So no two writes that are under way may leave the same: one would be
//! taken for the other. A write that leaves nothing to tell it by (a notice alone) may be done twice. An expired session is
//! told to whoever asked: what was decided under it must be decided anew.
//!
//! A write that is more than ZooKeeper takes is refused here: there it would end the connection each time it is repeated. So
//! is what an expired session still had waiting.
//!
//! Invariant: each request has one result, and results of what the tree was given come in the order in which it had them.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, VecDeque};
use std::task::{Context, Poll};
use std::time::Duration;

use super::tree::{
    CreateMode, Generation, MetadataTree, Operation, Outcome, Reply, Request, RequestError, RequestId, SessionState,
    Stat, TreeError, TreeEvent, TreeOutput, Version, WRITE_BYTES_MAX, Watch,
};
use crate::base::time::Monotonic;

/// Requests that the tree has at once; further ones wait their turn.
pub const REQUESTS_UNDER_WAY_MAX: usize = 64;

/// How long a lost request waits where the tree does not say that it is disconnected.
const REPEAT_BACKOFF: Duration = Duration::from_millis(100);

/// A result, or something that the tree has to say.
#[derive(Debug)]
pub enum TreeInput<K> {
    Done { key: K, result: Result<Reply, RequestError> },
    Event(TreeEvent),
}

pub struct Requests<T, K> {
    tree: T,
    connection: Connection,
    next_id: RequestId,
    /// To be given to the tree again, before those that wait.
    again: VecDeque<Asked<K>>,
    /// Not given to the tree yet.
    waiting: VecDeque<Asked<K>>,
    under_way: BTreeMap<RequestId, Asked<K>>,
    /// Refused without asking the tree.
    refused: VecDeque<(K, TreeError)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connection {
    Connected,
    /// Nothing is given to the tree until it says that it is connected.
    Disconnected,
    /// Nothing is given to the tree until then.
    BackingOff(Monotonic),
}

struct Asked<K> {
    key: K,
    generation: Option<Generation>,
    request: Request,
    attempt: Attempt,
}

enum Attempt {
    First,
    Repeated,
    /// The repeat was refused; the nodes that it is about are being read.
    Looking(Looking),
}

struct Looking {
    refusal: RequestError,
    /// What is to be read yet, the next last.
    paths: Vec<(String, Expected)>,
    stats: BTreeMap<String, Stat>,
}

/// What a write leaves of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Expected {
    Gone,
    There { data: Vec<u8>, version: Option<i32>, is_ephemeral: bool },
}

impl<T: MetadataTree, K> Requests<T, K> {
    pub fn new(tree: T) -> Requests<T, K> {
        Requests {
            tree,
            connection: Connection::Connected,
            next_id: 0,
            again: VecDeque::new(),
            waiting: VecDeque::new(),
            under_way: BTreeMap::new(),
            refused: VecDeque::new(),
        }
    }

    pub fn tree(&self) -> &T {
        &self.tree
    }

    pub fn into_tree(self) -> T {
        self.tree
    }

    /// Gives a request; see [`MetadataTree::submit`] for `generation`.
    pub fn ask(&mut self, key: K, generation: Option<Generation>, request: Request) {
        let bytes = request.write_bytes();
        if bytes > WRITE_BYTES_MAX {
            let reason = format!("a write of {bytes} bytes; the metadata tree takes {WRITE_BYTES_MAX}");
            return self.refused.push_back((key, TreeError::BadArguments(reason)));
        }
        self.waiting.push_back(Asked { key, generation, request, attempt: Attempt::First });
        self.submit();
    }

    /// When [`Requests::fire`] has something to do.
    pub fn next_deadline(&self) -> Option<Monotonic> {
        match self.connection {
            Connection::BackingOff(until) => Some(until),
            Connection::Connected | Connection::Disconnected => None,
        }
    }

    /// Goes on with what waited for a time that has come.
    pub fn fire(&mut self, now: Monotonic) {
        if self.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.connection = Connection::Connected;
            self.submit();
        }
    }

    /// The next result or event.
    pub fn poll_next(&mut self, cx: &mut Context<'_>, now: Monotonic) -> Poll<TreeInput<K>> {
        if let Some((key, error)) = self.refused.pop_front() {
            return Poll::Ready(TreeInput::Done { key, result: Err(RequestError::of_request(error)) });
        }
        loop {
            let input = match self.tree.poll_output(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(TreeOutput::Event(event)) => {
                    self.follow_session(&event);
                    Some(TreeInput::Event(event))
                }
                Poll::Ready(TreeOutput::Reply { id, result }) => {
                    let asked = self.under_way.remove(&id).expect("each request has one reply");
                    self.replied(asked, result, now)
                }
            };
            self.submit();
            if let Some(input) = input {
                return Poll::Ready(input);
            }
        }
    }

    fn follow_session(&mut self, event: &TreeEvent) {
        match event {
            TreeEvent::Session(SessionState::Disconnected) => self.connection = Connection::Disconnected,
            TreeEvent::Session(SessionState::Connected) => self.connection = Connection::Connected,
            TreeEvent::Session(SessionState::Expired) => {
                self.connection = Connection::Connected;
                self.refuse_old();
            }
            _ => {}
        }
    }

    /// What is of an older session would be refused by the tree. Where sessions expire faster than it answers, that must not
    /// fill the next one's time.
    fn refuse_old(&mut self) {
        let generation = self.tree.generation();
        let is_old = |asked: &Asked<K>| asked.generation.is_some_and(|theirs| theirs != generation);
        for queue in [&mut self.again, &mut self.waiting] {
            let (old, current): (VecDeque<_>, VecDeque<_>) = queue.drain(..).partition(is_old);
            *queue = current;
            self.refused.extend(old.into_iter().map(|asked| (asked.key, TreeError::SessionExpired)));
        }
    }

    fn submit(&mut self) {
        while self.connection == Connection::Connected
            && self.under_way.len() < REQUESTS_UNDER_WAY_MAX
            && let Some(asked) = self.again.pop_front().or_else(|| self.waiting.pop_front())
        {
            self.next_id += 1;
            let request = match &asked.attempt {
                Attempt::First | Attempt::Repeated => asked.request.clone(),
                Attempt::Looking(looking) => {
                    let (path, _) = looking.paths.last().expect("there is something to look at");
                    Request::Get { path: path.clone(), watch: Watch::None }
                }
            };
            self.tree.submit(self.next_id, asked.generation, request);
            self.under_way.insert(self.next_id, asked);
        }
    }

    /// What follows from a reply: a result, or another try (`None`).
    fn replied(
        &mut self,
        mut asked: Asked<K>,
        result: Result<Reply, RequestError>,
        now: Monotonic,
    ) -> Option<TreeInput<K>> {
        if is_lost(&result) {
            if let Attempt::First = asked.attempt {
                asked.attempt = Attempt::Repeated;
            }
            self.again.push_back(asked);
            if self.connection == Connection::Connected {
                self.connection = Connection::BackingOff(now + REPEAT_BACKOFF);
            }
            return None;
        }
        let result = match (std::mem::replace(&mut asked.attempt, Attempt::First), result) {
            (Attempt::Looking(looking), result) => match looking.look(result, self.tree.session()) {
                Look::On(looking) => {
                    asked.attempt = Attempt::Looking(looking);
                    self.again.push_back(asked);
                    return None;
                }
                Look::Was(stats) => Ok(reply_from(&asked.request, &stats)),
                Look::WasNot(refusal) => Err(refusal),
            },
            (Attempt::Repeated, Err(refusal)) if is_conflict(&refusal.error) => {
                match Looking::at(&asked.request, refusal) {
                    Ok(looking) => {
                        asked.attempt = Attempt::Looking(looking);
                        self.again.push_back(asked);
                        return None;
                    }
                    Err(refusal) => Err(refusal),
                }
            }
            (Attempt::First | Attempt::Repeated, result) => result,
        };
        Some(TreeInput::Done { key: asked.key, result })
    }
}

fn is_lost(result: &Result<Reply, RequestError>) -> bool {
    matches!(result, Err(RequestError { error: TreeError::ConnectionLoss, .. }))
}

/// Whether a write that was done before would be refused like this.
fn is_conflict(error: &TreeError) -> bool {
    matches!(error, TreeError::NodeExists(_) | TreeError::NoNode(_) | TreeError::BadVersion(_))
}

enum Look {
    On(Looking),
    /// It was done, with these nodes.
    Was(BTreeMap<String, Stat>),
    WasNot(RequestError),
}

impl Looking {
    /// # Errors
    /// The refusal: it is a read, or leaves nothing to tell it by.
    fn at(request: &Request, refusal: RequestError) -> Result<Looking, RequestError> {
        let paths: Vec<_> = left_by(&request.operations().unwrap_or_default()).into_iter().collect();
        match paths.is_empty() {
            true => Err(refusal),
            false => Ok(Looking { refusal, paths, stats: BTreeMap::new() }),
        }
    }

    fn look(mut self, result: Result<Reply, RequestError>, session: i64) -> Look {
        let (path, expected) = self.paths.pop().expect("it was looked at");
        #[cfg(test)]
        if planted::ALWAYS_WAS.get() {
            return Look::Was(self.stats);
        }
        match (expected, result) {
            (Expected::Gone, Err(RequestError { error: TreeError::NoNode(_), .. })) => {}
            (Expected::There { data, version, is_ephemeral }, Ok(Reply::Data(found, stat)))
                if data == found
                    && version.is_none_or(|version| version == stat.version)
                    && is_ephemeral == (stat.ephemeral_owner != 0)
                    && (!is_ephemeral || stat.ephemeral_owner == session) =>
            {
                self.stats.insert(path, stat);
            }
            (_, Err(failed)) if !is_conflict(&failed.error) => return Look::WasNot(failed),
            _ => return Look::WasNot(self.refusal),
        }
        match self.paths.is_empty() {
            true => Look::Was(self.stats),
            false => Look::On(self),
        }
    }
}

/// What the operations leave, by path. Sequential nodes are left out: which they are is not known.
fn left_by(operations: &[Operation]) -> BTreeMap<String, Expected> {
    let mut left: BTreeMap<String, Expected> = BTreeMap::new();
    for operation in operations {
        let (path, expected) = match operation {
            Operation::Create { mode: CreateMode::PersistentSequential, .. } | Operation::Check { .. } => continue,
            Operation::Create { path, data, mode } => {
                let is_ephemeral = *mode == CreateMode::Ephemeral;
                (path, Expected::There { data: data.clone(), version: Some(0), is_ephemeral })
            }
            Operation::Set { path, data, version } => {
                let (before, is_ephemeral) = match left.get(path) {
                    Some(Expected::There { version, is_ephemeral, .. }) => (*version, *is_ephemeral),
                    Some(Expected::Gone) | None => (None, false),
                };
                let before = match version {
                    Version::Exactly(version) => Some(*version),
                    Version::Any => before,
                };
                let version = before.map(|version| version.wrapping_add(1));
                (path, Expected::There { data: data.clone(), version, is_ephemeral })
            }
            Operation::Delete { path, .. } => (path, Expected::Gone),
        };
        left.insert(path.clone(), expected);
    }
    left
}

/// The reply to a write that was done unseen; a sequential node's number and stat are not in it.
fn reply_from(request: &Request, stats: &BTreeMap<String, Stat>) -> Reply {
    let unknown = Stat { czxid: 0, version: 0, ephemeral_owner: 0 };
    let stat = |path: &String| stats.get(path).copied().unwrap_or(unknown);
    let outcome = |operation: &Operation| match operation {
        Operation::Create { path, .. } => Outcome::Created(path.clone(), stat(path)),
        Operation::Set { path, .. } => Outcome::Set(stat(path)),
        Operation::Delete { .. } => Outcome::Deleted,
        Operation::Check { .. } => Outcome::Checked,
    };
    request.reply(request.operations().unwrap_or_default().iter().map(outcome).collect())
}

/// The planted bug that the simulator must catch: a write that is refused when it is repeated counts as done before,
/// whatever there is.
#[cfg(test)]
pub(crate) mod planted {
    use std::cell::Cell;

    thread_local! {
        pub(crate) static ALWAYS_WAS: Cell<bool> = const { Cell::new(false) };
    }
}

#[cfg(test)]
mod tests;
