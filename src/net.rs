//! Connections: frames in, replies out in request order. It knows no API and no storage: it sees frames, and replies
//! made of bytes and file ranges.

#![forbid(unsafe_code)]

pub mod claims;
pub mod connection;
pub mod frames;
pub mod idle;
pub mod listener;
pub mod quotas;
pub mod reply;
