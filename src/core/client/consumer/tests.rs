use super::*;
use crate::client::cluster::{Partition, Topic};
use crate::protocol::message::{FetchableTopicResponse, RecordsSpan};
use crate::record::batch::BatchBuilder;
use crate::record::compression::Codec;
use crate::record::down_convert::{OldMagic, down_convert};

fn options() -> ConsumerOptions {
    ConsumerOptions { read_committed: false, wait_ms: 1, fetch_bytes: 1000, partition_bytes: 100, retries_max: 3 }
}

fn at(ms: u64) -> Monotonic {
    Monotonic(ms * 1_000_000)
}

fn cluster(leaders: &[Option<i32>]) -> Cluster {
    let partition = |(index, leader): (i32, &Option<i32>)| Partition {
        index,
        leader: *leader,
        leader_epoch: 4,
        replicas: vec![],
        isr: vec![],
        offline_replicas: vec![],
    };
    let topic = Topic {
        name: "t".into(),
        id: crate::base::ids::TopicId::ZERO,
        is_internal: false,
        partitions: (0..).zip(leaders).map(partition).collect(),
    };
    Cluster { topics: BTreeMap::from([("t".to_owned(), topic)]), ..Cluster::default() }
}

/// A consumer of t-0 from this offset, led by broker 7, its first request sent.
fn asked(options: ConsumerOptions, offset: i64, end: Option<i64>) -> Consumer {
    let mut consumer = Consumer::new(options);
    consumer.assign("t".into(), 0, offset, end);
    assert!(consumer.wants_look(at(0)));
    consumer.set_leaders(&cluster(&[Some(7)]), at(0)).unwrap();
    let (leader, request) = consumer.next_request(at(0)).unwrap();
    assert_eq!((leader, request.topics[0].partitions[0].fetch_offset), (7, offset));
    assert!(consumer.next_request(at(0)).is_none(), "one request at a time");
    consumer
}

fn answer_with(code: i16, records: &[u8], aborted: &[(i64, i64)]) -> (FetchResponse, Bytes) {
    let aborted = aborted.iter().map(|(producer_id, first_offset)| AbortedTransaction {
        producer_id: *producer_id,
        first_offset: *first_offset,
    });
    let data = PartitionData {
        error_code: code,
        aborted_transactions: Some(aborted.collect()),
        records: Some(RecordsSpan::of_length(records.len())),
        ..PartitionData::default()
    };
    let topic = FetchableTopicResponse { topic: "t".into(), partitions: vec![data], ..Default::default() };
    (FetchResponse { responses: vec![topic], ..Default::default() }, Bytes::copy_from_slice(records))
}

fn take(consumer: &mut Consumer, records: &[u8], aborted: &[(i64, i64)]) -> Result<Vec<i64>, ConsumeError> {
    let (response, frame) = answer_with(0, records, aborted);
    let (fetched, errors) = consumer.answered(7, &response, &frame, at(1));
    if let Some(error) = errors.into_iter().next() {
        return Err(error);
    }
    let mut offsets = Vec::new();
    for fetched in fetched {
        let shown = fetched.records(|record| {
            offsets.push(record.offset);
            Ok::<(), ()>(())
        })?;
        shown.unwrap();
    }
    Ok(offsets)
}

fn fail(consumer: &mut Consumer, code: ErrorCode) -> Option<ConsumeError> {
    let (response, frame) = answer_with(code.code(), &[], &[]);
    consumer.answered(7, &response, &frame, at(1)).1.into_iter().next()
}

fn next_offset_of(consumer: &mut Consumer, now: Monotonic) -> i64 {
    consumer.next_request(now).unwrap().1.topics[0].partitions[0].fetch_offset
}

fn batch(codec: Codec, base_offset: i64, values: &[&str]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec).base_offset(base_offset);
    for value in values {
        builder.push(1000 + base_offset, Some(b"k"), Some(value.as_bytes()), &[(b"h", None)]);
    }
    builder.build().to_vec()
}

