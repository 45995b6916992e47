//! The flags of `ringlog bench`, and the settings they become.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::payload::{Keys, STAMP_BYTES, Shape, Values, ZIPF_KEYS_MAX};
use super::settings::{
    CLIENTS_MAX, DEPTH_MAX, FetchSettings, From, Mode, RECORD_BYTES_MAX, Settings, THREADS_MAX, TopicSettings,
};
use crate::arguments::bytes;
use crate::connect::{ConnectArguments, duration};
use crate::failure::{EXIT_CODES, Failure};
use crate::produce::{acks, compression};
use crate::record::compression::Compression;

const WARM_UP_DEFAULT: Duration = Duration::from_secs(2);
const DURATION_DEFAULT: Duration = Duration::from_secs(10);

const EXAMPLES: &str = "\
Examples:
  ringlog bench produce --clients 4 --duration 30s
      As fast as the broker takes it, to a topic that is made and deleted again.
  ringlog bench end-to-end --rate 10000 --report report.html
      What latency records have from a producer to a consumer, at ten thousand a second.
  ringlog bench produce -t load --keep --records 5m && ringlog bench consume -t load --check
      Fill a topic, then read it and check each record.";

const PRODUCE_EXAMPLES: &str = "\
Examples:
  ringlog bench produce --clients 4 --duration 30s
      As fast as the broker takes it, to a topic that is made and deleted again.
  ringlog bench produce --idempotent --rate 5000 --record-size 200
      Batches with a producer id and sequences, as those of Kafka's own producers.
  ringlog bench produce --rate 50MB/s --acks 1 --codec zstd --compressible 4 --json
      Numbers for a script.";

const CONSUME_EXAMPLES: &str = "\
Examples:
  ringlog bench consume -t load --check
      Read what is there, once, and check each record.
  ringlog bench consume -t load --clients 4 --repeat --duration 30s
      As fast as the broker gives it, from the beginning again and again.";

const END_TO_END_EXAMPLES: &str = "\
Examples:
  ringlog bench end-to-end --rate 10000 --report report.html
      What latency records have from a producer to a consumer, at ten thousand a second, as a page with charts.
  ringlog bench end-to-end --rate 10000 --check --json
      The same as numbers, with each record looked at: none lost, none twice, none out of order.";

const LATENCIES: &str = "\
With --rate latencies count from when a record was due, whether or not it could be sent then: a broker that stands \
still is seen in all records that were due meanwhile. Without, they count from when it was sent.";

/// Load a broker and measure it
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{LATENCIES}\n\n{EXIT_CODES}"))]
pub struct BenchArguments {
    #[command(subcommand)]
    pub mode: BenchMode,
}

#[derive(Subcommand, Debug)]
pub enum BenchMode {
    /// Produce records; latency is until the acknowledgement
    #[command(after_help = format!("{PRODUCE_EXAMPLES}\n\n{LATENCIES}\n\n{EXIT_CODES}"))]
    Produce(ProduceArguments),
    /// Consume a topic; latency is that of fetch requests
    #[command(after_help = format!("{CONSUME_EXAMPLES}\n\n{EXIT_CODES}"))]
    Consume(ConsumeArguments),
    /// Produce and consume the same topic; latency is from producer to consumer
    #[command(alias = "e2e", after_help = format!("{END_TO_END_EXAMPLES}\n\n{LATENCIES}\n\n{EXIT_CODES}"))]
    EndToEnd(EndToEndArguments),
}

#[derive(Args, Debug)]
pub struct ProduceArguments {
    #[command(flatten)]
    run: RunArguments,
    #[command(flatten)]
    records: RecordArguments,
}

#[derive(Args, Debug)]
pub struct ConsumeArguments {
    #[command(flatten)]
    run: RunArguments,
    #[command(flatten)]
    fetch: FetchArguments,

    /// Where to begin
    #[arg(long, value_name = "WHERE", default_value = "beginning", help_heading = "Fetching")]
    from: FromFlag,

