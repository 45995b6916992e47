//! From a frame to its handler: header, version, one match arm.
//!
//! A frame that can't be understood, names an API or a version that is not served, or whose body does not decode, closes
//! the connection without an answer, as Kafka does; ApiVersions alone is answered in every version.

#![forbid(unsafe_code)]

use std::rc::Rc;

use bytes::{Buf, BytesMut};

use super::router::Router;
use crate::base::log_request::{RequestName, about};
use crate::handlers::produce::order::Order;
use crate::handlers::{
    Context, alter_configs, api_versions, create_partitions, create_topics, delete_records, delete_topics,
    describe_cluster, describe_configs, describe_log_dirs, describe_producers, fetch, find_coordinator,
    incremental_alter_configs, init_producer_id, list_offsets, metadata, offset_for_leader_epoch, produce, sasl,
};
use crate::metrics::Stage;
use crate::net::connection::{FrameHandler, ReplySlot};
use crate::net::reply::Reply;
use crate::platform::{Clock, Platform, Tasks};
use crate::protocol::api_key::{ApiKey, is_advertised};
use crate::protocol::header::{RequestHeader, begin_response, finish_frame};
use crate::protocol::message::{
    AlterConfigsRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
    DescribeClusterRequest, DescribeConfigsRequest, DescribeLogDirsRequest, DescribeProducersRequest, FetchRequest,
    FindCoordinatorRequest, IncrementalAlterConfigsRequest, InitProducerIdRequest, ListOffsetsRequest, MetadataRequest,
    OffsetForLeaderEpochRequest, SaslAuthenticateRequest, SaslHandshakeRequest,
};
use crate::protocol::{Reader, WireError, Writer};

/// What the log calls the API of a request whose key nobody knows, and such a key.
const UNKNOWN: &str = "unknown";
const UNKNOWN_KEY: i16 = -1;

/// Longer requests than this are decoded on a work thread: a million small elements take a tenth of a second.
const DECODED_INLINE_BYTES_MAX: usize = 64 * 1024;

/// Understands the frames of one connection of a shard.
pub struct Dispatcher<P: Platform> {
    context: Rc<Context<P>>,
    router: Router<P>,
    /// Of the batches of one connection.
    order: Rc<Order>,
}

impl<P: Platform> Clone for Dispatcher<P> {
    fn clone(&self) -> Dispatcher<P> {
        let order = Rc::clone(&self.order);
        Dispatcher { context: Rc::clone(&self.context), router: self.router.clone(), order }
    }
}

/// What a request comes to.
enum Answer<P: Platform> {
    Reply(Reply<crate::net::reply::FileOf<P>>),
    /// The connection is closed.
    Close,
}

impl<P: Platform> Dispatcher<P> {
    pub fn new(context: Rc<Context<P>>, router: Router<P>) -> Dispatcher<P> {
        Dispatcher { context, router, order: Rc::default() }
    }

    /// One for a further connection.
    pub fn for_connection(&self) -> Dispatcher<P> {
        Dispatcher { order: Rc::default(), ..self.clone() }
    }

    /// Counts and logs a request that can't be answered; the drop of its slot closes the connection.
    fn refuse(&self, api_key: i16, error: &dyn std::fmt::Display) {
        let context = &self.context;
        context.counters.connections_refused_total.add(1);
        if let Some(left_out) = context.refusals.allow(context.platform.clock().now()) {
            tracing::info!(api_key, left_out, %error, "closing a connection whose request can't be answered");
        }
    }

    /// Produce: checked and split in connection order, then finished whenever its owners are done.
    async fn produce(&self, header: &RequestHeader<'_>, body: BytesMut, mut slot: ReplySlot<P>) {
        let plan = match produce::Plan::new(&self.context, &self.order, header, body).await {
            Ok(plan) => plan,
            Err(error) => return self.refuse(header.api_key, &error),
        };
        let counters = &self.context.counters;
        counters.requests.passed(slot.passage(), Stage::Planned, self.context.platform.clock().now());
        let (context, router, listener) = (Rc::clone(&self.context), self.router.clone(), slot.listener());
        self.context.platform.tasks().spawn(async move {
            match plan.run(&context, &router, slot.passage(), &listener).await {
                Some(produce::Outcome::Reply(Ok(frame))) => {
                    slot.claim_answer(frame.len() as u64, context.platform.clock()).await;
                    slot.fill(Reply::bytes(frame));
                }
                Some(produce::Outcome::Silent { failed: false }) => {
                    let now = context.platform.clock().now();
                    context.counters.requests.done(slot.passage(), now);
                    slot.leave_empty(now);
                }
                // The slot's drop closes the connection.
                Some(produce::Outcome::Reply(Err(_)) | produce::Outcome::Silent { failed: true }) | None => {}
            }
        });
    }

