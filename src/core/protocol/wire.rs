//! Primitives of the wire format, both ways: [`Reader`] over received bytes, [`Writer`] into a growing buffer.
//!
//! Invariants of the reader: it never panics, never reads outside its slice, and no array takes memory before its count
//! is checked three times: against the bytes left (each element has a least size), [`ARRAY_COUNT_MAX`], and what is left of
//! [`DECODED_BYTES_MAX`]. `flexible` picks the encoding of lengths everywhere: compact (unsigned varint of n + 1, 0 is
//! null; KIP-482) or plain (big-endian, -1 is null).
#![forbid(unsafe_code)]

mod error;
mod reader;
mod text;
mod writer;

#[cfg(test)]
mod tests;

pub use error::{WireError, WireErrorKind};
pub use reader::Reader;
pub use writer::Writer;

/// Most elements of one array. Above any real cluster: 200,000 partitions of one topic are a fifth of it.
pub const ARRAY_COUNT_MAX: usize = 1 << 20;

/// Most memory, in bytes, that the arrays of one decoded message may take; strings are bounded by the frame itself.
pub const DECODED_BYTES_MAX: usize = 128 << 20;

/// Longest string, in bytes, also in the compact form (Kafka 3.9 `MessageDataGenerator`: 0x7fff).
pub const STRING_BYTES_MAX: usize = i16::MAX as usize;

/// Most tagged fields of one struct; Kafka's schemas use up to four, the rest leaves room for later ones.
pub const TAGGED_FIELDS_MAX: u32 = 1024;
