use bytes::BytesMut;

use super::*;
use crate::record::batch::{BatchBuilder, set_log_append_time};
use crate::record::tests::next;

fn rules() -> ProduceRules {
    ProduceRules {
        max_message_bytes: 1 << 20,
        compacted: false,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: i64::MAX,
        now: 1_000_000,
        validate_full: false,
        zstd_allowed: true,
        decompressed_bytes_max: 1 << 20,
    }
}

fn builder(codec: Codec) -> BatchBuilder {
    let mut builder = BatchBuilder::new(codec);
    builder.push(999_000, Some(b"k"), Some(b"v"), &[(b"h", None)]);
    builder.push(1_000_500, None, Some(b"w"), &[]);
    builder
}

fn with(mut batch: BytesMut, position: usize, bytes: &[u8]) -> BytesMut {
    batch[position..position + bytes.len()].copy_from_slice(bytes);
    let crc = crate::base::crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

#[track_caller]
fn assert_invalid_record(mut batch: BytesMut, rules: &ProduceRules) {
    let refused = validate_produce(&mut batch, rules);
    assert!(matches!(refused, Err(InvalidBatch::InvalidRecord { .. })), "{refused:?}");
}

#[test]
fn a_sound_batch_passes_untouched_in_every_codec() {
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let batch = builder(codec).build();
        let mut checked = batch.clone();
        let full = ProduceRules { validate_full: true, ..rules() };
        for rules in [rules(), full] {
            let header = validate_produce(&mut checked, &rules).unwrap();
            assert_eq!((header.record_count, header.max_timestamp), (2, 1_000_500));
            assert_eq!(checked, batch);
        }
    }
}

#[test]
fn a_flipped_bit_past_the_crc_is_corrupt() {
    let batch = builder(Codec::None).build();
    for at in 17..batch.len() {
        let mut flipped = batch.clone();
        flipped[at] ^= 0x10;
        assert!(validate_produce(&mut flipped, &rules()).is_err(), "{at}");
    }
}

#[test]
fn sizes_are_checked_one_below_and_one_above() {
    let mut batch = builder(Codec::None).build();
    let exact = ProduceRules { max_message_bytes: batch.len(), ..rules() };
    assert!(validate_produce(&mut batch, &exact).is_ok());
    let below = ProduceRules { max_message_bytes: batch.len() - 1, ..rules() };
    assert!(matches!(validate_produce(&mut batch, &below), Err(InvalidBatch::TooLarge { .. })));
    assert_invalid_record(BytesMut::from(&batch[..batch.len() - 1]), &rules());
    assert_invalid_record(BytesMut::from(&[&batch[..], &batch[..]].concat()[..]), &rules());
    assert_invalid_record(BytesMut::new(), &rules());
    let mut short = with(batch, 8, &48i32.to_be_bytes());
    assert!(matches!(validate_produce(&mut short, &rules()), Err(InvalidBatch::Corrupt(_))));
}

#[test]
fn headers_that_kafka_refuses_are_refused() {
    let batch = || builder(Codec::None).build();
    assert_invalid_record(builder(Codec::None).base_offset(1).build(), &rules());
    assert_invalid_record(builder(Codec::None).control().build(), &rules());
    assert_invalid_record(builder(Codec::None).producer(5, 0, -1).build(), &rules());
    assert_invalid_record(with(batch(), 16, &[1]), &rules());
    assert_invalid_record(with(batch(), 22, &[5]), &rules());
    assert_invalid_record(with(batch(), 23, &2i32.to_be_bytes()), &rules());
    assert_invalid_record(with(batch(), 57, &3i32.to_be_bytes()), &rules());
    let none = with(with(batch(), 57, &0i32.to_be_bytes()), 23, &(-1i32).to_be_bytes());
    assert_invalid_record(none, &rules());
    let mut zstd = builder(Codec::Zstd).build();
    let old = ProduceRules { zstd_allowed: false, ..rules() };
    assert!(matches!(validate_produce(&mut zstd, &old), Err(InvalidBatch::UnsupportedCompression)));
}

