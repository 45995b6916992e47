//! How a field of each type is read and written: what the tables of fields are made of.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::base::ids::TopicId;
use crate::protocol::api_key::ApiKey;
#[cfg(any(test, feature = "sample"))]
use crate::protocol::sample::Sampler;
use crate::protocol::wire::{Reader, WireError, WireErrorKind, Writer};

/// The encoding of one message: its version, and whether that is a flexible one. Nested structs share it.
#[derive(Clone, Copy, Debug)]
pub struct Codec {
    pub version: i16,
    pub flexible: bool,
}

impl Codec {
    /// # Errors
    /// `Version` if Kafka 3.9 has no such version of this API.
    pub fn new(key: ApiKey, version: i16) -> Result<Codec, WireError> {
        if !key.versions().contains(&version) {
            return Err(WireError::new(WireErrorKind::Version { api: key.name(), version }, 0));
        }
        Ok(Codec { version, flexible: key.is_flexible(version) })
    }
}

/// A type that a field can have.
pub trait Field: Sized + PartialEq {
    /// Fewest bytes a value takes: what an array's count is checked against.
    fn bytes_min(codec: Codec) -> usize;
    fn read(reader: &mut Reader<'_>, codec: Codec) -> Result<Self, WireError>;
    fn write(&self, writer: &mut Writer, codec: Codec) -> Result<(), WireError>;
    /// Kafka's default for a field of this type, where its schema names none.
    fn default_value() -> Self;
    fn is_null(&self) -> bool {
        false
    }
    /// A random value that this version can carry.
    #[cfg(any(test, feature = "sample"))]
    fn sample(sampler: &mut Sampler, codec: Codec) -> Self;
}

macro_rules! number_fields {
    ($($type:ty, $method:ident, $bytes:literal, $sample:expr;)*) => {
        $(
            impl Field for $type {
                fn bytes_min(_: Codec) -> usize {
                    $bytes
                }
                fn read(reader: &mut Reader<'_>, _: Codec) -> Result<$type, WireError> {
                    reader.$method()
                }
                fn write(&self, writer: &mut Writer, _: Codec) -> Result<(), WireError> {
                    writer.$method(*self);
                    Ok(())
                }
                fn default_value() -> $type {
                    <$type>::default()
                }
                #[cfg(any(test, feature = "sample"))]
                fn sample(sampler: &mut Sampler, _: Codec) -> $type {
                    let sample: fn(&mut Sampler) -> $type = $sample;
                    sample(sampler)
                }
            }
        )*
    };
}

number_fields! {
    bool, bool, 1, |sampler| sampler.one_in(2);
    i8, i8, 1, |sampler| sampler.integer() as i8;
    i16, i16, 2, |sampler| sampler.integer() as i16;
    i32, i32, 4, |sampler| sampler.integer() as i32;
    i64, i64, 8, |sampler| sampler.integer();
    TopicId, uuid, 16, |sampler| TopicId(std::array::from_fn(|_| sampler.number() as u8));
}

macro_rules! text_fields {
    ($($type:ty)*) => {
        $(
            impl Field for $type {
                fn bytes_min(codec: Codec) -> usize {
                    if codec.flexible { 1 } else { 2 }
                }
                fn read(reader: &mut Reader<'_>, codec: Codec) -> Result<$type, WireError> {
                    reader.string(codec.flexible).map(<$type>::from)
                }
                fn write(&self, writer: &mut Writer, codec: Codec) -> Result<(), WireError> {
                    writer.string(self, codec.flexible)
                }
                fn default_value() -> $type {
                    <$type>::from("")
                }
                #[cfg(any(test, feature = "sample"))]
                fn sample(sampler: &mut Sampler, _: Codec) -> $type {
                    <$type>::from(sampler.text())
                }
            }
        )*
    };
}

// Shared text where a name is handed on to logs, sessions and other shards.
text_fields! { String Arc<str> }

impl Field for Option<String> {
    fn bytes_min(codec: Codec) -> usize {
        String::bytes_min(codec)
    }
    fn read(reader: &mut Reader<'_>, codec: Codec) -> Result<Option<String>, WireError> {
        Ok(reader.nullable_string(codec.flexible)?.map(String::from))
    }
    fn write(&self, writer: &mut Writer, codec: Codec) -> Result<(), WireError> {
        writer.nullable_string(self.as_deref(), codec.flexible)
    }
    fn default_value() -> Option<String> {
        Some(String::new())
    }
    fn is_null(&self) -> bool {
        self.is_none()
    }
    #[cfg(any(test, feature = "sample"))]
    fn sample(sampler: &mut Sampler, _: Codec) -> Option<String> {
        (!sampler.one_in(3)).then(|| sampler.text())
    }
}

/// Copied: a message may outlive what it was read from.
impl Field for Bytes {
    fn bytes_min(codec: Codec) -> usize {
        Option::<Bytes>::bytes_min(codec)
    }
    fn read(reader: &mut Reader<'_>, codec: Codec) -> Result<Bytes, WireError> {
        Option::<Bytes>::read(reader, codec)?.ok_or_else(|| reader.error(WireErrorKind::Null))
    }
    fn write(&self, writer: &mut Writer, codec: Codec) -> Result<(), WireError> {
        writer.nullable_bytes(Some(self), codec.flexible)
    }
    fn default_value() -> Bytes {
        Bytes::new()
    }
    #[cfg(any(test, feature = "sample"))]
    fn sample(sampler: &mut Sampler, _: Codec) -> Bytes {
        let length = sampler.below(40);
        Bytes::from(sampler.bytes(length))
    }
}

impl Field for Option<Bytes> {
    fn bytes_min(codec: Codec) -> usize {
        if codec.flexible { 1 } else { 4 }
    }
    fn read(reader: &mut Reader<'_>, codec: Codec) -> Result<Option<Bytes>, WireError> {
        Ok(reader.nullable_bytes(codec.flexible)?.map(Bytes::copy_from_slice))
    }
    fn write(&self, writer: &mut Writer, codec: Codec) -> Result<(), WireError> {
        writer.nullable_bytes(self.as_deref(), codec.flexible)
    }
    fn default_value() -> Option<Bytes> {
        Some(Bytes::new())
    }
    fn is_null(&self) -> bool {
        self.is_none()
    }
    #[cfg(any(test, feature = "sample"))]
    fn sample(sampler: &mut Sampler, codec: Codec) -> Option<Bytes> {
        (!sampler.one_in(3)).then(|| Bytes::sample(sampler, codec))
    }
}

impl<T: Field> Field for Vec<T> {
    fn bytes_min(codec: Codec) -> usize {
        if codec.flexible { 1 } else { 4 }
    }
    fn read(reader: &mut Reader<'_>, codec: Codec) -> Result<Vec<T>, WireError> {
        let count = reader.array_count::<T>(codec.flexible, T::bytes_min(codec))?;
        read_elements(reader, codec, count)
    }
    fn write(&self, writer: &mut Writer, codec: Codec) -> Result<(), WireError> {
        writer.length(Some(self.len()), codec.flexible)?;
        self.iter().try_for_each(|element| element.write(writer, codec))
    }
    fn default_value() -> Vec<T> {
        Vec::new()
    }
    #[cfg(any(test, feature = "sample"))]
    fn sample(sampler: &mut Sampler, codec: Codec) -> Vec<T> {
        (0..sampler.below(4)).map(|_| T::sample(sampler, codec)).collect()
    }
}

impl<T: Field> Field for Option<Vec<T>> {
    fn bytes_min(codec: Codec) -> usize {
        Vec::<T>::bytes_min(codec)
    }
    fn read(reader: &mut Reader<'_>, codec: Codec) -> Result<Option<Vec<T>>, WireError> {
        match reader.nullable_array_count::<T>(codec.flexible, T::bytes_min(codec))? {
            Some(count) => read_elements(reader, codec, count).map(Some),
            None => Ok(None),
        }
    }
    fn write(&self, writer: &mut Writer, codec: Codec) -> Result<(), WireError> {
        match self {
            Some(elements) => elements.write(writer, codec),
            None => writer.length(None, codec.flexible),
        }
    }
    fn default_value() -> Option<Vec<T>> {
        Some(Vec::new())
    }
    fn is_null(&self) -> bool {
        self.is_none()
    }
    #[cfg(any(test, feature = "sample"))]
    fn sample(sampler: &mut Sampler, codec: Codec) -> Option<Vec<T>> {
        (!sampler.one_in(4)).then(|| Vec::sample(sampler, codec))
    }
}

/// `count` was checked by the reader: room for all of them may be taken.
fn read_elements<T: Field>(reader: &mut Reader<'_>, codec: Codec, count: usize) -> Result<Vec<T>, WireError> {
    let mut elements = Vec::with_capacity(count);
    for _ in 0..count {
        elements.push(T::read(reader, codec)?);
    }
    Ok(elements)
}

/// Where a partition's records lie, which no message owns.
///
/// Read, it is their place in the bytes given to the decoder. Written, only the length counts: the writer puts the
/// length and leaves a gap, into which the sender puts the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RecordsSpan {
    pub start: usize,
    pub length: usize,
}

