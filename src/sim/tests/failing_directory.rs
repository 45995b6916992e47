use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use super::*;
use crate::sim::disk::{Fault, FaultRule, ReplaceStep};

const EIO: ErrorKind = ErrorKind::Other;

const SETUP: Setup = Setup {
    capacities: TWO_SHARDS,
    log_dirs: TWO_DIRECTORIES,
    durability: Durability::Fsync,
    settings: &["log.segment.bytes=1500"],
    rebatch: false,
    unflushed_bytes_max: None,
};

/// Producers of each partition.
const PRODUCERS: usize = 3;

/// What the producers of all partitions were told.
struct Told {
    acknowledged: Rc<RefCell<Records>>,
    /// By partition: the error of each of its producers.
    refused: Rc<RefCell<BTreeMap<i32, Vec<i16>>>>,
}

impl Told {
    /// Producers with think time, each until its first error.
    fn start(world: &World, clients: &Executor, node: &Node) -> Told {
        let told = Told { acknowledged: Rc::default(), refused: Rc::default() };
        for producer in 0..PRODUCERS as i32 * PARTITIONS {
            let partition = producer % PARTITIONS;
            let (mut client, world) = (Client::new(node.connect()), world.clone());
            let (acknowledged, refused) = (Rc::clone(&told.acknowledged), Rc::clone(&told.refused));
            clients.spawn(async move {
                for sequence in 0.. {
                    let value = format!("{producer}-{sequence}-{}", "x".repeat(world.below(200))).into_bytes();
                    let acks = if world.below(2) == 0 { 1 } else { -1 };
                    match client.produce(acks, partition, &value).await {
                        Some(Ok(offset)) => {
                            acknowledged.borrow_mut().entry(partition).or_default().insert(offset, value);
                        }
                        Some(Err(code)) => {
                            refused.borrow_mut().entry(partition).or_default().push(code);
                            return;
                        }
                        None => return,
                    }
                    sleep(&world, Duration::from_millis(world.below(50) as u64)).await;
                }
            });
        }
        told
    }

    /// Where every producer was refused.
    fn refused(&self) -> BTreeSet<i32> {
        let refused = self.refused.borrow();
        assert!(refused.values().flatten().all(|code| *code == STORAGE_ERROR), "{refused:?}");
        refused.iter().filter(|(_, codes)| codes.len() == PRODUCERS).map(|(partition, _)| *partition).collect()
    }

    fn count(&self, partitions: &BTreeSet<i32>) -> usize {
        let acknowledged = self.acknowledged.borrow();
        partitions.iter().map(|partition| acknowledged.get(partition).map_or(0, BTreeMap::len)).sum()
    }
}

fn partitions_in(homes: &[&str], log_dir: &str) -> BTreeSet<i32> {
    (0..).zip(homes).filter(|(_, home)| **home == log_dir).map(|(partition, _)| partition).collect()
}

async fn expect_storage_error(client: &mut Client, partitions: BTreeSet<i32>) {
    for partition in partitions {
        assert_eq!(client.produce(1, partition, b"refused").await, Some(Err(STORAGE_ERROR)));
        assert_eq!(client.produce(-1, partition, b"refused").await, Some(Err(STORAGE_ERROR)));
        assert_eq!(client.try_fetch(partition, 0, 1000).await, Some(Err(STORAGE_ERROR)));
    }
}

