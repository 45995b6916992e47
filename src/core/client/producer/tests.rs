use super::*;
use crate::base::splitmix64::next as random;
use crate::client::cluster::Partition;
use crate::protocol::message::{PartitionProduceResponse, TopicProduceResponse};

const MS: Duration = Duration::from_millis(1);

fn options() -> ProducerOptions {
    ProducerOptions {
        acks: -1,
        compression: Compression::of(Codec::None),
        batch_bytes: 1000,
        linger: 5 * MS,
        timeout_ms: 1000,
        buffer_bytes: 10_000,
        retries_max: 3,
    }
}

/// A topic whose partitions are led by brokers 10, 11 and so on.
fn topic(partitions: i32) -> Topic {
    let partition = |index| Partition {
        index,
        leader: Some(10 + index),
        leader_epoch: 0,
        replicas: vec![],
        isr: vec![],
        offline_replicas: vec![],
    };
    Topic {
        name: "t".into(),
        id: crate::base::ids::TopicId::ZERO,
        is_internal: false,
        partitions: (0..partitions).map(partition).collect(),
    }
}

fn at(ms: u64) -> Monotonic {
    Monotonic(ms * 1_000_000)
}

fn value(value: &[u8]) -> ToRecord<'_> {
    ToRecord { value: Some(value), timestamp: 5, ..ToRecord::default() }
}

fn answer(partition: i32, error_code: i16) -> ProduceResponse {
    let partition_responses = vec![PartitionProduceResponse { index: partition, error_code, ..Default::default() }];
    let responses = vec![TopicProduceResponse { name: "t".into(), partition_responses }];
    ProduceResponse { responses, ..Default::default() }
}

fn values_of(batch: &[u8]) -> Vec<String> {
    let text = |record: crate::record::batch::Record| String::from_utf8(record.value.unwrap().to_vec()).unwrap();
    decode_records(batch, 1 << 20).unwrap().into_iter().map(text).collect()
}

#[test]
fn keys_hash_as_in_kafka() {
    for (key, hash) in [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ("abc", 479_470_107),
    ] {
        assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
    }
}

#[test]
fn a_batch_waits_for_its_linger_unless_it_is_full_or_the_end_has_come() {
    let mut producer = Producer::new(options(), &topic(1), 0);
    producer.push(&value(b"a"), at(100)).unwrap();
    assert!(producer.next_request(at(104)).is_none());
    assert_eq!(producer.wake_at(), Some(at(105)));
    assert_eq!(values_of(&producer.next_request(at(105)).unwrap().batches[0].1), ["a"]);
    producer.answered(10, &answer(0, 0), at(106)).unwrap();

    producer.push(&value(&[b'x'; 2000]), at(200)).unwrap();
    assert!(producer.next_request(at(200)).is_some(), "longer than a batch, alone");
    producer.answered(10, &answer(0, 0), at(201)).unwrap();

    producer.push(&value(b"last"), at(300)).unwrap();
    producer.end();
    assert!(producer.next_request(at(300)).is_some());
    assert!(!producer.is_done());
    producer.answered(10, &answer(0, 0), at(301)).unwrap();
    assert!(producer.is_done());
    assert_eq!((producer.acknowledged().records, producer.acknowledged().bytes), (3, 2005));
}

#[test]
fn records_without_a_key_go_to_one_partition_until_its_batch_is_full() {
    let mut producer = Producer::new(options(), &topic(3), 1);
    for _ in 0..30 {
        producer.push(&value(&[b'x'; 90]), at(0)).unwrap();
    }
    producer.end();
    let mut sent = Vec::new();
    while let Some(request) = producer.next_request(at(0)) {
        sent.extend(request.batches.iter().map(|(partition, batch)| (*partition, values_of(batch).len())));
    }
    assert_eq!(sent, [(0, 10), (1, 10), (2, 10)]);
}

#[test]
fn a_key_has_its_partition_and_a_named_one_goes_first() {
    let mut producer = Producer::new(options(), &topic(3), 0);
    let keyed = ToRecord { key: Some(b"foobar"), ..value(b"k") };
    producer.push(&keyed, at(0)).unwrap();
    producer.push(&ToRecord { partition: Some(2), ..keyed }, at(0)).unwrap();
    let gone = producer.push(&ToRecord { partition: Some(3), ..keyed }, at(0));
    assert_eq!(gone, Err(ProduceError::NoPartition(3)));
    producer.end();
    let hashed = (-790_332_482_i32 & 0x7fff_ffff) % 3;
    let mut sent: Vec<i32> =
        std::iter::from_fn(|| producer.next_request(at(0))).map(|sent| sent.batches[0].0).collect();
    sent.sort_unstable();
    let mut expected = vec![hashed, 2];
    expected.sort_unstable();
    expected.dedup();
    assert_eq!(sent, expected);
}

