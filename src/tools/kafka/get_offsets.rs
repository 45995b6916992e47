//! `kafka-get-offsets` (Kafka 3.9 `GetOffsetShell`).

#![forbid(unsafe_code)]

use super::{ReachOrBrokerList, matching};
use crate::admin::{self, EARLIEST, LATEST, Place, list_offsets};
use crate::client::cluster::Topic;
use crate::failure::{Failure, describe, say};
use crate::output::Output;

/// ListOffsets' question for the record of the greatest timestamp (KIP-734).
const MAX_TIMESTAMP: i64 = -3;
/// Its questions of tiered storage (KIP-405): where the local log begins, and where the tiered one ends.
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

#[derive(clap::Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    brokers: ReachOrBrokerList,
    /// A regular expression
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Only these partitions
    #[arg(long, value_name = "N", value_delimiter = ',')]
    partitions: Vec<i32>,
    /// topic:0,topic:3-5,other
    #[arg(long, value_name = "LIST", conflicts_with_all = ["topic", "partitions"])]
    topic_partitions: Option<String>,
    /// latest (-1), earliest (-2), max-timestamp (-3), earliest-local (-4), latest-tiered (-5) or milliseconds
    #[arg(long, value_name = "TIME", default_value = "latest", value_parser = time, allow_hyphen_values = true)]
    time: i64,
    /// Without Kafka's own topics
    #[arg(long)]
    exclude_internal_topics: bool,
}

fn time(text: &str) -> Result<i64, String> {
    match text {
        "latest" | "-1" => Ok(LATEST),
        "earliest" | "-2" => Ok(EARLIEST),
        "max-timestamp" | "-3" => Ok(MAX_TIMESTAMP),
        "earliest-local" | "-4" => Ok(EARLIEST_LOCAL),
        "latest-tiered" | "-5" => Ok(LATEST_TIERED),
        _ => text.parse().ok().filter(|ms| *ms >= 0).ok_or_else(|| {
            format!(
                "Malformed time argument {text}. Please use -1 or latest / -2 or earliest / -3 or max-timestamp / -4 or \
                 earliest-local / -5 or latest-tiered, or a specified long format timestamp"
            )
        }),
    }
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    match get_offsets(arguments) {
        Err(Failure::Usage(why) | Failure::Refused(why) | Failure::Unreachable(why)) => {
            say(&format!("Error occurred: {why}"));
            Err(Failure::Told)
        }
        done => done,
    }
}

fn get_offsets(arguments: &Arguments) -> Result<(), Failure> {
    let mut client = arguments.brokers.connect()?;
    let topics = admin::all_topics(&mut client, true)?;
    let mut places = match &arguments.topic_partitions {
        Some(rules) => by_rules(&topics, rules, arguments.exclude_internal_topics)?,
        None => {
            let is_wanted = |index: &i32| arguments.partitions.is_empty() || arguments.partitions.contains(index);
            let topics = matching(topics, arguments.topic.as_deref(), arguments.exclude_internal_topics)?;
            topics.iter().flat_map(places).filter(|(_, index)| is_wanted(index)).collect()
        }
    };
    // Kafka sorts them as text: partition 10 before 2.
    places.sort_by_cached_key(|(topic, index)| format!("{topic}-{index}"));
    if places.is_empty() {
        return Err(Failure::Refused("Could not match any topic-partitions with the specified filters".to_owned()));
    }
    let asked: Vec<(Place, i64)> = places.iter().cloned().map(|place| (place, arguments.time)).collect();
    let found = list_offsets(&mut client, &asked, false)?;
    let mut out = Output::new()?;
    for place in places {
        match found.get(&place) {
            Some(Ok(found)) if found.offset >= 0 => out.line(&format!("{}:{}:{}", place.0, place.1, found.offset))?,
            Some(Err(code)) => say(&format!(
                "Skip getting offsets for topic-partition {}-{} due to error: {}",
                place.0,
                place.1,
                describe(*code, None)
            )),
            _ => {}
        }
    }
    out.finish()
}

fn places(topic: &Topic) -> Vec<Place> {
    topic.partitions.iter().map(|partition| (topic.name.clone(), partition.index)).collect()
}

/// Partitions that one of the rules has: `topic`, `topic:N`, `topic:N-M` (M exclusive), `topic:N-`, `topic:-M`, `:N`.
fn by_rules(topics: &[Topic], rules: &str, exclude_internal: bool) -> Result<Vec<Place>, Failure> {
    let mut chosen = Vec::new();
    // An empty rule means all, but Java's `split` leaves out those at the end.
    for rule in rules.trim_end_matches(',').split(',') {
        let (name, range) = rule.split_once(':').unwrap_or((rule, ""));
        let wrong = || Failure::Usage(format!("Invalid rule specification: {rule}"));
        let number =
            |text: &str, default: i32| if text.is_empty() { Ok(default) } else { text.parse().map_err(|_| wrong()) };
        let (first, end) = match range.split_once('-') {
            _ if range.is_empty() => (0, i32::MAX),
            Some((first, end)) => (number(first, 0)?, number(end, i32::MAX)?),
            None => (number(range, 0)?, number(range, 0)?.saturating_add(1)),
        };
        let named = if name.is_empty() { None } else { Some(name) };
        for topic in matching(topics.to_vec(), named, exclude_internal)? {
            chosen.extend(places(&topic).into_iter().filter(|(_, index)| (first..end).contains(index)));
        }
    }
    chosen.sort();
    chosen.dedup();
    Ok(chosen)
}