/// The fault takes directory two away in the midst of the load; the other one serves on, and all that was acknowledged
/// is there after a restart.
fn directory_fails(seed: u64, setup: Setup, fault: FaultRule) {
    let world = World::new(seed);
    let clients = world.executor();
    let node = Node::start(&world, Remains::none(), setup);
    create_topic(&world, &clients, &node);
    let homes = homes(&node);
    let (healthy, failing) = (partitions_in(&homes, "/one"), partitions_in(&homes, "/two"));
    assert!(!healthy.is_empty() && !failing.is_empty());
    let told = Told::start(&world, &clients, &node);
    let everywhere = healthy.union(&failing).copied().collect();
    world.run_until(|| told.count(&everywhere) >= 40);
    node.disk().inject(fault.clone());
    world.run_until(|| told.refused() == failing);
    assert!(node.is_offline(1) && !node.is_offline(0), "{fault:?}");
    node.disk().heal();

    let before = told.count(&healthy);
    world.run_until(|| told.count(&healthy) >= before + 40);
    let mut client = Client::new(node.connect());
    let asked = failing.clone();
    run(&world, &clients, async move { expect_storage_error(&mut client, asked).await });
    assert_eq!(told.refused(), failing, "seed {seed}, {fault:?}");
    assert_eq!(node.last_failures(), 0);

    let how = if setup.durability == Durability::Fsync { End::PowerCut } else { End::Kill };
    let remains = node.end(how);
    clients.clear();
    let node = Node::start(&world, remains, setup);
    let kept = fetch_everything(&world, &clients, &node);
    for (partition, records) in told.acknowledged.borrow().iter() {
        for (offset, value) in records {
            let found = kept[partition].get(offset);
            assert_eq!(found, Some(value), "partition {partition}, offset {offset} (seed {seed}, {fault:?})");
        }
    }
}

fn fails_anyhow(seeds: std::ops::Range<u64>, fault: impl Fn(u64) -> FaultRule) {
    for seed in seeds {
        let nth = 1 + seed % 4;
        directory_fails(seed, SETUP, fault(nth));
        directory_fails(seed, Setup { durability: Durability::PageCache, ..SETUP }, fault(nth));
    }
}

#[test]
fn a_failed_fsync_takes_its_directory_offline_acknowledges_nobody_and_the_other_one_serves_on() {
    for seed in 2000..2030 {
        directory_fails(seed, SETUP, Fault::Sync(EIO).under("/two").at(1 + seed % 4));
        directory_fails(seed, SETUP, Fault::Sync(EIO).under("/two").lasting());
    }
    for seed in 2030..2040 {
        let settings = &["log.segment.bytes=1500", "log.flush.interval.messages=5"];
        let counted = Setup { durability: Durability::PageCache, settings, ..SETUP };
        // Nothing is rolled or idle there: the bound has it flushed.
        let bounded = Setup { settings: &[], unflushed_bytes_max: Some(2000), ..counted };
        directory_fails(seed, bounded, Fault::Sync(EIO).under("/two").lasting());
        directory_fails(seed, counted, Fault::Sync(EIO).under("/two").at(1 + seed % 4));
    }
}

#[test]
fn an_append_that_meets_a_bad_device_takes_its_directory_offline() {
    for written in [0, 100] {
        fails_anyhow(2100..2110, |nth| Fault::Append { kind: EIO, written }.under("/two").at(nth));
    }
    fails_anyhow(2110..2115, |_| Fault::Append { kind: EIO, written: 3 }.under("/two").lasting());
}

#[test]
fn a_roll_that_meets_a_bad_device_takes_its_directory_offline() {
    for fault in [Fault::Write(EIO), Fault::Open(EIO), Fault::SetLength(EIO)] {
        fails_anyhow(2200..2206, |nth| fault.under("/two").at(nth));
        fails_anyhow(2206..2208, |_| fault.under("/two").lasting());
    }
}

#[test]
fn a_checkpoint_that_meets_a_bad_device_takes_its_directory_offline() {
    for step in ReplaceStep::ALL {
        fails_anyhow(2300..2303, |_| {
            Fault::Replace { kind: EIO, step }.under("/two/replication-offset-checkpoint").lasting()
        });
    }
    fails_anyhow(2303..2306, |_| Fault::Any(EIO).under("/two").lasting());
}

