//! One consuming client: a connection that fetches its partitions, one request after the other.

#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::Ordering;

use super::check::Checker;
use super::driver::{Alarm, Exchanged};
use super::failures;
use super::measure::{Side, Traffic};
use super::pace::Share;
use super::payload::Stamp;
use super::produce::WAIT_NS_MAX;
use super::settings::{From, Mode};
use super::shared::{Seat, nanoseconds};
use super::throttle::Throttle;
use crate::client::Answer;
use crate::failure::Failure;
use crate::protocol::message::{FetchPartition, FetchRequest, FetchResponse, FetchTopic};
use crate::record::batch::{BatchError, BatchHeader, batches, records_body, walk_records};

/// From version 4 on batches are of the current format; up to 12 topics have names.
const VERSIONS: std::ops::RangeInclusive<i16> = 4..=12;
/// The first version whose answer comes before the pause that it asks for.
const THROTTLE_VERSION: i16 = 8;
/// What an answer has beside its records, and what a first batch may have beyond what was asked for.
const ANSWER_SLACK_BYTES: usize = 1 << 20;
/// Kafka's bound of a batch is the broker's to choose: an answer may hold one that is larger than what was asked for.
pub const ANSWER_BYTES_MAX: usize = 1 << 30;
/// Of one batch, decompressed.
const BATCH_BYTES_MAX: usize = 256 << 20;

/// How far one partition is read.
#[derive(Clone, Copy, Debug)]
struct Position {
    place: usize,
    partition: i32,
    next: i64,
    /// Where the log begins and ended when the run began.
    start: i64,
    end: i64,
    /// Records of this run that have come.
    received: u64,
}

pub struct Consumer {
    seat: Seat,
    share: Option<Share>,
    positions: RefCell<Vec<Position>>,
    checker: RefCell<Option<Checker>>,
    throttle: Throttle,
    asked_ns: Cell<Option<u64>>,
    /// Records, those of the warm-up among them.
    consumed: Cell<u64>,
}

impl Consumer {
    pub fn new(seat: Seat) -> Consumer {
        let Seat { run, client, .. } = &seat;
        let settings = &run.settings;
        // End to end the producers keep the pace.
        let rate = settings.rate.filter(|_| settings.mode == Mode::Consume);
        let share = rate.map(|per_second| Share { per_second, clients: settings.clients, client: *client });
        let from_end = settings.mode == Mode::EndToEnd || settings.fetch.from == From::End;
        let position = |&place: &usize| {
            let partition = run.topic.partitions[place];
            let (start, end) = (partition.start_offset, partition.end_offset);
            Position {
                place,
                partition: partition.index,
                next: if from_end { end } else { start },
                start,
                end,
                received: 0,
            }
        };
        let positions = seat.places.iter().map(position).collect();
        let from_first = (settings.mode == Mode::EndToEnd).then_some(run.id);
        let checker = settings.check.then(|| Checker::new(from_first));
        Consumer {
            share,
            positions: RefCell::new(positions),
            checker: RefCell::new(checker),
            throttle: Throttle::new(THROTTLE_VERSION),
            asked_ns: Cell::new(None),
            consumed: Cell::new(0),
            seat,
        }
    }

    /// Takes what was found wrong.
    pub fn take_checker(&self) -> Option<Checker> {
        self.checker.borrow_mut().take()
    }

    pub fn exchanged(&self) -> Exchanged {
        self.seat.link.exchanged()
    }

    /// Numbers of its partitions.
    pub fn partitions(&self) -> Vec<i32> {
        self.positions.borrow().iter().map(|position| position.partition).collect()
    }

    /// As for producers.
    pub fn look_for_silence(&self, now: u64, stopped_ns: Option<u64>) -> Result<(), Failure> {
        let settings = &self.seat.run.settings;
        let silent = settings.connect.timeout + settings.fetch.max_wait;
        if stopped_ns.is_some_and(|stopped| now > stopped + WAIT_NS_MAX) {
            self.seat.link.close();
        } else if self.asked_ns.get().is_some_and(|asked| now.saturating_sub(asked) > nanoseconds(silent)) {
            return Err(failures::silent(self.seat.link.address(), silent));
        }
        Ok(())
    }

