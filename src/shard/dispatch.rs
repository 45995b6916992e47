//! From a frame to its handler: the header, its row in the table of APIs, the call.
//!
//! A frame that can't be understood, names an API or a version that is not served, or whose body does not decode, closes
//! the connection without an answer, as Kafka does; ApiVersions alone is answered in every version.

#![forbid(unsafe_code)]

use std::rc::Rc;

use bytes::{Buf, BytesMut};

use crate::base::class::Class;
use crate::base::log_request::{RequestName, about};
use crate::handlers::api::{Api, Order};
use crate::handlers::exchange::{ConnectionState, Exchange, Header, RequestContext, refuse};
use crate::local::Local;
use crate::net::connection::{FrameHandler, Kind, ReplySlot};
use crate::platform::Platform;
use crate::protocol::ApiKey;
use crate::protocol::Reader;
use crate::protocol::header::RequestHeader;

/// What the log calls the API of a request whose key nobody knows, and such a key.
const UNKNOWN: &str = "unknown";
const UNKNOWN_KEY: i16 = -1;

/// Understands the frames of one connection of a shard.
pub struct Dispatcher<P: Platform> {
    local: Rc<Local<P>>,
    connection: Rc<ConnectionState>,
}

/// A frame whose header was read.
pub enum Request<P: Platform> {
    Understood {
        api: &'static Api<P>,
        header: Header,
        body: BytesMut,
    },
    /// Closes its connection, in its turn.
    Refused {
        name: RequestName,
        api_key: i16,
        client_id: Option<Rc<str>>,
        reason: String,
    },
}

impl<P: Platform> Dispatcher<P> {
    /// For a new connection.
    pub fn new(local: Rc<Local<P>>) -> Dispatcher<P> {
        Dispatcher { local, connection: Rc::default() }
    }

    fn understand(&self, mut frame: BytesMut) -> Request<P> {
        let mut reader = Reader::new(&frame);
        let RequestHeader { api_key, api_version: version, correlation_id, client_id } =
            match RequestHeader::decode(&mut reader) {
                Ok(header) => header,
                Err(error) => {
                    let name = RequestName { api: UNKNOWN, version: -1, correlation_id: 0 };
                    return Request::Refused { name, api_key: UNKNOWN_KEY, client_id: None, reason: error.to_string() };
                }
            };
        let client_id = self.connection.client_id(client_id.as_deref());
        let key = ApiKey::from_code(api_key);
        let Some(api) = key.and_then(|key| Api::of(key, version)) else {
            let name = RequestName { api: key.map_or(UNKNOWN, ApiKey::name), version, correlation_id };
            let reason = "this API or version is not served".to_owned();
            return Request::Refused { name, api_key, client_id, reason };
        };
        let header = Header { api_key: api.served.api_key, version, correlation_id, client_id };
        let body_start = reader.position();
        frame.advance(body_start);
        Request::Understood { api, header, body: frame }
    }
}

impl<P: Platform> FrameHandler<P> for Dispatcher<P> {
    type Request = Request<P>;

    /// By the header's first fields, key and version, and by who is known to ask on this connection.
    fn kind(&self, beginning: &[u8]) -> Kind {
        let mut reader = Reader::new(beginning);
        let api = match (reader.i16(), reader.i16()) {
            (Ok(key), Ok(version)) => ApiKey::from_code(key).and_then(|key| Api::<P>::of(key, version)),
            _ => None,
        };
        match api.map(|api| api.served) {
            Some(served) => {
                Kind { class: self.connection.class(served.askers), overlaps: served.order == Order::Overlaps }
            }
            None => Kind { class: Class::Client, overlaps: false },
        }
    }

    fn read_header(&self, frame: BytesMut) -> Request<P> {
        self.understand(frame)
    }

    async fn handle(&self, request: Request<P>, slot: ReplySlot<P>) {
        if self.local.is_stopping() {
            return;
        }
        let requests = &self.local.counters.requests;
        match request {
            Request::Understood { api, header, body } => {
                let Header { api_key, version, correlation_id, .. } = header;
                let name = RequestName { api: api_key.name(), version, correlation_id };
                let named = slot.set_name(name, header.client_id.clone());
                requests.started(slot.passage(), api_key.code(), version);
                let context = RequestContext::new(header, slot.listener(), Rc::clone(&named.by));
                let (local, connection) = (Rc::clone(&self.local), Rc::clone(&self.connection));
                let exchange = Exchange::new(local, context, connection, api.served.askers, body, slot);
                about(named, async {
                    if let Err(unanswered) = (api.handle)(exchange).await {
                        unanswered.tell(&self.local, api_key);
                    }
                })
                .await;
            }
            Request::Refused { name, api_key, client_id, reason } => {
                let named = slot.set_name(name, client_id);
                if api_key != UNKNOWN_KEY {
                    requests.started(slot.passage(), api_key, name.version);
                }
                about(named, async { refuse(&self.local, api_key, &reason) }).await;
            }
        }
    }
}
