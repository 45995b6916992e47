//! The replicas and their controller; what must be so at every moment is in [`checks`].

mod checks;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::*;
use super::producer::Ledger;
use crate::base::ids::{BrokerId, LeaderEpoch, Offset, TopicId, TopicPartition};
use crate::config::TopicConfig;
use crate::config::topic::CleanupPolicy;
use crate::executor::either;
use crate::partition::home::{Home, WaitingMax};
use crate::partition::partition::{ANY_EPOCH, AnsweredBy, LogCheckpoint, Offsets, Opened, Settings};
use crate::partition::role::{CommittedIsr, IsrProposal};
use crate::partition::{LeaderAndIsr, Partition};
use crate::platform::{Clock, Platform, Tasks};
use crate::record::batch::{Record, batches, decode_records};
use crate::shard::checkpoints;
use crate::sim::disk::{FakeDisk, Fault};
use crate::sim::platform::SimPlatform;
use crate::storage::log::{LastStop, Log, OpenLog};
use crate::storage::log_dir;
use crate::storage::log_dirs::LogDirs;
use crate::storage::open_files::OpenFiles;

const LOG_DIR: &str = "/data";
const REPLICAS: i32 = 2;

/// Between two checkpoints.
const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(20);

/// `replica.lag.time.max.ms`, and how long anything may take that must happen.
const LAG_MAX: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(60);

/// `producer.id.expiration.ms`.
const PRODUCER_ID_EXPIRATION_MS: i64 = 86_400_000;

/// What clients may have waiting for one log directory: less than an answer to a follower has batches.
const WAITING_MAX: WaitingMax = WaitingMax { bytes: 1 << 20, batches: 16 };

/// How a run differs from others.
#[derive(Clone, Copy, Debug)]
pub struct ClusterSetup {
    pub min_isr: i32,
    pub durability: Durability,
    /// How all processes end at once.
    pub common_death: Death,
    pub power_cuts: bool,
    /// Leaders from outside of the ISR.
    pub unclean: bool,
    pub transactions: bool,
    /// `cleanup.policy=compact`: offsets may be missing.
    pub compacted: bool,
    /// File systems that are full for a moment.
    pub full_disks: bool,
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    Kill,
    PowerCut,
    Stop,
}

/// A running process with one replica.
pub struct Replica {
    pub id: BrokerId,
    pub partition: Rc<Partition<SimPlatform>>,
    /// What it was told last and has taken on.
    pub told: RefCell<LeaderAndIsr>,
    pub disk: FakeDisk,
    executor: Executor,
    /// The largest high watermark that it has shown as leader of an epoch.
    shown: Cell<(LeaderEpoch, Offset)>,
}

/// What the controller knows.
struct State {
    leader_epoch: LeaderEpoch,
    partition_epoch: i32,
    leader: BrokerId,
    isr: Vec<BrokerId>,
    running: Vec<Option<Rc<Replica>>>,
    /// Cuts of logs so far.
    cuts: usize,
    /// What was seen to be wrong between two checks.
    broken: Option<String>,
}

#[derive(Clone)]
pub struct Cluster {
    pub world: World,
    pub setup: ClusterSetup,
    pub clients: Executor,
    pub ledger: Rc<RefCell<Ledger>>,
    state: Rc<RefCell<State>>,
}

/// An open replica and its log directory.
type Started = (Rc<Partition<SimPlatform>>, Arc<LogDirs>);

/// A record as it lies in a log.
pub type Found = (Offset, LeaderEpoch, Vec<u8>);

fn topic_partition() -> TopicPartition {
    TopicPartition { topic: TOPIC.into(), partition: 0 }
}

fn everybody() -> Vec<BrokerId> {
    (0..REPLICAS).map(BrokerId).collect()
}

impl Cluster {
    /// All replicas, with the first one as their leader and all in sync.
    pub fn start(seed: u64, setup: ClusterSetup) -> Cluster {
        let world = World::new(seed);
        let clients = world.executor();
        let state = State {
            leader_epoch: 0,
            partition_epoch: 0,
            leader: BrokerId(0),
            isr: everybody(),
            running: everybody().iter().map(|_| None).collect(),
            cuts: 0,
            broken: None,
        };
        let (state, ledger) = (Rc::new(RefCell::new(state)), Rc::default());
        let cluster = Cluster { world, setup, clients, ledger, state };
        everybody().into_iter().for_each(|id| cluster.start_replica(id, FakeDisk::new()));
        cluster
    }

    pub fn note_cut(&self) {
        self.state.borrow_mut().cuts += 1;
    }

    /// Cuts of logs so far.
    pub fn cuts(&self) -> usize {
        self.state.borrow().cuts
    }

