//! The records inside a batch: walked in place, written one after the other.
//!
//! ```text
//! record  length varint | attributes i8 | timestamp delta varlong | offset delta varint
//!         key length varint, key | value length varint, value        (-1: null)
//!         header count varint, per header: key length varint, key, value length varint, value
//! ```

#![forbid(unsafe_code)]

use bytes::Bytes;

use crate::base::ids::Offset;
use crate::record::varint::{put_varint, put_varlong, take_varint, take_varlong, varint_bytes, varlong_bytes};

/// The fewest bytes a record takes: a length byte and six one-byte fields.
pub const RECORD_BYTES_MIN: usize = 7;

/// Why a record cannot be read; Kafka answers INVALID_RECORD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("a record is longer than what is left of its batch")]
    CutShort,
    #[error("a record's fields do not fill its length")]
    Length,
    #[error("a record has a malformed number")]
    Number,
    #[error("a record has a negative or impossible header count")]
    HeaderCount,
    #[error("a header's key is null")]
    NullHeaderKey,
}

/// One record where it lies.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'a> {
    pub timestamp_delta: i64,
    pub offset_delta: i32,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub header_count: usize,
    /// The headers as they are encoded; walked already, so they are sound.
    pub headers: &'a [u8],
}

/// One record, decoded and owned.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Record {
    pub offset: Offset,
    pub timestamp: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// Takes the record at the front of `bytes`, walking all of its fields.
pub fn take_record<'a>(bytes: &mut &'a [u8]) -> Result<RecordView<'a>, RecordError> {
    let length = take_varint(bytes).ok_or(RecordError::Number)?;
    let length = usize::try_from(length).map_err(|_| RecordError::CutShort)?;
    let (mut body, rest) = bytes.split_at_checked(length).ok_or(RecordError::CutShort)?;
    let body = &mut body;

    let (_attributes, after) = body.split_first().ok_or(RecordError::Length)?;
    *body = after;
    let timestamp_delta = take_varlong(body).ok_or(RecordError::Number)?;
    let offset_delta = take_varint(body).ok_or(RecordError::Number)?;
    let key = take_nullable(body)?;
    let value = take_nullable(body)?;
    let header_count = take_varint(body).ok_or(RecordError::Number)?;
    let header_count = usize::try_from(header_count).map_err(|_| RecordError::HeaderCount)?;
    if header_count > body.len() {
        return Err(RecordError::HeaderCount);
    }
    let headers = *body;
    for _ in 0..header_count {
        take_header(body)?;
    }
    if !body.is_empty() {
        return Err(RecordError::Length);
    }
    *bytes = rest;
    Ok(RecordView { timestamp_delta, offset_delta, key, value, header_count, headers })
}

/// Any negative length reads as null, as in Kafka 3.9 `Utils.readBytes`.
fn take_nullable<'a>(bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>, RecordError> {
    let length = take_varint(bytes).ok_or(RecordError::Number)?;
    let Ok(length) = usize::try_from(length) else { return Ok(None) };
    let (taken, rest) = bytes.split_at_checked(length).ok_or(RecordError::Length)?;
    *bytes = rest;
    Ok(Some(taken))
}

type Header<'a> = (&'a [u8], Option<&'a [u8]>);

fn take_header<'a>(bytes: &mut &'a [u8]) -> Result<Header<'a>, RecordError> {
    let key = take_nullable(bytes)?.ok_or(RecordError::NullHeaderKey)?;
    Ok((key, take_nullable(bytes)?))
}

impl<'a> RecordView<'a> {
    pub fn headers(&self) -> impl Iterator<Item = Header<'a>> + use<'a> {
        let mut rest = self.headers;
        (0..self.header_count).map_while(move |_| take_header(&mut rest).ok())
    }

    /// An owned copy; `timestamp` as the batch decides it.
    pub fn to_record(&self, base_offset: Offset, timestamp: i64) -> Record {
        let own = Bytes::copy_from_slice;
        Record {
            offset: base_offset.wrapping_add(i64::from(self.offset_delta)),
            timestamp,
            key: self.key.map(own),
            value: self.value.map(own),
            headers: self.headers().map(|(key, value)| (own(key), value.map(own))).collect(),
        }
    }
}

/// Writes a record that was read, under other deltas and in the shortest form of every number, as Kafka's own classes
/// write it; its attributes, which have no meaning, become 0.
pub fn put_view(out: &mut Vec<u8>, timestamp_delta: i64, offset_delta: i32, record: &RecordView<'_>) {
    let header_bytes = record.headers().map(|(key, value)| nullable_bytes(Some(key)) + nullable_bytes(value)).sum();
    let fields = (record.key, record.value, record.header_count, header_bytes);
    put_fields(out, timestamp_delta, offset_delta, fields);
    for (key, value) in record.headers() {
        put_nullable(out, Some(key));
        put_nullable(out, value);
    }
}

