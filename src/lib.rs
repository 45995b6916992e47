pub mod base;
pub mod cli; // subcommands and their flags
pub mod config; // every setting, and the only reader of files and environment
pub mod controller; // who leads which partition, which topics exist
pub mod metadata; // what the cluster has agreed on, and the images of it
pub mod platform;
