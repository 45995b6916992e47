//! Start order and stop order of the whole process.
//!
//! Start: probe the kernel; lock the data directory; open the admin port; bind the listener; scan the directory; start
//! the shards; start the metadata thread, which makes every shard open its logs; and only when all of them show the
//! first image, accept connections.
//! Stop: shards refuse requests and close their logs; the metadata thread ends; checkpoints are written, and last the
//! clean-shutdown marker, so that whatever stops in between is an unclean stop.

#![forbid(unsafe_code)]

mod import;
mod status;

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use async_channel::{Receiver, Sender};
use futures_channel::oneshot;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{setsockopt, sockopt};

use crate::admin::{Admin, Recovery, Source};
use crate::base::ids::ShardId;
use crate::cli::banner;
use crate::config::{AdminListen, Config, Endpoint};
use crate::controller::import::ImportError;
use crate::controller::node::{MetadataNode, NodeSettings, StartError as NodeError};
use crate::executor::Executor;
use crate::metadata::embedded::{EmbeddedTree, FILE_NAME as TREE_FILE, OpenError};
use crate::metadata::node::{ShardInput, ShardSink};
use crate::metadata::thread::{self as metadata_thread, Inbox, MetadataHandle};
use crate::metrics::ShardCounters;
use crate::net::listener::Listener;
use crate::platform::linux::{DiskLimits, LinuxPlatform, LinuxSocket};
use crate::platform::{Clock, Disk, Platform, Random, Tasks};
use crate::shard::checkpoints;
use crate::shard::mailbox::{CREDITS_DEFAULT, Mailboxes};
use crate::shard::message::Message;
use crate::shard::metadata_inputs::LastStops;
use crate::shard::run;
use crate::shard::shard::{ClosedShard, Shard, ShardLimits, ShardParts};

use crate::storage::log::LogError;
use crate::storage::log_dir::{self, LogDirError, MetaProperties};
use crate::sys;
use crate::uring::doorbell::EventDoorbell;
use crate::uring::probe::{self, Refused};
use crate::uring::{self};
use crate::worker::{Helper, WorkPool};

use status::Status;

const LOCK_FILE: &str = ".lock";

/// Threads for CPU-heavy jobs.
const WORK_THREADS: usize = 2;

/// Connections accepted and not yet taken by their shard.
const CONNECTIONS_QUEUED_MAX: usize = 1024;

/// Inputs from the metadata thread that wait for a shard. The metadata thread stops long before, see
/// `metadata::publisher::UNAPPLIED_IMAGES_MAX`: at most three inputs for each image.
const SHARD_INPUTS_MAX: usize = 1024;

/// Submission entries of the ring that the start and the stop use for themselves.
const START_RING_DEPTH: u32 = 64;

/// What the clean-shutdown marker says where no ZooKeeper gives brokers epochs.
const NO_BROKER_EPOCH: i64 = -1;

/// Exit code when a second signal cuts an orderly stop short.
const EXIT_FORCED: i32 = 130;

