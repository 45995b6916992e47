//! Record batches v2, as they are on the wire and on disk, and the older message sets that become one.
//!
//! Pure: bytes and `now` in, values out. Every length and count read from bytes is checked against what is left and
//! against a named bound before memory is taken.

#![forbid(unsafe_code)]

pub mod batch;
pub mod compression;
pub mod message_set;
pub mod validate;
