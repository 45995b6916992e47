//! How records look outside: lines, hex, JSON lines, or a template.

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::client::consumer::RecordRef;
use crate::record::batch::TimestampType;

/// How consumed records are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// The value, and a line's end.
    Raw,
    /// The same in hexadecimal digits.
    Hex,
    Json,
    Template(Vec<Piece>),
}

/// A piece of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    Byte(u8),
    Topic,
    Partition,
    Offset,
    Key,
    KeyBytes,
    Value,
    ValueBytes,
    /// The value's length in four bytes, big-endian.
    ValueLength,
    Headers,
    Timestamp,
}

/// `raw`, `hex`, `json`, or a template in kcat's letters.
pub fn format(text: &str) -> Result<Format, String> {
    match text {
        "raw" => Ok(Format::Raw),
        "hex" => Ok(Format::Hex),
        "json" => Ok(Format::Json),
        _ if text.contains(['%', '\\']) => template(text).map(Format::Template),
        _ => Err(format!(
            "'{text}' is none of raw, hex and json, and no template either: that has a % in it, like '%k %s\\n'"
        )),
    }
}

fn template(text: &str) -> Result<Vec<Piece>, String> {
    let mut bytes = text.bytes();
    let mut pieces = Vec::new();
    while let Some(byte) = bytes.next() {
        pieces.push(match byte {
            b'%' => match bytes.next() {
                Some(b't') => Piece::Topic,
                Some(b'p') => Piece::Partition,
                Some(b'o') => Piece::Offset,
                Some(b'k') => Piece::Key,
                Some(b'K') => Piece::KeyBytes,
                Some(b's') => Piece::Value,
                Some(b'S') => Piece::ValueBytes,
                Some(b'R') => Piece::ValueLength,
                Some(b'h') => Piece::Headers,
                Some(b'T') => Piece::Timestamp,
                Some(b'%') => Piece::Byte(b'%'),
                other => {
                    let letter = other.map_or(String::new(), |byte| char::from(byte).to_string());
                    return Err(format!("the template's %{letter} is none of %t %p %o %k %K %s %S %R %h %T %%"));
                }
            },
            b'\\' => Piece::Byte(escape(&mut bytes)?),
            byte => Piece::Byte(byte),
        });
    }
    Ok(pieces)
}

/// What is behind a backslash.
fn escape(bytes: &mut impl Iterator<Item = u8>) -> Result<u8, String> {
    match bytes.next() {
        Some(b'n') => Ok(b'\n'),
        Some(b'r') => Ok(b'\r'),
        Some(b't') => Ok(b'\t'),
        Some(b'0') => Ok(0),
        Some(b'\\') => Ok(b'\\'),
        Some(b'x') => {
            let digits: Vec<u8> = bytes.take(2).collect();
            unhex(&digits).and_then(|bytes| bytes.first().copied()).ok_or_else(|| "\\x wants two hex digits".to_owned())
        }
        other => Err(format!("\\{} is none of \\n \\r \\t \\0 \\\\ \\xNN", other.map_or(' ', char::from))),
    }
}

/// Text with escapes, such as a separator: `\t`.
pub fn escaped(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = text.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        out.push(if byte == b'\\' { escape(&mut bytes)? } else { byte });
    }
    match out.is_empty() {
        true => Err("can't be empty".to_owned()),
        false => Ok(out),
    }
}

/// What a person said of how records are to be written.
#[derive(Clone, Debug)]
pub struct Writer {
    pub format: Format,
    /// Between key and value; `None`: no key. Of lines and hex only.
    pub key_separator: Option<Vec<u8>>,
    /// Stands for a null key or value; of JSON not, which has a null.
    pub null: Vec<u8>,
}

impl Writer {
    /// Appends one record.
    pub fn write(&self, out: &mut Vec<u8>, topic: &str, partition: i32, record: &RecordRef<'_>) {
        match &self.format {
            Format::Raw => self.line(out, record, |out, bytes| out.extend_from_slice(bytes)),
            Format::Hex => self.line(out, record, hex),
            Format::Json => json(out, topic, partition, record),
            Format::Template(pieces) => {
                pieces.iter().for_each(|piece| self.piece(out, *piece, topic, partition, record));
            }
        }
    }

    fn line(&self, out: &mut Vec<u8>, record: &RecordRef<'_>, put: impl Fn(&mut Vec<u8>, &[u8])) {
        let field = |out: &mut Vec<u8>, bytes: Option<&[u8]>| match bytes {
            Some(bytes) => put(out, bytes),
            None => out.extend_from_slice(&self.null),
        };
        if let Some(separator) = &self.key_separator {
            field(out, record.key);
            out.extend_from_slice(separator);
        }
        field(out, record.value);
        out.push(b'\n');
    }

