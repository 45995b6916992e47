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

pub mod order;

use std::collections::{BTreeSet, HashMap};
use std::future::poll_fn;
use std::ops::Range;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;

use super::context::{Context, owner_of};
use super::{Owners, errors};
use crate::base::budget::Permit;
use crate::base::ids::ShardId;
use crate::config::topic::TimestampType as ConfiguredTimestamp;
use crate::config::{TopicConfig, Validation};
use crate::executor::{all, either};
use crate::metadata::image::{ClusterImage, TopicImage};
use crate::metrics::Passage;
use crate::partition::append::{AppendFailure, Appended};
use crate::partition::gather::{self, target_compression};
use crate::platform::{Clock, Platform, Tasks};
use crate::protocol::header::{RequestHeader, begin_response, finish_frame};
use crate::protocol::message::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceData, PartitionProduceResponse,
    ProduceRequest, ProduceResponse, TopicProduceData, TopicProduceResponse,
};
use crate::protocol::{ApiKey, ErrorCode, WireError};
use crate::record::DECOMPRESSED_BYTES_MAX;
use crate::record::batch::{BatchHeader, MAGIC_POSITION, MAGIC_V2, TimestampType};
use crate::record::compression::Codec;
use crate::record::validate::{
    Checked, InvalidBatch, ProduceRules, check_produce, convert_message_set, finish_produce, is_light,
};
use order::{Order, Turn};

/// The client id that Kafka's own tools may write internal topics with.
const ADMIN_CLIENT: &str = "__admin_client";

/// Compressed batches are looked into, and message sets converted, on the shard up to this; above it on a work thread.
const INLINE_BYTES_MAX: usize = 64 * 1024;

/// Requests that all shards together have at work threads, at most, whatever their size: half of what those let wait.
const AWAY_REQUESTS_MAX: u64 = 512;

/// Batches for the partitions of one owner.
#[derive(Debug)]
pub struct Work {
    parts: Vec<Part>,
    /// acks=all: how long replication may take.
    replicated_within: Option<Duration>,
}

#[derive(Debug)]
struct Part {
    place: usize,
    topic: Arc<str>,
    partition: i32,
    batch: BytesMut,
    header: BatchHeader,
}

/// What became of the batch at one place of the request.
#[derive(Debug)]
pub struct Done {
    place: usize,
    result: Result<Appended, Failure>,
    /// How long it was written and waited for the flush or for replicas.
    waited: Duration,
}

#[derive(Clone, Debug)]
enum Failure {
    Append(AppendFailure),
    /// Appended, but not on all replicas in time.
    TimedOut,
}

/// A decoded request: what is still to be asked, and the answers known already.
pub struct Plan {
    version: i16,
    correlation_id: i32,
    acks: i16,
    topics: Vec<TopicPlan>,
    work: Vec<(ShardId, Work)>,
    replicated_within: Option<Duration>,
    /// Batches that are not handed to their owner at once.
    late: Vec<Late>,
    /// Makes those of them that have none yet, in their order.
    job: Option<Job>,
}

/// One partition's batch that is at a work thread, or waits for one of its connection that is.
struct Late {
    place: usize,
    owner: ShardId,
    topic: Arc<str>,
    partition: i32,
    turn: Turn,
    /// `None`: the plan's job makes it.
    batch: Option<Batch>,
}

type Batch = (BytesMut, BatchHeader);
type Prepared = Result<Option<Batch>, InvalidBatch>;

/// What a work thread is to do for one partition.
enum Task {
    Finish(BytesMut, ProduceRules),
    Convert(BytesMut, ProduceRules),
}

impl Task {
    fn bytes(&self) -> usize {
        let (Task::Finish(batch, _) | Task::Convert(batch, _)) = self;
        batch.len()
    }

    fn run(self) -> Prepared {
        match self {
            Task::Finish(batch, rules) => finish_produce(batch, &rules).map(Some),
            Task::Convert(message_set, rules) => convert_message_set(&message_set, &rules),
        }
    }
}

/// A request's tasks at a work thread.
struct Job {
    prepared: Pin<Box<dyn Future<Output = Option<Vec<Prepared>>>>>,
    /// Of what may be away, until every batch has been handed to its owner.
    away: Rc<Permit>,
}

struct TopicPlan {
    name: Arc<str>,
    answers: Vec<PartitionProduceResponse>,
}

