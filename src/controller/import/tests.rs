use super::*;
use crate::config::ServeOptions;
use crate::controller::load::{Snapshot, load};
use crate::metadata::embedded::EmbeddedTree;
use crate::metadata::tree::Watch;
use crate::metadata::tree::suite::Probe;

fn config() -> Config {
    let set = vec!["broker.id=7".to_owned(), "offsets.topic.segment.bytes=2048".to_owned()];
    Config::load(&ServeOptions { set, ..ServeOptions::default() }).unwrap()
}

fn id(text: &str) -> TopicId {
    TopicId::parse(text).unwrap()
}

const A: &str = "f1E3-KkETBuUkT4m46-H6w";
const B: &str = "k25NJqBDQbufsLI_nIlAKA";

fn found(topic: &str, partition: i32, topic_id: Option<&str>, latest_epoch: Option<LeaderEpoch>) -> FoundPartition {
    let topic_partition = TopicPartition { topic: topic.into(), partition };
    FoundPartition { topic_partition, topic_id: topic_id.map(id), latest_epoch, was_compacted: false }
}

/// Counts up, so that ids differ.
fn random() -> impl FnMut() -> u64 {
    let mut last = 0x0123_4567_89ab_cdef_u64;
    move || {
        last = last.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        last
    }
}

fn imported(found: &[FoundPartition], cluster_id: Option<&str>) -> (Probe<EmbeddedTree>, Snapshot) {
    let mut tree = Probe::of(EmbeddedTree::in_memory().unwrap());
    let operations = operations(found, cluster_id, &config(), &mut random()).unwrap();
    tree.multi(operations).unwrap();
    let snapshot = load(&mut tree);
    (tree, snapshot)
}

fn settings(tree: &mut Probe<EmbeddedTree>, topic: &str) -> ConfigMap {
    let path = znodes::topic_config_path(topic);
    znodes::decode_config(&path, &tree.get(&path, Watch::None).unwrap().0).unwrap()
}

fn refused(found: &[FoundPartition]) -> String {
    operations(found, None, &config(), &mut random()).unwrap_err().to_string()
}

#[test]
fn topics_partitions_ids_and_epochs_come_from_the_directories() {
    let directories = [found("a", 1, Some(A), Some(4)), found("a", 0, None, Some(2)), found("b.c-d", 0, None, None)];
    let (mut tree, snapshot) = imported(&directories, Some("a-cluster"));
    let (data, _) = tree.get(znodes::CLUSTER_ID, Watch::None).unwrap();
    assert_eq!(znodes::decode_cluster_id(&data).unwrap(), "a-cluster");
    let [a, b] = &snapshot.topics[..] else { panic!("{:?}", snapshot.topics) };
    assert_eq!((&*a.name, a.id, a.partitions.len()), ("a", id(A), 2));
    assert_eq!((&*b.name, b.partitions.len(), b.id != TopicId::ZERO && b.id != a.id), ("b.c-d", 1, true));
    let states = a.partitions.values().chain(b.partitions.values()).map(|partition| {
        assert_eq!(partition.replicas, [BrokerId(7)]);
        let state = partition.state.as_ref().expect("led before, so its log is not a new one");
        assert_eq!((state.leader, &state.isr[..]), (BrokerId(7), &[BrokerId(7)][..]));
        state.leader_epoch
    });
    assert_eq!(states.collect::<Vec<_>>(), [2, 4, -1]);
    let keeps_all = KEEPS_ALL.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert!(["a", "b.c-d"].iter().all(|topic| settings(&mut tree, topic) == ConfigMap::from(keeps_all.clone())));
}

