mod connect;
mod disk;

use std::cell::Cell;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::write_back::{KEEP_BYTES, PIECE_BYTES_MAX};
use super::*;
use crate::base::ids::{TopicId, TopicPartition};
use crate::metrics::{HeldCall, Recorded};
use crate::platform::{Disk, Fence, FileRange, OpenMode, Socket};
use crate::record::batch::{BatchBuilder, BatchHeader};
use crate::record::compression::Codec;
use crate::storage::log::{LastStop, Log, LogConfig, OpenLog, Origin, Read as Found, Staged};
use crate::storage::open_files::OpenFiles;
use crate::uring::doorbell::EventDoorbell;
use crate::uring::op::{QUEUED_BYTES_FAIR, QUEUED_BYTES_MAX, RING_QUEUED_BYTES_MAX};
use crate::{shard, sys};

/// How long what the kernel does by itself may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// Runs `test` as a task of a real shard loop, to its end.
fn on_a_shard<F: Future<Output = ()> + 'static>(directory: &Path, test: impl FnOnce(LinuxPlatform) -> F) {
    on_a_shard_with(directory, true, test);
}

fn on_a_shard_with<F: Future<Output = ()> + 'static>(
    directory: &Path,
    cachestat: bool,
    test: impl FnOnce(LinuxPlatform) -> F,
) {
    on_a_shard_of(start_directory(directory, 1 << 30), cachestat, test);
}

fn start_directory(path: &Path, dirty_bytes_max: u64) -> Arc<Directory> {
    let write_back = WriteBack::start("write-back").expect("write-back");
    Directory::start(path, 0, dirty_bytes_max, write_back).expect("directory")
}

fn on_a_shard_of<F: Future<Output = ()> + 'static>(
    directory: Arc<Directory>,
    cachestat: bool,
    test: impl FnOnce(LinuxPlatform) -> F,
) {
    let limits = DiskLimits { cold_bytes_max: 1 << 20, cachestat };
    let doorbell = EventDoorbell::new().expect("eventfd");
    let executor = Executor::new(doorbell.clone());
    let directories = [directory];
    let work = WorkPool::start(1).expect("work");
    let counters = Arc::new(ShardCounters::default());
    let ring = Ring::new(64).expect("ring");
    let platform = LinuxPlatform::new(Some(ShardId(0)), ring, executor.clone(), &directories, work, limits, counters);
    let done = Rc::new(Cell::new(false));
    let (finished, future) = (Rc::clone(&done), test(platform.clone()));
    executor.spawn(async move {
        future.await;
        finished.set(true);
    });
    shard::run::run(&platform, &doorbell, || done.get()).expect("the loop ends in order");
}

/// A connection: the shard's side, and a plain blocking peer.
fn connect(platform: &LinuxPlatform) -> (LinuxSocket, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let peer = TcpStream::connect(listener.local_addr().expect("address")).expect("connected");
    let (accepted, _) = listener.accept().expect("accepted");
    accepted.set_nonblocking(true).expect("non-blocking");
    let descriptor = OwnedFd::from(accepted);
    (LinuxSocket::new(platform, descriptor).expect("socket"), peer)
}

async fn new_log(platform: &LinuxPlatform, log_dir: &Path) -> Log<LinuxDisk> {
    let opened = Log::open(OpenLog {
        disk: platform.disk().clone(),
        log_dir: log_dir.to_owned(),
        topic_partition: TopicPartition { topic: "t".into(), partition: 0 },
        topic_id: TopicId([1; 16]),
        config: LogConfig::default(),
        last_stop: LastStop::default(),
        wall: 0,
        open_files: OpenFiles::new(4),
        progress: Arc::default(),
    });
    opened.await.expect("opened")
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index.wrapping_mul(2_654_435_761) >> 7) as u8).collect()
}

