use std::path::Path;

use super::*;
use crate::base::time::Monotonic;
use crate::shard::mailbox::CREDITS_DEFAULT;
use crate::sim::disk::Delay;

/// Each operation on the healthy directory takes this long.
const HEALTHY: Duration = Duration::from_millis(1);
const INTERVAL: Duration = Duration::from_millis(7);
const MEASURED: Duration = Duration::from_secs(12);

/// Times from the moment at which a request should have been sent to its answer.
#[derive(Clone, Default)]
struct Latencies(Rc<RefCell<Vec<Duration>>>);

impl Latencies {
    fn note(&self, world: &World, intended: Monotonic) {
        self.0.borrow_mut().push(world.now().since(intended));
    }

    fn p99(&self) -> Duration {
        let mut all = self.0.borrow().clone();
        all.sort();
        assert!(all.len() > 1000, "{} answers", all.len());
        all[all.len() * 99 / 100]
    }
}

struct Measured {
    produce_p99: Duration,
    fetch_p99: Duration,
}

struct Bench {
    world: World,
    clients: Executor,
    node: Node,
    homes: Vec<&'static str>,
}

impl Bench {
    fn new(seed: u64, durability: Durability) -> Bench {
        let world = World::new(seed);
        let clients = world.executor();
        let mut setup = Setup { log_dirs: TWO_DIRECTORIES, durability, ..TWO_SHARDS.into() };
        setup.capacities.credits = CREDITS_DEFAULT;
        let node = Node::start(&world, Remains::none(), setup);
        create_topic(&world, &clients, &node);
        let homes = homes(&node);
        node.disk().delay(Path::new("/one"), Delay::For(HEALTHY));
        Bench { world, clients, node, homes }
    }

    /// Partitions of a directory.
    fn partitions(&self, log_dir: &str) -> Vec<i32> {
        (0..PARTITIONS).filter(|partition| self.homes[*partition as usize] == log_dir).collect()
    }

    /// Requests at their times on connections of their own, answered or not; gives the latencies of those answered.
    fn produce(&self, log_dir: &str) -> Latencies {
        let latencies = Latencies::default();
        for (partition, acks) in
            self.partitions(log_dir).into_iter().flat_map(|partition| [(partition, 1), (partition, -1)])
        {
            let (mut client, world, latencies) =
                (Client::new(self.node.connect()), self.world.clone(), latencies.clone());
            self.clients.spawn(async move {
                let mut intended = world.now();
                loop {
                    intended = intended + INTERVAL;
                    world.timers().sleep_until(intended).await;
                    let Some(answer) = client.produce(acks, partition, b"a record").await else { return };
                    assert!(answer.is_ok(), "{answer:?}");
                    latencies.note(&world, intended);
                }
            });
        }
        latencies
    }

    fn fetch(&self, log_dir: &str) -> Latencies {
        let latencies = Latencies::default();
        for partition in self.partitions(log_dir) {
            let (mut client, world, latencies) =
                (Client::new(self.node.connect()), self.world.clone(), latencies.clone());
            self.clients.spawn(async move {
                let mut intended = world.now();
                loop {
                    intended = intended + INTERVAL;
                    world.timers().sleep_until(intended).await;
                    if client.fetch(partition, 0, 0).await.is_none() {
                        return;
                    }
                    latencies.note(&world, intended);
                }
            });
        }
        latencies
    }

    /// What the healthy directory's clients meet while the other one is as slow as this.
    fn measure(&self, slow: Option<Delay>) -> Measured {
        self.node.disk().delay(Path::new("/two"), slow.unwrap_or(Delay::For(HEALTHY)));
        let (produce, fetch) = (self.produce("/one"), self.fetch("/one"));
        let checkpointed = self.checkpointed();
        run_for(&self.world, MEASURED);
        assert!(self.checkpointed() > checkpointed, "the healthy directory's checkpoints are written");
        Measured { produce_p99: produce.p99(), fetch_p99: fetch.p99() }
    }

    /// The high watermarks in the healthy directory's checkpoint, together.
    fn checkpointed(&self) -> i64 {
        let file = self.node.disk().contents(Path::new("/one/replication-offset-checkpoint")).unwrap_or_default();
        let text = String::from_utf8(file).expect("text");
        text.lines().filter_map(|line| line.strip_prefix(TOPIC)?.rsplit(' ').next()?.parse::<i64>().ok()).sum()
    }
}

#[test]
fn a_slow_or_hanging_directory_delays_nobody_who_does_not_need_it() {
    for durability in [Durability::PageCache, Durability::Fsync] {
        for seed in 3000..3003 {
            let slow = [None, Some(Delay::For(Duration::from_millis(50))), Some(Delay::Hang)];
            let [alone, slow, hanging] = slow.map(|slow| {
                let bench = Bench::new(seed, durability);
                let others = bench.produce("/two");
                let measured = bench.measure(slow);
                // It wakes up, and whoever waited is answered.
                bench.node.disk().release(Path::new("/two"));
                let before = others.0.borrow().len();
                let waiting = 2 * bench.partitions("/two").len();
                bench.world.run_until(|| others.0.borrow().len() >= before + waiting);
                bench.node.end(End::Kill);
                bench.clients.clear();
                measured
            });
            for with in [slow, hanging] {
                let held = |with: Duration, alone: Duration| with * 2 <= alone.max(HEALTHY) * 3;
                assert!(
                    held(with.produce_p99, alone.produce_p99),
                    "produce: {:?}, {:?}",
                    with.produce_p99,
                    alone.produce_p99
                );
                assert!(held(with.fetch_p99, alone.fetch_p99), "fetch: {:?}, {:?}", with.fetch_p99, alone.fetch_p99);
            }
        }
    }
}
