//! `ringlog topic`: create, list, describe, alter, add-partitions, delete.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Common;
use super::admin::{
    self, Change, EARLIEST, Found, LATEST, Place, Resource, Setting, Source, ask_controller, assignment, conclude,
};
use super::connect::{Client, To};
use super::failure::{EXIT_CODES, Failure, describe};
use super::output::Output;
use super::table::{Column, Table, human_bytes, ids};
use crate::client::cluster::Topic;
use crate::protocol::message as m;
use crate::protocol::{ApiKey, ErrorCode};

const EXAMPLES: &str = "\
Examples:
  ringlog topic create orders --partitions 3 --config retention.ms=86400000
  ringlog topic list
  ringlog topic describe orders
  ringlog topic alter orders --set cleanup.policy=compact --unset retention.ms
  ringlog topic add-partitions orders --to 6
  ringlog topic delete orders";

#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct TopicArguments {
    #[command(subcommand)]
    command: TopicCommand,
}

#[derive(Subcommand, Debug)]
enum TopicCommand {
    Create(CreateArguments),
    List(ListArguments),
    Describe(DescribeArguments),
    Alter(AlterArguments),
    AddPartitions(AddPartitionsArguments),
    Delete(DeleteArguments),
}

/// Create topics
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ringlog topic create orders payments --partitions 3
  ringlog topic create orders --config cleanup.policy=compact --config segment.bytes=67108864
  ringlog topic create orders --assignment 1:2,2:3   partition 0 on brokers 1 and 2, 1 on 2 and 3")]
struct CreateArguments {
    #[command(flatten)]
    common: Common,

    /// One topic or more
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,

    /// Partitions of each [default: the broker's num.partitions]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,

    /// Copies of each partition [default: the broker's default.replication.factor]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
    replication_factor: Option<i16>,

    /// A setting of the topic; may be given many times
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = assignment)]
    config: Vec<(String, String)>,

    /// Brokers of each partition, the preferred leader first: 1:2,2:3
    #[arg(long, value_name = "BROKERS", value_parser = replicas, value_delimiter = ',',
        conflicts_with_all = ["partitions", "replication_factor"])]
    assignment: Vec<Replicas>,

    /// A topic that is there already is no failure
    #[arg(long)]
    if_not_exists: bool,

    /// Only let the broker check it
    #[arg(long)]
    validate_only: bool,
}

/// Brokers of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replicas(pub Vec<i32>);

/// `1:2:3`.
pub fn replicas(text: &str) -> Result<Replicas, String> {
    let ids: Result<Vec<i32>, _> = text.split(':').map(str::parse).collect();
    ids.map(Replicas).map_err(|_| format!("'{text}' is not a list of brokers like 1:2:3"))
}

/// List topics
#[derive(Args, Debug)]
struct ListArguments {
    #[command(flatten)]
    common: Common,

    /// Also topics of Kafka's own, such as __consumer_offsets
    #[arg(long)]
    internal: bool,
}

/// Show topics: partitions with leader, replicas, offsets and size, and settings that differ from the defaults
#[derive(Args, Debug)]
struct DescribeArguments {
    #[command(flatten)]
    common: Common,

    /// One topic or more
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Change settings of a topic
#[derive(Args, Debug)]
struct AlterArguments {
    #[command(flatten)]
    common: Common,

    /// The topic
    #[arg(value_name = "NAME")]
    name: String,

    /// Give a setting a value; may be given many times
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment, required_unless_present = "unset")]
    set: Vec<(String, String)>,

    /// Let a setting have its default again; may be given many times
    #[arg(long, value_name = "NAME")]
    unset: Vec<String>,
}

/// Give a topic more partitions; keys may go to other partitions from then on
#[derive(Args, Debug)]
struct AddPartitionsArguments {
    #[command(flatten)]
    common: Common,

    /// The topic
    #[arg(value_name = "NAME")]
    name: String,

    /// How many it is to have in all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..), required_unless_present = "by", conflicts_with = "by")]
    to: Option<i32>,

    /// How many to add
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    by: Option<i32>,
}

/// Delete topics with all their records
#[derive(Args, Debug)]
struct DeleteArguments {
    #[command(flatten)]
    common: Common,

