//! The network of a world: hosts, the ways between them, who listens where, and the connections that there are.
//!
//! Each ordered pair of hosts has a [`Way`] of its own: how long bytes take on it, and whether it is cut. By default a way
//! takes no time and is whole. What TCP promises holds whatever happens: bytes of a connection come in order or not at all,
//! and after a loss each side learns of it at a time of its own, or only when it sends.
//!
//! ```text
//!  a process ends        its sockets close, its listeners go: a connection is refused, what arrives is answered by a reset
//!  its power is cut      nobody answers: what is sent there vanishes, until the sender gives up or the host is back
//!  a way is cut          what is sent on it vanishes, and comes again once it is mended, unless the sender has given up
//!  a connection is lost  nothing passes any more, and both sides hear of a reset, sometime
//! ```
//! Everything takes the world's time and dice, so a run is the same again under its seed.

#![forbid(unsafe_code)]

mod connection;
mod way;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::{Rc, Weak};
use std::time::Duration;

pub(super) use self::connection::Connection;
pub(super) use self::connection::Side;
#[cfg(test)]
pub(crate) use self::connection::planted;
pub use self::way::Latency;
use self::way::{Passage, Way};
use super::disk::FakeDisk;
use super::host::Host;
use super::socket::SimSocket;
use super::world::World;
use crate::base::time::Monotonic;
use crate::executor::Executor;

/// How long a connection is tried before nobody is taken to be there, and the pause before the second try; each later
/// pause is twice as long. Linux does it so.
const CONNECT_MAX: Duration = Duration::from_secs(127);
const CONNECT_PAUSE_FIRST: Duration = Duration::from_secs(1);

/// The first port of those that connecting sides get.
const EPHEMERAL_PORT_FIRST: u16 = 32_768;

/// Which machine; its address is made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostId(pub u8);

impl HostId {
    pub fn ip(self) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, self.0).into()
    }
}

/// Whether a host is there at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    On,
    Off,
}

/// Who takes the connections of an address.
type Accept = Rc<dyn Fn(SimSocket)>;

struct Listener {
    host: Host,
    /// For what leaves its connections by sendfile.
    disk: FakeDisk,
    accept: Accept,
}

/// A handle to the network; clones share it.
#[derive(Clone)]
pub struct Network(Rc<Inner>);

struct Inner {
    world: World,
    /// Runs what happens by itself: arrivals, resets, the end of a sender's patience.
    executor: Executor,
    hosts: RefCell<BTreeMap<HostId, Power>>,
    ways: RefCell<BTreeMap<(HostId, HostId), Rc<Way>>>,
    listeners: RefCell<BTreeMap<SocketAddr, Listener>>,
    /// By number, so that what concerns many happens in one order.
    connections: RefCell<BTreeMap<u64, Weak<Connection>>>,
    next_connection: Cell<u64>,
}

impl Network {
    pub fn new(world: &World) -> Network {
        Network(Rc::new(Inner {
            world: world.clone(),
            executor: world.executor(),
            hosts: RefCell::default(),
            ways: RefCell::default(),
            listeners: RefCell::default(),
            connections: RefCell::default(),
            next_connection: Cell::new(1),
        }))
    }

    pub fn world(&self) -> &World {
        &self.0.world
    }

    /// A further host, switched on.
    pub fn add_host(&self) -> Host {
        let mut hosts = self.0.hosts.borrow_mut();
        let id = HostId(u8::try_from(hosts.len() + 1).expect("fewer hosts than addresses"));
        hosts.insert(id, Power::On);
        Host::new(self, id)
    }

    /// How long bytes take from one host to the other; the dice say, for each piece.
    pub fn set_latency(&self, from: HostId, to: HostId, latency: Latency) {
        self.way(from, to).latency.set(latency);
    }

    /// What may be under way or unread on each connection, in bytes, from one host to the other.
    pub fn set_window(&self, from: HostId, to: HostId, bytes: usize) {
        self.way(from, to).window_bytes.set(bytes);
    }

    /// Of so many pieces that are sent on this way one, by the dice, takes its connection with it; 0: none.
    pub fn set_losses(&self, from: HostId, to: HostId, one_in: usize) {
        self.way(from, to).loses_one_in.set(one_in);
    }

    /// From now on nothing passes in this direction.
    pub fn cut(&self, from: HostId, to: HostId) {
        self.0.world.note(format!("{from:?} to {to:?} is cut"));
        self.way(from, to).passage.set(Passage::Cut);
    }

    /// Undoes [`Network::cut`].
    pub fn mend(&self, from: HostId, to: HostId) {
        self.0.world.note(format!("{from:?} to {to:?} is mended"));
        self.way(from, to).passage.set(Passage::Open);
        self.each_connection(|connection, side| {
            if connection.host(side) == from && connection.host(side.other()) == to {
                connection.way_opened(side);
            }
        });
    }

    /// Every connection between the two is lost.
    pub fn lose_connections(&self, one: HostId, other: HostId) {
        self.each_connection(|connection, side| {
            if (connection.host(side), connection.host(side.other())) == (one, other) {
                connection.lose();
            }
        });
    }

    /// The most bytes that any connection holds, under way and unread, in one direction.
    pub fn held_bytes_max(&self) -> usize {
        let most = Cell::new(0);
        self.each_connection(|connection, side| most.set(most.get().max(connection.held_bytes(side))));
        most.get()
    }

    fn way(&self, from: HostId, to: HostId) -> Rc<Way> {
        Rc::clone(self.0.ways.borrow_mut().entry((from, to)).or_default())
    }

    fn is_up(&self, host: HostId) -> bool {
        self.0.hosts.borrow().get(&host) == Some(&Power::On)
    }

    fn now(&self) -> Monotonic {
        self.0.world.now()
    }

