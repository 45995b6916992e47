//! Records of one or several batches, written anew as one batch in another codec.
//!
//! What comes out is what Kafka's own class would write for the same records (Kafka 3.9 `MemoryRecordsBuilder`): offset
//! deltas from 0 without holes, the first record's timestamp as base, the largest as max, every number in its shortest
//! form, unused attributes and a delete horizon gone. Producer id, epoch, sequence and the transactional bit stay.
//! Compressing costs far more than anything else that is done to a batch: this is for work threads.

#![forbid(unsafe_code)]

use std::cell::RefCell;

use bytes::BytesMut;

use crate::record::batch::{BATCH_HEADER_BYTES, BatchError, BatchHeader, NO_TIMESTAMP, records_body, walk_records};
use crate::record::compression::{Codec, Compression, compress_into};
use crate::record::records::put_view;

/// What a thread keeps of each of its buffers between batches.
const KEPT_BYTES_MAX: usize = 4 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum RepackError {
    #[error("{0}")]
    Batch(#[from] BatchError),
    /// Before 1970; Kafka's classes do not write it either.
    #[error("record {index} has the negative timestamp {timestamp}")]
    Timestamp { index: i32, timestamp: i64 },
    #[error("the batch would be longer than {0} bytes")]
    TooLarge(usize),
}

#[derive(Default)]
struct Scratch {
    records: Vec<u8>,
    packed: Vec<u8>,
}

/// One batch in `target` of all records of `sources`, each a batch's header and its uncompressed records; the first
/// one's producer and transactional bit stand for all. CreateTime, base offset 0, no leader epoch.
///
/// # Errors
/// `TooLarge` if it would have more than `batch_bytes_max`, header included.
pub fn repack(
    sources: &[(BatchHeader, &[u8])],
    target: Compression,
    batch_bytes_max: usize,
) -> Result<BytesMut, RepackError> {
    thread_local! {
        static SCRATCH: RefCell<Scratch> = RefCell::default();
    }
    SCRATCH.with_borrow_mut(|Scratch { records, packed }| {
        records.clear();
        let batch = write_records(sources, target.codec, records).and_then(|header| {
            let body = match target.codec {
                Codec::None => &*records,
                _ => {
                    compress_into(target, records, packed);
                    &*packed
                }
            };
            let batch_bytes = body.len() + BATCH_HEADER_BYTES;
            if batch_bytes > batch_bytes_max {
                return Err(RepackError::TooLarge(batch_bytes_max));
            }
            Ok(header.seal(body))
        });
        for kept in [records, packed] {
            kept.clear();
            kept.shrink_to(KEPT_BYTES_MAX);
        }
        batch
    })
}

/// Writes the records one after the other, and gives the header of the batch that they become.
fn write_records(
    sources: &[(BatchHeader, &[u8])],
    codec: Codec,
    out: &mut Vec<u8>,
) -> Result<BatchHeader, RepackError> {
    let Some(&(first, _)) = sources.first() else { return Err(BatchError::Truncated.into()) };
    let (mut index, mut base_timestamp, mut max_timestamp) = (0, None, NO_TIMESTAMP);
    for (header, body) in sources {
        walk_records::<RepackError>(header, body, |record| {
            let timestamp = header.record_timestamp(record.timestamp_delta);
            if timestamp < NO_TIMESTAMP {
                return Err(RepackError::Timestamp { index, timestamp });
            }
            let base = *base_timestamp.get_or_insert(timestamp);
            max_timestamp = max_timestamp.max(timestamp);
            put_view(out, timestamp - base, index, &record);
            index += 1;
            Ok(())
        })?;
    }
    Ok(BatchHeader {
        base_offset: 0,
        leader_epoch: -1,
        attributes: first.attributes_in(codec),
        last_offset_delta: index - 1,
        base_timestamp: base_timestamp.unwrap_or(NO_TIMESTAMP),
        max_timestamp,
        record_count: index,
        ..first
    })
}

/// Small batches of several producers as one; `None` if that can't be, for whatever reason: they are sound each for
/// itself and can be kept as they are.
pub fn merge(
    batches: &[BytesMut],
    target: Compression,
    decompressed_bytes_max: usize,
    batch_bytes_max: usize,
) -> Option<BytesMut> {
    let mut room = decompressed_bytes_max;
    let mut bodies = Vec::with_capacity(batches.len());
    for batch in batches {
        let header = BatchHeader::parse(batch).ok()?;
        let body = records_body(&header, batch, room).ok()?;
        room -= body.len().min(room);
        bodies.push((header, body));
    }
    let sources: Vec<_> = bodies.iter().map(|(header, body)| (*header, &body[..])).collect();
    repack(&sources, target, batch_bytes_max).ok()
}

#[cfg(test)]
mod tests;
