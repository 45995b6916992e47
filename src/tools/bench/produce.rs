//! One producing client: a connection, one task that sends what is due, one that takes the answers.

#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::driver::{Alarm, Exchanged, Link, spawn};
use super::failures;
use super::measure::{SECOND_NS, Side, Traffic};
use super::pace::{Arrivals, Share, Turn};
use super::payload::{Author, Batch, Payload, ProducerId};
use super::shared::{Run, Seat};
use super::throttle::Throttle;
use super::transaction::Session;
use crate::failure::Failure;
use crate::protocol::ErrorCode;
use crate::protocol::message::{InitProducerIdRequest, ProduceRequestToSend, ProduceResponse};

/// From version 3 on batches are of the current format.
const VERSIONS: std::ops::RangeInclusive<i16> = 3..=11;
/// The first version whose answer comes before the pause that it asks for.
const THROTTLE_VERSION: i16 = 6;
pub const PRODUCER_ID_VERSIONS: std::ops::RangeInclusive<i16> = 0..=5;
/// Of answers, which hold no records.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;
const ANSWER_BYTES: usize = 4096;
/// A wait is looked at again after so long: the run may have been ended early.
pub const WAIT_NS_MAX: u64 = SECOND_NS / 20;

/// Between two tries to get a producer id.
const PRODUCER_ID_WAIT: Duration = Duration::from_millis(50);

/// Behind the end of a run with a rate: how long what was due before it may still be sent.
const CATCH_UP_NS: u64 = SECOND_NS / 4;

/// A request that is sent and not answered.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    /// Number of its first record, and how many it has.
    first: u64,
    count: u64,
    sent_ns: u64,
    bytes: u64,
    /// Of the partition in the topic.
    place: usize,
    /// What is known of it when it is sent.
    traffic: Traffic,
}

/// Gets a producer id of the client's own.
///
/// # Errors
/// If the broker is too old, refuses, or has none to give within the timeout.
pub async fn producer_id(link: &Link, alarm: &mut Alarm, timeout: Duration) -> Result<ProducerId, Failure> {
    let deadline = Instant::now() + timeout;
    let request = InitProducerIdRequest { transactional_id: None, ..InitProducerIdRequest::default() };
    loop {
        let response = link.ask(&request, PRODUCER_ID_VERSIONS, timeout).await?;
        match ErrorCode::from_code(response.error_code) {
            Some(ErrorCode::None) => {
                let (id, epoch) = (response.producer_id, response.producer_epoch);
                return Ok(ProducerId { id, epoch, is_transactional: false });
            }
            Some(error) if error.is_retriable() && Instant::now() < deadline => {
                alarm.until(Instant::now() + PRODUCER_ID_WAIT).await?;
            }
            _ => return Err(Failure::of_code("getting a producer id", response.error_code, None)),
        }
    }
}

/// Sends a batch to each of its places in turn.
pub struct Producer {
    seat: Seat,
    producer_id: Option<ProducerId>,
    session: Option<Rc<Session>>,
    share: Option<Share>,
    throttle: Throttle,
    in_flight: RefCell<VecDeque<InFlight>>,
    /// There is room in flight again, or nothing will come any more.
    room: Notify,
    /// Nothing is sent any more.
    done: Cell<bool>,
    failed: Cell<bool>,
    /// Acknowledged, by place in the topic.
    acknowledged: RefCell<Vec<u64>>,
    left_behind: Cell<u64>,
}

impl Producer {
    pub fn new(seat: Seat, producer_id: Option<ProducerId>, session: Option<Rc<Session>>) -> Producer {
        let (settings, client) = (&seat.run.settings, seat.client);
        let share = settings.rate.map(|per_second| Share { per_second, clients: settings.clients, client });
        let acknowledged = RefCell::new(vec![0; seat.run.topic.partitions.len()]);
        Producer {
            seat,
            producer_id,
            session,
            share,
            throttle: Throttle::new(THROTTLE_VERSION),
            in_flight: RefCell::default(),
            room: Notify::new(),
            done: Cell::new(false),
            failed: Cell::new(false),
            acknowledged,
            left_behind: Cell::new(0),
        }
    }

    /// Produces until the run's end, and until all is acknowledged.
    pub async fn produce(self: Rc<Self>) -> Result<(), Failure> {
        let receiver = spawn(self.clone().receive());
        let sent = self.send().await;
        self.done.set(true);
        if sent.is_err() || self.in_flight.borrow().is_empty() {
            self.seat.link.close();
        }
        let received = receiver.end().await;
        self.seat.run.producers_left.fetch_sub(1, Ordering::Release);
        // What an early end cuts off is no failure of this client.
        received.and(if self.seat.run.is_stopping() { Ok(()) } else { sent })
    }

