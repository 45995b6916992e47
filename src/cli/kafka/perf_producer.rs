//! `kafka-producer-perf-test.sh` (Kafka 3.9 `ProducerPerformance`) on the engine of `ringlog bench`.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::properties::Properties;
use crate::cli::bench::load::{self, Event};
use crate::cli::bench::measure::Figures;
use crate::cli::bench::payload::{Keys, Shape};
use crate::cli::bench::settings::{DEPTH_MAX, FetchSettings, Mode, RECORD_BYTES_MAX, Settings, TopicSettings};
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::produce::{acks, compression};

/// A line so often.
const REPORT_NS: u64 = 5_000_000_000;
const MEGABYTE: f64 = 1024.0 * 1024.0;

/// Kafka's producer test: its flags and its output. Latency is that of requests, from when their records were sent, and
/// with --throughput from when they were due
#[derive(Args, Debug)]
pub struct ProducerPerfArguments {
    /// The topic
    #[arg(long)]
    topic: String,

    /// Records to produce
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    num_records: u64,

    /// Bytes of a record's value
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=RECORD_BYTES_MAX as u64))]
    record_size: Option<u64>,

    /// Not here; give --record-size
    #[arg(long, hide = true)]
    payload_file: Option<PathBuf>,

    #[arg(long, hide = true)]
    payload_delimiter: Option<String>,

    /// Not here; give --record-size
    #[arg(long, hide = true)]
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

    /// Not here
    #[arg(long, hide = true)]
    print_metrics: bool,

    /// Not here
    #[arg(long, hide = true)]
    transactional_id: Option<String>,

    /// Not here
    #[arg(long, hide = true)]
    transaction_duration_ms: Option<u64>,
}

impl ProducerPerfArguments {
    fn settings(self) -> Result<Settings, Failure> {
        let missing = [
            (self.payload_file.is_some(), "--payload-file"),
            (self.payload_delimiter.is_some(), "--payload-delimiter"),
            (self.payload_monotonic, "--payload-monotonic"),
            (self.print_metrics, "--print-metrics"),
            (self.transactional_id.is_some(), "--transactional-id"),
            (self.transaction_duration_ms.is_some(), "--transaction-duration-ms"),
        ];
        if let Some((_, flag)) = missing.iter().find(|(given, _)| *given) {
            return Err(Failure::Usage(format!("{flag} is not there yet; leave it away, and give --record-size")));
        }
        let record_size = self.record_size.ok_or_else(|| Failure::Usage("give --record-size".to_owned()))?;
        if self.throughput == 0.0 || !self.throughput.is_finite() {
            return Err(Failure::Usage(
                "--throughput must be records a second, or -1 for as fast as possible".to_owned(),
            ));
        }
        let mut properties = Properties::read(self.producer_config.as_deref(), &self.producer_props)?;
        let connect = properties.connect(None)?;
        let wrong = |name: &str, value: &str, why: String| Failure::Usage(format!("{name}={value}: {why}"));
        let acks_text = properties.text("acks").unwrap_or_else(|| "all".to_owned());
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
            threads: 1,
            depth: properties.number("max.in.flight.requests.per.connection", 5, u64::from(DEPTH_MAX))?.max(1) as u32,
            shape: Shape {
                record_bytes: record_size as usize,
                batch_bytes: properties.number("batch.size", 16_384, RECORD_BYTES_MAX as u64)? as usize,
                keys: Keys::None,
                compression: compression(&codec_text).map_err(|why| wrong("compression.type", &codec_text, why))?,
                compressible: 1.0,
                stamped: false,
            },
            linger: Duration::from_millis(properties.number("linger.ms", 0, i32::MAX as u64)?),
            acks: acks(&acks_text).map_err(|why| wrong("acks", &acks_text, why))?,
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

pub fn run(arguments: ProducerPerfArguments) -> Result<(), Failure> {
    let settings = arguments.settings()?;
    let record_bytes = settings.shape.record_bytes;
    let mut out = Output::new()?;
    let (mut window, mut window_start_ns) = (Figures::default(), 0);
    let outcome = load::run(&settings, &mut |event| {
        let Event::Second(interval) = event else { return Ok(()) };
        window.add(&interval.sides.produced);
        let elapsed_ns = interval.end_ns.saturating_sub(window_start_ns);
        // Kafka's has windows of a little more than this, too.
        if elapsed_ns >= REPORT_NS && window.records > 0 {
            out.line(&window_line(&window, record_bytes, elapsed_ns as f64 / 1e9))?;
            out.flush(None)?;
            (window, window_start_ns) = (Figures::default(), interval.end_ns);
        }
        Ok(())
    })?;
    if outcome.totals.produced.records > 0 {
        out.line(&total_line(&outcome.totals.produced, record_bytes, outcome.seconds))?;
    }
    out.finish()?;
    if outcome.interrupted { Err(Failure::Interrupted) } else { Ok(()) }
}

fn rates(figures: &Figures, record_bytes: usize, seconds: f64) -> (f64, f64) {
    let per_second = figures.records as f64 / seconds.max(1e-3);
    (per_second, per_second * record_bytes as f64 / MEGABYTE)
}

fn window_line(figures: &Figures, record_bytes: usize, seconds: f64) -> String {
    let (records, megabytes) = rates(figures, record_bytes, seconds);
    let (mean, max) = (figures.mean_ms().unwrap_or(0.0), figures.max_ms().unwrap_or(0.0));
    format!(
        "{} records sent, {records:.1} records/sec ({megabytes:.2} MB/sec), {mean:.1} ms avg latency, {max:.1} ms max \
         latency.",
        figures.records
    )
}

fn total_line(figures: &Figures, record_bytes: usize, seconds: f64) -> String {
    let (records, megabytes) = rates(figures, record_bytes, seconds);
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
    use crate::cli::bench::measure::{Recorder, Side};

    #[test]
    fn lines_are_kafkas() {
        let mut recorder = Recorder::new(0);
        recorder.records(Side::Produced, 0, 2_000_000, 1000);
        let figures = recorder.cut(1).sides.produced;
        assert_eq!(
            window_line(&figures, 1024, 2.0),
            "1000 records sent, 500.0 records/sec (0.49 MB/sec), 2.0 ms avg latency, 2.0 ms max latency."
        );
        assert_eq!(
            total_line(&figures, 1024, 2.0),
            "1000 records sent, 500.000000 records/sec (0.49 MB/sec), 2.00 ms avg latency, 2.00 ms max latency, 2 ms 50th, \
             2 ms 95th, 2 ms 99th, 2 ms 99.9th."
        );
    }
}
