//! A shard put together, the same on the machine and in the simulator: its context, its hops, its standing tasks.

#![forbid(unsafe_code)]

use std::rc::Rc;
use std::sync::Arc;

use async_channel::Receiver;

use super::dispatch::Dispatcher;
use super::mailbox::Mailboxes;
use super::message::Message;
use super::metadata_inputs::{self, LastStops};
use super::router::Router;
use crate::base::budget::Budget;
use crate::base::ids::{Offset, ShardId, TopicPartition};
use crate::config::Config;
use crate::handlers::Context;
use crate::metadata::node::ShardInput;
use crate::metadata::thread::MetadataHandle;
use crate::metrics::ShardCounters;
use crate::net::connection::{self, ConnectionLimits};
use crate::platform::{Platform, Tasks};

/// Bounds of a shard, beside those in `Config`.
#[derive(Clone, Copy, Debug)]
pub struct ShardLimits {
    /// Unanswered requests of one connection (Kafka has one in flight; only Produce overlaps here).
    pub requests_in_flight_max: usize,
    /// Bytes of all requests that are received and unanswered.
    pub request_bytes_max: u64,
}

impl Default for ShardLimits {
    fn default() -> ShardLimits {
        ShardLimits { requests_in_flight_max: 64, request_bytes_max: 128 * 1024 * 1024 }
    }
}

/// What a shard is given at its start.
pub struct ShardParts<P: Platform> {
    pub id: ShardId,
    pub platform: P,
    pub config: Arc<Config>,
    pub metadata: MetadataHandle,
    pub counters: Arc<ShardCounters>,
    pub mailboxes: Mailboxes<Message<P>>,
    pub inputs: Receiver<ShardInput>,
    pub last_stops: Arc<LastStops>,
    pub limits: ShardLimits,
}

pub struct Shard<P: Platform> {
    context: Rc<Context<P>>,
    dispatcher: Dispatcher<P>,
    connection_limits: ConnectionLimits,
    request_bytes: Rc<Budget>,
}

/// Where a partition's log stood when it was closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosedLog {
    pub topic_partition: TopicPartition,
    pub recovery_point: Offset,
    pub log_start_offset: Offset,
    pub high_watermark: Offset,
}

impl<P: Platform> Shard<P> {
    /// Starts the standing tasks: the mailbox, and what the metadata thread says.
    pub fn start(parts: ShardParts<P>) -> Shard<P> {
        let ShardParts { id, platform, config, metadata, counters, mailboxes, inputs, last_stops, limits } = parts;
        let connection_limits = ConnectionLimits {
            frame_bytes_max: config.socket_request_max_bytes as usize,
            requests_in_flight_max: limits.requests_in_flight_max,
        };
        let context = Context::new(id, platform.clone(), config, metadata, counters);
        let router = Router::new(Rc::clone(&context), mailboxes);
        platform.tasks().spawn(router.clone().serve_mailbox());
        platform.tasks().spawn(metadata_inputs::serve(Rc::clone(&context), inputs, last_stops));
        let dispatcher = Dispatcher::new(Rc::clone(&context), router);
        Shard { context, dispatcher, connection_limits, request_bytes: Budget::new(limits.request_bytes_max) }
    }

    pub fn context(&self) -> &Rc<Context<P>> {
        &self.context
    }

    /// Serves a connection in a task of its own.
    pub fn serve(&self, socket: P::Socket) {
        self.context.platform.tasks().spawn(connection::serve(
            self.context.platform.clone(),
            socket,
            self.dispatcher.clone(),
            self.connection_limits,
            Rc::clone(&self.request_bytes),
            Arc::clone(&self.context.counters),
        ));
    }

    /// An orderly stop: requests are refused from now on, every log is flushed and closed. A log that can't be closed
    /// in order is left out, with the reason in the log: it is recovered at the next start.
    pub async fn close(&self) -> Vec<ClosedLog> {
        self.context.stop();
        let mut closed = Vec::new();
        for partition in self.context.all_partitions() {
            let topic_partition = partition.topic_partition.clone();
            let Ok(offsets) = partition.leader_offsets(-1) else { continue };
            let Some(log) = partition.take_log().await else { continue };
            match log.close().await {
                Ok(recovery_point) => closed.push(ClosedLog {
                    topic_partition,
                    recovery_point,
                    log_start_offset: offsets.log_start,
                    high_watermark: recovery_point,
                }),
                Err(error) => {
                    tracing::error!(partition = %topic_partition, %error, "the log was not closed in order");
                }
            }
        }
        closed
    }
}
