//! The tools' sockets: a blocking driver of [`Exchange`] over TCP, a connection for each broker that is asked.
//!
//! Bounds: an answer takes at most [`ANSWER_BYTES_MAX`]; every connect, write and wait for an answer ends after
//! [`ConnectArguments::timeout`].

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use clap::Args;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::base::time::Monotonic;
use crate::client::cluster::{Broker, Cluster};
use crate::client::{Answer, Exchange, ExchangeError, Request, Versions};
use crate::failure::{Failure, reason};
use crate::protocol::ApiKey;

/// What Kafka's own clients call themselves is free; brokers log it.
const CLIENT_ID: &str = "ringlog";

/// An answer that says it is longer ends the connection. What is fetched at once is far below.
pub const ANSWER_BYTES_MAX: usize = 128 << 20;

/// Room that a read has at least; more where the answer is known to be longer.
const READ_BYTES: usize = 256 << 10;

/// How to reach the cluster.
#[derive(Args, Clone, Debug)]
pub struct ConnectArguments {
    /// Brokers to begin with; the first that answers tells of all others
    #[arg(
        short = 'b',
        long,
        value_name = "HOST:PORT",
        env = "RINGLOG_BOOTSTRAP_SERVER",
        hide_env = true,
        default_value = "127.0.0.1:9092",
        value_delimiter = ',',
        value_parser = address,
        help_heading = "Connection"
    )]
    pub bootstrap_server: Vec<String>,

    /// How long to wait for a connection, and for an answer: 10s, 500ms, 2m
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration, help_heading = "Connection")]
    pub timeout: Duration,
}

/// `host:port`, `[v6]:port`; without a port Kafka's.
pub fn address(text: &str) -> Result<String, String> {
    let text = text.trim();
    let wrong = || Err(format!("'{text}' is not HOST:PORT"));
    match text.rsplit_once(':') {
        None if text.is_empty() => wrong(),
        None => Ok(format!("{text}:9092")),
        Some((host, port)) => match port.parse::<u16>() {
            Ok(1..) if !host.is_empty() && (!host.contains(':') || host.starts_with('[')) => Ok(text.to_owned()),
            _ => wrong(),
        },
    }
}

/// A time with a unit, or seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is not a time; write it like 10s, 500ms or 2m");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let ms = match &text[digits..] {
        "ms" => Some(number),
        "" | "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => None,
    };
    // A poll can't wait longer than an i32 of milliseconds.
    ms.filter(|ms| *ms > 0 && *ms <= i32::MAX as u64).map(Duration::from_millis).ok_or_else(wrong)
}

/// One socket and its side of the protocol.
pub struct Connection {
    stream: TcpStream,
    exchange: Exchange,
    address: String,
}