    /// One topic or more
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,

    /// Do not ask, even at a terminal
    #[arg(short, long)]
    yes: bool,

    /// A topic that is not there is no failure
    #[arg(long)]
    if_exists: bool,
}

pub fn run(arguments: TopicArguments) -> Result<(), Failure> {
    match arguments.command {
        TopicCommand::Create(arguments) => create(&arguments),
        TopicCommand::List(arguments) => list(&arguments),
        TopicCommand::Describe(arguments) => describe_topics(&arguments),
        TopicCommand::Alter(arguments) => alter(&arguments),
        TopicCommand::AddPartitions(arguments) => add_partitions(&arguments),
        TopicCommand::Delete(arguments) => delete(&arguments),
    }
}

/// What a topic to create is to be.
pub struct ToCreate<'a> {
    pub names: &'a [String],
    pub partitions: Option<i32>,
    pub replication_factor: Option<i16>,
    pub configs: &'a [(String, String)],
    pub assignment: &'a [Replicas],
    pub validate_only: bool,
}

/// Creates topics: the broker's answer for each.
pub fn create_topics(client: &mut Client, wanted: &ToCreate<'_>) -> Result<Vec<m::CreatableTopicResult>, Failure> {
    // Before version 4 a broker has no defaults for the counts (KIP-464).
    let version = client.version(To::Any, ApiKey::CreateTopics, 0..=7)?;
    let (partitions, factor) = if version >= 4 { (-1, -1) } else { (1, 1) };
    let by_hand = !wanted.assignment.is_empty();
    let assignments = wanted.assignment.iter().zip(0..).map(|(replicas, partition_index)| {
        m::CreatableReplicaAssignment { partition_index, broker_ids: replicas.0.clone() }
    });
    let assignments: Vec<_> = assignments.collect();
    let topic = |name: &String| m::CreatableTopic {
        name: name.clone(),
        num_partitions: if by_hand { -1 } else { wanted.partitions.unwrap_or(partitions) },
        replication_factor: if by_hand { -1 } else { wanted.replication_factor.unwrap_or(factor) },
        assignments: assignments.clone(),
        configs: wanted
            .configs
            .iter()
            .map(|(name, value)| m::CreatableTopicConfig { name: name.clone(), value: Some(value.clone()) })
            .collect(),
    };
    let request = m::CreateTopicsRequest {
        topics: wanted.names.iter().map(topic).collect(),
        timeout_ms: client.timeout_ms(),
        validate_only: wanted.validate_only,
    };
    let codes = |response: &m::CreateTopicsResponse| response.topics.iter().map(|topic| topic.error_code).collect();
    Ok(ask_controller(client, &request, 0..=7, codes)?.topics)
}

fn create(arguments: &CreateArguments) -> Result<(), Failure> {
    let mut client = Client::connect(&arguments.common.connect)?;
    let wanted = ToCreate {
        names: &arguments.names,
        partitions: arguments.partitions,
        replication_factor: arguments.replication_factor,
        configs: &arguments.config,
        assignment: &arguments.assignment,
        validate_only: arguments.validate_only,
    };
    let (mut out, mut created, mut refused) = (Output::new()?, Vec::new(), Vec::new());
    let verb = if arguments.validate_only { "could create" } else { "created" };
    for topic in create_topics(&mut client, &wanted)? {
        let (name, exists) = (&topic.name, topic.error_code == ErrorCode::TopicAlreadyExists.code());
        match topic.error_code {
            0 if arguments.common.json => created.push(json!({
                "name": name,
                "id": topic.topic_id.to_string(),
                "partitions": topic.num_partitions,
                "replication_factor": topic.replication_factor,
            })),
            0 => out.line(&format!("{verb} topic '{name}'{}", shape(&topic)))?,
            _ if exists && arguments.if_not_exists => {}
            _ if exists => {
                refused.push(format!("there is a topic '{name}' already; see 'ringlog topic describe {name}'"));
            }
            code => refused.push(format!("topic '{name}': {}", describe(code, topic.error_message.as_deref()))),
        }
    }
    if arguments.common.json {
        out.json(&Value::Array(created))?;
    }
    out.finish()?;
    conclude(refused)
}

