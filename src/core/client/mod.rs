//! A small Kafka client without I/O, for the tools, the load generators and other brokers: bytes and `now` in,
//! bytes and answers out.
//!
//! [`exchange`] is one connection's side of the protocol, [`cluster`] what is known of the brokers; [`producer`],
//! [`consumer`] and [`transaction`] decide what to ask next. Whoever owns a socket drives it: a tool with a
//! blocking one, the load generators with tokio-uring, the broker with a shard's. Nothing here opens files or sockets, starts
//! a thread or looks at a clock.

#![forbid(unsafe_code)]

pub mod cluster;
pub mod consumer;
pub mod exchange;
pub mod producer;
mod request;
pub mod transaction;

pub use exchange::{Answer, Exchange, ExchangeError, Versions};
pub use request::{Request, Response};
