//! `ringlog config`: settings of topics, brokers, all brokers, and loggers.

#![forbid(unsafe_code)]

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Common;
use super::admin::{self, Change, Resource, Setting, Source, alter, assignment, settings};
use super::connect::Client;
use super::failure::{EXIT_CODES, Failure, say};
use super::output::Output;
use super::table::{Column, Table};
use crate::client::cluster::nearest;

const EXAMPLES: &str = "\
Examples:
  ringlog config get --topic orders                   what the topic has of its own
  ringlog config get --topic orders --all             everything in force, and where it comes from
  ringlog config get --broker 1 log.retention.ms
  ringlog config set --topic orders retention.ms=3600000
  ringlog config set --topic orders --append cleanup.policy=compact
  ringlog config set --broker-default --delete log.retention.ms
  ringlog config set --broker-loggers 1 ringlog::net=DEBUG";

#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct ConfigArguments {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Subcommand, Debug)]
enum ConfigCommand {
    Get(GetArguments),
    Set(SetArguments),
}

/// Whose settings
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
struct Whose {
    /// Of a topic
    #[arg(short, long, value_name = "NAME")]
    topic: Option<String>,

    /// Of one broker
    #[arg(long, value_name = "ID")]
    broker: Option<i32>,

    /// Of all brokers that have nothing of their own
    #[arg(long)]
    broker_default: bool,

    /// Levels of one broker's loggers
    #[arg(long, value_name = "ID")]
    broker_loggers: Option<i32>,
}

/// Show settings
#[derive(Args, Debug)]
#[command(override_usage = "ringlog config get [OPTIONS] <WHOSE> [NAME]...")]
struct GetArguments {
    #[command(flatten)]
    common: Common,

    #[command(flatten)]
    whose: Whose,

    /// Only these settings
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    /// Also what has its default, or comes from the broker's file, and every place a value may come from
    #[arg(short, long)]
    all: bool,
}

/// Change settings
#[derive(Args, Debug)]
#[command(override_usage = "ringlog config set [OPTIONS] <WHOSE> [NAME=VALUE]...")]
struct SetArguments {
    #[command(flatten)]
    common: Common,

    #[command(flatten)]
    whose: Whose,

    /// Give settings these values
    #[arg(value_name = "NAME=VALUE", value_parser = assignment, required_unless_present_any = ["append", "subtract", "delete"])]
    set: Vec<(String, String)>,

    /// Add to a setting that is a list; may be given many times
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    append: Vec<(String, String)>,

    /// Take out of a setting that is a list; may be given many times
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    subtract: Vec<(String, String)>,

    /// Let a setting have its default again; may be given many times
    #[arg(long, value_name = "NAME")]
    delete: Vec<String>,

    /// Only let the broker check it
    #[arg(long)]
    validate_only: bool,
}

impl Whose {
    /// The resource; one broker's needs a look at the cluster first.
    fn resource(&self, client: &mut Client) -> Result<Resource, Failure> {
        if self.broker.is_some() || self.broker_loggers.is_some() {
            client.look(Some(&[]))?;
        }
        Ok(match (&self.topic, self.broker, self.broker_loggers) {
            (Some(name), _, _) => Resource::Topic(name.clone()),
            (_, Some(id), _) => Resource::Broker(id),
            (_, _, Some(id)) => Resource::BrokerLoggers(id),
            _ => Resource::BrokerDefault,
        })
    }
}

pub fn run(arguments: ConfigArguments) -> Result<(), Failure> {
    match arguments.command {
        ConfigCommand::Get(arguments) => get(&arguments),
        ConfigCommand::Set(arguments) => set(&arguments),
    }
}

/// Whether a setting is the resource's own.
pub fn is_own(setting: &Setting, resource: &Resource) -> bool {
    match resource {
        Resource::Topic(_) => setting.source == Source::DYNAMIC_TOPIC,
        Resource::Broker(_) => setting.source == Source::DYNAMIC_BROKER,
        Resource::BrokerDefault => setting.source == Source::DYNAMIC_DEFAULT_BROKER,
        Resource::BrokerLoggers(_) => true,
    }
}

