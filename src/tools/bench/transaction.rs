//! The transactions of a run: one transactional id, whose producers are the clients of one thread.
//!
//! ```text
//!  a client with a batch    admit ─── the partition is in the transaction? ── no ──> AddPartitionsToTxn, one at a time
//!                             │                                                  (the first one begins a transaction)
//!                             │   old enough: nobody is admitted any more, all answers are awaited, EndTxn, a new one
//!                             v
//!                          in flight ───> release, with its answer
//!  the end of the run       finish: commit, or abort after an error or Ctrl-C
//! ```
//! What to ask the coordinator, and when again, is decided in [`crate::client::transaction`].

#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, Notify};

use super::driver::{Alarm, Exchanged, Link};
use super::failures;
use super::payload::ProducerId;
use super::produce::{ANSWER_BYTES_MAX, PRODUCER_ID_VERSIONS};
use super::settings::{Settings, TransactionSettings};
use super::shared::{Run, nanoseconds};
use crate::base::time::Monotonic;
use crate::client::Request;
use crate::client::transaction::{Step, ToAsk, Transaction, TransactionError, TransactionOptions};
use crate::failure::{Failure, describe, say};
use crate::protocol::ErrorCode;

/// With a key type, and one key.
const FIND_COORDINATOR_VERSIONS: RangeInclusive<i16> = 1..=3;
/// The later ones are for brokers.
const ADD_PARTITIONS_VERSIONS: RangeInclusive<i16> = 0..=3;
const END_VERSIONS: RangeInclusive<i16> = 0..=4;
/// Who waits for so long is told for what.
const TELL_AFTER: Duration = Duration::from_secs(1);

/// How often, and how long it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    pub committed: u64,
    pub init_ns: u64,
    pub commit_ns: u64,
    pub abort_ns: u64,
}

/// See the head of this file.
pub struct Session {
    run: Arc<Run>,
    settings: TransactionSettings,
    producer_id: ProducerId,
    coordinator: Mutex<Coordinator>,
    /// Of the open transaction.
    began: Cell<Option<Instant>>,
    /// Places whose partitions are in it.
    places: RefCell<Vec<bool>>,
    in_flight: Cell<usize>,
    is_ending: Cell<bool>,
    /// Something went wrong: nobody is admitted any more.
    is_broken: Cell<bool>,
    /// Of all that waiters look at.
    changed: Notify,
    times: Cell<Times>,
}

impl Session {
    /// Gets a producer id, and with it ends what another of this transactional id has left.
    pub async fn new(run: Arc<Run>, settings: TransactionSettings, home: SocketAddr) -> Result<Session, Failure> {
        let began = Instant::now();
        let mut coordinator = Coordinator::new(&run.settings, &settings, home)?;
        let now = coordinator.now();
        coordinator.transaction.init(now);
        coordinator.carry_out().await?;
        let identity = coordinator.transaction.identity();
        let (id, epoch) = identity.ok_or_else(|| failures::answer("it gives no producer id"))?;
        let places = vec![false; run.topic.partitions.len()].into();
        Ok(Session {
            run,
            settings,
            producer_id: ProducerId { id, epoch, is_transactional: true },
            coordinator: Mutex::new(coordinator),
            began: Cell::new(None),
            places,
            in_flight: Cell::new(0),
            is_ending: Cell::new(false),
            is_broken: Cell::new(false),
            changed: Notify::new(),
            times: Cell::new(Times { init_ns: nanoseconds(began.elapsed()), ..Times::default() }),
        })
    }

    pub fn producer_id(&self) -> ProducerId {
        self.producer_id
    }

    pub fn times(&self) -> Times {
        self.times.get()
    }

    /// What went over connections to coordinators.
    pub async fn exchanged(&self) -> Exchanged {
        self.coordinator.lock().await.exchanged
    }

    /// Waits until a batch for a place may be sent, which counts as in flight then; `false`: the run ends.
    pub async fn admit(&self, place: usize) -> Result<bool, Failure> {
        loop {
            if self.is_broken.get() || self.run.is_stopping() {
                return Ok(false);
            }
            let is_old = self.began.get().is_some_and(|began| began.elapsed() >= self.settings.duration);
            match (self.is_ending.get(), is_old) {
                (true, _) => self.changed.notified().await,
                (false, true) => self.commit().await?,
                (false, false) if self.places.borrow()[place] => {
                    self.in_flight.set(self.in_flight.get() + 1);
                    return Ok(true);
                }
                (false, false) => self.add(place).await?,
            }
        }
    }

