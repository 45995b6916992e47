//! Helper and work threads: bounded queues of jobs, results by oneshot to whichever shard asked.
//!
//! A helper runs file operations of one log directory: those on names one after the other, so that operations on one file
//! keep their order, syncs beside one another. Work threads run CPU-heavy jobs at the lowest priority. Neither knows what a job means.

#![forbid(unsafe_code)]

use std::future::Future;
use std::io;
use std::sync::Arc;

use async_channel::{Receiver, Sender};
use crossbeam_queue::SegQueue;
use futures_channel::oneshot;

use crate::sys;

type Job = Box<dyn FnOnce() + Send>;

/// Jobs a helper lets wait; a task that finds the queue full waits for room.
const HELPER_JOBS_MAX: usize = 4096;

/// Jobs the work threads let wait; beyond it a job is refused.
const WORK_JOBS_MAX: usize = 1024;

/// A thread that does one directory's file operations in order, or several that do them in none. Clones share them; they
/// end when the last handle is gone.
#[derive(Clone, Debug)]
pub struct Helper {
    jobs: Sender<Job>,
    /// What nobody waits for and found no room among the jobs. Bounded by the number of open files: each has at most one
    /// close, or one write-back, there.
    overflow: Arc<Overflow>,
}

#[derive(Default)]
struct Overflow(SegQueue<Job>);

impl std::fmt::Debug for Overflow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Overflow({})", self.0.len())
    }
}

impl Helper {
    /// Starts so many threads.
    pub fn start(name: &str, thread_count: usize) -> io::Result<Helper> {
        let (jobs, receiver) = async_channel::bounded::<Job>(HELPER_JOBS_MAX);
        let overflow = Arc::new(Overflow::default());
        for _ in 0..thread_count {
            let (receiver, spill) = (receiver.clone(), Arc::clone(&overflow));
            std::thread::Builder::new().name(name.to_owned()).spawn(move || {
                while let Ok(job) = receiver.recv_blocking() {
                    job();
                    while let Some(job) = spill.0.pop() {
                        job();
                    }
                }
            })?;
        }
        Ok(Helper { jobs, overflow })
    }

    /// Runs `job` on the thread, after all that was asked for before, and resolves to what it returned.
    pub fn run<T: Send + 'static, F: FnOnce() -> io::Result<T> + Send + 'static>(
        &self,
        job: F,
    ) -> impl Future<Output = io::Result<T>> + use<T, F> + 'static {
        let jobs = self.jobs.clone();
        async move {
            let (sender, receiver) = oneshot::channel();
            let boxed: Job = Box::new(move || {
                let _ = sender.send(job());
            });
            if jobs.send(boxed).await.is_err() {
                return Err(helper_gone());
            }
            receiver.await.unwrap_or_else(|_| Err(helper_gone()))
        }
    }

    /// Jobs that wait, and how many may before others wait for room.
    pub fn queue(&self) -> (usize, usize) {
        (self.jobs.len() + self.overflow.0.len(), HELPER_JOBS_MAX)
    }

    /// Has the thread drop `value`, from any thread and without waiting: how descriptors are closed.
    pub fn drop_there<T: Send + 'static>(&self, value: T) {
        self.start_job(move || drop(value));
    }

    /// Has the thread do `job`, which tells nobody how it went, without waiting.
    pub fn start_job(&self, job: impl FnOnce() + Send + 'static) {
        let job: Job = Box::new(job);
        if let Err(refused) = self.jobs.try_send(job) {
            // Full: the thread is busy and looks here after its job. Closed: dropped with the queue.
            self.overflow.0.push(refused.into_inner());
        }
    }
}

fn helper_gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the directory's helper thread has ended")
}

/// The threads for CPU-heavy jobs.
#[derive(Clone, Debug)]
pub struct WorkPool {
    jobs: Sender<Job>,
}

impl WorkPool {
    pub fn start(thread_count: usize) -> io::Result<WorkPool> {
        let (jobs, receiver) = async_channel::bounded::<Job>(WORK_JOBS_MAX);
        for index in 0..thread_count {
            let receiver: Receiver<Job> = receiver.clone();
            std::thread::Builder::new().name(format!("work-{index}")).spawn(move || {
                if let Err(error) = sys::lower_priority() {
                    tracing::warn!(%error, "work thread keeps its priority");
                }
                while let Ok(job) = receiver.recv_blocking() {
                    job();
                }
            })?;
        }
        Ok(WorkPool { jobs })
    }

    /// Jobs that wait, and how many may.
    pub fn queue(&self) -> (usize, usize) {
        (self.jobs.len(), WORK_JOBS_MAX)
    }

    /// Resolves to what `job` returned, or to `None` when the queue is full.
    pub fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = Option<T>> + 'static {
        let (sender, receiver) = oneshot::channel();
        let boxed: Job = Box::new(move || {
            let _ = sender.send(job());
        });
        let queued = self.jobs.try_send(boxed).is_ok();
        async move { if queued { receiver.await.ok() } else { None } }
    }
}