impl Plan {
    /// The request as it stands in `body`, what follows its header in `frame`: each batch validated where it lies, its
    /// memory split from the frame's, and given to its owner.
    ///
    /// # Errors
    /// The request can't be read: the connection is closed.
    pub async fn new<P: Platform>(
        context: &Context<P>,
        order: &Rc<Order>,
        header: &RequestHeader<'_>,
        mut body: BytesMut,
    ) -> Result<Plan, WireError> {
        let version = header.api_version;
        let image = context.image();
        let held = Structure::decode(&body, version, &image)?;
        let mut plan = Plan {
            version,
            correlation_id: header.correlation_id,
            acks: held.acks,
            topics: Vec::with_capacity(held.topics.len()),
            work: Vec::new(),
            replicated_within: (held.acks == -1).then(|| Duration::from_millis(held.timeout_ms.max(0) as u64)),
            late: Vec::new(),
            job: None,
        };
        let admin = header.client_id.as_deref() == Some(ADMIN_CLIENT);
        let mut tasks = Vec::new();
        let mut taken = 0;
        let mut place = 0;
        for (asked, partitions) in held.topics {
            let (topic, name) = match &asked {
                Asked::Known(topic) => (Some(topic), Arc::clone(&topic.name)),
                Asked::Unknown(name) => (None, Arc::clone(name)),
            };
            let refused = held.refusal.or_else(|| refused_topic(topic, admin));
            let mut answers = Vec::with_capacity(partitions.len());
            for (index, records) in partitions {
                let mut answer = PartitionProduceResponse { index, base_offset: -1, ..Default::default() };
                let records = records.map(|Range { start, end }| {
                    drop(body.split_to(start - taken));
                    taken = end;
                    body.split_to(end - start)
                });
                let owner = refused.map_or_else(|| owner_of(topic, index), Err);
                let outcome = match (owner, topic) {
                    (Ok(owner), Some(topic)) => {
                        check(context, version, &topic.config, records).map(|looked_at| (owner, looked_at))
                    }
                    (Ok(_), None) => Err(Refusal::code(ErrorCode::UnknownTopicOrPartition)),
                    (Err(code), _) => Err(Refusal::code(code)),
                };
                let late = |owner, batch| {
                    let (topic, partition) = (Arc::clone(&name), index);
                    let turn = order.join(&topic, partition);
                    Late { place, owner, topic, partition, turn, batch }
                };
                match outcome {
                    Ok((owner, LookedAt::Sound(batch))) if order.is_waited_for(&name, index) => {
                        plan.late.push(late(owner, Some(batch)));
                    }
                    Ok((owner, LookedAt::Sound((batch, header)))) => {
                        let part = Part { place, topic: Arc::clone(&name), partition: index, batch, header };
                        plan.add(owner, part);
                    }
                    Ok((owner, LookedAt::Away(task))) => {
                        plan.late.push(late(owner, None));
                        tasks.push(task);
                    }
                    // An empty message set: nothing to append is no error (Kafka 3.9 `UnifiedLog.append`).
                    Ok((_, LookedAt::Nothing)) => {}
                    Err(refusal) => refusal.describe(&mut answer),
                }
                place += 1;
                answers.push(answer);
            }
            plan.topics.push(TopicPlan { name, answers });
        }
        if !tasks.is_empty() {
            let bytes = tasks.iter().map(|task| task.bytes() as u64).sum();
            let share = context.away_bytes.bytes_max() * u64::from(context.config.shards) / AWAY_REQUESTS_MAX;
            let away = Rc::new(context.away_bytes.acquire(share.max(bytes)).await);
            let prepared = context.platform.tasks().work(|| tasks.into_iter().map(Task::run).collect());
            plan.job = Some(Job { prepared: Box::pin(prepared), away });
        }
        Ok(plan)
    }

    fn add(&mut self, owner: ShardId, part: Part) {
        let replicated_within = self.replicated_within;
        match self.work.iter_mut().find(|(shard, _)| *shard == owner) {
            Some((_, work)) => work.parts.push(part),
            None => self.work.push((owner, Work { parts: vec![part], replicated_within })),
        }
    }

