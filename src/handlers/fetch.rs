//! Fetch (1), versions 4-11.
//!
//! - v4 brought isolation levels and batches of magic 2; below, records would have to be converted down.
//! - v5 log start offsets. v7 fetch sessions (KIP-227): none is ever granted (session id 0), which the protocol allows, so
//!   every fetch is a full one. v9 leader epochs (KIP-320). v10 zstd (KIP-110). v11 rack ids (KIP-392), not acted on.
//! - Data ends at the high watermark, for read_committed at the last stable offset; then the answer names the aborted
//!   transactions with records in it.
//!
//! A fetch that finds less than `min.bytes` leaves a watch with the partitions' owners and reads again when one of them
//! has moved, or answers with what there is when `max.wait.ms` has passed (Kafka 3.9 `DelayedFetch`).

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::context::{Context, owner_of};
use super::{Owners, errors};
use crate::base::ids::{LeaderEpoch, Offset, ShardId};
use crate::executor::{all, either};
use crate::net::reply::{FileOf, Reply, ReplyPart};
use crate::partition::partition::{Isolation, LeadershipError, Offsets};
use crate::partition::purgatory::Watch;
use crate::partition::read::{ReadData, ReadFailure, ReadResult};
use crate::platform::{Clock, Platform};
use crate::protocol::header::RequestHeader;
use crate::protocol::message::{
    AbortedTransaction, FetchRequest, FetchResponse, FetchableTopicResponse, PartitionData, RecordsSpan,
};
use crate::protocol::{ErrorCode, Reader, WireError};
use crate::storage::transaction_index::EndedTransaction;

/// The longest a fetch may wait, whatever it asks for.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// Reads for the partitions of one owner.
#[derive(Clone, Debug)]
pub struct Work {
    parts: Vec<Part>,
    /// Bytes wanted before it is worth answering; short of that `watch` is left behind.
    bytes_min: u64,
    watch: Option<Arc<Watch>>,
}

#[derive(Clone, Debug)]
struct Part {
    place: usize,
    topic: Arc<str>,
    partition: i32,
    offset: Offset,
    bytes_max: u64,
    leader_epoch: LeaderEpoch,
    isolation: Isolation,
}

/// What one read found.
#[derive(Debug)]
pub struct Done<P: Platform> {
    place: usize,
    result: Result<ReadResult<FileOf<P>>, ReadFailure>,
}

/// A decoded request: what to ask of whom, and the answers known already.
pub struct Plan {
    version: i16,
    correlation_id: i32,
    request: FetchRequest,
    work: Vec<(ShardId, Work)>,
    /// By place in the request: refusals of partitions that have no owner here.
    refused: Vec<Option<ErrorCode>>,
    bytes_max: u64,
}

impl Plan {
    /// # Errors
    /// The request can't be read: the connection is closed.
    pub fn new<P: Platform>(context: &Context<P>, header: &RequestHeader<'_>, body: &[u8]) -> Result<Plan, WireError> {
        let version = header.api_version;
        let request = FetchRequest::decode(&mut Reader::new(body), version)?;
        let image = context.image();
        let bytes_max = u64::from(context.config.fetch_max_bytes).min(positive(request.max_bytes));
        let bytes_min = positive(request.min_bytes);
        let isolation = Isolation::from_id(request.isolation_level);
        let mut plan = Plan {
            version,
            correlation_id: header.correlation_id,
            work: Vec::new(),
            refused: Vec::new(),
            bytes_max,
            request,
        };
        for asked in &plan.request.topics {
            let topic = image.topic(&asked.topic);
            for partition in &asked.partitions {
                let place = plan.refused.len();
                let owner = owner_of(topic, partition.partition);
                plan.refused.push(owner.err());
                let (Ok(owner), Some(topic)) = (owner, topic) else { continue };
                let part = Part {
                    place,
                    topic: Arc::clone(&topic.name),
                    partition: partition.partition,
                    offset: partition.fetch_offset,
                    bytes_max: positive(partition.partition_max_bytes).min(bytes_max),
                    leader_epoch: partition.current_leader_epoch,
                    isolation,
                };
                match plan.work.iter_mut().find(|(shard, _)| *shard == owner) {
                    Some((_, work)) => work.parts.push(part),
                    None => plan.work.push((owner, Work { parts: vec![part], bytes_min, watch: None })),
                }
            }
        }
        Ok(plan)
    }

