//! A connection in memory: two pipes. Bytes arrive in pieces, as the dice say.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::task::{Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};

use super::disk::{FakeDisk, FakeFile};
use super::world::World;
use crate::base::time::Monotonic;
use crate::platform::{Disk, FileRange, RECEIVE_CHUNK_BYTES_MAX, Socket};

#[derive(Default)]
struct Pipe {
    data: RefCell<BytesMut>,
    closed: Cell<bool>,
    reader: Cell<Option<Waker>>,
}

impl Pipe {
    fn push(&self, data: &[u8]) -> io::Result<()> {
        if self.closed.get() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.data.borrow_mut().extend_from_slice(data);
        self.wake();
        Ok(())
    }

    fn close(&self) {
        self.closed.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }
}

/// One end of a connection.
pub struct SimSocket {
    world: World,
    /// For what leaves by sendfile; a client's end has none.
    disk: Option<FakeDisk>,
    incoming: Rc<Pipe>,
    outgoing: Rc<Pipe>,
    sent_bytes: Cell<u64>,
}

impl SimSocket {
    fn push(&self, data: &[u8]) -> io::Result<()> {
        self.sent_bytes.set(self.sent_bytes.get() + data.len() as u64);
        self.outgoing.push(data)
    }
}

/// A connection between a client and a shard whose files are on `disk`: the client's end, then the shard's.
pub fn connect(world: &World, disk: &FakeDisk) -> (SimSocket, SimSocket) {
    let (up, down) = (Rc::new(Pipe::default()), Rc::new(Pipe::default()));
    let end = |disk, incoming: &Rc<Pipe>, outgoing: &Rc<Pipe>| SimSocket {
        world: world.clone(),
        disk,
        incoming: Rc::clone(incoming),
        outgoing: Rc::clone(outgoing),
        sent_bytes: Cell::new(0),
    };
    (end(None, &down, &up), end(Some(disk.clone()), &up, &down))
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        self.shut_down();
    }
}

impl Socket for SimSocket {
    type File = FakeFile;

    async fn receive(&self) -> io::Result<BytesMut> {
        std::future::poll_fn(|context| {
            let mut data = self.incoming.data.borrow_mut();
            if !data.is_empty() {
                let limit = data.len().min(RECEIVE_CHUNK_BYTES_MAX);
                let count = 1 + self.world.below(limit);
                return Poll::Ready(Ok(data.split_to(count)));
            }
            if self.incoming.closed.get() {
                return Poll::Ready(Ok(BytesMut::new()));
            }
            self.incoming.reader.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await
    }

    async fn receive_frame(&self, mut frame: BytesMut, length: usize) -> io::Result<BytesMut> {
        while frame.len() < length {
            let mut chunk = self.receive().await?;
            if chunk.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let count = chunk.len().min(length - frame.len());
            frame.extend_from_slice(&chunk[..count]);
            chunk.advance(count);
            if !chunk.is_empty() {
                let mut data = self.incoming.data.borrow_mut();
                chunk.extend_from_slice(&data);
                *data = chunk;
            }
        }
        Ok(frame)
    }

    fn came_after(&self) -> Monotonic {
        self.world.now()
    }

    async fn send(&self, data: Bytes, _more: bool) -> io::Result<()> {
        self.world.pause().await;
        self.push(&data)
    }

    async fn send_range(&self, range: &mut FileRange<FakeFile>, length_max: u64, _: bool) -> io::Result<()> {
        let mut left = length_max.min(range.length);
        while left > 0 {
            let count = 1 + self.world.next_u64() % left;
            let disk = self.disk.as_ref().ok_or(io::ErrorKind::Unsupported)?;
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
            self.push(&bytes)?;
            range.advance(count);
            left -= count;
        }
        Ok(())
    }

    fn unread_bytes(&self) -> u64 {
        self.incoming.data.borrow().len() as u64
    }

    fn sent_bytes(&self) -> u64 {
        self.sent_bytes.get()
    }

    fn peer(&self) -> String {
        "simulated".to_owned()
    }

    fn shut_down(&self) {
        self.incoming.close();
        self.outgoing.close();
    }
}
