//! One producing client: a connection, one task that sends what is due, one that takes the answers.

#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::Notify;

use super::driver::{Alarm, Link, spawn};
use super::failures;
use super::measure::{Recorder, SECOND_NS, Side};
use super::pace::{Arrivals, Share, Turn};
use super::payload::Payload;
use super::shared::{Clock, Run};
use crate::cli::failure::Failure;
use crate::protocol::message::{ProduceRequestToSend, ProduceResponse};

/// From version 3 on batches are of the current format.
const VERSIONS: std::ops::RangeInclusive<i16> = 3..=11;
/// Of answers, which hold no records.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;
const ANSWER_BYTES: usize = 4096;
/// A wait is looked at again after so long: the run may have been ended early.
pub const WAIT_NS_MAX: u64 = SECOND_NS / 20;

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
}

pub struct Producer {
    run: Arc<Run>,
    clock: Clock,
    link: Link,
    client: u32,
    /// Places of the partitions it produces to, one batch each in turn.
    places: Vec<usize>,
    share: Option<Share>,
    recorder: Rc<RefCell<Recorder>>,
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
    pub fn new(
        run: Arc<Run>,
        clock: Clock,
        link: Link,
        client: u32,
        places: Vec<usize>,
        recorder: Rc<RefCell<Recorder>>,
    ) -> Producer {
        let clients = run.settings.clients;
        let share = run.settings.rate.map(|per_second| Share { per_second, clients, client });
        let acknowledged = RefCell::new(vec![0; run.topic.partitions.len()]);
        Producer {
            run,
            clock,
            link,
            client,
            places,
            share,
            recorder,
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
            self.link.close();
        }
        let received = receiver.end().await;
        self.run.producers_left.fetch_sub(1, Ordering::Release);
        // What an early end cuts off is no failure of this client.
        received.and(if self.run.is_stopping() { Ok(()) } else { sent })
    }

    /// Acknowledged records by place of the partition.
    pub fn acknowledged(&self) -> Vec<u64> {
        self.acknowledged.borrow().clone()
    }

    pub fn client(&self) -> u32 {
        self.client
    }

    /// Records that were due and not sent when the run ended.
    pub fn left_behind(&self) -> u64 {
        self.left_behind.get()
    }

    /// Ends the connection if the broker is silent for too long, or if the run was ended and what is in flight takes its
    /// time; the former is an error.
    pub fn look_for_silence(&self, now: u64, stopped_ns: Option<u64>) -> Result<(), Failure> {
        let oldest = self.in_flight.borrow().front().map(|request| request.sent_ns);
        let silent = self.run.settings.connect.timeout;
        if stopped_ns.is_some_and(|stopped| now > stopped + Run::DRAIN_NS) {
            self.link.close();
        } else if oldest.is_some_and(|oldest| u128::from(now.saturating_sub(oldest)) > silent.as_nanos()) {
            return Err(failures::silent(self.link.address(), silent));
        }
        Ok(())
    }

