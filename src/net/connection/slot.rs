//! Where the answer of one request goes.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use super::state::{Connection, Slot};
use crate::base::budget::Permit;
use crate::base::class::Class;
use crate::base::log_request::{self, Request, RequestName, Requester};
use crate::base::time::Monotonic;
use crate::metrics::Passage;
#[cfg(test)]
use crate::net::claims;
use crate::net::claims::{Claim, Peer};
use crate::net::reply::{FileOf, Reply};
use crate::platform::{Clock, Platform, Socket};

/// Answers up to this size are not counted: a connection has at most two that are not sent, besides those of produces.
const ANSWER_UNCOUNTED_BYTES: u64 = 64 * 1024;

/// What became of a request.
pub(super) struct Answer<F> {
    /// `None`: it has none (acks=0).
    pub reply: Option<Reply<F>>,
    pub passage: Passage,
    /// Of the reply's bytes, until they are sent.
    pub claim: Option<Claim>,
}

/// A large answer of a connection on its way out.
struct Outgoing<P: Platform> {
    connection: Rc<Connection<P>>,
    sent_bytes_before: u64,
}

impl<P: Platform> Peer for Outgoing<P> {
    fn moved_bytes(&self) -> u64 {
        self.connection.socket.sent_bytes() - self.sent_bytes_before
    }

    fn close(&self) {
        self.connection.close();
    }
}

/// The place of one request's answer among those of its connection. Dropped unfilled it closes the connection.
pub struct ReplySlot<P: Platform> {
    connection: Rc<Connection<P>>,
    number: u64,
    filled: bool,
    passage: Passage,
    /// Of the request's bytes.
    permit: Cell<Option<Permit>>,
    /// Of the answer's bytes, if they are many.
    claim: Option<Claim>,
}

impl<P: Platform> ReplySlot<P> {
    pub(super) fn new(connection: Rc<Connection<P>>, number: u64, permit: Permit, passage: Passage) -> ReplySlot<P> {
        ReplySlot { connection, number, filled: false, passage, permit: Cell::new(Some(permit)), claim: None }
    }

    /// Answers the request. From now on it is its client's affair that the answer leaves, also where it stands behind others
    /// that are not made yet.
    pub fn fill(mut self, reply: Reply<FileOf<P>>, clock: &impl Clock) {
        if let Some(claim) = &self.claim {
            claim.set(reply.bytes_held());
            claim.is_made(clock.now());
        }
        self.settle(Some(reply));
    }

    /// The request has no answer (acks=0).
    pub fn leave_empty(mut self, now: Monotonic) {
        log_done(&self.passage, &*self.connection, now);
        self.settle(None);
    }

    fn settle(&mut self, reply: Option<Reply<FileOf<P>>>) {
        self.filled = true;
        let answer = Answer { reply, passage: self.passage.clone(), claim: self.claim.take() };
        self.connection.settle(self.number, Slot::Ready(answer));
    }

    /// The request's frame is gone: it was decoded. What the answer needs is held elsewhere.
    pub fn give_back_request_bytes(&self) {
        drop(self.permit.take());
    }

    /// Waits until the answer may take so many bytes, which it may turn out not to need, until it is sent.
    pub async fn claim_answer(&mut self, bytes: u64, class: Class, clock: &impl Clock) {
        if bytes <= ANSWER_UNCOUNTED_BYTES {
            return;
        }
        let connection = &self.connection;
        #[cfg(test)]
        let class = if claims::planted::ONE_FOR_ALL.get() { Class::Client } else { class };
        let claim = self.claim.get_or_insert_with(|| {
            let sent_bytes_before = connection.socket.sent_bytes();
            let peer = Outgoing { connection: Rc::clone(connection), sent_bytes_before };
            connection.outgoing.get(class).begin(None, Rc::new(peer))
        });
        claim.grow_to(bytes, clock).await;
    }

    /// How far the request is.
    pub fn passage(&self) -> &Passage {
        &self.passage
    }

    /// Resolves when the peer sends no more: hardly anybody waits for the answer any more. A request waits for this or for
    /// [`ReplySlot::closed`], one of them at a time.
    pub async fn ended(&self) {
        self.connection.ended(self.number).await;
    }

    /// Resolves when the connection is closed, and nobody can take the answer any more.
    pub async fn closed(&self) {
        self.connection.closed(self.number).await;
    }

    /// It is known what the request calls itself; gives what lines of the log about it say.
    pub fn set_name(&self, name: RequestName, client_id: Option<Rc<str>>) -> Request {
        self.passage.set_name(name);
        *self.connection.client_id.borrow_mut() = client_id;
        Request { name, by: Rc::clone(&self.connection) as _ }
    }

    /// Name of the listener that the request came in on.
    pub fn listener(&self) -> Arc<str> {
        Arc::clone(&self.connection.listener)
    }
}

impl<P: Platform> Drop for ReplySlot<P> {
    fn drop(&mut self) {
        if !self.filled {
            self.connection.settle(self.number, Slot::Refused);
        }
    }
}

/// Logs a finished request, where somebody has asked for that.
pub(super) fn log_done(passage: &Passage, by: &dyn Requester, now: Monotonic) {
    if log_request::is_done_logged()
        && let Some((name, took_us)) = passage.told(now)
    {
        log_request::log_done(&name, by, took_us);
    }
}
