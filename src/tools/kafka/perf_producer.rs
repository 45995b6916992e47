//! `kafka-producer-perf-test.sh` (Kafka 3.9 `ProducerPerformance`) on the engine of `ringlog bench`.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args};
use regex::Regex;

use super::payload_file;
use super::perf_metrics::Metrics;
use super::properties::Properties;
use crate::bench::load::{self, Event};
use crate::bench::measure::Figures;
use crate::bench::payload::{Keys, Shape, Values};
use crate::bench::settings::{
    DEPTH_MAX, FetchSettings, IDEMPOTENT_DEPTH_MAX, Mode, RECORD_BYTES_MAX, Settings, TopicSettings,
    TransactionSettings,
};
use crate::failure::Failure;
use crate::output::Output;
use crate::produce::{acks, compression};

/// A line so often.
const REPORT_NS: u64 = 5_000_000_000;
const MEGABYTE: f64 = 1024.0 * 1024.0;

const EXAMPLES: &str = "\
Examples:
  kafka-producer-perf-test.sh --topic load --num-records 1000000 --record-size 200 --throughput -1 \\
      --producer-props bootstrap.servers=localhost:9092
      As fast as the broker takes them, acknowledged by all of the ISR, idempotent as Kafka's producers are.
  kafka-producer-perf-test.sh --topic load --num-records 50000 --throughput 5000 \\
      --payload-file lines.txt --print-metrics \\
      --producer-props bootstrap.servers=localhost:9092 compression.type=zstd linger.ms=5
      Lines of a file by chance, five thousand a second, and what the client counted beside.
  kafka-producer-perf-test.sh --topic load --num-records 100000 --record-size 200 --throughput -1 \\
      --producer-props bootstrap.servers=localhost:9092 --transaction-duration-ms 100
      In transactions, of which each is committed after a tenth of a second. An error or Ctrl-C aborts the last one.

Latency is that of requests, from when their records were sent, and with --throughput from when they were due. \
Metrics have Kafka's names; rates and averages are of the whole run.";

/// Kafka's producer test: its flags and its output
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
#[command(group = ArgGroup::new("payload").required(true).args(["record_size", "payload_file", "payload_monotonic"]))]
pub struct ProducerPerfArguments {
    /// The topic
    #[arg(long)]
    topic: String,

    /// Records to produce
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    num_records: u64,

    /// Bytes of a record's value, which is random capital letters
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(..=RECORD_BYTES_MAX as u64))]
    record_size: Option<u64>,

    /// A text file of values, one of which is sent each time, by chance
    #[arg(long, value_name = "FILE")]
    payload_file: Option<PathBuf>,

    /// What stands between values of the file: a text, or a regular expression
    #[arg(long, value_name = "REGEX", default_value = "\\n", value_parser = payload_file::delimiter)]
    payload_delimiter: Regex,

    /// Values are the numbers of their records, from 0
    #[arg(long)]
    payload_monotonic: bool,

    /// Records a second; -1: as fast as possible
    #[arg(long, allow_negative_numbers = true)]
    throughput: f64,

    /// Properties of the producer
    #[arg(long, num_args = 1.., value_name = "NAME=VALUE")]
    producer_props: Vec<String>,

    /// A file of them
    #[arg(long = "producer.config", value_name = "FILE")]
    producer_config: Option<PathBuf>,

    /// Print what the client has counted, at the end
    #[arg(long)]
    print_metrics: bool,

    /// The transactional id, with --transaction-duration-ms
    #[arg(long, value_name = "ID", default_value = "performance-producer-default-transactional-id")]
    transactional_id: String,

    /// Commit a transaction when it is so old; above 0 there are transactions
    #[arg(long, value_name = "MS", default_value_t = 0, allow_negative_numbers = true)]
    transaction_duration_ms: i64,
}

impl ProducerPerfArguments {
    /// What values are made of, and their bytes or the mean of these.
    fn values(&self, out: &mut Output) -> Result<(Values, usize), Failure> {
        if let Some(path) = &self.payload_file {
            let shown = std::env::current_dir().map(|directory| directory.join(path));
            out.line(&format!("Reading payloads from: {}", shown.as_ref().unwrap_or(path).display()))?;
            out.flush(None)?;
            let payloads = payload_file::read(path, &self.payload_delimiter)?;
            out.line(&format!("Number of messages read: {}", payloads.len()))?;
            if let Some(large) = payloads.iter().map(Vec::len).find(|bytes| *bytes > RECORD_BYTES_MAX) {
                let message = format!("{}: a value of {large} bytes is longer than any broker takes", path.display());
                return Err(Failure::Refused(message));
            }
            let mean = payloads.iter().map(Vec::len).sum::<usize>() / payloads.len();
            return Ok((Values::Lines(payloads.into()), mean));
        }
        Ok(match self.record_size {
            Some(bytes) => (Values::Letters, bytes as usize),
            None => (Values::Numbers, (self.num_records - 1).to_string().len()),
        })
    }

