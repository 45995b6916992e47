use super::*;
use crate::base::splitmix64::next;
use crate::record::batch::{BatchBuilder, set_log_append_time};
use crate::record::compression::{decompress, decompress_lz4_of_magic_0};

/// What Kafka's own classes made of it (`tests/golden/protocol/README.md`).
const GOLDEN: &str = include_str!("../../../../tests/golden/protocol/down-conversion-3.9.0.txt");

/// A message set with the wrappers opened: compressors of one format need not write the same bytes. Everything of a
/// message but size and CRC, which its reader has checked.
#[derive(Debug, PartialEq, Eq)]
struct Opened {
    offset: i64,
    magic_attributes_timestamp: Vec<u8>,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    inner: Vec<Opened>,
}

fn open(mut set: &[u8]) -> Vec<Opened> {
    let mut opened = Vec::new();
    while let Some((magic, message)) = take_entry(&mut set).unwrap() {
        let crc = u32::from_be_bytes(message[12..16].try_into().unwrap());
        assert_eq!(crc, crc32fast::hash(&message[16..]));
        let fields = if magic == 0 { 18 } else { 26 };
        let mut rest = &message[fields..];
        let mut field = || {
            let (length, after) = rest.split_first_chunk::<4>().unwrap();
            let length = usize::try_from(i32::from_be_bytes(*length)).ok();
            let (bytes, after) = after.split_at(length.unwrap_or(0));
            rest = after;
            length.map(|_| bytes.to_vec())
        };
        let (key, mut value) = (field(), field());
        let inner = match Codec::from_id(i16::from(message[17] & 7)).unwrap() {
            Codec::None => Vec::new(),
            codec => {
                let bytes = value.take().unwrap();
                assert_eq!(decompress(codec, &bytes, 1 << 20).is_ok(), codec != Codec::Lz4 || magic == 1);
                let bytes = match codec {
                    Codec::Lz4 if magic == 0 => decompress_lz4_of_magic_0(&bytes, 1 << 20),
                    codec => decompress(codec, &bytes, 1 << 20),
                };
                open(&bytes.unwrap())
            }
        };
        let offset = i64::from_be_bytes(message[..8].try_into().unwrap());
        let magic_attributes_timestamp = message[16..fields].to_vec();
        opened.push(Opened { offset, magic_attributes_timestamp, key, value, inner });
    }
    assert_eq!(set, [0u8; 0]);
    opened
}

fn bytes_of(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn every_codec_and_timestamp_type_becomes_what_kafka_makes_of_it() {
    let mut count = 0;
    for line in GOLDEN.lines().filter(|line| !line.starts_with('#')) {
        let [name, magic, first, stored, expected] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let magic = if magic == "0" { OldMagic::V0 } else { OldMagic::V1 };
        let converted = down_convert(&bytes_of(stored), magic, first.parse().unwrap()).unwrap();
        let expected = bytes_of(expected);
        if name.contains("none") {
            assert_eq!(converted, expected, "{name} to {magic:?} from {first}");
        }
        assert_eq!(open(&converted), open(&expected), "{name} to {magic:?} from {first}");
        count += 1;
    }
    assert_eq!(count, 72);
}

fn batch(codec: Codec, base_offset: i64, values: &[&[u8]]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec).base_offset(base_offset);
    values.iter().for_each(|value| builder.push(1000, None, Some(value), &[]));
    builder.build().to_vec()
}

#[test]
fn what_is_cut_short_is_left_out_and_what_is_old_enough_stays_as_it_is() {
    let (first, second) = (batch(Codec::None, 0, &[b"a"]), batch(Codec::Gzip, 1, &[b"b", b"c"]));
    let both = [&first[..], &second[..]].concat();
    let whole = down_convert(&both, OldMagic::V1, 0).unwrap();
    let only_first = down_convert(&first, OldMagic::V1, 0).unwrap();
    assert!(whole.starts_with(&only_first) && whole.len() > only_first.len());
    for cut in first.len()..both.len() {
        assert_eq!(down_convert(&both[..cut], OldMagic::V1, 0).unwrap(), only_first, "{cut}");
    }
    for cut in 0..first.len() {
        assert_eq!(down_convert(&both[..cut], OldMagic::V1, 0).unwrap(), [0; 0], "{cut}");
    }
    assert_eq!(down_convert(&whole, OldMagic::V1, 0).unwrap(), whole);
    let older = down_convert(&whole, OldMagic::V0, 0).unwrap();
    assert_eq!(open(&older), open(&down_convert(&both, OldMagic::V0, 0).unwrap()));
}

#[test]
fn zstd_is_refused_where_it_comes_first_and_left_for_later_behind_others() {
    let (plain, zstd) = (batch(Codec::None, 0, &[b"a"]), batch(Codec::Zstd, 1, &[b"b"]));
    assert_eq!(down_convert(&zstd, OldMagic::V1, 0), Err(DownConvertError::Zstd));
    let both = [&plain[..], &zstd[..]].concat();
    assert_eq!(down_convert(&both, OldMagic::V1, 0), down_convert(&plain, OldMagic::V1, 0));
}

#[test]
fn batches_that_have_nothing_to_give_become_a_message_cut_short() {
    let mut builder = BatchBuilder::new(Codec::None).producer(1, 0, -1).transactional().control();
    builder.push(1000, Some(&[0, 0, 0, 1]), Some(&[0; 6]), &[]);
    let marker = builder.build();
    assert_eq!(down_convert(&marker, OldMagic::V1, 0).unwrap(), OVERFLOW_MESSAGE);
    let plain = batch(Codec::None, 1, &[b"a"]);
    let both = [&marker[..], &plain[..]].concat();
    assert_eq!(down_convert(&both, OldMagic::V1, 0), down_convert(&plain, OldMagic::V1, 0));
}

#[test]
fn the_output_is_bounded_by_whole_batches() {
    let large = batch(Codec::Gzip, 0, &[&[7; 3 << 20]]);
    let mut plain = batch(Codec::None, 1, &[&[7; 3 << 20]]);
    set_log_append_time(&mut plain, 5);
    let stored = [&plain[..], &plain[..], &large[..]].concat();
    let converted = down_convert(&stored, OldMagic::V1, 0).unwrap();
    assert_eq!(open(&converted).len(), 2, "the third is for the next fetch");
}

#[test]
fn damaged_records_are_refused_or_converted_and_never_panic() {
    let stored: Vec<u8> = [Codec::None, Codec::Gzip, Codec::Lz4, Codec::Snappy]
        .into_iter()
        .flat_map(|codec| batch(codec, 5, &[b"some value", b"another value"]))
        .collect();
    let old = down_convert(&stored, OldMagic::V1, 0).unwrap();
    let mut seed = 11;
    for round in 0..20_000 {
        let mut damaged = if round % 2 == 0 { stored.clone() } else { old.clone() };
        for _ in 0..=next(&mut seed) % 3 {
            let place = next(&mut seed) as usize % damaged.len();
            damaged[place] = next(&mut seed) as u8;
        }
        fuzz_down_convert(&damaged);
    }
}