fn get(arguments: &GetArguments) -> Result<(), Failure> {
    let mut client = Client::connect(&arguments.common.connect)?;
    let resource = arguments.whose.resource(&mut client)?;
    // All are asked for, so that a slip in a name can be told from a setting that is not there.
    let found = settings(&mut client, &resource, None)?;
    for name in &arguments.names {
        if !found.iter().any(|setting| setting.name == *name) {
            return Err(no_setting(&resource, name, &found));
        }
    }
    let is_shown = |setting: &&Setting| match arguments.names.is_empty() {
        true => arguments.all || is_own(setting, &resource),
        false => arguments.names.contains(&setting.name),
    };
    let shown: Vec<&Setting> = found.iter().filter(is_shown).collect();
    let mut out = Output::new()?;
    if arguments.common.json {
        out.json(&Value::Array(shown.into_iter().map(setting_json).collect()))?;
        return out.finish();
    }
    let mut columns = vec![Column::Text("NAME"), Column::Text("VALUE"), Column::Text("SOURCE")];
    if arguments.all {
        columns.push(Column::Text("SYNONYMS"));
    }
    if shown.is_empty() {
        say("nothing is set there; --all shows what is in force, and where it comes from");
    }
    let mut table = Table::new(&columns);
    for setting in shown {
        let mut cells = vec![setting.name.clone(), value_text(setting), setting.source.name().to_owned()];
        if arguments.all {
            let synonym = |(name, value, source): &(String, Option<String>, Source)| {
                format!("{}:{name}={}", source.name(), value.as_deref().unwrap_or("null"))
            };
            cells.push(setting.synonyms.iter().map(synonym).collect::<Vec<_>>().join(", "));
        }
        table.row(cells);
    }
    out.table(&table)?;
    out.finish()
}

fn value_text(setting: &Setting) -> String {
    match &setting.value {
        Some(value) => value.clone(),
        None if setting.is_sensitive => "(hidden)".to_owned(),
        None => "(none)".to_owned(),
    }
}

fn setting_json(setting: &Setting) -> Value {
    let synonym = |(name, value, source): &(String, Option<String>, Source)| json!({"name": name, "value": value, "source": source.name()});
    json!({
        "name": setting.name, "value": setting.value, "source": setting.source.name(),
        "read_only": setting.read_only, "sensitive": setting.is_sensitive,
        "synonyms": setting.synonyms.iter().map(synonym).collect::<Vec<_>>(),
    })
}

fn no_setting(resource: &Resource, name: &str, found: &[Setting]) -> Failure {
    Failure::Refused(match nearest(name, found.iter().map(|setting| setting.name.as_str())) {
        Some(near) => format!("{resource}: there is no setting '{name}'; did you mean '{near}'?"),
        None => format!("{resource}: there is no setting '{name}'; 'ringlog config get --all' shows all"),
    })
}

fn set(arguments: &SetArguments) -> Result<(), Failure> {
    let of = |pairs: &[(String, String)], change: fn(String) -> Change| {
        pairs.iter().map(|(name, value)| (name.clone(), change(value.clone()))).collect::<Vec<_>>()
    };
    let mut changes = of(&arguments.set, Change::Set);
    changes.extend(of(&arguments.append, Change::Append));
    changes.extend(of(&arguments.subtract, Change::Subtract));
    changes.extend(arguments.delete.iter().map(|name| (name.clone(), Change::Delete)));
    let mut client = Client::connect(&arguments.common.connect)?;
    let resource = arguments.whose.resource(&mut client)?;
    alter(&mut client, &resource, &changes, arguments.validate_only)?;
    let mut out = Output::new()?;
    let names: Vec<&str> = changes.iter().map(|(name, _)| name.as_str()).collect();
    let verb = if arguments.validate_only { "could change" } else { "changed" };
    match arguments.common.json {
        true => out.json(&json!({"changed": names, "validate_only": arguments.validate_only}))?,
        false => out.line(&format!("{verb} {} of {resource}", admin::list(&names)))?,
    }
    out.finish()
}
