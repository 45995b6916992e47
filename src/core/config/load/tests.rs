use std::io::Write as _;

use super::*;

fn with_file(text: &str, set: &[&str]) -> Result<Config, ConfigError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let set = set.iter().map(|text| (*text).to_owned()).collect();
    Config::load(&ServeOptions { config: Some(file.path().to_owned()), set, ..ServeOptions::default() })
}

fn with_set(set: &[&str]) -> Result<Config, ConfigError> {
    let set = set.iter().map(|text| (*text).to_owned()).collect();
    Config::load(&ServeOptions { set, ..ServeOptions::default() })
}

#[test]
fn without_arguments_it_is_one_node_for_oneself() {
    let config = with_set(&[]).unwrap();
    assert_eq!(config.listeners[0].to_string(), "PLAINTEXT://127.0.0.1:9092");
    assert_eq!(config.advertised_listeners, config.listeners);
    assert_eq!((config.broker_id, config.log_dirs), (BrokerId(1), vec![PathBuf::from("./ringlog-data")]));
    assert_eq!((config.offsets_topic_replication_factor, config.transaction_state_log_min_isr), (1, 1));
    assert!(config.warnings.is_empty());
    assert_eq!((config.socket_send_buffer_bytes, config.socket_receive_buffer_bytes), (None, None));
}

#[test]
fn with_a_file_the_defaults_are_kafkas() {
    let config = with_file("", &[]).unwrap();
    assert_eq!((&*config.listeners[0].host, config.listeners[0].port), ("", 9092));
    assert!(!config.advertised_listeners[0].host.is_empty());
    assert_eq!((config.broker_id, config.log_dirs), (BrokerId(1001), vec![PathBuf::from("/tmp/kafka-logs")]));
    assert_eq!((config.offsets_topic_replication_factor, config.transaction_state_log_min_isr), (3, 2));
}

#[test]
fn set_goes_before_the_file_and_the_file_before_the_defaults() {
    let text = "num.partitions=4\nlog.segment.bytes=1000\nbroker.id=7\nsocket.send.buffer.bytes=5000";
    let config = with_file(text, &["num.partitions=5", "num.partitions=6", "listeners=PLAINTEXT://h:0"]).unwrap();
    assert_eq!((config.num_partitions, config.broker_id), (6, BrokerId(7)));
    assert_eq!(
        (config.dynamic.topic_defaults.segment_bytes, config.dynamic.topic_defaults.segment_ms),
        (1000, 604_800_000)
    );
    assert_eq!((config.advertised_listeners[0].host.as_ref(), config.advertised_listeners[0].port), ("h", 0));
    assert_eq!(config.socket_send_buffer_bytes, Some(5000));
}

#[test]
fn an_unknown_name_warns_in_the_file_and_is_an_error_in_set() {
    let config = with_file("num.partition=4\nmy.own.plugin.thing=1", &[]).unwrap();
    assert_eq!(config.warnings.len(), 2);
    assert!(config.warnings.iter().any(|warning| warning.contains("did you mean num.partitions?")));
    let error = with_set(&["num.partition=4"]).unwrap_err();
    assert!(error.to_string().contains("did you mean num.partitions?"), "{error}");
    assert_eq!(error.exit_code(), 2);
    assert!(with_set(&["num.partitions"]).unwrap_err().to_string().contains("name=value"));
}

#[test]
fn known_settings_that_change_nothing_yet_are_said() {
    let text = "log.preallocate=true\nnum.io.threads=8\nssl.keystore.location=/k\nlog.retention.hours=24";
    let config = with_file(text, &[]).unwrap();
    assert_eq!(config.warnings, ["not applied yet: log.preallocate, ssl.keystore.location"]);
    assert_eq!(config.dynamic.topic_defaults.retention_ms, 86_400_000);
}

