//! Topics with a `compression.type` of their own: what real producers send in any codec is stored in the topic's.

use rdkafka::message::{Header, Headers, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Message};
use ringlog::base::crc32c::crc32c;
use ringlog::protocol::ErrorCode;
use ringlog::record::batch::{BatchBuilder, BatchHeader, TimestampType, set_log_append_time};
use ringlog::record::compression::Codec;

use crate::clients::consume;
use crate::server::{DEADLINE, Server, batches_of, directory};
use crate::wire::Wire;

const SOURCES: [(&str, Codec); 5] = [
    ("none", Codec::None),
    ("gzip", Codec::Gzip),
    ("snappy", Codec::Snappy),
    ("lz4", Codec::Lz4),
    ("zstd", Codec::Zstd),
];
const TARGETS: [(&str, Codec); 5] = [
    ("uncompressed", Codec::None),
    ("gzip", Codec::Gzip),
    ("snappy", Codec::Snappy),
    ("lz4", Codec::Lz4),
    ("zstd", Codec::Zstd),
];
const COUNT: usize = 100;
const FIRST_TIMESTAMP: i64 = 1_600_000_000_000;
const VERSION: i16 = 9;

fn value(index: usize) -> String {
    format!("value {index} {}", "again and ".repeat(30))
}

fn produce(server: &Server, topic: &str, codec: &str) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", server.address.to_string())
        .set("compression.type", codec)
        .set("enable.idempotence", "true")
        .set("batch.num.messages", "30")
        .set("linger.ms", "20")
        .set("message.timeout.ms", "30000")
        .create()
        .expect("a producer");
    for index in 0..COUNT {
        let value = value(index);
        let headers = OwnedHeaders::new().insert(Header { key: "n", value: Some(&index.to_string()) });
        let record = BaseRecord::<(), _>::to(topic).partition(0).payload(&value).headers(headers);
        let record = record.timestamp(FIRST_TIMESTAMP + index as i64);
        producer.send(record).map_err(|(error, _)| error).expect("queued");
    }
    producer.flush(DEADLINE).expect("all delivered");
}

#[test]
fn what_librdkafka_sends_in_each_codec_is_stored_in_the_topics_and_comes_back_as_it_was() {
    let directory = directory();
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    for (target, stored) in TARGETS {
        for (source, _) in SOURCES {
            let topic = format!("{source}-to-{target}");
            // The records are years old.
            let settings = [("compression.type", target), ("retention.ms", "-1")];
            assert_eq!(wire.create_topic_with(&topic, 1, &settings), 0);
            produce(&server, &topic, source);
            for (index, message) in consume(server.address, &topic, COUNT).iter().enumerate() {
                assert_eq!(message.payload(), Some(value(index).as_bytes()), "{topic}");
                assert_eq!(message.timestamp().to_millis(), Some(FIRST_TIMESTAMP + index as i64), "{topic}");
                let index = index.to_string();
                let header = message.headers().expect("headers").get(0);
                assert_eq!(header, Header { key: "n", value: Some(index.as_bytes()) }, "{topic}");
            }
            for batch in batches_of(directory.path(), &topic, 0) {
                let header = BatchHeader::parse(&batch).expect("a header");
                assert_eq!((header.codec(), header.attributes), (Some(stored), stored.id()), "{topic}");
                assert!(header.has_producer_id() && header.base_sequence == header.base_offset as i32, "{topic}");
            }
        }
    }
    server.stop();
}

fn batch(codec: Codec, count: usize) -> bytes::BytesMut {
    let mut builder = BatchBuilder::new(codec);
    (0..count).for_each(|index| builder.push(FIRST_TIMESTAMP, Some(b"k"), Some(value(index).as_bytes()), &[]));
    builder.build()
}

#[test]
fn a_changed_compression_type_and_level_hold_for_the_next_batch() {
    let directory = directory();
    let server = Server::start_with(directory.path(), &["compression.type=zstd"]);
    let mut wire = Wire::connect(server.address);
    assert_eq!(wire.create_topic("changing", 1), 0);
    assert_eq!(wire.produce(VERSION, "changing", 0, &batch(Codec::None, 100)).base_offset, 0);
    let mut expected = vec![Codec::Zstd];
    for (place, (name, codec)) in TARGETS.iter().chain(&[("producer", Codec::Snappy)]).enumerate() {
        crate::configs::set_of_topic(&mut wire, "changing", "compression.type", name);
        let answer = wire.produce(VERSION, "changing", 0, &batch(Codec::Snappy, 100));
        assert_eq!((answer.error_code, answer.base_offset), (0, 100 * (place as i64 + 1)), "{name}");
        expected.push(*codec);
    }
    assert_eq!(server.codecs("changing", 0), expected);

    crate::configs::set_of_topic(&mut wire, "changing", "compression.type", "gzip");
    let mut sizes = Vec::new();
    for level in ["1", "9"] {
        crate::configs::set_of_topic(&mut wire, "changing", "compression.gzip.level", level);
        assert_eq!(wire.produce(VERSION, "changing", 0, &batch(Codec::None, 1000)).error_code, 0);
        sizes.push(batches_of(directory.path(), "changing", 0).pop().expect("just written").len());
    }
    assert!(sizes[1] < sizes[0], "{sizes:?}");
}

