//! A consumer of partitions without a group, without I/O: positions in, Fetch requests out, answers in, records out.
//!
//! Each broker has one request at a time, for all partitions that it leads. An answer moves the positions by the batches'
//! headers alone, so the next request can leave before a record is decoded; [`Fetched::records`] does that.
//! Invariant: records come in order of their offsets, none twice, and none of a batch whose CRC is wrong.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::base::time::Monotonic;
use crate::client::cluster::{Cluster, look_again};
use crate::protocol::ErrorCode;
use crate::protocol::message::{
    AbortedTransaction, FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData,
};
use crate::record::batch::{
    BatchError, BatchHeader, LOG_OVERHEAD_BYTES, MAGIC_POSITION, MAGIC_V2, TimestampType, has_valid_crc, records_body,
    walk_records,
};
use crate::record::message_set::{MessageSetError, decode_legacy};

/// What a batch may become when decompressed.
const DECOMPRESSED_BYTES_MAX: usize = 1 << 30;

/// `max.partition.fetch.bytes` may grow to this where a broker sends no whole batch (before KIP-74).
const PARTITION_BYTES_MAX: i32 = 100 << 20;

/// Before a broker is asked again after an error.
const RETRY_WAIT: Duration = Duration::from_millis(50);

/// How it is to consume.
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// `isolation.level`: nothing of transactions that are open or were aborted.
    pub read_committed: bool,
    /// `fetch.max.wait.ms`
    pub wait_ms: i32,
    /// `fetch.max.bytes`
    pub fetch_bytes: i32,
    /// `max.partition.fetch.bytes`
    pub partition_bytes: i32,
    /// Errors of one partition in a row before they are the end.
    pub retries_max: u32,
}

/// Why it can't go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConsumeError {
    /// The position is before the first record or past the last: it must be chosen anew.
    #[error("offset {offset} of {topic}-{partition} is out of range")]
    OutOfRange { topic: Arc<str>, partition: i32, offset: i64 },
    #[error("{topic}-{partition} can't be read: code {code}")]
    Refused { topic: Arc<str>, partition: i32, code: i16 },
    #[error("the batch at offset {offset} of {topic}-{partition} is damaged: {reason}")]
    Damaged { topic: Arc<str>, partition: i32, offset: i64, reason: String },
    #[error("the batch at offset {offset} of {topic}-{partition} is larger than a fetch can be")]
    TooLarge { topic: Arc<str>, partition: i32, offset: i64 },
}

/// One partition and how far it is read.
#[derive(Debug)]
struct Position {
    topic: Arc<str>,
    partition: i32,
    /// The next offset to read.
    next: i64,
    /// Where to end, exclusive.
    end: Option<i64>,
    leader: Option<i32>,
    leader_epoch: i32,
    partition_bytes: i32,
    tries: u32,
    retry_at: Monotonic,
}

impl Position {
    fn is_done(&self) -> bool {
        self.end.is_some_and(|end| self.next >= end)
    }

    fn damaged(&self, offset: i64, reason: &str) -> ConsumeError {
        ConsumeError::Damaged {
            topic: self.topic.clone(),
            partition: self.partition,
            offset,
            reason: reason.to_owned(),
        }
    }
}

/// One record, where it lies.
#[derive(Clone, Copy, Debug)]
pub struct RecordRef<'a> {
    pub offset: i64,
    pub timestamp: i64,
    pub timestamp_type: TimestampType,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: Headers<'a>,
}

/// A record's headers.
#[derive(Clone, Copy, Debug)]
pub enum Headers<'a> {
    None,
    Of(&'a crate::record::records::RecordView<'a>),
}

impl<'a> Headers<'a> {
    pub fn iter(self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
        let view = match self {
            Headers::None => None,
            Headers::Of(view) => Some(view.headers()),
        };
        view.into_iter().flatten()
    }
}

