//! A node in the simulator: the shards and the metadata of one broker process over one disk and one tree. It can be
//! stopped, killed, or its power cut, and started again on what is left.

mod directories;
mod remains;
mod tree;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_channel::Sender;

pub use self::remains::{Refused, Remains};
use self::tree::{NodeTree, TreeRemains};
use super::disk::FakeDisk;
use super::host::Host;
use super::invariants::Invariants;
use super::network::Network;
use super::platform::SimPlatform;
use super::socket::SimSocket;
use super::world::World;
use crate::base::class::ByClass;
use crate::base::ids::{BrokerId, ShardId};
use crate::config::{Config, Durability, ServeOptions};
use crate::controller::node::{self, MetadataNode, NodeSettings, SharedNode};
use crate::executor::Executor;
use crate::local::Local;
use crate::local::local::LocalParts;
use crate::local::mailbox::Mailboxes;
use crate::metadata::node::{LocalPartition, ShardInput, ShardSink};
use crate::metadata::publisher::INPUTS_PER_VERSION_MAX;
use crate::metadata::thread;
use crate::metrics::ShardCounters;
use crate::net::connection::Arrival;
use crate::platform::Platform;
use crate::shard::checkpoints;
use crate::shard::cleaner::CleanerSlots;
use crate::shard::shard::{ClosedShard, Shard, ShardLimits, ShardParts};
use crate::storage::cache_mark::{self, CACHE_MARK};
use crate::storage::log_dir;
use crate::storage::log_dirs::LogDirs;

/// Inputs that may wait for a shard: few, so that every test meets a shard that falls behind.
const SHARD_INPUTS_MAX: usize = 2 * INPUTS_PER_VERSION_MAX;

/// Where each node listens.
pub const PORT: u16 = 9092;

/// How large everything is.
#[derive(Clone, Copy, Debug)]
pub struct Capacities {
    pub shards: u16,
    /// Messages from one shard to another.
    pub credits: usize,
    pub limits: ShardLimits,
}

/// What a process is started with.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub capacities: Capacities,
    pub log_dirs: &'static [&'static str],
    pub durability: Durability,
    /// Further settings of `server.properties`.
    pub settings: &'static [&'static str],
    pub rebatch: bool,
    /// Of each log directory; `None`: the default.
    pub unflushed_bytes_max: Option<u64>,
}

impl From<Capacities> for Setup {
    fn from(capacities: Capacities) -> Setup {
        Setup {
            capacities,
            log_dirs: &["/data"],
            durability: Durability::PageCache,
            settings: &[],
            rebatch: false,
            unflushed_bytes_max: None,
        }
    }
}

/// How a process ends.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// kill -9: what was written is there.
    Kill,
    /// What was not synced may be gone, torn or zeroed.
    PowerCut,
    /// In order, and the power is cut right after.
    Stop,
}

/// A running process.
pub struct Node {
    host: Host,
    /// Where the clients of [`Node::connect`] are.
    clients: Host,
    /// Of its first shard.
    platform: SimPlatform,
    disk: FakeDisk,
    log_dirs: Arc<LogDirs>,
    /// How often the broker was told that no log directory is left.
    last_failures: Arc<AtomicUsize>,
    /// The metadata's, then the shards'.
    executors: Vec<Executor>,
    shards: Rc<Shards>,
    metadata: SharedNode<NodeTree, Queues>,
    /// Of the shards: what they are told.
    inputs: Vec<Sender<ShardInput>>,
    cluster_id: String,
}

/// The shards of a process, and whose turn it is to get a connection.
struct Shards {
    all: Vec<Rc<Shard<SimPlatform>>>,
    next: Cell<usize>,
}

impl Shards {
    fn serve_next(&self, socket: SimSocket) {
        let shard = self.next.get();
        self.next.set((shard + 1) % self.all.len());
        self.all[shard].serve(socket, Arrival { listener: "PLAINTEXT".into(), permit: None });
    }
}

struct Queues(Vec<Sender<ShardInput>>);

impl ShardSink for Queues {
    fn shard_count(&self) -> u16 {
        self.0.len() as u16
    }

