//! What a directory has unflushed stays below its bound (`--unflushed-bytes-max`): a start after a power cut reads so much
//! again. When there is more, the logs are flushed that were appended to least of late, since a flush holds up appends.

#![forbid(unsafe_code)]

use std::rc::Rc;
use std::time::Duration;

use crate::handlers::Context;
use crate::platform::{Clock, Platform};

/// How often to look.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// When the bound is passed, logs are flushed until this share of it is free again: not one at each look.
const FREED_SHARE: u64 = 8;

/// A task for one directory, until that is offline. Each shard flushes its own logs, one after the other.
pub async fn keep<P: Platform>(log_dir: usize, context: Rc<Context<P>>) {
    let clock = context.platform.clock().clone();
    let bytes_max = context.config.unflushed_bytes_max;
    let directory = &context.log_dirs.all()[log_dir];
    loop {
        clock.sleep_until(clock.now() + LOOK_INTERVAL).await;
        if context.is_stopping() || directory.is_offline() {
            return;
        }
        if directory.unflushed_bytes() <= bytes_max {
            continue;
        }
        let here = context.all_partitions().into_iter().filter(|partition| partition.log_dir_index() == log_dir);
        let mut unflushed: Vec<_> = here.filter_map(|partition| Some((partition.unflushed()?, partition))).collect();
        unflushed.sort_by_key(|(recent_bytes, _)| *recent_bytes);
        for (_, partition) in unflushed {
            if directory.unflushed_bytes() <= bytes_max - bytes_max / FREED_SHARE || directory.is_offline() {
                break;
            }
            partition.flush_now().await;
        }
    }
}
