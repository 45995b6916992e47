//! A request and the way to its answer: what every handler is given.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;

use super::api::Askers;
use super::produce::order::BatchOrder;
use crate::base::budget::Permit;
use crate::base::class::Class;
use crate::base::ids::BrokerId;
use crate::base::log_request::Requester;
use crate::base::principal::Principal;
use crate::local::Local;
use crate::metrics::{Passage, Stage};
use crate::net::connection::ReplySlot;
use crate::net::reply::{FileOf, Reply};
use crate::platform::{Clock, Platform, Tasks};
use crate::protocol::header::{begin_response, finish_frame};
use crate::protocol::message::Body;
use crate::protocol::{ApiKey, Reader, WireError};

/// Longer requests than this are decoded on a work thread: a million small elements take a tenth of a second.
const DECODED_INLINE_BYTES_MAX: usize = 64 * 1024;

/// What an element of an answer takes in general, of what asked for it.
pub(super) const ANSWER_GROWTH: u64 = 4;

/// Why a request is not answered: its connection is closed instead, as Kafka does.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    #[error(transparent)]
    Malformed(#[from] WireError),
    #[error("too much waits for the work threads")]
    Busy,
    /// acks=0: its client is to look for the leader.
    #[error("a produce that wants no answer failed")]
    Failed,
    #[error("its client is gone")]
    Gone,
    #[error("the process stops")]
    Stopping,
}

impl Unanswered {
    /// Counts and logs what is news to the operator: what the client has sent or lost, not that it is gone.
    pub fn tell<P: Platform>(&self, local: &Local<P>, api_key: ApiKey) {
        match self {
            Unanswered::Malformed(_) | Unanswered::Busy | Unanswered::Failed => refuse(local, api_key.code(), self),
            Unanswered::Gone | Unanswered::Stopping => {}
        }
    }
}

/// Counts and logs a request that is not answered; the drop of its slot closes the connection.
pub fn refuse<P: Platform>(local: &Local<P>, api_key: i16, reason: &dyn Display) {
    local.counters.connections_refused_total.add(1);
    if let Some(left_out) = local.refusals.allow(local.platform.clock().now()) {
        tracing::info!(api_key, left_out, error = %reason, "closing a connection whose request can't be answered");
    }
}

/// A request's header, understood.
#[derive(Clone, Debug)]
pub struct Header {
    pub api_key: ApiKey,
    pub version: i16,
    /// The client's number of this request; the answer repeats it.
    pub correlation_id: i32,
    pub client_id: Option<Rc<str>>,
}

/// Who asks, and how.
pub struct RequestContext {
    pub principal: Principal,
    /// Name of the listener that it came in on.
    pub listener: Arc<str>,
    pub header: Header,
    by: Rc<dyn Requester>,
}

impl RequestContext {
    pub fn new(header: Header, listener: Arc<str>, by: Rc<dyn Requester>) -> RequestContext {
        RequestContext { principal: Principal::Anonymous, listener, header, by }
    }

    /// Address and port of the client.
    pub fn address(&self) -> String {
        self.by.peer()
    }
}

/// What is known of a connection from its requests so far.
#[derive(Default)]
pub struct ConnectionState {
    /// A follower's.
    is_replica: Cell<bool>,
    /// Of its produced batches.
    pub order: Rc<BatchOrder>,
    client_id: RefCell<Option<Rc<str>>>,
}

impl ConnectionState {
    /// Whose work a request is, of an API that these send.
    pub fn class(&self, askers: Askers) -> Class {
        #[cfg(test)]
        if super::produce::planted::HOLD_CREDITS.get() {
            return Class::Client;
        }
        match askers {
            Askers::ClientsAndFollowers if self.is_replica.get() => Class::Replication,
            Askers::Clients | Askers::ClientsAndFollowers => Class::Client,
        }
    }

    /// A request says that it is asked by this replica: from now on the connection is a follower's, if there is such a broker
    /// beside this one. Anybody may name a number, and what followers have is not for anybody to take.
    pub fn asked_by<P: Platform>(&self, local: &Local<P>, replica_id: i32) {
        let id = BrokerId(replica_id);
        if replica_id >= 0 && id != local.config.broker_id && local.image().broker(id).is_some() {
            self.is_replica.set(true);
        }
    }

    /// The client id of a request: nearly always that of the one before.
    pub fn client_id(&self, named: Option<&str>) -> Option<Rc<str>> {
        let mut known = self.client_id.borrow_mut();
        if known.as_deref() != named {
            *known = named.map(Rc::from);
        }
        known.clone()
    }
}

/// One request, from its header to its answer. Dropped unanswered it closes its connection.
pub struct Exchange<P: Platform> {
    pub local: Rc<Local<P>>,
    pub context: RequestContext,
    pub connection: Rc<ConnectionState>,
    /// Of its API.
    askers: Askers,
    body: BytesMut,
    slot: ReplySlot<P>,
}

