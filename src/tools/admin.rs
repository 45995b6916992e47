//! What more than one tool asks of a cluster, and the sentences for what may go wrong with it.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::ops::RangeInclusive;
use std::thread;
use std::time::{Duration, Instant};

use super::connect::{Client, To};
use super::failure::{Failure, describe};
use crate::client::Request;
use crate::client::cluster::{Topic, look_again, nearest};
use crate::protocol::message as m;
use crate::protocol::{ApiKey, ErrorCode};

/// ListOffsets' question for the end, and for the beginning.
pub const LATEST: i64 = -1;
pub const EARLIEST: i64 = -2;

/// Before a question that another broker should answer is put again.
const RETRY_WAIT: Duration = Duration::from_millis(20);

/// A partition by its topic's name.
pub type Place = (String, i32);

/// The topics of these names.
pub fn topics(client: &mut Client, names: &[String]) -> Result<Vec<Topic>, Failure> {
    client.look(Some(names))?;
    let mut found = Vec::new();
    for name in names {
        if let Some(topic) = client.cluster.topics.get(name) {
            found.push(topic.clone());
            continue;
        }
        let code = client.cluster.refused.get(name).copied().unwrap_or(ErrorCode::UnknownTopicOrPartition.code());
        return Err(match ErrorCode::from_code(code) {
            Some(ErrorCode::UnknownTopicOrPartition | ErrorCode::LeaderNotAvailable) => missing_topic(client, name),
            _ => Failure::of_code(&format!("topic '{name}'"), code, None),
        });
    }
    Ok(found)
}

/// One topic.
pub fn topic(client: &mut Client, name: &str) -> Result<Topic, Failure> {
    let mut found = topics(client, &[name.to_owned()])?;
    Ok(found.remove(0))
}

/// All topics; internal ones if asked for.
pub fn all_topics(client: &mut Client, internal: bool) -> Result<Vec<Topic>, Failure> {
    let cluster = client.look(None)?;
    Ok(cluster.topics.values().filter(|topic| internal || !topic.is_internal).cloned().collect())
}

/// Says that a topic is not there, and which was probably meant.
pub fn missing_topic(client: &mut Client, name: &str) -> Failure {
    let names: Vec<String> =
        client.look(None).map(|cluster| cluster.topics.keys().cloned().collect()).unwrap_or_default();
    Failure::Refused(match nearest(name, names.iter().map(String::as_str)) {
        Some(near) => format!(
            "there is no topic '{name}'; did you mean '{near}'? See 'ringlog topic list', or make it with \
             'ringlog topic create {name}'"
        ),
        None => format!(
            "there is no topic '{name}'; see 'ringlog topic list', or make it with 'ringlog topic create {name}'"
        ),
    })
}

/// Says that a partition is not there.
pub fn missing_partition(topic: &Topic, partition: i32) -> Failure {
    let last = topic.partitions.len().saturating_sub(1);
    Failure::Refused(format!("topic '{}' has no partition {partition}; its partitions are 0 to {last}", topic.name))
}

/// Asks the controller; looks again for it while the answer says that it is another one.
pub fn ask_controller<R: Request>(
    client: &mut Client,
    request: &R,
    able: RangeInclusive<i16>,
    codes: impl Fn(&R::Response) -> Vec<i16>,
) -> Result<R::Response, Failure> {
    let deadline = Instant::now() + client.timeout();
    loop {
        client.look(Some(&[]))?;
        let response = client.ask(To::Controller, request, able.clone())?;
        let elsewhere = codes(&response).contains(&ErrorCode::NotController.code());
        if !elsewhere || Instant::now() >= deadline {
            return Ok(response);
        }
        thread::sleep(RETRY_WAIT);
    }
}

/// An offset found by time; -1 where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub offset: i64,
    pub timestamp: i64,
}

/// Offsets by time, or of [`LATEST`] and [`EARLIEST`], from the leaders of these partitions: an offset each, or an error
/// code. The cluster was looked at before.
pub fn list_offsets(
    client: &mut Client,
    asked: &[(Place, i64)],
    read_committed: bool,
) -> Result<BTreeMap<Place, Result<Found, i16>>, Failure> {
    let deadline = Instant::now() + client.timeout();
    let mut found = BTreeMap::new();
    let mut open: Vec<(Place, i64)> = asked.to_vec();
    loop {
        let mut by_leader: BTreeMap<i32, Vec<(Place, i64)>> = BTreeMap::new();
        for (place, timestamp) in open.drain(..) {
            match client.cluster.leader(&place.0, place.1) {
                Some(leader) => by_leader.entry(leader).or_default().push((place, timestamp)),
                None => {
                    found.insert(place, Err(ErrorCode::LeaderNotAvailable.code()));
                }
            }
        }
        for (leader, asked) in by_leader {
            list_offsets_of(client, leader, &asked, read_committed, &mut found)?;
        }
        let stale = |code: i16| ErrorCode::from_code(code).is_some_and(look_again);
        open = asked
            .iter()
            .filter(|(place, _)| matches!(found.get(place), Some(Err(code)) if stale(*code)))
            .cloned()
            .collect();
        if open.is_empty() || Instant::now() >= deadline {
            return Ok(found);
        }
        thread::sleep(RETRY_WAIT);
        let names: Vec<String> = open.iter().map(|(place, _)| place.0.clone()).collect();
        client.look(Some(&names))?;
    }
}