    /// Hands the batches to their owners, and makes the answer for a client of `listener`; the batches' order is settled when the returned future has been polled once.
    pub async fn run<P: Platform>(
        mut self,
        context: &Context<P>,
        owners: &impl Owners<P>,
        passage: &Passage,
        listener: &str,
    ) -> Option<Outcome> {
        let mut work = std::mem::take(&mut self.work);
        let mut refused = Vec::new();
        let done = match work.pop() {
            last if !self.late.is_empty() => {
                work.extend(last);
                let done = self.run_late(owners, work).await;
                done.into_iter().map(|done| done.map(|settled| settled.into_done(&mut refused))).collect()
            }
            // Nearly every request concerns one owner.
            Some((owner, work_of_one)) if work.is_empty() => vec![owners.produce(owner, work_of_one).await],
            Some(last) => {
                work.push(last);
                let asked = work.into_iter().map(|(owner, work)| Box::pin(owners.produce(owner, work)));
                all(asked.collect()).await
            }
            None => Vec::new(),
        };
        let done = done.into_iter().collect::<Option<Vec<_>>>()?;
        let waited = done.iter().flatten().map(|done| done.waited).max().unwrap_or_default();
        context.counters.requests.executed(passage, waited, context.platform.clock().now());
        let mut answers: Vec<&mut PartitionProduceResponse> =
            self.topics.iter_mut().flat_map(|topic| topic.answers.iter_mut()).collect();
        for (place, refusal) in refused {
            refusal.describe(answers[place]);
        }
        for Done { place, result, .. } in done.into_iter().flatten() {
            describe(answers[place], result);
        }
        let failed = answers.iter().any(|answer| answer.error_code != ErrorCode::None.code());
        if self.acks == 0 {
            return Some(Outcome::Silent { failed });
        }
        Some(Outcome::Reply(self.reply(context, listener)))
    }

    /// The same with batches that come later: what is ready is handed over first, each of the others in its turn.
    async fn run_late<P: Platform>(
        &mut self,
        owners: &impl Owners<P>,
        work: Vec<(ShardId, Work)>,
    ) -> Vec<Option<Settled>> {
        let replicated_within = self.replicated_within;
        let (ready, unmade): (Vec<Late>, Vec<Late>) =
            std::mem::take(&mut self.late).into_iter().partition(|late| late.batch.is_some());
        let mut asked: Vec<Pin<Box<dyn Future<Output = Vec<Option<Settled>>> + '_>>> = Vec::new();
        for (owner, work) in work {
            asked.push(Box::pin(async move { vec![owners.produce(owner, work).await.map(Settled::Done)] }));
        }
        for mut late in ready {
            let prepared = Ok(Ok(late.batch.take()));
            asked.push(Box::pin(async move { vec![late.hand_over(owners, prepared, replicated_within, None).await] }));
        }
        if let Some(Job { prepared, away }) = self.job.take() {
            asked.push(Box::pin(async move {
                let mut prepared = prepared.await.map(Vec::into_iter);
                let handed_over = unmade.into_iter().map(|late| {
                    let prepared = prepared.as_mut().and_then(Iterator::next).ok_or(WorkRefused);
                    Box::pin(late.hand_over(owners, prepared, replicated_within, Some(Rc::clone(&away))))
                });
                let handed_over = handed_over.collect();
                drop(away);
                all(handed_over).await
            }));
        }
        all(asked).await.into_iter().flatten().collect()
    }

    fn reply<P: Platform>(self, context: &Context<P>, listener: &str) -> Result<BytesMut, WireError> {
        let mut response = ProduceResponse::default();
        let image = context.image();
        for topic in self.topics {
            let mut answers = topic.answers;
            if self.version >= 10 {
                for answer in &mut answers {
                    name_leader(answer, image.partition(&topic.name, answer.index));
                }
            }
            response.responses.push(TopicProduceResponse { name: topic.name, partition_responses: answers });
        }
        let named = |broker: i32| {
            let mut answers = response.responses.iter().flat_map(|topic| &topic.partition_responses);
            answers.any(|answer| answer.current_leader.leader_id == broker)
        };
        let brokers = image.brokers.iter().filter(|broker| self.version >= 10 && named(broker.id.0));
        let endpoints = brokers.filter_map(|broker| {
            let endpoint = broker.endpoint(listener)?;
            Some(NodeEndpoint {
                node_id: broker.id.0,
                host: endpoint.host.to_string(),
                port: i32::from(endpoint.port),
                rack: broker.rack.as_ref().map(ToString::to_string),
            })
        });
        let node_endpoints = endpoints.collect();
        response.node_endpoints = node_endpoints;
        let mut writer = begin_response(ApiKey::Produce, self.version, self.correlation_id);
        response.encode(&mut writer, self.version)?;
        context.counters.requests.answered(ApiKey::Produce.code(), writer.errors());
        finish_frame(writer)
    }
}

