//! CreatePartitions (37), versions 0-3.
//!
//! - `count` is what the topic is to have in all; a topic that is named twice is refused (Kafka 3.9
//!   `KafkaApis.handleCreatePartitionsRequest`).
//! - The answer leaves when every shard shows the partitions; a timeout that passes first is answered REQUEST_TIMED_OUT,
//!   and the creation goes on.

use std::collections::BTreeMap;

use super::errors;
use super::exchange::ANSWER_GROWTH;
use super::{Exchange, Handler, Unanswered};
use crate::base::ids::BrokerId;
use crate::local::Local;
use crate::local::proposing::{NoOutcome, Patience};
use crate::metadata::proposal::MorePartitions;
use crate::platform::Platform;
use crate::protocol::ErrorCode;
use crate::protocol::message::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic, CreatePartitionsTopicResult,
};

const GOES_ON: &str = "The creation goes on.";

pub struct CreatePartitions;

impl<P: Platform> Handler<P> for CreatePartitions {
    async fn handle(mut exchange: Exchange<P>) -> Result<(), Unanswered> {
        let (request, _room) = exchange.decode_to_propose::<CreatePartitionsRequest>(ANSWER_GROWTH).await?;
        let response = answer(&exchange.local, request).await;
        exchange.reply(&response).await
    }
}

async fn answer<P: Platform>(local: &Local<P>, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let mut named: BTreeMap<&str, usize> = BTreeMap::new();
    for topic in &request.topics {
        *named.entry(&topic.name).or_default() += 1;
    }
    let twice = named.iter().filter(|(_, count)| **count > 1).map(|(name, _)| (*name).to_owned());
    let mut results: Vec<CreatePartitionsTopicResult> = twice
        .map(|name| result(name, ErrorCode::InvalidRequest, Some("Duplicate topic in request.".to_owned())))
        .collect();
    let once = request.topics.iter().filter(|topic| named[&*topic.name] == 1);
    let topics: Vec<MorePartitions> = once.map(more_partitions).collect();
    let names: Vec<String> = topics.iter().map(|topic| topic.topic.clone()).collect();
    let patience = Patience::of(request.timeout_ms, request.validate_only);
    let answer = local.create_partitions(topics, request.validate_only, patience).await;
    let of_all = |code: ErrorCode, message: &str| {
        let message = Some(message.to_owned());
        names.iter().map(|name| result(name.clone(), code, message.clone())).collect()
    };
    let of_each: Vec<CreatePartitionsTopicResult> = match answer {
        Ok(outcomes) => names
            .into_iter()
            .zip(outcomes)
            .map(|(name, outcome)| match outcome {
                Ok(()) if patience.is_none() => result(name, ErrorCode::RequestTimedOut, Some(GOES_ON.to_owned())),
                Ok(()) => result(name, ErrorCode::None, None),
                Err(refusal) => result(name, errors::of_topic_refusal(&refusal), Some(refusal.to_string())),
            })
            .collect(),
        Err(NoOutcome::Failed(error)) => of_all(errors::of_proposal(&error), &error.to_string()),
        Err(NoOutcome::TimedOut) => of_all(ErrorCode::RequestTimedOut, GOES_ON),
    };
    results.extend(of_each);
    CreatePartitionsResponse { results, ..CreatePartitionsResponse::default() }
}

fn more_partitions(topic: &CreatePartitionsTopic) -> MorePartitions {
    let assignments = topic.assignments.as_ref().map(|assignments| {
        assignments.iter().map(|given| given.broker_ids.iter().copied().map(BrokerId).collect()).collect()
    });
    MorePartitions { topic: topic.name.clone(), count: topic.count, assignments }
}

fn result(name: String, code: ErrorCode, error_message: Option<String>) -> CreatePartitionsTopicResult {
    CreatePartitionsTopicResult { name, error_code: code.code(), error_message }
}