    /// Reads, waits if it must, and answers. `None`: the process stops.
    pub async fn run<P: Platform>(
        self,
        context: &Context<P>,
        owners: &impl Owners<P>,
    ) -> Option<Result<Reply<FileOf<P>>, WireError>> {
        // An incremental request names a session, and there are none: the client starts anew.
        if self.request.session_epoch > 0 {
            return Some(self.refuse(ErrorCode::FetchSessionIdNotFound));
        }
        let clock = context.platform.clock();
        let wait = Duration::from_millis(positive(self.request.max_wait_ms)).min(WAIT_MAX);
        let deadline = clock.now() + wait;
        let bytes_min = positive(self.request.min_bytes);
        let settled = self.refused.iter().any(Option::is_some) || self.refused.is_empty();
        loop {
            let waits = !wait.is_zero() && !settled && clock.now() < deadline;
            let watch = waits.then(|| Arc::new(Watch::default()));
            let asked = self.work.iter().map(|(owner, work)| {
                let work = Work { watch: watch.clone(), ..work.clone() };
                Box::pin(owners.ask(*owner, work))
            });
            let done = all(asked.collect()).await;
            let done: Vec<Done<P>> = done.into_iter().collect::<Option<Vec<_>>>()?.into_iter().flatten().collect();
            let Some(watch) = watch.filter(|_| is_short(&done, bytes_min)) else {
                return Some(self.reply(done));
            };
            if either(watch.fired(), clock.sleep_until(deadline)).await.is_err() {
                return Some(self.reply(done));
            }
        }
    }

    fn refuse<F>(&self, error: ErrorCode) -> Result<Reply<F>, WireError> {
        let response = FetchResponse { error_code: error.code(), ..FetchResponse::default() };
        let parts = response.encode_parts(self.correlation_id, self.version)?;
        Ok(Reply { parts: parts.chunks.into_iter().map(ReplyPart::Bytes).collect() })
    }

    /// Trims what was found to the request's bytes, in its order, and writes the response around it.
    fn reply<P: Platform>(self, done: Vec<Done<P>>) -> Result<Reply<FileOf<P>>, WireError> {
        let mut found: Vec<_> = (0..self.refused.len()).map(|_| None).collect();
        for Done { place, result } in done {
            found[place] = Some(result);
        }
        let mut left = self.bytes_max;
        let mut nothing_yet = true;
        let mut ranges = Vec::new();
        let mut response = FetchResponse::default();
        let isolation = Isolation::from_id(self.request.isolation_level);
        let mut place = 0;
        for asked in &self.request.topics {
            let mut partitions = Vec::with_capacity(asked.partitions.len());
            for partition in &asked.partitions {
                let mut answer = PartitionData {
                    partition_index: partition.partition,
                    high_watermark: -1,
                    aborted_transactions: (isolation == Isolation::ReadCommitted).then(Vec::new),
                    records: Some(RecordsSpan::of_length(0)),
                    ..PartitionData::default()
                };
                match found[place].take() {
                    Some(Ok(ReadResult { offsets, data })) => {
                        set_offsets(&mut answer, offsets);
                        if let Some(data) = data.and_then(|data| trim(data, left, nothing_yet)) {
                            nothing_yet = false;
                            left = left.saturating_sub(data.range.length);
                            answer.records = Some(RecordsSpan::of_length(data.range.length as usize));
                            if let Some(aborted) = &mut answer.aborted_transactions {
                                aborted.extend(data.aborted.iter().map(aborted_transaction));
                            }
                            ranges.push(data);
                        }
                    }
                    Some(Err(failure)) => {
                        if let ReadFailure::OffsetOutOfRange(offsets) = &failure {
                            set_offsets(&mut answer, *offsets);
                        }
                        answer.error_code = errors::of_read(&failure).code();
                    }
                    None => {
                        let code = self.refused[place].unwrap_or(ErrorCode::UnknownServerError);
                        answer.error_code = code.code();
                    }
                }
                if self.version <= 5 && answer.error_code == ErrorCode::KafkaStorageError.code() {
                    answer.error_code = ErrorCode::NotLeaderOrFollower.code();
                }
                place += 1;
                partitions.push(answer);
            }
            let topic = Arc::clone(&asked.topic);
            response.responses.push(FetchableTopicResponse { topic, topic_id: asked.topic_id, partitions });
        }
        let encoded = response.encode_parts(self.correlation_id, self.version)?;
        Ok(interleave(encoded.chunks, ranges))
    }
}

