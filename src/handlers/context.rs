//! What handlers may use of the shard they run on.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_channel::oneshot;

use super::fetch::session::{CacheLimits, SessionCache};
use crate::base::budget::Budget;
use crate::base::ids::{ShardId, TopicPartition};
use crate::base::log_limit::LogLimit;
use crate::config::{Config, DynamicConfig};
use crate::executor::{either, yield_now};
use crate::metadata::image::{ClusterImage, PartitionImage, TopicImage};
use crate::metadata::proposal::{Answer, ProducerIdBlock, Proposal, ProposalError};
use crate::metadata::thread::MetadataHandle;
use crate::metrics::ShardCounters;
use crate::metrics::status::BoundUse;
use crate::partition::home::WaitingMax;
use crate::partition::{Home, Partition};
use crate::platform::{Clock, Platform};
use crate::protocol::ErrorCode;
use crate::storage::log_dirs::LogDirs;
use crate::storage::open_files::OpenFiles;

/// Lines about requests that can't be answered that a shard logs in [`REFUSALS_LOGGED_INTERVAL`].
const REFUSALS_LOGGED_MAX: u32 = 10;
const REFUSALS_LOGGED_INTERVAL: Duration = Duration::from_secs(10);

/// Partitions that are looked at before others get their turn.
const PARTITIONS_A_TURN: usize = 256;

/// How much of what there may be at most.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub segments_open_max: usize,
    /// For each log directory.
    pub waiting_max: WaitingMax,
    /// Bytes of produced batches that may be at work threads; a connection that needs more is not read until there is room.
    pub away_bytes_max: u64,
}

/// Bytes per shard of records that are converted to an older format, and of answers made of them that wait to be sent.
const CONVERSION_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// Bytes per shard of what large fetches keep while they wait. Who finds no room is answered with what there is.
pub const WAITING_FETCH_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// One per shard, shared by its tasks.
pub struct Context<P: Platform> {
    pub shard: ShardId,
    pub platform: P,
    pub config: Arc<Config>,
    pub log_dirs: Arc<LogDirs>,
    pub metadata: MetadataHandle,
    pub counters: Arc<ShardCounters>,
    /// This shard's view of each log directory.
    pub homes: Vec<Rc<Home>>,
    /// The log files that this shard keeps open.
    pub open_files: Rc<OpenFiles>,
    /// The newest image this shard has applied.
    image: RefCell<Arc<ClusterImage>>,
    partitions: RefCell<BTreeMap<Arc<str>, BTreeMap<i32, Rc<Partition<P>>>>>,
    draining: Cell<bool>,
    stopping: Cell<bool>,
    pub(super) fetch_sessions: RefCell<SessionCache>,
    /// Of records on their way through a conversion to an older format.
    pub(super) conversion_bytes: Rc<Budget>,
    /// Of large fetches that wait.
    pub(super) waiting_fetch_bytes: Rc<Budget>,
    /// Of produced batches that are at work threads.
    pub(super) away_bytes: Rc<Budget>,
    /// Of lines about requests that can't be answered.
    pub refusals: LogLimit,
    /// Producer ids not handed out yet.
    pub(super) producer_ids: Cell<Option<ProducerIdBlock>>,
}

impl<P: Platform> Context<P> {
    pub fn new(
        shard: ShardId,
        platform: P,
        config: Arc<Config>,
        log_dirs: Arc<LogDirs>,
        metadata: MetadataHandle,
        counters: Arc<ShardCounters>,
        bounds: Bounds,
    ) -> Rc<Context<P>> {
        let open_files = OpenFiles::new(bounds.segments_open_max);
        let homes = Home::all(&log_dirs, bounds.waiting_max);
        let slots = config.max_incremental_fetch_session_cache_slots;
        let fetch_sessions = SessionCache::new(CacheLimits::share(slots, shard.0, config.shards));
        Rc::new(Context {
            shard,
            platform,
            image: RefCell::new(Arc::new(ClusterImage::empty("".into(), Arc::clone(&config.dynamic)))),
            config,
            log_dirs,
            metadata,
            counters,
            homes,
            open_files,
            partitions: RefCell::default(),
            draining: Cell::new(false),
            stopping: Cell::new(false),
            fetch_sessions: RefCell::new(fetch_sessions),
            conversion_bytes: Budget::new(CONVERSION_BYTES_MAX),
            waiting_fetch_bytes: Budget::new(WAITING_FETCH_BYTES_MAX),
            away_bytes: Budget::new(bounds.away_bytes_max),
            refusals: LogLimit::new(REFUSALS_LOGGED_INTERVAL, REFUSALS_LOGGED_MAX),
            producer_ids: Cell::new(None),
        })
    }

    /// How much of what is bounded is in use.
    pub fn bounds(&self) -> Vec<BoundUse> {
        let counted = |name, help, now: usize, max: usize| BoundUse {
            name,
            help,
            now: now as u64,
            max: max as u64,
            waits_total: None,
        };
        let sessions = self.fetch_sessions.borrow();
        let waiting = self.homes.iter().map(|home| {
            let (now, max) = home.waiting_bytes();
            let help = "Bytes of batches that wait to be written (as many as there are requests, with one directory).";
            BoundUse { name: "waiting_batch_bytes", help, now, max, waits_total: None }
        });
        let mut bounds = vec![
            BoundUse::of_budget(
                "conversion_bytes",
                "Bytes of records that are converted to an older format, and of answers made of them.",
                &self.conversion_bytes,
            ),
            BoundUse {
                waits_total: None,
                ..BoundUse::of_budget(
                    "waiting_fetch_bytes",
                    "Bytes that large fetches keep while they wait for records.",
                    &self.waiting_fetch_bytes,
                )
            },
            BoundUse::of_budget("away_bytes", "Bytes of produced batches at work threads.", &self.away_bytes),
            counted(
                "open_segments",
                "Segments whose files are kept open; those with unflushed bytes may be more.",
                self.open_files.count(),
                self.open_files.count_max(),
            ),
            counted(
                "fetch_sessions",
                "Incremental fetch sessions (Kafka's NumIncrementalFetchSessions).",
                sessions.len(),
                sessions.slots(),
            ),
        ];
        bounds.extend(waiting.reduce(BoundUse::plus));
        bounds
    }

