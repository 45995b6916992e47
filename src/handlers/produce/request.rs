//! A produce request's structure, owned, so that its batches can be split from the frame.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use crate::metadata::image::{ClusterImage, TopicImage};
use crate::protocol::message::{PartitionProduceData, ProduceRequest, TopicProduceData};
use crate::protocol::{ErrorCode, WireError};
use crate::record::batch::BatchHeader;

pub struct Structure {
    pub acks: i16,
    pub timeout_ms: i32,
    /// What the whole request is refused with.
    pub refusal: Option<ErrorCode>,
    /// Topics, with their partitions and where in the body the records of each are.
    pub topics: Vec<(NamedTopic, Vec<(i32, Option<Range<usize>>)>)>,
}

/// A topic as a request names it.
pub enum NamedTopic {
    Known(Arc<TopicImage>),
    Unknown(Arc<str>),
}

impl NamedTopic {
    pub fn name(&self) -> Arc<str> {
        match self {
            NamedTopic::Known(topic) => Arc::clone(&topic.name),
            NamedTopic::Unknown(name) => Arc::clone(name),
        }
    }

    pub fn image(&self) -> Option<&Arc<TopicImage>> {
        match self {
            NamedTopic::Known(topic) => Some(topic),
            NamedTopic::Unknown(_) => None,
        }
    }
}

impl Structure {
    pub fn decode(body: &[u8], version: i16, image: &ClusterImage) -> Result<Structure, WireError> {
        let request = ProduceRequest::decode(body, version)?;
        let refusal = refusal(&request, body);
        let superseded = superseded(&request);
        let mut place = 0;
        let topics = request.topic_data.into_iter().filter_map(|topic| {
            let named = match image.topic(&topic.name) {
                Some(known) => NamedTopic::Known(Arc::clone(known)),
                None => NamedTopic::Unknown(Arc::from(topic.name)),
            };
            let last = topic.partition_data.into_iter().filter(|_| {
                place += 1;
                !superseded.contains(&(place - 1))
            });
            let partitions: Vec<_> = last.map(|partition| (partition.index, partition.records)).collect();
            (!partitions.is_empty()).then_some((named, partitions))
        });
        Ok(Structure { acks: request.acks, timeout_ms: request.timeout_ms, refusal, topics: topics.collect() })
    }
}

/// Why the whole request is refused.
fn refusal(request: &ProduceRequest<'_>, body: &[u8]) -> Option<ErrorCode> {
    let mut partitions = request.topic_data.iter().flat_map(|topic| &topic.partition_data);
    // By the first batch of each, as in Kafka 3.9 `RequestUtils.hasTransactionalRecords`.
    let is_transactional = |partition: &PartitionProduceData| {
        let records = partition.records.clone().map_or(&[][..], |records| &body[records]);
        BatchHeader::parse(records).is_ok_and(|header| header.is_transactional())
    };
    if request.transactional_id.is_none() && partitions.any(is_transactional) {
        Some(ErrorCode::TransactionalIdAuthorizationFailed)
    } else if !(-1..=1).contains(&request.acks) {
        Some(ErrorCode::InvalidRequiredAcks)
    } else {
        None
    }
}

/// Places of partitions that the request names again further on: only the last of them counts, and is answered (Kafka 3.9
/// `KafkaApis.handleProduceRequest` keeps them in a map).
fn superseded(request: &ProduceRequest<'_>) -> BTreeSet<usize> {
    let ascends = |topic: &TopicProduceData<'_>| topic.partition_data.is_sorted_by(|one, next| one.index < next.index);
    // As nearly all requests are.
    if request.topic_data.len() == 1 && ascends(&request.topic_data[0]) {
        return BTreeSet::new();
    }
    let mut last = HashMap::new();
    let mut superseded = BTreeSet::new();
    let named = request
        .topic_data
        .iter()
        .flat_map(|topic| topic.partition_data.iter().map(|partition| (&*topic.name, partition.index)));
    for (place, named) in named.enumerate() {
        superseded.extend(last.insert(named, place));
    }
    superseded
}
