//! ListOffsets (2), versions 0-9.
//!
//! - v0 lists where segments begin, by when their files last changed. v1 one offset. v2 isolation levels; v4 leader
//!   epochs (KIP-320).
//! - Timestamp -1 is the high watermark, for read_committed the last stable offset, for a replica the log end; -2 the
//!   log start. A time is answered with the first record at or after it, below the same bound.
//! - v7 brought -3, the record with the latest timestamp (KIP-734); v8 -4, the earliest local offset, here that of -2;
//!   v9 -5, the latest tiered offset, which there is none of.
//! - Where records by time are looked for in a batch that can't be decoded, that batch is the answer.
//! - Any replica answers replica id -2, which looks for faults.
//! - OFFSET_NOT_AVAILABLE (before v5 LEADER_NOT_AVAILABLE) is a consumer told by a leader whose high watermark has not
//!   reached its reign yet: the latest offset, and a time for which nothing below the high watermark was found (KIP-207).

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use super::distinct::Distinct;
use super::errors;
use super::{Exchange, Handler, Unanswered};
use crate::base::class::Class;
use crate::base::ids::{LeaderEpoch, Offset, ShardId};
use crate::local::{Local, Work, by_owner, owner_of};
use crate::partition::Partition;
use crate::partition::partition::{AnsweredBy, Isolation, LeadershipError};
use crate::partition::read::ReadFailure;
use crate::platform::Platform;
use crate::protocol::ErrorCode;
use crate::protocol::message::{
    ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopicResponse,
};
use crate::storage::log::Before;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

/// The replica id that any replica answers.
const DEBUGGING: i32 = -2;

/// Questions for the partitions of one owner.
#[derive(Debug, Default)]
pub struct ListOffsetsWork {
    parts: Vec<ListOffsetsPart>,
}

#[derive(Debug)]
struct ListOffsetsPart {
    place: usize,
    topic: Arc<str>,
    partition: i32,
    timestamp: i64,
    /// Only in version 0: a list of at most so many.
    count_max: Option<i32>,
    leader_epoch: LeaderEpoch,
    asked: AnsweredBy,
    isolation: Isolation,
}

#[derive(Debug)]
pub struct ListOffsetsDone {
    place: usize,
    result: Result<Found, Refused>,
}

/// Why there is no answer. A disk's failure is said in the log where the request is known.
#[derive(Debug)]
struct Refused {
    code: ErrorCode,
    failure: Option<ReadFailure>,
}

impl From<ErrorCode> for Refused {
    fn from(code: ErrorCode) -> Refused {
        Refused { code, failure: None }
    }
}

impl From<ReadFailure> for Refused {
    fn from(failure: ReadFailure) -> Refused {
        let code = errors::of_read(&failure);
        Refused { code, failure: Some(failure).filter(|failure| matches!(failure, ReadFailure::Storage(_))) }
    }
}

#[derive(Debug)]
enum Found {
    One { offset: Offset, timestamp: i64, leader_epoch: LeaderEpoch },
    Many(Vec<Offset>),
}

pub struct ListOffsets;

impl<P: Platform> Handler<P> for ListOffsets {
    async fn handle(mut exchange: Exchange<P>) -> Result<(), Unanswered> {
        let request: ListOffsetsRequest = exchange.decode().await?;
        exchange.asked_by(request.replica_id);
        let response =
            answer(&exchange.local, exchange.class(), request, exchange.version()).await.ok_or(Unanswered::Stopping)?;
        exchange.reply(&response).await
    }
}

/// Asks the owners and gathers. `None`: the process stops.
async fn answer<P: Platform>(
    local: &Rc<Local<P>>,
    class: Class,
    request: ListOffsetsRequest,
    version: i16,
) -> Option<ListOffsetsResponse> {
    let (mut response, work) = plan(local, &request, version);
    let done = local.ask_all(class, work).await?;
    let mut answers: Vec<&mut ListOffsetsPartitionResponse> =
        response.topics.iter_mut().flat_map(|topic| topic.partitions.iter_mut()).collect();
    for ListOffsetsDone { place, result } in done.into_iter().flatten() {
        match result {
            Ok(Found::One { offset, timestamp, leader_epoch }) => {
                answers[place].offset = offset;
                answers[place].timestamp = timestamp;
                if version >= 4 {
                    answers[place].leader_epoch = leader_epoch;
                }
            }
            Ok(Found::Many(offsets)) => answers[place].old_style_offsets = offsets,
            Err(Refused { code, failure }) => {
                if let Some(failure) = failure {
                    tracing::warn!(%failure, "an offset could not be looked up by time");
                }
                let code = match code {
                    ErrorCode::OffsetNotAvailable if version < 5 => ErrorCode::LeaderNotAvailable,
                    code => code,
                };
                answers[place].error_code = code.code();
            }
        }
    }
    Some(response)
}