/// What one answer has for one partition.
#[derive(Debug)]
pub struct Fetched {
    pub topic: Arc<str>,
    pub partition: i32,
    /// Whole batches, and of the last one maybe a part.
    records: Bytes,
    /// Records before this were asked for by nobody; from `end` on neither.
    start: i64,
    end: Option<i64>,
    /// By producer id, the first offsets of its aborted transactions, ascending. `None`: all records are wanted.
    aborted: Option<Vec<AbortedTransaction>>,
}

/// See the head of this file.
pub struct Consumer {
    options: ConsumerOptions,
    positions: Vec<Position>,
    /// Brokers that owe an answer.
    asked: BTreeSet<i32>,
    is_stale: bool,
    look_at: Monotonic,
}

impl Consumer {
    pub fn new(options: ConsumerOptions) -> Consumer {
        Consumer {
            options,
            positions: Vec::new(),
            asked: BTreeSet::new(),
            is_stale: false,
            look_at: Monotonic::default(),
        }
    }

    /// Reads this partition too, from `offset` up to before `end`, or for ever.
    pub fn assign(&mut self, topic: Arc<str>, partition: i32, offset: i64, end: Option<i64>) {
        self.positions.push(Position {
            topic,
            partition,
            next: offset,
            end,
            leader: None,
            leader_epoch: -1,
            partition_bytes: self.options.partition_bytes,
            tries: 0,
            retry_at: Monotonic::default(),
        });
        self.is_stale = true;
    }

    /// Goes on elsewhere, after [`ConsumeError::OutOfRange`].
    pub fn seek(&mut self, topic: &str, partition: i32, offset: i64) {
        let place = |position: &&mut Position| &*position.topic == topic && position.partition == partition;
        if let Some(position) = self.positions.iter_mut().find(place) {
            position.next = offset;
        }
    }

    /// Whether every partition has come to its end.
    pub fn is_done(&self) -> bool {
        self.positions.iter().all(Position::is_done)
    }

