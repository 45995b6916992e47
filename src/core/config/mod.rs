//! Every setting of the process: Kafka's name, type, unit, default and check in one place, and the only reader of files
//! and environment. Read once, checked as a whole, passed down by value.

#![forbid(unsafe_code)]

pub mod connections;
pub mod describe;
pub mod dynamic;
#[cfg(test)]
mod golden;
pub mod keys;
mod listeners;
pub mod load;
pub mod properties;
mod rules;
pub mod topic;
pub mod value;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::base::ids::BrokerId;

pub use connections::ConnectionQuotaLimits;
pub use dynamic::DynamicConfig;
pub use load::{ConfigError, ServeOptions};
pub use topic::TopicConfig;

/// A listener or an advertised endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The listener's name, such as `PLAINTEXT`.
    pub listener: Arc<str>,
    /// A host name or an address, without the brackets of IPv6. Empty in `listeners`: all interfaces.
    pub host: Arc<str>,
    pub port: u16,
}

impl Endpoint {
    /// Reads `NAME://host:port`, the host in brackets if it is an IPv6 address; `None` if it is anything else.
    pub fn parse(text: &str) -> Option<Endpoint> {
        let (listener, address) = text.split_once("://")?;
        let (host, port) = address.rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host);
        if listener.is_empty() {
            return None;
        }
        // A sign would be read as part of the number.
        let port = Some(port).filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()))?;
        Some(Endpoint { listener: listener.into(), host: host.into(), port: port.parse().ok()? })
    }
}

impl fmt::Display for Endpoint {
    /// The text that [`Endpoint::parse`] reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "{}://[{}]:{}", self.listener, self.host, self.port)
        } else {
            write!(f, "{}://{}:{}", self.listener, self.host, self.port)
        }
    }
}

/// What an acknowledgement promises (`--durability`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The bytes are in the page cache: they survive the process, not the machine's power.
    PageCache,
    /// The bytes are on the disk.
    Fsync,
}

/// How far a batch is checked on arrival (`--validate`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validation {
    /// By its header; records inside compressed batches where an answer depends on them, or the header is not plausible.
    Header,
    /// By every record, always.
    Full,
}

/// How a line of the log looks (`--log-format`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// Where the admin port listens (`--admin-listen`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AdminListen {
    /// On [`AdminListen::DEFAULT_ADDRESS`], or nowhere if that is in use.
    #[default]
    Default,
    At(SocketAddr),
    Off,
}

impl AdminListen {
    /// A port that no common service has, on this machine only.
    pub const DEFAULT_ADDRESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9644));
}

/// The settings of one broker process. Kafka's settings keep Kafka's spelling, with `_` for `.`; sizes are bytes, times
/// milliseconds.
#[derive(Clone, Debug)]
pub struct Config {
    pub broker_id: BrokerId,
    pub broker_rack: Option<Arc<str>>,
    /// `listeners`: where to listen, PLAINTEXT. At least one.
    pub listeners: Vec<Endpoint>,
    /// `advertised.listeners`: what clients of some of the listeners are told. A port is 0 only if the listener's is: the bound
    /// one is told then.
    pub advertised_listeners: Vec<Endpoint>,
    /// `log.dirs`, at least one. The first also holds the metadata tree.
    pub log_dirs: Vec<PathBuf>,

    pub num_partitions: i32,
    pub default_replication_factor: i16,
    pub auto_create_topics_enable: bool,
    pub delete_topic_enable: bool,
    pub offsets_topic_num_partitions: i32,
    pub offsets_topic_replication_factor: i16,
    pub offsets_topic_segment_bytes: i32,
    pub transaction_state_log_num_partitions: i32,
    pub transaction_state_log_replication_factor: i16,
    pub transaction_state_log_min_isr: i32,
    pub transaction_state_log_segment_bytes: i32,

    /// Of all shards together.
    pub max_incremental_fetch_session_cache_slots: u32,
    pub socket_request_max_bytes: u32,
    pub fetch_max_bytes: u32,
    pub log_flush_offset_checkpoint_interval_ms: u64,
    pub log_flush_start_offset_checkpoint_interval_ms: u64,
    pub log_cleaner_enable: bool,
    pub log_initial_task_delay_ms: u64,
    pub log_retention_check_interval_ms: u64,
    pub replica_high_watermark_checkpoint_interval_ms: u64,
    pub replica_lag_time_max_ms: u64,
    pub queued_max_requests: u32,
    pub socket_listen_backlog_size: u32,
    /// `None`: the kernel tunes it, unless `server.properties` names it.
    pub socket_send_buffer_bytes: Option<u32>,
    pub socket_receive_buffer_bytes: Option<u32>,
    /// `connections.max.idle.ms`; `None`: an idle connection is kept for ever.
    pub connections_max_idle: Option<Duration>,

    /// The settings that may change while the broker runs, as the start finds them in files and flags. What they are now
    /// is in the image: `handlers::Context::dynamic`.
    pub dynamic: Arc<DynamicConfig>,

    /// `--import`: make the metadata tree from the directory that Kafka left.
    pub import: bool,
    /// `--shards`.
    pub shards: u16,
    /// `--pin`: each shard on a core of its own.
    pub pin: bool,
    /// `--ring-depth`: submission entries of a shard's ring.
    pub ring_depth: u32,
    pub durability: Durability,
    /// `--disk-reserve`: bytes that a file system must have free for produce to be taken.
    pub disk_reserve_bytes: u64,
    /// `--dirty-bytes-max`: bytes that all log directories together may have in memory, not yet written to the device;
    /// `None`: what the kernel's thresholds allow.
    pub dirty_bytes_max: Option<u64>,
    /// `--unflushed-bytes-max`: appended bytes that each log directory may have that are not flushed; a start after a power
    /// cut reads them again.
    pub unflushed_bytes_max: u64,
    /// `--open-segments-max`: segments whose files all shards together keep open; `None`: a quarter of the limit of open files.
    pub open_segments_max: Option<u32>,
    /// `--cold-bytes-max`: bytes per shard that may be on their way from the device for cold readers.
    pub cold_bytes_max: u64,
    /// Not `--no-cachestat`: `cachestat(2)` says what is resident, where the kernel has it.
    pub cachestat: bool,
    pub validation: Validation,
    /// `--rebatch`: small batches that meet in one append become one.
    pub rebatch: bool,
    pub admin_listen: AdminListen,
    /// `--log-level`: a filter of the log; `None`: the environment's, or info.
    pub log_level: Option<String>,
    pub log_format: LogFormat,
    /// `--stop-timeout`: how long an orderly stop may take.
    pub stop_timeout: Duration,

    /// What to say at start: unknown names, settings that are not applied yet.
    pub warnings: Vec<String>,
}
