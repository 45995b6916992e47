//! Listeners, the limits of connections, and clients that send or read next to nothing.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use ringlog::broker::Broker;
use ringlog::config::{AdminListen, Config, ServeOptions};
use ringlog::protocol::message::fetch::{FetchPartition, FetchRequest, FetchTopic};
use ringlog::protocol::{ApiKey, Writer};
use ringlog::record::batch::BatchBuilder;
use ringlog::record::compression::Codec;

use crate::server::{DEADLINE, Server, data_path, directory};
use crate::wire::Wire;

const PRODUCE_VERSION: i16 = 9;

fn start(directory: &Path, shards: u16, settings: &[&str]) -> Broker {
    let mut set = vec!["listeners=PLAINTEXT://127.0.0.1:0".to_owned(), "log.initial.task.delay.ms=3600000".to_owned()];
    set.extend(settings.iter().map(|setting| (*setting).to_owned()));
    let data = Some(data_path(directory));
    let options =
        ServeOptions { set, data, admin_listen: AdminListen::Off, shards: Some(shards), ..ServeOptions::default() };
    Broker::start(Config::load(&options).expect("settings")).expect("a broker")
}

fn batch(bytes: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Codec::None);
    builder.push(0, None, Some(&vec![b'x'; bytes]), &[]);
    builder.build().to_vec()
}

