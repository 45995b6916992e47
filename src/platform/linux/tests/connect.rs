use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::rc::Rc;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrStorage, bind, connect, getsockopt,
    listen, socket, sockopt,
};

use super::*;
use crate::executor::{either, yield_now};
use crate::uring::ops::connect as ring_connect;

/// Runs `test` on a shard, beside a listener that somebody else accepts from.
fn on_a_shard_beside<F: Future<Output = ()> + 'static>(test: impl FnOnce(LinuxPlatform, TcpListener) -> F) {
    let directory = tempfile::tempdir().expect("directory");
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    on_a_shard(directory.path(), |platform| test(platform, listener));
}

#[test]
fn a_peer_that_is_gone_without_a_word_is_looked_for_whoever_opened_the_connection() {
    let directory = tempfile::tempdir().expect("directory");
    on_a_shard(directory.path(), |platform| async move {
        let (accepted, _peer) = super::connect(&platform);
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let opened = platform.connect(listener.local_addr().expect("address")).await.expect("connected");
        for socket in [accepted, opened] {
            assert!(getsockopt(&socket.descriptor, sockopt::KeepAlive).expect("a socket"));
        }
    });
}

#[test]
fn a_connection_that_was_opened_carries_frames_both_ways() {
    on_a_shard_beside(|platform, listener| async move {
        let address = listener.local_addr().expect("address");
        let echo = std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().expect("accepted");
            let mut frame = vec![0; 300_000];
            peer.read_exact(&mut frame).expect("read");
            peer.write_all(&frame).expect("written");
        });
        let socket = platform.connect(address).await.expect("connected");
        assert_eq!(socket.peer(), address.to_string());
        let sent = pattern(300_000);
        socket.send(sent.clone().into(), false).await.expect("sent");
        let got = socket.receive_frame(BytesMut::new(), sent.len()).await.expect("received");
        assert!(got[..] == sent[..], "the same bytes");
        assert!(socket.receive().await.expect("the end").is_empty());
        echo.join().expect("joined");
    });
}

#[test]
fn a_port_where_nobody_listens_refuses() {
    on_a_shard_beside(|platform, listener| async move {
        let address = listener.local_addr().expect("address");
        drop(listener);
        let refused = platform.connect(address).await.err().expect("refused");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        // By IPv6 too, where there is such an interface at all.
        let Ok(listener) = TcpListener::bind("[::1]:0") else { return };
        let address = listener.local_addr().expect("address");
        drop(listener);
        let refused = platform.connect(address).await.err().expect("refused");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    });
}

/// A listener whose queue is full: the kernel answers no further try.
fn silent_listener() -> (OwnedFd, SocketAddr, Vec<TcpStream>) {
    let listener =
        socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, SockProtocol::Tcp).expect("socket");
    bind(listener.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).expect("bound");
    listen(&listener, Backlog::new(0).expect("backlog")).expect("listening");
    let bound: SockaddrIn = nix::sys::socket::getsockname(listener.as_raw_fd()).expect("address");
    let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), bound.port());
    let mut waiting = Vec::new();
    while let Ok(connection) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        waiting.push(connection);
        assert!(waiting.len() < 100, "the queue has no bound");
    }
    (listener, address, waiting)
}

#[test]
fn a_try_that_is_given_up_leaves_the_ring() {
    let directory = tempfile::tempdir().expect("directory");
    let (_listener, address, _waiting) = silent_listener();
    on_a_shard(directory.path(), |platform| async move {
        let clock = platform.clock().clone();
        // The doorbell has its own.
        yield_now().await;
        let others = platform.ring().in_flight();
        let soon = clock.sleep_until(clock.now() + Duration::from_millis(50));
        let connected = either(platform.connect(address), soon).await;
        assert!(connected.is_err(), "nobody accepts");
        let deadline = clock.now() + DEADLINE;
        while platform.ring().in_flight() > others {
            assert!(clock.now() < deadline, "the kernel still tries");
            clock.sleep_until(clock.now() + Duration::from_millis(1)).await;
        }
    });
}

/// A socket whose try to reach `address` was begun already, as by an operation that was interrupted.
fn begun(address: SocketAddr) -> Rc<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let begun = socket(AddressFamily::Inet, SockType::Stream, flags, SockProtocol::Tcp).expect("socket");
    let outcome = connect(begun.as_raw_fd(), &SockaddrStorage::from(address));
    assert_eq!(outcome, Err(Errno::EINPROGRESS));
    Rc::new(begun)
}

#[test]
fn a_try_that_is_under_way_already_is_waited_for_to_its_good_end() {
    let directory = tempfile::tempdir().expect("directory");
    let (listener, address, waiting) = silent_listener();
    on_a_shard(directory.path(), |platform| async move {
        let socket = begun(address);
        let mut connecting = Box::pin(ring_connect::connect(platform.ring(), &socket, address));
        let clock = platform.clock().clone();
        let soon = clock.sleep_until(clock.now() + Duration::from_millis(50));
        assert!(either(connecting.as_mut(), soon).await.is_err(), "nobody accepts");
        let listener = TcpListener::from(listener);
        for _ in &waiting {
            listener.accept().expect("one that waits");
        }
        connecting.await.expect("the kernel tries again, and now there is room");
        assert!(TcpStream::from(Rc::into_inner(socket).expect("the only one")).peer_addr().is_ok());
    });
}

#[test]
fn a_try_that_is_under_way_already_is_waited_for_to_its_bad_end() {
    let directory = tempfile::tempdir().expect("directory");
    let (listener, address, waiting) = silent_listener();
    on_a_shard(directory.path(), |platform| async move {
        let socket = begun(address);
        drop((listener, waiting));
        let error = ring_connect::connect(platform.ring(), &socket, address).await.expect_err("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_socket_that_is_connected_already_is_as_it_should_be() {
    on_a_shard_beside(|platform, listener| async move {
        let address = listener.local_addr().expect("address");
        let socket = Rc::new(OwnedFd::from(TcpStream::connect(address).expect("connected")));
        ring_connect::connect(platform.ring(), &socket, address).await.expect("no error");
    });
}
