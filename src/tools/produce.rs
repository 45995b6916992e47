//! `ringlog produce`: records from standard input or files to a topic.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use super::admin;
use super::connect::{Client, Clock, ConnectArguments, To, duration};
use super::consume::{Separator, separator, summary};
use super::failure::{EXIT_CODES, Failure, describe, reason, say};
use super::format::{parse_json, unhex};
use super::interrupt::Interrupt;
use super::when::{now_ms, timestamp};
use crate::client::cluster::Topic;
use crate::client::producer::{ProduceError, Producer, ProducerOptions, RECORD_BYTES_MAX, ToRecord};
use crate::protocol::ApiKey;
use crate::protocol::ErrorCode;
use crate::protocol::message::{InitProducerIdRequest, ProduceResponse};
use crate::record::compression::{Codec, Compression};

/// Read at once.
const READ_BYTES: usize = 256 << 10;

/// What may wait for acknowledgements.
pub const BUFFER_BYTES: usize = 32 << 20;

/// A little less than a broker's default `max.message.bytes`, for what the batch itself takes.
const BATCH_BYTES: usize = 1_000_000;

/// `request.timeout.ms` of the other replicas' acknowledgements is the tool's own; this is how often it is tried.
const RETRIES_MAX: u32 = 20;

/// While a broker loads what it knows of producers, it can't give an id.
const ID_WAIT: Duration = Duration::from_millis(20);

const EXAMPLES: &str = "\
Examples:
  echo hello | ringlog produce greetings
  ringlog produce orders -K : < orders.txt            key:value, a record each line
  ringlog produce orders --json orders.jsonl          what 'ringlog consume --json' wrote
  ringlog produce images --whole --key logo logo.png  the whole file as one record
  seq 1000000 | ringlog produce numbers -z zstd:6 --acks 1 --linger 50ms
  ringlog produce events -H source=backup -H run=7 < events.txt

Without --partition records go where the hash of their key says, as with Kafka's own clients; those \
without a key go to one partition after the other, batch by batch. With acks=all records are neither \
lost nor doubled by retries.";

