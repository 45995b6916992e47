//! The run: clients spread over threads, each thread with a runtime and a ring of its own, and what they report, gathered.
//!
//! ```text
//! caller     prepares the topic, starts the threads, waits until all are connected, starts the clock
//! bench-N    its clients' tasks; once a second an interval goes to the caller, at the end what it knows
//! caller     adds up, samples CPU times, watches for Ctrl-C, tells the watcher each second
//! ```
//! An error of any client ends the run. An early end lets what is in flight be answered, for two seconds.

#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::check::{Checker, Findings};
use super::consume::{self, Consumer};
use super::driver::{Alarm, Exchanged, Link, run as run_on_ring, spawn};
use super::failures;
use super::measure::{Interval, Recorder, SECOND_NS, Sides};
use super::process::{self, CpuTime};
use super::produce::{self, Producer};
use super::settings::{Mode, Settings};
use super::shared::{Clock, Run, Seat};
use super::topic::{self, Topic};
use super::transaction::{Session, Times};
use crate::failure::Failure;
use crate::interrupt::Interrupt;

/// Messages of threads that the caller has not taken: more than come within its longest pause.
const MESSAGES_MAX: usize = 1024;
/// How often the caller looks for signals, and threads for silence.
const LOOK: Duration = Duration::from_millis(50);
const LOOK_NS: u64 = LOOK.as_nanos() as u64;
/// Threads' seconds may come so late.
const SECOND_GRACE_NS: u64 = SECOND_NS / 4;

/// What a client does: with places of partitions in the topic.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Role {
    Produce,
    Consume,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Plan {
    role: Role,
    /// Number among those of its role.
    client: u32,
    leader: SocketAddr,
    places: Vec<usize>,
}

/// What the watcher is told.
pub enum Event<'a> {
    Begins {
        run: &'a Run,
        clock: Clock,
    },
    /// A second of the run is over, warm-up included.
    Second(&'a Interval),
}

/// What one thread's clients knew at their end.
#[derive(Default)]
struct Known {
    last_ns: u64,
    /// Client and acknowledged records by place.
    acknowledged: Vec<(u32, Vec<u64>)>,
    checkers: Vec<(Vec<i32>, Checker)>,
    left_behind: u64,
    exchanged: Exchanged,
    transactions: Option<Times>,
}

enum Message {
    Connected,
    Second(Box<Interval>),
    Ended(Result<Known, Failure>),
}

/// How a run went.
pub struct Outcome {
    pub topic: Topic,
    pub run_id: u32,
    pub producers: u32,
    pub consumers: u32,
    pub start_wall_ns: u64,
    /// From the end of the warm-up to the last answer.
    pub seconds: f64,
    pub totals: Sides,
    pub warm: Sides,
    /// Acknowledged, warm-up included.
    pub acknowledged: u64,
    /// Acknowledged and not consumed, end to end.
    pub missing: u64,
    pub left_behind: u64,
    /// By the clients' connections, warm-up included.
    pub exchanged: Exchanged,
    pub transactions: Option<Times>,
    pub findings: Option<Findings>,
    /// From the end of the warm-up to the end.
    pub client_cpu: f64,
    pub cpu_seconds: f64,
    pub broker_cpu: Result<f64, String>,
    pub broker_pids: Vec<u32>,
    pub interrupted: bool,
    pub topic_deleted: bool,
}

