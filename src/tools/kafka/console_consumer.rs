//! `kafka-console-consumer` (Kafka 3.9 `ConsoleConsumer`, `DefaultMessageFormatter`), without groups: partitions are assigned.

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use regex::Regex;

use super::deserializer::Deserializer;
use super::kept_formatter::Kept;
use super::{ClientProperties, Reach, read_properties, topic_or_new};
use crate::admin::{self, assignment};
use crate::client::consumer::RecordRef;
use crate::consume::{Run, Wanted, assign};
use crate::failure::{Failure, say};
use crate::format::escaped;
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::record::batch::TimestampType;
use crate::when::Place;

#[derive(clap::Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    reach: Reach,
    /// The topic to read
    #[arg(long, value_name = "TOPIC", required_unless_present = "include", conflicts_with = "include")]
    topic: Option<String>,
    /// A regular expression that the whole name of a topic must match
    #[arg(long, value_name = "TOPICS", visible_alias = "whitelist")]
    include: Option<String>,
    /// Only this partition; begins at the end, or at --offset
    #[arg(long, value_name = "N", conflicts_with = "include", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// earliest, latest or an offset
    #[arg(long, value_name = "WHERE", requires = "partition", value_parser = offset, allow_hyphen_values = true)]
    offset: Option<Place>,
    /// Begin with the first message, not behind the last
    #[arg(long, conflicts_with = "offset")]
    from_beginning: bool,
    /// Stop after so many; -1: never
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_messages: Option<i32>,
    /// Exit if no message has come for so long; -1: never
    #[arg(long, value_name = "MS", allow_negative_numbers = true)]
    timeout_ms: Option<i64>,
    /// There are no groups yet: all partitions of the topics are read
    #[arg(long, value_name = "NAME", hide = true)]
    group: Option<String>,
    /// read_uncommitted (the default) or read_committed
    #[arg(long, value_name = "LEVEL", value_parser = read_committed)]
    isolation_level: Option<ReadCommitted>,
    /// DefaultMessageFormatter, LoggingMessageFormatter (prints on standard error too), NoOpMessageFormatter, or of
    /// __consumer_offsets and __transaction_state OffsetsMessageFormatter, GroupMetadataMessageFormatter and
    /// TransactionLogMessageFormatter (JSON)
    #[arg(long, value_name = "CLASS", default_value = "org.apache.kafka.tools.consumer.DefaultMessageFormatter",
        hide_default_value = true, value_parser = style)]
    formatter: Style,
    /// A file of properties of the formatter; --property goes before it
    #[arg(long, value_name = "FILE")]
    formatter_config: Option<PathBuf>,
    /// How keys are read: of String, Short, Integer, Long, Float, Double and ByteArray, with Deserializer behind it
    #[arg(long, value_name = "CLASS")]
    key_deserializer: Option<String>,
    /// The same for values
    #[arg(long, value_name = "CLASS")]
    value_deserializer: Option<String>,
    /// Go on behind a message that a deserializer can't read
    #[arg(long)]
    skip_message_on_error: bool,
    /// Print shutdown_complete at the end
    #[arg(long, hide = true)]
    enable_systest_events: bool,
    /// print.timestamp, print.key, print.offset, print.partition, print.headers, print.value, key.separator,
    /// line.separator, headers.separator, null.literal, key.deserializer, value.deserializer, headers.deserializer
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment, visible_alias = "formatter-property")]
    property: Vec<(String, String)>,
    /// auto.offset.reset and isolation.level; others have no effect
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    consumer_property: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ReadCommitted(bool);

fn read_committed(text: &str) -> Result<ReadCommitted, String> {
    match text {
        "read_committed" => Ok(ReadCommitted(true)),
        "read_uncommitted" => Ok(ReadCommitted(false)),
        _ => Err(format!("'{text}' is none of read_committed and read_uncommitted")),
    }
}

fn offset(text: &str) -> Result<Place, String> {
    let wrong = || {
        format!(
            "The provided offset value '{text}' is incorrect. Valid values are 'earliest', 'latest', or a non-negative long."
        )
    };
    reset(&text.to_lowercase()).or_else(|_| match text.parse() {
        Ok(offset @ 0..) => Ok(Place::Offset(offset)),
        _ => Err(wrong()),
    })
}

fn reset(text: &str) -> Result<Place, String> {
    match text {
        "earliest" => Ok(Place::Beginning),
        "latest" => Ok(Place::End),
        _ => Err("must be earliest or latest here".to_owned()),
    }
}

