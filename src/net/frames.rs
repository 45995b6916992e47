//! Cutting the received stream into frames, pure.
//!
//! A frame that lies whole in one chunk is split off without copying. The beginning of one that does not is copied out,
//! so that its chunk can go, and completed from the next chunks; a frame known to be larger than [`LARGE_FRAME_BYTES`]
//! is left to the socket, which receives the rest straight into the frame's memory.

use bytes::{Buf, BytesMut};

use crate::protocol::frame::{FRAME_PREFIX_BYTES, FrameError, frame_length};

/// Frames above this are received straight into a buffer of their size.
pub const LARGE_FRAME_BYTES: usize = 32 * 1024;

/// At least so much of a large frame is there before it is taken on: enough to say what kind of request it is.
pub const LARGE_BEGINNING_BYTES_MIN: usize = 4;

const _: () = assert!(LARGE_BEGINNING_BYTES_MIN < LARGE_FRAME_BYTES);

/// What the received bytes gave.
#[derive(Debug, PartialEq)]
pub enum Cut {
    /// A whole frame, without its size prefix.
    Frame(BytesMut),
    /// The beginning of a large frame, at least [`LARGE_BEGINNING_BYTES_MIN`] of it and without its size prefix, and the length
    /// it must reach.
    Large { beginning: BytesMut, length: usize },
    /// Push the next chunk.
    NeedMore,
}

/// Owns the bytes that were received and not yet cut.
#[derive(Default)]
pub struct FrameCutter {
    /// A frame whose end has not come: its prefix (perhaps not all of it) and what follows.
    partial: BytesMut,
    chunk: BytesMut,
}

impl FrameCutter {
    /// Adds received bytes. Only when [`FrameCutter::next`] has said `NeedMore`.
    pub fn push(&mut self, chunk: BytesMut) {
        debug_assert!(self.chunk.is_empty());
        self.chunk = chunk;
    }

    /// Adds bytes that were received before the ones at hand were cut.
    pub fn append(&mut self, chunk: &[u8]) {
        self.chunk.extend_from_slice(chunk);
    }

    /// Bytes at hand.
    pub fn uncut_bytes(&self) -> usize {
        self.chunk.len()
    }

    /// The next frame of at most `length_max` bytes.
    ///
    /// # Errors
    /// The size prefix is negative or over the limit: nothing after it can be understood.
    pub fn next(&mut self, length_max: usize) -> Result<Cut, FrameError> {
        if self.partial.is_empty() {
            if self.chunk.len() >= FRAME_PREFIX_BYTES {
                let length = prefix(&self.chunk, length_max)?;
                if self.chunk.len() >= FRAME_PREFIX_BYTES + length {
                    self.chunk.advance(FRAME_PREFIX_BYTES);
                    return Ok(Cut::Frame(self.chunk.split_to(length)));
                }
            }
            if self.chunk.is_empty() {
                return Ok(Cut::NeedMore);
            }
        }
        self.top_up(FRAME_PREFIX_BYTES);
        if self.partial.len() < FRAME_PREFIX_BYTES {
            return Ok(Cut::NeedMore);
        }
        let length = prefix(&self.partial, length_max)?;
        if length > LARGE_FRAME_BYTES {
            self.top_up(FRAME_PREFIX_BYTES + LARGE_BEGINNING_BYTES_MIN);
            return Ok(match self.partial.len() < FRAME_PREFIX_BYTES + LARGE_BEGINNING_BYTES_MIN {
                true => Cut::NeedMore,
                false => self.cut_large(length),
            });
        }
        self.top_up(FRAME_PREFIX_BYTES + length);
        if self.partial.len() < FRAME_PREFIX_BYTES + length {
            return Ok(Cut::NeedMore);
        }
        self.partial.advance(FRAME_PREFIX_BYTES);
        Ok(Cut::Frame(std::mem::take(&mut self.partial)))
    }

    fn cut_large(&mut self, length: usize) -> Cut {
        self.partial.advance(FRAME_PREFIX_BYTES);
        let mut beginning = std::mem::take(&mut self.partial);
        self.continue_large(&mut beginning, length);
        if beginning.len() == length { Cut::Frame(beginning) } else { Cut::Large { beginning, length } }
    }

    /// Adds to the beginning of a large frame what was received since it was cut.
    pub fn continue_large(&mut self, beginning: &mut BytesMut, length: usize) {
        let count = self.chunk.len().min(length - beginning.len());
        beginning.extend_from_slice(&self.chunk.split_to(count));
    }

