//! Listening sockets, and the hand-over of connections to the shard that has the fewest.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use async_channel::Sender;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, getpeername, getsockname, listen,
    setsockopt, socket, sockopt,
};

use super::connection::Arrival;
use super::quotas::{ConnectionQuotas, Entry, Full};
use crate::base::log_limit::LogLimit;
use crate::metrics::ShardCounters;
use crate::platform::linux::LinuxPlatform;
use crate::platform::{Clock, Platform};
use crate::uring::ops::accept;

/// How long accepting pauses when the process has no descriptors left.
const PAUSE_WITHOUT_DESCRIPTORS: Duration = Duration::from_millis(100);

/// A socket that listens, and where.
pub struct Listener {
    socket: OwnedFd,
    pub address: SocketAddr,
}

/// An accepted connection on its way to its shard.
pub struct Accepted {
    pub socket: OwnedFd,
    pub arrival: Arrival,
}

/// Where accepted connections go: each shard's counters and queue.
pub type Targets = Vec<(Arc<ShardCounters>, Sender<Accepted>)>;

/// A listener with all that accepting needs.
pub struct Acceptor {
    pub listener: Listener,
    pub name: Arc<str>,
    /// Its place among the listeners.
    pub index: usize,
    pub quotas: Arc<ConnectionQuotas>,
    pub targets: Targets,
}

impl Listener {
    /// Binds `host:port` (an empty host is all interfaces, port 0 any free one); connections queue from now on.
    ///
    /// # Errors
    /// No such host, or the address is taken or not ours: said with the address.
    pub fn bind(host: &str, port: u16, backlog: u32) -> io::Result<Listener> {
        let host = if host.is_empty() { "0.0.0.0" } else { host };
        let with_address =
            |error: io::Error| io::Error::new(error.kind(), format!("can't listen on {host}:{port}: {error}"));
        let address = (host, port).to_socket_addrs().map_err(with_address)?.next();
        let address = address.ok_or_else(|| with_address(io::ErrorKind::AddrNotAvailable.into()))?;
        Listener::bind_address(address, backlog).map_err(with_address)
    }

    fn bind_address(address: SocketAddr, backlog: u32) -> io::Result<Listener> {
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, SockProtocol::Tcp)?;
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
        listen(&socket, Backlog::new(i32::try_from(backlog).unwrap_or(i32::MAX)).unwrap_or(Backlog::MAXCONN))?;
        let bound: SockaddrStorage = getsockname(socket.as_raw_fd())?;
        let port = bound.as_sockaddr_in().map(|found| found.port());
        let port = port.or_else(|| bound.as_sockaddr_in6().map(|found| found.port())).unwrap_or(address.port());
        Ok(Listener { socket, address: SocketAddr::new(address.ip(), port) })
    }
}

impl Acceptor {
    /// Accepts for ever, on the calling shard, and hands each connection to the shard that has the fewest. A shard whose
    /// queue is full, or connections that there may not be yet, make accepting wait, and the kernel's backlog takes over.
    pub async fn accept(self, platform: LinuxPlatform) {
        let Acceptor { listener, name, index, quotas, targets } = self;
        let socket = Rc::new(listener.socket);
        let door = Door { platform, name, index, quotas, targets, refusals: LogLimit::of_refusals() };
        loop {
            door.wait_for_room().await;
            let mut accepts = match accept::accept(door.platform.ring(), &socket).await {
                Ok(accepts) => accepts,
                Err(error) => {
                    tracing::error!(%error, "nobody is accepted for the moment");
                    let clock = door.platform.clock();
                    clock.sleep_until(clock.now() + PAUSE_WITHOUT_DESCRIPTORS).await;
                    continue;
                }
            };
            let mut is_stopping = false;
            while let Some(accepted) = accepts.next().await {
                match accepted {
                    Ok(connection) => {
                        door.wait_for_room().await;
                        door.let_in(connection).await;
                    }
                    // What was asked for below.
                    Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => {}
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted; check the limit of open files (ulimit -n)");
                        let clock = door.platform.clock();
                        clock.sleep_until(clock.now() + PAUSE_WITHOUT_DESCRIPTORS).await;
                    }
                }
                if !is_stopping && !door.has_room() {
                    is_stopping = true;
                    accepts.stop();
                }
            }
        }
    }
}

/// What decides about the connections of one listener.
struct Door {
    platform: LinuxPlatform,
    name: Arc<str>,
    index: usize,
    quotas: Arc<ConnectionQuotas>,
    targets: Targets,
    refusals: LogLimit,
}

impl Door {
    fn has_room(&self) -> bool {
        self.quotas.room(self.index, self.platform.clock().now(), Waker::noop()).is_ok()
    }

    async fn wait_for_room(&self) {
        let clock = self.platform.clock();
        loop {
            let full = poll_fn(|context| match self.quotas.room(self.index, clock.now(), context.waker()) {
                Ok(()) => Poll::Ready(None),
                Err(Full::Rate(until)) => Poll::Ready(Some(until)),
                Err(Full::Connections) => Poll::Pending,
            });
            match full.await {
                None => return,
                Some(until) => clock.sleep_until(until).await,
            }
        }
    }

    async fn let_in(&self, socket: OwnedFd) {
        let peer = getpeername::<SockaddrStorage>(socket.as_raw_fd()).ok();
        // The peer may be gone already: it is let in, and its shard sees the end.
        let address = peer.as_ref().and_then(address_of).unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        let now = self.platform.clock().now();
        let permit = match self.quotas.enter(self.index, address, now) {
            Entry::Admitted(permit) => permit,
            Entry::TooManyFromAddress(most) => {
                self.platform.counters().connections_refused_total.add(1);
                if let Some(left_out) = self.refusals.allow(now) {
                    tracing::info!(%address, most, left_out, "closing a connection: its address has its number (max.connections.per.ip)");
                }
                return;
            }
        };
        let fewest =
            self.targets.iter().min_by_key(|(counters, queue)| counters.connections_now.get() + queue.len() as u64);
        if let Some((counters, queue)) = fewest {
            counters.connections_accepted_total.add(1);
            let arrival = Arrival { listener: Arc::clone(&self.name), permit: Some(permit) };
            // Fails only when the shard stops: then the connection is closed by its drop.
            let _ = queue.send(Accepted { socket, arrival }).await;
        }
    }
}

fn address_of(peer: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = peer.as_sockaddr_in().map(|peer| IpAddr::V4(peer.ip()));
    v4.or_else(|| peer.as_sockaddr_in6().map(|peer| IpAddr::V6(peer.ip())))
}
