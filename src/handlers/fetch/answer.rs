//! The answer of a fetch: what was found, trimmed to the request's bytes in its order, and the response around it.

use std::sync::Arc;

use bytes::Bytes;

use super::TOPIC_IDS_VERSION;
use super::work::{FetchDone, Reader};
use super::{FIRST_BATCH_VERSION, FetchPlan, FetchedPartition, MAGIC_2_VERSION, convert, key};
use crate::local::Local;
use crate::local::fetch_sessions::{Begun, NO_SESSION, Named, Told};
use crate::metadata::image::ClusterImage;
use crate::net::reply::{FileOf, Reply, ReplyPart};
use crate::partition::partition::Isolation;
use crate::partition::read::{ReadData, ReadResult};
use crate::platform::{Clock, Platform, Random};
use crate::protocol::message::{
    AbortedTransaction, EpochEndOffset, FetchResponse, FetchableTopicResponse, NodeEndpoint, PartitionData, RecordsSpan,
};
use crate::protocol::{ErrorCode, WireError};
use crate::storage::transaction_index::EndedTransaction;

/// The first version that says where the leader is if it is not here.
const LEADER_VERSION: i16 = 16;
/// The last version whose clients don't know KAFKA_STORAGE_ERROR.
const NO_STORAGE_ERROR_VERSION: i16 = 5;

/// By place: what the owner found, or its refusal; `None` for whoever had no owner to ask.
type Found<F> = Vec<Option<Result<ReadResult<F>, ErrorCode>>>;

impl FetchPlan {
    /// The answer, with what the owners found in it.
    pub async fn reply<P: Platform>(
        self,
        local: &Local<P>,
        listener: &str,
        done: Vec<FetchDone<P>>,
    ) -> Result<Reply<FileOf<P>>, WireError> {
        if let Begun::Refused(error) = self.session {
            return self.refuse(local, error);
        }
        let mut found: Found<FileOf<P>> = (0..self.asked.len()).map(|_| None).collect();
        for FetchDone { place, result } in done {
            found[place] = Some(result);
        }
        let converts = self.version < MAGIC_2_VERSION;
        let bytes_max = if converts { self.bytes_max.min(convert::SOURCE_BYTES_MAX) } else { self.bytes_max };
        trim_all(&mut found, bytes_max, self.version < FIRST_BATCH_VERSION);
        let converted = match converts {
            true => Some(convert::all(local, self.version, &self.offsets(), &mut found).await),
            false => None,
        };
        self.encode(local, listener, found, converted)
    }

    /// By place: where each partition is read from.
    fn offsets(&self) -> Vec<i64> {
        self.asked.iter().map(|asked| asked.wanted.fetch_offset).collect()
    }

    fn encode<P: Platform>(
        self,
        local: &Local<P>,
        listener: &str,
        mut found: Found<FileOf<P>>,
        converted: Option<convert::Converted>,
    ) -> Result<Reply<FileOf<P>>, WireError> {
        let mut sessions = local.fetch_sessions.borrow_mut();
        if let Begun::Incremental { id, epoch } = self.session
            && let Err(error) = sessions.check(id, epoch)
        {
            return self.refuse(local, error);
        }
        let (mut converted, held) = converted.map_or((Vec::new(), None), |done| (done.records, done.held));
        let image = local.image();
        let throttle_time_ms = self.throttle.as_millis() as i32;
        let mut response = FetchResponse { throttle_time_ms, ..FetchResponse::default() };
        let mut pieces = Vec::new();
        let mut told = Vec::new();
        for (place, asked) in self.asked.iter().enumerate() {
            let mut records = converted.get_mut(place).and_then(Option::take).map(ReplyPart::Bytes);
            let mut answer = self.answer(asked, found[place].take(), &mut records);
            answer.records = Some(RecordsSpan::of_length(records.as_ref().map_or(0, part_bytes)));
            match self.session {
                Begun::Incremental { id, .. } if !sessions.note(id, asked.session_place, &tell(&answer)) => continue,
                Begun::Full { creates: true } => told.push(tell(&answer)),
                _ => {}
            }
            if self.version >= LEADER_VERSION {
                name_leader(&image, listener, asked, &mut answer, &mut response.node_endpoints);
            }
            pieces.extend(records.filter(|records| part_bytes(records) > 0));
            self.topic_of(place, &mut response).partitions.push(answer);
        }
        response.session_id = match self.session {
            Begun::Full { creates: true } => {
                let uses_ids = self.version >= TOPIC_IDS_VERSION;
                let partitions = self.asked.iter().zip(told).map(|(asked, told)| {
                    let key = key(uses_ids, &asked.topic, asked.topic_id);
                    let named = Named { key, partition: asked.partition, wanted: asked.wanted };
                    (named, Some(&asked.topic).filter(|topic| !topic.is_empty()).cloned(), told)
                });
                let now = local.platform.clock().now();
                let is_privileged = matches!(self.reader, Reader::Replica(_));
                let random = || local.platform.random().next_u64();
                sessions.create(now, (is_privileged, uses_ids), self.asked.len(), partitions, random)
            }
            Begun::Incremental { id, .. } => id,
            Begun::Full { creates: false } | Begun::Refused(_) => NO_SESSION,
        };
        let encoded = response.encode_parts(self.correlation_id, self.version)?;
        let counters = &local.counters;
        counters.fetch_bytes_total.add(pieces.iter().map(|piece| part_bytes(piece) as u64).sum());
        counters.requests.answered(FetchResponse::API_KEY.code(), &encoded.errors);
        Ok(Reply { parts: interleave(encoded.chunks, pieces), held })
    }