    /// Acknowledged records by place of the partition.
    pub fn acknowledged(&self) -> Vec<u64> {
        self.acknowledged.borrow().clone()
    }

    pub fn client(&self) -> u32 {
        self.seat.client
    }

    pub fn exchanged(&self) -> Exchanged {
        self.seat.link.exchanged()
    }

    /// Records that were due and not sent when the run ended.
    pub fn left_behind(&self) -> u64 {
        self.left_behind.get()
    }

    /// Ends the connection if the broker is silent for too long, or if the run was ended and what is in flight takes its
    /// time; the former is an error.
    pub fn look_for_silence(&self, now: u64, stopped_ns: Option<u64>) -> Result<(), Failure> {
        let oldest = self.in_flight.borrow().front().map(|request| self.throttle.silent_since(request.sent_ns));
        let silent = self.seat.run.settings.connect.timeout;
        if stopped_ns.is_some_and(|stopped| now > stopped + Run::DRAIN_NS) {
            self.seat.link.close();
        } else if oldest.is_some_and(|oldest| u128::from(now.saturating_sub(oldest)) > silent.as_nanos()) {
            return Err(failures::silent(self.seat.link.address(), silent));
        }
        Ok(())
    }

    async fn send(&self) -> Result<(), Failure> {
        let settings = &self.seat.run.settings;
        let depth = settings.depth as usize;
        let (warm_up_ns, end_ns) = (self.seat.run.warm_up_ns(), self.seat.run.end_ns());
        let Seat { run, client, .. } = &self.seat;
        let partitions = run.topic.partitions.len();
        let author = Author { run: run.id, client: *client, clients: settings.clients, producer: self.producer_id };
        let mut payload = Payload::new(settings.shape.clone(), author, partitions);
        let mut arrivals = Arrivals::new(self.share, settings.shape.batch_records(), settings.linger);
        let mut alarm = Alarm::new()?;
        let mut left = settings.records.map(|records| {
            let clients = u64::from(settings.clients);
            records / clients + u64::from(u64::from(self.seat.client) < records % clients)
        });
        let mut turn = 0;
        while left != Some(0) && !self.seat.run.is_stopping() && !self.failed.get() {
            if self.in_flight.borrow().len() >= depth {
                self.room.notified().await;
                continue;
            }
            let now = self.seat.clock.now();
            if now >= end_ns && (self.share.is_none() || now >= end_ns + CATCH_UP_NS) {
                break;
            }
            if let Some(until) = self.throttle.until(now) {
                alarm.until(self.seat.clock.at(until.min(now + WAIT_NS_MAX))).await?;
                continue;
            }
            // With a rate what was due before the end is sent, even a little late.
            let left_of_rate = match settings.duration {
                Some(_) if self.share.is_some() => arrivals.left_behind(end_ns),
                _ => u64::MAX,
            };
            let gathered = match arrivals.turn(now) {
                _ if left_of_rate == 0 => break,
                Turn::Wait(until) if now < end_ns => {
                    alarm.until(self.seat.clock.at(until.min(end_ns).min(now + WAIT_NS_MAX))).await?;
                    continue;
                }
                Turn::Wait(_) => left_of_rate.min(settings.shape.batch_records()),
                Turn::Send(gathered) => gathered.min(left_of_rate),
            };
            let count = self.cut(&arrivals, gathered, left, now, warm_up_ns);
            let place = self.seat.places[turn % self.seat.places.len()];
            turn += 1;
            // The wait for a commit is none of the records'.
            let now = match &self.session {
                Some(session) if session.admit(place).await? => self.seat.clock.now(),
                Some(_) => break,
                None => now,
            };
            let count = self.send_batch(&mut payload, &arrivals, place, count, now).await?;
            if let Some(left) = &mut left
                && arrivals.due(0, now) >= warm_up_ns
            {
                *left -= count;
            }
            arrivals.take(count);
        }
        self.left_behind.set(if left == Some(0) { 0 } else { arrivals.left_behind(self.seat.clock.now().min(end_ns)) });
        Ok(())
    }

    /// How many of the gathered records go into the next batch: none beyond those asked for, and none that count with some
    /// that do not.
    fn cut(&self, arrivals: &Arrivals, gathered: u64, left: Option<u64>, now: u64, warm_up_ns: u64) -> u64 {
        let mut count = gathered;
        if arrivals.due(0, now) < warm_up_ns {
            while arrivals.due(count - 1, now) >= warm_up_ns {
                count -= 1;
            }
            return count;
        }
        count.min(left.unwrap_or(u64::MAX))
    }

