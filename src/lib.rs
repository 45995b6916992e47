pub mod base;
pub mod platform;
/// The record batch on the wire and on disk: pure, no files, clocks or sockets.
pub mod record;
/// The world below the real code, simulated under a seed.
pub mod sim;
/// A partition's log on disk.
pub mod storage;
