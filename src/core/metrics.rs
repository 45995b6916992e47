//! Counters and histograms, one set per shard, summed by whoever looks at them.
//!
//! A shard is the only writer of its own ([`Counter`]), so that counting costs next to nothing; what several threads
//! write is a [`SharedCounter`]. Every number only grows, except those whose name ends in `_now`. What would have to be
//! kept up to date all the time is not counted here: shards tell it when they are asked ([`status`]).

#![forbid(unsafe_code)]

mod counter;
mod held;
mod histogram;
mod requests;
pub mod status;

use std::fmt;

pub use counter::{Counter, SharedCounter};
pub use held::{HeldCall, HeldTime, HeldTimes};
pub use histogram::{Histogram, Recorded};
pub use requests::{ErrorTally, Passage, Requests, RequestsOf, Stage};

/// What one shard counts.
#[derive(Debug, Default)]
pub struct ShardCounters {
    pub connections_now: Counter,
    /// Written by the shard that accepts.
    pub connections_accepted_total: SharedCounter,
    /// Connections closed because of what the peer sent.
    pub connections_refused_total: Counter,
    /// Partitions whose logs could not be opened.
    pub partitions_offline_now: Counter,
    pub requests: Requests,
    /// Bytes of frames received, and of answers sent.
    pub request_bytes_total: Counter,
    pub response_bytes_total: Counter,
    pub produce_bytes_total: Counter,
    pub produce_records_total: Counter,
    /// Bytes of records in answers to fetches, however they leave.
    pub fetch_bytes_total: Counter,
    /// Large fetches that were answered at once, because too many wait already.
    pub fetches_not_waited_total: Counter,
    /// Receives that met an empty pool of buffers and had to start anew.
    pub receive_pool_empty_total: Counter,
    /// Nanoseconds in which the shard's thread did something, and in which it slept.
    pub busy_ns_total: Counter,
    pub idle_ns_total: Counter,
    /// Of each turn of the shard's loop, from when the ring was left until it is entered again: completions that come
    /// meanwhile wait as long.
    pub turn_time: Histogram,
    /// Calls that put the thread to sleep, though they must not.
    pub held: HeldTimes,
    pub tasks_run_total: Counter,
    /// Bytes that left by sendfile.
    pub sendfile_bytes_total: Counter,
    /// sendfile calls of ranges not appended recently during which the thread slept, however shortly: the page was not there
    /// after all.
    pub sendfile_slept_total: Counter,
    /// Ranges found outside the page cache, and brought in before they were sent.
    pub cold_reads_total: Counter,
    /// Bytes that had to be brought into the page cache first.
    pub cold_bytes_total: Counter,
    /// Bytes that were sent as a copy, because their pages were evicted faster than they could be sent.
    pub cold_copied_bytes_total: Counter,
    pub appends_total: Counter,
    pub append_bytes_total: Counter,
    /// From when an append is asked for until its bytes are in the page cache.
    pub append_time: Histogram,
    /// Appends that went to a kernel worker, since the shard might have had to wait in them.
    pub appends_deferred_total: Counter,
    /// Segments that retention has taken out of their logs.
    pub segments_deleted_total: Counter,
    /// Logs that were cleaned to the end of what could be cleaned then.
    pub undecodable_batches_total: Counter,
    pub cleaner_runs_total: Counter,
    pub cleaner_read_bytes_total: Counter,
    pub cleaner_written_bytes_total: Counter,
    /// Compacted partitions that are not cleaned any more, since something in them is damaged.
    pub uncleanable_partitions_now: Counter,
}

/// How far the opening of logs is, of all shards together: what there is to do is announced before it is done.
#[derive(Debug, Default)]
pub struct RecoveryProgress {
    pub logs_total: SharedCounter,
    pub logs_done: SharedCounter,
    /// Bytes of batches to be checked, as far as logs have looked at their files.
    pub bytes_total: SharedCounter,
    pub bytes_done: SharedCounter,
}

impl RecoveryProgress {
    pub fn is_done(&self) -> bool {
        self.logs_done.get() >= self.logs_total.get()
    }
}

impl fmt::Display for RecoveryProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gigabytes = |bytes: u64| bytes as f64 / 1e9;
        let (logs_done, logs_total) = (self.logs_done.get(), self.logs_total.get());
        let (done, total) = (gigabytes(self.bytes_done.get()), gigabytes(self.bytes_total.get()));
        write!(f, "{logs_done} of {logs_total} logs, {done:.1} of {total:.1} GB checked")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_reads_as_a_sentence() {
        let progress = RecoveryProgress::default();
        assert!(progress.is_done());
        progress.logs_total.add(100);
        progress.logs_done.add(37);
        progress.bytes_total.add(4_000_000_000);
        progress.bytes_done.add(1_234_000_000);
        assert_eq!(progress.to_string(), "37 of 100 logs, 1.2 of 4.0 GB checked");
        assert!(!progress.is_done());
    }
}
