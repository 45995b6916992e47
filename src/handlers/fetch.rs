//! Fetch (1), versions 0-17.
//!
//! - v0-1 give records of magic 0, v2-3 of magic 1: batches are converted down ([`convert`]). v3 brought the limit of
//!   the whole answer, and with it the first batch whole however large it is.
//! - v4 isolation levels. v5 log start offsets. v7 fetch sessions (KIP-227, [`fetch_sessions`](crate::local::fetch_sessions)). v9 leader epochs (KIP-320).
//!   v10 zstd (KIP-110). v11 rack ids (KIP-392), not acted on: the leader is the nearest replica there is.
//! - v12 the epoch last fetched, against which the leader holds its own (KIP-595). v13 topic ids (KIP-516). v15 the
//!   replica's state (KIP-903). v16 says where the leader is if it is not here (KIP-951). v17 a replica's directory.
//! - Data ends at the high watermark, for read_committed at the last stable offset; then the answer names the aborted
//!   transactions with records in it.
//!
//! A fetch that finds less than `min.bytes` keeps what its answer needs and leaves a watch with the partitions' owners and reads again when enough has
//! come, or answers with what there is when `max.wait.ms` has passed (Kafka 3.9 `DelayedFetch`). When its client goes
//! away, it ends.

mod answer;
mod convert;
mod work;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use self::work::{FetchDone, FetchPart, FetchWork, Reader, is_short};
use super::distinct::Distinct;
use super::exchange::Header;
use super::{Exchange, Handler, Unanswered};
use crate::base::budget::Permit;
use crate::base::ids::{BrokerId, ShardId, TopicId};
use crate::config::topic::CompressionType;
use crate::executor::either;
use crate::local::fetch_sessions::{Begun, Named, TopicKey, Wanted};
use crate::local::{Local, by_owner, owner_of};
use crate::metadata::image::{ClusterImage, TopicImage};
use crate::metrics::Stage;
use crate::net::reply::{FileOf, Reply, ReplyPart};
use crate::partition::partition::{ANY_EPOCH, Isolation};
use crate::partition::purgatory::Watch;
use crate::platform::{Clock, Platform};
use crate::protocol::message::{FetchPartition, FetchRequest, FetchResponse};
use crate::protocol::{ErrorCode, WireError};

/// The longest a fetch may wait, whatever it asks for.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// The first version that names topics by id.
const TOPIC_IDS_VERSION: i16 = 13;
/// The first version whose records are of magic 2.
const MAGIC_2_VERSION: i16 = 4;
/// The first version with a limit of the whole answer, which its first batch may exceed.
const FIRST_BATCH_VERSION: i16 = 3;
const ZSTD_VERSION: i16 = 10;
const REPLICA_STATE_VERSION: i16 = 15;

/// The replica id of a log that is being moved between directories: it reads to the log end.
const FUTURE_REPLICA: i32 = -3;

/// One partition, in the order of the answer.
struct FetchedPartition {
    /// Empty if the topic's id is all that is known of it.
    topic: Arc<str>,
    topic_id: TopicId,
    partition: i32,
    wanted: Wanted,
    /// Whom to ask, or why there is nobody.
    owner: Result<ShardId, ErrorCode>,
    /// Its place in the session, for an incremental fetch.
    session_place: u64,
}

/// What a waiting fetch takes for each of its partitions: this, and what it leaves with their owners.
const WAITING_PARTITION_BYTES: u64 = size_of::<FetchedPartition>() as u64 + 64;

/// A fetch that takes no more waits as long as it likes; larger ones share [`crate::local::budgets::WAITING_FETCH_BYTES_MAX`].
const WAITING_UNCOUNTED_BYTES: u64 = 64 * 1024;

/// How long the client of a fetch that found no room to wait is asked to wait instead.
const NO_ROOM_THROTTLE: Duration = Duration::from_millis(100);

/// What a partition's answer takes, without its records.
const ANSWERED_PARTITION_BYTES: u64 = 192;

pub struct Fetch;

