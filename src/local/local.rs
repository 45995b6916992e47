//! One shard's state, shared by its tasks.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::budgets::{BudgetBounds, Budgets};
use super::fetch_sessions::{CacheLimits, SessionCache};
use super::mailbox::Mailboxes;
use super::partitions::Partitions;
use super::routing::{Message, Ways};
use crate::base::ids::ShardId;
use crate::base::log_limit::LogLimit;
use crate::config::{Config, DynamicConfig};
use crate::metadata::image::ClusterImage;
use crate::metadata::proposal::ProducerIdBlock;
use crate::metadata::thread::MetadataHandle;
use crate::metrics::ShardCounters;
use crate::metrics::status::BoundUse;
use crate::partition::home::WaitingMax;
use crate::partition::{Home, Partition};
use crate::platform::Platform;
use crate::storage::log_dirs::LogDirs;
use crate::storage::open_files::OpenFiles;

/// How much of what there may be at most.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub segments_open_max: usize,
    /// For each log directory.
    pub waiting_max: WaitingMax,
    pub budgets: BudgetBounds,
}

/// What a shard's state is made of.
pub struct LocalParts<P: Platform> {
    pub shard: ShardId,
    pub platform: P,
    pub config: Arc<Config>,
    pub log_dirs: Arc<LogDirs>,
    pub metadata: MetadataHandle,
    pub counters: Arc<ShardCounters>,
    pub mailboxes: Mailboxes<Message<P>>,
}

/// Where a shard is between its start and its stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Serving,
    /// What waits for more to come is answered with what there is.
    Draining,
    /// No request is taken on any more.
    Stopping,
}

/// One per shard, shared by its tasks.
pub struct Local<P: Platform> {
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
    pub partitions: Partitions<P>,
    pub budgets: Budgets,
    pub fetch_sessions: RefCell<SessionCache>,
    /// Of lines about requests that can't be answered.
    pub refusals: LogLimit,
    /// Producer ids not handed out yet.
    pub producer_ids: Cell<Option<ProducerIdBlock>>,
    pub(super) ways: Ways<P>,
    /// The newest image this shard has applied.
    image: RefCell<Arc<ClusterImage>>,
    life: Cell<Life>,
}

impl<P: Platform> Local<P> {
    pub fn new(parts: LocalParts<P>, bounds: Bounds) -> Rc<Local<P>> {
        let LocalParts { shard, platform, config, log_dirs, metadata, counters, mailboxes } = parts;
        let slots = config.max_incremental_fetch_session_cache_slots;
        let fetch_sessions = SessionCache::new(CacheLimits::share(slots, shard.0, config.shards));
        let image = ClusterImage::empty("".into(), Arc::clone(&config.dynamic));
        Rc::new(Local {
            shard,
            platform,
            homes: Home::all(&log_dirs, bounds.waiting_max),
            config,
            log_dirs,
            metadata,
            counters,
            open_files: OpenFiles::new(bounds.segments_open_max),
            partitions: Partitions::default(),
            budgets: Budgets::new(bounds.budgets),
            fetch_sessions: RefCell::new(fetch_sessions),
            refusals: LogLimit::of_refusals(),
            producer_ids: Cell::new(None),
            ways: Ways::new(mailboxes),
            image: RefCell::new(Arc::new(image)),
            life: Cell::new(Life::Serving),
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
        let mut bounds = self.budgets.in_use();
        bounds.push(counted(
            "open_segments",
            "Segments whose files are kept open; those with unflushed bytes may be more.",
            self.open_files.count(),
            self.open_files.count_max(),
        ));
        bounds.push(counted(
            "fetch_sessions",
            "Incremental fetch sessions (Kafka's NumIncrementalFetchSessions).",
            sessions.len(),
            sessions.slots(),
        ));
        bounds.extend(waiting.reduce(BoundUse::plus));
        bounds.extend(self.ways.in_use(self.shard));
        bounds
    }

    /// What waits for more to come is answered with what there is.
    pub fn drain(&self) {
        self.life.set(Life::Draining);
    }

    /// Whether nothing is to be waited for any more.
    pub fn is_draining(&self) -> bool {
        self.life.get() != Life::Serving
    }

    /// No request is taken on any more.
    pub fn stop(&self) {
        self.life.set(Life::Stopping);
    }

    pub fn is_stopping(&self) -> bool {
        self.life.get() == Life::Stopping
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
        self.partitions.get(topic, partition)
    }
}
