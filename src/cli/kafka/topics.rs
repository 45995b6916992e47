//! `kafka-topics` (Kafka 3.9 `TopicCommand`).

#![forbid(unsafe_code)]

use clap::ArgGroup;

use super::{Reach, matching};
use crate::cli::admin::{self, Resource, assignment};
use crate::cli::failure::{Failure, say};
use crate::cli::output::Output;
use crate::cli::table::ids;
use crate::cli::topic::{self, Replicas, ToCreate, create_partitions, create_topics, own_settings, replicas};
use crate::client::cluster::{Partition, Topic};
use crate::protocol::ErrorCode;

#[derive(clap::Args, Debug)]
#[command(group(ArgGroup::new("action").required(true).args(["list", "create", "delete", "alter", "describe"])))]
pub struct Arguments {
    #[command(flatten)]
    reach: Reach,
    #[arg(long)]
    list: bool,
    #[arg(long)]
    create: bool,
    #[arg(long)]
    delete: bool,
    #[arg(long)]
    alter: bool,
    #[arg(long)]
    describe: bool,
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    #[arg(long, value_name = "N")]
    partitions: Option<i32>,
    #[arg(long, value_name = "N")]
    replication_factor: Option<i16>,
    #[arg(long, value_name = "BROKERS", value_delimiter = ',', value_parser = replicas)]
    replica_assignment: Vec<Replicas>,
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    config: Vec<(String, String)>,
    #[arg(long)]
    if_exists: bool,
    #[arg(long)]
    if_not_exists: bool,
    #[arg(long)]
    exclude_internal: bool,
    #[arg(long)]
    under_replicated_partitions: bool,
    #[arg(long)]
    unavailable_partitions: bool,
    #[arg(long)]
    topics_with_overrides: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let done = match arguments {
        Arguments { list: true, .. } => list(arguments),
        Arguments { create: true, .. } => create(arguments),
        Arguments { delete: true, .. } => delete(arguments),
        Arguments { alter: true, .. } => alter(arguments),
        _ => describe(arguments),
    };
    match done {
        Err(Failure::Refused(message)) => {
            let mut out = Output::new()?;
            out.line(&format!("Error while executing topic command : {message}"))?;
            out.finish()?;
            Err(Failure::Refused(message))
        }
        done => done,
    }
}

fn named(arguments: &Arguments) -> Result<&str, Failure> {
    arguments.topic.as_deref().ok_or_else(|| Failure::Usage("Missing required argument \"[topic]\"".to_owned()))
}

fn chosen(arguments: &Arguments) -> Result<(crate::cli::connect::Client, Vec<Topic>), Failure> {
    let mut client = arguments.reach.connect()?;
    let topics = admin::all_topics(&mut client, true)?;
    let topics = matching(topics, arguments.topic.as_deref(), arguments.exclude_internal)?;
    match (&arguments.topic, topics.is_empty() && !arguments.if_exists && !arguments.list) {
        (Some(name), true) => Err(Failure::Refused(format!("Topic '{name}' does not exist as expected"))),
        _ => Ok((client, topics)),
    }
}

fn list(arguments: &Arguments) -> Result<(), Failure> {
    let (_, topics) = chosen(arguments)?;
    let mut out = Output::new()?;
    topics.iter().try_for_each(|topic| out.line(&topic.name))?;
    out.finish()
}

