//! The control thread: its own executor, ring and timers, and the broker's metadata on them.
//!
//! It runs as shards do, so what it does is simulated as they are. It serves nobody but the metadata: it waits for the disk
//! of the embedded tree itself, and no shard waits for it.

#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use async_channel::Sender;
use futures_channel::oneshot;

use super::directories::{Directories, Found};
use super::{StartError, wait_for_logs};
use crate::base::ids::ShardId;
use crate::config::{Config, Endpoint};
use crate::controller::node::{self, MetadataNode, NodeSettings, SharedNode, StartError as NodeError};
use crate::executor::Executor;
use crate::metadata::embedded::EmbeddedTree;
use crate::metadata::image::ClusterImage;
use crate::metadata::node::{ShardInput, ShardSink};
use crate::metadata::publisher::INPUTS_PER_VERSION_MAX;
use crate::metadata::thread::Inbox;
use crate::metrics::{RecoveryProgress, ShardCounters};
use crate::net::quotas::ConnectionQuotas;
use crate::platform::linux::{DiskLimits, LinuxPlatform};
use crate::platform::{Platform, Random};
use crate::shard::run;
use crate::uring;
use crate::uring::doorbell::EventDoorbell;
use crate::worker::WorkPool;

/// Inputs from the control thread that wait for a shard. What has no room collapses, see `metadata::behind`.
pub const SHARD_INPUTS_MAX: usize = 1024;
const _: () = assert!(SHARD_INPUTS_MAX >= INPUTS_PER_VERSION_MAX, "a version is sent whole");

/// Submission entries of the control thread's ring: its doorbell and peers' sockets, no files.
const CONTROL_RING_DEPTH: u32 = 64;

/// The control thread's way to the shards' input queues, and to what all of them share.
pub struct InputQueues {
    pub shards: Vec<Sender<ShardInput>>,
    pub quotas: Arc<ConnectionQuotas>,
}

impl ShardSink for InputQueues {
    fn shard_count(&self) -> u16 {
        u16::try_from(self.shards.len()).expect("as many as shards")
    }

    fn room(&self, shard: ShardId) -> usize {
        let queue = &self.shards[shard.index()];
        queue.capacity().map_or(usize::MAX, |capacity| capacity - queue.len())
    }

    fn send(&self, shard: ShardId, input: ShardInput) {
        if let (ShardInput::Image(image), ShardId(0)) = (&input, shard) {
            self.quotas.set_limits(&image.dynamic.connection_quotas);
        }
        // A closed queue: the process stops.
        if let Err(async_channel::TrySendError::Full(_)) = self.shards[shard.index()].try_send(input) {
            unreachable!("only the control thread sends, and it looks for room first");
        }
    }
}

/// A control thread whose broker has joined the cluster, and that waits for shards to tell.
pub struct Control {
    pub cluster_id: Arc<str>,
    thread: JoinHandle<()>,
    shards: oneshot::Sender<InputQueues>,
    started: mpsc::Receiver<Result<Arc<ClusterImage>, StartError>>,
}

impl Control {
    /// Starts the thread, and returns when it has seen that log directories and tree belong together, and read the
    /// settings. It touches no log directory.
    pub fn join(
        config: &Arc<Config>,
        advertised: &[Endpoint],
        directories: &Directories,
        found: &Found,
        inbox: Inbox,
        work: &WorkPool,
    ) -> Result<Control, StartError> {
        let (joined_sender, joined) = mpsc::channel();
        let (started_sender, started) = mpsc::channel();
        let (shards, shards_receiver) = oneshot::channel();
        let life = Life {
            tree_path: directories.tree_path(),
            settings: NodeSettings::new(config, advertised.to_vec()),
            cluster_id: found.cluster_id().map(str::to_owned),
            inbox,
            joined: joined_sender,
            shards: shards_receiver,
            started: started_sender,
        };
        let thread = life.start(work.clone())?;
        let joined = match joined.recv() {
            Ok(joined) => joined,
            Err(_) => Err(started.try_recv().ok().and_then(Result::err).unwrap_or(StartError::ShardEnded)),
        };
        let of_tree = match &joined {
            Ok(id) => Some(&**id),
            Err(StartError::Metadata { source: NodeError::Membership(refusal), .. }) => refusal.cluster_of_tree(),
            Err(_) => None,
        };
        if let Some(id) = of_tree {
            // Says which directory it is that belongs elsewhere.
            directories.check_cluster(found, id)?;
        }
        Ok(Control { cluster_id: joined?, thread, shards, started })
    }

