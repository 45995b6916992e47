//! The loop: connections with requests in flight, closed (as fast as answers come), on a schedule, or at a pace in bytes.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;
use ringlog::protocol::frame::{FRAME_PREFIX_BYTES, frame_length};

use crate::LoadError;
use crate::report::{Histogram, Report, cpu_seconds};

const EVENTS_MAX: usize = 256;
/// Without any answer for so long, the run has failed.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// What is asked and answered.
pub trait Workload {
    /// Appends a connection's next request, a whole frame.
    fn request(&mut self, connection: usize, correlation_id: i32, out: &mut Vec<u8>) -> Result<(), LoadError>;

    /// Checks an answer, a frame without its size; gives the batches that it stands for.
    fn answer(&mut self, connection: usize, correlation_id: i32, frame: &[u8]) -> Result<Carried, LoadError>;
}

/// What a request brought to the server, or an answer from it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Carried {
    /// Of batches.
    pub bytes: u64,
    pub records: u64,
}

/// What decides when a request is sent, but for the depth.
#[derive(Clone, Copy)]
pub enum Pace {
    /// The answers alone.
    Closed,
    /// Requests a second, all connections together.
    Requests(f64),
    /// Bytes of batches a second, all connections together, each its share. One that falls behind catches up.
    Bytes(f64),
}

/// Bounds of a run; whichever is reached first ends it.
pub struct Limits {
    pub depth: usize,
    pub pace: Pace,
    pub requests_max: u64,
    pub bytes_max: u64,
    pub time_max: Duration,
    pub warm_requests: u64,
    pub answer_bytes_max: usize,
}

struct Connection {
    socket: TcpStream,
    received: Vec<u8>,
    received_bytes: usize,
    out: Vec<u8>,
    /// Bytes of `out` that are sent.
    sent: usize,
    /// Correlation id of each unanswered request, and when it was sent or due.
    in_flight: VecDeque<(i32, Instant)>,
    /// Of all answers.
    bytes: u64,
}