    /// Consumes until the run's end.
    pub async fn consume(self: Rc<Self>) -> Result<(), Failure> {
        let mut alarm = Alarm::new()?;
        let mut last_progress_ns = self.seat.clock.now();
        loop {
            let now = self.seat.clock.now();
            if self.seat.run.is_stopping() || self.is_over(now, last_progress_ns) {
                return Ok(());
            }
            if let Some(until) = self.throttle.until(now) {
                alarm.until(self.seat.clock.at(until.min(now + WAIT_NS_MAX))).await?;
                // The broker has said that it lives.
                last_progress_ns = now;
                continue;
            }
            let due = self.share.map_or(now, |share| share.due(self.consumed.get()));
            if due > now {
                alarm.until(self.seat.clock.at(due.min(now + WAIT_NS_MAX).min(self.seat.run.end_ns()))).await?;
                continue;
            }
            let before = self.consumed.get();
            match self.fetch(due).await {
                // Closed on purpose.
                Err(_) if self.seat.run.is_stopping() => return Ok(()),
                fetched => fetched?,
            }
            if self.consumed.get() > before {
                last_progress_ns = self.seat.clock.now();
            }
        }
    }

    fn is_over(&self, now: u64, last_progress_ns: u64) -> bool {
        let settings = &self.seat.run.settings;
        let positions = self.positions.borrow();
        if settings.mode == Mode::EndToEnd {
            // What was acknowledged comes, or is lost.
            let produced = |position: &Position| self.seat.run.produced[position.place].load(Ordering::Relaxed);
            let ended = self.seat.run.producers_left.load(Ordering::Acquire) == 0;
            let silent = now.saturating_sub(last_progress_ns) > nanoseconds(settings.connect.timeout);
            return ended && (silent || positions.iter().all(|position| position.received >= produced(position)));
        }
        let enough = settings.records.is_some_and(|records| self.seat.run.consumed.load(Ordering::Relaxed) >= records);
        let fetch = &settings.fetch;
        let follows = fetch.from == From::End || fetch.repeat || fetch.idle.is_some() || settings.duration.is_some();
        let idle = fetch.idle.is_some_and(|idle| now.saturating_sub(last_progress_ns) > nanoseconds(idle));
        let read = !follows && positions.iter().all(|position| position.next >= position.end);
        now >= self.seat.run.end_ns() || enough || read || idle
    }

    async fn fetch(&self, due: u64) -> Result<(), Failure> {
        let fetch = &self.seat.run.settings.fetch;
        let frame = {
            let mut positions = self.positions.borrow_mut();
            if fetch.repeat && positions.iter().all(|position| position.next >= position.end) {
                positions.iter_mut().for_each(|position| position.next = position.start);
                if let Some(checker) = self.checker.borrow_mut().as_mut() {
                    positions.iter().for_each(|position| checker.rewind(position.partition));
                }
            }
            let partition_max_bytes = i32::try_from(fetch.partition_max_bytes).unwrap_or(i32::MAX);
            let asked = positions.iter().map(|position| FetchPartition {
                partition: position.partition,
                fetch_offset: position.next,
                partition_max_bytes,
                ..Default::default()
            });
            let topic = FetchTopic {
                topic: self.seat.run.topic.name.as_str().into(),
                partitions: asked.collect(),
                ..Default::default()
            };
            let request = FetchRequest {
                max_wait_ms: i32::try_from(fetch.max_wait.as_millis()).unwrap_or(i32::MAX),
                min_bytes: fetch.min_bytes,
                max_bytes: i32::try_from(fetch.max_bytes).unwrap_or(i32::MAX),
                topics: vec![topic],
                ..Default::default()
            };
            self.seat.link.frame(&request, VERSIONS)?.0
        };
        let sent_ns = self.seat.clock.now();
        self.asked_ns.set(Some(sent_ns));
        self.seat.link.send(frame).await?;
        let answer = self.seat.link.receive(fetch.max_bytes + ANSWER_SLACK_BYTES).await?;
        self.asked_ns.set(None);
        self.take(&answer, due, sent_ns)
    }

