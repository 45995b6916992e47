//! `kafka-console-producer` (Kafka 3.9 `ConsoleProducer`, `LineMessageReader`).

#![forbid(unsafe_code)]

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{ClientProperties, ReachOrBrokerList, number, read_properties, topic_or_new};
use crate::admin::assignment;
use crate::client::producer::{ProducerOptions, ToRecord};
use crate::failure::Failure;
use crate::format::escaped;
use crate::interrupt::Interrupt;
use crate::produce::{BUFFER_BYTES, Sending, ToRecords, acks, compression, open_inputs};
use crate::record::compression::{Codec, Compression};

/// `batch.size` and `linger.ms` of the console producer.
const BATCH_BYTES: u32 = 16_384;
const LINGER_MS: u64 = 1000;
const LINGER_MS_MAX: u64 = i32::MAX as u64;

#[derive(clap::Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    brokers: ReachOrBrokerList,
    /// Where the lines go
    #[arg(long, value_name = "TOPIC")]
    topic: String,
    /// Send each line by itself
    #[arg(long)]
    sync: bool,
    /// none (the default), gzip (the default without a value), snappy, lz4 or zstd
    #[arg(long, value_name = "CODEC", num_args = 0..=1, default_missing_value = "gzip", value_parser = compression)]
    compression_codec: Option<Compression>,
    /// Send when a batch has so many bytes [default: 16384]
    #[arg(long, value_name = "BYTES")]
    batch_size: Option<u32>,
    /// The same; goes before --batch-size
    #[arg(long, value_name = "BYTES")]
    max_partition_memory_bytes: Option<u32>,
    /// How often a batch is sent again [default: 3]
    #[arg(long, value_name = "N")]
    message_send_max_retries: Option<u32>,
    /// How long a line waits for more, in ms [default: 1000]
    #[arg(long, value_name = "MS")]
    timeout: Option<u64>,
    /// 0, 1, or -1 for all in sync, the default
    #[arg(long, value_name = "ACKS", value_parser = acks, allow_hyphen_values = true)]
    request_required_acks: Option<i16>,
    /// How long the broker may wait for other replicas [default: 1500]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(i32).range(1..))]
    request_timeout_ms: Option<i32>,
    /// What may wait for acknowledgements [default: 33554432, which is also the most]
    #[arg(long, value_name = "BYTES")]
    max_memory_bytes: Option<usize>,
    /// Without effect: the cluster is looked at when something changed
    #[arg(long, value_name = "MS", hide = true)]
    metadata_expiry_ms: Option<u64>,
    /// Without effect: a full buffer waits
    #[arg(long, value_name = "MS", hide = true)]
    max_block_ms: Option<u64>,
    /// Without effect
    #[arg(long, value_name = "MS", hide = true)]
    retry_backoff_ms: Option<u64>,
    /// Without effect
    #[arg(long, value_name = "BYTES", hide = true)]
    socket_buffer_size: Option<u64>,
    /// LineMessageReader; Java classes can't be loaded
    #[arg(long, value_name = "CLASS", hide = true, value_parser = line_reader)]
    line_reader: Option<String>,
    /// A file of properties of the line reader; --property goes before it
    #[arg(long, value_name = "FILE")]
    reader_config: Option<PathBuf>,
    /// parse.key, key.separator, parse.headers, headers.delimiter, headers.separator, headers.key.separator,
    /// null.marker, ignore.error
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment, visible_alias = "reader-property")]
    property: Vec<(String, String)>,
    /// acks, linger.ms, batch.size, buffer.memory, retries, request.timeout.ms; others have no effect
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    producer_property: Vec<(String, String)>,
}

fn line_reader(class: &str) -> Result<String, String> {
    match class.rsplit(['.', '$']).next() {
        Some("LineMessageReader") => Ok(class.to_owned()),
        _ => Err("Java classes can't be loaded; there is LineMessageReader".to_owned()),
    }
}