impl Connection {
    fn connect(address: SocketAddr, answer_bytes_max: usize) -> Result<Connection, LoadError> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let received = vec![0; answer_bytes_max + FRAME_PREFIX_BYTES];
        Ok(Connection {
            socket,
            received,
            received_bytes: 0,
            out: Vec::new(),
            sent: 0,
            in_flight: VecDeque::new(),
            bytes: 0,
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.sent < self.out.len() {
            match self.socket.write(&self.out[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }

    /// Reads once; whether the socket may hold more.
    fn fill(&mut self) -> Result<bool, LoadError> {
        match self.socket.read(&mut self.received[self.received_bytes..]) {
            Ok(0) => Err(LoadError::Answer("the server closed a connection")),
            Ok(count) => {
                self.received_bytes += count;
                Ok(self.received_bytes == self.received.len())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// What was counted since the warm-up.
struct Counted {
    start: Instant,
    cpu_start: f64,
    requests: u64,
    carried: Carried,
    latencies: Histogram,
}

pub struct Client<W> {
    epoll: Epoll,
    connections: Vec<Connection>,
    limits: Limits,
    workload: W,
    start: Instant,
    issued: u64,
    answered: u64,
    counted: Option<Counted>,
    /// Where the next scheduled request looks for room first.
    next_connection: usize,
}

impl<W: Workload> Client<W> {
    pub fn connect(address: SocketAddr, count: usize, limits: Limits, workload: W) -> Result<Client<W>, LoadError> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut connections = Vec::with_capacity(count);
        for index in 0..count {
            let connection = Connection::connect(address, limits.answer_bytes_max)?;
            let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
            epoll.add(&connection.socket, EpollEvent::new(flags, index as u64))?;
            connections.push(connection);
        }
        let start = Instant::now();
        Ok(Client {
            epoll,
            connections,
            limits,
            workload,
            start,
            issued: 0,
            answered: 0,
            counted: None,
            next_connection: 0,
        })
    }

    /// Runs until a limit is reached. `cpu_of`: the process whose CPU time is read.
    pub fn run(mut self, cpu_of: Option<u32>) -> Result<Report, LoadError> {
        self.start = Instant::now();
        let mut last_answer = self.start;
        loop {
            if self.counted.is_none() && self.answered >= self.limits.warm_requests {
                self.counted = Some(Counted {
                    start: Instant::now(),
                    cpu_start: cpu_seconds(cpu_of)?,
                    requests: 0,
                    carried: Carried::default(),
                    latencies: Histogram::default(),
                });
            }
            if self.is_over() {
                return self.report(cpu_of);
            }
            self.issue()?;
            let before = self.answered;
            self.turn()?;
            if self.answered > before {
                last_answer = Instant::now();
            } else if last_answer.elapsed() > SILENCE_MAX {
                return Err(LoadError::Late(SILENCE_MAX));
            }
        }
    }

    fn is_over(&self) -> bool {
        let limits = &self.limits;
        self.counted.as_ref().is_some_and(|counted| {
            counted.requests >= limits.requests_max
                || counted.carried.bytes >= limits.bytes_max
                || counted.start.elapsed() >= limits.time_max
        })
    }

    fn report(self, cpu_of: Option<u32>) -> Result<Report, LoadError> {
        let counted = self.counted.ok_or(LoadError::Answer("the run ended in its warm-up"))?;
        Ok(Report {
            carried: counted.carried,
            requests: counted.requests,
            seconds: counted.start.elapsed().as_secs_f64(),
            cpu_seconds: cpu_of
                .is_some()
                .then(|| cpu_seconds(cpu_of).map(|end| end - counted.cpu_start))
                .transpose()?,
            latencies: counted.latencies,
        })
    }

    /// Writes the requests that are due into their connections.
    fn issue(&mut self) -> Result<(), LoadError> {
        match self.limits.pace {
            Pace::Requests(rate) => {
                while self.due(rate) <= Instant::now()
                    && let Some(index) = self.connection_with_room()
                {
                    self.request(index, self.due(rate))?;
                    self.connections[index].flush()?;
                }
            }
            Pace::Closed | Pace::Bytes(_) => {
                for index in 0..self.connections.len() {
                    while self.has_room(index) && self.byte_due(index).is_none_or(|due| due <= Instant::now()) {
                        self.request(index, Instant::now())?;
                    }
                    self.connections[index].flush()?;
                }
            }
        }
        Ok(())
    }

    fn has_room(&self, index: usize) -> bool {
        self.connections[index].in_flight.len() < self.limits.depth
    }

    /// When the next request is to be sent.
    fn due(&self, rate: f64) -> Instant {
        self.start + Duration::from_secs_f64(self.issued as f64 / rate)
    }

    /// When a connection has had so few bytes that it may ask for more.
    fn byte_due(&self, index: usize) -> Option<Instant> {
        let Pace::Bytes(rate) = self.limits.pace else { return None };
        let share = rate / self.connections.len() as f64;
        Some(self.start + Duration::from_secs_f64(self.connections[index].bytes as f64 / share))
    }

    /// When there is something to send, if no answer comes before.
    fn next_due(&self) -> Option<Instant> {
        match self.limits.pace {
            Pace::Closed => None,
            Pace::Requests(rate) => Some(self.due(rate)),
            Pace::Bytes(_) => {
                let waiting = (0..self.connections.len()).filter(|&index| self.has_room(index));
                waiting.filter_map(|index| self.byte_due(index)).min()
            }
        }
    }

    fn connection_with_room(&mut self) -> Option<usize> {
        let count = self.connections.len();
        let order = (0..count).map(|step| (self.next_connection + step) % count);
        let found = order.into_iter().find(|&index| self.has_room(index))?;
        self.next_connection = found + 1;
        Some(found)
    }

    fn request(&mut self, index: usize, since: Instant) -> Result<(), LoadError> {
        let correlation_id = (self.issued & 0x7fff_ffff) as i32;
        let connection = &mut self.connections[index];
        self.workload.request(index, correlation_id, &mut connection.out)?;
        connection.in_flight.push_back((correlation_id, since));
        self.issued += 1;
        Ok(())
    }

    /// Waits for events, until the next request is due, and takes the answers that have come.
    fn turn(&mut self) -> Result<(), LoadError> {
        let mut wait = EpollTimeout::try_from(SILENCE_MAX).unwrap_or(EpollTimeout::NONE);
        if let Some(due) = self.next_due() {
            // To the nanosecond, which epoll_wait can't: a request sent late, or a core kept busy by waiting, would show in
            // the latencies.
            let left = TimeSpec::from_duration(due.saturating_duration_since(Instant::now()).min(SILENCE_MAX));
            match ppoll(&mut [PollFd::new(self.epoll.0.as_fd(), PollFlags::POLLIN)], Some(left), None) {
                Err(nix::Error::EINTR) => {}
                other => drop(other?),
            }
            wait = EpollTimeout::ZERO;
        }
        let mut events = [EpollEvent::empty(); EVENTS_MAX];
        let count = match self.epoll.wait(&mut events, wait) {
            Err(nix::Error::EINTR) => 0,
            other => other?,
        };
        for event in &events[..count] {
            let index = event.data() as usize;
            self.connections[index].flush()?;
            loop {
                let more = self.connections[index].fill()?;
                self.take_answers(index)?;
                if !more {
                    break;
                }
            }
        }
        Ok(())
    }

    fn take_answers(&mut self, index: usize) -> Result<(), LoadError> {
        let connection = &mut self.connections[index];
        let mut start = 0;
        let received = &connection.received[..connection.received_bytes];
        while let Some(prefix) = received[start..].first_chunk::<FRAME_PREFIX_BYTES>() {
            let length = frame_length(*prefix, self.limits.answer_bytes_max)?;
            let begin = start + FRAME_PREFIX_BYTES;
            let Some(frame) = received.get(begin..begin + length) else { break };
            let (correlation_id, since) =
                connection.in_flight.pop_front().ok_or(LoadError::Answer("an answer to nothing"))?;
            let carried = self.workload.answer(index, correlation_id, frame)?;
            self.answered += 1;
            connection.bytes += carried.bytes;
            if let Some(counted) = &mut self.counted {
                counted.requests += 1;
                counted.carried.bytes += carried.bytes;
                counted.carried.records += carried.records;
                counted.latencies.add(since.elapsed());
            }
            start = begin + length;
        }
        let end = connection.received_bytes;
        connection.received.copy_within(start..end, 0);
        connection.received_bytes = end - start;
        Ok(())
    }
}