    /// Sends a batch of up to `count` records; of how many.
    async fn send_batch(
        &self,
        payload: &mut Payload,
        arrivals: &Arrivals,
        place: usize,
        count: u64,
        now: u64,
    ) -> Result<u64, Failure> {
        let settings = &self.seat.run.settings;
        let wall_ns = self.seat.clock.start_wall_ns;
        let Batch { bytes: batch, made } = payload.batch(place, count, |index| wall_ns + arrivals.due(index, now));
        let partition = self.seat.run.topic.partitions[place].index;
        let bytes = batch.len() as u64;
        let traffic = Traffic {
            value_bytes: made.value_bytes,
            record_bytes: made.record_bytes,
            bytes_max: bytes,
            compression_ratios: made.compression_ratio(batch.len()),
            ..Traffic::default()
        };
        let request = ProduceRequestToSend {
            transactional_id: settings.transaction.as_ref().map(|transaction| transaction.id.as_str()),
            acks: settings.acks,
            timeout_ms: i32::try_from(settings.connect.timeout.as_millis()).unwrap_or(i32::MAX),
            topics: &[(&self.seat.run.topic.name, &[(partition, Some(batch))])],
        };
        let (frame, _) = self.seat.link.frame(&request, VERSIONS)?;
        let sent = InFlight { first: arrivals.taken(), count: made.count, sent_ns: now, bytes, place, traffic };
        if settings.acks == 0 {
            self.seat.link.expect_no_answer();
            self.seat.link.send(frame).await?;
            self.acknowledge(sent);
            return Ok(made.count);
        }
        self.in_flight.borrow_mut().push_back(sent);
        self.seat.link.send(frame).await?;
        Ok(made.count)
    }

    async fn receive(self: Rc<Self>) -> Result<(), Failure> {
        let received = self.take_answers().await;
        self.failed.set(true);
        self.room.notify_one();
        let is_unanswered = !self.in_flight.borrow().is_empty();
        let received = match received {
            // The connection was closed on purpose.
            Err(_) if self.done.get() && !is_unanswered || self.seat.run.is_stopping() => Ok(()),
            received => received,
        };
        if let Some(session) = &self.session
            && (received.is_err() || is_unanswered)
        {
            session.fail();
        }
        received
    }

    async fn take_answers(&self) -> Result<(), Failure> {
        while !(self.done.get() && self.in_flight.borrow().is_empty()) {
            let answer = self.seat.link.receive(ANSWER_BYTES).await?;
            let response: ProduceResponse = answer.read().map_err(failures::exchange)?;
            let partition = response.responses.first().and_then(|topic| topic.partition_responses.first());
            let Some(partition) = partition else {
                return Err(failures::answer("it names no partition"));
            };
            if partition.error_code != 0 {
                return Err(Failure::of_code(
                    &format!("producing to partition {} of topic '{}'", partition.index, self.seat.run.topic.name),
                    partition.error_code,
                    partition.error_message.as_deref(),
                ));
            }
            let request = self.in_flight.borrow_mut().pop_front();
            let mut request = request.ok_or_else(|| failures::answer("nothing was asked"))?;
            let now = self.seat.clock.now();
            let held_ns = self.throttle.answered(answer.version, response.throttle_time_ms, now);
            request.traffic.throttled(response.throttle_time_ms, held_ns);
            self.acknowledge(request);
            if let Some(session) = &self.session {
                session.release();
            }
            self.room.notify_one();
        }
        Ok(())
    }

    fn acknowledge(&self, request: InFlight) {
        let InFlight { first, count, sent_ns, bytes, place, mut traffic } = request;
        let now = self.seat.clock.now();
        traffic.answer_ns = now.saturating_sub(sent_ns);
        traffic.answer_ns_max = traffic.answer_ns;
        self.acknowledged.borrow_mut()[place] += count;
        self.seat.run.produced[place].fetch_add(count, Ordering::Relaxed);
        let mut recorder = self.seat.recorder.borrow_mut();
        recorder.traffic(Side::Produced, self.share.map_or(sent_ns, |share| share.due(first)), &traffic);
        match self.share {
            None => {
                recorder.records(Side::Produced, sent_ns, now, count);
                recorder.request(Side::Produced, sent_ns, now, bytes);
            }
            Some(share) => {
                (first..first + count).for_each(|index| recorder.records(Side::Produced, share.due(index), now, 1));
                recorder.request(Side::Produced, share.due(first), now, bytes);
            }
        }
    }
}
