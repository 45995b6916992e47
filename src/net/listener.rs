//! The listening socket, and the hand-over of connections to the shard that has the fewest.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_channel::Sender;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, getsockname, listen, setsockopt,
    socket, sockopt,
};

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

    /// Accepts for ever, on the calling shard, and hands each connection to the shard of `shards` that has the fewest.
    /// A shard whose queue is full makes accepting wait, and the kernel's backlog takes over.
    pub async fn accept(self, platform: LinuxPlatform, shards: Vec<(Arc<ShardCounters>, Sender<OwnedFd>)>) {
        let socket = Rc::new(self.socket);
        loop {
            let mut accepts = match accept::accept(platform.ring(), &socket) {
                Ok(accepts) => accepts,
                Err(error) => {
                    tracing::error!(%error, "accepting has ended");
                    return;
                }
            };
            while let Some(accepted) = accepts.next().await {
                match accepted {
                    Ok(connection) => hand_over(connection, &shards).await,
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted; check the limit of open files (ulimit -n)");
                        let clock = platform.clock();
                        clock.sleep_until(clock.now() + PAUSE_WITHOUT_DESCRIPTORS).await;
                    }
                }
            }
        }
    }
}

async fn hand_over(connection: OwnedFd, shards: &[(Arc<ShardCounters>, Sender<OwnedFd>)]) {
    let fewest = shards.iter().min_by_key(|(counters, queue)| counters.connections_now.get() + queue.len() as u64);
    if let Some((counters, queue)) = fewest {
        counters.connections_accepted_total.add(1);
        // Fails only when the shard stops: then the connection is closed by its drop.
        let _ = queue.send(connection).await;
    }
}
