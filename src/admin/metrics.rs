//! `/metrics`: what shards count and what they say of themselves, in Prometheus' text format.
//!
//! Names are the counters' own with `ringlog_` before them; `_total` ends what only grows, `_now` and `_max` say how much
//! of a bound is in use. Numbers that tell shards apart have the label `shard`; requests and durations are summed over
//! all shards, since they come by API, version, error and bucket already, but for the length of a turn: one shard that is
//! slow must not be lost among many that are not. Texts name Kafka's metric where there is one.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::time::Instant;

use super::text::{Kind, Text, encode};
use super::{LogDir, Source, State, process};
use crate::metrics::status::{BoundUse, PartitionStatus, ShardStatus};
use crate::metrics::{Counter, HeldCall, HeldTime, Recorded, Requests, RequestsOf, ShardCounters, SharedCounter};
use crate::protocol::api_key::ApiKey;
use crate::protocol::error_code::ErrorCode;

pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// About what one partition takes.
const PARTITION_BYTES: usize = 512;
/// About what all else takes.
const TEXT_BYTES: usize = 64 * 1024;

/// Series that are there on request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    pub topics: bool,
    pub partitions: bool,
}

impl Detail {
    /// Of a query such as `partitions=true`.
    ///
    /// # Errors
    /// What can be asked for.
    pub fn parse(query: &str) -> Result<Detail, &'static str> {
        let mut detail = Detail::default();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            match part {
                "topics=true" => detail.topics = true,
                "partitions=true" => detail.partitions = true,
                "topics=false" | "partitions=false" => {}
                _ => return Err("/metrics takes topics=true and partitions=true, and nothing else"),
            }
        }
        Ok(detail)
    }

    /// Whether there is a line for each topic or partition.
    pub fn is_long(self) -> bool {
        self.topics || self.partitions
    }
}

/// A number of a shard.
enum Value<'c> {
    Count(&'c Counter),
    Shared(&'c SharedCounter),
    /// Nanoseconds, told in seconds.
    Time(&'c Counter),
}

/// One metric of a shard.
struct Row<'c> {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    value: Value<'c>,
}

/// The rows of counters: of each field its kind, value, name and help. A field that is left out does not compile.
macro_rules! rows {
    ($counters:expr, without $($without:ident),*;
     $($field:ident => $kind:ident($value:ident) $name:literal: $help:literal,)*) => {{
        let ShardCounters { $($field,)* $($without: _,)* } = $counters;
        vec![$(Row { name: $name, kind: Kind::$kind, value: Value::$value($field), help: $help }),*]
    }};
}

fn rows(counters: &ShardCounters) -> Vec<Row<'_>> {
    rows! { counters, without requests, append_time, turn_time, held;
        connections_now => Gauge(Count) "connections": "Open client connections (Kafka's connection-count).",
        connections_accepted_total => Counter(Shared) "connections_accepted_total":
            "Client connections accepted (Kafka's connection-creation-total).",
        connections_refused_total => Counter(Count) "connections_refused_total":
            "Connections closed because of what the peer sent.",
        partitions_offline_now => Gauge(Count) "partitions_unopened": "Partitions whose logs could not be opened.",
        request_bytes_total => Counter(Count) "request_bytes_total":
            "Bytes of requests received (Kafka's incoming-byte-total, RequestBytes).",
        response_bytes_total => Counter(Count) "response_bytes_total":
            "Bytes of answers sent (Kafka's outgoing-byte-total).",
        produce_bytes_total => Counter(Count) "produce_bytes_total":
            "Bytes of records received (Kafka's BytesInPerSec).",
        produce_records_total => Counter(Count) "produce_records_total": "Records received (Kafka's MessagesInPerSec).",
        fetch_bytes_total => Counter(Count) "fetch_bytes_total":
            "Bytes of records in answers to fetches (Kafka's BytesOutPerSec).",
        busy_ns_total => Counter(Time) "shard_busy_seconds_total":
            "Seconds in which the shard's thread did something (1 less Kafka's RequestHandlerAvgIdlePercent).",
        idle_ns_total => Counter(Time) "shard_idle_seconds_total":
            "Seconds in which the shard's thread slept in its ring.",
        tasks_run_total => Counter(Count) "shard_tasks_run_total": "Times that a task of the shard was run.",
        fetches_not_waited_total => Counter(Count) "fetches_not_waited_total":
            "Large fetches that were answered at once, because too many wait already.",
        receive_pool_empty_total => Counter(Count) "receive_pool_empty_total":
            "Receives that met an empty pool of buffers (ENOBUFS) and started anew.",
        sendfile_bytes_total => Counter(Count) "sendfile_bytes_total":
            "Bytes of records sent from the page cache without a copy.",
        sendfile_slept_total => Counter(Count) "sendfile_slept_total":
            "sendfile calls of ranges not appended recently during which the thread slept, however shortly.",
        cold_reads_total => Counter(Count) "cold_reads_total":
            "Ranges that had to be brought into the page cache first.",
        cold_bytes_total => Counter(Count) "cold_bytes_total":
            "Bytes that had to be brought into the page cache first.",
        cold_copied_bytes_total => Counter(Count) "cold_copied_bytes_total":
            "Bytes sent as a copy because their pages were evicted faster than they could be sent.",
        appends_total => Counter(Count) "appends_total": "Writes to logs.",
        append_bytes_total => Counter(Count) "append_bytes_total": "Bytes written to logs.",
        appends_deferred_total => Counter(Count) "appends_deferred_total":
            "Writes that went to a kernel worker, since the shard might have had to wait in them.",
        segments_deleted_total => Counter(Count) "segments_deleted_total":
            "Segments that retention has taken out of their logs.",
        undecodable_batches_total => Counter(Count) "undecodable_batches_total":
            "Batches of the log that can't be decoded, as often as the cleaner kept one or a time query was answered with it.",
        cleaner_runs_total => Counter(Count) "cleaner_runs_total": "Compacted logs that were cleaned.",
        cleaner_read_bytes_total => Counter(Count) "cleaner_read_bytes_total": "Bytes that the cleaner has read.",
        cleaner_written_bytes_total => Counter(Count) "cleaner_written_bytes_total":
            "Bytes that the cleaner has written.",
        uncleanable_partitions_now => Gauge(Count) "uncleanable_partitions":
            "Compacted partitions that are not cleaned since they are damaged (Kafka's uncleanable-partitions-count).",
    }
}

