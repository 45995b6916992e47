//! [`Platform`] in the simulator. Helpers and work threads are tasks like any other; they take as long as the dice say.

use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use super::connection::SimSocket;
use super::disk::FakeDisk;
use super::world::World;
use crate::base::time::{Monotonic, WallMs};
use crate::executor::Executor;
use crate::platform::{Clock, Platform, Random, Tasks};

/// How often a job lets the other tasks run before it is done, at most.
const WORK_PAUSES_MAX: usize = 12;

#[derive(Clone)]
pub struct SimPlatform {
    disk: FakeDisk,
    world: SimClock,
    tasks: SimTasks,
}

impl SimPlatform {
    pub fn new(world: &World, executor: &Executor, disk: &FakeDisk) -> SimPlatform {
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
            world: SimClock(world.clone()),
            tasks: SimTasks { executor: executor.clone(), world: world.clone() },
        }
    }
}

impl Platform for SimPlatform {
    type Disk = FakeDisk;
    type Socket = SimSocket;
    type Clock = SimClock;
    type Tasks = SimTasks;
    type Random = SimClock;

    fn disk(&self) -> &FakeDisk {
        &self.disk
    }

    fn clock(&self) -> &SimClock {
        &self.world
    }

    fn tasks(&self) -> &SimTasks {
        &self.tasks
    }

    fn random(&self) -> &SimClock {
        &self.world
    }
}

/// The world's clock and dice.
#[derive(Clone)]
pub struct SimClock(World);

impl Clock for SimClock {
    fn now(&self) -> Monotonic {
        self.0.now()
    }

    fn wall(&self) -> WallMs {
        self.0.wall()
    }

    fn sleep_until(&self, deadline: Monotonic) -> impl Future<Output = ()> + 'static {
        self.0.timers().sleep_until(deadline)
    }
}

impl Random for SimClock {
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
