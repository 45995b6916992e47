//! Two shards: who gets which connection, and requests that cross from one to the other.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use ringlog::broker::Broker;
use ringlog::config::{AdminListen, Config, ServeOptions};
use ringlog::record::batch::{BatchBuilder, decode_records};
use ringlog::record::compression::Codec;

use crate::server::{data_path, directory};
use crate::wire::Wire;

const PRODUCE_VERSION: i16 = 9;
const PARTITIONS: i32 = 4;
const DEADLINE: Duration = Duration::from_secs(30);

fn start(directory: &std::path::Path) -> Broker {
    let set = vec!["listeners=PLAINTEXT://127.0.0.1:0".to_owned(), "log.initial.task.delay.ms=3600000".to_owned()];
    let data = Some(data_path(directory));
    let admin_listen = AdminListen::Off;
    let options = ServeOptions { set, data, admin_listen, shards: Some(2), ..ServeOptions::default() };
    Broker::start(Config::load(&options).expect("settings")).expect("a broker")
}

fn connections(broker: &Broker) -> Vec<u64> {
    broker.counters().iter().map(|shard| shard.connections_now.get()).collect()
}

fn wait_for(broker: &Broker, expected: &[u64]) {
    let start = Instant::now();
    while connections(broker) != expected {
        assert!(start.elapsed() < DEADLINE, "{:?}, not {expected:?}", connections(broker));
        std::thread::yield_now();
    }
}

#[test]
fn a_connection_goes_to_the_shard_that_has_the_fewest() {
    let directory = directory();
    let broker = start(directory.path());
    let mut open = Vec::new();
    for count in 1..=10 {
        open.push(TcpStream::connect(broker.address()).expect("connected"));
        wait_for(&broker, &[u64::div_ceil(count, 2), count / 2]);
    }
    // Those of one shard go: the next ones all go there.
    for index in (0..5).rev() {
        open.remove(2 * index);
    }
    wait_for(&broker, &[0, 5]);
    for count in 1..=5 {
        open.push(TcpStream::connect(broker.address()).expect("connected"));
        wait_for(&broker, &[count, 5]);
    }
    drop(open);
    broker.stop().expect("a clean stop");
}

#[test]
fn every_shard_serves_the_partitions_of_the_other() {
    let directory = directory();
    let broker = start(directory.path());
    // One connection on each shard, and partitions on both.
    let mut wires = [Wire::connect(broker.address()), Wire::connect(broker.address())];
    wait_for(&broker, &[1, 1]);
    assert_eq!(wires[0].create_topic("crossing", PARTITIONS), 0);
    for partition in 0..PARTITIONS {
        for (index, wire) in wires.iter_mut().enumerate() {
            let mut builder = BatchBuilder::new(Codec::None);
            builder.push(index as i64, None, Some(format!("{partition}-{index}").as_bytes()), &[]);
            let answer = wire.produce(PRODUCE_VERSION, "crossing", partition, &builder.build());
            assert_eq!((answer.error_code, answer.base_offset), (0, index as i64));
        }
        for wire in &mut wires {
            let (data, bytes) = wire.fetch("crossing", partition, 1, 1 << 20);
            assert_eq!((data.error_code, data.high_watermark), (0, 2));
            let records = decode_records(&bytes, 1 << 20).expect("records");
            assert_eq!(records[0].value.as_deref(), Some(format!("{partition}-1").as_bytes()));
        }
    }
    broker.stop().expect("a clean stop");
}