#[test]
fn an_append_that_finds_no_room_is_a_storage_error_and_the_directory_stays() {
    for seed in 2400..2420 {
        let world = World::new(seed);
        let clients = world.executor();
        let node = Node::start(&world, Remains::none(), SETUP);
        create_topic(&world, &clients, &node);
        let full = *partitions_in(&homes(&node), "/two").first().expect("one");
        let other = *partitions_in(&homes(&node), "/one").first().expect("one");
        let disk = node.disk().clone();
        let mut client = Client::new(node.connect());
        let ticking = world.clone();
        run(&world, &clients, async move {
            assert_eq!(client.produce(1, full, b"first").await, Some(Ok(0)));
            disk.inject(Fault::Append { kind: ErrorKind::StorageFull, written: 30 }.under("/two"));
            assert_eq!(client.produce(-1, full, b"torn").await, Some(Err(STORAGE_ERROR)));
            assert_eq!(client.produce(-1, full, b"second").await, Some(Ok(1)));

            let used: u64 =
                disk.paths().iter().filter(|path| path.starts_with("/two")).map(|path| size(&disk, path)).sum();
            disk.set_capacity(Path::new("/two"), Some(used + 30));
            assert_eq!(client.produce(1, full, b"too much").await, Some(Err(STORAGE_ERROR)));
            // From here on nothing is even tried.
            sleep(&ticking, Duration::from_secs(2)).await;
            assert_eq!(client.produce(-1, full, b"too much").await, Some(Err(STORAGE_ERROR)));
            assert_eq!(client.fetch(full, 1, 0).await, Some((vec![(1, b"second".to_vec())], 2)));
            assert_eq!(client.produce(-1, other, b"there is room").await, Some(Ok(0)));
            sleep(&ticking, Duration::from_secs(20)).await;
            disk.set_capacity(Path::new("/two"), None);
            sleep(&ticking, Duration::from_secs(2)).await;
            assert_eq!(client.produce(-1, full, b"third").await, Some(Ok(2)));
        });
        assert!(!node.is_offline(0) && !node.is_offline(1));
        let node = Node::start(&world, node.end(End::PowerCut), SETUP);
        let kept = fetch_everything(&world, &clients, &node);
        let expected = [b"first".to_vec(), b"second".to_vec(), b"third".to_vec()];
        assert!(kept[&full].values().eq(&expected), "seed {seed}");
    }
}

fn size(disk: &crate::sim::disk::FakeDisk, path: &Path) -> u64 {
    disk.contents(path).expect("a file").len() as u64
}

/// Index entries and the snapshot of the producers that are left now and then find no room: the flush goes on without.
#[test]
fn a_disk_that_is_full_when_a_flush_is_due_stays_online_and_is_flushed() {
    let world = World::new(2500);
    let clients = world.executor();
    let setup = Setup { log_dirs: &["/one"], durability: Durability::PageCache, settings: &[], ..SETUP };
    let node = Node::start(&world, Remains::none(), setup);
    create_topic(&world, &clients, &node);
    let disk = node.disk().clone();
    let mut client = Client::new(node.connect());
    let ticking = world.clone();
    run(&world, &clients, async move {
        for _ in 0..11 {
            assert!(matches!(client.produce(1, 0, &vec![7; 500_000]).await, Some(Ok(_))));
        }
        let used: u64 = disk.paths().iter().map(|path| size(&disk, path)).sum();
        disk.set_capacity(Path::new("/one"), Some(used));
        // Nobody appends for so long that it is flushed.
        sleep(&ticking, Duration::from_secs(11)).await;
        assert_eq!(client.produce(1, 0, b"too much").await, Some(Err(STORAGE_ERROR)));
        assert!(client.fetch(0, 0, 0).await.is_some());
        disk.set_capacity(Path::new("/one"), None);
    });
    assert_eq!(node.last_failures(), 0, "a full disk is no bad disk");
    let node = Node::start(&world, node.end(End::PowerCut), setup);
    assert_eq!(fetch_everything(&world, &clients, &node)[&0].len(), 11);
}

#[test]
fn when_every_directory_has_failed_the_broker_is_told_once() {
    for seed in 2600..2620 {
        let world = World::new(seed);
        let clients = world.executor();
        let node = Node::start(&world, Remains::none(), SETUP);
        create_topic(&world, &clients, &node);
        let told = Told::start(&world, &clients, &node);
        let everywhere = (0..PARTITIONS).collect();
        world.run_until(|| told.count(&everywhere) >= 20);
        node.disk().inject(Fault::Any(EIO).lasting());
        world.run_until(|| told.refused().len() == PARTITIONS as usize);
        run_for(&world, Duration::from_secs(30));
        assert_eq!(node.last_failures(), 1);
        node.end(End::Kill);
        clients.clear();
    }
}

