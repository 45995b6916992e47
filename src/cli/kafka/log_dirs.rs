//! `kafka-log-dirs` (Kafka 3.9 `LogDirsCommand`).

#![forbid(unsafe_code)]

use serde_json::to_string;

use super::Reach;
use crate::cli::admin::{self, LogDir};
use crate::cli::failure::{Failure, describe};
use crate::cli::output::Output;
use crate::cli::table::ids;

#[derive(clap::Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    reach: Reach,
    /// Show the log directories
    #[arg(long, required = true)]
    describe: bool,
    /// Only these topics
    #[arg(long, value_name = "TOPIC", value_delimiter = ',')]
    topic_list: Vec<String>,
    /// Only these brokers
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    broker_list: Vec<i32>,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut client = arguments.reach.connect()?;
    client.look(Some(&[]))?;
    let known: Vec<i32> = client.cluster.brokers.iter().map(|broker| broker.id).collect();
    if let Some(missing) = arguments.broker_list.iter().find(|id| !known.contains(id)) {
        let known = ids(&known);
        return Err(Failure::Refused(format!(
            "ERROR: The given brokers do not exist from --broker-list: {missing}. Current existent brokers: {known}"
        )));
    }
    let brokers = if arguments.broker_list.is_empty() { known } else { arguments.broker_list.clone() };
    let mut out = Output::new()?;
    out.line("Querying brokers for log directories information")?;
    let mut shown = Vec::new();
    for broker in &brokers {
        let dirs = admin::log_dirs(&mut client, *broker, None)?;
        let dirs: Vec<String> = dirs.iter().map(|dir| log_dir(dir, &arguments.topic_list)).collect();
        shown.push(format!("{{\"broker\":{broker},\"logDirs\":[{}]}}", dirs.join(",")));
    }
    out.line(&format!("Received log directory information from brokers {}", ids(&brokers)))?;
    // Fields in Kafka's order, which scripts may count on.
    out.line(&format!("{{\"brokers\":[{}],\"version\":1}}", shown.join(",")))?;
    out.finish()
}

fn log_dir(dir: &LogDir, topics: &[String]) -> String {
    let wanted = dir.partitions.iter().filter(|log| topics.is_empty() || topics.contains(&log.topic));
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