    /// Begin anew at the end of the log, until --duration or --records are reached
    #[arg(long, help_heading = "Fetching")]
    repeat: bool,
}

#[derive(Args, Debug)]
pub struct EndToEndArguments {
    #[command(flatten)]
    run: RunArguments,
    #[command(flatten)]
    records: RecordArguments,
    #[command(flatten)]
    fetch: FetchArguments,
}

/// What every run has.
#[derive(Args, Debug)]
pub struct RunArguments {
    #[command(flatten)]
    connect: ConnectArguments,

    /// The topic
    #[arg(short, long, value_name = "NAME", default_value = "ringlog-bench")]
    topic: String,

    /// Connections; end to end as many for producing, and at most as many for consuming
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(CLIENTS_MAX)))]
    clients: u32,

    /// Threads for them, each with an io_uring
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=i64::from(THREADS_MAX)))]
    threads: u16,

    /// Records a second of all clients, as 5000 or 20k, or bytes of them, as 50MB/s [default: as fast as answers come]
    #[arg(short, long, value_name = "RATE", value_parser = rate)]
    rate: Option<Rate>,

    /// Time at the beginning that is not counted [default: 2s; 0s with --records, and to consume until the end]
    #[arg(long, value_name = "TIME", value_parser = duration_or_none)]
    warm_up: Option<Duration>,

    /// How long to go on after the warm-up [default: 10s without --records; to consume, until the end]
    #[arg(short, long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,

    /// Records after the warm-up, of all clients: 1000, 5m
    #[arg(short = 'n', long, value_name = "N", value_parser = count)]
    records: Option<u64>,

    /// Check what is read: checksums of batches and records, order, loss and repetition; to produce: records that can be
    /// checked later
    #[arg(long)]
    check: bool,

    /// The broker's process, for its CPU time, if it can't be found by its socket
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,

    #[command(flatten)]
    pub output: OutputArguments,
}

/// What becomes of the figures.
#[derive(Args, Clone, Debug)]
pub struct OutputArguments {
    /// Print one JSON object with all settings and figures instead of tables
    #[arg(long, help_heading = "Output")]
    pub json: bool,

    /// Write the latencies of each second as an HdrHistogram interval log, in nanoseconds
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub hdr: Option<PathBuf>,

    /// Write a page with settings, figures and charts
    #[arg(long, value_name = "FILE.html", help_heading = "Output")]
    pub report: Option<PathBuf>,

    /// Show figures of an earlier run, of which --json printed this file, beside those of this one; may be given many times
    #[arg(long, value_name = "FILE.json", help_heading = "Output")]
    pub compare: Vec<PathBuf>,

    /// No progress on standard error
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,
}

/// What is produced, and how.
#[derive(Args, Debug)]
pub struct RecordArguments {
    /// Partitions of the topic, if it is made [default: 4]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,

    /// Replicas of the topic, if it is made [default: the broker's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
    replication_factor: Option<i16>,

    /// Let a topic that was made stay
    #[arg(long)]
    keep: bool,