fn list_offsets_of(
    client: &mut Client,
    leader: i32,
    asked: &[(Place, i64)],
    read_committed: bool,
    found: &mut BTreeMap<Place, Result<Found, i16>>,
) -> Result<(), Failure> {
    // Version 0 lists where segments begin: right for both ends only. 7 knows the greatest timestamp (-3), 8 and 9 what is
    // of tiered storage (-4, -5).
    let lowest = asked.iter().map(|(_, timestamp)| match *timestamp {
        timestamp @ ..EARLIEST => (timestamp.unsigned_abs() + 4).min(9) as i16,
        timestamp => i16::from(timestamp >= 0),
    });
    let version = client.version(To::Broker(leader), ApiKey::ListOffsets, lowest.max().unwrap_or(0)..=9)?;
    let mut topics: BTreeMap<&str, Vec<m::ListOffsetsPartition>> = BTreeMap::new();
    for ((topic, partition_index), timestamp) in asked {
        let partition =
            m::ListOffsetsPartition { partition_index: *partition_index, timestamp: *timestamp, ..Default::default() };
        topics.entry(topic).or_default().push(partition);
    }
    let topic = |(name, partitions): (&str, _)| m::ListOffsetsTopic { name: name.to_owned(), partitions };
    let request = m::ListOffsetsRequest {
        replica_id: -1,
        isolation_level: i8::from(read_committed && version >= 2),
        topics: topics.into_iter().map(topic).collect(),
    };
    let response = client.ask(To::Broker(leader), &request, version..=version)?;
    for topic in response.topics {
        for partition in topic.partitions {
            let answer = match partition.error_code {
                0 if version == 0 => {
                    Ok(Found { offset: partition.old_style_offsets.first().copied().unwrap_or(-1), timestamp: -1 })
                }
                0 => Ok(Found { offset: partition.offset, timestamp: partition.timestamp }),
                code => Err(code),
            };
            found.insert((topic.name.clone(), partition.partition_index), answer);
        }
    }
    Ok(())
}

/// A broker's log directory.
#[derive(Debug)]
pub struct LogDir {
    pub path: String,
    pub error_code: i16,
    pub partitions: Vec<LogOfDir>,
    /// Of its file system; `None` from a broker before 3.3.
    pub total_bytes: Option<i64>,
    pub usable_bytes: Option<i64>,
}

/// One partition's log in a directory.
#[derive(Debug)]
pub struct LogOfDir {
    pub topic: String,
    pub partition: i32,
    pub size: i64,
    pub offset_lag: i64,
    pub is_future: bool,
}

impl LogDir {
    pub fn size(&self) -> i64 {
        self.partitions.iter().map(|log| log.size).sum()
    }

    pub fn state(&self) -> String {
        match self.error_code {
            0 => "online".to_owned(),
            code => format!("offline: {}", describe(code, None)),
        }
    }
}

/// The log directories of a broker, with the logs of these topics, or of all if `None`.
pub fn log_dirs(client: &mut Client, broker: i32, topics: Option<&[Topic]>) -> Result<Vec<LogDir>, Failure> {
    let topic = |topic: &Topic| m::DescribableLogDirTopic {
        topic: topic.name.clone(),
        partitions: topic.partitions.iter().map(|partition| partition.index).collect(),
    };
    let request = m::DescribeLogDirsRequest { topics: topics.map(|topics| topics.iter().map(topic).collect()) };
    let response = client.ask(To::Broker(broker), &request, 0..=4)?;
    if response.error_code != 0 {
        return Err(Failure::of_code("log directories", response.error_code, None));
    }
    let known = |bytes: i64| (bytes >= 0).then_some(bytes);
    let dir = |result: m::DescribeLogDirsResult| LogDir {
        path: result.log_dir,
        error_code: result.error_code,
        total_bytes: known(result.total_bytes),
        usable_bytes: known(result.usable_bytes),
        partitions: result.topics.into_iter().flat_map(logs_of_topic).collect(),
    };
    Ok(response.results.into_iter().map(dir).collect())
}

