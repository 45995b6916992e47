//! `ringlog serve`: flags to settings.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};

use ringlog_tools::arguments::bytes;

use crate::config::load::{
    COLD_BYTES_MAX_DEFAULT, DISK_RESERVE_BYTES_DEFAULT, RING_DEPTH_DEFAULT, UNFLUSHED_BYTES_MAX_DEFAULT,
    read_flag_file as read_lines,
};
use crate::config::{AdminListen, ConfigError, Durability, LogFormat, ServeOptions, Validation};

/// Shards of one process at most: more cores than a machine has today.
const SHARDS_MAX: i64 = 1024;

/// With fewer, busy shards would open and close files all the time.
const OPEN_SEGMENTS_MIN: i64 = 16;

/// Bounds of `--stop-timeout`.
const STOP_TIMEOUT_MIN: Duration = Duration::from_millis(100);
const STOP_TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// What the kernel allows a ring to have.
const RING_DEPTH_MAX: u32 = 32_768;

const EXAMPLES: &str = "\
Examples:
  ringlog serve
      One node for yourself: 127.0.0.1:9092, data in ./ringlog-data.
  ringlog serve --set listeners=PLAINTEXT://0.0.0.0:9092 --set advertised.listeners=PLAINTEXT://kafka.lan:9092
      The same, for other machines.
  ringlog serve --import --data /var/lib/kafka
      The topics of a Kafka 3.9 that ran on this directory, once; later starts without --import.
  ringlog serve --config server.properties --flagfile ringlog.flags
      Kafka's settings from Kafka's file, ringlog's own from a file of flags.

Kafka's settings keep Kafka's names and go into server.properties or --set; --set wins. What clients have changed while the
broker ran goes before both, and --override before that. A flag file has one flag a line
(`shards 4`), # starts a comment, and the command line wins.";

