//! Bytes of files that one look-up has waited for. Under memory pressure pages may be evicted faster than a look-up comes
//! back to them; what it holds itself it finds, so that each wait brings it on.

#![forbid(unsafe_code)]

use std::io;
use std::sync::Arc;

use bytes::BytesMut;

use crate::platform::Disk;

/// Pieces that a look-up may hold; the oldest goes first. A piece is one need of [`super::log::Read::NeedPages`]: a few
/// kilobytes.
const PIECES_MAX: usize = 64;

#[derive(Debug)]
pub struct Held<F> {
    pieces: Vec<Piece<F>>,
}

#[derive(Debug)]
struct Piece<F> {
    file: Arc<F>,
    position: u64,
    bytes: BytesMut,
}

impl<F> Default for Held<F> {
    fn default() -> Held<F> {
        Held { pieces: Vec::new() }
    }
}

impl<F> Held<F> {
    /// Bytes that [`Disk::read`] gave. They must be such as never change while the file is open: whole batches below the
    /// log end, or written index entries.
    pub fn hold(&mut self, file: Arc<F>, position: u64, bytes: BytesMut) {
        if self.pieces.len() == PIECES_MAX {
            self.pieces.remove(0);
        }
        self.pieces.push(Piece { file, position, bytes });
    }

    /// [`Disk::read_resident`], and what is held where the page cache has nothing.
    pub fn read<D: Disk<File = F>>(
        &self,
        disk: &D,
        file: &Arc<F>,
        position: u64,
        buffer: &mut [u8],
    ) -> io::Result<Option<usize>> {
        let read = disk.read_resident(file, position, buffer)?;
        if read.is_some_and(|count| count == buffer.len()) {
            return Ok(read);
        }
        let held = self.pieces.iter().rev().filter(|piece| Arc::ptr_eq(&piece.file, file)).find_map(|piece| {
            let start = usize::try_from(position.checked_sub(piece.position)?).ok()?;
            piece.bytes.get(start..).filter(|rest| !rest.is_empty())
        });
        match held {
            Some(held) if held.len() > read.unwrap_or(0) => {
                let count = held.len().min(buffer.len());
                buffer[..count].copy_from_slice(&held[..count]);
                Ok(Some(count))
            }
            _ => Ok(read),
        }
    }
}