    /// Requests in flight on a connection
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=i64::from(DEPTH_MAX)), help_heading = "Records")]
    depth: u32,

    /// Bytes of a record's value
    #[arg(short = 's', long, value_name = "BYTES", default_value = "1024", value_parser = record_bytes, help_heading = "Records")]
    record_size: usize,

    /// Distinct keys, each of them in one partition [default: no keys]
    #[arg(long, value_name = "N", value_parser = count, help_heading = "Records")]
    keys: Option<u64>,

    /// The n-th key comes n to the power of EXPONENT times less often than the first [default: all as often]
    #[arg(long, value_name = "EXPONENT", requires = "keys", help_heading = "Records")]
    zipf: Option<f64>,

    /// Bytes of records that a batch has before compression, one record at least; a request has one batch
    #[arg(long, value_name = "BYTES", default_value = "16384", value_parser = record_bytes, help_heading = "Records")]
    batch_size: usize,

    /// With --rate: how long a record waits for others of its batch
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = duration_or_none, help_heading = "Records")]
    linger: Duration,

    /// Who acknowledges: 0 nobody, 1 the leader, all of the ISR
    #[arg(long, value_name = "0|1|all", default_value = "all", value_parser = acks, help_heading = "Records", allow_hyphen_values = true)]
    acks: i16,

    /// Batches have a producer id and sequences, by which the broker knows repeated ones, as Kafka's own producers send them
    /// [default: they have none, so that figures stay comparable with those of earlier runs]
    #[arg(long, help_heading = "Records")]
    idempotent: bool,

    /// none, gzip, snappy, lz4 or zstd, gzip, lz4 and zstd also with a level, as zstd:6
    #[arg(long, value_name = "CODEC[:LEVEL]", default_value = "none", value_parser = compression, help_heading = "Records")]
    codec: Compression,

    /// By what a good codec makes values smaller [default: 1, they are random]
    #[arg(long, value_name = "RATIO", default_value_t = 1.0, value_parser = ratio, help_heading = "Records", hide_default_value = true)]
    compressible: f64,
}

/// How records are fetched.
#[derive(Args, Debug)]
pub struct FetchArguments {
    /// Bytes of an answer
    #[arg(long, value_name = "BYTES", default_value = "4m", value_parser = fetch_bytes, help_heading = "Fetching")]
    max_bytes: usize,

    /// Bytes of a partition in an answer
    #[arg(long, value_name = "BYTES", default_value = "1m", value_parser = fetch_bytes, help_heading = "Fetching")]
    partition_max_bytes: usize,

    /// Bytes that an answer waits for
    #[arg(long, value_name = "BYTES", default_value = "1", value_parser = fetch_bytes, help_heading = "Fetching")]
    min_bytes: usize,

    /// How long an answer waits for them
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = duration, help_heading = "Fetching")]
    max_wait: Duration,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FromFlag {
    Beginning,
    End,
}

/// What is asked for a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    Records(f64),
    /// Of values.
    Bytes(f64),
}

impl BenchMode {
    /// The settings, and where the figures go.
    pub fn into_settings(self) -> Result<(Settings, OutputArguments), Failure> {
        let (mode, run, records, fetch, from, repeat) = match self {
            BenchMode::Produce(ProduceArguments { run, records }) => {
                (Mode::Produce, run, Some(records), None, From::Beginning, false)
            }
            BenchMode::Consume(ConsumeArguments { run, fetch, from, repeat }) => {
                let from = match from {
                    FromFlag::Beginning => From::Beginning,
                    FromFlag::End => From::End,
                };
                (Mode::Consume, run, None, Some(fetch), from, repeat)
            }
            BenchMode::EndToEnd(EndToEndArguments { run, records, fetch }) => {
                (Mode::EndToEnd, run, Some(records), Some(fetch), From::End, false)
            }
        };
        let output = run.output.clone();
        let settings = run.settings(mode, records, fetch.map(|fetch| fetch.settings(from, repeat)))?;
        settings.check()?;
        Ok((settings, output))
    }
}

impl FetchArguments {
    fn settings(self, from: From, repeat: bool) -> FetchSettings {
        FetchSettings {
            from,
            max_bytes: self.max_bytes,
            partition_max_bytes: self.partition_max_bytes,
            min_bytes: i32::try_from(self.min_bytes).unwrap_or(i32::MAX),
            max_wait: self.max_wait,
            repeat,
            idle: None,
            count_values: false,
            records_max: u64::MAX,
        }
    }
}

