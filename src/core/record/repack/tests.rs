use proptest::prelude::*;

use super::*;
use crate::record::batch::{
    BatchBuilder, Record, TimestampType, decode_records, has_valid_crc, records_body, set_log_append_time,
};

const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
const LIMIT: usize = 1 << 24;

fn repacked(batch: &[u8], target: Compression) -> BytesMut {
    let header = BatchHeader::parse(batch).unwrap();
    let body = records_body(&header, batch, LIMIT).unwrap();
    repack(&[(header, &body)], target, LIMIT).unwrap()
}

fn built(codec: Codec, records: &[Record]) -> BytesMut {
    let mut builder = BatchBuilder::new(codec).producer(77, 3, 4000);
    for record in records {
        let headers: Vec<_> = record.headers.iter().map(|(key, value)| (&key[..], value.as_deref())).collect();
        builder.push(record.timestamp, record.key.as_deref(), record.value.as_deref(), &headers);
    }
    builder.build()
}

fn record() -> impl Strategy<Value = Record> {
    let bytes = || prop::collection::vec(0u8..4, 0..200).prop_map(bytes::Bytes::from);
    let headers = prop::collection::vec((bytes(), prop::option::of(bytes())), 0..3);
    (prop::option::of(bytes()), prop::option::of(bytes()), headers, -1i64..1 << 45)
        .prop_map(|(key, value, headers, timestamp)| Record { offset: 0, timestamp, key, value, headers })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// From each codec to each codec; the builder's own batch is what Kafka's class makes of the records.
    #[test]
    fn records_and_producer_stay_and_the_batch_is_the_one_that_a_builder_makes(
        records in prop::collection::vec(record(), 1..40),
    ) {
        for source in CODECS {
            let batch = built(source, &records);
            for target in CODECS {
                let packed = repacked(&batch, Compression::of(target));
                prop_assert!(has_valid_crc(&packed));
                prop_assert_eq!(&packed, &built(target, &records), "{:?} {:?}", source, target);
                prop_assert_eq!(decode_records(&packed, LIMIT).unwrap(), decode_records(&batch, LIMIT).unwrap());
            }
        }
    }
}

#[test]
fn what_only_a_log_may_say_is_gone_and_the_transactional_bit_stays() {
    let mut builder = BatchBuilder::new(Codec::Gzip).base_offset(50).leader_epoch(9).producer(5, 1, 8).transactional();
    builder.push(1000, Some(b"k"), None, &[]);
    builder.push(900, None, Some(b"v"), &[]);
    let mut batch = builder.build();
    set_log_append_time(&mut batch, 7777);
    let header = BatchHeader::parse(&repacked(&batch, Compression::of(Codec::Zstd))).unwrap();
    assert_eq!((header.base_offset, header.leader_epoch, header.last_offset_delta), (0, -1, 1));
    assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (5, 1, 8));
    assert_eq!((header.codec(), header.timestamp_type()), (Some(Codec::Zstd), TimestampType::CreateTime));
    assert!(header.is_transactional() && header.attributes == 0x14);
    assert_eq!((header.base_timestamp, header.max_timestamp), (7777, 7777), "what its records read as");
}

#[test]
fn a_delete_horizon_leaves_the_records_their_timestamps() {
    let mut out = Vec::new();
    put_view(&mut out, -500, 0, &view(b"a"));
    put_view(&mut out, -300, 1, &view(b"b"));
    let first = BatchHeader::parse(&built(Codec::None, &[Record::default(), Record::default()])).unwrap();
    // Bit 6: the base timestamp is a delete horizon.
    let batch = BatchHeader { attributes: 0x40, base_timestamp: 10_000, ..first }.seal(&out);
    let header = BatchHeader::parse(&repacked(&batch, Compression::of(Codec::Lz4))).unwrap();
    assert_eq!((header.attributes, header.base_timestamp, header.max_timestamp), (3, 9500, 9700));
}

fn view(key: &[u8]) -> crate::record::records::RecordView<'_> {
    let (value, headers) = (None, &[][..]);
    crate::record::records::RecordView {
        timestamp_delta: 0,
        offset_delta: 0,
        key: Some(key),
        value,
        header_count: 0,
        headers,
    }
}

#[test]
fn numbers_that_were_written_too_long_become_short() {
    // length 9, attributes 7, timestamp delta 0 in two bytes, offset delta 0 in two, null key as -3, null value, none
    let long: &[u8] = &[18, 7, 0x80, 0, 0x80, 0, 5, 1, 0x80, 0];
    let first = BatchHeader::parse(&built(Codec::None, &[Record::default()])).unwrap();
    let packed = repacked(&first.seal(long), Compression::of(Codec::None));
    assert_eq!(packed[BATCH_HEADER_BYTES..], [12, 0, 0, 0, 1, 1, 0]);
}

#[test]
fn a_time_before_1970_and_a_batch_over_the_limit_are_refused() {
    let record = Record { timestamp: -2, ..Record::default() };
    let batch = built(Codec::None, &[record]);
    let header = BatchHeader::parse(&batch).unwrap();
    let body = &batch[BATCH_HEADER_BYTES..];
    let refused = repack(&[(header, body)], Compression::of(Codec::Gzip), LIMIT);
    assert!(matches!(refused, Err(RepackError::Timestamp { index: 0, timestamp: -2 })));
    let batch = built(Codec::None, &[Record::default()]);
    let header = BatchHeader::parse(&batch).unwrap();
    let sources = [(header, &batch[BATCH_HEADER_BYTES..])];
    assert!(repack(&sources, Compression::of(Codec::None), batch.len()).is_ok());
    let refused = repack(&sources, Compression::of(Codec::None), batch.len() - 1);
    assert!(matches!(refused, Err(RepackError::TooLarge(_))));
}

#[test]
fn small_batches_of_any_codec_become_one_in_their_order() {
    let batches: Vec<BytesMut> = (0..10)
        .map(|place: usize| {
            let mut builder = BatchBuilder::new(CODECS[place % 5]);
            for index in 0..=place {
                builder.push(1000 - place as i64, None, Some(format!("{place} {index}").as_bytes()), &[]);
            }
            builder.build()
        })
        .collect();
    for target in CODECS {
        let merged = merge(&batches, Compression::of(target), LIMIT, LIMIT).expect("they are sound");
        let expected = batches.iter().flat_map(|batch| decode_records(batch, LIMIT).unwrap());
        let found = decode_records(&merged, LIMIT).unwrap();
        assert_eq!(found.iter().map(|record| record.offset).collect::<Vec<_>>(), (0..55).collect::<Vec<_>>());
        assert!(
            expected
                .map(|record| (record.timestamp, record.value))
                .eq(found.into_iter().map(|record| (record.timestamp, record.value)))
        );
    }
    assert!(merge(&batches, Compression::of(Codec::Gzip), 100, LIMIT).is_none(), "they would become too long");
    assert!(merge(&batches, Compression::of(Codec::Gzip), LIMIT, 100).is_none(), "the batch would be too long");
}