    fn take(&self, answer: &Answer, due: u64, sent_ns: u64) -> Result<(), Failure> {
        let response: FetchResponse = answer.read().map_err(failures::exchange)?;
        let fetch = &self.seat.run.settings.fetch;
        let what = || format!("fetching from topic '{}'", self.seat.run.topic.name);
        if response.error_code != 0 {
            return Err(Failure::of_code(&what(), response.error_code, None));
        }
        let now = self.seat.clock.now();
        let answer_ns = now.saturating_sub(sent_ns);
        let mut traffic = Traffic { answer_ns, answer_ns_max: answer_ns, ..Traffic::default() };
        let held_ns = self.throttle.answered(answer.version, response.throttle_time_ms, now);
        traffic.throttled(response.throttle_time_ms, held_ns);
        let (mut bytes, mut records) = (0, 0);
        for partition in response.responses.iter().flat_map(|topic| &topic.partitions) {
            if partition.error_code != 0 {
                let what = format!("{}, partition {}", what(), partition.partition_index);
                return Err(Failure::of_code(&what, partition.error_code, None));
            }
            let data = partition.records.and_then(|span| answer.frame.get(span.range())).unwrap_or_default();
            let mut positions = self.positions.borrow_mut();
            let position = positions.iter_mut().find(|position| position.partition == partition.partition_index);
            let position = position.ok_or_else(|| failures::answer("a partition that nobody asked for"))?;
            for batch in batches(data) {
                let (header, batch) = match batch {
                    Ok(taken) => taken,
                    // The last one may be cut at the size that was asked for.
                    Err(BatchError::Truncated) => break,
                    Err(BatchError::Magic(_)) => {
                        let message = "it has message sets of a format before Kafka 0.11, which are not read here";
                        return Err(failures::answer(message));
                    }
                    Err(error) => return Err(failures::answer(&error.to_string())),
                };
                if header.last_offset() < position.next {
                    continue;
                }
                let left = fetch.records_max.saturating_sub(self.seat.run.consumed.load(Ordering::Relaxed) + records);
                records += self.take_batch(position, &header, batch, now, left, &mut traffic)?;
                bytes += batch.len() as u64;
                position.next = header.last_offset().saturating_add(1);
            }
        }
        traffic.bytes_max = traffic.record_bytes;
        self.count(due, now, bytes, records, &traffic);
        Ok(())
    }

    fn count(&self, due: u64, now: u64, bytes: u64, records: u64, traffic: &Traffic) {
        let mut recorder = self.seat.recorder.borrow_mut();
        recorder.request(Side::Consumed, due, now, bytes);
        recorder.traffic(Side::Consumed, due, traffic);
        self.consumed.set(self.consumed.get() + records);
        if self.seat.run.settings.mode == Mode::EndToEnd {
            return;
        }
        recorder.count(Side::Consumed, due, records);
        if records > 0 {
            recorder.latency(Side::Consumed, due, now);
        }
        if due >= self.seat.run.warm_up_ns() {
            self.seat.run.consumed.fetch_add(records, Ordering::Relaxed);
        }
    }

    /// Looks into a batch as far as the run asks for; how many of its records are new, `left` of them at most. Their bytes
    /// are counted if the run asks for that.
    fn take_batch(
        &self,
        position: &mut Position,
        header: &BatchHeader,
        batch: &[u8],
        now: u64,
        left: u64,
        traffic: &mut Traffic,
    ) -> Result<u64, Failure> {
        if header.is_control() {
            return Ok(0);
        }
        let mut checker = self.checker.borrow_mut();
        if let Some(checker) = checker.as_mut()
            && !checker.batch(position.partition, header, batch)
        {
            return Ok(0);
        }
        let end_to_end = self.seat.run.settings.mode == Mode::EndToEnd;
        if !end_to_end && checker.is_none() && !self.seat.run.settings.fetch.count_values {
            let asked = header.last_offset().saturating_sub(position.next).saturating_add(1);
            return Ok(u64::try_from(asked.min(i64::from(header.record_count))).unwrap_or(0));
        }
        let (mut count, mut body_bytes) = (0, 0);
        let mut recorder = self.seat.recorder.borrow_mut();
        let check = checker.is_some();
        let walked = records_body(header, batch, BATCH_BYTES_MAX).and_then(|body| {
            body_bytes = body.len() as u64;
            walk_records::<BatchError>(header, &body, |record| {
                let offset = header.base_offset.saturating_add(i64::from(record.offset_delta));
                if offset < position.next || count >= left {
                    return Ok(());
                }
                count += 1;
                traffic.value_bytes +=
                    (record.key.unwrap_or_default().len() + record.value.unwrap_or_default().len()) as u64;
                let stamp = Stamp::read(record.value.unwrap_or_default(), check);
                if let Ok(stamp) = stamp
                    && end_to_end
                    && stamp.run == self.seat.run.id
                {
                    position.received += 1;
                    let due = stamp.due_ns.saturating_sub(self.seat.clock.start_wall_ns);
                    recorder.records(Side::Consumed, due, now, 1);
                }
                if let Some(checker) = checker.as_mut() {
                    checker.record(position.partition, offset, stamp);
                }
                Ok(())
            })
        });
        // Of a batch that is read from its middle on, its records' mean stands for theirs.
        traffic.record_bytes += body_bytes * count / u64::try_from(header.record_count).unwrap_or(0).max(1);
        match (walked, checker.as_mut()) {
            (Ok(()), _) => Ok(count),
            (Err(error), Some(checker)) => {
                checker.unreadable(position.partition, header.base_offset, &error.to_string());
                Ok(count)
            }
            (Err(error), None) => Err(failures::answer(&error.to_string())),
        }
    }
}