#[test]
fn internal_topics_are_compacted_as_the_broker_would_make_them() {
    let directories = [found("__consumer_offsets", 0, None, Some(0)), found("__transaction_state", 0, None, Some(0))];
    let (mut tree, _) = imported(&directories, None);
    let configs = ["__consumer_offsets", "__transaction_state"].map(|topic| settings(&mut tree, topic));
    assert!(configs.iter().all(|config| config["cleanup.policy"] == "compact"));
    // They are as Kafka made them, so their records go on to be compacted.
    assert!(configs.iter().all(|config| !config.contains_key("min.compaction.lag.ms")));
    assert_eq!((&*configs[0]["segment.bytes"], &*configs[1]["compression.type"]), ("2048", "uncompressed"));
}

#[test]
fn producer_ids_start_far_above_those_that_kafka_gave_out_and_elsewhere_each_time() {
    let mut random = random();
    let mut blocks = (0..100).map(|_| {
        let block = znodes::decode_producer_id_block(&producer_ids(BrokerId(1), &mut random)).unwrap().unwrap();
        assert!(PRODUCER_IDS.contains(&block.start) && PRODUCER_IDS.contains(&block.last));
        assert_eq!(block.last - block.start, PRODUCER_ID_BLOCK_SIZE - 1);
        block.start
    });
    let first = blocks.next().unwrap();
    assert!(blocks.all(|start| start != first));
}

#[test]
fn a_topic_without_all_its_partitions_is_refused_and_the_missing_ones_are_named() {
    let message = refused(&[1, 2, 5, 9].map(|number| found("a", number, None, None)));
    assert!(message.contains("without a-0, a-3 to a-4, a-6 to a-8;"), "{message}");
    let many: Vec<_> = (0..10_000).map(|number| found("a", number * 2 + 1, None, None)).collect();
    let message = refused(&many);
    assert!(message.contains("a-18 and more;") && message.len() < 500, "{message}");
    assert!(refused(&[found("a", i32::MAX, None, None)]).contains("a-0 to a-2147483646"));
}

#[test]
fn contradicting_topic_ids_are_refused() {
    let message = refused(&[found("a", 0, Some(A), None), found("a", 1, None, None), found("a", 2, Some(B), None)]);
    assert!(message.contains("a-0 and a-2") && message.contains(A) && message.contains(B), "{message}");
    let message = refused(&[found("a", 0, Some(A), None), found("b", 0, Some(A), None)]);
    assert!(message.contains("topics a and b have one topic id"), "{message}");
}

#[test]
fn names_spellings_and_epochs_that_can_not_be_are_refused() {
    assert!(refused(&[found("a b", 0, None, None)]).starts_with("a b-0 is no directory of a topic"));
    assert!(refused(&[found("a", 0, None, None), found("a", 0, None, None)]).contains("a-0 is there twice"));
    assert!(refused(&[found("a", 0, None, Some(i32::MAX))]).contains("2147483647"));
}

#[test]
fn a_directory_without_topics_gives_a_tree_without_topics() {
    let (_, snapshot) = imported(&[], None);
    assert!(snapshot.topics.is_empty());
}

#[test]
fn topics_whose_settings_are_not_known_keep_every_record_and_those_that_kafka_has_compacted_stay_compacted() {
    let compacted = FoundPartition { was_compacted: true, ..found("kept", 1, None, None) };
    let (mut tree, _) = imported(&[found("kept", 0, None, None), compacted, found("plain", 0, None, None)], None);
    let topics = ["kept", "plain"].map(|topic| settings(&mut tree, topic));
    let settings = |topic: usize, name: &str| topics[topic].get(name).cloned();
    for (topic, policy) in ["compact", "delete"].into_iter().enumerate() {
        assert_eq!(settings(topic, "cleanup.policy").as_deref(), Some(policy));
        assert_eq!(settings(topic, "retention.ms").as_deref(), Some("-1"));
        assert_eq!(settings(topic, "retention.bytes").as_deref(), Some("-1"));
    }
    assert_eq!(settings(0, "min.compaction.lag.ms"), Some(i64::MAX.to_string()));
    assert_eq!(settings(0, "max.compaction.lag.ms"), Some(i64::MAX.to_string()));
}