/// A broker in this process had a ring on this thread, whose end may interrupt a call.
fn read(stream: &mut TcpStream) -> io::Result<usize> {
    loop {
        match stream.read(&mut [0; 4096]) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Whether the broker ends the connection before the deadline.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(DEADLINE)).expect("set");
    match read(stream) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

/// Whether a request on the connection is answered before `deadline`.
fn is_served_within(stream: &mut TcpStream, deadline: Duration) -> bool {
    // ApiVersions 0, correlation id 7, no client id.
    stream.write_all(&[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff]).expect("sent");
    stream.set_read_timeout(Some(deadline)).expect("set");
    matches!(read(stream), Ok(1..))
}

#[test]
fn a_client_is_told_the_addresses_of_the_listener_that_it_came_in_by() {
    let directory = directory();
    let listeners = "listeners=INNER://127.0.0.1:0,OUTER://127.0.0.1:0,HIDDEN://127.0.0.1:0";
    let map = "listener.security.protocol.map=INNER:PLAINTEXT,OUTER:PLAINTEXT,HIDDEN:PLAINTEXT";
    let advertised = "advertised.listeners=INNER://127.0.0.1:0,OUTER://kafka.example:19092";
    let broker = start(directory.path(), 2, &[listeners, map, advertised, "inter.broker.listener.name=INNER"]);
    let [inner, outer, hidden] = broker.addresses() else { panic!("three listeners") };
    let told = |address: &SocketAddr| {
        let metadata = Wire::connect(*address).metadata("shown");
        let brokers: Vec<_> = metadata.brokers.iter().map(|broker| (broker.host.clone(), broker.port)).collect();
        (brokers, metadata.topics[0].partitions[0].error_code, metadata.topics[0].partitions[0].leader_id)
    };
    assert_eq!(told(inner), (vec![("127.0.0.1".to_owned(), i32::from(inner.port()))], 0, 1));
    assert_eq!(told(outer), (vec![("kafka.example".to_owned(), 19092)], 0, 1));
    const LISTENER_NOT_FOUND: i16 = 72;
    assert_eq!(told(hidden), (vec![], LISTENER_NOT_FOUND, -1));
    broker.stop().expect("a clean stop");
}

#[test]
fn connections_past_the_limit_are_served_when_others_have_ended() {
    let directory = directory();
    let broker = start(directory.path(), 1, &["max.connections=2"]);
    let connect = || TcpStream::connect(broker.address()).expect("the kernel's backlog takes it");
    let (mut first, mut second) = (connect(), connect());
    assert!(is_served_within(&mut first, DEADLINE) && is_served_within(&mut second, DEADLINE));
    let mut third = connect();
    assert!(!is_served_within(&mut third, Duration::from_millis(300)));
    drop(first);
    third.set_read_timeout(Some(DEADLINE)).expect("set");
    assert!(matches!(read(&mut third), Ok(1..)), "it has its turn");
    assert!(is_served_within(&mut second, DEADLINE));
    broker.stop().expect("a clean stop");
}

#[test]
fn an_address_that_has_its_number_is_closed_at_once_and_has_room_again_later() {
    let directory = directory();
    let broker =
        start(directory.path(), 2, &["max.connections.per.ip=0", "max.connections.per.ip.overrides=127.0.0.1:2"]);
    let connect = || TcpStream::connect(broker.address()).expect("connected");
    let (mut first, mut second) = (connect(), connect());
    assert!(is_served_within(&mut first, DEADLINE) && is_served_within(&mut second, DEADLINE));
    assert!(is_closed(&mut connect()));
    assert!(broker.counters()[0].connections_refused_total.get() > 0);
    drop(first);
    let deadline = Instant::now() + DEADLINE;
    let mut again = connect();
    while is_closed_already(&mut again) {
        assert!(Instant::now() < deadline, "the ended connection still counts");
        again = connect();
    }
    assert!(is_served_within(&mut second, DEADLINE));
    broker.stop().expect("a clean stop");
}

/// Whether a request meets a closed connection.
fn is_closed_already(stream: &mut TcpStream) -> bool {
    let sent = stream.write_all(&[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff]);
    stream.set_read_timeout(Some(DEADLINE)).expect("set");
    sent.is_err() || !matches!(read(stream), Ok(1..))
}

#[test]
fn new_connections_come_at_most_at_their_rate() {
    let directory = directory();
    let broker = start(directory.path(), 1, &["max.connection.creation.rate=20"]);
    let start = Instant::now();
    let mut open = Vec::new();
    for _ in 0..60 {
        let mut stream = TcpStream::connect(broker.address()).expect("connected");
        assert!(is_served_within(&mut stream, DEADLINE));
        open.push(stream);
    }
    // One second's worth may come at once.
    assert!(start.elapsed() > Duration::from_millis(1500), "{:?}", start.elapsed());
    broker.stop().expect("a clean stop");
}

#[test]
fn an_idle_connection_is_closed_and_one_that_waits_for_its_answer_is_not() {
    let directory = directory();
    let broker = start(directory.path(), 1, &["connections.max.idle.ms=300"]);
    let mut waiting = Wire::connect(broker.address());
    assert_eq!(waiting.create_topic("quiet", 1), 0);
    let partition = FetchPartition { partition: 0, partition_max_bytes: 1000, ..Default::default() };
    let topics = vec![FetchTopic { topic: "quiet".into(), partitions: vec![partition], ..Default::default() }];
    let request = FetchRequest { max_wait_ms: 1500, min_bytes: 1, topics, ..Default::default() };
    waiting.send(ApiKey::Fetch, 11, |writer| request.encode(writer, 11)).expect("sent");
    let mut idle = TcpStream::connect(broker.address()).expect("connected");
    assert!(is_served_within(&mut idle, DEADLINE));
    assert!(is_closed(&mut idle), "nothing happened on it");
    waiting.receive().expect("its answer");
    broker.stop().expect("a clean stop");
}

/// A topic with some megabytes, and what asks for all of them.
fn much_to_fetch(address: SocketAddr) -> FetchRequest {
    const BATCHES: usize = 12;
    const BATCH_BYTES: usize = 1_000_000;
    let mut wire = Wire::connect(address);
    assert_eq!(wire.create_topic("much", 1), 0);
    for _ in 0..BATCHES {
        assert_eq!(wire.produce(PRODUCE_VERSION, "much", 0, &batch(BATCH_BYTES)).error_code, 0);
    }
    let partition = FetchPartition { partition: 0, partition_max_bytes: i32::MAX, ..Default::default() };
    let topics = vec![FetchTopic { topic: "much".into(), partitions: vec![partition], ..Default::default() }];
    FetchRequest { max_wait_ms: 0, topics, ..Default::default() }
}

/// It was busy for ever: one answer was being sent, and a request waited behind it.
#[test]
fn a_client_that_does_not_read_is_idle_whatever_it_has_asked_for_and_one_that_reads_is_not() {
    const PIPELINED: usize = 3;
    let directory = directory();
    let broker = start(directory.path(), 1, &["connections.max.idle.ms=300"]);
    let request = much_to_fetch(broker.address());
    let mut reading = Wire::connect(broker.address());
    let mut fetch_all = || reading.call(ApiKey::Fetch, 11, |writer| request.encode(writer, 11)).expect("an answer");
    fetch_all();
    let mut deaf = Wire::connect(broker.address());
    deaf.take_little();
    for _ in 0..PIPELINED {
        deaf.send(ApiKey::Fetch, 11, |writer| request.encode(writer, 11)).expect("sent");
    }
    let deadline = Instant::now() + DEADLINE;
    while broker.counters()[0].connections_now.get() > 1 {
        assert!(Instant::now() < deadline, "it is kept though it reads nothing");
        fetch_all();
    }
    fetch_all();
    broker.stop().expect("a clean stop");
}

/// Connections that announce `announced` bytes and send a few, that ask for much and read nothing, and that send
/// requests without an end and read no answer.
fn bad_neighbours(address: SocketAddr, announced: i32) -> Vec<TcpStream> {
    const HALF_SENT: usize = 30;
    const DEAF: usize = 80;
    let connect = || TcpStream::connect(address).expect("connected");
    let half_sent = (0..HALF_SENT).map(|_| {
        let mut stream = connect();
        stream.write_all(&announced.to_be_bytes()).expect("sent");
        stream.write_all(&[0; 3]).expect("sent");
        stream
    });
    let mut all: Vec<_> = half_sent.collect();
    for _ in 0..DEAF {
        let mut stream = connect();
        stream.set_nonblocking(true).expect("set");
        let request = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff].repeat(4096);
        // As far as the sockets take it.
        while stream.write(&request).is_ok() {}
        all.push(stream);
    }
    all
}

