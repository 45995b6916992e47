//! DeleteTopics (20), versions 0-6: by name, from v6 also by id (KIP-516). The answer leaves when no shard shows the
//! topics any more. A topic that is named twice is answered once; one that has a name and an id refuses the request.

use super::distinct::Distinct;
use super::errors;
use super::exchange::ANSWER_GROWTH;
use super::{Exchange, Handler, Unanswered};
use crate::base::ids::TopicId;
use crate::local::Local;
use crate::local::proposing::{NoOutcome, Patience};
use crate::metadata::proposal::{DeleteTopicResult, TopicRef, TopicRefusal};
use crate::platform::Platform;
use crate::protocol::ErrorCode;
use crate::protocol::message::{DeletableTopicResult, DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse};

/// TOPIC_DELETION_DISABLED came with this version; older clients are told INVALID_REQUEST.
const DELETION_DISABLED_SINCE: i16 = 3;

pub struct DeleteTopics;

impl<P: Platform> Handler<P> for DeleteTopics {
    async fn handle(mut exchange: Exchange<P>) -> Result<(), Unanswered> {
        let (request, _room) = exchange.decode_to_propose::<DeleteTopicsRequest>(ANSWER_GROWTH).await?;
        let response = answer(&exchange.local, request, exchange.version()).await;
        exchange.reply(&response).await
    }
}

async fn answer<P: Platform>(local: &Local<P>, request: DeleteTopicsRequest, version: i16) -> DeleteTopicsResponse {
    let states = &request.topics;
    let named_twice = |topic: &DeleteTopicState| topic.name.is_some() && topic.topic_id != TopicId::ZERO;
    if local.config.delete_topic_enable && states.iter().any(named_twice) {
        return DeleteTopicsResponse { responses: refuse_ambiguous(request.topics), ..Default::default() };
    }
    let by_state = request.topics.into_iter().map(|topic| match topic.name {
        Some(name) => TopicRef::Name(name),
        None => TopicRef::Id(topic.topic_id),
    });
    let named = by_state.chain(request.topic_names.into_iter().map(TopicRef::Name));
    let mut distinct = Distinct::with_capacity(0);
    let topics: Vec<TopicRef> = named.filter(|topic| distinct.is_new(topic.clone())).collect();
    let patience = Patience::Ms(request.timeout_ms);
    let responses = match local.delete_topics(topics.clone(), patience).await {
        Ok(results) => results.into_iter().map(|result| describe(result, version, patience.is_none())).collect(),
        Err(NoOutcome::Failed(error)) => refuse_all(topics, errors::of_proposal(&error)),
        Err(NoOutcome::TimedOut) => refuse_all(topics, ErrorCode::RequestTimedOut),
    };
    DeleteTopicsResponse { responses, ..DeleteTopicsResponse::default() }
}

fn describe(result: DeleteTopicResult, version: i16, too_late: bool) -> DeletableTopicResult {
    let (code, message) = match &result.outcome {
        Ok(()) if too_late => (ErrorCode::RequestTimedOut, None),
        Ok(()) => (ErrorCode::None, None),
        Err(TopicRefusal::DeletionDisabled) if version < DELETION_DISABLED_SINCE => (ErrorCode::InvalidRequest, None),
        Err(refusal) => (errors::of_topic_refusal(refusal), Some(refusal.to_string())),
    };
    DeletableTopicResult {
        name: result.name.or_else(|| (version < 6).then(String::new)),
        topic_id: result.id,
        error_code: code.code(),
        error_message: message,
    }
}

/// Whether a topic is meant by its name or its id is nobody's to guess: nothing is deleted.
fn refuse_ambiguous(topics: Vec<DeleteTopicState>) -> Vec<DeletableTopicResult> {
    let refuse = |DeleteTopicState { name, topic_id }| DeletableTopicResult {
        name,
        topic_id,
        error_code: ErrorCode::InvalidRequest.code(),
        error_message: None,
    };
    topics.into_iter().map(refuse).collect()
}

fn refuse_all(topics: Vec<TopicRef>, code: ErrorCode) -> Vec<DeletableTopicResult> {
    let refuse = |topic| {
        let (name, topic_id) = match topic {
            TopicRef::Name(name) => (Some(name), TopicId::ZERO),
            TopicRef::Id(id) => (None, id),
        };
        DeletableTopicResult { name, topic_id, error_code: code.code(), error_message: None }
    };
    topics.into_iter().map(refuse).collect()
}
