//! The first record of a batch at or after a time, without the records ever being held: of each only length, timestamp
//! and offset are read out of the decoder, piece by piece, up to the one that is sought.
//!
//! What stands behind that record is not looked at (Kafka 3.9 `FileRecords.searchForTimestamp` streams as well).

#![forbid(unsafe_code)]

use crate::base::ids::Offset;
use crate::record::batch::{BATCH_HEADER_BYTES, BatchError, BatchHeader};
use crate::record::compression::decoder::Decoder;
use crate::record::records::RecordError;
use crate::record::varint::{VARINT_BYTES_MAX, VARLONG_BYTES_MAX, take_varint, take_varlong};

/// Attributes, timestamp delta and offset delta, with the length before them.
const RECORD_HEAD_BYTES_MAX: usize = VARINT_BYTES_MAX + 1 + VARLONG_BYTES_MAX + VARINT_BYTES_MAX;

/// What is sought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sought {
    /// The record is not earlier than this.
    pub timestamp: i64,
    /// Nor below this.
    pub offset: Offset,
}

impl Sought {
    fn is(&self, offset: Offset, timestamp: i64) -> bool {
        timestamp >= self.timestamp && offset >= self.offset
    }
}

/// Offset and timestamp of the first record that is what is sought; `None`: the batch has none. `limit` bounds the
/// bytes that the batch may become on the way there.
///
/// # Errors
/// Of the records up to the one that is found.
pub fn first_in_batch(batch: &[u8], sought: Sought, limit: usize) -> Result<Option<(Offset, i64)>, BatchError> {
    let header = BatchHeader::parse(batch)?;
    if header.record_count == 0 {
        return Ok(None);
    }
    let codec = header.codec().ok_or(BatchError::Codec(header.attributes))?;
    let mut records =
        Stream { decoder: Decoder::new(codec, &batch[BATCH_HEADER_BYTES..], limit)?, held: Vec::new(), at: 0 };
    for _ in 0..header.record_count {
        let (timestamp_delta, offset_delta) = records.pass_record()?;
        let offset = header.base_offset.wrapping_add(i64::from(offset_delta));
        let timestamp = header.record_timestamp(timestamp_delta);
        if sought.is(offset, timestamp) {
            return Ok(Some((offset, timestamp)));
        }
    }
    Ok(None)
}

/// Decompressed bytes, of which a piece is held at a time.
struct Stream<'a> {
    decoder: Decoder<'a>,
    held: Vec<u8>,
    /// Where in `held` the next byte is.
    at: usize,
}

impl Stream<'_> {
    /// Passes over a record, and gives its timestamp's and its offset's delta.
    fn pass_record(&mut self) -> Result<(i64, i32), BatchError> {
        let head = self.peek(RECORD_HEAD_BYTES_MAX)?;
        let mut rest = head;
        let length = take_varint(&mut rest).ok_or(RecordError::Number)?;
        let length = usize::try_from(length).map_err(|_| RecordError::CutShort)?;
        let behind_length = rest.len();
        let (_attributes, after) = rest.split_first().ok_or(RecordError::CutShort)?;
        rest = after;
        let timestamp_delta = take_varlong(&mut rest).ok_or(RecordError::Number)?;
        let offset_delta = take_varint(&mut rest).ok_or(RecordError::Number)?;
        if behind_length - rest.len() > length {
            return Err(RecordError::Length.into());
        }
        let record_bytes = (head.len() - behind_length).saturating_add(length);
        self.pass(record_bytes)?;
        Ok((timestamp_delta, offset_delta))
    }

    /// The next bytes, so many or up to the end.
    fn peek(&mut self, bytes: usize) -> Result<&[u8], BatchError> {
        while self.held.len() - self.at < bytes {
            self.held.drain(..self.at);
            self.at = 0;
            if !self.decoder.read_piece(&mut self.held)? {
                break;
            }
        }
        let rest = &self.held[self.at..];
        Ok(&rest[..rest.len().min(bytes)])
    }

    fn pass(&mut self, mut bytes: usize) -> Result<(), BatchError> {
        while bytes > self.held.len() - self.at {
            bytes -= self.held.len() - self.at;
            self.held.clear();
            self.at = 0;
            if !self.decoder.read_piece(&mut self.held)? {
                return Err(RecordError::CutShort.into());
            }
        }
        self.at += bytes;
        Ok(())
    }
}