    /// A batch is acknowledged.
    pub fn release(&self) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
        if self.in_flight.get() == 0 {
            self.changed.notify_waiters();
        }
    }

    /// A batch never will be: the transaction can only be aborted.
    pub fn fail(&self) {
        self.is_broken.set(true);
        self.changed.notify_waiters();
    }

    /// Ends what is open at the end of the run: what is not acknowledged can't be committed.
    pub async fn finish(&self, commit: bool) -> Result<(), Failure> {
        self.end(commit && !self.is_broken.get() && self.in_flight.get() == 0).await
    }

    async fn add(&self, place: usize) -> Result<(), Failure> {
        let mut coordinator = self.coordinator.lock().await;
        // It may have been added, or the end have begun, while another was talking.
        if self.places.borrow()[place] || self.is_ending.get() || self.is_broken.get() {
            return Ok(());
        }
        let now = coordinator.now();
        coordinator.transaction.add(&self.run.topic.name, self.run.topic.partitions[place].index, now);
        self.broken_by(coordinator.carry_out().await)?;
        self.places.borrow_mut()[place] = true;
        if self.began.get().is_none() {
            self.began.set(Some(Instant::now()));
        }
        Ok(())
    }

    async fn commit(&self) -> Result<(), Failure> {
        self.is_ending.set(true);
        while self.in_flight.get() > 0 && !self.is_broken.get() {
            self.changed.notified().await;
        }
        // What the run's end or an error leaves open is ended by `finish`.
        let ended = match self.is_broken.get() || self.run.is_stopping() {
            true => Ok(()),
            false => self.end(true).await,
        };
        self.is_ending.set(false);
        self.changed.notify_waiters();
        ended
    }

    async fn end(&self, commit: bool) -> Result<(), Failure> {
        let mut coordinator = self.coordinator.lock().await;
        let began = Instant::now();
        let was_open = coordinator.transaction.is_open();
        let now = coordinator.now();
        coordinator.transaction.end(commit, now);
        self.broken_by(coordinator.carry_out().await)?;
        self.places.borrow_mut().fill(false);
        self.began.set(None);
        let mut times = self.times.get();
        let taken = if commit { &mut times.commit_ns } else { &mut times.abort_ns };
        *taken += nanoseconds(began.elapsed());
        times.committed += u64::from(commit && was_open);
        self.times.set(times);
        Ok(())
    }

    fn broken_by(&self, done: Result<(), Failure>) -> Result<(), Failure> {
        if done.is_err() {
            self.fail();
        }
        done
    }
}

/// The conversation with the transaction coordinator, whichever broker that is.
struct Coordinator {
    transaction: Transaction,
    transactional_id: String,
    client_id: String,
    /// Any broker.
    home: SocketAddr,
    /// To the coordinator, while it is one.
    link: Option<Link>,
    alarm: Alarm,
    start: Instant,
    exchanged: Exchanged,
}

impl Coordinator {
    fn new(run: &Settings, settings: &TransactionSettings, home: SocketAddr) -> Result<Coordinator, Failure> {
        Ok(Coordinator {
            transaction: Transaction::new(TransactionOptions {
                transactional_id: settings.id.clone(),
                timeout_ms: settings.timeout_ms,
                patience: run.connect.timeout,
            }),
            transactional_id: settings.id.clone(),
            client_id: run.client_id.clone(),
            home,
            link: None,
            alarm: Alarm::new()?,
            start: Instant::now(),
            exchanged: Exchanged::default(),
        })
    }

    fn now(&self) -> Monotonic {
        Monotonic(nanoseconds(self.start.elapsed()))
    }

    /// Asks until what is wanted is done.
    async fn carry_out(&mut self) -> Result<(), Failure> {
        let mut tell_at = Some(Instant::now() + TELL_AFTER);
        loop {
            let now = self.now();
            match self.transaction.next(now) {
                Step::Done => return Ok(()),
                Step::Wait(until) => {
                    if let Some((what, code)) = self.transaction.waits_for()
                        && tell_at.take_if(|at| Instant::now() >= *at).is_some()
                    {
                        say(&format!("ringlog: {}: {}; trying again", self.named(what), reason(code)));
                    }
                    self.alarm.until(self.start + Duration::from_nanos(until.0)).await?;
                }
                Step::Ask(question) => self.ask(question).await.map_err(|error| self.failure(error))?,
            }
        }
    }

