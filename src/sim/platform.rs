//! [`Platform`] in the simulator. Helpers and work threads are tasks like any other; they take as long as the dice say.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::disk::FakeDisk;
use super::host::{Host, HostClock};
use super::network::Network;
use super::socket::SimSocket;
use super::world::World;
use crate::executor::Executor;
use crate::platform::{Platform, Random, Tasks};

/// How often a job lets the other tasks run before it is done, at most.
const WORK_PAUSES_MAX: usize = 12;

#[derive(Clone)]
pub struct SimPlatform {
    disk: FakeDisk,
    host: Host,
    tasks: SimTasks,
    random: SimRandom,
}

impl SimPlatform {
    /// On a host that nobody else reaches: for what has no connections.
    pub fn new(world: &World, executor: &Executor, disk: &FakeDisk) -> SimPlatform {
        SimPlatform::on(&Network::new(world).add_host(), executor, disk)
    }

    pub fn on(host: &Host, executor: &Executor, disk: &FakeDisk) -> SimPlatform {
        let world = host.world();
        let pausing = world.clone();
        let pause = Rc::new(move |takes: Duration| {
            let world = pausing.clone();
            Box::pin(async move {
                world.pause().await;
                if !takes.is_zero() {
                    world.timers().sleep_until(world.now() + takes).await;
                }
            }) as std::pin::Pin<Box<dyn Future<Output = ()>>>
        });
        SimPlatform {
            disk: disk.with_pause(pause),
            host: host.clone(),
            tasks: SimTasks { executor: executor.clone(), world: world.clone() },
            random: SimRandom(world.clone()),
        }
    }
}

impl Platform for SimPlatform {
    type Disk = FakeDisk;
    type Socket = SimSocket;
    type Clock = HostClock;
    type Tasks = SimTasks;
    type Random = SimRandom;

    fn disk(&self) -> &FakeDisk {
        &self.disk
    }

    fn clock(&self) -> &HostClock {
        self.host.clock()
    }

    fn tasks(&self) -> &SimTasks {
        &self.tasks
    }

    fn random(&self) -> &SimRandom {
        &self.random
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<SimSocket> {
        self.host.network().connect(&self.host, address, Some(&self.disk)).await
    }
}

/// The world's dice.
#[derive(Clone)]
pub struct SimRandom(World);

impl Random for SimRandom {
    fn next_u64(&self) -> u64 {
        self.0.next_u64()
    }
}

#[derive(Clone)]
pub struct SimTasks {
    executor: Executor,
    world: World,
}

impl Tasks for SimTasks {
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.executor.spawn(task);
    }

    fn work<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = Option<T>> + 'static {
        let world = self.world.clone();
        async move {
            // Longer than anything else, and by more or less, so that jobs overtake one another.
            for _ in 0..world.below(WORK_PAUSES_MAX) {
                world.pause().await;
            }
            Some(job())
        }
    }
}
