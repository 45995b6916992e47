//! `kafka-console-producer` (Kafka 3.9 `ConsoleProducer`, `LineMessageReader`).

#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use super::{Reach, check_property};
use crate::cli::admin::{self, assignment};
use crate::cli::connect::address;
use crate::cli::failure::Failure;
use crate::cli::format::escaped;
use crate::cli::interrupt::Interrupt;
use crate::cli::produce::{BUFFER_BYTES, Sending, ToRecords, acks, compression, open_inputs};
use crate::client::producer::{ProducerOptions, ToRecord};
use crate::record::compression::Compression;

/// `batch.size` and `linger.ms` of the console producer.
const BATCH_BYTES: u32 = 16_384;
const LINGER_MS: u64 = 1000;

#[derive(clap::Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    reach: Reach,
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', value_parser = address, hide = true)]
    broker_list: Vec<String>,
    #[arg(long, value_name = "TOPIC")]
    topic: String,
    /// Send each line by itself
    #[arg(long)]
    sync: bool,
    #[arg(long, value_name = "CODEC", num_args = 0..=1, default_value = "none", default_missing_value = "gzip", value_parser = compression)]
    compression_codec: Compression,
    #[arg(long, value_name = "BYTES", default_value_t = BATCH_BYTES)]
    batch_size: u32,
    #[arg(long, value_name = "N", default_value_t = 3)]
    message_send_max_retries: u32,
    /// How long a line waits for more, in ms
    #[arg(long, value_name = "MS", default_value_t = LINGER_MS)]
    timeout: u64,
    #[arg(long, value_name = "ACKS", default_value = "-1", value_parser = acks, allow_hyphen_values = true)]
    request_required_acks: i16,
    #[arg(long, value_name = "MS", default_value_t = 1500)]
    request_timeout_ms: i32,
    /// parse.key, key.separator, parse.headers, headers.delimiter, headers.separator, headers.key.separator,
    /// null.marker, ignore.error
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment, visible_alias = "reader-property")]
    property: Vec<(String, String)>,
    #[arg(long, value_name = "NAME=VALUE")]
    producer_property: Vec<String>,
}

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    arguments.producer_property.iter().try_for_each(|property| check_property(property))?;
    let mut lines = ConsoleLines::new(&arguments.property).map_err(Failure::Usage)?;
    let interrupt = Interrupt::catch()?;
    let mut client = arguments.reach.connect_or(&arguments.broker_list)?;
    let topic = admin::topic(&mut client, &arguments.topic)?;
    let options = ProducerOptions {
        acks: arguments.request_required_acks,
        compression: arguments.compression_codec,
        batch_bytes: if arguments.sync { 1 } else { arguments.batch_size.clamp(1, BUFFER_BYTES as u32) as usize },
        linger: Duration::from_millis(if arguments.sync { 0 } else { arguments.timeout }),
        timeout_ms: arguments.request_timeout_ms,
        buffer_bytes: BUFFER_BYTES,
        retries_max: arguments.message_send_max_retries,
    };
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
                _ => return Err(format!("no property of the line reader is called '{name}'")),
            }
        }
        Ok(lines)
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
        while !text.is_empty() {
            let end = memchr::memmem::find(text, &self.headers_separator);
            let (pair, rest) =
                end.map_or((text, &[][..]), |end| (&text[..end], &text[end + self.headers_separator.len()..]));
            text = rest;
            let (name, value) = self.split(pair, &self.headers_key_separator, "header key separator")?;
            headers.push(match name {
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

    fn record<T>(&mut self, line: &[u8], now_ms: i64, push: impl FnOnce(&ToRecord<'_>) -> T) -> Result<T, String> {
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
        assert!(read(&[("parse.kee", "true")], "").is_err());
    }
}
