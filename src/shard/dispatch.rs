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
use crate::protocol::{Reader, WireError, Writer};

/// What the log calls the API of a request whose key nobody knows.
const UNKNOWN: &str = "unknown";

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
    fn refuse(&self, header: &RequestHeader<'_>, error: &dyn std::fmt::Display) {
        let context = &self.context;
        context.counters.connections_refused_total.add(1);
        if let Some(left_out) = context.refusals.allow(context.platform.clock().now()) {
            let api_key = header.api_key;
            tracing::info!(api_key, left_out, %error, "closing a connection whose request can't be answered");
        }
    }

    /// Produce: checked and split in connection order, then finished whenever its owners are done.
    async fn produce(&self, header: &RequestHeader<'_>, body: BytesMut, slot: ReplySlot<P>) {
        let plan = match produce::Plan::new(&self.context, &self.order, header, body).await {
            Ok(plan) => plan,
            Err(error) => return self.refuse(header, &error),
        };
        let counters = &self.context.counters;
        counters.requests.passed(slot.passage(), Stage::Planned, self.context.platform.clock().now());
        let (context, router) = (Rc::clone(&self.context), self.router.clone());
        self.context.platform.tasks().spawn(async move {
            match plan.run(&context, &router, slot.passage()).await {
                Some(produce::Outcome::Reply(Ok(frame))) => slot.fill(Reply::bytes(frame)),
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

    /// Everything but Produce.
    async fn answer(
        &self,
        header: &RequestHeader<'_>,
        key: ApiKey,
        listener: &str,
        body: &[u8],
        slot: &ReplySlot<P>,
    ) -> Result<Answer<P>, WireError> {
        let (context, version) = (&*self.context, header.api_version);
        let frame = |version: i16, encode: &dyn Fn(&mut Writer) -> Result<(), WireError>| {
            let mut writer = begin_response(key, version, header.correlation_id);
            encode(&mut writer)?;
            context.counters.requests.answered(key.code(), writer.errors());
            finish_frame(writer).map(|frame| Answer::Reply(Reply::bytes(frame)))
        };
        match key {
            ApiKey::Fetch => {
                let plan = fetch::Plan::new(context, header, body)?;
                context.counters.requests.passed(slot.passage(), Stage::Planned, context.platform.clock().now());
                match plan.run(context, &self.router, listener, slot.passage(), slot.closed()).await {
                    Some(reply) => reply.map(Answer::Reply),
                    None => Ok(Answer::Close),
                }
            }
            ApiKey::ListOffsets => match list_offsets::handle(context, &self.router, body, version).await {
                Some(response) => {
                    let response = response?;
                    frame(version, &|writer| response.encode(writer, version))
                }
                None => Ok(Answer::Close),
            },
            ApiKey::Metadata => {
                let response = metadata::handle(context, listener, body, version).await?;
                frame(version, &|writer| response.encode(writer, version))
            }
            ApiKey::ApiVersions => {
                let (response, version) = api_versions::handle(body, version)?;
                frame(version, &|writer| response.encode(writer, version))
            }
            ApiKey::CreateTopics => {
                let response = create_topics::handle(context, body, version).await?;
                frame(version, &|writer| response.encode(writer, version))
            }
            ApiKey::DeleteTopics => {
                let response = delete_topics::handle(context, body, version).await?;
                frame(version, &|writer| response.encode(writer, version))
            }
            ApiKey::DeleteRecords => match delete_records::handle(context, &self.router, body, version).await {
                Some(response) => {
                    let response = response?;
                    frame(version, &|writer| response.encode(writer, version))
                }
                None => Ok(Answer::Close),
            },
            ApiKey::InitProducerId => {
                let response = init_producer_id::handle(context, body, version).await?;
                frame(version, &|writer| response.encode(writer, version))
            }
            ApiKey::OffsetForLeaderEpoch => {
                match offset_for_leader_epoch::handle(context, &self.router, body, version).await {
                    Some(response) => {
                        let response = response?;
                        frame(version, &|writer| response.encode(writer, version))
                    }
                    None => Ok(Answer::Close),
                }
            }
            ApiKey::DescribeProducers => match describe_producers::handle(context, &self.router, body, version).await {
                Some(response) => {
                    let response = response?;
                    frame(version, &|writer| response.encode(writer, version))
                }
                None => Ok(Answer::Close),
            },
            ApiKey::FindCoordinator => {
                let response = find_coordinator::handle(body, version)?;
                frame(version, &|writer| response.encode(writer, version))
            }
            ApiKey::DescribeConfigs => {
                let response = describe_configs::handle(context, body, version)?;
                frame(version, &|writer| response.encode(writer, version))
            }
            ApiKey::AlterConfigs => {
                let response = alter_configs::handle(context, body, version).await?;
                frame(version, &|writer| response.encode(writer, version))
            }
            ApiKey::IncrementalAlterConfigs => {
                let response = incremental_alter_configs::handle(context, body, version).await?;
                frame(version, &|writer| response.encode(writer, version))
            }
            ApiKey::DescribeLogDirs => match describe_log_dirs::handle(context, &self.router, body, version).await {
                Some(response) => {
                    let response = response?;
                    frame(version, &|writer| response.encode(writer, version))
                }
                None => Ok(Answer::Close),
            },
            ApiKey::CreatePartitions => {
                let response = create_partitions::handle(context, body, version).await?;
                frame(version, &|writer| response.encode(writer, version))
            }
            ApiKey::DescribeCluster => {
                let response = describe_cluster::handle(context, listener, body, version)?;
                frame(version, &|writer| response.encode(writer, version))
            }
            ApiKey::SaslHandshake => {
                let response = sasl::handshake(body, version)?;
                frame(version, &|writer| response.encode(writer, version))
            }
            ApiKey::SaslAuthenticate => {
                let response = sasl::authenticate(body, version)?;
                frame(version, &|writer| response.encode(writer, version))
            }
            // Not advertised, so the gate in `handle` has closed the connection already.
            _ => Ok(Answer::Close),
        }
    }
}

impl<P: Platform> FrameHandler<P> for Dispatcher<P> {
    fn overlaps(&self, frame: &[u8]) -> bool {
        frame.starts_with(&ApiKey::Produce.code().to_be_bytes())
    }

    async fn handle(&self, mut frame: BytesMut, slot: ReplySlot<P>) {
        if self.context.is_stopping() {
            return;
        }
        let mut reader = Reader::new(&frame);
        let header = match RequestHeader::decode(&mut reader) {
            Ok(header) => header,
            Err(error) => {
                let unknown = RequestHeader { api_key: -1, api_version: -1, correlation_id: 0, client_id: None };
                let name = RequestName { api: UNKNOWN, version: -1, correlation_id: 0 };
                return about(slot.set_name(name, None), async { self.refuse(&unknown, &error) }).await;
            }
        };
        let api = ApiKey::from_code(header.api_key).map_or(UNKNOWN, ApiKey::name);
        let name = RequestName { api, version: header.api_version, correlation_id: header.correlation_id };
        let request = slot.set_name(name, header.client_id.as_deref());
        self.context.counters.requests.started(slot.passage(), header.api_key, header.api_version);
        let body_start = reader.position();
        let key = if header.api_key == ApiKey::ApiVersions.code() {
            Some(ApiKey::ApiVersions)
        } else {
            is_advertised(header.api_key, header.api_version)
        };
        match key {
            None => about(request, async { self.refuse(&header, &"this API or version is not served") }).await,
            Some(ApiKey::Produce) => {
                let client_id = header.client_id.map(|id| id.into_owned().into());
                let header = RequestHeader { client_id, ..header };
                frame.advance(body_start);
                about(request, self.produce(&header, frame, slot)).await;
            }
            Some(key) => {
                let listener = slot.listener();
                let answer = async {
                    let answer = self.answer(&header, key, &listener, &frame[body_start..], &slot).await;
                    answer.inspect_err(|error| self.refuse(&header, error))
                };
                // Otherwise the slot's drop closes the connection.
                if let Ok(Answer::Reply(reply)) = about(request, answer).await {
                    slot.fill(reply);
                }
            }
        }
    }
}