    /// Topics of which something is still to be read.
    pub fn topics(&self) -> Vec<String> {
        let open = self.positions.iter().filter(|position| !position.is_done());
        open.map(|position| position.topic.to_string()).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Whether the cluster is to be looked at again.
    pub fn wants_look(&self, now: Monotonic) -> bool {
        self.is_stale && now >= self.look_at
    }

    /// Nobody could say who leads: later, perhaps.
    pub fn look_failed(&mut self, now: Monotonic) {
        self.look_at = now + RETRY_WAIT;
    }

    /// Takes up who leads.
    ///
    /// # Errors
    /// `Refused` once a partition has had no leader too often.
    pub fn set_leaders(&mut self, cluster: &Cluster, now: Monotonic) -> Result<(), ConsumeError> {
        (self.is_stale, self.look_at) = (false, now + RETRY_WAIT);
        for index in 0..self.positions.len() {
            let position = &mut self.positions[index];
            let seen = cluster.topics.get(&*position.topic).and_then(|topic| topic.partition(position.partition));
            position.leader = seen.and_then(|partition| partition.leader);
            position.leader_epoch = seen.map_or(-1, |partition| partition.leader_epoch);
            if position.leader.is_none() && !position.is_done() {
                self.failed(index, ErrorCode::LeaderNotAvailable.code(), now)?;
                self.is_stale = true;
            }
        }
        Ok(())
    }

    /// The next request, and the broker to ask; it counts as sent.
    pub fn next_request(&mut self, now: Monotonic) -> Option<(i32, FetchRequest)> {
        let is_ready = |position: &&Position| !position.is_done() && now >= position.retry_at;
        let mut ready = self.positions.iter().filter(is_ready);
        let leader = ready.find_map(|position| position.leader.filter(|leader| !self.asked.contains(leader)))?;
        let mut topics: BTreeMap<Arc<str>, Vec<FetchPartition>> = BTreeMap::new();
        for position in self.positions.iter().filter(is_ready).filter(|position| position.leader == Some(leader)) {
            topics.entry(position.topic.clone()).or_default().push(FetchPartition {
                partition: position.partition,
                current_leader_epoch: position.leader_epoch,
                fetch_offset: position.next,
                partition_max_bytes: position.partition_bytes,
                ..FetchPartition::default()
            });
        }
        self.asked.insert(leader);
        let topic = |(topic, partitions)| FetchTopic { topic, partitions, ..FetchTopic::default() };
        let request = FetchRequest {
            max_wait_ms: self.options.wait_ms,
            min_bytes: 1,
            max_bytes: self.options.fetch_bytes,
            isolation_level: i8::from(self.options.read_committed),
            topics: topics.into_iter().map(topic).collect(),
            ..FetchRequest::default()
        };
        Some((leader, request))
    }

    /// When [`Consumer::next_request`] may have something to give that it has not now, or a look is due.
    pub fn wake_at(&self) -> Option<Monotonic> {
        let waits = |position: &&Position| {
            !position.is_done() && position.leader.is_some_and(|leader| !self.asked.contains(&leader))
        };
        let retries = self.positions.iter().filter(waits).map(|position| position.retry_at);
        retries.chain(self.is_stale.then_some(self.look_at)).min()
    }

    /// Takes up an answer of `leader`: `frame` is what its spans of records count from. Moves the positions and gives
    /// what there is to read, by partition, and what went wrong.
    pub fn answered(
        &mut self,
        leader: i32,
        response: &FetchResponse,
        frame: &Bytes,
        now: Monotonic,
    ) -> (Vec<Fetched>, Vec<ConsumeError>) {
        self.asked.remove(&leader);
        let (mut fetched, mut errors) = (Vec::new(), Vec::new());
        if response.error_code != 0 {
            let of_leader = |index: &usize| self.positions[*index].leader == Some(leader);
            let led: Vec<usize> = (0..self.positions.len()).filter(of_leader).collect();
            errors.extend(led.into_iter().filter_map(|index| self.failed(index, response.error_code, now).err()));
            return (fetched, errors);
        }
        for topic in &response.responses {
            for data in &topic.partitions {
                let place =
                    |position: &Position| position.topic == topic.topic && position.partition == data.partition_index;
                let Some(index) = self.positions.iter().position(place) else { continue };
                match self.partition_answered(index, data, frame, now) {
                    Ok(some) => fetched.extend(some),
                    Err(error) => errors.push(error),
                }
            }
        }
        (fetched, errors)
    }

    fn partition_answered(
        &mut self,
        index: usize,
        data: &PartitionData,
        frame: &Bytes,
        now: Monotonic,
    ) -> Result<Option<Fetched>, ConsumeError> {
        let position = &mut self.positions[index];
        match ErrorCode::from_code(data.error_code) {
            Some(ErrorCode::None) => position.tries = 0,
            Some(ErrorCode::OffsetOutOfRange) => {
                let (topic, partition) = (position.topic.clone(), position.partition);
                return Err(ConsumeError::OutOfRange { topic, partition, offset: position.next });
            }
            _ => return self.failed(index, data.error_code, now).map(|()| None),
        }
        let Some(records) = data.records.map(|span| frame.slice(span.range())).filter(|records| !records.is_empty())
        else {
            return Ok(None);
        };
        let start = position.next;
        match next_offset(&records) {
            Ok(Some(next)) => position.next = next.max(start),
            Ok(None) if position.partition_bytes >= PARTITION_BYTES_MAX => {
                let (topic, partition) = (position.topic.clone(), position.partition);
                return Err(ConsumeError::TooLarge { topic, partition, offset: start });
            }
            Ok(None) => {
                position.partition_bytes = position.partition_bytes.saturating_mul(2).min(PARTITION_BYTES_MAX);
                return Ok(None);
            }
            Err(reason) => return Err(position.damaged(start, &reason)),
        }
        let aborted = self.options.read_committed.then(|| {
            let mut aborted = data.aborted_transactions.clone().unwrap_or_default();
            aborted.sort_by_key(|transaction| transaction.first_offset);
            aborted
        });
        let (topic, partition, end) = (position.topic.clone(), position.partition, position.end);
        Ok(Some(Fetched { topic, partition, records, start, end, aborted }))
    }

    /// The connection to this broker is gone, or there is none.
    pub fn disconnected(&mut self, leader: i32, now: Monotonic) -> Result<(), ConsumeError> {
        self.asked.remove(&leader);
        self.is_stale = true;
        for index in 0..self.positions.len() {
            if self.positions[index].leader == Some(leader) && !self.positions[index].is_done() {
                self.failed(index, ErrorCode::NetworkException.code(), now)?;
            }
        }
        Ok(())
    }

    fn failed(&mut self, index: usize, code: i16, now: Monotonic) -> Result<(), ConsumeError> {
        let position = &mut self.positions[index];
        let error = ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError);
        position.tries += 1;
        if !(error.is_retriable() || look_again(error)) || position.tries > self.options.retries_max {
            let (topic, partition) = (position.topic.clone(), position.partition);
            return Err(ConsumeError::Refused { topic, partition, code });
        }
        position.retry_at = now + RETRY_WAIT.saturating_mul(position.tries);
        self.is_stale |= look_again(error);
        Ok(())
    }
}

