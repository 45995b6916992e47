//! Zstandard frames one after the other (zstd-jni's `ZstdInputStreamNoFinalizer`).
//!
//! That class reads [`READ_BYTES`] at once, and only notices that a frame is cut short if none has ended since the last
//! read. So what is cut short behind a whole frame is left alone, mostly; here it is in the same places.

#![forbid(unsafe_code)]

use std::cell::RefCell;

use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, ResetDirective, get_error_name};

use crate::record::compression::decoder::{PIECE_BYTES, Piece, Refusal};
use crate::record::compression::lent::{Context, Lent};

/// The largest window a frame may ask for, as a power of two: what level 22 writes and zstd-jni reads.
const WINDOW_LOG_MAX: u32 = 27;
/// A context that a large window has made larger than this is not kept.
const KEPT_BYTES_MAX: usize = 16 << 20;

impl Context for DCtx<'static> {
    fn new() -> DCtx<'static> {
        let mut context = DCtx::create();
        context
            .set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))
            .unwrap_or_else(|code| panic!("the library has no such window: {}", get_error_name(code)));
        context
    }

    fn reset(&mut self) -> bool {
        self.sizeof() <= KEPT_BYTES_MAX && DCtx::reset(self, ResetDirective::SessionOnly).is_ok()
    }

    fn on_shelf<R>(visit: impl FnOnce(&RefCell<Option<Self>>) -> R) -> R {
        thread_local! {
            static KEPT: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) };
        }
        KEPT.with(visit)
    }
}

/// What Java's reader takes from its source at once.
const READ_BYTES: usize = 131_075;

pub struct Frames<'a> {
    context: Lent<DCtx<'static>>,
    rest: &'a [u8],
    /// No frame is begun.
    is_between: bool,
    /// Bytes of the data behind the last frame that has ended.
    left_behind: Option<usize>,
    /// Bytes of the last read.
    last_read: usize,
}

impl<'a> Frames<'a> {
    pub fn new(data: &'a [u8]) -> Frames<'a> {
        let last_read = data.len().checked_sub(1).map_or(0, |last| last % READ_BYTES + 1);
        Frames { context: Lent::take(), rest: data, is_between: true, left_behind: None, last_read }
    }

    /// Adds what fits into a piece.
    pub fn read_piece(&mut self, out: &mut Vec<u8>, room: usize) -> Piece {
        let start = out.len();
        out.reserve(PIECE_BYTES.min(room.saturating_add(1)));
        while out.len() == start {
            if self.is_between && self.rest.is_empty() {
                return Ok(false);
            }
            let before = self.rest.len();
            let mut input = InBuffer::around(self.rest);
            let left = self
                .context
                .decompress_stream(&mut OutBuffer::around_pos(out, start), &mut input)
                .map_err(|code| Refusal::damaged(get_error_name(code)))?;
            self.rest = &self.rest[input.pos()..];
            self.is_between = left == 0;
            if self.is_between {
                self.left_behind = Some(self.rest.len());
            }
            if out.len() == start && !self.is_between && self.rest.len() == before {
                return match self.left_behind.is_some_and(|behind| behind < self.last_read) {
                    true => Ok(false),
                    false => Err(Refusal::damaged("a frame is cut short")),
                };
            }
        }
        Ok(true)
    }
}