    /// Does something at this time.
    fn at(&self, time: Monotonic, what: impl FnOnce() + 'static) {
        let sleep = self.0.world.timers().sleep_until(time);
        self.0.executor.spawn(async move {
            sleep.await;
            what();
        });
    }

    /// Both directions of each connection that somebody still has an end of.
    fn each_connection(&self, visit: impl Fn(&Rc<Connection>, Side)) {
        self.0.connections.borrow_mut().retain(|_, connection| connection.strong_count() > 0);
        let all: Vec<_> = self.0.connections.borrow().values().filter_map(Weak::upgrade).collect();
        for connection in &all {
            Side::BOTH.iter().for_each(|side| visit(connection, *side));
        }
    }

    /// An open connection, with nothing of a handshake: the end of `from` and the end of `to`.
    pub fn pair(&self, from: &Host, to: &Host, to_disk: &FakeDisk) -> (SimSocket, SimSocket) {
        let connection = self.open(from.id(), to.id(), 0);
        let opened = SimSocket::new(Rc::clone(&connection), Side::Opened, from, None);
        (opened, SimSocket::new(connection, Side::Accepted, to, Some(to_disk)))
    }

    fn open(&self, from: HostId, to: HostId, port: u16) -> Rc<Connection> {
        let number = self.0.next_connection.get();
        self.0.next_connection.set(number + 1);
        let ephemeral = EPHEMERAL_PORT_FIRST + (number % u64::from(u16::MAX - EPHEMERAL_PORT_FIRST)) as u16;
        let addresses = [SocketAddr::new(from.ip(), ephemeral), SocketAddr::new(to.ip(), port)];
        let connection = Connection::new(self, number, [from, to], addresses, [self.way(from, to), self.way(to, from)]);
        self.0.connections.borrow_mut().insert(number, Rc::downgrade(&connection));
        connection
    }

    /// See [`Platform::connect`](crate::platform::Platform::connect).
    pub(super) async fn connect(
        &self,
        from: &Host,
        address: SocketAddr,
        disk: Option<&FakeDisk>,
    ) -> io::Result<SimSocket> {
        let deadline = self.now() + CONNECT_MAX;
        let mut pause = CONNECT_PAUSE_FIRST;
        let host = self.0.hosts.borrow().keys().copied().find(|host| host.ip() == address.ip());
        let ways = host.map(|host| (host, self.way(from.id(), host), self.way(host, from.id())));
        let mut accepted = None;
        loop {
            if let Some((to, there, back)) = &ways {
                self.travel(there).await;
                if accepted.is_none() && there.is_open() && self.is_up(*to) {
                    accepted = Some(self.knock(from, address, disk));
                }
                if accepted.is_some() {
                    self.travel(back).await;
                }
                if back.is_open()
                    && self.is_up(*to)
                    && let Some(accepted) = accepted.take()
                {
                    return accepted;
                }
                // A refusal that did not come through is heard of at the next try, if it is one then.
                accepted = accepted.filter(io::Result::is_ok);
            }
            let sleep = self.0.world.timers().sleep_until(deadline.min(self.now() + pause));
            sleep.await;
            if self.now() >= deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            pause *= 2;
        }
    }

    /// What meets somebody who comes to an address of a host that is on.
    fn knock(&self, from: &Host, address: SocketAddr, disk: Option<&FakeDisk>) -> io::Result<SimSocket> {
        let (accepted, opened, accept) = {
            let listeners = self.0.listeners.borrow();
            let listener = listeners.get(&address).ok_or(io::ErrorKind::ConnectionRefused)?;
            let connection = self.open(from.id(), listener.host.id(), address.port());
            let opened = SimSocket::new(Rc::clone(&connection), Side::Opened, from, disk);
            let accepted = SimSocket::new(connection, Side::Accepted, &listener.host, Some(&listener.disk));
            (accepted, opened, Rc::clone(&listener.accept))
        };
        accept(accepted);
        Ok(opened)
    }

    async fn travel(&self, way: &Way) {
        let takes = way.takes(&self.0.world);
        if takes.is_zero() {
            self.0.world.pause().await;
        } else {
            self.0.world.timers().sleep_until(self.now() + takes).await;
        }
    }

    pub(super) fn listen(&self, host: &Host, port: u16, disk: &FakeDisk, accept: impl Fn(SimSocket) + 'static) {
        let address = host.address(port);
        let listener = Listener { host: host.clone(), disk: disk.clone(), accept: Rc::new(accept) };
        let before = self.0.listeners.borrow_mut().insert(address, listener);
        assert!(before.is_none(), "somebody listens at {address}");
    }

    pub(super) fn stop_listening(&self, host: HostId) {
        let here: Vec<_> = {
            let listeners = self.0.listeners.borrow();
            listeners.keys().copied().filter(|address| address.ip() == host.ip()).collect()
        };
        for address in here {
            // Not dropped while the table is borrowed: it may hold what looks at it.
            let gone = self.0.listeners.borrow_mut().remove(&address);
            drop(gone);
        }
    }

    pub(super) fn switch_off(&self, host: HostId) {
        self.0.world.note(format!("{host:?} is off"));
        self.stop_listening(host);
        self.0.hosts.borrow_mut().insert(host, Power::Off);
        self.each_connection(|connection, side| {
            if connection.host(side) == host {
                connection.lose_power(side);
            }
        });
    }

    pub(super) fn switch_on(&self, host: HostId) {
        if self.is_up(host) {
            return;
        }
        self.0.world.note(format!("{host:?} is on"));
        self.0.hosts.borrow_mut().insert(host, Power::On);
        self.each_connection(|connection, side| {
            if connection.host(side.other()) == host {
                connection.way_opened(side);
            }
        });
    }
}

#[cfg(test)]
mod tests;