    /// Copies from the chunk until `partial` has `length` bytes, as far as there are any.
    fn top_up(&mut self, length: usize) {
        let count = self.chunk.len().min(length.saturating_sub(self.partial.len()));
        if count > 0 {
            self.partial.extend_from_slice(&self.chunk.split_to(count));
        }
    }
}

fn prefix(bytes: &[u8], length_max: usize) -> Result<usize, FrameError> {
    frame_length([bytes[0], bytes[1], bytes[2], bytes[3]], length_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(bodies: &[Vec<u8>]) -> Vec<u8> {
        let mut stream = Vec::new();
        for body in bodies {
            stream.extend_from_slice(&(body.len() as i32).to_be_bytes());
            stream.extend_from_slice(body);
        }
        stream
    }

    /// Plays the socket: feeds `stream` in chunks of `step` bytes, completing large frames from it.
    fn cut_all(stream: &[u8], step: usize) -> Vec<Vec<u8>> {
        let (mut cutter, mut frames, mut position) = (FrameCutter::default(), Vec::new(), 0);
        loop {
            match cutter.next(1 << 20).expect("in bounds") {
                Cut::Frame(frame) => frames.push(frame.to_vec()),
                Cut::Large { mut beginning, length } => {
                    assert!(length > LARGE_FRAME_BYTES && beginning.len() < length);
                    let missing = length - beginning.len();
                    beginning.extend_from_slice(&stream[position..position + missing]);
                    position += missing;
                    frames.push(beginning.to_vec());
                }
                Cut::NeedMore if position == stream.len() => return frames,
                Cut::NeedMore => {
                    let end = stream.len().min(position + step);
                    cutter.push(BytesMut::from(&stream[position..end]));
                    position = end;
                }
            }
        }
    }

    #[test]
    fn frames_come_out_whole_and_in_order_however_the_stream_is_cut() {
        let sizes = [0, 1, 5, 100, LARGE_FRAME_BYTES, 3, LARGE_FRAME_BYTES + 1, 200_000, 2];
        let bodies: Vec<Vec<u8>> =
            sizes.iter().map(|&size| (0..size).map(|byte| (byte % 251) as u8).collect()).collect();
        let stream = framed(&bodies);
        for step in [1, 2, 3, 4, 5, 7, 1000, 32 * 1024, 64 * 1024, stream.len()] {
            assert_eq!(cut_all(&stream, step), bodies, "in chunks of {step}");
        }
    }

    #[test]
    fn a_frame_whole_in_its_chunk_is_not_copied() {
        let mut cutter = FrameCutter::default();
        let chunk = BytesMut::from(&framed(&[vec![1; 10]])[..]);
        let place = chunk[4..].as_ptr();
        cutter.push(chunk);
        let Ok(Cut::Frame(frame)) = cutter.next(100) else { panic!("a frame") };
        assert_eq!(frame.as_ptr(), place);
    }

    #[test]
    fn a_large_frame_is_told_of_when_its_beginning_says_what_it_is_and_takes_up_what_comes_before_its_turn() {
        let length = LARGE_FRAME_BYTES + 10;
        let body: Vec<u8> = (0..length).map(|at| at as u8).collect();
        let stream = [&(length as u32).to_be_bytes()[..], &body].concat();
        let mut cutter = FrameCutter::default();
        for (from, to) in [(0, 3), (3, 7)] {
            cutter.push(BytesMut::from(&stream[from..to]));
            assert_eq!(cutter.next(length), Ok(Cut::NeedMore));
        }
        cutter.push(BytesMut::from(&stream[7..8]));
        let Ok(Cut::Large { mut beginning, .. }) = cutter.next(length) else { panic!("four bytes are there") };
        assert_eq!(beginning[..], body[..LARGE_BEGINNING_BYTES_MIN]);
        cutter.append(&stream[8..100]);
        cutter.append(&[&stream[100..], b"next"].concat());
        cutter.continue_large(&mut beginning, length);
        assert!(beginning[..] == body[..]);
        assert_eq!(cutter.uncut_bytes(), 4);
    }

    #[test]
    fn a_negative_or_oversized_prefix_is_refused_before_memory_is_taken() {
        for wrong in [-1, i32::MIN, 101] {
            let mut cutter = FrameCutter::default();
            cutter.push(BytesMut::from(&wrong.to_be_bytes()[..]));
            assert!(cutter.next(100).is_err(), "{wrong}");
        }
    }
}
