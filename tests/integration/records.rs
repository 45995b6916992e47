//! What the leader refuses of produced batches, each with Kafka 3.9's code and the records it names.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use ringlog::base::crc32c::crc32c;
use ringlog::protocol::ErrorCode;
use ringlog::record::batch::{BatchBuilder, set_log_append_time};
use ringlog::record::compression::Codec;

use crate::server::{Server, directory};
use crate::wire::Wire;

const VERSION: i16 = 9;
const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
const HOUR_MS: i64 = 3_600_000;

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock past 1970");
    i64::try_from(since.as_millis()).expect("not that late")
}

/// Records by timestamp and whether they have a key.
fn batch(codec: Codec, records: &[(i64, bool)]) -> BytesMut {
    let mut builder = BatchBuilder::new(codec);
    for (timestamp, has_key) in records {
        builder.push(*timestamp, has_key.then_some(b"key"), Some(b"value"), &[]);
    }
    builder.build()
}

fn sound() -> BytesMut {
    batch(Codec::None, &[(now_ms(), true), (now_ms(), true)])
}

/// The batch with other bytes at a place, and the CRC that belongs to them.
fn with(mut batch: BytesMut, position: usize, bytes: &[u8]) -> BytesMut {
    batch[position..position + bytes.len()].copy_from_slice(bytes);
    let crc = crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

fn joined(parts: &[&[u8]]) -> BytesMut {
    BytesMut::from(&parts.concat()[..])
}

#[test]
fn every_refusal_of_a_batch_has_kafkas_code_and_the_next_one_is_taken() {
    let directory = directory();
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    assert_eq!(wire.create_topic_with("table", 1, &[("max.message.bytes", "2000"), ("segment.bytes", "1000")]), 0);
    let wrong_crc = {
        let mut batch = sound();
        batch[20] ^= 1;
        batch
    };
    let with_producer = |id, epoch, sequence| {
        let mut builder = BatchBuilder::new(Codec::None).producer(id, epoch, sequence);
        builder.push(now_ms(), None, None, &[]);
        builder.build()
    };
    let control = {
        let mut builder = BatchBuilder::new(Codec::None).control();
        builder.push(now_ms(), Some(b"k"), None, &[]);
        builder.build()
    };
    let value_of = |bytes: usize| {
        let mut builder = BatchBuilder::new(Codec::None);
        builder.push(now_ms(), None, Some(&vec![7; bytes]), &[]);
        builder.build()
    };
    let (invalid, corrupt) = (ErrorCode::InvalidRecord, ErrorCode::CorruptMessage);
    let cases: Vec<(&str, i16, BytesMut, ErrorCode)> = vec![
        ("no bytes at all", VERSION, BytesMut::new(), invalid),
        ("half a batch", VERSION, joined(&[&sound()[..40]]), invalid),
        ("two batches", VERSION, joined(&[&sound(), &sound()]), invalid),
        ("two batches in an old version", 2, joined(&[&sound(), &sound()]), invalid),
        ("magic 1 in a new version", VERSION, with(sound(), 16, &[1]), invalid),
        ("magic 3", VERSION, with(sound(), 16, &[3]), corrupt),
        ("magic -1", VERSION, with(sound(), 16, &[0xff]), corrupt),
        ("a length below that of a header", VERSION, with(sound(), 8, &20i32.to_be_bytes()), corrupt),
        ("a negative length", VERSION, with(sound(), 8, &(-5i32).to_be_bytes()), corrupt),
        ("a wrong CRC", VERSION, wrong_crc, corrupt),
        ("a base offset", VERSION, with(sound(), 0, &7i64.to_be_bytes()), invalid),
        ("a record too few", VERSION, with(sound(), 57, &1i32.to_be_bytes()), invalid),
        ("no records", VERSION, with(sound(), 57, &0i32.to_be_bytes()), invalid),
        ("a negative count", VERSION, with(sound(), 57, &(-2i32).to_be_bytes()), invalid),
        ("a negative last offset", VERSION, with(sound(), 23, &(-1i32).to_be_bytes()), invalid),
        ("the largest last offset", VERSION, with(sound(), 23, &i32::MAX.to_be_bytes()), invalid),
        ("a codec that does not exist", VERSION, with(sound(), 22, &[6]), invalid),
        ("a control batch", VERSION, control, invalid),
        ("a producer without sequence", VERSION, with_producer(5, 0, -1), invalid),
        ("zstd too early", 6, batch(Codec::Zstd, &[(now_ms(), true)]), ErrorCode::UnsupportedCompressionType),
        ("more than max.message.bytes", VERSION, value_of(2000), ErrorCode::MessageTooLarge),
        ("more than segment.bytes", VERSION, value_of(1000), ErrorCode::RecordListTooLarge),
    ];
    for (appended, (what, version, records, code)) in cases.into_iter().enumerate() {
        let answer = wire.produce(version, "table", 0, &records);
        assert_eq!((answer.error_code, answer.base_offset), (code.code(), -1), "{what}: {:?}", answer.error_message);
        assert_eq!((answer.log_append_time_ms, answer.log_start_offset), (-1, -1), "{what}");
        assert!(answer.record_errors.is_empty(), "{what}");
        let answer = wire.produce(VERSION, "table", 0, &sound());
        assert_eq!((answer.error_code, answer.base_offset), (0, appended as i64 * 2), "after {what}");
    }
    let torn = joined(&[&sound(), &sound()[..50]]);
    assert_eq!(wire.produce(VERSION, "table", 0, &torn).error_code, 0, "Kafka leaves a torn tail out");
    assert_eq!(wire.produce(2, "table", 0, &sound()).error_code, 0, "Kafka takes a batch in an old version too");
}

#[test]
fn refused_records_are_named_in_every_codec() {
    let directory = directory();
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    let compacted = ("cleanup.policy", "compact");
    let before = ("message.timestamp.before.max.ms", "3600000");
    let after = ("message.timestamp.after.max.ms", "3600000");
    let (key, timestamp) = (ErrorCode::InvalidRecord, ErrorCode::InvalidTimestamp);
    let hours = |hours: i64| now_ms() + hours * HOUR_MS;
    let cases: [(&str, &[(&str, &str)], [(i64, bool); 4], Option<(ErrorCode, &[i32])>); 7] = [
        ("keys", &[compacted], [(0, true), (1, false), (2, true), (3, false)], Some((key, &[1, 3]))),
        ("keys-there", &[compacted], [(0, true), (1, true), (2, true), (3, true)], None),
        ("early", &[before], [hours(0), hours(-2), hours(5), -1].map(|at| (at, false)), Some((timestamp, &[1]))),
        ("late", &[after], [hours(2), hours(-2), hours(0), -1].map(|at| (at, false)), Some((timestamp, &[0]))),
        (
            "both",
            &[before, after],
            [hours(2), hours(-2), hours(0), -1].map(|at| (at, false)),
            Some((timestamp, &[0, 1])),
        ),
        (
            "keys-and-times",
            &[compacted, before],
            [(hours(0), false), (hours(-2), true), (hours(-2), false), (-1, true)],
            Some((timestamp, &[0, 1, 2])),
        ),
        ("free", &[], [hours(-99), hours(99), 0, -1].map(|at| (at, false)), None),
    ];
    for (name, settings, records, refused) in cases {
        for target in ["producer", "gzip"] {
            let topic = format!("{name}-{target}");
            let settings: Vec<_> = settings.iter().copied().chain([("compression.type", target)]).collect();
            assert_eq!(wire.create_topic_with(&topic, 1, &settings), 0);
            for codec in CODECS {
                let answer = wire.produce(VERSION, &topic, 0, &batch(codec, &records));
                let (code, indices) = refused.unwrap_or((ErrorCode::None, &[]));
                let named: Vec<_> = answer.record_errors.iter().map(|error| error.batch_index).collect();
                assert_eq!((answer.error_code, &named[..]), (code.code(), indices), "{topic} {codec:?}");
                assert_eq!(answer.error_message.is_some(), refused.is_some(), "{topic} {codec:?}");
                assert!(answer.record_errors.iter().all(|error| error.batch_index_error_message.is_some()), "{topic}");
            }
        }
    }
}

#[test]
fn a_producers_timestamp_type_and_max_timestamp_are_set_right() {
    let directory = directory();
    let server = Server::start_with_flags(directory.path(), &["--validate=full"]);
    let mut wire = Wire::connect(server.address);
    assert_eq!(wire.create_topic("times", 1), 0);
    for codec in CODECS {
        let mut append_time = batch(codec, &[(1000, true), (2000, true)]);
        set_log_append_time(&mut append_time, 5000);
        assert_eq!(wire.produce(VERSION, "times", 0, &append_time).error_code, 0, "{codec:?}");
        let wrong = with(batch(codec, &[(1000, true), (2000, true)]), 35, &77_777i64.to_be_bytes());
        assert_eq!(wire.produce(VERSION, "times", 0, &wrong).error_code, 0, "{codec:?}");
    }
    let batches = crate::server::batches_of(directory.path(), "times", 0);
    let headers = batches.iter().map(|batch| ringlog::record::batch::BatchHeader::parse(batch).expect("a header"));
    let found: Vec<_> = headers.map(|header| (header.attributes & 0x08, header.max_timestamp)).collect();
    assert_eq!(found, [(0, 5000), (0, 2000)].repeat(5));
    assert_eq!(wire.read_all("times", 0).len(), 20);
}

#[test]
fn a_bomb_is_refused_and_holds_up_nobody() {
    let directory = directory();
    let server = Server::start_with_flags(directory.path(), &["--validate=full"]);
    let mut wire = Wire::connect(server.address);
    assert_eq!(wire.create_topic("bombs", 2), 0);
    let zeros = vec![0; 129 << 20];
    let mut builder = BatchBuilder::new(Codec::Zstd);
    builder.push(now_ms(), None, Some(&zeros), &[]);
    let bomb = builder.build();
    assert!(bomb.len() < 64 * 1024, "small as it comes");
    // Another partition of the same connection is served meanwhile, and answered in order.
    wire.send_produce(VERSION, 1, "bombs", 0, &bomb).expect("sent");
    wire.send_produce(VERSION, 1, "bombs", 1, &sound()).expect("sent");
    wire.send_produce(VERSION, 1, "bombs", 0, &sound()).expect("sent");
    let mut other = Wire::connect(server.address);
    assert_eq!(other.produce(VERSION, "bombs", 0, &sound()).error_code, 0);
    let told: Vec<_> = (0..3).map(|_| wire.receive_produce(VERSION).expect("answered").1.error_code).collect();
    assert_eq!(told, [ErrorCode::InvalidRecord.code(), 0, 0]);
}

#[test]
fn two_billion_records_in_a_hundred_bytes_are_refused_and_neither_move_nor_roll_the_log() {
    let directory = directory();
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    assert_eq!(wire.create_topic("counts", 1), 0);
    for round in 0..20 {
        for codec in &CODECS[1..] {
            let lie = with(batch(*codec, &[(now_ms(), true)]), 57, &i32::MAX.to_be_bytes());
            let lie = with(lie, 23, &(i32::MAX - 1).to_be_bytes());
            assert!(lie.len() < 130);
            let answer = wire.produce(VERSION, "counts", 0, &lie);
            assert_eq!(answer.error_code, ErrorCode::InvalidRecord.code(), "{codec:?}");
        }
        assert_eq!(wire.produce(VERSION, "counts", 0, &sound()).base_offset, round * 2);
    }
    let partition = crate::server::data_path(directory.path()).join("counts-0");
    let logs = std::fs::read_dir(partition).expect("the partition's directory").filter_map(Result::ok);
    let logs = logs.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "log"));
    assert_eq!(logs.count(), 1);
}

#[test]
fn a_bad_frame_of_one_client_takes_no_other_clients_sound_batch() {
    let directory = directory();
    let server = Server::start(directory.path());
    let (mut bad, mut good) = (Wire::connect(server.address), Wire::connect(server.address));
    let keyed = [("cleanup.policy", "compact")];
    assert_eq!(bad.create_topic_with("looked-into", 1, &keyed), 0);
    for codec in &CODECS[1..] {
        let mut builder = BatchBuilder::new(*codec);
        (0..100).for_each(|at| builder.push(now_ms(), Some(b"key"), Some(&[at; 40]), &[]));
        let whole = builder.build();
        let header = ringlog::record::batch::BatchHeader::parse(&whole).expect("a header");
        for cut in (1..whole.len() - 61).step_by(7) {
            // The end mark of an LZ4 frame are four bytes.
            let unfinished = header.seal(&whole[61..whole.len() - cut]);
            let refused = bad.produce(VERSION, "looked-into", 0, &unfinished);
            assert_eq!(refused.error_code, ErrorCode::InvalidRecord.code(), "{codec:?} cut by {cut}");
            assert_eq!(good.produce(VERSION, "looked-into", 0, &whole).error_code, 0, "{codec:?} after a cut by {cut}");
        }
    }
}
