//! CreateTopics (19), versions 0-7.
//!
//! - v1 `validate_only`. v4 lets counts default (-1). v5 answers with counts and configs (KIP-525), v7 with topic ids.
//! - A name that stands in the request twice is refused as often.
//! - The answer leaves when every shard shows the topics; a timeout that passes first is answered REQUEST_TIMED_OUT, and
//!   the creation goes on.

use std::collections::BTreeSet;

use super::distinct::Distinct;
use super::errors;
use super::{Exchange, Handler, Unanswered};
use crate::base::ids::BrokerId;
use crate::config::DynamicConfig;
use crate::config::describe::{self, ConfigEntry};
use crate::local::Local;
use crate::local::proposing::{NoOutcome, Patience};
use crate::metadata::proposal::{CreateTopicResult, NewTopic};
use crate::platform::Platform;
use crate::protocol::ErrorCode;
use crate::protocol::message::{
    CreatableTopic, CreatableTopicConfigs, CreatableTopicResult, CreateTopicsRequest, CreateTopicsResponse,
};

/// What the settings of all created topics may take in one answer; of those beyond it they are not told, as of topics whose
/// settings the client may not see. And about what those of one topic take.
const SETTINGS_BYTES_MAX: usize = 64 * 1024 * 1024;
const TOPIC_SETTINGS_BYTES: usize = 4 * 1024;

/// Of a created topic all settings come back, for a name of a few bytes: what the answer takes, of the request's bytes.
const CREATED_TOPIC_GROWTH: u64 = 64;

const GOES_ON: &str = "The creation goes on.";

pub struct CreateTopics;

impl<P: Platform> Handler<P> for CreateTopics {
    async fn handle(mut exchange: Exchange<P>) -> Result<(), Unanswered> {
        let (request, _room) = exchange.decode_to_propose::<CreateTopicsRequest>(CREATED_TOPIC_GROWTH).await?;
        let response = answer(&exchange.local, request).await;
        exchange.reply(&response).await
    }
}

async fn answer<P: Platform>(local: &Local<P>, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let mut named = Distinct::with_capacity(request.topics.len());
    let mut twice = BTreeSet::new();
    for topic in &request.topics {
        if !named.is_new(topic.name.as_str()) {
            twice.insert(topic.name.clone());
        }
    }
    let (repeated, once): (Vec<_>, Vec<_>) = request.topics.into_iter().partition(|topic| twice.contains(&topic.name));
    let repeated = repeated.into_iter().map(|topic| topic.name).collect();
    let mut topics = refuse_all(repeated, ErrorCode::InvalidRequest, "Found multiple entries for this topic.");
    if !once.is_empty() {
        topics.extend(create(local, once, request.timeout_ms, request.validate_only).await);
    }
    CreateTopicsResponse { topics, ..CreateTopicsResponse::default() }
}

/// Has the controller create topics, each named once.
async fn create<P: Platform>(
    local: &Local<P>,
    topics: Vec<CreatableTopic>,
    timeout_ms: i32,
    validate_only: bool,
) -> Vec<CreatableTopicResult> {
    let names: Vec<String> = topics.iter().map(|topic| topic.name.clone()).collect();
    let topics = topics.into_iter().map(new_topic).collect();
    let patience = Patience::of(timeout_ms, validate_only);
    match local.create_topics(topics, validate_only, patience).await {
        Ok(results) => {
            let dynamic = local.dynamic();
            let mut room = SETTINGS_BYTES_MAX;
            let describe = |result: CreateTopicResult| match &result.outcome {
                Ok(_) if patience.is_none() => refuse(result.name, ErrorCode::RequestTimedOut, GOES_ON),
                _ => describe(result, &dynamic, &mut room),
            };
            results.into_iter().map(describe).collect()
        }
        Err(NoOutcome::Failed(error)) => refuse_all(names, errors::of_proposal(&error), &error.to_string()),
        Err(NoOutcome::TimedOut) => refuse_all(names, ErrorCode::RequestTimedOut, GOES_ON),
    }
}

fn new_topic(topic: CreatableTopic) -> NewTopic {
    let assignments = topic
        .assignments
        .into_iter()
        .map(|assignment| (assignment.partition_index, assignment.broker_ids.into_iter().map(BrokerId).collect()));
    NewTopic {
        name: topic.name,
        partitions: topic.num_partitions,
        replication_factor: topic.replication_factor,
        assignments: assignments.collect(),
        configs: topic.configs.into_iter().map(|config| (config.name, config.value)).collect(),
    }
}

fn describe(result: CreateTopicResult, dynamic: &DynamicConfig, room: &mut usize) -> CreatableTopicResult {
    match result.outcome {
        Ok(created) => {
            let has_room = room.checked_sub(TOPIC_SETTINGS_BYTES).inspect(|left| *room = *left).is_some();
            let configs = has_room.then(|| describe::topic(&created.config, dynamic));
            let configs = configs.map(|entries| entries.into_iter().map(describe_config).collect());
            CreatableTopicResult {
                name: result.name,
                topic_id: created.id,
                error_message: None,
                num_partitions: created.partitions,
                replication_factor: created.replication_factor,
                configs,
                ..CreatableTopicResult::default()
            }
        }
        Err(refusal) => refuse(result.name, errors::of_topic_refusal(&refusal), &refusal.to_string()),
    }
}

fn describe_config(entry: ConfigEntry) -> CreatableTopicConfigs {
    CreatableTopicConfigs {
        name: entry.name,
        value: entry.value,
        read_only: false,
        config_source: entry.source as i8,
        is_sensitive: false,
    }
}

fn refuse(name: String, code: ErrorCode, message: &str) -> CreatableTopicResult {
    CreatableTopicResult {
        name,
        error_code: code.code(),
        error_message: Some(message.to_owned()),
        ..CreatableTopicResult::default()
    }
}

fn refuse_all(names: Vec<String>, code: ErrorCode, message: &str) -> Vec<CreatableTopicResult> {
    names.into_iter().map(|name| refuse(name, code, message)).collect()
}
