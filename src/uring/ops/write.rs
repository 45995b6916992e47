//! Write a vector to a file on a kernel worker: the append path where the shard might have to wait.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use io_uring::{opcode, types};

use super::Tries;
use super::read::RingFile;
use crate::uring::{Op, Ring};

/// Writes all of `data` at `position`, one buffer after the other; on an error any prefix may be in the file.
pub async fn write_all<F: RingFile>(
    ring: &Ring,
    file: &Arc<F>,
    mut position: u64,
    data: Vec<BytesMut>,
) -> io::Result<()> {
    let mut tries = Tries::default();
    for mut buffer in data {
        while !buffer.is_empty() {
            ring.room(1).await?;
            let length = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
            let entry = opcode::Write::new(types::Fd(file.descriptor().as_raw_fd()), buffer.as_ptr(), length)
                .offset(position)
                .build()
                .flags(io_uring::squeue::Flags::ASYNC);
            // SAFETY: the entry points into the buffer's heap memory, which the resources own and nobody changes.
            let (result, (_file, rest)) = unsafe { Op::start(ring, entry, (Arc::clone(file), buffer)) }.await;
            buffer = rest;
            let Some(result) = tries.settle(result) else { continue };
            match result? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => {
                    buffer.advance(count as usize);
                    position += u64::from(count);
                    tries = Tries::default();
                }
            }
        }
    }
    Ok(())
}
