//! Produce (0), versions 0-11.
//!
//! - v0-2 carry message sets of magic 0 and 1, converted to one v2 batch each; v3 on exactly one v2 batch (KIP-98).
//! - v7 allows zstd (KIP-110). v8 adds record errors (KIP-467). v10 names the leader on NOT_LEADER_OR_FOLLOWER
//!   (KIP-951). v11 only allows an error of transactions.
//! - acks 0 has no response frame: if anything failed the connection is closed, so that the client looks for the leader.
//! - Of a partition that is named twice the last batch counts, and one answer is given, as in Kafka.
//! - Transactional batches are refused until there is a transaction coordinator.
//! - Batches whose codec changes, and large ones that are looked into, go to a work thread. What the connection sends
//!   later for the same partition waits for them ([`order`]), nobody else does.
//!
//! ```text
//!  plan:    decode ([`request`]), check each batch where it lies ([`check`]), split by owner
//!  execute: the owners queue the batches at once, and answer when they are written ([`work`]); late ones follow ([`late`])
//!  wait:    acks=all: for the replicas, holding nothing but what the answer needs
//!  reply:   gather and encode
//! ```

mod check;
mod late;
pub mod order;
mod request;
mod work;

use std::ops::Range;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_channel::oneshot;

use super::{Exchange, Handler, Unanswered, errors};
use crate::base::ids::ShardId;
use crate::executor::{both, either};
use crate::local::{by_owner, owner_of};
use crate::metadata::image::{BrokerImage, ClusterImage, PartitionImage};
use crate::metrics::Stage;
use crate::partition::append::{AppendFailure, Appended};
use crate::platform::{Clock, Platform, Tasks};
use crate::protocol::ErrorCode;
use crate::protocol::message::{
    LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, ProduceResponse, TopicProduceResponse,
};
use check::{LookedAt, Refusal, check, refused_topic};
use late::{Destination, LateBatches, LateWork, Settled};
use request::Structure;
#[cfg(test)]
pub(crate) use work::planted;
use work::{ProduceBatch, ProduceDone, ProduceWork, Written};

/// The client id that Kafka's own tools may write internal topics with.
const ADMIN_CLIENT: &str = "__admin_client";

/// What the answer of one partition takes while replicas are waited for.
const ANSWER_BYTES: u64 = size_of::<PartitionProduceResponse>() as u64;

pub struct Produce;

impl<P: Platform> Handler<P> for Produce {
    async fn handle(mut exchange: Exchange<P>) -> Result<(), Unanswered> {
        let body = exchange.take_body();
        let (plan, work, late) = ProducePlan::new(&exchange, body)?;
        let late = if late.is_empty() { None } else { Some(late.start(&exchange.local).await) };
        exchange.passed(Stage::Planned);
        let (local, class) = (Rc::clone(&exchange.local), exchange.class());
        // Handed over here and now, in the order of the connection's requests.
        let asked = local.ask_all(class, work);
        let tasks = local.platform.tasks().clone();
        tasks.spawn(async move {
            let settled = match late {
                None => asked.await.map(|done| (done.into_iter().flatten().collect(), Vec::new())),
                Some(late) => with_late(&exchange, asked, late, plan.waits_for_replicas()).await,
            };
            let api_key = exchange.context.header.api_key;
            let answered = match settled {
                Some((done, refused)) => plan.finish(exchange, done, refused).await,
                None => Err(Unanswered::Stopping),
            };
            if let Err(unanswered) = answered {
                unanswered.tell(&local, api_key);
            }
        });
        Ok(())
    }
}

/// What became of each batch, and which never came to their owners.
type Outcome = (Vec<ProduceDone>, Vec<(usize, Refusal)>);

/// Waits for batches that were handed over, and has others follow.
async fn with_late<P: Platform>(
    exchange: &Exchange<P>,
    asked: impl Future<Output = Option<Vec<Vec<ProduceDone>>>>,
    late: LateWork,
    all_replicas: bool,
) -> Option<Outcome> {
    let late = late.run(&exchange.local, exchange.class(), all_replicas);
    let (asked, late) = both(asked, late).await;
    let (mut done, mut refused): Outcome = (asked?.into_iter().flatten().collect(), Vec::new());
    for settled in late? {
        match settled {
            Settled::Done(more) => done.extend(more),
            Settled::Refused(place, refusal) => refused.push((place, refusal)),
        }
    }
    Some((done, refused))
}

/// A decoded request: the answers known already, and room for those that its owners give.
struct ProducePlan {
    acks: i16,
    timeout: Duration,
    topics: Vec<TopicPlan>,
}

struct TopicPlan {
    name: Arc<str>,
    answers: Vec<PartitionProduceResponse>,
}