    /// Asks once. A broken connection is no answer, and tried again as one.
    async fn ask(&mut self, question: ToAsk) -> Result<(), TransactionError> {
        let connected = match &question {
            ToAsk::FindCoordinator(_) => self.connect(self.home).await,
            ToAsk::InitProducerId(_) | ToAsk::AddPartitions(_) | ToAsk::EndTxn(_) => self.coordinator_link().await,
        };
        let Ok(link) = connected else { return self.transaction.unanswered(self.now()) };
        let told = match question {
            // Whose connection this is nobody knows before: it is not kept.
            ToAsk::FindCoordinator(request) => {
                return self.put(&link, &request, FIND_COORDINATOR_VERSIONS, Transaction::found).await;
            }
            ToAsk::InitProducerId(request) => {
                self.put(&link, &request, PRODUCER_ID_VERSIONS, Transaction::initialized).await
            }
            ToAsk::AddPartitions(request) => {
                self.put(&link, &request, ADD_PARTITIONS_VERSIONS, Transaction::added).await
            }
            ToAsk::EndTxn(request) => self.put(&link, &request, END_VERSIONS, Transaction::ended).await,
        };
        // As long as that broker is the coordinator its connection is kept.
        self.link = self.transaction.coordinator().is_some().then_some(link);
        told
    }

    /// Asks, and has the answer taken up.
    async fn put<R: Request>(
        &mut self,
        link: &Link,
        request: &R,
        able: RangeInclusive<i16>,
        take: impl FnOnce(&mut Transaction, &R::Response, Monotonic) -> Result<(), TransactionError>,
    ) -> Result<(), TransactionError> {
        let before = link.exchanged();
        let response = link.ask(request, able, self.transaction.time_left(self.now())).await;
        self.exchanged.add(&link.exchanged().since(&before));
        let now = self.now();
        match response {
            Ok(response) => take(&mut self.transaction, &response, now),
            Err(_) => self.transaction.unanswered(now),
        }
    }

    async fn connect(&mut self, address: SocketAddr) -> Result<Link, Failure> {
        let timeout = self.transaction.time_left(self.now());
        let link = Link::connect(address, &self.client_id, ANSWER_BYTES_MAX, timeout).await?;
        self.exchanged.add(&link.exchanged());
        Ok(link)
    }

    async fn coordinator_link(&mut self) -> Result<Link, Failure> {
        if let Some(link) = self.link.take() {
            return Ok(link);
        }
        let address = self.transaction.coordinator().and_then(|place| place.to_socket_addrs().ok()?.next());
        match address {
            Some(address) => self.connect(address).await,
            None => Err(failures::answer("the coordinator's address can't be resolved")),
        }
    }

    fn named(&self, what: &str) -> String {
        format!("{what} for transactional id '{}'", self.transactional_id)
    }

    fn failure(&self, error: TransactionError) -> Failure {
        match error {
            TransactionError::Refused { what, code, message } => {
                let is_fenced =
                    [ErrorCode::ProducerFenced, ErrorCode::InvalidProducerEpoch].map(ErrorCode::code).contains(&code);
                let fenced =
                    is_fenced.then_some("another producer has taken it over, or the coordinator has given it up");
                Failure::of_code(&self.named(what), code, fenced.or(message.as_deref()))
            }
            TransactionError::TooLate { what, code, patience } => Failure::Unreachable(format!(
                "{} has not come to an end within {} s: {}; look at the log of the broker that coordinates it",
                self.named(what),
                patience.as_secs_f64(),
                reason(code)
            )),
            TransactionError::NoAnswer(_) => failures::answer(&error.to_string()),
        }
    }
}

/// Why a try did not do.
fn reason(code: i16) -> String {
    match ErrorCode::from_code(code) {
        Some(ErrorCode::NetworkException) => "no broker answers for it".to_owned(),
        Some(ErrorCode::CoordinatorNotAvailable | ErrorCode::NotCoordinator) => {
            describe(code, Some("it has no coordinator now"))
        }
        Some(ErrorCode::ConcurrentTransactions) => describe(code, Some("its last transaction is not through yet")),
        _ => describe(code, None),
    }
}
