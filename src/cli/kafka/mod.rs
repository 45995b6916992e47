//! Kafka's own command line tools by name: `ringlog kafka topics ...` takes what `kafka-topics.sh` takes and prints what
//! it prints, for scripts that were written for Kafka. `scripts/kafka-*.sh` call these.
//!
//! Flags are Kafka 3.9's. Clients' property files are read for what we can't honour, which is refused, not passed over.

#![forbid(unsafe_code)]

mod configs;
mod console_consumer;
mod console_producer;
mod delete_records;
mod dump_log;
mod get_offsets;
mod log_dirs;
mod perf_consumer;
mod perf_producer;
mod properties;
mod topics;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use regex::Regex;

use super::connect::{Client, ConnectArguments, address};
use super::failure::{Failure, reason};
use crate::client::cluster::Topic;

/// Kafka's `default.api.timeout.ms` is a minute; nobody waits so long for a broker that is not there.
const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Args, Debug)]
pub struct KafkaArguments {
    #[command(subcommand)]
    tool: KafkaTool,
}

#[derive(Subcommand, Debug)]
enum KafkaTool {
    /// kafka-topics.sh
    Topics(topics::Arguments),
    /// kafka-configs.sh
    Configs(configs::Arguments),
    /// kafka-get-offsets.sh
    GetOffsets(get_offsets::Arguments),
    /// kafka-delete-records.sh
    DeleteRecords(delete_records::Arguments),
    DumpLog(dump_log::DumpLogArguments),
    /// kafka-producer-perf-test.sh
    ProducerPerfTest(Box<perf_producer::ProducerPerfArguments>),
    /// kafka-consumer-perf-test.sh
    ConsumerPerfTest(Box<perf_consumer::ConsumerPerfArguments>),
    /// kafka-log-dirs.sh
    LogDirs(log_dirs::Arguments),
    /// kafka-console-producer.sh
    ConsoleProducer(console_producer::Arguments),
    /// kafka-console-consumer.sh
    ConsoleConsumer(console_consumer::Arguments),
}

pub fn run(arguments: KafkaArguments) -> Result<(), Failure> {
    match arguments.tool {
        KafkaTool::Topics(arguments) => topics::run(&arguments),
        KafkaTool::Configs(arguments) => configs::run(&arguments),
        KafkaTool::GetOffsets(arguments) => get_offsets::run(&arguments),
        KafkaTool::DeleteRecords(arguments) => delete_records::run(&arguments),
        KafkaTool::DumpLog(arguments) => dump_log::run(&arguments),
        KafkaTool::ProducerPerfTest(arguments) => perf_producer::run(*arguments),
        KafkaTool::ConsumerPerfTest(arguments) => perf_consumer::run(&arguments),
        KafkaTool::LogDirs(arguments) => log_dirs::run(&arguments),
        KafkaTool::ConsoleProducer(arguments) => console_producer::run(arguments),
        KafkaTool::ConsoleConsumer(arguments) => console_consumer::run(arguments),
    }
}

/// How Kafka's tools are told where the cluster is.
#[derive(Args, Debug)]
pub struct Reach {
    /// Brokers to begin with
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', value_parser = address)]
    pub bootstrap_server: Vec<String>,

    /// Not any more: give --bootstrap-server
    #[arg(long, value_name = "URLS", hide = true)]
    zookeeper: Option<String>,

    /// A file of a client's properties
    #[arg(long, value_name = "FILE", visible_aliases = ["producer.config", "consumer.config"])]
    command_config: Option<PathBuf>,
}

impl Reach {
    pub fn connect(&self) -> Result<Client, Failure> {
        self.connect_or(&[])
    }

    /// With brokers that an older flag named.
    pub fn connect_or(&self, brokers: &[String]) -> Result<Client, Failure> {
        if self.zookeeper.is_some() {
            return Err(Failure::Usage(
                "--zookeeper is no way to a broker; give --bootstrap-server HOST:PORT".to_owned(),
            ));
        }
        let bootstrap_server = match (self.bootstrap_server.is_empty(), brokers.is_empty()) {
            (false, _) => self.bootstrap_server.clone(),
            (true, false) => brokers.to_vec(),
            (true, true) => return Err(Failure::Usage("Missing required argument \"[bootstrap-server]\"".to_owned())),
        };
        if let Some(path) = &self.command_config {
            let name = path.display();
            let text = fs::read_to_string(path)
                .map_err(|error| Failure::Refused(format!("{name} can't be read: {}", reason(&error))))?;
            text.lines().try_for_each(|line| check_property(line.trim()))?;
        }
        Client::connect(&ConnectArguments { bootstrap_server, timeout: TIMEOUT })
    }
}

/// Refuses a client's property that asks for what these tools can't do.
pub fn check_property(line: &str) -> Result<(), Failure> {
    let Some((name, value)) = line.split_once('=') else { return Ok(()) };
    let (name, value) = (name.trim(), value.trim());
    let is_secured = name == "security.protocol" && !value.eq_ignore_ascii_case("PLAINTEXT");
    let needs_broker = matches!(name, "transactional.id" | "group.id");
    match is_secured || needs_broker {
        true => Err(Failure::Refused(format!("{name}={value} is not there yet"))),
        false => Ok(()),
    }
}

/// Topics whose whole name the expression matches; commas stand between alternatives (Kafka 3.9
/// `TopicFilter.IncludeList`).
pub fn matching(topics: Vec<Topic>, expression: Option<&str>, exclude_internal: bool) -> Result<Vec<Topic>, Failure> {
    let alternatives = expression.map(|text| text.trim().replace(',', "|").replace(' ', "").replace(['"', '\''], ""));
    let pattern = alternatives.map(|text| Regex::new(&format!("^(?:{text})$"))).transpose();
    let pattern = pattern.map_err(|error| Failure::Usage(format!("no regular expression: {error}")))?;
    let is_wanted = |topic: &Topic| {
        pattern.as_ref().is_none_or(|pattern| pattern.is_match(&topic.name)) && !(exclude_internal && topic.is_internal)
    };
    Ok(topics.into_iter().filter(is_wanted).collect())
}