fn logs_of_topic(topic: m::DescribeLogDirsTopic) -> impl Iterator<Item = LogOfDir> {
    let name = topic.name;
    topic.partitions.into_iter().map(move |partition| LogOfDir {
        topic: name.clone(),
        partition: partition.partition_index,
        size: partition.partition_size,
        offset_lag: partition.offset_lag,
        is_future: partition.is_future_key,
    })
}

/// Whose settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    Topic(String),
    Broker(i32),
    /// What all brokers have that have nothing of their own.
    BrokerDefault,
    BrokerLoggers(i32),
}

impl Resource {
    fn code(&self) -> i8 {
        match self {
            Resource::Topic(_) => 2,
            Resource::Broker(_) | Resource::BrokerDefault => 4,
            Resource::BrokerLoggers(_) => 8,
        }
    }

    fn name(&self) -> String {
        match self {
            Resource::Topic(name) => name.clone(),
            Resource::Broker(id) | Resource::BrokerLoggers(id) => id.to_string(),
            Resource::BrokerDefault => String::new(),
        }
    }

    /// Who can answer; the cluster was looked at before for one broker's.
    fn to(&self) -> To {
        match self {
            Resource::Broker(id) | Resource::BrokerLoggers(id) => To::Broker(*id),
            _ => To::Any,
        }
    }
}

impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Resource::Topic(name) => write!(f, "topic '{name}'"),
            Resource::Broker(id) => write!(f, "broker {id}"),
            Resource::BrokerDefault => f.write_str("the brokers' default"),
            Resource::BrokerLoggers(id) => write!(f, "loggers of broker {id}"),
        }
    }
}

/// Where a setting's value comes from, as the protocol numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source(pub i8);

impl Source {
    pub const DYNAMIC_TOPIC: Source = Source(1);
    pub const DYNAMIC_BROKER: Source = Source(2);
    pub const DYNAMIC_DEFAULT_BROKER: Source = Source(3);
    pub const DEFAULT: Source = Source(5);

    /// Kafka's name of it.
    pub fn name(self) -> &'static str {
        match self.0 {
            1 => "DYNAMIC_TOPIC_CONFIG",
            2 => "DYNAMIC_BROKER_CONFIG",
            3 => "DYNAMIC_DEFAULT_BROKER_CONFIG",
            4 => "STATIC_BROKER_CONFIG",
            5 => "DEFAULT_CONFIG",
            6 => "DYNAMIC_BROKER_LOGGER_CONFIG",
            7 => "CLIENT_METRICS_CONFIG",
            8 => "GROUP_CONFIG",
            _ => "UNKNOWN",
        }
    }
}

/// One setting.
#[derive(Clone, Debug)]
pub struct Setting {
    pub name: String,
    /// `None`: not shown, or not set.
    pub value: Option<String>,
    pub source: Source,
    pub read_only: bool,
    pub is_sensitive: bool,
    /// Name, value and source of each place the value may come from, the first that counts first.
    pub synonyms: Vec<(String, Option<String>, Source)>,
}

/// The settings of a resource: all, or those of `names`.
pub fn settings(client: &mut Client, resource: &Resource, names: Option<&[String]>) -> Result<Vec<Setting>, Failure> {
    let to = resource.to();
    let version = client.version(to, ApiKey::DescribeConfigs, 0..=4)?;
    let request = m::DescribeConfigsRequest {
        resources: vec![m::DescribeConfigsResource {
            resource_type: resource.code(),
            resource_name: resource.name(),
            configuration_keys: names.map(<[String]>::to_vec),
        }],
        include_synonyms: version >= 1,
        include_documentation: false,
    };
    let mut response = client.ask(to, &request, version..=version)?;
    let Some(result) = response.results.pop() else {
        return Err(Failure::Refused(format!("the broker says nothing of {resource}")));
    };
    if result.error_code != 0 {
        return Err(match (resource, ErrorCode::from_code(result.error_code)) {
            (Resource::Topic(name), Some(ErrorCode::UnknownTopicOrPartition)) => missing_topic(client, name),
            _ => Failure::of_code(&resource.to_string(), result.error_code, result.error_message.as_deref()),
        });
    }
    let mut settings: Vec<Setting> =
        result.configs.into_iter().map(|config| setting(config, version, resource)).collect();
    settings.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(settings)
}