    fn given(&self) -> LeaderAndIsr {
        let state = self.state.borrow();
        LeaderAndIsr {
            leader: state.leader,
            leader_epoch: state.leader_epoch,
            isr: state.isr.clone(),
            replicas: everybody(),
            partition_epoch: state.partition_epoch,
        }
    }

    fn start_replica(&self, id: BrokerId, disk: FakeDisk) {
        let executor = self.world.executor();
        let platform = SimPlatform::new(&self.world, &executor, &disk);
        let (given, settings) = (self.given(), self.settings(id));
        let place = Rc::new(RefCell::new(None));
        let (opening, started) = (platform.clone(), Rc::clone(&place));
        let told = given.clone();
        executor.spawn(async move {
            let opened = open(opening, settings, &told).await;
            *started.borrow_mut() = Some(opened);
        });
        self.world.run_until(|| place.borrow().is_some());
        let (partition, log_dirs) = place.borrow_mut().take().expect("just seen");
        keep_checkpoints(&platform, &partition, log_dirs);
        let (told, shown) = (RefCell::new(given), Cell::new((-1, 0)));
        let replica = Rc::new(Replica { id, partition, told, disk, executor, shown });
        self.state.borrow_mut().running[id.0 as usize] = Some(Rc::clone(&replica));
        replica.executor.spawn(self.clone().follow(Rc::clone(&replica)));
        replica.executor.spawn(self.clone().shrink(Rc::clone(&replica)));
    }

    fn settings(&self, local: BrokerId) -> Settings {
        let cleanup_policy = CleanupPolicy { delete: !self.setup.compacted, compact: self.setup.compacted };
        let min_insync_replicas = self.setup.min_isr;
        let config = TopicConfig { segment_bytes: 3000, min_insync_replicas, cleanup_policy, ..TopicConfig::default() };
        Settings {
            local,
            durability: self.setup.durability,
            rebatch: false,
            replica_lag_time_max: LAG_MAX,
            producer_id_expiration_ms: PRODUCER_ID_EXPIRATION_MS,
            config: Arc::new(config),
        }
    }

    /// A replica whose process runs.
    pub fn running(&self, id: BrokerId) -> Option<Rc<Replica>> {
        self.state.borrow().running.get(usize::try_from(id.0).ok()?)?.clone()
    }

    /// Has a replica fetch no more: what it follows is nobody.
    pub fn pause_follower(&self, id: BrokerId) {
        if let Some(replica) = self.running(id) {
            replica.told.borrow_mut().leader = BrokerId(-1);
        }
        self.run_for(LAG_MAX / 4);
    }

    /// Whether this process, and no later one of its name, runs still.
    pub fn is_running(&self, replica: &Rc<Replica>) -> bool {
        self.running(replica.id).is_some_and(|running| Rc::ptr_eq(&running, replica))
    }

    pub fn leader(&self) -> Option<Rc<Replica>> {
        let leader = self.state.borrow().leader;
        self.running(leader)
    }

    pub fn run_for(&self, time: Duration) {
        let until = self.world.now() + time;
        self.clients.spawn(self.world.timers().sleep_until(until));
        self.world.run_until(|| self.world.now() >= until);
    }

    fn wait_until(&self, what: &str, done: impl Fn() -> bool) -> Result<(), String> {
        let until = self.world.now() + LONG;
        self.clients.spawn(self.world.timers().sleep_until(until));
        self.world.run_until(|| done() || self.world.now() >= until);
        if done() { Ok(()) } else { Err(format!("{what} does not come about")) }
    }

    /// Gives all that run the roles of a new reign, each at its own time.
    fn tell(&self) {
        let given = self.given();
        for replica in everybody().into_iter().filter_map(|id| self.running(id)) {
            let (given, world) = (given.clone(), self.world.clone());
            self.clients.spawn(async move {
                world.pause().await;
                // It may have ended.
                let _ = replica.partition.change_role(given.clone()).await;
                let mut told = replica.told.borrow_mut();
                if told.leader_epoch < given.leader_epoch {
                    *told = given;
                }
            });
        }
    }

    fn reign(&self, leader: BrokerId, isr: Vec<BrokerId>) {
        {
            let mut state = self.state.borrow_mut();
            state.leader_epoch += 1;
            state.partition_epoch += 1;
            (state.leader, state.isr) = (leader, isr);
        }
        self.tell();
    }

    /// Another member of the ISR leads, or the same one anew.
    pub fn lead_by_another(&self) {
        let candidates: Vec<_> = {
            let state = self.state.borrow();
            state.isr.iter().copied().filter(|id| self.running(*id).is_some()).collect()
        };
        let next = candidates[self.world.below(candidates.len())];
        let isr = self.state.borrow().isr.clone();
        self.reign(next, isr);
    }

