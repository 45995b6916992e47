//! Stand-ins for the machine, so that the code that ships is the code that is simulated: whole shards on one thread, where
//! one seed decides schedule, network, disk and time.

#![forbid(unsafe_code)]

/// Files in memory that know written from synced.
pub mod disk;

#[cfg(test)]
mod faults;
/// A machine: its clock and its place on the network.
#[cfg(test)]
mod host;
/// What must hold after every step.
#[cfg(test)]
mod invariants;
/// The ways between hosts, and the connections on them.
#[cfg(test)]
mod network;
/// A node: shards and metadata on one disk, cut off and started again.
#[cfg(test)]
mod node;
/// The seam's form here.
#[cfg(test)]
pub mod platform;
#[cfg(test)]
mod power_cut;
/// One end of a connection.
#[cfg(test)]
mod socket;
#[cfg(test)]
mod tests;
/// A metadata tree that several nodes share.
#[cfg(test)]
mod tree;
/// The schedule and the clock.
#[cfg(test)]
pub mod world;
