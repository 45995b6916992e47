use super::*;
use crate::base::splitmix64::next;
use crate::record::batch::{BatchHeader, Record, decode_records};
use crate::record::compression::compress;

const LIMIT: usize = 1 << 20;

fn message(
    magic: i8,
    offset: i64,
    attributes: u8,
    timestamp: i64,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
) -> Vec<u8> {
    let mut body = vec![magic as u8, attributes];
    if magic == 1 {
        body.extend_from_slice(&timestamp.to_be_bytes());
    }
    for field in [key, value] {
        body.extend_from_slice(&field.map_or(-1, |bytes| bytes.len() as i32).to_be_bytes());
        body.extend_from_slice(field.unwrap_or_default());
    }
    let mut out = offset.to_be_bytes().to_vec();
    out.extend_from_slice(&(body.len() as i32 + 4).to_be_bytes());
    out.extend_from_slice(&crc32fast::hash(&body).to_be_bytes());
    out.extend_from_slice(&body);
    out
}

fn inner(magic: i8) -> Vec<u8> {
    [
        message(magic, 0, 0, 50, Some(b"a"), Some(b"1")),
        message(magic, 1, 0, 70, None, Some(b"2")),
        message(magic, 2, 0, 60, Some(b"c"), None),
    ]
    .concat()
}

const RULES: SetRules =
    SetRules { message_bytes_max: LIMIT, decompressed_bytes_max: LIMIT, timestamp_type: TimestampType::CreateTime };

fn converted(message_set: &[u8]) -> (BatchHeader, Codec, Vec<Record>) {
    let (batch, codec) = convert_to_v2(message_set, &RULES).unwrap().expect("not empty");
    (BatchHeader::parse(&batch).unwrap(), codec, decode_records(&batch, LIMIT).unwrap())
}

#[test]
fn plain_and_compressed_sets_of_both_magics_become_one_batch_and_tell_their_codec() {
    for magic in [0, 1] {
        for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4] {
            let set = match codec {
                Codec::None => inner(magic),
                codec => message(magic, 2, codec.id() as u8, 70, None, Some(&compress(codec, &inner(magic)))),
            };
            let (header, was, records) = converted(&set);
            assert_eq!((was, codec_of_set(&set)), (codec, Some(codec)));
            assert_eq!((header.codec(), header.base_offset, header.last_offset()), (Some(Codec::None), 0, 2));
            let timestamps = if magic == 0 { [-1, -1, -1] } else { [50, 70, 60] };
            assert_eq!(records.iter().map(|record| record.timestamp).collect::<Vec<_>>(), timestamps);
            assert_eq!(header.max_timestamp, timestamps[1]);
            assert_eq!(records[1].key, None);
            assert_eq!(records[2].value, None);
        }
    }
}

#[test]
fn the_broken_lz4_header_checksum_of_magic_0_is_accepted_and_that_of_magic_1_is_not() {
    let mut frame = compress(Codec::Lz4, &inner(0));
    frame[6] ^= 1;
    assert_eq!(converted(&message(0, 2, 3, 0, None, Some(&frame))).2.len(), 3);
    let mut frame = compress(Codec::Lz4, &inner(1));
    frame[6] ^= 1;
    let refused = convert_to_v2(&message(1, 2, 3, 0, None, Some(&frame)), &RULES);
    assert!(matches!(refused, Err(MessageSetError::Corrupt(_))));
}

#[test]
fn what_kafka_refuses_is_refused() {
    let wrap = |magic, offset, codec: Codec, set: &[u8]| {
        message(magic, offset, codec.id() as u8, 0, None, Some(&compress(codec, set)))
    };
    let wrapper = wrap(1, 2, Codec::Gzip, &inner(1));
    let invalid = [
        ("a batch among messages", [inner(1), message(2, 3, 0, 0, None, None)].concat()),
        ("mixed magic", [inner(0), inner(1)].concat()),
        ("two wrappers", [wrapper.clone(), wrapper.clone()].concat()),
        ("wrapper behind plain", [inner(1), wrapper.clone()].concat()),
        ("nested twice", wrap(1, 2, Codec::Gzip, &wrapper)),
        ("inner magic", wrap(1, 2, Codec::Gzip, &inner(0))),
        ("no inner messages", wrap(1, 2, Codec::Gzip, b"")),
        ("null value", message(1, 0, 1, 0, None, None)),
        ("wrapper offset", wrap(1, 1, Codec::Gzip, &inner(1))),
    ];
    for (what, set) in invalid {
        assert!(matches!(convert_to_v2(&set, &RULES), Err(MessageSetError::Invalid(_))), "{what}");
    }
    assert_eq!(converted(&wrap(1, 0, Codec::Gzip, &inner(1))).2.len(), 3, "librdkafka's wrapper offset 0");
    assert!(matches!(convert_to_v2(&message(1, 0, 4, 0, None, None), &RULES), Err(MessageSetError::Zstd)));
    assert!(matches!(
        convert_to_v2(&wrapper, &SetRules { decompressed_bytes_max: 20, ..RULES }),
        Err(MessageSetError::TooLong(20))
    ));
    let mut wrong_crc = inner(1);
    wrong_crc[12] ^= 1;
    assert!(matches!(convert_to_v2(&wrong_crc, &RULES), Err(MessageSetError::Corrupt(_))));
    assert!(matches!(convert_to_v2(&message(3, 0, 0, 0, None, None), &RULES), Err(MessageSetError::Corrupt(_))));
    let negative = message(1, 0, 0, -2, None, None);
    assert!(matches!(convert_to_v2(&negative, &RULES), Err(MessageSetError::Timestamp(_))));
}