impl<P: Platform> Handler<P> for Fetch {
    async fn handle(mut exchange: Exchange<P>) -> Result<(), Unanswered> {
        let request: FetchRequest = exchange.decode_for(|_, _| 0).await?;
        let plan = FetchPlan::new(&exchange.local, &exchange.context.header, request);
        if let Reader::Replica(BrokerId(id)) = plan.reader {
            exchange.asked_by(id);
        }
        exchange.passed(Stage::Planned);
        let (plan, done) = plan.read(&exchange).await?;
        exchange.claim_answer(plan.answer_bytes()).await;
        let reply = plan.reply(&exchange.local, &exchange.context.listener, done).await?;
        exchange.send(reply).await;
        Ok(())
    }
}

/// A decoded request: what is to be asked of whom, and what is known already.
struct FetchPlan {
    version: i16,
    correlation_id: i32,
    max_wait: Duration,
    reader: Reader,
    session: Begun,
    asked: Vec<FetchedPartition>,
    bytes_min: u64,
    bytes_max: u64,
    /// Told to the client, which then keeps away for so long (KIP-219).
    throttle: Duration,
}

impl FetchPlan {
    /// Takes the request into its session and finds the partitions' owners. Of a partition that is named twice the last
    /// wish counts, in the place of the first (Kafka 3.9 `FetchRequest.fetchData`).
    fn new<P: Platform>(local: &Local<P>, header: &Header, request: FetchRequest) -> FetchPlan {
        let Header { version, correlation_id, .. } = *header;
        let bytes_max = u64::from(local.config.fetch_max_bytes).min(positive(request.max_bytes));
        let uses_ids = version >= TOPIC_IDS_VERSION;
        let session = local.fetch_sessions.borrow_mut().begin(
            local.platform.clock().now(),
            (request.session_id, request.session_epoch),
            uses_ids,
            named(&request, uses_ids),
            forgotten(&request, uses_ids),
        );
        let mut plan = FetchPlan {
            version,
            correlation_id,
            max_wait: Duration::from_millis(positive(request.max_wait_ms)).min(WAIT_MAX),
            reader: reader_of(&request, version),
            session,
            asked: Vec::new(),
            bytes_min: positive(request.min_bytes).min(bytes_max),
            bytes_max,
            throttle: Duration::ZERO,
        };
        let image = local.image();
        match session {
            Begun::Full { .. } => plan.add_request(&image, &request),
            Begun::Incremental { id, .. } => plan.add_session(local, &image, id),
            Begun::Refused(_) => {}
        }
        plan
    }

    /// All that the request names.
    fn add_request(&mut self, image: &ClusterImage, request: &FetchRequest) {
        let count = request.topics.iter().map(|topic| topic.partitions.len()).sum();
        let mut places = Distinct::with_capacity(count);
        for topic in &request.topics {
            let found = if self.version >= TOPIC_IDS_VERSION {
                image.topic_by_id(topic.topic_id)
            } else {
                image.topic(&topic.topic)
            };
            let name = found.map_or(&topic.topic, |found| &found.name);
            for partition in &topic.partitions {
                let key = (topic.topic_id, &*topic.topic, partition.partition);
                if let Err(place) = places.place_or(key, self.asked.len()) {
                    self.asked[place].wanted = wanted(partition);
                    continue;
                }
                self.add(Arc::clone(name), topic.topic_id, partition.partition, found, wanted(partition), 0);
            }
        }
    }