    fn room(&self, shard: ShardId) -> usize {
        let queue = &self.0[shard.index()];
        queue.capacity().map_or(usize::MAX, |capacity| capacity - queue.len())
    }

    fn send(&self, shard: ShardId, input: ShardInput) {
        self.0[shard.index()].try_send(input).expect("room for a test's inputs");
    }
}

impl Node {
    /// Starts a process on a host that only [`Node::connect`] reaches; see [`Node::start_on`].
    pub fn start(world: &World, remains: Remains, setup: impl Into<Setup>) -> Node {
        Node::start_on(&Network::new(world).add_host(), remains, setup)
    }

    /// Starts a process on what the last one left, and runs the world until every shard shows its first image. Its broker
    /// id is the host's number, and it listens at [`PORT`].
    pub fn start_on(host: &Host, remains: Remains, setup: impl Into<Setup>) -> Node {
        Node::try_start_on(host, remains, setup)
            .unwrap_or_else(|refused| panic!("a cluster that it belongs to: {}", refused.error))
    }

    /// The same; a process whose disk and tree don't belong together ends before it runs a shard.
    pub fn try_start_on(host: &Host, remains: Remains, setup: impl Into<Setup>) -> Result<Node, Box<Refused>> {
        let world = host.world();
        host.switch_on();
        let Setup { capacities, log_dirs, durability, settings, rebatch, unflushed_bytes_max } = setup.into();
        let mut set = vec![format!("log.dirs={}", log_dirs.join(",")), "num.partitions=4".into()];
        set.extend([format!("broker.id={}", host.id().0), format!("listeners=PLAINTEXT://{}", host.address(PORT))]);
        set.extend(settings.iter().map(|setting| (*setting).to_owned()));
        let options = ServeOptions {
            set,
            shards: Some(capacities.shards),
            durability: Some(durability),
            rebatch,
            unflushed_bytes_max,
            ..ServeOptions::default()
        };
        let config = Arc::new(Config::load(&options).expect("a sound configuration"));
        let Remains { disk, tree, cluster_id } = remains;
        let tree = tree.connect();
        let mut executors = vec![world.executor()];
        let last_failures = Arc::new(AtomicUsize::new(0));
        let failed = Arc::clone(&last_failures);
        let remove = disk.remover();
        let log_dirs = LogDirs::new(&config.log_dirs, 0, move |path, left| {
            remove(&path.join(CACHE_MARK));
            failed.fetch_add(usize::from(left == 0), Ordering::Relaxed);
        });
        let (last_stops, scans) = directories::scan(host, &executors[0], &disk, &log_dirs);

        let dice = world.clone();
        let settings = NodeSettings::new(&config, config.advertised_listeners.clone());
        let random = Box::new(move || dice.next_u64());
        let metadata: SharedNode<_, Queues> = Rc::new(RefCell::new(MetadataNode::new(tree, settings, random)));
        let platform = SimPlatform::on(host, &executors[0], &disk);
        let joined = Rc::new(RefCell::new(None));
        let (joining, clock) = (Rc::clone(&metadata), platform.clock().clone());
        let (place, expected) = (Rc::clone(&joined), cluster_id.clone());
        executors[0].spawn(async move {
            let result = node::join(&joining, &clock, expected).await;
            *place.borrow_mut() = Some(result);
        });
        world.run_until(|| joined.borrow().is_some());
        let cluster_id = match joined.take().expect("just seen") {
            Ok(joined) => joined.to_string(),
            Err(error) => {
                host.switch_off();
                world.end(&executors);
                let remains = Remains { disk: disk.restart(), tree: tree_of(metadata, End::Stop), cluster_id };
                return Err(Box::new(Refused { error, remains }));
            }
        };

        let scans = directories::take_over(host, &executors[0], &disk, &log_dirs, scans);
        let (handle, inbox) = thread::channel(capacities.shards);
        let mailboxes = Mailboxes::new(capacities.shards, ByClass::of(|_| capacities.credits));
        let cleaner_slots = CleanerSlots::default();
        let mut queues = Vec::new();
        let mut shards = Vec::new();
        for index in 0..capacities.shards {
            let number = world.executor_count();
            let executor = world.executor();
            let (queue, inputs) = async_channel::bounded(SHARD_INPUTS_MAX);
            queues.push(queue);
            let shard = Rc::new(Shard::start(ShardParts {
                local: LocalParts {
                    shard: ShardId(index),
                    platform: SimPlatform::on(host, &executor, &disk),
                    config: Arc::clone(&config),
                    log_dirs: Arc::clone(&log_dirs),
                    metadata: handle.clone(),
                    counters: Arc::new(ShardCounters::default()),
                    mailboxes: mailboxes.clone(),
                },
                inputs,
                last_stops: Arc::clone(&last_stops),
                cleaner_slots: cleaner_slots.clone(),
                limits: capacities.limits,
            }));
            let (checked, invariants) = (Rc::downgrade(&shard), Invariants::default());
            world.check_after(number, move || {
                if let Some(shard) = checked.upgrade() {
                    invariants.check(&shard);
                }
            });
            shards.push(shard);
            executors.push(executor);
        }

        let (shown, told) = (Rc::new(Cell::new(false)), queues.clone());
        let (running, ready) = (Rc::clone(&metadata), Rc::clone(&shown));
        executors[0].spawn(async move {
            let clock = platform.clock();
            node::serve(&running, clock, Queues(told)).await.expect("a sound tree");
            node::run(&running, clock, inbox, move |_| ready.set(true)).await;
        });
        world.run_until(|| shown.get());
        directories::mark_cache_life(host, &executors[0], &disk, &log_dirs, scans);
        log_dirs.set_loaded();
        let shards = Rc::new(Shards { all: shards, next: Cell::new(0) });
        let serving = Rc::clone(&shards);
        host.listen(PORT, &disk, move |socket| serving.serve_next(socket));
        let (host, clients) = (host.clone(), host.network().add_host());
        let platform = shards.all[0].local().platform.clone();
        let inputs = queues;
        Ok(Node {
            host,
            clients,
            platform,
            disk,
            log_dirs,
            last_failures,
            executors,
            shards,
            metadata,
            inputs,
            cluster_id,
        })
    }

