//! Metadata (3), versions 0-12.
//!
//! - v0: an empty list is all topics; v1 on: null is all, empty none. v4 says whether missing topics may be created.
//! - v8-10 cluster, v8 on topic operations that the client is allowed: all of them, as there is no authorizer yet.
//! - v10 topic ids in the answer, v12 in the request (KIP-516).
//!
//! A missing topic is created if `auto.create.topics.enable` and the request allow it. Kafka answers
//! LEADER_NOT_AVAILABLE and lets the client ask again; here the answer waits for the creation and shows its outcome, which
//! saves that round: a difference on purpose that no client can mistake.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::distinct::Distinct;
use super::{Exchange, Handler, Unanswered, errors};
use crate::base::ids::TopicId;
use crate::local::Local;
use crate::local::proposing::Patience;
use crate::metadata::image::{ClusterImage, NO_LEADER, PartitionImage, TopicImage};
use crate::metadata::proposal::{NewTopic, TopicRefusal};
use crate::platform::Platform;
use crate::protocol::ErrorCode;
use crate::protocol::message::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseBroker, MetadataResponsePartition,
    MetadataResponseTopic,
};

/// Bits of Kafka's `AclOperation`: read, write, create, delete, alter, describe, describe and alter configs.
const TOPIC_OPERATIONS: i32 = 0b1101_1111_1000;
/// Create, alter, describe, cluster action, describe and alter configs, idempotent write.
pub(super) const CLUSTER_OPERATIONS: i32 = 0b1_1111_1010_0000;

/// Topics may be asked for by their ids from this version on.
const BY_ID_SINCE: i16 = 12;

/// The longest name a topic may have (Kafka 3.9 `Topic.MAX_NAME_LENGTH`).
const TOPIC_NAME_LENGTH_MAX: usize = 249;

pub struct Metadata;

impl<P: Platform> Handler<P> for Metadata {
    async fn handle(mut exchange: Exchange<P>) -> Result<(), Unanswered> {
        let request: MetadataRequest = exchange.decode_for(|_, _| 0).await?;
        let refused = create_missing(&exchange.local, &request).await;
        let image = exchange.local.image();
        exchange.claim_answer(answer_bytes(&image, &request)).await;
        let response = answer(&image, &exchange.context.listener, request, exchange.version(), &refused);
        exchange.reply(&response).await
    }
}

/// Asks for all topics, rather than for those that it names.
fn is_for_all(request: &MetadataRequest, version: i16) -> bool {
    match &request.topics {
        None => true,
        Some(topics) => version == 0 && topics.is_empty(),
    }
}

/// About what the answer takes while it is made and sent.
fn answer_bytes(image: &ClusterImage, request: &MetadataRequest) -> u64 {
    const TOPIC_BYTES: u64 = 256;
    const PARTITION_BYTES: u64 = 256;
    let described = |topic: &TopicImage| TOPIC_BYTES + PARTITION_BYTES * topic.partitions.len() as u64;
    let all = || image.topics().map(|topic| described(topic)).sum();
    let Some(asked) = &request.topics else { return all() };
    // However often they are repeated, there are no more of them than all.
    let (mut known, mut unknown) = (0, 0);
    for topic in asked {
        match topic.name.as_deref().and_then(|name| image.topic(name)).or_else(|| image.topic_by_id(topic.topic_id)) {
            Some(topic) => known += described(topic),
            None => unknown += TOPIC_BYTES + topic.name.as_ref().map_or(0, String::len) as u64,
        }
    }
    known.min(all()) + unknown
}

/// The answer; `refused` are those that could not be created.
fn answer(
    image: &ClusterImage,
    listener: &str,
    request: MetadataRequest,
    version: i16,
    refused: &BTreeMap<String, ErrorCode>,
) -> MetadataResponse {
    let operations = if request.include_topic_authorized_operations { TOPIC_OPERATIONS } else { i32::MIN };
    let asked = request.topics.as_deref().unwrap_or_default();
    if version < BY_ID_SINCE && asked.iter().any(|topic| topic.topic_id != TopicId::ZERO || topic.name.is_none()) {
        return refuse_all(request.topics.unwrap_or_default());
    }
    let topics = if is_for_all(&request, version) {
        image.topics().map(|topic| describe(image, listener, topic, version, operations)).collect()
    } else {
        let asked = request.topics.unwrap_or_default();
        let mut named = Distinct::with_capacity(asked.len());
        let once = asked.iter().filter(|topic| named.is_new((topic.topic_id, topic.name.as_deref())));
        once.map(|topic| find(image, listener, topic, version, operations, refused)).collect()
    };
    MetadataResponse {
        brokers: brokers(image, listener),
        cluster_id: Some(image.cluster_id.to_string()),
        controller_id: image.broker(image.controller_id).map_or(NO_LEADER.0, |broker| broker.id.0),
        topics,
        cluster_authorized_operations: if request.include_cluster_authorized_operations {
            CLUSTER_OPERATIONS
        } else {
            i32::MIN
        },
        ..MetadataResponse::default()
    }
}

/// Ids are in the request from version 10 on, but may be asked by from 12 on only (Kafka 3.9
/// `MetadataRequest.getErrorResponse`).
fn refuse_all(topics: Vec<MetadataRequestTopic>) -> MetadataResponse {
    let mut named = Distinct::with_capacity(topics.len());
    let once = topics.into_iter().filter(|topic| named.is_new((topic.topic_id, topic.name.clone())));
    let refused = once.map(|topic| MetadataResponseTopic {
        error_code: ErrorCode::InvalidRequest.code(),
        name: Some(topic.name.unwrap_or_default()),
        topic_id: topic.topic_id,
        ..MetadataResponseTopic::default()
    });
    MetadataResponse { topics: refused.collect(), controller_id: NO_LEADER.0, ..MetadataResponse::default() }
}

