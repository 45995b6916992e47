//! From flags and `server.properties` to a checked [`Config`].
//!
//! `--set` goes before the file, the file before the defaults. Without a file the defaults are those of one node for
//! oneself: 127.0.0.1, data beside you, internal topics with one replica; with one they are Kafka's.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::base::ids::BrokerId;

use super::connections::check_listeners;
use super::keys::{self, BrokerKey};
use super::topic::InvalidTopicConfig;
use super::value::Value;
use super::{AdminListen, Config, Durability, DynamicConfig, Endpoint, LogFormat, Validation, properties};

/// The largest settings file that is read, in bytes.
pub const CONFIG_FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Submission entries of a shard's ring.
pub const RING_DEPTH_DEFAULT: u32 = 512;

/// Kafka takes 0 and would write the checkpoints without a pause.
const CHECKPOINT_INTERVAL_MS_MIN: i64 = 100;

/// Bytes per shard on their way from the device for cold readers.
pub const COLD_BYTES_MAX_DEFAULT: u64 = 16 * 1024 * 1024;

/// How long an orderly stop may take.
pub const STOP_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// Directories of one broker; each has threads of its own.
const LOG_DIRS_MAX: usize = 64;

/// Listeners of one broker.
const LISTENERS_MAX: usize = 16;

/// What every file system keeps free, unless a twentieth of it is less: enough for the checkpoints, indexes and snapshots
/// of a stop and a start.
pub const DISK_RESERVE_BYTES_DEFAULT: u64 = 256 * 1024 * 1024;

/// What `ringlog serve` was called with.
#[derive(Clone, Debug, Default)]
pub struct ServeOptions {
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--set`, each `name=value`; later ones win.
    pub set: Vec<String>,
    /// `--data`: stands for `log.dirs` and wins over it.
    pub data: Option<PathBuf>,
    pub import: bool,
    pub shards: Option<u16>,
    pub pin: bool,
    pub ring_depth: Option<u32>,
    pub durability: Option<Durability>,
    pub disk_reserve_bytes: Option<u64>,
    pub dirty_bytes_max: Option<u64>,
    pub open_segments_max: Option<u32>,
    pub cold_bytes_max: Option<u64>,
    pub no_cachestat: bool,
    pub validation: Option<Validation>,
    pub rebatch: bool,
    pub admin_listen: AdminListen,
    pub log_level: Option<String>,
    pub log_format: LogFormat,
    pub stop_timeout: Option<Duration>,
}

/// What is wrong with the settings, in one sentence that says what to do.
#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("can't read {}: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("{} is larger than {CONFIG_FILE_BYTES_MAX} bytes; is it a settings file?", .0.display())]
    TooLarge(PathBuf),
    #[error("{}, {error}", path.display())]
    Properties { path: PathBuf, error: properties::BadEscape },
    #[error("--set {0}: write it as name=value")]
    SetSyntax(String),
    #[error("--set {name}: Kafka 3.9 has no such setting{}", meant(*nearest))]
    SetUnknown { name: String, nearest: Option<&'static str> },
    #[error("{name}={value}: {reason}")]
    Value { name: String, value: String, reason: String },
    #[error("{0}")]
    Topic(#[from] InvalidTopicConfig),
    #[error("{0}")]
    Refused(String),
}

impl ConfigError {
    /// 2 for what the operator wrote, 1 for what the machine did not give.
    pub fn exit_code(&self) -> u8 {
        match self {
            ConfigError::Read { .. } => 1,
            _ => 2,
        }
    }
}

fn meant(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!(" (did you mean {name}?)"))
}

impl Config {
    /// Reads and checks all settings.
    pub fn load(options: &ServeOptions) -> Result<Config, ConfigError> {
        let mut warnings = Vec::new();
        let mut named = BTreeMap::new();
        if let Some(path) = &options.config {
            let bytes = read_file(path)?;
            let parsed = properties::parse(&bytes);
            named = parsed.map_err(|error| ConfigError::Properties { path: path.clone(), error })?;
            warnings.extend(unknown_names(path, &named));
        }
        for text in &options.set {
            let (name, value) = text.split_once('=').ok_or_else(|| ConfigError::SetSyntax(text.clone()))?;
            let name = name.trim();
            if !keys::is_known(name) {
                return Err(ConfigError::SetUnknown { name: name.to_owned(), nearest: keys::nearest(name) });
            }
            named.insert(name.to_owned(), value.trim().to_owned());
        }
        if let Some(data) = &options.data {
            named.insert("log.dirs".to_owned(), path_text(data)?);
        }
        let settings = Settings { named, own_node: options.config.is_none() };
        settings.check_all()?;
        warnings.extend(settings.not_applied());
        settings.into_config(options, warnings)
    }
}

/// The text of a file of flags, as arguments: one flag a line, `#` starts a comment.
pub fn read_flag_file(path: &Path) -> Result<Vec<String>, ConfigError> {
    let bytes = read_file(path)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines
        .map(|line| {
            // `shards 2`, `--shards 2` and `--shards=2` are the same.
            let flag = line.strip_prefix("--").unwrap_or(line);
            match flag.split_once(char::is_whitespace) {
                Some((name, value)) if !name.contains('=') => format!("--{name}={}", value.trim()),
                _ => format!("--{flag}"),
            }
        })
        .collect())
}

