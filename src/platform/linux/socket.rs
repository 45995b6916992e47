//! A TCP connection on the ring: multishot receives, ring sends for bytes, sendfile for ranges.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;

use bytes::{Buf, Bytes, BytesMut};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, setsockopt, socket, sockopt};

use super::LinuxPlatform;
use super::directory::LinuxFile;
use crate::base::time::Monotonic;
use crate::executor::yield_now;
use crate::metrics::HeldCall;
use crate::platform::{FileRange, Socket};
use crate::sys;
use crate::uring::Stream;
use crate::uring::ops::{connect, poll, receive, send};

/// What one sendfile call, and a turn in all, may send while other tasks wait. Smaller calls cost twice the CPU: each
/// ends with a packet pushed and the receiver woken (tuning.md).
const SEND_TURN_BYTES_MAX: u64 = 1024 * 1024;

/// Up to here what a full socket does not take is left to one operation of the ring, which tells nothing before its end.
/// More of it goes as the socket has room, so that it is seen to move.
const UNSEEN_BYTES_MAX: usize = 64 * 1024;

pub struct LinuxSocket {
    platform: LinuxPlatform,
    pub(super) descriptor: Rc<OwnedFd>,
    stream: RefCell<Option<Stream<Rc<OwnedFd>>>>,
    /// What a cancelled multishot had brought beyond the frame it was cancelled for.
    leftover: RefCell<VecDeque<BytesMut>>,
    ended: Cell<bool>,
    sent_bytes: Cell<u64>,
    /// Of what was received last.
    came_after: Cell<Monotonic>,
}

impl LinuxSocket {
    /// Takes over an accepted, non-blocking connection, on the shard that `platform` is of.
    ///
    /// # Errors
    /// The descriptor is no TCP socket any more (the peer may have gone at once).
    pub fn new(platform: &LinuxPlatform, descriptor: OwnedFd) -> io::Result<LinuxSocket> {
        LinuxSocket::set_up(platform, Rc::new(descriptor))
    }

    /// See [`Platform::connect`](crate::platform::Platform::connect).
    pub async fn connect(platform: &LinuxPlatform, address: SocketAddr) -> io::Result<LinuxSocket> {
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let descriptor = Rc::new(socket(family, SockType::Stream, flags, SockProtocol::Tcp)?);
        connect::connect(platform.ring(), &descriptor, address).await?;
        LinuxSocket::set_up(platform, descriptor)
    }

    /// What every connection of a broker is, whoever opened it. Keep-alive as in Kafka 3.9 (`SocketServer`): a peer that is gone
    /// without a word must not keep what waits for it, and a connection with an answer outstanding is never idle.
    fn set_up(platform: &LinuxPlatform, descriptor: Rc<OwnedFd>) -> io::Result<LinuxSocket> {
        setsockopt(&descriptor, sockopt::TcpNoDelay, &true)?;
        setsockopt(&descriptor, sockopt::KeepAlive, &true)?;
        Ok(LinuxSocket {
            platform: platform.clone(),
            descriptor,
            stream: RefCell::default(),
            leftover: RefCell::default(),
            ended: Cell::new(false),
            sent_bytes: Cell::new(0),
            came_after: Cell::default(),
        })
    }

    fn sent(&self, bytes: u64) {
        self.sent_bytes.set(self.sent_bytes.get() + bytes);
    }

    async fn ensure_stream(&self) -> io::Result<()> {
        if self.stream.borrow().is_none() {
            let stream = receive::receive_stream(self.platform.ring(), &self.descriptor).await?;
            *self.stream.borrow_mut() = Some(stream);
        }
        Ok(())
    }

    /// The next event of the running multishot; `None` when it has ended (and is forgotten).
    async fn next_event(&self) -> Option<io::Result<BytesMut>> {
        let event = std::future::poll_fn(|context| match self.stream.borrow_mut().as_mut() {
            Some(stream) => stream.poll_next(context),
            None => std::task::Poll::Ready(None),
        })
        .await;
        match event {
            None => {
                self.stream.borrow_mut().take();
                None
            }
            Some(event) => {
                self.came_after.set(event.came_after);
                Some(event.into_result().map(|(_, data)| data.unwrap_or_default()))
            }
        }
    }

