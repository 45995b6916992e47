//! The LZ4 frame, as far as Kafka's classes read it (Kafka 3.9 `Lz4BlockInputStream`).
//!
//! ```text
//!  magic u32 | flags | block size | content size u64, if flagged | header checksum
//!  per block: length u32, its high bit set if the bytes stand as they are | bytes | xxh32 of them, if flagged
//!  end mark: length 0 | xxh32 of the content, if flagged
//! ```
//! Little-endian. Blocks that refer to earlier ones, dictionaries and the legacy frame are not read. The content size is
//! passed over, and the content's checksum has to be there, but is not compared. What follows the end mark is left alone.

#![forbid(unsafe_code)]

use twox_hash::XxHash32;

use crate::record::compression::decoder::{Piece, Refusal};

const MAGIC: [u8; 4] = 0x184d_2204_u32.to_le_bytes();
/// Where the header's checksum begins to count.
const FLAGS_POSITION: usize = 4;
const VERSION_1: u8 = 0x40;
const VERSION_MASK: u8 = 0xc0;
const INDEPENDENT_BLOCKS: u8 = 0x20;
const BLOCK_CHECKSUMS: u8 = 0x10;
const CONTENT_SIZE: u8 = 0x08;
const CONTENT_CHECKSUM: u8 = 0x04;
/// A dictionary's id, and a bit without meaning yet.
const UNKNOWN_FLAGS: u8 = 0x03;
const UNCOMPRESSED_BIT: u32 = 1 << 31;
/// What a byte of a compressed block can become at the most: a match is 255 bytes longer for each byte of its length.
const GROWTH_MAX: usize = 255;

/// Whether the header's checksum has to be right.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum HeaderChecksum {
    Checked,
    Ignored,
}

/// One frame whose header was read.
pub struct Frame<'a> {
    rest: &'a [u8],
    flags: u8,
    block_bytes_max: usize,
    is_over: bool,
}

impl<'a> Frame<'a> {
    pub fn new(data: &'a [u8], checksum: HeaderChecksum) -> Result<Frame<'a>, Refusal> {
        let mut rest = data;
        if take::<4>(&mut rest)? != MAGIC {
            return Err(Refusal::damaged("no LZ4 frame, or a legacy one"));
        }
        let [flags, sizes] = take(&mut rest)?;
        if flags & VERSION_MASK != VERSION_1 {
            return Err(Refusal::damaged("the frame's version is unknown"));
        }
        if flags & INDEPENDENT_BLOCKS == 0 {
            return Err(Refusal::damaged("the blocks depend on one another"));
        }
        if flags & UNKNOWN_FLAGS != 0 {
            return Err(Refusal::damaged("a dictionary, or an unknown flag"));
        }
        let block_bytes_max = match sizes {
            0x40 => 64 << 10,
            0x50 => 256 << 10,
            0x60 => 1 << 20,
            0x70 => 4 << 20,
            _ => return Err(Refusal::damaged("the block size is unknown")),
        };
        if flags & CONTENT_SIZE != 0 {
            take::<8>(&mut rest)?;
        }
        let header = &data[FLAGS_POSITION..data.len() - rest.len()];
        let [said] = take(&mut rest)?;
        if checksum == HeaderChecksum::Checked && (XxHash32::oneshot(0, header) >> 8) as u8 != said {
            return Err(Refusal::damaged("the header's checksum is wrong"));
        }
        Ok(Frame { rest, flags, block_bytes_max, is_over: false })
    }

    /// Adds a block to `out`.
    pub fn read_piece(&mut self, out: &mut Vec<u8>) -> Piece {
        if self.is_over {
            return Ok(false);
        }
        let length = u32::from_le_bytes(take(&mut self.rest)?);
        let (is_compressed, length) = (length & UNCOMPRESSED_BIT == 0, (length & !UNCOMPRESSED_BIT) as usize);
        if length == 0 {
            self.is_over = true;
            if self.flags & CONTENT_CHECKSUM != 0 {
                take::<4>(&mut self.rest)?;
            }
            return Ok(false);
        }
        if length > self.block_bytes_max {
            return Err(Refusal::damaged("a block is longer than its frame allows"));
        }
        let (block, rest) = self.rest.split_at_checked(length).ok_or_else(cut_short)?;
        self.rest = rest;
        if self.flags & BLOCK_CHECKSUMS != 0 && XxHash32::oneshot(0, block) != u32::from_le_bytes(take(&mut self.rest)?)
        {
            return Err(Refusal::damaged("a block's checksum is wrong"));
        }
        let start = out.len();
        if is_compressed {
            out.resize(start + self.block_bytes_max.min(block.len().saturating_mul(GROWTH_MAX)), 0);
            let bytes = lz4_flex::block::decompress_into(block, &mut out[start..]).map_err(Refusal::damaged)?;
            out.truncate(start + bytes);
        } else {
            out.extend_from_slice(block);
        }
        // Kafka's reader takes a block of nothing for the end.
        self.is_over = out.len() == start;
        Ok(!self.is_over)
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Refusal> {
    let (taken, behind) = rest.split_first_chunk::<N>().ok_or_else(cut_short)?;
    *rest = behind;
    Ok(*taken)
}

fn cut_short() -> Refusal {
    Refusal::damaged("the frame is cut short")
}