#[test]
fn bytes_arrive_in_order_through_the_pool_and_a_large_frame_straight_into_its_buffer() {
    let directory = tempfile::tempdir().expect("directory");
    on_a_shard(directory.path(), |platform| async move {
        let (socket, mut peer) = connect(&platform);
        let sent = pattern(3_000_000);
        let expected = sent.clone();
        let writer = std::thread::spawn(move || peer.write_all(&sent));
        let mut got = BytesMut::new();
        while got.len() < 100_000 {
            let chunk = socket.receive().await.expect("received");
            assert!(!chunk.is_empty());
            got.extend_from_slice(&chunk);
        }
        let frame = socket.receive_frame(BytesMut::new(), 2_000_000).await.expect("frame");
        assert_eq!(frame.len(), 2_000_000);
        got.extend_from_slice(&frame);
        loop {
            let chunk = socket.receive().await.expect("received");
            if chunk.is_empty() {
                break;
            }
            got.extend_from_slice(&chunk);
        }
        assert!(got == expected, "all bytes, in order");
        writer.join().expect("joined").expect("sent");
    });
}

#[test]
fn a_receiver_that_lags_bounds_what_is_queued_and_loses_nothing() {
    let directory = tempfile::tempdir().expect("directory");
    on_a_shard(directory.path(), |platform| async move {
        let (socket, mut peer) = connect(&platform);
        let sent = pattern(8 << 20);
        let expected = sent.clone();
        let writer = std::thread::spawn(move || peer.write_all(&sent));
        let mut got = socket.receive().await.expect("received");
        for _ in 0..5 {
            let deadline = platform.clock().now() + std::time::Duration::from_millis(20);
            platform.clock().sleep_until(deadline).await;
            got.extend_from_slice(&socket.receive().await.expect("received"));
        }
        loop {
            let chunk = socket.receive().await.expect("received");
            if chunk.is_empty() {
                break;
            }
            got.extend_from_slice(&chunk);
        }
        assert!(got == expected, "all bytes, in order");
        writer.join().expect("joined").expect("sent");
    });
}

#[test]
fn many_receivers_that_lag_hold_little_together_and_lose_nothing() {
    const CONNECTIONS: usize = 96;
    const SENT_BYTES: usize = 1 << 20;
    // What is on its way when the bound is met still comes.
    const HELD_BYTES_MAX: usize = RING_QUEUED_BYTES_MAX + CONNECTIONS * QUEUED_BYTES_FAIR + (8 << 20);
    const _: () = assert!(HELD_BYTES_MAX < CONNECTIONS * QUEUED_BYTES_MAX);
    let directory = tempfile::tempdir().expect("directory");
    on_a_shard(directory.path(), |platform| async move {
        let (sockets, peers): (Vec<_>, Vec<_>) = (0..CONNECTIONS).map(|_| connect(&platform)).unzip();
        let sent = Arc::new(pattern(SENT_BYTES));
        let writers: Vec<_> = peers
            .into_iter()
            .map(|mut peer| {
                let sent = Arc::clone(&sent);
                std::thread::spawn(move || peer.write_all(&sent))
            })
            .collect();
        let mut got = Vec::new();
        for socket in &sockets {
            got.push(socket.receive().await.expect("received"));
        }
        let mut held = 0;
        for _ in 0..20 {
            let deadline = platform.clock().now() + std::time::Duration::from_millis(10);
            platform.clock().sleep_until(deadline).await;
            held = held.max(sockets.iter().map(Socket::unread_bytes).sum::<u64>() as usize);
        }
        assert!(held < HELD_BYTES_MAX, "{held} bytes");
        assert!(held > RING_QUEUED_BYTES_MAX / 2, "the bound was not met: {held} bytes");
        for (socket, got) in sockets.iter().zip(&mut got) {
            loop {
                let chunk = socket.receive().await.expect("received");
                if chunk.is_empty() {
                    break;
                }
                got.extend_from_slice(&chunk);
            }
            assert!(got[..] == sent[..], "all bytes, in order");
        }
        for writer in writers {
            writer.join().expect("joined").expect("sent");
        }
    });
}