fn read_file(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let failed = |error| ConfigError::Read { path: path.to_owned(), error };
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(CONFIG_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > CONFIG_FILE_BYTES_MAX) {
        return Err(ConfigError::TooLarge(path.to_owned()));
    }
    Ok(bytes)
}

fn path_text(path: &Path) -> Result<String, ConfigError> {
    let text = path.to_str().filter(|text| !text.contains(','));
    text.map(str::to_owned).ok_or_else(|| {
        ConfigError::Refused(format!("--data {}: the name must be plain text without commas", path.display()))
    })
}

fn unknown_names(path: &Path, named: &BTreeMap<String, String>) -> Vec<String> {
    let unknown = named.keys().filter(|name| !keys::is_known(name));
    unknown
        .map(|name| format!("{}: {name} is not a setting of Kafka 3.9{}", path.display(), meant(keys::nearest(name))))
        .collect()
}

/// What was named, by Kafka's names, over the defaults.
pub(super) struct Settings {
    pub named: BTreeMap<String, String>,
    /// Without a file.
    pub own_node: bool,
}

/// The defaults that differ from Kafka's when there is no file.
pub(super) const OWN_NODE_DEFAULTS: &[(&str, &str)] = &[
    ("broker.id", "1"),
    ("listeners", "PLAINTEXT://127.0.0.1:9092"),
    ("log.dirs", "./ringlog-data"),
    ("offsets.topic.replication.factor", "1"),
    ("transaction.state.log.min.isr", "1"),
    ("transaction.state.log.replication.factor", "1"),
];

impl Settings {
    /// The text of a setting; `None` if it is not set and has no default.
    pub fn text(&self, name: &str) -> Option<&str> {
        if let Some(text) = self.named.get(name) {
            return Some(text.as_str()).filter(|text| !text.is_empty());
        }
        let own = OWN_NODE_DEFAULTS.iter().find(|(own, _)| self.own_node && *own == name);
        let kafkas = || BrokerKey::find(name).expect("in the table").default;
        Some(own.map_or_else(kafkas, |(_, text)| *text)).filter(|text| !text.is_empty())
    }

    pub fn value(&self, name: &str) -> Value {
        let key = BrokerKey::find(name).expect("in the table");
        let text = self.named.get(name).map(String::as_str).unwrap_or_else(|| self.text(name).unwrap_or_default());
        key.kind.parse(text).expect("checked before, or a default")
    }

    pub fn int(&self, name: &str) -> i32 {
        self.value(name).int()
    }