/// Send records to a topic: lines of standard input, or of files
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct ProduceArguments {
    #[command(flatten)]
    connect: ConnectArguments,

    /// Where the records go
    topic: String,

    /// Files to send instead of standard input
    files: Vec<PathBuf>,

    /// What a line is: raw (a value), hex (a value in hexadecimal digits), json (what 'consume --json' prints)
    #[arg(short, long, default_value = "raw")]
    format: InputFormat,

    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,

    /// Send each file, or standard input, as one record
    #[arg(long, conflicts_with_all = ["json", "key_separator"])]
    whole: bool,

    /// What is between key and value on a line; \t for a tab
    #[arg(short = 'K', long, value_name = "TEXT", value_parser = separator)]
    key_separator: Option<Separator>,

    /// The key of every record
    #[arg(short, long, value_name = "TEXT", conflicts_with = "key_separator")]
    key: Option<String>,

    /// A header of every record; may be given many times
    #[arg(short = 'H', long, value_name = "NAME=VALUE", value_parser = admin::assignment)]
    header: Vec<(String, String)>,

    /// A key or value that is this text is null
    #[arg(long, value_name = "TEXT")]
    null: Option<String>,

    /// The partition of every record
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,

    /// With json: the partition that each line names
    #[arg(long, conflicts_with = "partition")]
    keep_partitions: bool,

    /// The timestamp of every record (ISO 8601, or ms) [default: now, or what a JSON line says]
    #[arg(long, value_name = "TIME", value_parser = timestamp)]
    timestamp: Option<i64>,

    /// none, gzip, snappy, lz4 or zstd, with a level if you like: zstd:6
    #[arg(short = 'z', long, value_name = "CODEC", default_value = "none", value_parser = compression)]
    compression: Compression,

    /// Which acknowledgement to wait for: 0 (none), 1 (the leader's), all (all in sync)
    #[arg(long, value_name = "ACKS", default_value = "all", value_parser = acks, allow_hyphen_values = true)]
    acks: i16,

    /// Send when a batch has so many bytes, uncompressed
    #[arg(long, value_name = "BYTES", default_value_t = BATCH_BYTES as u32, value_parser = clap::value_parser!(u32).range(1..=BUFFER_BYTES as i64))]
    batch_size: u32,

    /// Send a batch that is not full after so long
    #[arg(long, value_name = "TIME", default_value = "5ms", value_parser = duration)]
    linger: Duration,

    /// No summary on standard error
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum InputFormat {
    Raw,
    Hex,
    Json,
}

/// `zstd`, `zstd:6`.
pub fn compression(text: &str) -> Result<Compression, String> {
    let (name, level) = text.split_once(':').map_or((text, None), |(name, level)| (name, Some(level)));
    let (codec, levels) = match name {
        "none" => (Codec::None, 0..=0),
        "gzip" => (Codec::Gzip, 1..=9),
        "snappy" => (Codec::Snappy, 0..=0),
        "lz4" => (Codec::Lz4, 1..=17),
        "zstd" => (Codec::Zstd, -131_072..=22),
        _ => return Err(format!("'{name}' is none of none, gzip, snappy, lz4 and zstd")),
    };
    let of_codec = Compression::of(codec);
    let Some(level) = level else { return Ok(of_codec) };
    match level.parse().ok().filter(|level| levels.contains(level) && *levels.end() > 0) {
        Some(level) => Ok(Compression { level, ..of_codec }),
        None if *levels.end() == 0 => Err(format!("{name} has no levels")),
        None => Err(format!("the levels of {name} are {} to {}", levels.start(), levels.end())),
    }
}

/// `0`, `1`, `all` or `-1`.
pub fn acks(text: &str) -> Result<i16, String> {
    match text {
        "0" => Ok(0),
        "1" => Ok(1),
        "all" | "-1" => Ok(-1),
        _ => Err(format!("'{text}' is none of 0, 1 and all")),
    }
}

pub fn run(arguments: ProduceArguments) -> Result<(), Failure> {
    let interrupt = Interrupt::catch()?;
    let inputs = open_inputs(&arguments.files)?;
    let mut client = Client::connect(&arguments.connect)?;
    let topic = admin::topic(&mut client, &arguments.topic)?;
    if let Some(partition) = arguments.partition.filter(|partition| topic.partition(*partition).is_none()) {
        return Err(admin::missing_partition(&topic, partition));
    }
    let options = ProducerOptions {
        acks: arguments.acks,
        compression: arguments.compression,
        batch_bytes: arguments.batch_size as usize,
        linger: arguments.linger,
        timeout_ms: client.timeout_ms(),
        buffer_bytes: BUFFER_BYTES,
        retries_max: RETRIES_MAX,
    };
    let mut sending = Sending::new(client, topic, options, interrupt)?;
    if arguments.files.is_empty() && io::stdin().is_terminal() && !arguments.quiet {
        say("a record on each line; Ctrl-D ends");
    }
    let quiet = arguments.quiet;
    let started = Instant::now();
    let mut lines = Lines::new(arguments);
    let mut ended = Ok(());
    for (name, input) in inputs {
        ended = sending.read_all(&name, input, &mut lines);
        if ended.is_err() {
            break;
        }
    }
    let finished = match ended {
        // Whoever pressed Ctrl-C wants what was read to be sent.
        Ok(()) | Err(Failure::Usage(_)) => sending.finish(None),
        Err(Failure::Interrupted) => sending.finish(Some(Instant::now() + sending.timeout())),
        Err(_) => Ok(()),
    };
    let done = sending.producer.acknowledged();
    let is_worth_it = matches!(ended, Ok(()) | Err(Failure::Interrupted)) || done.records > 0;
    if !quiet && is_worth_it {
        let retries = if done.retries > 0 { format!(", {} retries", done.retries) } else { String::new() };
        say(&format!("{}{retries}", summary("sent", done.records, done.bytes, started.elapsed())));
    }
    finished.and(ended).map_err(|failure| match failure {
        // A line that can't be read is no wrong flag.
        Failure::Usage(text) => Failure::Refused(text),
        failure => failure,
    })
}

pub fn open_inputs(files: &[PathBuf]) -> Result<Vec<(String, File)>, Failure> {
    if files.is_empty() {
        let stdin = io::stdin().as_fd().try_clone_to_owned();
        let stdin =
            stdin.map_err(|error| Failure::Refused(format!("standard input can't be read: {}", reason(&error))))?;
        return Ok(vec![("standard input".to_owned(), File::from(stdin))]);
    }
    let open = |path: &PathBuf| {
        let opened = File::open(path);
        let name = path.display().to_string();
        match opened {
            Ok(file) => Ok((name, file)),
            Err(error) => Err(Failure::Refused(format!("{name} can't be read: {}", reason(&error)))),
        }
    };
    files.iter().map(open).collect()
}

/// What a person said of how input becomes records.
struct Lines {
    format: InputFormat,
    whole: bool,
    key_separator: Option<memchr::memmem::Finder<'static>>,
    key: Option<Vec<u8>>,
    headers: Vec<(String, String)>,
    null: Option<Vec<u8>>,
    partition: Option<i32>,
    keep_partitions: bool,
    timestamp: Option<i64>,
}

impl Lines {
    fn new(arguments: ProduceArguments) -> Lines {
        Lines {
            format: if arguments.json { InputFormat::Json } else { arguments.format },
            whole: arguments.whole,
            key_separator: arguments
                .key_separator
                .map(|separator| memchr::memmem::Finder::new(&separator.0).into_owned()),
            key: arguments.key.map(String::into_bytes),
            headers: arguments.header,
            null: arguments.null.map(String::into_bytes),
            partition: arguments.partition,
            keep_partitions: arguments.keep_partitions,
            timestamp: arguments.timestamp,
        }
    }
}

/// How input becomes records.
pub trait ToRecords {
    /// Whether all of an input is one record, instead of a line.
    fn is_whole(&self) -> bool;

    /// Asks a person for more, before each wait for input.
    fn prompt(&self) {}

    /// Shows the record on a line to `push`.
    ///
    /// # Errors
    /// Why there is none on it.
    fn record<T>(&mut self, line: &[u8], now_ms: i64, push: impl FnOnce(&ToRecord<'_>) -> T) -> Result<T, String>;
}

impl ToRecords for Lines {
    fn is_whole(&self) -> bool {
        self.whole
    }

    fn record<T>(&mut self, line: &[u8], now_ms: i64, push: impl FnOnce(&ToRecord<'_>) -> T) -> Result<T, String> {
        let fixed = self.headers.iter().map(|(name, value)| (name.as_bytes(), Some(value.as_bytes())));
        let timestamp = self.timestamp.unwrap_or(now_ms);
        if self.format == InputFormat::Json {
            let parsed = parse_json(line)?;
            let own = parsed.headers.iter().map(|(key, value)| (&key[..], value.as_deref()));
            let headers: Vec<_> = own.chain(fixed).collect();
            let named = if self.keep_partitions { parsed.partition } else { None };
            return Ok(push(&ToRecord {
                partition: self.partition.or(named),
                timestamp: self.timestamp.or(parsed.timestamp).unwrap_or(now_ms),
                key: parsed.key.as_deref().or(self.key.as_deref()),
                value: parsed.value.as_deref(),
                headers: &headers,
            }));
        }
        let (key, value) = match &self.key_separator {
            None => (self.key.as_deref(), line),
            Some(separator) => {
                let at = separator.find(line).ok_or_else(|| {
                    format!("no key separator '{}' on the line", String::from_utf8_lossy(separator.needle()))
                })?;
                (Some(&line[..at]), &line[at + separator.needle().len()..])
            }
        };
        let not_null = |field: &&[u8]| self.null.as_deref().is_none_or(|null| null != *field);
        let (key, value) = (key.filter(not_null), Some(value).filter(not_null));
        let (key_bytes, value_bytes);
        let (key, value) = match self.format {
            InputFormat::Hex => {
                let digits = |field: Option<&[u8]>| match field.map(unhex) {
                    Some(None) => Err("not hexadecimal digits, two for each byte".to_owned()),
                    Some(bytes) => Ok(bytes),
                    None => Ok(None),
                };
                // A key from the command line is no digits.
                key_bytes = if self.key_separator.is_some() { digits(key)? } else { key.map(<[u8]>::to_vec) };
                value_bytes = digits(value)?;
                (key_bytes.as_deref(), value_bytes.as_deref())
            }
            _ => (key, value),
        };
        let partition = self.partition;
        if self.headers.is_empty() {
            return Ok(push(&ToRecord { partition, timestamp, key, value, headers: &[] }));
        }
        let headers: Vec<_> = fixed.collect();
        Ok(push(&ToRecord { partition, timestamp, key, value, headers: &headers }))
    }
}

/// A producer with its sockets.
pub struct Sending {
    client: Client,
    topic: Topic,
    pub producer: Producer,
    clock: Clock,
    interrupt: Interrupt,
    /// Brokers that owe answers, since when nothing came.
    waiting: BTreeMap<i32, (usize, Instant)>,
}

impl Sending {
    pub fn new(
        mut client: Client,
        topic: Topic,
        options: ProducerOptions,
        interrupt: Interrupt,
    ) -> Result<Sending, Failure> {
        let acks = options.acks;
        // Any partition may be the first; by the clock not always the same.
        let mut producer = Producer::new(options, &topic, now_ms().unsigned_abs() as usize);
        if acks == -1
            && let Some((id, epoch)) = producer_id(&mut client)?
        {
            producer.set_producer_id(id, epoch);
        }
        Ok(Sending { client, topic, producer, clock: Clock::start(), interrupt, waiting: BTreeMap::new() })
    }

    /// Sends what is in `input`.
    pub fn read_all(&mut self, name: &str, mut input: File, lines: &mut impl ToRecords) -> Result<(), Failure> {
        let mut buffer: Vec<u8> = Vec::with_capacity(READ_BYTES);
        let mut line = 0;
        lines.prompt();
        loop {
            if self.producer.is_full() {
                self.turn(None, None)?;
                continue;
            }
            if !self.turn(Some(input.as_fd()), None)? {
                continue;
            }
            let filled = buffer.len();
            buffer.resize(filled + READ_BYTES, 0);
            let read = input.read(&mut buffer[filled..]);
            buffer.truncate(filled + *read.as_ref().unwrap_or(&0));
            let read = read.map_err(|error| Failure::Refused(format!("{name} can't be read: {}", reason(&error))))?;
            let taken = match (read, lines.is_whole()) {
                (0, _) => buffer.len(),
                (_, true) => 0,
                // What was there before has no end of a line in it.
                (_, false) => memchr::memrchr(b'\n', &buffer[filled..]).map_or(0, |at| filled + at + 1),
            };
            self.push_lines(&buffer[..taken], (name, &mut line), lines, read == 0)?;
            buffer.drain(..taken);
            if read == 0 {
                return Ok(());
            }
            lines.prompt();
            if buffer.len() > RECORD_BYTES_MAX {
                let what = if lines.is_whole() { name.to_owned() } else { format!("line {} of {name}", line + 1) };
                let limit = RECORD_BYTES_MAX >> 20;
                return Err(Failure::Refused(format!("{what} is longer than {limit} MiB, more than any broker takes")));
            }
        }
    }

    /// Whole lines, or at the end of the input all that is left.
    fn push_lines(
        &mut self,
        mut bytes: &[u8],
        (name, number): (&str, &mut u64),
        lines: &mut impl ToRecords,
        at_end: bool,
    ) -> Result<(), Failure> {
        let (now, now_ms) = (self.clock.now(), now_ms());
        while !bytes.is_empty() || (lines.is_whole() && at_end) {
            let end = if lines.is_whole() { None } else { memchr::memchr(b'\n', bytes) };
            let (line, rest) = end.map_or((bytes, &[][..]), |end| (&bytes[..end], &bytes[end + 1..]));
            bytes = rest;
            *number += 1;
            let pushed = lines.record(line, now_ms, |record| self.producer.push(record, now));
            match pushed {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(self.sentence(&error)),
                Err(reason) if lines.is_whole() => return Err(Failure::Usage(format!("{name}: {reason}"))),
                Err(reason) => return Err(Failure::Usage(format!("line {number} of {name}: {reason}"))),
            }
            if lines.is_whole() {
                break;
            }
        }
        Ok(())
    }

    pub fn timeout(&self) -> Duration {
        self.client.timeout()
    }

    /// Waits until all is acknowledged.
    pub fn finish(&mut self, deadline: Option<Instant>) -> Result<(), Failure> {
        self.producer.end();
        while !self.producer.is_done() {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(Failure::Unreachable(
                    "not all that was read is acknowledged: no answer in time".to_owned(),
                ));
            }
            self.turn(None, deadline)?;
        }
        Ok(())
    }

    /// Sends what can leave, waits for what may come, takes it up. Whether `input` can be read; without one, whether
    /// anything happened at all does not matter.
    pub fn turn(&mut self, input: Option<BorrowedFd<'_>>, deadline: Option<Instant>) -> Result<bool, Failure> {
        self.send_all()?;
        let brokers: Vec<i32> = self.waiting.keys().copied().collect();
        if input.is_none() && self.producer.is_done() {
            return Ok(false);
        }
        // Brokers take as long for the other replicas as the request says.
        let patience = self.client.timeout() * 2;
        let overdue =
            self.waiting.values().map(|(_, since)| (*since + patience).saturating_duration_since(Instant::now())).min();
        let wake = self.producer.wake_at().map(|at| at.since(self.clock.now()));
        let limit = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let limit = [overdue, wake, limit].into_iter().flatten().min();
        let others: Vec<BorrowedFd<'_>> = std::iter::once(self.interrupt.as_fd()).chain(input).collect();
        let (ready, others) = self.client.wait(&brokers, &others, limit)?;
        if others[0] && self.interrupt.is_pending() {
            return Err(Failure::Interrupted);
        }
        for broker in ready {
            self.receive(broker)?;
        }
        let late = self.waiting.iter().filter(|(_, (_, since))| since.elapsed() >= patience);
        for broker in late.map(|(broker, _)| *broker).collect::<Vec<_>>() {
            self.lost(broker, "no answer in time")?;
        }
        Ok(others.get(1).copied().unwrap_or(false))
    }

    fn send_all(&mut self) -> Result<(), Failure> {
        const VERSIONS: RangeInclusive<i16> = 0..=11;
        let now = self.clock.now();
        if self.producer.wants_look(now) {
            let name = self.topic.name.clone();
            if self.client.look_patiently(std::slice::from_ref(&name))? {
                let topic = self.client.cluster.topics.get(&name);
                self.producer.set_leaders(topic, now).map_err(|error| self.sentence(&error))?;
            } else {
                self.producer.look_failed(self.clock.now());
            }
        }
        while let Some(mut request) = self.producer.next_request(self.clock.now()) {
            let leader = request.leader;
            let version = self.client.stream(leader).map(|stream| stream.versions().choose(ApiKey::Produce, VERSIONS));
            let version = match version {
                Ok(Some(version)) => version,
                Ok(None) => {
                    return Err(Failure::Refused(format!("broker {leader} speaks no version of Produce that we do")));
                }
                Err(error) => {
                    self.lost(leader, &error.to_string())?;
                    continue;
                }
            };
            request.fit(version).map_err(|error| self.sentence(&error))?;
            let Some(stream) = self.client.open_stream(leader) else { continue };
            let sent = request.with_request(&self.topic.name, |request| {
                let sent = stream.send(request, version..=version);
                if request.acks == 0 && sent.is_ok() {
                    stream.expect_no_answer();
                }
                sent.map(|_| request.acks != 0)
            });
            match sent {
                Ok(true) => {
                    self.waiting.entry(leader).or_insert((0, Instant::now())).0 += 1;
                }
                Ok(false) => {}
                Err(error) => self.lost(leader, &error.to_string())?,
            }
        }
        Ok(())
    }

    fn receive(&mut self, broker: i32) -> Result<(), Failure> {
        let Some(stream) = self.client.open_stream(broker) else { return Ok(()) };
        if let Err(error) = stream.receive() {
            return self.lost(broker, &error.to_string());
        }
        loop {
            let Some(stream) = self.client.open_stream(broker) else { return Ok(()) };
            let answer = match stream.next_answer() {
                Ok(Some(answer)) => answer,
                Ok(None) => return Ok(()),
                Err(error) => return self.lost(broker, &error.to_string()),
            };
            let response: ProduceResponse = answer.read().map_err(|error| Failure::Refused(error.to_string()))?;
            let taken = self.producer.answered(broker, &response, self.clock.now());
            taken.map_err(|error| self.sentence(&error))?;
            if let Some((count, since)) = self.waiting.get_mut(&broker) {
                (*count, *since) = (*count - 1, Instant::now());
                if *count == 0 {
                    self.waiting.remove(&broker);
                }
            }
        }
    }

    fn lost(&mut self, broker: i32, reason: &str) -> Result<(), Failure> {
        let address =
            self.client.cluster.broker(broker).map_or(String::new(), |broker| format!(" at {}", broker.address()));
        self.client.close_stream(broker);
        self.waiting.remove(&broker);
        self.producer
            .disconnected(broker, self.clock.now())
            .map_err(|_| Failure::Unreachable(format!("broker {broker}{address} does not answer any more ({reason})")))
    }

    fn sentence(&self, error: &ProduceError) -> Failure {
        let topic = &self.topic.name;
        Failure::Refused(match error {
            ProduceError::Refused { partition, code, message } => {
                let advice = match ErrorCode::from_code(*code) {
                    Some(ErrorCode::MessageTooLarge) => {
                        "; raise it with 'ringlog topic alter --set max.message.bytes=N', or compress with -z"
                    }
                    _ => "",
                };
                format!("{topic}-{partition}: {}{advice}", describe(*code, message.as_deref()))
            }
            ProduceError::NoPartition(partition) => format!(
                "topic '{topic}' has no partition {partition}; its partitions are 0 to {}",
                self.topic.partitions.len().saturating_sub(1)
            ),
            ProduceError::TooLarge(_) | ProduceError::Unsplittable(_) => format!("{topic}: {error}"),
            ProduceError::NoZstd => "this broker is too old for zstd; take another codec with -z".to_owned(),
        })
    }
}

/// An id to write under, where the broker gives one (from 0.11 on, and to whom it allows it).
fn producer_id(client: &mut Client) -> Result<Option<(i64, i16)>, Failure> {
    let deadline = Instant::now() + client.timeout();
    if client.connection(To::Any)?.versions().of(ApiKey::InitProducerId).is_none() {
        return Ok(None);
    }
    let request = InitProducerIdRequest { transaction_timeout_ms: 60_000, ..InitProducerIdRequest::default() };
    let request = InitProducerIdRequest { transactional_id: None, ..request };
    loop {
        let response = client.ask(To::Any, &request, 0..=4)?;
        match ErrorCode::from_code(response.error_code) {
            Some(ErrorCode::None) => return Ok(Some((response.producer_id, response.producer_epoch))),
            Some(error) if error.is_retriable() && Instant::now() < deadline => std::thread::sleep(ID_WAIT),
            // Then a retry may double a record; Kafka's own clients go on like this too.
            _ => return Ok(None),
        }
    }
}
