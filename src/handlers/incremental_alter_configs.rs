//! IncrementalAlterConfigs (44), versions 0-1 (KIP-339): single settings of a topic, a broker or the broker's loggers; what
//! is not named stays. The answer leaves when every shard shows the new settings.
//!
//! Levels of loggers (KIP-412) are this process's own and last as long as it: no controller is asked.

use super::configs::{self, AlteredResource, BROKER_LOGGER, Refusal, WantedChange};
use super::exchange::ANSWER_GROWTH;
use super::{Exchange, Handler, Unanswered};
use crate::base::log_levels::{self, LEVELS, Level, ROOT};
use crate::local::Local;
use crate::metadata::proposal::{ConfigChange, ConfigEdit, ConfigOperation};
use crate::platform::Platform;
use crate::protocol::ErrorCode;
use crate::protocol::message::incremental_alter_configs::{
    AlterConfigsResource, AlterConfigsResourceResponse, AlterableConfig,
};
use crate::protocol::message::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

/// Kafka's numbers of operations (Kafka 3.9 `AlterConfigOp.OpType`).
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

pub struct IncrementalAlterConfigs;

impl<P: Platform> Handler<P> for IncrementalAlterConfigs {
    async fn handle(mut exchange: Exchange<P>) -> Result<(), Unanswered> {
        let (request, _room) = exchange.decode_to_propose::<IncrementalAlterConfigsRequest>(ANSWER_GROWTH).await?;
        let response = answer(&exchange.local, request).await;
        exchange.reply(&response).await
    }
}

async fn answer<P: Platform>(
    local: &Local<P>,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let asked = request.resources.into_iter().map(|resource| {
        let wanted = match check(&resource) {
            Err(refusal) => WantedChange::Done(Err(refusal)),
            Ok(()) if resource.resource_type == BROKER_LOGGER => {
                WantedChange::Done(set_levels(local, &resource, request.validate_only))
            }
            Ok(()) => change(local, &resource).into(),
        };
        AlteredResource { wanted, resource_type: resource.resource_type, resource_name: resource.resource_name }
    });
    let outcomes = configs::alter(local, asked.collect(), request.validate_only).await;
    let responses = outcomes.into_iter().map(|(resource_type, resource_name, outcome)| {
        let (error_code, error_message) = configs::told(outcome);
        AlterConfigsResourceResponse { error_code, error_message, resource_type, resource_name }
    });
    IncrementalAlterConfigsResponse { responses: responses.collect(), ..IncrementalAlterConfigsResponse::default() }
}

fn check(resource: &AlterConfigsResource) -> Result<(), Refusal> {
    let configs = &resource.configs;
    let lacks_value = |config: &&AlterableConfig| config.config_operation != DELETE && config.value.is_none();
    let without_value = configs.iter().filter(lacks_value);
    configs::check_settings(configs.iter().map(|config| &*config.name), without_value.map(|config| &*config.name))
}

fn change<P: Platform>(local: &Local<P>, resource: &AlterConfigsResource) -> Result<ConfigChange, Refusal> {
    let changed = configs::changed_resource(local, resource.resource_type, &resource.resource_name)?;
    let operation = |config: &AlterableConfig| {
        let value = config.value.clone().unwrap_or_default();
        let operation = match config.config_operation {
            SET => ConfigOperation::Set(value),
            DELETE => ConfigOperation::Delete,
            APPEND => ConfigOperation::Append(value),
            SUBTRACT => ConfigOperation::Subtract(value),
            other => return Err(Refusal::request(format!("Unknown operations type {other}"))),
        };
        Ok((config.name.clone(), operation))
    };
    let operations = resource.configs.iter().map(operation).collect::<Result<_, _>>()?;
    Ok(ConfigChange { resource: changed, edit: ConfigEdit::Change(operations) })
}

/// Kafka 3.9 `RuntimeLoggerManager`: all of a resource's levels or none.
fn set_levels<P: Platform>(
    local: &Local<P>,
    resource: &AlterConfigsResource,
    validate_only: bool,
) -> Result<(), Refusal> {
    let (name, id) = (&resource.resource_name, local.config.broker_id.0);
    match name.parse::<i32>() {
        Ok(named) if named == id => {}
        Ok(_) => return Err(Refusal::request(format!("Unexpected node id. Expected {id}, but received {name}"))),
        Err(_) => return Err(Refusal::request(format!("Node id must be an integer, but it is: {name}"))),
    }
    let mut levels: Vec<(&str, Option<Level>)> = Vec::with_capacity(resource.configs.len());
    for config in &resource.configs {
        levels.push((&config.name, level_of(config)?));
    }
    if !validate_only {
        log_levels::set(&levels).map_err(|reason| Refusal::new(ErrorCode::InvalidConfig, reason))?;
    }
    Ok(())
}

/// The level that a logger is to have; `None`: the root's.
fn level_of(config: &AlterableConfig) -> Result<Option<Level>, Refusal> {
    let name = &config.name;
    let verb = match config.config_operation {
        SET | DELETE => "",
        APPEND => "APPEND operation",
        SUBTRACT => "SUBTRACT operation",
        other => {
            let message = format!("Unknown operation type {other} is not allowed for the BROKER_LOGGER resource");
            return Err(Refusal::request(message));
        }
    };
    if !verb.is_empty() {
        return Err(Refusal::request(format!("{verb} is not allowed for the BROKER_LOGGER resource")));
    }
    if !log_levels::exists(name) {
        return Err(Refusal::new(ErrorCode::InvalidConfig, format!("Logger {name} does not exist!")));
    }
    if config.config_operation == DELETE {
        if name == ROOT {
            return Err(Refusal::request(format!("Removing the log level of the {ROOT} logger is not allowed")));
        }
        return Ok(None);
    }
    let text = config.value.as_deref().unwrap_or_default();
    Level::parse(text).map(Some).ok_or_else(|| {
        let message = format!(
            "Cannot set the log level of {name} to {text} as it is not a supported log level. Valid log levels are {}",
            LEVELS.join(", ")
        );
        Refusal::new(ErrorCode::InvalidConfig, message)
    })
}