    /// What waits for more to come is answered with what there is.
    pub fn drain(&self) {
        self.draining.set(true);
    }

    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// No request is taken on any more.
    pub fn stop(&self) {
        self.stopping.set(true);
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    pub fn image(&self) -> Arc<ClusterImage> {
        Arc::clone(&self.image.borrow())
    }

    /// The broker's settings that may change while it runs, as they are now.
    pub fn dynamic(&self) -> Arc<DynamicConfig> {
        Arc::clone(&self.image.borrow().dynamic)
    }

    pub fn set_image(&self, image: Arc<ClusterImage>) {
        *self.image.borrow_mut() = image;
    }

    /// A partition that this shard owns.
    pub fn partition(&self, topic: &str, partition: i32) -> Option<Rc<Partition<P>>> {
        self.partitions.borrow().get(topic)?.get(&partition).cloned()
    }

    pub fn add_partition(&self, partition: Rc<Partition<P>>) {
        let TopicPartition { topic, partition: index } = partition.topic_partition.clone();
        self.partitions.borrow_mut().entry(topic).or_default().insert(index, partition);
    }

    pub fn remove_partition(&self, gone: &TopicPartition) -> Option<Rc<Partition<P>>> {
        let mut partitions = self.partitions.borrow_mut();
        let topic = partitions.get_mut(&gone.topic)?;
        let removed = topic.remove(&gone.partition);
        if topic.is_empty() {
            partitions.remove(&gone.topic);
        }
        removed
    }

    /// The partitions of one topic that this shard owns.
    pub fn partitions_of(&self, topic: &str) -> Vec<Rc<Partition<P>>> {
        self.partitions.borrow().get(topic).map_or_else(Vec::new, |topic| topic.values().cloned().collect())
    }

    /// All partitions that this shard owns. Of many that alone takes milliseconds, which a stop or a failure may.
    pub fn all_partitions(&self) -> Vec<Rc<Partition<P>>> {
        self.partitions.borrow().values().flat_map(|topic| topic.values().cloned()).collect()
    }

    /// Shows `look` each partition that this shard owns. Others get their turn in between: one that is made or removed
    /// meanwhile is shown or not.
    pub async fn each_partition(&self, mut look: impl FnMut(&Rc<Partition<P>>)) {
        let mut some = self.partitions_behind(None);
        while let Some(last) = some.last().map(|partition| partition.topic_partition.clone()) {
            some.iter().for_each(&mut look);
            yield_now().await;
            some = self.partitions_behind(Some(&last));
        }
    }

    /// The next [`PARTITIONS_A_TURN`] of this shard's partitions, in order of topic and number.
    fn partitions_behind(&self, last: Option<&TopicPartition>) -> Vec<Rc<Partition<P>>> {
        let partitions = self.partitions.borrow();
        let rest_of_topic = last
            .and_then(|last| Some(partitions.get(&last.topic)?.range((Excluded(last.partition), Unbounded))))
            .into_iter()
            .flatten();
        let topics = match last {
            Some(last) => partitions.range::<Arc<str>, _>((Excluded(&last.topic), Unbounded)),
            None => partitions.range::<Arc<str>, _>(..),
        };
        let behind = rest_of_topic.chain(topics.flat_map(|(_, topic)| topic.range(..)));
        behind.take(PARTITIONS_A_TURN).map(|(_, partition)| Rc::clone(partition)).collect()
    }

    /// Asks the controller and waits for its answer, which comes when every shard shows the outcome.
    pub async fn propose(&self, proposal: Proposal) -> Answer {
        let (sender, receiver) = oneshot::channel();
        let answer = Box::new(move |answer| {
            let _ = sender.send(answer);
        });
        if self.metadata.propose(proposal, answer).is_err() {
            return Answer::Failed(ProposalError::Busy);
        }
        receiver.await.unwrap_or(Answer::Failed(ProposalError::Busy))
    }

    /// The same, as long as a request's timeout lets. A timeout of nothing is not raced with: what is refused is told so,
    /// and only what succeeds comes too late for it (Kafka 3.9 `ZkAdminManager`), which the caller says by
    /// [`waits_for_nothing`].
    ///
    /// # Errors
    /// The time has passed; the change goes on.
    pub async fn propose_within(&self, proposal: Proposal, timeout_ms: i32) -> Result<Answer, TimedOut> {
        let answer = self.propose(proposal);
        if waits_for_nothing(timeout_ms) {
            return Ok(answer.await);
        }
        let clock = self.platform.clock();
        let deadline = clock.now() + Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
        either(answer, clock.sleep_until(deadline)).await.map_err(|()| TimedOut)
    }
}

/// The controller has not answered in a request's time.
#[derive(Debug)]
pub struct TimedOut;

/// Whether success always comes too late for a request with this timeout.
pub fn waits_for_nothing(timeout_ms: i32) -> bool {
    timeout_ms <= 0
}

/// The shard that owns a partition of an image, which knows whether its replica leads; or why there is none to ask.
pub fn owner_of(topic: Option<&Arc<TopicImage>>, partition: i32) -> Result<ShardId, ErrorCode> {
    let found: &PartitionImage =
        topic.and_then(|topic| topic.partition(partition)).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    found.shard.ok_or(ErrorCode::NotLeaderOrFollower)
}
