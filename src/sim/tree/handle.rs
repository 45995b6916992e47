//! One process's handle to the ensemble: its session, what is under way both ways, and what goes wrong with it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::{Ensemble, SESSION_TIMEOUT, TreeFaults};
use crate::base::time::Monotonic;
use crate::metadata::tree::watches::Watches;
use crate::metadata::tree::{
    Generation, MetadataTree, Request, RequestError, RequestId, SessionState, TreeError, TreeEvent, TreeOutput,
    WRITE_BYTES_MAX,
};

/// Within which time a lost connection is there again, unless the way is cut.
const RECONNECTED_WITHIN: Duration = Duration::from_secs(2);

/// Within which time of a request its connection breaks, if it is one that takes it along: before it is done, or behind it.
const BREAKS_WITHIN: Duration = Duration::from_millis(5);

/// A node's tree.
pub struct SimTree(Rc<Handle>);

impl SimTree {
    pub(super) fn new(handle: Rc<Handle>) -> SimTree {
        SimTree(handle)
    }

    /// The way to the ensemble is cut until it is mended; a session that is not heard of for too long ends.
    pub fn cut(&self) {
        self.0.state.borrow_mut().way = Way::Cut;
        self.0.lose_connection();
    }

    pub fn mend(&self) {
        self.0.state.borrow_mut().way = Way::Open;
        self.0.reconnect_soon();
    }

    /// The connection is lost once.
    pub fn lose_connection(&self) {
        self.0.lose_connection();
    }

    /// The ensemble ends the session; the handle hears of it when it is connected again.
    pub fn expire(&self) {
        self.0.expire();
    }

    /// The process ends in order, and its session with it.
    pub fn close(self) {
        let session = self.0.state.borrow().session;
        self.0.ensemble.end_session(session);
    }
}