    /// All that the session holds.
    fn add_session<P: Platform>(&mut self, local: &Local<P>, image: &ClusterImage, id: i32) {
        let mut sessions = local.fetch_sessions.borrow_mut();
        self.asked.reserve(sessions.partition_count(id));
        // Partitions of one topic mostly stand together.
        let mut last: Option<&Arc<TopicImage>> = None;
        for (session_place, known) in sessions.partitions(id) {
            let topic_id = match &known.key {
                TopicKey::Name(name) => {
                    known.name.get_or_insert_with(|| Arc::clone(name));
                    TopicId::ZERO
                }
                TopicKey::Id(id) => {
                    // A name once found stays, so that a topic made anew is told from the one that was meant.
                    if known.name.is_none() {
                        known.name = image.topic_by_id(*id).map(|topic| Arc::clone(&topic.name));
                    }
                    *id
                }
            };
            let found = known.name.as_ref().and_then(|name| match last {
                Some(last) if last.name == *name => Some(last),
                _ => image.topic(name),
            });
            last = found.or(last);
            let topic = known.name.clone().unwrap_or_default();
            self.add(topic, topic_id, known.partition, found, known.wanted, session_place);
        }
    }

    fn add(
        &mut self,
        topic: Arc<str>,
        topic_id: TopicId,
        partition: i32,
        found: Option<&Arc<TopicImage>>,
        wanted: Wanted,
        session_place: u64,
    ) {
        let owner = self.owner(&topic, partition, found);
        self.asked.push(FetchedPartition { topic, topic_id, partition, wanted, owner, session_place });
    }

    /// Whom to ask, or the code that says why there is nobody (Kafka 3.9 `KafkaApis.handleFetchRequest`).
    fn owner(&self, name: &str, partition: i32, topic: Option<&Arc<TopicImage>>) -> Result<ShardId, ErrorCode> {
        if name.is_empty() && self.version >= TOPIC_IDS_VERSION {
            return Err(ErrorCode::UnknownTopicId);
        }
        let (owner, topic) = owner_of(topic, partition)?;
        if self.version < ZSTD_VERSION && topic.config.compression_type == CompressionType::Zstd {
            return Err(ErrorCode::UnsupportedCompressionType);
        }
        let converts = self.version < MAGIC_2_VERSION && !matches!(self.reader, Reader::Replica(_));
        if converts && !topic.config.message_downconversion_enable {
            return Err(ErrorCode::UnsupportedVersion);
        }
        Ok(owner)
    }

    /// What each owner is to read.
    fn parts(&self) -> Vec<(ShardId, Vec<FetchPart>)> {
        let mut parts: Vec<(ShardId, Vec<FetchPart>)> = Vec::new();
        for (place, asked) in self.asked.iter().enumerate() {
            let Ok(owner) = asked.owner else { continue };
            let part = FetchPart {
                place,
                topic: Arc::clone(&asked.topic),
                topic_id: asked.topic_id,
                partition: asked.partition,
                offset: asked.wanted.fetch_offset,
                bytes_max: positive(asked.wanted.bytes_max).min(self.bytes_max),
                leader_epoch: asked.wanted.current_leader_epoch,
                last_fetched_epoch: asked.wanted.last_fetched_epoch,
            };
            by_owner(&mut parts, owner, Vec::new).push(part);
        }
        parts
    }

    /// About what the answer takes, without the records in it.
    fn answer_bytes(&self) -> u64 {
        self.asked.len() as u64 * ANSWERED_PARTITION_BYTES
    }

