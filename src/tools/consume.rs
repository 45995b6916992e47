//! `ringlog consume`: records of topics, or of some of their partitions, to standard output.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use super::admin::{self, EARLIEST, Found, LATEST, list_offsets, missing_partition};
use super::connect::{Client, Clock, ConnectArguments, duration};
use super::failure::{EXIT_CODES, Failure, describe, say};
use super::format::{Format, Writer, escaped, format};
use super::interrupt::Interrupt;
use super::output::Output;
use super::table::human_bytes;
use super::when::{Place, place};
use crate::client::Answer;
use crate::client::cluster::Topic;
use crate::client::consumer::{ConsumeError, Consumer, ConsumerOptions, Fetched, RecordRef};
use crate::protocol::message::FetchResponse;

/// Asked at once, of all partitions and of one. More is not faster: it falls out of the processor's caches.
const FETCH_BYTES: i32 = 8 << 20;
const PARTITION_BYTES: i32 = 2 << 20;

/// How long a broker holds an answer back that has nothing in it.
const WAIT_MS: i32 = 500;

/// Answers in a row that say "try again".
const RETRIES_MAX: u32 = 20;

const EXAMPLES: &str = "\
Examples:
  ringlog consume orders                              from the beginning, and on as records come
  ringlog consume orders -e                           what is there now
  ringlog consume orders --offset end                 only what comes
  ringlog consume orders --offset -10 -e              the last ten of each partition
  ringlog consume orders --offset @2026-01-31T12:00 --count 5
  ringlog consume orders -e -f '%p:%o %T %k = %s\\n'
  ringlog consume orders -e --json > orders.jsonl     to be read by 'ringlog produce --json'

A template has kcat's letters: %t topic, %p partition, %o offset, %T timestamp, %k key, %K its length, \
%s value, %S its length, %R that in four bytes, %h headers; and \\n \\r \\t \\0 \\xNN.";

