use std::path::Path;

use super::*;
use crate::base::time::Monotonic;
use crate::local::mailbox::CREDITS_DEFAULT;
use crate::sim::disk::Delay;

const NOT_LEADER: i16 = 6;

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
        setup.capacities.credits = CREDITS_DEFAULT.client;
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

/// Makes a topic of one partition and produces to it, then deletes it; gives the error codes and how long it took.
fn create_produce_delete(bench: &Bench, name: &'static str) -> (Vec<i16>, Duration) {
    let mut client = Client::new(bench.node.connect());
    let before = bench.world.now();
    let codes = run(&bench.world, &bench.clients, async move {
        let created = client.create_named(name, 1).await.expect("answered");
        let produced = client.produce_to(name, 0, b"a record").await.expect("answered");
        let deleted = client.delete_named(name).await.expect("answered");
        vec![created, produced.err().unwrap_or(0), deleted]
    });
    (codes, bench.world.now().since(before))
}

#[test]
fn topics_are_created_and_deleted_in_the_other_directory_while_one_hangs() {
    for seed in 3100..3110 {
        let bench = Bench::new(seed, Durability::PageCache);
        bench.node.disk().delay(Path::new("/two"), Delay::Hang);
        // Placed by count: of two new partitions one lies in each directory.
        let mut maker = Client::new(bench.node.connect());
        let codes = run(&bench.world, &bench.clients, async move {
            let created = maker.create_named("half-hung", 2).await.expect("answered");
            let mut produced = Vec::new();
            for partition in 0..2 {
                produced.push(maker.produce_to("half-hung", partition, b"a record").await.expect("answered").err());
            }
            (created, produced)
        });
        assert_eq!(codes.0, 0, "seed {seed}");
        let mut produced = codes.1;
        produced.sort();
        assert_eq!(
            produced,
            [None, Some(NOT_LEADER)],
            "only the healthy directory's partition is served (seed {seed})"
        );
        for round in 0..3 {
            let (codes, took) = create_produce_delete(&bench, ["one", "two", "three"][round]);
            assert_eq!(codes, [0, 0, 0], "seed {seed}");
            assert!(took < Duration::from_millis(300), "{took:?} in round {round} (seed {seed})");
        }
        // When it wakes up, what was asked of it happens.
        bench.node.disk().release(Path::new("/two"));
        let mut client = Client::new(bench.node.connect());
        run(&bench.world, &bench.clients, async move {
            for partition in 0..2 {
                let mut produce =
                    async || client.produce_to("half-hung", partition, b"a record").await.expect("answered");
                while produce().await == Err(NOT_LEADER) {}
            }
        });
        let disk = bench.node.disk().clone();
        let left = |name: &str| disk.paths().iter().any(|path| path.to_string_lossy().contains(name));
        bench.world.run_until(|| !["/one-0", "/two-0", "/three-0"].iter().any(|name| left(name)));
        bench.clients.clear();
        bench.node.end(End::Stop);
    }
}
