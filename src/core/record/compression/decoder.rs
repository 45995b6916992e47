//! What compressed data says, piece by piece.
//!
//! | codec | what is read, as the classes that Kafka 3.9 reads with have it |
//! |---|---|
//! | gzip | members one after the other; what follows the last one and begins no other is left alone |
//! | snappy | xerial streams one after the other, or one raw block |
//! | lz4 | one frame of independent blocks up to its end mark; what follows is left alone |
//! | zstd | frames one after the other, skippable ones too; a part of one is damage |
//!
//! Whatever ends in the middle is damaged, never short. The containers are walked here, by hand, since what is accepted
//! must be what every other reader of a topic accepts: `tests/golden/codecs` holds frames of every kind and what Kafka
//! makes of them. Memory is that of a block or a window, whatever the data becomes, and what comes out is bounded by the
//! caller's limit, whatever the data claims.

#![forbid(unsafe_code)]

use crate::record::compression::gzip::Members;
use crate::record::compression::lz4_frame::{Frame, HeaderChecksum};
use crate::record::compression::snappy::Blocks;
use crate::record::compression::zstd_frames::Frames;
use crate::record::compression::{Codec, CompressionError};

/// Bytes that the decoders without blocks of their own write at once.
pub(super) const PIECE_BYTES: usize = 64 * 1024;

/// How much longer than compressed a batch is taken to become.
const GROWTH_GUESS: usize = 4;

/// One batch's data on its way out.
pub struct Decoder<'a> {
    codec: Codec,
    container: Container<'a>,
    limit: usize,
    /// Bytes that may come yet.
    room: usize,
}

enum Container<'a> {
    Plain(&'a [u8]),
    Gzip(Members<'a>),
    Snappy(Blocks<'a>),
    Lz4(Frame<'a>),
    Zstd(Frames<'a>),
}

/// Why a container can't be read on.
pub(super) enum Refusal {
    /// More comes than there is room for.
    TooLong,
    Damaged(String),
}

impl Refusal {
    pub(super) fn damaged(reason: impl ToString) -> Refusal {
        Refusal::Damaged(reason.to_string())
    }
}

/// Whether something was added to the output; `false`: the data has come to its end.
pub(super) type Piece = Result<bool, Refusal>;

impl<'a> Decoder<'a> {
    /// A decoder of `data`, out of which come at most `limit` bytes.
    pub fn new(codec: Codec, data: &'a [u8], limit: usize) -> Result<Decoder<'a>, CompressionError> {
        Decoder::of(codec, data, limit, HeaderChecksum::Checked)
    }

    /// The same of lz4 in message sets of magic 0: their frames carry a header checksum taken over the wrong bytes
    /// (KAFKA-3160), so it is ignored.
    pub fn lz4_of_magic_0(data: &'a [u8], limit: usize) -> Result<Decoder<'a>, CompressionError> {
        Decoder::of(Codec::Lz4, data, limit, HeaderChecksum::Ignored)
    }

    fn of(
        codec: Codec,
        data: &'a [u8],
        limit: usize,
        checksum: HeaderChecksum,
    ) -> Result<Decoder<'a>, CompressionError> {
        let container = match codec {
            Codec::None => Ok(Container::Plain(data)),
            Codec::Gzip => Members::new(data).map(Container::Gzip),
            Codec::Snappy => Blocks::new(data).map(Container::Snappy),
            Codec::Lz4 => Frame::new(data, checksum).map(Container::Lz4),
            Codec::Zstd => Ok(Container::Zstd(Frames::new(data))),
        };
        let container = container.map_err(|refusal| of_codec(codec, limit, refusal))?;
        Ok(Decoder { codec, container, limit, room: limit })
    }

    /// Adds the next piece to `out`; `false` once there is none.
    ///
    /// # Errors
    /// `TooLong` once more comes than the limit, of which `out` then holds no more than a piece. The decoder is to be
    /// dropped after an error.
    pub fn read_piece(&mut self, out: &mut Vec<u8>) -> Result<bool, CompressionError> {
        let start = out.len();
        let piece = match &mut self.container {
            Container::Plain(rest) => {
                let (piece, behind) = rest.split_at(rest.len().min(PIECE_BYTES));
                *rest = behind;
                out.extend_from_slice(piece);
                Ok(!piece.is_empty())
            }
            Container::Gzip(members) => members.read_piece(out, self.room),
            Container::Snappy(blocks) => blocks.read_piece(out, self.room),
            Container::Lz4(frame) => frame.read_piece(out),
            Container::Zstd(frames) => frames.read_piece(out, self.room),
        };
        let added = piece.map_err(|refusal| of_codec(self.codec, self.limit, refusal))?;
        self.room = self.room.checked_sub(out.len() - start).ok_or(CompressionError::TooLong { limit: self.limit })?;
        Ok(added)
    }
}

fn of_codec(codec: Codec, limit: usize, refusal: Refusal) -> CompressionError {
    match refusal {
        Refusal::TooLong => CompressionError::TooLong { limit },
        Refusal::Damaged(reason) => CompressionError::Damaged { codec, reason },
    }
}

/// What `data` decompresses to.
///
/// # Errors
/// `TooLong` once the output passes `limit`; no more than a piece above that is ever held.
pub fn decompress(codec: Codec, data: &[u8], limit: usize) -> Result<Vec<u8>, CompressionError> {
    read_to_end(Decoder::new(codec, data, limit)?, data.len())
}

/// Like [`decompress`], see [`Decoder::lz4_of_magic_0`].
pub fn decompress_lz4_of_magic_0(data: &[u8], limit: usize) -> Result<Vec<u8>, CompressionError> {
    read_to_end(Decoder::lz4_of_magic_0(data, limit)?, data.len())
}

fn read_to_end(mut decoder: Decoder<'_>, compressed_bytes: usize) -> Result<Vec<u8>, CompressionError> {
    let mut out = Vec::with_capacity(compressed_bytes.saturating_mul(GROWTH_GUESS).min(decoder.limit));
    while decoder.read_piece(&mut out)? {}
    Ok(out)
}

/// Decompresses arbitrary bytes in every codec; must neither panic nor pass its limit.
pub fn fuzz_decompress(bytes: &[u8]) {
    const LIMIT: usize = 1 << 16;
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        assert!(!decompress(codec, bytes, LIMIT).is_ok_and(|out| out.len() > LIMIT));
    }
    let _ = decompress_lz4_of_magic_0(bytes, LIMIT);
}