fn create(arguments: &Arguments) -> Result<(), Failure> {
    let name = named(arguments)?.to_owned();
    let mut out = Output::new()?;
    if name.contains(['.', '_']) {
        out.line(
            "WARNING: Due to limitations in metric names, topics with a period ('.') or underscore ('_') could collide. \
             To avoid issues it is best to use either, but not both.",
        )?;
    }
    let mut client = arguments.reach.connect()?;
    let wanted = ToCreate {
        names: std::slice::from_ref(&name),
        partitions: arguments.partitions,
        replication_factor: arguments.replication_factor,
        configs: &arguments.config,
        assignment: &arguments.replica_assignment,
        validate_only: false,
    };
    for topic in create_topics(&mut client, &wanted)? {
        let exists = topic.error_code == ErrorCode::TopicAlreadyExists.code();
        match topic.error_code {
            0 => out.line(&format!("Created topic {name}."))?,
            _ if exists && arguments.if_not_exists => {}
            code => {
                out.flush(None)?;
                let own = exists.then(|| format!("Topic '{name}' already exists."));
                let text = topic.error_message.filter(|message| !message.is_empty()).or(own);
                return Err(Failure::Refused(text.unwrap_or_else(|| crate::cli::failure::describe(code, None))));
            }
        }
    }
    out.finish()
}

fn delete(arguments: &Arguments) -> Result<(), Failure> {
    named(arguments)?;
    let (mut client, topics) = chosen(arguments)?;
    let names: Vec<String> = topics.into_iter().map(|topic| topic.name).collect();
    if names.is_empty() {
        return Ok(());
    }
    let refused = topic::delete_topics(&mut client, &names)?.into_iter().find(|topic| topic.error_code != 0);
    refused.map_or(Ok(()), |topic| {
        let name = topic.name.unwrap_or_default();
        Err(Failure::of_code(&format!("Topic '{name}'"), topic.error_code, topic.error_message.as_deref()))
    })
}

fn alter(arguments: &Arguments) -> Result<(), Failure> {
    named(arguments)?;
    let Some(total) = arguments.partitions else {
        return Err(Failure::Usage("Missing required argument \"[partitions]\"".to_owned()));
    };
    let (mut client, topics) = chosen(arguments)?;
    for topic in topics {
        // The new partitions' share of a list that names all.
        let had = topic.partitions.len();
        let assignment = arguments.replica_assignment.get(had..).filter(|new| !new.is_empty());
        create_partitions(&mut client, &topic.name, total, assignment)?;
    }
    Ok(())
}

fn describe(arguments: &Arguments) -> Result<(), Failure> {
    let (mut client, topics) = chosen(arguments)?;
    let is_under = |partition: &Partition| partition.isr.len() < partition.replicas.len();
    let is_unavailable = |partition: &Partition| partition.leader.is_none();
    let selects = arguments.under_replicated_partitions || arguments.unavailable_partitions;
    let is_shown = |partition: &&Partition| {
        !selects
            || arguments.under_replicated_partitions && is_under(partition)
            || arguments.unavailable_partitions && is_unavailable(partition)
    };
    let mut out = Output::new()?;
    for topic in topics {
        let settings = own_settings(admin::settings(&mut client, &Resource::Topic(topic.name.clone()), None)?);
        let settings: Vec<String> = settings
            .iter()
            .map(|setting| format!("{}={}", setting.name, setting.value.as_deref().unwrap_or("")))
            .collect();
        if arguments.topics_with_overrides && settings.is_empty() {
            continue;
        }
        let (name, count) = (&topic.name, topic.partitions.len());
        let factor = topic.partitions.first().map_or(0, |partition| partition.replicas.len());
        if !selects {
            out.line(&format!(
                "Topic: {name}\tTopicId: {}\tPartitionCount: {count}\tReplicationFactor: {factor}\tConfigs: {}",
                topic.id,
                settings.join(",")
            ))?;
        }
        if arguments.topics_with_overrides {
            continue;
        }
        for partition in topic.partitions.iter().filter(is_shown) {
            let leader = partition.leader.map_or("none".to_owned(), |leader| leader.to_string());
            let (replicas, isr) = (ids(&partition.replicas), ids(&partition.isr));
            out.line(&format!(
                "\tTopic: {name}\tPartition: {}\tLeader: {leader}\tReplicas: {replicas}\tIsr: {isr}\tElr: N/A\tLastKnownElr: N/A",
                partition.index
            ))?;
        }
    }
    if selects && arguments.topics_with_overrides {
        say("ringlog: --topics-with-overrides shows no partitions");
    }
    out.finish()
}
