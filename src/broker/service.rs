//! Tells the service manager how the process is (`sd_notify(3)`): one datagram to the socket that it names, if it names
//! one. Whether it arrives concerns nobody here.

#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";

/// The broker serves.
pub fn ready(status: &str) {
    tell(&format!("READY=1\nSTATUS={status}"));
}

/// The broker stops.
pub fn stopping(status: &str) {
    tell(&format!("STOPPING=1\nSTATUS={status}"));
}

/// What the broker does now.
pub fn status(status: &str) {
    tell(&format!("STATUS={status}"));
}

fn tell(state: &str) {
    if let Some(name) = std::env::var_os(SOCKET_VARIABLE).filter(|name| !name.is_empty())
        && let Err(error) = send(&name, state)
    {
        tracing::debug!(%error, "the service manager can't be told how the broker is");
    }
}

/// A name that begins with `@` is one of the abstract name space.
fn send(name: &OsStr, state: &str) -> io::Result<()> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not hold the broker.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state.as_bytes(), &address).map(drop)
}
