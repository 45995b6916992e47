//! A fetch on the owners of its partitions: reading, and leaving a watch where that is not enough.

use std::rc::Rc;
use std::sync::Arc;

use crate::base::ids::{BrokerId, LeaderEpoch, Offset, TopicId};
use crate::handlers::errors;
use crate::local::{Local, Work};
use crate::net::reply::FileOf;
use crate::partition::Partition;
use crate::partition::partition::{ANY_EPOCH, Isolation, LeadershipError};
use crate::partition::purgatory::Watch;
use crate::partition::read::{ReadRequest, ReadResult};
use crate::platform::Platform;
use crate::protocol::ErrorCode;

/// Who fetches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    Consumer(Isolation),
    /// A broker, for its replica.
    Replica(BrokerId),
}

impl Reader {
    /// How far it may see.
    pub fn isolation(self) -> Isolation {
        match self {
            Reader::Consumer(isolation) => isolation,
            Reader::Replica(_) => Isolation::LogEnd,
        }
    }
}

/// Reads for the partitions of one owner.
#[derive(Debug)]
pub struct FetchWork {
    pub parts: Vec<FetchPart>,
    pub reader: Reader,
    /// Bytes wanted before it is worth answering; short of that `watch` is left behind.
    pub bytes_min: u64,
    pub watch: Option<Arc<Watch>>,
}

#[derive(Debug)]
pub struct FetchPart {
    pub place: usize,
    pub topic: Arc<str>,
    /// Zero if the request names no ids.
    pub topic_id: TopicId,
    pub partition: i32,
    pub offset: Offset,
    pub bytes_max: u64,
    pub leader_epoch: LeaderEpoch,
    pub last_fetched_epoch: LeaderEpoch,
}

/// What one read found.
#[derive(Debug)]
pub struct FetchDone<P: Platform> {
    pub place: usize,
    pub result: Result<ReadResult<FileOf<P>>, ErrorCode>,
}

impl<P: Platform> Work<P> for FetchWork {
    type Done = Vec<FetchDone<P>>;

    /// Reads every partition, and leaves the watch where that is not enough.
    async fn execute(self, local: Rc<Local<P>>) -> Vec<FetchDone<P>> {
        let mut done = Vec::with_capacity(self.parts.len());
        for part in self.parts.iter() {
            let result = match local.partition(&part.topic, part.partition) {
                Some(partition) => read(&partition, part, self.reader).await,
                None => Err(ErrorCode::NotLeaderOrFollower),
            };
            done.push(FetchDone { place: part.place, result });
        }
        if let Some(watch) = &self.watch
            && is_short(&done, self.bytes_min)
        {
            leave_watch(&local, &self.parts, self.reader.isolation(), &done, watch);
        }
        done
    }
}

async fn read<P: Platform>(
    partition: &Rc<Partition<P>>,
    part: &FetchPart,
    reader: Reader,
) -> Result<ReadResult<FileOf<P>>, ErrorCode> {
    let is_known = part.topic_id != TopicId::ZERO && partition.topic_id != TopicId::ZERO;
    if is_known && part.topic_id != partition.topic_id {
        return Err(ErrorCode::InconsistentTopicId);
    }
    let request = ReadRequest {
        offset: part.offset,
        bytes_max: part.bytes_max,
        current_leader_epoch: part.leader_epoch,
        last_fetched_epoch: part.last_fetched_epoch,
        isolation: reader.isolation(),
    };
    let read = partition.read(request).await.map_err(|failure| errors::of_read(&failure))?;
    if let (Reader::Replica(replica), None) = (reader, read.diverging) {
        follower_fetched(partition, part, replica).map_err(errors::of_leadership)?;
    }
    Ok(read)
}

/// The leader takes note of where its follower is.
fn follower_fetched<P: Platform>(
    partition: &Partition<P>,
    part: &FetchPart,
    replica: BrokerId,
) -> Result<(), LeadershipError> {
    if let Some(proposal) = partition.follower_fetched(replica, part.offset, part.leader_epoch)? {
        // There is no controller of several brokers to ask yet.
        partition.proposal_answered(&proposal, None);
    }
    Ok(())
}

/// Registers the watch with each partition; one that has moved since it was read fires it at once.
fn leave_watch<P: Platform>(
    local: &Local<P>,
    parts: &[FetchPart],
    isolation: Isolation,
    done: &[FetchDone<P>],
    watch: &Arc<Watch>,
) {
    watch.grow(done.iter().map(found_bytes).sum());
    if local.is_draining() {
        return watch.fire();
    }
    for (part, done) in parts.iter().zip(done) {
        let seen = done.result.as_ref().ok().map(|read| isolation.ceiling(&read.offsets));
        let partition = local.partition(&part.topic, part.partition);
        let (Some(partition), Some(seen)) = (partition, seen) else {
            watch.fire();
            continue;
        };
        let room = part.bytes_max.saturating_sub(found_bytes(done));
        let moved = partition.leader_offsets(ANY_EPOCH).map(|now| isolation.ceiling(&now)) != Ok(seen);
        if moved || !partition.watch(watch, isolation, room) {
            watch.fire();
        }
    }
}

fn found_bytes<P: Platform>(done: &FetchDone<P>) -> u64 {
    let data = done.result.as_ref().ok().and_then(|read| read.data.as_ref());
    data.map_or(0, |data| data.range.length)
}

/// Whether a fetch should wait: it found less than it asked for, and nothing that its client should know at once (Kafka
/// 3.9 `ReplicaManager.fetchMessages`, and case F of `DelayedFetch`: what has come meanwhile lies in a later segment).
pub fn is_short<P: Platform>(done: &[FetchDone<P>], bytes_min: u64) -> bool {
    let must_tell = |done: &FetchDone<P>| match &done.result {
        Ok(read) => read.diverging.is_some() || read.has_later_segment,
        Err(_) => true,
    };
    !done.iter().any(must_tell) && done.iter().map(found_bytes).sum::<u64>() < bytes_min
}