#[test]
fn records_of_every_codec_come_from_the_offset_asked_for_up_to_the_end() {
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let mut consumer = asked(options(), 11, Some(14));
        let records = [batch(codec, 10, &["a", "b", "c"]), batch(codec, 13, &["d", "e"])].concat();
        let (response, frame) = answer_with(0, &records, &[]);
        let (fetched, errors) = consumer.answered(7, &response, &frame, at(1));
        assert!(errors.is_empty());
        let mut seen = Vec::new();
        let shown = fetched[0].records(|record| {
            let headers: Vec<_> = record.headers.iter().collect();
            assert_eq!((record.key, headers), (Some(&b"k"[..]), vec![(&b"h"[..], None)]));
            seen.push((record.offset, record.timestamp, record.value.unwrap().to_vec()));
            Ok::<(), ()>(())
        });
        assert_eq!(shown, Ok(Ok(())));
        let expected = [(11, 1010, b"b".to_vec()), (12, 1010, b"c".to_vec()), (13, 1013, b"d".to_vec())];
        assert_eq!(seen, expected, "{codec:?}");
        assert!(consumer.is_done());
    }
}

#[test]
fn a_batch_that_is_cut_short_is_asked_for_again() {
    let mut consumer = asked(options(), 0, None);
    let whole = batch(Codec::None, 0, &["a"]);
    let records = [&whole[..], &batch(Codec::None, 1, &["b"])[..40]].concat();
    assert_eq!(take(&mut consumer, &records, &[]), Ok(vec![0]));
    assert_eq!(next_offset_of(&mut consumer, at(1)), 1);
    // An old broker that has nothing but a part: more is asked for, up to a limit.
    for expected in [200, 400] {
        assert_eq!(take(&mut consumer, &whole[..40], &[]), Ok(vec![]));
        let (_, request) = consumer.next_request(at(1)).unwrap();
        assert_eq!(request.topics[0].partitions[0].partition_max_bytes, expected);
    }
    let ended = (0..40).find_map(|_| take(&mut consumer, &whole[..40], &[]).err());
    assert!(matches!(ended, Some(ConsumeError::TooLarge { offset: 1, .. })), "{ended:?}");
}

#[test]
fn the_visitor_can_stop_and_damage_is_named_after_what_was_sound() {
    let mut consumer = asked(options(), 0, None);
    let mut records = [batch(Codec::None, 0, &["a"]), batch(Codec::None, 1, &["b"])].concat();
    let (response, frame) = answer_with(0, &records, &[]);
    let (fetched, _) = consumer.answered(7, &response, &frame, at(1));
    assert_eq!(fetched[0].records(|_| Err("enough")), Ok(Err("enough")));

    let mut consumer = asked(options(), 0, None);
    *records.last_mut().unwrap() ^= 1;
    let damaged = take(&mut consumer, &records, &[]).unwrap_err();
    assert_eq!(damaged.to_string(), "the batch at offset 1 of t-0 is damaged: its CRC is wrong");

    let mut consumer = asked(options(), 0, None);
    records[16] = 9;
    assert!(matches!(take(&mut consumer, &records, &[]), Err(ConsumeError::Damaged { offset: 0, .. })));
}

#[test]
fn planted_bytes_neither_panic_nor_loop() {
    let mut seed = 0xdead;
    let sound = [batch(Codec::Zstd, 0, &["a", "b"]), batch(Codec::None, 2, &["c"])].concat();
    for _ in 0..3000 {
        let mut records = sound.clone();
        for _ in 0..4 {
            let place = crate::base::splitmix64::next(&mut seed) as usize % records.len();
            records[place] = crate::base::splitmix64::next(&mut seed) as u8;
        }
        let mut consumer = asked(ConsumerOptions { read_committed: true, ..options() }, 0, None);
        let _ = take(&mut consumer, &records, &[(1, 0)]);
    }
}

#[test]
fn old_message_sets_are_read_too() {
    for magic in [OldMagic::V0, OldMagic::V1] {
        for codec in [Codec::None, Codec::Gzip, Codec::Lz4] {
            let records = down_convert(&batch(codec, 5, &["a", "b", "c"]), magic, 5).unwrap();
            let mut consumer = asked(options(), 6, None);
            assert_eq!(take(&mut consumer, &records, &[]), Ok(vec![6, 7]), "{magic:?} {codec:?}");
            assert_eq!(next_offset_of(&mut consumer, at(1)), 8);
        }
    }
}

