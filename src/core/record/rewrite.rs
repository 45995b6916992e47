//! A batch with some of its records gone, as compaction leaves it (Kafka 3.9 `MemoryRecords.buildRetainedRecordsInto`,
//! KIP-534).
//!
//! Base offset, last offset, sequence, producer, codec and leader epoch stay, so that nobody sees a gap in sequences or
//! other offsets. With a delete horizon the base timestamp is that, and the records' deltas count from it.

#![forbid(unsafe_code)]

use crate::record::batch::{BatchHeader, NO_TIMESTAMP, TimestampType, assemble};
use crate::record::compression::{Codec, compress};
use crate::record::records::{RecordView, put_record};

/// A batch under construction.
#[derive(Debug)]
pub struct Rewrite {
    header: BatchHeader,
    has_base: bool,
    max_timestamp: i64,
    body: Vec<u8>,
}

impl Rewrite {
    /// Of the batch with this header; `delete_horizon_ms`: when its tombstones or its marker may go.
    pub fn new(header: &BatchHeader, delete_horizon_ms: Option<i64>) -> Rewrite {
        let mut rewritten = BatchHeader { record_count: 0, ..*header };
        rewritten.set_delete_horizon(delete_horizon_ms);
        Rewrite {
            header: rewritten,
            has_base: delete_horizon_ms.is_some(),
            max_timestamp: NO_TIMESTAMP,
            body: Vec::new(),
        }
    }

    /// Keeps a record of the original batch, whose timestamp is `timestamp`.
    pub fn push(&mut self, record: &RecordView<'_>, timestamp: i64) {
        if !std::mem::replace(&mut self.has_base, true) {
            self.header.base_timestamp = timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        let delta = timestamp.wrapping_sub(self.header.base_timestamp);
        let headers: Vec<_> = record.headers().collect();
        put_record(&mut self.body, delta, record.offset_delta, record.key, record.value, &headers);
        self.header.record_count += 1;
    }

    /// The batch, with at least one record.
    pub fn build(mut self) -> Vec<u8> {
        assert!(self.header.record_count > 0, "a batch without records has a form of its own");
        if self.header.timestamp_type() == TimestampType::CreateTime {
            self.header.max_timestamp = self.max_timestamp;
        }
        match self.header.codec() {
            Some(Codec::None) | None => assemble(&self.header, &self.body),
            Some(codec) => assemble(&self.header, &compress(codec, &self.body)),
        }
    }
}

/// What stays of a batch without any of its records: who wrote it, and up to which sequence.
pub fn empty_batch(header: &BatchHeader) -> Vec<u8> {
    let mut emptied = BatchHeader { record_count: 0, ..*header };
    emptied.set_codec(Codec::None);
    emptied.set_delete_horizon(None);
    emptied.base_timestamp = NO_TIMESTAMP;
    assemble(&emptied, &[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::batch::{BatchBuilder, decode_records, has_valid_crc, records_body, walk_records};

    const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    fn original(codec: Codec) -> Vec<u8> {
        let mut builder = BatchBuilder::new(codec).base_offset(500).leader_epoch(4).producer(7, 2, 30).transactional();
        for at in 0..5 {
            builder.push(10_000 + 10 * at, Some(&[b'k', at as u8]), Some(&[b'v'; 30]), &[(b"h", None)]);
        }
        builder.build().to_vec()
    }

    /// Keeps the records at these places.
    fn rewritten(batch: &[u8], kept: &[i32], horizon: Option<i64>) -> Vec<u8> {
        let header = BatchHeader::parse(batch).unwrap();
        let body = records_body(&header, batch, 1 << 20).unwrap();
        let mut rewrite = Rewrite::new(&header, horizon);
        walk_records::<crate::record::batch::BatchError>(&header, &body, |record| {
            if kept.contains(&record.offset_delta) {
                rewrite.push(&record, header.record_timestamp(record.timestamp_delta));
            }
            Ok(())
        })
        .unwrap();
        rewrite.build()
    }

    #[test]
    fn what_is_kept_reads_as_before_and_the_batch_keeps_its_ends_and_its_producer() {
        for codec in CODECS {
            let before = original(codec);
            let old = decode_records(&before, 1 << 20).unwrap();
            for horizon in [None, Some(77_777), Some(5)] {
                let after = rewritten(&before, &[1, 3], horizon);
                assert!(has_valid_crc(&after));
                let header = BatchHeader::parse(&after).unwrap();
                assert_eq!(decode_records(&after, 1 << 20).unwrap(), [old[1].clone(), old[3].clone()], "{codec:?}");
                assert_eq!(header.delete_horizon_ms(), horizon);
                let first = BatchHeader::parse(&before).unwrap();
                let expected = BatchHeader {
                    batch_length: header.batch_length,
                    crc: header.crc,
                    attributes: header.attributes,
                    base_timestamp: horizon.unwrap_or(10_010),
                    max_timestamp: 10_030,
                    record_count: 2,
                    ..first
                };
                assert_eq!(header, expected);
                assert_eq!(header.codec(), Some(codec));
                // Once more, with the horizon that it has.
                let again = rewritten(&after, &[3], header.delete_horizon_ms());
                assert_eq!(decode_records(&again, 1 << 20).unwrap(), [old[3].clone()]);
            }
        }
    }

    #[test]
    fn an_emptied_batch_is_a_header_that_still_says_who_wrote_it() {
        let before = original(Codec::Zstd);
        let header = BatchHeader::parse(&before).unwrap();
        let after = empty_batch(&header);
        let emptied = BatchHeader::parse(&after).unwrap();
        assert!(has_valid_crc(&after) && after.len() == 61);
        assert_eq!((emptied.base_offset, emptied.last_offset(), emptied.last_sequence()), (500, 504, 34));
        assert_eq!((emptied.producer_id, emptied.producer_epoch, emptied.leader_epoch), (7, 2, 4));
        assert_eq!((emptied.codec(), emptied.base_timestamp, emptied.max_timestamp), (Some(Codec::None), -1, 10_040));
        assert!(emptied.is_transactional() && emptied.record_count == 0);
        assert_eq!(decode_records(&after, 0).unwrap(), []);
    }
}
