//! What the leader asks of a batch before it appends it, each demand broken once on the wire (`LogValidator` of Kafka 3.9).

use ringlog::base::crc32c::crc32c;
use ringlog::protocol::ErrorCode;
use ringlog::protocol::message::produce::PartitionProduceResponse;
use ringlog::record::batch::{BATCH_HEADER_BYTES, BatchBuilder};
use ringlog::record::compression::Codec;

use super::Bench;
use super::codes::{create_topic, end_offset};

const VERSION: i16 = 9;
const LAST_BEFORE_ZSTD: i16 = 6;
const LAST_OF_MESSAGE_SETS: i16 = 2;

/// 2023, inside every bound but the ones that a topic names.
const TIMESTAMP: i64 = 1_700_000_000_000;

struct Row {
    name: &'static str,
    /// Of the topic.
    config: &'static [(&'static str, &'static str)],
    version: i16,
    records: Vec<u8>,
    code: ErrorCode,
    /// The records that the answer names.
    record_errors: &'static [i32],
}

fn builder(codec: Codec, keys: &[Option<&[u8]>]) -> BatchBuilder {
    let mut builder = BatchBuilder::new(codec);
    for (at, key) in keys.iter().enumerate() {
        builder.push(TIMESTAMP + at as i64, *key, Some(b"value"), &[]);
    }
    builder
}

fn batch(codec: Codec) -> Vec<u8> {
    builder(codec, &[Some(b"a"), Some(b"b"), Some(b"c")]).build().to_vec()
}

fn value_of(bytes: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Codec::None);
    builder.push(TIMESTAMP, Some(b"a"), Some(&vec![b'x'; bytes]), &[]);
    builder.build().to_vec()
}