#[test]
fn a_cut_set_keeps_its_whole_messages() {
    let set = inner(1);
    let first = message(1, 0, 0, 50, Some(b"a"), Some(b"1")).len();
    for cut in 0..set.len() {
        match convert_to_v2(&set[..cut], &RULES) {
            Ok(converted) => assert_eq!(converted.is_some(), cut >= first, "{cut}"),
            Err(error) => panic!("{cut}: {error}"),
        }
    }
}

#[test]
fn max_message_bytes_is_held_against_each_message_as_it_came() {
    let set = inner(1);
    let longest = message(1, 0, 0, 50, Some(b"a"), Some(b"1")).len();
    let limited = |message_bytes_max| SetRules { message_bytes_max, ..RULES };
    assert!(convert_to_v2(&set, &limited(longest)).is_ok());
    assert!(matches!(convert_to_v2(&set, &limited(longest - 1)), Err(MessageSetError::TooLarge { .. })));
    let wrapper = message(1, 2, 1, 70, None, Some(&compress(Codec::Gzip, &inner(1))));
    assert!(convert_to_v2(&wrapper, &limited(wrapper.len())).is_ok());
    assert!(matches!(convert_to_v2(&wrapper, &limited(wrapper.len() - 1)), Err(MessageSetError::TooLarge { .. })));
}

#[test]
fn a_producers_append_time_counts_where_the_topic_has_create_time_and_is_refused_where_it_has_not() {
    let plain = message(1, 0, 8, 77, None, Some(b"v"));
    let wrapper = message(1, 2, 8 | 1, 99, None, Some(&compress(Codec::Gzip, &inner(1))));
    let append_time = SetRules { timestamp_type: TimestampType::LogAppendTime, ..RULES };
    for (set, timestamps) in [(&plain, vec![77]), (&wrapper, vec![99, 99, 99])] {
        let (header, _, records) = converted(set);
        assert_eq!(header.timestamp_type(), TimestampType::CreateTime);
        assert_eq!(records.iter().map(|record| record.timestamp).collect::<Vec<_>>(), timestamps);
        assert!(matches!(convert_to_v2(set, &append_time), Err(MessageSetError::Timestamp(_))));
    }
    let without = message(1, 0, 8, -1, None, Some(b"v"));
    assert!(matches!(convert_to_v2(&without, &RULES), Err(MessageSetError::Timestamp(_))));
}

#[test]
fn mutated_sets_never_panic_the_conversion() {
    let mut seed = 5;
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4] {
        let whole = match codec {
            Codec::None => inner(1),
            codec => message(0, 2, codec.id() as u8, 0, None, Some(&compress(codec, &inner(0)))),
        };
        for round in 0..2000 {
            let mut mutated = whole.clone();
            let at = next(&mut seed) as usize % mutated.len();
            mutated[at] = next(&mut seed) as u8;
            // Half of them with a right outer CRC, so that the inside is reached.
            if round % 2 == 0 && at >= 16 && codec != Codec::None {
                let crc = crc32fast::hash(&mutated[16..]);
                mutated[12..16].copy_from_slice(&crc.to_be_bytes());
            }
            fuzz_convert_to_v2(&mutated);
        }
    }
}

#[test]
fn a_message_of_a_log_decodes_with_the_offsets_of_the_log() {
    let offsets = |bytes: &[u8]| {
        let decoded = decode_legacy(bytes, LIMIT).unwrap();
        decoded.records.iter().map(|record| (record.offset, record.timestamp)).collect::<Vec<_>>()
    };
    assert_eq!(offsets(&message(1, 40, 0, 50, Some(b"a"), None)), [(40, 50)]);
    let relative = message(1, 42, Codec::Gzip.id() as u8, 70, None, Some(&compress(Codec::Gzip, &inner(1))));
    assert_eq!(offsets(&relative), [(40, 50), (41, 70), (42, 60)]);
    let appended = message(1, 42, Codec::Gzip.id() as u8 | 8, 99, None, Some(&compress(Codec::Gzip, &inner(1))));
    assert_eq!(offsets(&appended), [(40, 99), (41, 99), (42, 99)]);
    let absolute = message(0, 2, Codec::Snappy.id() as u8, 0, None, Some(&compress(Codec::Snappy, &inner(0))));
    assert_eq!(offsets(&absolute), [(0, -1), (1, -1), (2, -1)]);
    assert!(decode_legacy(&message(1, 1, 1, 0, None, Some(&compress(Codec::Gzip, &inner(1)))), LIMIT).is_err());
}
