//! Writing: into one buffer, which may have gaps where bytes of a file will go.

use bytes::{BufMut, Bytes, BytesMut};

use super::{STRING_BYTES_MAX, WireError, WireErrorKind};
use crate::base::ids::TopicId;
use crate::metrics::ErrorTally;

/// Grows a buffer by one message. A gap (see [`Writer::gap`]) is a place where bytes follow that are not in the buffer.
#[derive(Debug, Default)]
pub struct Writer {
    buffer: BytesMut,
    /// Positions in the buffer, ascending, where a gap is.
    gaps: Vec<usize>,
    gap_bytes: usize,
    errors: ErrorTally,
}

macro_rules! write_big_endian {
    ($($name:ident($type:ty);)*) => {
        $(
            pub fn $name(&mut self, value: $type) {
                self.buffer.put_slice(&value.to_be_bytes());
            }
        )*
    };
}

impl Writer {
    pub fn new() -> Writer {
        Writer::default()
    }

    /// With room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Writer {
        Writer { buffer: BytesMut::with_capacity(capacity), ..Writer::default() }
    }

    /// The codes of all fields that are an error of Kafka's, so far.
    pub fn errors(&self) -> &ErrorTally {
        &self.errors
    }

    pub(in crate::protocol) fn note_error(&mut self, code: i16) {
        self.errors.note(code);
    }

    /// Makes room for `bytes` more, so that they need no further allocation.
    pub fn reserve(&mut self, bytes: usize) {
        self.buffer.reserve(bytes);
    }

    /// Bytes in the buffer, without those of gaps.
    pub fn position(&self) -> usize {
        self.buffer.len()
    }

    /// Bytes of the message so far, those of gaps among them.
    pub fn total_bytes(&self) -> usize {
        self.buffer.len() + self.gap_bytes
    }

    write_big_endian! {
        i8(i8);
        i16(i16);
        i32(i32);
        i64(i64);
        u32(u32);
    }

    pub fn bool(&mut self, value: bool) {
        self.i8(i8::from(value));
    }

    pub fn uuid(&mut self, value: TopicId) {
        self.buffer.put_slice(&value.0);
    }

    /// An unsigned varint: LEB128.
    pub fn uvarint(&mut self, value: u32) {
        self.leb128(u64::from(value));
    }

    /// A zigzag varint of 32 bits.
    pub fn varint(&mut self, value: i32) {
        self.uvarint(((value << 1) ^ (value >> 31)) as u32);
    }

    /// A zigzag varint of 64 bits.
    pub fn varlong(&mut self, value: i64) {
        self.leb128(((value << 1) ^ (value >> 63)) as u64);
    }

    /// The bytes alone, without a length.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.buffer.put_slice(bytes);
    }

    /// A string, or null.
    ///
    /// # Errors
    /// `TooLong` above [`STRING_BYTES_MAX`] bytes.
    pub fn nullable_string(&mut self, text: Option<&str>, flexible: bool) -> Result<(), WireError> {
        let length = text.map(str::len);
        if let Some(length) = length.filter(|length| *length > STRING_BYTES_MAX) {
            return Err(self.error(WireErrorKind::TooLong { length }));
        }
        if flexible {
            self.length(length, true)?;
        } else {
            // Lossless: checked above.
            self.i16(length.map_or(-1, |length| length as i16));
        }
        self.bytes(text.unwrap_or_default().as_bytes());
        Ok(())
    }

    pub fn string(&mut self, text: &str, flexible: bool) -> Result<(), WireError> {
        self.nullable_string(Some(text), flexible)
    }

    /// Bytes or records, or null.
    pub fn nullable_bytes(&mut self, bytes: Option<&[u8]>, flexible: bool) -> Result<(), WireError> {
        self.length(bytes.map(<[u8]>::len), flexible)?;
        self.bytes(bytes.unwrap_or_default());
        Ok(())
    }

    /// Length of bytes or count of an array: compact, or 32 bits; `None` is null.
    ///
    /// # Errors
    /// `TooLong` from 2 GiB up.
    pub fn length(&mut self, length: Option<usize>, flexible: bool) -> Result<(), WireError> {
        let value = match length {
            None => -1,
            Some(length) => i32::try_from(length).map_err(|_| self.error(WireErrorKind::TooLong { length }))?,
        };
        if flexible {
            // 0 for null; i32::MAX + 1 still fits.
            self.uvarint((i64::from(value) + 1) as u32);
        } else {
            self.i32(value);
        }
        Ok(())
    }

    /// One tagged field: its tag, the size of what `write` writes, and that.
    pub fn tagged_field(
        &mut self,
        tag: u32,
        write: impl FnOnce(&mut Writer) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
        let mut field = Writer::new();
        write(&mut field)?;
        let length = field.position();
        self.uvarint(tag);
        self.uvarint(u32::try_from(length).map_err(|_| self.error(WireErrorKind::TooLong { length }))?);
        self.bytes(&field.buffer);
        Ok(())
    }

    /// Leaves a place for `length` bytes that are sent from elsewhere; a gap of 0 bytes is none.
    pub fn gap(&mut self, length: usize) {
        if length > 0 {
            self.gaps.push(self.buffer.len());
            self.gap_bytes += length;
        }
    }

    /// Writes over four bytes that are already in the buffer, from `position` on.
    ///
    /// # Panics
    /// If they are not.
    pub fn patch_i32(&mut self, position: usize, value: i32) {
        self.buffer[position..position + 4].copy_from_slice(&value.to_be_bytes());
    }

    /// The buffer, of a message without gaps.
    ///
    /// # Panics
    /// If there is a gap: the bytes alone would not be the message.
    pub fn into_bytes(self) -> BytesMut {
        assert!(self.gaps.is_empty(), "a message with gaps is sent in chunks");
        self.buffer
    }

    /// The buffer cut at its gaps: gap i lies between chunk i and chunk i + 1. All chunks share one allocation.
    pub fn into_chunks(self) -> Vec<Bytes> {
        let mut rest = self.buffer.freeze();
        let mut chunks = Vec::with_capacity(self.gaps.len() + 1);
        let mut start = 0;
        for gap in self.gaps {
            chunks.push(rest.split_to(gap - start));
            start = gap;
        }
        chunks.push(rest);
        chunks
    }

    pub(crate) fn error(&self, kind: WireErrorKind) -> WireError {
        WireError::new(kind, self.position())
    }

    fn leb128(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.buffer.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.buffer.put_u8(value as u8);
    }
}
