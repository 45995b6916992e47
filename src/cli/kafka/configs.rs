//! `kafka-configs` (Kafka 3.9 `ConfigCommand`), of topics, brokers and their loggers.

#![forbid(unsafe_code)]

use clap::{ArgGroup, ValueEnum};

use super::Reach;
use crate::cli::admin::{self, Change, Resource, Setting, Source, alter, settings};
use crate::cli::config::is_own;
use crate::cli::connect::Client;
use crate::cli::failure::Failure;
use crate::cli::output::Output;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "kebab-case")]
enum EntityType {
    Topics,
    Brokers,
    BrokerLoggers,
    Users,
    Clients,
    Ips,
}

#[derive(clap::Args, Debug)]
#[command(group(ArgGroup::new("action").required(true).args(["describe", "alter"])))]
#[command(group(ArgGroup::new("entity").required(true).args(["entity_type", "topic", "broker", "broker_defaults", "broker_logger"])))]
pub struct Arguments {
    #[command(flatten)]
    reach: Reach,
    #[arg(long)]
    describe: bool,
    #[arg(long)]
    alter: bool,
    /// With --describe: also what is not the entity's own
    #[arg(long)]
    all: bool,
    #[arg(long)]
    entity_type: Option<EntityType>,
    #[arg(long, value_name = "NAME")]
    entity_name: Option<String>,
    #[arg(long)]
    entity_default: bool,
    #[arg(long, value_name = "NAME")]
    topic: Option<String>,
    #[arg(long, value_name = "ID")]
    broker: Option<i32>,
    #[arg(long)]
    broker_defaults: bool,
    #[arg(long, value_name = "ID")]
    broker_logger: Option<i32>,
    /// a=1,b=[2,3]
    #[arg(long, value_name = "LIST")]
    add_config: Option<String>,
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    delete_config: Vec<String>,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let changes = changes(arguments)?;
    let mut client = arguments.reach.connect()?;
    client.look(Some(&[]))?;
    let mut out = Output::new()?;
    for resource in resources(arguments, &mut client)? {
        match arguments.alter {
            true => {
                alter(&mut client, &resource, &changes, false)?;
                out.line(&match &resource {
                    Resource::BrokerDefault => {
                        "Completed updating default config for brokers in the cluster.".to_owned()
                    }
                    resource => format!("Completed updating config for {}.", entity(resource)),
                })?;
            }
            false => describe(&mut out, &mut client, &resource, arguments.all)?,
        }
    }
    out.finish()
}

fn entity(resource: &Resource) -> String {
    match resource {
        Resource::Topic(name) => format!("topic {name}"),
        Resource::Broker(id) => format!("broker {id}"),
        Resource::BrokerLoggers(id) => format!("broker-logger {id}"),
        Resource::BrokerDefault => "brokers".to_owned(),
    }
}

/// Those that are named, or all of their type.
fn resources(arguments: &Arguments, client: &mut Client) -> Result<Vec<Resource>, Failure> {
    let id = |name: &str| {
        name.parse().map_err(|_| {
            Failure::Usage(format!("The entity name for brokers must be a valid integer broker id, but it is: {name}"))
        })
    };
    let brokers: Vec<i32> = client.cluster.brokers.iter().map(|broker| broker.id).collect();
    if let Some(name) = &arguments.topic {
        return Ok(vec![Resource::Topic(name.clone())]);
    }
    if let Some(id) = arguments.broker {
        return Ok(vec![Resource::Broker(id)]);
    }
    if let Some(id) = arguments.broker_logger {
        return Ok(vec![Resource::BrokerLoggers(id)]);
    }
    match (arguments.entity_type, arguments.entity_name.as_deref()) {
        _ if arguments.broker_defaults => Ok(vec![Resource::BrokerDefault]),
        (Some(EntityType::Topics), Some(name)) => Ok(vec![Resource::Topic(name.to_owned())]),
        (Some(EntityType::Brokers), None) if arguments.entity_default => Ok(vec![Resource::BrokerDefault]),
        (Some(EntityType::Brokers), Some(name)) => Ok(vec![Resource::Broker(id(name)?)]),
        (Some(EntityType::BrokerLoggers), Some(name)) => Ok(vec![Resource::BrokerLoggers(id(name)?)]),
        (_, None) if arguments.alter => {
            Err(Failure::Usage("an entity name must be specified with --alter: --entity-name".to_owned()))
        }
        (Some(EntityType::Topics), None) => {
            let topics = admin::all_topics(client, true)?;
            Ok(topics.into_iter().map(|topic| Resource::Topic(topic.name)).collect())
        }
        (Some(EntityType::Brokers), None) => {
            Ok(brokers.into_iter().map(Resource::Broker).chain([Resource::BrokerDefault]).collect())
        }
        (Some(EntityType::BrokerLoggers), None) => Ok(brokers.into_iter().map(Resource::BrokerLoggers).collect()),
        _ => Err(Failure::Refused("settings of users, clients and ips are not there yet".to_owned())),
    }
}

