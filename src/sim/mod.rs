//! Stand-ins for the machine, so that the code that ships is the code that is simulated: whole shards on one thread, where
//! one seed decides schedule, network, disk and time.

#![forbid(unsafe_code)]

/// Connections in memory.
pub mod connection;
/// Files in memory that know written from synced.
pub mod disk;
/// A node: shards and metadata on one disk, cut off and started again.
pub mod node;
/// The seam's form here.
pub mod platform;
/// The schedule and the clock.
pub mod world;

#[cfg(test)]
mod faults;
#[cfg(test)]
mod power_cut;
#[cfg(test)]
mod tests;
