//! The shards' threads: what each is given, its life from the ring to the close of its logs, and how connections get to it.

#![forbid(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use async_channel::{Receiver, Sender};
use futures_channel::oneshot;
use nix::sys::socket::{setsockopt, sockopt};

use super::StartError;
use super::control::SHARD_INPUTS_MAX;
use super::directories::Directories;
use super::files::segments_open_max;
use super::status::{self, QUESTIONS_MAX, Question, Watched};
use crate::base::ids::ShardId;
use crate::config::Config;
use crate::executor::{Executor, either};
use crate::local::local::LocalParts;
use crate::local::mailbox::Mailboxes;
use crate::local::routing::Message;
use crate::metadata::node::ShardInput;
use crate::metadata::thread::MetadataHandle;
use crate::metrics::ShardCounters;
use crate::net::listener::{Accepted, Acceptor};
use crate::platform::linux::{DiskLimits, KERNEL_WORKERS_PER_DIRECTORY, LinuxPlatform, LinuxSocket};
use crate::platform::{Clock, Platform, Tasks};
use crate::shard::cleaner::CleanerSlots;
use crate::shard::metadata_inputs::LastStops;
use crate::shard::run;
use crate::shard::shard::{ClosedShard, Shard, ShardLimits, ShardParts};
use crate::sys;
use crate::uring;
use crate::uring::doorbell::EventDoorbell;
use crate::worker::WorkPool;

/// Connections accepted and not yet taken by their shard.
const CONNECTIONS_QUEUED_MAX: usize = 1024;

/// What a shard is told at the end.
pub(super) enum Stop {
    /// Answer what is under way, for so long at most.
    Drain(Duration),
    /// Close the logs, and end.
    Close,
}

pub(super) struct ShardHandle {
    pub stop: Sender<Stop>,
    /// How many connections were still busy when the time of the drain was over.
    pub drained: std::sync::mpsc::Receiver<usize>,
    pub closed: std::sync::mpsc::Receiver<ClosedShard>,
    pub thread: JoinHandle<()>,
}

/// What every shard is started with.
pub(super) struct Starting {
    pub config: Arc<Config>,
    pub directories: Arc<Directories>,
    pub work: WorkPool,
    pub metadata: MetadataHandle,
    pub mailboxes: Mailboxes<Message<LinuxPlatform>>,
    pub last_stops: Arc<LastStops>,
    pub cleaner_slots: CleanerSlots,
}

/// How connections get to the shards: the listeners go to shard 0, which hands them out.
pub(super) struct Connections {
    pub queues: Vec<Sender<Accepted>>,
    pub acceptors: oneshot::Sender<Vec<Acceptor>>,
}

pub(super) type StartedShards = (Vec<ShardHandle>, Vec<Sender<ShardInput>>, Connections, Vec<Watched>);

pub(super) fn start_shards(starting: &Starting) -> Result<StartedShards, StartError> {
    let cores = if starting.config.pin { sys::allowed_cores().map_err(StartError::Thread)? } else { Vec::new() };
    let (acceptors, acceptors_receiver) = oneshot::channel();
    let mut acceptors_receiver = Some(acceptors_receiver);
    let (mut handles, mut inputs, mut queues, mut watched) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for index in 0..starting.config.shards {
        let (input, input_receiver) = async_channel::bounded(SHARD_INPUTS_MAX);
        let (queue, queue_receiver) = async_channel::bounded(CONNECTIONS_QUEUED_MAX);
        let (stop, stop_receiver) = async_channel::bounded(2);
        let (questions, questions_receiver) = async_channel::bounded(QUESTIONS_MAX);
        let (drained_sender, drained) = std::sync::mpsc::channel();
        let (closed_sender, closed) = std::sync::mpsc::channel();
        let shard_counters = Arc::new(ShardCounters::default());
        let parts = ShardThread {
            id: ShardId(index),
            core: cores.get(usize::from(index) % cores.len().max(1)).copied(),
            config: Arc::clone(&starting.config),
            directories: Arc::clone(&starting.directories),
            work: starting.work.clone(),
            metadata: starting.metadata.clone(),
            mailboxes: starting.mailboxes.clone(),
            last_stops: Arc::clone(&starting.last_stops),
            cleaner_slots: starting.cleaner_slots.clone(),
            counters: Arc::clone(&shard_counters),
            inputs: input_receiver,
            connections: queue_receiver,
            questions: questions_receiver,
            acceptors: acceptors_receiver.take(),
            stop: stop_receiver,
            drained: drained_sender,
            closed: closed_sender,
        };
        let builder = thread::Builder::new().name(format!("shard-{index}"));
        let thread = builder.spawn(move || parts.run()).map_err(StartError::Thread)?;
        handles.push(ShardHandle { stop, drained, closed, thread });
        inputs.push(input);
        queues.push(queue);
        watched.push(Watched { counters: shard_counters, questions });
    }
    Ok((handles, inputs, Connections { queues, acceptors }, watched))
}