#[test]
fn another_leader_is_looked_for_and_asked_from_the_same_offset() {
    let mut consumer = asked(options(), 3, None);
    assert_eq!(fail(&mut consumer, ErrorCode::NotLeaderOrFollower), None);
    assert!(consumer.wants_look(at(60)));
    assert_eq!(consumer.topics(), ["t"]);
    consumer.set_leaders(&cluster(&[Some(8)]), at(60)).unwrap();
    let (leader, request) = consumer.next_request(at(60)).unwrap();
    assert_eq!((leader, request.topics[0].partitions[0].fetch_offset), (8, 3));

    consumer.disconnected(8, at(61)).unwrap();
    assert!(consumer.wants_look(at(120)));
    consumer.set_leaders(&cluster(&[Some(8)]), at(120)).unwrap();
    assert!(consumer.next_request(at(121)).is_none(), "not at once");
    let wake = consumer.wake_at().unwrap();
    assert_eq!(next_offset_of(&mut consumer, wake), 3);
}

#[test]
fn errors_end_it_when_they_do_not_heal() {
    let mut consumer = asked(options(), 3, None);
    let out_of_range = ConsumeError::OutOfRange { topic: "t".into(), partition: 0, offset: 3 };
    assert_eq!(fail(&mut consumer, ErrorCode::OffsetOutOfRange), Some(out_of_range));
    consumer.seek("t", 0, 9);
    assert_eq!(next_offset_of(&mut consumer, at(2)), 9);
    let refused = |code: ErrorCode| Some(ConsumeError::Refused { topic: "t".into(), partition: 0, code: code.code() });
    let authorization = ErrorCode::TopicAuthorizationFailed;
    assert_eq!(fail(&mut consumer, authorization), refused(authorization));
    let ended = (0..5).map(|_| fail(&mut consumer, ErrorCode::OffsetNotAvailable)).collect::<Vec<_>>();
    let error = refused(ErrorCode::OffsetNotAvailable);
    assert_eq!(ended, [None, None, error.clone(), error.clone(), error], "one failure counted before");

    let mut leaderless = asked(options(), 0, None);
    let ended = (0..5).find_map(|ms| leaderless.set_leaders(&cluster(&[None]), at(ms)).err());
    assert_eq!(ended, refused(ErrorCode::LeaderNotAvailable));
}

fn transactional(producer_id: i64, base_offset: i64) -> Vec<u8> {
    let builder = BatchBuilder::new(Codec::None).base_offset(base_offset).producer(producer_id, 0, 0);
    let mut builder = builder.transactional();
    builder.push(0, None, Some(b"v"), &[]);
    builder.build().to_vec()
}

fn marker(producer_id: i64, base_offset: i64, commit: bool) -> Vec<u8> {
    let builder = BatchBuilder::new(Codec::None).base_offset(base_offset).producer(producer_id, 0, -1);
    let mut builder = builder.transactional().control();
    builder.push(0, Some(&[0, 0, 0, u8::from(commit)]), Some(&[0; 6]), &[]);
    builder.build().to_vec()
}

#[test]
fn markers_are_never_shown_and_aborted_records_only_to_who_asks_for_all() {
    let records = [
        transactional(1, 0),
        transactional(2, 1),
        batch(Codec::None, 2, &["plain"]),
        marker(1, 3, false),
        transactional(1, 4),
        marker(2, 5, true),
        marker(1, 6, true),
    ]
    .concat();
    let mut consumer = asked(ConsumerOptions { read_committed: true, ..options() }, 0, Some(7));
    assert_eq!(take(&mut consumer, &records, &[(1, 0)]), Ok(vec![1, 2, 4]));
    assert!(consumer.is_done(), "markers count as read");
    let mut consumer = asked(options(), 0, None);
    assert_eq!(take(&mut consumer, &records, &[]), Ok(vec![0, 1, 2, 4]));
}

#[test]
fn each_broker_is_asked_for_what_it_leads() {
    let mut consumer = Consumer::new(options());
    for partition in 0..3 {
        consumer.assign("t".into(), partition, 0, None);
    }
    consumer.set_leaders(&cluster(&[Some(7), Some(8), Some(7)]), at(0)).unwrap();
    let mut asked = Vec::new();
    while let Some((leader, request)) = consumer.next_request(at(0)) {
        let partitions: Vec<i32> = request.topics[0].partitions.iter().map(|partition| partition.partition).collect();
        assert!(request.topics[0].partitions.iter().all(|partition| partition.current_leader_epoch == 4));
        asked.push((leader, partitions));
    }
    assert_eq!(asked, [(7, vec![0, 2]), (8, vec![1])]);
}
