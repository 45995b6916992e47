//! Kafka 3.9's paths and values in the tree (`ZkData.scala`), both ways.
//!
//! Values are JSON of Kafka's versions; reading accepts older versions and unknown keys as Kafka does. What can't be
//! read is an error that names the path, never a default. A value that is read and written again keeps the keys that this
//! code does not know ([`Others`]): a newer version's, or those of what this broker has no part in yet.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::base::ids::{BrokerId, LeaderEpoch, TopicId};
use crate::base::time::WallMs;
use crate::config::Endpoint;

use super::inputs::BrokerImage;
use super::proposal::{ConfigMap, ProducerIdBlock};

pub const CONTROLLER: &str = "/controller";
pub const CONTROLLER_EPOCH: &str = "/controller_epoch";
pub const CLUSTER_ID: &str = "/cluster/id";
/// There while a cluster is moved to KRaft, and after.
pub const MIGRATION: &str = "/migration";
pub const BROKER_IDS: &str = "/brokers/ids";
pub const TOPICS: &str = "/brokers/topics";
pub const TOPIC_CONFIGS: &str = "/config/topics";
pub const BROKER_CONFIGS: &str = "/config/brokers";
/// The node of the settings of all brokers, beside those of each.
pub const ALL_BROKERS: &str = "<default>";
pub const CONFIG_CHANGES: &str = "/config/changes";
pub const DELETE_TOPICS: &str = "/admin/delete_topics";
pub const LATEST_PRODUCER_ID_BLOCK: &str = "/latest_producer_id_block";

/// Made at start if missing, parents first (Kafka 3.9 `ZkData.PersistentZkPaths` and the parents ZooKeeper asks for).
pub const PERSISTENT_PATHS: [&str; 19] = [
    "/admin",
    DELETE_TOPICS,
    "/brokers",
    BROKER_IDS,
    "/brokers/seqid",
    TOPICS,
    "/cluster",
    "/config",
    BROKER_CONFIGS,
    CONFIG_CHANGES,
    "/config/client-metrics",
    "/config/clients",
    "/config/ips",
    TOPIC_CONFIGS,
    "/config/users",
    "/consumers",
    "/isr_change_notification",
    LATEST_PRODUCER_ID_BLOCK,
    "/log_dir_event_notification",
];

/// A node whose data is not what its path promises.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the value of {path} can't be read: {reason}")]
pub struct BadValue {
    pub path: String,
    pub reason: String,
}

/// The keys of a value that this code does not know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Others(Map<String, Value>);

impl Others {
    fn of(mut object: Map<String, Value>, known: &[&str]) -> Others {
        known.iter().for_each(|key| drop(object.remove(*key)));
        Others(object)
    }

    /// A value of these keys and `known` ones.
    fn with(&self, known: Value) -> Vec<u8> {
        let mut object = self.0.clone();
        if let Value::Object(known) = known {
            object.extend(known);
        }
        bytes(Value::Object(object))
    }
}

pub fn broker_path(id: BrokerId) -> String {
    format!("{BROKER_IDS}/{}", id.0)
}

pub fn topic_path(topic: &str) -> String {
    format!("{TOPICS}/{topic}")
}

pub fn partitions_path(topic: &str) -> String {
    format!("{TOPICS}/{topic}/partitions")
}

pub fn partition_path(topic: &str, partition: i32) -> String {
    format!("{TOPICS}/{topic}/partitions/{partition}")
}

pub fn partition_state_path(topic: &str, partition: i32) -> String {
    format!("{TOPICS}/{topic}/partitions/{partition}/state")
}

pub fn topic_config_path(topic: &str) -> String {
    format!("{TOPIC_CONFIGS}/{topic}")
}

/// `name`: a broker id, or [`ALL_BROKERS`].
pub fn broker_config_path(name: &str) -> String {
    format!("{BROKER_CONFIGS}/{name}")
}

/// Where notices of changed settings are made; the tree numbers them.
pub fn config_change_path() -> String {
    format!("{CONFIG_CHANGES}/config_change_")
}

pub fn delete_topic_path(topic: &str) -> String {
    format!("{DELETE_TOPICS}/{topic}")
}

