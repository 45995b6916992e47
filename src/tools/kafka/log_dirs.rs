//! `kafka-log-dirs` (Kafka 3.9 `LogDirsCommand`).

#![forbid(unsafe_code)]

use serde_json::to_string;

use super::Reach;
use crate::admin::{self, LogDir};
use crate::failure::{Failure, describe};
use crate::output::Output;
use crate::table::ids;

#[derive(clap::Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    reach: Reach,
    /// Show the log directories
    #[arg(long, required = true)]
    describe: bool,
    /// Only these topics
    #[arg(long, value_name = "TOPICS", default_value = "", hide_default_value = true)]
    topic_list: String,
    /// Only these brokers
    #[arg(long, value_name = "IDS", default_value = "", hide_default_value = true)]
    broker_list: String,
}

/// What stands between commas: nothing is no element, as in Kafka, where scripts may give an empty list for all.
fn elements(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').filter(|element| !element.is_empty())
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let topics: Vec<&str> = elements(&arguments.topic_list).collect();
    let wrong = |text| Failure::Usage(format!("--broker-list: '{text}' is no broker's id"));
    let asked = elements(&arguments.broker_list).map(|text| text.parse().map_err(|_| wrong(text)));
    let asked: Vec<i32> = asked.collect::<Result<_, _>>()?;
    let mut client = arguments.reach.connect()?;
    client.look(Some(&[]))?;
    let known: Vec<i32> = client.cluster.brokers.iter().map(|broker| broker.id).collect();
    let missing: Vec<i32> = asked.iter().filter(|id| !known.contains(id)).copied().collect();
    if !missing.is_empty() {
        return Err(Failure::Refused(format!(
            "ERROR: The given brokers do not exist from --broker-list: {}. Current existent brokers: {}",
            ids(&missing),
            ids(&known)
        )));
    }
    let brokers = if asked.is_empty() { known } else { asked };
    let mut out = Output::new()?;
    out.line("Querying brokers for log directories information")?;
    let mut shown = Vec::new();
    for broker in &brokers {
        let dirs = admin::log_dirs(&mut client, *broker, None)?;
        let dirs: Vec<String> = dirs.iter().map(|dir| log_dir(dir, &topics)).collect();
        shown.push(format!("{{\"broker\":{broker},\"logDirs\":[{}]}}", dirs.join(",")));
    }
    out.line(&format!("Received log directory information from brokers {}", ids(&brokers)))?;
    // Fields in Kafka's order, which scripts may count on.
    out.line(&format!("{{\"brokers\":[{}],\"version\":1}}", shown.join(",")))?;
    out.finish()
}

fn log_dir(dir: &LogDir, topics: &[&str]) -> String {
    let wanted = dir.partitions.iter().filter(|log| topics.is_empty() || topics.contains(&&log.topic[..]));
    let partitions: Vec<String> = wanted
        .map(|log| {
            let (topic, partition, size) = (&log.topic, log.partition, log.size);
            let (lag, is_future) = (log.offset_lag, log.is_future);
            format!(
                "{{\"partition\":\"{topic}-{partition}\",\"size\":{size},\"offsetLag\":{lag},\"isFuture\":{is_future}}}"
            )
        })
        .collect();
    let error = match dir.error_code {
        0 => "null".to_owned(),
        code => quoted(&describe(code, None)),
    };
    format!("{{\"partitions\":[{}],\"error\":{error},\"logDir\":{}}}", partitions.join(","), quoted(&dir.path))
}

fn quoted(text: &str) -> String {
    to_string(text).unwrap_or_default()
}