impl RunArguments {
    fn settings(
        self,
        mode: Mode,
        records: Option<RecordArguments>,
        fetch: Option<FetchSettings>,
    ) -> Result<Settings, Failure> {
        let shape = match &records {
            Some(records) => records.shape(self.check || mode == Mode::EndToEnd)?,
            None => Shape::none(),
        };
        let rate = match self.rate {
            None => None,
            Some(Rate::Records(rate)) => Some(rate),
            Some(Rate::Bytes(_)) if mode == Mode::Consume => {
                let message = "what is consumed has records of any size; give --rate in records a second";
                return Err(Failure::Usage(message.to_owned()));
            }
            Some(Rate::Bytes(rate)) => Some(rate / shape.record_bytes.max(1) as f64),
        };
        let endless = mode.produces() && self.records.is_none();
        let duration = self.duration.or(endless.then_some(DURATION_DEFAULT));
        let timed = duration.is_some() && self.records.is_none();
        let topic = TopicSettings {
            name: self.topic,
            partitions: records.as_ref().and_then(|records| records.partitions),
            replication_factor: records.as_ref().and_then(|records| records.replication_factor).unwrap_or(-1),
            keep: records.as_ref().is_none_or(|records| records.keep),
        };
        Ok(Settings {
            mode,
            connect: self.connect,
            client_id: "ringlog-bench".to_owned(),
            topic,
            clients: self.clients,
            client_per_leader: false,
            threads: self.threads,
            depth: records.as_ref().map_or(1, |records| records.depth),
            shape,
            linger: records.as_ref().map_or(Duration::ZERO, |records| records.linger),
            acks: records.as_ref().map_or(1, |records| records.acks),
            transaction: None,
            idempotent: records.as_ref().is_some_and(|records| records.idempotent),
            rate,
            warm_up: self.warm_up.unwrap_or(if timed { WARM_UP_DEFAULT } else { Duration::ZERO }),
            duration,
            records: self.records,
            fetch: fetch.unwrap_or_else(FetchSettings::none),
            check: self.check,
            pid: self.pid,
        })
    }
}

impl RecordArguments {
    fn shape(&self, stamped: bool) -> Result<Shape, Failure> {
        let keys = match (self.keys, self.zipf) {
            (None, _) => Keys::None,
            (Some(count), None) => Keys::Uniform(count),
            (Some(count), Some(exponent)) if count <= ZIPF_KEYS_MAX && exponent.is_finite() && exponent >= 0.0 => {
                Keys::Zipf { count, exponent }
            }
            (Some(_), Some(_)) => {
                let message =
                    format!("with --zipf there are at most {ZIPF_KEYS_MAX} keys, and the exponent is not below 0");
                return Err(Failure::Usage(message));
            }
        };
        if stamped && self.record_size < STAMP_BYTES {
            return Err(Failure::Usage(format!(
                "records for --check and end-to-end have a stamp and at least {STAMP_BYTES} bytes; give --record-size"
            )));
        }
        Ok(Shape {
            values: Values::Filler,
            record_bytes: self.record_size,
            batch_bytes: self.batch_size,
            keys,
            compression: self.codec,
            compressible: self.compressible,
            stamped,
        })
    }
}

fn duration_or_none(text: &str) -> Result<Duration, String> {
    match text {
        "0" | "0s" | "0ms" => Ok(Duration::ZERO),
        _ => duration(text),
    }
}

fn scaled(text: &str) -> Option<f64> {
    let (digits, factor) = match text.strip_suffix(['k', 'K', 'm', 'M', 'g', 'G']) {
        Some(digits) => (
            digits,
            match text.as_bytes()[digits.len()].to_ascii_lowercase() {
                b'k' => 1e3,
                b'm' => 1e6,
                _ => 1e9,
            },
        ),
        None => (text, 1.0),
    };
    let number = digits.parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0)?;
    Some(number * factor)
}

/// A number above 0, also as 20k, 5m or 1g.
fn count(text: &str) -> Result<u64, String> {
    let number = scaled(text).filter(|number| number.fract() == 0.0 && *number < 1e18);
    number.map(|number| number as u64).ok_or_else(|| "write a number above 0, such as 1000, 20k or 5m".to_owned())
}

