//! A producer to one topic, without I/O: records in, Produce requests out, answers in, until all is acknowledged.
//!
//! ```text
//!  push -> open batch of a partition -> (full, or lingered) closed -> on its way -> acknowledged
//!                                          ^  after a back-off        |
//!                                          +--- retriable, or lost ---+        refused: an error, and the end
//! ```
//! Invariants: of each partition one batch is on its way at a time, so order is kept whatever is retried; a batch keeps
//! its bytes and its sequence over retries, so that a broker recognises what it has already (with a producer id).

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::base::time::Monotonic;
use crate::client::cluster::{Topic, look_again};
use crate::protocol::ErrorCode;
use crate::protocol::message::{PartitionToSend, ProduceRequestToSend, ProduceResponse};
use crate::record::batch::{BatchError, BatchHeader, NO_PRODUCER_ID, NO_SEQUENCE, decode_records, increment_sequence};
use crate::record::compression::{Codec, Compression, compress_into};
use crate::record::down_convert::{DownConvertError, OldMagic, down_convert};
use crate::record::records::put_record;

/// A record with its headers may be this long: what a broker takes as a request by default, and some room.
pub const RECORD_BYTES_MAX: usize = 100 << 20;

/// What a batch of ours can become when it is taken apart again.
const BATCH_BYTES_MAX: usize = i32::MAX as usize;

/// Batches of one request together, unless one alone is longer.
const REQUEST_BYTES_MAX: usize = 16 << 20;

/// `retry.backoff.ms` and `retry.backoff.max.ms`.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_millis(1000);

/// The first version of Produce that carries batches; older ones have message sets.
const BATCHES_VERSION: i16 = 3;
/// The first version that knows zstd (KIP-110).
const ZSTD_VERSION: i16 = 7;

/// What Kafka's `murmur2` starts from.
const MURMUR_SEED: u32 = 0x9747_b28c;

/// How it is to produce.
#[derive(Clone, Debug)]
pub struct ProducerOptions {
    /// 0, 1, or -1 for all in sync.
    pub acks: i16,
    pub compression: Compression,
    /// `batch.size`: a batch is closed before its records pass this, uncompressed.
    pub batch_bytes: usize,
    /// `linger.ms`: a batch that is not full waits so long for more.
    pub linger: Duration,
    /// How long a broker may wait for the other replicas.
    pub timeout_ms: i32,
    /// `buffer.memory`: what may wait for its acknowledgement; see [`Producer::is_full`].
    pub buffer_bytes: usize,
    /// How often a batch is tried again.
    pub retries_max: u32,
}

/// A record to send.
#[derive(Clone, Copy, Debug, Default)]
pub struct ToRecord<'a> {
    /// `None`: by the key's hash, or without a key the partition whose turn it is.
    pub partition: Option<i32>,
    pub timestamp: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: &'a [(&'a [u8], Option<&'a [u8]>)],
}

/// Why it can't go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProduceError {
    #[error("a record of {0} bytes is longer than any broker takes")]
    TooLarge(usize),
    #[error("there is no partition {0}")]
    NoPartition(i32),
    #[error("partition {partition} refuses: code {code}")]
    Refused { partition: i32, code: i16, message: Option<String> },
    #[error("a batch can't be made smaller: {0}")]
    Unsplittable(String),
    #[error("zstd needs a broker of 2.1 or later")]
    NoZstd,
}

impl From<BatchError> for ProduceError {
    fn from(error: BatchError) -> ProduceError {
        ProduceError::Unsplittable(error.to_string())
    }
}

/// What has been acknowledged, or sent without asking for that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acknowledged {
    pub records: u64,
    /// Of keys, values and headers.
    pub bytes: u64,
    /// Of batches, as they were sent.
    pub sent_bytes: u64,
    pub retries: u64,
}

/// A batch that still takes records.
#[derive(Debug, Default)]
struct OpenBatch {
    body: Vec<u8>,
    record_count: i32,
    base_timestamp: i64,
    max_timestamp: i64,
    payload_bytes: u64,
    /// When it got its first record.
    since: Monotonic,
}

/// A batch as it is sent.
#[derive(Debug)]
struct ClosedBatch {
    bytes: Bytes,
    record_count: i32,
    base_sequence: i32,
    payload_bytes: u64,
}

/// What waits for one partition.
#[derive(Debug)]
struct Queue {
    partition: i32,
    leader: Option<i32>,
    open: OpenBatch,
    closed: VecDeque<ClosedBatch>,
    on_its_way: bool,
    next_sequence: i32,
    /// Failed tries of the batch at the front.
    tries: u32,
    /// Not before this; after a failure.
    retry_at: Monotonic,
}

