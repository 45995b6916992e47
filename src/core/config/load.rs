//! From flags and `server.properties` to a checked [`Config`].
//!
//! `--set` goes before the file, the file before the defaults. Without a file the defaults are those of one node for
//! oneself: 127.0.0.1, data beside you, internal topics with one replica; with one they are Kafka's.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::base::ids::BrokerId;

use super::dynamic::is_changeable;
use super::keys::{self, BrokerKey};
use super::listeners::Listeners;
use super::topic::InvalidTopicConfig;
use super::value::Value;
use super::{AdminListen, Config, Durability, DynamicConfig, LogFormat, Validation, properties};

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

/// What every file system keeps free, unless a twentieth of it is less: enough for the checkpoints, indexes and snapshots
/// of a stop and a start.
pub const DISK_RESERVE_BYTES_DEFAULT: u64 = 256 * 1024 * 1024;
pub const UNFLUSHED_BYTES_MAX_DEFAULT: u64 = 2 * 1024 * 1024 * 1024;

/// What `ringlog serve` was called with.
#[derive(Clone, Debug, Default)]
pub struct ServeOptions {
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--set`, each `name=value`; later ones win.
    pub set: Vec<String>,
    /// `--override`, each `name=value`; later ones win.
    pub overrides: Vec<String>,
    /// `--data`: stands for `log.dirs` and wins over it.
    pub data: Option<PathBuf>,
    pub import: bool,
    pub shards: Option<u16>,
    pub pin: bool,
    pub ring_depth: Option<u32>,
    pub durability: Option<Durability>,
    pub disk_reserve_bytes: Option<u64>,
    pub dirty_bytes_max: Option<u64>,
    pub unflushed_bytes_max: Option<u64>,
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
    #[error("{flag} {text}: write it as name=value")]
    FlagSyntax { flag: &'static str, text: String },
    #[error("{flag} {name}: Kafka 3.9 has no such setting{}", meant(*nearest))]
    FlagUnknown { flag: &'static str, name: String, nearest: Option<&'static str> },
    #[error("--override {0}: it can't change while the broker runs, so nothing stands over it; use --set")]
    NotDynamic(String),
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
            let (name, value) = known_setting("--set", text)?;
            named.insert(name, value);
        }
        let overrides = overrides(&options.overrides)?;
        if let Some(data) = &options.data {
            named.insert("log.dirs".to_owned(), path_text(data)?);
        }
        let mut settings = Settings { named };
        if options.config.is_none() {
            settings.add_own_node_defaults();
        }
        settings.into_config(options, overrides, warnings)
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

/// The name and the value of a flag's `name=value`.
fn known_setting(flag: &'static str, text: &str) -> Result<(String, String), ConfigError> {
    let syntax = || ConfigError::FlagSyntax { flag, text: text.to_owned() };
    let (name, value) = text.split_once('=').ok_or_else(syntax)?;
    let name = name.trim().to_owned();
    if !keys::is_known(&name) {
        return Err(ConfigError::FlagUnknown { flag, nearest: keys::nearest(&name), name });
    }
    Ok((name, value.trim().to_owned()))
}

/// What stands over dynamic settings: only what can be one.
fn overrides(texts: &[String]) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut overrides = BTreeMap::new();
    for text in texts {
        let (name, value) = known_setting("--override", text)?;
        if !is_changeable(&name) {
            return Err(ConfigError::NotDynamic(name));
        }
        let key = BrokerKey::find(keys::without_listener(&name)).expect("changeable, so in the table");
        key.kind.parse(&value).map_err(|reason| invalid(&name, &value, reason))?;
        overrides.insert(name, value);
    }
    Ok(overrides)
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
}

/// The defaults that differ from Kafka's when there is no file.
const OWN_NODE_DEFAULTS: &[(&str, &str)] = &[
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
        let default = || BrokerKey::find(name).expect("in the table").default;
        Some(self.named.get(name).map_or_else(default, String::as_str)).filter(|text| !text.is_empty())
    }

    /// What nobody named: also not by another name for the same.
    fn add_own_node_defaults(&mut self) {
        for (name, value) in OWN_NODE_DEFAULTS {
            let other_name = match *name {
                "broker.id" => "node.id",
                "log.dirs" => "log.dir",
                name => name,
            };
            if !self.named.contains_key(*name) && !self.named.contains_key(other_name) {
                self.named.insert((*name).to_owned(), (*value).to_owned());
            }
        }
    }

    /// Two names for one thing: who sets one sets both (Kafka 3.9 `KafkaConfig.populateSynonyms`).
    fn add_partners(&mut self) {
        for (set, other) in [("broker.id", "node.id"), ("node.id", "broker.id")] {
            if let (Some(value), None) = (self.named.get(set), self.named.get(other)) {
                self.named.insert(other.to_owned(), value.clone());
            }
        }
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
            key.kind.parse(text).map_err(|reason| invalid(name, text, reason))?;
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

    pub fn into_config(
        mut self,
        options: &ServeOptions,
        overrides: BTreeMap<String, String>,
        mut warnings: Vec<String>,
    ) -> Result<Config, ConfigError> {
        self.add_partners();
        self.check_all()?;
        warnings.extend(self.not_applied());
        self.refuse_other_modes()?;
        let broker_id = self.broker_id()?;
        let Listeners { listeners, advertised: advertised_listeners } = Listeners::of(&self)?;
        let log_dirs = self.log_dirs()?;
        let dynamic = Arc::new(DynamicConfig::fixed(&self, &listeners, overrides)?);
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
            replica_lag_time_max_ms: u64::try_from(self.value("replica.lag.time.max.ms").number()).unwrap_or(0),
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
            unflushed_bytes_max: options.unflushed_bytes_max.unwrap_or(UNFLUSHED_BYTES_MAX_DEFAULT),
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
        if self.bool("zookeeper.metadata.migration.enable") {
            let reason = "ringlog takes no part in the migration to KRaft".to_owned();
            return Err(invalid("zookeeper.metadata.migration.enable", "true", reason));
        }
        Ok(())
    }

    /// Bounded only where ids are generated above the bound (Kafka 3.9 `KafkaConfig.validateValues`): ids made from
    /// addresses are larger.
    fn broker_id(&self) -> Result<BrokerId, ConfigError> {
        let (id, node_id, reserved) = (self.int("broker.id"), self.int("node.id"), self.int("reserved.broker.max.id"));
        let refuse = |reason: String| Err(invalid("broker.id", &id.to_string(), reason));
        if id != node_id {
            return refuse(format!("must be the same as node.id ({node_id})"));
        }
        match self.bool("broker.id.generation.enable") {
            true if !(-1..=reserved).contains(&id) => refuse(format!(
                "must be from 0 to reserved.broker.max.id ({reserved}), or -1, unless broker.id.generation.enable=false"
            )),
            false if id < 0 => refuse("set it, or allow broker.id.generation.enable".to_owned()),
            // The first id Kafka would generate; one node needs no second.
            _ if id < 0 => Ok(BrokerId(reserved.saturating_add(1))),
            _ => Ok(BrokerId(id)),
        }
    }

    fn log_dirs(&self) -> Result<Vec<PathBuf>, ConfigError> {
        // Set to nothing is set: Kafka does not fall back to log.dir then.
        let text = match self.named.get("log.dirs") {
            Some(text) => text,
            None => self.text("log.dir").unwrap_or_default(),
        };
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

pub(super) fn invalid(name: &str, value: &str, reason: String) -> ConfigError {
    ConfigError::Value { name: name.to_owned(), value: value.to_owned(), reason }
}

/// Cores this process may use.
fn cores() -> u16 {
    std::thread::available_parallelism().map_or(1, |cores| u16::try_from(cores.get()).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests;