    /// Ends the multishot and keeps all it had brought, in order.
    async fn stop_stream(&self) -> io::Result<()> {
        if let Some(stream) = self.stream.borrow().as_ref() {
            stream.stop();
        }
        while let Some(event) = self.next_event().await {
            match event {
                Ok(data) if data.is_empty() => self.ended.set(true),
                Ok(data) => self.leftover.borrow_mut().push_back(data),
                Err(error) if is_pause(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// One sendfile, with what it tells about the page cache. `UnexpectedEof` if the range was cut.
    fn sendfile(&self, range: &FileRange<LinuxFile>, length: u64, recently_appended: bool) -> io::Result<u64> {
        let _inside = range.enter().ok_or(io::ErrorKind::UnexpectedEof)?;
        let (socket, file) = (self.descriptor.as_fd(), range.file.as_fd());
        let switches = if recently_appended { 0 } else { sys::voluntary_switches() };
        let send = || sys::sendfile(socket, file, range.position, length as usize);
        let (sent, _) = self.platform.held().during(HeldCall::Send, file, send);
        if !recently_appended && sys::voluntary_switches() != switches {
            self.platform.counters().sendfile_slept_total.add(1);
        }
        let count = sent? as u64;
        self.platform.counters().sendfile_bytes_total.add(count);
        self.sent(count);
        Ok(count)
    }

    /// Moves what was left over into `frame`, up to `length`.
    fn take_leftover(&self, frame: &mut BytesMut, length: usize) {
        let mut leftover = self.leftover.borrow_mut();
        while frame.len() < length
            && let Some(chunk) = leftover.front_mut()
        {
            let count = chunk.len().min(length - frame.len());
            frame.extend_from_slice(&chunk[..count]);
            chunk.advance(count);
            if chunk.is_empty() {
                leftover.pop_front();
            }
        }
    }
}

/// ECANCELED: we asked for it. ENOBUFS: the pool was empty. EINTR: a signal came first. Nothing was lost, the receive starts
/// anew.
fn is_pause(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ECANCELED | libc::ENOBUFS | libc::EINTR))
}

impl Socket for LinuxSocket {
    type File = LinuxFile;

    async fn receive(&self) -> io::Result<BytesMut> {
        loop {
            if let Some(chunk) = self.leftover.borrow_mut().pop_front() {
                return Ok(chunk);
            }
            if self.ended.get() {
                return Ok(BytesMut::new());
            }
            self.ensure_stream().await?;
            match self.next_event().await {
                None => {}
                Some(Ok(data)) => {
                    self.ended.set(data.is_empty());
                    return Ok(data);
                }
                Some(Err(error)) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.platform.counters().receive_pool_empty_total.add(1);
                    self.stream.borrow_mut().take();
                    self.platform.ring().receive_buffers_returned().await;
                }
                Some(Err(error)) if is_pause(&error) => {}
                Some(Err(error)) => return Err(error),
            }
        }
    }

    async fn receive_frame(&self, mut frame: BytesMut, length: usize) -> io::Result<BytesMut> {
        frame.reserve(length.saturating_sub(frame.len()));
        self.take_leftover(&mut frame, length);
        if frame.len() < length {
            self.stop_stream().await?;
            self.take_leftover(&mut frame, length);
        }
        while frame.len() < length {
            if self.ended.get() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let missing = length - frame.len();
            let (received, longer) =
                receive::receive_into(self.platform.ring(), &self.descriptor, frame, missing).await;
            frame = longer;
            self.came_after.set(self.platform.ring().came_after());
            self.ended.set(received? == 0);
        }
        Ok(frame)
    }

    fn came_after(&self) -> Monotonic {
        self.came_after.get()
    }

    async fn send(&self, mut data: Bytes, more: bool) -> io::Result<()> {
        while !data.is_empty() {
            match sys::send_now(self.descriptor.as_fd(), &data, more) {
                Ok(count) => {
                    data.advance(count);
                    self.sent(count as u64);
                }
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                Err(_) if more || data.len() > UNSEEN_BYTES_MAX => {
                    poll::writable(self.platform.ring(), &self.descriptor).await?;
                }
                Err(_) => {
                    let bytes = data.len() as u64;
                    send::send_all(self.platform.ring(), &self.descriptor, data).await?;
                    self.sent(bytes);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn send_range(
        &self,
        range: &mut FileRange<LinuxFile>,
        length_max: u64,
        recently_appended: bool,
    ) -> io::Result<()> {
        let mut left = length_max.min(range.length);
        let mut turn = 0;
        while left > 0 {
            if turn >= SEND_TURN_BYTES_MAX && self.platform.executor().has_ready() {
                yield_now().await;
                turn = 0;
                continue;
            }
            match self.sendfile(range, left.min(SEND_TURN_BYTES_MAX), recently_appended) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    range.advance(count);
                    left -= count;
                    turn += count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll::writable(self.platform.ring(), &self.descriptor).await?;
                    turn = 0;
                    if !recently_appended {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn unread_bytes(&self) -> u64 {
        let queued = self.stream.borrow().as_ref().map_or(0, Stream::queued_bytes);
        let leftover: usize = self.leftover.borrow().iter().map(BytesMut::capacity).sum();
        (queued + leftover) as u64
    }

    fn sent_bytes(&self) -> u64 {
        self.sent_bytes.get()
    }

    fn peer(&self) -> String {
        nix::sys::socket::getpeername::<nix::sys::socket::SockaddrStorage>(self.descriptor.as_raw_fd())
            .map_or_else(|_| "unknown".to_owned(), |address| address.to_string())
    }

    fn shut_down(&self) {
        // ENOTCONN: the peer was faster.
        let _ = nix::sys::socket::shutdown(self.descriptor.as_raw_fd(), nix::sys::socket::Shutdown::Both);
    }
}
