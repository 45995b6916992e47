//! Kafka's own command line tools by name: `ringlog kafka topics ...` takes what `kafka-topics.sh` takes and prints what
//! it prints, for scripts that were written for Kafka. `scripts/kafka-*.sh` call these.
//!
//! Flags are Kafka 3.9's. Clients' property files are read for what we can't honour, which is refused, not passed over.

#![forbid(unsafe_code)]

mod configs;
mod console_consumer;
mod console_producer;
mod date_format;
mod delete_records;
mod deserializer;
mod get_offsets;
pub mod group_records;
mod kept_formatter;
mod log_dirs;
mod payload_file;
mod perf_consumer;
mod perf_metrics;
mod perf_producer;
mod properties;
mod topics;
pub mod transaction_records;

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use clap::error::ErrorKind;
use clap::{Args, Subcommand};
use regex::Regex;

use super::admin;
use super::connect::{Client, ConnectArguments, To, address};
use super::failure::{Failure, reason, say};
use crate::client::cluster::Topic;
use crate::protocol::ErrorCode;
use crate::protocol::message::{MetadataRequest, MetadataRequestTopic};

/// How long a topic that is asked for may take to be made; a Kafka client waits `max.block.ms`, a minute.
const CREATION_WAIT: Duration = Duration::from_secs(3);
const CREATION_LOOK: Duration = Duration::from_millis(20);

/// Kafka's `default.api.timeout.ms` is a minute; nobody waits so long for a broker that is not there.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What `--version` of Kafka's tools prints: the version whose flags and output these are, then our own.
pub const VERSION: &str = concat!("3.9.0 (ringlog ", env!("CARGO_PKG_VERSION"), ")");

/// One of Kafka's tools and what it is to do.
#[derive(Subcommand, Debug)]
pub enum KafkaTool {
    /// kafka-topics.sh: create, list, describe, change and delete topics
    #[command(arg_required_else_help = true)]
    Topics(topics::Arguments),
    /// kafka-configs.sh: show and change settings
    #[command(arg_required_else_help = true)]
    Configs(configs::Arguments),
    /// kafka-get-offsets.sh: first and last offsets of partitions, or those of a time
    #[command(arg_required_else_help = true)]
    GetOffsets(get_offsets::Arguments),
    /// kafka-delete-records.sh: delete the oldest records
    #[command(arg_required_else_help = true)]
    DeleteRecords(delete_records::Arguments),
    /// kafka-producer-perf-test.sh: how fast records are produced
    #[command(arg_required_else_help = true)]
    ProducerPerfTest(Box<perf_producer::ProducerPerfArguments>),
    /// kafka-consumer-perf-test.sh: how fast they are consumed
    #[command(arg_required_else_help = true)]
    ConsumerPerfTest(Box<perf_consumer::ConsumerPerfArguments>),
    /// kafka-log-dirs.sh: log directories of brokers and the sizes in them
    #[command(arg_required_else_help = true)]
    LogDirs(log_dirs::Arguments),
    /// kafka-console-producer.sh: send lines of standard input
    #[command(arg_required_else_help = true)]
    ConsoleProducer(console_producer::Arguments),
    /// kafka-console-consumer.sh: print records of topics
    #[command(arg_required_else_help = true)]
    ConsoleConsumer(console_consumer::Arguments),
}

impl KafkaTool {
    /// Does what it is to do.
    ///
    /// # Errors
    /// What to tell the person who called it; the exit code is Kafka's ([`as_kafkas`]).
    pub fn run(self) -> Result<(), Failure> {
        let done = match self {
            KafkaTool::Topics(arguments) => topics::run(&arguments),
            KafkaTool::Configs(arguments) => configs::run(&arguments),
            KafkaTool::GetOffsets(arguments) => get_offsets::run(&arguments),
            KafkaTool::DeleteRecords(arguments) => delete_records::run(&arguments),
            KafkaTool::ProducerPerfTest(arguments) => perf_producer::run(*arguments),
            KafkaTool::ConsumerPerfTest(arguments) => perf_consumer::run(&arguments),
            KafkaTool::LogDirs(arguments) => log_dirs::run(&arguments),
            KafkaTool::ConsoleProducer(arguments) => console_producer::run(arguments),
            KafkaTool::ConsoleConsumer(arguments) => console_consumer::run(arguments),
        };
        done.map_err(as_kafkas)
    }
}

/// The failure as Kafka's tools have it, which know one exit code for all that goes wrong.
pub fn as_kafkas(failure: Failure) -> Failure {
    match failure {
        Failure::Usage(text) | Failure::Unreachable(text) => Failure::Refused(text),
        failure => failure,
    }
}

