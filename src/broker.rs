//! Start order and stop order of the whole process.
//!
//! Start: probe the kernel; lock the log directories; open the admin port; bind the listener; read what is in the
//! directories (an import makes the tree of it); start the control thread, which looks whether the directories and the
//! metadata tree belong together and reads the settings. Until then a refusal, or a kill, leaves the directories as they
//! were. Then take the markers of a clean stop away; start the shards; have the control thread register the broker and
//! make every shard open its logs; and only when all of them show the first image, accept connections.
//! Stop: nothing is accepted any more, and what is under way is answered for a bounded time; shards refuse requests and
//! close their logs; the control thread ends; checkpoints are written, and last the
//! clean-shutdown marker, so that whatever stops in between is an unclean stop.

#![forbid(unsafe_code)]

mod control;
mod directories;
mod files;
mod import;
mod logging;
mod reread;
mod service;
mod shards;
mod signals;
mod status;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::admin::{Admin, Source};
use crate::cli::banner;
use crate::config::{AdminListen, Config, Endpoint};
use crate::controller::import::ImportError;
use crate::controller::node::StartError as NodeError;
use crate::executor::Executor;
use crate::local::mailbox::{CREDITS_DEFAULT, Mailboxes};
use crate::metadata::embedded::{FILE_NAME as TREE_FILE, OpenError};
use crate::metadata::thread::{MetadataHandle, channel};
use crate::metrics::{RecoveryProgress, ShardCounters};
use crate::net::listener::{Acceptor, Listener, Targets};
use crate::net::quotas::ConnectionQuotas;
use crate::platform::linux::{Directory, DiskLimits, LinuxPlatform};
use crate::shard::cleaner::CleanerSlots;
use crate::shard::metadata_inputs::FoundTwice;
use crate::shard::run;
use crate::shard::shard::ClosedShard;
use crate::storage::log::LogError;
use crate::storage::log_dir::LogDirError;
use crate::uring;
use crate::uring::doorbell::EventDoorbell;
use crate::uring::probe::{self, Refused};
use crate::worker::WorkPool;

use control::{Control, InputQueues};
use directories::{Directories, file_system};
use files::{raise_file_limit, too_few_files};
use reread::Running;
use shards::{ShardHandle, Starting, Stop, start_shards};
use signals::{Asked, Signals};
use status::Status;

/// Threads for CPU-heavy jobs.
const WORK_THREADS: usize = 2;

/// Submission entries of the ring that the start and the stop use for themselves.
const START_RING_DEPTH: u32 = 64;

/// How often the start says how far the recovery of the logs is; one that takes less says nothing.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// Exit code when an orderly stop takes longer than it may: that of `timeout(1)`.
const EXIT_STOP_TIMEOUT: i32 = 124;

/// Why the broker does not start; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Kernel(#[from] Refused),
    #[error("the log directory {path} can't be used: {source}; mend it, or choose another one with --data or log.dirs")]
    Directory { path: PathBuf, source: io::Error },
    #[error(
        "{path} is in use by {holder}, a ringlog or a Kafka (it holds .lock there, a Kafka that stops until its logs are \
         closed); stop that one and wait for its end, or choose another directory with --data or log.dirs"
    )]
    Locked { path: PathBuf, holder: String },
    #[error("{first} and {second} of log.dirs are one directory; name it once")]
    SameDirectory { first: PathBuf, second: PathBuf },
    #[error(transparent)]
    LogDir(#[from] LogDirError),
    #[error(transparent)]
    FoundTwice(#[from] FoundTwice),
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
    #[error(
        "the metadata tree {path} can't be opened: {source}; see to that, and to the room and health of its file system"
    )]
    Tree { path: PathBuf, source: OpenError },
    #[error(
        "the metadata in {path} can't be taken over: {source}; see to that, and to the room and health of its file system"
    )]
    Metadata { path: PathBuf, source: NodeError },
    #[error("a thread could not be started: {0}")]
    Thread(io::Error),
    #[error("a shard ended at its start; the log says why")]
    ShardEnded,
}

