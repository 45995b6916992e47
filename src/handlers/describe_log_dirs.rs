//! DescribeLogDirs (35), versions 0-4 (KIP-113): what lies in which log directory, and how much room there is (v4, KIP-827).
//!
//! Logs tell their own size; one that could not be opened is nowhere, as in Kafka 3.9 `ReplicaManager.describeLogDirs`. A
//! directory that is offline is listed with KAFKA_STORAGE_ERROR. There are no replicas on the move between directories.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use super::{Exchange, Handler, Unanswered};
use crate::base::class::Class;
use crate::base::ids::ShardId;
use crate::local::{Local, Work};
use crate::partition::Partition;
use crate::platform::{Disk, Platform};
use crate::protocol::ErrorCode;
use crate::protocol::message::{
    DescribableLogDirTopic, DescribeLogDirsPartition, DescribeLogDirsRequest, DescribeLogDirsResponse,
    DescribeLogDirsResult, DescribeLogDirsTopic,
};

/// About what one log takes in the answer.
const DESCRIBED_LOG_BYTES: u64 = 128;

/// Partitions by topic; `None`: all.
type Wanted = Option<BTreeMap<String, BTreeSet<i32>>>;

/// Asks one shard for the logs it has of those.
#[derive(Debug)]
pub struct DescribeLogDirsWork {
    wanted: Arc<Wanted>,
}

/// One log.
#[derive(Debug)]
pub struct DescribedLog {
    log_dir: usize,
    topic: Arc<str>,
    partition: i32,
    size: u64,
    offset_lag: i64,
}

pub struct DescribeLogDirs;

impl<P: Platform> Handler<P> for DescribeLogDirs {
    async fn handle(mut exchange: Exchange<P>) -> Result<(), Unanswered> {
        let answer_bytes = |local: &Local<P>, _| local.image().partition_count() as u64 * DESCRIBED_LOG_BYTES;
        let request: DescribeLogDirsRequest = exchange.decode_for(answer_bytes).await?;
        let response = answer(&exchange.local, exchange.class(), request).await.ok_or(Unanswered::Stopping)?;
        exchange.reply(&response).await
    }
}

/// Asks all shards and gathers. `None`: the process stops.
async fn answer<P: Platform>(
    local: &Rc<Local<P>>,
    class: Class,
    request: DescribeLogDirsRequest,
) -> Option<DescribeLogDirsResponse> {
    let wanted = Arc::new(request.topics.map(by_topic));
    let shards = (0..local.config.shards).map(ShardId);
    let work = shards.map(|shard| (shard, DescribeLogDirsWork { wanted: Arc::clone(&wanted) }));
    let found = local.ask_all(class, work).await?;
    let mut by_log_dir: BTreeMap<usize, BTreeMap<Arc<str>, Vec<DescribeLogDirsPartition>>> = BTreeMap::new();
    for log in found.into_iter().flatten() {
        let partition = DescribeLogDirsPartition {
            partition_index: log.partition,
            partition_size: i64::try_from(log.size).unwrap_or(i64::MAX),
            offset_lag: log.offset_lag,
            is_future_key: false,
        };
        by_log_dir.entry(log.log_dir).or_default().entry(log.topic).or_default().push(partition);
    }
    let mut results = Vec::with_capacity(local.log_dirs.all().len());
    for (index, log_dir) in local.log_dirs.all().iter().enumerate() {
        let name = absolute(&log_dir.path);
        let space = match log_dir.is_offline() {
            true => Err(ErrorCode::KafkaStorageError),
            false => local.platform.disk().space(&log_dir.path).await.map_err(|error| {
                tracing::warn!(directory = %log_dir.path.display(), %error, "a log directory can't be described");
                ErrorCode::KafkaStorageError
            }),
        };
        results.push(match space {
            Ok(space) => DescribeLogDirsResult {
                error_code: ErrorCode::None.code(),
                log_dir: name,
                topics: topics(by_log_dir.remove(&index).unwrap_or_default()),
                total_bytes: i64::try_from(space.total_bytes).unwrap_or(i64::MAX),
                usable_bytes: i64::try_from(space.free_bytes).unwrap_or(i64::MAX),
            },
            Err(code) => {
                DescribeLogDirsResult { error_code: code.code(), log_dir: name, ..DescribeLogDirsResult::default() }
            }
        });
    }
    Some(DescribeLogDirsResponse { results, ..DescribeLogDirsResponse::default() })
}

fn by_topic(topics: Vec<DescribableLogDirTopic>) -> BTreeMap<String, BTreeSet<i32>> {
    let mut wanted: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
    for topic in topics {
        wanted.entry(topic.topic).or_default().extend(topic.partitions);
    }
    wanted
}

fn topics(found: BTreeMap<Arc<str>, Vec<DescribeLogDirsPartition>>) -> Vec<DescribeLogDirsTopic> {
    let topic = |(name, mut partitions): (Arc<str>, Vec<DescribeLogDirsPartition>)| {
        partitions.sort_by_key(|partition| partition.partition_index);
        DescribeLogDirsTopic { name: name.to_string(), partitions }
    };
    found.into_iter().map(topic).collect()
}

/// Kafka names directories from the root on.
fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

impl<P: Platform> Work<P> for DescribeLogDirsWork {
    type Done = Vec<DescribedLog>;

    async fn execute(self, local: Rc<Local<P>>) -> Vec<DescribedLog> {
        let is_wanted = |topic: &str, partition: i32| match &*self.wanted {
            None => true,
            Some(wanted) => wanted.get(topic).is_some_and(|partitions| partitions.contains(&partition)),
        };
        let mut found = Vec::new();
        let look = |partition: &Rc<Partition<P>>| {
            let name = &partition.topic_partition;
            if !is_wanted(&name.topic, name.partition) {
                return;
            }
            let Some((size, offset_lag)) = partition.size_bytes().zip(partition.offset_lag()) else { return };
            let (log_dir, topic) = (partition.log_dir_index(), Arc::clone(&name.topic));
            found.push(DescribedLog { log_dir, topic, partition: name.partition, size, offset_lag });
        };
        local.partitions.each(look).await;
        found
    }
}