#[test]
fn header_and_range_arrive_as_one_stream_even_when_the_peer_reads_late() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("data");
    on_a_shard(directory.path(), |platform| async move {
        let content = pattern(6 << 20);
        let (file, _) = platform.disk().open(&path, OpenMode::CreateNew).await.expect("open");
        platform.disk().append(&file, 0, vec![BytesMut::from(&content[..])]).await.expect("append");
        assert!(platform.disk().is_resident(&file, 0, content.len() as u64));
        let (socket, mut peer) = connect(&platform);
        let (start, started) = std::sync::mpsc::channel::<()>();
        let reader = std::thread::spawn(move || {
            started.recv().expect("told to start");
            let mut all = Vec::new();
            peer.read_to_end(&mut all).map(|_| all)
        });
        socket.send(Bytes::from_static(b"header"), true).await.expect("sent");
        let mut range = FileRange { file, position: 1000, length: (6 << 20) - 1000, fence: Fence::new() };
        let sleep = platform.clock().sleep_until(platform.clock().now() + std::time::Duration::from_millis(20));
        platform.tasks().spawn(async move {
            sleep.await;
            start.send(()).expect("the reader waits");
        });
        socket.send_range(&mut range, u64::MAX, true).await.expect("sent");
        assert_eq!(range.length, 0);
        socket.send(Bytes::from_static(b"tail"), false).await.expect("sent");
        drop(socket);
        let all = reader.join().expect("joined").expect("read");
        assert_eq!(&all[..6], b"header");
        assert!(all[6..all.len() - 4] == content[1000..]);
        assert_eq!(&all[all.len() - 4..], b"tail");
    });
}

#[test]
fn a_sendfile_that_meets_a_page_on_the_disk_is_counted_and_one_of_resident_pages_is_not() {
    let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("directory");
    let path = directory.path().join("data");
    std::fs::write(&path, pattern(8 << 20)).expect("written");
    on_a_shard(directory.path(), |platform| async move {
        let disk = platform.disk().clone();
        let (file, length) = disk.open(&path, OpenMode::Read).await.expect("open");
        disk.sync(&file).await.expect("sync");
        let slept = || platform.counters().sendfile_slept_total.get();
        for cold in [false, true] {
            let (socket, mut peer) = connect(&platform);
            let reader = std::thread::spawn(move || peer.read_to_end(&mut Vec::new()));
            let before = slept();
            let mut range = FileRange { file: Arc::clone(&file), position: 0, length, fence: Fence::new() };
            while range.length > 0 {
                if cold {
                    sys::evict(file.as_fd(), 0, 0).expect("evicted");
                }
                socket.send_range(&mut range, 1 << 20, false).await.expect("sent");
            }
            assert_eq!(slept() > before, cold);
            drop(socket);
            reader.join().expect("joined").expect("read");
        }
    });
}

/// Longer than what is taken for nothing.
const LONG: Duration = Duration::from_millis(3);

fn be_busy() {
    let begun = Instant::now();
    while begun.elapsed() < LONG {
        std::hint::spin_loop();
    }
}

#[test]
fn bytes_that_came_during_a_turn_count_from_its_beginning_and_those_that_woke_the_shard_from_then() {
    let directory = tempfile::tempdir().expect("directory");
    on_a_shard(directory.path(), |platform| async move {
        let (socket, mut peer) = connect(&platform);
        let now = || platform.clock().now();
        peer.write_all(b"armed").expect("sent");
        socket.receive().await.expect("received");
        for _ in 0..3 {
            // A turn of its own, in which the bytes come early.
            platform.clock().sleep_until(now() + LONG).await;
            let began = now();
            peer.write_all(b"early").expect("sent");
            let came = now();
            be_busy();
            assert_eq!(socket.receive().await.expect("received"), b"early"[..]);
            let came_after = socket.came_after();
            assert!(came_after <= came && began.since(came_after) < LONG, "{came_after:?} {began:?} {came:?}");

            let thread = format!("/proc/self/task/{}/stat", nix::unistd::gettid());
            let mut writer = peer.try_clone().expect("another handle");
            let writer = std::thread::spawn(move || {
                while !std::fs::read_to_string(&thread).is_ok_and(|stat| stat.contains(") S ")) {
                    std::thread::yield_now();
                }
                be_busy();
                writer.write_all(b"waking")
            });
            let began = now();
            assert_eq!(socket.receive().await.expect("received"), b"waking"[..]);
            assert!(socket.came_after().since(began) >= LONG, "{:?} {began:?}", socket.came_after());
            writer.join().expect("joined").expect("sent");
        }
    });
}