#[test]
fn bad_values_are_refused_with_their_name() {
    for set in [
        "num.partitions=0",
        "num.partitions=x",
        "broker.id=1001",
        "auto.create.topics.enable=yes",
        "fetch.max.bytes=1",
        "listeners=PLAINTEXT://a:1,PLAINTEXT://b:2",
        "listeners=SSL://a:1",
        "listeners=a:1",
        "log.dirs=/a,/a/b",
        "listeners=PLAINTEXT://a:99999",
        "listeners=CLIENT://a:1",
        "advertised.listeners=OTHER://a:1",
        "log.segment.bytes=13",
        "default.replication.factor=0",
        "log.roll.ms=0",
        "num.partitions=",
        "log.dirs=",
        "log.retention.ms=",
        "log.retention.hours=0",
        "log.retention.minutes=0",
        "log.retention.ms=0",
        "advertised.listeners=",
        "inter.broker.listener.name=",
        "inter.broker.listener.name=OTHER",
        "zookeeper.metadata.migration.enable=true",
    ] {
        let error = with_set(&[set]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let (name, _) = set.split_once('=').unwrap();
        assert!(error.to_string().contains(name) || name.contains("listeners"), "{set}: {error}");
    }
}

#[test]
fn listeners_may_have_other_names_and_addresses() {
    let config = with_set(&[
        "listeners=client://[::1]:9000",
        "listener.security.protocol.map=CLIENT:PLAINTEXT,B:SSL",
        "inter.broker.listener.name=client",
        "advertised.listeners=CLIENT://outside:19000",
    ]);
    let config = config.unwrap();
    assert_eq!(config.listeners[0].to_string(), "CLIENT://[::1]:9000");
    assert_eq!(config.advertised_listeners[0].to_string(), "CLIENT://outside:19000");
    let error = with_set(&["listeners=PLAINTEXT://0.0.0.0:9092"]).unwrap_err();
    assert!(error.to_string().contains("advertised.listeners"), "{error}");
    with_set(&["listeners=PLAINTEXT://0.0.0.0:9092", "advertised.listeners=PLAINTEXT://h:9092"]).unwrap();
}

#[test]
fn a_cluster_that_cannot_be_joined_is_not_silently_left() {
    let error = with_file("zookeeper.connect=zk:2181", &[]).unwrap_err();
    assert!(error.to_string().contains("zookeeper.connect"), "{error}");
    with_file("zookeeper.connect=zk:2181", &["zookeeper.connect="]).unwrap();
    assert!(with_file("process.roles=broker", &[]).is_err());
}

#[test]
fn files_that_are_missing_or_too_large_are_told_apart() {
    let options = ServeOptions { config: Some("/nowhere/server.properties".into()), ..ServeOptions::default() };
    let error = Config::load(&options).unwrap_err();
    assert_eq!(error.exit_code(), 1);
    assert!(error.to_string().contains("/nowhere/server.properties"));
    let huge = "#".repeat(usize::try_from(CONFIG_FILE_BYTES_MAX).unwrap() + 1);
    assert!(matches!(with_file(&huge, &[]), Err(ConfigError::TooLarge(_))));
}

#[test]
fn a_flag_file_holds_one_flag_a_line() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"# ours\n\n--shards=2\nring-depth 64\n  pin\n--set num.partitions=3\nset=broker.id=2\n").unwrap();
    let flags = read_flag_file(file.path()).unwrap();
    assert_eq!(flags, ["--shards=2", "--ring-depth=64", "--pin", "--set=num.partitions=3", "--set=broker.id=2"]);
}

#[test]
fn the_data_flag_stands_for_log_dirs() {
    let options = ServeOptions { data: Some("/d".into()), set: vec!["log.dirs=/a".into()], ..ServeOptions::default() };
    assert_eq!(Config::load(&options).unwrap().log_dirs, [PathBuf::from("/d")]);
}

#[test]
fn a_broker_id_is_bounded_only_where_ids_are_generated_above_the_bound() {
    let id = |set: &[&str]| with_set(set).map(|config| config.broker_id.0).map_err(|error| error.to_string());
    let fixed = "broker.id.generation.enable=false";
    assert_eq!(id(&["broker.id=5000", fixed]), Ok(5000));
    assert_eq!(id(&["broker.id=5000", "reserved.broker.max.id=5000"]), Ok(5000));
    assert!(id(&["broker.id=5000"]).unwrap_err().contains("broker.id.generation.enable=false"));
    assert!(id(&["broker.id=-1", fixed]).is_err() && id(&["broker.id=-2"]).is_err());
}

#[test]
fn two_names_for_one_thing_stand_for_each_other_and_may_not_differ() {
    let config = with_set(&["node.id=7", "log.dir=/a"]).unwrap();
    assert_eq!((config.broker_id, config.log_dirs), (BrokerId(7), vec![PathBuf::from("/a")]));
    assert!(with_set(&["node.id=7", "broker.id=8"]).unwrap_err().to_string().contains("node.id (7)"));
    let both = with_set(&["log.dir=/a", "log.dirs=/b,/c"]).unwrap();
    assert_eq!(both.log_dirs, [PathBuf::from("/b"), PathBuf::from("/c")]);
    assert!(with_set(&["log.dir=/a", "log.dirs="]).is_err());
    assert!(with_set(&["inter.broker.listener.name=PLAINTEXT", "security.inter.broker.protocol=PLAINTEXT"]).is_err());
}

#[test]
fn only_what_can_change_while_the_broker_runs_is_overridden() {
    let overridden = |text: &str| {
        let overrides = vec![text.to_owned()];
        Config::load(&ServeOptions { overrides, ..ServeOptions::default() }).map_err(|error| error.to_string())
    };
    let config = overridden("listener.name.plaintext.max.connections=5").unwrap();
    assert_eq!(config.dynamic.connection_quotas.listener_connections_max, [5]);
    for (text, why) in [
        ("num.partitions=3", "use --set"),
        ("listeners=PLAINTEXT://:1", "use --set"),
        ("max.connection=3", "did you mean max.connections?"),
        ("max.connections", "name=value"),
        ("max.connections=x", "Not a number"),
        ("log.retention.ms=0", "for ever"),
    ] {
        let error = overridden(text).unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
    }
}
