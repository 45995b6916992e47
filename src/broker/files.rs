//! How many files the process may have open, and what of them its segments take.

#![forbid(unsafe_code)]

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::config::Config;

/// The limit of open files assumed where the kernel does not tell.
const OPEN_FILES_DEFAULT: u64 = 1024;

/// With fewer files the broker says so: connections and segments would soon be short of them.
const OPEN_FILES_ADVISED: u64 = 4096;

/// As many open files as the process may have.
pub(super) fn raise_file_limit() {
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// What to say where the limit of open files is low for so many partitions.
pub(super) fn too_few_files(config: &Config, partitions: usize) -> Option<String> {
    let files = open_files_max();
    let segments = segments_open_of_all(config, files);
    let is_short = segments < partitions as u64 && config.open_segments_max.is_none();
    (is_short || files < OPEN_FILES_ADVISED).then(|| {
        format!(
            "the limit of open files is {files}: {segments} segments stay open, of {partitions} partitions now, and \
             connections need one each; raise it with ulimit -n, or LimitNOFILE= in the systemd unit"
        )
    })
}

fn open_files_max() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(OPEN_FILES_DEFAULT, |(soft, _)| soft)
}

/// Segments that are kept open: one takes up to two files, and connections and ranges on their way need some too.
fn segments_open_of_all(config: &Config, files: u64) -> u64 {
    config.open_segments_max.map_or(files / 4, u64::from)
}

/// A shard's part of them.
pub(super) fn segments_open_max(config: &Config) -> usize {
    let all = segments_open_of_all(config, open_files_max());
    usize::try_from(all / u64::from(config.shards)).unwrap_or(usize::MAX).max(1)
}
