//! `ringlog cluster info`: brokers, controller, versions, and the room in their log directories.

#![forbid(unsafe_code)]

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Common;
use super::admin::{self, LogDir};
use super::connect::{Client, To};
use super::failure::{EXIT_CODES, Failure, say};
use super::output::Output;
use super::table::{Column, Table, human_bytes};
use crate::client::cluster::Broker;

const INFO_EXAMPLES: &str = "\
Examples:
  ringlog cluster info
  ringlog cluster info --versions -b kafka1:9092,kafka2:9092
  ringlog cluster info --json | jq .brokers[].log_dirs";

#[derive(Args, Debug)]
#[command(after_help = EXIT_CODES)]
pub struct ClusterArguments {
    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Subcommand, Debug)]
enum ClusterCommand {
    Info(InfoArguments),
}

/// Show the cluster's id, controller and brokers, with the sizes of their log directories
#[derive(Args, Debug)]
#[command(after_help = INFO_EXAMPLES, after_long_help = format!("{INFO_EXAMPLES}\n\n{EXIT_CODES}"))]
struct InfoArguments {
    #[command(flatten)]
    common: Common,

    /// Also the APIs that each broker has, with their lowest and highest version
    #[arg(long)]
    versions: bool,
}

pub fn run(arguments: ClusterArguments) -> Result<(), Failure> {
    let ClusterCommand::Info(arguments) = arguments.command;
    let mut client = Client::connect(&arguments.common.connect)?;
    client.look(Some(&[]))?;
    let brokers = client.cluster.brokers.clone();
    let mut seen = Vec::new();
    for broker in &brokers {
        let log_dirs = admin::log_dirs(&mut client, broker.id, None);
        if let Err(failure @ Failure::Unreachable(_)) = &log_dirs {
            say(&format!("ringlog: {failure}"));
        }
        seen.push((broker, log_dirs.unwrap_or_default()));
    }
    match arguments.common.json {
        true => print_json(&mut client, &seen, arguments.versions),
        false => print(&mut client, &seen, arguments.versions),
    }
}

fn print(client: &mut Client, brokers: &[(&Broker, Vec<LogDir>)], versions: bool) -> Result<(), Failure> {
    let mut out = Output::new()?;
    let controller = client.cluster.controller;
    out.line(&format!("cluster id  {}", client.cluster.id.as_deref().unwrap_or("none")))?;
    out.line(&format!("controller  {}\n", controller.map_or("none".to_owned(), |id| id.to_string())))?;
    let mut table = Table::new(&[Column::Number("BROKER"), Column::Text("ADDRESS"), Column::Text("RACK")]);
    for (broker, _) in brokers {
        table.row(vec![broker.id.to_string(), broker.address(), broker.rack.clone().unwrap_or_else(|| "-".into())]);
    }
    out.table(&table)?;
    let room = |bytes: Option<i64>| bytes.map_or("-".to_owned(), human_bytes);
    let mut table = Table::new(&[
        Column::Number("BROKER"),
        Column::Text("LOG DIR"),
        Column::Number("PARTITIONS"),
        Column::Number("SIZE"),
        Column::Number("FREE"),
        Column::Number("OF"),
        Column::Text("STATE"),
    ]);
    for (broker, log_dirs) in brokers {
        for dir in log_dirs {
            table.row(vec![
                broker.id.to_string(),
                dir.path.clone(),
                dir.partitions.len().to_string(),
                human_bytes(dir.size()),
                room(dir.usable_bytes),
                room(dir.total_bytes),
                dir.state(),
            ]);
        }
    }
    out.line("")?;
    out.table(&table)?;
    if versions {
        let mut table = Table::new(&[
            Column::Number("BROKER"),
            Column::Text("API"),
            Column::Number("KEY"),
            Column::Number("LOWEST"),
            Column::Number("HIGHEST"),
        ]);
        for (broker, _) in brokers {
            for (key, range) in client.connection(To::Broker(broker.id))?.versions().iter() {
                let (lowest, highest) = (range.start().to_string(), range.end().to_string());
                table.row(vec![broker.id.to_string(), key.name().to_owned(), key.code().to_string(), lowest, highest]);
            }
        }
        out.line("")?;
        out.table(&table)?;
    }
    out.finish()
}

fn print_json(client: &mut Client, brokers: &[(&Broker, Vec<LogDir>)], versions: bool) -> Result<(), Failure> {
    let (id, controller) = (client.cluster.id.clone(), client.cluster.controller);
    let mut listed = Vec::new();
    for (broker, log_dirs) in brokers {
        let dir = |dir: &LogDir| {
            json!({
                "path": dir.path, "partitions": dir.partitions.len(), "size": dir.size(),
                "usable_bytes": dir.usable_bytes, "total_bytes": dir.total_bytes, "state": dir.state(),
            })
        };
        let mut shown = json!({
            "id": broker.id, "host": broker.host, "port": broker.port, "rack": broker.rack,
            "log_dirs": log_dirs.iter().map(dir).collect::<Vec<_>>(),
        });
        if versions {
            let versions = client.connection(To::Broker(broker.id))?.versions();
            let api = |(key, range): (crate::protocol::ApiKey, std::ops::RangeInclusive<i16>)| json!({"api": key.name(), "key": key.code(), "lowest": range.start(), "highest": range.end()});
            shown["versions"] = Value::Array(versions.iter().map(api).collect());
        }
        listed.push(shown);
    }
    let mut out = Output::new()?;
    out.json(&json!({"cluster_id": id, "controller": controller, "brokers": listed}))?;
    out.finish()
}