fn describe(out: &mut Output, client: &mut Client, resource: &Resource, all: bool) -> Result<(), Failure> {
    let kind = if all { "All" } else { "Dynamic" };
    out.line(&match resource {
        Resource::BrokerDefault => "Default configs for brokers in the cluster are:".to_owned(),
        resource => format!("{kind} configs for {} are:", entity(resource)),
    })?;
    let found = settings(client, resource, None)?;
    for setting in found.iter().filter(|setting| all || is_own(setting, resource)) {
        out.line(&line(setting))?;
    }
    Ok(())
}

fn line(setting: &Setting) -> String {
    let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "null".to_owned());
    let synonym =
        |(name, of, source): &(String, Option<String>, Source)| format!("{}:{name}={}", source.name(), value(of));
    let synonyms: Vec<String> = setting.synonyms.iter().map(synonym).collect();
    let (name, of, sensitive) = (&setting.name, value(&setting.value), setting.is_sensitive);
    format!("  {name}={of} sensitive={sensitive} synonyms={{{}}}", synonyms.join(", "))
}

fn changes(arguments: &Arguments) -> Result<Vec<(String, Change)>, Failure> {
    let mut changes = match &arguments.add_config {
        Some(list) => additions(list).map_err(Failure::Usage)?,
        None => Vec::new(),
    };
    changes.extend(arguments.delete_config.iter().map(|name| (name.trim().to_owned(), Change::Delete)));
    match arguments.alter && changes.is_empty() {
        true => Err(Failure::Usage(
            "At least one of --add-config, --add-config-file, or --delete-config must be specified with --alter"
                .to_owned(),
        )),
        false => Ok(changes),
    }
}

/// `a=1,b=[2,3]`: commas within brackets belong to the value.
fn additions(list: &str) -> Result<Vec<(String, Change)>, String> {
    let (mut changes, mut depth, mut start) = (Vec::new(), 0, 0);
    for (place, letter) in list.char_indices().chain([(list.len(), ',')]) {
        match letter {
            '[' => depth += 1,
            ']' => depth -= 1,
            ',' if depth == 0 || place == list.len() => {
                let pair = &list[start..place];
                start = place + 1;
                let wrong = || {
                    format!("invalid entity config: all configs to be added must be in the format \"key=val\": {pair}")
                };
                let (name, value) = pair.split_once('=').ok_or_else(wrong)?;
                let value =
                    value.trim().strip_prefix('[').and_then(|value| value.strip_suffix(']')).unwrap_or(value.trim());
                changes.push((name.trim().to_owned(), Change::Set(value.to_owned())));
            }
            _ => {}
        }
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_in_brackets_is_one_value() {
        let set = |name: &str, value: &str| (name.to_owned(), Change::Set(value.to_owned()));
        let found = additions("cleanup.policy=[compact,delete], retention.ms=5,x=").unwrap();
        assert_eq!(found, [set("cleanup.policy", "compact,delete"), set("retention.ms", "5"), set("x", "")]);
        assert!(additions("retention.ms").is_err() && additions("").is_err());
    }
}