/// What the flags say, then the properties, then the defaults (Kafka 3.9 `maybeMergeOptions`).
fn options(arguments: &Arguments) -> Result<ProducerOptions, Failure> {
    let properties = ClientProperties::read(&arguments.brokers.reach, &arguments.producer_property)?;
    // The console's codec wins over the property even where it is the default.
    let codec = arguments.compression_codec.unwrap_or(Compression::of(Codec::None));
    let linger = properties.or(arguments.timeout, "linger.ms", number)?.unwrap_or(LINGER_MS);
    let batch = arguments.max_partition_memory_bytes.or(arguments.batch_size);
    let batch = properties.or(batch, "batch.size", number)?.unwrap_or(BATCH_BYTES);
    let buffer = properties.or(arguments.max_memory_bytes, "buffer.memory", number)?.unwrap_or(BUFFER_BYTES);
    Ok(ProducerOptions {
        acks: properties.or(arguments.request_required_acks, "acks", acks)?.unwrap_or(-1),
        compression: codec,
        batch_bytes: if arguments.sync { 1 } else { batch.clamp(1, BUFFER_BYTES as u32) as usize },
        linger: Duration::from_millis(if arguments.sync { 0 } else { linger.min(LINGER_MS_MAX) }),
        timeout_ms: properties.or(arguments.request_timeout_ms, "request.timeout.ms", number)?.unwrap_or(1500),
        buffer_bytes: buffer.clamp(1, BUFFER_BYTES),
        retries_max: properties.or(arguments.message_send_max_retries, "retries", number)?.unwrap_or(3),
    })
}

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let options = options(&arguments)?;
    let mut properties = arguments.reader_config.as_deref().map(read_properties).transpose()?.unwrap_or_default();
    properties.extend(arguments.property.iter().cloned());
    let mut lines = ConsoleLines::new(&properties).map_err(Failure::Usage)?;
    let interrupt = Interrupt::catch()?;
    let mut client = arguments.brokers.connect()?;
    let topic = topic_or_new(&mut client, &arguments.topic)?;
    let mut sending = Sending::new(client, topic, options, interrupt)?;
    let mut ended = Ok(());
    for (name, input) in open_inputs(&[])? {
        ended = ended.and(sending.read_all(&name, input, &mut lines));
    }
    let limit = ended.is_err().then(|| Instant::now() + sending.timeout());
    sending.finish(limit).and(ended)
}

/// How a line is read.
struct ConsoleLines {
    parse_key: bool,
    key_separator: Vec<u8>,
    parse_headers: bool,
    headers_delimiter: Vec<u8>,
    headers_separator: Vec<u8>,
    headers_key_separator: Vec<u8>,
    null_marker: Option<Vec<u8>>,
    ignore_error: bool,
    is_at_terminal: bool,
}

impl ConsoleLines {
    fn new(properties: &[(String, String)]) -> Result<ConsoleLines, String> {
        let mut lines = ConsoleLines {
            parse_key: false,
            key_separator: b"\t".to_vec(),
            parse_headers: false,
            headers_delimiter: b"\t".to_vec(),
            headers_separator: b",".to_vec(),
            headers_key_separator: b":".to_vec(),
            null_marker: None,
            ignore_error: false,
            is_at_terminal: io::stdin().is_terminal() && io::stdout().is_terminal(),
        };
        for (name, value) in properties {
            let is_true = value.trim().eq_ignore_ascii_case("true");
            match name.as_str() {
                "parse.key" => lines.parse_key = is_true,
                "key.separator" => lines.key_separator = escaped(value)?,
                "parse.headers" => lines.parse_headers = is_true,
                "headers.delimiter" => lines.headers_delimiter = escaped(value)?,
                "headers.separator" => lines.headers_separator = escaped(value)?,
                "headers.key.separator" => lines.headers_key_separator = escaped(value)?,
                "null.marker" => lines.null_marker = Some(value.clone().into_bytes()),
                "ignore.error" => lines.ignore_error = is_true,
                // Kafka's takes no notice of what it does not know, such as the topic's name that it is given.
                _ => {}
            }
        }
        lines.check()?;
        Ok(lines)
    }

    /// What stands between things must not be taken for one another.
    fn check(&self) -> Result<(), String> {
        let separators = [
            ("headers.delimiter", &self.headers_delimiter),
            ("headers.separator", &self.headers_separator),
            ("headers.key.separator", &self.headers_key_separator),
            ("key.separator", &self.key_separator),
        ];
        if let Some((name, _)) = separators.iter().find(|(_, separator)| separator.is_empty()) {
            return Err(format!("{name} may not be empty"));
        }
        for (index, (name, separator)) in separators.iter().enumerate() {
            // Headers end before the key begins: these two may be the same.
            let others = separators[index + 1..].iter().filter(|(other, _)| *other != "key.separator");
            if let Some((other, _)) = others.into_iter().find(|(_, other)| other == separator) {
                return Err(format!("{name} and {other} may not be equal"));
            }
            if self.null_marker.as_ref() == Some(separator) {
                return Err(format!("null.marker and {name} may not be equal"));
            }
        }
        Ok(())
    }

    /// What is before the delimiter, and the rest; all is the rest where it is missing and that is no error.
    fn split<'a>(&self, line: &'a [u8], delimiter: &[u8], what: &str) -> Result<(Option<&'a [u8]>, &'a [u8]), String> {
        match memchr::memmem::find(line, delimiter) {
            Some(place) => Ok((Some(&line[..place]), &line[place + delimiter.len()..])),
            None if self.ignore_error => Ok((None, line)),
            None => Err(format!("No {what} found")),
        }
    }

    fn not_null<'a>(&self, field: &'a [u8]) -> Option<&'a [u8]> {
        (self.null_marker.as_deref() != Some(field)).then_some(field)
    }
}