/// A batch, or a message, at the front: its magic, the offset after it, and its bytes. `None`: cut short.
fn take_entry<'a>(bytes: &mut &'a [u8]) -> Result<Option<(i8, i64, &'a [u8])>, String> {
    let field = |position: usize| bytes.get(position..)?.first_chunk::<4>().map(|bytes| i32::from_be_bytes(*bytes));
    let Some(offset) = bytes.first_chunk::<8>().map(|bytes| i64::from_be_bytes(*bytes)) else { return Ok(None) };
    let (Some(length), Some(magic)) = (field(8), bytes.get(MAGIC_POSITION)) else { return Ok(None) };
    let length = usize::try_from(length).map_err(|_| format!("its length is {length}"))?;
    let Some((entry, rest)) = bytes.split_at_checked(LOG_OVERHEAD_BYTES + length) else { return Ok(None) };
    let next = match *magic as i8 {
        MAGIC_V2 => BatchHeader::parse(entry).map_err(|error| error.to_string())?.last_offset().wrapping_add(1),
        0 | 1 => offset.wrapping_add(1),
        magic => return Err(format!("its magic is {magic}")),
    };
    *bytes = rest;
    Ok(Some((*magic as i8, next, entry)))
}

/// The offset behind the last whole batch; `None` if there is none.
fn next_offset(mut records: &[u8]) -> Result<Option<i64>, String> {
    let mut last = None;
    while let Some((_, next, _)) = take_entry(&mut records)? {
        last = Some(next);
    }
    Ok(last)
}

/// Why a walk over records ended.
enum Ended<E> {
    Damaged(String),
    Visitor(E),
}

impl<E> From<BatchError> for Ended<E> {
    fn from(error: BatchError) -> Ended<E> {
        Ended::Damaged(error.to_string())
    }
}

impl<E> From<MessageSetError> for Ended<E> {
    fn from(error: MessageSetError) -> Ended<E> {
        Ended::Damaged(error.to_string())
    }
}