/// Runs a broker until SIGINT or SIGTERM; says on standard output what it serves and on standard error what is wrong.
/// `reread` reads the settings again, as SIGHUP asks for.
pub fn run(config: Config, reread: impl Fn() -> Result<Config, String>) -> ExitCode {
    logging::start(&config);
    use_small_pages();
    let signals = match Signals::start() {
        Ok(signals) => signals,
        Err(error) => {
            eprintln!("ringlog: signals can't be waited for: {error}");
            return ExitCode::FAILURE;
        }
    };
    let broker = match Broker::start_telling(config, || signals.set_serving()) {
        Ok(broker) => broker,
        Err(error) => {
            eprintln!("ringlog: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("{}", broker.banner());
    for log_dir in broker.directories.log_dirs.all().iter().filter(|log_dir| log_dir.is_offline()) {
        println!("  OFFLINE     {}: standard error says why", log_dir.path.display());
    }
    let offline: u64 = broker.counters.iter().map(|shard| shard.partitions_offline_now.get()).sum();
    if offline > 0 {
        println!("  OFFLINE     {offline} partitions, whose logs can't be opened: standard error says why");
    }
    service::ready(&format!("serving {}", broker.advertised_text()));
    let mut running = Running::new(&broker.config);
    while let Some(asked) = signals.next() {
        match asked {
            Asked::Reread => running.take(reread(), &broker.metadata),
            Asked::Stop(signal) => {
                tracing::info!(%signal, "stopping; a second signal ends the process at once");
                break;
            }
        }
    }
    match broker.stop_within(running.stop_timeout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringlog: the stop was not clean, the next start recovers: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Ends the process when an orderly stop takes longer than it may, unless what is given is dropped before.
fn end_after(timeout: Duration) -> std::sync::mpsc::Sender<()> {
    let (in_time, ended) = std::sync::mpsc::channel();
    let watch = move || {
        if ended.recv_timeout(timeout) == Err(RecvTimeoutError::Timeout) {
            tracing::error!(
                ?timeout,
                "the stop took longer than --stop-timeout; the process ends, the next start recovers"
            );
            std::process::exit(EXIT_STOP_TIMEOUT);
        }
    };
    if let Err(error) = thread::Builder::new().name("deadline".to_owned()).spawn(watch) {
        tracing::warn!(%error, "the stop may take as long as it likes");
    }
    in_time
}

/// A broker that serves, in this process.
pub struct Broker {
    config: Arc<Config>,
    advertised: Vec<Endpoint>,
    addresses: Vec<SocketAddr>,
    counters: Vec<Arc<ShardCounters>>,
    shards: Vec<ShardHandle>,
    metadata: MetadataHandle,
    control_thread: JoinHandle<()>,
    directories: Arc<Directories>,
    work: WorkPool,
    status: Arc<Status>,
    admin: Option<Admin>,
}

impl Broker {
    /// Starts, recovers, and returns when connections are accepted.
    pub fn start(config: Config) -> Result<Broker, StartError> {
        Broker::start_telling(config, || ())
    }

    /// The same; `serves` is called just before anybody can see that the broker serves.
    fn start_telling(mut config: Config, serves: impl FnOnce()) -> Result<Broker, StartError> {
        probe::check()?;
        raise_file_limit();
        for (name, value) in config.dynamic.overrides() {
            tracing::warn!(name, value, "--override: for this run it does not count what clients have set");
        }
        let directories = Arc::new(Directories::lock(&config)?);
        let progress = Arc::new(RecoveryProgress::default());
        let status = Status::new(Arc::clone(&directories), Arc::clone(&progress));
        let admin = start_admin(&mut config, &status)?;
        let listeners = bind_all(&config)?;
        let addresses: Vec<_> = listeners.iter().map(|listener| listener.address).collect();
        let advertised = with_bound_ports(&config, &addresses);
        let work = WorkPool::start(WORK_THREADS).map_err(StartError::Thread)?;

        let found = directories.scan(&progress, &work)?;
        config.warnings.extend(import::settle_tree(&config, &directories, &found, &work)?);
        config.warnings.extend(too_few_files(&config, found.partitions().count()));

        let config = Arc::new(config);
        let (metadata, inbox) = channel(config.shards);
        let control = Control::join(&config, &advertised, &directories, &found, inbox, &work)?;
        directories.take_markers(&found, &work)?;
        directories.remove_deleted(&found, &work)?;
        let starting = Starting {
            config: Arc::clone(&config),
            directories: Arc::clone(&directories),
            work: work.clone(),
            metadata: metadata.clone(),
            mailboxes: Mailboxes::new(config.shards, CREDITS_DEFAULT),
            last_stops: Arc::new(found.last_stops.clone()),
            cleaner_slots: CleanerSlots::default(),
        };
        let (shards, shard_inputs, connections, watched) = start_shards(&starting)?;
        let counters: Vec<_> = watched.iter().map(|shard| Arc::clone(&shard.counters)).collect();
        status.set_shards(watched, work.clone());
        let quotas = ConnectionQuotas::new(config.dynamic.connection_quotas.clone());
        let inputs = InputQueues { shards: shard_inputs, quotas: Arc::clone(&quotas) };
        let cluster_id = Arc::clone(&control.cluster_id);
        let (control_thread, image) = control.serve(inputs, &progress)?;
        directories.name_strays(&found, &image);
        directories.write_meta(&found, &config, &cluster_id, &work)?;
        directories.mark_cache_life(&found, &work)?;

        let targets: Targets = counters.iter().cloned().zip(connections.queues).collect();
        let acceptors =
            listeners.into_iter().zip(&config.listeners).enumerate().map(|(index, (listener, endpoint))| {
                let (quotas, targets) = (Arc::clone(&quotas), targets.clone());
                Acceptor { listener, name: Arc::clone(&endpoint.listener), index, quotas, targets }
            });
        serves();
        connections.acceptors.send(acceptors.collect()).map_err(|_| StartError::ShardEnded)?;
        directories.log_dirs.set_loaded();
        status.set_serving();
        Ok(Broker {
            config,
            advertised,
            addresses,
            counters,
            shards,
            metadata,
            control_thread,
            directories,
            work,
            status,
            admin,
        })
    }

    /// Where the first listener listens, with the port really bound.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Where all listeners listen, in the order of the settings.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where the admin port listens, if there is one.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Admin::address)
    }

    fn banner(&self) -> String {
        let file_systems: Vec<_> = self.config.log_dirs.iter().map(|path| file_system(path)).collect();
        banner::text(&self.config, &self.advertised, self.admin_address(), &file_systems)
    }

    /// By shard.
    pub fn counters(&self) -> &[Arc<ShardCounters>] {
        &self.counters
    }

    fn advertised_text(&self) -> String {
        self.advertised.iter().map(Endpoint::to_string).collect::<Vec<_>>().join(", ")
    }

    /// Stops in order. After an error the next start recovers.
    pub fn stop(self) -> Result<(), StartError> {
        let drain = self.config.stop_timeout / 2;
        self.drain_and_close(drain)
    }

    /// The same, and the process ends if it takes longer than `timeout`.
    fn stop_within(self, timeout: Duration) -> Result<(), StartError> {
        let in_time = end_after(timeout);
        let stopped = self.drain_and_close(timeout / 2);
        drop(in_time);
        stopped
    }

    /// Requests under way have the time of `drain` to be answered.
    fn drain_and_close(self, drain: Duration) -> Result<(), StartError> {
        self.status.set_stopping();
        let connections: u64 = self.counters.iter().map(|shard| shard.connections_now.get()).sum();
        tracing::info!(connections, at_most = ?drain, "nothing is accepted any more; requests under way are answered");
        service::stopping("answering requests under way");
        for shard in &self.shards {
            // Fails only when the shard has ended.
            let _ = shard.stop.send_blocking(Stop::Drain(drain));
        }
        let mut busy = 0;
        for shard in &self.shards {
            busy += shard.drained.recv().map_err(|_| StartError::ShardEnded)?;
        }
        if busy > 0 {
            tracing::warn!(connections = busy, "closing connections whose requests are not answered in time");
        }
        let partitions: u64 =
            self.directories.log_dirs.all().iter().map(|log_dir| log_dir.partition_count() as u64).sum();
        tracing::info!(partitions, "writing and closing the logs");
        service::status("writing and closing the logs");
        for shard in &self.shards {
            let _ = shard.stop.send_blocking(Stop::Close);
        }
        let mut closed = ClosedShard::default();
        for shard in self.shards {
            closed.add(shard.closed.recv().map_err(|_| StartError::ShardEnded)?);
            shard.thread.join().map_err(|_| StartError::ShardEnded)?;
        }
        self.metadata.stop();
        self.control_thread.join().map_err(|_| StartError::ShardEnded)?;
        if closed.unclean_count > 0 {
            tracing::warn!(logs = closed.unclean_count, "the next start recovers: not all logs were closed in order");
        }
        self.directories.mark_stopped(&closed.checkpoints, &closed.unclean_log_dirs, &self.work)
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

/// Runs one piece of asynchronous work on the calling thread, over a ring of its own.
fn on_own_ring<T: 'static, F: Future<Output = T> + 'static>(
    directories: &[Arc<Directory>],
    work: &WorkPool,
    job: impl FnOnce(LinuxPlatform) -> F,
) -> Result<T, StartError> {
    let doorbell = EventDoorbell::new().map_err(StartError::Thread)?;
    let executor = Executor::new(doorbell.clone());
    let ring = uring::Ring::new(START_RING_DEPTH).map_err(probe::explain)?;
    let counters = Arc::new(ShardCounters::default());
    let limits = DiskLimits { cold_bytes_max: 0, cachestat: true };
    let platform = LinuxPlatform::new(None, ring, executor.clone(), directories, work.clone(), limits, counters);
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

/// Waits for the first image, and says now and then how far the logs are.
fn wait_for_logs<T>(started: &std::sync::mpsc::Receiver<T>, progress: &RecoveryProgress) -> Result<T, StartError> {
    loop {
        match started.recv_timeout(PROGRESS_INTERVAL) {
            Ok(value) => return Ok(value),
            Err(RecvTimeoutError::Timeout) if !progress.is_done() => {
                tracing::info!("recovering: {progress}");
                service::status(&format!("recovering: {progress}"));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(StartError::ShardEnded),
        }
    }
}

fn bind_all(config: &Config) -> Result<Vec<Listener>, StartError> {
    let backlog = config.socket_listen_backlog_size;
    let bound = config.listeners.iter().map(|endpoint| Listener::bind(&endpoint.host, endpoint.port, backlog));
    bound.collect::<io::Result<_>>().map_err(StartError::Listen)
}

/// What clients are told, where any free port was asked for the one that was bound.
fn with_bound_ports(config: &Config, addresses: &[SocketAddr]) -> Vec<Endpoint> {
    let advertised = config.advertised_listeners.iter().cloned().map(|mut advertised| {
        if advertised.port == 0 {
            let bound = config.listeners.iter().zip(addresses).find(|(own, _)| own.listener == advertised.listener);
            advertised.port = bound.map_or(0, |(_, address)| address.port());
        }
        advertised
    });
    advertised.collect()
}

/// The allocator asks for huge pages, and a byte touched in one then takes 2 MiB: connections that hold next to nothing would
/// take megabytes each.
fn use_small_pages() {
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        tracing::warn!(%error, "huge pages stay on: the broker takes more memory");
    }
}