    fn piece(&self, out: &mut Vec<u8>, piece: Piece, topic: &str, partition: i32, record: &RecordRef<'_>) {
        let length = |bytes: Option<&[u8]>| bytes.map_or(-1, |bytes| bytes.len() as i64);
        match piece {
            Piece::Byte(byte) => out.push(byte),
            Piece::Topic => out.extend_from_slice(topic.as_bytes()),
            Piece::Partition => number(out, i64::from(partition)),
            Piece::Offset => number(out, record.offset),
            Piece::Key => out.extend_from_slice(record.key.unwrap_or(&self.null)),
            Piece::KeyBytes => number(out, length(record.key)),
            Piece::Value => out.extend_from_slice(record.value.unwrap_or(&self.null)),
            Piece::ValueBytes => number(out, length(record.value)),
            Piece::ValueLength => out.extend_from_slice(&(length(record.value) as i32).to_be_bytes()),
            Piece::Timestamp => number(out, record.timestamp),
            Piece::Headers => {
                for (index, (key, value)) in record.headers.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    out.extend_from_slice(key);
                    out.push(b'=');
                    out.extend_from_slice(value.unwrap_or(&self.null));
                }
            }
        }
    }
}

fn number(out: &mut Vec<u8>, number: i64) {
    // Writing into memory does not fail.
    let _ = write!(out, "{number}");
}

fn hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.reserve(2 * bytes.len());
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

/// The bytes that these hexadecimal digits stand for.
pub fn unhex(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let (pairs, rest) = digits.as_chunks::<2>();
    let byte = |pair: &[u8; 2]| Some(digit(pair[0])? << 4 | digit(pair[1])?);
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}

fn json(out: &mut Vec<u8>, topic: &str, partition: i32, record: &RecordRef<'_>) {
    out.extend_from_slice(b"{\"topic\":");
    json_text(out, topic);
    out.extend_from_slice(b",\"partition\":");
    number(out, i64::from(partition));
    out.extend_from_slice(b",\"offset\":");
    number(out, record.offset);
    out.extend_from_slice(b",\"timestamp\":");
    number(out, record.timestamp);
    let of = match record.timestamp_type {
        TimestampType::CreateTime => b",\"timestamp_type\":\"CreateTime\",".as_slice(),
        TimestampType::LogAppendTime => b",\"timestamp_type\":\"LogAppendTime\",".as_slice(),
    };
    out.extend_from_slice(of);
    json_bytes(out, "key", record.key);
    out.push(b',');
    json_bytes(out, "value", record.value);
    out.extend_from_slice(b",\"headers\":[");
    for (index, (key, value)) in record.headers.iter().enumerate() {
        out.extend_from_slice(if index > 0 { b",{" } else { b"{" });
        json_bytes(out, "key", Some(key));
        out.push(b',');
        json_bytes(out, "value", value);
        out.push(b'}');
    }
    out.extend_from_slice(b"]}\n");
}

/// A field of bytes: as text if it is, else in base64 and under a name that says so.
fn json_bytes(out: &mut Vec<u8>, name: &str, bytes: Option<&[u8]>) {
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    match bytes.map(std::str::from_utf8) {
        None => out.extend_from_slice(b"\":null"),
        Some(Ok(text)) => {
            out.extend_from_slice(b"\":");
            json_text(out, text);
        }
        Some(Err(_)) => {
            out.extend_from_slice(b"_base64\":\"");
            out.extend_from_slice(STANDARD.encode(bytes.unwrap_or_default()).as_bytes());
            out.push(b'"');
        }
    }
}

fn json_text(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    out.push(b'"');
    let mut plain = 0;
    for (index, byte) in bytes.iter().enumerate() {
        if *byte >= 0x20 && *byte != b'"' && *byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[plain..index]);
        plain = index + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                out.extend_from_slice(b"\\u00");
                hex(out, &[*byte]);
            }
        }
    }
    out.extend_from_slice(&bytes[plain..]);
    out.push(b'"');
}

/// A record as a line of JSON says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JsonRecord {
    pub partition: Option<i32>,
    pub timestamp: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// Reads what [`Format::Json`] writes. Topic and offset are the reader's to choose: those of the line are passed over.
pub fn parse_json(line: &[u8]) -> Result<JsonRecord, String> {
    let value: Value = serde_json::from_slice(line).map_err(|error| format!("not JSON: {error}"))?;
    let Value::Object(fields) = value else { return Err("not a JSON object".to_owned()) };
    let mut record = JsonRecord::default();
    for (name, value) in &fields {
        match name.as_str() {
            "partition" => {
                record.partition =
                    integer(name, value)?.map(i32::try_from).transpose().map_err(|_| "the partition is too large")?
            }
            "timestamp" => record.timestamp = integer(name, value)?,
            "key" | "key_base64" => record.key = bytes(name, value)?.map(Cow::into_owned),
            "value" | "value_base64" => record.value = bytes(name, value)?.map(Cow::into_owned),
            "headers" => record.headers = headers(value)?,
            "topic" | "offset" | "timestamp_type" => {}
            _ => return Err(format!("no field of a record is called '{name}'")),
        }
    }
    Ok(record)
}