/// Batches for one broker.
#[derive(Debug)]
pub struct ToSend {
    pub leader: i32,
    acks: i16,
    timeout_ms: i32,
    batches: Vec<(i32, Bytes)>,
}

/// See the head of this file.
pub struct Producer {
    options: ProducerOptions,
    producer_id: i64,
    producer_epoch: i16,
    /// Ascending by partition.
    queues: Vec<Queue>,
    /// Which queue has its turn for records without a key.
    sticky: usize,
    /// Requests without answer, oldest first: leader and partitions.
    requests: VecDeque<(i32, Vec<i32>)>,
    /// Leaders are not those that we know, and when to look for them.
    is_stale: bool,
    look_at: Monotonic,
    buffered_bytes: usize,
    acknowledged: Acknowledged,
    /// No more records come: nothing lingers.
    is_ending: bool,
    compressed: Vec<u8>,
}

impl Producer {
    /// To the partitions of `topic`; `turn` says which is the first for records without a key.
    pub fn new(options: ProducerOptions, topic: &Topic, turn: usize) -> Producer {
        let queue = |partition: &crate::client::cluster::Partition| Queue {
            partition: partition.index,
            leader: partition.leader,
            open: OpenBatch::default(),
            closed: VecDeque::new(),
            on_its_way: false,
            next_sequence: 0,
            tries: 0,
            retry_at: Monotonic::default(),
        };
        let queues: Vec<Queue> = topic.partitions.iter().map(queue).collect();
        Producer {
            options,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: -1,
            sticky: turn.checked_rem(queues.len()).unwrap_or(0),
            is_stale: queues.iter().any(|queue| queue.leader.is_none()),
            look_at: Monotonic::default(),
            queues,
            requests: VecDeque::new(),
            buffered_bytes: 0,
            acknowledged: Acknowledged::default(),
            is_ending: false,
            compressed: Vec::new(),
        }
    }

    /// Writes under this producer id (`enable.idempotence`); before the first record.
    pub fn set_producer_id(&mut self, id: i64, epoch: i16) {
        assert!(self.buffered_bytes == 0, "sequences begin with the first record");
        (self.producer_id, self.producer_epoch) = (id, epoch);
    }

