//! `kafka-console-consumer` (Kafka 3.9 `ConsoleConsumer`, `DefaultMessageFormatter`), without groups: partitions are assigned.

#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use super::{Reach, check_property, matching};
use crate::cli::admin::{self, assignment};
use crate::cli::connect::Clock;
use crate::cli::consume::{Run, Seen, Wanted, assign};
use crate::cli::failure::{Failure, say};
use crate::cli::format::escaped;
use crate::cli::interrupt::Interrupt;
use crate::cli::output::Output;
use crate::cli::when::Place;
use crate::client::consumer::RecordRef;
use crate::record::batch::TimestampType;

#[derive(clap::Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    reach: Reach,
    #[arg(long, value_name = "TOPIC", required_unless_present = "include", conflicts_with = "include")]
    topic: Option<String>,
    /// A regular expression
    #[arg(long, value_name = "TOPICS", visible_alias = "whitelist")]
    include: Option<String>,
    #[arg(long, value_name = "N")]
    partition: Option<i32>,
    /// earliest, latest, an offset, or -N from the end
    #[arg(long, value_name = "WHERE", requires = "partition", value_parser = crate::cli::when::place, allow_hyphen_values = true)]
    offset: Option<Place>,
    #[arg(long, conflicts_with = "offset")]
    from_beginning: bool,
    #[arg(long, value_name = "N")]
    max_messages: Option<u64>,
    /// Exit if no message has come for so long
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=i32::MAX as u64))]
    timeout_ms: Option<u64>,
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    #[arg(long, value_name = "LEVEL", default_value = "read_uncommitted", value_parser = ["read_uncommitted", "read_committed"])]
    isolation_level: String,
    /// print.timestamp, print.key, print.offset, print.partition, print.headers, print.value, key.separator,
    /// line.separator, headers.separator, null.literal
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment, visible_alias = "formatter-property")]
    property: Vec<(String, String)>,
    #[arg(long, value_name = "NAME=VALUE")]
    consumer_property: Vec<String>,
}

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    if let Some(group) = &arguments.group {
        return Err(Failure::Refused(format!("--group {group}: groups are not there yet; leave it out")));
    }
    arguments.consumer_property.iter().try_for_each(|property| check_property(property))?;
    let formatter = Formatter::new(&arguments.property).map_err(Failure::Usage)?;
    let interrupt = Interrupt::catch()?;
    let mut client = arguments.reach.connect()?;
    let topics = match (&arguments.topic, &arguments.include) {
        (Some(name), _) => vec![admin::topic(&mut client, name)?],
        (None, include) => matching(admin::all_topics(&mut client, false)?, include.as_deref(), true)?,
    };
    let from = if arguments.from_beginning { Place::Beginning } else { arguments.offset.unwrap_or(Place::End) };
    let wanted = Wanted {
        partitions: arguments.partition.into_iter().collect(),
        from,
        until_end: false,
        read_committed: arguments.isolation_level == "read_committed",
    };
    let consumer = assign(&mut client, &topics, &wanted)?;
    let mut run = Run {
        client,
        consumer,
        clock: Clock::start(),
        interrupt,
        limit: arguments.max_messages,
        idle: arguments.timeout_ms.map(Duration::from_millis),
        seen: Seen::default(),
        last_record: Instant::now(),
    };
    let mut out = Output::new()?;
    let ended = run.until_done(&mut out, |out, interrupt, fetched, left| {
        let mut seen = Seen::default();
        let shown = fetched.records(|record| {
            formatter.write(out.buffer(), fetched.partition, record);
            seen.records += 1;
            if seen.records >= left {
                return Err(None);
            }
            out.spill(Some(interrupt)).map_err(Some)
        })?;
        Ok(match shown {
            Ok(()) | Err(None) => Ok(seen),
            Err(Some(failure)) => Err(failure),
        })
    });
    let flushed = match &ended {
        Err(Failure::BrokenPipe) => Ok(()),
        _ => out.flush(Some(&run.interrupt)),
    };
    if ended != Err(Failure::BrokenPipe) {
        say(&format!("Processed a total of {} messages", run.seen.records));
    }
    ended.and(flushed)
}

/// What of a record is printed.
struct Formatter {
    timestamp: bool,
    key: bool,
    offset: bool,
    partition: bool,
    headers: bool,
    value: bool,
    key_separator: Vec<u8>,
    line_separator: Vec<u8>,
    headers_separator: Vec<u8>,
    null_literal: Vec<u8>,
}

impl Formatter {
    fn new(properties: &[(String, String)]) -> Result<Formatter, String> {
        let mut formatter = Formatter {
            timestamp: false,
            key: false,
            offset: false,
            partition: false,
            headers: false,
            value: true,
            key_separator: b"\t".to_vec(),
            line_separator: b"\n".to_vec(),
            headers_separator: b",".to_vec(),
            null_literal: b"null".to_vec(),
        };
        for (name, value) in properties {
            let is_true = value.trim().eq_ignore_ascii_case("true");
            match name.as_str() {
                "print.timestamp" => formatter.timestamp = is_true,
                "print.key" => formatter.key = is_true,
                "print.offset" => formatter.offset = is_true,
                "print.partition" => formatter.partition = is_true,
                "print.headers" => formatter.headers = is_true,
                "print.value" => formatter.value = is_true,
                "key.separator" => formatter.key_separator = escaped(value)?,
                "line.separator" => formatter.line_separator = escaped(value)?,
                "headers.separator" => formatter.headers_separator = escaped(value)?,
                "null.literal" => formatter.null_literal = value.clone().into_bytes(),
                _ => return Err(format!("no property of the formatter is called '{name}'")),
            }
        }
        Ok(formatter)
    }

    fn write(&self, out: &mut Vec<u8>, partition: i32, record: &RecordRef<'_>) {
        let mut is_first = true;
        let mut field = |out: &mut Vec<u8>, bytes: &[u8]| {
            if !is_first {
                out.extend_from_slice(&self.key_separator);
            }
            is_first = false;
            out.extend_from_slice(bytes);
        };
        if self.timestamp {
            let of = match record.timestamp_type {
                _ if record.timestamp < 0 => "NO_TIMESTAMP".to_owned(),
                TimestampType::CreateTime => format!("CreateTime:{}", record.timestamp),
                TimestampType::LogAppendTime => format!("LogAppendTime:{}", record.timestamp),
            };
            field(out, of.as_bytes());
        }
        if self.partition {
            field(out, format!("Partition:{partition}").as_bytes());
        }
        if self.offset {
            field(out, format!("Offset:{}", record.offset).as_bytes());
        }
        if self.headers {
            field(out, &self.headers(record));
        }
        if self.key {
            field(out, record.key.unwrap_or(&self.null_literal));
        }
        if self.value {
            field(out, record.value.unwrap_or(&self.null_literal));
        }
        out.extend_from_slice(&self.line_separator);
    }

    fn headers(&self, record: &RecordRef<'_>) -> Vec<u8> {
        let header = |(name, value): (&[u8], Option<&[u8]>)| [name, b":", value.unwrap_or(&self.null_literal)].concat();
        let headers: Vec<Vec<u8>> = record.headers.iter().map(header).collect();
        match headers.is_empty() {
            true => b"NO_HEADERS".to_vec(),
            false => headers.join(&self.headers_separator[..]),
        }
    }
}