impl<P: Platform> super::Work<P> for Work {
    type Done = Vec<Done<P>>;

    /// Reads every partition, and leaves the watch where that is not enough.
    async fn execute(self, context: Rc<Context<P>>) -> Vec<Done<P>> {
        let mut done = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let result = match context.partition(&part.topic, part.partition) {
                Some(partition) => partition.read(part.offset, part.bytes_max, part.leader_epoch, part.isolation).await,
                None => Err(LeadershipError::NotLeader.into()),
            };
            done.push(Done { place: part.place, result });
        }
        if let Some(watch) = &self.watch
            && is_short(&done, self.bytes_min)
        {
            leave_watch(&context, &self.parts, &done, watch);
        }
        done
    }
}

/// Registers the watch with each partition; one that has moved since it was read fires it at once.
fn leave_watch<P: Platform>(context: &Context<P>, parts: &[Part], done: &[Done<P>], watch: &Arc<Watch>) {
    for (part, done) in parts.iter().zip(done) {
        let Some(partition) = context.partition(&part.topic, part.partition) else {
            watch.fire();
            continue;
        };
        partition.watch(watch);
        let now = partition.leader_offsets(-1).ok();
        if done.result.as_ref().ok().map(|read| read.offsets) != now {
            watch.fire();
        }
    }
}

/// Whether a fetch should wait: no error, and less than it asked for.
fn is_short<P: Platform>(done: &[Done<P>], bytes_min: u64) -> bool {
    let mut bytes = 0;
    for Done { result, .. } in done {
        match result {
            Ok(read) => bytes += read.data.as_ref().map_or(0, |data| data.range.length),
            Err(_) => return false,
        }
    }
    bytes < bytes_min
}

/// Cuts a range to what is left. The first data of a response may be one whole batch however large it is; later ones
/// that would not hold a whole batch are left out (Kafka 3.9 `ReplicaManager.readFromLog`).
fn trim<F>(mut data: ReadData<F>, left: u64, nothing_yet: bool) -> Option<ReadData<F>> {
    let allowed = data.range.length.min(left);
    data.range.length = if allowed >= data.first_batch_bytes {
        allowed
    } else if nothing_yet {
        data.first_batch_bytes
    } else {
        return None;
    };
    Some(data)
}

fn interleave<F>(chunks: Vec<bytes::Bytes>, ranges: Vec<ReadData<F>>) -> Reply<F> {
    debug_assert_eq!(chunks.len(), ranges.len() + 1, "a gap for each range");
    let mut parts = Vec::with_capacity(chunks.len() + ranges.len());
    let mut ranges = ranges.into_iter();
    for chunk in chunks {
        if !chunk.is_empty() {
            parts.push(ReplyPart::Bytes(chunk));
        }
        if let Some(ReadData { range, recently_appended, .. }) = ranges.next() {
            parts.push(ReplyPart::Range { range, recently_appended });
        }
    }
    Reply { parts }
}

fn set_offsets(answer: &mut PartitionData, offsets: Offsets) {
    answer.high_watermark = offsets.high_watermark;
    answer.last_stable_offset = offsets.last_stable;
    answer.log_start_offset = offsets.log_start;
}

fn aborted_transaction(transaction: &EndedTransaction) -> AbortedTransaction {
    let EndedTransaction { producer_id, first_offset, .. } = *transaction;
    AbortedTransaction { producer_id, first_offset }
}

fn positive(value: i32) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::{Fence, FileRange};

    fn data(length: u64, first_batch_bytes: u64) -> ReadData<()> {
        let range = FileRange { file: Arc::new(()), position: 0, length, fence: Fence::new() };
        ReadData { range, first_batch_bytes, recently_appended: true, aborted: Vec::new() }
    }

    fn length_after(length: u64, first: u64, left: u64, nothing_yet: bool) -> Option<u64> {
        trim(data(length, first), left, nothing_yet).map(|data| data.range.length)
    }

    #[test]
    fn the_first_data_is_at_least_one_batch_and_later_ones_hold_a_whole_batch_or_nothing() {
        assert_eq!(length_after(1000, 100, 5000, true), Some(1000));
        assert_eq!(length_after(1000, 100, 250, true), Some(250));
        assert_eq!(length_after(10, 100, 5000, true), Some(100));
        assert_eq!(length_after(1000, 100, 0, true), Some(100));
        assert_eq!(length_after(1000, 100, 99, false), None);
        assert_eq!(length_after(1000, 100, 100, false), Some(100));
    }
}
