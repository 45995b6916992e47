//! `ringlog records delete`: the oldest records of partitions, up to an offset or a time.

#![forbid(unsafe_code)]

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Common;
use super::admin::{self, Found, LATEST, Place, conclude, confirm, delete_records, list_offsets, missing_partition};
use super::connect::Client;
use super::failure::{EXIT_CODES, Failure, describe};
use super::output::Output;
use super::table::{Column, Table};
use super::when::timestamp;

const EXAMPLES: &str = "\
Examples:
  ringlog records delete -t orders --before 1000 --partition 0
  ringlog records delete -t orders --before @2026-01-31
  ringlog records delete -t orders --before all --yes";

#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct RecordsArguments {
    #[command(subcommand)]
    command: RecordsCommand,
}

#[derive(Subcommand, Debug)]
enum RecordsCommand {
    Delete(DeleteArguments),
}

/// Delete the oldest records of a topic
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
struct DeleteArguments {
    #[command(flatten)]
    common: Common,

    /// The topic
    #[arg(short, long, value_name = "NAME")]
    topic: String,

    /// The first offset to keep, @TIME (ISO 8601, or ms) for the first record not earlier, or all
    #[arg(long, value_name = "WHERE", value_parser = before)]
    before: Before,

    /// Only these partitions; may be given many times, or with commas
    #[arg(short, long, value_name = "N", value_delimiter = ',')]
    partition: Vec<i32>,

    /// Do not ask, even at a terminal
    #[arg(short, long)]
    yes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Offset(i64),
    Time(i64),
    All,
}

fn before(text: &str) -> Result<Before, String> {
    match (text, text.strip_prefix('@'), text.parse()) {
        ("all", _, _) => Ok(Before::All),
        (_, Some(time), _) => timestamp(time).map(Before::Time),
        (_, _, Ok(offset @ 0..)) => Ok(Before::Offset(offset)),
        _ => Err(format!("'{text}' is none of N, @TIME and all")),
    }
}

pub fn run(arguments: RecordsArguments) -> Result<(), Failure> {
    let RecordsCommand::Delete(arguments) = arguments.command;
    let mut client = Client::connect(&arguments.common.connect)?;
    let topic = admin::topic(&mut client, &arguments.topic)?;
    if let Some(missing) = arguments.partition.iter().find(|index| topic.partition(**index).is_none()) {
        return Err(missing_partition(&topic, *missing));
    }
    let is_wanted = |index: &i32| arguments.partition.is_empty() || arguments.partition.contains(index);
    let indexes = topic.partitions.iter().map(|partition| partition.index).filter(is_wanted);
    let places: Vec<Place> = indexes.map(|index| (topic.name.clone(), index)).collect();
    let asked = offsets(&mut client, &places, arguments.before)?;
    let partitions = asked.len();
    confirm(&format!("Delete records of {partitions} partitions of {} for good?", topic.name), arguments.yes)?;

    let mut table = Table::new(&[Column::Text("TOPIC"), Column::Number("PARTITION"), Column::Number("START")]);
    let (mut rows, mut refused) = (Vec::new(), Vec::new());
    for ((topic, partition), done) in delete_records(&mut client, &asked)? {
        match done {
            Ok(start) => {
                rows.push(json!({"topic": topic, "partition": partition, "start_offset": start}));
                table.row(vec![topic, partition.to_string(), start.to_string()]);
            }
            Err(code) => refused.push(format!("{topic}-{partition}: {}", describe(code, None))),
        }
    }
    let mut out = Output::new()?;
    match arguments.common.json {
        true => out.json(&Value::Array(rows))?,
        false if rows.is_empty() => {}
        false => out.table(&table)?,
    }
    out.finish()?;
    conclude(refused)
}

/// The first offset to keep of each.
fn offsets(client: &mut Client, places: &[Place], before: Before) -> Result<Vec<(Place, i64)>, Failure> {
    /// DeleteRecords' word for all that is committed.
    const HIGH_WATERMARK: i64 = -1;
    let same = |offset: i64| places.iter().cloned().map(|place| (place, offset)).collect::<Vec<_>>();
    let ms = match before {
        Before::Offset(offset) => return Ok(same(offset)),
        Before::All => return Ok(same(HIGH_WATERMARK)),
        Before::Time(ms) => ms,
    };
    let found = list_offsets(client, &same(ms), false)?;
    let ends = list_offsets(client, &same(LATEST), false)?;
    let first = |place: Place| match (found.get(&place), ends.get(&place)) {
        (Some(Ok(Found { offset: offset @ 0.., .. })), _) => Ok((place, *offset)),
        // None is so late: all are earlier. What comes meanwhile is not.
        (Some(Ok(_)), Some(Ok(end))) => Ok((place, end.offset)),
        (Some(Err(code)), _) | (_, Some(Err(code))) => {
            Err(Failure::of_code(&format!("offsets of {}-{}", place.0, place.1), *code, None))
        }
        _ => Err(Failure::Refused(format!("the broker says nothing of {}-{}", place.0, place.1))),
    };
    places.iter().cloned().map(first).collect()
}
