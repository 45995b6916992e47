//! The admin port: `/healthz`, `/readyz` and `/metrics` over HTTP, for probes and scrapers.
//!
//! One thread with a small executor of its own; it shares nothing with the shards but counters. It is up before logs
//! are recovered and until the broker has stopped, so that whoever waits sees what for. What it tells comes from
//! [`Source`], read anew for every request; what is not counted the shards are asked for, and one that does not answer
//! in time is left out.
//!
//! There is no authentication, and nothing can be changed here. Connections, the bytes of a request's head, the time
//! that a connection may take, and long answers are bounded; a body is not read.

#![forbid(unsafe_code)]

pub mod health;
pub mod metrics;
mod process;
mod server;
mod text;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use futures_channel::oneshot;

use crate::metrics::status::ShardStatus;
use crate::metrics::{Recorded, ShardCounters};

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
    /// What the file system has free above the reserve, once that is known; with nothing produce is refused.
    pub room_bytes: Option<u64>,
    pub partitions: u64,
    /// Directories of partitions that the metadata does not know.
    pub strays: u64,
    /// Appended bytes that are not known to be on the device, and how many may be before appends leave the shards.
    pub dirty_bytes: u64,
    pub dirty_bytes_max: u64,
    /// How long fdatasync calls took.
    pub sync_time: Recorded,
    /// Jobs that wait for the directory's threads, and how many may: operations on names, syncs and write-backs.
    pub name_jobs: (usize, usize),
    pub sync_jobs: (usize, usize),
}

/// Whom the admin port asks. Every call comes from its thread and must not wait.
pub trait Source: Send + Sync + 'static {
    fn state(&self) -> State;
    fn recovery(&self) -> Recovery;
    fn log_dirs(&self) -> Vec<LogDir>;
    /// By shard; empty before the shards are there.
    fn shards(&self) -> Vec<Arc<ShardCounters>>;
    /// Jobs that wait for a work thread, and how many may.
    fn work_jobs(&self) -> (usize, usize);
    /// Asks every shard how it is, by shard; with each of its partitions if wanted. A receiver that is dropped, or that
    /// does not resolve, is a shard that does not answer.
    fn ask(&self, with_partitions: bool) -> Vec<oneshot::Receiver<ShardStatus>>;
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
