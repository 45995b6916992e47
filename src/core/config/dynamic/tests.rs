use super::*;

fn map(pairs: &[(&str, &str)]) -> ConfigMap {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn of(named: &[(&str, &str)]) -> DynamicConfig {
    let listeners = ["CLIENT://a:1", "OUTSIDE://a:2"].map(|text| Endpoint::parse(text).unwrap());
    DynamicConfig::fixed(&Settings { named: map(named) }, &listeners, ConfigMap::new()).unwrap()
}

fn with(config: &DynamicConfig, scope: BrokerScope, pairs: &[(&str, &str)]) -> Result<DynamicConfig, String> {
    config.with(scope, &map(pairs))
}

#[test]
fn this_broker_goes_before_all_brokers_before_files_before_defaults() {
    let config = of(&[("log.retention.hours", "2"), ("message.max.bytes", "5000"), ("max.connections", "7")]);
    assert_eq!(config.topic_defaults.retention_ms, 7_200_000);
    let config = with(&config, BrokerScope::All, &[("log.retention.ms", "3"), ("max.connections", "8")]).unwrap();
    assert_eq!((config.topic_defaults.retention_ms, config.connection_quotas.connections_max), (3, 8));
    let config = with(&config, BrokerScope::This, &[("max.connections", "9")]).unwrap();
    assert_eq!((config.topic_defaults.retention_ms, config.connection_quotas.connections_max), (3, 9));
    assert_eq!(config.topic_defaults.max_message_bytes, 5000);
    let config = with(&config, BrokerScope::This, &[]).unwrap();
    let config = with(&config, BrokerScope::All, &[]).unwrap();
    assert_eq!((config.topic_defaults.retention_ms, config.connection_quotas.connections_max), (7_200_000, 7));
}

#[test]
fn what_may_not_change_while_the_broker_runs_is_refused_by_name() {
    let refused = |scope, name, value| with(&of(&[]), scope, &[(name, value)]).unwrap_err();
    for scope in [BrokerScope::This, BrokerScope::All] {
        let text = refused(scope, "num.partitions", "3");
        assert_eq!(text, "Cannot update these configs dynamically: Set(num.partitions)");
        let text = refused(scope, "log.segment.bytes", "x");
        assert_eq!(text, "Invalid value x for configuration log.segment.bytes: Not a number of type INT");
        assert!(refused(scope, "ssl.keystore.location", "/k").contains("listener prefix"));
        assert!(refused(scope, "max.connections.per.ip.overrides", "a").contains("host:count"));
    }
    for name in ["listeners", "listener.name.a.ssl.keystore.location"] {
        assert!(refused(BrokerScope::All, name, "x").contains("broker id must be specified"), "{name}");
        assert!(refused(BrokerScope::This, name, "x").contains("server.properties"), "{name}");
    }
    assert!(refused(BrokerScope::This, "log.cleaner.dedupe.buffer.size", "1048576").contains("1 MiB"));
}

#[test]
fn numbers_of_threads_at_most_double_or_halve() {
    let config = of(&[]);
    for good in ["4", "8", "16"] {
        with(&config, BrokerScope::This, &[("num.io.threads", good)]).unwrap();
    }
    for bad in ["3", "17"] {
        let refused = with(&config, BrokerScope::This, &[("num.io.threads", bad)]).unwrap_err();
        let why = format!("num.io.threads can go from 8 to anything from 4 to 16, not to {bad}");
        assert_eq!(refused, format!("Invalid dynamic configuration: {why}"));
    }
    let more = with(&config, BrokerScope::All, &[("log.cleaner.threads", "2")]).unwrap();
    assert_eq!(more.log_cleaner_threads, 2);
    with(&more, BrokerScope::All, &[("log.cleaner.threads", "4")]).unwrap();
}

#[test]
fn limits_of_one_listener_and_of_addresses_are_read() {
    let config = with(
        &of(&[]),
        BrokerScope::All,
        &[
            ("listener.name.outside.max.connections", "5"),
            ("listener.name.outside.max.connection.creation.rate", "6"),
            ("max.connections.per.ip.overrides", "10.0.0.1:3, ::1:4"),
        ],
    )
    .unwrap();
    let quotas = &config.connection_quotas;
    let unlimited = i32::MAX as u32;
    assert_eq!(quotas.listener_connections_max, [unlimited, 5]);
    assert_eq!(quotas.listener_creation_rate, [unlimited, 6]);
    assert_eq!(quotas.address_overrides.values().copied().collect::<Vec<_>>(), [3, 4]);
    with(&of(&[]), BrokerScope::All, &[("my.own", "anything")]).unwrap();
}

#[test]
fn what_a_tree_holds_is_taken_as_far_as_it_can_be() {
    let stored = map(&[("num.partitions", "3"), ("max.connections", "x"), ("log.retention.bytes", "9")]);
    let config = of(&[]).with_stored(&stored, &map(&[("message.max.bytes", "77"), ("log.segment.bytes", "1")]));
    assert_eq!((config.topic_defaults.retention_bytes, config.topic_defaults.max_message_bytes), (9, 77));
    assert_eq!(
        (config.connection_quotas.connections_max, config.topic_defaults.segment_bytes),
        (i32::MAX as u32, 1 << 30)
    );
    assert_eq!(config.of(BrokerScope::All), &map(&[("log.retention.bytes", "9")]));
    let reset = config.with_stored(&map(&[]), &map(&[("message.max.bytes", "78")]));
    assert_eq!((reset.topic_defaults.retention_bytes, reset.topic_defaults.max_message_bytes), (-1, 78));
    assert_eq!(reset.with_stored(&map(&[]), &map(&[])), of(&[]));
    // The rule of threads is for changes: what was stored long ago counts.
    assert_eq!(of(&[]).with_stored(&map(&[("log.cleaner.threads", "9")]), &map(&[])).log_cleaner_threads, 9);
}

#[test]
fn what_files_say_later_counts_as_far_as_it_may_change_and_below_what_clients_have_set() {
    let resolved = |pairs: &[(&str, &str)]| DynamicConfig::default().with_files(map(pairs)).unwrap();
    let start = resolved(&[("log.retention.ms", "1000"), ("num.partitions", "2"), ("log.cleaner.threads", "2")]);
    let later = resolved(&[("log.retention.ms", "5000"), ("num.partitions", "3"), ("message.max.bytes", "7")]);
    let (changed, next) = start.reread(&later).unwrap();
    let told: Vec<(&str, Option<&str>, Option<&str>, bool)> = changed
        .iter()
        .map(|setting| (setting.name.as_str(), setting.from.as_deref(), setting.to.as_deref(), setting.is_taken))
        .collect();
    let expected = [
        ("log.cleaner.threads", Some("2"), None, true),
        ("log.retention.ms", Some("1000"), Some("5000"), true),
        ("message.max.bytes", None, Some("7"), true),
        ("num.partitions", Some("2"), Some("3"), false),
    ];
    assert_eq!(told, expected);
    let files = map(&[("log.retention.ms", "5000"), ("message.max.bytes", "7"), ("num.partitions", "2")]);
    assert_eq!(next.of_files(), files);
    assert_eq!((next.topic_defaults.retention_ms, next.log_cleaner_threads), (5000, 1));
    let stored = next.with_stored(&map(&[("log.retention.ms", "9000")]), &ConfigMap::new());
    assert_eq!(stored.topic_defaults.retention_ms, 9000);
    // What differs already is told again until a restart.
    assert_eq!(next.reread(&later).unwrap().0.len(), 1);
}

#[test]
fn nobody_can_shut_everybody_out_while_the_broker_runs_and_a_listener_may_be_spared() {
    for name in ["max.connections", "max.connection.creation.rate"] {
        let refused = |settings: &[(&str, &str)]| with(&of(&[]), BrokerScope::All, settings).is_err();
        assert!(refused(&[(name, "0")]) && !refused(&[(name, "1")]));
        let (client, outside) = (format!("listener.name.client.{name}"), format!("listener.name.outside.{name}"));
        assert!(refused(&[(&client, "0")]) && refused(&[(name, "0"), (&client, "5")]));
        assert!(!refused(&[(name, "0"), (&client, "5"), (&outside, "5")]));
        // What a file says is the operator's, and no other change is held to it.
        with(&of(&[(name, "0")]), BrokerScope::All, &[("log.retention.ms", "5")]).unwrap();
    }
    let refused = with(&of(&[]), BrokerScope::This, &[("max.connections.per.ip", "0")]).unwrap_err();
    assert!(refused.contains("max.connections.per.ip.overrides"), "{refused}");
}

#[test]
fn what_a_tree_holds_is_ignored_where_it_cant_be_and_needs_no_order_among_partners() {
    let stored = map(&[
        ("log.retention.ms", "0"),
        ("max.connections.per.ip", "0"),
        ("max.connections.per.ip.overrides", "127.0.0.1:5"),
    ]);
    let config = of(&[]).with_stored(&stored, &map(&[]));
    assert_eq!(config.topic_defaults.retention_ms, 604_800_000);
    assert_eq!((config.connection_quotas.address_connections_max, config.of(BrokerScope::All).len()), (0, 2));
    // Kafka takes such a limit from its tree too: the override is the way back.
    let stored = map(&[("max.connections", "0")]);
    assert_eq!(of(&[]).with_stored(&stored, &map(&[])).connection_quotas.connections_max, 0);
}

fn overridden(named: &[(&str, &str)], overrides: &[(&str, &str)]) -> DynamicConfig {
    let listeners = [Endpoint::parse("CLIENT://a:1").unwrap()];
    DynamicConfig::fixed(&Settings { named: map(named) }, &listeners, map(overrides)).unwrap()
}

#[test]
fn an_override_goes_before_what_clients_have_set_and_is_told_as_of_this_start() {
    let config = overridden(&[("max.connections", "7")], &[("max.connections", "9"), ("log.retention.ms", "5")]);
    let stored = map(&[("max.connections", "0"), ("message.max.bytes", "77")]);
    let config = config.with_stored(&map(&[]), &stored);
    let found = (config.connection_quotas.connections_max, config.topic_defaults.retention_ms);
    assert_eq!((found, config.topic_defaults.max_message_bytes), ((9, 5), 77));
    let told: Vec<_> =
        config.synonyms("max.connections").into_iter().map(|synonym| (synonym.value, synonym.source)).collect();
    let expected = [
        ("9", ConfigSource::StaticBroker),
        ("0", ConfigSource::DynamicBroker),
        ("7", ConfigSource::StaticBroker),
        ("2147483647", ConfigSource::Default),
    ];
    assert_eq!(told, expected.map(|(value, source)| (value.to_owned(), source)));
    let read_again = config.with_files(map(&[("max.connections", "8")])).unwrap();
    assert_eq!(read_again.connection_quotas.connections_max, 9, "for the whole run");
}

#[test]
fn what_is_overridden_is_stored_but_held_to_its_rules() {
    let config = overridden(&[], &[("max.connections", "9"), ("log.retention.ms", "5")]);
    for (name, value) in [("max.connections", "0"), ("log.retention.ms", "0")] {
        with(&config, BrokerScope::This, &[(name, value)]).unwrap_err();
    }
    let changed = with(&config, BrokerScope::This, &[("max.connections", "8")]).unwrap();
    assert_eq!(changed.connection_quotas.connections_max, 9);
    assert_eq!(changed.of(BrokerScope::This), &map(&[("max.connections", "8")]));
}
