//! `kafka-configs` (Kafka 3.9 `ConfigCommand`), of topics, brokers and their loggers.

#![forbid(unsafe_code)]

use std::path::PathBuf;

use clap::{ArgGroup, ValueEnum};

use super::{Reach, read_properties};
use crate::admin::{self, Change, Resource, Setting, Source, alter, settings};
use crate::config::is_own;
use crate::connect::Client;
use crate::failure::{Failure, say};
use crate::output::Output;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "kebab-case")]
enum EntityType {
    Topics,
    Brokers,
    BrokerLoggers,
    Users,
    Clients,
    Ips,
    ClientMetrics,
}

#[derive(clap::Args, Debug)]
#[command(override_usage = "kafka-configs.sh --bootstrap-server <HOST:PORT> <--describe|--alter> <WHOSE> [OPTIONS]")]
#[command(group(ArgGroup::new("action").required(true).args(["describe", "alter"])))]
#[command(group(ArgGroup::new("entity").required(true).multiple(true).args(["entity_type", "topic", "broker", "broker_defaults", "broker_logger",
    "user", "client", "ip", "user_defaults", "client_defaults", "ip_defaults"])))]
pub struct Arguments {
    #[command(flatten)]
    reach: Reach,
    /// Show settings
    #[arg(long)]
    describe: bool,
    /// Change settings
    #[arg(long)]
    alter: bool,
    /// With --describe: also what is not the entity's own
    #[arg(long)]
    all: bool,
    /// Whose settings; --topic and the like say type and name at once
    #[arg(long)]
    entity_type: Vec<EntityType>,
    /// A topic's name or a broker's id
    #[arg(long, value_name = "NAME")]
    entity_name: Vec<String>,
    /// Of all brokers that have nothing of their own
    #[arg(long)]
    entity_default: bool,
    /// A topic's
    #[arg(long, value_name = "NAME")]
    topic: Option<String>,
    /// A broker's
    #[arg(long, value_name = "ID")]
    broker: Option<String>,
    /// Of all brokers that have nothing of their own
    #[arg(long)]
    broker_defaults: bool,
    /// Of a broker's loggers
    #[arg(long, value_name = "ID")]
    broker_logger: Option<String>,
    #[arg(long, value_name = "NAME", hide = true)]
    user: Option<String>,
    #[arg(long, value_name = "ID", hide = true)]
    client: Option<String>,
    #[arg(long, value_name = "ADDRESS", hide = true)]
    ip: Option<String>,
    #[arg(long, hide = true)]
    user_defaults: bool,
    #[arg(long, hide = true)]
    client_defaults: bool,
    #[arg(long, hide = true)]
    ip_defaults: bool,
    /// a=1,b=[2,3]
    #[arg(long, value_name = "LIST", conflicts_with = "add_config_file")]
    add_config: Option<String>,
    /// The same, a line each
    #[arg(long, value_name = "FILE")]
    add_config_file: Option<PathBuf>,
    /// Settings that are to have their defaults again
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    delete_config: Vec<String>,
    /// Not here: a broker answers for all
    #[arg(long, value_name = "HOST:PORT", hide = true)]
    bootstrap_controller: Option<String>,
    /// Goes with --zookeeper, which is not there
    #[arg(long, value_name = "FILE", hide = true)]
    zk_tls_config_file: Option<PathBuf>,
    /// Without effect: nothing is asked
    #[arg(long, hide = true)]
    force: bool,
}

const NOT_THERE: &str = "settings of users, clients, ips and client metrics are not there yet";

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.bootstrap_controller.is_some() {
        return Err(Failure::Usage(
            "--bootstrap-controller is not there; give --bootstrap-server HOST:PORT".to_owned(),
        ));
    }
    if arguments.zk_tls_config_file.is_some() {
        return Err(Failure::Usage(
            "Only the --zookeeper option can be used with the --zk-tls-config-file option; leave both out and give \
             --bootstrap-server HOST:PORT"
                .to_owned(),
        ));
    }
    match describe_or_alter(arguments) {
        Err(Failure::Refused(text) | Failure::Unreachable(text)) => {
            say(&format!("Error while executing config command with args '{}'\n{text}", super::arguments_line()));
            Err(Failure::Told)
        }
        done => done,
    }
}

