//! Why a run can't begin or go on, in the tools' words.

#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::client::ExchangeError;
use crate::failure::{Failure, reason};

pub fn no_broker(at: SocketAddr, why: &str) -> Failure {
    Failure::Unreachable(format!("the broker at {at} does not answer ({why}); look whether it runs, and at its log"))
}

pub fn silent(at: SocketAddr, silent: Duration) -> Failure {
    let seconds = silent.as_secs_f64();
    Failure::Unreachable(format!(
        "the broker at {at} has not answered for {seconds} s; look at its log, or wait longer with --timeout"
    ))
}

pub fn broken(at: SocketAddr, error: &io::Error) -> Failure {
    Failure::Refused(format!("the connection to the broker at {at} broke ({}); see its log", reason(error)))
}

pub fn exchange(error: ExchangeError) -> Failure {
    Failure::Refused(error.to_string())
}

/// An answer that can be read and makes no sense.
pub fn answer(why: &str) -> Failure {
    Failure::Refused(format!("an answer of the broker can't be used: {why}"))
}

/// The machine does not give what the run needs.
pub fn system(what: &str, error: impl Into<io::Error>) -> Failure {
    Failure::Refused(format!("{what}: {}", error.into()))
}

/// A file that was named.
pub fn file(path: &Path, error: &io::Error) -> Failure {
    Failure::Refused(format!("{}: {}", path.display(), reason(error)))
}
