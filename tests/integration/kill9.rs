//! kill -9 at random moments, again and again on one directory.
//!
//! Idempotent producers, one for each partition, send numbered records with five batches in flight. Somewhere past the
//! wanted count of acknowledged records the broker is killed by whichever thread got the answer. After the restart, and
//! before anything is sent again, a fresh consumer must find every acknowledged record at its offset with its key and
//! payload, and nothing twice or out of order: record n of a producer lies at offset n. Then the batches without an
//! answer are sent again under their old sequences, and the next round begins.

use std::collections::VecDeque;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringlog::base::crc32c::crc32c;
use ringlog::record::batch::{BatchBuilder, Record};
use ringlog::record::compression::Codec;

use crate::server::{Server, directory, serve};
use crate::wire::Wire;

const TOPIC: &str = "kill9";
const PARTITIONS: i32 = 16;
const PRODUCERS: i32 = 4;
const BATCH_RECORDS: i64 = 50;
/// What Kafka's idempotent producer has in flight at most, and the broker remembers.
const BATCHES_IN_FLIGHT: usize = 5;
const ACKNOWLEDGED_MIN: u64 = 50_000;
const ROUNDS_DEFAULT: u64 = 20;
const PRODUCE_VERSION: i16 = 9;

fn mix(value: u64) -> u64 {
    let mut mixed = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The payload of a record: up to 160 bytes that follow from the seed, the partition and its number.
fn payload(seed: u64, partition: i32, number: i64) -> Vec<u8> {
    let start = mix(seed ^ mix(partition as u64) ^ (number as u64));
    let words = 2 + start % 19;
    (0..words).flat_map(|word| mix(start ^ word).to_le_bytes()).collect()
}

/// Timestamps must be of today: the broker forgets producers that have been silent for a day by them, as Kafka does.
fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock past 1970");
    i64::try_from(since.as_millis()).expect("milliseconds fit")
}

struct Batch {
    first_number: i64,
    bytes: BytesMut,
}

/// What a producer knows of its partition.
struct Production {
    partition: i32,
    /// 1 or -1.
    acks: i16,
    producer_id: i64,
    next_number: i64,
    /// Sent and unanswered, oldest first.
    in_flight: VecDeque<Batch>,
    /// First number, base offset, and hash of each payload, of every acknowledged batch.
    acknowledged: Vec<(i64, i64, Vec<u32>)>,
}

impl Production {
    fn batch(&mut self, seed: u64) -> Batch {
        let first_number = self.next_number;
        self.next_number += BATCH_RECORDS;
        let sequence = i32::try_from(first_number).expect("fewer records than sequences");
        let mut builder = BatchBuilder::new(Codec::None).producer(self.producer_id, 0, sequence);
        for number in first_number..self.next_number {
            let value = payload(seed, self.partition, number);
            builder.push(wall_ms(), Some(&number.to_be_bytes()), Some(&value), &[]);
        }
        Batch { first_number, bytes: builder.build() }
    }

    fn acknowledge(&mut self, seed: u64, base_offset: i64) {
        let batch = self.in_flight.pop_front().expect("an answer to a batch");
        let numbers = batch.first_number..batch.first_number + BATCH_RECORDS;
        let hashes = numbers.map(|number| crc32c(&payload(seed, self.partition, number))).collect();
        self.acknowledged.push((batch.first_number, base_offset, hashes));
    }
}

/// When to kill the broker.
struct Fate<'a> {
    process: Pid,
    acknowledged: &'a AtomicU64,
    kill_at: u64,
    killed: &'a AtomicBool,
}

impl Fate<'_> {
    fn count(&self, records: u64) {
        let before = self.acknowledged.fetch_add(records, Ordering::Relaxed);
        if before < self.kill_at && before + records >= self.kill_at {
            kill(self.process, Signal::SIGKILL).expect("killed");
            self.killed.store(true, Ordering::Release);
        }
    }
}

