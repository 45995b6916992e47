use std::fs::File;
use std::future::Future;
use std::io;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;

use super::Ring;
use super::ops::read::{self, RingFile};
use super::ops::{receive, send, write};
use crate::base::time::Monotonic;

struct Plain(File);

impl RingFile for Plain {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn file_of(content: &[u8]) -> Arc<Plain> {
    let mut file = tempfile::tempfile().expect("temporary file");
    file.write_all(content).expect("written");
    Arc::new(Plain(file))
}

fn pair() -> (Rc<OwnedFd>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let peer = TcpStream::connect(listener.local_addr().expect("address")).expect("connected");
    (Rc::new(listener.accept().expect("accepted").0.into()), peer)
}

fn poll<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// Enters the ring until the future is done.
fn finish<F: Future + ?Sized>(ring: &Ring, mut future: Pin<Box<F>>) -> F::Output {
    for _ in 0..1000 {
        if let Poll::Ready(output) = poll(&mut future) {
            return output;
        }
        ring.submit_and_wait(Some(Duration::from_millis(50))).expect("entered");
        ring.reap(Monotonic::default());
    }
    panic!("still not complete");
}

#[test]
fn more_operations_than_both_queues_hold_all_complete() {
    // 4 submission entries, 32 completions: 500 operations overflow both before anything is reaped.
    let ring = Ring::new(4).expect("ring");
    let file = file_of(&(0..=255).collect::<Vec<u8>>());
    let mut reads: Vec<_> = (0..500u64)
        .map(|index| {
            let (ring, file) = (ring.clone(), Arc::clone(&file));
            Box::pin(async move { read::read(&ring, &file, index % 256, 1).await })
        })
        .collect();
    for read in &mut reads {
        assert!(poll(read).is_pending());
    }
    assert_eq!(ring.in_flight(), 500);
    for (index, read) in reads.into_iter().enumerate() {
        assert_eq!(finish(&ring, read).expect("read")[..], [(index % 256) as u8]);
    }
    assert_eq!(ring.in_flight(), 0);
}

#[test]
fn a_dropped_operation_keeps_its_buffer_until_the_kernel_lets_go() {
    let ring = Ring::new(8).expect("ring");
    let (socket, mut peer) = pair();
    let (receiving, held) = (ring.clone(), Rc::clone(&socket));
    let mut receive = Box::pin(async move { receive::receive_into(&receiving, &held, BytesMut::new(), 100).await });
    assert!(poll(&mut receive).is_pending());
    ring.submit().expect("submitted");
    drop(receive);
    assert_eq!(ring.in_flight(), 1, "parked, not freed");
    assert_eq!(Rc::strong_count(&socket), 2, "the descriptor too");
    peer.write_all(b"too late").expect("sent");
    for _ in 0..100 {
        ring.submit_and_wait(Some(Duration::from_millis(10))).expect("entered");
        ring.reap(Monotonic::default());
        if ring.in_flight() == 0 {
            break;
        }
    }
    assert_eq!((ring.in_flight(), Rc::strong_count(&socket)), (0, 1));
}

#[test]
fn a_ring_dropped_with_operations_in_flight_waits_for_the_kernel() {
    let (socket, _peer) = pair();
    for _ in 0..10 {
        let ring = Ring::new(8).expect("ring");
        let (receiving, held) = (ring.clone(), Rc::clone(&socket));
        let mut receive = Box::pin(async move { receive::receive_into(&receiving, &held, BytesMut::new(), 100).await });
        assert!(poll(&mut receive).is_pending());
        ring.submit().expect("submitted");
        drop(receive);
        drop(ring);
        assert_eq!(Rc::strong_count(&socket), 1, "nothing was leaked");
    }
}

#[test]
fn a_send_larger_than_the_socket_buffer_arrives_whole() {
    let ring = Ring::new(8).expect("ring");
    let (socket, mut peer) = pair();
    let data: Vec<u8> = (0..4_000_000u32).map(|index| (index % 253) as u8).collect();
    let expected = data.clone();
    let reader = std::thread::spawn(move || {
        let mut all = vec![0; 4_000_000];
        std::io::Read::read_exact(&mut peer, &mut all).map(|()| all)
    });
    let (sending, held) = (ring.clone(), Rc::clone(&socket));
    finish(&ring, Box::pin(async move { send::send_all(&sending, &held, data.into()).await })).expect("sent");
    assert!(reader.join().expect("joined").expect("read") == expected);
}

#[test]
fn errors_of_the_kernel_come_back_by_name() {
    let ring = Ring::new(8).expect("ring");
    // EBADF: a file that is open only for reading.
    let read_only = Arc::new(Plain(File::open("/proc/self/status").expect("open")));
    let (writing, file) = (ring.clone(), read_only);
    let refused = finish(
        &ring,
        Box::pin(async move { write::write_all(&writing, &file, 0, vec![BytesMut::from(&b"x"[..])]).await }),
    );
    assert_eq!(refused.expect_err("refused").raw_os_error(), Some(libc::EBADF));
    // ENOSPC.
    let full = File::options().write(true).open("/dev/full").expect("open");
    let (writing, file) = (ring.clone(), Arc::new(Plain(full)));
    let refused = finish(
        &ring,
        Box::pin(async move { write::write_all(&writing, &file, 0, vec![BytesMut::from(&b"x"[..])]).await }),
    );
    assert_eq!(refused.expect_err("refused").raw_os_error(), Some(libc::ENOSPC));
    // EPIPE, without a signal.
    let (socket, peer) = pair();
    drop(peer);
    let mut last = Ok(());
    for _ in 0..10 {
        let (sending, held) = (ring.clone(), Rc::clone(&socket));
        let data = bytes::Bytes::from_static(&[0; 1000]);
        last = finish(&ring, Box::pin(async move { send::send_all(&sending, &held, data).await }));
        if last.is_err() {
            break;
        }
    }
    let errno = last.expect_err("the peer is gone").raw_os_error();
    assert!(matches!(errno, Some(libc::EPIPE | libc::ECONNRESET)), "{errno:?}");
}

type Reading = Pin<Box<dyn Future<Output = io::Result<BytesMut>>>>;

/// Fills the submission queue with reads that the kernel was not shown yet.
fn crowd(ring: &Ring, file: &Arc<Plain>, count: usize) -> Vec<Reading> {
    let reads = (0..count).map(|_| -> Reading {
        let (ring, file) = (ring.clone(), Arc::clone(file));
        let mut read = Box::pin(async move { read::read(&ring, &file, 0, 4).await });
        assert!(poll(&mut read).is_pending());
        read
    });
    reads.collect()
}

#[test]
fn an_operation_that_finds_the_submission_queue_full_waits_for_room() {
    let ring = Ring::new(4).expect("ring");
    let file = file_of(b"content");
    let crowd = crowd(&ring, &file, 4);
    ring.refuse_submissions(3);
    let (reading, writing) = (ring.clone(), ring.clone());
    let (held, written) = (Arc::clone(&file), Arc::clone(&file));
    let mut read = Box::pin(async move { read::will_need(&reading, &held, 0, 4).await });
    let mut write =
        Box::pin(async move { write::write_all(&writing, &written, 0, vec![BytesMut::from(&b"C"[..])]).await });
    assert!(poll(&mut read).is_pending() && poll(&mut write).is_pending());
    assert_eq!(ring.in_flight(), 4, "neither is queued yet");
    finish(&ring, read).expect("read");
    finish(&ring, write).expect("written");
    for read in crowd {
        assert_eq!(finish(&ring, read).expect("read")[1..], b"ont"[..]);
    }
    assert_eq!(ring.in_flight(), 0);
}

#[test]
fn a_queue_that_stays_full_is_an_error_of_that_operation_only() {
    let ring = Ring::new(4).expect("ring");
    let file = file_of(b"content");
    let crowd = crowd(&ring, &file, 4);
    ring.refuse_submissions(usize::MAX);
    let (reading, held) = (ring.clone(), Arc::clone(&file));
    let mut read = Box::pin(async move { read::read(&reading, &held, 0, 4).await });
    let refused = (0..100_000).find_map(|_| match poll(&mut read) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    });
    let error = refused.expect("it does not wait for ever").expect_err("no room");
    assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
    ring.refuse_submissions(0);
    for read in crowd {
        assert_eq!(finish(&ring, read).expect("read")[..], b"cont"[..]);
    }
}

#[test]
fn a_cancellation_that_finds_the_submission_queue_full_is_asked_for_again() {
    let ring = Ring::new(4).expect("ring");
    let (socket, _peer) = pair();
    let (receiving, held) = (ring.clone(), Rc::clone(&socket));
    let mut receive = Box::pin(async move { receive::receive_into(&receiving, &held, BytesMut::new(), 100).await });
    assert!(poll(&mut receive).is_pending());
    ring.submit().expect("submitted");
    let crowd = crowd(&ring, &file_of(b"content"), 4);
    ring.refuse_submissions(1);
    drop(receive);
    for read in crowd {
        finish(&ring, read).expect("read");
    }
    for _ in 0..100 {
        ring.submit_and_wait(Some(Duration::from_millis(10))).expect("entered");
        ring.reap(Monotonic::default());
    }
    assert_eq!((ring.in_flight(), Rc::strong_count(&socket)), (0, 1), "the peer sent nothing");
}
