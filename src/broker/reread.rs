//! Reading the settings again while the broker serves (SIGHUP).
//!
//! Read is what the start read: `server.properties`, the flag file, and the command line over both. What may change
//! while the broker runs takes effect as if it had been there at the start, below what clients have set; of everything
//! else that differs the log says that it needs a restart. Settings that are wrong leave all as it was.

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use crate::base::log_levels;
use crate::config::dynamic::ChangedSetting;
use crate::config::{Config, DynamicConfig};
use crate::metadata::proposal::{Answer, Proposal};
use crate::metadata::thread::MetadataHandle;

/// How long every shard may take to show the new settings before that is said.
const SHOWN_TIMEOUT: Duration = Duration::from_secs(30);

/// What the broker runs with, of all that files and flags say.
pub struct Running {
    start: Arc<Config>,
    dynamic: Arc<DynamicConfig>,
    log_level: Option<String>,
    stop_timeout: Duration,
}

impl Running {
    pub fn new(config: &Arc<Config>) -> Running {
        Running {
            start: Arc::clone(config),
            dynamic: Arc::clone(&config.dynamic),
            log_level: config.log_level.clone(),
            stop_timeout: config.stop_timeout,
        }
    }

    pub fn stop_timeout(&self) -> Duration {
        self.stop_timeout
    }

    /// Takes over what was read, or says what is wrong with it.
    pub fn take(&mut self, read: Result<Config, String>, metadata: &MetadataHandle) {
        let done = read.and_then(|next| self.follow(&next, metadata));
        match done {
            Ok(0) => tracing::info!("the settings were read again: nothing has changed"),
            Ok(changed) => tracing::info!(changed, "the settings were read again"),
            Err(reason) => {
                tracing::error!(reason, "the settings were read again and can't be used: all stays as it is")
            }
        }
    }

    /// Gives how many settings and flags differ.
    fn follow(&mut self, next: &Config, metadata: &MetadataHandle) -> Result<usize, String> {
        let (changed, dynamic) = self.dynamic.reread(&next.dynamic).map_err(|error| error.to_string())?;
        if changed.iter().any(|setting| setting.is_taken) {
            show(&dynamic, metadata)?;
            self.dynamic = Arc::new(dynamic);
        }
        for ChangedSetting { name, from, to, is_taken } in &changed {
            match is_taken {
                true => tracing::info!(name, from, to, "a setting has changed"),
                false => tracing::warn!(name, "a changed setting needs a restart"),
            }
        }
        for note in next.warnings.iter().filter(|note| !self.start.warnings.contains(note)) {
            tracing::warn!("{note}");
        }
        Ok(changed.len() + self.follow_flags(next)?)
    }

    fn follow_flags(&mut self, next: &Config) -> Result<usize, String> {
        let mut count = 0;
        if self.log_level != next.log_level {
            log_levels::start_from(next.log_level.as_deref().unwrap_or("info"))?;
            tracing::info!(from = self.log_level, to = next.log_level, "--log-level has changed");
            self.log_level.clone_from(&next.log_level);
            count += 1;
        }
        if self.stop_timeout != next.stop_timeout {
            tracing::info!(from = ?self.stop_timeout, to = ?next.stop_timeout, "--stop-timeout has changed");
            self.stop_timeout = next.stop_timeout;
            count += 1;
        }
        for flag in fixed_flags_that_differ(&self.start, next) {
            tracing::warn!("{flag} has changed, which needs a restart");
            count += 1;
        }
        Ok(count)
    }
}

/// Has every shard live by the settings.
fn show(dynamic: &DynamicConfig, metadata: &MetadataHandle) -> Result<(), String> {
    let (sender, answers) = mpsc::channel();
    let proposal = Proposal::FollowSettings { named: dynamic.of_files() };
    let answer = Box::new(move |answer| {
        // Fails when it came too late.
        let _ = sender.send(answer);
    });
    metadata.propose(proposal, answer).map_err(|full| full.to_string())?;
    match answers.recv_timeout(SHOWN_TIMEOUT) {
        Ok(Answer::FollowSettings(result)) => result,
        Ok(Answer::Failed(error)) => Err(error.to_string()),
        Ok(other) => unreachable!("the answer of another proposal: {other:?}"),
        Err(_) => Err(format!("not all shards live by them after {SHOWN_TIMEOUT:?}; send SIGHUP again later")),
    }
}

/// Flags that only a start reads.
fn fixed_flags_that_differ(start: &Config, next: &Config) -> Vec<&'static str> {
    let flags = [
        ("--override", start.dynamic.overrides() != next.dynamic.overrides()),
        ("--import", start.import != next.import),
        ("--shards", start.shards != next.shards),
        ("--pin", start.pin != next.pin),
        ("--ring-depth", start.ring_depth != next.ring_depth),
        ("--durability", start.durability != next.durability),
        ("--disk-reserve", start.disk_reserve_bytes != next.disk_reserve_bytes),
        ("--dirty-bytes-max", start.dirty_bytes_max != next.dirty_bytes_max),
        ("--unflushed-bytes-max", start.unflushed_bytes_max != next.unflushed_bytes_max),
        ("--open-segments-max", start.open_segments_max != next.open_segments_max),
        ("--cold-bytes-max", start.cold_bytes_max != next.cold_bytes_max),
        ("--no-cachestat", start.cachestat != next.cachestat),
        ("--validate", start.validation != next.validation),
        ("--rebatch", start.rebatch != next.rebatch),
        ("--admin-listen", start.admin_listen != next.admin_listen),
        ("--log-format", start.log_format != next.log_format),
    ];
    flags.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}