/// One producer: its partitions over one connection, until the broker is gone. Without a `fate` it sends nothing new and
/// ends when all is answered.
fn produce(address: SocketAddr, seed: u64, mine: &mut [Production], fate: Option<&Fate<'_>>) {
    let mut wire = Wire::connect(address);
    let mut sent: VecDeque<usize> = VecDeque::new();
    for (index, production) in mine.iter().enumerate() {
        for batch in &production.in_flight {
            if send(&mut wire, production, batch).is_err() {
                return;
            }
            sent.push_back(index);
        }
    }
    loop {
        for (index, production) in mine.iter_mut().enumerate() {
            while fate.is_some() && production.in_flight.len() < BATCHES_IN_FLIGHT {
                let batch = production.batch(seed);
                let result = send(&mut wire, production, &batch);
                production.in_flight.push_back(batch);
                if result.is_err() {
                    return;
                }
                sent.push_back(index);
            }
        }
        let Some(index) = sent.pop_front() else { return };
        let Ok((_, answer)) = wire.receive_produce(PRODUCE_VERSION) else { return };
        let production = &mut mine[index];
        assert_eq!(answer.error_code, 0, "{TOPIC}-{}: {answer:?}", production.partition);
        production.acknowledge(seed, answer.base_offset);
        if let Some(fate) = fate {
            fate.count(BATCH_RECORDS as u64);
        }
    }
}

fn send(wire: &mut Wire, production: &Production, batch: &Batch) -> std::io::Result<i32> {
    wire.send_produce(PRODUCE_VERSION, production.acks, TOPIC, production.partition, &batch.bytes)
}

/// All producers at once.
fn produce_all(address: SocketAddr, seed: u64, productions: &mut [Production], fate: Option<&Fate<'_>>) {
    thread::scope(|scope| {
        for mine in productions.chunks_mut((PARTITIONS / PRODUCERS) as usize) {
            scope.spawn(move || produce(address, seed, mine, fate));
        }
    });
}

/// What a fresh consumer reads against what was acknowledged; gives the records read.
fn check(address: SocketAddr, seed: u64, productions: &[Production]) -> usize {
    let check = |mine: &[Production]| {
        let mut wire = Wire::connect(address);
        mine.iter()
            .map(|production| check_partition(seed, production, &wire.read_all(TOPIC, production.partition)))
            .sum()
    };
    thread::scope(|scope| {
        let quarters = productions.chunks((PARTITIONS / PRODUCERS) as usize);
        let readers: Vec<_> = quarters.map(|mine| scope.spawn(move || -> usize { check(mine) })).collect();
        readers.into_iter().map(|reader| reader.join().expect("what was read is what was acknowledged")).sum()
    })
}

fn check_partition(seed: u64, production: &Production, records: &[Record]) -> usize {
    let partition = production.partition;
    for (first_number, base_offset, hashes) in &production.acknowledged {
        for (index, hash) in hashes.iter().enumerate() {
            let (number, offset) = (first_number + index as i64, base_offset + index as i64);
            let Some(record) = records.get(offset as usize) else {
                panic!("acknowledged record {number} of partition {partition} at offset {offset} is lost");
            };
            assert_eq!(record.key.as_deref(), Some(&number.to_be_bytes()[..]), "partition {partition} offset {offset}");
            assert_eq!(record.value.as_deref().map(crc32c), Some(*hash), "partition {partition} offset {offset}");
        }
    }
    // Acknowledged or not: each record once, in the order it was sent in, whole.
    for (record, number) in records.iter().zip(0..) {
        assert_eq!(record.offset, number, "partition {partition}");
        assert_eq!(record.key.as_deref(), Some(&number.to_be_bytes()[..]), "partition {partition} offset {number}");
        assert_eq!(record.value.as_deref(), Some(&payload(seed, partition, number)[..]), "partition {partition}");
    }
    records.len()
}

fn number_from_environment(name: &str) -> Option<u64> {
    Some(std::env::var(name).ok()?.parse().expect("a number"))
}