    /// Any replica leads, and alone is in sync.
    pub fn lead_by_anybody(&self) {
        let next = BrokerId(self.world.below(REPLICAS as usize) as i32);
        self.ledger.borrow_mut().forget_promises();
        self.reign(next, vec![next]);
    }

    /// A process ends and begins again on what is left. A power cut needs another one in sync.
    pub fn die_and_return(&self, death: Death) {
        let id = BrokerId(self.world.below(REPLICAS as usize) as i32);
        let others: Vec<_> = {
            let state = self.state.borrow();
            state.isr.iter().copied().filter(|member| *member != id).collect()
        };
        let is_last = others.is_empty();
        if is_last && death == Death::PowerCut && !self.setup.unclean {
            return;
        }
        if is_last && death == Death::PowerCut {
            self.ledger.borrow_mut().forget_promises();
        }
        let disk = self.end(id, death);
        let leader = self.state.borrow().leader;
        match others.first() {
            // Nobody else is in sync: it is waited for.
            None => {}
            Some(next) if leader == id => self.reign(*next, others.clone()),
            Some(_) => self.reign(leader, others.clone()),
        }
        self.run_for(Duration::from_millis(self.world.below(40) as u64));
        self.start_replica(id, disk);
        // A broker that is back is told what there is, and what it led before it leads under a new epoch.
        let (leader, isr) = {
            let state = self.state.borrow();
            (state.leader, state.isr.clone())
        };
        self.reign(leader, isr);
    }

    /// All processes end at once, and begin again on what is left: which is all that was promised, if it was flushed or the
    /// page cache lives.
    pub fn die_together(&self) {
        let end = |id| (id, self.end(id, self.setup.common_death));
        let disks: Vec<_> = everybody().into_iter().map(end).collect();
        disks.into_iter().for_each(|(id, disk)| self.start_replica(id, disk));
        self.lead_by_another();
    }

    /// A process ends and begins again at once.
    pub fn restart(&self, id: BrokerId, death: Death) {
        let disk = self.end(id, death);
        self.start_replica(id, disk);
    }

    fn end(&self, id: BrokerId, death: Death) -> FakeDisk {
        let replica = self.state.borrow_mut().running[id.0 as usize].take().expect("it runs");
        if death == Death::Stop {
            self.stop(&replica);
        }
        self.world.end(std::slice::from_ref(&replica.executor));
        match death {
            Death::Kill | Death::Stop => replica.disk.restart(),
            Death::PowerCut => replica.disk.power_cut(self.world.next_u64()),
        }
    }

    /// What a stop in order does.
    fn stop(&self, replica: &Replica) {
        let platform = SimPlatform::new(&self.world, &replica.executor, &replica.disk);
        let (partition, done) = (Rc::clone(&replica.partition), Rc::new(Cell::new(false)));
        let stopped = Rc::clone(&done);
        replica.executor.spawn(async move {
            let checkpoint = partition.checkpoint().expect("it is open");
            let log = partition.take_log().await.expect("it is open");
            let log_end = log.close().await.expect("closed");
            let high_watermark = partition.high_watermark_at_close(log_end);
            let checkpoint = LogCheckpoint { recovery_point: log_end, high_watermark, ..checkpoint };
            checkpoints::write_all(platform.disk(), Path::new(LOG_DIR), &[checkpoint]).await.expect("checkpoints");
            log_dir::write_clean_shutdown(platform.disk(), Path::new(LOG_DIR), -1).await.expect("a marker");
            stopped.set(true);
        });
        self.world.run_until(|| done.get());
    }

    /// Takes a leader's proposal to the controller, and its answer back.
    pub fn propose(&self, leader: &Rc<Replica>, proposal: IsrProposal) {
        let (this, leader) = (self.clone(), Rc::clone(leader));
        let world = self.world.clone();
        self.clients.spawn(async move {
            world.pause().await;
            let committed = {
                let mut state = this.state.borrow_mut();
                let epochs = (state.leader_epoch, state.partition_epoch);
                let is_current = epochs == (proposal.leader_epoch, proposal.partition_epoch);
                let is_running = is_current && state.running[leader.id.0 as usize].is_some();
                let all_run = proposal.isr.iter().all(|id| state.running[id.0 as usize].is_some());
                (is_running && all_run).then(|| {
                    state.isr = proposal.isr.clone();
                    state.partition_epoch += 1;
                    CommittedIsr { isr: state.isr.clone(), partition_epoch: state.partition_epoch }
                })
            };
            world.pause().await;
            leader.partition.proposal_answered(&proposal, committed);
        });
    }