/// The value of `/controller`, version 2.
pub fn encode_controller(broker: BrokerId, wall: WallMs) -> Vec<u8> {
    bytes(json!({"version": 2, "brokerid": broker.0, "timestamp": wall.to_string(), "kraftControllerEpoch": -1}))
}

/// Who is controller; any version.
pub fn decode_controller(data: &[u8]) -> Result<BrokerId, BadValue> {
    let object = Object::parse(CONTROLLER, data)?;
    Ok(BrokerId(object.i32("brokerid")?))
}

/// Whether a KRaft controller has taken `/controller`; values before version 2 don't know of any.
pub fn is_kraft_controller(data: &[u8]) -> Result<bool, BadValue> {
    let object = Object::parse(CONTROLLER, data)?;
    match object.value.contains_key("kraftControllerEpoch") {
        true => Ok(object.i32("kraftControllerEpoch")? > 0),
        false => Ok(false),
    }
}

/// `/controller_epoch` holds plain decimal digits.
pub fn encode_controller_epoch(epoch: i32) -> Vec<u8> {
    epoch.to_string().into_bytes()
}

pub fn decode_controller_epoch(data: &[u8]) -> Result<i32, BadValue> {
    let text = std::str::from_utf8(data).ok().and_then(|text| text.trim().parse().ok());
    text.ok_or_else(|| bad(CONTROLLER_EPOCH, "it is no number"))
}

/// The value of `/cluster/id`; its version is a string.
pub fn encode_cluster_id(id: &str) -> Vec<u8> {
    bytes(json!({"version": "1", "id": id}))
}

pub fn decode_cluster_id(data: &[u8]) -> Result<String, BadValue> {
    Ok(Object::parse(CLUSTER_ID, data)?.text("id")?.to_owned())
}

/// The value of `/brokers/ids/N`, version 5. All listeners are PLAINTEXT ones.
pub fn encode_broker(broker: &BrokerImage, wall: WallMs) -> Vec<u8> {
    let endpoints: Vec<String> = broker.endpoints.iter().map(Endpoint::to_string).collect();
    let protocols: Map<String, Value> =
        broker.endpoints.iter().map(|endpoint| (endpoint.listener.to_string(), "PLAINTEXT".into())).collect();
    let first = broker.endpoints.first();
    let mut value = json!({
        "version": 5,
        "host": first.map(|endpoint| endpoint.host.to_string()),
        "port": first.map_or(-1, |endpoint| i32::from(endpoint.port)),
        "endpoints": endpoints,
        "listener_security_protocol_map": protocols,
        "jmx_port": -1,
        "timestamp": wall.to_string(),
        "features": {},
    });
    if let Some(rack) = &broker.rack {
        value["rack"] = rack.to_string().into();
    }
    bytes(value)
}

/// Reads versions 1 to 5; version 1 has host and port only.
pub fn decode_broker(id: BrokerId, data: &[u8]) -> Result<BrokerImage, BadValue> {
    let path = broker_path(id);
    let object = Object::parse(&path, data)?;
    let version = object.i32("version")?;
    if !(1..=5).contains(&version) {
        return Err(bad(&path, format!("version {version} is not known")));
    }
    let endpoints = if version == 1 {
        let port = u16::try_from(object.i32("port")?).map_err(|_| bad(&path, "the port is out of range"))?;
        vec![Endpoint { listener: "PLAINTEXT".into(), host: object.text("host")?.into(), port }]
    } else {
        let list = object.field("endpoints")?.as_array().ok_or_else(|| bad(&path, "endpoints is no list"))?;
        list.iter()
            .map(|entry| entry.as_str().and_then(Endpoint::parse).ok_or_else(|| bad(&path, "an endpoint is malformed")))
            .collect::<Result<_, _>>()?
    };
    let rack = object.value.get("rack").and_then(Value::as_str).map(Arc::from);
    Ok(BrokerImage { id, endpoints, rack })
}

/// What a reassignment adds and removes; empty without one.
const REASSIGNED: [&str; 2] = ["adding_replicas", "removing_replicas"];

/// What `/brokers/topics/T` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicAssignment {
    /// [`TopicId::ZERO`] in trees older than topic ids.
    pub id: TopicId,
    /// Replicas by partition, the preferred leader first.
    pub partitions: BTreeMap<i32, Vec<BrokerId>>,
    /// A reassignment under way among them.
    pub others: Others,
}

