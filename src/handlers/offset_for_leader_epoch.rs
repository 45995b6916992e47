//! OffsetForLeaderEpoch (23), versions 0-4: where a leader epoch ends, for those who find out where two logs part
//! (KIP-101, KIP-320).
//!
//! v1 names the epoch found; v2 fences by the leader epoch that the asker knows; v3 says who asks, which changes
//! nothing: only the leader answers. A partition that is named twice is answered once, as it was asked first.

use std::rc::Rc;
use std::sync::Arc;

use super::context::{Context, owner_of};
use super::distinct::Distinct;
use super::{Owners, errors};
use crate::base::ids::{LeaderEpoch, Offset, ShardId};
use crate::executor::all;
use crate::partition::partition::LeadershipError;
use crate::platform::Platform;
use crate::protocol::ErrorCode;
use crate::protocol::message::offset_for_leader_epoch::{
    EpochEndOffset, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, OffsetForLeaderTopicResult,
};

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
    current_leader_epoch: LeaderEpoch,
    leader_epoch: LeaderEpoch,
}

#[derive(Debug)]
pub struct Done {
    place: usize,
    result: Result<Option<(LeaderEpoch, Offset)>, LeadershipError>,
}

/// Asks the owners and gathers. `None`: the process stops.
pub async fn handle<P: Platform>(
    context: &Context<P>,
    owners: &impl Owners<P>,
    request: OffsetForLeaderEpochRequest,
) -> Option<OffsetForLeaderEpochResponse> {
    let (mut response, work) = plan(context, request);
    let asked = work.into_iter().map(|(owner, work)| Box::pin(owners.ask(owner, work))).collect();
    let done = all(asked).await.into_iter().collect::<Option<Vec<_>>>()?;
    let mut answers: Vec<&mut EpochEndOffset> =
        response.topics.iter_mut().flat_map(|topic| topic.partitions.iter_mut()).collect();
    for Done { place, result } in done.into_iter().flatten() {
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
    context: &Context<P>,
    request: OffsetForLeaderEpochRequest,
) -> (OffsetForLeaderEpochResponse, Vec<(ShardId, Work)>) {
    let image = context.image();
    let mut response = OffsetForLeaderEpochResponse::default();
    let mut work: Vec<(ShardId, Work)> = Vec::new();
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
            match (owner_of(topic, asked.partition), topic) {
                (Ok(owner), Some(topic)) => {
                    let part = Part {
                        place,
                        topic: Arc::clone(&topic.name),
                        partition: asked.partition,
                        current_leader_epoch: asked.current_leader_epoch,
                        leader_epoch: asked.leader_epoch,
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
        if topics.is_new(name) || !partitions.is_empty() {
            response.topics.push(OffsetForLeaderTopicResult { topic: requested.topic, partitions });
        }
    }
    (response, work)
}

impl<P: Platform> super::Work<P> for Work {
    type Done = Vec<Done>;

    async fn execute(self, context: Rc<Context<P>>) -> Vec<Done> {
        let look = |part: Part| {
            let result = match context.partition(&part.topic, part.partition) {
                Some(partition) => partition.end_offset_for_epoch(part.current_leader_epoch, part.leader_epoch),
                None => Err(LeadershipError::NotLeader),
            };
            Done { place: part.place, result }
        };
        self.parts.into_iter().map(look).collect()
    }
}