/// A number of a shard's calls of one kind.
type OfHeldCall = (&'static str, &'static str, fn(&HeldTime) -> f64);

const HELD_ROWS: [OfHeldCall; 2] = [
    (
        "shard_held_total",
        "Calls that held the shard: they must not wait, and its thread slept in them, for more than a millisecond \
         (write: pwritev; send: sendfile; read: preadv2 and cachestat).",
        |held| held.calls_total.get() as f64,
    ),
    ("shard_held_seconds_total", "Seconds of such calls, in which all connections of the shard waited.", |held| {
        held.ns_total.get() as f64 / 1e9
    }),
];

/// A number of a log directory.
type OfLogDir = (&'static str, &'static str, fn(&LogDir) -> u64);

const LOG_DIR_ROWS: [OfLogDir; 10] = [
    ("log_dir_online", "1 for a data directory whose partitions are served, 0 for one that failed.", |log_dir| {
        u64::from(log_dir.online)
    }),
    ("log_dir_has_room", "0 while less than the reserve is free and produce is refused.", |log_dir| {
        u64::from(log_dir.room_bytes != Some(0))
    }),
    ("log_dir_partitions", "Partitions placed in the directory.", |log_dir| log_dir.partitions),
    (
        "log_dir_strays",
        "Directories of partitions that the metadata did not know at the start, or that were set aside since.",
        |log_dir| log_dir.strays,
    ),
    ("log_dir_dirty_bytes_now", "Appended bytes that are not known to be on the device.", |log_dir| {
        log_dir.dirty_bytes
    }),
    (
        "log_dir_dirty_bytes_max",
        "Above so many dirty bytes appends wait for the device (--dirty-bytes-max).",
        |log_dir| log_dir.dirty_bytes_max,
    ),
    ("log_dir_name_jobs_now", "Operations on names and small files that wait for a thread.", |log_dir| {
        log_dir.name_jobs.0 as u64
    }),
    ("log_dir_name_jobs_max", "How many may before shards wait for room.", |log_dir| log_dir.name_jobs.1 as u64),
    ("log_dir_sync_jobs_now", "Flushes and write-backs that wait for a thread.", |log_dir| log_dir.sync_jobs.0 as u64),
    ("log_dir_sync_jobs_max", "How many may before shards wait for room.", |log_dir| log_dir.sync_jobs.1 as u64),
];