    /// Everything but Produce. Once it is decoded, the request's frame and its share of the shard's bytes are given back: it
    /// may wait for long, and others need them.
    async fn answer(&self, asked: Asked, body: BytesMut, slot: &mut ReplySlot<P>) -> Result<Answer<P>, WireError> {
        let (context, router, clock) = (&*self.context, &self.router, self.context.platform.clock());
        let Asked { key, version, .. } = asked;
        let listener = slot.listener();
        let body_bytes = body.len() as u64;
        macro_rules! decoded {
            ($request:ident) => {{
                let Some(request) = self.decode(body, move |reader| $request::decode(reader, version)).await else {
                    return Ok(Answer::Close);
                };
                let request = request?;
                slot.give_back_request_bytes();
                slot.claim_answer(expected_bytes(key, body_bytes, context), clock).await;
                request
            }};
        }
        macro_rules! reply {
            ($response:expr) => {{
                let response = $response;
                self.encode(asked, version, |writer| response.encode(writer, version))
            }};
        }
        // `None`: the process stops.
        macro_rules! reply_if_any {
            ($response:expr) => {
                match $response {
                    Some(response) => reply!(response),
                    None => Ok(Answer::Close),
                }
            };
        }
        match key {
            ApiKey::Fetch => {
                let request = decoded!(FetchRequest);
                let plan = fetch::Plan::new(context, version, asked.correlation_id, request);
                context.counters.requests.passed(slot.passage(), Stage::Planned, clock.now());
                let done = plan.read(context, router, slot.passage(), slot.closed()).await;
                let Some((plan, done)) = done else { return Ok(Answer::Close) };
                slot.claim_answer(plan.answer_bytes(), clock).await;
                match plan.reply(context, &listener, done).await {
                    Some(reply) => reply.map(Answer::Reply),
                    None => Ok(Answer::Close),
                }
            }
            ApiKey::ListOffsets => {
                let request = decoded!(ListOffsetsRequest);
                reply_if_any!(list_offsets::handle(context, router, request, version).await)
            }
            ApiKey::Metadata => {
                let request = decoded!(MetadataRequest);
                let refused = metadata::create_missing(context, &request).await;
                let image = context.image();
                slot.claim_answer(metadata::answer_bytes(&image, &request), clock).await;
                reply!(metadata::reply(&image, &listener, request, version, &refused))
            }
            ApiKey::ApiVersions => {
                let (response, version) = api_versions::handle(&body, version)?;
                self.encode(asked, version, |writer| response.encode(writer, version))
            }
            ApiKey::CreateTopics => {
                let request = decoded!(CreateTopicsRequest);
                reply!(create_topics::handle(context, request).await)
            }
            ApiKey::DeleteTopics => {
                let request = decoded!(DeleteTopicsRequest);
                reply!(delete_topics::handle(context, request, version).await)
            }
            ApiKey::DeleteRecords => {
                let request = decoded!(DeleteRecordsRequest);
                reply_if_any!(delete_records::handle(context, router, request).await)
            }
            ApiKey::InitProducerId => {
                let request = decoded!(InitProducerIdRequest);
                reply!(init_producer_id::handle(context, request).await)
            }
            ApiKey::OffsetForLeaderEpoch => {
                let request = decoded!(OffsetForLeaderEpochRequest);
                reply_if_any!(offset_for_leader_epoch::handle(context, router, request).await)
            }
            ApiKey::DescribeProducers => {
                let request = decoded!(DescribeProducersRequest);
                reply_if_any!(describe_producers::handle(context, router, request).await)
            }
            ApiKey::FindCoordinator => {
                let request = decoded!(FindCoordinatorRequest);
                reply!(find_coordinator::handle(request, version))
            }
            ApiKey::DescribeConfigs => {
                let request = decoded!(DescribeConfigsRequest);
                reply!(describe_configs::handle(context, request))
            }
            ApiKey::AlterConfigs => {
                let request = decoded!(AlterConfigsRequest);
                reply!(alter_configs::handle(context, request).await)
            }
            ApiKey::IncrementalAlterConfigs => {
                let request = decoded!(IncrementalAlterConfigsRequest);
                reply!(incremental_alter_configs::handle(context, request).await)
            }
            ApiKey::DescribeLogDirs => {
                let request = decoded!(DescribeLogDirsRequest);
                reply_if_any!(describe_log_dirs::handle(context, router, request).await)
            }
            ApiKey::CreatePartitions => {
                let request = decoded!(CreatePartitionsRequest);
                reply!(create_partitions::handle(context, request).await)
            }
            ApiKey::DescribeCluster => {
                let request = decoded!(DescribeClusterRequest);
                reply!(describe_cluster::handle(context, &listener, request))
            }
            ApiKey::SaslHandshake => {
                let request = decoded!(SaslHandshakeRequest);
                reply!(sasl::handshake(request))
            }
            ApiKey::SaslAuthenticate => {
                let request = decoded!(SaslAuthenticateRequest);
                reply!(sasl::authenticate(request))
            }
            // Not advertised, so the gate in `handle` has closed the connection already.
            _ => Ok(Answer::Close),
        }
    }