    /// The disk under it, to break.
    pub fn disk(&self) -> &FakeDisk {
        &self.disk
    }

    /// Whether one of its log directories is offline.
    pub fn is_offline(&self, log_dir: usize) -> bool {
        self.log_dirs.all()[log_dir].is_offline()
    }

    /// Appended bytes of the logs in a directory that are not flushed, and those that were flushed so far.
    pub fn unflushed_and_flushed_bytes(&self, log_dir: usize) -> (u64, u64) {
        let log_dir = &self.log_dirs.all()[log_dir];
        (log_dir.unflushed_bytes(), log_dir.flushed_bytes())
    }

    /// How often it was told that no log directory is left.
    pub fn last_failures(&self) -> usize {
        self.last_failures.load(Ordering::Relaxed)
    }

    /// Tasks of all shards.
    pub fn task_count(&self) -> usize {
        self.executors[1..].iter().map(Executor::task_count).sum()
    }

    /// What its shards hold.
    pub fn locals(&self) -> impl Iterator<Item = &Rc<Local<SimPlatform>>> {
        self.shards.all.iter().map(|shard| shard.local())
    }

    pub fn broker_id(&self) -> BrokerId {
        BrokerId(i32::from(self.host.id().0))
    }

    /// Tells the shard of a partition that this broker leads what a controller of several brokers would: under the next
    /// leader epoch these replicas have it, and are all in sync.
    pub fn set_replicas(&self, topic: &str, partition: i32, replicas: &[BrokerId]) {
        let (shard, replica) = self.next_reign(topic, partition);
        self.lead_or_follow(shard, LocalPartition { isr: replicas.to_vec(), replicas: replicas.to_vec(), ..replica });
    }

    /// A replica in reach, and its shard: as that would be told of it under the next leader epoch.
    pub fn next_reign(&self, topic: &str, partition: i32) -> (ShardId, LocalPartition) {
        let owns = |shard: &&Rc<Local<SimPlatform>>| shard.partition(topic, partition).is_some();
        let shard = self.locals().find(owns).expect("a shard of this node has it");
        let image = shard.image();
        let topic = image.topic(topic).expect("the topic is shown");
        let shown = topic.partition(partition).expect("the partition is shown");
        let replica = LocalPartition {
            topic: Arc::clone(&topic.name),
            id: topic.id,
            partition,
            leader: shown.leader,
            leader_epoch: shown.leader_epoch + 1,
            isr: shown.isr.clone(),
            replicas: shown.replicas.clone(),
            partition_epoch: 1,
            is_new: false,
            config: Arc::clone(&topic.config),
        };
        (shard.shard, replica)
    }

