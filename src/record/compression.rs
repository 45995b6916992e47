//! The codecs of record batches, each in the container that Kafka's clients use.
//!
//! | codec | container |
//! |---|---|
//! | gzip | RFC 1952, one or more members |
//! | snappy | xerial: a 16-byte header, then blocks of i32 length and raw snappy; raw snappy alone is read too |
//! | lz4 | one LZ4 frame: independent blocks of 64 KiB, no checksums |
//! | zstd | zstd frames |
//!
//! What comes out is bounded by the caller's limit, whatever the data claims; contexts are kept per thread, since making
//! one costs more than decompressing a small batch.

#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::io::{self, Read, Write};

use zstd::zstd_safe::{DCtx, DParameter, ResetDirective};

/// Kafka's default level of lz4 (`compression.lz4.level`); gzip's and zstd's are those of the libraries.
const LZ4_LEVEL: u32 = 9;
/// The largest window a zstd frame may ask for, as a power of two: what level 22 writes and zstd-jni reads.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_HEADER_BYTES: usize = 16;
/// Uncompressed bytes of a xerial block.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;
const GROWTH_GUESS: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Codec {
    #[default]
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Codec {
    /// The codec of attribute bits 0 to 2.
    pub fn from_id(id: i16) -> Option<Codec> {
        [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd].into_iter().find(|codec| codec.id() == id)
    }

    pub fn id(self) -> i16 {
        self as i16
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CompressionError {
    #[error("decompressed data is longer than {limit} bytes")]
    TooLong { limit: usize },
    #[error("{codec:?} data is damaged: {reason}")]
    Damaged { codec: Codec, reason: String },
}

/// One block in the codec's container, at Kafka's default level.
pub fn compress(codec: Codec, data: &[u8]) -> Vec<u8> {
    let compressed = match codec {
        Codec::None => Ok(data.to_vec()),
        Codec::Gzip => compress_gzip(data),
        Codec::Snappy => compress_xerial(data),
        Codec::Lz4 => compress_lz4(data),
        Codec::Zstd => zstd::bulk::compress(data, zstd::DEFAULT_COMPRESSION_LEVEL),
    };
    match compressed {
        Ok(bytes) => bytes,
        Err(error) => panic!("compressing into memory cannot fail: {error}"),
    }
}

fn compress_gzip(data: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(data)?;
    encoder.finish()
}

fn compress_xerial(data: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(XERIAL_HEADER_BYTES + data.len() / 2);
    out.extend_from_slice(&XERIAL_MAGIC);
    out.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1]);
    let mut encoder = snap::raw::Encoder::new();
    for block in data.chunks(XERIAL_BLOCK_BYTES) {
        let compressed = encoder.compress_vec(block)?;
        out.extend_from_slice(&(compressed.len() as i32).to_be_bytes());
        out.extend_from_slice(&compressed);
    }
    Ok(out)
}

fn compress_lz4(data: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = lz4::EncoderBuilder::new()
        .level(LZ4_LEVEL)
        .block_size(lz4::BlockSize::Max64KB)
        .block_mode(lz4::BlockMode::Independent)
        .block_checksum(lz4::liblz4::BlockChecksum::NoBlockChecksum)
        .checksum(lz4::ContentChecksum::NoChecksum)
        .build(Vec::new())?;
    encoder.write_all(data)?;
    let (out, result) = encoder.finish();
    result.map(|()| out)
}

/// Like [`compress`] with lz4, for message sets of magic 0: with the header checksum that their readers expect, taken
/// over the frame's magic too (KAFKA-3160).
pub fn compress_lz4_of_magic_0(data: &[u8]) -> Vec<u8> {
    /// Magic, flags (version 1, independent blocks), block size 64 KiB, checksum: the same in every frame made here.
    const HEADER: [u8; 7] = [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82];
    const CHECKSUM_OF_MAGIC_0: u8 = 0x1a;
    let mut frame = compress(Codec::Lz4, data);
    assert!(frame.starts_with(&HEADER), "the checksum is that of one header");
    frame[HEADER.len() - 1] = CHECKSUM_OF_MAGIC_0;
    frame
}

/// What `data` decompresses to.
///
/// # Errors
/// `TooLong` once the output passes `limit`; no more than that is ever held.
pub fn decompress(codec: Codec, data: &[u8], limit: usize) -> Result<Vec<u8>, CompressionError> {
    match codec {
        Codec::None if data.len() > limit => Err(CompressionError::TooLong { limit }),
        Codec::None => Ok(data.to_vec()),
        Codec::Gzip => read_bounded(codec, data.len(), flate2::bufread::MultiGzDecoder::new(data), limit),
        Codec::Snappy => decompress_snappy(data, limit),
        Codec::Lz4 => read_bounded(codec, data.len(), lz4_flex::frame::FrameDecoder::new(data), limit),
        Codec::Zstd => decompress_zstd(data, limit),
    }
}

fn read_bounded(
    codec: Codec,
    compressed_bytes: usize,
    reader: impl Read,
    limit: usize,
) -> Result<Vec<u8>, CompressionError> {
    let mut out = Vec::with_capacity(compressed_bytes.saturating_mul(GROWTH_GUESS).min(limit));
    match reader.take((limit as u64).saturating_add(1)).read_to_end(&mut out) {
        Ok(_) if out.len() > limit => Err(CompressionError::TooLong { limit }),
        Ok(_) => Ok(out),
        Err(error) => Err(damaged(codec, error)),
    }
}

fn damaged(codec: Codec, reason: impl ToString) -> CompressionError {
    CompressionError::Damaged { codec, reason: reason.to_string() }
}

fn decompress_zstd(data: &[u8], limit: usize) -> Result<Vec<u8>, CompressionError> {
    thread_local! {
        static CONTEXT: RefCell<DCtx<'static>> = RefCell::new(DCtx::create());
    }
    let failed = |code| damaged(Codec::Zstd, zstd::zstd_safe::get_error_name(code));
    CONTEXT.with_borrow_mut(|context| {
        // What an earlier, damaged frame left behind.
        context.reset(ResetDirective::SessionOnly).map_err(failed)?;
        context.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX)).map_err(failed)?;
        read_bounded(Codec::Zstd, data.len(), zstd::stream::read::Decoder::with_context(data, context), limit)
    })
}