impl Fetched {
    /// Shows every record that was asked for and is to be seen to `visit`, whose error ends it.
    ///
    /// # Errors
    /// The inner one is the visitor's, the outer `Damaged`: records before the damage were shown.
    pub fn records<E>(
        &self,
        mut visit: impl FnMut(&RecordRef<'_>) -> Result<(), E>,
    ) -> Result<Result<(), E>, ConsumeError> {
        let (mut rest, mut aborting) = (&self.records[..], Aborting::new(self.aborted.as_deref()));
        loop {
            let place = rest.first_chunk::<8>().map_or(self.start, |bytes| i64::from_be_bytes(*bytes));
            let shown = match take_entry(&mut rest) {
                Ok(None) => return Ok(Ok(())),
                Ok(Some((MAGIC_V2, _, batch))) => self.batch(batch, &mut aborting, &mut visit),
                Ok(Some((_, _, message))) => self.message(message, &mut visit),
                Err(reason) => Err(Ended::Damaged(reason)),
            };
            match shown {
                Ok(()) => {}
                Err(Ended::Visitor(error)) => return Ok(Err(error)),
                Err(Ended::Damaged(reason)) => {
                    let (topic, partition) = (self.topic.clone(), self.partition);
                    return Err(ConsumeError::Damaged { topic, partition, offset: place, reason });
                }
            }
        }
    }

    fn is_wanted(&self, offset: i64) -> bool {
        offset >= self.start && self.end.is_none_or(|end| offset < end)
    }

    fn batch<E>(
        &self,
        batch: &[u8],
        aborting: &mut Aborting<'_>,
        visit: &mut impl FnMut(&RecordRef<'_>) -> Result<(), E>,
    ) -> Result<(), Ended<E>> {
        if !has_valid_crc(batch) {
            return Err(Ended::Damaged("its CRC is wrong".to_owned()));
        }
        let header = BatchHeader::parse(batch)?;
        if header.is_control() {
            let body = records_body(&header, batch, DECOMPRESSED_BYTES_MAX)?;
            return walk_records(&header, &body, |record| {
                aborting.marker(&header, record.key);
                Ok(())
            });
        }
        if aborting.hides(&header) || header.last_offset() < self.start {
            return Ok(());
        }
        let body = records_body(&header, batch, DECOMPRESSED_BYTES_MAX)?;
        walk_records(&header, &body, |record| {
            let offset = header.base_offset.wrapping_add(i64::from(record.offset_delta));
            if !self.is_wanted(offset) {
                return Ok(());
            }
            visit(&RecordRef {
                offset,
                timestamp: header.record_timestamp(record.timestamp_delta),
                timestamp_type: header.timestamp_type(),
                key: record.key,
                value: record.value,
                headers: if record.header_count == 0 { Headers::None } else { Headers::Of(&record) },
            })
            .map_err(Ended::Visitor)
        })
    }

    fn message<E>(
        &self,
        message: &[u8],
        visit: &mut impl FnMut(&RecordRef<'_>) -> Result<(), E>,
    ) -> Result<(), Ended<E>> {
        let decoded = decode_legacy(message, DECOMPRESSED_BYTES_MAX)?;
        for record in decoded.records.iter().filter(|record| self.is_wanted(record.offset)) {
            visit(&RecordRef {
                offset: record.offset,
                timestamp: record.timestamp,
                timestamp_type: decoded.timestamp_type,
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: Headers::None,
            })
            .map_err(Ended::Visitor)?;
        }
        Ok(())
    }
}

/// Which producers' transactions are aborted at the place that is read (Kafka 3.9 `CompletedFetch`).
struct Aborting<'a> {
    /// Not begun yet; `None`: aborted records are wanted too.
    to_come: Option<&'a [AbortedTransaction]>,
    producers: BTreeSet<i64>,
}

impl<'a> Aborting<'a> {
    fn new(transactions: Option<&'a [AbortedTransaction]>) -> Aborting<'a> {
        Aborting { to_come: transactions, producers: BTreeSet::new() }
    }

    /// Whether this batch belongs to an aborted transaction.
    fn hides(&mut self, header: &BatchHeader) -> bool {
        while let Some([first, rest @ ..]) = self.to_come
            && first.first_offset <= header.last_offset()
        {
            self.producers.insert(first.producer_id);
            self.to_come = Some(rest);
        }
        header.is_transactional() && self.producers.contains(&header.producer_id)
    }

    /// Takes up the marker at a transaction's end.
    fn marker(&mut self, header: &BatchHeader, key: Option<&[u8]>) {
        /// Version, then type: 0 is abort.
        const ABORT: [u8; 2] = [0, 0];
        if key.and_then(|key| key.get(2..4)) == Some(&ABORT) {
            // One that began in this answer too, without a record of its own before the marker.
            self.hides(header);
            self.producers.remove(&header.producer_id);
        }
    }
}

#[cfg(test)]
mod tests;
