//! `kafka-topics` (Kafka 3.9 `TopicCommand`).

#![forbid(unsafe_code)]

use clap::ArgGroup;

use super::{Reach, matching};
use crate::admin::{self, Resource, Source, assignment};
use crate::base::ids::TopicId;
use crate::client::cluster::{Partition, Topic};
use crate::failure::Failure;
use crate::output::Output;
use crate::protocol::ErrorCode;
use crate::table::ids;
use crate::topic::{self, Replicas, ToCreate, create_partitions, create_topics, replicas};

const CONFIGS_HINT: &str = " (the kafka-configs CLI supports altering topic configs with a --bootstrap-server option)";

#[derive(clap::Args, Debug)]
#[command(group(ArgGroup::new("action").required(true).args(["list", "create", "delete", "alter", "describe"])))]
pub struct Arguments {
    #[command(flatten)]
    reach: Reach,
    /// List topics
    #[arg(long)]
    list: bool,
    /// Create a topic
    #[arg(long)]
    create: bool,
    /// Delete topics
    #[arg(long)]
    delete: bool,
    /// Give topics more partitions
    #[arg(long)]
    alter: bool,
    /// Show topics
    #[arg(long)]
    describe: bool,
    /// A name; a regular expression to --list, --describe, --alter and --delete
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// With --describe: the topic of this id, whatever --topic says
    #[arg(long, value_name = "ID", value_parser = topic_id)]
    topic_id: Option<TopicId>,
    /// With --create and --alter: how many in all
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    partitions: Option<i32>,
    /// Copies of each partition [default: the broker's]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    replication_factor: Option<i16>,
    /// 1:2,2:3: the brokers of each partition, preferred leader first
    #[arg(long, value_name = "BROKERS", value_delimiter = ',', value_parser = replicas)]
    replica_assignment: Vec<Replicas>,
    /// A setting of a new topic; may be given many times
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    config: Vec<(String, String)>,
    /// Not any more: see kafka-configs --delete-config
    #[arg(long, value_name = "NAME", hide = true)]
    delete_config: Option<String>,
    /// No such topic is no failure
    #[arg(long)]
    if_exists: bool,
    /// A topic that is there already is no failure
    #[arg(long)]
    if_not_exists: bool,
    /// Without Kafka's own topics
    #[arg(long)]
    exclude_internal: bool,
    /// Only partitions with fewer replicas in sync than they have
    #[arg(long)]
    under_replicated_partitions: bool,
    /// Only partitions without a leader
    #[arg(long)]
    unavailable_partitions: bool,
    /// Only partitions with fewer replicas in sync than min.insync.replicas
    #[arg(long)]
    under_min_isr_partitions: bool,
    /// Only partitions with exactly as many replicas in sync as min.insync.replicas
    #[arg(long)]
    at_min_isr_partitions: bool,
    /// Only topics with settings of their own, without partitions
    #[arg(long)]
    topics_with_overrides: bool,
    /// Without effect here: a topic's partitions come in one answer
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partition_size_limit_per_response: Option<i32>,
    /// Without effect: nothing is asked
    #[arg(long, hide = true)]
    force: bool,
}

fn topic_id(text: &str) -> Result<TopicId, String> {
    TopicId::parse(text).ok_or_else(|| format!("'{text}' is not a topic id, 22 letters of base64"))
}

