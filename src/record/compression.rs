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
//! one costs more than a small batch itself.

#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::io::{self, Read, Write};

use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};
use zstd::zstd_safe::{CCtx, CParameter, DCtx, DParameter, ResetDirective};

/// Kafka's default level of lz4 (`compression.lz4.level`), which stands for the fast compressor; all others are those of
/// the slow one (Kafka 3.9 `Lz4BlockOutputStream`).
const LZ4_LEVEL_FAST: i32 = 9;
/// Below this the library of the slow compressor would take the fast one.
const LZ4_LEVEL_SLOW_MIN: i32 = 2;
/// -1 is zlib's own default.
const GZIP_LEVEL_DEFAULT: i32 = -1;
const ZSTD_LEVEL_DEFAULT: i32 = zstd::DEFAULT_COMPRESSION_LEVEL;
/// What a gzip header may ask for: the largest window, as a power of two.
const GZIP_WINDOW_LOG: u8 = 15;
/// The largest window a zstd frame may ask for, as a power of two: what level 22 writes and zstd-jni reads.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// Compressed bytes that a kept decoder holds on to between batches.
const KEPT_BYTES_MAX: usize = 1024 * 1024;
const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_HEADER_BYTES: usize = 16;
/// Uncompressed bytes of a xerial block.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;
const GROWTH_GUESS: usize = 4;
/// What a byte of a snappy block can become at the most: an element of three bytes copies up to 64. A block that says
/// more takes no memory.
const SNAPPY_GROWTH_MAX: usize = 22;

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

/// A codec and how hard it tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    pub codec: Codec,
    /// As `compression.{gzip,lz4,zstd}.level` have it; without meaning for the other codecs.
    pub level: i32,
}

impl Compression {
    /// At Kafka's default level.
    pub fn of(codec: Codec) -> Compression {
        let level = match codec {
            Codec::None | Codec::Snappy => 0,
            Codec::Gzip => GZIP_LEVEL_DEFAULT,
            Codec::Lz4 => LZ4_LEVEL_FAST,
            Codec::Zstd => ZSTD_LEVEL_DEFAULT,
        };
        Compression { codec, level }
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
    let mut out = Vec::new();
    compress_into(Compression::of(codec), data, &mut out);
    out
}

/// Replaces `out` by one block in the codec's container, with this thread's contexts.
pub fn compress_into(compression: Compression, data: &[u8], out: &mut Vec<u8>) {
    thread_local! {
        static ENCODERS: RefCell<Encoders> = RefCell::new(Encoders::new());
    }
    out.clear();
    let Compression { codec, level } = compression;
    let compressed = ENCODERS.with_borrow_mut(|encoders| match codec {
        Codec::None => {
            out.extend_from_slice(data);
            Ok(())
        }
        Codec::Gzip => encoders.gzip(level, data, out),
        Codec::Snappy => encoders.xerial(data, out),
        // The kept encoder writes nothing for nothing.
        Codec::Lz4 if level == LZ4_LEVEL_FAST && !data.is_empty() => encoders.lz4_fast(data, out),
        Codec::Lz4 => compress_lz4_slowly(level, data, out),
        Codec::Zstd => encoders.zstd(level, data, out),
    });
    if let Err(error) = compressed {
        panic!("compressing into memory cannot fail: {error}");
    }
}

/// One thread's contexts.
struct Encoders {
    gzip: Option<(i32, flate2::Compress)>,
    snappy: snap::raw::Encoder,
    lz4: FrameEncoder<Vec<u8>>,
    zstd: CCtx<'static>,
}

impl Encoders {
    fn new() -> Encoders {
        let frame = FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
        Encoders {
            gzip: None,
            snappy: snap::raw::Encoder::new(),
            lz4: FrameEncoder::with_frame_info(frame, Vec::new()),
            zstd: CCtx::create(),
        }
    }

