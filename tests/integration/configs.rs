//! Settings of topics, brokers and loggers, described and changed while the broker runs.

use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigSource as ClientSource, NewPartitions, ResourceSpecifier,
};
use rdkafka::client::DefaultClientContext;
use ringlog::protocol::message::alter_configs::{
    AlterConfigsRequest, AlterConfigsResource, AlterConfigsResponse, AlterableConfig,
};
use ringlog::protocol::message::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResponse,
    DescribeConfigsResult,
};
use ringlog::protocol::message::incremental_alter_configs::{self as incremental, IncrementalAlterConfigsResponse};
use ringlog::protocol::{ApiKey, ErrorCode};
use ringlog::record::batch::BatchBuilder;
use ringlog::record::compression::Codec;

use crate::server::{Server, data_path, directory};
use crate::wire::{Wire, ask};

const PRODUCE_VERSION: i16 = 9;
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const LOGGER: i8 = 8;
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;
/// The broker's id without settings.
const BROKER_ID: &str = "1";

type Told = (i16, Option<String>);
type Change<'c> = (&'c str, i8, Option<&'c str>);

/// Several resources in one request.
fn change_all(wire: &mut Wire, resources: &[(i8, &str, &[Change<'_>])], validate_only: bool) -> Vec<Told> {
    let resources = resources.iter().map(|(resource_type, name, changes)| incremental::AlterConfigsResource {
        resource_type: *resource_type,
        resource_name: (*name).to_owned(),
        configs: changes
            .iter()
            .map(|(name, operation, value)| incremental::AlterableConfig {
                name: (*name).to_owned(),
                config_operation: *operation,
                value: value.map(str::to_owned),
            })
            .collect(),
    });
    let request = incremental::IncrementalAlterConfigsRequest { resources: resources.collect(), validate_only };
    let response = ask!(wire, 1, request, IncrementalAlterConfigsResponse);
    response.responses.into_iter().map(|response| (response.error_code, response.error_message)).collect()
}

fn change(wire: &mut Wire, resource_type: i8, name: &str, changes: &[Change<'_>]) -> Told {
    change_all(wire, &[(resource_type, name, changes)], false).remove(0)
}

fn set(wire: &mut Wire, resource_type: i8, name: &str, key: &str, value: &str) {
    assert_eq!(change(wire, resource_type, name, &[(key, SET, Some(value))]), (0, None), "{key}={value}");
}

/// A value that the broker describes, and its source.
pub fn value_of_broker(wire: &mut Wire, name: &str) -> (Option<String>, i8) {
    value(wire, BROKER, BROKER_ID, name)
}

pub fn value_of_topic(wire: &mut Wire, topic: &str, name: &str) -> (Option<String>, i8) {
    value(wire, TOPIC, topic, name)
}

pub fn set_of_broker(wire: &mut Wire, key: &str, value: &str) {
    set(wire, BROKER, BROKER_ID, key, value);
}

pub fn set_of_topic(wire: &mut Wire, topic: &str, key: &str, value: &str) {
    set(wire, TOPIC, topic, key, value);
}

fn replace(wire: &mut Wire, resource_type: i8, name: &str, settings: &[(&str, Option<&str>)]) -> Told {
    let configs = settings
        .iter()
        .map(|(name, value)| AlterableConfig { name: (*name).to_owned(), value: value.map(str::to_owned) });
    let resource = AlterConfigsResource { resource_type, resource_name: name.to_owned(), configs: configs.collect() };
    let request = AlterConfigsRequest { resources: vec![resource], validate_only: false };
    let response = ask!(wire, 2, request, AlterConfigsResponse).responses.remove(0);
    (response.error_code, response.error_message)
}

fn describe(
    wire: &mut Wire,
    version: i16,
    resource_type: i8,
    name: &str,
    keys: Option<&[&str]>,
) -> DescribeConfigsResult {
    let resource = DescribeConfigsResource {
        resource_type,
        resource_name: name.to_owned(),
        configuration_keys: keys.map(|keys| keys.iter().map(|key| (*key).to_owned()).collect()),
    };
    let request = DescribeConfigsRequest {
        resources: vec![resource],
        include_synonyms: version >= 1,
        include_documentation: version >= 3,
    };
    let response = ask!(wire, version, request, DescribeConfigsResponse);
    response.results.into_iter().next().expect("one resource, one result")
}

fn one(wire: &mut Wire, resource_type: i8, name: &str, key: &str) -> DescribeConfigsResourceResult {
    let mut result = describe(wire, 4, resource_type, name, Some(&[key]));
    assert_eq!((result.error_code, result.configs.len()), (0, 1), "{key}");
    result.configs.remove(0)
}

/// Value and source.
fn value(wire: &mut Wire, resource_type: i8, name: &str, key: &str) -> (Option<String>, i8) {
    let config = one(wire, resource_type, name, key);
    (config.value, config.config_source)
}

fn batch(key: Option<&[u8]>, bytes: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Codec::None);
    builder.push(1_000, key, Some(&vec![b'v'; bytes]), &[]);
    builder.build().to_vec()
}

fn produce(wire: &mut Wire, topic: &str, bytes: usize) -> i16 {
    wire.produce(PRODUCE_VERSION, topic, 0, &batch(None, bytes)).error_code
}

#[test]
fn a_topic_lives_by_its_new_settings_from_the_answer_on_and_keeps_them_over_a_kill() {
    let directory = directory();
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    assert_eq!(wire.create_topic("t", 1), 0);
    let segments = || {
        let files = std::fs::read_dir(data_path(directory.path()).join("t-0")).expect("the log's directory");
        files.filter(|file| file.as_ref().expect("a file").file_name().to_string_lossy().ends_with(".log")).count()
    };
    for _ in 0..3 {
        assert_eq!(produce(&mut wire, "t", 500), 0);
    }
    assert_eq!(segments(), 1);
    set(&mut wire, TOPIC, "t", "segment.bytes", "1000");
    for _ in 0..3 {
        assert_eq!(produce(&mut wire, "t", 500), 0);
    }
    assert!(segments() >= 3, "{} segments", segments());

    set(&mut wire, TOPIC, "t", "max.message.bytes", "400");
    assert_eq!(produce(&mut wire, "t", 500), ErrorCode::MessageTooLarge as i16);
    assert_eq!(change(&mut wire, TOPIC, "t", &[("max.message.bytes", DELETE, None)]), (0, None));
    assert_eq!(produce(&mut wire, "t", 500), 0);

    let time = |wire: &mut Wire| wire.produce(PRODUCE_VERSION, "t", 0, &batch(None, 5)).log_append_time_ms;
    assert_eq!(time(&mut wire), -1);
    set(&mut wire, TOPIC, "t", "message.timestamp.type", "LogAppendTime");
    assert!(time(&mut wire) > 1_000);

    assert_eq!(change(&mut wire, TOPIC, "t", &[("cleanup.policy", APPEND, Some("compact"))]), (0, None));
    assert_eq!(value(&mut wire, TOPIC, "t", "cleanup.policy"), (Some("delete,compact".into()), 1));
    assert_eq!(produce(&mut wire, "t", 5), ErrorCode::InvalidRecord as i16, "records of compacted topics have keys");
    server.kill();

    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    assert_eq!(value(&mut wire, TOPIC, "t", "segment.bytes"), (Some("1000".into()), 1));
    assert_eq!(produce(&mut wire, "t", 5), ErrorCode::InvalidRecord as i16);
    assert_eq!(change(&mut wire, TOPIC, "t", &[("cleanup.policy", SUBTRACT, Some("compact"))]), (0, None));
    assert_eq!(produce(&mut wire, "t", 5), 0);
    assert_eq!(replace(&mut wire, TOPIC, "t", &[("retention.ms", Some("5"))]), (0, None));
    assert_eq!(value(&mut wire, TOPIC, "t", "retention.ms"), (Some("5".into()), 1));
    assert_eq!(value(&mut wire, TOPIC, "t", "segment.bytes"), (Some("1073741824".into()), 5), "the rest was reset");
}

#[test]
fn settings_that_cannot_be_are_refused_with_kafkas_codes_and_words() {
    let directory = directory();
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    assert_eq!(wire.create_topic("t", 1), 0);
    let refused = |wire: &mut Wire, resource_type, name: &str, changes: &[Change<'_>]| {
        let (code, message) = change(wire, resource_type, name, changes);
        (ErrorCode::from_code(code).expect("a code"), message.unwrap_or_default())
    };
    let cases: &[(i8, &str, &[Change<'_>], ErrorCode, &str)] = &[
        (TOPIC, "none", &[], ErrorCode::UnknownTopicOrPartition, "The topic 'none' does not exist."),
        (TOPIC, "", &[], ErrorCode::InvalidRequest, "Default topic resources are not allowed."),
        (TOPIC, "t", &[("a.b", SET, Some("1"))], ErrorCode::InvalidConfig, "Unknown topic config name: a.b"),
        (
            TOPIC,
            "t",
            &[("segment.bytes", SET, Some("13"))],
            ErrorCode::InvalidConfig,
            "Invalid config value for resource ConfigResource(type=TOPIC, name='t'): Invalid value 13 for \
             configuration segment.bytes: Value must be at least 14",
        ),
        (
            TOPIC,
            "t",
            &[("a", SET, None), ("b", SET, None)],
            ErrorCode::InvalidRequest,
            "Null value not supported for : a, b",
        ),
        (
            TOPIC,
            "t",
            &[("retention.ms", SET, Some("1")), ("retention.ms", DELETE, None)],
            ErrorCode::InvalidRequest,
            "Error due to duplicate config keys",
        ),
        (
            TOPIC,
            "t",
            &[("retention.ms", APPEND, Some("1"))],
            ErrorCode::InvalidConfig,
            "Config value append is not allowed for config key: retention.ms",
        ),
        (TOPIC, "t", &[("retention.ms", 9, Some("1"))], ErrorCode::InvalidRequest, "Unknown operations type 9"),
        (
            TOPIC,
            "t",
            &[("min.compaction.lag.ms", SET, Some("9")), ("max.compaction.lag.ms", SET, Some("8"))],
            ErrorCode::InvalidConfig,
            "conflict topic config setting min.compaction.lag.ms (9) > max.compaction.lag.ms (8)",
        ),
        (BROKER, "7", &[], ErrorCode::InvalidRequest, "Unexpected broker id, expected 1, but received 7"),
        (BROKER, "x", &[], ErrorCode::InvalidRequest, "Node id must be an integer, but it is: x"),
        (
            BROKER,
            "1",
            &[("num.partitions", SET, Some("2"))],
            ErrorCode::InvalidRequest,
            "Cannot update these configs dynamically: Set(num.partitions)",
        ),
        (
            BROKER,
            "",
            &[("listeners", SET, Some("PLAINTEXT://:1"))],
            ErrorCode::InvalidRequest,
            "Cannot update these configs at default cluster level, broker id must be specified: Set(listeners)",
        ),
        (
            BROKER,
            "1",
            &[("num.io.threads", SET, Some("99"))],
            ErrorCode::InvalidRequest,
            "Invalid dynamic configuration: num.io.threads can go from 8 to anything from 4 to 16, not to 99",
        ),
        (3, "t", &[], ErrorCode::InvalidRequest, "Unknown resource type 3"),
        (LOGGER, "1", &[("kafka.x", SET, Some("INFO"))], ErrorCode::InvalidConfig, "Logger kafka.x does not exist!"),
        (
            LOGGER,
            "1",
            &[("root", DELETE, None)],
            ErrorCode::InvalidRequest,
            "Removing the log level of the root logger is not allowed",
        ),
        (
            LOGGER,
            "1",
            &[("root", SET, Some("LOUD"))],
            ErrorCode::InvalidConfig,
            "Cannot set the log level of root to LOUD as it is not a supported log level. Valid log levels are DEBUG, \
             ERROR, FATAL, INFO, TRACE, WARN",
        ),
    ];
    for (resource_type, name, changes, code, message) in cases {
        let found = refused(&mut wire, *resource_type, name, changes);
        assert_eq!(found, (*code, (*message).to_owned()), "{resource_type} {name} {changes:?}");
    }
    let (code, message) = replace(&mut wire, LOGGER, "1", &[]);
    assert_eq!((code, message.as_deref()), (42, Some("Unknown resource type 8")));

    let good: &[Change<'_>] = &[("retention.ms", SET, Some("5"))];
    let told = change_all(&mut wire, &[(TOPIC, "t", good), (TOPIC, "t", good), (BROKER, "1", &[])], false);
    let twice = (42, Some("Each resource must appear at most once.".to_owned()));
    assert_eq!(told, [twice.clone(), twice, (0, None)]);
    assert_eq!(change_all(&mut wire, &[(TOPIC, "t", good)], true), [(0, None)]);
    assert_eq!(value(&mut wire, TOPIC, "t", "retention.ms").1, 5, "nothing of all this was written");
    // One that can't be does not stop the others.
    let told = change_all(&mut wire, &[(TOPIC, "none", good), (TOPIC, "t", good)], false);
    assert_eq!((told[0].0, told[1].0), (3, 0));
    assert_eq!(value(&mut wire, TOPIC, "t", "retention.ms"), (Some("5".into()), 1));
}

#[test]
fn a_brokers_settings_reach_its_topics_at_once_by_rank_and_over_a_restart() {
    let directory = directory();
    let settings = ["message.max.bytes=1000"];
    let server = Server::start_with(directory.path(), &settings);
    let mut wire = Wire::connect(server.address);
    assert_eq!((wire.create_topic("follows", 1), wire.create_topic("own", 1)), (0, 0));
    set(&mut wire, TOPIC, "own", "max.message.bytes", "5000");
    let key = "max.message.bytes";
    assert_eq!(value(&mut wire, TOPIC, "follows", key), (Some("1000".into()), 4));
    assert_eq!(produce(&mut wire, "follows", 2_000), ErrorCode::MessageTooLarge as i16);

    set(&mut wire, BROKER, "", "message.max.bytes", "3000");
    assert_eq!(value(&mut wire, TOPIC, "follows", key), (Some("3000".into()), 3));
    assert_eq!((produce(&mut wire, "follows", 2_000), produce(&mut wire, "own", 4_000)), (0, 0));
    set(&mut wire, BROKER, BROKER_ID, "message.max.bytes", "1500");
    assert_eq!(value(&mut wire, TOPIC, "follows", key), (Some("1500".into()), 2));
    assert_eq!(produce(&mut wire, "follows", 2_000), ErrorCode::MessageTooLarge as i16);
    server.stop();

    let server = Server::start_with(directory.path(), &settings);
    let mut wire = Wire::connect(server.address);
    assert_eq!(produce(&mut wire, "follows", 2_000), ErrorCode::MessageTooLarge as i16);
    let names = ["message.max.bytes", "log.retention.ms"];
    let described = describe(&mut wire, 4, BROKER, BROKER_ID, Some(&names));
    let described: Vec<_> = described.configs.iter().map(|config| (&*config.name, config.value.as_deref())).collect();
    assert_eq!(described, [("log.retention.ms", None), ("message.max.bytes", Some("1500"))]);
    let config = one(&mut wire, BROKER, BROKER_ID, "message.max.bytes");
    let sources: Vec<i8> = config.synonyms.iter().map(|synonym| synonym.source).collect();
    assert_eq!((sources, config.read_only, config.config_type), (vec![2, 3, 4, 5], false, 3));
    assert!(config.documentation.is_some_and(|text| !text.is_empty()));
    let defaults = describe(&mut wire, 4, BROKER, "", None);
    let defaults: Vec<_> = defaults.configs.iter().map(|config| (&*config.name, config.config_source)).collect();
    assert_eq!(defaults, [("message.max.bytes", 3)]);

    assert_eq!(replace(&mut wire, BROKER, BROKER_ID, &[]), (0, None));
    assert_eq!(produce(&mut wire, "follows", 2_000), 0);
    assert_eq!(change(&mut wire, BROKER, "", &[("message.max.bytes", DELETE, None)]), (0, None));
    assert_eq!(value(&mut wire, TOPIC, "follows", key), (Some("1000".into()), 4));
}

#[test]
fn a_topic_that_asks_for_more_replicas_in_sync_than_it_has_serves_producers_that_wait_for_all() {
    let directory = directory();
    let server = Server::start_with(directory.path(), &["min.insync.replicas=2"]);
    let mut wire = Wire::connect(server.address);
    assert_eq!(wire.create_topic("copied", 1), 0);
    assert_eq!(value(&mut wire, TOPIC, "copied", "min.insync.replicas"), (Some("2".into()), 4));
    assert_eq!(produce(&mut wire, "copied", 10), 0);
    set(&mut wire, TOPIC, "copied", "min.insync.replicas", "3");
    assert_eq!(produce(&mut wire, "copied", 10), 0);
}

#[test]
fn limits_of_connections_change_while_the_broker_runs() {
    let directory = directory();
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    set(&mut wire, BROKER, "", "max.connections.per.ip", "1");
    let mut second = Wire::connect(server.address);
    let asked = second.send(ApiKey::ApiVersions, 0, |_| Ok(()));
    assert!(asked.is_err() || second.receive().is_err(), "the second connection is closed");
    assert_eq!(change(&mut wire, BROKER, "", &[("max.connections.per.ip", DELETE, None)]), (0, None));
    let mut third = Wire::connect(server.address);
    third.send(ApiKey::ApiVersions, 0, |_| Ok(())).expect("sent");
    third.receive().expect("answered");
}

#[test]
fn a_limit_that_shuts_everybody_out_is_refused_and_one_from_elsewhere_is_overridden_at_the_start() {
    let directory = directory();
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    for name in ["max.connections", "max.connections.per.ip", "max.connection.creation.rate", "log.retention.ms"] {
        for scope in ["", BROKER_ID] {
            let told = change(&mut wire, BROKER, scope, &[(name, SET, Some("0"))]);
            assert_eq!(told.0, ErrorCode::InvalidRequest as i16, "{name}: {told:?}");
        }
    }
    // Kafka takes this, and so does ringlog: nobody can come in again.
    let nobody: &[Change<'_>] =
        &[("max.connections.per.ip", SET, Some("0")), ("max.connections.per.ip.overrides", SET, Some("10.0.0.1:5"))];
    assert_eq!(change(&mut wire, BROKER, "", nobody), (0, None));
    server.stop();

    let is_served = |server: &Server| {
        let mut wire = Wire::connect(server.address);
        wire.send(ApiKey::ApiVersions, 0, |_| Ok(())).is_ok() && wire.receive().is_ok()
    };
    let server = Server::start(directory.path());
    assert!(!is_served(&server), "not over a restart either");
    server.stop();

    let server = Server::start_with_flags(directory.path(), &["--override", "max.connections.per.ip=100"]);
    assert!(is_served(&server));
    assert!(server.stderr().contains("--override"), "{}", server.stderr());
    let mut wire = Wire::connect(server.address);
    let config = one(&mut wire, BROKER, BROKER_ID, "max.connections.per.ip");
    let synonyms: Vec<_> = config.synonyms.iter().map(|synonym| (synonym.value.as_deref(), synonym.source)).collect();
    assert_eq!((config.value.as_deref(), config.config_source), (Some("100"), 4));
    assert_eq!(synonyms, [(Some("100"), 4), (Some("0"), 3), (Some("2147483647"), 5)]);
    let mended: &[Change<'_>] =
        &[("max.connections.per.ip", DELETE, None), ("max.connections.per.ip.overrides", DELETE, None)];
    assert_eq!(change(&mut wire, BROKER, "", mended), (0, None));
    server.stop();

    let server = Server::start(directory.path());
    assert!(is_served(&server), "and without the override, once the setting is mended");
    server.stop();
}

#[test]
fn everything_is_described_in_every_version_and_secrets_are_not() {
    let directory = directory();
    let server = Server::start_with(directory.path(), &["ssl.key.password=hunter2", "super.users=User:a"]);
    let mut wire = Wire::connect(server.address);
    assert_eq!(wire.create_topic("t", 1), 0);
    for version in 0..=4 {
        let broker = describe(&mut wire, version, BROKER, BROKER_ID, None);
        assert_eq!(broker.error_code, 0);
        assert!(broker.configs.len() > 300, "{} settings", broker.configs.len());
        let find = |name: &str| broker.configs.iter().find(|config| config.name == name).expect("it is described");
        for secret in ["ssl.key.password", "super.users"] {
            assert_eq!((&find(secret).value, find(secret).is_sensitive), (&None, true), "{secret}");
            assert!(find(secret).synonyms.iter().all(|synonym| synonym.value.is_none()));
        }
        assert!(find("num.partitions").read_only && !find("num.io.threads").read_only);
        assert!(!find("num.io.threads").is_default);
        assert_eq!(describe(&mut wire, version, TOPIC, "t", None).configs.len(), 36);
    }
    let absent = describe(&mut wire, 4, TOPIC, "none", None);
    assert_eq!((absent.error_code, absent.configs.len()), (ErrorCode::UnknownTopicOrPartition as i16, 0));
    let bad = describe(&mut wire, 4, TOPIC, "no/name", None);
    assert_eq!(bad.error_code, ErrorCode::InvalidTopicException as i16);
    for (resource_type, name, message) in [
        (BROKER, "7", "Unexpected broker id, expected 1 or empty string, but received 7"),
        (BROKER, "x", "Broker id must be an integer, but it is: x"),
        (LOGGER, "", "Broker id must not be empty"),
        (LOGGER, "7", "Unexpected broker id, expected 1 but received 7"),
        (99, "x", "Unexpected resource type UNKNOWN for resource x"),
    ] {
        let result = describe(&mut wire, 4, resource_type, name, None);
        assert_eq!((result.error_code, result.error_message.as_deref()), (42, Some(message)));
    }
}

#[test]
fn levels_of_loggers_change_what_the_broker_says() {
    let directory = directory();
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    assert_eq!(value(&mut wire, LOGGER, BROKER_ID, "root"), (Some("INFO".into()), 6));
    set(&mut wire, LOGGER, BROKER_ID, "ringlog::storage", "TRACE");
    set(&mut wire, LOGGER, BROKER_ID, "root", "ERROR");
    assert_eq!(value(&mut wire, LOGGER, BROKER_ID, "ringlog::storage"), (Some("TRACE".into()), 6));
    assert_eq!(value(&mut wire, LOGGER, BROKER_ID, "ringlog::net"), (Some("ERROR".into()), 6));
    // Said at the level of information, before and after.
    let mut nonsense = Wire::connect(server.address);
    nonsense.send_frame(&[0xff; 20]).expect("sent");
    assert!(nonsense.receive().is_err(), "closed");
    let noise = "does not speak Kafka's protocol";
    let is_refused = |text: String| text.contains(noise) || text.contains("can't be answered");
    assert!(!is_refused(server.stderr()));
    set(&mut wire, LOGGER, BROKER_ID, "root", "INFO");
    let mut nonsense = Wire::connect(server.address);
    nonsense.send_frame(&[0xff; 20]).expect("sent");
    assert!(nonsense.receive().is_err(), "closed");
    assert!(is_refused(server.stderr()), "{}", server.stderr());
}

#[test]
fn librdkafkas_admin_client_reads_and_changes_settings_and_adds_partitions() {
    let directory = directory();
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    assert_eq!(wire.create_topic("orders", 1), 0);
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", server.address.to_string());
    let admin: AdminClient<DefaultClientContext> = config.create().expect("an admin client");
    let options = AdminOptions::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let altered = AlterConfig::new(ResourceSpecifier::Topic("orders")).set("retention.ms", "1234");
        let results = admin.alter_configs(&[altered], &options).await.expect("an answer");
        assert!(results[0].is_ok(), "{results:?}");
        let asked = [ResourceSpecifier::Topic("orders"), ResourceSpecifier::Broker(1)];
        let described = admin.describe_configs(&asked, &options).await.expect("an answer");
        let [Ok(topic), Ok(broker)] = &described[..] else { panic!("{described:?}") };
        let retention = topic.get("retention.ms").expect("described");
        assert_eq!((retention.value.as_deref(), &retention.source), (Some("1234"), &ClientSource::DynamicTopic));
        let partitions = broker.get("num.partitions").expect("described");
        assert_eq!((partitions.value.as_deref(), partitions.is_read_only), (Some("1"), true));
        let results = admin.create_partitions(&[NewPartitions::new("orders", 3)], &options).await.expect("an answer");
        assert_eq!(results, [Ok("orders".to_owned())]);
    });
    assert_eq!(wire.wait_for_topic("orders"), 3);
}
