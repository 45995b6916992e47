//! Record batches v2, as they are on the wire and on disk, and the older message sets that become one.
//!
//! Pure: bytes and `now` in, values out. Every length and count read from bytes is checked against what is left and
//! against a named bound before memory is taken.
//!
//! A batch is a header of 61 bytes ([`batch`]) and its records ([`records`]), which are one compressed block unless the
//! codec is none ([`compression`]). [`validate`] is what the leader asks of a produced batch, and [`repack`] writes one
//! anew in another codec; [`message_set`] makes one of what Produce v0 to v2 carries, and [`down_convert`] is the way back
//! for Fetch v0 to v3. [`seek`] looks for a record by its time.

#![forbid(unsafe_code)]

/// What a compressed batch may become when an answer depends on its records.
pub const DECOMPRESSED_BYTES_MAX: usize = 128 * 1024 * 1024;

pub mod batch;
pub mod compression;
pub mod down_convert;
pub mod message_set;
pub mod records;
pub mod repack;
pub mod rewrite;
pub mod seek;
pub mod validate;
pub mod varint;