#[test]
fn records_that_do_not_fit_their_header_are_refused() {
    let three = with(with(builder(Codec::None).build(), 57, &3i32.to_be_bytes()), 23, &2i32.to_be_bytes());
    assert_invalid_record(three, &rules());
    // The first record's offset delta is its fourth byte here: length, attributes, timestamp delta 0.
    assert_invalid_record(with(builder(Codec::None).build(), 61 + 3, &[2]), &rules());
    let damaged = with(builder(Codec::Gzip).build(), 61, &[0]);
    assert_invalid_record(damaged, &ProduceRules { validate_full: true, ..rules() });
}

#[test]
fn a_compacted_topic_names_the_records_without_key() {
    let compacted = ProduceRules { compacted: true, ..rules() };
    for codec in [Codec::None, Codec::Lz4] {
        match validate_produce(&mut builder(codec).build(), &compacted) {
            Err(InvalidBatch::InvalidRecord { record_errors, .. }) => {
                assert_eq!(record_errors.iter().map(|error| error.batch_index).collect::<Vec<_>>(), [1]);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn timestamps_are_held_to_the_topics_bounds() {
    let bounded =
        |before, after| ProduceRules { timestamp_before_max_ms: before, timestamp_after_max_ms: after, ..rules() };
    for codec in [Codec::None, Codec::Zstd] {
        assert!(validate_produce(&mut builder(codec).build(), &bounded(1000, 500)).is_ok());
        for (rules, index) in [(bounded(999, 500), 0), (bounded(1000, 499), 1)] {
            match validate_produce(&mut builder(codec).build(), &rules) {
                Err(InvalidBatch::InvalidTimestamp { record_errors, .. }) => {
                    assert_eq!(record_errors.iter().map(|error| error.batch_index).collect::<Vec<_>>(), [index]);
                }
                other => panic!("{other:?}"),
            }
        }
    }
    let mut none = BatchBuilder::new(Codec::None);
    none.push(NO_TIMESTAMP, None, None, &[]);
    assert!(validate_produce(&mut none.build(), &bounded(1, 1)).is_ok(), "no timestamp is timely");
    let append_time = ProduceRules { timestamp_type: TimestampType::LogAppendTime, ..bounded(1, 1) };
    assert!(validate_produce(&mut builder(Codec::None).build(), &append_time).is_ok(), "LogAppendTime has no bounds");
}

#[test]
fn a_producers_append_time_is_refused_unless_the_topic_has_it() {
    let mut batch = builder(Codec::None).build();
    set_log_append_time(&mut batch, 5);
    assert!(matches!(validate_produce(&mut batch, &rules()), Err(InvalidBatch::InvalidTimestamp { .. })));
    let append_time = ProduceRules { timestamp_type: TimestampType::LogAppendTime, ..rules() };
    assert!(validate_produce(&mut batch, &append_time).is_ok());
}

#[test]
fn a_wrong_max_timestamp_is_corrected_in_place() {
    let mut batch = with(builder(Codec::None).build(), 35, &7i64.to_be_bytes());
    let header = validate_produce(&mut batch, &rules()).unwrap();
    assert_eq!(header.max_timestamp, 1_000_500);
    assert_eq!(batch, builder(Codec::None).build());
}

#[test]
fn a_bomb_is_refused() {
    let mut builder = BatchBuilder::new(Codec::Gzip);
    builder.push(1, None, Some(&vec![0; 100_000]), &[]);
    let limited = ProduceRules { validate_full: true, decompressed_bytes_max: 50_000, ..rules() };
    assert_invalid_record(builder.build(), &limited);
}

#[test]
fn mutated_batches_never_panic_the_validation() {
    let mut seed = 11;
    for codec in [Codec::None, Codec::Gzip, Codec::Lz4] {
        let whole = builder(codec).build();
        for _ in 0..3000 {
            let at = next(&mut seed) as usize % whole.len();
            let mut mutated = with(whole.clone(), at, &[next(&mut seed) as u8]);
            fuzz_validate_produce(&mut mutated);
        }
    }
}
