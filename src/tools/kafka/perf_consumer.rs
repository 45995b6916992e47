//! `kafka-consumer-perf-test.sh` (Kafka 3.9 `ConsumerPerformance`) on the engine of `ringlog bench`.
//!
//! Every partition is read, without a group: there are no groups yet, and so no time goes into rebalances. Times are UTC.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::date_format::DateFormat;
use super::perf_metrics::{Metrics, decimals};
use super::properties::Properties;
use crate::bench::load::{self, Event};
use crate::bench::payload::Shape;
use crate::bench::settings::{FetchSettings, From, Mode, Settings, TopicSettings};
use crate::failure::{Failure, say};
use crate::output::Output;

const MEGABYTE: f64 = 1024.0 * 1024.0;
const HEADER_END: &str = "rebalance.time.ms, fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec";
/// Kafka's `max.poll.records`: its consumer takes so many at once, and only then looks whether it has enough.
const MAX_POLL_RECORDS: u64 = 500;
/// Kafka's `fetch.max.bytes` and `fetch.max.wait.ms`.
const FETCH_MAX_BYTES: usize = 52_428_800;
const FETCH_MAX_WAIT: Duration = Duration::from_millis(500);

const EXAMPLES: &str = "\
Examples:
  kafka-consumer-perf-test.sh --bootstrap-server localhost:9092 --topic load --messages 1000000
      Read a million records, from the beginning.
  kafka-consumer-perf-test.sh --bootstrap-server localhost:9092 --topic load --messages 1000000 \\
      --show-detailed-stats --reporting-interval 1000 --date-format \"HH:mm:ss\" --print-metrics
      A line each second, and what the client counted beside.

All partitions are read, without a group. Metrics have Kafka's names; rates and averages are of the whole run.";

/// Kafka's consumer test: its flags and its output, times in UTC
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct ConsumerPerfArguments {
    /// The broker to begin with
    #[arg(long, alias = "broker-list", value_name = "HOST:PORT")]
    bootstrap_server: Option<String>,

    /// The topic
    #[arg(long)]
    topic: String,

    /// Records to consume
    #[arg(long)]
    messages: u64,

    /// There are no groups yet: all partitions are read
    #[arg(long)]
    group: Option<String>,

    /// Bytes of a partition in an answer
    #[arg(long, default_value_t = 1_048_576, value_parser = clap::value_parser!(u32).range(1..=512 << 20))]
    fetch_size: u32,

    /// Begin at the end of the log
    #[arg(long)]
    from_latest: bool,

    /// Milliseconds after which a consumer that gets nothing ends
    #[arg(long, value_name = "MS", default_value_t = 10_000, num_args = 0..=1, default_missing_value = "10000")]
    timeout: u64,

    /// A line for each interval
    #[arg(long)]
    show_detailed_stats: bool,

    /// Milliseconds of an interval, a second at least
    #[arg(long, value_name = "MS", default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..))]
    reporting_interval: u64,

    /// No line of headings
    #[arg(long)]
    hide_header: bool,

    /// Properties of the consumer
    #[arg(long = "consumer.config", value_name = "FILE")]
    consumer_config: Option<PathBuf>,

    /// Without meaning here
    #[arg(long, hide = true)]
    socket_buffer_size: Option<u64>,

    /// How times are shown: a pattern of Java's SimpleDateFormat
    #[arg(long, value_name = "PATTERN", default_value = "yyyy-MM-dd HH:mm:ss:SSS", value_parser = DateFormat::new)]
    date_format: DateFormat,

    /// Print what the client has counted, at the end
    #[arg(long)]
    print_metrics: bool,

    /// Not any more: ignored, as by Kafka
    #[arg(long, hide = true)]
    threads: Option<u32>,

    /// Not any more: ignored, as by Kafka
    #[arg(long, hide = true)]
    num_fetch_threads: Option<u32>,
}

impl ConsumerPerfArguments {
    fn settings(&self) -> Result<Settings, Failure> {
        if self.group.is_some() {
            say("ringlog: there are no groups yet; all partitions are read");
        }
        let mut properties = Properties::read(self.consumer_config.as_deref(), &[])?;
        let connect = properties.connect(self.bootstrap_server.clone())?;
        let poll_records = properties.number("max.poll.records", MAX_POLL_RECORDS, i32::MAX as u64)?.max(1);
        let settings = Settings {
            mode: Mode::Consume,
            connect,
            client_id: properties.text("client.id").unwrap_or_else(|| "perf-consumer-client".to_owned()),
            topic: TopicSettings { name: self.topic.clone(), partitions: None, replication_factor: -1, keep: true },
            clients: 1,
            client_per_leader: true,
            threads: 1,
            depth: 1,
            shape: Shape::none(),
            linger: Duration::ZERO,
            acks: 1,
            idempotent: false,
            transaction: None,
            rate: None,
            warm_up: Duration::ZERO,
            duration: None,
            records: Some(self.messages),
            fetch: FetchSettings {
                from: if self.from_latest { From::End } else { From::Beginning },
                max_bytes: FETCH_MAX_BYTES,
                partition_max_bytes: self.fetch_size as usize,
                min_bytes: 1,
                max_wait: FETCH_MAX_WAIT,
                repeat: false,
                idle: Some(Duration::from_millis(self.timeout)),
                count_values: true,
                records_max: self.messages.div_ceil(poll_records).saturating_mul(poll_records),
            },
            check: false,
            pid: None,
        };
        properties.finish();
        Ok(settings)
    }
}

/// Records and bytes up to some moment, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default)]
struct Reached {
    ms: i64,
    records: u64,
    bytes: u64,
}