fn plan<P: Platform>(
    local: &Local<P>,
    request: &ListOffsetsRequest,
    version: i16,
) -> (ListOffsetsResponse, Vec<(ShardId, ListOffsetsWork)>) {
    let image = local.image();
    let mut response = ListOffsetsResponse::default();
    let mut work: Vec<(ShardId, ListOffsetsWork)> = Vec::new();
    let isolation = Isolation::of_request(request.replica_id, request.isolation_level);
    let asked = if request.replica_id == DEBUGGING { AnsweredBy::AnyReplica } else { AnsweredBy::Leader };
    let repeated = repeated_partitions(request);
    let (mut listed, mut topics) = (Distinct::with_capacity(0), Distinct::with_capacity(request.topics.len()));
    let mut place = 0;
    for requested in &request.topics {
        let topic = image.topic(&requested.name);
        let mut partitions = Vec::with_capacity(requested.partitions.len());
        for partition in &requested.partitions {
            let index = partition.partition_index;
            let is_repeated = repeated.contains(&(requested.name.as_str(), index));
            // A list takes far more than what asks for it.
            if version == 0 && is_repeated && !listed.is_new((requested.name.as_str(), index)) {
                continue;
            }
            let mut answer = ListOffsetsPartitionResponse { partition_index: index, ..Default::default() };
            let owner = if is_repeated && version > 0 {
                Err(ErrorCode::InvalidRequest)
            } else if !is_known(partition.timestamp, version) {
                Err(ErrorCode::UnsupportedVersion)
            } else {
                owner_of(topic, index)
            };
            match owner {
                Ok((owner, topic)) => {
                    let part = ListOffsetsPart {
                        place,
                        topic: Arc::clone(&topic.name),
                        partition: index,
                        timestamp: partition.timestamp,
                        count_max: (version == 0).then_some(partition.max_num_offsets),
                        leader_epoch: partition.current_leader_epoch,
                        asked,
                        isolation,
                    };
                    by_owner(&mut work, owner, ListOffsetsWork::default).parts.push(part);
                }
                Err(code) => answer.error_code = code.code(),
            }
            place += 1;
            partitions.push(answer);
        }
        if topics.is_new(requested.name.as_str()) || !partitions.is_empty() {
            response.topics.push(ListOffsetsTopicResponse { name: requested.name.clone(), partitions });
        }
    }
    (response, work)
}

/// The partitions that the request names more than once: all of which Kafka refuses, from version 1 on; before, a partition
/// is answered once here.
fn repeated_partitions(request: &ListOffsetsRequest) -> BTreeSet<(&str, i32)> {
    let mut seen = BTreeSet::new();
    let named = request
        .topics
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(|partition| (topic.name.as_str(), partition.partition_index)));
    named.filter(|named| !seen.insert(*named)).collect()
}

impl<P: Platform> Work<P> for ListOffsetsWork {
    type Done = Vec<ListOffsetsDone>;

    async fn execute(self, local: Rc<Local<P>>) -> Vec<ListOffsetsDone> {
        let mut done = Vec::with_capacity(self.parts.len());
        for part in self.parts {
            let result = match local.partition(&part.topic, part.partition) {
                Some(partition) => {
                    let found = find(&partition, &part).await;
                    local.counters.undecodable_batches_total.add(partition.take_undecodable_lookups());
                    found
                }
                None => Err(errors::of_leadership(LeadershipError::NotLeader).into()),
            };
            done.push(ListOffsetsDone { place: part.place, result });
        }
        done
    }
}

async fn find<P: Platform>(partition: &Partition<P>, part: &ListOffsetsPart) -> Result<Found, Refused> {
    let ListOffsetsPart { timestamp, leader_epoch, asked, isolation, .. } = *part;
    if let Some(count_max) = part.count_max {
        let before = match timestamp {
            LATEST => Before::Latest,
            EARLIEST => Before::Earliest,
            time => Before::Time(time),
        };
        // Kafka fails to make a list of that length.
        let count_max = usize::try_from(count_max).map_err(|_| ErrorCode::UnknownServerError)?;
        let offsets = partition.offsets_before(before, count_max, asked, isolation).await;
        return offsets.map(Found::Many).map_err(Refused::from);
    }
    let offsets = partition.offsets(leader_epoch, asked).map_err(errors::of_leadership)?;
    let at = |offset, leader_epoch| Ok(Found::One { offset, timestamp: -1, leader_epoch });
    let is_unknown = isolation != Isolation::LogEnd && partition.is_catching_up();
    let found = match timestamp {
        LATEST if is_unknown => return Err(ErrorCode::OffsetNotAvailable.into()),
        LATEST => return at(isolation.ceiling(&offsets), partition.leader_epoch()),
        EARLIEST | EARLIEST_LOCAL => return at(offsets.log_start, partition.epoch_at(offsets.log_start)),
        // There is no tiered storage.
        LATEST_TIERED => return at(-1, -1),
        MAX_TIMESTAMP => partition.offset_of_max_timestamp(leader_epoch, asked, isolation).await,
        timestamp => partition.offset_for_timestamp(timestamp, leader_epoch, asked, isolation).await,
    };
    match found {
        Ok(Some((offset, timestamp))) => Ok(Found::One { offset, timestamp, leader_epoch: partition.epoch_at(offset) }),
        Ok(None) if is_unknown => Err(ErrorCode::OffsetNotAvailable.into()),
        Ok(None) => at(-1, -1),
        Err(failure) => Err(failure.into()),
    }
}

/// Whether this version has the question (Kafka 3.9 `KafkaApis.handleListOffsetRequestV1AndAbove`).
fn is_known(timestamp: i64, version: i16) -> bool {
    match timestamp {
        LATEST | EARLIEST | 0.. => true,
        MAX_TIMESTAMP => version >= 7,
        EARLIEST_LOCAL => version >= 8,
        LATEST_TIERED => version >= 9,
        _ => false,
    }
}