fn setting(config: m::DescribeConfigsResourceResult, version: i16, resource: &Resource) -> Setting {
    // Version 0 has no sources.
    let source = match (version, config.is_default, resource) {
        (0, true, _) => Source::DEFAULT,
        (0, false, Resource::Topic(_)) => Source::DYNAMIC_TOPIC,
        (0, false, _) => Source::DYNAMIC_BROKER,
        _ => Source(config.config_source),
    };
    Setting {
        name: config.name,
        value: config.value,
        source,
        read_only: config.read_only,
        is_sensitive: config.is_sensitive,
        synonyms: config.synonyms.into_iter().map(|place| (place.name, place.value, Source(place.source))).collect(),
    }
}

/// What is to become of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Set(String),
    Delete,
    /// To, or from, a list.
    Append(String),
    Subtract(String),
}

/// Changes settings of one resource, all or none.
pub fn alter(
    client: &mut Client,
    resource: &Resource,
    changes: &[(String, Change)],
    validate_only: bool,
) -> Result<(), Failure> {
    let config = |(name, change): &(String, Change)| {
        let (config_operation, value) = match change {
            Change::Set(value) => (0, Some(value.clone())),
            Change::Delete => (1, None),
            Change::Append(value) => (2, Some(value.clone())),
            Change::Subtract(value) => (3, Some(value.clone())),
        };
        m::incremental_alter_configs::AlterableConfig { name: name.clone(), config_operation, value }
    };
    let request = m::IncrementalAlterConfigsRequest {
        resources: vec![m::incremental_alter_configs::AlterConfigsResource {
            resource_type: resource.code(),
            resource_name: resource.name(),
            configs: changes.iter().map(config).collect(),
        }],
        validate_only,
    };
    let response = client.ask(resource.to(), &request, 0..=1)?;
    let refused = response.responses.iter().find(|result| result.error_code != 0);
    match refused {
        None => Ok(()),
        Some(result) => Err(match (resource, ErrorCode::from_code(result.error_code)) {
            (Resource::Topic(name), Some(ErrorCode::UnknownTopicOrPartition)) => missing_topic(client, name),
            _ => Failure::of_code(&resource.to_string(), result.error_code, result.error_message.as_deref()),
        }),
    }
}

/// Deletes the records before these offsets (-1: all that are committed): the new log start of each, or an error code.
pub fn delete_records(
    client: &mut Client,
    asked: &[(Place, i64)],
) -> Result<BTreeMap<Place, Result<i64, i16>>, Failure> {
    let mut by_leader: BTreeMap<i32, BTreeMap<&str, Vec<m::DeleteRecordsPartition>>> = BTreeMap::new();
    let mut done = BTreeMap::new();
    for (place, offset) in asked {
        let Some(leader) = client.cluster.leader(&place.0, place.1) else {
            done.insert(place.clone(), Err(ErrorCode::LeaderNotAvailable.code()));
            continue;
        };
        let partition = m::DeleteRecordsPartition { partition_index: place.1, offset: *offset };
        by_leader.entry(leader).or_default().entry(&place.0).or_default().push(partition);
    }
    for (leader, topics) in by_leader {
        let topic = |(name, partitions): (&str, _)| m::DeleteRecordsTopic { name: name.to_owned(), partitions };
        let topics = topics.into_iter().map(topic).collect();
        let request = m::DeleteRecordsRequest { topics, timeout_ms: client.timeout_ms() };
        for topic in client.ask(To::Broker(leader), &request, 0..=2)?.topics {
            for partition in topic.partitions {
                let answer = match partition.error_code {
                    0 => Ok(partition.low_watermark),
                    code => Err(code),
                };
                done.insert((topic.name.clone(), partition.partition_index), answer);
            }
        }
    }
    Ok(done)
}

/// Ends with what was refused, if anything was: one line each.
pub fn conclude(refused: Vec<String>) -> Result<(), Failure> {
    match refused.is_empty() {
        true => Ok(()),
        false => Err(Failure::Refused(refused.join("\nringlog: "))),
    }
}

/// Asks a person at a terminal whether to go on; scripts are taken at their word.
pub fn confirm(question: &str, yes: bool) -> Result<(), Failure> {
    if yes || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(());
    }
    // Without an answer nothing is done.
    let _ = write!(io::stderr().lock(), "{question} [y/N] ");
    let mut answer = String::new();
    let _ = io::stdin().lock().read_line(&mut answer);
    match matches!(answer.trim(), "y" | "Y" | "yes") {
        true => Ok(()),
        false => Err(Failure::Refused("nothing was done".to_owned())),
    }
}

/// `a, b and c`.
pub fn list(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}

/// `name=value`.
pub fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.to_owned())),
        _ => Err(format!("'{text}' is not NAME=VALUE")),
    }
}
