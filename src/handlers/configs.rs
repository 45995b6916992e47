//! What the APIs of settings share: resources, what is wrong with them, and asking the controller.
//!
//! What can be refused without knowing what is there is refused here, in the words of Kafka 3.9's `ConfigAdminManager`; the
//! rest is the controller's.

use std::collections::{BTreeMap, BTreeSet};

use super::errors;
use crate::local::Local;
use crate::metadata::proposal::{ConfigChange, ConfigRefusal, ConfigResource};
use crate::platform::Platform;
use crate::protocol::ErrorCode;

/// Kafka's numbers of resource types (Kafka 3.9 `ConfigResource.Type`).
pub const TOPIC: i8 = 2;
pub const BROKER: i8 = 4;
pub const BROKER_LOGGER: i8 = 8;
pub const CLIENT_METRICS: i8 = 16;
pub const GROUP: i8 = 32;

/// Why a resource is not described or changed: Kafka's code, and its words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: ErrorCode,
    pub message: String,
}

impl Refusal {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Refusal {
        Refusal { code, message: message.into() }
    }

    pub fn request(message: impl Into<String>) -> Refusal {
        Refusal::new(ErrorCode::InvalidRequest, message)
    }
}

/// One resource of a request that changes settings.
pub struct AlteredResource {
    pub resource_type: i8,
    pub resource_name: String,
    pub wanted: WantedChange,
}

/// What is to be done with it.
pub enum WantedChange {
    /// The controller decides.
    Change(ConfigChange),
    /// It was decided here.
    Done(Result<(), Refusal>),
}

impl From<Result<ConfigChange, Refusal>> for WantedChange {
    fn from(checked: Result<ConfigChange, Refusal>) -> WantedChange {
        match checked {
            Ok(change) => WantedChange::Change(change),
            Err(refusal) => WantedChange::Done(Err(refusal)),
        }
    }
}

/// Each setting once, and with a value.
pub fn check_settings<'n>(
    names: impl Iterator<Item = &'n str>,
    without_value: impl Iterator<Item = &'n str>,
) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    if !names.into_iter().all(|name| seen.insert(name)) {
        return Err(Refusal::request("Error due to duplicate config keys"));
    }
    let without_value: Vec<&str> = without_value.collect();
    if !without_value.is_empty() {
        return Err(Refusal::request(format!("Null value not supported for : {}", without_value.join(", "))));
    }
    Ok(())
}

/// The resource whose settings are to change.
pub fn changed_resource<P: Platform>(
    local: &Local<P>,
    resource_type: i8,
    name: &str,
) -> Result<ConfigResource, Refusal> {
    match resource_type {
        TOPIC => Ok(ConfigResource::Topic(name.to_owned())),
        BROKER if name.is_empty() => Ok(ConfigResource::AllBrokers),
        BROKER => {
            let id = local.config.broker_id.0;
            match name.parse::<i32>() {
                Ok(named) if named == id => Ok(ConfigResource::ThisBroker),
                Ok(_) => Err(Refusal::request(format!("Unexpected broker id, expected {id}, but received {name}"))),
                Err(_) => Err(Refusal::request(format!("Node id must be an integer, but it is: {name}"))),
            }
        }
        CLIENT_METRICS => Err(Refusal::request(
            "AlterConfigs is only supported for topics and brokers, but resource type is CLIENT_METRICS",
        )),
        other => Err(Refusal::request(format!("Unknown resource type {other}"))),
    }
}

/// Refuses resources that are named twice, asks the controller for the others, and gives what became of each, in the
/// request's order. Returns when every shard shows the new settings.
pub async fn alter<P: Platform>(
    local: &Local<P>,
    asked: Vec<AlteredResource>,
    validate_only: bool,
) -> Vec<(i8, String, Result<(), Refusal>)> {
    let mut counts: BTreeMap<(i8, &str), usize> = BTreeMap::new();
    for one in &asked {
        *counts.entry((one.resource_type, &one.resource_name)).or_default() += 1;
    }
    let twice: Vec<bool> = asked.iter().map(|one| counts[&(one.resource_type, &*one.resource_name)] > 1).collect();
    let (mut outcomes, mut changes, mut places) = (Vec::with_capacity(asked.len()), Vec::new(), Vec::new());
    for (one, twice) in asked.into_iter().zip(twice) {
        let outcome = match one.wanted {
            _ if twice => Err(Refusal::request("Each resource must appear at most once.")),
            WantedChange::Done(outcome) => outcome,
            WantedChange::Change(change) => {
                places.push(outcomes.len());
                changes.push(change);
                Ok(())
            }
        };
        outcomes.push((one.resource_type, one.resource_name, outcome));
    }
    if changes.is_empty() {
        return outcomes;
    }
    let refuse = |code, message: &str| vec![Err(Refusal::new(code, message)); places.len()];
    let decided = match local.alter_configs(changes, validate_only).await {
        Ok(results) => {
            let told = |result: Result<(), ConfigRefusal>| {
                result.map_err(|refusal| Refusal::new(errors::of_config_refusal(&refusal), refusal.to_string()))
            };
            results.into_iter().map(told).collect()
        }
        Err(error) => refuse(errors::of_proposal(&error), &error.to_string()),
    };
    for (place, result) in places.into_iter().zip(decided) {
        outcomes[place].2 = result;
    }
    outcomes
}

/// An outcome as responses carry it.
pub fn told(outcome: Result<(), Refusal>) -> (i16, Option<String>) {
    match outcome {
        Ok(()) => (ErrorCode::None.code(), None),
        Err(refusal) => (refusal.code.code(), Some(refusal.message)),
    }
}
