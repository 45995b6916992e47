use proptest::prelude::*;

use super::*;

fn text(data: Vec<u8>) -> Value {
    serde_json::from_slice(&data).unwrap()
}

fn broker(rack: Option<&str>) -> BrokerImage {
    let endpoint = |listener: &str, host: &str, port| Endpoint { listener: listener.into(), host: host.into(), port };
    BrokerImage {
        id: BrokerId(3),
        endpoints: vec![endpoint("PLAINTEXT", "h", 9092), endpoint("INSIDE", "::1", 9093)],
        rack: rack.map(Arc::from),
    }
}

#[test]
fn values_are_those_of_kafka() {
    assert_eq!(
        text(encode_controller(BrokerId(1), 1_700_000_000_000)),
        json!({"version":2,"brokerid":1,"timestamp":"1700000000000","kraftControllerEpoch":-1})
    );
    assert_eq!(encode_controller_epoch(7), b"7");
    assert_eq!(text(encode_cluster_id("abc")), json!({"version":"1","id":"abc"}));
    assert_eq!(
        text(encode_broker(&broker(Some("r1")), 5)),
        json!({"version":5,"host":"h","port":9092,"endpoints":["PLAINTEXT://h:9092","INSIDE://[::1]:9093"],
               "listener_security_protocol_map":{"PLAINTEXT":"PLAINTEXT","INSIDE":"PLAINTEXT"},
               "rack":"r1","jmx_port":-1,"timestamp":"5","features":{}})
    );
    assert!(text(encode_broker(&broker(None), 5)).get("rack").is_none());
    let assignment = TopicAssignment {
        id: TopicId([0; 16]),
        partitions: [(0, vec![BrokerId(1), BrokerId(2)])].into(),
        others: Others::default(),
    };
    assert_eq!(
        text(encode_topic(&assignment)),
        json!({"version":3,"topic_id":"AAAAAAAAAAAAAAAAAAAAAA","partitions":{"0":[1,2]},
               "adding_replicas":{},"removing_replicas":{}})
    );
    let state = PartitionState {
        leader: BrokerId(1),
        leader_epoch: 4,
        isr: vec![BrokerId(1)],
        controller_epoch: 2,
        others: Others::default(),
    };
    assert_eq!(
        text(encode_partition_state(&state)),
        json!({"version":1,"leader":1,"leader_epoch":4,"controller_epoch":2,"isr":[1]})
    );
    assert_eq!(text(encode_config(&ConfigMap::new(), &Others::default())), json!({"version":1,"config":{}}));
    assert_eq!(text(encode_config_change("topics/t")), json!({"version":2,"entity_path":"topics/t"}));
    assert_eq!(broker_config_path(ALL_BROKERS), "/config/brokers/<default>");
    assert_eq!(
        text(encode_producer_id_block(BrokerId(1), ProducerIdBlock { start: 1000, last: 1999 })),
        json!({"version":1,"broker":1,"block_start":"1000","block_end":"1999"})
    );
}

#[test]
fn what_is_written_reads_back() {
    let written = broker(Some("r1"));
    assert_eq!(decode_broker(BrokerId(3), &encode_broker(&written, 5)).unwrap(), written);
    assert_eq!(decode_controller(&encode_controller(BrokerId(9), 1)).unwrap(), BrokerId(9));
    assert_eq!(decode_controller_epoch(&encode_controller_epoch(12)).unwrap(), 12);
    assert_eq!(decode_cluster_id(&encode_cluster_id("abc")).unwrap(), "abc");
    let assignment = TopicAssignment {
        id: TopicId(*b"0123456789abcdef"),
        partitions: (0..12).map(|partition| (partition, vec![BrokerId(partition), BrokerId(7)])).collect(),
        others: Others::default(),
    };
    assert_eq!(decode_topic("t", &encode_topic(&assignment)).unwrap(), assignment);
    let state = PartitionState {
        leader: BrokerId(-1),
        leader_epoch: 4,
        isr: vec![BrokerId(1)],
        controller_epoch: 2,
        others: Others::default(),
    };
    assert_eq!(decode_partition_state("t", 0, &encode_partition_state(&state)).unwrap(), state);
    let config: ConfigMap = [("retention.ms".to_owned(), "1".to_owned())].into();
    assert_eq!(decode_config("/config/topics/t", &encode_config(&config, &Others::default())).unwrap(), config);
    let block = ProducerIdBlock { start: 1000, last: 1999 };
    assert_eq!(decode_producer_id_block(&encode_producer_id_block(BrokerId(1), block)).unwrap(), Some(block));
    assert_eq!(decode_producer_id_block(b"").unwrap(), None);
}