fn integer(name: &str, value: &Value) -> Result<Option<i64>, String> {
    match value {
        Value::Null => Ok(None),
        value => value.as_i64().map(Some).ok_or_else(|| format!("'{name}' is not a whole number")),
    }
}

fn bytes<'a>(name: &str, value: &'a Value) -> Result<Option<Cow<'a, [u8]>>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) if name.ends_with("_base64") => {
            let decoded = STANDARD.decode(text).map_err(|error| format!("'{name}' is not base64: {error}"))?;
            Ok(Some(Cow::Owned(decoded)))
        }
        Value::String(text) => Ok(Some(Cow::Borrowed(text.as_bytes()))),
        _ => Err(format!("'{name}' is neither a string nor null")),
    }
}

fn headers(value: &Value) -> Result<Vec<(Vec<u8>, Option<Vec<u8>>)>, String> {
    let wrong = || "'headers' is not a list of {\"key\": .., \"value\": ..}".to_owned();
    let header = |header: &Value| {
        let field = |name: &str| match (header.get(name), header.get(format!("{name}_base64"))) {
            (Some(value), None) => bytes(name, value),
            (None, Some(value)) => bytes(&format!("{name}_base64"), value),
            _ => Err(wrong()),
        };
        Ok((field("key")?.ok_or_else(wrong)?.into_owned(), field("value")?.map(Cow::into_owned)))
    };
    value.as_array().ok_or_else(wrong)?.iter().map(header).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::consumer::Headers;
    use crate::record::records::{put_record, take_record};

    fn written(
        writer: &Writer,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) -> Vec<u8> {
        let mut body = Vec::new();
        put_record(&mut body, 0, 0, key, value, headers);
        let view = take_record(&mut &body[..]).unwrap();
        let record = RecordRef {
            offset: 7,
            timestamp: 1_700_000_000_000,
            timestamp_type: TimestampType::CreateTime,
            key: view.key,
            value: view.value,
            headers: Headers::Of(&view),
        };
        let mut out = Vec::new();
        writer.write(&mut out, "t", 2, &record);
        out
    }

    fn writer(text: &str) -> Writer {
        Writer { format: format(text).unwrap(), key_separator: Some(b":".to_vec()), null: b"NULL".to_vec() }
    }

    #[test]
    fn a_template_has_kcats_letters_and_escapes() {
        let headers: [(&[u8], Option<&[u8]>); 2] = [(b"a", Some(b"1")), (b"b", None)];
        let out = written(&writer(r"%t %p %o %k %K %s %S %T %h%%\t\x41\n"), Some(b"key"), None, &headers);
        assert_eq!(String::from_utf8(out).unwrap(), "t 2 7 key 3 NULL -1 1700000000000 a=1,b=NULL%\tA\n");
        assert_eq!(written(&writer("%R%s"), None, Some(b"xyz"), &[]), b"\0\0\0\x03xyz");
        for wrong in ["%", "%q", r"\q", r"%s\x4", "plain"] {
            assert!(format(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lines_and_hex_have_the_key_where_asked() {
        assert_eq!(written(&writer("raw"), Some(b"k"), Some(b"v"), &[]), b"k:v\n");
        assert_eq!(written(&writer("hex"), None, Some(b"\x00\xffA"), &[]), b"NULL:00ff41\n");
        assert_eq!(unhex(b"00Ff41"), Some(vec![0, 255, 65]));
        assert_eq!((unhex(b"0"), unhex(b"0g"), escaped(r"\t::").unwrap()), (None, None, b"\t::".to_vec()));
    }

    #[test]
    fn json_reads_back_whatever_the_bytes() {
        let headers: [(&[u8], Option<&[u8]>); 2] = [(b"a\"", Some(b"\xff\x00")), (b"\xfe", None)];
        for (key, value) in
            [(Some(&b"k\n\x01\\"[..]), Some("\u{1F980} text".as_bytes())), (None, Some(b"\xff\xfe")), (Some(b""), None)]
        {
            let line = written(&writer("json"), key, value, &headers);
            let record = parse_json(&line).unwrap();
            assert_eq!((record.key.as_deref(), record.value.as_deref()), (key, value));
            assert_eq!((record.partition, record.timestamp), (Some(2), Some(1_700_000_000_000)));
            let found: Vec<_> = record.headers.iter().map(|(key, value)| (&key[..], value.as_deref())).collect();
            assert_eq!(found, headers);
        }
    }

    #[test]
    fn json_that_is_no_record_is_refused_with_its_reason() {
        for (line, reason) in [
            ("{", "not JSON"),
            ("[]", "not a JSON object"),
            (r#"{"vallue":"x"}"#, "'vallue'"),
            (r#"{"value":1}"#, "neither a string nor null"),
            (r#"{"value_base64":"?"}"#, "not base64"),
            (r#"{"headers":[{"key":null,"value":null}]}"#, "headers"),
            (r#"{"timestamp":"x"}"#, "whole number"),
        ] {
            let error = parse_json(line.as_bytes()).unwrap_err();
            assert!(error.contains(reason), "{line}: {error}");
        }
    }
}
