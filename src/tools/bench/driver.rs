//! Connections, timers and tasks on tokio-uring: the only file that knows it.
//!
//! A thread that calls [`run`] has one runtime and one ring; nothing made here leaves its thread.

#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio_uring::buf::BoundedBuf;
use tokio_uring::net::TcpStream;

use super::failures;
use crate::client::{Answer, Exchange, Request};
use crate::failure::{Failure, reason};
use crate::protocol::frame::FRAME_PREFIX_BYTES;

/// Submissions that a ring holds: more than a thread usually has at once; beyond, they are handed over earlier.
const RING_ENTRIES: u32 = 1024;
/// Bytes asked of a connection at once, where the caller expects no more.
const READ_BYTES: usize = 64 << 10;

/// Runs `work` on a runtime of this thread.
///
/// # Errors
/// `Ring` if the kernel gives none; else what `work` gives.
pub fn run<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio_uring::Runtime::new(tokio_uring::builder().entries(RING_ENTRIES)).map_err(|error| {
        failures::system("io_uring can't be used; it needs Linux 5.11 and kernel.io_uring_disabled=0", error)
    })?;
    runtime.block_on(work)
}

/// A task of this thread's runtime.
pub struct Task<T>(tokio::task::JoinHandle<T>);

pub fn spawn<T: 'static>(work: impl Future<Output = T> + 'static) -> Task<T> {
    Task(tokio_uring::spawn(work))
}

impl<T> Task<T> {
    /// Waits for its end.
    pub async fn end(self) -> T {
        self.0.await.expect("a task neither panics nor is cancelled")
    }
}

/// What went over connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exchanged {
    pub connections: u64,
    pub requests: u64,
    pub request_bytes: u64,
    pub request_bytes_max: u64,
    pub answers: u64,
    pub answer_bytes: u64,
}

impl Exchanged {
    pub fn add(&mut self, other: &Exchanged) {
        self.connections += other.connections;
        self.requests += other.requests;
        self.request_bytes += other.request_bytes;
        self.request_bytes_max = self.request_bytes_max.max(other.request_bytes_max);
        self.answers += other.answers;
        self.answer_bytes += other.answer_bytes;
    }

    /// What is more than it was before; the largest request is the largest of all.
    pub fn since(&self, before: &Exchanged) -> Exchanged {
        Exchanged {
            connections: self.connections - before.connections,
            requests: self.requests - before.requests,
            request_bytes: self.request_bytes - before.request_bytes,
            request_bytes_max: self.request_bytes_max,
            answers: self.answers - before.answers,
            answer_bytes: self.answer_bytes - before.answer_bytes,
        }
    }
}

/// One connection and its side of the protocol. One task sends, one receives.
pub struct Link {
    address: SocketAddr,
    socket: TcpStream,
    exchange: RefCell<Exchange>,
    exchanged: Cell<Exchanged>,
}

impl Link {
    /// Connects and learns the broker's versions.
    pub async fn connect(
        address: SocketAddr,
        client_id: &str,
        answer_bytes_max: usize,
        timeout: Duration,
    ) -> Result<Link, Failure> {
        let late = || failures::no_broker(address, &format!("no answer within {} s", timeout.as_secs_f64()));
        let connected = tokio::time::timeout(timeout, TcpStream::connect(address)).await.map_err(|_| late())?;
        let socket = connected.map_err(|error| failures::no_broker(address, &reason(&error)))?;
        socket.set_nodelay(true).map_err(|error| failures::broken(address, &error))?;
        let exchanged = Exchanged { connections: 1, ..Exchanged::default() };
        let exchange = RefCell::new(Exchange::new(client_id, answer_bytes_max));
        let link = Link { address, socket, exchange, exchanged: Cell::new(exchanged) };
        tokio::time::timeout(timeout, link.learn_versions()).await.map_err(|_| late())??;
        Ok(link)
    }

    async fn learn_versions(&self) -> Result<(), Failure> {
        let frame = self.exchange.borrow_mut().ask_versions().map_err(failures::exchange)?;
        self.send(frame).await?;
        let answer = self.receive(READ_BYTES).await?;
        if self.exchange.borrow_mut().learn_versions(&answer).is_ok() {
            return Ok(());
        }
        let frame = self.exchange.borrow_mut().ask_versions_of_old().map_err(failures::exchange)?;
        self.send(frame).await?;
        let answer = self.receive(READ_BYTES).await?;
        self.exchange.borrow_mut().learn_versions(&answer).map_err(failures::exchange)
    }