impl RecordsSpan {
    /// Records that are sent from elsewhere, so many bytes.
    pub fn of_length(length: usize) -> RecordsSpan {
        RecordsSpan { start: 0, length }
    }

    /// The place as a range of indexes.
    pub fn range(self) -> Range<usize> {
        self.start..self.start + self.length
    }
}

impl Field for Option<RecordsSpan> {
    fn bytes_min(codec: Codec) -> usize {
        if codec.flexible { 1 } else { 4 }
    }
    fn read(reader: &mut Reader<'_>, codec: Codec) -> Result<Option<RecordsSpan>, WireError> {
        let records = reader.nullable_bytes(codec.flexible)?;
        Ok(records.map(|records| RecordsSpan { start: reader.position() - records.len(), length: records.len() }))
    }
    fn write(&self, writer: &mut Writer, codec: Codec) -> Result<(), WireError> {
        writer.length(self.map(|records| records.length), codec.flexible)?;
        writer.gap(self.map_or(0, |records| records.length));
        Ok(())
    }
    fn default_value() -> Option<RecordsSpan> {
        None
    }
    fn is_null(&self) -> bool {
        self.is_none()
    }
    #[cfg(any(test, feature = "sample"))]
    fn sample(sampler: &mut Sampler, _: Codec) -> Option<RecordsSpan> {
        (!sampler.one_in(3)).then(|| RecordsSpan::of_length(sampler.below(300)))
    }
}
