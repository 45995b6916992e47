//! `kafka-consumer-perf-test.sh` (Kafka 3.9 `ConsumerPerformance`) on the engine of `ringlog bench`.
//!
//! Every partition is read, without a group: there are no groups yet, and so no time goes into rebalances. Times are UTC.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::properties::Properties;
use crate::cli::bench::civil;
use crate::cli::bench::load::{self, Event};
use crate::cli::bench::payload::Shape;
use crate::cli::bench::settings::{FetchSettings, From, Mode, Settings, TopicSettings};
use crate::cli::failure::{Failure, say};
use crate::cli::output::Output;

const MEGABYTE: f64 = 1024.0 * 1024.0;
const HEADER_END: &str = "rebalance.time.ms, fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec";
/// Kafka's `fetch.max.bytes` and `fetch.max.wait.ms`.
const FETCH_MAX_BYTES: usize = 52_428_800;
const FETCH_MAX_WAIT: Duration = Duration::from_millis(500);

/// Kafka's consumer test: its flags and its output, times in UTC
#[derive(Args, Debug)]
pub struct ConsumerPerfArguments {
    /// The broker to begin with
    #[arg(long, alias = "broker-list", value_name = "HOST:PORT")]
    bootstrap_server: Option<String>,

    /// The topic
    #[arg(long)]
    topic: String,

    /// Records to consume
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
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
    #[arg(long, default_value_t = 10_000)]
    timeout: u64,

    /// A line for each interval
    #[arg(long)]
    show_detailed_stats: bool,

    /// Milliseconds of an interval
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..))]
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

    /// Not here
    #[arg(long, hide = true)]
    date_format: Option<String>,

    /// Not here
    #[arg(long, hide = true)]
    print_metrics: bool,
}

impl ConsumerPerfArguments {
    fn settings(&self) -> Result<Settings, Failure> {
        let missing = [(self.date_format.is_some(), "--date-format"), (self.print_metrics, "--print-metrics")];
        if let Some((_, flag)) = missing.iter().find(|(given, _)| *given) {
            return Err(Failure::Usage(format!("{flag} is not there yet; leave it away")));
        }
        if self.group.is_some() {
            say("ringlog: there are no groups yet; all partitions are read");
        }
        let mut properties = Properties::read(self.consumer_config.as_deref(), &[])?;
        let connect = properties.connect(self.bootstrap_server.clone())?;
        let settings = Settings {
            mode: Mode::Consume,
            connect,
            client_id: properties.text("client.id").unwrap_or_else(|| "perf-consumer-client".to_owned()),
            topic: TopicSettings { name: self.topic.clone(), partitions: None, replication_factor: -1, keep: true },
            clients: 1,
            threads: 1,
            depth: 1,
            shape: Shape::none(),
            linger: Duration::ZERO,
            acks: 1,
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
                reached.bytes += interval.sides.consumed.bytes;
                if arguments.show_detailed_stats && reached.ms - told.ms >= interval_ms {
                    out.line(&detail_line(&told, &reached))?;
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
        let end_ns = outcome.start_wall_ns + (outcome.seconds * 1e9) as u64;
        let end = Reached { ms: milliseconds(end_ns), records: consumed.records, bytes: consumed.bytes };
        out.line(&total_line(&start, &end))?;
    }
    out.finish()?;
    if outcome.interrupted { Err(Failure::Interrupted) } else { Ok(()) }
}

fn milliseconds(ns: u64) -> i64 {
    i64::try_from(ns / 1_000_000).unwrap_or(i64::MAX)
}

/// What came between two moments, a second.
fn rates(from: &Reached, to: &Reached) -> (f64, f64) {
    let seconds = (to.ms - from.ms).max(1) as f64 / 1000.0;
    ((to.bytes - from.bytes) as f64 / MEGABYTE / seconds, (to.records - from.records) as f64 / seconds)
}

fn total_line(start: &Reached, end: &Reached) -> String {
    let (megabytes, records) = rates(start, end);
    let total = end.bytes as f64 / MEGABYTE;
    let (from, to, fetch_ms) = (civil::text(start.ms), civil::text(end.ms), end.ms - start.ms);
    format!(
        "{from}, {to}, {total:.4}, {megabytes:.4}, {}, {records:.4}, 0, {fetch_ms}, {megabytes:.4}, {records:.4}",
        end.records
    )
}

fn detail_line(told: &Reached, reached: &Reached) -> String {
    let (megabytes, records) = rates(told, reached);
    let total = reached.bytes as f64 / MEGABYTE;
    let (time, fetch_ms) = (civil::text(reached.ms), reached.ms - told.ms);
    format!(
        "{time}, 0, {total:.4}, {megabytes:.4}, {}, {records:.4}, 0, {fetch_ms}, {megabytes:.4}, {records:.4}",
        reached.records
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_kafkas() {
        let start = Reached { ms: 1_700_000_000_000, records: 0, bytes: 0 };
        let end = Reached { ms: 1_700_000_002_000, records: 1000, bytes: 1 << 20 };
        assert_eq!(
            total_line(&start, &end),
            "2023-11-14 22:13:20:000, 2023-11-14 22:13:22:000, 1.0000, 0.5000, 1000, 500.0000, 0, 2000, 0.5000, 500.0000"
        );
        assert_eq!(
            detail_line(&start, &end),
            "2023-11-14 22:13:22:000, 0, 1.0000, 0.5000, 1000, 500.0000, 0, 2000, 0.5000, 500.0000"
        );
    }
}