impl Arguments {
    /// Kafka's sentences for flags that don't go together.
    fn check(&self) -> Result<(), Failure> {
        let wrong = |used: &str, with: &str| {
            Err(Failure::Usage(format!("Option \"[{used}]\" can't be used with option \"[{with}]\"")))
        };
        if self.delete_config.is_some() {
            return Err(Failure::Usage(format!(
                "Option \"[delete-config]\" can't be used with option \"[bootstrap-server]\"{CONFIGS_HINT}"
            )));
        }
        if self.alter && !self.config.is_empty() {
            return Err(Failure::Usage(format!(
                "Option combination \"[bootstrap-server],[config]\" can't be used with option \"[alter]\"{CONFIGS_HINT}"
            )));
        }
        let action = match self {
            Arguments { list: true, .. } => "list",
            Arguments { create: true, .. } => "create",
            Arguments { delete: true, .. } => "delete",
            Arguments { alter: true, .. } => "alter",
            _ => "describe",
        };
        let reports = [
            ("under-replicated-partitions", self.under_replicated_partitions),
            ("under-min-isr-partitions", self.under_min_isr_partitions),
            ("at-min-isr-partitions", self.at_min_isr_partitions),
            ("unavailable-partitions", self.unavailable_partitions),
        ];
        let of_actions: [(&str, bool, &[&str]); 8] = [
            ("config", !self.config.is_empty(), &["create"]),
            ("partitions", self.partitions.is_some(), &["create", "alter"]),
            ("replication-factor", self.replication_factor.is_some(), &["create"]),
            ("replica-assignment", !self.replica_assignment.is_empty(), &["create", "alter"]),
            ("if-exists", self.if_exists, &["alter", "delete", "describe"]),
            ("if-not-exists", self.if_not_exists, &["create"]),
            ("topics-with-overrides", self.topics_with_overrides, &["describe"]),
            ("exclude-internal", self.exclude_internal, &["list", "describe"]),
        ];
        let of_reports = reports.iter().map(|(name, given)| (*name, *given, &["describe"][..]));
        if let Some((used, ..)) =
            of_actions.into_iter().chain(of_reports).find(|(_, given, actions)| *given && !actions.contains(&action))
        {
            return wrong(used, action);
        }
        let mut given = reports.iter().filter(|(_, given)| *given).map(|(name, _)| *name);
        if let (Some(used), true) = (given.next(), self.topics_with_overrides) {
            return wrong(used, "topics-with-overrides");
        }
        if self.create && !self.replica_assignment.is_empty() {
            match self {
                Arguments { partitions: Some(_), .. } => return wrong("replica-assignment", "partitions"),
                Arguments { replication_factor: Some(_), .. } => {
                    return wrong("replica-assignment", "replication-factor");
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether only partitions in some trouble are shown.
    fn selects(&self) -> bool {
        self.under_replicated_partitions
            || self.unavailable_partitions
            || self.under_min_isr_partitions
            || self.at_min_isr_partitions
    }

    fn shows(&self, partition: &Partition, live: &[i32], min_isr: usize) -> bool {
        let in_sync = partition.isr.len();
        let has_leader = partition.leader.is_some();
        !self.selects()
            || self.under_replicated_partitions && in_sync < partition.replicas.len()
            || self.unavailable_partitions && partition.leader.is_none_or(|leader| !live.contains(&leader))
            || self.under_min_isr_partitions && (!has_leader || in_sync < min_isr)
            || self.at_min_isr_partitions && in_sync == min_isr
    }
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    arguments.check()?;
    let done = match arguments {
        Arguments { list: true, .. } => list(arguments),
        Arguments { create: true, .. } => create(arguments),
        Arguments { delete: true, .. } => delete(arguments),
        Arguments { alter: true, .. } => alter(arguments),
        _ => describe(arguments),
    };
    match done {
        Err(Failure::Refused(message) | Failure::Unreachable(message)) => {
            let mut out = Output::new()?;
            out.line(&format!("Error while executing topic command : {message}"))?;
            out.finish()?;
            Err(Failure::Told)
        }
        done => done,
    }
}

fn named(arguments: &Arguments) -> Result<&str, Failure> {
    arguments.topic.as_deref().ok_or_else(|| Failure::Usage("Missing required argument \"[topic]\"".to_owned()))
}

fn chosen(arguments: &Arguments) -> Result<(crate::connect::Client, Vec<Topic>), Failure> {
    let mut client = arguments.reach.connect()?;
    let topics = admin::all_topics(&mut client, true)?;
    if let Some(id) = arguments.topic_id.filter(|id| arguments.describe && *id != TopicId::ZERO) {
        let is_wanted = |topic: &Topic| topic.id == id && !(arguments.exclude_internal && topic.is_internal);
        let found: Vec<Topic> = topics.into_iter().filter(is_wanted).collect();
        return match found.is_empty() && !arguments.if_exists {
            true => Err(Failure::Refused(format!("TopicId '{id}' does not exist as expected"))),
            false => Ok((client, found)),
        };
    }
    let topics = matching(topics, arguments.topic.as_deref(), arguments.exclude_internal)?;
    match (&arguments.topic, topics.is_empty() && !arguments.if_exists && !arguments.list) {
        (Some(name), true) => Err(Failure::Refused(format!("Topic '{name}' does not exist as expected"))),
        _ => Ok((client, topics)),
    }
}

fn list(arguments: &Arguments) -> Result<(), Failure> {
    let (_, topics) = chosen(arguments)?;
    let names: Vec<String> = topics.into_iter().map(|topic| topic.name).collect();
    let mut out = Output::new()?;
    // One line even if there is nothing to list.
    out.line(&names.join("\n"))?;
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
    let unusable = match arguments {
        Arguments { replication_factor: Some(..1), .. } => {
            Some(format!("The replication factor must be between 1 and {} inclusive", i16::MAX))
        }
        Arguments { partitions: Some(..1), .. } => Some("The partitions must be greater than 0".to_owned()),
        _ => None,
    };
    if let Some(why) = unusable {
        out.flush(None)?;
        return Err(Failure::Refused(why));
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
                return Err(Failure::Refused(text.unwrap_or_else(|| crate::failure::describe(code, None))));
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
    if arguments.if_exists && arguments.topic.is_none() && arguments.topic_id.is_none() {
        return Err(Failure::Usage("--topic or --topic-id is required to describe a topic".to_owned()));
    }
    let mut out = Output::new()?;
    if arguments.if_exists && arguments.topic.is_some() && arguments.topic_id.is_some() {
        out.line(
            "Only topic id will be used when both --topic and --topic-id are specified and topicId is not Uuid.ZERO_UUID",
        )?;
        out.flush(None)?;
    }
    let (mut client, topics) = chosen(arguments)?;
    let live: Vec<i32> = client.cluster.brokers.iter().map(|broker| broker.id).collect();
    for topic in topics {
        let all = admin::settings(&mut client, &Resource::Topic(topic.name.clone()), None)?;
        let min_isr = all.iter().find(|setting| setting.name == "min.insync.replicas");
        let min_isr = min_isr.and_then(|setting| setting.value.as_deref()?.parse().ok()).unwrap_or(1);
        // Kafka shows what its file says too, not only what the topic says itself.
        let settings: Vec<String> = all
            .iter()
            .filter(|setting| setting.source != Source::DEFAULT)
            .map(|setting| format!("{}={}", setting.name, setting.value.as_deref().unwrap_or("")))
            .collect();
        if arguments.topics_with_overrides && settings.is_empty() {
            continue;
        }
        let (name, count) = (&topic.name, topic.partitions.len());
        let factor = topic.partitions.first().map_or(0, |partition| partition.replicas.len());
        if !arguments.selects() {
            out.line(&format!(
                "Topic: {name}\tTopicId: {}\tPartitionCount: {count}\tReplicationFactor: {factor}\tConfigs: {}",
                topic.id,
                settings.join(",")
            ))?;
        }
        if arguments.topics_with_overrides {
            continue;
        }
        for partition in topic.partitions.iter().filter(|partition| arguments.shows(partition, &live, min_isr)) {
            let leader = partition.leader.map_or("none".to_owned(), |leader| leader.to_string());
            let (replicas, isr) = (ids(&partition.replicas), ids(&partition.isr));
            out.line(&format!(
                "\tTopic: {name}\tPartition: {}\tLeader: {leader}\tReplicas: {replicas}\tIsr: {isr}\tElr: N/A\tLastKnownElr: N/A",
                partition.index
            ))?;
        }
    }
    out.finish()
}