/// Why the broker does not start; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Kernel(#[from] Refused),
    #[error("the data directory {path} can't be used: {source}; choose another one with --data")]
    Directory { path: PathBuf, source: io::Error },
    #[error(
        "{0} is in use by another process (it holds .lock there); stop that one or choose another directory with --data"
    )]
    Locked(PathBuf),
    #[error(transparent)]
    LogDir(#[from] LogDirError),
    #[error(
        "{0} is a Kafka broker's and has no metadata of ringlog ({TREE_FILE}); start once with --import to take its \
         topics over, or choose an empty directory with --data"
    )]
    NoTree(PathBuf),
    #[error("{0} has metadata of ringlog ({TREE_FILE}), so there is nothing to import; start without --import")]
    TreeExists(PathBuf),
    #[error("{0} holds nothing that a Kafka broker left; name Kafka's log.dirs with --data, or start without --import")]
    NothingToImport(PathBuf),
    #[error("{path} can't be imported: {error}")]
    Import { path: PathBuf, error: ImportError },
    #[error("the directory can't be imported: {0}")]
    Unreadable(LogError),
    #[error(
        "meta.properties in {path} says {name}={found}, but this broker has {expected}; it belongs to another broker or cluster"
    )]
    WrongBroker { path: PathBuf, name: &'static str, found: String, expected: String },
    #[error("{0}; choose another address with --set listeners=PLAINTEXT://HOST:PORT")]
    Listen(io::Error),
    #[error("the admin port can't listen on {address}: {source}; choose another one with --admin-listen")]
    AdminListen { address: SocketAddr, source: io::Error },
    #[error("the metadata tree can't be opened: {0}")]
    Tree(#[from] OpenError),
    #[error("the metadata can't be taken over: {0}")]
    Metadata(#[from] NodeError),
    #[error("a thread could not be started: {0}")]
    Thread(io::Error),
    #[error("a shard ended at its start; the log says why")]
    ShardEnded,
}

/// Runs a broker until SIGINT or SIGTERM; says on standard output what it serves and on standard error what is wrong.
pub fn run(config: Config) -> ExitCode {
    start_logging();
    let signals = stop_signals();
    // Blocked in every thread that is started from here on, so that only `wait` below sees them.
    if let Err(error) = signals.thread_block() {
        eprintln!("ringlog: signals can't be blocked: {error}");
        return ExitCode::FAILURE;
    }
    let broker = match Broker::start(config) {
        Ok(broker) => broker,
        Err(error) => {
            eprintln!("ringlog: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("{}", broker.banner());
    let offline: u64 = broker.counters.iter().map(|shard| shard.partitions_offline_now.get()).sum();
    if offline > 0 {
        println!("  OFFLINE     {offline} partitions, whose logs can't be opened: standard error says why");
    }
    let signal = signals.wait();
    tracing::info!(?signal, "stopping; a second signal ends the process at once");
    thread::spawn(move || {
        let _ = signals.wait();
        std::process::exit(EXIT_FORCED);
    });
    match broker.stop() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringlog: the stop was not clean, the next start recovers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("RINGLOG_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    // Fails only if a test has set one up already.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
        .with_writer(io::stderr)
        .try_init();
}

fn stop_signals() -> SigSet {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals
}

/// A broker that serves, in this process.
pub struct Broker {
    config: Arc<Config>,
    advertised: Endpoint,
    address: SocketAddr,
    counters: Vec<Arc<ShardCounters>>,
    shards: Vec<ShardHandle>,
    metadata: MetadataHandle,
    metadata_thread: JoinHandle<()>,
    helper: Helper,
    work: WorkPool,
    status: Arc<Status>,
    admin: Option<Admin>,
    /// Held for the broker's life.
    _lock: File,
}

struct ShardHandle {
    stop: Sender<()>,
    closed: std::sync::mpsc::Receiver<ClosedShard>,
    thread: JoinHandle<()>,
}

impl Broker {
    /// Starts, recovers, and returns when connections are accepted.
    pub fn start(mut config: Config) -> Result<Broker, StartError> {
        probe::check()?;
        raise_file_limit();
        let lock = lock_directory(&config.log_dir)?;
        let status = Status::new(config.log_dir.clone(), Recovery::default);
        let admin = start_admin(&mut config, &status)?;
        let listener = Listener::bind(&config.listener.host, config.listener.port, config.socket_listen_backlog_size)
            .map_err(StartError::Listen)?;
        let address = listener.address;
        let mut advertised = config.advertised_listener.clone();
        if advertised.port == 0 {
            advertised.port = address.port();
        }
        let (helper, _) = Helper::start("disk-0").map_err(StartError::Thread)?;
        let work = WorkPool::start(WORK_THREADS).map_err(StartError::Thread)?;

        let log_dir = config.log_dir.clone();
        let (scan, meta) = on_own_ring(&config.log_dir, &helper, &work, |platform| async move {
            // First, since the scan takes the clean-shutdown marker away, and this may refuse the directory.
            let meta = log_dir::read_meta_properties(platform.disk(), &log_dir).await?;
            let scan = log_dir::scan(platform.disk(), &log_dir).await?;
            Ok::<_, LogDirError>((scan, meta))
        })??;
        config.warnings.extend(import::settle_tree(&config, &scan, meta.as_ref(), &helper, &work)?);
        if !scan.deleted.is_empty() {
            on_own_ring(&config.log_dir, &helper, &work, |platform| remove_deleted(platform, scan.deleted))?;
        }

        let config = Arc::new(config);
        let (metadata, inbox) = metadata_thread::channel(config.shards);
        let starting = Starting {
            config: Arc::clone(&config),
            helper: helper.clone(),
            work: work.clone(),
            metadata: metadata.clone(),
            mailboxes: Mailboxes::new(config.shards, CREDITS_DEFAULT),
            last_stops: Arc::new(LastStops {
                unclean: !scan.clean,
                recovery_points: scan.recovery_points,
                log_start_offsets: scan.log_start_offsets,
            }),
        };
        let (shards, shard_inputs, connections, counters) = start_shards(&starting)?;
        status.set_shards(counters.clone());
        let (metadata_thread, cluster_id) = start_metadata(&config, &advertised, inbox, shard_inputs)?;
        check_meta(&config.log_dir, meta.as_ref(), "cluster.id", &cluster_id, |meta| meta.cluster_id.clone())?;
        write_meta(&starting, meta, cluster_id)?;

        let targets = counters.iter().cloned().zip(connections.queues).collect();
        connections.listener.send((listener, targets)).map_err(|_| StartError::ShardEnded)?;
        status.set_serving();
        Ok(Broker {
            config,
            advertised,
            address,
            counters,
            shards,
            metadata,
            metadata_thread,
            helper,
            work,
            status,
            admin,
            _lock: lock,
        })
    }

    /// Where it listens, with the port really bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the admin port listens, if there is one.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Admin::address)
    }

    fn banner(&self) -> String {
        let file_system = file_system(&self.config.log_dir);
        banner::text(&self.config, &self.advertised, self.admin_address(), &file_system)
    }

    /// By shard.
    pub fn counters(&self) -> &[Arc<ShardCounters>] {
        &self.counters
    }

    /// Stops in order. After an error the next start recovers.
    pub fn stop(self) -> Result<(), StartError> {
        self.status.set_stopping();
        for shard in &self.shards {
            // Fails only when the shard has ended.
            let _ = shard.stop.send_blocking(());
        }
        let mut closed = ClosedShard::default();
        for shard in self.shards {
            closed.add(shard.closed.recv().map_err(|_| StartError::ShardEnded)?);
            shard.thread.join().map_err(|_| StartError::ShardEnded)?;
        }
        self.metadata.stop();
        self.metadata_thread.join().map_err(|_| StartError::ShardEnded)?;
        let log_dir = self.config.log_dir.clone();
        on_own_ring(&self.config.log_dir, &self.helper, &self.work, |platform| async move {
            checkpoints::write(platform.disk(), &log_dir, &closed.checkpoints).await?;
            if closed.unclean_count == 0 {
                log_dir::write_clean_shutdown(platform.disk(), &log_dir, NO_BROKER_EPOCH).await?;
            } else {
                tracing::warn!(
                    logs = closed.unclean_count,
                    "the next start recovers: not all logs were closed in order"
                );
            }
            Ok::<_, LogDirError>(())
        })??;
        Ok(())
    }
}

/// Creates the directory if it is missing and takes its lock, as Kafka does (`LogManager.lockLogDirs`).
fn lock_directory(log_dir: &Path) -> Result<File, StartError> {
    let failed = |source| StartError::Directory { path: log_dir.to_owned(), source };
    if log_dir.exists() && !log_dir.is_dir() {
        return Err(failed(io::ErrorKind::NotADirectory.into()));
    }
    std::fs::create_dir_all(log_dir).map_err(failed)?;
    let lock = File::options().create(true).append(true).open(log_dir.join(LOCK_FILE)).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(std::fs::TryLockError::WouldBlock) => Err(StartError::Locked(log_dir.to_owned())),
        Err(std::fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Opens the admin port. One that nobody asked for does without its address if another process has it.
fn start_admin(config: &mut Config, status: &Arc<Status>) -> Result<Option<Admin>, StartError> {
    let (address, is_default) = match config.admin_listen {
        AdminListen::Off => return Ok(None),
        AdminListen::Default => (AdminListen::DEFAULT_ADDRESS, true),
        AdminListen::At(address) => (address, false),
    };
    match Admin::start(address, Arc::clone(status) as Arc<dyn Source>) {
        Ok(admin) => Ok(Some(admin)),
        Err(error) if is_default => {
            let note = format!(
                "no admin port: {address} can't be listened on ({error}); name another one with --admin-listen, or none"
            );
            config.warnings.push(note);
            Ok(None)
        }
        Err(source) => Err(StartError::AdminListen { address, source }),
    }
}

/// Removes what a broker before had begun to delete.
async fn remove_deleted(platform: LinuxPlatform, deleted: Vec<PathBuf>) {
    for leftover in deleted {
        if let Err(error) = platform.disk().remove_directory(&leftover).await {
            tracing::warn!(directory = %leftover.display(), %error, "a deleted partition is still there");
        }
    }
}

/// What `meta.properties` says must be what this broker is.
fn check_meta(
    log_dir: &Path,
    meta: Option<&MetaProperties>,
    name: &'static str,
    expected: &str,
    of: impl Fn(&MetaProperties) -> Option<String>,
) -> Result<(), StartError> {
    match meta.and_then(of) {
        Some(found) if found != expected => {
            Err(StartError::WrongBroker { path: log_dir.to_owned(), name, found, expected: expected.to_owned() })
        }
        _ => Ok(()),
    }
}

fn write_meta(starting: &Starting, meta: Option<MetaProperties>, cluster_id: String) -> Result<(), StartError> {
    let wanted = MetaProperties {
        broker_id: Some(starting.config.broker_id.0),
        cluster_id: Some(cluster_id),
        others: meta.as_ref().map(|meta| meta.others.clone()).unwrap_or_default(),
    };
    if meta.as_ref() == Some(&wanted) {
        return Ok(());
    }
    let log_dir = starting.config.log_dir.clone();
    on_own_ring(&starting.config.log_dir, &starting.helper, &starting.work, |platform| async move {
        log_dir::write_meta_properties(platform.disk(), &log_dir, &wanted).await
    })??;
    Ok(())
}

/// Runs one piece of asynchronous work on the calling thread, over a ring of its own.
fn on_own_ring<T: 'static, F: Future<Output = T> + 'static>(
    log_dir: &Path,
    helper: &Helper,
    work: &WorkPool,
    job: impl FnOnce(LinuxPlatform) -> F,
) -> Result<T, StartError> {
    let doorbell = EventDoorbell::new().map_err(StartError::Thread)?;
    let executor = Executor::new(doorbell.clone());
    let ring = uring::Ring::new(START_RING_DEPTH).map_err(probe::explain)?;
    let counters = Arc::new(ShardCounters::default());
    let limits = DiskLimits::of(log_dir, 0, true);
    let platform = LinuxPlatform::new(ring, executor.clone(), helper.clone(), work.clone(), limits, counters);
    let result = Rc::new(std::cell::RefCell::new(None));
    let (place, future) = (Rc::clone(&result), job(platform.clone()));
    executor.spawn(async move {
        let value = future.await;
        *place.borrow_mut() = Some(value);
    });
    run::run(&platform, &doorbell, || result.borrow().is_some()).map_err(StartError::Thread)?;
    let value = result.borrow_mut().take();
    value.ok_or(StartError::ShardEnded)
}

/// What every shard is started with.
struct Starting {
    config: Arc<Config>,
    helper: Helper,
    work: WorkPool,
    metadata: MetadataHandle,
    mailboxes: Mailboxes<Message<LinuxPlatform>>,
    last_stops: Arc<LastStops>,
}

type Targets = Vec<(Arc<ShardCounters>, Sender<OwnedFd>)>;

/// How connections get to the shards: the listener goes to shard 0, which hands them out.
struct Connections {
    queues: Vec<Sender<OwnedFd>>,
    listener: oneshot::Sender<(Listener, Targets)>,
}

type StartedShards = (Vec<ShardHandle>, Vec<Sender<ShardInput>>, Connections, Vec<Arc<ShardCounters>>);

fn start_shards(starting: &Starting) -> Result<StartedShards, StartError> {
    let cores = if starting.config.pin { sys::allowed_cores().map_err(StartError::Thread)? } else { Vec::new() };
    let (listener, listener_receiver) = oneshot::channel();
    let mut listener_receiver = Some(listener_receiver);
    let (mut handles, mut inputs, mut queues, mut counters) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for index in 0..starting.config.shards {
        let (input, input_receiver) = async_channel::bounded(SHARD_INPUTS_MAX);
        let (queue, queue_receiver) = async_channel::bounded(CONNECTIONS_QUEUED_MAX);
        let (stop, stop_receiver) = async_channel::bounded(1);
        let (closed_sender, closed) = std::sync::mpsc::channel();
        let shard_counters = Arc::new(ShardCounters::default());
        let parts = ShardThread {
            id: ShardId(index),
            core: cores.get(usize::from(index) % cores.len().max(1)).copied(),
            config: Arc::clone(&starting.config),
            helper: starting.helper.clone(),
            work: starting.work.clone(),
            metadata: starting.metadata.clone(),
            mailboxes: starting.mailboxes.clone(),
            last_stops: Arc::clone(&starting.last_stops),
            counters: Arc::clone(&shard_counters),
            inputs: input_receiver,
            connections: queue_receiver,
            listener: listener_receiver.take(),
            stop: stop_receiver,
            closed: closed_sender,
        };
        let builder = thread::Builder::new().name(format!("shard-{index}"));
        let thread = builder.spawn(move || parts.run()).map_err(StartError::Thread)?;
        handles.push(ShardHandle { stop, closed, thread });
        inputs.push(input);
        queues.push(queue);
        counters.push(shard_counters);
    }
    Ok((handles, inputs, Connections { queues, listener }, counters))
}

/// Everything a shard's thread is given.
struct ShardThread {
    id: ShardId,
    core: Option<usize>,
    config: Arc<Config>,
    helper: Helper,
    work: WorkPool,
    metadata: MetadataHandle,
    mailboxes: Mailboxes<Message<LinuxPlatform>>,
    last_stops: Arc<LastStops>,
    counters: Arc<ShardCounters>,
    inputs: Receiver<ShardInput>,
    connections: Receiver<OwnedFd>,
    listener: Option<oneshot::Receiver<(Listener, Targets)>>,
    stop: Receiver<()>,
    closed: std::sync::mpsc::Sender<ClosedShard>,
}

impl ShardThread {
    fn run(self) {
        let id = self.id;
        if let Err(error) = self.serve() {
            // A shard without its ring can serve nothing, and its partitions live nowhere else.
            tracing::error!(shard = id.0, %error, "a shard has failed; the process ends");
            std::process::abort();
        }
    }

    fn serve(self) -> io::Result<()> {
        if let Some(core) = self.core {
            sys::pin_to_core(core)?;
        }
        let doorbell = EventDoorbell::new()?;
        let executor = Executor::new(doorbell.clone());
        let ring = uring::Ring::new(self.config.ring_depth)?;
        let limits = DiskLimits::of(&self.config.log_dir, self.config.cold_bytes_max, self.config.cachestat);
        let counters = Arc::clone(&self.counters);
        let platform =
            LinuxPlatform::new(ring, executor, self.helper.clone(), self.work.clone(), limits, Arc::clone(&counters));
        let shard = Rc::new(Shard::start(ShardParts {
            id: self.id,
            platform: platform.clone(),
            config: Arc::clone(&self.config),
            metadata: self.metadata.clone(),
            counters,
            mailboxes: self.mailboxes.clone(),
            inputs: self.inputs.clone(),
            last_stops: Arc::clone(&self.last_stops),
            limits: ShardLimits::default(),
        }));
        platform.tasks().spawn(take_connections(platform.clone(), Rc::clone(&shard), self.connections.clone()));
        if let Some(listener) = self.listener {
            let accepting = platform.clone();
            platform.tasks().spawn(async move {
                if let Ok((listener, targets)) = listener.await {
                    listener.accept(accepting, targets).await;
                }
            });
        }
        let stopped = Rc::new(std::cell::Cell::new(false));
        let (flag, stop, closed, closing) = (Rc::clone(&stopped), self.stop, self.closed, Rc::clone(&shard));
        platform.tasks().spawn(async move {
            // An error says that the broker is gone: stop as well.
            let _ = stop.recv().await;
            let _ = closed.send(closing.close().await);
            flag.set(true);
        });
        run::run(&platform, &doorbell, || stopped.get())
    }
}

async fn take_connections(platform: LinuxPlatform, shard: Rc<Shard<LinuxPlatform>>, connections: Receiver<OwnedFd>) {
    while let Ok(descriptor) = connections.recv().await {
        let (ring, executor) = (platform.ring().clone(), platform.executor().clone());
        let sized = set_socket_buffers(&descriptor, &shard.context().config);
        match sized.and_then(|()| LinuxSocket::new(ring, executor, Arc::clone(platform.counters()), descriptor)) {
            Ok(socket) => shard.serve(socket),
            Err(error) => tracing::debug!(%error, "a connection was gone before it was served"),
        }
    }
}

/// Only what `server.properties` names: the kernel tunes buffers better than a fixed size, and stops once one is set.
fn set_socket_buffers(descriptor: &OwnedFd, config: &Config) -> io::Result<()> {
    if let Some(bytes) = config.socket_send_buffer_bytes {
        setsockopt(descriptor, sockopt::SndBuf, &(bytes as usize))?;
    }
    if let Some(bytes) = config.socket_receive_buffer_bytes {
        setsockopt(descriptor, sockopt::RcvBuf, &(bytes as usize))?;
    }
    Ok(())
}

/// The metadata thread's way to the shards' input queues.
struct InputQueues(Vec<Sender<ShardInput>>);

impl ShardSink for InputQueues {
    fn shard_count(&self) -> u16 {
        u16::try_from(self.0.len()).expect("as many as shards")
    }

    fn send(&self, shard: ShardId, input: ShardInput) {
        // The bound is far above what the publisher lets be under way. A closed queue: the process stops.
        if let Err(async_channel::TrySendError::Full(_)) = self.0[shard.index()].try_send(input) {
            unreachable!("the publisher waits long before {SHARD_INPUTS_MAX} inputs are under way");
        }
    }
}

/// Starts the metadata thread and waits until every shard shows the first image; gives the cluster id.
fn start_metadata(
    config: &Arc<Config>,
    advertised: &Endpoint,
    inbox: Inbox,
    inputs: Vec<Sender<ShardInput>>,
) -> Result<(JoinHandle<()>, String), StartError> {
    let (sender, started) = std::sync::mpsc::channel();
    let settings = NodeSettings::new(config, advertised.clone());
    let tree_path = config.log_dir.join(TREE_FILE);
    let thread = metadata_thread::spawn(move || async move {
        let random = Box::new(|| crate::platform::linux::LinuxRandom.next_u64());
        let wall = crate::platform::linux::LinuxClock::start().wall();
        let started = match EmbeddedTree::open(&tree_path) {
            Ok(tree) => MetadataNode::start(tree, InputQueues(inputs), settings, wall, random)
                .await
                .map_err(StartError::Metadata),
            Err(error) => Err(StartError::Tree(error)),
        };
        match started {
            Ok(node) => {
                let cluster_id = node.image().cluster_id.to_string();
                crate::controller::node::run(node, inbox, move || {
                    let _ = sender.send(Ok(cluster_id));
                })
                .await;
            }
            Err(error) => {
                let _ = sender.send(Err(error));
            }
        }
    })
    .map_err(StartError::Thread)?;
    let cluster_id = started.recv().map_err(|_| StartError::ShardEnded)??;
    Ok((thread, cluster_id))
}

/// As many open files as the process may have.
fn raise_file_limit() {
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// The file system's name, as `/proc/self/mountinfo` has it for the mount that holds the directory.
fn file_system(directory: &Path) -> String {
    let unknown = || "an unknown file system".to_owned();
    let Ok(directory) = directory.canonicalize() else { return unknown() };
    let Ok(mounts) = std::fs::read_to_string("/proc/self/mountinfo") else { return unknown() };
    let holding = mounts.lines().filter_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mount_point = mount.split(' ').nth(4)?;
        directory.starts_with(mount_point).then(|| (mount_point.len(), file_system.split(' ').next()))
    });
    holding.max_by_key(|(length, _)| *length).and_then(|(_, name)| name).map_or_else(unknown, str::to_owned)
}