#[test]
fn older_versions_and_unknown_keys_are_read() {
    let first = decode_broker(BrokerId(1), br#"{"version":1,"host":"h","port":9092,"jmx_port":1,"new":[]}"#).unwrap();
    assert_eq!(first.endpoints, [Endpoint { listener: "PLAINTEXT".into(), host: "h".into(), port: 9092 }]);
    let topic = decode_topic("t", br#"{"version":1,"partitions":{"0":[1]}}"#).unwrap();
    assert_eq!(topic.id, TopicId::ZERO);
    assert_eq!(decode_controller(br#"{"version":1,"brokerid":4,"timestamp":"1"}"#).unwrap(), BrokerId(4));
    let state = br#"{"version":1,"leader":1,"leader_epoch":0,"controller_epoch":1,"isr":[],"leader_recovery_state":1}"#;
    assert_eq!(decode_partition_state("t", 0, state).unwrap().leader, BrokerId(1));
}

#[test]
fn a_bad_value_is_an_error_that_names_the_path() {
    let cases: [(&str, Result<(), BadValue>); 9] = [
        ("/controller", decode_controller(b"{").map(|_| ())),
        ("/controller_epoch", decode_controller_epoch(b"one").map(|_| ())),
        ("/cluster/id", decode_cluster_id(b"[]").map(|_| ())),
        ("/brokers/ids/1", decode_broker(BrokerId(1), br#"{"version":9}"#).map(|_| ())),
        ("/brokers/topics/t", decode_topic("t", br#"{"partitions":{"-1":[1]}}"#).map(|_| ())),
        ("/brokers/topics/t", decode_topic("t", br#"{"topic_id":"short","partitions":{}}"#).map(|_| ())),
        ("/brokers/topics/t/partitions/2/state", decode_partition_state("t", 2, b"{}").map(|_| ())),
        ("/config/topics/t", decode_config("/config/topics/t", br#"{"config":{"a":1}}"#).map(|_| ())),
        ("/latest_producer_id_block", decode_producer_id_block(br#"{"block_start":"-5"}"#).map(|_| ())),
    ];
    for (path, result) in cases {
        let error = result.unwrap_err();
        assert_eq!(error.path, path);
        assert!(error.to_string().contains(path), "{error}");
    }
}

#[test]
fn parents_come_before_their_children_among_the_paths_made_at_start() {
    for (at, path) in PERSISTENT_PATHS.iter().enumerate() {
        let (parent, _) = path.rsplit_once('/').unwrap();
        assert!(parent.is_empty() || PERSISTENT_PATHS[..at].contains(&parent), "{path}");
    }
}

proptest! {
    #[test]
    fn values_with_any_bytes_changed_are_read_or_refused(
        sample in 0usize..4,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let samples: [&[u8]; 4] = [
            br#"{"version":3,"topic_id":"AAAAAAAAAAAAAAAAAAAAAA","partitions":{"0":[1,2]},"adding_replicas":{}}"#,
            br#"{"version":1,"leader":1,"leader_epoch":0,"controller_epoch":1,"isr":[1,2],"config":{"k":"v"}}"#,
            br#"{"version":5,"host":"h","port":9092,"endpoints":["PLAINTEXT://[::1]:9092"],"rack":"r","id":"x"}"#,
            br#"{"version":2,"brokerid":1,"block_start":"0","block_end":"999"}"#,
        ];
        let mut data = samples[sample].to_vec();
        for (at, byte) in changes {
            let at = at.index(data.len());
            data[at] = byte;
        }
        fuzz_znodes(&data);
    }
}

#[test]
fn what_is_written_back_keeps_the_keys_that_are_not_known() {
    let parse = |data: &[u8]| serde_json::from_slice::<serde_json::Value>(data).unwrap();
    let topic =
        br#"{"version":3,"topic_id":"AQEBAQEBAQEBAQEBAQEBAQ","partitions":{"0":[1,2]},"adding_replicas":{"0":[2]},
        "removing_replicas":{},"newer":[1]}"#;
    assert_eq!(parse(&encode_topic(&decode_topic("t", topic).unwrap())), parse(topic));
    let state =
        br#"{"version":1,"leader":1,"leader_epoch":4,"controller_epoch":2,"isr":[1],"leader_recovery_state":1}"#;
    assert_eq!(parse(&encode_partition_state(&decode_partition_state("t", 0, state).unwrap())), parse(state));
    let config = br#"{"version":1,"config":{"a":"b"},"newer":{"c":1}}"#;
    let (map, others) = decode_whole_config("/config/topics/t", config).unwrap();
    assert_eq!(parse(&encode_config(&map, &others)), parse(config));
}
