//! Reading what is not in the page cache, beside a producer on the same shard.

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

use ringlog::broker::Broker;
use ringlog::config::{AdminListen, Config, ServeOptions};
use ringlog::record::batch::{BatchBuilder, batches, decode_records, has_valid_crc};
use ringlog::record::compression::Codec;
use ringlog::sys;

use crate::server::{data_path, directory, first_segment};
use crate::wire::Wire;

const PRODUCE_VERSION: i16 = 9;
const BATCH_BYTES: usize = 256 * 1024;
const BATCH_COUNT: i64 = 160;
const FETCH_BYTES: i32 = 1 << 20;

fn start(directory: &Path, no_cachestat: bool) -> Broker {
    start_with(directory, ServeOptions { no_cachestat, ..ServeOptions::default() })
}

fn start_with(directory: &Path, options: ServeOptions) -> Broker {
    let set = vec!["listeners=PLAINTEXT://127.0.0.1:0".to_owned(), "log.initial.task.delay.ms=3600000".to_owned()];
    let data = Some(data_path(directory));
    let options = ServeOptions { set, data, admin_listen: AdminListen::Off, shards: Some(1), ..options };
    Broker::start(Config::load(&options).expect("settings")).expect("a broker")
}

fn value(number: i64) -> Vec<u8> {
    (0..BATCH_BYTES as i64).map(|index| (number * 31 + index / 7) as u8).collect()
}

fn fill(address: SocketAddr) {
    let mut wire = Wire::connect(address);
    assert_eq!((wire.create_topic("cold", 1), wire.create_topic("hot", 1)), (0, 0));
    for number in 0..BATCH_COUNT {
        let mut builder = BatchBuilder::new(Codec::None);
        builder.push(number, None, Some(&value(number)), &[]);
        assert_eq!(wire.produce(PRODUCE_VERSION, "cold", 0, &builder.build()).error_code, 0);
    }
}

/// Drops a segment from the page cache.
fn evict(directory: &Path) {
    let file = File::open(first_segment(directory, "cold", 0)).expect("the segment");
    file.sync_all().expect("synced: only clean pages can be dropped");
    sys::evict(file.as_fd(), 0, 0).expect("evicted");
}

/// Reads the whole partition; gives how often the producer was answered meanwhile, at each fetch.
fn read(address: SocketAddr, answers: &AtomicU64) -> Vec<u64> {
    read_asking(address, answers, || ())
}

/// The same; `ask` is called before each fetch.
fn read_asking(address: SocketAddr, answers: &AtomicU64, ask: impl Fn()) -> Vec<u64> {
    let mut wire = Wire::connect(address);
    let (mut next, mut seen) = (0, Vec::new());
    while next < BATCH_COUNT {
        ask();
        let (data, bytes) = wire.fetch("cold", 0, next, FETCH_BYTES);
        assert_eq!(data.error_code, 0);
        for (header, batch) in batches(&bytes).map_while(Result::ok) {
            assert!(has_valid_crc(batch));
            let records = decode_records(batch, 2 * BATCH_BYTES).expect("records");
            assert!(records[0].value.as_deref() == Some(&value(next)[..]), "record {next}");
            next = header.last_offset() + 1;
        }
        seen.push(answers.load(Ordering::Relaxed));
    }
    seen
}

/// Produces single records to `hot`, one after the other, until told to stop.
fn produce(address: SocketAddr, answers: &AtomicU64, stop: &AtomicBool) {
    let mut wire = Wire::connect(address);
    let mut builder = BatchBuilder::new(Codec::None);
    builder.push(0, None, Some(b"steady"), &[]);
    let batch = builder.build();
    while !stop.load(Ordering::Relaxed) {
        assert_eq!(wire.produce(PRODUCE_VERSION, "hot", 0, &batch).error_code, 0);
        answers.fetch_add(1, Ordering::Relaxed);
    }
}

