//! A machine of the world: its clock, and its place on the network. What runs on it comes and goes.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use super::disk::FakeDisk;
use super::network::{HostId, Network};
use super::socket::SimSocket;
use super::world::World;
use crate::base::time::{Monotonic, WallMs};
use crate::platform::Clock;

/// A handle to a host; clones share it.
#[derive(Clone)]
pub struct Host {
    network: Network,
    id: HostId,
    clock: HostClock,
}

impl Host {
    pub(super) fn new(network: &Network, id: HostId) -> Host {
        Host { network: network.clone(), id, clock: HostClock::new(network.world()) }
    }

    pub fn id(&self) -> HostId {
        self.id
    }

    pub fn network(&self) -> &Network {
        &self.network
    }

    pub fn world(&self) -> &World {
        self.network.world()
    }

    pub fn clock(&self) -> &HostClock {
        &self.clock
    }

    /// An address of this host.
    pub fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.id.ip(), port)
    }

    /// Opens a connection from here; for a client that has no files.
    ///
    /// # Errors
    /// As of [`Platform::connect`](crate::platform::Platform::connect).
    pub async fn connect(&self, address: SocketAddr) -> io::Result<SimSocket> {
        self.network.connect(self, address, None).await
    }

    /// Hands each connection to `port` over; `disk` is where its ranges are read.
    pub fn listen(&self, port: u16, disk: &FakeDisk, accept: impl Fn(SimSocket) + 'static) {
        self.network.listen(self, port, disk, accept);
    }

    /// The process that listened is gone.
    pub fn stop_listening(&self) {
        self.network.stop_listening(self.id);
    }

    /// Cuts the power: nobody answers from here until it is on again.
    pub fn switch_off(&self) {
        self.network.switch_off(self.id);
    }

    pub fn switch_on(&self) {
        self.network.switch_on(self.id);
    }
}

/// How a host's clock goes, against the world's.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClockError {
    /// How far its monotonic clock is ahead at the world's beginning, in nanoseconds.
    pub monotonic_ahead_ns: u64,
    /// Microseconds that it gains in each second of the world; negative: it loses.
    pub drift_ppm: i32,
    /// The same of the wall clock, in milliseconds, which may be negative.
    pub wall_ahead_ms: i64,
    pub wall_drift_ppm: i32,
}

/// The clock of one host. By default it is the world's.
#[derive(Clone)]
pub struct HostClock {
    world: World,
    error: Rc<Cell<ClockError>>,
}

impl HostClock {
    fn new(world: &World) -> HostClock {
        HostClock { world: world.clone(), error: Rc::default() }
    }

    /// To be said before anything runs here: a monotonic clock never goes back.
    pub fn set_error(&self, error: ClockError) {
        assert!(error.drift_ppm > -MILLION && error.wall_drift_ppm > -MILLION, "time passes");
        self.error.set(error);
    }

    /// Sets the wall clock on, or back.
    pub fn jump_wall(&self, by_ms: i64) {
        self.world.note(format!("a wall clock jumps by {by_ms} ms"));
        let error = self.error.get();
        self.error.set(ClockError { wall_ahead_ms: error.wall_ahead_ms + by_ms, ..error });
    }

    /// The first moment of the world at which this clock shows `time` or more.
    fn world_time_of(&self, time: Monotonic) -> Monotonic {
        let ClockError { monotonic_ahead_ns, drift_ppm, .. } = self.error.get();
        let since_start = i128::from(time.0.saturating_sub(monotonic_ahead_ns));
        let world = since_start * i128::from(MILLION) / i128::from(MILLION + drift_ppm);
        let mut world = Monotonic(u64::try_from(world).unwrap_or(u64::MAX));
        // What was rounded.
        while drifted(world.0, drift_ppm) < since_start as u64 {
            world.0 += 1;
        }
        world
    }
}

const MILLION: i32 = 1_000_000;

/// What a clock that gains so much has counted when the world has counted `ns`.
fn drifted(ns: u64, drift_ppm: i32) -> u64 {
    let counted = i128::from(ns) * i128::from(MILLION + drift_ppm) / i128::from(MILLION);
    u64::try_from(counted).unwrap_or(u64::MAX)
}

impl Clock for HostClock {
    fn now(&self) -> Monotonic {
        let ClockError { monotonic_ahead_ns, drift_ppm, .. } = self.error.get();
        Monotonic(drifted(self.world.now().0, drift_ppm).saturating_add(monotonic_ahead_ns))
    }

    fn wall(&self) -> WallMs {
        let ClockError { wall_ahead_ms, wall_drift_ppm, .. } = self.error.get();
        let gained_ms = i128::from(self.world.now().0) * i128::from(wall_drift_ppm) / i128::from(MILLION) / 1_000_000;
        self.world.wall() + wall_ahead_ms + gained_ms as i64
    }

    fn sleep_until(&self, deadline: Monotonic) -> impl Future<Output = ()> + 'static {
        self.world.timers().sleep_until(self.world_time_of(deadline))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn hosts(error: ClockError) -> (World, Host) {
        let world = World::new(1);
        let host = Network::new(&world).add_host();
        host.clock().set_error(error);
        (world, host)
    }

    fn pass(world: &World, host: &Host, wait: Duration) {
        let deadline = host.clock().now() + wait;
        let sleep = host.clock().sleep_until(deadline);
        let slept = Rc::new(Cell::new(false));
        let seen = Rc::clone(&slept);
        world.executor().spawn(async move {
            sleep.await;
            seen.set(true);
        });
        world.run_until(|| slept.get());
        let late = host.clock().now().since(deadline);
        assert!(host.clock().now() >= deadline && late < Duration::from_nanos(3), "{late:?}");
    }

    #[test]
    fn a_clock_that_gains_wakes_its_sleepers_early_by_the_worlds_and_one_that_loses_late() {
        for (drift_ppm, world_ms) in [(0, 10_000), (100_000, 9090), (-100_000, 11_111), (250, 9997)] {
            for monotonic_ahead_ns in [0, 7, 1 << 40] {
                let (world, host) = hosts(ClockError { drift_ppm, monotonic_ahead_ns, ..ClockError::default() });
                let before = world.now();
                pass(&world, &host, Duration::from_secs(10));
                assert_eq!(world.now().since(before).as_millis(), world_ms, "{drift_ppm}");
            }
        }
    }

    #[test]
    fn a_wall_clock_drifts_and_jumps_and_the_monotonic_one_does_not_notice() {
        let error = ClockError { wall_ahead_ms: -5000, wall_drift_ppm: 1000, ..ClockError::default() };
        let (world, host) = hosts(error);
        assert_eq!(host.clock().wall() - world.wall(), -5000);
        pass(&world, &host, Duration::from_secs(60));
        assert_eq!(host.clock().wall() - world.wall(), -5000 + 60);
        let before = host.clock().now();
        host.clock().jump_wall(-3_600_000);
        assert_eq!((host.clock().wall() - world.wall(), host.clock().now()), (-3_604_940, before));
    }
}
