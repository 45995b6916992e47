//! Stand-ins for the machine, so that the code that ships is the code that is simulated: whole shards on one thread, where
//! one seed decides schedule, network, disk and time.

#![forbid(unsafe_code)]

/// Files in memory that know written from synced.
pub mod disk;
/// A machine: its clock and its place on the network.
pub mod host;
/// What must hold after every step.
pub mod invariants;
/// The ways between hosts, and the connections on them.
pub mod network;
/// A node: shards and metadata on one disk, cut off and started again.
pub mod node;
/// The seam's form here.
pub mod platform;
/// One end of a connection.
pub mod socket;
/// A metadata tree that several nodes share.
pub mod tree;
/// The schedule and the clock.
pub mod world;

#[cfg(test)]
mod faults;
#[cfg(test)]
mod power_cut;
#[cfg(test)]
mod tests;