/// Evicts, reads and produces.
fn read_cold_beside_a_producer(broker: &Broker, directory: &Path) {
    let counters = Arc::clone(&broker.counters()[0]);
    let before = (counters.cold_reads_total.get(), counters.cold_bytes_total.get());
    evict(directory);
    let (answers, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let address = broker.address();
    let seen = thread::scope(|scope| {
        scope.spawn(|| produce(address, &answers, &stop));
        let seen = read(address, &answers);
        stop.store(true, Ordering::Relaxed);
        seen
    });
    assert!(counters.cold_reads_total.get() > before.0, "what was evicted is read by the cold path");
    assert!(counters.cold_bytes_total.get() > before.1);
    assert!(seen.first() < seen.last(), "the producer stood still: {seen:?}");
    assert_eq!(counters.sendfile_slept_total.get(), 0, "a sendfile waited for a page");
}

#[test]
fn cold_pages_are_never_waited_for_in_sendfile_and_a_producer_on_the_shard_goes_on() {
    let directory = directory();
    let broker = start(directory.path(), false);
    fill(broker.address());
    broker.stop().expect("a clean stop");
    // Started anew, nothing counts as appended recently. Without cachestat as on kernels before 6.5.
    for no_cachestat in [false, true] {
        let broker = start(directory.path(), no_cachestat);
        read_cold_beside_a_producer(&broker, directory.path());
        broker.stop().expect("a clean stop");
    }
}

#[test]
fn pages_that_are_evicted_while_they_are_sent_are_brought_in_again_and_arrive_whole() {
    let directory = directory();
    let broker = start(directory.path(), false);
    fill(broker.address());
    broker.stop().expect("a clean stop");
    let broker = start(directory.path(), false);
    let (address, counters) = (broker.address(), Arc::clone(&broker.counters()[0]));
    let (asked, to_evict) = mpsc::channel();
    thread::scope(|scope| {
        // Once for each fetch, somewhere in its course; it ends when the reader is gone.
        scope.spawn(|| to_evict.into_iter().for_each(|()| evict(directory.path())));
        for _ in 0..4 {
            read_asking(address, &AtomicU64::new(0), || asked.send(()).expect("it evicts"));
        }
        drop(asked);
    });
    assert!(counters.cold_reads_total.get() > 0, "something was evicted in time");
    broker.stop().expect("a clean stop");
}

#[test]
fn many_cold_readers_share_one_step_and_all_are_served() {
    const READERS: usize = 16;
    let directory = directory();
    let broker = start(directory.path(), false);
    fill(broker.address());
    broker.stop().expect("a clean stop");
    // Less than one step of read-ahead: whoever reads cold does so alone.
    let broker = start_with(directory.path(), ServeOptions { cold_bytes_max: Some(1), ..ServeOptions::default() });
    let (address, answers, stop) = (broker.address(), AtomicU64::new(0), AtomicBool::new(false));
    evict(directory.path());
    thread::scope(|scope| {
        let producer = scope.spawn(|| produce(address, &answers, &stop));
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(|| read(address, &answers))).collect();
        for reader in readers {
            let seen = reader.join().expect("read to the end");
            assert!(seen.first() < seen.last(), "the producer stood still: {seen:?}");
        }
        stop.store(true, Ordering::Relaxed);
        producer.join().expect("answered to the end");
    });
    assert!(broker.counters()[0].cold_bytes_total.get() > 0);
    broker.stop().expect("a clean stop");
}

#[test]
fn a_reader_right_behind_the_tail_after_a_restart_asks_for_no_page() {
    let directory = directory();
    let broker = start(directory.path(), false);
    fill(broker.address());
    broker.stop().expect("a clean stop");
    let broker = start(directory.path(), false);
    evict(directory.path());
    let mut wire = Wire::connect(broker.address());
    for number in BATCH_COUNT..BATCH_COUNT + 20 {
        let mut builder = BatchBuilder::new(Codec::None);
        builder.push(number, None, Some(&value(number)), &[]);
        assert_eq!(wire.produce(PRODUCE_VERSION, "cold", 0, &builder.build()).error_code, 0);
        let (data, bytes) = wire.fetch("cold", 0, number, FETCH_BYTES);
        assert_eq!((data.error_code, batches(&bytes).count()), (0, 1));
    }
    assert_eq!(broker.counters()[0].cold_reads_total.get(), 0, "what was just appended is there");
    broker.stop().expect("a clean stop");
}