/// Print records of topics
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct ConsumeArguments {
    #[command(flatten)]
    connect: ConnectArguments,

    /// What to read: one topic or more
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,

    /// Only these partitions; may be given many times, or with commas
    #[arg(short, long, value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(i32).range(0..))]
    partition: Vec<i32>,

    /// Where to begin: beginning, end, an offset, -N for N before the end, @TIME for a time (ISO 8601, or ms)
    #[arg(short, long, value_name = "WHERE", default_value = "beginning", value_parser = place, allow_hyphen_values = true)]
    offset: Place,

    /// The same as --offset beginning, which is the default
    #[arg(long, conflicts_with = "offset")]
    from_beginning: bool,

    /// Stop after so many records
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// Stop at the records that are there now
    #[arg(short = 'e', long)]
    until_end: bool,

    /// Stop when no record has come for so long: 10s, 500ms
    #[arg(long, value_name = "TIME", value_parser = duration)]
    idle: Option<Duration>,

    /// Also what belongs to transactions that are open or were aborted, or only what is committed
    #[arg(long, value_name = "LEVEL", default_value = "read_uncommitted")]
    isolation: Isolation,

    /// raw (values, a line each), hex, json (a line each), or a template such as '%k: %s\n'
    #[arg(short, long, value_name = "FORMAT", default_value = "raw", value_parser = format)]
    format: Format,

    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,

    /// With raw and hex: print the key too, and this behind it
    #[arg(short = 'K', long, value_name = "TEXT", value_parser = separator)]
    key_separator: Option<Separator>,

    /// What a key or value that is null is printed as, but in JSON
    #[arg(long, value_name = "TEXT", default_value = "")]
    null: String,

    /// No summary on standard error
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Isolation {
    ReadUncommitted,
    ReadCommitted,
}

/// Bytes between key and value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Separator(pub Vec<u8>);

/// Text with escapes.
pub fn separator(text: &str) -> Result<Separator, String> {
    escaped(text).map(Separator)
}

pub fn run(arguments: ConsumeArguments) -> Result<(), Failure> {
    let interrupt = Interrupt::catch()?;
    let mut client = Client::connect(&arguments.connect)?;
    let topics = admin::topics(&mut client, &arguments.topics)?;
    let wanted = Wanted {
        partitions: arguments.partition,
        from: if arguments.from_beginning { Place::Beginning } else { arguments.offset },
        until_end: arguments.until_end,
        read_committed: arguments.isolation == Isolation::ReadCommitted,
    };
    let writer = Writer {
        format: if arguments.json { Format::Json } else { arguments.format },
        key_separator: arguments.key_separator.map(|separator| separator.0),
        null: arguments.null.into_bytes(),
    };
    let consumer = assign(&mut client, &topics, &wanted)?;
    let mut run = Run::new(client, consumer, interrupt, (arguments.count, arguments.idle));
    let mut out = Output::new()?;
    let started = Instant::now();
    let ended = run.until_done(&mut out, |buffer, fetched, record| {
        writer.write(buffer, &fetched.topic, fetched.partition, record);
        Ok(())
    });
    let is_worth_it = matches!(ended, Ok(()) | Err(Failure::Interrupted)) || run.seen.records > 0;
    if !arguments.quiet && is_worth_it && ended != Err(Failure::BrokenPipe) {
        say(&run.seen.summary("read", started.elapsed()));
    }
    ended
}

/// What of the topics is wanted.
pub struct Wanted {
    /// Empty: all.
    pub partitions: Vec<i32>,
    pub from: Place,
    pub until_end: bool,
    pub read_committed: bool,
}

/// A consumer of what is wanted, at its first offsets.
pub fn assign(client: &mut Client, topics: &[Topic], wanted: &Wanted) -> Result<Consumer, Failure> {
    let mut places = Vec::new();
    for topic in topics {
        if let Some(missing) = wanted.partitions.iter().find(|index| topic.partition(**index).is_none()) {
            return Err(missing_partition(topic, *missing));
        }
        let is_wanted = |index: &i32| wanted.partitions.is_empty() || wanted.partitions.contains(index);
        let indexes = topic.partitions.iter().map(|partition| partition.index).filter(is_wanted);
        places.extend(indexes.map(|index| (topic.name.clone(), index)));
    }
    let mut ask = |timestamp: i64| {
        let asked: Vec<_> = places.iter().cloned().map(|place| (place, timestamp)).collect();
        let found = list_offsets(client, &asked, wanted.read_committed)?;
        let offset = |(place, found): (admin::Place, Result<Found, i16>)| match found {
            Ok(found) => Ok((place, found.offset)),
            Err(code) => Err(Failure::of_code(&format!("offsets of {}-{}", place.0, place.1), code, None)),
        };
        found.into_iter().map(offset).collect::<Result<BTreeMap<_, _>, _>>()
    };
    let needs_end = wanted.until_end || matches!(wanted.from, Place::End | Place::BeforeEnd(_) | Place::Time(_));
    let ends = if needs_end { ask(LATEST)? } else { BTreeMap::new() };
    let from = match wanted.from {
        Place::Beginning => ask(EARLIEST)?,
        Place::End => ends.clone(),
        Place::Offset(offset) => places.iter().cloned().map(|place| (place, offset)).collect(),
        Place::BeforeEnd(count) => {
            let starts = ask(EARLIEST)?;
            let back = |place: &admin::Place, end: &i64| end.saturating_sub(count).max(starts[place]);
            ends.iter().map(|(place, end)| (place.clone(), back(place, end))).collect()
        }
        Place::Time(ms) => {
            let found = ask(ms)?;
            found
                .into_iter()
                .map(|(place, offset)| if offset < 0 { (place.clone(), ends[&place]) } else { (place, offset) })
                .collect()
        }
    };
    let mut consumer = Consumer::new(ConsumerOptions {
        read_committed: wanted.read_committed,
        wait_ms: WAIT_MS,
        fetch_bytes: FETCH_BYTES,
        partition_bytes: PARTITION_BYTES,
        retries_max: RETRIES_MAX,
    });
    let mut name: Arc<str> = Arc::from("");
    for (topic, partition) in places {
        if *name != *topic {
            name = Arc::from(topic.as_str());
        }
        let place = (topic, partition);
        if let (Place::Offset(offset), Some(end)) = (wanted.from, ends.get(&place))
            && offset > *end
        {
            let (topic, partition) = place;
            let error = ConsumeError::OutOfRange { topic: topic.into(), partition, offset };
            return Err(sentence(client, &error));
        }
        let offset = from.get(&place).copied().unwrap_or(0);
        let end = wanted.until_end.then(|| ends.get(&place).copied()).flatten();
        consumer.assign(name.clone(), partition, offset, end);
    }
    Ok(consumer)
}

/// What was printed.
#[derive(Debug, Default)]
pub struct Seen {
    pub records: u64,
    pub bytes: u64,
}

impl Seen {
    fn summary(&self, verb: &str, elapsed: Duration) -> String {
        summary(verb, self.records, self.bytes, elapsed)
    }
}

/// `read 3 records, 12 B in 0.01 s (1.2 KiB/s)`.
pub fn summary(verb: &str, records: u64, bytes: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64().max(0.000_001);
    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
    let rate = human_bytes((bytes as f64 / seconds) as i64);
    let plural = if records == 1 { "" } else { "s" };
    format!("{verb} {records} record{plural}, {} in {seconds:.2} s ({rate}/s)", human_bytes(bytes))
}

/// One run of a consumer to its end.
pub struct Run {
    client: Client,
    consumer: Consumer,
    clock: Clock,
    interrupt: Interrupt,
    /// Records to stop after.
    limit: Option<u64>,
    idle: Option<Duration>,
    pub seen: Seen,
    last_record: Instant,
}

impl Run {
    /// With the number of records, and the time without one, to stop after.
    pub fn new(
        client: Client,
        consumer: Consumer,
        interrupt: Interrupt,
        (limit, idle): (Option<u64>, Option<Duration>),
    ) -> Run {
        let (clock, last_record) = (Clock::start(), Instant::now());
        Run { client, consumer, clock, interrupt, limit, idle, seen: Seen::default(), last_record }
    }

    /// Fetches and has `show` put each record into the buffer of what is to be printed, until there is no more, or enough.
    /// A record that can't be shown is the last one; it is counted.
    pub fn until_done(
        &mut self,
        out: &mut Output,
        show: impl FnMut(&mut Vec<u8>, &Fetched, &RecordRef<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let ended = self.show_all(out, show);
        let flushed = match &ended {
            Err(Failure::BrokenPipe) => Ok(()),
            _ => out.flush(Some(&self.interrupt)),
        };
        ended.and(flushed)
    }

    fn is_enough(&self) -> bool {
        self.limit.is_some_and(|limit| self.seen.records >= limit)
    }

    fn show_all(
        &mut self,
        out: &mut Output,
        mut show: impl FnMut(&mut Vec<u8>, &Fetched, &RecordRef<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut asked: BTreeMap<i32, Instant> = BTreeMap::new();
        while !self.consumer.is_done() && !self.is_enough() {
            self.ask_all(&mut asked)?;
            if out.is_terminal() || asked.is_empty() {
                out.flush(Some(&self.interrupt))?;
            }
            for (broker, answer) in self.wait(out, &mut asked)? {
                asked.remove(&broker);
                let fetched = self.take(broker, &answer)?;
                // The broker sends what is next while this is printed.
                self.ask_all(&mut asked)?;
                for fetched in &fetched {
                    self.show_fetched(out, fetched, &mut show)?;
                    self.last_record = Instant::now();
                    out.spill(Some(&self.interrupt))?;
                    if self.is_enough() {
                        return Ok(());
                    }
                }
            }
            if self.idle.is_some_and(|idle| self.last_record.elapsed() >= idle) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn show_fetched(
        &mut self,
        out: &mut Output,
        fetched: &Fetched,
        show: &mut impl FnMut(&mut Vec<u8>, &Fetched, &RecordRef<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let shown = fetched.records(|record| {
            self.seen.records += 1;
            self.seen.bytes += (record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len)) as u64;
            show(out.buffer(), fetched, record).map_err(Some)?;
            match self.is_enough() {
                true => Err(None),
                false => out.spill(Some(&self.interrupt)).map_err(Some),
            }
        });
        match shown.map_err(|error| sentence(&mut self.client, &error))? {
            Ok(()) | Err(None) => Ok(()),
            Err(Some(failure)) => Err(failure),
        }
    }

    /// Sends every request that can leave.
    fn ask_all(&mut self, asked: &mut BTreeMap<i32, Instant>) -> Result<(), Failure> {
        let now = self.clock.now();
        if self.consumer.wants_look(now) {
            let topics = self.consumer.topics();
            if self.client.look_patiently(&topics)? {
                let taken = self.consumer.set_leaders(&self.client.cluster, now);
                taken.map_err(|error| sentence(&mut self.client, &error))?;
            } else {
                self.consumer.look_failed(self.clock.now());
            }
        }
        while let Some((broker, request)) = self.consumer.next_request(self.clock.now()) {
            let sent = self.client.stream(broker).map(|stream| stream.send(&request, 0..=12));
            match sent {
                Ok(Ok(_)) => {
                    asked.insert(broker, Instant::now());
                }
                Ok(Err(error)) => self.lost(broker, &error.to_string())?,
                Err(error) => self.lost(broker, &error.to_string())?,
            }
        }
        Ok(())
    }

    /// Waits for answers, those of brokers that were asked.
    fn wait(&mut self, out: &mut Output, asked: &mut BTreeMap<i32, Instant>) -> Result<Vec<(i32, Answer)>, Failure> {
        let brokers: Vec<i32> = asked.keys().copied().collect();
        // Answers may be held back for as long as the request says.
        let patience = self.client.timeout() + Duration::from_millis(WAIT_MS as u64);
        let overdue = asked.values().map(|since| (*since + patience).saturating_duration_since(Instant::now())).min();
        let wake = self.consumer.wake_at().map(|at| at.since(self.clock.now()));
        let idle = self.idle.map(|idle| (self.last_record + idle).saturating_duration_since(Instant::now()));
        let mut limit = [overdue, wake, idle].into_iter().flatten().min();
        let mut ready = self.client.wait(&brokers, &[self.interrupt.as_fd()], Some(Duration::ZERO))?;
        if ready.0.is_empty() && !ready.1[0] {
            // Nothing has come yet: what is there is shown before a longer wait.
            out.flush(Some(&self.interrupt))?;
            limit = limit.map(|limit| limit.max(Duration::from_millis(1)));
            ready = self.client.wait(&brokers, &[self.interrupt.as_fd()], limit)?;
        }
        if ready.1[0] && self.interrupt.is_pending() {
            return Err(Failure::Interrupted);
        }
        let mut answers = Vec::new();
        for broker in ready.0 {
            let Some(stream) = self.client.open_stream(broker) else { continue };
            match stream.receive().and_then(|()| stream.next_answer()) {
                Ok(Some(answer)) => answers.push((broker, answer)),
                Ok(None) => {}
                Err(error) => {
                    asked.remove(&broker);
                    self.lost(broker, &error.to_string())?;
                }
            }
        }
        let late: Vec<i32> =
            asked.iter().filter(|(_, since)| since.elapsed() >= patience).map(|(broker, _)| *broker).collect();
        for broker in late.into_iter().filter(|broker| !answers.iter().any(|(answered, _)| answered == broker)) {
            asked.remove(&broker);
            self.lost(broker, "no answer in time")?;
        }
        Ok(answers)
    }

    fn lost(&mut self, broker: i32, reason: &str) -> Result<(), Failure> {
        let address =
            self.client.cluster.broker(broker).map_or(String::new(), |broker| format!(" at {}", broker.address()));
        self.client.close_stream(broker);
        self.consumer
            .disconnected(broker, self.clock.now())
            .map_err(|_| Failure::Unreachable(format!("broker {broker}{address} does not answer any more ({reason})")))
    }

    fn take(&mut self, broker: i32, answer: &Answer) -> Result<Vec<Fetched>, Failure> {
        let response: FetchResponse = answer.read().map_err(|error| Failure::Refused(error.to_string()))?;
        let (fetched, errors) = self.consumer.answered(broker, &response, &answer.frame, self.clock.now());
        match errors.first() {
            Some(error) => Err(sentence(&mut self.client, error)),
            None => Ok(fetched),
        }
    }
}

/// Why it ended, and what to do.
pub fn sentence(client: &mut Client, error: &ConsumeError) -> Failure {
    Failure::Refused(match error {
        ConsumeError::OutOfRange { topic, partition, offset } => {
            let place = (topic.to_string(), *partition);
            let mut ask = |timestamp| {
                let found = list_offsets(client, &[(place.clone(), timestamp)], false).ok()?;
                found.get(&place)?.ok().map(|found| found.offset)
            };
            match (ask(EARLIEST), ask(LATEST)) {
                (Some(start), Some(end)) => format!(
                    "{topic}-{partition} has no offset {offset}; its records are from {start} to before {end}: choose with --offset"
                ),
                _ => format!("{topic}-{partition} has no offset {offset}; see 'ringlog offsets {topic}'"),
            }
        }
        ConsumeError::Refused { topic, partition, code } => format!("{topic}-{partition}: {}", describe(*code, None)),
        ConsumeError::Damaged { .. } => format!("{error}; go on behind it with --partition and --offset"),
        ConsumeError::TooLarge { .. } => error.to_string(),
    })
}