/// Writes one record. The fields' lengths are the caller's own data and fit an `i32`.
pub fn put_record(
    out: &mut Vec<u8>,
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &[(&[u8], Option<&[u8]>)],
) {
    let header_bytes = headers.iter().map(|(key, value)| nullable_bytes(Some(key)) + nullable_bytes(*value)).sum();
    put_fields(out, timestamp_delta, offset_delta, (key, value, headers.len(), header_bytes));
    for (key, value) in headers {
        put_nullable(out, Some(key));
        put_nullable(out, *value);
    }
}

/// All of a record but its headers: key, value, how many headers there are and what they take.
fn put_fields(
    out: &mut Vec<u8>,
    timestamp_delta: i64,
    offset_delta: i32,
    (key, value, header_count, header_bytes): (Option<&[u8]>, Option<&[u8]>, usize, usize),
) {
    let count = as_length(header_count);
    let deltas = varlong_bytes(timestamp_delta) + varint_bytes(offset_delta);
    let length = 1 + deltas + nullable_bytes(key) + nullable_bytes(value) + varint_bytes(count) + header_bytes;
    put_varint(out, as_length(length));
    out.push(0);
    put_varlong(out, timestamp_delta);
    put_varint(out, offset_delta);
    put_nullable(out, key);
    put_nullable(out, value);
    put_varint(out, count);
}

fn put_nullable(out: &mut Vec<u8>, field: Option<&[u8]>) {
    put_varint(out, field.map_or(-1, |bytes| as_length(bytes.len())));
    out.extend_from_slice(field.unwrap_or_default());
}

fn nullable_bytes(field: Option<&[u8]>) -> usize {
    field.map_or(1, |bytes| varint_bytes(as_length(bytes.len())) + bytes.len())
}

fn as_length(length: usize) -> i32 {
    assert!(length <= i32::MAX as usize, "a record of {length} bytes cannot be built");
    length as i32
}

/// Walks arbitrary bytes as records; must neither panic nor loop.
pub fn fuzz_take_record(mut bytes: &[u8]) {
    while let Ok(record) = take_record(&mut bytes) {
        assert_eq!(record.headers().count(), record.header_count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::splitmix64::next;

    #[test]
    fn damaged_records_are_refused_or_read_and_never_loop_or_panic() {
        let mut sound = Vec::new();
        let headers: [Header; 2] = [(b"h", None), (b"", Some(b"v"))];
        for offset_delta in 0..5 {
            put_record(&mut sound, 3, offset_delta, Some(b"key"), Some(b"value"), &headers);
        }
        let mut seed = 0x5eed;
        for _ in 0..20_000 {
            let mut damaged = sound.clone();
            for _ in 0..=next(&mut seed) % 4 {
                let place = next(&mut seed) as usize % damaged.len();
                damaged[place] = next(&mut seed) as u8;
            }
            fuzz_take_record(&damaged);
        }
    }

    #[test]
    fn a_record_reads_back_and_every_cut_of_it_is_refused() {
        let mut bytes = Vec::new();
        let headers: [Header; 2] = [(b"h", None), (b"", Some(b"v"))];
        put_record(&mut bytes, -3, 7, Some(b"key"), None, &headers);
        let view = take_record(&mut &bytes[..]).unwrap();
        assert_eq!((view.timestamp_delta, view.offset_delta, view.key, view.value), (-3, 7, Some(&b"key"[..]), None));
        assert_eq!(view.headers().collect::<Vec<_>>(), headers);
        for cut in 0..bytes.len() {
            assert!(take_record(&mut &bytes[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn lengths_and_counts_that_do_not_fit_are_refused() {
        let refused = |bytes: &[u8]| take_record(&mut &bytes[..]).unwrap_err();
        // attributes, timestamp, offset, null key, null value, header count
        assert_eq!(refused(&[12, 0, 0, 0, 1, 1, 1]), RecordError::HeaderCount);
        assert_eq!(refused(&[12, 0, 0, 0, 1, 1, 2]), RecordError::HeaderCount);
        assert_eq!(refused(&[14, 0, 0, 0, 1, 1, 0, 0]), RecordError::Length);
        assert_eq!(refused(&[16, 0, 0, 0, 1, 1, 2, 1, 1]), RecordError::NullHeaderKey);
        assert_eq!(refused(&[1, 0]), RecordError::CutShort);
    }
}