    fn gzip(&mut self, level: i32, data: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        if self.gzip.as_ref().is_none_or(|(kept, _)| *kept != level) {
            let compression =
                u32::try_from(level).map_or_else(|_| flate2::Compression::default(), flate2::Compression::new);
            self.gzip = Some((level, flate2::Compress::new_gzip(compression, GZIP_WINDOW_LOG)));
        }
        let Some((_, encoder)) = &mut self.gzip else { return Ok(()) };
        encoder.reset();
        out.reserve(data.len() / 2 + 64);
        loop {
            let taken = encoder.total_in() as usize;
            match encoder.compress_vec(&data[taken..], out, flate2::FlushCompress::Finish)? {
                flate2::Status::StreamEnd => return Ok(()),
                flate2::Status::Ok | flate2::Status::BufError => out.reserve(data.len() / 2 + 64),
            }
        }
    }

    fn xerial(&mut self, data: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        out.extend_from_slice(&XERIAL_MAGIC);
        out.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1]);
        for block in data.chunks(XERIAL_BLOCK_BYTES) {
            let start = out.len() + 4;
            out.resize(start + snap::raw::max_compress_len(block.len()), 0);
            let length = self.snappy.compress(block, &mut out[start..])?;
            out[start - 4..start].copy_from_slice(&(length as i32).to_be_bytes());
            out.truncate(start + length);
        }
        Ok(())
    }

    fn lz4_fast(&mut self, data: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        std::mem::swap(self.lz4.get_mut(), out);
        let written = self.lz4.write_all(data).and_then(|()| Ok(self.lz4.try_finish()?));
        std::mem::swap(self.lz4.get_mut(), out);
        written
    }

    fn zstd(&mut self, level: i32, data: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let failed = |code| io::Error::other(zstd::zstd_safe::get_error_name(code));
        self.zstd.set_parameter(CParameter::CompressionLevel(level)).map_err(failed)?;
        out.reserve(zstd::zstd_safe::compress_bound(data.len()));
        self.zstd.compress2(out, data).map(|_| ()).map_err(failed)
    }
}

/// The library has no context that could be kept.
fn compress_lz4_slowly(level: i32, data: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let level = if level == LZ4_LEVEL_FAST { 0 } else { level.max(LZ4_LEVEL_SLOW_MIN) };
    let mut encoder = lz4::EncoderBuilder::new()
        .level(level as u32)
        .block_size(lz4::BlockSize::Max64KB)
        .block_mode(lz4::BlockMode::Independent)
        .block_checksum(lz4::liblz4::BlockChecksum::NoBlockChecksum)
        .checksum(lz4::ContentChecksum::NoChecksum)
        .build(std::mem::take(out))?;
    encoder.write_all(data)?;
    let (written, result) = encoder.finish();
    *out = written;
    result
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
        Codec::Lz4 => decompress_lz4(data, limit),
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

/// With a kept decoder, since its buffers cost more to make than a batch to decompress. One that has seen an error has
/// lost its place and goes.
fn decompress_lz4(data: &[u8], limit: usize) -> Result<Vec<u8>, CompressionError> {
    thread_local! {
        static DECODER: RefCell<FrameDecoder<io::Cursor<Vec<u8>>>> =
            RefCell::new(FrameDecoder::new(io::Cursor::default()));
    }
    DECODER.with_borrow_mut(|decoder| {
        let source = decoder.get_mut();
        source.set_position(0);
        source.get_mut().clear();
        source.get_mut().extend_from_slice(data);
        let out = read_bounded(Codec::Lz4, data.len(), &mut *decoder, limit);
        if out.is_err() || decoder.get_ref().get_ref().capacity() > KEPT_BYTES_MAX {
            *decoder = FrameDecoder::new(io::Cursor::default());
        }
        out
    })
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
    if length > block.len().saturating_mul(SNAPPY_GROWTH_MAX) {
        return Err(damaged(Codec::Snappy, "a block can't become as long as it says"));
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
}