/// The wait in the ring, where the thread sleeps, must not be taken for a sleep in the call that comes next.
#[test]
fn a_call_that_is_only_long_right_after_the_shard_slept_in_its_ring_has_not_held_it() {
    let directory = tempfile::tempdir().expect("directory");
    on_a_shard(directory.path(), |platform| async move {
        let file = File::open("/proc/self/exe").expect("a file");
        for _ in 0..3 {
            let switches = sys::voluntary_switches();
            platform.clock().sleep_until(platform.clock().now() + LONG).await;
            assert!(sys::voluntary_switches() > switches, "it slept in the ring");
            let (_, took) = platform.held().during(HeldCall::Write, file.as_fd(), be_busy);
            assert!(!took.slept && took.time >= LONG);
        }
        let turns = Recorded::from(&platform.counters().turn_time);
        // A turn is recorded when it is over: two of the three that were busy.
        assert!(turns.seconds() >= 2.0 * LONG.as_secs_f64(), "{} s", turns.seconds());
        let short = turns.below().take_while(|(bound, _)| *bound < LONG.as_secs_f64()).last().expect("a bound").1;
        assert!(turns.count() - short >= 2, "{short} of {} turns were short", turns.count());
        let held = &platform.counters().held;
        assert!(HeldCall::ALL.iter().all(|call| held.of(*call).calls_total.get() == 0));
    });
}

#[test]
fn a_cut_fence_closes_the_sender_before_it_sends_other_bytes_than_it_promised() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("data");
    std::fs::write(&path, pattern(4096)).expect("written");
    on_a_shard(directory.path(), |platform| async move {
        let (file, _) = platform.disk().open(&path, OpenMode::Read).await.expect("open");
        let fence = Fence::new();
        fence.cut_at(1000);
        let (socket, _peer) = connect(&platform);
        let mut below = FileRange { file: Arc::clone(&file), position: 0, length: 1000, fence: Arc::clone(&fence) };
        socket.send_range(&mut below, u64::MAX, true).await.expect("below the cut");
        let mut beyond = FileRange { file, position: 500, length: 501, fence };
        let refused = socket.send_range(&mut beyond, u64::MAX, true).await.expect_err("beyond the cut");
        assert_eq!(refused.kind(), std::io::ErrorKind::UnexpectedEof);
    });
}