/// Everything a shard's thread is given.
struct ShardThread {
    id: ShardId,
    core: Option<usize>,
    config: Arc<Config>,
    directories: Arc<Directories>,
    work: WorkPool,
    metadata: MetadataHandle,
    mailboxes: Mailboxes<Message<LinuxPlatform>>,
    last_stops: Arc<LastStops>,
    cleaner_slots: CleanerSlots,
    counters: Arc<ShardCounters>,
    inputs: Receiver<ShardInput>,
    connections: Receiver<Accepted>,
    questions: Receiver<Question>,
    acceptors: Option<oneshot::Receiver<Vec<Acceptor>>>,
    stop: Receiver<Stop>,
    drained: std::sync::mpsc::Sender<usize>,
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
        let disks = &self.directories.disks;
        let workers = KERNEL_WORKERS_PER_DIRECTORY * u32::try_from(disks.len()).unwrap_or(u32::MAX);
        ring.bound_workers(workers)?;
        let limits = DiskLimits { cold_bytes_max: self.config.cold_bytes_max, cachestat: self.config.cachestat };
        let counters = Arc::clone(&self.counters);
        let (shard, work) = (Some(self.id), self.work.clone());
        let platform = LinuxPlatform::new(shard, ring, executor, disks, work, limits, Arc::clone(&counters));
        let shard = Rc::new(Shard::start(ShardParts {
            local: LocalParts {
                shard: self.id,
                platform: platform.clone(),
                config: Arc::clone(&self.config),
                log_dirs: Arc::clone(&self.directories.log_dirs),
                metadata: self.metadata.clone(),
                counters,
                mailboxes: self.mailboxes.clone(),
            },
            inputs: self.inputs.clone(),
            last_stops: Arc::clone(&self.last_stops),
            cleaner_slots: self.cleaner_slots.clone(),
            limits: ShardLimits { segments_open_max: segments_open_max(&self.config), ..ShardLimits::default() },
        }));
        platform.tasks().spawn(take_connections(platform.clone(), Rc::clone(&shard), self.connections.clone()));
        platform.tasks().spawn(status::tell(Rc::clone(&shard), platform.clone(), self.questions.clone()));
        // Closed by the drop of its sender.
        let (accepting, no_more) = async_channel::bounded::<()>(1);
        if let Some(acceptors) = self.acceptors {
            let platform = platform.clone();
            platform.clone().tasks().spawn(async move {
                for acceptor in acceptors.await.unwrap_or_default() {
                    let (accepting, no_more) = (platform.clone(), no_more.clone());
                    platform.tasks().spawn(async move {
                        let _ = either(acceptor.accept(accepting), no_more.recv()).await;
                    });
                }
            });
        }
        let stopped = Rc::new(std::cell::Cell::new(false));
        let (flag, stop, drained, closed) = (Rc::clone(&stopped), self.stop, self.drained, self.closed);
        let (closing, clock) = (Rc::clone(&shard), platform.clock().clone());
        platform.tasks().spawn(async move {
            // An error says that the broker is gone: stop as well.
            while let Ok(Stop::Drain(time)) = stop.recv().await {
                accepting.close();
                let _ = drained.send(closing.drain(clock.now() + time).await);
            }
            let _ = closed.send(closing.close().await);
            flag.set(true);
        });
        run::run(&platform, &doorbell, || stopped.get())
    }
}

async fn take_connections(platform: LinuxPlatform, shard: Rc<Shard<LinuxPlatform>>, connections: Receiver<Accepted>) {
    while let Ok(Accepted { socket: descriptor, arrival }) = connections.recv().await {
        let sized = set_socket_buffers(&descriptor, &shard.local().config);
        match sized.and_then(|()| LinuxSocket::new(&platform, descriptor)) {
            Ok(socket) => shard.serve(socket, arrival),
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