#[test]
fn one_batch_of_a_partition_is_on_its_way_and_goes_again_as_it_was() {
    let mut producer = Producer::new(options(), &topic(1), 0);
    producer.set_producer_id(77, 3);
    for text in ["a", "b"] {
        producer.push(&value(text.repeat(1000).as_bytes()), at(0)).unwrap();
    }
    let first = producer.next_request(at(0)).unwrap();
    assert!(producer.next_request(at(0)).is_none(), "the second waits for the first");
    producer.answered(10, &answer(0, ErrorCode::NotEnoughReplicas.code()), at(1)).unwrap();
    assert!(producer.next_request(at(1)).is_none(), "not before the back-off");
    let again = producer.next_request(producer.wake_at().unwrap()).unwrap();
    assert_eq!(again.batches, first.batches);
    let header = BatchHeader::parse(&again.batches[0].1).unwrap();
    assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (77, 3, 0));
    producer.answered(10, &answer(0, ErrorCode::DuplicateSequenceNumber.code()), at(99)).unwrap();
    let second = producer.next_request(at(100)).unwrap();
    assert_eq!(BatchHeader::parse(&second.batches[0].1).unwrap().base_sequence, 1);
    assert_eq!(producer.acknowledged().retries, 1);
}

#[test]
fn a_lost_connection_sends_it_to_the_new_leader() {
    let mut producer = Producer::new(options(), &topic(1), 0);
    producer.push(&value(b"a"), at(0)).unwrap();
    producer.end();
    assert_eq!(producer.next_request(at(0)).unwrap().leader, 10);
    producer.disconnected(10, at(1)).unwrap();
    assert!(producer.wants_look(at(1)));
    let mut moved = topic(1);
    moved.partitions[0].leader = Some(12);
    producer.set_leaders(Some(&moved), at(2)).unwrap();
    assert!(!producer.wants_look(at(2)));
    assert_eq!(producer.next_request(at(60)).unwrap().leader, 12);
    // A late answer of the old connection finds nothing to acknowledge.
    producer.answered(10, &answer(0, 0), at(61)).unwrap();
    assert!(!producer.is_done());
}

#[test]
fn what_time_can_not_heal_is_an_error_and_so_is_what_it_did_not() {
    let mut producer = Producer::new(options(), &topic(1), 0);
    producer.push(&value(b"a"), at(0)).unwrap();
    producer.end();
    producer.next_request(at(0)).unwrap();
    let refused = producer.answered(10, &answer(0, ErrorCode::TopicAuthorizationFailed.code()), at(0));
    assert_eq!(refused, Err(ProduceError::Refused { partition: 0, code: 29, message: None }));

    let mut producer = Producer::new(options(), &topic(1), 0);
    producer.push(&value(b"a"), at(0)).unwrap();
    producer.end();
    let mut now = at(0);
    for tries in 0.. {
        producer.next_request(now).expect("a try");
        match producer.answered(10, &answer(0, ErrorCode::RequestTimedOut.code()), now) {
            Ok(()) => now = producer.wake_at().unwrap(),
            Err(error) => {
                assert_eq!((tries, error), (3, ProduceError::Refused { partition: 0, code: 7, message: None }));
                break;
            }
        }
    }
    let mut leaderless = Producer::new(options(), &topic(1), 0);
    leaderless.push(&value(b"a"), at(0)).unwrap();
    let ended = (0..10).find_map(|ms| leaderless.set_leaders(None, at(ms)).err());
    assert_eq!(ended, Some(ProduceError::Refused { partition: 0, code: 5, message: None }));
}

#[test]
fn a_batch_that_is_too_large_goes_as_two_with_its_sequences() {
    let mut producer =
        Producer::new(ProducerOptions { compression: Compression::of(Codec::Zstd), ..options() }, &topic(1), 0);
    producer.set_producer_id(1, 0);
    for text in ["a", "b", "c"] {
        producer.push(&value(text.as_bytes()), at(0)).unwrap();
    }
    producer.end();
    producer.next_request(at(0)).unwrap();
    producer.answered(10, &answer(0, ErrorCode::MessageTooLarge.code()), at(0)).unwrap();
    let mut sent = Vec::new();
    while let Some(request) = producer.next_request(at(0)) {
        let batch = &request.batches[0].1;
        sent.push((BatchHeader::parse(batch).unwrap().base_sequence, values_of(batch).concat()));
        producer.answered(10, &answer(0, 0), at(0)).unwrap();
    }
    assert_eq!(sent, [(0, "a".to_owned()), (1, "bc".to_owned())]);
    assert!(producer.is_done());
    assert_eq!(producer.acknowledged().bytes, 3);

    producer.push(&value(b"d"), at(0)).unwrap();
    producer.next_request(at(0)).unwrap();
    let alone = producer.answered(10, &answer(0, ErrorCode::MessageTooLarge.code()), at(0));
    assert_eq!(alone, Err(ProduceError::Refused { partition: 0, code: 10, message: None }));
}