    fn settings(self, out: &mut Output) -> Result<Settings, Failure> {
        if self.throughput == 0.0 || !self.throughput.is_finite() {
            return Err(Failure::Usage(
                "--throughput must be records a second, or -1 for as fast as possible".to_owned(),
            ));
        }
        if self.producer_props.is_empty() && self.producer_config.is_none() {
            let message = "Either --producer-props or --producer.config must be specified.";
            return Err(Failure::Usage(message.to_owned()));
        }
        let (values, record_bytes) = self.values(out)?;
        let mut properties = Properties::read(self.producer_config.as_deref(), &self.producer_props)?;
        let connect = properties.connect(None)?;
        let wrong = |name: &str, value: &str, why: String| Failure::Usage(format!("{name}={value}: {why}"));
        let acks_text = properties.text("acks").unwrap_or_else(|| "all".to_owned());
        let acks = acks(&acks_text).map_err(|why| wrong("acks", &acks_text, why))?;
        let depth = properties.number("max.in.flight.requests.per.connection", 5, u64::from(DEPTH_MAX))?.max(1) as u32;
        let retries = properties.number("retries", i32::MAX as u64, i32::MAX as u64)?;
        let idempotent = idempotence(properties.text("enable.idempotence").as_deref(), acks, depth, retries)?;
        let transaction = match u64::try_from(self.transaction_duration_ms) {
            Ok(1..) if !idempotent => {
                let message = "Cannot set a transactional.id without also enabling idempotence.";
                return Err(Failure::Usage(message.to_owned()));
            }
            Ok(duration_ms @ 1..) => {
                // The flag's, or its default, goes before a property's.
                properties.text("transactional.id");
                let timeout_ms = properties.number("transaction.timeout.ms", 60_000, i32::MAX as u64)? as i32;
                let duration = Duration::from_millis(duration_ms);
                Some(TransactionSettings { id: self.transactional_id, duration, timeout_ms })
            }
            _ if properties.text("transactional.id").is_some() => {
                let message = "the property transactional.id wants transactions; give --transaction-duration-ms too";
                return Err(Failure::Usage(message.to_owned()));
            }
            _ => None,
        };
        let codec_text = properties.text("compression.type").unwrap_or_else(|| "none".to_owned());
        let settings = Settings {
            mode: Mode::Produce,
            connect,
            client_id: properties.text("client.id").unwrap_or_else(|| "perf-producer-client".to_owned()),
            topic: TopicSettings {
                name: self.topic,
                partitions: Some(-1),
                replication_factor: -1,
                // Made as the broker makes one for a producer, and left there.
                keep: true,
            },
            clients: 1,
            client_per_leader: true,
            threads: 1,
            depth,
            shape: Shape {
                values,
                record_bytes,
                batch_bytes: properties.number("batch.size", 16_384, RECORD_BYTES_MAX as u64)? as usize,
                keys: Keys::None,
                compression: compression(&codec_text).map_err(|why| wrong("compression.type", &codec_text, why))?,
                compressible: 1.0,
                stamped: false,
            },
            linger: Duration::from_millis(properties.number("linger.ms", 0, i32::MAX as u64)?),
            acks,
            idempotent,
            transaction,
            rate: (self.throughput > 0.0).then_some(self.throughput),
            warm_up: Duration::ZERO,
            duration: None,
            records: Some(self.num_records),
            fetch: FetchSettings::none(),
            check: false,
            pid: None,
        };
        properties.finish();
        Ok(settings)
    }
}

/// Whether the producer is idempotent (Kafka 3.9 `ProducerConfig.postProcessAndValidateIdempotenceConfigs`): by default, but
/// not beside settings that it can't have; asked for beside them it is refused.
fn idempotence(asked: Option<&str>, acks: i16, depth: u32, retries: u64) -> Result<bool, Failure> {
    let hindrances = [
        (retries == 0, "Must set retries to non-zero when using the idempotent producer."),
        (
            acks != -1,
            "Must set acks to all in order to use the idempotent producer. Otherwise we cannot guarantee idempotence.",
        ),
        (
            depth > IDEMPOTENT_DEPTH_MAX,
            "Must set max.in.flight.requests.per.connection to at most 5 to use the idempotent producer.",
        ),
    ];
    let hindrance = hindrances.iter().find(|(hinders, _)| *hinders).map(|(_, why)| *why);
    match (asked.map(str::to_ascii_lowercase).as_deref(), hindrance) {
        (Some("true"), Some(why)) => Err(Failure::Usage(why.to_owned())),
        (Some("true") | None, None) => Ok(true),
        (Some("false"), _) | (None, Some(_)) => Ok(false),
        (Some(text), _) => Err(Failure::Usage(format!("enable.idempotence={text}: write true or false"))),
    }
}

