use super::*;

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn the_defaults_are_kafkas_and_the_table_is_sorted() {
    let config = TopicConfig::default();
    assert_eq!(
        (config.segment_bytes, config.retention_ms, config.max_message_bytes),
        (1 << 30, 604_800_000, 1_048_588)
    );
    assert_eq!(config.compression_type, CompressionType::Producer);
    assert!(TOPIC_KEYS.is_sorted_by_key(|key| key.name));
    for key in TOPIC_KEYS.iter().filter(|key| key.set.is_some()) {
        assert_eq!((key.get)(&config), key.default, "{}", key.name);
    }
}

#[test]
fn a_topic_overrides_the_broker_which_overrides_kafka() {
    let broker = TopicConfig::of_broker(&map(&[("log.segment.bytes", "1000"), ("log.roll.hours", "2")])).unwrap();
    assert_eq!((broker.segment_bytes, broker.segment_ms), (1000, 7_200_000));
    let topic =
        broker.with_overrides(&map(&[("segment.bytes", " 2000 "), ("cleanup.policy", "compact, delete")])).unwrap();
    assert_eq!((topic.segment_bytes, topic.segment_ms), (2000, 7_200_000));
    assert!(topic.cleanup_policy.compact && topic.cleanup_policy.delete);
}

#[test]
fn the_first_synonym_wins_and_negative_retention_is_for_ever() {
    let of = |pairs| TopicConfig::of_broker(&map(pairs)).unwrap().retention_ms;
    assert_eq!(of(&[("log.retention.hours", "1"), ("log.retention.minutes", "5")]), 300_000);
    assert_eq!(of(&[("log.retention.hours", "-1")]), -1);
    assert_eq!(of(&[("log.retention.ms", "7"), ("log.retention.minutes", "5")]), 7);
}

#[test]
fn every_name_is_accepted_with_its_default_and_refused_with_nonsense() {
    let broker = TopicConfig::default();
    for key in TOPIC_KEYS {
        broker.with_overrides(&map(&[(key.name, key.default)])).unwrap();
        if key.kind != Kind::Text {
            let refused = broker.with_overrides(&map(&[(key.name, "nonsense")])).unwrap_err();
            assert!(refused.to_string().contains(key.name), "{refused}");
        }
    }
    assert_eq!(
        broker.with_overrides(&map(&[("retention", "1")])).unwrap_err(),
        InvalidTopicConfig::UnknownName("retention".into())
    );
    assert!(broker.with_overrides(&map(&[("segment.bytes", "13")])).is_err());
    assert!(broker.with_overrides(&map(&[("remote.storage.enable", "true")])).is_err());
    assert!(matches!(
        broker.with_overrides(&map(&[("min.compaction.lag.ms", "10"), ("max.compaction.lag.ms", "9")])),
        Err(InvalidTopicConfig::CompactionLag { min: 10, max: 9 })
    ));
}

#[test]
fn the_deprecated_timestamp_bound_holds_where_its_successors_are_not_set() {
    let overrides = map(&[("message.timestamp.difference.max.ms", "5"), ("message.timestamp.after.max.ms", "9")]);
    let config = TopicConfig::default().with_overrides(&overrides).unwrap();
    assert_eq!((config.message_timestamp_before_max_ms, config.message_timestamp_after_max_ms), (5, 9));
}