impl<P: Platform> Exchange<P> {
    /// `askers`: who sends requests of its API; `body`: all that follows the header.
    pub fn new(
        local: Rc<Local<P>>,
        context: RequestContext,
        connection: Rc<ConnectionState>,
        askers: Askers,
        body: BytesMut,
        slot: ReplySlot<P>,
    ) -> Exchange<P> {
        Exchange { local, context, connection, askers, body, slot }
    }

    pub fn version(&self) -> i16 {
        self.context.header.version
    }

    /// Whose work it is, and what it asks of other shards.
    pub fn class(&self) -> Class {
        self.connection.class(self.askers)
    }

    /// The request says that it is asked by this replica.
    pub fn asked_by(&self, replica_id: i32) {
        self.connection.asked_by(&self.local, replica_id);
    }

    /// How far it is.
    pub fn passage(&self) -> &Passage {
        self.slot.passage()
    }

    pub fn passed(&self, stage: Stage) {
        self.local.counters.requests.passed(self.passage(), stage, self.local.platform.clock().now());
    }

    /// Decodes the request, and gives back its frame and its share of the shard's bytes: it may wait for long, and others
    /// need them. Waits until an answer of the usual size may be made.
    pub async fn decode<T: Body + Send + 'static>(&mut self) -> Result<T, Unanswered> {
        self.decode_for(|_, request_bytes| request_bytes * ANSWER_GROWTH).await
    }

    /// The same, with about what the answer takes in memory while it is made, of the bytes of the request: several answers
    /// of this size are made at a time, no more than there is room for.
    pub async fn decode_for<T: Body + Send + 'static>(
        &mut self,
        answer_bytes: impl FnOnce(&Local<P>, u64) -> u64,
    ) -> Result<T, Unanswered> {
        let (body, version) = (self.take_body(), self.version());
        let request_bytes = body.len() as u64;
        let decoded = if body.len() <= DECODED_INLINE_BYTES_MAX {
            decode(body, version)
        } else {
            let decoding = self.local.platform.tasks().work(move || decode(body, version));
            decoding.await.ok_or(Unanswered::Busy)?
        };
        let request = decoded?;
        self.give_back_request_bytes();
        self.claim_answer(answer_bytes(&self.local, request_bytes)).await;
        Ok(request)
    }

    /// Decodes a request that the controller is asked about, and waits until it may be. What the answer takes, as a multiple of
    /// the request's bytes, is held of what such requests may take together, not of what other answers need meanwhile.
    pub async fn decode_to_propose<T: Body + Send + 'static>(
        &mut self,
        growth: u64,
    ) -> Result<(T, Option<Permit>), Unanswered> {
        let answer_bytes = self.body.len() as u64 * growth;
        let request = self.decode_for(|_, _| 0).await?;
        Ok((request, self.local.budgets.proposing(answer_bytes).await))
    }

    /// The request as it came, to be read in place.
    pub fn take_body(&mut self) -> BytesMut {
        std::mem::take(&mut self.body)
    }

    /// The request's frame is gone, or no longer needed.
    pub fn give_back_request_bytes(&self) {
        self.slot.give_back_request_bytes();
    }

    /// Waits until the answer may take so many bytes, which it may turn out not to need, until it is sent.
    pub async fn claim_answer(&mut self, bytes: u64) {
        self.slot.claim_answer(bytes, self.class(), self.local.platform.clock()).await;
    }

    /// Resolves when the peer sends no more: hardly anybody waits for the answer any more. A request waits for this or for
    /// [`Exchange::closed`], one of them at a time.
    pub async fn ended(&self) {
        self.slot.ended().await;
    }

    /// Resolves when the connection is closed, and nobody can take the answer any more.
    pub async fn closed(&self) {
        self.slot.closed().await;
    }

    /// Answers in the request's version.
    pub async fn reply(self, response: &impl Body) -> Result<(), Unanswered> {
        let version = self.version();
        self.reply_in(version, response).await
    }

    /// Answers in another version than the request's.
    pub async fn reply_in(self, version: i16, response: &impl Body) -> Result<(), Unanswered> {
        let Header { api_key, correlation_id, .. } = self.context.header;
        let mut writer = begin_response(api_key, version, correlation_id);
        response.encode(&mut writer, version)?;
        self.local.counters.requests.answered(api_key.code(), writer.errors());
        let frame = finish_frame(writer)?;
        self.send(Reply::bytes(frame)).await;
        Ok(())
    }

    /// Sends an answer that is made.
    pub async fn send(mut self, reply: Reply<FileOf<P>>) {
        self.claim_answer(reply.bytes_held()).await;
        self.slot.fill(reply, self.local.platform.clock());
    }

    /// The request has no answer (acks=0).
    pub fn leave_unanswered(self) {
        let now = self.local.platform.clock().now();
        self.local.counters.requests.done(self.slot.passage(), now);
        self.slot.leave_empty(now);
    }
}

/// Decodes a body, whose memory is free then: nothing of the request refers to it.
fn decode<T: Body>(body: BytesMut, version: i16) -> Result<T, WireError> {
    T::decode(&mut Reader::new(&body), version)
}
