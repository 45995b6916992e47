//! `ringlog offsets`: first and last offsets of partitions, how many lie between, and offsets by time.

#![forbid(unsafe_code)]

use clap::Args;
use serde_json::{Value, json};

use super::Common;
use super::admin::{self, EARLIEST, Found, LATEST, Place, list_offsets};
use super::connect::Client;
use super::failure::{EXIT_CODES, Failure, describe};
use super::output::Output;
use super::table::{Column, Table};
use super::when::timestamp;

const EXAMPLES: &str = "\
Examples:
  ringlog offsets orders
  ringlog offsets orders --at 2026-01-31T12:00 --partition 0
  ringlog offsets --json | jq 'map(.count) | add'     of all topics

COUNT is what lies between: more than the records where a topic is compacted.";

/// Show the offsets of topics, or of all
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct OffsetsArguments {
    #[command(flatten)]
    common: Common,

    /// Of these topics only
    #[arg(value_name = "TOPIC")]
    topics: Vec<String>,

    /// Only these partitions; may be given many times, or with commas
    #[arg(short, long, value_name = "N", value_delimiter = ',')]
    partition: Vec<i32>,

    /// Also the first record that is not earlier than this (ISO 8601, or ms)
    #[arg(long, value_name = "TIME", value_parser = timestamp)]
    at: Option<i64>,

    /// Only up to the first transaction that is open
    #[arg(long)]
    committed: bool,
}

pub fn run(arguments: OffsetsArguments) -> Result<(), Failure> {
    let mut client = Client::connect(&arguments.common.connect)?;
    let topics = match arguments.topics.is_empty() {
        true => admin::all_topics(&mut client, false)?,
        false => admin::topics(&mut client, &arguments.topics)?,
    };
    let mut places: Vec<Place> = Vec::new();
    for topic in &topics {
        if let Some(missing) = arguments.partition.iter().find(|index| topic.partition(**index).is_none()) {
            return Err(admin::missing_partition(topic, *missing));
        }
        let is_wanted = |index: &i32| arguments.partition.is_empty() || arguments.partition.contains(index);
        let indexes = topic.partitions.iter().map(|partition| partition.index).filter(is_wanted);
        places.extend(indexes.map(|index| (topic.name.clone(), index)));
    }
    let mut ask = |timestamp: i64| {
        let asked: Vec<(Place, i64)> = places.iter().cloned().map(|place| (place, timestamp)).collect();
        list_offsets(&mut client, &asked, arguments.committed)
    };
    let (starts, ends) = (ask(EARLIEST)?, ask(LATEST)?);
    let at = arguments.at.map(&mut ask).transpose()?;

    let mut refused = Vec::new();
    let mut rows = Vec::new();
    for place in places {
        let mut offset = |found: Option<&Result<Found, i16>>| match found {
            Some(Ok(found)) => Some(found.offset),
            Some(Err(code)) => {
                refused.push(format!("{}-{}: {}", place.0, place.1, describe(*code, None)));
                None
            }
            None => None,
        };
        let (start, end) = (offset(starts.get(&place)), offset(ends.get(&place)));
        let at = at.as_ref().map(|at| offset(at.get(&place)).filter(|offset| *offset >= 0));
        rows.push((place, start, end, at));
    }
    let mut out = Output::new()?;
    match arguments.common.json {
        true => {
            let row = |(place, start, end, at): &(Place, Option<i64>, Option<i64>, Option<Option<i64>>)| {
                let count = start.zip(*end).map(|(start, end)| end - start);
                let mut row = json!({
                    "topic": place.0, "partition": place.1, "start_offset": start, "end_offset": end, "count": count,
                });
                if let Some(at) = at {
                    row["offset_at"] = json!(at);
                }
                row
            };
            out.json(&Value::Array(rows.iter().map(row).collect()))?;
        }
        false => {
            let mut columns = vec![
                Column::Text("TOPIC"),
                Column::Number("PARTITION"),
                Column::Number("START"),
                Column::Number("END"),
                Column::Number("COUNT"),
            ];
            if arguments.at.is_some() {
                columns.push(Column::Number("AT"));
            }
            let text = |offset: Option<i64>| offset.map_or("-".to_owned(), |offset| offset.to_string());
            let mut table = Table::new(&columns);
            for ((topic, partition), start, end, at) in rows {
                let count = start.zip(end).map(|(start, end)| end - start);
                let mut cells = vec![topic, partition.to_string(), text(start), text(end), text(count)];
                cells.extend(at.map(text));
                table.row(cells);
            }
            out.table(&table)?;
        }
    }
    out.finish()?;
    refused.dedup();
    admin::conclude(refused)
}
