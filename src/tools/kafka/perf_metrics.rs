//! `--print-metrics` of the performance tests: what the engine knows, under the names of Kafka's clients and in the shape of
//! Kafka 3.9 `ToolsUtils.printMetrics`.
//!
//! Rates and averages are those of the whole run, where Kafka's are of the last half minute. What this client does not
//! have, such as a send buffer or a metadata cache, has no line.

#![forbid(unsafe_code)]

use crate::bench::load::Outcome;
use crate::bench::measure::{Figures, Traffic};
use crate::bench::settings::Settings;

/// Names and values, for one client and one topic.
pub struct Metrics<'a> {
    client_id: &'a str,
    topic: &'a str,
    outcome: &'a Outcome,
    all: Vec<(String, f64)>,
}

impl Metrics<'_> {
    /// What a producer says.
    pub fn of_producer(settings: &Settings, outcome: &Outcome) -> String {
        const GROUP: &str = "producer-metrics";
        const BY_TOPIC: &str = "producer-topic-metrics";
        let produced = &outcome.totals.produced;
        let (traffic, per_request) = (&produced.traffic, per_request(produced));
        let mut metrics = Metrics::new(settings, outcome);
        metrics.add(GROUP, "batch-size-avg", per_request(produced.bytes as f64));
        metrics.add(GROUP, "batch-size-max", traffic.bytes_max as f64);
        metrics.add(GROUP, "compression-rate-avg", per_request(traffic.compression_ratios));
        metrics.add_answers(GROUP, "produce-throttle-time", "request-latency", produced);
        metrics.add(GROUP, "records-per-request-avg", per_request(produced.records as f64));
        metrics.add(GROUP, "requests-in-flight", 0.0);
        metrics.add_connections(GROUP);
        if let Some(times) = &outcome.transactions {
            metrics.add(GROUP, "txn-init-time-ns-total", times.init_ns as f64);
            metrics.add(GROUP, "txn-commit-time-ns-total", times.commit_ns as f64);
            metrics.add(GROUP, "txn-abort-time-ns-total", times.abort_ns as f64);
        }
        for (name, total) in [("record-send", produced.records), ("record-error", 0), ("record-retry", 0)] {
            metrics.add_meter(GROUP, name, total as f64);
            metrics.add_meter_of_topic(BY_TOPIC, name, total as f64);
        }
        metrics.add_meter_of_topic(BY_TOPIC, "byte", produced.bytes as f64);
        metrics.add_of_topic(BY_TOPIC, "compression-rate", per_request(traffic.compression_ratios));
        metrics.text()
    }

    /// What a consumer says.
    pub fn of_consumer(settings: &Settings, outcome: &Outcome) -> String {
        const FETCHES: &str = "consumer-fetch-manager-metrics";
        let consumed = &outcome.totals.consumed;
        let (traffic, per_request) = (&consumed.traffic, per_request(consumed));
        // Kafka's consumers have no dots in their metrics' topics.
        let topic = settings.topic.name.replace('.', "_");
        let mut metrics = Metrics { topic: &topic, ..Metrics::new(settings, outcome) };
        for (name, value) in [
            ("fetch-size-avg", per_request(traffic.record_bytes as f64)),
            ("fetch-size-max", traffic.bytes_max as f64),
            ("records-per-request-avg", per_request(consumed.records as f64)),
        ] {
            metrics.add(FETCHES, name, value);
            metrics.add_of_topic(FETCHES, name, value);
        }
        for (name, total) in [("bytes-consumed", traffic.record_bytes), ("records-consumed", consumed.records)] {
            metrics.add_meter(FETCHES, name, total as f64);
            metrics.add_meter_of_topic(FETCHES, name, total as f64);
        }
        metrics.add_meter(FETCHES, "fetch", consumed.requests as f64);
        // Kafka's consumer is closed before it is asked, and then has no connections to tell of.
        metrics.add_answers(FETCHES, "fetch-throttle-time", "fetch-latency", consumed);
        metrics.text()
    }

    fn new<'a>(settings: &'a Settings, outcome: &'a Outcome) -> Metrics<'a> {
        Metrics { client_id: &settings.client_id, topic: &settings.topic.name, outcome, all: Vec::new() }
    }

    fn add(&mut self, group: &str, name: &str, value: f64) {
        self.all.push((format!("{group}:{name}:{{client-id={}}}", self.client_id), value));
    }

    fn add_of_topic(&mut self, group: &str, name: &str, value: f64) {
        self.all.push((format!("{group}:{name}:{{client-id={}, topic={}}}", self.client_id, self.topic), value));
    }

    fn per_second(&self, total: f64) -> f64 {
        total / self.outcome.seconds
    }

    /// A total and its rate, as Kafka's meters are.
    fn add_meter(&mut self, group: &str, name: &str, total: f64) {
        self.add(group, &format!("{name}-rate"), self.per_second(total));
        self.add(group, &format!("{name}-total"), total);
    }

    fn add_meter_of_topic(&mut self, group: &str, name: &str, total: f64) {
        self.add_of_topic(group, &format!("{name}-rate"), self.per_second(total));
        self.add_of_topic(group, &format!("{name}-total"), total);
    }

    /// How long answers took, and for how long they asked to wait, in milliseconds.
    fn add_answers(&mut self, group: &str, throttle: &str, latency: &str, figures: &Figures) {
        let Traffic { answer_ns, answer_ns_max, throttle_ms, throttle_ms_max, .. } = figures.traffic;
        let per_request = per_request(figures);
        self.add(group, &format!("{latency}-avg"), per_request(answer_ns as f64 / 1e6));
        self.add(group, &format!("{latency}-max"), answer_ns_max as f64 / 1e6);
        self.add(group, &format!("{throttle}-avg"), per_request(throttle_ms as f64));
        self.add(group, &format!("{throttle}-max"), throttle_ms_max as f64);
    }

    /// What went over the connections (Kafka 3.9 `Selector`).
    fn add_connections(&mut self, group: &str) {
        let exchanged = self.outcome.exchanged;
        self.add_meter(group, "connection-creation", exchanged.connections as f64);
        self.add_meter(group, "incoming-byte", exchanged.answer_bytes as f64);
        self.add_meter(group, "network-io", (exchanged.requests + exchanged.answers) as f64);
        self.add_meter(group, "outgoing-byte", exchanged.request_bytes as f64);
        self.add_meter(group, "request", exchanged.requests as f64);
        self.add(group, "request-size-avg", exchanged.request_bytes as f64 / exchanged.requests as f64);
        self.add(group, "request-size-max", exchanged.request_bytes_max as f64);
        self.add_meter(group, "response", exchanged.answers as f64);
    }

    /// A blank line, a heading, and a line for each, sorted.
    fn text(mut self) -> String {
        self.all.sort_by(|one, other| one.0.cmp(&other.0));
        let width = self.all.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let lines = self.all.iter().map(|(name, value)| format!("{name:width$} : {}", decimals::<3>(*value)));
        std::iter::once(format!("\n{:width$}   Value", "Metric Name")).chain(lines).collect::<Vec<_>>().join("\n")
    }
}

/// An amount for each of the requests.
fn per_request(figures: &Figures) -> impl Fn(f64) -> f64 {
    let requests = figures.requests as f64;
    move |amount| amount / requests
}

/// A number as Java's `%.Nf` writes it: what is no number, or has no end, by Java's names.
pub fn decimals<const PLACES: usize>(number: f64) -> String {
    match number {
        _ if number.is_nan() => "NaN".to_owned(),
        _ if number.is_infinite() => if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
        _ => format!("{number:.PLACES$}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_java_does() {
        let found = [1.0 / 3.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(decimals::<4>);
        assert_eq!(found, ["0.3333", "NaN", "Infinity", "-Infinity"]);
    }
}