    /// Takes a record.
    ///
    /// # Errors
    /// `TooLarge`, `NoPartition`: the record is not taken, all else goes on.
    pub fn push(&mut self, record: &ToRecord<'_>, now: Monotonic) -> Result<(), ProduceError> {
        let header_bytes: usize =
            record.headers.iter().map(|(key, value)| key.len() + value.map_or(0, <[u8]>::len)).sum();
        let payload_bytes = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len) + header_bytes;
        if payload_bytes > RECORD_BYTES_MAX {
            return Err(ProduceError::TooLarge(payload_bytes));
        }
        let index = self.queue_of(record)?;
        let is_over =
            |queue: &Queue, limit| queue.open.record_count > 0 && queue.open.body.len() + payload_bytes > limit;
        let index = match is_over(&self.queues[index], self.options.batch_bytes) {
            true => {
                self.close(index);
                self.queue_of(record)?
            }
            false => index,
        };
        let open = &mut self.queues[index].open;
        if open.record_count == 0 {
            (open.base_timestamp, open.max_timestamp, open.since) = (record.timestamp, record.timestamp, now);
        }
        open.max_timestamp = open.max_timestamp.max(record.timestamp);
        let (delta, before) = (record.timestamp.wrapping_sub(open.base_timestamp), open.body.len());
        put_record(&mut open.body, delta, open.record_count, record.key, record.value, record.headers);
        open.record_count += 1;
        open.payload_bytes += payload_bytes as u64;
        self.buffered_bytes += open.body.len() - before;
        if open.body.len() >= self.options.batch_bytes {
            self.close(index);
        }
        Ok(())
    }

    fn queue_of(&self, record: &ToRecord<'_>) -> Result<usize, ProduceError> {
        let queues = self.queues.len();
        let index = match (record.partition, record.key) {
            (Some(partition), _) => return self.index_of(partition).ok_or(ProduceError::NoPartition(partition)),
            (None, Some(key)) => (murmur2(key) & 0x7fff_ffff) as usize % queues.max(1),
            (None, None) => self.sticky,
        };
        if index < queues { Ok(index) } else { Err(ProduceError::NoPartition(0)) }
    }

    fn index_of(&self, partition: i32) -> Option<usize> {
        self.queues.binary_search_by_key(&partition, |queue| queue.partition).ok()
    }

    /// Closes the open batch of a queue; another partition has its turn then.
    fn close(&mut self, index: usize) {
        let queue = &mut self.queues[index];
        let open = std::mem::take(&mut queue.open);
        if open.record_count == 0 {
            return;
        }
        let compression = self.options.compression;
        let body = match compression.codec {
            Codec::None => &open.body,
            _ => {
                compress_into(compression, &open.body, &mut self.compressed);
                &self.compressed
            }
        };
        let base_sequence = if self.producer_id == NO_PRODUCER_ID { NO_SEQUENCE } else { queue.next_sequence };
        queue.next_sequence = increment_sequence(queue.next_sequence, open.record_count);
        let header = BatchHeader {
            base_timestamp: open.base_timestamp,
            max_timestamp: open.max_timestamp,
            producer_id: self.producer_id,
            producer_epoch: self.producer_epoch,
            base_sequence,
            record_count: open.record_count,
            ..BatchHeader::plain(0, open.record_count - 1, compression.codec, None)
        };
        let bytes = header.seal(body).freeze();
        self.buffered_bytes = self.buffered_bytes - open.body.len() + bytes.len();
        let (record_count, payload_bytes) = (open.record_count, open.payload_bytes);
        queue.closed.push_back(ClosedBatch { bytes, record_count, base_sequence, payload_bytes });
        if index == self.sticky {
            self.sticky = self.next_turn();
        }
        // The next batch is as long as this one, most likely.
        let mut body = open.body;
        body.clear();
        self.queues[index].open.body = body;
    }

    /// The next queue whose partition has a leader.
    fn next_turn(&self) -> usize {
        let count = self.queues.len();
        let after = (1..=count).map(|step| (self.sticky + step) % count);
        after.into_iter().find(|index| self.queues[*index].leader.is_some()).unwrap_or(self.sticky)
    }

    /// No record comes any more: what is there goes out at once.
    pub fn end(&mut self) {
        self.is_ending = true;
    }

    /// Whether all that was pushed is acknowledged.
    pub fn is_done(&self) -> bool {
        self.buffered_bytes == 0
    }

    /// Whether to wait for acknowledgements before more is pushed.
    pub fn is_full(&self) -> bool {
        self.buffered_bytes >= self.options.buffer_bytes
    }

    pub fn acknowledged(&self) -> Acknowledged {
        self.acknowledged
    }

    /// The next request to send; it counts as sent. With acks=0 that is all.
    pub fn next_request(&mut self, now: Monotonic) -> Option<ToSend> {
        for index in 0..self.queues.len() {
            let open = &self.queues[index].open;
            let lingered = self.is_ending || now >= open.since + self.options.linger;
            if open.record_count > 0 && self.queues[index].closed.is_empty() && lingered {
                self.close(index);
            }
        }
        let leader = self.queues.iter().find(|queue| queue.is_ready(now))?.leader?;
        let (mut batches, mut bytes) = (Vec::new(), 0);
        for queue in self.queues.iter_mut().filter(|queue| queue.leader == Some(leader) && queue.is_ready(now)) {
            let batch = queue.closed.front().expect("a ready queue has a batch");
            if bytes > 0 && bytes + batch.bytes.len() > REQUEST_BYTES_MAX {
                break;
            }
            bytes += batch.bytes.len();
            batches.push((queue.partition, batch.bytes.clone()));
            queue.on_its_way = true;
        }
        let partitions: Vec<i32> = batches.iter().map(|(partition, _)| *partition).collect();
        match self.options.acks {
            0 => partitions.iter().for_each(|partition| self.acknowledge(*partition)),
            _ => self.requests.push_back((leader, partitions)),
        }
        Some(ToSend { leader, acks: self.options.acks, timeout_ms: self.options.timeout_ms, batches })
    }

    /// When [`Producer::next_request`] may have something to give that it has not now.
    pub fn wake_at(&self) -> Option<Monotonic> {
        let of = |queue: &Queue| match (queue.on_its_way, queue.closed.is_empty(), queue.open.record_count) {
            (true, _, _) | (false, true, 0) => None,
            (false, false, _) => queue.leader.map(|_| queue.retry_at),
            (false, true, _) if self.is_ending => Some(queue.open.since),
            (false, true, _) => Some(queue.open.since + self.options.linger),
        };
        let look = self.is_stale.then_some(self.look_at);
        self.queues.iter().filter_map(of).chain(look).min()
    }

    /// Whether the cluster is to be looked at again.
    pub fn wants_look(&self, now: Monotonic) -> bool {
        self.is_stale && now >= self.look_at
    }

    /// Nobody could say who leads: later, perhaps.
    pub fn look_failed(&mut self, now: Monotonic) {
        self.look_at = now + BACKOFF_MIN;
    }

    /// Takes up who leads.
    ///
    /// # Errors
    /// `Refused` if a partition has had no leader too often.
    pub fn set_leaders(&mut self, topic: Option<&Topic>, now: Monotonic) -> Result<(), ProduceError> {
        self.is_stale = false;
        self.look_at = now + BACKOFF_MIN;
        for index in 0..self.queues.len() {
            let queue = &mut self.queues[index];
            let seen = topic.and_then(|topic| topic.partition(queue.partition)).and_then(|partition| partition.leader);
            if !queue.on_its_way {
                queue.leader = seen;
            }
            if seen.is_none() && !queue.on_its_way && !queue.is_empty() {
                self.try_again(index, ErrorCode::LeaderNotAvailable, None, now)?;
            }
        }
        Ok(())
    }

    /// Takes up the answer to the oldest request to `leader`.
    ///
    /// # Errors
    /// What can't be retried, or was too often.
    pub fn answered(&mut self, leader: i32, response: &ProduceResponse, now: Monotonic) -> Result<(), ProduceError> {
        let Some(place) = self.requests.iter().position(|(asked, _)| *asked == leader) else { return Ok(()) };
        let (_, partitions) = self.requests.remove(place).expect("just found");
        let answers = || response.responses.iter().flat_map(|topic| &topic.partition_responses);
        for partition in partitions {
            match answers().find(|answer| answer.index == partition) {
                Some(answer) => {
                    let record_error =
                        answer.record_errors.iter().find_map(|error| error.batch_index_error_message.clone());
                    let message = record_error.or_else(|| answer.error_message.clone());
                    self.partition_answered(partition, answer.error_code, message, now)?;
                }
                None => self.partition_answered(partition, ErrorCode::NetworkException.code(), None, now)?,
            }
        }
        Ok(())
    }

    fn partition_answered(
        &mut self,
        partition: i32,
        code: i16,
        message: Option<String>,
        now: Monotonic,
    ) -> Result<(), ProduceError> {
        let Some(index) = self.index_of(partition) else { return Ok(()) };
        let queue = &mut self.queues[index];
        queue.on_its_way = false;
        match ErrorCode::from_code(code) {
            Some(ErrorCode::None | ErrorCode::DuplicateSequenceNumber) => {
                self.acknowledge(partition);
                Ok(())
            }
            Some(ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge)
                if queue.closed.front().is_some_and(|batch| batch.record_count > 1) =>
            {
                self.split(index)
            }
            Some(error) if error.is_retriable() => self.try_again(index, error, message, now),
            _ => Err(ProduceError::Refused { partition, code, message }),
        }
    }

    /// The connection to `leader` is gone, and with it all that was on its way there.
    pub fn disconnected(&mut self, leader: i32, now: Monotonic) -> Result<(), ProduceError> {
        let (gone, left) = self.requests.drain(..).partition(|(asked, _)| *asked == leader);
        self.requests = left;
        let gone: VecDeque<(i32, Vec<i32>)> = gone;
        for partition in gone.into_iter().flat_map(|(_, partitions)| partitions) {
            self.partition_answered(partition, ErrorCode::NetworkException.code(), None, now)?;
        }
        self.is_stale = true;
        Ok(())
    }

    /// Once more later, unless it was too often already.
    fn try_again(
        &mut self,
        index: usize,
        error: ErrorCode,
        message: Option<String>,
        now: Monotonic,
    ) -> Result<(), ProduceError> {
        let queue = &mut self.queues[index];
        queue.tries += 1;
        if queue.tries > self.options.retries_max {
            return Err(ProduceError::Refused { partition: queue.partition, code: error.code(), message });
        }
        let doubled = BACKOFF_MIN.saturating_mul(1 << (queue.tries - 1).min(16));
        queue.retry_at = now + doubled.min(BACKOFF_MAX);
        self.acknowledged.retries += 1;
        self.is_stale |= look_again(error);
        Ok(())
    }

    fn acknowledge(&mut self, partition: i32) {
        let Some(index) = self.index_of(partition) else { return };
        let queue = &mut self.queues[index];
        (queue.on_its_way, queue.tries) = (false, 0);
        if let Some(batch) = queue.closed.pop_front() {
            self.buffered_bytes -= batch.bytes.len();
            self.acknowledged.records += batch.record_count as u64;
            self.acknowledged.bytes += batch.payload_bytes;
            self.acknowledged.sent_bytes += batch.bytes.len() as u64;
        }
    }

    /// Makes two batches of the front one, with the same sequences (Kafka 3.9 `ProducerBatch.split`).
    fn split(&mut self, index: usize) -> Result<(), ProduceError> {
        let Some(batch) = self.queues[index].closed.pop_front() else { return Ok(()) };
        self.buffered_bytes -= batch.bytes.len();
        let records = decode_records(&batch.bytes, BATCH_BYTES_MAX)?;
        let (first, second) = records.split_at(records.len() / 2);
        let mut sequence = batch.base_sequence;
        let mut halves = Vec::new();
        for half in [first, second] {
            let mut body = Vec::new();
            let (base_timestamp, mut max_timestamp, mut payload_bytes) = (half[0].timestamp, half[0].timestamp, 0);
            for (record, delta) in half.iter().zip(0..) {
                let headers: Vec<_> = record.headers.iter().map(|(key, value)| (&key[..], value.as_deref())).collect();
                let (key, value) = (record.key.as_deref(), record.value.as_deref());
                put_record(&mut body, record.timestamp.wrapping_sub(base_timestamp), delta, key, value, &headers);
                max_timestamp = max_timestamp.max(record.timestamp);
                let header_bytes: usize =
                    headers.iter().map(|(key, value)| key.len() + value.map_or(0, <[u8]>::len)).sum();
                payload_bytes += (key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len) + header_bytes) as u64;
            }
            let record_count = half.len() as i32;
            let header = BatchHeader {
                base_timestamp,
                max_timestamp,
                producer_id: self.producer_id,
                producer_epoch: self.producer_epoch,
                base_sequence: sequence,
                record_count,
                ..BatchHeader::plain(0, record_count - 1, self.options.compression.codec, None)
            };
            compress_into(self.options.compression, &body, &mut self.compressed);
            let bytes = header.seal(&self.compressed).freeze();
            self.buffered_bytes += bytes.len();
            halves.push(ClosedBatch { bytes, record_count, base_sequence: sequence, payload_bytes });
            if sequence != NO_SEQUENCE {
                sequence = increment_sequence(sequence, record_count);
            }
        }
        halves.into_iter().rev().for_each(|half| self.queues[index].closed.push_front(half));
        Ok(())
    }
}