/// Creates the named topics that are not there, where broker and request allow it, and waits until every shard shows
/// them; gives why some of them could not be created.
async fn create_missing<P: Platform>(local: &Local<P>, request: &MetadataRequest) -> BTreeMap<String, ErrorCode> {
    let asked = request.topics.as_deref().unwrap_or_default();
    if !request.allow_auto_topic_creation || !local.config.auto_create_topics_enable {
        return BTreeMap::new();
    }
    let image = local.image();
    let names = asked.iter().filter(|topic| topic.topic_id == TopicId::ZERO).filter_map(|topic| topic.name.as_deref());
    let missing: BTreeSet<&str> = names.filter(|name| is_valid_name(name) && image.topic(name).is_none()).collect();
    if missing.is_empty() {
        return BTreeMap::new();
    }
    let topics = missing.iter().map(|name| NewTopic::auto_created(name, &local.config)).collect();
    match local.create_topics(topics, false, Patience::AsLongAsItTakes).await {
        Ok(results) => {
            let refused = results.into_iter().filter_map(|result| match result.outcome {
                // Another request was faster.
                Ok(_) | Err(TopicRefusal::AlreadyExists(_)) => None,
                Err(refusal) => Some((result.name, errors::of_topic_refusal(&refusal))),
            });
            refused.collect()
        }
        Err(_) => missing.into_iter().map(|name| (name.to_owned(), ErrorCode::LeaderNotAvailable)).collect(),
    }
}

fn find(
    image: &ClusterImage,
    listener: &str,
    asked: &MetadataRequestTopic,
    version: i16,
    operations: i32,
    refused: &BTreeMap<String, ErrorCode>,
) -> MetadataResponseTopic {
    let by_id = asked.topic_id != TopicId::ZERO;
    let topic = match &asked.name {
        Some(name) if !by_id => image.topic(name),
        _ => image.topic_by_id(asked.topic_id),
    };
    if let Some(topic) = topic {
        return describe(image, listener, topic, version, operations);
    }
    let name = asked.name.as_deref().unwrap_or_default();
    let code = if by_id {
        ErrorCode::UnknownTopicId
    } else if !is_valid_name(name) {
        ErrorCode::InvalidTopicException
    } else {
        refused.get(name).copied().unwrap_or(ErrorCode::UnknownTopicOrPartition)
    };
    // A null name is only known from version 12 on; below, an unknown id has the empty one.
    let name = if by_id && version >= 12 { None } else { Some(name.to_owned()) };
    MetadataResponseTopic {
        error_code: code.code(),
        name,
        topic_id: asked.topic_id,
        topic_authorized_operations: operations,
        ..MetadataResponseTopic::default()
    }
}

/// Kafka 3.9 `Topic.validate`.
pub(super) fn is_valid_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !name.is_empty() && name != "." && name != ".." && name.len() <= TOPIC_NAME_LENGTH_MAX && name.bytes().all(legal)
}

fn describe(
    image: &ClusterImage,
    listener: &str,
    topic: &Arc<TopicImage>,
    version: i16,
    operations: i32,
) -> MetadataResponseTopic {
    let partitions = topic.partitions.iter().map(|partition| describe_partition(image, listener, partition, version));
    MetadataResponseTopic {
        error_code: ErrorCode::None.code(),
        name: Some(topic.name.to_string()),
        topic_id: topic.id,
        is_internal: topic.internal,
        partitions: partitions.collect(),
        topic_authorized_operations: operations,
    }
}

/// Kafka 3.9 `ZkMetadataCache.getPartitionMetadata`: a leader that can't be reached by the client's listener is none.
fn describe_partition(
    image: &ClusterImage,
    listener: &str,
    partition: &PartitionImage,
    version: i16,
) -> MetadataResponsePartition {
    let leader = image.broker(partition.leader).filter(|_| partition.leader != NO_LEADER);
    let alive = leader.is_some_and(|leader| leader.endpoint(listener).is_some());
    let error = match leader {
        Some(_) if alive => ErrorCode::None,
        Some(_) if version >= 6 => ErrorCode::ListenerNotFound,
        _ => ErrorCode::LeaderNotAvailable,
    };
    let ids = |brokers: &[crate::base::ids::BrokerId]| brokers.iter().map(|broker| broker.0).collect();
    MetadataResponsePartition {
        error_code: error.code(),
        partition_index: partition.partition,
        leader_id: if alive { partition.leader.0 } else { NO_LEADER.0 },
        leader_epoch: if version >= 7 { partition.leader_epoch } else { -1 },
        replica_nodes: ids(&partition.replicas),
        isr_nodes: ids(&partition.isr),
        offline_replicas: ids(&partition.offline_replicas),
    }
}

/// Those that the client can reach by its listener.
pub(super) fn brokers(image: &ClusterImage, listener: &str) -> Vec<MetadataResponseBroker> {
    let live = image.brokers.iter().filter_map(|broker| {
        let endpoint = broker.endpoint(listener)?;
        Some(MetadataResponseBroker {
            node_id: broker.id.0,
            host: endpoint.host.to_string(),
            port: i32::from(endpoint.port),
            rack: broker.rack.as_ref().map(ToString::to_string),
        })
    });
    live.collect()
}