/// The value of `/brokers/topics/T`, version 3.
pub fn encode_topic(assignment: &TopicAssignment) -> Vec<u8> {
    let partitions: Map<String, Value> = assignment
        .partitions
        .iter()
        .map(|(partition, replicas)| (partition.to_string(), broker_list(replicas)))
        .collect();
    let mut others = assignment.others.clone();
    for reassigned in REASSIGNED {
        others.0.entry(reassigned).or_insert_with(|| json!({}));
    }
    others.with(json!({"version": 3, "topic_id": assignment.id.to_string(), "partitions": partitions}))
}

pub fn decode_topic(topic: &str, data: &[u8]) -> Result<TopicAssignment, BadValue> {
    let path = topic_path(topic);
    let object = Object::parse(&path, data)?;
    let id = match object.value.get("topic_id") {
        None => TopicId::ZERO,
        Some(text) => text.as_str().and_then(TopicId::parse).ok_or_else(|| bad(&path, "topic_id is no topic id"))?,
    };
    let map = object.field("partitions")?.as_object().ok_or_else(|| bad(&path, "partitions is no object"))?;
    let mut partitions = BTreeMap::new();
    for (partition, replicas) in map {
        let partition: i32 = partition
            .parse()
            .ok()
            .filter(|number| *number >= 0)
            .ok_or_else(|| bad(&path, "a partition is no number"))?;
        partitions.insert(partition, brokers(&path, replicas)?);
    }
    let mut others = Others::of(object.value, &["version", "topic_id", "partitions"]);
    others.0.retain(|key, value| !REASSIGNED.contains(&&**key) || value.as_object().is_none_or(|map| !map.is_empty()));
    Ok(TopicAssignment { id, partitions, others })
}

/// What `.../partitions/P/state` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionState {
    /// -1: none.
    pub leader: BrokerId,
    pub leader_epoch: LeaderEpoch,
    pub isr: Vec<BrokerId>,
    /// The controller that wrote it.
    pub controller_epoch: i32,
    pub others: Others,
}

pub fn encode_partition_state(state: &PartitionState) -> Vec<u8> {
    state.others.with(json!({
        "version": 1,
        "leader": state.leader.0,
        "leader_epoch": state.leader_epoch,
        "controller_epoch": state.controller_epoch,
        "isr": broker_list(&state.isr),
    }))
}

pub fn decode_partition_state(topic: &str, partition: i32, data: &[u8]) -> Result<PartitionState, BadValue> {
    let path = partition_state_path(topic, partition);
    let object = Object::parse(&path, data)?;
    Ok(PartitionState {
        leader: BrokerId(object.i32("leader")?),
        leader_epoch: object.i32("leader_epoch")?,
        isr: brokers(&path, object.field("isr")?)?,
        controller_epoch: object.i32("controller_epoch")?,
        others: Others::of(object.value, &["version", "leader", "leader_epoch", "controller_epoch", "isr"]),
    })
}

/// The value of `/config/topics/T` and its like.
pub fn encode_config(config: &ConfigMap, others: &Others) -> Vec<u8> {
    others.with(json!({"version": 1, "config": config}))
}

/// `path` names the entity, for the error only.
pub fn decode_config(path: &str, data: &[u8]) -> Result<ConfigMap, BadValue> {
    decode_whole_config(path, data).map(|(config, _)| config)
}

/// The same, for whoever writes it again.
pub fn decode_whole_config(path: &str, data: &[u8]) -> Result<(ConfigMap, Others), BadValue> {
    let object = Object::parse(path, data)?;
    let map = object.field("config")?.as_object().ok_or_else(|| bad(path, "config is no object"))?;
    let text = |(key, value): (&String, &Value)| {
        let text = value.as_str().ok_or_else(|| bad(path, format!("the value of {key} is no text")))?;
        Ok((key.clone(), text.to_owned()))
    };
    let config = map.iter().map(text).collect::<Result<_, BadValue>>()?;
    Ok((config, Others::of(object.value, &["version", "config"])))
}

/// The value of a notice below `/config/changes`, version 2. `entity` is the node's path below `/config`.
pub fn encode_config_change(entity: &str) -> Vec<u8> {
    bytes(json!({"version": 2, "entity_path": entity}))
}

