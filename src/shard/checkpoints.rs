//! The checkpoint files of the data directory, written now and then from what all shards know, so that an unclean stop
//! need not read everything again (Kafka 3.9 `LogManager.checkpointLogRecoveryOffsets`).

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::router::Router;
use crate::base::ids::{Offset, TopicPartition};
use crate::handlers::Context;
use crate::partition::partition::LogCheckpoint;
use crate::platform::{Clock, Disk, Platform};
use crate::storage::log_dir::{self, LogDirError};

/// A task for the life of the shard that does it for all.
pub async fn write_every<P: Platform>(interval: Duration, context: Rc<Context<P>>, router: Router<P>) {
    let clock = context.platform.clock();
    loop {
        clock.sleep_until(clock.now() + interval).await;
        let Some(checkpoints) = router.all_checkpoints().await else { return };
        if let Err(error) = write(context.platform.disk(), &context.config.log_dir, &checkpoints).await {
            tracing::error!(%error, "the checkpoints could not be written; a crash will read more of the logs again");
        }
    }
}

/// Replaces recovery points, log starts and high watermarks; durable on `Ok`.
pub async fn write<D: Disk>(disk: &D, log_dir: &Path, checkpoints: &[LogCheckpoint]) -> Result<(), LogDirError> {
    let offsets = |of: fn(&LogCheckpoint) -> Offset| -> BTreeMap<TopicPartition, Offset> {
        checkpoints.iter().map(|log| (log.topic_partition.clone(), of(log))).collect()
    };
    log_dir::write_offsets(disk, log_dir, log_dir::RECOVERY_POINTS, &offsets(|log| log.recovery_point)).await?;
    log_dir::write_offsets(disk, log_dir, log_dir::LOG_START_OFFSETS, &offsets(|log| log.log_start_offset)).await?;
    log_dir::write_offsets(disk, log_dir, log_dir::HIGH_WATERMARKS, &offsets(|log| log.high_watermark)).await
}
