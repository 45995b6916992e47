//! Kafka's wire protocol as values: bytes in, values out, and back.
//!
//! Owns the framing rule, request and response headers, the table of APIs with the versions this broker serves, error
//! codes, and one codec per API. Pure: no files, sockets, clocks or cluster state. Two rules hold everywhere:
//! bytes of a peer never panic and never take more memory than [`wire::DECODED_BYTES_MAX`]; a decoder of version v reads
//! exactly the fields Kafka 3.9's schema gives version v.
#![forbid(unsafe_code)]

pub mod api_key;
pub mod error_code;
pub mod frame;
pub mod fuzz;
pub mod header;
pub mod message;
#[cfg(any(test, feature = "sample"))]
pub mod sample;
pub mod wire;

pub use api_key::ApiKey;
pub use error_code::ErrorCode;
pub use wire::{Reader, WireError, Writer};