pub fn run(arguments: ProducerPerfArguments) -> Result<(), Failure> {
    let mut out = Output::new()?;
    let print_metrics = arguments.print_metrics;
    let settings = arguments.settings(&mut out)?;
    out.flush(None)?;
    let (mut window, mut window_start_ns) = (Figures::default(), 0);
    let outcome = load::run(&settings, &mut |event| {
        let Event::Second(interval) = event else { return Ok(()) };
        window.add(&interval.sides.produced);
        let elapsed_ns = interval.end_ns.saturating_sub(window_start_ns);
        // Kafka's has windows of a little more than this, too.
        if elapsed_ns >= REPORT_NS && window.records > 0 {
            out.line(&window_line(&window, elapsed_ns as f64 / 1e9))?;
            out.flush(None)?;
            (window, window_start_ns) = (Figures::default(), interval.end_ns);
        }
        Ok(())
    })?;
    if outcome.totals.produced.records > 0 {
        out.line(&total_line(&outcome.totals.produced, outcome.seconds))?;
    }
    if print_metrics {
        out.line(&Metrics::of_producer(&settings, &outcome))?;
    }
    out.finish()?;
    if outcome.interrupted { Err(Failure::Interrupted) } else { Ok(()) }
}

fn rates(figures: &Figures, seconds: f64) -> (f64, f64) {
    let per_second = |amount: u64| amount as f64 / seconds.max(1e-3);
    (per_second(figures.records), per_second(figures.traffic.value_bytes) / MEGABYTE)
}

fn window_line(figures: &Figures, seconds: f64) -> String {
    let (records, megabytes) = rates(figures, seconds);
    let (mean, max) = (figures.mean_ms().unwrap_or(0.0), figures.max_ms().unwrap_or(0.0));
    format!(
        "{} records sent, {records:.1} records/sec ({megabytes:.2} MB/sec), {mean:.1} ms avg latency, {max:.1} ms max \
         latency.",
        figures.records
    )
}

fn total_line(figures: &Figures, seconds: f64) -> String {
    let (records, megabytes) = rates(figures, seconds);
    let (mean, max) = (figures.mean_ms().unwrap_or(0.0), figures.max_ms().unwrap_or(0.0));
    let percentile = |percentile| figures.percentile_ms(percentile).unwrap_or(0.0).round() as u64;
    format!(
        "{} records sent, {records:.6} records/sec ({megabytes:.2} MB/sec), {mean:.2} ms avg latency, {max:.2} ms max \
         latency, {} ms 50th, {} ms 95th, {} ms 99th, {} ms 99.9th.",
        figures.records,
        percentile(50.0),
        percentile(95.0),
        percentile(99.0),
        percentile(99.9)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::measure::{Recorder, Side, Traffic};

    #[test]
    fn producers_are_idempotent_unless_other_settings_say_otherwise() {
        const RETRIES: u64 = i32::MAX as u64;
        for (asked, acks, depth, retries, expected) in [
            (None, -1, 5, RETRIES, Ok(true)),
            (None, 1, 5, RETRIES, Ok(false)),
            (None, -1, 6, RETRIES, Ok(false)),
            (None, -1, 5, 0, Ok(false)),
            (Some("TRUE"), -1, 1, RETRIES, Ok(true)),
            (Some("false"), -1, 5, RETRIES, Ok(false)),
            (Some("true"), 1, 5, RETRIES, Err("set acks to all")),
            (Some("true"), -1, 6, RETRIES, Err("at most 5")),
            (Some("true"), -1, 5, 0, Err("retries to non-zero")),
            (Some("yes"), -1, 5, RETRIES, Err("true or false")),
        ] {
            let found = idempotence(asked, acks, depth, retries);
            match expected {
                Ok(expected) => assert_eq!(found, Ok(expected), "{asked:?} {acks} {depth} {retries}"),
                Err(why) => assert!(found.is_err_and(|failure| failure.to_string().contains(why)), "{why}"),
            }
        }
    }

    #[test]
    fn lines_are_kafkas() {
        let mut recorder = Recorder::new(0);
        recorder.records(Side::Produced, 0, 2_000_000, 1000);
        recorder.traffic(Side::Produced, 0, &Traffic { value_bytes: 1_024_000, ..Traffic::default() });
        let figures = recorder.cut(1).sides.produced;
        assert_eq!(
            window_line(&figures, 2.0),
            "1000 records sent, 500.0 records/sec (0.49 MB/sec), 2.0 ms avg latency, 2.0 ms max latency."
        );
        assert_eq!(
            total_line(&figures, 2.0),
            "1000 records sent, 500.000000 records/sec (0.49 MB/sec), 2.00 ms avg latency, 2.00 ms max latency, 2 ms 50th, \
             2 ms 95th, 2 ms 99th, 2 ms 99.9th."
        );
    }
}
