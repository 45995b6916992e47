//! Leaves: identifiers, time and checksums. Imports nothing of the crate, may be imported by everything.

pub mod budget;
pub mod class;
pub mod crc32c;
pub mod gate;
pub mod ids;
pub mod log_levels;
pub mod log_limit;
pub mod log_request;
pub mod principal;
pub mod sleep;
pub mod splitmix64;
pub mod time;
pub mod timers;