    /// Reads, and waits if it must: until then nothing is held of the request but this.
    async fn read<P: Platform>(mut self, exchange: &Exchange<P>) -> Result<(FetchPlan, Vec<FetchDone<P>>), Unanswered> {
        let local = &exchange.local;
        let clock = local.platform.clock();
        let deadline = clock.now() + self.max_wait;
        let waiting_bytes = self.asked.len() as u64 * WAITING_PARTITION_BYTES;
        let mut room: Option<Permit> = None;
        let mut ended = pin!(exchange.ended());
        loop {
            let may_wait = !self.max_wait.is_zero() && !local.is_draining();
            let mut waits = may_wait && self.asked.iter().any(|asked| asked.owner.is_ok()) && clock.now() < deadline;
            if waits && waiting_bytes > WAITING_UNCOUNTED_BYTES && room.is_none() {
                room = local.budgets.waiting_fetch_bytes.try_acquire(waiting_bytes);
                waits = room.is_some();
            }
            let watch = waits.then(|| Arc::new(Watch::new(self.bytes_min)));
            let work = self.parts().into_iter().map(|(owner, parts)| {
                let (reader, bytes_min, watch) = (self.reader, self.bytes_min, watch.clone());
                (owner, FetchWork { parts, reader, bytes_min, watch })
            });
            let done = local.ask_all(exchange.class(), work).await.ok_or(Unanswered::Stopping)?;
            let done: Vec<FetchDone<P>> = done.into_iter().flatten().collect();
            exchange.passed(Stage::Executed);
            let is_short = is_short(&done, self.bytes_min);
            let Some(watch) = watch.filter(|_| is_short) else {
                if is_short && may_wait && !waits && clock.now() < deadline {
                    local.counters.fetches_not_waited_total.add(1);
                    self.throttle = self.max_wait.min(NO_ROOM_THROTTLE);
                }
                return Ok((self, done));
            };
            // A large one reads again, rather than keep what it found.
            let done = Some(done).filter(|_| room.is_none());
            let waited = either(watch.fired(), clock.sleep_until(deadline));
            let outcome = either(waited, ended.as_mut()).await;
            exchange.passed(Stage::Waited);
            match (outcome, done) {
                (Ok(Err(())), Some(done)) => return Ok((self, done)),
                (Ok(_), _) => {}
                (Err(()), _) => return Err(Unanswered::Gone),
            }
        }
    }

    fn refuse<P: Platform>(&self, local: &Local<P>, error: ErrorCode) -> Result<Reply<FileOf<P>>, WireError> {
        let response = FetchResponse { error_code: error.code(), ..FetchResponse::default() };
        let parts = response.encode_parts(self.correlation_id, self.version)?;
        local.counters.requests.answered(FetchResponse::API_KEY.code(), &parts.errors);
        Ok(Reply { parts: parts.chunks.into_iter().map(ReplyPart::Bytes).collect(), held: None })
    }
}

/// Who reads, and how far they may see (Kafka 3.9 `FetchIsolation.of`).
fn reader_of(request: &FetchRequest, version: i16) -> Reader {
    let in_state = version >= REPLICA_STATE_VERSION;
    let replica_id = if in_state { request.replica_state.replica_id } else { request.replica_id };
    match (replica_id, request.isolation_level) {
        (0.., _) => Reader::Replica(BrokerId(replica_id)),
        (FUTURE_REPLICA, _) => Reader::Consumer(Isolation::LogEnd),
        (_, 1) => Reader::Consumer(Isolation::ReadCommitted),
        (_, _) => Reader::Consumer(Isolation::ReadUncommitted),
    }
}

fn wanted(partition: &FetchPartition) -> Wanted {
    Wanted {
        fetch_offset: partition.fetch_offset,
        bytes_max: partition.partition_max_bytes,
        // Anything below zero asks for none (Kafka 3.9 `FetchRequest`); elsewhere only -1 does.
        current_leader_epoch: partition.current_leader_epoch.max(ANY_EPOCH),
        last_fetched_epoch: partition.last_fetched_epoch,
    }
}

fn key(uses_ids: bool, name: &Arc<str>, id: TopicId) -> TopicKey {
    if uses_ids { TopicKey::Id(id) } else { TopicKey::Name(Arc::clone(name)) }
}

fn named(request: &FetchRequest, uses_ids: bool) -> impl Iterator<Item = Named> {
    request.topics.iter().flat_map(move |topic| {
        topic.partitions.iter().map(move |asked| Named {
            key: key(uses_ids, &topic.topic, topic.topic_id),
            partition: asked.partition,
            wanted: wanted(asked),
        })
    })
}

fn forgotten(request: &FetchRequest, uses_ids: bool) -> impl Iterator<Item = (TopicKey, i32)> {
    request.forgotten_topics_data.iter().flat_map(move |topic| {
        let key = key(uses_ids, &topic.topic, topic.topic_id);
        topic.partitions.iter().map(move |partition| (key.clone(), *partition))
    })
}

fn positive(value: i32) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