    /// The request in `body`, whose memory goes with it. `None`: the work threads have more to do than they take.
    async fn decode<T: Send + 'static>(
        &self,
        body: BytesMut,
        decode: impl FnOnce(&mut Reader<'_>) -> Result<T, WireError> + Send + 'static,
    ) -> Option<Result<T, WireError>> {
        if body.len() <= DECODED_INLINE_BYTES_MAX {
            return Some(decode(&mut Reader::new(&body)));
        }
        self.context.platform.tasks().work(move || decode(&mut Reader::new(&body))).await
    }

    /// The response frame, in the version that the client is to read it in.
    fn encode(
        &self,
        asked: Asked,
        version: i16,
        write: impl FnOnce(&mut Writer) -> Result<(), WireError>,
    ) -> Result<Answer<P>, WireError> {
        let mut writer = begin_response(asked.key, version, asked.correlation_id);
        write(&mut writer)?;
        self.context.counters.requests.answered(asked.key.code(), writer.errors());
        finish_frame(writer).map(|frame| Answer::Reply(Reply::bytes(frame)))
    }
}

/// A request that is understood so far.
#[derive(Clone, Copy)]
struct Asked {
    key: ApiKey,
    version: i16,
    correlation_id: i32,
}

/// About what the answer takes in memory while it is made, by what it names: several answers of this size are made at a
/// time, no more than there is room for. Those of Fetch and Metadata say themselves.
fn expected_bytes<P: Platform>(key: ApiKey, body_bytes: u64, context: &Context<P>) -> u64 {
    /// An element of an answer in general: four times of what asked for it.
    const GROWTH: u64 = 4;
    /// Of a created topic all settings come back, for a name of a few bytes.
    const CREATED_TOPIC_GROWTH: u64 = 64;
    const DESCRIBED_LOG_BYTES: u64 = 128;
    match key {
        ApiKey::Fetch | ApiKey::Metadata => 0,
        ApiKey::CreateTopics => body_bytes * CREATED_TOPIC_GROWTH,
        ApiKey::DescribeConfigs => describe_configs::answer_bytes(body_bytes),
        ApiKey::DescribeLogDirs => context.image().partition_count() as u64 * DESCRIBED_LOG_BYTES,
        _ => body_bytes * GROWTH,
    }
}

impl<P: Platform> FrameHandler<P> for Dispatcher<P> {
    fn overlaps(&self, frame: &[u8]) -> bool {
        frame.starts_with(&ApiKey::Produce.code().to_be_bytes())
    }

    async fn handle(&self, mut frame: BytesMut, mut slot: ReplySlot<P>) {
        if self.context.is_stopping() {
            return;
        }
        let mut reader = Reader::new(&frame);
        let header = match RequestHeader::decode(&mut reader) {
            Ok(header) => header,
            Err(error) => {
                let name = RequestName { api: UNKNOWN, version: -1, correlation_id: 0 };
                return about(slot.set_name(name, None), async { self.refuse(UNKNOWN_KEY, &error) }).await;
            }
        };
        let (api_key, version, correlation_id) = (header.api_key, header.api_version, header.correlation_id);
        let api = ApiKey::from_code(api_key).map_or(UNKNOWN, ApiKey::name);
        let request = slot.set_name(RequestName { api, version, correlation_id }, header.client_id.as_deref());
        self.context.counters.requests.started(slot.passage(), api_key, version);
        let body_start = reader.position();
        let key = if api_key == ApiKey::ApiVersions.code() {
            Some(ApiKey::ApiVersions)
        } else {
            is_advertised(api_key, version)
        };
        match key {
            None => about(request, async { self.refuse(api_key, &"this API or version is not served") }).await,
            Some(ApiKey::Produce) => {
                let client_id = header.client_id.map(|id| id.into_owned().into());
                let header = RequestHeader { client_id, ..header };
                frame.advance(body_start);
                about(request, self.produce(&header, frame, slot)).await;
            }
            Some(key) => {
                frame.advance(body_start);
                let answer = async {
                    let answer = self.answer(Asked { key, version, correlation_id }, frame, &mut slot).await;
                    answer.inspect_err(|error| self.refuse(api_key, error))
                };
                // Otherwise the slot's drop closes the connection.
                if let Ok(Answer::Reply(reply)) = about(request, answer).await {
                    slot.claim_answer(reply.bytes_held(), self.context.platform.clock()).await;
                    slot.fill(reply);
                }
            }
        }
    }
}