/// Why a connection is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("{}", reason(.0))]
    Io(#[from] io::Error),
    #[error("{0}")]
    Exchange(#[from] ExchangeError),
}

impl Connection {
    fn open(address: &str, timeout: Duration) -> Result<Connection, Broken> {
        let mut last = io::Error::other("the name has no address");
        for socket in address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&socket, timeout) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_write_timeout(Some(timeout))?;
                    let exchange = Exchange::new(CLIENT_ID, ANSWER_BYTES_MAX);
                    let mut connection = Connection { stream, exchange, address: address.to_owned() };
                    connection.learn_versions(timeout)?;
                    return Ok(connection);
                }
                Err(error) => last = error,
            }
        }
        Err(last.into())
    }

    fn learn_versions(&mut self, timeout: Duration) -> Result<(), Broken> {
        let frame = self.exchange.ask_versions()?;
        self.stream.write_all(&frame)?;
        let answer = self.answer(Instant::now() + timeout)?;
        if self.exchange.learn_versions(&answer).is_ok() {
            return Ok(());
        }
        let frame = self.exchange.ask_versions_of_old()?;
        self.stream.write_all(&frame)?;
        let answer = self.answer(Instant::now() + timeout)?;
        Ok(self.exchange.learn_versions(&answer)?)
    }

    pub fn versions(&self) -> &Versions {
        self.exchange.versions()
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// Sends a request without waiting; gives the version it was written in.
    pub fn send<R: Request>(&mut self, request: &R, able: RangeInclusive<i16>) -> Result<i16, Broken> {
        let (frame, version) = self.exchange.ask(request, able)?;
        self.stream.write_all(&frame)?;
        Ok(version)
    }

    /// The request sent last has no answer.
    pub fn expect_no_answer(&mut self) {
        self.exchange.expect_no_answer();
    }

    /// An answer that is here already.
    pub fn next_answer(&mut self) -> Result<Option<Answer>, Broken> {
        Ok(self.exchange.next_answer()?)
    }

    /// Reads what has come, once; waits if nothing has.
    pub fn receive(&mut self) -> Result<(), Broken> {
        let missing = self.exchange.missing();
        let spare = missing.clamp(1, READ_BYTES);
        let buffer = self.exchange.room(if missing == usize::MAX { spare } else { missing.max(1) });
        let filled = buffer.len();
        buffer.resize(filled + spare, 0);
        let read = self.stream.read(&mut buffer[filled..]);
        buffer.truncate(filled + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => Err(Broken::Io(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The next answer, which must be there before `deadline`.
    fn answer(&mut self, deadline: Instant) -> Result<Answer, Broken> {
        loop {
            if let Some(answer) = self.next_answer()? {
                return Ok(answer);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Broken::Io(io::ErrorKind::TimedOut.into()));
            }
            self.stream.set_read_timeout(Some(left))?;
            self.receive()?;
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// The monotonic clock of a run.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    pub fn now(&self) -> Monotonic {
        Monotonic(u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

/// Who is to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    Any,
    /// The controller, as the cluster was seen last.
    Controller,
    Broker(i32),
}

/// What a connection is for. An answer that streams would stand before that of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Purpose {
    /// One request, one answer.
    Ask,
    /// Requests whose answers come when they come: Produce, Fetch.
    Stream,
}

/// The cluster, as a tool sees it.
pub struct Client {
    timeout: Duration,
    bootstrap: Vec<String>,
    /// By address.
    connections: BTreeMap<(String, Purpose), Connection>,
    /// The address of the broker that answers for all.
    home: String,
    /// Since when no broker could be reached; see [`Client::look_patiently`].
    unreachable_since: Option<Instant>,
    pub cluster: Cluster,
}

impl Client {
    /// Reaches the first broker of the list that answers.
    pub fn connect(arguments: &ConnectArguments) -> Result<Client, Failure> {
        let mut tried = Vec::new();
        for address in &arguments.bootstrap_server {
            match Connection::open(address, arguments.timeout) {
                Ok(connection) => {
                    return Ok(Client {
                        timeout: arguments.timeout,
                        bootstrap: arguments.bootstrap_server.clone(),
                        connections: BTreeMap::from([((address.clone(), Purpose::Ask), connection)]),
                        home: address.clone(),
                        unreachable_since: None,
                        cluster: Cluster::default(),
                    });
                }
                Err(error) => tried.push(format!("{address} ({error})")),
            }
        }
        let tried = tried.join(", ");
        let advice = "start one with 'ringlog serve' or name another with -b";
        Err(Failure::Unreachable(format!("no broker answers at {tried}; {advice}")))
    }

    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The request's own limit, for brokers to give up before we do.
    pub fn timeout_ms(&self) -> i32 {
        i32::try_from(self.timeout.as_millis()).unwrap_or(i32::MAX)
    }

    fn address_of(&self, to: To) -> Result<String, Failure> {
        let id = match to {
            To::Any => return Ok(self.home.clone()),
            To::Controller => match self.cluster.controller {
                Some(id) => id,
                None => return Ok(self.home.clone()),
            },
            To::Broker(id) => id,
        };
        let missing = || Failure::Refused(format!("there is no broker {id} now; see 'ringlog cluster info'"));
        self.cluster.broker(id).map(Broker::address).ok_or_else(missing)
    }

    /// The connection to ask a broker on, opened if there is none yet.
    pub fn connection(&mut self, to: To) -> Result<&mut Connection, Failure> {
        let address = self.address_of(to)?;
        self.open(address, Purpose::Ask)
    }

    /// The connection on which a broker's answers come when they come.
    pub fn stream(&mut self, broker: i32) -> Result<&mut Connection, Failure> {
        let address = self.address_of(To::Broker(broker))?;
        let key = (address, Purpose::Stream);
        if !self.connections.contains_key(&key)
            && let Some(idle) = self.connections.remove(&(key.0.clone(), Purpose::Ask))
        {
            self.connections.insert(key.clone(), idle);
        }
        self.open(key.0, key.1)
    }

    /// A stream that is open.
    pub fn open_stream(&mut self, broker: i32) -> Option<&mut Connection> {
        let address = self.address_of(To::Broker(broker)).ok()?;
        self.connections.get_mut(&(address, Purpose::Stream))
    }

    /// Forgets a stream that is of no use any more.
    pub fn close_stream(&mut self, broker: i32) {
        if let Ok(address) = self.address_of(To::Broker(broker)) {
            self.connections.remove(&(address, Purpose::Stream));
        }
    }

    fn open(&mut self, address: String, purpose: Purpose) -> Result<&mut Connection, Failure> {
        let timeout = self.timeout;
        match self.connections.entry((address.clone(), purpose)) {
            Entry::Occupied(open) => Ok(open.into_mut()),
            Entry::Vacant(place) => match Connection::open(&address, timeout) {
                Ok(connection) => Ok(place.insert(connection)),
                Err(error) => Err(Failure::Unreachable(format!(
                    "the broker at {address} does not answer ({error}); is that an address that can be reached from \
                     here? It is what the broker's advertised.listeners says"
                ))),
            },
        }
    }

    /// Waits until one of these streams, or one of `others`, can be read: which ones. `None`: for as long as it takes.
    pub fn wait(
        &self,
        brokers: &[i32],
        others: &[BorrowedFd<'_>],
        timeout: Option<Duration>,
    ) -> Result<(Vec<i32>, Vec<bool>), Failure> {
        let address = |broker: &i32| self.cluster.broker(*broker).map(Broker::address);
        let open: Vec<(i32, &Connection)> = brokers
            .iter()
            .filter_map(|broker| Some((*broker, self.connections.get(&(address(broker)?, Purpose::Stream))?)))
            .collect();
        let fds = others.iter().copied().chain(open.iter().map(|(_, connection)| connection.as_fd()));
        let mut waits: Vec<PollFd<'_>> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        // Rounded up: a wait that ends too early would only be repeated.
        let ms = timeout.map(|wait| i32::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(i32::MAX));
        let limit = ms.map_or(PollTimeout::NONE, |ms| PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX));
        match poll(&mut waits, limit) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(Failure::Refused(format!("sockets can't be waited for: {error}"))),
        }
        let is_ready = |wait: &PollFd<'_>| wait.revents().is_some_and(|ready| !ready.is_empty());
        let (first, streams) = waits.split_at(others.len());
        let ready = streams.iter().zip(&open).filter(|(wait, _)| is_ready(wait)).map(|(_, (broker, _))| *broker);
        Ok((ready.collect(), first.iter().map(is_ready).collect()))
    }

    /// The version of an API that a request will have.
    pub fn version(&mut self, to: To, key: ApiKey, able: RangeInclusive<i16>) -> Result<i16, Failure> {
        let connection = self.connection(to)?;
        let version = connection.versions().choose(key, able);
        let address = connection.address();
        version.ok_or_else(|| Failure::Refused(format!("the broker at {address} has no {key}; it is too old for this")))
    }

    /// Asks and waits for the answer.
    pub fn ask<R: Request>(&mut self, to: To, request: &R, able: RangeInclusive<i16>) -> Result<R::Response, Failure> {
        let timeout = self.timeout;
        self.version(to, R::API_KEY, able.clone())?;
        let connection = self.connection(to)?;
        let asked = connection.send(request, able).and_then(|_| connection.answer(Instant::now() + timeout));
        let read = asked.and_then(|answer| Ok(answer.read::<R::Response>()?));
        let address = connection.address().to_owned();
        read.map_err(|error| {
            let what = format!("the broker at {address} gives no answer to {}: {error}", R::API_KEY);
            self.connections.remove(&(address, Purpose::Ask));
            match error {
                Broken::Io(_) => Failure::Unreachable(format!("{what}; wait longer with --timeout, or try again")),
                Broken::Exchange(_) => Failure::Refused(what),
            }
        })
    }

    /// Looks at these topics, or all if `None`, and at the brokers; replaces what was seen before. Any broker that was
    /// ever heard of may answer.
    pub fn look(&mut self, topics: Option<&[String]>) -> Result<&Cluster, Failure> {
        let known = self.cluster.brokers.iter().map(Broker::address);
        let others: Vec<String> = known.chain(self.bootstrap.iter().cloned()).collect();
        let mut seen = self.look_at_home(topics);
        for other in others {
            if !matches!(seen, Err(Failure::Unreachable(_))) {
                break;
            }
            if other != self.home {
                self.home = other;
                seen = self.look_at_home(topics);
            }
        }
        self.cluster = seen?;
        Ok(&self.cluster)
    }

    /// The same while something goes on: that no broker can be reached is an error only once it has been so for the
    /// timeout, and `false` before.
    pub fn look_patiently(&mut self, topics: &[String]) -> Result<bool, Failure> {
        match self.look(Some(topics)).map(|_| ()) {
            Ok(()) => {
                self.unreachable_since = None;
                Ok(true)
            }
            Err(failure @ Failure::Unreachable(_)) => {
                let since = *self.unreachable_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= self.timeout { Err(failure) } else { Ok(false) }
            }
            Err(failure) => Err(failure),
        }
    }

    fn look_at_home(&mut self, topics: Option<&[String]>) -> Result<Cluster, Failure> {
        const VERSIONS: RangeInclusive<i16> = 0..=12;
        let version = self.version(To::Any, ApiKey::Metadata, VERSIONS)?;
        self.ask(To::Any, &Cluster::request(topics, version), VERSIONS).map(Cluster::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_port_or_get_kafkas() {
        assert_eq!(address("kafka.lan"), Ok("kafka.lan:9092".into()));
        assert_eq!(address(" [::1]:1 "), Ok("[::1]:1".into()));
        for wrong in ["", ":9092", "h:", "h:0", "h:70000", "::1", "h:x"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "0", "s", "1d", "-1", "99999999999999999999", "999999999"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
