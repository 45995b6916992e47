//! ListOffsets (2), versions 1-6.
//!
//! - v0's lists by segment are not served. v2 isolation levels; v4 leader epochs (KIP-320).
//! - Timestamp -1 is the high watermark, for read_committed the last stable offset, -2 the log start; the other questions came after v6 and are refused here as
//!   Kafka does in old versions. A time is answered with the first record at or after it, below the same bound.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use super::context::{Context, owner_of};
use super::{Owners, errors};
use crate::base::ids::{LeaderEpoch, Offset, ShardId};
use crate::executor::all;
use crate::partition::Partition;
use crate::partition::partition::{Isolation, LeadershipError};
use crate::partition::read::ReadFailure;
use crate::platform::Platform;
use crate::protocol::message::{
    ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopicResponse,
};
use crate::protocol::{ErrorCode, Reader, WireError};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

/// Questions for the partitions of one owner.
#[derive(Debug)]
pub struct Work {
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    place: usize,
    topic: Arc<str>,
    partition: i32,
    timestamp: i64,
    leader_epoch: LeaderEpoch,
    isolation: Isolation,
}

#[derive(Debug)]
pub struct Done {
    place: usize,
    result: Result<Found, ErrorCode>,
}

#[derive(Debug)]
struct Found {
    offset: Offset,
    timestamp: i64,
    leader_epoch: LeaderEpoch,
}

/// Asks the owners and gathers. `None`: the process stops.
pub async fn handle<P: Platform>(
    context: &Context<P>,
    owners: &impl Owners<P>,
    body: &[u8],
    version: i16,
) -> Option<Result<ListOffsetsResponse, WireError>> {
    let request = match ListOffsetsRequest::decode(&mut Reader::new(body), version) {
        Ok(request) => request,
        Err(error) => return Some(Err(error)),
    };
    let (mut response, work) = plan(context, &request);
    let asked = work.into_iter().map(|(owner, work)| Box::pin(owners.ask(owner, work))).collect();
    let done = all(asked).await.into_iter().collect::<Option<Vec<_>>>()?;
    let mut answers: Vec<&mut ListOffsetsPartitionResponse> =
        response.topics.iter_mut().flat_map(|topic| topic.partitions.iter_mut()).collect();
    for Done { place, result } in done.into_iter().flatten() {
        match result {
            Ok(found) => {
                answers[place].offset = found.offset;
                answers[place].timestamp = found.timestamp;
                if version >= 4 {
                    answers[place].leader_epoch = found.leader_epoch;
                }
            }
            Err(code) => answers[place].error_code = code.code(),
        }
    }
    Some(Ok(response))
}

fn plan<P: Platform>(
    context: &Context<P>,
    request: &ListOffsetsRequest,
) -> (ListOffsetsResponse, Vec<(ShardId, Work)>) {
    let image = context.image();
    let mut response = ListOffsetsResponse::default();
    let mut work: Vec<(ShardId, Work)> = Vec::new();
    let mut asked = BTreeSet::new();
    let mut place = 0;
    for requested in &request.topics {
        let topic = image.topic(&requested.name);
        let mut partitions = Vec::with_capacity(requested.partitions.len());
        for partition in &requested.partitions {
            let index = partition.partition_index;
            let mut answer = ListOffsetsPartitionResponse { partition_index: index, ..Default::default() };
            let repeated = !asked.insert((&requested.name, index));
            let owner = if repeated { Err(ErrorCode::InvalidRequest) } else { owner_of(topic, index) };
            match (owner, topic) {
                (Ok(owner), Some(topic)) => {
                    let part = Part {
                        place,
                        topic: Arc::clone(&topic.name),
                        partition: index,
                        timestamp: partition.timestamp,
                        leader_epoch: partition.current_leader_epoch,
                        isolation: Isolation::from_id(request.isolation_level),
                    };
                    match work.iter_mut().find(|(shard, _)| *shard == owner) {
                        Some((_, work)) => work.parts.push(part),
                        None => work.push((owner, Work { parts: vec![part] })),
                    }
                }
                (Err(code), _) => answer.error_code = code.code(),
                (Ok(_), None) => answer.error_code = ErrorCode::UnknownTopicOrPartition.code(),
            }
            place += 1;
            partitions.push(answer);
        }
        response.topics.push(ListOffsetsTopicResponse { name: requested.name.clone(), partitions });
    }
    (response, work)
}

impl<P: Platform> super::Work<P> for Work {
    type Done = Vec<Done>;

    async fn execute(self, context: Rc<Context<P>>) -> Vec<Done> {
        let mut done = Vec::with_capacity(self.parts.len());
        for part in self.parts {
            let result = match context.partition(&part.topic, part.partition) {
                Some(partition) => find(&partition, &part).await,
                None => Err(errors::of_leadership(LeadershipError::NotLeader)),
            };
            done.push(Done { place: part.place, result });
        }
        done
    }
}

async fn find<P: Platform>(partition: &Partition<P>, part: &Part) -> Result<Found, ErrorCode> {
    let offsets = partition.leader_offsets(part.leader_epoch).map_err(errors::of_leadership)?;
    let at = |offset, leader_epoch| Ok(Found { offset, timestamp: -1, leader_epoch });
    match part.timestamp {
        LATEST => at(part.isolation.ceiling(&offsets), partition.leader_epoch()),
        EARLIEST => at(offsets.log_start, partition.epoch_at(offsets.log_start)),
        ..0 => Err(ErrorCode::UnsupportedVersion),
        timestamp => match partition.offset_for_timestamp(timestamp, part.leader_epoch, part.isolation).await {
            Ok(Some((offset, timestamp))) => Ok(Found { offset, timestamp, leader_epoch: partition.epoch_at(offset) }),
            Ok(None) => at(-1, -1),
            Err(failure) => Err(read_failure(&failure)),
        },
    }
}

fn read_failure(failure: &ReadFailure) -> ErrorCode {
    tracing::warn!(%failure, "an offset could not be looked up by time");
    errors::of_read(failure)
}