/// By owner.
type WorkByOwner = Vec<(ShardId, ProduceWork)>;

impl ProducePlan {
    /// The request as it stands in `body`: each batch checked where it lies, its memory split from the frame's, and given to
    /// its owner or to those that come later.
    ///
    /// # Errors
    /// The request can't be read.
    fn new<P: Platform>(
        exchange: &Exchange<P>,
        mut body: BytesMut,
    ) -> Result<(ProducePlan, WorkByOwner, LateBatches), Unanswered> {
        let (local, header, order) = (&exchange.local, &exchange.context.header, &exchange.connection.order);
        let structure = Structure::decode(&body, header.version, &local.image())?;
        let mut plan = ProducePlan {
            acks: structure.acks,
            timeout: Duration::from_millis(structure.timeout_ms.max(0) as u64),
            topics: Vec::with_capacity(structure.topics.len()),
        };
        let all_replicas = plan.waits_for_replicas();
        let (mut work, mut late) = (WorkByOwner::new(), LateBatches::default());
        let admin = header.client_id.as_deref() == Some(ADMIN_CLIENT);
        let (mut place, mut taken) = (0, 0);
        for (named, partitions) in structure.topics {
            let (topic, name) = (named.image(), named.name());
            let refused = structure.refusal.or_else(|| refused_topic(topic.map(|topic| &**topic), admin));
            let mut answers = Vec::with_capacity(partitions.len());
            for (index, records) in partitions {
                let mut answer = PartitionProduceResponse { index, base_offset: -1, ..Default::default() };
                let records = records.map(|Range { start, end }| {
                    drop(body.split_to(start - taken));
                    taken = end;
                    body.split_to(end - start)
                });
                let owner = refused.map_or_else(|| owner_of(topic, index), Err);
                let looked_at = owner
                    .map_err(Refusal::code)
                    .and_then(|(owner, topic)| Ok((owner, check(local, header.version, &topic.config, records)?)));
                let destination = |owner| Destination { place, owner, topic: Arc::clone(&name), partition: index };
                match looked_at {
                    Ok((owner, LookedAt::Sound(batch))) if order.is_waited_for(&name, index) => {
                        late.wait(order, destination(owner), batch);
                    }
                    Ok((owner, LookedAt::Sound((batch, header)))) => {
                        let topic = Arc::clone(&name);
                        let batch = ProduceBatch { place, topic, partition: index, batch, header };
                        let make = || ProduceWork { batches: Vec::new(), all_replicas };
                        by_owner(&mut work, owner, make).batches.push(batch);
                    }
                    Ok((owner, LookedAt::Away(preparation))) => late.prepare(order, destination(owner), preparation),
                    Ok((_, LookedAt::Nothing)) => {}
                    Err(refusal) => refusal.describe(&mut answer),
                }
                place += 1;
                answers.push(answer);
            }
            plan.topics.push(TopicPlan { name, answers });
        }
        Ok((plan, work, late))
    }

    /// acks=all.
    fn waits_for_replicas(&self) -> bool {
        self.acks == -1
    }

    /// Takes up what the owners have said, waits for the replicas where they must have the batches, and answers.
    async fn finish<P: Platform>(
        mut self,
        exchange: Exchange<P>,
        done: Vec<ProduceDone>,
        refused: Vec<(usize, Refusal)>,
    ) -> Result<(), Unanswered> {
        let (local, timeout) = (Rc::clone(&exchange.local), self.timeout);
        let mut waited = done.iter().map(|done| done.waited).max().unwrap_or_default();
        let mut answers: Vec<&mut PartitionProduceResponse> =
            self.topics.iter_mut().flat_map(|topic| topic.answers.iter_mut()).collect();
        for (place, refusal) in refused {
            refusal.describe(answers[place]);
        }
        let mut waiting = Vec::new();
        for ProduceDone { place, result, .. } in done {
            match result {
                Ok(Written { appended, replicated }) => {
                    describe(answers[place], &appended);
                    waiting.extend(replicated.map(|replicated| Replication { place, replicated }));
                }
                Err(failure) => fail(answers[place], &failure),
            }
        }
        if !waiting.is_empty() {
            // From here on it is others that are waited for: no batch of it is here any more.
            exchange.give_back_request_bytes();
            let room = local.budgets.waiting_produce(answers.len() as u64 * ANSWER_BYTES);
            let timeout = if room.is_some() { timeout } else { Duration::ZERO };
            waited += wait_for_replicas(&exchange, waiting, timeout, &mut answers).await?;
        }
        local.counters.requests.executed(exchange.passage(), waited, local.platform.clock().now());
        let failed = answers.iter().any(|answer| answer.error_code != ErrorCode::None.code());
        match self.acks {
            0 if failed => Err(Unanswered::Failed),
            0 => {
                exchange.leave_unanswered();
                Ok(())
            }
            _ => self.reply(exchange).await,
        }
    }