/// The work threads have more to do than they take.
struct WorkRefused;

/// What became of batches that came later.
enum Settled {
    Done(Vec<Done>),
    /// The batch of one place never came to its owner.
    Refused(usize, Refusal),
}

impl Settled {
    fn into_done(self, refused: &mut Vec<(usize, Refusal)>) -> Vec<Done> {
        match self {
            Settled::Done(done) => return done,
            Settled::Refused(place, refusal) => refused.push((place, refusal)),
        }
        Vec::new()
    }
}

impl Late {
    /// Gives the batch to its owner when all that the connection sent before for this partition has been.
    async fn hand_over<P: Platform>(
        self,
        owners: &impl Owners<P>,
        prepared: Result<Prepared, WorkRefused>,
        replicated_within: Option<Duration>,
        away: Option<Rc<Permit>>,
    ) -> Option<Settled> {
        let Late { place, owner, topic, partition, mut turn, batch: _ } = self;
        turn.come().await;
        let prepared = match prepared {
            Ok(prepared) => prepared.map_err(Refusal::from).and_then(|batch| batch.map(admit).transpose()),
            Err(WorkRefused) => {
                Err(Refusal::of(ErrorCode::RequestTimedOut, "too many batches wait for the work threads"))
            }
        };
        let (batch, header) = match prepared {
            Ok(Some(batch)) => batch,
            Ok(None) => return Some(Settled::Done(Vec::new())),
            Err(refusal) => return Some(Settled::Refused(place, refusal)),
        };
        let parts = vec![Part { place, topic, partition, batch, header }];
        let mut appending = pin!(owners.produce(owner, Work { parts, replicated_within }));
        // The first poll settles the order.
        let first = poll_fn(|context| Poll::Ready(appending.as_mut().poll(context))).await;
        drop((turn, away));
        let done = match first {
            Poll::Ready(done) => done,
            Poll::Pending => appending.await,
        };
        done.map(Settled::Done)
    }
}

/// How a request ends.
pub enum Outcome {
    /// The response frame.
    Reply(Result<BytesMut, WireError>),
    /// acks=0: nothing is sent, and if anything failed the connection is closed.
    Silent { failed: bool },
}

/// On the owner: queues every batch at once, in order, then waits for them.
pub fn execute<P: Platform>(context: &Rc<Context<P>>, work: Work) -> impl Future<Output = Vec<Done>> + 'static {
    let all_replicas = work.replicated_within.is_some();
    let queued: Vec<_> = work
        .parts
        .into_iter()
        .map(|part| {
            let found = context.partition(&part.topic, part.partition);
            context.counters.produce_bytes_total.add(part.batch.len() as u64);
            context.counters.produce_records_total.add(u64::try_from(part.header.record_count).unwrap_or(0));
            let receiver = match &found {
                Some(partition) => partition.append(part.batch, part.header, -1, all_replicas),
                None => Err(AppendFailure::Leadership(crate::partition::partition::LeadershipError::NotLeader)),
            };
            (part.place, found, receiver)
        })
        .collect();
    let clock = context.platform.clock().clone();
    async move {
        let deadline = work.replicated_within.map(|wait| clock.now() + wait);
        let mut done = Vec::with_capacity(queued.len());
        for (place, partition, receiver) in queued {
            let appended = match receiver {
                // Dropped unanswered: the partition was closed under its batches.
                Ok(receiver) => receiver.await.unwrap_or(Err(AppendFailure::Interrupted)),
                Err(failure) => Err(failure),
            };
            let written = appended.as_ref().ok().and_then(|appended| appended.unflushed_since);
            let mut waited = written.map_or(Duration::ZERO, |written| clock.now().since(written));
            let result = match (appended, deadline, partition) {
                (Ok(appended), Some(deadline), Some(partition)) if !partition.is_replicated(appended.last_offset) => {
                    let since = clock.now();
                    let replicated = partition.replicated(appended.last_offset);
                    let outcome = either(replicated, clock.sleep_until(deadline)).await;
                    waited += clock.now().since(since);
                    match outcome {
                        Ok(Ok(())) => Ok(appended),
                        Ok(Err(failure)) => Err(Failure::Append(failure)),
                        Err(()) => Err(Failure::TimedOut),
                    }
                }
                (appended, _, _) => appended.map_err(Failure::Append),
            };
            done.push(Done { place, result, waited });
        }
        done
    }
}