    fn short(&self, name: &str) -> i16 {
        i16::try_from(self.int(name)).expect("the table bounds it")
    }

    /// For settings whose least value is not negative.
    pub fn unsigned(&self, name: &str) -> u32 {
        u32::try_from(self.int(name)).expect("the table bounds it")
    }

    fn checkpoint_ms(&self, name: &str) -> u64 {
        u64::try_from(self.value(name).number().max(CHECKPOINT_INTERVAL_MS_MIN)).expect("above 0")
    }

    /// For times whose least value is not negative.
    fn milliseconds(&self, name: &str) -> u64 {
        u64::try_from(self.value(name).number()).expect("the table bounds it")
    }

    fn bool(&self, name: &str) -> bool {
        self.value(name).bool()
    }

    /// `None` if not named: then the kernel decides.
    fn buffer(&self, name: &str) -> Option<u32> {
        self.named.get(name)?;
        u32::try_from(self.int(name)).ok()
    }

    /// Each value as its own kind, applied or not.
    fn check_all(&self) -> Result<(), ConfigError> {
        for (name, text) in &self.named {
            let Some(key) = BrokerKey::find(name) else { continue };
            key.parse(text).map_err(|reason| invalid(name, text, reason))?;
        }
        Ok(())
    }

    /// Names that are set to something else than Kafka's default and change nothing yet.
    fn not_applied(&self) -> Option<String> {
        let names: Vec<&str> = self
            .named
            .iter()
            .filter(|(name, text)| match BrokerKey::find(name) {
                Some(key) => !key.applied && text.trim() != key.default,
                None => keys::is_known(name),
            })
            .map(|(name, _)| name.as_str())
            .collect();
        (!names.is_empty()).then(|| format!("not applied yet: {}", names.join(", ")))
    }

    fn into_config(self, options: &ServeOptions, warnings: Vec<String>) -> Result<Config, ConfigError> {
        self.refuse_other_modes()?;
        let broker_id = self.broker_id()?;
        let listeners = self.listeners()?;
        let advertised_listeners = self.advertised_listeners(&listeners)?;
        let log_dirs = self.log_dirs()?;
        let dynamic = Arc::new(DynamicConfig::fixed(&self, &listeners)?);
        Ok(Config {
            broker_id,
            broker_rack: self.text("broker.rack").map(Arc::from),
            listeners,
            advertised_listeners,
            log_dirs,
            num_partitions: self.int("num.partitions"),
            default_replication_factor: self.short("default.replication.factor"),
            auto_create_topics_enable: self.bool("auto.create.topics.enable"),
            delete_topic_enable: self.bool("delete.topic.enable"),
            offsets_topic_num_partitions: self.int("offsets.topic.num.partitions"),
            offsets_topic_replication_factor: self.short("offsets.topic.replication.factor"),
            offsets_topic_segment_bytes: self.int("offsets.topic.segment.bytes"),
            transaction_state_log_num_partitions: self.int("transaction.state.log.num.partitions"),
            transaction_state_log_replication_factor: self.short("transaction.state.log.replication.factor"),
            transaction_state_log_min_isr: self.int("transaction.state.log.min.isr"),
            transaction_state_log_segment_bytes: self.int("transaction.state.log.segment.bytes"),
            max_incremental_fetch_session_cache_slots: self.unsigned("max.incremental.fetch.session.cache.slots"),
            socket_request_max_bytes: self.unsigned("socket.request.max.bytes"),
            fetch_max_bytes: self.unsigned("fetch.max.bytes"),
            log_flush_offset_checkpoint_interval_ms: self.checkpoint_ms("log.flush.offset.checkpoint.interval.ms"),
            log_flush_start_offset_checkpoint_interval_ms: self
                .checkpoint_ms("log.flush.start.offset.checkpoint.interval.ms"),
            log_cleaner_enable: self.bool("log.cleaner.enable"),
            log_initial_task_delay_ms: self.milliseconds("log.initial.task.delay.ms"),
            log_retention_check_interval_ms: self.milliseconds("log.retention.check.interval.ms"),
            replica_high_watermark_checkpoint_interval_ms: self
                .checkpoint_ms("replica.high.watermark.checkpoint.interval.ms"),
            queued_max_requests: self.unsigned("queued.max.requests"),
            socket_listen_backlog_size: self.unsigned("socket.listen.backlog.size"),
            socket_send_buffer_bytes: self.buffer("socket.send.buffer.bytes"),
            socket_receive_buffer_bytes: self.buffer("socket.receive.buffer.bytes"),
            connections_max_idle: u64::try_from(self.value("connections.max.idle.ms").number())
                .ok()
                .map(Duration::from_millis),
            dynamic,
            import: options.import,
            shards: options.shards.unwrap_or_else(cores),
            pin: options.pin,
            ring_depth: options.ring_depth.unwrap_or(RING_DEPTH_DEFAULT),
            durability: options.durability.unwrap_or(Durability::PageCache),
            disk_reserve_bytes: options.disk_reserve_bytes.unwrap_or(DISK_RESERVE_BYTES_DEFAULT),
            dirty_bytes_max: options.dirty_bytes_max,
            open_segments_max: options.open_segments_max,
            cold_bytes_max: options.cold_bytes_max.unwrap_or(COLD_BYTES_MAX_DEFAULT),
            cachestat: !options.no_cachestat,
            validation: options.validation.unwrap_or(Validation::Header),
            rebatch: options.rebatch,
            admin_listen: options.admin_listen,
            log_level: options.log_level.clone(),
            log_format: options.log_format,
            stop_timeout: options.stop_timeout.unwrap_or(STOP_TIMEOUT_DEFAULT),
            warnings,
        })
    }

