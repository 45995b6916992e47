//! When logs are flushed where the page cache is enough.

use std::path::PathBuf;

use super::*;
use crate::sim::disk::Delay;

/// Longer than a log may be idle before it is flushed, and shorter than twice that.
const SOON: Duration = Duration::from_secs(11);

/// Between two appends of one producer.
const INTERVAL: Duration = Duration::from_secs(1);

struct Bench {
    world: World,
    clients: Executor,
    node: Node,
}

impl Bench {
    fn new(seed: u64, setup: Setup) -> Bench {
        let world = World::new(seed);
        let clients = world.executor();
        let node = Node::start(&world, Remains::none(), setup);
        create_topic(&world, &clients, &node);
        Bench { world, clients, node }
    }

    /// Appends to a partition every [`INTERVAL`], this many bytes, until the simulation ends.
    fn keep_appending(&self, partition: i32, value_bytes: usize) {
        let (mut client, world) = (Client::new(self.node.connect()), self.world.clone());
        self.clients.spawn(async move {
            while let Some(Ok(_)) = client.produce(1, partition, &vec![b'x'; value_bytes]).await {
                world.timers().sleep_until(world.now() + INTERVAL).await;
            }
        });
    }

    fn append(&self, partition: i32, value_bytes: usize) {
        let mut client = Client::new(self.node.connect());
        let appended =
            run(
                &self.world,
                &self.clients,
                async move { client.produce(1, partition, &vec![b'x'; value_bytes]).await },
            );
        assert!(matches!(appended, Some(Ok(_))), "{appended:?}");
    }

    fn unflushed_and_flushed_bytes(&self) -> (u64, u64) {
        self.node.unflushed_and_flushed_bytes(0)
    }
}

#[test]
fn a_log_that_nobody_appends_to_is_flushed_soon_and_one_that_is_appended_to_is_not() {
    for seed in 2000..2010 {
        let bench = Bench::new(seed, TWO_SHARDS.into());
        bench.append(0, 1000);
        bench.append(1, 2000);
        bench.keep_appending(2, 100);
        let (appended, flushed) = bench.unflushed_and_flushed_bytes();
        assert!(appended > 3000 && flushed == 0, "seed {seed}: {appended} {flushed}");
        run_for(&bench.world, SOON);
        let (_, idle) = bench.unflushed_and_flushed_bytes();
        assert!((3000..3500).contains(&idle), "seed {seed}: {idle} bytes were flushed");
        run_for(&bench.world, 10 * SOON);
        let (unflushed, flushed) = bench.unflushed_and_flushed_bytes();
        assert!(unflushed > 100 * 100 && flushed == idle, "seed {seed}: {unflushed} {flushed}");
    }
}

#[test]
fn the_bound_of_unflushed_bytes_is_met_by_flushing_what_is_appended_to_least() {
    let bound = 40_000;
    let setup = Setup { unflushed_bytes_max: Some(bound), ..TWO_SHARDS.into() };
    for seed in 2010..2020 {
        let bench = Bench::new(seed, setup);
        let (busy, calm) = (2, 3);
        bench.append(calm, 30_000);
        bench.keep_appending(calm, 10);
        // Until its many bytes were not appended of late.
        run_for(&bench.world, 10 * INTERVAL);
        bench.keep_appending(busy, 1000);
        run_for(&bench.world, 20 * INTERVAL);
        let (unflushed, flushed) = bench.unflushed_and_flushed_bytes();
        assert!((30_000..33_000).contains(&flushed), "seed {seed}: {flushed} bytes were flushed");
        assert!(unflushed > 15 * 1000, "seed {seed}: the busy log was flushed, {unflushed} bytes are not");
        // Now nothing but the busy one can meet it.
        for _ in 0..100 {
            run_for(&bench.world, INTERVAL);
            let (unflushed, _) = bench.unflushed_and_flushed_bytes();
            assert!(unflushed <= bound, "seed {seed}: {unflushed} bytes are unflushed");
        }
    }
}