    /// Asks and waits for the answer; nothing else is on its way meanwhile.
    pub async fn ask<R: Request>(
        &self,
        request: &R,
        able: RangeInclusive<i16>,
        timeout: Duration,
    ) -> Result<R::Response, Failure> {
        let (frame, _) = self.frame(request, able)?;
        let answered = async {
            self.send(frame).await?;
            self.receive(READ_BYTES).await
        };
        let answer = tokio::time::timeout(timeout, answered).await;
        let answer = answer.map_err(|_| failures::silent(self.address, timeout))??;
        answer.read().map_err(failures::exchange)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The frame of a request, and its version; the request counts as sent.
    pub fn frame<R: Request>(&self, request: &R, able: RangeInclusive<i16>) -> Result<(BytesMut, i16), Failure> {
        self.exchange.borrow_mut().ask(request, able).map_err(failures::exchange)
    }

    /// Notes that the request framed last has no answer.
    pub fn expect_no_answer(&self) {
        self.exchange.borrow_mut().expect_no_answer();
    }

    /// Sends a frame; returns when the kernel has all of it.
    pub async fn send(&self, frame: BytesMut) -> Result<(), Failure> {
        let request_bytes = frame.len() as u64;
        let request =
            Exchanged { requests: 1, request_bytes, request_bytes_max: request_bytes, ..Exchanged::default() };
        self.count(&request);
        let (sent, _) = self.socket.write_all(frame).await;
        sent.map_err(|error| failures::broken(self.address, &error))
    }

    /// The next answer, of about `bytes_expected` bytes.
    pub async fn receive(&self, bytes_expected: usize) -> Result<Answer, Failure> {
        loop {
            if let Some(answer) = self.exchange.borrow_mut().next_answer().map_err(failures::exchange)? {
                let answer_bytes = (FRAME_PREFIX_BYTES + answer.frame.len()) as u64;
                self.count(&Exchanged { answers: 1, answer_bytes, ..Exchanged::default() });
                return Ok(answer);
            }
            // Taken out for the kernel; the connection's one receiver puts it back before anything looks for it.
            let buffer = std::mem::take(self.exchange.borrow_mut().room(bytes_expected));
            let received = buffer.len();
            let (count, slice) = self.socket.read(buffer.slice(received..)).await;
            *self.exchange.borrow_mut().room(0) = slice.into_inner();
            match count {
                Ok(0) => return Err(failures::broken(self.address, &io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failures::broken(self.address, &error)),
            }
        }
    }

    fn count(&self, more: &Exchanged) {
        let mut exchanged = self.exchanged.get();
        exchanged.add(more);
        self.exchanged.set(exchanged);
    }

    /// What went over it so far.
    pub fn exchanged(&self) -> Exchanged {
        self.exchanged.get()
    }

    /// Ends the connection; whoever waits on it gets an error.
    pub fn close(&self) {
        // Fails if the peer was faster.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// One task's alarm clock, exact to microseconds: tokio's own counts milliseconds, which would be seen in the latencies.
pub struct Alarm {
    timer: TimerFd,
    file: tokio_uring::fs::File,
    buffer: Option<Vec<u8>>,
}

impl Alarm {
    pub fn new() -> Result<Alarm, Failure> {
        let failed = |error: io::Error| failures::system("no timer is left", error);
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC).map_err(|e| failed(e.into()))?;
        let descriptor: OwnedFd = std::os::fd::AsFd::as_fd(&timer).try_clone_to_owned().map_err(failed)?;
        let file = tokio_uring::fs::File::from_std(std::fs::File::from(descriptor));
        Ok(Alarm { timer, file, buffer: Some(vec![0; 8]) })
    }

    /// Waits until `then`.
    pub async fn until(&mut self, then: Instant) -> Result<(), Failure> {
        let wait = then.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            return Ok(());
        }
        let failed = |error: io::Error| failures::system("the timer fails", error);
        let expiration = Expiration::OneShot(TimeSpec::from_duration(wait));
        self.timer.set(expiration, TimerSetTimeFlags::empty()).map_err(|error| failed(error.into()))?;
        let buffer = self.buffer.take().unwrap_or_else(|| vec![0; 8]);
        let (read, buffer) = self.file.read_at(buffer, 0).await;
        self.buffer = Some(buffer);
        read.map(|_| ()).map_err(failed)
    }
}
