//! Counters, one set per shard, summed by whoever looks at them.
//!
//! Every counter only grows, except those whose name ends in `_now`.

#![forbid(unsafe_code)]

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one shard writes and any thread reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub fn subtract(&self, count: u64) {
        self.0.fetch_sub(count, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one shard counts.
#[derive(Debug, Default)]
pub struct ShardCounters {
    pub connections_now: Counter,
    pub connections_accepted_total: Counter,
    /// Connections closed because of what the peer sent.
    pub connections_refused_total: Counter,
    /// Partitions whose logs could not be opened.
    pub partitions_offline_now: Counter,
    pub requests_total: Counter,
    pub produce_bytes_total: Counter,
    /// Bytes that left by sendfile.
    pub sendfile_bytes_total: Counter,
    /// sendfile calls that held the shard for more than a millisecond, as one that meets a page on the disk does.
    pub sendfile_blocked_total: Counter,
    /// sendfile calls of ranges not appended recently during which the thread slept: the page was not there after all.
    pub sendfile_slept_total: Counter,
    /// Ranges found outside the page cache, and brought in before they were sent.
    pub cold_reads_total: Counter,
    /// Bytes that had to be brought into the page cache first.
    pub cold_bytes_total: Counter,
    /// Bytes that were sent as a copy, because their pages were evicted faster than they could be sent.
    pub cold_copied_bytes_total: Counter,
    pub appends_total: Counter,
    pub append_bytes_total: Counter,
    /// Appends that went to a kernel worker because the directory was slow.
    pub appends_deferred_total: Counter,
    /// Segments that retention has taken out of their logs.
    pub segments_deleted_total: Counter,
    /// Logs that were cleaned to the end of what could be cleaned then.
    pub cleaner_runs_total: Counter,
    pub cleaner_read_bytes_total: Counter,
    pub cleaner_written_bytes_total: Counter,
    /// Compacted partitions that are not cleaned any more, since something in them is damaged.
    pub uncleanable_partitions_now: Counter,
}

/// How far the opening of logs is, of all shards together: what there is to do is announced before it is done.
#[derive(Debug, Default)]
pub struct RecoveryProgress {
    pub logs_total: Counter,
    pub logs_done: Counter,
    /// Bytes of batches to be checked, as far as logs have looked at their files.
    pub bytes_total: Counter,
    pub bytes_done: Counter,
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