/// A request's structure, owned, so that its batches can be split from the frame.
struct Structure {
    acks: i16,
    timeout_ms: i32,
    /// What the whole request is refused with.
    refusal: Option<ErrorCode>,
    topics: Vec<(Asked, Vec<(i32, Option<Range<usize>>)>)>,
}

/// A topic as a request names it.
enum Asked {
    Known(Arc<TopicImage>),
    Unknown(Arc<str>),
}

impl Structure {
    fn decode(body: &[u8], version: i16, image: &ClusterImage) -> Result<Structure, WireError> {
        let request = ProduceRequest::decode(body, version)?;
        let mut partitions = request.topic_data.iter().flat_map(|topic| &topic.partition_data);
        // By the first batch of each, as in Kafka 3.9 `RequestUtils.hasTransactionalRecords`.
        let is_transactional = |partition: &PartitionProduceData| {
            let records = partition.records.clone().map_or(&[][..], |records| &body[records]);
            BatchHeader::parse(records).is_ok_and(|header| header.is_transactional())
        };
        let refusal = if request.transactional_id.is_none() && partitions.any(is_transactional) {
            Some(ErrorCode::TransactionalIdAuthorizationFailed)
        } else if !(-1..=1).contains(&request.acks) {
            Some(ErrorCode::InvalidRequiredAcks)
        } else {
            None
        };
        let superseded = superseded(&request);
        let mut place = 0;
        let topics = request.topic_data.into_iter().filter_map(|topic| {
            let asked = match image.topic(&topic.name) {
                Some(known) => Asked::Known(Arc::clone(known)),
                None => Asked::Unknown(Arc::from(topic.name)),
            };
            let last = topic.partition_data.into_iter().filter(|_| {
                place += 1;
                !superseded.contains(&(place - 1))
            });
            let partitions: Vec<_> = last.map(|partition| (partition.index, partition.records)).collect();
            (!partitions.is_empty()).then_some((asked, partitions))
        });
        Ok(Structure { acks: request.acks, timeout_ms: request.timeout_ms, refusal, topics: topics.collect() })
    }
}

/// Places of partitions that the request names again further on: only the last of them counts, and is answered (Kafka 3.9
/// `KafkaApis.handleProduceRequest` keeps them in a map).
fn superseded(request: &ProduceRequest<'_>) -> BTreeSet<usize> {
    let ascends = |topic: &TopicProduceData<'_>| topic.partition_data.is_sorted_by(|one, next| one.index < next.index);
    // As nearly all requests are.
    if request.topic_data.len() == 1 && ascends(&request.topic_data[0]) {
        return BTreeSet::new();
    }
    let mut last = HashMap::new();
    let mut superseded = BTreeSet::new();
    let named = request
        .topic_data
        .iter()
        .flat_map(|topic| topic.partition_data.iter().map(|partition| (&*topic.name, partition.index)));
    for (place, named) in named.enumerate() {
        superseded.extend(last.insert(named, place));
    }
    superseded
}

fn refused_topic(topic: Option<&Arc<TopicImage>>, admin: bool) -> Option<ErrorCode> {
    match topic {
        None => Some(ErrorCode::UnknownTopicOrPartition),
        Some(topic) if topic.internal && !admin => Some(ErrorCode::InvalidTopicException),
        Some(_) => None,
    }
}

/// Why one partition's records are refused.
struct Refusal {
    code: ErrorCode,
    message: Option<String>,
    records: Vec<BatchIndexAndErrorMessage>,
}

impl Refusal {
    fn code(code: ErrorCode) -> Refusal {
        Refusal { code, message: None, records: Vec::new() }
    }

    fn of(code: ErrorCode, message: impl ToString) -> Refusal {
        Refusal { code, message: Some(message.to_string()), records: Vec::new() }
    }

    fn describe(self, answer: &mut PartitionProduceResponse) {
        answer.error_code = self.code.code();
        answer.error_message = self.message;
        answer.record_errors = self.records;
    }
}

