//! OffsetForLeaderEpoch (23), versions 0-4: where a leader epoch ends, for those who find out where two logs part
//! (KIP-101, KIP-320).
//!
//! v1 names the epoch found; v2 fences by the leader epoch that the asker knows; v3 says who asks, which changes
//! nothing: only the leader answers. A partition that is named twice is answered once, as it was asked first.

use std::rc::Rc;
use std::sync::Arc;

use super::distinct::Distinct;
use super::errors;
use super::{Exchange, Handler, Unanswered};
use crate::base::class::Class;
use crate::base::ids::{LeaderEpoch, Offset, ShardId};
use crate::local::{Local, Work, by_owner, owner_of};
use crate::partition::partition::LeadershipError;
use crate::platform::Platform;
use crate::protocol::message::offset_for_leader_epoch::{
    EpochEndOffset, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, OffsetForLeaderTopicResult,
};

/// Questions for the partitions of one owner.
#[derive(Debug, Default)]
pub struct OffsetForLeaderEpochWork {
    parts: Vec<OffsetForLeaderEpochPart>,
}

#[derive(Debug)]
struct OffsetForLeaderEpochPart {
    place: usize,
    topic: Arc<str>,
    partition: i32,
    current_leader_epoch: LeaderEpoch,
    leader_epoch: LeaderEpoch,
}

#[derive(Debug)]
pub struct OffsetForLeaderEpochDone {
    place: usize,
    result: Result<Option<(LeaderEpoch, Offset)>, LeadershipError>,
}

pub struct OffsetForLeaderEpoch;

impl<P: Platform> Handler<P> for OffsetForLeaderEpoch {
    async fn handle(mut exchange: Exchange<P>) -> Result<(), Unanswered> {
        let request: OffsetForLeaderEpochRequest = exchange.decode().await?;
        exchange.asked_by(request.replica_id);
        let response = answer(&exchange.local, exchange.class(), request).await.ok_or(Unanswered::Stopping)?;
        exchange.reply(&response).await
    }
}

/// Asks the owners and gathers. `None`: the process stops.
async fn answer<P: Platform>(
    local: &Rc<Local<P>>,
    class: Class,
    request: OffsetForLeaderEpochRequest,
) -> Option<OffsetForLeaderEpochResponse> {
    let (mut response, work) = plan(local, request);
    let done = local.ask_all(class, work).await?;
    let mut answers: Vec<&mut EpochEndOffset> =
        response.topics.iter_mut().flat_map(|topic| topic.partitions.iter_mut()).collect();
    for OffsetForLeaderEpochDone { place, result } in done.into_iter().flatten() {
        match result {
            Ok(Some((leader_epoch, end_offset))) => {
                answers[place].leader_epoch = leader_epoch;
                answers[place].end_offset = end_offset;
            }
            Ok(None) => {}
            Err(error) => answers[place].error_code = errors::of_leadership(error).code(),
        }
    }
    Some(response)
}

fn plan<P: Platform>(
    local: &Local<P>,
    request: OffsetForLeaderEpochRequest,
) -> (OffsetForLeaderEpochResponse, Vec<(ShardId, OffsetForLeaderEpochWork)>) {
    let image = local.image();
    let mut response = OffsetForLeaderEpochResponse::default();
    let mut work: Vec<(ShardId, OffsetForLeaderEpochWork)> = Vec::new();
    let mut place = 0;
    let (mut named, mut topics) = (Distinct::with_capacity(0), Distinct::with_capacity(request.topics.len()));
    for requested in request.topics {
        let topic = image.topic(&requested.topic);
        let name: Arc<str> = topic.map_or_else(|| Arc::from(&*requested.topic), |topic| Arc::clone(&topic.name));
        let mut partitions = Vec::new();
        for asked in requested.partitions {
            if !named.is_new((Arc::clone(&name), asked.partition)) {
                continue;
            }
            let mut answer = EpochEndOffset { partition: asked.partition, ..Default::default() };
            match owner_of(topic, asked.partition) {
                Ok((owner, topic)) => {
                    let part = OffsetForLeaderEpochPart {
                        place,
                        topic: Arc::clone(&topic.name),
                        partition: asked.partition,
                        current_leader_epoch: asked.current_leader_epoch,
                        leader_epoch: asked.leader_epoch,
                    };
                    by_owner(&mut work, owner, OffsetForLeaderEpochWork::default).parts.push(part);
                }
                Err(code) => answer.error_code = code.code(),
            }
            place += 1;
            partitions.push(answer);
        }
        if topics.is_new(name) || !partitions.is_empty() {
            response.topics.push(OffsetForLeaderTopicResult { topic: requested.topic, partitions });
        }
    }
    (response, work)
}

impl<P: Platform> Work<P> for OffsetForLeaderEpochWork {
    type Done = Vec<OffsetForLeaderEpochDone>;

    async fn execute(self, local: Rc<Local<P>>) -> Vec<OffsetForLeaderEpochDone> {
        let look = |part: OffsetForLeaderEpochPart| {
            let result = match local.partition(&part.topic, part.partition) {
                Some(partition) => partition.end_offset_for_epoch(part.current_leader_epoch, part.leader_epoch),
                None => Err(LeadershipError::NotLeader),
            };
            OffsetForLeaderEpochDone { place: part.place, result }
        };
        self.parts.into_iter().map(look).collect()
    }
}
