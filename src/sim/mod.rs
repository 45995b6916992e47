//! Stand-ins for the machine, so that the code that ships is the code that is simulated.

#![forbid(unsafe_code)]

/// Files in memory that know written from synced.
pub mod disk;