fn describe_or_alter(arguments: &Arguments) -> Result<(), Failure> {
    let named = arguments.named()?;
    let changes = changes(arguments)?;
    let mut client = arguments.reach.connect()?;
    client.look(Some(&[]))?;
    let mut out = Output::new()?;
    for resource in resources(named, &mut client)? {
        match arguments.alter {
            true => {
                check_deletions(&mut client, &resource, &changes)?;
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

/// Only what is set can be deleted.
fn check_deletions(client: &mut Client, resource: &Resource, changes: &[(String, Change)]) -> Result<(), Failure> {
    let deleted: Vec<&str> =
        changes.iter().filter(|(_, change)| *change == Change::Delete).map(|(name, _)| &name[..]).collect();
    if deleted.is_empty() {
        return Ok(());
    }
    let found = settings(client, resource, None)?;
    let is_set = |name: &&str| found.iter().any(|setting| setting.name == *name && is_own(setting, resource));
    let invalid: Vec<&str> = deleted.into_iter().filter(|name| !is_set(name)).collect();
    match invalid.is_empty() {
        true => Ok(()),
        false => Err(Failure::Usage(format!("Invalid config(s): {}", invalid.join(",")))),
    }
}

fn entity(resource: &Resource) -> String {
    match resource {
        Resource::Topic(name) => format!("topic {name}"),
        Resource::Broker(id) => format!("broker {id}"),
        Resource::BrokerLoggers(id) => format!("broker-logger {id}"),
        Resource::BrokerDefault => "brokers".to_owned(),
    }
}

/// What is named, before anything is asked.
enum Named {
    One(Resource),
    /// All of a type that have settings.
    Topics,
    Brokers,
}

impl Arguments {
    /// Types and names, those of the flags that say both among them; an empty name is the default's.
    fn entities(&self) -> Result<(Vec<EntityType>, Vec<String>), Failure> {
        let named = [
            (EntityType::Topics, self.topic.clone()),
            (EntityType::Clients, self.client.clone()),
            (EntityType::Users, self.user.clone()),
            (EntityType::Brokers, self.broker.clone()),
            (EntityType::BrokerLoggers, self.broker_logger.clone()),
            (EntityType::Ips, self.ip.clone()),
            (EntityType::Clients, self.client_defaults.then(String::new)),
            (EntityType::Users, self.user_defaults.then(String::new)),
            (EntityType::Brokers, self.broker_defaults.then(String::new)),
            (EntityType::Ips, self.ip_defaults.then(String::new)),
        ];
        let (mut types, mut names) = (self.entity_type.clone(), self.entity_name.clone());
        names.extend(self.entity_default.then(String::new));
        let is_general = !types.is_empty() || !names.is_empty();
        for (kind, name) in named {
            types.extend(name.is_some().then_some(kind));
            names.extend(name);
        }
        if is_general && types.len() > self.entity_type.len() {
            return Err(Failure::Usage(
                "--entity-{type,name,default} should not be used in conjunction with specific entity flags".to_owned(),
            ));
        }
        Ok((types, names))
    }

    /// Kafka's rules of what may be named with what (Kafka 3.9 `ConfigCommandOptions.checkArgs`).
    fn named(&self) -> Result<Named, Failure> {
        let wrong = |text: &str| Err(Failure::Usage(text.to_owned()));
        let (types, names) = self.entities()?;
        let [kind] = types[..] else {
            return match types.iter().all(|kind| matches!(kind, EntityType::Users | EntityType::Clients)) {
                true => wrong(NOT_THERE),
                false => wrong("Only 'users' and 'clients' entity types may be specified together"),
            };
        };
        let id = |name: &str| {
            let wrong =
                format!("The entity name for {} must be a valid integer broker id, but it is: {name}", kind.name());
            name.parse().map_err(|_| Failure::Usage(wrong))
        };
        match (kind, &names[..]) {
            (EntityType::Topics, [name]) if !name.is_empty() => Ok(Named::One(Resource::Topic(name.clone()))),
            (EntityType::Brokers, [name]) if name.is_empty() => Ok(Named::One(Resource::BrokerDefault)),
            (EntityType::Brokers, [name]) => Ok(Named::One(Resource::Broker(id(name)?))),
            (EntityType::BrokerLoggers, [name]) if !name.is_empty() => {
                Ok(Named::One(Resource::BrokerLoggers(id(name)?)))
            }
            (EntityType::Topics, []) if !self.alter => Ok(Named::Topics),
            (EntityType::Brokers, []) if !self.alter => Ok(Named::Brokers),
            (EntityType::Brokers, []) => wrong(
                "an entity-name or default entity must be specified with --alter of users, clients, brokers or ips",
            ),
            (EntityType::Topics | EntityType::Brokers | EntityType::BrokerLoggers, [_, _, ..]) => {
                wrong("there is more than one entity name; give one")
            }
            (EntityType::Topics | EntityType::BrokerLoggers, _) => {
                let action = if self.alter { "alter" } else { "describe" };
                wrong(&format!("an entity name must be specified with --{action} of {}", kind.name()))
            }
            (EntityType::Users | EntityType::Clients | EntityType::Ips | EntityType::ClientMetrics, _) => {
                wrong(NOT_THERE)
            }
        }
    }
}

impl EntityType {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// Those that are named, or all of their type.
fn resources(named: Named, client: &mut Client) -> Result<Vec<Resource>, Failure> {
    match named {
        Named::One(resource) => Ok(vec![resource]),
        Named::Topics => {
            let topics = admin::all_topics(client, true)?;
            Ok(topics.into_iter().map(|topic| Resource::Topic(topic.name)).collect())
        }
        Named::Brokers => {
            let brokers = client.cluster.brokers.iter().map(|broker| Resource::Broker(broker.id));
            Ok(brokers.chain([Resource::BrokerDefault]).collect())
        }
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
    let mut changes = match (&arguments.add_config, &arguments.add_config_file) {
        (Some(list), _) => additions(list).map_err(Failure::Usage)?,
        (None, Some(file)) => {
            read_properties(file)?.into_iter().map(|(name, value)| (name, Change::Set(value))).collect()
        }
        (None, None) => Vec::new(),
    };
    // Kafka's letters, and the ':' of our loggers.
    let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte));
    if let Some((name, _)) = changes.iter().find(|(name, _)| !is_name(name)) {
        return Err(Failure::Usage(format!("Invalid character found for config key: {name}")));
    }
    if arguments.describe && !(changes.is_empty() && arguments.delete_config.is_empty()) {
        return Err(Failure::Usage("Option \"[describe]\" can't be used with a change".to_owned()));
    }
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