/// How large a new topic is, where the broker says so (from 2.4 on).
fn shape(topic: &m::CreatableTopicResult) -> String {
    match (topic.num_partitions, topic.replication_factor) {
        (1.., 1..) => {
            format!(" ({} x {})", count(topic.num_partitions, "partition"), count(topic.replication_factor, "replica"))
        }
        _ => String::new(),
    }
}

fn count(number: impl Into<i64>, thing: &str) -> String {
    let number = number.into();
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

fn list(arguments: &ListArguments) -> Result<(), Failure> {
    let mut client = Client::connect(&arguments.common.connect)?;
    let topics = admin::all_topics(&mut client, arguments.internal)?;
    let mut out = Output::new()?;
    let factor = |topic: &Topic| topic.partitions.first().map_or(0, |partition| partition.replicas.len());
    if arguments.common.json {
        let shown = |topic: &Topic| {
            json!({
                "name": topic.name, "id": topic.id.to_string(), "internal": topic.is_internal,
                "partitions": topic.partitions.len(), "replication_factor": factor(topic),
            })
        };
        out.json(&Value::Array(topics.iter().map(shown).collect()))?;
        return out.finish();
    }
    let mut table = Table::new(&[Column::Text("NAME"), Column::Number("PARTITIONS"), Column::Number("REPLICAS")]);
    for topic in &topics {
        table.row(vec![topic.name.clone(), topic.partitions.len().to_string(), factor(topic).to_string()]);
    }
    out.table(&table)?;
    out.finish()
}

/// All that is known of a topic's partitions.
struct Described {
    topic: Topic,
    settings: Vec<Setting>,
    start: BTreeMap<i32, Found>,
    end: BTreeMap<i32, Found>,
    /// The leader's log, in bytes.
    size: BTreeMap<i32, i64>,
}

impl Described {
    fn gather(client: &mut Client, names: &[String]) -> Result<Vec<Described>, Failure> {
        let topics = admin::topics(client, names)?;
        let mut starts = offsets(client, &topics, EARLIEST)?;
        let mut ends = offsets(client, &topics, LATEST)?;
        let leader =
            |topic: &Topic| topic.partitions.iter().filter_map(|partition| partition.leader).collect::<Vec<_>>();
        let leaders: BTreeSet<i32> = topics.iter().flat_map(leader).collect();
        let mut sizes: BTreeMap<(Place, i32), i64> = BTreeMap::new();
        for broker in leaders {
            let Ok(dirs) = admin::log_dirs(client, broker, Some(&topics)) else { continue };
            let logs = dirs.into_iter().flat_map(|dir| dir.partitions).filter(|log| !log.is_future);
            sizes.extend(logs.map(|log| (((log.topic, log.partition), broker), log.size)));
        }
        let tells_settings = client.connection(To::Any)?.versions().of(ApiKey::DescribeConfigs).is_some();
        let mut described = Vec::new();
        for topic in topics {
            let size = topic.partitions.iter().filter_map(|partition| {
                let size = sizes.get(&((topic.name.clone(), partition.index), partition.leader?))?;
                Some((partition.index, *size))
            });
            described.push(Described {
                size: size.collect(),
                settings: match tells_settings {
                    true => own_settings(admin::settings(client, &Resource::Topic(topic.name.clone()), None)?),
                    false => Vec::new(),
                },
                start: starts.remove(&topic.name).unwrap_or_default(),
                end: ends.remove(&topic.name).unwrap_or_default(),
                topic,
            });
        }
        Ok(described)
    }
}

/// Those that the topic has of its own.
fn own_settings(settings: Vec<Setting>) -> Vec<Setting> {
    settings.into_iter().filter(|setting| setting.source == Source::DYNAMIC_TOPIC).collect()
}

/// By topic and partition, where there is an answer.
fn offsets(
    client: &mut Client,
    topics: &[Topic],
    timestamp: i64,
) -> Result<BTreeMap<String, BTreeMap<i32, Found>>, Failure> {
    let places = |topic: &Topic| {
        let name = topic.name.clone();
        let leading = topic.partitions.iter().filter(|partition| partition.leader.is_some());
        leading.map(move |partition| ((name.clone(), partition.index), timestamp)).collect::<Vec<_>>()
    };
    let asked: Vec<(Place, i64)> = topics.iter().flat_map(places).collect();
    let mut by_topic: BTreeMap<String, BTreeMap<i32, Found>> = BTreeMap::new();
    for ((topic, partition), found) in admin::list_offsets(client, &asked, false)? {
        if let Ok(found) = found {
            by_topic.entry(topic).or_default().insert(partition, found);
        }
    }
    Ok(by_topic)
}

fn describe_topics(arguments: &DescribeArguments) -> Result<(), Failure> {
    let mut client = Client::connect(&arguments.common.connect)?;
    let described = Described::gather(&mut client, &arguments.names)?;
    let mut out = Output::new()?;
    if arguments.common.json {
        out.json(&Value::Array(described.iter().map(described_json).collect()))?;
        return out.finish();
    }
    for (index, described) in described.iter().enumerate() {
        if index > 0 {
            out.line("")?;
        }
        print_described(&mut out, described)?;
    }
    out.finish()
}

fn print_described(out: &mut Output, described: &Described) -> Result<(), Failure> {
    let Described { topic, settings, start, end, size } = described;
    out.line(&format!("topic     {}{}", topic.name, if topic.is_internal { " (internal)" } else { "" }))?;
    out.line(&format!("id        {}", topic.id))?;
    out.line(&format!("size      {}", human_bytes(size.values().sum())))?;
    for (index, setting) in settings.iter().enumerate() {
        let label = if index == 0 { "settings" } else { "" };
        out.line(&format!("{label:8}  {}={}", setting.name, setting.value.as_deref().unwrap_or_default()))?;
    }
    let mut table = Table::new(&[
        Column::Number("PARTITION"),
        Column::Number("LEADER"),
        Column::Number("EPOCH"),
        Column::Text("REPLICAS"),
        Column::Text("ISR"),
        Column::Number("START"),
        Column::Number("END"),
        Column::Number("SIZE"),
    ]);
    let shown = |offset: Option<&Found>| offset.map_or("-".to_owned(), |found| found.offset.to_string());
    for partition in &topic.partitions {
        table.row(vec![
            partition.index.to_string(),
            partition.leader.map_or("none".to_owned(), |leader| leader.to_string()),
            if partition.leader_epoch < 0 { "-".to_owned() } else { partition.leader_epoch.to_string() },
            ids(&partition.replicas),
            ids(&partition.isr),
            shown(start.get(&partition.index)),
            shown(end.get(&partition.index)),
            size.get(&partition.index).map_or("-".to_owned(), |bytes| human_bytes(*bytes)),
        ]);
    }
    out.line("")?;
    out.table(&table)
}

fn described_json(described: &Described) -> Value {
    let Described { topic, settings, start, end, size } = described;
    let partition = |partition: &crate::client::cluster::Partition| {
        json!({
            "partition": partition.index, "leader": partition.leader, "leader_epoch": partition.leader_epoch,
            "replicas": partition.replicas, "isr": partition.isr, "offline_replicas": partition.offline_replicas,
            "start_offset": start.get(&partition.index).map(|found| found.offset),
            "end_offset": end.get(&partition.index).map(|found| found.offset),
            "size": size.get(&partition.index),
        })
    };
    let settings: serde_json::Map<String, Value> =
        settings.iter().map(|setting| (setting.name.clone(), json!(setting.value))).collect();
    json!({
        "name": topic.name, "id": topic.id.to_string(), "internal": topic.is_internal, "settings": settings,
        "partitions": topic.partitions.iter().map(partition).collect::<Vec<_>>(),
    })
}

fn alter(arguments: &AlterArguments) -> Result<(), Failure> {
    let set = arguments.set.iter().map(|(name, value)| (name.clone(), Change::Set(value.clone())));
    let unset = arguments.unset.iter().map(|name| (name.clone(), Change::Delete));
    let changes: Vec<_> = set.chain(unset).collect();
    let mut client = Client::connect(&arguments.common.connect)?;
    admin::alter(&mut client, &Resource::Topic(arguments.name.clone()), &changes, false)?;
    let mut out = Output::new()?;
    match arguments.common.json {
        true => out.json(&json!({"topic": arguments.name, "changed": changes.len()}))?,
        false => {
            out.line(&format!("changed {} of topic '{}'", count(changes.len() as i64, "setting"), arguments.name))?
        }
    }
    out.finish()
}

/// Gives a topic more partitions.
pub fn create_partitions(
    client: &mut Client,
    name: &str,
    total: i32,
    assignment: Option<&[Replicas]>,
) -> Result<(), Failure> {
    let assigned = |replicas: &Replicas| m::CreatePartitionsAssignment { broker_ids: replicas.0.clone() };
    let topic = m::CreatePartitionsTopic {
        name: name.to_owned(),
        count: total,
        assignments: assignment.map(|assignment| assignment.iter().map(assigned).collect()),
    };
    let request =
        m::CreatePartitionsRequest { topics: vec![topic], timeout_ms: client.timeout_ms(), validate_only: false };
    let codes =
        |response: &m::CreatePartitionsResponse| response.results.iter().map(|topic| topic.error_code).collect();
    let response = ask_controller(client, &request, 0..=3, codes)?;
    match response.results.iter().find(|result| result.error_code != 0) {
        None => Ok(()),
        Some(result) => {
            Err(Failure::of_code(&format!("topic '{name}'"), result.error_code, result.error_message.as_deref()))
        }
    }
}

fn add_partitions(arguments: &AddPartitionsArguments) -> Result<(), Failure> {
    let mut client = Client::connect(&arguments.common.connect)?;
    let name = &arguments.name;
    let had = admin::topic(&mut client, name)?.partitions.len() as i32;
    let total = match (arguments.to, arguments.by) {
        (Some(total), _) if total < had => {
            let advice = "partitions can't be taken away, only a new topic can have fewer";
            return Err(Failure::Refused(format!("topic '{name}' has {had} partitions already; {advice}")));
        }
        (Some(total), _) => total,
        (None, by) => had.saturating_add(by.unwrap_or(0)),
    };
    if total > had {
        create_partitions(&mut client, name, total, None)?;
    }
    let mut out = Output::new()?;
    match arguments.common.json {
        true => out.json(&json!({"topic": name, "partitions_before": had, "partitions": total}))?,
        false if total == had => out.line(&format!("topic '{name}' has {had} partitions already"))?,
        false => out.line(&format!("topic '{name}' has {total} partitions now, {had} before"))?,
    }
    out.finish()
}

/// Deletes topics: the error code and message for each.
pub fn delete_topics(client: &mut Client, names: &[String]) -> Result<Vec<m::DeletableTopicResult>, Failure> {
    let request =
        m::DeleteTopicsRequest { topic_names: names.to_vec(), timeout_ms: client.timeout_ms(), ..Default::default() };
    let codes = |response: &m::DeleteTopicsResponse| response.responses.iter().map(|topic| topic.error_code).collect();
    // By name: version 6 would have another field for it.
    Ok(ask_controller(client, &request, 0..=5, codes)?.responses)
}

fn delete(arguments: &DeleteArguments) -> Result<(), Failure> {
    let mut client = Client::connect(&arguments.common.connect)?;
    let question = format!("Delete {} with all records?", arguments.names.join(", "));
    admin::confirm(&question, arguments.yes)?;
    let (mut out, mut deleted, mut refused) = (Output::new()?, Vec::new(), Vec::new());
    for topic in delete_topics(&mut client, &arguments.names)? {
        let name = topic.name.unwrap_or_default();
        match ErrorCode::from_code(topic.error_code) {
            Some(ErrorCode::None) if arguments.common.json => deleted.push(json!({"name": name})),
            Some(ErrorCode::None) => out.line(&format!("deleted topic '{name}'"))?,
            Some(ErrorCode::UnknownTopicOrPartition) if arguments.if_exists => {}
            Some(ErrorCode::UnknownTopicOrPartition) => {
                refused.push(admin::missing_topic(&mut client, &name).to_string())
            }
            _ => {
                refused.push(format!("topic '{name}': {}", describe(topic.error_code, topic.error_message.as_deref())))
            }
        }
    }
    if arguments.common.json {
        out.json(&Value::Array(deleted))?;
    }
    out.finish()?;
    conclude(refused)
}