impl From<InvalidBatch> for Refusal {
    fn from(error: InvalidBatch) -> Refusal {
        let mut refusal = Refusal::of(errors::of_batch(&error), &error);
        if let InvalidBatch::InvalidRecord { record_errors, .. }
        | InvalidBatch::InvalidTimestamp { record_errors, .. } = error
        {
            let records = record_errors.into_iter().map(|record| BatchIndexAndErrorMessage {
                batch_index: record.batch_index,
                batch_index_error_message: Some(record.message),
            });
            refusal.records = records.collect();
        }
        refusal
    }
}

/// How far one partition's records are.
enum LookedAt {
    /// A v2 batch that may be appended.
    Sound(Batch),
    Away(Task),
    Nothing,
}

/// Checks what a partition was sent, as far as that may be done on the shard.
fn check<P: Platform>(
    context: &Context<P>,
    version: i16,
    config: &TopicConfig,
    records: Option<BytesMut>,
) -> Result<LookedAt, Refusal> {
    // Kafka takes a batch in a version that is older than it, too.
    let is_batch =
        |records: &[u8]| version >= 3 || records.get(MAGIC_POSITION).is_some_and(|magic| *magic as i8 == MAGIC_V2);
    let mut records = match records {
        Some(records) => records,
        None if version < 3 => return Ok(LookedAt::Nothing),
        None => return Err(Refusal::of(ErrorCode::InvalidRecord, "a record batch is required")),
    };
    let rules = ProduceRules {
        max_message_bytes: usize::try_from(config.max_message_bytes).unwrap_or(0),
        compacted: config.cleanup_policy.compact,
        timestamp_type: match config.message_timestamp_type {
            ConfiguredTimestamp::CreateTime => TimestampType::CreateTime,
            ConfiguredTimestamp::LogAppendTime => TimestampType::LogAppendTime,
        },
        timestamp_before_max_ms: config.message_timestamp_before_max_ms,
        timestamp_after_max_ms: config.message_timestamp_after_max_ms,
        retention_ms: config.retention_ms,
        now: context.platform.clock().wall(),
        validate_full: context.config.validation == Validation::Full,
        zstd_allowed: version >= 7,
        decompressed_bytes_max: DECOMPRESSED_BYTES_MAX,
        target: match context.config.rebatch && is_left_to_gather(&records) {
            true => None,
            false => target_compression(config),
        },
    };
    if !is_batch(&records) {
        return match is_light(&records, &rules, INLINE_BYTES_MAX) {
            true => Ok(convert_message_set(&records, &rules)?.map_or(LookedAt::Nothing, LookedAt::Sound)),
            false => Ok(LookedAt::Away(Task::Convert(records, rules))),
        };
    }
    match check_produce(&mut records, &rules, INLINE_BYTES_MAX)? {
        Checked::Done(header) => admit((records, header)).map(LookedAt::Sound),
        Checked::Away => Ok(LookedAt::Away(Task::Finish(records, rules))),
    }
}

/// Compressing a batch for itself that the owner will gather with others would be in vain.
fn is_left_to_gather(records: &[u8]) -> bool {
    BatchHeader::parse(records).is_ok_and(|header| header.codec() == Some(Codec::None) && gather::is_small(&header))
}

fn admit((batch, header): Batch) -> Result<Batch, Refusal> {
    match header.is_transactional() {
        true => Err(Refusal::of(ErrorCode::InvalidTxnState, "transactions are not supported yet")),
        false => Ok((batch, header)),
    }
}

fn describe(answer: &mut PartitionProduceResponse, result: Result<Appended, Failure>) {
    match result {
        Ok(appended) => {
            answer.base_offset = appended.base_offset;
            answer.log_append_time_ms = appended.log_append_time;
            answer.log_start_offset = appended.log_start_offset;
        }
        Err(Failure::TimedOut) => answer.error_code = ErrorCode::RequestTimedOut.code(),
        Err(Failure::Append(failure)) => {
            answer.error_code = errors::of_append(&failure).code();
            answer.error_message = Some(failure.to_string());
        }
    }
}

/// KIP-951: a client that asked the wrong broker is told the right one.
fn name_leader(answer: &mut PartitionProduceResponse, partition: Option<&crate::metadata::image::PartitionImage>) {
    if answer.error_code == ErrorCode::NotLeaderOrFollower.code()
        && let Some(partition) = partition
    {
        answer.current_leader =
            LeaderIdAndEpoch { leader_id: partition.leader.0, leader_epoch: partition.leader_epoch };
    }
}
