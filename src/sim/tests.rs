//! Whole nodes under produce, fetch and the end of their process, each run under one seed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use self::client::Client;
use super::node::{Capacities, End, Node, PORT, Remains, Setup};
use super::world::{TraceEntry, World};
use crate::config::Durability;
use crate::executor::Executor;
use crate::protocol::ErrorCode;
use crate::shard::shard::ShardLimits;

mod back_pressure;
mod client;
mod control;
mod durability;
mod failing_directory;
mod flushing;
mod gone;
mod lanes;
mod life;
mod little_memory;
mod load;
mod read_committed;
mod recreated_topic;
mod repacked;
mod replica;
mod shared_tree;
mod slow_directory;
mod strays;
mod two_nodes;
mod unsteady_tree;
mod waiting;

const TOPIC: &str = "simulated";
const PARTITIONS: i32 = 4;

const TWO_SHARDS: Capacities = Capacities {
    shards: 2,
    credits: 16,
    limits: ShardLimits {
        requests_in_flight_max: 8,
        request_bytes_max: 1 << 20,
        segments_open_max: 16,
        away_bytes_max: 1 << 20,
    },
};

const TWO_DIRECTORIES: &[&str] = &["/one", "/two"];

/// KAFKA_STORAGE_ERROR.
const STORAGE_ERROR: i16 = 56;

/// Records by partition, offset by offset.
type Records = BTreeMap<i32, BTreeMap<i64, Vec<u8>>>;

/// Runs `client` to its end.
fn run<T: 'static>(world: &World, clients: &Executor, client: impl Future<Output = T> + 'static) -> T {
    let place = Rc::new(RefCell::new(None));
    let result = Rc::clone(&place);
    clients.spawn(async move {
        let value = client.await;
        *result.borrow_mut() = Some(value);
    });
    world.run_until(|| place.borrow().is_some());
    let value = place.borrow_mut().take();
    value.expect("just seen")
}

/// Lets the world run this long.
fn run_for(world: &World, time: Duration) {
    let sleep = world.timers().sleep_until(world.now() + time);
    let passed = Rc::new(Cell::new(false));
    let seen = Rc::clone(&passed);
    world.executor().spawn(async move {
        sleep.await;
        seen.set(true);
    });
    world.run_until(|| passed.get());
}

/// Lets the world take this many steps, so that what comes next comes in the midst of something.
fn run_steps(world: &World, count: usize) {
    let left = Cell::new(count);
    world.run_until(|| left.replace(left.get().saturating_sub(1)) == 0);
}

async fn sleep(world: &World, time: Duration) {
    world.timers().sleep_until(world.now() + time).await;
}

fn create_topic(world: &World, clients: &Executor, node: &Node) {
    let mut maker = Client::new(node.connect());
    run(world, clients, async move { maker.create_topic().await.expect("created") });
}

/// The log directory of each partition.
fn homes(node: &Node) -> Vec<&'static str> {
    let paths = node.disk().paths();
    let lies_in = |partition: &i32, log_dir: &str| {
        let directory = std::path::Path::new(log_dir).join(format!("{TOPIC}-{partition}"));
        paths.iter().any(|path| path.starts_with(&directory))
    };
    let home = |partition: i32| {
        let mut found = TWO_DIRECTORIES.iter().filter(|log_dir| lies_in(&partition, log_dir));
        let home = *found.next().expect("it lies somewhere");
        assert_eq!(found.next(), None, "partition {partition} lies in two directories");
        home
    };
    (0..PARTITIONS).map(home).collect()
}

fn fetch_everything(world: &World, clients: &Executor, node: &Node) -> Records {
    let mut client = Client::new(node.connect());
    run(world, clients, async move {
        let mut all = Records::new();
        for partition in 0..PARTITIONS {
            all.insert(partition, client.fetch_all(partition).await.expect("served").into_iter().collect());
        }
        all
    })
}
