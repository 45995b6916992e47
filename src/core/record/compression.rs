//! The codecs of record batches, each in the container that Kafka's clients use: the encoders are here, the decoders in
//! [`decoder`].
//!
//! | codec | container, as it is written |
//! |---|---|
//! | gzip | RFC 1952, one member |
//! | snappy | xerial: a 16-byte header, then blocks of i32 length and raw snappy |
//! | lz4 | one LZ4 frame: independent blocks of 64 KiB, no checksums |
//! | zstd | one zstd frame |
//!
//! Contexts are kept per thread, since making one costs more than a small batch itself.

#![forbid(unsafe_code)]

pub mod decoder;
mod gzip;
mod lent;
mod lz4_frame;
mod snappy;
mod zstd_frames;

use std::cell::RefCell;
use std::io::{self, Write};

use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
use zstd::zstd_safe::{CCtx, CParameter};

pub use decoder::{decompress, decompress_lz4_of_magic_0, fuzz_decompress};

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
const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
/// Behind the magic: the version, and the oldest that can read it.
const XERIAL_VERSIONS: [u8; 8] = [0, 0, 0, 1, 0, 0, 0, 1];
/// Uncompressed bytes of a xerial block.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;

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
        out.extend_from_slice(&XERIAL_VERSIONS);
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

#[cfg(test)]
mod tests;