    /// Tells a shard of a role.
    pub fn lead_or_follow(&self, shard: ShardId, replica: LocalPartition) {
        self.tell(shard, |image_version| ShardInput::LeaderAndIsr { partitions: vec![replica], image_version });
    }

    /// Tells a shard what others than its own metadata do, with the version of the image that it has.
    pub fn tell(&self, shard: ShardId, input: impl FnOnce(u64) -> ShardInput) {
        let version = self.shards.all[shard.index()].local().image().version;
        self.inputs[shard.index()].try_send(input(version)).expect("room for a test's inputs");
    }

    /// Fetches that wait for partitions, counted at each.
    pub fn watch_count(&self) -> usize {
        let partitions = self.shards.all.iter().flat_map(|shard| shard.local().partitions.all());
        partitions.map(|partition| partition.watch_count()).sum()
    }

    /// A new connection to the next shard in turn: the client's end.
    pub fn connect(&self) -> SimSocket {
        let (client, server) = self.host.network().pair(&self.clients, &self.host, &self.disk);
        self.shards.serve_next(server);
        client
    }

    /// What its first shard has of the machine, for tasks that run there too.
    pub fn platform(&self) -> &SimPlatform {
        &self.platform
    }

    /// Ends the process: where it stands, or in order.
    pub fn end(self, how: End) -> Remains {
        if let End::Stop = how {
            self.stop();
        }
        match how {
            End::Kill => self.host.stop_listening(),
            End::PowerCut | End::Stop => self.host.switch_off(),
        }
        self.host.world().end(&self.executors);
        let tree = tree_of(self.metadata, how);
        let disk = match how {
            End::Kill => self.disk.restart(),
            End::PowerCut | End::Stop => self.disk.power_cut(self.host.world().next_u64()),
        };
        Remains { disk, tree, cluster_id: Some(self.cluster_id) }
    }
}

/// The tree that the next process finds.
fn tree_of(metadata: SharedNode<NodeTree, Queues>, how: End) -> TreeRemains {
    let node = Rc::into_inner(metadata).expect("its task has ended");
    node.into_inner().into_tree().end(how)
}

impl Node {
    /// What the stop of a real broker does.
    fn stop(&self) {
        self.host.stop_listening();
        let world = self.host.world();
        let closed = Rc::new(RefCell::new(Vec::new()));
        for (shard, executor) in self.shards.all.iter().zip(&self.executors[1..]) {
            let (shard, closed) = (Rc::clone(shard), Rc::clone(&closed));
            executor.spawn(async move {
                let lane = shard.close().await;
                closed.borrow_mut().push(lane);
            });
        }
        world.run_until(|| closed.borrow().len() == self.shards.all.len());
        world.end(&self.executors[1..]);
        let mut all = ClosedShard::default();
        closed.take().into_iter().for_each(|lane| all.add(lane));

        let platform = SimPlatform::on(&self.host, &self.executors[0], &self.disk);
        let (log_dirs, done) = (Arc::clone(&self.log_dirs), Rc::new(Cell::new(false)));
        let marked = Rc::clone(&done);
        self.executors[0].spawn(async move {
            let disk = platform.disk();
            for (index, log_dir) in log_dirs.online() {
                let here: Vec<_> = all.checkpoints.iter().filter(|log| log.log_dir == index).cloned().collect();
                checkpoints::write_all(disk, &log_dir.path, &here).await.expect("checkpoints");
                cache_mark::remove(disk, &log_dir.path).await.expect("a mark goes");
                if all.unclean_count == 0 {
                    log_dir::write_clean_shutdown(disk, &log_dir.path, -1).await.expect("a marker");
                }
            }
            marked.set(true);
        });
        world.run_until(|| done.get());
    }
}