impl Drop for SimTree {
    fn drop(&mut self) {
        self.0.leave();
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Connection {
    Up,
    /// Lost; the session lives on for a while.
    Down {
        since: Monotonic,
    },
    /// The session has ended, and the handle is about to be told.
    Expired,
    /// Nobody has the handle any more.
    Gone,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    Cut,
}

struct Asked {
    id: RequestId,
    generation: Option<Generation>,
    request: Request,
    arrives: Monotonic,
}

struct State {
    connection: Connection,
    way: Way,
    session: i64,
    generation: Generation,
    watches: Watches,
    waiting: VecDeque<Asked>,
    /// In the order in which they were said, with the time when each arrives, which never falls.
    outputs: VecDeque<(Monotonic, TreeOutput)>,
    /// What was watched and happened while the connection was down.
    missed: Vec<TreeEvent>,
    waker: Option<Waker>,
    #[cfg(test)]
    late: Vec<TreeEvent>,
}

impl State {
    fn next_is_too_large(&self) -> bool {
        self.waiting.front().is_some_and(|asked| asked.request.write_bytes() > WRITE_BYTES_MAX)
    }
}

/// See [`SimTree`].
pub struct Handle {
    ensemble: Ensemble,
    state: RefCell<State>,
}

impl Handle {
    pub(super) fn new(ensemble: &Ensemble) -> Rc<Handle> {
        let handle = Rc::new(Handle {
            ensemble: ensemble.clone(),
            state: RefCell::new(State {
                connection: Connection::Up,
                way: Way::Open,
                session: 0,
                generation: Generation(0),
                watches: Watches::default(),
                waiting: VecDeque::new(),
                outputs: VecDeque::new(),
                missed: Vec::new(),
                waker: None,
                #[cfg(test)]
                late: Vec::new(),
            }),
        });
        handle.begin_session();
        handle
    }

    fn begin_session(self: &Rc<Handle>) {
        let session = self.ensemble.begin_session(Rc::downgrade(self));
        let mut state = self.state.borrow_mut();
        state.session = session;
        state.generation = Generation(state.generation.0 + 1);
        state.connection = Connection::Up;
        state.watches = Watches::default();
        state.missed.clear();
    }

    fn submit(self: &Rc<Handle>, id: RequestId, generation: Option<Generation>, request: Request) {
        let up = {
            let mut state = self.state.borrow_mut();
            state.waiting.push_back(Asked { id, generation, request, arrives: Monotonic(u64::MAX) });
            state.connection == Connection::Up
        };
        if up {
            self.send_waiting();
        }
        let TreeFaults { loses_one_in, expires_one_in } = self.ensemble.0.faults.get();
        let world = self.ensemble.world();
        let strikes = |one_in: usize| one_in > 0 && world.below(one_in) == 0;
        if strikes(loses_one_in) {
            self.after(BREAKS_WITHIN, Handle::lose_connection);
        }
        if strikes(expires_one_in) {
            self.after(BREAKS_WITHIN, Handle::expire);
        }
    }

    /// Does something at some time within `most`.
    fn after(self: &Rc<Handle>, most: Duration, what: impl FnOnce(&Rc<Handle>) + 'static) {
        let wait = Duration::from_nanos(self.ensemble.world().below(most.as_nanos() as usize) as u64);
        let handle = Rc::clone(self);
        self.ensemble.at(self.ensemble.now() + wait, move || what(&handle));
    }

    /// Puts what was given and not sent on its way, in order.
    fn send_waiting(self: &Rc<Handle>) {
        let now = self.ensemble.now();
        let mut last = now;
        for asked in &mut self.state.borrow_mut().waiting {
            if asked.arrives == Monotonic(u64::MAX) {
                asked.arrives = last.max(now + self.ensemble.takes());
                let handle = Rc::clone(self);
                self.ensemble.at(asked.arrives, move || handle.take_arrived());
            }
            last = asked.arrives;
        }
    }

    /// The ensemble does what has arrived.
    fn take_arrived(self: &Rc<Handle>) {
        let now = self.ensemble.now();
        loop {
            let asked = {
                let mut state = self.state.borrow_mut();
                match state.waiting.front() {
                    Some(asked) if asked.arrives <= now && state.connection == Connection::Up => {}
                    _ => return,
                }
                if state.next_is_too_large() { None } else { state.waiting.pop_front() }
            };
            match asked {
                Some(asked) => self.perform(asked),
                // It closes the connection, and says nothing.
                None => return self.disconnect(),
            }
        }
    }

    fn perform(self: &Rc<Handle>, asked: Asked) {
        let (session, generation) = {
            let state = self.state.borrow();
            (state.session, state.generation)
        };
        let result = if asked.generation.is_some_and(|theirs| theirs != generation) {
            Err(RequestError::of_request(TreeError::SessionExpired))
        } else if let Some(operations) = asked.request.operations() {
            let written = self.ensemble.write(&operations, session);
            written.map(|outcomes| asked.request.reply(outcomes)).map_err(|failed| match asked.request {
                Request::Multi(_) => failed,
                _ => RequestError::of_request(failed.error),
            })
        } else {
            let read = self.ensemble.0.nodes.borrow().read(&asked.request);
            self.state.borrow_mut().watches.leave(&asked.request, read.is_ok());
            read.map_err(RequestError::of_request)
        };
        self.say(TreeOutput::Reply { id: asked.id, result });
        #[cfg(test)]
        {
            let late = std::mem::take(&mut self.state.borrow_mut().late);
            late.into_iter().for_each(|event| self.say(TreeOutput::Event(event)));
        }
    }

    /// Something has changed in the tree.
    pub(super) fn heard(self: &Rc<Handle>, event: &TreeEvent) {
        let connection = {
            let mut state = self.state.borrow_mut();
            if !state.watches.fire(event) {
                return;
            }
            if let Connection::Down { .. } = state.connection {
                state.missed.push(event.clone());
            }
            state.connection
        };
        #[cfg(test)]
        if planted::EVENT_AFTER_THE_REPLY.get() {
            self.state.borrow_mut().late.push(event.clone());
            return;
        }
        if connection == Connection::Up {
            self.say(TreeOutput::Event(event.clone()));
        }
    }

    /// Sends something to the handle, behind all that was sent before.
    fn say(self: &Rc<Handle>, output: TreeOutput) {
        let now = self.ensemble.now();
        let arrives = now + self.ensemble.takes();
        let arrives = self.state.borrow().outputs.back().map_or(arrives, |(last, _)| arrives.max(*last));
        self.say_at(arrives, output);
    }

    fn say_at(self: &Rc<Handle>, arrives: Monotonic, output: TreeOutput) {
        self.state.borrow_mut().outputs.push_back((arrives, output));
        let handle = Rc::clone(self);
        self.ensemble.at(arrives, move || handle.wake_poller());
    }

    fn wake_poller(&self) {
        let waker = self.state.borrow_mut().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lose_connection(self: &Rc<Handle>) {
        if self.state.borrow().connection != Connection::Up {
            return;
        }
        let done = self.ensemble.world().below(self.state.borrow().waiting.len() + 1);
        for _ in 0..done {
            if self.state.borrow().next_is_too_large() {
                break;
            }
            let asked = self.state.borrow_mut().waiting.pop_front();
            if let Some(asked) = asked {
                self.perform(asked);
            }
        }
        self.disconnect();
    }

    /// The connection is gone, with what is under way both ways.
    fn disconnect(self: &Rc<Handle>) {
        let (now, session) = (self.ensemble.now(), self.state.borrow().session);
        self.ensemble.world().note(format!("session {session} has lost its connection"));
        let lost = {
            let mut state = self.state.borrow_mut();
            state.connection = Connection::Down { since: now };
            let arrived = state.outputs.iter().take_while(|(arrives, _)| *arrives <= now).count();
            let mut lost = Vec::new();
            for (_, output) in state.outputs.split_off(arrived) {
                match output {
                    TreeOutput::Reply { id, .. } => lost.push(id),
                    TreeOutput::Event(TreeEvent::Session(_)) => {}
                    TreeOutput::Event(event) => state.missed.push(event),
                }
            }
            lost.extend(state.waiting.drain(..).map(|asked| asked.id));
            lost
        };
        for id in lost {
            let result = Err(RequestError::of_request(TreeError::ConnectionLoss));
            self.say_at(now, TreeOutput::Reply { id, result });
        }
        self.say_at(now, TreeOutput::Event(TreeEvent::Session(SessionState::Disconnected)));
        self.reconnect_soon();
        let handle = Rc::clone(self);
        self.ensemble.at(now + SESSION_TIMEOUT, move || handle.end_if_still_down(session, now));
    }

    fn end_if_still_down(&self, session: i64, since: Monotonic) {
        let connection = self.state.borrow().connection;
        if connection == (Connection::Down { since }) || connection == Connection::Gone {
            self.ensemble.end_session(session);
        }
    }

    fn expire(self: &Rc<Handle>) {
        self.lose_connection();
        let session = self.state.borrow().session;
        self.ensemble.end_session(session);
    }

    fn reconnect_soon(self: &Rc<Handle>) {
        self.after(RECONNECTED_WITHIN, Handle::reconnect);
    }

    fn reconnect(self: &Rc<Handle>) {
        let now = self.ensemble.now();
        let is_alive = {
            let mut state = self.state.borrow_mut();
            if !matches!(state.connection, Connection::Down { .. }) || state.way == Way::Cut {
                return;
            }
            let is_alive = self.ensemble.has_session(state.session);
            state.connection = if is_alive { Connection::Up } else { Connection::Expired };
            is_alive
        };
        if is_alive {
            self.say_at(now, TreeOutput::Event(TreeEvent::Session(SessionState::Connected)));
            let missed = std::mem::take(&mut self.state.borrow_mut().missed);
            missed.into_iter().for_each(|event| self.say(TreeOutput::Event(event)));
            self.send_waiting();
            return;
        }
        let waiting = std::mem::take(&mut self.state.borrow_mut().waiting);
        for Asked { id, .. } in waiting {
            let result = Err(RequestError::of_request(TreeError::SessionExpired));
            self.say_at(now, TreeOutput::Reply { id, result });
        }
        self.say_at(now, TreeOutput::Event(TreeEvent::Session(SessionState::Expired)));
    }

    /// The process is gone without a word: its session lives on until its time is over.
    fn leave(self: &Rc<Handle>) {
        let (now, session) = (self.ensemble.now(), self.state.borrow().session);
        let mut state = self.state.borrow_mut();
        state.connection = Connection::Gone;
        state.waiting.clear();
        state.outputs.clear();
        drop(state);
        let handle = Rc::clone(self);
        self.ensemble.at(now + SESSION_TIMEOUT, move || handle.end_if_still_down(session, now));
    }

    fn poll_output(self: &Rc<Handle>, context: &mut Context<'_>) -> Poll<TreeOutput> {
        let now = self.ensemble.now();
        let output = {
            let mut state = self.state.borrow_mut();
            match state.outputs.front() {
                Some((arrives, _)) if *arrives <= now => state.outputs.pop_front().map(|(_, output)| output),
                Some(_) | None => {
                    state.waker = Some(context.waker().clone());
                    None
                }
            }
        };
        let Some(output) = output else { return Poll::Pending };
        if output == TreeOutput::Event(TreeEvent::Session(SessionState::Expired)) {
            self.begin_session();
            self.say_at(now, TreeOutput::Event(TreeEvent::Session(SessionState::Connected)));
            self.send_waiting();
        }
        Poll::Ready(output)
    }
}

impl MetadataTree for SimTree {
    fn submit(&self, id: RequestId, generation: Option<Generation>, request: Request) {
        self.0.submit(id, generation, request);
    }

    fn poll_output(&self, cx: &mut Context<'_>) -> Poll<TreeOutput> {
        self.0.poll_output(cx)
    }

    fn session(&self) -> i64 {
        self.0.state.borrow().session
    }

    fn generation(&self) -> Generation {
        self.0.state.borrow().generation
    }
}

/// The planted bug that whoever counts on the order of events must notice: one comes behind the reply that shows the
/// change.
#[cfg(test)]
pub(crate) mod planted {
    use std::cell::Cell;

    thread_local! {
        pub(crate) static EVENT_AFTER_THE_REPLY: Cell<bool> = const { Cell::new(false) };
    }
}