    /// Has the broker registered and the shards open their logs; returns with the first image, when all of them show it.
    pub fn serve(
        self,
        shards: InputQueues,
        progress: &RecoveryProgress,
    ) -> Result<(JoinHandle<()>, Arc<ClusterImage>), StartError> {
        self.shards.send(shards).map_err(|_| StartError::ShardEnded)?;
        let image = wait_for_logs(&self.started, progress)??;
        Ok((self.thread, image))
    }
}

/// All that the control thread does, from its start to the end of the process.
struct Life {
    tree_path: PathBuf,
    settings: NodeSettings,
    cluster_id: Option<String>,
    inbox: Inbox,
    joined: mpsc::Sender<Result<Arc<str>, StartError>>,
    shards: oneshot::Receiver<InputQueues>,
    started: mpsc::Sender<Result<Arc<ClusterImage>, StartError>>,
}

impl Life {
    fn start(self, work: WorkPool) -> Result<JoinHandle<()>, StartError> {
        let run = move || {
            let broken = self.started.clone();
            if let Err(error) = on_thread(self, work) {
                tracing::error!(%error, "the control thread's ring is broken");
                let _ = broken.send(Err(StartError::Thread(error)));
            }
        };
        thread::Builder::new().name("control".to_owned()).spawn(run).map_err(StartError::Thread)
    }

    async fn live(self, platform: LinuxPlatform) {
        let clock = platform.clock();
        let (path, random) = (self.tree_path, platform.random().clone());
        let tree = match EmbeddedTree::open(&path) {
            Ok(tree) => tree,
            Err(source) => {
                let _ = self.joined.send(Err(StartError::Tree { path, source }));
                return;
            }
        };
        let random = Box::new(move || random.next_u64());
        let node: SharedNode<EmbeddedTree, InputQueues> =
            Rc::new(RefCell::new(MetadataNode::new(tree, self.settings, random)));
        let refused = |source| StartError::Metadata { path: path.clone(), source };
        let joined = node::join(&node, clock, self.cluster_id).await.map_err(refused);
        let is_refused = joined.is_err();
        let _ = self.joined.send(joined);
        if is_refused {
            return;
        }
        // An error says that the start has ended elsewhere.
        let Ok(shards) = self.shards.await else { return };
        if let Err(error) = node::serve(&node, clock, shards).await {
            let _ = self.started.send(Err(refused(error)));
            return;
        }
        let started = self.started;
        let ready = move |image| {
            let _ = started.send(Ok(image));
        };
        node::run(&node, clock, self.inbox, ready).await;
    }
}

fn on_thread(life: Life, work: WorkPool) -> io::Result<()> {
    let doorbell = EventDoorbell::new()?;
    let executor = Executor::new(doorbell.clone());
    let ring = uring::Ring::new(CONTROL_RING_DEPTH)?;
    let limits = DiskLimits { cold_bytes_max: 0, cachestat: true };
    let counters = Arc::new(ShardCounters::default());
    let platform = LinuxPlatform::new(None, ring, executor.clone(), &[], work, limits, counters);
    let ended = Rc::new(Cell::new(false));
    let (flag, living) = (Rc::clone(&ended), life.live(platform.clone()));
    executor.spawn(async move {
        living.await;
        flag.set(true);
    });
    run::run(&platform, &doorbell, || ended.get())
}
