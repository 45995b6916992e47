use std::sync::Mutex;

use super::*;
use crate::config::{Config, ServeOptions};
use crate::executor::Executor;
use crate::local::budgets::BudgetBounds;
use crate::local::local::{Bounds, LocalParts};
use crate::metadata::thread;
use crate::metrics::ShardCounters;
use crate::partition::home::WaitingMax;
use crate::sim::disk::FakeDisk;
use crate::sim::platform::SimPlatform;
use crate::sim::world::World;
use crate::storage::log_dirs::LogDirs;

const HOME: usize = 0;
const OWNER: ShardId = ShardId(1);

/// Two shards in a world of their own.
struct Shards {
    world: World,
    executors: Vec<Executor>,
    locals: Vec<Rc<Local<SimPlatform>>>,
}

impl Shards {
    fn start(seed: u64, credits: ByClass<usize>) -> Shards {
        let (world, disk) = (World::new(seed), FakeDisk::new());
        let options =
            ServeOptions { set: vec!["log.dirs=/data".to_owned()], shards: Some(2), ..ServeOptions::default() };
        let config = Arc::new(Config::load(&options).expect("a sound configuration"));
        let log_dirs = LogDirs::new(&config.log_dirs, 0, |_, _| ());
        let (metadata, _) = thread::channel(2);
        let mailboxes = Mailboxes::new(2, credits);
        let executors: Vec<_> = (0..2).map(|_| world.executor()).collect();
        let start = |(index, executor): (u16, &Executor)| {
            let parts = LocalParts {
                shard: ShardId(index),
                platform: SimPlatform::new(&world, executor, &disk),
                config: Arc::clone(&config),
                log_dirs: Arc::clone(&log_dirs),
                metadata: metadata.clone(),
                counters: Arc::new(ShardCounters::default()),
                mailboxes: mailboxes.clone(),
            };
            let bounds = Bounds {
                segments_open_max: 1,
                waiting_max: WaitingMax { bytes: 1, batches: 1 },
                budgets: BudgetBounds { away_bytes_max: 1 },
            };
            let local = Local::new(parts, bounds);
            executor.spawn(Rc::clone(&local).serve_mailbox());
            local
        };
        let locals = (0..).zip(&executors).map(start).collect();
        Shards { world, executors, locals }
    }

    /// Hands work over and keeps what comes of it.
    fn ask(&self, class: Class, work: Told) -> Rc<Cell<Option<u32>>> {
        let (place, asked) = (Rc::new(Cell::new(None)), self.locals[HOME].ask(OWNER, class, work));
        let result = Rc::clone(&place);
        self.executors[HOME].spawn(async move { result.set(asked.await) });
        place
    }
}

type Begun = Arc<Mutex<Vec<u32>>>;

/// Says when it is begun, and is done when it is told.
struct Told {
    number: u32,
    begun: Begun,
    until: oneshot::Receiver<()>,
}

impl Told {
    fn new(number: u32, begun: &Begun) -> (Told, oneshot::Sender<()>) {
        let (sender, until) = oneshot::channel();
        (Told { number, begun: Arc::clone(begun), until }, sender)
    }
}

impl Work<SimPlatform> for Told {
    type Done = u32;

    fn execute(self, _: Rc<Local<SimPlatform>>) -> impl Future<Output = u32> + 'static {
        self.begun.lock().expect("one thread").push(self.number);
        async move {
            let _ = self.until.await;
            self.number
        }
    }
}

fn begun_count(begun: &Begun) -> usize {
    begun.lock().expect("one thread").len()
}

#[test]
fn work_is_begun_in_the_order_in_which_it_was_handed_over_and_without_a_credit_it_waits_at_home() {
    for seed in 0..50 {
        let shards = Shards::start(seed, ByClass::of(|_| 2));
        let begun = Begun::default();
        let (work, tell): (Vec<_>, Vec<_>) = (0..20).map(|number| Told::new(number, &begun)).unzip();
        let asked: Vec<_> = work.into_iter().map(|work| shards.ask(Class::Client, work)).collect();
        shards.world.run_until(|| begun_count(&begun) == 2);
        for (index, tell) in tell.into_iter().enumerate() {
            tell.send(()).expect("its work waits");
            shards.world.run_until(|| asked[index].get() == Some(index as u32));
            shards.world.run_until(|| begun_count(&begun) >= (index + 3).min(20));
            assert!(begun_count(&begun) <= index + 3, "no more than two are under way");
        }
        assert!(begun.lock().expect("one thread").is_sorted());
    }
}

#[test]
fn a_class_without_credits_keeps_no_other_from_going_on() {
    let shards = Shards::start(1, ByClass { client: 1, replication: 1, control: 1 });
    let begun = Begun::default();
    // Nobody tells them, so that they hold their class's only credit.
    let (first, _held) = Told::new(1, &begun);
    let (second, _waits) = Told::new(2, &begun);
    let clients = [shards.ask(Class::Client, first), shards.ask(Class::Client, second)];
    for (number, class) in [(3, Class::Replication), (4, Class::Control)] {
        let (work, tell) = Told::new(number, &begun);
        let asked = shards.ask(class, work);
        tell.send(()).expect("its work is under way");
        shards.world.run_until(|| asked.get() == Some(number));
    }
    assert!(clients.iter().all(|asked| asked.get().is_none()));
    assert!(!begun.lock().expect("one thread").contains(&2), "the second client waits for the first one's credit");
}

#[test]
fn a_credit_comes_back_when_its_work_is_done_also_if_nobody_waits_for_that_any_more() {
    let shards = Shards::start(1, ByClass::of(|_| 1));
    let begun = Begun::default();
    for round in 0..10 {
        let (work, tell) = Told::new(2 * round, &begun);
        drop(shards.locals[HOME].ask(OWNER, Class::Client, work));
        // Were the credit back already, this one's message would find the mailbox full.
        let (next, tell_next) = Told::new(2 * round + 1, &begun);
        let asked = shards.ask(Class::Client, next);
        shards.world.run_until(|| begun_count(&begun) == 2 * round as usize + 1);
        tell.send(()).expect("its work waits");
        tell_next.send(()).expect("its work is to come");
        shards.world.run_until(|| asked.get().is_some());
    }
}