#[test]
fn partitions_of_a_directory_that_is_offline_at_the_start_are_refused_and_made_nowhere_else() {
    for seed in 2700..2715 {
        let world = World::new(seed);
        let clients = world.executor();
        let node = Node::start(&world, Remains::none(), SETUP);
        create_topic(&world, &clients, &node);
        let homes = homes(&node);
        let (healthy, failing) = (partitions_in(&homes, "/one"), partitions_in(&homes, "/two"));
        let told = Told::start(&world, &clients, &node);
        world.run_until(|| told.count(&failing) >= 20 && told.count(&healthy) >= 20);
        let remains = node.end(End::Kill);
        clients.clear();

        remains.disk.inject(Fault::Any(EIO).under("/two").lasting());
        let node = Node::start(&world, remains, SETUP);
        assert!(node.is_offline(1));
        let mut client = Client::new(node.connect());
        let (asked, served) = (failing.clone(), healthy.clone());
        run(&world, &clients, async move {
            expect_storage_error(&mut client, asked).await;
            for partition in served {
                assert!(matches!(client.produce(-1, partition, b"served").await, Some(Ok(_))));
            }
        });
        run_for(&world, Duration::from_secs(90));
        node.disk().heal();
        assert_eq!(self::super::homes(&node), homes, "seed {seed}");
        let node = Node::start(&world, node.end(End::Kill), SETUP);
        let kept = fetch_everything(&world, &clients, &node);
        for (partition, records) in told.acknowledged.borrow().iter() {
            for (offset, value) in records {
                assert_eq!(kept[partition].get(offset), Some(value), "partition {partition} (seed {seed})");
            }
        }
    }
}

/// What is no fault of the device is an error of the request that met it.
#[test]
fn an_append_that_was_interrupted_or_found_no_memory_or_room_in_a_queue_takes_no_directory_offline() {
    let short = [ErrorKind::OutOfMemory, ErrorKind::Interrupted, ErrorKind::WouldBlock, ErrorKind::ResourceBusy];
    for (seed, kind) in (0..).zip(short) {
        let world = World::new(seed);
        let clients = world.executor();
        let node = Node::start(&world, Remains::none(), SETUP);
        create_topic(&world, &clients, &node);
        let (mut client, mut reader) = (Client::new(node.connect()), Client::new(node.connect()));
        let disk = node.disk().clone();
        run(&world, &clients, async move {
            assert_eq!(client.produce(-1, 0, b"before").await, Some(Ok(0)));
            disk.inject(Fault::Append { kind, written: 20 });
            assert_eq!(client.produce(-1, 0, b"refused").await, Some(Err(STORAGE_ERROR)));
            // Nor is the cut behind the last whole batch final, which is tried again.
            disk.inject(Fault::SetLength(kind));
            assert_eq!(client.produce(-1, 0, b"refused too").await, Some(Err(STORAGE_ERROR)));
            assert_eq!(client.produce(-1, 0, b"after").await, Some(Ok(1)));
            disk.inject(Fault::Read(kind));
            // An error, or a connection that is closed since the size was promised.
            let _ = reader.try_fetch(0, 0, 1000).await;
            disk.heal();
            assert_eq!(client.produce(1, 0, b"last").await, Some(Ok(2)));
        });
        assert!(!node.is_offline(0) && !node.is_offline(1), "{kind:?}");
        let node = Node::start(&world, node.end(End::PowerCut), SETUP);
        let mut client = Client::new(node.connect());
        let records = run(&world, &clients, async move { client.fetch_all(0).await.expect("served") });
        let values: Vec<&[u8]> = records.iter().map(|(_, value)| &value[..]).collect();
        assert_eq!(values, [&b"before"[..], b"after", b"last"], "{kind:?}");
    }
}
