//! A run's figures: derived once, then shown as tables, as JSON and in the report.

#![forbid(unsafe_code)]

use serde_json::{Value, json};

use super::compare;
use super::load::Outcome;
use super::measure::{Figures, Interval};
use super::payload::Keys;
use super::process::Machine;
use super::settings::{From, Mode, Settings};
use crate::record::compression::Codec;
use crate::table::{Column, Table};

/// What the summary shows.
pub const PERCENTILES: [f64; 5] = [50.0, 90.0, 99.0, 99.9, 99.99];
/// Share of its threads' time from which on the client may be what limits the figures.
const BUSY_SHARE: f64 = 0.9;
/// A second of which less was measured is not shown by itself.
const SECONDS_MIN: f64 = 0.2;
const GIGABYTE: f64 = 1e9;
const MEGABYTE: f64 = 1e6;

/// One second, for tables and charts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// What of it was measured, in seconds since the end of the warm-up.
    start_seconds: f64,
    end_seconds: f64,
    pub produced: Rates,
    pub consumed: Rates,
    /// p50, p99, p99.9 and the largest, in ms, of the side that the run is about.
    pub latencies: Option<[f64; 4]>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    pub records_per_second: f64,
    pub megabytes_per_second: f64,
}

impl Rates {
    fn of(figures: &Figures, seconds: f64) -> Rates {
        let per_second = |count: f64| if seconds > 0.0 { count / seconds } else { 0.0 };
        Rates {
            records_per_second: per_second(figures.records as f64),
            megabytes_per_second: per_second(figures.bytes as f64 / MEGABYTE),
        }
    }
}

impl Row {
    /// `None`: too little of it was measured.
    pub fn new(mode: Mode, interval: &Interval, warm_up_ns: u64) -> Option<Row> {
        let start = interval.start_ns.max(warm_up_ns);
        let seconds = interval.end_ns.saturating_sub(start) as f64 / 1e9;
        if seconds < SECONDS_MIN {
            return None;
        }
        let measured = if mode == Mode::Produce { &interval.sides.produced } else { &interval.sides.consumed };
        let latencies = measured.latencies().map(|histogram| {
            [
                histogram.value_at_percentile(50.0),
                histogram.value_at_percentile(99.0),
                histogram.value_at_percentile(99.9),
                histogram.max(),
            ]
            .map(|ns| ns as f64 / 1e6)
        });
        let start_seconds = (start - warm_up_ns) as f64 / 1e9;
        Some(Row {
            start_seconds,
            end_seconds: start_seconds + seconds,
            produced: Rates::of(&interval.sides.produced, seconds),
            consumed: Rates::of(&interval.sides.consumed, seconds),
            latencies,
        })
    }

    /// The middle of it.
    pub fn at_seconds(&self) -> f64 {
        f64::midpoint(self.start_seconds, self.end_seconds)
    }

    /// Leaves what was before the run's last answer: behind that nothing was to come. `None` if that is too little.
    pub fn until(mut self, last_seconds: f64) -> Option<Row> {
        let (seconds, left) = (self.end_seconds - self.start_seconds, last_seconds - self.start_seconds);
        if left >= seconds {
            return Some(self);
        }
        for rates in [&mut self.produced, &mut self.consumed] {
            rates.records_per_second *= seconds / left;
            rates.megabytes_per_second *= seconds / left;
        }
        self.end_seconds = last_seconds;
        (left >= SECONDS_MIN).then_some(self)
    }
}

/// All that is known at the end.
pub struct Summary<'a> {
    pub settings: &'a Settings,
    pub outcome: &'a Outcome,
    pub machine: Machine,
    pub rows: Vec<Row>,
    /// Rows of [`compare`], of other runs.
    pub earlier: Vec<Vec<String>>,
}

