//! DeleteRecords (21), versions 0-2.
//!
//! - v1 and v2 change nothing here but the encoding. Of a partition named twice the last offset counts, as in Kafka.
//! - The log start moves at once; the segments below it go with the next retention run. It survives a crash once it is
//!   checkpointed (`log.flush.start.offset.checkpoint.interval.ms`).
//! - Kafka's answer waits for the log start of every live replica; here the leader's is the only one yet, nothing is waited
//!   for, and the request's timeout is never met.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use super::errors;
use super::{Exchange, Handler, Unanswered};
use crate::base::class::Class;
use crate::base::ids::{Offset, ShardId};
use crate::local::{Local, Work, by_owner, owner_of};
use crate::partition::partition::LeadershipError;
use crate::platform::Platform;
use crate::protocol::ErrorCode;
use crate::protocol::message::{
    DeleteRecordsPartitionResult, DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopicResult,
};

/// After an error.
const INVALID_LOW_WATERMARK: Offset = -1;

/// Partitions of one owner.
#[derive(Debug, Default)]
pub struct DeleteRecordsWork {
    parts: Vec<DeleteRecordsPart>,
}

#[derive(Debug)]
struct DeleteRecordsPart {
    topic: Arc<str>,
    partition: i32,
    offset: Offset,
}

#[derive(Debug)]
pub struct DeleteRecordsDone {
    topic: Arc<str>,
    partition: i32,
    result: Result<Offset, ErrorCode>,
}

/// Results by topic and partition.
type Results = BTreeMap<Arc<str>, BTreeMap<i32, Result<Offset, ErrorCode>>>;

pub struct DeleteRecords;

impl<P: Platform> Handler<P> for DeleteRecords {
    async fn handle(mut exchange: Exchange<P>) -> Result<(), Unanswered> {
        let request: DeleteRecordsRequest = exchange.decode().await?;
        let response = answer(&exchange.local, exchange.class(), request).await.ok_or(Unanswered::Stopping)?;
        exchange.reply(&response).await
    }
}

/// Asks the owners and gathers. `None`: the process stops.
async fn answer<P: Platform>(
    local: &Rc<Local<P>>,
    class: Class,
    request: DeleteRecordsRequest,
) -> Option<DeleteRecordsResponse> {
    let (mut results, work) = plan(local, &request);
    let done = local.ask_all(class, work).await?;
    for DeleteRecordsDone { topic, partition, result } in done.into_iter().flatten() {
        results.entry(topic).or_default().insert(partition, result);
    }
    Some(reply(results))
}

fn plan<P: Platform>(local: &Local<P>, request: &DeleteRecordsRequest) -> (Results, Vec<(ShardId, DeleteRecordsWork)>) {
    let image = local.image();
    let (mut results, mut work) = (Results::new(), Vec::new());
    let mut offsets = BTreeMap::new();
    for requested in &request.topics {
        for partition in &requested.partitions {
            offsets.insert((requested.name.as_str(), partition.partition_index), partition.offset);
        }
    }
    for ((name, partition), offset) in offsets {
        let topic = image.topic(name);
        let owner = match topic {
            Some(topic) if topic.internal => Err(ErrorCode::InvalidTopicException),
            _ => owner_of(topic, partition),
        };
        match owner {
            Ok((owner, topic)) => {
                let part = DeleteRecordsPart { topic: Arc::clone(&topic.name), partition, offset };
                by_owner(&mut work, owner, DeleteRecordsWork::default).parts.push(part);
            }
            Err(code) => {
                let name = topic.map_or_else(|| Arc::from(name), |topic| Arc::clone(&topic.name));
                results.entry(name).or_default().insert(partition, Err(code));
            }
        }
    }
    (results, work)
}

impl<P: Platform> Work<P> for DeleteRecordsWork {
    type Done = Vec<DeleteRecordsDone>;

    async fn execute(self, local: Rc<Local<P>>) -> Vec<DeleteRecordsDone> {
        let delete = |DeleteRecordsPart { topic, partition, offset }| {
            let result = match local.partition(&topic, partition) {
                Some(found) => found.delete_records(offset).map_err(errors::of_delete_records),
                None => Err(errors::of_leadership(LeadershipError::NotLeader)),
            };
            DeleteRecordsDone { topic, partition, result }
        };
        self.parts.into_iter().map(delete).collect()
    }
}

fn reply(results: Results) -> DeleteRecordsResponse {
    let partition = |(partition_index, result): (i32, Result<Offset, ErrorCode>)| DeleteRecordsPartitionResult {
        partition_index,
        low_watermark: result.unwrap_or(INVALID_LOW_WATERMARK),
        error_code: result.err().unwrap_or(ErrorCode::None).code(),
    };
    let topics = results.into_iter().map(|(name, partitions)| DeleteRecordsTopicResult {
        name: name.to_string(),
        partitions: partitions.into_iter().map(partition).collect(),
    });
    DeleteRecordsResponse { topics: topics.collect(), ..DeleteRecordsResponse::default() }
}
