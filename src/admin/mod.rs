//! The admin port: `/healthz`, `/readyz` and `/metrics` over HTTP, for probes and scrapers.
//!
//! One thread with a small executor of its own; it shares nothing with the shards but counters. It is up before logs
//! are recovered and until the broker has stopped, so that whoever waits sees what for. What it tells comes from
//! [`Source`], read anew for every request.
//!
//! There is no authentication, and nothing can be changed here. Connections, the bytes of a request's head and the time
//! that a connection may take are bounded; a body is not read.

#![forbid(unsafe_code)]

pub mod health;
pub mod metrics;
mod server;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use futures_channel::oneshot;

use crate::metrics::ShardCounters;

/// What the process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Opening its logs, and checking those that were not closed in order.
    Recovering,
    Serving,
    Stopping,
}

impl State {
    pub const ALL: [State; 3] = [State::Recovering, State::Serving, State::Stopping];

    pub fn name(self) -> &'static str {
        match self {
            State::Recovering => "recovering",
            State::Serving => "serving",
            State::Stopping => "stopping",
        }
    }
}

/// How far the recovery of this start is. Totals may still grow while logs look at their files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    pub logs_total: u64,
    pub logs_done: u64,
    pub bytes_total: u64,
    pub bytes_done: u64,
}

/// A data directory.
#[derive(Clone, Debug, PartialEq)]
pub struct LogDir {
    pub path: PathBuf,
    /// Its partitions are served.
    pub online: bool,
    /// Produce is taken: the file system has more free than the reserve.
    pub has_room: bool,
    pub partitions: u64,
    /// Appended bytes that are not known to be on the device.
    pub dirty_bytes: u64,
    /// fdatasync calls, and the seconds they took together.
    pub syncs_total: u64,
    pub sync_seconds_total: f64,
}

/// Whom the admin port asks. Every call comes from its thread and must not wait.
pub trait Source: Send + Sync + 'static {
    fn state(&self) -> State;
    fn recovery(&self) -> Recovery;
    fn log_dirs(&self) -> Vec<LogDir>;
    /// By shard; empty before the shards are there.
    fn shards(&self) -> Vec<Arc<ShardCounters>>;
}

/// A running admin port. Dropped, it closes its connections and ends.
pub struct Admin {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Admin {
    /// Serves on `address`; with port 0 on one that is free.
    ///
    /// # Errors
    /// `AddrInUse` and its like from the listener, or the thread's.
    pub fn start(address: SocketAddr, source: Arc<dyn Source>) -> io::Result<Admin> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name("admin".to_owned()).spawn(move || {
            if let Err(error) = runtime.block_on(server::run(listener, source, stopped)) {
                tracing::error!(%error, "the admin port has failed");
            }
        })?;
        tracing::info!(%address, "admin port");
        Ok(Admin { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens, with the port really bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        // An error says that the thread has ended already.
        let _ = self.stop.take().map(|stop| stop.send(()));
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the admin port's thread ended in a panic");
        }
    }
}

#[cfg(test)]
mod tests;