    /// Has a leader look now and then who lags.
    async fn shrink(self, replica: Rc<Replica>) {
        loop {
            self.world.timers().sleep_until(self.world.now() + LAG_MAX / 2).await;
            if let Some(proposal) = replica.partition.lagging_followers() {
                self.propose(&replica, proposal);
            }
        }
    }

    /// The file system of one of them is full at one of its next writes.
    pub fn fill_a_disk(&self) {
        let id = BrokerId(self.world.below(REPLICAS as usize) as i32);
        if let Some(replica) = self.running(id) {
            let (written, nth) = (self.world.below(200), 1 + self.world.below(3) as u64);
            replica.disk.inject(Fault::Append { kind: ErrorKind::StorageFull, written }.at(nth));
        }
    }

    /// Stops or kills both, and starts the leader alone, the other one being in the ISR.
    pub fn restart_leader_alone(&self, death: Death) -> Result<(), String> {
        self.wait_until("a full ISR", || self.state.borrow().isr.len() == REPLICAS as usize)?;
        // The checkpoint of a killed process is some milliseconds old.
        let leader = self.leader().expect("it runs");
        let seen = leader.partition.leader_offsets(ANY_EPOCH).expect("it leads").high_watermark;
        self.run_for(2 * CHECKPOINT_INTERVAL);
        let id = self.state.borrow().leader;
        for other in everybody().into_iter().filter(|other| *other != id) {
            self.end(other, death);
        }
        let disk = self.end(id, death);
        self.ledger.borrow_mut().stop();
        self.start_replica(id, disk);
        let isr = self.state.borrow().isr.clone();
        self.reign(id, isr);
        self.run_for(Duration::from_millis(10));
        let shown =
            self.leader().expect("it runs").partition.leader_offsets(ANY_EPOCH).expect("it leads").high_watermark;
        match shown >= seen {
            true => Ok(()),
            false => Err(format!("consumers had seen all below {seen}, and are shown all below {shown}")),
        }
    }
}

fn offsets(replica: &Replica) -> Offsets {
    replica.partition.offsets(ANY_EPOCH, AnsweredBy::AnyReplica).expect("open")
}

/// Opens what the disk holds, as a start does.
async fn open(platform: SimPlatform, settings: Settings, given: &LeaderAndIsr) -> Started {
    // A second directory, which is empty: a replica has no more than its share of what may wait.
    let paths = [LOG_DIR, "/other"].map(PathBuf::from);
    let log_dirs = LogDirs::new(&paths, 0, |path, _| panic!("{} failed", path.display()));
    let scan = log_dir::scan(platform.disk(), Path::new(LOG_DIR)).await.expect("a directory");
    log_dir::take_marker(platform.disk(), Path::new(LOG_DIR)).await.expect("a directory");
    let is_known = scan.partitions.contains(&topic_partition());
    let last_stop = if is_known { scan.last_stop(&topic_partition()) } else { LastStop::default() };
    let log = Log::open(OpenLog {
        disk: platform.disk().clone(),
        log_dir: LOG_DIR.into(),
        topic_partition: topic_partition(),
        topic_id: TopicId(*b"0123456789abcdef"),
        config: settings.log_config(),
        last_stop,
        wall: platform.clock().wall(),
        open_files: OpenFiles::new(4),
        progress: Arc::default(),
    });
    let opened = Opened { last_stop, log: Some(log.await.expect("a sound log")) };
    let home = Home::all(&log_dirs, WAITING_MAX).remove(0);
    let id = TopicId(*b"0123456789abcdef");
    let partition = Partition::new(platform, home, topic_partition(), id, settings, given, opened);
    partition.flush_recovered().await;
    partition.flush_in_time();
    (partition, log_dirs)
}

/// Writes the checkpoints now and then, and when somebody asks for it.
fn keep_checkpoints(platform: &SimPlatform, partition: &Rc<Partition<SimPlatform>>, log_dirs: Arc<LogDirs>) {
    let (platform, partition) = (platform.clone(), Rc::clone(partition));
    platform.clone().tasks().spawn(async move {
        let clock = platform.clock();
        loop {
            let asked = log_dirs.all()[0].rewrites().recv();
            let request = either(asked, clock.sleep_until(clock.now() + CHECKPOINT_INTERVAL)).await;
            let Some(checkpoint) = partition.checkpoint() else { return };
            let written = checkpoints::write_all(platform.disk(), Path::new(LOG_DIR), &[checkpoint]).await;
            if written.is_ok()
                && let Ok(Ok(request)) = request
            {
                // Whoever asked may be gone.
                let _ = request.send(());
            }
        }
    });
}