pub fn run(arguments: &ConsumerPerfArguments) -> Result<(), Failure> {
    let settings = arguments.settings()?;
    let mut out = Output::new()?;
    if arguments.threads.is_some() || arguments.num_fetch_threads.is_some() {
        out.line(
            "WARNING: option [threads] and [num-fetch-threads] have been deprecated and will be ignored by the test",
        )?;
    }
    if !arguments.hide_header {
        let begin = if arguments.show_detailed_stats { "time, threadId" } else { "start.time, end.time" };
        out.line(&format!("{begin}, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, {HEADER_END}"))?;
        out.flush(None)?;
    }
    let interval_ms = i64::try_from(arguments.reporting_interval).unwrap_or(i64::MAX);
    let (mut start_wall_ns, mut told, mut reached) = (0, Reached::default(), Reached::default());
    let outcome = load::run(&settings, &mut |event| {
        match event {
            Event::Begins { clock, .. } => {
                start_wall_ns = clock.start_wall_ns;
                told.ms = milliseconds(start_wall_ns);
            }
            Event::Second(interval) => {
                reached.ms = milliseconds(start_wall_ns + interval.end_ns);
                reached.records += interval.sides.consumed.records;
                reached.bytes += interval.sides.consumed.traffic.value_bytes;
                let is_due = reached.ms - told.ms >= interval_ms && reached.records > told.records;
                if arguments.show_detailed_stats && is_due {
                    out.line(&detail_line(&arguments.date_format, &told, &reached))?;
                    out.flush(None)?;
                    told = reached;
                }
            }
        }
        Ok(())
    })?;
    let consumed = &outcome.totals.consumed;
    if consumed.records < arguments.messages && !outcome.interrupted {
        out.line(&format!(
            "WARNING: Exiting before consuming the expected number of messages: timeout ({} ms) exceeded. You can use the \
             --timeout option to increase the timeout.",
            arguments.timeout
        ))?;
    }
    if !arguments.show_detailed_stats {
        let start = Reached { ms: milliseconds(outcome.start_wall_ns), ..Reached::default() };
        // What was waited for in vain counts, as Kafka has it.
        let is_enough = consumed.records >= arguments.messages && consumed.records > 0;
        let seconds = if is_enough { outcome.seconds } else { outcome.cpu_seconds };
        let end_ns = outcome.start_wall_ns + (seconds * 1e9) as u64;
        let end = Reached { ms: milliseconds(end_ns), records: consumed.records, bytes: consumed.traffic.value_bytes };
        out.line(&total_line(&arguments.date_format, &start, &end))?;
    }
    if arguments.print_metrics {
        out.line(&Metrics::of_consumer(&settings, &outcome))?;
    }
    out.finish()?;
    if outcome.interrupted { Err(Failure::Interrupted) } else { Ok(()) }
}

fn milliseconds(ns: u64) -> i64 {
    i64::try_from(ns / 1_000_000).unwrap_or(i64::MAX)
}

/// What came between two moments, a second: megabytes and records. In no time at all it is as much as Java makes of a
/// division by zero.
fn rates(from: &Reached, to: &Reached) -> (f64, f64) {
    let seconds = (to.ms - from.ms) as f64 / 1000.0;
    ((to.bytes - from.bytes) as f64 / MEGABYTE / seconds, (to.records - from.records) as f64 / seconds)
}

fn total_line(format: &DateFormat, start: &Reached, end: &Reached) -> String {
    line(&format!("{}, {}", format.text(start.ms), format.text(end.ms)), start, end, rates(start, end))
}

/// Of no time nothing is fetched, by the last two columns.
fn detail_line(format: &DateFormat, told: &Reached, reached: &Reached) -> String {
    let fetched = if reached.ms > told.ms { rates(told, reached) } else { (0.0, 0.0) };
    line(&format!("{}, 0", format.text(reached.ms)), told, reached, fetched)
}

fn line(begin: &str, from: &Reached, to: &Reached, (fetched_megabytes, fetched_records): (f64, f64)) -> String {
    let (megabytes, records) = rates(from, to);
    let total = decimals::<4>(to.bytes as f64 / MEGABYTE);
    let [megabytes, records, fetched_megabytes, fetched_records] =
        [megabytes, records, fetched_megabytes, fetched_records].map(decimals::<4>);
    format!(
        "{begin}, {total}, {megabytes}, {}, {records}, 0, {}, {fetched_megabytes}, {fetched_records}",
        to.records,
        to.ms - from.ms
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_kafkas() {
        let format = DateFormat::new("yyyy-MM-dd HH:mm:ss:SSS").expect("right");
        let start = Reached { ms: 1_700_000_000_000, records: 0, bytes: 0 };
        let end = Reached { ms: 1_700_000_002_000, records: 1000, bytes: 1 << 20 };
        assert_eq!(
            total_line(&format, &start, &end),
            "2023-11-14 22:13:20:000, 2023-11-14 22:13:22:000, 1.0000, 0.5000, 1000, 500.0000, 0, 2000, 0.5000, 500.0000"
        );
        assert_eq!(
            detail_line(&format, &start, &end),
            "2023-11-14 22:13:22:000, 0, 1.0000, 0.5000, 1000, 500.0000, 0, 2000, 0.5000, 500.0000"
        );
        let format = DateFormat::new("ss").expect("right");
        let at_once = Reached { ms: start.ms, ..end };
        assert_eq!(
            total_line(&format, &start, &at_once),
            "20, 20, 1.0000, Infinity, 1000, Infinity, 0, 0, Infinity, Infinity"
        );
        assert_eq!(detail_line(&format, &start, &start), "20, 0, 0.0000, NaN, 0, NaN, 0, 0, 0.0000, 0.0000");
    }
}