/// Runs what the settings ask for. Ctrl-C and SIGTERM end it early, with an outcome.
pub fn run(settings: &Settings, watch: &mut dyn FnMut(Event<'_>) -> Result<(), Failure>) -> Result<Outcome, Failure> {
    settings.check()?;
    // Before any thread exists, so that all of them leave the signals to this one.
    let signals = Interrupt::catch()?;
    let topic = topic::prepare(settings)?;
    let ran = run_on_topic(settings, topic.clone(), &signals, watch);
    if !topic.created || settings.topic.keep {
        return ran;
    }
    let deleted = topic::delete(settings);
    let mut outcome = ran?;
    deleted?;
    outcome.topic_deleted = true;
    Ok(outcome)
}

fn run_on_topic(
    settings: &Settings,
    topic: Topic,
    signals: &Interrupt,
    watch: &mut dyn FnMut(Event<'_>) -> Result<(), Failure>,
) -> Result<Outcome, Failure> {
    let settings = &Settings { clients: clients(settings, &topic), ..settings.clone() };
    let plans = plan(settings, &topic)?;
    let producers = plans.iter().filter(|plan| plan.role == Role::Produce).count();
    let leaders = topic.partitions.iter().map(|partition| partition.leader);
    let brokers = process::find(settings.pid, leaders.collect());
    let id = process::random_id();
    let run = Arc::new(Run::new(settings.clone(), topic, id, producers));

    let (sender, messages) = bounded(MESSAGES_MAX);
    let threads = usize::from(settings.threads);
    let mut handles = Vec::with_capacity(threads);
    let mut starters = Vec::with_capacity(threads);
    for number in 0..threads {
        let mine: Vec<Plan> = plans.iter().skip(number).step_by(threads).cloned().collect();
        let (starter, started) = bounded(1);
        let (run, sender) = (run.clone(), sender.clone());
        let body = move || {
            let ended = run_on_ring(serve_clients(&run, mine, &started, &sender));
            if ended.is_err() {
                run.stop();
            }
            // Nobody listens any more after an error elsewhere.
            let _ = sender.send(Message::Ended(ended));
        };
        let spawned = thread::Builder::new().name(format!("bench-{number}")).spawn(body);
        handles.push(spawned.map_err(|error| failures::system("no thread can be started", error))?);
        starters.push(starter);
    }
    drop(sender);

    let mut gathering = Gathering::new(&run, &messages, signals, brokers);
    let gathered = gathering.gather(threads, starters, watch);
    run.stop();
    // Whoever still has something to say fails to, once nobody listens.
    drop(gathering);
    drop(messages);
    for handle in handles {
        handle.join().map_err(|_| Failure::Refused("a thread of the bench has failed".to_owned()))?;
    }
    gathered.map(|mut outcome| {
        outcome.producers = u32::try_from(producers).unwrap_or(u32::MAX);
        outcome.consumers = u32::try_from(plans.len() - producers).unwrap_or(u32::MAX);
        outcome
    })
}

fn places_by_leader(topic: &Topic) -> BTreeMap<SocketAddr, Vec<usize>> {
    let mut by_leader: BTreeMap<SocketAddr, Vec<usize>> = BTreeMap::new();
    for (place, partition) in topic.partitions.iter().enumerate() {
        by_leader.entry(partition.leader).or_default().push(place);
    }
    by_leader
}

/// How many clients of each role there are to be.
fn clients(settings: &Settings, topic: &Topic) -> u32 {
    match settings.client_per_leader {
        true => u32::try_from(places_by_leader(topic).len()).unwrap_or(u32::MAX),
        false => settings.clients,
    }
}

/// Gives each client a broker and partitions of it.
fn plan(settings: &Settings, topic: &Topic) -> Result<Vec<Plan>, Failure> {
    let by_leader = places_by_leader(topic);
    if (settings.clients as usize) < by_leader.len() {
        let message = format!(
            "the partitions of topic '{}' are led by {} brokers, and each needs a client; give --clients at least that many",
            topic.name,
            by_leader.len()
        );
        return Err(Failure::Usage(message));
    }
    let of_role = |role: Role, clients: u32| {
        let mut plans = Vec::new();
        let leaders = by_leader.len() as u32;
        for (number, (leader, places)) in by_leader.iter().enumerate() {
            let number = number as u32;
            // Clients are dealt out to the leaders in turn, and each leader's partitions to its clients.
            let mine: Vec<u32> = (0..clients).filter(|client| client % leaders == number).collect();
            for (turn, client) in mine.iter().enumerate() {
                let dealt: Vec<usize> = places.iter().skip(turn).step_by(mine.len()).copied().collect();
                let places = if dealt.is_empty() { vec![places[turn % places.len()]] } else { dealt };
                plans.push(Plan { role: role.clone(), client: *client, leader: *leader, places });
            }
        }
        plans.sort_by_key(|plan| plan.client);
        plans
    };
    let mut plans = Vec::new();
    if settings.mode.produces() {
        plans.extend(of_role(Role::Produce, settings.clients));
    }
    if settings.mode.consumes() {
        // End to end each partition has one consumer, so that every record comes once.
        let fewest = by_leader.values().map(Vec::len).min().unwrap_or(1) * by_leader.len();
        let clients = match settings.mode {
            Mode::EndToEnd => settings.clients.min(u32::try_from(fewest).unwrap_or(u32::MAX)),
            _ => settings.clients,
        };
        plans.extend(of_role(Role::Consume, clients));
    }
    Ok(plans)
}

enum Client {
    Producer(Rc<Producer>),
    Consumer(Rc<Consumer>),
}

impl Client {
    fn look_for_silence(&self, now: u64, stopped_ns: Option<u64>) -> Result<(), Failure> {
        match self {
            Client::Producer(producer) => producer.look_for_silence(now, stopped_ns),
            Client::Consumer(consumer) => consumer.look_for_silence(now, stopped_ns),
        }
    }

    fn exchanged(&self) -> Exchanged {
        match self {
            Client::Producer(producer) => producer.exchanged(),
            Client::Consumer(consumer) => consumer.exchanged(),
        }
    }
}

/// One thread's clients, from connecting to the end.
async fn serve_clients(
    run: &Arc<Run>,
    plans: Vec<Plan>,
    started: &Receiver<Clock>,
    sender: &Sender<Message>,
) -> Result<Known, Failure> {
    let settings = &run.settings;
    let mut links = Vec::with_capacity(plans.len());
    let mut alarm = Alarm::new()?;
    let session = match (&settings.transaction, plans.first()) {
        (Some(transaction), Some(plan)) => {
            Some(Rc::new(Session::new(run.clone(), transaction.clone(), plan.leader).await?))
        }
        _ => None,
    };
    for plan in &plans {
        let answer_bytes_max =
            if plan.role == Role::Produce { produce::ANSWER_BYTES_MAX } else { consume::ANSWER_BYTES_MAX };
        let timeout = settings.connect.timeout;
        let link = Link::connect(plan.leader, &settings.client_id, answer_bytes_max, timeout).await?;
        let producer_id = match &session {
            Some(session) => Some(session.producer_id()),
            None if settings.idempotent && plan.role == Role::Produce => {
                Some(produce::producer_id(&link, &mut alarm, timeout).await?)
            }
            None => None,
        };
        links.push((link, producer_id));
    }
    let recorder = Rc::new(RefCell::new(Recorder::new(run.warm_up_ns())));
    let mut known = Known::default();
    // Nothing is in flight on this thread: it may stand still. Without a clock there is no run.
    let Ok(clock) = sender.send(Message::Connected).map_err(|_| ()).and_then(|()| started.recv().map_err(|_| ()))
    else {
        return Ok(known);
    };
    let mut clients = Vec::with_capacity(plans.len());
    let mut tasks = Vec::with_capacity(plans.len());
    for (plan, (link, producer_id)) in plans.into_iter().zip(links) {
        let Plan { role, client, places, .. } = plan;
        let seat = Seat { run: run.clone(), clock, link, client, places, recorder: recorder.clone() };
        match role {
            Role::Produce => {
                let producer = Rc::new(Producer::new(seat, producer_id, session.clone()));
                tasks.push(spawn(stopping_on_error(run.clone(), producer.clone().produce())));
                clients.push(Client::Producer(producer));
            }
            Role::Consume => {
                let consumer = Rc::new(Consumer::new(seat));
                tasks.push(spawn(stopping_on_error(run.clone(), consumer.clone().consume())));
                clients.push(Client::Consumer(consumer));
            }
        }
    }
    let clients = Rc::new(clients);
    let over = Rc::new(std::cell::Cell::new(false));
    let ticker = spawn(tick(run.clone(), clock, clients.clone(), recorder.clone(), sender.clone(), over.clone()));
    let mut ended = Ok(());
    for task in tasks {
        ended = ended.and(task.end().await);
    }
    over.set(true);
    // The ticker knows why a silent client's connection was closed.
    let mut ended = ticker.end().await.and(ended);
    if let Some(session) = session {
        let is_whole = ended.is_ok() && !run.is_stopping();
        ended = ended.and(session.finish(is_whole).await);
        recorder.borrow_mut().ended(clock.now());
        known.transactions = Some(session.times());
        known.exchanged.add(&session.exchanged().await);
    }
    ended?;
    let last = recorder.borrow_mut().cut(clock.now());
    // Fails if the caller has given up.
    let _ = sender.send(Message::Second(Box::new(last)));
    known.last_ns = recorder.borrow().last_ns;
    for client in clients.iter() {
        known.exchanged.add(&client.exchanged());
        match client {
            Client::Producer(producer) => {
                known.acknowledged.push((producer.client(), producer.acknowledged()));
                known.left_behind += producer.left_behind();
            }
            Client::Consumer(consumer) => {
                known.checkers.extend(consumer.take_checker().map(|checker| (consumer.partitions(), checker)));
            }
        }
    }
    Ok(known)
}

async fn stopping_on_error(run: Arc<Run>, work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let ended = work.await;
    if ended.is_err() {
        run.stop();
    }
    ended
}

/// Cuts the seconds and looks after silent brokers until the clients are through.
async fn tick(
    run: Arc<Run>,
    clock: Clock,
    clients: Rc<Vec<Client>>,
    recorder: Rc<RefCell<Recorder>>,
    sender: Sender<Message>,
    over: Rc<std::cell::Cell<bool>>,
) -> Result<(), Failure> {
    let mut alarm = Alarm::new()?;
    let mut next_second = SECOND_NS;
    let mut stopped_ns = None;
    let mut silent = Ok(());
    while !over.get() {
        let now = clock.now();
        alarm.until(clock.at((now + LOOK_NS).min(next_second))).await?;
        let now = clock.now();
        if now >= next_second {
            let interval = recorder.borrow_mut().cut(now);
            next_second = (now / SECOND_NS + 1) * SECOND_NS;
            // Fails if the caller has given up, and then the run is stopped.
            let _ = sender.send(Message::Second(Box::new(interval)));
        }
        if run.is_stopping() && stopped_ns.is_none() {
            stopped_ns = Some(now);
        }
        for client in clients.iter() {
            if let Err(error) = client.look_for_silence(now, stopped_ns)
                && silent.is_ok()
            {
                silent = Err(error);
                run.stop();
                // No answer is waited for any longer.
                stopped_ns = Some(0);
            }
        }
    }
    silent
}

/// The caller's side while the run goes on.
struct Gathering<'a> {
    run: &'a Arc<Run>,
    messages: &'a Receiver<Message>,
    signals: &'a Interrupt,
    brokers: Result<Vec<u32>, String>,
    /// Seconds that are not told yet, and how many threads have reported them.
    seconds: BTreeMap<u64, Interval>,
    totals: Sides,
    warm: Sides,
    interrupted: bool,
}

impl<'a> Gathering<'a> {
    fn new(
        run: &'a Arc<Run>,
        messages: &'a Receiver<Message>,
        signals: &'a Interrupt,
        brokers: Result<Vec<u32>, String>,
    ) -> Gathering<'a> {
        Gathering {
            run,
            messages,
            signals,
            brokers,
            seconds: BTreeMap::new(),
            totals: Sides::default(),
            warm: Sides::default(),
            interrupted: false,
        }
    }

    fn gather(
        &mut self,
        threads: usize,
        starters: Vec<Sender<Clock>>,
        watch: &mut dyn FnMut(Event<'_>) -> Result<(), Failure>,
    ) -> Result<Outcome, Failure> {
        for _ in 0..threads {
            match self.messages.recv() {
                Ok(Message::Ended(Err(error))) => return Err(error),
                Ok(_) => {}
                Err(_) => return Err(Failure::Refused("the threads of the bench are gone".to_owned())),
            }
        }
        let clock = Clock::starting_now();
        watch(Event::Begins { run: self.run, clock })?;
        for starter in &starters {
            // Fails if the thread has failed, which its message says.
            let _ = starter.send(clock);
        }
        let mut begun: Option<CpuTime> = None;
        let mut known = Vec::new();
        while known.len() < threads {
            if begun.is_none() && clock.now() >= self.run.warm_up_ns() {
                begun = Some(CpuTime::now(&self.brokers));
            }
            self.look_for_signals();
            match self.messages.recv_timeout(self.patience(clock, begun.is_some())) {
                Ok(Message::Connected) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Message::Second(interval)) => self.add(*interval),
                Ok(Message::Ended(ended)) => known.push(ended?),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Failure::Refused("the threads of the bench are gone".to_owned()));
                }
            }
            self.tell(clock.now().saturating_sub(SECOND_NS + SECOND_GRACE_NS), watch)?;
        }
        let cpu = CpuTime::now(&self.brokers).since(&begun.unwrap_or_else(|| CpuTime::now(&self.brokers)));
        let cpu_seconds = clock.now().saturating_sub(self.run.warm_up_ns()) as f64 / 1e9;
        self.tell(u64::MAX, watch)?;
        Ok(self.outcome(clock, known, cpu, cpu_seconds))
    }

    /// How long to wait for messages: not beyond the end of the warm-up, when CPU times are to be read.
    fn patience(&self, clock: Clock, begun: bool) -> Duration {
        let left = Duration::from_nanos(self.run.warm_up_ns().saturating_sub(clock.now()));
        if begun { LOOK } else { LOOK.min(left) }
    }

    fn look_for_signals(&mut self) {
        if self.signals.is_pending() {
            self.interrupted = true;
            self.run.stop();
        }
    }

    fn add(&mut self, interval: Interval) {
        self.totals.add(&interval.sides);
        self.warm.add(&interval.warm);
        match self.seconds.get_mut(&interval.second) {
            Some(known) => known.add(&interval),
            None => {
                self.seconds.insert(interval.second, interval);
            }
        }
    }

    /// Tells the watcher all seconds that began before `before_ns`.
    fn tell(&mut self, before_ns: u64, watch: &mut dyn FnMut(Event<'_>) -> Result<(), Failure>) -> Result<(), Failure> {
        while let Some(entry) = self.seconds.first_entry()
            && entry.key().saturating_mul(SECOND_NS) < before_ns
        {
            watch(Event::Second(&entry.remove()))?;
        }
        Ok(())
    }

    fn outcome(&mut self, clock: Clock, known: Vec<Known>, cpu: CpuTime, cpu_seconds: f64) -> Outcome {
        let run = self.run;
        let last_ns = known.iter().map(|known| known.last_ns).max().unwrap_or(0);
        let acknowledged: Vec<(u32, Vec<u64>)> =
            known.iter().flat_map(|known| known.acknowledged.iter().cloned()).collect();
        let left_behind = known.iter().map(|known| known.left_behind).sum();
        let mut exchanged = Exchanged::default();
        known.iter().for_each(|known| exchanged.add(&known.exchanged));
        let transactions = known.iter().find_map(|known| known.transactions);
        let checkers = known.into_iter().flat_map(|known| known.checkers);
        let end_to_end = run.settings.mode == Mode::EndToEnd;
        let checks = run.settings.check && run.settings.mode.consumes();
        let findings = checks.then(|| {
            let mut findings = Findings::default();
            for (partitions, mut checker) in checkers {
                // After Ctrl-C what is on its way is not waited for.
                for (client, counts) in acknowledged.iter().filter(|_| end_to_end && !self.interrupted) {
                    for (place, count) in counts.iter().enumerate() {
                        let partition = run.topic.partitions[place].index;
                        if partitions.contains(&partition) {
                            checker.expect(partition, run.id, *client, *count);
                        }
                    }
                }
                findings.add(checker.findings);
            }
            findings
        });
        let acknowledged: u64 = acknowledged.iter().flat_map(|(_, counts)| counts).sum();
        let came = self.totals.consumed.records + self.warm.consumed.records;
        Outcome {
            topic: run.topic.clone(),
            run_id: run.id,
            producers: 0,
            consumers: 0,
            start_wall_ns: clock.start_wall_ns,
            seconds: last_ns.saturating_sub(run.warm_up_ns()) as f64 / 1e9,
            totals: std::mem::take(&mut self.totals),
            warm: std::mem::take(&mut self.warm),
            acknowledged,
            missing: if end_to_end && !self.interrupted { acknowledged.saturating_sub(came) } else { 0 },
            left_behind,
            exchanged,
            transactions,
            findings,
            client_cpu: cpu.own,
            cpu_seconds,
            broker_cpu: cpu.brokers,
            broker_pids: self.brokers.clone().unwrap_or_default(),
            interrupted: self.interrupted,
            topic_deleted: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::topic::Partition;

    fn topic(leaders: &[u16]) -> Topic {
        let partition = |(index, port): (usize, &u16)| Partition {
            index: index as i32,
            leader: SocketAddr::from(([127, 0, 0, 1], *port)),
            start_offset: 0,
            end_offset: 0,
        };
        let partitions = leaders.iter().enumerate().map(partition).collect();
        Topic { name: "t".to_owned(), partitions, created: false }
    }

    fn places(mode: Mode, clients: u32, leaders: &[u16]) -> Vec<(bool, u32, u16, Vec<usize>)> {
        let settings = Settings { mode, clients, ..crate::bench::tests::settings() };
        let plans = plan(&settings, &topic(leaders)).expect("a plan");
        plans
            .into_iter()
            .map(|plan| (plan.role == Role::Produce, plan.client, plan.leader.port(), plan.places))
            .collect()
    }

    #[test]
    fn partitions_are_dealt_to_clients_of_their_leader() {
        assert_eq!(places(Mode::Produce, 2, &[1, 2, 1, 2, 1]), [(true, 0, 1, vec![0, 2, 4]), (true, 1, 2, vec![1, 3])]);
        assert_eq!(
            places(Mode::Produce, 3, &[1, 1]).iter().map(|plan| &plan.3[..]).collect::<Vec<_>>(),
            [&[0][..], &[1], &[0]]
        );
    }

    #[test]
    fn end_to_end_every_partition_has_one_consumer() {
        for (clients, leaders) in [(1, &[1, 1, 1][..]), (5, &[1, 1]), (4, &[1, 2, 2, 2, 1]), (9, &[1, 2, 2])] {
            let plans = places(Mode::EndToEnd, clients, leaders);
            let consumed = plans.iter().filter(|plan| !plan.0).flat_map(|plan| plan.3.clone());
            let mut consumed: Vec<usize> = consumed.collect();
            consumed.sort_unstable();
            assert_eq!(consumed, (0..leaders.len()).collect::<Vec<_>>(), "{clients} {leaders:?}");
        }
    }

    #[test]
    fn kafkas_tests_have_a_client_for_each_leader() {
        let leaders = topic(&[2, 1, 2, 3]);
        for mode in [Mode::Produce, Mode::Consume] {
            let settings = Settings { mode, client_per_leader: true, ..crate::bench::tests::settings() };
            let settings = Settings { clients: clients(&settings, &leaders), ..settings };
            let plans = plan(&settings, &leaders).expect("a plan");
            let places: Vec<_> = plans.iter().map(|plan| (plan.client, plan.leader.port(), &plan.places[..])).collect();
            assert_eq!(places, [(0, 1, &[1][..]), (1, 2, &[0, 2]), (2, 3, &[3])]);
        }
        assert_eq!(clients(&crate::bench::tests::settings(), &leaders), 1);
    }

    #[test]
    fn fewer_clients_than_leaders_are_refused_with_what_to_do() {
        let settings = Settings { mode: Mode::Produce, clients: 1, ..crate::bench::tests::settings() };
        let refused = plan(&settings, &topic(&[1, 2])).expect_err("too few");
        assert!(refused.to_string().contains("--clients at least"), "{refused}");
    }
}