/// A log of one large segment is cut while its bytes are on their way to a peer that does not read: what arrives are the
/// bytes that were promised, as far as they were sent before the cut, and then the end of the connection.
#[test]
fn a_log_truncated_under_a_sender_ends_the_connection_and_no_byte_that_arrived_was_another() {
    const BATCHES: i64 = 64;
    let directory = tempfile::tempdir().expect("directory");
    let log_dir = directory.path().to_owned();
    on_a_shard(directory.path(), |platform| async move {
        let mut log = new_log(&platform, &log_dir).await;
        for at in 0..BATCHES {
            let mut builder = BatchBuilder::new(Codec::None);
            builder.push(at, None, Some(&pattern(256 << 10)), &[]);
            let batch = builder.build();
            let header = BatchHeader::parse(&batch).expect("header");
            assert!(matches!(log.stage(batch, &header, Origin::Client, 0, 0), Staged::Written { .. }));
            let write = log.take_write().expect("staged");
            let written = platform.disk().append(&write.file, write.position, write.data).await;
            log.finish_write(written).expect("written");
        }
        let bytes = std::fs::read(log_dir.join("t-0/00000000000000000000.log")).expect("read");
        let Found::Range { mut range, .. } = log.read(0, u64::MAX, BATCHES) else { panic!("no range") };
        let (socket, mut peer) = connect(&platform);
        let failed = Rc::new(Cell::new(false));
        let (seen, first_sent) = (Rc::clone(&failed), Rc::new(Cell::new(0)));
        let sent = Rc::clone(&first_sent);
        platform.tasks().spawn(async move {
            let whole = range.length;
            loop {
                match socket.send_range(&mut range, 64 << 10, true).await {
                    Ok(()) => sent.set(whole - range.length),
                    Err(error) => {
                        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
                        seen.set(true);
                        return;
                    }
                }
            }
        });
        // As much as the sockets take; then the sender waits for the peer.
        let mut before = u64::MAX;
        while first_sent.get() != before {
            before = first_sent.get();
            for _ in 0..1000 {
                crate::executor::yield_now().await;
            }
        }
        assert!(before < bytes.len() as u64, "the peer does not read yet");
        let log = log.truncate_to(BATCHES - 1, 0).await.expect("truncated");
        assert_eq!(log.log_end_offset(), BATCHES - 1);
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            peer.read_to_end(&mut all).map(|_| all)
        });
        while !failed.get() {
            crate::executor::yield_now().await;
        }
        let all = reader.join().expect("joined").expect("read");
        assert!(all.len() < bytes.len() && all[..] == bytes[..all.len()]);
        log.close().await.expect("closed");
    });
}

#[test]
fn a_dropped_receive_leaves_the_ring_usable_and_its_end_in_order() {
    let directory = tempfile::tempdir().expect("directory");
    on_a_shard(directory.path(), |platform| async move {
        for _ in 0..100 {
            let (socket, peer) = connect(&platform);
            let waiting = Rc::new(socket);
            let receiver = Rc::clone(&waiting);
            platform.tasks().spawn(async move {
                let _ = receiver.receive().await;
            });
            crate::executor::yield_now().await;
            drop((waiting, peer));
        }
    });
}

#[test]
fn helper_results_come_back_to_a_sleeping_shard() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("small");
    on_a_shard(directory.path(), |platform| async move {
        for round in 0..50u8 {
            platform.disk().replace(&path, vec![round; 10]).await.expect("replaced");
            assert_eq!(platform.disk().read_whole(&path, 10).await.expect("read"), vec![round; 10]);
        }
        assert!(platform.disk().read_whole(&path, 9).await.is_err());
    });
    assert_eq!(File::open(directory.path().join("small")).expect("there").metadata().expect("metadata").len(), 10);
}

#[test]
fn more_arrives_at_once_than_the_pool_holds_and_nothing_is_lost() {
    const CONNECTIONS: usize = 200;
    let directory = tempfile::tempdir().expect("directory");
    on_a_shard(directory.path(), |platform| async move {
        let content = pattern(20_000);
        let pairs: Vec<_> = (0..CONNECTIONS).map(|_| connect(&platform)).collect();
        let mut peers = Vec::new();
        let receivers = pairs.into_iter().map(|(socket, mut peer)| {
            // Everything is there before the first receive is armed: more than the pool has chunks for.
            peer.write_all(&content).expect("sent");
            peers.push(peer);
            let expected = content.clone();
            Box::pin(async move {
                let mut got = Vec::new();
                while got.len() < expected.len() {
                    let chunk = socket.receive().await.expect("received");
                    assert!(!chunk.is_empty());
                    got.extend_from_slice(&chunk);
                }
                assert!(got == expected);
            })
        });
        // No timer and no other traffic: those who met an empty pool must be let through by the loop alone.
        crate::executor::all(receivers.collect()).await;
    });
}