/// The formatters that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Default,
    Logging,
    NoOp,
    /// Of records of a coordinator's topic.
    Kept(Kept),
}

fn style(class: &str) -> Result<Style, String> {
    const PACKAGE: &str = "org.apache.kafka.tools.consumer.";
    let name = class.strip_prefix(PACKAGE).or_else(|| class.strip_prefix("kafka.tools.")).unwrap_or(class);
    let style = match name {
        "DefaultMessageFormatter" => Style::Default,
        "LoggingMessageFormatter" => Style::Logging,
        "NoOpMessageFormatter" => Style::NoOp,
        "OffsetsMessageFormatter" => Style::Kept(Kept::Offsets),
        "GroupMetadataMessageFormatter" => Style::Kept(Kept::Groups),
        "TransactionLogMessageFormatter" => Style::Kept(Kept::Transactions),
        _ if class.starts_with("kafka.coordinator.") => {
            let name = class.rsplit('$').next().unwrap_or_default();
            return Err(format!("this older one is not there; its successor {PACKAGE}{name} prints JSON"));
        }
        _ => {
            return Err("Java classes can't be loaded; there are DefaultMessageFormatter, LoggingMessageFormatter, \
                NoOpMessageFormatter, OffsetsMessageFormatter, GroupMetadataMessageFormatter and \
                TransactionLogMessageFormatter"
                .to_owned());
        }
    };
    if class.starts_with("kafka.tools.") {
        say(&format!(
            "WARNING: {class} is deprecated and will be removed in the next major release. Please use {PACKAGE}{name} instead"
        ));
    }
    Ok(style)
}

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    if let Some(group) = &arguments.group {
        return Err(Failure::Refused(format!("--group {group}: groups are not there yet; leave it out")));
    }
    let properties = ClientProperties::read(&arguments.reach, &arguments.consumer_property)?;
    let formatter = Formatter::of(&arguments)?;
    let ReadCommitted(read_committed) =
        properties.or(arguments.isolation_level, "isolation.level", read_committed)?.unwrap_or(ReadCommitted(false));
    let from = match properties.or(None, "auto.offset.reset", reset)? {
        Some(Place::End) if arguments.from_beginning => {
            let both = "Can't simultaneously specify --from-beginning and 'auto.offset.reset=latest', please remove one option";
            return Err(Failure::Usage(both.to_owned()));
        }
        _ if arguments.from_beginning => Place::Beginning,
        // With --partition Kafka begins at --offset, whose default is the end.
        reset if arguments.partition.is_none() => reset.unwrap_or(Place::End),
        _ => arguments.offset.unwrap_or(Place::End),
    };
    let include = arguments.include.as_ref().map(|text| Regex::new(&format!("^(?:{text})$"))).transpose();
    let include = include.map_err(|error| Failure::Usage(format!("no regular expression: {error}")))?;
    let interrupt = Interrupt::catch()?;
    let mut client = arguments.reach.connect()?;
    let topics = match &arguments.topic {
        Some(name) => vec![topic_or_new(&mut client, name)?],
        None => {
            let mut topics = admin::all_topics(&mut client, false)?;
            topics.retain(|topic| include.as_ref().is_none_or(|include| include.is_match(&topic.name)));
            topics
        }
    };
    if topics.is_empty() {
        let include = arguments.include.unwrap_or_default();
        return Err(Failure::Refused(format!("no topic matches '{include}'; see 'kafka-topics --list'")));
    }
    let wanted =
        Wanted { partitions: arguments.partition.into_iter().collect(), from, until_end: false, read_committed };
    let consumer = assign(&mut client, &topics, &wanted)?;
    // -1 is no limit; anything below it stops at once, as 0 does.
    let limit = arguments.max_messages.filter(|limit| *limit != -1).map(|limit| limit.max(0) as u64);
    let idle = arguments.timeout_ms.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis);
    let mut run = Run::new(client, consumer, interrupt, (limit, idle));
    let mut out = Output::new()?;
    let ended = run.until_done(&mut out, |buffer, fetched, record| {
        let start = buffer.len();
        let Err(why) = formatter.write(buffer, fetched.partition, record) else { return Ok(()) };
        buffer.truncate(start);
        let place = format!("offset {} of {}-{}", record.offset, fetched.topic, fetched.partition);
        if !arguments.skip_message_on_error {
            return Err(Failure::Refused(format!("{place}: {why}")));
        }
        say(&format!("ringlog: skipped {place}: {why}"));
        Ok(())
    });
    if ended != Err(Failure::BrokenPipe) {
        say(&format!("Processed a total of {} messages", run.seen.records));
        if arguments.enable_systest_events {
            out.line("shutdown_complete")?;
            out.flush(None)?;
        }
    }
    ended
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
    key_deserializer: Deserializer,
    value_deserializer: Deserializer,
    headers_deserializer: Deserializer,
    style: Style,
}

