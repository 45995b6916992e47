use sha2::{Digest, Sha256};

use super::*;
use crate::base::splitmix64::next;
use crate::record::batch::{BatchError, BatchHeader, walk_records};

const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

fn data(bytes: usize) -> Vec<u8> {
    let mut seed = bytes as u64;
    (0..bytes).map(|at| if at % 3 == 0 { next(&mut seed) as u8 } else { b'a' }).collect()
}

#[test]
fn every_codec_gives_back_what_it_took() {
    for codec in CODECS {
        for bytes in [0, 1, 100, 40_000, 200_000] {
            let data = data(bytes);
            let compressed = compress(codec, &data);
            assert_eq!(decompress(codec, &compressed, bytes).unwrap(), data, "{codec:?} {bytes}");
        }
    }
}

#[test]
fn a_snappy_block_that_says_more_than_it_can_become_takes_no_memory() {
    const LIMIT: usize = 128 << 20;
    // The length of 100 MiB as a varint, and one element.
    let block = [0x80, 0x80, 0x80, 0x32, 0, b'x'];
    let error = decompress(Codec::Snappy, &block, LIMIT).unwrap_err();
    assert!(error.to_string().contains("can't become"), "{error}");
    let zeros = vec![0; 1 << 20];
    assert_eq!(decompress(Codec::Snappy, &compress(Codec::Snappy, &zeros), LIMIT).unwrap(), zeros);
}

#[test]
fn every_level_gives_back_what_it_took_and_contexts_keep_nothing_from_one_batch_to_the_next() {
    let gzip = [-1, 1, 6, 9].map(|level| Compression { codec: Codec::Gzip, level });
    let lz4 = [1, 2, 3, 9, 12, 17].map(|level| Compression { codec: Codec::Lz4, level });
    let zstd = [-131_072, -5, 1, 3, 19, 22].map(|level| Compression { codec: Codec::Zstd, level });
    let all: Vec<_> = gzip.into_iter().chain(lz4).chain(zstd).chain([Compression::of(Codec::Snappy)]).collect();
    let mut out = vec![1, 2, 3];
    let data = data(100_000);
    let mut first = Vec::new();
    for round in 0..2 {
        for (place, compression) in all.iter().enumerate() {
            compress_into(*compression, &data, &mut out);
            assert_eq!(decompress(compression.codec, &out, data.len()).unwrap(), data, "{compression:?}");
            if round == 0 {
                first.push(out.clone());
            }
            assert_eq!(out, first[place], "{compression:?}");
            for empty_or_small in [&b""[..], b"x"] {
                compress_into(*compression, empty_or_small, &mut out);
                assert_eq!(decompress(compression.codec, &out, 10).unwrap(), empty_or_small, "{compression:?}");
            }
        }
    }
    assert!(first[3].len() < first[1].len() && first[15].len() < first[11].len(), "a higher level tries harder");
}

#[test]
fn one_byte_over_the_limit_is_refused() {
    let data = data(100_000);
    for codec in CODECS {
        let compressed = compress(codec, &data);
        let refused = decompress(codec, &compressed, data.len() - 1);
        assert!(matches!(refused, Err(CompressionError::TooLong { limit: 99_999 })), "{codec:?}");
    }
}

#[test]
fn raw_snappy_is_read_too() {
    let raw = snap::raw::Encoder::new().compress_vec(b"hello hello hello").unwrap();
    assert_eq!(decompress(Codec::Snappy, &raw, 100).unwrap(), b"hello hello hello");
}

#[test]
fn a_wrong_lz4_header_checksum_is_ignored_for_magic_0_only() {
    let mut frame = compress(Codec::Lz4, b"some data");
    frame[6] ^= 0x55;
    assert!(decompress(Codec::Lz4, &frame, 100).is_err());
    assert_eq!(decompress_lz4_of_magic_0(&frame, 100).unwrap(), b"some data");
}

#[test]
fn damaged_data_is_an_error_and_the_next_call_works() {
    let mut seed = 3;
    for codec in CODECS {
        let whole = compress(codec, &data(5000));
        for _ in 0..500 {
            let mut damaged = whole.clone();
            let at = next(&mut seed) as usize % damaged.len();
            damaged[at] ^= next(&mut seed) as u8;
            damaged.truncate(next(&mut seed) as usize % (damaged.len() + 1));
            fuzz_decompress(&damaged);
        }
        assert_eq!(decompress(codec, &whole, 5000).unwrap(), data(5000), "{codec:?}");
    }
}

/// Frames of every kind, and what Kafka 3.9 makes of them (`tests/golden/README.md`).
const GOLDEN: &str = include_str!("../../../../tests/golden/codecs/kafka-3.9.1.txt");

struct Golden {
    name: &'static str,
    codec: Codec,
    record_count: i32,
    frame: Vec<u8>,
    /// Length and SHA-256 of the data, unless Kafka refuses the frame.
    outcome: Option<(usize, String)>,
}

fn golden() -> impl Iterator<Item = Golden> {
    GOLDEN.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let fields: Vec<_> = line.split('\t').collect();
        let [name, codec, record_count, frame, outcome] = fields[..] else { panic!("five fields: {line}") };
        let byte = |at: usize| u8::from_str_radix(&frame[at..at + 2], 16).unwrap();
        Golden {
            name,
            codec: CODECS.into_iter().find(|known| format!("{known:?}").to_lowercase() == codec).unwrap(),
            record_count: record_count.parse().unwrap(),
            frame: (0..frame.len()).step_by(2).map(byte).collect(),
            outcome: outcome.split_once(' ').map(|(length, hash)| (length.parse().unwrap(), hash.to_owned())),
        }
    })
}

/// The data, if that many records are in it.
fn read(row: &Golden) -> Option<(usize, String)> {
    let data = decompress(row.codec, &row.frame, 1 << 20).ok()?;
    let header = BatchHeader { record_count: row.record_count, ..BatchHeader::plain(0, 0, Codec::None, None) };
    walk_records::<BatchError>(&header, &data, |_| Ok(())).ok()?;
    let hash: String = Sha256::digest(&data).iter().map(|byte| format!("{byte:02x}")).collect();
    Some((data.len(), hash))
}

#[test]
fn every_frame_is_taken_or_refused_as_kafka_does_and_the_next_sound_one_is_always_taken() {
    let (mut taken, mut refused) = (0, 0);
    let mut wrong = Vec::new();
    for row in golden() {
        if read(&row) != row.outcome {
            wrong.push(row.name);
        }
        match row.outcome {
            Some(_) => taken += 1,
            None => refused += 1,
        }
        // On the same thread, with the same contexts.
        for codec in CODECS {
            assert_eq!(decompress(codec, &compress(codec, b"sound"), 100).unwrap(), b"sound", "after {}", row.name);
        }
    }
    assert!(wrong.is_empty(), "not as Kafka: {wrong:#?}");
    assert!(taken > 70 && refused > 100, "{taken} taken, {refused} refused");
}

#[test]
fn a_planted_row_of_another_outcome_is_noticed() {
    let mut sound = golden().find(|row| row.outcome.is_some()).unwrap();
    assert_eq!(read(&sound), sound.outcome);
    sound.frame.pop();
    assert_ne!(read(&sound), sound.outcome);
}
