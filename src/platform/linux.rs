//! The real form of the seam: a shard's ring, timers, helper and work threads behind [`Platform`].

#![forbid(unsafe_code)]

mod cache_life;
mod directory;
mod disk;
mod held;
mod socket;
mod write_back;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

pub use directory::{Directory, LinuxFile, dirty_bytes_max};
pub use disk::{DiskLimits, KERNEL_WORKERS_PER_DIRECTORY, LinuxDisk};
pub use held::Held;
pub use socket::LinuxSocket;
pub use write_back::WriteBack;

use super::{Clock, Platform, Random, Tasks};
use crate::base::ids::ShardId;
use crate::base::time::{Monotonic, WallMs};
use crate::base::timers::Timers;
use crate::executor::Executor;
use crate::metrics::ShardCounters;
use crate::metrics::status::BoundUse;
use crate::uring::Ring;
use crate::uring::op::RING_QUEUED_BYTES_MAX;
use crate::worker::WorkPool;

/// What one shard has of the machine.
#[derive(Clone)]
pub struct LinuxPlatform(Rc<Inner>);

struct Inner {
    ring: Ring,
    disk: LinuxDisk,
    clock: LinuxClock,
    tasks: LinuxTasks,
    held: Held,
    counters: Arc<ShardCounters>,
}

impl LinuxPlatform {
    /// Puts a shard's parts together, on the shard's own thread; without a shard, on that of the start.
    pub fn new(
        shard: Option<ShardId>,
        ring: Ring,
        executor: Executor,
        directories: &[Arc<Directory>],
        work: WorkPool,
        limits: DiskLimits,
        counters: Arc<ShardCounters>,
    ) -> LinuxPlatform {
        let clock = LinuxClock::start();
        let held = Held::new(shard, clock.clone(), Arc::clone(&counters));
        let disk = LinuxDisk::new(ring.clone(), directories, limits, held.clone(), Arc::clone(&counters));
        LinuxPlatform(Rc::new(Inner { ring, disk, clock, tasks: LinuxTasks { executor, work }, held, counters }))
    }

    pub fn ring(&self) -> &Ring {
        &self.0.ring
    }

    pub fn timers(&self) -> &Timers {
        &self.0.clock.timers
    }

    pub fn executor(&self) -> &Executor {
        &self.0.tasks.executor
    }

    /// The watch over calls that must not wait.
    pub fn held(&self) -> &Held {
        &self.0.held
    }

    /// How much of what is bounded is in use here.
    pub fn bounds(&self) -> Vec<BoundUse> {
        let received = BoundUse {
            name: "received_bytes",
            help: "Bytes that were received and that their connections have not looked at.",
            now: self.0.ring.queued_bytes().get() as u64,
            max: RING_QUEUED_BYTES_MAX as u64,
            waits_total: None,
        };
        self.0.disk.bounds().into_iter().chain([received]).collect()
    }

    pub fn counters(&self) -> &Arc<ShardCounters> {
        &self.0.counters
    }
}

impl Platform for LinuxPlatform {
    type Disk = LinuxDisk;
    type Socket = LinuxSocket;
    type Clock = LinuxClock;
    type Tasks = LinuxTasks;
    type Random = LinuxRandom;

    fn disk(&self) -> &LinuxDisk {
        &self.0.disk
    }

    fn clock(&self) -> &LinuxClock {
        &self.0.clock
    }

    fn tasks(&self) -> &LinuxTasks {
        &self.0.tasks
    }

    fn random(&self) -> &LinuxRandom {
        &LinuxRandom
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<LinuxSocket> {
        LinuxSocket::connect(self, address).await
    }
}

#[derive(Clone)]
pub struct LinuxClock {
    start: Instant,
    timers: Timers,
}

impl LinuxClock {
    /// A clock whose monotonic time starts now; nothing fires its timers.
    pub fn start() -> LinuxClock {
        LinuxClock { start: Instant::now(), timers: Timers::default() }
    }
}

impl Clock for LinuxClock {
    fn now(&self) -> Monotonic {
        Monotonic(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn wall(&self) -> WallMs {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as WallMs)
    }

    fn sleep_until(&self, deadline: Monotonic) -> impl Future<Output = ()> + 'static {
        self.timers.sleep_until(deadline)
    }
}

#[derive(Clone)]
pub struct LinuxTasks {
    executor: Executor,
    work: WorkPool,
}

impl Tasks for LinuxTasks {
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.executor.spawn(task);
    }

    fn work<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = Option<T>> + 'static {
        self.work.run(job)
    }
}

#[derive(Clone)]
pub struct LinuxRandom;

impl Random for LinuxRandom {
    fn next_u64(&self) -> u64 {
        getrandom::u64().expect("the kernel's random source is there from boot on")
    }
}

#[cfg(test)]
mod tests;