impl Formatter {
    /// From the file, then the deserializers' own flags, then the properties, which win (Kafka 3.9 `formatterArgs`).
    fn of(arguments: &Arguments) -> Result<Formatter, Failure> {
        let mut properties =
            arguments.formatter_config.as_deref().map(read_properties).transpose()?.unwrap_or_default();
        for (name, class) in
            [("key.deserializer", &arguments.key_deserializer), ("value.deserializer", &arguments.value_deserializer)]
        {
            properties.extend(class.iter().map(|class| (name.to_owned(), class.clone())));
        }
        properties.extend(arguments.property.iter().cloned());
        let formatter = Formatter::new(&properties).map_err(Failure::Usage)?;
        Ok(Formatter { style: arguments.formatter, ..formatter })
    }

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
            key_deserializer: Deserializer::default(),
            value_deserializer: Deserializer::default(),
            headers_deserializer: Deserializer::default(),
            style: Style::Default,
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
                "key.deserializer" => formatter.key_deserializer = Deserializer::of_class(value)?,
                "value.deserializer" => formatter.value_deserializer = Deserializer::of_class(value)?,
                "headers.deserializer" => formatter.headers_deserializer = Deserializer::of_class(value)?,
                _ => return Err(format!("no property of the formatter is called '{name}'")),
            }
        }
        Ok(formatter)
    }

    fn write(&self, out: &mut Vec<u8>, partition: i32, record: &RecordRef<'_>) -> Result<(), String> {
        match self.style {
            Style::NoOp => return Ok(()),
            Style::Kept(kept) => return kept.write(out, record),
            Style::Default | Style::Logging => {}
        }
        if self.style == Style::Logging {
            let [key, value] =
                [record.key, record.value].map(|bytes| String::from_utf8_lossy(bytes.unwrap_or(b"null")));
            say(&format!("{}, key:{key}, value:{value}", timestamp(record)));
        }
        let mut is_first = true;
        let mut field = |out: &mut Vec<u8>, bytes: &[u8]| {
            if !is_first {
                out.extend_from_slice(&self.key_separator);
            }
            is_first = false;
            out.extend_from_slice(bytes);
        };
        if self.timestamp {
            field(out, timestamp(record).as_bytes());
        }
        if self.partition {
            field(out, format!("Partition:{partition}").as_bytes());
        }
        if self.offset {
            field(out, format!("Offset:{}", record.offset).as_bytes());
        }
        if self.headers {
            field(out, &self.headers(record)?);
        }
        if self.key {
            field(out, &self.shown(record.key, self.key_deserializer)?);
        }
        if self.value {
            field(out, &self.shown(record.value, self.value_deserializer)?);
        }
        out.extend_from_slice(&self.line_separator);
        Ok(())
    }

    /// Kafka hands the null literal to the deserializer, which makes a number of it, or fails; here it stays itself.
    fn shown<'a>(&'a self, bytes: Option<&'a [u8]>, deserializer: Deserializer) -> Result<Cow<'a, [u8]>, String> {
        bytes.map_or(Ok(Cow::Borrowed(&self.null_literal[..])), |bytes| deserializer.show(bytes))
    }

    fn headers(&self, record: &RecordRef<'_>) -> Result<Vec<u8>, String> {
        let header = |(name, value): (&[u8], Option<&[u8]>)| {
            Ok([name, b":", &self.shown(value, self.headers_deserializer)?].concat())
        };
        let headers: Vec<Vec<u8>> = record.headers.iter().map(header).collect::<Result<_, String>>()?;
        Ok(match headers.is_empty() {
            true => b"NO_HEADERS".to_vec(),
            false => headers.join(&self.headers_separator[..]),
        })
    }
}

fn timestamp(record: &RecordRef<'_>) -> String {
    match record.timestamp_type {
        _ if record.timestamp < 0 => "NO_TIMESTAMP".to_owned(),
        TimestampType::CreateTime => format!("CreateTime:{}", record.timestamp),
        TimestampType::LogAppendTime => format!("LogAppendTime:{}", record.timestamp),
    }
}
