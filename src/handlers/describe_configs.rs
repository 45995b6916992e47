//! DescribeConfigs (32), versions 0-4: settings of topics, of this broker, of all brokers, and levels of loggers.
//!
//! - v1 sources and synonyms (KIP-226); v3 types and documentation (KIP-569). Version 0 has a field that says
//!   whether a value is the default; Kafka does not set it any more. Values of secrets, and of names that Kafka does not know, are null.
//! - A resource that is named twice is described once; Kafka repeats itself, which no client can tell.
//! - A resource of an unknown type fails all of them, as in Kafka 3.9 `ConfigHelper`.

use std::collections::BTreeSet;

use super::configs::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, Refusal, TOPIC};
use super::distinct::Distinct;
use super::metadata;
use super::{Exchange, Handler, Unanswered};
use crate::base::log_levels;
use crate::config::describe::{self, ConfigEntry};
use crate::local::Local;
use crate::platform::Platform;
use crate::protocol::ErrorCode;
use crate::protocol::message::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResponse,
    DescribeConfigsResult, DescribeConfigsSynonym,
};

/// About what one response may take. A resource has some hundred entries, for a name of a few bytes; and the words with
/// which all of a request are refused hold one of its names.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// About what an entry takes, with its synonyms.
const ENTRY_BYTES: usize = 320;

/// About what the answer to a request of so many bytes takes.
pub fn answer_bytes(body_bytes: u64) -> u64 {
    /// The shortest resource.
    const RESOURCE_BYTES_MIN: u64 = 8;
    const RESOURCE_ENTRIES: u64 = 64;
    (body_bytes / RESOURCE_BYTES_MIN * RESOURCE_ENTRIES * ENTRY_BYTES as u64).min(ANSWER_BYTES_MAX as u64)
}

pub struct DescribeConfigs;

impl<P: Platform> Handler<P> for DescribeConfigs {
    async fn handle(mut exchange: Exchange<P>) -> Result<(), Unanswered> {
        let request: DescribeConfigsRequest =
            exchange.decode_for(|_, request_bytes| answer_bytes(request_bytes)).await?;
        let response = answer(&exchange.local, request);
        exchange.reply(&response).await
    }
}

fn answer<P: Platform>(local: &Local<P>, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let odd = request.resources.iter().find_map(|resource| {
        let name = unexpected_type(resource.resource_type)?;
        Some(format!("Unexpected resource type {name} for resource {}", resource.resource_name))
    });
    let mut room = ANSWER_BYTES_MAX;
    let mut named = Distinct::with_capacity(request.resources.len());
    let once =
        request.resources.iter().filter(|resource| named.is_new((resource.resource_type, &*resource.resource_name)));
    let results = once.map(|resource| {
        let entries = match &odd {
            Some(message) => Err(Refusal::request(message.as_str())),
            None => find(local, resource),
        };
        let bytes = match &entries {
            Ok(entries) => entries.len() * ENTRY_BYTES,
            Err(refusal) => refusal.message.len(),
        };
        let entries = match room.checked_sub(bytes) {
            Some(left) => {
                room = left;
                entries
            }
            None => Err(Refusal::request("This request asks for more than one response has.")),
        };
        describe_resource(&request, resource, entries)
    });
    DescribeConfigsResponse { results: results.collect(), ..DescribeConfigsResponse::default() }
}

/// Kafka's name of a type that can't be described.
fn unexpected_type(resource_type: i8) -> Option<&'static str> {
    match resource_type {
        TOPIC | BROKER | BROKER_LOGGER | CLIENT_METRICS => None,
        GROUP => Some("GROUP"),
        _ => Some("UNKNOWN"),
    }
}

/// The settings that are asked for.
fn find<P: Platform>(local: &Local<P>, resource: &DescribeConfigsResource) -> Result<Vec<ConfigEntry>, Refusal> {
    let (image, name) = (local.image(), &*resource.resource_name);
    let mut entries = match resource.resource_type {
        TOPIC => {
            if !metadata::is_valid_name(name) {
                let message = format!("Topic name is invalid: '{name}'");
                return Err(Refusal::new(ErrorCode::InvalidTopicException, message));
            }
            let topic = image.topic(name).ok_or_else(|| Refusal::new(ErrorCode::UnknownTopicOrPartition, ""))?;
            describe::topic(&topic.config, &image.dynamic)
        }
        BROKER if name.is_empty() => describe::all_brokers(&image.dynamic),
        BROKER => {
            check_broker_id(local, name, ", expected {} or empty string, but received ")?;
            describe::broker(&image.dynamic)
        }
        BROKER_LOGGER if name.is_empty() => return Err(Refusal::request("Broker id must not be empty")),
        BROKER_LOGGER => {
            check_broker_id(local, name, ", expected {} but received ")?;
            log_levels::all().into_iter().map(|(logger, level)| describe::logger(logger, level.name())).collect()
        }
        _ if name.is_empty() => {
            return Err(Refusal::request("Client metrics subscription name must not be empty"));
        }
        _ => return Err(Refusal::request("Config type client-metrics is only supported on KRaft clusters")),
    };
    if let Some(keys) = resource.configuration_keys.as_deref().filter(|keys| !keys.is_empty()) {
        let keys: BTreeSet<&str> = keys.iter().map(String::as_str).collect();
        entries.retain(|entry| keys.contains(&*entry.name));
    }
    Ok(entries)
}

/// `words` are Kafka's between "Unexpected broker id" and the name, with the broker's id for `{}`.
fn check_broker_id<P: Platform>(local: &Local<P>, name: &str, words: &str) -> Result<(), Refusal> {
    let id = local.config.broker_id.0;
    match name.parse::<i32>() {
        Ok(named) if named == id => Ok(()),
        Ok(_) => Err(Refusal::request(format!("Unexpected broker id{}{name}", words.replace("{}", &id.to_string())))),
        Err(_) => Err(Refusal::request(format!("Broker id must be an integer, but it is: {name}"))),
    }
}

fn describe_resource(
    request: &DescribeConfigsRequest,
    resource: &DescribeConfigsResource,
    entries: Result<Vec<ConfigEntry>, Refusal>,
) -> DescribeConfigsResult {
    let result = DescribeConfigsResult {
        resource_type: resource.resource_type,
        resource_name: resource.resource_name.clone(),
        ..DescribeConfigsResult::default()
    };
    match entries {
        Ok(entries) => {
            let configs = entries.into_iter().map(|entry| describe_entry(request, entry)).collect();
            DescribeConfigsResult { configs, ..result }
        }
        Err(Refusal { code, message }) => {
            DescribeConfigsResult { error_code: code.code(), error_message: Some(message), ..result }
        }
    }
}

fn describe_entry(request: &DescribeConfigsRequest, entry: ConfigEntry) -> DescribeConfigsResourceResult {
    let synonyms = entry.synonyms.into_iter().filter(|_| request.include_synonyms);
    let synonym = |synonym: crate::config::dynamic::Synonym| DescribeConfigsSynonym {
        name: synonym.name,
        value: Some(synonym.value).filter(|_| !entry.is_sensitive),
        source: synonym.source as i8,
    };
    DescribeConfigsResourceResult {
        name: entry.name,
        value: entry.value,
        read_only: entry.read_only,
        config_source: entry.source as i8,
        is_sensitive: entry.is_sensitive,
        synonyms: synonyms.map(synonym).collect(),
        config_type: entry.config_type as i8,
        documentation: entry.documentation.filter(|_| request.include_documentation).map(str::to_owned),
        ..DescribeConfigsResourceResult::default()
    }
}
