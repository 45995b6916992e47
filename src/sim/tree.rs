//! A metadata tree that several nodes share: one ensemble, a handle with a session for each, and time between them.
//!
//! ```text
//!   handle:  submit ──> waiting ──(takes time)──> the ensemble does it ──(takes time)──> outputs ──> poll_output
//!                                                        │ events, to every session that watches
//!   Up ──(the connection is lost)──> Down ──(soon)──> Up, under the same session, with the events missed meanwhile
//!                                     └──(longer than the session lives, or it was ended)──> expired, then Up under the next
//! ```
//! A lost connection answers everything under way with `ConnectionLoss`: the ensemble has done some of it, in order, and
//! nobody knows how much. Requests given meanwhile wait for the connection, as ZooKeeper's own client has it. Invariant:
//! what a handle is told comes in one order, and an event stands in it before every reply that shows the change.

#![forbid(unsafe_code)]

mod handle;
mod nodes;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

use self::handle::Handle;
pub use self::handle::SimTree;
#[cfg(test)]
pub(crate) use self::handle::planted;
use self::nodes::Nodes;
use super::network::Latency;
use super::world::World;
use crate::base::time::Monotonic;
use crate::executor::Executor;
use crate::metadata::tree::{
    CreateMode, Operation, Outcome, Reply, Request, RequestError, TreeError, TreeEvent, Version,
};

/// How long a session lives that nobody hears of; Kafka's default.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(18);

/// What goes wrong by itself: of so many requests one takes the connection with it, or the session; 0: none does.
#[derive(Clone, Copy, Debug, Default)]
pub struct TreeFaults {
    pub loses_one_in: usize,
    pub expires_one_in: usize,
}

/// A handle to the ensemble; clones share it.
#[derive(Clone)]
pub struct Ensemble(Rc<Inner>);

struct Inner {
    world: World,
    executor: Executor,
    nodes: RefCell<Nodes>,
    /// Who has which session; one whose process is gone lives on until its time is over.
    sessions: RefCell<BTreeMap<i64, Weak<Handle>>>,
    faults: Cell<TreeFaults>,
    /// What each way takes, to the ensemble and back.
    latency: Latency,
}

impl Ensemble {
    pub fn new(world: &World) -> Ensemble {
        Ensemble(Rc::new(Inner {
            world: world.clone(),
            executor: world.executor(),
            nodes: RefCell::new(Nodes::new()),
            sessions: RefCell::default(),
            faults: Cell::default(),
            latency: Latency::between(Duration::from_micros(100), Duration::from_millis(2)),
        }))
    }

    /// A connection under a session of its own.
    pub fn connect(&self) -> SimTree {
        SimTree::new(Handle::new(self))
    }

    pub fn set_faults(&self, faults: TreeFaults) {
        self.0.faults.set(faults);
    }

    /// The data of a node, as it is now; for what a test wants to see.
    pub fn data(&self, path: &str) -> Option<Vec<u8>> {
        match self.look(Request::Get { path: path.to_owned(), watch: crate::metadata::tree::Watch::None }) {
            Ok(Reply::Data(data, _)) => Some(data),
            _ => None,
        }
    }

    /// The names of a node's children, as they are now.
    pub fn children(&self, path: &str) -> Vec<String> {
        match self.look(Request::Children { path: path.to_owned(), watch: crate::metadata::tree::Watch::None }) {
            Ok(Reply::Children(names)) => names,
            _ => Vec::new(),
        }
    }

    /// Somebody else makes a node.
    pub fn put(&self, path: &str, data: &[u8]) {
        let (path, data) = (path.to_owned(), data.to_vec());
        let made = self.write(&[Operation::Create { path, data, mode: CreateMode::Persistent }], 0);
        assert!(made.is_ok(), "{made:?}");
    }

    fn look(&self, request: Request) -> Result<Reply, TreeError> {
        self.0.nodes.borrow().read(&request)
    }

    fn world(&self) -> &World {
        &self.0.world
    }

    fn now(&self) -> Monotonic {
        self.0.world.now()
    }

    /// How long the next word takes.
    fn takes(&self) -> Duration {
        self.0.latency.draw(&self.0.world)
    }

    fn at(&self, time: Monotonic, what: impl FnOnce() + 'static) {
        let sleep = self.0.world.timers().sleep_until(time);
        self.0.executor.spawn(async move {
            sleep.await;
            what();
        });
    }

    fn begin_session(&self, handle: Weak<Handle>) -> i64 {
        let session = self.0.nodes.borrow_mut().next_zxid();
        self.0.sessions.borrow_mut().insert(session, handle);
        session
    }

    fn has_session(&self, session: i64) -> bool {
        self.0.sessions.borrow().contains_key(&session)
    }

    /// The end of a session: its ephemeral nodes go, and others hear of it.
    fn end_session(&self, session: i64) {
        if self.0.sessions.borrow_mut().remove(&session).is_none() {
            return;
        }
        self.world().note(format!("session {session} ends"));
        let left = self.0.nodes.borrow().ephemerals(session);
        for path in left {
            let deleted = self.write(&[Operation::Delete { path, version: Version::Any }], session);
            assert!(deleted.is_ok(), "an ephemeral node has no children");
        }
    }

    /// Does a write, and tells every session that watches what has changed.
    fn write(&self, operations: &[Operation], session: i64) -> Result<Vec<Outcome>, RequestError> {
        let (outcomes, events) = self.0.nodes.borrow_mut().write(operations, session)?;
        events.iter().for_each(|event| self.tell(event));
        Ok(outcomes)
    }

    fn tell(&self, event: &TreeEvent) {
        let handles: Vec<_> = self.0.sessions.borrow().values().filter_map(Weak::upgrade).collect();
        handles.iter().for_each(|handle| handle.heard(event));
    }
}

#[cfg(test)]
mod tests;
