//! Gzip members one after the other, as Java reads them (`java.util.zip.GZIPInputStream`).
//!
//! ```text
//!  1f 8b | method 8 | flags | time u32, extra flags, system | extra: length u16, bytes | name, 0 | comment, 0 |
//!  header CRC u16 | raw deflate | CRC-32 u32 | length u32                 (little-endian; what is flagged is there)
//! ```
//! What follows a member and is no whole header is left alone.

#![forbid(unsafe_code)]

use std::cell::RefCell;

use flate2::{Decompress, FlushDecompress, Status};

use crate::record::compression::decoder::{PIECE_BYTES, Piece, Refusal};
use crate::record::compression::lent::{Context, Lent};

const MAGIC_AND_METHOD: [u8; 3] = [0x1f, 0x8b, 8];
/// Time, extra flags, system.
const UNREAD_BYTES: usize = 6;
const HEADER_CRC: u8 = 0x02;
const EXTRA: u8 = 0x04;
const NAME: u8 = 0x08;
const COMMENT: u8 = 0x10;
const TRAILER_BYTES: usize = 8;
/// Java does not look for another member in fewer bytes than it takes.
const MEMBER_BYTES_MIN: usize = 18;

impl Context for Decompress {
    fn new() -> Decompress {
        Decompress::new(false)
    }

    fn reset(&mut self) -> bool {
        Decompress::reset(self, false);
        true
    }

    fn on_shelf<R>(visit: impl FnOnce(&RefCell<Option<Self>>) -> R) -> R {
        thread_local! {
            static KEPT: RefCell<Option<Decompress>> = const { RefCell::new(None) };
        }
        KEPT.with(visit)
    }
}

pub struct Members<'a> {
    inflate: Lent<Decompress>,
    /// From the member's deflated data on.
    rest: &'a [u8],
    checksum: crc32fast::Hasher,
    is_over: bool,
}

impl<'a> Members<'a> {
    pub fn new(mut data: &'a [u8]) -> Result<Members<'a>, Refusal> {
        pass_header(&mut data).ok_or_else(|| Refusal::damaged("no gzip header"))?;
        Ok(Members { inflate: Lent::take(), rest: data, checksum: crc32fast::Hasher::new(), is_over: false })
    }

    /// Adds what fits into a piece.
    pub fn read_piece(&mut self, out: &mut Vec<u8>, room: usize) -> Piece {
        let start = out.len();
        out.reserve(PIECE_BYTES.min(room.saturating_add(1)));
        while out.len() == start {
            if self.is_over {
                return Ok(false);
            }
            let before = self.inflate.total_in();
            let status =
                self.inflate.decompress_vec(self.rest, out, FlushDecompress::None).map_err(Refusal::damaged)?;
            let taken = (self.inflate.total_in() - before) as usize;
            self.rest = &self.rest[taken..];
            self.checksum.update(&out[start..]);
            match status {
                Status::StreamEnd => self.end_member()?,
                Status::Ok | Status::BufError if out.len() == start && taken == 0 => {
                    return Err(Refusal::damaged("a member is cut short"));
                }
                Status::Ok | Status::BufError => {}
            }
        }
        Ok(true)
    }

    fn end_member(&mut self) -> Result<(), Refusal> {
        let (trailer, rest) = self
            .rest
            .split_first_chunk::<TRAILER_BYTES>()
            .ok_or_else(|| Refusal::damaged("a member's trailer is cut short"))?;
        let [a, b, c, d, length @ ..] = *trailer;
        let checksum = std::mem::take(&mut self.checksum).finalize();
        if u32::from_le_bytes([a, b, c, d]) != checksum || u32::from_le_bytes(length) != self.inflate.total_out() as u32
        {
            return Err(Refusal::damaged("a member's trailer is not that of its data"));
        }
        self.rest = rest;
        self.inflate.reset(false);
        self.is_over = rest.len() <= MEMBER_BYTES_MIN || pass_header(&mut self.rest).is_none();
        Ok(())
    }
}

/// Passes over the header of a member; `None`: it is none, or not whole.
fn pass_header(rest: &mut &[u8]) -> Option<()> {
    let whole = *rest;
    let mut behind = whole.strip_prefix(&MAGIC_AND_METHOD)?;
    let (flags, after) = behind.split_first()?;
    behind = after.get(UNREAD_BYTES..)?;
    if flags & EXTRA != 0 {
        let (length, after) = behind.split_first_chunk::<2>()?;
        behind = after.get(usize::from(u16::from_le_bytes(*length))..)?;
    }
    for field in [NAME, COMMENT] {
        if flags & field != 0 {
            behind = &behind[memchr::memchr(0, behind)? + 1..];
        }
    }
    if flags & HEADER_CRC != 0 {
        let header = &whole[..whole.len() - behind.len()];
        let (said, after) = behind.split_first_chunk::<2>()?;
        if crc32fast::hash(header) as u16 != u16::from_le_bytes(*said) {
            return None;
        }
        behind = after;
    }
    *rest = behind;
    Some(())
}