    /// Where the answer of the partition at `place` goes: partitions of one topic that stand together share it.
    fn topic_of<'a>(&self, place: usize, response: &'a mut FetchResponse) -> &'a mut FetchableTopicResponse {
        let asked = &self.asked[place];
        let is_same = |topic: &Arc<str>, id| asked.topic_id == id && asked.topic == *topic;
        if !response.responses.last().is_some_and(|last| is_same(&last.topic, last.topic_id)) {
            let together = self.asked[place..].iter().take_while(|next| is_same(&next.topic, next.topic_id));
            // Of a session most partitions are left out.
            let count = if matches!(self.session, Begun::Full { .. }) { together.count() } else { 1 };
            let (topic, topic_id) = (Arc::clone(&asked.topic), asked.topic_id);
            let partitions = Vec::with_capacity(count);
            response.responses.push(FetchableTopicResponse { topic, topic_id, partitions });
        }
        response.responses.last_mut().expect("just put there")
    }

    /// What is said of one partition; its records come out by `records`, unless they are there already.
    fn answer<F>(
        &self,
        asked: &FetchedPartition,
        found: Option<Result<ReadResult<F>, ErrorCode>>,
        records: &mut Option<ReplyPart<F>>,
    ) -> PartitionData {
        let mut answer =
            PartitionData { partition_index: asked.partition, high_watermark: -1, ..PartitionData::default() };
        let error = match found {
            Some(Ok(ReadResult { offsets, data, diverging, .. })) => {
                answer.high_watermark = offsets.high_watermark;
                answer.last_stable_offset = offsets.last_stable;
                answer.log_start_offset = offsets.log_start;
                let is_committed = self.reader == Reader::Consumer(Isolation::ReadCommitted);
                let aborted = data.iter().flat_map(|data| &data.aborted).map(aborted_transaction);
                answer.aborted_transactions = (is_committed && diverging.is_none()).then(|| aborted.collect());
                if let Some((epoch, end_offset)) = diverging {
                    answer.diverging_epoch = EpochEndOffset { epoch, end_offset };
                }
                if let Some(ReadData { range, recently_appended, .. }) = data {
                    *records = Some(ReplyPart::Range { range, recently_appended });
                }
                ErrorCode::None
            }
            Some(Err(ErrorCode::KafkaStorageError)) if self.version <= NO_STORAGE_ERROR_VERSION => {
                ErrorCode::NotLeaderOrFollower
            }
            Some(Err(code)) => code,
            None => asked.owner.err().unwrap_or(ErrorCode::UnknownServerError),
        };
        if error != ErrorCode::None {
            answer.aborted_transactions = None;
        }
        answer.error_code = error.code();
        answer
    }
}

fn tell(answer: &PartitionData) -> Told {
    Told {
        has_records: answer.records.is_some_and(|records| records.length > 0),
        has_error: answer.error_code != ErrorCode::None.code(),
        is_diverging: answer.diverging_epoch != EpochEndOffset::default(),
        high_watermark: answer.high_watermark,
        log_start_offset: answer.log_start_offset,
    }
}

/// KIP-951: to a client that asked in vain, who leads, and where clients of its listener reach that broker.
fn name_leader(
    image: &ClusterImage,
    listener: &str,
    asked: &FetchedPartition,
    answer: &mut PartitionData,
    endpoints: &mut Vec<NodeEndpoint>,
) {
    let is_elsewhere = [ErrorCode::NotLeaderOrFollower, ErrorCode::FencedLeaderEpoch]
        .iter()
        .any(|code| code.code() == answer.error_code);
    let Some(partition) = image.partition(&asked.topic, asked.partition).filter(|_| is_elsewhere) else { return };
    answer.current_leader.leader_id = partition.leader.0;
    answer.current_leader.leader_epoch = partition.leader_epoch;
    let Some(broker) = image.broker(partition.leader) else { return };
    if let Some(endpoint) = broker.endpoint(listener)
        && endpoints.iter().all(|named| named.node_id != broker.id.0)
    {
        endpoints.push(NodeEndpoint {
            node_id: broker.id.0,
            host: endpoint.host.to_string(),
            port: i32::from(endpoint.port),
            rack: broker.rack.as_ref().map(ToString::to_string),
        });
    }
}