impl Summary<'_> {
    /// Sides with a name, what their latency is, and figures.
    pub fn sides(&self) -> Vec<(&'static str, &'static str, &Figures)> {
        let (produced, consumed) = (&self.outcome.totals.produced, &self.outcome.totals.consumed);
        match self.settings.mode {
            Mode::Produce => vec![("produced", "record to acknowledgement", produced)],
            Mode::Consume => vec![("consumed", "fetch request to answer", consumed)],
            Mode::EndToEnd => {
                vec![("produced", "record to acknowledgement", produced), ("consumed", "record to consumer", consumed)]
            }
        }
    }

    fn rates(&self, figures: &Figures) -> Rates {
        Rates::of(figures, self.outcome.seconds)
    }

    /// CPU seconds for a gigabyte and microseconds for a request, of what both sides moved.
    fn cpu_costs(&self, cpu: f64) -> (Option<f64>, Option<f64>) {
        let totals = &self.outcome.totals;
        let bytes = totals.produced.bytes + totals.consumed.bytes;
        let requests = totals.produced.requests + totals.consumed.requests;
        let per = |amount: f64| (amount > 0.0).then(|| cpu / amount);
        (per(bytes as f64 / GIGABYTE), per(requests as f64 / 1e6))
    }

    /// The summary for people.
    pub fn text(&self, width: Option<usize>) -> String {
        let outcome = self.outcome;
        let mut text = format!("{}\n\n", self.headline());
        let mut flow = Table::new(&[
            Column::Text(""),
            Column::Number("RECORDS"),
            Column::Number("RECORDS/S"),
            Column::Number("MB/S"),
            Column::Number("REQUESTS"),
        ]);
        let mut latency = vec![Column::Text("LATENCY, MS"), Column::Number("MEAN")];
        latency.extend(["P50", "P90", "P99", "P99.9", "P99.99", "MAX"].map(Column::Number));
        let mut latency = Table::new(&latency);
        for (name, what, figures) in self.sides() {
            let rates = self.rates(figures);
            flow.row(vec![
                name.to_owned(),
                grouped(figures.records),
                grouped(rates.records_per_second.round() as u64),
                format!("{:.1}", rates.megabytes_per_second),
                grouped(figures.requests),
            ]);
            let shown = |ms: Option<f64>| ms.map_or_else(|| "-".to_owned(), milliseconds);
            let mut cells = vec![what.to_owned(), shown(figures.mean_ms())];
            cells.extend(PERCENTILES.map(|percentile| shown(figures.percentile_ms(percentile))));
            cells.push(shown(figures.max_ms()));
            latency.row(cells);
        }
        let mut cpu = Table::new(&[
            Column::Text("CPU"),
            Column::Number("SECONDS"),
            Column::Number("CORES"),
            Column::Number("SECONDS/GB"),
            Column::Number("MICROSECONDS/REQUEST"),
        ]);
        let mut costs = |name: &str, seconds: f64| {
            let (per_gigabyte, per_request) = self.cpu_costs(seconds);
            let shown = |cost: Option<f64>| cost.map_or_else(|| "-".to_owned(), |cost| format!("{cost:.2}"));
            let cores = if outcome.cpu_seconds > 0.0 { seconds / outcome.cpu_seconds } else { 0.0 };
            cpu.row(vec![
                name.to_owned(),
                format!("{seconds:.2}"),
                format!("{cores:.2}"),
                shown(per_gigabyte),
                shown(per_request),
            ]);
        };
        if let Ok(seconds) = &outcome.broker_cpu {
            costs("broker", *seconds);
        }
        costs("this client", outcome.client_cpu);
        let mut tables: Vec<String> = [flow, latency, cpu].iter().map(|table| table.text(width)).collect();
        let compared = self.compared();
        if !compared.is_empty() {
            let [name, figures @ ..] = compare::HEADINGS;
            let columns: Vec<Column> =
                std::iter::once(Column::Text(name)).chain(figures.into_iter().map(Column::Number)).collect();
            let mut table = Table::new(&columns);
            compared.into_iter().for_each(|row| table.row(row));
            tables.push(table.text(width));
        }
        text.push_str(&tables.join("\n"));
        for note in self.notes() {
            text.push_str(&format!("\n{note}\n"));
        }
        text
    }

    /// This run and earlier ones, as rows of [`compare`]; none if there are no earlier ones.
    pub fn compared(&self) -> Vec<Vec<String>> {
        if self.earlier.is_empty() {
            return Vec::new();
        }
        compare::row("this run", &self.json()).into_iter().chain(self.earlier.iter().cloned()).collect()
    }

    /// One line of what was run.
    pub fn headline(&self) -> String {
        let Settings { mode, clients, threads, .. } = self.settings;
        let topic = &self.outcome.topic;
        let count = |number: u64, one: &str| format!("{number} {one}{}", if number == 1 { "" } else { "s" });
        format!(
            "{}: {}, {}, topic '{}' with {}, {:.1} s measured",
            mode.name(),
            count(u64::from(*clients), "client"),
            count(u64::from(*threads), "thread"),
            topic.name,
            count(topic.partitions.len() as u64, "partition"),
            self.outcome.seconds
        )
    }

    /// What the reader of the figures must know.
    pub fn notes(&self) -> Vec<String> {
        let (outcome, settings) = (self.outcome, self.settings);
        let mut notes = Vec::new();
        if outcome.interrupted {
            notes.push("Ended early by a signal: the figures are of the time until then.".to_owned());
        }
        if let Err(why) = &outcome.broker_cpu {
            notes.push(format!("The broker's CPU time is not known: {why}."));
        }
        let busy = if outcome.cpu_seconds > 0.0 { outcome.client_cpu / outcome.cpu_seconds } else { 0.0 };
        if busy >= BUSY_SHARE * f64::from(settings.threads) {
            notes.push(format!(
                "This client used {busy:.2} of its {} cores: it may be what limits the figures. Give more --threads, or \
                 a lower --rate.",
                settings.threads
            ));
        }
        if outcome.left_behind > 0 {
            notes.push(format!(
                "{} records were due at the end and could not be sent yet: broker or client did not keep up with the rate.",
                grouped(outcome.left_behind)
            ));
        }
        for (name, _, figures) in self.sides() {
            let traffic = &figures.traffic;
            if traffic.throttled > 0 {
                notes.push(format!(
                    "Throttled by a quota: {} answers asked this client to wait; what is {name} was held back for {:.1} s, of all \
                     connections together.",
                    grouped(traffic.throttled),
                    traffic.held_ns as f64 / 1e9
                ));
            }
        }
        if outcome.missing > 0 {
            notes.push(format!("{} acknowledged records did not come to a consumer.", grouped(outcome.missing)));
        }
        if let Some(findings) = &outcome.findings {
            notes.push(match findings.is_sound() {
                true => format!(
                    "Checked: {} records in {} batches, all of them whole, in order, none lost, none twice.",
                    grouped(findings.records),
                    grouped(findings.batches)
                ),
                false => format!(
                    "CHECK FAILED: {} damaged batches, {} damaged records, {} lost, {} twice or out of order:\n  {}",
                    findings.damaged_batches,
                    findings.damaged_records,
                    findings.lost,
                    findings.repeated,
                    findings.examples.join("\n  ")
                ),
            });
            if findings.foreign > 0 {
                notes.push(format!(
                    "{} of them were not made by 'ringlog bench ... --check': only their batches were checked.",
                    grouped(findings.foreign)
                ));
            }
        }
        notes
    }

    /// Settings by name, as JSON has them.
    pub fn settings_json(&self) -> Value {
        let Settings { mode, connect, topic, shape, fetch, .. } = self.settings;
        let settings = self.settings;
        let mut value = json!({
            "mode": mode.name(),
            "bootstrap_server": connect.bootstrap_server,
            "timeout_s": connect.timeout.as_secs_f64(),
            "topic": self.outcome.topic.name,
            "partitions": self.outcome.topic.partitions.len(),
            "clients": settings.clients,
            "threads": settings.threads,
            "rate_records_per_s": settings.rate,
            "warm_up_s": settings.warm_up.as_secs_f64(),
            "duration_s": settings.duration.map(|duration| duration.as_secs_f64()),
            "records": settings.records,
            "check": settings.check,
        });
        let mut add = |more: Value| {
            if let (Value::Object(all), Value::Object(more)) = (&mut value, more) {
                all.extend(more);
            }
        };
        if mode.produces() {
            let (keys, zipf) = match &shape.keys {
                Keys::None => (0, None),
                Keys::Uniform(count) => (*count, None),
                Keys::Zipf { count, exponent } => (*count, Some(*exponent)),
            };
            add(json!({
                "replication_factor": (topic.replication_factor > 0).then_some(topic.replication_factor),
                "keep": topic.keep,
                "depth": settings.depth,
                "record_bytes": shape.record_bytes,
                "keys": keys,
                "zipf": zipf,
                "batch_bytes": shape.batch_bytes,
                "linger_ms": settings.linger.as_secs_f64() * 1e3,
                "acks": if settings.acks < 0 { json!("all") } else { json!(settings.acks) },
                "idempotent": settings.idempotent,
                "codec": codec_name(shape.compression.codec),
                "codec_level": shape.compression.level,
                "compressible": shape.compressible,
            }));
        }
        if mode.consumes() {
            add(json!({
                "from": if fetch.from == From::End { "end" } else { "beginning" },
                "repeat": fetch.repeat,
                "max_bytes": fetch.max_bytes,
                "partition_max_bytes": fetch.partition_max_bytes,
                "min_bytes": fetch.min_bytes,
                "max_wait_ms": fetch.max_wait.as_millis() as u64,
            }));
        }
        value
    }

    /// One object with everything.
    pub fn json(&self) -> Value {
        let outcome = self.outcome;
        let side = |figures: &Figures, warm: &Figures| {
            let rates = self.rates(figures);
            json!({
                "records": figures.records,
                "bytes": figures.bytes,
                "requests": figures.requests,
                "records_per_s": rates.records_per_second,
                "mb_per_s": rates.megabytes_per_second,
                "warm_up_records": warm.records,
                "throttled": (figures.traffic.throttled > 0).then(|| json!({
                    "answers": figures.traffic.throttled,
                    "asked_s": figures.traffic.throttle_ms as f64 / 1e3,
                    "held_s": figures.traffic.held_ns as f64 / 1e9,
                })),
                "latency_ms": figures.latencies().map(|histogram| json!({
                    "count": histogram.len(),
                    "mean": histogram.mean() / 1e6,
                    "min": histogram.min() as f64 / 1e6,
                    "p50": figures.percentile_ms(50.0),
                    "p90": figures.percentile_ms(90.0),
                    "p99": figures.percentile_ms(99.0),
                    "p99.9": figures.percentile_ms(99.9),
                    "p99.99": figures.percentile_ms(99.99),
                    "max": figures.max_ms(),
                })),
            })
        };
        let cpu = |seconds: f64| {
            let (per_gigabyte, per_request) = self.cpu_costs(seconds);
            json!({ "seconds": seconds, "s_per_gb": per_gigabyte, "us_per_request": per_request })
        };
        let rows = self.rows.iter().map(|row| {
            json!({
                "at_s": row.at_seconds(),
                "produced_records_per_s": row.produced.records_per_second,
                "produced_mb_per_s": row.produced.megabytes_per_second,
                "consumed_records_per_s": row.consumed.records_per_second,
                "consumed_mb_per_s": row.consumed.megabytes_per_second,
                "latency_ms": row.latencies.map(|[p50, p99, p999, max]| {
                    json!({ "p50": p50, "p99": p99, "p99.9": p999, "max": max })
                }),
            })
        });
        let settings = self.settings;
        let Machine { host, kernel, cpu: model, cores, memory_bytes } = &self.machine;
        json!({
            "ringlog": env!("CARGO_PKG_VERSION"),
            "run": outcome.run_id,
            "started_ms": outcome.start_wall_ns / 1_000_000,
            "settings": self.settings_json(),
            "machine": {
                "host": host, "kernel": kernel, "cpu": model, "cores": cores, "memory_bytes": memory_bytes,
            },
            "seconds": outcome.seconds,
            "interrupted": outcome.interrupted,
            "producers": outcome.producers,
            "consumers": outcome.consumers,
            "topic_created": outcome.topic.created,
            "topic_deleted": outcome.topic_deleted,
            "acknowledged_records": outcome.acknowledged,
            "missing_records": outcome.missing,
            "left_behind_records": outcome.left_behind,
            "produced": settings.mode.produces().then(|| side(&outcome.totals.produced, &outcome.warm.produced)),
            "consumed": settings.mode.consumes().then(|| side(&outcome.totals.consumed, &outcome.warm.consumed)),
            "broker_cpu": outcome.broker_cpu.as_ref().ok().map(|seconds| cpu(*seconds)),
            "broker_cpu_unknown": outcome.broker_cpu.as_ref().err(),
            "broker_pids": outcome.broker_pids,
            "client_cpu": cpu(outcome.client_cpu),
            "check": outcome.findings.as_ref().map(|findings| json!({
                "sound": findings.is_sound() && outcome.missing == 0,
                "records": findings.records,
                "batches": findings.batches,
                "foreign_records": findings.foreign,
                "damaged_batches": findings.damaged_batches,
                "damaged_records": findings.damaged_records,
                "lost_records": findings.lost,
                "repeated_records": findings.repeated,
                "examples": findings.examples,
            })),
            "notes": self.notes(),
            "per_second": rows.collect::<Vec<_>>(),
        })
    }
}

pub fn codec_name(codec: Codec) -> &'static str {
    match codec {
        Codec::None => "none",
        Codec::Gzip => "gzip",
        Codec::Snappy => "snappy",
        Codec::Lz4 => "lz4",
        Codec::Zstd => "zstd",
    }
}

/// With commas between groups of three digits.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// To three digits.
pub fn milliseconds(ms: f64) -> String {
    match ms {
        _ if ms < 1.0 => format!("{ms:.3}"),
        _ if ms < 10.0 => format!("{ms:.2}"),
        _ if ms < 100.0 => format!("{ms:.1}"),
        _ => format!("{ms:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0.0123, 1.234, 12.34, 1234.5].map(milliseconds), ["0.012", "1.23", "12.3", "1234"]);
    }
}
