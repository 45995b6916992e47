//! One end of a connection in memory, as a shard or a client has it. Bytes arrive in pieces, as the dice say.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use super::disk::{FakeDisk, FakeFile};
use super::host::{Host, HostClock};
use super::network::{Connection, Side};
use crate::base::time::Monotonic;
use crate::platform::{Clock, Disk, FileRange, RECEIVE_CHUNK_BYTES_MAX, Socket};

pub struct SimSocket {
    connection: Rc<Connection>,
    side: Side,
    clock: HostClock,
    /// For what leaves by sendfile; a client's end has none.
    disk: Option<FakeDisk>,
    sent_bytes: Cell<u64>,
}

impl SimSocket {
    pub(super) fn new(connection: Rc<Connection>, side: Side, host: &Host, disk: Option<&FakeDisk>) -> SimSocket {
        let (clock, disk) = (host.clock().clone(), disk.cloned());
        SimSocket { connection, side, clock, disk, sent_bytes: Cell::new(0) }
    }

    fn push(&self, bytes: Bytes) {
        self.sent_bytes.set(self.sent_bytes.get() + bytes.len() as u64);
        self.connection.send(self.side, bytes);
    }

    async fn take(&self, limit: usize) -> io::Result<BytesMut> {
        poll_fn(|context| self.connection.poll_receive(self.side, limit, context)).await
    }

    /// The room there is, and whether it had to be waited for.
    async fn room(&self) -> io::Result<(usize, bool)> {
        let mut waited = false;
        let room = poll_fn(|context| {
            let room = self.connection.poll_room(self.side, context);
            waited |= room.is_pending();
            room
        });
        let room = room.await?;
        Ok((room, waited))
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        self.connection.close(self.side);
    }
}

impl Socket for SimSocket {
    type File = FakeFile;

    async fn receive(&self) -> io::Result<BytesMut> {
        self.take(RECEIVE_CHUNK_BYTES_MAX).await
    }

    async fn receive_frame(&self, mut frame: BytesMut, length: usize) -> io::Result<BytesMut> {
        while frame.len() < length {
            let chunk = self.take(length - frame.len()).await?;
            if chunk.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            frame.extend_from_slice(&chunk);
        }
        Ok(frame)
    }

    fn came_after(&self) -> Monotonic {
        self.clock.now()
    }

    async fn send(&self, mut data: Bytes, _more: bool) -> io::Result<()> {
        self.connection.network().world().pause().await;
        while !data.is_empty() {
            let (room, _) = self.room().await?;
            self.push(data.split_to(room.min(data.len())));
        }
        Ok(())
    }

    async fn send_range(
        &self,
        range: &mut FileRange<FakeFile>,
        length_max: u64,
        recently_appended: bool,
    ) -> io::Result<()> {
        let disk = self.disk.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let mut left = length_max.min(range.length);
        while left > 0 {
            let (room, waited) = self.room().await?;
            if waited && !recently_appended {
                return Ok(());
            }
            let count = 1 + self.connection.network().world().next_u64() % left.min(room as u64);
            let bytes = {
                let _inside = range.enter().ok_or(io::ErrorKind::UnexpectedEof)?;
                assert!(
                    disk.is_resident(&range.file, range.position, count),
                    "a sendfile would meet a page on the disk and hold the shard"
                );
                range.file.bytes_at(range.position, count)
            };
            if bytes.len() as u64 != count {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.push(bytes.into());
            range.advance(count);
            left -= count;
        }
        Ok(())
    }

    fn unread_bytes(&self) -> u64 {
        self.connection.unread_bytes(self.side) as u64
    }

    fn sent_bytes(&self) -> u64 {
        self.sent_bytes.get()
    }

    fn peer(&self) -> String {
        self.connection.address(self.side.other()).to_string()
    }

    fn shut_down(&self) {
        self.connection.shut_down(self.side);
    }
}