/// Seeks in arbitrary bytes; must neither panic nor pass its limit.
pub fn fuzz_first_in_batch(batch: &[u8]) {
    for timestamp in [0, i64::MAX] {
        let _ = first_in_batch(batch, Sought { timestamp, offset: 0 }, 1 << 16);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::splitmix64::next;
    use crate::record::batch::{BatchBuilder, decode_records};
    use crate::record::compression::{Codec, CompressionError};

    const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
    const LIMIT: usize = 1 << 22;

    /// Records of a few bytes and of more than a piece, at times that do not ascend.
    fn batch(codec: Codec) -> Vec<u8> {
        let mut builder = BatchBuilder::new(codec).base_offset(500);
        let mut seed = 7;
        for _ in 0..300 {
            let bytes = if next(&mut seed).is_multiple_of(50) { 200_000 } else { next(&mut seed) as usize % 200 };
            let timestamp = 10_000 + (next(&mut seed) % 1000) as i64;
            builder.push(timestamp, Some(b"key"), Some(&vec![next(&mut seed) as u8; bytes]), &[(b"h", None)]);
        }
        builder.build().to_vec()
    }

    #[test]
    fn the_first_record_is_that_of_a_walk_over_all_of_them() {
        for codec in CODECS {
            let batch = batch(codec);
            let records = decode_records(&batch, LIMIT).unwrap();
            for timestamp in (9_990..11_010).step_by(30) {
                for offset in [0, 500, 650, 799, 800] {
                    let found = records.iter().find(|record| record.timestamp >= timestamp && record.offset >= offset);
                    let expected = found.map(|record| (record.offset, record.timestamp));
                    let sought = Sought { timestamp, offset };
                    assert_eq!(first_in_batch(&batch, sought, LIMIT).unwrap(), expected, "{codec:?} {sought:?}");
                }
            }
        }
    }

    #[test]
    fn what_lies_behind_the_record_is_neither_decompressed_nor_looked_at() {
        let sought = Sought { timestamp: 10_000, offset: 0 };
        for codec in CODECS {
            let whole = batch(codec);
            let cut = &whole[..whole.len() - 5];
            assert_eq!(first_in_batch(cut, sought, LIMIT).unwrap().unwrap().0, 500, "{codec:?}");
            assert!(first_in_batch(cut, Sought { timestamp: 20_000, offset: 0 }, LIMIT).is_err(), "{codec:?}");
        }
        let mut bomb = BatchBuilder::new(Codec::Zstd);
        bomb.push(10_000, None, None, &[]);
        bomb.push(20_000, None, Some(&vec![0; 1 << 22]), &[]);
        bomb.push(30_000, None, None, &[]);
        let bomb = bomb.build();
        assert_eq!(first_in_batch(&bomb, sought, 1 << 17).unwrap(), Some((0, 10_000)));
        let refused = first_in_batch(&bomb, Sought { timestamp: 30_000, offset: 0 }, 1 << 17);
        assert!(matches!(refused, Err(BatchError::Compression(CompressionError::TooLong { .. }))), "{refused:?}");
    }

    #[test]
    fn damaged_batches_never_panic_and_a_batch_without_records_has_nothing() {
        let mut seed = 11;
        for codec in CODECS {
            let mut builder = BatchBuilder::new(codec);
            (0..9).for_each(|at| builder.push(at, Some(b"k"), Some(b"value"), &[]));
            let sound = builder.build();
            for _ in 0..2000 {
                let mut damaged = sound.to_vec();
                let at = next(&mut seed) as usize % damaged.len();
                damaged[at] = next(&mut seed) as u8;
                damaged.truncate(next(&mut seed) as usize % (damaged.len() + 1));
                fuzz_first_in_batch(&damaged);
            }
            let emptied = crate::record::rewrite::empty_batch(&BatchHeader::parse(&sound).unwrap());
            assert_eq!(first_in_batch(&emptied, Sought { timestamp: 0, offset: 0 }, LIMIT).unwrap(), None);
        }
    }
}
