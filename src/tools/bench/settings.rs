//! What a run is to do, whoever asked for it, and whether that fits together.

#![forbid(unsafe_code)]

use std::time::Duration;

use super::payload::Shape;
use crate::connect::ConnectArguments;
use crate::failure::Failure;

/// Bounds of what can be asked for: what a client machine and a broker's limits allow anyway.
pub const CLIENTS_MAX: u32 = 10_000;
pub const THREADS_MAX: u16 = 256;
pub const DEPTH_MAX: u32 = 1024;
pub const RECORD_BYTES_MAX: usize = 64 << 20;
/// Requests in flight of an idempotent producer: of so many batches a broker remembers the sequences (Kafka 3.9
/// `max.in.flight.requests.per.connection`).
pub const IDEMPOTENT_DEPTH_MAX: u32 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Produce,
    Consume,
    EndToEnd,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Mode::Produce => "produce",
            Mode::Consume => "consume",
            Mode::EndToEnd => "end-to-end",
        }
    }

    pub fn produces(self) -> bool {
        self != Mode::Consume
    }

    pub fn consumes(self) -> bool {
        self != Mode::Produce
    }
}

#[derive(Clone, Debug)]
pub struct TopicSettings {
    pub name: String,
    /// `None`: what an existing topic has, [`PARTITIONS_DEFAULT`] for a new one. -1: the same, the broker's default for a
    /// new one.
    pub partitions: Option<i32>,
    /// -1: the broker's default.
    pub replication_factor: i16,
    /// Whether a topic that the run has made stays.
    pub keep: bool,
}

pub const PARTITIONS_DEFAULT: i32 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Beginning,
    End,
}

#[derive(Clone, Debug)]
pub struct FetchSettings {
    pub from: From,
    pub max_bytes: usize,
    pub partition_max_bytes: usize,
    pub min_bytes: i32,
    pub max_wait: Duration,
    /// Begin anew at the end of the log.
    pub repeat: bool,
    /// Wait for more at the end of the log, and end when nothing has come for so long.
    pub idle: Option<Duration>,
    /// Look at every record, and count its bytes.
    pub count_values: bool,
    /// Count no more records than these, however many an answer holds; with `count_values`.
    pub records_max: u64,
}

/// Records go into transactions of one transactional id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionSettings {
    pub id: String,
    /// A transaction that is as old is committed.
    pub duration: Duration,
    /// After which the coordinator aborts one that nobody ends.
    pub timeout_ms: i32,
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub mode: Mode,
    pub connect: ConnectArguments,
    pub client_id: String,
    pub topic: TopicSettings,
    pub clients: u32,
    /// One client for each broker that leads partitions of the topic, in place of `clients`.
    pub client_per_leader: bool,
    pub threads: u16,
    /// Produce requests in flight on a connection.
    pub depth: u32,
    pub shape: Shape,
    pub linger: Duration,
    pub acks: i16,
    /// Batches have a producer id and sequences.
    pub idempotent: bool,
    /// With [`Settings::client_per_leader`] and one thread: all clients are one producer.
    pub transaction: Option<TransactionSettings>,
    /// Records a second of all clients; `None`: as fast as answers come.
    pub rate: Option<f64>,
    pub warm_up: Duration,
    /// Without warm-up.
    pub duration: Option<Duration>,
    /// Without warm-up.
    pub records: Option<u64>,
    pub fetch: FetchSettings,
    pub check: bool,
    /// Of the broker, where it can't be found by its socket.
    pub pid: Option<u32>,
}

impl FetchSettings {
    /// Of a run that fetches nothing.
    pub fn none() -> FetchSettings {
        FetchSettings {
            from: From::Beginning,
            max_bytes: 0,
            partition_max_bytes: 0,
            min_bytes: 0,
            max_wait: Duration::ZERO,
            repeat: false,
            idle: None,
            count_values: false,
            records_max: u64::MAX,
        }
    }
}

impl Settings {
    /// # Errors
    /// `Usage`: what is asked for does not fit together.
    pub fn check(&self) -> Result<(), Failure> {
        let usage = |message: &str| Err(Failure::Usage(message.to_owned()));
        if u32::from(self.threads) > self.clients {
            return usage("there are more threads than clients; give --clients at least as many as --threads");
        }
        if self.mode == Mode::Consume
            && self.fetch.from == From::End
            && self.duration.is_none()
            && self.records.is_none()
        {
            return usage("from the end of the log a run never ends by itself; give --duration or --records");
        }
        if self.fetch.repeat && self.duration.is_none() && self.records.is_none() {
            return usage("with --repeat a run never ends by itself; give --duration or --records");
        }
        if self.mode.produces() && self.duration.is_none() && self.records.is_none() {
            return usage("give --duration or --records");
        }
        if self.idempotent && self.acks != -1 {
            return usage(
                "an idempotent producer wants every record acknowledged by all of the ISR; leave --acks at all",
            );
        }
        if self.idempotent && self.depth > IDEMPOTENT_DEPTH_MAX {
            return usage("an idempotent producer has at most 5 requests in flight; give a lower --depth");
        }
        Ok(())
    }
}