/// Help, the version alone as Kafka prints it, or what is wrong with the flags, with Kafka's exit code for that.
pub fn report_usage(error: &clap::Error) -> ExitCode {
    // Nobody is left to tell if the terminal is gone.
    if error.kind() == ErrorKind::DisplayVersion {
        let _ = writeln!(io::stdout().lock(), "{VERSION}");
        return ExitCode::SUCCESS;
    }
    let _ = error.print();
    if error.exit_code() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The tool's own arguments, for what Kafka says about them.
fn arguments_line() -> String {
    std::env::args().skip(3).collect::<Vec<_>>().join(" ")
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
        self.connect_to(&self.bootstrap_server)
    }

    fn connect_to(&self, brokers: &[String]) -> Result<Client, Failure> {
        if self.zookeeper.is_some() {
            return Err(Failure::Usage(
                "--zookeeper is not a way to a broker; give --bootstrap-server HOST:PORT instead".to_owned(),
            ));
        }
        if brokers.is_empty() {
            return Err(Failure::Usage("Missing required argument \"[bootstrap-server]\"".to_owned()));
        }
        if let Some(path) = &self.command_config {
            let properties = read_properties(path)?;
            properties.iter().try_for_each(|(name, value)| check_property(&format!("{name}={value}")))?;
        }
        Client::connect(&ConnectArguments { bootstrap_server: brokers.to_vec(), timeout: TIMEOUT })
    }
}

/// The same of tools that still know the older flag, which gives way to the newer one.
#[derive(Args, Debug)]
pub struct ReachOrBrokerList {
    #[command(flatten)]
    pub reach: Reach,

    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', value_parser = address, hide = true)]
    broker_list: Vec<String>,
}

impl ReachOrBrokerList {
    pub fn connect(&self) -> Result<Client, Failure> {
        let newer = &self.reach.bootstrap_server;
        self.reach.connect_to(if newer.is_empty() { &self.broker_list } else { newer })
    }
}

/// Properties of a client: those of the flags, which win, before those of the file.
struct ClientProperties(Vec<(String, String)>);

impl ClientProperties {
    fn read(reach: &Reach, flags: &[(String, String)]) -> Result<ClientProperties, Failure> {
        flags.iter().try_for_each(|(name, value)| check_property(&format!("{name}={value}")))?;
        let file = reach.command_config.as_deref().map(read_properties).transpose()?.unwrap_or_default();
        Ok(ClientProperties(flags.iter().rev().cloned().chain(file.into_iter().rev()).collect()))
    }

    /// What the properties say, unless a flag of the tool's own said it.
    fn or<T>(
        &self,
        flag: Option<T>,
        name: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Failure> {
        let found = self.0.iter().find(|(known, _)| known == name);
        match (flag, found) {
            (None, Some((_, value))) => match parse(value.trim()) {
                Ok(value) => Ok(Some(value)),
                Err(why) => Err(Failure::Usage(format!("{name}={value}: {why}"))),
            },
            (flag, _) => Ok(flag),
        }
    }
}

/// A number, for [`ClientProperties::or`].
fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("'{text}' is not a possible number"))
}

/// A file of `name=value` lines (Java's properties, without continued lines and escapes).
fn read_properties(path: &Path) -> Result<Vec<(String, String)>, Failure> {
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::Refused(format!("{} can't be read: {}", path.display(), reason(&error))))?;
    let lines = text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with(['#', '!']));
    let pair = |line: &str| {
        let (name, value) = line.split_once('=').or_else(|| line.split_once(':')).unwrap_or((line, ""));
        (name.trim().to_owned(), value.trim_start().to_owned())
    };
    Ok(lines.map(pair).collect())
}

/// Asks for a topic as Kafka's own clients do, so that a broker with `auto.create.topics.enable` makes it.
///
/// A broker that makes topics answers at first that the topic is unknown, as one that does not; so this looks again
/// until [`CREATION_WAIT`] is over.
fn topic_or_new(client: &mut Client, name: &str) -> Result<Topic, Failure> {
    let deadline = Instant::now() + CREATION_WAIT;
    let names = [name.to_owned()];
    let mut is_told = false;
    loop {
        let topic = MetadataRequestTopic { name: Some(name.to_owned()), ..MetadataRequestTopic::default() };
        let request = MetadataRequest {
            topics: Some(vec![topic]),
            allow_auto_topic_creation: true,
            ..MetadataRequest::default()
        };
        client.ask(To::Any, &request, 1..=12)?;
        client.look(Some(&names))?;
        let found = client.cluster.topics.get(name);
        if let Some(topic) = found.filter(|topic| topic.partitions.iter().all(|partition| partition.leader.is_some())) {
            return Ok(topic.clone());
        }
        let code = client.cluster.refused.get(name).copied().and_then(ErrorCode::from_code);
        let may_come = matches!(code, None | Some(ErrorCode::UnknownTopicOrPartition | ErrorCode::LeaderNotAvailable));
        if !may_come || Instant::now() >= deadline {
            return admin::topic(client, name);
        }
        if !is_told {
            say(&format!("ringlog: there is no topic '{name}' yet; waiting for the broker to make it"));
            is_told = true;
        }
        thread::sleep(CREATION_LOOK);
    }
}

/// Refuses a client's property that asks for what these tools can't do.
fn check_property(line: &str) -> Result<(), Failure> {
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
