//! One load for every server that speaks Kafka's protocol: the floors, ringlog, and others.
//!
//! Raw frames on non-blocking sockets, one thread, one epoll: the client costs little and the same whatever it drives.
//! Every answer is read and checked. A run is bounded in requests, bytes and time, whichever comes first, and ends with
//! one line of JSON; with `--cpu-of` that line has the CPU time of the whole server process (all threads, kernel
//! workers among them) between the end of the warm-up and the end of the run.

#![forbid(unsafe_code)]

mod client;
mod fetch;
mod hostile;
mod neighbours;
mod produce;
mod report;
mod start;
mod topic;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use ringlog::protocol::WireError;
use ringlog::protocol::frame::FrameError;
use ringlog::protocol::header::HeaderError;
use ringlog::record::compression::Codec;

use crate::client::{Client, Limits, Pace};

#[derive(Parser)]
#[command(about = "Load for a Kafka broker or a floor; prints one line of JSON.")]
struct Options {
    #[command(subcommand)]
    command: Command,
}

fn codec(name: &str) -> Result<Codec, String> {
    let all = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
    let named = all.into_iter().find(|codec| format!("{codec:?}").eq_ignore_ascii_case(name));
    named.ok_or_else(|| "none, gzip, snappy, lz4 or zstd".to_owned())
}

#[derive(Subcommand)]
enum Command {
    /// Produce one batch a request, partition after partition.
    Produce {
        #[command(flatten)]
        common: Common,
        /// Bytes of a batch, about; 0 makes batches of one record.
        #[arg(long, default_value_t = 16384)]
        batch_bytes: usize,
        /// Bytes of a record's value.
        #[arg(long, default_value_t = 1024)]
        record_bytes: usize,
        /// Codec of the batches, of values that it can halve: none, gzip, snappy, lz4 or zstd.
        #[arg(long, default_value = "none", value_parser = codec)]
        codec: Codec,
        /// 1 or -1: without answers nothing could be counted.
        #[arg(long, default_value_t = 1, allow_hyphen_values = true, value_parser = clap::builder::RangedI64ValueParser::<i16>::new().range(-1..=1))]
        acks: i16,
    },
    /// Fetch from the beginning to the high watermark, again and again; connection c reads partition c.
    Fetch {
        #[command(flatten)]
        common: Common,
        /// Bytes asked for by one request.
        #[arg(long, default_value_t = 1 << 20)]
        max_bytes: i32,
        /// Bytes of batches a second, all connections together.
        #[arg(long, conflicts_with = "rate")]
        byte_rate: Option<f64>,
        /// The server's data directory: each connection drops the files of its partition from the page cache before it
        /// reads them again.
        #[arg(long)]
        evict_in: Option<PathBuf>,
    },
    /// Hold connections that do next to nothing.
    Neighbours(neighbours::Neighbours),
    /// Send what no good client sends.
    Hostile(hostile::Hostile),
    /// Start a broker on empty directories, again and again: milliseconds from exec to its first answer, and what is resident.
    Start(start::Start),
    /// Create topics of so many partitions in all, and wait until each has a leader.
    Create {
        #[arg(long)]
        address: SocketAddr,
        /// Topics are named so, with a number.
        #[arg(long, default_value = "load")]
        topic: String,
        #[arg(long)]
        partitions: i32,
        /// Partitions of one topic at most.
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(i32).range(1..))]
        topic_partitions: i32,
    },
}

#[derive(Args, Clone)]
struct Common {
    #[arg(long)]
    address: SocketAddr,
    #[arg(long, default_value = "load")]
    topic: String,
    #[arg(long, default_value_t = 1)]
    partitions: i32,
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Requests of one connection in flight.
    #[arg(long, default_value_t = 8)]
    depth: usize,
    /// Requests a second, all connections together, sent on a schedule; latencies count from the time a request was due.
    #[arg(long)]
    rate: Option<f64>,
    #[arg(long, default_value_t = u64::MAX)]
    requests: u64,
    /// Bytes of batches to produce or fetch.
    #[arg(long, default_value_t = u64::MAX)]
    bytes_total: u64,
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// Answers to wait for before anything is counted.
    #[arg(long, default_value_t = 1000)]
    warm_requests: u64,
    /// Process whose CPU time is read.
    #[arg(long)]
    cpu_of: Option<u32>,
    /// The server knows neither topics nor Metadata: it is a floor.
    #[arg(long)]
    no_metadata: bool,
}

#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    System(#[from] nix::Error),
    #[error("{0}")]
    Wire(#[from] WireError),
    #[error("{0}")]
    Header(#[from] HeaderError),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("the server answered error code {0}")]
    Refused(i16),
    #[error("{0}")]
    Answer(&'static str),
    #[error("no answer within {0:?}")]
    Late(Duration),
}

fn main() {
    let result = match Options::parse().command {
        Command::Produce { common, batch_bytes, record_bytes, codec, acks } => {
            let sizes = produce::Sizes { batch_bytes, record_bytes };
            let workload = produce::Produce::new(&common.topic, common.partitions, sizes, codec, acks);
            let pace = common.rate.map_or(Pace::Closed, Pace::Requests);
            workload.and_then(|workload| run(&common, pace, workload, ANSWER_BYTES_MAX))
        }
        Command::Fetch { common, max_bytes, byte_rate, evict_in } => {
            let Common { partitions, connections, .. } = common;
            let workload = fetch::Fetch::new(&common.topic, partitions, connections, max_bytes, evict_in);
            let pace = byte_rate.map(Pace::Bytes).or(common.rate.map(Pace::Requests)).unwrap_or(Pace::Closed);
            run(&common, pace, workload, ANSWER_BYTES_MAX + usize::try_from(max_bytes).unwrap_or(0))
        }
        Command::Neighbours(neighbours) => neighbours::run(&neighbours),
        Command::Hostile(hostile) => hostile::run(&hostile),
        Command::Start(start) => start::run(&start),
        Command::Create { address, topic, partitions, topic_partitions } => {
            topic::create_many(address, &topic, partitions, topic_partitions)
        }
    };
    match result {
        Ok(report) => println!("{report}"),
        Err(error) => {
            eprintln!("load: {error}");
            std::process::exit(1);
        }
    }
}

/// Bytes of an answer, records apart.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

fn run(
    common: &Common,
    pace: Pace,
    workload: impl client::Workload,
    answer_bytes_max: usize,
) -> Result<String, LoadError> {
    if !common.no_metadata {
        topic::ensure(common.address, &common.topic, common.partitions)?;
    }
    let limits = Limits {
        depth: common.depth,
        pace,
        requests_max: common.requests,
        bytes_max: common.bytes_total,
        time_max: Duration::try_from_secs_f64(common.seconds).unwrap_or(Duration::MAX),
        warm_requests: common.warm_requests,
        answer_bytes_max,
    };
    let client = Client::connect(common.address, common.connections, limits, workload)?;
    Ok(client.run(common.cpu_of)?.to_json())
}