fn decompress_snappy(data: &[u8], limit: usize) -> Result<Vec<u8>, CompressionError> {
    let mut out = Vec::new();
    if !data.starts_with(&XERIAL_MAGIC) {
        append_snappy_block(data, limit, &mut out)?;
        return Ok(out);
    }
    let mut rest = data.get(XERIAL_HEADER_BYTES..).ok_or_else(|| damaged(Codec::Snappy, "header cut short"))?;
    while !rest.is_empty() {
        let (length, after) =
            rest.split_first_chunk::<4>().ok_or_else(|| damaged(Codec::Snappy, "block length cut short"))?;
        let length = u32::from_be_bytes(*length) as usize;
        let (block, after) = after.split_at_checked(length).ok_or_else(|| damaged(Codec::Snappy, "block cut short"))?;
        append_snappy_block(block, limit, &mut out)?;
        rest = after;
    }
    Ok(out)
}

fn append_snappy_block(block: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), CompressionError> {
    let length = snap::raw::decompress_len(block).map_err(|error| damaged(Codec::Snappy, error))?;
    if length > limit - out.len() {
        return Err(CompressionError::TooLong { limit });
    }
    let start = out.len();
    out.resize(start + length, 0);
    snap::raw::Decoder::new().decompress(block, &mut out[start..]).map_err(|error| damaged(Codec::Snappy, error))?;
    Ok(())
}

/// Like [`decompress`] of lz4, for message sets of magic 0: their frames carry a header checksum taken over the wrong
/// bytes (KAFKA-3160), so it is ignored.
pub fn decompress_lz4_of_magic_0(data: &[u8], limit: usize) -> Result<Vec<u8>, CompressionError> {
    match with_right_header_checksum(data) {
        Some(mended) => decompress(Codec::Lz4, &mended, limit),
        None => decompress(Codec::Lz4, data, limit),
    }
}

/// The frame with the header checksum its decoder wants; it has 256 values, and the decoder knows the right one.
fn with_right_header_checksum(data: &[u8]) -> Option<Vec<u8>> {
    const CONTENT_SIZE_BIT: u8 = 0x08;
    const DICTIONARY_ID_BIT: u8 = 0x01;
    let flags = *data.get(4)?;
    let content_size_bytes = if flags & CONTENT_SIZE_BIT != 0 { 8 } else { 0 };
    let dictionary_id_bytes = if flags & DICTIONARY_ID_BIT != 0 { 4 } else { 0 };
    let at = 6 + content_size_bytes + dictionary_id_bytes;
    let mut header = data.get(..=at)?.to_vec();
    for checksum in 0..=u8::MAX {
        header[at] = checksum;
        let refused = lz4_flex::frame::FrameDecoder::new(&header[..]).read(&mut [0]).err();
        let wrong = refused.as_ref().and_then(|error| error.get_ref()).and_then(|error| error.downcast_ref());
        if !matches!(wrong, Some(lz4_flex::frame::Error::HeaderChecksumError)) {
            header.extend_from_slice(&data[at + 1..]);
            return Some(header);
        }
    }
    None
}

/// Decompresses arbitrary bytes in every codec; must neither panic nor pass its limit.
pub fn fuzz_decompress(bytes: &[u8]) {
    const LIMIT: usize = 1 << 16;
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        assert!(!decompress(codec, bytes, LIMIT).is_ok_and(|out| out.len() > LIMIT));
    }
    let _ = decompress_lz4_of_magic_0(bytes, LIMIT);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::next;

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
}