fn trim_all<F>(found: &mut Found<F>, bytes_max: u64, is_hard: bool) {
    let (mut left, mut nothing_yet) = (bytes_max, true);
    for read in found.iter_mut().flatten().flatten() {
        read.data = read.data.take().and_then(|data| trim(data, left, nothing_yet, is_hard));
        if let Some(data) = &read.data {
            nothing_yet = false;
            left = left.saturating_sub(data.range.length);
        }
    }
}

/// Cuts a range to what is left. The first data of a response may be one whole batch however large it is; later ones
/// that would not hold a whole batch are left out (Kafka 3.9 `ReplicaManager.readFromLog`).
///
/// `is_hard`: the partition's own limit holds for the first batch too.
fn trim<F>(mut data: ReadData<F>, left: u64, nothing_yet: bool, is_hard: bool) -> Option<ReadData<F>> {
    let allowed = data.range.length.min(left);
    let may_exceed = nothing_yet && (!is_hard || data.range.length >= data.first_batch_bytes);
    data.range.length = if allowed >= data.first_batch_bytes {
        allowed
    } else if may_exceed {
        data.first_batch_bytes
    } else {
        return None;
    };
    Some(data)
}

fn part_bytes<F>(part: &ReplyPart<F>) -> usize {
    match part {
        ReplyPart::Bytes(bytes) => bytes.len(),
        ReplyPart::Range { range, .. } => range.length as usize,
    }
}

fn interleave<F>(chunks: Vec<Bytes>, pieces: Vec<ReplyPart<F>>) -> Vec<ReplyPart<F>> {
    debug_assert_eq!(chunks.len(), pieces.len() + 1, "a gap for each piece");
    let mut parts = Vec::with_capacity(chunks.len() + pieces.len());
    let mut pieces = pieces.into_iter();
    for chunk in chunks {
        if !chunk.is_empty() {
            parts.push(ReplyPart::Bytes(chunk));
        }
        parts.extend(pieces.next());
    }
    parts
}

fn aborted_transaction(transaction: &EndedTransaction) -> AbortedTransaction {
    let EndedTransaction { producer_id, first_offset, .. } = *transaction;
    AbortedTransaction { producer_id, first_offset }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::partition::Offsets;
    use crate::platform::{Fence, FileRange};

    fn data(length: u64, first_batch_bytes: u64) -> ReadData<()> {
        let range = FileRange { file: Arc::new(()), position: 0, length, fence: Fence::new() };
        ReadData { range, first_batch_bytes, recently_appended: true, aborted: Vec::new() }
    }

    fn length_after(length: u64, first: u64, left: u64, nothing_yet: bool) -> Option<u64> {
        trim(data(length, first), left, nothing_yet, false).map(|data| data.range.length)
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

    #[test]
    fn where_the_partitions_limit_is_hard_the_first_batch_keeps_it_too() {
        let length_after = |length, left| trim(data(length, 100), left, true, true).map(|data| data.range.length);
        assert_eq!(length_after(99, 5000), None);
        assert_eq!(length_after(100, 5000), Some(100));
        assert_eq!(length_after(100, 50), Some(100), "only this broker's own limit is in the way");
    }

    proptest::proptest! {
        /// Against Kafka's own words: partition after partition, each reads up to its limit or what is left, whichever
        /// is less; until there are records, at least one batch is read; an incomplete first batch is dropped.
        #[test]
        fn limits_hold_as_kafka_applies_them_one_partition_after_the_other(
            logs in proptest::collection::vec((proptest::collection::vec(1u64..50, 0..6), 0u64..120), 0..8),
            bytes_max in 0u64..200,
        ) {
            let mut found: Found<()> = logs.iter().map(|(batches, partition_max)| {
                let total: u64 = batches.iter().sum();
                let read = batches.first().map(|first| data(total.min((*partition_max).min(bytes_max)), *first));
                let offsets = Offsets { log_start: 0, high_watermark: 0, last_stable: 0, log_end: 0 };
                Some(Ok(ReadResult { offsets, data: read, diverging: None, has_later_segment: false }))
            }).collect();
            trim_all(&mut found, bytes_max, false);

            let (mut left, mut at_least_one) = (bytes_max, true);
            for ((batches, partition_max), found) in logs.iter().zip(found) {
                let limit = (*partition_max).min(left);
                let total: u64 = batches.iter().sum();
                let first = batches.first().copied().unwrap_or(0);
                let limit = if at_least_one { limit.max(first) } else { limit };
                let expected = if limit < first { 0 } else { total.min(limit) };
                if expected > 0 {
                    at_least_one = false;
                }
                left = left.saturating_sub(expected);
                let length = found.unwrap().unwrap().data.map_or(0, |data| data.range.length);
                proptest::prop_assert_eq!(length, expected);
            }
        }
    }
}