/// Run a broker.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct ServeArguments {
    /// Kafka's server.properties; without it the defaults are those of one node for yourself
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// A file of these flags, one a line
    #[arg(long, value_name = "FILE")]
    pub flagfile: Option<PathBuf>,

    /// One of Kafka's settings; may be given many times
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,

    /// A setting that clients can change, as it is to be for this run whatever they have set: the way back in where a
    /// limit shuts everybody out; may be given many times
    #[arg(long = "override", value_name = "NAME=VALUE")]
    pub overrides: Vec<String>,

    /// The data directory; the same as --set log.dirs=DIR, which also takes several, with commas
    #[arg(long, value_name = "DIR", overrides_with = "data")]
    pub data: Option<PathBuf>,

    /// Take over a data directory that Kafka 3.9 left, once: makes ringlog's metadata from what is in it
    #[arg(long, overrides_with = "import")]
    pub import: bool,

    /// Threads that serve, each with connections, partitions and an io_uring of its own [default: the cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=SHARDS_MAX), overrides_with = "shards")]
    pub shards: Option<u16>,

    /// Hold each shard to a core of its own
    #[arg(long, overrides_with = "pin")]
    pub pin: bool,

    /// Submission entries of a shard's ring, a power of two
    #[arg(long, value_name = "N", value_parser = ring_depth, default_value_t = RING_DEPTH_DEFAULT, overrides_with = "ring_depth")]
    pub ring_depth: u32,

    /// What an acknowledgement promises. page-cache: safe from a crash of ringlog, not of the machine; fsync: on the disk
    #[arg(
        long,
        value_name = "MODE",
        value_parser = durability,
        default_value = "page-cache",
        overrides_with = "durability"
    )]
    pub durability: Durability,

    /// Bytes that a file system must have free for produce to be taken, unless a twentieth of it is less
    #[arg(long, value_name = "BYTES", value_parser = bytes, default_value_t = DISK_RESERVE_BYTES_DEFAULT, overrides_with = "disk_reserve")]
    pub disk_reserve: u64,

    /// Appended bytes that may wait in memory for the disks, all directories together [default: half of what the kernel
    /// lets gather before it writes back by itself]
    #[arg(long, value_name = "BYTES", value_parser = bytes, overrides_with = "dirty_bytes_max")]
    pub dirty_bytes_max: Option<u64>,

    /// Appended bytes of each log directory that need not be flushed yet: a start after a power cut reads and checks them,
    /// which takes as long as the disk needs for that
    #[arg(long, value_name = "BYTES", value_parser = bytes, default_value_t = UNFLUSHED_BYTES_MAX_DEFAULT, overrides_with = "unflushed_bytes_max")]
    pub unflushed_bytes_max: u64,

    /// Segments whose files are kept open, all shards together [default: a quarter of the limit of open files]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(OPEN_SEGMENTS_MIN..), overrides_with = "open_segments_max")]
    pub open_segments_max: Option<u32>,

    /// Bytes per shard that cold readers may have on their way from the disk
    #[arg(long, value_name = "BYTES", value_parser = bytes, default_value_t = COLD_BYTES_MAX_DEFAULT, overrides_with = "cold_bytes_max")]
    pub cold_bytes_max: u64,

    /// Do not ask cachestat(2) what is in the page cache (Linux before 6.5 has none); read to find out instead
    #[arg(long, overrides_with = "no_cachestat")]
    pub no_cachestat: bool,

    /// How far compressed batches are checked on arrival
    #[arg(long, value_name = "HOW", default_value = "header", overrides_with = "validate")]
    pub validate: ValidateFlag,

    /// Make one batch of small ones that meet at a partition, in the topic's compression.type or the first one's codec:
    /// fewer bytes for many small producers, at the price of a work thread's time and of latency. Batches of idempotent
    /// and transactional producers stay as they are
    #[arg(long, overrides_with = "rebatch")]
    pub rebatch: bool,

    /// Where /metrics, /healthz and /readyz are served, over HTTP without authentication: IP:PORT (port 0: a free one,
    /// which the banner names), or none [default: 127.0.0.1:9644, unless it is in use]
    #[arg(long, value_name = "ADDRESS", value_parser = admin_listen, overrides_with = "admin_listen")]
    pub admin_listen: Option<AdminListen>,

    /// What is logged: error, warn, info, debug, trace, or off; for a part of the broker as TARGET=LEVEL, several with
    /// commas. `info,ringlog::request=debug` has a line for each request [default: the environment's RINGLOG_LOG, or
    /// info]
    #[arg(long, value_name = "LEVEL", value_parser = log_level, overrides_with = "log_level")]
    pub log_level: Option<String>,

    /// How a line of the log looks
    #[arg(long, value_name = "FORMAT", default_value = "text", overrides_with = "log_format")]
    pub log_format: LogFormatFlag,

    /// How long an orderly stop may take: 30s, 2m, 500ms. Half of it is for requests that are under way, all of it for
    /// them and for writing and closing the logs; then the process ends as it is, and the next start recovers
    #[arg(
        long,
        value_name = "TIME",
        value_parser = time,
        default_value = "30s",
        overrides_with = "stop_timeout"
    )]
    pub stop_timeout: Duration,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormatFlag {
    /// For people; with colours on a terminal
    Text,
    /// One object a line: ts, level, target, message, and the fields beside them
    Json,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ValidateFlag {
    /// By their headers, and by their records where an answer depends on them or a header is not plausible
    Header,
    /// By every record of every batch, as Kafka does
    Full,
}

impl ServeArguments {
    pub fn into_options(self) -> ServeOptions {
        ServeOptions {
            config: self.config,
            set: self.set,
            overrides: self.overrides,
            data: self.data,
            import: self.import,
            shards: self.shards,
            pin: self.pin,
            ring_depth: Some(self.ring_depth),
            durability: Some(self.durability),
            disk_reserve_bytes: Some(self.disk_reserve),
            dirty_bytes_max: self.dirty_bytes_max,
            unflushed_bytes_max: Some(self.unflushed_bytes_max),
            open_segments_max: self.open_segments_max,
            cold_bytes_max: Some(self.cold_bytes_max),
            no_cachestat: self.no_cachestat,
            validation: Some(match self.validate {
                ValidateFlag::Header => Validation::Header,
                ValidateFlag::Full => Validation::Full,
            }),
            rebatch: self.rebatch,
            admin_listen: self.admin_listen.unwrap_or_default(),
            log_level: self.log_level,
            log_format: match self.log_format {
                LogFormatFlag::Text => LogFormat::Text,
                LogFormatFlag::Json => LogFormat::Json,
            },
            stop_timeout: Some(self.stop_timeout),
        }
    }
}

/// The flags of a file, as arguments.
pub fn read_flag_file(path: &Path) -> Result<Vec<String>, ConfigError> {
    let flags = read_lines(path)?;
    if flags.iter().any(|flag| flag.starts_with("--flagfile")) {
        let message = format!("{}: a flag file can't name another one; put all flags into one file", path.display());
        return Err(ConfigError::Refused(message));
    }
    Ok(flags)
}

fn durability(text: &str) -> Result<Durability, String> {
    match text {
        "page-cache" => Ok(Durability::PageCache),
        "fsync" => Ok(Durability::Fsync),
        _ => Err("must be page-cache or fsync".to_owned()),
    }
}

fn admin_listen(text: &str) -> Result<AdminListen, String> {
    match text {
        "none" => Ok(AdminListen::Off),
        _ => text.parse().map(AdminListen::At).map_err(|_| {
            let example = AdminListen::DEFAULT_ADDRESS;
            format!("write it as IP:PORT, such as {example} or [::1]:{}, or as none", example.port())
        }),
    }
}

fn ring_depth(text: &str) -> Result<u32, String> {
    let depth = text.parse().ok().filter(|depth: &u32| depth.is_power_of_two() && (8..=RING_DEPTH_MAX).contains(depth));
    depth.ok_or_else(|| format!("must be a power of two from 8 to {RING_DEPTH_MAX}"))
}

fn log_level(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    // A filter takes any word for a target: what is meant as a level has to be one.
    let is_level = |word: &str| LEVELS.contains(&word.to_ascii_lowercase().as_str());
    let wrong = text.split(',').map(str::trim).find(|part| match part.split_once('=') {
        Some((target, level)) => target.is_empty() || !is_level(level),
        None => !is_level(part),
    });
    match wrong {
        Some(wrong) => Err(format!("{wrong:?} is none of {}, nor TARGET=LEVEL", LEVELS.join(", "))),
        None => Ok(text.to_owned()),
    }
}

/// A time as `30s`, `2m` or `500ms`; a bare number is seconds.
fn time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|character: char| !character.is_ascii_digit());
    let unit_ms = match &text[digits.len()..] {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        _ => 0,
    };
    let time = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_ms)).map(Duration::from_millis);
    let fits = time.filter(|time| (STOP_TIMEOUT_MIN..=STOP_TIMEOUT_MAX).contains(time));
    fits.ok_or_else(|| "write it as 30s, 2m or 500ms, from 100ms to 60m".to_owned())
}