    async fn send(&self) -> Result<(), Failure> {
        let settings = &self.run.settings;
        let depth = settings.depth as usize;
        let (warm_up_ns, end_ns) = (self.run.warm_up_ns(), self.run.end_ns());
        let mut payload =
            Payload::new(settings.shape.clone(), self.run.id, self.client, self.run.topic.partitions.len());
        let mut arrivals = Arrivals::new(self.share, settings.shape.batch_records(), settings.linger);
        let mut alarm = Alarm::new()?;
        let mut left = settings.records.map(|records| {
            let clients = u64::from(settings.clients);
            records / clients + u64::from(u64::from(self.client) < records % clients)
        });
        let mut turn = 0;
        while left != Some(0) && !self.run.is_stopping() && !self.failed.get() {
            if self.in_flight.borrow().len() >= depth {
                self.room.notified().await;
                continue;
            }
            let now = self.clock.now();
            if now >= end_ns && (self.share.is_none() || now >= end_ns + CATCH_UP_NS) {
                break;
            }
            // With a rate what was due before the end is sent, even a little late.
            let left_of_rate = match settings.duration {
                Some(_) if self.share.is_some() => arrivals.left_behind(end_ns),
                _ => u64::MAX,
            };
            let gathered = match arrivals.turn(now) {
                _ if left_of_rate == 0 => break,
                Turn::Wait(until) if now < end_ns => {
                    alarm.until(self.clock.at(until.min(end_ns).min(now + WAIT_NS_MAX))).await?;
                    continue;
                }
                Turn::Wait(_) => left_of_rate.min(settings.shape.batch_records()),
                Turn::Send(gathered) => gathered.min(left_of_rate),
            };
            let count = self.cut(&arrivals, gathered, left, now, warm_up_ns);
            if let Some(left) = &mut left
                && arrivals.due(0, now) >= warm_up_ns
            {
                *left -= count;
            }
            let place = self.places[turn % self.places.len()];
            turn += 1;
            self.send_batch(&mut payload, &arrivals, place, count, now).await?;
            arrivals.take(count);
        }
        self.left_behind.set(if left == Some(0) { 0 } else { arrivals.left_behind(self.clock.now().min(end_ns)) });
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

    async fn send_batch(
        &self,
        payload: &mut Payload,
        arrivals: &Arrivals,
        place: usize,
        count: u64,
        now: u64,
    ) -> Result<(), Failure> {
        let settings = &self.run.settings;
        let wall_ns = self.clock.start_wall_ns;
        let batch = payload.batch(place, count, |index| wall_ns + arrivals.due(index, now));
        let partition = self.run.topic.partitions[place].index;
        let bytes = batch.len() as u64;
        let request = ProduceRequestToSend {
            transactional_id: None,
            acks: settings.acks,
            timeout_ms: i32::try_from(settings.connect.timeout.as_millis()).unwrap_or(i32::MAX),
            topics: &[(&self.run.topic.name, &[(partition, Some(batch))])],
        };
        let (frame, _) = self.link.frame(&request, VERSIONS)?;
        let sent = InFlight { first: arrivals.taken(), count, sent_ns: now, bytes, place };
        if settings.acks == 0 {
            self.link.expect_no_answer();
            self.link.send(frame).await?;
            self.acknowledge(sent);
            return Ok(());
        }
        self.in_flight.borrow_mut().push_back(sent);
        self.link.send(frame).await
    }

    async fn receive(self: Rc<Self>) -> Result<(), Failure> {
        let received = self.take_answers().await;
        self.failed.set(true);
        self.room.notify_one();
        match received {
            // The connection was closed on purpose.
            Err(_) if self.done.get() && self.in_flight.borrow().is_empty() || self.run.is_stopping() => Ok(()),
            received => received,
        }
    }

    async fn take_answers(&self) -> Result<(), Failure> {
        while !(self.done.get() && self.in_flight.borrow().is_empty()) {
            let answer = self.link.receive(ANSWER_BYTES).await?;
            let response: ProduceResponse = answer.read().map_err(failures::exchange)?;
            let partition = response.responses.first().and_then(|topic| topic.partition_responses.first());
            let Some(partition) = partition else {
                return Err(failures::answer("it names no partition"));
            };
            if partition.error_code != 0 {
                return Err(Failure::of_code(
                    &format!("producing to partition {} of topic '{}'", partition.index, self.run.topic.name),
                    partition.error_code,
                    partition.error_message.as_deref(),
                ));
            }
            let request = self.in_flight.borrow_mut().pop_front();
            self.acknowledge(request.ok_or_else(|| failures::answer("nothing was asked"))?);
            self.room.notify_one();
        }
        Ok(())
    }

    fn acknowledge(&self, request: InFlight) {
        let InFlight { first, count, sent_ns, bytes, place } = request;
        let now = self.clock.now();
        self.acknowledged.borrow_mut()[place] += count;
        self.run.produced[place].fetch_add(count, Ordering::Relaxed);
        let mut recorder = self.recorder.borrow_mut();
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
