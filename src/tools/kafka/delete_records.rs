//! `kafka-delete-records` (Kafka 3.9 `DeleteRecordsCommand`).

#![forbid(unsafe_code)]

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::Reach;
use crate::admin::{Place, delete_records};
use crate::failure::{Failure, describe, reason};
use crate::output::Output;

#[derive(clap::Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    reach: Reach,
    /// {"partitions": [{"topic": "t", "partition": 0, "offset": 5}], "version": 1}
    #[arg(long, value_name = "FILE")]
    offset_json_file: PathBuf,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let name = arguments.offset_json_file.display();
    let text = fs::read_to_string(&arguments.offset_json_file)
        .map_err(|error| Failure::Refused(format!("{name} can't be read: {}", reason(&error))))?;
    let asked = parse(&text).map_err(|what| Failure::Refused(format!("{name}: {what}")))?;
    let mut client = arguments.reach.connect()?;
    let names: Vec<String> = asked.iter().map(|(place, _)| place.0.clone()).collect();
    client.look(Some(&names))?;
    let mut out = Output::new()?;
    out.line("Executing records delete operation")?;
    let done = delete_records(&mut client, &asked)?;
    out.line("Records delete operation completed:")?;
    for ((topic, partition), result) in done {
        out.line(&match result {
            Ok(low_watermark) => format!("partition: {topic}-{partition}\tlow_watermark: {low_watermark}"),
            Err(code) => format!("partition: {topic}-{partition}\terror: {}", describe(code, None)),
        })?;
    }
    out.finish()
}

fn parse(text: &str) -> Result<Vec<(Place, i64)>, String> {
    let json: Value = serde_json::from_str(text).map_err(|_| "The input string is not a valid JSON".to_owned())?;
    if let Some(version) = json.get("version").filter(|version| **version != 1) {
        return Err(format!("Not supported version field value {version}"));
    }
    let partitions = json.get("partitions").and_then(Value::as_array).ok_or("Missing partitions field")?;
    let mut asked: Vec<(Place, i64)> = Vec::new();
    for partition in partitions {
        let number = |name: &str| partition.get(name).and_then(Value::as_i64).ok_or(format!("Missing {name} field"));
        let topic = partition.get("topic").and_then(Value::as_str).ok_or("Missing topic field")?;
        let index = i32::try_from(number("partition")?).map_err(|_| "a partition is too large")?;
        let place = (topic.to_owned(), index);
        if asked.iter().any(|(known, _)| *known == place) {
            return Err(format!("Offset json file contains duplicate topic partitions: {topic}-{index}"));
        }
        asked.push((place, number("offset")?));
    }
    Ok(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_kafkas_and_what_is_wrong_with_it_is_said() {
        let place = (("t".to_owned(), 2), -1);
        let sound = r#"{"partitions":[{"topic":"t","partition":2,"offset":-1}],"version":1}"#;
        assert_eq!(parse(sound), Ok(vec![place]));
        for wrong in [
            "{",
            r#"{"version":1}"#,
            r#"{"version":2,"partitions":[]}"#,
            r#"{"partitions":[{"partition":2,"offset":1}]}"#,
            r#"{"partitions":[{"topic":"t","partition":2,"offset":1},{"topic":"t","partition":2,"offset":1}]}"#,
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
