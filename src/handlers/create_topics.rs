//! CreateTopics (19), versions 0-7.
//!
//! - v1 `validate_only`. v4 lets counts default (-1). v5 answers with counts and configs (KIP-525), v7 with topic ids.
//! - The answer leaves when every shard shows the topics; a timeout that passes first is answered REQUEST_TIMED_OUT, and
//!   the creation goes on.

use std::time::Duration;

use super::{Context, errors};
use crate::base::ids::BrokerId;
use crate::config::{DynamicConfig, describe};
use crate::executor::either;
use crate::metadata::proposal::{Answer, CreateTopicResult, NewTopic, Proposal};
use crate::platform::{Clock, Platform};
use crate::protocol::message::{
    CreatableTopic, CreatableTopicConfigs, CreatableTopicResult, CreateTopicsRequest, CreateTopicsResponse,
};
use crate::protocol::{ErrorCode, Reader, WireError};

pub async fn handle<P: Platform>(
    context: &Context<P>,
    body: &[u8],
    version: i16,
) -> Result<CreateTopicsResponse, WireError> {
    let request = CreateTopicsRequest::decode(&mut Reader::new(body), version)?;
    let names: Vec<String> = request.topics.iter().map(|topic| topic.name.clone()).collect();
    let topics = request.topics.into_iter().map(new_topic).collect();
    let clock = context.platform.clock();
    let deadline = clock.now() + Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let proposal = Proposal::CreateTopics { topics, validate_only: request.validate_only };
    let topics = match either(context.propose(proposal), clock.sleep_until(deadline)).await {
        Ok(Answer::CreateTopics(results)) => {
            let dynamic = context.dynamic();
            results.into_iter().map(|result| describe(result, &dynamic)).collect()
        }
        Ok(Answer::Failed(error)) => refuse_all(names, errors::of_proposal(&error), &error.to_string()),
        Ok(_) => refuse_all(names, ErrorCode::UnknownServerError, "The controller gave another answer."),
        Err(()) => refuse_all(names, ErrorCode::RequestTimedOut, "The creation goes on."),
    };
    Ok(CreateTopicsResponse { topics, ..CreateTopicsResponse::default() })
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

fn describe(result: CreateTopicResult, dynamic: &DynamicConfig) -> CreatableTopicResult {
    match result.outcome {
        Ok(created) => {
            let configs = describe::topic(&created.config, dynamic).into_iter().map(|entry| CreatableTopicConfigs {
                name: entry.name,
                value: entry.value,
                read_only: false,
                config_source: entry.source as i8,
                is_sensitive: false,
            });
            CreatableTopicResult {
                name: result.name,
                topic_id: created.id,
                error_message: None,
                num_partitions: created.partitions,
                replication_factor: created.replication_factor,
                configs: Some(configs.collect()),
                ..CreatableTopicResult::default()
            }
        }
        Err(refusal) => refuse(result.name, errors::of_topic_refusal(&refusal), &refusal.to_string()),
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
