//! A node in the simulator: the shards and the metadata of one broker process over one disk and one tree. It can be
//! killed, or its power cut, and started again on what is left.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;

use async_channel::Sender;

use super::connection::{self, SimSocket};
use super::disk::FakeDisk;
use super::platform::SimPlatform;
use super::world::World;
use crate::base::ids::ShardId;
use crate::config::{Config, ServeOptions};
use crate::controller::node::{MetadataNode, NodeSettings};
use crate::executor::Executor;
use crate::metadata::embedded::EmbeddedTree;
use crate::metadata::node::{ShardInput, ShardSink};
use crate::metadata::thread;
use crate::metrics::ShardCounters;
use crate::platform::Platform;
use crate::shard::mailbox::Mailboxes;
use crate::shard::metadata_inputs::LastStops;
use crate::shard::shard::{Shard, ShardLimits, ShardParts};
use crate::storage::log_dir;
use crate::storage::log_dirs::LogDirs;

const DATA: &str = "/data";

/// Inputs that may wait for a shard; nothing bounds them here but the test's own size.
const SHARD_INPUTS_MAX: usize = 4096;

/// How large everything is.
#[derive(Clone, Copy, Debug)]
pub struct Capacities {
    pub shards: u16,
    /// Messages from one shard to another.
    pub credits: usize,
    pub limits: ShardLimits,
}

/// What survives the process.
pub struct Remains {
    pub disk: FakeDisk,
    tree: EmbeddedTree,
}

impl Remains {
    /// An empty disk and an empty tree.
    pub fn none() -> Remains {
        Remains { disk: FakeDisk::new(), tree: EmbeddedTree::in_memory().expect("memory") }
    }
}

/// How a process ends.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// kill -9: what was written is there.
    Kill,
    /// What was not synced may be gone, torn or zeroed.
    PowerCut,
}

/// A running process.
pub struct Node {
    world: World,
    disk: FakeDisk,
    executors: Vec<Executor>,
    shards: Vec<Shard<SimPlatform>>,
    tree: Rc<RefCell<Option<MetadataNode<EmbeddedTree, Queues>>>>,
    next_shard: Cell<usize>,
}

struct Queues(Vec<Sender<ShardInput>>);

impl ShardSink for Queues {
    fn shard_count(&self) -> u16 {
        self.0.len() as u16
    }

    fn send(&self, shard: ShardId, input: ShardInput) {
        self.0[shard.index()].try_send(input).expect("room for a test's inputs");
    }
}

impl Node {
    /// Starts a process on what the last one left, and runs the world until every shard shows its first image.
    pub fn start(world: &World, remains: Remains, capacities: Capacities) -> Node {
        let options = ServeOptions {
            set: vec![format!("log.dirs={DATA}"), "num.partitions=4".into()],
            shards: Some(capacities.shards),
            ..ServeOptions::default()
        };
        let config = Arc::new(Config::load(&options).expect("a sound configuration"));
        let Remains { disk, tree } = remains;
        let mut executors = vec![world.executor()];
        let log_dirs = LogDirs::new(&config.log_dirs, 0, || {});
        let last_stops = scan(world, &executors[0], &disk, &log_dirs);

        let (metadata, mut inbox) = thread::channel(capacities.shards);
        let mailboxes = Mailboxes::new(capacities.shards, capacities.credits);
        let mut queues = Vec::new();
        let mut shards = Vec::new();
        for index in 0..capacities.shards {
            let executor = world.executor();
            let (queue, inputs) = async_channel::bounded(SHARD_INPUTS_MAX);
            queues.push(queue);
            shards.push(Shard::start(ShardParts {
                id: ShardId(index),
                platform: SimPlatform::new(world, &executor, &disk),
                config: Arc::clone(&config),
                log_dirs: Arc::clone(&log_dirs),
                metadata: metadata.clone(),
                counters: Arc::new(ShardCounters::default()),
                mailboxes: mailboxes.clone(),
                inputs,
                last_stops: Arc::clone(&last_stops),
                limits: capacities.limits,
            }));
            executors.push(executor);
        }

        // Between two inputs the node rests in its place, where a kill finds the tree.
        let place = Rc::new(RefCell::new(None));
        let shown = Rc::new(Cell::new(false));
        let (resting, dice, ready) = (Rc::clone(&place), world.clone(), Rc::clone(&shown));
        let settings = NodeSettings::new(&config, config.advertised_listener.clone());
        let wall = world.wall();
        executors[0].spawn(async move {
            let random = Box::new(move || dice.next_u64());
            let node = MetadataNode::start(tree, Queues(queues), settings, wall, random).await;
            *resting.borrow_mut() = Some(node.expect("the only controller"));
            loop {
                let room = resting.borrow().as_ref().is_some_and(MetadataNode::has_room);
                let Some(input) = poll_fn(|context| inbox.poll_next(context, room)).await else { return };
                let mut node = resting.borrow_mut().take().expect("nobody else takes it");
                node.handle(input).await;
                ready.set(node.is_shown());
                *resting.borrow_mut() = Some(node);
            }
        });
        world.run_until(|| shown.get());
        log_dirs.set_loaded();
        Node { world: world.clone(), disk, executors, shards, tree: place, next_shard: Cell::new(0) }
    }

    /// A new connection to the next shard in turn: the client's end.
    pub fn connect(&self) -> SimSocket {
        let shard = self.next_shard.get();
        self.next_shard.set((shard + 1) % self.shards.len());
        let (client, server) = connection::connect(&self.world, &self.disk);
        self.shards[shard].serve(server);
        client
    }

    /// Ends the process where it stands.
    pub fn end(self, how: End) -> Remains {
        self.world.end(&self.executors);
        let tree = self.tree.borrow_mut().take().expect("the embedded tree never waits").into_tree();
        let disk = match how {
            End::Kill => self.disk.restart(),
            End::PowerCut => self.disk.power_cut(self.world.next_u64()),
        };
        Remains { disk, tree: tree.reopen().expect("memory") }
    }
}

/// What the start of a real broker scans.
fn scan(world: &World, executor: &Executor, disk: &FakeDisk, log_dirs: &Arc<LogDirs>) -> Arc<LastStops> {
    let platform = SimPlatform::new(world, executor, disk);
    let found = Rc::new(RefCell::new(None));
    let place = Rc::clone(&found);
    let log_dirs = Arc::clone(log_dirs);
    executor.spawn(async move {
        let mut scans = Vec::new();
        for (index, log_dir) in log_dirs.online() {
            scans.push((index, log_dir::scan(platform.disk(), &log_dir.path).await.expect("a log directory")));
        }
        *place.borrow_mut() = Some(LastStops::new(&log_dirs, &scans, Arc::default()).expect("each partition once"));
    });
    world.run_until(|| found.borrow().is_some());
    Arc::new(found.borrow_mut().take().expect("just seen"))
}
