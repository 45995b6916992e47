//! Reading: a cursor over one slice.

use std::borrow::Cow;

use super::{ARRAY_COUNT_MAX, DECODED_BYTES_MAX, STRING_BYTES_MAX, TAGGED_FIELDS_MAX, WireError, WireErrorKind, text};
use crate::base::ids::TopicId;

/// A cursor over received bytes. What it lends lives as long as they do.
///
/// After an error the position is somewhere in the damaged value: give up the whole message.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
    decoded_bytes_left: usize,
}

macro_rules! read_big_endian {
    ($($name:ident -> $type:ty;)*) => {
        $(
            pub fn $name(&mut self) -> Result<$type, WireError> {
                Ok(<$type>::from_be_bytes(self.fixed()?))
            }
        )*
    };
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, position: 0, decoded_bytes_left: DECODED_BYTES_MAX }
    }

    /// Bytes read so far: an index into the slice given to [`Reader::new`].
    pub fn position(&self) -> usize {
        self.position
    }

    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    read_big_endian! {
        i8 -> i8;
        i16 -> i16;
        i32 -> i32;
        i64 -> i64;
        u32 -> u32;
    }

    /// Any byte but 0 is true, as in Kafka.
    pub fn bool(&mut self) -> Result<bool, WireError> {
        Ok(self.i8()? != 0)
    }

    pub fn uuid(&mut self) -> Result<TopicId, WireError> {
        Ok(TopicId(self.fixed()?))
    }

    /// An unsigned varint: LEB128, at most 5 bytes.
    pub fn uvarint(&mut self) -> Result<u32, WireError> {
        let value = self.leb128(5)?;
        u32::try_from(value).map_err(|_| self.error(WireErrorKind::Varint))
    }

    /// A zigzag varint of 32 bits.
    pub fn varint(&mut self) -> Result<i32, WireError> {
        let value = self.uvarint()?;
        Ok((value >> 1) as i32 ^ -((value & 1) as i32))
    }

    /// A zigzag varint of 64 bits, at most 10 bytes.
    pub fn varlong(&mut self) -> Result<i64, WireError> {
        let value = self.leb128(10)?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// The next `length` bytes, lent.
    pub fn bytes(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        if length > self.remaining() {
            return Err(self.error(WireErrorKind::Truncated { needed: length, remaining: self.remaining() }));
        }
        let bytes = &self.bytes[self.position..self.position + length];
        self.position += length;
        Ok(bytes)
    }

    /// A string of at most [`STRING_BYTES_MAX`] bytes, or null. Any bytes are a string: see [`text`](super::text).
    pub fn nullable_string(&mut self, flexible: bool) -> Result<Option<Cow<'a, str>>, WireError> {
        let length = if flexible {
            self.compact_length()?
        } else {
            let length = self.i16()?;
            self.plain_length(i32::from(length))?
        };
        let Some(length) = length else { return Ok(None) };
        if length > STRING_BYTES_MAX {
            return Err(self.error(WireErrorKind::Length { length: length as i64 }));
        }
        self.bytes(length).map(|bytes| Some(text::decode(bytes)))
    }

    /// A string; null is an error.
    pub fn string(&mut self, flexible: bool) -> Result<Cow<'a, str>, WireError> {
        self.nullable_string(flexible)?.ok_or_else(|| self.error(WireErrorKind::Null))
    }

    /// Bytes or records, lent, or null.
    pub fn nullable_bytes(&mut self, flexible: bool) -> Result<Option<&'a [u8]>, WireError> {
        match self.length(flexible)? {
            Some(length) => self.bytes(length).map(Some),
            None => Ok(None),
        }
    }

    /// The count of an array of `T`, or null: what it claims fits into the bytes left when an element takes at least
    /// `element_bytes_min` of them, and its elements into the memory one message may take. So the caller may
    /// reserve room for all of them.
    pub fn nullable_array_count<T>(
        &mut self,
        flexible: bool,
        element_bytes_min: usize,
    ) -> Result<Option<usize>, WireError> {
        let Some(count) = self.length(flexible)? else { return Ok(None) };
        let fits = count <= ARRAY_COUNT_MAX && count <= self.remaining() / element_bytes_min.max(1);
        let memory_bytes = count.saturating_mul(size_of::<T>());
        if !fits || memory_bytes > self.decoded_bytes_left {
            return Err(self.error(WireErrorKind::ArrayCount { count }));
        }
        self.decoded_bytes_left -= memory_bytes;
        Ok(Some(count))
    }

    /// As [`Reader::nullable_array_count`]; null is an error.
    pub fn array_count<T>(&mut self, flexible: bool, element_bytes_min: usize) -> Result<usize, WireError> {
        let count = self.nullable_array_count::<T>(flexible, element_bytes_min)?;
        count.ok_or_else(|| self.error(WireErrorKind::Null))
    }

    /// The tagged fields of one struct: `read` takes the value of each tag it knows and returns true, or returns false
    /// and leaves the reader alone, which skips the field.
    pub fn tagged_fields(
        &mut self,
        mut read: impl FnMut(u32, &mut Reader<'a>) -> Result<bool, WireError>,
    ) -> Result<(), WireError> {
        let count = self.uvarint()?;
        if count > TAGGED_FIELDS_MAX {
            return Err(self.error(WireErrorKind::TaggedFieldCount { count }));
        }
        for _ in 0..count {
            let tag = self.uvarint()?;
            let length = self.uvarint()? as usize;
            let start = self.position;
            self.bytes(length)?;
            let mut field = Reader {
                bytes: &self.bytes[..start + length],
                position: start,
                decoded_bytes_left: self.decoded_bytes_left,
            };
            if read(tag, &mut field)? && field.remaining() > 0 {
                return Err(field.error(WireErrorKind::TaggedFieldLength { tag, length }));
            }
            self.decoded_bytes_left = field.decoded_bytes_left;
        }
        Ok(())
    }

    pub fn skip_tagged_fields(&mut self) -> Result<(), WireError> {
        self.tagged_fields(|_, _| Ok(false))
    }

    pub(crate) fn error(&self, kind: WireErrorKind) -> WireError {
        WireError::new(kind, self.position)
    }

    /// Length of bytes or count of an array: compact, or 32 bits.
    fn length(&mut self, flexible: bool) -> Result<Option<usize>, WireError> {
        if flexible {
            return self.compact_length();
        }
        let length = self.i32()?;
        self.plain_length(length)
    }

    fn compact_length(&mut self) -> Result<Option<usize>, WireError> {
        Ok((self.uvarint()? as usize).checked_sub(1))
    }

    fn plain_length(&self, length: i32) -> Result<Option<usize>, WireError> {
        match length {
            -1 => Ok(None),
            length => usize::try_from(length)
                .map(Some)
                .map_err(|_| self.error(WireErrorKind::Length { length: i64::from(length) })),
        }
    }

    fn leb128(&mut self, bytes_max: u32) -> Result<u64, WireError> {
        let mut value = 0_u64;
        for index in 0..bytes_max {
            let byte = self.i8()? as u8;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte holds only the 64th bit.
            if index == 9 && bits > 1 {
                break;
            }
            value |= bits << (7 * index);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.error(WireErrorKind::Varint))
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        match self.bytes[self.position..].first_chunk::<N>() {
            Some(bytes) => {
                self.position += N;
                Ok(*bytes)
            }
            None => Err(self.error(WireErrorKind::Ended { needed: N, remaining: self.remaining() })),
        }
    }
}