/// A number of a partition.
type OfPartition = (&'static str, &'static str, fn(&PartitionStatus) -> i64);

const PARTITION_ROWS: [OfPartition; 6] = [
    ("partition_size_bytes", "Bytes of the partition's segments (Kafka's Log Size).", |partition| {
        i64::try_from(partition.size_bytes).unwrap_or(i64::MAX)
    }),
    ("partition_log_start_offset", "Offset of the first record that may be read (Kafka's LogStartOffset).", |of| {
        of.log_start_offset
    }),
    ("partition_log_end_offset", "Offset of the next record (Kafka's LogEndOffset).", |of| of.log_end_offset),
    ("partition_high_watermark", "Offset below which records are on all replicas in sync.", |of| of.high_watermark),
    ("partition_last_stable_offset", "Offset below which no transaction is open.", |of| of.last_stable_offset),
    ("partition_leader_epoch", "How often the partition had a new leader.", |of| i64::from(of.leader_epoch)),
];

/// All metrics. `shards` is what each said of itself, `None` for one that did not answer; `begun` is when they were
/// asked.
pub fn text(source: &dyn Source, shards: &[Option<ShardStatus>], detail: Detail, begun: Instant) -> String {
    let partition_count: usize = shards.iter().flatten().map(|shard| shard.partitions.len()).sum();
    let mut out = Text(String::with_capacity(TEXT_BYTES + PARTITION_BYTES * partition_count));
    let counters = source.shards();
    write_state(&mut out, source);
    write_requests(&mut out, &counters.iter().map(|counters| &counters.requests).collect::<Vec<_>>());
    write_counters(&mut out, &counters);
    write_turns(&mut out, &counters);
    write_held(&mut out, &counters);
    write_log_dirs(&mut out, &source.log_dirs(), shards);
    write_shards(&mut out, shards);
    let (queued, most) = source.work_jobs();
    out.single("work_jobs_now", Kind::Gauge, "Jobs that wait for a work thread.", queued);
    out.single("work_jobs_max", Kind::Gauge, "How many may wait; one more is refused.", most);
    let mut partitions: Vec<&PartitionStatus> = shards.iter().flatten().flat_map(|shard| &shard.partitions).collect();
    partitions.sort_unstable_by_key(|partition| (&*partition.topic, partition.partition));
    if detail.topics {
        write_topics(&mut out, &partitions);
    }
    if detail.partitions {
        write_partitions(&mut out, &partitions);
    }
    process::write(&mut out);
    out.single(
        "scrape_seconds",
        Kind::Gauge,
        "Seconds that this answer took, with the wait for the shards.",
        begun.elapsed().as_secs_f64(),
    );
    out.0
}

