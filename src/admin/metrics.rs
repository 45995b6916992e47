//! `/metrics`: every counter in Prometheus' text format, version 0.0.4.
//!
//! Names are the counters' own with `ringlog_` before them; `_total` ends what only grows, and what does not is a gauge.

#![forbid(unsafe_code)]

use std::fmt::Write as _;

use crate::metrics::{Counter, ShardCounters};

use super::{LogDir, Source, State};

pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

/// One metric of a shard.
struct Row<'c> {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    counter: &'c Counter,
}

/// A counter that is not named here does not compile.
fn rows(counters: &ShardCounters) -> Vec<Row<'_>> {
    use Kind::{Counter as Total, Gauge};
    let ShardCounters {
        connections_now,
        connections_accepted_total,
        connections_refused_total,
        partitions_offline_now,
        requests_total,
        produce_bytes_total,
        sendfile_bytes_total,
        sendfile_blocked_total,
        sendfile_slept_total,
        cold_reads_total,
        cold_bytes_total,
        cold_copied_bytes_total,
        appends_total,
        append_bytes_total,
        appends_deferred_total,
        segments_deleted_total,
        cleaner_runs_total,
        cleaner_read_bytes_total,
        cleaner_written_bytes_total,
        uncleanable_partitions_now,
    } = counters;
    let row = |name, kind, help, counter| Row { name, kind, help, counter };
    vec![
        row("connections", Gauge, "Open client connections.", connections_now),
        row("connections_accepted_total", Total, "Client connections accepted.", connections_accepted_total),
        row(
            "connections_refused_total",
            Total,
            "Connections closed because of what the peer sent.",
            connections_refused_total,
        ),
        row("partitions_offline", Gauge, "Partitions whose logs could not be opened.", partitions_offline_now),
        row("requests_total", Total, "Requests received.", requests_total),
        row("produce_bytes_total", Total, "Bytes of records received (Kafka's BytesInPerSec).", produce_bytes_total),
        row(
            "sendfile_bytes_total",
            Total,
            "Bytes of records sent from the page cache without a copy (most of Kafka's BytesOutPerSec).",
            sendfile_bytes_total,
        ),
        row(
            "sendfile_blocked_total",
            Total,
            "sendfile calls that held the shard for more than a millisecond.",
            sendfile_blocked_total,
        ),
        row(
            "sendfile_slept_total",
            Total,
            "sendfile calls of ranges not appended recently during which the thread slept.",
            sendfile_slept_total,
        ),
        row("cold_reads_total", Total, "Ranges that had to be brought into the page cache first.", cold_reads_total),
        row("cold_bytes_total", Total, "Bytes that had to be brought into the page cache first.", cold_bytes_total),
        row(
            "cold_copied_bytes_total",
            Total,
            "Bytes sent as a copy because their pages were evicted faster than they could be sent.",
            cold_copied_bytes_total,
        ),
        row("appends_total", Total, "Writes to logs.", appends_total),
        row("append_bytes_total", Total, "Bytes written to logs.", append_bytes_total),
        row(
            "appends_deferred_total",
            Total,
            "Writes that went to a kernel worker because the directory was slow.",
            appends_deferred_total,
        ),
        row(
            "segments_deleted_total",
            Total,
            "Segments that retention has taken out of their logs.",
            segments_deleted_total,
        ),
        row("cleaner_runs_total", Total, "Compacted logs that were cleaned.", cleaner_runs_total),
        row("cleaner_read_bytes_total", Total, "Bytes that the cleaner has read.", cleaner_read_bytes_total),
        row("cleaner_written_bytes_total", Total, "Bytes that the cleaner has written.", cleaner_written_bytes_total),
        row(
            "uncleanable_partitions",
            Gauge,
            "Compacted partitions that are not cleaned since they are damaged (Kafka's uncleanable-partitions-count).",
            uncleanable_partitions_now,
        ),
    ]
}

/// All metrics, one line each behind its help and type.
pub fn text(source: &dyn Source) -> String {
    let mut out = Text(String::with_capacity(8 * 1024));
    out.head("build_info", Kind::Gauge, "Version of ringlog; always 1.");
    out.sample("build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    out.head("state", Kind::Gauge, "1 for what the process is doing.");
    for state in State::ALL {
        out.sample("state", &[("state", state.name())], u64::from(state == source.state()));
    }
    let recovery = source.recovery();
    for (name, help, value) in [
        ("recovery_logs", "Logs that this start has to open.", recovery.logs_total),
        ("recovery_logs_done", "Logs opened by this start.", recovery.logs_done),
        ("recovery_bytes", "Bytes that this start has to check, as far as it is known.", recovery.bytes_total),
        ("recovery_bytes_done", "Bytes checked by this start.", recovery.bytes_done),
    ] {
        out.head(name, Kind::Gauge, help);
        out.sample(name, &[], value);
    }
    out.head(
        "log_dir_online",
        Kind::Gauge,
        "1 for a data directory whose partitions are served, 0 for one that failed.",
    );
    for log_dir in source.log_dirs() {
        out.sample("log_dir_online", &[("path", &log_dir.path.to_string_lossy())], u64::from(log_dir.online));
    }
    let figures: [(&str, Kind, &str, fn(&LogDir) -> f64); 5] = [
        ("log_dir_has_room", Kind::Gauge, "0 while less than the reserve is free and produce is refused.", |log_dir| {
            f64::from(u8::from(log_dir.has_room))
        }),
        ("log_dir_partitions", Kind::Gauge, "Partitions placed in the directory.", |log_dir| log_dir.partitions as f64),
        ("log_dir_dirty_bytes", Kind::Gauge, "Appended bytes that are not known to be on the device.", |log_dir| {
            log_dir.dirty_bytes as f64
        }),
        (
            "log_dir_syncs_total",
            Kind::Counter,
            "Flushes of files to the device (Kafka's LogFlushRateAndTimeMs).",
            |dir| dir.syncs_total as f64,
        ),
        ("log_dir_sync_seconds_total", Kind::Counter, "Seconds that the flushes took together.", |log_dir| {
            log_dir.sync_seconds_total
        }),
    ];
    for (name, kind, help, value) in figures {
        out.head(name, kind, help);
        for log_dir in source.log_dirs() {
            out.sample(name, &[("path", &log_dir.path.to_string_lossy())], value(&log_dir));
        }
    }
    let shards = source.shards();
    let tables: Vec<Vec<Row<'_>>> = shards.iter().map(|counters| rows(counters)).collect();
    for (index, row) in tables.first().into_iter().flatten().enumerate() {
        out.head(row.name, row.kind, row.help);
        for (shard, table) in tables.iter().enumerate() {
            out.sample(row.name, &[("shard", &shard.to_string())], table[index].counter.get());
        }
    }
    out.0
}

/// Writing into a String can't fail.
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let _ = write!(self.0, "# HELP ringlog_{name} {help}\n# TYPE ringlog_{name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let _ = write!(self.0, "ringlog_{name}");
        for (index, (label, text)) in labels.iter().enumerate() {
            let opening = if index == 0 { '{' } else { ',' };
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{opening}{label}=\"{text}\"");
        }
        let closing = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{closing} {value}");
    }
}