/// Whose settings a notice is about: the node's path below `/config`; versions 1 and 2.
pub fn decode_config_change(data: &[u8]) -> Result<String, BadValue> {
    let object = Object::parse(CONFIG_CHANGES, data)?;
    match object.i32("version")? {
        1 => Ok(format!("{}/{}", object.text("entity_type")?, object.text("entity_name")?)),
        2 => Ok(object.text("entity_path")?.to_owned()),
        other => Err(bad(CONFIG_CHANGES, format!("version {other} is not known"))),
    }
}

/// The value of `/latest_producer_id_block`; its ends are strings.
pub fn encode_producer_id_block(broker: BrokerId, block: ProducerIdBlock) -> Vec<u8> {
    bytes(json!({
        "version": 1,
        "broker": broker.0,
        "block_start": block.start.to_string(),
        "block_end": block.last.to_string(),
    }))
}

/// `None`: no block was ever taken (the node is made empty at start).
pub fn decode_producer_id_block(data: &[u8]) -> Result<Option<ProducerIdBlock>, BadValue> {
    if data.is_empty() {
        return Ok(None);
    }
    let object = Object::parse(LATEST_PRODUCER_ID_BLOCK, data)?;
    let end = |key: &str| {
        let text = object.text(key)?;
        text.parse::<i64>()
            .ok()
            .filter(|number| *number >= 0)
            .ok_or_else(|| bad(LATEST_PRODUCER_ID_BLOCK, format!("{key} is no producer id")))
    };
    Ok(Some(ProducerIdBlock { start: end("block_start")?, last: end("block_end")? }))
}

/// For the fuzz tests: any bytes are a value or an error.
pub fn fuzz_znodes(data: &[u8]) {
    let _ = decode_controller(data);
    let _ = is_kraft_controller(data);
    let _ = decode_config_change(data);
    let _ = decode_controller_epoch(data);
    let _ = decode_cluster_id(data);
    let _ = decode_broker(BrokerId(1), data);
    let _ = decode_partition_state("t", 0, data);
    let _ = decode_config(TOPIC_CONFIGS, data);
    let _ = decode_producer_id_block(data);
    if let Ok(topic) = decode_topic("t", data) {
        assert_eq!(decode_topic("t", &encode_topic(&topic)).as_ref(), Ok(&topic), "what was read can be written");
    }
}

/// A JSON object and the path it came from.
struct Object<'p> {
    path: &'p str,
    value: Map<String, Value>,
}

impl<'p> Object<'p> {
    fn parse(path: &'p str, data: &[u8]) -> Result<Object<'p>, BadValue> {
        match serde_json::from_slice(data) {
            Ok(Value::Object(value)) => Ok(Object { path, value }),
            Ok(_) => Err(bad(path, "it is no JSON object")),
            Err(error) => Err(bad(path, error)),
        }
    }

    fn field(&self, key: &str) -> Result<&Value, BadValue> {
        self.value.get(key).ok_or_else(|| bad(self.path, format!("{key} is missing")))
    }

    fn i32(&self, key: &str) -> Result<i32, BadValue> {
        let number = self.field(key)?.as_i64().and_then(|number| i32::try_from(number).ok());
        number.ok_or_else(|| bad(self.path, format!("{key} is no 32-bit number")))
    }

    fn text(&self, key: &str) -> Result<&str, BadValue> {
        self.field(key)?.as_str().ok_or_else(|| bad(self.path, format!("{key} is no text")))
    }
}

fn bad(path: &str, reason: impl ToString) -> BadValue {
    BadValue { path: path.to_owned(), reason: reason.to_string() }
}

fn bytes(value: Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn broker_list(brokers: &[BrokerId]) -> Value {
    brokers.iter().map(|broker| broker.0).collect()
}

fn brokers(path: &str, value: &Value) -> Result<Vec<BrokerId>, BadValue> {
    let list = value.as_array().ok_or_else(|| bad(path, "a broker list is no list"))?;
    list.iter()
        .map(|id| {
            let id = id.as_i64().and_then(|id| i32::try_from(id).ok());
            id.map(BrokerId).ok_or_else(|| bad(path, "a broker id is no number"))
        })
        .collect()
}

#[cfg(test)]
mod tests;