fn rate(text: &str) -> Result<Rate, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    let rate = match number.strip_suffix(['B', 'b']) {
        Some(bytes) => scaled(bytes).map(Rate::Bytes),
        None => scaled(number).map(Rate::Records),
    };
    // Beyond this the schedule would have less than a nanosecond between records.
    const RATE_MAX: f64 = 1e9;
    let rate = rate.filter(|rate| !matches!(rate, Rate::Records(records) if *records > RATE_MAX));
    rate.ok_or_else(|| "write records a second, such as 5000 or 20k, or bytes, such as 50MB/s".to_owned())
}

fn bounded(text: &str, limit: usize) -> Result<usize, String> {
    let number = bytes(text)?;
    usize::try_from(number).ok().filter(|number| *number <= limit).ok_or_else(|| format!("at most {limit}"))
}

fn record_bytes(text: &str) -> Result<usize, String> {
    bounded(text, RECORD_BYTES_MAX)
}

fn fetch_bytes(text: &str) -> Result<usize, String> {
    const FETCH_BYTES_MAX: usize = 512 << 20;
    bounded(text, FETCH_BYTES_MAX)
}

fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse::<f64>().ok().filter(|ratio| (1.0..=100.0).contains(ratio));
    ratio.ok_or_else(|| "write a number from 1 to 100".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::record::compression::Codec;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        bench: BenchArguments,
    }

    fn settings(arguments: &str) -> Result<Settings, Failure> {
        let arguments = std::iter::once("bench").chain(arguments.split_ascii_whitespace());
        let program = Program::try_parse_from(arguments).map_err(|error| Failure::Usage(error.to_string()))?;
        program.bench.mode.into_settings().map(|(settings, _)| settings)
    }

    #[test]
    fn runs_end_by_themselves_and_warm_up_unless_records_are_counted() {
        let timed = settings("produce").expect("right");
        assert_eq!((timed.warm_up, timed.duration), (WARM_UP_DEFAULT, Some(DURATION_DEFAULT)));
        let counted = settings("produce -n 5m").expect("right");
        assert_eq!((counted.warm_up, counted.duration, counted.records), (Duration::ZERO, None, Some(5_000_000)));
        let read = settings("consume").expect("right");
        assert_eq!((read.warm_up, read.duration, read.records), (Duration::ZERO, None, None));
        assert!(settings("end-to-end --warm-up 1s -n 5").is_ok_and(|settings| settings.shape.stamped));
    }

    #[test]
    fn rates_are_records_or_bytes_of_values() {
        assert_eq!(settings("produce -r 20k").expect("right").rate, Some(20_000.0));
        assert_eq!(settings("produce -r 50MB/s -s 1000").expect("right").rate, Some(50_000.0));
        assert_eq!(rate("1.5GB/s"), Ok(Rate::Bytes(1.5e9)));
        for wrong in ["0", "-1", "x", "MB/s", "1e30"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn codecs_have_levels_where_kafka_has_them() {
        let codec = compression;
        assert_eq!(codec("zstd:6"), Ok(Compression { codec: Codec::Zstd, level: 6 }));
        assert_eq!(codec("lz4"), Ok(Compression::of(Codec::Lz4)));
        for wrong in ["zst", "snappy:1", "gzip:10", "zstd:x"] {
            assert!(codec(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_does_not_fit_together_is_wrong_usage() {
        for wrong in [
            "",
            "consume --from end",
            "consume --repeat",
            "consume -r 5MB/s",
            "produce --threads 2",
            "produce --zipf 1",
            "produce --keys 2m --zipf 1",
            "end-to-end -s 31",
            "produce --acks 2",
            "produce --idempotent --acks 1",
            "produce --idempotent --depth 6",
            "produce --record-size 0",
            "consume --keys 1",
        ] {
            assert!(matches!(settings(wrong), Err(Failure::Usage(_))), "{wrong}");
        }
    }
}
