use bytes::BytesMut;

use super::*;
use crate::base::splitmix64::next;
use crate::record::batch::{BatchBuilder, set_log_append_time};

fn rules() -> ProduceRules {
    ProduceRules {
        max_message_bytes: 1 << 20,
        compacted: false,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: i64::MAX,
        retention_ms: -1,
        now: 1_000_000,
        validate_full: false,
        zstd_allowed: true,
        decompressed_bytes_max: 1 << 20,
        target: None,
    }
}

const INLINE_BYTES_MAX: usize = 1 << 12;

/// Both halves; leaves in `batch` what is to be appended.
fn validate_produce(batch: &mut BytesMut, rules: &ProduceRules) -> Result<BatchHeader, InvalidBatch> {
    match check_produce(batch, rules, INLINE_BYTES_MAX)? {
        Checked::Done(header) => Ok(header),
        Checked::Away => {
            let (finished, header) = finish_produce(batch.clone(), rules)?;
            *batch = finished;
            Ok(header)
        }
    }
}

const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

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
fn a_producers_append_time_becomes_create_time_or_is_refused_as_kafka_does_it() {
    let append_time = ProduceRules { timestamp_type: TimestampType::LogAppendTime, ..rules() };
    for codec in CODECS {
        let mut batch = builder(codec).build();
        set_log_append_time(&mut batch, 5);
        let refused = validate_produce(&mut batch.clone(), &append_time);
        let Err(InvalidBatch::InvalidTimestamp { record_errors, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!(record_errors.iter().map(|error| error.batch_index).collect::<Vec<_>>(), [0, 1], "{codec:?}");

        let header = validate_produce(&mut batch, &rules()).unwrap();
        assert_eq!((header.timestamp_type(), header.max_timestamp), (TimestampType::CreateTime, 5), "{codec:?}");
        assert!(has_valid_crc(&batch), "{codec:?}");

        let mut without = builder(codec).build();
        set_log_append_time(&mut without, NO_TIMESTAMP);
        let refused = validate_produce(&mut without, &rules());
        assert!(matches!(refused, Err(InvalidBatch::InvalidTimestamp { .. })), "{codec:?}");
    }
}

#[test]
fn a_key_and_a_timestamp_that_are_missing_together_are_both_named_and_the_timestamp_gives_the_code() {
    let strict = ProduceRules { compacted: true, timestamp_before_max_ms: 999, ..rules() };
    for codec in CODECS {
        let refused = validate_produce(&mut builder(codec).build(), &strict);
        let Err(InvalidBatch::InvalidTimestamp { record_errors, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!(record_errors.iter().map(|error| error.batch_index).collect::<Vec<_>>(), [0, 1], "{codec:?}");
    }
}

#[test]
fn refused_records_are_named_up_to_a_bound() {
    let mut builder = BatchBuilder::new(Codec::None);
    (0..500).for_each(|_| builder.push(1, None, None, &[]));
    let refused = validate_produce(&mut builder.build(), &ProduceRules { compacted: true, ..rules() });
    let Err(InvalidBatch::InvalidRecord { record_errors, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(record_errors.len(), RECORD_ERRORS_MAX);
}

#[test]
fn a_wrong_max_timestamp_is_corrected_in_place() {
    let mut batch = with(builder(Codec::None).build(), 35, &7i64.to_be_bytes());
    let header = validate_produce(&mut batch, &rules()).unwrap();
    assert_eq!(header.max_timestamp, 1_000_500);
    assert_eq!(batch, builder(Codec::None).build());
}

/// A record's bytes, as a batch of one has them, in a batch of any codec.
fn batch_of(codec: Codec, record_count: i32, body: &[u8]) -> BytesMut {
    let header = BatchHeader::parse(&builder(codec).build()).unwrap();
    let body = crate::record::compression::compress(codec, body);
    BatchHeader { record_count, last_offset_delta: record_count - 1, ..header }.seal(&body)
}

#[test]
fn records_that_lie_about_themselves_are_refused_in_every_codec() {
    // length, attributes, timestamp delta, offset delta, key, value, header count
    let sound: &[u8] = &[12, 0, 0, 0, 1, 1, 0];
    let lies: [(&str, i32, &[u8]); 16] = [
        ("fewer records than said", 2, sound),
        ("more records than said", 1, &[sound, &[12, 0, 0, 2, 1, 1, 0]].concat()),
        ("bytes behind the last record", 1, &[sound, &[0]].concat()),
        ("a negative length", 1, &[11, 0, 0, 0, 1, 1, 0]),
        ("no length", 1, &[0]),
        ("a length past the end", 1, &[14, 0, 0, 0, 1, 1, 0]),
        ("a length that is too long by one", 1, &[14, 0, 0, 0, 1, 1, 0, 0]),
        ("a length of six bytes", 1, &[0x80, 0x80, 0x80, 0x80, 0x80, 1]),
        ("a timestamp of eleven bytes", 1, &[[36, 0].as_slice(), &[0x80; 10], &[0, 0, 1, 1, 0, 0]].concat()),
        ("an offset of six bytes", 1, &[22, 0, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 1, 1, 1, 0]),
        ("a key past the end", 1, &[12, 0, 0, 0, 40, 1, 0]),
        ("a value past the end", 1, &[12, 0, 0, 0, 1, 40, 0]),
        ("a negative header count", 1, &[12, 0, 0, 0, 1, 1, 1]),
        ("more headers than bytes", 1, &[12, 0, 0, 0, 1, 1, 40]),
        ("two billion headers", 1, &[20, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f]),
        ("a header without key", 1, &[16, 0, 0, 0, 1, 1, 2, 1, 1]),
    ];
    for codec in CODECS {
        for into in [None, Some(Codec::Gzip)] {
            let target = ProduceRules { target: into.map(Compression::of), validate_full: true, ..rules() };
            assert!(validate_produce(&mut batch_of(codec, 1, sound), &target).is_ok(), "{codec:?}");
            for (what, record_count, body) in lies {
                let refused = validate_produce(&mut batch_of(codec, record_count, body), &target);
                let is_plain = |errors: &[RefusedRecord]| errors.is_empty();
                assert!(
                    matches!(&refused, Err(InvalidBatch::InvalidRecord { record_errors, .. }) if is_plain(record_errors)),
                    "{codec:?} {into:?} {what}: {refused:?}"
                );
            }
        }
    }
}

#[test]
fn compressed_records_whose_offsets_do_not_count_from_0_are_numbered_anew_and_plain_ones_are_refused() {
    let body: &[u8] = &[12, 0, 0, 10, 1, 1, 0, 12, 0, 0, 4, 1, 1, 0];
    let full = ProduceRules { validate_full: true, ..rules() };
    assert_invalid_record(batch_of(Codec::None, 2, body), &full);
    for codec in &CODECS[1..] {
        let mut batch = batch_of(*codec, 2, body);
        let header = validate_produce(&mut batch, &full).unwrap();
        assert_eq!(header.codec(), Some(*codec));
        let records = crate::record::batch::decode_records(&batch, 100).unwrap();
        assert_eq!(records.iter().map(|record| record.offset).collect::<Vec<_>>(), [0, 1], "{codec:?}");
    }
}

#[test]
fn what_is_no_batch_of_magic_2_gets_kafkas_code_and_a_torn_tail_is_left_out() {
    let batch = || builder(Codec::None).build();
    let corrupt = |mut bytes: BytesMut| matches!(validate_produce(&mut bytes, &rules()), Err(InvalidBatch::Corrupt(_)));
    for magic in [3, 0x7f, 0x80, 0xff] {
        assert!(corrupt(with(batch(), 16, &[magic])), "{magic}");
    }
    for length in [i32::MIN, -1, 0, 13, 14, 48] {
        assert!(corrupt(with(batch(), 8, &length.to_be_bytes())), "{length}");
    }
    assert_invalid_record(with(batch(), 8, &i32::MAX.to_be_bytes()), &rules());
    for tail in [&b"torn"[..], &[0; 11], &batch()[..40]] {
        let mut bytes = batch();
        bytes.extend_from_slice(tail);
        assert!(validate_produce(&mut bytes, &rules()).is_ok());
        assert_eq!(bytes, batch());
    }
}

#[test]
fn only_small_compressed_batches_are_looked_into_on_the_shard() {
    let full = ProduceRules { validate_full: true, ..rules() };
    let looked_at = |batch: BytesMut, rules: &ProduceRules| {
        matches!(check_produce(&mut batch.clone(), rules, INLINE_BYTES_MAX).unwrap(), Checked::Done(_))
    };
    for codec in &CODECS[1..] {
        let large = |bytes: usize| {
            let mut builder = BatchBuilder::new(*codec);
            builder.push(1_000_000, Some(b"k"), Some(&vec![0; bytes]), &[]);
            builder.build()
        };
        assert!(looked_at(large(3000), &full) && looked_at(large(100_000), &rules()), "{codec:?}");
        assert!(large(5000).len() < INLINE_BYTES_MAX && !looked_at(large(5000), &full), "{codec:?}");
        let mut batch = large(100_000);
        assert!(validate_produce(&mut batch, &full).is_ok(), "{codec:?}");
    }
}

#[test]
fn the_size_counts_in_the_topics_codec_too() {
    let mut builder = BatchBuilder::new(Codec::Gzip);
    builder.push(1_000_000, None, Some(&[b'a'; 5000]), &[]);
    let mut batch = builder.build();
    let plain = Some(Compression::of(Codec::None));
    let limited = ProduceRules { max_message_bytes: 4000, target: plain, ..rules() };
    assert!(batch.len() < 4000);
    let refused = validate_produce(&mut batch.clone(), &limited);
    assert!(matches!(refused, Err(InvalidBatch::TooLargeInCodec { max_message_bytes: 4000 })), "{refused:?}");
    assert!(validate_produce(&mut batch, &ProduceRules { max_message_bytes: 6000, ..limited }).is_ok());
}

#[test]
fn a_bomb_is_refused_in_every_codec() {
    for codec in &CODECS[1..] {
        let mut builder = BatchBuilder::new(*codec);
        builder.push(1, None, Some(&vec![0; 100_000]), &[]);
        let limited = ProduceRules { validate_full: true, decompressed_bytes_max: 50_000, ..rules() };
        assert_invalid_record(builder.clone().build(), &limited);
        let target = Some(Compression::of(if *codec == Codec::Zstd { Codec::Lz4 } else { Codec::Zstd }));
        assert_invalid_record(builder.build(), &ProduceRules { target, validate_full: false, ..limited });
    }
}

#[test]
fn message_sets_come_in_the_topics_codec_and_are_held_to_the_same_rules() {
    let message = |key: i32, timestamp: i64| {
        let mut body = vec![1, 0];
        body.extend_from_slice(&timestamp.to_be_bytes());
        body.extend_from_slice(&key.to_be_bytes());
        body.extend_from_slice(&(-1i32).to_be_bytes());
        let mut out = 0i64.to_be_bytes().to_vec();
        out.extend_from_slice(&(body.len() as i32 + 4).to_be_bytes());
        out.extend_from_slice(&crc32fast::hash(&body).to_be_bytes());
        out.extend_from_slice(&body);
        out
    };
    let set = [message(0, 1_000_000), message(-1, 999_000)].concat();
    for target in CODECS {
        let into = ProduceRules { target: Some(Compression::of(target)), ..rules() };
        assert_eq!(is_light(&set, &into, 1 << 16), target == Codec::None);
        let (batch, header) = convert_message_set(&set, &into).unwrap().expect("two messages");
        assert_eq!((header.codec(), header.record_count), (Some(target), 2));
        assert!(has_valid_crc(&batch) && validate_produce(&mut batch.clone(), &rules()).is_ok());
        let refused = |rules: ProduceRules| convert_message_set(&set, &rules).unwrap_err();
        let keyless = refused(ProduceRules { compacted: true, ..into.clone() });
        assert!(matches!(keyless, InvalidBatch::InvalidRecord { ref record_errors, .. } if record_errors.len() == 1));
        let untimely = refused(ProduceRules { timestamp_before_max_ms: 999, ..into.clone() });
        assert!(
            matches!(untimely, InvalidBatch::InvalidTimestamp { ref record_errors, .. } if record_errors.len() == 1)
        );
        let large = refused(ProduceRules { max_message_bytes: 60, ..into.clone() });
        assert!(matches!(large, InvalidBatch::TooLargeInCodec { .. }), "{target:?} {large:?}");
    }
    assert!(convert_message_set(&set[..10], &rules()).unwrap().is_none());
}

#[test]
fn mutated_batches_never_panic_the_validation() {
    let mut seed = 11;
    let gzip = Some(Compression::of(Codec::Gzip));
    for (codec, target) in [(Codec::None, None), (Codec::Gzip, None), (Codec::Lz4, gzip), (Codec::None, gzip)] {
        let whole = builder(codec).build();
        for _ in 0..2000 {
            let at = next(&mut seed) as usize % whole.len();
            let mutated = with(whole.clone(), at, &[next(&mut seed) as u8]);
            fuzz_validate_produce(&mutated, target);
        }
    }
}

/// Of this codec, with a body that nobody can read: who looks into it refuses it.
fn unreadable(codec: Codec, record_count: i32, base_timestamp: i64, max_timestamp: i64) -> BytesMut {
    let header = BatchHeader::parse(&builder(codec).build()).unwrap();
    let last_offset_delta = record_count - 1;
    BatchHeader { record_count, last_offset_delta, base_timestamp, max_timestamp, ..header }.seal(&[0xee; 100])
}

#[test]
fn only_a_header_that_no_honest_producer_writes_has_its_records_looked_into() {
    const NOW: i64 = 1_700_000_000_000;
    const HOUR: i64 = 60 * 60 * 1000;
    const DAY: i64 = 24 * HOUR;
    let append_time = ProduceRules { timestamp_type: TimestampType::LogAppendTime, now: NOW, ..rules() };
    let create_time = |retention_ms| ProduceRules { retention_ms, now: NOW, ..rules() };
    let is_looked_into = |rules: &ProduceRules, count, base, max| {
        let looked_into =
            CODECS[1..].iter().map(|codec| match validate_produce(&mut unreadable(*codec, count, base, max), rules) {
                Ok(header) => {
                    assert_eq!((header.record_count, header.max_timestamp), (count, max));
                    false
                }
                Err(InvalidBatch::InvalidRecord { .. }) => true,
                Err(other) => panic!("{other:?}"),
            });
        let looked_into: Vec<_> = looked_into.collect();
        assert!(looked_into.iter().all(|one| *one == looked_into[0]), "{looked_into:?}");
        looked_into[0]
    };
    // Retention, base and max timestamp.
    let times = [
        (-1, NOW, NOW, false),
        (-1, NOW - DAY, NOW - DAY, false),
        (-1, NOW - DAY - 1, NOW - DAY - 1, true),
        (-1, NOW - 30 * DAY, NOW, false),
        (-1, NOW, NOW + HOUR, false),
        (-1, NOW, NOW + HOUR + 1, true),
        (-1, NOW + 1, NOW, true),
        (-1, 0, 0, true),
        (-1, NOW, -1, true),
        (-1, -1, -1, true),
        (-1, NOW, i64::MIN, true),
        (-1, i64::MIN, NOW, false),
        (-1, NOW, i64::MAX, true),
        (7 * DAY, NOW - DAY, NOW - DAY, false),
        (7 * DAY, NOW - 2 * DAY, NOW - 2 * DAY, true),
        (HOUR, NOW - HOUR, NOW - HOUR, false),
        (HOUR, NOW - HOUR - 1, NOW - HOUR - 1, true),
        (0, NOW, NOW, false),
    ];
    for (retention_ms, base, max, expected) in times {
        let place = (retention_ms, base, max);
        assert_eq!(is_looked_into(&create_time(retention_ms), 1, base, max), expected, "{place:?}");
        assert!(!is_looked_into(&append_time, 1, base, max), "the broker writes its own: {place:?}");
    }
    // The body has a hundred bytes.
    for rules in [create_time(-1), append_time] {
        for (count, expected) in [(1, false), (100, false), (101, true), (i32::MAX, true)] {
            assert_eq!(is_looked_into(&rules, count, NOW, NOW), expected, "{count}");
        }
    }
}

#[test]
fn a_header_that_is_not_plausible_is_set_right_or_refused_as_kafka_does() {
    for codec in &CODECS[1..] {
        for lie in [0i64, -1, 77_777, i64::MAX, i64::MIN] {
            let now = ProduceRules { now: 999_000 + 86_400_000, ..rules() };
            let mut batch = with(builder(*codec).build(), 35, &lie.to_be_bytes());
            let header = validate_produce(&mut batch, &now).unwrap();
            assert_eq!(header.max_timestamp, 1_000_500, "{codec:?} {lie}");
            assert_eq!(batch, builder(*codec).build(), "as an honest producer would have sent it");
        }
        let lie = with(builder(*codec).build(), 57, &i32::MAX.to_be_bytes());
        assert_invalid_record(with(lie, 23, &(i32::MAX - 1).to_be_bytes()), &rules());
        // As many records to a byte as there can be: each has an offset of its own.
        let mut dull = BatchBuilder::new(*codec);
        (0..10_000).for_each(|_| dull.push(1_000_000, None, None, &[]));
        let dull = dull.build();
        let mut checked = dull.clone();
        assert_eq!(validate_produce(&mut checked, &rules()).unwrap().record_count, 10_000, "{codec:?}");
        assert_eq!(checked, dull);
    }
}

#[test]
fn a_delete_horizon_of_a_producers_is_kept_as_kafka_keeps_it() {
    for codec in [Codec::None, Codec::Zstd] {
        let full = ProduceRules { validate_full: true, ..rules() };
        let horizon = with(builder(codec).build(), 22, &[codec.id() as u8 | 0x40]);
        let mut checked = with(horizon.clone(), 35, &7i64.to_be_bytes());
        let header = validate_produce(&mut checked, &full).unwrap();
        assert_eq!((header.delete_horizon_ms(), header.max_timestamp), (Some(999_000), 1_000_500));
        assert_eq!(checked, horizon);
    }
}