impl Queue {
    fn is_ready(&self, now: Monotonic) -> bool {
        !self.on_its_way && self.leader.is_some() && !self.closed.is_empty() && now >= self.retry_at
    }

    fn is_empty(&self) -> bool {
        self.closed.is_empty() && self.open.record_count == 0
    }
}

impl ToSend {
    /// Makes message sets of magic 1 of the batches if this version of Produce has no other.
    ///
    /// # Errors
    /// `NoZstd`, `Unsplittable`: can't be said in this version.
    pub fn fit(&mut self, version: i16) -> Result<(), ProduceError> {
        const CODEC_MASK: u8 = 7;
        const CODEC_POSITION: usize = 22;
        let is_zstd = |batch: &Bytes| batch[CODEC_POSITION] & CODEC_MASK == Codec::Zstd as u8;
        if version < ZSTD_VERSION && self.batches.iter().any(|(_, batch)| is_zstd(batch)) {
            return Err(ProduceError::NoZstd);
        }
        if version < BATCHES_VERSION {
            for (_, batch) in &mut self.batches {
                *batch = down_convert(batch, OldMagic::V1, 0)
                    .map_err(|error: DownConvertError| ProduceError::Unsplittable(error.to_string()))?
                    .into();
            }
        }
        Ok(())
    }

    /// Shows the request to `send`.
    pub fn with_request<T>(&self, topic: &str, send: impl FnOnce(&ProduceRequestToSend<'_>) -> T) -> T {
        let partitions: Vec<PartitionToSend<'_>> =
            self.batches.iter().map(|(partition, batch)| (*partition, Some(&batch[..]))).collect();
        send(&ProduceRequestToSend {
            transactional_id: None,
            acks: self.acks,
            timeout_ms: self.timeout_ms,
            topics: &[(topic, &partitions)],
        })
    }
}

/// Kafka's hash of keys (Kafka 3.9 `Utils.murmur2`).
pub fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mix = |word: u32| {
        let word = word.wrapping_mul(M);
        (word ^ (word >> 24)).wrapping_mul(M)
    };
    let mut hash = MURMUR_SEED ^ data.len() as u32;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        hash = hash.wrapping_mul(M) ^ mix(u32::from_le_bytes(*word));
    }
    if !rest.is_empty() {
        let last = rest.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
        hash = (hash ^ last).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests;