#[test]
fn without_acknowledgements_sent_is_done() {
    let mut producer = Producer::new(ProducerOptions { acks: 0, ..options() }, &topic(1), 0);
    producer.push(&value(b"a"), at(0)).unwrap();
    producer.end();
    producer.next_request(at(0)).unwrap();
    assert!(producer.is_done());
}

#[test]
fn it_is_full_before_it_takes_all_memory_and_refuses_what_no_broker_takes() {
    let mut producer = Producer::new(options(), &topic(1), 0);
    let mut pushed = 0;
    while !producer.is_full() {
        producer.push(&value(&[0; 100]), at(0)).unwrap();
        pushed += 100;
        assert!(pushed < 11_000);
    }
    let long = vec![0; RECORD_BYTES_MAX + 1];
    assert_eq!(producer.push(&value(&long), at(0)), Err(ProduceError::TooLarge(RECORD_BYTES_MAX + 1)));
}

#[test]
fn a_broker_before_batches_gets_message_sets_and_one_before_zstd_none_of_it() {
    let mut producer = Producer::new(options(), &topic(1), 0);
    producer.push(&value(b"a"), at(0)).unwrap();
    producer.end();
    let mut request = producer.next_request(at(0)).unwrap();
    request.fit(2).unwrap();
    let legacy = crate::record::message_set::decode_legacy(&request.batches[0].1, 1000).unwrap();
    assert_eq!((&legacy.records[0].value.as_ref().unwrap()[..], legacy.records[0].timestamp), (&b"a"[..], 5));

    let zstd = ProducerOptions { compression: Compression::of(Codec::Zstd), ..options() };
    let mut producer = Producer::new(zstd, &topic(1), 0);
    producer.push(&value(b"a"), at(0)).unwrap();
    producer.end();
    assert_eq!(producer.next_request(at(0)).unwrap().fit(6), Err(ProduceError::NoZstd));
}

/// A broker of one partition that knows sequences, loses answers and refuses at times.
#[derive(Default)]
struct FakeBroker {
    log: Vec<String>,
    next_sequence: i32,
}

impl FakeBroker {
    fn take(&mut self, batch: &[u8]) -> i16 {
        let header = BatchHeader::parse(batch).unwrap();
        if header.base_sequence < self.next_sequence {
            return ErrorCode::DuplicateSequenceNumber.code();
        }
        assert_eq!(header.base_sequence, self.next_sequence, "in order");
        self.next_sequence += header.record_count;
        self.log.extend(values_of(batch));
        0
    }
}

#[test]
fn whatever_gets_lost_each_record_arrives_once_and_in_order() {
    for seed in 0..50 {
        let mut seed = 0xfeed + seed;
        let mut producer = Producer::new(ProducerOptions { retries_max: 1000, ..options() }, &topic(2), 0);
        producer.set_producer_id(1, 0);
        let mut brokers = [FakeBroker::default(), FakeBroker::default()];
        let mut expected = [Vec::new(), Vec::new()];
        let (mut now, mut pushed) = (at(0), 0);
        while !(pushed == 200 && producer.is_done()) {
            now = now + MS * (random(&mut seed) % 200) as u32;
            if pushed < 200 && !producer.is_full() {
                let partition = (random(&mut seed) % 2) as usize;
                let text = format!("{pushed}{}", "-".repeat((random(&mut seed) % 300) as usize));
                let record = ToRecord { partition: Some(partition as i32), ..value(text.as_bytes()) };
                producer.push(&record, now).unwrap();
                expected[partition].push(text.clone());
                pushed += 1;
            }
            if producer.wants_look(now) {
                producer.set_leaders(Some(&topic(2)), now).unwrap();
            }
            while let Some(request) = producer.next_request(now) {
                let (partition, batch) = &request.batches[0];
                let (luck, broker) = (random(&mut seed) % 10, &mut brokers[*partition as usize]);
                match luck {
                    0 => producer.disconnected(request.leader, now).unwrap(),
                    1 => {
                        broker.take(batch);
                        producer.disconnected(request.leader, now).unwrap();
                    }
                    2 => producer.answered(request.leader, &answer(*partition, 6), now).unwrap(),
                    3 if batch.len() > 200 => {
                        producer.answered(request.leader, &answer(*partition, 10), now).unwrap_or(())
                    }
                    4 => producer.answered(request.leader, &ProduceResponse::default(), now).unwrap(),
                    _ => {
                        let code = broker.take(batch);
                        producer.answered(request.leader, &answer(*partition, code), now).unwrap();
                    }
                }
            }
        }
        assert_eq!(brokers.map(|broker| broker.log), expected, "seed {seed}");
    }
}