#[test]
fn of_equally_busy_logs_each_is_flushed_in_its_turn_when_the_bound_is_passed() {
    // More than a shard flushes at once.
    const LOGS: i32 = 40;
    // So often that a log has something unflushed again as soon as it was flushed.
    let interval = Duration::from_millis(10);
    let bound = 1_000_000;
    let setup = Setup { unflushed_bytes_max: Some(bound), ..TWO_SHARDS.into() };
    for seed in 2040..2043 {
        let bench = Bench::new(seed, setup);
        let mut client = Client::new(bench.node.connect());
        let created = run(&bench.world, &bench.clients, async move { client.create_named("busy", LOGS).await });
        assert_eq!(created, Some(0));
        for partition in 0..LOGS {
            let (mut client, world) = (Client::new(bench.node.connect()), bench.world.clone());
            bench.clients.spawn(async move {
                while let Some(Ok(_)) = client.produce_to("busy", partition, &[b'x'; 100]).await {
                    world.timers().sleep_until(world.now() + interval).await;
                }
            });
        }
        for _ in 0..5 {
            run_for(&bench.world, INTERVAL);
            let (unflushed, _) = bench.unflushed_and_flushed_bytes();
            assert!(unflushed <= bound, "seed {seed}: {unflushed} bytes are unflushed");
        }
        let (_, flushed_bytes) = bench.unflushed_and_flushed_bytes();
        assert!(flushed_bytes > bound, "seed {seed}: {flushed_bytes}");
        // In their turn: a flush takes away as much as each log has while the bound is held, and not what came a moment ago.
        let flushed_at_once = flushed_bytes / bench.node.disk().counts()["sync"];
        assert!(flushed_at_once > bound / 2 / LOGS as u64, "seed {seed}: {flushed_at_once} bytes at a flush");
    }
}

#[test]
fn a_closed_segment_is_flushed_at_its_roll_and_what_is_appended_behind_it_is_not() {
    let setup = Setup { settings: &["log.segment.bytes=1500"], ..TWO_SHARDS.into() };
    for seed in 2020..2030 {
        let bench = Bench::new(seed, setup);
        for _ in 0..10 {
            bench.append(0, 1000);
        }
        run_for(&bench.world, INTERVAL);
        let (unflushed, flushed) = bench.unflushed_and_flushed_bytes();
        assert!((1000..1200).contains(&unflushed), "seed {seed}: {unflushed} bytes are unflushed");
        assert!((9000..10_800).contains(&flushed), "seed {seed}: {flushed} bytes were flushed");
    }
}

#[test]
fn no_append_waits_while_retention_takes_leader_epochs_out_of_their_file() {
    let settings = &[
        "log.segment.bytes=1500",
        "log.retention.bytes=3000",
        "log.initial.task.delay.ms=1000",
        "log.retention.check.interval.ms=1000",
    ];
    let setup = Setup { settings, ..TWO_SHARDS.into() };
    for seed in 2030..2040 {
        let bench = Bench::new(seed, setup);
        bench.append(0, 1000);
        let disk = bench.node.disk();
        let epochs: Vec<PathBuf> =
            disk.paths().into_iter().filter(|path| path.ends_with("leader-epoch-checkpoint")).collect();
        let [epochs] = &epochs[..] else { panic!("{epochs:?}") };
        disk.delay(epochs, Delay::Hang);
        bench.keep_appending(0, 1000);
        run_for(&bench.world, 20 * INTERVAL);
        let (unflushed, flushed) = bench.unflushed_and_flushed_bytes();
        assert!(unflushed + flushed > 15 * 1000, "seed {seed}: appends waited, {unflushed} {flushed}");
        let first = epochs.with_file_name("00000000000000000000.log");
        assert!(disk.contents(&first).is_err(), "seed {seed}: nothing has expired");
        assert_eq!(disk.contents(epochs).unwrap(), b"0\n1\n0 0\n", "seed {seed}");
        disk.release(epochs);
        run_for(&bench.world, 5 * INTERVAL);
        let written = String::from_utf8(disk.contents(epochs).unwrap()).expect("text");
        let start: i64 =
            written.strip_prefix("0\n1\n0 ").and_then(|start| start.trim().parse().ok()).expect("an entry");
        assert!(start > 15, "seed {seed}: {written}");
    }
}

/// They are gathered some hundred in a turn.
#[test]
fn a_checkpoint_has_each_log_once_however_many_there_are() {
    let topics = [("few", 3), ("hundreds", 1100), ("many", 700)];
    let bench = Bench::new(2050, TWO_SHARDS.into());
    for (name, count) in topics {
        let mut client = Client::new(bench.node.connect());
        let created = run(&bench.world, &bench.clients, async move { client.create_named(name, count).await });
        assert_eq!(created, Some(0));
    }
    run_for(&bench.world, Duration::from_secs(120));
    let disk = bench.node.disk();
    let is_recovery_points = |path: &PathBuf| path.ends_with("recovery-point-offset-checkpoint");
    let path = disk.paths().into_iter().find(is_recovery_points).expect("a checkpoint");
    let content = String::from_utf8(disk.contents(&path).unwrap()).expect("text");
    let named: Vec<(&str, i32)> = content
        .lines()
        .skip(2)
        .filter_map(|line| {
            let (topic, rest) = line.split_once(' ')?;
            Some((topic, rest.split(' ').next()?.parse().ok()?))
        })
        .collect();
    for (topic, count) in topics {
        let mut numbers: Vec<i32> =
            named.iter().filter(|(name, _)| *name == topic).map(|(_, number)| *number).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..count).collect::<Vec<_>>(), "{topic}");
    }
}