    async fn reply<P: Platform>(self, exchange: Exchange<P>) -> Result<(), Unanswered> {
        let (image, listener) = (exchange.local.image(), Arc::clone(&exchange.context.listener));
        let names_leaders = exchange.version() >= 10;
        let mut response = ProduceResponse::default();
        for topic in self.topics {
            let mut answers = topic.answers;
            if names_leaders {
                for answer in &mut answers {
                    name_leader(answer, image.partition(&topic.name, answer.index));
                }
            }
            response.responses.push(TopicProduceResponse { name: topic.name, partition_responses: answers });
        }
        if names_leaders {
            response.node_endpoints = named_leaders(&response, &image, &listener);
        }
        exchange.reply(&response).await
    }
}

/// A written batch that not all replicas have yet.
struct Replication {
    place: usize,
    replicated: oneshot::Receiver<Result<(), AppendFailure>>,
}

/// Waits until the replicas have all batches, or for as long as the request lets, which may be weeks, as in Kafka; and says
/// how long that took. What has failed or comes too late is told in its place.
///
/// # Errors
/// The connection was closed, so that there is nobody to be told.
async fn wait_for_replicas<P: Platform>(
    exchange: &Exchange<P>,
    waiting: Vec<Replication>,
    timeout: Duration,
    answers: &mut [&mut PartitionProduceResponse],
) -> Result<Duration, Unanswered> {
    let clock = exchange.local.platform.clock();
    let since = clock.now();
    let mut ends = pin!(either(clock.sleep_until(since + timeout), gone(exchange)));
    let mut is_over = false;
    for Replication { place, mut replicated } in waiting {
        let outcome = match is_over {
            true => replicated.try_recv().transpose(),
            false => match either(&mut replicated, ends.as_mut()).await {
                Ok(outcome) => Some(outcome),
                Err(Ok(())) => {
                    is_over = true;
                    None
                }
                Err(Err(())) => return Err(Unanswered::Gone),
            },
        };
        match outcome {
            Some(Ok(Ok(()))) => {}
            Some(Ok(Err(failure))) => fail(answers[place], &failure),
            // Its owner is gone, and nobody can tell.
            Some(Err(oneshot::Canceled)) => fail(answers[place], &AppendFailure::Interrupted),
            None => {
                let index = answers[place].index;
                let error_code = ErrorCode::RequestTimedOut.code();
                *answers[place] = PartitionProduceResponse { index, base_offset: -1, error_code, ..Default::default() };
            }
        }
    }
    Ok(clock.now().since(since))
}

/// Resolves when nobody can take the answer any more.
async fn gone<P: Platform>(exchange: &Exchange<P>) {
    #[cfg(test)]
    if planted::OUTLIVE_CLIENTS.get() {
        std::future::pending::<()>().await;
    }
    exchange.closed().await;
}

fn describe(answer: &mut PartitionProduceResponse, appended: &Appended) {
    answer.base_offset = appended.base_offset;
    answer.log_append_time_ms = appended.log_append_time;
    answer.log_start_offset = appended.log_start_offset;
}

fn fail(answer: &mut PartitionProduceResponse, failure: &AppendFailure) {
    *answer = PartitionProduceResponse {
        index: answer.index,
        base_offset: -1,
        error_code: errors::of_append(failure).code(),
        error_message: Some(failure.to_string()),
        ..PartitionProduceResponse::default()
    };
}

/// KIP-951: a client that asked the wrong broker is told the right one.
fn name_leader(answer: &mut PartitionProduceResponse, partition: Option<&PartitionImage>) {
    if answer.error_code == ErrorCode::NotLeaderOrFollower.code()
        && let Some(partition) = partition
    {
        answer.current_leader =
            LeaderIdAndEpoch { leader_id: partition.leader.0, leader_epoch: partition.leader_epoch };
    }
}

/// Where clients of this listener reach the leaders that a response names.
fn named_leaders(response: &ProduceResponse, image: &ClusterImage, listener: &str) -> Vec<NodeEndpoint> {
    let is_named = |broker: &&BrokerImage| {
        let mut answers = response.responses.iter().flat_map(|topic| &topic.partition_responses);
        answers.any(|answer| answer.current_leader.leader_id == broker.id.0)
    };
    let endpoint = |broker: &BrokerImage| {
        let endpoint = broker.endpoint(listener)?;
        Some(NodeEndpoint {
            node_id: broker.id.0,
            host: endpoint.host.to_string(),
            port: i32::from(endpoint.port),
            rack: broker.rack.as_ref().map(ToString::to_string),
        })
    };
    image.brokers.iter().filter(is_named).filter_map(endpoint).collect()
}