/// A batch with bytes replaced, and its CRC right again.
fn with(mut batch: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    batch[at..at + bytes.len()].copy_from_slice(bytes);
    let crc = crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

/// One message of magic 0, or 1, without a key.
fn message(magic: u8) -> Vec<u8> {
    let mut body = vec![magic, 0];
    if magic == 1 {
        body.extend_from_slice(&TIMESTAMP.to_be_bytes());
    }
    body.extend_from_slice(&[0xff; 4]);
    body.extend_from_slice(&[0, 0, 0, 1, b'v']);
    let length = i32::try_from(body.len() + 4).expect("short").to_be_bytes();
    [&[0; 8][..], &length, &crc32fast::hash(&body).to_be_bytes(), &body].concat()
}

fn rows() -> Vec<Row> {
    use ErrorCode::{
        CorruptMessage, InvalidRecord, InvalidTimestamp, MessageTooLarge, None as Appended, RecordListTooLarge,
        UnsupportedCompressionType,
    };
    let plain = || batch(Codec::None);
    let row = |name, records, code| Row { name, config: &[], version: VERSION, records, code, record_errors: &[] };
    let count = plain().len();
    let torn = |mut records: Vec<u8>| {
        records[count - 1] ^= 1;
        records
    };
    let compacted: &[(&str, &str)] = &[("cleanup.policy", "compact")];
    let keyless = |codec| builder(codec, &[Some(b"a"), None, Some(b"c"), None]).build().to_vec();
    let mut rows = vec![
        row("a sound batch", plain(), Appended),
        row("a sound batch of each codec: gzip", batch(Codec::Gzip), Appended),
        row("a sound batch of each codec: snappy", batch(Codec::Snappy), Appended),
        row("a sound batch of each codec: lz4", batch(Codec::Lz4), Appended),
        row("a sound batch of each codec: zstd", batch(Codec::Zstd), Appended),
        row("a wrong CRC", torn(plain()), CorruptMessage),
        row("a length below that of a header", with(plain(), 8, &[0, 0, 0, 48]), CorruptMessage),
        row("a negative length", with(plain(), 8, &[0xff; 4]), CorruptMessage),
        row("a batch cut short", plain()[..count - 1].to_vec(), InvalidRecord),
        row("half a header", plain()[..30].to_vec(), InvalidRecord),
        row("no batch at all", Vec::new(), InvalidRecord),
        row("two batches", [plain(), plain()].concat(), InvalidRecord),
        row("magic 1", with(plain(), 16, &[1]), InvalidRecord),
        row("magic 3", with(plain(), 16, &[3]), CorruptMessage),
        row("a last offset that does not fit the count", with(plain(), 23, &[0, 0, 0, 9]), InvalidRecord),
        row("a negative last offset", with(plain(), 23, &[0xff; 4]), InvalidRecord),
        row("a count that does not fit the last offset", with(plain(), 57, &[0, 0, 0, 9]), InvalidRecord),
        row("no record", with(plain(), 57, &[0; 4]), InvalidRecord),
        row("a negative count", with(plain(), 57, &[0xff; 4]), InvalidRecord),
        row("a base offset", with(plain(), 0, &[0, 0, 0, 0, 0, 0, 0, 5]), InvalidRecord),
        row("control records", with(plain(), 21, &[0, 0x20]), InvalidRecord),
        row("a record behind the last", with(plain(), BATCH_HEADER_BYTES, &[2]), InvalidRecord),
        row("an offset that is there twice", with(plain(), BATCH_HEADER_BYTES + 3, &[2]), InvalidRecord),
        row("a codec that there is not", with(plain(), 21, &[0, 5]), InvalidRecord),
        row(
            "a producer without a sequence",
            builder(Codec::None, &[None]).producer(9, 0, -1).build().to_vec(),
            InvalidRecord,
        ),
        // Kafka 3.9 `LogValidator.validateTimestamp` minds it where the broker sets the time, and only there.
        row("a timestamp type that is not the producer's", with(plain(), 21, &[0, 8]), Appended),
        Row {
            config: &[("message.timestamp.type", "LogAppendTime")],
            record_errors: &[0, 1, 2],
            ..row(
                "a timestamp type that is not the producer's, by append time",
                with(plain(), 21, &[0, 8]),
                InvalidTimestamp,
            )
        },
    ];
    rows.extend([
        Row { version: LAST_BEFORE_ZSTD, ..row("zstd of old", batch(Codec::Zstd), UnsupportedCompressionType) },
        Row { config: &[("max.message.bytes", "1000")], ..row("too large", value_of(2000), MessageTooLarge) },
        Row {
            config: &[("segment.bytes", "1000")],
            ..row("larger than a segment", value_of(2000), RecordListTooLarge)
        },
        Row {
            config: compacted,
            record_errors: &[1, 3],
            ..row("no keys where they are needed", keyless(Codec::None), InvalidRecord)
        },
        Row {
            config: compacted,
            record_errors: &[1, 3],
            ..row("no keys where they are needed, compressed", keyless(Codec::Gzip), InvalidRecord)
        },
        Row { config: compacted, ..row("gzip that is none", with(plain(), 21, &[0, 1]), InvalidRecord) },
        Row {
            config: &[("message.timestamp.before.max.ms", "1000")],
            record_errors: &[0, 1, 2],
            ..row("timestamps too early", plain(), InvalidTimestamp)
        },
        Row {
            config: &[("message.timestamp.after.max.ms", "1000")],
            record_errors: &[0],
            ..row(
                "a timestamp too late",
                {
                    let mut late = BatchBuilder::new(Codec::None);
                    late.push(i64::MAX / 2, None, Some(b"v"), &[]);
                    late.build().to_vec()
                },
                InvalidTimestamp,
            )
        },
    ]);
    for (name, records, code) in [
        ("a message of magic 0", message(0), Appended),
        ("a message of magic 1", message(1), Appended),
        ("messages of two magics", [message(0), message(1)].concat(), InvalidRecord),
        ("a message with a wrong CRC", torn_message(), CorruptMessage),
        ("an empty message set", Vec::new(), Appended),
    ] {
        rows.push(Row { version: LAST_OF_MESSAGE_SETS, ..row(name, records, code) });
    }
    rows
}

fn torn_message() -> Vec<u8> {
    let mut message = message(1);
    *message.last_mut().expect("a byte") ^= 1;
    message
}

#[test]
fn every_demand_on_a_batch_is_held_with_kafkas_code_and_nothing_refused_is_appended() {
    let mut bench = Bench::start(&[]);
    for (at, row) in rows().into_iter().enumerate() {
        let topic = format!("row-{at}");
        create_topic(&mut bench.witness, &topic, row.config);
        let answer: PartitionProduceResponse = bench.witness.produce(row.version, &topic, 0, &row.records);
        assert_eq!(ErrorCode::from_code(answer.error_code), Some(row.code), "{}: {:?}", row.name, answer.error_message);
        let named: Vec<i32> = answer.record_errors.iter().map(|error| error.batch_index).collect();
        assert_eq!(named, row.record_errors, "{}", row.name);
        let appended = row.code == ErrorCode::None && !row.records.is_empty();
        assert_eq!(end_offset(&mut bench.witness, &topic) > 0, appended, "{}", row.name);
        bench.assert_serves();
    }
    assert_eq!(bench.refused(), 0, "a refused batch closes no connection");
    bench.server.stop();
}

#[test]
fn a_topic_of_append_time_tells_the_time() {
    let mut bench = Bench::start(&[]);
    create_topic(&mut bench.witness, "appended", &[("message.timestamp.type", "LogAppendTime")]);
    create_topic(&mut bench.witness, "created", &[]);
    let mut produce = |topic: &str| bench.witness.produce(VERSION, topic, 0, &batch(Codec::None)).log_append_time_ms;
    assert!(produce("appended") > TIMESTAMP);
    assert_eq!(produce("created"), -1);
}