    /// A node of its own on the directory of a cluster's broker would silently split from it.
    fn refuse_other_modes(&self) -> Result<(), ConfigError> {
        if let Some(connect) = self.text("zookeeper.connect") {
            return Err(ConfigError::Refused(format!(
                "zookeeper.connect={connect}: joining a ZooKeeper cluster is not supported yet; to run one node with \
                 metadata of its own, take the setting out (or --set zookeeper.connect=)"
            )));
        }
        if self.text("process.roles").is_some() {
            return Err(ConfigError::Refused(
                "process.roles: KRaft is not supported; ringlog runs as a broker in ZooKeeper mode or as one node"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    fn broker_id(&self) -> Result<BrokerId, ConfigError> {
        let (id, reserved) = (self.int("broker.id"), self.int("reserved.broker.max.id"));
        if id < 0 {
            if !self.bool("broker.id.generation.enable") {
                return Err(invalid(
                    "broker.id",
                    &id.to_string(),
                    "set it, or allow broker.id.generation.enable".into(),
                ));
            }
            // The first id Kafka would generate; one node needs no second.
            return Ok(BrokerId(reserved.saturating_add(1)));
        }
        if id > reserved {
            let reason = format!("must be from 0 to reserved.broker.max.id ({reserved})");
            return Err(invalid("broker.id", &id.to_string(), reason));
        }
        Ok(BrokerId(id))
    }

    fn listeners(&self) -> Result<Vec<Endpoint>, ConfigError> {
        let text = self.text("listeners").unwrap_or_default();
        let endpoints = parse_endpoints("listeners", text)?;
        if endpoints.is_empty() || endpoints.len() > LISTENERS_MAX {
            return Err(invalid("listeners", text, format!("name 1 to {LISTENERS_MAX} listeners")));
        }
        check_listeners(&endpoints).map_err(|reason| invalid("listeners", text, reason))?;
        for endpoint in &endpoints {
            let protocol = self.protocol(&endpoint.listener)?;
            if protocol != "PLAINTEXT" {
                let reason = format!("{protocol} is not supported yet; use PLAINTEXT listeners");
                return Err(invalid("listeners", text, reason));
            }
        }
        Ok(endpoints)
    }

    /// The security protocol of a listener: mapped, or named like it.
    fn protocol(&self, listener: &str) -> Result<String, ConfigError> {
        let name = "listener.security.protocol.map";
        let map = self.text(name).unwrap_or_default();
        for entry in map.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let (from, to) = entry
                .split_once(':')
                .ok_or_else(|| invalid(name, map, "write it as LISTENER:PROTOCOL, with commas between".to_owned()))?;
            if from.trim().eq_ignore_ascii_case(listener) {
                return Ok(to.trim().to_ascii_uppercase());
            }
        }
        let known = ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"];
        if !map.is_empty() || !known.contains(&listener) {
            let reason = format!("no security protocol is mapped to listener {listener}");
            return Err(invalid(name, map, reason));
        }
        Ok(listener.to_owned())
    }

    fn advertised_listeners(&self, listeners: &[Endpoint]) -> Result<Vec<Endpoint>, ConfigError> {
        let name = "advertised.listeners";
        let text = self.text(name).unwrap_or_default();
        let mut advertised = parse_endpoints(name, text)?;
        if advertised.is_empty() {
            advertised = listeners.to_vec();
        }
        let mut names = BTreeSet::new();
        for endpoint in &mut advertised {
            let reason = if !listeners.iter().any(|listener| listener.listener == endpoint.listener) {
                format!("listener {} is not in listeners", endpoint.listener)
            } else if !names.insert(Arc::clone(&endpoint.listener)) {
                format!("listener {} is there twice", endpoint.listener)
            } else if ["0.0.0.0", "::"].contains(&&*endpoint.host) {
                "clients can't connect to it; set advertised.listeners to an address they can reach".to_owned()
            } else {
                if endpoint.host.is_empty() {
                    endpoint.host = host_name()?.into();
                }
                continue;
            };
            return Err(invalid(name, &endpoint.to_string(), reason));
        }
        Ok(advertised)
    }

    fn log_dirs(&self) -> Result<Vec<PathBuf>, ConfigError> {
        let text = self.text("log.dirs").or_else(|| self.text("log.dir")).unwrap_or_default();
        let mut directories: Vec<PathBuf> = Vec::new();
        for path in text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(PathBuf::from) {
            if let Some(other) = directories.iter().find(|other| path.starts_with(other) || other.starts_with(&path)) {
                let reason = format!("{} and {} are one inside the other", other.display(), path.display());
                return Err(invalid("log.dirs", text, reason));
            }
            directories.push(path);
        }
        match directories.len() {
            0 => Err(invalid("log.dirs", text, "name a directory".to_owned())),
            1..=LOG_DIRS_MAX => Ok(directories),
            _ => Err(invalid("log.dirs", text, format!("at most {LOG_DIRS_MAX} directories"))),
        }
    }
}

fn parse_endpoints(name: &str, text: &str) -> Result<Vec<Endpoint>, ConfigError> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let endpoint = Endpoint::parse(part);
            let reason = || format!("{part} is no listener; write it as PLAINTEXT://host:port");
            let endpoint = endpoint.ok_or_else(|| invalid(name, text, reason()))?;
            // Kafka compares listener names in upper case (`ListenerName.normalised`).
            Ok(Endpoint { listener: endpoint.listener.to_uppercase().into(), ..endpoint })
        })
        .collect()
}

pub(super) fn invalid(name: &str, value: &str, reason: String) -> ConfigError {
    ConfigError::Value { name: name.to_owned(), value: value.to_owned(), reason }
}

fn host_name() -> Result<String, ConfigError> {
    let path = Path::new("/proc/sys/kernel/hostname");
    let text = fs::read_to_string(path).map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
    Ok(text.trim().to_owned())
}

/// Cores this process may use.
fn cores() -> u16 {
    std::thread::available_parallelism().map_or(1, |cores| u16::try_from(cores.get()).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests;