fn begin(address: SocketAddr) -> Vec<Production> {
    let mut wire = Wire::connect(address);
    assert_eq!(wire.create_topic(TOPIC, PARTITIONS), 0);
    let new = |partition| Production {
        partition,
        // One kind for each connection: answers leave in order, so one that waits for all replicas holds back those that
        // an acks=1 broker gave too early, and would hide it.
        acks: if partition / (PARTITIONS / PRODUCERS) % 2 == 0 { 1 } else { -1 },
        producer_id: wire.new_producer().0,
        next_number: 0,
        in_flight: VecDeque::new(),
        acknowledged: Vec::new(),
    };
    (0..PARTITIONS).map(new).collect()
}

/// What differs between two ways to kill.
struct Way {
    rounds: u64,
    /// At least so many records are acknowledged in a round.
    acknowledged_min: u64,
    /// More flags of the broker.
    flags: &'static [&'static str],
    /// Starts that are killed before they serve, after each kill.
    killed_starts: u64,
}

/// Kills a start somewhere in its first milliseconds, while it reads its logs or when it has just served.
fn start_and_kill(directory: &Path, way: &Way, after: Duration) {
    let mut child = serve(directory, way.flags)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a process");
    let mut stdout = child.stdout.take().expect("piped");
    let (sender, served) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut byte = [0];
        if stdout.read_exact(&mut byte).is_ok() {
            let _ = sender.send(());
        }
    });
    // Whichever comes first.
    let _ = served.recv_timeout(after);
    child.kill().expect("killed");
    child.wait().expect("gone");
    reader.join().expect("it saw the end");
}

#[test]
fn no_acknowledged_record_is_lost_doubled_or_out_of_order_over_twenty_kills() {
    let rounds = number_from_environment("RINGLOG_KILL9_ROUNDS").unwrap_or(ROUNDS_DEFAULT);
    kill_again_and_again(&Way { rounds, acknowledged_min: ACKNOWLEDGED_MIN, flags: &[], killed_starts: 0 });
}

#[test]
fn none_is_lost_when_the_kills_fall_into_rolls_and_into_recoveries() {
    const SMALL_SEGMENTS: &[&str] =
        &["--set", "log.segment.bytes=65536", "--set", "log.index.interval.bytes=1024", "--durability", "fsync"];
    kill_again_and_again(&Way { rounds: 6, acknowledged_min: 10_000, flags: SMALL_SEGMENTS, killed_starts: 4 });
}

fn kill_again_and_again(way: &Way) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock past 1970");
    let seed = number_from_environment("RINGLOG_SEED").unwrap_or(now.as_nanos() as u64);
    eprintln!("to see the same moments again: RINGLOG_SEED={seed}");
    let start = Instant::now();
    let directory = directory();
    let mut server = Server::start_with_flags(directory.path(), way.flags);
    let mut productions = begin(server.address);
    for round in 0..way.rounds {
        let (acknowledged, killed) = (AtomicU64::new(0), AtomicBool::new(false));
        let kill_at = way.acknowledged_min + mix(seed ^ round) % (way.acknowledged_min / 2);
        let process = server.process();
        let fate = Fate { process, acknowledged: &acknowledged, kill_at, killed: &killed };
        produce_all(server.address, seed, &mut productions, Some(&fate));
        assert!(killed.load(Ordering::Acquire), "round {round}: the broker closed connections before it was killed");
        server.kill();
        for killed_start in 0..way.killed_starts {
            let after = Duration::from_micros(mix(seed ^ mix(round) ^ killed_start) % 60_000);
            start_and_kill(directory.path(), way, after);
        }
        server = Server::start_with_flags(directory.path(), way.flags);
        let read = check(server.address, seed, &productions);
        let acknowledged = acknowledged.load(Ordering::Relaxed);
        eprintln!("round {round}: {acknowledged} acknowledged, {read} in the logs, {:?}", start.elapsed());
    }
    produce_all(server.address, seed, &mut productions, None);
    assert!(productions.iter().all(|production| production.in_flight.is_empty()), "a retried batch got no answer");
    let read = check(server.address, seed, &productions);
    assert_eq!(read as i64, productions.iter().map(|production| production.next_number).sum::<i64>());
    server.stop();
    let server = Server::start_with_flags(directory.path(), way.flags);
    assert_eq!(check(server.address, seed, &productions), read, "a clean stop changes nothing");
}