fn write_state(out: &mut Text, source: &dyn Source) {
    out.head("build_info", Kind::Gauge, "Version of ringlog; always 1.");
    out.sample("build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    out.head("state", Kind::Gauge, "1 for what the process is doing (Kafka's BrokerState).");
    for state in State::ALL {
        out.sample("state", &[("state", state.name())], u64::from(state == source.state()));
    }
    let recovery = source.recovery();
    for (name, help, value) in [
        ("recovery_logs", "Logs that this start has to open.", recovery.logs_total),
        (
            "recovery_logs_done",
            "Logs opened by this start (what Kafka's remainingLogsToRecover counts down to).",
            recovery.logs_done,
        ),
        ("recovery_bytes", "Bytes that this start has to check, as far as it is known.", recovery.bytes_total),
        ("recovery_bytes_done", "Bytes checked by this start.", recovery.bytes_done),
    ] {
        out.single(name, Kind::Gauge, help, value);
    }
}

/// Kafka's name of an API, as in its metrics' `request` tag.
fn api_name(key: i16) -> &'static str {
    ApiKey::from_code(key).map_or("unknown", ApiKey::name)
}

fn write_requests(out: &mut Text, shards: &[&Requests]) {
    let requests = RequestsOf(shards);
    out.head("requests_total", Kind::Counter, "Requests received, by API and version (Kafka's RequestsPerSec).");
    for (key, version, count) in requests.received() {
        let version = version.map_or_else(|| "other".to_owned(), |version| version.to_string());
        out.sample("requests_total", &[("api", api_name(key)), ("version", &version)], count);
    }
    out.head(
        "request_errors_total",
        Kind::Counter,
        "Error codes in answers, of the whole, its topics and its partitions, NONE among them (Kafka's ErrorsPerSec).",
    );
    for (key, code, count) in requests.errors() {
        let error = ErrorCode::from_code(code).map_or("unknown", ErrorCode::name);
        out.sample("request_errors_total", &[("api", api_name(key)), ("error", error)], count);
    }
    out.head(
        "request_seconds",
        Kind::Histogram,
        "From when a request is whole until its answer is with the kernel (Kafka's TotalTimeMs).",
    );
    for (key, recorded) in requests.totals() {
        out.histogram("request_seconds", &[("api", api_name(key))], &recorded);
    }
    out.head(
        "request_stage_seconds",
        Kind::Histogram,
        "Stages of requests: unread is the most that it can have waited, unseen, for its shard or for earlier requests of \
         its connection (not in the total); received waits to be handled (Kafka's RequestQueueTimeMs); planned is decoded and checked, \
         executed reads or appends (together LocalTimeMs); flushed waits for disk or replicas, waited for min.bytes \
         (together RemoteTimeMs; only requests that waited); replied encodes, waits its turn and sends \
         (ResponseQueueTimeMs and ResponseSendTimeMs).",
    );
    for (key, stage, recorded) in requests.stages() {
        out.histogram("request_stage_seconds", &[("api", api_name(key)), ("stage", stage.name())], &recorded);
    }
}

fn write_counters(out: &mut Text, shards: &[std::sync::Arc<ShardCounters>]) {
    let tables: Vec<Vec<Row<'_>>> = shards.iter().map(|counters| rows(counters)).collect();
    for (index, row) in tables.first().into_iter().flatten().enumerate() {
        out.head(row.name, row.kind, row.help);
        for (shard, table) in tables.iter().enumerate() {
            let shard = shard.to_string();
            let labels = [("shard", &*shard)];
            match table[index].value {
                Value::Count(counter) => out.sample(row.name, &labels, counter.get()),
                Value::Shared(counter) => out.sample(row.name, &labels, counter.get()),
                Value::Time(counter) => out.sample(row.name, &labels, counter.get() as f64 / 1e9),
            }
        }
    }
    out.head(
        "append_seconds",
        Kind::Histogram,
        "How long writes to logs took until their bytes were in the page cache.",
    );
    let mut appends = Recorded::default();
    shards.iter().for_each(|counters| appends.add(&counters.append_time));
    out.histogram("append_seconds", &[], &appends);
}

fn write_turns(out: &mut Text, shards: &[std::sync::Arc<ShardCounters>]) {
    out.head(
        "shard_turn_seconds",
        Kind::Histogram,
        "How long turns of the shard's loop took, each from one entry into its ring to the next, without the sleep in it: \
         what comes meanwhile waits as long.",
    );
    for (shard, counters) in shards.iter().enumerate() {
        out.histogram("shard_turn_seconds", &[("shard", &shard.to_string())], &Recorded::from(&counters.turn_time));
    }
}

fn write_held(out: &mut Text, shards: &[std::sync::Arc<ShardCounters>]) {
    for (name, help, value) in HELD_ROWS {
        out.head(name, Kind::Counter, help);
        for (shard, counters) in shards.iter().enumerate() {
            for call in HeldCall::ALL {
                let labels = [("shard", &*shard.to_string()), ("call", call.name())];
                out.sample(name, &labels, value(counters.held.of(call)));
            }
        }
    }
}

fn write_log_dirs(out: &mut Text, log_dirs: &[LogDir], shards: &[Option<ShardStatus>]) {
    let paths: Vec<_> = log_dirs.iter().map(|log_dir| log_dir.path.to_string_lossy()).collect();
    for (name, help, value) in LOG_DIR_ROWS {
        out.head(name, Kind::Gauge, help);
        for (log_dir, path) in log_dirs.iter().zip(&paths) {
            out.sample(name, &[("path", path)], value(log_dir));
        }
    }
    out.head("log_dir_room_bytes", Kind::Gauge, "Bytes that are free above the reserve (--disk-reserve).");
    for (log_dir, path) in log_dirs.iter().zip(&paths) {
        if let Some(room_bytes) = log_dir.room_bytes {
            out.sample("log_dir_room_bytes", &[("path", path)], room_bytes);
        }
    }
    out.head("log_dir_bytes", Kind::Gauge, "Bytes of the segments of all partitions in the directory.");
    for (index, path) in paths.iter().enumerate() {
        let bytes: u64 = shards.iter().flatten().filter_map(|shard| shard.log_dir_bytes.get(index)).sum();
        out.sample("log_dir_bytes", &[("path", path)], bytes);
    }
    out.head(
        "log_dir_sync_seconds",
        Kind::Histogram,
        "How long flushes of files to the device took (Kafka's LogFlushRateAndTimeMs).",
    );
    for (log_dir, path) in log_dirs.iter().zip(&paths) {
        out.histogram("log_dir_sync_seconds", &[("path", path)], &log_dir.sync_time);
    }
}

fn write_shards(out: &mut Text, shards: &[Option<ShardStatus>]) {
    let numbers: Vec<String> = (0..shards.len()).map(|shard| shard.to_string()).collect();
    let each = || numbers.iter().zip(shards);
    out.head(
        "shard_answered",
        Kind::Gauge,
        "0 for a shard that did not say in time how it is: what follows and the sizes of logs are without its part.",
    );
    for (shard, status) in each() {
        out.sample("shard_answered", &[("shard", shard)], u64::from(status.is_some()));
    }
    let partitions: [(&str, &str, fn(&ShardStatus) -> u64); 2] = [
        ("partitions", "Partitions whose logs are open (Kafka's PartitionCount).", |status| status.partitions_online),
        ("partitions_offline", "Partitions whose logs are not open (Kafka's OfflineReplicaCount).", |status| {
            status.partitions_offline
        }),
    ];
    for (name, help, value) in partitions {
        out.head(name, Kind::Gauge, help);
        for (shard, status) in each().filter_map(|(shard, status)| Some((shard, status.as_ref()?))) {
            out.sample(name, &[("shard", shard)], value(status));
        }
    }
    // The bounds of all shards are the same ones.
    let known = shards.iter().flatten().next().map_or(&[][..], |status| &status.bounds);
    for bound in known {
        let mut family = |suffix: &str, kind, help: &str, value: fn(&BoundUse) -> Option<u64>| {
            let name = format!("{}_{suffix}", bound.name);
            out.head(&name, kind, help);
            for (shard, status) in each().filter_map(|(shard, status)| Some((shard, status.as_ref()?))) {
                let of_shard = status.bounds.iter().find(|of_shard| of_shard.name == bound.name);
                if let Some(value) = of_shard.and_then(value) {
                    out.sample(&name, &[("shard", shard)], value);
                }
            }
        };
        family("now", Kind::Gauge, bound.help, |bound| Some(bound.now));
        family("max", Kind::Gauge, "How much or how many there may be of it.", |bound| Some(bound.max));
        if bound.waits_total.is_some() {
            family("waits_total", Kind::Counter, "How often somebody had to wait for room.", |bound| bound.waits_total);
        }
    }
}

fn write_topics(out: &mut Text, partitions: &[&PartitionStatus]) {
    let mut topics: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for partition in partitions {
        let (bytes, count) = topics.entry(&partition.topic).or_default();
        *bytes += partition.size_bytes;
        *count += 1;
    }
    out.head("topic_size_bytes", Kind::Gauge, "Bytes of the segments of all the topic's partitions here.");
    for (topic, (bytes, _)) in &topics {
        out.sample("topic_size_bytes", &[("topic", topic)], bytes);
    }
    out.head("topic_partitions", Kind::Gauge, "Partitions of the topic here.");
    for (topic, (_, count)) in &topics {
        out.sample("topic_partitions", &[("topic", topic)], count);
    }
}

fn write_partitions(out: &mut Text, partitions: &[&PartitionStatus]) {
    let labels = |of: &&PartitionStatus| encode(&[("topic", &of.topic), ("partition", &of.partition.to_string())]);
    let labels: Vec<String> = partitions.iter().map(labels).collect();
    for (name, help, value) in PARTITION_ROWS {
        out.head(name, Kind::Gauge, help);
        for (partition, labels) in partitions.iter().zip(&labels) {
            out.encoded_sample(name, labels, value(partition));
        }
    }
}