#[test]
fn log_append_time_and_sizes_are_those_of_the_batch_that_is_stored() {
    let directory = directory();
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    let settings = [("compression.type", "lz4"), ("message.timestamp.type", "LogAppendTime")];
    assert_eq!(wire.create_topic_with("stamped", 1, &settings), 0);
    let answer = wire.produce(VERSION, "stamped", 0, &batch(Codec::Gzip, 5));
    let stored = batches_of(directory.path(), "stamped", 0).pop().expect("written");
    let header = BatchHeader::parse(&stored).expect("a header");
    assert_eq!((header.codec(), header.timestamp_type()), (Some(Codec::Lz4), TimestampType::LogAppendTime));
    assert!(answer.log_append_time_ms > FIRST_TIMESTAMP && answer.log_append_time_ms == header.max_timestamp);
    assert!(wire.read_all("stamped", 0).iter().all(|record| record.timestamp == header.max_timestamp));
    let mut of_the_producer = batch(Codec::None, 2);
    set_log_append_time(&mut of_the_producer, 5);
    let refused = wire.produce(VERSION, "stamped", 0, &of_the_producer);
    assert_eq!(refused.error_code, ErrorCode::InvalidTimestamp.code());
    assert_eq!(refused.record_errors.iter().map(|error| error.batch_index).collect::<Vec<_>>(), [0, 1]);

    let small = [("compression.type", "uncompressed"), ("max.message.bytes", "5000"), ("segment.bytes", "2000")];
    assert_eq!(wire.create_topic_with("small", 1, &small), 0);
    let mut error_of = |count| wire.produce(VERSION, "small", 0, &batch(Codec::Zstd, count)).error_code;
    assert!(batch(Codec::Zstd, 100).len() < 2000, "as it comes it is small");
    assert_eq!(error_of(100), ErrorCode::MessageTooLarge.code());
    assert_eq!(error_of(10), ErrorCode::RecordListTooLarge.code());
    assert_eq!(error_of(3), 0);
}

#[test]
fn a_lying_codec_is_refused_with_its_batch_alone_and_the_connection_goes_on() {
    let directory = directory();
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    assert_eq!(wire.create_topic_with("lies", 1, &[("compression.type", "gzip")]), 0);
    let told: Vec<i16> = (0..8)
        .map(|codec: u8| {
            let mut lying = batch(Codec::None, 3);
            lying[22] = codec;
            let crc = crc32c(&lying[21..]);
            lying[17..21].copy_from_slice(&crc.to_be_bytes());
            wire.produce(VERSION, "lies", 0, &lying).error_code
        })
        .collect();
    // gzip stays as it is, but records of so long ago are looked into.
    let invalid = ErrorCode::InvalidRecord.code();
    assert_eq!(told, [0, invalid, invalid, invalid, invalid, invalid, invalid, invalid]);
}

#[test]
fn with_rebatch_small_batches_that_meet_become_one_and_everybody_is_told_its_own_offset() {
    const PIPELINED: i64 = 200;
    let directory = directory();
    let server = Server::start_with_flags(directory.path(), &["--rebatch"]);
    let mut wire = Wire::connect(server.address);
    let one = |index: i64, producer: Option<(i64, i16)>| {
        let mut builder = BatchBuilder::new(Codec::None);
        if let Some((id, epoch)) = producer {
            builder = builder.producer(id, epoch, i32::try_from(index).expect("small"));
        }
        builder.push(FIRST_TIMESTAMP + index, None, Some(format!("record {index} {}", "x".repeat(80)).as_bytes()), &[]);
        builder.build()
    };
    let idempotent = wire.new_producer();
    for (topic, setting, stored) in
        [("gathered-gzip", "gzip", Codec::Gzip), ("gathered-as-sent", "producer", Codec::None)]
    {
        assert_eq!(wire.create_topic_with(topic, 1, &[("compression.type", setting)]), 0);
        for producer in [None, Some(idempotent)] {
            let before = batches_of(directory.path(), topic, 0).len();
            for index in 0..PIPELINED {
                wire.send_produce(VERSION, 1, topic, 0, &one(index, producer)).expect("sent");
            }
            let first = if producer.is_none() { 0 } else { PIPELINED };
            for index in 0..PIPELINED {
                let (_, answer) = wire.receive_produce(VERSION).expect("answered");
                assert_eq!((answer.error_code, answer.base_offset), (0, first + index), "{topic}");
            }
            let batches = batches_of(directory.path(), topic, 0).split_off(before);
            if producer.is_none() {
                assert!(batches.len() < PIPELINED as usize, "{topic}: none met another");
            } else {
                assert_eq!(batches.len(), PIPELINED as usize, "{topic}");
            }
        }
        assert!(server.codecs(topic, 0).iter().all(|codec| *codec == stored), "{topic}");
        for (record, index) in wire.read_all(topic, 0).iter().zip((0..PIPELINED).cycle()) {
            assert_eq!(record.timestamp, FIRST_TIMESTAMP + index, "{topic}");
        }
    }
    server.stop();
}