/// The most that has been resident at one time.
fn resident_bytes_peak(process: Pid) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("readable");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("there");
    line.split_whitespace().nth(1).expect("a number").parse::<u64>().expect("a number") * 1024
}

#[test]
fn a_producer_goes_on_beside_clients_that_never_finish_a_frame_and_never_read() {
    let directory = directory();
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    assert_eq!(wire.create_topic("steady", 1), 0);
    let before = resident_bytes_peak(server.process());
    let mut neighbours = Vec::new();
    // Frames that are copied out, frames that have memory of their own, and frames that alone are nearly all of it.
    for announced in [20_000, 900_000, 100_000_000] {
        neighbours.extend(bad_neighbours(server.address, announced));
    }
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        // A byte now and then, from another thread, for as long as it takes.
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for neighbour in &mut neighbours {
                    let _ = neighbour.write(&[0]);
                }
                thread::yield_now();
            }
        });
        for size in [100, 20_000, 900_000] {
            for _ in 0..40 {
                assert_eq!(wire.produce(PRODUCE_VERSION, "steady", 0, &batch(size)).error_code, 0);
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    // What two shards may hold unread, and what the frames of this producer and of its neighbours take. 240 connections that
    // never read would take a gigabyte.
    let taken = resident_bytes_peak(server.process()) - before;
    assert!(taken < 160 << 20, "{taken} bytes");
    server.stop();
}

/// Each held the bytes of its request until it was answered: a third client was not read until then.
#[test]
fn long_polls_of_a_hundred_megabytes_keep_nobody_else_from_being_served() {
    const VERSION: i16 = 12;
    const CARRIED_BYTES: u32 = 90_000_000;
    /// Longer than any client here waits for an answer.
    const MAX_WAIT_MS: i32 = 300_000;
    const UNKNOWN_TAG: u32 = 99;
    let directory = directory();
    let broker = start(directory.path(), 1, &[]);
    let mut wire = Wire::connect(broker.address());
    assert_eq!(wire.create_topic("quiet", 1), 0);
    let partition = FetchPartition { partition: 0, partition_max_bytes: 1000, ..Default::default() };
    let topics = vec![FetchTopic { topic: "quiet".into(), partitions: vec![partition], ..Default::default() }];
    let request = FetchRequest { max_wait_ms: MAX_WAIT_MS, min_bytes: 1, topics, ..Default::default() };
    let mut waiting = [Wire::connect(broker.address()), Wire::connect(broker.address())];
    for wire in &mut waiting {
        let carried = |writer: &mut Writer| {
            let mut body = Writer::new();
            request.encode(&mut body, VERSION)?;
            let body = body.into_bytes();
            // The count of tagged fields comes last.
            writer.bytes(&body[..body.len() - 1]);
            [1, UNKNOWN_TAG, CARRIED_BYTES].iter().for_each(|number| writer.uvarint(*number));
            writer.bytes(&vec![0; CARRIED_BYTES as usize]);
            Ok(())
        };
        wire.send(ApiKey::Fetch, VERSION, carried).expect("sent");
    }
    let mut fresh = Wire::connect(broker.address());
    assert_eq!(fresh.produce(PRODUCE_VERSION, "quiet", 0, &batch(100)).error_code, 0);
    for wire in &mut waiting {
        wire.receive().expect("what it waited for has come");
    }
    broker.stop().expect("a clean stop");
}

#[test]
fn a_client_that_sends_no_more_still_gets_its_answers() {
    let directory = directory();
    let broker = start(directory.path(), 2, &[]);
    let mut wire = Wire::connect(broker.address());
    assert_eq!(wire.create_topic("half-closed", 4), 0);
    for partition in 0..4 {
        wire.send_produce(PRODUCE_VERSION, -1, "half-closed", partition, &batch(100_000)).expect("sent");
    }
    wire.shut_down_sending();
    for _ in 0..4 {
        assert_eq!(wire.receive_produce(PRODUCE_VERSION).expect("answered").1.error_code, 0);
    }
    assert!(wire.receive().is_err(), "then the broker ends the connection");
    broker.stop().expect("a clean stop");
}
