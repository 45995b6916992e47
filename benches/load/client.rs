//! The loop: connections with requests in flight, closed (as fast as answers come) or on a schedule.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
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

    /// Checks an answer, a frame without its size; gives the bytes of batches that it stands for.
    fn answer(&mut self, connection: usize, correlation_id: i32, frame: &[u8]) -> Result<u64, LoadError>;
}

/// Bounds of a run; whichever is reached first ends it.
pub struct Limits {
    pub depth: usize,
    pub rate: Option<f64>,
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
}

impl Connection {
    fn connect(address: SocketAddr, answer_bytes_max: usize) -> Result<Connection, LoadError> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let received = vec![0; answer_bytes_max + FRAME_PREFIX_BYTES];
        Ok(Connection { socket, received, received_bytes: 0, out: Vec::new(), sent: 0, in_flight: VecDeque::new() })
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
    bytes: u64,
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
                    bytes: 0,
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
                || counted.bytes >= limits.bytes_max
                || counted.start.elapsed() >= limits.time_max
        })
    }

    fn report(self, cpu_of: Option<u32>) -> Result<Report, LoadError> {
        let counted = self.counted.ok_or(LoadError::Answer("the run ended in its warm-up"))?;
        Ok(Report {
            bytes: counted.bytes,
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
        match self.limits.rate {
            None => {
                for index in 0..self.connections.len() {
                    while self.connections[index].in_flight.len() < self.limits.depth {
                        self.request(index, Instant::now())?;
                    }
                    self.connections[index].flush()?;
                }
            }
            Some(rate) => {
                while self.due(rate) <= Instant::now()
                    && let Some(index) = self.connection_with_room()
                {
                    self.request(index, self.due(rate))?;
                    self.connections[index].flush()?;
                }
            }
        }
        Ok(())
    }

    /// When the next request is to be sent.
    fn due(&self, rate: f64) -> Instant {
        self.start + Duration::from_secs_f64(self.issued as f64 / rate)
    }

    fn connection_with_room(&mut self) -> Option<usize> {
        let count = self.connections.len();
        let order = (0..count).map(|step| (self.next_connection + step) % count);
        let found = order.into_iter().find(|&index| self.connections[index].in_flight.len() < self.limits.depth)?;
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
        let wait = match self.limits.rate {
            None => SILENCE_MAX,
            Some(rate) => self.due(rate).saturating_duration_since(Instant::now()),
        };
        // Whole milliseconds, rounded down: the last one is spent spinning, so that nothing is sent late.
        let wait = EpollTimeout::try_from(wait.min(SILENCE_MAX)).unwrap_or(EpollTimeout::ZERO);
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
            let bytes = self.workload.answer(index, correlation_id, frame)?;
            self.answered += 1;
            if let Some(counted) = &mut self.counted {
                counted.requests += 1;
                counted.bytes += bytes;
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
