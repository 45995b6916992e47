//! Snappy as the xerial library frames it, or one raw block (snappy-java's `SnappyInputStream`).
//!
//! ```text
//!  magic, 8 bytes | version i32 | oldest reader's version i32 | blocks: length i32, raw snappy
//! ```
//! Where a block's length should stand another stream may begin. Fewer bytes than a length are left alone.

#![forbid(unsafe_code)]

use crate::record::compression::XERIAL_MAGIC;
use crate::record::compression::decoder::{Piece, Refusal};

const HEADER_BYTES: usize = 16;
const LENGTH_BYTES: usize = 4;
/// Of a stream that follows another; snappy-java compares neither the first one's version nor the rest of the magic.
const VERSION_MIN: i32 = 1;
/// What a byte of a raw block can become at the most: an element of three bytes copies up to 64. A block that says more
/// takes no memory.
const GROWTH_MAX: usize = 22;

/// The blocks of a stream.
pub enum Blocks<'a> {
    Xerial(&'a [u8]),
    Raw(&'a [u8]),
}

impl<'a> Blocks<'a> {
    pub fn new(data: &'a [u8]) -> Result<Blocks<'a>, Refusal> {
        match data.split_at_checked(HEADER_BYTES) {
            _ if data.is_empty() => Err(Refusal::damaged("no block at all")),
            Some((header, blocks)) if header.starts_with(&XERIAL_MAGIC) => Ok(Blocks::Xerial(blocks)),
            _ => Ok(Blocks::Raw(data)),
        }
    }

    /// Adds a block to `out`.
    pub fn read_piece(&mut self, out: &mut Vec<u8>, room: usize) -> Piece {
        let block = match self {
            Blocks::Raw(block) => {
                let block = *block;
                *self = Blocks::Xerial(&[]);
                block
            }
            Blocks::Xerial(rest) => {
                let Some(block) = take_block(rest)? else { return Ok(false) };
                block
            }
        };
        if block.is_empty() {
            return Err(Refusal::damaged("a block without a length of its own"));
        }
        let length = snap::raw::decompress_len(block).map_err(Refusal::damaged)?;
        if length > room {
            return Err(Refusal::TooLong);
        }
        if length > block.len().saturating_mul(GROWTH_MAX) {
            return Err(Refusal::damaged("a block can't become as long as it says"));
        }
        let start = out.len();
        out.resize(start + length, 0);
        snap::raw::Decoder::new().decompress(block, &mut out[start..]).map_err(Refusal::damaged)?;
        Ok(true)
    }
}

fn take_block<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Refusal> {
    while rest.starts_with(&XERIAL_MAGIC[..LENGTH_BYTES]) {
        let (header, behind) = rest.split_at_checked(HEADER_BYTES).ok_or_else(cut_short)?;
        let version = header[XERIAL_MAGIC.len()..].first_chunk::<4>().map(|version| i32::from_be_bytes(*version));
        if version.is_none_or(|version| version < VERSION_MIN) {
            return Err(Refusal::damaged("a stream's version is too old"));
        }
        *rest = behind;
    }
    let Some((length, behind)) = rest.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let length =
        usize::try_from(i32::from_be_bytes(*length)).map_err(|_| Refusal::damaged("a block's length is negative"))?;
    let (block, behind) = behind.split_at_checked(length).ok_or_else(cut_short)?;
    *rest = behind;
    Ok(Some(block))
}

fn cut_short() -> Refusal {
    Refusal::damaged("a block is cut short")
}