type Headers<'a> = Vec<(&'a [u8], Option<&'a [u8]>)>;

impl ConsoleLines {
    fn headers<'a>(&self, mut text: &'a [u8]) -> Result<Headers<'a>, String> {
        let mut headers = Vec::new();
        // Nothing is one pair without a separator, but nothing behind the last separator is no pair (Java's `split`).
        let mut is_first = true;
        while std::mem::take(&mut is_first) || !text.is_empty() {
            let end = memchr::memmem::find(text, &self.headers_separator);
            let (pair, rest) =
                end.map_or((text, &[][..]), |end| (&text[..end], &text[end + self.headers_separator.len()..]));
            text = rest;
            let (name, value) = self.split(pair, &self.headers_key_separator, "header key separator")?;
            headers.push(match name {
                Some(name) if self.not_null(name).is_none() => {
                    return Err("Header keys should not be equal to the null marker as they can't be null".to_owned());
                }
                Some(name) => (name, self.not_null(value)),
                None => (value, None),
            });
        }
        Ok(headers)
    }
}

impl ToRecords for ConsoleLines {
    fn is_whole(&self) -> bool {
        false
    }

    fn prompt(&self) {
        if self.is_at_terminal {
            // The next line says the same if nobody sees this one.
            let _ = io::stdout().write_all(b">").and_then(|()| io::stdout().flush());
        }
    }

    fn record<T>(&mut self, line: &[u8], now_ms: i64, push: impl FnOnce(&ToRecord<'_>) -> T) -> Result<T, String> {
        // Lines end as Java's `BufferedReader` ends them, but for a lone CR.
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (headers, rest) = match self.parse_headers {
            true => self.split(line, &self.headers_delimiter, "headers delimiter")?,
            false => (None, line),
        };
        let headers = match headers.and_then(|headers| self.not_null(headers)) {
            Some(headers) => self.headers(headers)?,
            None => Vec::new(),
        };
        let (key, value) = match self.parse_key {
            true => self.split(rest, &self.key_separator, "key separator")?,
            false => (None, rest),
        };
        let key = key.and_then(|key| self.not_null(key));
        Ok(push(&ToRecord { partition: None, timestamp: now_ms, key, value: self.not_null(value), headers: &headers }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(properties: &[(&str, &str)], line: &str) -> Result<String, String> {
        let properties: Vec<_> = properties.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let text =
            |field: Option<&[u8]>| field.map_or("null".to_owned(), |field| String::from_utf8_lossy(field).into_owned());
        ConsoleLines::new(&properties)?.record(line.as_bytes(), 0, |record| {
            let headers: Vec<String> = record
                .headers
                .iter()
                .map(|(name, value)| format!("{}={}", String::from_utf8_lossy(name), text(*value)))
                .collect();
            format!("{} {} {}", headers.join(";"), text(record.key), text(record.value))
        })
    }

    #[test]
    fn lines_have_headers_key_and_value_as_the_properties_say() {
        assert_eq!(read(&[], "a\tb").unwrap(), " null a\tb");
        assert_eq!(read(&[("parse.key", "true")], "k\tv\tw").unwrap(), " k v\tw");
        let all = [("parse.key", "true"), ("parse.headers", "true"), ("key.separator", "="), ("null.marker", "NIL")];
        assert_eq!(read(&all, "h:1,g:NIL\tNIL=v").unwrap(), "h=1;g=null null v");
        assert_eq!(read(&[("parse.key", "true")], "kv").unwrap_err(), "No key separator found");
        assert_eq!(read(&[("parse.key", "true"), ("ignore.error", "true")], "kv").unwrap(), " null kv");
        assert_eq!(
            read(&[("parse.kee", "true"), ("topic", "t")], "v").unwrap(),
            " null v",
            "as Kafka's, it ignores them"
        );
    }

    #[test]
    fn an_empty_field_of_headers_is_refused_and_a_separator_behind_the_last_header_is_not() {
        let headers = [("parse.headers", "true")];
        for (line, expected) in [
            ("\tv", Err("No header key separator found")),
            (",\tv", Err("No header key separator found")),
            ("a:1,,b:2\tv", Err("No header key separator found")),
            ("a:1,\tv", Ok("a=1 null v")),
            (":\tv", Ok("= null v")),
        ] {
            assert_eq!(read(&headers, line), expected.map(str::to_owned).map_err(str::to_owned), "{line}");
        }
        assert_eq!(read(&[headers[0], ("ignore.error", "true")], "\tv").unwrap(), "=null null v");
    }
}
