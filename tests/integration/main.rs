//! What clients see of a broker: the real process, real sockets, real clients.
//!
//! Every test starts its own broker on a port of the kernel's choice and a directory of its own, and waits for
//! conditions with a deadline, never for time to pass.

mod admin;
mod admin_port;
mod bad_input;
mod bench;
mod clients;
mod cold;
mod compression;
mod configs;
mod connections;
mod dashboard;
mod disk_faults;
mod fetch;
mod held;
mod idle;
mod import;
mod kcat;
mod kill9;
mod links;
mod message_sets;
mod offsets;
mod operation;
mod prometheus;
mod python_kafka;
mod records;
mod refused;
mod repeated;
mod retention;
mod server;
mod server_scripts;
mod shards;
mod strays;
mod text;
mod tools;
mod wire;
